// SPDX-License-Identifier: GPL-2.0

//! The device as the rest of the driver sees it: blocks that are read and written.

use super::hardware::{
    self,
    Admin,
    AdminBack,
    AdminCommand,
    AdminData,
    Completes,
    Control,
    IoCommand,
    IoQueue,
    Namespace,
    Page,
    Parts,
    IDENTIFY,
    IO_QUEUE, //
};
use kernel::{
    device::{
        Core,
        Device, //
    },
    dma::{
        queue::{
            Commands,
            Completions,
            Either,
            Ticket, //
        },
        FromDevice,
        Mapper,
        Pool,
        Session,
        Streaming,
        StreamingBox,
        ToDevice, //
    },
    irq,
    new_mutex,
    new_wait_queue,
    pci,
    prelude::*,
    sync::{
        Arc,
        Mutex,
        WaitQueue, //
    },
    time::Delta, //
};

/// How many reads and writes can be in flight, and how many entries their completion queue has.
pub(crate) const TAGS: u16 = 16;
const COMPLETIONS: u32 = 64;

/// How long a command may take, in steps after which the driver looks by itself.
const STEP: Delta = Delta::from_millis(5);
const STEPS: usize = 2000;

/// What goes with a read or a write; nothing with a flush.
pub(crate) type Data<'a> =
    Option<Either<Streaming<'a, KVec<u8>, ToDevice>, Streaming<'a, KVec<u8>, FromDevice>>>;

/// What comes back of it.
pub(crate) type Back<'a> =
    Option<Either<StreamingBox<'a, KVec<u8>, ToDevice>, StreamingBox<'a, KVec<u8>, FromDevice>>>;

/// A command that is over: what came back, and the status, 0 for success. [`None`] if the device
/// was stopped before.
pub(crate) type Outcome<'a> = (Back<'a>, Option<u16>);

pub(crate) struct Io<'a> {
    pub(crate) done: Completions<'a, Completes<'a>>,
    pub(crate) commands: Commands<'a, IoQueue<'a>, Data<'a>>,
    /// By the index of the ticket.
    outcomes: [Option<(Ticket, Outcome<'a>)>; TAGS as usize],
}

/// What the device may access.
#[pin_data]
pub(crate) struct Queues<'a> {
    #[pin]
    admin: Mutex<Admin<'a>>,
    #[pin]
    pub(crate) io: Mutex<Io<'a>>,
}

/// What the device says of itself.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) struct Identity {
    pub(crate) model: [u8; 40],
    pub(crate) blocks: u64,
    /// How many bytes a block has.
    pub(crate) block: usize,
}

/// A bound device.
pub(crate) struct Nvme<'a> {
    pub(crate) dma: Mapper<'a>,
    control: Control<'a>,
    pub(crate) session: Session<'a, Queues<'a>>,
    waiters: Arc<WaitQueue>,
    pub(crate) identity: Identity,
}

/// The interrupt handler: it only wakes whoever waits.
struct IrqHandler(Arc<WaitQueue>);

impl irq::Handler for IrqHandler {
    fn handle(&self) -> irq::IrqReturn {
        self.0.wake_all();
        irq::IrqReturn::Handled
    }
}

impl<'a> Nvme<'a> {
    /// Brings a device up, from whatever state it is in.
    ///
    /// Context: may sleep.
    ///
    /// # Errors
    ///
    /// [`ENODEV`] if this isn't a device for this driver, [`ETIMEDOUT`] if it doesn't answer,
    /// [`EIO`] if it fails, and what the allocations and mappings say. Nothing is left behind.
    pub(crate) fn bring_up(pdev: &pci::Device<Core<'a>>) -> Result<Self> {
        let dev: &Device<Core<'a>> = pdev.as_ref();

        pdev.enable_device_mem()?;

        let dma = Mapper::get(dev.bound())?;
        let Parts {
            control,
            stopper,
            admin,
            io_done,
            io,
            max_entries,
        } = hardware::claim(pdev, dma)
            .inspect_err(|e| dev_err!(pdev, "no NVMe device ({e:?})\n"))?;

        if max_entries < COMPLETIONS {
            return Err(ENODEV);
        }

        let waiters = Arc::pin_init(new_wait_queue!("dma_rs_nvme"), GFP_KERNEL)?;
        // A pin would have to be masked until the queue is reaped.
        let types = pci::IrqTypes::default()
            .with(pci::IrqType::MsiX)
            .with(pci::IrqType::Msi);

        if let Err(e) = pdev.request_irq(types, c"dma_rs_nvme", Ok(IrqHandler(waiters.clone()))) {
            dev_warn!(pdev, "no interrupt ({e:?}), polling\n");
        }

        let lists = Pool::with_layout::<256, 4096>(dev, c"PRP lists")?;
        let mut io_done = Completions::new(dma, io_done, COMPLETIONS)?;
        let io_port = io_done.port(IO_QUEUE, TAGS)?;
        let io = Io {
            commands: Commands::new(dma, io, io_port, Some(lists))?,
            done: io_done,
            outcomes: Default::default(),
        };
        let session = Session::new(
            dev,
            stopper,
            pin_init!(Queues {
                admin <- new_mutex!(admin),
                io <- new_mutex!(io),
            }),
        )?;

        // It isn't known before the device was asked.
        let mut nvme = Self {
            dma,
            control,
            session,
            waiters,
            identity: Identity {
                model: [b' '; 40],
                blocks: 0,
                block: 0,
            },
        };

        nvme.bring_to_life()?;
        nvme.identity = nvme.identify()?;
        Ok(nvme)
    }

