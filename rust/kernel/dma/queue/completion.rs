// SPDX-License-Identifier: GPL-2.0

//! Completion queues, and the right of submission queues to complete there.

use super::{
    super::{
        mapping::{
            barrier::loads_before_stores,
            mapper::is_same,
            orphan::{
                put_away,
                Orphan, //
            },
        },
        Mapper,
        Untrusted, //
    },
    memory::{
        Entries,
        QueuePlace,
        Table,
        Told,
        UNTOLD, //
    },
    CompletionQueue,
    Entry,
    Head,
    Turn,
    MAX_LEN,
    MIN_LEN, //
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
        barrier::{
            dma_mb,
            Read, //
        },
        Arc, //
    }, //
};
use core::{
    marker::PhantomData,
    mem::ManuallyDrop, //
};

/// No start of a completion queue.
pub(super) const NEVER: u64 = 0;

/// Tells one start of a completion queue from all others that there ever were.
static STARTS: Atomic<u64> = Atomic::new(NEVER + 1);

/// When a completion queue was started last, for the submission queues that complete there.
pub(super) struct Started {
    /// The epoch in which the device was told, or `UNTOLD`.
    epoch: Atomic<u64>,
    /// Which start it was, of all queues.
    start: Atomic<u64>,
}

impl Started {
    fn new() -> Self {
        Self {
            epoch: Atomic::new(UNTOLD),
            start: Atomic::new(NEVER),
        }
    }

    fn set(&self, epoch: u64, start: u64) {
        self.start.store(start, Relaxed);
        // Release: who sees the epoch sees that start.
        self.epoch.store(epoch, Release);
    }

    /// Says that no submission queue is to be started any more that would complete here.
    fn end(&self) {
        self.epoch.store(UNTOLD, Relaxed);
    }

    /// Returns which start it was, if the queue was started in that epoch and is there.
    ///
    /// The device must not be stopped meanwhile.
    pub(super) fn in_epoch(&self, epoch: u64) -> Option<u64> {
        (self.epoch.load(Acquire) == epoch).then(|| self.start.load(Relaxed))
    }
}

/// A completion queue, in which the commands of one or more submission queues complete.
///
/// Make one, take a [port](Self::port) for each submission queue that is to complete here, and make
/// the submission queues ([`Commands::new`](super::Commands::new)). After the session was started,
/// [`start`](Self::start) this queue, and then the others. When an interrupt says that there are
/// entries, [`reap`](Self::reap) them, and hand each to the [`Completer`](super::Completer) of its
/// queue.
///
/// The device can't write over entries that weren't reaped. The ports reserve room for all commands
/// that can be in flight, and `reap` tells the device often enough what it has seen.
///
/// Its methods take `&mut self`, so it belongs to one context at a time. Dropping it frees the
/// memory, or quarantines it if the device may access it. Context of dropping it: process context.
///
/// # Invariants
///
/// - `head` is the first entry that wasn't reaped. The device was told that those before it are
///   free, unless it is stopped.
/// - No two ports have the same number. The ports together reserve `reserved` entries, and `slack`
///   others are left, but for one.
///
/// # Examples
///
/// See the [module documentation](super).
pub struct Completions<'a, C: CompletionQueue> {
    table: Table<C::Entry>,
    head: u32,
    reserved: u32,
    /// How many reaped entries the device need not be told of at once.
    ///
    /// What the device has written and wasn't told to be free are these, and entries that weren't
    /// reaped, of which there is one for each command in flight at most. Together with those that
    /// can be in flight they leave one entry free.
    slack: u32,
    /// The last start, or `NEVER`.
    start: u64,
    queue: C,
    told: Told<'a>,
    started: Arc<Started>,
    ports: KVec<u16>,
    doorbells: u64,
    owned: ManuallyDrop<Entries<'a, C::Entry>>,
}

// SAFETY: It owns its memory, and a queue that is `Send`.
unsafe impl<C: CompletionQueue> Send for Completions<'_, C> {}

impl<'a, C: CompletionQueue> Completions<'a, C> {
    /// Makes a completion queue of `len` entries. Its ports can reserve `len - 2` of them.
    ///
    /// The device isn't told: call [`start`](Self::start), after the session was started. Context:
    /// may sleep. (C: `dma_alloc_coherent()`.)
    ///
    /// # Errors
    ///
    /// - [`EINVAL`] if `len` isn't a power of two from 4 to 32768, if the queue is one of another
    ///   device, or if its memory doesn't meet the device's
    ///   [`Constraints`](super::super::Constraints);
    /// - [`ENOMEM`].
    pub fn new(dma: Mapper<'a>, queue: C, len: u32) -> Result<Self> {
        const {
            assert!(
                C::Entry::WORD % size_of::<u32>() == 0,
                "the word that says that an entry is new is aligned"
            );
            assert!(
                C::Entry::WORD < size_of::<C::Entry>(),
                "the word that says that an entry is new is in the entry"
            );
        }

        if !is_same(queue.device(), dma.device()) {
            return Err(EINVAL);
        }

        if !len.is_power_of_two() || !(2 * MIN_LEN..=MAX_LEN).contains(&len) {
            return Err(EINVAL);
        }

        let owned = Entries::new(dma, len)?;
        let table: Table<C::Entry> = owned.table();

        // SAFETY: Nobody else knows the memory.
        unsafe { owned.fill(C::Entry::BLANK) };

        // INVARIANT: There are no ports, and no entries.
        Ok(Self {
            head: table.first(),
            table,
            reserved: 0,
            slack: len - 1,
            start: NEVER,
            queue,
            told: Told::new(dma.record()),
            started: Arc::new(Started::new(), GFP_KERNEL)?,
            ports: KVec::new(),
            doorbells: 0,
            owned: ManuallyDrop::new(owned),
        })
    }

