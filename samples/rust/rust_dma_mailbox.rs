// SPDX-License-Identifier: GPL-2.0

//! A driver for a device with a firmware, to which it talks by a mailbox in shared memory, tested
//! against a device that the test plays.
//!
//! `Documentation/rust/dma/shared.rst` shows parts of it.

use kernel::{
    device::{
        Core,
        Device, //
    },
    dma::{
        dma_read,
        dma_write,
        fixture::ensure,
        leaked,
        quarantined,
        sim::{
            self,
            Model,
            Script,
            Sim, //
        },
        AllocAttrs,
        Constraints,
        DeviceOnly,
        DmaAddr,
        DmaAddress,
        DmaMask,
        FromDevice,
        Mapper,
        Noncoherent,
        NoncoherentBox,
        Pool,
        Quiesce,
        Reader,
        Running,
        Session,
        Shared,
        SharedBox,
        StopOutcome, //
    },
    io::io_project,
    new_mutex,
    new_spinlock_irq,
    prelude::*,
    sync::{
        aref::ARef,
        Arc,
        Mutex,
        SpinLockIrq, //
    }, //
};

module! {
    type: Sample,
    name: "rust_dma_mailbox",
    authors: ["The dma-rs authors"],
    description: "A driver with a mailbox in shared memory, and its test",
    license: "GPL",
}

/// The tests are all there is.
struct Sample;

impl kernel::Module for Sample {
    fn init(_module: &'static ThisModule) -> Result<Self> {
        Ok(Self)
    }
}

// [start of the mailbox]
/// Where the driver and the firmware leave messages.
#[derive(FromBytes, IntoBytes)]
#[repr(C)]
struct Mailbox {
    // The driver writes these, and `command` last.
    command: u32,
    sequence: u32,
    list: u64,
    // The firmware writes these, and `status` last.
    status: u32,
    answers: u32,
    sum: u64,
}
// [end of the mailbox]

const SUM: u32 = 1;

const IDLE: u32 = 0;
const BOOTED: u32 = 1;
const DONE: u32 = 2;

/// Numbers that the firmware adds. What isn't used is zero.
type List = [u32; 16];

/// The sizes of the memory in which the firmware works, and of its log.
const WORK_AREA: usize = 64 << 10;
const LOG: usize = 8 << 10;

/// How often the driver looks before it gives up.
const PATIENCE: u32 = 1000;

/// What the driver keeps for the device as long as that runs.
struct Contents<'a> {
    mailbox: Option<Shared<'a, Mailbox>>,
    work_area: DeviceOnly<'a>,
    log: Option<Noncoherent<'a, FromDevice>>,
    sequence: u32,
}

/// The driver.
struct Driver<'a> {
    dma: Mapper<'a>,
    registers: Registers,
    lists: &'a Pool<'a, List>,
    session: Session<'a, Mutex<Contents<'a>>>,
}

impl<'a> Driver<'a> {
    fn bring_up(dev: &Device<Core<'a>>, registers: Registers, image: &[u8]) -> Result<Self> {
        let dma = Mapper::get(dev.bound())?;

        dev_info!(
            dev,
            "mask {:#x} (all memory takes {:#x}, limited: {}), mappings of {} bytes at most, \
             {} if they are to be cheap; syncs: {}, cache lines of {} bytes, joins at {:x?}\n",
            dma.mask(),
            dma.required_mask(),
            dma.is_addressing_limited(),
            dma.max_mapping_size(),
            dma.opt_mapping_size(),
            dma.needs_sync(),
            Mapper::cache_alignment(),
            dma.merge_boundary(),
        );

        let contents = Contents {
            mailbox: Some(SharedBox::<Mailbox>::new(dma, GFP_KERNEL)?.submit()),
            work_area: DeviceOnly::new(dma, WORK_AREA, GFP_KERNEL, AllocAttrs::SINGLE_PAGES)?,
            log: Some(log(dma, LOG)?.submit()),
            sequence: 0,
        };
        let lists = Pool::new(dev, c"lists")?;
        let session = Session::new(dev, Stopper(registers.clone()), new_mutex!(contents))?;
        let this = Self {
            dma,
            registers,
            lists,
            session,
        };

        this.session.start()?;
        this.boot(image)?;
        Ok(this)
    }

