// SPDX-License-Identifier: GPL-2.0

//! Drivers of PCI devices that do DMA.
//!
//! A PCI device that does DMA needs more from its bus than [`Driver`](super::Driver) gives: its
//! masks must be set before anything can be mapped, bus mastering must be off while the device
//! still knows addresses of an earlier owner, and whatever ends or interrupts the driver's work
//! must stop the device first. A driver that implements [`DmaDriver`] instead leaves all of that to
//! the bus.
//!
//! C header: [`include/linux/pci.h`](srctree/include/linux/pci.h)

use super::{
    bus_master::BusMaster,
    Device,
    DeviceId,
    IdTable, //
};
use crate::{
    bindings,
    device::{
        Core,
        CoreInternal, //
    },
    device_id::RawDeviceIdIndex,
    dma::{
        session,
        Constraints, //
    },
    driver,
    error::{
        from_result,
        to_result, //
    },
    prelude::*,
    types::Opaque,
    ThisModule, //
};

/// The driver of a PCI device that does DMA.
///
/// It differs from a [`pci::Driver`](super::Driver) in this:
///
/// - The driver says by [`dma_constraints`](Self::dma_constraints) how the device addresses memory.
///   The bus sets the masks before [`probe`](Self::probe), which gets the permission to map by
///   [`dma::Mapper::get`](crate::dma::Mapper::get).
/// - Bus mastering belongs to the device's [`dma::Session`](crate::dma::Session): it is off until
///   the session is started. [`Device::set_master`] refuses.
/// - The bus stops the device before it is unbound, when its probe fails, on shutdown, and before a
///   reset; and before a suspend, or when the bus reports an error, if the driver can go on
///   afterwards ([`RESUMES`](Self::RESUMES)).
/// - The driver's data is dropped while the device still has its DMA, so it may own mapped memory.
///   It may also borrow the device ([`Device::bound`]): `'bound` ends when the device is unbound.
///
/// # Examples
///
/// A driver that keeps a session as its data, which borrows the device. `Copier` says how the
/// hardware is told of a transfer, and `Stopper` how it is stopped:
///
/// ```
/// # use kernel::{device::{Bound, Core, Device}, new_mutex, pci, prelude::*, sync::Mutex};
/// use kernel::dma::{
///     transfer::{Engine, TransferSlot},
///     Constraints, DmaMask, Mapper, Quiesce, Session,
/// };
/// # use kernel::dma::transfer::{Progress, Request};
/// #
/// # const CONSTRAINTS: Constraints = Constraints::new(DmaMask::new::<64>());
/// #
/// # struct Copier<'a>(&'a Device<Bound>);
/// #
/// # // SAFETY: It never starts anything.
/// # unsafe impl Engine for Copier<'_> {
/// #     type Target = ();
/// #     fn device(&self) -> &Device { self.0 }
/// #     fn start(&mut self, _request: Request<'_, ()>) -> Result { Err(EIO) }
/// #     fn poll(&mut self) -> Result<Progress> { Err(EIO) }
/// # }
/// #
/// # struct Stopper<'a>(&'a Device<Bound>);
/// #
/// # // SAFETY: The device is never told to access memory.
/// # unsafe impl Quiesce for Stopper<'_> {
/// #     fn device(&self) -> &Device { self.0 }
/// #     fn limits(&self) -> Constraints { CONSTRAINTS }
/// #     fn disarm(&mut self) -> Result { Ok(()) }
/// # }
///
/// struct MyDriver;
///
/// struct MyData<'bound> {
///     session: Session<'bound, Mutex<TransferSlot<'bound, Copier<'bound>, KVec<u8>>>>,
/// }
///
/// kernel::pci_device_table!(
///     PCI_TABLE,
///     <MyDriver as pci::DmaDriver>::IdInfo,
///     [(pci::DeviceId::from_id(pci::Vendor::REDHAT, 0x5), ())]
/// );
///
/// impl pci::DmaDriver for MyDriver {
///     type IdInfo = ();
///     type Data<'bound> = MyData<'bound>;
///     const ID_TABLE: pci::IdTable<Self::IdInfo> = &PCI_TABLE;
///
///     fn dma_constraints(_dev: &pci::Device, _info: Option<&()>) -> Result<Constraints> {
///         Ok(Constraints::new(DmaMask::new::<64>()))
///     }
///
///     fn probe<'bound>(
///         dev: &pci::Device<Core<'bound>>,
///         _info: Option<&'bound ()>,
///     ) -> impl PinInit<Self::Data<'bound>, Error> {
///         pin_init::pin_init_scope(move || {
///             dev.enable_device_mem()?;
///
///             let bound = dev.bound().as_ref();
///             let slot = TransferSlot::new(Mapper::get(bound)?, Copier(bound))?;
///             let session = Session::new(dev.as_ref(), Stopper(bound), new_mutex!(slot))?;
///
///             // From here on the device can reach memory.
///             session.start()?;
///
///             Ok(Ok::<_, Error>(MyData { session }))
///         })
///     }
/// }
/// ```
pub trait DmaDriver {
    /// The type holding information about each device id supported by the driver.
    type IdInfo: 'static;

