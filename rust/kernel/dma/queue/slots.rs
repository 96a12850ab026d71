// SPDX-License-Identifier: GPL-2.0

//! Commands in slots, whose device says by the bits of a register which ones are done.

use super::{
    super::{
        mapping::{
            barrier::loads_before_stores,
            mapper::is_same,
            orphan::{
                put_away,
                Orphan, //
            },
            streaming::hand_over, //
        },
        Mapper,
        Pool,
        PoolBox,
        Untrusted, //
    },
    memory::{
        Entries,
        QueueMemory,
        Table,
        Told, //
    },
    Call,
    Completed,
    Payload,
    Ticket, //
};
use crate::{
    device::Device,
    error::ErrorWith,
    prelude::*,
    sync::barrier::{
        dma_mb,
        Read, //
    }, //
};
use core::mem::ManuallyDrop;

/// The most slots that a table can have: one for each bit of [`SlotSubmission::busy`].
const MAX_SLOTS: u32 = u64::BITS;

/// The registers of a table of slots, and the layout of its entries.
///
/// Implement it once for each such table of a device, in the one file of its driver that says
/// `unsafe`. Check each point of the contract against the data sheet, and answer it number by
/// number.
///
/// # Safety
///
/// 1. The table is accessed by the device that [`device`](Self::device) returns, which is always
///    the same.
/// 2. After [`start`](Self::start) returned `Ok`, the device looks at the entries of those slots
///    only for which [`issue`](Self::issue) was called since they were last done. For this table it
///    accesses the entries, and what they name. After an error it was shown nothing.
/// 3. The entry that [`describe`](Self::describe) makes names no memory but the segments of its
///    [`Call`], or parts of them, and its scratch block. The scratch block names no memory but the
///    segments. The device accesses segments only in their direction, and only reads the scratch
///    block. `describe` keeps addresses nowhere else.
/// 4. [`busy`](Self::busy) fails, or returns a number in which each slot that was issued and isn't
///    done has its bit. Of a slot that is done the device accesses neither the segments, nor the
///    scratch block, nor the entry, until it is issued again. (In the data sheet: are all data
///    moved when the bit is cleared? Is it also cleared by an error, or by something else?)
/// 5. `start`, `issue` and `busy` access registers in order with memory, by `Io::write32()` and
///    `Io::read32()`, and not by `Io::relaxed()`. `busy` sees what `issue` has written before.
/// 6. No two values drive the same table of a device.
///
/// What the device writes into an entry may be false. None of `start`, `issue` and `busy` is called
/// while the device is stopped.
///
/// # Examples
///
/// See [`CommandSlots`].
pub unsafe trait SlotSubmission: Send {
    /// The layout of the entries, as the device reads them.
    type Entry: FromBytes + IntoBytes + Copy + Send;

    /// What the driver gives for each command that it submits: an opcode, a block address.
    type Command: Copy;

    /// A block of memory for a list of segments; `()` if there is none.
    type Scratch: FromBytes + IntoBytes + Send + 'static;

    /// Returns the device that accesses memory.
    fn device(&self) -> &Device;

    /// Tells the device where the table is. No slot is issued.
    ///
    /// It must not sleep, since it runs in an RCU read-side section. Context: any.
    ///
    /// # Errors
    ///
    /// Any, if the device can't take such a table.
    fn start(&mut self, table: QueueMemory<'_>) -> Result;

    /// Makes the entry of a command. [`Call::tag`] is the number of its slot.
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

    /// Tells the device that the slots whose bits are set in `slots` are ready: the doorbell.
    ///
    /// It must not sleep, since it runs in an RCU read-side section. Context: any.
    fn issue(&mut self, slots: u64);

    /// Reads which slots are issued and not done. Other bits don't matter.
    ///
    /// It must not sleep, since it runs in an RCU read-side section. Context: any.
    ///
    /// # Errors
    ///
    /// Any, if the device doesn't answer, as one that was pulled out: nothing completes then.
    fn busy(&self) -> Result<u64>;

    /// Returns how many bytes of the payload the device says, in the entry, to have moved; [`None`]
    /// for all of them.
    ///
    /// More than there are is [counted](CommandSlots::malformed), and taken for 0. Context: any.
    #[inline]
    fn moved(entry: &Self::Entry) -> Option<Untrusted<usize>> {
        let _ = entry;
        None
    }
}

/// What there is of a command besides its entry.
struct Contents<'a, P, S> {
    /// What is in flight.
    payload: Option<P>,
    /// A block for a list of segments, which stays with the slot.
    scratch: Option<PoolBox<'a, S>>,
}

