// SPDX-License-Identifier: GPL-2.0

//! Memory order: what the CPU and a device see of each other where no barrier says when.
//!
//! Machines may reorder loads and stores; most of those that tests run on hardly ever do. Here the
//! worst is always the case, if the script wants it: a load without a read barrier was made before
//! the device wrote, and a store without a write barrier is made after the device looked.

use super::{
    bus::Access,
    views::Mapping, //
};
use crate::prelude::*;
use core::ops::Range;

/// What a device wrote, and the CPU doesn't see yet.
struct Late {
    addr: u64,
    bytes: KVec<u8>,
}

/// What the CPU stored, as far as a device sees it.
struct Stores {
    addr: u64,
    bytes: KVec<u8>,
}

/// What is not in order yet.
pub(super) struct Order {
    /// Whether the order is weak. Else nothing is late, and no stores are held.
    weak: bool,
    late: KVec<Late>,
    stores: KVec<Stores>,
}

fn range(addr: u64, len: usize) -> Range<u64> {
    // CAST: Widening.
    addr..addr.saturating_add(len as u64)
}

/// Returns what two ranges have in common, as offsets in each of them.
fn common(a: Range<u64>, b: Range<u64>) -> Option<(Range<usize>, Range<usize>)> {
    let (start, end) = (a.start.max(b.start), a.end.min(b.end));

    // CAST: Offsets in what has a length.
    let offset = |from: u64| (start - from) as usize..(end - from) as usize;

    (start < end).then(|| (offset(a.start), offset(b.start)))
}

/// Finds the mapping that holds a range, and where in it that is.
fn find(live: &mut [Mapping], of: Range<u64>) -> Option<(&mut Mapping, usize)> {
    let mapping = live
        .iter_mut()
        .find(|mapping| mapping.range().start <= of.start && of.end <= mapping.range().end)?;
    // CAST: Inside the mapping, whose length is a `usize`.
    let at = (of.start - mapping.addr) as usize;

    Some((mapping, at))
}

impl Order {
    pub(super) fn new(weak: bool) -> Self {
        Self {
            weak,
            late: KVec::new(),
            stores: KVec::new(),
        }
    }

    pub(super) fn is_weak(&self) -> bool {
        self.weak
    }

    /// A device has accessed memory.
    pub(super) fn accessed(&mut self, live: &mut [Mapping], addr: u64, access: &mut Access<'_>) {
        match access {
            Access::Read(to) => {
                for stores in &self.stores {
                    let seen = range(stores.addr, stores.bytes.len());

                    if let Some((at, from)) = common(range(addr, to.len()), seen) {
                        to[at].copy_from_slice(&stores.bytes[from]);
                    }
                }
            }
            Access::ReadNow(_) => {}
            Access::Write(from) => self.wrote(addr, from),
            Access::WriteLate(from) => {
                self.wrote(addr, from);
                self.hide(live, addr, from);
            }
        }
    }

    /// A device sees its own writes.
    fn wrote(&mut self, addr: u64, from: &[u8]) {
        for stores in &mut self.stores {
            let seen = range(stores.addr, stores.bytes.len());

            if let Some((to, at)) = common(seen, range(addr, from.len())) {
                stores.bytes[to].copy_from_slice(&from[at]);
            }
        }
    }

    /// Hides what a device wrote from the CPU. Without memory for that it isn't hidden.
    fn hide(&mut self, live: &mut [Mapping], addr: u64, from: &[u8]) {
        let mut bytes = KVec::new();

        if !self.weak
            || from.is_empty()
            || self.late.reserve(1, GFP_ATOMIC).is_err()
            || bytes.extend_from_slice(from, GFP_ATOMIC).is_err()
        {
            return;
        }

        if let Some((mapping, at)) = find(live, range(addr, from.len())) {
            if mapping.hide(at, from.len()) {
                let _ = self.late.push(Late { addr, bytes }, GFP_ATOMIC);
            }
        }
    }

    /// Shows the CPU what was hidden in a range.
    pub(super) fn settle(&mut self, live: &mut [Mapping], of: Range<u64>) {
        self.late.retain(|late| {
            let hidden = range(late.addr, late.bytes.len());
            let is_meant = common(hidden, of.clone()).is_some();

            if is_meant {
                show(live, late);
            }

            !is_meant
        });
    }

    /// The CPU has executed a read barrier.
    pub(super) fn order_loads(&mut self, live: &mut [Mapping]) {
        for late in &self.late {
            show(live, late);
        }

        self.late.clear();
    }

    /// From now on a device sees stores to a range when they are ordered.
    pub(super) fn hold_stores(&mut self, addr: u64, len: usize) -> Result {
        if !self.weak {
            return Ok(());
        }

        let bytes = KVec::from_elem(0, len, GFP_ATOMIC | __GFP_NOWARN)?;

        Ok(self.stores.push(Stores { addr, bytes }, GFP_ATOMIC)?)
    }

    pub(super) fn release_stores(&mut self, addr: u64) {
        self.stores.retain(|stores| stores.addr != addr);
    }

    /// The CPU has executed a write barrier, or written a register.
    pub(super) fn order_stores(&mut self, live: &mut [Mapping]) {
        for Stores { addr, bytes } in &mut self.stores {
            if let Some((mapping, at)) = find(live, range(*addr, bytes.len())) {
                // What the device may not read it doesn't see.
                let _ = mapping.read(at, bytes);
            }
        }
    }
}

/// Shows the CPU what was hidden, unless it has written there since.
fn show(live: &mut [Mapping], late: &Late) {
    if let Some((mapping, at)) = find(live, range(late.addr, late.bytes.len())) {
        mapping.show(at, &late.bytes);
    }
}
