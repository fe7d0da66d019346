#!/usr/bin/env bats
# SPDX-License-Identifier: Apache-2.0
#
# --container-mpi: MPICH of three Debian releases, as the host's and as the image's.
#
#            MPICH   libmpich.so   needs of the C library
#   old      3.4.1   12.1.10       2.17
#   same     4.0.2   12.2.2        2.34, this machine's own
#   new      4.2.1   12.4.1        2.38

load ../lib/helpers
load ../lib/images
load ../lib/run

setup_file() {
	local old new libs=/usr/lib/x86_64-linux-gnu
	bats_require_minimum_version 1.5.0
	cd "$BATS_FILE_TMPDIR" || return
	chmod 755 . # nodes read the libraries
	old=$("$repo/integration/programs/fetch-package" bullseye libmpich12)$libs
	new=$("$repo/integration/programs/fetch-package" trixie libmpich12 libucx0 libc6)$libs
	other=$("$repo/integration/programs/fetch-package" bookworm libopenmpi3)$libs
	ln -s "$old" old
	ln -s "$libs" same
	ln -s "$new" new
	make_images
	mpicc -O2 -Wall -Wextra -Werror -o mpi_library "$repo/integration/programs/mpi_library.c"
	install -o "$BROLGA_TEST_USER" mpi_library "$user_home/mpi_library"
}

make_images() {
	make_image old "$libs" "$old"/libmpich.so.12*
	make_image new "$new" "$new"/libmpi{,ch}.so.12*
	make_image other "$libs" "$other"/libmpi.so.40*
	make_image none "$libs"
	make_image musl "" "$old"/libmpich.so.12*
}

