// SPDX-License-Identifier: GPL-2.0
//@revisions: ok bad

//! Who waits for a fence signals it.
//!
//! C: `dma_fence_signal()` takes any fence.
//! Shows: As memory that others use while the device writes to it.

use kernel::{
    dma_fence::Fence,
    time::Delta, //
};

pub fn wait(fence: &Fence) {
    if fence.wait(Delta::from_secs(1)).is_none() {
        #[cfg(bad)]
        fence.signal(); //~[bad] E0599
    }
}
