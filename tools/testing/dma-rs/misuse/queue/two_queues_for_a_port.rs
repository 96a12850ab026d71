// SPDX-License-Identifier: GPL-2.0
//@revisions: ok bad

//! Two submission queues share room in a completion queue that suffices for one.
//!
//! C: The depths of the queues are numbers, which nobody adds up.
//! Shows: As completions that the device writes over others, with all commands in flight.

use kernel::{
    dma::{
        queue::{
            Commands,
            Port,
            Submission, //
        },
        Mapper, //
    },
    prelude::*, //
};

type Both<'a, Q> = (Commands<'a, Q, ()>, Commands<'a, Q, ()>);

pub fn queues<'a, Q: Submission>(
    dma: Mapper<'a>,
    (first, second): (Q, Q),
    (one, other): (Port<'a, Q::Completion>, Port<'a, Q::Completion>),
) -> Result<Both<'a, Q>> {
    let first = Commands::new(dma, first, one, None)?;
    #[cfg(ok)]
    let second = Commands::new(dma, second, other, None)?;
    #[cfg(bad)]
    let second = Commands::new(dma, second, one, None)?; //~[bad] E0382

    #[cfg(bad)]
    drop(other);
    Ok((first, second))
}
