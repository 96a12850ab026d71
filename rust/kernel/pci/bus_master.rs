// SPDX-License-Identifier: GPL-2.0

//! Bus mastering: whether a function may access memory.
//!
//! For a driver whose device does DMA ([`DmaDriver`](super::DmaDriver)), bus mastering belongs to
//! the device's [`Session`](crate::dma::Session), which switches it on when the device has
//! forgotten what it was told before. Other ways to switch it on are closed: [`Device::set_master`]
//! refuses, and writes to the command register through the configuration space leave the bit as it
//! is. Such a driver can't aim the writes that signal interrupts there either: that is up to the
//! PCI core.
//!
//! For all other drivers nothing of that is there: a function without a [`BusMaster`] is left
//! alone.
//!
//! C header: [`include/linux/pci.h`](srctree/include/linux/pci.h)

use super::Device;
use crate::{
    bindings,
    device::Bound,
    devres::Kind,
    dma::session::{
        Bus,
        Disarmed,
        StopOutcome, //
    },
    error::to_result,
    new_mutex,
    new_spinlock_irq,
    prelude::*,
    sync::{
        aref::ARef,
        lock::mutex::MutexGuard,
        Arc,
        ArcBorrow,
        Mutex,
        SpinLockIrq, //
    }, //
};

/// Where the command register is in the configuration space.
// CAST: A small number.
const COMMAND: i32 = bindings::PCI_COMMAND as i32;

/// The bus master bit of that register.
// CAST: One bit of 16.
#[cfg(CONFIG_RUST_DMA_KUNIT_TEST)]
const MASTER: u16 = bindings::PCI_COMMAND_MASTER as u16;

/// Whether the function answers to its memory addresses.
// CAST: One bit of 16.
const MEMORY: u16 = bindings::PCI_COMMAND_MEMORY as u16;

/// What a function reads as that isn't there.
const NOBODY: u16 = 0xffff;

/// Marks the records of functions whose bus mastering isn't their driver's.
static RECORD: Kind = Kind::new();

/// The bus master bit of a function, which its driver leaves to the device's session.
///
/// It is found by the function ([`find`](Self::find)) from before the driver's probe until the
/// driver core releases the device's resources. Code that changes the command register holds one of
/// the locks.
#[pin_data]
pub(super) struct BusMaster {
    pdev: ARef<Device>,
    /// Held by those who may sleep, in which case the PCI core may change the register meanwhile:
    /// it reads other bits, and writes them back with this one.
    #[pin]
    core: Mutex<()>,
    /// Held while the register is read and written back here.
    #[pin]
    command: SpinLockIrq<()>,
}

/// What the session gets: the switch between the function and memory.
struct Switch(Arc<BusMaster>);

// SAFETY: By number of the contract.
// 1. `off()` says `Stopped` only if the bit reads as off, and no request of the function waits for
//    an answer; by the ordering rules of PCI, what the function wrote was in memory when that read
//    completed. All that could switch the bit on afterwards is closed: see the module's
//    documentation, and `pci_stop_master()` for what the PCI core restores.
// 2. `off()` says `Gone` only if the port above says that there is no link; a function that is
//    plugged in comes up reset.
// 3. It says `Unproven` otherwise.
unsafe impl Bus for Switch {
    fn open(&self, _disarmed: Disarmed) -> Result {
        self.0.on()
    }

    fn close(&self) -> StopOutcome {
        self.0.off()
    }
}

impl BusMaster {
    /// Takes bus mastering from the driver that is about to be probed. Returns what the device's
    /// session needs; that switches it off before the probe.
    ///
    /// Context: may sleep.
    ///
    /// # Errors
    ///
    /// [`ENOMEM`].
    pub(super) fn claim(pdev: &Device<Bound>) -> Result<KBox<dyn Bus>> {
        let this = Arc::pin_init(
            pin_init!(Self {
                pdev: pdev.into(),
                core <- new_mutex!((), "pci::BusMaster::core"),
                command <- new_spinlock_irq!((), "pci::BusMaster::command"),
            }),
            GFP_KERNEL,
        )?;
        let switch = KBox::new(Switch(this.clone()), GFP_KERNEL)?;

        RECORD.add_only(pdev.as_ref(), this)?;
        Ok(switch)
    }