    /// The type of the driver's data of a bound device.
    ///
    /// The bus drops it after [`unbind`](Self::unbind), when the device was stopped, and before
    /// the device loses its DMA and its power.
    type Data<'bound>: Send + 'bound;

    /// The table of device ids supported by the driver.
    const ID_TABLE: IdTable<Self::IdInfo>;

    /// Whether the driver can go on after a suspend, a reset, or a bus error.
    ///
    /// If so, the bus starts the device's session again afterwards, and calls
    /// [`resume`](Self::resume). If not, the device stays stopped after a reset until it is bound
    /// again, the system doesn't suspend while the device runs, and the driver takes no part in the
    /// recovery from bus errors.
    const RESUMES: bool = false;

    /// Returns how the device addresses memory.
    ///
    /// Called before [`probe`](Self::probe), which fails if this does, or if the platform can't
    /// serve the result. The reference says nothing about the device being bound, so nothing can be
    /// mapped with it. Context: may sleep.
    fn dma_constraints(dev: &Device, id_info: Option<&Self::IdInfo>) -> Result<Constraints>;

    /// Brings up a device that was found. See [`pci::Driver::probe`](super::Driver::probe).
    ///
    /// `'bound` is how long the device stays bound; the reference itself is for this call only.
    fn probe<'bound>(
        dev: &Device<Core<'bound>>,
        id_info: Option<&'bound Self::IdInfo>,
    ) -> impl PinInit<Self::Data<'bound>, Error>;

    /// Tells the device what it needs to go on: it was stopped, and has been started again with
    /// nothing left of what it was told.
    ///
    /// Called for drivers that can go on ([`RESUMES`](Self::RESUMES)). Other threads may use the
    /// device already. If it fails, the device is stopped for good, unless another thread has
    /// stopped it meanwhile. Context: may sleep.
    fn resume<'bound>(dev: &Device<Core<'bound>>, this: Pin<&Self::Data<'bound>>) -> Result {
        let _ = (dev, this);

        Ok(())
    }

    /// Says goodbye to a device that is about to be unbound. See
    /// [`pci::Driver::unbind`](super::Driver::unbind).
    ///
    /// The device isn't stopped yet, and need not be: the bus does that afterwards.
    fn unbind<'bound>(dev: &Device<Core<'bound>>, this: Pin<&Self::Data<'bound>>) {
        let _ = (dev, this);
    }
}

/// An adapter for the registration of PCI drivers whose devices do DMA.
pub struct DmaAdapter<T: DmaDriver>(T);

// SAFETY:
// - `bindings::pci_driver` is a C type declared as `repr(C)`.
// - `T::Data` is the type of the driver's device private data.
// - `struct pci_driver` embeds a `struct device_driver`.
// - `DEVICE_DRIVER_OFFSET` is the correct byte offset to the embedded `struct device_driver`.
unsafe impl<T: DmaDriver> driver::DriverLayout for DmaAdapter<T> {
    type DriverType = bindings::pci_driver;
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

        fields.name = name.as_char_ptr();
        fields.probe = Some(Self::probe_callback);
        fields.remove = Some(Self::remove_callback);
        fields.id_table = T::ID_TABLE.as_ptr();
        Self::attach_events(fields);

        // SAFETY: `pdrv` is a valid `struct pci_driver`, which stays where it is until it is
        // unregistered, by the safety requirements of this function.
        to_result(unsafe {
            bindings::__pci_register_driver(pdrv.get(), module.as_ptr(), name.as_char_ptr())
        })
    }

    unsafe fn unregister(pdrv: &Opaque<Self::DriverType>) {
        // SAFETY: `pdrv` was registered, by the safety requirements of this function.
        unsafe { bindings::pci_unregister_driver(pdrv.get()) }
    }
}

