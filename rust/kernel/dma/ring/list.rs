// SPDX-License-Identifier: GPL-2.0

//! Lists of pieces in a ring: frames of several descriptors that have one owner.

use super::{
    super::{
        mapping::mapper::is_same,
        DmaAddress,
        Mapper,
        Scatter,
        ScatterBox,
        ScatterMap,
        ToDevice,
        Untrusted, //
    },
    segment::Held,
    Chain,
    Descriptor,
    RingRegisters,
    Segment, //
};
use crate::{
    error::ErrorWith,
    prelude::*, //
};

/// What a ring keeps for a descriptor that names a part of a list.
///
/// [`Chain::push_list`] makes one for each descriptor. The last one owns the list: when the frame
/// comes back, [`into_list`](Self::into_list) of the last part returns the list, and that of the
/// others nothing.
pub struct ListPart<'a, S: Scatter> {
    addr: DmaAddress,
    len: usize,
    state: State<'a, S>,
}

/// # Invariants
///
/// In a slot of a ring, the state is `Mapped`: the device can access `len` bytes at `addr`. The
/// slot with the list is the last of those with parts of it. The others are emptied with it, or, in
/// a chain that was forgotten, before they are used again; the device wasn't told of these.
enum State<'a, S: Scatter> {
    /// Part of a list that this or a later slot has.
    Mapped(Option<ScatterMap<'a, S, ToDevice>>),
    /// The device is done with it. It can't be posted again.
    Back(Option<ScatterBox<'a, S, ToDevice>>),
}

impl<'a, S: Scatter> ListPart<'a, S> {
    /// Returns the list, if this is its last part and the ring has given it back.
    ///
    /// It is still mapped: [`ScatterBox::submit`] makes it ready to be posted again, and
    /// [`ScatterBox::unmap`] returns the memory. Context: any.
    #[inline]
    pub fn into_list(self) -> Option<ScatterBox<'a, S, ToDevice>> {
        match self.state {
            State::Back(list) => list,
            State::Mapped(_) => None,
        }
    }
}

/// A segment of a ring that sends lists, and single segments as well: buffers, or [`Fragment`]s.
///
/// # Examples
///
/// A ring that sends a header from a buffer, and a body from memory in pieces:
///
/// ```
/// # use kernel::dma::{ring::{Consumer, Descriptor, Producer, RingRegisters}, ToDevice};
/// # use kernel::prelude::*;
/// use kernel::dma::{ring::Gathered, ScatterMap};
///
/// type Body = VVec<u8>;
///
/// fn send<'a, Q>(
///     tx: &mut Producer<'a, Q, Gathered<'a, KVec<u8>, Body>>,
///     head: KVec<u8>,
///     body: ScatterMap<'a, Body, ToDevice>,
/// ) -> Result
/// where
///     Q: RingRegisters<Direction = ToDevice>,
///     Q::Descriptor: Descriptor<Options = ()>,
/// {
///     let mut frame = tx.new_chain();
///
///     frame.push(Gathered::Segment(head), ())?;
///     frame.push_list(body, ())?;
///     frame.commit()?;
///     tx.kick()
/// }
///
/// /// Returns how many bodies were sent.
/// fn clean<'a, Q: RingRegisters<Direction = ToDevice>>(
///     tx: &mut Consumer<'a, Q, Gathered<'a, KVec<u8>, Body>>,
/// ) -> usize {
///     let mut sent = 0;
///
///     tx.reap_each(|segment| {
///         if let Gathered::Part(part) = segment {
///             sent += part.into_list().map_or(0, |body| body.unmap().len());
///         }
///     });
///     sent
/// }
/// ```
///
/// [`Fragment`]: super::Fragment
pub enum Gathered<'a, P, S: Scatter> {
    /// A single segment.
    Segment(P),
    /// A part of a list.
    Part(ListPart<'a, S>),
}

// SAFETY: As for `P`, and for a part of a list:
// 1. While it is `Mapped`, the device can access it: it is a segment, or a part of one, of a
//    `ScatterMap`, which is in the slot of the last part. That slot is emptied with this one, when
//    the device is done with the whole frame, or wasn't told of it.
// 2. The address and the length are in the value, and never change.
unsafe impl<'a, P: Segment<'a, ToDevice>, S: Scatter> Held<'a, ToDevice> for Gathered<'a, P, S> {
    /// # Errors
    ///
    /// [`EINVAL`] for a part of a list that came back from a ring.
    #[inline]
    unsafe fn map(&mut self, dma: Mapper<'a>) -> Result<DmaAddress> {
        match self {
            // SAFETY: The requirements are those of this method.
            Self::Segment(segment) => unsafe { segment.map(dma) },
            Self::Part(ListPart {
                addr,
                state: State::Mapped(_),
                ..
            }) => Ok(*addr),
            Self::Part(_) => Err(EINVAL),
        }
    }

