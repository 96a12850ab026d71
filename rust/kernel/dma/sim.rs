// SPDX-License-Identifier: GPL-2.0

//! A simulated bus, on which mistakes with DMA show, on any machine.
//!
//! Real machines forgive: caches are coherent, bounce buffers are rare, devices do what they are
//! told, and nobody sees the CPU touch a buffer that a device owns. On this bus,
//!
//! - the CPU and the device see two memories ([`Model::NonCoherent`], [`Model::Bounce`]), which
//!   only mapping, syncing and unmapping make equal; what a side must not rely on is poisoned;
//! - bus addresses are never physical ones, have their top bit set, and are not used again soon;
//! - each access of the device is checked against what is mapped, in which direction, and whose
//!   turn it is ([`Fault`]);
//! - the k-th mapping or allocation fails, or the address space ends, where the test wants it;
//! - a device (`CopyEngine`, [`RingConsumer`]) does what its [`Script`] says: late, out of order,
//!   twice, never, with lies about lengths and indexes; it may refuse to stop, or be gone;
//! - loads and stores are reordered where no barrier keeps them from it, if the script says so
//!   ([`Script::weak_order`]);
//! - all calls and bytes are counted ([`Counters`]), and what is left mapped at the end is reported
//!   with who mapped it.
//!
//! A run depends on the script and its seed only. [`run`] gives a test a bound device on such a
//! bus, and checks at the end that there was no fault, nothing is left mapped and no device is at
//! work.
//!
//! It is a `struct dma_map_ops` of its own, so all of the DMA API's C code above runs, DMA API
//! debugging included. For KUnit tests; not for use in drivers.
//!
//! See `Documentation/rust/dma/testing.rst`.
//!
//! C header: [`include/linux/dma-map-ops.h`](srctree/include/linux/dma-map-ops.h)

mod addresses;
pub(crate) mod barrier;
mod bus;
mod controller;
mod controller_queue;
mod copy_engine;
mod device;
mod faults;
mod ops;
mod order;
mod queue;
mod ring_consumer;
mod ring_queue;
mod schedule;
mod site;
#[cfg(CONFIG_RUST_DMA_KUNIT_TEST)]
mod tests;
mod views;

pub use self::{
    controller::{
        Controller,
        Forged,
        ReadCommand, //
    },
    controller_queue::{
        Command,
        Completes,
        Completion,
        ControllerStopper,
        List,
        Submits, //
    },
    copy_engine::{
        Copier,
        CopyEngine, //
    },
    faults::Fault,
    ring_consumer::RingConsumer,
    ring_queue::{
        OwnedReceiver,
        OwnedReceiverDescriptor,
        OwnedSendDescriptor,
        OwnedSender,
        Receiver,
        ReceiverDescriptor,
        RingStopper,
        SendDescriptor,
        Sender, //
    },
    schedule::{
        Fate,
        Stop, //
    },
    views::{
        CPU_POISON,
        DEVICE_POISON,
        LATE_POISON, //
    },
};

use self::{
    bus::{
        Access,
        Bus,
        MAX_BOUNCE, //
    },
    device::Device as SimDevice, //
};
use super::{
    fixture,
    Constraints,
    DmaAddress,
    DmaMask, //
};
use crate::{
    bindings,
    device::{
        Core,
        Device, //
    },
    impl_has_hr_timer,
    irq,
    new_spinlock_irq,
    platform,
    prelude::*,
    sync::{
        aref::ARef,
        atomic::{
            Acquire,
            Atomic,
            Release, //
        },
        Arc,
        ArcBorrow,
        SetOnce,
        SpinLockIrq, //
    },
    time::{
        hrtimer::{
            ArcHrTimerHandle,
            HrTimer,
            HrTimerCallback,
            HrTimerCallbackContext,
            HrTimerPointer,
            HrTimerRestart,
            RelativeMode, //
        },
        Delta,
        Monotonic, //
    }, //
};

/// How long a tick takes where a timer makes it.
const TICK: Delta = Delta::from_micros(200);

