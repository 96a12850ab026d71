// SPDX-License-Identifier: GPL-2.0

//! Which frames the receiver takes: those to some addresses, which it compares, and those to
//! groups, for which it has a table of bits.

use super::{
    hardware::{
        Control,
        ADDRESSES, //
    },
    regs, //
};
use kernel::io::register::Array;

/// How many words the table has.
const WORDS: usize = 128;

/// What the receiver takes, besides what is for its own address, or for all.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Filters {
    pub(crate) addresses: [Option<[u8; 6]>; ADDRESSES - 1],
    pub(crate) table: [u32; WORDS],
    /// Everything.
    pub(crate) all: bool,
    /// Everything for groups.
    pub(crate) groups: bool,
}

/// Returns which bit of the table is that of a group: the word, and a mask (13.5.1, with `RCTL.MO`
/// zero: bits 47 to 36 of the address).
pub(crate) fn bit_of(group: [u8; 6]) -> (usize, u32) {
    let [.., low, high] = group;
    let hash = usize::from(low >> 4) | usize::from(high) << 4;

    (hash >> 5, 1 << (hash & 31))
}

impl Filters {
    /// Takes nothing.
    pub(crate) const NONE: Self = Self {
        addresses: [None; ADDRESSES - 1],
        table: [0; WORDS],
        all: false,
        groups: false,
    };

    /// Adds an address. If it can't compare more, it takes everything.
    pub(crate) fn add_address(&mut self, address: [u8; 6]) {
        match self.addresses.iter_mut().find(|place| place.is_none()) {
            Some(place) => *place = Some(address),
            None => self.all = true,
        }
    }

    /// Adds a group, and with it others that have the same bit.
    pub(crate) fn add_group(&mut self, group: [u8; 6]) {
        let (word, mask) = bit_of(group);

        if let Some(word) = self.table.get_mut(word) {
            *word |= mask;
        }
    }

    /// Tells the device. If it is stopped, it must be told again when it was started.
    pub(crate) fn apply(&self, control: &Control<'_>) {
        for (number, address) in (1..).zip(&self.addresses) {
            control.set_address(number, *address);
        }

        for (at, bits) in self.table.iter().enumerate() {
            if let Some(location) = regs::MTA::try_at(at) {
                control.write(location, regs::MTA::from(*bits));
            }
        }

        control.receive_all(self.all, self.groups);
    }
}
