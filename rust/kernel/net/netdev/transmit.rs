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
    features::Features,
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
            Part,
            Producer,
            Publish,
            Readable,
            Ring,
            RingRegisters,
            Spare, //
        },
        Mapper,
        ToDevice, //
    },
    error::ErrorWith,
    prelude::*,
    types::Opaque, //
};
use core::marker::PhantomData;

/// How many pieces a frame has at most: its linear part, and fragments.
const MOST_PIECES: u32 = 1 + bindings::CONFIG_MAX_SKB_FRAGS;

/// The options of a ring's descriptors.
type Options<Q> = <<Q as RingRegisters>::Descriptor as Descriptor>::Options;

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
pub struct Sender<'a, Q: RingRegisters<Direction = ToDevice>> {
    ring: Producer<'a, Q, Part<TxFrame>>,
    queue: &'a TxQueue,
    most: Most,
}

/// Memory of a transmit ring that isn't used yet, for [`Sender::resize_to`].
pub struct SpareTx<'a, Q: RingRegisters<Direction = ToDevice>> {
    memory: Spare<'a, Q, Part<TxFrame>>,
    len: u32,
}

impl<'a, Q: RingRegisters<Direction = ToDevice>> SpareTx<'a, Q> {
    /// Allocates memory for a ring of `len` descriptors.
    ///
    /// Context: may sleep.
    ///
    /// # Errors
    ///
    /// As [`Spare::new`].
    pub fn new(dma: Mapper<'a>, len: u32) -> Result<Self> {
        Ok(Self {
            memory: Spare::new(dma, len)?,
            len,
        })
    }
}

/// How many pieces a frame may have, and how many descriptors it takes at most: those, and one
/// before them.
#[derive(Clone, Copy)]
struct Most {
    pieces: u32,
    descriptors: u32,
}

/// Gets sent frames back: the half of a ring that belongs into
/// [`Driver::Poll`](super::Driver::Poll).
pub struct Cleaner<'a, Q: RingRegisters<Direction = ToDevice>> {
    ring: Consumer<'a, Q, Part<TxFrame>>,
    queue: &'a TxQueue,
    len: u32,
    most: Most,
}

/// Makes both halves. There must be no other ring for this queue. `features` are those of the
/// device.
pub(super) fn transmit_ring<'a, Q: RingRegisters<Direction = ToDevice>>(
    dma: Mapper<'a>,
    queue: &'a TxQueue,
    hardware: Q,
    len: u32,
    features: Features,
) -> Result<(Sender<'a, Q>, Cleaner<'a, Q>)> {
    const {
        assert!(
            matches!(Q::PUBLISH, Publish::Tail),
            "the device could be done with a frame before its bytes are counted"
        )
    };

    let pieces = match features.contains(Features::SG) {
        true => MOST_PIECES,
        false => 1,
    };
    let most = Most {
        pieces,
        // What the stack leaves to a device that divides frames are checksums, too.
        descriptors: pieces + u32::from(features.contains(Features::CHECKSUM)),
    };

    // A queue that is never woken would be of no use. One descriptor is never used.
    if len <= 2 * most.descriptors {
        return Err(EINVAL);
    }

    let Ring { producer, consumer } = Ring::new(dma, hardware, len)?;

    Ok((
        Sender {
            ring: producer,
            queue,
            most,
        },
        Cleaner {
            ring: consumer,
            queue,
            len,
            most,
        },
    ))
}

