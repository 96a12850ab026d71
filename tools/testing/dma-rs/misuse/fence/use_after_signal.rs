// SPDX-License-Identifier: GPL-2.0
//@revisions: ok bad

//! A fence is handed out after the driver has signalled it, and has given its reference back.
//!
//! C: `dma_fence_get()` of what was put.
//! Shows: As a count of references that begins anew at zero: `refcount_t` warns.

use kernel::{
    dma_fence::{
        DriverFence,
        Fence, //
    },
    sync::aref::ARef, //
};

pub fn complete(job: DriverFence) -> ARef<Fence> {
    #[cfg(ok)]
    let fence = job.fence();
    job.signal();
    #[cfg(bad)]
    let fence = job.fence(); //~[bad] E0382

    fence
}
