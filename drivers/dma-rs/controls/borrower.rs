// SPDX-License-Identifier: GPL-2.0

//! A module that leaves memory behind with somebody else's device, and a callback with its fence.
//!
//! A buffer that is dropped while a device may access it is freed later, when the device was
//! stopped: by code of the module that dropped it, since only that knows the type of the buffer. So
//! this module must not be unloaded before.
//!
//! The buffer carries a fence, which is signalled when it is freed. Then the callback is called,
//! which is code of this module, too.

use kernel::{
    bindings,
    device::{
        Bound,
        Device, //
    },
    dma::{
        Mapper,
        Streaming,
        ToDevice, //
    },
    dma_fence::{
        FenceAllocation,
        FenceContext,
        Fenced, //
    },
    prelude::*, //
};

/// QEMU's edu, which has a driver of its own.
const VENDOR: u32 = 0x1234;
const DEVICE: u32 = 0x11e8;

struct Borrower;

/// Drops a buffer that the device could have been told of, and forgets a callback.
fn leave_behind(dev: &Device<Bound>) -> Result {
    let dma = Mapper::get(dev)?;
    let context = FenceContext::new(c"dma_rs_borrower", c"lost property")?;
    let job = context.fence(FenceAllocation::new(GFP_KERNEL)?);
    let fence = job.fence();
    let buf = Fenced::new(KVec::from_elem(0x55_u8, 256, GFP_KERNEL)?, job);
    let buf = Streaming::<_, ToDevice>::map(dma, buf)?;

    core::mem::forget(fence.add_callback(|outcome| {
        pr_info!("the fence of what was left behind: {outcome:?}\n");
    })?);
    buf.address();
    Ok(())
}

impl kernel::Module for Borrower {
    fn init(_module: &'static ThisModule) -> Result<Self> {
        // SAFETY: No requirements; this takes a reference to the device that it returns.
        let pdev = unsafe { bindings::pci_get_device(VENDOR, DEVICE, core::ptr::null_mut()) };

        if pdev.is_null() {
            return Err(ENODEV);
        }

        // SAFETY: `pdev` is a valid function, to which we hold a reference.
        let raw = unsafe { &raw mut (*pdev).dev };

        // SAFETY: `raw` is a valid device; the lock is released below.
        unsafe { bindings::mutex_lock(&raw mut (*raw).mutex) };

        // SAFETY: The device is locked, so its driver stays what it is.
        let outcome = if unsafe { (*raw).driver.is_null() } {
            Err(ENODEV)
        } else {
            // SAFETY: A `Device` is a transparent wrapper of a valid `struct device`. This one is
            // bound, and stays so while it is locked.
            leave_behind(unsafe { &*raw.cast::<Device<Bound>>() })
        };

        // SAFETY: Locked above.
        unsafe { bindings::mutex_unlock(&raw mut (*raw).mutex) };

        // SAFETY: The reference that was taken above.
        unsafe { bindings::pci_dev_put(pdev) };

        outcome.map(|()| Self)
    }
}

module! {
    type: Borrower,
    name: "dma_rs_borrower",
    authors: ["The dma-rs authors"],
    description: "Leaves memory behind with a device",
    license: "GPL v2",
}
