// SPDX-License-Identifier: GPL-2.0

//! Network devices: registering them, and what the stack calls.
//!
//! C header: [`include/linux/netdevice.h`](srctree/include/linux/netdevice.h)

use super::{
    ethtool::{
        Link,
        LinkChoice,
        LinkModes,
        Messages,
        RingLengths, //
    },
    features::Features,
    filter::RxMode,
    napi::{
        Napi,
        Poll,
        Progress, //
    },
    skbuff::{
        DropReason,
        SkBuff, //
    },
    transmit::{
        self,
        Cleaner,
        Sender,
        TxQueue,
        Verdict,
        Xmit, //
    }, //
};
use crate::{
    bindings,
    device::{
        self,
        Core as CoreContext, //
    },
    devres::{
        self,
        Lendable, //
    },
    dma::{
        ring::RingRegisters,
        Mapper,
        ToDevice, //
    },
    error::{
        from_result,
        to_result,
        VTABLE_DEFAULT_ERROR, //
    },
    prelude::*,
    sync::atomic::{
        Atomic,
        Relaxed, //
    },
    types::Opaque, //
};
use core::{
    cell::UnsafeCell,
    marker::PhantomData,
    mem::MaybeUninit,
    num::NonZeroU32,
    ptr::NonNull, //
};

/// What a driver of a network device does.
///
/// The value is made when the device is registered, and dropped when it was unregistered. No
/// callback comes before or after that. It may borrow whatever lives as long as the device is
/// bound.
///
/// See the [module documentation](super) for who calls what in which context.
///
/// # Examples
///
/// A device that sends through a ring, and receives nothing:
///
/// ```
/// use kernel::{
///     dma::{
///         ring::{Descriptor, RingRegisters},
///         Session, ToDevice,
///     },
///     net::netdev::{
///         Cleaner, Control, Driver, Events, Poll, Progress, Sender, SkBuff, Verdict, Xmit,
///     },
///     new_mutex,
///     prelude::*,
///     sync::Mutex,
/// };
///
/// #[pin_data]
/// struct Nic<'a, Q: RingRegisters<Direction = ToDevice>> {
///     session: Session<'a, ()>,
///     /// Here while the device is closed.
///     #[pin]
///     halves: Mutex<Option<(Sender<'a, Q>, Cleaner<'a, Q>)>>,
/// }
///
/// impl<Q: RingRegisters<Direction = ToDevice>> Nic<'_, Q> {
///     fn mask_interrupts(&self) {}
///     fn unmask_interrupts(&self) {}
/// }
///
/// #[vtable]
/// impl<'a, Q> Driver for Nic<'a, Q>
/// where
///     Q: RingRegisters<Direction = ToDevice> + Sync + Unpin,
///     Q::Descriptor: Descriptor<Options = ()>,
/// {
///     type Tx = Sender<'a, Q>;
///     type Poll = Cleaner<'a, Q>;
///
///     fn open(&self, device: &mut Control<'_, Self>) -> Result<(Self::Tx, Self::Poll)> {
///         let (mut tx, mut poll) = self.halves.lock().take().ok_or(EBUSY)?;
///
///         match self.session.start().and_then(|()| tx.start(&mut poll)) {
///             Ok(()) => {
///                 device.set_carrier(true);
///                 Ok((tx, poll))
///             }
///             Err(e) => {
///                 self.session.stop();
///                 *self.halves.lock() = Some((tx, poll));
///                 Err(e)
///             }
///         }
///     }
///
///     fn stop(&self, device: &mut Control<'_, Self>, mut tx: Self::Tx, mut poll: Self::Poll) {
///         self.mask_interrupts();
///         device.set_carrier(false);
///         self.session.stop();
///         let _ = tx.drain(&mut poll);
///         *self.halves.lock() = Some((tx, poll));
///     }
///
///     fn start_xmit(&self, tx: &mut Self::Tx, skb: SkBuff, cx: &mut Xmit<'_>) -> Verdict {
///         tx.xmit(cx, skb, None, ())
///     }
///
///     fn kick(&self, tx: &mut Self::Tx) {
///         tx.kick();
///     }
///
///     fn poll(&self, poll: &mut Self::Poll, cx: &mut Poll<'_>) -> Progress {
///         poll.clean(cx);
///         Progress::Done
///     }
///
///     fn rearm(&self) {
///         self.unmask_interrupts();
///     }
///
///     fn work(&self, device: &mut Control<'_, Self>, events: Events) {
///         if events.contains(Events::RESET) {
///             let _ = device.restart(|tx, poll| {
///                 self.session.restart()?;
///                 tx.start(poll)
///             });
///         }
///     }
/// }
/// ```
#[vtable]
pub trait Driver: Send + Sync + Sized {
    /// The state of the transmit queue: a [`Sender`], and what else is needed to send.
    type Tx: Send;

    /// The state of the poll function: a [`Cleaner`], and a ring that receives.
    type Poll: Send;

