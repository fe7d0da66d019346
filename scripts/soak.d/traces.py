# SPDX-License-Identifier: Apache-2.0
"""What steps can leave on a machine, and what daemons of Slurm take of it."""

import glob
import os
import subprocess


def read(path):
    """Returns a file's text, or none if it is gone."""
    try:
        with open(path, encoding="utf-8", errors="replace") as f:
            return f.read()
    except OSError:
        return ""


def link(path):
    try:
        return os.readlink(path)
    except OSError:
        return ""


def pids():
    return [name for name in os.listdir("/proc") if name.isdigit()]


def status(pid):
    """Returns the fields of /proc/PID/status, which may be none."""
    fields = {}
    for line in read(f"/proc/{pid}/status").splitlines():
        name, _, value = line.partition(":")
        fields[name] = value.strip()
    return fields


def kilobytes(fields, name):
    return int(fields.get(name, "0 kB").split()[0])


def holds_file_below(pid, directory):
    return any(link(fd).startswith(directory + "/") for fd in glob.glob(f"/proc/{pid}/fd/*"))


class Traces:
    """Looks for what belongs to one cluster and its users."""

    def __init__(self, cluster, users):
        self.cluster = cluster
        self.users = users
        # Jobs with a killed slurmstepd, which nobody else removes the cgroups for.
        self.unattended = set()

    def kind(self, pid):
        """Returns what a process is, as the plan calls it, or "" if it is none of ours."""
        exe = link(f"/proc/{pid}/exe")
        if exe.startswith(self.cluster + "/prefix/"):
            name = os.path.basename(exe).removesuffix(".real").removesuffix(".plain")
            if name != "brolga":
                return name
            arguments = read(f"/proc/{pid}/cmdline").split("\0")
            return "brolga " + (arguments[1] if len(arguments) > 1 else "")
        name = os.path.basename(exe)
        if name.startswith("squashfuse") and self.is_users(pid):
            return "squashfuse"
        if name.startswith("slurmstepd") and read(f"/proc/{pid}/comm").startswith("slurmstepd"):
            return "slurmstepd" if holds_file_below(pid, self.cluster) else ""
        if name in ("tar2sqfs", "sqfs2tar") and self.cluster in read(f"/proc/{pid}/cmdline"):
            return name
        return ""

    def is_users(self, pid):
        uid = status(pid).get("Uid", "").split()
        return bool(uid) and int(uid[0]) in [u.uid for u in self.users]

    def all(self):
        """Yields what exists now, as lines that begin with what it is."""
        yield from self.mounts()
        yield from self.loop_devices()
        yield from self.processes()
        yield from self.files()
        yield from self.cgroups()

    def mounts(self):
        seen = {}
        for line in read("/proc/1/mountinfo").splitlines():
            fields = line.split()
            if self.cluster in line:
                seen[fields[4]] = seen.get(fields[4], 0) + 1
        for point, count in seen.items():
            for i in range(count):
                yield f"mount {point} {i + 1}"

    def loop_devices(self):
        homes = tuple(user.home + "/" for user in self.users)
        for file in glob.glob("/sys/block/loop*/loop/backing_file"):
            backing = read(file).strip()
            if backing.startswith((self.cluster + "/", *homes)):
                yield f"loop device of {backing}"

    def processes(self):
        for pid in pids():
            kind = self.kind(pid)
            if kind or self.is_users(pid):
                # A dead process that nobody waits for yet is none.
                if link(f"/proc/{pid}/exe"):
                    yield f"process {kind or read(f'/proc/{pid}/comm').strip()} {pid}"

    def files(self):
        for directory, names in self.places():
            for where, _, files in os.walk(directory):
                for name in files:
                    path = os.path.join(where, name)
                    if names(path):
                        yield f"file {path}"

    def places(self):
        """Yields directories, and which files in them are leftovers."""

        def of_run(path):
            # What hooks remember of images is meant to stay, and locks are counted.
            return not ("/run/found/" in path or "/run/unnamed/" in path or path.endswith(".lock"))

        yield self.cluster + "/run", of_run
        yield self.cluster + "/named", lambda path: True
        yield self.cluster + "/store", lambda path: "/.tmp-" in path or "/lease/" in path
        for user in self.users:
            yield user.home + "/.cache", lambda path: "/.partial-" in path or "/.new-" in path or "/lease" in path
            yield user.home + "/saved", lambda path: True
        yield "/dev/shm", lambda path: "brolga" in path and self.cluster in path

    def turns(self):
        """Returns the locks that conversions take in turns, as many as the site allows by default."""
        names = ["node.1", "node.2"] + [f"user-{user.uid}.1" for user in self.users]
        return [f"{self.cluster}/run/convert/{name}.lock" for name in names]

    def locks(self):
        """Returns how many lock files there are, without those of turns."""
        found = -sum(os.path.exists(path) for path in self.turns())
        for directory in ("run", "named", "store"):
            for _, _, files in os.walk(f"{self.cluster}/{directory}"):
                found += sum(name.endswith(".lock") for name in files)
        return found

    def cgroups(self):
        for controller in glob.glob("/sys/fs/cgroup/*/"):
            # Clusters of a machine have nodes of the same names.
            if len(glob.glob("/run/brolga-clusters/*.dir")) == 1:
                for path in glob.glob(controller + "**/*brolga*", recursive=True):
                    # A killed helper leaves that of its turn for the next conversion.
                    if not os.path.basename(path).startswith("brolga-convert-"):
                        yield f"cgroup {path}"
            for user in self.users:
                for path in glob.glob(controller + f"slurm_n*/uid_{user.uid}/job_*"):
                    if os.path.basename(path).removeprefix("job_") not in self.unattended:
                        yield f"cgroup {path}"

    def daemons(self):
        """Returns memory in kB, descriptors and threads of Slurm's daemons."""
        found = {}
        for file in glob.glob(self.cluster + "/pid/slurm*.pid"):
            pid = read(file).strip()
            fields = status(pid)
            if "VmRSS" in fields:
                found[os.path.basename(file)[:-4]] = {
                    "pid": int(pid),
                    "rss": kilobytes(fields, "VmRSS"),
                    "data": kilobytes(fields, "VmData"),
                    "fds": len(os.listdir(f"/proc/{pid}/fd")),
                    "threads": int(fields["Threads"]),
                }
        return found

    def orphans(self):
        """Returns processes of steps whose slurmstepd is gone."""
        found = []
        for pid in pids():
            fields = status(pid)
            if fields.get("PPid") == "1" and (self.is_users(pid) or self.is_task(pid, fields)):
                found.append(int(pid))
        return found

    def describe(self, pid):
        """Returns what explains why a process has not ended."""
        fields = status(pid)
        known = {name: fields.get(name, "") for name in ("Name", "State", "PPid", "TracerPid", "Uid")}
        known["waits in"] = read(f"/proc/{pid}/wchan")
        known["arguments"] = read(f"/proc/{pid}/cmdline").replace("\0", " ")
        known["files"] = sorted(link(fd) for fd in glob.glob(f"/proc/{pid}/fd/*"))
        known["mounts"] = [line for line in read(f"/proc/{pid}/mountinfo").splitlines() if self.cluster in line]
        return known

    def is_task(self, pid, fields):
        return fields.get("Name") == "brolga-task" and holds_file_below(pid, self.cluster)


def nodes():
    """Returns each node's state, and why it is in it."""
    out = subprocess.run(
        ["sinfo", "--noheader", "--Node", "--format=%N %T %E"], capture_output=True, text=True, check=False
    ).stdout
    return dict(line.split(None, 1) for line in out.splitlines())
