// SPDX-License-Identifier: GPL-2.0
//@revisions: ok bad

//! An address is used when its mapping is gone.
//!
//! C: A `dma_addr_t` in a structure stays what it was.
//! Shows: Behind an IOMMU as a fault; elsewhere as corruption.

use kernel::{
    dma::{
        Streaming,
        ToDevice, //
    },
    prelude::*, //
};

pub fn show(buf: Streaming<'_, KVec<u8>, ToDevice>, mut show: impl FnMut(usize)) {
    let address = buf.address();
    #[cfg(ok)]
    show(address.len());
    drop(buf); //~[bad] E0505
    #[cfg(bad)]
    show(address.len());
}
