// SPDX-License-Identifier: GPL-2.0

//! Tests of the enclosure, with a device that stops or doesn't as it is told.

use super::{
    ensure,
    fixture::{
        self,
        on_each_bus,
        with_platform_device,
        with_platform_device_twice, //
    }, //
};
use crate::{
    device::{
        Core,
        Device, //
    },
    devres::Shared,
    dma::{
        binding::Binding,
        enclosure,
        leaked,
        oneshot::{
            Engine,
            Progress,
            Request,
            Slot, //
        },
        quarantine::{
            Keep,
            MAX_LEAKED_PAGES, //
        },
        quarantined,
        Configured,
        Enclosure,
        FromDevice,
        Outcome,
        Quiesce,
        Streaming,
        StreamingBox,
        ToDevice,
        Untrusted, //
    },
    new_mutex,
    page::PAGE_SIZE,
    platform,
    prelude::*,
    sync::{
        atomic::{
            Atomic,
            Relaxed, //
        },
        Arc,
        Mutex,
        SetOnce, //
    },
    time::{
        delay::fsleep,
        Delta,
        Instant,
        Monotonic, //
    },
    types::ForLt, //
};
use core::mem::ManuallyDrop;

const TICK: Delta = Delta::from_millis(1);
const LONG: Delta = Delta::from_secs(10);

/// What the device does, and how often it was asked. Touches no memory.
struct Puppet {
    /// What comes of a stop: an [`Outcome`].
    outcome: Atomic<u32>,
    /// Whether it forgets.
    forgets: Atomic<u32>,
    stops: Atomic<u32>,
    forgot: Atomic<u32>,
    /// How many owners of it there are that are to be dropped.
    owners: Atomic<u32>,
    /// How many transfers were started.
    started: Atomic<u32>,
    /// Whether transfers come to an end.
    ends: Atomic<u32>,
}

impl Puppet {
    fn new() -> Result<Arc<Self>> {
        Ok(Arc::new(
            Self {
                outcome: Atomic::new(Outcome::Stopped as u32),
                forgets: Atomic::new(1),
                stops: Atomic::new(0),
                forgot: Atomic::new(0),
                owners: Atomic::new(0),
                started: Atomic::new(0),
                ends: Atomic::new(0),
            },
            GFP_KERNEL,
        )?)
    }

    fn on_stop(&self, outcome: Outcome) {
        self.outcome.store(outcome as u32, Relaxed);
    }

    /// A witness: how many are left tells what was dropped.
    fn owner(self: &Arc<Self>) -> Owner {
        self.owners.fetch_add(1, Relaxed);
        Owner(self.clone())
    }

    fn owners(&self) -> u32 {
        self.owners.load(Relaxed)
    }
}

struct Owner(Arc<Puppet>);

impl Drop for Owner {
    fn drop(&mut self) {
        self.0.owners.fetch_sub(1, Relaxed);
    }
}

/// The puppet's strings.
struct Strings<'a>(Arc<Puppet>, &'a Device);

// SAFETY: It accesses no memory, so whatever it says is true enough.
unsafe impl Quiesce for Strings<'_> {
    fn device(&self) -> &Device {
        self.1
    }

    fn forget(&mut self) -> Result {
        if self.0.forgets.load(Relaxed) == 0 {
            return Err(ETIMEDOUT);
        }

        self.0.forgot.fetch_add(1, Relaxed);
        Ok(())
    }

    fn stop(&self) -> Outcome {
        self.0.stops.fetch_add(1, Relaxed);

        [Outcome::Stopped, Outcome::Gone, Outcome::Unproven]
            .into_iter()
            .find(|&outcome| outcome as u32 == self.0.outcome.load(Relaxed))
            .unwrap_or(Outcome::Unproven)
    }
}

struct PuppetEngine<'a>(Arc<Puppet>, Configured<'a>);

// SAFETY: It never accesses the memory.
unsafe impl Engine for PuppetEngine<'_> {
    type Target = ();

    fn device(&self) -> &Device {
        self.1.device()
    }

    fn start(&mut self, _request: Request<'_, ()>) -> Result {
        self.0.started.fetch_add(1, Relaxed);
        Ok(())
    }

    fn poll(&mut self) -> Result<Progress> {
        Ok(match self.0.ends.load(Relaxed) {
            0 => Progress::Busy,
            _ => Progress::Done(Untrusted::new(256)),
        })
    }
}

/// The engine of another device.
struct Elsewhere<'a>(&'a Device);

// SAFETY: It never starts anything.
unsafe impl Engine for Elsewhere<'_> {
    type Target = ();

    fn device(&self) -> &Device {
        self.0
    }

    fn start(&mut self, _request: Request<'_, ()>) -> Result {
        Err(EIO)
    }

    fn poll(&mut self) -> Result<Progress> {
        Err(EIO)
    }
}

type TestSlot<'a> = Slot<'a, PuppetEngine<'a>, KVec<u8>>;

/// What the device may touch.
#[pin_data]
struct Contents<'a> {
    #[pin]
    transfers: Mutex<TestSlot<'a>>,
    _owner: Owner,
}

