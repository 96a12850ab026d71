// SPDX-License-Identifier: GPL-2.0

//! Queues of commands that complete in any order, as storage controllers and many others have them.
//!
//! The driver writes *commands* into a *submission queue*, an array of entries in coherent memory,
//! and *kicks* the device: a write to a register, the *doorbell*, tells it up to where entries are
//! ready. The device fetches them in order, carries them out in any order, and writes an entry for
//! each that is done into a *completion queue*. Several submission queues may share one. Each
//! command has a *tag*, which the device echoes there. The driver implements [`Submission`],
//! [`CompletionQueue`] and [`Entry`] for that, once. Everything else is the same for all devices,
//! and is here:
//!
//! ```text
//!     Submitter ---> submission queue ---> device
//!         ^                                   |
//!         | free slots                        v
//!     Completer <------- Seen ------- completion queue ---> other completers
//!                  Completions::reap()
//! ```
//!
//! - The queue owns what is in flight, the [`Payload`]: nothing, a buffer, a block of a pool, or
//!   several of them. It keeps payloads in *slots*, one for each command that can be in flight, in
//!   memory that the device can't access. A payload leaves its slot when its command is done, or
//!   when the device was proven to have stopped. There is no other way to cancel a command. A queue
//!   that is dropped before is quarantined as a whole (see [`Streaming`](super::Streaming)).
//! - A submission queue has two halves, [`Submitter`] and [`Completer`], for two contexts without a
//!   lock between them. They share a list of free slots, one end of which is each half's.
//! - A tag has the number of a slot, and a *generation* in the bits that are left
//!   ([`Submission::TAG_BITS`]). An entry completes a command only if exactly its tag is in flight,
//!   and the device was told of it by a doorbell. So an entry that the device repeats, or makes up,
//!   completes nothing, and is counted ([`Completer::strays`]). Slots are used in turn, so that a
//!   generation is as old as can be when it comes again.
//! - Nothing overruns. A submission queue has more entries than commands can be in flight, and a
//!   [`Port`] reserves room for the completions of all of them.
//! - Lists of segments, as commands with much data have them, go into a *scratch block*
//!   ([`Call::scratch`]), which stays with the slot. In steady state nothing is allocated.
//!
//! `Documentation/rust/dma/queues.rst` says how to write a driver with queues. Some devices have no
//! completion queue, but a register with a bit for each command (AHCI, UFS): for these there are
//! [`CommandSlots`]. For descriptors that are worked off in order there is [`ring`](super::ring).
//!
//! # What the device is trusted with
//!
//! A device may lie in everything that it writes, with one exception: when it names the tag of a
//! command that is in flight, it is done with that command (point 4 of [`Entry`]), and has fetched
//! its entry and those before it (point 5 of [`Submission`]). A device that confuses commands can't
//! be found out if both are in flight. One that repeats itself is found out, until the generations
//! of the slot come round. With `n` bits for generations, that takes 2^n commands in the same slot.
//!
//! # Ordering
//!
//! A driver needs no barriers for a queue. This section is for reviewers. It is in terms of
//! `Documentation/memory-barriers.txt`. Accesses to coherent memory need no sync, but an order. The
//! suite `rust_dma_queue` also runs both halves, and the device, on CPUs of their own.
//!
//! 1. *Entry before doorbell.* [`Submitter::kick`] calls [`Submission::doorbell`], which by its
//!    contract writes a register in order after all earlier writes to memory, as `writel()` and
//!    `Io::write32()` do. So a batch needs no other barrier. That holds for scratch blocks, too.
//!    Where the device reads the tail from memory ([`Submission::IN_MEMORY`]), a `dma_wmb()` comes
//!    before that is written. A full barrier comes after it, and then the queue reads what the
//!    device says of where it has looked: the device writes that, and then looks at the tail once
//!    more. So one of them sees what the other has written.
//! 2. *Slot before tag.* The submitter fills a slot, and then stores its tag with release
//!    semantics. The completer loads that with acquire semantics before it looks at the slot,
//!    whatever tag the device has named. The tag is stored before the doorbell, so it is there when
//!    the command completes. From then on the submitter doesn't touch the slot.
//!    The counter of what the device was told of is stored before the doorbell, too.
//! 3. *New before the rest.* [`Completions::reap`] loads the word that says that an entry is new on
//!    its own. If it is, a `dma_rmb()` orders that load before those of the other words, and of the
//!    payload.
//! 4. *Tag before idle.* While commands complete, only the completer clears the tag of a slot, and
//!    it does so before it gives the slot back. Both loads and stores are its own, so they need no
//!    order until then. (Draining the queue does it with both halves in hand.)
//! 5. *Slot before freed.* The completer empties a slot, puts it into the list of free slots, and
//!    then stores how many there are with release semantics. The submitter loads that with acquire
//!    semantics before it takes a slot out. This also orders the load by which the completer has
//!    seen that the device has fetched an entry, before the store by which the submitter writes
//!    that entry again in the next turn.
//! 6. *Entry before consumed.* The CPU has read an entry before it tells the device that the entry
//!    is free: `loads_before_stores()`, and then the register.
//!
//! # Examples
//!
//! A device that fetches commands of 32 bytes, and writes completions of 16. The `unsafe` parts of
//! its driver state how the device behaves:
//!
//! ```
//! # use kernel::{device::{Bound, Device}, io::{Io, Mmio, Region}, prelude::*};
//! use kernel::dma::{
//!     queue::{
//!         Call, Commands, CompletionQueue, Completions, Entry, Head, Payload, QueueMemory,
//!         Submission, Tail, Turn,
//!     },
//!     FromDevice, Streaming, StreamingBox, Untrusted,
//! };
//!
//! /// A command, as the device reads it; little endian.
//! #[derive(Clone, Copy, FromBytes, IntoBytes)]
//! #[repr(C)]
//! struct Command {
//!     sector: u64,
//!     address: u64,
//!     len: u32,
//!     tag: u32,
//!     _reserved: u64,
//! }
//!
//! /// How a command went, as the device writes it.
//! #[derive(Clone, Copy, FromBytes, IntoBytes)]
//! #[repr(C)]
//! struct Status {
//!     tag: u32,
//!     moved: u32,
//!     _reserved: u32,
//!     /// Bit 0 is the phase, bit 1 says that the command has failed.
//!     word: u32,
//! }
//!
//! // SAFETY: By the numbers of the contract:
//! // 1. The device writes `word` after the others.
//! // 2. The phase is 1 in the first turn, and changes with each. Zeros have phase 0.
//! // 3. The device echoes the tag. There are no other entries.
//! // 4. It writes the entry when it is done with the command.
//! unsafe impl Entry for Status {
//!     const WORD: usize = 12;
//!
//!     fn is_new(word: u32, turn: Turn) -> bool {
//!         (word & 1 == 1) == turn.phase()
//!     }
//!
//!     fn tag(&self) -> Option<Untrusted<u32>> {
//!         Some(Untrusted::new(u32::from_le(self.tag)))
//!     }
//!
//!     fn moved(&self) -> Option<Untrusted<usize>> {
//!         // CAST: Widening.
//!         Some(Untrusted::new(u32::from_le(self.moved) as usize))
//!     }
//! }
//!
//! #[derive(Clone, Copy)]
//! struct Registers<'a> {
//!     dev: &'a Device<Bound>,
//!     io: Mmio<'a, Region<32>>,
//! }
//!
//! struct Done<'a>(Registers<'a>);
//!
//! // SAFETY: By the numbers of the contract:
//! // 1. The registers are those of `dev`.
//! // 2. The device writes entries one after the other, from where `start` says. It accesses
//! //    nothing else for this queue. `start` fails before it writes a register.
//! // 3. It waits while there is no free entry by the register at 20.
//! // 4. `write32()` is ordered.
//! // 5. The driver makes one `Done` for a device.
//! unsafe impl CompletionQueue for Done<'_> {
//!     type Entry = Status;
//!
//!     fn device(&self) -> &Device {
//!         self.0.dev
//!     }
//!
//!     fn start(&mut self, queue: QueueMemory<'_>) -> Result {
//!         // SAFETY: The queue and `running` are those of `dev`. The device accesses entries only,
//!         // until it is stopped.
//!         let base = u32::try_from(unsafe { queue.memory.to_bits(queue.running) })?;
//!
//!         self.0.io.write32(queue.len, 16);
//!         self.0.io.write32(base, 12);
//!         Ok(())
//!     }
//!
//!     fn consumed(&mut self, head: Head) {
//!         self.0.io.write32(head.index(), 20);
//!     }
//! }
//!
//! struct Reads<'a>(Registers<'a>);
//!
//! // SAFETY: By the numbers of the contract:
//! // 1. The registers are those of `dev`.
//! // 2. The device fetches entries in order, up to the tail. `start` fails before it writes a
//! //    register.
//! // 3. `describe` puts the address of the segment into the entry, to which the device writes.
//! // 4. The entry has the tag, which the device writes to the one completion queue there is.
//! // 5. The device fetches an entry before it carries out the command.
//! // 6. `write32()` is ordered.
//! // 7. The driver makes one `Reads` for a device.
//! unsafe impl Submission for Reads<'_> {
//!     type Entry = Command;
//!     type Completion = Status;
//!     type Command = u64;
//!     type Scratch = ();
//!     const TAG_BITS: u32 = 31;
//!
//!     fn device(&self) -> &Device {
//!         self.0.dev
//!     }
//!
//!     fn start(&mut self, queue: QueueMemory<'_>) -> Result {
//!         // SAFETY: As for `Done`.
//!         let base = u32::try_from(unsafe { queue.memory.to_bits(queue.running) })?;
//!
//!         self.0.io.write32(queue.len, 4);
//!         self.0.io.write32(base, 0);
//!         Ok(())
//!     }
//!
//!     fn describe<'c, P: Payload<'c>>(
//!         &self,
//!         sector: &u64,
//!         call: Call<'_, 'c, P, ()>,
//!     ) -> Result<Command> {
//!         let mut segments = call.segments();
//!
//!         // This device takes one segment.
//!         let (Some(segment), None) = (segments.next(), segments.next()) else {
//!             return Err(EINVAL);
//!         };
//!
//!         Ok(Command {
//!             sector: sector.to_le(),
//!             address: segment.address().to_le(),
//!             len: u32::try_from(segment.len())?.to_le(),
//!             tag: call.tag().to_le(),
//!             _reserved: 0,
//!         })
//!     }
//!
//!     fn doorbell(&mut self, tail: Tail) {
//!         self.0.io.write32(tail.index(), 8);
//!     }
//! }
//!
//! type Buf<'a> = Streaming<'a, KVec<u8>, FromDevice>;
//!
//! /// Reads sectors, and gives them to `read` in the order in which they arrive.
//! fn read<'a>(
//!     done: &mut Completions<'a, Done<'a>>,
//!     reads: &mut Commands<'a, Reads<'a>, Buf<'a>>,
//!     sectors: impl Iterator<Item = (u64, Buf<'a>)>,
//!     mut read: impl FnMut(StreamingBox<'a, KVec<u8>, FromDevice>),
//! ) -> Result {
//!     // If one can't be submitted, for instance since all tags are in flight, the others are.
//!     let submitted = sectors.into_iter().try_for_each(|(sector, buf)| {
//!         reads.submitter.submit(buf, sector)?;
//!         Ok(())
//!     });
//!
//!     // One doorbell for all of them.
//!     reads.submitter.kick()?;
//!
//!     done.reap(64, |seen| {
//!         if let Ok(completed) = reads.completer.complete(seen) {
//!             read(completed.payload);
//!         }
//!     });
//!     submitted
//! }
//! ```

