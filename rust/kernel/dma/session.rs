// SPDX-License-Identifier: GPL-2.0

//! How a device is started and stopped, and what it may access meanwhile.
//!
//! Memory that was shown to a device may be freed when its completion was seen, or when the device
//! was proven to have stopped. This module makes the proof. A driver implements [`Quiesce`], which
//! says how its hardware is stopped, and how it is *disarmed*: made to let go of all addresses. The
//! one [`Session`] of a bound device calls it at the right times.
//!
//! - A stop is a pause. With bus mastering off, for instance, a transfer is held up, and goes on to
//!   its old address when bus mastering is on again. So the device is disarmed before it may access
//!   memory: after each stop, and before the first start, since firmware or an earlier driver may
//!   have left it at work.
//! - The bus stops and disarms the device when it is unbound, when its probe fails, and at
//!   shutdown. The driver core still holds the device's DMA and power then. The driver need do
//!   nothing in `unbind()`.
//! - A stop wakes the threads that wait for the device. No interrupt would wake them any more:
//!   message-signalled interrupts are memory writes, too. [`Session::wait_until`] looks once more
//!   then, and a transfer's wait returns [`ESHUTDOWN`].
//! - Without a proof no memory is freed that the device may access: it goes to the quarantine.
//!
//! The device is stopped before a suspend, a reset or the recovery from a bus error, and started
//! afterwards if the driver can go on. If it can't, the system doesn't suspend while the device
//! runs.
//!
//! See `Documentation/rust/dma/ownership.rst`.

mod bus;
pub(super) mod control;
#[cfg(CONFIG_RUST_DMA_DEBUG)]
mod debug;
mod events;
mod handle;
pub(super) mod quarantine;
mod quiesce;
mod state;
mod suspend;

pub(crate) use self::events::{
    end,
    finish,
    prepare, //
};
#[cfg(any(CONFIG_PCI, CONFIG_RUST_DMA_KUNIT_TEST))]
pub(crate) use self::events::{
    give_up,
    pause,
    resume, //
};
#[cfg(CONFIG_RUST_DMA_DEBUG)]
pub use self::quarantine::quarantined;
#[cfg(CONFIG_PCI)]
pub(crate) use self::{
    bus::Bus,
    events::{
        error_begins,
        error_ends, //
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
