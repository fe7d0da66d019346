// SPDX-License-Identifier: Apache-2.0
/*
 * probe - try what a task must not be able to do, and say what succeeded.
 *
 *   probe task [FILE]       everything below that concerns the task itself; FILE is a
 *                           path that exists on the host and not in the container
 *   probe process PID       everything that one process can do to another
 *   probe keys KEY          what the task can do with this key of another user
 *   probe make-key          add a key to the user's keyring, and print its number
 *
 * It prints one line for each attempt, "NAME: ALLOWED" or "NAME: denied (REASON)".
 * An attempt of root's changes nothing that other processes see: it opens files for
 * writing and does not write, and has a mount namespace of its own.
 */
#define _GNU_SOURCE
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <ftw.h>
#include <glob.h>
#include <linux/bpf.h>
#include <linux/capability.h>
#include <linux/fs.h>
#include <linux/keyctl.h>
#include <linux/loop.h>
#include <linux/perf_event.h>
#include <linux/userfaultfd.h>
#include <net/ethernet.h>
#include <net/if.h>
#include <netinet/in.h>
#include <sched.h>
#include <signal.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/fanotify.h>
#include <sys/ioctl.h>
#include <sys/mount.h>
#include <sys/prctl.h>
#include <sys/ptrace.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/sysmacros.h>
#include <sys/timex.h>
#include <sys/uio.h>
#include <sys/wait.h>
#include <sys/xattr.h>
#include <unistd.h>

/* An attempt that hangs ends by this alarm. */
#define LONGEST 20

static void report(const char *name, pid_t child)
{
	int status = 0;

	waitpid(child, &status, 0);
	if (WIFSIGNALED(status))
		printf("%s: ended by signal %d\n", name, WTERMSIG(status));
	else if (WEXITSTATUS(status) == 0)
		printf("%s: ALLOWED\n", name);
	else
		printf("%s: denied (%s)\n", name, strerror(WEXITSTATUS(status)));
	fflush(stdout);
}

/* Keeps what root mounts from the other attempts; others have no right to this. */
static void isolate(void)
{
	if (unshare(CLONE_NEWNS) == 0)
		mount("", "/", NULL, MS_REC | MS_PRIVATE, NULL);
}

/* Tries it in a process of its own: it succeeds unless the result is negative. */
#define TRY(name, attempt)                                 \
	do {                                               \
		pid_t tried = fork();                      \
		if (tried == 0) {                          \
			alarm(LONGEST);                    \
			isolate();                         \
			_exit((attempt) >= 0 ? 0 : errno); \
		}                                          \
		report(name, tried);                       \
	} while (0)

static const char *scratch; /* an empty directory of the task's own */

static long writes(const char *path)
{
	return open(path, O_WRONLY | O_CLOEXEC | O_NONBLOCK | O_NOCTTY);
}

static int write_line(const char *file, const char *line)
{
	int fd = open(file, O_WRONLY | O_CLOEXEC);

	return fd < 0 || write(fd, line, strlen(line)) < 0 ? -1 : close(fd);
}

static long reads(const char *path)
{
	return open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK | O_NOCTTY);
}

/* Reports whether one of the files that match can be opened for writing. */
static long writes_one(const char *pattern)
{
	glob_t found;
	long result = -1;

	if (glob(pattern, GLOB_NOSORT, NULL, &found) != 0) {
		errno = ENOENT;
		return -1;
	}
	for (size_t i = 0; i < found.gl_pathc && result < 0; i++)
		result = writes(found.gl_pathv[i]);
	return result;
}

static int is_writable(const char *path, const struct stat *status, int type, struct FTW *ftw)
{
	(void)status;
	(void)ftw;
	/* The mode of this file lets all write, and a write asks for a capability. */
	if (type != FTW_F || access(path, W_OK) < 0 || strstr(path, "/ns_last_pid"))
		return 0;
	fprintf(stderr, "writable: %s\n", path);
	return 1;
}

