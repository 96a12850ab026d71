// SPDX-License-Identifier: GPL-2.0

//! Transfers that go round and round.

use super::{
    super::{
        OneWay,
        Shared,
        SharedBox, //
    },
    channel::Place,
    peripheral::transfer_direction,
    slot::State,
    Channel,
    Peripheral,
    Status, //
};
use crate::{
    bindings,
    error::ErrorWith,
    prelude::*,
    ptr::KnownSize,
    time::Delta, //
};
use core::{
    marker::PhantomData,
    mem::ManuallyDrop,
    ops::Deref, //
};

/// A transfer that goes round in a buffer until it is stopped: sound, samples of a sensor, a serial
/// port that never rests (C: `dmaengine_prep_dma_cyclic()`).
///
/// The buffer is divided into periods, and the provider calls back after each. The CPU and the
/// engine use it at the same time. So it is [`Shared`] memory, to which a `Cyclic` dereferences.
/// What the CPU reads there is [`Untrusted`](super::super::Untrusted).
///
/// [`stop`](Self::stop) ends it, with all other transfers of the channel. Dropping it doesn't: the
/// engine goes on, and the memory is in quarantine until the channel is terminated or released.
/// Forgetting it leaks the memory.
///
/// # Invariants
///
/// The engine accesses `memory` in the epoch of `place`, and not after it.
///
/// # Examples
///
/// ```
/// # use kernel::{dma::{dmaengine::{Channel, Cyclic, Peripheral}, FromDevice, SharedBox}};
/// # use kernel::{prelude::*, time::Delta};
/// /// Records until four periods are full, and returns the first sample.
/// fn record(channel: &Channel<'_>, fifo: Peripheral) -> Result<u32> {
///     let memory = SharedBox::<[u32; 256]>::new(channel.mapper(), GFP_KERNEL)?;
///     let recording = Cyclic::<_, FromDevice>::start(channel, memory.submit(), 256, fifo)?;
///
///     recording.wait_period(4, Delta::from_secs(1))?;
///     let memory = recording.stop()?;
///
///     Ok(memory[0])
/// }
/// ```
#[must_use = "the engine goes on until the channel is terminated"]
pub struct Cyclic<'c, T: ?Sized + KnownSize, D: OneWay> {
    channel: &'c Channel<'c>,
    place: Place<'c>,
    memory: ManuallyDrop<Shared<'c, T>>,
    _direction: PhantomData<D>,
}

impl<'c, T: ?Sized + KnownSize, D: OneWay> Cyclic<'c, T, D> {
    /// Starts the transfer. The provider calls back after each `period` bytes.
    ///
    /// Context: any.
    ///
    /// # Errors
    ///
    /// The memory comes back, with
    ///
    /// - [`EINVAL`] if it isn't that of the channel's [mapper](Channel::mapper), if somebody asked
    ///   for its address, or if it isn't a multiple of `period`;
    /// - [`EBUSY`] if too many transfers are in flight;
    /// - [`EOPNOTSUPP`] if the channel can't do this;
    /// - [`ESHUTDOWN`] if transfers are being terminated, or couldn't be terminated;
    /// - [`ENOMEM`] if the provider can't prepare it, and what it says on submission.
    pub fn start(
        channel: &'c Channel<'_>,
        memory: Shared<'c, T>,
        period: usize,
        peripheral: Peripheral,
    ) -> Result<Self, ErrorWith<Shared<'c, T>>> {
        // The channel's own lifetime says how long it could be lent, which doesn't matter here.
        let channel: &'c Channel<'c> = channel;

