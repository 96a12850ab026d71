// SPDX-License-Identifier: GPL-2.0

//! How the hardware starts and ends a transfer.
//!
//! The only file of the driver with `unsafe` code: here the device learns an address, and here is
//! claimed that it is done, that it has stopped, and that it holds no address any more.

#![allow(unsafe_code)]

use super::regs::{
    self,
    Registers, //
};
use kernel::{
    device::{
        Bound,
        Core,
        Device, //
    },
    devres,
    dma::{
        transfer::{
            Engine,
            Progress,
            Request, //
        },
        Constraints,
        DataDirection,
        Quiesce,
        StopOutcome,
        Untrusted, //
    },
    io::{
        poll::read_poll_timeout,
        Io, //
    },
    irq,
    pci,
    prelude::*,
    sync::{
        Arc,
        WaitQueue, //
    },
    time::Delta, //
};

/// How long a transfer that an earlier driver started may take to end: it takes 100 ms, or longer
/// where the host is slow to say so.
const OLD_TRANSFER: Delta = Delta::from_secs(2);

/// The registers of a device, which engine, stop and interrupt handler share.
#[derive(Clone, Copy)]
struct Hardware<'a> {
    dev: &'a Device<Bound>,
    registers: &'a Registers<'a>,
    /// What it can take. How many address bits it drives, the module's parameter says.
    limits: Constraints,
}

/// The parts of a device. There is one of each.
pub(crate) struct Parts<'a> {
    pub(crate) engine: EduEngine<'a>,
    pub(crate) stopper: Stopper<'a>,
    pub(crate) interrupts: Interrupts<'a>,
    /// Major and minor.
    pub(crate) version: (u8, u8),
}

/// Claims a device. It may still hold addresses of an earlier driver, until it is disarmed: see
/// [`Quiesce::disarm`].
///
/// Context: may sleep.
///
/// # Errors
///
/// [`EBUSY`] if it is claimed, [`ENODEV`] if it isn't there, or another device; [`ENOMEM`].
pub(crate) fn claim<'a>(pdev: &pci::Device<Core<'a>>, limits: Constraints) -> Result<Parts<'a>> {
    let dev: &Device<Core<'a>> = pdev.as_ref();
    // The PCI core gives them to one only, until unbind.
    let registers: Registers<'a> = pdev.bound().iomap_region_sized(0, c"dma_rs_edu")?;
    let hardware = Hardware {
        dev: dev.bound(),
        registers: devres::register_lent(dev, Ok::<_, Error>(registers), GFP_KERNEL)?,
        limits,
    };

    Ok(Parts {
        engine: EduEngine {
            hardware,
            interrupt: false,
        },
        stopper: Stopper(hardware),
        interrupts: Interrupts(hardware),
        version: hardware.identify()?,
    })
}

impl Hardware<'_> {
    /// Returns the version, if the device is there.
    ///
    /// A device that was unplugged reads as all ones, and in some machines as zeros.
    fn identify(&self) -> Result<(u8, u8)> {
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

/// The interrupts of a device.
pub(crate) struct Interrupts<'a>(Hardware<'a>);

impl<'a> Interrupts<'a> {
    /// Makes the handler.
    pub(crate) fn wake(self, waiters: Arc<WaitQueue>) -> IrqHandler<'a> {
        IrqHandler {
            interrupts: self,
            waiters,
        }
    }
}

/// The interrupt handler: it only wakes the threads that wait.
pub(crate) struct IrqHandler<'a> {
    interrupts: Interrupts<'a>,
    waiters: Arc<WaitQueue>,
}

impl irq::Handler for IrqHandler<'_> {
    fn handle(&self) -> irq::IrqReturn {
        if !self.interrupts.0.take_interrupts() {
            // Another device on the line.
            return irq::IrqReturn::None;
        }

        self.waiters.wake_all();
        irq::IrqReturn::Handled
    }
}

/// How a device is stopped.
pub(crate) struct Stopper<'a>(Hardware<'a>);

