// SPDX-License-Identifier: GPL-2.0

//! Transfers in flight.

use super::{
    super::Untrusted,
    channel::{
        Inner,
        Place, //
    },
    slot::State,
    Cookie,
    Status, //
};
use crate::{
    error::ErrorWith,
    prelude::*,
    time::Delta, //
};
use core::mem::ManuallyDrop;

/// How often a thread looks that waits for a polled transfer.
const POLL_INTERVAL: Delta = Delta::from_micros(100);

mod private {
    use crate::{
        bindings,
        dma::mapping::record::Record,
        prelude::*, //
    };

    /// The channel that is asked.
    pub struct Target<'a> {
        pub(in crate::dma) record: &'a Record,
        /// A channel that was requested.
        pub(in crate::dma) chan: *mut bindings::dma_chan,
    }

    /// What a transfer is to the channel.
    ///
    /// # Safety
    ///
    /// 1. The descriptor that [`prepare`](Self::prepare) returns is about memory that the value
    ///    owns, which stays mapped as it is until the value is dropped, or
    ///    [`complete`](Self::complete) is called.
    /// 2. It was mapped with a mapper that has the record for which [`check`](Self::check)
    ///    returned `Ok`.
    /// 3. If the value is dropped after [`set_shown`](Self::set_shown) was called, the memory is
    ///    put away: it isn't freed before a proof.
    pub unsafe trait Describe: Sized {
        /// What comes back.
        type Memory;

        /// Checks whether the channel can be asked, and that nobody has shown the memory.
        fn check(&mut self, target: &Target<'_>) -> Result;

        /// Prepares a descriptor (C: `dmaengine_prep_...()`), or returns null.
        ///
        /// # Safety
        ///
        /// `chan` must be a channel that was requested, with the record of `check`.
        unsafe fn prepare(
            &self,
            chan: *mut bindings::dma_chan,
            flags: c_ulong,
        ) -> *mut bindings::dma_async_tx_descriptor;

        /// Returns how many bytes are to be moved.
        fn len(&self) -> usize;

        /// Notes that the engine knows the memory.
        fn set_shown(&mut self);

        /// Returns the memory, after so many bytes were moved.
        ///
        /// # Safety
        ///
        /// The engine must be done with the memory, and the caller have seen that. `moved` must not
        /// be more than `len`.
        unsafe fn complete(self, moved: usize) -> Self::Memory;
    }
}
pub(super) use private::{
    Describe,
    Target, //
};

/// What can be submitted to a [`Channel`](super::Channel): memory, and what is to be done with it.
///
/// [`Memcpy`](super::Memcpy) copies memory, [`Slave`](super::Slave) and
/// [`SlaveList`](super::SlaveList) move it to or from a peripheral. Drivers don't implement this.
pub trait Transfer<'c>: Describe + 'c {}

/// What became of a transfer.
enum Look {
    /// It may be in flight.
    Busy,
    /// It is over, and so many bytes were moved, or it failed.
    Over(Result<usize>),
}

/// Finds out what became of a transfer of so many bytes.
///
/// By value, so that a [`Submitted`] which is waited for at once stays in registers.
#[inline]
fn look(channel: &Inner, place: Place<'_>, len: usize) -> Look {
    if place.word.is(State::Polled) {
        return look_polled(channel, place, len);
    }

    if let Some(report) = place.slot.report(place.word) {
        return Look::Over(report.residue().and_then(|residue| {
            // CAST: Widening.
            Untrusted::new(residue as usize)
                .at_most(len)
                .map(|residue| len - residue)
        }));
    }

    // After looking: who sees the slot of a terminated transfer sees the new epoch, too.
    if channel.is_terminated(place) {
        return Look::Over(Err(ECANCELED));
    }

    Look::Busy
}

/// As [`look`], of a transfer for which nothing calls back.
#[inline(never)]
fn look_polled(channel: &Inner, place: Place<'_>, len: usize) -> Look {
    let answer = channel.ask_calmly(|| ask(channel, place));

    // After asking: what was terminated looks as if it were complete.
    if channel.is_terminated(place) {
        Look::Over(Err(ECANCELED))
    } else if matches!(answer, Some(Status::Complete)) {
        Look::Over(Ok(len))
    } else {
        Look::Busy
    }
}

fn ask(channel: &Inner, place: Place<'_>) -> Status {
    // SAFETY: The channel is borrowed, so it wasn't released. The cookie is one of its own.
    unsafe { Status::ask(channel.chan(), place.cookie) }
}

/// A transfer that was submitted, and the memory that the engine may access.
///
/// [`wait`](Self::wait) for it, or [`poll`](Self::poll) it. Dropping it while the transfer is in
/// flight leaves the memory in the channel's quarantine: it is freed when the channel is
/// terminated or released, and the log says so. Forgetting it leaks the memory, and one of the
/// channel's 64 places. Context of dropping it: any in which the memory may be dropped.
///
/// # Invariants
///
/// The transfer has the slot of `place`, since the epoch of `place`. Unless the slot, the epoch of
/// the channel or the provider says that it is over, it is in flight.
#[must_use = "dropping it leaves the memory in quarantine if the transfer is in flight"]
pub struct Submitted<'c, T: Transfer<'c>> {
    channel: &'c Inner,
    place: Place<'c>,
    transfer: ManuallyDrop<T>,
}

