// SPDX-License-Identifier: GPL-2.0

//! KUnit tests of channels, on an engine that is software.

use super::{
    super::{
        dma_read,
        dmaengine::{
            Capabilities,
            Channel,
            Cyclic,
            Handler,
            Memcpy,
            Slave,
            SlaveList,
            Status,
            Submitted, //
        },
        leaked,
        quarantined,
        session::quarantine::reclaimed,
        Constraints,
        DmaMask,
        FromDevice,
        Mapper,
        Pages,
        ScatterMap,
        SharedBox,
        Streaming,
        ToDevice, //
    },
    ensure,
    fixture::{
        self,
        at_once,
        engine::{
            Engine,
            Features,
            Script,
            Terminate,
            Verdict, //
        },
        free_forgotten, //
    }, //
};
use crate::{
    bindings,
    device::{
        Bound,
        Core,
        Device, //
    },
    platform,
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
        Delta,
        Instant,
        Monotonic, //
    }, //
};

/// Large enough for cache lines of its own on any machine.
pub(super) const LEN: usize = 1024;

/// Nothing happens meanwhile.
const SOON: Delta = Delta::from_millis(5);

/// Something happens before.
pub(super) const LONG: Delta = Delta::from_secs(10);

pub(super) const TX: usize = 0;

pub(super) type Copy<'c> = Memcpy<'c, KVec<u8>, KVec<u8>>;

pub(super) fn pattern(seed: usize, len: usize) -> Result<KVec<u8>> {
    let mut vec = KVec::with_capacity(len, GFP_KERNEL)?;

    for n in 0..len {
        // CAST: Cut on purpose.
        vec.push((n * 5 + seed * 31 + 1) as u8, GFP_KERNEL)?;
    }

    Ok(vec)
}

