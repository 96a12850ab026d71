// SPDX-License-Identifier: GPL-2.0

//! Copies in memory.

use super::{
    super::{
        Buffer,
        DmaAddress,
        FromDevice,
        Streaming,
        StreamingBox,
        ToDevice, //
    },
    submitted::{
        Describe,
        Target, //
    },
    Transfer, //
};
use crate::{
    bindings,
    prelude::*, //
};
use core::ops::Range;

/// A copy of memory to memory (C: `dmaengine_prep_dma_memcpy()`).
///
/// Both buffers are mapped with the [mapper](super::Channel::mapper) of the channel. When the copy
/// is over, they come back as two [`StreamingBox`]es.
///
/// # Examples
///
/// ```
/// # use kernel::dma::{dmaengine::Memcpy, FromDevice, Streaming, ToDevice};
/// type Bytes<'c, D> = Streaming<'c, kernel::alloc::KVec<u8>, D>;
///
/// /// Copies a header of 64 bytes to where the payload ends.
/// fn append<'c>(
///     header: Bytes<'c, ToDevice>,
///     message: Bytes<'c, FromDevice>,
///     end: usize,
/// ) -> Memcpy<'c, kernel::alloc::KVec<u8>, kernel::alloc::KVec<u8>> {
///     Memcpy::of(header, 0..64, message, end)
/// }
/// ```
pub struct Memcpy<'c, S: Buffer, T: Buffer> {
    from: Streaming<'c, S, ToDevice>,
    range: Range<usize>,
    to: Streaming<'c, T, FromDevice>,
    at: usize,
}

impl<'c, S: Buffer, T: Buffer> Memcpy<'c, S, T> {
    /// All of `from` to the beginning of `to`.
    pub fn new(from: Streaming<'c, S, ToDevice>, to: Streaming<'c, T, FromDevice>) -> Self {
        let len = from.len();

        Self::of(from, 0..len, to, 0)
    }

    /// The bytes `range` of `from` to `to`, from byte `at` on. What doesn't fit is refused by
    /// [`submit`](super::Channel::submit).
    pub fn of(
        from: Streaming<'c, S, ToDevice>,
        range: Range<usize>,
        to: Streaming<'c, T, FromDevice>,
        at: usize,
    ) -> Self {
        Self {
            from,
            range,
            to,
            at,
        }
    }

    /// Returns the buffers, for instance of a copy that was refused.
    pub fn into_buffers(self) -> (Streaming<'c, S, ToDevice>, Streaming<'c, T, FromDevice>) {
        (self.from, self.to)
    }

    fn target(&self) -> Range<usize> {
        self.at..self.at.saturating_add(self.range.len())
    }

    /// Returns where the data comes from and where it goes to.
    fn addresses(&self) -> Result<(DmaAddress, DmaAddress)> {
        let from = self.from.address_unshown().slice(self.range.clone())?;
        let to = self.to.address_unshown().slice(self.target())?;

        Ok((from.bits(), to.bits()))
    }
}

// SAFETY:
// 1. The descriptor is about parts of the two buffers, which stay mapped until they are dropped or
//    completed.
// 2. `check()` looks at both.
// 3. `set_shown()` notes it of both.
unsafe impl<'c, S: Buffer, T: Buffer> Describe for Memcpy<'c, S, T> {
    type Memory = (
        StreamingBox<'c, S, ToDevice>,
        StreamingBox<'c, T, FromDevice>,
    );

    fn check(&mut self, target: &Target<'_>) -> Result {
        if !self.from.dma().has_record(target.record) || !self.to.dma().has_record(target.record) {
            return Err(EINVAL);
        }

        // SAFETY: The channel is requested.
        if !unsafe {
            bindings::dmaengine_can_do(target.chan, bindings::dma_transaction_type_DMA_MEMCPY)
        } {
            return Err(EOPNOTSUPP);
        }

        if self.from.was_shown() || self.to.was_shown() {
            return Err(EINVAL);
        }

        let (from, to) = self.addresses()?;

        // SAFETY: The channel is requested.
        unsafe { bindings::dmaengine_is_copy_aligned(target.chan, to, from, self.range.len()) }
            .then_some(())
            .ok_or(EINVAL)
    }

    unsafe fn prepare(
        &self,
        chan: *mut bindings::dma_chan,
        flags: c_ulong,
    ) -> *mut bindings::dma_async_tx_descriptor {
        let Ok((from, to)) = self.addresses() else {
            return core::ptr::null_mut();
        };

        // SAFETY: By the safety requirements the channel is requested. The addresses are those of
        // mapped memory of its device.
        unsafe { bindings::dmaengine_prep_dma_memcpy(chan, to, from, self.range.len(), flags) }
    }

    fn len(&self) -> usize {
        self.range.len()
    }

    fn set_shown(&mut self) {
        self.from.set_shown();
        self.to.set_shown();
    }

    unsafe fn complete(self, moved: usize) -> Self::Memory {
        let Range { start, .. } = self.range;

        // SAFETY: By the safety requirements the engine is done, and no more was moved than is in
        // the ranges. `check()` has found that those are inside the buffers.
        unsafe {
            (
                self.from.complete(start..start + moved),
                self.to.complete(self.at..self.at + moved),
            )
        }
    }
}

impl<'c, S: Buffer, T: Buffer> Transfer<'c> for Memcpy<'c, S, T> {}
