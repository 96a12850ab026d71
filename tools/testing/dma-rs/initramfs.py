# SPDX-License-Identifier: GPL-2.0
"""Builds the guest's initramfs: a static busybox, our init, the tests, our own programs, and modules."""

import pathlib
import shutil

import archive
import build as kernel
from common import CACHE, OUT, new_directory, run, write

HERE = pathlib.Path(__file__).resolve().parent
FILES = HERE / "initramfs"
DEBIAN_ARCH = {"x86_64": "amd64", "arm64": "arm64"}
PROGRAMS = ("ethtool", "frames", "mapper", "transfers")
TARGETS = {"x86_64": "x86_64-linux-gnu", "arm64": "aarch64-linux-gnu"}


def busybox(arch):
    """A static busybox for the guest's architecture, fetched once."""
    home = CACHE / f"busybox-{arch}"
    if not home.exists():
        package = f"busybox-static:{DEBIAN_ARCH[arch]}"
        with new_directory(home) as folder:
            archive.unpack(package, archive.versions(package)[0], folder / "deb")
            program = next(path for path in folder.glob("deb/**/bin/busybox"))
            program.rename(folder / "busybox")
            shutil.rmtree(folder / "deb")
    return home / "busybox"


def entry(number, name, mode, data=b"", device=(0, 0)):
    """One member of a cpio archive in the "newc" format, as the kernel unpacks it."""
    encoded = name.encode() + b"\0"
    fields = (number, mode, 0, 0, 1, 0, len(data), 0, 0, *device, len(encoded), 0)
    header = b"070701" + b"".join(b"%08x" % field for field in fields) + encoded
    padded = header + b"\0" * (-len(header) % 4) + data
    return padded + b"\0" * (-len(padded) % 4)


def program(opened, name):
    """A program of our own, built for the guest's architecture."""
    built = OUT / f"{name}-{opened.arch}"
    nolibc = opened.prepared.source.tree / "tools/include/nolibc/nolibc.h"
    OUT.mkdir(exist_ok=True)
    run([f"clang-{opened.tools.llvm}", f"--target={TARGETS[opened.arch]}",
         f"--ld-path=ld.lld-{opened.tools.llvm}", "-Os", "-ffreestanding", "-Wall", "-Wextra", "-Werror", "-static",
         "-nostdlib", "-isystem", kernel.headers(opened), "-include", nolibc,
         HERE / f"{name}.c", "-o", built])
    return built


def build(opened):
    """Writes the initramfs to out/ and returns its path. Call it under the lock."""
    members = [
        ("bin", 0o040755, b"", (0, 0)),
        ("dev", 0o040755, b"", (0, 0)),
        ("dev/console", 0o020600, b"", (5, 1)),
        ("bin/busybox", 0o100755, busybox(opened.arch).read_bytes(), (0, 0)),
        *((f"bin/{name}", 0o100755, program(opened, name).read_bytes(), (0, 0)) for name in PROGRAMS),
        ("bin/sh", 0o120777, b"busybox", (0, 0)),
        *((path.name, 0o100755, path.read_bytes(), (0, 0)) for path in sorted(FILES.iterdir())),
        *((path.name, 0o100644, path.read_bytes(), (0, 0)) for path in kernel.modules(opened)),
        ("TRAILER!!!", 0, b"", (0, 0)),
    ]
    data = b"".join(entry(number, *member) for number, member in enumerate(members, 1))
    image = OUT / f"initramfs-{opened.name}.cpio"
    write(image, data)
    return image
