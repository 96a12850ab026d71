// SPDX-License-Identifier: GPL-2.0

//! KUnit tests of channels, with allocations that fail: one after the other, of each call that
//! allocates.

use super::{
    super::{
        dmaengine::{
            Capabilities,
            Channel,
            Cyclic,
            Handler,
            Slave,
            SlaveList, //
        },
        leaked,
        quarantined,
        FromDevice,
        ScatterMap,
        SharedBox,
        Streaming,
        ToDevice, //
    },
    dmaengine::{
        copy,
        pages,
        pattern,
        take_back,
        with_channel,
        LEN,
        TX, //
    },
    ensure,
    fixture::{
        self,
        engine::{
            Engine,
            Features, //
        },
        faults::each_allocation, //
    }, //
};
use crate::{
    prelude::*,
    sync::{
        atomic::{
            Atomic,
            Relaxed, //
        },
        Arc, //
    }, //
};

#[kunit_tests(rust_dmaengine_faults)]
mod cases {
    use super::*;

    /// A request that fails keeps no channel: the next one gets it.
    #[test]
    fn requests() -> Result {
        let engine = Engine::new(Features::ALL)?;
        let mut requests = 0;

        for is_by_name in [false, true] {
            let mut failures = 0;

            // A device each time, since a link to the engine is made once.
            let allocations = each_allocation(|fault| {
                fixture::with_platform_device(|pdev| {
                    let dev = pdev.as_ref();

                    match fault.strike(|| {
                        if is_by_name {
                            Channel::request(dev, c"tx")
                        } else {
                            Channel::request_by_mask(dev, Capabilities::MEMCPY)
                        }
                    })? {
                        Ok(channel) => {
                            let done = channel.submit(copy(channel.mapper(), 1)?)?;

                            channel.issue_pending()?;
                            engine.run(TX)?;
                            ensure!(done.poll()?.1.unmap() == pattern(1, LEN)?);
                        }
                        // The latter if the link can't be made: C doesn't say why.
                        Err(e) => {
                            ensure!([ENOMEM, EINVAL].contains(&e));
                            failures += 1;
                        }
                    }

                    requests += 1;
                    ensure!(engine.released() == (requests, 0));

                    drop(Channel::request(dev, c"tx")?);
                    requests += 1;
                    ensure!(engine.released() == (requests, 0));
                    Ok(())
                })
            })?;

            // The link, the channel, its places. C makes do without names.
            ensure!(allocations > 3 && failures > 3);
        }
        Ok(())
    }

    /// Counts callbacks, and the handlers that there are.
    struct Counter {
        calls: Arc<Atomic<usize>>,
        alive: Arc<Atomic<usize>>,
    }

    impl Counter {
        fn new(calls: &Arc<Atomic<usize>>, alive: &Arc<Atomic<usize>>) -> Self {
            alive.fetch_add(1, Relaxed);
            Self {
                calls: calls.clone(),
                alive: alive.clone(),
            }
        }
    }

    impl Handler for Counter {
        fn called_back(&self) {
            self.calls.fetch_add(1, Relaxed);
        }
    }

    impl Drop for Counter {
        fn drop(&mut self) {
            self.alive.fetch_sub(1, Relaxed);
        }
    }

    /// A channel that can't be lent is released when its device is unbound, if not at once.
    #[test]
    fn lending() -> Result {
        let engine = Engine::new(Features::ALL)?;
        let calls = Arc::new(Atomic::new(0_usize), GFP_KERNEL)?;
        let alive = Arc::new(Atomic::new(0_usize), GFP_KERNEL)?;
        let mut lent = 0;

        for has_handler in [false, true] {
            let mut failures = 0;

            each_allocation(|fault| {
                fixture::with_platform_device(|pdev| {
                    let dev = pdev.as_ref();
                    let channel = Channel::request(dev.bound(), c"tx")?;
                    let handler = has_handler.then(|| Counter::new(&calls, &alive));

                    calls.store(0, Relaxed);

                    match fault.strike(|| match handler {
                        Some(handler) => channel.lend_with(dev, handler),
                        None => channel.lend(dev),
                    })? {
                        Ok(channel) => {
                            let done = channel.submit(copy(channel.mapper(), 1)?)?;

                            channel.issue_pending()?;
                            engine.run(TX)?;
                            ensure!(done.poll()?.1.unmap() == pattern(1, LEN)?);
                            ensure!(calls.load(Relaxed) == usize::from(has_handler));
                        }
                        Err(e) => {
                            ensure!(e == ENOMEM);
                            failures += 1;
                        }
                    }
                    Ok(())
                })?;

                lent += 1;
                ensure!(engine.released() == (lent, 0));
                ensure!(alive.load(Relaxed) == 0);
                Ok(())
            })?;

            // The channel's box, its entry in the device's list, both of the guard that stops it;
            // and the handler's.
            ensure!(failures >= 4 + usize::from(has_handler));
        }
        Ok(())
    }

