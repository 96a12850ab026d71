// SPDX-License-Identifier: GPL-2.0

//! Barriers between the CPU and a device that share memory.
//!
//! These are the kernel's. In kernels with a simulated bus they also tell it, so that a missing one
//! shows there: see `Documentation/rust/dma/testing.rst`.

use crate::sync::barrier::{
    dma_mb,
    Read,
    Write, //
};

/// Orders loads from memory that a device writes, too: those before come before those after.
///
/// Belongs between the load that says that a device is done, and all loads of what it has written.
///
/// Context: any.
#[inline]
pub(super) fn dma_rmb() {
    dma_mb(Read);

    #[cfg(CONFIG_RUST_DMA_SIM)]
    super::sim::barrier::read();
}

/// Orders stores to memory that a device reads, too: those before come before those after.
///
/// Belongs between all stores that a device is to see, and the store that tells it to look.
///
/// Context: any.
#[inline]
pub(super) fn dma_wmb() {
    dma_mb(Write);

    #[cfg(CONFIG_RUST_DMA_SIM)]
    super::sim::barrier::write();
}
