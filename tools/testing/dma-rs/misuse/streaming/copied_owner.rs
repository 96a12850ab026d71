// SPDX-License-Identifier: GPL-2.0
//@revisions: ok bad

//! Two values own one mapping.
//!
//! C: A structure with a `dma_addr_t` in it may be copied, and each copy unmapped.
//! Shows: dma-debug, if it is on; as a double free.

use kernel::{
    dma::{
        FromDevice,
        Streaming, //
    },
    prelude::*, //
};

type Posted<'a> = Streaming<'a, KVec<u8>, FromDevice>;

pub fn post<'a>(buf: Posted<'a>, mut to: impl FnMut(Posted<'a>)) {
    #[cfg(bad)]
    to(buf.clone()); //~[bad] E0599
    to(buf);
}
