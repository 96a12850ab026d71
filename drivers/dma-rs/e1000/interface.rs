// SPDX-License-Identifier: GPL-2.0

//! The network interface: frames go out and come in.

use super::{
    eeprom,
    filters::Filters,
    hardware::{
        self,
        Checksum,
        Context,
        Control,
        Data,
        Interrupts,
        Parts,
        RxDescriptor,
        RxQueue,
        Segments,
        TxOptions,
        TxQueue,
        BUFFER_SIZE, //
    },
    phy::{
        Choice,
        Offer,
        Phy, //
    },
    regs,
    statistics::Statistics, //
};
use kernel::{
    alloc::Flags,
    device::{
        Bound,
        Core,
        Device, //
    },
    dma::{
        ring::{
            Ring,
            Spare, //
        },
        Mapper,
        Session, //
    },
    irq,
    net::netdev::{
        self,
        Cleaner,
        Driver,
        DropReason,
        Events,
        Features,
        Link,
        LinkChoice,
        LinkModes,
        Messages,
        Napi,
        Poll,
        Progress,
        Reported,
        RingLengths,
        RxMode,
        Segmentation,
        Sender,
        SkBuff,
        SpareTx,
        Unregistered,
        Verdict,
        Xmit, //
    },
    new_mutex,
    new_spinlock,
    pci,
    prelude::*,
    sync::{
        atomic::{
            Atomic,
            Relaxed, //
        },
        Arc,
        Mutex,
        SpinLock, //
    },
    time::{
        delay::fsleep,
        Delta, //
    }, //
};

/// A unit of the time between interrupts, in nanoseconds.
const INTERVAL: u32 = 256;

/// How many descriptors a ring may have.
const RING_LENGTHS: core::ops::RangeInclusive<u32> = 64..=4096;

/// The shortest frame on the wire, without its checksum. The device could lengthen shorter ones
/// (`TCTL.PSP`); QEMU doesn't.
const MIN_FRAME: u16 = 60;

/// The longest frame that the device stores, without its checksum: a header, a VLAN tag, and the
/// largest MTU.
const MAX_FRAME: u32 = 14 + 4 + *MTU.end();

/// As the kernel's own driver has it.
const MTU: core::ops::RangeInclusive<u32> = 46..=16110;

/// What the device does, and what of it can be switched off. VLAN tags are inserted and taken out
/// by one switch, which stays on.
const CHANGEABLE: Features = Features::SG
    .with(Features::CHECKSUM)
    .with(Features::TSO)
    .with(Features::RX_CHECKSUM);
const FIXED: Features = Features::VLAN_INSERT.with(Features::VLAN_STRIP);

/// Where the headers of IPv4 and TCP have their checksums.
const IP_CHECKSUM: u8 = 10;
const TCP_CHECKSUM: u8 = 16;

/// How often a frame is tried that the device is to send itself, and how long each is waited for.
/// QEMU's receiver hears nothing for a second after a start.
const LOOPS: u32 = 20;
const LOOP_TIME: Delta = Delta::from_millis(100);

/// The type of frames for local experiments (IEEE 802).
const EXPERIMENTAL: [u8; 2] = [0x88, 0xb5];

/// What is received into. Mapped once, used again and again.
type RxBuffer = KBox<[u8; BUFFER_SIZE]>;

/// What sends, by the lock of the transmit queue.
type Tx<'a> = Sender<'a, TxQueue<'a>>;

/// What is polled.
pub(crate) struct Work<'a> {
    cleaner: Cleaner<'a, TxQueue<'a>>,
    rx: Ring<'a, RxQueue<'a>, RxBuffer>,
    /// Buffers that aren't in the ring: after a change of its length.
    stock: KVec<RxBuffer>,
}

