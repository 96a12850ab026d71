// SPDX-License-Identifier: GPL-2.0

//! What the two halves of a submission queue share: its entries, and the commands in flight.

use super::{
    super::{
        mapping::{
            mapper::is_same,
            orphan::{
                put_away,
                Orphan, //
            },
        },
        Mapper,
        Pool,
        PoolBox, //
    },
    completion::Port,
    memory::{
        Entries,
        Table,
        Told, //
    },
    Completer,
    Payload,
    Submission,
    Submitter,
    MAX_TAGS, //
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
    mem::{
        ManuallyDrop,
        MaybeUninit, //
    },
    ptr::NonNull, //
};

/// The bits of tags: at most 31, so that this is none.
pub(super) const IDLE: u32 = u32::MAX;

/// What the queue keeps of a command, in memory that the device can't access.
pub(super) struct Contents<'a, P, S> {
    /// What is in flight, if the slot has a command in flight.
    pub(super) payload: MaybeUninit<P>,
    /// A block for a list of segments. It stays with the slot: the next command of the slot that
    /// needs one takes the same. The device may read it while the command is in flight.
    pub(super) scratch: Option<PoolBox<'a, S>>,
    /// The tag of the next command of this slot.
    pub(super) tag: u32,
    /// Where the entry of the command in flight is: a counter, as the submitter's tail.
    pub(super) entry: u32,
}

/// A place for a command.
///
/// # Invariants
///
/// There is a payload if `in_flight` is a tag.
pub(super) struct Slot<'a, P, S> {
    /// The tag of the command in flight, or [`IDLE`].
    pub(super) in_flight: Atomic<u32>,
    contents: UnsafeCell<Contents<'a, P, S>>,
}

impl<'a, P, S> Slot<'a, P, S> {
    /// Returns what is in the slot.
    ///
    /// # Safety
    ///
    /// - The slot must belong to the calling half, by the invariants of [`Memory`].
    /// - As long as the result is used, the slot must be accessed through it only.
    #[inline]
    #[expect(clippy::mut_from_ref, reason = "the halves use different slots")]
    pub(super) unsafe fn contents(&self) -> &mut Contents<'a, P, S> {
        // SAFETY: By the safety requirements nobody else uses the contents.
        unsafe { &mut *self.contents.get() }
    }
}

/// Where slots and free tags are: each half has a copy.
///
/// # Invariants
///
/// There are `mask + 1` slots and places for free slots, a power of two.
pub(super) struct Layout<'a, P, S> {
    slots: NonNull<Slot<'a, P, S>>,
    free: NonNull<u16>,
    mask: u32,
}

impl<P, S> Clone for Layout<'_, P, S> {
    #[inline]
    fn clone(&self) -> Self {
        *self
    }
}

impl<P, S> Copy for Layout<'_, P, S> {}

impl<'a, P, S> Layout<'a, P, S> {
    /// Returns which slot a tag is about.
    #[inline]
    pub(super) fn index(&self, tag: u32) -> u32 {
        tag & self.mask
    }

    /// Returns the slot that a tag is about.
    ///
    /// # Safety
    ///
    /// The memory must exist as long as the result is used.
    #[inline]
    pub(super) unsafe fn slot<'s>(&self, tag: u32) -> &'s Slot<'a, P, S> {
        // CAST: Widening.
        // SAFETY: By the type invariants there are `mask + 1` slots, and the index is masked. They
        // exist by the safety requirement.
        unsafe { self.slots.add(self.index(tag) as usize).as_ref() }
    }

    /// Returns the place in the list of free slots that a counter stands for.
    ///
    /// # Safety
    ///
    /// The place must belong to the calling half, by the invariants of [`Memory`], and the memory
    /// must exist.
    #[inline]
    pub(super) unsafe fn free<'s>(&self, counter: u32) -> &'s mut u16 {
        // CAST: Widening.
        // SAFETY: By the type invariants there are `mask + 1` places, and the index is masked.
        // Nobody else uses it, by the safety requirements.
        unsafe { self.free.add((counter & self.mask) as usize).as_mut() }
    }

    /// Returns which slot is in the place of the list that a counter stands for, when that place
    /// is the submitter's.
    ///
    /// # Safety
    ///
    /// Nobody may write to the place meanwhile, and the memory must exist.
    #[inline]
    pub(super) unsafe fn listed(&self, counter: u32) -> u16 {
        // CAST: Widening.
        // SAFETY: By the type invariants there are `mask + 1` places, and the index is masked.
        // Nobody writes to it, by the safety requirements.
        unsafe { self.free.add((counter & self.mask) as usize).read() }
    }

    /// Returns the tag that follows on another one in the same slot: the next generation.
    #[inline]
    pub(super) fn next_tag(&self, tag: u32, bits: u32) -> u32 {
        (tag + self.mask + 1) & tag_mask(bits)
    }
}

