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
        FRAME, //
    },
    measure::{
        zeroed,
        Frame,
        Holds,
        RxRing,
        TxRing,
        Work, //
    }, //
};
use kernel::{
    device::{
        Bound,
        Device, //
    },
    dma::{
        Coherent,
        Direction,
        FromDevice,
        Mapper,
        Pool,
        Streaming,
        StreamingBox, //
    },
    prelude::*, //
};

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
        coherent_once(work.dma.device())?;
    }
    Ok(())
}

#[inline(never)]
fn coherent_once(dev: &Device<Bound>) -> Result {
    Coherent::<[u8; COHERENT]>::zeroed(dev, GFP_KERNEL).map(drop)
}

/// Posts frames, and gets them back.
pub(crate) fn post_reap(work: &mut Work<'_>, n: u32) -> Result {
    let Work {
        tx, spare, batch, ..
    } = work;
    let mut left = n;

    while left > 0 {
        left = left.saturating_sub(*batch);

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
        left = left.saturating_sub(*batch);
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
        left = left.saturating_sub(*batch);
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