    /// Starts the device (C: `ndo_open`). The states are lent to the other callbacks from then on.
    ///
    /// Interrupts need not be unmasked: the device is polled at once, and then
    /// [`rearm`](Self::rearm) is called. Context: may sleep.
    ///
    /// # Errors
    ///
    /// Any, by which the device stays closed.
    fn open(&self, device: &mut Control<'_, Self>) -> Result<(Self::Tx, Self::Poll)>;

    /// Masks interrupts and stops the device (C: `ndo_stop`). Nobody sends or polls any more.
    ///
    /// Context: may sleep.
    fn stop(&self, device: &mut Control<'_, Self>, tx: Self::Tx, poll: Self::Poll);

    /// Sends a frame, or drops it (C: `ndo_start_xmit`). The device needn't be told before
    /// [`kick`](Self::kick).
    ///
    /// Context: softirqs are off.
    fn start_xmit(&self, tx: &mut Self::Tx, skb: SkBuff, cx: &mut Xmit<'_>) -> Verdict;

    /// Tells the device of all frames that were posted.
    ///
    /// It is called after a frame that no other follows, and whenever the queue is stopped. So it
    /// is also called after a frame that was dropped: those before it must go out. Context:
    /// softirqs are off.
    fn kick(&self, tx: &mut Self::Tx);

    /// Looks for frames that were sent or received (C: `napi_struct::poll`).
    ///
    /// It should receive no more than [`Poll::budget`] frames. Context: softirqs are off.
    fn poll(&self, poll: &mut Self::Poll, cx: &mut Poll<'_>) -> Progress;

    /// Unmasks the device's interrupts, after [`poll`](Self::poll) had nothing more to do.
    ///
    /// It may be called while `poll` runs on another CPU already. It isn't called any more when
    /// [`stop`](Self::stop) is. Context: softirqs are off.
    fn rearm(&self);

    /// Does what may sleep, and was scheduled by [`Device::schedule_work`] or by the stack, which
    /// schedules [`Events::RESET`] when a frame isn't sent in time (C: `ndo_tx_timeout`).
    ///
    /// Context: may sleep.
    fn work(&self, device: &mut Control<'_, Self>, events: Events);

    /// Says which frames the device is to receive (C: `ndo_set_rx_mode_async`). Called when it was
    /// opened, and at each change. A driver that lacks this has its device receive all frames to
    /// groups.
    ///
    /// Context: may sleep.
    ///
    /// # Errors
    ///
    /// Any: the stack tries again later.
    fn set_rx_mode(&self, device: &mut Control<'_, Self>, mode: &RxMode<'_>) -> Result {
        let _ = (device, mode);
        build_error!(VTABLE_DEFAULT_ERROR)
    }

    /// Changes the device's own address, whether it is open or not (C: `ndo_set_mac_address`).
    /// Without it, the address stays.
    ///
    /// Context: may sleep.
    ///
    /// # Errors
    ///
    /// Any, by which the address stays.
    fn set_mac_address(&self, device: &mut Control<'_, Self>, address: [u8; 6]) -> Result {
        let _ = (device, address);
        build_error!(VTABLE_DEFAULT_ERROR)
    }

    /// Returns how many frames the device had no room for since it was bound (C:
    /// `rtnl_link_stats64::rx_missed_errors`). All other frames are counted for the driver.
    ///
    /// Context: must not sleep.
    fn missed(&self) -> u64 {
        build_error!(VTABLE_DEFAULT_ERROR)
    }

    /// Returns how the link is, if there is one (C: `ethtool_ops::get_link_ksettings`).
    ///
    /// Context: may sleep.
    fn link(&self) -> Option<Link> {
        build_error!(VTABLE_DEFAULT_ERROR)
    }

    /// Returns which kinds of links the device can have, and which link administrators want (C:
    /// `ethtool_ops::get_link_ksettings`). It goes with [`link`](Self::link).
    ///
    /// Context: may sleep.
    fn link_choice(&self) -> (LinkModes, LinkChoice) {
        build_error!(VTABLE_DEFAULT_ERROR)
    }

    /// Has the device have another link, of a kind that [`link_choice`](Self::link_choice) has
    /// said, whether it is open or not (C: `ethtool_ops::set_link_ksettings`).
    ///
    /// Context: may sleep.
    ///
    /// # Errors
    ///
    /// Any, by which it stays as it is.
    fn set_link(&self, device: &mut Control<'_, Self>, choice: LinkChoice) -> Result {
        let _ = (device, choice);
        build_error!(VTABLE_DEFAULT_ERROR)
    }

    /// Returns how long the rings are, and how long they can be (C: `ethtool_ops::get_ringparam`).
    ///
    /// Context: may sleep.
    fn rings(&self) -> (RingLengths, RingLengths) {
        build_error!(VTABLE_DEFAULT_ERROR)
    }

    /// Changes the lengths of the rings, which are not greater than what [`rings`](Self::rings) has
    /// said (C: `ethtool_ops::set_ringparam`).
    ///
    /// A driver allocates what it needs before it [restarts](Control::restart) the device, so that
    /// no frame is lost if there is no memory. Context: may sleep.
    ///
    /// # Errors
    ///
    /// Any, by which they stay as they are.
    fn set_rings(&self, device: &mut Control<'_, Self>, lengths: RingLengths) -> Result {
        let _ = (device, lengths);
        build_error!(VTABLE_DEFAULT_ERROR)
    }

    /// Returns how long the device waits for more frames, in microseconds, before it interrupts (C:
    /// `ethtool_ops::get_coalesce`).
    ///
    /// Context: may sleep.
    fn coalescing(&self) -> u32 {
        build_error!(VTABLE_DEFAULT_ERROR)
    }

    /// Says how long the device is to wait for more frames, in microseconds (C:
    /// `ethtool_ops::set_coalesce`).
    ///
    /// Context: may sleep.
    ///
    /// # Errors
    ///
    /// Any, by which it stays as it is.
    fn set_coalescing(&self, device: &mut Control<'_, Self>, microseconds: u32) -> Result {
        let _ = (device, microseconds);
        build_error!(VTABLE_DEFAULT_ERROR)
    }

    /// What the device counts itself, by name: up to 31 characters.
    const STATISTICS: &'static [&'static CStr] = &[];

    /// Writes what the device has counted, in the order of [`STATISTICS`](Self::STATISTICS) (C:
    /// `ethtool_ops::get_ethtool_stats`).
    ///
    /// Context: may sleep.
    fn statistics(&self, values: &mut [u64]) {
        let _ = values;
        build_error!(VTABLE_DEFAULT_ERROR)
    }

    /// What the device can test of itself, by name: up to 31 characters.
    const SELF_TESTS: &'static [&'static CStr] = &[];

    /// Tests the device, whether it is open or not, in the order of
    /// [`SELF_TESTS`](Self::SELF_TESTS) (C: `ethtool_ops::self_test`). A result that isn't 0 is a
    /// failure. Tests that disturb traffic are left out unless it `may_disturb`; they
    /// [restart](Control::restart) the device.
    ///
    /// Context: may sleep.
    fn self_test(&self, device: &mut Control<'_, Self>, may_disturb: bool, results: &mut [u64]) {
        let _ = (device, may_disturb, results);
        build_error!(VTABLE_DEFAULT_ERROR)
    }
}

/// What [`Driver::work`] is to look after. Several of them may have been scheduled at once.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Events(usize);

impl Events {
    /// The device doesn't send, or knows nothing of its rings any more: it is to be restarted.
    pub const RESET: Self = Self(1 << 0);
    /// The state of the link may have changed.
    pub const LINK: Self = Self(1 << 1);
    /// The device was asleep, or was reset by its bus, and runs again: it is to be told of its
    /// rings. The driver schedules it in its `resume()`.
    pub const RESUMED: Self = Self(1 << 2);

    /// Returns whether all of these are among them.
    pub fn contains(self, other: Self) -> bool {
        self.0 & other.0 == other.0
    }
}

/// What the device has counted, in the stack's terms (C: `struct rtnl_link_stats64`).
///
/// Each has one writer at a time: those of sending, with the queue's lock, `tx_dropped`; the poll
/// function all others. Readers are anywhere.
pub(super) struct Counters {
    pub(super) rx_packets: Atomic<u64>,
    pub(super) rx_bytes: Atomic<u64>,
    pub(super) rx_dropped: Atomic<u64>,
    pub(super) rx_length_errors: Atomic<u64>,
    pub(super) tx_packets: Atomic<u64>,
    pub(super) tx_bytes: Atomic<u64>,
    pub(super) tx_dropped: Atomic<u64>,
}

impl Counters {
    const fn new() -> Self {
        Self {
            rx_packets: Atomic::new(0),
            rx_bytes: Atomic::new(0),
            rx_dropped: Atomic::new(0),
            rx_length_errors: Atomic::new(0),
            tx_packets: Atomic::new(0),
            tx_bytes: Atomic::new(0),
            tx_dropped: Atomic::new(0),
        }
    }
}

/// Adds to a counter of which the caller is the only writer.
#[inline]
pub(super) fn add(counter: &Atomic<u64>, n: u64) {
    counter.store(counter.load(Relaxed).wrapping_add(n), Relaxed);
}

/// The handle that a driver has of its network device (C: `struct net_device`), for as long as the
/// device is bound.
#[repr(transparent)]
pub struct Device(Opaque<bindings::net_device>);

// SAFETY: It is reached by C functions that are made for several threads.
unsafe impl Sync for Device {}
// SAFETY: As above.
unsafe impl Send for Device {}

/// What is in the private part of a `struct net_device`.
#[repr(C)]
struct Private {
    /// A `Core<T>`, while the device is registered.
    core: *const c_void,
    napi: Napi,
}

impl Device {
    fn as_raw(&self) -> *mut bindings::net_device {
        self.0.get()
    }

    fn private(&self) -> *mut Private {
        // SAFETY: The device is valid, and was allocated with a private part of that type.
        unsafe { bindings::netdev_priv(self.as_raw()) }.cast()
    }

    /// Schedules [`Driver::work`] (C: `netdev_work_sched()`). After unregistration it does nothing.
    ///
    /// Context: any but a handler of a hard interrupt, which schedules [`Napi`] instead, whose
    /// [`Poll`] has this method, too.
    pub fn schedule_work(&self, events: Events) {
        // SAFETY: The device is valid. Only who registered it, and its callbacks, have a reference,
        // so it isn't a device that is yet to be registered.
        unsafe { bindings::netdev_work_sched(self.as_raw(), events.0) };
    }
}

/// The memory of a network device, which belongs to the bound device.
struct Memory(NonNull<bindings::net_device>);

// SAFETY: It may be freed in any thread.
unsafe impl Send for Memory {}
// SAFETY: There is nothing to be done with a reference.
unsafe impl Sync for Memory {}
// SAFETY: Dropping it frees it, for which the device needs not be bound. Nothing is borrowed.
unsafe impl Lendable for Memory {}

impl Drop for Memory {
    fn drop(&mut self) {
        // SAFETY: It was allocated, and isn't registered any more: the registration is an early
        // resource of the device, so it went before. The NAPI is deleted with it.
        unsafe { bindings::free_netdev(self.0.as_ptr()) };
    }
}

/// A network device that is being set up in `probe()`.
///
/// # Examples
///
/// ```
/// use kernel::{
///     device::{Core, Device},
///     net::netdev::{self, Napi, Unregistered},
///     prelude::*,
/// };
///
/// fn bring_up<'a, T: netdev::Driver + 'a>(
///     dev: &Device<Core<'a>>,
///     request_irq: impl FnOnce(&'a Napi) -> Result<u32>,
///     driver: impl PinInit<T, Error>,
/// ) -> Result<&'a netdev::Device> {
///     let mut netdev = Unregistered::<T>::new(dev)?;
///
///     netdev.set_mac_address([0x52, 0x54, 0, 0x12, 0x34, 0x56]);
///
///     let irq = request_irq(netdev.napi())?;
///
///     netdev.set_irq(irq)?;
///     netdev.register(dev, driver)
/// }
/// ```
pub struct Unregistered<'a, T: Driver> {
    device: &'a Device,
    features: Features,
    has_ring: bool,
    _driver: PhantomData<T>,
}

impl<'a, T: Driver + 'a> Unregistered<'a, T> {
    /// Allocates an Ethernet device (C: `alloc_etherdev()`, `netif_napi_add()`), which belongs to
    /// `dev` until that is unbound.
    ///
    /// Context: may sleep.
    ///
    /// # Errors
    ///
    /// [`ENOMEM`].
    pub fn new(dev: &device::Device<CoreContext<'a>>) -> Result<Self> {
        const {
            // What `netdev_priv()` is aligned to.
            assert!(align_of::<Private>() <= bindings::NETDEV_ALIGN as usize);
        }

        // CAST: Small.
        //
        // SAFETY: No requirements.
        let raw = unsafe { bindings::alloc_etherdev_mqs(size_of::<Private>() as c_int, 1, 1) };
        let memory = Memory(NonNull::new(raw).ok_or(ENOMEM)?);

        // Lent, so that it goes when nobody can have a reference any more.
        devres::register_lent(dev, Ok::<_, Error>(memory), GFP_KERNEL)?;

        // SAFETY: `Device` is a transparent wrapper. It is valid until the device is unbound.
        let device: &'a Device = unsafe { &*raw.cast() };

        // SAFETY: The device was just allocated, and nobody else knows it. Its operations are
        // static. Its private part is zeroed, where a NAPI may be added, which stays there for as
        // long as its queues, of which it has one each way.
        unsafe {
            bindings::netdev_prepare(raw, dev.as_raw(), Core::<T>::OPS, Core::<T>::ETHTOOL);
            let napi = (*device.private()).napi.as_raw();

            bindings::netif_napi_add(raw, napi, Some(Core::<T>::poll));

            for queues in [
                bindings::netdev_queue_type_NETDEV_QUEUE_TYPE_RX,
                bindings::netdev_queue_type_NETDEV_QUEUE_TYPE_TX,
            ] {
                bindings::netif_queue_set_napi(raw, 0, queues, napi);
            }
        }

        // SAFETY: As above.
        unsafe {
            bindings::netdev_set_addressing(raw, T::HAS_SET_MAC_ADDRESS, T::HAS_SET_RX_MODE);
        }

        Ok(Self {
            device,
            features: Features::NONE,
            has_ring: false,
            _driver: PhantomData,
        })
    }

    /// Says by which interrupt the device has itself polled, for user space to see (C:
    /// `netif_napi_set_irq()`).
    ///
    /// # Errors
    ///
    /// [`EINVAL`] if there can't be an interrupt of that number.
    pub fn set_irq(&mut self, irq: u32) -> Result {
        let irq = c_int::try_from(irq)?;

        // SAFETY: NAPI was added. The device isn't registered, so no lock is needed. The number is
        // only kept: the device has no map of CPUs, and doesn't have the stack set affinities.
        unsafe { bindings::netif_napi_set_irq_locked(self.napi().as_raw(), irq) };
        Ok(())
    }

    /// Returns what the interrupt handler needs.
    pub fn napi(&self) -> &'a Napi {
        // SAFETY: It was added, and is valid until the device is unbound.
        unsafe { &(*self.device.private()).napi }
    }

