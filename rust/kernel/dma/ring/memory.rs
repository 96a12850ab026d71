// SPDX-License-Identifier: GPL-2.0

//! The memory of a ring, and what its halves share.

use super::{
    super::{
        mapping::{
            orphan::{
                put_away,
                Orphan, //
            },
            record::Record, //
        },
        Direction,
        DmaAddr,
        DmaAddress,
        Mapper,
        Running,
        Shared,
        SharedBox, //
    },
    segment::Held,
    Descriptor,
    Publish,
    RingMemory,
    RingRegisters,
    Segment,
    MAX_LEN,
    MIN_LEN, //
};
use crate::{
    prelude::*,
    sync::{
        atomic::{
            Acquire,
            Atomic,
            Relaxed,
            Release, //
        },
        barrier::{
            dma_mb,
            Read, //
        },
        Arc, //
    }, //
};
use core::{
    cell::UnsafeCell,
    marker::PhantomData,
    mem::{
        ManuallyDrop,
        MaybeUninit, //
    },
    ptr::NonNull, //
};

/// What the ring keeps for a descriptor, in memory that the device can't access.
pub(super) struct Slot<P> {
    /// A segment, which is mapped at `addr`.
    pub(super) segment: Option<P>,
    pub(super) addr: DmaAddress,
}

impl<P> Slot<P> {
    /// Takes the segment, if there is one, and unmaps it.
    ///
    /// # Safety
    ///
    /// - The segment must be mapped for `dma`, and the device be done with it.
    /// - The CPU must see the first `synced` bytes, and the segment must not have fewer.
    #[inline]
    pub(super) unsafe fn take<'a, D: Direction>(
        &mut self,
        dma: Mapper<'a>,
        synced: usize,
    ) -> Option<P>
    where
        P: Segment<'a, D>,
    {
        let mut segment = self.segment.take()?;

        // SAFETY: A segment in a slot is mapped at `addr`. By the safety requirements the device is
        // done with it, and it has at least `synced` bytes.
        unsafe { segment.unmap(dma, self.addr, synced) };
        Some(segment)
    }
}

/// Where descriptors and slots are: each half has a copy.
///
/// Positions in the ring are counters that run on and wrap; with the mask they become indexes.
///
/// # Invariants
///
/// There are `mask + 1` descriptors and slots, a power of two, and as many notes, unless there are
/// none.
pub(super) struct Layout<Q: RingRegisters, P> {
    descriptors: NonNull<Q::Descriptor>,
    slots: NonNull<Slot<P>>,
    /// A number for each slot, in rings that send. For a frame that is posted, its first slot has
    /// the number of its descriptors. While it is being described, and if there are own bits, each
    /// slot has the status word that is to be written. A ring that receives has none, since the
    /// device reports where frames end.
    notes: NonNull<u32>,
    mask: u32,
}

impl<Q: RingRegisters, P> Clone for Layout<Q, P> {
    #[inline]
    fn clone(&self) -> Self {
        *self
    }
}

impl<Q: RingRegisters, P> Copy for Layout<Q, P> {}

impl<Q: RingRegisters, P> Layout<Q, P> {
    /// Returns the number of descriptors that can be in use.
    #[inline]
    pub(super) fn usable(&self) -> u32 {
        self.mask
    }

    #[inline]
    pub(super) fn index(&self, counter: u32) -> u32 {
        counter & self.mask
    }

    /// Returns the first value of the counters.
    #[inline]
    pub(super) fn first(&self) -> u32 {
        first(self.mask + 1)
    }

    #[inline]
    fn descriptor(&self, counter: u32) -> NonNull<Q::Descriptor> {
        // CAST: Widening.
        // SAFETY: By the type invariants there are `mask + 1` of them, and the index is masked.
        unsafe { self.descriptors.add(self.index(counter) as usize) }
    }

    /// Returns where a slot is.
    #[inline]
    pub(super) fn place(&self, counter: u32) -> NonNull<Slot<P>> {
        // CAST: Widening.
        // SAFETY: By the type invariants there are `mask + 1` of them, and the index is masked.
        unsafe { self.slots.add(self.index(counter) as usize) }
    }

