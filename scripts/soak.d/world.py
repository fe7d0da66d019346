# SPDX-License-Identifier: Apache-2.0
"""What a soak run needs on a cluster: users, images, a store and a registry that can fail."""

import dataclasses
import glob
import os
import pwd
import shutil
import subprocess
import time

import traces

HERE = os.path.dirname(os.path.abspath(__file__))
REPOSITORY = os.path.dirname(os.path.dirname(HERE))
APPLETS = "sh cat echo env head id kill ls mkdir pwd sh sleep stat touch".split()


@dataclasses.dataclass
class User:
    name: str
    uid: int
    gid: int
    groups: list
    home: str


def user(name):
    entry = pwd.getpwnam(name)
    return User(name, entry.pw_uid, entry.pw_gid, os.getgrouplist(name, entry.pw_gid), entry.pw_dir)


def run(*command, **more):
    """Runs a command that has to succeed, and returns what it prints."""
    done = subprocess.run(command, capture_output=True, text=True, check=False, stdin=subprocess.DEVNULL, **more)
    if done.returncode:
        raise RuntimeError(f"{' '.join(command)}: {done.stderr.strip() or done.stdout.strip()}")
    return done.stdout.strip()


def wait(seconds, condition):
    """Waits until the condition holds, and reports whether it does."""
    end = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > end:
            return False
        time.sleep(0.05)
    return True


def holders(directory):
    """Returns which loop devices and processes have files below a directory open."""
    found = []
    for file in glob.glob("/sys/block/loop*/loop/backing_file"):
        found += [f"{file}: {text}" for text in [traces.read(file).strip()] if text.startswith(directory + "/")]
    for pid in traces.pids():
        if traces.holds_file_below(pid, directory):
            found.append(f"{pid} {traces.read(f'/proc/{pid}/cmdline')!r}")
    return ", ".join(found)


