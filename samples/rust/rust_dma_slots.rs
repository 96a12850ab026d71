// SPDX-License-Identifier: GPL-2.0

//! A driver for a disk that has slots for commands, and a register with a bit for each, tested
//! against a device that the test plays.
//!
//! `Documentation/rust/dma/queues.rst` says how such devices work.

use core::mem::replace;
use kernel::{
    device::{
        Core,
        Device, //
    },
    dma::{
        fixture::ensure,
        leaked,
        quarantined,
        queue::{
            Call,
            CommandSlots,
            Payload,
            Private,
            QueueMemory,
            SlotSubmission, //
        },
        sim::{
            self,
            Model,
            Script,
            Sim, //
        },
        Constraints,
        DmaAddress,
        DmaMask,
        FromDevice,
        Mapper,
        Quiesce,
        Session,
        StopOutcome,
        Streaming,
        Untrusted, //
    },
    new_spinlock_irq,
    prelude::*,
    sync::{
        aref::ARef,
        barrier::{
            mb,
            Full, //
        },
        Arc,
        SpinLockIrq, //
    }, //
};

module! {
    type: Sample,
    name: "rust_dma_slots",
    authors: ["The dma-rs authors"],
    description: "A driver with slots for commands, and its test",
    license: "GPL",
}

/// The tests are all there is.
struct Sample;

impl kernel::Module for Sample {
    fn init(_module: &'static ThisModule) -> Result<Self> {
        Ok(Self)
    }
}

const SECTOR: usize = 512;

/// How many bytes the device writes at a time.
const PART: usize = 128;

/// How many commands the device takes at a time.
const SLOTS: u32 = 8;

/// How often the driver looks before it gives up.
const PATIENCE: u32 = 1000;

// [start of the device]
/// A command, as the device reads it. The last word it writes: how many bytes it has moved.
#[derive(Clone, Copy, FromBytes, IntoBytes)]
#[repr(C)]
struct Command {
    sector: u64,
    address: u64,
    len: u32,
    moved: u32,
}

/// The registers: here, what the test has instead.
#[derive(Clone)]
struct Registers {
    dev: ARef<Device>,
    disk: Arc<Disk>,
}

// SAFETY: By the numbers of the contract:
// 1. There is one device.
// 2. It looks at the entries of slots that are issued.
// 3. `describe` puts the address of the segment into the entry, to which the device writes.
// 4. The device clears a bit when all data are written, and `moved`. It clears all when it is
//    stopped, and none otherwise.
// 5. The barrier is what `write32()` and `read32()` would have.
// 6. The driver makes one table.
unsafe impl SlotSubmission for Registers {
    type Entry = Command;
    /// The first sector.
    type Command = u64;
    type Scratch = ();

    fn device(&self) -> &Device {
        &self.dev
    }

    fn start(&mut self, table: QueueMemory<'_>) -> Result {
        // SAFETY: The table and `running` are those of the device, which accesses entries only,
        // until it is stopped.
        let base = unsafe { table.memory.to_bits(table.running) };

        self.disk.start(base, table.memory.len())
    }

    fn describe<'a, P: Payload<'a>>(
        &self,
        sector: &u64,
        call: Call<'_, 'a, P, ()>,
    ) -> Result<Command> {
        let mut segments = call.segments();

        // The device takes one segment, of whole sectors.
        let (Some(segment), None) = (segments.next(), segments.next()) else {
            return Err(EINVAL);
        };

        if segment.len() % SECTOR != 0 {
            return Err(EINVAL);
        }

        Ok(Command {
            sector: *sector,
            address: segment.address(),
            len: u32::try_from(segment.len())?,
            moved: 0,
        })
    }

    fn issue(&mut self, slots: u64) {
        mb(Full);
        self.disk.issue(slots);
    }

    fn busy(&self) -> Result<u64> {
        let busy = self.disk.busy();

        mb(Full);

        // Nobody answers. The device has fewer slots than the register has bits.
        if busy == u64::MAX {
            return Err(ENODEV);
        }

        Ok(busy)
    }

    fn moved(entry: &Command) -> Option<Untrusted<usize>> {
        // CAST: Widening.
        Some(Untrusted::new(entry.moved as usize))
    }
}
// [end of the device]

/// A buffer, and the place for what was read.
type Data<'a> = (Streaming<'a, KVec<u8>, FromDevice>, Private<usize>);

/// What is known of a command.
enum Place {
    Free,
    InFlight,
    Read(KVec<u8>),
}

/// What the device may access, and what came of it.
struct Contents<'a> {
    slots: CommandSlots<'a, Registers, Data<'a>>,
    places: [Place; SLOTS as usize],
}

/// The driver.
struct Driver<'a> {
    dma: Mapper<'a>,
    session: Session<'a, SpinLockIrq<Contents<'a>>>,
}

