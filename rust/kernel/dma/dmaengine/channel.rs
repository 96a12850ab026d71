// SPDX-License-Identifier: GPL-2.0

//! Channels, and how they are terminated.

use super::{
    super::{
        mapping::{
            orphan::{
                Keeper,
                Kept, //
            },
            record::Record,
            shared::Later, //
        },
        session::quarantine::{
            Proven,
            Quarantine, //
        },
        Constraints,
        DmaMask,
        Mapper,
        Running, //
    },
    slot::{
        Slot,
        State,
        Word,
        SLOTS, //
    },
    Capabilities,
    Cookie,
    Submitted,
    Transfer, //
};
use crate::{
    bindings,
    device::{
        Bound,
        Core,
        Device, //
    },
    devres::{
        self,
        Devres,
        Lendable, //
    },
    error::{
        from_err_ptr,
        to_result,
        ErrorWith, //
    },
    new_mutex,
    new_spinlock_irq,
    new_wait_queue,
    prelude::*,
    sync::{
        aref::ARef,
        atomic::{
            Acquire,
            Atomic,
            Full,
            Relaxed,
            Release, //
        },
        barrier::{
            smp_mb,
            Read, //
        },
        rcu,
        Arc,
        Mutex,
        SetOnce,
        SpinLockIrq,
        WaitQueue, //
    },
    time::Delta, //
};
use core::{
    marker::PhantomData,
    mem::ManuallyDrop,
    ptr::NonNull, //
};

/// How long the release of a channel waits for transfers that can't be terminated.
const PATIENCE: Delta = Delta::from_secs(1);

/// How often it looks.
const PATIENCE_INTERVAL: Delta = Delta::from_millis(1);

/// The channels that couldn't be released: a list, for debuggers, and for kmemleak, which doesn't
/// report what it can reach.
static LOST: Atomic<usize> = Atomic::new(0);

/// What is called when the engine is done with a transfer, or with a period of a [`Cyclic`] one.
///
/// Give it to [`Channel::lend_with`]. The threads that sleep in [`Submitted::wait`] are woken
/// without it: it is for drivers that want to go on at once, for instance by submitting the next
/// transfer or by queueing work.
///
/// [`Cyclic`]: super::Cyclic
///
/// # Examples
///
/// ```
/// use kernel::{dma::dmaengine::Handler, sync::{Arc, WaitQueue}};
///
/// /// Wakes a queue of the driver's own, on which it waits for several things.
/// struct Waker(Arc<WaitQueue>);
///
/// impl Handler for Waker {
///     fn called_back(&self) {
///         self.0.wake_all();
///     }
/// }
/// ```
pub trait Handler: Send + Sync + 'static {
    /// Called after each callback of the provider.
    ///
    /// Which transfer it was about, only their [`Submitted::poll`] tells. Context: that in which
    /// the provider calls back, a tasklet or a hard interrupt, so it must not sleep.
    fn called_back(&self);
}

/// A descriptor as C has it.
type RawDescriptor = bindings::dma_async_tx_descriptor;

/// Where to find a transfer that was submitted.
#[derive(Clone, Copy)]
pub(super) struct Place<'c> {
    /// Its slot, what the slot was given for it, and the epoch in which that was.
    pub(super) slot: &'c Slot,
    pub(super) word: Word,
    pub(super) epoch: u64,
    pub(super) cookie: Cookie,
}

/// What there is of a channel while it is requested.
///
/// # Invariants
///
/// - `chan` is a channel that was requested, and is released by the `Channel` that owns this.
/// - The provider's driver stays bound for longer than that.
/// - All transfers of the channel have one of the slots.
#[pin_data]
pub(super) struct Inner {
    chan: NonNull<bindings::dma_chan>,
    /// The device that accesses memory.
    dev: ARef<Device>,
    record: Record,
    slots: KBox<[Slot; SLOTS]>,
    /// Where to look for a free slot first.
    next: Atomic<usize>,
    /// Whether a provider was reported for calling back when nothing was expected.
    is_reported: Atomic<bool>,
    handler: SetOnce<KBox<dyn Handler>>,
    /// Whether the handler may be called.
    is_listening: Atomic<bool>,
    #[pin]
    quarantine: SpinLockIrq<Quarantine>,
    /// Woken when the provider called back, and when transfers were terminated.
    #[pin]
    events: WaitQueue,
    /// The address of the next channel that was lost, or 0.
    next_lost: Atomic<usize>,
    /// Held by who terminates: whether the channel is to stay closed.
    #[pin]
    terminating: Mutex<bool>,
    /// How often a terminate has begun or ended: odd while one is at work.
    terminations: Atomic<u32>,
    _at_unbind: Devres<AtUnbind>,
}

