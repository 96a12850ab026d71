#!/usr/bin/env python3
# SPDX-License-Identifier: GPL-2.0
"""Tries the README's commands on a fresh machine: a chroot with a Debian release and nothing of ours,
into which the checkout is cloned.

All of it runs in namespaces of its own. What is mounted there, and whatever runs, goes away with the
last process, and the folder when this ends; what was left by a run that was killed, when the next
one begins."""

import argparse
import dataclasses
import os
import pathlib
import shlex
import shutil
import signal
import subprocess
import sys
import time

import archive
import toolchain
from common import CACHE, OUT, REPO, Fail, Progress, lock, main, need_space, run, say, tail, watch, write

SPACE_GIB = 20

# What the README asks a machine to have.
PREREQUISITES = "ca-certificates,git,make,python3"
PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
CHECKOUT = "root/dma-rs"

# Those that a machine trusts besides Debian's.
CERTIFICATES = pathlib.Path("/usr/local/share/ca-certificates")

NAMESPACES = ("unshare", "--mount", "--pid", "--fork", "--kill-child")


@dataclasses.dataclass(frozen=True)
class Release:
    """A Debian release. One whose rustc the kernel doesn't take is lent the host's."""

    lends_rust: bool = False


RELEASES = {"bookworm": Release(lends_rust=True), "trixie": Release()}


@dataclasses.dataclass(frozen=True)
class Machine:
    """A fresh machine: the folder that is its root."""

    name: str
    root: pathlib.Path
    lock: int

    @property
    def release(self):
        """What is installed there."""
        return RELEASES[self.name]

    def lent(self):
        """Folders of the host that can be read there: from, to."""
        if not self.release.lends_rust:
            return {}
        home = pathlib.Path.home()
        return {os.environ.get("RUSTUP_HOME") or home / ".rustup": "lent/rustup",
                pathlib.Path(os.environ.get("CARGO_HOME") or home / ".cargo") / "bin": "lent/bin"}

    def env(self):
        """The environment there: a user's who has just logged in, and the way to the network."""
        env = {"HOME": "/root", "PATH": PATH, "LANG": "C.UTF-8", "TERM": "dumb"}
        env.update((key, value) for key, value in os.environ.items() if key.lower().endswith("_proxy"))
        if self.release.lends_rust:
            env.update(PATH=f"/lent/bin:{PATH}", RUSTUP_HOME="/lent/rustup")
        return env

    def command(self, words):
        """A command line that runs `words` in the checkout there."""
        mounts = [["mount", "--rbind", "/dev", self.root / "dev"],
                  ["mount", "-t", "proc", "proc", self.root / "proc"],
                  ["mount", "-t", "sysfs", "sysfs", self.root / "sys"]]
        for origin, target in self.lent().items():
            mounts += [["mkdir", "-p", self.root / target],
                       ["mount", "--bind", "-o", "ro", origin, self.root / target]]
        inside = f"cd /{CHECKOUT} && exec {shlex.join(words)}"
        mounts.append(["exec", "chroot", self.root, "sh", "-c", inside])
        script = "; ".join(shlex.join(map(str, step)) for step in mounts)
        return [*NAMESPACES, "sh", "-e", "-c", script]

    def run(self, words):
        """Runs a short command there; returns what it says."""
        return run(self.command(words), env=self.env())

    def watch(self, words, log):
        """Runs a long command there, with its last words as progress. Returns its exit status."""
        progress = Progress(" ".join(words))

        def tick():
            said = tail(log, 1).strip()
            progress.show(said.splitlines()[-1] if said else "")

        status = watch_namespace(self.command(words), log, tick, self.lock, env=self.env())
        progress.done("done" if status == 0 else f"FAILED ({status})")
        return status


def watch_namespace(command, log, tick, lock_fd, **kwargs):
    """Watches a command in namespaces of its own. To end it, unshare is killed, since it ignores SIGTERM,
    as the first process in there does; all others die with it."""
    return watch(command, log, tick, end=subprocess.Popen.kill, pass_fds=(lock_fd,), **kwargs)


