// SPDX-License-Identifier: GPL-2.0

//! A driver that hands out a fence for each transfer, and those who wait for it, tested on a
//! simulated bus.
//!
//! See `Documentation/rust/dma/dma_fence.rst`.

use kernel::{
    dma::{
        fixture::{
            self,
            ensure, //
        },
        sim::{
            self,
            Copier,
            CopyEngine,
            Fate,
            Model,
            Script, //
        },
        transfer::{
            Engine,
            TransferSlot, //
        },
        Buffer,
        Mapper,
        Streaming,
        ToDevice, //
    },
    dma_fence::{
        Fence,
        FenceAllocation,
        FenceCallback,
        FenceContext,
        Fenced,
        Signalling, //
    },
    error::ErrorWith,
    new_wait_queue,
    prelude::*,
    sync::{
        aref::ARef,
        Arc,
        WaitQueue, //
    },
    time::Delta, //
};

module! {
    type: Sample,
    name: "rust_dma_fence",
    authors: ["The dma-rs authors"],
    description: "A driver whose transfers signal fences, and its test",
    license: "GPL",
}

/// The tests are all there is.
struct Sample;

impl kernel::Module for Sample {
    fn init(_module: &'static ThisModule) -> Result<Self> {
        Ok(Self)
    }
}

/// How long a message may take.
const TIMEOUT: Delta = Delta::from_secs(2);

/// The driver: it writes messages to its device.
struct Sender<'a, E: Engine<Target = usize>> {
    dma: Mapper<'a>,
    slot: TransferSlot<'a, E, Fenced<KVec<u8>>>,
    fences: FenceContext,
}

impl<'a, E: Engine<Target = usize>> Sender<'a, E> {
    fn new(dma: Mapper<'a>, engine: E) -> Result<Self> {
        Ok(Self {
            dma,
            slot: TransferSlot::new(dma, engine)?,
            fences: FenceContext::new(c"rust_dma_fence", c"messages")?,
        })
    }

    // [start of sender]
    /// Starts to write a message, and returns a fence for those who wait until it is written.
    fn send(&mut self, offset: usize, message: KVec<u8>) -> Result<ARef<Fence>> {
        let len = message.len();
        let memory = FenceAllocation::new(GFP_KERNEL)?;
        let message = Fenced::new(message, self.fences.fence(memory));
        let fence = message.fence();

        // A message that is refused never was a job. Nobody has seen its fence, which is dropped
        // with it, so our own reference goes before.
        let message = match Streaming::<_, ToDevice>::map(self.dma, message) {
            Ok(message) => message,
            Err(refused) => {
                drop(fence);
                return Err(refused.into());
            }
        };

        match self.slot.start(message, 0..len, offset) {
            Ok(_in_flight) => Ok(fence),
            Err(refused) => {
                drop(fence);
                Err(refused.into())
            }
        }
    }

    /// Looks whether the message is written; for the interrupt handler's thread, say.
    fn complete(&mut self) -> Result<Option<KVec<u8>>> {
        // Lockdep reports what must not be done from here on.
        let _guard = Signalling::begin();

        let Some(message) = self.slot.take::<ToDevice>()? else {
            return Ok(None);
        };
        let written = message.bytes().len();
        let message = message.unmap();

        Ok(Some(if written == message.len() {
            message.signal()
        } else {
            message.signal_with_error(EIO)
        }))
    }
    // [end of sender]
}

// [start of waiters]
/// Waits in the kernel.
fn wait(fence: &Fence) -> Result {
    // It may take too long, and it may fail.
    fence.wait(TIMEOUT).ok_or(ETIMEDOUT)?
}

/// Waits in a system call: a signal ends it.
fn wait_for_user(fence: &Fence) -> Result {
    fence.wait_interruptible(TIMEOUT)?.ok_or(ETIMEDOUT)?
}

/// Has a queue woken, and returns what is to be kept until then. If there is nothing to wait for,
/// that is nothing.
fn wake_later(
    fence: &Fence,
    queue: Arc<WaitQueue>,
) -> Result<Option<FenceCallback<impl FnMut(Result) + Send + 'static>>> {
    match fence.add_callback(move |_| queue.wake_all()) {
        Ok(callback) => Ok(Some(callback)),
        Err(ErrorWith { error, .. }) if error == ENOENT => Ok(None),
        Err(refused) => Err(refused.into()),
    }
}
// [end of waiters]

#[kunit_tests(sample_rust_dma_fence)]
mod tests {
    use super::*;

    fn hello() -> Result<KVec<u8>> {
        Ok(KVec::from_elem(7, 64, GFP_KERNEL)?)
    }

    /// On each kind of bus: the fence is signalled when the message is written, and not before.
    #[test]
    fn sends() -> Result {
        let script = Script::new(Model::NonCoherent).fate(Fate::after(3));

        sim::run_on_each(script, |pdev, sim| {
            let device = CopyEngine::new(sim, 256)?;
            let mut sender = Sender::new(fixture::open(pdev.as_ref())?, Copier(device))?;

            for _ in 0..3 {
                let fence = sender.send(100, hello()?)?;
                let mut looks = 0;

                ensure!(fence.status().is_none());

                let message = loop {
                    if let Some(message) = sender.complete()? {
                        break message;
                    }

                    ensure!(fence.status().is_none());
                    looks += 1;
                };

                ensure!(looks > 0 && message == hello()?);
                wait(&fence)?;
                wait_for_user(&fence)?;
            }

            Ok(())
        })
    }

    /// A device that reports nonsense: the job is over, and has failed.
    #[test]
    fn fails() -> Result {
        sim::run(Script::new(Model::NonCoherent), |pdev, sim| {
            let device = CopyEngine::new(sim, 256)?;
            let engine = Copier(device.clone());
            let mut sender = Sender::new(fixture::open(pdev.as_ref())?, engine)?;

            device.then(Fate::after(0).reports(1 << 20))?;

            let fence = sender.send(0, hello()?)?;

            while sender.complete()?.is_none() {}
            ensure!(wait(&fence) == Err(EIO));
            Ok(())
        })
    }

    /// A device that takes too long keeps the message, and those who wait give up. The next message
    /// is refused, and its fence was never seen.
    #[test]
    fn late() -> Result {
        sim::run(Script::new(Model::NonCoherent), |pdev, sim| {
            let device = CopyEngine::new(sim, 256)?;
            let engine = Copier(device.clone());
            let mut sender = Sender::new(fixture::open(pdev.as_ref())?, engine)?;
            let queue = Arc::pin_init(new_wait_queue!("rust_dma_fence"), GFP_KERNEL)?;

            device.then(Fate::after(1_000_000))?;

            let fence = sender.send(0, hello()?)?;
            let callback = wake_later(&fence, queue)?;

            ensure!(callback.is_some() && sender.complete()?.is_none());
            ensure!(fence.wait(Delta::from_millis(1)).is_none());
            ensure!(matches!(sender.send(0, hello()?), Err(error) if error == EBUSY));
            ensure!(fence.status().is_none());

            sim.advance(1_000_000);
            ensure!(sender.complete()?.is_some());
            wait(&fence)?;
            ensure!(wake_later(&fence, Arc::pin_init(new_wait_queue!(), GFP_KERNEL)?)?.is_none());
            Ok(())
        })
    }
}
