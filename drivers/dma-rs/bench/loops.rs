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
        Session,
        TxRing, //
    }, //
};
use kernel::{
    device::{
        Bound,
        Device, //
    },
    dma::{
        Coherent,
        Configured,
        Direction,
        FromDevice,
        Pool,
        Streaming,
        StreamingBox, //
    },
    prelude::*, //
};

/// Does nothing: what a loop costs.
pub(crate) fn nothing(session: &mut Session<'_>, n: u32) -> Result {
    for _ in 0..n {
        nothing_once(session.dma)?;
    }
    Ok(())
}

#[inline(never)]
fn nothing_once(_dma: Configured<'_>) -> Result {
    barrier();
    Ok(())
}

/// Maps a buffer, and unmaps it.
pub(crate) fn map_unmap<D: Direction, const N: usize>(session: &mut Session<'_>, n: u32) -> Result
where
    for<'a> Session<'a>: Holds<N>,
{
    let buf = session.place().take().ok_or(EINVAL)?;

    *session.place() = Some(map_unmap_buffer::<D, N>(session.dma, buf, n)?);
    Ok(())
}

/// Maps that buffer, and unmaps it.
pub(crate) fn map_unmap_buffer<D: Direction, const N: usize>(
    dma: Configured<'_>,
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
    dma: Configured<'_>,
    buf: KBox<[u8; N]>,
) -> Option<KBox<[u8; N]>> {
    let mapped = Streaming::<_, D>::map(dma, buf).ok()?;

    Some(take_back(mapped, N).unmap())
}

/// Gives a buffer that stays mapped to the device, and takes it back.
pub(crate) fn pass<D: Direction>(session: &mut Session<'_>, n: u32) -> Result {
    pass_part::<D, FRAME>(session, n)
}

/// As [`pass`], but the device has accessed a part of the buffer only.
pub(crate) fn pass_prefix(session: &mut Session<'_>, n: u32) -> Result {
    pass_part::<FromDevice, COPIED>(session, n)
}

fn pass_part<D: Direction, const LEN: usize>(session: &mut Session<'_>, n: u32) -> Result {
    let buf = session.frame.take().ok_or(EINVAL)?;
    let mut mapped = StreamingBox::<_, D>::map(session.dma, buf)?;

    for _ in 0..n {
        mapped = take_back(mapped.submit(), LEN);
    }

    session.frame = Some(mapped.unmap());
    Ok(())
}

/// Allocates a block, and frees it.
pub(crate) fn pool(session: &mut Session<'_>, n: u32) -> Result {
    for _ in 0..n {
        pool_once(session.pool)?;
    }
    Ok(())
}

#[inline(never)]
fn pool_once<'a>(pool: &'a Pool<'a, [u8; BLOCK]>) -> Result {
    pool.alloc(GFP_ATOMIC).map(drop)
}

/// Allocates coherent memory, and frees it.
pub(crate) fn coherent(session: &mut Session<'_>, n: u32) -> Result {
    for _ in 0..n {
        coherent_once(session.dma.device())?;
    }
    Ok(())
}

#[inline(never)]
fn coherent_once(dev: &Device<Bound>) -> Result {
    Coherent::<[u8; COHERENT]>::zeroed(dev, GFP_KERNEL).map(drop)
}

/// Posts frames, and gets them back.
pub(crate) fn post_reap(session: &mut Session<'_>, n: u32) -> Result {
    let Session {
        tx, spare, batch, ..
    } = session;
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
pub(crate) fn receive_recycle(session: &mut Session<'_>, n: u32) -> Result {
    let Session {
        rx, bytes, batch, ..
    } = session;
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
pub(crate) fn receive_unmap(session: &mut Session<'_>, n: u32) -> Result {
    let Session {
        rx,
        bytes,
        spare,
        batch,
        ..
    } = session;
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
