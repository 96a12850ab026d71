// SPDX-License-Identifier: GPL-2.0

//! The device as the rest of the kernel sees it: a memory that is reached by DMA only.

use super::{
    engine::{
        self,
        EduEngine,
        Offset,
        Parts, //
    },
    regs::MEMORY_SIZE,
    EduLt, //
};
use kernel::{
    device::{
        Bound,
        Core, //
    },
    devres::DevresSrcu,
    dma::{
        transfer::TransferSlot,
        Constraints,
        FromDevice,
        Mapper,
        OneWay,
        Session,
        Streaming,
        StreamingBox,
        ToDevice, //
    },
    dma_fence::{
        Fence,
        FenceAllocation,
        FenceContext,
        Fenced,
        Signalling, //
    },
    error::ErrorWith,
    fmt,
    new_mutex,
    new_wait_queue,
    pci,
    prelude::*,
    sync::{
        aref::ARef,
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

/// How long a transfer may take: it takes 100 ms, or longer where the host is slow to say so.
pub(crate) const TIMEOUT: Delta = Delta::from_secs(5);

/// How often to look where there is no interrupt.
const INTERVAL: Delta = Delta::from_millis(5);

/// How the driver learns of the end of a transfer.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Completion {
    /// By an interrupt: MSI, or INTx where there is none.
    Interrupt,
    /// By looking.
    Polling,
}

/// Leads to the device until it is unbound.
pub(crate) type Handle = DevresSrcu<EduLt>;

/// What the driver moves.
type Bytes = KVec<u8>;

/// A buffer that comes back from a failed call; [`None`] if the device may still access it, so that
/// it stays where it is.
type Returned = Option<Bytes>;

/// What the device gets: others can wait until it has done with it.
type Job = Fenced<Bytes>;

/// A mapped buffer, as long as a call needs it.
type Mapped<'a, D> = StreamingBox<'a, Job, D>;

type EduSlot<'a> = TransferSlot<'a, EduEngine<'a>, Job>;

/// A bound device.
pub(crate) struct Edu<'a> {
    dev: &'a pci::Device<Bound>,
    dma: Mapper<'a>,
    waiters: Arc<WaitQueue>,
    stats: Arc<Stats>,
    /// One timeline for each way.
    fences: [FenceContext; 2],
    /// The fence of the job that was started last.
    latest: Arc<Mutex<Option<ARef<Fence>>>>,
    session: Session<'a, Mutex<EduSlot<'a>>>,
}

impl<'a> Edu<'a> {
    /// Brings a device up, from whatever state it is in.
    ///
    /// Context: may sleep.
    ///
    /// # Errors
    ///
    /// [`ENODEV`] if this isn't the device, [`ETIMEDOUT`] if it is busy and stays so, and what the
    /// allocations and mappings say. Nothing is left behind.
    pub(crate) fn bring_up(
        pdev: &pci::Device<Core<'a>>,
        completion: Completion,
        limits: Constraints,
    ) -> Result<Handle> {
        let dev = pdev.bound();

        pdev.enable_device_mem()?;

        let dma = Mapper::get(dev.as_ref())?;
        let waiters = Arc::pin_init(new_wait_queue!("dma_rs_edu"), GFP_KERNEL)?;
        let Parts {
            mut engine,
            stopper,
            interrupts,
            version: (major, minor),
        } = engine::claim(pdev, limits)
            .inspect_err(|e| dev_err!(pdev, "no edu device ({e:?})\n"))?;

        let interrupt = match completion {
            Completion::Polling => None,
            Completion::Interrupt => {
                let types = pci::IrqTypes::default()
                    .with(pci::IrqType::Msi)
                    .with(pci::IrqType::Intx);

                let waker = interrupts.wake(waiters.clone());

                pdev.request_irq(types, c"dma_rs_edu", Ok(waker))
                    .inspect_err(|e| dev_warn!(pdev, "no interrupt ({e:?}), polling\n"))
                    .ok()
            }
        };

        let stats = Arc::new(Stats::new(dma.mask(), interrupt), GFP_KERNEL)?;
        engine.interrupt = interrupt.is_some();

        let device: &kernel::device::Device<Core<'a>> = pdev.as_ref();
        let fences = [
            FenceContext::new(c"dma_rs_edu", c"to the device")?,
            FenceContext::new(c"dma_rs_edu", c"from the device")?,
        ];
        let latest = Arc::pin_init(new_mutex!(None), GFP_KERNEL)?;
        let slot = TransferSlot::new(dma, engine)?;
        let session = Session::new(device, stopper, new_mutex!(slot))?;

        // From here on the device can reach memory.
        session.start()?;

        let handle = DevresSrcu::<EduLt>::new(
            device,
            Ok::<_, Error>(Self {
                dev,
                dma,
                waiters,
                stats,
                fences,
                latest,
                session,
            }),
        )?;

        dev_info!(
            pdev,
            "edu {major}.{minor}: mask {:#x}, interrupt {interrupt:?}\n",
            dma.mask()
        );

        Ok(handle)
    }