/* Reports whether any file below the directory can be opened for writing. */
static long writes_below(const char *directory)
{
	if (nftw(directory, is_writable, 64, FTW_PHYS) == 1)
		return 0;
	errno = EACCES;
	return -1;
}

/* Prints the descriptors that the task holds beside its standard ones. */
static void descriptors(void)
{
	DIR *directory = opendir("/proc/self/fd");
	struct dirent *entry;

	while (directory && (entry = readdir(directory))) {
		char path[300], target[300] = "";
		int number = atoi(entry->d_name);

		if (number <= 2 || number == dirfd(directory))
			continue;
		snprintf(path, sizeof(path), "/proc/self/fd/%d", number);
		if (readlink(path, target, sizeof(target) - 1) < 0)
			snprintf(target, sizeof(target), "%s", strerror(errno));
		printf("descriptor %d: %s\n", number, target);
	}
	if (directory)
		closedir(directory);
}

/* Prints the lines about privilege, as the kernel says them. */
static void privileges(void)
{
	static const char *const wanted[] = { "Cap", "NoNewPrivs", "Seccomp:" };
	FILE *status = fopen("/proc/self/status", "r");
	char line[256];

	while (status && fgets(line, sizeof(line), status))
		for (size_t i = 0; i < sizeof(wanted) / sizeof(wanted[0]); i++)
			if (strncmp(line, wanted[i], strlen(wanted[i])) == 0)
				fputs(line, stdout);
	if (status)
		fclose(status);
	fflush(stdout);
}

static long joins(const char *path, int kind)
{
	int fd = open(path, O_RDONLY | O_CLOEXEC);

	return fd < 0 ? -1 : setns(fd, kind);
}

static void namespaces(void)
{
	TRY("join the mount namespace of process 1", joins("/proc/1/ns/mnt", CLONE_NEWNS));
	TRY("join the process namespace of process 1", joins("/proc/1/ns/pid", CLONE_NEWPID));
	TRY("join the network of process 1", joins("/proc/1/ns/net", CLONE_NEWNET));
	TRY("join the user namespace of process 1", joins("/proc/1/ns/user", CLONE_NEWUSER));
	TRY("join its own mount namespace again", joins("/proc/self/ns/mnt", CLONE_NEWNS));
	TRY("join its own network again", joins("/proc/self/ns/net", CLONE_NEWNET));
	TRY("enter the root directory of process 1", chdir("/proc/1/root"));
	TRY("make a mount namespace", unshare(CLONE_NEWNS));
	TRY("make a process namespace", unshare(CLONE_NEWPID));
	TRY("make a network", unshare(CLONE_NEWNET));
	TRY("make an IPC namespace", unshare(CLONE_NEWIPC));
	TRY("make a UTS namespace", unshare(CLONE_NEWUTS));
	TRY("make a cgroup namespace", unshare(CLONE_NEWCGROUP));
	TRY("make a user namespace", unshare(CLONE_NEWUSER));
}

/* Changes to a directory that chroot(2) has left behind, and climbs from there. */
static long escapes(const char *host_file)
{
	if ((mkdir("below", 0700) < 0 && errno != EEXIST) || chroot("below") < 0)
		return -1;
	for (int i = 0; i < 64; i++)
		if (chdir("..") < 0)
			return -1;
	if (chroot(".") < 0)
		return -1;
	return access(host_file, F_OK);
}

static long pivots(void)
{
	/* It has to be a mount point, where that can be had. */
	mount("x", scratch, "tmpfs", 0, NULL);
	return syscall(SYS_pivot_root, scratch, scratch);
}

