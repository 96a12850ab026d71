// SPDX-License-Identifier: GPL-2.0

//! How the hardware finds its queues, what commands look like, and how it is stopped.
//!
//! The only file of the driver with `unsafe` code: here the device learns addresses, and here is
//! claimed what it does with them. All registers stay here.
//!
//! Sections refer to the NVM Express Base Specification, revision 1.4.

#![allow(unsafe_code)]

use super::regs::{
    self,
    Registers, //
};
use kernel::{
    device::{
        Bound,
        Core,
        Device, //
    },
    devres,
    dma::{
        queue::{
            Call,
            CompletionQueue,
            Entry,
            Head,
            Payload,
            QueueMemory,
            Segment,
            Submission,
            Tail,
            Turn, //
        },
        Constraints,
        DataDirection,
        DmaMask,
        Mapper,
        Quiesce,
        StopOutcome,
        Untrusted, //
    },
    io::{
        poll::read_poll_timeout,
        register::Array,
        Io, //
    },
    pci,
    prelude::*,
    sync::atomic::{
        Atomic,
        Relaxed, //
    },
    time::Delta, //
};

mod admin;
#[cfg(CONFIG_DMA_RS_NVME_KUNIT_TEST)]
pub(crate) use admin::check_block_length;
pub(crate) use admin::{
    Admin,
    AdminCommand,
    AdminData,
    Answer,
    Namespace,
    Page, //
};
use admin::{
    BlockLength,
    What, //
};
mod pair;
pub(crate) use pair::{
    Pair,
    PairRegisters, //
};

/// The size of a page, as `CC.MPS` says it: 4 KiB.
const PAGE: usize = 4096;

/// How many commands can be in flight in the admin queue, and how many entries the two queues have.
const ADMIN_TAGS: u16 = 3;
const ADMIN_SUBMISSIONS: u32 = 4;
const ADMIN_COMPLETIONS: u32 = 8;

/// How many queues for reads and writes there can be, each with one in which they complete. They
/// have the numbers from 1 on.
pub(crate) const PAIRS: usize = 4;

/// How long a device may take to be ready for its stop. The specification wants it to have a second
/// at least.
const GOODBYE: Delta = Delta::from_secs(1);

/// The size of what Identify returns (5.15).
pub(crate) const IDENTIFY: usize = 4096;

/// What the hardware takes: addresses of 64 bits, which are multiples of four (4.3).
pub(crate) const LIMITS: Constraints = Constraints::new(DmaMask::new::<64>()).alignment(4);

/// A device and its registers, which its parts share.
#[derive(Clone, Copy)]
struct Hardware<'a> {
    dev: &'a Device<Bound>,
    dma: Mapper<'a>,
    registers: &'a Registers<'a>,
    said: &'a Said,
}

/// What the device has said so far.
struct Said {
    block: BlockLength,
    /// How often it was ready for a stop.
    goodbyes: Atomic<u32>,
}

/// What there is of a device, once.
pub(crate) struct Parts<'a> {
    pub(crate) control: Control<'a>,
    pub(crate) stopper: Stopper<'a>,
    pub(crate) admin: Admin<'a>,
    pub(crate) pairs: [PairRegisters<'a>; PAIRS],
    /// The most entries that a queue may have.
    pub(crate) max_entries: u32,
}

/// Claims a device. It belongs to whoever had it before, until it has forgotten what it was told:
/// see [`Quiesce::disarm`].
///
/// Context: may sleep.
///
/// # Errors
///
/// [`EBUSY`] if it is claimed, [`ENODEV`] if it isn't there, or can't do what this driver needs;
/// [`ENOMEM`].
pub(crate) fn claim<'a>(pdev: &pci::Device<Core<'a>>, dma: Mapper<'a>) -> Result<Parts<'a>> {
    let dev: &Device<Core<'a>> = pdev.as_ref();
    // The PCI core gives them to one only, until unbind.
    let registers: Registers<'a> = pdev.bound().iomap_region_sized(0, c"dma_rs_nvme")?;
    let said = Said {
        block: BlockLength::new(),
        goodbyes: Atomic::new(0),
    };
    let hardware = Hardware {
        dev: dev.bound(),
        dma,
        registers: devres::register_lent(dev, Ok::<_, Error>(registers), GFP_KERNEL)?,
        said: devres::register_lent(
            dev,
            Ok::<_, Error>(KBox::new(said, GFP_KERNEL)?),
            GFP_KERNEL,
        )?,
    };

    hardware.identify()?;

    let high = hardware.registers.read(regs::CAP_HIGH);

    // Doorbells lie where `regs.rs` has them only if the stride is 0; pages have 4 KiB.
    if u32::from(high.stride()) != 0 || u32::from(high.min_page()) != 0 || !high.nvm() {
        return Err(ENODEV);
    }

    Ok(Parts {
        control: Control(hardware),
        stopper: Stopper(hardware),
        admin: Admin::new(
            dma,
            Completes {
                hardware,
                queue: 0,
                vector: 0,
            },
            AdminQueue(hardware),
        )?,
        pairs: [1, 2, 3, 4].map(|queue| PairRegisters::new(hardware, queue)),
        max_entries: u32::from(hardware.registers.read(regs::CAP).max_entries()) + 1,
    })
}

