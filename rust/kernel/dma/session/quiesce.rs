// SPDX-License-Identifier: GPL-2.0

//! How the hardware of a device is stopped, and made to let go of all memory.

use super::super::{
    mapping::mapper::is_same,
    Constraints, //
};
use crate::{
    device::Device,
    prelude::*, //
};
use core::ptr::NonNull;

/// Whether a device was proven to have stopped.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum StopOutcome {
    /// A proof: the device accesses none of its memory until it is started.
    Stopped,
    /// A proof: the device has left the bus. If it comes back, it has been reset.
    Gone,
    /// No proof: the device may still access memory.
    Unproven,
}

/// How the hardware of a device is stopped, and made to let go of all addresses.
///
/// Implement this once for a device, in the one file of its driver that says `unsafe`, and give it
/// to [`Session::new`](super::Session::new). The session calls it at the right times. The session
/// frees memory because of what an implementation returns, so a false answer corrupts memory. Check
/// each point of the contract against the data sheet, and answer it number by number.
///
/// # Safety
///
/// *The device* is what [`device`](Self::device) returns. *Its memory* is all memory whose bus
/// address it was shown. The addresses of message-signalled interrupts don't count.
///
/// 1. `device` always returns the same device, and the implementation drives its hardware.
/// 2. After [`disarm`](Self::disarm) returned `Ok`, the device accesses none of its memory, even if
///    its bus allows it, until it is shown an address and told to use it; and then only that one.
///    No engine is at work, none is armed, and no register or queue holds an address that the
///    device would use by itself. (In the data sheet: base addresses, lengths, heads, tails, enable
///    bits, queues of commands; what a reset clears.)
/// 3. What the device wrote before `disarm` returned `Ok`, or before [`quiesce`](Self::quiesce)
///    returned [`StopOutcome::Stopped`], has arrived in memory by then. (On PCI, a read of a
///    register after the device's last write has that effect.)
/// 4. `disarm` returns an error if the device isn't there. A register that reads as all ones proves
///    nothing, since an unplugged device reads so. (In the data sheet: a register with a known
///    value.)
/// 5. After `quiesce` returned [`StopOutcome::Stopped`], the device accesses none of its memory
///    until the driver starts something, or until its bus, which keeps it from memory after this
///    call, lets it access memory again. (In the data sheet: the bit that shows that the engine is
///    idle.)
/// 6. `quiesce` returns [`StopOutcome::Gone`] only for a device that can't come back without being
///    reset. If in doubt return [`StopOutcome::Unproven`]: the bus finds out by itself.
/// 7. If [`HEEDS_BUS`](Self::HEEDS_BUS) is true, the device accesses no memory while its bus keeps
///    it from memory (on PCI: while its bus master bit is off). It sends all its requests under its
///    own requester ID, shares no engine with another function, and can be cut off in the middle of
///    its work without harm. `Documentation/rust/dma/ownership.rst` lists devices that don't.
/// 8. The hardware takes everything that [`limits`](Self::limits) allows: addresses of as many
///    bits, and pieces of memory as long, aligned and placed as it says. (In the data sheet: the
///    width of the address and length fields.)
/// 9. `disarm` and `quiesce` return in bounded time, and don't use the device's session.
///
/// # What may happen meanwhile
///
/// The device is started neither while `disarm` or `quiesce` runs, nor between a `quiesce` and the
/// next `disarm`. But interrupt handlers run, and other threads may call `Engine::poll`. Both
/// methods may be called for a device whose registers don't answer, for instance after a bus error.
///
/// # Examples
///
/// A PCI device with a bit that is set while it works, and an address register:
///
/// ```
/// # use kernel::{device::{Bound, Device}, io::{poll::read_poll_timeout, Io, Mmio, Region}};
/// # use kernel::{prelude::*, time::Delta};
/// use kernel::dma::{Constraints, DmaMask, Quiesce, StopOutcome};
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
/// // SAFETY: By the numbers of the contract:
/// // 1. The registers are those of `dev`.
/// // 2. The device starts to read when the bit at 8 is set, and only then. When it is clear, it is
/// //    done.
/// // 3. It never writes.
/// // 4. `is_busy` fails without an identification.
/// // 5. As 2.
/// // 6. `quiesce` never returns `Gone`.
/// // 7. It is a PCI function of its own, with one requester ID. It accesses nothing while its bus
/// //    master bit is off, and drops a read that is cut off.
/// // 8. The address register has 32 bits, the length register as well.
/// // 9. Both end after 100 ms at most.
/// unsafe impl Quiesce for Reader<'_> {
///     const HEEDS_BUS: bool = true;
///
///     fn device(&self) -> &Device {
///         self.dev
///     }
///
///     fn limits(&self) -> Constraints {
///         Constraints::new(DmaMask::new::<32>())
///     }
///
///     fn disarm(&mut self) -> Result {
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
///     fn quiesce(&self) -> StopOutcome {
///         match self.is_busy() {
///             Ok(false) => StopOutcome::Stopped,
///             // It can't be told to stop; but see `HEEDS_BUS`.
///             _ => StopOutcome::Unproven,
///         }
///     }
/// }
/// ```
pub unsafe trait Quiesce: Send {
    /// Whether the device accesses no memory while its bus keeps it from memory (point 7 of the
    /// contract). If so, a stop is proven even where [`quiesce`](Self::quiesce) can't tell.
    const HEEDS_BUS: bool = false;