# make_image NAME DIR LIBRARY...: with the C library in DIR and the libraries.
make_image() (
	export BATS_TEST_TMPDIR=$BATS_FILE_TMPDIR
	name=$1 libc=$2
	shift 2
	new_image
	mkdir -p "$image$libs" "$image/lib64"
	if [[ -n $libc ]]; then
		cp -L "$libc"/lib{c,m}.so.6 "$libc"/lib{pthread.so.0,rt.so.1,dl.so.2} "$image$libs"
		cp -L "$libc"/ld-linux-x86-64.so.2 "$image/lib64"
	fi
	(($# == 0)) || cp -a "$@" "$image$libs"
	echo "$libs" >"$image/etc/ld.so.conf"
	[[ -z $libc ]] || ldconfig -r "$image"
	push_image "mpi-$name"
	echo "$ref" >"ref-$name"
)

setup() {
	mark_logs
	as_user scancel --quiet --user "$BROLGA_TEST_USER"
}

teardown() {
	dump_logs_on_failure
	restore_site_config
}

# in_image NAME: sets $from to the option for that image.
in_image() {
	from=--container-image=$BROLGA_TEST_IMAGE
	[[ $1 == same ]] || from=--container-image=$(<"$BATS_FILE_TMPDIR/ref-$1")
}

# offer CHECK [TEXT]: the site offers all three MPIs, "old" last; TEXT comes after it.
offer() {
	local name dir text=
	for name in new same old; do
		dir=$BATS_FILE_TMPDIR/$name
		text+="[[mpi]]
			name = '$name'
			libraries = ['$dir/libmpich.so.12', '$dir/libmpichfort.so.12', '$dir/libmpichcxx.so.12']
			check = '$1'
		"
	done
	site_config "$text${2:-}"
}

all_ranks=(--mpi=pmi2 -N4 --ntasks-per-node=2)

# expect_ranks VERSION INODE: all eight ranks run with that library.
expect_ranks() {
	local ranks
	ranks=$(grep -oE "^rank [0-7] of 8 sum 28: MPICH Version:[[:space:]]+$1: $2 /" <<<"$output" | sort -u | wc -l)
	((ranks == 8)) || fail "$ranks of 8 ranks with MPICH $1 in inode $2: $output"
}

inode() { stat -Lc %i "$BATS_FILE_TMPDIR/$1/libmpich.so.12"; }

@test "mpi: the host's library is mapped in all ranks, and the image's if nobody asks" {
	offer major
	in_image same
	run_ok crun "${all_ranks[@]}" "$from" --container-mpi=old ./mpi_library
	expect_ranks 3.4.1 "$(inode old)"
	expect_line "brolga: warning: MPI old uses the host's libmpich.so.12.1.10 for the image's libmpich.so.12.2.2: the host's is older and may lack what the program needs"
	(($(grep -c 'brolga: warning: ' <<<"$output") == 4)) || fail "not one warning for each node: $output"
	run_ok crun "${all_ranks[@]}" "$from" ./mpi_library
	expect_ranks 4.0.2 '[0-9]+'
	refute_match " $(inode same) |brolga:"
	expect_no_leftovers
}

@test "mpi: what the host's library needs and the image lacks comes along" {
	offer strict
	in_image new
	run_fails crun "$from" --container-mpi=same ./mpi_library
	offer full
	in_image old
	run_ok crun "${all_ranks[@]}" "$from" --container-mpi=same --container-verbose ./mpi_library
	expect_ranks 4.0.2 "$(inode same)"
	expect_match 'brolga: MPI same: /usr/lib/x86_64-linux-gnu/libmpich.so.12.2.2 of the host replaces /usr/lib/x86_64-linux-gnu/libmpich.so.12.1.10$'
	expect_match 'brolga: MPI same: /usr/lib/x86_64-linux-gnu/libhwloc.so.15[.0-9]* of the host is added to /usr/lib/x86_64-linux-gnu$'
	refute_match 'warning'
}

@test "mpi: brolga run does the same, without privilege" {
	users_reach_files
	offer full
	run_ok brun --mpi=same --verbose "$(<"$BATS_FILE_TMPDIR/ref-old")" ./mpi_library
	expect_match "^rank 0 of 1 sum 0: MPICH Version:[[:space:]]+4.0.2: $(inode same) /"
	expect_match 'brolga: MPI same: .*/libhwloc.so.15[.0-9]* of the host is added to /usr/lib/x86_64-linux-gnu$'
	run_ok brun "$(<"$BATS_FILE_TMPDIR/ref-old")" ./mpi_library
	expect_match "^rank 0 of 1 sum 0: MPICH Version:[[:space:]]+3.4.1: "
	run -125 brun --mpi=none "$(<"$BATS_FILE_TMPDIR/ref-old")" ./mpi_library
	expect_match '^brolga: error: .*none'
	expect_nothing_left
}

# verdict HOST IMAGE CHECK: what becomes of it.
verdict() {
	local -A minor=([old]=1 [same]=2 [new]=4)
	if [[ $3 == strict && $1 != "$2" ]]; then
		echo 'the site wants them to be the same'
	elif [[ $3 == full ]] && ((minor[$1] < minor[$2])); then
		echo "the host's is older, which the site does not allow"
	elif [[ $1 == new && $2 != new ]]; then
		echo "the host's libmpich.so.12.4.1 needs GLIBC_2.38, and the image's libc.so.6 has only GLIBC_2.36"
	elif ((minor[$1] < minor[$2])); then
		echo warning
	else
		echo fits
	fi
}

@test "mpi: each MPI of the host fits each image's or says why not" {
	local -A version=([old]=3.4.1 [same]=4.0.2 [new]=4.2.1)
	for check in major full strict; do
		offer "$check"
		for host in old same new; do
			for with in old same new; do
				in_image "$with"
				wanted=$(verdict "$host" "$with" "$check")
				run crun --mpi=pmi2 "$from" --container-mpi="$host" ./mpi_library
				case $wanted in
				fits) refute_match 'brolga:' ;;
				warning) expect_match "brolga: warning: MPI $host .* the host's is older" ;;
				*)
					((status != 0)) || fail "$host in $with, $check: $output"
					expect_match "brolga: error: hook mpi: $host: .*$wanted"
					expect_match 'brolga: hint: --no-container-mpi runs the image.s own MPI'
					continue
					;;
				esac
				((status == 0)) || fail "$host in $with, $check: $output"
				expect_match "^rank 0 of 1 sum 0: MPICH Version:[[:space:]]+${version[$host]}: $(inode "$host") /"
			done
		done
	done
	nodes_idle
	expect_no_leftovers
}

@test "mpi: an image whose MPI does not fit at all is refused, naming both" {
	offer major
	in_image other
	run_fails crun "$from" --container-mpi=same cat /proc/self/maps
	expect_one_error "hook mpi: same: cannot use the host's libmpich.so.12.2.2 for the image's libmpi.so.40.30.4: their ABIs are 12 and 40"
	in_image none
	run_fails crun "$from" --container-mpi=same true
	expect_one_error "hook mpi: same: no MPI library was found in the image"
	in_image musl
	run_fails crun "$from" --container-mpi=same true
	expect_one_error "hook mpi: same: the host's libraries need the GNU C library, and the image has none for this machine"
	nodes_idle
}

