// SPDX-License-Identifier: GPL-2.0

//! KUnit tests of network devices.
//!
//! The device sends itself what it is told to send: the test plays it, and says when. Its rings are
//! real, and so are the stack, its queues and NAPI.

use super::{
    Checksum,
    Cleaner,
    Control,
    Device,
    Driver,
    DropReason,
    Events,
    Features,
    Handled,
    Napi,
    Poll,
    Progress,
    Reported,
    RxMode,
    Sender,
    SkBuff,
    Unregistered,
    Verdict,
    Xmit, //
};
use crate::{
    bindings,
    device::{
        self,
        Core, //
    },
    dma::{
        fixture::{
            self,
            ensure, //
        },
        ring::{
            Descriptor,
            DescriptorInfo,
            Length,
            Publish,
            ReceiveDescriptor,
            Received,
            Ring,
            RingMemory,
            RingRegisters,
            Tail,
            Verdict as FrameVerdict, //
        },
        Constraints,
        DmaMask,
        FromDevice,
        Mapper,
        OneWay,
        Quiesce,
        Session,
        StopOutcome,
        ToDevice,
        Untrusted, //
    },
    error::to_result,
    new_mutex,
    new_spinlock,
    page::{
        Page,
        PAGE_SIZE, //
    },
    prelude::*,
    sync::{
        aref::ARef,
        atomic::{
            Acquire,
            Atomic,
            Relaxed,
            Release, //
        },
        Arc,
        Mutex,
        SpinLock, //
    },
    time::{
        delay::fsleep,
        Delta, //
    },
    types::Opaque, //
};
use core::{
    marker::PhantomData,
    mem::ManuallyDrop, //
};

/// Descriptors of a ring.
const LEN: u32 = 256;

/// The size of a receive buffer.
const BUF: usize = 2048;

/// The shortest frame that the device sends.
const SHORTEST: usize = 60;

/// The protocol of the frames: one for experiments.
const PROTOCOL: [u8; 2] = [0x88, 0xb5];

const ADDRESS: [u8; 6] = [0x52, 0x54, 0, 1, 2, 3];

/// The number of its interrupt, which it doesn't have.
const IRQ: u32 = 77;

/// A descriptor of the device.
#[derive(Clone, Copy, FromBytes, IntoBytes)]
#[repr(C)]
struct Command {
    /// An address; or where the frame that follows is to have a checksum.
    address: u64,
    len: u32,
    status: u32,
}

const DONE: u32 = 1;

/// In the length: the frame goes on in the next descriptor.
const MORE: u32 = 1 << 31;
/// In the length: this is about a checksum.
const CONTEXT: u32 = 1 << 30;

// SAFETY: The device (the test) accesses up to `len` bytes at `address`, in the direction of its
// port, and then sets `DONE`; those of a frame in order. It works off nothing of a frame before the
// tail is behind all of it. Of a `CONTEXT` it accesses nothing.
unsafe impl Descriptor for Command {
    type Options = Option<Checksum>;
    const STATUS: usize = 12;
    const MAX_LEN: usize = BUF;

    fn new(info: DescriptorInfo<'_, Self::Options>) -> Result<Self> {
        let more = if info.last { 0 } else { MORE };

        Ok(match info.options {
            Some(checksum) => Self {
                address: u64::from(checksum.start) | u64::from(checksum.offset) << 16,
                len: CONTEXT | more,
                status: 0,
            },
            None => Self {
                address: info.address().unwrap_or(0),
                // CAST: At most `MAX_LEN`.
                len: info.len() as u32 | more,
                status: 0,
            },
        })
    }

    fn is_done(status: u32) -> bool {
        u32::from_le(status) & DONE != 0
    }
}

impl ReceiveDescriptor for Command {
    fn received(&self) -> Received {
        Received {
            // CAST: Widening.
            len: Length::Segment(Untrusted::new(self.len as usize)),
            last: true,
            verdict: FrameVerdict::Good,
        }
    }
}

/// A ring, as the device has it.
struct Side {
    base: Atomic<u64>,
    tail: Atomic<u32>,
    /// The next descriptor.
    index: Atomic<u32>,
}

impl Side {
    const fn new() -> Self {
        Self {
            base: Atomic::new(0),
            tail: Atomic::new(0),
            index: Atomic::new(0),
        }
    }

    /// Returns the next descriptor, if there is one.
    fn look(&self) -> Option<*mut Command> {
        let base = self.base.load(Acquire);
        let index = self.index.load(Relaxed);

        if base == 0 || index == self.tail.load(Acquire) {
            return None;
        }

        // CAST: Widening.
        Some(at(base + u64::from(index) * size_of::<Command>() as u64))
    }

    /// Says that the device is done with the descriptor that [`look`](Self::look) has returned.
    fn done(&self, command: *mut Command) {
        // SAFETY: It is in the ring, which is there as long as the device may access it.
        let status = unsafe { Atomic::from_ptr(&raw mut (*command).status) };

        status.store(DONE.to_le(), Release);
        self.index
            .store((self.index.load(Relaxed) + 1) % LEN, Relaxed);
    }
}

/// Returns where the CPU finds what the device finds at `addr`: the device isn't behind an IOMMU.
fn at<T>(addr: u64) -> *mut T {
    // SAFETY: The address of memory that was mapped or allocated for the device.
    unsafe { bindings::phys_to_virt(addr) }.cast()
}

/// The device, and what became of its driver's callbacks.
struct Hardware {
    dev: ARef<device::Device>,
    tx: Side,
    rx: Side,
    /// The step at which `open` fails, from 1 on.
    open_fails: Atomic<u32>,
    /// Whether restarting fails.
    restart_fails: Atomic<u32>,
    /// Whether frames are dropped.
    refuses: Atomic<u32>,
    /// Whether the driver confuses frames: it keeps the next, and gives it back for the one after.
    confuses: Atomic<u32>,
    /// Whether the device can't be proven to have stopped.
    hangs: Atomic<u32>,
    /// The length that the device says each frame has; 0 for the truth.
    says: Atomic<u32>,
    /// How many descriptors it has worked off, and how many of them were about checksums, of which
    /// the last said this.
    commands: Atomic<u32>,
    contexts: Atomic<u32>,
    checksum: Atomic<u64>,
    /// What the driver was told that is to be received: how many addresses, how many groups, and
    /// the last of these.
    addresses: Atomic<u32>,
    groups: Atomic<u32>,
    group: Atomic<u64>,
    mac: Atomic<u64>,
    /// Whether the driver refuses what it is told.
    refuses_settings: Atomic<u32>,
    polls: Atomic<u32>,
    /// The most frames that were received in one poll.
    most: Atomic<u32>,
    rearms: Atomic<u32>,
    kicks: Atomic<u32>,
    restarts: Atomic<u32>,
    stops: Atomic<u32>,
    missed: Atomic<u64>,
}

