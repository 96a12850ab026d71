// SPDX-License-Identifier: GPL-2.0

//! Drivers of platform devices that do DMA.
//!
//! C header: [`include/linux/platform_device.h`](srctree/include/linux/platform_device.h)

use super::Device;
use crate::{
    acpi,
    bindings,
    device::{
        Core,
        CoreInternal, //
    },
    dma::{
        session,
        Constraints, //
    },
    driver,
    error::{
        from_result,
        to_result, //
    },
    of,
    prelude::*,
    types::Opaque,
    ThisModule, //
};

/// The driver of a platform device that does DMA.
///
/// It differs from a [`platform::Driver`](super::Driver) in this:
///
/// - The driver says by [`dma_constraints`](Self::dma_constraints) how the device addresses memory.
///   The bus sets the masks before [`probe`](Self::probe), which gets the permission to map by
///   [`dma::Mapper::get`](crate::dma::Mapper::get).
/// - The bus stops the device's [`dma::Session`](crate::dma::Session) before the device is unbound,
///   when its probe fails, and on shutdown. The system doesn't suspend while the device runs.
/// - The driver's data is dropped while the device may still be used, so it may own mapped memory.
///   It may also borrow the device ([`device::Device::bound`](crate::device::Device::bound)):
///   `'bound` ends when the device is unbound.
///
/// For an example see [`pci::DmaDriver`](crate::pci::DmaDriver), which is used the same way.
pub trait DmaDriver {
    /// The type holding information about each device id supported by the driver.
    type IdInfo: 'static;

    /// The type of the driver's data of a bound device.
    ///
    /// The bus drops it after [`unbind`](Self::unbind), when the device was stopped, and before
    /// the device loses its DMA and its power.
    type Data<'bound>: Send + 'bound;

    /// The table of OF device ids supported by the driver.
    const OF_ID_TABLE: Option<of::IdTable<Self::IdInfo>> = None;

    /// The table of ACPI device ids supported by the driver.
    const ACPI_ID_TABLE: Option<acpi::IdTable<Self::IdInfo>> = None;

    /// Returns how the device addresses memory.
    ///
    /// Called before [`probe`](Self::probe), which fails if this does, or if the platform can't
    /// serve the result. The reference says nothing about the device being bound, so nothing can be
    /// mapped with it. Context: may sleep.
    fn dma_constraints(dev: &Device, id_info: Option<&Self::IdInfo>) -> Result<Constraints>;

    /// Brings up a device that was found. See [`platform::Driver::probe`](super::Driver::probe).
    ///
    /// `'bound` is how long the device stays bound; the reference itself is for this call only.
    fn probe<'bound>(
        dev: &Device<Core<'bound>>,
        id_info: Option<&'bound Self::IdInfo>,
    ) -> impl PinInit<Self::Data<'bound>, Error>;

    /// Says goodbye to a device that is about to be unbound. See
    /// [`platform::Driver::unbind`](super::Driver::unbind).
    ///
    /// The device isn't stopped yet, and need not be: the bus does that afterwards.
    fn unbind<'bound>(dev: &Device<Core<'bound>>, this: Pin<&Self::Data<'bound>>) {
        let _ = (dev, this);
    }
}

/// An adapter for the registration of platform drivers whose devices do DMA.
pub struct DmaAdapter<T: DmaDriver>(T);

// SAFETY:
// - `bindings::platform_driver` is a C type declared as `repr(C)`.
// - `T::Data` is the type of the driver's device private data.
// - `struct platform_driver` embeds a `struct device_driver`.
// - `DEVICE_DRIVER_OFFSET` is the correct byte offset to the embedded `struct device_driver`.
unsafe impl<T: DmaDriver> driver::DriverLayout for DmaAdapter<T> {
    type DriverType = bindings::platform_driver;
    type DriverData<'bound> = T::Data<'bound>;
    const DEVICE_DRIVER_OFFSET: usize = core::mem::offset_of!(Self::DriverType, driver);
}