impl<'c, T: Transfer<'c>> Submitted<'c, T> {
    pub(super) fn new(
        channel: &'c Inner,
        state: State,
        mut transfer: T,
    ) -> Result<Self, ErrorWith<T>> {
        let target = Target {
            record: channel.record(),
            chan: channel.chan().as_ptr(),
        };

        let submitted = transfer.check(&target).and_then(|()| {
            // SAFETY: The transfer owns the memory, and is kept until `look()` says that it is
            // over. If it is dropped, the memory is put away, since that it was shown is noted
            // below. `check()` has seen the record of the channel.
            unsafe { channel.submit(state, |chan, flags| transfer.prepare(chan, flags)) }
        });

        match submitted {
            Ok(place) => {
                transfer.set_shown();

                // INVARIANT: It was just submitted.
                Ok(Self {
                    channel,
                    place,
                    transfer: ManuallyDrop::new(transfer),
                })
            }
            Err(error) => Err(ErrorWith {
                error,
                value: transfer,
            }),
        }
    }

    #[inline]
    fn look(&self) -> Look {
        look(self.channel, self.place, self.transfer.len())
    }

    fn ask(&self) -> Status {
        ask(self.channel, self.place)
    }

    /// Sleeps until the transfer is over, and returns the memory.
    ///
    /// It tells the engine to begin, as [`issue_pending`](super::Channel::issue_pending) does.
    /// Context: may sleep.
    ///
    /// # Errors
    ///
    /// `self` comes back, with
    ///
    /// - [`ETIMEDOUT`] if the transfer is still in flight after `timeout`. Wait again, or
    ///   [terminate](super::Channel::terminate_sync) the channel;
    /// - [`EIO`] if it failed, or if the hardware reports that more bytes are left than it was to
    ///   move;
    /// - [`ECANCELED`] if it was terminated.
    ///
    /// In the last two cases it is over: [`into_memory`](Self::into_memory) returns the memory.
    pub fn wait(self, timeout: Delta) -> Result<T::Memory, ErrorWith<Self>> {
        // If transfers are being terminated, there is nothing to begin with.
        let _ = self.channel.issue_pending();

        let events = self.channel.events();
        let look = || match self.look() {
            Look::Busy => None,
            Look::Over(outcome) => Some(outcome),
        };

        // What is over already needs no clock.
        let outcome = look().or_else(|| {
            if self.place.word.is(State::Polled) {
                events.poll_until(POLL_INTERVAL, timeout, look)
            } else {
                events.wait_until(timeout, look)
            }
        });

        self.conclude(outcome.unwrap_or(Err(ETIMEDOUT)))
    }

    /// Returns the memory, if the transfer is over.
    ///
    /// Context: any.
    ///
    /// # Errors
    ///
    /// `self` comes back, with [`EINPROGRESS`] if the transfer is in flight, and otherwise as from
    /// [`wait`](Self::wait).
    pub fn poll(self) -> Result<T::Memory, ErrorWith<Self>> {
        let outcome = match self.look() {
            Look::Busy => Err(EINPROGRESS),
            Look::Over(outcome) => outcome,
        };

        self.conclude(outcome)
    }

    fn conclude(self, outcome: Result<usize>) -> Result<T::Memory, ErrorWith<Self>> {
        match outcome {
            // SAFETY: `look()` has seen that the transfer is over, and that no more was moved.
            Ok(moved) => Ok(unsafe { self.finish(moved) }),
            Err(error) => Err(ErrorWith { error, value: self }),
        }
    }

    /// Returns the memory if the transfer is over, whatever came of it. No bytes are defined.
    ///
    /// Context: any.
    ///
    /// # Errors
    ///
    /// `self` comes back if the transfer is in flight.
    pub fn into_memory(self) -> Result<T::Memory, Self> {
        match self.look() {
            Look::Busy => Err(self),
            // SAFETY: `look()` has seen that the transfer is over.
            Look::Over(_) => Ok(unsafe { self.finish(0) }),
        }
    }

    /// # Safety
    ///
    /// `look()` must have said that the transfer is over. `moved` must not be more than the
    /// transfer was to move.
    unsafe fn finish(self, moved: usize) -> T::Memory {
        let mut this = ManuallyDrop::new(self);

        this.place.slot.free(this.place.word);

        // SAFETY: `this` is not dropped and not used afterwards.
        let transfer = unsafe { ManuallyDrop::take(&mut this.transfer) };

        // SAFETY: By the safety requirements.
        unsafe { transfer.complete(moved) }
    }

    /// Asks the provider how far it is (C: `dmaengine_tx_status()`).
    ///
    /// While transfers are being terminated, some providers say of them that they are complete.
    /// Context: any.
    pub fn status(&self) -> Status {
        match self.look() {
            Look::Busy => self.ask(),
            Look::Over(Ok(_)) => Status::Complete,
            Look::Over(Err(_)) => Status::Error,
        }
    }

    /// Returns the number that the provider gave the transfer, for messages.
    pub fn cookie(&self) -> Cookie {
        self.place.cookie
    }
}

impl<'c, T: Transfer<'c>> Drop for Submitted<'c, T> {
    fn drop(&mut self) {
        let is_over = matches!(self.look(), Look::Over(_))
            // It may be over since.
            || !self.place.slot.abandon(self.place.word);

        // SAFETY: `self` is not used afterwards.
        let transfer = unsafe { ManuallyDrop::take(&mut self.transfer) };

        if is_over {
            self.place.slot.free(self.place.word);

            // SAFETY: The slot, or the epoch of the channel, says that the transfer is over.
            drop(unsafe { transfer.complete(0) });
        }

        // Otherwise dropping it puts the memory away.
    }
}