impl Hardware<'_> {
    /// Checks that the device is there.
    ///
    /// A device that was unplugged reads as all ones, and in some machines as zeros.
    fn identify(&self) -> Result {
        let version = self.registers.read(regs::VS).into_raw();

        if version == 0 || version == u32::MAX {
            return Err(ENODEV);
        }

        Ok(())
    }

    /// Returns how long the device may take to become ready, or idle (3.1.1).
    fn timeout(&self) -> Delta {
        let units: u32 = self.registers.read(regs::CAP).timeout().into();

        Delta::from_millis(500 * i64::from(units + 1))
    }

    /// Waits until the device says that it is ready, or that it isn't.
    fn wait(&self, ready: bool) -> Result {
        read_poll_timeout(
            || {
                let status = self.registers.read(regs::CSTS);

                // Only now: if the device went away before or while the status was read, this sees
                // it.
                self.identify()?;
                Ok(status)
            },
            |status| status.ready() == ready,
            Delta::from_millis(1),
            self.timeout(),
        )?;

        Ok(())
    }

    /// Tells a device that works that it is about to be stopped, so that it keeps what was written
    /// to it (7.6.2). It is stopped then whatever comes of this.
    fn say_goodbye(&self) -> Result {
        let registers = self.registers;
        let control = registers.read(regs::CC);

        if !control.enable() || !registers.read(regs::CSTS).ready() {
            return Ok(());
        }

        registers.write_reg(control.with_const_shutdown::<1>());
        read_poll_timeout(
            || {
                let status = registers.read(regs::CSTS);

                self.identify()?;
                Ok(status)
            },
            |status| u32::from(status.shutdown()) == 2 || status.fatal(),
            Delta::from_millis(1),
            GOODBYE,
        )?;
        self.said.goodbyes.add(1, Relaxed);
        Ok(())
    }

    /// Resets the device (7.3.2): it forgets all queues.
    fn reset(&self) -> Result {
        let status = self.registers.read(regs::CSTS);

        // A device that was enabled can be disabled when it is ready, and not before (3.1.5). Until
        // then it isn't ready either, which would be taken for the end of the reset.
        if self.registers.read(regs::CC).enable() && !status.ready() && !status.fatal() {
            self.wait(true)?;
        }

        self.registers.write_reg(regs::CC::zeroed());
        self.wait(false)
    }

    /// Tells the device where an admin queue is. Both have a fixed number of entries.
    fn set_admin(&self) -> Result {
        // It isn't to be changed while the device is enabled (3.1.8).
        if self.registers.read(regs::CC).enable() {
            return Err(EBUSY);
        }

        self.registers.write_reg(
            regs::AQA::zeroed()
                .with_const_completions::<{ ADMIN_COMPLETIONS - 1 }>()
                .with_const_submissions::<{ ADMIN_SUBMISSIONS - 1 }>(),
        );
        Ok(())
    }
}

/// Splits an address.
fn halves(address: u64) -> (u32, u32) {
    // CAST: The lower half; the upper half.
    (address as u32, (address >> 32) as u32)
}

/// What of the device doesn't aim DMA: whether it is enabled.
pub(crate) struct Control<'a>(Hardware<'a>);

