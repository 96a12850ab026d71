# SPDX-License-Identifier: GPL-2.0
"""The tools that build a Rust kernel: Debian packages, rustc with its library source, bindgen."""

import dataclasses
import functools
import os
import pathlib
import re
import shutil
import subprocess
import sys

import archive
from common import CACHE, Fail, Progress, clean_env, new_directory, run, say, succeeds, tail, watch

PACKAGES = (
    "bc bison cpio device-tree-compiler flex gcc git kmod libc6-dev libelf-dev "
    "libssl-dev make patch perl python3-venv qemu-system-arm qemu-system-x86 xz-utils"
).split()
LLVM_PACKAGES = ("clang", "lld", "llvm", "libclang-{}-dev")

# 0.71.1, the kernel's minimum, silently makes opaque structs with libclang 22 and newer.
BINDGEN = "0.72.1"
RUSTC_MINIMUM = (1, 85, 0)

# Draws charts.
MATPLOTLIB = "3.10.0"


@dataclasses.dataclass(frozen=True)
class Toolchain:
    """What to pass to make, and where the Rust tools are."""

    llvm: str
    make: tuple
    rust_bin: pathlib.Path
    identity: str
    variables: tuple

    def env(self, **extra):
        """The environment in which to build: the Rust tools first in PATH, fixed build marks so
        that an unchanged kernel is not linked again."""
        path = f"{self.rust_bin}:{os.environ['PATH']}"
        return clean_env(
            PATH=path, **dict(self.variables), KBUILD_BUILD_USER="dma-rs",
            KBUILD_BUILD_HOST="dma-rs", KBUILD_BUILD_TIMESTAMP="1970-01-01 00:00:00 UTC",
            KBUILD_BUILD_VERSION="1", **extra)

    def rust_tool(self, name):
        """A tool of the Rust toolchain, or the advice how to get it."""
        tool = self.rust_bin / name
        if not tool.exists():
            raise Fail(f"{name} is missing from the Rust toolchain in {self.rust_bin.parent}.\n"
                       "Install it: rustup component add rustfmt clippy")
        return tool


def rustc_facts():
    """rustc's version, LLVM major version and sysroot."""
    if not shutil.which("rustc"):
        raise Fail("rustc is not installed. The kernel needs 1.85 or newer, and 1.95 is what we test:\n"
                   "install Rust with rustup (see its home page), then try again.")
    if not shutil.which("cargo"):
        raise Fail("cargo is not installed; it comes with Rust (rustup), or in your distribution.")
    text = run(["rustc", "--version", "--verbose"], "Check the Rust installation.")
    release = re.search(r"^release: (\d+\.\d+\.\d+)", text, re.M).group(1)
    llvm = re.search(r"^LLVM version: (\d+)", text, re.M).group(1)
    if tuple(map(int, release.split("."))) < RUSTC_MINIMUM:
        raise Fail(f"rustc {release} is too old, the kernel needs 1.85 or newer: rustup update stable")
    return release, llvm, pathlib.Path(run(["rustc", "--print", "sysroot"]).strip())


def ensure_packages(llvm):
    """Installs the Debian packages that are missing."""
    wanted = PACKAGES + [name.format(llvm) if "{}" in name else f"{name}-{llvm}" for name in LLVM_PACKAGES]
    if not shutil.which("dpkg-query"):
        missing = [tool for tool in (f"clang-{llvm}", f"ld.lld-{llvm}", "bison", "flex", "bc",
                                     "qemu-system-x86_64", "qemu-system-aarch64") if not shutil.which(tool)]
        if missing:
            raise Fail(f"not a Debian machine, and these tools are missing: {' '.join(missing)}.\n"
                       f"Install what your distribution calls: {' '.join(wanted)}")
        return
    query = subprocess.run(["dpkg-query", "-W", "-f", "${Package} ${db:Status-Status}\n", *wanted],
                           text=True, capture_output=True, check=False).stdout
    present = {line.split()[0] for line in query.splitlines() if line.endswith(" installed")}
    missing = [package for package in wanted if package not in present]
    if not missing:
        return
    install = archive.as_root(["apt-get", "install", "-y", "--no-install-recommends", *missing])
    say(f"installing {' '.join(missing)}")
    # Lists may be there and still not know a source, or know packages that have moved on.
    run(archive.as_root(["apt-get", "update"]), "Check the network and the machine's apt sources.")
    run(install, f"Install the packages by hand. clang must be of rustc's LLVM version, {llvm}.",
        env=clean_env(DEBIAN_FRONTEND="noninteractive"))