@test "mpi: by the site's wish it is replaced where it fits, and users can say no" {
	offer major "[container]
		mpi = 'same'"
	in_image old
	run_ok crun "$from" --mpi=pmi2 ./mpi_library
	expect_match ": $(inode same) /"
	run_ok crun "$from" --mpi=pmi2 --no-container-mpi ./mpi_library
	expect_match 'MPICH Version:[[:space:]]+3.4.1: '
	run_ok as_user env BROLGA_CONTAINER_MPI=no srun "$from" --mpi=pmi2 ./mpi_library
	expect_match 'MPICH Version:[[:space:]]+3.4.1: '
	run_ok as_user env BROLGA_CONTAINER_MPI=no srun "$from" --mpi=pmi2 --container-mpi ./mpi_library
	expect_match ": $(inode same) /"
	in_image none
	run_ok crun "$from" sh -c "echo in the image"
	[[ $output == "in the image" ]] || fail "$output"
	in_image other
	run_ok crun "$from" sh -c "echo in the image"
	expect_line "in the image"
	expect_line "brolga: warning: the image's own MPI is used: MPI same: cannot use the host's libmpich.so.12.2.2 for the image's libmpi.so.40.30.4: their ABIs are 12 and 40"
}

@test "mpi: mistakes are told before anything is submitted, and the site's on the node" {
	in_image old
	run_fails crun "$from" --container-mpi true
	expect_line 'brolga: error: --container-mpi: this cluster offers no MPI of the host'
	offer major
	refused '--container-mpi: "cray" is not one of new, same, old' "$from" --container-mpi=cray
	site_config "[[mpi]]
		name = 'gone'
		libraries = ['/no/such/libmpi.so.12', 'libnowhere.so.12']"
	run_fails crun "$from" --container-mpi true
	expect_one_error "hook mpi: gone: open the host's library: lstat /no: no such file or directory; find libnowhere.so.12 on this node: it is not in /etc/ld.so.cache"
	offer major "dependencies = ['libc.so.6']"
	run_fails crun "$from" --container-mpi=old true
	expect_one_error "hook mpi: old: dependency libc.so.6 is part of the C library, which must be the image's: the site must leave it out"
	nodes_idle
}

@test "mpi: brolga hooks lists the MPIs that users can name" {
	offer major "[container]
		mpi = 'same'"
	run_ok as_user brolga hooks --config "$BROLGA_CONFIG"
	expect_match "^mpi +inspect +--container-mpi, or the site wants it +puts the host.s MPI libraries"
	expect_match "^mpi new +inspect +--container-mpi=new +shows $BATS_FILE_TMPDIR/new/libmpich.so.12, "
	expect_match "^mpi same +inspect +--container-mpi=same, all images that it fits +shows "
}

@test "mpi: a dependency of the site's list replaces the image's" {
	offer major "dependencies = ['libgfortran.so.5', 'libhwloc.so.15']"
	in_image same
	run_ok crun "$from" --container-mpi=old --container-verbose sh -c "stat -Lc %i /usr/lib/x86_64-linux-gnu/libgfortran.so.5"
	expect_line "$(stat -Lc %i /usr/lib/x86_64-linux-gnu/libgfortran.so.5)"
	expect_match 'brolga: MPI old: /usr/lib/x86_64-linux-gnu/libhwloc.so.15[.0-9]* of the host replaces /usr/lib/x86_64-linux-gnu/libhwloc.so.15'
	in_image old
	run_ok crun "$from" --container-mpi=old --container-verbose sh -c "true"
	expect_match 'brolga: MPI old: /usr/lib/x86_64-linux-gnu/libhwloc.so.15[.0-9]* of the host is added to /usr/lib/x86_64-linux-gnu$'
}

