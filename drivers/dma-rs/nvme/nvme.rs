// SPDX-License-Identifier: GPL-2.0

//! The device as the rest of the driver sees it: blocks that are read and written.

use super::{
    hardware::{
        self,
        Admin,
        AdminCommand,
        AdminData,
        Answer,
        Control,
        IoCommand,
        Namespace,
        Page,
        Pair,
        Parts,
        IDENTIFY,
        MAX_BYTES,
        PAIRS, //
    },
    requests::{
        Numbered,
        Outcome,
        Request,
        Requests, //
    }, //
};
use kernel::{
    cpu::{
        nr_cpu_ids,
        CpuId, //
    },
    device::{
        Core,
        Device, //
    },
    dma::{
        queue::{
            Either,
            Private, //
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
        atomic::{
            Atomic,
            Relaxed, //
        },
        Arc,
        Mutex,
        WaitQueue, //
    },
    time::Delta, //
};

/// How many reads and writes can be in flight in a queue, and how many entries the queue has in
/// which they complete.
pub(crate) const TAGS: u16 = 64;
pub(crate) const COMPLETIONS: u32 = 128;

/// How long a command may take, in steps after which the driver looks by itself.
const STEP: Delta = Delta::from_millis(5);
const STEPS: usize = 2000;

/// What goes with a read or a write; nothing with a flush.
pub(crate) type Data<'a> =
    Option<Either<Streaming<'a, KVec<u8>, ToDevice>, Streaming<'a, KVec<u8>, FromDevice>>>;

/// What comes back of it.
pub(crate) type Back<'a> =
    Option<Either<StreamingBox<'a, KVec<u8>, ToDevice>, StreamingBox<'a, KVec<u8>, FromDevice>>>;

/// A pair of queues for reads and writes, and what was submitted to them.
pub(crate) struct Io<'a> {
    pub(crate) pair: Pair<'a, (Data<'a>, Private<Request>)>,
    requests: Requests<'a>,
}

/// What the device may access.
#[pin_data]
pub(crate) struct Queues<'a> {
    #[pin]
    admin: Mutex<Admin<'a>>,
    pub(crate) io: KVec<Pin<KBox<Mutex<Io<'a>>>>>,
}

/// Where threads wait for a queue.
#[pin_data]
struct Waiters {
    #[pin]
    queue: WaitQueue,
    interrupts: Atomic<u32>,
}

/// What the device says of itself.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) struct Identity {
    pub(crate) model: [u8; 40],
    pub(crate) firmware: [u8; 8],
    pub(crate) blocks: u64,
    /// How many bytes a block has.
    pub(crate) block: usize,
    /// How many bytes can be read or written at once.
    pub(crate) max_bytes: usize,
}

impl Identity {
    /// Returns the version of the firmware, for people.
    pub(crate) fn firmware(&self) -> &str {
        core::str::from_utf8(&self.firmware).map_or("?", str::trim)
    }
}

/// A bound device.
pub(crate) struct Nvme<'a> {
    pub(crate) dma: Mapper<'a>,
    pub(crate) control: Control<'a>,
    pub(crate) session: Session<'a, Queues<'a>>,
    /// For the admin queue, and then for each pair.
    waiters: KVec<Arc<Waiters>>,
    /// Which pair a CPU uses.
    pub(crate) pair_of: KVec<u8>,
    /// How many interrupts there are; 0 if the queues are only looked at now and then.
    pub(crate) vectors: usize,
    /// How many pairs the device lets us have.
    usable: Atomic<u32>,
    /// Held while the device is reset, and counts how often it was.
    resets: Pin<KBox<Mutex<u32>>>,
    /// Whether the last reset has failed. Whoever comes next tries again.
    needs_reset: Atomic<bool>,
    pub(crate) identity: Identity,
}

/// The interrupt handler: it only wakes whoever waits for one of these queues.
struct IrqHandler(KVec<Arc<Waiters>>);

impl irq::Handler for IrqHandler {
    fn handle(&self) -> irq::IrqReturn {
        for waiters in &self.0 {
            waiters.interrupts.add(1, Relaxed);
            waiters.queue.wake_all();
        }

        irq::IrqReturn::Handled
    }
}

