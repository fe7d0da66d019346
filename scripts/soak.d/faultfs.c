/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Usage: faultfs DIRECTORY CONTROL MOUNT-POINT
 *
 * A file system that shows DIRECTORY at MOUNT-POINT, slows down or fails. CONTROL is a
 * file with one line, read for each operation:
 *
 *     ok               nothing goes wrong
 *     slow MS          each operation takes so many milliseconds longer
 *     fail ERRNO       each operation fails with that error
 *     nowrite ERRNO    each operation that changes something does
 *
 * For scripts/soak: it runs as root, trusts its caller, and is installed nowhere.
 */
#define FUSE_USE_VERSION 31

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <fuse3/fuse.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/statvfs.h>
#include <time.h>
#include <unistd.h>

static int root, control;

/* Paths of FUSE begin with a slash and mean the directory below. */
static const char *below(const char *path)
{
	return path[1] ? path + 1 : ".";
}

/* Returns the error that an operation has, after the delay that it has. */
static int fault(int writes)
{
	char line[64] = "", word[16] = "";
	int value = 0;

	if (pread(control, line, sizeof(line) - 1, 0) < 0 ||
	    sscanf(line, "%15s %d", word, &value) < 1)
		return 0;
	if (strcmp(word, "slow") == 0) {
		struct timespec delay = { value / 1000, value % 1000 * 1000000L };

		nanosleep(&delay, NULL);
	}
	if (strcmp(word, "fail") == 0 || (writes && strcmp(word, "nowrite") == 0))
		return -value;
	return 0;
}

/* Returns from the caller with the fault, if there is one. */
#define MAY_FAIL(writes)                    \
	do {                                \
		int failed = fault(writes); \
                                            \
		if (failed)                 \
			return failed;      \
	} while (0)

static int result(int rc)
{
	return rc < 0 ? -errno : 0;
}

/* A new file belongs to the process that made it. */
static int give(const char *path)
{
	struct fuse_context *caller = fuse_get_context();

	return result(fchownat(root, below(path), caller->uid, caller->gid, AT_SYMLINK_NOFOLLOW));
}

static int do_getattr(const char *path, struct stat *st, struct fuse_file_info *fi)
{
	(void)fi;
	MAY_FAIL(0);
	return result(fstatat(root, below(path), st, AT_SYMLINK_NOFOLLOW));
}

static int do_readdir(const char *path, void *buffer, fuse_fill_dir_t fill, off_t offset,
		      struct fuse_file_info *fi, enum fuse_readdir_flags flags)
{
	struct dirent *entry;
	DIR *dir;
	int fd;

