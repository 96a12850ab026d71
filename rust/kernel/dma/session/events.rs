// SPDX-License-Identifier: GPL-2.0

//! What the buses tell of a device: that it is probed, suspended, reset, shut down or unbound.

use super::{
    super::Constraints,
    bus::Bus,
    control::Control, //
};
use crate::{
    device::{
        Bound,
        Core,
        Device, //
    },
    devres,
    prelude::*, //
};

/// Prepares a device for its driver, which has these constraints: applies them, and keeps the
/// device from memory, as far as its bus can. `resumes` is whether the driver can go on after a
/// stop.
///
/// Called by the buses before `probe()`. Context: may sleep.
///
/// # Errors
///
/// - [`EINVAL`], [`EIO`] if the constraints can't be met;
/// - [`EBUSY`] if the device has other ones since it was bound;
/// - [`ENOSPC`] if the device, under earlier drivers, has leaked too much memory;
/// - [`ENOMEM`].
pub(crate) fn prepare(
    dev: &Device<Core<'_>>,
    constraints: Constraints,
    resumes: bool,
    bus: Option<KBox<dyn Bus>>,
) -> Result {
    constraints.apply(dev)?;

    if Control::find(dev).is_none() {
        Control::add(dev, resumes, bus)?;
    }

    // Firmware, or an earlier driver, may have left it at work.
    if let Some(control) = Control::find(dev) {
        control.close_bus();
    }

    Ok(())
}

/// Ends the driver's use of a device, after its `unbind()` or a failed probe: stops and disarms the
/// device, and drops what the driver has lent to it. Returns whether the device is at rest, or was
/// never started.
///
/// Called by the buses, before they take away the device's DMA and power. Context: may sleep.
pub(crate) fn end(dev: &Device<Core<'_>>) -> bool {
    finish(dev);

    let is_at_rest = Control::find(dev).is_none_or(Control::retire);

    devres::release_early(dev);
    is_at_rest
}

/// Stops and disarms a device for good.
///
/// Called by the buses, also when the system is shut down. Context: may sleep.
pub(crate) fn finish(dev: &Device<Bound>) {
    if let Some(control) = Control::find(dev) {
        control.end();
    }
}

/// As [`finish`], for a driver that doesn't go on after an event. Does nothing, and returns false,
/// if the device was stopped since.
///
/// Called by the buses. Context: may sleep.
#[cfg(any(CONFIG_PCI, CONFIG_RUST_DMA_KUNIT_TEST))]
pub(crate) fn give_up(dev: &Device<Bound>) -> bool {
    Control::find(dev).is_some_and(Control::end_if_running)
}

/// Stops a device before an event after which it may go on, such as a suspend or a reset.
///
/// Called by the buses. Context: may sleep.
///
/// # Errors
///
/// [`EBUSY`] if the device could not be proven to have stopped. The bus should call the event off,
/// if it can. [`resume`] must be called in any case.
#[cfg_attr(
    not(any(CONFIG_PCI, CONFIG_RUST_DMA_KUNIT_TEST)),
    expect(dead_code, reason = "for buses with such events")
)]
pub(crate) fn pause(dev: &Device<Bound>) -> Result {
    Control::find(dev).map_or(Ok(()), Control::hold)
}

/// Ends such an event: starts the device if it ran before and its driver can go on. Returns whether
/// it was started.
///
/// Called by the buses, once for each [`pause`]. Context: may sleep.
///
/// # Errors
///
/// What [`Quiesce::disarm`](super::Quiesce::disarm) returned; the device stays stopped.
#[cfg_attr(
    not(any(CONFIG_PCI, CONFIG_RUST_DMA_KUNIT_TEST)),
    expect(dead_code, reason = "for buses with such events")
)]
pub(crate) fn resume(dev: &Device<Bound>) -> Result<bool> {
    Control::find(dev).map_or(Ok(false), Control::release_hold)
}

/// Stops a device for which a bus error was reported, as [`pause`] does, until [`error_ends`].
///
/// Called by the PCI bus. Context: may sleep.
#[cfg(CONFIG_PCI)]
pub(crate) fn error_begins(dev: &Device<Bound>) {
    if let Some(control) = Control::find(dev) {
        control.error_begins();
    }
}

/// Ends a bus error, as [`resume`] does.
///
/// Called by the PCI bus. Context: may sleep.
///
/// # Errors
///
/// As [`resume`].
#[cfg(CONFIG_PCI)]
pub(crate) fn error_ends(dev: &Device<Bound>) -> Result<bool> {
    Control::find(dev).map_or(Ok(false), Control::error_ends)
}
