// SPDX-License-Identifier: GPL-2.0

//! What a device may touch, and how it is stopped.
//!
//! Memory that a device knows may be freed when the device was seen to be done with it, or when it
//! was proven to have stopped. The proof is made here: [`Quiesce`] says how the hardware is stopped
//! and how it is *disarmed*, that is, made to forget what it was told, and the one [`Session`] of a
//! bound device has both done at the right time.
//!
//! - A stop is a pause. Bus mastering off, for instance, holds a transfer up that goes on, to its
//!   old address, when bus mastering comes back. So the device is disarmed before it may access
//!   memory: at first, since firmware or an earlier driver may have left it at work, and after each
//!   stop.
//! - The bus stops the device when it is unbound, when its probe fails, and on shutdown, as long
//!   as the driver core still holds the device's DMA and power, and disarms it then, too: who
//!   knows who drives it next. There is nothing for the driver to do in `unbind()`, and nothing to
//!   forget. What the proof covers is freed after it, whoever drops it, and whenever.
//! - After a stop there are no interrupts by messages, which are writes to memory, too. So whoever
//!   waits for one is woken, and gets [`ESHUTDOWN`].
//! - Without a proof nothing is freed: see [`quarantined`](super::quarantined).
//!
//! On suspend, resets and errors the device is stopped, and afterwards started, for drivers that
//! can go on. For others, suspending is refused while the device runs.
//!
//! See `Documentation/rust/dma/ownership.rst`.

mod bus;
pub(super) mod control;
#[cfg(CONFIG_RUST_DMA_DEBUG)]
mod debug;
mod events;
mod handle;
mod quarantine;
mod quiesce;
mod state;
mod suspend;

pub(crate) use self::events::{
    end,
    finish,
    prepare, //
};
#[cfg(CONFIG_RUST_DMA_DEBUG)]
pub use self::quarantine::quarantined;
#[cfg(CONFIG_PCI)]
pub(crate) use self::{
    bus::Bus,
    events::{
        error_begins,
        error_ends,
        pause,
        resume, //
    },
    quiesce::Disarmed, //
};
pub use self::{
    handle::Session,
    quiesce::{
        Quiesce,
        StopOutcome, //
    },
};
