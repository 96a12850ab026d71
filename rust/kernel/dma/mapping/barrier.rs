// SPDX-License-Identifier: GPL-2.0

//! Barriers between the CPU and a device that share memory.
//!
//! Who uses [`Streaming`](super::Streaming), a ring or a transfer needs none: they are inside.
//! These are for protocols of a driver's own, in [`Coherent`](super::Coherent) memory or blocks
//! of a [`Pool`](super::Pool).
//!
//! They are the kernel's. In kernels with a simulated bus they also tell it, so that a missing one
//! shows there: see `Documentation/rust/dma/testing.rst`.
//!
//! C header: [`include/asm-generic/barrier.h`](srctree/include/asm-generic/barrier.h)

use crate::sync::barrier::{
    dma_mb,
    Read,
    Write, //
};

/// Orders loads from memory that a device writes, too: those before come before those after.
///
/// Belongs between the load that says that a device is done, and all loads of what it has written.
/// Without it the CPU may have loaded these before the device wrote them.
///
/// It orders accesses to coherent memory. Buffers that are mapped must be synced besides.
///
/// C: `dma_rmb()`. Context: any.
///
/// # Examples
///
/// ```
/// # use kernel::{dma::Coherent, io::io_read, prelude::*};
/// use kernel::dma::{dma_rmb, Untrusted};
///
/// /// As the device writes it: first the answer, then the number of the question.
/// #[derive(FromBytes, IntoBytes)]
/// #[repr(C)]
/// struct Mailbox {
///     answer: u32,
///     number: u32,
/// }
///
/// /// Returns the answer to a question, if it is there.
/// fn answer(mailbox: &Coherent<Mailbox>, number: u32) -> Option<Untrusted<u32>> {
///     if u32::from_le(io_read!(mailbox, .number)) != number {
///         return None;
///     }
///
///     // The number before the answer.
///     dma_rmb();
///     Some(Untrusted::new(u32::from_le(io_read!(mailbox, .answer))))
/// }
/// ```
#[inline]
pub fn dma_rmb() {
    dma_mb(Read);

    #[cfg(CONFIG_RUST_DMA_SIM)]
    crate::dma::sim::barrier::read();
}

/// Orders stores to memory that a device reads, too: those before come before those after.
///
/// Belongs between all stores that a device is to see, and the store that tells it to look, if that
/// goes to memory, too. Registers that are written with `Io::write32()` need no barrier before.
///
/// C: `dma_wmb()`. Context: any.
///
/// # Examples
///
/// ```
/// # use kernel::{dma::Coherent, io::io_write, prelude::*};
/// use kernel::dma::dma_wmb;
///
/// /// As the device reads it, which looks at the number again and again.
/// #[derive(FromBytes, IntoBytes)]
/// #[repr(C)]
/// struct Mailbox {
///     question: u32,
///     number: u32,
/// }
///
/// /// Asks the device.
/// fn ask(mailbox: &Coherent<Mailbox>, question: u32, number: u32) {
///     io_write!(mailbox, .question, question.to_le());
///
///     // The question before its number.
///     dma_wmb();
///     io_write!(mailbox, .number, number.to_le());
/// }
/// ```
#[inline]
pub fn dma_wmb() {
    dma_mb(Write);

    #[cfg(CONFIG_RUST_DMA_SIM)]
    crate::dma::sim::barrier::write();
}

/// Orders loads before stores: what the CPU has read of a buffer, before what tells the device that
/// it may write the buffer again.
#[inline]
pub(in crate::dma) fn loads_before_stores() {
    // Stores don't pass earlier loads on x86. On arm64, `dma_rmb()` orders loads before stores,
    // too.
    #[cfg(CONFIG_ARM64)]
    dma_mb(Read);

    #[cfg(not(any(CONFIG_X86, CONFIG_ARM64)))]
    dma_mb(crate::sync::barrier::Full);
}