static long opens_by_handle(void)
{
	struct {
		struct file_handle head;
		unsigned char bytes[MAX_HANDLE_SZ];
	} handle = { .head.handle_bytes = MAX_HANDLE_SZ };
	int mount, directory = open("/dev/shm", O_RDONLY | O_DIRECTORY | O_CLOEXEC);

	if (directory < 0 ||
	    name_to_handle_at(directory, "", &handle.head, &mount, AT_EMPTY_PATH) < 0)
		return -1;
	return open_by_handle_at(directory, &handle.head, O_RDONLY | O_CLOEXEC);
}

static void files(const char *host_file)
{
	TRY("mount a file system", mount("x", scratch, "tmpfs", 0, NULL));
	TRY("mount a directory elsewhere", mount("/etc", scratch, NULL, MS_BIND, NULL));
	TRY("mount /sys to be written", mount("", "/sys", NULL, MS_REMOUNT | MS_BIND, NULL));
	TRY("mount the root to have devices", mount("", "/", NULL, MS_REMOUNT | MS_BIND, NULL));
	TRY("share mounts with the host", mount("", "/", NULL, MS_SHARED, NULL));
	TRY("unmount /proc", umount2("/proc", MNT_DETACH));
	TRY("unmount /etc/passwd", umount2("/etc/passwd", MNT_DETACH));
	TRY("copy a mount", syscall(SYS_open_tree, AT_FDCWD, "/", OPEN_TREE_CLONE));
	TRY("begin a mount", syscall(SYS_fsopen, "tmpfs", 0));
	TRY("change the root by a mount", pivots());
	TRY("change the root directory", chroot(scratch));
	TRY("leave the root directory", escapes(host_file));
	TRY("see the host's file", access(host_file, F_OK));
	TRY("open a file by its handle", opens_by_handle());
	TRY("make a character device", mknod("null", S_IFCHR | 0666, makedev(1, 3)));
	TRY("make a block device", mknod("loop0", S_IFBLK | 0666, makedev(7, 0)));
	TRY("make a whiteout", mknod("whiteout", S_IFCHR | 0666, makedev(0, 0)));
	TRY("write in the image's /etc", access("/etc", W_OK));
	TRY("write in the image's /", access("/", W_OK));
	TRY("set an attribute of overlayfs",
	    setxattr(scratch, "trusted.overlay.opaque", "y", 1, 0));
	TRY("set a security attribute", setxattr(scratch, "security.probe", "y", 1, 0));
	TRY("watch a file system", fanotify_init(FAN_CLASS_CONTENT, O_RDONLY));
	TRY("count what processes use", acct("/none") < 0 && errno != ENOENT ? -1 : 0);
}

static long makes_immutable(void)
{
	int flags = FS_IMMUTABLE_FL, fd = open("immutable", O_CREAT | O_RDWR | O_CLOEXEC, 0600);
	long result = fd < 0 ? -1 : ioctl(fd, FS_IOC_SETFLAGS, &flags);

	flags = 0;
	if (result >= 0)
		ioctl(fd, FS_IOC_SETFLAGS, &flags);
	return result;
}

static long asks_loop(void)
{
	int fd = open("/dev/loop-control", O_RDWR | O_CLOEXEC);

	return fd < 0 ? -1 : ioctl(fd, LOOP_CTL_GET_FREE);
}

/* The first loop device exists on each host that has the test cluster. */
static long opens_loop(void)
{
	struct loop_info64 info;
	int fd = open("/dev/loop0", O_RDONLY | O_CLOEXEC);

	return fd < 0 ? -1 : ioctl(fd, LOOP_GET_STATUS64, &info) < 0 && errno != ENXIO ? -1 : 0;
}

static void devices(void)
{
	TRY("open a disk", reads("/dev/vda"));
	TRY("open the memory", reads("/dev/mem"));
	TRY("open the kernel's log", writes("/dev/kmsg"));
	TRY("ask for a loop device", asks_loop());
	TRY("open a loop device", opens_loop());
	TRY("open /dev/fuse", open("/dev/fuse", O_RDWR | O_CLOEXEC));
	TRY("mount what /dev/fuse serves",
	    mount("x", scratch, "fuse", 0, "fd=0,rootmode=40000,user_id=0,group_id=0"));
	TRY("make a file immutable", makes_immutable());
}