    /// A transfer that can't be submitted comes back as it was, and the engine knows nothing of it.
    #[test]
    #[allow(
        clippy::result_large_err,
        reason = "what is refused comes back in the error"
    )]
    fn submitting() -> Result {
        with_channel(|engine, channel| {
            let before = (quarantined(), leaked());
            let fifo = engine.peripheral(TX);

            for is_polled in [false, true] {
                let allocations = each_allocation(|fault| {
                    let copy = copy(channel.mapper(), 1)?;

                    match fault.strike(|| {
                        if is_polled {
                            channel.submit_polled(copy)
                        } else {
                            channel.submit(copy)
                        }
                    })? {
                        Ok(copy) => {
                            channel.terminate_sync()?;
                            ensure!(copy.into_memory().is_ok());
                        }
                        Err(refused) => {
                            ensure!(refused.error == ENOMEM);

                            let (from, to) = take_back(refused.value)?;

                            ensure!(from == pattern(1, LEN)?);
                            ensure!(to.iter().all(|byte| *byte == 0xee));
                        }
                    }

                    ensure!(engine.pending(TX)? == (0, 0));
                    Ok(())
                })?;

                // The descriptor, and its place in the engine's list.
                ensure!(allocations >= 2);
            }

            let allocations = each_allocation(|fault| {
                let buf = Streaming::<_, ToDevice>::map(channel.mapper(), pattern(1, LEN)?)?;
                let slave = Slave::new(buf, fifo);

                match fault.strike(|| channel.submit(slave))? {
                    Ok(sent) => {
                        channel.terminate_sync()?;
                        ensure!(sent.into_memory().is_ok());
                    }
                    Err(refused) => {
                        ensure!(refused.error == ENOMEM);

                        let buf = refused.value.into_buffer().take_back().map_err(|_| EBUSY)?;

                        ensure!(buf.unmap() == pattern(1, LEN)?);
                    }
                }

                ensure!(engine.pending(TX)? == (0, 0));
                Ok(())
            })?;
            ensure!(allocations > 1);

            let allocations = each_allocation(|fault| {
                let list = ScatterMap::<_, ToDevice>::map(channel.mapper(), pages(3)?, GFP_KERNEL)?;
                let slave = SlaveList::new(list, fifo);

                match fault.strike(|| channel.submit(slave))? {
                    Ok(sent) => {
                        channel.terminate_sync()?;
                        ensure!(sent.into_memory().is_ok());
                    }
                    Err(refused) => {
                        ensure!(refused.error == ENOMEM);

                        let list = refused.value.into_inner().take_back().map_err(|_| EBUSY)?;
                        let same = pages(3)?;

                        ensure!(list
                            .unmap()
                            .iter()
                            .flat_map(|page| page.iter())
                            .eq(same.iter().flat_map(|page| page.iter())));
                    }
                }

                ensure!(engine.pending(TX)? == (0, 0));
                Ok(())
            })?;
            ensure!(allocations > 1);

            let allocations = each_allocation(|fault| {
                let mut memory = SharedBox::<[u8; LEN]>::new(channel.mapper(), GFP_KERNEL)?;

                memory.fill(0x5a);

                let memory = memory.submit();

                match fault
                    .strike(|| Cyclic::<_, FromDevice>::start(channel, memory, LEN / 4, fifo))?
                {
                    Ok(round) => drop(round.stop()?),
                    Err(refused) => {
                        ensure!(refused.error == ENOMEM);

                        let memory = refused.value.take_back().map_err(|_| EBUSY)?;

                        ensure!(memory.iter().all(|byte| *byte == 0x5a));
                    }
                }

                ensure!(engine.pending(TX)? == (0, 0));
                Ok(())
            })?;
            ensure!(allocations > 1);

            ensure!((quarantined(), leaked()) == before);
            Ok(())
        })
    }
}
