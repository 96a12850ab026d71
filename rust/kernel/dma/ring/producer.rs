// SPDX-License-Identifier: GPL-2.0

//! The half of a ring that posts segments.

use super::{
    super::{
        mapping::barrier::loads_before_stores,
        Direction,
        DmaAddr,
        DmaAddress,
        FromDevice,
        Mapper,
        Running,
        ToDevice, //
    },
    memory::{
        Layout,
        Memory,
        Slot, //
    },
    segment::Held,
    Consumer,
    Descriptor,
    DescriptorInfo,
    Publish,
    RingRegisters,
    Segment,
    Tail, //
};
use crate::{
    error::ErrorWith,
    prelude::*,
    sync::{
        barrier::{
            dma_mb,
            Write, //
        },
        Arc, //
    }, //
};

/// What the driver gives for each segment.
type Options<Q> = <<Q as RingRegisters>::Descriptor as Descriptor>::Options;

/// The half of a ring that posts segments, and tells the device.
///
/// - In a ring that sends: [`post`](Self::post) or [`new_chain`](Self::new_chain), then
///   [`kick`](Self::kick).
/// - In a ring that receives: [`refill`](Self::refill), then [`kick`](Self::kick).
/// - Before that, and after each stop: [`start`](Self::start), which takes both halves.
///
/// Its methods take `&mut self`, so it belongs to one context at a time. It needs no lock against
/// the [`Consumer`]. Context of dropping it: process context.
///
/// # Invariants
///
/// - The slots from `tail` on, up to `head` in the next turn, belong to this half. `tail` and
///   `head` are at most `usable()` apart.
/// - In a ring that sends those slots are empty, except those of a chain that isn't committed,
///   which begins at `tail`.
///
/// # Examples
///
/// See the [module documentation](super).
#[repr(align(64))]
pub struct Producer<'a, Q: RingRegisters, P: Segment<'a, Q::Direction>> {
    dma: Mapper<'a>,
    layout: Layout<Q, P>,
    /// The first descriptor that isn't posted.
    tail: u32,
    /// The first descriptor that the device wasn't told of.
    kicked: u32,
    /// The first descriptor that the consumer hadn't given back when we looked.
    head: u32,
    memory: Arc<Memory<'a, Q, P>>,
    queue: Q,
    doorbells: u64,
}

// SAFETY: It owns its part of the memory, with segments that are `Send`, and a queue that is
// `Send`.
unsafe impl<'a, Q: RingRegisters, P: Segment<'a, Q::Direction>> Send for Producer<'a, Q, P> {}

