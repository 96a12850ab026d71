// SPDX-License-Identifier: GPL-2.0

//! What loops need that measure the ownership types alone, without a protocol.

use super::{
    Buffer,
    Direction,
    Streaming,
    StreamingBox, //
};
use core::ops::Range;

/// Takes a buffer back, as protocols do when they have seen that the device is done with it.
///
/// # Safety
///
/// No device must ever have been told the buffer's address; `range`, the bytes that it is said to
/// have accessed, must lie inside the buffer.
#[inline]
pub unsafe fn complete<'a, B: Buffer, D: Direction>(
    streaming: Streaming<'a, B, D>,
    range: Range<usize>,
) -> StreamingBox<'a, B, D> {
    // SAFETY: By the safety requirements.
    unsafe { streaming.complete(range) }
}
