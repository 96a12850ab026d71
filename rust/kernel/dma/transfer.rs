// SPDX-License-Identifier: GPL-2.0

//! Transfers, one at a time: for a device that moves one buffer when it is told to.
//!
//! Such a device has registers for an address and a length, and a start bit. Later it raises an
//! interrupt, or clears a busy bit. A driver implements [`Engine`] for these registers, once, and
//! puts it into a [`TransferSlot`], which owns the engine and the buffer in flight:
//!
//! 1. Map a buffer: [`Streaming::map`].
//! 2. [`TransferSlot::start`] hands it to the device, and returns a [`Transfer`].
//! 3. [`Transfer::wait`] sleeps until the device is done, and returns a [`StreamingBox`].
//!
//! A `Transfer` is only a view of the slot. A driver that drops or forgets it, or gives up after a
//! time-out, loses nothing: [`TransferSlot::take`] returns the buffer later.
//!
//! A transfer is over when [`Engine::poll`] has read so from a register of the device, or when the
//! device was [stopped](super::Session); a stop leaves no valid bytes. An interrupt is only a hint
//! to look. It may be late, shared or meant for the transfer before, and a legacy interrupt may
//! arrive before the data.
//!
//! For a device with a ring of descriptors there is [`ring`](super::ring).

use super::{
    mapping::{
        mapper::is_same,
        one_way::EitherWay,
        record::Record, //
    },
    session::control::Control,
    Buffer,
    DataDirection,
    DmaAddr,
    Mapper,
    OneWay,
    Running,
    Streaming,
    StreamingBox,
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

/// What an [`Engine`] is asked to do. Only the [`TransferSlot`] that owns the engine makes one.
#[non_exhaustive]
pub struct Request<'r, T> {
    /// The memory that the device is to access, with its length.
    pub memory: DmaAddr<'r>,

    /// Whether the device reads or writes it.
    pub direction: DataDirection,

    /// The other end of the transfer, as the driver gave it to [`TransferSlot::start`].
    pub target: T,

    /// The permission to show the address: [`DmaAddr::to_bits`] takes it.
    pub running: &'r Running<'r>,
}

/// Whether a transfer is over.
pub enum Progress {
    /// The device may still access the memory.
    Busy,

    /// The completion: the device is done with the memory, and reports that it has moved that many
    /// bytes. For a device that reports no number, it is the length of the request.
    Done(Untrusted<usize>),
}

/// The registers of a device that moves one piece of memory at a time.
///
/// Implement this once for a device, in the one file of its driver that says `unsafe`. The slot
/// gives a buffer back because of what [`poll`](Self::poll) returns, so a false answer corrupts
/// memory. Check each point of the contract against the data sheet, and answer it number by number.
///
/// # Safety
///
/// 1. The hardware accesses memory as the device that [`device`](Self::device) returns, which is
///    always the same. A bus address is valid for one device only.
/// 2. After [`start`](Self::start) returned `Ok`, the device accesses nothing but `request.memory`,
///    and only in `request.direction`.
/// 3. After `start` returned an error, the device doesn't access `request.memory`. So whatever can
///    fail comes before the write that starts the transfer.
/// 4. `poll` returns [`Progress::Done`] only if it has read, in this call, a register of the device
///    that proves that the transfer which was started last is over: the device doesn't access the
///    memory any more. (On PCI, that read also makes what the device wrote before arrive in memory.
///    In the data sheet: is the bit set after the last byte was written, or earlier?)
/// 5. `poll` returns an error if it can't tell, for instance because the device is gone. (An
///    unplugged device reads as all ones, in some machines as zeros.)
/// 6. Both methods access registers in order with memory, by `Io::read32()` and `Io::write32()`,
///    not by `Io::relaxed()`. On a coherent device there is no other barrier.
/// 7. If the hardware is at work already, for instance for an earlier driver, `start` waits until
///    it is done, or returns an error.
/// 8. No two values drive the same hardware at the same time.
///
/// # When it is called
///
/// A slot calls `start` only when it has no transfer in flight, and `poll` only when it has one. It
/// calls neither while the device is stopped. If the device is stopped during a call of `poll`, the
/// result of that call is ignored.
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
///     /// Returns whether the device is reading. An unplugged one has no identification.
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
/// // SAFETY: By the numbers of the contract:
/// // 1. The registers are those of `dev`.
/// // 2. The device reads as many bytes as the register at 4 says. It never writes.
/// // 3. It reads when the bit at 8 is set, which is the last thing that `start` does.
/// // 4. It clears that bit when it has read all bytes.
/// // 5. `is_busy` fails if the device has no identification.
/// // 6. `read32()` and `write32()` are ordered.
/// // 7. `start` refuses while the bit is set.
/// // 8. The driver makes one `Reader` for a device.
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
///         // SAFETY:
///         // 1. The memory and `running` are those of `dev`.
///         // 2. The device reads this many bytes, and `direction` is `ToDevice`.
///         // 3. It stops before `poll` returns `Done`, and when it is stopped.
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
    /// The other end of a transfer, for instance an address in the device's own memory.
    type Target: Copy;

    /// Returns the device that accesses memory.
    fn device(&self) -> &Device;

    /// Starts a transfer.
    ///
    /// It must not sleep, since it runs in an RCU read-side section. Context: any.
    ///
    /// # Errors
    ///
    /// Any, if the device can't do what is requested, or is busy. Nothing was started then.
    fn start(&mut self, request: Request<'_, Self::Target>) -> Result;

    /// Reads from the device whether the transfer is over.
    ///
    /// It must not sleep. Context: any.
    ///
    /// # Errors
    ///
    /// Any, if that can't be read, now or ever. [`ENODEV`] if the device is gone.
    fn poll(&mut self) -> Result<Progress>;
}

