// SPDX-License-Identifier: GPL-2.0

//! Tests of commands in slots, with a device that the test plays: on any bus.
//!
//! The test says which slots are busy. Nobody accesses what commands name.

use super::{
    ensure,
    fixture::{
        on_each_bus,
        open,
        prove, //
    }, //
};
use crate::{
    device::Device,
    dma::{
        quarantined,
        queue::{
            Call,
            CommandSlots,
            Completed,
            Payload,
            QueueMemory,
            SlotSubmission,
            Ticket, //
        },
        FromDevice,
        Mapper,
        Pool,
        Streaming,
        Untrusted, //
    },
    prelude::*,
    sync::{
        aref::ARef,
        atomic::{
            Atomic,
            Relaxed, //
        },
        Arc, //
    }, //
};

/// The registers of the device.
struct Registers {
    dev: ARef<Device>,
    /// How often it was told of the table, and how often slots were issued.
    starts: Atomic<u32>,
    issues: Atomic<u32>,
    /// Which slots were issued last, and which are busy.
    issued: Atomic<u64>,
    busy: Atomic<u64>,
    is_gone: Atomic<bool>,
}

impl Registers {
    fn new(dev: &Device) -> Result<Arc<Self>> {
        Ok(Arc::new(
            Self {
                dev: dev.into(),
                starts: Atomic::new(0),
                issues: Atomic::new(0),
                issued: Atomic::new(0),
                busy: Atomic::new(0),
                is_gone: Atomic::new(false),
            },
            GFP_KERNEL,
        )?)
    }

    /// The device is done with a slot.
    fn done(&self, slot: usize) {
        self.busy
            .store(self.busy.load(Relaxed) & !(1 << slot), Relaxed);
    }
}

/// A command, as the device reads it; where it says how many bytes it has moved.
#[derive(Clone, Copy, FromBytes, IntoBytes)]
#[repr(C)]
struct Entry {
    address: u64,
    list: u64,
    len: u32,
    slot: u32,
    moved: u32,
    unused: u32,
}

/// What a command is to be.
#[derive(Clone, Copy)]
enum Say {
    Plain,
    /// With the scratch block, to which this is written.
    List(u64),
    /// What the device can't do.
    Refuse,
}

struct Port(Arc<Registers>);

// SAFETY: By the numbers of the contract: 1. There is one device. 2. It accesses nothing. 3.
// `describe` keeps nothing. 4. Nobody accesses what commands name. 5. There is no memory to be in
// order with, but for entries, which the same thread writes. 6. It doesn't matter.
unsafe impl SlotSubmission for Port {
    type Entry = Entry;
    type Command = Say;
    type Scratch = [u64; 8];

    fn device(&self) -> &Device {
        &self.0.dev
    }

    fn start(&mut self, table: QueueMemory<'_>) -> Result {
        self.0
            .starts
            .store(self.0.starts.load(Relaxed) + 1, Relaxed);
        self.0.busy.store(0, Relaxed);
        ensure!(table.len.is_power_of_two());
        Ok(())
    }

    fn describe<'a, P: Payload<'a>>(
        &self,
        say: &Say,
        mut call: Call<'_, 'a, P, [u64; 8]>,
    ) -> Result<Entry> {
        let mut entry = Entry {
            address: 0,
            list: 0,
            len: 0,
            slot: call.tag(),
            moved: u32::MAX,
            unused: 0,
        };

        for segment in call.segments() {
            entry.address = segment.address();
            // CAST: A buffer of the tests.
            entry.len += segment.len() as u32;
        }

        match say {
            Say::Plain => {}
            Say::List(word) => {
                let (list, address) = call.scratch()?;

                entry.list = address;
                // What was there before is still there.
                entry.address = list[0];
                list[0] = *word;
            }
            Say::Refuse => return Err(EDOM),
        }

        Ok(entry)
    }

    fn issue(&mut self, slots: u64) {
        self.0
            .issues
            .store(self.0.issues.load(Relaxed) + 1, Relaxed);
        self.0.issued.store(slots, Relaxed);
        self.0
            .busy
            .store(self.0.busy.load(Relaxed) | slots, Relaxed);
    }

    fn busy(&self) -> Result<u64> {
        if self.0.is_gone.load(Relaxed) {
            return Err(ENODEV);
        }

        Ok(self.0.busy.load(Relaxed))
    }

    fn moved(entry: &Entry) -> Option<Untrusted<usize>> {
        // CAST: Widening.
        (entry.moved != u32::MAX).then(|| Untrusted::new(entry.moved as usize))
    }
}

