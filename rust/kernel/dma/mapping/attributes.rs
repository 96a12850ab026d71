// SPDX-License-Identifier: GPL-2.0

//! Attributes of mappings.
//!
//! C header: [`include/linux/dma-mapping.h`](srctree/include/linux/dma-mapping.h)

use crate::{
    bindings,
    prelude::*, //
};

/// Attributes of a streaming mapping: whether the CPU's side of it is left to a later sync.
///
/// Drivers need none. The ownership types use `DMA_ATTR_SKIP_CPU_SYNC` where it is right; with
/// `DMA_ATTR_WEAK_ORDERING` no register would prove that the device is done; `DMA_ATTR_MMIO` is for
/// what no [`Buffer`](super::Buffer) is.
#[derive(Clone, Copy)]
pub(in crate::dma) struct MapAttrs(u32);

impl MapAttrs {
    /// No attribute.
    pub(in crate::dma) const NONE: Self = Self(0);

    /// Adds the attribute with which the CPU-side copy or cache maintenance is left to a later
    /// sync.
    #[inline]
    pub(in crate::dma) const fn skip_cpu_sync(self) -> Self {
        Self(self.0 | bindings::DMA_ATTR_SKIP_CPU_SYNC)
    }

    #[inline]
    pub(in crate::dma) const fn as_raw(self) -> c_ulong {
        // CAST: Widening.
        self.0 as c_ulong
    }
}
