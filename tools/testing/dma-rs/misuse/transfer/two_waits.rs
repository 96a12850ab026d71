// SPDX-License-Identifier: GPL-2.0
//@revisions: ok bad

//! One completion gives two buffers back.
//!
//! C: `complete()` twice, or a stale one from before, lets two waiters go on.
//! Shows: As a double unmap, under load.

use kernel::{
    dma::{
        transfer::{
            Engine,
            Transfer, //
        },
        FromDevice, //
    },
    prelude::*,
    time::Delta, //
};

pub fn receive<E: Engine>(transfer: Transfer<'_, '_, E, KVec<u8>, FromDevice>) -> Result {
    let (interval, timeout) = (Delta::from_micros(10), Delta::from_millis(1));

    drop(transfer.wait_polling(interval, timeout)?);
    #[cfg(bad)]
    drop(transfer.wait_polling(interval, timeout)?); //~[bad] E0382
    Ok(())
}
