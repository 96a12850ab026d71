// SPDX-License-Identifier: GPL-2.0

//! Tests of buffers.

use super::ensure;
use crate::{
    dma::{
        Buffer,
        Pages, //
    },
    page::PAGE_SIZE,
    prelude::*, //
};

#[kunit_tests(rust_dma_buffer)]
mod cases {
    use super::*;

    /// A vector is mapped up to its length; the rest of its allocation only counts as its own.
    #[test]
    fn vector() -> Result {
        let mut vec = KVec::with_capacity(100, GFP_KERNEL)?;
        vec.resize(24, 7_u32, GFP_KERNEL)?;

        ensure!(Buffer::len(&vec) == 96);
        ensure!(vec.allocation() >= 400);
        ensure!(Buffer::as_ptr(&vec) == vec.as_slice().as_ptr().cast());
        ensure!(Buffer::as_mut_ptr(&mut vec).cast_const() == Buffer::as_ptr(&vec));
        ensure!(!Buffer::is_empty(&vec) && Buffer::is_empty(&KVec::<u32>::new()));
        Ok(())
    }

    #[test]
    fn boxes() -> Result {
        let mut boxed = KBox::new([1_u16; 10], GFP_KERNEL)?;

        ensure!(Buffer::len(&boxed) == 20);
        // The next size that kmalloc() has.
        ensure!(boxed.allocation() > 20 && boxed.allocation() % 8 == 0);
        ensure!(Buffer::as_ptr(&boxed) == (&raw const *boxed).cast());
        ensure!(Buffer::as_mut_ptr(&mut boxed).cast_const() == Buffer::as_ptr(&boxed));
        Ok(())
    }

    #[test]
    fn boxed_slices() -> Result {
        let mut boxed: KBox<[u32]> = KBox::new([1_u32; 10], GFP_KERNEL)?;

        ensure!(Buffer::len(&boxed) == 40 && boxed.allocation() >= 40);
        ensure!(Buffer::as_ptr(&boxed) == boxed.as_ptr().cast());
        ensure!(Buffer::as_mut_ptr(&mut boxed).cast_const() == Buffer::as_ptr(&boxed));
        Ok(())
    }

    /// Moving the owner doesn't move the bytes.
    #[test]
    fn address_is_stable() -> Result {
        let boxed = KBox::new([1_u8; 64], GFP_KERNEL)?;
        let address = Buffer::as_ptr(&boxed);
        let moved = Some(boxed);

        ensure!(moved.as_ref().is_some_and(|b| Buffer::as_ptr(b) == address));
        Ok(())
    }

    #[test]
    fn pages() -> Result {
        for order in 0..4 {
            let mut pages = Pages::zeroed(order, GFP_KERNEL)?;

            ensure!(Buffer::len(&pages) == PAGE_SIZE << order);
            ensure!(pages.allocation() == PAGE_SIZE << order);
            ensure!(Buffer::as_ptr(&pages).addr() % (PAGE_SIZE << order) == 0);
            ensure!(pages.iter().all(|&byte| byte == 0));
            // Whoever gets these pages next must not find this.
            pages.fill(0xff);
        }

        ensure!(Pages::zeroed(64, GFP_KERNEL).is_err());
        Ok(())
    }

    /// All of them go back: far more than others may take meanwhile.
    #[test]
    fn pages_go_back() -> Result {
        let before = free_pages();

        for _ in 0..64 {
            drop(Pages::zeroed(6, GFP_KERNEL)?);
        }

        ensure!(free_pages() > before - 1024);
        Ok(())
    }

    fn free_pages() -> isize {
        // CAST: A small number.
        // SAFETY: The kernel's counter; it is atomic, and reading it is always fine.
        unsafe {
            (&raw const bindings::vm_zone_stat)
                .cast::<isize>()
                .add(bindings::zone_stat_item_NR_FREE_PAGES as usize)
                .read_volatile()
        }
    }
}
