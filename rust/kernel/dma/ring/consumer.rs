// SPDX-License-Identifier: GPL-2.0

//! The half of a ring that gets buffers back.

use super::{
    super::{
        barrier::dma_rmb,
        Configured,
        FromDevice,
        ToDevice,
        Untrusted, //
    },
    memory::{
        Layout,
        Memory,
        Slot, //
    },
    piece::Held,
    Descriptor,
    Piece,
    Queue,
    ReceiveDescriptor, //
};
use crate::{
    prelude::*,
    sync::Arc, //
};

/// The half of a ring that gets buffers back.
///
/// Belongs to one context at a time, which is what `&mut` says.
///
/// # Invariants
///
/// The slots in `head..tail` belong to the caller of methods with `&mut self`. Each of them has a
/// piece, unless a [`Taken`] was forgotten, or it is one of a descriptor without memory.
///
/// # Examples
///
/// See the [module documentation](super).
#[repr(align(64))]
pub struct Consumer<'a, Q: Queue, P: Piece<'a, Q::Direction>> {
    dma: Configured<'a>,
    layout: Layout<Q::Descriptor, P>,
    /// The first descriptor that we aren't done with.
    head: u32,
    /// The first one that wasn't posted when we looked.
    tail: u32,
    /// How many descriptors from `head` on are done, of a frame whose end isn't.
    partial: Partial,
    memory: Arc<Memory<'a, Q, P>>,
    malformed: u64,
    /// How many bytes are in each piece of the frame that was received last, or has arrived in
    /// part, as the device said when it was asked once.
    lens: [u32; MAX_PIECES],
}

/// How many buffers a received frame may have. 16 KiB in buffers of 256 bytes.
const MAX_PIECES: usize = 64;

/// The part of a frame that has arrived.
#[derive(Clone, Copy, Default)]
struct Partial {
    count: u32,
    len: usize,
    malformed: bool,
}

// SAFETY: It owns its part of the memory, where there are pieces, which are `Send`.
unsafe impl<'a, Q: Queue, P: Piece<'a, Q::Direction>> Send for Consumer<'a, Q, P> {}

impl<'a, Q: Queue, P: Piece<'a, Q::Direction>> Consumer<'a, Q, P> {
    /// How many bytes the ring needs for a descriptor, apart from the descriptor itself. (One that
    /// sends needs four more, for the number of pieces.)
    pub const SLOT_SIZE: usize = size_of::<Slot<P>>();

    pub(super) fn new(memory: Arc<Memory<'a, Q, P>>) -> Self {
        // INVARIANT: A new ring is empty.
        Self {
            dma: memory.dma(),
            layout: memory.layout(),
            head: 0,
            tail: 0,
            partial: Partial::default(),
            memory,
            malformed: 0,
            lens: [0; MAX_PIECES],
        }
    }

    pub(super) fn is_of(&self, memory: &Arc<Memory<'a, Q, P>>) -> bool {
        Arc::ptr_eq(&self.memory, memory)
    }

    /// The ring begins anew.
    pub(super) fn reset(&mut self) {
        // INVARIANT: All slots are the producer's.
        self.head = 0;
        self.tail = 0;
        self.partial = Partial::default();
    }

    /// Goes on with another ring, which is empty.
    pub(super) fn replace(&mut self, memory: Arc<Memory<'a, Q, P>>) {
        self.layout = memory.layout();
        self.memory = memory;
        self.reset();
    }

    /// Returns how many descriptors the device was told of, and aren't reaped.
    ///
    /// Context: any.
    #[inline]
    pub fn posted(&mut self) -> u32 {
        // INVARIANT: The producer has given these slots to us.
        self.tail = self.memory.tail();
        self.tail.wrapping_sub(self.head)
    }

    /// Returns whether nothing more comes: the device was stopped, or not told of the ring yet.
    ///
    /// Frames with which it was done before may be there still. Context: any.
    #[inline]
    pub fn is_stopped(&self) -> bool {
        self.memory.is_over()
    }

    /// Returns how many frames were thrown away since what the device said of them was impossible.
    #[inline]
    pub fn malformed(&self) -> u64 {
        self.malformed
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

    /// Returns whether the device is done with a descriptor that was posted.
    #[inline]
    fn is_done(&self, layout: &Layout<Q::Descriptor, P>, at: u32) -> bool {
        // SAFETY: The memory is ours.
        let status = unsafe { layout.status(at) };

        if !Q::Descriptor::is_done(status) {
            return false;
        }

        // Ordering 3: done before the rest.
        dma_rmb();
        true
    }

    /// Gives slots back to the producer.
    #[inline]
    fn advance(&mut self, count: u32) {
        self.head = self.head.wrapping_add(count);
        // Ordering 5: slot before head.
        self.memory.set_head(self.head);
    }
}