    // [start of boot]
    /// Lets the device read its firmware, and frees it when the device has done so.
    fn boot(&self, image: &[u8]) -> Result {
        let contents = self.session.lock();
        let (mailbox, log) = contents.running()?;
        let attrs = AllocAttrs::WRITE_COMBINE;
        let mut memory = SharedBox::<[u8]>::slice_with(self.dma, image.len(), GFP_KERNEL, attrs)?;

        memory.copy_from_slice(image);

        let memory = memory.submit();

        self.registers.boot(
            &self.session.running()?,
            [memory.address(), mailbox.address(), log.address()],
            contents.work_area.address(),
        );

        // If it isn't done, `memory` is kept until the device is stopped.
        wait(mailbox, BOOTED)?;

        // SAFETY:
        // 1. When the firmware has booted, the device doesn't look at the image any more.
        // 2. `wait()` has seen that in the mailbox, by `dma_read!`.
        // 3. Nobody else has the address.
        drop(unsafe { memory.complete() });
        Ok(())
    }
    // [end of boot]

    // [start of sum]
    /// Makes the firmware add numbers.
    fn sum(&self, numbers: &List) -> Result<u64> {
        let mut contents = self.session.lock();

        contents.sequence = contents.sequence.wrapping_add(1);

        let sequence = contents.sequence;
        let (mailbox, _) = contents.running()?;
        let mut list = self.lists.alloc(GFP_KERNEL)?;

        *list = *numbers;

        let list = list.submit();

        dma_write!(mailbox, .status, IDLE);
        io_project!(mailbox, .sequence).write_relaxed(sequence);
        self.registers
            .show_list(&self.session.running()?, mailbox, list.address());
        // The device sees the rest before it sees this.
        dma_write!(mailbox, .command, SUM);
        self.registers.doorbell();

        wait(mailbox, DONE)?;

        // Read after the status. Nothing of it is believed without a check.
        if dma_read!(mailbox, .answers) != sequence {
            return Err(EIO);
        }

        // SAFETY:
        // 1. When the firmware has answered, the device doesn't look at the list any more.
        // 2. `wait()` has seen that in the mailbox, by `dma_read!`, and the answer is to this.
        // 3. Nobody else has the address.
        drop(unsafe { list.complete() });

        // CAST: Widening.
        dma_read!(mailbox, .sum).at_most(numbers.len() as u64 * u64::from(u32::MAX))
    }
    // [end of sum]

    // [start of stop]
    /// Stops the device, and returns what it reported.
    fn stop(&self) -> Result<KVec<u8>> {
        self.session.stop();

        let mut contents = self.session.lock();
        let log = contents.log.take().ok_or(ESHUTDOWN)?;

        // Without a proof that the device has stopped it comes back, and is quarantined here.
        let log = log.take_back().map_err(|_in_use| EIO)?;
        let mut reader = Reader::new(log.bytes());
        let len = reader.u32_le()?.validate(|len| Ok(usize::try_from(len)?))?;
        let mut text = KVec::new();

        text.extend_from_slice(reader.take(len)?, GFP_KERNEL)?;
        contents.log = Some(log.submit());
        Ok(text)
    }
    // [end of stop]

    /// Starts the device again, with an empty mailbox.
    fn restart(&self, image: &[u8]) -> Result {
        {
            let mut contents = self.session.lock();
            let mailbox = contents.mailbox.take().ok_or(ESHUTDOWN)?;

            match mailbox.take_back() {
                Ok(mut mailbox) => {
                    mailbox.status = IDLE;
                    contents.mailbox = Some(mailbox.submit());
                }
                Err(in_use) => {
                    contents.mailbox = Some(in_use);
                    return Err(EBUSY);
                }
            }
        }

        self.session.start()?;
        self.boot(image)
    }
}

