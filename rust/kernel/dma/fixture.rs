// SPDX-License-Identifier: GPL-2.0

//! Bound devices for tests.
//!
//! A test runs inside the `probe()` of a driver made for it, so that it holds what real drivers
//! hold. What it leaves behind is released, and checked by dma-debug, at the unbind that follows.
//!
//! Tests return `Result` instead of asserting: a failed KUnit assertion ends the thread without
//! running destructors, which would leave buffers mapped and devices at work.
//!
//! For KUnit tests; not for use in drivers.

use crate::{
    bindings,
    device::Core,
    dma::{
        Configured,
        Direction,
        DmaAddress,
        DmaMask,
        Setup,
        Streaming, //
    },
    driver,
    platform,
    prelude::*,
    sync::atomic::{
        Acquire,
        Atomic,
        Full,
        Release, //
    },
    ThisModule, //
};
#[cfg(CONFIG_PCI)]
use crate::{
    device_id::IdArray,
    pci, //
};
use core::marker::PhantomData;

/// Fails the test, saying where, unless a condition holds.
#[macro_export]
#[doc(hidden)]
macro_rules! dma_ensure {
    ($condition:expr $(,)?) => {
        if !$condition {
            $crate::pr_err!(
                "{}:{}: does not hold: {}\n",
                ::core::file!(),
                ::core::line!(),
                ::core::stringify!($condition)
            );
            return Err($crate::error::code::EINVAL.into());
        }
    };
}

pub use dma_ensure as ensure;

/// What the driver's callbacks are to do.
///
/// Lives on the stack of the test, which registers the driver after it is set, and unregisters it
/// before it goes.
struct Job<'f> {
    setup: Option<Setup>,
    body: &'f mut dyn FnMut(Bus<'_, '_>) -> Result,
    outcome: Result,
}

/// The device, on whichever bus.
enum Bus<'d, 'a> {
    #[cfg(CONFIG_PCI)]
    Pci(&'d pci::Device<Core<'a>>),
    Platform(&'d platform::Device<Core<'a>>),
}

/// The job of the test that runs, and the device that it is about. KUnit runs one test at a time.
static JOB: Atomic<usize> = Atomic::new(0);
static DEVICE: Atomic<usize> = Atomic::new(0);

impl<'f> Job<'f> {
    /// Registers a driver, and with that probes the device.
    fn run<T: driver::RegistrationOps + 'static>(
        device: *mut bindings::device,
        setup: Option<Setup>,
        body: &'f mut dyn FnMut(Bus<'_, '_>) -> Result,
    ) -> Result {
        // SAFETY: A null pointer stands for built-in code.
        static MODULE: ThisModule = unsafe { ThisModule::from_ptr(core::ptr::null_mut()) };

        let mut job = Self {
            setup,
            body,
            // What a test finds that was never called, for instance since the set-up was refused.
            outcome: Err(ENODEV),
        };

        let claimed = DEVICE.cmpxchg(0, device.addr(), Full);

        if claimed.is_err() {
            return Err(EBUSY);
        }

        JOB.store((&raw mut job).expose_provenance(), Release);

        let registration = KBox::pin_init(
            driver::Registration::<T>::new(c"dma_test", &MODULE),
            GFP_KERNEL,
        );

        // Unbinds. The job must not be found afterwards, whatever came of it.
        let registered = registration.map(drop);
        JOB.store(0, Release);
        DEVICE.store(0, Release);

        registered.and(job.outcome)
    }

    /// Calls `f` with the job, if it is about this device.
    fn with<R>(
        device: *mut bindings::device,
        f: impl FnOnce(&mut Job<'_>) -> Result<R>,
    ) -> Result<R> {
        // Not by the job: a test that died has left one, and its driver, behind.
        if DEVICE.load(Acquire) != device.addr() {
            return Err(ENODEV);
        }

        let job = core::ptr::with_exposed_provenance_mut::<Job<'_>>(JOB.load(Acquire));

        if job.is_null() {
            return Err(ENODEV);
        }

        // SAFETY: The job is there while the driver is registered; the callbacks of one device
        // don't run at the same time.
        f(unsafe { &mut *job })
    }

    /// Refuses a second device for a test, before anything is done to it.
    fn check_free() -> Result {
        if DEVICE.load(Acquire) != 0 {
            pr_err!("dma_test: a test has a device, or died with it: there is no second one\n");
            return Err(EBUSY);
        }

        Ok(())
    }

    fn probe(&mut self, bus: Bus<'_, '_>) {
        self.outcome = (self.body)(bus);
    }
}

/// The set-up of a device that says nothing else.
const WIDE: Setup = Setup::new(DmaMask::new::<64>());

