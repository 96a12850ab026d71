// SPDX-License-Identifier: GPL-2.0

//! What happens to a function while a driver is bound to it: sleep, resets, errors, shutdown.
//!
//! Each of these would find the device at work, and leave it with bus mastering on, off or on
//! again. So the device's [`Enclosure`](crate::dma::Enclosure) is stopped before, and started
//! afterwards if the driver can go on ([`Driver::RESUMES`]); only such drivers take part in suspend
//! and in the recovery from bus errors. Drivers without a `dma_setup()` see nothing of it.
//!
//! C headers: [`include/linux/pci.h`](srctree/include/linux/pci.h),
//! [`include/linux/pm.h`](srctree/include/linux/pm.h)

use super::{
    bus_master,
    Adapter,
    Device,
    Driver, //
};
use crate::{
    bindings,
    container_of,
    device::{
        self,
        Bound, //
    },
    dma::enclosure,
    error::from_result,
    prelude::*, //
};

type CoreDevice = Device<device::CoreInternal<'static>>;

impl<T: Driver> Adapter<T> {
    /// Hooks the events in.
    pub(super) fn attach_events(pdrv: &mut bindings::pci_driver) {
        pdrv.shutdown = Some(Self::shutdown_callback);
        pdrv.err_handler = &Self::ERROR_HANDLERS;

        // Without a driver that can go on, the PCI core does what it does for drivers that know
        // nothing of sleep; the enclosure refuses.
        if T::RESUMES {
            pdrv.driver.pm = &Self::PM_OPS;
        }
    }

    const PM_OPS: bindings::dev_pm_ops = bindings::dev_pm_ops {
        suspend: Some(Self::suspend_callback),
        resume: Some(Self::resume_callback),
        freeze: Some(Self::suspend_callback),
        thaw: Some(Self::resume_callback),
        poweroff: Some(Self::suspend_callback),
        restore: Some(Self::resume_callback),
        ..pin_init::zeroed()
    };

    const ERROR_HANDLERS: bindings::pci_error_handlers = {
        let resets = bindings::pci_error_handlers {
            reset_prepare: Some(Self::reset_prepare_callback),
            reset_done: Some(Self::reset_done_callback),
            ..pin_init::zeroed()
        };

        if T::RESUMES {
            bindings::pci_error_handlers {
                error_detected: Some(Self::error_detected_callback),
                slot_reset: Some(Self::slot_reset_callback),
                resume: Some(Self::error_resume_callback),
                ..resets
            }
        } else {
            resets
        }
    };