// SAFETY: A channel may be used by any thread: its provider has a lock for what needs one, since
// callbacks submit transfers, too. The rest is `Send` and `Sync`.
unsafe impl Send for Inner {}

// SAFETY: As above.
unsafe impl Sync for Inner {}

impl Keeper for Inner {
    fn keep(&self, orphan: Kept, is_needed: &dyn Fn() -> bool) -> Result<(), Kept> {
        Quarantine::keep(&self.quarantine, orphan, is_needed)
    }

    #[cfg(CONFIG_RUST_DMA_FIXTURE)]
    fn set_resumes(&self, _resumes: bool) {}

    #[cfg(CONFIG_RUST_DMA_FIXTURE)]
    fn open_for_test(&self) {}

    #[cfg(CONFIG_RUST_DMA_FIXTURE)]
    unsafe fn prove_for_test(&self) {}
}

impl Inner {
    /// Takes a channel that was just requested.
    ///
    /// # Safety
    ///
    /// - `dev` must be the device for which memory is mapped for the channel.
    /// - The provider's driver must stay bound until the result is dropped or forgotten, and
    ///   `client` is unbound.
    unsafe fn new(
        guard: Guard,
        client: &Device<Bound>,
        dev: &Device,
        constraints: Constraints,
    ) -> Result<Pin<KBox<Self>>> {
        let owned: ARef<Device> = dev.into();
        let record = Record::new(dev, constraints)?;
        let at_unbind = Devres::new(client, Ok::<_, Error>(AtUnbind(record.later().clone())))?;

        let inner = KBox::pin_init(
            try_pin_init!(&this in Self {
                chan: guard.0,
                record,
                slots: Slot::table(this)?,
                next: Atomic::new(0),
                is_reported: Atomic::new(false),
                handler: SetOnce::new(),
                is_listening: Atomic::new(false),
                next_lost: Atomic::new(0),
                quarantine <- new_spinlock_irq!(
                    Quarantine::new(owned.clone()),
                    "dma::dmaengine::quarantine"
                ),
                events <- new_wait_queue!("dma::dmaengine::events"),
                terminating <- new_mutex!(false, "dma::dmaengine::terminating"),
                terminations: Atomic::new(0),
                _at_unbind: at_unbind,
                dev: owned,
            }? Error),
            GFP_KERNEL,
        )?;

        let keeper: NonNull<dyn Keeper> = NonNull::from(&*inner);

        // SAFETY: The mapper of the channel borrows both, the record and its keeper.
        unsafe { inner.record.set_keeper(keeper) };

        // SAFETY: A channel that was just requested was shown nothing.
        unsafe { inner.record.open() };

        // INVARIANT: It was requested, and is ours to release.
        let _ = ManuallyDrop::new(guard);
        Ok(inner)
    }

    #[inline]
    pub(super) fn chan(&self) -> NonNull<bindings::dma_chan> {
        self.chan
    }

    #[inline]
    pub(super) fn record(&self) -> &Record {
        &self.record
    }

    /// Returns the queue that is woken when something may be over.
    #[inline]
    pub(super) fn events(&self) -> &WaitQueue {
        &self.events
    }

