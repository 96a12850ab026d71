# SPDX-License-Identifier: GPL-2.0
"""The test matrix: which machines a kernel boots on, and what must be seen there.

One kernel image an architecture, but for variants that name another flavour of it; else a variant
differs from the others by QEMU's and the kernel's arguments only. The longest comes first. All have
1 GiB of memory. edu has 28 address bits unless told otherwise, and with those it reaches all memory
only behind an IOMMU: without one, what it reaches is a matter of luck, and swiotlb doesn't look at the
mask when it takes a slot of a pool."""

import dataclasses


@dataclasses.dataclass(frozen=True)
class Slot:
    """A port with devices in it, which come out together. One that is alone there can be reset."""

    device: str
    functions: int = 7
    # How many commands a second its disks carry out, if it has any.
    speed: int = 500


@dataclasses.dataclass(frozen=True)
class Machine:
    """How to start QEMU for an architecture, or for a board."""

    qemu: str
    machine: str
    cpu: str
    console: str
    extra: tuple = ()
    # What starts the kernel, if not what QEMU would take.
    firmware: tuple = ()
    # What the kernel must be told.
    kernel: str = ""
    # And besides, where instructions are counted: there what waits by looping takes
    # QEMU long.
    counted_kernel: str = ""
    # The CPU there, if `cpu` is none that exists: what it zeroes at once shows in the counts.
    counted_cpu: str = ""
    # What describes it, if QEMU doesn't: a source of a device tree, beside this file. Such a board has
    # devices of its own, and no PCI.
    device_tree: str = ""


@dataclasses.dataclass(frozen=True)
class Variant:
    """One boot."""

    purpose: str
    kernel: str = ""
    # Words for the architecture's machine; or a board instead of it.
    machine: str = ""
    board: str = ""
    edu: str = "edu"
    iommu: tuple = ()
    noncoherent: bool = False
    # The suites for which it makes a difference: a glob.
    suites: str = "*"
    # Whether all tests are slow there.
    slow: bool = False
    # Which kernel boots, of scripts/build.py's flavours; and which suites, by name, it has besides
    # those of others, and lacks; and whether it has dma-debug.
    flavour: str = ""
    adds: tuple = ()
    lacks: tuple = ()
    dma_debug: bool = True
    # Two are the fewest on which the halves of a ring can run at the same time.
    cpus: int = 2
    guest_tests: tuple = ()
    # Instead of all tests: what is to go wrong, in this order (see controls.py).
    controls: tuple = ()


# la57=off: KASAN reports a false wild access when 5-level paging is switched on late. A device behind
# a port is to be removed by the port, not by ACPI. no_timer_check: at boot the kernel looks whether
# the timer ticks, for a few milliseconds; a guest that a busy host leaves waiting so long panics.
MACHINES = {
    "x86_64": Machine("qemu-system-x86_64", "q35", "max,la57=off", "ttyS0", (
        "-global", "ICH9-LPC.acpi-pci-hotplug-with-bridge-support=off"), ("-bios", "qboot.rom"),
        "no_timer_check", "nolapic_timer"),
    "arm64": Machine("qemu-system-aarch64", "virt,gic-version=3", "max", "ttyAMA0",
                     counted_cpu="neoverse-n1"),
}

BOARDS = {
    "zcu102": Machine("qemu-system-aarch64", "xlnx-zcu102", "", "ttyPS0", device_tree="zcu102.dts"),
}

# edu with 32 address bits, and what its driver must be told then.
WIDE_EDU = "edu,dma_mask=0xffffffff"
WIDE = "dma_rs_edu.dma_bits=32"

INTEL_IOMMU = ("intel-iommu,intremap=on",)

