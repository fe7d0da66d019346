# SPDX-License-Identifier: Apache-2.0
"""SIGKILL for processes of a kind, at moments that the plan has chosen."""

import os
import re
import signal
import subprocess
import threading
import time

from traces import link, read, pids, status
from world import wait


class Killer(threading.Thread):
    """Carries out the kills of one round beside its steps."""

    def __init__(self, world, traces, kills, random):
        super().__init__(daemon=True)
        self.world, self.traces, self.kills, self.random = world, traces, list(kills), random
        self.done = []  # the kinds that were killed
        self.failed = None
        self.over = threading.Event()
        self.victims = set()

    def run(self):
        try:
            for kill in self.kills:
                if not self.over.is_set() and self.kill(kill):
                    self.done.append(kill.kind)
        except RuntimeError as error:
            self.failed = error

    def kill(self, kill):
        """Reports whether there was a process to kill."""
        if kill.kind == "slurmd":
            self.over.wait(kill.delay)
            return self.kill_slurmd()
        while not self.over.is_set():
            for pid in self.find(kill.kind):
                if self.kill_process(pid, kill):
                    return True
            time.sleep(0.005)
        return False

    def find(self, kind):
        found = [pid for pid in pids() if pid not in self.victims and self.traces.kind(pid) == kind]
        self.random.shuffle(found)
        return found

    def kill_process(self, pid, kill):
        try:
            process = os.pidfd_open(int(pid))
        except OSError:
            return False
        try:
            time.sleep(kill.delay)
            title = read(f"/proc/{pid}/cmdline")
            # Neither one that ended meanwhile nor one that waits to be reaped.
            if not link(f"/proc/{pid}/exe"):
                return False
            signal.pidfd_send_signal(process, signal.SIGKILL)
        except ProcessLookupError:
            return False
        finally:
            os.close(process)
        self.victims.add(pid)
        if kill.kind == "slurmstepd":
            self.cancel_job_of(title)
        return True

    def cancel_job_of(self, title):
        """Slurm does not notice by itself: without this its job lasts until its time is over."""
        job = re.search(r"\[(\d+)\.", title)
        if job:
            self.traces.unattended.add(job[1])
            threading.Timer(2, lambda: subprocess.run(["scancel", "--quiet", job[1]], check=False, timeout=30)).start()

    def kill_slurmd(self):
        # The last node keeps its slurmd, whose memory is looked at in the end.
        node = "n%d" % self.random.randint(1, self.world.nodes - 1)
        pid = read(f"{self.world.cluster}/pid/slurmd.{node}.pid").strip()
        try:
            os.kill(int(pid), signal.SIGKILL)
        except (ValueError, ProcessLookupError):
            return False
        wait(5, lambda: not link(f"/proc/{pid}/exe"))
        time.sleep(self.random.uniform(0, 1))
        start_slurmd(self.world, node)
        return True


def start_slurmd(world, node):
    """Starts a slurmd until it runs: children of the one before may still have its port."""
    command = os.environ.get("BROLGA_SOAK_SLURMD", "slurmd").split()

    def runs():
        with open(f"{world.cluster}/log/slurmd.{node}.log", "a", encoding="utf-8") as log:
            subprocess.run([*command, "-N", node], stdin=subprocess.DEVNULL, stdout=log, stderr=log, check=False)
        return wait(5, lambda: slurmd_runs(world, node)) and not wait(0.5, lambda: not slurmd_runs(world, node))

    if not wait(60, runs):
        raise RuntimeError(f"slurmd of {node} does not start again")


def slurmd_runs(world, node):
    pid = read(f"{world.cluster}/pid/slurmd.{node}.pid").strip()
    return "slurmd" in os.path.basename(link(f"/proc/{pid}/exe"))


class Watch(threading.Thread):
    """Notes the most memory that processes of each kind were seen with."""

    def __init__(self, traces):
        super().__init__(daemon=True)
        self.traces, self.peaks, self.most = traces, {}, {}
        self.over = threading.Event()

    def run(self):
        while not self.over.wait(0.25):
            counts = {}
            for pid in pids():
                kind = self.traces.kind(pid)
                if kind:
                    high = int(status(pid).get("VmHWM", "0 kB").split()[0])
                    self.peaks[kind] = max(self.peaks.get(kind, 0), high)
                    counts[kind] = counts.get(kind, 0) + 1
            for kind, count in counts.items():
                self.most[kind] = max(self.most.get(kind, 0), count)
