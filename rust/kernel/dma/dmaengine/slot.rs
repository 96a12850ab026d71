// SPDX-License-Identifier: GPL-2.0

//! What a channel keeps of a transfer: a place for the provider to call back to.
//!
//! The slots of a channel are allocated with it, and freed with it. So a provider that calls back
//! late, or twice, finds a slot. Whose transfer a slot is about, its generation says: it changes
//! with each transfer. The provider is given some bits of it, too, so that it can't call back for
//! one transfer when another one has the slot.

use super::{
    super::mapping::running::Section,
    channel::Inner,
    status::{
        Cookie,
        Status, //
    },
};
use crate::{
    bindings,
    prelude::*,
    sync::atomic::{
        Acquire,
        Atomic,
        Full,
        Relaxed, //
    }, //
};
use core::ptr::NonNull;
use pin_init::init_array_from_fn;

/// How many transfers of a channel can be in flight.
pub(super) const SLOTS: usize = 64;

/// The alignment of a slot. In an address that is given to a provider, the bits below are those of
/// a generation.
const ALIGN: usize = 64;

/// What a slot is in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u64)]
pub(super) enum State {
    /// There is no transfer.
    Free,
    /// The provider will call back once.
    InFlight,
    /// The provider has called back.
    Done,
    /// As `InFlight`; and nobody waits for it.
    Abandoned,
    /// The provider won't call back, but can be asked.
    Polled,
    /// As `Polled`; and nobody asks.
    PolledAbandoned,
    /// The provider calls back for each period.
    Cyclic,
    /// As `Cyclic`; and nobody counts them.
    CyclicAbandoned,
}

impl State {
    /// What becomes of it when nobody wants the transfer any more.
    fn abandoned(self) -> Self {
        match self {
            Self::InFlight => Self::Abandoned,
            Self::Polled => Self::PolledAbandoned,
            Self::Cyclic => Self::CyclicAbandoned,
            other => other,
        }
    }
}

/// The state of a slot, and which of its transfers that is about.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) struct Word(u64);

impl Word {
    /// The bits that the state takes.
    const BITS: u32 = 3;

    #[inline]
    fn new(generation: u64, state: State) -> Self {
        // CAST: The discriminant.
        Self(generation << Self::BITS | state as u64)
    }

    #[inline]
    fn generation(self) -> u64 {
        self.0 >> Self::BITS
    }

    /// Returns the bits of the generation that the provider gives back.
    #[inline]
    fn hint(self) -> usize {
        // CAST: Cut on purpose.
        self.generation() as usize % ALIGN
    }

    #[inline]
    fn state(self) -> State {
        // The compiler finds that nothing is to be done.
        match self.0 & ((1 << Self::BITS) - 1) {
            0 => State::Free,
            1 => State::InFlight,
            2 => State::Done,
            3 => State::Abandoned,
            4 => State::Polled,
            5 => State::PolledAbandoned,
            6 => State::Cyclic,
            _ => State::CyclicAbandoned,
        }
    }

    #[inline]
    pub(super) fn is(self, state: State) -> bool {
        self.state() == state
    }

    #[inline]
    fn with(self, state: State) -> Self {
        Self::new(self.generation(), state)
    }
}

/// What the provider said when it called back.
#[derive(Clone, Copy)]
pub(super) struct Report {
    result: bindings::dmaengine_tx_result,
    /// How many bytes weren't moved, as the hardware says.
    residue: u32,
}

impl Report {
    /// Returns how many bytes weren't moved, unless the transfer failed.
    #[inline]
    pub(super) fn residue(self) -> Result<u32> {
        match self.result {
            bindings::dmaengine_tx_result_DMA_TRANS_NOERROR => Ok(self.residue),
            bindings::dmaengine_tx_result_DMA_TRANS_ABORTED => Err(ECANCELED),
            _ => Err(EIO),
        }
    }
}

/// A slot.
///
/// # Invariants
///
/// - `channel` is what the slot is a part of.
/// - A transfer whose provider was given this slot, and may still call back for it, is in flight
///   only while the state is neither `Free` nor `Done`.
#[repr(align(64))]
pub(super) struct Slot {
    channel: NonNull<Inner>,
    word: Atomic<u64>,
    result: Atomic<u32>,
    residue: Atomic<u32>,
    cookie: Atomic<i32>,
    /// How often the provider called back for the cyclic transfer.
    periods: Atomic<u64>,
}

// SAFETY: An `Inner` may be used by any thread; the rest are atomics.
unsafe impl Send for Slot {}

// SAFETY: As above.
unsafe impl Sync for Slot {}

impl Slot {
    /// Makes the slots of a channel.
    pub(super) fn table(channel: NonNull<Inner>) -> Result<KBox<[Self; SLOTS]>> {
        // INVARIANT: The caller puts it there; there is no transfer.
        let slots = init_array_from_fn(|_| Self {
            channel,
            word: Atomic::new(Word::new(0, State::Free).0),
            result: Atomic::new(0),
            residue: Atomic::new(0),
            cookie: Atomic::new(0),
            periods: Atomic::new(0),
        });

        KBox::init(slots, GFP_KERNEL)
    }

    #[inline]
    pub(super) fn word(&self) -> Word {
        Word(self.word.load(Acquire))
    }

    #[inline]
    fn exchange(&self, old: Word, new: Word) -> bool {
        self.word.cmpxchg(old.0, new.0, Full).is_ok()
    }

