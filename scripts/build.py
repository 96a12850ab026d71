#!/usr/bin/env python3
# SPDX-License-Identifier: GPL-2.0
"""Builds a test kernel from the prepared tree."""

import argparse
import dataclasses
import os
import re
import shutil
import subprocess

import source
import toolchain
import tree
from common import (CACHE, OUT, REPO, Fail, Progress, checksum, lock, main, need_space, run, say,
                    write)

FRAGMENTS = REPO / "tools/testing/dma-rs/configs"
SPACE_GIB = 4

# What make prints for each command that it runs: "  CC      drivers/pci/pci.o".
COMMAND = re.compile(r"^  [A-Z][A-Z0-9 ]*\S* +\S")
ERROR = re.compile(r"(^|[: ])(fatal )?error(\[E\d+\])?: |^ERROR: |undefined (symbol|reference)|"
                   r"No space left on device|\*\*\*")


@dataclasses.dataclass(frozen=True)
class Arch:
    """What differs between architectures when building. `commands` estimates a full build."""

    image: str
    commands: int

    @property
    def target(self):
        """What to tell make."""
        return self.image.split("/")[-1]


ARCHES = {
    "x86_64": Arch("vmlinux", 1850),
    "arm64": Arch("arch/arm64/boot/Image", 1600),
}

# Flavours of a kernel: the fragments of each, later ones win.
TEST_FRAGMENTS = ("common", "network", "oracles", "kunit", "dma_rs", "netdev", "{arch}")
SMALL_FRAGMENTS = ("common", "{arch}", "dma_rs", "mutants")
FRAGMENTS_OF = {
    "": TEST_FRAGMENTS,
    "clippy": (*TEST_FRAGMENTS, "clippy"),
    "kcsan": (*SMALL_FRAGMENTS, "network", "netdev", "kcsan"),
    "rt": (*SMALL_FRAGMENTS, "rt"),
    "mutants": SMALL_FRAGMENTS,
    "mutants-net": (*SMALL_FRAGMENTS, "network", "netdev"),
    "userspace": (*SMALL_FRAGMENTS, "network", "netdev", "userspace"),
    "series": (*SMALL_FRAGMENTS, "netdev", "series"),
    "bench": ("common", "{arch}", "bench"),
    "bench-calls": ("common", "{arch}", "bench", "bench_calls"),
    "bench-parallel": ("common", "{arch}", "bench", "bench_parallel"),
    "bench-drivers": ("common", "{arch}", "bench", "network", "bench_drivers"),
    "compile-um": ("compile", "compile_um"),
    "compile-nopci": ("compile", "compile_nopci"),
    "compile-up": ("compile", "compile_up"),
    "compile-rt": ("compile", "compile_rt"),
    "compile-arm": ("compile", "compile_arm"),
}


@dataclasses.dataclass(frozen=True)
class Build:
    """One kernel configuration in its own build folder."""

    arch: str
    tools: toolchain.Toolchain
    prepared: tree.Prepared
    lock: int
    flavour: str = ""
    # Switches that the tree doesn't have yet, though the fragments name them.
    absent: frozenset = frozenset()

    @property
    def name(self):
        """Names logs and folders."""
        return self.arch + (f"-{self.flavour}" if self.flavour else "")

    @property
    def folder(self):
        """make's O=."""
        return CACHE / "build" / self.prepared.source.home.name / self.name

    @property
    def log(self):
        """Everything that make said."""
        return OUT / f"build-{self.name}.log"

    def make(self, *words):
        """A make command line for this build."""
        return ["make", "-C", str(self.prepared.source.tree), f"O={self.folder}", f"ARCH={self.arch}",
                *self.tools.make, f"-j{os.cpu_count()}", *words]

    def stamp(self, name):
        """A record in the build folder of what a finished step was made from."""
        return self.folder / f".dma-rs-{name}"


def read_stamp(path):
    """What a finished step was made from, if it ever finished."""
    return path.read_text() if path.exists() else ""


def requested(fragments):
    """The merged fragments: symbol to the value asked for ("n" where it must be off)."""
    wanted = {}
    for line in fragments.splitlines():
        if match := re.match(r"(CONFIG_\w+)=(.*)", line):
            wanted[match[1]] = match[2]
        elif match := re.match(r"# (CONFIG_\w+) is not set", line):
            wanted[match[1]] = "n"
    return wanted


def without(fragments, absent):
    """Fragments without the lines about some switches."""
    return "".join(line for line in fragments.splitlines(keepends=True)
                   if not absent & set(re.findall(r"CONFIG_\w+", line)))


def configure(build):
    """Writes .config from the fragments, and checks that each line of them took effect."""
    names = [name.format(arch=build.arch) for name in FRAGMENTS_OF[build.flavour]]
    fragments = without("".join((FRAGMENTS / f"{name}.config").read_text() for name in names), build.absent)
    if not build.tools.inline_helpers:
        fragments = fragments.replace("CONFIG_RUST_INLINE_HELPERS=y", "# CONFIG_RUST_INLINE_HELPERS is not set")
    made_from = checksum([fragments, build.prepared.kconfig_digest, build.tools.identity])
    if read_stamp(build.stamp("config")) == made_from:
        return
    if not build.folder.exists():
        need_space(SPACE_GIB, f"a kernel build for {build.arch}")
    build.folder.mkdir(parents=True, exist_ok=True)
    if read_stamp(build.stamp("tools")) != build.tools.identity:
        # make does not notice a new bindgen.
        shutil.rmtree(build.folder / "rust", ignore_errors=True)
        run(build.make("rustavailable"), "The kernel does not accept these tools: see the lines above.",
            env=build.tools.env())
        write(build.stamp("tools"), build.tools.identity.encode())
    merged = build.folder / "fragments.config"
    write(merged, fragments.encode())
    run(build.make("allnoconfig"), env=build.tools.env(KCONFIG_ALLCONFIG=str(merged)))
    actual = requested((build.folder / ".config").read_text())
    lost = [f"{symbol}={value} (got {actual.get(symbol, 'n')})"
            for symbol, value in requested(fragments).items() if actual.get(symbol, "n") != value]
    if lost:
        raise Fail(f"the {build.arch} kernel did not take these options:\n    " + "\n    ".join(lost)
                   + f"\nA dependency is missing or the symbol is gone: see {FRAGMENTS.relative_to(REPO)}/.")
    write(build.stamp("config"), made_from.encode())


