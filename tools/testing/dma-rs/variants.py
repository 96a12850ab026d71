# SPDX-License-Identifier: GPL-2.0
"""The test matrix: which machines a kernel boots on, and what must be seen there.

One kernel image an architecture; a variant differs from the others by QEMU's and the kernel's
arguments only. The longest comes first. All have 1 GiB of memory, so that on x86 a device with
edu's 28-bit mask bounces."""

import dataclasses


@dataclasses.dataclass(frozen=True)
class Machine:
    """How to start QEMU for an architecture."""

    qemu: str
    machine: str
    cpu: str
    console: str
    extra: tuple = ()


@dataclasses.dataclass(frozen=True)
class Variant:
    """One boot."""

    purpose: str
    kernel: str = ""
    machine: str = ""
    devices: tuple = ("edu",)
    noncoherent: bool = False
    suites: tuple = ()
    guest_tests: tuple = ()
    # Instead of all tests: what is to go wrong, in this order (see controls.py).
    controls: tuple = ()


# la57=off: KASAN reports a false wild access when 5-level paging is switched on late.
MACHINES = {
    "x86_64": Machine("qemu-system-x86_64", "q35", "max,la57=off", "ttyS0", ("-bios", "qboot.rom")),
    "arm64": Machine("qemu-system-aarch64", "virt,gic-version=3", "max", "ttyAMA0"),
}

# Sits on every machine: upstream's rust_dma sample drives it.
COMMON_DEVICES = ("pci-testdev",)

# Suites that must appear in every variant; a missing one is a failure. Globs.
COMMON_SUITES = (
    "dma_rs_edu", "rust_devres_managed", "rust_dma_buffer", "rust_dma_configured",
    "rust_dma_oneshot", "rust_dma_oneshot_sim", "rust_dma_sim", "rust_dma_sim_sample",
    "rust_dma_streaming", "rust_dma_streaming_sim",
    # Upstream's.
    "rust_doctests_kernel", "rust_allocator", "rust_atomics", "rust_kernel_bitfield",
    "rust_kernel_bitmap", "rust_kernel_fmt", "rust_kernel_str", "rust_kvec",
    "rust_spinlock_irq_condvar",
)

# What must make an oracle speak. The leak detector is asked before others leave leaks. lockdep ends
# with its first report, and goes off when memory was found corrupt or the kernel has stumbled; KASAN
# would end with its first one too, but for kasan_multi_shot.
CONTROLS = (
    "forget-memory",
    "unbind-mapped", "unmap-direction", "unmap-size", "unmap-device", "unmap-twice", "unmap-failed",
    "unmap-coherent", "free-size", "map-unchecked", "map-stack", "sync-unmapped", "sync-beyond",
    "sync-direction",
    "warn", "index-beyond", "delete-twice", "free-queued", "sleep-atomic", "stall-rcu", "lock-irq",
    "use-freed", "use-beyond", "write-freed", "use-scatterlist", "read-wild", "read-null",
)
IOMMU_CONTROLS = ("read-unmapped", "write-unmapped", "lock-order")

# slab_debug=F goes with kmemleak=on: the allocator's lists of free objects hold pointers to those
# that it has just given away, which hides leaks. With any check of its own it has no such lists.
VARIANTS = {
    "x86_64": {
        "kmemleak": Variant("as plain; probes fail at each allocation; the leak detector scans at the end",
                            "kmemleak=on slab_debug=F", guest_tests=("sweep",)),
        "controls": Variant("the kernel misbehaves: each oracle must say so",
                            "kmemleak=on slab_debug=F kasan_multi_shot dma_rs_edu.dma_bits=32",
                            devices=("edu,dma_mask=0xffffffff",), controls=CONTROLS),
        "plain": Variant("dma-direct; edu's 28-bit mask bounces"),
        # With 32 MiB: what lies above 256 MiB edu can't reach, and a larger pool may end there.
        "swiotlb": Variant("every mapping bounces", "swiotlb=16384,force"),
        "iommu-strict": Variant(
            "Intel IOMMU, unmapped at once", "intel_iommu=on iommu.strict=1",
            devices=("intel-iommu,intremap=on", "edu")),
        "iommu-lazy": Variant(
            "Intel IOMMU, unmapped in batches", "intel_iommu=on iommu.strict=0",
            devices=("intel-iommu,intremap=on", "edu")),
        "mask32": Variant("a device with 32-bit addresses, and legacy interrupts",
                          "dma_rs_edu.dma_bits=32 pci=nomsi", devices=("edu,dma_mask=0xffffffff",)),
        "mask64": Variant("a device with 64-bit addresses", "dma_rs_edu.dma_bits=64",
                          devices=("edu,dma_mask=0xffffffffffffffff",)),
        "controls-iommu": Variant(
            "the device misbehaves: Intel's IOMMU must say so",
            "intel_iommu=on iommu.strict=1 dma_rs_edu.dma_bits=32",
            devices=("intel-iommu,intremap=on", "edu,dma_mask=0xffffffff"),
            controls=IOMMU_CONTROLS),
    },
    # Memory starts at 1 GiB here, where a device with edu's 28 bits reaches nothing by itself.
    "arm64": {
        "plain": Variant("dma-direct; probes fail at each allocation", "dma_rs_edu.dma_bits=32",
                         devices=("edu,dma_mask=0xffffffff",), guest_tests=("sweep",)),
        "controls": Variant("the kernel misbehaves: each oracle must say so",
                            "kmemleak=on slab_debug=F kasan_multi_shot dma_rs_edu.dma_bits=32",
                            devices=("edu,dma_mask=0xffffffff",), controls=CONTROLS),
        "swiotlb": Variant("every mapping bounces", "swiotlb=force dma_rs_edu.dma_bits=32",
                           devices=("edu,dma_mask=0xffffffff",)),
        "smmuv3": Variant("Arm SMMU, unmapped at once", "iommu.strict=1", machine="iommu=smmuv3"),
        "noncoherent": Variant("a bus that does not snoop caches", "dma_rs_edu.dma_bits=32",
                               devices=("edu,dma_mask=0xffffffff",), noncoherent=True),
        "controls-iommu": Variant(
            "the device misbehaves: Arm's SMMU must say so",
            "iommu.strict=1 dma_rs_edu.dma_bits=32", machine="iommu=smmuv3",
            devices=("edu,dma_mask=0xffffffff",), controls=IOMMU_CONTROLS),
    },
}
