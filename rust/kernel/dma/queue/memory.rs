// SPDX-License-Identifier: GPL-2.0

//! The memory of a queue, and what the device was told of it.

use super::super::{
    mapping::record::Record,
    DmaAddr,
    DmaAddress,
    Mapper,
    Running,
    Shared,
    SharedBox, //
};
use crate::{
    prelude::*,
    sync::atomic::{
        Atomic,
        Relaxed, //
    }, //
};
use core::{
    marker::PhantomData,
    mem::MaybeUninit,
    ptr::NonNull, //
};

/// No epoch: the queue was not shown to the device.
pub(super) const UNTOLD: u64 = u64::MAX;

/// The epoch in which the device was told of a queue.
///
/// # Invariants
///
/// The device may access the queue, and what its entries name, only if `epoch` is the record's.
pub(super) struct Told<'a> {
    record: &'a Record,
    epoch: Atomic<u64>,
}

impl<'a> Told<'a> {
    pub(super) fn new(record: &'a Record) -> Self {
        // INVARIANT: The device was shown nothing.
        Self {
            record,
            epoch: Atomic::new(UNTOLD),
        }
    }

    pub(super) fn record(&self) -> &'a Record {
        self.record
    }

    #[inline]
    pub(super) fn epoch(&self) -> u64 {
        self.epoch.load(Relaxed)
    }

    /// Keeps the device from being stopped until the result is dropped, if it still runs in the
    /// epoch in which it was told of this queue.
    ///
    /// # Errors
    ///
    /// [`ESHUTDOWN`] if it was stopped, or not told.
    #[inline]
    pub(super) fn enter(&self) -> Result<Running<'a>> {
        // `UNTOLD` is no epoch in which a device runs.
        Running::enter_epoch(self.record, &self.epoch)
    }

    /// Returns whether the device was proven not to access the queue, or wasn't told of it.
    pub(super) fn is_quiet(&self) -> bool {
        let told = self.epoch();

        told == UNTOLD || told != self.record.epoch()
    }

    /// Returns whether no more completions are to be expected from the device, proven or not.
    #[inline]
    pub(super) fn is_over(&self) -> bool {
        self.is_quiet() || self.record.is_settled()
    }

    /// Checks that the device runs, so that it can be told of a queue.
    ///
    /// # Errors
    ///
    /// [`ESHUTDOWN`] if it doesn't.
    pub(super) fn check_open(&self) -> Result {
        if self.record.is_closed() {
            return Err(ESHUTDOWN);
        }

        Ok(())
    }

    /// Records that the device doesn't access the queue.
    ///
    /// # Errors
    ///
    /// [`EBUSY`] if it may.
    pub(super) fn reset(&self) -> Result {
        if !self.is_quiet() {
            return Err(EBUSY);
        }

        // INVARIANT: The device doesn't access the queue.
        self.epoch.store(UNTOLD, Relaxed);
        Ok(())
    }

    /// Shows a queue to the device by `start`. The queue must not be in use.
    ///
    /// # Errors
    ///
    /// [`ESHUTDOWN`] if the device is stopped, and what `start` returned.
    pub(super) fn tell(&self, start: impl FnOnce(&Running<'_>) -> Result) -> Result {
        let running = Running::enter(self.record)?;

        // INVARIANT: Noted before the device is told.
        self.epoch.store(self.record.epoch(), Relaxed);

        // INVARIANT: By the contracts of `Submission` and `CompletionQueue` the device was shown
        // nothing if `start` fails.
        start(&running).inspect_err(|_| self.epoch.store(UNTOLD, Relaxed))
    }
}

/// The entries of a queue: coherent memory.
pub(super) struct Entries<'a, T> {
    dma: Mapper<'a>,
    memory: Shared<'a, [u64]>,
    len: u32,
    _entries: PhantomData<fn() -> T>,
}

