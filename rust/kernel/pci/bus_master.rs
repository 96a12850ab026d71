// SPDX-License-Identifier: GPL-2.0

//! Bus mastering: whether a function may access memory.
//!
//! For a driver with a `dma_setup()`, bus mastering belongs to the device's
//! [`Enclosure`](crate::dma::Enclosure), which switches it on when the device has forgotten what it
//! was told before. Other ways to switch it on are closed: [`Device::set_master`] refuses, and
//! writes to the command register through the configuration space leave the bit as it is. Such a
//! driver can't aim the writes that signal interrupts there either: that is up to the PCI core.
//!
//! C header: [`include/linux/pci.h`](srctree/include/linux/pci.h)

use super::Device;
use crate::{
    bindings,
    device::Bound,
    dma::{
        Clean,
        Command,
        Outcome, //
    },
    prelude::*,
    sync::lock::mutex::MutexGuard, //
};

/// Where the command register is in the configuration space.
// CAST: A small number.
const COMMAND: i32 = bindings::PCI_COMMAND as i32;

/// The bus master bit of that register.
// CAST: One bit of 16.
const MASTER: u16 = bindings::PCI_COMMAND_MASTER as u16;

/// Whether the function answers to its memory addresses.
// CAST: One bit of 16.
const MEMORY: u16 = bindings::PCI_COMMAND_MEMORY as u16;

/// What a function reads as that isn't there.
const NOBODY: u16 = 0xffff;

/// The bus master bit of a bound device. There is one for a device, in its enclosure.
pub(crate) struct BusMaster<'a>(&'a Device<Bound>);

impl<'a> BusMaster<'a> {
    pub(crate) fn new(pdev: &'a Device<Bound>) -> Self {
        Self(pdev)
    }

    /// Switches it on.
    ///
    /// C: `pci_set_master()`. Context: any.
    pub(crate) fn on(&self, lock: &Command, _clean: Clean) {
        let _core = lock.exclude();
        let _command = lock.lock();

        // SAFETY: By the type invariant of `Device`.
        unsafe { bindings::pci_set_master(self.0.as_raw()) };
    }

    /// Switches it off, and finds out what that is worth.
    ///
    /// For a device that accesses no memory without it, [`Outcome::Stopped`] proves that it has
    /// stopped: the bit reads as off, and that read has pushed earlier writes to memory; no request
    /// waits for an answer. The function must be in D0, as a bound one is in its callbacks.
    ///
    /// C: `pci_clear_master()`, `pci_wait_for_pending_transaction()`. Context: may sleep.
    pub(crate) fn off(&self, lock: &Command) -> Outcome {
        let pdev = self.0.as_raw();
        let _core = lock.exclude();
        let command = {
            let _command = lock.lock();

            // Also in what the PCI core has saved: it restores that after a reset.
            //
            // The PCI core may save or restore at the same time: it does so during an event, such
            // as a reset or a suspend. But before that the enclosure was told, which has switched
            // the bit off, and switches it on only when the event is over. So the core reads the
            // register with the bit off, and it doesn't matter whose value stays.
            //
            // SAFETY: `pdev` points to a valid `struct pci_dev`, by the type invariant of `Device`.
            // The accesses are volatile, and of one aligned word, as the core's are.
            unsafe {
                let saved = &raw mut (*pdev).saved_config_space[COMMAND as usize / 4];

                saved.write_volatile(saved.read_volatile() & !bindings::PCI_COMMAND_MASTER);
                bindings::pci_clear_master(pdev);
            }

            match self.read(COMMAND) {
                // All ones, also where the read failed: no function has all bits of this register.
                NOBODY => NOBODY,
                // The hotplug code may take a function for gone that is there, and then the PCI
                // core writes nothing.
                command => {
                    self.write(COMMAND, command & !MASTER);
                    self.read(COMMAND)
                }
            }
        };

        if command == NOBODY {
            return if self.is_gone() {
                Outcome::Gone
            } else {
                Outcome::Unproven
            };
        }

        // Some have it hard-wired to on.
        if command & MASTER != 0 {
            return Outcome::Unproven;
        }

        // SAFETY: By the type invariant of `Device`.
        match unsafe { bindings::pci_wait_for_pending_transaction(pdev) } {
            0 => Outcome::Unproven,
            _ => Outcome::Stopped,
        }
    }

    /// Returns whether a function that doesn't answer has left the bus: the port above it does, and
    /// has no link. Without that it may be asleep, or its firmware may hang while its engines work.
    ///
    /// A port that can't tell proves nothing. The PCI core's own word (`pci_dev_is_disconnected()`)
    /// doesn't count: it gives up functions that are late after a suspend, too.
    fn is_gone(&self) -> bool {
        // SAFETY: By the type invariant of `Device`; the bus, and the bridge to it if there is one,
        // outlive the device.
        let bridge = unsafe { (*(*self.0.as_raw()).bus).self_ };

        // CAST: A small number.
        let vendor = self.read(bindings::PCI_VENDOR_ID as i32);
        let (mut capabilities, mut status) = (0, 0);

        if !bridge.is_null() {
            // SAFETY: It isn't null; as above. For a bridge without links, this reads zeros.
            unsafe {
                bindings::pcie_capability_read_dword(
                    bridge,
                    // CAST: Small numbers.
                    bindings::PCI_EXP_LNKCAP as i32,
                    &mut capabilities,
                );
                bindings::pcie_capability_read_word(
                    bridge,
                    bindings::PCI_EXP_LNKSTA as i32,
                    &mut status,
                );
            }
        }

        has_left(vendor, capabilities, status)
    }

