// SPDX-License-Identifier: GPL-2.0

//! Blocks that are written and read again, as many at a time as can be in flight: what the
//! demonstration shows.

use super::{
    hardware::IoCommand,
    nvme::{
        Data,
        Nvme,
        TAGS, //
    },
    requests::Request, //
};
use kernel::{
    dma::{
        queue::Either,
        Streaming, //
    },
    fmt,
    prelude::*, //
};

/// What came of it.
#[derive(Default)]
pub(crate) struct Report {
    /// Pairs of queues that were used, one after the other.
    pairs: usize,
    /// How many commands were in flight in each.
    in_flight: usize,
    /// Blocks that were written and read, in bytes.
    bytes: usize,
    /// Commands that failed, or whose data came back otherwise.
    mismatches: usize,
    /// How often the device was told of commands.
    doorbells: u64,
    /// How often the device said that some are done.
    interrupts: u32,
    /// Commands that were done before one that was submitted earlier.
    overtakers: usize,
    /// The order in which the device was done with the first reads, by when they were submitted.
    order: KVec<usize>,
}

impl Report {
    /// Writes the report for a person to read, and for the demonstration.
    pub(crate) fn show(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "pairs {}", self.pairs)?;
        writeln!(f, "in_flight {}", self.in_flight)?;
        writeln!(f, "bytes {}", self.bytes)?;
        writeln!(f, "mismatches {}", self.mismatches)?;
        writeln!(f, "doorbells {}", self.doorbells)?;
        writeln!(f, "interrupts {}", self.interrupts)?;
        writeln!(f, "overtakers {}", self.overtakers)?;
        write!(f, "order")?;

        for at in &self.order {
            write!(f, " {at}")?;
        }

        writeln!(f)
    }
}

/// Bytes that are like no others when they are moved by some. So each command has a part of its
/// own.
struct Template(KVec<u8>);

impl Template {
    fn new(len: usize, parts: usize) -> Result<Self> {
        let mut bytes = KVec::with_capacity(len + parts, GFP_KERNEL)?;

        for i in 0..len + parts {
            // CAST: Cut on purpose.
            bytes.push((i * 13 + i / 251) as u8, GFP_KERNEL)?;
        }

        Ok(Self(bytes))
    }

    /// Returns the bytes of a command.
    fn part(&self, part: usize, len: usize) -> Result<&[u8]> {
        self.0.get(part..part + len).ok_or(EINVAL)
    }
}

/// Writes `len` bytes with each of as many commands as can be in flight, all at once, reads them in
/// the same way, and compares. So it does with each pair of queues, in the same blocks.
///
/// What was in these blocks is lost. Context: may sleep.
///
/// # Errors
///
/// [`EINVAL`] if `len` isn't some blocks, or more than a command or the device can have; what
/// mappings and commands say.
pub(crate) fn run(nvme: &Nvme<'_>, len: usize) -> Result<Report> {
    let identity = nvme.identity;
    let in_flight = usize::from(TAGS);
    let blocks = len.checked_div(identity.block).unwrap_or(0);

    // CAST: Widening.
    if blocks == 0
        || blocks * identity.block != len
        || len > identity.max_bytes
        || (blocks * in_flight) as u64 > identity.blocks
    {
        return Err(EINVAL);
    }

    let mut report = Report {
        pairs: nvme.pairs(),
        in_flight,
        ..Report::default()
    };

    let template = Template::new(len, in_flight * nvme.pairs())?;

    for pair in 0..nvme.pairs() {
        let part = |command: usize| template.part(pair * in_flight + command, len);
        let (doorbells, interrupts) = (nvme.doorbells(pair), nvme.interrupts(pair));
        // CAST: Widening.
        let block = |command: usize| (blocks * command) as u64;

        let writes = |command: usize| -> Result<(IoCommand, Data<'_>)> {
            let mut bytes = KVec::with_capacity(len, GFP_KERNEL)?;

            bytes.extend_from_slice(part(command)?, GFP_KERNEL)?;

            let data = Streaming::map(nvme.dma, bytes)?;

            Ok((IoCommand::Write(block(command)), Some(Either::First(data))))
        };
        let reads = |command: usize| -> Result<(IoCommand, Data<'_>)> {
            let data = Streaming::map(nvme.dma, KVec::zeroed(len, GFP_KERNEL)?)?;

            Ok((IoCommand::Read(block(command)), Some(Either::Second(data))))
        };

        all_at_once(nvme, pair, writes, &mut report, |_, _| Ok(true))?;
        all_at_once(nvme, pair, reads, &mut report, |command, bytes| {
            Ok(bytes == part(command)?)
        })?;

        report.bytes += 2 * len * in_flight;
        report.doorbells += nvme.doorbells(pair) - doorbells;
        report.interrupts += nvme.interrupts(pair).wrapping_sub(interrupts);
    }

    Ok(report)
}

