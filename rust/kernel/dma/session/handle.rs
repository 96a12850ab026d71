// SPDX-License-Identifier: GPL-2.0

//! The driver's handle of its device's session.

use super::{
    super::{
        mapping::orphan::{
            put_away,
            Orphan, //
        },
        Mapper,
        Running, //
    },
    control::Control,
    quiesce::Hardware,
    Quiesce,
    StopOutcome, //
};
use crate::{
    device::{
        Core,
        Device, //
    },
    prelude::*,
    sync::WaitQueue,
    time::Delta, //
};
use core::{
    mem::ManuallyDrop,
    ops::Deref, //
};

/// What a device may access, and the means to start and stop the device.
///
/// A driver makes one in `probe()`, moves into it whatever the device may access (slots, rings,
/// queues, shared memory: the contents, `R`), and [starts](Self::start) the device. A bound device
/// has one at most. It dereferences to the contents, which can't be moved out.
///
/// The contents are freed when the session was dropped *and* the device was proven to have stopped
/// since it last ran. Without that proof they are quarantined as a whole.
///
/// The bus stops the device, and not this value. Dropping or forgetting a session stops nothing,
/// and frees nothing that the device may access. To stop the device early, call
/// [`stop`](Self::stop).
///
/// C: `pci_set_master()`, `pci_clear_master()` and the driver's own reset, in the order that its
/// `remove()`, suspend and error handlers have to keep.
///
/// Context of dropping it: that of dropping an `R`.
///
/// # Examples
///
/// ```
/// # use kernel::{device::{Core, Device}, prelude::*};
/// use kernel::dma::{Session, Quiesce};
///
/// /// `contents` is what the device may access: a transfer or a ring, with its buffers.
/// fn bring_up<'a, R: Send + 'a>(
///     dev: &Device<Core<'a>>,
///     quiesce: impl Quiesce + 'a,
///     contents: R,
/// ) -> Result<Session<'a, R>> {
///     let session = Session::new(dev, quiesce, contents)?;
///
///     // From here on the device can do DMA.
///     session.start()?;
///     Ok(session)
/// }
/// ```
#[must_use = "keep it in the driver's data; without it the device can't be started"]
pub struct Session<'a, R: Send> {
    dma: Mapper<'a>,
    control: &'a Control,
    contents: ManuallyDrop<Pin<KBox<R>>>,
}

