// SPDX-License-Identifier: GPL-2.0

//! Tests of the session, with a device that stops or doesn't as it is told.

use super::{
    ensure,
    fixture::{
        self,
        on_each_bus,
        with_platform_device,
        with_platform_device_twice,
        with_platform_driver, //
    }, //
};
use crate::{
    device::{
        Core,
        Device, //
    },
    devres::DevresSrcu,
    dma::{
        leaked,
        mapping::{
            leaks::MAX_LEAKED_PAGES,
            orphan::{
                put_away,
                Orphan, //
            },
        },
        quarantined,
        session::{
            self as events,
            control::Control, //
        },
        transfer::{
            Engine,
            Progress,
            Request,
            TransferSlot, //
        },
        Constraints,
        DmaMask,
        FromDevice,
        Mapper,
        Quiesce,
        Session,
        StopOutcome,
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

const TICK: Delta = Delta::from_millis(1);
const LONG: Delta = Delta::from_secs(10);

/// What the device does, and how often it was asked. Touches no memory.
struct Puppet {
    /// What comes of a stop: an [`StopOutcome`].
    outcome: Atomic<u32>,
    /// Whether it can be disarmed.
    disarms: Atomic<u32>,
    stops: Atomic<u32>,
    disarmed: Atomic<u32>,
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
                outcome: Atomic::new(StopOutcome::Stopped as u32),
                disarms: Atomic::new(1),
                stops: Atomic::new(0),
                disarmed: Atomic::new(0),
                owners: Atomic::new(0),
                started: Atomic::new(0),
                ends: Atomic::new(0),
            },
            GFP_KERNEL,
        )?)
    }

    fn on_stop(&self, outcome: StopOutcome) {
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

    fn limits(&self) -> Constraints {
        Constraints::new(DmaMask::new::<64>())
    }

    fn disarm(&mut self) -> Result {
        if self.0.disarms.load(Relaxed) == 0 {
            return Err(ETIMEDOUT);
        }

        self.0.disarmed.fetch_add(1, Relaxed);
        Ok(())
    }

    fn quiesce(&self) -> StopOutcome {
        self.0.stops.fetch_add(1, Relaxed);

        [
            StopOutcome::Stopped,
            StopOutcome::Gone,
            StopOutcome::Unproven,
        ]
        .into_iter()
        .find(|&outcome| outcome as u32 == self.0.outcome.load(Relaxed))
        .unwrap_or(StopOutcome::Unproven)
    }
}

struct PuppetEngine<'a>(Arc<Puppet>, Mapper<'a>);

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

type TestSlot<'a> = TransferSlot<'a, PuppetEngine<'a>, KVec<u8>>;

/// What the device may touch.
#[pin_data]
struct Contents<'a> {
    #[pin]
    transfers: Mutex<TestSlot<'a>>,
    _owner: Owner,
}

type TestSession<'a> = Session<'a, Contents<'a>>;

