// SPDX-License-Identifier: GPL-2.0
//@revisions: ok bad

//! What the device may access is tied to one thread, but is freed by another.
//!
//! C: The remove function runs where it likes.
//! Shows: As a data race, or as an unbalanced section.

use kernel::{
    dma::{
        self,
        Session, //
    },
    prelude::*, //
};

#[cfg(ok)]
type Contents<'a> = (KVec<u8>, dma::Mapper<'a>);
#[cfg(bad)]
type Contents<'a> = (KVec<u8>, dma::Running<'a>);

pub struct Data<'a> {
    pub session: Session<'a, Contents<'a>>, //~[bad] E0277
}
