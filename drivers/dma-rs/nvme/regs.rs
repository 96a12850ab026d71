// SPDX-License-Identifier: GPL-2.0

//! The registers.
//!
//! Sections refer to the NVM Express Base Specification, revision 1.4. Registers of 64 bits are
//! accessed as two of 32, which section 3.1 allows.

use kernel::{
    io::register,
    pci, //
};

register! {
    /// Controller Capabilities (3.1.1), the lower half.
    pub(crate) CAP(u32) @ 0x00 {
        31:24 timeout;
        15:0 max_entries;
    }

    /// The upper half.
    pub(crate) CAP_HIGH(u32) @ 0x04 {
        19:16 min_page;
        5:5 nvm => bool;
        3:0 stride;
    }

    /// Version (3.1.2).
    pub(crate) VS(u32) @ 0x08 {
        31:16 major;
    }

    /// Interrupt Mask Set (3.1.3): of the pin, and of MSI.
    pub(crate) INTMS(u32) @ 0x0c {
        31:0 vectors;
    }

    /// Controller Configuration (3.1.5).
    pub(crate) CC(u32) @ 0x14 {
        23:20 completion_size;
        19:16 submission_size;
        15:14 shutdown;
        0:0 enable => bool;
    }

    /// Controller Status (3.1.6).
    pub(crate) CSTS(u32) @ 0x1c {
        3:2 shutdown;
        1:1 fatal => bool;
        0:0 ready => bool;
    }

    /// Admin Queue Attributes (3.1.8): the entries of the two queues, less one.
    pub(crate) AQA(u32) @ 0x24 {
        27:16 completions;
        11:0 submissions;
    }

    /// Admin Submission Queue Base Address (3.1.9).
    pub(crate) ASQ(u32) @ 0x28 {
        31:0 address;
    }

    /// The upper half.
    pub(crate) ASQ_HIGH(u32) @ 0x2c {
        31:0 address;
    }

    /// Admin Completion Queue Base Address (3.1.10).
    pub(crate) ACQ(u32) @ 0x30 {
        31:0 address;
    }

    /// The upper half.
    pub(crate) ACQ_HIGH(u32) @ 0x34 {
        31:0 address;
    }

    /// Submission Queue Tail Doorbells (3.1.24), with the smallest stride: of the admin queue, and
    /// of those for reads and writes.
    pub(crate) TAIL(u32)[5, stride = 8] @ 0x1000 {
        31:0 index;
    }

    /// Completion Queue Head Doorbells (3.1.25).
    pub(crate) HEAD(u32)[5, stride = 8] @ 0x1004 {
        31:0 index;
    }
}

/// The registers that the driver maps.
pub(crate) type Registers<'a> = pci::Bar<'a, 0x1028>;