type TestEnclosure<'a> = Enclosure<'a, Contents<'a>>;

fn enclose<'a>(
    dev: &Device<Core<'a>>,
    puppet: &Arc<Puppet>,
) -> Result<(Configured<'a>, TestEnclosure<'a>)> {
    let dma = Configured::get(dev.bound())?;
    let slot = Slot::new(dma, PuppetEngine(puppet.clone(), dma))?;

    Ok((
        dma,
        Enclosure::new(
            dev,
            Strings(puppet.clone(), dev.bound()),
            contents(slot, puppet.owner()),
        )?,
    ))
}

#[inline(never)]
fn contents<'a>(engine_slot: TestSlot<'a>, owner: Owner) -> impl PinInit<Contents<'a>> {
    pin_init!(Contents {
        transfers <- new_mutex!(engine_slot),
        _owner: owner,
    })
}

fn bytes() -> Result<KVec<u8>> {
    Ok(KVec::from_elem(0x11, 256, GFP_KERNEL)?)
}

fn outbound(dma: Configured<'_>) -> Result<Streaming<'_, KVec<u8>, ToDevice>> {
    Ok(Streaming::map(dma, bytes()?)?)
}

#[kunit_tests(rust_dma_enclosure)]
mod cases {
    use super::*;

    /// The device is made to forget before each start, and stopped once for each.
    #[test]
    fn start_and_stop() -> Result {
        on_each_bus(|pdev| {
            let puppet = Puppet::new()?;
            let (_, enclosure) = enclose(pdev.as_ref(), &puppet)?;
            let counts = || (puppet.forgot.load(Relaxed), puppet.stops.load(Relaxed));

            ensure!(counts() == (0, 0));
            enclosure.start()?;
            enclosure.start()?;
            ensure!(counts() == (1, 0));

            ensure!(enclosure.stop() == Outcome::Stopped);
            ensure!(enclosure.stop() == Outcome::Stopped);
            ensure!(counts() == (1, 1));

            enclosure.start()?;
            ensure!(counts() == (2, 1));
            Ok(())
        })
    }

    /// One a bind, also when the first one is gone; its contents go, but not its stop.
    #[test]
    fn one_a_bind() -> Result {
        let puppet = Puppet::new()?;

        with_platform_device(|pdev| {
            let (_, first) = enclose(pdev.as_ref(), &puppet)?;

            ensure!(matches!(enclose(pdev.as_ref(), &puppet), Err(e) if e == EBUSY));
            first.start()?;
            drop(first);
            ensure!(matches!(enclose(pdev.as_ref(), &puppet), Err(e) if e == EBUSY));
            ensure!(puppet.owners() == 1);
            ensure!(puppet.stops.load(Relaxed) == 0);
            Ok(())
        })?;

        ensure!(puppet.stops.load(Relaxed) == 1);
        ensure!(puppet.owners() == 0);
        Ok(())
    }

    /// Not without a set-up.
    #[test]
    fn not_configured() -> Result {
        fixture::on_each_bus_set_up(None, |pdev| {
            let puppet = Puppet::new()?;
            let dev: &Device<Core<'_>> = pdev.as_ref();
            let refused =
                Enclosure::<u32>::new(dev, Strings(puppet, dev.bound()), Ok::<_, Error>(0));

            ensure!(matches!(refused, Err(e) if e == EINVAL));
            Ok(())
        })
    }

    /// An engine, or a stop, of another device: its word means nothing for this one.
    #[test]
    fn other_device() -> Result {
        on_each_bus(|pdev| {
            let dev: &Device<Core<'_>> = pdev.as_ref();
            let dma = Configured::get(dev.bound())?;
            // SAFETY: The platform bus is a device, which is there for good.
            let other = unsafe { Device::from_raw(&raw mut crate::bindings::platform_bus) };
            let puppet = Puppet::new()?;

            ensure!(matches!(
                Slot::<_, KVec<u8>>::new(dma, Elsewhere(other)),
                Err(e) if e == EINVAL
            ));
            ensure!(matches!(
                Enclosure::<u32>::new(dev, Strings(puppet, other), Ok::<_, Error>(0)),
                Err(e) if e == EINVAL
            ));
            Ok(())
        })
    }

    /// A device that doesn't forget isn't started, and may be asked again.
    #[test]
    fn does_not_forget() -> Result {
        on_each_bus(|pdev| {
            let puppet = Puppet::new()?;
            let (dma, enclosure) = enclose(pdev.as_ref(), &puppet)?;

            puppet.forgets.store(0, Relaxed);
            ensure!(enclosure.start() == Err(ETIMEDOUT));

            let mut slot = enclosure.transfers.lock();
            let refused = slot.start(outbound(dma)?, 0..256, ());
            ensure!(matches!(refused, Err(e) if e.error == ESHUTDOWN));
            ensure!(puppet.started.load(Relaxed) == 0);
            drop(slot);

            puppet.forgets.store(1, Relaxed);
            enclosure.start()?;
            puppet.ends.store(1, Relaxed);

            let mut slot = enclosure.transfers.lock();
            drop(
                slot.start(outbound(dma)?, 0..256, ())?
                    .wait_polling(TICK, LONG)?,
            );
            Ok(())
        })
    }

    /// A stop ends what is in flight: the buffer comes back, though with nothing in it.
    #[test]
    fn stop_ends_transfers() -> Result {
        on_each_bus(|pdev| {
            let puppet = Puppet::new()?;
            let (dma, enclosure) = enclose(pdev.as_ref(), &puppet)?;

            enclosure.start()?;

            for restart in [false, true] {
                let back = Streaming::<_, FromDevice>::map(dma, bytes()?)?;

                let _ = enclosure.transfers.lock().start(back, 0..256, ())?;
                ensure!(enclosure.transfers.lock().take::<FromDevice>()?.is_none());

                ensure!(enclosure.stop() == Outcome::Stopped);
                if restart {
                    enclosure.start()?;
                }

                // Whatever the hardware says of it now.
                puppet.ends.store(1, Relaxed);

                let back = enclosure
                    .transfers
                    .lock()
                    .take::<FromDevice>()?
                    .ok_or(EINVAL)?;
                ensure!(back.bytes().is_empty());
                ensure!(back.unmap() == bytes()?);

                puppet.ends.store(0, Relaxed);
                enclosure.start()?;
            }

            Ok(())
        })
    }

    /// After a stop nothing is started, and what was offered comes back as it was.
    #[test]
    fn nothing_starts_when_stopped() -> Result {
        on_each_bus(|pdev| {
            let puppet = Puppet::new()?;
            let (dma, enclosure) = enclose(pdev.as_ref(), &puppet)?;

            enclosure.start()?;

            for outcome in [Outcome::Unproven, Outcome::Stopped, Outcome::Gone] {
                puppet.on_stop(outcome);
                ensure!(enclosure.stop() == outcome);

                match enclosure.transfers.lock().start(outbound(dma)?, 0..256, ()) {
                    Err(e) => {
                        ensure!(e.error == ESHUTDOWN);
                        ensure!(e.value.unmap() == bytes()?);
                    }
                    Ok(_) => return Err(EINVAL),
                }

                if outcome == Outcome::Stopped {
                    enclosure.start()?;
                }
            }

            ensure!(puppet.started.load(Relaxed) == 0);
            // It doesn't come back.
            ensure!(enclosure.start() == Err(ENODEV));
            Ok(())
        })
    }

    /// Dropped in flight: kept until there is a proof. Dropped after it: freed at once.
    #[test]
    fn dropped_streaming() -> Result {
        on_each_bus(|pdev| {
            let puppet = Puppet::new()?;
            let (dma, enclosure) = enclose(pdev.as_ref(), &puppet)?;
            let (before, lost) = (quarantined(), leaked());
            let binding = Binding::find(dma.device()).ok_or(EINVAL)?;

            drop(outbound(dma)?);
            ensure!(quarantined() == before + 1);

            // To have forgotten is a proof, too.
            enclosure.start()?;
            ensure!(binding.counts() == (1, 1));

            drop((outbound(dma)?, outbound(dma)?));
            ensure!(binding.counts() == (3, 1));

            puppet.on_stop(Outcome::Unproven);
            ensure!(enclosure.stop() == Outcome::Unproven);
            drop(outbound(dma)?);
            ensure!(binding.counts() == (4, 1));

            // The next attempt does better.
            puppet.on_stop(Outcome::Stopped);
            ensure!(enclosure.stop() == Outcome::Stopped);
            ensure!(binding.counts() == (4, 4));

            drop(outbound(dma)?);
            ensure!(binding.counts() == (4, 4));
            ensure!(quarantined() == before + 4 && leaked() == lost);
            Ok(())
        })
    }

    /// What is in the enclosure is freed with a proof, before or after the enclosure goes.
    #[test]
    fn contents_go_with_a_proof() -> Result {
        let puppet = Puppet::new()?;

        with_platform_device(|pdev| {
            let (_, enclosure) = enclose(pdev.as_ref(), &puppet)?;

            enclosure.start()?;
            ensure!(enclosure.stop() == Outcome::Stopped);
            drop(enclosure);
            ensure!(puppet.owners() == 0);
            Ok(())
        })?;

        with_platform_device(|pdev| {
            let (_, enclosure) = enclose(pdev.as_ref(), &puppet)?;

            enclosure.start()?;
            drop(enclosure);
            ensure!(puppet.owners() == 1);
            Ok(())
        })?;

        ensure!(puppet.owners() == 0);
        Ok(())
    }

    /// Without a proof it is leaked, and counted. A device that does that too often isn't bound
    /// again.
    #[test]
    fn leaks_without_proof() -> Result {
        struct Huge;

        // SAFETY: There is nothing to release.
        unsafe impl Keep for Huge {
            const ACCIDENT: bool = true;

            fn bytes(&self) -> usize {
                MAX_LEAKED_PAGES * PAGE_SIZE
            }

            unsafe fn release(self) {}
        }

        let puppet = Puppet::new()?;
        let before = leaked();

        puppet.on_stop(Outcome::Unproven);
        let once = with_platform_device_twice(
            |pdev| {
                let (_, enclosure) = enclose(pdev.as_ref(), &puppet)?;

                enclosure.start()?;
                puppet.forgets.store(0, Relaxed);
                Ok(())
            },
            |_| Ok(()),
        )?;
        ensure!(puppet.owners() == 1);
        ensure!(leaked() == before + 1);
        ensure!(once == Ok(()));
        // Tried, and complained about, once.
        ensure!(puppet.stops.load(Relaxed) == 1);

        let too_often = with_platform_device_twice(
            |pdev| {
                let (dma, enclosure) = enclose(pdev.as_ref(), &puppet)?;

                puppet.forgets.store(1, Relaxed);
                enclosure.start()?;
                puppet.forgets.store(0, Relaxed);
                dma.binding()?.put_away(dma.device(), Huge);
                Ok(())
            },
            |_| Ok(()),
        )?;
        ensure!(leaked() == before + 3);
        // Not probed at all.
        ensure!(too_often == Err(ENODEV));
        Ok(())
    }

    type Handle = Shared<ForLt!(Shareable<'_>)>;

    struct Shareable<'a> {
        dma: Configured<'a>,
        enclosure: TestEnclosure<'a>,
        waiters: Arc<crate::dma::Waiters>,
    }

    fn share(pdev: &platform::Device<Core<'_>>, puppet: &Arc<Puppet>) -> Result<Handle> {
        share_device(pdev.as_ref(), puppet)
    }

    fn share_device<'a>(dev: &Device<Core<'a>>, puppet: &Arc<Puppet>) -> Result<Handle> {
        let (dma, enclosure) = enclose(dev, puppet)?;

        enclosure.start()?;
        dev.share::<ForLt!(Shareable<'_>)>(Ok::<_, Error>(Shareable {
            waiters: dma.new_waiters()?,
            dma,
            enclosure,
        }))
    }

    /// How to wait for a transfer.
    #[derive(Clone)]
    enum Way {
        /// For an interrupt of the device.
        Interrupt,
        /// For one of another device.
        InterruptOf(Arc<crate::dma::Waiters>),
        /// Looking every so often.
        Polling(Delta),
    }

    /// All ways, of which each must end with the device's stop.
    fn ways() -> Result<[Way; 4]> {
        let mut other = None;

        with_platform_device(|pdev| {
            other = Some(Configured::get(pdev.as_ref())?.new_waiters()?);
            Ok(())
        })?;

        Ok([
            Way::Interrupt,
            Way::InterruptOf(other.ok_or(EINVAL)?),
            Way::Polling(TICK),
            Way::Polling(LONG),
        ])
    }

    /// Starts a transfer that never ends, and waits for it, for a long time. `proven` is whether
    /// the device is then known to have stopped.
    fn wait_for_ever(handle: &Handle, way: &Way, proven: bool) -> Result<Error> {
        handle.with(|device| {
            let mut slot = device.enclosure.transfers.lock();
            let transfer = slot.start(outbound(device.dma)?, 0..256, ())?;

            let outcome = match way {
                Way::Interrupt => transfer.wait(&device.waiters, LONG),
                Way::InterruptOf(waiters) => transfer.wait(waiters, LONG),
                Way::Polling(interval) => transfer.wait_polling(*interval, LONG),
            };

            match outcome {
                Ok(_) => Err(EINVAL),
                Err(e) => {
                    // If it is over, the buffer can be had.
                    if slot.take::<ToDevice>()?.is_none() == proven {
                        return Err(EINVAL);
                    }

                    Ok(e)
                }
            }
        })?
    }

    /// Waits until a transfer was started.
    fn until_started(puppet: &Puppet) {
        while puppet.started.load(Relaxed) == 0 {
            fsleep(TICK);
        }
    }

    /// Unbinding wakes whoever waits, and gives them their buffers.
    #[test]
    fn unbind_wakes_waiters() -> Result {
        for way in ways()? {
            let puppet = Puppet::new()?;
            let start = Instant::<Monotonic>::now();
            let mut waiter = None;

            on_each_bus(|pdev| {
                puppet.started.store(0, Relaxed);

                let (handle, way) = (share(pdev, &puppet)?, way.clone());

                let next = fixture::spawn(move || wait_for_ever(&handle, &way, true))?;

                if let Some(earlier) = waiter.replace(next) {
                    ensure!(earlier.join(|r| matches!(r, Ok(e) if *e == ESHUTDOWN))?);
                }

                until_started(&puppet);
                Ok(())
            })?;

            let last = waiter.ok_or(EINVAL)?;
            ensure!(last.join(|r| matches!(r, Ok(e) if *e == ESHUTDOWN))?);
            ensure!(start.elapsed() < LONG);
            ensure!(puppet.owners() == 0);
        }

        Ok(())
    }

    /// Without a proof there is nothing to wait for either.
    #[test]
    fn failed_stop_wakes_waiters() -> Result {
        for way in ways()? {
            on_each_bus(|pdev| {
                let puppet = Puppet::new()?;
                let start = Instant::<Monotonic>::now();

                puppet.on_stop(Outcome::Unproven);

                let handle = share(pdev, &puppet)?;
                let (theirs, way) = (handle.clone(), way.clone());
                let waiter = fixture::spawn(move || wait_for_ever(&theirs, &way, false))?;

                until_started(&puppet);
                ensure!(handle.with(|device| device.enclosure.stop())? == Outcome::Unproven);
                ensure!(waiter.join(|r| matches!(r, Ok(e) if *e == ESHUTDOWN))?);
                ensure!(start.elapsed() < LONG);

                puppet.on_stop(Outcome::Stopped);
                Ok(())
            })?;
        }

        Ok(())
    }

    /// While the device is stopped nothing is started.
    #[test]
    fn stop_closes() -> Result {
        /// Tries to start something.
        struct Intruder<'a>(Arc<Puppet>, Configured<'a>);

        // SAFETY: It accesses no memory.
        unsafe impl Quiesce for Intruder<'_> {
            fn device(&self) -> &Device {
                self.1.device()
            }

            fn forget(&mut self) -> Result {
                Ok(())
            }

            fn stop(&self) -> Outcome {
                self.0.stops.fetch_add(1, Relaxed);

                if self
                    .1
                    .binding()
                    .is_ok_and(|binding| binding.enter().is_ok())
                {
                    self.0.started.fetch_add(1, Relaxed);
                }

                Outcome::Stopped
            }
        }

        on_each_bus(|pdev| {
            let dev: &Device<Core<'_>> = pdev.as_ref();
            let puppet = Puppet::new()?;
            let intruder = Intruder(puppet.clone(), Configured::get(dev.bound())?);
            let enclosure = Enclosure::<u32>::new(dev, intruder, Ok::<_, Error>(0))?;

            enclosure.start()?;
            ensure!(enclosure.stop() == Outcome::Stopped);
            ensure!(puppet.stops.load(Relaxed) == 1 && puppet.started.load(Relaxed) == 0);
            Ok(())
        })
    }

    /// One thread stops and starts the device, another one uses it.
    #[test]
    #[slow]
    fn two_threads() -> Result {
        on_each_bus(|pdev| {
            let puppet = Puppet::new()?;
            let (before, lost) = (quarantined(), leaked());

            puppet.ends.store(1, Relaxed);

            let handle = share(pdev, &puppet)?;
            let theirs = handle.clone();
            let worker = fixture::spawn(move || -> Result<(u32, u32)> {
                let (mut done, mut refused) = (0, 0);

                // At the end the device runs, so something can be done.
                while done == 0 || done + refused < 2000 {
                    theirs.with(|device| {
                        let buf = outbound(device.dma)?;
                        let mut slot = device.enclosure.transfers.lock();

                        match slot
                            .start(buf, 0..256, ())
                            .map(|transfer| transfer.wait_polling(Delta::ZERO, LONG).map(drop))
                        {
                            Ok(Ok(())) => done += 1,
                            Ok(Err(e)) if e == ESHUTDOWN => {
                                refused += 1;
                                drop(slot.take::<ToDevice>()?.ok_or(EINVAL)?);
                            }
                            Err(e) if e.error == ESHUTDOWN => refused += 1,
                            _ => return Err(EINVAL),
                        }

                        Ok(())
                    })??;
                }

                Ok((done, refused))
            })?;

            for _ in 0..50 {
                handle.with(|device| {
                    ensure!(device.enclosure.stop() == Outcome::Stopped);
                    device.enclosure.start()
                })??;
            }

            ensure!(worker.join(|r| matches!(r, Ok((done, _)) if *done > 0))?);
            ensure!(quarantined() == before && leaked() == lost);
            Ok(())
        })
    }

    /// Events: the device doesn't run meanwhile, and afterwards only if it ran before.
    #[test]
    fn events() -> Result {
        on_each_bus(|pdev| {
            let dev: &Device<Core<'_>> = pdev.as_ref();
            let puppet = Puppet::new()?;
            let (_, enclosure) = enclose(dev, &puppet)?;

            // One that doesn't run isn't started, and can't be meanwhile.
            enclosure::pause(dev)?;
            ensure!(enclosure.start() == Err(EBUSY));
            ensure!(enclosure.restart() == Err(EBUSY));
            ensure!(enclosure::resume(dev) == Ok(false));
            ensure!(puppet.stops.load(Relaxed) == 1 && puppet.forgot.load(Relaxed) == 0);

            enclosure.start()?;
            enclosure::pause(dev)?;
            ensure!(puppet.stops.load(Relaxed) == 2);
            ensure!(enclosure.start() == Err(EBUSY));

            // They nest.
            enclosure::pause(dev)?;
            ensure!(enclosure::resume(dev) == Ok(false));
            ensure!(enclosure.start() == Err(EBUSY));

            // This driver can't go on, so that was that.
            ensure!(enclosure::resume(dev) == Ok(false));
            ensure!(enclosure.start() == Err(ESHUTDOWN));
            ensure!(puppet.forgot.load(Relaxed) == 1 && puppet.stops.load(Relaxed) == 2);

            // At the end it is made to forget all the same, once.
            enclosure::finish(dev);
            enclosure::finish(dev);
            ensure!(puppet.forgot.load(Relaxed) == 2 && puppet.stops.load(Relaxed) == 3);
            Ok(())
        })
    }

    /// The same with a driver that can go on.
    #[test]
    fn resumed() -> Result {
        fixture::resuming(|| {
            on_each_bus(|pdev| {
                let dev: &Device<Core<'_>> = pdev.as_ref();
                let puppet = Puppet::new()?;
                let (_, enclosure) = enclose(dev, &puppet)?;
                let counts = || (puppet.forgot.load(Relaxed), puppet.stops.load(Relaxed));

                enclosure.start()?;
                enclosure::pause(dev)?;
                enclosure::pause(dev)?;
                ensure!(enclosure::resume(dev) == Ok(false));
                ensure!(counts() == (1, 1));
                ensure!(enclosure::resume(dev) == Ok(true));
                ensure!(counts() == (2, 1));

                // Stopped on purpose meanwhile: it stays so.
                enclosure::pause(dev)?;
                enclosure.stop();
                ensure!(enclosure::resume(dev) == Ok(false));
                // Restarted meanwhile: it runs afterwards.
                enclosure.start()?;
                enclosure::pause(dev)?;
                ensure!(enclosure.restart() == Err(EBUSY));
                ensure!(enclosure::resume(dev) == Ok(true));
                enclosure.restart()?;
                ensure!(counts() == (5, 4));

                // Without a proof it should not come to the event.
                puppet.on_stop(Outcome::Unproven);
                ensure!(enclosure::pause(dev) == Err(EBUSY));
                ensure!(enclosure::resume(dev) == Ok(true));

                // Who was gone may be back after a reset.
                puppet.on_stop(Outcome::Gone);
                enclosure::pause(dev)?;
                ensure!(enclosure.start() == Err(EBUSY));
                ensure!(enclosure::resume(dev) == Ok(true));

                // It doesn't forget: no start.
                puppet.on_stop(Outcome::Stopped);
                enclosure::pause(dev)?;
                puppet.forgets.store(0, Relaxed);
                ensure!(enclosure::resume(dev) == Err(ETIMEDOUT));
                puppet.forgets.store(1, Relaxed);

                enclosure.start()?;
                enclosure::finish(dev);
                ensure!(enclosure.start() == Err(ESHUTDOWN));
                enclosure::pause(dev)?;
                ensure!(enclosure::resume(dev) == Ok(false));
                Ok(())
            })
        })
    }

    /// The system doesn't go to sleep while a device runs whose driver can't go on afterwards.
    #[cfg(CONFIG_PM_SLEEP)]
    #[test]
    fn refuses_to_sleep() -> Result {
        with_platform_device(|pdev| {
            let puppet = Puppet::new()?;
            let (_, enclosure) = enclose(pdev.as_ref(), &puppet)?;

            enclosure.start()?;
            // `PM_SUSPEND_TO_IDLE`, which bindgen doesn't see through.
            //
            // SAFETY: No requirements, but that it may sleep.
            let ret = unsafe { crate::bindings::pm_suspend(1) };

            ensure!(crate::error::to_result(ret) == Err(EBUSY));
            ensure!(puppet.stops.load(Relaxed) == 0);
            Ok(())
        })
    }

    /// A probe that fails, with the device at work: it is stopped all the same, and all goes.
    #[test]
    fn failed_probe() -> Result {
        let puppet = Puppet::new()?;
        let lost = leaked();

        fixture::failing(|| {
            let outcome = with_platform_device(|pdev| {
                let (dma, enclosure) = enclose(pdev.as_ref(), &puppet)?;

                enclosure.start()?;
                let _ = enclosure
                    .transfers
                    .lock()
                    .start(outbound(dma)?, 0..256, ())?;
                drop(enclosure);
                ensure!(puppet.owners() == 1);
                Err(EPROTO)
            });

            ensure!(outcome == Err(EPROTO));
            Ok(())
        })?;

        ensure!(puppet.stops.load(Relaxed) == 1);
        ensure!(puppet.owners() == 0 && leaked() == lost);
        Ok(())
    }

    /// Guards that are forgotten: the device is stopped all the same, and nothing is freed.
    #[test]
    fn forgotten() -> Result {
        type Forgotten<'a> = (
            Shared<ForLt!(Owner)>,
            TestEnclosure<'a>,
            Streaming<'a, KVec<u8>, FromDevice>,
            StreamingBox<'a, KVec<u8>, ToDevice>,
        );

        // What is forgotten, so that kmemleak doesn't take it for lost.
        static FORGOTTEN: SetOnce<ManuallyDrop<Forgotten<'static>>> = SetOnce::new();

        let puppet = Puppet::new()?;
        let lost = leaked();

        with_platform_device(|pdev| {
            let (dma, enclosure) = enclose(pdev.as_ref(), &puppet)?;

            enclosure.start()?;
            let _ = enclosure
                .transfers
                .lock()
                .start(outbound(dma)?, 0..256, ())?;

            let dev: &Device<Core<'_>> = pdev.as_ref();
            let forgotten: Forgotten<'_> = (
                dev.share::<ForLt!(Owner)>(Ok::<_, Error>(puppet.owner()))?,
                enclosure,
                Streaming::map(dma, bytes()?)?,
                StreamingBox::map(dma, bytes()?)?,
            );

            // SAFETY: Only the lifetime changes, and nobody uses it.
            let forgotten =
                unsafe { core::mem::transmute::<Forgotten<'_>, Forgotten<'static>>(forgotten) };

            FORGOTTEN.populate(ManuallyDrop::new(forgotten));
            Ok(())
        })?;

        ensure!(puppet.stops.load(Relaxed) == 1);
        ensure!(puppet.owners() == 1 && leaked() == lost);
        Ok(())
    }
}

