// SPDX-License-Identifier: GPL-2.0

//! What the DMA abstractions keep of a device while a driver is bound to it.
//!
//! One [`Binding`] belongs to a bound device from before `probe()`, when its [`Setup`] is applied,
//! until the driver core releases the device's resources. It knows in which [`State`] the device
//! is, keeps what must not be freed yet (the [quarantine](super::quarantine)), and wakes who waits
//! for the device when it is stopped.
//!
//! ```text
//!             start()                  stop()
//!    IDLE ---------------> RUNNING ----------------> STOPPING     (nothing more is started)
//!     (no proof yet)          ^                       |    |
//!                             |               no proof|    | proof: the device has stopped, or has
//!                             |                       v    v left the bus
//!                             +---------------- UNPROVEN  STOPPED, GONE
//!                               start(), which makes the device forget
//! ```
//!
//! Each proof begins a new [epoch](Binding::epoch): what the device was given in an earlier one, it
//! doesn't access any more.

use super::{
    enclosure::Control,
    quarantine::{
        self,
        Free,
        Keep,
        Quarantine, //
    },
    waiters::WakeQueue,
    Setup,
    Waiters, //
};
use crate::{
    bindings,
    debugfs,
    device::{
        Bound,
        Device, //
    },
    fmt,
    new_mutex,
    new_spinlock_irq,
    prelude::*,
    str::CString,
    sync::{
        aref::ARef,
        atomic::{
            Acquire,
            Atomic,
            Full,
            Relaxed,
            Release, //
        },
        lock::{
            mutex::MutexGuard,
            spinlock::SpinLockIrqGuard, //
        },
        rcu,
        Arc,
        Mutex,
        SetOnce,
        SpinLockIrq, //
    },
    time::{
        delay::fsleep,
        Delta, //
    },
    types::ForeignOwnable, //
};
use core::ptr::NonNull;

/// What is known of the device.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum State {
    /// Nothing: no enclosure was started.
    Idle,
    /// The device may access what it was given.
    Running,
    /// Nothing is started any more, and the device is being stopped, or made to forget.
    Stopping,
    /// That has failed: the device may still access what it was given.
    Unproven,
    /// The device was proven to access nothing.
    Stopped,
    /// The device has left the bus, hence accesses nothing.
    Gone,
}

impl State {
    const ALL: [Self; 6] = [
        Self::Idle,
        Self::Running,
        Self::Stopping,
        Self::Unproven,
        Self::Stopped,
        Self::Gone,
    ];

    const NAMES: [&str; 6] = ["idle", "running", "stopping", "unproven", "stopped", "gone"];

    /// Whether the device accesses nothing of what it was given.
    pub(super) fn is_proof(self) -> bool {
        matches!(self, Self::Stopped | Self::Gone)
    }
}

/// Held while the bus master bit of a PCI device changes, or must not.
#[pin_data]
pub(crate) struct Command {
    /// By those who may sleep, in which case the PCI core may change the register meanwhile.
    #[pin]
    core: Mutex<()>,
    #[pin]
    lock: SpinLockIrq<()>,
}

#[cfg_attr(not(CONFIG_PCI), expect(dead_code))]
impl Command {
    fn new() -> impl PinInit<Self> {
        pin_init!(Self {
            core <- new_mutex!((), "dma::Command::core"),
            lock <- new_spinlock_irq!((), "dma::Command"),
        })
    }

    /// Keeps the PCI core, as called by drivers, from changing other bits of the register, which it
    /// does by reading it and writing it back.
    ///
    /// Context: may sleep.
    pub(crate) fn exclude(&self) -> MutexGuard<'_, ()> {
        self.core.lock()
    }

    /// Returns the lock, if the bit belongs to the device's enclosure.
    pub(crate) fn find(dev: &Device<Bound>) -> Option<&Self> {
        Binding::find(dev).map(|binding| &binding.command)
    }

    /// Context: any.
    pub(crate) fn lock(&self) -> SpinLockIrqGuard<'_, ()> {
        self.lock.lock()
    }
}

