// SPDX-License-Identifier: GPL-2.0
//@revisions: ok bad

//! A callback uses the stack of who has added it.
//!
//! C: `struct dma_fence_cb` on the stack, and a `return` before it was removed.
//! Shows: When the fence is signalled after a wait that timed out; KASAN sees it.

use kernel::{
    dma_fence::Fence,
    prelude::*,
    sync::{
        atomic::{
            Atomic,
            Relaxed, //
        },
        Arc, //
    }, //
};

pub fn count(fence: &Fence) -> Result {
    let calls = Arc::new(Atomic::new(0), GFP_KERNEL)?;
    #[cfg(ok)]
    let theirs = calls.clone();
    #[cfg(bad)]
    let theirs = &calls; //~[bad] E0597
    let callback = fence.add_callback(move |_| {
        theirs.fetch_add(1, Relaxed);
    })?;

    drop(callback);
    Ok(())
}
