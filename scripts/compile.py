#!/usr/bin/env python3
# SPDX-License-Identifier: GPL-2.0
"""Compiles our code, and the kernel crate that it is a part of, for machines on which it isn't run:
without DMA, without PCI, with one CPU, with spinlocks that sleep, with 32 bits. A warning about our code
is a failure, also one of objtool's."""

import argparse
import dataclasses
import re
import shutil

import build
import stages
from common import OUT, REPO, Fail, checksum, lock, main, say, write

TARGETS = ("rust/kernel.o", "drivers/dma-rs/", "samples/rust/")
# What must be compiled again to show its warnings, where these were not dealt with.
OBJECTS = ("rust/kernel.o", "drivers/dma-rs", "samples/rust")
COMMANDS = 200

# Flavours of build.py, and the kernel's names of their architectures.
CONFIGURATIONS = {
    "compile-um": "um",
    "compile-nopci": "x86_64",
    "compile-up": "x86_64",
    "compile-rt": "x86_64",
    "compile-arm": "arm",
}

# Of clang; of rustc, which says in the next line where; of objtool.
WARNINGS = re.compile(r"^(?:clang diag: )?(?P<c>\S+):\d+:\d+: warning: |"
                      r"^(?:warning|error): .*\n +--> (?P<rust>\S+?):\d|"
                      r"^(?P<objtool>\S+): warning: objtool: ", re.M)


def forget(opened):
    """Removes what was compiled before."""
    for name in OBJECTS:
        path = opened.folder / name
        if path.is_dir():
            shutil.rmtree(path)
        else:
            path.unlink(missing_ok=True)


def warnings(text, root):
    """The warnings in a build log that are about our files, or those that we patch, as lines. Objects
    hold code of ours and of others: objtool's are all of them."""
    ours = {*stages.overlay_paths(), *(path for commit in stages.commits() for path in commit.touched)}
    found = []
    for match in WARNINGS.finditer(text):
        path = (match["c"] or match["rust"] or "").removeprefix(f"{root}/")
        if match["objtool"] or path in ours:
            found += text[match.start():].splitlines()[:5]
    return found


def compile_one(opened, flavour, arch):
    """Compiles one configuration. Returns what is wrong with it, as lines."""
    opened = dataclasses.replace(opened, arch=arch, flavour=flavour)
    try:
        build.configure(opened)
        made_from = checksum([opened.prepared.digest, build.read_stamp(opened.stamp("config"))])
        if build.read_stamp(opened.stamp("compiled")) == made_from:
            return []
        forget(opened)
        build.compile_kernel(opened, ["prepare", *TARGETS], f"{flavour} ({arch})", COMMANDS)
    except Fail as error:
        return str(error).splitlines()
    found = warnings(opened.log.read_text(errors="replace"), opened.prepared.source.tree)
    if not found:
        write(opened.stamp("compiled"), made_from.encode())
    return found


def cli():
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__.split(":")[0])
    parser.add_argument("--ksrc", default="", help="your own Linux 7.3 tree; it is copied, never changed")
    options = parser.parse_args()
    OUT.mkdir(exist_ok=True)
    bad = 0
    with lock() as lock_fd:
        opened = build.open_build("x86_64", options.ksrc, lock_fd)
        say(opened.tools.identity)
        for flavour, arch in CONFIGURATIONS.items():
            complaints = compile_one(opened, flavour, arch)
            if complaints:
                bad += 1
                log = (OUT / f"build-{arch}-{flavour}.log").relative_to(REPO)
                say(f"FAILED {flavour} (see {log}):")
                for line in complaints[:60]:
                    say(f"    {line}")
    say(f"\n{len(CONFIGURATIONS) - bad} passed, {bad} failed, 0 skipped")
    return 1 if bad else 0


if __name__ == "__main__":
    main(cli)
