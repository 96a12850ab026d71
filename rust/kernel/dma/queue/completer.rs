// SPDX-License-Identifier: GPL-2.0

//! The half of a submission queue that completes commands.

use super::{
    super::Untrusted,
    commands::{
        Layout,
        Memory,
        IDLE, //
    },
    completion::{
        Port,
        Seen, //
    },
    memory::UNTOLD,
    payload::Held,
    Entry,
    Payload,
    Submission,
    Ticket, //
};
use crate::{
    prelude::*,
    sync::{
        atomic::{
            Acquire,
            Relaxed, //
        },
        Arc, //
    }, //
};

/// A command that is done.
pub struct Completed<'a, P: Payload<'a>, E> {
    /// Which command it is: what [`Submitter::submit`](super::Submitter::submit) has returned.
    pub ticket: Ticket,

    /// What was in flight. The bytes that the device reported to have moved are
    /// [defined](super::super::StreamingBox).
    pub payload: <P as Held<'a>>::Back,

    /// The entry in which the device says how it went.
    pub entry: Untrusted<E>,
}

/// Why an entry has completed nothing.
pub enum Stray<'c, E> {
    /// It is about another submission queue, or of another completion queue. It comes back, for the
    /// [`Completer`] of that queue.
    Other(Seen<'c, E>),

    /// It is about no command: the device reports an event.
    Event(Untrusted<E>),

    /// Its tag is not that of a command in flight. It was [counted](Completer::strays).
    Unknown(Untrusted<E>),
}

/// The half of a submission queue that completes commands, when the device says that they are done.
///
/// It belongs to the context in which the [completion queue](super::Completions) is reaped. It
/// needs no lock against the [`Submitter`](super::Submitter). Context of dropping it: process
/// context.
///
/// # Invariants
///
/// - Slots of commands in flight belong to this half, and so do the places in the list of free
///   slots from `freed` on.
/// - `epoch` is that in which the device was told of the queue, or `UNTOLD`.
///
/// # Examples
///
/// See the [module documentation](super).
#[repr(align(64))]
pub struct Completer<'a, Q: Submission, P: Payload<'a>> {
    layout: Layout<'a, P, Q::Scratch>,
    /// The completion queue in which its commands complete.
    id: u64,
    epoch: u64,
    /// What the entries call this queue.
    queue: u16,
    /// The first place in the list of free slots that isn't filled.
    freed: u32,
    strays: u64,
    malformed: u64,
    memory: Arc<Memory<'a, Q, P>>,
}

// SAFETY: It owns its part of the memory, with payloads that are `Send`.
unsafe impl<'a, Q: Submission, P: Payload<'a>> Send for Completer<'a, Q, P> {}