impl<T: DmaDriver> DmaAdapter<T> {
    extern "C" fn probe_callback(
        pdev: *mut bindings::pci_dev,
        id: *const bindings::pci_device_id,
    ) -> c_int {
        // SAFETY: The PCI bus calls this with a valid pointer to a `struct pci_dev`, of which a
        // `Device` is a transparent wrapper. It stays valid until the callback returns.
        let pdev = unsafe { &*pdev.cast::<Device<CoreInternal<'_>>>() };

        // SAFETY: `DeviceId` is a transparent wrapper of `struct pci_device_id`.
        let id = unsafe { &*id.cast::<DeviceId>() };

        // SAFETY: `id` is an entry of `T::ID_TABLE`, whose data are of the type `T::IdInfo`; or it
        // matches any device, or is a dynamic one, which have no data or that of an entry.
        let info = unsafe { id.info_unchecked_opt::<T::IdInfo>() };

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
        let switch = BusMaster::claim(pdev)?;

        session::prepare(pdev.as_ref(), constraints, T::RESUMES, Some(switch))?;
        pdev.as_ref().set_drvdata(T::probe(pdev, info))
    }

    extern "C" fn remove_callback(pdev: *mut bindings::pci_dev) {
        // SAFETY: As in `probe_callback()`.
        let pdev = unsafe { &*pdev.cast::<Device<CoreInternal<'_>>>() };

        Self::remove(pdev);
    }

    fn remove<'bound>(pdev: &Device<CoreInternal<'bound>>) {
        // SAFETY: The PCI bus removes only what was probed, so `probe()` has stored a `T::Data`,
        // which is taken below.
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
        if session::end(pdev.as_ref()) {
            return;
        }

        // It may go on, also to interrupt. Not before, since who frees MSI vectors switches legacy
        // interrupts on.
        if let Some(bit) = BusMaster::find(pdev) {
            bit.silence();
        }
    }
}

/// Declares a kernel module with one driver of PCI devices that do DMA.
///
/// # Examples
///
/// ```ignore
/// kernel::module_pci_dma_driver! {
///     type: MyDriver,
///     name: "Module name",
///     authors: ["Author name"],
///     description: "Description",
///     license: "GPL v2",
/// }
/// ```
#[macro_export]
macro_rules! module_pci_dma_driver {
    ($($f:tt)*) => {
        $crate::module_driver!(<T>, $crate::pci::DmaAdapter<T>, { $($f)* });
    };
}

#[cfg(CONFIG_RUST_DMA_KUNIT_TEST)]
#[macros::kunit_tests(rust_pci_dma_driver)]
mod tests {
    use super::*;
    use crate::{
        device::Bound,
        device_id::IdArray,
        dma::{
            fixture::{
                self,
                ensure, //
            },
            DmaMask,
            Mapper,
            StreamingBox,
            ToDevice, //
        },
        kunit,
        pci::Vendor,
        sync::atomic::{
            Atomic,
            Relaxed, //
        }, //
    };

    const VENDOR: u16 = 0x1234;
    const DEVICE: u16 = 0x11e8;

    static TABLE: IdArray<DeviceId, (), 1> = IdArray::new([(
        // CAST: Widening.
        DeviceId::from_id(Vendor::from_raw(VENDOR), DEVICE as u32),
        &(),
    )]);

    /// A driver that keeps mapped memory.
    struct Keeps;

    struct Kept<'bound> {
        dev: &'bound Device<Bound>,
        _buf: StreamingBox<'bound, KVec<u8>, ToDevice>,
    }

    /// How often the data was dropped, and how often the function had its driver then.
    static DROPS: [Atomic<u32>; 2] = [const { Atomic::new(0) }; 2];

    impl Drop for Kept<'_> {
        fn drop(&mut self) {
            // SAFETY: By the type invariants of `Device`, it is a valid function. Its driver
            // changes only where this is called from, and after that.
            let is_bound = unsafe { !(*self.dev.as_raw()).driver.is_null() };

            DROPS[0].fetch_add(1, Relaxed);
            DROPS[1].fetch_add(is_bound.into(), Relaxed);
        }
    }

    impl DmaDriver for Keeps {
        type IdInfo = ();
        type Data<'bound> = Kept<'bound>;
        const ID_TABLE: IdTable<()> = &TABLE;

        fn dma_constraints(_dev: &Device, _info: Option<&()>) -> Result<Constraints> {
            Ok(Constraints::new(DmaMask::new::<64>()))
        }

        fn probe<'bound>(
            dev: &Device<Core<'bound>>,
            _info: Option<&'bound ()>,
        ) -> impl PinInit<Kept<'bound>, Error> {
            pin_init::pin_init_scope(move || {
                let dma = Mapper::get(dev.bound().as_ref())?;
                let buf = KVec::from_elem(0, 256, GFP_KERNEL)?;

                Ok(Ok::<_, Error>(Kept {
                    dev: dev.bound(),
                    _buf: StreamingBox::map(dma, buf)?,
                }))
            })
        }
    }

    /// The PCI core takes the driver from the function, and its DMA, when `remove()` has returned.
    /// What the driver keeps must be gone by then.
    #[test]
    fn data_goes_before_the_driver() -> Result {
        let drops = || [DROPS[0].load(Relaxed), DROPS[1].load(Relaxed)];
        let before = drops();

        if !fixture::has_pci_device(VENDOR, DEVICE) {
            kunit::skip("no edu device (QEMU: -device edu)");
            return Ok(());
        }

        fixture::with_pci_driver::<Keeps>(VENDOR, DEVICE)?;

        ensure!(drops() == [before[0] + 1, before[1] + 1]);
        Ok(())
    }
}
