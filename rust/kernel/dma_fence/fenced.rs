// SPDX-License-Identifier: GPL-2.0

//! Memory that carries the fence of its job.

use super::{
    DriverFence,
    Fence, //
};
use crate::{
    dma::Buffer,
    prelude::*,
    sync::aref::ARef, //
};

/// Memory for DMA, with the fence of the job for which the device gets it.
///
/// It is mapped and given to a device as the buffer inside would be, in a transfer, a ring or a
/// queue. When it comes back, [`signal`](Self::signal) takes the fence off.
///
/// While a device may access the memory, nobody can have the fence. If the driver gives up, the
/// memory is quarantined until the device was proven to have stopped. Only then it is dropped, and
/// its fence is signalled, with [`ECANCELED`]. So those who wait for the fence don't go on while
/// the device is still at work, whatever the driver does; and they don't hang, unless the device
/// can't be stopped.
///
/// # Examples
///
/// ```
/// use kernel::{
///     dma::{Mapper, Streaming, ToDevice},
///     dma_fence::{DriverFence, Fenced},
///     error::ErrorWith,
/// };
///
/// /// What a device gets for a job.
/// type Job<'a> = Streaming<'a, Fenced<KVec<u8>>, ToDevice>;
///
/// /// Makes a job of a message. If it can't be mapped, the job is over.
/// fn prepare<'a>(dma: Mapper<'a>, message: KVec<u8>, fence: DriverFence) -> Result<Job<'a>> {
///     Streaming::map(dma, Fenced::new(message, fence)).map_err(|ErrorWith { error, value }| {
///         drop(value.signal_with_error(error));
///         error
///     })
/// }
/// ```
pub struct Fenced<B: Buffer> {
    fence: DriverFence,
    buffer: B,
}

impl<B: Buffer> Fenced<B> {
    /// Ties a buffer and a fence together. Context: any.
    #[inline]
    pub fn new(buffer: B, fence: DriverFence) -> Self {
        Self { fence, buffer }
    }

    /// Returns the fence, for those who are to wait. See [`DriverFence::fence`].
    #[inline]
    pub fn fence(&self) -> ARef<Fence> {
        self.fence.fence()
    }

    /// Says that the job is done, and returns the buffer. See [`DriverFence::signal`].
    #[inline]
    pub fn signal(self) -> B {
        self.fence.signal();
        self.buffer
    }

    /// Says that the job has failed, and returns the buffer. See
    /// [`DriverFence::signal_with_error`].
    #[inline]
    pub fn signal_with_error(self, error: Error) -> B {
        self.fence.signal_with_error(error);
        self.buffer
    }
}

// SAFETY: Each method, and each number of the contract, is that of the buffer inside. Nothing else
// gets at the buffer before it is taken out, which drops the `Fenced`.
unsafe impl<B: Buffer> Buffer for Fenced<B> {
    #[inline]
    fn as_ptr(&self) -> *const u8 {
        self.buffer.as_ptr()
    }

    #[inline]
    fn as_mut_ptr(&mut self) -> *mut u8 {
        self.buffer.as_mut_ptr()
    }

    #[inline]
    fn len(&self) -> usize {
        self.buffer.len()
    }

    #[inline]
    fn allocation(&self) -> usize {
        self.buffer.allocation()
    }
}