static void kernel_files(void)
{
	TRY("write core_pattern", writes("/proc/sys/kernel/core_pattern"));
	TRY("write modprobe", writes("/proc/sys/kernel/modprobe"));
	TRY("write a sysctl", writes_below("/proc/sys"));
	TRY("write sysrq-trigger", writes("/proc/sysrq-trigger"));
	TRY("write uevent_helper", writes("/sys/kernel/uevent_helper"));
	TRY("write an uevent", writes("/sys/block/loop0/uevent"));
	TRY("write a file of /sys", writes_below("/sys"));
	TRY("write release_agent", writes_one("/sys/fs/cgroup/*/release_agent"));
	TRY("move to the first cgroup", writes_one("/sys/fs/cgroup/*/cgroup.procs"));
	TRY("read the kernel's memory", reads("/proc/kcore"));
	TRY("read the kernel's log", reads("/proc/kmsg"));
	TRY("see the kernel's debug files", reads("/sys/kernel/debug/tracing/trace"));
	TRY("lower its oom score", write_line("/proc/self/oom_score_adj", "-1000"));
}

static long asks_bpf(void)
{
	struct bpf_insn code[] = {
		{ .code = BPF_ALU64 | BPF_MOV | BPF_K },
		{ .code = BPF_JMP | BPF_EXIT },
	};
	union bpf_attr program = {
		.prog_type = BPF_PROG_TYPE_KPROBE,
		.insns = (uintptr_t)code,
		.insn_cnt = 2,
		.license = (uintptr_t) "GPL",
	};

	return syscall(SYS_bpf, BPF_PROG_LOAD, &program, sizeof(program));
}

static long counts_events(pid_t pid, int cpu)
{
	struct perf_event_attr event = { .type = PERF_TYPE_SOFTWARE, .size = sizeof(event) };

	return syscall(SYS_perf_event_open, &event, pid, cpu, -1, 0);
}

static long becomes_root(void)
{
	return setresuid(0, 0, 0) < 0 ? -1 : reads("/proc/1/mem");
}

static long gains_capabilities(void)
{
	struct __user_cap_header_struct header = { .version = _LINUX_CAPABILITY_VERSION_3 };
	struct __user_cap_data_struct data[2] = { { .effective = 1u << CAP_SYS_ADMIN,
						    .permitted = 1u << CAP_SYS_ADMIN } };

	return syscall(SYS_capset, &header, data);
}

static long raises_limit(void)
{
	struct rlimit limit;

	if (getrlimit(RLIMIT_NICE, &limit) < 0)
		return -1;
	limit.rlim_max++;
	return setrlimit(RLIMIT_NICE, &limit);
}

static long runs_at_once(void)
{
	struct sched_param first = { .sched_priority = 1 };

	return sched_setscheduler(0, SCHED_FIFO, &first);
}

static long binds(int port)
{
	struct sockaddr_in address = { .sin_family = AF_INET, .sin_port = htons((uint16_t)port) };
	int fd = socket(AF_INET, SOCK_STREAM, 0);

	return bind(fd, (struct sockaddr *)&address, sizeof(address));
}

static long changes_network(void)
{
	struct ifreq request = { .ifr_name = "lo",
				 .ifr_flags = IFF_UP | IFF_LOOPBACK | IFF_RUNNING };

	return ioctl(socket(AF_INET, SOCK_DGRAM, 0), SIOCSIFFLAGS, &request);
}

