# SPDX-License-Identifier: GPL-2.0
"""Starts a kernel in QEMU, records its console, and ends it when it hangs."""

import dataclasses
import functools
import os
import pathlib
import re
import selectors
import shutil
import subprocess
import time

from common import OUT, Fail, clean_env, run, say
from variants import BOARDS, COMMON_DEVICES, DISK_SIZE, KERNEL, MACHINES, NIC, NVME, PEER, VARIANTS

HERE = pathlib.Path(__file__).resolve().parent

# A healthy guest says something every second or so, also on a slow host.
SILENCE = 90
TOTAL = 1500

# What a kernel says when its host left it waiting while it measured its clocks: what it has found runs
# many times too fast or too slow. It is booted again, some times.
MISMEASURED = re.compile(r"tsc: PIT calibration deviates from|APIC timer disabled due to verification failure")
BOOTS = 8

# A cable at whose end a frame is as soon as it was sent, by the guest's clock.
HUB = "hub"

# The QEMU processes that run now; end them with `stop_all`.
running = set()


@dataclasses.dataclass(frozen=True)
class Guest:
    """A kernel with its initramfs, on one variant of an architecture's machine."""

    arch: str
    name: str
    variant: object
    kernel: pathlib.Path
    initramfs: pathlib.Path
    slots: tuple = ()
    # The cable between two NICs, if there is to be one: a folder for its two sockets, or HUB.
    cable: str = ""
    # One CPU, and a clock that tells how many instructions it has executed, in nanoseconds. It
    # doesn't wait while the guest is idle.
    counted: bool = False
    accel: str = "tcg"
    # How many CPUs, if not as many as the variant has.
    cpus: int = 0
    silence: int = SILENCE
    total: int = TOTAL
    # What it is ended for, if it says so: a pattern.
    enough: object = None
    # More of QEMU's arguments.
    extra: tuple = ()

    @property
    def log(self):
        """The recorded console."""
        return OUT / f"{self.arch}-{self.name}.log"

    @property
    def machine(self):
        """How to start QEMU."""
        return BOARDS[self.variant.board] if self.variant.board else MACHINES[self.arch]

    def machine_arguments(self):
        """The hardware: all that shapes the device tree."""
        machine = self.machine
        cpu = (self.counted and machine.counted_cpu) or machine.cpu
        words = [machine.qemu, "-M", ",".join(filter(None, (machine.machine, self.variant.machine))),
                 *(("-cpu", cpu) if cpu else ()),
                 "-m", "1G", "-smp", "1" if self.counted else str(self.cpus or self.variant.cpus),
                 "-nodefaults", "-display", "none", "-no-reboot", *self.firmware(), *machine.extra]
        if machine.device_tree:
            return words
        for device in (*self.variant.iommu, self.variant.edu, *COMMON_DEVICES, NVME):
            words += ["-device", self.supported(device)]
        words += self.drive("disk")
        if self.cable:
            for end, device in enumerate((NIC, PEER)):
                sockets = (f"dgram,id=end{end},local.type=unix,local.path={self.cable}/{end},"
                           f"remote.type=unix,remote.path={self.cable}/{1 - end}")
                words += ["-netdev", f"hubport,id=end{end},hubid=0" if self.cable == HUB else sockets,
                          "-device", f"{self.supported(device)},netdev=end{end}"]
        for number, slot in enumerate(self.slots):
            words += self.slot_arguments(number, slot)
        return words + list(self.extra)

    def firmware(self):
        """What starts the kernel. The fast one does not start where there is a hub."""
        return self.machine.firmware if self.cable != HUB else ()

    def drive(self, name, *options):
        """The disk of an NVMe device: a file of zeros, of which nobody needs more than what a test
        has written there."""
        path = OUT / f"{self.arch}-{self.name}.{name}"
        path.parent.mkdir(parents=True, exist_ok=True)
        with open(path, "wb") as disk:
            disk.truncate(DISK_SIZE)
        return ["-drive", ",".join(("if=none", f"id={name}", "format=raw", f"file={path}", *options))]

    def supported(self, device):
        """A device, without those optional properties that this QEMU doesn't have."""
        return supported(self.machine.qemu, device)

    def slot_arguments(self, number, slot):
        """A port, and what is in it."""
        words = ["-device", f"pcie-root-port,id=port{number},chassis={number}"]
        for function in range(slot.functions):
            disk = f"disk{number}-{function}"
            if slot.device == "nvme":
                words += self.drive(disk, f"throttling.iops-total={slot.speed}")
            device = self.supported({"edu": self.variant.edu, "nic": NIC,
                                     "nvme": NVME.replace("drive=disk", f"drive={disk}")}[slot.device])
            words += ["-device", f"{device},bus=port{number},addr=0.{function},"
                                 f"multifunction={'on' if slot.functions > 1 else 'off'}"]
        return words

    def device_tree(self):
        """The machine's device tree, if QEMU doesn't have it: our own, or one with a PCI bus that does
        not snoop the CPU's caches."""
        blob = str(OUT / f"{self.arch}-{self.name}.dtb")
        if self.machine.device_tree:
            run(["dtc", "-I", "dts", "-O", "dtb", "-o", blob, HERE / self.machine.device_tree])
            return blob
        words = self.machine_arguments()
        words[2] += f",dumpdtb={blob}"
        run(words)
        node = next(name for name in run(["fdtget", "-l", blob, "/"]).split() if name.startswith("pcie@"))
        run(["fdtput", "-d", blob, f"/{node}", "dma-coherent"])
        return blob

    def command(self, mode, kernel_arguments, serial):
        """The QEMU command line. `mode` tells our init what to do."""
        machine = self.machine
        counting = machine.counted_kernel if self.counted else ""
        append = (f"console={machine.console} {machine.kernel} panic=-1 page_poison=1 "
                  f"printk.devkmsg=on {KERNEL} {self.variant.kernel} {counting} {kernel_arguments} -- {mode}")
        words = self.machine_arguments() + [
            "-accel", self.accel, "-serial", serial, "-kernel", str(self.kernel),
            "-initrd", str(self.initramfs), "-append", " ".join(append.split())]
        if self.counted:
            # And nothing depends on the host: not the time of day, and not what is random.
            words += ["-icount", "shift=0,sleep=off", "-seed", "1",
                      "-rtc", "base=2026-01-01T00:00:00,clock=vm"]
        if self.variant.noncoherent or machine.device_tree:
            words += ["-dtb", self.device_tree()]
        return words

    def boot(self, mode, kernel_arguments="", on_line=lambda line: None):
        """Boots to the end. Returns why the guest was ended, or "" if it powered off by itself."""
        for _ in range(BOOTS):
            ended = self.boot_once(mode, kernel_arguments, on_line)
            if not MISMEASURED.search(ended):
                break
            say(f"    {self.name}: the host is busy, and the guest's clock wrong")
        return ended

    def boot_once(self, mode, kernel_arguments, on_line):
        """As `boot`, even if it is in vain."""
        command = self.command(mode, kernel_arguments, "stdio")
        with open(self.log, "wb") as log, subprocess.Popen(
                command, env=clean_env(), stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT) as child:
            running.add(child)
            try:
                enough = [pattern for pattern in (MISMEASURED, self.enough) if pattern]
                return record(child, log, on_line, self.silence, self.total, enough) or (
                    f"QEMU ended with status {child.returncode}" if child.wait() else "")
            finally:
                running.discard(child)
                child.kill()


