// SPDX-License-Identifier: GPL-2.0

//! A register region, divided into the registers that aim, size or start DMA, and the rest.
//!
//! A driver that may write any register may write any address into the register for the base of a
//! ring, in safe code. No type of memory prevents that; only keeping the register from the driver
//! does. So a region is divided once. [`DmaRegisters`] goes to the one file of a driver that says
//! `unsafe`. [`PlainRegisters`] goes to the rest.

use crate::{
    io::{
        register::{
            FixedRegister,
            FixedRegisterLoc,
            LocatedRegister,
            RegisterArray,
            RegisterArrayLoc,
            RegisterBase,
            RelativeRegister,
            RelativeRegisterArray,
            RelativeRegisterArrayLoc,
            RelativeRegisterLoc, //
        },
        Io,
        IoCapable,
        IoLoc,
        Mmio,
        MmioBackend,
        Region, //
    },
    prelude::*, //
};
use core::{
    marker::PhantomData,
    ops::Range, //
};

/// Says which byte ranges of a register region aim, size or start DMA.
///
/// # Safety
///
/// Reads and writes of registers outside of all `RANGES` must not make the device access memory, or
/// change which memory it accesses. Go through the register map of the data sheet. Outside of
/// `RANGES` there must be
///
/// 1. no register with a bus address, a length, or the index of a descriptor;
/// 2. no register that starts an engine, or whose read does;
/// 3. no register that changes what the ones above mean, for instance by a mode, a page or an
///    offset;
/// 4. no other way to reach such registers, for instance a pair of index and data.
///
/// # Examples
///
/// ```
/// use core::ops::Range;
/// use kernel::dma::RegisterRanges;
///
/// struct Engine;
///
/// // SAFETY: By the data sheet,
/// // 1. the address is at 0x10, the length at 0x18;
/// // 2. a write to 0x20 starts a transfer;
/// // 3., 4. the other registers are about interrupts.
/// unsafe impl RegisterRanges for Engine {
///     const RANGES: &'static [Range<usize>] = &[0x10..0x1c, 0x20..0x24];
/// }
/// ```
pub unsafe trait RegisterRanges {
    /// The ranges, in bytes from the start of the region, in any order.
    const RANGES: &'static [Range<usize>];
}

mod private {
    use super::Range;

    /// All registers that a location may stand for: one, or an array.
    #[derive(Clone, Copy)]
    pub struct Registers {
        pub offset: usize,
        pub width: usize,
        pub count: usize,
        pub stride: usize,
    }

    impl Registers {
        pub(in crate::dma) const fn one(offset: usize, width: usize) -> Self {
            Self {
                offset,
                width,
                count: 1,
                stride: 0,
            }
        }

        /// Returns whether none of them has a byte in one of the ranges.
        pub(in crate::dma) const fn are_outside(self, ranges: &[Range<usize>]) -> bool {
            let mut i = 0;

            while i < self.count {
                let start = self.offset + i * self.stride;
                let mut k = 0;

                while k < ranges.len() {
                    if start < ranges[k].end && ranges[k].start < start + self.width {
                        return false;
                    }

                    k += 1;
                }

                i += 1;
            }

            true
        }
    }

    /// The location of a register `T`, which is known at compile time, except for an index.
    ///
    /// [`IoLoc`](crate::io::IoLoc) isn't enough, since safe code may implement it with any offset.
    /// This trait can't be named outside of the module.
    ///
    /// # Safety
    ///
    /// `IoLoc::offset()`, in a region, must return the offset of one of `REGISTERS`.
    #[diagnostic::on_unimplemented(
        message = "`{Self}` is not a register that is known at compile time",
        note = "`PlainRegisters` takes registers that are declared by `register!`"
    )]
    pub unsafe trait Location<T> {
        const REGISTERS: Registers;
    }
}
use private::{
    Location,
    Registers, //
};

// SAFETY: The register is at `OFFSET`.
unsafe impl<T: FixedRegister> Location<T> for () {
    const REGISTERS: Registers = Registers::one(T::OFFSET, size_of::<T::Storage>());
}

// SAFETY: The register is at `OFFSET`.
unsafe impl<T: FixedRegister> Location<T> for T {
    const REGISTERS: Registers = Registers::one(T::OFFSET, size_of::<T::Storage>());
}

