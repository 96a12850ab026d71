// SPDX-License-Identifier: GPL-2.0

//! Attributes of mappings.
//!
//! C header: [`include/linux/dma-mapping.h`](srctree/include/linux/dma-mapping.h)

use crate::{
    bindings,
    prelude::*, //
};

/// Attributes that a driver may give to a streaming mapping.
///
/// A type apart from the attributes of allocations ([`Attrs`](crate::dma::Attrs)), since few make
/// sense for both, and few make sense here: `DMA_ATTR_SKIP_CPU_SYNC` is used by the ownership
/// types, where it is right; with `DMA_ATTR_WEAK_ORDERING` no register would prove that the device
/// is done; `DMA_ATTR_MMIO` is for what no [`Buffer`](super::Buffer) is.
///
/// # Examples
///
/// ```
/// # use kernel::{dma::{Mapper, MapAttrs, Streaming, ToDevice}, prelude::*};
/// /// Returns the buffer if it can't be mapped just now; the caller has another plan then.
/// fn try_map<'a>(
///     dma: Mapper<'a>,
///     buf: KVec<u8>,
/// ) -> Result<Streaming<'a, KVec<u8>, ToDevice>, KVec<u8>> {
///     Streaming::map_with_attrs(dma, buf, MapAttrs::NO_WARN).map_err(|refused| refused.value)
/// }
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct MapAttrs(u32);

impl MapAttrs {
    /// No attribute.
    pub const NONE: Self = Self(0);

    /// A failure is expected and not worth a line in the log.
    pub const NO_WARN: Self = Self(bindings::DMA_ATTR_NO_WARN);

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