impl<'a, Q: RingRegisters, P: Segment<'a, Q::Direction>> Producer<'a, Q, P> {
    pub(super) fn new(memory: Arc<Memory<'a, Q, P>>, queue: Q) -> Self {
        let layout = memory.layout();
        let first = layout.first();

        // INVARIANT: A new ring is empty, and the producer's.
        Self {
            dma: memory.dma(),
            layout,
            tail: first,
            kicked: first,
            head: first,
            memory,
            queue,
            doorbells: 0,
        }
    }

    /// Returns the registers of the ring.
    #[inline]
    pub fn queue(&self) -> &Q {
        &self.queue
    }

    /// Returns the number of descriptors of the ring, one of which is never used.
    #[inline]
    #[expect(clippy::len_without_is_empty, reason = "a ring has descriptors")]
    pub fn len(&self) -> u32 {
        self.layout.usable() + 1
    }

    /// Returns how many descriptors can be posted, as of the last [`refresh`](Self::refresh).
    #[inline]
    pub fn free(&self) -> u32 {
        self.layout.usable() - self.tail.wrapping_sub(self.head)
    }

    /// Looks how many descriptors the consumer has given back; returns how many can be posted.
    ///
    /// Context: any.
    #[inline]
    pub fn refresh(&mut self) -> u32 {
        // INVARIANT: The consumer has given these slots back.
        self.head = self.memory.head();
        self.free()
    }

    /// Returns how often [`kick`](Self::kick) has written the doorbell.
    #[inline]
    pub fn doorbells(&self) -> u64 {
        self.doorbells
    }

    /// Writes the doorbell: tells the device of everything that was posted since the last call.
    ///
    /// Call it once for a batch, since a doorbell is expensive. If nothing was posted since, it
    /// does nothing and returns `Ok`, even if the device was stopped. Context: any.
    ///
    /// # Errors
    ///
    /// [`ESHUTDOWN`] if the device was stopped, or the ring wasn't [started](Self::start) since.
    /// What was posted comes back from the next `start`.
    #[inline]
    pub fn kick(&mut self) -> Result {
        if self.kicked == self.tail {
            return Ok(());
        }

        let _running = self.memory.enter()?;

        if Q::Direction::DEVICE_WRITES {
            // The CPU reads a buffer before the device may write it again.
            loads_before_stores();
        }

        if matches!(Q::PUBLISH, Publish::Tail) {
            // Ordering 4: slot before tail. It is stored before the device can be done.
            self.memory.set_tail(self.tail);
        }

        // Ordering 1: descriptor before doorbell, by the contract of `RingRegisters`.
        self.queue.doorbell(Tail(self.layout.index(self.tail)));
        self.kicked = self.tail;
        self.doorbells += 1;
        Ok(())
    }

    /// Empties the ring, and tells the device where it is.
    ///
    /// Call this after [`Session::start`](super::super::Session::start), at first and after each
    /// stop. In a ring that sends, everything that was posted and not reaped is given to
    /// `cancelled`, unmapped and in order. In a ring that receives, the buffers stay, `cancelled`
    /// isn't called, and frames that weren't received are lost; [`refill`](Self::refill) must
    /// follow.
    ///
    /// Context: any in which segments may be unmapped and dropped.
    ///
    /// # Errors
    ///
    /// - [`EINVAL`] if `consumer` is not the other half;
    /// - [`EBUSY`] if the device may still access the ring, since it wasn't stopped
    ///   ([`Session::restart`](super::super::Session::restart));
    /// - [`ESHUTDOWN`] if the device doesn't run;
    /// - what [`RingRegisters::start`] returned, or [`ESHUTDOWN`] if the device was stopped
    ///   meanwhile. The ring is empty then, as above.
    pub fn start(&mut self, consumer: &mut Consumer<'a, Q, P>, cancelled: impl FnMut(P)) -> Result {
        if !self.memory.is_open() {
            return Err(ESHUTDOWN);
        }

        self.reset(consumer, cancelled, false)?;
        self.memory.tell(&mut self.queue)
    }

    /// Takes all segments out of a ring that the device doesn't access, and gives them to `give`.
    ///
    /// Use it after a stop, to free memory or to change the size of buffers. [`start`](Self::start)
    /// must follow. Context: any in which segments may be unmapped and dropped.
    ///
    /// # Errors
    ///
    /// - [`EINVAL`] if `consumer` is not the other half;
    /// - [`EBUSY`] if the device may still access the ring.
    pub fn drain(&mut self, consumer: &mut Consumer<'a, Q, P>, give: impl FnMut(P)) -> Result {
        self.reset(consumer, give, true)
    }

    /// Changes the number of descriptors of a ring that the device doesn't access.
    ///
    /// All segments in it are given to `cancelled`. [`start`](Self::start) must follow. Context:
    /// may sleep.
    ///
    /// # Errors
    ///
    /// The ring is as before, with
    ///
    /// - [`EINVAL`] if `consumer` is not the other half;
    /// - [`EBUSY`] if the device may still access the ring;
    /// - what [`Ring::new`](super::Ring::new) returns.
    pub fn resize(
        &mut self,
        consumer: &mut Consumer<'a, Q, P>,
        len: u32,
        cancelled: impl FnMut(P),
    ) -> Result {
        let spare = Spare::new(self.dma, len)?;

        self.resize_to(consumer, spare, cancelled)
            .map_err(|refused| refused.error)
    }

    /// As [`resize`](Self::resize), with memory that was allocated before.
    ///
    /// Use it where the device is stopped for that: if there is no memory, it needn't be. Context:
    /// any in which segments may be unmapped and dropped.
    ///
    /// # Errors
    ///
    /// The ring is as before, and the memory comes back, with
    ///
    /// - [`EINVAL`] if `consumer` is not the other half, or if the memory is for another device;
    /// - [`EBUSY`] if the device may still access the ring.
    pub fn resize_to(
        &mut self,
        consumer: &mut Consumer<'a, Q, P>,
        spare: Spare<'a, Q, P>,
        cancelled: impl FnMut(P),
    ) -> Result<(), ErrorWith<Spare<'a, Q, P>>> {
        let is_ours = core::ptr::eq(spare.0.dma().record(), self.dma.record());
        let reset = match is_ours {
            true => self.reset(consumer, cancelled, true),
            false => Err(EINVAL),
        };

        if let Err(error) = reset {
            return Err(ErrorWith {
                error,
                value: spare,
            });
        }

        let memory = spare.0;

        // INVARIANT: A new ring is empty, and the producer's.
        self.layout = memory.layout();
        consumer.replace(memory.clone());
        self.memory = memory;
        self.begin();
        Ok(())
    }

    fn reset(
        &mut self,
        consumer: &mut Consumer<'a, Q, P>,
        cancelled: impl FnMut(P),
        all: bool,
    ) -> Result {
        if !consumer.is_of(&self.memory) {
            return Err(EINVAL);
        }

        // SAFETY: `self` and `consumer` are the two halves, as was just checked.
        unsafe { self.memory.reset(cancelled, all) }?;

        consumer.reset();
        self.begin();
        Ok(())
    }

    /// Resets the counters, when all slots are the producer's.
    fn begin(&mut self) {
        let first = self.layout.first();

        // INVARIANT: The ring is empty.
        self.tail = first;
        self.kicked = first;
        self.head = first;
    }

    /// Returns the bus address of the segment in a slot.
    ///
    /// # Safety
    ///
    /// The slot must be ours, and the segment must stay there as long as the result is used.
    #[inline]
    unsafe fn memory_at<'r>(&self, at: u32) -> Option<DmaAddr<'r>> {
        // SAFETY: By the safety requirements the slot is ours.
        let slot: &Slot<P> = unsafe { self.layout.slot(at) };

        slot.segment.as_ref().map(|segment| {
            // SAFETY: A segment in a slot is mapped; it stays by the safety requirements.
            unsafe { DmaAddr::new(slot.addr, Held::<Q::Direction>::len(segment)) }
        })
    }

    /// Writes a descriptor, without its status word if the device looks at own bits. Returns that
    /// word.
    ///
    /// # Safety
    ///
    /// The slot must be ours, and `memory` be the address of the segment in it.
    #[inline]
    unsafe fn describe(
        &mut self,
        at: u32,
        memory: Option<DmaAddr<'_>>,
        options: Options<Q>,
        first: bool,
        last: bool,
    ) -> Result<u32> {
        let descriptor = Q::Descriptor::new(DescriptorInfo {
            memory,
            options,
            first,
            last,
        })?;

        // SAFETY: By the safety requirements the slot is ours, and so is its descriptor.
        Ok(unsafe {
            self.layout
                .write(at, descriptor, matches!(Q::PUBLISH, Publish::OwnBit(_)))
        })
    }

    /// Keeps a device that looks at own bits from being stopped while something is posted. Does
    /// nothing for others, which look at nothing before the doorbell.
    ///
    /// # Errors
    ///
    /// [`ESHUTDOWN`] if it is stopped.
    #[inline]
    fn enter(&self) -> Result<Option<Running<'a>>> {
        match Q::PUBLISH {
            Publish::Tail => Ok(None),
            Publish::OwnBit(_) => self.memory.enter().map(Some),
        }
    }

    /// Posts the slot at `tail`, which is a whole frame.
    ///
    /// # Safety
    ///
    /// The slot must be ours. `status` must be what [`describe`](Self::describe) has returned for
    /// it, and `_running` what [`enter`](Self::enter) has returned.
    #[inline]
    unsafe fn post_slot(&mut self, status: u32, _running: Option<Running<'a>>) {
        let end = self.tail.wrapping_add(1);

        if matches!(Q::PUBLISH, Publish::OwnBit(_)) {
            if Q::Direction::DEVICE_WRITES {
                // The CPU reads a buffer before the device may write it again.
                loads_before_stores();
            }

            // Ordering 2: descriptor before own bit.
            dma_mb(Write);

            // SAFETY: By the safety requirements the slot is ours, and so is its descriptor.
            unsafe { self.layout.set_status(self.tail, status) };

            // Ordering 4: slot before tail, and own bit before tail.
            self.memory.set_tail(end);
        }

        self.tail = end;
    }
}

