// SPDX-License-Identifier: GPL-2.0
//@revisions: ok bad

//! A driver declares a layout of completions, and nothing says which part the device writes last.
//!
//! C: Nothing says that the phase comes last.
//! Shows: As a completion half of which is from the turn before, on machines with weak order.

use kernel::{
    dma::{
        queue::{
            Entry,
            Turn, //
        },
        Untrusted, //
    },
    prelude::*, //
};

#[derive(Clone, Copy, FromBytes, IntoBytes)]
#[repr(C)]
pub struct Status {
    tag: u32,
    word: u32,
}

#[cfg(ok)]
// SAFETY: By the numbers of the contract:
// 1. The device writes the word last.
// 2. Its phase is 1 in the first turn, and changes with each turn.
// 3. The device echoes the tag. There is one submission queue.
// 4. It is done with the memory of the command then.
unsafe impl Entry for Status {
    const WORD: usize = 4;

    fn is_new(word: u32, turn: Turn) -> bool {
        (word & 1 == 1) == turn.phase()
    }

    fn tag(&self) -> Option<Untrusted<u32>> {
        Some(Untrusted::new(self.tag))
    }
}

#[cfg(bad)]
impl Entry for Status {
    //~[bad]^ E0200
    const WORD: usize = 4;

    fn is_new(word: u32, turn: Turn) -> bool {
        (word & 1 == 1) == turn.phase()
    }

    fn tag(&self) -> Option<Untrusted<u32>> {
        Some(Untrusted::new(self.tag))
    }
}
