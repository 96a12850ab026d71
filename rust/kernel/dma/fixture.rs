// SPDX-License-Identifier: GPL-2.0

//! Bound devices for tests.
//!
//! A test runs inside the `probe()` of a driver made for it, so that it holds what real drivers
//! hold. What it leaves behind is released, and checked by dma-debug, at the unbind that follows.
//!
//! For KUnit tests; not for use in drivers.

use crate::{
    bindings,
    device::{
        self,
        Bound,
        Core, //
    },
    dma::{
        mapping::record::Record,
        Constraints,
        DmaMask,
        Mapper, //
    },
    driver,
    platform,
    prelude::*,
    sync::{
        atomic::{
            Acquire,
            Atomic,
            Full,
            Relaxed,
            Release, //
        },
        Arc,
        Completion,
        SetOnce, //
    },
    workqueue,
    ThisModule, //
};
use core::mem::ManuallyDrop;

#[cfg(CONFIG_PCI)]
mod pci;

#[cfg(CONFIG_PCI)]
pub use self::pci::{
    command_after_unbind,
    has_pci_device,
    recover_pci_device,
    with_pci_device,
    with_pci_device_alone,
    with_pci_device_left_on,
    with_pci_driver, //
};

#[cfg(CONFIG_DMA_ENGINE)]
pub mod engine;

// The mask that it writes is read all the time, without any lock.
#[cfg(all(CONFIG_FAILSLAB, not(CONFIG_KCSAN)))]
pub mod faults;

mod threads;
pub use self::threads::at_once;

pub use crate::dma_ensure as ensure;

/// What the driver's callbacks are to do.
///
/// Lives on the stack of the test, which registers the driver after it is set, and unregisters it
/// before it goes.
struct Job<'f> {
    constraints: Option<Constraints>,
    body: &'f mut dyn FnMut(Bus<'_, '_>) -> Result,
    outcome: Result,
    /// Whether the probe fails if the body does.
    fails: bool,
}

/// The device, on whichever bus.
enum Bus<'d, 'a> {
    #[cfg(CONFIG_PCI)]
    Pci(&'d crate::pci::Device<Core<'a>>),
    Platform(&'d platform::Device<Core<'a>>),
}

/// The job of the test that runs, and the device that it is about. KUnit runs one test at a time.
static JOB: Atomic<usize> = Atomic::new(0);
static DEVICE: Atomic<usize> = Atomic::new(0);

impl<'f> Job<'f> {
    /// Registers a driver, and with that probes the device.
    fn run<T: driver::RegistrationOps + 'static>(
        device: *mut bindings::device,
        constraints: Option<Constraints>,
        body: &'f mut dyn FnMut(Bus<'_, '_>) -> Result,
    ) -> Result {
        let mut job = Self {
            constraints,
            body,
            // What a test finds that was never called, for instance since the set-up was refused.
            outcome: Err(ENODEV),
            fails: FAILS.load(Acquire) != 0,
        };

        let claimed = DEVICE.cmpxchg(0, device.addr(), Full);

        if claimed.is_err() {
            return Err(EBUSY);
        }

        JOB.store((&raw mut job).expose_provenance(), Release);

        // The job must not be found afterwards, whatever came of it.
        let registered = bind_and_unbind::<T>();
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

    fn probe(&mut self, bus: Bus<'_, '_>) -> Result {
        let dev: &device::Device<Core<'_>> = match &bus {
            #[cfg(CONFIG_PCI)]
            Bus::Pci(pdev) => pdev.as_ref(),
            Bus::Platform(pdev) => pdev.as_ref(),
        };

        if let Some(keeper) = Record::find(dev).and_then(Record::keeper) {
            keeper.set_resumes(RESUMES.load(Acquire) != 0);
        }

        self.outcome = (self.body)(bus);

        if self.fails {
            self.outcome
        } else {
            Ok(())
        }
    }
}

/// Registers a driver, which with that is bound to the devices that it matches, and unregisters it.
fn bind_and_unbind<T: driver::RegistrationOps + 'static>() -> Result {
    // SAFETY: A null pointer stands for built-in code.
    static MODULE: ThisModule = unsafe { ThisModule::from_ptr(core::ptr::null_mut()) };

    KBox::pin_init(
        driver::Registration::<T>::new(c"dma_test", &MODULE),
        GFP_KERNEL,
    )
    .map(drop)
}

/// Whether probes fail, for [`failing`].
static FAILS: Atomic<usize> = Atomic::new(0);

/// Whether drivers can go on after a stop, for [`resuming`].
static RESUMES: Atomic<usize> = Atomic::new(0);

/// Runs a test with a driver that says that it can go on after a stop.
///
/// The PCI core doesn't know: the driver has no callbacks for it.
pub fn resuming(test: impl FnOnce() -> Result) -> Result {
    RESUMES.store(1, Release);

    let outcome = test();

    RESUMES.store(0, Release);
    outcome
}

