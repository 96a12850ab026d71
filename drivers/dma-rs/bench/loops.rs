// SPDX-License-Identifier: GPL-2.0

//! The loops in Rust.
//!
//! They use the public API as drivers do. What is done once is in a function that isn't inlined, as
//! in C, so that the compiler can't take any of it out of the loop.

use super::{
    device::{
        barrier,
        take_back,
        BLOCK,
        COHERENT,
        COPIED,
        FRAME,
        LARGE, //
    },
    measure::{
        zeroed,
        Frame,
        Holds,
        List,
        Mailbox,
        RxRing,
        TxRing,
        Work, //
    },
    queue::{
        Completion,
        FrameQueues,
        ListQueues, //
    }, //
};
use kernel::{
    device::{
        Bound,
        Device, //
    },
    dma::{
        dma_read,
        dma_write,
        dmaengine::{
            Channel,
            Memcpy, //
        },
        Coherent,
        Direction,
        FromDevice,
        Mapper,
        NoncoherentBox,
        Pool,
        ScatterMap,
        Shared,
        SharedBox,
        Streaming,
        StreamingBox,
        ToDevice,
        Untrusted, //
    },
    prelude::*,
    time::Delta, //
};

/// How long a copy may take.
const PATIENCE: Delta = Delta::from_secs(1);

/// Does nothing: what a loop costs.
pub(crate) fn nothing(work: &mut Work<'_>, n: u32) -> Result {
    for _ in 0..n {
        nothing_once(work.dma)?;
    }
    Ok(())
}

#[inline(never)]
fn nothing_once(_dma: Mapper<'_>) -> Result {
    barrier();
    Ok(())
}

/// Maps a buffer, and unmaps it.
pub(crate) fn map_unmap<D: Direction, const N: usize>(work: &mut Work<'_>, n: u32) -> Result
where
    for<'a> Work<'a>: Holds<N>,
{
    let buf = work.place().take().ok_or(EINVAL)?;

    *work.place() = Some(map_unmap_buffer::<D, N>(work.dma, buf, n)?);
    Ok(())
}

/// Maps that buffer, and unmaps it.
pub(crate) fn map_unmap_buffer<D: Direction, const N: usize>(
    dma: Mapper<'_>,
    mut buf: KBox<[u8; N]>,
    n: u32,
) -> Result<KBox<[u8; N]>> {
    for _ in 0..n {
        buf = map_unmap_once::<D, N>(dma, buf).ok_or(ENOMEM)?;
    }

    Ok(buf)
}

#[inline(never)]
fn map_unmap_once<D: Direction, const N: usize>(
    dma: Mapper<'_>,
    buf: KBox<[u8; N]>,
) -> Option<KBox<[u8; N]>> {
    let mapped = Streaming::<_, D>::map(dma, buf).ok()?;

    Some(take_back(mapped, N).unmap())
}

/// Gives a buffer that stays mapped to the device, and takes it back.
pub(crate) fn pass<D: Direction>(work: &mut Work<'_>, n: u32) -> Result {
    pass_part::<D, FRAME>(work, n)
}

/// As [`pass`], but the device has accessed a part of the buffer only.
pub(crate) fn pass_prefix(work: &mut Work<'_>, n: u32) -> Result {
    pass_part::<FromDevice, COPIED>(work, n)
}

fn pass_part<D: Direction, const LEN: usize>(work: &mut Work<'_>, n: u32) -> Result {
    let buf = work.frame.take().ok_or(EINVAL)?;
    let mut mapped = StreamingBox::<_, D>::map(work.dma, buf)?;

    for _ in 0..n {
        mapped = take_back(mapped.submit(), LEN);
    }

    work.frame = Some(mapped.unmap());
    Ok(())
}

/// Allocates a block, and frees it.
pub(crate) fn pool(work: &mut Work<'_>, n: u32) -> Result {
    for _ in 0..n {
        pool_once(work.pool)?;
    }
    Ok(())
}

#[inline(never)]
fn pool_once<'a>(pool: &'a Pool<'a, [u8; BLOCK]>) -> Result {
    pool.alloc(GFP_ATOMIC).map(drop)
}

/// Allocates coherent memory, and frees it.
pub(crate) fn coherent(work: &mut Work<'_>, n: u32) -> Result {
    for _ in 0..n {
        coherent_once(work.dev)?;
    }
    Ok(())
}

#[inline(never)]
fn coherent_once(dev: &Device<Bound>) -> Result {
    Coherent::<[u8; COHERENT]>::zeroed(dev, GFP_KERNEL).map(drop)
}

/// Allocates memory that a device shares, and frees it.
pub(crate) fn shared(work: &mut Work<'_>, n: u32) -> Result {
    for _ in 0..n {
        shared_once(work.dma)?;
    }
    Ok(())
}

