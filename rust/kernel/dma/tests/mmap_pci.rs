// SPDX-License-Identifier: GPL-2.0

//! Tests of coherent memory that user space maps, on a PCI device that may be behind an IOMMU.

use super::{
    ensure,
    mmap::{
        allow,
        map,
        there_and_back,
        Request, //
    },
    shared_pci::on_nic, //
};
use crate::{
    bindings,
    dma::{
        dma_write,
        AllocAttrs,
        SharedBox, //
    },
    page::PAGE_SIZE,
    prelude::*, //
};

#[kunit_tests(rust_dma_mmap_pci)]
mod cases {
    use super::*;

    /// Memory of each kind: in one piece, in pieces that an IOMMU joins, uncached.
    #[test]
    fn attributes() -> Result {
        let sizes = [1, PAGE_SIZE + 1, 5 * PAGE_SIZE, 1 << 20];

        on_nic(|dma| {
            for attrs in [
                AllocAttrs::NONE,
                AllocAttrs::SINGLE_PAGES,
                AllocAttrs::WRITE_COMBINE,
                AllocAttrs::FORCE_CONTIGUOUS,
                AllocAttrs::WRITE_COMBINE | AllocAttrs::SINGLE_PAGES,
            ] {
                there_and_back(dma, &sizes, attrs)?;
            }
            Ok(())
        })
    }

    /// Memory that was allocated where nobody waits comes from a pool of the kernel, if the device
    /// isn't cache coherent.
    #[test]
    fn atomic() -> Result {
        on_nic(|dma| {
            let len = 3 * PAGE_SIZE;
            let memory = allow(SharedBox::<[u8]>::slice(dma, len, GFP_ATOMIC)?.submit())?;
            let area = map(Request::new(len), &|vma| memory.mmap(vma))?;

            for place in [0, PAGE_SIZE, len - 1] {
                dma_write!(&memory, [try: place], 0x61);
                ensure!(area.peek(place)? == 0x61);
            }

            drop(memory);
            ensure!(area.is_dead());
            Ok(())
        })
    }

    /// The pages have no owners in user space: nobody can pin them.
    #[test]
    fn nobody_pins_pages() -> Result {
        on_nic(|dma| {
            let memory = allow(SharedBox::<[u8]>::slice(dma, PAGE_SIZE, GFP_KERNEL)?.submit())?;
            let area = map(Request::new(PAGE_SIZE), &|vma| memory.mmap(vma))?;
            let mut page = core::ptr::null_mut();

            area.poke(0, 1)?;

            // SAFETY: There is room for one page, which isn't used.
            let pinned = unsafe { bindings::get_user_pages_fast(area.at(0), 1, 0, &mut page) };

            ensure!(pinned < 0);
            Ok(())
        })
    }
}
