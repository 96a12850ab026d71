// SPDX-License-Identifier: GPL-2.0

//! Tests of what a device says: each exit checks, and none panics.

use super::ensure;
use crate::{
    dma::{
        Reader,
        Untrusted, //
    },
    prelude::*, //
};

#[kunit_tests(rust_dma_untrusted)]
mod cases {
    use super::*;

    #[test]
    fn index_into() -> Result {
        let table = [10, 20, 30];

        ensure!(Untrusted::new(0_usize).index_into(&table) == Ok(&10));
        ensure!(Untrusted::new(2_u8).index_into(&table) == Ok(&30));
        ensure!(Untrusted::new(3_u16).index_into(&table) == Err(EIO));
        ensure!(Untrusted::new(u32::MAX).index_into(&table) == Err(EIO));
        ensure!(Untrusted::new(1_u64 << 32).index_into(&table) == Err(EIO));
        ensure!(Untrusted::new(usize::MAX).index_into(&table) == Err(EIO));
        ensure!(Untrusted::new(0x100_u16).index_into(&table) == Err(EIO));
        ensure!(Untrusted::new(1_u32 << 31).index_into(&table) == Err(EIO));
        ensure!(Untrusted::new(0_u8).index_into::<u8>(&[]) == Err(EIO));
        Ok(())
    }

    #[test]
    fn equals() -> Result {
        ensure!(Untrusted::new(7_u8) == 7 && Untrusted::new(7_u8) != 8);
        Ok(())
    }

    #[test]
    fn at_most() -> Result {
        ensure!(Untrusted::new(7_usize).at_most(7) == Ok(7));
        ensure!(Untrusted::new(8_usize).at_most(7) == Err(EIO));
        Ok(())
    }

    /// Numbers of each size, in both orders, and what is left.
    #[test]
    fn reader() -> Result {
        let bytes = [1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15];
        let mut reader = Reader::new(&bytes);

        ensure!(reader.u8()? == 1);
        ensure!(reader.u16_le()? == 0x0302 && reader.u16_be()? == 0x0405);
        ensure!(reader.u32_le()? == 0x0908_0706 && reader.u32_be()? == 0x0a0b_0c0d);
        ensure!(reader.take(0)?.is_empty() && reader.take(1)? == [14]);
        ensure!(reader.clone().rest() == [15]);

        // A failure takes nothing.
        ensure!(reader.u16_le().is_err() && reader.u32_be().is_err());
        ensure!(reader.take(2) == Err(EIO) && reader.take(usize::MAX) == Err(EIO));
        ensure!(reader.u8()? == 15 && reader.u8().is_err());
        ensure!(reader.rest().is_empty());
        Ok(())
    }

    /// A length from the message itself.
    #[test]
    fn reader_believes_nothing() -> Result {
        let cases: [(&[u8], Result<&[u8]>); 6] = [
            (&[3, 1, 2, 3, 4], Ok(&[1, 2, 3])),
            (&[4, 1, 2, 3, 4], Ok(&[1, 2, 3, 4])),
            (&[5, 1, 2, 3, 4], Err(EIO)),
            (&[0xff, 1, 2, 3, 4], Err(EIO)),
            (&[0], Ok(&[])),
            (&[], Err(EIO)),
        ];

        for (message, text) in cases {
            let mut reader = Reader::new(message);

            ensure!(reader.u8().and_then(|len| reader.take(len)) == text);
        }

        let mut reader = Reader::new(&[0xff; 8]);
        let len = reader.u32_le()?;

        ensure!(reader.take(len) == Err(EIO));
        Ok(())
    }
}