impl<'a, T: FromBytes + IntoBytes + Copy> Entries<'a, T> {
    /// Allocates `len` entries, a power of two.
    pub(super) fn new(dma: Mapper<'a>, len: u32) -> Result<Self> {
        const {
            assert!(
                size_of::<T>() > 0 && size_of::<T>() % size_of::<u64>() == 0,
                "an entry has 64-bit words"
            );
        }

        // CAST: Widening.
        let words = (size_of::<T>() / size_of::<u64>())
            .checked_mul(len as usize)
            .ok_or(EOVERFLOW)?;

        Ok(Self {
            dma,
            memory: SharedBox::slice(dma, words, GFP_KERNEL)?.submit(),
            len,
            _entries: PhantomData,
        })
    }

    #[inline]
    pub(super) fn dma(&self) -> Mapper<'a> {
        self.dma
    }

    pub(super) fn size(&self) -> usize {
        self.memory.size()
    }

    /// Returns the address of the entries, for the device that is told of them.
    pub(super) fn memory<'r>(&'r self, running: &'r Running<'r>) -> QueueMemory<'r> {
        QueueMemory {
            // SAFETY: The device can access the memory until it is freed, which `self` owns. A
            // queue that is dropped keeps it for as long as the device may access it.
            memory: unsafe { DmaAddr::new(self.memory.raw_address(), self.memory.size()) },
            len: self.len,
            running,
        }
    }

    /// Returns the address of the entries, for a command that tells the device of them.
    pub(super) fn place(&self, told: &Told<'a>) -> QueuePlace<'a, T> {
        QueuePlace {
            record: told.record(),
            epoch: told.epoch(),
            // SAFETY: As in `memory()`.
            address: unsafe { self.memory.raw_address() },
            len: self.len,
            _entries: PhantomData,
        }
    }

    pub(super) fn table(&self) -> Table<T> {
        // INVARIANT: There are `len` entries, a power of two.
        Table {
            // SAFETY: Memory isn't at null.
            base: unsafe { NonNull::new_unchecked(self.memory.as_ptr().cast()) },
            mask: self.len - 1,
        }
    }

    /// Fills all entries with a byte.
    ///
    /// # Safety
    ///
    /// Neither the device nor the CPU may access the entries meanwhile.
    pub(super) unsafe fn fill(&self, byte: u8) {
        let memory = self.memory.as_ptr();

        // SAFETY: By the safety requirements nobody else accesses the memory.
        unsafe { (*memory).fill(u64::from_ne_bytes([byte; 8])) };
    }
}

/// Where the entries of a queue are: each half has a copy.
///
/// Positions in a queue are counters that run on and wrap; with the mask they become indexes.
///
/// # Invariants
///
/// There are `mask + 1` entries, a power of two.
pub(super) struct Table<T> {
    base: NonNull<T>,
    mask: u32,
}

impl<T> Clone for Table<T> {
    #[inline]
    fn clone(&self) -> Self {
        *self
    }
}

impl<T> Copy for Table<T> {}

impl<T: FromBytes + IntoBytes + Copy> Table<T> {
    #[inline]
    pub(super) fn len(&self) -> u32 {
        self.mask + 1
    }

    #[inline]
    pub(super) fn index(&self, counter: u32) -> u32 {
        counter & self.mask
    }

    /// Returns the first value of the counters: index 0 of an even turn, two turns before they
    /// wrap. So code that can't bear the wrap fails in each queue, and soon.
    #[inline]
    pub(super) fn first(&self) -> u32 {
        (2 * self.len()).wrapping_neg()
    }

    /// Returns whether a counter is in an even turn: the first one, and each second one after it.
    #[inline]
    pub(super) fn is_even(&self, counter: u32) -> bool {
        counter & self.len() == 0
    }

    #[inline]
    pub(super) fn at(&self, counter: u32) -> NonNull<T> {
        // CAST: Widening.
        // SAFETY: By the type invariants there are `mask + 1` entries, and the index is masked.
        unsafe { self.base.add(self.index(counter) as usize) }
    }

    /// Reads a little-endian word of an entry, once.
    ///
    /// # Safety
    ///
    /// - The memory must exist.
    /// - `offset` must be that of an aligned word in a `T`.
    #[inline]
    pub(super) unsafe fn word(&self, counter: u32, offset: usize) -> u32 {
        let word = self.at(counter).as_ptr().cast::<u32>();

        // The device may write the word at any time, so the read is volatile.
        //
        // SAFETY: By the safety requirements the word is in memory that exists.
        u32::from_le(unsafe { word.byte_add(offset).read_volatile() })
    }

