// SPDX-License-Identifier: GPL-2.0
//@revisions: ok bad

//! The device fills a type of which not all values are valid.
//!
//! C: An enumeration, or a `bool`, is what the device has written there.
//! Shows: As a jump through a table past its end; UBSAN sees some of it.

use kernel::{
    dma::{
        FromDevice,
        Mapper,
        Streaming, //
    },
    prelude::*, //
};

#[cfg(ok)]
#[derive(FromBytes, IntoBytes)]
#[repr(transparent)]
pub struct Answer(u8);

#[cfg(bad)]
#[derive(IntoBytes)]
#[repr(u8)]
pub enum Answer {
    No,
    Yes,
}

pub fn receive(dma: Mapper<'_>, answer: KBox<Answer>) {
    drop(Streaming::<_, FromDevice>::map(dma, answer)); //~[bad] E0277
}
