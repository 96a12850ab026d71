// SPDX-License-Identifier: GPL-2.0
//@revisions: ok bad

//! A value that borrows something is posted to a ring, which may keep it for longer.
//!
//! C: Whatever a pointer points to.
//! Shows: When the ring was dropped in flight and its device is stopped later, as a write to what
//! was a stack frame.

use kernel::{
    dma::ring::Readable,
    sync::Arc, //
};

#[cfg(ok)]
pub trait Counter: Send + 'static {}
#[cfg(bad)]
pub trait Counter: Send {}

/// A message, and what is told when it was sent.
pub struct Message<C>(Arc<[u8; 512]>, pub C);

// SAFETY: The contents of an `Arc` don't move, and stay as long as there is one. They are one
// kmalloc() allocation, which is in the linear map, and initialised.
unsafe impl<C: Counter> Readable for Message<C> {
    //~[bad]^ E0310
    fn count(&self) -> usize {
        1
    }

    fn part(&self, _at: usize) -> (*const u8, usize) {
        ((&raw const *self.0).cast(), 512)
    }
}
