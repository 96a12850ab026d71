// SPDX-License-Identifier: GPL-2.0

//! Tests of divided registers, which are memory here.
//!
//! That naming a register in a window doesn't compile is left to the programs that must not.

#![allow(
    clippy::upper_case_acronyms,
    reason = "registers are named as in data sheets"
)]

use super::ensure;
use crate::{
    dma::{
        DmaRegisters,
        PlainRegisters,
        RegisterRanges, //
    },
    io::{
        register::{
            Array,
            RegisterBase,
            WithBase, //
        },
        Io,
        Mmio,
        MmioRaw, //
    },
    prelude::*,
    register, //
};
use core::ops::Range;

/// Where the relative registers are.
pub(super) struct Unit;

struct Second;

impl RegisterBase<Unit> for Second {
    const BASE: usize = 0x40;
}

register! {
    /// Ends where a window begins.
    BEFORE(u32) @ 0x0c {
        31:16 high;
        15:0 low;
    }

    /// Begins where a window ends.
    AFTER(u16) @ 0x14 {
        15:0 value;
    }

    /// Lies between windows, which are as far apart as its elements.
    BETWEEN(u32)[4, stride = 8] @ 0x24 {
        31:0 value;
    }

    /// One of them, by another name.
    THIRD(u32) => BETWEEN[2] {
        31:0 value;
    }

    /// Is found from the base of a unit.
    RELATIVE(u8) @ Unit + 0x02 {
        7:0 value;
    }

    /// As above.
    RELATIVES(u32)[2] @ Unit + 0x08 {
        31:0 value;
    }

    /// Is not there in all regions.
    FAR(u32) @ 0x80 {
        31:0 value;
    }
}

/// The minimum size of the region.
const SIZE: usize = 0x60;

struct Example;

// SAFETY: There is no device.
unsafe impl RegisterRanges for Example {
    const RANGES: &'static [Range<usize>] = &[
        0x10..0x14,
        0x20..0x24,
        0x28..0x2c,
        0x30..0x34,
        0x38..0x3c,
        0x44..0x48,
        0x50..0x54,
    ];
}

/// Runs a test with registers that are all zero; returns what is in them then.
fn with_registers(
    test: impl FnOnce(DmaRegisters<'_, Example, SIZE>, PlainRegisters<'_, Example, SIZE>) -> Result,
) -> Result<KBox<[u32; SIZE / 4]>> {
    let mut memory = KBox::new([0_u32; SIZE / 4], GFP_KERNEL)?;
    let raw = MmioRaw::new_region((&raw mut *memory).expose_provenance(), SIZE)?;

    // SAFETY: Where these tests run, memory can be accessed like registers. It lives longer than
    // what is made here, and is not accessed meanwhile.
    let (dma_regs, regs) = unsafe { DmaRegisters::new(Mmio::from_raw(raw)) };

    test(dma_regs, regs)?;
    Ok(memory)
}

#[kunit_tests(rust_dma_registers)]
mod cases {
    use super::*;

    /// Registers at the edges of windows, and between them, are those that they say.
    #[test]
    fn the_rest() -> Result {
        let memory = with_registers(|_, regs| {
            let copy = regs;

            regs.write_reg(BEFORE::zeroed().with_high(0x1234_u16).with_low(0x5678_u16));
            copy.write(AFTER, AFTER::from(0xabcd));
            regs.update(BEFORE, |before| before.with_low(1_u16));
            ensure!(u32::from(regs.read(BEFORE)) == 0x1234_0001);
            ensure!(u16::from(regs.read(AFTER)) == 0xabcd);

            regs.write(THIRD, THIRD::from(3));
            ensure!(u32::from(regs.read(BETWEEN::at(2))) == 3);

            let i = core::hint::black_box(3);
            regs.write(BETWEEN::try_at(i).ok_or(EINVAL)?, BETWEEN::from(4));
            ensure!(BETWEEN::try_at(i + 1).is_none());

            regs.write(RELATIVE::of::<Second>(), RELATIVE::from(5));
            regs.write(RELATIVES::of::<Second>().at(1), RELATIVES::from(6));
            ensure!(u8::from(regs.read(RELATIVE::of::<Second>())) == 5);
            Ok(())
        })?;

        for (i, value) in memory.iter().enumerate() {
            let expected = match i * 4 {
                0x0c => 0x1234_0001,
                0x14 => 0xabcd,
                0x34 => 3,
                0x3c => 4,
                0x40 => 5 << 16,
                0x4c => 6,
                _ => 0,
            };

            ensure!(u32::from_le(*value) == expected);
        }

        Ok(())
    }

    /// What may be missing is looked for.
    #[test]
    fn too_short() -> Result {
        with_registers(|_, regs| {
            ensure!(matches!(regs.try_read(FAR), Err(e) if e == EINVAL));
            regs.write(BEFORE, BEFORE::from(7));
            ensure!(u32::from(regs.try_read(BEFORE)?) == 7);
            Ok(())
        })?;
        Ok(())
    }

    /// Who may aim DMA reaches all.
    #[test]
    fn all() -> Result {
        let memory = with_registers(|dma_regs, regs| {
            // SAFETY: There is no device.
            let io = unsafe { dma_regs.io() };

            io.write32(0x8000, 0x10);
            io.write_reg(BEFORE::from(2));
            ensure!(u32::from(regs.read(BEFORE)) == 2);
            Ok(())
        })?;

        ensure!(u32::from_le(memory[4]) == 0x8000);
        Ok(())
    }
}