impl Control<'_> {
    /// Enables a device that runs, and that was told where both admin queues are. Without messages
    /// for interrupts, it is told not to use its pin, where nobody would quiet it.
    ///
    /// Context: any.
    ///
    /// # Errors
    ///
    /// [`EINVAL`] if it wasn't told: it would take them to be at the bus address 0. [`ESHUTDOWN`]
    /// if it is stopped.
    pub(crate) fn enable(&self, has_vectors: bool) -> Result {
        // It isn't stopped in between: then it would be enabled all the same. `claim()` has seen
        // that this is the device's own: `Admin::new()` refuses another one.
        let _running = self.0.dma.running()?;
        let registers = self.0.registers;
        let queues = [
            registers.read(regs::ASQ).into_raw() | registers.read(regs::ASQ_HIGH).into_raw(),
            registers.read(regs::ACQ).into_raw() | registers.read(regs::ACQ_HIGH).into_raw(),
        ];

        if queues.contains(&0) {
            return Err(EINVAL);
        }

        // Entries of 16 and 64 bytes, pages of 4 KiB, the NVM command set.
        registers.write_reg(
            regs::CC::zeroed()
                .with_const_completion_size::<4>()
                .with_const_submission_size::<6>()
                .with_enable(true),
        );

        // It forgets that when it is reset. It isn't to be written with MSI-X (3.1.3).
        if !has_vectors {
            registers.write_reg(regs::INTMS::from(u32::MAX));
        }

        Ok(())
    }

    /// Returns whether the device doesn't use its pin. Context: any.
    #[cfg(CONFIG_DMA_RS_NVME_KUNIT_TEST)]
    pub(crate) fn is_pin_masked(&self) -> bool {
        self.0.registers.read(regs::INTMS).into_raw() == u32::MAX
    }

    /// Returns how often the device was ready when it was stopped. Context: any.
    pub(crate) fn goodbyes(&self) -> u32 {
        self.0.said.goodbyes.load(Relaxed)
    }

    /// Waits until the device is ready for commands. Context: may sleep.
    ///
    /// # Errors
    ///
    /// [`ETIMEDOUT`], or [`ENODEV`] if it is gone.
    pub(crate) fn wait_ready(&self) -> Result {
        self.0.wait(true)
    }
}

/// How a device is stopped.
pub(crate) struct Stopper<'a>(Hardware<'a>);

// SAFETY: By the numbers of the contract:
// 1. The registers are those of `dev`: `claim()` has mapped its first BAR.
// 2. A reset by `CC.EN` deletes all queues, also those for reads and writes; the device is idle
//    when `CSTS.RDY` is clear (7.3.2, 3.1.6). It keeps the base addresses of the admin queues,
//    which are cleared here, and are not used before it is enabled.
// 3. `CSTS` is read after that.
// 4. `wait()` fails if the version can't be read after the status.
// 5. As 2. Bus mastering isn't looked at: QEMU maps the memory of a command for as long as it
//    lasts.
// 6. It never says `Gone`.
// 7. `HEEDS_BUS` is false.
// 8. Addresses have 64 bits, and are multiples of four. `describe` refuses longer commands than the
//    hardware takes, and pages that begin elsewhere.
// 9. Both end after the time that `CAP.TO` says, and a second for what is written before.
unsafe impl Quiesce for Stopper<'_> {
    fn device(&self) -> &Device {
        self.0.dev
    }

    fn limits(&self) -> Constraints {
        LIMITS
    }

    fn disarm(&mut self) -> Result {
        let registers = self.0.registers;

        self.0.identify()?;
        self.0.reset()?;
        self.0.said.block.forget();

        registers.write_reg(regs::AQA::zeroed());
        registers.write_reg(regs::ASQ::zeroed());
        registers.write_reg(regs::ASQ_HIGH::zeroed());
        registers.write_reg(regs::ACQ::zeroed());
        registers.write_reg(regs::ACQ_HIGH::zeroed());
        self.0.identify()
    }

    fn quiesce(&self) -> StopOutcome {
        if let Err(e) = self.0.say_goodbye() {
            dev_warn!(self.0.dev, "not ready to be stopped ({e:?})\n");
        }

        match self.0.identify().and_then(|()| self.0.reset()) {
            Ok(()) => StopOutcome::Stopped,
            Err(_) => StopOutcome::Unproven,
        }
    }
}

/// A completion (4.6).
#[derive(Clone, Copy, FromBytes, IntoBytes)]
#[repr(C)]
pub(crate) struct Completion {
    result: u32,
    _reserved: u32,
    submission_head: u16,
    submission_queue: u16,
    command: u16,
    status: u16,
}

impl Completion {
    /// Returns the status field without the phase: 0 for success.
    pub(crate) fn status(&self) -> u16 {
        u16::from_le(self.status) >> 1
    }
}

