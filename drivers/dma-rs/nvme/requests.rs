// SPDX-License-Identifier: GPL-2.0

//! Reads and writes that were submitted, and what came of them.
//!
//! The tag of a command can be used again as soon as the command is done, when nobody may have
//! looked yet what came of it. So each has a place besides, until somebody has.

use super::nvme::{
    Back,
    TAGS, //
};
use kernel::prelude::*;

/// A command that was submitted. Somebody must [wait](super::nvme::Nvme::wait) for it, or
/// [abandon](super::nvme::Nvme::abandon) it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Request {
    place: u32,
    /// How many there were before it.
    number: u64,
}

/// A command that is over: what came back, and the status, 0 for success. [`None`] if the device
/// was stopped before.
pub(crate) type Outcome<'a> = (Back<'a>, Option<u16>);

/// And how many commands of the queue were over before it.
pub(crate) type Numbered<'a> = (u64, Outcome<'a>);

/// What is known of a command: of the request of that number.
enum Place<'a> {
    Free,
    InFlight(u64),
    /// In flight, and nobody will wait for it.
    Abandoned,
    Over(u64, Numbered<'a>),
}

/// The requests of a pair of queues.
pub(super) struct Requests<'a> {
    places: KVec<Place<'a>>,
    /// Which places are free.
    free: u64,
    submitted: u64,
    over: u64,
}

impl<'a> Requests<'a> {
    pub(super) fn new() -> Result<Self> {
        const { assert!(TAGS as u32 <= u64::BITS, "a bit for each place") };

        let mut places = KVec::new();

        for _ in 0..TAGS {
            places.push(Place::Free, GFP_KERNEL)?;
        }

        Ok(Self {
            places,
            free: u64::MAX >> (u64::BITS - u32::from(TAGS)),
            submitted: 0,
            over: 0,
        })
    }

    /// Returns the next request. It has its place when it was [submitted](Self::submitted).
    ///
    /// # Errors
    ///
    /// [`EBUSY`] if there is no place.
    pub(super) fn next(&self) -> Result<Request> {
        if self.free == 0 {
            return Err(EBUSY);
        }

        Ok(Request {
            place: self.free.trailing_zeros(),
            number: self.submitted,
        })
    }

    /// Notes that a request was submitted.
    pub(super) fn submitted(&mut self, request: Request) {
        self.submitted += 1;
        self.set(request, Place::InFlight(request.number));
    }

    /// Notes what came of a request. If nobody will wait for it, that is dropped.
    pub(super) fn over(&mut self, request: Request, outcome: Outcome<'a>) {
        let place = match self.place(request) {
            Some(Place::Abandoned) => Place::Free,
            _ => Place::Over(request.number, (self.over, outcome)),
        };

        self.over += 1;
        self.set(request, place);
    }

    /// Returns what came of a request, once.
    pub(super) fn take(&mut self, request: Request) -> Option<Numbered<'a>> {
        match self.place(request)? {
            Place::Over(number, _) if *number == request.number => {}
            _ => return None,
        }

        match self.set(request, Place::Free) {
            Some(Place::Over(_, outcome)) => Some(outcome),
            _ => None,
        }
    }

    /// Notes that nobody will wait for a request, unless somebody has.
    pub(super) fn abandon(&mut self, request: Request) {
        match self.place(request) {
            Some(Place::InFlight(number)) if *number == request.number => {
                self.set(request, Place::Abandoned);
            }
            _ => drop(self.take(request)),
        }
    }

    fn place(&self, request: Request) -> Option<&Place<'a>> {
        // CAST: Widening.
        self.places.get(request.place as usize)
    }

    fn set(&mut self, request: Request, place: Place<'a>) -> Option<Place<'a>> {
        let bit = 1 << request.place;

        match place {
            Place::Free => self.free |= bit,
            _ => self.free &= !bit,
        }

        // CAST: Widening.
        let old = self.places.get_mut(request.place as usize)?;

        Some(core::mem::replace(old, place))
    }
}