    /// Returns the record, if bus mastering belongs to the device's session.
    ///
    /// Context: any. Walks the resource list of the device.
    pub(super) fn find(pdev: &Device<Bound>) -> Option<ArcBorrow<'_, Self>> {
        // SAFETY: `claim()` adds resources of this kind, which are of this type, before the
        // driver is probed.
        unsafe { RECORD.find::<Arc<Self>>(pdev.as_ref()) }
    }

    /// Keeps the PCI core, as called by drivers, from changing other bits of the register, which it
    /// does by reading it and writing it back.
    ///
    /// Context: may sleep.
    pub(super) fn exclude(&self) -> MutexGuard<'_, ()> {
        self.core.lock()
    }

    /// Switches it on.
    ///
    /// C: `pci_set_master()`. Context: may sleep.
    ///
    /// # Errors
    ///
    /// [`EIO`] if it stays off. The PCI core writes nothing to a function that it takes for gone,
    /// though that may answer.
    fn on(&self) -> Result {
        let _core = self.exclude();
        let _command = self.command.lock();

        // SAFETY: `self.pdev` is a valid `struct pci_dev`, by the type invariant of `Device`.
        unsafe { bindings::pci_set_master(self.pdev.as_raw()) };

        if read(&self.pdev, COMMAND) & MASTER == 0 {
            return Err(EIO);
        }

        Ok(())
    }

    /// Switches it off, and finds out what that is worth.
    ///
    /// For a device that accesses no memory without it, [`StopOutcome::Stopped`] proves that it has
    /// stopped: the bit reads as off, and that read has pushed earlier writes to memory; no request
    /// waits for an answer. The function must be in D0, as a bound one is in its callbacks.
    ///
    /// C: `pci_stop_master()`, `pci_wait_for_pending_transaction()`. Context: may sleep.
    fn off(&self) -> StopOutcome {
        let pdev = self.pdev.as_raw();
        let _core = self.exclude();

        let outcome = {
            let _command = self.command.lock();

            // The PCI core may save or restore the function's state at the same time: it does so
            // during an event, such as a reset or a suspend. But before that the session was told,
            // which has switched the bit off, and switches it on only when the event is over. So
            // the bit is off in what the core saves and restores.
            //
            // SAFETY: `pdev` is a valid `struct pci_dev`, by the type invariant of `Device`.
            to_result(unsafe { bindings::pci_stop_master(pdev) })
        };

        match outcome {
            // SAFETY: As above.
            Ok(()) => match unsafe { bindings::pci_wait_for_pending_transaction(pdev) } {
                0 => StopOutcome::Unproven,
                _ => StopOutcome::Stopped,
            },
            Err(ENODEV) if self.is_gone() => StopOutcome::Gone,
            // It doesn't answer, or has the bit hard-wired to on.
            Err(_) => StopOutcome::Unproven,
        }
    }

    /// Returns whether a function that doesn't answer has left the bus: the port above it does, and
    /// has no link. Without that it may be asleep, or its firmware may hang while its engines work.
    ///
    /// A port that can't tell proves nothing. The PCI core's own word (`pci_dev_is_disconnected()`)
    /// doesn't count: it gives up functions that are late after a suspend, too.
    fn is_gone(&self) -> bool {
        // SAFETY: `self.pdev` is a valid `struct pci_dev`, by the type invariant of `Device`, which
        // has a reference to its bus; the bridge to that, if there is one, outlives the bus.
        let bridge = unsafe { (*(*self.pdev.as_raw()).bus).self_ };

        // CAST: A small number.
        let vendor = read(&self.pdev, bindings::PCI_VENDOR_ID as i32);
        let (mut capabilities, mut status) = (0, 0);

        if bridge.is_null() {
            return false;
        }

        // SAFETY: It isn't null, and valid as said. For a bridge without links, this reads zeros.
        // If a read fails, it leaves zeros, too.
        let failed = unsafe {
            bindings::pcie_capability_read_dword(
                bridge,
                // CAST: Small numbers.
                bindings::PCI_EXP_LNKCAP as i32,
                &mut capabilities,
            ) | bindings::pcie_capability_read_word(
                bridge,
                bindings::PCI_EXP_LNKSTA as i32,
                &mut status,
            )
        };

        failed == 0 && has_left(vendor, capabilities, status)
    }

    /// Switches off the legacy interrupts of a function that may go on to raise them though its
    /// handler is gone: while nobody quiets the line, other devices on it would lose theirs. A
    /// driver that allocates interrupt vectors switches them on again.
    ///
    /// Context: may sleep.
    pub(super) fn silence(&self) {
        let _core = self.exclude();
        let _command = self.command.lock();

        // SAFETY: `self.pdev` is a valid `struct pci_dev`, by the type invariant of `Device`.
        unsafe { bindings::pci_intx(self.pdev.as_raw(), 0) };
    }
}

