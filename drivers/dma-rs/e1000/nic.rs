// SPDX-License-Identifier: GPL-2.0

//! The device as the rest of the kernel sees it: frames go out and come in.

use super::{
    eeprom::{
        self,
        MacAddress, //
    },
    hardware::{
        self,
        Control,
        Parts, //
    },
    phy::{
        Link,
        Phy, //
    },
    receiver::{
        ReceivedFrame,
        Receiver, //
    },
    regs,
    sender::{
        self,
        Header,
        Offload,
        Reclaimer,
        Sender,
        TxSegment, //
    },
    statistics::Statistics,
    NicLt, //
};
use kernel::{
    device::{
        Bound,
        Core,
        Device, //
    },
    devres::DevresSrcu,
    dma::{
        ring::Ring,
        Mapper,
        Pool,
        Session,
        StopOutcome, //
    },
    error::ErrorWith,
    fmt,
    new_mutex,
    new_wait_queue,
    pci,
    prelude::*,
    sync::{
        Arc,
        Mutex,
        MutexGuard,
        WaitQueue, //
    },
    time::{
        delay::fsleep,
        Delta,
        Instant,
        Monotonic, //
    }, //
};

/// How often to look where there is no interrupt.
const INTERVAL: Delta = Delta::from_millis(1);

/// How many descriptors a ring may have.
const RING_LENGTHS: core::ops::RangeInclusive<u32> = 64..=4096;

/// How the driver learns that there is something to do.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Completion {
    /// By an interrupt.
    Interrupt,
    /// By looking.
    Polling,
}

/// How a device is to be brought up.
#[derive(Clone, Copy)]
pub(crate) struct Settings {
    /// How many descriptors the transmit ring has.
    pub(crate) tx: u32,
    /// How many descriptors the receive ring has.
    pub(crate) rx: u32,
    pub(crate) completion: Completion,
    /// Whether frames for others are received, too.
    pub(crate) promiscuous: bool,
    /// The least time between two interrupts, in units of 256 ns.
    pub(crate) itr: u16,
}

/// Leads to the device until it is unbound.
pub(crate) type Handle = DevresSrcu<NicLt>;

/// What the device may access.
///
/// Those who send, those who get sent frames back, and those who receive don't wait for each other.
/// All of them are threads: the interrupt handler only wakes them. So these are mutexes, under
/// which buffers can be allocated, and frames be copied. Segments in this order.
#[pin_data]
struct Rings<'a> {
    #[pin]
    sender: Mutex<Sender<'a>>,
    #[pin]
    reclaimer: Mutex<Reclaimer<'a>>,
    #[pin]
    receiver: Mutex<Receiver<'a>>,
}

/// A bound device.
#[pin_data]
pub(crate) struct Nic<'a> {
    dev: &'a pci::Device<Bound>,
    control: Control<'a>,
    waiters: Arc<WaitQueue>,
    interrupt: Option<pci::IrqType>,
    mac: MacAddress,
    #[pin]
    settings: Mutex<Registered>,
    #[pin]
    phy: Mutex<Phy<'a>>,
    #[pin]
    statistics: Mutex<Statistics>,
    session: Session<'a, Rings<'a>>,
    _silence: Silence<'a>,
}

/// What the registers are told after each start.
#[derive(Clone, Copy)]
struct Registered {
    itr: u16,
    vlan: bool,
}

/// All three locks.
struct All<'n, 'a> {
    sender: MutexGuard<'n, Sender<'a>>,
    reclaimer: MutexGuard<'n, Reclaimer<'a>>,
    receiver: MutexGuard<'n, Receiver<'a>>,
}