    /// Starts the device with its queues, at first and after a stop.
    ///
    /// What was in flight before has failed. Context: may sleep.
    ///
    /// # Errors
    ///
    /// As [`bring_up`](Self::bring_up), and [`EIO`] if it isn't what it was.
    pub(crate) fn start(&self) -> Result {
        self.bring_to_life()?;

        // It was disarmed: nothing that it has said before counts.
        if self.identify()? != self.identity {
            return Err(EIO);
        }

        Ok(())
    }

    /// Starts the device with its queues. It takes reads and writes when it was asked what it is.
    pub(crate) fn bring_to_life(&self) -> Result {
        // From here on the device can reach memory.
        self.session.start()?;

        let mut admin = self.session.admin.lock();

        admin.start()?;

        // It may not be stopped in between: then it would be enabled all the same.
        let running = self.session.running()?;
        let enabled = self.control.enable(&running);

        drop(running);
        enabled?;
        self.control.wait_ready()?;

        let mut io = self.session.io.lock();
        let Io {
            done,
            commands,
            outcomes,
        } = &mut *io;

        done.start()?;
        commands.start(|ticket, back| {
            if let Some(outcome) = outcomes.get_mut(ticket.index()) {
                *outcome = Some((ticket, (back, None)));
            }
        })?;

        let completions = AdminCommand::create_completions(done);
        let submissions = AdminCommand::create_submissions(&commands.submitter);

        self.ask(&mut admin, None, completions)?;
        self.ask(&mut admin, None, submissions)?;
        Ok(())
    }

    /// Asks the device what it is.
    pub(crate) fn identify(&self) -> Result<Identity> {
        let (page, _) = self.identify_one(AdminCommand::IDENTIFY_CONTROLLER)?;
        let mut model = [0; 40];

        model.copy_from_slice(page.bytes().get(24..64).ok_or(EIO)?);

        let (_, namespace) = self.identify_one(AdminCommand::IDENTIFY_NAMESPACE)?;
        let namespace = namespace.ok_or(EIO)?;

        Ok(Identity {
            model,
            blocks: namespace.blocks,
            block: namespace.block(),
        })
    }

    #[allow(clippy::type_complexity, reason = "a page, and what was found there")]
    fn identify_one(
        &self,
        what: AdminCommand<'a>,
    ) -> Result<(StreamingBox<'a, Page, FromDevice>, Option<Namespace>)> {
        let page = Streaming::map(self.dma, KBox::new([0; IDENTIFY], GFP_KERNEL)?)?;
        let (back, namespace) = self.ask(&mut self.session.admin.lock(), Some(page), what)?;

        Ok((back.ok_or(EIO)?, namespace))
    }

    /// Submits a command to the admin queue, and waits for it; returns what comes back.
    fn ask(
        &self,
        admin: &mut Admin<'a>,
        data: AdminData<'a>,
        command: AdminCommand<'a>,
    ) -> Result<(AdminBack<'a>, Option<Namespace>)> {
        let asked = admin.ask(data, command)?;
        let mut answer = None;

        for _ in 0..STEPS {
            let found = self.session.wait_until(&self.waiters, STEP, || {
                admin.reap(|one| {
                    // Others have timed out: nobody waits for them any more.
                    if one.ticket == asked {
                        answer = Some(one);
                    }
                });

                match answer.take() {
                    Some(answer) => Some(Ok(answer)),
                    None => admin.is_stopped().then_some(Err(ESHUTDOWN)),
                }
            });

            if let Some(found) = found {
                let answer = found?;

                return Ok((answer.back, answer.outcome?));
            }
        }

        Err(ETIMEDOUT)
    }

