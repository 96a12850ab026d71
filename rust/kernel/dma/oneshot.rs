// SPDX-License-Identifier: GPL-2.0

//! One transfer at a time.
//!
//! The protocol of the simplest engines: an address, a length and a start bit; later an interrupt,
//! or a bit that goes away. A [`Slot`] owns the engine and the buffer in flight. What a driver
//! holds meanwhile, [`Transfer`], is only a view of the slot: forgetting it, or giving up after a
//! time-out, loses nothing and frees nothing.
//!
//! An interrupt is a hint to look, never a proof: it may be late, shared or meant for the transfer
//! before, and a legacy interrupt isn't ordered against the data. The proof is [`Engine::poll`],
//! which reads a register of the device.

use super::{
    Buffer,
    DataDirection,
    Direction,
    DmaAddr,
    FromDevice,
    MapError,
    Streaming,
    StreamingBox,
    ToDevice,
    Untrusted, //
};
use crate::{
    prelude::*,
    sync::Completion,
    time::{
        delay::fsleep,
        msecs_to_jiffies,
        Delta,
        Instant,
        Monotonic, //
    }, //
};
use core::{
    marker::PhantomData,
    ops::Range, //
};

/// What an engine is asked to do, by the [`Slot`] that owns it: nobody else can make one.
#[non_exhaustive]
pub struct Request<'r, T> {
    /// The memory, and how much of it.
    pub memory: DmaAddr<'r>,

    /// Who writes it.
    pub direction: DataDirection,

    /// The other end, in whatever terms the engine has.
    pub target: T,
}

/// How far a transfer is.
pub enum Progress {
    /// The device may still access the memory.
    Busy,

    /// The device is done with the memory, and reports to have moved that many bytes.
    Done(Untrusted<usize>),
}

/// A device that moves one piece of memory at a time.
///
/// # Safety
///
/// The implementation establishes how the hardware behaves:
///
/// - After [`start`](Self::start) returned `Ok`, the device accesses nothing but `request.memory`,
///   writes it only if `request.direction` says so, and is done with it when
///   [`poll`](Self::poll) returns [`Progress::Done`].
/// - After `start` returned an error, the device doesn't access `request.memory` at all.
/// - `poll` returns `Done` only if it has read, in this call, a register of the device that proves
///   that the transfer which was started last is over. (The read also pushes what the device wrote
///   before on its way to memory.)
/// - `poll` returns an error if it can't tell, for instance because the device is gone.
/// - Both access the device in order with memory (`Io::read32()`, not `Io::relaxed()`): on a
///   coherent device there is no other barrier.
/// - If the hardware is at work already, for an engine or a driver that went before it was done,
///   `start` waits or returns an error.
///
/// A slot calls `start` only when it has no transfer in flight, and `poll` only when it has one.
///
/// # Examples
///
/// A device with an address, a length, and a bit that is set while it reads:
///
/// ```
/// # use kernel::{io::{Io, Mmio, Region}, prelude::*};
/// use kernel::dma::{
///     oneshot::{Engine, Progress, Request},
///     DataDirection, Untrusted,
/// };
///
/// struct Reader<'a> {
///     registers: Mmio<'a, Region<16>>,
///     len: usize,
/// }
///
/// impl Reader<'_> {
///     /// Returns whether the device reads. One that was unplugged reads as all ones or all zeros,
///     /// but has no identification then.
///     fn is_busy(&self) -> Result<bool> {
///         let busy = self.registers.read32(8) & 1 == 1;
///
///         if self.registers.read32(12) != 0x1234 {
///             return Err(ENODEV);
///         }
///
///         Ok(busy)
///     }
/// }
///
/// // SAFETY: The device reads the memory after `start`, and clears the bit at 8 when it is done.
/// // It never writes. `start` refuses while it reads.
/// unsafe impl Engine for Reader<'_> {
///     type Target = ();
///
///     fn start(&mut self, request: Request<'_, ()>) -> Result {
///         if request.direction != DataDirection::ToDevice {
///             return Err(EINVAL);
///         }
///         if self.is_busy()? {
///             return Err(EBUSY);
///         }
///
///         // SAFETY: The device is done with it when `poll` says so.
///         let address = u32::try_from(unsafe { request.memory.to_bits() })?;
///
///         self.len = request.memory.len();
///         self.registers.write32(address, 0);
///         self.registers.write32(self.len.try_into()?, 4);
///         self.registers.write32(1, 8);
///         Ok(())
///     }
///
///     fn poll(&mut self) -> Result<Progress> {
///         if self.is_busy()? {
///             return Ok(Progress::Busy);
///         }
///
///         Ok(Progress::Done(Untrusted::new(self.len)))
///     }
/// }
/// ```
pub unsafe trait Engine: Send {
    /// What is at the other end, for instance an address in the device's own memory.
    type Target: Copy;