/// What is kept of a bound device. See the [module documentation](self).
///
/// # Invariants
///
/// While `state` is a proof, the device accesses nothing that it was given before `state` was set.
#[pin_data]
pub(super) struct Binding {
    /// Goes first, as it looks at the rest.
    #[pin]
    file: debugfs::File<View>,
    name: CString,
    setup: Setup,
    resumes: bool,
    state: Atomic<u32>,
    epoch: Atomic<u64>,
    /// How the device is stopped. Held while it is started or stopped.
    #[pin]
    pub(super) control: Mutex<Control>,
    #[pin]
    quarantine: SpinLockIrq<Quarantine>,
    /// Where threads wait for the device to be started or stopped, or for that besides others.
    stops: Arc<WakeQueue>,
    #[pin]
    pub(super) command: Command,
}

/// That work may be started, for as long as this lives. Nobody may sleep meanwhile.
// Not by `rcu_read_lock_sched()`, which costs less with preemptible RCU: what is done meanwhile, to
// ring a doorbell for instance, may take locks, and with PREEMPT_RT those sleep.
pub(super) struct Open(rcu::Guard);

impl Binding {
    /// Adds the record to a device that is about to be probed.
    ///
    /// Context: may sleep.
    #[inline(never)]
    pub(super) fn add(dev: &Device<Bound>, setup: Setup, resumes: bool) -> Result {
        Quarantine::check_leaks(dev)?;

        let this = KBox::pin_init(Self::init(dev, setup, resumes)?, GFP_KERNEL)?;

        // SAFETY: No requirements; the name is a valid C string.
        let res = unsafe {
            bindings::__devres_alloc_node(
                Some(Self::release),
                size_of::<*mut c_void>(),
                GFP_KERNEL.as_raw(),
                bindings::NUMA_NO_NODE,
                c"dma::Binding".as_char_ptr(),
            )
        };
        let res = NonNull::new(res.cast::<*mut c_void>()).ok_or(ENOMEM)?;

        // SAFETY: `res` is fresh memory of this size, aligned as `kmalloc()` aligns.
        unsafe { res.write(this.into_foreign()) };

        // SAFETY: `dev` is bound, `res` comes from `__devres_alloc_node()`.
        unsafe { bindings::devres_add(dev.as_raw(), res.as_ptr().cast()) };

        Ok(())
    }

    fn init(dev: &Device<Bound>, setup: Setup, resumes: bool) -> Result<impl PinInit<Self, Error>> {
        let name = unique_name(dev)?;
        let file_name = unique_name(dev)?;
        let dir = debugfs_dir();
        let dev: ARef<Device> = dev.into();

        Ok(try_pin_init!(&this in Self {
            name,
            setup,
            resumes,
            // INVARIANT: No proof.
            state: Atomic::new(State::Idle as u32),
            epoch: Atomic::new(0),
            control <- new_mutex!(Control::default(), "dma::Binding::control"),
            quarantine <- new_spinlock_irq!(Quarantine::new(dev), "dma::Quarantine"),
            stops: Arc::pin_init(WakeQueue::new(), GFP_KERNEL)?,
            command <- Command::new(),
            file <- View::init(this, &dir, &file_name),
        }? Error))
    }

    /// Returns the record, if the device's driver has a `dma_setup()`.
    ///
    /// Context: any. Walks the resource list of the device.
    #[inline(never)]
    pub(super) fn find(dev: &Device<Bound>) -> Option<&Self> {
        // SAFETY: `dev` is a valid and bound `struct device`.
        let res = unsafe {
            bindings::devres_find(
                dev.as_raw(),
                Some(Self::release),
                None,
                core::ptr::null_mut(),
            )
        };
        let res = NonNull::new(res.cast::<*mut c_void>())?;

        // SAFETY: A resource with our release function was made by `add()`, and is the oldest of
        // the device, so that it is released last: it lives as long as anything can use it that
        // borrows the device.
        Some(unsafe { &*res.read().cast::<Self>() })
    }

    /// Frees the record. The address of this function is what marks a resource as ours; not
    /// inlined, nor are its users, so that no other crate has a copy of it.
    ///
    /// # Safety
    ///
    /// `res` must be a resource made by [`add`](Self::add).
    #[inline(never)]
    unsafe extern "C" fn release(_dev: *mut bindings::device, res: *mut c_void) {
        // SAFETY: Made by `add()`, and released once.
        drop(unsafe { Pin::<KBox<Self>>::from_foreign(res.cast::<*mut c_void>().read()) });
    }