/// Submits commands with one doorbell, and waits for all of them.
fn all_at_once<'a>(
    nvme: &Nvme<'a>,
    pair: usize,
    make: impl Fn(usize) -> Result<(IoCommand, Data<'a>)>,
    report: &mut Report,
    is_right: impl Fn(usize, &[u8]) -> Result<bool>,
) -> Result {
    let mut commands = KVec::with_capacity(report.in_flight, GFP_KERNEL)?;
    let mut requests = KVec::with_capacity(report.in_flight, GFP_KERNEL)?;
    let mut order = KVec::with_capacity(report.in_flight, GFP_KERNEL)?;

    for command in 0..report.in_flight {
        commands.push(make(command)?, GFP_KERNEL)?;
    }

    let submitted = nvme.submit(pair, commands, |request| {
        Ok(requests.push(request, GFP_KERNEL)?)
    });
    let over = submitted.and_then(|()| {
        requests
            .iter()
            .enumerate()
            .try_for_each(|(command, request)| {
                let (done, (back, status)) = nvme.wait_numbered(pair, *request)?;
                let is_right = match &back {
                    Some(Either::First(_)) => true,
                    Some(Either::Second(read)) => is_right(command, read.bytes())?,
                    None => false,
                };

                report.mismatches += usize::from(status != Some(0) || !is_right);
                Ok(order.push((done, command), GFP_KERNEL)?)
            })
    });

    // Does nothing for those that were waited for.
    requests
        .into_iter()
        .for_each(|request| nvme.abandon(pair, request));
    over?;

    // By when they were done.
    order.sort_unstable();

    let mut latest = 0;

    for (_, command) in &order {
        report.overtakers += usize::from(*command < latest);
        latest = latest.max(*command);
    }

    report.order = KVec::new();

    for (_, command) in order {
        report.order.push(command, GFP_KERNEL)?;
    }

    Ok(())
}

/// Reads that were submitted, and that nobody has waited for yet.
#[derive(Default)]
pub(crate) struct Ahead {
    pair: usize,
    requests: KVec<Request>,
}

impl Ahead {
    /// Submits as many reads as can be in flight, to the first pair of queues.
    ///
    /// # Errors
    ///
    /// [`EBUSY`] if there are such reads, and what mappings and the device say. What was submitted
    /// is known nevertheless.
    pub(crate) fn submit(&mut self, nvme: &Nvme<'_>) -> Result {
        if !self.requests.is_empty() {
            return Err(EBUSY);
        }

        let len = nvme.identity.block;
        let mut reads = KVec::with_capacity(TAGS.into(), GFP_KERNEL)?;

        for _ in 0..TAGS {
            let data = Streaming::map(nvme.dma, KVec::zeroed(len, GFP_KERNEL)?)?;

            reads.push((IoCommand::Read(0), Some(Either::Second(data))), GFP_KERNEL)?;
        }

        self.requests.reserve(TAGS.into(), GFP_KERNEL)?;
        nvme.submit(self.pair, reads, |request| {
            Ok(self.requests.push(request, GFP_KERNEL)?)
        })
    }

    /// Waits for these reads; returns how many the device has carried out, and how many it hadn't
    /// when it was stopped.
    ///
    /// # Errors
    ///
    /// As [`Nvme::wait`], and [`EIO`] if one has failed. The reads are known no more then.
    pub(crate) fn wait(&mut self, nvme: &Nvme<'_>) -> Result<(usize, usize)> {
        let (mut done, mut cancelled) = (0, 0);
        let over = self.requests.iter().try_for_each(|request| {
            match nvme.wait(self.pair, *request)?.1 {
                Some(0) => done += 1,
                Some(_) => return Err(EIO),
                None => cancelled += 1,
            }

            Ok(())
        });

        // Does nothing for those that were waited for.
        for request in self.requests.drain_all() {
            nvme.abandon(self.pair, request);
        }

        over.map(|()| (done, cancelled))
    }
}
