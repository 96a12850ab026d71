// SPDX-License-Identifier: GPL-2.0

//! What the device counts.

use super::{
    hardware::Control,
    regs::{
        GPRC,
        GPTC,
        MPC,
        RNBC,
        ROC,
        STATUS, //
    }, //
};
use kernel::fmt;

/// What the device has counted. Its registers are cleared when they are read, and when it is reset:
/// whoever stops it [adds](Statistics::add) what they say before.
#[derive(Clone, Copy, Default)]
pub(crate) struct Statistics {
    /// Good frames that were sent.
    pub(crate) sent: u64,
    /// Good frames that were received.
    pub(crate) received: u64,
    /// Frames that were lost for want of room in the device.
    pub(crate) missed: u64,
    /// Frames for which there was no descriptor.
    pub(crate) no_buffers: u64,
    /// Frames that were too long.
    pub(crate) oversized: u64,
}

impl Statistics {
    pub(crate) fn new() -> Self {
        Self::default()
    }

    /// Adds what was counted since the last time; nothing if the device is gone.
    pub(crate) fn add(&mut self, control: &Control<'_>) {
        if control.read(STATUS).into_raw() == u32::MAX {
            return;
        }

        self.sent += u64::from(control.read(GPTC).into_raw());
        self.received += u64::from(control.read(GPRC).into_raw());
        self.missed += u64::from(control.read(MPC).into_raw());
        self.no_buffers += u64::from(control.read(RNBC).into_raw());
        self.oversized += u64::from(control.read(ROC).into_raw());
    }

    /// Writes the counters for a person to read.
    pub(crate) fn show(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "device sent {}", self.sent)?;
        writeln!(f, "device received {}", self.received)?;
        writeln!(f, "device missed {}", self.missed)?;
        writeln!(f, "device no buffers {}", self.no_buffers)?;
        writeln!(f, "device oversized {}", self.oversized)
    }
}
