# SPDX-License-Identifier: Apache-2.0
"""Says in Markdown what a soak run has found."""

import time


def show(soak):
    seconds = time.monotonic() - soak.began
    options = soak.options
    print(f"`scripts/soak --steps {options.steps} --kills {options.kills} --faults {options.faults} --seed {options.seed}`, "
          f"{'proctrack/cgroup' if soak.world.cgroups else 'proctrack/linuxproc'}, {seconds:.0f} s\n")
    table(("what", "number"), [
        ("steps", soak.steps),
        ("processes killed", soak.killed.total()),
        ("processes that ended before they were killed", soak.missed.total()),
        ("steps that failed because of a kill or a fault", sum(n for (cause, _), n in soak.failures.items() if cause != "nothing")),
        ("steps that failed beside the one that was hit", getattr(soak, "spread", 0)),
        ("steps that failed undisturbed", sum(n for (cause, _), n in soak.failures.items() if cause == "nothing")),
        ("tasks that Slurm left without slurmstepd", soak.orphans.total()),
        ("problems: left over, hanging, wordless", len(soak.problems)),
    ])
    table(("killed", "times"), sorted(soak.killed.items()))
    table(("fault", "steps", "failed", "longest, s"), [(f, n[0], n[1], f"{n[2]:.1f}") for f, n in sorted(soak.faulted.items())])
    table(("failed because of", "with these words", "steps"), [(c, f"`{t}`", n) for (c, t), n in sorted(soak.failures.items())])
    table(("nodes that were not idle", "after", "times"), [(s, c, n) for (s, c), n in soak.drained.items()])
    table(("steps at a time", "median, s", "longest, s"), [times(soak, width) for width in (1, 4, 16, 64) if times(soak, width)])
    table(("process", "peak, MB", "most at a time"), [(k, f"{v / 1024:.1f}", soak.watch.most[k]) for k, v in sorted(soak.watch.peaks.items())])
    daemons(soak)
    for text in soak.problems:
        print(f"problem: {text}")


def table(head, rows):
    if not rows:
        return
    print("| " + " | ".join(head) + " |")
    print("|" + "---|" * len(head))
    for row in rows:
        print("| " + " | ".join(str(cell) for cell in row) + " |")
    print()


def times(soak, width):
    of = sorted(seconds for w, seconds in soak.times if w == width)
    return (width, f"{of[len(of) // 2]:.2f}", f"{of[-1]:.2f}") if of else None


def daemons(soak):
    """The slurmd of the last node is never killed, and slurmctld neither."""
    last = f"slurmd.n{soak.world.nodes}"
    rows = []
    for check in soak.checks:
        d, c = check["daemons"].get(last), check["daemons"].get("slurmctld")
        if d and c:
            rows.append((check["steps"], check["kills"], d["rss"], d["data"], d["fds"], d["threads"], c["rss"]))
    table(("after steps", "kills", f"{last} VmRSS, kB", "VmData, kB", "descriptors", "threads", "slurmctld VmRSS, kB"), rows)
