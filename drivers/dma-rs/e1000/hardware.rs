// SPDX-License-Identifier: GPL-2.0

//! How the hardware finds, works off and forgets its rings.
//!
//! The only file of the driver with `unsafe` code: here the device learns addresses, and here is
//! claimed what it does with them. The registers that aim, size or start DMA can't be reached from
//! elsewhere; [`Control`] leads to the others.
//!
//! Sections refer to the Software Developer's Manual (see `regs.rs`).

#![allow(unsafe_code)]

use super::regs::{
    self,
    SIZE, //
};
use kernel::{
    device::{
        Bound,
        Core,
        Device, //
    },
    dma::{
        ring::{
            self,
            Descriptor,
            DescriptorInfo,
            Length,
            Publish,
            ReceiveDescriptor,
            Received,
            RingMemory,
            RingRegisters,
            Tail, //
        },
        Constraints,
        DmaMask,
        DmaRegisters,
        FromDevice,
        Mapper,
        PlainRegisters,
        Quiesce,
        RegisterRanges,
        StopOutcome,
        ToDevice,
        Untrusted, //
    },
    io::{
        register::Array,
        Io,
        Mmio,
        Region, //
    },
    irq,
    pci,
    prelude::*,
    sync::{
        Arc,
        WaitQueue, //
    },
    time::{
        delay::fsleep,
        Delta, //
    }, //
};

/// The size in bytes of a receive buffer, as [`regs::RCTL`] says it.
pub(crate) const BUFFER_SIZE: usize = 2048;

/// How many addresses the device compares with those of frames.
pub(crate) const ADDRESSES: usize = 16;

/// How many descriptors a ring may have: the members of the family have this maximum in common.
const RING_LENGTHS: core::ops::RangeInclusive<u32> = RING_UNIT..=4096;

/// The number of descriptors is a multiple of this: the length in bytes is one of 128.
const RING_UNIT: u32 = 8;

/// The address of a ring is a multiple of this.
const RING_ALIGNMENT: u64 = 16;

/// How long a frame that is being moved may take: what Linux's driver waits, too.
const LAST_FRAME: Delta = Delta::from_millis(10);

/// The registers that have to do with memory, by the manual.
pub(crate) struct Aiming;

// SAFETY: By the manual, the device finds descriptors by the base, length, head and tail registers
// of the two rings, from 0x2800 and 0x3800 on, or at the places that these had in the first members
// of the family (from 0x110 and 0x420 on), and moves data if `RCTL` and `TCTL` say so. Others that
// are there set thresholds and delays. `VET` is not one of them, but is how we know the device.
unsafe impl RegisterRanges for Aiming {
    const RANGES: &'static [core::ops::Range<usize>] = &[
        0x038..0x03c,
        0x100..0x200,
        0x400..0x410,
        0x420..0x450,
        0x2800..0x2820,
        0x3800..0x3820,
    ];
}

/// A device and all of its registers, which its parts share.
#[derive(Clone, Copy)]
struct Hardware<'a> {
    dev: &'a Device<Bound>,
    dma: Mapper<'a>,
    registers: Mmio<'a, Region<SIZE>>,
}

/// What there is of a device, once.
pub(crate) struct Parts<'a> {
    pub(crate) transmitter: TxQueue<'a>,
    pub(crate) receiver: RxQueue<'a>,
    pub(crate) stopper: Stopper<'a>,
    pub(crate) interrupts: Interrupts<'a>,
    pub(crate) control: Control<'a>,
}

