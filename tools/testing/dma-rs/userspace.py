# SPDX-License-Identifier: GPL-2.0
"""Guests with the user space of the host, read-only, and two devices with a cable between them: for tests
that take more programs than our initramfs has."""

import dataclasses
import shutil
import tempfile

import build
import initramfs
import qemu
import toolchain
import variants
from common import Fail, lock

# Debian's names of what is called there, or takes part in building it, and programs that show whether it is
# there.
PACKAGES = {"ethtool": "ethtool", "iproute2": "ip", "iputils-ping": "ping", "jq": "jq", "libbpf-dev": "",
            "netsniff-ng": "mausezahn", "python3-yaml": "", "socat": "socat", "tcpdump": "tcpdump"}

# A test may take minutes before it says something.
SILENCE = 300
TOTAL = 5400


def install():
    """Sees to it that the programs are there."""
    if toolchain.is_debian():
        toolchain.install(PACKAGES)
    elif missing := [name for name, program in PACKAGES.items() if program and not shutil.which(program)]:
        raise Fail(f"not a Debian machine, and these are missing: {' '.join(missing)}")


def prepare(ksrc, use=lambda opened: None):
    """Builds what a guest takes. Calls `use` with the build, under the lock. Returns the guest, without a name
    yet."""
    install()
    with lock() as lock_fd:
        opened = build.open_build("x86_64", ksrc, lock_fd, "userspace")
        image, files = build.build_image(opened), initramfs.build(opened)
        use(opened)
    qemu.check(opened.arch)
    return qemu.Guest(opened.arch, "", variants.VARIANTS[opened.arch]["plain"], image, files, silence=SILENCE,
                      total=TOTAL)


def shares(folders):
    """QEMU's arguments for folders of the host that the guest sees: tag to folder and options."""
    words = []
    for tag, (folder, options) in folders.items():
        words += ["-fsdev", f"local,id={tag},path={folder},security_model=none,multidevs=remap{options}",
                  "-device", f"virtio-9p-pci,fsdev={tag},mount_tag={tag}"]
    return tuple(words)


def boot(guest, name, script, tests, results):
    """Boots a guest for a script of the initramfs. It sees the host's user space, a folder of tests, and one
    for their results, which it can write to. Returns the guest, and why it was ended, or ""."""
    extra = shares({"root": ("/", ",readonly=on"), "tests": (tests, ",readonly=on"), "results": (results, "")})
    with tempfile.TemporaryDirectory(prefix="dma-rs-") as sockets:
        guest = dataclasses.replace(guest, name=name, cable=sockets, extra=extra)
        return guest, guest.boot(f"test {script}", "kunit.enable=0")
