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
        Ok(())
    }

    #[test]
    fn boxes() -> Result {
        let boxed = KBox::new([1_u16; 10], GFP_KERNEL)?;

        ensure!(Buffer::len(&boxed) == 20 && boxed.allocation() >= 20);
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
            ensure!(Buffer::as_ptr(&pages).addr() % (PAGE_SIZE << order) == 0);
            ensure!(pages.iter().all(|&byte| byte == 0));
            // Whoever gets these pages next must not find this.
            pages.fill(0xff);
        }

        ensure!(Pages::zeroed(64, GFP_KERNEL).is_err());
        Ok(())
    }
}