impl<'a> Contents<'a> {
    fn running(&self) -> Result<(&Shared<'a, Mailbox>, &Noncoherent<'a, FromDevice>)> {
        Ok((
            self.mailbox.as_ref().ok_or(ESHUTDOWN)?,
            self.log.as_ref().ok_or(ESHUTDOWN)?,
        ))
    }
}

/// Allocates memory for a log. A long one need not be in one piece.
fn log(dma: Mapper<'_>, len: usize) -> Result<NoncoherentBox<'_, FromDevice>> {
    if len > 128 << 10 {
        NoncoherentBox::in_pieces(dma, len)
    } else {
        NoncoherentBox::new(dma, len, GFP_KERNEL)
    }
}

/// Waits until the firmware reports a status.
fn wait(mailbox: &Shared<'_, Mailbox>, status: u32) -> Result {
    for _ in 0..PATIENCE {
        if dma_read!(mailbox, .status) == status {
            return Ok(());
        }
    }

    Err(ETIMEDOUT)
}

/// The registers: here, what the test has instead.
#[derive(Clone)]
struct Registers {
    dev: ARef<Device>,
    controller: Arc<Controller>,
}

impl Registers {
    /// Tells the device where the image, the mailbox and the log are, and where it may work.
    fn boot(&self, running: &Running<'_>, memory: [DmaAddr<'_>; 3], work_area: DmaAddr<'_>) {
        let len = memory[0].len();

        // SAFETY:
        // 1. There is one device.
        // 2. It reads the image, writes the log, and keeps to what it is told about.
        // 3. It reads the image until it says that it has booted. The rest it accesses until it is
        //    stopped, and the driver keeps it as long.
        let [image, mailbox, log] = memory.map(|part| unsafe { part.to_bits(running) });
        // SAFETY: As above.
        let work_area = unsafe { work_area.to_bits(running) };

        self.controller.boot(image, len, mailbox, log, work_area);
    }

    /// Writes the address of a list to the mailbox.
    fn show_list(&self, running: &Running<'_>, mailbox: &Shared<'_, Mailbox>, list: DmaAddr<'_>) {
        // SAFETY:
        // 1. There is one device.
        // 2. It reads the list, and nothing beyond.
        // 3. It does so until it answers, or until it is stopped.
        let list = unsafe { list.to_bits(running) };

        #[allow(clippy::useless_conversion, reason = "bus addresses may have 32 bits")]
        io_project!(mailbox, .list).write_relaxed(list.into());
    }

    fn doorbell(&self) {
        self.controller.work();
    }
}

/// How the device is stopped.
struct Stopper(Registers);

// SAFETY: By the numbers of the contract:
// 1. There is one device, which the test plays.
// 2. It does something only while its registers are written, and then with the addresses that it
//    was told, which it forgets here.
// 3. It has written to memory when the write to its register returns.
// 4. It can't be pulled out.
// 5. As 2.
// 6. `quiesce` never says so.
// 7. `HEEDS_BUS` is false.
// 8. Its registers take addresses of 64 bits, and lengths of 32.
// 9. Both end at once. Neither knows the session.
unsafe impl Quiesce for Stopper {
    fn device(&self) -> &Device {
        &self.0.dev
    }

    fn limits(&self) -> Constraints {
        Constraints::new(DmaMask::new::<64>())
    }

    fn disarm(&mut self) -> Result {
        self.0.controller.forget();
        Ok(())
    }

    fn quiesce(&self) -> StopOutcome {
        self.0.controller.forget();
        StopOutcome::Stopped
    }
}