class World:
    """The context of one run. Its end undoes what its beginning did."""

    def __init__(self):
        env = os.environ
        self.cluster = env["BROLGA_CLUSTER_DIR"]
        self.nodes = int(env["BROLGA_TEST_NODES"])
        self.registry = env["BROLGA_TEST_REGISTRY"]
        self.debian = env["BROLGA_TEST_IMAGE"].split("/", 1)[1]
        self.directory = self.cluster + "/soak"
        self.store = self.cluster + "/store"
        self.first, self.second = env["BROLGA_TEST_USER"], env["BROLGA_TEST_USER"] + "s"
        self.cgroups = "proctrack/cgroup" in open(env["SLURM_CONF"], encoding="utf-8").read()
        self.config = env["BROLGA_CONFIG"]
        self.users = []
        self.images = {}
        self.proxy = self.faultfs = None

    def __enter__(self):
        os.mkdir(self.directory)
        subprocess.run(["useradd", "--user-group", "--create-home", "--shell", "/bin/bash", self.second], check=True)
        os.chmod(f"/home/{self.second}", 0o700)
        self.users = [user(self.first), user(self.second)]
        shutil.copy2(self.config, self.directory + "/brolga.toml")
        self.configure()
        self.mount_store()
        self.start_proxy()
        self.make_images()
        return self

    def __exit__(self, *_):
        for undo in (self.stop_faultfs, self.stop_proxy, self.unmount_store, self.remove_users):
            try:
                undo()
            except (OSError, RuntimeError, subprocess.SubprocessError) as error:
                print(f"soak: {error}")
        os.replace(self.directory + "/brolga.toml", self.config)
        shutil.rmtree(self.directory, ignore_errors=True)

    def collect(self):
        """Removes what killed pulls leave until the next pull of the same image: their leases."""
        for person in self.users:
            run(f"{self.cluster}/prefix/bin/brolga", "gc", "--config", self.config, user=person.uid, group=person.gid,
                extra_groups=person.groups, env={**os.environ, "HOME": person.home}, cwd=person.home)

    def remove_users(self):
        run("scancel", "--quiet", "--user", self.second)
        wait(20, lambda: not run("squeue", "--noheader", "--user", self.second))
        run("userdel", "--remove", self.second)
        for name in ("image.sqsh", "image.tar", "tree", "layout", "data", "saved"):
            path = f"{self.users[0].home}/{name}"
            if os.path.isdir(path):
                shutil.rmtree(path)
            elif os.path.exists(path):
                os.remove(path)

    def configure(self):
        """Adds an MPI to the site's configuration.

        A node waits for others that were killed before it called them. It gives up
        before the run takes that for a hang.
        """
        with open(self.config, "a", encoding="utf-8") as f:
            f.write('\n[sync]\ntimeout = "60s"\n')
            f.write('\n[[mpi]]\nname = "mpich"\nlibraries = ["libmpich.so.12"]\n')

    # The store is a file system of its own, which can be full, read-only or gone.
    def mount_store(self):
        disk = self.directory + "/store.ext4"
        run("truncate", "--size=1500M", disk)
        run("/usr/sbin/mke2fs", "-q", "-t", "ext4", "-m", "0", disk)
        run("mount", "-o", "loop", disk, self.store)
        run("chown", "brolga:brolga", self.store)
        os.chmod(self.store, 0o711)

    def unmount_store(self):
        if not wait(30, lambda: subprocess.run(["umount", self.store], check=False, capture_output=True).returncode == 0):
            run("umount", "--lazy", self.store)
            raise RuntimeError("the store was in use at the end")

    def start_proxy(self):
        """Puts a registry that fails on demand in front of the cluster's."""
        files = [f"{self.directory}/proxy.{name}" for name in ("port", "plan", "log")]
        self.plan(())
        with open(self.directory + "/proxy.err", "w", encoding="utf-8") as err:
            self.proxy = subprocess.Popen(
                [REPOSITORY + "/integration/programs/fault-proxy", self.registry, *files], stdout=err, stderr=err
            )
        if not wait(20, lambda: os.path.exists(files[0])):
            raise RuntimeError("the proxy of the registry does not start")
        with open(files[0], encoding="ascii") as f:
            self.through = f"127.0.0.1:{f.read()}"

    def plan(self, lines):
        """Says what goes wrong at the registry from now on."""
        with open(self.directory + "/proxy.plan", "w", encoding="utf-8") as f:
            f.writelines(f"{line}(?#{time.monotonic_ns()})\n" for line in lines)

    def stop_proxy(self):
        if self.proxy:
            self.proxy.terminate()
            self.proxy.wait()

    def start_faultfs(self, mode):
        """Puts a layer before the store that is slow or fails."""
        self.fail(mode)
        program = self.directory + "/faultfs"
        if not os.path.exists(program):
            flags = run("pkg-config", "--cflags", "--libs", "fuse3").split()
            run("gcc", "-O2", "-D_GNU_SOURCE", "-o", program, HERE + "/faultfs.c", *flags)
        with open(self.directory + "/faultfs.err", "a", encoding="utf-8") as err:
            self.faultfs = subprocess.Popen([program, self.store, self.directory + "/faultfs.control", self.store], stderr=err)
        if not wait(10, lambda: "fuse.faultfs" in open("/proc/self/mounts", encoding="utf-8").read()):
            raise RuntimeError("faultfs does not mount")

    def fail(self, mode):
        with open(self.directory + "/faultfs.control", "w", encoding="utf-8") as f:
            f.write(mode + "\n")

    def stop_faultfs(self):
        if self.faultfs:
            self.fail("ok")
            run("umount", "--lazy", self.store)
            ended = wait(30, lambda: self.faultfs.poll() is not None)
            users = "" if ended else holders(self.store)
            self.faultfs.kill()
            self.faultfs.wait()
            self.faultfs = None
            # Without any, a mount namespace of another cluster's has a copy of the mount.
            if users:
                raise RuntimeError(f"the store was in use for 30 s after the last step: {users}")

    def make_images(self):
        for name in ("one", "two", "three", "bulk", "entry"):
            self.push(name)
        self.images["debian"] = f"{self.through}/{self.debian}"
        for u in self.users:
            for directory in ("data", "saved"):
                os.makedirs(f"{u.home}/{directory}", exist_ok=True)
            with open(u.home + "/data/hello", "w", encoding="utf-8") as f:
                f.write("hello\n")
            shutil.copytree(self.directory + "/one", u.home + "/tree", symlinks=True)
            run("mksquashfs", u.home + "/tree", u.home + "/image.sqsh", "-quiet", "-no-progress")
            for target in ("oci:" + u.home + "/layout:latest", "oci-archive:" + u.home + "/image.tar:latest"):
                run("skopeo", "--insecure-policy", "copy", "--quiet", "--src-tls-verify=false",
                    f"docker://{self.registry}/soak/one:latest", target)
            run("chown", "-R", f"{u.uid}:{u.gid}", *(f"{u.home}/{n}" for n in ("data", "saved", "tree", "image.sqsh", "layout", "image.tar")))
        for name in ("one", "two", "three", "bulk", "entry"):
            shutil.rmtree(f"{self.directory}/{name}")

    def push(self, name):
        """Makes an image of busybox. That of name "bulk" takes a while to fetch and to convert."""
        root = f"{self.directory}/{name}"
        for directory in ("bin", "etc", "mnt", "tmp"):
            os.makedirs(f"{root}/{directory}")
        os.chmod(root + "/tmp", 0o1777)
        shutil.copy2(shutil.which("busybox"), root + "/bin/busybox")
        for applet in set(APPLETS):
            os.symlink("busybox", f"{root}/bin/{applet}")
        with open(root + "/stamp", "w", encoding="utf-8") as f:
            f.write("one\n" if name == "one" else name + "\n")
        if name == "bulk":
            with open(root + "/bulk", "wb") as f:
                for _ in range(24):
                    f.write(os.urandom(1 << 20))
        options = ["--env", "PATH=/bin"]
        if name == "entry":
            with open(root + "/entry", "w", encoding="utf-8") as f:
                f.write('#!/bin/sh\nENTERED=yes exec "$@"\n')
            os.chmod(root + "/entry", 0o755)
            options += ["--entrypoint", "/entry"]
        run(REPOSITORY + "/scripts/mkimage", *options, "soak/" + name, root)
        self.images[name] = f"{self.through}/soak/{name}:latest"

    def digest(self, name):
        reference = self.images[name].split("/", 1)[1]
        return run("skopeo", "inspect", "--tls-verify=false", "--format={{.Digest}}", f"docker://{self.registry}/{reference}")

    def forget_cache(self):
        """Empties what users have pulled."""
        for u in self.users:
            shutil.rmtree(u.home + "/.cache/brolga", ignore_errors=True)

    def forget_image(self, name):
        """Removes an image from the store, as "brolga gc" does when no step uses it."""
        hexadecimal = self.digest(name).split(":")[1]
        for end in ("json", "squashfs"):
            path = f"{self.store}/sha256/{hexadecimal}.{end}"
            if os.path.exists(path):
                os.remove(path)

    def move_times(self, days):
        """Changes the times of all files of ours, as if the clock had been moved."""
        for top in [self.cluster + "/run", self.store, *(u.home + "/.cache" for u in self.users)]:
            for where, directories, files in os.walk(top):
                for name in directories + files:
                    path = os.path.join(where, name)
                    try:
                        seen = os.lstat(path)
                        os.utime(path, (seen.st_atime + days * 86400, seen.st_mtime + days * 86400), follow_symlinks=False)
                    except FileNotFoundError:
                        pass
