// SPDX-License-Identifier: GPL-2.0

//! The half of a ring that gets segments back.

use super::{
    super::{
        FromDevice,
        Mapper,
        ToDevice,
        Untrusted, //
    },
    memory::{
        Layout,
        Memory,
        Slot, //
    },
    segment::Held,
    Descriptor,
    Length,
    ReceiveDescriptor,
    Received,
    RingRegisters,
    Segment,
    Verdict, //
};
use crate::{
    error::ErrorWith,
    prelude::*,
    sync::Arc, //
};
use core::{
    cell::Cell,
    ptr::NonNull, //
};

/// The half of a ring that gets segments back when the device is done with them.
///
/// - In a ring that sends: [`reap`](Self::reap) or [`reap_each`](Self::reap_each), what C drivers
///   call to clean a transmit ring.
/// - In a ring that receives: [`receive`](Self::receive) or [`receive_each`](Self::receive_each).
///
/// Its methods take `&mut self`, so it belongs to one context at a time. It needs no lock against
/// the [`Producer`](super::Producer). Context of dropping it: process context.
///
/// # Invariants
///
/// The slots in `head..tail` belong to this half. Each of them has a segment, except for a
/// descriptor without memory, and unless the segment was taken out: by a [`Segments`] that was
/// forgotten, or a [`reap_each`](Self::reap_each) or [`receive_each`](Self::receive_each) that
/// isn't over.
///
/// # Examples
///
/// See the [module documentation](super).
#[repr(align(64))]
pub struct Consumer<'a, Q: RingRegisters, P: Segment<'a, Q::Direction>> {
    dma: Mapper<'a>,
    layout: Layout<Q, P>,
    /// The first descriptor that wasn't given back to the producer.
    head: u32,
    /// The first descriptor that wasn't posted when we looked.
    tail: u32,
    /// The frame at `head`, if some of its descriptors are done and the last isn't.
    partial: Partial,
    memory: Arc<Memory<'a, Q, P>>,
    malformed: u64,
    bad: u64,
    /// Whether bad frames are handed out.
    gives_bad: bool,
    /// How many bytes are in each segment of the frame that was received last, or has arrived in
    /// part. They were read from the descriptors once, and checked.
    lens: [u32; MAX_SEGMENTS],
}

/// How many buffers a received frame may have: enough for 16 KiB in buffers of 256 bytes.
const MAX_SEGMENTS: usize = 64;

/// What was found in a slot.
enum Look<T, P> {
    /// The device isn't done.
    Pending,
    /// A frame in one good segment: its descriptor, its length, and its slot.
    Single(T, usize, NonNull<Slot<P>>),
    /// A part of a frame, or one that is damaged or malformed.
    Other,
}

/// The part of a frame that has arrived.
#[derive(Clone, Copy)]
struct Partial {
    count: u32,
    len: usize,
    /// Whether the buffers have room for as many bytes as the device reported.
    is_possible: bool,
    verdict: Verdict,
}

impl Partial {
    const NONE: Self = Self {
        count: 0,
        len: 0,
        is_possible: true,
        verdict: Verdict::Good,
    };
}

/// A frame that has arrived, in the slots from the consumer's head on.
struct Arrived<T> {
    /// The last descriptor.
    descriptor: T,
    count: u32,
    len: usize,
    is_bad: bool,
}

// SAFETY: It owns its part of the memory, with segments that are `Send`.
unsafe impl<'a, Q: RingRegisters, P: Segment<'a, Q::Direction>> Send for Consumer<'a, Q, P> {}

impl<'a, Q: RingRegisters, P: Segment<'a, Q::Direction>> Consumer<'a, Q, P> {
    /// How many bytes of memory the ring needs for each descriptor, besides the descriptor. A ring
    /// that sends needs four more.
    pub const SLOT_SIZE: usize = size_of::<Slot<P>>();

    pub(super) fn new(memory: Arc<Memory<'a, Q, P>>) -> Self {
        let layout = memory.layout();

        // INVARIANT: A new ring is empty.
        Self {
            dma: memory.dma(),
            layout,
            head: layout.first(),
            tail: layout.first(),
            partial: Partial::NONE,
            memory,
            malformed: 0,
            bad: 0,
            gives_bad: false,
            lens: [0; MAX_SEGMENTS],
        }
    }

    pub(super) fn is_of(&self, memory: &Arc<Memory<'a, Q, P>>) -> bool {
        Arc::ptr_eq(&self.memory, memory)
    }

    /// Resets the counters, when all slots are the producer's.
    pub(super) fn reset(&mut self) {
        // INVARIANT: All slots are the producer's.
        self.head = self.layout.first();
        self.tail = self.layout.first();
        self.partial = Partial::NONE;
    }

    /// Takes the memory of another ring, which is empty.
    pub(super) fn replace(&mut self, memory: Arc<Memory<'a, Q, P>>) {
        self.layout = memory.layout();
        self.memory = memory;
        self.reset();
    }

    /// Returns how many descriptors there are that the device was told of and that weren't given
    /// back to the producer yet.
    ///
    /// Context: any.
    #[inline]
    pub fn posted(&mut self) -> u32 {
        // INVARIANT: The producer has given these slots to us.
        self.tail = self.memory.tail();
        self.tail.wrapping_sub(self.head)
    }

    /// Returns whether no more completions will come, since the device was stopped, or wasn't told
    /// of the ring yet.
    ///
    /// Frames that were completed before can still be taken. A thread that waits for a frame looks
    /// for one first, and then calls this. Context: any.
    #[inline]
    pub fn is_stopped(&self) -> bool {
        self.memory.is_over()
    }

    /// Returns how many received frames were discarded since the device's report was impossible.
    #[inline]
    pub fn malformed(&self) -> u64 {
        self.malformed
    }

    /// Returns how many received frames the device has called [bad](super::Verdict::Bad).
    ///
    /// They were discarded, unless the driver has [asked](Self::receive_bad) for them. A bad frame
    /// with an impossible length is counted here, and not by [`malformed`](Self::malformed).
    #[inline]
    pub fn bad(&self) -> u64 {
        self.bad
    }

    /// Returns whether there is a descriptor at `at` that was posted.
    #[inline]
    fn is_posted(&mut self, at: u32) -> bool {
        if at == self.tail {
            // Ordering 4: slot before tail.
            // INVARIANT: The producer has given these slots to us.
            self.tail = self.memory.tail();
        }

        at != self.tail
    }

    /// Gives slots back to the producer.
    #[inline]
    fn advance(&mut self, count: u32) {
        self.advance_to(self.head.wrapping_add(count));
    }

    /// Gives the slots before `at` back to the producer.
    #[inline]
    fn advance_to(&mut self, at: u32) {
        // What nobody needs to see would only take the cache line away from the producer.
        if at != self.head {
            self.head = at;
            // Ordering 5: slot before head.
            self.memory.set_head(self.head);
        }
    }
}

