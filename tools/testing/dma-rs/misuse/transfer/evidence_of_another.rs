// SPDX-License-Identifier: GPL-2.0
//@revisions: ok bad

//! The completion of one transfer gives the buffer of another back.
//!
//! C: One `struct completion`, several buffers.
//! Shows: As a buffer that is parsed before it was written.

use kernel::{
    dma::{
        transfer::{
            Engine,
            Transfer, //
        },
        FromDevice,
        Streaming,
        StreamingBox, //
    },
    prelude::*,
    time::Delta, //
};

type Received<'a> = StreamingBox<'a, KVec<u8>, FromDevice>;

pub fn receive<'a, E: Engine>(
    transfer: Transfer<'_, 'a, E, KVec<u8>, FromDevice>,
    other: Streaming<'a, KVec<u8>, FromDevice>,
) -> Result<Received<'a>> {
    let _ = &other;
    let done = transfer.wait_polling(Delta::from_micros(10), Delta::from_millis(1))?;

    #[cfg(bad)]
    // SAFETY: Isn't met: the transfer was that of another buffer.
    let done = unsafe { other.complete(0..done.bytes().len()) }; //~[bad] E0624
    Ok(done)
}