/// Claims a device. It may still hold addresses of an earlier driver, until it is disarmed: see
/// [`Quiesce::disarm`].
///
/// Context: may sleep.
///
/// # Errors
///
/// [`EBUSY`] if it is claimed, [`ENODEV`] if it isn't there, [`EINVAL`] if its driver has no
/// constraints; [`ENOMEM`].
pub(crate) fn claim<'a>(pdev: &pci::Device<Core<'a>>) -> Result<Parts<'a>> {
    let dev: &Device<Core<'a>> = pdev.as_ref();
    // The PCI core gives them to one only, until unbind.
    let bar = pdev.bound().iomap_region_sized(0, c"dma_rs_e1000")?;

    // SAFETY: Only members of the family are probed; the registers are in their first BAR.
    let (aiming, regs) = unsafe { DmaRegisters::<Aiming, SIZE>::divide(pdev, bar) }?;

    let hardware = Hardware {
        dev: dev.bound(),
        dma: Mapper::get(dev.bound())?,
        // SAFETY: It stays in this file, whose other safety comments say what is written.
        registers: unsafe { aiming.io() },
    };

    if hardware.registers.read(regs::STATUS).into_raw() == u32::MAX {
        return Err(ENODEV);
    }

    Ok(Parts {
        transmitter: TxQueue(hardware),
        receiver: RxQueue {
            hardware,
            promiscuous: false,
        },
        stopper: Stopper(hardware),
        interrupts: Interrupts(hardware),
        control: Control { regs, hardware },
    })
}

impl Hardware<'_> {
    /// Returns whether the device is there: `VET` holds what `disarm` wrote.
    ///
    /// A device that was unplugged reads as all ones, and in some machines as zeros.
    fn is_there(&self) -> bool {
        self.registers.read(regs::VET).into_raw() == u32::from(regs::VLAN)
    }

    /// Takes back the interrupts that were raised, and returns them; none if there weren't any.
    #[inline]
    fn take_interrupts(&self) -> Option<regs::ICR> {
        let causes = self.registers.read(regs::ICR);

        is_raised(causes.into_raw()).then_some(causes)
    }

    fn mask_interrupts(&self) {
        self.registers.write_reg(regs::IMC::from(u32::MAX));
    }

    /// Switches receiver and transmitter off; returns whether they are, of a device that is there.
    ///
    /// Context: may sleep.
    fn disable(&self) -> bool {
        let registers = self.registers;

        registers.write_reg(regs::RCTL::zeroed());
        registers.write_reg(regs::TCTL::zeroed());
        // What is on its way into the device or out of it goes on to the end of the frame.
        registers.read(regs::STATUS);
        fsleep(LAST_FRAME);

        let receives = registers.read(regs::RCTL).en();
        let transmits = registers.read(regs::TCTL).en();

        // Only now: if the device went away before or meanwhile, this sees it.
        self.is_there() && !receives && !transmits
    }
}

/// Returns whether the device has raised an interrupt, if [`regs::ICR`] reads so.
#[inline]
pub(crate) fn is_raised(causes: u32) -> bool {
    // All ones: there is no device any more.
    causes != 0 && causes != u32::MAX
}

/// All of the device that has nothing to do with memory: its other registers, by way of
/// [`PlainRegisters`].
#[derive(Clone, Copy)]
pub(crate) struct Control<'a> {
    regs: PlainRegisters<'a, Aiming, SIZE>,
    hardware: Hardware<'a>,
}

impl<'a> core::ops::Deref for Control<'a> {
    type Target = PlainRegisters<'a, Aiming, SIZE>;

    #[inline]
    fn deref(&self) -> &Self::Target {
        &self.regs
    }
}