impl Hardware {
    fn new(dev: &device::Device) -> Result<Arc<Self>> {
        let zero = || Atomic::new(0);

        Ok(Arc::new(
            Self {
                dev: dev.into(),
                tx: Side::new(),
                rx: Side::new(),
                open_fails: zero(),
                restart_fails: zero(),
                refuses: zero(),
                confuses: zero(),
                hangs: zero(),
                says: zero(),
                commands: zero(),
                contexts: zero(),
                checksum: Atomic::new(0),
                addresses: zero(),
                groups: zero(),
                group: Atomic::new(0),
                mac: Atomic::new(0),
                refuses_settings: zero(),
                polls: zero(),
                most: zero(),
                rearms: zero(),
                kicks: zero(),
                restarts: zero(),
                stops: zero(),
                missed: Atomic::new(0),
            },
            GFP_KERNEL,
        )?)
    }

    /// The device sends up to `most` frames to itself; returns how many. Without a buffer for one
    /// it is lost.
    fn turn(&self, most: u32) -> u32 {
        for sent in 0..most {
            if !self.turn_once() {
                return sent;
            }
        }

        most
    }

    /// The device sends a frame to itself, if there is one.
    fn turn_once(&self) -> bool {
        let buffer = self.rx.look();
        let mut total = 0;

        loop {
            let Some(command) = self.tx.look() else {
                return false;
            };

            Self::count(&self.commands);

            // SAFETY: Both are the device's, and nobody else accesses them or their memory. A frame
            // is no longer than a buffer.
            let is_last = unsafe {
                let Command { address, len, .. } = *command;

                if len & CONTEXT != 0 {
                    Self::count(&self.contexts);
                    self.checksum.store(address, Relaxed);
                } else if let Some(buffer) = buffer {
                    // CAST: Widening.
                    let len = (len & !MORE) as usize;

                    core::ptr::copy_nonoverlapping(
                        at::<u8>(address),
                        at::<u8>((*buffer).address).add(total),
                        len,
                    );
                    total += len;
                }
                len & MORE == 0
            };

            self.tx.done(command);

            if is_last {
                break;
            }
        }

        if let Some(buffer) = buffer {
            // CAST: A frame of the tests.
            //
            // SAFETY: As above.
            unsafe {
                (*buffer).len = match self.says.load(Relaxed) {
                    0 => total as u32,
                    said => said,
                };
            }
            self.rx.done(buffer);
        }

        true
    }

    fn count(counter: &Atomic<u32>) {
        counter.store(counter.load(Relaxed) + 1, Relaxed);
    }

    /// Fails at a step of `open`, if it is to.
    fn step(&self, step: u32) -> Result {
        if self.open_fails.load(Relaxed) == step {
            return Err(EIO);
        }

        Ok(())
    }
}

/// How the device is stopped.
struct Stopper(Arc<Hardware>);

// SAFETY: By the numbers of the contract:
// 1. There is one device, which the test plays.
// 2. It does something only while the test calls it, which no test does after a stop before the
//    driver has said where the rings are.
// 3. It has written to memory when such a call returns.
// 4. It can't be pulled out.
// 5. As 2.
// 6. `quiesce` never says so.
// 7. `HEEDS_BUS` is false.
// 8. Addresses have 64 bits. It copies what a descriptor says.
// 9. Both end at once. Neither knows the session.
unsafe impl Quiesce for Stopper {
    fn device(&self) -> &device::Device {
        &self.0.dev
    }

    fn limits(&self) -> Constraints {
        Constraints::new(DmaMask::new::<64>())
    }

    fn disarm(&mut self) -> Result {
        self.0.tx.base.store(0, Relaxed);
        self.0.rx.base.store(0, Relaxed);
        Ok(())
    }

    fn quiesce(&self) -> StopOutcome {
        if self.0.hangs.load(Relaxed) != 0 {
            StopOutcome::Unproven
        } else {
            StopOutcome::Stopped
        }
    }
}

/// A queue of the device.
struct Port<D>(Arc<Hardware>, PhantomData<fn(D)>);

impl<D: OneWay> Port<D> {
    fn side(&self) -> &Side {
        if D::DEVICE_WRITES {
            &self.0.rx
        } else {
            &self.0.tx
        }
    }
}

// SAFETY: The device works descriptors off in order, those before the tail, and accesses none with
// which it is done. There are no own bits. The tail is stored with release semantics: after all
// other memory. There is one port for each direction.
unsafe impl<D: OneWay> RingRegisters for Port<D> {
    type Descriptor = Command;
    type Direction = D;
    const PUBLISH: Publish = Publish::Tail;

    fn device(&self) -> &device::Device {
        &self.0.dev
    }

    fn start(&mut self, ring: RingMemory<'_>) -> Result {
        // SAFETY: The ring stays as long as the device may access it.
        let base = unsafe { ring.memory.to_bits(ring.running) };
        let side = self.side();

        side.tail.store(0, Relaxed);
        side.index.store(0, Relaxed);
        #[allow(clippy::useless_conversion, reason = "bus addresses may have 32 bits")]
        side.base.store(base.into(), Release);
        Ok(())
    }

    fn doorbell(&mut self, tail: Tail) {
        self.side().tail.store(tail.index(), Release);
    }
}

type Tx<'a> = Sender<'a, Port<ToDevice>>;
type Clean<'a> = Cleaner<'a, Port<ToDevice>>;
type RxBuffer = KBox<[u8; BUF]>;

/// What is polled.
struct Work<'a> {
    cleaner: Clean<'a>,
    rx: Ring<'a, Port<FromDevice>, RxBuffer>,
}

/// The driver.
#[pin_data]
struct Fake<'a> {
    hardware: Arc<Hardware>,
    session: Session<'a, ()>,
    #[pin]
    rings: Mutex<Option<(Tx<'a>, Work<'a>)>>,
    /// A frame that it keeps.
    #[pin]
    kept: SpinLock<Option<ManuallyDrop<SkBuff>>>,
}

impl<'a> Fake<'a> {
    fn begin(&self, tx: &mut Tx<'a>, work: &mut Work<'a>) -> Result {
        tx.start(&mut work.cleaner)?;
        self.hardware.step(2)?;
        work.rx.start(drop)?;
        self.hardware.step(3)?;
        work.rx
            .producer
            .refill(None, || KBox::init(pin_init::init_zeroed(), GFP_KERNEL))?;
        self.hardware.step(4)?;
        work.rx.producer.kick()?;
        self.hardware.step(5)
    }

    fn end(&self, mut tx: Tx<'a>, mut work: Work<'a>) {
        self.session.stop();
        let _ = tx.drain(&mut work.cleaner);
        *self.rings.lock() = Some((tx, work));
    }
}

/// An address as a number.
fn number_of([a, b, c, d, e, f]: [u8; 6]) -> u64 {
    u64::from_be_bytes([0, 0, a, b, c, d, e, f])
}

#[vtable]
impl<'a> Driver for Fake<'a> {
    type Tx = Tx<'a>;
    type Poll = Work<'a>;

    fn open(&self, device: &mut Control<'_, Self>) -> Result<(Tx<'a>, Work<'a>)> {
        self.hardware.step(1)?;
        self.session.start()?;

        let (mut tx, mut work) = self.rings.lock().take().ok_or(EBUSY)?;

        if let Err(e) = self.begin(&mut tx, &mut work) {
            self.end(tx, work);
            return Err(e);
        }

        device.set_carrier(true);
        Ok((tx, work))
    }