impl<'a, R: Send + 'a> Session<'a, R> {
    /// Makes the session of a device. The device isn't started: call [`start`](Self::start).
    ///
    /// Context: may sleep.
    ///
    /// # Errors
    ///
    /// - [`EBUSY`] if the device has, or had since it was bound, a session;
    /// - [`EINVAL`] if the driver is no `DmaDriver`, if its constraints allow more than the
    ///   hardware takes ([`Quiesce::limits`]), or if `quiesce` is about another device;
    /// - [`ENOMEM`], and what the initialiser of the contents returned.
    pub fn new<Q: Quiesce + 'a, E>(
        dev: &Device<Core<'a>>,
        quiesce: Q,
        contents: impl PinInit<R, E>,
    ) -> Result<Self>
    where
        Error: From<E>,
    {
        let dma = Mapper::get(dev.bound())?;
        let control = Control::find(dev.bound()).ok_or(EINVAL)?;
        let contents = KBox::pin_init(contents, GFP_KERNEL)?;

        // SAFETY: `Q: 'a`, and by `Core<'a>` whatever lives for `'a` lives until the device is
        // unbound. The bus drops the hardware before that, when `unbind()` has returned or the
        // probe has failed.
        let hardware = unsafe { Hardware::new(dma.device(), dma.record().constraints(), quiesce) }?;

        control.install(hardware)?;

        Ok(Self {
            dma,
            control,
            contents: ManuallyDrop::new(contents),
        })
    }

    /// [Disarms](Quiesce::disarm) the device, and lets it access memory: for a PCI device, bus
    /// mastering is switched on.
    ///
    /// Transfers that were in flight before are over then, and threads that wait for them are
    /// woken. Start rings and queues after this (`Ring::start`, `Completions::start`,
    /// `Commands::start`). Does nothing if the device runs. Context: may sleep.
    ///
    /// # Errors
    ///
    /// - what [`Quiesce::disarm`] returned;
    /// - [`EBUSY`] during a suspend or a reset of the device;
    /// - [`ESHUTDOWN`] if the device is being unbound or shut down, or was reset and the driver
    ///   can't go on;
    /// - [`EIO`] if its bus keeps the device from memory all the same;
    /// - [`ENODEV`] if the device has left the bus.
    pub fn start(&self) -> Result {
        self.control.start(false)
    }

    /// Stops the device and starts it again. Use it when the device hangs or is in disorder.
    ///
    /// Context: may sleep.
    ///
    /// # Errors
    ///
    /// As [`start`](Self::start). The device was stopped then, or is gone. With [`EBUSY`] it is
    /// started when its suspend or reset is over, else when the next one is, if the driver can go
    /// on then, and unless it is [stopped](Self::stop) first.
    pub fn restart(&self) -> Result {
        self.control.start(true)
    }

    /// Stops the device until it is [started](Self::start) again, and wakes the threads that wait
    /// for it. Returns whether the device was proven to have stopped.
    ///
    /// After something for which the device must not run, have it go on by
    /// [`restart`](Self::restart), not by [`start`](Self::start). If a suspend or a reset has begun
    /// meanwhile, both are refused, but only a `restart` is made up for when that is over.
    ///
    /// With a proof, [`StopOutcome::Stopped`] or [`StopOutcome::Gone`], all transfers are over and
    /// quarantined memory is freed. With [`StopOutcome::Unproven`] nothing is freed, and this may
    /// be called again. Context: may sleep.
    pub fn stop(&self) -> StopOutcome {
        self.control.stop()
    }

    /// Keeps the device from being stopped until the result is dropped, so that it can be shown an
    /// address, as [`Mapper::running`].
    ///
    /// Context: any. The caller must not sleep until it drops the result.
    ///
    /// # Errors
    ///
    /// [`ESHUTDOWN`] if the device is stopped, or wasn't started yet.
    #[inline]
    pub fn running(&self) -> Result<Running<'a>> {
        self.dma.running()
    }

    /// Waits until `look` returns [`Some`], and returns that; or [`None`] after `timeout`.
    ///
    /// It calls `look` at once, whenever the interrupt handler wakes `queue`, when the device was
    /// started or stopped, and once more at the end. After a stop no interrupt comes, so `look`
    /// should also return [`Some`] when the device was stopped. (C: `wait_event_timeout()`.)
    /// Context: may sleep.
    pub fn wait_until<T>(
        &self,
        queue: &WaitQueue,
        timeout: Delta,
        look: impl FnMut() -> Option<T>,
    ) -> Option<T> {
        queue.wait_until_or(Some(self.control.stops()), timeout, look)
    }
}

impl<R: Send> Deref for Session<'_, R> {
    type Target = R;

    #[inline]
    fn deref(&self) -> &R {
        &self.contents
    }
}

impl<R: Send> Drop for Session<'_, R> {
    fn drop(&mut self) {
        // SAFETY: `self` is not used afterwards.
        let contents = unsafe { ManuallyDrop::take(&mut self.contents) };

        put_away(
            self.dma.device(),
            self.dma.record(),
            None,
            Contents(contents),
        );
    }
}

/// The contents of a session that was dropped.
struct Contents<R>(Pin<KBox<R>>);

// SAFETY:
// 1. To release the contents is to drop them, and they are `Send`.
// 2. `Session::new()` has them live for the `'a` of a `Core<'a>`.
unsafe impl<R: Send> Orphan for Contents<R> {
    // The bus stops the device at unbind, so a driver may drop its session before that.
    const ACCIDENT: bool = false;

    fn bytes(&self) -> usize {
        size_of::<R>()
    }

    unsafe fn release(self) {
        drop(self.0);
    }
}