def ensure_bindgen():
    """Builds the right bindgen once; returns its path."""
    home = CACHE / f"bindgen-{BINDGEN}"
    if not home.exists():
        progress = Progress(f"building bindgen {BINDGEN}")
        with new_directory(home) as folder:
            command = ["cargo", "install", "--locked", "--quiet", "--root", str(folder),
                       "--target-dir", str(folder / "target"), "--version", BINDGEN, "bindgen-cli"]
            log = CACHE / "bindgen.log"
            # It runs for seconds a kernel: optimizing it all it can be takes longer than it saves.
            env = clean_env(CARGO_PROFILE_RELEASE_OPT_LEVEL="1", CARGO_PROFILE_RELEASE_LTO="off",
                            CARGO_PROFILE_RELEASE_CODEGEN_UNITS="16")
            if watch(command, log, lambda: progress.show("compiling"), env=env):
                raise Fail(f"cargo could not build bindgen {BINDGEN}:\n{tail(log)}\n"
                           "Check that cargo can reach its registry, then try again.")
            shutil.rmtree(folder / "target")
        progress.done()
    return home / "bin/bindgen"


def ensure_core(release, sysroot):
    """Finds or fetches the source of core and alloc; returns the library folder."""
    own = sysroot / "lib/rustlib/src/rust/library"
    if (own / "core/src/lib.rs").exists():
        return own
    home = CACHE / f"rust-src-{release}"
    if home.exists():
        return home / "library"
    if shutil.which("rustup") and succeeds(["rustup", "component", "add", "rust-src"]):
        if (own / "core/src/lib.rs").exists():
            return own
    matching = [one for one in archive.versions("rust-src") if one.startswith(release + "+")]
    if not matching:
        raise Fail(f"there is no source of core for rustc {release}: `rustup component add rust-src` "
                   "fails here,\nand the Debian archive has no rust-src of that version. Run the former "
                   "with network access.")
    with new_directory(home) as folder:
        archive.unpack("rust-src", matching[0], folder / "deb")
        (folder / f"deb/usr/src/rustc-{release}/library").rename(folder / "library")
        shutil.rmtree(folder / "deb")
    return home / "library"


def ensure_charts():
    """Installs matplotlib once, in a place of its own; returns the Python that has it. Call it
    under the lock."""
    version = f"{sys.version_info.major}.{sys.version_info.minor}"
    home = CACHE / f"matplotlib-{MATPLOTLIB}-python{version}"
    python = home / "bin/python"
    if not (home / "done").exists():
        say(f"installing matplotlib {MATPLOTLIB}")
        shutil.rmtree(home, ignore_errors=True)
        run([sys.executable, "-m", "venv", home], "Python's module venv is needed.")
        run([python, "-m", "pip", "install", "--quiet", "--disable-pip-version-check",
             f"matplotlib=={MATPLOTLIB}"], "Check that pip can reach its package index.")
        (home / "done").touch()
    return python


@functools.cache
def ensure():
    """Makes sure that every tool is there; returns the toolchain. Call it under the lock."""
    release, llvm, sysroot = rustc_facts()
    ensure_packages(llvm)
    core = ensure_core(release, sysroot)
    bindgen = ensure_bindgen()
    libclang = run([f"llvm-config-{llvm}", "--libdir"]).strip()
    clang = run([f"clang-{llvm}", "--version"]).splitlines()[0]
    return Toolchain(
        llvm=llvm,
        make=(f"LLVM=-{llvm}", f"BINDGEN={bindgen}", "LOCALVERSION="),
        rust_bin=sysroot / "bin",
        identity=f"rustc {release}, bindgen {BINDGEN}, {clang}",
        variables=(("RUST_LIB_SRC", str(core)), ("LIBCLANG_PATH", libclang)))
