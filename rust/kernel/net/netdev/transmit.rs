// SPDX-License-Identifier: GPL-2.0

//! Sending: byte limits, and queues that are stopped and woken.
//!
//! C headers: [`include/linux/netdevice.h`](srctree/include/linux/netdevice.h),
//! [`include/net/netdev_queues.h`](srctree/include/net/netdev_queues.h)

use super::{
    device::{
        add,
        Counters, //
    },
    napi::Poll,
    skbuff::{
        DropReason,
        Handled,
        SkBuff,
        TxFrame, //
    }, //
};
use crate::{
    bindings,
    dma::{
        ring::{
            Consumer,
            Descriptor,
            Producer,
            Publish,
            Queue,
            Ring,
            ToRead, //
        },
        Mapper,
        ToDevice, //
    },
    error::ErrorWith,
    prelude::*,
    types::Opaque, //
};
use core::marker::PhantomData;

/// The most descriptors that a frame takes.
const MOST: u32 = 1;

/// A transmit queue (C: `struct netdev_queue`). Whoever stops it must know when to wake it, so only
/// this module does.
#[repr(transparent)]
pub(super) struct TxQueue(Opaque<bindings::netdev_queue>);

// SAFETY: It is reached by C functions that are made for several threads.
unsafe impl Sync for TxQueue {}

impl TxQueue {
    #[inline]
    pub(super) fn as_raw(&self) -> *mut bindings::netdev_queue {
        self.0.get()
    }
}

/// What [`start_xmit`](super::Driver::start_xmit) is called with. The lock of the transmit queue is
/// held, and softirqs are off.
pub struct Xmit<'c> {
    counters: &'c Counters,
    more: bool,
    _context: PhantomData<*mut ()>,
}

impl<'c> Xmit<'c> {
    /// # Safety
    ///
    /// The caller must hold the lock of the transmit queue, and be called by the stack to send a
    /// frame.
    #[inline(always)]
    pub(super) unsafe fn new(counters: &'c Counters) -> Self {
        Self {
            counters,
            // SAFETY: No requirements, where a frame is sent.
            more: unsafe { bindings::netdev_xmit_more() },
            _context: PhantomData,
        }
    }

    /// Returns whether another frame follows at once.
    #[inline]
    pub(super) fn more(&self) -> bool {
        self.more
    }

    /// Frees a frame that can't be sent, and counts it.
    #[inline]
    pub fn drop_frame(&mut self, skb: SkBuff, reason: DropReason) -> Verdict {
        add(&self.counters.tx_dropped, 1);
        Verdict::Handled(skb.free(reason))
    }
}

/// What became of a frame that was to be sent.
#[must_use]
pub enum Verdict {
    /// It is being sent, or was freed.
    Handled(Handled),
    /// There is no room: the stack tries again later (C: `NETDEV_TX_BUSY`).
    Busy(SkBuff),
}

/// Sends frames: the half of a ring that belongs into [`Driver::Tx`](super::Driver::Tx).
///
/// # Stopping and waking
///
/// A queue whose ring is full is stopped, and woken by the [`Cleaner`]. The two run at the same
/// time. S is [`xmit`](Self::xmit), C is [`Cleaner::clean`]:
///
/// ```text
/// S: post; set XOFF; full barrier; load head (acquire); if there is room, clear XOFF
/// C: store head (release); full barrier; load XOFF; if set and there is room, wake
/// ```
///
/// Each stores before it loads what the other stores, with a full barrier between. So S sees that
/// there is room, or C sees that the queue is stopped: it doesn't stay stopped with room in the
/// ring. C may take frames that the device wasn't told of for free descriptors. Then it wakes too
/// early, which does no harm, as S looks for itself. A stopped queue isn't stopped for ever, since
/// the device is told of all frames whenever a queue is stopped, by whomever.
///
/// # Byte limits
///
/// The stack limits how many bytes are in a ring (BQL, `CONFIG_BQL`). It is told of each byte once
/// when it is posted, and once when it is sent, or taken out of the ring otherwise. A kernel whose
/// counts don't agree stops at a `BUG_ON()`. That can't happen: a queue has one ring
/// ([`Unregistered::transmit_ring`](super::Unregistered::transmit_ring)), whose halves are used by
/// one at a time each, and the cleaner learns of a frame only when the device is told.
pub struct Sender<'a, Q: Queue<Direction = ToDevice>> {
    ring: Producer<'a, Q, ToRead<TxFrame>>,
    queue: &'a TxQueue,
}

/// Gets sent frames back: the half of a ring that belongs into
/// [`Driver::Poll`](super::Driver::Poll).
pub struct Cleaner<'a, Q: Queue<Direction = ToDevice>> {
    ring: Consumer<'a, Q, ToRead<TxFrame>>,
    queue: &'a TxQueue,
    len: u32,
}

/// Makes both halves. There must be no other ring for this queue.
pub(super) fn transmit_ring<'a, Q: Queue<Direction = ToDevice>>(
    dma: Mapper<'a>,
    queue: &'a TxQueue,
    hardware: Q,
    len: u32,
) -> Result<(Sender<'a, Q>, Cleaner<'a, Q>)> {
    const {
        assert!(
            matches!(Q::PUBLISH, Publish::Tail),
            "the device could be done with a frame before its bytes are counted"
        )
    };

    let Ring { producer, consumer } = Ring::new(dma, hardware, len)?;

    Ok((
        Sender {
            ring: producer,
            queue,
        },
        Cleaner {
            ring: consumer,
            queue,
            len,
        },
    ))
}