# No boot ROM is looked for, which Debian has in another package. Interrupts come at once in a QEMU that
# can do so; a property with a "?" is left out where QEMU doesn't have it, and then they come 128
# microseconds later at most.
NIC = "e1000,mitigation?=off,romfile="
# The kernel's own driver is kept away from these: it reads each EEPROM bit by bit, which takes QEMU half
# a second. IPv6 has much to say at once, and frames are counted: it begins when it is told to. Failures
# that are injected say so faster than the console writes it, and what does not fit is lost.
KERNEL = "pci-stub.ids=8086:100e ipv6.disable_ipv6=1 log_buf_len=4M"
# Another member of the family, which that driver has.
PEER = "e1000-82545em,mitigation?=off,romfile="

# Sit on every machine. Upstream's rust_dma sample drives the first; KUnit takes the other, which is
# to be the first of its kind on the bus.
COMMON_DEVICES = ("pci-testdev", NIC)

# So does this, with a disk of its own. It takes up to 2^8 pages at once: 1 MiB. In slots there are
# slow ones, which have commands in flight most of the time.
NVME = "nvme,serial=dma-rs,drive=disk,mdts=8"
DISK_SIZE = 16 << 20

# What some guest tests need besides: a cable between two NICs, and ports.
CABLE_TESTS = ("peer", "interface", "interface_faults", "interface_floods", "interface_rounds", "internet")
EDU_SLOTS = (Slot("edu", 1), *[Slot("edu")] * 7)
NIC_SLOTS = (Slot("nic", 1), *[Slot("nic")] * 7)
NVME_SLOTS = (Slot("nvme", 1, speed=20), *[Slot("nvme")] * 7)
SLOT_TESTS = {
    "reset": EDU_SLOTS, "unplug": EDU_SLOTS,
    "nic_reset": NIC_SLOTS, "rebind": NIC_SLOTS, "nic_unplug": NIC_SLOTS, "interface_reset": NIC_SLOTS,
    "interface_unplug": NIC_SLOTS,
    "nvme_suspend": NVME_SLOTS, "nvme_rebind": NVME_SLOTS, "nvme_unplug": NVME_SLOTS,
}

# Short rings wrap soon, and fit into memory fifty times.
TEST_KERNEL = ("dma_rs_e1000.tx_descriptors=64 dma_rs_e1000.rx_descriptors=64 "
               "dma_rs_e1000_net.tx_descriptors=64 dma_rs_e1000_net.rx_descriptors=64")

# What takes our interface long.
NET_TESTS = ("interface_faults", "interface_floods", "interface_reset", "interface_unplug")

# What disturbs devices at work. unplug leaves lockdep off.
DISTURBANCES = ("mmap", "reset", "suspend", "peer", "interface", "internet", "nic_reset", "nic_suspend",
                "interface_reset", "rebind", "nvme_suspend", "nvme_rebind", "unplug", "nic_unplug", "nvme_unplug")

# Suites that must appear in every variant for which they matter; a missing one is a failure.
COMMON_SUITES = (
    "dma_rs_e1000", "dma_rs_e1000_unit", "dma_rs_edu", "dma_rs_nvme", "rust_devres_managed",
    "rust_dma_buffer", "rust_dma_bus_master", "rust_dma_constraints", "rust_dma_constraints_sim",
    "rust_dma_fence", "rust_dma_fence_in_flight", "rust_dma_fence_sim",
    "rust_dma_mmap", "rust_dma_mmap_pci", "rust_dma_mmap_sim",
    "rust_dma_noncoherent", "rust_dma_noncoherent_sim", "rust_dma_parts_sim", "rust_dma_pool", "rust_dma_pool_sim",
    "rust_dma_queue", "rust_dma_queue_sim", "rust_dma_queue_slots", "rust_dma_queue_through",
    "rust_dma_registers", "rust_dma_ring_parallel", "rust_dma_ring_sim", "rust_dma_scatter",
    "rust_dma_scatter_pci", "rust_dma_scatter_ring", "rust_dma_scatter_sim", "rust_dma_session",
    "rust_dma_session_sim", "rust_dma_session_states",
    "rust_dma_shared", "rust_dma_shared_pci", "rust_dma_shared_sim", "rust_dma_sim",
    "rust_dma_streaming", "rust_dma_streaming_sim", "rust_dma_transfer", "rust_dma_transfer_sim",
    "rust_dma_untrusted", "rust_dmaengine", "rust_dmaengine_copy",
    "rust_dmaengine_faults", "rust_dmaengine_mmap", "rust_dmaengine_slave", "rust_dmaengine_unbind",
    "rust_net_netdev", "rust_pci_dma_driver", "rust_pci_events", "sample_rust_dma_fence",
    "sample_rust_dma_layout", "sample_rust_dma_list", "sample_rust_dma_mailbox", "sample_rust_dma_queue",
    "sample_rust_dma_ring", "sample_rust_dma_sim", "sample_rust_dma_slots", "sample_rust_dmaengine",
    # Upstream's.
    "rust_doctests_kernel", "rust_allocator", "rust_atomics", "rust_kernel_bitfield",
    "rust_kernel_bitmap", "rust_kernel_fmt", "rust_kernel_str", "rust_kvec",
    "rust_spinlock_irq_condvar",
)