    /// Returns the permission to map for the channel.
    #[inline]
    pub(super) fn mapper(&self) -> Mapper<'_> {
        // SAFETY: The device is the provider's, whose driver stays bound as long as the channel is
        // requested, or a child of that device which the provider has set up for DMA. The masks are
        // the provider's, and stay. The record is about what this channel was shown, and no more.
        unsafe {
            let dev: &Device<Bound> = Device::from_raw(self.dev.as_raw());

            Mapper::with_record(dev, &self.record)
        }
    }

    /// Called when the provider has called back, whether that was expected or not.
    pub(super) fn called_back(&self, is_expected: bool) {
        if !is_expected {
            if !self.is_reported.xchg(true, Relaxed) {
                dev_err!(
                    &self.dev,
                    "the DMA provider called back for a transfer that is over; ignored\n"
                );
            }
            return;
        }

        self.events.wake_all();

        if self.is_listening.load(Acquire) {
            if let Some(handler) = self.handler.as_ref() {
                handler.called_back();
            }
        }
    }

    /// Hands a transfer to the provider.
    ///
    /// `prepare` returns a descriptor of this channel, or null.
    ///
    /// # Errors
    ///
    /// As [`Channel::submit`]. The engine was told nothing then.
    ///
    /// # Safety
    ///
    /// The memory that the descriptor is about must stay, mapped for the device of the channel,
    /// until the transfer is over: until the slot says so, or the channel has another epoch.
    pub(super) unsafe fn submit(
        &self,
        state: State,
        prepare: impl FnOnce(*mut bindings::dma_chan, c_ulong) -> *mut RawDescriptor,
    ) -> Result<Place<'_>> {
        // Transfers aren't terminated until this one was submitted and its epoch was read.
        let _running = Running::enter(&self.record)?;
        let (slot, word) = self.claim(state).ok_or(EBUSY)?;
        let calls_back = state != State::Polled;

        // CAST: Small numbers.
        let mut flags = bindings::dma_ctrl_flags_DMA_CTRL_ACK as c_ulong;

        if calls_back {
            flags |= bindings::dma_ctrl_flags_DMA_PREP_INTERRUPT as c_ulong;
        }

        let Some(descriptor) = NonNull::new(prepare(self.chan.as_ptr(), flags)) else {
            slot.free(word);
            return Err(ENOMEM);
        };

        if calls_back {
            // SAFETY: A descriptor that was prepared and not submitted yet is ours.
            unsafe {
                (*descriptor.as_ptr()).callback_result = Some(super::slot::called_back);
                (*descriptor.as_ptr()).callback_param = slot.as_param(word);
            }
        }

        // SAFETY: As above; now it is the provider's. By the safety requirements the memory stays.
        // The slot stays until the channel is released.
        let cookie = unsafe { bindings::dmaengine_submit(descriptor.as_ptr()) };

        if cookie < 0 {
            slot.free(word);
            return Err(Error::from_errno(cookie));
        }

        let cookie = Cookie(cookie);

        slot.set_cookie(cookie);
        Ok(Place {
            slot,
            word,
            epoch: self.record.epoch(),
            cookie,
        })
    }

    #[inline]
    fn claim(&self, state: State) -> Option<(&Slot, Word)> {
        let start = self.next.load(Relaxed);

        // Who comes at the same time may begin at the same slot.
        self.next.store(start.wrapping_add(1), Relaxed);

        (0..SLOTS).find_map(|n| {
            let slot = self.slots.get(start.wrapping_add(n) % SLOTS)?;

            slot.claim(state).map(|word| (slot, word))
        })
    }

    /// Tells the engine to begin with what was submitted, unless transfers are being terminated.
    #[inline]
    pub(super) fn issue_pending(&self) -> Result {
        let _running = Running::enter(&self.record)?;

        // SAFETY: By the type invariants the channel is requested.
        unsafe { bindings::dma_async_issue_pending(self.chan.as_ptr()) };
        Ok(())
    }

    /// Returns whether a transfer may be in flight.
    fn is_busy(&self) -> bool {
        self.slots.iter().any(|slot| {
            // SAFETY: By the type invariants the channel is requested.
            unsafe { slot.is_busy(self.chan) }
        })
    }

    fn can_terminate(&self) -> bool {
        // SAFETY: By the type invariants the channel is requested.
        unsafe { bindings::dmaengine_can_terminate(self.chan.as_ptr()) }
    }

    /// Terminates all transfers, and closes the channel: nothing is submitted until it is opened.
    ///
    /// # Errors
    ///
    /// What the provider said. If transfers may be in flight, there is no proof.
    fn close(&self) -> Result<Proven> {
        self.record.close();

        if !self.is_busy() {
            return Ok(self.prove());
        }

        self.terminations.fetch_add(1, Full);

        // SAFETY: By the type invariants the channel is requested. Nothing is issued meanwhile,
        // since the record is closed.
        let outcome = to_result(unsafe { bindings::dmaengine_terminate_sync(self.chan.as_ptr()) })
            .inspect_err(|_| self.record.settle())
            .map(|()| {
                // Many providers don't wait for their tasklets.
                rcu::synchronize_rcu();
                self.prove()
            });

        // After the new epoch: who asks from here on sees that.
        self.terminations.fetch_add(1, Full);
        outcome
    }

    /// Returns whether transfers were terminated since that one was submitted.
    #[inline]
    pub(super) fn is_terminated(&self, place: Place<'_>) -> bool {
        place.epoch != self.record.epoch()
    }

    /// Returns what `ask` finds out from the provider about a transfer; [`None`] if it was asked
    /// while transfers are being terminated. Some providers say of these that they are complete
    /// before the hardware is at rest.
    pub(super) fn ask_calmly<R>(&self, ask: impl FnOnce() -> R) -> Option<R> {
        let before = self.terminations.load(Acquire);

        if before % 2 == 1 {
            return None;
        }

        let answer = ask();

        // Who sees what the provider has done since sees the number, too.
        smp_mb(Read);
        (self.terminations.load(Relaxed) == before).then_some(answer)
    }

    /// Records that no transfer is in flight. The record must be closed.
    fn prove(&self) -> Proven {
        // SAFETY: Each transfer is over: the provider called back for it, or has said that it is
        // done, or that all were terminated, which is for a `struct dma_chan` what a stop is for
        // other devices. Nothing was submitted since, as the record is closed.
        let proven = unsafe { Quarantine::prove(&self.quarantine, &self.record) };

        for slot in self.slots.iter() {
            slot.terminated();
        }

        self.events.wake_all();
        proven
    }

    fn terminate_sync(&self) -> Result {
        if !self.can_terminate() {
            return Err(EOPNOTSUPP);
        }

        let guard = self.terminating.lock();
        let proven = self.close()?;

        if !*guard {
            // SAFETY: All transfers were just terminated, and the engine was told nothing since.
            unsafe { self.record.open() };
        }

        // Freeing may sleep, and may call methods of `self`.
        drop(guard);
        proven.reclaim(&self.quarantine);
        Ok(())
    }

    /// Terminates all transfers, and lets nothing be submitted any more.
    fn stop(&self) {
        let mut guard = self.terminating.lock();
        let outcome = self.close();

        *guard = true;

        drop(guard);

        // If it fails, the release of the channel tries once more.
        if let Ok(proven) = outcome {
            proven.reclaim(&self.quarantine);
        }
    }

    /// Makes an end of all transfers, before the channel is released.
    ///
    /// # Errors
    ///
    /// [`EBUSY`] if there is no proof that the engine is done.
    fn finish(&self) -> Result {
        // No handler runs when `close()`, which waits for callbacks, is over, whatever it finds.
        self.is_listening.store(false, Release);

        let _guard = self.terminating.lock();

        match self.close() {
            Ok(proven) => proven.reclaim(&self.quarantine),
            Err(_) => {
                self.events
                    .poll_until(PATIENCE_INTERVAL, PATIENCE, || {
                        (!self.is_busy()).then_some(())
                    })
                    .ok_or(EBUSY)?;
                self.prove().reclaim(&self.quarantine);
            }
        }

        // A callback that came before the end may still be waking somebody.
        rcu::synchronize_rcu();
        Ok(())
    }
}

