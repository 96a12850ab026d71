// SPDX-License-Identifier: GPL-2.0

//! Bus addresses: always other than physical ones, and not used again soon.

use super::views::Mapping;
use core::ops::Range;

/// Where the next mapping goes.
///
/// Addresses are given out upwards and start again from the bottom at the end of the window, so one
/// that was unmapped stays unmapped for long. At least one granule lies between two mappings.
pub(super) struct Addresses {
    cursor: u64,
}

impl Addresses {
    pub(super) fn new() -> Self {
        Self { cursor: 0 }
    }

    /// Finds room for `len` bytes, `offset` behind the start of a granule.
    ///
    /// Addresses lie in the upper half of what `mask` can express, so that one that lost its upper
    /// bits on the way to the device is noticed.
    pub(super) fn take(
        &mut self,
        live: &[Mapping],
        mask: u64,
        granule: u64,
        offset: u64,
        len: u64,
        boundary: u64,
    ) -> Option<u64> {
        // The last granule stays free: what is past its end is not an address.
        let window = (mask >> 1) + 1..mask & !(granule - 1);
        // The same for each offset, which is a matter of chance.
        let need = round_up(granule - 1 + len, granule)?;

        if !window.contains(&self.cursor) {
            self.cursor = window.start;
        }

        // What may not cross a boundary must fit between two.
        if len - 1 > boundary {
            return None;
        }

        let crosses = |start: u64| ((start + offset) & boundary) + (len - 1) > boundary;
        let next = |start: u64| ((start + offset) | boundary).checked_add(1);
        let find = |window: Range<u64>| {
            let mut from = window.start;

            loop {
                let start = find(live, from..window.end, granule, need)?;

                if boundary == u64::MAX || !crosses(start) {
                    return Some(start);
                }

                from = next(start)?;
            }
        };
        let start = find(self.cursor..window.end).or_else(|| find(window))?;

        // And one granule that stays free.
        self.cursor = start + need + granule;
        Some(start + offset)
    }
}

/// Returns the next multiple of a power of two.
// Not by `next_multiple_of()`, which divides, and panics where the divisor is 0: objtool doesn't
// know that this panic doesn't return.
fn round_up(value: u64, granule: u64) -> Option<u64> {
    let rest = granule.wrapping_sub(1);

    Some(value.checked_add(rest)? & !rest)
}

/// Finds `need` free bytes in a window.
fn find(live: &[Mapping], window: Range<u64>, granule: u64, need: u64) -> Option<u64> {
    let mut start = round_up(window.start, granule)?;

    loop {
        let end = start.checked_add(need)?;

        if end > window.end {
            return None;
        }

        let in_the_way = live.iter().map(|mapping| mapping.range()).find(|taken| {
            taken.start < end.saturating_add(granule) && start < taken.end.saturating_add(granule)
        });

        match in_the_way {
            None => return Some(start),
            Some(taken) => start = round_up(taken.end.checked_add(granule)?, granule)?,
        }
    }
}