impl<'a, Q: RingRegisters<Direction = ToDevice>, P: Segment<'a, ToDevice>> Consumer<'a, Q, P> {
    /// Returns the segments of the next frame that was sent, unmapped (C: `dma_unmap_single()`);
    /// [`None`] if the device isn't done with it.
    ///
    /// Context: any.
    #[inline]
    pub fn reap(&mut self) -> Option<Segments<'_, 'a, Q, P>> {
        let head = self.head;

        if !self.is_posted(head) {
            return None;
        }

        // SAFETY: The slot is ours.
        let count = unsafe { *self.layout.note(head) };
        let last = head.wrapping_add(count).wrapping_sub(1);

        // The device processes the segments in order.
        //
        // SAFETY: The memory is ours.
        if !unsafe { self.layout.is_done(last) } {
            return None;
        }

        // SAFETY: As above.
        if !unsafe { self.layout.are_back(head, count.wrapping_sub(1)) } {
            return None;
        }

        // INVARIANT: The device is done with them.
        Some(Segments {
            next: head,
            left: count,
            frees: true,
            consumer: self,
        })
    }

    /// Gives the segments of all frames with which the device is done to `give`, in order; returns
    /// how many frames. What is posted meanwhile is for the next call.
    ///
    /// It costs less than [`reap`](Self::reap), since slots go back to the producer together. They
    /// do so when this returns: `give` must not wait for room in the ring, and threads that do are
    /// to be woken afterwards. `give` isn't told where frames end. Context: any in which `give` may
    /// be called.
    ///
    /// # Examples
    ///
    /// ```
    /// # use kernel::{dma::{ring::{Consumer, RingRegisters}, ToDevice}, prelude::*};
    /// fn clean<'a, Q: RingRegisters<Direction = ToDevice>>(
    ///     tx: &mut Consumer<'a, Q, KVec<u8>>,
    ///     spare: &mut KVec<KVec<u8>>,
    /// ) -> u32 {
    ///     tx.reap_each(|frame| drop(spare.push_within_capacity(frame)))
    /// }
    /// ```
    #[inline]
    pub fn reap_each(&mut self, mut give: impl FnMut(P)) -> u32 {
        let mut at = self.head;
        let mut frames = 0;
        // Ordering 4: slot before tail.
        let end = at.wrapping_add(self.posted());

        while at != end {
            // SAFETY: The slot is ours.
            let count = unsafe { *self.layout.note(at) };

            // Most frames are in one buffer.
            //
            // SAFETY: The slots of the frame are ours.
            let next = unsafe {
                if count == 1 {
                    self.reap_segment(at, &mut give)
                } else {
                    self.reap_segments(at, count, &mut give)
                }
            };

            let Some(next) = next else {
                break;
            };

            at = next;
            frames += 1;
        }

        self.advance_to(at);
        frames
    }

    /// Gives a frame of one descriptor to `give`, if the device is done with it; returns what comes
    /// after it.
    ///
    /// # Safety
    ///
    /// The slot must be ours.
    #[inline]
    unsafe fn reap_segment(&mut self, at: u32, give: &mut impl FnMut(P)) -> Option<u32> {
        // SAFETY: The memory is ours.
        if !unsafe { self.layout.is_done(at) } {
            return None;
        }

        // SAFETY: By the safety requirements; the device is done with it.
        unsafe { self.empty(at, give) };
        Some(at.wrapping_add(1))
    }

    /// Gives what is in a slot to `give`.
    ///
    /// # Safety
    ///
    /// The slot must be ours, and the device done with it.
    #[inline]
    unsafe fn empty(&mut self, at: u32, give: &mut impl FnMut(P)) {
        // SAFETY: By the safety requirements the slot is ours.
        let slot = unsafe { self.layout.slot(at) };

        // SAFETY: By the safety requirements the device is done with it. 0 bytes are synced.
        if let Some(segment) = unsafe { slot.take::<ToDevice>(self.dma, 0) } {
            give(segment);
        }
    }

    /// As [`reap_segment`](Self::reap_segment), for a frame of that many descriptors.
    ///
    /// # Safety
    ///
    /// The slots must be ours.
    #[cold]
    #[inline(never)]
    unsafe fn reap_segments(
        &mut self,
        at: u32,
        count: u32,
        give: &mut impl FnMut(P),
    ) -> Option<u32> {
        let end = at.wrapping_add(count);

        // The device processes them in order.
        //
        // SAFETY: The memory is ours.
        if !unsafe { self.layout.is_done(end.wrapping_sub(1)) } {
            return None;
        }

        // SAFETY: As above.
        if !unsafe { self.layout.are_back(at, count.wrapping_sub(1)) } {
            return None;
        }

        for i in 0..count {
            // SAFETY: By the safety requirements; the device is done with all of them.
            unsafe { self.empty(at.wrapping_add(i), give) };
        }

        Some(end)
    }
}