impl Control<'_> {
    /// Returns head and tail of the transmit ring, as the device has them.
    pub(crate) fn tx_indexes(&self) -> (u32, u32) {
        let registers = self.hardware.registers;

        (
            registers.read(regs::TDH).into_raw(),
            registers.read(regs::TDT).into_raw(),
        )
    }

    /// Returns head and tail of the receive ring, as the device has them.
    pub(crate) fn rx_indexes(&self) -> (u32, u32) {
        let registers = self.hardware.registers;

        (
            registers.read(regs::RDH).into_raw(),
            registers.read(regs::RDT).into_raw(),
        )
    }

    /// Writes the registers that have nothing to do with memory. `mac` is the address by which
    /// frames are filtered, `itr` the least time between interrupts, in units of 256 ns.
    pub(crate) fn configure(&self, mac: [u8; 6], vlan: bool, itr: u16) {
        self.set_vlan(vlan);
        self.set_address(0, Some(mac));
        (1..ADDRESSES).for_each(|number| self.set_address(number, None));
        self.clear_multicast();
        self.write_reg(regs::RXCSUM::zeroed());
        self.write_reg(regs::RDTR::zeroed());
        self.set_interval(itr);
        // As section 13.4.34 of the manual proposes.
        self.write_reg(
            regs::TIPG::zeroed()
                .with_const_ipgt::<10>()
                .with_const_ipgr1::<8>()
                .with_const_ipgr2::<6>(),
        );
    }

    /// Sets the least time between interrupts, in units of 256 ns.
    pub(crate) fn set_interval(&self, itr: u16) {
        self.write_reg(regs::ITR::zeroed().with_interval(itr));
    }

    /// Lets the device insert and strip VLAN tags, or leave frames as they are. It is told to look
    /// for a link, too.
    pub(crate) fn set_vlan(&self, on: bool) {
        let control = self.read(regs::CTRL);

        self.write_reg(control.with_slu(true).with_asde(true).with_vme(on));
    }

    /// Sets one of the [addresses](ADDRESSES) of which the device receives frames. Number 0 is its
    /// own.
    pub(crate) fn set_address(&self, number: usize, address: Option<[u8; 6]>) {
        let (low, high) = match address {
            Some([a, b, c, d, e, f]) => (
                u32::from_le_bytes([a, b, c, d]),
                u32::from_le_bytes([e, f, 0, 0]),
            ),
            None => (0, 0),
        };

        let (at, after) = (2 * number, 2 * number + 1);

        // In between it is none.
        for (at, bits) in [
            (after, regs::RA::zeroed()),
            (at, regs::RA::from(low)),
            (after, regs::RA::from(high).with_av(address.is_some())),
        ] {
            if let Some(location) = regs::RA::try_at(at) {
                self.write(location, bits);
            }
        }
    }

    /// Has the receiver take all frames, or all to groups, until it is started anew. Does nothing
    /// if the device doesn't run. Context: any.
    pub(crate) fn receive_all(&self, all: bool, groups: bool) {
        let registers = self.hardware.registers;

        // Nobody stops the device meanwhile: a receiver that was switched off stays so.
        let Ok(_running) = self.hardware.dma.running() else {
            return;
        };

        // Only whether it receives is taken from there: nothing else that the device says, or a bus
        // error, gets into the register. For a second after each write, QEMU receives nothing.
        let old = registers.read(regs::RCTL);
        let new = receive_control(all, groups);

        if old.en() && new.into_raw() != old.into_raw() && self.hardware.is_there() {
            registers.write_reg(new);
        }
    }

    /// Clears the filter for multicast addresses.
    fn clear_multicast(&self) {
        for i in 0..128 {
            if let Some(location) = regs::MTA::try_at(i) {
                self.write(location, regs::MTA::zeroed());
            }
        }
    }

    /// Lets the device interrupt.
    #[inline]
    pub(crate) fn unmask_interrupts(&self) {
        self.write_reg(
            regs::IMS::zeroed()
                .with_rxt0(true)
                .with_rxo(true)
                .with_rxdmt0(true)
                .with_lsc(true)
                .with_txdw(true),
        );
    }

    /// Lets the device interrupt no more, and takes back what it raised.
    pub(crate) fn silence(&self) {
        self.hardware.mask_interrupts();
        self.hardware.take_interrupts();
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

    /// In a handler: takes back what was raised, and masks all; returns what it was. None if that
    /// was another device on the line.
    #[inline]
    pub(crate) fn take(&self) -> Option<regs::ICR> {
        let causes = self.0.take_interrupts()?;

        self.0.mask_interrupts();
        Some(causes)
    }
}

/// The interrupt handler: it wakes the threads that wait. They unmask interrupts before they wait
/// again.
pub(crate) struct IrqHandler<'a> {
    interrupts: Interrupts<'a>,
    waiters: Arc<WaitQueue>,
}

impl irq::Handler for IrqHandler<'_> {
    fn handle(&self) -> irq::IrqReturn {
        if self.interrupts.take().is_none() {
            // Another device on the line.
            return irq::IrqReturn::None;
        }

        self.waiters.wake_all();
        irq::IrqReturn::Handled
    }
}

/// How a device is stopped.
pub(crate) struct Stopper<'a>(Hardware<'a>);