    /// Says what the device does itself, of which the user may switch off what is `changeable`
    /// (C: `hw_features`, `features`). Nothing is left to it otherwise.
    ///
    /// # Errors
    ///
    /// [`EBUSY`] if there is a [ring](Self::transmit_ring): it is made for what is said before.
    pub fn set_features(&mut self, changeable: Features, fixed: Features) -> Result {
        if self.has_ring {
            return Err(EBUSY);
        }

        self.features = self.features.with(changeable).with(fixed);
        // SAFETY: The device isn't registered, so nobody else has it.
        unsafe {
            bindings::netdev_set_features(self.device.as_raw(), changeable.0, fixed.0);
        }
        Ok(())
    }

    /// Makes the ring of the transmit queue, of `len` descriptors.
    ///
    /// It must have a tail register ([`Publish::Tail`](crate::dma::ring::Publish::Tail)). With own
    /// bits it doesn't compile, since the device could be done with a frame before its bytes are
    /// counted. Context: may sleep.
    ///
    /// # Errors
    ///
    /// [`EBUSY`] if there is one already, [`EINVAL`] if it is too short for two frames of as many
    /// pieces as the [features](Self::set_features) allow (`CONFIG_MAX_SKB_FRAGS` and one with
    /// [`Features::SG`], or else one); as [`Ring::new`](crate::dma::ring::Ring::new) otherwise.
    pub fn transmit_ring<Q: RingRegisters<Direction = ToDevice>>(
        &mut self,
        dma: Mapper<'a>,
        hardware: Q,
        len: u32,
    ) -> Result<(Sender<'a, Q>, Cleaner<'a, Q>)> {
        if self.has_ring {
            return Err(EBUSY);
        }

        let raw = self.device.as_raw();

        // SAFETY: The device has one queue, which is there as long as the device. `TxQueue` is a
        // transparent wrapper.
        let queue: &'a TxQueue = unsafe { &*bindings::netdev_get_tx_queue(raw, 0).cast() };

        let halves = transmit::transmit_ring(dma, queue, hardware, len, self.features)?;

        self.has_ring = true;
        Ok(halves)
    }

