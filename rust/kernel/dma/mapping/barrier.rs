// SPDX-License-Identifier: GPL-2.0

//! Barriers between the CPU and a device that share memory.
//!
//! A driver needs them for a protocol of its own, in [`Coherent`](super::Coherent) memory or blocks
//! of a [`Pool`](super::Pool). [`Streaming`](super::Streaming), a [`ring`](super::ring) and a
//! [`TransferSlot`](super::transfer::TransferSlot) have the barriers that they need inside.
//!
//! In a kernel with a simulated bus each of them also tells the bus, so that a test notices a
//! missing one: see `Documentation/rust/dma/testing.rst`.
//!
//! C header: [`include/asm-generic/barrier.h`](srctree/include/asm-generic/barrier.h)

use crate::sync::barrier::{
    dma_mb,
    Read,
    Write, //
};

/// Makes the CPU load what a device wrote only after it has loaded that the device is done.
///
/// It orders all earlier loads from coherent memory before all later ones. Call it between the load
/// of the word that says that the device is done, and the loads of what the device has written.
/// Without it the CPU may load old data and then the new word.
///
/// It doesn't replace the sync of a mapped buffer.
///
/// C: `dma_rmb()`. Context: any.
///
/// # Examples
///
/// ```
/// # use kernel::{dma::Coherent, io::io_read, prelude::*};
/// use kernel::dma::{dma_rmb, Untrusted};
///
/// /// The device writes the answer first, and then the number of the question.
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

/// Makes a device see what the CPU wrote before it sees that it is to look there.
///
/// It orders all earlier stores to coherent memory before all later ones. Call it between the
/// stores of what the device is to read, and the store of the word in memory that tells it to look.
/// If a register tells it, no barrier is needed: `Io::write32()` comes after all earlier stores.
///
/// C: `dma_wmb()`. Context: any.
///
/// # Examples
///
/// ```
/// # use kernel::{dma::Coherent, io::io_write, prelude::*};
/// use kernel::dma::dma_wmb;
///
/// /// The device polls the number, and then reads the question.
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

/// Makes the CPU finish reading a buffer before it tells the device that it may write the buffer.
///
/// It orders all earlier loads before all later stores.
#[inline]
pub(in crate::dma) fn loads_before_stores() {
    // Stores don't pass earlier loads on x86. On arm64, `dma_rmb()` orders loads before stores,
    // too.
    #[cfg(CONFIG_ARM64)]
    dma_mb(Read);

    #[cfg(not(any(CONFIG_X86, CONFIG_ARM64)))]
    dma_mb(crate::sync::barrier::Full);
}