/// Terminates the transfers of a channel that was lent when it is dropped.
struct Stop<'a>(&'a Inner);

impl Drop for Stop<'_> {
    fn drop(&mut self) {
        self.0.stop();
    }
}

/// Ends what a channel leaves to others when it is dropped: at the latest when its client is
/// unbound, since the channel may have been forgotten, or lost.
///
/// User space loses the memory of the provider's device then, and what is to be freed later is
/// freed while that device is bound.
struct AtUnbind(Arc<Later>);

impl Drop for AtUnbind {
    fn drop(&mut self) {
        self.0.end();
    }
}

/// A channel that was requested, and that nobody uses yet. Dropping it releases it.
///
/// # Invariants
///
/// It was requested.
struct Guard(NonNull<bindings::dma_chan>);

impl Drop for Guard {
    fn drop(&mut self) {
        // SAFETY: By the type invariants it was requested. No transfer is in flight.
        unsafe { bindings::dma_release_channel(self.0.as_ptr()) };
    }
}

/// A channel of a DMA engine: a device of another driver, which moves data for this one.
///
/// Request it in `probe()`, map memory with its [`mapper`](Self::mapper), and
/// [`submit`](Self::submit) transfers. It is this driver's alone until it is dropped. Then all
/// transfers are terminated, and it is released (C: `dma_release_channel()`). If the provider can't
/// terminate, that waits for a second. If the engine isn't done by then, the channel leaks with all
/// that it may access, and the log says so. Forgetting a channel leaks it, too.
///
/// Memory that is mapped for a channel borrows it. A driver that keeps both in its private data
/// gives the channel to the device, by [`lend`](Self::lend).
///
/// Any thread may submit and wait. Context of dropping it: may sleep.
///
/// # Examples
///
/// ```
/// # use kernel::{device::{Bound, Device}, prelude::*, time::Delta};
/// use kernel::dma::{
///     dmaengine::{Capabilities, Channel, Memcpy},
///     FromDevice, Streaming, ToDevice,
/// };
///
/// fn copy(dev: &Device<Bound>, from: KVec<u8>, to: KVec<u8>) -> Result<KVec<u8>> {
///     let channel = Channel::request_by_mask(dev, Capabilities::MEMCPY)?;
///     let from = Streaming::<_, ToDevice>::map(channel.mapper(), from)?;
///     let to = Streaming::<_, FromDevice>::map(channel.mapper(), to)?;
///     let copy = channel.submit(Memcpy::new(from, to))?;
///     let (_from, to) = copy.wait(Delta::from_millis(100))?;
///
///     Ok(to.unmap())
/// }
/// ```
pub struct Channel<'a> {
    inner: ManuallyDrop<Pin<KBox<Inner>>>,
    _client: PhantomData<&'a Device<Bound>>,
}