impl Waiters {
    fn new() -> Result<Arc<Self>> {
        let waiters = pin_init!(Self {
            queue <- new_wait_queue!("dma_rs_nvme"),
            interrupts: Atomic::new(0),
        });

        Arc::pin_init(waiters, GFP_KERNEL)
    }
}

/// Returns which vector of `count` a queue uses: each its own, as far as they go.
fn vector_of(queue: usize, count: usize) -> usize {
    match (queue.checked_sub(1), count.checked_sub(1)) {
        (Some(pair), Some(vectors)) => pair.checked_rem(vectors).map_or(0, |vector| 1 + vector),
        _ => 0,
    }
}

/// Requests an interrupt for each queue, and notes which CPUs get them; returns how many there are.
fn request_vectors<'a>(
    pdev: &pci::Device<Core<'a>>,
    queues: &[Arc<Waiters>],
    pair_of: &mut [u8],
) -> Result<usize> {
    // [start of vectors]
    // A pin would have to be masked until the queue is reaped.
    let types = pci::IrqTypes::default()
        .with(pci::IrqType::MsiX)
        .with(pci::IrqType::Msi);
    // The first one is for the admin queue.
    let spread = pci::IrqSpread::OverCpus { but_first: 1 };
    let most = u32::try_from(queues.len())?;
    let vectors = pdev.irq_vectors(1..=most, types, spread)?;
    let count = vectors.len();

    for (index, vector) in vectors.enumerate() {
        let mut served = KVec::new();

        for (queue, waiters) in queues.iter().enumerate() {
            if vector_of(queue, count) == index {
                served.push(waiters.clone(), GFP_KERNEL)?;
            }
        }

        if let (Some(pair), Some(cpus)) = (index.checked_sub(1), vector.cpus(pdev)) {
            for (cpu, uses) in (0..).zip(pair_of.iter_mut()) {
                if CpuId::from_u32(cpu).is_some_and(|cpu| cpus.test(cpu)) {
                    // CAST: Less than `PAIRS`.
                    *uses = pair as u8;
                }
            }
        }

        vector.request(pdev, c"dma_rs_nvme", Ok(IrqHandler(served)))?;
    }
    // [end of vectors]

    Ok(count)
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
            pairs,
            max_entries,
        } = hardware::claim(pdev, dma)
            .inspect_err(|e| dev_err!(pdev, "no NVMe device ({e:?})\n"))?;

        if max_entries < COMPLETIONS {
            return Err(ENODEV);
        }

        // CAST: Widening.
        let count = (nr_cpu_ids() as usize).clamp(1, PAIRS);
        let mut pair_of = KVec::new();
        let mut waiters = KVec::new();

        for pair in (0..count).cycle().take(nr_cpu_ids() as usize) {
            // CAST: Less than `PAIRS`.
            pair_of.push(pair as u8, GFP_KERNEL)?;
        }

        for _ in 0..=count {
            waiters.push(Waiters::new()?, GFP_KERNEL)?;
        }

        let vectors = request_vectors(pdev, &waiters, &mut pair_of).unwrap_or_else(|e| {
            dev_warn!(pdev, "no interrupts ({e:?}), polling\n");
            0
        });
        let lists = Pool::with_layout::<2048, 4096>(dev, c"PRP lists")?;
        let mut io = KVec::new();

        for (registers, queue) in pairs.into_iter().take(count).zip(1..) {
            // CAST: At most `PAIRS`.
            let vector = vector_of(queue, vectors) as u16;
            let pair = registers.make(dma, (TAGS, COMPLETIONS), vector, lists)?;
            let one = KBox::pin_init(
                new_mutex!(Io {
                    pair,
                    requests: Requests::new()?,
                }),
                GFP_KERNEL,
            )?;

            io.push(one, GFP_KERNEL)?;
        }

        let session = Session::new(
            dev,
            stopper,
            pin_init!(Queues {
                admin <- new_mutex!(admin),
                io,
            }),
        )?;

        // It isn't known before the device was asked.
        let mut nvme = Self {
            dma,
            control,
            session,
            waiters,
            pair_of,
            vectors,
            usable: Atomic::new(0),
            resets: KBox::pin_init(new_mutex!(0), GFP_KERNEL)?,
            needs_reset: Atomic::new(false),
            identity: Identity {
                model: [b' '; 40],
                firmware: [b' '; 8],
                blocks: 0,
                block: 0,
                max_bytes: 0,
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

    /// Goes on after the bus has stopped the device, and has started its session again.
    ///
    /// Context: may sleep.
    ///
    /// # Errors
    ///
    /// As [`start`](Self::start).
    pub(crate) fn resume(&self) -> Result {
        // A thread that has waited in vain may start it at the same time.
        let _resets = self.resets.lock();

        match self.start() {
            Err(e) if e == EBUSY => Ok(()),
            outcome => {
                self.needs_reset.store(outcome.is_err(), Relaxed);
                outcome
            }
        }
    }

    /// Starts the device with its queues. It takes reads and writes when it was asked what it is.
    pub(crate) fn bring_to_life(&self) -> Result {
        // From here on the device can reach memory.
        self.session.start()?;

        let mut admin = self.session.admin.lock();

        admin.start()?;

        self.control.enable(self.vectors > 0)?;
        self.control.wait_ready()?;

        let io = &self.session.io;
        // CAST: At most `PAIRS`.
        let wanted = io.len() as u16;
        let granted = self
            .ask(&mut admin, None, AdminCommand::set_queues(wanted), STEPS)?
            .result?;
        // One less than there are, of either kind.
        let usable = io
            .len()
            .min(1 + (granted & 0xffff).min(granted >> 16) as usize);

        // CAST: At most `PAIRS`.
        self.usable.store(usable as u32, Relaxed);

        for (number, io) in io.iter().enumerate() {
            let mut io = io.lock();

            // What was over before the stop is.
            io.reap();

            let Io { pair, requests } = &mut *io;

            pair.done.start()?;
            pair.commands
                .start(|_, (back, request)| requests.over(request, (back, None)))?;

            if number < usable {
                let completions = AdminCommand::create_completions(&pair.done);
                let submissions = AdminCommand::create_submissions(&pair.commands.submitter);

                self.ask(&mut admin, None, completions, STEPS)?.result?;
                self.ask(&mut admin, None, submissions, STEPS)?.result?;
            }
        }

        Ok(())
    }

    /// Asks the device what it is.
    pub(crate) fn identify(&self) -> Result<Identity> {
        let (page, _) = self.identify_one(AdminCommand::IDENTIFY_CONTROLLER)?;
        let page = page.bytes();
        let model = *page.get(24..).and_then(<[u8]>::first_chunk).ok_or(EIO)?;
        let firmware = *page.get(64..).and_then(<[u8]>::first_chunk).ok_or(EIO)?;

        // A power of two of the smallest pages; 0 if there is no limit (5.15.2.2).
        let max_bytes = match *page.get(77).ok_or(EIO)? {
            0 => MAX_BYTES,
            pages => 4096_usize.checked_shl(pages.into()).unwrap_or(MAX_BYTES),
        };

        let (_, namespace) = self.identify_one(AdminCommand::IDENTIFY_NAMESPACE)?;
        let namespace = namespace.ok_or(EIO)?;

        Ok(Identity {
            model,
            firmware,
            blocks: namespace.blocks,
            block: namespace.block(),
            max_bytes: max_bytes.min(MAX_BYTES),
        })
    }

    #[allow(clippy::type_complexity, reason = "a page, and what was found there")]
    fn identify_one(
        &self,
        what: AdminCommand<'a>,
    ) -> Result<(StreamingBox<'a, Page, FromDevice>, Option<Namespace>)> {
        let page = Streaming::map(self.dma, KBox::new([0; IDENTIFY], GFP_KERNEL)?)?;
        let answer = self.ask(&mut self.session.admin.lock(), Some(page), what, STEPS)?;

        answer.result?;
        Ok((answer.back.ok_or(EIO)?, answer.namespace?))
    }

    /// Waits for an event that the device reports by itself, for that many steps; returns what
    /// kind of event it is.
    ///
    /// # Errors
    ///
    /// [`ETIMEDOUT`] if there is none. The device was reset then.
    pub(crate) fn await_event(&self, steps: usize) -> Result<u32> {
        let resets = self.resets();
        let answer = self.ask(
            &mut self.session.admin.lock(),
            None,
            AdminCommand::AWAIT_EVENT,
            steps,
        );

        if let Err(ETIMEDOUT) = answer {
            self.reset(resets)?;
        }

        answer?.result
    }

    /// Submits a command to the admin queue, and waits for it; returns what comes back.
    fn ask(
        &self,
        admin: &mut Admin<'a>,
        data: AdminData<'a>,
        command: AdminCommand<'a>,
        steps: usize,
    ) -> Result<Answer<'a>> {
        let waiters = self.waiters.first().ok_or(EIO)?;
        let asked = admin.ask(data, command)?;
        let mut answer = None;

        for _ in 0..steps {
            let found = self.session.wait_until(&waiters.queue, STEP, || {
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
                return found;
            }
        }

        Err(ETIMEDOUT)
    }

    /// Returns how many pairs of queues there are to submit to.
    pub(crate) fn pairs(&self) -> usize {
        // CAST: Widening.
        self.usable.load(Relaxed) as usize
    }

    /// Returns which pair of queues this CPU uses: the one whose interrupts it gets.
    pub(crate) fn pair_here(&self) -> usize {
        // It may be another CPU at once. Each pair will do, this one is better.
        // CAST: Widening.
        let cpu = CpuId::current().as_u32() as usize;
        let pair = self.pair_of.get(cpu).copied().unwrap_or(0);

        usize::from(pair).checked_rem(self.pairs()).unwrap_or(0)
    }

    /// Returns how many interrupts there were for a pair of queues.
    pub(crate) fn interrupts(&self, pair: usize) -> u32 {
        self.waiters
            .get(pair + 1)
            .map_or(0, |waiters| waiters.interrupts.load(Relaxed))
    }

    /// Returns how often the device was told of commands in a pair of queues.
    pub(crate) fn doorbells(&self, pair: usize) -> u64 {
        self.io(pair)
            .map_or(0, |io| io.lock().pair.commands.submitter.doorbells())
    }

    fn io(&self, pair: usize) -> Result<&Mutex<Io<'a>>> {
        if pair >= self.pairs() {
            return Err(EINVAL);
        }

        self.session.io.get(pair).map(|io| &**io).ok_or(EINVAL)
    }

    /// Submits reads and writes to a pair of queues, and kicks the device once.
    ///
    /// Gives each request to `submitted`: [wait](Self::wait) for it, or [abandon](Self::abandon)
    /// it. Context: may sleep.
    ///
    /// # Errors
    ///
    /// [`EBUSY`] if as many are in flight, or were not waited for, as can be, [`EINVAL`] if the
    /// data aren't as long as the command is to be, or there is no such pair; [`EAGAIN`] while the
    /// device is being started, [`ESHUTDOWN`] if it is stopped. Those before were submitted.
    pub(crate) fn submit(
        &self,
        pair: usize,
        commands: impl IntoIterator<Item = (IoCommand, Data<'a>)>,
        mut submitted: impl FnMut(Request) -> Result,
    ) -> Result {
        let mut io = self.io(pair)?.lock();
        let all = commands.into_iter().try_for_each(|(command, data)| {
            let request = io.next_request()?;
            let submitter = &mut io.pair.commands.submitter;

            submitter
                .submit((data, Private(request)), command)
                .map_err(|e| e.error)?;
            io.requests.submitted(request);
            submitted(request)
        });

        io.pair.commands.submitter.kick()?;
        all
    }

    /// Says that nobody will wait for a request: what comes back of it is dropped.
    ///
    /// Does nothing for one that was waited for. Context: may sleep.
    pub(crate) fn abandon(&self, pair: usize, request: Request) {
        if let Some(io) = self.session.io.get(pair) {
            io.lock().requests.abandon(request);
        }
    }

    /// Waits for a command; returns what came back of it, and its status.
    ///
    /// Context: may sleep.
    ///
    /// # Errors
    ///
    /// [`ETIMEDOUT`]: it is still in flight. [`ESHUTDOWN`] if the device was stopped: what was in
    /// flight comes back after the next [`start`](Self::start). Wait again then, or
    /// [abandon](Self::abandon) it.
    pub(crate) fn wait(&self, pair: usize, request: Request) -> Result<Outcome<'a>> {
        self.wait_numbered(pair, request)
            .map(|(_, outcome)| outcome)
    }

    /// As [`wait`](Self::wait). The number is the greater the later the command was done.
    pub(crate) fn wait_numbered(&self, pair: usize, request: Request) -> Result<Numbered<'a>> {
        let waiters = self.waiters.get(pair + 1).ok_or(EINVAL)?;
        let io = self.io(pair)?;

        for _ in 0..STEPS {
            let found = self.session.wait_until(&waiters.queue, STEP, || {
                let mut io = io.lock();

                io.reap();

                if let Some(outcome) = io.requests.take(request) {
                    return Some(Ok(outcome));
                }

                io.pair.done.is_stopped().then_some(Err(ESHUTDOWN))
            });

            if let Some(found) = found {
                return found;
            }
        }

        Err(ETIMEDOUT)
    }

    /// Submits a command to the queues of this CPU, and waits for it; returns what comes back of
    /// it.
    ///
    /// # Errors
    ///
    /// As [`submit`](Self::submit) and [`wait`](Self::wait); [`EIO`] if the device says that it has
    /// failed. After [`ETIMEDOUT`] the device was reset, so nothing is in flight any more. If that
    /// fails, the next command tries it again, and returns what comes of it.
    pub(crate) fn execute(&self, command: IoCommand, data: Data<'a>) -> Result<Back<'a>> {
        self.mend()?;

        let pair = self.pair_here();
        let mut request = None;
        let submitted = self.submit(pair, [(command, data)], |submitted| {
            request = Some(submitted);
            Ok(())
        });
        // Not before, or a reset that came in between would be taken for one that came after.
        let resets = self.resets();
        let Some(request) = request else {
            return Err(submitted.err().unwrap_or(EIO));
        };

        match submitted.and_then(|()| self.wait(pair, request)) {
            Ok((back, Some(0))) => Ok(back),
            Ok(_) => Err(EIO),
            Err(e) => {
                self.abandon(pair, request);

                if e == ETIMEDOUT {
                    self.reset(resets)?;
                }

                Err(e)
            }
        }
    }

    /// Returns how often the device was reset.
    pub(crate) fn resets(&self) -> u32 {
        *self.resets.lock()
    }

    /// Resets the device, and starts it again, unless somebody has since [`resets`](Self::resets)
    /// returned `seen`.
    ///
    /// Several threads may have waited in vain for the same device. Context: may sleep.
    ///
    /// # Errors
    ///
    /// As [`start`](Self::start). The device is stopped then.
    pub(crate) fn reset(&self, seen: u32) -> Result {
        let mut resets = self.resets.lock();

        if *resets == seen {
            self.reset_locked(&mut resets)?;
        }

        Ok(())
    }

    /// Resets a device whose last reset has failed, and does nothing else.
    fn mend(&self) -> Result {
        if !self.needs_reset.load(Relaxed) {
            return Ok(());
        }

        let mut resets = self.resets.lock();

        if self.needs_reset.load(Relaxed) {
            self.reset_locked(&mut resets)?;
        }

        Ok(())
    }

    /// Resets the device, and starts it again. The caller has locked `resets`.
    fn reset_locked(&self, resets: &mut u32) -> Result {
        let begun = self.session.restart().and_then(|()| {
            self.start().inspect_err(|_| {
                // Unless an event has stopped it, at whose end it is started again.
                if self.session.running().is_ok() {
                    self.session.stop();
                }
            })
        });

        self.needs_reset.store(begun.is_err(), Relaxed);
        begun?;
        *resets = resets.wrapping_add(1);
        Ok(())
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
    /// Returns the next request. If there is no place for it, some may be over that nobody waits
    /// for.
    fn next_request(&mut self) -> Result<Request> {
        self.requests.next().or_else(|_| {
            self.reap();
            self.requests.next()
        })
    }

    /// Looks which commands are done; returns how many entries the device has written.
    fn reap(&mut self) -> u32 {
        let Self { pair, requests } = self;
        let Pair { done, commands } = pair;

        done.reap(COMPLETIONS, |seen| {
            // A device that makes up completions is counted by `strays()`.
            let Ok(completed) = commands.completer.complete(seen) else {
                return;
            };
            // Any number will do.
            let status = completed.entry.validate(|entry| Ok(entry.status())).ok();
            let (back, request) = completed.payload;

            requests.over(request, (back, status));
        })
    }
}