/// What is wrong with the firmware.
#[derive(Clone, Copy, PartialEq)]
enum Fault {
    None,
    /// It never answers.
    Silent,
    /// It answers something else.
    Late,
    /// It reports something impossible.
    Lies,
    /// It reports more than fits into the log.
    Long,
}

/// The addresses that the device knows.
#[derive(Clone, Copy)]
struct Known {
    mailbox: DmaAddress,
    log: DmaAddress,
    work_area: DmaAddress,
}

/// The device, as the test plays it.
#[pin_data]
struct Controller {
    sim: Arc<Sim>,
    #[pin]
    known: SpinLockIrq<Option<Known>>,
    fault: Fault,
}

impl Controller {
    fn new(sim: &Arc<Sim>, fault: Fault) -> Result<Arc<Self>> {
        Arc::pin_init(
            pin_init!(Self {
                sim: sim.clone(),
                known <- new_spinlock_irq!(None),
                fault,
            }),
            GFP_KERNEL,
        )
    }

    fn read<const N: usize>(&self, at: DmaAddress) -> [u8; N] {
        let mut bytes = [0; N];

        // SAFETY: The driver doesn't write it meanwhile, for it is this thread.
        unsafe { self.sim.device_read(at, &mut bytes) };
        bytes
    }

    /// Writes what the driver may see late: all but the word that announces the rest.
    fn write(&self, at: DmaAddress, bytes: &[u8]) {
        // SAFETY: The driver doesn't access it meanwhile, and has no references to it.
        unsafe { self.sim.device_write_late(at, bytes) };
    }

    fn set_status(&self, known: Known, status: u32) {
        // SAFETY: As in `write()`.
        unsafe {
            self.sim
                .device_write(known.mailbox + 16, &status.to_ne_bytes())
        };
    }

    fn boot(
        &self,
        image: DmaAddress,
        len: usize,
        mailbox: DmaAddress,
        log: DmaAddress,
        work_area: DmaAddress,
    ) {
        let known = Known {
            mailbox,
            log,
            work_area,
        };
        let mut sum = 0_u8;

        // CAST: Widening.
        for i in 0..len as DmaAddress {
            let [byte] = self.read(image + i);

            sum = sum.wrapping_add(byte);
        }

        *self.known.lock() = Some(known);
        // What the driver stores there the device sees after a barrier.
        let held = self.sim.hold_stores(mailbox, size_of::<Mailbox>());

        if sum == 0 && held.is_ok() && self.fault != Fault::Silent {
            self.report(known, b"booted");
            self.set_status(known, BOOTED);
        }
    }

    fn report(&self, known: Known, text: &[u8]) {
        // CAST: A short text.
        let len = match self.fault {
            Fault::Long => u32::MAX,
            _ => text.len() as u32,
        };

        self.write(known.log, &len.to_le_bytes());
        self.write(known.log + 4, text);
    }

    /// Does what is in the mailbox.
    fn work(&self) {
        let Some(known) = *self.known.lock() else {
            return;
        };
        let mut command = [0; 4];

        // SAFETY: As in `read()`.
        unsafe { self.sim.device_read_now(known.mailbox, &mut command) };

        if u32::from_ne_bytes(command) != SUM {
            return;
        }

        let mut answers = u32::from_ne_bytes(self.read(known.mailbox + 4));
        let list = u64::from_ne_bytes(self.read(known.mailbox + 8));
        let numbers: [u8; size_of::<List>()] = self.read(list);

        // It works in its own memory.
        self.write(known.work_area, &numbers);

        let numbers = self.read::<{ size_of::<List>() }>(known.work_area);
        let mut sum: u64 = numbers
            .chunks(4)
            .map(|n| {
                u64::from(
                    n.iter()
                        .rev()
                        .fold(0_u32, |all, b| all << 8 | u32::from(*b)),
                )
            })
            .sum();

        match self.fault {
            Fault::Late => answers = answers.wrapping_sub(1),
            Fault::Lies => sum = u64::MAX,
            Fault::None | Fault::Silent | Fault::Long => {}
        }

        self.write(known.mailbox + 20, &answers.to_ne_bytes());
        self.write(known.mailbox + 24, &sum.to_ne_bytes());
        self.report(known, b"added");
        self.set_status(known, DONE);
    }