// SAFETY: By the numbers of the contract:
// 1. The last word has the command's identifier and the status with the phase tag (4.6), which is
//    valid when the phase tag says that the entry is new. QEMU writes the entry as a whole.
// 2. The phase tag is 1 in the first turn, and is inverted with each; the queue is zero before
//    (4.6).
// 3. The device echoes both identifiers (4.6). It writes one entry for each command, and no others.
// 4. A command is complete when its entry is written (4.1.2): all data are transferred, and the
//    submission entry was fetched.
unsafe impl Entry for Completion {
    const WORD: usize = 12;

    #[inline]
    fn is_new(word: u32, turn: Turn) -> bool {
        (word >> 16 & 1 == 1) == turn.phase()
    }

    #[inline]
    fn queue(&self) -> Untrusted<u16> {
        Untrusted::new(u16::from_le(self.submission_queue))
    }

    #[inline]
    fn tag(&self) -> Option<Untrusted<u32>> {
        Some(Untrusted::new(u16::from_le(self.command).into()))
    }

    #[inline]
    fn moved(&self) -> Option<Untrusted<usize>> {
        // The device says whether it has moved all.
        (self.status() != 0).then(|| Untrusted::new(0))
    }
}

/// The registers of a completion queue.
pub(crate) struct Completes<'a> {
    hardware: Hardware<'a>,
    queue: u16,
    /// By which of the device's interrupts it says that there are entries.
    vector: u16,
}

// SAFETY: By the numbers of the contract:
// 1. The registers are those of `dev`.
// 2. The device writes entries in turn (4.1). The admin queue is told here; the others by commands
//    of the admin queue ([`AdminCommand::create_completions`]).
// 3. It doesn't write to a queue that is full by its head doorbell (4.1.1).
// 4. `write_reg()` and `write()` are ordered.
// 5. `claim()` makes one for each queue.
unsafe impl CompletionQueue for Completes<'_> {
    type Entry = Completion;

    fn device(&self) -> &Device {
        self.hardware.dev
    }

    fn number(&self) -> u16 {
        self.queue
    }

    fn start(&mut self, queue: QueueMemory<'_>) -> Result {
        if self.queue != 0 {
            return Ok(());
        }

        if queue.len != ADMIN_COMPLETIONS {
            return Err(EINVAL);
        }

        // SAFETY: The queue and `running` are those of `dev`. The device accesses entries only,
        // until it is stopped.
        let (low, high) = halves(unsafe { queue.memory.to_bits(queue.running) });

        self.hardware.set_admin()?;
        self.hardware.registers.write_reg(regs::ACQ::from(low));
        self.hardware
            .registers
            .write_reg(regs::ACQ_HIGH::from(high));
        Ok(())
    }

    #[inline]
    fn consumed(&mut self, head: Head) {
        // There is one for each number that `claim()` has given away.
        if let Some(at) = regs::HEAD::try_at(self.queue.into()) {
            self.hardware
                .registers
                .write(at, regs::HEAD::from(head.index()));
        }
    }
}

/// A command (4.2).
#[derive(Clone, Copy, FromBytes, IntoBytes)]
#[repr(C)]
pub(crate) struct Command {
    opcode: u16,
    tag: u16,
    namespace: u32,
    _reserved: u64,
    metadata: u64,
    prp1: u64,
    prp2: u64,
    words: [u32; 6],
}

/// The pages of a command after the first: a PRP list (4.3).
#[derive(FromBytes, IntoBytes)]
#[repr(transparent)]
pub(crate) struct PrpList([u64; Self::LEN]);

impl PrpList {
    const LEN: usize = 256;
}

/// The most bytes that a command may have: the pages of a list, and as a rule one more.
pub(crate) const MAX_BYTES: usize = PrpList::LEN * PAGE;

impl Command {
    /// Makes a command whose data have `len` bytes, all of which the device accesses in this
    /// direction.
    fn new<'a, P: Payload<'a>, S: FromBytes + IntoBytes + Send + 'static>(
        opcode: u16,
        namespace: u32,
        words: [u32; 6],
        (direction, len): (DataDirection, usize),
        call: &Call<'_, 'a, P, S>,
    ) -> Result<Self> {
        // The command says how long they are, and which way they go.
        if call.len() != len || call.segments().any(|one| one.direction() != direction) {
            return Err(EINVAL);
        }

        Ok(Self {
            opcode: opcode.to_le(),
            // CAST: `TAG_BITS` is 16.
            tag: (call.tag() as u16).to_le(),
            namespace: namespace.to_le(),
            _reserved: 0,
            metadata: 0,
            prp1: 0,
            prp2: 0,
            words: words.map(u32::to_le),
        })
    }
}