impl<'a, Q: Submission, P: Payload<'a>> Completer<'a, Q, P> {
    pub(super) fn new(memory: Arc<Memory<'a, Q, P>>, port: Port<'a, Q::Completion>) -> Self {
        // INVARIANT: No command is in flight; the device wasn't told.
        Self {
            layout: memory.layout(),
            id: port.id,
            epoch: UNTOLD,
            queue: port.queue,
            freed: memory.freed(),
            strays: 0,
            malformed: 0,
            memory,
        }
    }

    pub(super) fn is_of(&self, memory: &Arc<Memory<'a, Q, P>>) -> bool {
        Arc::ptr_eq(&self.memory, memory)
    }

    /// Resets the counters, when all slots are free, and the device wasn't told of the queue.
    pub(super) fn reset(&mut self) {
        // INVARIANT: All slots are the submitter's.
        self.freed = self.memory.freed();
        self.epoch = UNTOLD;
    }

    /// Notes the epoch in which the device was told of the queue.
    pub(super) fn set_epoch(&mut self, epoch: u64) {
        // INVARIANT: It was just told.
        self.epoch = epoch;
    }

    /// Returns what the entries call this queue: the number of its port.
    #[inline]
    pub fn number(&self) -> u16 {
        self.queue
    }

    /// Returns how many entries had a tag that is not that of a command in flight.
    ///
    /// It is 0 for a device that works as it should. Context: any.
    #[inline]
    pub fn strays(&self) -> u64 {
        self.strays
    }

    /// Returns how many commands the device reported to have moved more bytes than they have. They
    /// completed, with no bytes moved. Context: any.
    #[inline]
    pub fn malformed(&self) -> u64 {
        self.malformed
    }

    /// Returns how many commands are in flight, with those that the device wasn't told of yet.
    ///
    /// It is exact where no command is submitted at the same time. Context: any.
    pub fn in_flight(&self) -> u32 {
        // CAST: Not more than `MAX_TAGS`.
        (0..self.memory.tags())
            .filter(|index| {
                // SAFETY: The memory exists as long as `self`.
                let slot = unsafe { self.layout.slot(*index) };

                slot.in_flight.load(Relaxed) != IDLE
            })
            .count() as u32
    }

    /// Returns whether no more commands will complete, since the device was stopped, or wasn't told
    /// of the queue yet.
    ///
    /// Entries that were written before can still be reaped. Context: any.
    #[inline]
    pub fn is_stopped(&self) -> bool {
        self.memory.told.is_over()
    }

    /// Completes the command that an entry is about, and returns it.
    ///
    /// The payload is unmapped by its owner, and not here: a
    /// [`StreamingBox`](super::super::StreamingBox) stays mapped, so that it can be submitted
    /// again. Context: any.
    ///
    /// # Errors
    ///
    /// [`Stray`] if the entry completes nothing. A tag is believed only if a command with that tag
    /// is in flight, and the device was told of it. So an entry that the device repeats, or makes
    /// up, is not believed, unless it has the tag of such a command. The tag of a command comes
    /// again only when all generations of its place were used: see [`Submission::TAG_BITS`].
    // A call for each command, with the result on the stack, would cost more than what is done
    // here.
    #[inline(always)]
    pub fn complete<'c>(
        &mut self,
        seen: Seen<'c, Q::Completion>,
    ) -> Result<Completed<'a, P, Q::Completion>, Stray<'c, Q::Completion>> {
        let entry = seen.entry;

        // One that was seen before a stop completes nothing that was submitted afterwards.
        if seen.id != self.id || seen.epoch != self.epoch || entry.queue() != self.queue {
            return Err(Stray::Other(seen));
        }

        let Some(tag) = entry.tag() else {
            return Err(Stray::Event(Untrusted::new(entry)));
        };
        // Any number will do: it is only compared.
        let Ok(tag) = tag.validate(Ok) else {
            return Err(self.refuse(entry));
        };

        // SAFETY: The memory exists as long as `self`.
        let slot = unsafe { self.layout.slot(tag) };

        // Ordering 2: slot before tag.
        if tag == IDLE || slot.in_flight.load(Acquire) != tag {
            return Err(self.refuse(entry));
        }

        // SAFETY: The slot is ours, since the command is in flight.
        let contents = unsafe { slot.contents() };

        // The device would fetch the entry later, and access what has been given back.
        if !self.memory.is_kicked(contents.entry) {
            return Err(self.refuse(entry));
        }

        let Some(payload) = contents.payload.take() else {
            return Err(self.refuse(entry));
        };

        let len = payload.len();
        let moved = match entry.moved() {
            None => len,
            Some(moved) => match moved.at_most(len) {
                Ok(moved) => moved,
                Err(_) => self.nonsense(),
            },
        };

        // SAFETY: By point 4 of the contract of `Entry` the device is done with the memory of the
        // command that the entry names, which is in flight. `Completions::reap()` has executed a
        // `dma_rmb()` after it has seen that. `moved` was checked.
        let payload = unsafe { payload.complete(moved) };

        contents.tag = self.layout.next_tag(tag, Q::TAG_BITS);
        slot.in_flight.store(IDLE, Relaxed);

        let index = self.layout.index(tag) as u16;

        // INVARIANT: The slot becomes the submitter's, and so does the place.
        // SAFETY: By the type invariants the place is ours.
        unsafe { *self.layout.free(self.freed) = index };
        self.freed = self.freed.wrapping_add(1);
        // Ordering 5: slot before freed.
        self.memory.set_freed(self.freed);

        Ok(Completed {
            ticket: Ticket { tag, index },
            payload,
            entry: Untrusted::new(entry),
        })
    }

    /// Counts an entry that isn't believed.
    #[cold]
    #[inline(never)]
    fn refuse<'c>(&mut self, entry: Q::Completion) -> Stray<'c, Q::Completion> {
        self.strays += 1;
        Stray::Unknown(Untrusted::new(entry))
    }

    /// Counts a command of which the device reports an impossible length; returns how many bytes of
    /// it are believed.
    #[cold]
    #[inline(never)]
    fn nonsense(&mut self) -> usize {
        self.malformed += 1;
        0
    }
}
