// SPDX-License-Identifier: GPL-2.0
//@revisions: ok bad

//! A field that the device may write is used without a volatile access.
//!
//! C: `while (!mailbox->done)` is a loop that the compiler may make endless.
//! Shows: With the next compiler.

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
    pub doorbell: u32,
    pub answer: u32,
}

pub fn answer(mailbox: &PoolEntry<'_, Mailbox>) -> Result<u32> {
    #[cfg(bad)]
    let _ = mailbox.answer; //~[bad] E0609
    dma_read!(mailbox, .answer).at_most(100)
}
