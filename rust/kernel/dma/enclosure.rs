// SPDX-License-Identifier: GPL-2.0

//! What a device may touch, and how it is stopped.
//!
//! Memory that a device knows may be freed when the device was seen to be done with it, or when it
//! was proven to have stopped. The proof is made here: [`Quiesce`] says how the hardware is stopped
//! and how it is made to forget what it was told, and the one [`Enclosure`] of a bound device has
//! both done at the right time.
//!
//! - A stop is a pause. Bus mastering off, for instance, holds a transfer up that goes on, to its
//!   old address, when bus mastering comes back. So the device is made to forget all addresses
//!   before it may access memory: at first, since firmware or an earlier driver may have left it at
//!   work, and after each stop.
//! - The bus stops the device when it is unbound, when its probe fails, and on shutdown, as long
//!   as the driver core still holds the device's DMA and power, and has it forget then, too: who
//!   knows who drives it next. There is nothing for the driver to do in `unbind()`, and nothing to
//!   forget. What the proof covers is freed after it, whoever drops it, and whenever.
//! - After a stop there are no interrupts by messages, which are writes to memory, too. So whoever
//!   waits for one is woken, and gets [`ESHUTDOWN`].
//! - Without a proof nothing is freed: see [`quarantined`](super::quarantined).
//!
//! On suspend, resets and errors the device is stopped, and afterwards started, for drivers that
//! can go on ([`pci::Driver::RESUMES`](kernel::pci::Driver::RESUMES)). For others, suspending is
//! refused while the device runs.
//!
//! See `Documentation/rust/dma/ownership.rst`.

use super::{
    binding::{
        Binding,
        State, //
    },
    quarantine::{
        Free,
        Keep, //
    },
    quiesce::{
        Hardware,
        Hooks, //
    },
    suspend::Refusal,
    Configured,
    Outcome,
    Quiesce, //
};
use crate::{
    device::{
        Bound,
        Core,
        Device, //
    },
    devres,
    fmt,
    prelude::*, //
};
use core::{
    mem::ManuallyDrop,
    ops::Deref, //
};

/// How a device is started and stopped, and what keeps it from being started.
///
/// # Invariants
///
/// The hardware that `hooks` leads to is there, and is used by nobody else.
#[derive(Default)]
pub(super) struct Control {
    hooks: Option<Hooks>,
    /// The device goes, or the system, or the driver can't go on: no start any more.
    ended: bool,
    /// The device has stopped for the last time, and forgotten, or is gone.
    finished: bool,
    /// Whether a bus error is under way.
    #[cfg(CONFIG_PCI)]
    error: bool,
    /// How many events, like a suspend, keep the device from being started.
    events: u32,
    /// Whether it is to be started when the last of them is over.
    ran: bool,
    starts: u64,
    stops: [u64; 3],
}

impl Control {
    /// Writes the counters for a person to read.
    pub(super) fn show(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "starts {}", self.starts)?;

        for (name, count) in ["stopped", "gone", "unproven"].into_iter().zip(self.stops) {
            writeln!(f, "{name} {count}")?;
        }

        Ok(())
    }
}

impl Binding {
    /// Makes the device forget all, and lets it access memory; stops it before, if `again`.
    fn start(&self, again: bool) -> Result {
        let mut control = self.control.lock();
        let mut stopped = Free::default();

        if again && control.hooks.is_some() {
            (_, stopped) = self.stop_locked(&mut control, false);
        }

        let started = match &*control {
            Control { ended: true, .. } => Err(ESHUTDOWN),
            Control { events: 1.., .. } => {
                control.ran |= again && self.resumes();
                Err(EBUSY)
            }
            _ if self.state() == State::Gone => Err(ENODEV),
            _ => self.start_locked(&mut control),
        };

        // What is freed now may lead here.
        drop(control);
        self.reclaim(stopped);
        started.map(|free| self.reclaim(free))
    }

    fn start_locked(&self, control: &mut Control) -> Result<Free> {
        let hooks = control.hooks.ok_or(ENODEV)?;

        match self.state() {
            State::Running => return Ok(Free::default()),
            State::Idle | State::Stopping | State::Unproven => self.close(),
            // Who was gone may be back after an event.
            State::Stopped | State::Gone => {}
        }

        // SAFETY: By the type invariants.
        if let Err(e) = unsafe { hooks.start(self) } {
            // What was proven before stays so.
            if self.state() == State::Stopping {
                self.give_up();
            }

            return Err(e);
        }

        // SAFETY: Having forgotten all is a proof, too; nothing is started while the state is not
        // open.
        let free = unsafe { self.prove(State::Stopped) };

        // SAFETY: The device has just forgotten what it was given.
        unsafe { self.open() };
        self.wake();
        control.starts += 1;
        Ok(free)
    }