/* Values that the kernel refuses later: only the right is asked for. */
static void kernel(void)
{
	struct timex clock = { .modes = ADJ_TICK };

	TRY("become root of the host", becomes_root());
	TRY("gain a capability", gains_capabilities());
	TRY("set the host name", syscall(SYS_sethostname, "", -1) < 0 && errno != EINVAL ? -1 : 0);
	TRY("set the clock", adjtimex(&clock) < 0 && errno != EINVAL ? -1 : 0);
	TRY("load a module",
	    syscall(SYS_init_module, NULL, 0, "") < 0 && errno != ENOEXEC ? -1 : 0);
	TRY("load a BPF program", asks_bpf());
	TRY("count events of all processes", counts_events(-1, 0));
	TRY("handle the kernel's page faults", syscall(SYS_userfaultfd, O_CLOEXEC));
	TRY("handle its own page faults",
	    syscall(SYS_userfaultfd, O_CLOEXEC | UFFD_USER_MODE_ONLY));
	TRY("send any packet", socket(AF_PACKET, SOCK_RAW, htons(ETH_P_ALL)));
	TRY("send packets of any protocol", socket(AF_INET, SOCK_RAW, IPPROTO_RAW));
	TRY("change the network", changes_network());
	TRY("listen at a port of root's", binds(81));
	TRY("run before all others", runs_at_once());
	TRY("run with a higher priority", setpriority(PRIO_PROCESS, 0, -1));
	TRY("raise a limit", raises_limit());
	TRY("signal process 1", kill(1, 0));
}

/* Makes a user namespace, whose root this process becomes, with more namespaces. */
static int in_namespace(int more)
{
	char user[32], group[32];

	snprintf(user, sizeof(user), "0 %u 1", geteuid());
	snprintf(group, sizeof(group), "0 %u 1", getegid());
	if (unshare(CLONE_NEWUSER | CLONE_NEWNS | more) < 0 ||
	    write_line("/proc/self/setgroups", "deny") < 0 ||
	    write_line("/proc/self/uid_map", user) < 0)
		return -1;
	return write_line("/proc/self/gid_map", group);
}

/* Tries it as the root of a new user namespace. */
#define TRY_AS_ROOT(name, more, attempt) \
	TRY("in a user namespace: " name, in_namespace(more) < 0 ? -1 : (attempt))

static long writes_agent(void)
{
	if (mount("x", scratch, "cgroup", 0, "memory") < 0 || chdir(scratch) < 0)
		return -1;
	return writes("release_agent");
}

static long makes_device(void)
{
	if (mount("x", scratch, "tmpfs", 0, NULL) < 0 || chdir(scratch) < 0)
		return -1;
	return mknod("disk", S_IFBLK | 0600, makedev(254, 0));
}

static void as_root_of_namespace(const char *host_file)
{
	const unsigned long bind = MS_REMOUNT | MS_BIND;

	TRY_AS_ROOT("mount a file system", 0, mount("x", scratch, "tmpfs", 0, NULL));
	TRY_AS_ROOT("mount /sys to be written", 0, mount("", "/sys", NULL, bind, NULL));
	TRY_AS_ROOT("mount the root to have devices", 0, mount("", "/", NULL, bind, NULL));
	TRY_AS_ROOT("mount the root to have setuid programs", 0,
		    mount("", "/", NULL, bind | MS_NODEV, NULL));
	TRY_AS_ROOT("unmount /proc", 0, umount2("/proc", MNT_DETACH));
	TRY_AS_ROOT("unmount /etc/passwd", 0, umount2("/etc/passwd", MNT_DETACH));
	TRY_AS_ROOT("unmount the root", 0, umount2("/", MNT_DETACH));
	TRY_AS_ROOT("mount a disk", 0, mount("/dev/vda", scratch, "ext4", 0, NULL));
	TRY_AS_ROOT("make a device", 0, makes_device());
	TRY_AS_ROOT("write release_agent", CLONE_NEWCGROUP, writes_agent());
	TRY_AS_ROOT("write core_pattern", CLONE_NEWPID, writes("/proc/sys/kernel/core_pattern"));
	TRY_AS_ROOT("join the mount namespace of process 1", 0,
		    joins("/proc/1/ns/mnt", CLONE_NEWNS));
	TRY_AS_ROOT("leave the root directory", 0, escapes(host_file));
	TRY_AS_ROOT("change the host's network", 0, changes_network());
	TRY_AS_ROOT("open a file by its handle", 0, opens_by_handle());
	TRY_AS_ROOT("load a BPF program", 0, asks_bpf());
	TRY_AS_ROOT("read the kernel's log", 0, reads("/proc/kmsg"));
}