    /// Returns the registers of the queue.
    #[inline]
    pub fn queue(&self) -> &C {
        &self.queue
    }

    /// Returns the number of entries.
    #[inline]
    #[expect(clippy::len_without_is_empty, reason = "a queue has entries")]
    pub fn len(&self) -> u32 {
        self.table.len()
    }

    /// Returns how often the device was told what was reaped.
    #[inline]
    pub fn doorbells(&self) -> u64 {
        self.doorbells
    }

    /// Reserves room for a submission queue, which the entries call `queue`
    /// ([`Entry::queue`]), and which has up to `in_flight` commands in flight.
    ///
    /// The room stays reserved as long as the completion queue lives, and the number taken.
    /// Context: may sleep.
    ///
    /// # Errors
    ///
    /// - [`EEXIST`] if there is a port of that number;
    /// - [`EINVAL`] if `in_flight` is 0;
    /// - [`EBUSY`] if all ports together would reserve more than `len - 2` entries. One entry is
    ///   always free, since a full queue would look empty. Another one is for what was reaped and
    ///   the device wasn't told of yet;
    /// - [`ENOMEM`].
    pub fn port(&mut self, queue: u16, in_flight: u16) -> Result<Port<'a, C::Entry>> {
        if self.ports.contains(&queue) {
            return Err(EEXIST);
        }

        if in_flight == 0 {
            return Err(EINVAL);
        }

        let reserved = self.reserved + u32::from(in_flight);

        if reserved > self.table.len() - 2 {
            return Err(EBUSY);
        }

        self.ports.push(queue, GFP_KERNEL)?;