impl<'a, Q: Queue<Direction = ToDevice>> Sender<'a, Q> {
    /// Posts a frame. The device is told by [`kick`](Self::kick), which the driver's
    /// [`kick`](super::Driver::kick) calls.
    ///
    /// A frame that the device or the mapping refuses is dropped, and counted.
    #[inline]
    pub fn xmit(
        &mut self,
        cx: &mut Xmit<'_>,
        skb: SkBuff,
        options: <Q::Descriptor as Descriptor>::Options,
    ) -> Verdict {
        // Nobody sends to a stopped queue, but for some who don't ask.
        if !self.has_room() && !self.stop() {
            return Verdict::Busy(skb);
        }

        let frame = match TxFrame::new(skb) {
            Ok(frame) => frame,
            Err(skb) => return cx.drop_frame(skb, DropReason::NOMEM),
        };
        let bytes = frame.bytes();

        if let Err(refused) = self.ring.post(ToRead(frame), options) {
            return refuse(cx, refused);
        }

        // SAFETY: The queue is valid. The frame was posted to the only ring of it, and the half
        // that completes frames doesn't see it before the device is told.
        unsafe { bindings::netdev_tx_sent(self.queue.as_raw(), bytes, cx.more) };

        if !self.has_room() {
            self.stop();
        }

        Verdict::Handled(Handled(()))
    }

    /// Returns whether there is room for a frame.
    #[inline]
    fn has_room(&mut self) -> bool {
        self.ring.free() >= MOST || self.ring.refresh() >= MOST
    }

    /// Stops the queue, unless there is room after all; returns whether there is.
    #[cold]
    fn stop(&mut self) -> bool {
        // SAFETY: The queue is valid.
        unsafe { bindings::netif_tx_stop_queue_mb(self.queue.as_raw()) };

        if self.ring.refresh() < MOST {
            return false;
        }

        // SAFETY: As above.
        unsafe { bindings::netif_tx_start_queue(self.queue.as_raw()) };
        true
    }

    /// Tells the device of what was posted. If the device was stopped, the frames come back from
    /// the next [`start`](Self::start). Context: any.
    #[inline]
    pub fn kick(&mut self) {
        let _ = self.ring.kick();
    }

    /// Tells the device where the ring is, when its session was started. Frames that are still in
    /// it are dropped.
    ///
    /// Context: may sleep.
    ///
    /// # Errors
    ///
    /// As [`Producer::start`].
    pub fn start(&mut self, cleaner: &mut Cleaner<'a, Q>) -> Result {
        self.cancel(cleaner, |producer, consumer, give| {
            producer.start(consumer, give)
        })
    }

    /// Drops all frames of a ring whose device was stopped.
    ///
    /// Context: may sleep.
    ///
    /// # Errors
    ///
    /// As [`Producer::drain`].
    pub fn drain(&mut self, cleaner: &mut Cleaner<'a, Q>) -> Result {
        self.cancel(cleaner, |producer, consumer, give| {
            producer.drain(consumer, give)
        })
    }

    fn cancel(
        &mut self,
        cleaner: &mut Cleaner<'a, Q>,
        take: impl FnOnce(
            &mut Producer<'a, Q, ToRead<TxFrame>>,
            &mut Consumer<'a, Q, ToRead<TxFrame>>,
            &mut dyn FnMut(ToRead<TxFrame>),
        ) -> Result,
    ) -> Result {
        let (mut frames, mut bytes) = (0, 0);
        let taken = take(&mut self.ring, &mut cleaner.ring, &mut |ToRead(frame)| {
            frames += 1;
            bytes += frame.bytes();
            drop(frame);
        });

        // SAFETY: The queue is valid, and nobody else completes frames, since the cleaner is ours.
        // These frames were counted when they were posted, and aren't in the ring any more.
        unsafe { bindings::netdev_txq_completed_mb(self.queue.as_raw(), frames, bytes) };
        taken
    }
}

/// Drops a frame that wasn't posted.
#[cold]
fn refuse(cx: &mut Xmit<'_>, refused: ErrorWith<ToRead<TxFrame>>) -> Verdict {
    let ErrorWith {
        error,
        value: ToRead(frame),
    } = refused;

    let reason = if error == EOVERFLOW {
        DropReason::PKT_TOO_BIG
    } else {
        DropReason::NOMEM
    };

    cx.drop_frame(frame.into_skb(), reason)
}

impl<'a, Q: Queue<Direction = ToDevice>> Cleaner<'a, Q> {
    /// Frees all frames that were sent, and wakes the queue if there is room; returns how many.
    #[inline]
    pub fn clean(&mut self, cx: &mut Poll<'_>) -> u32 {
        let mut bytes = 0;
        let budget = cx.whole_budget();

        let frames = self.ring.reap_each(|ToRead(frame)| {
            bytes += frame.bytes();
            // SAFETY: By `Poll` we are called by a poll function with that budget.
            unsafe { frame.consume(budget) };
        });

        if frames == 0 {
            return 0;
        }

        let queue = self.queue.as_raw();

        // A full barrier: see `Sender`.
        //
        // SAFETY: The queue is valid. These frames were counted when they were posted to its only
        // ring, and aren't in there any more. Nobody else completes frames.
        unsafe { bindings::netdev_txq_completed_mb(queue, frames, bytes) };

        // SAFETY: The queue is valid.
        if unsafe { bindings::netif_tx_queue_stopped(queue) } && self.has_room() {
            // SAFETY: As above.
            unsafe { bindings::netif_tx_wake_queue(queue) };
        }

        let counters = cx.counters();

        add(&counters.tx_packets, u64::from(frames));
        add(&counters.tx_bytes, u64::from(bytes));
        frames
    }

    /// Returns whether there is room enough to wake the queue, rather than for the next frame only.
    #[cold]
    fn has_room(&mut self) -> bool {
        self.len.saturating_sub(self.ring.posted()) >= (self.len / 4).max(MOST)
    }
}
