// SPDX-License-Identifier: GPL-2.0
//@revisions: ok bad

//! Memory is sent that nobody has written.
//!
//! C: `kmalloc()` and `dma_map_single()`: the device, or a bounce buffer, gets what was there
//!   before.
//! Shows: As a leak of kernel memory to the device, or onto the wire. KMSAN sees it, where that
//!   is on.

use core::mem::MaybeUninit;
use kernel::{
    dma::{
        Mapper,
        Streaming,
        ToDevice, //
    },
    prelude::*, //
};

pub fn send(dma: Mapper<'_>, buf: KBox<MaybeUninit<[u8; 64]>>) {
    #[cfg(ok)]
    let buf = KBox::write(buf, [0; 64]);
    drop(Streaming::<_, ToDevice>::map(dma, buf)); //~[bad] E0277
}
