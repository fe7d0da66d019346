#!/usr/bin/env bats
# SPDX-License-Identifier: Apache-2.0
#
# srun --mpi=pmix: programs of the image find Slurm's PMIx server, which knows
# their peers.

load ../lib/helpers
load ../lib/images

setup_file() {
	jobs_image=$("$repo/scripts/cluster" image jobs)
	export jobs_image
	as_user brolga pull --quiet "$jobs_image" >/dev/null
}

# pmix OPTION... -- CMD...: the nodes of this cluster share one /dev/shm, in which
# Open MPI would mistake those of another node for its own.
pmix() { as_user env OMPI_MCA_btl_vader_backing_directory=/tmp timeout 60 srun --mpi=pmix --container-image="$jobs_image" "$@"; }

# all_ranks COUNT SUM: each rank has said once that it knows all.
all_ranks() {
	(($(grep -oE "^rank [0-9]+ of $1 on n[1-4] sum $2\$" <<<"$output" | sort -u | wc -l) == $1)) || fail "$output"
	refute_match 'ERROR|error'
}

@test "pmix: an Open MPI program of the image runs on all nodes" {
	run_ok pmix -N4 --ntasks-per-node=2 ompi_hello
	all_ranks 8 28
	expect_no_leftovers
	nodes_idle
}

@test "pmix: it does so with namespaces of its own" {
	run_ok pmix -N2 --ntasks-per-node=2 --container-unshare=pid,ipc,uts ompi_hello
	all_ranks 4 6
	run_ok pmix -n2 --container-init ompi_hello
	all_ranks 2 1
}

@test "pmix: it does so where nothing but the step's directories can be written to" {
	for base in '' /tmp; do
		run_ok as_user env ${base:+SLURM_PMIX_TMPDIR="$base"} OMPI_MCA_btl=self,tcp srun --mpi=pmix -n2 --container-image="$jobs_image" \
			--container-readonly --no-container-mount-home ompi_hello
		all_ranks 2 1
	done
}

@test "pmix: tasks see the directories of their step, and no others" {
	run_ok pmix -N2 -n2 sh -c 'ls "$PMIX_SERVER_TMPDIR/.."; ls -d "$PMIX_SERVER_TMPDIR"pmix_dstor_ds21_*/; touch "$PMIX_SERVER_TMPDIR/mine" && echo can write'
	(($(grep -cE "^pmix\.$(last_job)\.0\$" <<<"$output") == 2)) || fail "$output"
	(($(grep -cE '/spool/n[12]/pmix\.[0-9.]+/+pmix_dstor_ds21_' <<<"$output") == 2)) || fail "$output"
	(($(grep -cx 'can write' <<<"$output") == 2)) || fail "$output"
	refute_match '^(cred_state|job[0-9])'
	# Slurm's own has the same name, and nothing in it.
	run_ok as_user env SLURM_PMIX_TMPDIR=/var/tmp srun --mpi=pmix --container-image="$jobs_image" --container-mounts=/var/tmp:/host \
		sh -c 'cd /var/tmp/spmix_appdir_*/ && touch mine && ls -A && ls -A "/host/$(basename "$PWD")" && pwd'
	[[ $output == $'mine\n/var/tmp/spmix_appdir_'"$(id -u "$BROLGA_TEST_USER")_$(last_job).0" ]] || fail "$output"
}

@test "pmix: the client is told to use the server's modules, unless the user says which" {
	run_ok pmix env
	expect_match '^PMIX_RANK=0$'
	expect_line "PMIX_MCA_psec=$(sed -n 's/^PMIX_SECURITY_MODE=//p' <<<"$output")"
	expect_line "PMIX_MCA_gds=$(sed -n 's/^PMIX_GDS_MODULE=//p' <<<"$output")"
	run_ok pmix --container-env=PMIX_MCA_gds=hash env
	expect_line PMIX_MCA_gds=hash
	run_ok as_user env PMIX_MCA_gds=hash srun --mpi=pmix --container-image="$jobs_image" env
	expect_line PMIX_MCA_gds=hash
	run_fails pmix --container-env=PMIX_RANK=7 env
	expect_one_error '--container-env: PMIX_RANK belongs to Slurm and cannot be set'
}

@test "pmix: what the image says of ranks and servers does not count" {
	new_image
	push_image --env PMIX_RANK=99 --env PMIX_SERVER_TMPDIR=/etc pmix/liar:1
	run_ok as_user srun --mpi=pmix -n2 --container-image="$ref" sh -c 'echo "$PMIX_RANK ${PMIX_SERVER_TMPDIR##*/spool/}"'
	(($(grep -cE "^[01] n[12]/pmix\.$(last_job)\.0/?\$" <<<"$output") == 2)) || fail "$output"
}

@test "pmix: what cannot work with it is refused with one line" {
	run_fails pmix --container-unshare=net true
	expect_one_error '--mpi=pmix and --container-unshare=net cannot be used together'
	run_fails pmix --container-remap-root true
	expect_one_error '--mpi=pmix and --container-remap-root cannot be used together'
	nodes_idle
}

@test "pmix: steps without it that a task of it starts find no server, and no error" {
	new_image
	push_image pmix/plain:1
	run_ok as_user env SLURM_PMIX_MAPPING_SERV='(vector,(0,1,1))' PMIX_SERVER_TMPDIR=/etc srun --mpi=none --container-image="$ref" \
		sh -c 'ls -d /etc/shadow || echo none of the host; echo "<$PMIX_RANK>"'
	expect_line 'none of the host'
	expect_line '<>'
}

@test "pmix: an MPI that Slurm does not have is Slurm's error, before anything starts" {
	run_fails as_user srun --mpi=pmix_v1 --container-image="$jobs_image" ompi_hello
	expect_match "Invalid MPI type 'pmix_v1'"
	nodes_idle
}