    /// Stops the device, if it isn't proven to have stopped, and wakes who waits for it.
    fn stop(&self) -> Outcome {
        let mut control = self.control.lock();

        // An event that is under way doesn't start it either.
        control.ran = false;

        let (outcome, free) = self.stop_locked(&mut control, false);

        drop(control);
        self.reclaim(free);
        outcome
    }

    fn stop_locked(&self, control: &mut Control, last: bool) -> (Outcome, Free) {
        let known = match self.state() {
            State::Stopped => Some(Outcome::Stopped),
            State::Gone => Some(Outcome::Gone),
            State::Idle | State::Running | State::Stopping | State::Unproven => None,
        };

        match known {
            Some(outcome) if !last => return (outcome, Free::default()),
            Some(_) => {}
            None => self.close(),
        }

        let Some(hooks) = control.hooks else {
            self.give_up();
            return (Outcome::Unproven, Free::default());
        };

        // SAFETY: By the type invariants.
        let outcome = unsafe { hooks.stop(self, last) };

        control.finished = last && outcome != Outcome::Unproven;

        if let Some(known) = known {
            return (known, Free::default());
        }

        // CAST: A variant of three.
        control.stops[outcome as usize] += 1;

        let state = match outcome {
            Outcome::Stopped => State::Stopped,
            Outcome::Gone => State::Gone,
            Outcome::Unproven => {
                self.give_up();
                pr_err!(
                    "{}: the device could not be proven to have stopped: \
                     what it may access is not freed\n",
                    self.name()
                );
                return (outcome, Free::default());
            }
        };

        // SAFETY: By the contract of `Quiesce`, and of `BusMaster::off()`; nothing is started since
        // the state is not open.
        let free = unsafe { self.prove(state) };

        self.wake();
        (outcome, free)
    }

    /// Stops the device for good.
    fn finish(&self) {
        let mut control = self.control.lock();

        control.ended = true;

        if control.finished {
            return;
        }

        let (_, free) = self.stop_locked(&mut control, true);

        drop(control);
        self.reclaim(free);
    }

    /// Keeps the device from being started, until [`resume`](Self::resume), and stops it.
    fn pause(&self) -> Result {
        let mut control = self.control.lock();

        if control.events == 0 {
            control.ran = self.state() == State::Running;
        }

        control.events += 1;

        if control.hooks.is_none() {
            return Ok(());
        }

        let (outcome, free) = self.stop_locked(&mut control, false);

        drop(control);
        self.reclaim(free);

        match outcome {
            Outcome::Unproven => Err(EBUSY),
            Outcome::Stopped | Outcome::Gone => Ok(()),
        }
    }

    /// An event is over. If it was the last one, and the device ran before, starts it if the driver
    /// can go on, or ends its use. Returns whether it was started.
    pub(super) fn resume(&self) -> Result<bool> {
        let mut control = self.control.lock();

        control.events = control.events.saturating_sub(1);

        if control.events > 0 || control.ended || !core::mem::take(&mut control.ran) {
            return Ok(false);
        }

        if !self.resumes() {
            control.ended = true;
            return Ok(false);
        }

        let started = self.start_locked(&mut control);

        drop(control);
        started.map(|free| self.reclaim(free))?;
        Ok(true)
    }

    /// A bus error is reported.
    #[cfg(CONFIG_PCI)]
    fn error_begins(&self) {
        // It may be reported more than once.
        if !core::mem::replace(&mut self.control.lock().error, true) {
            // Where the bus is frozen there may be no proof; forgetting is one, after the reset.
            let _ = self.pause();
        }
    }

    /// It is over. It may have been reported before the driver was bound, which says nothing here.
    #[cfg(CONFIG_PCI)]
    fn error_ends(&self) -> Result<bool> {
        if !core::mem::take(&mut self.control.lock().error) {
            return Ok(false);
        }

        self.resume()
    }

    /// Before the system goes to sleep: keeps the device from being started, unless it may run.
    #[cfg(CONFIG_PM_SLEEP)]
    pub(super) fn hold_if_stopped(&self) -> bool {
        let mut control = self.control.lock();

        if control.hooks.is_some() && !self.state().is_proof() && self.state() != State::Idle {
            return false;
        }

        control.ran = control.events > 0 && control.ran;
        control.events += 1;
        true
    }
}

