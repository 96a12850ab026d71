// SPDX-License-Identifier: GPL-2.0

//! The memory of a ring, and what its halves share.

use super::{
    super::{
        mapping::{
            barrier::dma_rmb,
            orphan::{
                put_away,
                Orphan, //
            },
            record::Record, //
        },
        Coherent,
        Direction,
        DmaAddr,
        DmaAddress,
        Mapper,
        Running, //
    },
    segment::Held,
    Descriptor,
    Publish,
    Queue,
    RingMemory,
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

/// What is known of a descriptor, where the device can't reach it.
pub(super) struct Slot<P> {
    /// If there is one, it is mapped, at `addr`.
    pub(super) segment: Option<P>,
    pub(super) addr: DmaAddress,
}

impl<P> Slot<P> {
    /// Takes the segment, if there is one, and unmaps it.
    ///
    /// # Safety
    ///
    /// The device, which is that of `dma`, must be done with it. The CPU must see the first
    /// `synced` bytes, and the segment have no fewer.
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

        // SAFETY: A segment in a slot is mapped; the rest by the safety requirements.
        unsafe { segment.unmap(dma, self.addr, synced) };
        Some(segment)
    }
}

/// Where things are: what a half needs again and again.
///
/// Indexes are counters that wrap; the mask makes them indexes.
///
/// # Invariants
///
/// There are `mask + 1`, a power of two, descriptors and slots, and as many notes if there are any.
pub(super) struct Layout<Q: Queue, P> {
    descriptors: NonNull<Q::Descriptor>,
    slots: NonNull<Slot<P>>,
    /// Not for rings that receive, where the device says where frames end: for each frame that is
    /// posted, at its first slot, how many descriptors it has; before it is posted, if the device
    /// looks at own bits, at each slot the status word that is to be written.
    notes: NonNull<u32>,
    mask: u32,
}

impl<Q: Queue, P> Clone for Layout<Q, P> {
    #[inline]
    fn clone(&self) -> Self {
        *self
    }
}

impl<Q: Queue, P> Copy for Layout<Q, P> {}

impl<Q: Queue, P> Layout<Q, P> {
    /// Returns the number of descriptors that can be in use.
    #[inline]
    pub(super) fn usable(&self) -> u32 {
        self.mask
    }

    #[inline]
    pub(super) fn index(&self, counter: u32) -> u32 {
        counter & self.mask
    }

    /// Returns what the counters begin with.
    #[inline]
    pub(super) fn first(&self) -> u32 {
        first(self.mask + 1)
    }

    #[inline]
    fn descriptor(&self, counter: u32) -> NonNull<Q::Descriptor> {
        // CAST: Widening.
        // SAFETY: By the type invariants.
        unsafe { self.descriptors.add(self.index(counter) as usize) }
    }

    /// Returns where a slot is.
    #[inline]
    pub(super) fn place(&self, counter: u32) -> NonNull<Slot<P>> {
        // CAST: Widening.
        // SAFETY: By the type invariants.
        unsafe { self.slots.add(self.index(counter) as usize) }
    }

    /// # Safety
    ///
    /// The caller must be who may use that slot, and use it by this reference only; and the memory
    /// must be there, as long as it does.
    #[inline]
    pub(super) unsafe fn slot<'s>(&self, counter: u32) -> &'s mut Slot<P> {
        // SAFETY: By the type invariants and the safety requirements.
        unsafe { self.place(counter).as_mut() }
    }

    /// # Safety
    ///
    /// As [`slot`](Self::slot), in a ring whose device only reads.
    #[inline]
    pub(super) unsafe fn note<'s>(&self, counter: u32) -> &'s mut u32 {
        // CAST: Widening.
        // SAFETY: By the type invariants and the safety requirements.
        unsafe { self.notes.add(self.index(counter) as usize).as_mut() }
    }

    /// Returns where the status word of a descriptor is.
    #[inline]
    fn status_word(&self, counter: u32) -> *mut u32 {
        // SAFETY: The word is inside the descriptor: see `Owned::new()`.
        unsafe {
            self.descriptor(counter)
                .as_ptr()
                .cast::<u32>()
                .byte_add(Q::Descriptor::STATUS)
        }
    }

    /// # Safety
    ///
    /// The memory must be there.
    #[inline]
    unsafe fn status(&self, counter: u32) -> u32 {
        // SAFETY: In the memory of the ring. The device may write it at any time, hence volatile.
        u32::from_le(unsafe { self.status_word(counter).read_volatile() })
    }

    /// Returns whether the device is done with a descriptor that was posted.
    ///
    /// # Safety
    ///
    /// The memory must be there.
    #[inline]
    pub(super) unsafe fn is_done(&self, counter: u32) -> bool {
        // SAFETY: By the safety requirements.
        let status = unsafe { self.status(counter) };

        // One that is the device's own isn't done, whatever else the device has written there.
        if status & Q::PUBLISH.own_bits() != 0 || !Q::Descriptor::is_done(status) {
            return false;
        }

        // Ordering 3: done before the rest.
        dma_rmb();
        true
    }