/// How the CPU and the device see memory.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Model {
    /// Both see the same memory; addresses are translated as by an IOMMU.
    Coherent,
    /// The device doesn't see the CPU's caches; addresses are translated as by an IOMMU.
    NonCoherent,
    /// The device sees bounce buffers, which have no more than 256 KiB each.
    Bounce,
}

impl Model {
    /// All of them.
    pub const ALL: [Self; 3] = [Self::Coherent, Self::NonCoherent, Self::Bounce];

    fn max_mapping_size(self) -> usize {
        match self {
            Self::Coherent | Self::NonCoherent => usize::MAX,
            Self::Bounce => MAX_BOUNCE,
        }
    }
}

/// What a bus and its devices are like.
///
/// # Examples
///
/// ```
/// use kernel::dma::{sim::{Fate, Model, Script, Stop}, DmaMask, Constraints};
///
/// let script = Script::new(Model::NonCoherent)
///     .constraints(Constraints::new(DmaMask::new::<32>()))
///     .fate(Fate::within(20))
///     .stop(Stop::Hangs)
///     .seed(42);
/// # let _ = script;
/// ```
#[derive(Clone, Copy, Debug)]
pub struct Script {
    model: Model,
    constraints: Constraints,
    seed: u64,
    fate: Fate,
    stop: Stop,
    smallest_mask: DmaMask,
    address_space: usize,
    weak_order: bool,
    can_mmap: bool,
}

impl Script {
    /// A device of 64-bit addresses that does what it is told at once.
    pub const fn new(model: Model) -> Self {
        Self {
            model,
            constraints: Constraints::new(DmaMask::new::<64>()),
            seed: 0,
            fate: Fate::after(0),
            stop: Stop::Works,
            smallest_mask: DmaMask::new::<24>(),
            address_space: 2 << 20,
            weak_order: false,
            can_mmap: true,
        }
    }

    /// What the driver asks for: [`Constraints`]. A device of 64-bit addresses if it isn't given.
    pub const fn constraints(mut self, constraints: Constraints) -> Self {
        self.constraints = constraints;
        self
    }

    /// What [`Fate::within`] and [`Fate::lies`] draw from.
    pub const fn seed(mut self, seed: u64) -> Self {
        self.seed = seed;
        self
    }

    /// What becomes of requests to the device, unless `then()` of the device says otherwise.
    pub const fn fate(mut self, fate: Fate) -> Self {
        self.fate = fate;
        self
    }

    /// What happens when the device is stopped.
    pub const fn stop(mut self, stop: Stop) -> Self {
        self.stop = stop;
        self
    }

    /// The smallest mask that the bus can serve: 24 bits if it isn't given. A driver that asks for
    /// a smaller one is not bound.
    pub const fn smallest_mask(mut self, mask: DmaMask) -> Self {
        self.smallest_mask = mask;
        self
    }

    /// How many bytes can be mapped at the same time: 2 MiB if it isn't given.
    pub const fn address_space(mut self, bytes: usize) -> Self {
        self.address_space = bytes;
        self
    }

    /// Whether loads and stores are reordered as far as no barrier keeps them from it. They aren't
    /// if it isn't given.
    ///
    /// It is for descriptors of a [`RingConsumer`], and for what it writes to buffers (devices of
    /// the test's own say so: see [`Sim::hold_stores`] and [`Sim::device_write_late`]):
    ///
    /// - When a descriptor is done, the CPU sees its flags at once, and only after its next
    ///   `dma_rmb()` the length, and in memory that isn't synced the frame. Before, it sees
    ///   [`LATE_POISON`], as a CPU that made these loads before that of the flags.
    /// - The device sees descriptors as they were at the CPU's last `dma_wmb()`, or when the driver
    ///   last wrote a register: as with stores that the CPU makes later than that of the flags.
    ///   Flags with [`RingConsumer::OWN`] it sees at once.
    ///
    /// Registers are written as with `writel()`, hence are a write barrier, and are read as with
    /// `readl_relaxed()`, hence are none. The barriers are [`dma_mb()`] and [`mb()`] of Rust; the
    /// bus doesn't hear of those in C code. That other code on the machine executes them, too, can
    /// hide a mistake, but never makes one.
    ///
    /// [`dma_mb()`]: kernel::sync::barrier::dma_mb
    /// [`mb()`]: kernel::sync::barrier::mb
    pub const fn weak_order(mut self, weak: bool) -> Self {
        self.weak_order = weak;
        self
    }