/// Returns whether a function has left the bus, by its vendor as it reads now, and by capabilities
/// and status of the link of the port above it.
fn has_left(vendor: u16, capabilities: u32, status: u16) -> bool {
    // A port that is gone itself reads as having a link.
    vendor == NOBODY
        && capabilities & bindings::PCI_EXP_LNKCAP_DLLLARC != 0
        && u32::from(status) & bindings::PCI_EXP_LNKSTA_DLLLA == 0
}

/// Reads from the configuration space, also of a function that is taken for gone.
fn read(pdev: &Device, at: i32) -> u16 {
    let pdev = pdev.as_raw();
    let mut value = NOBODY;

    // If it fails, the value is all ones.
    //
    // SAFETY: `pdev` is a valid `struct pci_dev`, by the type invariant of `Device`.
    unsafe { bindings::pci_bus_read_config_word((*pdev).bus, (*pdev).devfn, at, &mut value) };
    value
}

/// Says so if the function doesn't answer to its memory addresses, since then all of its registers
/// read as all ones.
///
/// Context: any.
pub(super) fn check_memory(pdev: &Device<Bound>) {
    if read(pdev, COMMAND) & MEMORY == 0 {
        dev_warn!(
            pdev,
            "its registers are off, and read as all ones: call enable_device_mem() before\n"
        );
    }
}

/// Returns whether a register of the configuration space says where, and how, the function signals
/// interrupts by writing to memory.
fn aims_interrupts(pdev: &Device<Bound>, at: i32) -> bool {
    // CAST: Small numbers.
    const FLAGS: i32 = bindings::PCI_MSI_FLAGS as i32;
    const WIDE: u16 = bindings::PCI_MSI_FLAGS_64BIT as u16;
    const MASKS: u16 = bindings::PCI_MSI_FLAGS_MASKBIT as u16;

    // SAFETY: `pdev` points to a valid `struct pci_dev`, by the type invariant of `Device`. The PCI
    // core sets both when it finds the function.
    let (msi, msi_x) = unsafe { ((*pdev.as_raw()).msi_cap, (*pdev.as_raw()).msix_cap) };
    let (msi, msi_x) = (i32::from(msi), i32::from(msi_x));

    // Zero is that there is none.
    if msi_x != 0 && (msi_x..msi_x + 12).contains(&at) {
        return true;
    }

    if msi == 0 || !(msi..msi + 24).contains(&at) {
        return false;
    }

    let flags = read(pdev, msi + FLAGS);
    let upper_address = if flags & WIDE != 0 { 4 } else { 0 };
    let masks = if flags & MASKS != 0 { 10 } else { 0 };

    at < msi + 10 + upper_address + masks
}