// SAFETY: By the numbers of the contract; sections are those of the manual.
// 1. The registers are those of `dev`: `claim()` has mapped its first BAR.
// 2. The receiver works only while `RCTL.EN` is set, the transmitter only while `TCTL.EN` is
//    (13.4.22, 13.4.33). Only this file writes these registers, and sets neither bit but in
//    `RingRegisters::start()`, and in `receive_all()` where it was set already, and nobody stops
//    the device meanwhile. `disable()` clears both, gives the frame that is on its way time to end,
//    and then reads that they are clear. `disarm` also empties both rings (head and tail are equal)
//    and clears where they are, so that not even enabling them would make the device access memory.
//    That a reset (`CTRL.RST`) would do, QEMU doesn't.
// 3. What the device wrote comes before the answers to the reads of `RCTL` and `TCTL`, on the same
//    bus. QEMU moves frames whole, and not while it carries out these accesses.
// 4. Both ask `is_there()` after the last of these reads.
// 5. `quiesce` says `Stopped` only after the same observation as `disarm`.
// 6. It never says `Gone`.
// 7. The device is a function of its own with one requester ID. In QEMU it reaches memory through
//    `pci_dma_*()` functions only, which move nothing while bus mastering is off; it bears that.
// 8. Base registers and descriptors have 64 address bits (3.2.3, 3.4). What a descriptor can name
//    at most, `TxDescriptor` says; `RxDescriptor` and `place()` refuse what doesn't suit.
// 9. Both end after `LAST_FRAME`, and know no session.
unsafe impl Quiesce for Stopper<'_> {
    const HEEDS_BUS: bool = true;

    fn device(&self) -> &Device {
        self.0.dev
    }

    fn limits(&self) -> Constraints {
        Constraints::new(DmaMask::new::<64>())
    }

    fn disarm(&mut self) -> Result {
        let registers = self.0.registers;

        self.0.mask_interrupts();
        registers.write_reg(regs::VET::from(u32::from(regs::VLAN)));

        if !self.0.disable() {
            return Err(ENODEV);
        }

        registers.write_reg(regs::RDT::zeroed());
        registers.write_reg(regs::RDH::zeroed());
        registers.write_reg(regs::RDLEN::zeroed());
        registers.write_reg(regs::RDBAL::zeroed());
        registers.write_reg(regs::RDBAH::zeroed());
        registers.write_reg(regs::TDT::zeroed());
        registers.write_reg(regs::TDH::zeroed());
        registers.write_reg(regs::TDLEN::zeroed());
        registers.write_reg(regs::TDBAL::zeroed());
        registers.write_reg(regs::TDBAH::zeroed());
        self.0.take_interrupts();

        // If the device went meanwhile, the above didn't reach it. No test notices if this isn't
        // asked: it would have to take the device away after `disable`, which asks too.
        if !self.0.is_there() {
            return Err(ENODEV);
        }

        Ok(())
    }

    fn quiesce(&self) -> StopOutcome {
        if self.0.disable() {
            StopOutcome::Stopped
        } else {
            StopOutcome::Unproven
        }
    }
}

/// Splits the place of a ring of `len` descriptors into what the registers take: the lower and the
/// upper half of its base, and its length in bytes.
///
/// # Errors
///
/// [`EINVAL`] if the device can't have such a ring.
pub(crate) fn place(base: u64, len: u32) -> Result<(u32, u32, u32)> {
    if !RING_LENGTHS.contains(&len) || len % RING_UNIT != 0 || base % RING_ALIGNMENT != 0 {
        return Err(EINVAL);
    }

    // CAST: The lower half; the upper half; at most 64 KiB.
    Ok((
        base as u32,
        (base >> 32) as u32,
        len * size_of::<TxDescriptor>() as u32,
    ))
}

/// The transmitter.
pub(crate) struct TxQueue<'a>(Hardware<'a>);