impl<'a, Q: Queue<Direction = ToDevice>, P: Piece<'a, ToDevice>> Consumer<'a, Q, P> {
    /// Takes the pieces of the next frame, if the device is done with it.
    ///
    /// Context: any.
    #[inline]
    pub fn reap(&mut self) -> Option<Taken<'_, 'a, Q, P>> {
        let head = self.head;

        if !self.is_posted(head) {
            return None;
        }

        // SAFETY: The slot is ours.
        let count = unsafe { *self.layout.note(head) };

        // The device works the pieces off in order.
        if !self.is_done(&self.layout, head.wrapping_add(count).wrapping_sub(1)) {
            return None;
        }

        Some(Taken::new(self, count))
    }

    /// Gives the pieces of all frames with which the device is done to `give`, in order; returns
    /// how many frames.
    ///
    /// As [`reap`](Self::reap) again and again, but the slots go back to the producer together,
    /// when this returns: cheaper where frames are many. Context: as `give`.
    ///
    /// # Examples
    ///
    /// ```
    /// # use kernel::{dma::{ring::{Consumer, Queue}, ToDevice}, prelude::*};
    /// fn clean<'a, Q: Queue<Direction = ToDevice>>(
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

        while self.is_posted(at) {
            // SAFETY: The slot is ours.
            let count = unsafe { *self.layout.note(at) };

            // Most frames are in one buffer.
            let next = if count == 1 {
                self.reap_piece(at, &mut give)
            } else {
                self.reap_pieces(at, count, &mut give)
            };

            let Some(next) = next else {
                break;
            };

            at = next;
            frames += 1;
        }

        if frames > 0 {
            self.advance(at.wrapping_sub(self.head));
        }

        frames
    }

    /// Gives a frame of one descriptor to `give`, if the device is done with it; returns what comes
    /// after it.
    #[inline]
    fn reap_piece(&mut self, at: u32, give: &mut impl FnMut(P)) -> Option<u32> {
        if !self.is_done(&self.layout, at) {
            return None;
        }

        // SAFETY: The slot is ours, and the device is done with it.
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
        // SAFETY: By the safety requirements.
        let slot = unsafe { self.layout.slot(at) };

        if let Some(mut piece) = slot.piece.take() {
            // SAFETY: A piece in a slot is mapped, and the device is done with it.
            unsafe { piece.unmap(self.dma, slot.addr, 0) };
            give(piece);
        }
    }

    /// As [`reap_piece`](Self::reap_piece), for a frame of that many descriptors.
    #[inline(never)]
    fn reap_pieces(&mut self, at: u32, count: u32, give: &mut impl FnMut(P)) -> Option<u32> {
        let end = at.wrapping_add(count);

        // The device works them off in order.
        if !self.is_done(&self.layout, end.wrapping_sub(1)) {
            return None;
        }

        for i in 0..count {
            // SAFETY: The slot is ours, and the device is done with all of them.
            unsafe { self.empty(at.wrapping_add(i), give) };
        }

        Some(end)
    }
}

