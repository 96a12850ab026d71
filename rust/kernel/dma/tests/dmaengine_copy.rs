// SPDX-License-Identifier: GPL-2.0

//! KUnit tests of copies in memory, on the machine's DMA engine, or else on one that is software.

use super::{
    super::{
        dmaengine::{
            Capabilities,
            Channel,
            Handler,
            Memcpy, //
        },
        leaked,
        Streaming, //
    },
    dmaengine::{
        copy,
        pattern,
        take_back,
        LEN,
        LONG, //
    },
    ensure,
    fixture::{
        self,
        at_once,
        engine::{
            Engine,
            Features,
            Script, //
        }, //
    }, //
};
use crate::{
    device::{
        Core,
        Device, //
    },
    prelude::*,
    sync::{
        atomic::{
            Atomic,
            Relaxed, //
        },
        Arc, //
    },
    time::{
        delay::fsleep,
        Delta, //
    }, //
};

/// Returns an engine that is software if the machine has none.
fn substitute() -> Result<Option<Engine>> {
    let mut is_needed = false;

    fixture::with_platform_device(|pdev| {
        match Channel::request_by_mask(pdev.as_ref(), Capabilities::MEMCPY) {
            Ok(_) => Ok(()),
            // C says the latter where there is no engine at all.
            Err(e) if [ENODEV, EPROBE_DEFER].contains(&e) => {
                is_needed = true;
                Ok(())
            }
            Err(e) => Err(e),
        }
    })?;

    if !is_needed {
        return Ok(None);
    }

    let engine = Engine::new(Features::ALL)?;

    engine.script(Script {
        is_automatic: true,
        ..Script::GOOD
    });
    Ok(Some(engine))
}