// SAFETY: By the numbers of the contract; sections are those of the manual.
// 1. The registers are those of `dev`: `claim()` has mapped its first BAR.
// 2. The device takes the ring to be `TDLEN` bytes at `TDBAL` and `TDBAH` (3.4), and processes the
//    descriptors from `TDH` on in order, up to the one before `TDT`. Both are zero until the first
//    `doorbell`, and `TCTL.EN` is written last.
// 3. When it writes `DD` back, it has fetched all of the frame (see `TxDescriptor`). It looks at
//    descriptors once, as `TDT` passes them.
// 4. There are no own bits.
// 5. All that can fail in `start` does so before the first write.
// 6. `write_reg()` is ordered after earlier writes to memory, as `writel()` is.
// 7. There is one for a device: only `claim` makes one, and it does so once.
unsafe impl RingRegisters for TxQueue<'_> {
    type Descriptor = TxDescriptor;
    type Direction = ToDevice;
    const PUBLISH: Publish = Publish::Tail;

    fn device(&self) -> &Device {
        self.0.dev
    }

    fn start(&mut self, ring: RingMemory<'_>) -> Result {
        let registers = self.0.registers;
        // SAFETY: The device accesses the ring until it is stopped, as it was when the ring began.
        let base: u64 = unsafe { ring.memory.to_bits(ring.running) };
        let (low, high, len) = place(base, ring.len)?;

        registers.write_reg(regs::TDBAL::from(low));
        registers.write_reg(regs::TDBAH::from(high));
        registers.write_reg(regs::TDLEN::from(len));
        registers.write_reg(regs::TDH::zeroed());
        registers.write_reg(regs::TDT::zeroed());
        // Collision threshold and distance as 13.4.33 proposes for full duplex.
        registers.write_reg(
            regs::TCTL::zeroed()
                .with_const_ct::<0x10>()
                .with_const_cold::<0x40>()
                .with_psp(true)
                .with_en(true),
        );
        Ok(())
    }

    #[inline]
    fn doorbell(&mut self, tail: Tail) {
        self.0.registers.write_reg(regs::TDT::from(tail.index()));
    }
}

/// The receiver.
pub(crate) struct RxQueue<'a> {
    hardware: Hardware<'a>,
    /// Whether it takes frames for others, too, from the next start on.
    pub(crate) promiscuous: bool,
}

// SAFETY: By the numbers of the contract; sections are those of the manual.
// 1. As for `TxQueue`.
// 2. As for `TxQueue`: `RDLEN` bytes at `RDBAL` and `RDBAH` (3.2.6), from `RDH` up to `RDT`, both
//    zero until the first `doorbell`; `RCTL` is written last. `RCTL` says that buffers have 2048
//    bytes, which is what `RxDescriptor` demands.
// 3. A descriptor whose `DD` is set was processed, and so were those before it. As for `TxQueue`,
//    the device looks at it once.
// 4. There are no own bits.
// 5., 6., 7. As for `TxQueue`.
unsafe impl RingRegisters for RxQueue<'_> {
    type Descriptor = RxDescriptor;
    type Direction = FromDevice;
    const PUBLISH: Publish = Publish::Tail;

    fn device(&self) -> &Device {
        self.hardware.dev
    }

    fn start(&mut self, ring: RingMemory<'_>) -> Result {
        let registers = self.hardware.registers;
        // SAFETY: As in `TxQueue`.
        let base: u64 = unsafe { ring.memory.to_bits(ring.running) };
        let (low, high, len) = place(base, ring.len)?;

        registers.write_reg(regs::RDBAL::from(low));
        registers.write_reg(regs::RDBAH::from(high));
        registers.write_reg(regs::RDLEN::from(len));
        registers.write_reg(regs::RDH::zeroed());
        registers.write_reg(regs::RDT::zeroed());
        // Once: for a second after each write, QEMU receives nothing.
        registers.write_reg(receive_control(self.promiscuous, self.promiscuous));
        Ok(())
    }

    #[inline]
    fn doorbell(&mut self, tail: Tail) {
        self.hardware
            .registers
            .write_reg(regs::RDT::from(tail.index()));
    }
}

/// A receiver that works, with buffers of 2048 bytes (`BSIZE` and `BSEX` are zero): it takes frames
/// without their checksum, long ones, broadcasts, and if asked to all frames, or all to groups.
fn receive_control(all: bool, groups: bool) -> regs::RCTL {
    regs::RCTL::zeroed()
        .with_secrc(true)
        .with_bam(true)
        .with_lpe(true)
        .with_upe(all)
        .with_mpe(all || groups)
        .with_en(true)
}