impl<'a> Nic<'a> {
    /// Brings a device up, from whatever state it is in.
    ///
    /// Context: may sleep.
    ///
    /// # Errors
    ///
    /// [`ENODEV`] if the device isn't there, [`EINVAL`] if a ring can't have that length, [`EIO`]
    /// or [`ETIMEDOUT`] if EEPROM or PHY don't answer as they should, and what the allocations and
    /// mappings say. Nothing is left behind.
    pub(crate) fn bring_up(pdev: &pci::Device<Core<'a>>, settings: Settings) -> Result<Handle> {
        if !are_lengths(settings.tx, settings.rx) {
            dev_err!(
                pdev,
                "no rings of {} and {} descriptors: a power of two from {} to {}\n",
                settings.tx,
                settings.rx,
                RING_LENGTHS.start(),
                RING_LENGTHS.end()
            );
            return Err(EINVAL);
        }

        let dev = pdev.bound();
        let device: &Device<Core<'a>> = pdev.as_ref();

        pdev.enable_device_mem()?;

        let dma = Mapper::get(dev.as_ref())?;
        let waiters = Arc::pin_init(new_wait_queue!("dma_rs_e1000"), GFP_KERNEL)?;
        let Parts {
            transmitter,
            mut receiver,
            stopper,
            interrupts,
            control,
        } = hardware::claim(pdev).inspect_err(|e| dev_err!(pdev, "no 8254x device ({e:?})\n"))?;

        receiver.promiscuous = settings.promiscuous;

        let headers = Pool::new(device, c"dma_rs_e1000")?;
        let tx = Ring::new(dma, transmitter, settings.tx)?;
        let rx = Ring::new(dma, receiver, settings.rx)?;
        let session = Session::new(
            device,
            stopper,
            pin_init!(Rings {
                sender <- new_mutex!(Sender::new(tx.producer, headers)),
                reclaimer <- new_mutex!(Reclaimer::new(tx.consumer)),
                receiver <- new_mutex!(Receiver::new(rx)),
            }),
        )?;

        let mac = eeprom::mac_address(&control)
            .inspect_err(|e| dev_err!(pdev, "the EEPROM can't be read ({e:?})\n"))?;

        // From here on the device can reach memory, and has no interrupt that anybody wants.
        session.start()?;

        let interrupt = match settings.completion {
            Completion::Polling => None,
            Completion::Interrupt => {
                let types = pci::IrqTypes::default()
                    .with(pci::IrqType::Msi)
                    .with(pci::IrqType::Intx);
                let waker = interrupts.wake(waiters.clone());

                pdev.request_irq(types, c"dma_rs_e1000", Ok(waker))
                    .inspect_err(|e| dev_warn!(pdev, "no interrupt ({e:?}), polling\n"))
                    .ok()
            }
        };

        let registered = Registered {
            itr: settings.itr,
            vlan: false,
        };

        let nic = try_pin_init!(Self {
            dev,
            control,
            waiters,
            interrupt,
            mac,
            settings <- new_mutex!(registered),
            phy <- new_mutex!(Phy::new(*control)),
            statistics <- new_mutex!(Statistics::new()),
            session,
            _silence: Silence(*control),
        }? Error);
        let handle = DevresSrcu::<NicLt>::new(device, nic)?;

        handle
            .try_access_with(|nic| nic.resume())?
            .inspect_err(|e| dev_err!(pdev, "the rings can't be started ({e:?})\n"))?;

        let [a, b, c, d, e, f] = mac;
        dev_info!(
            pdev,
            "8254x {a:02x}:{b:02x}:{c:02x}:{d:02x}:{e:02x}:{f:02x}: rings {} and {}, \
             interrupt {interrupt:?}\n",
            settings.tx,
            settings.rx
        );

        Ok(handle)
    }

    /// Returns the MAC address.
    pub(crate) fn mac(&self) -> MacAddress {
        self.mac
    }

    /// Returns the kind of interrupt; none if it polls.
    pub(crate) fn interrupt(&self) -> Option<pci::IrqType> {
        self.interrupt
    }

    /// Returns the half that posts frames. Others wait meanwhile.
    pub(crate) fn sender(&self) -> MutexGuard<'_, Sender<'a>> {
        self.session.sender.lock()
    }

    /// Returns the half that gets sent frames back. Others wait meanwhile.
    pub(crate) fn reclaimer(&self) -> MutexGuard<'_, Reclaimer<'a>> {
        self.session.reclaimer.lock()
    }

    /// Returns the half that receives. Others wait meanwhile.
    pub(crate) fn receiver(&self) -> MutexGuard<'_, Receiver<'a>> {
        self.session.receiver.lock()
    }