def objects(folder):
    """How many commands make has finished in a build folder: each leaves one .cmd file."""
    return sum(name.endswith(".cmd") for _, _, names in os.walk(folder) for name in names)


def first_error(build):
    """The first error in a build log, with what led to it and what follows. Paths are shown as in
    the checkout."""
    text = build.log.read_text(errors="replace").replace(f"{build.prepared.source.tree}/", "")
    lines = [line for line in text.splitlines() if not line.startswith("make[")]
    at = next((number for number, line in enumerate(lines) if ERROR.search(line)), len(lines) - 20)
    shown = lines[max(at - 2, 0):at + 22]
    text = "\n".join("    " + line for line in shown)
    if any("No space left on device" in line for line in shown):
        text += f"\nThe disk is full: make room where {CACHE} lies."
    return text


def compile_kernel(build, targets, what, commands=None):
    """Runs make with a progress line. `commands` estimates how many it runs, if not those of a full
    build."""
    progress = Progress(what)
    known = read_stamp(build.stamp("total"))
    done = 0 if known else objects(build.folder)
    total = int(known or commands or ARCHES[build.arch].commands)
    OUT.mkdir(exist_ok=True)
    with open(build.log, "w", encoding="utf-8") as log:
        child = subprocess.Popen(
            build.make("--output-sync=line", *targets), env=build.tools.env(), pass_fds=(build.lock,),
            stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
            errors="replace")
        try:
            for line in child.stdout:
                log.write(line)
                if COMMAND.match(line):
                    done += 1
                    progress.show(f"{done} rebuilt" if known else f"{done} of about {max(total, done)}")
            child.wait()
        finally:
            if child.poll() is None:
                child.terminate()
                child.wait()
    if child.returncode:
        progress.done("FAILED")
        raise Fail(f"{what} failed; full log: {build.log.relative_to(REPO)}\n{first_error(build)}")
    progress.done(f"{done} rebuilt" if known else f"{done} built")


def make_image(build, what):
    """Makes the kernel's image, and its modules if it can have any, from whatever the tree holds."""
    targets = [ARCHES[build.arch].target]
    if requested((build.folder / ".config").read_text()).get("CONFIG_MODULES") == "y":
        targets.append("modules")
    compile_kernel(build, targets, what)
    write(build.stamp("total"), str(objects(build.folder)).encode())


def headers(build):
    """The kernel's headers as programs see them, made once. Returns their folder."""
    made_from = checksum([build.prepared.source.version, build.tools.identity])
    if read_stamp(build.stamp("headers")) != made_from:
        run(build.make("headers"), env=build.tools.env())
        write(build.stamp("headers"), made_from.encode())
    return build.folder / "usr/include"


def copy_image(build):
    """Copies the kernel to out/, where no other checkout replaces it. Returns the copy."""
    image = OUT / f"kernel-{build.name}"
    write(image, (build.folder / ARCHES[build.arch].image).read_bytes())
    return image


def modules(build):
    """The modules of ours that a build has made."""
    return sorted(build.folder.glob("drivers/dma-rs/**/*.ko"))


def build_image(build):
    """Builds the kernel unless nothing changed. Returns a copy of it in out/."""
    configure(build)
    made_from = checksum([build.prepared.digest, read_stamp(build.stamp("config"))])
    if read_stamp(build.stamp("built")) != made_from:
        build.stamp("built").unlink(missing_ok=True)
        make_image(build, f"building the {build.arch} kernel")
        write(build.stamp("built"), made_from.encode())
    return copy_image(build)


def open_build(arch, ksrc, lock_fd, flavour=""):
    """Everything that a build needs: tools, source and prepared tree. Call it under the lock."""
    if arch not in ARCHES:
        raise Fail(f"unknown ARCH {arch!r}; known: {', '.join(ARCHES)}")
    source.precheck(ksrc)
    tools = toolchain.ensure()
    return Build(arch, tools, tree.prepare(source.ensure(ksrc)), lock_fd, flavour)


def arguments(description):
    """A parser with the options that all build-like scripts share."""
    parser = argparse.ArgumentParser(description=description)
    parser.add_argument("--arch", default="x86_64", help=f"one of {', '.join(ARCHES)}")
    parser.add_argument("--ksrc", default="", help="your own Linux 7.3 tree; it is copied, never changed")
    return parser


def cli():
    """Command line."""
    parser = arguments(__doc__)
    parser.add_argument("--until", choices=("setup", "tree", "build"), default="build",
                        help="stop after this step")
    parser.add_argument("--update", action="store_true", help="look for a newer packaged kernel source")
    options = parser.parse_args()
    with lock() as lock_fd:
        source.precheck(options.ksrc)
        if options.until == "setup" or options.update:
            print(toolchain.ensure().identity)
            print(source.ensure(options.ksrc, options.update).tree)
            if options.until == "setup":
                return
        build = open_build(options.arch, options.ksrc, lock_fd)
        say(f"tree: {build.prepared.source.tree}")
        if options.until == "build":
            say(f"kernel: {build_image(build)}")


if __name__ == "__main__":
    main(cli)