/// In the status byte of descriptors: the device is done.
const DD: u32 = 1 << 0;

/// A transmit descriptor: of the data (3.3.7), or of what is to be done to it (3.3.6).
#[derive(Clone, Copy, FromBytes, IntoBytes)]
#[repr(C)]
pub(crate) struct TxDescriptor {
    /// The address, or where checksums are.
    buffer: u64,
    /// `DTALEN`, `DTYP`, `DCMD`.
    command: u32,
    /// `STA`, `POPTS`, `SPECIAL`.
    status: u32,
}

const DTYP_DATA: u32 = 1 << 20;
const EOP: u32 = 1 << 24;
const IFCS: u32 = 1 << 25;
/// In data: the frame is divided as the last context says. In a context: it says so.
const TSE: u32 = 1 << 26;
/// In a context: the frames are of TCP, and of IPv4.
const TCP: u32 = 1 << 24;
const IP: u32 = 1 << 25;
const RS: u32 = 1 << 27;
const DEXT: u32 = 1 << 29;
const VLE: u32 = 1 << 30;
const IXSM: u32 = 1 << 8;
const TXSM: u32 = 1 << 9;

/// What is to be done with a frame, or a segment of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum TxOptions {
    /// To be sent. All segments of a frame say the same.
    Data(Data),
    /// Where checksums are in the frames that follow: without memory.
    Context(Context),
}

/// What the device inserts into a frame.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Data {
    /// Whether it inserts the checksums that the last context names.
    pub(crate) ip_checksum: bool,
    pub(crate) transport_checksum: bool,
    /// Whether it divides the frame as the last context says.
    pub(crate) segmented: bool,
    /// A VLAN tag, if [`regs::CTRL`] allows.
    pub(crate) vlan: Option<u16>,
}

/// Where checksums are.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Context {
    pub(crate) ip: Checksum,
    pub(crate) transport: Checksum,
    /// How frames are to be divided, if they are.
    pub(crate) segments: Option<Segments>,
}

/// How a frame of TCP over IPv4 is divided.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Segments {
    /// How long all headers are together.
    pub(crate) headers: u8,
    /// How much payload there is, in bytes, and how much goes into each frame.
    pub(crate) payload: u32,
    pub(crate) size: u16,
}

impl Segments {
    /// Returns what of it is in the command, and in the status.
    fn bits(self) -> (u32, u32) {
        (
            TSE | TCP | IP | self.payload & 0xf_ffff,
            u32::from(self.headers) << 8 | u32::from(self.size) << 16,
        )
    }
}

/// A checksum over a part of a frame. Offsets in bytes, from the start of the frame.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Checksum {
    /// Where it begins.
    pub(crate) start: u8,
    /// Where it goes.
    pub(crate) offset: u8,
    /// The last byte; zero is the end of the frame.
    pub(crate) end: u16,
}

impl Checksum {
    fn bits(self) -> u64 {
        u64::from(self.start) | u64::from(self.offset) << 8 | u64::from(self.end) << 16
    }
}

impl TxDescriptor {
    /// Describes a segment of a frame, by its address and length, or tells the device something.
    /// The length is not over `MAX_LEN`: a ring refuses longer segments.
    #[inline]
    pub(crate) fn of(memory: Option<(u64, usize)>, options: TxOptions, last: bool) -> Self {
        let last = if last { EOP | RS } else { 0 };

        let (buffer, command, status) = match options {
            TxOptions::Context(context) => {
                let bits = context.ip.bits() | context.transport.bits() << 32;

                let (command, status) = context.segments.map_or((0, 0), Segments::bits);

                // There is no `EOP` in it: the frame is the next one.
                (bits, DEXT | (last & RS) | command, status)
            }
            TxOptions::Data(data) => {
                let (address, len) = memory.unwrap_or((0, 0));
                // CAST: Less than 2^20.
                let len = len as u32;

                let mut command = len | DTYP_DATA | DEXT | IFCS | last;
                let mut status = 0;

                if data.ip_checksum {
                    status |= IXSM;
                }
                if data.transport_checksum {
                    status |= TXSM;
                }
                if data.segmented {
                    command |= TSE;
                }
                if let Some(tag) = data.vlan {
                    command |= VLE;
                    status |= u32::from(tag) << 16;
                }

                (address, command, status)
            }
        };

        Self {
            buffer: buffer.to_le(),
            command: command.to_le(),
            status: status.to_le(),
        }
    }
}