    /// Reads an entry, each word once.
    ///
    /// # Safety
    ///
    /// The memory must exist.
    #[inline]
    pub(super) unsafe fn read(&self, counter: u32) -> T {
        let from = self.at(counter).as_ptr().cast::<u64>();
        let mut copy = MaybeUninit::<T>::uninit();

        for i in 0..size_of::<T>() / size_of::<u64>() {
            // SAFETY: The words are inside of the entry: `Entries::new()` has asserted that its
            // size is a multiple of theirs. The memory of a queue is aligned; the copy may not be.
            unsafe {
                copy.as_mut_ptr()
                    .cast::<u64>()
                    .add(i)
                    .write_unaligned(from.add(i).read_volatile())
            };
        }

        // SAFETY: All bytes of the copy were written, and by `FromBytes` any bytes are valid.
        unsafe { copy.assume_init() }
    }

    /// Writes an entry.
    ///
    /// # Safety
    ///
    /// The memory must exist, and nobody else may use the entry.
    #[inline]
    pub(super) unsafe fn write(&self, counter: u32, entry: &T) {
        let from = (&raw const *entry).cast::<u64>();
        let to = self.at(counter).as_ptr().cast::<u64>();

        for i in 0..size_of::<T>() / size_of::<u64>() {
            // SAFETY: The words are inside of the entries, as above. The memory of a queue is
            // aligned; `entry` may not be.
            unsafe { to.add(i).write_volatile(from.add(i).read_unaligned()) };
        }
    }
}

/// Where the entries of a queue are, for [`Submission::start`](super::Submission::start) and
/// [`CompletionQueue::start`](super::CompletionQueue::start). Only a queue makes one.
#[non_exhaustive]
pub struct QueueMemory<'r> {
    /// The memory of the entries. Its bus address is a multiple of the smallest power of two of
    /// pages that has room for them.
    pub memory: DmaAddr<'r>,

    /// The number of entries.
    pub len: u32,

    /// The permission to show the address: [`DmaAddr::to_bits`] takes it.
    pub running: &'r Running<'r>,
}

/// Where the entries of a queue are, for a command of another queue that tells the device.
///
/// Some devices learn of a queue by a command, and not by registers: NVMe's admin queue creates
/// the others. There `start` of the queue does nothing. The driver then takes the place
/// ([`Completions::place`](super::Completions::place),
/// [`Submitter::place`](super::Submitter::place)) and submits it as a part of the command.
/// [`Call::place`] turns it into an address, and refuses if the device was stopped in between. `T`
/// is the layout of the entries, so that a completion queue isn't taken for a submission queue.
///
/// [`Call::place`]: super::Call::place
pub struct QueuePlace<'a, T> {
    record: &'a Record,
    epoch: u64,
    address: DmaAddress,
    len: u32,
    _entries: PhantomData<fn() -> T>,
}

impl<T> Clone for QueuePlace<'_, T> {
    #[inline]
    fn clone(&self) -> Self {
        *self
    }
}

impl<T> Copy for QueuePlace<'_, T> {}

impl<T> QueuePlace<'_, T> {
    /// Returns the number of entries.
    #[inline]
    #[expect(clippy::len_without_is_empty, reason = "a queue has entries")]
    pub fn len(&self) -> u32 {
        self.len
    }

    /// Returns the bus address, for an entry of a queue that the device was told of in `epoch`.
    ///
    /// # Errors
    ///
    /// - [`EINVAL`] if it is a queue of another device;
    /// - [`ESHUTDOWN`] if the queue wasn't started in that epoch.
    #[inline]
    pub(super) fn address(&self, dma: Mapper<'_>, epoch: u64) -> Result<u64> {
        if !core::ptr::eq(self.record, dma.record()) {
            return Err(EINVAL);
        }

        if self.epoch != epoch || epoch == UNTOLD {
            return Err(ESHUTDOWN);
        }

        #[allow(clippy::useless_conversion, reason = "bus addresses may have 32 bits")]
        Ok(u64::from(self.address))
    }
}