/// The pages of some segments: where each begins. All but the first begin where a page does, and
/// all but the last end where one does (4.3).
fn pages<'m, S: Iterator<Item = Segment<'m>>>(
    segments: S,
) -> impl Iterator<Item = Result<u64>> + use<'m, S> {
    // CAST: Widening.
    let page = PAGE as u64;
    let mut end = 0;
    let mut is_first = true;

    segments.flat_map(move |segment| {
        // CAST: Widening.
        let (start, len) = (segment.address(), segment.len() as u64);
        let fits = core::mem::take(&mut is_first) || (end % page == 0 && start % page == 0);

        end = start + len;

        // Where it begins, and where each page in it does.
        (start / page..end.div_ceil(page)).map(move |number| match fits {
            true => Ok(start.max(number * page)),
            false => Err(EINVAL),
        })
    })
}

/// The registers and commands of the admin queue.
pub(crate) struct AdminQueue<'a>(Hardware<'a>);

// SAFETY: By the numbers of the contract:
// 1. The registers are those of `dev`.
// 2. The device fetches entries in order (4.1), up to the tail, and not before it is enabled.
// 3. Identify writes 4096 bytes to the pages of the segments, as `Command::new()` has checked. The
//    other commands have no segments, and name a queue by its place, with as many entries as that
//    has, of the size that the type of the place says. `AdminCommand` takes the number of a queue
//    from that queue.
// 4. The command's identifier comes back in the admin completion queue. Both have the number 0.
// 5. It fetches commands in order, and carries out what it has fetched (4.1).
// 6. `write_reg()` and `write()` are ordered.
// 7. `claim()` makes one.
unsafe impl<'q> Submission for AdminQueue<'q> {
    type Entry = Command;
    type Completion = Completion;
    type Command = AdminCommand<'q>;
    type Scratch = ();
    const TAG_BITS: u32 = 16;

    fn device(&self) -> &Device {
        self.0.dev
    }

    fn start(&mut self, queue: QueueMemory<'_>) -> Result {
        if queue.len != ADMIN_SUBMISSIONS {
            return Err(EINVAL);
        }

        // SAFETY: The queue and `running` are those of `dev`. The device accesses entries, and what
        // they name, until it is stopped.
        let (low, high) = halves(unsafe { queue.memory.to_bits(queue.running) });

        self.0.set_admin()?;
        self.0.registers.write_reg(regs::ASQ::from(low));
        self.0.registers.write_reg(regs::ASQ_HIGH::from(high));
        Ok(())
    }

    fn describe<'a, P: Payload<'a>>(
        &self,
        command: &AdminCommand<'q>,
        call: Call<'_, 'a, P, ()>,
    ) -> Result<Command> {
        const NOTHING: (DataDirection, usize) = (DataDirection::None, 0);
        let queue = |number: u16, len: u32| (len - 1) << 16 | u32::from(number);
        let plain = |opcode, words, call| Command::new(opcode, 0, words, NOTHING, call);

        match &command.0 {
            What::Identify(namespace) => {
                let what = u32::from(namespace.is_none());
                let mut entry = Command::new(
                    6,
                    namespace.unwrap_or(0),
                    [what, 0, 0, 0, 0, 0],
                    (DataDirection::FromDevice, IDENTIFY),
                    &call,
                )?;
                let mut pages = pages(call.segments());

                entry.prp1 = pages.next().ok_or(EINVAL)??.to_le();
                entry.prp2 = pages.next().unwrap_or(Ok(0))?.to_le();

                // Whether the last one ends where it should is known only then.
                match pages.next() {
                    None => Ok(entry),
                    Some(_) => Err(EINVAL),
                }
            }
            What::SetQueues(count) => {
                let count = u32::from(*count).saturating_sub(1);

                plain(9, [7, count << 16 | count, 0, 0, 0, 0], &call)
            }
            What::AwaitEvent => plain(0xc, [0; 6], &call),
            What::CreateCompletions(number, vector, place) => {
                // Contiguous, and with interrupts.
                let how = u32::from(*vector) << 16 | 3;
                let mut entry = plain(5, [queue(*number, place.len()), how, 0, 0, 0, 0], &call)?;

                entry.prp1 = call.place(place)?.to_le();
                Ok(entry)
            }
            What::CreateSubmissions(number, place) => {
                // It completes in the queue of the same number.
                let words = [
                    queue(*number, place.len()),
                    u32::from(*number) << 16 | 1,
                    0,
                    0,
                    0,
                    0,
                ];
                let mut entry = plain(1, words, &call)?;

                entry.prp1 = call.place(place)?.to_le();
                Ok(entry)
            }
        }
    }