impl<'a, Q: RingRegisters<Direction = ToDevice>> Sender<'a, Q> {
    /// Posts a frame: a descriptor for each piece of memory that it is in, with `options`. If there
    /// is a `context`, a descriptor with that comes before, without memory. The device is told by
    /// [`kick`](Self::kick), which the driver's [`kick`](super::Driver::kick) calls.
    ///
    /// A frame that the device or the mapping refuses is dropped, and counted.
    #[inline]
    pub fn xmit(
        &mut self,
        cx: &mut Xmit<'_>,
        skb: SkBuff,
        context: Option<Options<Q>>,
        options: Options<Q>,
    ) -> Verdict {
        // Nobody sends to a stopped queue, but for some who don't ask.
        if !self.has_room() && !self.stop() {
            return Verdict::Busy(skb);
        }

        let frame = match TxFrame::new(skb, self.most.pieces) {
            Ok(frame) => frame,
            Err(skb) => return cx.drop_frame(skb, DropReason::NOMEM),
        };
        let bytes = frame.bytes();

        let posted = if context.is_none() && frame.count() == 1 {
            self.ring.post(Part::whole(frame), options).map_err(whole)
        } else {
            self.post_pieces(frame, context, options)
        };

        if let Err(refused) = posted {
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

    /// Posts a frame of several descriptors.
    fn post_pieces(
        &mut self,
        frame: TxFrame,
        context: Option<Options<Q>>,
        options: Options<Q>,
    ) -> Result<(), ErrorWith<Option<TxFrame>>> {
        let mut chain = self.ring.new_chain();

        if let Some(context) = context {
            if let Err(error) = chain.push_context(context) {
                return Err(ErrorWith {
                    error,
                    value: Some(frame),
                });
            }
        }

        if let Err(ErrorWith { error, value }) = chain.push_parts(frame, options) {
            return Err(ErrorWith {
                error,
                value: Some(value),
            });
        }

        chain.commit().map_err(|ErrorWith { error, value }| {
            let mut frame = None;

            value.rollback(|part| frame = part.into_owner());
            ErrorWith {
                error,
                value: frame,
            }
        })
    }

    /// Returns whether there is room for a frame.
    #[inline]
    fn has_room(&mut self) -> bool {
        let most = self.most.descriptors;

        self.ring.free() >= most || self.ring.refresh() >= most
    }

    /// Stops the queue, unless there is room after all; returns whether there is.
    #[cold]
    fn stop(&mut self) -> bool {
        // SAFETY: The queue is valid.
        unsafe { bindings::netif_tx_stop_queue_mb(self.queue.as_raw()) };

        if self.ring.refresh() < self.most.descriptors {
            return false;
        }

        // SAFETY: As above.
        unsafe { bindings::netif_tx_start_queue(self.queue.as_raw()) };
        true
    }

    /// Sends bytes, from the Ethernet header on, for a device that tests itself: while it is
    /// [halted](super::Control::restart), when the stack sends nothing. They are not counted as
    /// sent: [`drain`](Self::drain) frees them, which must follow.
    ///
    /// Context: may sleep.
    ///
    /// # Errors
    ///
    /// [`ENOMEM`], [`EBUSY`] if the ring is full, and as [`Producer::post`] and [`Producer::kick`].
    pub fn send_for_test(&mut self, bytes: &[u8], options: Options<Q>) -> Result {
        let skb = SkBuff::copy_of(bytes)?;
        let posted = match TxFrame::new(skb, 1) {
            Ok(frame) => self.ring.post(Part::whole(frame), options),
            // It is in one piece.
            Err(skb) => {
                let _ = skb.free(DropReason::NOMEM);
                return Err(ENOMEM);
            }
        };

        posted.map_err(|refused| refused.error)?;
        // CAST: A frame is no longer than 2^16.
        //
        // SAFETY: As in `xmit()`: the device is told below. `&mut self` keeps others from counting
        // what is sent meanwhile.
        unsafe { bindings::netdev_tx_sent(self.queue.as_raw(), bytes.len() as u32, false) };
        self.ring.kick()
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

    /// Changes the length of the ring of a device that was stopped, with memory that was allocated
    /// before. Frames that are still in it are dropped. [`start`](Self::start) must follow.
    ///
    /// Context: may sleep.
    ///
    /// # Errors
    ///
    /// The ring is as before, and the memory is freed, with [`EINVAL`] if it is too short for two
    /// frames of as many pieces as the [features](super::Unregistered::set_features) allow; as
    /// [`Producer::resize_to`] otherwise.
    pub fn resize_to(&mut self, cleaner: &mut Cleaner<'a, Q>, spare: SpareTx<'a, Q>) -> Result {
        let len = spare.len;

        if len <= 2 * self.most.descriptors {
            return Err(EINVAL);
        }

        self.cancel(cleaner, |producer, consumer, give| {
            producer
                .resize_to(consumer, spare.memory, give)
                .map_err(|refused| refused.error)
        })?;
        cleaner.len = len;
        Ok(())
    }

    /// Returns the number of descriptors.
    pub fn ring_len(&self) -> u32 {
        self.ring.len()
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
            &mut Producer<'a, Q, Part<TxFrame>>,
            &mut Consumer<'a, Q, Part<TxFrame>>,
            &mut dyn FnMut(Part<TxFrame>),
        ) -> Result,
    ) -> Result {
        let (mut frames, mut bytes) = (0, 0);
        let taken = take(&mut self.ring, &mut cleaner.ring, &mut |part| {
            if let Some(frame) = part.into_owner() {
                frames += 1;
                bytes += frame.bytes();
                drop(frame);
            }
        });

        // SAFETY: The queue is valid, and nobody else completes frames, since the cleaner is ours.
        // These frames were counted when they were posted, and aren't in the ring any more.
        unsafe { bindings::netdev_txq_completed_mb(self.queue.as_raw(), frames, bytes) };
        taken
    }
}

/// Returns the frame that the ring hasn't taken.
#[cold]
fn whole(refused: ErrorWith<Part<TxFrame>>) -> ErrorWith<Option<TxFrame>> {
    ErrorWith {
        error: refused.error,
        value: refused.value.into_owner(),
    }
}

/// Drops a frame that wasn't posted.
#[cold]
fn refuse(cx: &mut Xmit<'_>, refused: ErrorWith<Option<TxFrame>>) -> Verdict {
    let reason = if refused.error == EOVERFLOW {
        DropReason::PKT_TOO_BIG
    } else {
        DropReason::NOMEM
    };

    match refused.value {
        Some(frame) => cx.drop_frame(frame.into_skb(), reason),
        // A frame comes back with its last piece, so this doesn't happen.
        None => Verdict::Handled(Handled(())),
    }
}

impl<'a, Q: RingRegisters<Direction = ToDevice>> Cleaner<'a, Q> {
    /// Frees all frames that were sent, and wakes the queue if there is room; returns how many.
    #[inline]
    pub fn clean(&mut self, cx: &mut Poll<'_>) -> u32 {
        let mut bytes = 0;
        let (mut wire_frames, mut wire_bytes) = (0, 0);
        let budget = cx.whole_budget();

        let frames = self.ring.reap_each(|part| {
            if let Some(frame) = part.into_owner() {
                let (frames, on_wire) = frame.on_wire();

                bytes += frame.bytes();
                wire_frames += u64::from(frames);
                wire_bytes += u64::from(on_wire);
                // SAFETY: By `Poll` we are called by a poll function with that budget.
                unsafe { frame.consume(budget) };
            }
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

        add(&counters.tx_packets, wire_frames);
        add(&counters.tx_bytes, wire_bytes);
        frames
    }

    /// Returns whether there is room enough to wake the queue, rather than for the next frame only.
    #[cold]
    fn has_room(&mut self) -> bool {
        // One descriptor is never used.
        let free = self.len.saturating_sub(1 + self.ring.posted());

        free >= (self.len / 4).max(self.most.descriptors)
    }
}
