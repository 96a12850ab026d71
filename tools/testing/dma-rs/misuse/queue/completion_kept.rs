// SPDX-License-Identifier: GPL-2.0
//@revisions: ok bad

//! A completion is kept, to complete its command again later.
//!
//! C: The entry stays in memory, and any code that finds it completes the request that it names.
//! Shows: As a request that completes twice, when its tag was used again.

use kernel::dma::queue::{
    Completer,
    CompletionQueue,
    Completions,
    Submission, //
};

pub fn reap<'a, C, Q>(done: &mut Completions<'a, C>, io: &mut Completer<'a, Q, ()>) -> u32
where
    C: CompletionQueue,
    Q: Submission<Completion = C::Entry>,
{
    #[cfg(bad)]
    let mut kept = None;

    let count = done.reap(64, |seen| {
        #[cfg(ok)]
        drop(io.complete(seen));
        #[cfg(bad)]
        (kept = Some(seen)); //~[bad] E0521
    });

    #[cfg(bad)]
    drop(kept.map(|seen| drop(io.complete(seen))));
    count
}