/// What a slot keeps of a transfer.
struct Job<'a, B: Buffer> {
    held: EitherWay<'a, B>,
    /// The part of the buffer that the device was pointed at.
    range: Range<usize>,
    /// The epoch in which it was started.
    epoch: u64,
    state: State,
}

#[derive(Clone, Copy)]
enum State {
    /// The device may access the buffer.
    InFlight,
    /// The device is done, and that many bytes from the start of the range are valid.
    Done(usize),
    /// The device is done, and reported more bytes than it was asked to move.
    Nonsense,
    /// The device was stopped before it was done. No bytes are valid.
    Cancelled,
}

/// An engine, and the buffer that is in flight.
///
/// Keep it in the device's [`Session`](super::Session), whose contents are freed after a stop only.
/// For several threads, put it into a lock.
///
/// Dropping it looks once whether the transfer is over. If it isn't, the buffer is quarantined (see
/// [`Streaming`]). Context of dropping it: any in which a `B` may be dropped.
///
/// # Invariants
///
/// - The engine drives the device of `dma`.
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
/// /// Sends a message. After a time-out the message is still in the slot.
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
    /// Makes an empty slot for an engine of the device of `dma`.
    ///
    /// Context: any. This walks the resource list of the device, so call it in `probe()`.
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
            control: Control::find(dma.bound()).ok_or(EINVAL)?,
            engine,
            job: None,
        })
    }

    #[inline]
    fn record(&self) -> &'a Record {
        self.dma.record()
    }

    /// Returns the engine, for tests.
    #[cfg(CONFIG_RUST_DMA_KUNIT_TEST)]
    pub(in crate::dma) fn engine(&self) -> &E {
        &self.engine
    }

    /// Starts a transfer of the bytes `range` of a buffer.
    ///
    /// If an earlier transfer is over, and nobody has taken its buffer, that buffer is freed here.
    ///
    /// Context: any.
    ///
    /// # Errors
    ///
    /// The buffer comes back, and [`Streaming::take_back`] gives it to the CPU, with
    ///
    /// - [`EBUSY`] if the transfer before is still in flight;
    /// - [`EINVAL`] if somebody asked for the [address](Streaming::address) of the buffer, since it
    ///   may be in flight elsewhere. This buffer can't be taken back;
    /// - [`EINVAL`] if `range` is empty or not inside the buffer, or if the buffer is mapped for
    ///   another device;
    /// - [`ESHUTDOWN`] if the device is stopped, or wasn't started yet;
    /// - what [`Engine::start`] or [`Engine::poll`] returned.
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

        // Another protocol may have shown it to the device.
        if buf.is_shown() {
            return Err(EINVAL);
        }

        self.free_up()?;

        // The device isn't stopped until the transfer is started and its epoch was read.
        let running = Running::enter(self.record())?;

        let started = buf.address().slice(range).and_then(|memory| {
            self.engine.start(Request {
                memory,
                direction: D::DATA_DIRECTION,
                target,
                running: &running,
            })
        });

        // SAFETY: By point 3 of the contract of `Engine`, the device doesn't access the buffer
        // after an error. Nobody else has asked for the address, as was checked above.
        started.inspect_err(|_| unsafe { buf.forget_address() })?;

        Ok(self.record().epoch())
    }

    /// Takes the buffer of a transfer that is over: after [`Transfer::wait`] has timed out, or when
    /// the [`Transfer`] was dropped.
    ///
    /// Returns [`None`] if the slot is empty, if the transfer is still in flight, or if it had the
    /// other direction. [`StreamingBox::bytes`] are the bytes that the device reported to have
    /// moved. They are none if a stop ended the transfer, or if the device reported more than it
    /// was asked to move.
    ///
    /// Context: any.
    ///
    /// # Errors
    ///
    /// What [`Engine::poll`] returned; the buffer stays in the slot.
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

                // SAFETY: `advance()` has seen that the transfer is over, so the device is done.
                // The good part is inside the range, which is inside the buffer.
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

    /// Waits, without an interrupt, until no transfer is in flight. The buffer stays in the slot.
    ///
    /// It looks every `interval`, when the device was stopped, and after `timeout`. With an
    /// `interval` of zero it looks all the time. Context: may sleep.
    ///
    /// # Errors
    ///
    /// - [`ETIMEDOUT`] if the transfer is still in flight after `timeout`;
    /// - [`ESHUTDOWN`] if the device was stopped without a proof;
    /// - what [`Engine::poll`] returned.
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
        // `irq` is the driver's queue. A stop wakes that of the device.
        let stops = self.control.stops();

        irq.wait_until_or(Some(stops), timeout, || self.look())
            .unwrap_or(Err(ETIMEDOUT))
    }

    /// Returns [`Some`] if there is nothing to wait for: no transfer is in flight, or nothing will
    /// tell that it is over.
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
            // SAFETY: `advance()` has seen that the transfer is over, so the device is done. An
            // empty range is inside the buffer.
            unsafe {
                match held {
                    EitherWay::ToDevice(buf) => drop(buf.complete(0..0)),
                    EitherWay::FromDevice(buf) => drop(buf.complete(0..0)),
                }
            }
        }

        Ok(())
    }

    /// Asks the device if need be, and returns whether no transfer is in flight.
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

        // A device that is being stopped, reset or disarmed may look as if it were done, and may be
        // asleep. So it isn't asked: there will be a proof, or nothing is known.
        if record.is_closed() {
            return Ok(false);
        }

        let Progress::Done(moved) = self.engine.poll()? else {
            return Ok(false);
        };

        if record.running() != job.epoch {
            return Ok(false);
        }

        // INVARIANT: By point 4 of the contract of `Engine` the transfer is over.
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

