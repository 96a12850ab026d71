// SPDX-License-Identifier: GPL-2.0

//! How a bound device is started and stopped, whether the driver or the bus asks for it.

#[cfg(CONFIG_RUST_DMA_DEBUG)]
use super::debug;
use super::{
    super::mapping::{
        orphan::{
            Keeper,
            Kept, //
        },
        record::Record, //
    },
    bus::Bus,
    quarantine::{
        Proven,
        Quarantine, //
    },
    quiesce::{
        Disarmed,
        Hardware, //
    },
    state::{
        Action,
        Event,
        State, //
    },
    suspend::Refusal,
    StopOutcome, //
};
#[cfg(CONFIG_RUST_DMA_DEBUG)]
use crate::debugfs;
use crate::{
    device::{
        Bound,
        Device, //
    },
    devres::Kind,
    new_mutex,
    new_spinlock_irq,
    new_wait_queue,
    prelude::*,
    sync::{
        aref::ARef,
        atomic::{
            Atomic,
            Relaxed, //
        },
        Mutex,
        MutexGuard,
        SpinLockIrq,
        WaitQueue, //
    }, //
};
use core::ptr::NonNull;

/// The state of a device, and everything else that decides whether it may be started.
struct Machine {
    known: State,
    hardware: Option<Hardware>,
    /// Whether the device was reset and the driver can't go on: it isn't started again.
    is_retired: bool,
    /// How many events, like a suspend, keep the device from being started.
    holds: u32,
    /// Whether to start it when the last of these events is over. Also set while there is none, if
    /// it was to be restarted and couldn't be: the next one may put it right.
    is_wanted: bool,
    /// Whether a bus error is under way.
    #[cfg(CONFIG_PCI)]
    has_error: bool,
    starts: u64,
    /// By [`StopOutcome`].
    stops: [u64; 3],
}

/// Tells a [`Control`] from other resources of a device.
static CONTROL: Kind = Kind::new();

/// What a bound device has besides its [`Record`]: its state, the means to stop it, the threads
/// that wait for it, and its quarantine.
///
/// The bus adds it before `probe()`, right after the record. So it is released right before the
/// record, and after everything that a driver adds.
#[pin_data]
pub(in crate::dma) struct Control {
    // Dropped first, since it reads the other fields.
    #[cfg(CONFIG_RUST_DMA_DEBUG)]
    #[pin]
    file: debugfs::File<debug::View>,
    #[pin]
    refusal: Refusal,
    dev: ARef<Device>,
    record: NonNull<Record>,
    bus: Option<KBox<dyn Bus>>,
    /// Whether the driver can go on after a stop.
    resumes: Atomic<bool>,
    /// Held while the device is started or stopped.
    #[pin]
    machine: Mutex<Machine>,
    #[pin]
    quarantine: SpinLockIrq<Quarantine>,
    /// Woken when the device is started or stopped. Threads wait here alone, or here and on a queue
    /// of the driver.
    #[pin]
    stops: WaitQueue,
}

// SAFETY: The record is `Send` and `Sync`, and so are the other fields.
unsafe impl Send for Control {}

// SAFETY: As above.
unsafe impl Sync for Control {}

impl Keeper for Control {
    fn keep(&self, orphan: Kept, is_needed: &dyn Fn() -> bool) -> Result<(), Kept> {
        Quarantine::keep(&self.quarantine, orphan, is_needed)
    }

    #[cfg(CONFIG_RUST_DMA_FIXTURE)]
    fn set_resumes(&self, resumes: bool) {
        self.resumes.store(resumes, Relaxed);
    }

    #[cfg(CONFIG_RUST_DMA_FIXTURE)]
    fn open_for_test(&self) {
        let mut machine = self.machine.lock();

        if machine.hardware.is_some() {
            return;
        }

        if !matches!(machine.known, State::Closed | State::Stopped) {
            return;
        }

        // SAFETY: It was never open, or is proven to access nothing of what it was shown since.
        unsafe { self.record().open() };

        machine.known = State::Running;
    }

