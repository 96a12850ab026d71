// SPDX-License-Identifier: GPL-2.0
//@revisions: ok bad

//! A value that the device wrote to a completion is used without a check.
//!
//! C: The entry is a structure in memory.
//! Shows: With a device that lies, or is gone: it reads as all ones.

use kernel::{
    dma::queue::{
        Entry,
        Seen, //
    },
    prelude::*, //
};

pub fn queue<E: Entry + Copy>(seen: &Seen<'_, E>, queues: &[u32]) -> Result<u32> {
    #[cfg(ok)]
    let found = seen.queue().index_into(queues)?;
    #[cfg(bad)]
    let found = &queues[seen.queue()]; //~[bad] E0277

    Ok(*found)
}