    fn all(&self) -> All<'_, 'a> {
        All {
            sender: self.sender(),
            reclaimer: self.reclaimer(),
            receiver: self.receiver(),
        }
    }

    fn report(&self, what: fmt::Arguments<'_>, error: Error) {
        // Neither is news: no room is for the caller to wait for, and whoever stopped the device
        // knows.
        if error != EBUSY && error != ESHUTDOWN {
            dev_err!(self.dev, "{what}: {error:?}\n");
        }
    }

    /// Sends a frame.
    ///
    /// Context: may sleep.
    ///
    /// # Errors
    ///
    /// As [`Sender::post`], and [`ESHUTDOWN`] if the device is stopped: then the frame doesn't come
    /// back at once, but when the device is [reset](Self::reset), or unbound.
    pub(crate) fn send(&self, frame: TxSegment) -> Result<(), ErrorWith<Option<TxSegment>>> {
        self.send_with(frame, Offload::default())
    }

    /// Sends a frame, and has the device insert something.
    ///
    /// Context: may sleep.
    ///
    /// # Errors
    ///
    /// As [`send`](Self::send).
    pub(crate) fn send_with(
        &self,
        frame: TxSegment,
        offload: Offload,
    ) -> Result<(), ErrorWith<Option<TxSegment>>> {
        let mut sender = self.sender();
        let len = frame.len();

        let posted = sender.post(frame, offload);

        flush_posted(&mut sender, posted)
            .inspect_err(|refused| self.report(fmt!("sending {len} bytes"), refused.error))
    }

    /// Sends a payload, with a header before it.
    ///
    /// Context: may sleep.
    ///
    /// # Errors
    ///
    /// As [`Sender::post_payload`] and [`send`](Self::send).
    pub(crate) fn send_payload(
        &self,
        header: Header,
        payload: TxSegment,
    ) -> Result<(), ErrorWith<Option<TxSegment>>> {
        let mut sender = self.sender();

        let posted = sender.post_payload(header, payload);

        flush_posted(&mut sender, posted)
            .inspect_err(|refused| self.report(fmt!("sending a payload"), refused.error))
    }

    /// Sends a frame of several segments.
    ///
    /// Context: may sleep.
    ///
    /// # Errors
    ///
    /// As [`Sender::post_segments`] and [`send`](Self::send).
    pub(crate) fn send_segments(
        &self,
        segments: impl IntoIterator<Item = TxSegment>,
        offload: Offload,
        give: impl FnMut(TxSegment),
    ) -> Result {
        let mut sender = self.sender();

        sender
            .post_segments(segments, offload, give)
            .and_then(|()| sender.flush())
            .inspect_err(|e| self.report(fmt!("sending a frame in segments"), *e))
    }

    /// Gives the segments of frames that were sent to `give`; returns how many frames.
    ///
    /// Context: may sleep.
    pub(crate) fn reclaim(&self, give: impl FnMut(TxSegment)) -> u32 {
        self.reclaimer().reclaim(give)
    }

    /// Shows up to `budget` received frames to `f`; returns how many.
    ///
    /// Context: may sleep.
    ///
    /// # Errors
    ///
    /// As [`Receiver::poll`].
    pub(crate) fn poll(&self, budget: u32, f: impl FnMut(&ReceivedFrame<'_, 'a>)) -> Result<u32> {
        self.receiver().poll(budget, f)
    }

    /// Waits until `look` finds something.
    fn wait_until<T>(&self, timeout: Delta, mut look: impl FnMut() -> Option<T>) -> Option<T> {
        if self.interrupt.is_some() {
            return self.session.wait_until(&self.waiters, timeout, || {
                // First, so that what comes after the look interrupts.
                self.control.unmask_interrupts();
                look()
            });
        }

        let start = Instant::<Monotonic>::now();

        loop {
            if let Some(found) = look() {
                return Some(found);
            }
            if start.elapsed() >= timeout {
                return None;
            }

            fsleep(INTERVAL);
        }
    }