// SAFETY: A call to `unregister` for a given instance of `DriverType` is guaranteed to be valid if
// a preceding call to `register` has been successful.
unsafe impl<T: DmaDriver> driver::RegistrationOps for DmaAdapter<T> {
    unsafe fn register(
        pdrv: &Opaque<Self::DriverType>,
        name: &'static CStr,
        module: &'static ThisModule,
    ) -> Result {
        // SAFETY: The driver isn't registered yet, so nobody else uses the structure.
        let fields = unsafe { &mut *pdrv.get() };

        fields.probe = Some(Self::probe_callback);
        fields.remove = Some(Self::remove_callback);
        fields.shutdown = Some(Self::shutdown_callback);
        fields.driver.name = name.as_char_ptr();
        fields.driver.of_match_table = T::OF_ID_TABLE.map_or(core::ptr::null(), |t| t.as_ptr());
        fields.driver.acpi_match_table = T::ACPI_ID_TABLE.map_or(core::ptr::null(), |t| t.as_ptr());

        // SAFETY: `pdrv` is a valid `struct platform_driver`, which stays where it is until it is
        // unregistered, by the safety requirements of this function.
        to_result(unsafe {
            bindings::__platform_driver_register(pdrv.get(), module.as_ptr(), name.as_char_ptr())
        })
    }

    unsafe fn unregister(pdrv: &Opaque<Self::DriverType>) {
        // SAFETY: `pdrv` was registered, by the safety requirements of this function.
        unsafe { bindings::platform_driver_unregister(pdrv.get()) };
    }
}

impl<T: DmaDriver> driver::Adapter for DmaAdapter<T> {
    type IdInfo = T::IdInfo;

    fn of_id_table() -> Option<of::IdTable<Self::IdInfo>> {
        T::OF_ID_TABLE
    }

    fn acpi_id_table() -> Option<acpi::IdTable<Self::IdInfo>> {
        T::ACPI_ID_TABLE
    }
}

impl<T: DmaDriver> DmaAdapter<T> {
    extern "C" fn probe_callback(pdev: *mut bindings::platform_device) -> c_int {
        // SAFETY: The platform bus calls this with a valid pointer to a `struct platform_device`,
        // of which a `Device` is a transparent wrapper. It stays valid until the callback returns.
        let pdev = unsafe { &*pdev.cast::<Device<CoreInternal<'_>>>() };

        // SAFETY: What matched is an entry of one of the tables, whose data are of the type
        // `T::IdInfo`.
        let info = unsafe { <Self as driver::Adapter>::id_info(pdev.as_ref()) };

        from_result(|| {
            Self::probe(pdev, info).inspect_err(|_| Self::end(pdev))?;
            Ok(0)
        })
    }

    fn probe<'bound>(
        pdev: &Device<CoreInternal<'bound>>,
        info: Option<&'bound T::IdInfo>,
    ) -> Result {
        let constraints = T::dma_constraints(pdev, info)?;

        session::prepare(pdev.as_ref(), constraints, false, None)?;
        pdev.as_ref().set_drvdata(T::probe(pdev, info))
    }

    extern "C" fn remove_callback(pdev: *mut bindings::platform_device) {
        // SAFETY: As in `probe_callback()`.
        let pdev = unsafe { &*pdev.cast::<Device<CoreInternal<'_>>>() };

        Self::remove(pdev);
    }

    fn remove<'bound>(pdev: &Device<CoreInternal<'bound>>) {
        // SAFETY: The platform bus removes only what was probed, so `probe()` has stored a
        // `T::Data`, which is taken below.
        let data = unsafe { pdev.as_ref().drvdata_borrow::<T::Data<'bound>>() };

        T::unbind(pdev, data);
        Self::end(pdev);

        // What it owns may be mapped, and must be unmapped while the device has its DMA.
        //
        // SAFETY: As above. Nobody borrows it any more: this is the last callback.
        drop(unsafe { pdev.as_ref().drvdata_obtain::<T::Data<'bound>>() });
    }

    /// The driver's part is over, or its probe has failed: stops the device, and drops what the
    /// driver gave to it.
    ///
    /// Called while the device still has its DMA and its power. Context: may sleep.
    fn end(pdev: &Device<CoreInternal<'_>>) {
        session::end(pdev.as_ref());
    }

    extern "C" fn shutdown_callback(pdev: *mut bindings::platform_device) {
        // SAFETY: As in `probe_callback()`; the device is bound.
        let pdev = unsafe { &*pdev.cast::<Device<CoreInternal<'_>>>() };

        session::finish(pdev.as_ref());
    }
}

/// Declares a kernel module with one driver of platform devices that do DMA.
///
/// # Examples
///
/// ```ignore
/// kernel::module_platform_dma_driver! {
///     type: MyDriver,
///     name: "Module name",
///     authors: ["Author name"],
///     description: "Description",
///     license: "GPL v2",
/// }
/// ```
#[macro_export]
macro_rules! module_platform_dma_driver {
    ($($f:tt)*) => {
        $crate::module_driver!(<T>, $crate::platform::DmaAdapter<T>, { $($f)* });
    };
}
