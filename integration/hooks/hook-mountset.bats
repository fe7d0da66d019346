#!/usr/bin/env bats
# SPDX-License-Identifier: Apache-2.0
#
# --container-mount-set: the site's sets of libraries, mounts, devices and variables,
# with libfabric of this machine, Debian 12, and images with others.
#
#            libfabric
#   old      1.11, Debian 11's
#   new      1.22 or later, Debian 13's, with its C library
#   none     no
#   musl     no, and no GNU C library

load ../lib/helpers
load ../lib/images
load ../lib/run

libs=/usr/lib/x86_64-linux-gnu

setup_file() {
	local old new
	bats_require_minimum_version 1.5.0
	cd "$BATS_FILE_TMPDIR" || return
	chmod 755 .
	old=$("$repo/integration/programs/fetch-package" bullseye libfabric1 libfabric-bin)
	new=$("$repo/integration/programs/fetch-package" trixie libfabric1 libfabric-bin libc6)
	make_image old "$libs" "$old"
	make_image new "$new$libs" "$new"
	make_image none "$libs"
	make_image musl
	mkdir providers
	cc -shared -fPIC -o providers/libsite-fi.so -x c - <<-'C'
		#include <stdio.h>
		void *fi_prov_ini(void)
		{
			fprintf(stderr, "the site's provider\n");
			return NULL;
		}
	C
	install -o "$BROLGA_TEST_USER" /usr/bin/fi_info "$user_home"
}

# make_image NAME [LIBC [DIRECTORY]]: with the C library in LIBC, the files in
# DIRECTORY, and what libfabric needs besides. The program fi_info is on its PATH.
make_image() (
	export BATS_TEST_TMPDIR=$BATS_FILE_TMPDIR
	new_image
	mkdir -p "$image$libs" "$image/lib64"
	if [[ -n ${2:-} ]]; then
		cp -L "$2"/lib{c,m}.so.6 "$2"/lib{pthread.so.0,rt.so.1,dl.so.2} "$image$libs"
		cp -L "$2"/ld-linux-x86-64.so.2 "$image/lib64"
	fi
	if [[ -n ${3:-} ]]; then
		cp -a "$3$libs"/libfabric.so.1* "$image$libs"
		cp "$3/usr/bin/fi_info" "$image/bin"
		ldd "$libs/libfabric.so.1" | awk '$3 ~ "^/" && $1 !~ "^libc[.]" {print $3}' | xargs cp -Lt "$image$libs"
	fi
	echo "$libs" >"$image/etc/ld.so.conf"
	[[ -z ${2:-} ]] || ldconfig -r "$image"
	push_image "mountset-$1"
	echo "$ref" >"ref-$1"
)

setup() { mark_logs; }

in_image() {
	from=--container-image=$BROLGA_TEST_IMAGE
	[[ $1 == debian ]] || from=--container-image=$(<"$BATS_FILE_TMPDIR/ref-$1")
}

# offer TEXT: the site offers libfabric with a provider, a device and a variable; TEXT
# belongs to the set.
offer() {
	site_config "[[mount_set]]
		name = 'net'
		libraries = ['libfabric.so.1']
		mounts = ['$BATS_FILE_TMPDIR/providers/libsite-fi.so:{fi_provider_path}/libsite-fi.so:ro', '/no/such/directory']
		devices = ['/dev/loop-control']
		env = ['FI_LOG_LEVEL=warn', 'SITE=net']
		${1:-}"
}

gets_it() {
	run_ok crun "$from" "$@"
	expect_line 'libfabric: 1.17.0'
	expect_line "the site's provider"
}

# keeps VERSION ARGUMENT...: the container has that libfabric and nothing of the set.
keeps() {
	local version=$1
	shift
	run_ok crun "$from" "$@"
	expect_match "^libfabric: $version"
	refute_match "site's provider|brolga:"
}

see='fi_info --version; fi_info -l; ls -l /dev/loop-control; echo "set $SITE"'

@test "mount set: the host's libfabric with provider, device and variable, for who asks" {
	offer
	in_image old
	gets_it -N2 --container-mount-set=net --container-verbose sh -c "$see"
	expect_line 'set net'
	expect_match ' /dev/loop-control$'
	expect_match 'brolga: mount set net: /usr/lib/x86_64-linux-gnu/libfabric.so.1.20.0 of the host replaces /usr/lib/x86_64-linux-gnu/libfabric.so.1.14.0$'
	gets_it --container-mount-set sh -c "$see"
	keeps 1.11.0 sh -c "$see; true"
	expect_line 'set '
	expect_no_leftovers
	nodes_idle
}

@test "mount set: brolga run does the same, without privilege" {
	users_reach_files
	offer
	run_ok brun --mount-set=net "$(<"$BATS_FILE_TMPDIR/ref-old")" sh -c "$see"
	expect_line 'libfabric: 1.17.0'
	expect_line "the site's provider"
	expect_line 'set net'
	expect_match ' /dev/loop-control$'
	run_ok brun "$(<"$BATS_FILE_TMPDIR/ref-old")" sh -c "$see; true"
	expect_match '^libfabric: 1.11.0'
	expect_line 'set '
	expect_nothing_left
}

@test "mount set: what the library needs is added to an image that has none of it" {
	offer
	in_image none
	gets_it --container-mount-set=net --container-verbose sh -c './fi_info --version; ./fi_info -l'
	expect_match 'brolga: mount set net: .*/libibverbs.so.1[.0-9]* of the host is added to /usr/lib/x86_64-linux-gnu$'
	run_fails crun "$from" sh -c "./fi_info --version"
	in_image musl
	run_fails crun "$from" --container-mount-set=net true
	expect_one_error "hook mountset: net: the host's libraries need the GNU C library, and the image has none for this machine"
}

