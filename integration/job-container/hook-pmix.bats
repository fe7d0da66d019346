#!/usr/bin/env bats
# SPDX-License-Identifier: Apache-2.0
#
# srun --mpi=pmix under job_container/tmpfs: tasks do not see the /tmp in which
# Slurm makes a directory for them.

load ../lib/helpers
load ../lib/images

@test "pmix: an Open MPI program of the image runs in a job that has a /tmp of its own" {
	image=$("$repo/scripts/cluster" image jobs)
	as_user brolga pull --quiet "$image" >/dev/null
	for mounts in '' --container-mounts=/tmp; do
		# One node: those of this cluster share the host's /tmp.
		run_ok as_user env SLURM_PMIX_TMPDIR=/tmp timeout 60 srun --mpi=pmix -n2 \
			--container-image="$image" $mounts sh -c 'ls /tmp; ompi_hello'
		(($(grep -oE '^rank [01] of 2 on n[1-4] sum 1$' <<<"$output" | sort -u | wc -l) == 2)) || fail "$output"
		(($(grep -cx "spmix_appdir_$(id -u "$BROLGA_TEST_USER")_$(last_job).0" <<<"$output") == 2)) || fail "$output"
	done
	expect_no_leftovers
	nodes_idle
}
