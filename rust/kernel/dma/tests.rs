// SPDX-License-Identifier: GPL-2.0

//! KUnit tests of the streaming DMA API.

mod buffer;
mod constraints;
mod managed;
mod pool;
mod queue;
#[cfg(CONFIG_RUST_DMA_SIM)]
mod queue_sim;
mod registers;
#[cfg(CONFIG_RUST_DMA_SIM)]
mod ring;
#[cfg(CONFIG_64BIT)]
mod ring_parallel;
mod session;
mod streaming;
mod transfer;
mod untrusted;

use super::fixture::{
    self,
    ensure, //
};
