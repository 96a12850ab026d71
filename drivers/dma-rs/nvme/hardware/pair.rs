// SPDX-License-Identifier: GPL-2.0

//! The queues for reads and writes, in pairs: one for commands, and the one in which these
//! complete.

use super::{
    Completes,
    Hardware,
    IoQueue,
    PrpList, //
};
use kernel::{
    dma::{
        queue::{
            Commands,
            Completions,
            Payload, //
        },
        Mapper,
        Pool, //
    },
    prelude::*, //
};

/// The registers of a pair of queues, of which there is one of each number.
pub(crate) struct PairRegisters<'a> {
    hardware: Hardware<'a>,
    queue: u16,
}

/// A submission queue, and the completion queue of its own.
///
/// The device is told to let commands of a queue complete in the queue of the same number. That is
/// so in each pair, since they are made together.
pub(crate) struct Pair<'a, P: Payload<'a>> {
    pub(crate) done: Completions<'a, Completes<'a>>,
    pub(crate) commands: Commands<'a, IoQueue<'a>, P>,
}

impl<'a> PairRegisters<'a> {
    pub(super) fn new(hardware: Hardware<'a>, queue: u16) -> Self {
        Self { hardware, queue }
    }

    /// Makes the queues, for `tags` commands in flight, and `entries` completions.
    ///
    /// The device sends interrupts for them by the vector of that index. Blocks for lists of pages
    /// come from `lists`. Context: may sleep.
    ///
    /// # Errors
    ///
    /// As those of queues.
    pub(crate) fn make<P: Payload<'a>>(
        self,
        dma: Mapper<'a>,
        (tags, entries): (u16, u32),
        vector: u16,
        lists: &'a Pool<'a, PrpList>,
    ) -> Result<Pair<'a, P>> {
        let Self { hardware, queue } = self;
        let done = Completes {
            hardware,
            queue,
            vector,
        };
        let mut done = Completions::new(dma, done, entries)?;
        let port = done.port(queue, tags)?;
        let commands = Commands::new(dma, IoQueue { hardware, queue }, port, Some(lists))?;

        Ok(Pair { done, commands })
    }
}
