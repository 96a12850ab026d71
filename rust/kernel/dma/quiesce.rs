// SPDX-License-Identifier: GPL-2.0

//! How a device is stopped, and made to forget.

use super::{
    binding::Binding,
    configured::is_same, //
};
#[cfg(CONFIG_PCI)]
use crate::pci::{
    self,
    BusMaster, //
};
use crate::{
    device::{
        Bound,
        Device, //
    },
    prelude::*, //
};
use core::ptr::NonNull;

/// What came of an attempt to stop a device.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// The device accesses no memory until it is started.
    Stopped,
    /// The device has left the bus. If it comes back, it does so reset.
    Gone,
    /// There is no telling: it may go on.
    Unproven,
}

/// How a device is stopped.
///
/// # Safety
///
/// The implementation establishes how the hardware behaves. *All memory* is whatever the device
/// that [`device`](Self::device) returns can reach by bus addresses that it was given; messages
/// that signal interrupts don't count. `device` always returns the same.
///
/// - After [`forget`](Self::forget) returned `Ok`, the device accesses no memory, with bus
///   mastering on or off, until it is given an address and told to use it, and then only that. In
///   particular no engine is at work, none is armed, and no address is left in a place from which
///   the device would take it by itself. It fails if the device isn't there.
/// - After [`stop`](Self::stop) returned [`Outcome::Stopped`], the device accesses no memory until
///   something is started by the driver or until bus mastering, which is switched off afterwards,
///   is switched on again. What it wrote before is on its way to memory ahead of the read of a
///   register by which that was found out, and which a device that isn't there can't have answered.
/// - `stop` returns [`Outcome::Gone`] only for a device that can't come back without having
///   forgotten all. A register that reads as all ones isn't enough: return
///   [`Outcome::Unproven`], and let the bus find out.
/// - [`BUS_MASTER_GATES_DMA`](Self::BUS_MASTER_GATES_DMA) is true only if the device accesses no
///   memory while its bus master bit is off, and that is all there is to it: it is a conforming
///   function that sends all its requests under its own requester ID, shares no engine with
///   another function, and can be cut off in the middle of its work without harm. The exceptions
///   are listed in `Documentation/rust/dma/ownership.rst`.
///
/// While `forget` and `stop` run nothing is started, and nothing is between a `stop` and the next
/// `forget`. But other things go on: interrupt handlers, and looking at the device whether it is
/// done. Both may be called for a device whose registers don't answer, for instance after a bus
/// error. Neither may use the device's enclosure.
///
/// # Examples
///
/// A PCI device with a bit that is set while it works, and an address register:
///
/// ```
/// # use kernel::{device::{Bound, Device}, io::{poll::read_poll_timeout, Io, Mmio, Region}};
/// # use kernel::{prelude::*, time::Delta};
/// use kernel::dma::{Outcome, Quiesce};
///
/// struct Reader<'a> {
///     dev: &'a Device<Bound>,
///     registers: Mmio<'a, Region<16>>,
/// }
///
/// impl Reader<'_> {
///     /// Returns whether the device reads. One that was unplugged has no identification.
///     fn is_busy(&self) -> Result<bool> {
///         let busy = self.registers.read32(8) & 1 == 1;
///
///         if self.registers.read32(12) != 0x1234 {
///             return Err(ENODEV);
///         }
///
///         Ok(busy)
///     }
/// }
///
/// // SAFETY: The device starts to read when the bit at 8 is set, and only then; when it is clear,
/// // it is done. It is a function of its own, with one requester ID, and the registers are its.
/// unsafe impl Quiesce for Reader<'_> {
///     const BUS_MASTER_GATES_DMA: bool = true;
///
///     fn device(&self) -> &Device {
///         self.dev
///     }
///
///     fn forget(&mut self) -> Result {
///         read_poll_timeout(
///             || self.is_busy(),
///             |busy| !busy,
///             Delta::from_millis(1),
///             Delta::from_millis(100),
///         )?;
///
///         self.registers.write32(0, 0);
///         Ok(())
///     }
///
///     fn stop(&self) -> Outcome {
///         match self.is_busy() {
///             Ok(false) => Outcome::Stopped,
///             // It can't be told to stop; but see `BUS_MASTER_GATES_DMA`.
///             _ => Outcome::Unproven,
///         }
///     }
/// }
/// ```
pub unsafe trait Quiesce: Send {
    /// Whether switching bus mastering off stops the device, if all else fails. PCI only.
    const BUS_MASTER_GATES_DMA: bool = false;

    /// Returns the device that this is about.
    fn device(&self) -> &Device;

    /// Makes the device forget all addresses that it was ever given, and takes back the interrupts
    /// that it raised.
    ///
    /// Called with bus mastering off, if the device lets it be switched off: before each start, and
    /// when the driver's part is over. Context: may sleep.
    ///
    /// # Errors
    ///
    /// If the device doesn't come to rest, or isn't there; it is not started then.
    fn forget(&mut self) -> Result;

    /// Stops the device, in an orderly way.
    ///
    /// Bus mastering is still on, and is switched off afterwards. May be called when the device is
    /// stopped already, or gone; must come to an end. Context: may sleep.
    fn stop(&self) -> Outcome {
        Outcome::Unproven
    }
}

/// That a device holds no address: what it takes to switch bus mastering on.
pub(crate) struct Clean(());