    /// Returns the device whose hardware this stops.
    fn device(&self) -> &Device;

    /// Returns what the hardware can take (point 8 of the contract). A session refuses a device
    /// whose driver asked for more, by its [`Constraints`].
    fn limits(&self) -> Constraints;

    /// Makes the device let go of all addresses that it was ever shown, and clears the interrupts
    /// that it has raised.
    ///
    /// Called before each start, and at the end of the driver's use: unbind, failed probe,
    /// shutdown. The bus keeps the device from memory meanwhile, if it can. Context: may sleep.
    ///
    /// # Errors
    ///
    /// Any, if the device doesn't become idle, or isn't there. The device isn't started then.
    fn disarm(&mut self) -> Result;

    /// Stops the device in an orderly way, and returns whether it is idle.
    ///
    /// The bus keeps the device from memory afterwards. May be called when the device is stopped
    /// already, or gone. Context: may sleep.
    ///
    /// Without an implementation, a stop relies on [`HEEDS_BUS`](Self::HEEDS_BUS).
    fn quiesce(&self) -> StopOutcome {
        StopOutcome::Unproven
    }
}

/// The proof that a device holds no address. It takes one to let the device access memory.
pub(crate) struct Disarmed(());

/// A [`Quiesce`] of any type, on the heap.
///
/// # Invariants
///
/// `quiesce` is a `KBox<Q>` that was turned into a pointer, and the functions were made for that
/// `Q`. Whatever `Q` borrows outlives this.
pub(super) struct Hardware {
    quiesce: NonNull<c_void>,
    heeds_bus: bool,
    disarm: unsafe fn(NonNull<c_void>) -> Result,
    stop: unsafe fn(NonNull<c_void>) -> StopOutcome,
    drop: unsafe fn(NonNull<c_void>),
}

// SAFETY: A `Quiesce` is `Send`.
unsafe impl Send for Hardware {}

impl Hardware {
    /// Moves a [`Quiesce`] for `dev`, which has these constraints, to the heap.
    ///
    /// # Errors
    ///
    /// - [`EINVAL`] if it is about another device than `dev`, or the hardware can't take what the
    ///   device's `constraints` allow;
    /// - [`ENOMEM`].
    ///
    /// # Safety
    ///
    /// Whatever `Q` borrows must outlive the result.
    pub(super) unsafe fn new<Q: Quiesce>(
        dev: &Device,
        constraints: &Constraints,
        quiesce: Q,
    ) -> Result<Self> {
        /// # Safety
        ///
        /// `quiesce` must point to a `Q` that nobody else uses.
        unsafe fn disarm<Q: Quiesce>(quiesce: NonNull<c_void>) -> Result {
            // SAFETY: By the safety requirement there is a `Q`, and nobody else uses it.
            unsafe { quiesce.cast::<Q>().as_mut() }.disarm()
        }

        /// # Safety
        ///
        /// `quiesce` must point to a `Q` that nobody else uses.
        unsafe fn stop<Q: Quiesce>(quiesce: NonNull<c_void>) -> StopOutcome {
            // SAFETY: By the safety requirement there is a `Q`, and nobody else uses it.
            unsafe { quiesce.cast::<Q>().as_ref() }.quiesce()
        }

        /// # Safety
        ///
        /// `quiesce` must come from a `KBox<Q>`, and not be used afterwards.
        unsafe fn free<Q>(quiesce: NonNull<c_void>) {
            // SAFETY: By the safety requirement it comes from a `KBox<Q>`, and isn't used
            // afterwards.
            drop(unsafe { KBox::<Q>::from_raw(quiesce.as_ptr().cast()) });
        }

        if !is_same(quiesce.device(), dev) {
            return Err(EINVAL);
        }

        if !constraints.are_within(&quiesce.limits()) {
            dev_err!(
                dev,
                "its dma_constraints() allow more than the hardware takes, by its Quiesce\n"
            );
            return Err(EINVAL);
        }

        let quiesce = KBox::into_raw(KBox::new(quiesce, GFP_KERNEL)?);

        // INVARIANT: The functions are for a `Q`. What it borrows outlives the result, by the
        // safety requirement.
        Ok(Self {
            // SAFETY: A box isn't null.
            quiesce: unsafe { NonNull::new_unchecked(quiesce.cast()) },
            heeds_bus: Q::HEEDS_BUS,
            disarm: disarm::<Q>,
            stop: stop::<Q>,
            drop: free::<Q>,
        })
    }

    /// Whether the device stops when its bus keeps it from memory.
    pub(super) fn heeds_bus(&self) -> bool {
        self.heeds_bus
    }

    /// Makes the device let go of all addresses.
    pub(super) fn disarm(&mut self) -> Result<Disarmed> {
        // SAFETY: By the type invariants there is a `Q`; `&mut self` excludes other users.
        unsafe { (self.disarm)(self.quiesce) }?;

        Ok(Disarmed(()))
    }

    /// Stops the device.
    pub(super) fn quiesce(&mut self) -> StopOutcome {
        // SAFETY: By the type invariants there is a `Q`; `&mut self` excludes other users.
        unsafe { (self.stop)(self.quiesce) }
    }
}

impl Drop for Hardware {
    fn drop(&mut self) {
        // SAFETY: By the type invariants it comes from a `KBox<Q>`; `self` is not used afterwards.
        unsafe { (self.drop)(self.quiesce) };
    }
}
