// SPDX-License-Identifier: GPL-2.0

//! Runs the loops, and takes the time.

use super::{
    device::{
        CHalf,
        CLoop,
        Idle,
        Registers,
        RxQueue,
        TxQueue,
        BATCH,
        BLOCK,
        FRAME,
        LARGE,
        PIECE, //
    },
    loops::map_unmap_buffer,
    queue::{
        FrameQueues,
        ListQueues, //
    },
    table::{
        Operation,
        CONTROLLER,
        DEVICE,
        MAP_UNMAP,
        OPERATIONS, //
    },
    BenchLt, //
};
use core::{
    hint::black_box,
    mem::MaybeUninit, //
};
use kernel::{
    device::{
        Bound,
        Core,
        Device, //
    },
    devres::{
        self,
        DevresSrcu, //
    },
    dma::{
        dmaengine::{
            Capabilities,
            Channel, //
        },
        ring::{
            Consumer,
            Ring, //
        },
        DmaAddress,
        FromDevice,
        Mapper,
        Pool,
        PoolEntry,
        Session,
        Shared,
        SharedBox,
        Streaming,
        StreamingBox, //
    },
    new_mutex,
    pci,
    prelude::*,
    sync::Mutex,
    time::{
        delay::fsleep,
        BootTime,
        Delta,
        Instant, //
    }, //
};

/// How often each loop is run. What comes in between, an interrupt of the clock for instance, makes
/// a run longer, never shorter: so the shortest counts.
const ROUNDS: usize = 16;

/// How long it is quiet before each run. What is put off is done by then, as an IOMMU's
/// invalidations are after 10 ms, and each run begins with a tick: the time makes no difference.
const QUIET: Delta = Delta::from_millis(40);

/// A way to call a loop. How many instructions it takes to zero a variable depends on how that is
/// aligned, which is a matter of what callers have on the stack. So each loop is run at each
/// alignment that there is in a cache line.
type Call = fn(&mut dyn FnMut(u32) -> Result, u32) -> Result;
const CALLS: [Call; 4] = [deeper::<16>, deeper::<32>, deeper::<48>, deeper::<64>];

/// Calls a loop with so many bytes more on the stack, which nobody reads or writes.
#[inline(never)]
fn deeper<const BYTES: usize>(run: &mut dyn FnMut(u32) -> Result, n: u32) -> Result {
    let bytes = MaybeUninit::<[u8; BYTES]>::uninit();

    black_box(&bytes);

    let result = run(n);

    black_box(&bytes);
    result
}

/// Leads to the device until it is unbound.
pub(crate) type Handle = DevresSrcu<BenchLt>;

/// What is sent and received.
pub(crate) type Frame = KBox<[u8; FRAME]>;
/// What is mapped as a list.
pub(crate) type List = KVec<KBox<[u8; PIECE]>>;
pub(crate) type TxRing<'a> = Ring<'a, TxQueue<'a>, Frame>;
pub(crate) type RxRing<'a> = Ring<'a, RxQueue<'a>, Frame>;

/// What is in memory that a device shares.
#[derive(FromBytes, IntoBytes)]
#[repr(C)]
pub(crate) struct Mailbox {
    pub(crate) index: u32,
    pub(crate) argument: u32,
}

/// What the loops in Rust work on.
pub(crate) struct Work<'a> {
    pub(crate) dev: &'a Device<Bound>,
    pub(crate) dma: Mapper<'a>,
    pub(crate) pool: &'a Pool<'a, [u8; BLOCK]>,
    pub(crate) small: Option<KBox<[u8; 64]>>,
    pub(crate) frame: Option<Frame>,
    pub(crate) large: Option<KBox<[u8; LARGE]>>,
    /// If an operation maps a list.
    pub(crate) list: Option<List>,
    pub(crate) mailbox: Shared<'a, Mailbox>,
    pub(crate) tx: TxRing<'a>,
    pub(crate) rx: RxRing<'a>,
    pub(crate) queues: FrameQueues<'a>,
    pub(crate) lists: ListQueues<'a>,
    /// Of the DMA engine that copies.
    pub(crate) channel: Channel<'a>,
    /// Frames that aren't in a ring.
    pub(crate) spare: KVec<Frame>,
    pub(crate) batch: u32,
    /// How much was received.
    pub(crate) bytes: usize,
    c: CHalf<'a>,
}

/// A session that has a buffer of `N` bytes.
pub(crate) trait Holds<const N: usize> {
    fn place(&mut self) -> &mut Option<KBox<[u8; N]>>;
}

impl Holds<64> for Work<'_> {
    fn place(&mut self) -> &mut Option<KBox<[u8; 64]>> {
        &mut self.small
    }
}

impl Holds<FRAME> for Work<'_> {
    fn place(&mut self) -> &mut Option<Frame> {
        &mut self.frame
    }
}