fn new_session<'a>(
    dev: &Device<Core<'a>>,
    puppet: &Arc<Puppet>,
) -> Result<(Mapper<'a>, TestSession<'a>)> {
    let dma = Mapper::get(dev.bound())?;
    let slot = TransferSlot::new(dma, PuppetEngine(puppet.clone(), dma))?;

    Ok((
        dma,
        Session::new(
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

fn outbound(dma: Mapper<'_>) -> Result<Streaming<'_, KVec<u8>, ToDevice>> {
    Ok(Streaming::map(dma, bytes()?)?)
}

/// A buffer of which the device may have been told.
fn shown(dma: Mapper<'_>) -> Result<Streaming<'_, KVec<u8>, ToDevice>> {
    let buf = outbound(dma)?;

    buf.address();
    Ok(buf)
}

#[kunit_tests(rust_dma_session)]
mod cases {
    use super::*;

    /// The device is disarmed before each start, and stopped once for each.
    #[test]
    fn start_and_stop() -> Result {
        on_each_bus(|pdev| {
            let puppet = Puppet::new()?;
            let (_, session) = new_session(pdev.as_ref(), &puppet)?;
            let counts = || (puppet.disarmed.load(Relaxed), puppet.stops.load(Relaxed));

            ensure!(counts() == (0, 0));
            session.start()?;
            session.start()?;
            ensure!(counts() == (1, 0));

            ensure!(session.stop() == StopOutcome::Stopped);
            ensure!(session.stop() == StopOutcome::Stopped);
            ensure!(counts() == (1, 1));

            session.start()?;
            ensure!(counts() == (2, 1));
            Ok(())
        })
    }

    /// One a bind, also when the first one is gone; its contents go, but not its stop.
    #[test]
    fn one_a_bind() -> Result {
        let puppet = Puppet::new()?;

        with_platform_device(|pdev| {
            let (_, first) = new_session(pdev.as_ref(), &puppet)?;

            ensure!(matches!(new_session(pdev.as_ref(), &puppet), Err(e) if e == EBUSY));
            first.start()?;
            drop(first);
            ensure!(matches!(new_session(pdev.as_ref(), &puppet), Err(e) if e == EBUSY));
            ensure!(puppet.owners() == 1);
            ensure!(puppet.stops.load(Relaxed) == 0);
            Ok(())
        })?;

        ensure!(puppet.stops.load(Relaxed) == 1);
        ensure!(puppet.owners() == 0);
        Ok(())
    }

    /// A driver whose session is a field of its private data, next to what borrows the device.
    struct Natural;

    struct NaturalData<'bound> {
        session: TestSession<'bound>,
        buf: Streaming<'bound, KVec<u8>, FromDevice>,
        puppet: Arc<Puppet>,
    }

    /// The device of [`Natural`].
    static NATURAL: SetOnce<Arc<Puppet>> = SetOnce::new();

    impl platform::DmaDriver for Natural {
        type IdInfo = ();
        type Data<'bound> = NaturalData<'bound>;

        fn dma_constraints(_dev: &platform::Device, _info: Option<&()>) -> Result<Constraints> {
            Ok(Constraints::new(DmaMask::new::<64>()))
        }

        fn probe<'bound>(
            pdev: &platform::Device<Core<'bound>>,
            _info: Option<&'bound ()>,
        ) -> impl PinInit<NaturalData<'bound>, Error> {
            pin_init::pin_init_scope(move || {
                let puppet = NATURAL.as_ref().ok_or(EINVAL)?.clone();
                let (dma, session) = new_session(pdev.as_ref(), &puppet)?;
                let buf = Streaming::map(dma, KVec::from_elem(0, 256, GFP_KERNEL)?)?;

                session.start()?;
                buf.address();

                Ok(Ok::<_, Error>(NaturalData {
                    session,
                    buf,
                    puppet,
                }))
            })
        }

        fn unbind<'bound>(_dev: &platform::Device<Core<'bound>>, this: Pin<&NaturalData<'bound>>) {
            // Not stopped yet.
            if this.session.running().is_ok() && this.buf.address().len() == 256 {
                this.puppet.ends.store(7, Relaxed);
            }
        }
    }

    /// A session can be private data, as upstream's resources can. The device is stopped after the
    /// driver's `unbind()`, and before its data is dropped, so all in it is freed at once.
    #[test]
    fn as_private_data() -> Result {
        let before = (quarantined(), leaked());

        NATURAL.populate(Puppet::new()?);

        let puppet = NATURAL.as_ref().ok_or(EINVAL)?;
        let stops = puppet.stops.load(Relaxed);

        with_platform_driver::<Natural>()?;

        ensure!(puppet.ends.load(Relaxed) == 7);
        ensure!(puppet.stops.load(Relaxed) == stops + 1);
        ensure!(puppet.owners() == 0);
        ensure!((quarantined(), leaked()) == before);
        Ok(())
    }

    /// Not without a set-up.
    #[test]
    fn not_configured() -> Result {
        fixture::on_each_bus_set_up(None, |pdev| {
            let puppet = Puppet::new()?;
            let dev: &Device<Core<'_>> = pdev.as_ref();
            let refused = Session::<u32>::new(dev, Strings(puppet, dev.bound()), Ok::<_, Error>(0));

            ensure!(matches!(refused, Err(e) if e == EINVAL));
            Ok(())
        })
    }

    /// An engine, or a stop, of another device: its word means nothing for this one.
    #[test]
    fn other_device() -> Result {
        on_each_bus(|pdev| {
            let dev: &Device<Core<'_>> = pdev.as_ref();
            let dma = Mapper::get(dev.bound())?;
            // SAFETY: The platform bus is a device, which is there for good.
            let other = unsafe { Device::from_raw(&raw mut crate::bindings::platform_bus) };
            let puppet = Puppet::new()?;

            ensure!(matches!(
                TransferSlot::<_, KVec<u8>>::new(dma, Elsewhere(other)),
                Err(e) if e == EINVAL
            ));
            ensure!(matches!(
                Session::<u32>::new(dev, Strings(puppet, other), Ok::<_, Error>(0)),
                Err(e) if e == EINVAL
            ));
            Ok(())
        })
    }

    /// A device that is used for more than its hardware takes.
    #[test]
    fn beyond_the_hardware() -> Result {
        struct Narrow<'a>(&'a Device);

        // SAFETY: It accesses no memory.
        unsafe impl Quiesce for Narrow<'_> {
            fn device(&self) -> &Device {
                self.0
            }

            fn limits(&self) -> Constraints {
                Constraints::new(DmaMask::new::<28>())
            }

            fn disarm(&mut self) -> Result {
                Ok(())
            }
        }

        on_each_bus(|pdev| {
            let dev: &Device<Core<'_>> = pdev.as_ref();
            let refused = Session::<u32>::new(dev, Narrow(dev.bound()), Ok::<_, Error>(0));

            ensure!(matches!(refused, Err(e) if e == EINVAL));
            Ok(())
        })
    }

    /// A device that relies on its bus, which proves nothing.
    #[test]
    fn neither_proves() -> Result {
        struct Silent<'a>(&'a Device);

        // SAFETY: It accesses no memory.
        unsafe impl Quiesce for Silent<'_> {
            const HEEDS_BUS: bool = true;

            fn device(&self) -> &Device {
                self.0
            }

            fn limits(&self) -> Constraints {
                Constraints::new(DmaMask::new::<64>())
            }

            fn disarm(&mut self) -> Result {
                Ok(())
            }
        }

        on_each_bus(|pdev| {
            let dev: &Device<Core<'_>> = pdev.as_ref();
            let session = Session::<u32>::new(dev, Silent(dev.bound()), Ok::<_, Error>(0))?;

            session.start()?;
            ensure!(session.stop() == StopOutcome::Unproven);
            // That it is disarmed is the proof.
            session.start()
        })
    }

    /// Nothing is shown before the start, and what comes back is whole.
    #[test]
    fn closed_until_started() -> Result {
        on_each_bus(|pdev| {
            let puppet = Puppet::new()?;
            let (dma, session) = new_session(pdev.as_ref(), &puppet)?;
            let (before, lost) = (quarantined(), leaked());

            ensure!(matches!(session.running(), Err(e) if e == ESHUTDOWN));

            let mut slot = session.transfers.lock();
            let Err(refused) = slot.start(outbound(dma)?, 0..256, ()) else {
                return Err(EINVAL);
            };

            ensure!(refused.error == ESHUTDOWN && puppet.started.load(Relaxed) == 0);
            ensure!(refused.value.take_back().map_err(|_| EINVAL)?.unmap() == bytes()?);
            drop(slot);

            session.start()?;
            ensure!(session.running().is_ok());
            ensure!(session.stop() == StopOutcome::Stopped);
            ensure!(matches!(session.running(), Err(e) if e == ESHUTDOWN));
            ensure!(quarantined() == before && leaked() == lost);
            Ok(())
        })
    }

    /// A device that can't be disarmed isn't started, and may be asked again.
    #[test]
    fn cannot_be_disarmed() -> Result {
        on_each_bus(|pdev| {
            let puppet = Puppet::new()?;
            let (dma, session) = new_session(pdev.as_ref(), &puppet)?;

            puppet.disarms.store(0, Relaxed);
            ensure!(session.start() == Err(ETIMEDOUT));

            let mut slot = session.transfers.lock();
            let refused = slot.start(outbound(dma)?, 0..256, ());
            ensure!(matches!(refused, Err(e) if e.error == ESHUTDOWN));
            ensure!(puppet.started.load(Relaxed) == 0);
            drop(slot);

            puppet.disarms.store(1, Relaxed);
            session.start()?;
            puppet.ends.store(1, Relaxed);

            let mut slot = session.transfers.lock();
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
            let (dma, session) = new_session(pdev.as_ref(), &puppet)?;

            session.start()?;

            for restart in [false, true] {
                let back = Streaming::<_, FromDevice>::map(dma, bytes()?)?;

                let _ = session.transfers.lock().start(back, 0..256, ())?;
                ensure!(session.transfers.lock().take::<FromDevice>()?.is_none());

                ensure!(session.stop() == StopOutcome::Stopped);
                if restart {
                    session.start()?;
                }

                // Whatever the hardware says of it now.
                puppet.ends.store(1, Relaxed);

                let back = session
                    .transfers
                    .lock()
                    .take::<FromDevice>()?
                    .ok_or(EINVAL)?;
                ensure!(back.bytes().is_empty());
                ensure!(back.unmap() == bytes()?);

                puppet.ends.store(0, Relaxed);
                session.start()?;
            }

            Ok(())
        })
    }

    /// After a stop nothing is started, and what was offered comes back as it was.
    #[test]
    fn nothing_starts_when_stopped() -> Result {
        on_each_bus(|pdev| {
            let puppet = Puppet::new()?;
            let (dma, session) = new_session(pdev.as_ref(), &puppet)?;

            session.start()?;

            for outcome in [
                StopOutcome::Unproven,
                StopOutcome::Stopped,
                StopOutcome::Gone,
            ] {
                puppet.on_stop(outcome);
                ensure!(session.stop() == outcome);

                match session.transfers.lock().start(outbound(dma)?, 0..256, ()) {
                    Err(e) => {
                        ensure!(e.error == ESHUTDOWN);

                        let buf = e.value.take_back().map_err(|_| EINVAL)?;
                        ensure!(buf.unmap() == bytes()?);
                    }
                    Ok(_) => return Err(EINVAL),
                }

                if outcome == StopOutcome::Stopped {
                    session.start()?;
                }
            }

            ensure!(puppet.started.load(Relaxed) == 0);
            // It doesn't come back.
            ensure!(session.start() == Err(ENODEV));
            Ok(())
        })
    }

    /// Dropped in flight: kept until there is a proof. Dropped after it: freed at once.
    #[test]
    fn dropped_streaming() -> Result {
        on_each_bus(|pdev| {
            let puppet = Puppet::new()?;
            let (dma, session) = new_session(pdev.as_ref(), &puppet)?;
            let (before, lost) = (quarantined(), leaked());
            let control = Control::find(dma.bound()).ok_or(EINVAL)?;

            // The device never ran: it can't have been told.
            drop(shown(dma)?);
            ensure!(control.counts() == (0, 0));

            session.start()?;
            drop(shown(dma)?);
            ensure!(control.counts() == (1, 0));

            // To be disarmed is a proof, too.
            session.restart()?;
            ensure!(control.counts() == (1, 1));

            // Nobody asked for the address.
            drop(outbound(dma)?);
            ensure!(control.counts() == (1, 1));

            drop((shown(dma)?, shown(dma)?));
            ensure!(control.counts() == (3, 1));

            puppet.on_stop(StopOutcome::Unproven);
            ensure!(session.stop() == StopOutcome::Unproven);
            drop(shown(dma)?);
            ensure!(control.counts() == (4, 1));

            // The next attempt does better.
            puppet.on_stop(StopOutcome::Stopped);
            ensure!(session.stop() == StopOutcome::Stopped);
            ensure!(control.counts() == (4, 4));

            drop(shown(dma)?);
            ensure!(control.counts() == (4, 4));
            ensure!(quarantined() == before + 4 && leaked() == lost);
            Ok(())
        })
    }

    /// What is in the session is freed with a proof, before or after the session goes.
    #[test]
    fn contents_go_with_a_proof() -> Result {
        let puppet = Puppet::new()?;

        with_platform_device(|pdev| {
            let (_, session) = new_session(pdev.as_ref(), &puppet)?;

            session.start()?;
            ensure!(session.stop() == StopOutcome::Stopped);
            drop(session);
            ensure!(puppet.owners() == 0);
            Ok(())
        })?;

        with_platform_device(|pdev| {
            let (_, session) = new_session(pdev.as_ref(), &puppet)?;

            session.start()?;
            drop(session);
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

        // SAFETY: 1. There is nothing to release. 2. It borrows nothing.
        unsafe impl Orphan for Huge {
            const ACCIDENT: bool = true;

            fn bytes(&self) -> usize {
                MAX_LEAKED_PAGES * PAGE_SIZE
            }

            unsafe fn release(self) {}
        }

        let puppet = Puppet::new()?;
        let before = leaked();

        puppet.on_stop(StopOutcome::Unproven);
        let once = with_platform_device_twice(
            |pdev| {
                let (_, session) = new_session(pdev.as_ref(), &puppet)?;

                session.start()?;
                puppet.disarms.store(0, Relaxed);

                // There is nothing more that an event could wait for.
                events::finish(pdev.as_ref());
                ensure!(session.start() == Err(ESHUTDOWN));
                ensure!(events::pause(pdev.as_ref()) == Ok(()));
                ensure!(events::resume(pdev.as_ref()) == Ok(false));
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
                let (dma, session) = new_session(pdev.as_ref(), &puppet)?;

                puppet.disarms.store(1, Relaxed);
                session.start()?;
                puppet.disarms.store(0, Relaxed);
                put_away(dma.device(), dma.record(), None, Huge);
                Ok(())
            },
            |_| Ok(()),
        )?;
        ensure!(leaked() == before + 3);
        // Not probed at all.
        ensure!(too_often == Err(ENODEV));
        Ok(())
    }

    type Handle = DevresSrcu<ForLt!(Shareable<'_>)>;

    struct Shareable<'a> {
        dma: Mapper<'a>,
        session: TestSession<'a>,
        waiters: Arc<crate::sync::WaitQueue>,
    }

    fn share(pdev: &platform::Device<Core<'_>>, puppet: &Arc<Puppet>) -> Result<Handle> {
        share_device(pdev.as_ref(), puppet)
    }

    fn share_device<'a>(dev: &Device<Core<'a>>, puppet: &Arc<Puppet>) -> Result<Handle> {
        let (dma, session) = new_session(dev, puppet)?;

        session.start()?;
        DevresSrcu::<ForLt!(Shareable<'_>)>::new(
            dev,
            Ok::<_, Error>(Shareable {
                waiters: Arc::pin_init(crate::new_wait_queue!("dma::tests"), GFP_KERNEL)?,
                dma,
                session,
            }),
        )
    }

    /// How to wait for a transfer.
    #[derive(Clone)]
    enum Way {
        /// For an interrupt of the device.
        Interrupt,
        /// For one of another device.
        InterruptOf(Arc<crate::sync::WaitQueue>),
        /// Looking every so often.
        Polling(Delta),
    }

    /// All ways, of which each must end with the device's stop.
    fn ways() -> Result<[Way; 4]> {
        let mut other = None;

        with_platform_device(|_| {
            other = Some(Arc::pin_init(
                crate::new_wait_queue!("dma::tests"),
                GFP_KERNEL,
            )?);
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
        handle.try_access_with(|device| {
            let mut slot = device.session.transfers.lock();
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

                puppet.on_stop(StopOutcome::Unproven);

                let handle = share(pdev, &puppet)?;
                let (theirs, way) = (handle.clone(), way.clone());
                let waiter = fixture::spawn(move || wait_for_ever(&theirs, &way, false))?;

                until_started(&puppet);
                ensure!(
                    handle.try_access_with(|device| device.session.stop())?
                        == StopOutcome::Unproven
                );
                ensure!(waiter.join(|r| matches!(r, Ok(e) if *e == ESHUTDOWN))?);
                ensure!(start.elapsed() < LONG);

                puppet.on_stop(StopOutcome::Stopped);
                Ok(())
            })?;
        }

        Ok(())
    }

    /// While the device is stopped nothing is started.
    #[test]
    fn stop_closes() -> Result {
        /// Tries to start something.
        struct Intruder<'a>(Arc<Puppet>, Mapper<'a>);

        // SAFETY: It accesses no memory.
        unsafe impl Quiesce for Intruder<'_> {
            fn device(&self) -> &Device {
                self.1.device()
            }

            fn limits(&self) -> Constraints {
                Constraints::new(DmaMask::new::<64>())
            }

            fn disarm(&mut self) -> Result {
                Ok(())
            }

            fn quiesce(&self) -> StopOutcome {
                self.0.stops.fetch_add(1, Relaxed);

                if self.1.running().is_ok() {
                    self.0.started.fetch_add(1, Relaxed);
                }

                StopOutcome::Stopped
            }
        }

        on_each_bus(|pdev| {
            let dev: &Device<Core<'_>> = pdev.as_ref();
            let puppet = Puppet::new()?;
            let intruder = Intruder(puppet.clone(), Mapper::get(dev.bound())?);
            let session = Session::<u32>::new(dev, intruder, Ok::<_, Error>(0))?;

            session.start()?;
            ensure!(session.stop() == StopOutcome::Stopped);
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
                    theirs.try_access_with(|device| {
                        let buf = outbound(device.dma)?;
                        let mut slot = device.session.transfers.lock();

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
                handle.try_access_with(|device| {
                    ensure!(device.session.stop() == StopOutcome::Stopped);
                    device.session.start()
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
            let (_, session) = new_session(dev, &puppet)?;

            // One that doesn't run isn't started, and can't be meanwhile.
            events::pause(dev)?;
            ensure!(session.start() == Err(EBUSY));
            ensure!(session.restart() == Err(EBUSY));
            ensure!(events::resume(dev) == Ok(false));
            ensure!(puppet.stops.load(Relaxed) == 0 && puppet.disarmed.load(Relaxed) == 0);

            session.start()?;
            events::pause(dev)?;
            ensure!(puppet.stops.load(Relaxed) == 1);
            ensure!(session.start() == Err(EBUSY));

            // They nest.
            events::pause(dev)?;
            ensure!(events::resume(dev) == Ok(false));
            ensure!(session.start() == Err(EBUSY));

            // This driver can't go on, so that was that.
            ensure!(events::resume(dev) == Ok(false));
            ensure!(session.start() == Err(ESHUTDOWN));
            ensure!(puppet.disarmed.load(Relaxed) == 1 && puppet.stops.load(Relaxed) == 1);

            // At the end it is disarmed all the same, once.
            events::finish(dev);
            events::finish(dev);
            ensure!(puppet.disarmed.load(Relaxed) == 2 && puppet.stops.load(Relaxed) == 2);
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
                let (_, session) = new_session(dev, &puppet)?;
                let counts = || (puppet.disarmed.load(Relaxed), puppet.stops.load(Relaxed));

                session.start()?;
                events::pause(dev)?;
                events::pause(dev)?;
                ensure!(events::resume(dev) == Ok(false));
                ensure!(counts() == (1, 1));
                ensure!(events::resume(dev) == Ok(true));
                ensure!(counts() == (2, 1));

                // Stopped on purpose meanwhile: it stays so.
                events::pause(dev)?;
                session.stop();
                ensure!(events::resume(dev) == Ok(false));
                // Restarted meanwhile: it runs afterwards.
                session.start()?;
                events::pause(dev)?;
                ensure!(session.restart() == Err(EBUSY));
                ensure!(events::resume(dev) == Ok(true));
                session.restart()?;
                ensure!(counts() == (5, 4));

                // Without a proof it should not come to the event.
                puppet.on_stop(StopOutcome::Unproven);
                ensure!(events::pause(dev) == Err(EBUSY));
                ensure!(events::resume(dev) == Ok(true));

                // Who was gone may be back after a reset.
                puppet.on_stop(StopOutcome::Gone);
                events::pause(dev)?;
                ensure!(session.start() == Err(EBUSY));
                ensure!(events::resume(dev) == Ok(true));

                // It doesn't forget: no start.
                puppet.on_stop(StopOutcome::Stopped);
                events::pause(dev)?;
                puppet.disarms.store(0, Relaxed);
                ensure!(events::resume(dev) == Err(ETIMEDOUT));
                puppet.disarms.store(1, Relaxed);

                // The next event tries again, and so it does for a restart that failed.
                events::pause(dev)?;
                ensure!(events::resume(dev) == Ok(true));
                puppet.on_stop(StopOutcome::Gone);
                ensure!(session.restart() == Err(ENODEV));
                puppet.on_stop(StopOutcome::Stopped);
                events::pause(dev)?;
                ensure!(events::resume(dev) == Ok(true));

                // But not if it is stopped afterwards.
                puppet.disarms.store(0, Relaxed);
                ensure!(session.restart() == Err(ETIMEDOUT));
                puppet.disarms.store(1, Relaxed);
                session.stop();
                events::pause(dev)?;
                ensure!(events::resume(dev) == Ok(false));

                // A driver that doesn't go on gives it up only if nobody has stopped it.
                ensure!(!events::give_up(dev));
                session.start()?;
                ensure!(events::give_up(dev));
                ensure!(session.start() == Err(ESHUTDOWN));
                events::finish(dev);
                ensure!(session.start() == Err(ESHUTDOWN));
                events::pause(dev)?;
                ensure!(events::resume(dev) == Ok(false));
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
            let (_, session) = new_session(pdev.as_ref(), &puppet)?;

            session.start()?;
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
                let (dma, session) = new_session(pdev.as_ref(), &puppet)?;

                session.start()?;
                let _ = session.transfers.lock().start(outbound(dma)?, 0..256, ())?;
                drop(session);
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
        let puppet = Puppet::new()?;
        let lost = leaked();

        with_platform_device(|pdev| {
            let (dma, session) = new_session(pdev.as_ref(), &puppet)?;

            session.start()?;
            let _ = session.transfers.lock().start(outbound(dma)?, 0..256, ())?;

            let dev: &Device<Core<'_>> = pdev.as_ref();

            fixture::forget((
                DevresSrcu::<ForLt!(Owner)>::new(dev, Ok::<_, Error>(puppet.owner()))?,
                session,
                Streaming::<_, FromDevice>::map(dma, bytes()?)?,
                StreamingBox::<_, ToDevice>::map(dma, bytes()?)?,
            ))
        })?;

        ensure!(puppet.stops.load(Relaxed) == 1);
        ensure!(puppet.owners() == 1 && leaked() == lost);
        Ok(())
    }
}

/// Devices that access memory, on simulated buses.
#[cfg(CONFIG_RUST_DMA_SIM)]
#[kunit_tests(rust_dma_session_sim)]
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

    type SimSession<'a> = Session<'a, Mutex<TransferSlot<'a, Copier, KVec<u8>>>>;

    fn new_session<'a>(
        dev: &Device<Core<'a>>,
        sim: &Arc<Sim>,
    ) -> Result<(Mapper<'a>, SimSession<'a>, Arc<CopyEngine>)> {
        let dma = Mapper::get(dev.bound())?;
        let engine = CopyEngine::new(sim, MEMORY)?;
        let slot = TransferSlot::new(dma, Copier(engine.clone()))?;
        let session = Session::new(dev, Copier(engine.clone()), locked(slot))?;

        session.start()?;
        Ok((dma, session, engine))
    }

    #[inline(never)]
    fn locked<'a>(
        it: TransferSlot<'a, Copier, KVec<u8>>,
    ) -> impl PinInit<Mutex<TransferSlot<'a, Copier, KVec<u8>>>> {
        new_mutex!(it)
    }

    /// Gives the device a buffer to write to.
    fn give<'a>(dma: Mapper<'a>, session: &SimSession<'a>) -> Result {
        let back = Streaming::<_, FromDevice>::map(dma, bytes()?)?;
        let mut slot = session.lock();
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
                    let (dma, session, _) = new_session(pdev.as_ref(), sim)?;

                    give(dma, &session)?;
                    if then_drop {
                        drop(session);
                        return Ok(());
                    }

                    ensure!(session.stop() == StopOutcome::Stopped);

                    let back = session.lock().take::<FromDevice>()?.ok_or(EINVAL)?;
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
                    let (dma, session, _) = new_session(pdev.as_ref(), sim)?;

                    give(dma, &session)?;
                    ensure!(session.stop() == StopOutcome::Unproven);
                    ensure!(session.lock().take::<FromDevice>()?.is_none());
                    ensure!(sim.counters().unmaps == 0);

                    drop(session);

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
                let (dma, session, _) = new_session(pdev.as_ref(), sim)?;
                let before = leaked();

                give(dma, &session)?;
                ensure!(session.stop() == StopOutcome::Unproven);

                sim.advance(100);
                // It never says that it has stopped, but it is disarmed, which is as good.
                session.start()?;

                let back = session.lock().take::<FromDevice>()?.ok_or(EINVAL)?;
                ensure!(back.bytes().is_empty());
                drop((back, session));

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
                    let (dma, session, _) = new_session(pdev.as_ref(), sim)?;

                    give(dma, &session)?;
                    if pulled {
                        sim.pull();
                        ensure!(session.lock().take::<FromDevice>().is_err());
                    }

                    ensure!(session.stop() == StopOutcome::Gone);
                    ensure!(session.lock().take::<FromDevice>()?.is_some());
                    ensure!(sim.counters().live == 0);
                    ensure!(session.start() == Err(ENODEV));
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
                    let (dma, session, _) = new_session(pdev.as_ref(), sim)?;

                    give(dma, &session)?;
                    ensure!(session.stop() == StopOutcome::Stopped);
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
            dma: Mapper<'_>,
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
            let address = out.address().bits();

            engine.command(address, 64, 0, false)?;
            sim.advance(100);
            drop(connection);
            ensure!(handler.drops.lock().is_none());

            // SAFETY: The engine has carried the command out.
            drop(unsafe { out.complete(0..64) });
            Ok(())
        }

        sim::run_on_each(
            Script::new(Model::Coherent).fate(Fate::after(1)),
            |pdev, sim| {
                let (dma, session, engine) = new_session(pdev.as_ref(), sim)?;
                let control = Control::find(dma.bound()).ok_or(EINVAL)?;
                let in_flight = Streaming::<_, FromDevice>::map(dma, bytes()?)?;

                in_flight.address();
                drop_there(sim, &engine, dma, in_flight)?;
                ensure!(control.counts() == (1, 0));
                drop_there(
                    sim,
                    &engine,
                    dma,
                    StreamingBox::<_, ToDevice>::map(dma, bytes()?)?,
                )?;
                ensure!(control.counts() == (1, 0));

                give(dma, &session)?;
                sim.advance(5);
                drop_there(sim, &engine, dma, session)?;
                ensure!(control.counts() == (1, 0));
                Ok(())
            },
        )
    }
}
