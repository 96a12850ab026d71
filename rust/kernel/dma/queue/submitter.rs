// SPDX-License-Identifier: GPL-2.0

//! The half of a submission queue that submits commands.

use super::{
    super::{
        mapping::{
            barrier::loads_before_stores,
            streaming::hand_over, //
        },
        Mapper,
        Pool, //
    },
    commands::{
        Layout,
        Memory, //
    },
    memory::{
        QueuePlace,
        Table, //
    },
    Call,
    Completer,
    Payload,
    Submission,
    Tail,
    Ticket, //
};
use crate::{
    error::ErrorWith,
    prelude::*,
    sync::{
        atomic::Release,
        barrier::{
            dma_mb,
            mb,
            Full,
            Write, //
        },
        Arc, //
    }, //
};

/// The half of a submission queue that submits commands, and tells the device.
///
/// [`submit`](Self::submit) commands, then [`kick`](Self::kick) the device, once for a batch.
/// Before that, and after each stop: [`start`](Self::start), which takes both halves.
///
/// Its methods take `&mut self`, so it belongs to one context at a time. It needs no lock against
/// the [`Completer`]. Context of dropping it: process context.
///
/// # Invariants
///
/// Places in the list of free slots from `taken` up to `freed` belong to this half, and so do the
/// slots that are there.
///
/// # Examples
///
/// See the [module documentation](super).
#[repr(align(64))]
pub struct Submitter<'a, Q: Submission, P: Payload<'a>> {
    dma: Mapper<'a>,
    table: Table<Q::Entry>,
    layout: Layout<'a, P, Q::Scratch>,
    /// The first entry that isn't written.
    tail: u32,
    /// The first entry that the device wasn't told of.
    kicked: u32,
    /// The first free slot in the list.
    taken: u32,
    /// The first place in the list that the completer had not filled when we looked.
    freed: u32,
    scratch: Option<&'a Pool<'a, Q::Scratch>>,
    memory: Arc<Memory<'a, Q, P>>,
    queue: Q,
    doorbells: u64,
}

// SAFETY: It owns its part of the memory, with payloads that are `Send`, and a queue that is
// `Send`.
unsafe impl<'a, Q: Submission, P: Payload<'a>> Send for Submitter<'a, Q, P> {}

