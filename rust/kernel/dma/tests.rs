// SPDX-License-Identifier: GPL-2.0

//! KUnit tests of the streaming DMA API.

mod buffer;
mod configured;
mod enclosure;
mod managed;
mod oneshot;
mod pool;
mod regs;
#[cfg(CONFIG_RUST_DMA_SIM)]
mod ring;
mod streaming;
mod untrusted;

use super::fixture::{
    self,
    ensure, //
};