	(void)offset, (void)fi, (void)flags;
	MAY_FAIL(0);
	fd = openat(root, below(path), O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	dir = fd < 0 ? NULL : fdopendir(fd);
	if (!dir)
		return -errno;
	while ((entry = readdir(dir)))
		fill(buffer, entry->d_name, NULL, 0, 0);
	closedir(dir);
	return 0;
}

static int do_mkdir(const char *path, mode_t mode)
{
	MAY_FAIL(1);
	return mkdirat(root, below(path), mode) < 0 ? -errno : give(path);
}

static int do_unlink(const char *path)
{
	MAY_FAIL(1);
	return result(unlinkat(root, below(path), 0));
}

static int do_rmdir(const char *path)
{
	MAY_FAIL(1);
	return result(unlinkat(root, below(path), AT_REMOVEDIR));
}

static int do_symlink(const char *target, const char *path)
{
	MAY_FAIL(1);
	return symlinkat(target, root, below(path)) < 0 ? -errno : give(path);
}

static int do_readlink(const char *path, char *buffer, size_t size)
{
	ssize_t n;

	MAY_FAIL(0);
	n = readlinkat(root, below(path), buffer, size - 1);
	if (n < 0)
		return -errno;
	buffer[n] = '\0';
	return 0;
}

static int do_link(const char *from, const char *to)
{
	MAY_FAIL(1);
	return result(linkat(root, below(from), root, below(to), 0));
}

static int do_rename(const char *from, const char *to, unsigned int flags)
{
	MAY_FAIL(1);
	return result(renameat2(root, below(from), root, below(to), flags));
}

static int do_chmod(const char *path, mode_t mode, struct fuse_file_info *fi)
{
	(void)fi;
	MAY_FAIL(1);
	return result(fchmodat(root, below(path), mode, 0));
}

static int do_chown(const char *path, uid_t uid, gid_t gid, struct fuse_file_info *fi)
{
	(void)fi;
	MAY_FAIL(1);
	return result(fchownat(root, below(path), uid, gid, AT_SYMLINK_NOFOLLOW));
}

static int do_utimens(const char *path, const struct timespec times[2], struct fuse_file_info *fi)
{
	(void)fi;
	MAY_FAIL(1);
	return result(utimensat(root, below(path), times, AT_SYMLINK_NOFOLLOW));
}

static int do_truncate(const char *path, off_t size, struct fuse_file_info *fi)
{
	int fd, rc;

	MAY_FAIL(1);
	if (fi)
		return result(ftruncate((int)fi->fh, size));
	fd = openat(root, below(path), O_WRONLY | O_CLOEXEC);
	if (fd < 0)
		return -errno;
	rc = result(ftruncate(fd, size));
	close(fd);
	return rc;
}

static int do_create(const char *path, mode_t mode, struct fuse_file_info *fi)
{
	int fd;

	MAY_FAIL(1);
	fd = openat(root, below(path),
		    O_CREAT | O_RDWR | O_CLOEXEC | (fi->flags & (O_EXCL | O_TRUNC)), mode);
	if (fd < 0)
		return -errno;
	fi->fh = (uint64_t)fd;
	return give(path);
}

static int do_open(const char *path, struct fuse_file_info *fi)
{
	int fd;

	MAY_FAIL(0);
	fd = openat(root, below(path), (fi->flags & ~O_NOFOLLOW) | O_CLOEXEC);
	if (fd < 0)
		return -errno;
	fi->fh = (uint64_t)fd;
	return 0;
}

static int do_read(const char *path, char *buffer, size_t size, off_t offset,
		   struct fuse_file_info *fi)
{
	ssize_t n;

	(void)path;
	MAY_FAIL(0);
	n = pread((int)fi->fh, buffer, size, offset);
	return n < 0 ? -errno : (int)n;
}

static int do_write(const char *path, const char *buffer, size_t size, off_t offset,
		    struct fuse_file_info *fi)
{
	ssize_t n;

	(void)path;
	MAY_FAIL(1);
	n = pwrite((int)fi->fh, buffer, size, offset);
	return n < 0 ? -errno : (int)n;
}

static int do_fsync(const char *path, int datasync, struct fuse_file_info *fi)
{
	(void)path, (void)datasync;
	MAY_FAIL(1);
	return result(fsync((int)fi->fh));
}

static int do_release(const char *path, struct fuse_file_info *fi)
{
	(void)path;
	close((int)fi->fh);
	return 0;
}

static int do_statfs(const char *path, struct statvfs *st)
{
	(void)path;
	MAY_FAIL(0);
	return result(fstatvfs(root, st));
}

static const struct fuse_operations operations = {
	.getattr = do_getattr,
	.readdir = do_readdir,
	.mkdir = do_mkdir,
	.unlink = do_unlink,
	.rmdir = do_rmdir,
	.symlink = do_symlink,
	.readlink = do_readlink,
	.link = do_link,
	.rename = do_rename,
	.chmod = do_chmod,
	.chown = do_chown,
	.utimens = do_utimens,
	.truncate = do_truncate,
	.create = do_create,
	.open = do_open,
	.read = do_read,
	.write = do_write,
	.fsync = do_fsync,
	.release = do_release,
	.statfs = do_statfs,
};

int main(int argc, char **argv)
{
	char *arguments[] = { argv[0],
			      "-f",
			      "-o",
			      "allow_other,default_permissions,subtype=faultfs,attr_timeout=0",
			      argc == 4 ? argv[3] : NULL,
			      NULL };

	if (argc != 4) {
		fprintf(stderr, "usage: faultfs DIRECTORY CONTROL MOUNT-POINT\n");
		return 2;
	}
	umask(0);
	root = open(argv[1], O_PATH | O_DIRECTORY | O_CLOEXEC);
	control = open(argv[2], O_RDONLY | O_CLOEXEC);
	if (root < 0 || control < 0) {
		perror("faultfs: open");
		return 1;
	}
	return fuse_main(5, arguments, &operations, NULL);
}