/// A [`Quiesce`], and what the bus has to stop a device.
pub(super) struct Hardware<'a, Q> {
    quiesce: Q,
    #[cfg(CONFIG_PCI)]
    bus_master: Option<BusMaster<'a>>,
    dev: &'a Device<Bound>,
}

impl<'a, Q: Quiesce> Hardware<'a, Q> {
    /// # Errors
    ///
    /// [`EINVAL`] if it is about another device.
    pub(super) fn new(dev: &'a Device<Bound>, quiesce: Q) -> Result<Self> {
        if !is_same(quiesce.device(), dev) {
            return Err(EINVAL);
        }

        Ok(Self {
            quiesce,
            #[cfg(CONFIG_PCI)]
            bus_master: <&pci::Device<Bound>>::try_from(dev)
                .ok()
                .map(BusMaster::new),
            dev,
        })
    }

    /// Makes the device forget, with bus mastering off.
    fn forget(&mut self, binding: &Binding) -> Result<Clean> {
        // The PCI core switches it on by itself where it restores what it saved.
        self.cut_off(binding);
        self.quiesce.forget()?;
        Ok(Clean(()))
    }

    fn start(&mut self, binding: &Binding) -> Result {
        let clean = self.forget(binding).inspect_err(|e| {
            dev_err!(
                self.dev,
                "the device does not forget what it was told ({e:?}): not started\n"
            )
        })?;

        self.master(binding, clean);
        Ok(())
    }

    fn stop(&mut self, binding: &Binding, last: bool) -> Outcome {
        // The engine first: some devices don't take it well when they are cut off.
        let engine = self.quiesce.stop();
        let outcome = match (engine, self.cut_off(binding)) {
            (Outcome::Gone, _) | (_, Outcome::Gone) => return Outcome::Gone,
            (Outcome::Unproven, Outcome::Stopped) if !Q::BUS_MASTER_GATES_DMA => Outcome::Unproven,
            (Outcome::Unproven, gate) => gate,
            (Outcome::Stopped, _) => Outcome::Stopped,
        };

        if !last {
            return outcome;
        }

        // Whoever has the device next may switch bus mastering on as it is: so that it has stopped
        // isn't enough.
        match self.forget(binding) {
            Ok(_) => Outcome::Stopped,
            Err(e) => {
                dev_err!(
                    self.dev,
                    "the device does not forget what it was told ({e:?}): \
                     not to be used by another driver\n"
                );
                Outcome::Unproven
            }
        }
    }

    /// Switches bus mastering off, and says what that proves for a device that heeds it.
    #[cfg(CONFIG_PCI)]
    fn cut_off(&self, binding: &Binding) -> Outcome {
        self.bus_master
            .as_ref()
            .map_or(Outcome::Unproven, |bit| bit.off(&binding.command))
    }

    #[cfg(CONFIG_PCI)]
    fn master(&self, binding: &Binding, clean: Clean) {
        if let Some(bit) = &self.bus_master {
            bit.on(&binding.command, clean);
        }
    }

    #[cfg(not(CONFIG_PCI))]
    fn cut_off(&self, _binding: &Binding) -> Outcome {
        Outcome::Unproven
    }

    #[cfg(not(CONFIG_PCI))]
    fn master(&self, _binding: &Binding, _clean: Clean) {}
}

/// How to reach a [`Hardware`] of whichever type.
#[derive(Clone, Copy)]
pub(super) struct Hooks {
    hardware: NonNull<c_void>,
    start: unsafe fn(NonNull<c_void>, &Binding) -> Result,
    stop: unsafe fn(NonNull<c_void>, &Binding, bool) -> Outcome,
}

// SAFETY: A `Hardware` is `Send`, and used under a lock.
unsafe impl Send for Hooks {}

impl Hooks {
    pub(super) fn new<Q: Quiesce>(hardware: &mut Hardware<'_, Q>) -> Self {
        /// # Safety
        ///
        /// `hardware` must be a `Hardware<'_, Q>` that nobody else uses.
        unsafe fn start<Q: Quiesce>(hardware: NonNull<c_void>, binding: &Binding) -> Result {
            // SAFETY: By the safety requirements.
            unsafe { hardware.cast::<Hardware<'_, Q>>().as_mut() }.start(binding)
        }

        /// # Safety
        ///
        /// As `start`.
        unsafe fn stop<Q: Quiesce>(
            hardware: NonNull<c_void>,
            binding: &Binding,
            last: bool,
        ) -> Outcome {
            // SAFETY: By the safety requirements.
            unsafe { hardware.cast::<Hardware<'_, Q>>().as_mut() }.stop(binding, last)
        }

        Self {
            hardware: NonNull::from(hardware).cast(),
            start: start::<Q>,
            stop: stop::<Q>,
        }
    }

    /// Makes the device forget, and lets it access memory.
    ///
    /// # Safety
    ///
    /// The hardware must be there, and nobody else may use it.
    pub(super) unsafe fn start(self, binding: &Binding) -> Result {
        // SAFETY: By the safety requirements.
        unsafe { (self.start)(self.hardware, binding) }
    }

    /// Stops the device; `last` is whether it isn't started any more, and made to forget, too.
    ///
    /// # Safety
    ///
    /// As [`start`](Self::start).
    pub(super) unsafe fn stop(self, binding: &Binding, last: bool) -> Outcome {
        // SAFETY: By the safety requirements.
        unsafe { (self.stop)(self.hardware, binding, last) }
    }
}