    #[cfg(CONFIG_RUST_DMA_FIXTURE)]
    unsafe fn prove_for_test(&self) {
        self.record().close();

        // SAFETY: By the safety requirement; it was just closed.
        let proven = unsafe { Quarantine::prove(&self.quarantine, self.record()) };

        self.machine.lock().known = State::Stopped;
        proven.reclaim(&self.quarantine);
    }
}

impl Control {
    /// Adds a [`Control`] to a device that is about to be probed, and that has a record.
    ///
    /// Context: may sleep.
    pub(super) fn add(dev: &Device<Bound>, resumes: bool, bus: Option<KBox<dyn Bus>>) -> Result {
        let record = Record::find(dev).ok_or(EINVAL)?;
        let this = KBox::pin_init(Self::init(dev, record, resumes, bus)?, GFP_KERNEL)?;
        let keeper: NonNull<dyn Keeper> = NonNull::from(&*this);

        // SAFETY: A `Control` borrows nothing.
        unsafe { CONTROL.add(dev, this) }?;

        // SAFETY: It was added before the driver added anything. So it is released after everything
        // else that borrows the bound device.
        unsafe { record.set_keeper(keeper) };

        Ok(())
    }

    fn init(
        dev: &Device<Bound>,
        record: &Record,
        resumes: bool,
        bus: Option<KBox<dyn Bus>>,
    ) -> Result<impl PinInit<Self, Error>> {
        let record = NonNull::from(record);
        let owned: ARef<Device> = dev.into();
        let machine = Machine {
            known: State::Closed,
            hardware: None,
            is_retired: false,
            holds: 0,
            is_wanted: false,
            #[cfg(CONFIG_PCI)]
            has_error: false,
            starts: 0,
            stops: [0; 3],
        };
        #[cfg(CONFIG_RUST_DMA_DEBUG)]
        let (dir, name) = (debug::root(), debug::unique_name(dev)?);

        Ok(try_pin_init!(&this in Self {
            record,
            bus,
            resumes: Atomic::new(resumes),
            machine <- new_mutex!(machine, "dma::Control::machine"),
            quarantine <- new_spinlock_irq!(Quarantine::new(owned.clone()), "dma::Quarantine"),
            stops <- new_wait_queue!("dma::Control::stops"),
            dev: owned,
            // SAFETY: All of `this` is initialised except these two, which don't use each other,
            // and are dropped before the rest.
            refusal <- unsafe { Refusal::new(this) },
            #[cfg(CONFIG_RUST_DMA_DEBUG)]
            // SAFETY: As above.
            file <- unsafe { debug::View::init(this, &dir, &name) },
        }? Error))
    }

    /// Returns the [`Control`] of a device, if its driver has constraints.
    ///
    /// Context: any. Walks the resource list of the device.
    pub(in crate::dma) fn find(dev: &Device<Bound>) -> Option<&Self> {
        // SAFETY: `add()` has added a `Pin<KBox<Self>>`, which is released after all else that
        // borrows the bound device.
        unsafe { CONTROL.find::<Pin<KBox<Self>>>(dev) }.map(Pin::get_ref)
    }

    #[cfg(CONFIG_PM_SLEEP)]
    pub(super) fn device(&self) -> &Device {
        &self.dev
    }

    fn record(&self) -> &Record {
        // SAFETY: The record was added to the device before `self`, so it is released after `self`.
        unsafe { self.record.as_ref() }
    }

    /// Returns the queue that is woken when the device was started or stopped, or couldn't be
    /// stopped.
    pub(in crate::dma) fn stops(&self) -> &WaitQueue {
        &self.stops
    }

    /// Returns whether the driver can go on after a stop.
    pub(super) fn resumes(&self) -> bool {
        self.resumes.load(Relaxed)
    }

    #[cfg(CONFIG_RUST_DMA_DEBUG)]
    pub(super) fn state(&self) -> State {
        self.machine.lock().known
    }

