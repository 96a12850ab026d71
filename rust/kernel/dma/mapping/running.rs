// SPDX-License-Identifier: GPL-2.0

//! Showing addresses to a device that runs.

use super::record::Record;
use crate::{
    prelude::*,
    sync::rcu, //
};
use core::marker::PhantomData;

/// A device that runs, and isn't stopped as long as this lives: the permission to show it an
/// address.
///
/// Protocols such as transfers and rings hand one to the driver when they ask it to program the
/// hardware. A driver with a protocol of its own takes one by
/// [`Mapper::running`](super::Mapper::running), for the moment in which it writes addresses to
/// where the device finds them.
///
/// This is an RCU read-side section. Whoever stops the device waits for it, so hold it for short,
/// and don't sleep.
///
/// # Invariants
///
/// The device isn't stopped before an RCU grace period has passed that began after this was made.
///
/// # Examples
///
/// ```
/// # use kernel::{dma::{Mapper, PoolEntry}, io::{Io, Mmio, Region}, prelude::*};
/// /// Tells a device where its mailbox is.
/// ///
/// /// # Safety
/// ///
/// /// `registers` must be those of the device of `dma`, which accesses the mailbox from then on,
/// /// until it is stopped.
/// unsafe fn show(
///     dma: Mapper<'_>,
///     registers: Mmio<'_, Region<16>>,
///     mailbox: &PoolEntry<'_, u64>,
/// ) -> Result {
///     let running = dma.running()?;
///
///     // SAFETY: By the safety requirements. Once stopped, the device accesses the mailbox no
///     // more, and what was shown isn't freed before.
///     let address: u64 = unsafe { mailbox.address().to_bits(&running) }.into();
///
///     registers.write64(address, 8);
///     Ok(())
/// }
/// ```
// Not by `rcu_read_lock_sched()`, which costs less with preemptible RCU: what is done meanwhile, to
// ring a doorbell for instance, may take locks, and with PREEMPT_RT those sleep.
#[must_use = "the device may be stopped when this is dropped"]
pub struct Running<'a> {
    _guard: rcu::Guard,
    _record: PhantomData<&'a ()>,
}

impl<'a> Running<'a> {
    /// Enters, if the device runs.
    ///
    /// Context: any.
    ///
    /// # Errors
    ///
    /// [`ESHUTDOWN`] if the device is stopped, or wasn't started yet.
    #[inline]
    pub(in crate::dma) fn enter(record: &'a Record) -> Result<Self> {
        let guard = rcu::read_lock();

        if record.running() == 0 {
            return Err(closed());
        }

        // INVARIANT: The device runs. `Record::close()` lets a grace period pass before the device
        // is stopped, which ends after this section.
        Ok(Self {
            _guard: guard,
            _record: PhantomData,
        })
    }

    /// As [`enter`](Self::enter), if the device runs in that epoch, which isn't 0.
    #[inline]
    pub(in crate::dma) fn enter_epoch(record: &'a Record, epoch: u64) -> Result<Self> {
        let guard = rcu::read_lock();

        if record.running() != epoch {
            return Err(closed());
        }

        // INVARIANT: As in `enter()`.
        Ok(Self {
            _guard: guard,
            _record: PhantomData,
        })
    }
}

impl Drop for Running<'_> {
    #[inline]
    fn drop(&mut self) {
        // RCU orders accesses to memory. Where it doesn't order those to registers, a doorbell
        // could otherwise arrive after the registers by which another CPU stops the device.
        //
        // SAFETY: No requirements.
        #[cfg(CONFIG_MMIOWB)]
        unsafe {
            crate::bindings::mmiowb()
        };
    }
}

/// Tells the compiler that this hardly ever happens.
#[cold]
fn closed() -> Error {
    ESHUTDOWN
}
