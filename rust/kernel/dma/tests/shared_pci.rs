// SPDX-License-Identifier: GPL-2.0

//! Tests of memory from the DMA API's allocators, on a PCI device that may be behind an IOMMU.

use super::{
    ensure,
    fixture,
    noncoherent::there_and_back,
    shared::{
        absurd_lengths,
        open,
        sizes_with,
        stop,
        SIZES, //
    }, //
};
use crate::{
    bindings,
    dma::{
        AllocAttrs,
        Bidirectional,
        Constraints,
        DeviceOnly,
        DmaMask,
        Mapper,
        SharedBox,
        ToDevice, //
    },
    kunit,
    page::PAGE_SIZE,
    prelude::*, //
};

/// Buffers of a mebibyte, of which an IOMMU makes a segment.
const LONG: Constraints = Constraints::new(DmaMask::new::<64>()).max_segment_size(1 << 20);

/// Runs a test on a network card, which every machine of ours has. Elsewhere it is skipped.
pub(super) fn on_nic(mut body: impl FnMut(Mapper<'_>) -> Result) -> Result {
    const INTEL: u16 = 0x8086;
    const NIC: u16 = 0x100e;

    if !fixture::has_pci_device(INTEL, NIC) {
        kunit::skip("no 8254x device (QEMU: -device e1000)");
        return Ok(());
    }

    fixture::with_pci_device(INTEL, NIC, LONG, |pdev| {
        let dma = open(pdev.as_ref())?;

        body(dma)?;
        stop(dma);
        Ok(())
    })
}

#[kunit_tests(rust_dma_shared_pci)]
mod cases {
    use super::*;

    /// Memory of all sizes and kinds.
    #[test]
    fn shared() -> Result {
        on_nic(|dma| {
            sizes_with(dma, GFP_KERNEL, AllocAttrs::NONE, &SIZES)?;
            sizes_with(dma, GFP_ATOMIC, AllocAttrs::NONE, &SIZES[..5])?;
            sizes_with(dma, GFP_KERNEL, AllocAttrs::SINGLE_PAGES, &SIZES[..6])?;
            sizes_with(dma, GFP_KERNEL, AllocAttrs::WRITE_COMBINE, &SIZES[..6])?;
            sizes_with(dma, GFP_KERNEL, AllocAttrs::FORCE_CONTIGUOUS, &SIZES[..6])?;

            let alone = DeviceOnly::new(dma, 1 << 20, GFP_KERNEL, AllocAttrs::NONE)?;

            ensure!(alone.address().len() == 1 << 20);
            Ok(())
        })
    }

    /// An IOMMU, for which lists of pages are made, isn't asked for more than there can be either.
    #[test]
    fn absurd() -> Result {
        on_nic(absurd_lengths)
    }

    /// An IOMMU makes one piece for the device of many, unless it is told not to.
    #[test]
    fn contiguous() -> Result {
        on_nic(|dma| {
            let len = 64 << 10;
            let attrs = AllocAttrs::FORCE_CONTIGUOUS;
            let memory = SharedBox::<[u8]>::slice_with(dma, len, GFP_KERNEL, attrs)?;

            // What isn't in one piece has no address in the linear map; nor has what isn't cached.
            //
            // SAFETY: No requirements.
            let is_remapped = unsafe { bindings::is_vmalloc_addr(memory.as_ptr().cast()) };

            ensure!(!dma.is_coherent() || !is_remapped);
            Ok(())
        })
    }

    /// Memory that is synced, in one piece and in many.
    #[test]
    fn noncoherent() -> Result {
        on_nic(|dma| {
            for in_pieces in [false, true] {
                let sizes = [1, PAGE_SIZE + 1, 1 << 20];

                there_and_back::<ToDevice>(dma, &sizes, in_pieces)?;
                there_and_back::<Bidirectional>(dma, &sizes, in_pieces)?;
            }
            Ok(())
        })
    }
}