impl<'a, Q, P> Consumer<'a, Q, P>
where
    Q: RingRegisters<Direction = FromDevice>,
    Q::Descriptor: ReceiveDescriptor,
    P: Segment<'a, FromDevice>,
{
    /// Sets whether frames that the device calls [bad](super::Verdict::Bad) are handed out with the
    /// others. [`Frame::is_bad`] tells them apart. At first they aren't handed out.
    ///
    /// Frames with impossible lengths never are. Context: any.
    #[inline]
    pub fn receive_bad(&mut self, on: bool) {
        self.gives_bad = on;
    }

    /// Returns the next frame that was received; [`None`] if the device isn't done with it.
    ///
    /// The frame stays mapped, and is synced when the driver looks at it. Frames whose report is
    /// impossible are discarded ([`malformed`](Self::malformed)). So are frames of more than 64
    /// buffers, and [bad](Self::bad) ones unless the driver has asked for them. After a ringful of
    /// such frames this returns [`None`] even if there are more. Context: any.
    // A call for each frame, with the frame on the stack, would cost more than what is done here.
    #[inline(always)]
    pub fn receive(&mut self) -> Option<Frame<'_, 'a, Q, P>> {
        let at = self.head;

        // Most frames are in one buffer. `receive_segments()` does the same for all others.
        if self.partial.count == 0 && self.is_posted(at) {
            // A copy, so that the compiler knows that the addresses don't change while the device
            // accesses memory.
            let layout = self.layout;

            // SAFETY: The slot is ours.
            match unsafe { Self::look(&layout, at) } {
                Look::Pending => return None,
                Look::Single(descriptor, len, first) => {
                    // INVARIANT: `look()` has looked at the slot.
                    return Some(Frame {
                        at,
                        count: 1,
                        first,
                        len,
                        descriptor,
                        is_bad: false,
                        is_synced: Cell::new(false),
                        frees: true,
                        consumer: self,
                    });
                }
                Look::Other => {}
            }
        }

        self.receive_segments()
    }

    /// Gives up to `budget` received frames to `give`; returns how many. For a poll function, such
    /// as NAPI's.
    ///
    /// It costs less than [`receive`](Self::receive), since slots go back to the producer together,
    /// at the latest when this returns. So `give` must not wait for room in the ring. If `give`
    /// drops or forgets a frame, its buffers stay in their slots. A function that has a type
    /// parameter, as `drop` has, can't be given by its name: call it in a closure.
    ///
    /// Frames that are discarded ([`malformed`](Self::malformed), [`bad`](Self::bad)) don't count.
    /// If the result is less than `budget`, the device had completed no more frames, except after a
    /// ringful of discarded ones. Context: any in which `give` may be called.
    ///
    /// # Examples
    ///
    /// ```
    /// # use kernel::dma::{ring::{Consumer, ReceiveDescriptor, RingRegisters}, FromDevice};
    /// # use kernel::prelude::*;
    /// /// As a network driver polls.
    /// fn poll<'a, Q>(
    ///     rx: &mut Consumer<'a, Q, KBox<[u8; 2048]>>,
    ///     budget: u32,
    ///     mut copy: impl FnMut(&[u8]),
    /// ) -> u32
    /// where
    ///     Q: RingRegisters<Direction = FromDevice>,
    ///     Q::Descriptor: ReceiveDescriptor,
    /// {
    ///     rx.receive_each(budget, |frame| frame.segments().for_each(&mut copy))
    /// }
    /// ```
    #[inline]
    pub fn receive_each(&mut self, budget: u32, mut give: impl FnMut(Frame<'_, 'a, Q, P>)) -> u32 {
        let layout = self.layout;
        let mut at = self.head;
        let mut left = budget;
        // Up to where slots are looked at here.
        let mut end = if self.partial.count == 0 {
            at.wrapping_add(self.posted())
        } else {
            at
        };

        while left > 0 {
            let look = if at != end {
                // SAFETY: The slots up to `end` are ours.
                unsafe { Self::look(&layout, at) }
            } else if self.partial.count > 0 {
                Look::Other
            } else if self.is_posted(at) {
                end = self.tail;
                continue;
            } else {
                Look::Pending
            };

            let (descriptor, count, len, first, is_bad, next) = match look {
                Look::Pending => break,
                Look::Single(descriptor, len, first) => {
                    (descriptor, 1, len, first, false, at.wrapping_add(1))
                }
                Look::Other => {
                    self.advance_to(at);

                    let Some(frame) = self.receive_segments_apart() else {
                        return budget - left;
                    };

                    // Frames before it may have been discarded.
                    at = self.head;
                    end = self.tail;
                    (
                        frame.descriptor,
                        frame.count,
                        frame.len,
                        layout.place(at),
                        frame.is_bad,
                        at.wrapping_add(frame.count),
                    )
                }
            };

            // The only call of `give`, so that it can be inlined.
            //
            // INVARIANT: The device is done with the slots, as was seen above.
            give(Frame {
                at,
                count,
                first,
                len,
                descriptor,
                is_bad,
                is_synced: Cell::new(false),
                frees: false,
                consumer: self,
            });
            at = next;
            left -= 1;
        }

        self.advance_to(at);
        budget - left
    }

    /// Looks whether there is a frame in a slot, and is alone there.
    ///
    /// # Safety
    ///
    /// The slot must be ours.
    #[inline]
    unsafe fn look(layout: &Layout<Q, P>, at: u32) -> Look<Q::Descriptor, P> {
        // SAFETY: The memory is ours.
        if !unsafe { layout.is_done(at) } {
            return Look::Pending;
        }

        // SAFETY: As above.
        let descriptor = unsafe { layout.read(at) };
        let received = descriptor.received();
        let place = layout.place(at);

        if !received.last || received.verdict != Verdict::Good {
            return Look::Other;
        }

        // SAFETY: By the safety requirements the slot is ours, and the device is done with it.
        match unsafe { Self::check(place, &received, 0) } {
            Ok(len) => Look::Single(descriptor, len, place),
            Err(_) => Look::Other,
        }
    }

    /// As [`receive_segments`](Self::receive_segments), for a caller that gives the slots back
    /// itself.
    #[inline(never)]
    fn receive_segments_apart(&mut self) -> Option<Arrived<Q::Descriptor>> {
        let mut frame = self.receive_segments()?;

        // Its slots aren't given back here.
        frame.frees = false;
        Some(Arrived {
            descriptor: frame.descriptor,
            count: frame.count,
            len: frame.len,
            is_bad: frame.is_bad,
        })
    }

    /// As [`receive`](Self::receive), for frames of any number of segments.
    #[inline(never)]
    fn receive_segments(&mut self) -> Option<Frame<'_, 'a, Q, P>> {
        let layout = self.layout;
        let mut partial = self.partial;
        let mut budget = self.layout.usable();

        loop {
            let at = self.head.wrapping_add(partial.count);

            // SAFETY: The memory is ours.
            if !self.is_posted(at) || !unsafe { layout.is_done(at) } {
                break;
            }

            // SAFETY: As above.
            let descriptor = unsafe { layout.read(at) };
            let received = descriptor.received();

            // SAFETY: The slot is ours, and the device is done with it.
            let len = unsafe { Self::check(layout.place(at), &received, partial.len) };

            // CAST: Widening.
            match (len, self.lens.get_mut(partial.count as usize)) {
                (Ok(len), Some(place)) => {
                    // CAST: No more than the length of a mapped buffer.
                    *place = len as u32;
                    partial.len += len;
                }
                _ => partial.is_possible = false,
            }

            partial.count += 1;
            partial.verdict = partial.verdict.max(received.verdict);

            if received.last && partial.is_possible && self.gives(partial.verdict) {
                self.partial = Partial::NONE;

                // INVARIANT: The device is done with all of them.
                return Some(Frame {
                    at: self.head,
                    count: partial.count,
                    first: layout.place(self.head),
                    len: partial.len,
                    descriptor,
                    is_bad: partial.verdict == Verdict::Bad,
                    is_synced: Cell::new(false),
                    frees: true,
                    consumer: self,
                });
            }

            // Or the frame takes all descriptors, and has no end.
            if received.last || partial.count == layout.usable() {
                budget = budget.saturating_sub(partial.count);
                self.throw_away(&mut partial);

                if budget == 0 {
                    break;
                }
            }
        }

        self.partial = partial;
        None
    }

    /// Returns whether a frame with this verdict is handed out. Counts it if it is handed out and
    /// bad.
    #[inline]
    fn gives(&mut self, verdict: Verdict) -> bool {
        match verdict {
            Verdict::Good => true,
            Verdict::Bad if self.gives_bad => {
                self.bad += 1;
                true
            }
            Verdict::Bad | Verdict::Malformed => false,
        }
    }

    /// Returns how many bytes were received in a slot, if its buffer has room for them. `before` is
    /// how many were received in earlier slots of the frame.
    ///
    /// # Safety
    ///
    /// `place` must be that of a slot of ours, and the device done with it.
    #[inline]
    unsafe fn check(place: NonNull<Slot<P>>, received: &Received, before: usize) -> Result<usize> {
        // SAFETY: By the safety requirements this is a slot of ours.
        let slot = unsafe { place.as_ref() };
        let room = Held::<FromDevice>::len(slot.segment.as_ref().ok_or(EIO)?);

        match received.len {
            Length::Segment(len) => len.at_most(room),
            Length::Frame(_) if !received.last => Ok(room),
            Length::Frame(len) => {
                let rest = len.validate(|len| len.checked_sub(before).ok_or(EIO))?;

                Untrusted::new(rest).at_most(room)
            }
        }
    }

    /// Discards a malformed or bad frame: its buffers stay in their slots.
    #[cold]
    fn throw_away(&mut self, partial: &mut Partial) {
        self.advance(partial.count);

        match partial.verdict {
            Verdict::Bad => self.bad += 1,
            Verdict::Good | Verdict::Malformed => self.malformed += 1,
        }

        *partial = Partial::NONE;
    }
}