/// Writes to the configuration space of a function whose bus mastering isn't its driver's, where
/// that takes care: the bus master bit stays as it is, and interrupts aren't aimed, which would
/// make the device write to memory that it wasn't given. Returns whether that was done; if not,
/// the caller may write as it likes.
///
/// Context: any.
pub(super) fn write_config(pdev: &Device<Bound>, at: i32, size: usize, value: u32) -> bool {
    let Some(this) = BusMaster::find(pdev) else {
        return false;
    };

    // Registers are aligned, so no access to another address reaches the bit.
    if at != COMMAND {
        let aims = aims_interrupts(pdev, at);

        if aims {
            dev_err!(
                pdev,
                "configuration space: interrupts belong to the PCI core\n"
            );
        }

        return aims;
    }

    let _command = this.command.lock();

    // As upstream: who writes isn't told of errors.
    //
    // CAST: 4 at most.
    // SAFETY: `pdev` is a valid `struct pci_dev`, by the type invariant of `Device`.
    let _ = unsafe { bindings::pci_write_command(pdev.as_raw(), size as c_int, value) };
    true
}

/// On an edu device, taken from its driver meanwhile: any function would do that needs no driver.
#[cfg(CONFIG_RUST_DMA_KUNIT_TEST)]
#[macros::kunit_tests(rust_dma_bus_master)]
mod tests {
    use super::*;
    use crate::{
        dma::{
            fixture::{
                self,
                ensure, //
            },
            Constraints,
            DmaMask,
            Mapper, //
        },
        io::Io,
        kunit, //
    };

    const VENDOR: u16 = 0x1234;
    const DEVICE: u16 = 0x11e8;
    const CONSTRAINTS: Constraints = Constraints::new(DmaMask::new::<64>());

    fn is_absent() -> bool {
        let absent = !fixture::has_pci_device(VENDOR, DEVICE);

        if absent {
            kunit::skip("no edu device (QEMU: -device edu)");
        }

        absent
    }

    /// Runs a test on the function, with bus mastering on.
    fn with_function(mut body: impl FnMut(&Device<Bound>, &BusMaster) -> Result) -> Result {
        if is_absent() {
            return Ok(());
        }

        fixture::with_pci_device(VENDOR, DEVICE, CONSTRAINTS, |pdev| {
            pdev.enable_device_mem()?;

            let pdev = pdev.bound();

            // SAFETY: By the type invariant of `Device`. The device was told to access nothing.
            unsafe { bindings::pci_set_master(pdev.as_raw()) };
            ensure!(read(pdev, COMMAND) & MASTER != 0);
            let bit = BusMaster::find(pdev).ok_or(ENODEV)?;

            body(pdev, &bit)
        })
    }

    /// Has the hotplug code take the function for gone, while `f` runs.
    fn taken_for_gone<R>(pdev: &Device<Bound>, f: impl FnOnce() -> R) -> R {
        let pdev = pdev.as_raw();

        // SAFETY: By the type invariant of `Device`. Nobody else asks for the state of a function
        // that was taken from its driver; it is restored.
        unsafe {
            let state = (*pdev).error_state;

            (*pdev).error_state = bindings::pci_channel_io_perm_failure;
            let result = f();
            (*pdev).error_state = state;
            result
        }
    }

    /// Has the function not answer, while `f` runs: it is looked for where there is none.
    ///
    /// # Errors
    ///
    /// [`ENODEV`] if the bus is full.
    fn without_answer<R>(pdev: &Device<Bound>, f: impl FnOnce() -> R) -> Result<R> {
        let raw = pdev.as_raw();

        // SAFETY: By the type invariant of `Device`. Nobody else accesses a function that was taken
        // from its driver; its place is restored.
        unsafe {
            let place = (*raw).devfn;
            let nobody = (0..0x100).rev().find(|devfn| {
                (*raw).devfn = *devfn;
                // CAST: A small number.
                read(pdev, bindings::PCI_VENDOR_ID as i32) == NOBODY
            });
            let result = nobody.map(|_| f());

            (*raw).devfn = place;
            result.ok_or(ENODEV)
        }
    }