    /// Returns how often the device was started, and how often it was stopped, by [`StopOutcome`].
    #[cfg(CONFIG_RUST_DMA_DEBUG)]
    pub(super) fn turns(&self) -> (u64, [u64; 3]) {
        let machine = self.machine.lock();

        (machine.starts, machine.stops)
    }

    /// Returns how many orphans were dropped by accident, and how many of these were freed since.
    #[cfg(any(CONFIG_RUST_DMA_DEBUG, CONFIG_RUST_DMA_KUNIT_TEST))]
    pub(in crate::dma) fn counts(&self) -> (u64, u64) {
        self.quarantine.lock().counts()
    }

    /// Keeps the device from memory, if its bus can, and returns whether that is a proof.
    pub(super) fn close_bus(&self) -> StopOutcome {
        self.bus
            .as_ref()
            .map_or(StopOutcome::Unproven, |bus| bus.close())
    }

    /// Takes the means to stop the hardware, once for each binding.
    ///
    /// # Errors
    ///
    /// [`EBUSY`] if the device has, or had, a session, or is being shut down.
    pub(super) fn install(&self, hardware: Hardware) -> Result {
        let mut machine = self.machine.lock();

        if machine.hardware.is_some() || machine.known != State::Closed {
            dev_err!(&self.dev, "a device has one session\n");
            return Err(EBUSY);
        }

        machine.hardware = Some(hardware);
        Ok(())
    }

    /// Starts the device. If `again`, stops it before.
    pub(super) fn start(&self, again: bool) -> Result {
        let mut machine = self.machine.lock();
        let mut proven = Proven::default();

        if again {
            (_, proven) = self.stop_locked(&mut machine);
        }

        let is_over = machine.is_retired || matches!(machine.known, State::Ended | State::Lost);

        let started = if machine.holds > 0 && !is_over {
            Err(EBUSY)
        } else {
            self.start_locked(&mut machine, Event::Start)
        };

        if started.is_ok() {
            machine.is_wanted = false;
        } else {
            // An event makes up for it: one that is under way, or the one that it fails for.
            machine.is_wanted |= again && !is_over && self.resumes();
        }

        // Freeing may call methods of `self`, so the lock is released before.
        drop(machine);
        proven.reclaim(&self.quarantine);
        started.map(|proven| proven.reclaim(&self.quarantine))
    }

    fn start_locked(&self, machine: &mut Machine, event: Event) -> Result<Proven> {
        match machine.known.on(event) {
            Action::Stay => return Ok(Proven::default()),
            Action::Absent => return Err(ENODEV),
            _ if machine.is_retired => return Err(ESHUTDOWN),
            Action::Start => {}
            Action::Refuse | Action::Quiesce | Action::End => return Err(ESHUTDOWN),
        }

        let hardware = machine.hardware.as_mut().ok_or(ENODEV)?;

        let disarmed = self.disarm(hardware).inspect_err(|e| {
            dev_err!(
                &self.dev,
                "the device can't be disarmed ({e:?}): not started\n"
            )
        })?;

        // Before the device is shown anything, or else its first accesses could fail.
        if let Some(bus) = &self.bus {
            bus.open(disarmed).inspect_err(|e| {
                dev_err!(
                    &self.dev,
                    "its bus keeps the device from memory ({e:?}): not started\n"
                )
            })?;
        }

        // SAFETY: A device that was disarmed accesses nothing, also if its bus lets it. It is
        // closed: it was never opened, or has been closed since it was stopped.
        let proven = unsafe { Quarantine::prove(&self.quarantine, self.record()) };

        // SAFETY: The proof was just recorded, and a device that isn't open is shown nothing. It
        // was disarmed, so it holds no address.
        unsafe { self.record().open() };

        machine.known = State::Running;
        machine.starts += 1;
        self.stops.wake_all();
        Ok(proven)
    }

    /// Disarms the device, while its bus keeps it from memory.
    fn disarm(&self, hardware: &mut Hardware) -> Result<Disarmed> {
        // The PCI core switches bus mastering on by itself where it restores what it saved.
        self.close_bus();
        hardware.disarm()
    }