@test "mount set: by the site's wish images that have the library get it, and no others" {
	offer "use = 'image'"
	in_image old
	for _ in first known; do
		gets_it sh -c "$see"
	done
	keeps 1.11.0 --no-container-mount-set sh -c "$see; true"
	run_ok as_user env BROLGA_CONTAINER_MOUNT_SET=0 srun "$from" sh -c 'echo "set $SITE"'
	expect_line 'set '
	for name in none musl; do
		in_image "$name"
		run_ok crun "$from" sh -c 'echo "set $SITE"'
		[[ $output == 'set ' ]] || fail "$output"
	done
}

@test "mount set: a library of the image that is newer stays" {
	offer
	in_image new
	run_ok crun "$from" --container-mount-set --container-verbose stat -Lc 'size %s' "$libs/libfabric.so.1"
	expect_line "size $(stat -Lc %s "$("$repo/integration/programs/fetch-package" trixie libfabric1 libfabric-bin libc6)$libs/libfabric.so.1")"
	expect_match "brolga: mount set net: the image's libfabric.so.1.[0-9.]+ stays: it is newer than the host's libfabric.so.1.20.0"
}

@test "mount set: an annotation switches it on, and off where all have it" {
	in_image old
	offer "annotation = 'com.hooks.cxi.enabled=true'"
	keeps 1.11.0 sh -c "$see; true"
	gets_it --container-annotation=com.hooks.cxi.enabled=true sh -c "$see"
	keeps 1.11.0 --container-annotation=com.hooks.cxi.enabled=false sh -c "$see; true"
	offer "annotation = 'com.hooks.cxi.enabled=true'
		use = 'always'"
	gets_it sh -c "$see"
	keeps 1.11.0 --container-annotation=com.hooks.cxi.enabled=false sh -c "$see; true"
	gets_it --container-annotation=com.hooks.cxi.enabled=false --container-mount-set=net sh -c "$see"
}

@test "mount set: providers are where the container's libfabric looks for them" {
	offer
	in_image old
	run_ok crun "$from" --container-mount-set sh -c "ls $libs/libfabric"
	expect_line libsite-fi.so
	new_image
	cp -a "$("$repo/integration/programs/fetch-package" bullseye libfabric1 libfabric-bin)$libs"/libfabric.so.1* "$image"
	push_image --env FI_PROVIDER_PATH=/opt/providers mountset-path
	site_config "[[mount_set]]
		name = 'net'
		mounts = ['$BATS_FILE_TMPDIR/providers/libsite-fi.so:{fi_provider_path}/libsite-fi.so']"
	run_ok crun --container-image="$ref" --container-mount-set ls /opt/providers
	expect_line libsite-fi.so
}

@test "mount set: an MPI that wants the same library, and another set, get along with it" {
	offer "use = 'always'
		[[mount_set]]
		name = 'more'
		use = 'always'
		libraries = ['libfabric.so.1']
		env = ['MORE=1']
		[[mpi]]
		name = 'host'
		libraries = ['libmpich.so.12']
		dependencies = ['libfabric.so.1']"
	in_image debian
	for _ in first known; do
		run_ok crun "$from" --container-mpi --container-verbose sh -c './fi_info --version; echo "$SITE $MORE"; grep -c libfabric /proc/self/mountinfo'
		expect_line 'libfabric: 1.17.0'
		expect_line 'net 1'
		expect_line 2 # the library and the provider
	done
}

@test "mount set: mistakes are told before anything is submitted, and the site's on the node" {
	in_image old
	refused '--container-mount-set: this cluster offers no sets' "$from" --container-mount-set
	offer
	refused '--container-mount-set: "ib" is not one of net' "$from" --container-mount-set=net,ib
	site_config "[[mount_set]]
		name = 'gone'
		use = 'image'
		libraries = ['libnowhere.so.1']"
	run_fails crun "$from" --container-mount-set=gone true
	expect_one_error 'hook mountset: gone: find libnowhere.so.1 on this node: it is not in /etc/ld.so.cache'
	run_ok crun "$from" sh -c 'echo in the image'
	expect_line 'in the image'
	expect_line 'brolga: warning: mount set gone is left out: find libnowhere.so.1 on this node: it is not in /etc/ld.so.cache'
	site_config "[[mount_set]]
		name = 'ib'
		use = 'sometimes'
		devices = ['/etc/*']"
	run_fails crun "$from" true
	expect_match 'mount_set ib: use = "sometimes": want asked, always or image'
	expect_match 'mount_set ib: devices: "/etc/\*": want a pattern below /dev'
	nodes_idle
}

@test "mount set: brolga hooks lists the sets, and --container-dry-run shows what was asked for" {
	offer "use = 'image'
		annotation = 'com.hooks.cxi.enabled=true'"
	run_ok as_user brolga hooks --config "$BROLGA_CONFIG"
	expect_match '^mountset +inspect +--container-mount-set, an annotation, or the site wants it +shows the site.s sets'
	expect_match '^mountset net +inspect +--container-mount-set=net, annotation com.hooks.cxi.enabled=true, an image with libfabric.so.1 +shows libfabric.so.1, .*/dev/loop-control, FI_LOG_LEVEL=warn, SITE=net$'
	in_image old
	run_ok as_user srun "$from" --container-mount-set=net --container-dry-run true
	[[ $(jq -c '.request.MountSets[] | [.Name, .Asked]' <<<"$output") == '["net",true]' ]] || fail "$output"
}