    /// Sets the address (C: `eth_hw_addr_set()`).
    pub fn set_mac_address(&mut self, address: [u8; 6]) {
        // SAFETY: The device isn't registered, so nobody else has it. The address has 6 bytes.
        unsafe { bindings::eth_hw_addr_set(self.device.as_raw(), address.as_ptr()) };
    }

    /// Says which MTUs the device can have, without the Ethernet header.
    pub fn set_mtu_range(&mut self, range: core::ops::RangeInclusive<u32>) {
        // SAFETY: The device isn't registered, so nobody else has it.
        unsafe {
            bindings::netdev_set_mtu_range(self.device.as_raw(), *range.start(), *range.end())
        };
    }

    /// Registers the device (C: `register_netdev()`), until `dev` is unbound, which must be that of
    /// [`new`](Self::new). Callbacks come from now on.
    ///
    /// Context: may sleep.
    ///
    /// # Errors
    ///
    /// [`EINVAL`] for another device, [`ENOMEM`], what the initialiser says, and what
    /// `register_netdev()` says.
    pub fn register(
        self,
        dev: &device::Device<CoreContext<'a>>,
        driver: impl PinInit<T, Error>,
    ) -> Result<&'a Device> {
        let device = self.device;
        let raw = device.as_raw();

        // SAFETY: The device is valid.
        if unsafe { (*raw).dev.parent } != dev.as_raw() {
            return Err(EINVAL);
        }