impl<'a, Q: RingRegisters<Direction = ToDevice>, P: Segment<'a, ToDevice>> Producer<'a, Q, P> {
    /// Maps a segment, and posts it as a frame (C: `dma_map_single()`). [`kick`](Self::kick) tells
    /// the device.
    ///
    /// The ring owns the segment until [`Consumer::reap`] returns it. Context: any.
    ///
    /// # Errors
    ///
    /// The segment comes back, with
    ///
    /// - [`EBUSY`] if there is no free descriptor;
    /// - [`EOVERFLOW`] if it is longer than [`Descriptor::MAX_LEN`];
    /// - [`ESHUTDOWN`] if the device looks at own bits, and is stopped;
    /// - what [`Streaming::map`](super::super::Streaming::map) or [`Descriptor::new`] returned.
    #[inline]
    pub fn post(&mut self, segment: P, options: Options<Q>) -> Result<(), ErrorWith<P>> {
        let tail = self.tail;

        if !self.has_room(tail) {
            return Err(ErrorWith {
                error: EBUSY,
                value: segment,
            });
        }

        let running = match self.enter() {
            Ok(running) => running,
            Err(error) => {
                return Err(ErrorWith {
                    error,
                    value: segment,
                })
            }
        };

        // SAFETY: The slot is ours, and empty.
        unsafe { self.put(tail, segment) }?;

        // SAFETY: The slot is ours, and is described here.
        unsafe {
            let memory = self.memory_at(tail);

            match self.describe(tail, memory, options, true, true) {
                Ok(status) => {
                    *self.layout.note(tail) = 1;
                    self.post_slot(status, running);
                    Ok(())
                }
                Err(error) => Err(self.refuse(tail, error)),
            }
        }
    }

    /// Takes back a segment that was put into a slot, and for which no descriptor could be made.
    ///
    /// # Safety
    ///
    /// The slot must be ours, and hold a segment.
    #[cold]
    #[inline(never)]
    unsafe fn refuse(&mut self, at: u32, error: Error) -> ErrorWith<P> {
        // SAFETY: By the safety requirements the slot is ours.
        let slot = unsafe { self.layout.slot(at) };

        // SAFETY: The device wasn't told of the segment. By the safety requirements there is one.
        let value = unsafe { slot.take::<ToDevice>(self.dma, 0).unwrap_unchecked() };

        ErrorWith { error, value }
    }

    /// Begins a frame of several segments: see [`Chain`].
    ///
    /// Context: any.
    ///
    /// # Examples
    ///
    /// ```
    /// # use kernel::{dma::{ring::{Descriptor, Producer, RingRegisters}, ToDevice}, prelude::*};
    /// fn send<'a, Q>(
    ///     tx: &mut Producer<'a, Q, KVec<u8>>,
    ///     head: KVec<u8>,
    ///     body: KVec<u8>,
    /// ) -> Result
    /// where
    ///     Q: RingRegisters<Direction = ToDevice>,
    ///     Q::Descriptor: Descriptor<Options = ()>,
    /// {
    ///     let mut frame = tx.new_chain();
    ///
    ///     // If one of them can't be posted, the other isn't either.
    ///     frame.push(head, ())?;
    ///     frame.push(body, ())?;
    ///     frame.commit()?;
    ///     tx.kick()
    /// }
    /// ```
    #[inline]
    pub fn new_chain(&mut self) -> Chain<'_, 'a, Q, P> {
        Chain {
            end: self.tail,
            last: None,
            producer: self,
        }
    }

    /// Maps a segment into a slot.
    ///
    /// # Safety
    ///
    /// The slot must be ours, and empty.
    #[inline]
    unsafe fn put(&mut self, at: u32, mut segment: P) -> Result<(), ErrorWith<P>> {
        if Held::<ToDevice>::len(&segment) > Q::Descriptor::MAX_LEN {
            return Err(ErrorWith {
                error: EOVERFLOW,
                value: segment,
            });
        }

        // SAFETY: The segment isn't mapped, since it was the driver's. It is unmapped when it is
        // taken out of the slot. Only a descriptor of this ring gets the address.
        let addr = match unsafe { segment.map(self.dma) } {
            Ok(addr) => addr,
            Err(error) => {
                return Err(ErrorWith {
                    error,
                    value: segment,
                })
            }
        };

        // SAFETY: By the safety requirements the slot is ours; it is empty, so nothing has to be
        // dropped.
        unsafe {
            core::ptr::write(
                self.layout.slot(at),
                Slot {
                    segment: Some(segment),
                    addr,
                },
            )
        };
        Ok(())
    }

    /// Returns whether the slot is ours. If it is, it is empty afterwards.
    #[inline]
    fn has_room(&mut self, at: u32) -> bool {
        if at.wrapping_sub(self.head) >= self.layout.usable() {
            self.refresh();

            if at.wrapping_sub(self.head) >= self.layout.usable() {
                return false;
            }
        }

        // SAFETY: The slot is ours.
        if unsafe { self.layout.slot(at) }.segment.is_some() {
            self.clear(at);
        }

        true
    }

    /// Empties a slot in which there is a segment that isn't posted: one that a chain has left that
    /// was forgotten.
    #[cold]
    #[inline(never)]
    fn clear(&mut self, at: u32) {
        // SAFETY: The slot is ours.
        let slot = unsafe { self.layout.slot(at) };

        // SAFETY: The device wasn't told of it.
        drop(unsafe { slot.take::<ToDevice>(self.dma, 0) });
    }
}

