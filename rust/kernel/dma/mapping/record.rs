// SPDX-License-Identifier: GPL-2.0

//! What is known of a device that does DMA.

use super::{
    orphan::Keeper,
    Constraints, //
};
use crate::{
    device::{
        Bound,
        Device, //
    },
    devres::Kind,
    prelude::*,
    sync::{
        atomic::{
            Acquire,
            Atomic,
            Relaxed,
            Release, //
        },
        rcu,
        SetOnce, //
    }, //
};
use core::ptr::NonNull;

/// The record of a bound device: its constraints, and whether it may access memory just now.
///
/// The bus adds it before `probe()`, when it applies the driver's [`Constraints`]. It is older than
/// all resources that a driver adds, hence released after them: whatever borrows the bound device
/// can use it.
///
/// Time is divided into *epochs*. A new one begins whenever the device was proven to access nothing
/// of what it was shown: see [`prove`](Self::prove). What a device was shown in an earlier epoch
/// may be freed.
///
/// ```text
///      epoch      1          2                     3
///            +---------+-----------+--------+------------+--- - -
///   running  |    0    |     2     |   0    |     3      |
///            +---------+-----------+--------+------------+--- - -
///                    open()      close()  prove(), open()
/// ```
///
/// # Invariants
///
/// - `running` is the epoch while the device may be shown addresses, and else 0.
/// - `opened` is the last epoch in which it might be. While that isn't the current one, the device
///   accesses nothing of what it was ever shown.
pub(in crate::dma) struct Record {
    constraints: Constraints,
    /// Mappings of up to this many bytes meet all constraints, whatever their address.
    pub(super) plain_len: usize,
    running: Atomic<u64>,
    epoch: Atomic<u64>,
    opened: Atomic<u64>,
    /// Whether the device is being stopped, and nobody knows yet what comes of it.
    settling: Atomic<bool>,
    keeper: SetOnce<NonNull<dyn Keeper>>,
}

// SAFETY: A `Keeper` can be used by any thread; the rest are atomics, and constants.
unsafe impl Send for Record {}

// SAFETY: As above.
unsafe impl Sync for Record {}

/// How the record is found among the resources of a device.
static RECORD: Kind = Kind::new();

/// The first epoch. The device was shown nothing yet.
const FIRST: u64 = 1;

impl Record {
    /// Adds the record to a device that is about to be probed.
    ///
    /// Context: may sleep.
    pub(super) fn add(dev: &Device<Bound>, constraints: Constraints) -> Result {
        // INVARIANT: The device was shown nothing.
        let this = KBox::new(
            Self {
                constraints,
                plain_len: constraints.plain_len(),
                running: Atomic::new(0),
                epoch: Atomic::new(FIRST),
                opened: Atomic::new(0),
                settling: Atomic::new(false),
                keeper: SetOnce::new(),
            },
            GFP_KERNEL,
        )?;

        // SAFETY: It borrows nothing.
        unsafe { RECORD.add(dev, this) }
    }

    /// Returns the record, if the device's driver has constraints.
    ///
    /// Context: any. Walks the resource list of the device.
    pub(in crate::dma) fn find(dev: &Device<Bound>) -> Option<&Self> {
        // SAFETY: `add()` has added a `KBox<Self>`. It is older than all that a driver adds, hence
        // released after all that borrows the bound device.
        unsafe { RECORD.find::<KBox<Self>>(dev) }
    }

    pub(in crate::dma) fn constraints(&self) -> &Constraints {
        &self.constraints
    }

    /// Returns the current epoch.
    #[inline]
    pub(in crate::dma) fn epoch(&self) -> u64 {
        // Acquire: what the device did before the proof has happened.
        self.epoch.load(Acquire)
    }

    /// Returns the epoch if the device may be shown addresses, else 0.
    ///
    /// The answer holds as long as the caller keeps an RCU read-side section that it entered
    /// before: [`close`](Self::close) waits for that.
    #[inline]
    pub(in crate::dma) fn running(&self) -> u64 {
        self.running.load(Acquire)
    }

    /// Returns whether the device may still access something of what it was shown in this epoch.
    #[inline]
    pub(in crate::dma) fn may_access(&self) -> bool {
        self.opened.load(Acquire) == self.epoch()
    }

    /// Returns whether the device doesn't run, and it is known what came of stopping it.
    pub(in crate::dma) fn is_settled(&self) -> bool {
        // In this order: `close()` sets `settling` before it clears `running`, so who sees that the
        // device doesn't run sees that it is being stopped, too.
        self.running() == 0 && !self.settling.load(Acquire)
    }

    /// Returns whether the device may be shown nothing, since it was never started, or is stopped.
    pub(in crate::dma) fn is_closed(&self) -> bool {
        self.running() == 0
    }

    /// Lets the device be shown nothing more. Returns when nothing is being shown.
    ///
    /// [`settle`](Self::settle), [`prove`](Self::prove) or [`open`](Self::open) must follow.
    /// Context: may sleep.
    pub(in crate::dma) fn close(&self) {
        self.settling.store(true, Release);
        self.running.store(0, Release);
        rcu::synchronize_rcu();
    }

    /// Records that the device was not proven to have stopped.
    pub(in crate::dma) fn settle(&self) {
        self.settling.store(false, Release);
    }

    /// Records that the device accesses nothing of what it was shown: a new epoch begins.
    ///
    /// # Safety
    ///
    /// This must be so, and the device be closed.
    pub(in crate::dma) unsafe fn prove(&self) {
        // INVARIANT: By the safety requirements the device accesses nothing.
        self.epoch
            .store(self.epoch.load(Relaxed).wrapping_add(1), Release);
        self.settling.store(false, Release);
    }

    /// Lets the device be shown addresses.
    ///
    /// # Safety
    ///
    /// The device must have been [proven](Self::prove) to access nothing in this epoch, and hold no
    /// address that it was shown before.
    pub(in crate::dma) unsafe fn open(&self) {
        let epoch = self.epoch.load(Relaxed);

        self.opened.store(epoch, Release);
        self.settling.store(false, Release);
        // INVARIANT: `opened` says so, too.
        self.running.store(epoch, Release);
    }

    /// Says who keeps what is dropped in flight. Once, before `probe()`.
    ///
    /// # Safety
    ///
    /// `keeper` must outlive all that borrows the bound device.
    pub(in crate::dma) unsafe fn set_keeper(&self, keeper: NonNull<dyn Keeper>) {
        self.keeper.populate(keeper);
    }

    pub(in crate::dma) fn keeper(&self) -> Option<&dyn Keeper> {
        self.keeper.as_ref().map(|keeper| {
            // SAFETY: By the safety requirement of `set_keeper()` it is valid as long as `self` is
            // borrowed.
            unsafe { keeper.as_ref() }
        })
    }
}