    /// Stops the device, and lets it begin anew: for one that hangs, or whose registers are in
    /// disorder.
    ///
    /// Transfers in flight end with [`ESHUTDOWN`]. Context: may sleep.
    ///
    /// # Errors
    ///
    /// [`ETIMEDOUT`] if the device doesn't come to rest, [`ENODEV`] if it is gone, [`EBUSY`] while
    /// it is suspended.
    pub(crate) fn reset(&self) -> Result {
        self.session.restart()
    }

    /// Stops the device, as unbinding does. Context: may sleep.
    #[cfg(CONFIG_DMA_RS_EDU_KUNIT_TEST)]
    pub(crate) fn stop(&self) -> kernel::dma::StopOutcome {
        self.session.stop()
    }

    /// Returns the counters.
    pub(crate) fn stats(&self) -> Arc<Stats> {
        self.stats.clone()
    }

    /// Returns the fence of the job that was started last: whoever waits for it needs neither the
    /// device nor its lock.
    pub(crate) fn latest(&self) -> Option<ARef<Fence>> {
        self.latest.lock().clone()
    }

    /// Writes a buffer to the device's memory, from `offset` on, and returns it.
    ///
    /// Context: may sleep.
    ///
    /// # Errors
    ///
    /// - [`EINVAL`] if there is nothing to write, or it doesn't fit into the device;
    /// - [`EBUSY`] if a transfer that timed out is still not over;
    /// - [`ETIMEDOUT`] if the device doesn't finish, [`ENODEV`] if it is gone, [`EIO`] if it claims
    ///   to have moved something else than was asked for;
    /// - [`ESHUTDOWN`] if the device was stopped: reset, suspended, or unbound;
    /// - what [`Streaming::map`] says.
    pub(crate) fn write(&self, offset: usize, buf: Bytes) -> Result<Bytes, ErrorWith<Returned>> {
        self.move_whole::<ToDevice>(offset, buf)
    }

    /// Fills a buffer from the device's memory, from `offset` on, and returns it.
    ///
    /// Context: may sleep.
    ///
    /// # Errors
    ///
    /// As [`write`](Self::write).
    pub(crate) fn read(&self, offset: usize, buf: Bytes) -> Result<Bytes, ErrorWith<Returned>> {
        self.move_whole::<FromDevice>(offset, buf)
    }

    /// Copies a buffer to another through the device, in as many pieces as it takes.
    ///
    /// Each buffer is mapped once. Overwrites the device's memory. Context: may sleep.
    ///
    /// # Errors
    ///
    /// As [`write`](Self::write), and [`EINVAL`] if the buffers differ in length.
    pub(crate) fn copy(
        &self,
        source: Bytes,
        destination: Bytes,
    ) -> Result<(Bytes, Bytes), ErrorWith<(Returned, Returned)>> {
        let len = source.len();

        if len != destination.len() {
            let value = (Some(source), Some(destination));

            return Err(ErrorWith {
                error: EINVAL,
                value,
            });
        }

        let slot = &mut *self.session.lock();
        let (mut source, sent) =
            match self.prepare::<ToDevice, _>(source, StreamingBox::<_, ToDevice>::map) {
                Ok((source, fence)) => (source, Some(fence)),
                Err(ErrorWith { error, value }) => {
                    let value = (Some(value), Some(destination));

                    return Err(ErrorWith { error, value });
                }
            };
        let prepared =
            self.prepare::<FromDevice, _>(destination, StreamingBox::<_, FromDevice>::map);
        let (mut destination, received) = match prepared {
            Ok((destination, fence)) => (destination, Some(fence)),
            Err(ErrorWith { error, value }) => {
                let source = source.unmap().signal_with_error(error);

                return Err(ErrorWith {
                    error,
                    value: (Some(source), Some(value)),
                });
            }
        };
        let mut fences = (sent, received);
        let _guard = Signalling::begin();

        for start in (0..len).step_by(MEMORY_SIZE) {
            let piece = start..len.min(start + MEMORY_SIZE);

            source = match self.transfer(slot, source.submit(), piece.clone(), 0, &mut fences.0) {
                Ok(source) => source,
                Err(ErrorWith { error, value }) => {
                    drop(fences);

                    let destination = destination.unmap().signal_with_error(error);

                    return Err(ErrorWith {
                        error,
                        value: (given_up(value, error), Some(destination)),
                    });
                }
            };
            destination = match self.transfer(slot, destination.submit(), piece, 0, &mut fences.1) {
                Ok(destination) => destination,
                Err(ErrorWith { error, value }) => {
                    drop(fences);

                    let source = source.unmap().signal_with_error(error);

                    return Err(ErrorWith {
                        error,
                        value: (Some(source), given_up(value, error)),
                    });
                }
            };
        }

        Ok((source.unmap().signal(), destination.unmap().signal()))
    }