    fn stop(&self, device: &mut Control<'_, Self>, tx: Tx<'a>, work: Work<'a>) {
        Hardware::count(&self.hardware.stops);
        device.set_carrier(false);
        self.end(tx, work);
    }

    fn start_xmit(&self, tx: &mut Tx<'a>, skb: SkBuff, cx: &mut Xmit<'_>) -> Verdict {
        if self.hardware.refuses.load(Relaxed) != 0 {
            return cx.drop_frame(skb, DropReason::PKT_TOO_BIG);
        }

        if self.hardware.confuses.load(Relaxed) != 0 {
            let mut kept = self.kept.lock();

            if let Some(earlier) = kept.take() {
                let _ = cx.drop_frame(skb, DropReason::PKT_TOO_BIG);
                return Verdict::Busy(ManuallyDrop::into_inner(earlier));
            }
            // As if a driver had two frames at the same time.
            *kept = Some(ManuallyDrop::new(skb));
            return Verdict::Handled(Handled(()));
        }

        match skb.pad_to(SHORTEST as u16) {
            Ok(skb) => {
                let context = skb.checksum().map(Some);

                tx.xmit(cx, skb, context, None)
            }
            Err(handled) => Verdict::Handled(handled),
        }
    }

    fn kick(&self, tx: &mut Tx<'a>) {
        Hardware::count(&self.hardware.kicks);
        tx.kick();
    }

    fn poll(&self, work: &mut Work<'a>, cx: &mut Poll<'_>) -> Progress {
        let Work { cleaner, rx } = work;
        let before = cx.budget();

        Hardware::count(&self.hardware.polls);
        cleaner.clean(cx);
        rx.consumer.receive_each(before, |frame| {
            cx.receive(frame.len(), frame.segments(), Reported::default());
        });

        let received = before - cx.budget();
        let most = &self.hardware.most;

        most.store(most.load(Relaxed).max(received), Relaxed);

        let _ = rx.producer.refill(None, || Err(ENOMEM));
        let _ = rx.producer.kick();
        Progress::Done
    }

    fn rearm(&self) {
        Hardware::count(&self.hardware.rearms);
    }

    fn work(&self, device: &mut Control<'_, Self>, events: Events) {
        if !events.contains(Events::RESET) {
            return;
        }

        let _ = device.restart(|tx, work| {
            if self.hardware.restart_fails.load(Relaxed) != 0 {
                return Err(EIO);
            }

            self.session.restart()?;
            self.begin(tx, work)
        });

        self.hardware
            .restarts
            .store(self.hardware.restarts.load(Relaxed) + 1, Release);
    }

    fn missed(&self) -> u64 {
        self.hardware.missed.load(Relaxed)
    }

    fn set_rx_mode(&self, _device: &mut Control<'_, Self>, mode: &RxMode<'_>) -> Result {
        let Hardware {
            addresses,
            groups,
            group,
            refuses_settings,
            ..
        } = &*self.hardware;

        if refuses_settings.load(Relaxed) != 0 || mode.is_promiscuous() {
            return Err(EIO);
        }

        // CAST: Not so many.
        addresses.store(mode.unicast().count() as u32, Relaxed);
        group.store(mode.multicast().last().map_or(0, number_of), Relaxed);
        groups.store(mode.multicast().count() as u32, Release);
        Ok(())
    }

    fn set_mac_address(&self, _device: &mut Control<'_, Self>, address: [u8; 6]) -> Result {
        if self.hardware.refuses_settings.load(Relaxed) != 0 {
            return Err(EIO);
        }

        self.hardware.mac.store(number_of(address), Relaxed);
        Ok(())
    }
}

/// A registered device, as the rest of the world sees it.
struct Nic<'a> {
    hardware: Arc<Hardware>,
    device: &'a Device,
    napi: &'a Napi,
}

impl<'a> Nic<'a> {
    fn bring_up(dev: &device::Device<Core<'a>>) -> Result<Self> {
        Self::bring_up_after(dev, |_, _, _| Ok(()))
    }