/// Returns the mask of a tag of that many bits.
#[inline]
const fn tag_mask(bits: u32) -> u32 {
    (1 << bits) - 1
}

/// What the queue owns: entries, slots and what is in flight. Freed when the device is done with
/// them.
struct Owned<'a, T, P: Payload<'a>, S> {
    entries: Entries<'a, T>,
    slots: KVVec<Slot<'a, P, S>>,
    free: KVVec<UnsafeCell<u16>>,
}

impl<'a, T: FromBytes + IntoBytes + Copy, P: Payload<'a>, S> Owned<'a, T, P, S> {
    /// Makes a queue for `tags` commands in flight, whose tags have `bits` bits.
    fn new(dma: Mapper<'a>, tags: u32, bits: u32) -> Result<Self> {
        // More than there are tags: so an entry that isn't free yet is never needed.
        let len = (tags + 1).next_power_of_two();
        let count = tags.next_power_of_two();

        if count > tag_mask(bits) + 1 {
            return Err(EINVAL);
        }

        // CAST: Widening.
        let mut slots = KVVec::with_capacity(count as usize, GFP_KERNEL)?;
        let mut free = KVVec::with_capacity(count as usize, GFP_KERNEL)?;

        for index in 0..count {
            let contents = Contents {
                payload: MaybeUninit::uninit(),
                scratch: None,
                // The last generation: the next one begins anew. So code that can't bear that fails
                // soon.
                tag: (tag_mask(bits) & !(count - 1)) | index,
                entry: 0,
            };
            let slot = Slot {
                in_flight: Atomic::new(IDLE),
                contents: UnsafeCell::new(contents),
            };

            slots.push(slot, GFP_KERNEL)?;
            // CAST: Not more than `MAX_TAGS`.
            free.push(UnsafeCell::new(index as u16), GFP_KERNEL)?;
        }

        Ok(Self {
            entries: Entries::new(dma, len)?,
            slots,
            free,
        })
    }
}

impl<'a, T, P: Payload<'a>, S> Drop for Owned<'a, T, P, S> {
    /// Only called when the device is done with the memory.
    fn drop(&mut self) {
        for slot in &mut self.slots {
            if slot.in_flight.load(Relaxed) == IDLE {
                continue;
            }

            // SAFETY: By the type invariants there is one; it is used once.
            let payload = unsafe { slot.contents.get_mut().payload.assume_init_read() };

            // SAFETY: The device is done with it: see above. No bytes are of interest.
            drop(unsafe { payload.complete(0) });
        }
    }
}

/// A counter on a cache line of its own, so that one half doesn't slow down the other.
#[repr(align(64))]
struct Line(Atomic<u32>);

/// The memory of a submission queue, shared by its halves.
///
/// # Invariants
///
/// - The contents of a slot belong to the completer if `in_flight` is a tag, and until it has put
///   the slot into the list of free slots. Otherwise they belong to the submitter.
/// - Places in the list of free slots belong to the submitter before `freed`, and otherwise to the
///   completer.
/// - The device may access the entries and what they name only if `told` is the record's epoch.
pub(super) struct Memory<'a, Q: Submission, P: Payload<'a>> {
    /// How many slots the completer has put into the list.
    freed: Line,
    /// The first entry that the device wasn't told of.
    kicked: Line,
    pub(super) told: Told<'a>,
    tags: u32,
    owned: ManuallyDrop<Owned<'a, Q::Entry, P, Q::Scratch>>,
}

// SAFETY: Everything in it is `Send`. By the type invariants the halves use different parts.
unsafe impl<'a, Q: Submission, P: Payload<'a>> Send for Memory<'a, Q, P> {}

// SAFETY: As above.
unsafe impl<'a, Q: Submission, P: Payload<'a>> Sync for Memory<'a, Q, P> {}