/// A frame that was received, in buffers that are still mapped.
///
/// Look at it with [`bytes`](Self::bytes) or [`segments`](Self::segments). Then decide what becomes
/// of its buffers:
///
/// - [`recycle`](Self::recycle) it, or drop it: the buffers stay in their slots, mapped, and
///   [`Producer::refill`](super::Producer::refill) posts them again. For frames that are copied.
/// - [`replace`](Self::replace), [`replace_each`](Self::replace_each): the driver gets the buffers,
///   and others take their place. For frames that are kept.
/// - [`take`](Self::take), [`take_single`](Self::take_single): the driver gets the buffers, and the
///   slots are empty. For emptying a ring, and for a frame now and then.
///
/// # Invariants
///
/// - The frame has the `count` slots from `at` on; `first` is the slot at `at`. Each has a segment,
///   and the device is done with them. Unless `frees` is false, they are the first slots of the
///   consumer.
/// - If `count` is 1, the device wrote the first `len` bytes of the segment. Otherwise it wrote to
///   each segment as many as `lens` of the consumer says, and `len` is the sum.
/// - If `is_synced`, the CPU sees these bytes. Otherwise nobody has a reference to them.
///
/// # Examples
///
/// ```
/// # use kernel::dma::{ring::{Consumer, ReceiveDescriptor, RingRegisters}, FromDevice};
/// # use kernel::prelude::*;
/// /// Copies what is short, and keeps the buffers of what is long.
/// fn receive<'a, Q>(
///     rx: &mut Consumer<'a, Q, KBox<[u8; 2048]>>,
///     mut copy: impl FnMut(&[u8]),
///     mut keep: impl FnMut(KBox<[u8; 2048]>, usize),
/// ) -> Result
/// where
///     Q: RingRegisters<Direction = FromDevice>,
///     Q::Descriptor: ReceiveDescriptor,
/// {
///     while let Some(frame) = rx.receive() {
///         if frame.len() <= 256 {
///             frame.segments().for_each(&mut copy);
///             frame.recycle();
///         } else {
///             frame.replace_each(|| Ok(KBox::new([0; 2048], GFP_KERNEL)?), &mut keep)?;
///         }
///     }
///     Ok(())
/// }
/// ```
#[must_use = "dropping it throws the frame away"]
pub struct Frame<'c, 'a, Q, P>
where
    Q: RingRegisters<Direction = FromDevice>,
    P: Segment<'a, FromDevice>,
{
    consumer: &'c mut Consumer<'a, Q, P>,
    /// The counter of the first slot.
    at: u32,
    count: u32,
    first: NonNull<Slot<P>>,
    len: usize,
    descriptor: Q::Descriptor,
    is_bad: bool,
    is_synced: Cell<bool>,
    /// Whether the slots go back to the producer when this is dropped. Otherwise whoever made it
    /// gives them back.
    frees: bool,
}