impl Work<'_> {
    /// Gives the device a buffer for each descriptor, as far as there are any: those that stayed in
    /// the ring, those in stock, and new ones.
    #[inline]
    fn refill(&mut self, flags: Flags) -> Result {
        let stock = &mut self.stock;
        let filled = self.rx.producer.refill((), || match stock.pop() {
            Some(buffer) => Ok(buffer),
            None => new_buffer(flags),
        });

        self.rx.producer.kick().and(filled)
    }
}

#[cold]
fn new_buffer(flags: Flags) -> Result<RxBuffer> {
    KBox::init(pin_init::init_zeroed(), flags)
}

/// The driver of a bound device.
#[pin_data]
struct Interface<'a> {
    dev: &'a pci::Device<Bound>,
    dma: Mapper<'a>,
    control: Control<'a>,
    /// How long the rings are.
    #[pin]
    lengths: Mutex<RingLengths>,
    /// The least time between interrupts, in microseconds.
    coalescing: Atomic<u32>,
    #[pin]
    statistics: SpinLock<Statistics>,
    #[pin]
    mac: Mutex<eeprom::MacAddress>,
    /// What is received, by what the stack has said last.
    #[pin]
    filters: Mutex<Filters>,
    /// Whether the interrupt handler has seen that the link may have changed.
    link_changed: Arc<Atomic<bool>>,
    #[pin]
    phy: Mutex<Phy<'a>>,
    /// Both rings lie where they are used. What the device may access of them it owns all the same:
    /// it is freed under the session's proof.
    session: Session<'a, ()>,
    /// The rings, while the interface is down.
    #[pin]
    rings: Mutex<Option<(Tx<'a>, Work<'a>)>>,
}

/// The interrupt handler: registers, and what has the device polled.
struct Handler<'a> {
    interrupts: Interrupts<'a>,
    napi: &'a Napi,
    link_changed: Arc<Atomic<bool>>,
}

impl irq::Handler for Handler<'_> {
    fn handle(&self) -> irq::IrqReturn {
        let Some(causes) = self.interrupts.take() else {
            // Another device on the line.
            return irq::IrqReturn::None;
        };

        if causes.lsc() {
            self.link_changed.store(true, Relaxed);
        }

        self.napi.schedule();
        irq::IrqReturn::Handled
    }
}

/// Brings a device up, and registers an interface.
///
/// Context: may sleep.
///
/// # Errors
///
/// [`ENODEV`] if the device isn't there, [`EINVAL`] if a ring can't have that length, [`EIO`] or
/// [`ETIMEDOUT`] if the EEPROM doesn't answer as it should, and what the allocations, mappings and
/// registrations say. Nothing is left behind.
pub(crate) fn bring_up<'a>(
    pdev: &pci::Device<Core<'a>>,
    tx_len: u32,
    rx_len: u32,
) -> Result<&'a netdev::Device> {
    let lengths = RingLengths {
        tx: tx_len,
        rx: rx_len,
    };

    check(lengths)
        .inspect_err(|_| dev_err!(pdev, "no rings of {tx_len} and {rx_len} descriptors\n"))?;

    let device: &Device<Core<'a>> = pdev.as_ref();

    pdev.enable_device_mem()?;

    let dma = Mapper::get(device.bound())?;
    let Parts {
        transmitter,
        receiver,
        stopper,
        interrupts,
        control,
    } = hardware::claim(pdev).inspect_err(|e| dev_err!(pdev, "no 8254x device ({e:?})\n"))?;

    let mac = eeprom::mac_address(&control)
        .inspect_err(|e| dev_err!(pdev, "the EEPROM can't be read ({e:?})\n"))?;

    let mut netdev = Unregistered::<Interface<'a>>::new(device)?;

    netdev.set_mac_address(mac);
    netdev.set_mtu_range(MTU);
    netdev.set_features(CHANGEABLE, FIXED)?;

    let (tx, cleaner) = netdev.transmit_ring(dma, transmitter, tx_len)?;
    let work = Work {
        cleaner,
        rx: Ring::new(dma, receiver, rx_len)?,
        stock: KVec::new(),
    };
    let session = Session::new(device, stopper, Ok::<_, Error>(()))?;
    let link_changed = Arc::new(Atomic::new(false), GFP_KERNEL)?;

    // Before the interrupt is there: whoever had the device may have left some.
    control.silence();

    let handler = Handler {
        interrupts,
        napi: netdev.napi(),
        link_changed: link_changed.clone(),
    };
    let irq =
        request_irq(pdev, handler).inspect_err(|e| dev_err!(pdev, "no interrupt ({e:?})\n"))?;

    netdev.set_irq(irq)?;

    netdev.register(
        device,
        try_pin_init!(Interface {
            dev: pdev.bound(),
            dma,
            control,
            lengths <- new_mutex!(lengths),
            coalescing: Atomic::new(0),
            statistics <- new_spinlock!(Statistics::new()),
            mac <- new_mutex!(mac),
            filters <- new_mutex!(Filters::NONE),
            link_changed,
            phy <- new_mutex!(Phy::new(*control)),
            session,
            rings <- new_mutex!(Some((tx, work))),
        }? Error),
    )
}

