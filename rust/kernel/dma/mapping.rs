// SPDX-License-Identifier: GPL-2.0

//! Memory that may be given to a device, and who owns it now.
//!
//! - [`Constraints`] say what a device can address; [`Mapper`] is the permission to map for it.
//! - [`Buffer`] is memory that can be mapped, for instance a `KVec<u8>` or [`Pages`].
//! - [`Streaming`] is a mapped buffer that the device owns, [`StreamingBox`] one that the CPU owns.
//! - [`Scatter`] is memory in pieces, and [`Exclusive`] such memory without other owners;
//!   [`SharedPages`] have other owners.
//! - [`ScatterMap`] is a mapped list of pieces that the device owns, [`ScatterBox`] one that the
//!   CPU owns.
//! - [`Shared`] is coherent memory that the CPU and the device both use, [`SharedBox`] such memory
//!   that only the CPU uses, and [`DeviceOnly`] such memory that only the device uses.
//!   [`UserShared`] is such memory that user space maps, too.
//! - [`Noncoherent`] is cached memory that the kernel allocated for the device and that the device
//!   owns, [`NoncoherentBox`] such memory that the CPU owns. It is synced as buffers are.
//! - [`Pool`] has small blocks of coherent memory. [`PoolBox`] is one that only the CPU uses,
//!   [`PoolEntry`] one that the CPU and the device both use.
//! - [`SharedView`] is a part of coherent memory, and how the CPU reads and writes it.
//! - [`DmaAddr`] is the bus address of any of these. It takes a [`Running`] to show it to a device.
//! - [`Untrusted`] is a value that a device wrote; [`Reader`] takes whole messages apart.
//! - [`DmaRegisters`] keeps the registers that aim DMA from the rest of a driver.
//!
//! This module knows nothing of how a device is started and stopped, or reports completion. See
//! `Documentation/rust/dma/ownership.rst`.

pub(super) mod address;
mod attributes;
pub(super) mod barrier;
mod buffer;
mod constraints;
mod direction;
pub(super) mod leaks;
pub(super) mod mapper;
pub(super) mod one_way;
pub(super) mod orphan;
mod pages;
mod pool;
pub(super) mod record;
mod registers;
pub(super) mod running;
pub(super) mod scatter;
pub(super) mod shared;
pub(super) mod streaming;
mod untrusted;
mod view;

pub use self::{
    address::DmaAddr,
    buffer::Buffer,
    constraints::Constraints,
    direction::{
        Bidirectional,
        CpuWrites,
        Direction,
        FromDevice,
        ToDevice, //
    },
    leaks::leaked,
    mapper::Mapper,
    one_way::OneWay,
    pages::Pages,
    pool::{
        Pool,
        PoolBox,
        PoolEntry, //
    },
    registers::{
        DmaRegisters,
        PlainRegisters,
        RegisterRanges, //
    },
    running::Running,
    scatter::{
        Exclusive,
        Piece,
        Scatter,
        ScatterBox,
        ScatterMap,
        ScatterSegments,
        SharedPages, //
    },
    shared::{
        AllocAttrs,
        DeviceOnly,
        Noncoherent,
        NoncoherentBox,
        Shared,
        SharedBox,
        UserShared, //
    },
    streaming::{
        Streaming,
        StreamingBox, //
    },
    untrusted::{
        Reader,
        Untrusted, //
    },
    view::{
        dma_read,
        dma_write,
        SharedView,
        Word, //
    },
};

pub(super) use self::attributes::MapAttrs;
