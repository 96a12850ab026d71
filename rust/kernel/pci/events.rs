// SPDX-License-Identifier: GPL-2.0

//! What happens to a function while a driver is bound to it: sleep, resets, errors, shutdown.
//!
//! Each of these would find the device at work, and leave it with bus mastering on, off or on
//! again. So for a [`DmaDriver`], the device's [`Session`](crate::dma::Session) is stopped before,
//! and started afterwards if the driver can go on. Other drivers have none of these callbacks: for
//! them, the PCI core does what it always did.
//!
//! C headers: [`include/linux/pci.h`](srctree/include/linux/pci.h),
//! [`include/linux/pm.h`](srctree/include/linux/pm.h)

use super::{
    bus_master::BusMaster,
    Device,
    DmaAdapter,
    DmaDriver, //
};
use crate::{
    bindings,
    container_of,
    device::{
        self,
        Bound, //
    },
    dma::session,
    error::from_result,
    prelude::*, //
};

type CoreDevice = Device<device::CoreInternal<'static>>;

impl<T: DmaDriver> DmaAdapter<T> {
    /// Hooks the events in.
    pub(super) fn attach_events(pdrv: &mut bindings::pci_driver) {
        pdrv.shutdown = Some(Self::shutdown_callback);
        pdrv.err_handler = &Self::ERROR_HANDLERS;

        // Without a driver that can go on, the PCI core does what it does for drivers that know
        // nothing of sleep; the session refuses.
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

        T::resume(pdev, data).or_else(|e| {
            // Better stopped than half set up. If it fails since somebody has stopped the device
            // meanwhile, it is up to them.
            if !session::give_up(pdev.as_ref()) {
                return Ok(());
            }

            dev_err!(pdev, "the driver does not go on after a stop ({e:?})\n");
            Err(e)
        })
    }

