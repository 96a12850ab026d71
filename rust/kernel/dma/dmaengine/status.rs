// SPDX-License-Identifier: GPL-2.0

//! What a provider says about a transfer.

use super::super::Untrusted;
use crate::bindings;
use core::ptr::NonNull;

/// The number that the provider gave a transfer (C: `dma_cookie_t`).
///
/// For messages: a [`Submitted`](super::Submitted) brings its cookie along.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Cookie(pub(super) bindings::dma_cookie_t);

/// What the provider says about a transfer at present, if it is asked.
///
/// Only [`Complete`](Self::Complete) says that the engine is done with the memory. Of the others
/// none does, [`Error`](Self::Error) either: a provider may try once more. Whether the memory can
/// come back is what [`Submitted::poll`](super::Submitted::poll) tells.
#[derive(Clone, Copy)]
pub enum Status {
    /// It is done (C: `DMA_COMPLETE`).
    Complete,
    /// It waits, or is at work. So many bytes are left, as the hardware says; 0 if it can't tell
    /// (C: `DMA_IN_PROGRESS`).
    InProgress(Untrusted<usize>),
    /// It is paused. So many bytes are left, as the hardware says; 0 if it can't tell
    /// (C: `DMA_PAUSED`).
    Paused(Untrusted<usize>),
    /// It failed (C: `DMA_ERROR`).
    Error,
    /// The provider completes transfers in any order, and can't tell (C: `DMA_OUT_OF_ORDER`).
    OutOfOrder,
}

impl Status {
    /// Asks the provider (C: `dmaengine_tx_status()`).
    ///
    /// Context: any.
    ///
    /// # Safety
    ///
    /// `chan` must be a channel that wasn't released, and `cookie` one that its provider gave out.
    pub(super) unsafe fn ask(chan: NonNull<bindings::dma_chan>, cookie: Cookie) -> Self {
        let mut state: bindings::dma_tx_state = pin_init::zeroed();

        // SAFETY: By the safety requirements; `state` is valid for writing.
        let status = unsafe { bindings::dmaengine_tx_status(chan.as_ptr(), cookie.0, &mut state) };
        // CAST: Widening.
        let left = Untrusted::new(state.residue as usize);

        match status {
            bindings::dma_status_DMA_COMPLETE => Self::Complete,
            bindings::dma_status_DMA_PAUSED => Self::Paused(left),
            bindings::dma_status_DMA_ERROR => Self::Error,
            bindings::dma_status_DMA_OUT_OF_ORDER => Self::OutOfOrder,
            // And whatever C may add.
            _ => Self::InProgress(left),
        }
    }
}