// SAFETY: It borrows the consumer, which is `Send`, and points to slots of the consumer only.
unsafe impl<'a, Q, P> Send for Frame<'_, 'a, Q, P>
where
    Q: RingRegisters<Direction = FromDevice>,
    P: Segment<'a, FromDevice>,
{
}

impl<'c, 'a, Q, P> Frame<'c, 'a, Q, P>
where
    Q: RingRegisters<Direction = FromDevice>,
    Q::Descriptor: ReceiveDescriptor,
    P: Segment<'a, FromDevice>,
{
    /// Returns how many bytes were received, in all segments together.
    #[inline]
    #[expect(clippy::len_without_is_empty, reason = "what is empty is a frame, too")]
    pub fn len(&self) -> usize {
        self.len
    }

    /// Returns the number of segments.
    #[inline]
    pub fn count(&self) -> u32 {
        self.count
    }

    /// Returns whether the device calls the frame bad. Such frames are handed out only if the
    /// driver has asked for them by [`Consumer::receive_bad`].
    #[inline]
    pub fn is_bad(&self) -> bool {
        self.is_bad
    }

    /// Returns the last descriptor of the frame, as the device wrote it.
    #[inline]
    pub fn descriptor(&self) -> Untrusted<Q::Descriptor> {
        Untrusted::new(self.descriptor)
    }

    /// Makes the CPU see what the device wrote to all segments, in the first call.
    #[inline]
    fn sync_for_cpu(&self) {
        // INVARIANT: The segments are synced below.
        if self.is_synced.replace(true) {
            return;
        }

        for i in 0..self.count {
            let place = self.consumer.layout.place(self.at.wrapping_add(i));

            // SAFETY: This is a slot of the frame, and the device wrote that many bytes there.
            // Nobody has a reference to them, since they weren't synced before.
            unsafe { self.sync_segment(place, self.len_of(i)) };
        }
    }

    /// Makes the CPU see what the device wrote to a segment; returns where its bytes are.
    ///
    /// # Safety
    ///
    /// `place` must be that of a slot of the frame, and nobody may have a reference to the segment.
    /// `len` must be how many bytes the device wrote there.
    #[inline]
    unsafe fn sync_segment(&self, mut place: NonNull<Slot<P>>, len: usize) -> Option<*const u8> {
        // SAFETY: By the safety requirements this is a slot of the frame, and nobody refers to it.
        let slot = unsafe { place.as_mut() };
        let segment = slot.segment.as_mut()?;

        // SAFETY: A segment in a slot is mapped; the device is done with it.
        Some(unsafe { segment.sync_for_cpu(self.consumer.dma, slot.addr, len) })
    }

    /// Returns the bytes of a frame of one segment; [`None`] if it has several.
    ///
    /// The first call syncs them (C: `dma_sync_single_for_cpu()`). Context: any.
    #[inline]
    pub fn bytes(&self) -> Option<&[u8]> {
        if self.count != 1 {
            return None;
        }

        let bytes = if self.is_synced.replace(true) {
            // SAFETY: The slot is ours.
            let slot = unsafe { self.first.as_ref() };

            Held::<FromDevice>::as_ptr(slot.segment.as_ref()?)
        } else {
            // SAFETY: This is the slot of the frame, and the device wrote that many bytes there.
            // Nobody has a reference to them, since they weren't synced before.
            unsafe { self.sync_segment(self.first, self.len) }?
        };

        // SAFETY: The device is done with the buffer, and the CPU sees that many bytes. Nobody
        // writes to it as long as `self` is borrowed.
        Some(unsafe { core::slice::from_raw_parts(bytes, self.len) })
    }

    /// Returns the bytes, segment by segment.
    ///
    /// The first call syncs all of them (C: `dma_sync_single_for_cpu()`). Context: any.
    #[inline]
    pub fn segments<'s>(&'s self) -> impl Iterator<Item = &'s [u8]> + use<'s, 'c, 'a, Q, P> {
        self.sync_for_cpu();

        (0..self.count).filter_map(|i| {
            // SAFETY: The slot is ours.
            let segment = unsafe { self.consumer.layout.slot(self.at.wrapping_add(i)) }
                .segment
                .as_ref()?;

            // SAFETY: As in `bytes()`.
            Some(unsafe {
                core::slice::from_raw_parts(Held::<FromDevice>::as_ptr(segment), self.len_of(i))
            })
        })
    }

    /// Returns how many bytes were received in a segment.
    #[inline]
    fn len_of(&self, segment: u32) -> usize {
        if self.count == 1 {
            return self.len;
        }

        // CAST: Widening.
        self.consumer
            .lens
            .get(segment as usize)
            .map_or(0, |len| *len as usize)
    }

    /// Leaves the buffers in their slots, where they stay mapped, as dropping the frame does.
    #[inline]
    pub fn recycle(self) {}

    /// Takes the buffer of a frame of one segment, unmapped, and puts `segment` in its place. Use
    /// it to keep what was received: the first [`len`](Self::len) bytes.
    ///
    /// `segment` is mapped before the buffer is taken. So whatever fails, the ring has as many
    /// buffers as before, and goes on receiving.
    ///
    /// Context: any.
    ///
    /// # Errors
    ///
    /// The frame and `segment` come back, with
    ///
    /// - [`EINVAL`] if the frame has several segments: use [`replace_each`](Self::replace_each);
    /// - [`EOVERFLOW`] if `segment` is longer than [`Descriptor::MAX_LEN`];
    /// - what [`Streaming::map`](super::super::Streaming::map) returned.
    ///
    /// # Examples
    ///
    /// ```
    /// # use kernel::dma::{ring::{Consumer, ReceiveDescriptor, RingRegisters}, FromDevice};
    /// # use kernel::prelude::*;
    /// /// Gives frames to `keep`, as long as there is memory; returns how many were dropped.
    /// fn receive<'a, Q>(
    ///     rx: &mut Consumer<'a, Q, KBox<[u8; 2048]>>,
    ///     mut keep: impl FnMut(KBox<[u8; 2048]>, usize),
    /// ) -> u32
    /// where
    ///     Q: RingRegisters<Direction = FromDevice>,
    ///     Q::Descriptor: ReceiveDescriptor,
    /// {
    ///     let mut dropped = 0;
    ///
    ///     rx.receive_each(64, |frame| {
    ///         let len = frame.len();
    ///         let kept = KBox::new([0; 2048], GFP_ATOMIC)
    ///             .map_err(Error::from)
    ///             .and_then(|buf| Ok(frame.replace(buf)?));
    ///
    ///         match kept {
    ///             Ok(buf) => keep(buf, len),
    ///             // Its buffer is where it was.
    ///             Err(_) => dropped += 1,
    ///         }
    ///     });
    ///     dropped
    /// }
    /// ```
    #[inline]
    pub fn replace(mut self, segment: P) -> Result<P, ErrorWith<(Self, P)>> {
        if self.count != 1 {
            return Err(ErrorWith {
                error: EINVAL,
                value: (self, segment),
            });
        }

        let synced = if self.is_synced.get() { self.len } else { 0 };

        // SAFETY: This is a slot of the frame. `self` was moved here, so nobody refers to the
        // segment. The CPU sees its first `synced` bytes.
        match unsafe { self.exchange(self.first, segment, synced) } {
            Ok(segment) => Ok(segment),
            Err(ErrorWith { error, value }) => Err(ErrorWith {
                error,
                value: (self, value),
            }),
        }
    }

    /// As [`replace`](Self::replace), for a frame of any number of segments. `alloc` makes the
    /// buffers that take their places; `keep` gets each buffer of the frame, with how many bytes
    /// were received there.
    ///
    /// Context: any in which `alloc` and `keep` may be called.
    ///
    /// # Errors
    ///
    /// What `alloc` or [`Streaming::map`](super::super::Streaming::map) returned, or [`EOVERFLOW`]
    /// if a new buffer is longer than [`Descriptor::MAX_LEN`]. The buffers that `keep` didn't get
    /// stay in the ring. So the frame is incomplete, and what `keep` got is to be dropped.
    ///
    /// # Examples
    ///
    /// ```
    /// # use kernel::dma::{ring::{Frame, ReceiveDescriptor, RingRegisters}, FromDevice};
    /// # use kernel::prelude::*;
    /// /// Returns the buffers of a frame, and how many bytes are in each.
    /// fn keep<'a, Q>(
    ///     frame: Frame<'_, 'a, Q, KBox<[u8; 2048]>>,
    /// ) -> Result<KVec<(KBox<[u8; 2048]>, usize)>>
    /// where
    ///     Q: RingRegisters<Direction = FromDevice>,
    ///     Q::Descriptor: ReceiveDescriptor,
    /// {
    ///     let mut segments = KVec::with_capacity(frame.count().try_into()?, GFP_KERNEL)?;
    ///
    ///     frame.replace_each(
    ///         || Ok(KBox::new([0; 2048], GFP_KERNEL)?),
    ///         |buf, len| drop(segments.push_within_capacity((buf, len))),
    ///     )?;
    ///     Ok(segments)
    /// }
    /// ```
    pub fn replace_each(
        mut self,
        mut alloc: impl FnMut() -> Result<P>,
        mut keep: impl FnMut(P, usize),
    ) -> Result {
        for i in 0..self.count {
            let place = self.consumer.layout.place(self.at.wrapping_add(i));
            let len = self.len_of(i);
            let synced = if self.is_synced.get() { len } else { 0 };
            let segment = alloc()?;

            // SAFETY: As in `replace()`.
            let segment = unsafe { self.exchange(place, segment, synced) }?;

            keep(segment, len);
        }

        Ok(())
    }

    /// Maps `segment`, puts it into a slot, and returns the segment that was there, unmapped.
    ///
    /// # Errors
    ///
    /// `segment` comes back if it can't be mapped, and nothing has changed.
    ///
    /// # Safety
    ///
    /// `place` must be that of a slot of the frame, and nobody may have a reference to the segment
    /// in it. The CPU must see the first `synced` bytes of that segment, which must not have fewer.
    #[inline]
    unsafe fn exchange(
        &mut self,
        mut place: NonNull<Slot<P>>,
        mut segment: P,
        synced: usize,
    ) -> Result<P, ErrorWith<P>> {
        let dma = self.consumer.dma;

        if Held::<FromDevice>::len(&segment) > Q::Descriptor::MAX_LEN {
            return Err(ErrorWith {
                error: EOVERFLOW,
                value: segment,
            });
        }

        // SAFETY: `segment` isn't mapped, since it was the driver's. It is unmapped when it is
        // taken out of the slot. Only a descriptor of this ring gets the address.
        let addr = match unsafe { Held::<FromDevice>::map(&mut segment, dma) } {
            Ok(addr) => addr,
            Err(error) => {
                return Err(ErrorWith {
                    error,
                    value: segment,
                })
            }
        };

        // SAFETY: By the safety requirements this is a slot of the frame, and nobody refers to it.
        let slot = unsafe { place.as_mut() };

        // SAFETY: By the type invariants each slot of a frame has a segment.
        let old = unsafe { slot.segment.as_mut().unwrap_unchecked() };

        // SAFETY: A segment in a slot is mapped at `slot.addr`. By the type invariants the device
        // is done with it. By the safety requirements it has at least `synced` bytes.
        unsafe { Held::<FromDevice>::unmap(old, dma, slot.addr, synced) };

        slot.addr = addr;
        Ok(core::mem::replace(old, segment))
    }

    /// Takes the buffers, unmapped, with how many bytes were received in each.
    ///
    /// Their slots are empty then. If all buffers are taken, the ring receives nothing before
    /// [`Producer::refill`](super::Producer::refill) gets memory, and no interrupt reminds the
    /// driver. So use this to empty a ring, or for a frame now and then, and
    /// [`replace`](Self::replace) to keep what is received. Dropping the iterator drops the buffers
    /// that are left.
    ///
    /// Context: any in which segments may be dropped.
    #[inline]
    pub fn take(self) -> impl Iterator<Item = (P, usize)> + use<'c, 'a, Q, P> {
        let this = core::mem::ManuallyDrop::new(self);
        let Self {
            at, count, frees, ..
        } = *this;
        let whole = (count == 1).then_some(this.len);
        let is_synced = this.is_synced.get();

        // INVARIANT: As those of the frame.
        let mut taken = Segments {
            // SAFETY: `this` is not dropped and not used afterwards.
            consumer: unsafe { core::ptr::read(&this.consumer) },
            next: at,
            left: count,
            frees,
        };

        core::iter::from_fn(move || {
            let len = whole.unwrap_or_else(|| {
                // CAST: Widening.
                let i = taken.next.wrapping_sub(at) as usize;

                // CAST: Widening.
                taken.consumer.lens.get(i).map_or(0, |len| *len as usize)
            });

            let synced = if is_synced { len } else { 0 };

            // SAFETY: By the type invariants each slot of a frame has a segment. So the next
            // segment is that of the next slot, and the CPU sees its first `synced` bytes.
            Some((unsafe { taken.advance(synced) }?, len))
        })
    }

    /// Takes the buffer of a frame of one segment, unmapped. Its first [`len`](Self::len) bytes
    /// were received.
    ///
    /// As [`take`](Self::take), it leaves the slot empty. It costs less. Context: any.
    ///
    /// # Errors
    ///
    /// A frame of several segments comes back.
    ///
    /// # Examples
    ///
    /// ```
    /// # use kernel::dma::{ring::{Consumer, ReceiveDescriptor, RingRegisters}, FromDevice};
    /// # use kernel::prelude::*;
    /// /// Gives frames of one buffer to `keep`, and leaves others in the ring.
    /// fn receive<'a, Q>(
    ///     rx: &mut Consumer<'a, Q, KBox<[u8; 2048]>>,
    ///     mut keep: impl FnMut(KBox<[u8; 2048]>, usize),
    /// ) -> u32
    /// where
    ///     Q: RingRegisters<Direction = FromDevice>,
    ///     Q::Descriptor: ReceiveDescriptor,
    /// {
    ///     rx.receive_each(64, |frame| {
    ///         let len = frame.len();
    ///
    ///         if let Ok(buf) = frame.take_single() {
    ///             keep(buf, len);
    ///         }
    ///     })
    /// }
    /// ```
    #[inline]
    pub fn take_single(self) -> Result<P, Self> {
        if self.count != 1 {
            return Err(self);
        }

        let synced = if self.is_synced.get() { self.len } else { 0 };
        let mut first = self.first;
        // SAFETY: The slot is ours.
        let slot = unsafe { first.as_mut() };

        // SAFETY: The device is done with the segment; the CPU sees its first `synced` bytes.
        match unsafe { slot.take::<FromDevice>(self.consumer.dma, synced) } {
            Some(segment) => Ok(segment),
            None => Err(self),
        }
    }
}