/// Requests the device's interrupt; returns its number.
fn request_irq<'a>(pdev: &pci::Device<Core<'a>>, handler: Handler<'a>) -> Result<u32> {
    let types = pci::IrqTypes::default()
        .with(pci::IrqType::Msi)
        .with(pci::IrqType::Intx);
    let vector = pdev
        .irq_vectors(1..=1, types, pci::IrqSpread::Anywhere)?
        .next()
        .ok_or(EIO)?;
    let irq = vector.irq(pdev)?;

    vector.request(pdev, c"dma_rs_e1000_net", Ok(handler))?;
    Ok(irq)
}

/// Checks that the device can have rings of these lengths.
///
/// # Errors
///
/// [`EINVAL`].
fn check(RingLengths { tx, rx }: RingLengths) -> Result {
    let suits = |len: u32| len.is_power_of_two() && RING_LENGTHS.contains(&len);

    if !suits(tx) || !suits(rx) {
        return Err(EINVAL);
    }

    Ok(())
}

/// Returns an offer as the stack has it.
fn modes(offer: Offer) -> LinkModes {
    [
        (offer.half_10, LinkModes::HALF_10),
        (offer.full_10, LinkModes::FULL_10),
        (offer.half_100, LinkModes::HALF_100),
        (offer.full_100, LinkModes::FULL_100),
        (offer.full_1000, LinkModes::FULL_1000),
    ]
    .into_iter()
    .filter(|(is_in, _)| *is_in)
    .fold(LinkModes::NONE, |modes, (_, mode)| modes.with(mode))
}

/// Returns a time in microseconds in units of the device, as far as that goes.
fn interval(microseconds: u32) -> u16 {
    u16::try_from(microseconds.saturating_mul(1000) / INTERVAL).unwrap_or(u16::MAX)
}

impl<'a> Interface<'a> {
    /// Tells the device, whose session was started, of everything.
    fn begin(&self, tx: &mut Tx<'a>, work: &mut Work<'a>) -> Result {
        let itr = interval(self.coalescing.load(Relaxed));

        self.control.configure(*self.mac.lock(), true, itr);
        self.control
            .write_reg(regs::RXCSUM::zeroed().with_ipofl(true).with_tuofl(true));
        self.phy.lock().restore()?;
        tx.start(&mut work.cleaner)?;
        work.rx.start(drop)?;
        self.filters.lock().apply(&self.control);

        match work.refill(GFP_KERNEL) {
            // It goes on with those that there are. Others come when frames do.
            Err(_) if work.rx.consumer.posted() > 0 => Ok(()),
            filled => filled,
        }
    }

    /// Prepares for a stop: masks interrupts, and keeps what the device has counted.
    fn silence(&self) {
        self.control.silence();
        self.statistics.lock().add(&self.control);
    }

