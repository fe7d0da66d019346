#!/usr/bin/env bats
# SPDX-License-Identifier: Apache-2.0
#
# Plain Slurm: what must work whether or not Brolga is loaded, and what the
# other tests take for granted.

load ../lib/helpers

@test "srun: every node runs a task of the test user" {
	run_ok crun -N4 -n4 bash -c 'echo "$SLURMD_NODENAME $(id -un) $PWD"'
	for node in n1 n2 n3 n4; do
		expect_line "$node $BROLGA_TEST_USER $user_home"
	done
	nodes_idle
}

@test "srun: an exit code arrives" {
	run crun bash -c 'exit 7'
	((status == 7))
}

@test "sbatch: a script starts steps" {
	run_ok as_user sbatch --wait --quiet -N2 -o job.out --wrap 'srun -N2 -n2 echo step'
	run_ok as_user cat job.out
	((${#lines[@]} == 2))
	expect_line step
}

@test "srun: MPI ranks find each other over PMI-2" {
	as_user mkdir -p .cache
	mpicc -o "$BATS_TEST_TMPDIR/mpi_hello" "$repo/integration/images/debian/mpi_hello.c"
	install -o "$BROLGA_TEST_USER" "$BATS_TEST_TMPDIR/mpi_hello" "$user_home/mpi_hello"
	run_ok crun --mpi=pmi2 -N4 --ntasks-per-node=2 ./mpi_hello
	((${#lines[@]} == 8))
	expect_match '^rank 7 of 8 on .* sum 28$'
}

@test "mkimage: an image made on the spot can be pulled, and the request counts" {
	mkdir "$BATS_TEST_TMPDIR/root"
	echo hello >"$BATS_TEST_TMPDIR/root/file"
	ref=$(mkimage --env A=b adhoc:1 "$BATS_TEST_TMPDIR/root")
	run_ok skopeo inspect --tls-verify=false "docker://$ref"
	expect_match '"A=b"'
	(($(registry_requests PUT manifests/1) == 1))
	(($(registry_requests GET adhoc/manifests/1) == 1))
	expect_no_leftovers
}