mod call;
mod commands;
mod completer;
mod completion;
mod memory;
mod payload;
mod slots;
mod submitter;

pub use self::{
    call::{
        Call,
        Segments, //
    },
    commands::Commands,
    completer::{
        Completed,
        Completer,
        Stray, //
    },
    completion::{
        Completions,
        Port,
        Seen, //
    },
    memory::{
        QueueMemory,
        QueuePlace, //
    },
    payload::{
        Either,
        Payload,
        Private,
        Segment, //
    },
    slots::{
        CommandSlots,
        SlotSubmission, //
    },
    submitter::Submitter, //
};

use super::Untrusted;
use crate::{
    device::Device,
    prelude::*, //
};

/// The fewest and the most entries that a queue may have.
const MIN_LEN: u32 = 2;
const MAX_LEN: u32 = 1 << 15;

/// The most commands that can be in flight in a queue.
const MAX_TAGS: u16 = 1 << 14;

/// Where in a completion queue an entry is, and in which turn, for [`Entry::is_new`]. Only a queue
/// makes one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Turn {
    phase: bool,
    position: u32,
}

impl Turn {
    /// Returns true in the first turn, false in the second, and so on: what a phase bit (NVMe) or a
    /// cycle bit (xHCI) is compared with, and the opposite of an owner bit (mlx5).
    #[inline]
    pub fn phase(self) -> bool {
        self.phase
    }