    /// # Safety
    ///
    /// - The slot must belong to the calling half, by the invariants of [`Memory`].
    /// - As long as the result is used, the slot must be accessed through it only, and the memory
    ///   must exist.
    #[inline]
    pub(super) unsafe fn slot<'s>(&self, counter: u32) -> &'s mut Slot<P> {
        // SAFETY: By the type invariants there is a slot. By the safety requirements nobody else
        // uses it.
        unsafe { self.place(counter).as_mut() }
    }

    /// # Safety
    ///
    /// As [`slot`](Self::slot). The ring must be one that sends.
    #[inline]
    pub(super) unsafe fn note<'s>(&self, counter: u32) -> &'s mut u32 {
        // CAST: Widening. SAFETY: A ring that sends has a note for each slot. By the safety
        // requirements nobody else uses this one.
        unsafe { self.notes.add(self.index(counter) as usize).as_mut() }
    }

    /// Returns the address of the status word of a descriptor.
    #[inline]
    fn status_word(&self, counter: u32) -> *mut u32 {
        // SAFETY: `Owned::new()` has asserted that the word is inside the descriptor.
        unsafe {
            self.descriptor(counter)
                .as_ptr()
                .cast::<u32>()
                .byte_add(Q::Descriptor::STATUS)
        }
    }

    /// Reads the status word of a descriptor.
    ///
    /// # Safety
    ///
    /// The memory must exist.
    #[inline]
    unsafe fn status(&self, counter: u32) -> u32 {
        // The device may write the word at any time, so the read is volatile.
        //
        // SAFETY: The word is in the memory of the ring, which exists by the safety requirement.
        u32::from_le(unsafe { self.status_word(counter).read_volatile() })
    }

    /// Returns whether the device is done with a descriptor that was posted.
    ///
    /// # Safety
    ///
    /// The memory must exist.
    #[inline]
    pub(super) unsafe fn is_done(&self, counter: u32) -> bool {
        // SAFETY: By the safety requirement the memory exists.
        let status = unsafe { self.status(counter) };

        // With an own bit set it isn't done, whatever else the device has written there.
        if status & Q::PUBLISH.own_bits() != 0 || !Q::Descriptor::is_done(status) {
            return false;
        }

        // Ordering 3: done before the rest.
        dma_mb(Read);
        true
    }

    /// Returns whether the own bits are clear in the `count` descriptors from `first` on, which
    /// come before one that is done. True without own bits.
    ///
    /// # Safety
    ///
    /// The memory must exist.
    #[inline]
    pub(super) unsafe fn are_back(&self, first: u32, count: u32) -> bool {
        let own_bits = Q::PUBLISH.own_bits();

        if own_bits == 0 {
            return true;
        }

        // The device has cleared them before it wrote the one that is done.
        (0..count).all(|i| {
            // SAFETY: By the safety requirement the memory exists.
            let status = unsafe { self.status(first.wrapping_add(i)) };

            status & own_bits == 0
        })
    }

    /// Writes the status word of a descriptor, for a device that looks at own bits.
    ///
    /// # Safety
    ///
    /// As [`slot`](Self::slot).
    #[inline]
    pub(super) unsafe fn set_status(&self, counter: u32, status: u32) {
        // SAFETY: The word is in the memory of the ring, and by the safety requirements its
        // descriptor belongs to this half.
        unsafe { self.status_word(counter).write_volatile(status.to_le()) };
    }

