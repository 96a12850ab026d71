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

// SAFETY: The device writes the word last, with a phase of 1 in the first turn. There is one
// submission queue. It is done with the memory of a command then.
#[cfg(ok)]
unsafe impl Entry for Status {
    const WORD: usize = 4;

    fn is_new(word: u32, turn: Turn) -> bool {
        (word & 1 == 1) == turn.phase()
    }

    fn queue(&self) -> Untrusted<u16> {
        Untrusted::new(0)
    }

    fn tag(&self) -> Option<Untrusted<u32>> {
        Some(Untrusted::new(self.tag))
    }

    fn moved(&self) -> Option<Untrusted<usize>> {
        None
    }
}

#[cfg(bad)]
impl Entry for Status {
    //~[bad]^ E0200
    const WORD: usize = 4;

    fn is_new(word: u32, turn: Turn) -> bool {
        (word & 1 == 1) == turn.phase()
    }

    fn queue(&self) -> Untrusted<u16> {
        Untrusted::new(0)
    }

    fn tag(&self) -> Option<Untrusted<u32>> {
        Some(Untrusted::new(self.tag))
    }

    fn moved(&self) -> Option<Untrusted<usize>> {
        None
    }
}
