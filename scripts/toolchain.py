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
RUST_PACKAGES = ("rustc", "rust-src", "rustfmt", "rust-clippy")
LLVM_PACKAGES = ("clang-{}", "lld-{}", "llvm-{}", "libclang-{}-dev")

RUSTC_MINIMUM = (1, 85, 0)
LLVM_MINIMUM = 17

# 0.71.1, the kernel's minimum, silently makes opaque structs with libclang 22 and newer.
BINDGEN = "0.72.1"
BINDGEN_MINIMUM = (0, 71, 1)
BINDGEN_0_71_MAXIMUM_LLVM = 21

# Draws charts.
MATPLOTLIB = "3.10.0"

RUSTUP_ADVICE = "install Rust with rustup (see its home page), then try again."


@dataclasses.dataclass(frozen=True)
class Rust:
    """A Rust compiler: its version, the LLVM in it, and where it is."""

    release: str
    llvm: int
    sysroot: pathlib.Path
    # Whether it is the distribution's, which has its library's source in a package, too.
    packaged: bool


@dataclasses.dataclass(frozen=True)
class Toolchain:
    """What to pass to make, and where the Rust tools are."""

    llvm: int
    make: tuple
    rust: Rust
    identity: str
    variables: tuple

    @property
    def inline_helpers(self):
        """Whether C's inline functions can be inlined into Rust: that takes the same LLVM twice."""
        return self.llvm == self.rust.llvm

    @property
    def rust_bin(self):
        """Where the Rust tools are."""
        return self.rust.sysroot / "bin"

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
            advice = "rustup component add rustfmt clippy"
            if self.rust.packaged:
                advice = "apt-get install rustfmt rust-clippy"
            raise Fail(f"{name} is missing from the Rust toolchain in {self.rust.sysroot}.\n"
                       f"Install it: {advice}")
        return tool


def version_of(text):
    """The first version in a text, as numbers: (1, 85, 1) for "rustc 1.85.1 (...)"."""
    found = re.search(r"(\d+)\.(\d+)\.(\d+)", text)
    return tuple(map(int, found.groups())) if found else ()


def is_debian():
    """Whether this machine has Debian's packages."""
    return bool(shutil.which("dpkg-query") and shutil.which("apt-get"))


def install(packages):
    """Installs those of the Debian packages that are missing."""
    query = subprocess.run(["dpkg-query", "-W", "-f", "${Package} ${db:Status-Status}\n", *packages],
                           text=True, capture_output=True, check=False).stdout
    present = {line.split()[0] for line in query.splitlines() if line.endswith(" installed")}
    missing = [package for package in packages if package not in present]
    if not missing:
        return
    command = archive.as_root(["apt-get", "install", "-y", "--no-install-recommends", *missing])
    say(f"installing {' '.join(missing)}")
    # Lists may be there and still not know a source, or know packages that have moved on.
    archive.update()
    run(command, "Install the packages by hand.", env=clean_env(DEBIAN_FRONTEND="noninteractive"))


def find(program):
    """Where a program is, in PATH or where rustup puts it; none if it isn't there."""
    return shutil.which(program, path=f"{os.environ['PATH']}:{pathlib.Path.home() / '.cargo/bin'}")


def own_rustc():
    """The rustc that somebody has put here, with rustup or otherwise; none if the only one is the
    distribution's."""
    rustup = find("rustup")
    if rustup:
        return str(pathlib.Path(rustup).with_name("rustc"))
    rustc = find("rustc")
    if rustc and is_debian() and succeeds(["dpkg-query", "-S", os.path.realpath(rustc)]):
        return None
    return rustc


def ensure_rust():
    """Finds rustc, or installs the distribution's if the kernel takes that."""
    rustc = own_rustc()
    packaged = not rustc
    if packaged:
        offered = archive.candidate("rustc") if is_debian() else ""
        if version_of(offered) < RUSTC_MINIMUM:
            what = f"this distribution's is {offered}" if offered else "this machine has none"
            raise Fail(f"the kernel needs rustc 1.85 or newer, and {what}:\n{RUSTUP_ADVICE}")
        install(RUST_PACKAGES)
        rustc = "rustc"
    text = run([rustc, "--version", "--verbose"], "Check the Rust installation.")
    release = re.search(r"^release: (\d+\.\d+\.\d+)", text, re.M).group(1)
    if version_of(release) < RUSTC_MINIMUM:
        raise Fail(f"rustc {release} ({rustc}) is too old, the kernel needs 1.85 or newer: "
                   "rustup update stable")
    llvm = int(re.search(r"^LLVM version: (\d+)", text, re.M).group(1))
    return Rust(release, llvm, pathlib.Path(run([rustc, "--print", "sysroot"]).strip()), packaged)


def has_llvm(version):
    """Whether this machine has, or its distribution offers, clang of an LLVM version and all that
    goes with it."""
    if all(shutil.which(f"{tool}-{version}") for tool in ("clang", "ld.lld", "llvm-config")):
        return True
    return is_debian() and all(archive.candidate(name.format(version)) for name in LLVM_PACKAGES)


