// SPDX-License-Identifier: GPL-2.0

//! A device with a memory of its own, which it fills and reads by DMA: one transfer at a time.

use super::{
    bus::Access,
    device::{
        Device,
        Worker, //
    },
    schedule::Fate,
    Sim, //
};
use crate::{
    device,
    dma::{
        transfer::{
            Engine,
            Progress,
            Request, //
        },
        Constraints,
        DataDirection,
        DmaAddress,
        DmaMask,
        Quiesce,
        StopOutcome,
        Untrusted, //
    },
    new_spinlock_irq,
    prelude::*,
    sync::{
        aref::ARef,
        Arc,
        SpinLockIrq, //
    }, //
};

/// A simulated copy engine: a register file and a memory.
///
/// What its methods do is what a driver's accesses to registers do, except for those that say that
/// they are for the test. Like registers they believe what they are told: who writes an address
/// aims DMA, though the bus lets it hit only what is mapped. As an [`Engine`] it is [`Copier`].
///
/// # Examples
///
/// ```
/// use kernel::{
///     dma::{
///         fixture::{self, ensure},
///         transfer::TransferSlot,
///         sim::{self, Copier, CopyEngine, Fate, Model, Script},
///         FromDevice, Streaming, ToDevice,
///     },
///     prelude::*,
///     time::Delta,
/// };
///
/// let script = Script::new(Model::NonCoherent).fate(Fate::after(3));
///
/// sim::run(script, |pdev, sim| {
///     // There is no session, which would start the device.
///     let dma = fixture::open(pdev.as_ref())?;
///     let mut slot = TransferSlot::new(dma, Copier(CopyEngine::new(sim, 256)?))?;
///     let (tick, long) = (Delta::ZERO, Delta::from_secs(1));
///
///     let out = Streaming::<_, ToDevice>::map(dma, KVec::from_elem(7_u8, 256, GFP_KERNEL)?)?;
///     drop(slot.start(out, 0..256, 0)?.wait_polling(tick, long)?);
///
///     let back = Streaming::<_, FromDevice>::map(dma, KVec::from_elem(0_u8, 256, GFP_KERNEL)?)?;
///     let back = slot.start(back, 0..256, 0)?.wait_polling(tick, long)?;
///
///     ensure!(back.bytes().iter().all(|&byte| byte == 7));
///     Ok(())
/// })?;
/// # Ok::<(), Error>(())
/// ```
#[pin_data]
pub struct CopyEngine {
    sim: Arc<Sim>,
    dev: ARef<device::Device>,
    #[pin]
    state: SpinLockIrq<State>,
}

struct State {
    memory: KVec<u8>,
    worker: Worker<Transfer>,
    moved: usize,
}

#[derive(Clone, Copy)]
struct Transfer {
    addr: DmaAddress,
    len: usize,
    offset: usize,
    to_memory: bool,
}

impl CopyEngine {
    /// Puts an engine with so many bytes of memory on the bus.
    ///
    /// For the test. Context: may sleep.
    ///
    /// # Errors
    ///
    /// [`EINVAL`] for no memory, [`ENOMEM`].
    pub fn new(sim: &Arc<Sim>, memory: usize) -> Result<Arc<Self>> {
        if memory == 0 {
            pr_err!("dma-sim: a copy engine without memory copies nothing\n");
            return Err(EINVAL);
        }

        let state = State {
            memory: KVec::from_elem(0, memory, GFP_KERNEL)?,
            worker: Worker::new(sim),
            moved: 0,
        };
        let this = Arc::pin_init(Self::init(sim.clone(), sim.device()?, state), GFP_KERNEL)?;

        sim.attach(this.clone())?;
        Ok(this)
    }

    // One place, hence one lockdep class.
    #[inline(never)]
    fn init(sim: Arc<Sim>, dev: ARef<device::Device>, state: State) -> impl PinInit<Self> {
        pin_init!(Self {
            sim,
            dev,
            state <- new_spinlock_irq!(state),
        })
    }

    /// Says what becomes of the next transfer that has no fate yet. For the test.
    ///
    /// Context: any.
    ///
    /// # Errors
    ///
    /// [`EINVAL`] for [`Fate::reports_at`], [`Fate::ends`] and [`Fate::unreported`]: there are no
    /// descriptors. [`ENOMEM`].
    pub fn then(&self, fate: Fate) -> Result {
        if fate.is_about_descriptors() {
            pr_err!("dma-sim: a copy engine has no descriptors to report in\n");
            return Err(EINVAL);
        }

        self.state.lock().worker.schedule.then(fate)
    }

    /// Starts a transfer of `len` bytes between bus address `addr` and the engine's memory.
    ///
    /// `to_memory` is towards the CPU. Context: any.
    ///
    /// # Errors
    ///
    /// - [`EINVAL`] if the engine's memory is shorter, or nothing is to be moved;
    /// - [`EBUSY`] if it is at work;
    /// - [`ENODEV`] if it is gone, [`ESHUTDOWN`] if it has stopped.
    pub fn command(&self, addr: DmaAddress, len: usize, offset: usize, to_memory: bool) -> Result {
        let mut state = self.state.lock();

        state.worker.check()?;

        if len == 0
            || offset
                .checked_add(len)
                .is_none_or(|end| end > state.memory.len())
        {
            return Err(EINVAL);
        }

        if state.worker.schedule.pending() > 0 {
            return Err(EBUSY);
        }

        state.moved = 0;
        state.worker.schedule.ask(Transfer {
            addr,
            len,
            offset,
            to_memory,
        })?;
        drop(state);

        self.advance(0);
        Ok(())
    }