    fn read(&self, at: i32) -> u16 {
        read(self.0, at)
    }

    fn write(&self, at: i32, value: u16) {
        let pdev = self.0.as_raw();

        // SAFETY: By the type invariant of `Device`.
        unsafe { bindings::pci_bus_write_config_word((*pdev).bus, (*pdev).devfn, at, value) };
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
fn read(pdev: &Device<Bound>, at: i32) -> u16 {
    let pdev = pdev.as_raw();
    let mut value = NOBODY;

    // If it fails, the value stays what it is.
    //
    // SAFETY: By the type invariant of `Device`.
    unsafe { bindings::pci_bus_read_config_word((*pdev).bus, (*pdev).devfn, at, &mut value) };
    value
}

/// Keeps an enclosure from switching bus mastering while the PCI core changes the command register.
///
/// Context: may sleep.
pub(super) fn exclude(pdev: &Device<Bound>) -> Option<MutexGuard<'_, ()>> {
    Command::find(pdev.as_ref()).map(Command::exclude)
}

/// Switches legacy interrupts off, of a function that may go on to raise them though its handler is
/// gone: while nobody quiets the line, all others on it would lose theirs. A driver that allocates
/// interrupt vectors switches them on again.
///
/// Context: may sleep.
pub(super) fn silence(pdev: &Device<Bound>) {
    let Some(lock) = Command::find(pdev.as_ref()) else {
        return;
    };

    let _core = lock.exclude();
    let _command = lock.lock();

    // SAFETY: `pdev` points to a valid `struct pci_dev`, by the type invariant of `Device`.
    unsafe { bindings::pci_intx(pdev.as_raw(), 0) };
}

/// Says so if the function doesn't answer to its memory addresses, since then all of its registers
/// read as all ones.
///
/// Context: any.
pub(crate) fn check_memory(pdev: &Device<Bound>) {
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

/// Returns whether bus mastering belongs to the device's enclosure.
pub(super) fn is_claimed(pdev: &Device<Bound>) -> bool {
    Command::find(pdev.as_ref()).is_some()
}

/// Writes `value` to the configuration space at `at`, with the bus master bit as it is, if it is in
/// there and doesn't belong to the driver. Refuses to change the interrupts of a driver with a
/// `dma_setup()`, which would make the device write to memory that it wasn't given.
///
/// Context: any.
pub(super) fn write_config(pdev: &Device<Bound>, at: i32, value: u32, write: impl FnOnce(u32)) {
    // Registers are aligned, so no access to another address reaches the bit.
    let lock = match at {
        COMMAND => Command::find(pdev.as_ref()),
        _ if aims_interrupts(pdev, at) && is_claimed(pdev) => {
            dev_err!(
                pdev,
                "configuration space: interrupts belong to the PCI core\n"
            );
            return;
        }
        _ => None,
    };

    let Some(lock) = lock else {
        write(value);
        return;
    };

    let _command = lock.lock();

    write(value & !u32::from(MASTER) | u32::from(read(pdev, COMMAND) & MASTER));
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
            DmaMask,
            Setup, //
        },
        kunit, //
    };

    const VENDOR: u16 = 0x1234;
    const DEVICE: u16 = 0x11e8;

    /// Runs a test on the function, with bus mastering on.
    fn with_function(mut body: impl FnMut(&Device<Bound>, &Command) -> Result) -> Result {
        if !fixture::has_pci_device(VENDOR, DEVICE) {
            kunit::skip("no edu device (QEMU: -device edu)");
            return Ok(());
        }

        let setup = Setup::new(DmaMask::new::<64>());

        fixture::with_pci_device(VENDOR, DEVICE, setup, |pdev| {
            pdev.enable_device_mem()?;

            let pdev = pdev.bound();

            // SAFETY: By the type invariant of `Device`. The device was told to access nothing.
            unsafe { bindings::pci_set_master(pdev.as_raw()) };
            ensure!(read(pdev, COMMAND) & MASTER != 0);
            body(pdev, Command::find(pdev.as_ref()).ok_or(ENODEV)?)
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
        with_function(|pdev, _| {
            let is_gone = || BusMaster::new(pdev).is_gone();

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

    /// What switching it off says, and does.
    #[test]
    fn off() -> Result {
        with_function(|pdev, lock| {
            let off = || BusMaster::new(pdev).off(lock);
            let is_on = || read(pdev, COMMAND) & MASTER != 0;

            // There is nobody at that place, whose bit isn't cleared either.
            ensure!(without_answer(pdev, off)? == Outcome::Unproven);
            ensure!(without_answer(pdev, || taken_for_gone(pdev, off))? == Outcome::Unproven);
            ensure!(is_on());

            // The PCI core writes nothing to a function that is taken for gone.
            ensure!(taken_for_gone(pdev, off) == Outcome::Stopped);
            ensure!(!is_on());

            // SAFETY: By the type invariant of `Device`. The device was told to access nothing.
            unsafe { bindings::pci_set_master(pdev.as_raw()) };
            ensure!(is_on());
            ensure!(off() == Outcome::Stopped && !is_on());
            Ok(())
        })
    }
}
