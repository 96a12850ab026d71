// SPDX-License-Identifier: GPL-2.0

//! debugfs: frames in and out, the state of the device, and ways to trouble it.

use super::{
    nic::{
        Handle,
        Nic, //
    },
    sender::{
        Header,
        MAX_FRAME,
        MIN_FRAME, //
    },
    traffic::{
        self,
        Report, //
    }, //
};
use kernel::{
    debugfs::{
        BinaryReader,
        BinaryWriter,
        Dir,
        File, //
    },
    error::ErrorWith,
    fmt,
    fs::file,
    new_mutex,
    prelude::*,
    str::CString,
    sync::Mutex,
    time::Delta,
    uaccess::{
        UserSliceReader,
        UserSliceWriter, //
    }, //
};

/// How long a read waits for a frame.
const PATIENCE: Delta = Delta::from_secs(1);

/// How often a write waits for room, which the device makes at once.
const TRIES: usize = 3;

/// The files of one device, in `dma_rs_e1000-<device>/`.
#[pin_data]
pub(crate) struct Files {
    /// Each write sends a frame.
    #[pin]
    send: File<Outgoing>,
    /// Each read returns the next frame, or nothing if there is none within a second.
    #[pin]
    receive: File<Incoming>,
    /// 1 has the PHY loop back, 0 ends that.
    #[pin]
    loopback: File<Command>,
    /// The lengths of the transmit and the receive ring, to be changed.
    #[pin]
    resize: File<Command>,
    /// Whatever is written stops the device and starts it again.
    #[pin]
    reset: File<Command>,
    /// How many frames of how many bytes the device is to send to itself; reading gives what came
    /// of it.
    #[pin]
    traffic: File<Traffic>,
    #[pin]
    rings: File<Handle>,
    #[pin]
    stats: File<Handle>,
    #[pin]
    state: File<Handle>,
}

impl Files {
    pub(crate) fn new(device: &CStr, nic: Handle) -> impl PinInit<Self, Error> {
        let name = CString::try_from_fmt(fmt!("dma_rs_e1000-{device}"));

        pin_init::pin_init_scope(move || {
            let dir = Dir::new(&name?);

            Ok(try_pin_init!(Self {
                send <- dir.write_binary_file(c"send", Ok::<_, Error>(Outgoing(nic.clone()))),
                receive <- dir.read_binary_file(c"receive", Ok::<_, Error>(Incoming(nic.clone()))),
                loopback <- dir.write_binary_file(
                    c"loopback",
                    Command::new(&nic, |nic, [on, _]| nic.set_loopback(on != 0)),
                ),
                resize <- dir.write_binary_file(
                    c"resize",
                    Command::new(&nic, |nic, [tx, rx]| nic.resize(tx, rx, drop)),
                ),
                reset <- dir.write_binary_file(
                    c"reset",
                    Command::new(&nic, |nic, _| nic.reset(drop)),
                ),
                rings <- dir.read_callback_file(
                    c"rings",
                    Ok::<_, Error>(nic.clone()),
                    &|nic: &Handle, f: &mut fmt::Formatter<'_>| {
                        nic.try_access_with(|nic| nic.show_rings(f)).unwrap_or(Ok(()))
                    },
                ),
                stats <- dir.read_callback_file(
                    c"stats",
                    Ok::<_, Error>(nic.clone()),
                    &|nic: &Handle, f: &mut fmt::Formatter<'_>| {
                        nic.try_access_with(|nic| nic.show_statistics(f)).unwrap_or(Ok(()))
                    },
                ),
                state <- dir.read_callback_file(
                    c"state",
                    Ok::<_, Error>(nic.clone()),
                    &|nic: &Handle, f: &mut fmt::Formatter<'_>| {
                        nic.try_access_with(|nic| nic.show_state(f)).unwrap_or(Ok(()))
                    },
                ),
                traffic <- dir.read_write_callback_file(
                    c"traffic",
                    try_pin_init!(Traffic {
                        nic: nic.clone(),
                        report <- new_mutex!(Report::default()),
                    }? Error),
                    &|traffic: &Traffic, f: &mut fmt::Formatter<'_>| {
                        traffic.report.lock().show(f)
                    },
                    &|traffic: &Traffic, reader: &mut UserSliceReader| traffic.run(reader),
                ),
            }? Error))
        })
    }
}