// SAFETY: By the numbers of the contract:
// 1. The registers are those of `dev`: `claim()` has mapped its first BAR.
// 2. The engine works only while `run` is set, and nothing but a command sets it. `disarm` waits
//    until it reads as clear, and then clears the addresses, though the device wouldn't use them
//    without a command.
// 3. The device moves the bytes, and clears `run` after that. The read of the command register sees
//    both.
// 4. `command()` fails if the identification can't be read after the command.
// 5. `quiesce` says `Stopped` only when it has read that `run` is clear.
// 6. It never says `Gone`.
// 7. The device is a function of its own, which reaches memory through QEMU's `pci_dma_*()`
//    functions only: with bus mastering off these move nothing. When bus mastering goes off in the
//    middle of a transfer, nothing is moved when its time comes, and `run` is cleared all the same.
// 8. It has 64-bit address registers, and cuts addresses that are wider than its property
//    `dma_mask`, which can't be read: whoever sets that says so to the driver (`dma_bits`). It
//    moves fewer than 4096 bytes at once, to and from any address; `start()` refuses more.
// 9. `disarm` ends after `OLD_TRANSFER`, `quiesce` at once. Neither knows the session.
unsafe impl Quiesce for Stopper<'_> {
    const HEEDS_BUS: bool = true;

    fn device(&self) -> &Device {
        self.0.dev
    }

    fn limits(&self) -> Constraints {
        self.0.limits
    }

    fn disarm(&mut self) -> Result {
        let registers = self.0.registers;

        read_poll_timeout(
            || self.0.command(),
            |command| !command.run(),
            Delta::from_millis(10),
            OLD_TRANSFER,
        )?;

        registers.try_write_reg(regs::DMA_SOURCE::zeroed())?;
        registers.try_write_reg(regs::DMA_DESTINATION::zeroed())?;
        registers.write_reg(regs::DMA_COUNT::zeroed());
        self.0.take_interrupts();

        Ok(())
    }

    fn quiesce(&self) -> StopOutcome {
        // A transfer can't be called off.
        match self.0.command() {
            Ok(command) if !command.run() => StopOutcome::Stopped,
            _ => StopOutcome::Unproven,
        }
    }
}

/// What tests look at, and how they trouble the device.
#[cfg(CONFIG_DMA_RS_EDU_KUNIT_TEST)]
impl Stopper<'_> {
    /// Returns where the device reads, where it writes, and how many bytes.
    pub(crate) fn told(&self) -> Result<(u64, u64, u32)> {
        let registers = self.0.registers;

        Ok((
            registers.try_read(regs::DMA_SOURCE)?.into_raw(),
            registers.try_read(regs::DMA_DESTINATION)?.into_raw(),
            registers.read(regs::DMA_COUNT).into_raw(),
        ))
    }

    /// Raises interrupts.
    pub(crate) fn raise(&self, interrupts: u32) {
        self.0
            .registers
            .write_reg(regs::IRQ_RAISE::from(interrupts));
    }

    /// Returns which interrupts are raised.
    pub(crate) fn raised(&self) -> u32 {
        self.0.registers.read(regs::IRQ_STATUS).into_raw()
    }
}

/// The engine that moves memory.
pub(crate) struct EduEngine<'a> {
    hardware: Hardware<'a>,
    /// Whether the end of a transfer raises an interrupt.
    pub(crate) interrupt: bool,
}

/// An offset in the device's memory.
#[derive(Clone, Copy)]
pub(crate) struct Offset(pub(crate) usize);

// SAFETY: By the numbers of the contract:
// 1. The registers are those of `dev`: `claim()` has mapped its first BAR.
// 2. The device accesses the bus address in `DMA_SOURCE` or `DMA_DESTINATION`, depending on the
//    direction in the command, for `DMA_COUNT` bytes. It cuts addresses that are wider than its
//    property `dma_mask`: who changes that tells the driver (`dma_bits`).
// 3. All that can fail in `start` does so before the command is written; an address alone is not
//    used.
// 4. The device moves the bytes in one step, and clears `run` after that. `poll` says `Done` only
//    after it has read from the command register that nothing runs.
// 5. `poll` reads the identification after that, and fails if there is none.
// 6. Registers are accessed by methods of `Io` that are ordered.
// 7. `start` checks that no transfer runs, since the device would ignore what it is told while one
//    does, and carry on with the old addresses.
// 8. There is one engine for a device: only `claim` makes one, and it does so once.
unsafe impl Engine for EduEngine<'_> {
    type Target = Offset;

    fn device(&self) -> &Device {
        self.hardware.dev
    }

    fn start(&mut self, request: Request<'_, Offset>) -> Result {
        let registers = self.hardware.registers;
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

        // No test notices if this isn't asked: whoever starts a transfer here has made sure that
        // the device came to rest, and that the one before is over.
        if self.hardware.command()?.run() {
            return Err(EBUSY);
        }

        // CAST: Widening.
        let device = regs::MEMORY_BASE + request.target.0 as u64;

        // SAFETY: The device accesses the memory once, before `poll` says `Done`.
        let memory: u64 = unsafe { request.memory.to_bits(request.running) };

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