impl<'a> Driver<'a> {
    fn bring_up(dev: &Device<Core<'a>>, registers: Registers) -> Result<Self> {
        let dma = Mapper::get(dev.bound())?;
        let contents = Contents {
            slots: CommandSlots::new(dma, registers.clone(), SLOTS, None)?,
            places: [const { Place::Free }; SLOTS as usize],
        };
        let session = Session::new(dev, Stopper(registers), new_spinlock_irq!(contents))?;
        let this = Self { dma, session };

        this.start()?;
        Ok(this)
    }

    fn start(&self) -> Result {
        self.session.start()?;

        // What was in flight before has failed.
        let mut contents = self.session.lock();

        contents.places = [const { Place::Free }; SLOTS as usize];
        contents.slots.start(|_, _| {})
    }

    // [start of reading]
    /// Reads sectors, all at once.
    fn read(&self, sectors: &[u64], len: usize) -> Result<KVec<KVec<u8>>> {
        let mut bufs = KVec::new();
        let mut submitted = KVec::with_capacity(sectors.len(), GFP_KERNEL)?;
        let mut all = KVec::new();

        for _ in sectors {
            let buf = KVec::from_elem(0, len, GFP_KERNEL)?;

            bufs.push(Streaming::map(self.dma, buf)?, GFP_KERNEL)?;
        }

        let mut contents = self.session.lock();

        let outcome = sectors.iter().zip(bufs).try_for_each(|(sector, buf)| {
            let Contents { slots, places } = &mut *contents;

            // The slot can be used again when the command is done, and not only when somebody has
            // looked. So the number of another place goes along.
            let place = places.iter().position(|place| matches!(place, Place::Free));
            let place = place.ok_or(EBUSY)?;

            slots.submit((buf, Private(place)), *sector)?;
            places[place] = Place::InFlight;
            submitted.push_within_capacity(place)?;
            Ok(())
        });

        // One write of the register for all of them, even if a later one couldn't be submitted.
        contents.slots.kick()?;
        drop(contents);

        for place in submitted {
            all.push(self.wait(place)?, GFP_KERNEL)?;
        }

        outcome.map(|()| all)
    }

    /// Waits for a command; what came of others is kept for those who wait for them.
    fn wait(&self, place: usize) -> Result<KVec<u8>> {
        for _ in 0..PATIENCE {
            let mut contents = self.session.lock();
            let Contents { slots, places } = &mut *contents;

            slots.reap(|completed| {
                let (buf, place) = completed.payload;
                let len = buf.bytes().len();
                let mut bytes = buf.unmap();

                bytes.truncate(len);
                places[place] = Place::Read(bytes);
            })?;

            match replace(&mut places[place], Place::Free) {
                Place::Read(bytes) => return Ok(bytes),
                other => places[place] = other,
            }
        }

        Err(ETIMEDOUT)
    }
    // [end of reading]
}

/// How the device is stopped.
struct Stopper(Registers);

// SAFETY: By the numbers of the contract:
// 1. There is one device, which the test plays.
// 2. It does something only while its registers are accessed, and forgets the table and all slots
//    here.
// 3. It has written to memory when such an access returns.
// 4. When it was pulled out, it accesses nothing any more.
// 5. As 2.
// 6. `quiesce` never returns `Gone`.
// 7. `HEEDS_BUS` is false.
// 8. Addresses have 64 bits. It copies byte by byte.
// 9. Both end at once. Neither knows the session.
unsafe impl Quiesce for Stopper {
    fn device(&self) -> &Device {
        &self.0.dev
    }

    fn limits(&self) -> Constraints {
        Constraints::new(DmaMask::new::<64>())
    }

    fn disarm(&mut self) -> Result {
        self.0.disk.forget();
        Ok(())
    }

    fn quiesce(&self) -> StopOutcome {
        self.0.disk.forget();
        StopOutcome::Stopped
    }
}

/// What is wrong with the device.
#[derive(Clone, Copy, PartialEq)]
enum Fault {
    None,
    /// It never ends a command.
    Hangs,
    /// It says that it has moved more than there is.
    Lies,
    /// It was pulled out.
    Gone,
}

struct State {
    table: Option<DmaAddress>,
    busy: u64,
    /// Which of the busy slots ends next.
    next: u32,
    fault: Fault,
}

/// The device, as the test plays it. Each time that somebody looks, it ends a command.
#[pin_data]
struct Disk {
    sim: Arc<Sim>,
    #[pin]
    state: SpinLockIrq<State>,
}

impl Disk {
    fn new(sim: &Arc<Sim>) -> Result<Arc<Self>> {
        Arc::pin_init(
            pin_init!(Self {
                sim: sim.clone(),
                state <- new_spinlock_irq!(State {
                    table: None,
                    busy: 0,
                    next: 5,
                    fault: Fault::None,
                }),
            }),
            GFP_KERNEL,
        )
    }

    fn start(&self, table: DmaAddress, len: usize) -> Result {
        self.state.lock().table = Some(table);
        // What the driver stores there the device sees after a barrier.
        self.sim.hold_stores(table, len)
    }

    fn issue(&self, slots: u64) {
        self.state.lock().busy |= slots;
    }

