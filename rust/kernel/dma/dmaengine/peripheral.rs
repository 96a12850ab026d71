// SPDX-License-Identifier: GPL-2.0

//! Transfers between memory and a peripheral, which is called a slave in C.

use super::{
    super::{
        Buffer,
        OneWay,
        Scatter,
        ScatterBox,
        ScatterMap,
        Streaming,
        StreamingBox, //
    },
    submitted::{
        Describe,
        Target, //
    },
    Transfer, //
};
use crate::{
    bindings,
    io::PhysAddr,
    prelude::*, //
};
use core::ops::Range;

/// How much a FIFO takes or gives at a time (C: `enum dma_slave_buswidth`).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Width {
    /// Bytes.
    Bytes1,
    /// Words of two bytes.
    Bytes2,
    /// Words of four bytes.
    Bytes4,
    /// Words of eight bytes.
    Bytes8,
}

impl Width {
    fn as_raw(self) -> bindings::dma_slave_buswidth {
        match self {
            Self::Bytes1 => bindings::dma_slave_buswidth_DMA_SLAVE_BUSWIDTH_1_BYTE,
            Self::Bytes2 => bindings::dma_slave_buswidth_DMA_SLAVE_BUSWIDTH_2_BYTES,
            Self::Bytes4 => bindings::dma_slave_buswidth_DMA_SLAVE_BUSWIDTH_4_BYTES,
            Self::Bytes8 => bindings::dma_slave_buswidth_DMA_SLAVE_BUSWIDTH_8_BYTES,
        }
    }
}

/// The FIFO of a peripheral, as the engine is to access it (C: `struct dma_slave_config`).
///
/// Each transfer brings its own, so there is no channel that somebody forgot to configure, or that
/// somebody configured anew in the meantime. C does the same, since `dmaengine_prep_config_sg()`.
///
/// # Examples
///
/// ```
/// # use kernel::io::PhysAddr;
/// use kernel::dma::dmaengine::{Peripheral, Width};
///
/// /// # Safety
/// ///
/// /// `base` must be where the registers of a bound UART are.
/// unsafe fn transmit_register(base: PhysAddr) -> Peripheral {
///     // SAFETY:
///     // 1. It is the transmit register: what is written to it goes out of the port, and nowhere
///     //    else.
///     // 2. It has eight bits, and what is around it isn't touched.
///     // 3. The engine is given it for transfers of the driver of the UART.
///     unsafe { Peripheral::new(base + 0x20, Width::Bytes1) }.burst(8)
/// }
/// ```
#[derive(Clone, Copy)]
pub struct Peripheral {
    address: PhysAddr,
    width: Width,
    burst: u32,
}

impl Peripheral {
    /// Names the register, by its physical address, at which the FIFO is read or written.
    ///
    /// # Safety
    ///
    /// The engine may access it whenever a transfer with the result is in flight.
    ///
    /// 1. There must be a register that carries data. It must not aim the peripheral's own DMA, or
    ///    otherwise make it access memory that isn't its own.
    /// 2. Accesses of `width` at `address` must touch nothing else.
    /// 3. The register must be there as long as the client's device is bound.
    pub const unsafe fn new(address: PhysAddr, width: Width) -> Self {
        Self {
            address,
            width,
            burst: 1,
        }
    }

    /// Sets how many words the FIFO takes or gives in a row, at most. 1 if it isn't given.
    pub const fn burst(mut self, words: u32) -> Self {
        self.burst = words;
        self
    }

    /// Returns it as C takes it.
    pub(super) fn to_config<D: OneWay>(self) -> bindings::dma_slave_config {
        let mut config: bindings::dma_slave_config = pin_init::zeroed();

        config.direction = transfer_direction::<D>();

        if D::DEVICE_WRITES {
            config.src_addr = self.address;
            config.src_addr_width = self.width.as_raw();
            config.src_maxburst = self.burst;
        } else {
            config.dst_addr = self.address;
            config.dst_addr_width = self.width.as_raw();
            config.dst_maxburst = self.burst;
        }

        config
    }
}