        match Self::try_start(channel, &memory, period, peripheral) {
            // INVARIANT: It was just submitted.
            Ok(place) => Ok(Self {
                channel,
                place,
                memory: ManuallyDrop::new(memory),
                _direction: PhantomData,
            }),
            Err(error) => Err(ErrorWith {
                error,
                value: memory,
            }),
        }
    }

    fn try_start(
        channel: &'c Channel<'_>,
        memory: &Shared<'_, T>,
        period: usize,
        peripheral: Peripheral,
    ) -> Result<Place<'c>> {
        let inner = channel.inner();
        let len = memory.size();

        if !memory.dma().has_record(inner.record()) {
            return Err(EINVAL);
        }

        if period == 0 || len % period != 0 {
            return Err(EINVAL);
        }

        // SAFETY: The channel is requested.
        if !unsafe {
            bindings::dmaengine_can_do(
                inner.chan().as_ptr(),
                bindings::dma_transaction_type_DMA_CYCLIC,
            )
        } {
            return Err(EOPNOTSUPP);
        }

        if memory.is_shown() {
            return Err(EINVAL);
        }

        let address = memory.address().bits();
        let mut config = peripheral.to_config::<D>();

        // SAFETY: The memory is kept until the channel has another epoch; if it is dropped, it is
        // put away. It is memory for the device of the channel, as was checked.
        let submitted = unsafe {
            inner.submit(State::Cyclic, |chan, flags| {
                bindings::dmaengine_prep_config_cyclic(
                    chan,
                    address,
                    len,
                    period,
                    transfer_direction::<D>(),
                    flags,
                    &mut config,
                )
            })
        };

        match submitted {
            Ok(place) => {
                // If transfers are being terminated, this one is, too.
                let _ = inner.issue_pending();

                Ok(place)
            }
            Err(error) => {
                // SAFETY: The engine was told nothing; the address is gone.
                unsafe { memory.forget_address() };
                Err(error)
            }
        }
    }

    fn is_over(&self) -> bool {
        self.channel.inner().is_terminated(self.place)
    }

    /// Returns after how many periods the provider has called back. It may be late, so more may be
    /// full.
    pub fn periods(&self) -> u64 {
        self.place.slot.periods_of(self.place.word)
    }

    /// Sleeps until the provider has called back for `count` periods, from the start on.
    ///
    /// Context: may sleep.
    ///
    /// # Errors
    ///
    /// [`ETIMEDOUT`] after `timeout`; [`ECANCELED`] if the transfer was terminated.
    pub fn wait_period(&self, count: u64, timeout: Delta) -> Result {
        self.channel
            .inner()
            .events()
            .wait_until(timeout, || {
                if self.is_over() {
                    return Some(Err(ECANCELED));
                }

                (self.periods() >= count).then_some(Ok(()))
            })
            .unwrap_or(Err(ETIMEDOUT))
    }

    /// Asks the provider where in the buffer the engine is (C: `dmaengine_tx_status()`).
    ///
    /// The residue is what is left to the end of the buffer. Context: any.
    pub fn status(&self) -> Status {
        if self.is_over() {
            return Status::Complete;
        }

        // SAFETY: The channel is borrowed, so it wasn't released. The cookie is one of its own.
        unsafe { Status::ask(self.channel.inner().chan(), self.place.cookie) }
    }

    /// Terminates all transfers of the channel, and returns the memory.
    ///
    /// Context: may sleep; not in a [`Handler`](super::Handler).
    ///
    /// # Errors
    ///
    /// `self` comes back, as from [`Channel::terminate_sync`].
    pub fn stop(self) -> Result<SharedBox<'c, T>, ErrorWith<Self>> {
        // Somebody else may have done so, and started something new since.
        if !self.is_over() {
            if let Err(error) = self.channel.terminate_sync() {
                return Err(ErrorWith { error, value: self });
            }
        }

        let mut this = ManuallyDrop::new(self);

        // SAFETY: `this` is not dropped and not used afterwards.
        let memory = unsafe { ManuallyDrop::take(&mut this.memory) };

        // SAFETY:
        // 1. and 2. All transfers of the channel were terminated.
        // 3. Nobody but `try_start()` has asked for the address; it gave it to the engine.
        Ok(unsafe { memory.complete() })
    }
}

impl<'c, T: ?Sized + KnownSize, D: OneWay> Deref for Cyclic<'c, T, D> {
    type Target = Shared<'c, T>;

    fn deref(&self) -> &Self::Target {
        &self.memory
    }
}

impl<'c, T: ?Sized + KnownSize, D: OneWay> Drop for Cyclic<'c, T, D> {
    fn drop(&mut self) {
        // SAFETY: `self` is not used afterwards.
        let memory = unsafe { ManuallyDrop::take(&mut self.memory) };

        if self.is_over() {
            // SAFETY: As in `stop()`.
            drop(unsafe { memory.complete() });
            return;
        }

        self.place.slot.abandon(self.place.word);

        // Dropping it puts the memory away.
    }
}