    /// Takes the slot for a transfer, if it is free. Returns what it is in then.
    #[inline]
    pub(super) fn claim(&self, state: State) -> Option<Word> {
        let old = self.word();
        let new = Word::new(old.generation().wrapping_add(1), state);

        if old.state() != State::Free || !self.exchange(old, new) {
            return None;
        }

        self.periods.store(0, Relaxed);
        Some(new)
    }

    /// Gives the slot of a transfer back that is over, unless that was done.
    #[inline]
    pub(super) fn free(&self, taken: Word) {
        // What it is most of the time.
        let mut old = taken.with(State::Done);

        while old.generation() == taken.generation() {
            match self.word.cmpxchg(old.0, old.with(State::Free).0, Full) {
                Ok(_) => break,
                Err(now) => old = Word(now),
            }
        }
    }

    /// Notes that nobody wants the transfer, so that the slot is given back when it is over.
    /// Returns false if that was so in the meantime.
    pub(super) fn abandon(&self, taken: Word) -> bool {
        self.exchange(taken, taken.with(taken.state().abandoned()))
    }

    /// Notes that all transfers of the channel are over.
    pub(super) fn terminated(&self) {
        self.free(self.word());
    }

    /// Returns whether the slot has a transfer that may be in flight.
    ///
    /// # Safety
    ///
    /// `chan` must be the channel, not released yet.
    pub(super) unsafe fn is_busy(&self, chan: NonNull<bindings::dma_chan>) -> bool {
        let word = self.word();

        match word.state() {
            State::Free | State::Done => false,
            State::Polled | State::PolledAbandoned => {
                // SAFETY: By the safety requirement; the cookie is that of the transfer.
                let status = unsafe { Status::ask(chan, self.cookie()) };

                !matches!(status, Status::Complete)
            }
            State::InFlight | State::Abandoned | State::Cyclic | State::CyclicAbandoned => true,
        }
    }

    #[inline]
    pub(super) fn set_cookie(&self, cookie: Cookie) {
        self.cookie.store(cookie.0, Relaxed);
    }

    pub(super) fn cookie(&self) -> Cookie {
        Cookie(self.cookie.load(Relaxed))
    }

    /// Returns how often the provider called back for this cyclic transfer.
    pub(super) fn periods_of(&self, taken: Word) -> u64 {
        let periods = self.periods.load(Acquire);

        if self.word().generation() == taken.generation() {
            periods
        } else {
            0
        }
    }

    /// Returns what the provider said when it called back for this transfer, if it did.
    #[inline]
    pub(super) fn report(&self, taken: Word) -> Option<Report> {
        if self.word() != taken.with(State::Done) {
            return None;
        }

        let report = Report {
            // CAST: It is the same type, or one of the same size.
            result: self.result.load(Acquire) as bindings::dmaengine_tx_result,
            residue: self.residue.load(Acquire),
        };

        // If this one was terminated after it was done, these may be another's.
        (self.word() == taken.with(State::Done)).then_some(report)
    }

    /// Returns what the provider is to be given for this transfer: the argument of
    /// [`called_back`].
    #[inline]
    pub(super) fn as_param(&self, taken: Word) -> *mut c_void {
        const {
            assert!(
                align_of::<Self>() == ALIGN,
                "the bits of a generation are free"
            );
        }

        core::ptr::from_ref(self)
            .cast_mut()
            .cast::<c_void>()
            .map_addr(|address| address | taken.hint())
    }

    /// Notes that the provider called back for the transfer with that hint.
    fn note(&self, hint: usize, report: Report) {
        let called = loop {
            let old = self.word();

            if old.hint() != hint {
                break false;
            }

            let new = match old.state() {
                State::InFlight => {
                    self.result.store(report.result, Relaxed);
                    self.residue.store(report.residue, Relaxed);
                    State::Done
                }
                State::Abandoned => State::Free,
                State::Cyclic => {
                    self.periods.fetch_add(1, Full);
                    break true;
                }
                State::CyclicAbandoned => break true,
                State::Free | State::Done | State::Polled | State::PolledAbandoned => break false,
            };

            // INVARIANT: The provider called back for it, so it isn't in flight any more.
            if self.exchange(old, old.with(new)) {
                break true;
            }
        };

        // SAFETY: By the type invariants `self` is a part of it.
        unsafe { self.channel.as_ref() }.called_back(called);
    }
}

/// What a provider calls when it is done with a transfer, or with a period of a cyclic one.
///
/// Context: any, in most providers a tasklet, so it doesn't sleep. It frees nothing: only those do
/// who wait.
///
/// # Safety
///
/// `param` must be what [`Slot::as_param`] has returned of a slot that stays until an RCU grace
/// period has passed. `result` must be null, or point to a valid value.
pub(super) unsafe extern "C" fn called_back(
    param: *mut c_void,
    result: *const bindings::dmaengine_result,
) {
    // The channel isn't freed before this is over.
    let _section = Section::enter();

    let hint = param.addr() % ALIGN;

    // SAFETY: By the safety requirements, the slot is where the hint wasn't added.
    let slot = unsafe { &*param.map_addr(|address| address - hint).cast::<Slot>() };

    // SAFETY: By the safety requirements.
    let report = unsafe { result.as_ref() }.map_or(
        Report {
            result: bindings::dmaengine_tx_result_DMA_TRANS_NOERROR,
            residue: 0,
        },
        |result| Report {
            result: result.result,
            residue: result.residue,
        },
    );

    slot.note(hint, report);
}