    /// As [`poll`](Self::poll), but waits if there is no frame: by interrupt, if there is one.
    ///
    /// Context: may sleep.
    ///
    /// # Errors
    ///
    /// As [`poll`](Self::poll), and [`ETIMEDOUT`] if no frame comes, [`ESHUTDOWN`] if the device is
    /// stopped.
    pub(crate) fn wait(
        &self,
        budget: u32,
        timeout: Delta,
        mut f: impl FnMut(&ReceivedFrame<'_, 'a>),
    ) -> Result<u32> {
        self.wait_until(timeout, || {
            let mut receiver = self.receiver();

            match receiver.poll(budget, &mut f) {
                Ok(0) if receiver.ring.consumer.is_stopped() => Some(Err(ESHUTDOWN)),
                Ok(0) => None,
                done => Some(done),
            }
        })
        .unwrap_or(Err(ETIMEDOUT))
    }

    /// Waits until all that was flushed was sent, and gives it to `give`.
    ///
    /// Context: may sleep.
    ///
    /// # Errors
    ///
    /// [`ETIMEDOUT`] if it takes longer, [`ESHUTDOWN`] if the device is stopped.
    pub(crate) fn wait_sent(&self, timeout: Delta, mut give: impl FnMut(TxSegment)) -> Result<u32> {
        let mut count = 0;

        self.wait_until(timeout, || {
            let mut reclaimer = self.reclaimer();

            count += reclaimer.reclaim(&mut give);

            if reclaimer.ring.posted() == 0 {
                Some(Ok(count))
            } else if reclaimer.ring.is_stopped() {
                Some(Err(ESHUTDOWN))
            } else {
                None
            }
        })
        .unwrap_or(Err(ETIMEDOUT))
        .inspect_err(|e| self.report(fmt!("waiting for frames to be sent"), *e))
    }

    /// Receives a frame; none if there is none in time. Context: may sleep.
    ///
    /// # Errors
    ///
    /// As [`poll`](Self::poll).
    pub(crate) fn receive(&self, timeout: Delta) -> Result<Option<KVec<u8>>> {
        let mut received = Ok(None);

        match self.wait(1, timeout, |frame| received = frame.to_vec().map(Some)) {
            Ok(_) => received,
            Err(e) if e == ETIMEDOUT => Ok(None),
            Err(e) => Err(e),
        }
    }

    /// Waits until the receiver hears, or is stopped: after a start QEMU's doesn't, for a second.
    ///
    /// Context: may sleep.
    pub(crate) fn wait_for_receiver(&self) {
        let left = self.receiver().deaf_for();

        if !left.is_zero() {
            // A little longer, for clocks that don't agree.
            self.wait_until(left + Delta::from_millis(20), || {
                self.receiver().ring.consumer.is_stopped().then_some(())
            });
        }
    }

    /// Has the PHY send back what is sent, without a wire. Context: may sleep.
    ///
    /// # Errors
    ///
    /// As [`Phy::set_loopback`].
    pub(crate) fn set_loopback(&self, on: bool) -> Result {
        self.phy
            .lock()
            .set_loopback(on)
            .inspect_err(|e| self.report(fmt!("loopback {on}"), *e))
    }

    /// Returns whether there is a loopback.
    pub(crate) fn loopback(&self) -> bool {
        self.phy.lock().loopback()
    }

    /// Returns the state of the link. Context: may sleep.
    ///
    /// # Errors
    ///
    /// As [`Phy::link`].
    pub(crate) fn link(&self) -> Result<Link> {
        self.phy
            .lock()
            .link()
            .inspect_err(|e| self.report(fmt!("the state of the link"), *e))
    }

    /// Sets the least time between two interrupts, in units of 256 ns.
    pub(crate) fn set_itr(&self, interval: u16) {
        self.settings.lock().itr = interval;
        self.control
            .write_reg(regs::ITR::zeroed().with_interval(interval));
    }

    /// Lets the device insert and strip VLAN tags, or leave frames as they are.
    pub(crate) fn set_vlan(&self, on: bool) {
        self.settings.lock().vlan = on;
        self.control.set_vlan(on);
    }

