// SPDX-License-Identifier: GPL-2.0

//! One transfer at a time.
//!
//! The protocol of the simplest engines: an address, a length and a start bit; later an interrupt,
//! or a bit that goes away. A [`TransferSlot`] owns the engine and the buffer in flight. What a
//! driver holds meanwhile, [`Transfer`], is only a view of the slot: forgetting it, or giving up
//! after a time-out, loses nothing and frees nothing.
//!
//! An interrupt is a hint to look, never a proof: it may be late, shared or meant for the transfer
//! before, and a legacy interrupt isn't ordered against the data. The proof is [`Engine::poll`],
//! which reads a register of the device, or that the device was [stopped](super::Session): then
//! the transfer is over, too, but for nothing.

use super::{
    mapping::{
        mapper::is_same,
        record::Record, //
    },
    session::control::Control,
    Buffer,
    DataDirection,
    Direction,
    DmaAddr,
    FromDevice,
    Mapper,
    Running,
    Streaming,
    StreamingBox,
    ToDevice,
    Untrusted, //
};
use crate::{
    device::Device,
    error::ErrorWith,
    prelude::*,
    sync::WaitQueue,
    time::Delta, //
};
use core::{
    marker::PhantomData,
    ops::Range, //
};

/// What an engine is asked to do, by the [`TransferSlot`] that owns it: nobody else can make one.
#[non_exhaustive]
pub struct Request<'r, T> {
    /// The memory, and how much of it.
    pub memory: DmaAddr<'r>,

    /// Who writes it.
    pub direction: DataDirection,

    /// The other end, in whatever terms the engine has.
    pub target: T,

    /// That the device runs: it takes this to show the address, by [`DmaAddr::to_bits`].
    pub running: &'r Running<'r>,
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
/// - The engine accesses memory as the device that [`device`](Self::device) returns, which is
///   always the same: addresses of another mean something else to it.
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
/// No two values drive the same engine at the same time. A slot calls `start` only when it has no
/// transfer in flight, and `poll` only when it has one. It calls neither while the device is
/// stopped; what `poll` says when it turns out that the device was being stopped meanwhile doesn't
/// count.
///
/// # Examples
///
/// A device with an address, a length, and a bit that is set while it reads:
///
/// ```
/// # use kernel::{device::{Bound, Device}, io::{Io, Mmio, Region}, prelude::*};
/// use kernel::dma::{
///     transfer::{Engine, Progress, Request},
///     DataDirection, Untrusted,
/// };
///
/// struct Reader<'a> {
///     dev: &'a Device<Bound>,
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
/// // It never writes. `start` refuses while it reads. The registers are those of `dev`.
/// unsafe impl Engine for Reader<'_> {
///     type Target = ();
///
///     fn device(&self) -> &Device {
///         self.dev
///     }
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
///         let address = u32::try_from(unsafe { request.memory.to_bits(request.running) })?;
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

    /// Returns the device that accesses memory.
    fn device(&self) -> &Device;

    /// Starts a transfer.
    ///
    /// Must not sleep: the device isn't stopped meanwhile. Context: any.
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
    /// When it was started.
    epoch: u64,
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
    /// The device was stopped before it was done, so it is done now.
    Cancelled,
}

/// An engine and the buffer that it works on.
///
/// Dropping it looks once whether the transfer is over; if not, it quarantines the buffer (see
/// [`Streaming`]). It belongs into the device's [`Session`](super::Session), which stops the
/// device before.
///
/// # Invariants
///
/// - The engine is one of the device of `dma`, or it was never started.
/// - It has a transfer in flight only if `job` is in `State::InFlight`.
///
/// # Examples
///
/// ```
/// # use kernel::{prelude::*, sync::WaitQueue, time::Delta};
/// use kernel::dma::{
///     transfer::{Engine, TransferSlot},
///     Mapper, Streaming, StreamingBox, ToDevice,
/// };
///
/// /// Sends a message; on a time-out it stays in the slot, where the device may still read it.
/// fn send<'a, E: Engine>(
///     slot: &mut TransferSlot<'a, E, KVec<u8>>,
///     dma: Mapper<'a>,
///     irq: &WaitQueue,
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
pub struct TransferSlot<'a, E: Engine, B: Buffer> {
    dma: Mapper<'a>,
    control: &'a Control,
    engine: E,
    job: Option<Job<'a, B>>,
}