impl<'a, Q: Submission, P: Payload<'a>> Submitter<'a, Q, P> {
    pub(super) fn new(
        memory: Arc<Memory<'a, Q, P>>,
        queue: Q,
        scratch: Option<&'a Pool<'a, Q::Scratch>>,
    ) -> Self {
        let table = memory.table();

        // INVARIANT: All slots are in the list.
        Self {
            dma: memory.dma(),
            table,
            layout: memory.layout(),
            tail: table.first(),
            kicked: table.first(),
            taken: memory.first_free(),
            freed: memory.freed(),
            scratch,
            memory,
            queue,
            doorbells: 0,
        }
    }

    /// Returns the registers of the queue.
    #[inline]
    pub fn queue(&self) -> &Q {
        &self.queue
    }

    /// Returns the number of entries of the queue. It is greater than the number of commands that
    /// can be in flight.
    #[inline]
    #[expect(clippy::len_without_is_empty, reason = "a queue has entries")]
    pub fn len(&self) -> u32 {
        self.table.len()
    }

    /// Looks how many commands were completed; returns how many can be submitted.
    ///
    /// Context: any.
    #[inline]
    pub fn refresh(&mut self) -> u32 {
        // INVARIANT: The completer has given these slots back.
        self.freed = self.memory.freed();
        self.freed.wrapping_sub(self.taken)
    }

    /// Returns how often [`kick`](Self::kick) has written the doorbell.
    #[inline]
    pub fn doorbells(&self) -> u64 {
        self.doorbells
    }

    /// Writes the entry of a command. [`kick`](Self::kick) tells the device.
    ///
    /// The queue owns the payload until [`Completer::complete`] returns it. The ticket says which
    /// command it was. Context: any.
    ///
    /// # Errors
    ///
    /// The payload comes back as it was, with
    ///
    /// - [`EBUSY`] if as many commands are in flight as can be;
    /// - [`EINVAL`] if somebody asked for the [address](super::super::Streaming::address) of the
    ///   payload, since it may be in flight elsewhere;
    /// - [`EINVAL`] if the payload is mapped for another device;
    /// - what [`Submission::describe`] returned.
    #[inline]
    pub fn submit(&mut self, mut payload: P, command: Q::Command) -> Result<Ticket, ErrorWith<P>> {
        match self.try_submit(&mut payload, &command) {
            Ok((index, tag, entry)) => {
                // SAFETY: These were just returned for this payload.
                unsafe { self.put(index, tag, &entry, payload) };
                Ok(Ticket { tag, index })
            }
            Err(error) => Err(ErrorWith {
                error,
                value: payload,
            }),
        }
    }

    #[inline]
    fn try_submit(
        &mut self,
        payload: &mut P,
        command: &Q::Command,
    ) -> Result<(u16, u32, Q::Entry)> {
        if self.taken == self.freed && self.refresh() == 0 {
            return Err(EBUSY);
        }

        payload.check(self.dma)?;

        // SAFETY: By the type invariants the place is ours, and so is the slot that is there. The
        // memory exists as long as `self`.
        let (index, contents) = unsafe {
            let index = *self.layout.free(self.taken);

            (index, self.layout.slot(index.into()).contents())
        };

        let tag = contents.tag;

        // If that fails the payload goes back: by point 3 of the contract of `Submission`,
        // `describe` keeps no address.
        let entry = self.queue.describe(
            command,
            Call {
                dma: self.dma,
                tag,
                told: &self.memory.told,
                payload,
                pool: self.scratch,
                scratch: &mut contents.scratch,
            },
        )?;

        Ok((index, tag, entry))
    }

    /// Puts a command into the queue.
    ///
    /// # Safety
    ///
    /// `index`, `tag` and `entry` must be what [`try_submit`](Self::try_submit) has returned last,
    /// for `payload`.
    #[inline]
    unsafe fn put(&mut self, index: u16, tag: u32, entry: &Q::Entry, payload: P) {
        // SAFETY: The slot is ours: it is that of the first place in the list.
        let (slot, contents) = unsafe {
            let slot = self.layout.slot(index.into());

            (slot, slot.contents())
        };

        if size_of::<Q::Scratch>() > 0 {
            if let Some(block) = &contents.scratch {
                hand_over(block.as_ptr().cast());
            }
        }

        contents.payload.write(payload);
        contents.entry = self.tail;

        // SAFETY: The memory exists as long as `self`. The entry is ours: the queue has more
        // entries than commands in flight, so at least one of those since the last turn has
        // completed. By points 4 and 5 of the contract of `Submission` the device has fetched this
        // entry then.
        unsafe { self.table.write(self.tail, entry) };

        // Ordering 2: slot before tag.
        // INVARIANT: The slot is the completer's.
        slot.in_flight.store(tag, Release);
        self.taken = self.taken.wrapping_add(1);
        self.tail = self.tail.wrapping_add(1);
    }

    /// Writes the doorbell: tells the device of all commands that were submitted since the last
    /// call.
    ///
    /// Call it once for a batch, since a doorbell is expensive. If nothing was submitted since, it
    /// does nothing and returns `Ok`, even if the device was stopped. Context: any.
    ///
    /// # Errors
    ///
    /// [`ESHUTDOWN`] if the device was stopped, or the queue wasn't [started](Self::start) since.
    /// What was submitted comes back from the next `start`.
    #[inline]
    pub fn kick(&mut self) -> Result {
        if self.kicked == self.tail {
            return Ok(());
        }

        let _running = self.memory.told.enter()?;

        if P::IS_SHARED {
            // The CPU reads a block before the device may write it again.
            loads_before_stores();
        }

        // Ordering 2: before the doorbell, as the tags.
        self.memory.set_kicked(self.tail);

        let tail = Tail(self.table.index(self.tail));
        let old = Tail(self.table.index(self.kicked));

        self.kicked = self.tail;

        if Q::IN_MEMORY {
            // Ordering 1: entry before doorbell.
            dma_mb(Write);
            self.queue.publish(tail);
            // Ordering 1: published before looked.
            mb(Full);

            if !self.queue.wants_doorbell(old, tail) {
                return Ok(());
            }
        }

        // Ordering 1: entry before doorbell, by the contract of `Submission`.
        self.queue.doorbell(tail);
        self.doorbells += 1;
        Ok(())
    }

    /// Empties the queue, and tells the device where it is.
    ///
    /// Call this after [`Session::start`](super::super::Session::start) and
    /// [`Completions::start`](super::Completions::start), at first and after each stop. What was in
    /// flight is given to `cancelled`, in no particular order; no bytes of it are
    /// [defined](super::super::StreamingBox).
    ///
    /// Context: any in which payloads may be unmapped and dropped.
    ///
    /// # Errors
    ///
    /// - [`EINVAL`] if `completer` is not the other half, or if the completion queue wasn't started
    ///   before, or was dropped;
    /// - [`EBUSY`] if the device may still access the queue, since it wasn't stopped
    ///   ([`Session::restart`](super::super::Session::restart));
    /// - [`ESHUTDOWN`] if the device doesn't run;
    /// - what [`Submission::start`] returned, or [`ESHUTDOWN`] if the device was stopped meanwhile.
    ///   The queue is empty then.
    pub fn start(
        &mut self,
        completer: &mut Completer<'a, Q, P>,
        cancelled: impl FnMut(Ticket, P::Back),
    ) -> Result {
        self.memory.told.check_open()?;
        self.drain(completer, cancelled)?;

        let Self { memory, queue, .. } = self;

        memory.told.tell(|running| {
            // Or the device would write completions to wherever it was told before.
            let start = completer
                .completions_in(memory.told.epoch())
                .ok_or(EINVAL)?;

            queue.start(memory.entries().memory(running))?;
            completer.set_start(start);
            Ok(())
        })
    }

    /// Takes what is in flight out of a queue that the device doesn't access, and gives it to
    /// `give`.
    ///
    /// Use it after a stop; [`start`](Self::start) does the same. Completions that the device has
    /// written before can be [reaped](super::Completions::reap) before this, but not afterwards.
    /// There is no way to cancel a single command, since that is no proof that the device is done
    /// with its memory. Context: any in which payloads may be unmapped and dropped.
    ///
    /// # Errors
    ///
    /// - [`EINVAL`] if `completer` is not the other half;
    /// - [`EBUSY`] if the device may still access the queue.
    pub fn drain(
        &mut self,
        completer: &mut Completer<'a, Q, P>,
        mut give: impl FnMut(Ticket, P::Back),
    ) -> Result {
        if !completer.is_of(&self.memory) {
            return Err(EINVAL);
        }

        let layout = self.layout;

        // SAFETY: `self` and `completer` are the two halves, as was just checked.
        unsafe {
            self.memory.reset(|tag, payload| {
                let ticket = Ticket {
                    tag,
                    // CAST: Less than `MAX_TAGS`.
                    index: layout.index(tag) as u16,
                };

                give(ticket, payload);
            })
        }?;

        completer.reset();
        // INVARIANT: All slots are in the list.
        self.taken = self.memory.first_free();
        self.freed = self.memory.freed();
        self.tail = self.table.first();
        self.kicked = self.tail;
        Ok(())
    }

    /// Returns where the queue is, for a command that creates it. Call it after
    /// [`start`](Self::start). Context: any.
    #[inline]
    pub fn place(&self) -> QueuePlace<'a, Q::Entry> {
        self.memory.entries().place(&self.memory.told)
    }

    /// Returns where the entries are, for tests that play the device.
    #[cfg(CONFIG_RUST_DMA_KUNIT_TEST)]
    pub(in crate::dma) fn table(&self) -> core::ptr::NonNull<Q::Entry> {
        self.table.at(0)
    }
}
