// SPDX-License-Identifier: GPL-2.0

//! The network interface: frames go out and come in.

use super::{
    eeprom,
    hardware::{
        self,
        Control,
        Data,
        Interrupts,
        Parts,
        RxQueue,
        TxOptions,
        TxQueue,
        BUFFER_SIZE, //
    },
    phy::Phy, //
};
use kernel::{
    device::{
        Bound,
        Core,
        Device, //
    },
    dma::{
        ring::Ring,
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
        Napi,
        Poll,
        Progress,
        Sender,
        SkBuff,
        Unregistered,
        Verdict,
        Xmit, //
    },
    new_mutex,
    pci,
    prelude::*,
    sync::{
        atomic::{
            Atomic,
            Relaxed, //
        },
        Arc,
        Mutex, //
    }, //
};

/// How many descriptors a ring may have.
const RING_LENGTHS: core::ops::RangeInclusive<u32> = 64..=4096;

/// The shortest frame on the wire, without its checksum. The device could lengthen shorter ones
/// (`TCTL.PSP`); QEMU doesn't.
const MIN_FRAME: u32 = 60;

/// The longest frame that the device stores, without its checksum: a header, a VLAN tag, and the
/// largest MTU.
const MAX_FRAME: u32 = 14 + 4 + *MTU.end();

/// As the kernel's own driver has it.
const MTU: core::ops::RangeInclusive<u32> = 46..=16110;

/// What is received into. Mapped once, used again and again.
type RxBuffer = KBox<[u8; BUFFER_SIZE]>;

/// What sends, by the lock of the transmit queue.
type Tx<'a> = Sender<'a, TxQueue<'a>>;

/// What is polled.
pub(crate) struct Work<'a> {
    cleaner: Cleaner<'a, TxQueue<'a>>,
    rx: Ring<'a, RxQueue<'a>, RxBuffer>,
}

/// The driver of a bound device.
#[pin_data]
struct Interface<'a> {
    dev: &'a pci::Device<Bound>,
    control: Control<'a>,
    mac: eeprom::MacAddress,
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
    if ![tx_len, rx_len]
        .iter()
        .all(|len| len.is_power_of_two() && RING_LENGTHS.contains(len))
    {
        dev_err!(pdev, "no rings of {tx_len} and {rx_len} descriptors\n");
        return Err(EINVAL);
    }

    let device: &Device<Core<'a>> = pdev.as_ref();

    pdev.enable_device_mem()?;

    let dma = Mapper::get(device.bound())?;
    let Parts {
        transmitter,
        mut receiver,
        stopper,
        interrupts,
        control,
    } = hardware::claim(pdev).inspect_err(|e| dev_err!(pdev, "no 8254x device ({e:?})\n"))?;

    // There are no filters yet: the stack sees what isn't for it.
    receiver.promiscuous = true;

    let mac = eeprom::mac_address(&control)
        .inspect_err(|e| dev_err!(pdev, "the EEPROM can't be read ({e:?})\n"))?;

    let mut netdev = Unregistered::<Interface<'a>>::new(device)?;

    netdev.set_mac_address(mac);
    netdev.set_mtu_range(MTU);

    let (tx, cleaner) = netdev.transmit_ring(dma, transmitter, tx_len)?;
    let rx = Ring::new(dma, receiver, rx_len)?;
    let session = Session::new(device, stopper, Ok::<_, Error>(()))?;
    let link_changed = Arc::new(Atomic::new(false), GFP_KERNEL)?;

    // Before the interrupt is there: whoever had the device may have left some.
    control.silence();

    let handler = Handler {
        interrupts,
        napi: netdev.napi(),
        link_changed: link_changed.clone(),
    };
    let types = pci::IrqTypes::default()
        .with(pci::IrqType::Msi)
        .with(pci::IrqType::Intx);

    pdev.request_irq(types, c"dma_rs_e1000_net", Ok(handler))
        .inspect_err(|e| dev_err!(pdev, "no interrupt ({e:?})\n"))?;

    netdev.register(
        device,
        try_pin_init!(Interface {
            dev: pdev.bound(),
            control,
            mac,
            link_changed,
            phy <- new_mutex!(Phy::new(*control)),
            session,
            rings <- new_mutex!(Some((tx, Work { cleaner, rx }))),
        }? Error),
    )
}

impl<'a> Interface<'a> {
    /// Tells the device, whose session was started, of everything.
    fn begin(&self, tx: &mut Tx<'a>, work: &mut Work<'a>) -> Result {
        self.control.configure(self.mac, false, 0);
        self.phy.lock().restore()?;
        tx.start(&mut work.cleaner)?;
        work.rx.start(drop)?;
        work.rx
            .producer
            .refill((), || KBox::init(pin_init::init_zeroed(), GFP_KERNEL))?;
        work.rx.producer.kick()
    }

    /// Stops the device, and puts the rings away. Frames that weren't sent are dropped; if the
    /// device can't be proven to have stopped, by the next start.
    fn end(&self, mut tx: Tx<'a>, mut work: Work<'a>) {
        self.control.silence();
        self.session.stop();
        let _ = tx.drain(&mut work.cleaner);
        *self.rings.lock() = Some((tx, work));
    }

    /// Returns whether there is a link.
    fn has_link(&self) -> bool {
        self.phy.lock().link().is_ok_and(|link| link.up)
    }
}

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

        device.set_carrier(self.has_link());
        Ok((tx, work))
    }

    fn stop(&self, device: &mut netdev::Control<'_, Self>, tx: Tx<'a>, work: Work<'a>) {
        device.set_carrier(false);
        self.end(tx, work);
    }

    #[inline]
    fn start_xmit(&self, tx: &mut Tx<'a>, skb: SkBuff, cx: &mut Xmit<'_>) -> Verdict {
        if skb.len() > MAX_FRAME {
            return cx.drop_frame(skb, DropReason::PKT_TOO_BIG);
        }

        match skb.pad_to(MIN_FRAME) {
            Ok(skb) => tx.xmit(cx, skb, TxOptions::Data(Data::default())),
            Err(handled) => Verdict::Handled(handled),
        }
    }

    #[inline]
    fn kick(&self, tx: &mut Tx<'a>) {
        tx.kick();
    }

    #[inline]
    fn poll(&self, work: &mut Work<'a>, cx: &mut Poll<'_>) -> Progress {
        let Work { cleaner, rx } = work;

        // Taken at once, or a change would be lost that comes in between.
        if self.link_changed.load(Relaxed) && self.link_changed.xchg(false, Relaxed) {
            cx.schedule_work(Events::LINK);
        }

        cleaner.clean(cx);
        rx.consumer.receive_each(cx.budget(), |frame| {
            cx.receive(frame.len(), frame.segments());
        });

        // Buffers stay in their slots, so none is missing. A device that was stopped is told when
        // it is started.
        let _ = rx.producer.refill((), || Err(ENOMEM));
        let _ = rx.producer.kick();
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
                    self.control.silence();
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

        device.set_carrier(self.has_link());
    }
}