    /// Whether user space can map the bus's coherent memory. It can if this isn't given.
    pub const fn can_mmap(mut self, can: bool) -> Self {
        self.can_mmap = can;
        self
    }

    fn check(&self) -> Result {
        let impossible = if self.address_space == 0 {
            "no address space: nothing could be mapped"
        } else if self.smallest_mask.value() == 0 {
            "a mask of no bits"
        } else {
            return Ok(());
        };

        pr_err!("dma-sim: the script asks for the impossible: {impossible}\n");
        Err(EINVAL)
    }
}

/// What a bus was asked to do.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counters {
    /// Calls that map, also those that failed. A scatter-gather list is one call.
    pub maps: usize,
    /// Calls that unmap, also those that were faults.
    pub unmaps: usize,
    /// Calls that sync for the CPU; one for each entry of a list.
    pub syncs_for_cpu: usize,
    /// Calls that sync for the device; one for each entry of a list.
    pub syncs_for_device: usize,
    /// Bytes that maps and syncs made visible to the device.
    pub to_device: usize,
    /// Bytes that unmaps and syncs made visible to the CPU.
    pub to_cpu: usize,
    /// Allocations of coherent memory, also those that failed. A DMA pool makes them as it grows.
    pub allocs: usize,
    /// Frees of coherent memory.
    pub frees: usize,
    /// Mappings, entries of lists and allocations that there are now.
    pub live: usize,
    /// Accesses by the device, also those that were faults.
    pub accesses: usize,
    /// Accesses that were kept from memory since bus mastering was off.
    pub blocked: usize,
}

/// When ticks pass.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Clock {
    /// When the driver looks at a status register, and when the test says so
    /// ([`Sim::advance`]). The order of all that happens is always the same.
    Looks,
    /// A timer makes them, for drivers that sleep until an interrupt comes.
    Timer,
}

/// The interrupt line.
struct Line {
    handler: Option<Arc<dyn irq::Handler + Send + Sync>>,
    clock: Clock,
    /// Interrupts that came where they were off, or while the handler ran.
    waiting: usize,
    /// The handler never runs twice at the same time.
    running: bool,
}

/// A simulated bus, and the devices on it.
#[pin_data]
pub struct Sim {
    ops: bindings::dma_map_ops,
    script: Script,
    dev: SetOnce<ARef<Device>>,
    #[pin]
    bus: SpinLockIrq<Bus>,
    #[pin]
    devices: SpinLockIrq<KVec<Arc<dyn SimDevice>>>,
    #[pin]
    line: SpinLockIrq<Line>,
    /// Whether the line has a handler; without one, interrupts are lost.
    connected: Atomic<u32>,
    #[pin]
    timer: HrTimer<Self>,
    /// Keeps the bus after the run, while something outlives it that is to be given back.
    #[pin]
    keeper: SpinLockIrq<Option<Arc<Sim>>>,
}

impl_has_hr_timer! {
    impl HasHrTimer<Self> for Sim {
        mode: RelativeMode<Monotonic>, field: self.timer
    }
}

impl Sim {
    fn new(script: Script) -> Result<Arc<Self>> {
        script.check()?;

        let mut ops = ops::OPS;

        if !script.can_mmap {
            ops.mmap = None;
        }

        Arc::pin_init(
            pin_init!(Self {
                ops,
                script,
                dev: SetOnce::new(),
                bus <- new_spinlock_irq!(Bus::new(script)),
                devices <- new_spinlock_irq!(KVec::new()),
                line <- new_spinlock_irq!(Line {
                    handler: None,
                    clock: Clock::Looks,
                    waiting: 0,
                    running: false,
                }),
                connected: Atomic::new(0),
                timer <- HrTimer::new(),
                keeper <- new_spinlock_irq!(None),
            }),
            GFP_KERNEL,
        )
    }