impl<'a> Channel<'a> {
    /// Requests the channel that the firmware (or the board) connects with `dev` under this name
    /// (C: `dma_request_chan()`).
    ///
    /// For transfers to and from the device's FIFO. Context: may sleep.
    ///
    /// # Errors
    ///
    /// - [`EPROBE_DEFER`] if the provider isn't there yet: return it from `probe()`;
    /// - [`ENODEV`] if there is no such channel, or if its provider is being unbound;
    /// - [`EBUSY`] if the provider is a driver in Rust that has a session of its own;
    /// - [`EOPNOTSUPP`] if the provider completes transfers in any order, so that cookies don't say
    ///   which are over (C: `DMA_COMPLETION_NO_ORDER`);
    /// - [`ESHUTDOWN`] if `dev` is being unbound;
    /// - [`EINVAL`] if the provider depends on `dev`, for instance as a child of it, or if its
    ///   device has no power management at all, as those on the faux bus;
    /// - [`EIO`] if the provider has set no DMA mask;
    /// - [`ENOMEM`], and what the provider says.
    pub fn request(dev: &'a Device<Bound>, name: &CStr) -> Result<Self> {
        // SAFETY: The device is bound; the name is copied.
        let chan = unsafe { bindings::dma_request_chan(dev.as_raw(), name.as_char_ptr()) };

        // SAFETY: It was just requested, for us.
        unsafe { Self::new(dev, chan) }
    }

    /// Requests any channel that can do all of this (C: `dma_request_chan_by_mask()`).
    ///
    /// For copies in memory. Context: may sleep.
    ///
    /// # Errors
    ///
    /// As [`request`](Self::request).
    pub fn request_by_mask(dev: &'a Device<Bound>, capabilities: Capabilities) -> Result<Self> {
        // SAFETY: The mask is valid.
        let chan = unsafe { bindings::dma_request_chan_by_mask(&capabilities.to_mask()) };

        // SAFETY: It was just requested, for us.
        unsafe { Self::new(dev, chan) }
    }

