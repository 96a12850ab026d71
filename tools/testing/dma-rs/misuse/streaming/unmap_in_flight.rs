// SPDX-License-Identifier: GPL-2.0
//@revisions: ok bad

//! A buffer is unmapped, and so freed, while the device may have it.
//!
//! C: `dma_unmap_single()` and `kfree()` compile at any time, for instance after a time-out.
//! Shows: As corruption of whatever gets the memory next.

use kernel::{
    dma::{
        FromDevice,
        Streaming, //
    },
    prelude::*, //
};

pub fn give_up(buf: Streaming<'_, KVec<u8>, FromDevice>) -> Result<KVec<u8>> {
    #[cfg(ok)]
    let buf = buf.take_back().map_err(|_in_flight| EBUSY)?;

    Ok(buf.unmap()) //~[bad] E0599
}