    /// Returns how many entries the device has written before this one since the queue was started,
    /// modulo 2^32: what a counter in the entry is compared with, for devices that number their
    /// entries instead of having a bit change.
    #[inline]
    pub fn position(self) -> u32 {
        self.position
    }
}

/// The index of the first entry that is not ready, for [`Submission::doorbell`]. Only a queue makes
/// one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Tail(u32);

impl Tail {
    /// Returns the index.
    #[inline]
    pub fn index(self) -> u32 {
        self.0
    }

    /// Returns whether a device that wants to be told when the tail passes `event` must be told of
    /// this one, if the last that it could see was `old`: for
    /// [`Submission::wants_doorbell`].
    ///
    /// The device says by `event`, an index, that it wants to be told when that entry is ready. So
    /// this is true if the entry is one of those from `old` to before this one. Any other number
    /// does no harm, but that the device may not be told. (C: `nvme_dbbuf_need_event()`.)
    #[inline]
    pub fn passes(self, event: u32, old: Tail) -> bool {
        // CAST: Queues have fewer entries, so differences of indexes are right in 16 bits.
        let since = |from: u32| self.0.wrapping_sub(from) as u16;

        since(event.wrapping_add(1)) < since(old.0)
    }
}

/// The index of the first entry that was not reaped, for [`CompletionQueue::consumed`]. Only a
/// queue makes one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Head(u32);