    /// Starts the device if it ran before the event, which is `over`, and tells the driver.
    fn resume(pdev: &CoreDevice, over: fn(&device::Device<Bound>) -> Result<bool>) -> Result {
        if !over(pdev.as_ref())? {
            return Ok(());
        }

        // SAFETY: Events happen to devices that are bound, with the device locked or in a phase in
        // which it isn't unbound: the driver's data was set by the probe.
        let data = unsafe { pdev.as_ref().drvdata_borrow::<T::Data<'_>>() };

        T::resume(pdev, data).inspect_err(|e| {
            dev_err!(pdev, "the driver does not go on after a stop ({e:?})\n");
            // Better stopped than half set up.
            enclosure::finish(pdev.as_ref());
        })
    }

    /// # Safety
    ///
    /// To be called by the PCI core, with a function that a driver of this adapter is bound to.
    unsafe extern "C" fn suspend_callback(dev: *mut bindings::device) -> c_int {
        // SAFETY: Called by the PCI core with a function that our driver is bound to.
        let pdev = unsafe { from_device(dev) };

        from_result(|| {
            enclosure::pause(pdev.as_ref()).inspect_err(|_| {
                // It isn't told that nothing comes of it.
                let _ = Self::resume(pdev, enclosure::resume);
            })?;
            Ok(0)
        })
    }

    /// # Safety
    ///
    /// To be called by the PCI core, with a function that a driver of this adapter is bound to.
    unsafe extern "C" fn resume_callback(dev: *mut bindings::device) -> c_int {
        // SAFETY: Called by the PCI core with a function that our driver is bound to.
        let pdev = unsafe { from_device(dev) };

        from_result(|| {
            Self::resume(pdev, enclosure::resume)?;
            Ok(0)
        })
    }

    /// # Safety
    ///
    /// To be called by the PCI core, with a function that a driver of this adapter is bound to.
    unsafe extern "C" fn shutdown_callback(pdev: *mut bindings::pci_dev) {
        // SAFETY: Called by the PCI core with a function that our driver is bound to.
        let pdev = unsafe { from_pci_dev(pdev) };

        enclosure::finish(pdev.as_ref());
    }

    /// # Safety
    ///
    /// To be called by the PCI core, with a function that a driver of this adapter is bound to.
    unsafe extern "C" fn reset_prepare_callback(pdev: *mut bindings::pci_dev) {
        // SAFETY: Called by the PCI core with a function that our driver is bound to.
        let pdev = unsafe { from_pci_dev(pdev) };

        // The reset can't be refused.
        let _ = enclosure::pause(pdev.as_ref());
    }

    /// # Safety
    ///
    /// To be called by the PCI core, with a function that a driver of this adapter is bound to.
    unsafe extern "C" fn reset_done_callback(pdev: *mut bindings::pci_dev) {
        // SAFETY: Called by the PCI core with a function that our driver is bound to.
        let pdev = unsafe { from_pci_dev(pdev) };

        // It is reported where it happens; the device stays stopped.
        let _ = Self::resume(pdev, enclosure::resume);
    }

    /// # Safety
    ///
    /// To be called by the PCI core, with a function that a driver of this adapter is bound to.
    unsafe extern "C" fn error_detected_callback(
        pdev: *mut bindings::pci_dev,
        state: bindings::pci_channel_state_t,
    ) -> bindings::pci_ers_result_t {
        // SAFETY: Called by the PCI core with a function that our driver is bound to.
        let pdev = unsafe { from_pci_dev(pdev) };

        if state == bindings::pci_channel_io_perm_failure {
            enclosure::finish(pdev.as_ref());
            return bindings::pci_ers_result_PCI_ERS_RESULT_DISCONNECT;
        }

        enclosure::error_begins(pdev.as_ref());

        bindings::pci_ers_result_PCI_ERS_RESULT_NEED_RESET
    }

    /// # Safety
    ///
    /// To be called by the PCI core, with a function that a driver of this adapter is bound to.
    unsafe extern "C" fn slot_reset_callback(
        pdev: *mut bindings::pci_dev,
    ) -> bindings::pci_ers_result_t {
        // Both write the command register.
        //
        // SAFETY: Called by the PCI core with a function that our driver is bound to.
        let _command = bus_master::exclude(unsafe { from_pci_dev(pdev) });

        // What was saved may have been so before the driver enabled the device. It has bus
        // mastering off: see `BusMaster::off()`.
        //
        // SAFETY: Called by the PCI core with a function that our driver is bound to.
        let enabled = unsafe {
            bindings::pci_restore_state(pdev);
            bindings::pci_reenable_device(pdev)
        };

        if enabled == 0 {
            bindings::pci_ers_result_PCI_ERS_RESULT_RECOVERED
        } else {
            bindings::pci_ers_result_PCI_ERS_RESULT_DISCONNECT
        }
    }

    /// # Safety
    ///
    /// To be called by the PCI core, with a function that a driver of this adapter is bound to.
    unsafe extern "C" fn error_resume_callback(pdev: *mut bindings::pci_dev) {
        // SAFETY: Called by the PCI core with a function that our driver is bound to.
        let pdev = unsafe { from_pci_dev(pdev) };

        // It is reported where it happens; the device stays stopped.
        let _ = Self::resume(pdev, enclosure::error_ends);
    }
}

/// The driver's part is over, or its probe has failed: stops the device, and drops what the driver
/// gave to it.
///
/// Called while the device still owns its DMA and its power. Context: may sleep.
pub(super) fn end(pdev: &Device<device::CoreInternal<'_>>) {
    if !enclosure::end(pdev.as_ref()) {
        // It may go on, also to interrupt. Not before, since who frees MSI vectors switches legacy
        // interrupts on.
        bus_master::silence(pdev);
    }
}

/// # Safety
///
/// `pdev` must be a valid function that a driver is bound to, for as long as the result is used.
unsafe fn from_pci_dev<'a>(pdev: *mut bindings::pci_dev) -> &'a CoreDevice {
    // SAFETY: By the safety requirements; a `Device` is a transparent wrapper.
    unsafe { &*pdev.cast::<CoreDevice>() }
}

/// # Safety
///
/// As [`from_pci_dev`], of its `struct device`.
unsafe fn from_device<'a>(dev: *mut bindings::device) -> &'a CoreDevice {
    // SAFETY: By the safety requirements: it is embedded in a `struct pci_dev`.
    unsafe { from_pci_dev(container_of!(dev, bindings::pci_dev, dev)) }
}
