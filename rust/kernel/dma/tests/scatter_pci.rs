// SPDX-License-Identifier: GPL-2.0

//! Tests of mapped lists on a PCI device: behind the IOMMU, if the machine has one.

use super::{
    ensure,
    fixture,
    scatter::{
        all_lengths,
        area,
        check_segments, //
    }, //
};
use crate::{
    bindings,
    dma::{
        Buffer,
        Constraints,
        DmaMask,
        Mapper,
        Pages,
        ScatterMap,
        ToDevice, //
    },
    kunit,
    page::PAGE_SIZE,
    prelude::*, //
};

/// QEMU's `edu`.
const VENDOR: u16 = 0x1234;
const DEVICE: u16 = 0x11e8;

fn on_edu(constraints: Constraints, mut body: impl FnMut(Mapper<'_>) -> Result) -> Result {
    if !fixture::has_pci_device(VENDOR, DEVICE) {
        kunit::skip("no edu device (QEMU: -device edu)");
        return Ok(());
    }

    let outcome = fixture::with_pci_device(VENDOR, DEVICE, constraints, |pdev| {
        body(fixture::open(pdev.as_ref())?)
    });

    // What a driver doesn't set stays as the one before has left it.
    fixture::with_pci_device(VENDOR, DEVICE, USUAL, |_| Ok(()))?;
    outcome
}

const WIDE: Constraints = Constraints::new(DmaMask::new::<64>());

/// What the PCI core sets.
const USUAL: Constraints = WIDE
    .max_segment_size(64 << 10)
    .segment_boundary(0xffff_ffff);

#[kunit_tests(rust_dma_scatter_pci)]
mod cases {
    use super::*;

    #[test]
    fn comes_back() -> Result {
        on_edu(WIDE, all_lengths)?;
        on_edu(WIDE.max_segment_size(512), all_lengths)?;
        on_edu(WIDE.segment_boundary(0x3ff), all_lengths)?;
        on_edu(
            WIDE.segment_boundary(0xffff).max_segment_size(1 << 20),
            all_lengths,
        )
    }

    /// An IOMMU that maps makes pages contiguous, up to the longest segment; there are never more
    /// segments than pages.
    #[test]
    fn coalesced() -> Result {
        for (constraints, most) in [
            (WIDE.max_segment_size(1 << 20), 64 * PAGE_SIZE),
            (WIDE.max_segment_size(16 << 10), 16 << 10),
            (
                WIDE.max_segment_size(1 << 20).segment_boundary(0x7fff),
                32 << 10,
            ),
        ] {
            on_edu(constraints, |dma| {
                let memory = area(64 * PAGE_SIZE)?;
                let single = Pages::zeroed(0, GFP_KERNEL)?;
                // SAFETY: A buffer lies in the linear map.
                let phys = unsafe { bindings::dma_linear_to_phys(Buffer::as_ptr(&single).cast()) };
                let single = ScatterMap::<_, ToDevice>::map(dma, single, GFP_KERNEL)?;
                let list = ScatterMap::<_, ToDevice>::map(dma, memory, GFP_KERNEL)?;
                let count = check_segments(dma, &list)?;

                ensure!(count <= 64);

                // Neither its own address, nor a bounce buffer, which are given out in slots.
                #[allow(clippy::useless_conversion, reason = "either may have 32 bits")]
                let translated = single
                    .segments_unshown()
                    .all(|segment| u64::from(segment.bits()) != u64::from(phys))
                    && dma.max_mapping_size() > 1 << 20;

                if translated {
                    ensure!(count == (64 * PAGE_SIZE).div_ceil(most));
                }
                Ok(())
            })
            .inspect_err(|_| pr_err!("{constraints:?}\n"))?;
        }

        Ok(())
    }
}