/// Runs a test with a device for which there is an engine.
fn with_engine(body: impl Fn(&Device<Core<'_>>) -> Result) -> Result {
    // It goes after its client.
    let _engine = substitute()?;

    fixture::with_platform_device(|pdev| {
        body(pdev.as_ref()).inspect_err(|e| pr_info!("dma_test: {e:?}\n"))
    })
}

fn with_channel(body: impl Fn(&Channel<'_>) -> Result) -> Result {
    with_engine(|dev| body(&Channel::request_by_mask(dev, Capabilities::MEMCPY)?))
}

/// As [`pattern`], for long ones.
fn bytes(seed: usize, len: usize) -> Result<KVec<u8>> {
    let mut vec = KVec::from_elem(0, len, GFP_KERNEL)?;

    for (n, byte) in vec.iter_mut().enumerate() {
        // CAST: Cut on purpose.
        *byte = (n * 7 + (n >> 8) + seed) as u8;
    }

    Ok(vec)
}

#[kunit_tests(rust_dmaengine_copy)]
mod cases {
    use super::*;

    /// Parts of buffers, small and large: what is meant is copied, and the rest stays.
    #[test]
    fn sizes_and_offsets() -> Result {
        with_channel(|channel| {
            for len in [1, 3, 64, 100, 4095, 4096, 4097, 200_000] {
                for (start, at) in [(0, 0), (1, 0), (0, 1), (64, 192), (63, 130)] {
                    let whole = len + 192;
                    let from = Streaming::map(channel.mapper(), bytes(len, whole)?)?;
                    let to = KVec::from_elem(0xee, whole, GFP_KERNEL)?;
                    let to = Streaming::map(channel.mapper(), to)?;
                    let copy = Memcpy::of(from, start..start + len, to, at);
                    let (from, to) = channel.submit(copy)?.wait(LONG)?;
                    let (from, to) = (from.unmap(), to.unmap());

                    ensure!(from == bytes(len, whole)?);
                    ensure!(to[at..at + len] == from[start..start + len]);
                    ensure!(to[..at].iter().all(|byte| *byte == 0xee));
                    ensure!(to[at + len..].iter().all(|byte| *byte == 0xee));
                }
            }
            Ok(())
        })
    }

    /// Many, begun together, of which some are waited for, and some are asked about.
    #[test]
    fn batches() -> Result {
        with_channel(|channel| {
            for round in 0..8 {
                let mut waited = KVec::new();
                let mut polled = KVec::new();

                for n in 0..8 {
                    let copy = |seed| copy(channel.mapper(), round + seed);

                    waited.push(channel.submit(copy(2 * n)?)?, GFP_KERNEL)?;
                    polled.push(channel.submit_polled(copy(2 * n + 1)?)?, GFP_KERNEL)?;
                }

                channel.issue_pending()?;

                for (n, copy) in polled.into_iter().enumerate() {
                    let copied = copy.wait(LONG)?.1.unmap();

                    ensure!(copied == pattern(round + 2 * n + 1, LEN)?);
                }

                for (n, copy) in waited.into_iter().enumerate() {
                    let copied = copy.wait(LONG)?.1.unmap();

                    ensure!(copied == pattern(round + 2 * n, LEN)?);
                }
            }
            Ok(())
        })
    }

    /// More than fit: those that are refused come back, and there is room again afterwards.
    #[test]
    fn full() -> Result {
        with_channel(|channel| {
            for _ in 0..3 {
                let mut submitted = KVec::new();

                let refused = loop {
                    match channel.submit(copy(channel.mapper(), submitted.len())?) {
                        Ok(one) => submitted.push(one, GFP_KERNEL)?,
                        Err(refused) => break refused,
                    }
                };

                // The channel's places, or the provider's descriptors.
                ensure!([EBUSY, ENOMEM].contains(&refused.error));
                ensure!(submitted.len() >= 16);
                ensure!(take_back(refused.value)?.0 == pattern(submitted.len(), LEN)?);

                for (n, copy) in submitted.into_iter().enumerate() {
                    ensure!(copy.wait(LONG)?.1.unmap() == pattern(n, LEN)?);
                }
            }
            Ok(())
        })
    }

    /// Copies that nobody said to begin, and that are terminated: the memory comes back. Some
    /// providers begin when what came before is done.
    #[test]
    fn terminated_before() -> Result {
        with_channel(|channel| {
            for _ in 0..20 {
                let one = channel.submit(copy(channel.mapper(), 1)?)?;
                let two = channel.submit_polled(copy(channel.mapper(), 2)?)?;

                channel.terminate_sync()?;

                for (seed, copy) in [(1, one), (2, two)] {
                    let (from, to) = copy.into_memory().map_err(|_| EBUSY)?;
                    let to = to.unmap();

                    ensure!(from.unmap() == pattern(seed, LEN)?);
                    ensure!(to.iter().all(|byte| *byte == 0xee) || to == pattern(seed, LEN)?);
                }

                let third = channel.submit(copy(channel.mapper(), 3)?)?;
                ensure!(third.wait(LONG)?.1.unmap() == pattern(3, LEN)?);
            }
            Ok(())
        })
    }

    /// Copies that are terminated at work: the memory comes back, and nobody writes to it any more.
    #[test]
    fn terminated_at_work() -> Result {
        with_engine(|dev| {
            for round in 0..20 {
                // A channel each time: not every provider's goes on after that.
                let channel = Channel::request_by_mask(dev, Capabilities::MEMCPY)?;
                let mut back = KVec::new();
                let mut submitted = KVec::new();

                for n in 0..8 {
                    let copy = copy(channel.mapper(), round + n)?;

                    submitted.push(channel.submit(copy)?, GFP_KERNEL)?;
                }

                channel.issue_pending()?;
                channel.terminate_sync()?;

                for copy in submitted {
                    let (_, to) = copy.into_memory().map_err(|_| EBUSY)?;
                    let mut to = to.unmap();

                    to.fill(0x11);
                    back.push(to, GFP_KERNEL)?;
                }

                fsleep(Delta::from_millis(1));
                ensure!(back.iter().flatten().all(|byte| *byte == 0x11));
            }
            Ok(())
        })
    }

    /// What nobody waits for is freed when its channel is released.
    #[test]
    fn dropped() -> Result {
        let before = leaked();

        with_engine(|dev| {
            for round in 0..20 {
                let channel = Channel::request_by_mask(dev, Capabilities::MEMCPY)?;

                for n in 0..8 {
                    drop(channel.submit(copy(channel.mapper(), round + n)?)?);
                    channel.issue_pending()?;
                }
            }
            Ok(())
        })?;

        ensure!(leaked() == before);
        Ok(())
    }

    /// Two channels at the same time, by two threads.
    #[test]
    fn two_channels() -> Result {
        with_engine(|dev| {
            let one = Channel::request_by_mask(dev, Capabilities::MEMCPY)?;
            let other = Channel::request_by_mask(dev, Capabilities::MEMCPY)?;

            let work = |channel: &Channel<'_>, seed: usize| -> Result {
                for n in 0..50 {
                    let first = channel.submit(copy(channel.mapper(), seed + n)?)?;
                    let second = channel.submit(copy(channel.mapper(), seed + n + 1)?)?;

                    ensure!(second.wait(LONG)?.1.unmap() == pattern(seed + n + 1, LEN)?);
                    ensure!(first.wait(LONG)?.1.unmap() == pattern(seed + n, LEN)?);
                }
                Ok(())
            };

            at_once(|| work(&one, 0), || work(&other, 100))
        })
    }

    /// Counts how often it is called.
    struct Counter(Arc<Atomic<usize>>);

    impl Handler for Counter {
        fn called_back(&self) {
            self.0.fetch_add(1, Relaxed);
        }
    }

    /// A handler is called for each copy that is done, in the provider's context.
    #[test]
    fn handled() -> Result {
        let calls = Arc::new(Atomic::new(0_usize), GFP_KERNEL)?;

        with_engine(|dev| {
            let channel = Channel::request_by_mask(dev.bound(), Capabilities::MEMCPY)?
                .lend_with(dev, Counter(calls.clone()))?;

            for n in 0..100 {
                let copy = channel.submit(copy(channel.mapper(), n)?)?;

                ensure!(copy.wait(LONG)?.1.unmap() == pattern(n, LEN)?);
            }

            // Who waits is woken before.
            for _ in 0..1000 {
                if calls.load(Relaxed) == 100 {
                    break;
                }
                fsleep(Delta::from_millis(1));
            }

            ensure!(calls.xchg(0, Relaxed) == 100);
            Ok(())
        })
    }
}