    /// Begins anew, with a device that has stopped or not.
    fn begin_again(&self, tx: &mut Tx<'a>, work: &mut Work<'a>) -> Result {
        self.silence();
        self.session.restart()?;
        self.begin(tx, work)
    }

    /// Stops the device, and puts the rings away. Frames that weren't sent are dropped; if the
    /// device can't be proven to have stopped, by the next start.
    fn end(&self, mut tx: Tx<'a>, mut work: Work<'a>) {
        self.silence();
        self.session.stop();
        let _ = tx.drain(&mut work.cleaner);
        *self.rings.lock() = Some((tx, work));
    }

    /// Tells the stack whether there is a link, and whoever wants to know if that is news.
    fn tell_carrier(&self, device: &mut netdev::Control<'_, Self>) {
        let link = self.link();

        if !device.set_carrier(link.is_some()) || !device.logs(Messages::LINK) {
            return;
        }

        match link {
            Some(Link {
                speed,
                is_full_duplex,
            }) => dev_info!(
                self.dev,
                "the link is up, {speed} Mbit/s, {} duplex\n",
                if is_full_duplex { "full" } else { "half" }
            ),
            None => dev_info!(self.dev, "the link is down\n"),
        }
    }

    /// Tests whether frames come back that the PHY is to loop back. Nobody else uses the device,
    /// which is left in that state.
    ///
    /// # Errors
    ///
    /// [`EIO`] if none comes back, and what beginning and sending say.
    fn loop_back(&self, tx: &mut Tx<'a>, work: &mut Work<'a>) -> Result {
        self.phy.lock().set_loopback(true)?;
        self.begin_again(tx, work)?;

        let mac = *self.mac.lock();
        let header = [mac.as_slice(), &mac, &EXPERIMENTAL];
        let mut frame = [0x55; 128];

        for (byte, value) in frame.iter_mut().zip(header.into_iter().flatten()) {
            *byte = *value;
        }

        for _ in 0..LOOPS {
            let mut came_back = false;

            tx.send_for_test(&frame, TxOptions::Data(Data::default()))?;
            fsleep(LOOP_TIME);
            work.rx.consumer.receive_each(u32::MAX, |received| {
                came_back |= received.segments().flatten().eq(&frame);
            });

            if came_back {
                return Ok(());
            }
        }

        Err(EIO)
    }

    /// As [`loop_back`](Self::loop_back), and takes that back.
    fn test_loopback(&self, tx: &mut Tx<'a>, work: &mut Work<'a>) -> Result {
        let looped = self.loop_back(tx, work);

        self.phy.lock().set_loopback(false)?;
        looped
    }
}

/// What the device is told of a frame: before it, and with it.
///
/// # Errors
///
/// The frame comes back, and why it can't be sent.
#[inline]
fn offload(skb: SkBuff) -> Result<(SkBuff, Option<TxOptions>, Data), (SkBuff, DropReason)> {
    let data = Data {
        vlan: skb.vlan_tag(),
        ..Data::default()
    };

    if skb.is_segmented() {
        return divide(skb, data);
    }

    let Some(checksum) = skb.checksum() else {
        return Ok((skb, None, data));
    };

    // The device has eight bits for each.
    let (Ok(start), Ok(offset)) = (checksum.start.try_into(), checksum.offset.try_into()) else {
        return compute(skb, data);
    };
    let context = Context {
        transport: Checksum {
            start,
            offset,
            end: 0,
        },
        ..Context::default()
    };
    let data = Data {
        transport_checksum: true,
        ..data
    };

    Ok((skb, Some(TxOptions::Context(context)), data))
}

/// As [`offload`], for a frame of which the device can't compute the checksum.
#[cold]
fn compute(
    skb: SkBuff,
    data: Data,
) -> Result<(SkBuff, Option<TxOptions>, Data), (SkBuff, DropReason)> {
    skb.compute_checksum()
        .map(|skb| (skb, None, data))
        .map_err(|skb| (skb, DropReason::NOMEM))
}