impl<'a, Q, P> Drop for Frame<'_, 'a, Q, P>
where
    Q: RingRegisters<Direction = FromDevice>,
    P: Segment<'a, FromDevice>,
{
    #[inline]
    fn drop(&mut self) {
        if self.frees {
            self.consumer.advance(self.count);
        }
    }
}

/// The segments of a frame with which the device is done: an iterator that unmaps each of them.
///
/// Dropping it drops the segments that are left.
///
/// # Invariants
///
/// The `left` slots from `next` on are slots of the frame, and the device is done with them. Unless
/// `frees` is false, the slots of the frame are the first ones of the consumer.
#[must_use = "dropping it drops the segments"]
pub struct Segments<'c, 'a, Q: RingRegisters, P: Segment<'a, Q::Direction>> {
    consumer: &'c mut Consumer<'a, Q, P>,
    /// The next slot.
    next: u32,
    /// How many slots are left, with that one.
    left: u32,
    /// As in [`Frame`].
    frees: bool,
}

impl<'a, Q: RingRegisters, P: Segment<'a, Q::Direction>> Segments<'_, 'a, Q, P> {
    /// Takes the next segment.
    ///
    /// # Safety
    ///
    /// The CPU must see the first `synced` bytes of the next segment, which must not have fewer.
    #[inline]
    unsafe fn advance(&mut self, synced: usize) -> Option<P> {
        while self.left > 0 {
            // SAFETY: The slot is ours.
            let slot = unsafe { self.consumer.layout.slot(self.next) };

            self.next = self.next.wrapping_add(1);
            self.left -= 1;

            // SAFETY: The device is done with it. It has at least `synced` bytes, by the safety
            // requirement.
            let segment = unsafe { slot.take::<Q::Direction>(self.consumer.dma, synced) };

            if segment.is_some() {
                return segment;
            }
        }

        None
    }
}

