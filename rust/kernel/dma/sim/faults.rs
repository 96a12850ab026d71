// SPDX-License-Identifier: GPL-2.0

//! What a driver, or its device, must not do.

use super::site::Site;
use crate::{
    fmt,
    prelude::*, //
};

/// A mistake that the simulated bus saw.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fault {
    /// The device accessed an address that was never mapped.
    Unmapped,
    /// The device accessed an address after it was unmapped.
    AfterUnmap,
    /// The device accessed more than was mapped.
    PastEnd,
    /// The device wrote what is mapped for reading, or read what is mapped for writing.
    Direction,
    /// The device accessed bytes that belong to the CPU: a sync for the device is missing.
    NotGiven,
    /// The CPU wrote bytes that belong to the device: a sync is missing, on either side of it.
    CpuWrote,
    /// The device accessed memory after it said that it had stopped.
    AfterStop,
    /// The driver unmapped or freed what is not mapped like this: another address, length,
    /// direction or kind.
    BadUnmap,
    /// The driver synced what is not mapped like this.
    BadSync,
}

impl Fault {
    fn describe(self) -> &'static str {
        match self {
            Self::Unmapped => "the device accessed an address that was never mapped",
            Self::AfterUnmap => "the device accessed an address after it was unmapped",
            Self::PastEnd => "the device accessed more than was mapped",
            Self::Direction => "the device accessed against the direction of the mapping",
            Self::NotGiven => "the device accessed bytes of the CPU: no sync for the device",
            Self::CpuWrote => "the CPU wrote bytes of the device: a sync is missing",
            Self::AfterStop => "the device accessed memory after it had stopped",
            Self::BadUnmap => "the driver unmapped what is not mapped like this",
            Self::BadSync => "the driver synced what is not mapped like this",
        }
    }
}

/// A fault, and where it happened.
#[derive(Clone, Copy)]
pub(super) struct Record {
    pub(super) fault: Fault,
    pub(super) addr: u64,
    pub(super) len: usize,
    /// Who made the mapping that it was about, if there is, or was, one.
    pub(super) mapping: Option<Site>,
    /// Who made the faulty call, if it was a call.
    pub(super) call: Option<Site>,
}

impl fmt::Display for Record {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "{:?}: {} ({} bytes at {:#x})",
            self.fault,
            self.fault.describe(),
            self.len,
            self.addr
        )?;

        if let Some(site) = &self.call {
            f.write_fmt(fmt!("; in {site}"))?;
        }

        if let Some(site) = &self.mapping {
            f.write_fmt(fmt!("; mapped in {site}"))?;
        }

        Ok(())
    }
}