impl<'a, Q, P> Consumer<'a, Q, P>
where
    Q: Queue<Direction = FromDevice>,
    Q::Descriptor: ReceiveDescriptor,
    P: Piece<'a, FromDevice>,
{
    /// Returns the next frame, if the device is done with it.
    ///
    /// Frames of which the device said what can't be are thrown away:
    /// [`malformed`](Self::malformed) counts them. So are those that take more than 64 buffers.
    /// When it has thrown a ringful away, this returns [`None`], whether there is more or not.
    /// Context: any.
    // A call for each frame, with the frame on the stack, would cost more than what is done here.
    #[inline(always)]
    pub fn receive(&mut self) -> Option<Frame<'_, 'a, Q, P>> {
        // Most frames are in one buffer. What follows does the same for all others.
        if self.partial.count == 0 {
            let at = self.head;

            if !self.is_posted(at) {
                return None;
            }

            // A copy: where things are doesn't change, which the compiler can't know otherwise, for
            // the device accesses memory.
            let layout = self.layout;

            if !self.is_done(&layout, at) {
                return None;
            }

            // SAFETY: The memory is ours.
            let descriptor = unsafe { layout.read(at) };
            let received = descriptor.received();

            if received.last {
                // SAFETY: The slot is ours, and the device is done with it.
                if let Ok(len) = unsafe { self.take_over(&layout, at, received.len) } {
                    // CAST: Not more than a mapped buffer has.
                    self.lens[0] = len as u32;

                    // INVARIANT: The device is done with the first slot.
                    return Some(Frame {
                        count: 1,
                        len,
                        descriptor,
                        consumer: self,
                    });
                }
            }
        }

        self.receive_pieces()
    }

    /// As [`receive`](Self::receive), for frames of any number of pieces.
    #[inline(never)]
    fn receive_pieces(&mut self) -> Option<Frame<'_, 'a, Q, P>> {
        let layout = self.layout;
        let mut partial = self.partial;
        let mut budget = self.layout.usable();

        loop {
            let at = self.head.wrapping_add(partial.count);

            if !self.is_posted(at) {
                // It takes all descriptors that there are, and has no end.
                if partial.count == self.layout.usable() {
                    self.throw_away(&mut partial);
                }

                break;
            }

            if !self.is_done(&layout, at) {
                break;
            }

            // SAFETY: The memory is ours.
            let descriptor = unsafe { layout.read(at) };
            let received = descriptor.received();

            // SAFETY: The slot is ours, and the device is done with it.
            let len = unsafe { self.take_over(&layout, at, received.len) };

            // CAST: Widening.
            match (len, self.lens.get_mut(partial.count as usize)) {
                (Ok(len), Some(place)) => {
                    // CAST: Not more than a mapped buffer has.
                    *place = len as u32;
                    partial.len += len;
                }
                _ => partial.malformed = true,
            }

            partial.count += 1;

            if received.last && !partial.malformed {
                self.partial = Partial::default();

                return Some(Frame {
                    count: partial.count,
                    len: partial.len,
                    descriptor,
                    consumer: self,
                });
            }

            if received.last || partial.count == self.layout.usable() {
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

    /// Lets the CPU see what the device wrote; returns how much.
    ///
    /// # Safety
    ///
    /// The slot must be ours, and the device done with it.
    #[inline]
    unsafe fn take_over(
        &mut self,
        layout: &Layout<Q::Descriptor, P>,
        at: u32,
        len: Untrusted<usize>,
    ) -> Result<usize> {
        // SAFETY: By the safety requirements.
        let slot = unsafe { layout.slot(at) };
        let piece = slot.piece.as_mut().ok_or(EIO)?;
        let len = len.at_most(Held::<FromDevice>::len(piece))?;

        // SAFETY: By the safety requirements; a piece in a slot is mapped.
        unsafe { piece.sync_for_cpu(self.dma, slot.addr, len) };
        Ok(len)
    }

    /// Leaves the buffers of an impossible frame in their slots.
    #[cold]
    fn throw_away(&mut self, partial: &mut Partial) {
        self.advance(partial.count);
        self.malformed += 1;
        *partial = Partial::default();
    }
}

/// A frame that was received, in buffers that are still mapped.
///
/// Dropping it leaves the buffers in their slots, for
/// [`Producer::refill`](super::Producer::refill).
///
/// # Invariants
///
/// The first `count` slots of the consumer are those of the frame, and the device is done with
/// them.
///
/// # Examples
///
/// ```
/// # use kernel::{dma::{ring::{Consumer, Queue, ReceiveDescriptor}, FromDevice}, prelude::*};
/// /// Copies what is short, and keeps the buffer of what is long.
/// fn receive<'a, Q>(
///     rx: &mut Consumer<'a, Q, KBox<[u8; 2048]>>,
///     mut copy: impl FnMut(&[u8]),
///     mut keep: impl FnMut(KBox<[u8; 2048]>, usize),
/// ) where
///     Q: Queue<Direction = FromDevice>,
///     Q::Descriptor: ReceiveDescriptor,
/// {
///     while let Some(frame) = rx.receive() {
///         if frame.len() <= 256 {
///             frame.pieces().for_each(&mut copy);
///             frame.recycle();
///         } else {
///             frame.take().for_each(|(buf, len)| keep(buf, len));
///         }
///     }
/// }
/// ```
#[must_use = "dropping it throws the frame away"]
pub struct Frame<'c, 'a, Q, P>
where
    Q: Queue<Direction = FromDevice>,
    P: Piece<'a, FromDevice>,
{
    consumer: &'c mut Consumer<'a, Q, P>,
    count: u32,
    len: usize,
    descriptor: Q::Descriptor,
}

impl<'c, 'a, Q, P> Frame<'c, 'a, Q, P>
where
    Q: Queue<Direction = FromDevice>,
    Q::Descriptor: ReceiveDescriptor,
    P: Piece<'a, FromDevice>,
{
    /// Returns the number of bytes, in all pieces.
    #[inline]
    #[expect(clippy::len_without_is_empty, reason = "what is empty is a frame, too")]
    pub fn len(&self) -> usize {
        self.len
    }

    /// Returns the number of pieces.
    #[inline]
    pub fn count(&self) -> u32 {
        self.count
    }

    /// Returns the last descriptor of the frame, as the device wrote it.
    #[inline]
    pub fn descriptor(&self) -> Untrusted<Q::Descriptor> {
        Untrusted::new(self.descriptor)
    }

    /// Returns the bytes of a frame of one piece.
    #[inline]
    pub fn bytes(&self) -> Option<&[u8]> {
        if self.count != 1 {
            return None;
        }

        // SAFETY: The slot is ours.
        let piece = unsafe { self.consumer.layout.slot(self.consumer.head) }
            .piece
            .as_ref()?;

        // SAFETY: The device is done with the buffer, of which the CPU sees that many bytes; nobody
        // writes to it as long as it is borrowed.
        Some(unsafe { core::slice::from_raw_parts(Held::<FromDevice>::as_ptr(piece), self.len) })
    }

    /// Returns the bytes, piece by piece.
    #[inline]
    pub fn pieces(&self) -> impl Iterator<Item = &[u8]> {
        let Consumer {
            head, layout, lens, ..
        } = &*self.consumer;

        // CAST: Widening.
        lens.iter()
            .take(self.count as usize)
            .zip(0..)
            .filter_map(move |(len, i)| {
                // SAFETY: The slot is ours.
                let piece = unsafe { layout.slot(head.wrapping_add(i)) }
                    .piece
                    .as_ref()?;

                // CAST: Widening.
                // SAFETY: As in `bytes()`.
                Some(unsafe {
                    core::slice::from_raw_parts(Held::<FromDevice>::as_ptr(piece), *len as usize)
                })
            })
    }

    /// Leaves the buffers in their slots, where they stay mapped.
    #[inline]
    pub fn recycle(self) {}

    /// Takes the buffers, which are unmapped, and how many bytes are in each.
    ///
    /// Context: as unmapping and dropping pieces.
    #[inline]
    pub fn take(self) -> impl Iterator<Item = (P, usize)> + use<'c, 'a, Q, P> {
        let this = core::mem::ManuallyDrop::new(self);
        let count = this.count;

        // SAFETY: `this` is not dropped and not used afterwards.
        let mut taken = Taken::new(unsafe { core::ptr::read(&this.consumer) }, count);

        core::iter::from_fn(move || {
            // CAST: Widening.
            let i = taken.next.wrapping_sub(taken.consumer.head) as usize;
            let len = taken.consumer.lens.get(i).map_or(0, |len| *len as usize);

            // SAFETY: The CPU sees that much of it.
            Some((unsafe { taken.advance(len) }?, len))
        })
    }
}

impl<'a, Q, P> Drop for Frame<'_, 'a, Q, P>
where
    Q: Queue<Direction = FromDevice>,
    P: Piece<'a, FromDevice>,
{
    #[inline]
    fn drop(&mut self) {
        self.consumer.advance(self.count);
    }
}

/// The pieces of a frame with which the device is done, unmapped one after the other.
///
/// Dropping it drops those that are left.
///
/// # Invariants
///
/// The first `count` slots of the consumer are those of the frame, and the device is done with
/// them.
#[must_use = "dropping it drops the pieces"]
pub struct Taken<'c, 'a, Q: Queue, P: Piece<'a, Q::Direction>> {
    consumer: &'c mut Consumer<'a, Q, P>,
    /// The next slot.
    next: u32,
    /// How many there are from there on.
    left: u32,
}

impl<'c, 'a, Q: Queue, P: Piece<'a, Q::Direction>> Taken<'c, 'a, Q, P> {
    #[inline]
    fn new(consumer: &'c mut Consumer<'a, Q, P>, count: u32) -> Self {
        Self {
            next: consumer.head,
            left: count,
            consumer,
        }
    }
}

impl<'a, Q: Queue, P: Piece<'a, Q::Direction>> Taken<'_, 'a, Q, P> {
    /// Takes the next piece.
    ///
    /// # Safety
    ///
    /// The CPU must see the first `synced` bytes of it already.
    #[inline]
    unsafe fn advance(&mut self, synced: usize) -> Option<P> {
        while self.left > 0 {
            // SAFETY: The slot is ours.
            let slot = unsafe { self.consumer.layout.slot(self.next) };

            self.next = self.next.wrapping_add(1);
            self.left -= 1;

            if let Some(mut piece) = slot.piece.take() {
                // SAFETY: A piece in a slot is mapped, and the device is done with it.
                unsafe { piece.unmap(self.consumer.dma, slot.addr, synced) };
                return Some(piece);
            }
        }

        None
    }
}

impl<'a, Q: Queue, P: Piece<'a, Q::Direction>> Iterator for Taken<'_, 'a, Q, P> {
    type Item = P;

    #[inline]
    fn next(&mut self) -> Option<P> {
        // SAFETY: Nothing needs to be seen.
        unsafe { self.advance(0) }
    }
}

impl<'a, Q: Queue, P: Piece<'a, Q::Direction>> Drop for Taken<'_, 'a, Q, P> {
    #[inline]
    fn drop(&mut self) {
        self.by_ref().for_each(drop);

        let count = self.next.wrapping_sub(self.consumer.head);

        self.consumer.advance(count);
    }
}