type Read<'a> = Streaming<'a, KVec<u8>, FromDevice>;

/// Maps a buffer for the device to write.
fn read<'a>(dma: Mapper<'a>, len: usize) -> Result<Read<'a>> {
    let mut vec = KVec::with_capacity(len.max(256), GFP_KERNEL)?;

    vec.resize(len, 0, GFP_KERNEL)?;
    Ok(Streaming::map(dma, vec)?)
}

/// What is tested: a table on a device that runs.
struct Rig<'a> {
    dma: Mapper<'a>,
    registers: Arc<Registers>,
    slots: CommandSlots<'a, Port, Read<'a>>,
}

impl<'a> Rig<'a> {
    fn new(dma: Mapper<'a>, slots: u32, scratch: Option<&'a Pool<'a, [u64; 8]>>) -> Result<Self> {
        let registers = Registers::new(dma.device())?;
        let mut slots = CommandSlots::new(dma, Port(registers.clone()), slots, scratch)?;

        slots.start(|_, _| {})?;

        Ok(Self {
            dma,
            registers,
            slots,
        })
    }

    /// Submits a read of that many bytes.
    fn submit(&mut self, len: usize, say: Say) -> Result<Ticket> {
        let buf = read(self.dma, len)?;

        self.slots.submit(buf, say).map_err(|e| e.error)
    }

    /// Returns the entry of a slot, to which the device writes, too.
    fn entry(&self, slot: usize) -> *mut Entry {
        // SAFETY: In the table, which has more entries than `slot`.
        unsafe { self.slots.table().add(slot) }.as_ptr()
    }

    /// The device says how many bytes it has moved, and is done.
    fn done(&self, slot: usize, moved: u32) {
        // SAFETY: In the table, whose memory is there as long as `self`.
        unsafe { (&raw mut (*self.entry(slot)).moved).write_volatile(moved) };
        self.registers.done(slot);
    }

    /// Reaps all that are done.
    fn reap(&mut self) -> Result<KVec<Completed<'a, Read<'a>, Entry>>> {
        let mut all = KVec::new();
        let mut outcome: Result = Ok(());
        let count = self.slots.reap(|completed| {
            if let Err(e) = all.push(completed, GFP_KERNEL) {
                outcome = Err(e.into());
            }
        })?;

        outcome?;
        // CAST: Widening.
        ensure!(all.len() == count as usize);
        Ok(all)
    }

    fn stop(&self) {
        // SAFETY: The device (the test) accesses nothing.
        unsafe { prove(self.dma) };
    }
}