    /// Takes a channel that C has returned, or an error.
    ///
    /// # Errors
    ///
    /// As [`request`](Self::request); the channel is released then.
    ///
    /// # Safety
    ///
    /// `chan` must be what C has returned for a request. Nobody else must release it.
    pub(in crate::dma) unsafe fn new(
        dev: &'a Device<Bound>,
        chan: *mut bindings::dma_chan,
    ) -> Result<Self> {
        // INVARIANT: By the safety requirements it was requested.
        let guard = Guard(NonNull::new(from_err_ptr(chan)?).ok_or(ENODEV)?);
        let chan = guard.0.as_ptr();

        // SAFETY: Both are valid. `dev` is bound.
        to_result(unsafe { bindings::dmaengine_link(dev.as_raw(), chan) })?;

        // SAFETY: The channel is valid, and with it its device. The provider is bound, and stays so
        // as long as `dev` does, because of the link that was just made.
        let (mapping, provider) = unsafe {
            (
                Device::<Bound>::from_raw(bindings::dmaengine_get_dma_device(chan)),
                Device::<Bound>::from_raw((*(*chan).device).dev),
            )
        };

        // What a session of that driver proves isn't what this channel proves.
        if Record::find(mapping).is_some() || Record::find(provider).is_some() {
            return Err(EBUSY);
        }

        // SAFETY: The channel is valid.
        if unsafe {
            bindings::dmaengine_can_do(chan, bindings::dma_transaction_type_DMA_COMPLETION_NO_ORDER)
        } {
            dev_err!(
                dev,
                "the DMA provider completes transfers in any order: not supported\n"
            );
            return Err(EOPNOTSUPP);
        }

        // SAFETY: The device is valid. A provider sets its masks before it registers channels.
        let (mask, coherent) = unsafe {
            let raw = mapping.as_raw();

            if (*raw).dma_mask.is_null() {
                return Err(EIO);
            }

            (bindings::dma_get_mask(raw), (*raw).coherent_dma_mask)
        };
        let constraints = Constraints::new(whole_mask(mask)?).coherent_mask(whole_mask(coherent)?);

        // SAFETY: The provider stays bound. `Self` is dropped, or forgotten, before `dev` is
        // unbound, which it borrows.
        let inner = unsafe { Inner::new(guard, dev, mapping, constraints) }?;

        Ok(Self {
            inner: ManuallyDrop::new(inner),
            _client: PhantomData,
        })
    }

    /// Gives the channel to the client's device, which releases it at unbind, and lends it until
    /// then.
    ///
    /// So the driver can keep it, and what is mapped for it, in its private data. When the driver's
    /// `unbind()` is done, all transfers are terminated, while the device still has its power, and
    /// no more are submitted: that gets [`ESHUTDOWN`]. What the private data has in flight is freed
    /// as usual then. Context: may sleep.
    ///
    /// # Errors
    ///
    /// [`ENOMEM`]; the channel is released then, at once or when the device is unbound.
    ///
    /// # Examples
    ///
    /// ```
    /// # use kernel::{device::{Core, Device}, dma::dmaengine::Channel, prelude::*};
    /// fn probe<'a>(dev: &Device<Core<'a>>) -> Result<&'a Channel<'a>> {
    ///     Channel::request(dev.bound(), c"rx")?.lend(dev)
    /// }
    /// ```
    pub fn lend(self, dev: &Device<Core<'a>>) -> Result<&'a Self> {
        let lent = devres::register_lent(dev, Ok::<_, Error>(self), GFP_KERNEL)?;

        devres::register_early(dev, Ok::<_, Error>(Stop(&lent.inner)), GFP_KERNEL)?;
        Ok(lent)
    }

    /// As [`lend`](Self::lend), and calls the handler after each callback of the provider.
    ///
    /// A channel of the driver's own can't have a handler: it could be forgotten, and the driver's
    /// module be unloaded. Context: may sleep.
    ///
    /// # Errors
    ///
    /// As [`lend`](Self::lend).
    pub fn lend_with(self, dev: &Device<Core<'a>>, handler: impl Handler) -> Result<&'a Self> {
        let handler: KBox<dyn Handler> = KBox::new(handler, GFP_KERNEL)?;

        // `self` is consumed here and never shown with a handler, so there was none.
        self.inner.handler.populate(handler);
        self.inner.is_listening.store(true, Release);
        self.lend(dev)
    }

    /// Returns the permission to map for the device that moves the data
    /// (C: `dmaengine_get_dma_device()`).
    ///
    /// What is mapped with it can be submitted to this channel, and to no other.
    #[inline]
    pub fn mapper(&self) -> Mapper<'_> {
        self.inner.mapper()
    }

    /// Hands a transfer to the engine, which calls back when it is done (C:
    /// `dmaengine_prep_...()` with `DMA_PREP_INTERRUPT`, `dmaengine_submit()`).
    ///
    /// It begins after [`issue_pending`](Self::issue_pending), or when somebody
    /// [waits](Submitted::wait) for it; with some providers sooner, when what was submitted before
    /// is done. Up to 64 transfers can be in flight. Context: any.
    ///
    /// # Errors
    ///
    /// The transfer comes back, and the engine knows nothing of it, with
    ///
    /// - [`EBUSY`] if too many transfers are in flight, or were forgotten, or, polled ones, dropped
    ///   in flight;
    /// - [`EINVAL`] if somebody asked for the address of the memory;
    /// - [`EINVAL`] if memory was mapped for something else than this channel, if the ranges don't
    ///   fit, or if the engine needs another alignment;
    /// - [`EOPNOTSUPP`] if the channel can't do this;
    /// - [`ESHUTDOWN`] if transfers are being terminated, or couldn't be terminated;
    /// - [`ENOMEM`] if the provider can't prepare it, and what it says on submission.
    pub fn submit<'c, T: Transfer<'c>>(
        &'c self,
        transfer: T,
    ) -> Result<Submitted<'c, T>, ErrorWith<T>> {
        Submitted::new(&self.inner, State::InFlight, transfer)
    }

