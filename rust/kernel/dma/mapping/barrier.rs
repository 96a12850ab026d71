// SPDX-License-Identifier: GPL-2.0

//! The barrier between what the CPU has read of a buffer, and the device that writes it again.
//!
//! All other barriers are the kernel's: [`sync::barrier`](crate::sync::barrier).
//!
//! C header: [`include/asm-generic/barrier.h`](srctree/include/asm-generic/barrier.h)

/// Orders loads before stores: what the CPU has read of a buffer, before what tells the device that
/// it may write the buffer again.
#[inline]
pub(in crate::dma) fn loads_before_stores() {
    // Stores don't pass earlier loads on x86. On arm64, `dma_rmb()` orders loads before stores,
    // too.
    #[cfg(CONFIG_ARM64)]
    crate::sync::barrier::dma_mb(crate::sync::barrier::Read);

    #[cfg(not(any(CONFIG_X86, CONFIG_ARM64)))]
    crate::sync::barrier::dma_mb(crate::sync::barrier::Full);
}
