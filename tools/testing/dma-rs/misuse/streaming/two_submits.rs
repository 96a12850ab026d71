// SPDX-License-Identifier: GPL-2.0
//@revisions: ok bad

//! A buffer is given to the device twice.
//!
//! C: Two descriptors may name one buffer.
//! Shows: As frames that overwrite each other, under load.

use kernel::{
    dma::{
        FromDevice,
        Streaming,
        StreamingBox, //
    },
    prelude::*, //
};

type Posted<'a> = Streaming<'a, KVec<u8>, FromDevice>;

pub fn post<'a>(buf: StreamingBox<'a, KVec<u8>, FromDevice>, mut to: impl FnMut(Posted<'a>)) {
    to(buf.submit());
    #[cfg(bad)]
    to(buf.submit()); //~[bad] E0382
}
