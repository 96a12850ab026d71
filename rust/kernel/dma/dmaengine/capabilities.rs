// SPDX-License-Identifier: GPL-2.0

//! What a channel can do.

use crate::{
    bindings,
    prelude::*, //
};
use core::ops::BitOr;

/// What a channel is to be able to do, for [`Channel::request_by_mask`](super::Channel).
///
/// Combine them by `|` (C: `dma_cap_mask_t`).
///
/// # Examples
///
/// ```
/// use kernel::dma::dmaengine::Capabilities;
///
/// let both = Capabilities::MEMCPY | Capabilities::CYCLIC;
///
/// assert_ne!(both, Capabilities::MEMCPY);
/// assert_eq!(both | Capabilities::MEMCPY, both);
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Capabilities(u32);

impl Capabilities {
    /// Copies memory to memory (C: `DMA_MEMCPY`).
    pub const MEMCPY: Self = Self(1 << bindings::dma_transaction_type_DMA_MEMCPY);

    /// Moves data between memory and a peripheral (C: `DMA_SLAVE`).
    pub const SLAVE: Self = Self(1 << bindings::dma_transaction_type_DMA_SLAVE);

    /// Moves data between a buffer and a peripheral, round and round (C: `DMA_CYCLIC`).
    pub const CYCLIC: Self = Self(1 << bindings::dma_transaction_type_DMA_CYCLIC);

    /// Returns them as C takes them.
    pub(in crate::dma) fn to_mask(self) -> bindings::dma_cap_mask_t {
        let mut mask: bindings::dma_cap_mask_t = pin_init::zeroed();

        // C has fewer types than a word has bits. CAST: Widening.
        mask.bits[0] = self.0 as c_ulong;
        mask
    }
}

impl BitOr for Capabilities {
    type Output = Self;

    #[inline]
    fn bitor(self, other: Self) -> Self {
        Self(self.0 | other.0)
    }
}