    /// Does `first` before the network device is registered.
    fn bring_up_after(
        dev: &device::Device<Core<'a>>,
        first: impl FnOnce(&Session<'a, ()>, &mut Tx<'a>, &mut Clean<'a>) -> Result,
    ) -> Result<Self> {
        let hardware = Hardware::new(dev)?;
        let dma = Mapper::get(dev.bound())?;
        let mut netdev = Unregistered::<Fake<'a>>::new(dev)?;

        netdev.set_mac_address(ADDRESS);
        netdev.set_mtu_range(68..=1500);
        netdev.set_features(Features::SG.with(Features::CHECKSUM), Features::NONE)?;

        // Too short for a frame of many pieces.
        ensure!(netdev
            .transmit_ring(dma, Port::<ToDevice>(hardware.clone(), PhantomData), 32)
            .is_err_and(|e| e == EINVAL));

        let (mut tx, mut cleaner) =
            netdev.transmit_ring(dma, Port(hardware.clone(), PhantomData), LEN)?;

        // It is made for what was said before.
        ensure!(netdev.set_features(Features::NONE, Features::NONE) == Err(EBUSY));

        // A queue has one ring, or its byte counts wouldn't agree.
        ensure!(netdev
            .transmit_ring(dma, Port::<ToDevice>(hardware.clone(), PhantomData), LEN)
            .is_err_and(|e| e == EBUSY));

        let rx = Ring::new(dma, Port(hardware.clone(), PhantomData), LEN)?;
        let session = Session::new(dev, Stopper(hardware.clone()), Ok::<_, Error>(()))?;
        let napi = netdev.napi();

        netdev.set_irq(IRQ)?;
        first(&session, &mut tx, &mut cleaner)?;

        // Nobody polls a device that isn't open.
        ensure!(!napi.schedule());

        let shared = hardware.clone();
        let fake = try_pin_init!(Fake {
            hardware: shared,
            session,
            rings <- new_mutex!(Some((tx, Work { cleaner, rx }))),
            kept <- new_spinlock!(None),
        }? Error);
        let device = netdev.register(dev, fake)?;

        Ok(Self {
            hardware,
            device,
            napi,
        })
    }

    fn raw(&self) -> *mut bindings::net_device {
        core::ptr::from_ref(self.device).cast_mut().cast()
    }

    fn open(&self) -> Result {
        // SAFETY: The device is registered. With RTNL, as needed.
        to_result(unsafe {
            bindings::rtnl_lock();
            let err = bindings::dev_open(self.raw(), core::ptr::null_mut());
            bindings::rtnl_unlock();
            err
        })
    }

    fn close(&self) {
        // SAFETY: As above.
        unsafe {
            bindings::rtnl_lock();
            bindings::dev_close(self.raw());
            bindings::rtnl_unlock();
        }
    }

    /// Sends a frame of `len` bytes, with a number. Returns what the stack says of it.
    fn send(&self, number: u32, len: usize) -> Result<c_int> {
        // SAFETY: The device is registered.
        unsafe { send(self.raw(), number, len) }
    }

    /// Gives the driver a frame, whatever the stack would say to that. Returns whether it took it.
    fn push(&self, number: u32, len: usize) -> Result<bool> {
        // SAFETY: The device is registered, and the lock of its queue is held, as by the stack. The
        // skb was just made, and is ours again if the driver has no room for it.
        unsafe {
            let skb = skb(self.raw(), number, len)?;
            let queue = bindings::netdev_get_tx_queue(self.raw(), 0);
            let xmit = (*(*self.raw()).netdev_ops).ndo_start_xmit.ok_or(EINVAL)?;

            bindings::netif_tx_lock_queue_bh(queue);

            let verdict = xmit(skb, self.raw());

            bindings::netif_tx_unlock_queue_bh(queue);

            let is_taken = verdict.0 == bindings::netdev_tx::NETDEV_TX_OK.0;

            if !is_taken {
                bindings::consume_skb(skb);
            }
            Ok(is_taken)
        }
    }

    /// The device does what it is told, and interrupts.
    fn turn(&self, most: u32) -> u32 {
        let count = self.hardware.turn(most);

        self.interrupt();
        count
    }

    /// The device interrupts. The softirq runs before this returns, or soon.
    fn interrupt(&self) {
        // SAFETY: It was added, and is valid.
        unsafe { bindings::napi_kick(self.napi.as_raw()) };
    }

    fn statistics(&self) -> bindings::rtnl_link_stats64 {
        // Not aligned, as in a message of netlink.
        let mut room = [0_u32; 1 + size_of::<bindings::rtnl_link_stats64>() / size_of::<u32>()];
        let skip = usize::from(room.as_ptr().addr() % size_of::<u64>() == 0);

        // SAFETY: The device is registered. There is room for the statistics, and any bytes are.
        unsafe {
            let stats = room
                .as_mut_ptr()
                .add(skip)
                .cast::<bindings::rtnl_link_stats64>();

            bindings::dev_get_stats(self.raw(), stats);
            stats.read_unaligned()
        }
    }

    /// Lets any number of bytes be in the ring.
    fn lift_limit(&self) {
        // SAFETY: The device is registered. These are numbers, and nobody sends meanwhile.
        #[cfg(CONFIG_BQL)]
        unsafe {
            let dql = &raw mut (*bindings::netdev_get_tx_queue(self.raw(), 0)).dql;

            (*dql).min_limit = u32::MAX / 4;
            (*dql).limit = u32::MAX / 4;
            (*dql).adj_limit = u32::MAX / 4;
        }
    }

    /// Whether the driver has stopped the queue.
    fn is_stopped(&self) -> bool {
        // SAFETY: The device is registered, and has one queue.
        unsafe { bindings::netif_tx_queue_stopped(bindings::netdev_get_tx_queue(self.raw(), 0)) }
    }

    /// Sends `count` frames of many lengths, and sees them all arrive, one after the other.
    fn exchange(&self, tap: &Tap, count: u32) -> Result {
        for _ in 0..count {
            let number = tap.next();

            ensure!(self.send(number, length(number))? == 0);
            ensure!(within(|| {
                self.turn(LEN);
                tap.next() == number + 1
            }));
        }

        ensure!(tap.wrong() == 0);
        Ok(())
    }
}

/// Who receives frames: it expects them in order, numbered from 0 on.
struct Tap(Pin<KBox<Expected>>);

#[pin_data]
struct Expected {
    #[pin]
    packets: Opaque<bindings::packet_type>,
    next: Atomic<u32>,
    wrong: Atomic<u32>,
}

impl Tap {
    fn new(nic: &Nic<'_>) -> Result<Self> {
        let expected = KBox::pin_init(
            try_pin_init!(Expected {
                packets: Opaque::zeroed(),
                next: Atomic::new(0),
                wrong: Atomic::new(0),
            }? Error),
            GFP_KERNEL,
        )?;

        // SAFETY: It isn't registered yet, hence ours. It stays where it is until it is removed,
        // which is before the device is unregistered.
        unsafe {
            let packets = expected.packets.get();

            (*packets).type_ = u16::from_be_bytes(PROTOCOL).to_be();
            (*packets).dev = nic.raw();
            (*packets).func = Some(Self::receive);
            (*packets).af_packet_priv = core::ptr::from_ref(&*expected).cast_mut().cast();
            bindings::dev_add_pack(packets);
        }

        Ok(Self(expected))
    }

    /// # Safety
    ///
    /// Called by the stack, for a `packet_type` that `new` has registered.
    unsafe extern "C" fn receive(
        skb: *mut bindings::sk_buff,
        _dev: *mut bindings::net_device,
        packets: *mut bindings::packet_type,
        _orig_dev: *mut bindings::net_device,
    ) -> c_int {
        // SAFETY: By the safety requirements it is there, and the skb is valid. The driver makes
        // them of one piece.
        let (expected, bytes) = unsafe {
            (
                &*(*packets).af_packet_priv.cast::<Expected>(),
                core::slice::from_raw_parts((*skb).data, (*skb).len as usize),
            )
        };
        let number = expected.next.load(Relaxed);

        if !is_frame(number, bytes) {
            expected
                .wrong
                .store(expected.wrong.load(Relaxed) + 1, Relaxed);
        }
        expected.next.store(number + 1, Release);

        // SAFETY: The reference is ours.
        unsafe { bindings::consume_skb(skb) };
        0
    }

    /// Returns how many have come, which is the number of the next one.
    fn next(&self) -> u32 {
        self.0.next.load(Acquire)
    }