    pub(super) fn setup(&self) -> Setup {
        self.setup
    }

    /// Returns `<bus>-<device>`.
    pub(super) fn name(&self) -> &CStr {
        &self.name
    }

    /// Whether the driver can go on after a stop.
    pub(super) fn resumes(&self) -> bool {
        #[cfg(CONFIG_RUST_DMA_FIXTURE)]
        if super::fixture::resumes() {
            return true;
        }

        self.resumes
    }

    pub(super) fn state(&self) -> State {
        // Acquire: what the device did before the proof has happened.
        let state = self.state.load(Acquire);

        // CAST: A state was stored.
        State::ALL[state as usize % State::ALL.len()]
    }

    /// Returns the number of proofs so far.
    ///
    /// What the device was given when this was another number, it doesn't access any more.
    #[inline]
    pub(super) fn epoch(&self) -> u64 {
        self.epoch.load(Acquire)
    }

    /// Returns whether work may be started.
    #[inline]
    pub(super) fn is_open(&self) -> bool {
        // Not by `state()`, which makes a variant of the number: this is done for each doorbell.
        // Acquire: as there.
        let state = self.state.load(Acquire);

        // CAST: As it was stored.
        state == State::Idle as u32 || state == State::Running as u32
    }

    /// Keeps the device from being stopped for the moment in which something is started.
    ///
    /// Context: any. The caller must not sleep until it drops the result.
    ///
    /// # Errors
    ///
    /// [`ESHUTDOWN`] if nothing may be started.
    #[inline]
    pub(super) fn enter(&self) -> Result<Open> {
        let guard = rcu::read_lock();

        if !self.is_open() {
            return Err(ESHUTDOWN);
        }

        Ok(Open(guard))
    }

    /// Returns whether there is nothing to wait for: the device doesn't run, and it is known what
    /// came of stopping it.
    pub(super) fn is_over(&self) -> bool {
        match self.state() {
            State::Idle | State::Running | State::Stopping => false,
            State::Unproven | State::Stopped | State::Gone => true,
        }
    }

    /// Lets nothing more be started; returns when nothing is being started.
    ///
    /// Context: may sleep.
    pub(super) fn close(&self) {
        self.state.store(State::Stopping as u32, Release);
        rcu::synchronize_rcu();
    }

    /// There was no proof. Wakes whoever waits for the device.
    ///
    /// Context: may sleep.
    pub(super) fn give_up(&self) {
        // INVARIANT: No proof.
        self.state.store(State::Unproven as u32, Release);
        self.wake();
    }

    /// Allows work.
    ///
    /// # Safety
    ///
    /// The device must have forgotten what it was given.
    pub(super) unsafe fn open(&self) {
        // INVARIANT: No proof.
        self.state.store(State::Running as u32, Release);
    }

    /// Records that the device accesses nothing of what it was given. Returns what was kept only
    /// for want of that proof, for [`reclaim`](Self::reclaim).
    ///
    /// Context: any.
    ///
    /// # Safety
    ///
    /// This must be so, nothing may be started since, and `state` must be a proof.
    pub(super) unsafe fn prove(&self, state: State) -> Free {
        let mut quarantine = self.quarantine.lock();

        // Before the state: who sees the state sees the epoch.
        self.epoch
            .store(self.epoch.load(Relaxed).wrapping_add(1), Release);
        // INVARIANT: By the safety requirements.
        self.state.store(state as u32, Release);

        // SAFETY: By the safety requirements the device doesn't access it any more.
        unsafe { quarantine.take().free() }
    }

    /// Frees what was kept.
    ///
    /// Context: may sleep.
    pub(super) fn reclaim(&self, free: Free) {
        let count = free.release();

        self.quarantine.lock().count_reclaimed(count);
    }

    /// Takes what is no longer used, but which the device may still access.
    ///
    /// Frees it at once if there is a proof that the device doesn't; else keeps it until there is
    /// one. Context: any, if freeing it needs nothing else.
    #[cold]
    pub(super) fn put_away<K: Keep>(&self, dev: &Device<Bound>, what: K) {
        self.put_away_since(dev, self.epoch(), what);
    }