impl Holds<LARGE> for Work<'_> {
    fn place(&mut self) -> &mut Option<KBox<[u8; LARGE]>> {
        &mut self.large
    }
}

/// A bound device.
pub(crate) struct Bench<'a> {
    dev: &'a Device<Bound>,
    dma: Mapper<'a>,
    session: Session<'a, Mutex<Work<'a>>>,
}

/// How long a loop took.
struct Sample {
    /// Without a single turn.
    empty: u64,
    least: u64,
    most: u64,
}

/// Makes a buffer. Context: may sleep.
pub(crate) fn zeroed<const N: usize>() -> Result<KBox<[u8; N]>> {
    KBox::init(pin_init::init_zeroed(), GFP_KERNEL)
}

impl<'a> Bench<'a> {
    /// Context: may sleep.
    ///
    /// # Errors
    ///
    /// What the allocations and mappings say, and [`EPROBE_DEFER`] if there is no DMA engine yet.
    /// Nothing is left behind.
    pub(crate) fn bring_up(pdev: &pci::Device<Core<'a>>) -> Result<Handle> {
        pdev.enable_device_mem()?;

        let dev: &Device<Core<'a>> = pdev.as_ref();
        let dma = Mapper::get(dev.bound())?;
        let registers: Registers<'a> = pdev.bound().iomap_region_sized(0, c"dma_rs_bench")?;
        let registers = devres::register_lent(dev, Ok::<_, Error>(registers), GFP_KERNEL)?;
        let session = Work {
            dev: dev.bound(),
            dma,
            pool: Pool::new(dev, c"dma_rs_bench")?,
            small: None,
            frame: None,
            large: None,
            list: None,
            mailbox: SharedBox::<Mailbox>::new(dma, GFP_KERNEL)?.submit(),
            tx: Ring::new(dma, TxQueue::new(pdev, registers)?, 64)?,
            rx: Ring::new(dma, RxQueue::new(pdev, registers)?, 64)?,
            queues: FrameQueues::new(pdev, registers)?,
            lists: ListQueues::new(pdev, registers)?,
            channel: Channel::request_by_mask(dev.bound(), Capabilities::MEMCPY)?,
            spare: KVec::new(),
            batch: 1,
            bytes: 0,
            c: CHalf::new(dev.bound())?,
        };
        let session = Session::new(dev, Idle(dev.bound()), new_mutex!(session))?;

        let this = Self {
            dev: dev.bound(),
            dma,
            session,
        };

        DevresSrcu::<BenchLt>::new(dev, Ok::<_, Error>(this))
    }

    /// Runs the operations whose names begin so, and reports to the log.
    ///
    /// Context: may sleep.
    ///
    /// # Errors
    ///
    /// What the loops say.
    pub(crate) fn run(&self, prefix: &str) -> Result {
        report_sizes();

        for operation in OPERATIONS.iter().filter(|o| o.name.starts_with(prefix)) {
            self.prepare(operation)?;

            let mut session = self.session.lock();

            match operation.buffer {
                64 => session.measure::<64>(operation)?,
                FRAME => session.measure::<FRAME>(operation)?,
                LARGE => session.measure::<LARGE>(operation)?,
                _ => return Err(EINVAL),
            }
        }

        Ok(())
    }

    /// Maps and unmaps a buffer of its own, in C or in Rust, and reports to the log.
    ///
    /// This may be done by several threads at the same time. Context: may sleep.
    ///
    /// # Errors
    ///
    /// [`EINVAL`] if it is neither C nor Rust; what mapping says.
    pub(crate) fn run_parallel(&self, who: &str, n: u32) -> Result {
        let mut buf = zeroed()?;
        let mut c = CHalf::new(self.dev)?;
        let start = Instant::<BootTime>::now();

        match who {
            "c" => c.run(MAP_UNMAP, &mut buf, n)?,
            "rust" => drop(map_unmap_buffer::<FromDevice, FRAME>(self.dma, buf, n)?),
            _ => return Err(EINVAL),
        }

        let time = start.elapsed().as_nanos();

        pr_info!("dma-rs-bench: parallel {who} {n} {time}\n");
        Ok(())
    }

    /// Brings all that loops work on into the same state.
    fn prepare(&self, operation: &Operation) -> Result {
        self.session.stop();

        let ring = operation.ring.max(64);
        let mut session = self.session.lock();

        session.tx.resize(ring, drop)?;
        session.rx.resize(ring, drop)?;
        drop(session);
        self.session.start()?;
        self.session.lock().prepare(operation)
    }
}