/// Runs a test with a table on each kind of bus. The device has stopped when it goes.
fn on_each_rig(slots: u32, mut body: impl FnMut(&mut Rig<'_>) -> Result) -> Result {
    on_each_bus(|pdev| {
        let dma = open(pdev.as_ref().bound())?;
        let mut rig = Rig::new(dma, slots, None)?;
        let outcome = body(&mut rig);

        rig.stop();
        outcome
    })
}

#[kunit_tests(rust_dma_queue_slots)]
mod cases {
    use super::*;

    /// Commands complete in any order, each with its payload, and as many bytes as the device says.
    /// Slots that are done are free again.
    #[test]
    fn any_order() -> Result {
        on_each_rig(8, |rig| {
            let mut tickets = KVec::new();

            for i in 0..8 {
                tickets.push(rig.submit(100 + i, Say::Plain)?, GFP_KERNEL)?;
            }

            rig.slots.kick()?;
            ensure!(rig.slots.free() == 0 && rig.slots.in_flight() == 8);
            ensure!(rig.reap()?.is_empty());

            for done in [&[3, 7][..], &[0], &[6, 1, 5, 4], &[2]] {
                for slot in done {
                    // SAFETY: In the table, whose memory is there as long as `rig`.
                    let entry = unsafe { rig.entry(*slot).read_volatile() };

                    // CAST: Small.
                    ensure!(entry.len == 100 + *slot as u32 && entry.address != 0);
                    ensure!(entry.slot == *slot as u32);
                    rig.done(*slot, *slot as u32);
                }

                let all = rig.reap()?;

                ensure!(all.len() == done.len());

                for completed in all {
                    let slot = completed.ticket.index();

                    ensure!(done.contains(&slot) && completed.ticket == tickets[slot]);
                    ensure!(completed.payload.bytes().len() == slot);
                    ensure!(completed.payload.unmap().len() == 100 + slot);
                    // CAST: Small.
                    ensure!(completed.entry.validate(|entry| Ok(entry.moved))? == slot as u32);
                }
            }

            ensure!(rig.slots.free() == 8 && rig.reap()?.is_empty());
            ensure!(rig.slots.malformed() == 0);
            Ok(())
        })
    }

    /// A batch is told by one write, and what the device wasn't told of isn't done, whatever it
    /// says.
    #[test]
    fn batches() -> Result {
        on_each_rig(32, |rig| {
            rig.slots.kick()?;
            ensure!(rig.registers.issues.load(Relaxed) == 0);

            for _ in 0..3 {
                rig.submit(10, Say::Plain)?;
            }

            // The device says that all are done.
            ensure!(rig.reap()?.is_empty());

            rig.slots.kick()?;
            ensure!(rig.registers.issues.load(Relaxed) == 1);
            ensure!(rig.registers.issued.load(Relaxed) == 0b111);

            rig.registers.done(1);
            rig.submit(10, Say::Plain)?;
            ensure!(rig.reap()?.len() == 1);

            // A slot that is free again is used again, and is told again.
            rig.submit(10, Say::Plain)?;
            rig.slots.kick()?;
            ensure!(rig.registers.issues.load(Relaxed) == 2);
            ensure!(rig.registers.issued.load(Relaxed) == 0b1010);
            ensure!(rig.slots.in_flight() == 4);
            Ok(())
        })
    }

    /// When no slot is free, the payload comes back as it was. So it does if the driver refuses.
    #[test]
    fn refused() -> Result {
        for slots in [1, 3, 63, 64] {
            on_each_rig(slots, |rig| {
                let refused = rig.slots.submit(read(rig.dma, 77)?, Say::Refuse);
                let Err(e) = refused else {
                    return Err(EINVAL);
                };

                ensure!(e.error == EDOM);
                ensure!(e.value.take_back().is_ok_and(|buf| buf.unmap().len() == 77));
                ensure!(rig.slots.in_flight() == 0);

                for _ in 0..slots {
                    rig.submit(10, Say::Plain)?;
                }

                let refused = rig.slots.submit(read(rig.dma, 77)?, Say::Plain);
                let Err(e) = refused else {
                    return Err(EINVAL);
                };

                ensure!(e.error == EBUSY);
                ensure!(e.value.take_back().is_ok_and(|buf| buf.unmap().len() == 77));

                // Somebody has asked for its address.
                let shown = read(rig.dma, 10)?;

                shown.address();
                rig.slots.kick()?;
                rig.registers.done(0);
                ensure!(rig.reap()?.len() == 1);

                let refused = rig.slots.submit(shown, Say::Plain);

                ensure!(refused.is_err_and(|e| e.error == EINVAL));
                ensure!(rig.slots.free() == 1);
                Ok(())
            })?;
        }

        Ok(())
    }

    /// Of a device that reports no length, all bytes count; of one that reports too many, none.
    #[test]
    fn lengths() -> Result {
        on_each_rig(4, |rig| {
            for (moved, counts) in [(u32::MAX, 100), (0, 0), (100, 100), (101, 0), (1 << 31, 0)] {
                let slot = rig.submit(100, Say::Plain)?.index();

                rig.slots.kick()?;
                rig.done(slot, moved);

                for completed in rig.reap()? {
                    ensure!(completed.payload.bytes().len() == counts);
                }
            }

            ensure!(rig.slots.malformed() == 2);
            Ok(())
        })
    }

    /// After a stop, bits that are clear mean nothing: what was in flight comes back from the next
    /// start, with no bytes.
    #[test]
    fn stops_and_starts() -> Result {
        on_each_rig(8, |rig| {
            ensure!(rig.slots.start(|_, _| {}).err() == Some(EBUSY));
            ensure!(rig.slots.drain(|_, _| {}).err() == Some(EBUSY));

            let told = rig.submit(100, Say::Plain)?;

            rig.slots.kick()?;

            let untold = rig.submit(50, Say::Plain)?;

            ensure!(!rig.slots.is_stopped());
            rig.stop();
            ensure!(rig.slots.is_stopped());

            rig.registers.busy.store(0, Relaxed);
            ensure!(rig.reap().err() == Some(ESHUTDOWN));
            ensure!(rig.slots.kick().err() == Some(ESHUTDOWN));
            ensure!(rig.registers.issues.load(Relaxed) == 1);
            ensure!(rig.slots.start(|_, _| {}).err() == Some(ESHUTDOWN));

            open(rig.dma.bound())?;
            // In another epoch.
            ensure!(rig.reap().err() == Some(ESHUTDOWN));
            ensure!(rig.slots.kick().err() == Some(ESHUTDOWN));

            let (mut lens, mut empty) = ([0, 0], true);

            rig.slots.start(|ticket, back| {
                empty &= back.bytes().is_empty();

                if let Some(at) = [told, untold].iter().position(|one| *one == ticket) {
                    lens[at] = back.unmap().len();
                }
            })?;
            ensure!(lens == [100, 50] && empty);
            ensure!(rig.registers.starts.load(Relaxed) == 2);
            ensure!(rig.slots.free() == 8 && rig.reap()?.is_empty());

            let slot = rig.submit(10, Say::Plain)?.index();

            rig.slots.kick()?;
            rig.registers.done(slot);
            ensure!(rig.reap()?.len() == 1);
            Ok(())
        })
    }

    /// Nothing completes on a device that doesn't answer.
    #[test]
    fn gone() -> Result {
        on_each_rig(2, |rig| {
            let slot = rig.submit(10, Say::Plain)?.index();

            rig.slots.kick()?;
            rig.registers.done(slot);
            rig.registers.is_gone.store(true, Relaxed);
            ensure!(rig.reap().err() == Some(ENODEV));
            ensure!(rig.slots.in_flight() == 1);

            rig.registers.is_gone.store(false, Relaxed);
            ensure!(rig.reap()?.len() == 1);
            Ok(())
        })
    }

    /// The scratch block stays with its slot; without a pool there is none.
    #[test]
    fn scratch() -> Result {
        on_each_bus(|pdev| {
            let dma = open(pdev.as_ref().bound())?;
            let pool = Pool::new(pdev.as_ref(), c"slots")?;
            let mut rig = Rig::new(dma, 2, Some(pool))?;
            let mut lists = [0; 3];

            for (turn, list) in (0..).zip(&mut lists) {
                let slot = rig.submit(10, Say::List(turn + 1))?.index();

                // SAFETY: In the table, whose memory is there as long as `rig`.
                let entry = unsafe { rig.entry(slot).read_volatile() };

                ensure!(slot == 0 && entry.list != 0 && entry.address == turn);
                *list = entry.list;
                rig.slots.kick()?;
                rig.registers.done(slot);
                ensure!(rig.reap()?.len() == 1);
            }

            ensure!(lists[0] == lists[1] && lists[1] == lists[2]);
            rig.stop();
            drop(rig);

            open(dma.bound())?;

            let mut rig = Rig::new(dma, 2, None)?;

            ensure!(rig.submit(10, Say::List(1)).err() == Some(EINVAL));
            ensure!(rig.slots.in_flight() == 0);
            rig.stop();
            Ok(())
        })
    }

    /// What no table can be.
    #[test]
    fn strange_tables() -> Result {
        on_each_bus(|pdev| {
            let dma = open(pdev.as_ref().bound())?;
            let registers = Registers::new(dma.device())?;
            let make = |slots| {
                CommandSlots::<_, Read<'_>>::new(dma, Port(registers.clone()), slots, None).err()
            };

            ensure!(make(0) == Some(EINVAL));
            ensure!(make(65) == Some(EINVAL));
            ensure!(make(64).is_none() && make(1).is_none());
            ensure!(registers.starts.load(Relaxed) == 0);
            // SAFETY: The device (the test) accesses nothing.
            unsafe { prove(dma) };
            Ok(())
        })
    }

    /// A table that is dropped while the device runs is kept until there is a proof, with what is
    /// in flight.
    #[test]
    fn dropped_in_flight() -> Result {
        on_each_bus(|pdev| {
            let dma = open(pdev.as_ref().bound())?;
            let mut rig = Rig::new(dma, 4, None)?;
            let before = quarantined();

            rig.submit(100, Say::Plain)?;
            rig.slots.kick()?;
            drop(rig);
            ensure!(quarantined() == before + 1);

            // SAFETY: The device (the test) accesses nothing.
            unsafe { prove(dma) };

            // After a proof it is freed at once.
            open(dma.bound())?;

            let mut rig = Rig::new(dma, 4, None)?;

            rig.submit(100, Say::Plain)?;
            rig.slots.kick()?;
            rig.stop();
            drop(rig);
            ensure!(quarantined() == before + 1);
            Ok(())
        })
    }
}