struct Outgoing(Handle);

impl BinaryReader for Outgoing {
    fn read_from_slice(
        &self,
        reader: &mut UserSliceReader,
        _offset: &mut file::Offset,
    ) -> Result<usize> {
        let len = reader.len();

        if len > MAX_FRAME {
            return Err(EMSGSIZE);
        }

        // The header goes into a block of its own, unless the frame has to be lengthened.
        let mut header = None;

        if len >= MIN_FRAME {
            reader.read_slice(header.insert(Header::default()).as_mut_bytes())?;
        }

        let mut frame = KVec::zeroed(reader.len(), GFP_KERNEL)?;

        reader.read_slice(&mut frame)?;

        self.0.try_access_with(|nic| {
            nic.reclaim(drop);

            for _ in 0..TRIES {
                let sent = match header {
                    Some(header) => nic.send_payload(header, frame),
                    None => nic.send(frame),
                };

                frame = match sent {
                    Ok(()) => return Ok(len),
                    Err(ErrorWith {
                        error,
                        value: Some(frame),
                    }) if error == EBUSY => frame,
                    Err(refused) => return Err(refused.error),
                };
                nic.wait_sent(PATIENCE, drop)?;
            }

            Err(EBUSY)
        })?
    }
}

struct Incoming(Handle);

impl BinaryWriter for Incoming {
    fn write_to_slice(
        &self,
        writer: &mut UserSliceWriter,
        _offset: &mut file::Offset,
    ) -> Result<usize> {
        let Some(frame) = self.0.try_access_with(|nic| nic.receive(PATIENCE))?? else {
            return Ok(0);
        };
        // What doesn't fit is lost, as with a packet socket.
        let len = frame.len().min(writer.len());

        writer.write_slice(frame.get(..len).ok_or(EINVAL)?)?;
        Ok(len)
    }
}

/// What is done with two numbers.
type Run = for<'n, 'a> fn(&'n Nic<'a>, [u32; 2]) -> Result;

/// A file to which up to two numbers are written.
struct Command {
    nic: Handle,
    run: Run,
}

impl Command {
    fn new(nic: &Handle, run: Run) -> Result<Self> {
        Ok(Self {
            nic: nic.clone(),
            run,
        })
    }
}

impl BinaryReader for Command {
    fn read_from_slice(
        &self,
        reader: &mut UserSliceReader,
        _offset: &mut file::Offset,
    ) -> Result<usize> {
        let len = reader.len();
        let numbers = numbers(reader)?;

        self.nic.try_access_with(|nic| (self.run)(nic, numbers))??;
        Ok(len)
    }
}

#[pin_data]
struct Traffic {
    nic: Handle,
    #[pin]
    report: Mutex<Report>,
}

impl Traffic {
    fn run(&self, reader: &mut UserSliceReader) -> Result {
        let [frames, len] = numbers(reader)?;
        // One at a time.
        let mut report = self.report.lock();

        *report = self
            .nic
            .try_access_with(|nic| traffic::run(nic, frames, usize::try_from(len)?))??;
        Ok(())
    }
}

/// Reads up to two numbers. Those that are not there are zero.
fn numbers(reader: &mut UserSliceReader) -> Result<[u32; 2]> {
    let mut text = [0; 64];
    let text = text.get_mut(..reader.len()).ok_or(EINVAL)?;

    reader.read_slice(text)?;

    let mut words = core::str::from_utf8(text)
        .map_err(|_| EINVAL)?
        .split_ascii_whitespace();
    let mut number = || {
        words
            .next()
            .map_or(Ok(0), |word| word.parse().map_err(|_| EINVAL))
    };

    Ok([number()?, number()?])
}