impl<'a, Q: RingRegisters<Direction = FromDevice>, P: Segment<'a, FromDevice>> Producer<'a, Q, P> {
    /// Posts a buffer in each free descriptor: the one that was left in its slot, or one from
    /// `alloc`. [`kick`](Self::kick) tells the device.
    ///
    /// If `alloc` fails, the buffers that were left in the ring are posted all the same. So a ring
    /// whose frames are only looked at, or [replaced](super::Frame::replace), goes on receiving
    /// without memory. If all buffers were [taken](super::Frame::take), nothing is posted, no
    /// interrupt will come, and the driver must call this again on its own.
    ///
    /// Context: any in which `alloc` may be called.
    ///
    /// # Errors
    ///
    /// The device gets the buffers that there are, after a [`kick`](Self::kick), and the next call
    /// tries again, with
    ///
    /// - what `alloc` or [`Streaming::map`](super::super::Streaming::map) returned;
    /// - [`EOVERFLOW`] if a new buffer is longer than [`Descriptor::MAX_LEN`].
    ///
    /// Buffers stay in the ring with [`ESHUTDOWN`], if the device looks at own bits and is stopped,
    /// and with what [`Descriptor::new`] returned.
    ///
    /// # Examples
    ///
    /// ```
    /// # use kernel::{dma::{ring::{Descriptor, Producer, RingRegisters}, FromDevice}, prelude::*};
    /// fn fill<'a, Q>(rx: &mut Producer<'a, Q, KBox<[u8; 2048]>>) -> Result
    /// where
    ///     Q: RingRegisters<Direction = FromDevice>,
    ///     Q::Descriptor: Descriptor<Options = ()>,
    /// {
    ///     // If there is no memory, the device gets what there is.
    ///     let filled = rx.refill((), || Ok(KBox::new([0; 2048], GFP_KERNEL)?));
    ///
    ///     rx.kick()?;
    ///     filled
    /// }
    /// ```
    #[inline]
    pub fn refill(&mut self, options: Options<Q>, mut alloc: impl FnMut() -> Result<P>) -> Result {
        let mut room = self.refresh();

        while room > 0 {
            let tail = self.tail;

            // SAFETY: The slot is ours.
            let slot = unsafe { self.layout.slot(tail) };

            let len = match &mut slot.segment {
                // It is still mapped, and the CPU has only read it.
                Some(segment) => {
                    segment.hand_over();
                    Held::<FromDevice>::len(segment)
                }
                None => {
                    let mut segment = match alloc() {
                        Ok(segment) => segment,
                        Err(error) => return self.post_left(options, room, error),
                    };

                    if Held::<FromDevice>::len(&segment) > Q::Descriptor::MAX_LEN {
                        return self.post_left(options, room, EOVERFLOW);
                    }

                    // SAFETY: As in `put()`.
                    slot.addr = match unsafe { segment.map(self.dma) } {
                        Ok(addr) => addr,
                        Err(error) => return self.post_left(options, room, error),
                    };

                    let len = Held::<FromDevice>::len(&segment);

                    // SAFETY: There is nothing to be dropped.
                    unsafe { core::ptr::write(&mut slot.segment, Some(segment)) };
                    len
                }
            };

            // SAFETY: The slot is ours; the segment in it is mapped, and stays.
            unsafe { self.post_buffer(slot.addr, len, options) }?;
            room -= 1;
        }

        Ok(())
    }

    /// Posts the slot at `tail`, in which there is a buffer.
    ///
    /// # Errors
    ///
    /// The buffer stays in its slot, with [`ESHUTDOWN`] if the device looks at own bits and is
    /// stopped, and with what [`Descriptor::new`] returned.
    ///
    /// # Safety
    ///
    /// The slot must be ours, and the segment in it must be mapped at `addr` and have `len` bytes.
    #[inline]
    unsafe fn post_buffer(&mut self, addr: DmaAddress, len: usize, options: Options<Q>) -> Result {
        let running = self.enter()?;

        // SAFETY: By the safety requirements the slot is ours, and the segment is mapped there. The
        // slot is described before it is posted.
        unsafe {
            let memory = Some(DmaAddr::new(addr, len));
            let status = self.describe(self.tail, memory, options, true, true)?;

            self.post_slot(status, running);
        }

        Ok(())
    }

    /// Posts the buffers that were left in the slots after `tail`, when there is no buffer for
    /// `tail`: they move forward. Returns the error.
    #[cold]
    #[inline(never)]
    fn post_left(&mut self, options: Options<Q>, room: u32, error: Error) -> Result {
        let first = self.tail;

        // One more slot is ours than descriptors can be posted. The first slot is empty, so there
        // are at most `room` buffers.
        for i in 1..=room {
            // SAFETY: The slot is ours.
            let slot = unsafe { self.layout.slot(first.wrapping_add(i)) };

            let Some(mut segment) = slot.segment.take() else {
                continue;
            };

            let (addr, len) = (slot.addr, Held::<FromDevice>::len(&segment));

            segment.hand_over();

            // The segment stays mapped. The slot at `tail` is empty: it comes before the one from
            // which the segment was taken, and whatever was in slots before that was posted.
            //
            // SAFETY: The slot is ours.
            *unsafe { self.layout.slot(self.tail) } = Slot {
                segment: Some(segment),
                addr,
            };

            // SAFETY: The slot is ours; the segment in it is mapped, and stays.
            unsafe { self.post_buffer(addr, len, options) }?;
        }

        Err(error)
    }
}