def stop_all():
    """Ends every guest that other threads wait for."""
    for child in list(running):
        child.kill()


def record(child, log, on_line, silence, total, enough):
    """Copies a child's output to the log until it ends, says what is enough by some patterns, or takes
    longer than that many seconds. Returns why it was ended, if it was."""
    start = heard = time.monotonic()
    pending = b""
    with selectors.DefaultSelector() as selector:
        selector.register(child.stdout, selectors.EVENT_READ)
        while True:
            ready = selector.select(timeout=1)
            now = time.monotonic()
            if ready:
                data = os.read(child.stdout.fileno(), 65536)
                if not data:
                    return ""
                heard = now
                log.write(data)
                log.flush()
                *lines, pending = (pending + data).split(b"\n")
                for line in lines:
                    text = line.decode(errors="replace").rstrip("\r")
                    on_line(text)
                    if any(pattern.search(text) for pattern in enough):
                        return f"it said: {text}"
            if now - heard > silence:
                return f"hang: no output for {silence} s"
            if now - start > total:
                return f"hang: not finished after {total} s"


def last_lines(guest, count=15):
    """The end of a guest's console, indented."""
    lines = guest.log.read_text(errors="replace").splitlines()[-count:]
    return "\n".join("    " + line for line in lines)


def accelerator(guest):
    """TCG, which works everywhere. With DMA_RS_KVM=1, KVM if the kernel says something under it
    within two seconds: the device alone proves nothing, guests may hang under it for good."""
    if os.environ.get("DMA_RS_KVM") != "1":
        return "tcg"
    probe = dataclasses.replace(guest, accel="kvm").command("test", "", "stdio")
    child = subprocess.Popen(probe, env=clean_env(), stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
                             stderr=subprocess.DEVNULL)
    try:
        with selectors.DefaultSelector() as selector:
            selector.register(child.stdout, selectors.EVENT_READ)
            works = bool(selector.select(timeout=2)) and bool(os.read(child.stdout.fileno(), 1))
    finally:
        child.kill()
        child.wait()
    return "kvm" if works else "tcg"


@functools.cache
def properties(program, device):
    """The names of a device's properties in this QEMU.

    Raises Fail if it has no such device."""
    done = subprocess.run([program, "-machine", "none", "-device", f"{device},help"], env=clean_env(),
                          stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
                          text=True, check=False)
    if done.returncode:
        version = run([program, "--version"]).splitlines()[0]
        raise Fail(f"{program} has no device {device}: {done.stdout.strip()}\n"
                   f"This is {version}, installed as {shutil.which(program)}.\n"
                   "Install a QEMU that has all of its devices (Debian: qemu-system-x86 and "
                   "qemu-system-arm), and see that it comes first in PATH.")
    return frozenset(re.findall(r"^ +([\w.-]+)=", done.stdout, re.M))


def supported(program, device):
    """A device as this QEMU takes it: of "NAME,REQUIRED=1,OPTIONAL?=1", what it knows."""
    name, *given = device.split(",")
    known = properties(program, name)
    kept = [words for words in given if "?=" not in words or words.split("?=")[0] in known]
    return ",".join([name, *kept]).replace("?=", "=")


def check(arch):
    """Fails early when QEMU, or a device, is missing."""
    program = MACHINES[arch].qemu
    if not shutil.which(program):
        raise Fail(f"{program} is not installed: run make setup")
    for variant in VARIANTS[arch].values():
        for device in (*variant.iommu, variant.edu, *COMMON_DEVICES, NVME, PEER):
            supported(program, device)
