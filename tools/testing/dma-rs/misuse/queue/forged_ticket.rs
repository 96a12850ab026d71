// SPDX-License-Identifier: GPL-2.0
//@revisions: ok bad

//! A ticket is made up, to find a command that somebody else has submitted.
//!
//! C: Tags are numbers.
//! Shows: As the data of a request that another thread waits for.

use kernel::dma::queue::Ticket;

#[cfg_attr(bad, allow(unused_variables))]
pub fn another(ticket: Ticket) -> Ticket {
    #[cfg(bad)]
    let ticket = Ticket { index: 0, tag: 0 }; //~[bad] E0451

    ticket
}