impl Head {
    /// Returns the index.
    #[inline]
    pub fn index(self) -> u32 {
        self.0
    }
}

/// Which command it is: to compare, and to look something up.
///
/// Its index is free again as soon as the command has completed. The ticket of a command that was
/// completed may come again: see [`Submission::TAG_BITS`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Ticket {
    tag: u32,
    index: u16,
}

impl Ticket {
    /// Returns a number that no other command in flight of this queue has: less than the number of
    /// commands that can be in flight. For a table of the driver's own.
    #[inline]
    pub fn index(self) -> usize {
        self.index.into()
    }
}

/// The layout of an entry of a completion queue, as the data sheet has it.
///
/// Implement it for a `#[repr(C)]` struct of the entry's bytes, in the device's byte order. Check
/// each point of the contract against the data sheet, and answer it number by number.
///
/// # Safety
///
/// 1. [`WORD`](Self::WORD) is the offset in bytes of a 32-bit little-endian word, which the device
///    writes when all else in the entry is written, or by the same write. (In the data sheet: is
///    the entry written as a whole, and which part of it arrives last?)
/// 2. [`is_new`](Self::is_new) returns true for each word that the device writes in that
///    [`Turn`], and false for each that it has written in the turn before. In the first turn it
///    returns false for a word whose bytes are all [`BLANK`](Self::BLANK).
/// 3. In an entry that says that a command is done, [`queue`](Self::queue) returns the number of
///    its submission queue, and [`tag`](Self::tag) what the device has echoed. For all others `tag`
///    returns [`None`]. So if a device writes several entries for a command, only the last one has
///    a tag.
/// 4. When the device has written an entry that names a command in flight, it accesses neither the
///    segments of that command, nor its scratch block, nor its entry in the submission queue, until
///    it is told of another command with that tag. (In the data sheet: are all data moved when the
///    entry is written?) If [`CUMULATIVE`](Self::CUMULATIVE) is true, that also holds for all
///    commands that were submitted to that queue before. (In the data sheet: can a later command be
///    done before an earlier one?)
///
/// # Examples
///
/// See the [module documentation](self).
pub unsafe trait Entry: FromBytes + IntoBytes + Copy + Send {
    /// The offset of the word that says whether an entry is new.
    const WORD: usize;

    /// Whether an entry with a tag says that the command with this tag is done, and all that were
    /// submitted to its queue before.
    ///
    /// So do RDMA devices, on which most commands ask for no entry of their own. Commands are
    /// completed by [`Completer::complete_through`] then, and not by [`Completer::complete`].
    const CUMULATIVE: bool = false;

    /// The byte with which the queue is filled at first.
    const BLANK: u8 = 0;

