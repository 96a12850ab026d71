// SPDX-License-Identifier: GPL-2.0

//! What the entry of a command is made of.

use super::{
    super::{
        Mapper,
        Pool,
        PoolBox, //
    },
    memory::{
        QueuePlace,
        Told, //
    },
    payload::{
        Held,
        Segment, //
    },
    Payload, //
};
use crate::prelude::*;

/// What [`Submission::describe`](super::Submission::describe) and
/// [`SlotSubmission::describe`](super::SlotSubmission::describe) make an entry of. Only a queue
/// makes one.
pub struct Call<'c, 'a, P: Payload<'a>, S> {
    pub(super) dma: Mapper<'a>,
    pub(super) tag: u32,
    pub(super) told: &'c Told<'a>,
    pub(super) payload: &'c P,
    pub(super) pool: Option<&'a Pool<'a, S>>,
    pub(super) scratch: &'c mut Option<PoolBox<'a, S>>,
}

impl<'c, 'a, P: Payload<'a>, S: FromBytes + IntoBytes + Send + 'static> Call<'c, 'a, P, S> {
    /// Returns the tag: what the device is to write into the completion entry of this command. In
    /// [`CommandSlots`](super::CommandSlots) it is the number of the slot.
    #[inline]
    pub fn tag(&self) -> u32 {
        self.tag
    }

    /// Returns the number of bytes of all segments.
    #[inline]
    #[expect(clippy::len_without_is_empty, reason = "a command may have no data")]
    pub fn len(&self) -> usize {
        Held::len(self.payload)
    }

    /// Returns the segments of the payload, in order.
    #[inline]
    pub fn segments(&self) -> Segments<'c, 'a, P> {
        // SAFETY: By point 3 of the contracts of `Submission` and `SlotSubmission`, `describe` puts
        // them into the entry or the scratch block, and nowhere else. If it succeeds the queue owns
        // the payload from then on; if not, nobody has the addresses.
        Segments(unsafe { self.payload.segments() })
    }

    /// Returns the scratch block of this command, and its bus address: for a list of segments that
    /// doesn't fit into the entry.
    ///
    /// The first command in each of the queue's places allocates one from the pool, with
    /// [`GFP_ATOMIC`]. Later commands in that place find the same block, with what was written
    /// there before. So in steady state nothing is allocated. The device may only read it. Context:
    /// any.
    ///
    /// # Errors
    ///
    /// [`EINVAL`] if the queue was made without a pool, or the pool is one of another device;
    /// [`ENOMEM`].
    #[inline]
    pub fn scratch(&mut self) -> Result<(&mut S, u64)> {
        if self.scratch.is_none() {
            self.allocate()?;
        }

        let block = self.scratch.as_mut().ok_or(ENOMEM)?;

        #[allow(clippy::useless_conversion, reason = "bus addresses may have 32 bits")]
        let address = u64::from(block.raw_address());

        Ok((&mut **block, address))
    }

    #[cold]
    #[inline(never)]
    fn allocate(&mut self) -> Result {
        let block = self.pool.ok_or(EINVAL)?.alloc(GFP_ATOMIC)?;

        if !core::ptr::eq(block.dma().record(), self.dma.record()) {
            return Err(EINVAL);
        }

        *self.scratch = Some(block);
        Ok(())
    }

    /// Returns the bus address of another queue, for a command that tells the device where it is.
    ///
    /// # Errors
    ///
    /// - [`EINVAL`] for a queue of another device;
    /// - [`ESHUTDOWN`] if that queue wasn't started, or the device was stopped since.
    #[inline]
    pub fn place<T>(&self, place: &QueuePlace<'_, T>) -> Result<u64> {
        place.address(self.dma, self.told.epoch())
    }
}

/// The segments of a payload: an iterator.
pub struct Segments<'c, 'a, P: Payload<'a> + 'c>(<P as Held<'a>>::Segments<'c>);

impl<'c, 'a, P: Payload<'a>> Iterator for Segments<'c, 'a, P> {
    type Item = Segment<'c>;

    #[inline]
    fn next(&mut self) -> Option<Segment<'c>> {
        self.0.next()
    }
}
