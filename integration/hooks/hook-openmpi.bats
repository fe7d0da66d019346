#!/usr/bin/env bats
# SPDX-License-Identifier: Apache-2.0
#
# --container-mpi with Open MPI: the host's, 4.1.4 of Debian 12, in an image with 4.1.0
# of Debian 11.

load ../lib/helpers
load ../lib/images

libs=/usr/lib/x86_64-linux-gnu

setup_file() {
	bats_require_minimum_version 1.5.0
	old_image=$("$repo/scripts/cluster" image openmpi-old)
	export old_image
	as_user brolga pull --quiet "$old_image" >/dev/null
	install -m 0755 -o "$BROLGA_TEST_USER" "$repo/integration/programs/ompi_library" "$user_home"
}

setup() {
	mark_logs
	from=--container-image=$old_image
}

# offer [TEXT]: the site offers its Open MPI; TEXT belongs to it.
offer() {
	site_config "[[mpi]]
		name = 'openmpi'
		libraries = ['libmpi.so.40', 'libmpi_mpifh.so.40', 'libmpi_usempif08.so.40', 'libmpi_cxx.so.40']
		dependencies = ['libpmix.so.2']
		modules = ['$libs/openmpi/lib/openmpi3', '$libs/pmix2/lib/pmix']
		${1:-}"
}

# mpi ARGUMENT...: over TCP alone. The nodes of this cluster share one /dev/shm, which
# libfabric's providers may use, too.
mpi() { as_user env OMPI_MCA_pml=ob1 OMPI_MCA_btl=self,tcp timeout 90 srun --mpi=pmix "$from" "$@"; }

# expect_ranks COUNT VERSION INODE
expect_ranks() {
	local ranks
	ranks=$(grep -cE "^rank [0-9]+ of $1 sum $(($1 * ($1 - 1) / 2)): v$2: $3\$" <<<"$output")
	((ranks == $1)) || fail "$ranks of $1 ranks with Open MPI $2 in inode $3: $output"
}

inode() { stat -Lc %i "$libs/$1"; }

@test "openmpi: the host's libraries, core and modules are mapped in all ranks, and the image's if nobody asks" {
	local module
	offer
	run_ok mpi -N2 --ntasks-per-node=2 --container-mpi --container-glibc ./ompi_library
	expect_ranks 4 4.1.4 "$(inode libmpi.so.40)"
	for module in libopen-rte.so.40 libopen-pal.so.40 libpmix.so.2 openmpi/lib/openmpi3/mca_pmix_ext3x.so openmpi/lib/openmpi3/mca_btl_tcp.so; do
		expect_match "^mapped $(inode "$module") "
	done
	refute_match 'component_find|warning|ERROR'
	run_ok mpi -N2 --ntasks-per-node=2 ./ompi_library
	expect_ranks 4 4.1.0 '[0-9]+'
	refute_match " $(inode libmpi.so.40)$"
	expect_no_leftovers
}

@test "openmpi: a C library that is too old is named, for libraries and for modules" {
	offer
	run_fails mpi --container-mpi ./ompi_library
	expect_match "brolga: error: hook mpi: openmpi: the host's [a-z0-9_.-]+ needs GLIBC_2.3[2-6], and the image's libc.so.6 has only GLIBC_2.30"
	expect_match 'brolga: hint: .*--container-glibc'
}

@test "openmpi: what belongs together is replaced together, and what modules need comes along" {
	offer "env = ['SITE=openmpi']"
	run_ok mpi --container-mpi --container-glibc --container-verbose sh -c 'echo "$SITE"'
	expect_line openmpi
	for name in libopen-rte libopen-pal libmca_common_ompio libmca_common_monitoring; do
		expect_match "brolga: MPI openmpi: .*/$name.so.4?[0-9.]+ of the host replaces"
	done
	# Needed by the same name in both releases: it is the image's that stays.
	refute_match 'libevent_core.* of the host replaces'
}

@test "openmpi: an image with MPICH is refused, naming both, and one with Open MPI by MPICH" {
	offer
	from=--container-image=$BROLGA_TEST_IMAGE
	run_fails mpi --container-mpi true
	expect_match "brolga: error: hook mpi: openmpi: cannot use the host's libmpi.so.40.30.4 for the image's libmpich.so.12.2.2: their ABIs are 40 and 12"
	site_config "[[mpi]]
		name = 'mpich'
		libraries = ['libmpich.so.12']"
	from=--container-image=$old_image
	run_fails mpi --container-mpi true
	expect_match "brolga: error: hook mpi: mpich: cannot use the host's libmpich.so.12.2.2 for the image's libmpi.so.40.30.0: their ABIs are 12 and 40"
	nodes_idle
}

@test "openmpi: modules that are not there, and places that are taken, are the site's mistakes" {
	site_config "[[mpi]]
		name = 'openmpi'
		libraries = ['libmpi.so.40']
		modules = ['/no/such/directory']"
	run_fails mpi --container-mpi --container-glibc true
	expect_match 'brolga: error: hook mpi: openmpi: read modules: open /no/such/directory: no such file or directory'
	site_config "[[mpi]]
		name = 'openmpi'
		libraries = ['libmpi.so.40']
		modules = ['./modules:/opt/modules', '/opt:/dev']"
	run_fails mpi --container-mpi true
	expect_match 'mpi openmpi of the site configuration: mount "./modules:/opt/modules": want a path of the host'
	expect_match 'mpi openmpi of the site configuration: destination /dev is taken'
}