    fn forget(&self) {
        *self.known.lock() = None;
    }
}

#[kunit_tests(sample_rust_dma_mailbox)]
mod tests {
    use super::*;

    /// A firmware: its bytes add up to zero.
    fn image() -> Result<KVec<u8>> {
        let mut image = KVec::from_elem(0x10_u8, 5000, GFP_KERNEL)?;

        image.push(0x80, GFP_KERNEL)?;
        Ok(image)
    }

    fn on_each(fault: Fault, mut body: impl FnMut(Result<&Driver<'_>>) -> Result) -> Result {
        on_each_with(fault, &image()?, &mut body)
    }

    fn on_each_with(
        fault: Fault,
        image: &[u8],
        body: &mut dyn FnMut(Result<&Driver<'_>>) -> Result,
    ) -> Result {
        let script = Script::new(Model::Coherent).weak_order(true);

        sim::run_on_each(script, |pdev, sim| {
            let dev: &Device<Core<'_>> = pdev.as_ref();
            let registers = Registers {
                dev: ARef::from(&**dev),
                controller: Controller::new(sim, fault)?,
            };

            match Driver::bring_up(dev, registers, image) {
                Ok(driver) => body(Ok(&driver)),
                Err(error) => body(Err(error)),
            }
        })
    }

    // [start of its test]
    #[test]
    fn adds() -> Result {
        on_each(Fault::None, |driver| {
            let driver = driver?;
            let mut numbers = [0; 16];

            for turn in 0..100 {
                // CAST: Small numbers.
                numbers[turn % 16] = u32::MAX - turn as u32;

                ensure!(
                    driver.sum(&numbers)? == numbers.iter().map(|n| u64::from(*n)).sum::<u64>()
                );
            }

            ensure!(driver.stop()?[..] == *b"added");
            ensure!(driver.sum(&numbers) == Err(ESHUTDOWN));
            Ok(())
        })
    }
    // [end of its test]

    #[test]
    fn restarts() -> Result {
        on_each(Fault::None, |driver| {
            let driver = driver?;
            let image = image()?;

            for turn in 1..5 {
                ensure!(driver.sum(&[turn; 16])? == u64::from(turn) * 16);
                driver.stop()?;
                driver.restart(&image)?;
                ensure!(driver.restart(&image) == Err(EBUSY));
            }
            Ok(())
        })
    }

    /// Whatever the firmware reports, the driver returns an error, and nothing is lost.
    #[test]
    fn lies() -> Result {
        let lost = leaked();

        for fault in [Fault::Late, Fault::Lies] {
            on_each(fault, |driver| {
                ensure!(driver?.sum(&[1; 16]) == Err(EIO));
                Ok(())
            })?;
        }

        on_each(Fault::Long, |driver| {
            ensure!(driver?.stop() == Err(EIO));
            Ok(())
        })?;
        ensure!(leaked() == lost);
        Ok(())
    }

    /// A firmware that doesn't boot may still be reading: its image is kept until the device is
    /// stopped.
    #[test]
    fn does_not_boot() -> Result {
        let mut bad = image()?;

        bad.push(1, GFP_KERNEL)?;

        for (fault, image) in [(Fault::Silent, image()?), (Fault::None, bad)] {
            let (before, lost) = (quarantined(), leaked());
            let mut count = 0;

            on_each_with(fault, &image, &mut |driver| {
                count += 1;
                ensure!(matches!(driver, Err(e) if e == ETIMEDOUT));
                Ok(())
            })?;
            ensure!(quarantined() == before + count && leaked() == lost);
        }
        Ok(())
    }
}
