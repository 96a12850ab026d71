// SPDX-License-Identifier: GPL-2.0
//@revisions: ok bad

//! Two threads take frames from one ring without a lock.
//!
//! C: The poll function and the watchdog both clean.
//! Shows: As a double free, under load.

use kernel::{
    dma::{
        ring::{
            Consumer,
            RingRegisters, //
        },
        ToDevice, //
    },
    prelude::*, //
};

#[cfg(ok)]
type Shared<'s, T> = &'s mut T;
#[cfg(bad)]
type Shared<'s, T> = &'s T;

pub fn clean<'a, Q: RingRegisters<Direction = ToDevice>>(
    tx: Shared<'_, Consumer<'a, Q, KVec<u8>>>,
) {
    drop(tx.reap()); //~[bad] E0596
}