    /// Reads a descriptor, each word once.
    ///
    /// # Safety
    ///
    /// The memory must exist.
    #[inline]
    pub(super) unsafe fn read(&self, counter: u32) -> Q::Descriptor {
        let from = self.descriptor(counter).as_ptr().cast::<u64>();
        let mut copy = MaybeUninit::<Q::Descriptor>::uninit();

        for i in 0..size_of::<Q::Descriptor>() / size_of::<u64>() {
            // SAFETY: The words are inside of the descriptor: `Owned::new()` has asserted that its
            // size is a multiple of theirs. The memory of the ring is aligned; the copy may not be.
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

    /// Writes a descriptor, without its status word if `hold` is true. Returns that word.
    ///
    /// # Safety
    ///
    /// As [`slot`](Self::slot).
    #[inline]
    pub(super) unsafe fn write(&self, counter: u32, descriptor: Q::Descriptor, hold: bool) -> u32 {
        let from = (&raw const descriptor).cast::<u32>();
        let to = self.descriptor(counter).as_ptr().cast::<u32>();

        // SAFETY: The words are inside of the descriptors: `Owned::new()` has asserted that their
        // size is a multiple of that of the words. The memory of the ring is aligned; `descriptor`
        // may not be.
        unsafe {
            if hold {
                for i in (0..size_of::<Q::Descriptor>() / size_of::<u32>())
                    .filter(|i| *i != Q::Descriptor::STATUS / size_of::<u32>())
                {
                    to.add(i).write_volatile(from.add(i).read_unaligned());
                }
            } else {
                for i in 0..size_of::<Q::Descriptor>() / size_of::<u64>() {
                    to.cast::<u64>()
                        .add(i)
                        .write_volatile(from.cast::<u64>().add(i).read_unaligned());
                }
            }

            u32::from_le(from.byte_add(Q::Descriptor::STATUS).read_unaligned())
        }
    }
}

/// What a ring owns: descriptors, slots and segments. Freed when the device is done with them.
struct Owned<'a, T: Descriptor, P: Segment<'a, D>, D: Direction> {
    dma: Mapper<'a>,
    descriptors: Shared<'a, [u64]>,
    slots: KVVec<UnsafeCell<Slot<P>>>,
    notes: KVVec<UnsafeCell<u32>>,
    _descriptors: PhantomData<(T, fn(D))>,
}

impl<'a, T: Descriptor, P: Segment<'a, D>, D: Direction> Owned<'a, T, P, D> {
    fn new(dma: Mapper<'a>, len: u32) -> Result<Self> {
        const {
            assert!(
                size_of::<T>() % size_of::<u64>() == 0,
                "a descriptor has 64-bit words"
            );
            assert!(
                T::STATUS % size_of::<u32>() == 0,
                "the status word is aligned"
            );
            assert!(
                T::STATUS < size_of::<T>(),
                "the status word is in the descriptor"
            );
        }

        if !len.is_power_of_two() || !(MIN_LEN..=MAX_LEN).contains(&len) {
            return Err(EINVAL);
        }

        // CAST: Widening.
        let len = len as usize;
        let words = (size_of::<T>() / size_of::<u64>())
            .checked_mul(len)
            .ok_or(EOVERFLOW)?;
        let mut slots = KVVec::with_capacity(len, GFP_KERNEL)?;
        let mut notes = KVVec::new();

        if !D::DEVICE_WRITES {
            notes.reserve(len, GFP_KERNEL)?;
        }

        for _ in 0..len {
            let empty = Slot {
                segment: None,
                addr: 0,
            };

            slots.push(UnsafeCell::new(empty), GFP_KERNEL)?;

            if !D::DEVICE_WRITES {
                notes.push(UnsafeCell::new(0), GFP_KERNEL)?;
            }
        }

        Ok(Self {
            dma,
            descriptors: SharedBox::slice(dma, words, GFP_KERNEL)?.submit(),
            slots,
            notes,
            _descriptors: PhantomData,
        })
    }

    fn address(&self) -> DmaAddr<'_> {
        // SAFETY: The device can access the memory until it is freed, which `self` owns. `self` is
        // only dropped when the device is done with it.
        unsafe { DmaAddr::new(self.descriptors.raw_address(), self.descriptors.size()) }
    }
}

impl<'a, T: Descriptor, P: Segment<'a, D>, D: Direction> Drop for Owned<'a, T, P, D> {
    /// Only called when the device is done with the memory.
    fn drop(&mut self) {
        for slot in self.slots.iter_mut().map(UnsafeCell::get_mut) {
            // SAFETY: A segment in a slot is mapped, and the device is done with it: see above.
            drop(unsafe { slot.take::<D>(self.dma, 0) });
        }
    }
}

/// Returns the first value of the counters of a ring of `len` descriptors: index 0, one turn before
/// they wrap. So code that can't bear the wrap fails in each ring, and soon, as with C's
/// `INITIAL_JIFFIES`.
#[inline]
const fn first(len: u32) -> u32 {
    len.wrapping_neg()
}

