#!/usr/bin/env bats
# SPDX-License-Identifier: Apache-2.0
#
# --container-glibc: the C library of this machine, Debian 12, in images of older and
# newer releases.
#
#   old      Debian 11, 2.31, whose newest symbols are GLIBC_2.30
#   same     Debian 12, 2.36
#   new      Debian 13, 2.41

load ../lib/helpers
load ../lib/images
load ../lib/run

libs=/usr/lib/x86_64-linux-gnu

setup_file() {
	bats_require_minimum_version 1.5.0
	cd "$BATS_FILE_TMPDIR" || return
	chmod 755 .
	old=$("$repo/integration/programs/fetch-package" bullseye libc6 libc-bin bash libtinfo6 libmpich12)
	new=$("$repo/integration/programs/fetch-package" trixie libc6 libc-bin bash libtinfo6)
	make_image old "$old"
	make_image new "$new"
	make_image stripped "$old" # of its ld.so.cache
	make_image musl ""
	cc -O1 -Wall -Wextra -Werror -o glibc_program "$repo/integration/programs/glibc_program.c" -lm -ldl -pthread
	mpicc -O2 -Wall -Wextra -Werror -o mpi_library "$repo/integration/programs/mpi_library.c"
	install -o "$BROLGA_TEST_USER" glibc_program mpi_library "$user_home"
}

# make_image NAME DIRECTORY: of the files in DIRECTORY.
make_image() (
	export BATS_TEST_TMPDIR=$BATS_FILE_TMPDIR
	new_image
	if [[ -n $2 ]]; then
		cp -a "$2"/. "$image"
		for dir in lib lib64; do # packages of Debian 13 leave these to the base system
			[[ -e $image/$dir ]] || ln -s "usr/$dir" "$image/$dir"
		done
		printf '%s\n' /lib/x86_64-linux-gnu "$libs" >"$image/etc/ld.so.conf"
		[[ $1 == stripped ]] || ldconfig -r "$image"
	fi
	push_image --env PATH=/bin:/usr/bin "glibc-$1"
	echo "$ref" >"ref-$1"
)

setup() {
	mark_logs
	from=
}

# in_image NAME: sets $from to the option for that image.
in_image() {
	from=--container-image=$BROLGA_TEST_IMAGE
	[[ $1 == same ]] || from=--container-image=$(<"$BATS_FILE_TMPDIR/ref-$1")
}

# expect_program RELEASE [INODE]: the program said what it says with that release.
expect_program() {
	expect_line "release $1"
	expect_line 'thread 4'
	expect_line "name $BROLGA_TEST_USER"
	expect_line 'converted €'
	expect_line 'resolved 127.0.0.1'
	refute_match dlopen
}

host=$(getconf GNU_LIBC_VERSION | cut -d' ' -f2)

@test "glibc: a program of the host's release runs in an older image, all of whose C library is the host's" {
	local file
	in_image old
	run_fails crun "$from" ./glibc_program
	expect_match "version .GLIBC_2.34. not found"
	run_ok crun -N2 "$from" --container-glibc --container-verbose ./glibc_program
	expect_program "$host"
	for file in libc.so.6 libm.so.6 libdl.so.2 libpthread.so.0 ld-linux-x86-64.so.2; do
		expect_match "^mapped $(stat -Lc %i "$libs/$file") /lib/x86_64-linux-gnu/"
	done
	expect_match 'brolga: C library: GLIBC_2.36 of the host replaces GLIBC_2.30$'
	expect_match 'brolga: C library: .*/libc.so.6 of the host replaces /lib/x86_64-linux-gnu/libc-2.31.so$'
	expect_no_leftovers
	nodes_idle
}

@test "glibc: brolga run does the same, without privilege" {
	run -1 brun "$(<"$BATS_FILE_TMPDIR/ref-old")" ./glibc_program
	expect_match "version .GLIBC_2.34. not found"
	run_ok brun --glibc --verbose "$(<"$BATS_FILE_TMPDIR/ref-old")" ./glibc_program
	expect_program "$host"
	expect_match "^mapped $(stat -Lc %i "$libs/libc.so.6") /lib/x86_64-linux-gnu/"
	expect_match 'brolga: C library: GLIBC_2.36 of the host replaces GLIBC_2.30$'
	expect_nothing_left
}

