// SPDX-License-Identifier: GPL-2.0
//@revisions: ok bad

//! An index that the device wrote into shared memory is used as it is.
//!
//! C: `table[mailbox->index]`.
//! Shows: As an access beyond the table, when the device is broken or hostile.

use kernel::{
    dma::{
        dma_read,
        PoolEntry, //
    },
    prelude::*, //
};

#[derive(FromBytes, IntoBytes)]
#[repr(C)]
pub struct Mailbox {
    pub index: u32,
}

pub fn look_up<'t>(mailbox: &PoolEntry<'_, Mailbox>, table: &'t [u8]) -> Result<&'t u8> {
    let index = dma_read!(mailbox, .index);

    #[cfg(bad)]
    return Ok(&table[index as usize]); //~[bad] E0605
    #[cfg(ok)]
    index.index_into(table)
}