    /// Something was given back: returns what kept the bus for it, if it was the last.
    fn keeper(&self) -> Option<Arc<Self>> {
        if !self.bus.lock().is_empty() {
            return None;
        }

        self.keeper.lock().take()
    }

    fn script(&self) -> &Script {
        &self.script
    }

    /// Returns the device of the run.
    fn device(&self) -> Result<ARef<Device>> {
        self.dev.as_ref().cloned().ok_or(ENODEV)
    }

    /// Returns what the bus was asked to do so far.
    ///
    /// Context: any.
    pub fn counters(&self) -> Counters {
        self.bus.lock().counters
    }

    /// Returns a number that stands for all that happened on the bus so far, and in which order:
    /// equal runs have equal numbers.
    ///
    /// Context: any.
    pub fn digest(&self) -> u64 {
        self.bus.lock().digest()
    }

    /// Returns the first faults since the last call, 16 at most, and forgets all: a test that
    /// provokes them looks at them here.
    ///
    /// Context: any.
    ///
    /// # Errors
    ///
    /// [`ENOMEM`].
    pub fn take_faults(&self) -> Result<KVec<Fault>> {
        let (_, records) = self.bus.lock().take_faults();
        let mut faults = KVec::with_capacity(records.len(), GFP_ATOMIC)?;

        for record in records {
            faults.push(record.fault, GFP_ATOMIC)?;
        }

        Ok(faults)
    }

    /// Returns how many mappings, entries of lists and allocations there are that were not counted
    /// here before, and has them not reported as leaks: for a test of a driver that leaves memory
    /// to a device which didn't stop.
    ///
    /// Context: any.
    pub fn take_leaks(&self) -> usize {
        self.bus.lock().forgive()
    }

    /// Lets the `k`-th mapping from now on fail, counted from 1; 0 takes it back.
    ///
    /// Context: any.
    pub fn fail_map(&self, k: u32) {
        self.bus.lock().fail_map = k;
    }

    /// Lets the `k`-th allocation of coherent memory from now on fail, counted from 1; 0 takes it
    /// back.
    ///
    /// Context: any.
    pub fn fail_alloc(&self, k: u32) {
        self.bus.lock().fail_alloc = k;
    }

    /// Switches bus mastering. It is on in the beginning.
    ///
    /// While it is off, accesses of devices go nowhere. Context: any.
    pub fn set_bus_master(&self, on: bool) {
        self.bus.lock().bus_master = on;
    }

    /// Connects an interrupt handler to the devices, and says what makes time pass, until the
    /// returned value is dropped.
    ///
    /// The handler is called as from an interrupt: with interrupts off, and lockdep knows it.
    /// Context: may sleep.
    ///
    /// # Errors
    ///
    /// [`EBUSY`] if there is a handler.
    pub fn connect(
        self: &Arc<Self>,
        handler: Arc<dyn irq::Handler + Send + Sync>,
        clock: Clock,
    ) -> Result<Connection> {
        let mut line = self.line.lock();

        if line.handler.is_some() {
            drop(line);
            pr_err!("dma-sim: a second handler for the interrupt\n");
            return Err(EBUSY);
        }

        line.handler = Some(handler);
        line.clock = clock;
        self.connected.store(1, Release);
        drop(line);

        Ok(Connection {
            timer: (clock == Clock::Timer).then(|| self.clone().start(TICK)),
            sim: self.clone(),
        })
    }

    /// Lets time pass. For the test.
    ///
    /// Context: any.
    pub fn advance(&self, ticks: u32) {
        self.each_device(|device| device.advance(ticks));
        self.deliver();
    }

    /// Takes all devices off the bus, as if they were pulled out of their slots: they don't answer
    /// and access nothing. For the test.
    ///
    /// Context: any.
    pub fn pull(&self) {
        self.each_device(|device| device.pull());
    }

    /// The driver looks at a register.
    fn look(&self) {
        let ticks = match self.line.lock().clock {
            Clock::Looks => 1,
            Clock::Timer => 0,
        };

        self.advance(ticks);
    }

