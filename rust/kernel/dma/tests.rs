// SPDX-License-Identifier: GPL-2.0

//! KUnit tests of the streaming DMA API.

mod buffer;
mod constraints;
#[cfg(CONFIG_RUST_DMAENGINE_KUNIT_TEST)]
mod dmaengine;
#[cfg(CONFIG_RUST_DMAENGINE_KUNIT_TEST)]
mod dmaengine_copy;
#[cfg(CONFIG_RUST_DMAENGINE_KUNIT_TEST)]
#[cfg(all(CONFIG_FAILSLAB, not(CONFIG_KCSAN)))]
mod dmaengine_faults;
#[cfg(CONFIG_RUST_DMAENGINE_KUNIT_TEST)]
#[cfg(all(CONFIG_MMU, CONFIG_64BIT))]
mod dmaengine_mmap;
mod managed;
#[cfg(all(CONFIG_MMU, CONFIG_64BIT))]
mod mmap;
#[cfg(all(CONFIG_PCI, CONFIG_MMU, CONFIG_64BIT))]
mod mmap_pci;
mod noncoherent;
#[cfg(CONFIG_RUST_DMA_SIM)]
mod parts;
mod pool;
mod queue;
#[cfg(CONFIG_RUST_DMA_SIM)]
mod queue_sim;
mod queue_slots;
mod queue_through;
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
#[cfg(CONFIG_64BIT)]
mod shared;
#[cfg(all(CONFIG_PCI, CONFIG_64BIT))]
mod shared_pci;
mod streaming;
mod transfer;
mod untrusted;

use super::{
    ensure::ensure,
    fixture, //
};
