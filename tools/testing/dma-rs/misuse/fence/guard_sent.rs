// SPDX-License-Identifier: GPL-2.0
//@revisions: ok bad

//! A section that signals fences begins in one thread and ends in another one.
//!
//! C: The cookie of `dma_fence_begin_signalling()` is kept with the job.
//! Shows: As a report of lockdep about a lock that isn't held.

use kernel::{
    dma_fence::Signalling,
    prelude::*,
    workqueue, //
};

pub fn complete() -> Result {
    let guard = Signalling::begin();

    #[cfg(ok)]
    drop(guard);
    #[cfg(ok)]
    let work = || drop(Signalling::begin());
    #[cfg(bad)]
    let work = move || drop(guard);
    workqueue::system().try_spawn(GFP_KERNEL, work)?; //~[bad] E0277
    Ok(())
}