/// Memory of a ring that isn't used yet, for [`Producer::resize_to`].
pub struct Spare<'a, Q: RingRegisters, P: Segment<'a, Q::Direction>>(Arc<Memory<'a, Q, P>>);

impl<'a, Q: RingRegisters, P: Segment<'a, Q::Direction>> Spare<'a, Q, P> {
    /// Allocates memory for a ring of `len` descriptors.
    ///
    /// Context: may sleep.
    ///
    /// # Errors
    ///
    /// As [`Ring::new`](super::Ring::new).
    pub fn new(dma: Mapper<'a>, len: u32) -> Result<Self> {
        Ok(Self(Memory::new(dma, len)?))
    }
}

/// Where a [`Chain`] ended.
pub(super) struct Mark<O> {
    end: u32,
    last: Option<O>,
}

/// A frame of several segments that is being posted.
///
/// [`push`](Self::push) adds a segment, and [`commit`](Self::commit) posts all of them. Before that
/// the device sees none. [`rollback`](Self::rollback) gives the segments back instead, and dropping
/// the chain drops them. If the chain is forgotten, they are dropped when other frames need their
/// slots.
#[must_use = "nothing is posted before `commit`"]
pub struct Chain<'p, 'a, Q: RingRegisters<Direction = ToDevice>, P: Segment<'a, ToDevice>> {
    producer: &'p mut Producer<'a, Q, P>,
    /// After the last slot.
    end: u32,
    /// The options for the last slot, which isn't described yet.
    last: Option<Options<Q>>,
}

