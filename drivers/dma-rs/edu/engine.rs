// SPDX-License-Identifier: GPL-2.0

//! How the hardware starts and ends a transfer.
//!
//! The only file of the driver with `unsafe` code: here the device learns an address, and here is
//! claimed that it is done.

#![allow(unsafe_code)]

use super::regs::{
    self,
    Registers, //
};
use kernel::{
    dma::{
        oneshot::{
            Engine,
            Progress,
            Request, //
        },
        DataDirection,
        Untrusted, //
    },
    io::{
        poll::read_poll_timeout,
        Io, //
    },
    irq,
    prelude::*,
    sync::{
        Arc,
        Completion, //
    },
    time::Delta, //
};

/// How long a transfer that an earlier driver started may take to end: it takes 100 ms.
const OLD_TRANSFER: Delta = Delta::from_millis(500);

/// What the engine and the interrupt handler share.
#[pin_data]
pub(crate) struct Hardware<'a> {
    registers: Registers<'a>,
    #[pin]
    pub(crate) interrupted: Completion,
}

impl<'a> Hardware<'a> {
    /// Makes the device forget what an earlier driver, or the firmware, told it.
    ///
    /// To be called before bus mastering goes on: a transfer that was started before would use it.
    ///
    /// Context: may sleep, 500 ms at most.
    ///
    /// # Errors
    ///
    /// [`ENODEV`] if this isn't the device, [`ETIMEDOUT`] if it doesn't come to rest.
    pub(crate) fn bring_up(registers: Registers<'a>) -> Result<Arc<Self>> {
        let this = Arc::pin_init(
            try_pin_init!(Self {
                registers,
                interrupted <- Completion::new(),
            }? Error),
            GFP_KERNEL,
        )?;

        this.identify()?;

        read_poll_timeout(
            || this.command(),
            |command| !command.run(),
            Delta::from_millis(10),
            OLD_TRANSFER,
        )?;

        this.registers.try_write_reg(regs::DMA_SOURCE::zeroed())?;
        this.registers
            .try_write_reg(regs::DMA_DESTINATION::zeroed())?;
        this.registers.write_reg(regs::DMA_COUNT::zeroed());
        this.take_interrupts();

        Ok(this)
    }

    /// Returns the version, if the device is there.
    ///
    /// A device that was unplugged reads as all ones, and in some machines as zeros.
    pub(crate) fn identify(&self) -> Result<(u8, u8)> {
        let id = self.registers.read(regs::ID);

        if u32::from(id.magic()) != u32::from(regs::MAGIC) || id.into_raw() == u32::MAX {
            return Err(ENODEV);
        }

        Ok((id.major().into(), id.minor().into()))
    }

    fn command(&self) -> Result<regs::DMA_COMMAND> {
        let command = self.registers.read(regs::DMA_COMMAND);

        // Only now: if the device went away before or while the command was read, this sees it.
        self.identify()?;

        Ok(command)
    }

    /// Takes back the interrupts that were raised; returns whether there were any.
    fn take_interrupts(&self) -> bool {
        let status = self.registers.read(regs::IRQ_STATUS);

        // All ones: there is no device any more.
        if status.into_raw() == 0 || status.into_raw() == u32::MAX {
            return false;
        }

        self.registers
            .write_reg(regs::IRQ_ACK::zeroed().with_taken(status.raised()));
        true
    }
}

/// The interrupt handler: it only wakes whoever waits.
pub(crate) struct Waker<'a>(pub(crate) Arc<Hardware<'a>>);

impl irq::Handler for Waker<'_> {
    fn handle(&self) -> irq::IrqReturn {
        if !self.0.take_interrupts() {
            // Another device on the line.
            return irq::IrqReturn::None;
        }

        self.0.interrupted.complete();
        irq::IrqReturn::Handled
    }
}

/// The engine that moves memory.
pub(crate) struct EduEngine<'a> {
    pub(crate) hardware: Arc<Hardware<'a>>,
    /// Whether the end of a transfer raises an interrupt.
    pub(crate) interrupt: bool,
}

/// An offset in the device's memory.
#[derive(Clone, Copy)]
pub(crate) struct Offset(pub(crate) usize);

// SAFETY:
// - The device accesses the bus address in `DMA_SOURCE` or `DMA_DESTINATION`, which one says the
//   command, for `DMA_COUNT` bytes, in one step, and clears `run` after that. `start` checks that
//   no transfer runs, since the device would ignore what it is told while one does, and carry on
//   with the old addresses. It cuts addresses that are wider than its property `dma_mask`: who
//   changes that tells the driver (`dma_bits`).
// - All that can fail in `start` does so before the command is written; an address alone is not
//   used.
// - `poll` says `Done` only after it has read from the device's command register that nothing runs,
//   and has then read from the identification register that this came from a device.
unsafe impl Engine for EduEngine<'_> {
    type Target = Offset;

    fn start(&mut self, request: Request<'_, Offset>) -> Result {
        let registers = &self.hardware.registers;
        let len = request.memory.len();
        let end = request.target.0.checked_add(len).ok_or(EINVAL)?;

        if end > regs::MEMORY_SIZE {
            return Err(EINVAL);
        }

        let to_ram = match request.direction {
            DataDirection::ToDevice => false,
            DataDirection::FromDevice => true,
            DataDirection::Bidirectional | DataDirection::None => return Err(EINVAL),
        };

        if self.hardware.command()?.run() {
            return Err(EBUSY);
        }

        // CAST: Widening.
        let device = regs::MEMORY_BASE + request.target.0 as u64;

        // SAFETY: The device accesses the memory once, before `poll` says `Done`.
        let memory: u64 = unsafe { request.memory.to_bits() };

        let (source, destination) = if to_ram {
            (device, memory)
        } else {
            (memory, device)
        };

        registers.try_write_reg(regs::DMA_SOURCE::from(source))?;
        registers.try_write_reg(regs::DMA_DESTINATION::from(destination))?;
        // CAST: Not more than the device's memory.
        registers.write_reg(regs::DMA_COUNT::from(len as u32));

        // This write starts the transfer, and is ordered after all earlier writes to memory.
        registers.write_reg(
            regs::DMA_COMMAND::zeroed()
                .with_run(true)
                .with_to_ram(to_ram)
                .with_interrupt(self.interrupt),
        );

        Ok(())
    }

    fn poll(&mut self) -> Result<Progress> {
        if self.hardware.command()?.run() {
            return Ok(Progress::Busy);
        }

        let moved = self.hardware.registers.read(regs::DMA_COUNT).into_raw();

        // CAST: Widening.
        Ok(Progress::Done(Untrusted::new(moved as usize)))
    }
}