        let core = KBox::pin_init(
            try_pin_init!(Core::<T> {
                driver <- driver,
                tx: UnsafeCell::new(None),
                poll: UnsafeCell::new(None),
                control: UnsafeCell::new(State::Closed),
                counters: Counters::new(),
                messages: Atomic::new(Messages::DEFAULT),
                device: NonNull::from(device),
            }? Error),
            GFP_KERNEL,
        )?;

        // SAFETY: The device isn't registered, so nobody else has it.
        unsafe {
            (*device.private()).core = (&raw const *core).cast();
            bindings::netif_carrier_off(raw);
        }

        // SAFETY: The device is valid, and was set up. What its operations need is in its private
        // part.
        to_result(unsafe { bindings::register_netdev(raw) })?;

        let registration = Registration {
            device: NonNull::from(device),
            _core: core,
        };

        devres::register_early(dev, Ok::<_, Error>(registration), GFP_KERNEL)?;
        Ok(device)
    }
}

/// A device that is registered, and the driver's value, which goes after that.
struct Registration<T: Driver> {
    device: NonNull<Device>,
    _core: Pin<KBox<Core<T>>>,
}

// SAFETY: A device may be unregistered in any thread; the rest is `Send`, as `Core` is.
unsafe impl<T: Driver> Send for Registration<T> {}

impl<T: Driver> Drop for Registration<T> {
    fn drop(&mut self) {
        // SAFETY: The device is registered, and valid: its memory goes later. This closes it, and
        // waits until nobody uses it any more.
        unsafe { bindings::unregister_netdev(self.device.as_ref().as_raw()) };
    }
}

/// Whether the states are lent, and if not, where they are.
enum State<Tx, Poll> {
    /// The device is closed: there are none.
    Closed,
    /// They are lent: by the queue's lock, and by NAPI.
    Running,
    /// They are here: the device isn't closed, but nobody sends or polls.
    Halted(Tx, Poll),
}

/// All there is of a registered device.
///
/// # Invariants
///
/// - `tx` is accessed with the lock of the transmit queue only, and is `None` unless `control` is
///   `Running`.
/// - `poll` is accessed by the poll function, or with the instance lock while NAPI is disabled. It
///   is `None` unless `control` is `Running`.
/// - `control` is accessed with the instance lock only. NAPI is enabled if, and only if, it is
///   `Running`.
#[pin_data]
pub(super) struct Core<T: Driver> {
    #[pin]
    driver: T,
    tx: UnsafeCell<Option<T::Tx>>,
    poll: UnsafeCell<Option<T::Poll>>,
    control: UnsafeCell<State<T::Tx, T::Poll>>,
    counters: Counters,
    /// Which [`Messages`] are logged.
    pub(super) messages: Atomic<u32>,
    device: NonNull<Device>,
}

// SAFETY: By the type invariants each state is used by one at a time, and states are `Send`. The
// driver is `Sync`, and so are the counters and the device.
unsafe impl<T: Driver> Sync for Core<T> {}
// SAFETY: All of it is `Send`.
unsafe impl<T: Driver> Send for Core<T> {}