    /// Not under the lock: a device may interrupt.
    fn each_device(&self, mut f: impl FnMut(&dyn SimDevice)) {
        let mut at = 0;

        loop {
            let devices = self.devices.lock();
            let (device, count) = (devices.get(at).cloned(), devices.len());

            drop(devices);
            at += 1;

            if let Some(device) = device {
                f(&*device);
            }

            if at >= count {
                return;
            }
        }
    }

    fn attach(&self, device: Arc<dyn SimDevice>) -> Result {
        Ok(self.devices.lock().push(device, GFP_ATOMIC)?)
    }

    /// A device of the test's own reads memory; returns whether it did.
    ///
    /// Context: any.
    ///
    /// # Safety
    ///
    /// As with any device: the CPU must not write the bytes at the same time.
    pub unsafe fn device_read(&self, addr: DmaAddress, to: &mut [u8]) -> bool {
        self.access(addr, Access::Read(to), false)
    }

    /// A device of the test's own writes memory; returns whether it did.
    ///
    /// Context: any.
    ///
    /// # Safety
    ///
    /// As with any device: the CPU must not access the bytes at the same time, and no reference to
    /// them may exist.
    pub unsafe fn device_write(&self, addr: DmaAddress, from: &[u8]) -> bool {
        self.access(addr, Access::Write(from), false)
    }

    /// As [`device_read`](Self::device_read), but a device of the test's own sees what the CPU has
    /// stored in memory that is [held](Self::hold_stores) at once: the word by which the CPU says
    /// that there is more.
    ///
    /// Context: any.
    ///
    /// # Safety
    ///
    /// As for [`device_read`](Self::device_read).
    pub unsafe fn device_read_now(&self, addr: DmaAddress, to: &mut [u8]) -> bool {
        self.access(addr, Access::ReadNow(to), false)
    }

    /// As [`device_write`](Self::device_write), but with a [weak order](Script::weak_order) the CPU
    /// sees what a device of the test's own writes after its next `dma_rmb()`, and [`LATE_POISON`]
    /// before: for all that is written before the word that says so.
    ///
    /// Context: any.
    ///
    /// # Safety
    ///
    /// As for [`device_write`](Self::device_write).
    pub unsafe fn device_write_late(&self, addr: DmaAddress, from: &[u8]) -> bool {
        self.access(addr, Access::WriteLate(from), false)
    }

    /// With a [weak order](Script::weak_order), lets devices of the test's own see what the CPU
    /// stores at an address when it has executed a `dma_wmb()`, from now on and until the end of
    /// the run.
    ///
    /// Context: any.
    ///
    /// # Errors
    ///
    /// [`ENOMEM`].
    pub fn hold_stores(&self, addr: DmaAddress, len: usize) -> Result {
        let mut bus = self.bus.lock();

        // A ring that begins anew is where it was.
        bus.release_stores(addr);
        bus.hold_stores(addr, len)
    }

    /// A device reads or writes memory, after it said that it had stopped or not; returns whether
    /// it did.
    fn access(&self, addr: DmaAddress, bytes: Access<'_>, stopped: bool) -> bool {
        self.bus.lock().access(addr, bytes, stopped)
    }

    /// The driver writes a register: its stores before come before.
    fn order_stores(&self) {
        if self.script.weak_order {
            self.bus.lock().order_stores();
        }
    }

    /// Returns a seed for one more device: two of them don't draw the same delays.
    fn next_seed(&self) -> u64 {
        // CAST: Widening.
        let count = self.devices.lock().len() as u64;

        self.script.seed.wrapping_add(count)
    }

    /// A device raises its interrupt.
    fn interrupt(&self) {
        self.bus.lock().note_interrupt();
        self.raise();
    }

    /// As [`interrupt()`](Self::interrupt), if the bus has noted it already.
    fn raise(&self) {
        if !self.is_connected() {
            return;
        }

        self.line.lock().waiting += 1;
        self.deliver();
    }

    /// Whether interrupts have a handler, or had one a moment ago.
    fn is_connected(&self) -> bool {
        self.connected.load(Acquire) != 0
    }