#[inline(never)]
fn shared_once(dma: Mapper<'_>) -> Result {
    SharedBox::<[u8; COHERENT]>::new(dma, GFP_KERNEL).map(drop)
}

/// Allocates pages that are mapped, and frees them.
pub(crate) fn pages(work: &mut Work<'_>, n: u32) -> Result {
    for _ in 0..n {
        pages_once(work.dma)?;
    }
    Ok(())
}

#[inline(never)]
fn pages_once(dma: Mapper<'_>) -> Result {
    NoncoherentBox::<FromDevice>::new(dma, COHERENT, GFP_KERNEL).map(drop)
}

/// Maps a list, and unmaps it.
pub(crate) fn list(work: &mut Work<'_>, n: u32) -> Result {
    let mut list = work.list.take().ok_or(EINVAL)?;

    for _ in 0..n {
        list = list_once(work.dma, list).ok_or(ENOMEM)?;
    }

    work.list = Some(list);
    Ok(())
}

#[inline(never)]
fn list_once(dma: Mapper<'_>, list: List) -> Option<List> {
    let mapped = ScatterMap::<_, ToDevice>::map(dma, list, GFP_KERNEL).ok()?;

    Some(mapped.take_back().ok()?.unmap())
}

/// Gives a list that stays mapped to the device, and takes it back.
pub(crate) fn list_pass(work: &mut Work<'_>, n: u32) -> Result {
    let list = work.list.take().ok_or(EINVAL)?;
    let mut mapped = ScatterMap::<_, FromDevice>::map(work.dma, list, GFP_KERNEL)?;

    for _ in 0..n {
        mapped = mapped.take_back().map_err(|_| EINVAL)?.submit();
    }

    work.list = Some(mapped.take_back().map_err(|_| EINVAL)?.unmap());
    Ok(())
}

/// Reads a word that a device may write.
pub(crate) fn read_word(work: &mut Work<'_>, n: u32) -> Result {
    let mut sum: u32 = 0;

    for _ in 0..n {
        sum = sum.wrapping_add(read_once(&work.mailbox).at_most(u32::MAX)?);
    }

    // Nobody has written anything.
    if sum == 0 {
        Ok(())
    } else {
        Err(EIO)
    }
}

#[inline(never)]
fn read_once(mailbox: &Shared<'_, Mailbox>) -> Untrusted<u32> {
    dma_read!(mailbox, .index)
}

/// Writes a word that a device may read.
pub(crate) fn write_word(work: &mut Work<'_>, n: u32) -> Result {
    let mut left = n;

    // Downwards, as in C.
    while left > 0 {
        write_once(&work.mailbox, left);
        left -= 1;
    }

    Ok(())
}

#[inline(never)]
fn write_once(mailbox: &Shared<'_, Mailbox>, argument: u32) {
    dma_write!(mailbox, .argument, argument);
}

/// Posts frames, and gets them back.
pub(crate) fn post_reap(work: &mut Work<'_>, n: u32) -> Result {
    let Work {
        tx, spare, batch, ..
    } = work;
    let mut left = n;

    while left > 0 {
        left = left.wrapping_sub(*batch);

        for _ in 0..*batch {
            post(tx, spare.pop().ok_or(EINVAL)?)?;
        }

        tx.producer.kick()?;
        reap(tx, spare);
    }

    Ok(())
}

#[inline(never)]
fn post(ring: &mut TxRing<'_>, frame: Frame) -> Result {
    Ok(ring.producer.post(frame, ())?)
}

#[inline(never)]
fn reap(ring: &mut TxRing<'_>, spare: &mut KVec<Frame>) {
    ring.consumer
        .reap_each(|frame| drop(spare.push_within_capacity(frame)));
}

/// Looks at frames, and leaves their buffers in the ring.
pub(crate) fn receive_recycle(work: &mut Work<'_>, n: u32) -> Result {
    let Work {
        rx, bytes, batch, ..
    } = work;
    let mut left = n;

    while left > 0 {
        left = left.wrapping_sub(*batch);
        clean_recycle(rx, bytes);
        refill(rx, zeroed)?;
    }

    Ok(())
}

#[inline(never)]
fn clean_recycle(ring: &mut RxRing<'_>, bytes: &mut usize) {
    ring.consumer.receive_each(u32::MAX, |frame| {
        // Looks, as the CPU must see the bytes.
        *bytes += frame.bytes().map_or(0, <[u8]>::len);
        frame.recycle();
    });
}

/// Takes frames out of the ring, and posts other buffers.
pub(crate) fn receive_unmap(work: &mut Work<'_>, n: u32) -> Result {
    let Work {
        rx,
        bytes,
        spare,
        batch,
        ..
    } = work;
    let mut left = n;

    while left > 0 {
        left = left.wrapping_sub(*batch);
        clean_unmap(rx, bytes, spare);
        refill(rx, || spare.pop().ok_or(ENOMEM))?;
    }

    Ok(())
}