/// Returns the direction as C calls it.
pub(super) fn transfer_direction<D: OneWay>() -> bindings::dma_transfer_direction {
    if D::DEVICE_WRITES {
        bindings::dma_transfer_direction_DMA_DEV_TO_MEM
    } else {
        bindings::dma_transfer_direction_DMA_MEM_TO_DEV
    }
}

/// Refuses a channel that doesn't serve peripherals.
fn check_slave(target: &Target<'_>) -> Result {
    // SAFETY: The channel is requested.
    if unsafe { bindings::dmaengine_can_do(target.chan, bindings::dma_transaction_type_DMA_SLAVE) }
    {
        Ok(())
    } else {
        Err(EOPNOTSUPP)
    }
}

/// A transfer of one buffer to or from a [`Peripheral`], by the direction of the buffer
/// (C: `dmaengine_prep_config_single()`).
///
/// # Examples
///
/// ```
/// # use kernel::{dma::{dmaengine::{Channel, Peripheral, Slave}, FromDevice, Streaming}};
/// # use kernel::{prelude::*, time::Delta};
/// /// Receives up to 256 bytes. The peripheral may end the transfer sooner.
/// fn receive(channel: &Channel<'_>, fifo: Peripheral) -> Result<KVec<u8>> {
///     let buf = KVec::from_elem(0, 256, GFP_KERNEL)?;
///     let buf = Streaming::<_, FromDevice>::map(channel.mapper(), buf)?;
///     let received = channel.submit(Slave::new(buf, fifo))?.wait(Delta::from_secs(1))?;
///     let len = received.bytes().len();
///     let mut bytes = received.unmap();
///
///     bytes.truncate(len);
///     Ok(bytes)
/// }
/// ```
pub struct Slave<'c, B: Buffer, D: OneWay> {
    buf: Streaming<'c, B, D>,
    range: Range<usize>,
    peripheral: Peripheral,
}

impl<'c, B: Buffer, D: OneWay> Slave<'c, B, D> {
    /// All of a buffer.
    pub fn new(buf: Streaming<'c, B, D>, peripheral: Peripheral) -> Self {
        let len = buf.len();

        Self::of(buf, 0..len, peripheral)
    }

    /// A part of a buffer. What isn't inside of it is refused by
    /// [`submit`](super::Channel::submit).
    pub fn of(buf: Streaming<'c, B, D>, range: Range<usize>, peripheral: Peripheral) -> Self {
        Self {
            buf,
            range,
            peripheral,
        }
    }

    /// Returns the buffer, for instance of a transfer that was refused.
    pub fn into_buffer(self) -> Streaming<'c, B, D> {
        self.buf
    }
}

// SAFETY:
// 1. The descriptor is about a part of the buffer, which stays mapped until it is dropped or
//    completed.
// 2. `check()` looks at it.
// 3. `set_shown()` notes it.
unsafe impl<'c, B: Buffer, D: OneWay> Describe for Slave<'c, B, D> {
    type Memory = StreamingBox<'c, B, D>;

    fn check(&mut self, target: &Target<'_>) -> Result {
        if !self.buf.dma().has_record(target.record) {
            return Err(EINVAL);
        }

        check_slave(target)?;

        if self.buf.was_shown() {
            return Err(EINVAL);
        }

        self.buf.address_unshown().slice(self.range.clone())?;
        Ok(())
    }

    unsafe fn prepare(
        &self,
        chan: *mut bindings::dma_chan,
        flags: c_ulong,
    ) -> *mut bindings::dma_async_tx_descriptor {
        let Ok(part) = self.buf.address_unshown().slice(self.range.clone()) else {
            return core::ptr::null_mut();
        };
        let mut config = self.peripheral.to_config::<D>();

        // SAFETY: By the safety requirements the channel is requested. The address is that of
        // mapped memory of its device. By the contract of `Peripheral::new()` the engine may access
        // the peripheral.
        unsafe {
            bindings::dmaengine_prep_config_single(
                chan,
                part.bits(),
                part.len(),
                transfer_direction::<D>(),
                flags,
                &mut config,
            )
        }
    }