/* What a debugger needs has to work: of its own children a task can do all. */
static void debugging(void)
{
	pid_t child = fork();

	if (child == 0)
		pause();
	TRY("trace its own child", ptrace(PTRACE_SEIZE, child, 0, 0));
	TRY("stop its own child", kill(child, SIGSTOP));
	kill(child, SIGKILL);
	waitpid(child, NULL, 0);
}

static int removes(const char *name, const struct stat *status, int type, struct FTW *ftw)
{
	(void)status;
	(void)type;
	(void)ftw;
	return remove(name);
}

static int probe_task(const char *host_file)
{
	char directory[] = "/tmp/probe-XXXXXX";

	scratch = mkdtemp(directory);
	if (!scratch || chdir(scratch) < 0) {
		perror("make a directory in /tmp");
		return 1;
	}
	privileges();
	descriptors();
	namespaces();
	files(host_file);
	devices();
	kernel_files();
	kernel();
	as_root_of_namespace(host_file);
	debugging();
	return nftw(directory, removes, 16, FTW_PHYS | FTW_DEPTH);
}

/* path returns the name of a file of the process. */
static const char *path(pid_t pid, const char *file)
{
	static char name[64];

	snprintf(name, sizeof(name), "/proc/%d/%s", pid, file);
	return name;
}

/* Some files fail at the first read only. */
static long shows(pid_t pid, const char *file)
{
	char text[16];
	int fd = open(path(pid, file), O_RDONLY | O_CLOEXEC);

	return fd < 0 ? -1 : read(fd, text, sizeof(text));
}

static long copies(pid_t pid, bool from)
{
	static char text[8];
	struct iovec here = { text, sizeof(text) }, there = { text, sizeof(text) };
	long done = from ? process_vm_readv(pid, &here, 1, &there, 1, 0)
			 : process_vm_writev(pid, &here, 1, &there, 1, 0);

	/* Another program has nothing at that address. */
	return done < 0 && errno == EFAULT ? 0 : done;
}

/* Reports whether a file can be opened through one of its first descriptors. */
static long follows(pid_t pid)
{
	char name[8];
	long result = -1;

	for (int i = 0; i < 8 && result < 0; i++) {
		snprintf(name, sizeof(name), "fd/%d", i);
		result = reads(path(pid, name));
	}
	return result;
}

static long takes_descriptor(pid_t pid)
{
	int fd = (int)syscall(SYS_pidfd_open, pid, 0);

	return fd < 0 ? -1 : syscall(SYS_pidfd_getfd, fd, 0, 0);
}

static long joins_process(pid_t pid)
{
	int fd = (int)syscall(SYS_pidfd_open, pid, 0);

	return fd < 0 ? -1 : setns(fd, CLONE_NEWNS);
}

static long limits(pid_t pid)
{
	struct rlimit limit;

	return prlimit(pid, RLIMIT_NOFILE, NULL, &limit) < 0
		       ? -1
		       : prlimit(pid, RLIMIT_NOFILE, &limit, NULL);
}

static long moves(pid_t pid)
{
	cpu_set_t cpus;

	return sched_getaffinity(pid, sizeof(cpus), &cpus) < 0
		       ? -1
		       : sched_setaffinity(pid, sizeof(cpus), &cpus);
}