    fn doorbell(&mut self, tail: Tail) {
        self.0
            .registers
            .write(regs::TAIL::at(0), regs::TAIL::from(tail.index()));
    }
}

/// What the queue for reads and writes is told: about the first namespace.
#[derive(Clone, Copy)]
pub(crate) enum IoCommand {
    /// All that was written before is to stay.
    Flush,
    /// Read blocks, from this one on: as many as the payload has room for.
    Read(u64),
    /// Write blocks.
    Write(u64),
}

/// The registers and commands of the queue for reads and writes.
pub(crate) struct IoQueue<'a> {
    hardware: Hardware<'a>,
    queue: u16,
}

// SAFETY: By the numbers of the contract:
// 1. The registers are those of `dev`.
// 2. The device is told of the queue by a command ([`AdminCommand::create_submissions`]), fetches
//    entries in order (4.1), up to the tail.
// 3. The device moves as many blocks as the payload has, as `Command::new()` has checked, in one
//    direction, to or from the pages of the segments: up to two in the entry, or one there and the
//    others in the list, which it reads. The length of a block is what the device itself has said
//    since it was disarmed: see [`BlockLength`].
// 4. The command's identifier comes back in the completion queue of the same number, with that
//    number: so the device is told by [`AdminCommand::create_submissions`].
// 5. It fetches commands in order, and carries out what it has fetched (4.1).
// 6. `write()` is ordered.
// 7. `claim()` makes one of each number.
unsafe impl Submission for IoQueue<'_> {
    type Entry = Command;
    type Completion = Completion;
    type Command = IoCommand;
    type Scratch = PrpList;
    const TAG_BITS: u32 = 16;

    fn device(&self) -> &Device {
        self.hardware.dev
    }

    fn number(&self) -> u16 {
        self.queue
    }

    fn completes_in(&self) -> u16 {
        self.queue
    }

    fn start(&mut self, _queue: QueueMemory<'_>) -> Result {
        Ok(())
    }

    fn describe<'a, P: Payload<'a>>(
        &self,
        command: &IoCommand,
        mut call: Call<'_, 'a, P, PrpList>,
    ) -> Result<Command> {
        let (opcode, direction, block) = match *command {
            IoCommand::Flush => {
                return Command::new(0, 1, [0; 6], (DataDirection::None, 0), &call);
            }
            IoCommand::Write(block) => (1, DataDirection::ToDevice, block),
            IoCommand::Read(block) => (2, DataDirection::FromDevice, block),
        };

        let len = call.len();
        let shift = self.hardware.said.block.shift()?;
        let blocks = len >> shift;

        if blocks == 0 || blocks << shift != len || len > MAX_BYTES {
            return Err(EINVAL);
        }

        let (low, high) = halves(block);
        // CAST: Not more than `MAX_BYTES`.
        let words = [low, high, blocks as u32 - 1, 0, 0, 0];
        let mut entry = Command::new(opcode, 1, words, (direction, len), &call)?;
        let mut pages = pages(call.segments());

        entry.prp1 = pages.next().ok_or(EINVAL)??.to_le();

        match (pages.next(), pages.next()) {
            (None, _) => {}
            (Some(second), None) => entry.prp2 = second?.to_le(),
            (Some(second), Some(third)) => {
                let (list, address) = call.scratch()?;

                for (i, page) in Iterator::chain([second, third].into_iter(), pages).enumerate() {
                    *list.0.get_mut(i).ok_or(EINVAL)? = page?.to_le();
                }

                entry.prp2 = address.to_le();
            }
        }

        Ok(entry)
    }

    #[inline]
    fn doorbell(&mut self, tail: Tail) {
        // There is one for each number that `claim()` has given away.
        if let Some(at) = regs::TAIL::try_at(self.queue.into()) {
            self.hardware
                .registers
                .write(at, regs::TAIL::from(tail.index()));
        }
    }
}