// SAFETY: By the numbers of the contract; sections are those of the manual.
// 1. A data descriptor names the buffer and its length, which is not over `MAX_LEN` and so fits
//    into its 20 bits, and the device reads it. Without a buffer its length is zero, and there is
//    nothing to read. A context descriptor names no memory. A frame that is divided is read once,
//    into the device, whatever the context says of its lengths.
// 2. `RS` is set in the last descriptor of a frame: when the device has fetched the frame, it
//    writes `DD` to the last word of that descriptor (3.3.3), where it is clear as made here. It
//    processes descriptors in order.
// 3. There are no own bits.
unsafe impl Descriptor for TxDescriptor {
    type Options = TxOptions;
    const STATUS: usize = 12;
    const MAX_LEN: usize = (1 << 20) - 1;

    #[inline]
    fn new(info: DescriptorInfo<'_, TxOptions>) -> Result<Self> {
        let memory = info.address().map(|address| (address, info.len()));

        Ok(Self::of(memory, info.options, info.last))
    }

    #[inline]
    fn is_done(status: u32) -> bool {
        status & DD != 0
    }
}

/// A receive descriptor (3.2.3).
#[derive(Clone, Copy, FromBytes, IntoBytes)]
#[repr(C)]
pub(crate) struct RxDescriptor {
    buffer: u64,
    /// The length, and a checksum.
    len: u32,
    /// Status, errors, special.
    status: u32,
}

const RX_EOP: u32 = 1 << 1;
const RX_IXSM: u32 = 1 << 2;
const RX_VP: u32 = 1 << 3;
const RX_TCPCS: u32 = 1 << 5;
const RX_IPCS: u32 = 1 << 6;
/// All of the error byte but the two about checksums.
const RX_ERRORS: u32 = 0x97 << 8;
const RX_TCPE: u32 = 1 << 13;
const RX_IPE: u32 = 1 << 14;

/// What the device says of a checksum in a frame.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Verdict {
    /// It didn't look.
    Unknown,
    Good,
    Bad,
}

impl RxDescriptor {
    /// Names `len` bytes at `address`, if that is enough for the device; otherwise nothing.
    #[inline]
    pub(crate) fn of(address: u64, len: usize) -> Self {
        let buffer = if len >= BUFFER_SIZE { address } else { 0 };

        Self {
            buffer: buffer.to_le(),
            len: 0,
            status: 0,
        }
    }

    fn status(&self) -> u32 {
        u32::from_le(self.status)
    }

    /// Returns whether the frame is damaged.
    #[inline]
    pub(crate) fn is_damaged(&self) -> bool {
        self.status() & RX_ERRORS != 0
    }

    /// Returns the VLAN tag that the device took out of the frame.
    #[inline]
    pub(crate) fn vlan(&self) -> Option<u16> {
        // CAST: The upper half.
        (self.status() & RX_VP != 0).then_some((self.status() >> 16) as u16)
    }

    /// Returns what the device says of the checksums of IP, and of TCP or UDP.
    pub(crate) fn checksums(&self) -> (Verdict, Verdict) {
        let status = self.status();
        let verdict = |checked: u32, wrong: u32| {
            if status & RX_IXSM != 0 || status & checked == 0 {
                Verdict::Unknown
            } else if status & wrong != 0 {
                Verdict::Bad
            } else {
                Verdict::Good
            }
        };

        (verdict(RX_IPCS, RX_IPE), verdict(RX_TCPCS, RX_TCPE))
    }
}