/// What the device may access. Freed when it doesn't any more.
struct Owned<'a, T, P: Payload<'a>, S> {
    entries: Entries<'a, T>,
    contents: KVec<Contents<'a, P, S>>,
}

impl<'a, T, P: Payload<'a>, S> Drop for Owned<'a, T, P, S> {
    /// Only called when the device is done with the memory.
    fn drop(&mut self) {
        for contents in &mut self.contents {
            if let Some(payload) = contents.payload.take() {
                // SAFETY: The device is done with it: see above. No bytes are of interest.
                drop(unsafe { payload.complete(0) });
            }
        }
    }
}

// SAFETY:
// 1. To release it is to drop it, which may be done in process context, by any thread.
// 2. As for a queue with halves.
unsafe impl<'a, T, P, S> Orphan for Owned<'a, T, P, S>
where
    T: FromBytes + IntoBytes + Copy,
    P: Payload<'a>,
    S: Send,
{
    const ACCIDENT: bool = true;

    fn bytes(&self) -> usize {
        let payloads = self.contents.iter().filter_map(|one| one.payload.as_ref());

        self.entries.size() + payloads.map(P::len).sum::<usize>()
    }

    unsafe fn release(self) {
        drop(self);
    }
}

/// A table of commands, and what is in flight, for a device that has no completion queue but a
/// register with a bit for each slot: AHCI's command list, UFS's list of transfer requests.
///
/// [`submit`](Self::submit) commands, [`kick`](Self::kick) the device once for a batch, and
/// [`reap`](Self::reap) what is done when an interrupt comes. The device carries commands out in
/// any order. What is in flight belongs to the table, as with [`Commands`](super::Commands): a
/// payload comes back when the bit of its slot says that it is done, or when the device was proven
/// to have stopped.
///
/// There are no generations, since a bit can't be late: it is about the slot as it is. And there
/// are no halves, since the register is about slots that the device was told of, so that whoever
/// reads it must know these. So put the table into a lock, which the interrupt handler takes.
///
/// Keep it in the device's [`Session`](super::super::Session), whose contents are freed after a
/// stop only. One that is dropped while the device may access it is quarantined as a whole. Context
/// of dropping it: process context.
///
/// # Invariants
///
/// - There are at most 64 slots. `free` and `issued` have no bits beyond, and none in common.
/// - A slot whose bit is set in `free` has no payload, and the device doesn't look at it.
/// - The device was told of those whose bit is set in `issued`, since `told` is the epoch.
///
/// # Examples
///
/// ```
/// # use kernel::{device::{Bound, Device}, io::{Io, Mmio, Region}, prelude::*};
/// use kernel::dma::{
///     queue::{Call, CommandSlots, Payload, QueueMemory, SlotSubmission},
///     FromDevice, Streaming, StreamingBox,
/// };
///
/// /// A command, as the device reads it; little endian.
/// #[derive(Clone, Copy, FromBytes, IntoBytes)]
/// #[repr(C)]
/// struct Command {
///     sector: u64,
///     address: u64,
///     len: u64,
/// }
///
/// struct Port<'a> {
///     dev: &'a Device<Bound>,
///     io: Mmio<'a, Region<16>>,
/// }
///
/// // SAFETY: By the numbers of the contract:
/// // 1. The registers are those of `dev`.
/// // 2. The device looks at slots whose bit was written to the register at 8. `start` fails before
/// //    it writes a register.
/// // 3. `describe` puts the address of the segment into the entry, to which the device writes.
/// // 4. The device clears a bit of the register at 12 when all data are written.
/// // 5. `write32()` and `read32()` are ordered.
/// // 6. The driver makes one `Port` for a device.
/// unsafe impl SlotSubmission for Port<'_> {
///     type Entry = Command;
///     type Command = u64;
///     type Scratch = ();
///
///     fn device(&self) -> &Device {
///         self.dev
///     }
///
///     fn start(&mut self, table: QueueMemory<'_>) -> Result {
///         // SAFETY: The table and `running` are those of `dev`. The device accesses entries only,
///         // until it is stopped.
///         let base = u32::try_from(unsafe { table.memory.to_bits(table.running) })?;
///
///         self.io.write32(base, 0);
///         Ok(())
///     }
///
///     fn describe<'c, P: Payload<'c>>(
///         &self,
///         sector: &u64,
///         call: Call<'_, 'c, P, ()>,
///     ) -> Result<Command> {
///         let mut segments = call.segments();
///
///         // This device takes one segment.
///         let (Some(segment), None) = (segments.next(), segments.next()) else {
///             return Err(EINVAL);
///         };
///
///         Ok(Command {
///             sector: sector.to_le(),
///             address: segment.address().to_le(),
///             // CAST: Widening.
///             len: (segment.len() as u64).to_le(),
///         })
///     }
///
///     fn issue(&mut self, slots: u64) {
///         // CAST: There are 32.
///         self.io.write32(slots as u32, 8);
///     }
///
///     fn busy(&self) -> Result<u64> {
///         match self.io.read32(12) {
///             // It was pulled out.
///             u32::MAX => Err(ENODEV),
///             slots => Ok(slots.into()),
///         }
///     }
/// }
///
/// type Buf<'a> = Streaming<'a, KVec<u8>, FromDevice>;
///
/// /// Reads sectors, and gives those that have arrived to `read`.
/// fn read<'a>(
///     slots: &mut CommandSlots<'a, Port<'a>, Buf<'a>>,
///     sectors: impl Iterator<Item = (u64, Buf<'a>)>,
///     mut read: impl FnMut(StreamingBox<'a, KVec<u8>, FromDevice>),
/// ) -> Result {
///     // If one can't be submitted, for instance since no slot is free, the others are.
///     let submitted = sectors.into_iter().try_for_each(|(sector, buf)| {
///         slots.submit(buf, sector)?;
///         Ok(())
///     });
///
///     // One write of the register for all of them.
///     slots.kick()?;
///     slots.reap(|completed| read(completed.payload))?;
///     submitted
/// }
/// ```
pub struct CommandSlots<'a, Q: SlotSubmission, P: Payload<'a>> {
    queue: Q,
    told: Told<'a>,
    table: Table<Q::Entry>,
    pool: Option<&'a Pool<'a, Q::Scratch>>,
    free: u64,
    issued: u64,
    malformed: u64,
    owned: ManuallyDrop<Owned<'a, Q::Entry, P, Q::Scratch>>,
}