    /// Submits reads and writes, and kicks the device once.
    ///
    /// Context: may sleep.
    ///
    /// # Errors
    ///
    /// [`EBUSY`] if as many are in flight as can be, [`EINVAL`] if the data aren't as long as the
    /// command is to be, [`ESHUTDOWN`] if the device is stopped. Those before were submitted.
    pub(crate) fn submit(
        &self,
        commands: impl IntoIterator<Item = (IoCommand, Data<'a>)>,
        mut submitted: impl FnMut(Ticket) -> Result,
    ) -> Result {
        let mut io = self.session.io.lock();
        let submitter = &mut io.commands.submitter;
        let all = commands.into_iter().try_for_each(|(command, data)| {
            let ticket = submitter.submit(data, command).map_err(|e| e.error)?;

            submitted(ticket)
        });

        submitter.kick()?;
        all
    }

    /// Waits for a command; returns what came back of it, and its status.
    ///
    /// Context: may sleep.
    ///
    /// # Errors
    ///
    /// [`ETIMEDOUT`]: it is still in flight. [`ESHUTDOWN`] if the device was stopped: what was in
    /// flight comes back after the next [`start`](Self::start).
    pub(crate) fn wait(&self, ticket: Ticket) -> Result<Outcome<'a>> {
        for _ in 0..STEPS {
            let found = self.session.wait_until(&self.waiters, STEP, || {
                let mut io = self.session.io.lock();

                io.reap();

                let outcome = io.outcomes.get_mut(ticket.index())?;

                if let Some((_, outcome)) = outcome.take_if(|(other, _)| *other == ticket) {
                    return Some(Ok(outcome));
                }

                io.done.is_stopped().then_some(Err(ESHUTDOWN))
            });

            if let Some(found) = found {
                return found;
            }
        }

        Err(ETIMEDOUT)
    }

    /// Submits a command, and waits for it; returns what comes back of it.
    ///
    /// # Errors
    ///
    /// As [`submit`](Self::submit) and [`wait`](Self::wait), and [`EIO`] if the device says that it
    /// has failed.
    pub(crate) fn execute(&self, command: IoCommand, data: Data<'a>) -> Result<Back<'a>> {
        let mut ticket = None;

        self.submit([(command, data)], |submitted| {
            ticket = Some(submitted);
            Ok(())
        })?;

        match self.wait(ticket.ok_or(EIO)?)? {
            (back, Some(0)) => Ok(back),
            _ => Err(EIO),
        }
    }

    /// Reads blocks, from `block` on: as many as `buf` has room for.
    ///
    /// # Errors
    ///
    /// As [`execute`](Self::execute).
    pub(crate) fn read(&self, block: u64, buf: KVec<u8>) -> Result<KVec<u8>> {
        let data = Some(Either::Second(Streaming::map(self.dma, buf)?));

        match self.execute(IoCommand::Read(block), data)? {
            Some(Either::Second(buf)) => Ok(buf.unmap()),
            _ => Err(EIO),
        }
    }

    /// Writes blocks, from `block` on; returns the buffer.
    ///
    /// # Errors
    ///
    /// As [`execute`](Self::execute).
    pub(crate) fn write(&self, block: u64, buf: KVec<u8>) -> Result<KVec<u8>> {
        let data = Some(Either::First(Streaming::map(self.dma, buf)?));

        match self.execute(IoCommand::Write(block), data)? {
            Some(Either::First(buf)) => Ok(buf.unmap()),
            _ => Err(EIO),
        }
    }

    /// Sees to it that what was written stays.
    ///
    /// # Errors
    ///
    /// As [`execute`](Self::execute).
    pub(crate) fn flush(&self) -> Result {
        self.execute(IoCommand::Flush, None).map(drop)
    }
}

impl Io<'_> {
    /// Looks which commands are done; returns how many entries the device has written.
    fn reap(&mut self) -> u32 {
        let Self {
            done,
            commands,
            outcomes,
        } = self;

        done.reap(COMPLETIONS, |seen| {
            // A device that makes up completions is counted by `strays()`.
            let Ok(completed) = commands.completer.complete(seen) else {
                return;
            };
            // Any number will do.
            let status = completed.entry.validate(|entry| Ok(entry.status())).ok();

            if let Some(outcome) = outcomes.get_mut(completed.ticket.index()) {
                *outcome = Some((completed.ticket, (completed.payload, status)));
            }
        })
    }
}