/// A transfer that was started, to be waited for.
///
/// It is a view of the [`TransferSlot`] that owns the buffer. Dropping or forgetting it changes
/// nothing: the transfer goes on, and [`TransferSlot::take`] returns the buffer later.
///
/// # Examples
///
/// ```
/// # use kernel::{dma::{transfer::{Engine, TransferSlot}, FromDevice, Streaming}};
/// # use kernel::{prelude::*, time::Delta};
/// /// Waits for a short time. After a time-out, `slot.take()` may return the buffer later.
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
    /// Sleeps until the transfer is over, and returns the buffer.
    ///
    /// It looks at once, whenever the interrupt handler wakes `irq`, when the device was stopped,
    /// and after `timeout`. So if an interrupt is lost, this takes the whole `timeout` and then
    /// returns the buffer. (C: `wait_for_completion_timeout()`.) Context: may sleep.
    ///
    /// # Errors
    ///
    /// The buffer stays in the slot, from which [`TransferSlot::take`] may return it, with
    ///
    /// - [`ETIMEDOUT`] if the transfer is still in flight after `timeout`;
    /// - [`EIO`] if the device is done, and reports more bytes than it was asked to move;
    /// - [`ESHUTDOWN`] if the device was stopped;
    /// - what [`Engine::poll`] returned.
    pub fn wait(self, irq: &WaitQueue, timeout: Delta) -> Result<StreamingBox<'a, B, D>> {
        self.slot.wait(irq, timeout)?;
        self.finish()
    }

    /// As [`wait`](Self::wait), for a device without an interrupt: looks every `interval`.
    ///
    /// With an `interval` of zero it looks all the time. Context: may sleep.
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