// SAFETY: It owns its memory, with payloads, blocks and a queue that are `Send`.
unsafe impl<'a, Q: SlotSubmission, P: Payload<'a>> Send for CommandSlots<'a, Q, P> {}

impl<'a, Q: SlotSubmission, P: Payload<'a>> CommandSlots<'a, Q, P> {
    /// Makes a table of that many slots. `scratch` is the pool of blocks for lists of segments, if
    /// [`SlotSubmission::describe`] makes any.
    ///
    /// The device isn't told: call [`start`](Self::start), after the session was started. Context:
    /// may sleep. (C: `dma_alloc_coherent()`.)
    ///
    /// # Errors
    ///
    /// - [`EINVAL`] if `queue` is one of another device, if there are no slots or more than 64, or
    ///   if the memory doesn't meet the device's [`Constraints`](super::super::Constraints);
    /// - [`ENOMEM`].
    pub fn new(
        dma: Mapper<'a>,
        queue: Q,
        slots: u32,
        scratch: Option<&'a Pool<'a, Q::Scratch>>,
    ) -> Result<Self> {
        if !is_same(queue.device(), dma.device()) || !(1..=MAX_SLOTS).contains(&slots) {
            return Err(EINVAL);
        }

        let entries = Entries::new(dma, slots.next_power_of_two())?;
        let mut contents = KVec::new();

        for _ in 0..slots {
            let one = Contents {
                payload: None,
                scratch: None,
            };

            contents.push(one, GFP_KERNEL)?;
        }

        // INVARIANT: There are so many slots, all of which are free.
        Ok(Self {
            queue,
            told: Told::new(dma.record()),
            table: entries.table(),
            pool: scratch,
            free: all(slots),
            issued: 0,
            malformed: 0,
            owned: ManuallyDrop::new(Owned { entries, contents }),
        })
    }

    /// Returns the registers of the table.
    #[inline]
    pub fn queue(&self) -> &Q {
        &self.queue
    }

    /// Returns how many commands can be submitted. Context: any.
    #[inline]
    pub fn free(&self) -> u32 {
        self.free.count_ones()
    }

    /// Returns how many commands are in flight, with those that the device wasn't told of yet.
    /// Context: any.
    #[inline]
    pub fn in_flight(&self) -> u32 {
        // CAST: At most 64.
        self.owned.contents.len() as u32 - self.free()
    }

    /// Returns how many commands the device reported to have moved more bytes than they have. They
    /// completed, with no bytes moved. Context: any.
    #[inline]
    pub fn malformed(&self) -> u64 {
        self.malformed
    }

    /// Returns whether no more commands will complete, since the device was stopped, or wasn't told
    /// of the table yet. Context: any.
    #[inline]
    pub fn is_stopped(&self) -> bool {
        self.told.is_over()
    }

    /// Writes the entry of a command. [`kick`](Self::kick) tells the device.
    ///
    /// The table owns the payload until [`reap`](Self::reap) returns it. The ticket says which
    /// command it was. Context: any.
    ///
    /// # Errors
    ///
    /// The payload comes back as it was, with
    ///
    /// - [`EBUSY`] if no slot is free;
    /// - [`EINVAL`] if somebody asked for the [address](super::super::Streaming::address) of the
    ///   payload, since it may be in flight elsewhere;
    /// - [`EINVAL`] if the payload is mapped for another device;
    /// - what [`SlotSubmission::describe`] returned.
    pub fn submit(&mut self, mut payload: P, command: Q::Command) -> Result<Ticket, ErrorWith<P>> {
        let slot = self.free.trailing_zeros();

        match self.describe(slot, &mut payload, &command) {
            Ok(entry) => {
                self.put(slot, &entry, payload);

                Ok(Ticket {
                    tag: slot,
                    // CAST: Less than 64.
                    index: slot as u16,
                })
            }
            Err(error) => Err(ErrorWith {
                error,
                value: payload,
            }),
        }
    }

    fn describe(&mut self, slot: u32, payload: &mut P, command: &Q::Command) -> Result<Q::Entry> {
        let dma = self.owned.entries.dma();

        // CAST: Widening.
        let Some(contents) = self.owned.contents.get_mut(slot as usize) else {
            // None is free.
            return Err(EBUSY);
        };

        payload.check(dma)?;

        // If that fails the payload goes back: by point 3 of the contract of `SlotSubmission`,
        // `describe` keeps no address.
        self.queue.describe(
            command,
            Call {
                dma,
                tag: slot,
                told: &self.told,
                payload,
                pool: self.pool,
                scratch: &mut contents.scratch,
            },
        )
    }

    /// Puts a command into a slot, which must be free.
    fn put(&mut self, slot: u32, entry: &Q::Entry, payload: P) {
        // CAST: Widening.
        let Some(contents) = self.owned.contents.get_mut(slot as usize) else {
            return;
        };

        if let Some(block) = &contents.scratch {
            hand_over(block.as_ptr().cast());
        }

        contents.payload = Some(payload);

        // SAFETY: The memory exists as long as `self`. By the type invariants the device doesn't
        // look at a slot that is free, and nobody else has the table.
        unsafe { self.table.write(slot, entry) };

        // INVARIANT: It has a payload now.
        self.free &= !(1 << slot);
    }

    /// Tells the device of all commands that were submitted since the last call.
    ///
    /// Call it once for a batch. If nothing was submitted since, it does nothing and returns `Ok`,
    /// even if the device was stopped. Context: any.
    ///
    /// # Errors
    ///
    /// [`ESHUTDOWN`] if the device was stopped, or the table wasn't [started](Self::start) since.
    /// What was submitted comes back from the next `start`.
    pub fn kick(&mut self) -> Result {
        // CAST: At most 64.
        let slots = self.owned.contents.len() as u32;
        let ready = all(slots) & !self.free & !self.issued;

        if ready == 0 {
            return Ok(());
        }

        let _running = self.told.enter()?;

        if P::IS_SHARED {
            // The CPU reads a block before the device may write it again.
            loads_before_stores();
        }

        // INVARIANT: The device is about to be told.
        self.issued |= ready;
        // Entry before doorbell, by the contract of `SlotSubmission`.
        self.queue.issue(ready);
        Ok(())
    }

    /// Looks which commands are done, and gives them to `give`; returns how many.
    ///
    /// [`Completed::entry`] is a copy of the entry, where the device may say how it went. Context:
    /// any in which `give` may be called.
    ///
    /// # Errors
    ///
    /// Nothing completes, with
    ///
    /// - [`ESHUTDOWN`] if the device was stopped with commands in flight: a bit that is clear means
    ///   nothing then. They come back from the next [`start`](Self::start);
    /// - what [`SlotSubmission::busy`] returned.
    pub fn reap(&mut self, mut give: impl FnMut(Completed<'a, P, Q::Entry>)) -> Result<u32> {
        if self.issued == 0 {
            return Ok(0);
        }

        let running = self.told.enter()?;
        let mut done = self.issued & !self.queue.busy()?;

        drop(running);

        // Done before the rest: what the device wrote before it cleared the bits is read after
        // them.
        dma_mb(Read);

        let count = done.count_ones();

        while done != 0 {
            let slot = done.trailing_zeros();

            done &= done - 1;

            if let Some(completed) = self.take(slot) {
                give(completed);
            }
        }

        Ok(count)
    }

    /// Takes what is in a slot, whose command is done.
    fn take(&mut self, slot: u32) -> Option<Completed<'a, P, Q::Entry>> {
        // CAST: Widening.
        let payload = self.owned.contents.get_mut(slot as usize)?.payload.take()?;

        // SAFETY: The memory exists as long as `self`.
        let entry = unsafe { self.table.read(slot) };
        let len = payload.len();
        let moved = match Q::moved(&entry).map(|moved| moved.at_most(len)) {
            None => len,
            Some(Ok(moved)) => moved,
            Some(Err(_)) => {
                self.malformed += 1;
                0
            }
        };

        // INVARIANT: By point 4 of the contract of `SlotSubmission` the device doesn't look at it.
        self.issued &= !(1 << slot);
        self.free |= 1 << slot;

        Some(Completed {
            ticket: Ticket {
                tag: slot,
                // CAST: Less than 64.
                index: slot as u16,
            },
            // SAFETY: The device is done with it, by the same point: it runs in the epoch in which
            // it was told of the table, the slot was issued, and its bit was clear afterwards. A
            // `dma_rmb()` came after that. `moved` isn't greater than the length.
            payload: unsafe { payload.complete(moved) },
            entry: Untrusted::new(entry),
        })
    }

    /// Empties the table, and tells the device where it is.
    ///
    /// Call this after [`Session::start`](super::super::Session::start), at first and after each
    /// stop. What was in flight is given to `cancelled`; no bytes of it are
    /// [defined](super::super::StreamingBox). Context: any in which payloads may be unmapped and
    /// dropped.
    ///
    /// # Errors
    ///
    /// - [`EBUSY`] if the device may still access the table, since it wasn't stopped
    ///   ([`Session::restart`](super::super::Session::restart));
    /// - [`ESHUTDOWN`] if the device doesn't run;
    /// - what [`SlotSubmission::start`] returned, or [`ESHUTDOWN`] if the device was stopped
    ///   meanwhile. The table is empty then.
    pub fn start(&mut self, cancelled: impl FnMut(Ticket, P::Back)) -> Result {
        self.told.check_open()?;
        self.drain(cancelled)?;

        let Self {
            told, queue, owned, ..
        } = self;

        told.tell(|running| queue.start(owned.entries.memory(running)))
    }

    /// Takes what is in flight out of a table that the device doesn't access, and gives it to
    /// `give`.
    ///
    /// Use it after a stop; [`start`](Self::start) does the same. There is no way to cancel a
    /// single command, since that is no proof that the device is done with its memory. Context: any
    /// in which payloads may be unmapped and dropped.
    ///
    /// # Errors
    ///
    /// [`EBUSY`] if the device may still access the table.
    pub fn drain(&mut self, mut give: impl FnMut(Ticket, P::Back)) -> Result {
        self.told.reset()?;

        // SAFETY: The device doesn't access the entries, as was just checked, and nobody else has
        // them.
        unsafe { self.owned.entries.fill(0) };

        for (slot, contents) in (0..).zip(&mut self.owned.contents) {
            let Some(payload) = contents.payload.take() else {
                continue;
            };

            // INVARIANT: The device doesn't look at it.
            self.issued &= !(1 << slot);
            self.free |= 1 << slot;

            let ticket = Ticket {
                tag: slot,
                // CAST: Less than 64.
                index: slot as u16,
            };

            // SAFETY: The device doesn't access what it was shown, as was just checked. No bytes
            // are of interest.
            give(ticket, unsafe { payload.complete(0) });
        }

        Ok(())
    }

    /// Returns where the entries are, for tests that play the device.
    #[cfg(CONFIG_RUST_DMA_KUNIT_TEST)]
    pub(in crate::dma) fn table(&self) -> core::ptr::NonNull<Q::Entry> {
        self.table.at(0)
    }
}

impl<'a, Q: SlotSubmission, P: Payload<'a>> Drop for CommandSlots<'a, Q, P> {
    fn drop(&mut self) {
        // SAFETY: `self` is not used afterwards.
        let owned = unsafe { ManuallyDrop::take(&mut self.owned) };

        if self.told.is_quiet() {
            drop(owned);
            return;
        }

        put_away(
            owned.entries.dma().device(),
            self.told.record(),
            Some(self.told.epoch()),
            owned,
        );
    }
}

/// Returns the bits of that many slots, 1 to 64.
#[inline]
fn all(slots: u32) -> u64 {
    u64::MAX >> (MAX_SLOTS - slots)
}