/// Devices that access memory, on simulated buses.
#[cfg(CONFIG_RUST_DMA_SIM)]
#[kunit_tests(rust_dma_enclosure_sim)]
mod on_sim {
    use super::*;
    use crate::dma::sim::{
        self,
        Clock,
        Copier,
        CopyEngine,
        Fate,
        Fault,
        Model,
        Script,
        Sim,
        Stop, //
    };
    use crate::irq;

    const MEMORY: usize = 256;

    type SimEnclosure<'a> = Enclosure<'a, Mutex<Slot<'a, Copier, KVec<u8>>>>;

    fn enclose<'a>(
        dev: &Device<Core<'a>>,
        sim: &Arc<Sim>,
    ) -> Result<(Configured<'a>, SimEnclosure<'a>, Arc<CopyEngine>)> {
        let dma = Configured::get(dev.bound())?;
        let engine = CopyEngine::new(sim, MEMORY)?;
        let slot = Slot::new(dma, Copier(engine.clone()))?;
        let enclosure = Enclosure::new(dev, Copier(engine.clone()), locked(slot))?;

        enclosure.start()?;
        Ok((dma, enclosure, engine))
    }

    #[inline(never)]
    fn locked<'a>(
        it: Slot<'a, Copier, KVec<u8>>,
    ) -> impl PinInit<Mutex<Slot<'a, Copier, KVec<u8>>>> {
        new_mutex!(it)
    }

    /// Gives the device a buffer to write to.
    fn give<'a>(dma: Configured<'a>, enclosure: &SimEnclosure<'a>) -> Result {
        let back = Streaming::<_, FromDevice>::map(dma, bytes()?)?;
        let mut slot = enclosure.lock();
        let _ = slot.start(back, 0..MEMORY, 0)?;

        Ok(())
    }

    /// A stop that works: what was in flight is ours, nothing is left mapped at unbind, and nothing
    /// is written later.
    #[test]
    fn works() -> Result {
        for then_drop in [false, true] {
            sim::run_on_each(
                Script::new(Model::Coherent).fate(Fate::after(10)),
                |pdev, sim| {
                    let (dma, enclosure, _) = enclose(pdev.as_ref(), sim)?;

                    give(dma, &enclosure)?;
                    if then_drop {
                        drop(enclosure);
                        return Ok(());
                    }

                    ensure!(enclosure.stop() == Outcome::Stopped);

                    let back = enclosure.lock().take::<FromDevice>()?.ok_or(EINVAL)?;
                    let back = back.unmap();

                    sim.advance(100);
                    ensure!(back == bytes()?);
                    ensure!(sim.counters().accesses == 0 && sim.counters().live == 0);
                    Ok(())
                },
            )?;
        }

        Ok(())
    }

    /// A device that doesn't stop keeps what it has: it writes there, and nowhere else; nothing is
    /// freed or unmapped under it, whatever is dropped. If it comes to its end by itself, that is
    /// noticed at unbind; if not, it is leaked.
    #[test]
    fn hangs() -> Result {
        let lost = leaked();

        for ends in [false, true] {
            let fate = if ends { Fate::after(50) } else { Fate::never() };
            // A device that is at work when its driver is gone: the run complains of that.
            let outcome = sim::run(
                Script::new(Model::NonCoherent).fate(fate).stop(Stop::Hangs),
                |pdev, sim| {
                    let (dma, enclosure, _) = enclose(pdev.as_ref(), sim)?;

                    give(dma, &enclosure)?;
                    ensure!(enclosure.stop() == Outcome::Unproven);
                    ensure!(enclosure.lock().take::<FromDevice>()?.is_none());
                    ensure!(sim.counters().unmaps == 0);

                    drop(enclosure);

                    if ends {
                        sim.advance(100);
                        // Where it may: in what is kept.
                        ensure!(sim.counters().accesses == 1);
                        ensure!(sim.counters().unmaps == 0);
                    } else {
                        ensure!(sim.take_leaks() == 1);
                    }

                    Ok(())
                },
            );

            // The first one, and no other.
            ensure!(leaked() == lost + 1);
            ensure!(outcome.is_ok() == ends);
        }

        Ok(())
    }

    /// A device that hung, and comes to its end later: the next stop is the proof.
    #[test]
    fn hangs_for_a_while() -> Result {
        sim::run_on_each(
            Script::new(Model::Coherent)
                .fate(Fate::after(20))
                .stop(Stop::Hangs),
            |pdev, sim| {
                let (dma, enclosure, _) = enclose(pdev.as_ref(), sim)?;
                let before = leaked();

                give(dma, &enclosure)?;
                ensure!(enclosure.stop() == Outcome::Unproven);

                sim.advance(100);
                // It never says that it has stopped, but it forgets, which is as good.
                enclosure.start()?;

                let back = enclosure.lock().take::<FromDevice>()?.ok_or(EINVAL)?;
                ensure!(back.bytes().is_empty());
                drop((back, enclosure));

                ensure!(leaked() == before);
                Ok(())
            },
        )
    }

    /// A device that is found to be gone: nothing is leaked.
    #[test]
    fn gone() -> Result {
        let lost = leaked();

        for pulled in [false, true] {
            sim::run_on_each(
                Script::new(Model::Coherent)
                    .fate(Fate::never())
                    .stop(Stop::Gone),
                |pdev, sim| {
                    let (dma, enclosure, _) = enclose(pdev.as_ref(), sim)?;

                    give(dma, &enclosure)?;
                    if pulled {
                        sim.pull();
                        ensure!(enclosure.lock().take::<FromDevice>().is_err());
                    }

                    ensure!(enclosure.stop() == Outcome::Gone);
                    ensure!(enclosure.lock().take::<FromDevice>()?.is_some());
                    ensure!(sim.counters().live == 0);
                    ensure!(enclosure.start() == Err(ENODEV));
                    Ok(())
                },
            )?;
        }

        ensure!(leaked() == lost);
        Ok(())
    }

    /// A device that says that it has stopped, and goes on: that disobeys, which nobody but an
    /// IOMMU can help; the bus sees it. With bus mastering off it does no harm.
    #[test]
    fn lies() -> Result {
        for gated in [false, true] {
            sim::run_on_each(
                Script::new(Model::Coherent)
                    .fate(Fate::after(20))
                    .stop(Stop::Lies),
                |pdev, sim| {
                    let (dma, enclosure, _) = enclose(pdev.as_ref(), sim)?;

                    give(dma, &enclosure)?;
                    ensure!(enclosure.stop() == Outcome::Stopped);
                    sim.set_bus_master(!gated);
                    sim.advance(100);

                    let faults = sim.take_faults()?;

                    if gated {
                        ensure!(faults.is_empty() && sim.counters().blocked == 1);
                    } else {
                        ensure!(faults[..] == [Fault::AfterStop]);
                    }

                    Ok(())
                },
            )?;
        }

        Ok(())
    }

    /// Whatever is dropped in an interrupt handler: nothing sleeps, nothing is lost.
    #[test]
    fn dropped_in_interrupt() -> Result {
        #[pin_data]
        struct Handler {
            #[pin]
            drops: crate::sync::SpinLockIrq<Option<KBox<dyn Send>>>,
        }

        impl irq::Handler for Handler {
            fn handle(&self) -> irq::IrqReturn {
                let dropped = self.drops.lock().take();

                drop(dropped);
                irq::IrqReturn::Handled
            }
        }

        /// Has an interrupt handler drop `what`.
        fn drop_there<'a, T: Send + 'a>(
            sim: &Arc<Sim>,
            engine: &Arc<CopyEngine>,
            dma: Configured<'_>,
            what: T,
        ) -> Result {
            let what: KBox<dyn Send + 'a> = KBox::new(what, GFP_KERNEL)?;
            // SAFETY: Only the lifetime changes; it is dropped before this function returns.
            let what = unsafe {
                core::mem::transmute::<KBox<dyn Send + 'a>, KBox<dyn Send + 'static>>(what)
            };
            let handler = Arc::pin_init(
                pin_init!(Handler { drops <- crate::new_spinlock_irq!(Some(what)) }),
                GFP_KERNEL,
            )?;
            let connection = sim.connect(handler.clone(), Clock::Looks)?;
            let out = Streaming::<_, ToDevice>::map(dma, bytes()?)?;
            // SAFETY: The device gets it below.
            let address = unsafe { out.address().to_bits() };

            engine.command(address, 64, 0, false)?;
            sim.advance(100);
            drop(connection);
            ensure!(handler.drops.lock().is_none());

            let mut slot = Slot::new(dma, Copier(engine.clone()))?;
            drop(slot.start(out, 0..64, 0)?.wait_polling(Delta::ZERO, LONG)?);
            Ok(())
        }

        sim::run_on_each(
            Script::new(Model::Coherent).fate(Fate::after(1)),
            |pdev, sim| {
                let (dma, enclosure, engine) = enclose(pdev.as_ref(), sim)?;
                let binding = dma.binding()?;
                let in_flight =
                    || Streaming::<_, FromDevice>::map(dma, bytes().unwrap_or_default());

                drop_there(sim, &engine, dma, in_flight()?)?;
                ensure!(binding.counts() == (1, 0));
                drop_there(
                    sim,
                    &engine,
                    dma,
                    StreamingBox::<_, ToDevice>::map(dma, bytes()?)?,
                )?;
                ensure!(binding.counts() == (1, 0));

                give(dma, &enclosure)?;
                sim.advance(5);
                drop_there(sim, &engine, dma, enclosure)?;
                ensure!(binding.counts() == (1, 0));
                Ok(())
            },
        )
    }
}
