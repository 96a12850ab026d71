// SPDX-License-Identifier: GPL-2.0
//@revisions: ok bad

//! A fence is signalled twice.
//!
//! C: The second `dma_fence_signal()` does nothing, or it signals what the memory is by now.
//! Shows: When two paths complete a job, such as an interrupt and a time-out: the second one has
//!   no reference any more.

use kernel::{
    dma_fence::DriverFence,
    prelude::*, //
};

pub fn complete(job: DriverFence) {
    #[cfg(bad)]
    job.signal();
    job.signal_with_error(EIO); //~[bad] E0382
}