    /// Writes the registers that have nothing to do with memory.
    fn configure(&self) -> Result {
        let Registered { itr, vlan } = *self.settings.lock();

        self.control.configure(self.mac, vlan, itr);
        self.phy.lock().restore()
    }

    /// Goes on with a device that was started, and knows nothing: after a suspend, a reset, an
    /// error. Does nothing to rings that the device has already.
    ///
    /// Context: may sleep.
    ///
    /// # Errors
    ///
    /// As [`Ring::start`], [`Receiver::refill`] and [`Phy::set_loopback`].
    pub(crate) fn resume(&self) -> Result {
        self.begin(&mut self.all(), drop)
    }

    fn begin(&self, all: &mut All<'_, 'a>, mut cancelled: impl FnMut(TxSegment)) -> Result {
        self.configure()?;

        if all.reclaimer.ring.is_stopped() {
            all.sender.ring.start(&mut all.reclaimer.ring, |segment| {
                sender::buffer(segment).into_iter().for_each(&mut cancelled)
            })?;
        }
        if all.receiver.ring.consumer.is_stopped() {
            all.receiver.start()?;
        }

        Ok(())
    }

    /// Stops the device, and lets it begin anew: for one that hangs, or is in disorder.
    ///
    /// Frames that weren't sent, or not got back, are given to `cancelled`. Frames that weren't
    /// looked at are lost. Context: may sleep.
    ///
    /// # Errors
    ///
    /// As [`Session::restart`], and as [`resume`](Self::resume).
    pub(crate) fn reset(&self, cancelled: impl FnMut(TxSegment)) -> Result {
        let mut all = self.all();

        self.statistics.lock().add(&self.control);
        self.session
            .restart()
            .and_then(|()| self.begin(&mut all, cancelled))
            .inspect_err(|e| self.report(fmt!("reset"), *e))
    }

    /// Changes the number of descriptors of the rings, for which the device is stopped.
    ///
    /// As [`reset`](Self::reset) else.
    ///
    /// # Errors
    ///
    /// As [`reset`](Self::reset), and [`EINVAL`] if rings can't be that long; [`ENOMEM`], [`EBUSY`]
    /// if the device doesn't stop. The device goes on with the rings that it has then, if it can.
    pub(crate) fn resize(&self, tx: u32, rx: u32, mut cancelled: impl FnMut(TxSegment)) -> Result {
        if !are_lengths(tx, rx) {
            return Err(EINVAL);
        }

        let mut all = self.all();

        self.statistics.lock().add(&self.control);

        let resized = match self.session.stop() {
            StopOutcome::Stopped => all
                .sender
                .ring
                .resize(&mut all.reclaimer.ring, tx, |segment| {
                    sender::buffer(segment).into_iter().for_each(&mut cancelled)
                })
                .and_then(|()| all.receiver.ring.resize(rx, drop)),
            StopOutcome::Gone => Err(ENODEV),
            StopOutcome::Unproven => Err(EBUSY),
        };
        // An event that is under way starts it later.
        let started = self
            .session
            .restart()
            .and_then(|()| self.begin(&mut all, cancelled));

        resized
            .and(started)
            .inspect_err(|e| self.report(fmt!("rings of {tx} and {rx} descriptors"), *e))
    }

    /// Returns how often the device was told of frames, or of buffers.
    pub(crate) fn doorbells(&self) -> u64 {
        self.sender().ring.doorbells() + self.receiver().ring.producer.doorbells()
    }

