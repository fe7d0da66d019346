// SPDX-License-Identifier: Apache-2.0
/*
 * mpi_hello - say who and where each rank is, and prove that they communicate.
 *
 * Prints "rank R of N on HOST sum S" where S, the sum of all ranks, comes from
 * an MPI_Allreduce. Exits with an error when the sum is wrong.
 */
#include <mpi.h>
#include <stdio.h>

int main(int argc, char **argv)
{
	char name[MPI_MAX_PROCESSOR_NAME];
	int rank, size, len, sum;

	MPI_Init(&argc, &argv);
	MPI_Comm_rank(MPI_COMM_WORLD, &rank);
	MPI_Comm_size(MPI_COMM_WORLD, &size);
	MPI_Get_processor_name(name, &len);
	MPI_Allreduce(&rank, &sum, 1, MPI_INT, MPI_SUM, MPI_COMM_WORLD);
	printf("rank %d of %d on %s sum %d\n", rank, size, name, sum);
	MPI_Finalize();
	return sum == size * (size - 1) / 2 ? 0 : 1;
}
