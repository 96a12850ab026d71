// SPDX-License-Identifier: GPL-2.0

//! A driver that has its data moved by DMA engines, and its tests on an engine that is software.
//!
//! `Documentation/rust/dma/dmaengine.rst` shows parts of it.

use kernel::{
    device::{
        Bound,
        Device, //
    },
    dma::{
        dma_read,
        dmaengine::{
            Capabilities,
            Channel,
            Cyclic,
            Memcpy,
            Peripheral,
            Slave,
            Submitted, //
        },
        fixture::{
            self,
            engine::{
                Engine,
                Features,
                Script, //
            },
            ensure, //
        },
        FromDevice,
        SharedBox,
        Streaming,
        ToDevice, //
    },
    error::ErrorWith,
    prelude::*,
    time::Delta, //
};

module! {
    type: Sample,
    name: "rust_dmaengine",
    authors: ["The dma-rs authors"],
    description: "A driver that uses DMA engines, and its tests",
    license: "GPL",
}

/// The tests are all there is.
struct Sample;

impl kernel::Module for Sample {
    fn init(_module: &'static ThisModule) -> Result<Self> {
        Ok(Self)
    }
}

/// How long the engine may take.
const PATIENCE: Delta = Delta::from_secs(2);

// [start of copying]
/// Copies a vector with an engine of the machine.
fn copy(dev: &Device<Bound>, from: KVec<u8>) -> Result<KVec<u8>> {
    let channel = Channel::request_by_mask(dev, Capabilities::MEMCPY)?;
    let to = KVec::from_elem(0, from.len(), GFP_KERNEL)?;

    // Mapped for the engine, which accesses the memory. Not for `dev`, which doesn't.
    let from = Streaming::<_, ToDevice>::map(channel.mapper(), from)?;
    let to = Streaming::<_, FromDevice>::map(channel.mapper(), to)?;

    // From here on the engine has both.
    let copy = channel.submit(Memcpy::new(from, to))?;

    // And from here on we have them again.
    let (_from, to) = copy.wait(PATIENCE)?;

    Ok(to.unmap())
    // The channel is released.
}
// [end of copying]

// [start of batching]
type Copy<'c> = Memcpy<'c, KVec<u8>, KVec<u8>>;

/// Hands several copies to the engine, and tells it to begin with all of them.
fn start<'c>(
    channel: &'c Channel<'_>,
    sources: KVec<KVec<u8>>,
) -> Result<KVec<Submitted<'c, Copy<'c>>>> {
    let mut copies = KVec::with_capacity(sources.len(), GFP_KERNEL)?;

    for from in sources {
        let to = KVec::from_elem(0, from.len(), GFP_KERNEL)?;
        let from = Streaming::map(channel.mapper(), from)?;
        let to = Streaming::map(channel.mapper(), to)?;

        copies.push(channel.submit(Memcpy::new(from, to))?, GFP_KERNEL)?;
    }

    channel.issue_pending()?;
    Ok(copies)
}
// [end of batching]

// [start of a time-out]
/// Waits for a copy, and if it takes too long, for no copy at all.
fn finish<'c>(
    channel: &Channel<'_>,
    copy: Submitted<'c, Copy<'c>>,
    patience: Delta,
) -> Result<Option<KVec<u8>>> {
    match copy.wait(patience) {
        Ok((_from, to)) => Ok(Some(to.unmap())),
        Err(ErrorWith { error, value: copy }) if error == ETIMEDOUT => {
            // The engine still has the memory, and so has `copy`.
            channel.terminate_sync()?;

            // Now it doesn't. No byte of the target is valid, but the memory is ours.
            let (from, _to) = copy.into_memory().map_err(|_in_flight| EBUSY)?;

            drop(from.unmap());
            Ok(None)
        }
        Err(refused) => Err(refused.error),
    }
}
// [end of a time-out]

// [start of a peripheral]
/// A serial port, of which an engine fills and empties the FIFOs.
struct Port<'a> {
    tx: Channel<'a>,
    rx: Channel<'a>,
    tx_fifo: Peripheral,
    rx_fifo: Peripheral,
}

impl<'a> Port<'a> {
    fn new(dev: &'a Device<Bound>, tx_fifo: Peripheral, rx_fifo: Peripheral) -> Result<Self> {
        Ok(Self {
            tx: Channel::request(dev, c"tx")?,
            rx: Channel::request(dev, c"rx")?,
            tx_fifo,
            rx_fifo,
        })
    }

