// SPDX-License-Identifier: GPL-2.0

//! What a bus does to keep a device from memory.
//!
//! On some buses there is a switch between a device and memory that belongs to the bus, not to the
//! device: the Bus Master Enable bit of a PCI function. A [`Session`](super::Session) opens it when
//! the device holds no address, and closes it to stop the device. How that is done is the business
//! of the bus, which implements [`Bus`] and hands it over with
//! [`prepare`](super::prepare). On buses without such a switch, like the platform bus, the
//! device's own stop has to do.

use super::quiesce::{
    Disarmed,
    StopOutcome, //
};

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
/// 2. `close` returns [`StopOutcome::Gone`] only if the device has left the bus, and can come back
///    reset only. That it doesn't answer isn't enough.
/// 3. In all other cases `close` returns [`StopOutcome::Unproven`]: the bus doesn't know.
pub(crate) unsafe trait Bus: Send + Sync {
    /// Lets the device access memory.
    ///
    /// `disarmed` is the proof that the device holds no address that it was given before.
    fn open(&self, disarmed: Disarmed);

    /// Keeps the device from memory, and says what that is worth.
    ///
    /// May be called when that was done before, and for a device that doesn't answer.
    fn close(&self) -> StopOutcome;
}