/// As [`offload`], for a frame that the device divides.
#[inline(never)]
fn divide(
    skb: SkBuff,
    data: Data,
) -> Result<(SkBuff, Option<TxOptions>, Data), (SkBuff, DropReason)> {
    let (skb, how) = skb
        .prepare_segmentation()
        .map_err(|skb| (skb, DropReason::NOMEM))?;
    let Some(context) = segments(skb.len(), how) else {
        return Err((skb, DropReason::DEV_HDR));
    };
    let data = Data {
        ip_checksum: true,
        transport_checksum: true,
        segmented: true,
        ..data
    };

    Ok((skb, Some(TxOptions::Context(context)), data))
}

/// Returns what the device is told of a frame of `len` bytes that it divides; none if it hasn't the
/// bits for that.
fn segments(len: u32, how: Segmentation) -> Option<Context> {
    let network = u8::try_from(how.network).ok()?;
    let transport = u8::try_from(how.transport).ok()?;

    Some(Context {
        ip: Checksum {
            start: network,
            offset: network.checked_add(IP_CHECKSUM)?,
            end: how.transport.checked_sub(1)?,
        },
        transport: Checksum {
            start: transport,
            offset: transport.checked_add(TCP_CHECKSUM)?,
            end: 0,
        },
        segments: Some(Segments {
            headers: how.headers.try_into().ok()?,
            payload: len.checked_sub(how.headers.into())?,
            size: how.size,
        }),
    })
}

/// Returns what the device says of a frame.
#[inline]
fn reported(last: RxDescriptor) -> Reported {
    use hardware::Verdict::{
        Bad,
        Good, //
    };

    let (ip, transport) = last.checksums();

    Reported {
        is_checked: transport == Good && ip != Bad,
        vlan_tag: last.vlan(),
    }
}

#[vtable]
impl<'a> Driver for Interface<'a> {
    type Tx = Tx<'a>;
    type Poll = Work<'a>;

    fn open(&self, device: &mut netdev::Control<'_, Self>) -> Result<(Tx<'a>, Work<'a>)> {
        let (mut tx, mut work) = self.rings.lock().take().ok_or(EBUSY)?;
        let begun = self
            .session
            .start()
            .and_then(|()| self.begin(&mut tx, &mut work));

        if let Err(e) = begun {
            dev_err!(self.dev, "the rings can't be started ({e:?})\n");
            self.end(tx, work);
            return Err(e);
        }

        self.tell_carrier(device);
        Ok((tx, work))
    }

    fn stop(&self, device: &mut netdev::Control<'_, Self>, tx: Tx<'a>, work: Work<'a>) {
        device.set_carrier(false);
        self.end(tx, work);
    }

    #[inline]
    fn start_xmit(&self, tx: &mut Tx<'a>, skb: SkBuff, cx: &mut Xmit<'_>) -> Verdict {
        if skb.len() > MAX_FRAME && !skb.is_segmented() {
            return cx.drop_frame(skb, DropReason::PKT_TOO_BIG);
        }

        let skb = match skb.pad_to(MIN_FRAME) {
            Ok(skb) => skb,
            Err(handled) => return Verdict::Handled(handled),
        };

        match offload(skb) {
            Ok((skb, context, data)) => tx.xmit(cx, skb, context, TxOptions::Data(data)),
            Err((skb, reason)) => cx.drop_frame(skb, reason),
        }
    }

    #[inline]
    fn kick(&self, tx: &mut Tx<'a>) {
        tx.kick();
    }

