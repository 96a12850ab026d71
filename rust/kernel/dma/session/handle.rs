// SPDX-License-Identifier: GPL-2.0

//! What a driver holds of its device's session.

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

/// All that a device may touch, and its stop.
///
/// There is one for a bound device. `R` is what the device may access: slots, rings, coherent
/// memory, whatever owns it. It is reached by reference only, and freed when the session is
/// dropped *and* the device was proven to have stopped; without that proof it is quarantined as a
/// whole. How the device is stopped belongs to the device, not to this value: dropping or
/// forgetting a session stops nothing, frees nothing that the device may access, and takes no
/// proof away.
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
pub struct Session<'a, R: Send> {
    dma: Mapper<'a>,
    control: &'a Control,
    contents: ManuallyDrop<Pin<KBox<R>>>,
}

impl<'a, R: Send + 'a> Session<'a, R> {
    /// Makes the session of a device, which is not started yet.
    ///
    /// Context: may sleep.
    ///
    /// # Errors
    ///
    /// - [`EBUSY`] if the device has, or had since it was bound, a session;
    /// - [`EINVAL`] if the driver has no `dma_constraints()`, if these allow more than the hardware
    ///   takes ([`Quiesce::limits`]), or if `quiesce` is about another device;
    /// - [`ENOMEM`], and what the initialiser says.
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

        // SAFETY: `Q: 'a`, and the brand of `Core<'a>` says that what lives for `'a` does so until
        // the device is unbound. The bus drops the hardware before, when `unbind()` is done or the
        // probe has failed.
        let hardware = unsafe { Hardware::new(dma.device(), dma.record().constraints(), quiesce) }?;

        control.install(hardware)?;

        Ok(Self {
            dma,
            control,
            contents: ManuallyDrop::new(contents),
        })
    }

    /// [Disarms](Quiesce::disarm) the device, and lets it access memory: a PCI device gets bus
    /// mastering.
    ///
    /// What was in flight before is over then, and waiters find that. Does nothing if the device
    /// runs. Context: may sleep.
    ///
    /// # Errors
    ///
    /// - what [`Quiesce::disarm`] says;
    /// - [`EBUSY`] while the device is suspended or reset;
    /// - [`ESHUTDOWN`] if it is being unbound or shut down, or was reset and the driver can't go
    ///   on;
    /// - [`ENODEV`] if it is gone.
    pub fn start(&self) -> Result {
        self.control.start(false)
    }

    /// Stops the device and starts it again, for one that hangs or is in disorder.
    ///
    /// Context: may sleep.
    ///
    /// # Errors
    ///
    /// As [`start`](Self::start). With [`EBUSY`] it is started when the device's suspend or reset
    /// is over, if the driver can go on then.
    pub fn restart(&self) -> Result {
        self.control.start(true)
    }

    /// Stops the device until it is started again, and wakes who waits for it.
    ///
    /// All that was in flight is over, if the device was proven to have stopped. If it was not,
    /// this may be tried again. Context: may sleep.
    pub fn stop(&self) -> StopOutcome {
        self.control.stop()
    }

    /// Keeps the device running for the moment in which it is shown an address, by a protocol of
    /// the driver's own.
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

    /// Waits until `look` finds something, for `timeout` at most. Looks at once, whenever the
    /// interrupt handler wakes `queue`, when the device was started or stopped, and at the end.
    ///
    /// After a stop there are no interrupts, so `look` should find that the device was stopped,
    /// too. Context: may sleep.
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

/// What was in a session that was dropped.
struct Contents<R>(Pin<KBox<R>>);

// SAFETY: Releasing is dropping.
unsafe impl<R: Send> Orphan for Contents<R> {
    // The device is stopped when it is unbound, so a driver may drop it before.
    const ACCIDENT: bool = false;

    fn bytes(&self) -> usize {
        size_of::<R>()
    }

    unsafe fn release(self) {
        drop(self.0);
    }
}