@test "mpi: its mounts, devices and variables come with it and with nothing else" {
	mkdir -p "$BATS_FILE_TMPDIR/providers"
	touch "$BATS_FILE_TMPDIR/providers/libx-fi.so"
	offer major "mounts = ['$BATS_FILE_TMPDIR/providers:/opt/providers:ro', '/no/such/directory']
		devices = ['/dev/loop-control']
		env = ['FI_PROVIDER_PATH=/opt/providers', 'FI_PROVIDER=x']"
	in_image old
	what='echo "$FI_PROVIDER_PATH $FI_PROVIDER"; ls /opt/providers /dev/loop-control 2>/dev/null; true'
	run_ok crun "$from" --container-mpi=old --container-env=FI_PROVIDER=mine sh -c "$what"
	expect_line "/opt/providers mine"
	expect_line libx-fi.so
	expect_line /dev/loop-control
	run_ok crun "$from" --container-mpi=same sh -c "$what"
	expect_line " "
	refute_match '^libx-fi.so$'
}

@test "mpi: what is known of an image from an earlier step counts until the host or the site changes" {
	local host=$BATS_FILE_TMPDIR/host known='brolga: hook mpi: known from an earlier step'
	mkdir -p "$host"
	offer_host() {
		site_config "[[mpi]]
			name = 'host'
			libraries = ['$host/libmpich.so.12', '$host/libmpichfort.so.12', '$host/libmpichcxx.so.12']
			check = '$1'"
	}
	# decides NAME KNOWN: the next step has the library of NAME, and has or has not
	# looked at the image.
	decides() {
		run_ok crun -w n1 --mpi=pmi2 "$from" --container-mpi=host --container-verbose ./mpi_library
		expect_match "^rank 0 of 1 sum 0: MPICH Version:[[:space:]]+[0-9.]+: $(inode "$1") /"
		if [[ $2 == known ]]; then expect_line "$known"; else refute_match "$known"; fi
	}
	in_image old
	ln -sf "$BATS_FILE_TMPDIR"/old/libmpich*.so.12 "$host"
	offer_host major
	decides old new
	decides old known
	cd "$BATS_FILE_TMPDIR"
	mkdir -p copy
	cp -a /usr/lib/x86_64-linux-gnu/libmpich{,fort,cxx}.so.12* copy
	ln -sf "$PWD"/copy/libmpich*.so.12 "$host"
	decides copy new
	decides copy known
	touch copy/libmpich.so.12
	decides copy new
	offer_host strict
	run_fails crun -w n1 --mpi=pmi2 "$from" --container-mpi=host true
	expect_match 'the site wants them to be the same'
	offer_host major
	decides copy known
	in_image same
	decides copy new
	chmod o+w "$BROLGA_CLUSTER_DIR"/run/found/*
	decides copy new
	expect_no_leftovers
}

@test "mpi: what a step has changed in a named container is looked at again" {
	offer major
	in_image old
	run_ok as_user env FROM="$from" timeout 90 salloc --quiet -N1 -w n1 bash -c '
		srun --mpi=pmi2 "$FROM" --container-mpi=same --container-name=c ./mpi_library
		srun --mpi=pmi2 --container-name=c --container-mpi=same --container-verbose ./mpi_library
		srun "$FROM" --container-remap-root --container-name=d sh -c "/bin/busybox rm -v /usr/lib/x86_64-linux-gnu/libmpich.so*"
		srun --container-name=d --container-mpi=same true || true'
	(($(grep -cE "^rank 0 of 1 sum 0: MPICH Version:[[:space:]]+4.0.2: $(inode same) /" <<<"$output") == 2)) || fail "$output"
	expect_line 'brolga: error: hook mpi: same: no MPI library was found in the image'
	refute_match 'known from an earlier step'
}

@test "mpi: an image leads nowhere, whatever it calls its libraries" {
	local libs=/usr/lib/x86_64-linux-gnu
	offer major
	new_image
	mkdir -p "$image/lib64" "$image/usr/lib" "$image/lib/libmpich.so.12"
	# On the host there is one, in the image there is none.
	ln -s "../../../../../../../../$libs/libmpich.so.12" "$image/lib64/libmpich.so.12"
	ln -s /proc/self/exe "$image/usr/lib/libmpich.so.12"
	mkfifo "$image/usr/lib/libmpi.so.12"
	head -c 100000 /dev/urandom >"$image/etc/ld.so.cache"
	push_image --env "LD_LIBRARY_PATH=/lib64/../..$BATS_FILE_TMPDIR/same:.:/" mpi-hostile
	run_fails crun --container-image="$ref" --container-mpi=same true
	expect_one_error "hook mpi: same: no MPI library was found in the image"
	nodes_idle
	expect_no_leftovers
}