    /// Starts a transfer.
    ///
    /// Context: any.
    ///
    /// # Errors
    ///
    /// If the request doesn't suit the device; nothing was started then.
    fn start(&mut self, request: Request<'_, Self::Target>) -> Result;

    /// Looks how far the transfer is.
    ///
    /// Context: any.
    ///
    /// # Errors
    ///
    /// If there is no telling, now or ever: [`ENODEV`] when the device is gone.
    fn poll(&mut self) -> Result<Progress>;
}

mod private {
    use super::*;

    /// A buffer in flight, whichever way.
    pub enum Held<'a, B: Buffer> {
        ToDevice(Streaming<'a, B, ToDevice>),
        FromDevice(Streaming<'a, B, FromDevice>),
    }

    /// How to put a buffer away, and how to get it back.
    pub trait Hold: Direction {
        fn hold<B: Buffer>(streaming: Streaming<'_, B, Self>) -> Held<'_, B>
        where
            Self: Sized;

        fn release<B: Buffer>(held: Held<'_, B>) -> Result<Streaming<'_, B, Self>, Held<'_, B>>
        where
            Self: Sized;
    }
}
use private::{
    Held,
    Hold, //
};

/// A direction in which a slot can move data: [`ToDevice`] or [`FromDevice`].
pub trait OneWay: Hold {}

impl OneWay for ToDevice {}
impl OneWay for FromDevice {}

impl Hold for ToDevice {
    #[inline]
    fn hold<B: Buffer>(streaming: Streaming<'_, B, Self>) -> Held<'_, B> {
        Held::ToDevice(streaming)
    }

    #[inline]
    fn release<B: Buffer>(held: Held<'_, B>) -> Result<Streaming<'_, B, Self>, Held<'_, B>> {
        match held {
            Held::ToDevice(streaming) => Ok(streaming),
            other => Err(other),
        }
    }
}

impl Hold for FromDevice {
    #[inline]
    fn hold<B: Buffer>(streaming: Streaming<'_, B, Self>) -> Held<'_, B> {
        Held::FromDevice(streaming)
    }

    #[inline]
    fn release<B: Buffer>(held: Held<'_, B>) -> Result<Streaming<'_, B, Self>, Held<'_, B>> {
        match held {
            Held::FromDevice(streaming) => Ok(streaming),
            other => Err(other),
        }
    }
}

/// What a slot keeps of a transfer.
struct Job<'a, B: Buffer> {
    held: Held<'a, B>,
    /// The part of the buffer that the device was pointed at.
    range: Range<usize>,
    state: State,
}

#[derive(Clone, Copy)]
enum State {
    /// The device may access the buffer.
    InFlight,
    /// The device is done, and that many bytes from the start of the range are good.
    Done(usize),
    /// The device is done, and said something impossible.
    Nonsense,
}

/// An engine and the buffer that it works on.
///
/// Dropping it looks once whether the transfer is over; if not, it quarantines the buffer (see
/// [`Streaming`]). Drivers call [`settle`](Self::settle) before, where they may sleep: at unbind.
///
/// # Invariants
///
/// The engine has a transfer in flight if and only if `job` is in `State::InFlight`.
///
/// # Examples
///
/// ```
/// # use kernel::{prelude::*, sync::Completion, time::Delta};
/// use kernel::dma::{
///     oneshot::{Engine, Slot},
///     Configured, Streaming, StreamingBox, ToDevice,
/// };
///
/// /// Sends a message; on a time-out it stays in the slot, where the device may still read it.
/// fn send<'a, E: Engine>(
///     slot: &mut Slot<'a, E, KVec<u8>>,
///     dma: Configured<'a>,
///     irq: &Completion,
///     target: E::Target,
///     msg: KVec<u8>,
/// ) -> Result<KVec<u8>> {
///     let len = msg.len();
///     let msg = Streaming::map(dma, msg)?;
///     let transfer = slot.start(msg, 0..len, target)?;
///     let sent: StreamingBox<'_, _, ToDevice> = transfer.wait(irq, Delta::from_millis(500))?;
///
///     Ok(sent.unmap())
/// }
/// ```
pub struct Slot<'a, E: Engine, B: Buffer> {
    engine: E,
    job: Option<Job<'a, B>>,
}

impl<'a, E: Engine, B: Buffer> Slot<'a, E, B> {
    /// Creates an empty slot for an engine.
    ///
    /// The engine must be idle; what an earlier driver started must be over.
    #[inline]
    pub fn new(engine: E) -> Self {
        // INVARIANT: No transfer was started.
        Self { engine, job: None }
    }

    /// Returns the engine.
    #[inline]
    pub fn engine(&self) -> &E {
        &self.engine
    }

    /// Starts moving `range` of a buffer.
    ///
    /// If an earlier transfer has come to its end since, and nobody took its buffer, the buffer is
    /// released here.
    ///
    /// Context: any.
    ///
    /// # Errors
    ///
    /// The buffer comes back, owned by the CPU, with
    ///
    /// - [`EBUSY`] if the transfer before is still in flight;
    /// - [`EINVAL`] if `range` is empty or not inside the buffer;
    /// - what [`Engine::start`] or [`Engine::poll`] said.
    pub fn start<D: OneWay>(
        &mut self,
        buf: Streaming<'a, B, D>,
        range: Range<usize>,
        target: E::Target,
    ) -> Result<Transfer<'_, 'a, E, B, D>, MapError<StreamingBox<'a, B, D>>> {
        let started = self.free_up().and_then(|()| {
            self.engine.start(Request {
                memory: buf.address().slice(range.clone())?,
                direction: D::DATA_DIRECTION,
                target,
            })
        });

        if let Err(error) = started {
            let len = buf.address().len();
            // SAFETY: By the contract of `Engine`, the device doesn't access the buffer.
            let value = unsafe { buf.complete(0..len) };

            return Err(MapError { error, value });
        }

        // INVARIANT: The engine has a transfer in flight.
        self.job = Some(Job {
            held: D::hold(buf),
            range,
            state: State::InFlight,
        });

        Ok(Transfer {
            slot: self,
            _direction: PhantomData,
        })
    }

    /// Takes the buffer of a transfer that is over, for instance after [`Transfer::wait`] timed out
    /// or the handle was lost.
    ///
    /// Returns [`None`] if there is none, if it moved the other way, or if it is still in flight.
    ///
    /// Context: any.
    ///
    /// # Errors
    ///
    /// What [`Engine::poll`] said; the buffer stays.
    pub fn take<D: OneWay>(&mut self) -> Result<Option<StreamingBox<'a, B, D>>> {
        if !self.advance()? {
            return Ok(None);
        }

        let Some(Job { held, range, state }) = self.job.take() else {
            return Ok(None);
        };

        match D::release(held) {
            Ok(buf) => {
                let good = match state {
                    State::Done(len) => len,
                    State::InFlight | State::Nonsense => 0,
                };

                // SAFETY: `advance()` said that the transfer is over, hence the device was seen to
                // be done. The good part is inside the range, which is inside the buffer.
                Ok(Some(unsafe {
                    buf.complete(range.start..range.start + good)
                }))
            }
            Err(held) => {
                self.job = Some(Job { held, range, state });
                Ok(None)
            }
        }
    }

    /// Waits, without an interrupt, until no transfer is in flight.
    ///
    /// Looks every `interval`, for `timeout` at most. Context: may sleep.
    ///
    /// # Errors
    ///
    /// [`ETIMEDOUT`], or what [`Engine::poll`] said; the buffer stays in the slot.
    pub fn settle(&mut self, interval: Delta, timeout: Delta) -> Result {
        let start = Instant::<Monotonic>::now();

        while !self.advance()? {
            if start.elapsed() > timeout {
                return Err(ETIMEDOUT);
            }

            fsleep(interval);
        }

        Ok(())
    }

    /// Makes room for the next transfer.
    fn free_up(&mut self) -> Result {
        if !self.advance()? {
            return Err(EBUSY);
        }

        if let Some(Job { held, .. }) = self.job.take() {
            // SAFETY: `advance()` said that the transfer is over, hence the device was seen to be
            // done. Nothing of what it wrote is wanted.
            unsafe {
                match held {
                    Held::ToDevice(buf) => drop(buf.complete(0..0)),
                    Held::FromDevice(buf) => drop(buf.complete(0..0)),
                }
            }
        }

        Ok(())
    }

    /// Returns whether no transfer is in flight (any more).
    #[inline]
    fn advance(&mut self) -> Result<bool> {
        let Some(job) = &mut self.job else {
            return Ok(true);
        };

        if matches!(job.state, State::InFlight) {
            let Progress::Done(moved) = self.engine.poll()? else {
                return Ok(false);
            };

            // INVARIANT: By the contract of `Engine` the transfer is over.
            job.state = match moved.at_most(job.range.end - job.range.start) {
                Ok(len) => State::Done(len),
                Err(_) => State::Nonsense,
            };
        }

        Ok(true)
    }
}

impl<E: Engine, B: Buffer> Drop for Slot<'_, E, B> {
    fn drop(&mut self) {
        // If the device isn't done, dropping the job quarantines the buffer.
        let _ = self.free_up();
    }
}

/// A transfer that was started: a view of the [`Slot`] that it is in.
///
/// Dropping or forgetting it leaves the transfer to the slot.
///
/// # Examples
///
/// ```
/// # use kernel::{dma::{oneshot::{Engine, Slot}, FromDevice, Streaming}, prelude::*, time::Delta};
/// /// Waits for a short time; what is not over then can be had later.
/// fn receive<'a, E: Engine>(
///     slot: &mut Slot<'a, E, KVec<u8>>,
///     buf: Streaming<'a, KVec<u8>, FromDevice>,
///     source: E::Target,
/// ) -> Result<Option<KVec<u8>>> {
///     let len = buf.address().len();
///     let transfer = slot.start(buf, 0..len, source)?;
///
///     match transfer.wait_polling(Delta::from_micros(100), Delta::from_millis(1)) {
///         Ok(buf) => Ok(Some(buf.unmap())),
///         Err(e) if e == ETIMEDOUT => Ok(slot.take::<FromDevice>()?.map(|buf| buf.unmap())),
///         Err(e) => Err(e),
///     }
/// }
/// ```
#[must_use = "the transfer goes on without it; wait for it, or ask the slot later"]
pub struct Transfer<'s, 'a, E: Engine, B: Buffer, D: OneWay> {
    slot: &'s mut Slot<'a, E, B>,
    _direction: PhantomData<D>,
}

impl<'a, E: Engine, B: Buffer, D: OneWay> Transfer<'_, 'a, E, B, D> {
    /// Waits for the end of the transfer, looking whenever the interrupt handler completes `irq`.
    ///
    /// A lost interrupt costs the whole `timeout`, but not the transfer. Context: may sleep.
    ///
    /// # Errors
    ///
    /// The buffer stays in the slot ([`Slot::take`]) on each of
    ///
    /// - [`ETIMEDOUT`]: the device may still access it;
    /// - [`EIO`]: the device is done, but reports to have moved more than it was asked to;
    /// - what [`Engine::poll`] said.
    pub fn wait(self, irq: &Completion, timeout: Delta) -> Result<StreamingBox<'a, B, D>> {
        self.wait_with(timeout, |left| {
            // One more than needed, so that the last look comes after the time-out.
            // CAST: Bounded by the time-out, and a time-out beyond 49 days is cut.
            let ms = left.as_millis().clamp(0, i64::from(u32::MAX - 1)) as u32 + 1;

            irq.wait_for_completion_timeout(msecs_to_jiffies(ms));
        })
    }

    /// Waits for the end of the transfer, looking every `interval`.
    ///
    /// For devices without an interrupt. Context: may sleep.
    ///
    /// # Errors
    ///
    /// As [`wait`](Self::wait).
    pub fn wait_polling(self, interval: Delta, timeout: Delta) -> Result<StreamingBox<'a, B, D>> {
        self.wait_with(timeout, |_| fsleep(interval))
    }

    fn wait_with(
        self,
        timeout: Delta,
        mut pause: impl FnMut(Delta),
    ) -> Result<StreamingBox<'a, B, D>> {
        let start = Instant::<Monotonic>::now();

        loop {
            // Before looking: a time-out must not hide a transfer that ended during the last pause.
            let left = timeout
                .as_nanos()
                .saturating_sub(start.elapsed().as_nanos());

            if self.slot.advance()? {
                return self.finish();
            }

            if left <= 0 {
                return Err(ETIMEDOUT);
            }

            pause(Delta::from_nanos(left));
        }
    }

    fn finish(self) -> Result<StreamingBox<'a, B, D>> {
        if let Some(Job {
            state: State::Nonsense,
            ..
        }) = self.slot.job
        {
            return Err(EIO);
        }

        // A transfer of direction `D` was started and is over, so the buffer is there.
        self.slot.take()?.ok_or(EIO)
    }
}
