// SPDX-License-Identifier: Apache-2.0
/*
 * mpi_library - say which MPI library each rank runs with.
 *
 * Prints "rank R of N sum S: VERSION: INODE PATH" where S, the sum of all ranks,
 * comes from an MPI_Allreduce, VERSION is what the library says of itself, and
 * INODE and PATH are those of the file that is mapped (/proc/self/maps).
 */
#include <mpi.h>
#include <stdio.h>
#include <string.h>

/* The line of the first mapping of a library of MPI's. */
static int find_mapping(unsigned long *inode, char path[static 4096])
{
	char line[8192];
	FILE *maps = fopen("/proc/self/maps", "re");
	int found = 0;

	while (maps && !found && fgets(line, sizeof(line), maps))
		found = strstr(line, "/libmpi") &&
			sscanf(line, "%*s %*s %*s %*s %lu %4095s", inode, path) == 2;
	if (maps)
		fclose(maps);
	return found;
}

int main(int argc, char **argv)
{
	char version[MPI_MAX_LIBRARY_VERSION_STRING], path[4096] = "";
	unsigned long inode = 0;
	int rank, size, len, sum, found;

	MPI_Init(&argc, &argv);
	MPI_Comm_rank(MPI_COMM_WORLD, &rank);
	MPI_Comm_size(MPI_COMM_WORLD, &size);
	MPI_Allreduce(&rank, &sum, 1, MPI_INT, MPI_SUM, MPI_COMM_WORLD);
	MPI_Get_library_version(version, &len);
	version[strcspn(version, "\n")] = '\0';
	found = find_mapping(&inode, path);
	printf("rank %d of %d sum %d: %s: %lu %s\n", rank, size, sum, version, inode, path);
	MPI_Finalize();
	return found && sum == size * (size - 1) / 2 ? 0 : 1;
}