    /// Calls the handler for the interrupts that are waiting, unless it runs, or interrupts are off
    /// here: then they wait until time passes, as do those that come meanwhile.
    fn deliver(&self) {
        extern "C" fn call(handler: *mut c_void) {
            // SAFETY: `deliver()` passes a valid pointer.
            let handler = unsafe { &*handler.cast::<Arc<dyn irq::Handler + Send + Sync>>() };

            handler.handle();
        }

        if !self.is_connected() {
            return;
        }

        let mut line = self.line.lock();

        if line.running || line.waiting == 0 {
            return;
        }

        let mut left = core::mem::take(&mut line.waiting);
        let Some(mut handler) = line.handler.clone() else {
            return;
        };

        line.running = true;
        drop(line);

        while left > 0 {
            // SAFETY: `call()` is called once, at once, with a valid pointer.
            if !unsafe { bindings::dma_sim_interrupt(Some(call), (&raw mut handler).cast()) } {
                break;
            }

            left -= 1;
        }

        let mut line = self.line.lock();

        line.running = false;
        line.waiting += left;
    }

    /// Puts a device on the bus.
    ///
    /// # Safety
    ///
    /// `dev` must be a valid device that is not bound, and must not be used after `self` is gone.
    /// `self` must not go before [`finish()`](Self::finish).
    unsafe fn adopt(&self, dev: *mut bindings::device) {
        if self.script.weak_order {
            // SAFETY: By the safety requirements: `finish()` disconnects it.
            unsafe { barrier::connect(self) };
        }

        // SAFETY: By the safety requirements nobody else uses the device.
        unsafe {
            let this: &Device = Device::from_raw(dev);

            self.dev.populate(this.into());
            (*dev).dma_ops = &raw const self.ops;
            bindings::dev_assign_dma_coherent(dev, self.script.model != Model::NonCoherent);
        }
    }

    /// Judges the run. Says what is wrong.
    ///
    /// # Safety
    ///
    /// `dev` must be a device that was put on the bus and is not bound any more.
    unsafe fn finish(self: &Arc<Self>, dev: *mut bindings::device) -> Result {
        if self.script.weak_order {
            barrier::disconnect();
        }

        let mut clean = self.dismiss_devices();

        if self.disconnect() {
            pr_err!("dma-sim: an interrupt handler is still connected at the end\n");
            clean = false;
        }

        let (count, faults) = self.bus.lock().take_faults();

        for record in &faults {
            pr_err!("dma-sim: fault: {record}\n");
        }

        if count > faults.len() {
            pr_err!("dma-sim: and {} more faults\n", count - faults.len());
        }

        clean &= count == 0;

        let mut left = 0;

        loop {
            let Some(leak) = self.bus.lock().leak(left) else {
                break;
            };

            if !leak.forgiven {
                pr_err!("dma-sim: leak: {leak}\n");
                clean = false;
            }

            // SAFETY: By the safety requirements; the driver is gone, hence nobody else will.
            if !unsafe { leak.undo(dev) } {
                left += 1;
            }
        }

        if left > 0 {
            // The device leads here, for whoever gives it back later.
            *self.keeper.lock() = Some(self.clone());
        }

        if clean {
            Ok(())
        } else {
            Err(EINVAL)
        }
    }

    /// Takes the devices off the bus. Returns whether they were done.
    fn dismiss_devices(&self) -> bool {
        let devices = core::mem::take(&mut *self.devices.lock());
        let mut done = true;

        for device in &devices {
            let (pending, unused) = (device.pending(), device.unused());

            if pending > 0 {
                pr_err!("dma-sim: a device is still at work at the end: {pending} requests\n");
                done = false;
            }

            if unused > 0 {
                pr_err!("dma-sim: the script had fates for {unused} more requests\n");
                done = false;
            }

            device.pull();
        }

        done
    }

    /// Takes the interrupt handler away. Returns whether there was one.
    fn disconnect(&self) -> bool {
        let mut line = self.line.lock();
        // Dropped without the lock.
        let handler = line.handler.take();

        line.clock = Clock::Looks;
        line.waiting = 0;
        self.connected.store(0, Release);
        drop(line);

        handler.is_some()
    }
}

impl HrTimerCallback for Sim {
    type Pointer<'a> = Arc<Self>;

