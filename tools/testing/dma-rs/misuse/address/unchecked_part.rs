// SPDX-License-Identifier: GPL-2.0
//@revisions: ok bad

//! A part of a buffer is named without a look at whether it is inside.
//!
//! C: Offset and length go into two registers.
//! Shows: Behind an IOMMU, if the page ends there; elsewhere as corruption.

use kernel::{
    dma::{
        DmaAddr,
        Streaming,
        ToDevice, //
    },
    prelude::*, //
};

pub fn part<'a>(buf: &'a Streaming<'_, KVec<u8>, ToDevice>, len: usize) -> Result<DmaAddr<'a>> {
    #[cfg(ok)]
    let address = buf.address().slice(0..len)?;
    #[cfg(bad)]
    let address = buf.address().slice(0..len);

    Ok(address) //~[bad] E0308
}
