// SPDX-License-Identifier: GPL-2.0
//@revisions: ok bad

//! The fence of a job is signalled while the device may access its memory, for instance after a
//! time-out.
//!
//! C: `dma_fence_signal()` in the handler of a time-out, which didn't stop the device.
//! Shows: As memory that others use while the device writes to it.

use kernel::{
    dma::{
        FromDevice,
        Streaming, //
    },
    dma_fence::Fenced,
    prelude::*, //
};

pub fn give_up(job: Streaming<'_, Fenced<KVec<u8>>, FromDevice>) {
    #[cfg(ok)]
    if let Ok(job) = job.take_back() {
        drop(job.unmap().signal_with_error(ETIME));
    }
    #[cfg(bad)]
    drop(job.signal_with_error(ETIME)); //~[bad] E0599
}