#[inline(never)]
fn clean_unmap(ring: &mut RxRing<'_>, bytes: &mut usize, spare: &mut KVec<Frame>) {
    ring.consumer.receive_each(u32::MAX, |frame| {
        *bytes += frame.len();

        if let Ok(buf) = frame.take_single() {
            drop(spare.push_within_capacity(buf));
        }
    });
}

#[inline(never)]
fn refill(ring: &mut RxRing<'_>, alloc: impl FnMut() -> Result<Frame>) -> Result {
    ring.producer.refill((), alloc)?;
    ring.producer.kick()
}

/// Submits commands, and gets their buffers back.
pub(crate) fn submit_complete(work: &mut Work<'_>, n: u32) -> Result {
    let Work {
        dma,
        queues,
        spare,
        batch,
        ..
    } = work;
    let mut left = n;

    while left > 0 {
        left = left.wrapping_sub(*batch);

        for _ in 0..*batch {
            submit(*dma, queues, spare.pop().ok_or(EINVAL)?, left.into())?;
        }

        queues.commands.submitter.kick()?;
        complete(queues, spare);
    }

    match queues.failed {
        0 => Ok(()),
        _ => Err(EIO),
    }
}

/// Whether a device says that a command has failed.
#[inline]
fn has_failed(entry: Untrusted<Completion>) -> bool {
    // Either answer will do.
    entry.validate(|entry| Ok(entry.failed())).unwrap_or(true)
}

#[inline(never)]
fn submit<'a>(dma: Mapper<'a>, queues: &mut FrameQueues<'a>, frame: Frame, block: u64) -> Result {
    let frame = Streaming::map(dma, frame)?;

    queues.commands.submitter.submit(frame, block)?;
    Ok(())
}

#[inline(never)]
fn complete(queues: &mut FrameQueues<'_>, spare: &mut KVec<Frame>) {
    let FrameQueues {
        done,
        commands,
        failed,
    } = queues;

    done.reap(u32::MAX, |seen| {
        if let Ok(completed) = commands.completer.complete(seen) {
            *failed += u32::from(has_failed(completed.entry));
            drop(spare.push_within_capacity(completed.payload.unmap()));
        }
    });
}

/// Submits commands that have a list of pages, one after the other.
pub(crate) fn submit_list(work: &mut Work<'_>, n: u32) -> Result {
    let Work {
        dma, lists, large, ..
    } = work;

    for left in (1..=n).rev() {
        submit_large(*dma, lists, large.take().ok_or(EINVAL)?, left.into())?;
        lists.commands.submitter.kick()?;
        complete_large(lists, large);
    }

    match lists.failed {
        0 => Ok(()),
        _ => Err(EIO),
    }
}

#[inline(never)]
fn submit_large<'a>(
    dma: Mapper<'a>,
    queues: &mut ListQueues<'a>,
    large: KBox<[u8; LARGE]>,
    block: u64,
) -> Result {
    let large = Streaming::map(dma, large)?;

    queues.commands.submitter.submit(large, block)?;
    Ok(())
}

#[inline(never)]
fn complete_large(queues: &mut ListQueues<'_>, large: &mut Option<KBox<[u8; LARGE]>>) {
    let ListQueues {
        done,
        commands,
        failed,
    } = queues;

    done.reap(u32::MAX, |seen| {
        if let Ok(completed) = commands.completer.complete(seen) {
            *failed += u32::from(has_failed(completed.entry));
            *large = Some(completed.payload.unmap());
        }
    });
}

/// Has a DMA engine copy a frame, and gets both buffers back.
pub(crate) fn engine_copy(work: &mut Work<'_>, n: u32) -> Result {
    let Work {
        channel,
        frame,
        spare,
        ..
    } = work;
    let mut from = frame.take().ok_or(EINVAL)?;
    let mut to = spare.pop().ok_or(EINVAL)?;

    for _ in 0..n {
        (from, to) = engine_copy_once(channel, from, to).ok_or(EIO)?;
    }

    *frame = Some(from);
    drop(spare.push_within_capacity(to));
    Ok(())
}

#[inline(never)]
fn engine_copy_once(channel: &Channel<'_>, from: Frame, to: Frame) -> Option<(Frame, Frame)> {
    let from = Streaming::map(channel.mapper(), from).ok()?;
    let to = Streaming::map(channel.mapper(), to).ok()?;
    let copy = channel.submit(Memcpy::new(from, to)).ok()?;
    let (from, to) = copy.wait(PATIENCE).ok()?;

    // In the order in which C does so.
    let to = to.unmap();

    Some((from.unmap(), to))
}
