// SPDX-License-Identifier: GPL-2.0
//@revisions: ok bad

//! A completion is given to two queues, since it may be for either.
//!
//! C: The handler walks all queues with each entry.
//! Shows: As a command of another queue that completes before it is done.

use kernel::dma::queue::{
    Completer,
    CompletionQueue,
    Completions,
    Stray,
    Submission, //
};

type Half<'a, Q> = Completer<'a, Q, ()>;

pub fn reap<'a, C, Q>(done: &mut Completions<'a, C>, one: &mut Half<'a, Q>, other: &mut Half<'a, Q>)
where
    C: CompletionQueue,
    Q: Submission<Completion = C::Entry>,
{
    done.reap(64, |seen| {
        #[cfg(ok)]
        if let Err(Stray::Other(seen)) = one.complete(seen) {
            drop(other.complete(seen));
        }
        #[cfg(bad)]
        {
            drop(one.complete(seen));
            drop(other.complete(seen)); //~[bad] E0382
        }
    });
}
