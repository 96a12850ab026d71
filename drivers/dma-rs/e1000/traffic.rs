// SPDX-License-Identifier: GPL-2.0

//! Frames that the device sends to itself: what is said about speed is measured so.

use super::{
    nic::Nic,
    receiver::ReceivedFrame,
    sender::{
        Offload,
        TxSegment,
        MAX_FRAME,
        MIN_FRAME, //
    }, //
};
use kernel::{
    error::ErrorWith,
    fmt,
    prelude::*,
    time::{
        BootTime,
        Delta,
        Instant, //
    }, //
};

/// How many frames are sent with one doorbell.
const BATCH: u32 = 32;

/// How long a batch may take.
const PATIENCE: Delta = Delta::from_secs(2);

/// The type of frames for local experiments (IEEE 802).
const ETHERTYPE: [u8; 2] = [0x88, 0xb5];

/// Where the number of a frame is.
const NUMBER: core::ops::Range<usize> = 14..18;

/// What came of it.
#[derive(Clone, Copy, Default)]
pub(crate) struct Report {
    /// Frames that arrived as they were sent.
    pub(crate) frames: u64,
    /// Their bytes.
    pub(crate) bytes: u64,
    /// How long all of it took. Where instructions are counted (QEMU: `-icount shift=0`), it is how
    /// many.
    pub(crate) nanoseconds: i64,
    /// How often the device was told of frames, or of buffers.
    pub(crate) doorbells: u64,
    /// Frames that arrived, but not as they were sent.
    pub(crate) mismatches: u64,
    /// Frames that didn't arrive.
    pub(crate) lost: u64,
}

impl Report {
    /// Writes the report for a person to read.
    pub(crate) fn show(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "frames {}", self.frames)?;
        writeln!(f, "bytes {}", self.bytes)?;
        writeln!(f, "nanoseconds {}", self.nanoseconds)?;
        writeln!(f, "doorbells {}", self.doorbells)?;
        writeln!(f, "mismatches {}", self.mismatches)?;
        writeln!(f, "lost {}", self.lost)
    }
}

/// The frame that all others are like, but for their numbers.
struct Template(KVec<u8>);

impl Template {
    fn new(nic: &Nic<'_>, len: usize) -> Result<Self> {
        let mut frame = KVec::with_capacity(len, GFP_KERNEL)?;

        frame.extend_from_slice(&nic.mac(), GFP_KERNEL)?;
        frame.extend_from_slice(&nic.mac(), GFP_KERNEL)?;
        frame.extend_from_slice(&ETHERTYPE, GFP_KERNEL)?;

        for i in frame.len()..len {
            // CAST: Cut on purpose.
            frame.push((i * 13 + i / 251) as u8, GFP_KERNEL)?;
        }

        Ok(Self(frame))
    }

    /// Numbers a frame.
    fn number(frame: &mut [u8], number: u32) {
        if let Some(place) = frame.get_mut(NUMBER) {
            place.copy_from_slice(&number.to_be_bytes());
        }
    }

    /// Returns the number that a frame says it has, which begins so.
    fn number_of(head: &[u8]) -> Option<u32> {
        let bytes = head.get(NUMBER)?;

        bytes.try_into().ok().map(u32::from_be_bytes)
    }

    /// Returns whether a frame that begins so is one of ours at all.
    fn is_like(&self, head: &[u8]) -> bool {
        let start = head.get(..NUMBER.start);

        start.is_some() && start == self.0.get(..NUMBER.start)
    }

    /// Returns whether a frame is the one with that number.
    fn is(&mut self, frame: &ReceivedFrame<'_, '_>, number: u32) -> bool {
        Self::number(&mut self.0, number);
        frame.is(&self.0)
    }
}

/// Sends frames in a loopback, and compares each with what arrives.
///
/// Context: may sleep.
///
/// # Errors
///
/// [`EINVAL`] if frames can't have that length; [`ESHUTDOWN`] if the device was stopped or reset
/// meanwhile; what sending, receiving and [`Nic::set_loopback`] say.
pub(crate) fn run(nic: &Nic<'_>, frames: u32, len: usize) -> Result<Report> {
    if !(MIN_FRAME..=MAX_FRAME).contains(&len) {
        return Err(EINVAL);
    }

    let before = nic.loopback();

    nic.set_loopback(true)?;
    nic.wait_for_receiver();

    let report = exchange(nic, frames, len);

    nic.set_loopback(before)?;
    report
}

fn exchange(nic: &Nic<'_>, frames: u32, len: usize) -> Result<Report> {
    let mut template = Template::new(nic, len)?;
    let mut report = Report::default();
    let free = nic.sender().free();
    let room = nic.receiver().room(len);
    let batch = BATCH.min(room).min(free);
    let mut spare = KVec::with_capacity(usize::try_from(batch)?, GFP_KERNEL)?;

    for _ in 0..batch {
        let mut frame: TxSegment = KVec::with_capacity(len, GFP_KERNEL)?;

        frame.extend_from_slice(&template.0, GFP_KERNEL)?;
        spare.push(frame, GFP_KERNEL)?;
    }

    // What came before isn't ours.
    while nic.poll(BATCH, |_| {})? > 0 {}
    nic.reclaim(drop);

    let doorbells = nic.doorbells();
    let start = Instant::<BootTime>::now();
    let mut next = 0;

    while next < frames && batch > 0 {
        let mut sender = nic.sender();
        let first = next;

        while next < frames {
            let Some(mut frame) = spare.pop() else {
                break;
            };

            Template::number(&mut frame, next);

            match sender.post(frame, Offload::default()) {
                Ok(()) => next += 1,
                Err(ErrorWith { error, value }) => {
                    let _ = spare.push_within_capacity(value);

                    if error != EBUSY || next == first {
                        return Err(error);
                    }
                    break;
                }
            }
        }

        sender.flush()?;
        drop(sender);

        if next == first {
            // Whoever has reset the device meanwhile got them all.
            return Err(ESHUTDOWN);
        }

        receive(nic, &mut template, &mut report, first, next)?;

        if report.lost > 0 {
            // The others would be, too, and each batch takes its time.
            break;
        }

        nic.wait_sent(PATIENCE, |frame| drop(spare.push_within_capacity(frame)))?;
    }

    report.nanoseconds = start.elapsed().as_nanos();
    report.doorbells = nic.doorbells() - doorbells;
    Ok(report)
}

/// Receives the frames of a batch.
fn receive(
    nic: &Nic<'_>,
    template: &mut Template,
    report: &mut Report,
    first: u32,
    end: u32,
) -> Result {
    let mut next = first;

    while next < end {
        let arrived = nic.wait(end - next, PATIENCE, |frame| {
            let head = frame.head();

            if !template.is_like(head) {
                return;
            }

            // Some may be missing before it: of a batch the device may hear the end only.
            let number = Template::number_of(head).filter(|number| (next..end).contains(number));

            match number {
                Some(number) if template.is(frame, number) => {
                    report.frames += 1;
                    // CAST: Widening.
                    report.bytes += frame.len() as u64;
                    report.lost += u64::from(number - next);
                    next = number + 1;
                }
                _ => {
                    report.mismatches += 1;
                    next += 1;
                }
            }
        });

        match arrived {
            Ok(_) => {}
            Err(e) if e == ETIMEDOUT => {
                report.lost += u64::from(end - next);
                break;
            }
            Err(e) => return Err(e),
        }
    }

    Ok(())
}