/// Runs `body` on a platform device that is made for it, and needs no hardware.
///
/// The device has a mask of 64 bits. Context: may sleep.
///
/// # Errors
///
/// What `body` says, and [`EBUSY`] if called by a test that already runs on a device.
pub fn with_platform_device(mut body: impl FnMut(&platform::Device<Core<'_>>) -> Result) -> Result {
    on_platform_device(Some(WIDE), |_| {}, &mut body, |_| Ok(()))
}

/// As [`with_platform_device`], and then, if they are there, once more on each kind of simulated
/// bus.
pub fn on_each_bus(mut body: impl FnMut(&platform::Device<Core<'_>>) -> Result) -> Result {
    on_each_bus_set_up(Some(WIDE), &mut body)
}

/// As [`on_each_bus`], with what `dma_setup()` is to return.
pub fn on_each_bus_set_up(
    setup: Option<Setup>,
    mut body: impl FnMut(&platform::Device<Core<'_>>) -> Result,
) -> Result {
    on_platform_device(setup, |_| {}, &mut body, |_| Ok(()))?;

    #[cfg(CONFIG_RUST_DMA_SIM)]
    for model in super::sim::Model::ALL {
        super::sim::run_set_up(super::sim::Script::new(model), setup, |pdev, _| body(pdev))
            .inspect_err(|_| pr_err!("dma_test: that was on a simulated bus: {model:?}\n"))?;
    }

    Ok(())
}

/// Runs `body` on a platform device, to which `before` is done before it is bound, and `after` when
/// it is unbound.
pub(super) fn on_platform_device(
    setup: Option<Setup>,
    before: impl FnOnce(*mut bindings::device),
    body: &mut dyn FnMut(&platform::Device<Core<'_>>) -> Result,
    after: impl FnOnce(*mut bindings::device) -> Result,
) -> Result {
    Job::check_free()?;

    let info = bindings::platform_device_info {
        name: c"dma_test".as_char_ptr(),
        id: bindings::PLATFORM_DEVID_NONE,
        dma_mask: u64::MAX,
        ..pin_init::zeroed()
    };

    // SAFETY: `info` is valid; the name is copied.
    let device =
        crate::error::from_err_ptr(unsafe { bindings::platform_device_register_full(&info) })?;

    // SAFETY: `device` was just registered, hence is valid.
    let raw = unsafe { &raw mut (*device).dev };

    before(raw);

    let outcome = Job::run::<platform::Adapter<TestDriver>>(raw, setup, &mut |bus| match bus {
        Bus::Platform(pdev) => body(pdev),
        #[cfg(CONFIG_PCI)]
        Bus::Pci(_) => Err(EINVAL),
    });
    let judgement = after(raw);

    // SAFETY: `device` was registered above.
    unsafe { bindings::platform_device_unregister(device) };

    outcome.and(judgement)
}

/// Tells whoever judges the log that a line with `text` will come, once, and is meant to.
pub fn expect(text: &str) {
    crate::pr_info!("dma-rs-expect: {text}\n");
}

/// What a test has to know of a buffer that it will have quarantined, to release it afterwards.
pub struct Noted<D: Direction> {
    addr: DmaAddress,
    len: usize,
    ptr: *const u8,
    _direction: PhantomData<D>,
}

/// A mapping, and what is known of it.
type NotedMapping<'a, D> = (Streaming<'a, KVec<u8>, D>, Noted<D>);

/// Maps a buffer that the test will have quarantined.
///
/// Context: any.
///
/// # Errors
///
/// As [`Streaming::map`].
pub fn map_and_note<D: Direction>(
    dma: Configured<'_>,
    buf: KVec<u8>,
) -> Result<NotedMapping<'_, D>> {
    let ptr = buf.as_ptr();
    let buf = Streaming::map(dma, buf)?;

    let noted = Noted {
        // SAFETY: No device gets it from here.
        addr: unsafe { buf.address().to_bits() },
        len: buf.address().len(),
        ptr,
        _direction: PhantomData,
    };

    Ok((buf, noted))
}

impl<D: Direction> Noted<D> {
    /// Unmaps and frees the buffer.
    ///
    /// # Safety
    ///
    /// The buffer must have been quarantined, `dma` must be what it was mapped with, and no device
    /// may access it.
    pub unsafe fn release(self, dma: Configured<'_>) {
        let dev = dma.device().as_raw();

        // SAFETY: By the safety requirements.
        unsafe {
            bindings::dma_unmap_phys(dev, self.addr, self.len, D::DATA_DIRECTION.into(), 0);
            free_quarantined(self.ptr);
        }
    }
}

/// Frees the buffer of a quarantined mapping, which otherwise kmemleak would find.
///
/// # Safety
///
/// `ptr` must be the address of a `KVec<u8>` that was quarantined, and no device may access it.
pub unsafe fn free_quarantined(ptr: *const u8) {
    // SAFETY: By the safety requirements: a kmalloc() allocation that nobody owns.
    unsafe { bindings::kfree(ptr.cast()) };
}

/// Returns whether there is a PCI device with these IDs.
#[cfg(CONFIG_PCI)]
pub fn has_pci_device(vendor: u16, device: u16) -> bool {
    // SAFETY: No requirements; this takes a reference to the device that it returns.
    let pdev =
        unsafe { bindings::pci_get_device(vendor.into(), device.into(), core::ptr::null_mut()) };

    // SAFETY: Null, or the reference that we took.
    unsafe { bindings::pci_dev_put(pdev) };

    !pdev.is_null()
}

/// Runs `body` on the first PCI device with these IDs, taking it from its driver meanwhile.
///
/// # Errors
///
/// [`ENXIO`] if there is none; [`EBUSY`] if called by a test that already runs on a device; what
/// `body` says.
#[cfg(CONFIG_PCI)]
pub fn with_pci_device(
    vendor: u16,
    device: u16,
    setup: Setup,
    mut body: impl FnMut(&pci::Device<Core<'_>>) -> Result,
) -> Result {
    Job::check_free()?;

    // SAFETY: No requirements; this takes a reference to the device that it returns.
    let pdev =
        unsafe { bindings::pci_get_device(vendor.into(), device.into(), core::ptr::null_mut()) };
    if pdev.is_null() {
        return Err(ENXIO);
    }

    // SAFETY: We hold a reference.
    let raw = unsafe { &raw mut (*pdev).dev };

    // SAFETY: `raw` is a registered device.
    unsafe { bindings::device_release_driver(raw) };

    let outcome = Job::run::<pci::Adapter<TestDriver>>(raw, Some(setup), &mut |bus| match bus {
        Bus::Pci(pdev) => body(pdev),
        Bus::Platform(_) => Err(EINVAL),
    });

    // SAFETY: `raw` is a registered device, and we drop the reference that we took, last.
    unsafe {
        // Back to its own driver, if it has one.
        let _ = bindings::device_attach(raw);
        bindings::pci_dev_put(pdev);
    }

    outcome
}

/// Undoes a mapping of a PCI device that a test leaked on purpose, so that later tests don't have
/// to do with it.
///
/// # Safety
///
/// `len` bytes must be mapped at `addr` for the first PCI device with these IDs, in the direction
/// `D`, and the device must be done with them.
#[cfg(CONFIG_PCI)]
pub unsafe fn unmap_leaked<D: Direction>(vendor: u16, device: u16, addr: DmaAddress, len: usize) {
    // SAFETY: No requirements; this takes a reference to the device that it returns.
    let pdev =
        unsafe { bindings::pci_get_device(vendor.into(), device.into(), core::ptr::null_mut()) };

    // SAFETY: By the safety requirements; we drop the reference that we took, last.
    unsafe {
        bindings::dma_unmap_phys(&raw mut (*pdev).dev, addr, len, D::DATA_DIRECTION.into(), 0);
        bindings::pci_dev_put(pdev);
    }
}

/// Binds to the device of the current job, and to no other.
struct TestDriver;

impl platform::Driver for TestDriver {
    type IdInfo = ();
    type Data<'bound> = ();

    fn dma_setup(dev: &platform::Device, _info: Option<&()>) -> Result<Option<Setup>> {
        let dev: &crate::device::Device = dev.as_ref();

        Job::with(dev.as_raw(), |job| Ok(job.setup))
    }

    fn probe<'bound>(
        pdev: &'bound platform::Device<Core<'_>>,
        _info: Option<&'bound ()>,
    ) -> impl PinInit<(), Error> + 'bound {
        let dev: &crate::device::Device<Core<'_>> = pdev.as_ref();

        Job::with(dev.as_raw(), |job| {
            job.probe(Bus::Platform(pdev));
            Ok(())
        })
    }
}

/// Matches every device; the job says which one is meant.
#[cfg(CONFIG_PCI)]
static PCI_TABLE: IdArray<pci::DeviceId, (), 1> =
    IdArray::new([(pci::DeviceId::from_class(0, 0), &())]);

#[cfg(CONFIG_PCI)]
impl pci::Driver for TestDriver {
    type IdInfo = ();
    type Data<'bound> = ();
    const ID_TABLE: pci::IdTable<()> = &PCI_TABLE;

    fn dma_setup(dev: &pci::Device, _info: Option<&()>) -> Result<Option<Setup>> {
        let dev: &crate::device::Device = dev.as_ref();

        Job::with(dev.as_raw(), |job| Ok(job.setup))
    }

    fn probe<'bound>(
        pdev: &'bound pci::Device<Core<'_>>,
        _info: Option<&'bound ()>,
    ) -> impl PinInit<(), Error> + 'bound {
        let dev: &crate::device::Device<Core<'_>> = pdev.as_ref();

        Job::with(dev.as_raw(), |job| {
            job.probe(Bus::Pci(pdev));
            Ok(())
        })
    }
}