impl<'a, Q: RingRegisters<Direction = ToDevice>, P: Segment<'a, ToDevice>> Chain<'_, 'a, Q, P> {
    /// Maps a segment, and adds it to the frame.
    ///
    /// Context: any.
    ///
    /// # Errors
    ///
    /// The segment comes back, and the chain is as before, with
    ///
    /// - [`EBUSY`] if there is no free descriptor;
    /// - [`EOVERFLOW`] if it is longer than [`Descriptor::MAX_LEN`];
    /// - what [`Streaming::map`](super::super::Streaming::map) returned;
    /// - what [`Descriptor::new`] returned for the segment *before* this one. The chain can only be
    ///   [rolled back](Self::rollback) then.
    #[inline]
    pub fn push(&mut self, segment: P, options: Options<Q>) -> Result<(), ErrorWith<P>> {
        if !self.producer.has_room(self.end) {
            return Err(ErrorWith {
                error: EBUSY,
                value: segment,
            });
        }

        if let Err(error) = self.describe(false) {
            return Err(ErrorWith {
                error,
                value: segment,
            });
        }

        // SAFETY: The slot is the producer's, and empty.
        unsafe { self.producer.put(self.end, segment) }?;
        self.append(options);
        Ok(())
    }

    /// Adds a descriptor without memory, for instance one that sets up an offload.
    ///
    /// Context: any.
    ///
    /// # Errors
    ///
    /// The chain is as before, with
    ///
    /// - [`EBUSY`] if there is no free descriptor;
    /// - what [`Descriptor::new`] returned for the segment before. The chain can only be
    ///   [rolled back](Self::rollback) then.
    #[inline]
    pub fn push_context(&mut self, options: Options<Q>) -> Result {
        if !self.producer.has_room(self.end) {
            return Err(EBUSY);
        }

        self.describe(false)?;
        self.append(options);
        Ok(())
    }

