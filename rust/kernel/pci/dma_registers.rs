// SPDX-License-Identifier: GPL-2.0

//! Dividing the registers of a BAR.

use super::{
    bus_master,
    Bar,
    Device, //
};
use crate::{
    device::{
        self,
        Core, //
    },
    devres,
    dma::{
        DmaRegisters,
        PlainRegisters,
        RegisterRanges, //
    },
    io::IoBase,
    prelude::*, //
};

impl<'a, W: RegisterRanges, const SIZE: usize> DmaRegisters<'a, W, SIZE> {
    /// Divides a PCI BAR, which the device owns from then on.
    ///
    /// The PCI core maps a BAR once at a time, so it can't be divided twice. Call
    /// [`enable_device_mem()`](Device::enable_device_mem) before: without, all registers read as
    /// all ones, which the log says. Context: may sleep.
    ///
    /// # Errors
    ///
    /// [`ENOMEM`].
    ///
    /// # Safety
    ///
    /// `W` must be about the device, and the BAR, whose registers these are.
    ///
    /// # Examples
    ///
    /// ```
    /// # use core::ops::Range;
    /// # use kernel::{device::Core, pci, prelude::*};
    /// use kernel::{dma::{DmaRegisters, PlainRegisters, RegisterRanges}, io::Io};
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
    ///
    /// fn probe<'a>(
    ///     pdev: &pci::Device<Core<'a>>,
    /// ) -> Result<(Engine<'a>, PlainRegisters<'a, Reader, 0x20>)> {
    ///     let bar = pdev.bound().iomap_region_sized(0, c"reader")?;
    ///     // SAFETY: The driver is bound to readers only, which have one BAR.
    ///     let (dma_regs, regs) = unsafe { DmaRegisters::divide(pdev, bar) }?;
    ///
    ///     Ok((Engine(dma_regs), regs))
    /// }
    /// ```
    pub unsafe fn divide(
        pdev: &Device<Core<'a>>,
        bar: Bar<'a, SIZE>,
    ) -> Result<(Self, PlainRegisters<'a, W, SIZE>)> {
        bus_master::check_memory(pdev);

        let dev: &device::Device<Core<'a>> = pdev.as_ref();
        let bar = devres::register_lent(dev, Ok::<_, Error>(bar), GFP_KERNEL)?;

        // SAFETY: The caller promises that `W` is about these registers. We owned the BAR, so all
        // that borrowed it is gone, and the PCI core has reserved it for us until it is dropped.
        Ok(unsafe { Self::new(bar.as_view()) })
    }
}