    fn move_whole<D: OneWay>(
        &self,
        offset: usize,
        buf: Bytes,
    ) -> Result<Bytes, ErrorWith<Returned>> {
        let len = buf.len();
        let slot = &mut *self.session.lock();
        let (buf, fence) =
            self.prepare::<D, _>(buf, Streaming::<_, D>::map)
                .map_err(|refused| {
                    self.report::<D>(len, refused.error);
                    ErrorWith {
                        error: refused.error,
                        value: Some(refused.value),
                    }
                })?;
        let _guard = Signalling::begin();

        match self.transfer(slot, buf, 0..len, offset, &mut Some(fence)) {
            Ok(buf) => Ok(buf.unmap().signal()),
            Err(ErrorWith { error, value }) => Err(ErrorWith {
                error,
                value: given_up(value, error),
            }),
        }
    }

    /// Makes a job of a buffer, and maps it. Returns its fence, too.
    fn prepare<D: OneWay, M>(
        &self,
        buf: Bytes,
        map: impl FnOnce(Mapper<'a>, Job) -> Result<M, ErrorWith<Job>>,
    ) -> Result<(M, ARef<Fence>), ErrorWith<Bytes>> {
        let memory = match FenceAllocation::new(GFP_KERNEL) {
            Ok(memory) => memory,
            Err(error) => return Err(ErrorWith { error, value: buf }),
        };
        let job = self.fences[usize::from(D::DEVICE_WRITES)].fence(memory);
        let fence = job.fence();

        match map(self.dma, Fenced::new(buf, job)) {
            Ok(mapped) => Ok((mapped, fence)),
            Err(ErrorWith { error, value }) => {
                // Nobody has seen it.
                drop(fence);
                Err(ErrorWith {
                    error,
                    value: value.signal_with_error(error),
                })
            }
        }
    }

    /// Moves one piece, and waits for it. When it is started, the fence of its job is there for
    /// others; until then nobody has seen it.
    fn transfer<D: OneWay>(
        &self,
        slot: &mut EduSlot<'a>,
        buf: Streaming<'a, Job, D>,
        range: core::ops::Range<usize>,
        offset: usize,
        fence: &mut Option<ARef<Fence>>,
    ) -> Result<Mapped<'a, D>, ErrorWith<Option<Mapped<'a, D>>>> {
        let len = range.len();

        let outcome = match slot.start(buf, range, Offset(offset)) {
            Err(ErrorWith { error, value }) => Err((error, value.take_back().ok())),
            Ok(transfer) => {
                if let Some(fence) = fence.take() {
                    *self.latest.lock() = Some(fence);
                }

                let done = match self.stats.interrupt {
                    Some(_) => transfer.wait(&self.waiters, TIMEOUT),
                    None => transfer.wait_polling(INTERVAL, TIMEOUT),
                };

                match done {
                    Ok(buf) if buf.bytes().len() == len => Ok(buf),
                    Ok(buf) => Err((EIO, Some(buf))),
                    // If the device was seen to be done all the same, the buffer can be had.
                    Err(error) => Err((error, slot.take::<D>().ok().flatten())),
                }
            }
        };

        match outcome {
            Ok(buf) => {
                self.stats.count::<D>(len);
                Ok(buf)
            }
            Err((error, value)) => {
                self.report::<D>(len, error);
                Err(ErrorWith { error, value })
            }
        }
    }

    fn report<D: OneWay>(&self, len: usize, error: Error) {
        self.stats.failures.fetch_add(1, Relaxed);
        dev_err!(
            self.dev,
            "moving {len} bytes {}: {error:?}\n",
            WAYS[usize::from(D::DEVICE_WRITES)]
        );
    }
}

/// Ends a job that has failed. If the device may still be at work, it hasn't ended yet.
fn given_up<D: OneWay>(job: Option<Mapped<'_, D>>, error: Error) -> Returned {
    job.map(|job| job.unmap().signal_with_error(error))
}

const WAYS: [&str; 2] = ["to the device", "from the device"];

/// What was done since the device was bound, for debugfs.
pub(crate) struct Stats {
    mask: u64,
    interrupt: Option<pci::IrqType>,
    transfers: [Atomic<u64>; 2],
    bytes: [Atomic<u64>; 2],
    failures: Atomic<u64>,
}

impl Stats {
    fn new(mask: u64, interrupt: Option<pci::IrqType>) -> Self {
        Self {
            mask,
            interrupt,
            transfers: [Atomic::new(0), Atomic::new(0)],
            bytes: [Atomic::new(0), Atomic::new(0)],
            failures: Atomic::new(0),
        }
    }

    fn count<D: OneWay>(&self, len: usize) {
        let way = usize::from(D::DEVICE_WRITES);

        self.transfers[way].fetch_add(1, Relaxed);
        // CAST: Widening.
        self.bytes[way].fetch_add(len as u64, Relaxed);
    }

    /// Writes the counters for a person to read.
    pub(crate) fn show(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "mask: {:#x}", self.mask)?;

        match self.interrupt {
            Some(kind) => writeln!(f, "interrupt: {kind:?}")?,
            None => writeln!(f, "interrupt: none (polling)")?,
        }

        for (i, way) in WAYS.into_iter().enumerate() {
            let transfers = self.transfers[i].load(Relaxed);
            let bytes = self.bytes[i].load(Relaxed);

            writeln!(f, "{way}: {transfers} transfers, {bytes} bytes")?;
        }

        writeln!(f, "failures: {}", self.failures.load(Relaxed))
    }
}