/// A counter on a cache line of its own, so that one half doesn't slow down the other.
#[repr(align(64))]
struct Line(Atomic<u32>);

/// No epoch: the ring was not shown to the device.
const UNTOLD: u64 = u64::MAX;

/// The memory of a ring, shared by its halves.
///
/// # Invariants
///
/// - Slots, notes and descriptors in `head..tail` belong to the consumer, the others to the
///   producer. A half loads the counter of the other one with acquire semantics before it uses
///   them.
/// - The device may access the descriptors, and the segments in the slots, only if `told` is the
///   record's epoch.
pub(super) struct Memory<'a, Q: RingRegisters, P: Segment<'a, Q::Direction>> {
    head: Line,
    tail: Line,
    told: Atomic<u64>,
    record: &'a Record,
    owned: ManuallyDrop<Owned<'a, Q::Descriptor, P, Q::Direction>>,
}

// SAFETY: Everything in it is `Send`. By the type invariants the halves use different parts.
unsafe impl<'a, Q: RingRegisters, P: Segment<'a, Q::Direction>> Send for Memory<'a, Q, P> {}

// SAFETY: As above.
unsafe impl<'a, Q: RingRegisters, P: Segment<'a, Q::Direction>> Sync for Memory<'a, Q, P> {}

impl<'a, Q: RingRegisters, P: Segment<'a, Q::Direction>> Memory<'a, Q, P> {
    pub(super) fn new(dma: Mapper<'a>, len: u32) -> Result<Arc<Self>> {
        const {
            assert!(
                !matches!(Q::PUBLISH, Publish::OwnBit(0)),
                "an own bit is a bit"
            );
        }

        let owned = Owned::new(dma, len)?;

        // INVARIANT: All slots are the producer's; the device was shown nothing.
        Ok(Arc::new(
            Self {
                head: Line(Atomic::new(first(len))),
                tail: Line(Atomic::new(first(len))),
                told: Atomic::new(UNTOLD),
                record: dma.record(),
                owned: ManuallyDrop::new(owned),
            },
            GFP_KERNEL,
        )?)
    }

    pub(super) fn layout(&self) -> Layout<Q, P> {
        let slots = &self.owned.slots;

        // INVARIANT: `Owned::new()` has allocated as many slots as descriptors, and as many notes
        // or none.
        Layout {
            // SAFETY: Coherent memory isn't at null.
            descriptors: unsafe { NonNull::new_unchecked(self.owned.descriptors.as_ptr().cast()) },
            slots: NonNull::from(slots.as_slice()).cast(),
            notes: NonNull::from(self.owned.notes.as_slice()).cast(),
            // CAST: It was made from a `u32`.
            mask: slots.len() as u32 - 1,
        }
    }

    #[inline]
    pub(super) fn dma(&self) -> Mapper<'a> {
        self.owned.dma
    }

    /// Returns the counter of the first slot that the consumer hasn't given back.
    #[inline]
    pub(super) fn head(&self) -> u32 {
        self.head.0.load(Acquire)
    }

    #[inline]
    pub(super) fn set_head(&self, head: u32) {
        self.head.0.store(head, Release);
    }

    /// Returns the counter of the first slot that the producer hasn't handed over.
    #[inline]
    pub(super) fn tail(&self) -> u32 {
        self.tail.0.load(Acquire)
    }

    #[inline]
    pub(super) fn set_tail(&self, tail: u32) {
        self.tail.0.store(tail, Release);
    }

    /// Keeps the device from being stopped until the result is dropped, if it still runs in the
    /// epoch in which it was told of this ring.
    ///
    /// # Errors
    ///
    /// [`ESHUTDOWN`] if it was stopped, or not told.
    #[inline]
    pub(super) fn enter(&self) -> Result<Running<'a>> {
        // Relaxed: only the producer changes `told`, and it calls this. `UNTOLD` is no epoch.
        Running::enter_epoch(self.record, &self.told)
    }

    /// Returns whether the device was proven not to access the ring, or wasn't told of it.
    fn is_quiet(&self) -> bool {
        let told = self.told.load(Relaxed);

        told == UNTOLD || told != self.record.epoch()
    }

    /// Returns whether the device runs, so that it can be told of the ring.
    pub(super) fn is_open(&self) -> bool {
        !self.record.is_closed()
    }

    /// Returns whether no more completions are to be expected from the device, proven or not.
    #[inline]
    pub(super) fn is_over(&self) -> bool {
        self.is_quiet() || self.record.is_settled()
    }

    /// Empties the ring: all slots become the producer's, and the descriptors zero. The caller must
    /// reset the counters of both halves to [`Layout::first`]. Gives the segments to `give`, in
    /// order, if the ring sends, or if `all` is true.
    ///
    /// # Errors
    ///
    /// [`EBUSY`] if the device may still access the ring.
    ///
    /// # Safety
    ///
    /// The caller must have exclusive access to both halves.
    pub(super) unsafe fn reset(&self, mut give: impl FnMut(P), all: bool) -> Result {
        if !self.is_quiet() {
            return Err(EBUSY);
        }

        let head = self.head();
        let layout = self.layout();

        // INVARIANT: The device doesn't access it.
        self.told.store(UNTOLD, Relaxed);
        // INVARIANT: All is the producer's.
        self.set_head(layout.first());
        self.set_tail(layout.first());

        let descriptors = self.owned.descriptors.as_ptr();

        // SAFETY: The device doesn't access the descriptors, and by the safety requirement neither
        // half does.
        unsafe { (*descriptors).fill(0) };

        if all || !Q::Direction::DEVICE_WRITES {
            for i in 0..=layout.mask {
                // SAFETY: By the safety requirement neither half uses the slot.
                let slot = unsafe { layout.slot(head.wrapping_add(i)) };

                // SAFETY: A segment in a slot is mapped, and the device is done with it.
                if let Some(segment) = unsafe { slot.take::<Q::Direction>(self.dma(), 0) } {
                    give(segment);
                }
            }
        }

        Ok(())
    }

    /// Shows the ring to the device.
    ///
    /// # Errors
    ///
    /// [`ESHUTDOWN`] if the device is stopped, and what [`RingRegisters::start`] returned.
    pub(super) fn tell(&self, queue: &mut Q) -> Result {
        let running = Running::enter(self.record)?;

        // Noted before the device is told.
        self.told.store(self.record.epoch(), Relaxed);

        queue
            .start(RingMemory {
                memory: self.owned.address(),
                len: self.layout().mask + 1,
                running: &running,
            })
            .inspect_err(|_| self.told.store(UNTOLD, Relaxed))
    }
}

