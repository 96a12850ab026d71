// SPDX-License-Identifier: GPL-2.0

//! Registers that aim, size or start DMA, and the rest.
//!
//! A driver that may write any register may also write an address of its choice into the one from
//! which the device takes the base of a ring. No type of memory keeps it from that: the registers
//! have to be kept from it. So a region is divided, once. What can make the device access memory is
//! [`DmaRegs`], which is left to the one file of a driver that says `unsafe`; the rest is [`Regs`],
//! and ordinary.

#[cfg(CONFIG_PCI)]
use crate::{
    device::{
        Core,
        Device, //
    },
    io::IoBase,
    pci, //
};
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
/// use kernel::dma::Windows;
///
/// struct Engine;
///
/// // SAFETY: By the data sheet, the address is at 0x10, the length at 0x18, and what is written at
/// // 0x20 starts a transfer. The rest is about interrupts.
/// unsafe impl Windows for Engine {
///     const RANGES: &'static [Range<usize>] = &[0x10..0x1c, 0x20..0x24];
/// }
/// ```
pub unsafe trait Windows {
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
        pub(super) const fn one(offset: usize, width: usize) -> Self {
            Self {
                offset,
                width,
                count: 1,
                stride: 0,
            }
        }

        /// Returns whether none of them has a byte in one of the ranges.
        pub(super) const fn are_outside(self, ranges: &[Range<usize>]) -> bool {
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
        note = "`Regs` takes registers that are declared by `register!`"
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
/// use kernel::{dma::{Regs, Windows}, register};
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
/// unsafe impl Windows for Reader {
///     const RANGES: &'static [Range<usize>] = &[0x10..0x18];
/// }
///
/// fn switch_on(regs: Regs<'_, Reader, 0x20>) -> u32 {
///     regs.update(MASK, |mask| mask.with_done(true));
///
///     // This does not build:
///     // regs.write_reg(ADDRESS::from(0x1234));
///     regs.read(ID).value().into()
/// }
/// ```
pub struct Regs<'a, W: Windows, const SIZE: usize> {
    io: Mmio<'a, Region<SIZE>>,
    _windows: PhantomData<fn() -> W>,
}

impl<W: Windows, const SIZE: usize> Copy for Regs<'_, W, SIZE> {}
impl<W: Windows, const SIZE: usize> Clone for Regs<'_, W, SIZE> {
    #[inline]
    fn clone(&self) -> Self {
        *self
    }
}

impl<'a, W: Windows, const SIZE: usize> Regs<'a, W, SIZE> {
    /// Returns the region, to be accessed at such a location.
    #[inline(always)]
    fn at<T, L: Location<T>>(self) -> Mmio<'a, Region<SIZE>> {
        const_assert!(
            L::REGISTERS.are_outside(W::RANGES),
            "this register can make the device access memory: it is reached by `DmaRegs` only"
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
/// There is one for each region. It belongs to what programs the device, and stays there.
///
/// # Invariants
///
/// But for [`Regs`], nobody else accesses the region.
///
/// # Examples
///
/// ```
/// # #![cfg(CONFIG_PCI)]
/// # use core::ops::Range;
/// # use kernel::{device::Core, pci, prelude::*};
/// use kernel::{dma::{DmaRegs, Regs, Windows}, io::Io};
///
/// struct Reader;
///
/// // SAFETY: The device reads from the address at 0x10 when the length at 0x14 is written.
/// unsafe impl Windows for Reader {
///     const RANGES: &'static [Range<usize>] = &[0x10..0x18];
/// }
///
/// struct Engine<'a>(DmaRegs<'a, Reader, 0x20>);
///
/// impl Engine<'_> {
///     fn stop(&mut self) {
///         // SAFETY: A length of zero: the device reads nothing.
///         unsafe { self.0.io() }.write32(0, 0x14);
///     }
/// }
///
/// fn probe<'a>(
///     pdev: &pci::Device<Core<'a>>,
/// ) -> Result<(Engine<'a>, Regs<'a, Reader, 0x20>)> {
///     let bar = pdev.bound().iomap_region_sized(0, c"reader")?;
///     // SAFETY: The driver is bound to readers only, which have one BAR.
///     let (dma_regs, regs) = unsafe { DmaRegs::divide(pdev, bar) }?;
///
///     Ok((Engine(dma_regs), regs))
/// }
/// ```
pub struct DmaRegs<'a, W: Windows, const SIZE: usize> {
    io: Mmio<'a, Region<SIZE>>,
    _windows: PhantomData<fn() -> W>,
}

impl<'a, W: Windows, const SIZE: usize> DmaRegs<'a, W, SIZE> {
    /// Divides a region.
    ///
    /// Context: any.
    ///
    /// # Safety
    ///
    /// - `W` must be about the device, and the region, whose registers these are.
    /// - Nobody may access the region but by what this returns, as long as that is used.
    #[inline]
    pub unsafe fn new(io: Mmio<'a, Region<SIZE>>) -> (Self, Regs<'a, W, SIZE>) {
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

        let regs = Regs {
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

    /// Divides a PCI BAR, which the device owns from then on.
    ///
    /// The PCI core maps a BAR once at a time, so it can't be divided twice. Call
    /// [`enable_device_mem()`](pci::Device::enable_device_mem) before: without, all registers read
    /// as all ones, which the log says. Context: may sleep.
    ///
    /// # Errors
    ///
    /// [`ENOMEM`].
    ///
    /// # Safety
    ///
    /// `W` must be about the device, and the BAR, whose registers these are.
    #[cfg(CONFIG_PCI)]
    pub unsafe fn divide(
        pdev: &pci::Device<Core<'a>>,
        bar: pci::Bar<'a, SIZE>,
    ) -> Result<(Self, Regs<'a, W, SIZE>)> {
        pci::check_memory(pdev);

        let dev: &Device<Core<'a>> = pdev.as_ref();
        let bar = dev.manage(Ok::<_, Error>(bar))?;

        // SAFETY: By the safety requirements. We owned the BAR, so all that borrowed it is gone,
        // and the PCI core has reserved it for us until it is dropped.
        Ok(unsafe { Self::new(bar.as_view()) })
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