    /// Stops the device, unless it was proven to have stopped, and wakes the threads that wait.
    pub(super) fn stop(&self) -> StopOutcome {
        let mut machine = self.machine.lock();

        // No event starts it either.
        machine.is_wanted = false;

        let (outcome, proven) = self.stop_locked(&mut machine);

        drop(machine);
        proven.reclaim(&self.quarantine);
        outcome
    }

    fn stop_locked(&self, machine: &mut Machine) -> (StopOutcome, Proven) {
        if machine.known.on(Event::Stop) != Action::Quiesce {
            let known = match machine.known {
                State::Gone => StopOutcome::Gone,
                State::Lost => StopOutcome::Unproven,
                _ => StopOutcome::Stopped,
            };

            return (known, Proven::default());
        }

        self.record().close();

        let outcome = machine
            .hardware
            .as_mut()
            .map_or(StopOutcome::Unproven, |hardware| self.quiesce(hardware));

        machine.known = match outcome {
            StopOutcome::Stopped => State::Stopped,
            StopOutcome::Gone => State::Gone,
            StopOutcome::Unproven => State::Unproven,
        };
        (outcome, self.conclude(machine, outcome))
    }

    /// Quiesces the engine, and then has the bus keep the device from memory. In this order, since
    /// some devices break when they are cut off in the middle of their work.
    fn quiesce(&self, hardware: &mut Hardware) -> StopOutcome {
        let engine = hardware.quiesce();
        let bus = self.close_bus();

        match (engine, bus) {
            (StopOutcome::Gone, _) | (_, StopOutcome::Gone) => StopOutcome::Gone,
            (StopOutcome::Stopped, _) => StopOutcome::Stopped,
            (StopOutcome::Unproven, bus) if hardware.heeds_bus() => bus,
            (StopOutcome::Unproven, _) => StopOutcome::Unproven,
        }
    }

    /// Records the outcome of a stop, and wakes the threads that wait. The device must be closed.
    fn conclude(&self, machine: &mut Machine, outcome: StopOutcome) -> Proven {
        // CAST: The discriminant is 0, 1 or 2.
        machine.stops[outcome as usize] += 1;

        let proven = match outcome {
            // SAFETY: By the contracts of `Quiesce` and `Bus`, the device accesses nothing that it
            // was shown before. The caller has closed it.
            StopOutcome::Stopped | StopOutcome::Gone => unsafe {
                Quarantine::prove(&self.quarantine, self.record())
            },
            StopOutcome::Unproven => {
                self.record().settle();
                dev_err!(
                    &self.dev,
                    "the device could not be proven to have stopped: \
                     what it may access is not freed\n"
                );
                Proven::default()
            }
        };

        self.stops.wake_all();
        proven
    }

    /// Stops the device for good, and disarms it. A stop isn't enough: the next driver may let the
    /// device access memory as it is.
    pub(super) fn end(&self) {
        self.end_locked(self.machine.lock());
    }

    /// As [`end`](Self::end), for a driver that doesn't go on after an event. Does nothing, and
    /// returns false, if the device was stopped since: who did that may start it again.
    #[cfg(any(CONFIG_PCI, CONFIG_RUST_DMA_KUNIT_TEST))]
    pub(super) fn end_if_running(&self) -> bool {
        let machine = self.machine.lock();
        let is_running = machine.known == State::Running;

        if is_running {
            self.end_locked(machine);
        }

        is_running
    }

