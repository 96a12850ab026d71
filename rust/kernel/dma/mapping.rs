// SPDX-License-Identifier: GPL-2.0

//! What may be given to a device, and whose it is now.

pub(super) mod address;
mod attributes;
pub(super) mod barrier;
mod buffer;
mod constraints;
mod direction;
pub(super) mod leaks;
pub(super) mod mapper;
pub(super) mod orphan;
mod pages;
mod pool;
pub(super) mod record;
mod registers;
mod running;
pub(super) mod streaming;
mod untrusted;

pub use self::{
    address::DmaAddr,
    attributes::MapAttrs,
    barrier::{
        dma_rmb,
        dma_wmb, //
    },
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
    streaming::{
        Streaming,
        StreamingBox, //
    },
    untrusted::{
        Reader,
        Untrusted, //
    },
};