    /// Returns whether the word, in the CPU's byte order, is that of an entry which the device has
    /// written in this turn. Context: any.
    fn is_new(word: u32, turn: Turn) -> bool;

    /// Returns which of the submission queues that complete here the entry is about, as the device
    /// says: the number that was given to [`Completions::port`]. 0 for a device that has one.
    /// Context: any.
    #[inline]
    fn queue(&self) -> Untrusted<u16> {
        Untrusted::new(0)
    }

    /// Returns the tag of the command that is done, as the device says; [`None`] if the entry is
    /// about no command, or doesn't end one. Context: any.
    fn tag(&self) -> Option<Untrusted<u32>>;

    /// Returns how many bytes of the payload the device reports to have moved: 0 for a command that
    /// has failed; [`None`] if it doesn't say, and then all bytes count as moved.
    ///
    /// More than there are is counted ([`Completer::malformed`]), and taken for 0. Context: any.
    #[inline]
    fn moved(&self) -> Option<Untrusted<usize>> {
        None
    }
}

/// The registers of a completion queue.
///
/// Implement it once for each kind of completion queue that a device has, in the one file of its
/// driver that says `unsafe`. Check each point of the contract against the data sheet, and answer
/// it number by number.
///
/// # Safety
///
/// 1. The queue is accessed by the device that [`device`](Self::device) returns, which is always
///    the same.
/// 2. After [`start`](Self::start) returned `Ok`, the device writes entries one after the other, as
///    a ring, beginning with the first. For this queue it accesses nothing else. After an error it
///    was shown nothing.
/// 3. It doesn't write over an entry before it was told that the entry is free
///    ([`consumed`](Self::consumed)), and leaves one entry free. (In the data sheet: what does the
///    device do if the queue is full?)
/// 4. `start` and `consumed` write registers in order with memory, by `Io::write32()` and not by
///    `Io::relaxed()`.
/// 5. [`number`](Self::number) always returns the same. No two values drive the same queue of a
///    device.
///
/// What the device writes may be false, but for what [`Entry`] says. A queue calls neither `start`
/// nor `consumed` while the device is stopped.
///
/// # Examples
///
/// See the [module documentation](self).
pub unsafe trait CompletionQueue: Send {
    /// The layout of the entries.
    type Entry: Entry;

    /// Returns the device that accesses memory.
    fn device(&self) -> &Device;

    /// Returns the number of the queue, if the device has several. Context: any.
    #[inline]
    fn number(&self) -> u16 {
        0
    }

    /// Tells the device where the queue is. All entries are [blank](Entry::BLANK), and free.
    ///
    /// If a command of another queue tells the device, this does nothing: see [`QueuePlace`]. It
    /// must not sleep, since it runs in an RCU read-side section. Context: any.
    ///
    /// # Errors
    ///
    /// Any, if the device can't take such a queue.
    fn start(&mut self, queue: QueueMemory<'_>) -> Result;

    /// Tells the device that all entries before `head` are free.
    ///
    /// It must not sleep, since it runs in an RCU read-side section. Context: any.
    fn consumed(&mut self, head: Head);
}

/// The registers of a submission queue, and the layout of its entries.
///
/// Implement it once for each kind of submission queue that a device has, in the one file of its
/// driver that says `unsafe`. Check each point of the contract against the data sheet, and answer
/// it number by number.
///
/// # Safety
///
/// 1. The queue is accessed by the device that [`device`](Self::device) returns, which is always
///    the same.
/// 2. After [`start`](Self::start) returned `Ok`, the device fetches entries one after the other,
///    as a ring, beginning with the first, and none before [`doorbell`](Self::doorbell) was called
///    with a tail beyond it. For this queue it accesses the entries, and what they name. After an
///    error it was shown nothing.
/// 3. The entry that [`describe`](Self::describe) makes names no memory but the segments of its
///    [`Call`], or parts of them, its scratch block, and queues by their [place](Call::place). The
///    scratch block names no memory but the segments. The device accesses segments only in their
///    [direction](Segment::direction), and only reads the scratch block. `describe` keeps addresses
///    nowhere else.
/// 4. The entry has the [tag](Call::tag). When the command is done, the device writes one entry
///    with that tag to the completion queue that has the number
///    [`completes_in`](Self::completes_in), under the queue's own [`number`](Self::number); or
///    none, if an entry of a later command says so ([`Entry::CUMULATIVE`]). Both numbers are always
///    the same.
/// 5. When the device writes that entry, it has fetched the command's entry, and all those before.
///    (In the data sheet: may a command overtake others before they are fetched?)
/// 6. `start` and `doorbell` write registers in order with memory, by `Io::write32()` and not by
///    `Io::relaxed()`. There is no other barrier. If [`IN_MEMORY`](Self::IN_MEMORY) is true,
///    [`publish`](Self::publish) writes the tail to memory by one volatile store, from which the
///    device reads it; and the queue brings the barriers. Then 2. holds with `publish` for
///    `doorbell`.
/// 7. No two values drive the same queue of a device.
///
/// What the device writes may be false, but for what [`Entry`] says. A queue calls neither `start`
/// nor `doorbell` while the device is stopped.
///
/// # Examples
///
/// See the [module documentation](self).
pub unsafe trait Submission: Send {
    /// The layout of the entries, as the device reads them.
    type Entry: FromBytes + IntoBytes + Copy + Send;