    /// Sends a message, and gives it back.
    fn send(&self, message: KVec<u8>) -> Result<KVec<u8>> {
        let message = Streaming::<_, ToDevice>::map(self.tx.mapper(), message)?;
        let sent = self.tx.submit(Slave::new(message, self.tx_fifo))?;

        Ok(sent.wait(PATIENCE)?.unmap())
    }

    /// Receives a message, which may be shorter than `max`: the port ends the transfer when the
    /// line is idle.
    fn receive(&self, max: usize) -> Result<KVec<u8>> {
        let buf = KVec::from_elem(0, max, GFP_KERNEL)?;
        let buf = Streaming::<_, FromDevice>::map(self.rx.mapper(), buf)?;
        let received = self
            .rx
            .submit(Slave::new(buf, self.rx_fifo))?
            .wait(PATIENCE)?;

        // As many as the engine says to have moved, and not more than there is room for.
        let len = received.bytes().len();
        let mut bytes = received.unmap();

        bytes.truncate(len);
        Ok(bytes)
    }
}
// [end of a peripheral]

// [start of going round]
/// Records samples until `count` periods of 64 bytes are full, and returns the first of them.
fn record(channel: &Channel<'_>, microphone: Peripheral, count: u64) -> Result<u8> {
    let memory = SharedBox::<[u8; 256]>::new(channel.mapper(), GFP_KERNEL)?;
    let recording = Cyclic::<_, FromDevice>::start(channel, memory.submit(), 64, microphone)?;

    recording.wait_period(count, PATIENCE)?;

    // The engine goes on writing, so this is what it was at some time.
    let sample = dma_read!(&*recording, [build: 0]);

    drop(recording.stop()?);
    sample.at_most(u8::MAX)
}
// [end of going round]

#[kunit_tests(sample_rust_dmaengine)]
mod tests {
    use super::*;

    /// Runs a test with an engine that copies as soon as it is told to, and a device that uses it.
    fn with_engine(test: impl Fn(&Engine, &Device<Bound>) -> Result) -> Result {
        let engine = Engine::new(Features::ALL)?;

        engine.script(Script {
            is_automatic: true,
            ..Script::GOOD
        });
        fixture::with_platform_device(|pdev| test(&engine, pdev.as_ref()))
    }

    fn message(len: usize) -> Result<KVec<u8>> {
        let mut message = KVec::with_capacity(len, GFP_KERNEL)?;

        for n in 0..len {
            // CAST: Cut on purpose.
            message.push((n * 3) as u8, GFP_KERNEL)?;
        }

        Ok(message)
    }

    #[test]
    fn copies() -> Result {
        with_engine(|_, dev| {
            ensure!(copy(dev, message(1024)?)? == message(1024)?);
            Ok(())
        })
    }

    #[test]
    fn batches() -> Result {
        with_engine(|_, dev| {
            let channel = Channel::request_by_mask(dev, Capabilities::MEMCPY)?;
            let mut sources = KVec::new();

            for n in 1..5 {
                sources.push(message(n * 128)?, GFP_KERNEL)?;
            }

            for (n, copy) in start(&channel, sources)?.into_iter().enumerate() {
                ensure!(
                    finish(&channel, copy, PATIENCE)?.is_some_and(|to| to.len() == (n + 1) * 128)
                );
            }
            Ok(())
        })
    }

    #[test]
    fn time_out() -> Result {
        with_engine(|engine, dev| {
            engine.script(Script::GOOD);

            let channel = Channel::request_by_mask(dev, Capabilities::MEMCPY)?;
            let mut sources = KVec::new();

            sources.push(message(128)?, GFP_KERNEL)?;

            for copy in start(&channel, sources)? {
                ensure!(finish(&channel, copy, Delta::from_millis(5))?.is_none());
            }
            Ok(())
        })
    }

    #[test]
    fn port() -> Result {
        with_engine(|engine, dev| {
            let port = Port::new(dev, engine.peripheral(0), engine.peripheral(1))?;

            ensure!(port.send(message(128)?)? == message(128)?);
            ensure!(engine.take_sent(0)? == message(128)?);

            engine.script(Script {
                is_automatic: true,
                ends_after: 50,
                ..Script::GOOD
            });
            ensure!(port
                .receive(128)?
                .iter()
                .copied()
                .eq((0..50).map(Engine::byte)));
            Ok(())
        })
    }

    #[test]
    fn recording() -> Result {
        with_engine(|engine, dev| {
            let channel = Channel::request(dev, c"rx")?;

            ensure!(record(&channel, engine.peripheral(1), 6)? < u8::MAX);
            Ok(())
        })
    }
}
