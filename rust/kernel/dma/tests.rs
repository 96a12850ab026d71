// SPDX-License-Identifier: GPL-2.0

//! KUnit tests of the streaming DMA API.

mod buffer;
mod constraints;
mod managed;
mod pool;
mod registers;
#[cfg(CONFIG_RUST_DMA_SIM)]
mod ring;
#[cfg(CONFIG_64BIT)]
mod ring_parallel;
mod scatter;
#[cfg(CONFIG_PCI)]
mod scatter_pci;
#[cfg(CONFIG_RUST_DMA_SIM)]
mod scatter_ring;
mod session;
mod streaming;
mod transfer;
mod untrusted;

use super::fixture::{
    self,
    ensure, //
};