// SAFETY: The register is at `OFFSET`.
unsafe impl<T: FixedRegister> Location<T> for FixedRegisterLoc<T> {
    const REGISTERS: Registers = Registers::one(T::OFFSET, size_of::<T::Storage>());
}

// SAFETY: The register is at `OFFSET` from the base.
unsafe impl<T, B> Location<T> for RelativeRegisterLoc<T, B>
where
    T: RelativeRegister,
    B: RegisterBase<T::BaseFamily> + ?Sized,
{
    const REGISTERS: Registers = Registers::one(B::BASE + T::OFFSET, size_of::<T::Storage>());
}

// SAFETY: The location was made with an index that is less than `SIZE`.
unsafe impl<T: RegisterArray> Location<T> for RegisterArrayLoc<T> {
    const REGISTERS: Registers = Registers {
        offset: T::OFFSET,
        width: size_of::<T::Storage>(),
        count: T::SIZE,
        stride: T::STRIDE,
    };
}

// SAFETY: The location was made with an index that is less than `SIZE`.
unsafe impl<T, B> Location<T> for RelativeRegisterArrayLoc<T, B>
where
    T: RelativeRegisterArray,
    B: RegisterBase<T::BaseFamily> + ?Sized,
{
    const REGISTERS: Registers = Registers {
        offset: B::BASE + T::OFFSET,
        width: size_of::<T::Storage>(),
        count: T::SIZE,
        stride: T::STRIDE,
    };
}

/// The registers of a region that can't make the device access memory, for safe code.
///
/// It reads and writes registers that were declared by [`register!`](crate::register), with the
/// methods of [`Io`], and at the same cost. A register that has a byte in one of the
/// [ranges](RegisterRanges) that aim DMA doesn't compile. An array of registers doesn't if any of
/// its elements has. Bare offsets aren't accepted.
///
/// # Examples
///
/// ```
/// use core::ops::Range;
/// use kernel::{dma::{PlainRegisters, RegisterRanges}, register};
///
/// register! {
///     /// What the device is.
///     ID(u32) @ 0x0 {
///         31:0 value;
///     }
///
///     /// Which interrupts are on.
///     MASK(u32) @ 0x4 {
///         0:0 done;
///     }
///
///     /// Where the device reads.
///     ADDRESS(u32) @ 0x10 {
///         31:0 value;
///     }
/// }
///
/// struct Reader;
///
/// // SAFETY: The device reads from the address at 0x10 when the length at 0x14 is written.
/// unsafe impl RegisterRanges for Reader {
///     const RANGES: &'static [Range<usize>] = &[0x10..0x18];
/// }
///
/// fn switch_on(regs: PlainRegisters<'_, Reader, 0x20>) -> u32 {
///     regs.update(MASK, |mask| mask.with_done(true));
///
///     // This does not build:
///     // regs.write_reg(ADDRESS::from(0x1234));
///     regs.read(ID).value().into()
/// }
/// ```
pub struct PlainRegisters<'a, W: RegisterRanges, const SIZE: usize> {
    io: Mmio<'a, Region<SIZE>>,
    _windows: PhantomData<fn() -> W>,
}

impl<W: RegisterRanges, const SIZE: usize> Copy for PlainRegisters<'_, W, SIZE> {}
impl<W: RegisterRanges, const SIZE: usize> Clone for PlainRegisters<'_, W, SIZE> {
    #[inline]
    fn clone(&self) -> Self {
        *self
    }
}

impl<'a, W: RegisterRanges, const SIZE: usize> PlainRegisters<'a, W, SIZE> {
    /// Returns the region, if the location can't aim DMA.
    #[inline(always)]
    fn at<T, L: Location<T>>(self) -> Mmio<'a, Region<SIZE>> {
        const_assert!(
            L::REGISTERS.are_outside(W::RANGES),
            "this register can make the device access memory: it is reached by `DmaRegisters` only"
        );