def check(name):
    """Finds what would fail later."""
    if name not in RELEASES:
        raise Fail(f"unknown RELEASE {name!r}; known: {', '.join(RELEASES)}")
    if os.geteuid() != 0:
        raise Fail(f"make fresh makes a chroot, which needs root: sudo make fresh RELEASE={name}")
    if not toolchain.is_debian():
        raise Fail("make fresh needs apt and debootstrap: run it on Debian, or a relative of it")
    toolchain.install(["debootstrap"])
    if RELEASES[name].lends_rust and not toolchain.find("rustup"):
        raise Fail(f"the rustc of {name} is too old for the kernel, and there is none here that could be "
                   f"lent:\n{toolchain.RUSTUP_ADVICE}")
    need_space(SPACE_GIB, "a fresh machine")


def bootstrap(machine):
    """Installs the release, and clones the checkout into it."""
    log = OUT / f"fresh-{machine.name}-debootstrap.log"
    progress = Progress(f"installing {machine.name}")
    command = [*NAMESPACES, "debootstrap", "--variant=minbase", f"--include={PREREQUISITES}", machine.name,
               machine.root, archive.machine_mirror()]
    if watch_namespace(command, log, lambda: progress.show(tail(log, 1).strip()), machine.lock):
        raise Fail(f"debootstrap could not install {machine.name}:\n{tail(log)}\n"
                   "Check the network, and that the mirror of this machine's apt has this release.")
    progress.done()

    sources = machine.root / "etc/apt/sources.list"
    mirrors = archive.machine_sources()
    lines = [f"deb {mirrors['Debian']} {machine.name} main", f"deb {mirrors['Debian']} {machine.name}-updates main"]
    if "Debian-Security" in mirrors:
        lines.append(f"deb {mirrors['Debian-Security']} {machine.name}-security main")
    sources.write_text("\n".join(lines) + "\n")
    for name in ("etc/resolv.conf", "etc/hosts"):
        shutil.copyfile(f"/{name}", machine.root / name)
    # Whose way to the network leads through a proxy may have to trust that, too.
    shutil.copytree(CERTIFICATES, machine.root / CERTIFICATES.relative_to("/"), dirs_exist_ok=True)

    if run(["git", "-C", REPO, "status", "--porcelain"]):
        say("what is not committed here is not in the clone")
    run(["git", "clone", "--quiet", "--no-hardlinks", REPO, machine.root / CHECKOUT])
    machine.run(["update-ca-certificates"])


def versions(machine):
    """What the commands used, for people."""
    tools = machine.run(["scripts/build.py", "--until=setup"]).splitlines()[0]
    emulator = machine.run(["qemu-system-x86_64", "--version"]).splitlines()[0]
    return f"{tools}; {emulator}"


def try_targets(machine, targets):
    """Runs each target. Returns whether all passed; says how long each took and its last line."""
    passed = True
    rows = []
    for target in targets:
        log = OUT / f"fresh-{machine.name}-{target}.log"
        start = time.monotonic()
        status = machine.watch(["make", target], log)
        seconds = int(time.monotonic() - start)
        words = tail(log, 1).strip()
        rows.append(f"make {target}: {'passed' if status == 0 else 'FAILED'} in "
                    f"{seconds // 60}:{seconds % 60:02}; last line: {words}")
        if status:
            passed = False
            say(tail(log, 40))
            break
    say(f"\n{machine.name}: {versions(machine) if passed else 'see the logs in out/'}")
    for row in rows:
        say(row)
    return passed


def remove(root):
    """Removes a fresh machine. Nothing is mounted in there: not where we are. What still dies in
    there may leave something behind for a moment."""
    for _ in range(10):
        shutil.rmtree(root, ignore_errors=True)
        if not root.exists():
            return
        time.sleep(1)
    raise Fail(f"{root} can't be removed: something still uses it")


def cli():
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n")[0])
    parser.add_argument("--release", default="", help=f"one of {', '.join(RELEASES)}")
    parser.add_argument("--targets", default="run test", help="what to make there, one after the other")
    options = parser.parse_args()
    check(options.release)
    OUT.mkdir(exist_ok=True)
    # Whoever ends this has it clean up, too.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit("ended"))
    with lock(f"fresh-{options.release}.lock") as lock_fd:
        root = CACHE / "fresh" / options.release
        try:
            remove(root)
            root.mkdir(parents=True)
            machine = Machine(options.release, root, lock_fd)
            bootstrap(machine)
            return 0 if try_targets(machine, options.targets.split()) else 1
        finally:
            say("cleaning up")
            remove(root)


if __name__ == "__main__":
    main(cli)
