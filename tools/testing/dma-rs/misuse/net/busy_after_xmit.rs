// SPDX-License-Identifier: GPL-2.0
//@revisions: ok bad

//! The stack is told to send a frame again later, which was posted or freed.
//!
//! C: `return NETDEV_TX_BUSY;` compiles anywhere.
//! Shows: As a socket buffer that is used after it was freed; KASAN reports it.

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
    is_full: bool,
) -> Verdict
where
    Q: RingRegisters<Direction = ToDevice>,
    Q::Descriptor: Descriptor<Options = ()>,
{
    #[cfg(ok)]
    if is_full {
        return Verdict::Busy(skb);
    }

    let verdict = tx.xmit(cx, skb, None, ());

    #[cfg(bad)]
    if is_full {
        return Verdict::Busy(skb); //~[bad] E0382
    }

    verdict
}