    fn run(
        this: ArcBorrow<'_, Self>,
        mut context: HrTimerCallbackContext<'_, Self>,
    ) -> HrTimerRestart {
        // A handle that was forgotten.
        if this.line.lock().clock != Clock::Timer {
            return HrTimerRestart::NoRestart;
        }

        this.advance(1);
        context.forward_now(TICK);
        HrTimerRestart::Restart
    }
}

/// A connected interrupt handler. Dropping it disconnects it: afterwards it doesn't run any more.
///
/// Context of dropping it: may sleep; never from the handler.
#[must_use = "dropping it disconnects the handler"]
pub struct Connection {
    timer: Option<ArcHrTimerHandle<Sim>>,
    sim: Arc<Sim>,
}

impl Drop for Connection {
    fn drop(&mut self) {
        // Waits for the callback.
        self.timer = None;
        self.sim.disconnect();
    }
}

/// Runs a test on a device on a simulated bus, which is bound for as long as `body` runs.
///
/// Context: may sleep; a KUnit test.
///
/// # Errors
///
/// What `body` says, and
///
/// - [`ENODEV`] if the device was not bound, for instance since the bus can't serve the mask: the
///   log says why;
/// - [`EINVAL`] if the script asks for the impossible, or if there was a fault, something is still
///   mapped, or a device is still at work; the log says what;
/// - [`EBUSY`] if called by a test that already runs on a device of a fixture;
/// - [`ENOMEM`].
///
/// # Examples
///
/// ```
/// use kernel::{
///     dma::{fixture::ensure, sim::{self, Model, Script}, Mapper, StreamingBox, ToDevice},
///     prelude::*,
/// };
///
/// sim::run(Script::new(Model::NonCoherent), |pdev, sim| {
///     let dma = Mapper::get(pdev.as_ref())?;
///     let buf = StreamingBox::<_, ToDevice>::map(dma, KVec::from_elem(0_u8, 64, GFP_KERNEL)?)?;
///
///     ensure!(sim.counters().live == 1);
///     drop(buf);
///     Ok(())
/// })?;
/// # Ok::<(), Error>(())
/// ```
pub fn run(
    script: Script,
    body: impl FnMut(&platform::Device<Core<'_>>, &Arc<Sim>) -> Result,
) -> Result {
    run_set_up(script, Some(script.constraints), body)
}

/// Runs a test as [`run`] does, on each kind of bus; which one the script has doesn't matter.
///
/// Context: may sleep; a KUnit test.
///
/// # Errors
///
/// As [`run`]; the log says on which bus it was.
///
/// # Examples
///
/// ```
/// use kernel::{
///     dma::{fixture::ensure, sim::{self, Model, Script}, Coherent},
///     prelude::*,
/// };
///
/// sim::run_on_each(Script::new(Model::Coherent), |pdev, sim| {
///     let number = Coherent::<u64>::zeroed(pdev.as_ref(), GFP_KERNEL)?;
///
///     ensure!(sim.counters().allocs == 1);
///     drop(number);
///     Ok(())
/// })?;
/// # Ok::<(), Error>(())
/// ```
pub fn run_on_each(
    script: Script,
    mut body: impl FnMut(&platform::Device<Core<'_>>, &Arc<Sim>) -> Result,
) -> Result {
    for model in Model::ALL {
        run(Script { model, ..script }, &mut body)
            .inspect_err(|_| pr_err!("dma-sim: that was on a bus of the kind {model:?}\n"))?;
    }

    Ok(())
}

/// As [`run`], with what `dma_constraints()` is to return, if the driver is one with DMA.
pub(super) fn run_set_up(
    script: Script,
    constraints: Option<Constraints>,
    mut body: impl FnMut(&platform::Device<Core<'_>>, &Arc<Sim>) -> Result,
) -> Result {
    let sim = Sim::new(script)?;

    fixture::on_platform_device(
        constraints,
        // SAFETY: The device is not bound yet, and goes before `sim` does, after `finish()`.
        |dev| unsafe { sim.adopt(dev) },
        &mut |pdev| body(pdev, &sim),
        // SAFETY: The device is on the bus, and is not bound any more.
        |dev| unsafe { sim.finish(dev) },
    )
}