    /// # Safety
    ///
    /// To be called by the PCI core, with a function that a driver of this adapter is bound to.
    unsafe extern "C" fn suspend_callback(dev: *mut bindings::device) -> c_int {
        // SAFETY: Called by the PCI core with a function that our driver is bound to.
        let pdev = unsafe { from_device(dev) };

        from_result(|| {
            session::pause(pdev.as_ref()).inspect_err(|_| {
                // It isn't told that nothing comes of it.
                let _ = Self::resume(pdev, session::resume);
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
            Self::resume(pdev, session::resume)?;
            Ok(0)
        })
    }

    /// # Safety
    ///
    /// To be called by the PCI core, with a function that a driver of this adapter is bound to.
    unsafe extern "C" fn shutdown_callback(pdev: *mut bindings::pci_dev) {
        // SAFETY: Called by the PCI core with a function that our driver is bound to.
        let pdev = unsafe { from_pci_dev(pdev) };

        session::finish(pdev.as_ref());
    }

    /// # Safety
    ///
    /// To be called by the PCI core, with a function that a driver of this adapter is bound to.
    unsafe extern "C" fn reset_prepare_callback(pdev: *mut bindings::pci_dev) {
        // SAFETY: Called by the PCI core with a function that our driver is bound to.
        let pdev = unsafe { from_pci_dev(pdev) };

        // The reset can't be refused.
        let _ = session::pause(pdev.as_ref());
    }

    /// # Safety
    ///
    /// To be called by the PCI core, with a function that a driver of this adapter is bound to.
    unsafe extern "C" fn reset_done_callback(pdev: *mut bindings::pci_dev) {
        // SAFETY: Called by the PCI core with a function that our driver is bound to.
        let pdev = unsafe { from_pci_dev(pdev) };

        // It is reported where it happens; the device stays stopped.
        let _ = Self::resume(pdev, session::resume);
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
            session::finish(pdev.as_ref());
            return bindings::pci_ers_result_PCI_ERS_RESULT_DISCONNECT;
        }

        session::error_begins(pdev.as_ref());

        bindings::pci_ers_result_PCI_ERS_RESULT_NEED_RESET
    }

    /// # Safety
    ///
    /// To be called by the PCI core, with a function that a driver of this adapter is bound to.
    unsafe extern "C" fn slot_reset_callback(
        pdev: *mut bindings::pci_dev,
    ) -> bindings::pci_ers_result_t {
        // SAFETY: Called by the PCI core with a function that our driver is bound to.
        let bit = BusMaster::find(unsafe { from_pci_dev(pdev) });
        // Both write the command register.
        let _command = bit.as_ref().map(|bit| bit.exclude());

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
        let _ = Self::resume(pdev, session::error_ends);
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

#[cfg(CONFIG_RUST_DMA_KUNIT_TEST)]
#[macros::kunit_tests(rust_pci_events)]
mod tests {
    use super::*;
    use crate::{
        device_id::IdArray,
        dma::{
            fixture::ensure,
            Constraints, //
        },
        driver,
        pci,
        ThisModule, //
    };

    /// No function has this class.
    static NOTHING: IdArray<pci::DeviceId, (), 1> =
        IdArray::new([(pci::DeviceId::from_class(0xfe_dcba, 0xff_ffff), &())]);

    /// A driver without DMA, or one that can go on after a stop, or can't.
    struct Nothing<const RESUMES: bool>;

    impl pci::Driver for Nothing<false> {
        type IdInfo = ();
        type Data<'bound> = ();
        const ID_TABLE: pci::IdTable<()> = &NOTHING;

        fn probe<'bound>(
            _dev: &'bound Device<device::Core<'_>>,
            _info: Option<&'bound ()>,
        ) -> impl PinInit<(), Error> + 'bound {
            Err::<(), _>(ENODEV)
        }
    }

    impl<const RESUMES: bool> DmaDriver for Nothing<RESUMES> {
        type IdInfo = ();
        type Data<'bound> = ();
        const ID_TABLE: pci::IdTable<()> = &NOTHING;
        const RESUMES: bool = RESUMES;

        fn dma_constraints(_dev: &Device, _info: Option<&()>) -> Result<Constraints> {
            Err(ENODEV)
        }

        fn probe<'bound>(
            _dev: &Device<device::Core<'bound>>,
            _info: Option<&'bound ()>,
        ) -> impl PinInit<(), Error> {
            Err::<(), _>(ENODEV)
        }
    }

    /// Registers the driver, and returns which callbacks the PCI core then knows: for shutdown, for
    /// errors, for sleep.
    fn callbacks<T>() -> Result<[bool; 3]>
    where
        T: driver::RegistrationOps<DriverType = bindings::pci_driver> + 'static,
    {
        // SAFETY: A null pointer stands for built-in code.
        static MODULE: ThisModule = unsafe { ThisModule::from_ptr(core::ptr::null_mut()) };

        const NAME: &CStr = c"rust_pci_events";

        let _registration =
            KBox::pin_init(driver::Registration::<T>::new(NAME, &MODULE), GFP_KERNEL)?;

        // SAFETY: The name is a valid C string, the bus is registered.
        let found =
            unsafe { bindings::driver_find(NAME.as_char_ptr(), &raw const bindings::pci_bus_type) };

        ensure!(!found.is_null());

        // SAFETY: A driver of the PCI bus is embedded in a `struct pci_driver`. This is the one
        // that was just registered, and stays so.
        let driver = unsafe { &*container_of!(found, bindings::pci_driver, driver) };

        Ok([
            driver.shutdown.is_some(),
            !driver.err_handler.is_null(),
            !driver.driver.pm.is_null(),
        ])
    }

    /// A driver without DMA has no callbacks. One with DMA has those that it takes.
    #[test]
    fn callbacks_for_who_asks() -> Result {
        ensure!(callbacks::<pci::Adapter<Nothing<false>>>()? == [false; 3]);
        ensure!(callbacks::<DmaAdapter<Nothing<false>>>()? == [true, true, false]);
        ensure!(callbacks::<DmaAdapter<Nothing<true>>>()? == [true; 3]);
        Ok(())
    }
}