impl<'a, Q: Submission, P: Payload<'a>> Memory<'a, Q, P> {
    fn new(dma: Mapper<'a>, tags: u32) -> Result<Arc<Self>> {
        const {
            assert!(
                Q::TAG_BITS > 0 && Q::TAG_BITS < 32,
                "a tag has 1 to 31 bits"
            );
        }

        let owned = Owned::new(dma, tags, Q::TAG_BITS)?;
        let table: Table<Q::Entry> = owned.entries.table();

        // INVARIANT: No command is in flight, and the list has all slots up to `tags`. The device
        // was shown nothing.
        Ok(Arc::new(
            Self {
                freed: Line(Atomic::new(first_free(tags).wrapping_add(tags))),
                kicked: Line(Atomic::new(table.first())),
                told: Told::new(dma.record()),
                tags,
                owned: ManuallyDrop::new(owned),
            },
            GFP_KERNEL,
        )?)
    }

    #[inline]
    pub(super) fn dma(&self) -> Mapper<'a> {
        self.owned.entries.dma()
    }

    pub(super) fn tags(&self) -> u32 {
        self.tags
    }

    pub(super) fn table(&self) -> Table<Q::Entry> {
        self.owned.entries.table()
    }

    pub(super) fn entries(&self) -> &Entries<'a, Q::Entry> {
        &self.owned.entries
    }

    pub(super) fn layout(&self) -> Layout<'a, P, Q::Scratch> {
        let slots = &self.owned.slots;

        // INVARIANT: `Owned::new()` has allocated as many slots as places, a power of two.
        Layout {
            slots: NonNull::from(slots.as_slice()).cast(),
            free: NonNull::from(self.owned.free.as_slice()).cast(),
            // CAST: It was made from a `u32`.
            mask: slots.len() as u32 - 1,
        }
    }

    /// Returns the counter of the first place in the list of free slots.
    pub(super) fn first_free(&self) -> u32 {
        first_free(self.tags)
    }

    /// Returns the counter after the last free slot.
    #[inline]
    pub(super) fn freed(&self) -> u32 {
        // Ordering 5: slot before freed.
        self.freed.0.load(Acquire)
    }

    #[inline]
    pub(super) fn set_freed(&self, freed: u32) {
        // Ordering 5: slot before freed.
        self.freed.0.store(freed, Release);
    }

    /// Returns whether the device was told of an entry.
    ///
    /// While it wasn't, it hasn't fetched it, so it can't be done with what the entry names.
    #[inline]
    pub(super) fn is_kicked(&self, entry: u32) -> bool {
        // Ordering 2: stored before the doorbell, as the tag is. There are far fewer entries than
        // half of all counters.
        // CAST: The distance, which has a sign.
        (entry.wrapping_sub(self.kicked.0.load(Acquire)) as i32) < 0
    }

    /// Notes that the device is about to be told of all entries before this one.
    #[inline]
    pub(super) fn set_kicked(&self, tail: u32) {
        self.kicked.0.store(tail, Release);
    }

    /// Empties the queue: all slots are free then. The caller must reset the counters of both
    /// halves. Gives what was in flight to `give`.
    ///
    /// # Errors
    ///
    /// [`EBUSY`] if the device may still access the queue.
    ///
    /// # Safety
    ///
    /// The caller must have exclusive access to both halves.
    pub(super) unsafe fn reset(&self, mut give: impl FnMut(u32, P::Back)) -> Result {
        self.told.reset()?;

        // SAFETY: The device doesn't access the entries, and by the safety requirement neither half
        // does.
        unsafe { self.owned.entries.fill(0) };

        let layout = self.layout();
        let first = self.first_free();

        self.set_kicked(self.table().first());

        for index in 0..self.tags {
            // SAFETY: The memory exists. By the safety requirement neither half uses the place.
            // CAST: Not more than `MAX_TAGS`.
            unsafe { *layout.free(first.wrapping_add(index)) = index as u16 };
        }

        // INVARIANT: All slots are in the list. What is in them is taken out below: nobody uses
        // them before.
        self.set_freed(first.wrapping_add(self.tags));

        for index in 0..self.tags {
            // SAFETY: The memory exists.
            let slot = unsafe { layout.slot(index) };
            let tag = slot.in_flight.load(Relaxed);

            // SAFETY: By the safety requirement neither half uses the slot.
            let contents = unsafe { slot.contents() };

            if tag == IDLE {
                continue;
            }

            // SAFETY: By the type invariants there is one; the slot is idle from here on.
            let payload = unsafe { contents.payload.assume_init_read() };

            slot.in_flight.store(IDLE, Relaxed);
            contents.tag = layout.next_tag(tag, Q::TAG_BITS);
            // SAFETY: The device doesn't access what it was shown, as was just checked. No bytes
            // are of interest.
            give(tag, unsafe { payload.complete(0) });
        }

        Ok(())
    }
}

/// Returns the first counter of the list of free slots: they wrap soon.
#[inline]
fn first_free(tags: u32) -> u32 {
    tags.next_power_of_two().wrapping_neg()
}