/// Runs a test in which the driver's probe fails if the test's body does, as the bus sees it, and
/// what is to be done then is done. Otherwise all probes succeed, and are unbound.
pub fn failing(test: impl FnOnce() -> Result) -> Result {
    FAILS.store(1, Release);

    let outcome = test();

    FAILS.store(0, Release);
    outcome
}

/// The set-up of a device that says nothing else.
const WIDE: Constraints = Constraints::new(DmaMask::new::<64>());

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

/// As [`with_platform_device`], and then runs `again` with the same device, bound anew.
///
/// # Errors
///
/// As [`with_platform_device`]; what came of the second time is in the value.
pub fn with_platform_device_twice(
    mut body: impl FnMut(&platform::Device<Core<'_>>) -> Result,
    mut again: impl FnMut(&platform::Device<Core<'_>>) -> Result,
) -> Result<Result> {
    let mut second = Err(ENODEV);

    on_platform_device(
        Some(WIDE),
        |_| {},
        &mut body,
        |raw| {
            second = probe_platform(raw, Some(WIDE), &mut again);
            Ok(())
        },
    )?;

    Ok(second)
}

/// As [`with_platform_device`], and then, if they are there, once more on each kind of simulated
/// bus.
pub fn on_each_bus(mut body: impl FnMut(&platform::Device<Core<'_>>) -> Result) -> Result {
    on_each_bus_set_up(Some(WIDE), &mut body)
}

/// As [`on_each_bus`], with what `dma_constraints()` is to return. Without it, the driver is no
/// [`platform::DmaDriver`].
pub fn on_each_bus_set_up(
    constraints: Option<Constraints>,
    mut body: impl FnMut(&platform::Device<Core<'_>>) -> Result,
) -> Result {
    on_platform_device(constraints, |_| {}, &mut body, |_| Ok(()))?;

    #[cfg(CONFIG_RUST_DMA_SIM)]
    for model in super::sim::Model::ALL {
        super::sim::run_set_up(super::sim::Script::new(model), constraints, |pdev, _| {
            body(pdev)
        })
        .inspect_err(|_| pr_err!("dma_test: that was on a simulated bus: {model:?}\n"))?;
    }

    Ok(())
}

/// Binds a driver of the test's own to a platform device that is made for it, and unbinds it.
///
/// # Errors
///
/// [`ENOMEM`], and [`EBUSY`] if called by a test that already runs on a device. What the probe says
/// is up to the driver.
pub fn with_platform_driver<T: platform::DmaDriver + 'static>() -> Result {
    Job::check_free()?;
    with_new_device(|_| bind_and_unbind::<platform::DmaAdapter<T>>())
}

/// Runs `body` on a platform device, to which `before` is done before it is bound, and `after` when
/// it is unbound.
pub(super) fn on_platform_device(
    constraints: Option<Constraints>,
    before: impl FnOnce(*mut bindings::device),
    body: &mut dyn FnMut(&platform::Device<Core<'_>>) -> Result,
    after: impl FnOnce(*mut bindings::device) -> Result,
) -> Result {
    Job::check_free()?;
    with_new_device(|raw| {
        before(raw);

        let outcome = probe_platform(raw, constraints, body);
        let judgement = after(raw);

        outcome.and(judgement)
    })
}

/// Runs `f` with a new platform device, which isn't bound.
fn with_new_device(f: impl FnOnce(*mut bindings::device) -> Result) -> Result {
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

    let outcome = f(raw);

    // SAFETY: `device` was registered above.
    unsafe { bindings::platform_device_unregister(device) };

    outcome
}

fn probe_platform(
    raw: *mut bindings::device,
    constraints: Option<Constraints>,
    body: &mut dyn FnMut(&platform::Device<Core<'_>>) -> Result,
) -> Result {
    let body = &mut |bus: Bus<'_, '_>| match bus {
        Bus::Platform(pdev) => body(pdev),
        #[cfg(CONFIG_PCI)]
        Bus::Pci(_) => Err(EINVAL),
    };

    match constraints {
        Some(_) => Job::run::<platform::DmaAdapter<TestDriver>>(raw, constraints, body),
        None => Job::run::<platform::Adapter<TestDriver>>(raw, constraints, body),
    }
}

/// Runs `f` in another thread.
///
/// # Errors
///
/// [`ENOMEM`].
pub fn spawn<R: Send + Sync + 'static>(
    f: impl FnOnce() -> R + Send + 'static,
) -> Result<Spawned<R>> {
    /// What a thread is to do, once.
    struct Once<F, R>(Option<F>, Arc<SetOnce<R>>);

    impl<F: FnOnce() -> R + Send, R: Send + Sync> Work for Once<F, R> {
        fn run(&mut self) {
            if let Some(f) = self.0.take() {
                self.1.populate(f());
            }
        }
    }

    let done = Arc::pin_init(Completion::new(), GFP_KERNEL)?;
    let result = Arc::new(SetOnce::new(), GFP_KERNEL)?;

    spawn_work(
        KBox::new(Once(Some(f), result.clone()), GFP_KERNEL)?,
        done.clone(),
    )?;
    Ok(Spawned { done, result })
}

trait Work: Send {
    fn run(&mut self);
}

// One function, hence one lockdep class.
#[inline(never)]
fn spawn_work(mut work: KBox<dyn Work>, done: Arc<Completion>) -> Result {
    workqueue::system_unbound().try_spawn(GFP_KERNEL, move || {
        work.run();
        drop(work);
        done.complete_all();
    })?;

    Ok(())
}

/// What another thread does.
pub struct Spawned<R> {
    done: Arc<Completion>,
    result: Arc<SetOnce<R>>,
}

impl<R> Spawned<R> {
    /// Waits for it, and calls `f` with what came of it. Context: may sleep.
    pub fn join<T>(self, f: impl FnOnce(&R) -> T) -> Result<T> {
        self.done.wait_for_completion();
        SetOnce::as_ref(&self.result).map(f).ok_or(EIO)
    }
}

/// Announces that a line with `text` will come in the log, once, and is no failure of the test.
pub fn expect(text: &str) {
    crate::pr_info!("dma-rs-expect: {text}\n");
}

/// Says that the device was stopped, and accesses nothing of what it was shown, so that what a test
/// had quarantined is freed. For devices without a session, which [`open`] starts again.
///
/// Context: may sleep.
///
/// # Safety
///
/// It must be so.
pub unsafe fn prove(dma: Mapper<'_>) {
    let record = dma.record();

    if let Some(keeper) = record.keeper() {
        // SAFETY: By the safety requirements.
        unsafe { keeper.prove_for_test() };
        return;
    }

    record.close();
    // SAFETY: By the safety requirements; it was just closed.
    unsafe { record.prove() };
}

/// Returns the permission to map for a device that runs, though it has no session: for tests of
/// what needs none. What is dropped in flight is leaked then, unless [`prove`] is called.
///
/// Context: may sleep.
///
/// # Errors
///
/// As [`Mapper::get`].
pub fn open(dev: &device::Device<Bound>) -> Result<Mapper<'_>> {
    let dma = Mapper::get(dev)?;
    let record = dma.record();

    if let Some(keeper) = record.keeper() {
        keeper.open_for_test();
    } else if record.is_closed() {
        // SAFETY: It was never open, or is proven to access nothing of what it was shown since.
        unsafe { record.open() };
    }

    Ok(dma)
}

/// As [`core::mem::forget`], but kmemleak can reach the value, and doesn't take for lost what it
/// owns. Without memory for that, the value is forgotten all the same.
pub fn forget<T>(value: T) -> Result {
    /// The last one.
    static LAST: Atomic<usize> = Atomic::new(0);

    /// One of a list.
    struct Forgotten<T> {
        before: Atomic<usize>,
        _value: ManuallyDrop<T>,
    }

    let forgotten = KBox::new(
        Forgotten {
            before: Atomic::new(0),
            _value: ManuallyDrop::new(value),
        },
        GFP_KERNEL,
    )?;
    let forgotten = KBox::leak(forgotten);
    let before = LAST.xchg((&raw const *forgotten).expose_provenance(), Relaxed);

    forgotten.before.store(before, Relaxed);
    Ok(())
}

/// Frees the buffer of a forgotten mapping, which otherwise kmemleak would find.
///
/// # Safety
///
/// `ptr` must be the address of a `KVec<u8>` that was forgotten, and no device may access it.
pub unsafe fn free_forgotten(ptr: *const u8) {
    // SAFETY: By the safety requirements: a kmalloc() allocation that nobody owns.
    unsafe { bindings::kfree(ptr.cast()) };
}

/// Binds to the device of the current job, and to no other.
struct TestDriver;

impl TestDriver {
    fn constraints(dev: &device::Device) -> Result<Constraints> {
        Job::with(dev.as_raw(), |job| job.constraints.ok_or(EINVAL))
    }

    fn probe(dev: &device::Device, bus: Bus<'_, '_>) -> Result {
        Job::with(dev.as_raw(), |job| job.probe(bus))
    }
}

impl platform::Driver for TestDriver {
    type IdInfo = ();
    type Data<'bound> = ();

    fn probe<'bound>(
        pdev: &'bound platform::Device<Core<'_>>,
        _info: Option<&'bound ()>,
    ) -> impl PinInit<(), Error> + 'bound {
        Self::probe(pdev.as_ref(), Bus::Platform(pdev))
    }
}

impl platform::DmaDriver for TestDriver {
    type IdInfo = ();
    type Data<'bound> = ();

    fn dma_constraints(dev: &platform::Device, _info: Option<&()>) -> Result<Constraints> {
        Self::constraints(dev.as_ref())
    }

    fn probe<'bound>(
        pdev: &platform::Device<Core<'bound>>,
        _info: Option<&'bound ()>,
    ) -> impl PinInit<(), Error> {
        Self::probe(pdev.as_ref(), Bus::Platform(pdev))
    }
}
