// SPDX-License-Identifier: GPL-2.0

//! Barriers between accesses to memory that a device accesses, too.

use crate::sync::barrier::{
    dma_mb,
    Read,
    Write, //
};

/// Orders earlier reads before later ones (C: `dma_rmb()`).
#[inline(always)]
pub(super) fn dma_rmb() {
    dma_mb(Read);
}

/// Orders earlier writes before later ones (C: `dma_wmb()`).
#[inline(always)]
pub(super) fn dma_wmb() {
    dma_mb(Write);
}
