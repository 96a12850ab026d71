// SPDX-License-Identifier: GPL-2.0

//! Directions of mappings, as types.
//!
//! C header: [`include/linux/dma-direction.h`](srctree/include/linux/dma-direction.h)

use super::super::DataDirection;

mod private {
    /// The directions are these three.
    #[diagnostic::on_unimplemented(
        message = "`{Self}` is not a direction of DMA",
        note = "the directions are `ToDevice`, `FromDevice` and `Bidirectional`"
    )]
    pub trait Sealed {}
}

/// The direction of a mapping: [`ToDevice`], [`FromDevice`] or [`Bidirectional`].
///
/// It says who writes while the buffer is mapped. As a part of the type it can't differ between
/// map, sync and unmap, and an access that it doesn't allow doesn't compile. C:
/// `enum dma_data_direction`, without `DMA_NONE`.
///
/// # Examples
///
/// ```
/// use kernel::dma::{Bidirectional, DataDirection, Direction, FromDevice, ToDevice};
///
/// assert_eq!(FromDevice::DATA_DIRECTION, DataDirection::FromDevice);
/// assert!(FromDevice::DEVICE_WRITES && !FromDevice::CPU_WRITES);
/// assert!(!ToDevice::DEVICE_WRITES && ToDevice::CPU_WRITES);
/// assert!(Bidirectional::DEVICE_WRITES && Bidirectional::CPU_WRITES);
/// ```
#[diagnostic::on_unimplemented(
    message = "`{Self}` is not a direction of DMA",
    note = "the directions are `ToDevice`, `FromDevice` and `Bidirectional`"
)]
pub trait Direction: private::Sealed + Send + Sync + 'static {
    /// The C constant.
    const DATA_DIRECTION: DataDirection;

    /// Whether the device may write to the memory.
    const DEVICE_WRITES: bool;

    /// Whether the CPU may write to the memory while it is mapped.
    const CPU_WRITES: bool;
}

/// A direction in which the CPU may write to the buffer while it is mapped: [`ToDevice`] and
/// [`Bidirectional`].
///
/// # Examples
///
/// ```
/// # use kernel::{dma::{CpuWrites, StreamingBox}, prelude::*};
/// fn clear<D: CpuWrites>(buf: &mut StreamingBox<'_, KVec<u8>, D>) {
///     buf.bytes_mut().fill(0);
/// }
/// ```
#[diagnostic::on_unimplemented(
    message = "the CPU can't write to a buffer that is mapped as `{Self}`",
    note = "unmap it to write to it, or map it as `ToDevice` or `Bidirectional`"
)]
pub trait CpuWrites: Direction {}

/// The device reads, the CPU writes: for what is sent (C: `DMA_TO_DEVICE`).
pub struct ToDevice;

/// The device writes, the CPU reads: for what is received (C: `DMA_FROM_DEVICE`).
pub struct FromDevice;

/// The CPU and the device both write (C: `DMA_BIDIRECTIONAL`).
///
/// This costs the syncs of both directions. Use it only for a buffer that the device changes in
/// place.
pub struct Bidirectional;

impl private::Sealed for ToDevice {}
impl private::Sealed for FromDevice {}
impl private::Sealed for Bidirectional {}

impl Direction for ToDevice {
    const DATA_DIRECTION: DataDirection = DataDirection::ToDevice;
    const DEVICE_WRITES: bool = false;
    const CPU_WRITES: bool = true;
}

impl Direction for FromDevice {
    const DATA_DIRECTION: DataDirection = DataDirection::FromDevice;
    const DEVICE_WRITES: bool = true;
    const CPU_WRITES: bool = false;
}

impl Direction for Bidirectional {
    const DATA_DIRECTION: DataDirection = DataDirection::Bidirectional;
    const DEVICE_WRITES: bool = true;
    const CPU_WRITES: bool = true;
}

impl CpuWrites for ToDevice {}
impl CpuWrites for Bidirectional {}
