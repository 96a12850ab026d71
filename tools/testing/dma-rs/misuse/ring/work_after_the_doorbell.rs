// SPDX-License-Identifier: GPL-2.0
//@revisions: ok bad

//! The driver changes the ring's bookkeeping after the doorbell.
//!
//! C: `tx_info->skb = skb` after `writel()`; the completion may come first (hns3).
//! Shows: Under load, with interrupts on another CPU.

use kernel::{
    dma::{
        ring::{
            Producer,
            RingRegisters, //
        },
        ToDevice, //
    },
    prelude::*, //
};

pub fn send<'a, Q: RingRegisters<Direction = ToDevice>>(
    tx: &mut Producer<'a, Q, KVec<u8>>,
) -> Result<u32> {
    tx.kick()?;
    #[cfg(ok)]
    let free = tx.refresh();
    #[cfg(bad)]
    let free = tx.tail; //~[bad] E0616

    Ok(free)
}