    #[inline]
    fn poll(&self, work: &mut Work<'a>, cx: &mut Poll<'_>) -> Progress {
        let Work { cleaner, rx, .. } = work;

        // Taken at once, or a change would be lost that comes in between.
        if self.link_changed.load(Relaxed) && self.link_changed.xchg(false, Relaxed) {
            cx.schedule_work(Events::LINK);
        }

        cleaner.clean(cx);
        rx.consumer.receive_each(cx.budget(), |frame| {
            // All values are possible, and none does harm.
            let reported = frame.descriptor().validate(|last| Ok(reported(last)));

            cx.receive(frame.len(), frame.segments(), reported.unwrap_or_default());
        });

        // Buffers stay in their slots, so none is missing, unless there was no memory. A device
        // that was stopped is told when it is started.
        let _ = work.refill(GFP_ATOMIC | __GFP_NOWARN);
        Progress::Done
    }

    #[inline]
    fn rearm(&self) {
        self.control.unmask_interrupts();
    }

    fn work(&self, device: &mut netdev::Control<'_, Self>, events: Events) {
        let restarts = [Events::RESET, Events::RESUMED]
            .iter()
            .any(|event| events.contains(*event));

        if restarts {
            let restarted = device.restart(|tx, work| {
                if events.contains(Events::RESET) {
                    self.silence();
                    self.session.restart()?;
                }
                // The device knows of no rings, unless it was opened since it woke.
                if work.rx.consumer.is_stopped() {
                    self.begin(tx, work)?;
                }
                Ok(())
            });

            if let Err(e) = restarted {
                dev_err!(self.dev, "the device can't be restarted ({e:?})\n");
                return;
            }
        }

        self.tell_carrier(device);
    }

    fn set_rx_mode(&self, _device: &mut netdev::Control<'_, Self>, mode: &RxMode<'_>) -> Result {
        let mut filters = Filters {
            all: mode.is_promiscuous(),
            groups: mode.wants_all_multicast(),
            ..Filters::NONE
        };

        mode.unicast()
            .for_each(|address| filters.add_address(address));
        mode.multicast().for_each(|group| filters.add_group(group));

        let mut current = self.filters.lock();

        *current = filters;
        current.apply(&self.control);
        Ok(())
    }

    fn set_mac_address(&self, _device: &mut netdev::Control<'_, Self>, address: [u8; 6]) -> Result {
        *self.mac.lock() = address;
        self.control.set_address(0, Some(address));
        Ok(())
    }

    fn missed(&self) -> u64 {
        let mut counted = self.statistics.lock();

        counted.add(&self.control);
        counted.missed
    }

    fn link(&self) -> Option<Link> {
        let link = self.phy.lock().link().ok().filter(|link| link.up)?;

        Some(Link {
            speed: link.speed,
            is_full_duplex: link.full_duplex,
        })
    }

    fn link_choice(&self) -> (LinkModes, LinkChoice) {
        let choice = match self.phy.lock().choice() {
            Choice::Negotiated(offer) => LinkChoice::Negotiated(modes(offer)),
            Choice::Forced { fast, full_duplex } => LinkChoice::Forced(Link {
                speed: if fast { 100 } else { 10 },
                is_full_duplex: full_duplex,
            }),
        };

        (modes(Offer::ALL), choice)
    }

    fn set_link(&self, _device: &mut netdev::Control<'_, Self>, choice: LinkChoice) -> Result {
        let choice = match choice {
            LinkChoice::Negotiated(modes) => Choice::Negotiated(Offer {
                half_10: modes.contains(LinkModes::HALF_10),
                full_10: modes.contains(LinkModes::FULL_10),
                half_100: modes.contains(LinkModes::HALF_100),
                full_100: modes.contains(LinkModes::FULL_100),
                full_1000: modes.contains(LinkModes::FULL_1000),
            }),
            LinkChoice::Forced(Link { speed: 1000, .. }) => Choice::Negotiated(Offer::ONLY_1000),
            LinkChoice::Forced(link) => Choice::Forced {
                fast: link.speed == 100,
                full_duplex: link.is_full_duplex,
            },
        };

        self.phy.lock().choose(choice)
    }

