# SPDX-License-Identifier: Apache-2.0
"""What goes wrong around steps, for a while. Each is a context of the world."""

import contextlib
import os

from world import run


@contextlib.contextmanager
def store_full(world):
    filler = world.store + "/filler"
    fs = os.statvfs(world.store)
    size = fs.f_bavail * fs.f_bsize - (64 << 10)
    run("fallocate", "--length", str(size), filler)
    try:
        yield
    finally:
        os.remove(filler)


@contextlib.contextmanager
def store_read_only(world):
    run("mount", "-o", "remount,ro", world.store)
    try:
        yield
    finally:
        run("mount", "-o", "remount,rw", world.store)


@contextlib.contextmanager
def store_gone(world):
    """An empty directory of root's is there, as where a file system is not mounted."""
    run("mount", "-t", "tmpfs", "-o", "size=64k,mode=755", "tmpfs", world.store)
    try:
        yield
    finally:
        run("umount", world.store)


def with_layer(mode):
    @contextlib.contextmanager
    def layer(world):
        world.start_faultfs("ok")
        world.fail(mode)
        try:
            yield
        finally:
            world.stop_faultfs()

    return layer


def with_registry(*lines):
    @contextlib.contextmanager
    def registry(world):
        world.plan(lines)
        try:
            yield
        finally:
            world.plan(())

    return registry


def with_clock(days):
    @contextlib.contextmanager
    def clock(world):
        world.move_times(-days)
        yield

    return clock


@contextlib.contextmanager
def nothing(_):
    yield


CONTEXTS = {
    "store full": store_full,
    "store read-only": store_read_only,
    "store gone": store_gone,
    "store slow": with_layer("slow 5"),
    "store fails": with_layer("fail 5"),
    "store fails to write": with_layer("nowrite 5"),
    "registry down": with_registry("0 drop ."),
    "registry faulty": with_registry("2 503 blobs", "1 cut blobs", "1 wrong blobs", "1 drop manifests"),
    "clock jumps ahead": with_clock(400),
    "clock jumps back": with_clock(-400),
    "memory exhausted": nothing,
}