    /// Adds a segment that is mapped already.
    ///
    /// # Errors
    ///
    /// As [`push_context`](Self::push_context).
    ///
    /// # Safety
    ///
    /// The segment must be mapped at `addr`, for the device of the ring, in the sense of [`Held`],
    /// and not be longer than [`Descriptor::MAX_LEN`].
    #[inline]
    pub(super) unsafe fn push_mapped(
        &mut self,
        segment: P,
        addr: DmaAddress,
        options: Options<Q>,
    ) -> Result {
        if !self.producer.has_room(self.end) {
            return Err(EBUSY);
        }

        self.describe(false)?;

        // SAFETY: The slot is the producer's, and empty, so nothing has to be dropped. By the
        // safety requirements the segment is mapped at `addr`.
        unsafe {
            core::ptr::write(
                self.producer.layout.slot(self.end),
                Slot {
                    segment: Some(segment),
                    addr,
                },
            )
        };
        self.append(options);
        Ok(())
    }

    /// Returns the device for which the ring maps.
    #[inline]
    pub(super) fn dma(&self) -> Mapper<'a> {
        self.producer.dma
    }

    /// Checks whether so many segments can be added.
    ///
    /// # Errors
    ///
    /// - [`EBUSY`] if there aren't enough free descriptors;
    /// - [`EOVERFLOW`] if the ring doesn't have as many.
    #[inline]
    pub(super) fn check_room(&mut self, count: usize) -> Result {
        // CAST: Widening.
        if count > self.producer.layout.usable() as usize {
            return Err(EOVERFLOW);
        }

        // CAST: It fits, as was just checked.
        let count = count as u32;

        if self.len() + count > self.producer.layout.usable() {
            return Err(EBUSY);
        }

        if count > 0 && !self.producer.has_room(self.end.wrapping_add(count - 1)) {
            return Err(EBUSY);
        }

        Ok(())
    }

    /// Returns the segment that was added last.
    #[inline]
    pub(super) fn last_segment(&mut self) -> Option<&mut P> {
        if self.end == self.producer.tail {
            return None;
        }

        // SAFETY: The slots of a chain are the producer's, which is borrowed.
        unsafe { self.producer.layout.slot(self.end.wrapping_sub(1)) }
            .segment
            .as_mut()
    }

    /// Returns where the chain ends now, for [`shorten`](Self::shorten).
    #[inline]
    pub(super) fn mark(&self) -> Mark<Options<Q>> {
        Mark {
            end: self.end,
            last: self.last,
        }
    }

    /// Drops the segments that were added since `mark`.
    #[cold]
    #[inline(never)]
    pub(super) fn shorten(&mut self, mark: Mark<Options<Q>>) {
        while self.end != mark.end {
            self.end = self.end.wrapping_sub(1);
            self.producer.clear(self.end);
        }

        self.last = mark.last;
    }

    #[inline]
    fn append(&mut self, options: Options<Q>) {
        self.last = Some(options);
        self.end = self.end.wrapping_add(1);
    }

    /// Writes the descriptor of the last slot, since it is known now whether the frame ends there.
    #[inline]
    fn describe(&mut self, last: bool) -> Result {
        let Some(options) = self.last else {
            return Ok(());
        };
        let at = self.end.wrapping_sub(1);
        let first = at == self.producer.tail;

        // SAFETY: The slots of a chain are the producer's.
        unsafe {
            let memory = self.producer.memory_at(at);
            let status = self.producer.describe(at, memory, options, first, last)?;

            if matches!(Q::PUBLISH, Publish::OwnBit(_)) {
                *self.producer.layout.note(at) = status;
            }
        }

        Ok(())
    }

    /// Returns the number of descriptors that were added.
    #[inline]
    #[expect(
        clippy::len_without_is_empty,
        reason = "what is empty can't be committed"
    )]
    pub fn len(&self) -> u32 {
        self.end.wrapping_sub(self.producer.tail)
    }

    /// Posts the frame. [`Producer::kick`] tells the device.
    ///
    /// Context: any.
    ///
    /// # Errors
    ///
    /// The chain comes back, with
    ///
    /// - [`EINVAL`] if it is empty;
    /// - [`ESHUTDOWN`] if the device looks at own bits, and is stopped;
    /// - what [`Descriptor::new`] returned for the last segment.
    #[inline]
    pub fn commit(mut self) -> Result<(), ErrorWith<Self>> {
        if self.last.is_none() {
            return Err(ErrorWith {
                error: EINVAL,
                value: self,
            });
        }

        let running = match self.producer.enter() {
            Ok(running) => running,
            Err(error) => return Err(ErrorWith { error, value: self }),
        };

        if let Err(error) = self.describe(true) {
            return Err(ErrorWith { error, value: self });
        }

        // SAFETY: The slots of a chain are the producer's, and all of them are described.
        unsafe { self.post(running) };
        Ok(())
    }

    /// Posts the slots of the chain.
    ///
    /// # Safety
    ///
    /// All of them must be described, and `_running` must be what [`Producer::enter`] has returned.
    #[inline]
    unsafe fn post(&mut self, _running: Option<Running<'a>>) {
        let Self { producer, end, .. } = self;
        let Producer { layout, tail, .. } = producer;
        let (first, count) = (*tail, end.wrapping_sub(*tail));

        if matches!(Q::PUBLISH, Publish::OwnBit(_)) {
            // Ordering 2: descriptors before own bits.
            dma_mb(Write);

            for i in 1..count {
                let at = first.wrapping_add(i);

                // SAFETY: The slots of a chain are the producer's. By the safety requirements they
                // are described, so the note is the status word.
                unsafe { layout.set_status(at, *layout.note(at)) };
            }

            // Ordering 2: all other own bits before the first.
            dma_mb(Write);

            // SAFETY: As above.
            unsafe { layout.set_status(first, *layout.note(first)) };
        }

        // SAFETY: The slot is the producer's.
        unsafe { *layout.note(first) = count };
        *tail = *end;

        if matches!(Q::PUBLISH, Publish::OwnBit(_)) {
            // Ordering 4: slot before tail, and own bit before tail.
            producer.memory.set_tail(*end);
        }
    }

    /// Gives the segments back, unmapped, in the order in which they were added. Nothing is posted.
    ///
    /// Context: any in which `give` may be called.
    #[inline]
    pub fn rollback(mut self, give: impl FnMut(P)) {
        self.undo(give);
    }

    fn undo(&mut self, mut give: impl FnMut(P)) {
        let mut at = self.producer.tail;

        while at != self.end {
            // SAFETY: The slots of a chain are the producer's.
            let slot = unsafe { self.producer.layout.slot(at) };

            // SAFETY: The device wasn't told of the segment.
            if let Some(segment) = unsafe { slot.take::<ToDevice>(self.producer.dma, 0) } {
                give(segment);
            }
            at = at.wrapping_add(1);
        }

        self.end = self.producer.tail;
        self.last = None;
    }
}

impl<'a, Q: RingRegisters<Direction = ToDevice>, P: Segment<'a, ToDevice>> Drop
    for Chain<'_, 'a, Q, P>
{
    #[inline]
    fn drop(&mut self) {
        if self.end != self.producer.tail {
            self.undo(drop);
        }
    }
}
