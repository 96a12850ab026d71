// SPDX-License-Identifier: GPL-2.0
//@revisions: ok bad

//! The length of a frame is read after the device was told of it, when it may be sent and freed.
//!
//! C: `stats->tx_bytes += skb->len;` after the doorbell compiles.
//! Shows: As a wrong number now and then; KASAN reports it if the device is fast enough.

use kernel::{
    dma::{
        ring::{
            Descriptor,
            RingRegisters, //
        },
        ToDevice, //
    },
    net::netdev::{
        Sender,
        SkBuff,
        Verdict,
        Xmit, //
    }, //
};

pub fn start_xmit<Q>(
    tx: &mut Sender<'_, Q>,
    skb: SkBuff,
    cx: &mut Xmit<'_>,
    bytes: &mut usize,
) -> Verdict
where
    Q: RingRegisters<Direction = ToDevice>,
    Q::Descriptor: Descriptor<Options = ()>,
{
    #[cfg(ok)]
    let len = skb.len();

    let verdict = tx.xmit(cx, skb, None, ());

    #[cfg(bad)]
    let len = skb.len(); //~[bad] E0382

    *bytes += len as usize;
    verdict
}