    /// The layout of the entries of the completion queue.
    type Completion: Entry;

    /// What the driver gives for each command that it submits: an opcode, a block address.
    type Command: Copy;

    /// A block of memory for a list of segments; `()` if there is none.
    type Scratch: FromBytes + IntoBytes + Send + 'static;

    /// How many bits of the tag the device echoes, from 1 to 31.
    ///
    /// What the number of the slot doesn't need is the generation. With 16 bits and 64 commands in
    /// flight there are 1024 generations. Without a bit for them, an entry that the device repeats
    /// would complete the next command in the same slot.
    const TAG_BITS: u32;

    /// Returns the device that accesses memory.
    fn device(&self) -> &Device;

    /// Returns what the entries of completions call this queue ([`Entry::queue`]), if the device
    /// has several. Context: any.
    #[inline]
    fn number(&self) -> u16 {
        0
    }

    /// Returns the number of the completion queue in which commands of this one complete
    /// ([`CompletionQueue::number`]), if the device has several. Context: any.
    #[inline]
    fn completes_in(&self) -> u16 {
        0
    }

    /// Tells the device where the queue is, with head and tail at 0: no entry is ready.
    ///
    /// If a command of another queue tells the device, this does nothing: see [`QueuePlace`]. It
    /// must not sleep, since it runs in an RCU read-side section. Context: any.
    ///
    /// # Errors
    ///
    /// Any, if the device can't take such a queue.
    fn start(&mut self, queue: QueueMemory<'_>) -> Result;

    /// Makes the entry of a command.
    ///
    /// It must not sleep. Context: any.
    ///
    /// # Errors
    ///
    /// Any, if the hardware can't take that command, or that memory. The payload comes back to
    /// whoever submits it.
    fn describe<'a, P: Payload<'a>>(
        &self,
        command: &Self::Command,
        call: Call<'_, 'a, P, Self::Scratch>,
    ) -> Result<Self::Entry>;

    /// Tells the device that all entries before `tail` are ready.
    ///
    /// It must not sleep, since it runs in an RCU read-side section. Context: any.
    fn doorbell(&mut self, tail: Tail);

    /// Whether the device reads the tail from memory while it works, and has to be told by the
    /// register only when it sleeps, as with NVMe's shadow doorbells.
    ///
    /// A write to a register leaves a virtual machine. A device that works looks at memory anyway.
    /// `start` must set the tail there to 0, before the device knows of it.
    const IN_MEMORY: bool = false;

    /// Writes the tail to memory, where the device reads it. Called if
    /// [`IN_MEMORY`](Self::IN_MEMORY) is true, in order after the entries were written.
    ///
    /// It must not sleep, since it runs in an RCU read-side section. Context: any.
    #[inline]
    fn publish(&mut self, tail: Tail) {
        let _ = tail;
    }

    /// Returns whether the device must be told by the [`doorbell`](Self::doorbell) besides, since
    /// it may have looked at the tail for the last time. Called after [`publish`](Self::publish),
    /// and ordered after it. `old` is the tail that was published before. What the device says is
    /// compared by [`Tail::passes`].
    ///
    /// It must not sleep, since it runs in an RCU read-side section. Context: any.
    #[inline]
    fn wants_doorbell(&mut self, old: Tail, tail: Tail) -> bool {
        let _ = (old, tail);
        true
    }
}
