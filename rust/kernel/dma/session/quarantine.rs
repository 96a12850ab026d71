// SPDX-License-Identifier: GPL-2.0

//! The quarantine: memory that was dropped while its device might access it.
//!
//! It is kept here, mapped and allocated, until a stop proves that the device is done with it. That
//! works in any context. If there is no proof when the device is unbound, the memory is leaked.

use super::super::mapping::{
    leaks::leak,
    orphan::{
        Kept,
        List, //
    },
    record::Record, //
};
use crate::{
    device::Device,
    prelude::*,
    sync::{
        aref::ARef,
        SpinLockIrq, //
    }, //
};
#[cfg(CONFIG_RUST_DMA_DEBUG)]
use crate::{
    fmt,
    sync::atomic::{
        Atomic,
        Relaxed, //
    },
};

/// The quarantine of one binding of a device.
///
/// Dropping it leaks the memory that is left.
pub(in crate::dma) struct Quarantine {
    dev: ARef<Device>,
    list: List,
    quarantined: u64,
    reclaimed: u64,
}

impl Quarantine {
    pub(in crate::dma) fn new(dev: ARef<Device>) -> Self {
        Self {
            dev,
            list: List::default(),
            quarantined: 0,
            reclaimed: 0,
        }
    }

    /// Keeps an orphan if `is_needed` returns true; otherwise gives it back, to be freed.
    ///
    /// Context: any.
    pub(in crate::dma) fn keep(
        this: &SpinLockIrq<Self>,
        orphan: Kept,
        is_needed: &dyn Fn() -> bool,
    ) -> Result<(), Kept> {
        let (bytes, is_accident) = (orphan.bytes(), orphan.is_accident());
        let mut quarantine = this.lock();

        // Under the lock: `prove()` either came before, or will find the orphan in the list.
        if !is_needed() {
            return Err(orphan);
        }

        let is_first = is_accident && quarantine.quarantined == 0;

        if is_accident {
            quarantine.quarantined += 1;

            #[cfg(CONFIG_RUST_DMA_DEBUG)]
            QUARANTINED.fetch_add(1, Relaxed);
        }

        quarantine.list.push(orphan);

        if is_first {
            let dev = quarantine.dev.clone();

            drop(quarantine);
            dev_err!(
                dev,
                "{bytes} bytes were dropped while the device might access them; \
                 kept until it is proven not to (and any others, silently)\n"
            );
        }

        Ok(())
    }

    /// Records a proof. Returns the orphans, which may be freed now.
    ///
    /// Context: any.
    ///
    /// # Safety
    ///
    /// As [`Record::prove`].
    pub(in crate::dma) unsafe fn prove(this: &SpinLockIrq<Self>, record: &Record) -> Proven {
        let mut quarantine = this.lock();

        // SAFETY: The requirements of `Record::prove` hold, by those of this function.
        unsafe { record.prove() };

        // INVARIANT: The device was just proven to access nothing of what it was shown.
        Proven(core::mem::take(&mut quarantine.list))
    }

    /// Returns how many orphans were dropped by accident, and how many of these were freed since.
    #[cfg(any(CONFIG_RUST_DMA_DEBUG, CONFIG_RUST_DMA_KUNIT_TEST))]
    pub(super) fn counts(&self) -> (u64, u64) {
        (self.quarantined, self.reclaimed)
    }
}

impl Drop for Quarantine {
    fn drop(&mut self) {
        let list = core::mem::take(&mut self.list);

        if list.size().0 > 0 {
            leak(&self.dev, list);
        }
    }
}

/// Orphans that may be freed. Dropping this leaks them.
///
/// # Invariants
///
/// The device was proven not to access the orphans any more.
#[derive(Default)]
#[must_use]
pub(in crate::dma) struct Proven(List);

impl Proven {
    /// Frees them.
    ///
    /// Context: may sleep.
    pub(in crate::dma) fn reclaim(self, quarantine: &SpinLockIrq<Quarantine>) {
        // SAFETY: By the type invariants the device doesn't access the orphans. It is still bound,
        // since its quarantine exists.
        let count = unsafe { self.0.release() };

        quarantine.lock().reclaimed += count;

        #[cfg(CONFIG_RUST_DMA_DEBUG)]
        RECLAIMED.fetch_add(count, Relaxed);
    }
}

#[cfg(CONFIG_RUST_DMA_DEBUG)]
static QUARANTINED: Atomic<u64> = Atomic::new(0);

#[cfg(CONFIG_RUST_DMA_DEBUG)]
static RECLAIMED: Atomic<u64> = Atomic::new(0);

/// Returns how many buffers, blocks and rings were dropped while a device might access them, since
/// boot.
///
/// A test compares the number before and after. It is 0 in a system whose drivers are right. Only
/// with `CONFIG_RUST_DMA_DEBUG`. Context: any.
///
/// # Examples
///
/// ```
/// let before = kernel::dma::quarantined();
///
/// // ... what is tested ...
/// assert_eq!(kernel::dma::quarantined(), before);
/// ```
#[cfg(CONFIG_RUST_DMA_DEBUG)]
pub fn quarantined() -> u64 {
    QUARANTINED.load(Relaxed)
}

/// Returns how many of these were freed since, for tests.
#[cfg(all(CONFIG_RUST_DMA_DEBUG, CONFIG_RUST_DMAENGINE_KUNIT_TEST))]
pub(in crate::dma) fn reclaimed() -> u64 {
    RECLAIMED.load(Relaxed)
}

/// Writes the counters for a person to read.
#[cfg(CONFIG_RUST_DMA_DEBUG)]
pub(super) fn show(f: &mut fmt::Formatter<'_>) -> fmt::Result {
    writeln!(f, "quarantined {}", QUARANTINED.load(Relaxed))?;
    writeln!(f, "reclaimed {}", RECLAIMED.load(Relaxed))
}
