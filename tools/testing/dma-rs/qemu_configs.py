#!/usr/bin/env python3
# SPDX-License-Identifier: GPL-2.0
"""Writes the machines of variants.py in the form that kunit.py takes them: qemu_configs/dma_rs_*.py."""

import argparse
import dataclasses
import pathlib
import sys

HERE = pathlib.Path(__file__).resolve().parent
sys.path.insert(0, str(HERE.parents[2] / "scripts"))

# pylint: disable=wrong-import-position
from common import REPO, main, say, write
from variants import COMMON_DEVICES, MACHINES, VARIANTS

FOLDER = HERE.parent / "kunit/qemu_configs"

BASE = ("EXPERT", "SMP", "RUST", "PCI", "PCI_MSI")
# What the simulated bus and its tests want.
SIM = ("RUST_KUNIT_TESTS", "RUST_DMA_SIM")
IMAGES = {"x86_64": "arch/x86/boot/bzImage", "arm64": "arch/arm64/boot/Image.gz"}
CONSOLES = {"x86_64": ("SERIAL_8250", "SERIAL_8250_CONSOLE"),
            "arm64": ("PCI_HOST_GENERIC", "SERIAL_AMBA_PL011", "SERIAL_AMBA_PL011_CONSOLE")}


@dataclasses.dataclass(frozen=True)
class Config:
    """A file: the variant of an architecture's machine, what it is, and what the kernel needs there."""

    arch: str
    variant: str
    title: str
    options: tuple = ()


CONFIGS = {
    "x86_64": Config("x86_64", "plain", "on x86_64, without an IOMMU, and simulated buses",
                     ("CPU_SUP_AMD", "GART_IOMMU", *SIM)),
    "x86_64_iommu": Config("x86_64", "iommu-strict", "on x86_64, behind an Intel IOMMU in strict mode",
                           ("IOMMU_SUPPORT", "INTEL_IOMMU", "IRQ_REMAP")),
    "x86_64_swiotlb": Config("x86_64", "swiotlb", "on x86_64; every mapping bounces"),
    "arm64": Config("arm64", "plain", "on arm64, without an IOMMU, and simulated buses",
                    ("XEN", *SIM)),
    "arm64_smmuv3": Config("arm64", "smmuv3", "on arm64, behind an SMMUv3 in strict mode",
                           ("IOMMU_SUPPORT", "ARM_SMMU_V3")),
}


def devices(variant):
    """What is on the bus. kunit.py can't ask QEMU what it knows, so optional properties stay out."""
    for device in (*variant.iommu, variant.edu, *COMMON_DEVICES):
        yield ",".join(words for words in device.split(",") if "?=" not in words)


def text(config):
    """The content of a file."""
    machine, variant = MACHINES[config.arch], VARIANTS[config.arch][config.variant]
    options = (*BASE, *CONSOLES[config.arch], *config.options)
    kernel = " ".join(f"console={machine.console} {machine.kernel} {variant.kernel}".split())
    board = ",".join(filter(None, (machine.machine, variant.machine)))
    pairs = [("-machine", board), ("-cpu", machine.cpu), ("-smp", variant.cpus), *(("-device", one) for one in devices(variant))]
    rows = [f"'{option}', '{value}'" for option, value in pairs]
    indent = "\t\t\t   "
    return "\n".join((
        "# SPDX-License-Identifier: GPL-2.0",
        f"# The dma-rs devices {config.title}.",
        f"# Made by {pathlib.Path(__file__).relative_to(REPO)}: don't edit.",
        "",
        "from ..qemu_config import QemuArchParams",
        "",
        f"QEMU_ARCH = QemuArchParams(linux_arch='{config.arch}',",
        f"{indent}kconfig='''",
        *(f"CONFIG_{option}=y" for option in options[:-1]),
        f"CONFIG_{options[-1]}=y''',",
        f"{indent}qemu_arch='{machine.qemu.removeprefix('qemu-system-')}',",
        f"{indent}kernel_path='{IMAGES[config.arch]}',",
        f"{indent}kernel_command_line='{kernel}',",
        f"{indent}extra_qemu_params=[" + (",\n" + "\t" * 5 + "      ").join(rows) + "])",
        ""))


def stale():
    """The files that aren't what they would be made to be now."""
    wanted = {f"dma_rs_{name}.py": text(config) for name, config in CONFIGS.items()}
    found = {path.name: path.read_text() for path in FOLDER.glob("dma_rs_*.py")}
    return sorted(name for name in wanted.keys() | found.keys() if wanted.get(name) != found.get(name))


def cli():
    """Command line."""
    argparse.ArgumentParser(description=__doc__).parse_args()
    for path in FOLDER.glob("dma_rs_*.py"):
        if path.name.removeprefix("dma_rs_").removesuffix(".py") not in CONFIGS:
            path.unlink()
    for name, config in CONFIGS.items():
        write(FOLDER / f"dma_rs_{name}.py", text(config).encode())
    say(f"{len(CONFIGS)} files in {FOLDER.relative_to(REPO)}")


if __name__ == "__main__":
    main(cli)
