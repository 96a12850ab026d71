// SPDX-License-Identifier: GPL-2.0

//! Registers that aim, size or start DMA, and the rest.
//!
//! A driver that may write any register may also write an address of its choice into the one from
//! which the device takes the base of a ring. No type of memory keeps it from that: the registers
//! have to be kept from it. So a region is divided, once. What can make the device access memory is
//! [`DmaRegisters`], which is left to the one file of a driver that says `unsafe`; the rest is
//! [`PlainRegisters`], and ordinary.

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

/// Says where in a region those registers are that aim, size or start DMA.
///
/// # Safety
///
/// What is read from, and written to, registers outside of all `RANGES` must not make the device
/// access memory by itself, or change which memory it accesses: there is no address, no length, no
/// index of a descriptor, no start of an engine, nothing that changes what these mean, and no way
/// to reach such registers through others.
///
/// # Examples
///
/// ```
/// use core::ops::Range;
/// use kernel::dma::RegisterRanges;
///
/// struct Engine;
///
/// // SAFETY: By the data sheet, the address is at 0x10, the length at 0x18, and what is written at
/// // 0x20 starts a transfer. The rest is about interrupts.
/// unsafe impl RegisterRanges for Engine {
///     const RANGES: &'static [Range<usize>] = &[0x10..0x1c, 0x20..0x24];
/// }
/// ```
pub unsafe trait RegisterRanges {
    /// Offsets in bytes, in any order.
    const RANGES: &'static [Range<usize>];
}

mod private {
    use super::Range;

    /// All registers that a location can lead to.
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

    /// A location of a register `T` that is known at compile time, but for an index.
    ///
    /// [`IoLoc`](crate::io::IoLoc) isn't enough: anybody may implement that, with any offset. This
    /// one can't be named outside.
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

// SAFETY: That is the offset.
unsafe impl<T: FixedRegister> Location<T> for () {
    const REGISTERS: Registers = Registers::one(T::OFFSET, size_of::<T::Storage>());
}

// SAFETY: That is the offset.
unsafe impl<T: FixedRegister> Location<T> for T {
    const REGISTERS: Registers = Registers::one(T::OFFSET, size_of::<T::Storage>());
}

// SAFETY: That is the offset.
unsafe impl<T: FixedRegister> Location<T> for FixedRegisterLoc<T> {
    const REGISTERS: Registers = Registers::one(T::OFFSET, size_of::<T::Storage>());
}

// SAFETY: That is the offset.
unsafe impl<T, B> Location<T> for RelativeRegisterLoc<T, B>
where
    T: RelativeRegister,
    B: RegisterBase<T::BaseFamily> + ?Sized,
{
    const REGISTERS: Registers = Registers::one(B::BASE + T::OFFSET, size_of::<T::Storage>());
}

// SAFETY: The index was checked when the location was made.
unsafe impl<T: RegisterArray> Location<T> for RegisterArrayLoc<T> {
    const REGISTERS: Registers = Registers {
        offset: T::OFFSET,
        width: size_of::<T::Storage>(),
        count: T::SIZE,
        stride: T::STRIDE,
    };
}

// SAFETY: The index was checked when the location was made.
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

/// The registers of a region that have nothing to do with DMA.
///
/// Reads and writes registers that were declared by [`register!`](crate::register), with the
/// methods, and at the price, of [`Io`]. Naming one that has a byte in a window doesn't compile; of
/// an array, that goes for all of it, whatever the index. There are no bare offsets.
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
    /// Returns the region, to be accessed at such a location.
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

    /// Writes a register whose value says which it is, as [`Io::write_reg`].
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

    /// Reads a register and writes what `f` makes of it, as [`Io::update`]: not atomically.
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

    /// Reads a register that the region may be too short for, as [`Io::try_read`].
    ///
    /// Context: any.
    ///
    /// # Errors
    ///
    /// [`EINVAL`] if it is.
    #[inline(always)]
    pub fn try_read<T, L>(self, location: L) -> Result<T>
    where
        L: IoLoc<Region<SIZE>, T> + Location<T>,
        MmioBackend: IoCapable<L::IoType>,
    {
        self.at::<T, L>().try_read(location)
    }

    /// Writes a register that the region may be too short for, as [`Io::try_write`].
    ///
    /// Context: any.
    ///
    /// # Errors
    ///
    /// [`EINVAL`] if it is.
    #[inline(always)]
    pub fn try_write<T, L>(self, location: L, value: T) -> Result
    where
        L: IoLoc<Region<SIZE>, T> + Location<T>,
        MmioBackend: IoCapable<L::IoType>,
    {
        self.at::<T, L>().try_write(location, value)
    }
}

/// All registers of a region, those included that aim, size or start DMA.
///
/// There is one for each region. It belongs to what programs the device, and stays there. A bus may
/// have a function that maps a region and divides it at once, as PCI has `DmaRegisters::divide()`.
///
/// # Invariants
///
/// But for [`PlainRegisters`], nobody else accesses the region.
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
    /// - `W` must be about the device, and the region, whose registers these are.
    /// - Nobody may access the region but by what this returns, as long as that is used.
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
            "a window is empty"
        );

        let regs = PlainRegisters {
            io,
            _windows: PhantomData,
        };

        // INVARIANT: By the safety requirements.
        let this = Self {
            io,
            _windows: PhantomData,
        };

        (this, regs)
    }

    /// Returns the region.
    ///
    /// # Safety
    ///
    /// What is written by it must make the device access only memory that it was given, in the
    /// direction and as long as it was given it. The result may be kept by the caller only.
    #[inline]
    pub unsafe fn io(&self) -> Mmio<'a, Region<SIZE>> {
        self.io
    }
}