static int probe_process(pid_t pid)
{
	char target[16];

	TRY("trace it", ptrace(PTRACE_SEIZE, pid, 0, 0));
	TRY("attach to it", ptrace(PTRACE_ATTACH, pid, 0, 0));
	TRY("open its memory", open(path(pid, "mem"), O_RDWR | O_CLOEXEC));
	TRY("read its memory", copies(pid, true));
	TRY("write its memory", copies(pid, false));
	TRY("enter its root directory", chdir(path(pid, "root")));
	TRY("enter its working directory", chdir(path(pid, "cwd")));
	TRY("list its descriptors", reads(path(pid, "fd")));
	TRY("follow its descriptors", follows(pid));
	TRY("take a descriptor", takes_descriptor(pid));
	TRY("see its program", readlink(path(pid, "exe"), target, sizeof(target)));
	TRY("read its environment", shows(pid, "environ"));
	TRY("read its mappings", shows(pid, "maps"));
	TRY("read its system call", shows(pid, "syscall"));
	TRY("read its stack", shows(pid, "stack"));
	TRY("read its auxiliary vector", shows(pid, "auxv"));
	TRY("read its counters", shows(pid, "io"));
	TRY("open its mount namespace", reads(path(pid, "ns/mnt")));
	TRY("join its mount namespace", joins_process(pid));
	TRY("count its events", counts_events(pid, -1));
	TRY("compare it", syscall(SYS_kcmp, pid, pid, 0, 0, 0));
	TRY("write its oom score", writes(path(pid, "oom_score_adj")));
	TRY("signal it", kill(pid, 0));
	TRY("limit it", limits(pid));
	TRY("bind it to processors", moves(pid));
	TRY("give it another priority", setpriority(PRIO_PROCESS, (id_t)pid, 5));
	return 0;
}

/* The keyring's description is "keyring;UID;GID;PERMISSIONS;NAME". */
static long has_keyring_of_other(void)
{
	char text[256] = "";
	long size = syscall(SYS_keyctl, KEYCTL_DESCRIBE, KEY_SPEC_SESSION_KEYRING, text,
			    sizeof(text) - 1);
	unsigned int owner;

	if (size < 0)
		return -1;
	errno = EACCES;
	return sscanf(text, "keyring;%u;", &owner) == 1 && owner == getuid() ? -1 : 0;
}

static int probe_keys(int key)
{
	char text[64];

	TRY("hold another user's session keyring", has_keyring_of_other());
	TRY("read the key", syscall(SYS_keyctl, KEYCTL_READ, key, text, sizeof(text)));
	TRY("describe the key", syscall(SYS_keyctl, KEYCTL_DESCRIBE, key, text, sizeof(text)));
	TRY("link the key", syscall(SYS_keyctl, KEYCTL_LINK, key, KEY_SPEC_PROCESS_KEYRING));
	TRY("change the key", syscall(SYS_keyctl, KEYCTL_UPDATE, key, "x", 1));
	TRY("revoke the key", syscall(SYS_keyctl, KEYCTL_REVOKE, key));
	TRY("give the key away", syscall(SYS_keyctl, KEYCTL_SETPERM, key, 0x3f3f3f3f));
	return 0;
}

static int make_key(void)
{
	long key = syscall(SYS_add_key, "user", "brolga-probe", "secret", 6, KEY_SPEC_USER_KEYRING);

	printf("%ld\n", key);
	return key < 0;
}

int main(int argc, char **argv)
{
	const char *verb = argc > 1 ? argv[1] : "";

	if (strcmp(verb, "task") == 0)
		return probe_task(argc > 2 ? argv[2] : "/nonexistent");
	if (strcmp(verb, "process") == 0 && argc > 2)
		return probe_process(atoi(argv[2]));
	if (strcmp(verb, "keys") == 0 && argc > 2)
		return probe_keys(atoi(argv[2]));
	if (strcmp(verb, "make-key") == 0)
		return make_key();
	fprintf(stderr, "usage: probe task [FILE] | process PID | keys KEY | make-key\n");
	return 2;
}