impl<'a, E: Engine, B: Buffer> TransferSlot<'a, E, B> {
    /// Creates an empty slot for an engine of the device of `dma`.
    ///
    /// Context: any. Walks the resource list of the device.
    ///
    /// # Errors
    ///
    /// [`EINVAL`] if the engine is one of another device.
    pub fn new(dma: Mapper<'a>, engine: E) -> Result<Self> {
        if !is_same(engine.device(), dma.device()) {
            return Err(EINVAL);
        }

        // INVARIANT: We just checked; no transfer was started.
        Ok(Self {
            dma,
            control: Control::find(dma.device()).ok_or(EINVAL)?,
            engine,
            job: None,
        })
    }

    #[inline]
    fn record(&self) -> &'a Record {
        self.dma.record()
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
    /// The buffer comes back, with
    ///
    /// - [`EBUSY`] if the transfer before is still in flight, or the buffer is: somebody asked for
    ///   its [address](Streaming::address);
    /// - [`EINVAL`] if `range` is empty or not inside the buffer, or if the buffer is mapped for
    ///   another device;
    /// - [`ESHUTDOWN`] if the device is stopped, or wasn't started yet;
    /// - what [`Engine::start`] or [`Engine::poll`] said.
    ///
    /// The CPU can have it then by [`Streaming::take_back`].
    pub fn start<D: OneWay>(
        &mut self,
        buf: Streaming<'a, B, D>,
        range: Range<usize>,
        target: E::Target,
    ) -> Result<Transfer<'_, 'a, E, B, D>, ErrorWith<Streaming<'a, B, D>>> {
        let epoch = match self.try_start(&buf, range.clone(), target) {
            Ok(epoch) => epoch,
            Err(error) => return Err(ErrorWith { error, value: buf }),
        };

        // INVARIANT: The engine has a transfer in flight.
        self.job = Some(Job {
            held: D::hold(buf),
            range,
            epoch,
            state: State::InFlight,
        });

        Ok(Transfer {
            slot: self,
            _direction: PhantomData,
        })
    }

    fn try_start<D: OneWay>(
        &mut self,
        buf: &Streaming<'a, B, D>,
        range: Range<usize>,
        target: E::Target,
    ) -> Result<u64> {
        if !is_same(buf.dma().device(), self.dma.device()) {
            return Err(EINVAL);
        }

        // Another protocol may have shown it.
        if buf.is_shown() {
            return Err(EBUSY);
        }

        self.free_up()?;

        // Nobody stops the device before it is started, and known to be.
        let running = Running::enter(self.record())?;

        let started = buf.address().slice(range).and_then(|memory| {
            self.engine.start(Request {
                memory,
                direction: D::DATA_DIRECTION,
                target,
                running: &running,
            })
        });

        // SAFETY: By the contract of `Engine`, a device that refuses doesn't access the buffer, and
        // nobody else had the address.
        started.inspect_err(|_| unsafe { buf.forget_address() })?;

        Ok(self.record().epoch())
    }

    /// Takes the buffer of a transfer that is over, for instance after [`Transfer::wait`] timed out
    /// or the handle was lost. Of a transfer that was cut short by a stop, nothing is defined.
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

        let Some(job) = self.job.take() else {
            return Ok(None);
        };
        let Job {
            held,
            range,
            epoch,
            state,
        } = job;

        match D::release(held) {
            Ok(buf) => {
                let good = match state {
                    State::Done(len) => len,
                    State::InFlight | State::Nonsense | State::Cancelled => 0,
                };

                // SAFETY: `advance()` said that the transfer is over, hence the device was seen to
                // be done. The good part is inside the range, which is inside the buffer.
                Ok(Some(unsafe {
                    buf.complete(range.start..range.start + good)
                }))
            }
            Err(held) => {
                self.job = Some(Job {
                    held,
                    range,
                    epoch,
                    state,
                });
                Ok(None)
            }
        }
    }

    /// Waits, without an interrupt, until no transfer is in flight.
    ///
    /// Looks every `interval`, when the device was stopped, and at the end, for `timeout` at most.
    /// With an `interval` of zero it looks all the time. Context: may sleep.
    ///
    /// # Errors
    ///
    /// [`ETIMEDOUT`], [`ESHUTDOWN`] if the device was stopped without a proof, or what
    /// [`Engine::poll`] said; the buffer stays in the slot.
    pub fn settle(&mut self, interval: Delta, timeout: Delta) -> Result {
        self.wait_polling(interval, timeout)
    }

    fn wait_polling(&mut self, interval: Delta, timeout: Delta) -> Result {
        self.control
            .stops()
            .poll_until(interval, timeout, || self.look())
            .unwrap_or(Err(ETIMEDOUT))
    }

    fn wait(&mut self, irq: &WaitQueue, timeout: Delta) -> Result {
        // The queue of the slot's device, which may be another one than that of `irq`.
        let stops = self.control.stops();

        irq.wait_until_or(Some(stops), timeout, || self.look())
            .unwrap_or(Err(ETIMEDOUT))
    }

    /// Looks whether there is nothing to wait for: no transfer is in flight, or nobody can tell.
    fn look(&mut self) -> Option<Result> {
        match self.advance() {
            Ok(true) => return Some(Ok(())),
            Ok(false) => {}
            Err(error) => return Some(Err(error)),
        }

        if !self.record().is_settled() {
            return None;
        }

        // The proof may have come since.
        Some(match self.advance() {
            Ok(true) => Ok(()),
            Ok(false) => Err(ESHUTDOWN),
            Err(error) => Err(error),
        })
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

        if !matches!(job.state, State::InFlight) {
            return Ok(true);
        }

        let record = self.dma.record();

        if job.epoch != record.epoch() {
            // INVARIANT: There was a proof since, so the transfer is over.
            job.state = State::Cancelled;
            return Ok(true);
        }

        // While the device is stopped, reset or disarmed, it may look as if it were done; and it
        // may be asleep. There will be a proof, or there is no telling.
        if record.is_closed() {
            return Ok(false);
        }

        let Progress::Done(moved) = self.engine.poll()? else {
            return Ok(false);
        };

        if record.running() != job.epoch {
            return Ok(false);
        }

        // INVARIANT: By the contract of `Engine` the transfer is over.
        job.state = match moved.at_most(job.range.end - job.range.start) {
            Ok(len) => State::Done(len),
            Err(_) => State::Nonsense,
        };

        Ok(true)
    }
}

