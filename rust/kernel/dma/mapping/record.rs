// SPDX-License-Identifier: GPL-2.0

//! What is known of a bound device: its constraints, and whether it may access memory.

use super::{
    orphan::Keeper,
    scatter::Limits,
    shared::Later,
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
        Arc,
        SetOnce, //
    }, //
};
use core::ptr::NonNull;

/// The record of a bound device: its constraints, and whether it may access memory at present.
///
/// The bus adds it before `probe()`, when it applies the driver's [`Constraints`]. A driver adds
/// its resources later, so they are released before the record. Therefore whatever borrows the
/// bound device can use it.
///
/// Time is divided into *epochs*. A new one begins whenever the device is proven to access nothing
/// of what it was shown ([`prove`](Self::prove)). So memory that it was shown in an earlier epoch
/// may be freed. For instance, with a stop that is a proof, and a start that disarms:
///
/// ```text
///     epoch       1             2            3             4
///            +---------+-----------+-----+--------+------------+--- - -
///   running  |    0    |     2     |  0  |   0    |     4      |
///            +---------+-----------+-----+--------+------------+--- - -
///                  prove()      close() prove()  prove()
///                  open()                        open()
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
    /// What an entry of a list may be like.
    pub(super) limits: Limits,
    running: Atomic<u64>,
    epoch: Atomic<u64>,
    opened: Atomic<u64>,
    /// Whether the device is being stopped, and the outcome isn't known yet.
    settling: Atomic<bool>,
    keeper: SetOnce<NonNull<dyn Keeper>>,
    /// Coherent memory that is to be freed before the device loses its DMA.
    later: Arc<Later>,
}

// SAFETY: A `Keeper` can be used by any thread; the rest are atomics, and constants.
unsafe impl Send for Record {}

// SAFETY: As above.
unsafe impl Sync for Record {}

/// Tells the record from other resources of a device.
static RECORD: Kind = Kind::new();

/// The first epoch, in which the device is shown nothing.
const FIRST: u64 = 1;

impl Record {
    /// Makes a record of what is shown nothing yet: a device with these constraints, which were
    /// applied to it, or which its driver has.
    ///
    /// Context: may sleep.
    pub(in crate::dma) fn new(dev: &Device, constraints: Constraints) -> Result<Self> {
        // INVARIANT: The device was shown nothing.
        Ok(Self {
            constraints,
            plain_len: constraints.plain_len(),
            limits: Limits::new(dev, constraints.least_alignment()),
            running: Atomic::new(0),
            epoch: Atomic::new(FIRST),
            opened: Atomic::new(0),
            settling: Atomic::new(false),
            keeper: SetOnce::new(),
            later: Later::new()?,
        })
    }

    /// Adds the record to a device that is about to be probed.
    ///
    /// Context: may sleep.
    pub(super) fn add(dev: &Device<Bound>, constraints: Constraints) -> Result {
        let this = KBox::new(Self::new(dev, constraints)?, GFP_KERNEL)?;

        // SAFETY: The record borrows nothing.
        unsafe { RECORD.add(dev, this) }
    }

    /// Returns the record, if the device's driver has constraints.
    ///
    /// Context: any. Walks the resource list of the device.
    pub(in crate::dma) fn find(dev: &Device<Bound>) -> Option<&Self> {
        // SAFETY: `add()` has added a `KBox<Self>`, before the driver added anything. So it is
        // released after everything that borrows the bound device.
        unsafe { RECORD.find::<KBox<Self>>(dev) }
    }

    pub(in crate::dma) fn constraints(&self) -> &Constraints {
        &self.constraints
    }

    /// Returns the current epoch.
    #[inline]
    pub(in crate::dma) fn epoch(&self) -> u64 {
        // Acquire: who sees the new epoch sees everything that came before the proof.
        self.epoch.load(Acquire)
    }

    /// Returns the epoch if the device may be shown addresses, and otherwise 0.
    ///
    /// The answer holds to the end of an RCU read-side section that the caller entered before,
    /// since [`close`](Self::close) waits for such sections.
    #[inline]
    pub(in crate::dma) fn running(&self) -> u64 {
        self.running.load(Acquire)
    }

    /// Returns whether the device may still access memory that it was shown in this epoch.
    #[inline]
    pub(in crate::dma) fn may_access(&self) -> bool {
        self.opened.load(Acquire) == self.epoch()
    }

    /// Returns whether the device doesn't run, and isn't being stopped either: it is known whether
    /// there is a proof.
    pub(in crate::dma) fn is_settled(&self) -> bool {
        // In this order: `close()` sets `settling` before it clears `running`. So who sees that the
        // device doesn't run also sees that it is being stopped.
        self.running() == 0 && !self.settling.load(Acquire)
    }

    /// Returns whether the device must be shown nothing, since it wasn't started, or was stopped.
    pub(in crate::dma) fn is_closed(&self) -> bool {
        self.running() == 0
    }

    /// Forbids that the device is shown anything, and waits until nobody is showing it something.
    ///
    /// [`settle`](Self::settle), [`prove`](Self::prove) or [`open`](Self::open) must follow.
    /// Context: may sleep.
    pub(in crate::dma) fn close(&self) {
        self.settling.store(true, Release);
        self.running.store(0, Release);
        rcu::synchronize_rcu();
    }

    /// Records that a stop is over, and no proof came of it.
    pub(in crate::dma) fn settle(&self) {
        self.settling.store(false, Release);
    }

    /// Records a proof: a new epoch begins.
    ///
    /// # Safety
    ///
    /// The device must access nothing of what it was shown, and must be [closed](Self::close).
    pub(in crate::dma) unsafe fn prove(&self) {
        // INVARIANT: By the safety requirements the device accesses nothing.
        self.epoch
            .store(self.epoch.load(Relaxed).wrapping_add(1), Release);
        self.settling.store(false, Release);
    }

    /// Allows that the device is shown addresses, in the current epoch.
    ///
    /// # Safety
    ///
    /// The device must have been shown nothing since the last proof, and must hold no address that
    /// it was shown before.
    pub(in crate::dma) unsafe fn open(&self) {
        let epoch = self.epoch.load(Relaxed);

        self.opened.store(epoch, Release);
        self.settling.store(false, Release);
        // INVARIANT: `opened` is this epoch already.
        self.running.store(epoch, Release);
    }

    /// Sets the keeper of what is dropped in flight. Called once, before `probe()`.
    ///
    /// # Safety
    ///
    /// `keeper` must outlive all that borrows the bound device.
    pub(in crate::dma) unsafe fn set_keeper(&self, keeper: NonNull<dyn Keeper>) {
        self.keeper.populate(keeper);
    }

    /// Returns where coherent memory is put that can't be freed where it is dropped.
    pub(in crate::dma) fn later(&self) -> &Arc<Later> {
        &self.later
    }

    pub(in crate::dma) fn keeper(&self) -> Option<&dyn Keeper> {
        self.keeper.as_ref().map(|keeper| {
            // SAFETY: By the safety requirement of `set_keeper()` the keeper is valid as long as
            // `self` is borrowed.
            unsafe { keeper.as_ref() }
        })
    }
}

impl Drop for Record {
    fn drop(&mut self) {
        // Who borrowed the bound device is gone, so nothing is put there any more.
        self.later.end();
    }
}