/// The driver's part is over: it has unbound the device, or its probe has failed. Stops the device,
/// and drops what the driver gave to it. Returns whether the device is at rest, as far as it was
/// ever started.
///
/// Called by the buses, before they take away the device's DMA and power. Context: may sleep.
pub(crate) fn end(dev: &Device<Core<'_>>) -> bool {
    finish(dev);
    devres::release_all(dev);

    Binding::find(dev).is_none_or(|binding| {
        let control = binding.control.lock();

        control.starts == 0 || control.finished
    })
}

/// Stops a device for good.
///
/// Called by the buses, also when the system goes down. Context: may sleep.
pub(crate) fn finish(dev: &Device<Bound>) {
    if let Some(binding) = Binding::find(dev) {
        binding.finish();
    }
}

/// Stops a device for an event that it is to survive.
///
/// Called by the buses. Context: may sleep.
///
/// # Errors
///
/// [`EBUSY`] if the device could not be proven to have stopped: it should not come to the event.
/// [`resume`] must be called in any case.
#[cfg_attr(
    not(any(CONFIG_PCI, CONFIG_RUST_DMA_KUNIT_TEST)),
    expect(dead_code, reason = "for buses with such events")
)]
pub(crate) fn pause(dev: &Device<Bound>) -> Result {
    Binding::find(dev).map_or(Ok(()), Binding::pause)
}

/// The event is over; returns whether the device was started.
///
/// Called by the buses, once for each [`pause`]. Context: may sleep.
///
/// # Errors
///
/// What [`Quiesce::forget`] says; the device stays stopped.
#[cfg_attr(
    not(any(CONFIG_PCI, CONFIG_RUST_DMA_KUNIT_TEST)),
    expect(dead_code, reason = "for buses with such events")
)]
pub(crate) fn resume(dev: &Device<Bound>) -> Result<bool> {
    Binding::find(dev).map_or(Ok(false), Binding::resume)
}

/// A bus error is reported: as [`pause`], until [`error_ends`].
///
/// Called by the PCI bus. Context: may sleep.
#[cfg(CONFIG_PCI)]
pub(crate) fn error_begins(dev: &Device<Bound>) {
    if let Some(binding) = Binding::find(dev) {
        binding.error_begins();
    }
}

/// The bus error is over: as [`resume`].
///
/// Called by the PCI bus. Context: may sleep.
///
/// # Errors
///
/// As [`resume`].
#[cfg(CONFIG_PCI)]
pub(crate) fn error_ends(dev: &Device<Bound>) -> Result<bool> {
    Binding::find(dev).map_or(Ok(false), Binding::error_ends)
}

/// Belongs to the device, which drops it before it loses its DMA and its power.
#[pin_data(PinnedDrop)]
struct Installed<'a, Q: Quiesce> {
    binding: &'a Binding,
    /// Reached by the hooks.
    hardware: KBox<Hardware<'a, Q>>,
    #[pin]
    _refusal: Refusal,
}

impl<'a, Q: Quiesce> Installed<'a, Q> {
    fn init(
        binding: &'a Binding,
        dev: &'a Device<Bound>,
        hardware: KBox<Hardware<'a, Q>>,
    ) -> impl PinInit<Self, Error> {
        try_pin_init!(Self {
            binding,
            hardware,
            // SAFETY: Both outlive it: a `Binding` is the oldest resource of its device.
            _refusal <- unsafe { Refusal::new(binding, dev) },
        }? Error)
    }
}

#[pinned_drop]
impl<Q: Quiesce> PinnedDrop for Installed<'_, Q> {
    fn drop(self: Pin<&mut Self>) {
        let ended = self.binding.control.lock().ended;

        // Buses have done so. If the device couldn't be stopped then, it can't be now either: once
        // is enough to say so.
        if !ended {
            self.binding.finish();
        }

        self.binding.control.lock().hooks = None;
    }
}