    /// A function that answers hasn't left the bus. Nor has one that doesn't, on a bus without a
    /// port above it that could tell. What the hotplug code says doesn't count.
    #[test]
    fn who_is_gone() -> Result {
        with_function(|pdev, bit| {
            let is_gone = || bit.is_gone();

            ensure!(!is_gone());
            ensure!(!taken_for_gone(pdev, is_gone));
            ensure!(!without_answer(pdev, is_gone)?);
            ensure!(!without_answer(pdev, || taken_for_gone(pdev, is_gone))?);
            Ok(())
        })
    }

    /// It has left if it doesn't answer, and the port says that it has no link.
    #[test]
    fn by_the_port() -> Result {
        const REPORTS: u32 = 1 << 20;
        const ACTIVE: u16 = 1 << 13;

        for vendor in [0, VENDOR, NOBODY] {
            for (capabilities, status, says_so) in [
                (REPORTS, 0, true),
                (!0, !ACTIVE, true),
                (REPORTS, ACTIVE, false),
                (0, 0, false),
                (!REPORTS, !ACTIVE, false),
                // The port is gone.
                (!0, !0, false),
            ] {
                let left = has_left(vendor, capabilities, status);

                ensure!(left == (says_so && vendor == NOBODY));
            }
        }

        Ok(())
    }

    /// What switching it off and on says, and does.
    #[test]
    fn off_and_on() -> Result {
        with_function(|pdev, bit| {
            let off = || bit.off();
            let is_on = || read(pdev, COMMAND) & MASTER != 0;

            // There is nobody at that place, whose bit isn't cleared either.
            ensure!(without_answer(pdev, off)? == StopOutcome::Unproven);
            ensure!(without_answer(pdev, || taken_for_gone(pdev, off))? == StopOutcome::Unproven);
            ensure!(is_on());

            // The PCI core writes nothing to a function that is taken for gone.
            ensure!(taken_for_gone(pdev, off) == StopOutcome::Stopped);
            ensure!(!is_on());
            ensure!(taken_for_gone(pdev, || bit.on()) == Err(EIO));
            ensure!(!is_on());

            // The device was told to access nothing.
            bit.on()?;
            ensure!(is_on());
            ensure!(off() == StopOutcome::Stopped && !is_on());
            Ok(())
        })
    }

    /// Firmware, or an earlier driver, may have left it on: the device would go on to access what
    /// nobody gave to it.
    #[test]
    fn left_on() -> Result {
        if is_absent() {
            return Ok(());
        }

        fixture::with_pci_device_left_on(VENDOR, DEVICE, CONSTRAINTS, |pdev| {
            ensure!(read(pdev, COMMAND) & MASTER == 0);
            Ok(())
        })
    }

    /// A driver that doesn't ask has its device to itself.
    #[test]
    fn left_alone() -> Result {
        if is_absent() {
            return Ok(());
        }

        fixture::with_pci_device_alone(VENDOR, DEVICE, |pdev| {
            let config = pdev.config_space();
            // CAST: A small number.
            let at = COMMAND as usize;
            let command = config.read16(at);

            ensure!(BusMaster::find(pdev).is_none());
            ensure!(Mapper::get(pdev.as_ref()).err() == Some(EINVAL));

            config.write16(command & !MASTER, at);
            ensure!(read(pdev, COMMAND) & MASTER == 0);
            pdev.set_master();
            ensure!(read(pdev, COMMAND) & MASTER != 0);
            config.write16(command & !MASTER, at);
            ensure!(read(pdev, COMMAND) & MASTER == 0);
            config.write16(command | MASTER, at);
            ensure!(read(pdev, COMMAND) & MASTER != 0);
            Ok(())
        })?;

        // And nobody has switched it off.
        ensure!(fixture::command_after_unbind() & MASTER != 0);
        Ok(())
    }
}
