// SPDX-License-Identifier: GPL-2.0

//! The guard under which addresses are shown to a device.

use super::record::Record;
use crate::{
    bindings,
    prelude::*,
    sync::atomic::{
        Atomic,
        Relaxed, //
    },
    types::NotThreadSafe, //
};
use core::marker::PhantomData;

/// The permission to show an address to a device: the device runs, and isn't stopped as long as
/// this guard lives.
///
/// [`DmaAddr::to_bits`](super::DmaAddr::to_bits) takes one. Slots, rings and queues hand one to the
/// driver when they ask it to program the hardware. A driver with a protocol of its own
/// takes one by [`Mapper::running`](super::Mapper::running), just before it writes an address to
/// where the device looks.
///
/// This is an RCU read-side section, in which preemption is off, too, except with `PREEMPT_RT`.
/// A stop of the device waits for it, so hold it for a short time, and don't sleep.
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
/// /// `registers` must be those of the device of `dma`, for which `mailbox` was allocated. The
/// /// device must access nothing but the mailbox, and that only until it is stopped.
/// unsafe fn show(
///     dma: Mapper<'_>,
///     registers: Mmio<'_, Region<16>>,
///     mailbox: &PoolEntry<'_, u64>,
/// ) -> Result {
///     let running = dma.running()?;
///
///     // SAFETY:
///     // 1. `running` was taken from `dma`, whose device the pool of the mailbox is for.
///     // 2. By the safety requirements, the registers are those of that device.
///     // 3. The device accesses it until it is stopped, and it isn't freed before.
///     let address: u64 = unsafe { mailbox.address().to_bits(&running) }.into();
///
///     registers.write64(address, 8);
///     Ok(())
/// }
/// ```
#[must_use = "the device may be stopped when this is dropped"]
pub struct Running<'a> {
    _section: Section,
    _record: PhantomData<&'a ()>,
}

impl<'a> Running<'a> {
    /// Takes the guard, if the device runs.
    ///
    /// Context: any.
    ///
    /// # Errors
    ///
    /// [`ESHUTDOWN`] if the device is stopped, or wasn't started yet.
    #[inline]
    pub(in crate::dma) fn enter(record: &'a Record) -> Result<Self> {
        let section = Section::enter();

        if record.running() == 0 {
            return Err(closed());
        }

        // INVARIANT: The device runs. `Record::close()` waits for a grace period before the device
        // is stopped, and that period doesn't end before this section.
        Ok(Self {
            _section: section,
            _record: PhantomData,
        })
    }

    /// As [`enter`](Self::enter), but only if the device runs in that epoch. `epoch` must not be 0.
    #[inline]
    pub(in crate::dma) fn enter_epoch(record: &'a Record, epoch: &Atomic<u64>) -> Result<Self> {
        let section = Section::enter();

        if record.running() != epoch.load(Relaxed) {
            return Err(closed());
        }

        // INVARIANT: As in `enter()`.
        Ok(Self {
            _section: section,
            _record: PhantomData,
        })
    }
}

impl Drop for Running<'_> {
    #[inline]
    fn drop(&mut self) {
        // RCU orders accesses to memory. On machines where it doesn't order those to registers, a
        // doorbell could arrive after the writes by which another CPU stops the device.
        //
        // SAFETY: `mmiowb()` has no requirements.
        #[cfg(CONFIG_MMIOWB)]
        unsafe {
            bindings::mmiowb()
        };
    }
}

/// A section for which `synchronize_rcu()` waits.
///
/// With preemptible RCU, `rcu_read_lock()` and `rcu_read_unlock()` are two calls for each doorbell.
/// To turn preemption off costs three instructions on x86, and `synchronize_rcu()` waits for that,
/// too. With `PREEMPT_RT` it is `rcu_read_lock()` nevertheless, since spinlocks, which a driver may
/// take meanwhile, sleep there.
///
/// # Invariants
///
/// The section was entered, and not left.
pub(in crate::dma) struct Section(NotThreadSafe);

impl Section {
    #[inline]
    pub(in crate::dma) fn enter() -> Self {
        // SAFETY: No requirements.
        unsafe { bindings::dma_running_enter() };

        // INVARIANT: Just entered.
        Self(NotThreadSafe)
    }
}

impl Drop for Section {
    #[inline]
    fn drop(&mut self) {
        // SAFETY: By the type invariants it is entered; `NotThreadSafe` keeps it on the thread that
        // did so.
        unsafe { bindings::dma_running_exit() };
    }
}

/// Tells the compiler that this hardly ever happens.
#[cold]
fn closed() -> Error {
    ESHUTDOWN
}
