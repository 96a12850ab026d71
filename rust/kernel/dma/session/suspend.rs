// SPDX-License-Identifier: GPL-2.0

//! Refusing to suspend while a device runs whose driver can't go on afterwards.
//!
//! After a suspend such a driver would find its device reset, or the device would go on with what
//! it was told before. So the system doesn't suspend, hibernate or restore an image while such a
//! device runs, and the device can't be started until the system is awake again.
//!
//! C header: [`include/linux/suspend.h`](srctree/include/linux/suspend.h)

use super::control::Control;
use crate::prelude::*;
#[cfg(CONFIG_PM_SLEEP)]
use crate::{
    bindings,
    container_of,
    error::to_result,
    sync::atomic::{
        Atomic,
        Full,
        Release, //
    },
    types::Opaque, //
};
use core::ptr::NonNull;

/// The notifier by which a device refuses a suspend.
#[pin_data(PinnedDrop)]
pub(super) struct Refusal {
    #[cfg(CONFIG_PM_SLEEP)]
    #[pin]
    block: Opaque<bindings::notifier_block>,
    #[cfg(CONFIG_PM_SLEEP)]
    control: NonNull<Control>,
    /// Whether the device is kept from being started.
    #[cfg(CONFIG_PM_SLEEP)]
    is_held: Atomic<bool>,
}

// SAFETY: Any thread may use a `Control`.
unsafe impl Send for Refusal {}

// SAFETY: Any thread may use a `Control`.
unsafe impl Sync for Refusal {}

impl Refusal {
    /// Registers the notifier.
    ///
    /// # Safety
    ///
    /// `control` must outlive the result, and be initialised except for this field and that for
    /// debugfs, which aren't used here.
    #[cfg(CONFIG_PM_SLEEP)]
    pub(super) unsafe fn new(control: NonNull<Control>) -> impl PinInit<Self, Error> {
        try_pin_init!(Self {
            control,
            is_held: Atomic::new(false),
            // Last: from here on it may be called.
            block <- Opaque::try_ffi_init(|block: *mut bindings::notifier_block| {
                // SAFETY: `block` is valid memory, pinned until it is unregistered.
                unsafe {
                    block.write(bindings::notifier_block {
                        notifier_call: Some(Self::call),
                        ..pin_init::zeroed()
                    });
                    to_result(bindings::register_pm_notifier(block))
                }
            }),
        }? Error)
    }

    /// # Safety
    ///
    /// None: there is no sleep.
    #[cfg(not(CONFIG_PM_SLEEP))]
    pub(super) unsafe fn new(_control: NonNull<Control>) -> impl PinInit<Self, Error> {
        try_pin_init!(Self {}? Error)
    }

    /// # Safety
    ///
    /// `block` must be that of a `Refusal`, registered.
    #[cfg(CONFIG_PM_SLEEP)]
    unsafe extern "C" fn call(
        block: *mut bindings::notifier_block,
        action: usize,
        _data: *mut c_void,
    ) -> c_int {
        // CAST: Small numbers.
        const BEFORE_SLEEP: [usize; 3] = [
            bindings::PM_SUSPEND_PREPARE as usize,
            bindings::PM_HIBERNATION_PREPARE as usize,
            bindings::PM_RESTORE_PREPARE as usize,
        ];
        const AFTER_SLEEP: [usize; 3] = [
            bindings::PM_POST_SUSPEND as usize,
            bindings::PM_POST_HIBERNATION as usize,
            bindings::PM_POST_RESTORE as usize,
        ];
        // CAST: A small number.
        const DONT_CARE: c_int = bindings::NOTIFY_DONE as c_int;

        // SAFETY: By the safety requirement `block` is the field of a `Refusal` that is registered,
        // hence initialised. By the requirement of `new()` its `control` outlives it.
        let (this, control) = unsafe {
            let this = &*container_of!(
                block.cast::<Opaque<bindings::notifier_block>>(),
                Self,
                block
            );

            (this, this.control.as_ref())
        };

        if control.resumes() {
            return DONT_CARE;
        }

        if AFTER_SLEEP.contains(&action) && this.is_held.xchg(false, Full) {
            // The driver can't go on, so this starts nothing.
            let _ = control.release_hold();
        }

        if !BEFORE_SLEEP.contains(&action) {
            return DONT_CARE;
        }

        if control.hold_if_stopped() {
            this.is_held.store(true, Release);
            return DONT_CARE;
        }

        dev_err!(
            control.device(),
            "its driver can't go on after a suspend: unbind the device first\n"
        );

        // SAFETY: The function has no requirements.
        unsafe { bindings::notifier_from_errno(EBUSY.to_errno()) }
    }
}

#[pinned_drop]
impl PinnedDrop for Refusal {
    fn drop(self: Pin<&mut Self>) {
        #[cfg(CONFIG_PM_SLEEP)]
        // SAFETY: The notifier was registered by `new()`. This waits until no call of it runs.
        unsafe {
            bindings::unregister_pm_notifier(self.block.get())
        };
    }
}