        // INVARIANT: The number is new, and the room was just checked.
        self.reserved = reserved;
        self.slack = self.table.len() - 1 - reserved;
        Ok(Port {
            dma: self.owned.dma(),
            completions: self.queue.number(),
            started: self.started.clone(),
            queue,
            in_flight,
            _entry: PhantomData,
        })
    }

    /// Clears the queue, and tells the device where it is.
    ///
    /// Call this after [`Session::start`](super::super::Session::start), at first and after each
    /// stop, and before the submission queues are started. Entries that weren't reaped are lost:
    /// the commands come back when their queue is started. Context: any.
    ///
    /// # Errors
    ///
    /// - [`EBUSY`] if the device may still access the queue, since it wasn't stopped;
    /// - [`ESHUTDOWN`] if the device doesn't run;
    /// - what [`CompletionQueue::start`] returned. The queue is empty then.
    pub fn start(&mut self) -> Result {
        self.told.check_open()?;
        self.told.reset()?;

        // SAFETY: The device doesn't access the queue, and `&mut self` excludes other users.
        unsafe { self.owned.fill(C::Entry::BLANK) };

        // INVARIANT: There are no entries.
        self.head = self.table.first();
        // Unless this succeeds, what is in the queue completes nothing that was submitted before.
        self.start = NEVER;

        let Self {
            told, owned, queue, ..
        } = self;

        told.tell(|running| queue.start(owned.memory(running)))?;
        self.start = STARTS.fetch_add(1, Relaxed);
        self.started.set(self.told.epoch(), self.start);
        Ok(())
    }

    /// Returns where the queue is, for a command that creates it. Call it after
    /// [`start`](Self::start). Context: any.
    #[inline]
    pub fn place(&self) -> QueuePlace<'a, C::Entry> {
        self.owned.place(&self.told)
    }

    /// Returns whether no more entries will come, since the device was stopped, or wasn't told of
    /// the queue yet.
    ///
    /// Entries that were written before can still be reaped. A thread that waits looks for one
    /// first, and then calls this. Context: any.
    #[inline]
    pub fn is_stopped(&self) -> bool {
        self.told.is_over()
    }

    /// Gives up to `budget` new entries to `give`, in the order in which the device has written
    /// them; returns how many.
    ///
    /// Each is copied once. The device is told once, at the end, of all that were reaped, or more
    /// often if the ports have reserved nearly the whole queue. If the result is less than
    /// `budget`, there are no more. Entries that are given to no [`Completer`](super::Completer)
    /// are lost, and their commands stay in flight. Context: any in which `give` may be called.
    #[inline]
    pub fn reap(&mut self, budget: u32, mut give: impl FnMut(Seen<'_, C::Entry>)) -> u32 {
        let first = self.head;
        let mut left = budget;

        loop {
            let stop = self.head.wrapping_add(left.min(self.slack));
            let head = self.reap_until(stop, &mut give);

            if head != self.head {
                self.consume(head);
            }

            left = budget - head.wrapping_sub(first);

            if head != stop || left == 0 {
                return head.wrapping_sub(first);
            }
        }
    }

    /// As [`reap`](Self::reap), up to an entry. Returns the first one that wasn't reaped. The
    /// device isn't told.
    #[inline(always)]
    fn reap_until(&self, stop: u32, mut give: impl FnMut(Seen<'_, C::Entry>)) -> u32 {
        let mut head = self.head;

        while head != stop {
            let &Self { table, start, .. } = self;

            // SAFETY: The memory is there as long as `self`, and `new()` has asserted that the word
            // is in the entry.
            let word = unsafe { table.word(head, C::Entry::WORD) };

            let turn = Turn {
                phase: table.is_even(head),
                position: head.wrapping_sub(table.first()),
            };

            if !C::Entry::is_new(word, turn) {
                break;
            }

            // Ordering 3: new before the rest.
            dma_mb(Read);

            // SAFETY: As above.
            let entry = unsafe { table.read(head) };

            head = head.wrapping_add(1);

            give(Seen {
                entry,
                start,
                _reap: PhantomData,
            });
        }

        head
    }

    /// Tells the device that all entries before `head` are free again.
    #[inline]
    fn consume(&mut self, head: u32) {
        // INVARIANT: The device is told now.
        self.head = head;

        // Ordering 6: the entries were read before the device may write them again.
        loads_before_stores();

        // A device that was stopped writes no entries.
        if let Ok(_running) = self.told.enter() {
            self.queue.consumed(Head(self.table.index(head)));
            self.doorbells += 1;
        }
    }

    /// Returns where the entries are, for tests that play the device.
    #[cfg(CONFIG_RUST_DMA_KUNIT_TEST)]
    pub(in crate::dma) fn table(&self) -> core::ptr::NonNull<C::Entry> {
        self.table.at(0)
    }
}

impl<C: CompletionQueue> Drop for Completions<'_, C> {
    fn drop(&mut self) {
        self.started.end();

        // SAFETY: `self` is not used afterwards.
        let owned = unsafe { ManuallyDrop::take(&mut self.owned) };

        if self.told.is_quiet() {
            drop(owned);
            return;
        }

        put_away(
            owned.dma().device(),
            self.told.record(),
            Some(self.told.epoch()),
            Dropped(owned),
        );
    }
}

/// The memory of a completion queue that was dropped.
struct Dropped<'a, T>(Entries<'a, T>);

// SAFETY:
// 1. To release it is to drop it, which may be done in process context, by any thread. A completion
//    queue is dropped in process context, too.
// 2. It borrows the device.
unsafe impl<T: FromBytes + IntoBytes + Copy> Orphan for Dropped<'_, T> {
    const ACCIDENT: bool = true;

    fn bytes(&self) -> usize {
        self.0.size()
    }

    unsafe fn release(self) {
        drop(self);
    }
}

/// The right of one submission queue to complete in a completion queue, with room for its commands.
///
/// [`Completions::port`] makes one, and [`Commands::new`](super::Commands::new) takes it.
pub struct Port<'a, E> {
    pub(super) dma: Mapper<'a>,
    /// The number of the completion queue.
    pub(super) completions: u16,
    pub(super) started: Arc<Started>,
    pub(super) queue: u16,
    pub(super) in_flight: u16,
    _entry: PhantomData<fn() -> E>,
}

/// An entry that the device has written: worth one completion.
///
/// [`Completions::reap`] hands it out. Give it to the [`Completer`](super::Completer) of its queue.
/// It can be neither copied nor kept, so it completes a command at most once, and none that was
/// submitted later.
#[must_use = "its command stays in flight"]
pub struct Seen<'c, E> {
    pub(super) entry: E,
    /// Of the completion queue.
    pub(super) start: u64,
    _reap: PhantomData<fn(&'c ()) -> &'c ()>,
}

impl<'c, E: Entry> Seen<'c, E> {
    /// Returns the same once more, to be given back by who was lent it.
    #[inline]
    pub(super) fn again(&self) -> Self {
        Self { ..*self }
    }

    /// Returns the number of the submission queue that it is about, as the device says.
    ///
    /// Where several queues complete in one, it says which [`Completer`](super::Completer) to give
    /// the entry to. A wrong one gives it back. Context: any.
    #[inline]
    pub fn queue(&self) -> Untrusted<u16> {
        self.entry.queue()
    }

    /// Returns the entry, as the device wrote it. Context: any.
    #[inline]
    pub fn entry(&self) -> Untrusted<E> {
        Untrusted::new(self.entry)
    }
}