    /// As [`submit`](Self::submit), for those who ask: the engine need not raise an interrupt, and
    /// nothing calls back.
    ///
    /// The provider's word for how much was moved comes with callbacks only. So a transfer that is
    /// polled counts as complete. Use it for copies that are over sooner than an interrupt is
    /// handled.
    ///
    /// # Errors
    ///
    /// As [`submit`](Self::submit).
    pub fn submit_polled<'c, T: Transfer<'c>>(
        &'c self,
        transfer: T,
    ) -> Result<Submitted<'c, T>, ErrorWith<T>> {
        Submitted::new(&self.inner, State::Polled, transfer)
    }

    /// Tells the engine to begin with what was submitted (C: `dma_async_issue_pending()`).
    ///
    /// Context: any.
    ///
    /// # Errors
    ///
    /// [`ESHUTDOWN`] if transfers are being terminated, or couldn't be terminated.
    #[inline]
    pub fn issue_pending(&self) -> Result {
        self.inner.issue_pending()
    }

    /// Ends all transfers of the channel (C: `dmaengine_terminate_sync()`).
    ///
    /// That is the proof that the engine accesses nothing of what it was told. Threads that wait
    /// are woken, and get [`ECANCELED`], as does who asks for a transfer that was done just before.
    /// What was dropped in flight is freed. Then the channel can be used again, unless it was
    /// [lent](Self::lend) and its device is being unbound. Context: may sleep; not in a
    /// [`Handler`], for which this waits.
    ///
    /// # Errors
    ///
    /// - [`EOPNOTSUPP`] if the provider can't do that; the transfers go on;
    /// - what the provider says. Nothing is proven then, and the channel takes nothing until this
    ///   was done successfully.
    pub fn terminate_sync(&self) -> Result {
        self.inner.terminate_sync()
    }

    pub(super) fn inner(&self) -> &Inner {
        &self.inner
    }
}

impl Drop for Channel<'_> {
    fn drop(&mut self) {
        // SAFETY: `self` is not used afterwards.
        let inner = unsafe { ManuallyDrop::take(&mut self.inner) };

        if inner.finish().is_err() {
            dev_err!(
                &inner.dev,
                "a DMA channel is at work, and can't be terminated: it leaks\n"
            );

            // What was dropped in flight is said, and stays where it is.
            let dev = inner.dev.clone();
            let lost = core::mem::replace(&mut *inner.quarantine.lock(), Quarantine::new(dev));

            drop(lost);

            let inner = ManuallyDrop::new(inner);
            let address = core::ptr::from_ref(&**inner).expose_provenance();

            inner.next_lost.store(LOST.xchg(address, Full), Relaxed);
            return;
        }

        // INVARIANT: By the type invariants of `Inner`, it was requested.
        drop(Guard(inner.chan));
    }
}

// SAFETY: Dropping it uses the provider only, whose driver stays bound until that of the client's
// device, with all resources of that, is gone.
unsafe impl Lendable for Channel<'_> {}

/// Returns the narrowest mask of the kind that devices have, which contains another one.
fn whole_mask(mask: u64) -> Result<DmaMask> {
    DmaMask::try_new(u64::BITS - mask.leading_zeros())
}