impl<'c, 'a, Q: RingRegisters<Direction = ToDevice>, P: Segment<'a, ToDevice>>
    Segments<'c, 'a, Q, P>
{
    /// Returns the last descriptor of the frame, in which some devices report whether it was sent.
    /// Each call reads it again. Context: any.
    ///
    /// # Examples
    ///
    /// ```
    /// # use kernel::{dma::{ring::{Consumer, RingRegisters}, ToDevice}, prelude::*};
    /// /// Returns how many frames the device couldn't send; `has_failed` knows its descriptors.
    /// fn clean<'a, Q: RingRegisters<Direction = ToDevice>>(
    ///     tx: &mut Consumer<'a, Q, KVec<u8>>,
    ///     has_failed: fn(&Q::Descriptor) -> bool,
    /// ) -> u32 {
    ///     let mut failed = 0;
    ///
    ///     while let Some(segments) = tx.reap() {
    ///         let check = segments.descriptor().validate(|last| Ok(has_failed(&last)));
    ///
    ///         failed += u32::from(check == Ok(true));
    ///         segments.for_each(drop);
    ///     }
    ///     failed
    /// }
    /// ```
    #[inline]
    pub fn descriptor(&self) -> Untrusted<Q::Descriptor> {
        let end = self.next.wrapping_add(self.left);

        // SAFETY: The slots up to `end` are ours, so the memory is there.
        Untrusted::new(unsafe { self.consumer.layout.read(end.wrapping_sub(1)) })
    }
}

impl<'a, Q: RingRegisters, P: Segment<'a, Q::Direction>> Iterator for Segments<'_, 'a, Q, P> {
    type Item = P;

    #[inline]
    fn next(&mut self) -> Option<P> {
        // SAFETY: 0 bytes have to be seen.
        unsafe { self.advance(0) }
    }
}

impl<'a, Q: RingRegisters, P: Segment<'a, Q::Direction>> Drop for Segments<'_, 'a, Q, P> {
    #[inline]
    fn drop(&mut self) {
        self.by_ref().for_each(drop);

        if self.frees {
            let count = self.next.wrapping_sub(self.consumer.head);

            self.consumer.advance(count);
        }
    }
}