/// Reports how much memory things take that a driver has many of, to the log.
fn report_sizes() {
    // What a C driver keeps of what it has mapped or allocated: where both sides find it.
    const PAIR: usize = size_of::<(*const u8, DmaAddress)>();

    let sizes = [
        (
            "slot",
            CHalf::slot_size(),
            Consumer::<'_, TxQueue<'_>, Frame>::SLOT_SIZE,
        ),
        ("Mapper", size_of::<*const u8>(), size_of::<Mapper<'_>>()),
        (
            "Streaming",
            PAIR,
            size_of::<Streaming<'_, Frame, FromDevice>>(),
        ),
        (
            "StreamingBox",
            PAIR,
            size_of::<StreamingBox<'_, Frame, FromDevice>>(),
        ),
        ("PoolEntry", PAIR, size_of::<PoolEntry<'_, [u8; BLOCK]>>()),
    ];

    for (name, c, rust) in sizes {
        pr_info!("dma-rs-bench: size {name} {c} {rust}\n");
    }
}

impl Work<'_> {
    fn prepare(&mut self, operation: &Operation) -> Result {
        let Operation {
            batch,
            ring,
            pieces,
            queue,
            copies,
            ..
        } = *operation;

        // The loops count down to zero by it.
        if operation.times.checked_rem(batch) != Some(0) {
            return Err(EINVAL);
        }

        self.batch = batch;
        self.tx.producer.queue().set_batch(batch);
        self.rx.producer.queue().set_batch(batch);
        self.tx.start(drop)?;
        self.rx.start(drop)?;
        self.queues.start()?;
        self.lists.start()?;
        self.small = Some(zeroed()?);
        self.frame = Some(zeroed()?);
        self.large = Some(zeroed()?);
        self.list = None;

        if pieces > 0 {
            let mut list = KVec::with_capacity(pieces, GFP_KERNEL)?;

            while list.len() < pieces {
                list.push(zeroed()?, GFP_KERNEL)?;
            }

            self.list = Some(list);
        }

        self.spare.clear();

        while self.spare.len() < BATCH as usize {
            self.spare.push(zeroed()?, GFP_KERNEL)?;
        }

        if ring > 0 {
            self.rx.producer.refill((), zeroed)?;
            self.rx.producer.kick()?;
        }

        self.c.prepare(batch, ring, queue, copies)
    }

    /// Runs a loop in C, on the buffer that those in Rust work on.
    fn run_c<const N: usize>(&mut self, c: CLoop, n: u32) -> Result
    where
        Self: Holds<N>,
    {
        if let Some(list) = &mut self.list {
            return self.c.run_list(c, list, n);
        }

        let mut buf = self.place().take().ok_or(EINVAL)?;
        let result = self.c.run(c, &mut buf, n);

        *self.place() = Some(buf);
        result
    }

    /// Runs all loops of an operation by turns.
    fn measure<const N: usize>(&mut self, operation: &Operation) -> Result
    where
        Self: Holds<N>,
    {
        let n = operation.times;
        let mut c = Sample::new();
        let mut lowest = Sample::new();
        let mut rust = Sample::new();
        let mut device = Sample::new();

        for call in CALLS.iter().cycle().take(ROUNDS) {
            c.add(call, n, |n| self.run_c(operation.c, n))?;

            if let Some(c) = operation.lowest {
                lowest.add(call, n, |n| self.run_c(c, n))?;
            }

            rust.add(call, n, |n| (operation.rust)(self, n))?;

            if operation.ring > 0 {
                device.add(call, n, |n| self.run_c(DEVICE, n))?;
            }

            if operation.queue {
                device.add(call, n, |n| self.run_c(CONTROLLER, n))?;
            }
        }

        c.report(operation, "c");
        lowest.report(operation, "lowest");
        rust.report(operation, "rust");
        device.report(operation, "device");
        Ok(())
    }
}

impl Sample {
    fn new() -> Self {
        Self {
            empty: u64::MAX,
            least: u64::MAX,
            most: 0,
        }
    }

    /// Runs a loop once without a turn, and once with `n`.
    fn add(&mut self, call: &Call, n: u32, mut run: impl FnMut(u32) -> Result) -> Result {
        let mut take = |n| -> Result<u64> {
            fsleep(QUIET);

            let start = Instant::<BootTime>::now();

            call(&mut run, n)?;
            // CAST: Time doesn't go back.
            Ok(start.elapsed().as_nanos() as u64)
        };

        self.empty = self.empty.min(take(0)?);

        let full = take(n)?;

        self.least = self.least.min(full);
        self.most = self.most.max(full);
        Ok(())
    }

    /// Reports the shortest and the longest run, without what comes before and after the loop.
    fn report(&self, operation: &Operation, who: &str) {
        if self.most > 0 {
            pr_info!(
                "dma-rs-bench: op {} {} {} {} {}\n",
                operation.name,
                who,
                operation.times,
                self.least.saturating_sub(self.empty),
                self.most.saturating_sub(self.empty)
            );
        }
    }
}
