// SPDX-License-Identifier: GPL-2.0
//@revisions: ok bad

//! An address is moved beyond the end of the buffer by arithmetic.
//!
//! C: `dma + offset` compiles for each offset.
//! Shows: Behind an IOMMU, if the page ends there; elsewhere as corruption.

use kernel::{
    dma::{
        DmaAddr,
        Streaming,
        ToDevice, //
    },
    prelude::*, //
};

pub fn second<'a>(buf: &'a Streaming<'_, KVec<u8>, ToDevice>) -> Result<DmaAddr<'a>> {
    #[cfg(ok)]
    let address = buf.address().offset(64)?;
    #[cfg(bad)]
    let address = buf.address() + 64; //~[bad] E0369

    Ok(address)
}
