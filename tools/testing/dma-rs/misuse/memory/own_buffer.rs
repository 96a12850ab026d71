// SPDX-License-Identifier: GPL-2.0
//@revisions: ok bad

//! A driver's own type becomes a buffer, and nothing says why it may be mapped.
//!
//! C: What may be mapped is written in a document.
//! Shows: Where the document wasn't read.

use kernel::{
    dma::Buffer,
    prelude::*, //
};

pub struct Message(KVec<u8>);

#[cfg(bad)]
impl Buffer for Message {
    //~[bad]^ E0200
    fn as_ptr(&self) -> *const u8 {
        self.0.as_ptr()
    }

    fn as_mut_ptr(&mut self) -> *mut u8 {
        self.0.as_mut_ptr()
    }

    fn len(&self) -> usize {
        self.0.len()
    }

    fn allocation(&self) -> usize {
        self.0.len()
    }
}

// What is in there is one already.
#[cfg(ok)]
impl Message {
    /// Returns what can be mapped.
    pub fn into_buffer(self) -> impl Buffer {
        self.0
    }
}