    fn busy(&self) -> u64 {
        let mut state = self.state.lock();

        match state.fault {
            Fault::Gone => return u64::MAX,
            Fault::Hangs => {}
            Fault::None | Fault::Lies => {
                if let (Some(table), 1..) = (state.table, state.busy) {
                    // In another order than that of the slots.
                    state.next = (state.next + 3) % SLOTS;

                    while state.busy & (1 << state.next) == 0 {
                        state.next = (state.next + 1) % SLOTS;
                    }

                    self.carry_out(table + u64::from(state.next) * 24, state.fault);
                    state.busy &= !(1 << state.next);
                }
            }
        }

        state.busy
    }

    fn carry_out(&self, entry: DmaAddress, fault: Fault) {
        let mut command = [0; 24];

        // SAFETY: The driver doesn't write to an entry that was issued.
        unsafe { self.sim.device_read(entry, &mut command) };

        let word = |at: usize| -> u64 {
            command[at..at + 4]
                .iter()
                .rev()
                .fold(0, |all, byte| all << 8 | u64::from(*byte))
        };
        let (sector, address, len) = (word(0), word(8) | word(12) << 32, word(16));

        for part in (0..len).step_by(PART) {
            // CAST: Widening.
            let bytes: [u8; PART] = core::array::from_fn(|at| content(sector, part as usize + at));

            // SAFETY: The driver doesn't access the buffer meanwhile, which has whole sectors.
            unsafe { self.sim.device_write_late(address + part, &bytes) };
        }

        // CAST: It was one.
        let moved = if fault == Fault::Lies {
            u32::MAX
        } else {
            len as u32
        };

        // SAFETY: The driver doesn't access the entry meanwhile.
        unsafe { self.sim.device_write_late(entry + 20, &moved.to_le_bytes()) };
    }

    fn forget(&self) {
        let mut state = self.state.lock();

        state.table = None;
        state.busy = 0;
    }
}

/// Returns a byte of the disk.
fn content(sector: u64, at: usize) -> u8 {
    // CAST: Cut on purpose.
    (sector as usize * 31 + at * 7 + at / SECTOR) as u8
}

#[kunit_tests(sample_rust_dma_slots)]
mod tests {
    use super::*;

    fn on_each(mut body: impl FnMut(&Driver<'_>, &Disk) -> Result) -> Result {
        let script = Script::new(Model::Coherent).weak_order(true);

        sim::run_on_each(script, |pdev, sim| {
            let dev: &Device<Core<'_>> = pdev.as_ref();
            let disk = Disk::new(sim)?;
            let registers = Registers {
                dev: ARef::from(&**dev),
                disk: disk.clone(),
            };

            body(&Driver::bring_up(dev, registers)?, &disk)
        })
    }

    #[test]
    fn reads() -> Result {
        on_each(|driver, _| {
            for turn in 0..4 {
                let sectors = [turn, 7, 100 + turn, 3, turn * turn, 9, 11, 12];

                for (bytes, sector) in driver.read(&sectors, 2 * SECTOR)?.iter().zip(sectors) {
                    let is_right = |(at, byte): (usize, &u8)| *byte == content(sector, at);

                    ensure!(bytes.len() == 2 * SECTOR && bytes.iter().enumerate().all(is_right));
                }
            }

            ensure!(driver.read(&[1], 100).err() == Some(EINVAL));
            ensure!(driver.read(&[0; 9], SECTOR).err() == Some(EBUSY));
            // The first eight were read.
            ensure!(driver.session.lock().slots.in_flight() == 0);
            ensure!(driver.read(&[5], SECTOR)?[0][1] == content(5, 1));
            Ok(())
        })
    }

    /// A device that hangs is stopped; what was in flight has failed, and then all is as before.
    #[test]
    fn hangs() -> Result {
        let (kept, lost) = (quarantined(), leaked());

        on_each(|driver, disk| {
            disk.state.lock().fault = Fault::Hangs;
            ensure!(driver.read(&[1, 2, 3], SECTOR).err() == Some(ETIMEDOUT));
            ensure!(driver.session.lock().slots.in_flight() == 3);
            ensure!(driver.session.stop() == StopOutcome::Stopped);
            ensure!(driver.read(&[4], SECTOR).err() == Some(ESHUTDOWN));

            disk.state.lock().fault = Fault::None;
            driver.start()?;
            ensure!(driver.session.lock().slots.in_flight() == 0);
            ensure!(driver.read(&[5], SECTOR)?[0][1] == content(5, 1));
            Ok(())
        })?;

        ensure!(quarantined() == kept && leaked() == lost);
        Ok(())
    }

    /// Nothing is believed of a device that lies, and nothing completes on one that is gone.
    #[test]
    fn lies() -> Result {
        on_each(|driver, disk| {
            disk.state.lock().fault = Fault::Lies;
            ensure!(driver.read(&[1], SECTOR)?[0].is_empty());
            ensure!(driver.session.lock().slots.malformed() == 1);

            disk.state.lock().fault = Fault::Gone;
            ensure!(driver.read(&[1], SECTOR).err() == Some(ENODEV));
            Ok(())
        })
    }
}
