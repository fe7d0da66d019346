# SPDX-License-Identifier: Apache-2.0
"""What a soak run does: rounds of steps, kills and faults, all from a seed.

Nothing here looks at the machine. The same seed gives the same steps in the same
order, and the same kinds of kills; which process a kill hits is a matter of time.
"""

import dataclasses
import random

# How often each is killed, of a hundred.
KILLS = {
    "brolga-helper": 24,
    "slurmstepd": 14,
    "slurmd": 8,
    "squashfuse": 12,
    "brolga-ssh": 10,
    "brolga pull": 11,
    "brolga convert": 11,
    "brolga save": 10,
}

# Milliseconds within which each is killed after it was seen.
LIFE = {
    "brolga-helper": 60,
    "slurmstepd": 500,
    "slurmd": 1500,
    "squashfuse": 400,
    "brolga-ssh": 400,
    "brolga pull": 250,
    "brolga convert": 400,
    "brolga save": 60,
}

FAULTS = (
    "store full",
    "store read-only",
    "store gone",
    "store slow",
    "store fails",
    "store fails to write",
    "registry down",
    "registry faulty",
    "clock jumps ahead",
    "clock jumps back",
    "memory exhausted",
)

# Images of a registry, and what users keep in files.
SMALL = ("one", "two", "three")
FILES = {
    "sqsh": "{home}/image.sqsh",
    "dir": "dir:{home}/tree",
    "layout": "oci:{home}/layout",
    "archive": "oci-archive:{home}/image.tar",
}

# Options, and what a task finds where they hold.
OPTIONS = {
    "mounts": ("--container-mounts={home}/data:/data:ro,tmpfs:/scratch", "read x </data/hello && echo x >/scratch/x"),
    "remap-root": ("--container-remap-root", "[ $(id -u) = 0 ]"),
    "unshare=ipc": ("--container-unshare=ipc", ":"),
    "unshare=uts": ("--container-unshare=uts", ":"),
    "unshare=pid": ("--container-unshare=pid", "[ -e /proc/1/stat ]"),
    "unshare=net": ("--container-unshare=net", "[ ! -e /sys/class/net/eth0 ]"),
    "writable": ("--container-writable", "echo x >/tmp/x"),
    "readonly": ("--container-readonly", "! touch /tmp/x 2>/dev/null"),
    "name": ("--container-name=c{number}", "echo x >/tmp/x"),
    "save": ("--container-save={home}/saved/{number}.sqsh", "echo x >/tmp/x"),
    "env": ("--container-env=SOAK={number}", '[ "$SOAK" = {number} ]'),
    "workdir": ("--container-workdir=/tmp", '[ "$(pwd)" = /tmp ]'),
    "no-home": ("--no-container-mount-home", ":"),
    "entrypoint": ("--container-entrypoint", '[ "$ENTERED" = yes ]'),
    "mpi": ("--container-mpi", ":"),
    "glibc": ("--container-glibc", ":"),
    "sync": ("--container-sync", ":"),
    "ssh": ("--container-ssh", ":"),
    "fill": ("--container-writable", "head -c 100000000 /dev/zero >/tmp/fill && echo x >/tmp/x"),
}
ANYWHERE = (
    "mounts",
    "remap-root",
    "unshare=ipc",
    "unshare=uts",
    "unshare=pid",
    "unshare=net",
    "writable",
    "readonly",
    "name",
    "save",
    "env",
    "workdir",
    "no-home",
)
# Of each of these a step has at most one.
APART = (
    {"writable", "readonly"},
    {"readonly", "name"},
    {"readonly", "save"},
    {"unshare=ipc", "unshare=uts", "unshare=pid", "unshare=net"},
)


@dataclasses.dataclass
class Step:
    number: int
    user: int
    image: str
    options: list
    ending: str  # ok, exit, missing or signal
    seconds: float  # how long its tasks sleep
    nodes: int = 1
    tasks: int = 1
    where: str = ""  # one node, if it is that one
    memory: int = 0  # its limit in megabytes


@dataclasses.dataclass
class Kill:
    kind: str
    delay: float  # seconds


@dataclasses.dataclass
class Round:
    number: int
    width: int
    steps: list
    kills: list = dataclasses.field(default_factory=list)
    fault: str = ""


def fits(options, new):
    return not any(new in apart and apart & set(options) for apart in APART)