    /// Returns whether the device has given back the `count` descriptors from `first` on, which
    /// come before one that is done. Without own bits it has.
    ///
    /// # Safety
    ///
    /// The memory must be there.
    #[inline]
    pub(super) unsafe fn are_back(&self, first: u32, count: u32) -> bool {
        let own_bits = Q::PUBLISH.own_bits();

        if own_bits == 0 {
            return true;
        }

        // The device has written them before the one that is done.
        (0..count).all(|i| {
            // SAFETY: By the safety requirements.
            let status = unsafe { self.status(first.wrapping_add(i)) };

            status & own_bits == 0
        })
    }

    /// Gives a descriptor to a device that looks at own bits.
    ///
    /// # Safety
    ///
    /// As [`slot`](Self::slot).
    #[inline]
    pub(super) unsafe fn set_status(&self, counter: u32, status: u32) {
        // SAFETY: In the memory of the ring.
        unsafe { self.status_word(counter).write_volatile(status.to_le()) };
    }

    /// Reads what the device wrote, each word once.
    ///
    /// # Safety
    ///
    /// The memory must be there.
    #[inline]
    pub(super) unsafe fn read(&self, counter: u32) -> Q::Descriptor {
        let from = self.descriptor(counter).as_ptr().cast::<u64>();
        let mut copy = MaybeUninit::<Q::Descriptor>::uninit();

        for i in 0..size_of::<Q::Descriptor>() / size_of::<u64>() {
            // SAFETY: Inside of the descriptor, whose size suits: see `Owned::new()`. The memory of
            // the ring is aligned; the copy may not be.
            unsafe {
                copy.as_mut_ptr()
                    .cast::<u64>()
                    .add(i)
                    .write_unaligned(from.add(i).read_volatile())
            };
        }

        // SAFETY: All of it was written, and any bytes are a descriptor.
        unsafe { copy.assume_init() }
    }

    /// Writes a descriptor, but for its status word, if `hold` says so; returns that word.
    ///
    /// # Safety
    ///
    /// As [`slot`](Self::slot).
    #[inline]
    pub(super) unsafe fn write(&self, counter: u32, descriptor: Q::Descriptor, hold: bool) -> u32 {
        let from = (&raw const descriptor).cast::<u32>();
        let to = self.descriptor(counter).as_ptr().cast::<u32>();

        // SAFETY: Inside of the descriptors, whose size suits: see `Owned::new()`. The memory of
        // the ring is aligned; what we copy may not be.
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

/// What belongs to a ring, and is freed when the device is done with it.
struct Owned<'a, T: Descriptor, P: Segment<'a, D>, D: Direction> {
    dma: Mapper<'a>,
    descriptors: Coherent<[u64]>,
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

        let descriptors = Coherent::zeroed_slice(dma.device(), words, GFP_KERNEL)?;

        dma.record()
            .constraints()
            .admit_table(descriptors.dma_address(), descriptors.size())?;

        Ok(Self {
            dma,
            descriptors,
            slots,
            notes,
            _descriptors: PhantomData,
        })
    }

    fn address(&self) -> DmaAddr<'_> {
        // SAFETY: Coherent memory can be accessed by the device until it is freed.
        unsafe { DmaAddr::new(self.descriptors.dma_address(), self.descriptors.size()) }
    }
}

impl<'a, T: Descriptor, P: Segment<'a, D>, D: Direction> Drop for Owned<'a, T, P, D> {
    /// Not called before the device is done with the memory.
    fn drop(&mut self) {
        for slot in self.slots.iter_mut().map(UnsafeCell::get_mut) {
            // SAFETY: See above.
            drop(unsafe { slot.take::<D>(self.dma, 0) });
        }
    }
}

/// Returns what the counters of a ring of `len` descriptors begin with: the index 0, one turn
/// before they wrap. So what can't bear that they wrap fails in each ring, and soon, as with C's
/// `INITIAL_JIFFIES`.
#[inline]
const fn first(len: u32) -> u32 {
    len.wrapping_neg()
}

/// A counter on a cache line of its own, so that one half isn't slowed down by what the other does.
#[repr(align(64))]
struct Line(Atomic<u32>);

/// The ring was not shown to the device.
const UNTOLD: u64 = u64::MAX;

/// The memory of a ring, shared by its halves.
///
/// # Invariants
///
/// - Slots, notes and descriptors in `head..tail` belong to the consumer, others to the producer. A
///   half that finds that it got one has loaded the counter with acquire semantics.
/// - Unless `told` is [`UNTOLD`], or another number than the record's epoch, the device may access
///   the descriptors, and what is in the slots.
pub(super) struct Memory<'a, Q: Queue, P: Segment<'a, Q::Direction>> {
    head: Line,
    tail: Line,
    told: Atomic<u64>,
    record: &'a Record,
    owned: ManuallyDrop<Owned<'a, Q::Descriptor, P, Q::Direction>>,
}