impl<T: Driver> Core<T> {
    const OPS: &'static bindings::net_device_ops = &bindings::net_device_ops {
        ndo_open: Some(Self::open),
        ndo_stop: Some(Self::stop),
        ndo_start_xmit: Some(Self::start_xmit),
        ndo_tx_timeout: Some(Self::tx_timeout),
        ndo_get_stats64: Some(Self::get_stats64),
        ndo_work: Some(Self::work),
        ndo_validate_addr: Some(bindings::eth_validate_addr),
        ndo_set_rx_mode_async: if T::HAS_SET_RX_MODE {
            Some(Self::set_rx_mode)
        } else {
            None
        },
        ndo_set_mac_address: if T::HAS_SET_MAC_ADDRESS {
            Some(Self::set_mac_address)
        } else {
            None
        },
        // SAFETY: All of them may be null.
        ..unsafe { MaybeUninit::zeroed().assume_init() }
    };

    /// # Safety
    ///
    /// `dev` must be registered by [`Unregistered::register`] for this `T`, for `'c`.
    #[inline(always)]
    pub(super) unsafe fn of<'c>(dev: *mut bindings::net_device) -> &'c Self {
        // SAFETY: By the safety requirements the device is one of ours, and its private part leads
        // to a `Core<T>`, which is there while the device is registered.
        unsafe {
            let private: *mut Private = bindings::netdev_priv(dev).cast();

            &*(*private).core.cast()
        }
    }

    pub(super) fn driver(&self) -> &T {
        &self.driver
    }

    #[inline(always)]
    fn device(&self) -> &Device {
        // SAFETY: The memory of the device goes after the registration, which has `self`.
        unsafe { self.device.as_ref() }
    }

    #[inline(always)]
    fn napi(&self) -> &Napi {
        // SAFETY: As above; it was added.
        unsafe { &(*self.device().private()).napi }
    }

    fn queue(&self) -> *mut bindings::netdev_queue {
        // SAFETY: The device is valid, and has one queue.
        unsafe { bindings::netdev_get_tx_queue(self.device().as_raw(), 0) }
    }

    /// # Safety
    ///
    /// Called by the stack for a device that is registered for this `T`, with the instance lock.
    unsafe extern "C" fn open(dev: *mut bindings::net_device) -> c_int {
        // SAFETY: The stack calls us for a registered device, and holds the instance lock until we
        // return. Callbacks with that lock don't nest, so there is no other `Control`.
        let mut control = unsafe { Control::<T>::new(dev) };

        match control.core.driver.open(&mut control) {
            Ok((tx, poll)) => {
                control.run(tx, poll);
                0
            }
            Err(e) => {
                control.set_carrier(false);
                e.to_errno()
            }
        }
    }

    /// # Safety
    ///
    /// As [`open`](Self::open).
    unsafe extern "C" fn stop(dev: *mut bindings::net_device) -> c_int {
        // SAFETY: The stack calls us for a registered device, and holds the instance lock until we
        // return. Callbacks with that lock don't nest, so there is no other `Control`.
        let mut control = unsafe { Control::<T>::new(dev) };

        if let Some((tx, poll)) = control.halt() {
            control.core.driver.stop(&mut control, tx, poll);
        }

        0
    }

    /// # Safety
    ///
    /// As [`open`](Self::open).
    unsafe extern "C" fn work(dev: *mut bindings::net_device, events: usize) {
        // SAFETY: The stack calls us for a registered device, and holds the instance lock until we
        // return. Callbacks with that lock don't nest, so there is no other `Control`.
        let mut control = unsafe { Control::<T>::new(dev) };

        control.core.driver.work(&mut control, Events(events));
    }

    /// # Safety
    ///
    /// As [`open`](Self::open), with both lists for as long as the call.
    unsafe extern "C" fn set_rx_mode(
        dev: *mut bindings::net_device,
        unicast: *mut bindings::netdev_hw_addr_list,
        multicast: *mut bindings::netdev_hw_addr_list,
    ) -> c_int {
        // SAFETY: The stack calls us for a registered device, and holds the instance lock until we
        // return. Callbacks with that lock don't nest, so there is no other `Control`.
        let mut control = unsafe { Control::<T>::new(dev) };

        // SAFETY: The stack gives us copies of its lists. The flags are a number, which who changes
        // them changes with the instance lock.
        let mode = unsafe { RxMode::new((*dev).flags, unicast, multicast) };

        from_result(|| {
            control.core.driver.set_rx_mode(&mut control, &mode)?;
            Ok(0)
        })
    }

    /// # Safety
    ///
    /// As [`open`](Self::open), with a `struct sockaddr` of that type of device.
    unsafe extern "C" fn set_mac_address(
        dev: *mut bindings::net_device,
        address: *mut c_void,
    ) -> c_int {
        // SAFETY: The stack calls us for a registered device, and holds the instance lock until we
        // return. Callbacks with that lock don't nest, so there is no other `Control`.
        let mut control = unsafe { Control::<T>::new(dev) };

        from_result(|| {
            // SAFETY: The device is valid, and the address is one of Ethernet.
            to_result(unsafe { bindings::eth_prepare_mac_addr_change(dev, address) })?;

            // SAFETY: As above: it has six bytes.
            let bytes = unsafe {
                (&raw const (*address.cast::<bindings::sockaddr>()).sa_data)
                    .cast::<[u8; 6]>()
                    .read()
            };

            control.core.driver.set_mac_address(&mut control, bytes)?;
            // SAFETY: As above.
            unsafe { bindings::eth_commit_mac_addr_change(dev, address) };
            Ok(0)
        })
    }

    /// # Safety
    ///
    /// Called by the stack for a device that is registered for this `T`, with the lock of its only
    /// transmit queue, and softirqs off. A reference to `skb` is given to us. Who has another one
    /// doesn't change the skb.
    unsafe extern "C" fn start_xmit(
        skb: *mut bindings::sk_buff,
        dev: *mut bindings::net_device,
    ) -> bindings::netdev_tx_t {
        let given = skb;
        // SAFETY: The stack sends on devices only that are registered.
        let this = unsafe { Self::of(dev) };
        // SAFETY: By the safety requirements.
        let skb = unsafe { SkBuff::from_raw(skb) };
        // SAFETY: The stack holds the lock of the only transmit queue, and sends a frame.
        let mut cx = unsafe { Xmit::new(&this.counters) };
        let queue = this.queue();

        // SAFETY: The queue is valid.
        unsafe { bindings::netif_tx_assert_locked(queue) };

        // SAFETY: By the safety requirements the lock of the queue is held. Those who take it can't
        // get here, or to `run()` or `halt()`, once more.
        let Some(tx) = (unsafe { &mut *this.tx.get() }) else {
            let _ = cx.drop_frame(skb, DropReason::DEV_READY);
            return bindings::netdev_tx::NETDEV_TX_OK;
        };

        let verdict = this.driver.start_xmit(tx, skb, &mut cx);

        // SAFETY: The queue is valid.
        if !cx.more() || unsafe { bindings::netif_xmit_stopped(queue) } {
            this.driver.kick(tx);
        }

        match verdict {
            Verdict::Handled(_) => bindings::netdev_tx::NETDEV_TX_OK,
            Verdict::Busy(skb) if skb.as_ptr() == given => {
                // The stack has the reference again.
                skb.into_raw();
                bindings::netdev_tx::NETDEV_TX_BUSY
            }
            Verdict::Busy(other) => {
                // The driver has had it cloned since, or it comes from elsewhere. The one that the
                // stack would send again was freed, or is being sent, so it must not hear of it.
                let _ = cx.drop_frame(other, DropReason::DEV_READY);
                bindings::netdev_tx::NETDEV_TX_OK
            }
        }
    }

    /// # Safety
    ///
    /// Called by NAPI, which was added to a device that is registered for this `T`, with softirqs
    /// off.
    unsafe extern "C" fn poll(napi: *mut bindings::napi_struct, budget: c_int) -> c_int {
        // Without a budget it isn't NAPI that calls, and may not be the only one.
        let Some(budget) = u32::try_from(budget).ok().and_then(NonZeroU32::new) else {
            return 0;
        };

        // SAFETY: By the safety requirements; NAPI knows its device.
        let this = unsafe { Self::of((*napi).dev) };

        // SAFETY: By the safety requirements, NAPI calls it, and does so on one CPU at a time.
        let Some(state) = (unsafe { &mut *this.poll.get() }) else {
            return 0;
        };

        // SAFETY: We are the poll function.
        let mut cx = unsafe { Poll::new(this.napi(), this.device(), &this.counters, budget) };
        let progress = this.driver.poll(state, &mut cx);
        let received = cx.received();

        if progress == Progress::More || received >= budget.get() {
            // CAST: It was one.
            return budget.get() as c_int;
        }

        // From here on the poll function may run on another CPU: `state` isn't used any more.
        //
        // CAST: Less than the budget, which was one.
        //
        // SAFETY: We are the poll function, and there is less than the budget.
        if unsafe { bindings::napi_complete_done(napi, received as c_int) } {
            this.driver.rearm();
        }

        // CAST: As above.
        received as c_int
    }

    /// # Safety
    ///
    /// Called by the stack for a registered device.
    unsafe extern "C" fn tx_timeout(dev: *mut bindings::net_device, _queue: c_uint) {
        // SAFETY: The device is registered. The stack forgets the work if the device goes.
        unsafe { bindings::netdev_work_sched(dev, Events::RESET.0) };
    }

    /// # Safety
    ///
    /// Called by the stack for a device that is registered for this `T`; `stats` must be valid, but
    /// needn't be aligned.
    unsafe extern "C" fn get_stats64(
        dev: *mut bindings::net_device,
        stats: *mut bindings::rtnl_link_stats64,
    ) {
        // SAFETY: The stack asks registered devices only.
        let this = unsafe { Self::of(dev) };
        let counters = &this.counters;
        // In a message of netlink they may lie at any multiple of four.
        //
        // SAFETY: The caller's statistics are valid, and nobody else has them.
        let write = |field: *mut u64, value: u64| unsafe { field.write_unaligned(value) };
        let tell = |field: *mut u64, counter: &Atomic<u64>| write(field, counter.load(Relaxed));

        // SAFETY: As above; there are no references to them.
        unsafe {
            tell(&raw mut (*stats).rx_packets, &counters.rx_packets);
            tell(&raw mut (*stats).rx_bytes, &counters.rx_bytes);
            tell(&raw mut (*stats).rx_dropped, &counters.rx_dropped);
            tell(
                &raw mut (*stats).rx_length_errors,
                &counters.rx_length_errors,
            );
            tell(&raw mut (*stats).rx_errors, &counters.rx_length_errors);
            tell(&raw mut (*stats).tx_packets, &counters.tx_packets);
            tell(&raw mut (*stats).tx_bytes, &counters.tx_bytes);
            tell(&raw mut (*stats).tx_dropped, &counters.tx_dropped);

            if T::HAS_MISSED {
                write(&raw mut (*stats).rx_missed_errors, this.driver.missed());
            }
        }
    }
}