class Plan:
    def __init__(self, seed, nodes, cgroups):
        self.random = random.Random(seed)
        self.nodes = nodes
        self.faults = [f for f in FAULTS if cgroups or f != "memory exhausted"]
        self.rounds = 0
        self.steps = 0

    def options_for(self, image):
        """Returns options that may stand together, for an image."""
        options = []
        for option in self.random.sample(ANYWHERE, self.random.choice((0, 0, 1, 1, 2, 3))):
            if fits(options, option):
                options.append(option)
        if image == "sqsh" and "remap-root" in options:
            options.remove("remap-root")  # squashfuse serves one user only
        if image == "entry":
            options.append("entrypoint")
        if image == "debian" and self.random.random() < 0.5:
            options.append(self.random.choice(("mpi", "glibc")))
        return options

    def step(self, kind=""):
        """Returns a step that has a process of that kind for sure."""
        r = self.random
        self.steps += 1
        image = r.choices(
            (*SMALL, "bulk", "debian", "entry", *FILES), weights=(12, 12, 12, 6, 8, 6, 14, 10, 6, 4)
        )[0]
        image = {"squashfuse": "sqsh", "brolga pull": "bulk", "brolga convert": "bulk"}.get(kind, image)
        step = Step(self.steps, r.randrange(2), image, self.options_for(image), "ok", r.choice((0, 0, 0, 0.1, 0.3)))
        step.ending = r.choices(("ok", "exit", "missing", "signal"), weights=(85, 8, 4, 3))[0]
        step.tasks = r.choice((1, 1, 1, 1, 2, 4))
        if r.random() < 0.08:
            step.nodes = r.randint(2, self.nodes)
            step.options.append("sync")
        if kind == "brolga-ssh" or (not kind and r.random() < 0.03):
            self.with_ssh(step)
        if kind == "brolga save" and "save" not in step.options:
            step.options = ["save"]
        if kind in ("squashfuse", "slurmstepd", "brolga-ssh", "slurmd"):
            step.seconds = r.choice((0.2, 0.5))
        if step.nodes > 1:
            step.tasks = 1
            step.options = [o for o in step.options if o not in ("name", "save")]
        if {"save", "unshare=pid", "entrypoint", "sync", "ssh"} & set(step.options) and step.ending != "ok":
            step.ending = "exit"
        if step.ending in ("exit", "signal") and step.nodes * step.tasks > 1:
            step.ending = "ok"  # srun kills the others after the first
        return step

    def with_ssh(self, step):
        step.image, step.nodes, step.ending = self.random.choice(SMALL), 2, "ok"
        step.options = ["ssh"]

    def kinds(self, count):
        return self.random.choices(list(KILLS), weights=list(KILLS.values()), k=count)

    def round(self, width=0, kills=0):
        """Returns a round of steps, width of them at a time."""
        r = self.random
        self.rounds += 1
        width = width or r.choices((1, 4, 16, 64), weights=(35, 30, 25, 10))[0]
        kinds = self.kinds(kills)
        wanted = [kind for kind in kinds for _ in range(3)]
        count = max(width, 20, len(wanted))
        steps = [self.step(kind) for kind in wanted + [""] * (count - len(wanted))]
        r.shuffle(steps)
        if width == 64:
            self.on_one_node(steps)
        for place, step in enumerate(steps):
            step.number = self.steps - len(steps) + 1 + place
        kills = [Kill(kind, r.uniform(0, LIFE[kind]) / 1000) for kind in kinds]
        return Round(self.rounds, width, steps, kills)

    def on_one_node(self, steps):
        """All at once on one node, whose processors are enough for one task of each."""
        where = "n%d" % self.random.randint(1, self.nodes)
        for step in steps:
            step.tasks = 1
            if step.nodes == 1:
                step.where = where

    def fault_round(self, fault):
        """Returns a round that a fault lasts for: images that are there, and one that is not."""
        r = self.random
        self.rounds += 1
        steps = []
        for image in ("one", "bulk", "sqsh", "bulk", "two", "dir", "debian", "bulk"):
            self.steps += 1
            steps.append(Step(self.steps, r.randrange(2), image, [], "ok", 0))
        if fault == "memory exhausted":
            for step, memory in zip(steps, (30, 40, 60, 80, 30, 500, 500, 50)):
                step.memory = memory
                step.options = ["fill", *r.choice(([], ["save"], ["name"]))]
        return Round(self.rounds, 2, steps, fault=fault)