    fn rings(&self) -> (RingLengths, RingLengths) {
        let most = *RING_LENGTHS.end();

        (*self.lengths.lock(), RingLengths { tx: most, rx: most })
    }

    fn set_rings(&self, device: &mut netdev::Control<'_, Self>, lengths: RingLengths) -> Result {
        check(lengths)?;

        // All that can fail for want of memory, before anything is stopped.
        let rx_before = self.lengths.lock().rx;
        let spare_tx = SpareTx::new(self.dma, lengths.tx)?;
        let spare_rx = Spare::new(self.dma, lengths.rx)?;
        let mut stock = KVec::with_capacity(lengths.rx as usize, GFP_KERNEL)?;

        for _ in rx_before..lengths.rx {
            stock.push(new_buffer(GFP_KERNEL)?, GFP_KERNEL)?;
        }

        let resize = |tx: &mut Tx<'a>, work: &mut Work<'a>| -> Result {
            tx.resize_to(&mut work.cleaner, spare_tx)?;
            work.rx
                .resize_to(spare_rx, |buffer| drop(stock.push_within_capacity(buffer)))
                .map_err(|refused| refused.error)?;
            work.stock = stock;
            *self.lengths.lock() = lengths;
            Ok(())
        };

        // The device is closed.
        if let Some((tx, work)) = &mut *self.rings.lock() {
            return resize(tx, work);
        }

        let mut resized = Ok(());

        device.restart(|tx, work| {
            self.silence();
            self.session.stop();
            resized = resize(tx, work);
            // It goes on in any case: if an event is under way, when that is over.
            self.session.restart()?;
            self.begin(tx, work)
        })?;
        self.tell_carrier(device);
        resized
    }

    fn coalescing(&self) -> u32 {
        self.coalescing.load(Relaxed)
    }

    fn set_coalescing(&self, _device: &mut netdev::Control<'_, Self>, microseconds: u32) -> Result {
        let itr = interval(microseconds);

        if itr == u16::MAX {
            return Err(EINVAL);
        }

        self.coalescing.store(microseconds, Relaxed);
        self.control.set_interval(itr);
        Ok(())
    }

    const STATISTICS: &'static [&'static CStr] = &[
        c"device_sent",
        c"device_received",
        c"device_missed",
        c"device_no_buffers",
        c"device_oversized",
    ];

    fn statistics(&self, values: &mut [u64]) {
        let mut counted = self.statistics.lock();

        counted.add(&self.control);

        let Statistics {
            sent,
            received,
            missed,
            no_buffers,
            oversized,
        } = *counted;

        for (value, count) in values
            .iter_mut()
            .zip([sent, received, missed, no_buffers, oversized])
        {
            *value = count;
        }
    }

    const SELF_TESTS: &'static [&'static CStr] = &[c"EEPROM", c"link", c"loopback (offline)"];

    fn self_test(
        &self,
        device: &mut netdev::Control<'_, Self>,
        may_disturb: bool,
        results: &mut [u64],
    ) {
        let has_eeprom = eeprom::mac_address(&self.control).is_ok();
        let has_link = self.link().is_some();
        let mut looped = Ok(());

        if may_disturb {
            // They are here if the device is closed.
            let rings = self.rings.lock().take();

            if let Some((mut tx, mut work)) = rings {
                looped = self.test_loopback(&mut tx, &mut work);
                self.end(tx, work);
            } else {
                let restarted = device.restart(|tx, work| {
                    looped = self.test_loopback(tx, work);
                    self.begin_again(tx, work)
                });

                if restarted.is_ok() {
                    self.tell_carrier(device);
                }

                looped = looped.and(restarted);
            }
        }

        let failed = [!has_eeprom, !has_link, looped.is_err()];

        for (result, failed) in results.iter_mut().zip(failed) {
            *result = failed.into();
        }
    }
}