    /// Returns whether the engine is at work. A tick passes.
    ///
    /// Context: any.
    ///
    /// # Errors
    ///
    /// [`ENODEV`] if it is gone.
    pub fn is_busy(&self) -> Result<bool> {
        self.sim.look();

        let state = self.state.lock();

        state.worker.answers()?;
        Ok(state.worker.schedule.pending() > 0)
    }

    /// Returns how many bytes the last transfer moved, if the engine says the truth.
    ///
    /// Context: any.
    pub fn moved(&self) -> Untrusted<usize> {
        Untrusted::new(self.state.lock().moved)
    }

    /// Tells the engine to stop.
    ///
    /// Context: any.
    pub fn stop(&self) {
        self.state.lock().worker.stop();
    }

    /// Lets a device that has stopped take requests again.
    ///
    /// Context: any.
    ///
    /// # Errors
    ///
    /// [`ENODEV`] if it is gone.
    pub fn restart(&self) -> Result {
        self.state.lock().worker.restart()
    }

    /// Returns whether the engine has stopped. A tick passes.
    ///
    /// Context: any.
    ///
    /// # Errors
    ///
    /// [`ENODEV`] if it is gone.
    pub fn is_stopped(&self) -> Result<bool> {
        self.sim.look();
        self.state.lock().worker.is_stopped()
    }
}

impl Device for CopyEngine {
    fn advance(&self, ticks: u32) {
        self.state.lock().worker.schedule.tick(ticks);

        loop {
            let mut state = self.state.lock();
            let State {
                memory,
                worker,
                moved,
            } = &mut *state;
            let Some(event) = worker.schedule.due() else {
                return;
            };
            let Transfer {
                addr,
                len,
                offset,
                to_memory,
            } = event.what;

            if event.again.is_none() {
                let own = &mut memory[offset..offset + len];
                let bytes = if to_memory {
                    Access::Write(own)
                } else {
                    Access::Read(own)
                };
                let done = self.sim.access(addr, bytes, worker.has_stopped());

                *moved = event.fate.reports.unwrap_or(if done { len } else { 0 });
                worker.schedule.done(event, *moved);
            }

            // The handler may look at the engine.
            drop(state);
            self.sim.interrupt();
        }
    }

    fn pending(&self) -> usize {
        self.state.lock().worker.schedule.pending()
    }

    fn unused(&self) -> usize {
        self.state.lock().worker.schedule.unused()
    }

    fn pull(&self) {
        self.state.lock().worker.pull();
    }
}

/// The driver's side of a [`CopyEngine`], for a
/// [`TransferSlot`](crate::dma::transfer::TransferSlot), and for an
/// [`Session`](crate::dma::Session). The target is an offset in the engine's memory.
pub struct Copier(pub Arc<CopyEngine>);

// SAFETY: By the numbers of the contract, unless the test's script has the engine break one: then
// the bus, which lets it access only what is mapped, reports the access.
// 1. The engine was put on the bus of `dev`, and reaches memory by that bus only.
// 2. It accesses the address that `command()` was given, for `len` bytes, in that direction.
// 3. `command()` returns an error before it notes anything.
// 4. The engine accesses the memory at one tick, and is busy until then. `is_busy()` takes the same
//    lock.
// 5. `is_busy()` fails if the engine was pulled from the bus.
// 6. The lock orders the engine's accesses with the CPU's.
// 7. `command()` refuses while the engine is busy.
// 8. A test makes one `Copier` for each engine.
unsafe impl Engine for Copier {
    type Target = usize;

    fn device(&self) -> &device::Device {
        &self.0.dev
    }

    fn start(&mut self, request: Request<'_, usize>) -> Result {
        let len = request.memory.len();
        let to_memory = request.direction == DataDirection::FromDevice;

        // SAFETY: As said above, the engine is done when `poll` says so.
        let addr = unsafe { request.memory.to_bits(request.running) };

        self.0.command(addr, len, request.target, to_memory)
    }

    fn poll(&mut self) -> Result<Progress> {
        if self.0.is_busy()? {
            return Ok(Progress::Busy);
        }

        Ok(Progress::Done(self.0.moved()))
    }
}

/// How often a [`Copier`] looks whether the engine is done before it gives up.
const PATIENCE: u32 = 64;

// SAFETY: By the numbers of the contract, unless the test's script has the engine break one: then
// the bus reports the access.
// 1. The engine was put on the bus of `dev`.
// 2. `disarm` waits until the engine isn't busy, and it accesses memory only while it is. It holds
//    one address at most, and uses it once.
// 3. It writes at once, under the lock that `is_busy()` and `is_stopped()` take.
// 4. `is_busy()` fails if the engine was pulled from the bus.
// 5. `is_stopped()` says so only if the engine isn't busy. After `stop()` it refuses commands,
//    until `restart()`.
// 6. What was pulled from the bus doesn't come back.
// 7. `HEEDS_BUS` is false.
// 8. It takes addresses of 64 bits, and any length: it copies byte by byte.
// 9. `disarm` looks `PATIENCE` times, `quiesce` once. Neither knows the session.
unsafe impl Quiesce for Copier {
    fn device(&self) -> &device::Device {
        &self.0.dev
    }

    fn limits(&self) -> Constraints {
        Constraints::new(DmaMask::new::<64>())
    }

    fn disarm(&mut self) -> Result {
        for _ in 0..PATIENCE {
            if !self.0.is_busy()? {
                return self.0.restart();
            }
        }

        Err(ETIMEDOUT)
    }

    fn quiesce(&self) -> StopOutcome {
        self.0.stop();

        match self.0.is_stopped() {
            Ok(true) => StopOutcome::Stopped,
            Ok(false) => StopOutcome::Unproven,
            Err(_) => StopOutcome::Gone,
        }
    }
}
