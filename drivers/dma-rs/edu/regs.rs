// SPDX-License-Identifier: GPL-2.0

//! The registers, as `docs/specs/edu.rst` of QEMU describes them.

use kernel::{
    io::register,
    pci, //
};

register! {
    /// Identification.
    pub(crate) ID(u32) @ 0x00 {
        31:24 major;
        23:16 minor;
        7:0 magic;
    }

    /// Which interrupts are raised.
    pub(crate) IRQ_STATUS(u32) @ 0x24 {
        31:0 raised;
        8:8 dma => bool;
    }

    /// Takes back the interrupts whose bits are written.
    pub(crate) IRQ_ACK(u32) @ 0x64 {
        31:0 taken;
    }

    /// Where to read: a bus address, or one in the device.
    ///
    /// Writes to this and the following registers are ignored while a transfer runs. Only a 64-bit
    /// access reaches the upper half; a region is known to be aligned for 32 bits only, hence the
    /// fallible accessors.
    pub(crate) DMA_SOURCE(u64) @ 0x80 {
        63:0 address;
    }

    /// Where to write.
    pub(crate) DMA_DESTINATION(u64) @ 0x88 {
        63:0 address;
    }

    /// How many bytes.
    pub(crate) DMA_COUNT(u32) @ 0x90 {
        31:0 bytes;
    }

    /// Starts a transfer, and says whether one runs.
    pub(crate) DMA_COMMAND(u32) @ 0x98 {
        2:2 interrupt => bool;
        1:1 to_ram => bool;
        0:0 run => bool;
    }
}

#[cfg(CONFIG_DMA_RS_EDU_KUNIT_TEST)]
register! {
    /// Raises the interrupts whose bits are written.
    pub(crate) IRQ_RAISE(u32) @ 0x60 {
        31:0 raised;
    }
}

/// What [`ID`] reads on the device that this driver knows.
pub(crate) const MAGIC: u8 = 0xed;

/// Where the device's memory begins, in the addresses of its engine.
pub(crate) const MEMORY_BASE: u64 = 0x40000;

/// How much of the device's memory the driver uses.
///
/// There is one byte more, but up to 9.0 QEMU ends on a transfer that reaches it.
pub(crate) const MEMORY_SIZE: usize = 4095;

/// The registers that the driver maps.
pub(crate) type Registers<'a> = pci::Bar<'a, 0xa0>;