pub(super) fn copy(mapper: Mapper<'_>, seed: usize) -> Result<Copy<'_>> {
    Ok(Memcpy::new(
        Streaming::map(mapper, pattern(seed, LEN)?)?,
        Streaming::map(mapper, KVec::from_elem(0xee, LEN, GFP_KERNEL)?)?,
    ))
}

/// Returns both buffers of a copy that the engine doesn't know, as they were.
pub(super) fn take_back(copy: Copy<'_>) -> Result<(KVec<u8>, KVec<u8>)> {
    let (from, to) = copy.into_buffers();

    Ok((
        from.take_back().map_err(|_| EBUSY)?.unmap(),
        to.take_back().map_err(|_| EBUSY)?.unmap(),
    ))
}

fn with_device(
    features: Features,
    body: impl Fn(&Engine, &platform::Device<Core<'_>>) -> Result,
) -> Result {
    let engine = Engine::new(features)?;

    fixture::with_platform_device(|pdev| {
        body(&engine, pdev).inspect_err(|e| pr_info!("dma_test: {e:?}\n"))
    })?;

    // Whatever the test did, no channel was released with transfers in flight.
    ensure!(engine.released().1 == 0);
    Ok(())
}

pub(super) fn with_channel(body: impl Fn(&Engine, &Channel<'_>) -> Result) -> Result {
    with_device(Features::ALL, |engine, pdev| {
        let channel = Channel::request(pdev.as_ref(), c"tx")?;

        body(engine, &channel)
    })
}

#[kunit_tests(rust_dmaengine)]
mod channels {
    use super::*;

    /// A channel is had by one, and released when it is dropped.
    #[test]
    fn requests() -> Result {
        with_device(Features::ALL, |engine, pdev| {
            let dev = pdev.as_ref();
            let by_name = Channel::request(dev, c"rx")?;

            ensure!(Channel::request(dev, c"rx").is_err_and(|e| e == EPROBE_DEFER));
            ensure!(Channel::request(dev, c"other").is_err_and(|e| e == EPROBE_DEFER));

            let by_mask = Channel::request_by_mask(
                dev,
                Capabilities::MEMCPY | Capabilities::SLAVE | Capabilities::CYCLIC,
            )?;

            ensure!(Channel::request_by_mask(dev, Capabilities::MEMCPY).is_err());
            ensure!(engine.released().0 == 0);
            drop(by_mask);
            ensure!(engine.released().0 == 1);
            drop(Channel::request_by_mask(dev, Capabilities::MEMCPY)?);
            ensure!(engine.released().0 == 2);
            drop(by_name);
            ensure!(engine.released().0 == 3);
            Ok(())
        })?;

        let incapable = Features {
            cyclic: false,
            ..Features::ALL
        };

        with_device(incapable, |_, pdev| {
            let none = Channel::request_by_mask(pdev.as_ref(), Capabilities::CYCLIC);

            ensure!(none.is_err_and(|e| e == ENODEV));
            Ok(())
        })
    }

    /// A provider with a record of its own: what its session proves isn't what a channel's
    /// termination does, so both can't have the device.
    #[test]
    fn provider_with_a_session() -> Result {
        let recorded = Features {
            record: true,
            ..Features::ALL
        };

        with_device(recorded, |engine, pdev| {
            let dev = pdev.as_ref();

            ensure!(Channel::request(dev, c"tx").is_err_and(|e| e == EBUSY));
            ensure!(engine.released().0 == 1);
            ensure!(Channel::request_by_mask(dev, Capabilities::MEMCPY).is_err_and(|e| e == EBUSY));
            ensure!(engine.released().0 == 2);
            Ok(())
        })
    }

    /// A provider of which cookies don't say which transfers are over.
    #[test]
    fn provider_without_order() -> Result {
        let disorderly = Features {
            in_order: false,
            ..Features::ALL
        };

        with_device(disorderly, |engine, pdev| {
            let refused = Channel::request(pdev.as_ref(), c"tx");

            ensure!(refused.is_err_and(|e| e == EOPNOTSUPP));
            ensure!(engine.released().0 == 1);
            Ok(())
        })
    }

    /// Without a mask nothing can be mapped.
    #[test]
    fn without_a_mask() -> Result {
        let maskless = Features {
            mask: false,
            ..Features::ALL
        };

        with_device(maskless, |engine, pdev| {
            let none = Channel::request_by_mask(pdev.as_ref(), Capabilities::MEMCPY);

            ensure!(none.is_err_and(|e| e == EIO));
            ensure!(engine.released().0 == 1);
            Ok(())
        })
    }

    /// Parts of buffers: what is meant is copied, and the rest stays.
    #[test]
    fn sizes_and_offsets() -> Result {
        with_channel(|engine, channel| {
            for (start, len, at) in [
                (0, LEN, 0),
                (0, 1, 0),
                (LEN - 1, 1, LEN - 1),
                (3, 100, 900),
                (512, 512, 1),
            ] {
                let from = Streaming::map(channel.mapper(), pattern(start, LEN)?)?;
                let to = Streaming::map(channel.mapper(), pattern(99, LEN)?)?;
                let copy = channel.submit(Memcpy::of(from, start..start + len, to, at))?;

                channel.issue_pending()?;
                engine.run(TX)?;

                let (from, to) = copy.wait(LONG)?;
                let expected = &pattern(start, LEN)?[start..start + len];

                ensure!(from.bytes() == expected && to.bytes() == expected);
                ensure!(from.unmap() == pattern(start, LEN)?);

                let (to, before) = (to.unmap(), pattern(99, LEN)?);

                ensure!(to[..at] == before[..at] && to[at + len..] == before[at + len..]);
                ensure!(&to[at..at + len] == expected);
            }
            Ok(())
        })
    }

    /// Several transfers, begun together, are done in order.
    #[test]
    fn batches() -> Result {
        with_channel(|engine, channel| {
            let first = channel.submit(copy(channel.mapper(), 1)?)?;
            let second = channel.submit(copy(channel.mapper(), 2)?)?;

            ensure!(first.cookie() != second.cookie());
            ensure!(engine.pending(TX)? == (2, 0));
            ensure!(engine.advance(TX, LEN)? == 0);
            channel.issue_pending()?;
            ensure!(engine.pending(TX)? == (2, 2));
            ensure!(engine.advance(TX, LEN)? == LEN);

            let Err(second) = second.poll() else {
                return Err(EINVAL);
            };
            ensure!(second.error == EINPROGRESS);
            ensure!(first.poll()?.1.unmap() == pattern(1, LEN)?);

            engine.run(TX)?;
            ensure!(second.value.poll()?.1.unmap() == pattern(2, LEN)?);
            Ok(())
        })
    }

    /// Who waits tells the engine to begin.
    #[test]
    fn waiting_begins() -> Result {
        with_channel(|engine, channel| {
            engine.script(Script {
                is_automatic: true,
                ..Script::GOOD
            });

            let copied = channel.submit(copy(channel.mapper(), 1)?)?.wait(LONG)?.1;

            ensure!(copied.unmap() == pattern(1, LEN)?);
            Ok(())
        })
    }

    /// Memory of somebody else, or outside of buffers, is refused, and comes back.
    #[test]
    fn foreign_memory() -> Result {
        with_device(Features::ALL, |engine, pdev| {
            let dev = pdev.as_ref();
            let own = fixture::open(dev)?;
            let channel = Channel::request(dev, c"tx")?;
            let other = Channel::request(dev, c"rx")?;

            for (from, to) in [
                (own, channel.mapper()),
                (channel.mapper(), own),
                (other.mapper(), channel.mapper()),
                (channel.mapper(), other.mapper()),
            ] {
                let mixed = Memcpy::new(
                    Streaming::map(from, pattern(1, LEN)?)?,
                    Streaming::map(to, pattern(2, LEN)?)?,
                );
                let Err(refused) = channel.submit(mixed) else {
                    return Err(EINVAL);
                };

                ensure!(refused.error == EINVAL);
                ensure!(take_back(refused.value)? == (pattern(1, LEN)?, pattern(2, LEN)?));
            }

            for (range, at) in [
                (0..LEN + 1, 0),
                (0..0, 0),
                (1..LEN, 2),
                (0..LEN, usize::MAX),
            ] {
                let outside = Memcpy::of(
                    Streaming::map(channel.mapper(), pattern(1, LEN)?)?,
                    range,
                    Streaming::map(channel.mapper(), pattern(2, LEN)?)?,
                    at,
                );
                let Err(refused) = channel.submit(outside) else {
                    return Err(EINVAL);
                };

                ensure!(refused.error == EINVAL);
                take_back(refused.value)?;
            }

            let buf = Streaming::<_, ToDevice>::map(other.mapper(), pattern(1, LEN)?)?;
            let slave = Slave::new(buf, engine.peripheral(TX));
            ensure!(channel.submit(slave).is_err_and(|e| e.error == EINVAL));

            let list = ScatterMap::<_, ToDevice>::map(own, pages(2)?, GFP_KERNEL)?;
            let slave = SlaveList::new(list, engine.peripheral(TX));
            ensure!(channel.submit(slave).is_err_and(|e| e.error == EINVAL));

            let memory = SharedBox::<[u8; LEN]>::new(other.mapper(), GFP_KERNEL)?.submit();
            let fifo = engine.peripheral(TX);
            let started = Cyclic::<_, FromDevice>::start(&channel, memory, LEN, fifo);
            ensure!(started.is_err_and(|e| e.error == EINVAL));

            ensure!(engine.pending(TX)? == (0, 0));
            Ok(())
        })
    }

    /// Memory whose address somebody has may be in flight elsewhere.
    #[test]
    fn shown_memory() -> Result {
        with_channel(|engine, channel| {
            let before = quarantined();
            let shown = copy(channel.mapper(), 1)?;
            let (from, to) = shown.into_buffers();

            let _ = to.address();
            let refused = channel.submit(Memcpy::new(from, to));
            ensure!(refused.is_err_and(|e| e.error == EINVAL));
            ensure!(quarantined() == before + 1);

            let buf = Streaming::<_, ToDevice>::map(channel.mapper(), pattern(1, LEN)?)?;
            let _ = buf.address();
            let refused = channel.submit(Slave::new(buf, engine.peripheral(TX)));
            ensure!(refused.is_err_and(|e| e.error == EINVAL));
            ensure!(quarantined() == before + 2);

            let list = ScatterMap::<_, ToDevice>::map(channel.mapper(), pages(2)?, GFP_KERNEL)?;
            let _ = list.segments();
            let refused = channel.submit(SlaveList::new(list, engine.peripheral(TX)));
            ensure!(refused.is_err_and(|e| e.error == EINVAL));
            ensure!(quarantined() == before + 3);

            let memory = SharedBox::<[u8; LEN]>::new(channel.mapper(), GFP_KERNEL)?.submit();
            let _ = memory.address();
            let fifo = engine.peripheral(TX);
            let refused = Cyclic::<_, FromDevice>::start(channel, memory, LEN, fifo);
            ensure!(refused.is_err_and(|e| e.error == EINVAL));
            ensure!(quarantined() == before + 4);
            Ok(())
        })
    }

    /// Engines may want copies to be aligned.
    #[test]
    fn alignment() -> Result {
        let choosy = Features {
            copy_align: 3,
            ..Features::ALL
        };

        with_device(choosy, |engine, pdev| {
            let channel = Channel::request(pdev.as_ref(), c"tx")?;

            for (range, at, fits) in [
                (0..64, 8, true),
                (8..64, 0, true),
                (4..64, 0, false),
                (0..64, 1, false),
                (0..63, 0, false),
            ] {
                let part = Memcpy::of(
                    Streaming::map(channel.mapper(), pattern(1, LEN)?)?,
                    range,
                    Streaming::map(channel.mapper(), pattern(2, LEN)?)?,
                    at,
                );

                match channel.submit(part) {
                    Ok(copy) => {
                        ensure!(fits);
                        channel.issue_pending()?;
                        engine.run(TX)?;
                        drop(copy.poll()?);
                    }
                    Err(refused) => {
                        ensure!(!fits && refused.error == EINVAL);
                        take_back(refused.value)?;
                    }
                }
            }
            Ok(())
        })
    }

    /// A provider that refuses: the memory comes back each time, and so does the place.
    #[test]
    fn refusals() -> Result {
        with_channel(|engine, channel| {
            for (script, error) in [
                (
                    Script {
                        fails_to_prepare: true,
                        ..Script::GOOD
                    },
                    ENOMEM,
                ),
                (
                    Script {
                        fails_to_submit: true,
                        ..Script::GOOD
                    },
                    EIO,
                ),
            ] {
                engine.script(script);

                for seed in 0..100 {
                    let Err(refused) = channel.submit(copy(channel.mapper(), seed)?) else {
                        return Err(EINVAL);
                    };

                    ensure!(refused.error == error);
                    ensure!(take_back(refused.value)?.0 == pattern(seed, LEN)?);
                }

                let buf = Streaming::<_, ToDevice>::map(channel.mapper(), pattern(1, LEN)?)?;
                let slave = Slave::new(buf, engine.peripheral(TX));
                let Err(refused) = channel.submit(slave) else {
                    return Err(EINVAL);
                };
                let buf = refused.value.into_buffer().take_back().map_err(|_| EBUSY)?;
                ensure!(buf.unmap() == pattern(1, LEN)?);

                let list = ScatterMap::<_, ToDevice>::map(channel.mapper(), pages(2)?, GFP_KERNEL)?;
                let slave = SlaveList::new(list, engine.peripheral(TX));
                let Err(refused) = channel.submit(slave) else {
                    return Err(EINVAL);
                };
                ensure!(refused.value.into_inner().take_back().is_ok());

                let memory = SharedBox::<[u8; LEN]>::new(channel.mapper(), GFP_KERNEL)?.submit();
                let fifo = engine.peripheral(TX);
                let Err(refused) = Cyclic::<_, FromDevice>::start(channel, memory, LEN, fifo)
                else {
                    return Err(EINVAL);
                };
                ensure!(refused.error == error && refused.value.take_back().is_ok());
            }

            engine.script(Script::GOOD);
            ensure!(engine.pending(TX)? == (0, 0));
            drop(channel.submit(copy(channel.mapper(), 1)?)?);
            Ok(())
        })
    }

    /// What the channel isn't for.
    #[test]
    fn incapable() -> Result {
        let copies = Features {
            slave: false,
            cyclic: false,
            ..Features::ALL
        };

        with_device(copies, |engine, pdev| {
            let channel = Channel::request_by_mask(pdev.as_ref(), Capabilities::MEMCPY)?;
            let fifo = engine.peripheral(TX);

            let buf = Streaming::<_, ToDevice>::map(channel.mapper(), pattern(1, LEN)?)?;
            let refused = channel.submit(Slave::new(buf, fifo));
            ensure!(refused.is_err_and(|e| e.error == EOPNOTSUPP));

            let list = ScatterMap::<_, ToDevice>::map(channel.mapper(), pages(2)?, GFP_KERNEL)?;
            let refused = channel.submit(SlaveList::new(list, fifo));
            ensure!(refused.is_err_and(|e| e.error == EOPNOTSUPP));

            let memory = SharedBox::<[u8; LEN]>::new(channel.mapper(), GFP_KERNEL)?.submit();
            let refused = Cyclic::<_, FromDevice>::start(&channel, memory, LEN, fifo);
            ensure!(refused.is_err_and(|e| e.error == EOPNOTSUPP));
            Ok(())
        })?;

        let serves = Features {
            memcpy: false,
            ..Features::ALL
        };

        with_device(serves, |_, pdev| {
            let channel = Channel::request(pdev.as_ref(), c"tx")?;
            let refused = channel.submit(copy(channel.mapper(), 1)?);

            ensure!(refused.is_err_and(|e| e.error == EOPNOTSUPP));
            Ok(())
        })
    }

    fn is_in_flight<'c>(copy: Submitted<'c, Copy<'c>>) -> Result<Submitted<'c, Copy<'c>>> {
        match copy.into_memory() {
            Ok(_) => Err(EINVAL),
            Err(copy) => Ok(copy),
        }
    }

    /// Returns for how many transfers there are places. They are submitted, and dropped.
    fn room(channel: &Channel<'_>) -> Result<usize> {
        let mut copies = KVec::new();

        while let Ok(copy) = channel.submit(copy(channel.mapper(), 1)?) {
            copies.push(copy, GFP_KERNEL)?;
        }

        Ok(copies.len())
    }

    /// Transfers are terminated in each phase. Only then the memory comes back.
    #[test]
    fn terminating() -> Result {
        with_channel(|engine, channel| {
            let before = quarantined();

            // Submitted; told to begin; half done.
            for phase in 0..3 {
                for polled in [false, true] {
                    let copy = copy(channel.mapper(), phase)?;
                    let mut copy = if polled {
                        channel.submit_polled(copy)?
                    } else {
                        channel.submit(copy)?
                    };

                    if phase > 0 {
                        channel.issue_pending()?;
                    }
                    if phase > 1 {
                        ensure!(engine.advance(TX, LEN / 2)? == LEN / 2);
                    }

                    copy = is_in_flight(copy)?;
                    channel.terminate_sync()?;
                    ensure!(engine.pending(TX)? == (0, 0));
                    ensure!(matches!(copy.status(), Status::Error));

                    let Err(refused) = copy.wait(LONG) else {
                        return Err(EINVAL);
                    };
                    ensure!(refused.error == ECANCELED);

                    let (from, to) = refused.value.into_memory().map_err(|_| EBUSY)?;
                    ensure!(from.bytes().is_empty() && to.bytes().is_empty());
                    ensure!(from.unmap() == pattern(phase, LEN)?);
                    drop(to.unmap());
                }
            }

            // Done, and not looked at yet.
            let copy = channel.submit(copy(channel.mapper(), 7)?)?;
            channel.issue_pending()?;
            engine.run(TX)?;
            channel.terminate_sync()?;

            match copy.poll() {
                Ok(_) => return Err(EINVAL),
                Err(refused) => ensure!(refused.error == ECANCELED),
            }

            ensure!(quarantined() == before);
            Ok(())
        })
    }

    /// A transfer that was terminated isn't taken for another one in its place, nor the other for
    /// it.
    #[test]
    fn places_of_terminated_transfers() -> Result {
        with_channel(|engine, channel| {
            for polled in [false, true] {
                let mut ended = KVec::new();
                let mut others = KVec::new();

                for seed in 0..8 {
                    let copy = copy(channel.mapper(), seed)?;
                    let copy = if polled {
                        channel.submit_polled(copy)?
                    } else {
                        channel.submit(copy)?
                    };

                    ended.push(copy, GFP_KERNEL)?;
                }

                channel.terminate_sync()?;

                for seed in 0..64 {
                    others.push(channel.submit(copy(channel.mapper(), seed)?)?, GFP_KERNEL)?;
                }

                channel.issue_pending()?;
                engine.run(TX)?;

                for copy in ended {
                    let Err(refused) = copy.poll() else {
                        return Err(EINVAL);
                    };

                    ensure!(refused.error == ECANCELED);
                    ensure!(refused.value.into_memory().is_ok());
                }

                // All places are taken, still.
                ensure!(channel.submit(copy(channel.mapper(), 1)?).is_err());

                for (seed, copy) in others.into_iter().enumerate() {
                    ensure!(copy.poll()?.1.unmap() == pattern(seed, LEN)?);
                }
            }
            Ok(())
        })
    }

    /// A thread that waits is told.
    #[test]
    fn terminating_while_waiting() -> Result {
        with_channel(|engine, channel| {
            let copy = channel.submit(copy(channel.mapper(), 1)?)?;
            let start = Instant::<Monotonic>::now();

            at_once(
                || {
                    while engine.pending(TX)?.1 == 0 {
                        fsleep(Delta::from_millis(1));
                    }

                    channel.terminate_sync()
                },
                || {
                    ensure!(copy.wait(LONG).is_err_and(|e| e.error == ECANCELED));
                    Ok(())
                },
            )?;

            // It was woken, and didn't find out by itself.
            ensure!(start.elapsed() < LONG);
            Ok(())
        })
    }

    /// A terminate that fails proves nothing; nothing more is told to the engine.
    #[test]
    fn terminate_fails() -> Result {
        with_channel(|engine, channel| {
            let first = channel.submit(copy(channel.mapper(), 1)?)?;

            channel.issue_pending()?;
            engine.script(Script {
                terminate: Terminate::Fails,
                ..Script::GOOD
            });
            ensure!(channel.terminate_sync() == Err(EIO));
            ensure!(channel.issue_pending() == Err(ESHUTDOWN));

            let Err(refused) = channel.submit(copy(channel.mapper(), 2)?) else {
                return Err(EINVAL);
            };
            ensure!(refused.error == ESHUTDOWN);
            take_back(refused.value)?;

            // It goes on, and is done.
            let first = is_in_flight(first)?;
            engine.run(TX)?;
            ensure!(first.poll()?.1.unmap() == pattern(1, LEN)?);

            engine.script(Script::GOOD);
            channel.terminate_sync()?;
            drop(channel.submit(copy(channel.mapper(), 2)?)?);
            Ok(())
        })
    }

    /// A provider that can't terminate.
    #[test]
    fn cannot_terminate() -> Result {
        let endless = Features {
            terminate: false,
            ..Features::ALL
        };

        with_device(endless, |engine, pdev| {
            let channel = Channel::request_by_mask(pdev.as_ref(), Capabilities::MEMCPY)?;
            let copied = channel.submit(copy(channel.mapper(), 1)?)?;

            ensure!(channel.terminate_sync() == Err(EOPNOTSUPP));
            channel.issue_pending()?;
            drop(is_in_flight(copied)?);

            // The release waits until the engine is done.
            at_once(
                || {
                    fsleep(Delta::from_millis(20));
                    engine.run(TX)
                },
                || {
                    drop(channel);
                    ensure!(engine.pending(TX)? == (0, 0));
                    ensure!(engine.released() == (1, 0));
                    Ok(())
                },
            )
        })
    }

    /// One that can't, and a transfer that doesn't end: the channel isn't released.
    #[test]
    fn leaking() -> Result {
        let endless = Features {
            terminate: false,
            ..Features::ALL
        };

        with_device(endless, |engine, pdev| {
            let before = leaked();

            for polled in [false, true] {
                let channel = Channel::request_by_mask(pdev.as_ref(), Capabilities::MEMCPY)?;
                let copy = copy(channel.mapper(), 1)?;

                if polled {
                    drop(channel.submit_polled(copy)?);
                } else {
                    drop(channel.submit(copy)?);
                }

                channel.issue_pending()?;
                ensure!(engine.pending(TX)? == (1, 1));
                drop(channel);
                ensure!(engine.released() == (usize::from(polled), 0));

                // It is done later, and calls back. Then the channel can be released for the next.
                engine.run(TX)?;
                engine.release(TX)?;
            }

            // Two buffers each.
            ensure!(leaked() == before + 4);
            Ok(())
        })
    }

    /// After a time-out the memory is still in flight, and the transfer goes on.
    #[test]
    fn time_outs() -> Result {
        with_channel(|engine, channel| {
            for polled in [false, true] {
                let copy = copy(channel.mapper(), 1)?;
                let copy = if polled {
                    channel.submit_polled(copy)?
                } else {
                    channel.submit(copy)?
                };

                let Err(late) = copy.wait(SOON) else {
                    return Err(EINVAL);
                };
                ensure!(late.error == ETIMEDOUT);

                let Err(late) = late.value.wait(Delta::ZERO) else {
                    return Err(EINVAL);
                };
                let copy = is_in_flight(late.value)?;
                engine.run(TX)?;
                ensure!(copy.wait(Delta::ZERO)?.1.unmap() == pattern(1, LEN)?);
            }
            Ok(())
        })
    }

    /// What is dropped in flight stays as long as the engine may access it.
    #[test]
    fn dropped_in_flight() -> Result {
        let freed = reclaimed();

        with_channel(|engine, channel| {
            let before = quarantined();

            drop(channel.submit(copy(channel.mapper(), 1)?)?);
            ensure!(quarantined() == before + 2);
            drop(channel.submit_polled(copy(channel.mapper(), 2)?)?);
            ensure!(quarantined() == before + 4);
            channel.issue_pending()?;
            engine.run(TX)?;
            channel.terminate_sync()?;
            ensure!(reclaimed() == freed + 4);

            // One that is over is freed at once.
            let done = channel.submit(copy(channel.mapper(), 3)?)?;
            channel.issue_pending()?;
            engine.run(TX)?;
            drop(done);
            ensure!(quarantined() == before + 4);

            // And one that was terminated.
            let ended = channel.submit(copy(channel.mapper(), 4)?)?;
            channel.terminate_sync()?;
            drop(ended);
            ensure!(quarantined() == before + 4);

            // The rest is up to the release.
            drop(channel.submit(copy(channel.mapper(), 5)?)?);
            channel.issue_pending()?;
            ensure!(engine.advance(TX, LEN / 2)? == LEN / 2);
            ensure!(quarantined() == before + 6);
            ensure!(reclaimed() == freed + 4);
            Ok(())
        })?;

        ensure!(reclaimed() == freed + 6);
        Ok(())
    }

    /// There are 64 places, which are taken while the engine may call back.
    #[test]
    fn places() -> Result {
        with_channel(|engine, channel| {
            let fill = || -> Result {
                let mut copies = KVec::new();

                for seed in 0..64 {
                    copies.push(channel.submit(copy(channel.mapper(), seed)?)?, GFP_KERNEL)?;
                }

                let Err(refused) = channel.submit(copy(channel.mapper(), 64)?) else {
                    return Err(EINVAL);
                };
                ensure!(refused.error == EBUSY);
                take_back(refused.value)?;

                channel.issue_pending()?;
                ensure!(engine.advance(TX, LEN)? == LEN);

                // Done is not taken back yet.
                ensure!(channel.submit(copy(channel.mapper(), 64)?).is_err());
                ensure!(copies.remove(0).map_err(|_| EINVAL)?.poll().is_ok());
                copies.push(channel.submit(copy(channel.mapper(), 64)?)?, GFP_KERNEL)?;
                Ok(())
            };

            // They were dropped in flight. When the engine has called back, the places are free.
            fill()?;
            channel.issue_pending()?;
            engine.run(TX)?;
            fill()?;

            // Or when they were terminated.
            channel.terminate_sync()?;
            fill()
        })
    }

    /// A transfer that is forgotten leaks its memory. Its place comes back when it is terminated.
    #[test]
    fn forgotten() -> Result {
        with_channel(|engine, channel| {
            for is_done in [false, true] {
                let (from, to) = (pattern(1, LEN)?, pattern(2, LEN)?);
                let pointers = (from.as_ptr(), to.as_ptr());
                let copy: Copy<'_> = Memcpy::new(
                    Streaming::map(channel.mapper(), from)?,
                    Streaming::map(channel.mapper(), to)?,
                );

                core::mem::forget(channel.submit(copy)?);

                if is_done {
                    channel.issue_pending()?;
                    engine.run(TX)?;
                }

                ensure!(room(channel)? == 63);
                channel.terminate_sync()?;
                ensure!(room(channel)? == 64);
                channel.terminate_sync()?;

                // SAFETY: They were forgotten, and all transfers were terminated.
                unsafe {
                    free_forgotten(pointers.0);
                    free_forgotten(pointers.1);
                }
            }
            Ok(())
        })
    }

    /// What the hardware says is checked, and what failed is no data.
    #[test]
    fn lies() -> Result {
        with_channel(|engine, channel| {
            // CAST: A small number.
            const ALL: u32 = LEN as u32;

            for (residue, verdict, expected) in [
                (0, Verdict::Good, Ok(LEN)),
                (1, Verdict::Good, Ok(LEN - 1)),
                (ALL, Verdict::Good, Ok(0)),
                (ALL + 1, Verdict::Good, Err(EIO)),
                (u32::MAX, Verdict::Good, Err(EIO)),
                (0, Verdict::ReadFailed, Err(EIO)),
                (0, Verdict::Aborted, Err(ECANCELED)),
            ] {
                engine.script(Script {
                    residue: Some(residue),
                    verdict,
                    ..Script::GOOD
                });

                let buf = Streaming::<_, ToDevice>::map(channel.mapper(), pattern(1, LEN)?)?;
                let sent = channel.submit(Slave::new(buf, engine.peripheral(TX)))?;

                channel.issue_pending()?;

                match sent.status() {
                    Status::InProgress(left) => {
                        ensure!(verdict != Verdict::ReadFailed);
                        ensure!(left == residue as usize);
                    }
                    Status::Error => ensure!(verdict == Verdict::ReadFailed),
                    _ => return Err(EINVAL),
                }

                engine.run(TX)?;

                match (sent.poll(), expected) {
                    (Ok(buf), Ok(moved)) => ensure!(buf.bytes() == &pattern(1, LEN)?[..moved]),
                    (Err(failed), Err(error)) => {
                        ensure!(failed.error == error);

                        let buf = failed.value.into_memory().map_err(|_| EBUSY)?;
                        ensure!(buf.bytes().is_empty());
                        ensure!(buf.unmap() == pattern(1, LEN)?);
                    }
                    _ => return Err(EINVAL),
                }
            }
            Ok(())
        })
    }

    /// A provider that calls back too often, or never.
    #[test]
    fn odd_calls() -> Result {
        with_channel(|engine, channel| {
            engine.script(Script {
                calls: 3,
                ..Script::GOOD
            });

            let first = channel.submit(copy(channel.mapper(), 1)?)?;
            let other = channel.submit(copy(channel.mapper(), 2)?)?;

            channel.issue_pending()?;
            ensure!(engine.advance(TX, LEN)? == LEN);
            ensure!(first.poll()?.1.unmap() == pattern(1, LEN)?);

            // Not this one.
            let other = is_in_flight(other)?;
            drop(other);
            ensure!(engine.advance(TX, LEN)? == LEN);

            // The second call found a place that was free, and stays so.
            ensure!(room(channel)? == 64);
            channel.terminate_sync()?;

            engine.script(Script {
                calls: 0,
                ..Script::GOOD
            });

            let copy = channel.submit(copy(channel.mapper(), 3)?)?;

            channel.issue_pending()?;
            engine.run(TX)?;
            ensure!(matches!(copy.status(), Status::Complete));

            let Err(late) = copy.wait(SOON) else {
                return Err(EINVAL);
            };
            ensure!(late.error == ETIMEDOUT);

            let copy = is_in_flight(late.value)?;
            channel.terminate_sync()?;
            ensure!(copy.into_memory().is_ok());
            Ok(())
        })
    }

    /// While transfers are being terminated, a provider may say that they are complete, though the
    /// hardware isn't at rest: it isn't believed.
    #[test]
    fn polled_while_terminating() -> Result {
        with_channel(|engine, channel| {
            let copy = channel.submit_polled(copy(channel.mapper(), 1)?)?;

            channel.issue_pending()?;
            ensure!(engine.advance(TX, LEN / 2)? == LEN / 2);

            let moving = engine.keep_moving(TX)?;
            let mut kept = None;

            at_once(
                || channel.terminate_sync(),
                || {
                    // Until the provider takes it for complete.
                    while engine.pending(TX)? != (0, 0) {
                        fsleep(Delta::from_micros(100));
                    }

                    let copy = is_in_flight(copy);

                    drop(moving);
                    kept = Some(copy?);
                    Ok(())
                },
            )?;

            let Err(over) = kept.ok_or(EINVAL)?.poll() else {
                return Err(EINVAL);
            };

            ensure!(over.error == ECANCELED);
            ensure!(over.value.into_memory().is_ok());
            Ok(())
        })
    }

    /// A provider that calls back when the transfer was terminated doesn't complete the one that
    /// has its place by then.
    #[test]
    fn calls_back_late() -> Result {
        with_channel(|engine, channel| {
            let room = room(channel)?;

            channel.terminate_sync()?;

            let terminated = channel.submit(copy(channel.mapper(), 1)?)?;

            channel.issue_pending()?;
            channel.terminate_sync()?;
            ensure!(terminated.into_memory().is_ok());

            // All places are taken, that one, too.
            let mut copies = KVec::new();

            for n in 0..room {
                copies.push(channel.submit(copy(channel.mapper(), n)?)?, GFP_KERNEL)?;
            }

            engine.call_back_late(TX)?;

            for copy in copies {
                let copy = is_in_flight(copy)?;

                drop(copy);
            }

            channel.terminate_sync()?;
            Ok(())
        })
    }

    /// Without callbacks: the provider is asked.
    #[test]
    fn polled() -> Result {
        with_channel(|engine, channel| {
            let copy = channel.submit_polled(copy(channel.mapper(), 1)?)?;

            channel.issue_pending()?;
            ensure!(engine.call_back(TX).is_ok());
            ensure!(engine.advance(TX, 100)? == 100);
            ensure!(matches!(copy.status(), Status::InProgress(left) if left == LEN - 100));

            let Err(busy) = copy.poll() else {
                return Err(EINVAL);
            };
            ensure!(busy.error == EINPROGRESS);
            engine.run(TX)?;
            ensure!(matches!(busy.value.status(), Status::Complete));

            let (from, to) = busy.value.poll()?;
            ensure!(from.bytes().len() == LEN && to.bytes() == &*pattern(1, LEN)?);
            Ok(())
        })
    }
}

pub(super) fn pages(count: usize) -> Result<KVec<Pages>> {
    let mut pages = KVec::new();

    for n in 0..count {
        let mut page = Pages::zeroed(0, GFP_KERNEL)?;

        for (at, byte) in page.iter_mut().enumerate() {
            // CAST: Cut on purpose.
            *byte = (at * 3 + n * 17 + 1) as u8;
        }

        pages.push(page, GFP_KERNEL)?;
    }

    Ok(pages)
}

#[kunit_tests(rust_dmaengine_slave)]
mod peripherals {
    use super::*;

    /// Parts of buffers, both ways; the peripheral is configured anew each time.
    #[test]
    fn single() -> Result {
        with_channel(|engine, channel| {
            let fifo = engine.peripheral(TX);

            for range in [0..LEN, 100..101, 512..1000] {
                let buf = Streaming::<_, ToDevice>::map(channel.mapper(), pattern(1, LEN)?)?;
                let sent = channel.submit(Slave::of(buf, range.clone(), fifo))?;

                channel.issue_pending()?;
                engine.run(TX)?;
                ensure!(sent.poll()?.bytes() == &pattern(1, LEN)?[range.clone()]);
                ensure!(engine.take_sent(TX)? == pattern(1, LEN)?[range]);
            }

            let mut next = 0;

            for range in [0..LEN, 100..101, 512..1000] {
                let buf = Streaming::<_, FromDevice>::map(channel.mapper(), pattern(2, LEN)?)?;
                let received = channel.submit(Slave::of(buf, range.clone(), fifo))?;

                channel.issue_pending()?;
                engine.run(TX)?;

                let received = received.poll()?;
                let bytes = (next..next + range.len()).map(Engine::byte);
                ensure!(received.bytes().iter().copied().eq(bytes));
                next += range.len();

                let all = received.unmap();
                ensure!(all[..range.start] == pattern(2, LEN)?[..range.start]);
                ensure!(all[range.end..] == pattern(2, LEN)?[range.end..]);
            }

            for range in [0..LEN + 1, 5..5] {
                let buf = Streaming::<_, ToDevice>::map(channel.mapper(), pattern(1, LEN)?)?;
                let Err(refused) = channel.submit(Slave::of(buf, range, fifo)) else {
                    return Err(EINVAL);
                };
                ensure!(refused.error == EINVAL);
                ensure!(refused.value.into_buffer().take_back().is_ok());
            }
            Ok(())
        })
    }

    /// The peripheral ends a transfer: what came is there, and no more.
    #[test]
    fn ends_early() -> Result {
        with_channel(|engine, channel| {
            engine.script(Script {
                ends_after: 100,
                ..Script::GOOD
            });

            let buf = Streaming::<_, FromDevice>::map(channel.mapper(), pattern(2, LEN)?)?;
            let received = channel.submit(Slave::new(buf, engine.peripheral(TX)))?;

            channel.issue_pending()?;
            engine.run(TX)?;

            let received = received.wait(LONG)?;
            ensure!(received
                .bytes()
                .iter()
                .copied()
                .eq((0..100).map(Engine::byte)));
            ensure!(received.unmap()[100..] == pattern(2, LEN)?[100..]);
            Ok(())
        })
    }

    /// Lists, both ways, in steps that don't end where the pieces do.
    #[test]
    fn list() -> Result {
        with_channel(|engine, channel| {
            let fifo = engine.peripheral(TX);
            let list = ScatterMap::<_, ToDevice>::map(channel.mapper(), pages(3)?, GFP_KERNEL)?;
            let len = list.len();
            let sent = channel.submit(SlaveList::new(list, fifo))?;

            channel.issue_pending()?;

            while engine.advance(TX, 1000)? > 0 {}

            let sent = sent.poll()?;
            ensure!(sent.defined() == len);

            let bytes = engine.take_sent(TX)?;
            ensure!(bytes.len() == len);
            ensure!(bytes
                .iter()
                .eq(sent.unmap().iter().flat_map(|page| page.iter())));

            engine.script(Script {
                ends_after: len - 500,
                ..Script::GOOD
            });

            let list = ScatterMap::<_, FromDevice>::map(channel.mapper(), pages(3)?, GFP_KERNEL)?;
            let received = channel.submit(SlaveList::new(list, fifo))?;

            channel.issue_pending()?;

            while engine.advance(TX, 1000)? > 0 {}

            let received = received.poll()?;
            ensure!(received.defined() == len - 500);

            let bytes = received.slices().flat_map(|slice| slice.iter().copied());
            ensure!(bytes.eq((0..len - 500).map(Engine::byte)));
            Ok(())
        })
    }

    /// A buffer and a list that are dropped in flight.
    #[test]
    fn dropped_in_flight() -> Result {
        with_channel(|engine, channel| {
            let before = quarantined();
            let buf = Streaming::<_, FromDevice>::map(channel.mapper(), pattern(1, LEN)?)?;
            let list = ScatterMap::<_, FromDevice>::map(channel.mapper(), pages(3)?, GFP_KERNEL)?;

            drop(channel.submit(Slave::new(buf, engine.peripheral(TX)))?);
            ensure!(quarantined() == before + 1);
            drop(channel.submit(SlaveList::new(list, engine.peripheral(TX)))?);
            ensure!(quarantined() == before + 2);
            channel.issue_pending()?;
            engine.run(TX)?;
            ensure!(quarantined() == before + 2);
            channel.terminate_sync()
        })
    }

    /// Round and round, with a callback for each period.
    #[test]
    fn cyclic() -> Result {
        with_channel(|engine, channel| {
            let fifo = engine.peripheral(TX);
            let memory = SharedBox::<[u8; LEN]>::new(channel.mapper(), GFP_KERNEL)?.submit();
            let round = Cyclic::<_, FromDevice>::start(channel, memory, LEN / 4, fifo)?;

            ensure!(round.wait_period(1, SOON) == Err(ETIMEDOUT));
            ensure!(engine.advance(TX, 100)? == 100);
            ensure!(round.periods() == 0);
            ensure!(matches!(round.status(), Status::InProgress(left) if left == LEN - 100));
            ensure!(engine.advance(TX, LEN / 2 - 100)? == LEN / 2 - 100);
            ensure!(round.periods() == 2);
            round.wait_period(2, LONG)?;

            // To the end, and once more to there.
            ensure!(engine.advance(TX, LEN)? == LEN / 2);
            ensure!(engine.advance(TX, LEN)? == LEN);
            ensure!(round.periods() == 8);
            ensure!(dma_read!(&*round, [build: 1]) == Engine::byte(LEN + 1));

            // A provider that calls back too often.
            engine.call_back(TX)?;
            ensure!(round.periods() == 9);

            let memory = round.stop()?;
            let bytes = (LEN..2 * LEN).map(Engine::byte);
            ensure!(memory.iter().copied().eq(bytes));
            ensure!(engine.pending(TX)? == (0, 0));

            // Out of memory that the CPU writes.
            let memory = memory.submit();
            let round = Cyclic::<_, ToDevice>::start(channel, memory, LEN, fifo)?;

            ensure!(round.periods() == 0);
            ensure!(engine.advance(TX, LEN)? == LEN);
            ensure!(round.periods() == 1);
            ensure!(engine
                .take_sent(TX)?
                .iter()
                .copied()
                .eq((LEN..2 * LEN).map(Engine::byte)));
            channel.terminate_sync()?;
            ensure!(round.wait_period(2, LONG) == Err(ECANCELED));
            ensure!(matches!(round.status(), Status::Complete));
            drop(round.stop()?);

            for period in [0, LEN + 1, 3] {
                let memory = SharedBox::<[u8; LEN]>::new(channel.mapper(), GFP_KERNEL)?.submit();
                let refused = Cyclic::<_, FromDevice>::start(channel, memory, period, fifo);

                ensure!(refused.is_err_and(|e| e.error == EINVAL));
            }
            Ok(())
        })
    }

    /// A cyclic transfer that nobody wants goes on until it is terminated.
    #[test]
    fn cyclic_dropped() -> Result {
        with_channel(|engine, channel| {
            let before = quarantined();
            let fifo = engine.peripheral(TX);
            let memory = SharedBox::<[u8; LEN]>::new(channel.mapper(), GFP_KERNEL)?.submit();

            drop(Cyclic::<_, FromDevice>::start(
                channel,
                memory,
                LEN / 4,
                fifo,
            )?);
            ensure!(quarantined() == before + 1);
            ensure!(engine.advance(TX, LEN)? == LEN);
            ensure!(engine.advance(TX, LEN)? == LEN);
            channel.terminate_sync()?;

            // One that was terminated is freed at once.
            let memory = SharedBox::<[u8; LEN]>::new(channel.mapper(), GFP_KERNEL)?.submit();
            let round = Cyclic::<_, FromDevice>::start(channel, memory, LEN / 4, fifo)?;
            channel.terminate_sync()?;
            drop(round);
            ensure!(quarantined() == before + 1);

            // A terminate that fails leaves it where it is.
            let memory = SharedBox::<[u8; LEN]>::new(channel.mapper(), GFP_KERNEL)?.submit();
            let round = Cyclic::<_, FromDevice>::start(channel, memory, LEN / 4, fifo)?;
            engine.script(Script {
                terminate: Terminate::Fails,
                ..Script::GOOD
            });
            let Err(refused) = round.stop() else {
                return Err(EINVAL);
            };
            engine.script(Script::GOOD);
            ensure!(refused.error == EIO);
            ensure!(refused.value.stop().is_ok());
            Ok(())
        })
    }
}

#[kunit_tests(rust_dmaengine_unbind)]
mod unbinding {
    use super::*;

    /// Counts callbacks.
    struct Counter(Arc<Atomic<usize>>);

    impl Handler for Counter {
        fn called_back(&self) {
            self.0.fetch_add(1, Relaxed);
        }
    }

    /// The device owns the channel. The handler is called, and nothing is in flight in the end.
    #[test]
    fn lent() -> Result {
        let calls = Arc::new(Atomic::new(0_usize), GFP_KERNEL)?;
        let engine = Engine::new(Features::ALL)?;
        let mut forgotten = None;

        fixture::with_platform_device(|pdev| {
            let channel = Channel::request(pdev.as_ref().bound(), c"tx")?
                .lend_with(pdev.as_ref(), Counter(calls.clone()))?;
            let plain = Channel::request(pdev.as_ref().bound(), c"rx")?.lend(pdev.as_ref())?;

            let one = channel.submit(copy(channel.mapper(), 1)?)?;
            let two = channel.submit(copy(channel.mapper(), 2)?)?;

            let (from, to) = (pattern(3, LEN)?, pattern(4, LEN)?);
            forgotten = Some((from.as_ptr(), to.as_ptr()));

            let three: Copy<'_> = Memcpy::new(
                Streaming::map(plain.mapper(), from)?,
                Streaming::map(plain.mapper(), to)?,
            );
            let three = plain.submit(three)?;

            channel.issue_pending()?;
            ensure!(engine.advance(TX, LEN - 1)? == LEN - 1);
            ensure!(calls.load(Relaxed) == 0);
            ensure!(engine.advance(TX, LEN)? == 1);
            ensure!(calls.load(Relaxed) == 1);
            ensure!(one.poll().is_ok());

            // In flight, in each way, when the device is unbound.
            ensure!(engine.advance(TX, LEN / 2)? == LEN / 2);
            drop(two);
            core::mem::forget(three);
            Ok(())
        })?;

        ensure!(engine.released() == (2, 0));
        ensure!(calls.load(Relaxed) == 1);

        let (from, to) = forgotten.ok_or(EINVAL)?;

        // SAFETY: They were forgotten, and all transfers were terminated.
        unsafe {
            free_forgotten(from);
            free_forgotten(to);
        }
        Ok(())
    }

    /// A driver with a transfer in flight in its private data, and another one that is forgotten.
    struct Driver;

    struct Data<'bound> {
        _one: Submitted<'bound, Copy<'bound>>,
        _two: Submitted<'bound, Copy<'bound>>,
    }

    impl platform::DmaDriver for Driver {
        type IdInfo = ();
        type Data<'bound> = Data<'bound>;

        fn dma_constraints(_dev: &platform::Device, _info: Option<&()>) -> Result<Constraints> {
            Ok(Constraints::new(DmaMask::new::<64>()))
        }

        fn probe<'bound>(
            pdev: &platform::Device<Core<'bound>>,
            _info: Option<&'bound ()>,
        ) -> impl PinInit<Data<'bound>, Error> {
            Data::new(pdev.as_ref())
        }
    }

    impl<'bound> Data<'bound> {
        fn new(dev: &Device<Core<'bound>>) -> Result<Self> {
            let channel = Channel::request(dev.bound(), c"tx")?.lend(dev)?;
            let one = channel.submit(copy(channel.mapper(), 1)?)?;
            let two = channel.submit_polled(copy(channel.mapper(), 2)?)?;

            channel.issue_pending()?;
            PROBED.fetch_add(1, Relaxed);
            Ok(Self {
                _one: one,
                _two: two,
            })
        }
    }

    static PROBED: Atomic<usize> = Atomic::new(0);

    /// What a driver has in flight when it is unbound is freed: the transfers are terminated before
    /// its private data goes.
    #[test]
    fn in_private_data() -> Result {
        let engine = Engine::new(Features::ALL)?;
        let (before, probed) = (quarantined(), PROBED.load(Relaxed));

        fixture::with_platform_driver::<Driver>()?;
        ensure!(PROBED.load(Relaxed) == probed + 1);
        ensure!(quarantined() == before);
        ensure!(engine.released() == (1, 0));
        Ok(())
    }

    /// The engine goes while it is in use: first the client is unbound.
    #[test]
    fn provider_goes() -> Result {
        let engine = Engine::new(Features::ALL)?;
        let obituary = engine.obituary();
        let mut left = Some(engine);
        let mut going = None;

        fixture::with_platform_device(|pdev| {
            let channel = Channel::request(pdev.as_ref().bound(), c"tx")?.lend(pdev.as_ref())?;
            let copy = channel.submit(copy(channel.mapper(), 1)?)?;
            let engine = left.take().ok_or(EINVAL)?;

            channel.issue_pending()?;
            ensure!(engine.advance(TX, LEN / 2)? == LEN / 2);
            going = Some(fixture::spawn(move || drop(engine))?);

            // Not while we are here.
            for _ in 0..50 {
                fsleep(Delta::from_millis(2));
                ensure!(!obituary.is_gone());
            }

            drop(copy);
            Ok(())
        })?;

        going.ok_or(EINVAL)?.join(|()| ())?;
        ensure!(obituary.is_gone() && obituary.clients() == 0);
        Ok(())
    }

    /// A driver that goes on using its channel while it is unbound, and requests another one.
    struct LateDriver;

    struct LateData<'bound> {
        dev: &'bound Device<Bound>,
        channel: &'bound Channel<'bound>,
    }

    impl platform::DmaDriver for LateDriver {
        type IdInfo = ();
        type Data<'bound> = LateData<'bound>;

        fn dma_constraints(_dev: &platform::Device, _info: Option<&()>) -> Result<Constraints> {
            Ok(Constraints::new(DmaMask::new::<64>()))
        }

        fn probe<'bound>(
            pdev: &platform::Device<Core<'bound>>,
            _info: Option<&'bound ()>,
        ) -> impl PinInit<LateData<'bound>, Error> {
            LateData::new(pdev.as_ref())
        }
    }

    impl<'bound> LateData<'bound> {
        fn new(dev: &Device<Core<'bound>>) -> Result<Self> {
            Ok(Self {
                dev: dev.bound(),
                channel: Channel::request(dev.bound(), c"tx")?.lend(dev)?,
            })
        }

        fn is_refused(&self) -> Result {
            let Err(refused) = self.channel.submit(copy(self.channel.mapper(), 1)?) else {
                return Err(EINVAL);
            };

            ensure!(refused.error == ESHUTDOWN);

            let (from, to) = take_back(refused.value)?;

            ensure!(from == pattern(1, LEN)? && to.iter().all(|byte| *byte == 0xee));
            ensure!(self.channel.issue_pending() == Err(ESHUTDOWN));
            Ok(())
        }

        fn go_on(&self) -> Result {
            self.is_refused()?;

            // Nothing is in flight, and nothing more is submitted afterwards either.
            self.channel.terminate_sync()?;
            self.is_refused()?;

            let other = Channel::request(self.dev, c"rx");

            ensure!(other.is_err_and(|e| e == ESHUTDOWN));

            let other = Channel::request_by_mask(self.dev, Capabilities::MEMCPY);

            ensure!(other.is_err_and(|e| e == ESHUTDOWN));
            Ok(())
        }
    }

    impl Drop for LateData<'_> {
        fn drop(&mut self) {
            if self.go_on().is_ok() {
                REFUSED.fetch_add(1, Relaxed);
            }
        }
    }

    static REFUSED: Atomic<usize> = Atomic::new(0);

    /// A driver that is being unbound gets no channel any more, and can't use the one that it has.
    #[test]
    fn client_goes() -> Result {
        let engine = Engine::new(Features::ALL)?;
        let refused = REFUSED.load(Relaxed);

        fixture::with_platform_driver::<LateDriver>()?;
        ensure!(REFUSED.load(Relaxed) == refused + 1);
        ensure!(engine.pending(TX)? == (0, 0));

        // Its own, and the two that it didn't get.
        ensure!(engine.released() == (3, 0));
        Ok(())
    }

    /// The engine's driver is being unbound when a channel is requested.
    #[test]
    fn provider_is_going() -> Result {
        let engine = Engine::new(Features::ALL)?;
        let obituary = engine.obituary();

        engine.hold();

        let going = fixture::spawn(move || drop(engine))?;

        while !obituary.is_leaving() {
            fsleep(Delta::from_millis(1));
        }

        // A probe that fails: C warns if a client is bound then.
        let outcome = fixture::failing(|| {
            fixture::with_platform_device(|pdev| {
                let late = Channel::request(pdev.as_ref(), c"tx");

                // C had one, which was released.
                ensure!(late.is_err_and(|e| e == EPROBE_DEFER));
                ensure!(obituary.released() == 1);
                Err(ENXIO)
            })
        });

        obituary.let_go();
        going.join(|()| ())?;
        ensure!(outcome == Err(ENXIO) && obituary.clients() == 0);
        Ok(())
    }

    /// A client whose probe fails releases its channel while the engine can't go.
    #[test]
    fn probe_fails() -> Result {
        let engine = Engine::new(Features::ALL)?;

        let outcome = fixture::failing(|| {
            fixture::with_platform_device(|pdev| {
                Channel::request(pdev.as_ref().bound(), c"tx")?.lend(pdev.as_ref())?;
                Err(ENXIO)
            })
        });

        ensure!(outcome == Err(ENXIO));
        ensure!(engine.released() == (1, 0) && engine.released_unlinked() == 0);
        Ok(())
    }

    /// The engine goes at the moment in which a channel of it is requested.
    #[test]
    fn provider_went() -> Result {
        let engine = Engine::new(Features::ALL)?;

        fixture::with_platform_device(|pdev| {
            let dev = pdev.as_ref();

            let mask = Capabilities::MEMCPY.to_mask();
            // SAFETY: The mask is valid.
            let chan = unsafe { bindings::dma_request_chan_by_mask(&mask) };

            engine.take_away();

            // SAFETY: It was just requested, and is released by nobody else.
            let gone = unsafe { Channel::new(dev, chan) };

            ensure!(gone.is_err_and(|e| e == ENODEV));
            ensure!(engine.released() == (1, 0));
            ensure!(Channel::request(dev, c"tx").is_err_and(|e| e == EPROBE_DEFER));

            // C says the latter where there is another engine.
            let none = Channel::request_by_mask(dev, Capabilities::MEMCPY);

            ensure!(none.is_err_and(|e| [EPROBE_DEFER, ENODEV].contains(&e)));
            Ok(())
        })
    }

    /// A forgotten channel stays requested, with all that the engine may access for it, though its
    /// client is gone.
    #[test]
    fn forgotten() -> Result {
        let engine = Engine::new(Features::ALL)?;
        let before = quarantined();
        let mut forgotten = None;

        fixture::with_platform_device(|pdev| {
            let channel = Channel::request_by_mask(pdev.as_ref(), Capabilities::MEMCPY)?;
            let (from, to) = (pattern(1, LEN)?, pattern(2, LEN)?);
            let pointers = (from.as_ptr(), to.as_ptr());
            let copy: Copy<'_> = Memcpy::new(
                Streaming::map(channel.mapper(), from)?,
                Streaming::map(channel.mapper(), to)?,
            );

            drop(channel.submit(copy)?);
            channel.issue_pending()?;
            ensure!(engine.advance(TX, LEN / 2)? == LEN / 2);

            // As `mem::forget()`, but for the address.
            let channel = KBox::into_raw(KBox::new(channel, GFP_KERNEL)?);

            forgotten = Some((channel.cast::<Channel<'static>>(), pointers));
            Ok(())
        })?;

        let (channel, (from, to)) = forgotten.ok_or(EINVAL)?;

        // The client was unbound meanwhile.
        ensure!(engine.released() == (0, 0) && engine.pending(TX)? == (1, 1));

        fixture::with_platform_device(|pdev| {
            let other = Channel::request(pdev.as_ref(), c"tx");

            ensure!(other.is_err_and(|e| e == EPROBE_DEFER));
            Ok(())
        })?;

        // The engine goes on, and calls back.
        engine.run(TX)?;
        ensure!(engine.pending(TX)? == (0, 0));

        // SAFETY: It was forgotten with the channel, so it is still there. Nobody writes to it.
        let from = unsafe { core::slice::from_raw_parts(from, LEN) };
        // SAFETY: As above, since the engine has written all of it.
        let to = unsafe { core::slice::from_raw_parts(to, LEN) };

        ensure!(from == &*pattern(1, LEN)?);
        // What bounces isn't in there.
        ensure!(to == from || to == &*pattern(2, LEN)?);
        ensure!(quarantined() == before + 2);

        // SAFETY: It was made above, and nobody else frees it. Its engine is there, which is all
        // that a channel uses that was requested by its capabilities.
        drop(unsafe { KBox::from_raw(channel) });
        ensure!(engine.released() == (1, 0));
        Ok(())
    }

    /// The engine goes after its client, also if that has forgotten its channel.
    #[test]
    fn provider_of_the_forgotten() -> Result {
        let engine = Engine::new(Features::ALL)?;
        let obituary = engine.obituary();
        let mut left = Some(engine);
        let mut going = None;

        fixture::with_platform_device(|pdev| {
            let channel = Channel::request_by_mask(pdev.as_ref(), Capabilities::MEMCPY)?;
            let engine = left.take().ok_or(EINVAL)?;

            fixture::forget(channel)?;
            engine.release_leaked();
            going = Some(fixture::spawn(move || drop(engine))?);

            // Not while we are here.
            for _ in 0..50 {
                fsleep(Delta::from_millis(2));
                ensure!(!obituary.is_gone());
            }
            Ok(())
        })?;

        going.ok_or(EINVAL)?.join(|()| ())?;
        ensure!(obituary.is_gone() && obituary.clients() == 1);
        Ok(())
    }
}