/// The control path of a registered device: the instance lock is held.
///
/// Callbacks that may sleep get it, and nobody else.
pub struct Control<'n, T: Driver> {
    core: &'n Core<T>,
    _context: PhantomData<*mut ()>,
}

impl<'n, T: Driver> Control<'n, T> {
    /// # Safety
    ///
    /// The device must be registered for `T`, and the caller must hold the instance lock, for `'n`.
    /// There must be no other value for this device.
    pub(super) unsafe fn new(dev: *mut bindings::net_device) -> Self {
        Self {
            // SAFETY: The caller's device is registered for `T`, for `'n`.
            core: unsafe { Core::of(dev) },
            _context: PhantomData,
        }
    }

    pub(super) fn driver(&self) -> &'n T {
        &self.core.driver
    }

    /// Returns whether messages of a kind are logged (C: `netif_msg_...()`).
    pub fn logs(&self, kind: Messages) -> bool {
        self.core.messages.load(Relaxed) & kind.0 != 0
    }

    /// Says whether there is a link (C: `netif_carrier_on()`, `netif_carrier_off()`); returns
    /// whether that is news.
    ///
    /// The stack sends nothing without one. A device that is closed has none.
    pub fn set_carrier(&mut self, on: bool) -> bool {
        let raw = self.core.device().as_raw();

        // SAFETY: The device is registered.
        unsafe {
            let before = bindings::netif_carrier_ok(raw);

            if on && bindings::netif_running(raw) {
                bindings::netif_carrier_on(raw);
            } else {
                bindings::netif_carrier_off(raw);
            }

            before != bindings::netif_carrier_ok(raw)
        }
    }

    /// Halts the device, calls `again` with both states, and goes on: for a device that hangs, or
    /// forgot its rings.
    ///
    /// While `again` runs, nobody sends or polls, and [`Driver::rearm`] isn't called. Interrupts of
    /// that time go by, also those that tell of the link, and a restart that fails takes the
    /// carrier away: call [`set_carrier`](Self::set_carrier) after one that doesn't. Does nothing
    /// if the device is closed. Context: may sleep.
    ///
    /// # Errors
    ///
    /// What `again` returns: the device stays halted then, without a carrier. The next `restart`
    /// can change that, and so can closing the device and opening it.
    pub fn restart(&mut self, again: impl FnOnce(&mut T::Tx, &mut T::Poll) -> Result) -> Result {
        let Some((mut tx, mut poll)) = self.halt() else {
            return Ok(());
        };

        match again(&mut tx, &mut poll) {
            Ok(()) => {
                self.run(tx, poll);
                Ok(())
            }
            Err(e) => {
                self.set_carrier(false);

                // SAFETY: We have the instance lock.
                unsafe { *self.core.control.get() = State::Halted(tx, poll) };
                Err(e)
            }
        }
    }

    /// Takes both states back from those who send and poll. None if the device is closed.
    ///
    /// NAPI goes first: it is who wakes the queue. Then the queue is stopped, under its lock. Who
    /// sends nevertheless finds no state, and drops the frame. After the grace period, a
    /// [`Driver::rearm`] that came after `napi_complete_done()` is over, so interrupts that are
    /// masked from now on stay so.
    fn halt(&mut self) -> Option<(T::Tx, T::Poll)> {
        let core = self.core;

        // SAFETY: We have the instance lock.
        let state = core::mem::replace(unsafe { &mut *core.control.get() }, State::Closed);

        match state {
            State::Closed => None,
            State::Halted(tx, poll) => Some((tx, poll)),
            State::Running => {
                // SAFETY: By the type invariants it is enabled. We have the instance lock.
                unsafe { bindings::napi_disable_locked(core.napi().as_raw()) };
                // SAFETY: It is disabled, and we have the instance lock.
                let poll = unsafe { (*core.poll.get()).take() };
                let queue = core.queue();

                // SAFETY: The queue is valid. `tx` is accessed with its lock.
                let tx = unsafe {
                    bindings::netif_tx_lock_queue_bh(queue);
                    bindings::netif_tx_stop_queue(queue);

                    let tx = (*core.tx.get()).take();

                    bindings::netif_tx_unlock_queue_bh(queue);
                    tx
                };

                // SAFETY: We may sleep.
                unsafe { bindings::synchronize_net() };

                tx.zip(poll)
            }
        }
    }

    /// Lends both states to those who send and poll, and has the device polled: whatever came while
    /// nobody did is found, and interrupts are unmasked.
    ///
    /// The device must not be running.
    fn run(&mut self, tx: T::Tx, poll: T::Poll) {
        let core = self.core;
        let queue = core.queue();

        // SAFETY: We have the instance lock, and by the type invariants NAPI is disabled, as the
        // device isn't running. It is enabled after its state is there. The queue is valid; `tx` is
        // accessed with its lock.
        unsafe {
            *core.control.get() = State::Running;
            *core.poll.get() = Some(poll);

            // Before NAPI is enabled, or who polls could wake a queue whose frames find no state.
            bindings::netif_tx_lock_queue_bh(queue);
            *core.tx.get() = Some(tx);
            bindings::netif_tx_unlock_queue_bh(queue);

            bindings::napi_enable_locked(core.napi().as_raw());
            bindings::netif_tx_wake_queue(queue);
            bindings::napi_kick(core.napi().as_raw());
        }
    }
}
