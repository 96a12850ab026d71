// SPDX-License-Identifier: GPL-2.0

//! Refusing to sleep.
//!
//! A driver that doesn't know how to go on after a suspend would find its device reset, or the
//! device would go on to work on what it was told before. So the system doesn't suspend, hibernate
//! or wake from an image while such a device runs, and such a device isn't started until the system
//! is awake again.
//!
//! C header: [`include/linux/suspend.h`](srctree/include/linux/suspend.h)

use super::binding::Binding;
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
use crate::{
    device::{
        Bound,
        Device, //
    },
    prelude::*, //
};
#[cfg(CONFIG_PM_SLEEP)]
use core::ptr::NonNull;

/// Lets the system not sleep while the device runs, unless its driver can go on afterwards.
#[pin_data(PinnedDrop)]
pub(super) struct Refusal {
    #[cfg(CONFIG_PM_SLEEP)]
    #[pin]
    block: Opaque<bindings::notifier_block>,
    #[cfg(CONFIG_PM_SLEEP)]
    binding: NonNull<Binding>,
    #[cfg(CONFIG_PM_SLEEP)]
    dev: NonNull<Device<Bound>>,
    /// Whether the device is kept from being started.
    #[cfg(CONFIG_PM_SLEEP)]
    held: Atomic<i32>,
}

// SAFETY: It leads to a binding and a bound device, which any thread may look at.
unsafe impl Send for Refusal {}

impl Refusal {
    /// # Safety
    ///
    /// Both must outlive the result.
    #[cfg(CONFIG_PM_SLEEP)]
    pub(super) unsafe fn new(
        binding: &Binding,
        dev: &Device<Bound>,
    ) -> impl PinInit<Self, Error> + use<> {
        let (binding, dev) = (NonNull::from(binding), NonNull::from(dev));

        try_pin_init!(Self {
            binding,
            dev,
            held: Atomic::new(0),
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
    pub(super) unsafe fn new(
        _binding: &Binding,
        _dev: &Device<Bound>,
    ) -> impl PinInit<Self, Error> + use<> {
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

        // SAFETY: `block` is the field of a `Refusal`, which is initialised, and outlived by what
        // it leads to.
        let (this, binding, dev) = unsafe {
            let this = &*container_of!(
                block.cast::<Opaque<bindings::notifier_block>>(),
                Self,
                block
            );

            (this, this.binding.as_ref(), this.dev.as_ref())
        };

        if binding.resumes() {
            return DONT_CARE;
        }

        if AFTER_SLEEP.contains(&action) && this.held.xchg(0, Full) != 0 {
            // Nothing was stopped, so nothing is started.
            let _ = binding.resume();
        }

        if !BEFORE_SLEEP.contains(&action) {
            return DONT_CARE;
        }

        if binding.hold_if_stopped() {
            this.held.store(1, Release);
            return DONT_CARE;
        }

        dev_err!(
            dev,
            "its driver can't go on after a suspend: unbind the device first\n"
        );

        // SAFETY: No requirements.
        unsafe { bindings::notifier_from_errno(EBUSY.to_errno()) }
    }
}

#[pinned_drop]
impl PinnedDrop for Refusal {
    fn drop(self: Pin<&mut Self>) {
        #[cfg(CONFIG_PM_SLEEP)]
        // SAFETY: It was registered. Waits until it isn't called any more.
        unsafe {
            bindings::unregister_pm_notifier(self.block.get())
        };
    }
}
