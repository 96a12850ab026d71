// SPDX-License-Identifier: GPL-2.0
//@revisions: ok bad

//! A mapping that was never given away is asked for its bus address as a number.
//!
//! C: A `dma_addr_t` is a number.
//! Shows: As DMA to memory that is something else by now.

use kernel::dma::queue::{
    Payload,
    Segment, //
};

pub fn address<'a, P: Payload<'a>>(data: &P) -> u64 {
    #[cfg(ok)]
    let first: Option<Segment<'_>> = None;
    #[cfg(bad)]
    let first: Option<Segment<'_>> = data.segments().next(); //~[bad] E0133

    let _ = data;
    first.map_or(0, |segment| segment.address())
}