# Those of them that have slow tests.
SLOW_SUITES = (
    "dma_rs_e1000", "dma_rs_edu", "rust_dma_session", "rust_dma_queue_sim", "rust_dma_ring_sim",
    "rust_dma_scatter", "rust_dma_sim", "rust_dma_streaming_sim",
)

# Those about DMA that run on the machine's own bus; and of them those that have devices. The simulated
# bus is the same on each machine, so its suites need one variant. They end in "_sim", but for those of
# the samples: a glob can leave out names by a letter only.
DMA_SUITES = "[dr]*dma*[!m]"
DEVICE_SUITES = "dma_rs_*"
NET_SUITES = "rust_net_*"

# Those in which code in C and in Rust races on purpose, where the kernel has KCSAN.
RACY_SUITES = ("dma_rs_race", "rust_dma_race")

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
RT_CONTROLS = ("map-unchecked", "sleep-atomic", "lock-order")

# KCSAN looks at one access of some hundred, and holds up who makes it for some microseconds, in which
# another CPU may make its own.
KCSAN = "kcsan.skip_watch=300 kcsan.udelay_task=40"

# slab_debug=F goes with kmemleak=on: the allocator's lists of free objects hold pointers to those
# that it has just given away, which hides leaks. With any check of its own it has no such lists.
VARIANTS = {
    "x86_64": {
        "kmemleak": Variant("as plain; probes fail at each allocation; the leak detector scans at the end",
                            f"kmemleak=on slab_debug=F {WIDE}", edu=WIDE_EDU,
                            guest_tests=("sweep", "nic_sweep", "mmap_sweep", "interface_faults", "unplug", "nic_unplug"),
                            slow=True),
        "kcsan": Variant("a kernel that looks for data races (KCSAN), and two that it must find",
                         f"{KCSAN} {WIDE}", edu=WIDE_EDU, suites=DMA_SUITES, slow=True, flavour="kcsan",
                         lacks=("rust_dma_scatter_ring", "rust_dmaengine_faults"), adds=RACY_SUITES,
                         dma_debug=False),
        "rt": Variant("a kernel whose spinlocks sleep (PREEMPT_RT)", WIDE, edu=WIDE_EDU, suites=DMA_SUITES,
                      slow=True, flavour="rt", lacks=("rust_dma_scatter_ring",), guest_tests=("modules",)),
        "controls-rt": Variant("that kernel misbehaves: its oracles must say so", WIDE, edu=WIDE_EDU,
                               slow=True, flavour="rt", controls=RT_CONTROLS),
        "net": Variant("our network interface talks to the kernel's own driver", suites=NET_SUITES, slow=True,
                       guest_tests=("interface", "internet", "interface_rounds", *NET_TESTS)),
        "net-swiotlb": Variant("the same, every mapping bounces", "swiotlb=force", suites=NET_SUITES, slow=True,
                               guest_tests=NET_TESTS),
        "net-iommu": Variant("the same, Intel IOMMU, unmapped at once", "intel_iommu=on iommu.strict=1",
                             iommu=INTEL_IOMMU, suites=NET_SUITES, slow=True, guest_tests=NET_TESTS),
        "net-kcsan": Variant("the same, in a kernel that looks for data races (KCSAN)", KCSAN, suites=NET_SUITES,
                             slow=True, flavour="kcsan", dma_debug=False,
                             guest_tests=("interface", "internet", "interface_floods")),
        "controls": Variant("the kernel misbehaves: each oracle must say so",
                            f"kmemleak=on slab_debug=F kasan_multi_shot {WIDE}",
                            edu=WIDE_EDU, controls=CONTROLS),
        "plain": Variant("dma-direct", WIDE, edu=WIDE_EDU, guest_tests=DISTURBANCES),
        "swiotlb": Variant("every mapping bounces", f"swiotlb=force {WIDE}", edu=WIDE_EDU,
                           guest_tests=DISTURBANCES, suites=DMA_SUITES),
        "iommu-strict": Variant(
            "Intel IOMMU, unmapped at once", "intel_iommu=on iommu.strict=1",
            iommu=INTEL_IOMMU, guest_tests=DISTURBANCES, suites=DMA_SUITES),
        "iommu-lazy": Variant(
            "Intel IOMMU, unmapped in batches", "intel_iommu=on iommu.strict=0",
            iommu=INTEL_IOMMU, guest_tests=DISTURBANCES, suites=DEVICE_SUITES),
        "intx": Variant("as plain, with legacy interrupts", f"{WIDE} pci=nomsi", edu=WIDE_EDU,
                        suites=DEVICE_SUITES),
        "mask64": Variant("a device with 64-bit addresses", "dma_rs_edu.dma_bits=64",
                          edu="edu,dma_mask=0xffffffffffffffff", suites=DEVICE_SUITES),
        "controls-iommu": Variant(
            "the device misbehaves: Intel's IOMMU must say so",
            f"intel_iommu=on iommu.strict=1 {WIDE}",
            iommu=INTEL_IOMMU, edu=WIDE_EDU, controls=IOMMU_CONTROLS),
    },
    # Memory starts at 1 GiB here.
    "arm64": {
        "zcu102": Variant("a board with a DMA engine, whose driver is the kernel's own", board="zcu102",
                          suites="rust_dmaengine_copy", slow=True, guest_tests=("engine",)),
        "plain": Variant("dma-direct; probes fail at each allocation", WIDE, edu=WIDE_EDU,
                         lacks=("rust_doctests_kernel",),
                         guest_tests=("sweep", "nic_sweep", "mmap", "mmap_sweep", "peer", "interface", "internet",
                                     "interface_faults", "rebind")),
        "controls": Variant("the kernel misbehaves: each oracle must say so",
                            f"kmemleak=on slab_debug=F kasan_multi_shot {WIDE}",
                            edu=WIDE_EDU, controls=CONTROLS),
        "swiotlb": Variant("every mapping bounces", f"swiotlb=force {WIDE}",
                           edu=WIDE_EDU, suites=DMA_SUITES),
        "smmuv3": Variant("Arm SMMU, unmapped at once", "iommu.strict=1", machine="iommu=smmuv3",
                          guest_tests=DISTURBANCES, suites=DMA_SUITES),
        "noncoherent": Variant("a bus that does not snoop caches", WIDE,
                               edu=WIDE_EDU, noncoherent=True, guest_tests=DISTURBANCES,
                               suites=DMA_SUITES),
        "controls-iommu": Variant(
            "the device misbehaves: Arm's SMMU must say so",
            f"iommu.strict=1 {WIDE}", machine="iommu=smmuv3",
            edu=WIDE_EDU, controls=IOMMU_CONTROLS),
    },
}


def slots(tests):
    """The ports that guest tests need, each kind of them once."""
    return sum(dict.fromkeys(SLOT_TESTS[test] for test in tests if test in SLOT_TESTS), ())