impl<E: Engine, B: Buffer> Drop for TransferSlot<'_, E, B> {
    fn drop(&mut self) {
        // If the device isn't done, dropping the job quarantines the buffer.
        let _ = self.free_up();
    }
}

/// A transfer that was started: a view of the [`TransferSlot`] that it is in.
///
/// Dropping or forgetting it leaves the transfer to the slot.
///
/// # Examples
///
/// ```
/// # use kernel::{dma::{transfer::{Engine, TransferSlot}, FromDevice, Streaming}};
/// # use kernel::{prelude::*, time::Delta};
/// /// Waits for a short time; what is not over then can be had later.
/// fn receive<'a, E: Engine>(
///     slot: &mut TransferSlot<'a, E, KVec<u8>>,
///     buf: Streaming<'a, KVec<u8>, FromDevice>,
///     source: E::Target,
/// ) -> Result<Option<KVec<u8>>> {
///     let len = buf.len();
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
    slot: &'s mut TransferSlot<'a, E, B>,
    _direction: PhantomData<D>,
}

impl<'a, E: Engine, B: Buffer, D: OneWay> Transfer<'_, 'a, E, B, D> {
    /// Waits for the end of the transfer, looking whenever the interrupt handler wakes `irq`, and
    /// when the device was stopped.
    ///
    /// A lost interrupt costs the whole `timeout`, but not the transfer. Context: may sleep.
    ///
    /// # Errors
    ///
    /// The buffer stays in the slot ([`TransferSlot::take`]) on each of
    ///
    /// - [`ETIMEDOUT`]: the device may still access it;
    /// - [`EIO`]: the device is done, but reports to have moved more than it was asked to;
    /// - [`ESHUTDOWN`]: the device was stopped;
    /// - what [`Engine::poll`] said.
    pub fn wait(self, irq: &WaitQueue, timeout: Delta) -> Result<StreamingBox<'a, B, D>> {
        self.slot.wait(irq, timeout)?;
        self.finish()
    }

    /// Waits for the end of the transfer, looking every `interval`, when the device was stopped,
    /// and at the end.
    ///
    /// For devices without an interrupt. With an `interval` of zero it looks all the time. Context:
    /// may sleep.
    ///
    /// # Errors
    ///
    /// As [`wait`](Self::wait).
    pub fn wait_polling(self, interval: Delta, timeout: Delta) -> Result<StreamingBox<'a, B, D>> {
        self.slot.wait_polling(interval, timeout)?;
        self.finish()
    }

    fn finish(self) -> Result<StreamingBox<'a, B, D>> {
        match self.slot.job {
            Some(Job {
                state: State::Nonsense,
                ..
            }) => Err(EIO),
            Some(Job {
                state: State::Cancelled,
                ..
            }) => Err(ESHUTDOWN),
            // A transfer of direction `D` was started and is over, so the buffer is there.
            _ => self.slot.take()?.ok_or(EIO),
        }
    }
}