    /// Returns the registers that have nothing to do with memory.
    #[cfg(CONFIG_DMA_RS_E1000_KUNIT_TEST)]
    pub(crate) fn control(&self) -> Control<'a> {
        self.control
    }

    /// Returns the PHY. Others wait meanwhile.
    #[cfg(CONFIG_DMA_RS_E1000_KUNIT_TEST)]
    pub(crate) fn phy(&self) -> MutexGuard<'_, Phy<'a>> {
        self.phy.lock()
    }

    /// Stops the device, as unbinding does. Context: may sleep.
    #[cfg(CONFIG_DMA_RS_E1000_KUNIT_TEST)]
    pub(crate) fn stop(&self) -> StopOutcome {
        self.session.stop()
    }

    /// Returns what the device has counted since it was bound, but for what it forgot with its
    /// power.
    pub(crate) fn statistics(&self) -> Statistics {
        let mut statistics = self.statistics.lock();

        statistics.add(&self.control);
        *statistics
    }

    /// Writes the counters for a person to read.
    pub(crate) fn show_statistics(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        {
            let sender = self.sender();

            writeln!(f, "sent frames {}", sender.frames)?;
            writeln!(f, "sent bytes {}", sender.bytes)?;
            writeln!(f, "no room to send {}", sender.full)?;
        }
        writeln!(f, "reclaimed frames {}", self.reclaimer().frames)?;
        {
            let receiver = self.receiver();

            writeln!(f, "received frames {}", receiver.frames)?;
            writeln!(f, "received bytes {}", receiver.bytes)?;
            writeln!(f, "received errors {}", receiver.ring.consumer.bad())?;
            writeln!(f, "receive refills that failed {}", receiver.unfilled)?;
        }

        self.statistics().show(f)
    }

    /// Writes the state of the rings for a person to read.
    pub(crate) fn show_rings(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let All {
            mut sender,
            mut reclaimer,
            mut receiver,
        } = self.all();
        let (tx_head, tx_tail) = self.control.tx_indexes();
        let (rx_head, rx_tail) = self.control.rx_indexes();

        writeln!(
            f,
            "tx: len {} free {} posted {} head {} tail {} doorbells {} malformed {}",
            sender.ring.len(),
            sender.free(),
            reclaimer.ring.posted(),
            tx_head,
            tx_tail,
            sender.ring.doorbells(),
            reclaimer.ring.malformed()
        )?;

        let Ring { producer, consumer } = &mut receiver.ring;

        writeln!(
            f,
            "rx: len {} free {} posted {} head {} tail {} doorbells {} malformed {}",
            producer.len(),
            producer.refresh(),
            consumer.posted(),
            rx_head,
            rx_tail,
            producer.doorbells(),
            consumer.malformed()
        )
    }

    /// Writes the state of the device for a person to read.
    pub(crate) fn show_state(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let [a, b, c, d, e, g] = self.mac;

        writeln!(f, "mac {a:02x}:{b:02x}:{c:02x}:{d:02x}:{e:02x}:{g:02x}")?;

        match self.interrupt() {
            Some(kind) => writeln!(f, "interrupt {kind:?}")?,
            None => writeln!(f, "interrupt none (polling)")?,
        }

        match self.link() {
            Ok(link) => writeln!(
                f,
                "link {} {} Mbit/s {} duplex",
                if link.up { "up" } else { "down" },
                link.speed,
                if link.full_duplex { "full" } else { "half" }
            )?,
            Err(e) => writeln!(f, "link {e:?}")?,
        }

        let Registered { itr, vlan } = *self.settings.lock();

        writeln!(f, "loopback {}", u8::from(self.loopback()))?;
        writeln!(f, "itr {itr}")?;
        writeln!(f, "vlan {}", u8::from(vlan))?;
        writeln!(
            f,
            "running {}",
            u8::from(!self.reclaimer().ring.is_stopped())
        )
    }
}

/// Masks interrupts when nobody can wait for them any more: the last one who did may have unmasked
/// them after the device was stopped.
struct Silence<'a>(Control<'a>);

impl Drop for Silence<'_> {
    fn drop(&mut self) {
        self.0.silence();
    }
}

fn are_lengths(tx: u32, rx: u32) -> bool {
    [tx, rx]
        .iter()
        .all(|len| len.is_power_of_two() && RING_LENGTHS.contains(len))
}

/// Tells the device of what was posted, if it was.
fn flush_posted(
    sender: &mut Sender<'_>,
    posted: Result<(), ErrorWith<TxSegment>>,
) -> Result<(), ErrorWith<Option<TxSegment>>> {
    match posted {
        Err(ErrorWith { error, value }) => Err(ErrorWith {
            error,
            value: Some(value),
        }),
        Ok(()) => sender
            .flush()
            .map_err(|error| ErrorWith { error, value: None }),
    }
}
