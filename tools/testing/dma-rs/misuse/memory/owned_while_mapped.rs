// SPDX-License-Identifier: GPL-2.0
//@revisions: ok bad

//! A driver takes memory for its own, to read it at leisure, while a process can still write it.
//!
//! C: Whoever has a pointer reads, and checks what changes before it is used.
//! Shows: As a check that something else has passed than what is used. KCSAN sees no user space.

use kernel::dma::{
    SharedBox,
    UserShared, //
};

pub fn own<'a>(memory: UserShared<'a, [u16]>) -> Option<SharedBox<'a, [u16]>> {
    #[cfg(ok)]
    let memory = memory.into_shared();

    memory.take_back().ok() //~[bad] E0599
}