    fn len(&self) -> usize {
        self.range.len()
    }

    fn set_shown(&mut self) {
        self.buf.set_shown();
    }

    unsafe fn complete(self, moved: usize) -> Self::Memory {
        let start = self.range.start;

        // SAFETY: By the safety requirements the engine is done, and no more was moved than is in
        // the range. `check()` has found that this is inside the buffer.
        unsafe { self.buf.complete(start..start + moved) }
    }
}

impl<'c, B: Buffer, D: OneWay> Transfer<'c> for Slave<'c, B, D> {}

/// A transfer of memory in pieces to or from a [`Peripheral`], by the direction of the list
/// (C: `dmaengine_prep_config_sg()`).
///
/// # Examples
///
/// ```
/// # use kernel::{dma::{dmaengine::{Channel, Peripheral, SlaveList}, ScatterMap, ToDevice}};
/// # use kernel::{prelude::*, time::Delta};
/// /// Sends a megabyte, which need not be contiguous in memory.
/// fn send(channel: &Channel<'_>, fifo: Peripheral, data: VVec<u8>) -> Result<VVec<u8>> {
///     let list = ScatterMap::<_, ToDevice>::map(channel.mapper(), data, GFP_KERNEL)?;
///     let sent = channel.submit(SlaveList::new(list, fifo))?.wait(Delta::from_secs(1))?;
///
///     Ok(sent.unmap())
/// }
/// ```
pub struct SlaveList<'c, S: Scatter, D: OneWay> {
    list: ScatterMap<'c, S, D>,
    peripheral: Peripheral,
}

impl<'c, S: Scatter, D: OneWay> SlaveList<'c, S, D> {
    /// All of a list.
    pub fn new(list: ScatterMap<'c, S, D>, peripheral: Peripheral) -> Self {
        Self { list, peripheral }
    }

    /// Returns the list, for instance of a transfer that was refused.
    pub fn into_inner(self) -> ScatterMap<'c, S, D> {
        self.list
    }
}

// SAFETY:
// 1. The descriptor is about the list, which stays mapped until it is dropped or completed; so does
//    its table.
// 2. `check()` looks at it.
// 3. `set_shown()` notes it.
unsafe impl<'c, S: Scatter + 'c, D: OneWay> Describe for SlaveList<'c, S, D> {
    type Memory = ScatterBox<'c, S, D>;

    fn check(&mut self, target: &Target<'_>) -> Result {
        if !self.list.dma().has_record(target.record) {
            return Err(EINVAL);
        }

        check_slave(target)?;

        if self.list.was_shown() {
            return Err(EINVAL);
        }

        Ok(())
    }

    unsafe fn prepare(
        &self,
        chan: *mut bindings::dma_chan,
        flags: c_ulong,
    ) -> *mut bindings::dma_async_tx_descriptor {
        let (first, count) = self.list.segments_unshown().as_raw();
        let mut config = self.peripheral.to_config::<D>();

        // SAFETY: By the safety requirements the channel is requested. The entries have addresses
        // of mapped memory of its device. By the contract of `Peripheral::new()` the engine may
        // access the peripheral.
        unsafe {
            bindings::dmaengine_prep_config_sg(
                chan,
                first,
                count,
                transfer_direction::<D>(),
                flags,
                &mut config,
            )
        }
    }

    fn len(&self) -> usize {
        self.list.len()
    }

    fn set_shown(&mut self) {
        self.list.set_shown();
    }

    unsafe fn complete(self, moved: usize) -> Self::Memory {
        // SAFETY: By the safety requirements the engine is done, and no more was moved.
        unsafe { self.list.finish(moved) }
    }
}

impl<'c, S: Scatter + 'c, D: OneWay> Transfer<'c> for SlaveList<'c, S, D> {}