/// All that a device may touch, and its stop.
///
/// There is one for a bound device. `R` is what the device may access: slots, rings, coherent
/// memory, whatever owns it. It is reached by reference only, and freed when the enclosure is
/// dropped *and* the device was proven to have stopped; without that proof it is quarantined as a
/// whole. How the device is stopped belongs to the device, not to this value: dropping or
/// forgetting an enclosure stops nothing, frees nothing that the device may access, and takes no
/// proof away.
///
/// Context of dropping it: that of dropping an `R`.
///
/// # Examples
///
/// ```
/// # use kernel::{device::{Core, Device}, prelude::*, sync::Mutex};
/// use kernel::dma::{
///     oneshot::{Engine, Slot},
///     Configured, Enclosure, Quiesce,
/// };
///
/// type Contents<'a, E> = Mutex<Slot<'a, E, KVec<u8>>>;
///
/// fn bring_up<'a, E: Engine + 'a>(
///     dev: &Device<Core<'a>>,
///     engine: E,
///     quiesce: impl Quiesce + 'a,
/// ) -> Result<Enclosure<'a, Contents<'a, E>>> {
///     let dma = Configured::get(dev.bound())?;
///     let slot = kernel::new_mutex!(Slot::new(dma, engine)?);
///     let enclosure = Enclosure::new(dev, quiesce, slot)?;
///
///     // From here on the device can do DMA.
///     enclosure.start()?;
///     Ok(enclosure)
/// }
/// ```
pub struct Enclosure<'a, R: Send> {
    dev: &'a Device<Bound>,
    binding: &'a Binding,
    contents: ManuallyDrop<Pin<KBox<R>>>,
}

impl<'a, R: Send + 'a> Enclosure<'a, R> {
    /// Makes the enclosure of a device, which is not started yet.
    ///
    /// Context: may sleep.
    ///
    /// # Errors
    ///
    /// - [`EBUSY`] if the device has, or had since it was bound, an enclosure;
    /// - [`EINVAL`] if the driver has no `dma_setup()`, or if `quiesce` is about another device;
    /// - [`ENOMEM`], and what the initialiser says.
    pub fn new<Q: Quiesce + 'a, E>(
        dev: &Device<Core<'a>>,
        quiesce: Q,
        contents: impl PinInit<R, E>,
    ) -> Result<Self>
    where
        Error: From<E>,
    {
        let bound = dev.bound();
        let binding = Configured::get(bound)?.binding()?;

        let contents = KBox::pin_init(contents, GFP_KERNEL)?;
        let mut hardware = KBox::new(Hardware::new(bound, quiesce)?, GFP_KERNEL)?;
        let hooks = Hooks::new(&mut *hardware);

        // Nobody else is here: `dev` isn't `Sync`.
        if binding.control.lock().hooks.is_some() {
            dev_err!(dev, "a device has one enclosure\n");
            return Err(EBUSY);
        }

        dev.give(Installed::init(binding, bound, hardware))?;
        // INVARIANT: The hardware is there until `Installed` is dropped, which takes the hooks
        // back.
        binding.control.lock().hooks = Some(hooks);

        Ok(Self {
            dev: bound,
            binding,
            contents: ManuallyDrop::new(contents),
        })
    }

    /// Makes the device forget all addresses, and lets it access memory: a PCI device gets bus
    /// mastering.
    ///
    /// What was in flight before is over then, and waiters find that. Does nothing if the device
    /// runs. Context: may sleep.
    ///
    /// # Errors
    ///
    /// - what [`Quiesce::forget`] says;
    /// - [`EBUSY`] while the device is suspended or reset;
    /// - [`ESHUTDOWN`] if it is being unbound or shut down, or was reset and the driver can't go
    ///   on;
    /// - [`ENODEV`] if it is gone.
    pub fn start(&self) -> Result {
        self.binding.start(false)
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
        self.binding.start(true)
    }

    /// Stops the device until it is started again, and wakes who waits for it.
    ///
    /// All that was in flight is over, if the device was proven to have stopped. If it was not,
    /// this may be tried again. Context: may sleep.
    pub fn stop(&self) -> Outcome {
        self.binding.stop()
    }
}

impl<R: Send> Deref for Enclosure<'_, R> {
    type Target = R;

    #[inline]
    fn deref(&self) -> &R {
        &self.contents
    }
}

impl<R: Send> Drop for Enclosure<'_, R> {
    fn drop(&mut self) {
        // SAFETY: `self` is not used afterwards.
        let contents = unsafe { ManuallyDrop::take(&mut self.contents) };

        self.binding.put_away(self.dev, Contents(contents));
    }
}

/// What was in an enclosure that was dropped.
struct Contents<R>(Pin<KBox<R>>);

// SAFETY: Releasing is dropping.
unsafe impl<R: Send> Keep for Contents<R> {
    // The device is stopped when it is unbound, so a driver may drop it before.
    const ACCIDENT: bool = false;

    fn bytes(&self) -> usize {
        size_of::<R>()
    }

    unsafe fn release(self) {
        drop(self.0);
    }
}