@test "glibc: the image's own programs run with the host's C library, and nothing of the image has changed" {
	in_image old
	run_ok crun "$from" --container-glibc bash -c 'echo $BASH_VERSION; getconf GNU_LIBC_VERSION; echo ${LC_ALL:-none}; iconv -f latin1 -t utf8 <<<plain; cat <(echo process)'
	expect_match '^5\.1'
	expect_line "glibc $host"
	expect_line plain
	expect_line process
	run_ok crun "$from" getconf GNU_LIBC_VERSION
	expect_line 'glibc 2.31'
}

@test "glibc: a newer one, and one of the same release, is left alone" {
	in_image new
	run_ok crun "$from" --container-glibc --container-verbose bash -c 'getconf GNU_LIBC_VERSION; $HOME/glibc_program'
	expect_line 'glibc 2.41'
	expect_program 2.41
	expect_match 'brolga: C library: GLIBC_2.41 of the image stays: the host.s, GLIBC_2.36, is not newer'
	refute_match 'of the host replaces'
	in_image same
	run_ok crun "$from" --container-glibc --container-verbose ./glibc_program
	expect_program "$host"
	expect_match 'brolga: C library: GLIBC_2.36 of the image stays'
}

@test "glibc: an MPI of the host that needs it runs in an older image" {
	site_config "[[mpi]]
		name = 'host'
		libraries = ['libmpich.so.12', 'libmpichfort.so.12', 'libmpichcxx.so.12']"
	in_image old
	run_fails crun "$from" --mpi=pmi2 --container-mpi ./mpi_library
	expect_match "brolga: error: hook mpi: host: the host's .* needs GLIBC_2.3[2-6], and the image's libc.so.6 has only GLIBC_2.30"
	expect_match 'brolga: hint: .*--container-glibc'
	for _ in first known; do
		run_ok crun -N2 "$from" --mpi=pmi2 --container-mpi --container-glibc ./mpi_library
		expect_match "^rank [01] of 2 sum 1: MPICH Version:[[:space:]]+4.0.2: $(stat -Lc %i "$libs/libmpich.so.12") /"
	done
	run_fails crun "$from" --mpi=pmi2 --container-mpi ./mpi_library
	expect_match 'the image.s libc.so.6 has only GLIBC_2.30'
}

@test "glibc: by the site's wish it is replaced where that makes sense, and users can say no" {
	site_config 'container.glibc = true'
	in_image old
	run_ok crun "$from" getconf GNU_LIBC_VERSION
	expect_line "glibc $host"
	run_ok crun "$from" --no-container-glibc getconf GNU_LIBC_VERSION
	expect_line 'glibc 2.31'
	run_ok as_user env BROLGA_CONTAINER_GLIBC=0 srun "$from" getconf GNU_LIBC_VERSION
	expect_line 'glibc 2.31'
	in_image musl
	run_ok crun "$from" sh -c 'echo in the image'
	[[ $output == 'in the image' ]] || fail "$output"
	restore_site_config
	in_image old
	run_ok as_user env BROLGA_CONTAINER_GLIBC=yes srun "$from" getconf GNU_LIBC_VERSION
	expect_line "glibc $host"
}

@test "glibc: an image that it cannot be used with is refused with a reason" {
	in_image musl
	run_fails crun -n2 "$from" --container-glibc true
	expect_one_error 'hook glibc: the image has no GNU C library for this machine (musl, or static programs only?)'
	expect_match 'brolga: hint: leave --container-glibc out'
	new_image
	mkdir -p "$image/lib/x86_64-linux-gnu" "$image/lib64"
	head -c 100000 /dev/urandom >"$image/lib/x86_64-linux-gnu/libc.so.6"
	ln -s ../../../../../../lib/x86_64-linux-gnu/libc.so.6 "$image/lib64/ld-linux-x86-64.so.2"
	push_image glibc-hostile
	run_fails crun --container-image="$ref" --container-glibc true
	expect_one_error 'hook glibc: the image has no GNU C library for this machine (musl, or static programs only?)'
	refused '--no-container-glibc contradicts --container-glibc: give one of them' "$from" --no-container-glibc --container-glibc
	nodes_idle
	expect_no_leftovers
}

@test "glibc: an image without ld.so.cache keeps working" {
	in_image stripped
	run_ok crun "$from" --container-glibc ./glibc_program
	expect_program "$host"
}

@test "glibc: --container-dry-run and brolga hooks show it" {
	in_image old
	run_ok as_user srun "$from" --container-glibc --container-dry-run true
	[[ $(jq -r .request.Glibc <<<"$output") == yes ]] || fail "$output"
	run_ok as_user brolga hooks --config "$BROLGA_CONFIG"
	expect_match '^glibc +inspect +--container-glibc, or the site wants it +puts the host.s GNU C library'
}