    #[inline]
    unsafe fn unmap(&mut self, dma: Mapper<'a>, addr: DmaAddress, synced: usize) {
        match self {
            // SAFETY: The requirements are those of this method.
            Self::Segment(segment) => unsafe { segment.unmap(dma, addr, synced) },
            Self::Part(part) => {
                let list = match &mut part.state {
                    State::Mapped(list) => list.take(),
                    State::Back(_) => return,
                };

                part.state = State::Back(list.map(|list| {
                    let all = Untrusted::new(list.len());

                    // SAFETY: By the safety requirements the device is done with this part, which
                    // is the last one of its frame that names the list.
                    match unsafe { list.complete(all) } {
                        Ok(list) => list,
                        Err(refused) => refused.value,
                    }
                }));
            }
        }
    }

    #[inline]
    unsafe fn sync_for_cpu(&mut self, dma: Mapper<'a>, addr: DmaAddress, len: usize) -> *const u8 {
        match self {
            // SAFETY: The requirements are those of this method.
            Self::Segment(segment) => unsafe { segment.sync_for_cpu(dma, addr, len) },
            // The device only reads it.
            Self::Part(_) => core::ptr::null(),
        }
    }

    #[inline]
    fn hand_over(&mut self) {
        if let Self::Segment(segment) = self {
            segment.hand_over();
        }
    }

    #[inline]
    fn len(&self) -> usize {
        match self {
            Self::Segment(segment) => segment.len(),
            Self::Part(part) => part.len,
        }
    }

    #[inline]
    fn as_ptr(&self) -> *const u8 {
        match self {
            Self::Segment(segment) => segment.as_ptr(),
            Self::Part(_) => core::ptr::null(),
        }
    }
}

impl<'a, Q, P, S> Chain<'_, 'a, Q, Gathered<'a, P, S>>
where
    Q: RingRegisters<Direction = ToDevice>,
    P: Segment<'a, ToDevice>,
    S: Scatter,
{
    /// Adds all of a list to the frame: a descriptor for each of its segments, or more where one is
    /// longer than [`Descriptor::MAX_LEN`]. `options` are those of each.
    ///
    /// When the device is done, the list comes back from the last of these segments, by
    /// [`ListPart::into_list`]. Context: any.
    ///
    /// # Errors
    ///
    /// The list comes back, and the chain is as before, with
    ///
    /// - [`EBUSY`] if there aren't enough free descriptors;
    /// - [`EOVERFLOW`] if the ring doesn't have as many;
    /// - [`EINVAL`] if it is mapped for another device, or if somebody asked for its
    ///   [addresses](ScatterMap::segments);
    /// - what [`Descriptor::new`] returned for a part of it, or for the segment before.
    pub fn push_list(
        &mut self,
        list: ScatterMap<'a, S, ToDevice>,
        options: <Q::Descriptor as Descriptor>::Options,
    ) -> Result<(), ErrorWith<ScatterMap<'a, S, ToDevice>>> {
        const { assert!(Q::Descriptor::MAX_LEN > 0, "a descriptor names memory") };

        let mark = self.mark();

        if let Err(error) = self.push_segments(&list, options) {
            self.shorten(mark);
            return Err(ErrorWith { error, value: list });
        }

        if let Some(Gathered::Part(part)) = self.last_segment() {
            // INVARIANT: All parts of the list are in the chain, this one last.
            part.state = State::Mapped(Some(list));
            return Ok(());
        }

        // A list has a segment, so this doesn't happen.
        self.shorten(mark);
        Err(ErrorWith {
            error: EINVAL,
            value: list,
        })
    }

    /// Adds the parts of a list. The caller must give the list to the last of them, or remove them.
    #[inline]
    fn push_segments(
        &mut self,
        list: &ScatterMap<'a, S, ToDevice>,
        options: <Q::Descriptor as Descriptor>::Options,
    ) -> Result {
        let max = Q::Descriptor::MAX_LEN;

        if !is_same(list.dma().device(), self.dma().device()) || list.is_shown() {
            return Err(EINVAL);
        }

        let count = list
            .segments_unshown()
            .map(|segment| segment.len().div_ceil(max))
            .sum();

        self.check_room(count)?;

        for segment in list.segments_unshown() {
            let mut rest = Some(segment);

            while let Some(segment) = rest {
                let part = segment.slice(0..max.min(segment.len()))?;
                let (addr, len) = (part.bits(), part.len());

                rest = segment.offset(len).ok();

                let part = ListPart {
                    addr,
                    len,
                    state: State::Mapped(None),
                };

                // SAFETY: The list is mapped for the device of the ring, and has `len` bytes at
                // `addr`, not more than `MAX_LEN`. The caller sees to it that it stays so.
                unsafe { self.push_mapped(Gathered::Part(part), addr, options) }?;
            }
        }

        Ok(())
    }
}