// SAFETY: By the numbers of the contract; sections are those of the manual.
// 1. The descriptor names the buffer only if it is as long as `RCTL` says that buffers are: then
//    the device writes up to that many bytes there. Otherwise it names none (a null address), and
//    the device skips it.
// 2. The device sets `DD`, in the last word, when it has written the buffer (3.2.3.1); it is clear
//    as made here.
// 3. There are no own bits.
unsafe impl Descriptor for RxDescriptor {
    type Options = ();
    const STATUS: usize = 12;

    #[inline]
    fn new(info: DescriptorInfo<'_, ()>) -> Result<Self> {
        Ok(Self::of(info.address().unwrap_or(0), info.len()))
    }

    #[inline]
    fn is_done(status: u32) -> bool {
        status & DD != 0
    }
}

impl ReceiveDescriptor for RxDescriptor {
    #[inline]
    fn received(&self) -> Received {
        Received {
            // CAST: Widening, of the lower half.
            len: Length::Segment(Untrusted::new((u32::from_le(self.len) & 0xffff) as usize)),
            last: self.status() & RX_EOP != 0,
            verdict: if self.is_damaged() {
                ring::Verdict::Bad
            } else {
                ring::Verdict::Good
            },
        }
    }
}

/// What the registers hold that [`Control`] doesn't lead to, for tests.
#[cfg(CONFIG_DMA_RS_E1000_KUNIT_TEST)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Aimed {
    pub(crate) vet: u32,
    pub(crate) rctl: u32,
    pub(crate) tctl: u32,
    /// Base, lower half first, length in bytes, head and tail of the receive ring.
    pub(crate) rx: [u32; 5],
    /// The same of the transmit ring.
    pub(crate) tx: [u32; 5],
}

#[cfg(CONFIG_DMA_RS_E1000_KUNIT_TEST)]
impl Control<'_> {
    /// Has a receiver that works take no long frames, and keep the checksums.
    pub(crate) fn change_receiver(&self) {
        let registers = self.hardware.registers;
        let old = registers.read(regs::RCTL);

        registers.write_reg(old.with_lpe(false).with_secrc(false));
    }

    /// Returns where the device is aimed.
    pub(crate) fn aimed(&self) -> Aimed {
        let registers = self.hardware.registers;

        Aimed {
            vet: registers.read(regs::VET).into_raw(),
            rctl: registers.read(regs::RCTL).into_raw(),
            tctl: registers.read(regs::TCTL).into_raw(),
            rx: [
                registers.read(regs::RDBAL).into_raw(),
                registers.read(regs::RDBAH).into_raw(),
                registers.read(regs::RDLEN).into_raw(),
                registers.read(regs::RDH).into_raw(),
                registers.read(regs::RDT).into_raw(),
            ],
            tx: [
                registers.read(regs::TDBAL).into_raw(),
                registers.read(regs::TDBAH).into_raw(),
                registers.read(regs::TDLEN).into_raw(),
                registers.read(regs::TDH).into_raw(),
                registers.read(regs::TDT).into_raw(),
            ],
        }
    }
}

#[cfg(CONFIG_DMA_RS_E1000_KUNIT_TEST)]
impl Stopper<'_> {
    /// Leaves the device as a driver may that went without a stop: with rings, and switched on; and
    /// with `vet`, by which we know it or don't. For tests of what becomes of it.
    ///
    /// There is nothing for the device to do: both rings are empty. And a device whose parts were
    /// just claimed has no bus mastering.
    pub(crate) fn scribble(&self, vet: u16) {
        let registers = self.0.registers;

        registers.write_reg(regs::VET::from(u32::from(vet)));
        registers.write_reg(regs::RDBAL::from(0x1000));
        registers.write_reg(regs::RDBAH::from(2));
        registers.write_reg(regs::RDLEN::from(0x100));
        registers.write_reg(regs::RDH::from(3));
        registers.write_reg(regs::RDT::from(3));
        registers.write_reg(regs::TDBAL::from(0x2000));
        registers.write_reg(regs::TDBAH::from(4));
        registers.write_reg(regs::TDLEN::from(0x180));
        registers.write_reg(regs::TDH::from(5));
        registers.write_reg(regs::TDT::from(5));
        registers.write_reg(regs::RCTL::zeroed().with_en(true));
        registers.write_reg(regs::TCTL::zeroed().with_en(true));
    }
}
