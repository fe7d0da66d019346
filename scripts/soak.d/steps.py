# SPDX-License-Identifier: Apache-2.0
"""Runs steps as users, and says of each whether it ended as it should."""

import os
import re
import signal
import subprocess
import threading
import time

import plan

# A step that has not ended then counts as one that hangs.
LIMIT = 150


class Result:
    def __init__(self, step, status, output, errors, seconds):
        self.step, self.status, self.output, self.errors, self.seconds = step, status, output, errors, seconds
        self.trouble = self.judge()

    def judge(self):
        """Returns what is wrong, or ""."""
        step = self.step
        if self.status is None:
            return f"no end within {LIMIT} s"
        if "soak-on-host" in self.output:
            return "a task ran on the host"
        wanted = {"ok": 0, "exit": 7, "missing": 2, "signal": 137}[step.ending]
        if self.status != wanted:
            return self.text() or f"status {self.status}, without a word"
        if step.ending == "missing":
            return "" if "No such file" in self.errors else "no word of the missing program"
        said = len(re.findall(rf"^soak {step.number} {stamp(step)}$", self.output, re.MULTILINE))
        if said != step.nodes * step.tasks:
            return f"{said} of {step.nodes * step.tasks} tasks said what they should"
        return ""

    def text(self):
        """Returns what was said of a failure, without what differs each time."""
        lines = [line for line in self.errors.splitlines() if re.search(r"error|fatal|srun:|slurmstepd|sh:", line)]
        ours = [line for line in lines if "brolga: error" in line]
        # Slurm tells of tasks that end, and of steps that wait; that explains nothing.
        theirs = [line for line in lines if not re.search("Exited with|hint|STEP [0-9.]+ ON|step creation|Terminated", line)]
        for line in ours or theirs[:1] or lines[:1]:
            return general(line)
        return ""

    def in_words(self):
        return bool(self.text())


def general(line):
    """Returns an error without names, numbers and digests."""
    line = re.sub(r"^(srun|slurmstepd(-\w+)?): ", "", line.strip())
    line = re.sub(r"^slurmstepd-n\d+: ", "", line)
    line = re.sub(r"sha256[:/][0-9a-f]+", "DIGEST", line)
    line = re.sub(r"127\.0\.0\.1:\d+", "REGISTRY", line)
    line = re.sub(r"/home/[\w-]+", "HOME", line)
    line = re.sub(r"/var/tmp/[\w.-]+", "DIR", line)
    line = re.sub(r"\bn\[?\d[-\d,]*\]?(?=\b|:)", "NODE", line)
    line = re.sub(r"[0-9a-f]{16,}", "HEX", line)
    return re.sub(r"\d+(\.\d+)?", "N", line)[:200]


def stamp(step):
    return "one" if step.image in plan.FILES else step.image


class Runner:
    def __init__(self, world):
        self.world = world
        self.running = 0
        self.lock = threading.Lock()

    def command(self, step):
        """Returns the srun of a step."""
        user = self.world.users[step.user]
        names = {"number": step.number, "home": user.home}
        image = self.world.images.get(step.image) or plan.FILES[step.image]
        options = [
            f"--job-name=soak{step.number}", "--time=5", "--kill-on-bad-exit=1",
            f"-N{step.nodes}", f"--ntasks-per-node={step.tasks}", "--container-image=" + image.format(**names),
        ]
        options += [plan.OPTIONS[o][0].format(**names) for o in step.options]
        if step.where:
            options += ["-w", step.where]
        if step.memory:
            options.append(f"--mem={step.memory}")
        if step.ending == "missing":
            return ["srun", *options, "/no/such/program"]
        return ["srun", *options, "sh", "-c", self.script(step, names)]

    def script(self, step, names):
        checks = " && ".join(plan.OPTIONS[o][1] for o in step.options if plan.OPTIONS[o][1] != ":") or "true"
        for name, value in names.items():
            checks = checks.replace("{%s}" % name, str(value))
        stamp_of_image = "echo debian" if step.image == "debian" else "cat /stamp"
        host = "[ ! -e %s ] || { echo soak-on-host; exit 1; }" % self.world.directory
        end = {"ok": "exit 0", "exit": "exit 7", "signal": "kill -KILL $$"}[step.ending]
        reads = "cat /stamp >/dev/null; " * 5 if step.image == "sqsh" else ""
        return (
            f"{host}; s=$({stamp_of_image}) || exit 9; {checks} || exit 8; sleep {step.seconds}; {reads}"
            f'echo "soak {step.number} $s"; {end}'
        )

    def run(self, step):
        user = self.world.users[step.user]
        env = {
            "HOME": user.home, "USER": user.name, "LOGNAME": user.name, "SHELL": "/bin/bash", "LANG": "C.UTF-8",
            "SLURM_CONF": os.environ["SLURM_CONF"],
            "PATH": f"{self.world.cluster}/prefix/bin:/usr/local/bin:/usr/bin:/bin",
        }
        began = time.monotonic()
        process = subprocess.Popen(
            self.command(step), user=user.uid, group=user.gid, extra_groups=user.groups, env=env, cwd=user.home, umask=0o022,
            stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, errors="replace", start_new_session=True,
        )
        try:
            output, errors = process.communicate(timeout=LIMIT)
            code = process.returncode
        except subprocess.TimeoutExpired:
            subprocess.run(["scancel", "--quiet", f"--name=soak{step.number}"], check=False, timeout=60)
            os.killpg(process.pid, signal.SIGKILL)
            output, errors = process.communicate()
            code = None
        result = Result(step, code, output, errors, time.monotonic() - began)
        if not result.trouble and "save" in step.options and step.ending == "ok":
            result.trouble = self.look_at_saved(step, user)
        self.forget_saved(step, user)
        return result

    def saved(self, step, user):
        return f"{user.home}/saved/{step.number}.sqsh"

    def look_at_saved(self, step, user):
        done = subprocess.run(
            ["unsquashfs", "-q", "-no-progress", "-cat", self.saved(step, user), "tmp/x"], capture_output=True, text=True, check=False
        )
        return "" if done.stdout == "x\n" else "the saved file lacks what was written"

    def forget_saved(self, step, user):
        try:
            os.remove(self.saved(step, user))
        except FileNotFoundError:
            pass
