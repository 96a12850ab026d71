// SPDX-License-Identifier: GPL-2.0

//! The half of a submission queue that completes commands.

use super::{
    super::Untrusted,
    commands::{
        Contents,
        Layout,
        Memory,
        Slot,
        IDLE, //
    },
    completion::{
        Port,
        Seen,
        Started,
        NEVER, //
    },
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
/// - `start` is that of the completion queue when the device was told of this one, or `NEVER`.
///
/// # Examples
///
/// See the [module documentation](super).
#[repr(align(64))]
pub struct Completer<'a, Q: Submission, P: Payload<'a>> {
    layout: Layout<'a, P, Q::Scratch>,
    start: u64,
    /// What the entries call this queue.
    queue: u16,
    /// When the completion queue was started in which its commands complete.
    completions: Arc<Started>,
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
            start: NEVER,
            queue: port.queue,
            completions: port.started,
            freed: memory.freed(),
            strays: 0,
            malformed: 0,
            memory,
        }
    }

    pub(super) fn is_of(&self, memory: &Arc<Memory<'a, Q, P>>) -> bool {
        Arc::ptr_eq(&self.memory, memory)
    }

    /// Returns the start of the completion queue in this epoch, if it was started and is there.
    ///
    /// The device must not be stopped meanwhile.
    pub(super) fn completions_in(&self, epoch: u64) -> Option<u64> {
        self.completions.in_epoch(epoch)
    }

    /// Resets the counters, when all slots are free, and the device wasn't told of the queue.
    pub(super) fn reset(&mut self) {
        // INVARIANT: All slots are the submitter's.
        self.freed = self.memory.freed();
        self.start = NEVER;
    }

    /// Notes with which start of the completion queue the device was told of this one.
    pub(super) fn set_start(&mut self, start: u64) {
        // INVARIANT: It was just told.
        self.start = start;
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
    /// again. Where an entry is about all commands before it, too, use
    /// [`complete_through`](Self::complete_through): this doesn't compile then. Context: any.
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
        const {
            assert!(
                !Q::Completion::CUMULATIVE,
                "an entry completes all commands before it: use `complete_through()`"
            );
        }

        let tag = self.look(&seen)?;

        // SAFETY: The result is used once, below.
        let Some((slot, contents)) = (unsafe { self.find(tag) }) else {
            return Err(self.unknown(&seen));
        };

        // SAFETY: By point 4 of the contract of `Entry` the device is done with the memory of the
        // command that the entry names, which is in flight, and whose contents these are.
        Ok(unsafe { self.finish((tag, slot), contents, &seen.entry, true) })
    }

    /// Completes the command that an entry is about, and all that were submitted before, and gives
    /// them to `give` in that order; returns how many.
    ///
    /// For devices of which an entry says that all these are done ([`Entry::CUMULATIVE`]). Of the
    /// earlier ones all bytes count as moved. Each [`Completed`] has a copy of the entry, whose tag
    /// is that of the last one. Context: any in which `give` may be called.
    ///
    /// # Errors
    ///
    /// As [`complete`](Self::complete). Nothing was completed then.
    ///
    /// # Examples
    ///
    /// ```
    /// use kernel::{
    ///     dma::queue::{Completer, CompletionQueue, Completions, Payload, Submission},
    ///     prelude::*,
    /// };
    ///
    /// /// Looks what is done; returns how many commands are.
    /// fn reap<'a, C, Q, P>(
    ///     done: &mut Completions<'a, C>,
    ///     completer: &mut Completer<'a, Q, P>,
    /// ) -> u32
    /// where
    ///     C: CompletionQueue<Entry = Q::Completion>,
    ///     Q: Submission,
    ///     P: Payload<'a>,
    /// {
    ///     let mut count = 0;
    ///
    ///     done.reap(64, |seen| {
    ///         if let Ok(done) = completer.complete_through(seen, |one| drop(one.payload)) {
    ///             count += done;
    ///         }
    ///     });
    ///     count
    /// }
    /// ```
    pub fn complete_through<'c>(
        &mut self,
        seen: Seen<'c, Q::Completion>,
        mut give: impl FnMut(Completed<'a, P, Q::Completion>),
    ) -> Result<u32, Stray<'c, Q::Completion>> {
        let last = self.look(&seen)?;

        // SAFETY: Only looked at.
        if unsafe { self.find(last) }.is_none() {
            return Err(self.unknown(&seen));
        }

        let mut count = 0;

        for _ in 0..self.memory.tags() {
            // Commands of this queue complete in the order in which they were submitted, so slots
            // are used in the order of the list, and given back in it. The place in which the
            // oldest command in flight has found its slot still names it.
            //
            // SAFETY: The submitter writes to no place, and this half to that at `freed` only. The
            // memory exists as long as `self`.
            let index = unsafe {
                self.layout
                    .listed(self.freed.wrapping_sub(self.memory.tags()))
            };
            // SAFETY: The memory exists as long as `self`.
            let tag = unsafe { self.layout.slot(index.into()) }
                .in_flight
                .load(Acquire);
            let is_last = tag == last;

            // SAFETY: The result is used once, below.
            let Some((slot, contents)) = (unsafe { self.find(tag) }) else {
                break;
            };

            // SAFETY: By point 4 of the contract of `Entry`, which is `CUMULATIVE`, the device is
            // done with the memory of the command that the entry names, and of those that were
            // submitted before. This is one of them: it was submitted before the last one, which
            // the loop hasn't come to.
            give(unsafe { self.finish((tag, slot), contents, &seen.entry, is_last) });
            count += 1;

            if is_last {
                break;
            }
        }

        Ok(count)
    }

    /// Returns the tag of an entry of this queue.
    #[inline(always)]
    fn look<'c>(
        &mut self,
        seen: &Seen<'c, Q::Completion>,
    ) -> Result<u32, Stray<'c, Q::Completion>> {
        // One that was seen before a stop completes nothing that was submitted afterwards.
        if seen.start != self.start || seen.queue() != self.queue {
            return Err(Stray::Other(seen.again()));
        }

        let Some(tag) = seen.entry.tag() else {
            return Err(Stray::Event(seen.entry()));
        };

        // Any number will do: it is only compared.
        tag.validate(Ok).map_err(|_| self.unknown(seen))
    }

    /// Returns the slot, and its contents, of a command that is in flight with that tag, and of
    /// which the device was told.
    ///
    /// # Safety
    ///
    /// The contents must not be used when those of another call are, or when `self` is gone.
    #[inline(always)]
    #[allow(clippy::type_complexity, reason = "what a slot has")]
    unsafe fn find<'s>(
        &self,
        tag: u32,
    ) -> Option<(
        &'s Slot<'a, P, Q::Scratch>,
        &'s mut Contents<'a, P, Q::Scratch>,
    )> {
        // SAFETY: The memory exists as long as `self`.
        let slot = unsafe { self.layout.slot(tag) };

        // Ordering 2: slot before tag.
        if tag == IDLE || slot.in_flight.load(Acquire) != tag {
            return None;
        }

        // SAFETY: The slot is ours, since the command is in flight. By the safety requirements it
        // is accessed through the result only.
        let contents = unsafe { slot.contents() };

        // The device would fetch the entry later, and access what has been given back.
        if !self.memory.is_kicked(contents.entry) {
            return None;
        }

        Some((slot, contents))
    }

    /// Returns how many of `len` bytes an entry says to have been moved.
    #[inline(always)]
    fn believe(&mut self, entry: &Q::Completion, len: usize) -> usize {
        match entry.moved() {
            None => len,
            Some(moved) => match moved.at_most(len) {
                Ok(moved) => moved,
                Err(_) => self.nonsense(),
            },
        }
    }

    /// Takes a command out of its slot, and gives that back. `entry` says how many bytes were
    /// moved, if it is about this command.
    ///
    /// # Safety
    ///
    /// The slot, and its contents, must be those of the command in flight with that tag. The device
    /// must be done with its memory, as an entry that was reaped says.
    #[inline(always)]
    unsafe fn finish(
        &mut self,
        (tag, slot): (u32, &Slot<'a, P, Q::Scratch>),
        contents: &mut Contents<'a, P, Q::Scratch>,
        entry: &Q::Completion,
        is_about: bool,
    ) -> Completed<'a, P, Q::Completion> {
        // SAFETY: By the type invariants of `Slot` there is one, since the command is in flight.
        // The slot is idle below, before anybody else looks at it.
        let payload = unsafe { contents.payload.assume_init_read() };
        let len = payload.len();
        let moved = match is_about {
            true => self.believe(entry, len),
            false => len,
        };

        // SAFETY: By the safety requirements the device is done. `Completions::reap()` has executed
        // a `dma_rmb()` after it has seen that, and `moved` isn't greater than the length.
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

        Completed {
            ticket: Ticket { tag, index },
            payload,
            entry: Untrusted::new(*entry),
        }
    }

    /// Counts an entry that isn't believed, and returns it.
    #[inline(always)]
    fn unknown<'c>(&mut self, seen: &Seen<'c, Q::Completion>) -> Stray<'c, Q::Completion> {
        self.count_stray();
        Stray::Unknown(seen.entry())
    }

    // Without the entry, which only who looks at it puts together.
    #[cold]
    #[inline(never)]
    fn count_stray(&mut self) {
        self.strays += 1;
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