    /// As [`put_away`](Self::put_away), if the device was given it in that epoch.
    #[cold]
    pub(super) fn put_away_since<K: Keep>(&self, dev: &Device<Bound>, epoch: u64, what: K) {
        let is_needed = || !self.state().is_proof() && epoch == self.epoch();

        let what = if is_needed() {
            match Quarantine::keep(&self.quarantine, dev, what, is_needed) {
                Ok(()) => return,
                // Meanwhile there is a proof.
                Err(what) => what,
            }
        } else {
            what
        };

        // SAFETY: By the type invariants, and the contract of `epoch()`. What was given to the
        // device, was before it was dropped, so before we saw the proof.
        unsafe { what.release() };
    }

    /// Makes a place to wait for the device.
    pub(super) fn new_waiters(&self) -> Result<Arc<Waiters>> {
        Arc::pin_init(Waiters::new(self.stops.clone()), GFP_KERNEL)
    }

    /// Returns what is woken when the device was started, or stopped, or couldn't be.
    #[inline]
    pub(super) fn stops(&self) -> &WakeQueue {
        &self.stops
    }

    /// Wakes all who wait for the device. Context: any.
    pub(super) fn wake(&self) {
        self.stops.wake();
    }

    /// Returns how many buffers were dropped in flight, and how many of them were freed since.
    pub(super) fn counts(&self) -> (u64, u64) {
        self.quarantine.lock().counts()
    }

    fn show(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // CAST: A variant of few.
        writeln!(f, "state {}", State::NAMES[self.state() as usize])?;
        self.control.lock().show(f)?;

        let (quarantined, reclaimed) = self.counts();

        writeln!(f, "quarantined {quarantined}")?;
        writeln!(f, "reclaimed {reclaimed}")
    }
}

/// What the file in debugfs shows.
struct View(NonNull<Binding>);

impl View {
    fn init<'a>(
        binding: NonNull<Binding>,
        dir: &'a debugfs::Dir,
        name: &'a CStr,
    ) -> impl PinInit<debugfs::File<Self>, Error> + 'a {
        dir.read_callback_file(
            name,
            Ok::<_, Error>(Self(binding)),
            &|view: &Self, f: &mut fmt::Formatter<'_>| {
                // SAFETY: The file is made when all else of the `Binding` is there, and goes first.
                unsafe { view.0.as_ref() }.show(f)
            },
        )
    }
}

// SAFETY: It only leads to a `Binding`, which any thread may look at.
unsafe impl Send for View {}

// SAFETY: As above.
unsafe impl Sync for View {}

/// Returns `<bus>-<device>`: names of devices are unique on their bus only.
fn unique_name(dev: &Device<Bound>) -> Result<CString> {
    // SAFETY: `dev` is a valid `struct device`; its bus, if any, has a name and outlives it.
    let bus = unsafe {
        let bus = (*dev.as_raw()).bus;

        if bus.is_null() {
            c"none"
        } else {
            CStr::from_char_ptr((*bus).name)
        }
    };

    CString::try_from_fmt(fmt!("{bus}-{}", dev.name()))
}

/// `dma_enclosure/` in debugfs, which is never removed.
struct Root {
    dir: debugfs::Dir,
    _total: Pin<KBox<debugfs::File<()>>>,
}

fn show_total(_: &(), f: &mut fmt::Formatter<'_>) -> fmt::Result {
    quarantine::show(f)
}

fn debugfs_dir() -> debugfs::Dir {
    static ROOT: SetOnce<Root> = SetOnce::new();
    static BUSY: Atomic<i32> = Atomic::new(0);

    if let Some(root) = ROOT.as_ref() {
        return root.dir.clone();
    }

    // One makes it; another one that comes at the same time would find the name taken.
    while BUSY.cmpxchg(0, 1, Full).is_err() {
        fsleep(Delta::from_millis(1));
    }

    if let Some(root) = ROOT.as_ref() {
        BUSY.store(0, Release);
        return root.dir.clone();
    }

    let dir = debugfs::Dir::new(c"dma_enclosure");
    let total = KBox::pin_init(
        dir.read_callback_file(c"total", Ok::<_, Error>(()), &show_total),
        GFP_KERNEL,
    );

    if let Ok(total) = total {
        ROOT.populate(Root {
            dir: dir.clone(),
            _total: total,
        });
    }

    BUSY.store(0, Release);
    dir
}