def known_llvms():
    """The LLVM versions that the kernel takes, of which there may be a clang here, newest first."""
    folders = map(pathlib.Path, os.environ["PATH"].split(":"))
    names = [path.name for folder in folders for path in folder.glob("clang-[0-9]*")]
    if is_debian():
        names += run(["apt-cache", "pkgnames", "clang-"]).split()
    found = {int(match[1]) for match in (re.fullmatch(r"clang-(\d+)", name) for name in names) if match}
    return sorted((version for version in found if version >= LLVM_MINIMUM), reverse=True)


def choose_llvm(wanted):
    """The version of clang to use: rustc's, or else the newest that there is."""
    for version in (wanted, *known_llvms()):
        if has_llvm(version):
            return version
    raise Fail(f"there is no clang of LLVM {LLVM_MINIMUM} or newer on this machine, nor in its packages "
               f"(best: clang-{wanted}, lld-{wanted}, llvm-{wanted}, libclang-{wanted}-dev).\n"
               "The kernel needs one to be built with Rust and KASAN: install it, then try again.")


def ensure_packages(llvm):
    """Sees to it that the tools are there that aren't Rust's."""
    if is_debian():
        install([*PACKAGES, *(name.format(llvm) for name in LLVM_PACKAGES)])
        return
    missing = [tool for tool in ("bison", "flex", "bc", "qemu-system-x86_64", "qemu-system-aarch64")
               if not shutil.which(tool)]
    if missing:
        raise Fail(f"not a Debian machine, and these tools are missing: {' '.join(missing)}.\n"
                   f"Install what your distribution calls: {' '.join(PACKAGES)}")


def suits(bindgen, llvm):
    """Whether a version of bindgen makes the kernel's bindings with a version of libclang."""
    return bindgen >= BINDGEN_MINIMUM and (bindgen >= (0, 72) or llvm <= BINDGEN_0_71_MAXIMUM_LLVM)


def ensure_bindgen(llvm):
    """The distribution's bindgen if it will do, else one that is built once; returns its path."""
    if is_debian() and suits(version_of(archive.candidate("bindgen")), llvm):
        install(["bindgen"])
        return pathlib.Path("/usr/bin/bindgen")
    home = CACHE / f"bindgen-{BINDGEN}"
    if not home.exists():
        cargo = find("cargo")
        if not cargo:
            raise Fail("cargo is not installed, and bindgen must be built, since no package of it "
                       f"suits libclang {llvm}.\ncargo comes with Rust: {RUSTUP_ADVICE}")
        progress = Progress(f"building bindgen {BINDGEN}")
        with new_directory(home) as folder:
            command = [cargo, "install", "--locked", "--quiet", "--root", str(folder),
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


def ensure_core(rust):
    """Finds or fetches the source of core and alloc; returns the library folder."""
    own = rust.sysroot / "lib/rustlib/src/rust/library"
    package = pathlib.Path(f"/usr/src/rustc-{rust.release}/library")
    for library in (own, package):
        if (library / "core/src/lib.rs").exists():
            return library
    home = CACHE / f"rust-src-{rust.release}"
    if home.exists():
        return home / "library"
    if find("rustup") and succeeds([find("rustup"), "component", "add", "rust-src"]):
        if (own / "core/src/lib.rs").exists():
            return own
    matching = [one for one in archive.versions("rust-src") if one.startswith(rust.release + "+")]
    if not matching:
        raise Fail(f"there is no source of core for rustc {rust.release}: `rustup component add "
                   "rust-src` fails here,\nand the Debian archive has no rust-src of that version. Run "
                   "the former with network access.")
    with new_directory(home) as folder:
        archive.unpack("rust-src", matching[0], folder / "deb")
        (folder / f"deb/usr/src/rustc-{rust.release}/library").rename(folder / "library")
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
    rust = ensure_rust()
    llvm = choose_llvm(rust.llvm)
    if llvm != rust.llvm and not find(f"clang-{llvm}"):
        # The lists may not know a source yet that has it.
        archive.update()
        llvm = choose_llvm(rust.llvm)
    if llvm != rust.llvm:
        say(f"no clang-{rust.llvm} is packaged here, which rustc {rust.release} goes with: using clang-{llvm}, "
            "so C's inline functions aren't inlined into Rust")
    ensure_packages(llvm)
    core = ensure_core(rust)
    bindgen = ensure_bindgen(llvm)
    libclang = run([f"llvm-config-{llvm}", "--libdir"]).strip()
    clang = run([f"clang-{llvm}", "--version"]).splitlines()[0]
    made = run([bindgen, "--version"], env=clean_env(LIBCLANG_PATH=libclang)).split()[1]
    return Toolchain(
        llvm=llvm,
        make=(f"LLVM=-{llvm}", f"BINDGEN={bindgen}", "LOCALVERSION="),
        rust=rust,
        identity=f"rustc {rust.release}, bindgen {made}, {clang}",
        variables=(("RUST_LIB_SRC", str(core)), ("LIBCLANG_PATH", libclang)))