impl<'a, Q: RingRegisters, P: Segment<'a, Q::Direction>> Drop for Memory<'a, Q, P> {
    fn drop(&mut self) {
        // SAFETY: `self` is not used afterwards.
        let owned = unsafe { ManuallyDrop::take(&mut self.owned) };

        if self.is_quiet() {
            drop(owned);
            return;
        }

        put_away(
            owned.dma.device(),
            self.record,
            Some(self.told.load(Relaxed)),
            owned,
        );
    }
}

// SAFETY:
// 1. To release it is to drop it, which may be done in process context, by any thread. Halves are
//    dropped in process context, too.
// 2. What makes up segments is `'static`: `Buffer`, `Scatter`, `Readable`. Pools are lent by the
//    device.
unsafe impl<'a, T: Descriptor, P: Segment<'a, D>, D: Direction> Orphan for Owned<'a, T, P, D> {
    const ACCIDENT: bool = true;

    fn bytes(&self) -> usize {
        let segments: usize = self
            .slots
            .iter()
            // SAFETY: Both halves are gone, so nobody else uses the slot.
            .filter_map(|slot| unsafe { (*slot.get()).segment.as_ref() })
            .map(|segment| Held::<D>::len(segment))
            .sum();

        self.descriptors.size() + segments
    }

    unsafe fn release(self) {
        drop(self);
    }
}

// SAFETY: All contents are `Send`. The cells only let two halves share them, which use different
// ones.
unsafe impl<'a, T: Descriptor, P: Segment<'a, D>, D: Direction> Send for Owned<'a, T, P, D> {}
