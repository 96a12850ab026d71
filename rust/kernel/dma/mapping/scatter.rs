// SPDX-License-Identifier: GPL-2.0

//! Streaming mappings of memory in several pieces (scatter-gather).
//!
//! [`Scatter`] is memory that lies in pieces; [`ScatterMap`] is such memory while the device owns
//! it, [`ScatterBox`] while the CPU does. They are to lists of pieces what
//! [`Streaming`](super::Streaming) and [`StreamingBox`](super::StreamingBox) are to a single
//! buffer.
//!
//! C header: [`include/linux/scatterlist.h`](srctree/include/linux/scatterlist.h)

mod map;
mod memory;
mod shared;
mod table;

pub(super) use self::table::Limits;
pub use self::{
    map::{
        ScatterBox,
        ScatterMap, //
    },
    memory::{
        Exclusive,
        Piece,
        Scatter, //
    },
    shared::SharedPages,
    table::ScatterSegments, //
};