        self.io
    }

    /// Reads a register, as [`Io::read`].
    ///
    /// Context: any.
    #[inline(always)]
    pub fn read<T, L>(self, location: L) -> T
    where
        L: IoLoc<Region<SIZE>, T> + Location<T>,
        MmioBackend: IoCapable<L::IoType>,
    {
        self.at::<T, L>().read(location)
    }

    /// Writes a register, as [`Io::write`].
    ///
    /// Context: any.
    #[inline(always)]
    pub fn write<T, L>(self, location: L, value: T)
    where
        L: IoLoc<Region<SIZE>, T> + Location<T>,
        MmioBackend: IoCapable<L::IoType>,
    {
        self.at::<T, L>().write(location, value);
    }

    /// Writes a register whose location is a part of the value, as [`Io::write_reg`].
    ///
    /// Context: any.
    #[inline(always)]
    pub fn write_reg<T, L, V>(self, value: V)
    where
        L: IoLoc<Region<SIZE>, T> + Location<T>,
        V: LocatedRegister<Region<SIZE>, Location = L, Value = T>,
        MmioBackend: IoCapable<L::IoType>,
    {
        let (location, value) = value.into_io_op();

        self.write(location, value);
    }

    /// Reads a register and writes what `f` returns for it, as [`Io::update`]. Not atomic.
    ///
    /// Context: any.
    #[inline(always)]
    pub fn update<T, L>(self, location: L, f: impl FnOnce(T) -> T)
    where
        L: IoLoc<Region<SIZE>, T> + Location<T>,
        MmioBackend: IoCapable<L::IoType>,
    {
        self.at::<T, L>().update(location, f);
    }

    /// Reads a register that may lie beyond the end of the region, as [`Io::try_read`].
    ///
    /// Context: any.
    ///
    /// # Errors
    ///
    /// [`EINVAL`] if it does.
    #[inline(always)]
    pub fn try_read<T, L>(self, location: L) -> Result<T>
    where
        L: IoLoc<Region<SIZE>, T> + Location<T>,
        MmioBackend: IoCapable<L::IoType>,
    {
        self.at::<T, L>().try_read(location)
    }
}

/// All registers of a region, including those that aim, size or start DMA.
///
/// There is one for each region. Keep it in the driver's `unsafe` file, in its `Engine`,
/// `RingRegisters` or `Quiesce`. PCI's `DmaRegisters::divide()` maps a BAR and divides it.
///
/// # Invariants
///
/// Nobody accesses the region except through this and its [`PlainRegisters`].
///
/// # Examples
///
/// ```
/// use core::ops::Range;
/// use kernel::{dma::{DmaRegisters, RegisterRanges}, io::Io};
///
/// struct Reader;
///
/// // SAFETY: The device reads from the address at 0x10 when the length at 0x14 is written.
/// unsafe impl RegisterRanges for Reader {
///     const RANGES: &'static [Range<usize>] = &[0x10..0x18];
/// }
///
/// struct Engine<'a>(DmaRegisters<'a, Reader, 0x20>);
///
/// impl Engine<'_> {
///     fn stop(&mut self) {
///         // SAFETY: A length of zero: the device reads nothing.
///         unsafe { self.0.io() }.write32(0, 0x14);
///     }
/// }
/// ```
pub struct DmaRegisters<'a, W: RegisterRanges, const SIZE: usize> {
    io: Mmio<'a, Region<SIZE>>,
    _windows: PhantomData<fn() -> W>,
}

impl<'a, W: RegisterRanges, const SIZE: usize> DmaRegisters<'a, W, SIZE> {
    /// Divides a region.
    ///
    /// Context: any.
    ///
    /// # Safety
    ///
    /// - `W` must be the ranges of this device and this region.
    /// - As long as a result is used, the region must be accessed through the results only.
    #[inline]
    pub unsafe fn new(io: Mmio<'a, Region<SIZE>>) -> (Self, PlainRegisters<'a, W, SIZE>) {
        const_assert!(
            {
                let mut empty = false;
                let mut k = 0;

                while k < W::RANGES.len() {
                    empty |= W::RANGES[k].start >= W::RANGES[k].end;
                    k += 1;
                }

                !empty
            },
            "a range is empty"
        );

        let regs = PlainRegisters {
            io,
            _windows: PhantomData,
        };

        // INVARIANT: By the second safety requirement.
        let this = Self {
            io,
            _windows: PhantomData,
        };

        (this, regs)
    }

    /// Returns the whole region. Context: any.
    ///
    /// # Safety
    ///
    /// 1. Whatever the caller reads and writes there, the device must access only memory that was
    ///    shown to it, in the direction of the mapping, and as long as it may.
    /// 2. The caller must not hand the result to code that doesn't know of this.
    #[inline]
    pub unsafe fn io(&self) -> Mmio<'a, Region<SIZE>> {
        self.io
    }
}