    /// Returns how many weren't as expected.
    fn wrong(&self) -> u32 {
        self.0.wrong.load(Relaxed)
    }
}

impl Drop for Tap {
    fn drop(&mut self) {
        // SAFETY: It was registered, and this waits for those who use it.
        unsafe { bindings::dev_remove_pack(self.0.packets.get()) };
    }
}

/// Returns how long the frame of a number is.
fn length(number: u32) -> usize {
    // CAST: Widening.
    20 + (number.wrapping_mul(37) % 1495) as usize
}

/// Whether these are the bytes of the frame of a number, after its Ethernet header.
fn is_frame(number: u32, bytes: &[u8]) -> bool {
    let len = length(number);

    bytes.len() + 14 == len.max(SHORTEST)
        && bytes.iter().enumerate().all(|(i, found)| {
            let at = i + 14;
            let expected = match at {
                // CAST: A byte of several.
                14..18 => number.to_le_bytes()[at - 14],
                18..20 => (len as u16).to_le_bytes()[at - 18],
                _ if at < len => byte(number, at),
                // Padding.
                _ => 0,
            };

            *found == expected
        })
}

/// Calls `is_so` until it is, or until it won't be any more.
fn within(mut is_so: impl FnMut() -> bool) -> bool {
    for _ in 0..2000 {
        if is_so() {
            return true;
        }

        fsleep(Delta::from_millis(1));
    }

    false
}

fn byte(number: u32, i: usize) -> u8 {
    // CAST: Cut on purpose.
    (number as usize).wrapping_mul(31).wrapping_add(i) as u8
}

/// Sends a frame. Returns what the stack says of it.
///
/// # Safety
///
/// `dev` must be registered, or somebody must hold a reference to it.
unsafe fn send(dev: *mut bindings::net_device, number: u32, len: usize) -> Result<c_int> {
    // SAFETY: By the safety requirements.
    let skb = unsafe { skb(dev, number, len) }?;

    // SAFETY: It was just made, and is given up.
    Ok(unsafe { bindings::__dev_queue_xmit(skb, core::ptr::null_mut()) })
}

/// Makes a frame.
///
/// # Safety
///
/// As [`send`].
unsafe fn skb(
    dev: *mut bindings::net_device,
    number: u32,
    len: usize,
) -> Result<*mut bindings::sk_buff> {
    let mut bytes = KVec::with_capacity(len, GFP_KERNEL)?;

    bytes.extend_from_slice(&ADDRESS, GFP_KERNEL)?;
    bytes.extend_from_slice(&ADDRESS, GFP_KERNEL)?;
    bytes.extend_from_slice(&PROTOCOL, GFP_KERNEL)?;
    bytes.extend_from_slice(&number.to_le_bytes(), GFP_KERNEL)?;
    // CAST: A frame of the tests.
    bytes.extend_from_slice(&(len as u16).to_le_bytes(), GFP_KERNEL)?;
    for i in bytes.len()..len {
        bytes.push(byte(number, i), GFP_KERNEL)?;
    }

    // SAFETY: By the safety requirements. There is room for that many bytes. CAST: As above.
    unsafe {
        let skb = bindings::__netdev_alloc_skb(dev, len as c_uint, bindings::GFP_KERNEL);

        if skb.is_null() {
            return Err(ENOMEM);
        }

        bindings::skb_put_data(skb, bytes.as_ptr().cast(), len as c_uint);
        Ok(skb)
    }
}

/// As [`send`], for a frame in many pieces. The device is to insert a checksum, if that is so: over
/// what comes after so many bytes, and so far from there on.
///
/// # Safety
///
/// As [`send`].
unsafe fn send_scattered(
    dev: *mut bindings::net_device,
    number: u32,
    len: usize,
    pieces: usize,
    checksum: Option<(u16, u16)>,
) -> Result<c_int> {
    // SAFETY: By the safety requirements.
    let skb = unsafe { scattered(dev, number, len, pieces) }?;

    if let Some((start, offset)) = checksum {
        // SAFETY: It was just made, and its first piece has so many bytes.
        unsafe { bindings::skb_partial_csum_set(skb, start, offset) };
    }

    // SAFETY: It was just made, and is given up.
    Ok(unsafe { bindings::__dev_queue_xmit(skb, core::ptr::null_mut()) })
}

/// Makes a frame in many pieces: the first bytes, and then pages with a few bytes each.
///
/// # Safety
///
/// As [`send`].
unsafe fn scattered(
    dev: *mut bindings::net_device,
    number: u32,
    len: usize,
    pieces: usize,
) -> Result<*mut bindings::sk_buff> {
    // SAFETY: As the caller promises; it is only looked at, and freed below.
    let whole = unsafe { skb(dev, number, len) }?;
    let head = len / pieces;

    // SAFETY: `whole` was just made, and is freed once. `scattered` has room for its head, and for
    // `pieces - 1` fragments, which take over the pages.
    unsafe {
        let bytes = core::slice::from_raw_parts((*whole).data.cast_const(), len);
        // CAST: A frame of the tests.
        let scattered = bindings::__netdev_alloc_skb(dev, head as c_uint, bindings::GFP_KERNEL);
        let made = (|| {
            if scattered.is_null() {
                return Err(ENOMEM);
            }

            let (first, rest) = bytes.split_at(head);
            let chunk = rest.len().div_ceil(pieces - 1);

            bindings::skb_put_data(scattered, first.as_ptr().cast(), head as c_uint);

            for (at, part) in rest.chunks(chunk).enumerate() {
                let page = ManuallyDrop::new(Page::alloc_page(GFP_KERNEL)?);

                page.write_raw(part.as_ptr(), at, part.len())?;
                bindings::skb_add_rx_frag(
                    scattered,
                    at as c_int,
                    page.as_ptr(),
                    at as c_int,
                    part.len() as c_int,
                    PAGE_SIZE as c_uint,
                );
            }

            Ok(scattered)
        })();

        bindings::consume_skb(whole);
        made
    }
}

/// Runs `body` on a device that is registered for it.
fn with_nic(mut body: impl FnMut(&Nic<'_>) -> Result) -> Result {
    fixture::with_platform_device(|pdev| body(&Nic::bring_up(pdev.as_ref())?))
}

#[kunit_tests(rust_net_netdev)]
mod cases {
    use super::*;

    /// The driver tests its device before that is registered: the stack doesn't know of it.
    #[test]
    fn sends_before_registration() -> Result {
        fixture::with_platform_device(|pdev| {
            let nic = Nic::bring_up_after(pdev.as_ref(), |session, tx, cleaner| {
                session.start()?;
                tx.start(cleaner)?;
                // More than the stack lets into a ring at first, so the queue is stopped.
                tx.send_for_test(&[0x55; 128], None)?;
                session.stop();
                tx.drain(cleaner)
            })?;

            nic.open()?;
            ensure!(nic.send(0, 100)? == 0);
            Ok(())
        })
    }

    /// What is done to a frame to which somebody else has a reference is done to a clone: C's
    /// functions end the kernel otherwise.
    #[test]
    fn shared_frames() -> Result {
        // With room for what is added, and without.
        for padding in [40, 1000] {
            let skb = SkBuff::copy_of(&[7; 20])?;
            let shared = skb.as_ptr();

            // SAFETY: It is valid. The reference is given up below.
            unsafe { bindings::skb_get(shared) };

            let padded = skb.pad_to(20 + padding).map(|skb| {
                // SAFETY: It is valid: there are so many bytes.
                let bytes = unsafe {
                    core::slice::from_raw_parts((*skb.as_ptr()).data, skb.len() as usize)
                };
                let is_right = bytes[..20] == [7; 20]
                    && bytes.len() == 20 + usize::from(padding)
                    && bytes[20..].iter().all(|byte| *byte == 0);
                let is_other = skb.as_ptr() != shared;
                let _ = skb.free(DropReason::NOMEM);

                is_right && is_other
            });
            // SAFETY: The reference is ours.
            let shared = unsafe { SkBuff::from_raw(shared) };
            let len = shared.len();
            let _ = shared.free(DropReason::NOMEM);

            ensure!(padded.is_ok_and(|is_right| is_right) && len == 20);
        }

        Ok(())
    }

    /// A checksum that the device can't compute is inserted, but not where somebody else has the
    /// frame, too.
    #[test]
    fn compute_checksum() -> Result {
        const START: u16 = 300;
        const OFFSET: u16 = 16;
        const AT: usize = (START + OFFSET) as usize;
        const AFTER: usize = AT + 1;

        for is_shared in [false, true] {
            let skb = SkBuff::copy_of(&[7; 400])?;
            let shared = skb.as_ptr();

            // SAFETY: It is valid, and in one piece. The other reference is given up below.
            unsafe {
                bindings::skb_partial_csum_set(shared, START, OFFSET);
                bindings::skb_get(shared);
            }

            if !is_shared {
                // SAFETY: The reference is ours.
                let _ = unsafe { SkBuff::from_raw(shared) }.free(DropReason::NOMEM);
            }

            let was_left = skb.checksum().is_some();
            let is_right = skb
                .compute_checksum()
                .map(|skb| {
                    // SAFETY: It is valid: there are so many bytes.
                    let bytes = unsafe {
                        core::slice::from_raw_parts((*skb.as_ptr()).data, skb.len() as usize)
                    };
                    // Fifty words of 0x0707 add up to 0x5f5f.
                    let is_right = bytes.iter().enumerate().all(|(at, byte)| match at {
                        AT | AFTER => *byte == 0xa0,
                        _ => *byte == 7,
                    });
                    let is_inserted = bytes.len() == 400 && skb.checksum().is_none();
                    let is_other = skb.as_ptr() != shared;
                    let _ = skb.free(DropReason::NOMEM);

                    is_right && is_inserted && is_other == is_shared
                })
                .unwrap_or_else(|skb| {
                    let _ = skb.free(DropReason::NOMEM);
                    false
                });

            ensure!(was_left && is_right);

            if is_shared {
                // SAFETY: The reference is ours.
                let shared = unsafe { SkBuff::from_raw(shared) };
                // SAFETY: It is valid: there are so many bytes.
                let bytes = unsafe { core::slice::from_raw_parts((*shared.as_ptr()).data, 400) };
                let is_as_before = bytes == [7; 400] && shared.checksum().is_some();
                let _ = shared.free(DropReason::NOMEM);

                ensure!(is_as_before);
            }
        }

        Ok(())
    }

    /// What is sent comes back, whole and in order, and is counted.
    #[test]
    fn frames() -> Result {
        with_nic(|nic| {
            nic.open()?;

            // The device is polled without an interrupt, and then may interrupt.
            ensure!(within(|| nic.hardware.rearms.load(Relaxed) == 1));

            let tap = Tap::new(nic)?;

            nic.exchange(&tap, 300)?;
            nic.hardware.missed.store(7, Relaxed);

            let bytes: usize = (0..300).map(|i| length(i).max(SHORTEST)).sum();
            let stats = nic.statistics();

            ensure!(stats.tx_packets == 300 && stats.rx_packets == 300);
            // CAST: Widening.
            ensure!(stats.tx_bytes == bytes as u64 && stats.rx_bytes == bytes as u64);
            ensure!(stats.tx_dropped == 0 && stats.rx_dropped == 0 && stats.rx_errors == 0);
            ensure!(stats.rx_missed_errors == 7);
            // The interrupt is unmasked by whoever has nothing more to do.
            ensure!(nic.hardware.rearms.load(Relaxed) > 1);
            Ok(())
        })
    }

    /// The driver polls no more than its budget at once. It is asked again then, without an
    /// interrupt, until there is nothing more to do.
    #[test]
    fn budget() -> Result {
        const FRAMES: u32 = 200;

        with_nic(|nic| {
            nic.open()?;
            nic.lift_limit();
            ensure!(within(|| nic.hardware.rearms.load(Relaxed) == 1));

            let tap = Tap::new(nic)?;

            for i in 0..FRAMES {
                ensure!(nic.send(i, length(i))? == 0);
            }
            ensure!(nic.hardware.turn(LEN) == FRAMES);

            let polls = nic.hardware.polls.load(Relaxed);

            nic.interrupt();
            ensure!(within(|| nic.hardware.rearms.load(Relaxed) == 2));
            ensure!(tap.next() == FRAMES && tap.wrong() == 0);
            ensure!(nic.hardware.most.load(Relaxed) == 64);
            ensure!(nic.hardware.polls.load(Relaxed) == polls + FRAMES.div_ceil(64));
            Ok(())
        })
    }

    /// Frames in as many pieces as there can be go out as they are, a descriptor for each, and
    /// come back whole. Before one whose checksum the device is to insert comes a descriptor that
    /// says where.
    #[test]
    fn pieces() -> Result {
        // Its linear part, and all fragments.
        const MOST: usize = 1 + bindings::CONFIG_MAX_SKB_FRAGS as usize;

        with_nic(|nic| {
            nic.open()?;

            let tap = Tap::new(nic)?;
            let mut number = 0;

            for pieces in [2, 3, MOST - 1, MOST].into_iter().cycle().take(200) {
                // The first piece has the Ethernet header, and no two have the same bytes.
                let len = length(number).max(20 * pieces);
                let wants = number % 3 == 0;

                if len != length(number) {
                    // It would have to be longer.
                    number += 1;
                    ensure!(nic.send(number - 1, length(number - 1))? == 0);
                    ensure!(nic.turn(1) == 1 && within(|| tap.next() == number));
                    continue;
                }

                let (commands, contexts) = (
                    nic.hardware.commands.load(Relaxed),
                    nic.hardware.contexts.load(Relaxed),
                );

                let checksum = wants.then_some((14, 2));

                // SAFETY: The device is registered.
                ensure!(unsafe { send_scattered(nic.raw(), number, len, pieces, checksum) }? == 0);

                ensure!(nic.turn(LEN) == 1);
                ensure!(within(|| tap.next() == number + 1));

                let rest = len - len / pieces;
                let parts = 1 + rest.div_ceil(rest.div_ceil(pieces - 1));

                // CAST: A few.
                ensure!(
                    nic.hardware.commands.load(Relaxed)
                        == commands + parts as u32 + u32::from(wants)
                );
                ensure!(nic.hardware.contexts.load(Relaxed) == contexts + u32::from(wants));
                ensure!(!wants || nic.hardware.checksum.load(Relaxed) == 14 | 16 << 16);
                number += 1;
            }

            ensure!(tap.wrong() == 0 && nic.hardware.contexts.load(Relaxed) > 10);
            // CAST: Widening.
            ensure!(nic.statistics().tx_packets == u64::from(number));
            Ok(())
        })
    }

    /// Frames in pieces fill the ring sooner: the queue is stopped when the next one might not fit,
    /// and those that are in the ring when the device is closed are dropped.
    #[test]
    fn pieces_stop_and_wake() -> Result {
        const MOST: usize = 1 + bindings::CONFIG_MAX_SKB_FRAGS as usize;

        with_nic(|nic| {
            nic.open()?;
            nic.lift_limit();

            let tap = Tap::new(nic)?;
            let mut sent = 0;
            let len = |number| length(number).max(20 * MOST);

            while !nic.is_stopped() {
                // SAFETY: The device is registered.
                ensure!(unsafe { send_scattered(nic.raw(), sent, len(sent), MOST, None) }? == 0);
                sent += 1;
                ensure!(sent < LEN);
            }

            // CAST: A few.
            ensure!(sent * MOST as u32 > LEN - 3 * MOST as u32);
            ensure!(nic.turn(LEN) == sent);
            ensure!(within(|| tap.next() == sent && !nic.is_stopped()));

            // SAFETY: As above.
            ensure!(unsafe { send_scattered(nic.raw(), 0, len(0), MOST, None) }? == 0);
            nic.close();
            ensure!(nic.statistics().tx_packets == u64::from(sent));
            nic.open()
        })
    }

    /// What the driver is told to receive, and which address to have.
    #[test]
    fn settings() -> Result {
        const GROUP: [u8; 6] = [0x01, 0x00, 0x5e, 1, 2, 3];
        const OTHER: [u8; 6] = [0x02, 0x54, 0, 9, 8, 7];

        with_nic(|nic| {
            let Hardware {
                addresses,
                groups,
                group,
                mac,
                refuses_settings,
                ..
            } = &*nic.hardware;

            nic.open()?;

            // The stack may have groups of its own.
            ensure!(within(|| addresses.load(Relaxed) == 0));

            // SAFETY: The device is registered. Both addresses have six bytes.
            unsafe {
                to_result(bindings::dev_mc_add(nic.raw(), GROUP.as_ptr()))?;
                to_result(bindings::dev_uc_add(nic.raw(), OTHER.as_ptr()))?;
            }
            ensure!(within(
                || addresses.load(Relaxed) == 1 && groups.load(Acquire) >= 1
            ));
            ensure!(group.load(Relaxed) == number_of(GROUP));

            // SAFETY: As above.
            unsafe {
                to_result(bindings::dev_uc_del(nic.raw(), OTHER.as_ptr()))?;
                to_result(bindings::dev_mc_del(nic.raw(), GROUP.as_ptr()))?;
            }
            ensure!(within(|| addresses.load(Relaxed) == 0));

            for (refuses, outcome) in [(1, Err(EIO)), (0, Ok(()))] {
                let mut address: bindings::__kernel_sockaddr_storage = pin_init::zeroed();

                refuses_settings.store(refuses, Relaxed);

                // SAFETY: The device is registered. The address is one of Ethernet. With RTNL, as
                // needed.
                let set = to_result(unsafe {
                    let bytes: *mut bindings::sockaddr = (&raw mut address).cast();

                    (*bytes).sa_family = (*nic.raw()).type_;
                    (&raw mut (*bytes).sa_data).cast::<[u8; 6]>().write(OTHER);

                    bindings::rtnl_lock();
                    let err = bindings::dev_set_mac_address(
                        nic.raw(),
                        &mut address,
                        core::ptr::null_mut(),
                    );
                    bindings::rtnl_unlock();
                    err
                });

                ensure!(set == outcome);

                let expected = if refuses != 0 { ADDRESS } else { OTHER };

                // SAFETY: The device is registered, and its address has six bytes.
                ensure!(unsafe { (*nic.raw()).dev_addr.cast::<[u8; 6]>().read() } == expected);
            }

            ensure!(mac.load(Relaxed) == number_of(OTHER));
            Ok(())
        })
    }

    /// A queue whose ring is full is stopped, and woken when there is room. Nothing is lost.
    #[test]
    fn stop_and_wake() -> Result {
        with_nic(|nic| {
            nic.open()?;

            let tap = Tap::new(nic)?;

            nic.lift_limit();

            // Full, with more that wait in the queue.
            for i in 0..LEN + 100 {
                ensure!(nic.send(i, length(i))? == 0);
            }
            ensure!(nic.is_stopped());

            ensure!(nic.turn(10) == 10);
            ensure!(within(|| tap.next() == 10));
            ensure!(nic.is_stopped());

            ensure!(nic.turn(LEN / 2) == LEN / 2);
            ensure!(within(|| !nic.is_stopped() || tap.next() > 10 + LEN / 2));

            ensure!(within(|| {
                nic.turn(LEN);
                tap.next() == LEN + 100
            }));
            ensure!(tap.wrong() == 0 && nic.statistics().tx_dropped == 0);
            Ok(())
        })
    }

    /// Little room isn't enough: the stack needn't be woken for each frame. Nor is it used by who
    /// doesn't ask whether the queue is stopped.
    #[test]
    fn little_room() -> Result {
        with_nic(|nic| {
            nic.open()?;

            let tap = Tap::new(nic)?;
            let mut sent = 0;

            nic.lift_limit();

            while !nic.is_stopped() {
                ensure!(sent < LEN && nic.send(sent, length(sent))? == 0);
                sent += 1;
            }
            ensure!(!nic.push(sent, length(sent))?);

            ensure!(nic.turn(10) == 10);
            ensure!(within(|| nic.statistics().tx_packets == 10));
            ensure!(nic.is_stopped());

            ensure!(nic.turn(LEN) == sent - 10);
            ensure!(within(|| tap.next() == sent && !nic.is_stopped()));
            ensure!(tap.wrong() == 0 && nic.statistics().tx_dropped == 0);
            nic.exchange(&tap, 3)
        })
    }

    /// What a driver drops is counted, and the device is told of what was posted before.
    #[test]
    fn dropped() -> Result {
        with_nic(|nic| {
            nic.open()?;

            let tap = Tap::new(nic)?;

            nic.exchange(&tap, 3)?;
            nic.hardware.refuses.store(1, Relaxed);

            let kicks = nic.hardware.kicks.load(Relaxed);

            for i in 0..5 {
                let _ = nic.send(i, 100)?;
            }
            ensure!(nic.statistics().tx_dropped == 5);
            ensure!(nic.hardware.kicks.load(Relaxed) == kicks + 5);

            nic.hardware.refuses.store(0, Relaxed);
            nic.exchange(&tap, 3)
        })
    }

    /// User space can see which interrupt a NAPI has, and which NAPI a queue.
    #[test]
    fn interrupt_is_shown() -> Result {
        with_nic(|nic| {
            let napi = nic.napi.as_raw();
            // SAFETY: The device is registered, and has a transmit queue.
            let (irq, of_queue) = unsafe { ((*napi).irq, (*(*nic.raw())._tx).napi) };

            ensure!(irq == IRQ as c_int && of_queue == napi);
            Ok(())
        })
    }

    /// A driver that gives another frame back than it was given does no harm: the stack doesn't
    /// send the one again that was freed.
    #[test]
    fn confused() -> Result {
        with_nic(|nic| {
            nic.open()?;

            let tap = Tap::new(nic)?;

            nic.hardware.confuses.store(1, Relaxed);
            for i in 0..2 {
                ensure!(nic.send(i, 100)? == 0);
            }
            nic.hardware.confuses.store(0, Relaxed);
            ensure!(nic.statistics().tx_dropped == 2);
            nic.exchange(&tap, 3)
        })
    }

    /// Frames that come to a device that isn't running are dropped.
    #[test]
    fn not_running() -> Result {
        with_nic(|nic| {
            ensure!(nic.push(0, 100)?);
            nic.open()?;
            nic.close();
            ensure!(nic.push(0, 100)?);
            ensure!(nic.statistics().tx_dropped == 2);
            ensure!(!nic.napi.schedule());
            ensure!(nic.hardware.stops.load(Relaxed) == 1);

            // A restart of a device that is closed does nothing.
            nic.device.schedule_work(Events::RESET);
            ensure!(within(|| nic.hardware.restarts.load(Acquire) == 1));
            ensure!(!nic.napi.schedule());

            nic.open()?;
            nic.exchange(&Tap::new(nic)?, 10)
        })
    }

    /// A device that doesn't send is restarted. Frames in its ring are dropped, their bytes are
    /// counted back, and it goes on.
    #[test]
    fn restart() -> Result {
        with_nic(|nic| {
            nic.open()?;

            let tap = Tap::new(nic)?;

            nic.exchange(&tap, 5)?;
            for turn in 1..4 {
                // More than the byte limit allows.
                for i in 0..2 * LEN {
                    let _ = nic.send(i, 1514)?;
                }

                // Those that are in the stack's queue aren't the device's.
                let posted = nic.hardware.tx.tail.load(Relaxed);

                ensure!(posted != nic.hardware.tx.index.load(Relaxed));
                nic.device.schedule_work(Events::RESET);
                ensure!(within(|| nic.hardware.restarts.load(Acquire) == turn));
            }

            nic.close();
            nic.open()?;

            // SAFETY: The device is registered, and open: the queue isn't stopped by the limit.
            ensure!(!unsafe {
                bindings::netif_xmit_stopped(bindings::netdev_get_tx_queue(nic.raw(), 0))
            });
            nic.exchange(&tap, 20)
        })
    }

    /// A restart that fails leaves a device that can be closed and opened.
    #[test]
    fn restart_fails() -> Result {
        with_nic(|nic| {
            nic.open()?;

            let tap = Tap::new(nic)?;

            nic.exchange(&tap, 5)?;
            nic.hardware.restart_fails.store(1, Relaxed);
            for turn in 1..3 {
                nic.device.schedule_work(Events::RESET);
                ensure!(within(|| nic.hardware.restarts.load(Acquire) == turn));
                ensure!(!nic.napi.schedule() && nic.is_stopped());
            }

            nic.close();
            ensure!(nic.hardware.stops.load(Relaxed) == 1);
            nic.open()?;
            nic.exchange(&tap, 5)?;

            // Another time it is mended by the next restart.
            nic.device.schedule_work(Events::RESET);
            ensure!(within(|| nic.hardware.restarts.load(Acquire) == 3));
            nic.hardware.restart_fails.store(0, Relaxed);
            nic.device.schedule_work(Events::RESET);
            ensure!(within(|| nic.hardware.restarts.load(Acquire) == 4));
            nic.close();
            nic.open()?;
            nic.exchange(&tap, 5)
        })
    }

    /// Opening fails at each step, and works the next time.
    #[test]
    fn open_fails() -> Result {
        with_nic(|nic| {
            for step in 1..6 {
                nic.hardware.open_fails.store(step, Relaxed);
                ensure!(nic.open() == Err(EIO));
                ensure!(!nic.napi.schedule());
                nic.hardware.open_fails.store(0, Relaxed);
                nic.open()?;
                nic.exchange(&Tap::new(nic)?, 3)?;
                nic.close();
            }

            ensure!(nic.hardware.stops.load(Relaxed) == 5);
            Ok(())
        })
    }

    /// A device that can't be proven to have stopped keeps its frames, and may go with them.
    #[test]
    fn unproven() -> Result {
        with_nic(|nic| {
            nic.open()?;

            let tap = Tap::new(nic)?;

            nic.exchange(&tap, 5)?;
            for i in 0..5 {
                let _ = nic.send(i, 200)?;
            }

            nic.hardware.hangs.store(1, Relaxed);
            nic.close();
            nic.hardware.hangs.store(0, Relaxed);

            // The next start is a proof: the frames are dropped.
            nic.open()?;
            nic.exchange(&tap, 5)
        })
    }

    /// What a device says of lengths is checked: a frame without a header, and one that is longer
    /// than its buffer, are counted, and the device goes on.
    #[test]
    fn lengths() -> Result {
        with_nic(|nic| {
            nic.open()?;

            let tap = Tap::new(nic)?;

            nic.exchange(&tap, 5)?;
            for (i, said) in [1, 13, 2049, u32::MAX].into_iter().enumerate() {
                nic.hardware.says.store(said, Relaxed);
                ensure!(nic.send(0, 100)? == 0);
                ensure!(nic.turn(1) == 1);
                // CAST: Widening.
                ensure!(within(|| nic.statistics().tx_packets == 6 + i as u64));
            }
            nic.hardware.says.store(0, Relaxed);

            let stats = nic.statistics();

            // The others were discarded by the ring.
            ensure!(stats.rx_length_errors == 2 && stats.rx_errors == 2);
            ensure!(stats.rx_packets == 5);
            nic.exchange(&tap, 300)
        })
    }

    /// A device goes while frames are sent, and with some in its ring.
    #[test]
    fn goes_under_traffic() -> Result {
        for _ in 0..5 {
            let mut sender = None;

            with_nic(|nic| {
                nic.open()?;

                // SAFETY: The device is registered.
                let index = unsafe { (*nic.raw()).ifindex };
                let dev = Held::new(index)?;

                sender = Some(fixture::spawn(move || {
                    let mut count = 0;

                    while dev.is_registered() && count < 100_000 {
                        // SAFETY: There is a reference to the device.
                        if unsafe { send(dev.0, count, 100) }.is_ok() {
                            count += 1;
                        }
                    }
                    count
                })?);

                ensure!(within(|| {
                    nic.turn(LEN);
                    nic.statistics().rx_packets > 50
                }));
                Ok(())
            })?;

            let sender = sender.ok_or(EINVAL)?;

            ensure!(sender.join(|count| *count)? > 50);
        }
        Ok(())
    }

    /// Opened and closed under traffic.
    #[test]
    fn ups_and_downs() -> Result {
        with_nic(|nic| {
            let tap = Tap::new(nic)?;

            for _ in 0..20 {
                nic.open()?;
                nic.exchange(&tap, 3)?;
                // These stay in the ring.
                for i in 0..5 {
                    let _ = nic.send(i, 1000)?;
                }
                nic.close();
            }

            ensure!(nic.hardware.stops.load(Relaxed) == 20);
            Ok(())
        })
    }
}

/// A reference to a device.
struct Held(*mut bindings::net_device);

// SAFETY: No thread is special to a reference.
unsafe impl Send for Held {}

impl Held {
    fn new(index: c_int) -> Result<Self> {
        // SAFETY: The namespace is static.
        let dev = unsafe { bindings::dev_get_by_index(&raw mut bindings::init_net, index) };

        if dev.is_null() {
            return Err(ENODEV);
        }

        Ok(Self(dev))
    }

    fn is_registered(&self) -> bool {
        // SAFETY: We have a reference.
        unsafe { bindings::netif_running(self.0) }
    }
}

impl Drop for Held {
    fn drop(&mut self) {
        // SAFETY: The reference is ours.
        unsafe { bindings::dev_put(self.0) };
    }
}