    /// As [`end`](Self::end). Releases the lock.
    fn end_locked(&self, mut machine: MutexGuard<'_, Machine>) {
        if machine.known.on(Event::End) != Action::End {
            return;
        }

        let is_open = matches!(machine.known, State::Running | State::Unproven);

        if is_open {
            self.record().close();
        }

        let Some(hardware) = machine.hardware.as_mut() else {
            // A device without a session was shown nothing. If a test opened it, nothing is known.
            self.record().settle();
            machine.known = if is_open { State::Lost } else { State::Ended };
            self.stops.wake_all();
            return;
        };

        let outcome = match self.quiesce(hardware) {
            StopOutcome::Gone => StopOutcome::Gone,
            _ => match self.disarm(hardware) {
                Ok(_) => StopOutcome::Stopped,
                Err(e) => {
                    dev_err!(
                        &self.dev,
                        "the device can't be disarmed ({e:?}): \
                         not to be used by another driver\n"
                    );
                    StopOutcome::Unproven
                }
            },
        };

        machine.known = match outcome {
            StopOutcome::Stopped | StopOutcome::Gone => State::Ended,
            StopOutcome::Unproven => State::Lost,
        };

        let proven = if is_open {
            self.conclude(&mut machine, outcome)
        } else {
            // The proof from before still holds: the device was shown nothing since.
            self.stops.wake_all();
            Proven::default()
        };

        drop(machine);
        proven.reclaim(&self.quarantine);
    }

    /// Drops the means to stop the hardware, at the end of the driver's use. Returns whether the
    /// device is at rest, or was never started.
    pub(super) fn retire(&self) -> bool {
        let mut machine = self.machine.lock();
        let hardware = machine.hardware.take();
        let is_at_rest = machine.starts == 0 || machine.known == State::Ended;

        drop(machine);
        drop(hardware);
        is_at_rest
    }

    /// Stops the device for an event, and keeps it from being started until
    /// [`release_hold`](Self::release_hold).
    pub(super) fn hold(&self) -> Result {
        let mut machine = self.machine.lock();

        if machine.holds == 0 {
            machine.is_wanted |= machine.known == State::Running;
        }

        machine.holds += 1;

        let (outcome, proven) = self.stop_locked(&mut machine);
        // All is kept that it may access, and it isn't started again: there is nothing to wait for.
        let is_lost = machine.known == State::Lost;

        drop(machine);
        proven.reclaim(&self.quarantine);

        match outcome {
            StopOutcome::Unproven if !is_lost => Err(EBUSY),
            _ => Ok(()),
        }
    }

    /// Ends an event. If it was the last one, and the device is to run, this starts the device if
    /// the driver can go on, and otherwise lets nothing start it any more. Returns whether it was
    /// started. If that fails, the next event tries again.
    pub(super) fn release_hold(&self) -> Result<bool> {
        let mut machine = self.machine.lock();

        machine.holds = machine.holds.saturating_sub(1);

        if machine.holds > 0
            || matches!(machine.known, State::Ended | State::Lost)
            || !machine.is_wanted
        {
            return Ok(false);
        }

        if !self.resumes() {
            machine.is_wanted = false;
            machine.is_retired = true;
            return Ok(false);
        }

        let started = self.start_locked(&mut machine, Event::Resume);

        machine.is_wanted = started.is_err();
        drop(machine);
        started.map(|proven| proven.reclaim(&self.quarantine))?;
        Ok(true)
    }

    /// Holds the device, for which a bus error was reported, until
    /// [`error_ends`](Self::error_ends).
    #[cfg(CONFIG_PCI)]
    pub(super) fn error_begins(&self) {
        // An error may be reported more than once.
        if !core::mem::replace(&mut self.machine.lock().has_error, true) {
            // While the bus is frozen there may be no proof. After the reset, disarming is one.
            let _ = self.hold();
        }
    }

    /// Ends a bus error. Does nothing if the error was reported before the driver was bound.
    #[cfg(CONFIG_PCI)]
    pub(super) fn error_ends(&self) -> Result<bool> {
        if !core::mem::take(&mut self.machine.lock().has_error) {
            return Ok(false);
        }

        self.release_hold()
    }

    /// Keeps the device from being started while the system sleeps, unless it is at work. Returns
    /// whether it is kept.
    #[cfg(CONFIG_PM_SLEEP)]
    pub(super) fn hold_if_stopped(&self) -> bool {
        let mut machine = self.machine.lock();

        if matches!(machine.known, State::Running | State::Unproven) {
            return false;
        }

        machine.is_wanted = machine.holds > 0 && machine.is_wanted;
        machine.holds += 1;
        true
    }
}
