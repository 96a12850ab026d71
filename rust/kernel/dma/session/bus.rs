// SPDX-License-Identifier: GPL-2.0

//! What a bus does to keep a device from memory.
//!
//! Some buses have a switch between a device and memory, such as the Bus Master Enable bit of a PCI
//! function. A [`Session`](super::Session) opens the switch when the device holds no address, and
//! closes it to stop the device. The bus implements [`Bus`] for that, and hands it over by
//! [`prepare`](super::prepare). On a bus without a switch, like the platform bus, only
//! [`Quiesce::quiesce`](super::Quiesce::quiesce) stops the device.

use super::quiesce::{
    Disarmed,
    StopOutcome, //
};
use crate::prelude::*;

/// How a bus keeps a device from memory, and lets it.
///
/// The session calls both methods while the device is bound, one at a time, and never from a
/// context that can't sleep.
///
/// # Safety
///
/// 1. After [`close`](Self::close) returned [`StopOutcome::Stopped`], a device that heeds its bus
///    accesses no memory until [`open`](Self::open) is called. What the device wrote before is in
///    memory, and no request of it waits for an answer. Nothing else opens the switch meanwhile:
///    no driver, and no bus that restores what it saved.
/// 2. `close` returns [`StopOutcome::Gone`] only if the device has left the bus, and is reset if it
///    comes back. That it doesn't answer isn't enough.
/// 3. In all other cases `close` returns [`StopOutcome::Unproven`]: the bus doesn't know.
pub(crate) unsafe trait Bus: Send + Sync {
    /// Lets the device access memory.
    ///
    /// `disarmed` is the proof that the device holds no address that it was shown before.
    ///
    /// # Errors
    ///
    /// [`EIO`] if the switch stays closed.
    fn open(&self, disarmed: Disarmed) -> Result;

    /// Keeps the device from memory, and returns whether that is a proof.
    ///
    /// May be called when the switch is closed already, and for a device that doesn't answer.
    fn close(&self) -> StopOutcome;
}