// SAFETY: Of what it owns, which is `Send`, the halves use different parts, as the invariants say.
unsafe impl<'a, Q: Queue, P: Segment<'a, Q::Direction>> Send for Memory<'a, Q, P> {}

// SAFETY: As above.
unsafe impl<'a, Q: Queue, P: Segment<'a, Q::Direction>> Sync for Memory<'a, Q, P> {}

impl<'a, Q: Queue, P: Segment<'a, Q::Direction>> Memory<'a, Q, P> {
    pub(super) fn new(dma: Mapper<'a>, len: u32) -> Result<Arc<Self>> {
        const {
            assert!(
                !matches!(Q::PUBLISH, Publish::OwnBit(0)),
                "an own bit is a bit"
            );
        }

        let owned = Owned::new(dma, len)?;

        // INVARIANT: All is the producer's; the device knows nothing of it.
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

        // INVARIANT: As they were allocated; the number of slots is one of descriptors.
        Layout {
            // SAFETY: Coherent memory isn't at null.
            descriptors: unsafe {
                NonNull::new_unchecked(self.owned.descriptors.as_mut_ptr().cast())
            },
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

    /// What is before that counter belongs to the producer.
    #[inline]
    pub(super) fn head(&self) -> u32 {
        self.head.0.load(Acquire)
    }

    #[inline]
    pub(super) fn set_head(&self, head: u32) {
        self.head.0.store(head, Release);
    }

    /// What is before that counter belongs to the consumer.
    #[inline]
    pub(super) fn tail(&self) -> u32 {
        self.tail.0.load(Acquire)
    }

    #[inline]
    pub(super) fn set_tail(&self, tail: u32) {
        self.tail.0.store(tail, Release);
    }

    /// Keeps the device from being stopped for a moment, if it still knows this ring.
    ///
    /// # Errors
    ///
    /// [`ESHUTDOWN`] if it was stopped.
    #[inline]
    pub(super) fn enter(&self) -> Result<Running<'a>> {
        // Only the producer changes it, and calls this. `UNTOLD` is no epoch.
        Running::enter_epoch(self.record, self.told.load(Relaxed))
    }

    /// Returns whether the device can't access the ring.
    fn is_quiet(&self) -> bool {
        let told = self.told.load(Relaxed);

        told == UNTOLD || told != self.record.epoch()
    }

    /// Returns whether the device can be told of the ring.
    pub(super) fn is_open(&self) -> bool {
        !self.record.is_closed()
    }

    /// Returns whether the device does nothing more with the ring, proven or not.
    #[inline]
    pub(super) fn is_over(&self) -> bool {
        self.is_quiet() || self.record.is_settled()
    }

    /// Begins anew: all slots are the producer's, the descriptors are zero. The producer's and the
    /// consumer's counters must begin anew, too ([`Layout::first`]). Gives what is in the slots to
    /// `give`, in order, if the device only reads, or `all` says so.
    ///
    /// # Errors
    ///
    /// [`EBUSY`] if the device may still access the ring.
    ///
    /// # Safety
    ///
    /// Both halves must be the caller's.
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

        let descriptors = self.owned.descriptors.as_mut_ptr();

        // SAFETY: Nobody accesses them.
        unsafe { (*descriptors).fill(0) };

        if all || !Q::Direction::DEVICE_WRITES {
            for i in 0..=layout.mask {
                // SAFETY: By the safety requirements.
                let slot = unsafe { layout.slot(head.wrapping_add(i)) };

                // SAFETY: The device is done with it.
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
    /// [`ESHUTDOWN`] if the device is stopped, and what [`Queue::start`] says.
    pub(super) fn tell(&self, queue: &mut Q) -> Result {
        let running = Running::enter(self.record)?;

        // Before the device knows it.
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

impl<'a, Q: Queue, P: Segment<'a, Q::Direction>> Drop for Memory<'a, Q, P> {
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

// SAFETY: Freeing is what dropping it would do, in process context.
unsafe impl<'a, T: Descriptor, P: Segment<'a, D>, D: Direction> Orphan for Owned<'a, T, P, D> {
    const ACCIDENT: bool = true;

    fn bytes(&self) -> usize {
        let segments: usize = self
            .slots
            .iter()
            // SAFETY: Both halves are gone.
            .filter_map(|slot| unsafe { (*slot.get()).segment.as_ref() })
            .map(|segment| Held::<D>::len(segment))
            .sum();

        self.descriptors.size() + segments
    }

    unsafe fn release(self) {
        drop(self);
    }
}

// SAFETY: The cells are only a way to share it between two halves that use different ones.
unsafe impl<'a, T: Descriptor, P: Segment<'a, D>, D: Direction> Send for Owned<'a, T, P, D> {}