impl<'a, Q: Submission, P: Payload<'a>> Drop for Memory<'a, Q, P> {
    fn drop(&mut self) {
        // SAFETY: `self` is not used afterwards.
        let owned = unsafe { ManuallyDrop::take(&mut self.owned) };

        if self.told.is_quiet() {
            drop(owned);
            return;
        }

        put_away(
            owned.entries.dma().device(),
            self.told.record(),
            Some(self.told.epoch()),
            owned,
        );
    }
}

// SAFETY: All contents are `Send`. The cells only let two halves share them, which use different
// ones.
unsafe impl<'a, T, P: Payload<'a>, S: Send> Send for Owned<'a, T, P, S> {}

// SAFETY:
// 1. To release it is to drop it, which may be done in process context, by any thread. Halves are
//    dropped in process context, too.
// 2. What makes up payloads is `'static`: `Buffer`, `Scatter`, `Private`, blocks. Pools are lent by
//    the device.
unsafe impl<'a, T, P, S> Orphan for Owned<'a, T, P, S>
where
    T: FromBytes + IntoBytes + Copy,
    P: Payload<'a>,
    S: Send,
{
    const ACCIDENT: bool = true;

    fn bytes(&self) -> usize {
        let payloads: usize = self
            .slots
            .iter()
            .filter(|slot| slot.in_flight.load(Relaxed) != IDLE)
            // SAFETY: Both halves are gone, so nobody else uses the slot. By the type invariants it
            // has a payload.
            .map(|slot| unsafe { slot.contents().payload.assume_init_ref() }.len())
            .sum();

        self.entries.size() + payloads
    }

    unsafe fn release(self) {
        drop(self);
    }
}

/// A submission queue and what is in flight: its two halves.
///
/// Use it as it is in one context, for instance in a lock, or move each half to a context of its
/// own: the [`Submitter`] to where commands are submitted, and the [`Completer`] to where the
/// [completion queue](super::Completions) is reaped. Keep the halves in the device's
/// [`Session`](super::super::Session), whose contents are freed after a stop only.
///
/// Dropping both halves frees the queue and what is in flight, or quarantines them if the device
/// may access them. Context of dropping a half: process context.
///
/// # Examples
///
/// See the [module documentation](super).
pub struct Commands<'a, Q: Submission, P: Payload<'a>> {
    /// The half that submits commands.
    pub submitter: Submitter<'a, Q, P>,

    /// The half that completes them.
    pub completer: Completer<'a, Q, P>,
}

impl<'a, Q: Submission, P: Payload<'a>> Commands<'a, Q, P> {
    /// Makes a submission queue whose commands complete through `port`. As many commands can be in
    /// flight as the port has room for.
    ///
    /// The queue has more entries than that, so it is never full. `scratch` is the pool of blocks
    /// for lists of segments, if [`Submission::describe`] makes any.
    ///
    /// The device isn't told: call [`start`](Self::start), after the session was started. Context:
    /// may sleep. (C: `dma_alloc_coherent()`.)
    ///
    /// # Errors
    ///
    /// - [`EINVAL`] if the queue or the port is one of another device, if the port has another
    ///   [number](Submission::number) than the queue, or is one of another
    ///   [completion queue](Submission::completes_in), if the tags of so many commands have more
    ///   bits than [`Submission::TAG_BITS`], if there are more than 16384 commands, or if the
    ///   memory doesn't meet the device's [`Constraints`](super::super::Constraints);
    /// - [`ENOMEM`].
    pub fn new(
        dma: Mapper<'a>,
        queue: Q,
        port: Port<'a, Q::Completion>,
        scratch: Option<&'a Pool<'a, Q::Scratch>>,
    ) -> Result<Self> {
        if !is_same(queue.device(), dma.device()) || !is_same(port.dma.device(), dma.device()) {
            return Err(EINVAL);
        }

        // What the contract of `Submission` says is said of these.
        if port.queue != queue.number() || port.completions != queue.completes_in() {
            return Err(EINVAL);
        }

        if port.in_flight > MAX_TAGS {
            return Err(EINVAL);
        }

        let memory = Memory::new(dma, port.in_flight.into())?;

        Ok(Self {
            completer: Completer::new(memory.clone(), port),
            submitter: Submitter::new(memory, queue, scratch),
        })
    }

    /// As [`Submitter::start`].
    #[inline]
    pub fn start(&mut self, cancelled: impl FnMut(super::Ticket, P::Back)) -> Result {
        self.submitter.start(&mut self.completer, cancelled)
    }

    /// As [`Submitter::drain`].
    #[inline]
    pub fn drain(&mut self, give: impl FnMut(super::Ticket, P::Back)) -> Result {
        self.submitter.drain(&mut self.completer, give)
    }
}
