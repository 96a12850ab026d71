// SPDX-License-Identifier: GPL-2.0

//! KUnit tests on real devices: the first 8254x of the machine, most of them in a loopback.
//!
//! Each start of the receiver takes a second, for which QEMU's is deaf: tests that receive nothing
//! don't wait for it.
//!
//! How fast the host is says nothing about the driver. What QEMU does at once, and that is all but
//! the end of that second, may take a guest that nobody runs as long as it likes: a test waits for
//! something to happen, with a time-out that only a fault reaches, and never for a time to pass.

use super::{
    filters::Filters,
    hardware::{
        self,
        Aimed,
        Checksum,
        Parts,
        Verdict, //
    },
    nic::{
        Completion,
        Handle,
        Nic,
        Settings, //
    },
    phy::{
        Choice,
        Index,
        Offer,
        ANAR,
        BMCR,
        CTRL1000, //
    },
    regs::{
        self,
        SIZE, //
    },
    sender::{
        Header,
        Offload,
        TxSegment,
        MAX_FRAME,
        MIN_FRAME, //
    },
    traffic,
    CONSTRAINTS,
    DEVICES, //
};
use kernel::{
    device::Core,
    dma::{
        fixture::{
            self,
            ensure, //
        },
        leaked,
        quarantined,
        Quiesce,
        StopOutcome, //
    },
    error::ErrorWith,
    fmt,
    io::{
        register,
        register::Array,
        Io, //
    },
    irq::{
        Handler,
        IrqReturn, //
    },
    kunit,
    pci,
    prelude::*,
    str::CString,
    sync::atomic::{
        Atomic,
        Relaxed, //
    },
    time::{
        delay::fsleep,
        Delta,
        Instant,
        Monotonic, //
    }, //
};

register! {
    /// Interrupt Cause Set: raises an interrupt.
    ICS(u32) @ 0x00c8 {
        31:0 causes;
    }
}

const INTEL: u16 = 0x8086;
/// For what happens at once.
const SOON: Delta = Delta::from_secs(10);
/// For what takes a while.
const LONG: Delta = Delta::from_secs(20);
/// For what doesn't happen.
const MOMENT: Delta = Delta::from_millis(10);
const PLAIN: Offload = Offload {
    ip: None,
    transport: None,
    vlan: None,
};

/// The device that the suite found.
static DEVICE: Atomic<u32> = Atomic::new(0);

/// Returns whether there is no device, and marks the test as skipped then.
fn is_absent() -> bool {
    let absent = DEVICE.load(Relaxed) == 0;

    if absent {
        kunit::skip("no 8254x device (QEMU: -device e1000)");
    }

    absent
}

const SETTINGS: Settings = Settings {
    tx: 256,
    rx: 256,
    completion: Completion::Interrupt,
    promiscuous: true,
    itr: 0,
};

/// With short rings, and without an interrupt.
const SMALL: Settings = Settings {
    tx: 64,
    rx: 64,
    completion: Completion::Polling,
    ..SETTINGS
};

/// Runs a test on a device that nobody else uses, and that leaves nothing behind.
fn with_device(body: impl FnMut(&pci::Device<Core<'_>>) -> Result) -> Result {
    if is_absent() {
        return Ok(());
    }

    let (before, lost) = (quarantined(), leaked());

    // CAST: It is an ID.
    fixture::with_pci_device(INTEL, DEVICE.load(Relaxed) as u16, CONSTRAINTS, body)?;
    ensure!(quarantined() == before && leaked() == lost);
    Ok(())
}

/// Runs a test on a device that was brought up.
fn with_nic(settings: Settings, mut body: impl FnMut(&Nic<'_>) -> Result) -> Result {
    with_device(|pdev| Nic::bring_up(pdev, settings)?.try_access_with(|nic| body(nic))?)
}

/// Runs a test on a device that was brought up, sends to itself, and hears.
fn with_loopback(settings: Settings, mut body: impl FnMut(&Nic<'_>) -> Result) -> Result {
    share_loopback(settings, |nic| nic.try_access_with(|nic| body(nic))?)
}

/// As [`with_loopback`], for tests with threads.
fn share_loopback(settings: Settings, mut body: impl FnMut(&Handle) -> Result) -> Result {
    with_device(|pdev| {
        let nic = Nic::bring_up(pdev, settings)?;

        nic.try_access_with(|nic| {
            nic.set_loopback(true)?;
            hear(nic)
        })??;
        body(&nic)
    })
}

/// Waits until a frame that the device sends to itself arrives. There is none in the rings then.
///
/// QEMU's receiver hears when a timer of QEMU's has run out, and a busy host may be late with it.
fn hear(nic: &Nic<'_>) -> Result {
    let start = Instant::<Monotonic>::now();

    nic.wait_for_receiver();

    loop {
        let mut knock = KVec::with_capacity(MIN_FRAME, GFP_KERNEL)?;

        // To all stations, so that it is heard with any filter.
        knock.resize(MIN_FRAME, 0xff, GFP_KERNEL)?;
        nic.send(knock)?;
        nic.wait_sent(SOON, drop)?;

        // It was there at once, or is lost.
        if nic.poll(1, |_| {})? == 1 {
            return Ok(());
        }

        ensure!(start.elapsed() < LONG);
        fsleep(MOMENT);
    }
}

/// Sends a frame in a loopback, and returns whether it arrived, which it did at once or not at all.
fn arrives(nic: &Nic<'_>, frame: TxSegment) -> Result<bool> {
    let expected = copy(&frame)?;
    let mut is_right = true;

    nic.send(frame)?;
    nic.wait_sent(SOON, drop)?;

    let count = nic.poll(8, |frame| is_right &= frame.is(&expected))?;

    ensure!(count <= 1 && is_right);
    Ok(count == 1)
}

/// Returns whether the device has that least time between two interrupts. One that QEMU has told to
/// have none (`mitigation=off`) has no such register: then this says nothing.
fn has_itr(nic: &Nic<'_>, itr: u16) -> bool {
    let control = nic.control();
    let found = control.read(regs::ITR);

    control.write_reg(regs::ITR::from(1));

    let is_there = control.read(regs::ITR).into_raw() == 1;

    control.write_reg(found);
    !is_there || found.into_raw() == itr.into()
}

/// What the driver has counted: sent frames, their bytes, refusals for want of room, reclaimed
/// frames, received ones, their bytes, and damaged ones.
fn counts(nic: &Nic<'_>) -> [u64; 7] {
    let sent = {
        let sender = nic.sender();

        (sender.frames, sender.bytes, sender.full)
    };
    let reclaimed = nic.reclaimer().frames;
    let receiver = nic.receiver();

    [
        sent.0,
        sent.1,
        sent.2,
        reclaimed,
        receiver.frames,
        receiver.bytes,
        receiver.ring.consumer.bad(),
    ]
}

/// Returns what `show` writes for a person to read.
fn shown(show: impl Fn(&mut fmt::Formatter<'_>) -> fmt::Result) -> Result<CString> {
    struct Shown<F>(F);

    impl<F: Fn(&mut fmt::Formatter<'_>) -> fmt::Result> fmt::Display for Shown<F> {
        fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
            (self.0)(f)
        }
    }

    CString::try_from_fmt(fmt!("{}", Shown(show)))
}

/// Where the bytes of frames come from.
struct Source(KVec<u8>);

impl Source {
    const SEEDS: usize = 251;

    fn new() -> Result<Self> {
        let mut bytes = KVec::with_capacity(MAX_FRAME + Self::SEEDS, GFP_KERNEL)?;

        for i in 0..MAX_FRAME + Self::SEEDS {
            // CAST: Cut on purpose.
            bytes.push((i * 13 + i / 251) as u8, GFP_KERNEL)?;
        }

        Ok(Self(bytes))
    }

    /// Bytes that differ from their neighbours and, by `seed`, from those of other frames.
    fn bytes(&self, len: usize, seed: usize) -> &[u8] {
        let start = seed % Self::SEEDS;

        self.0.get(start..start + len).unwrap_or(&[])
    }

    fn frame(&self, len: usize, seed: usize) -> Result<TxSegment> {
        copy(self.bytes(len, seed))
    }
}

fn copy(bytes: &[u8]) -> Result<TxSegment> {
    let mut copy = KVec::with_capacity(bytes.len(), GFP_KERNEL)?;

    copy.extend_from_slice(bytes, GFP_KERNEL)?;
    Ok(copy)
}

/// Sends frames of these lengths and seeds with one doorbell, and compares what arrives.
fn exchange(
    nic: &Nic<'_>,
    source: &Source,
    mut frames: impl Iterator<Item = (usize, usize)> + Clone,
) -> Result {
    // What came before isn't counted.
    nic.reclaim(drop);

    let mut sender = nic.sender();
    let doorbells = sender.ring.doorbells();
    let mut count = 0;

    for (len, seed) in frames.clone() {
        sender.post(source.frame(len, seed)?, PLAIN)?;
        count += 1;
    }

    sender.flush()?;
    ensure!(sender.ring.doorbells() == doorbells + 1);
    drop(sender);

    let mut arrived = 0;
    let mut wrong = 0;

    while arrived < count {
        arrived += nic.wait(count - arrived, SOON, |frame| {
            let is_right = frames.next().is_some_and(|(len, seed)| {
                frame.is(source.bytes(len, seed))
                    && frame.len() == len
                    && frame.count() as usize == len.div_ceil(hardware::BUFFER_SIZE)
            });

            wrong += u32::from(!is_right);
        })?;
    }

    ensure!(wrong == 0);
    ensure!(nic.wait_sent(SOON, drop)? == count);
    Ok(())
}

/// The sum of 16-bit words, as the Internet's checksums have it.
fn sum(bytes: &[u8], start: u32) -> u16 {
    let mut sum = bytes.chunks(2).fold(start, |sum, pair| {
        let high = pair.first().copied().unwrap_or(0);
        let low = pair.get(1).copied().unwrap_or(0);

        sum + u32::from(u16::from_be_bytes([high, low]))
    });

    while sum > 0xffff {
        sum = (sum & 0xffff) + (sum >> 16);
    }

    // CAST: See above.
    sum as u16
}

fn put(frame: &mut [u8], at: usize, value: u16) {
    frame[at..at + 2].copy_from_slice(&value.to_be_bytes());
}

/// Makes an IPv4 frame with room for the checksums of IP, and of TCP or UDP; and the one that is to
/// come of it.
fn ip_frame(source: &Source, len: usize, seed: usize, udp: bool) -> Result<(TxSegment, TxSegment)> {
    let mut frame = source.frame(len, seed)?;
    let (protocol, at) = if udp { (17, 40) } else { (6, 50) };
    // CAST: Not more than a frame has.
    let (total, payload) = ((len - 14) as u16, (len - 34) as u32);

    put(&mut frame, 12, 0x0800);
    frame[14] = 0x45;
    put(&mut frame, 16, total);
    frame[23] = protocol;
    put(&mut frame, 24, 0);

    let pseudo = sum(&frame[26..34], u32::from(protocol) + payload);

    put(&mut frame, at, pseudo);

    let mut result = copy(&frame)?;
    let ip = !sum(&frame[14..34], 0);
    let transport = match !sum(&frame[34..], 0) {
        0 => 0xffff,
        sum => sum,
    };

    put(&mut result, 24, ip);
    put(&mut result, at, transport);
    Ok((frame, result))
}

/// Says where the checksums of [`ip_frame`] are.
fn checksums(udp: bool) -> Offload {
    Offload {
        ip: Some(Checksum {
            start: 14,
            offset: 24,
            end: 33,
        }),
        transport: Some(Checksum {
            start: 34,
            offset: if udp { 40 } else { 50 },
            end: 0,
        }),
        vlan: None,
    }
}

#[kunit_tests(dma_rs_e1000)]
mod cases {
    use super::*;

    #[suite_init]
    fn look_for_device() -> Result {
        for device in DEVICES {
            if fixture::has_pci_device(INTEL, device) {
                DEVICE.store(device.into(), Relaxed);
                break;
            }
        }

        Ok(())
    }

    /// Frames of all lengths, one after the other, and long ones in several buffers.
    #[test]
    #[slow]
    fn every_length() -> Result {
        let source = Source::new()?;

        with_loopback(SETTINGS, |nic| {
            let before = nic.statistics();

            for first in (MIN_FRAME..=1518).step_by(32) {
                let last = 1518.min(first + 31);

                exchange(nic, &source, (first..=last).map(|len| (len, len)))?;
            }

            let long = [
                1519, 2047, 2048, 2049, 4096, 4097, 9000, 12_289, 15_999, MAX_FRAME,
            ];

            exchange(nic, &source, long.into_iter().map(|len| (len, len)))?;

            let after = nic.statistics();
            let count = 1518 - MIN_FRAME as u64 + 1 + long.len() as u64;

            ensure!(after.sent - before.sent == count);
            ensure!(after.received - before.received == count);
            ensure!(after.missed == 0 && after.no_buffers == 0 && after.oversized == 0);
            ensure!(nic.receiver().ring.consumer.malformed() == 0);
            ensure!(nic.receiver().ring.consumer.bad() == 0);
            Ok(())
        })
    }

    /// Frames of several segments, of odd lengths, that begin at odd addresses in the frame; short
    /// ones are lengthened.
    #[test]
    #[slow]
    fn segments() -> Result {
        let source = Source::new()?;

        with_loopback(SETTINGS, |nic| {
            for count in 2..=8 {
                for step in [1, 7, 63, 191, 1337] {
                    let len = |i: usize| step + 2 * i;
                    let total = (0..count).map(len).sum();
                    let mut rest = source.bytes(total, count);
                    let mut list = KVec::with_capacity(count, GFP_KERNEL)?;

                    for i in 0..count {
                        let (head, tail) = rest.split_at(len(i));

                        list.push(copy(head)?, GFP_KERNEL)?;
                        rest = tail;
                    }

                    nic.send_segments(list, PLAIN, drop)?;

                    let mut expected = source.frame(total, count)?;

                    expected.resize(total.max(MIN_FRAME), 0, GFP_KERNEL)?;
                    ensure!(nic.receive(SOON)? == Some(expected));

                    let mut back = 0;

                    ensure!(nic.wait_sent(SOON, |_| back += 1)? == 1);
                    ensure!(back == count);
                }
            }

            for len in [1, 14, 59] {
                let mut expected = source.frame(len, len)?;

                nic.send(source.frame(len, len)?)?;
                expected.resize(MIN_FRAME, 0, GFP_KERNEL)?;
                ensure!(nic.receive(SOON)?.as_ref() == Some(&expected));

                // QEMU's receiver lengthens frames, too; this is what was sent.
                let mut sent = KVec::new();

                ensure!(nic.wait_sent(SOON, |frame| sent = frame)? == 1);
                ensure!(sent == expected);
            }

            Ok(())
        })
    }

    /// A header from a pool, and a payload from elsewhere.
    #[test]
    #[slow]
    fn headers() -> Result {
        let source = Source::new()?;

        with_loopback(SETTINGS, |nic| {
            let header = Header {
                destination: nic.mac(),
                source: [2, 0, 0, 0, 0, 1],
                ethertype: [0x88, 0xb5],
            };

            for len in [46, 47, 500, 1486, 9000, MAX_FRAME - 14] {
                let mut expected = KVec::new();

                expected.extend_from_slice(&header.destination, GFP_KERNEL)?;
                expected.extend_from_slice(&header.source, GFP_KERNEL)?;
                expected.extend_from_slice(&header.ethertype, GFP_KERNEL)?;
                expected.extend_from_slice(source.bytes(len, len), GFP_KERNEL)?;
                nic.send_payload(header, source.frame(len, len)?)?;
                ensure!(nic.receive(SOON)? == Some(expected));

                let mut back = KVec::new();

                ensure!(nic.wait_sent(SOON, |payload| back = payload)? == 1);
                ensure!(back == source.frame(len, len)?);
            }

            for (len, why) in [(45, EINVAL), (MAX_FRAME - 13, EMSGSIZE)] {
                let refused = nic.send_payload(header, source.frame(len, 1)?);
                let payload = source.frame(len, 1)?;

                ensure!(matches!(
                    refused,
                    Err(ErrorWith { error, value: Some(back) })
                        if error == why && back == payload
                ));
            }

            Ok(())
        })
    }

    /// Checksums and VLAN tags that the device inserts, and takes out.
    #[test]
    #[slow]
    fn offloads() -> Result {
        let source = Source::new()?;

        with_loopback(SETTINGS, |nic| {
            for udp in [false, true] {
                for len in [60, 61, 99, 1000, 1514, 3001] {
                    let (frame, expected) = ip_frame(&source, len, len, udp)?;

                    nic.send_with(frame, checksums(udp))?;
                    ensure!(nic.receive(SOON)? == Some(expected));
                }

                // Over several segments, which the checksums don't care about.
                let (frame, expected) = ip_frame(&source, 777, 7, udp)?;
                let segments = [
                    copy(&frame[..41])?,
                    copy(&frame[41..300])?,
                    copy(&frame[300..])?,
                ];

                nic.send_segments(segments, checksums(udp), drop)?;
                ensure!(nic.receive(SOON)? == Some(expected));
            }

            // One kind without the other, which stays as it was made.
            for udp in [false, true] {
                let (frame, both) = ip_frame(&source, 500, 9, udp)?;
                let at = if udp { 40 } else { 50 };
                let mut ip_only = copy(&frame)?;
                let mut transport_only = copy(&frame)?;

                ip_only[24..26].copy_from_slice(&both[24..26]);
                transport_only[at..at + 2].copy_from_slice(&both[at..at + 2]);

                let ip = Offload {
                    transport: None,
                    ..checksums(udp)
                };
                let transport = Offload {
                    ip: None,
                    ..checksums(udp)
                };

                nic.send_with(copy(&frame)?, ip)?;
                ensure!(nic.receive(SOON)? == Some(ip_only));
                nic.send_with(frame, transport)?;
                ensure!(nic.receive(SOON)? == Some(transport_only));
            }

            // The next frame is none of their business.
            exchange(nic, &source, [(100, 1)].into_iter())?;

            let tag = 0x2005;
            let tagged = Offload {
                vlan: Some(tag),
                ..PLAIN
            };
            let mut in_band = source.frame(204, 3)?;

            put(&mut in_band, 12, 0x8100);
            put(&mut in_band, 14, tag);

            let mut stripped = copy(&in_band[..12])?;

            stripped.extend_from_slice(&in_band[16..], GFP_KERNEL)?;

            nic.set_vlan(true);
            nic.send_with(source.frame(200, 2)?, tagged)?;
            nic.send(copy(&in_band)?)?;

            let mut seen = KVec::with_capacity(2, GFP_KERNEL)?;
            let mut is_right = true;

            nic.wait(2, SOON, |frame| {
                is_right &= frame.vlan() == Some(tag);
                is_right &= frame.checksums() == (Verdict::Unknown, Verdict::Unknown);
                is_right &= frame.bytes().is_some_and(|bytes| bytes.len() == 200);

                if let Ok(copy) = frame.to_vec() {
                    let _ = seen.push_within_capacity(copy);
                }
            })?;
            ensure!(is_right);
            ensure!(seen.pop() == Some(stripped));
            ensure!(seen.pop() == Some(source.frame(200, 2)?));

            // Without it, tags are payload.
            nic.set_vlan(false);
            nic.send(copy(&in_band)?)?;
            nic.wait(1, SOON, |frame| {
                is_right &= frame.vlan().is_none() && frame.is(&in_band);
            })?;
            ensure!(is_right);
            Ok(())
        })
    }

    /// Ten turns of both rings, with batches of several sizes.
    #[test]
    #[slow]
    fn wrap_around() -> Result {
        let source = Source::new()?;

        with_loopback(SMALL, |nic| {
            for batch in [1, 3, 8, 31, 63] {
                for first in (0..640).step_by(batch) {
                    exchange(
                        nic,
                        &source,
                        (first..first + batch).map(|i| (MIN_FRAME + i % 40, i)),
                    )?;
                }
            }

            // Several descriptors a frame, so that frames lie across the end of the ring.
            for i in 0..100 {
                exchange(nic, &source, [(5000 + i, i), (9000, i)].into_iter())?;
            }

            ensure!(nic.receiver().ring.consumer.malformed() == 0);
            Ok(())
        })
    }

    /// A ring that is full gives the frame back, and goes on when there is room; one that is empty
    /// has nothing to do.
    #[test]
    fn full_and_empty() -> Result {
        let source = Source::new()?;

        with_device(|pdev| {
            let nic = Nic::bring_up(pdev, SMALL)?;

            nic.try_access_with(|nic| {
                let mut sender = nic.sender();

                sender.flush()?;
                ensure!(sender.ring.doorbells() == 0);
                ensure!(nic.reclaim(drop) == 0 && nic.poll(8, |_| {})? == 0);

                for seed in 0..63 {
                    sender.post(source.frame(80, seed)?, PLAIN)?;
                }

                ensure!(sender.free() == 0);

                for flushed in [false, true] {
                    match sender.post(source.frame(80, 99)?, PLAIN) {
                        Err(ErrorWith { error, value }) => {
                            ensure!(error == EBUSY && value == source.frame(80, 99)?);
                        }
                        Ok(()) => return Err(EINVAL),
                    }

                    if !flushed {
                        sender.flush()?;
                    }
                }

                let mut seed = 0;
                let mut is_right = true;

                ensure!(
                    nic.wait_sent(SOON, |frame| {
                        is_right &= *frame == *source.bytes(80, seed);
                        seed += 1;
                    })? == 63
                );
                ensure!(is_right && seed == 63);

                // Not all of a frame: none of it.
                for seed in 0..60 {
                    sender.post(source.frame(80, seed)?, PLAIN)?;
                }

                let list = |count: usize| {
                    let mut list = KVec::with_capacity(count, GFP_KERNEL)?;

                    for i in 0..count {
                        list.push(source.frame(30, i)?, GFP_KERNEL)?;
                    }

                    Ok::<_, Error>(list)
                };
                let mut i = 0;
                let refused = sender.post_segments(list(5)?, PLAIN, |segment| {
                    is_right &= *segment == *source.bytes(30, i);
                    i += 1;
                });

                ensure!(refused == Err(EBUSY) && i == 5 && is_right);
                ensure!(sender.free() == 3);

                let mut i = 0;
                let refused = sender.post_segments(list(3)?, checksums(false), |_| i += 1);

                ensure!(refused == Err(EBUSY) && i == 3 && sender.free() == 3);
                sender.post_segments(list(3)?, PLAIN, drop)?;
                ensure!(sender.free() == 0);
                sender.flush()?;
                ensure!(nic.wait_sent(SOON, drop)? == 61);
                ensure!(sender.full == 4);
                Ok(())
            })?
        })
    }

    /// What can't be sent comes back, and changes nothing.
    #[test]
    #[slow]
    fn refusals() -> Result {
        let source = Source::new()?;

        for (tx, rx) in [(32, 64), (64, 8192), (100, 64), (64, 0)] {
            with_device(|pdev| {
                let refused = Nic::bring_up(pdev, Settings { tx, rx, ..SETTINGS }).map(drop);

                ensure!(refused == Err(EINVAL));
                Ok(())
            })?;
        }

        with_nic(SETTINGS, |nic| {
            for (len, error) in [(0, EINVAL), (MAX_FRAME + 1, EMSGSIZE)] {
                match nic.send(source.frame(len, 1)?) {
                    Err(refused) => {
                        ensure!(refused.error == error);
                        ensure!(refused.value == Some(source.frame(len, 1)?));
                    }
                    Ok(()) => return Err(EINVAL),
                }
            }

            let mut back = 0;
            let halves = [source.frame(9000, 1)?, source.frame(9000, 2)?];

            ensure!(nic.send_segments(halves, PLAIN, |_| back += 1) == Err(EMSGSIZE));
            ensure!(back == 2);
            ensure!(nic.send_segments([], PLAIN, drop) == Err(EINVAL));
            ensure!(nic.send_segments([], checksums(false), drop) == Err(EINVAL));

            let segments = [source.frame(100, 1)?, KVec::new(), source.frame(100, 1)?];

            ensure!(nic.send_segments(segments, PLAIN, |_| back += 1) == Err(EINVAL));
            ensure!(back == 5);
            ensure!(nic.resize(64, 100, drop) == Err(EINVAL));
            ensure!(traffic::run(nic, 1, MIN_FRAME - 1).map(drop) == Err(EINVAL));
            ensure!(traffic::run(nic, 1, MAX_FRAME + 1).map(drop) == Err(EINVAL));

            ensure!(nic.sender().free() == 255);
            // There was room for all of them.
            ensure!(nic.sender().full == 0);
            nic.send(source.frame(100, 1)?)?;
            ensure!(nic.wait_sent(SOON, drop)? == 1);
            Ok(())
        })
    }

    /// A ring with less room than a frame needs takes none of it, whatever the frame is made of.
    #[test]
    fn too_little_room() -> Result {
        let source = Source::new()?;
        let header = Header::default();

        with_nic(SMALL, |nic| {
            let mut sender = nic.sender();

            for seed in 0..62 {
                sender.post(source.frame(80, seed)?, PLAIN)?;
            }

            // Each takes two descriptors, of which there is one, and then none.
            for (free, full) in [(1, 0), (0, 2)] {
                if free == 0 {
                    sender.post(source.frame(80, 62)?, PLAIN)?;
                }

                match sender.post(source.frame(90, 1)?, checksums(true)) {
                    Err(ErrorWith { error, value }) => {
                        ensure!(error == EBUSY && value == source.frame(90, 1)?);
                    }
                    Ok(()) => return Err(EINVAL),
                }

                match sender.post_payload(header, source.frame(90, 2)?) {
                    Err(ErrorWith { error, value }) => {
                        ensure!(error == EBUSY && value == source.frame(90, 2)?);
                    }
                    Ok(()) => return Err(EINVAL),
                }

                ensure!(sender.free() == free && sender.full == full + 2);
            }

            ensure!(sender.frames == 63 && sender.bytes == 63 * 80);
            sender.flush()?;
            ensure!(nic.wait_sent(SOON, drop)? == 63);

            // With room for it.
            sender.post(source.frame(90, 1)?, checksums(true))?;
            sender.post_payload(header, source.frame(90, 2)?)?;
            sender.flush()?;
            ensure!(nic.wait_sent(SOON, drop)? == 2);
            Ok(())
        })
    }

    /// RCTL, all but UPE and MPE: EN, LPE, BAM, SECRC, and buffers of 2048 bytes.
    const RECEIVE: u32 = 1 << 1 | 1 << 5 | 1 << 15 | 1 << 26;
    /// UPE and MPE.
    const PROMISCUOUS: u32 = 1 << 3 | MULTICAST_PROMISCUOUS;
    const MULTICAST_PROMISCUOUS: u32 = 1 << 4;

    /// Who asks for all frames changes nothing else, and takes nothing else from the register.
    #[test]
    fn receives_all() -> Result {
        with_nic(SMALL, |nic| {
            for (all, groups, bits) in [
                (true, false, PROMISCUOUS),
                (false, true, MULTICAST_PROMISCUOUS),
                (true, true, PROMISCUOUS),
                (false, false, 0),
            ] {
                nic.control().change_receiver();
                ensure!(nic.control().aimed().rctl & RECEIVE != RECEIVE);
                nic.control().receive_all(all, groups);
                ensure!(nic.control().aimed().rctl == RECEIVE | bits);
            }

            // A receiver that was switched off stays so.
            ensure!(nic.stop() == StopOutcome::Stopped);
            nic.control().receive_all(true, true);
            ensure!(nic.control().aimed().rctl == 0);
            Ok(())
        })
    }

    /// What the device is told, register by register: when it was brought up, and when it was
    /// stopped.
    #[test]
    fn registers() -> Result {
        // TCTL: EN, PSP, CT, COLD.
        const TRANSMIT: u32 = 1 << 1 | 1 << 3 | 0x10 << 4 | 0x40 << 12;

        for (settings, receive) in [
            (SETTINGS, RECEIVE | PROMISCUOUS),
            (
                Settings {
                    promiscuous: false,
                    itr: 0x1234,
                    ..SMALL
                },
                RECEIVE,
            ),
        ] {
            with_nic(settings, |nic| {
                let running = nic.control().aimed();
                let [low, _, len, head, tail] = running.rx;

                ensure!(running.vet == 0x8100);
                ensure!(running.rctl == receive && running.tctl == TRANSMIT);
                ensure!(low != 0 && low % 16 == 0);
                ensure!(len == 16 * settings.rx && head == 0 && tail == settings.rx - 1);

                let [low, _, len, head, tail] = running.tx;

                ensure!(low != 0 && low % 16 == 0);
                ensure!(len == 16 * settings.tx && head == 0 && tail == 0);

                ensure!(has_itr(nic, settings.itr));
                ensure!(nic.stop() == StopOutcome::Stopped);

                let stopped = Aimed {
                    rctl: 0,
                    tctl: 0,
                    ..running
                };

                ensure!(nic.control().aimed() == stopped);
                Ok(())
            })?;
        }

        Ok(())
    }

    /// The device as its driver leaves it: all registers that aim it are clear, and it interrupts
    /// nobody.
    #[test]
    fn forgotten_at_unbind() -> Result {
        let source = Source::new()?;

        with_nic(SETTINGS, |nic| {
            for seed in 0..5 {
                nic.send(source.frame(100, seed)?)?;
            }

            ensure!(nic.wait_sent(SOON, drop)? == 5);
            ensure!(nic.control().aimed().tx[3..] == [5, 5]);
            nic.control().unmask_interrupts();
            Ok(())
        })?;

        with_device(|pdev| {
            pdev.enable_device_mem()?;

            let Parts { control, .. } = hardware::claim(pdev)?;

            ensure!(control.aimed() == FORGOTTEN);
            ensure!(control.read(regs::IMS).into_raw() == 0);
            Ok(())
        })
    }

    /// The registers of a device that has forgotten.
    const FORGOTTEN: Aimed = Aimed {
        vet: 0x8100,
        rctl: 0,
        tctl: 0,
        rx: [0; 5],
        tx: [0; 5],
    };

    /// What stops a device and makes it forget, by itself: whatever it was told before, and whether
    /// it is there or not.
    #[test]
    fn stopper() -> Result {
        const COMMAND: usize = 4;
        const MEMORY: u16 = 2;

        with_device(|pdev| {
            pdev.enable_device_mem()?;

            let Parts {
                mut stopper,
                control,
                ..
            } = hardware::claim(pdev)?;
            let told = Aimed {
                vet: 0,
                rctl: 2,
                tctl: 2,
                rx: [0x1000, 2, 0x100, 3, 3],
                tx: [0x2000, 4, 0x180, 5, 5],
            };

            // One that hasn't forgotten anything yet isn't known to be there.
            stopper.scribble(0);
            ensure!(control.aimed() == told);
            ensure!(stopper.quiesce() == StopOutcome::Unproven);

            stopper.scribble(0);
            stopper.disarm()?;
            ensure!(control.aimed() == FORGOTTEN);
            ensure!(stopper.quiesce() == StopOutcome::Stopped);

            // Stopping takes the switches back, and nothing else.
            stopper.scribble(0x8100);
            ensure!(stopper.quiesce() == StopOutcome::Stopped);
            ensure!(
                control.aimed()
                    == Aimed {
                        vet: 0x8100,
                        rctl: 0,
                        tctl: 0,
                        ..told
                    }
            );

            // Its registers don't answer: in QEMU they read as zeros, as if it was stopped, or on
            // other machines as all ones.
            let config = pdev.config_space();
            let command = config.read16(COMMAND);

            config.write16(command & !MEMORY, COMMAND);
            let aimed = control.aimed();
            let stopped = stopper.quiesce();
            let forgotten = stopper.disarm();
            config.write16(command, COMMAND);

            ensure!(matches!(
                (aimed.rctl, aimed.tctl),
                (0, 0) | (u32::MAX, u32::MAX)
            ));
            ensure!(stopped == StopOutcome::Unproven);
            ensure!(forgotten == Err(ENODEV));

            stopper.disarm()?;
            ensure!(stopper.quiesce() == StopOutcome::Stopped);
            Ok(())
        })
    }

    /// Interrupts: which are asked for, and how they are taken back.
    #[test]
    fn interrupts() -> Result {
        const COMMAND: usize = 4;
        const NO_INTX: u16 = 1 << 10;
        // TXDW, LSC, RXDMT0, RXO, RXT0.
        const CAUSES: [u32; 5] = [0, 2, 4, 6, 7];
        const ALL: u32 = 0xd5;

        with_device(|pdev| {
            pdev.enable_device_mem()?;

            // Those who share the line have nothing to do with it.
            let config = pdev.config_space();
            let command = config.read16(COMMAND);

            config.write16(command | NO_INTX, COMMAND);

            let Parts {
                mut stopper,
                interrupts,
                control,
                ..
            } = hardware::claim(pdev)?;
            let waker = interrupts.wake(kernel::sync::Arc::pin_init(
                kernel::new_wait_queue!("dma_rs::tests"),
                GFP_KERNEL,
            )?);
            let is_handled = || matches!(waker.handle(), IrqReturn::Handled);
            let mask = || control.read(regs::IMS).into_raw();
            let raise = |cause: u32| {
                control.unmask_interrupts();
                control.write_reg(ICS::from(1 << cause));
            };

            stopper.disarm()?;
            ensure!(mask() == 0 && !is_handled());
            control.unmask_interrupts();
            ensure!(mask() == ALL);

            for cause in CAUSES {
                raise(cause);
                ensure!(mask() == ALL && is_handled());
                // Until somebody waits again.
                ensure!(mask() == 0 && !is_handled());

                raise(cause);
                control.silence();
                ensure!(mask() == 0 && !is_handled());

                raise(cause);
                stopper.disarm()?;
                ensure!(mask() == 0 && !is_handled());
            }

            config.write16(command, COMMAND);
            Ok(())
        })
    }

    /// EEPROM, PHY and link.
    #[test]
    fn identity() -> Result {
        with_nic(SETTINGS, |nic| {
            ensure!(nic.mac() != [0; 6] && nic.mac()[0] & 1 == 0);

            // Another driver may have put the link down just before.
            let start = Instant::<Monotonic>::now();

            while !nic.link()?.up {
                ensure!(start.elapsed() < LONG);
                fsleep(Delta::from_millis(10));
            }

            ensure!(nic.link()?.speed == 1000 && nic.link()?.full_duplex);

            // Loopback or negotiation, 1000 Mbit/s, full duplex.
            for (on, told) in [(true, 0x4140), (false, 0x1140)] {
                nic.set_loopback(on)?;
                ensure!(nic.loopback() == on);
                ensure!(nic.phy().read(BMCR)? == told);
            }

            // There is no such register.
            ensure!(nic.phy().read(Index::new::<31>()) == Err(EIO));

            for itr in [1000, 0] {
                nic.set_itr(itr);
                ensure!(has_itr(nic, itr));
            }

            Ok(())
        })
    }

    /// Which links are offered to the partner, and forced.
    #[test]
    fn links() -> Result {
        const OFFERS: (u16, u16) = (0x1e0, 0x200);

        with_nic(SETTINGS, |nic| {
            let mut phy = nic.phy();
            let only_100 = Offer {
                full_100: true,
                full_1000: false,
                ..Offer::ONLY_1000
            };

            for (offer, slow, fast) in [
                (Offer::ONLY_1000, 0, 0x200),
                (only_100, 0x100, 0),
                (Offer::ALL, OFFERS.0, OFFERS.1),
            ] {
                phy.choose(Choice::Negotiated(offer))?;
                ensure!(phy.choice() == Choice::Negotiated(offer));
                ensure!(phy.read(BMCR)? == 0x1140);
                ensure!(phy.read(ANAR)? & OFFERS.0 == slow);
                ensure!(phy.read(CTRL1000)? & OFFERS.1 == fast);
            }

            // The partner is told of another offer, which takes half a second, without a link.
            let mut has_told = false;

            for offer in [only_100, Offer::ALL].into_iter().cycle().take(8) {
                phy.choose(Choice::Negotiated(offer))?;
                has_told |= !phy.link()?.up;
            }
            ensure!(has_told);

            for (fast, full_duplex, told) in [
                (false, false, 0),
                (false, true, 0x100),
                (true, false, 0x2000),
                (true, true, 0x2100),
            ] {
                phy.choose(Choice::Forced { fast, full_duplex })?;
                ensure!(phy.read(BMCR)? == told);
            }

            phy.choose(Choice::Negotiated(Offer::ALL))?;
            ensure!(phy.read(BMCR)? == 0x1140);
            Ok(())
        })
    }

    /// Which frames are received, by where they go; and that none is without a loopback.
    #[test]
    #[slow]
    fn filters() -> Result {
        let source = Source::new()?;

        for promiscuous in [false, true] {
            let settings = Settings {
                promiscuous,
                ..SETTINGS
            };

            with_loopback(settings, |nic| {
                let [a, b, c, d, e, f] = nic.mac();

                for (destination, is_ours) in [
                    ([a, b, c, d, e, f], true),
                    // Its neighbours', with one bit in another place.
                    ([a ^ 2, b, c, d, e, f], false),
                    ([a, b, c, d, e, f ^ 1], false),
                    ([a, b, c, d ^ 0x80, e, f], false),
                    ([0xff; 6], true),
                    // Groups'.
                    ([0x01, 0x00, 0x5e, 0x00, 0x00, 0x01], false),
                    ([0x33, 0x33, 0xff, a, b, c], false),
                ] {
                    let mut frame = source.frame(100, f.into())?;

                    frame[..6].copy_from_slice(&destination);
                    ensure!(arrives(nic, frame)? == (is_ours || promiscuous));
                }

                nic.set_loopback(false)?;
                ensure!(!arrives(nic, source.frame(100, 1)?)?);
                Ok(())
            })?;
        }

        Ok(())
    }

    /// A receiver that is on takes what its filters say from then on; one that is off stays off.
    #[test]
    #[slow]
    fn filters_are_changed() -> Result {
        const ONE: [u8; 6] = [0x02, 0, 0, 0, 0, 1];
        const OTHER: [u8; 6] = [0x02, 0, 0, 0, 0, 2];
        const GROUP: [u8; 6] = [0x01, 0x00, 0x5e, 0x00, 0x00, 0x01];
        const NO_GROUP: [u8; 6] = [0x01, 0x00, 0x5e, 0x00, 0x00, 0x21];

        let source = Source::new()?;

        with_loopback(SETTINGS, |nic| {
            let control = nic.control();
            let takes = |wanted: [bool; 5]| -> Result {
                let destinations = [nic.mac(), ONE, OTHER, GROUP, NO_GROUP];

                for (destination, wanted) in destinations.into_iter().zip(wanted) {
                    let mut frame = source.frame(100, 1)?;

                    frame[..6].copy_from_slice(&destination);
                    ensure!(arrives(nic, frame)? == wanted);
                }

                Ok(())
            };
            let mut filters = Filters::NONE;

            filters.apply(&control);
            hear(nic)?;
            takes([true, false, false, false, false])?;

            filters.add_address(ONE);
            filters.add_group(GROUP);
            filters.apply(&control);
            takes([true, true, false, true, false])?;

            filters.groups = true;
            filters.apply(&control);
            hear(nic)?;
            takes([true, true, false, true, true])?;

            filters.all = true;
            filters.apply(&control);
            hear(nic)?;
            takes([true; 5])?;

            ensure!(nic.stop() == StopOutcome::Stopped);
            Filters::NONE.apply(&control);
            filters.apply(&control);
            ensure!(control.aimed().rctl == 0);
            Ok(())
        })
    }

    /// A device whose registers somebody else has had gets them back, without another second in
    /// which it is deaf, unless it is reset.
    ///
    /// `TIPG` and `RXCSUM` can't be seen: QEMU has no such registers, and reads them as zeros.
    #[test]
    #[slow]
    fn begins_anew() -> Result {
        // RAH.AV; CTRL.SLU, CTRL.ASDE, CTRL.VME.
        const VALID: u32 = 1 << 31;
        const CONTROL: u32 = 1 << 6 | 1 << 5;
        const VLAN: u32 = 1 << 30;

        let source = Source::new()?;

        with_loopback(SETTINGS, |nic| {
            let control = nic.control();
            let [a, b, c, d, e, f] = nic.mac();

            for (reset, vlan) in [(false, true), (true, true), (false, false)] {
                nic.set_vlan(vlan);
                nic.set_itr(0x4321);

                control.write_reg(regs::CTRL::zeroed());
                control.write_reg(regs::RAL0::from(!0));
                control.write_reg(regs::RAH0::zeroed());
                control.write_reg(regs::ITR::zeroed());
                control.write_reg(regs::RDTR::from(0xff));

                for i in 0..128 {
                    control.write(regs::MTA::try_at(i).ok_or(EINVAL)?, regs::MTA::from(!0));
                }

                nic.phy().write(BMCR, 0)?;

                if reset {
                    nic.reset(drop)?;
                } else {
                    nic.resume()?;
                }

                let switches = control.read(regs::CTRL).into_raw();
                let expected = CONTROL | if vlan { VLAN } else { 0 };

                ensure!(switches & (CONTROL | VLAN) == expected);
                ensure!(control.read(regs::RAL0).into_raw() == u32::from_le_bytes([a, b, c, d]));
                ensure!(
                    control.read(regs::RAH0).into_raw() == VALID | u32::from_le_bytes([e, f, 0, 0])
                );
                ensure!(has_itr(nic, 0x4321));
                ensure!(control.read(regs::RDTR).into_raw() == 0);

                for i in 0..128 {
                    let location = regs::MTA::try_at(i).ok_or(EINVAL)?;

                    ensure!(control.read(location).into_raw() == 0);
                }

                ensure!(nic.phy().read(BMCR)? == 0x4140);

                if reset {
                    hear(nic)?;
                }

                ensure!(arrives(nic, source.frame(100, 1)?)?);
            }

            ensure!(control.read(regs::TIPG).into_raw() == 0);
            ensure!(control.read(regs::RXCSUM).into_raw() == 0);
            Ok(())
        })
    }

    /// What driver and device count, and what a person reads of it.
    #[test]
    #[slow]
    fn counters() -> Result {
        let source = Source::new()?;

        with_loopback(SMALL, |nic| {
            let before = counts(nic);
            let device = nic.statistics();

            nic.send(source.frame(59, 1)?)?;
            nic.send(source.frame(1000, 2)?)?;
            nic.send_segments([source.frame(70, 3)?, source.frame(7, 4)?], PLAIN, drop)?;
            nic.send_payload(Header::default(), source.frame(9000, 5)?)?;
            ensure!(matches!(nic.send(KVec::new()), Err(e) if e.error == EINVAL));

            const BYTES: u64 = 60 + 1000 + 77 + 9014;
            let expected = |change: [u64; 7]| {
                let mut after = before;

                for (after, change) in after.iter_mut().zip(change) {
                    *after += change;
                }
                after
            };

            ensure!(counts(nic) == expected([4, BYTES, 0, 0, 0, 0, 0]));
            ensure!(nic.wait_sent(SOON, drop)? == 4);
            ensure!(counts(nic) == expected([4, BYTES, 0, 4, 0, 0, 0]));
            ensure!(nic.poll(8, |_| {})? == 4);
            ensure!(counts(nic) == expected([4, BYTES, 0, 4, 4, BYTES, 0]));

            // More than the receive ring has buffers for: what the device loses it counts, if it is
            // one of QEMU's that does.
            for seed in 0..63 + 5 {
                nic.send(source.frame(100, seed)?)?;
                ensure!(nic.wait_sent(SOON, drop)? == 1);
            }

            let mut seed = 0;
            let mut is_right = true;

            ensure!(
                nic.poll(80, |frame| {
                    is_right &= frame.is(source.bytes(100, seed));
                    seed += 1;
                })? == 63
            );
            ensure!(is_right && arrives(nic, source.frame(100, 1)?)?);

            // No driver of ours sends frames that are too long, so none is counted.
            let after = nic.statistics();

            ensure!(after.sent - device.sent == 4 + 68 + 1);
            ensure!(after.received - device.received == 4 + 63 + 1);
            ensure!(matches!(after.missed - device.missed, 0 | 5));
            ensure!(after.no_buffers - device.no_buffers == after.missed - device.missed);
            ensure!(after.oversized == 0);

            // What doesn't happen here must not be taken for something else either.
            nic.sender().full += 3;
            nic.receiver().unfilled += 4;

            let [frames, bytes, full, reclaimed, received, received_bytes, errors] = counts(nic);
            let text = shown(|f| nic.show_statistics(f))?;
            let expected = CString::try_from_fmt(fmt!(
                "sent frames {frames}\nsent bytes {bytes}\nno room to send {full}\n\
                 reclaimed frames {reclaimed}\nreceived frames {received}\n\
                 received bytes {received_bytes}\nreceived errors {errors}\n\
                 receive refills that failed 4\n\
                 device sent {}\ndevice received {}\ndevice missed {}\n\
                 device no buffers {}\ndevice oversized {}\n",
                after.sent,
                after.received,
                after.missed,
                after.no_buffers,
                after.oversized
            ))?;

            ensure!(frames != received && bytes != received_bytes);
            ensure!(*text == *expected);
            Ok(())
        })
    }

    /// The state of rings and device, as a person reads it.
    #[test]
    #[slow]
    fn rings_and_state() -> Result {
        let source = Source::new()?;

        with_loopback(SMALL, |nic| {
            // Somebody who waits for the link to come up takes it from the negotiation.
            let start = Instant::<Monotonic>::now();

            while !nic.link()?.up {
                ensure!(start.elapsed() < LONG);
                fsleep(MOMENT);
            }

            nic.set_itr(77);
            nic.set_vlan(true);
            nic.send(source.frame(100, 1)?)?;
            nic.send(source.frame(100, 2)?)?;

            let sent = nic.sender().ring.doorbells();
            let filled = nic.receiver().ring.producer.doorbells();
            let [_, _, _, tx_head, tx_tail] = nic.control().aimed().tx;
            let [_, _, _, rx_head, rx_tail] = nic.control().aimed().rx;
            let rings = shown(|f| nic.show_rings(f))?;
            let expected = CString::try_from_fmt(fmt!(
                "tx: len 64 free 61 posted 2 head {tx_head} tail {tx_tail} doorbells {sent} \
                 malformed 0\n\
                 rx: len 64 free 0 posted 63 head {rx_head} tail {rx_tail} doorbells {filled} \
                 malformed 0\n"
            ))?;

            ensure!(tx_head == tx_tail && rx_head != rx_tail);
            ensure!(*rings == *expected);

            let [a, b, c, d, e, f] = nic.mac();

            for running in [true, false] {
                if !running {
                    nic.set_vlan(false);
                    nic.set_loopback(false)?;
                    ensure!(nic.stop() == StopOutcome::Stopped);
                }

                let on = u8::from(running);
                let state = shown(|f| nic.show_state(f))?;
                let expected = CString::try_from_fmt(fmt!(
                    "mac {a:02x}:{b:02x}:{c:02x}:{d:02x}:{e:02x}:{f:02x}\n\
                     interrupt none (polling)\nlink up 1000 Mbit/s full duplex\n\
                     loopback {on}\nitr 77\nvlan {on}\nrunning {on}\n"
                ))?;

                ensure!(*state == *expected);
            }

            Ok(())
        })
    }

    /// Frames are told apart by each of their bytes, and by their lengths, also those that lie in
    /// several buffers. How many there is room for is a matter of these.
    #[test]
    #[slow]
    fn comparison() -> Result {
        let source = Source::new()?;

        with_loopback(SETTINGS, |nic| {
            for len in [60, 2048, 2049, 5000] {
                let bytes = source.bytes(len, 7);
                let mut is_right = true;
                let mut changed = copy(bytes)?;

                nic.send(copy(bytes)?)?;
                nic.wait(1, SOON, |frame| {
                    is_right &= frame.is(bytes) && !frame.is(&[]);
                    is_right &= !frame.is(source.bytes(len + 1, 7));
                    is_right &= !frame.is(source.bytes(len - 1, 7));
                    is_right &= !frame.is(source.bytes(len.min(2048) - 1, 7));
                    is_right &= len <= 2048 || !frame.is(source.bytes(2048, 7));
                    is_right &= frame.head() == &bytes[..len.min(2048)];

                    for at in [0, 1, 59, 2047, 2048, 4095, 4096, len - 1] {
                        if at < len {
                            changed[at] ^= 1;
                            is_right &= !frame.is(&changed);
                            changed[at] ^= 1;
                        }
                    }
                })?;
                ensure!(is_right);
            }

            let mut receiver = nic.receiver();

            for (len, room) in [
                (0, 255),
                (60, 255),
                (2048, 255),
                (2049, 127),
                (4096, 127),
                (4097, 85),
                (MAX_FRAME, 31),
            ] {
                ensure!(receiver.room(len) == room);
            }

            Ok(())
        })
    }

    /// A frame that comes while somebody waits raises an interrupt, without which waiting would
    /// take its whole time.
    #[test]
    fn interrupt_comes() -> Result {
        let source = Source::new()?;

        share_loopback(SETTINGS, |nic| {
            ensure!(nic.try_access_with(|nic| nic.interrupt().is_some())?);

            for seed in 0..3 {
                let theirs = nic.clone();
                let start = Instant::<Monotonic>::now();
                let waiter =
                    fixture::spawn(move || theirs.try_access_with(|nic| nic.receive(LONG))?)?;

                fsleep(Delta::from_millis(20));
                nic.try_access_with(|nic| {
                    nic.send(source.frame(200, seed)?).map_err(Error::from)
                })??;

                ensure!(waiter.join(|got| {
                    matches!(got, Ok(Some(frame)) if **frame == *source.bytes(200, seed))
                })?);
                ensure!(start.elapsed() < LONG);
            }

            Ok(())
        })
    }

    /// The same without interrupts.
    #[test]
    #[slow]
    fn polling() -> Result {
        let source = Source::new()?;

        share_loopback(SMALL, |nic| {
            ensure!(nic.try_access_with(|nic| nic.interrupt().is_none())?);

            let theirs = nic.clone();
            let waiter =
                fixture::spawn(move || theirs.try_access_with(|nic| nic.receive(LONG))?)?;

            fsleep(Delta::from_millis(20));
            nic.try_access_with(|nic| nic.send(source.frame(200, 1)?).map_err(Error::from))??;
            ensure!(waiter.join(|got| {
                matches!(got, Ok(Some(frame)) if **frame == *source.bytes(200, 1))
            })?);
            ensure!(nic.try_access_with(|nic| nic.receive(MOMENT))??.is_none());
            Ok(())
        })
    }

    /// Rings that grow and shrink while there is something in them.
    #[test]
    #[slow]
    fn resize() -> Result {
        let source = Source::new()?;
        with_loopback(SETTINGS, |nic| {
            for (tx, rx) in [(64, 4096), (4096, 64), (256, 256)] {
                // Some that were sent, some that weren't.
                for seed in 0..20 {
                    nic.send(source.frame(100, seed)?)?;
                }

                let mut sender = nic.sender();

                for seed in 20..30 {
                    sender.post(source.frame(100, seed)?, PLAIN)?;
                }

                drop(sender);

                let mut seed = 0;
                let mut is_right = true;

                nic.resize(tx, rx, |frame| {
                    is_right &= *frame == *source.bytes(100, seed);
                    seed += 1;
                })?;
                ensure!(seed == 30 && is_right);
                let ring = &mut nic.sender().ring;

                ensure!(ring.len() == tx && ring.refresh() == tx - 1);

                let ring = &mut nic.receiver().ring;

                ensure!(ring.producer.len() == rx && ring.consumer.posted() == rx - 1);
            }

            hear(nic)?;

            for seed in 0..20 {
                exchange(nic, &source, (seed..seed + 30).map(|i| (100 + i, i)))?;
            }

            Ok(())
        })
    }

    /// The extremes are good for traffic, too.
    #[test]
    #[slow]
    fn long_and_short_rings() -> Result {
        let source = Source::new()?;
        let settings = Settings {
            tx: 4096,
            rx: 4096,
            ..SETTINGS
        };

        with_loopback(settings, |nic| {
            for first in (0..4500).step_by(500) {
                exchange(nic, &source, (first..first + 500).map(|i| (60 + i % 9, i)))?;
            }

            Ok(())
        })
    }

    /// A stop in mid-traffic: nothing is taken any more, and all buffers come back at the start.
    #[test]
    fn stopped() -> Result {
        let source = Source::new()?;
        with_nic(SETTINGS, |nic| {
            for seed in 0..50 {
                nic.send(source.frame(100, seed)?)?;
            }

            let mut sender = nic.sender();

            for seed in 50..150 {
                sender.post(source.frame(100, seed)?, PLAIN)?;
            }

            ensure!(nic.stop() == StopOutcome::Stopped);
            ensure!(sender.flush() == Err(ESHUTDOWN));
            drop(sender);

            ensure!(nic.receive(LONG) == Err(ESHUTDOWN));
            ensure!(nic.stop() == StopOutcome::Stopped);

            let mut seed = 0;
            let mut is_right = true;

            nic.reset(|frame| {
                is_right &= *frame == *source.bytes(100, seed);
                seed += 1;
            })?;
            ensure!(seed == 150 && is_right);

            nic.send(source.frame(100, 1)?)?;
            ensure!(nic.wait_sent(SOON, drop)? == 1);
            Ok(())
        })
    }

    /// Frames that arrived before a stop are given out, though their buffers can't be given to the
    /// device again.
    #[test]
    fn received_before_stop() -> Result {
        let source = Source::new()?;

        with_loopback(SETTINGS, |nic| {
            for seed in 0..2 {
                nic.send(source.frame(100, seed)?)?;
            }
            ensure!(nic.wait_sent(SOON, drop)? == 2);
            fsleep(Delta::from_millis(20));
            ensure!(nic.stop() == StopOutcome::Stopped);

            for seed in 0..2 {
                ensure!(nic.receive(SOON)? == Some(source.frame(100, seed)?));
            }
            ensure!(nic.receive(LONG) == Err(ESHUTDOWN));
            // There was a buffer for each descriptor.
            ensure!(nic.receiver().unfilled == 0);
            Ok(())
        })
    }

    /// A device that sends nothing, since its registers don't answer, is waited for as long as one
    /// has patience; one that is stopped isn't waited for.
    #[test]
    fn not_sent() -> Result {
        const COMMAND: usize = 4;
        const MEMORY: u16 = 2;

        let source = Source::new()?;

        with_device(|pdev| {
            let nic = Nic::bring_up(pdev, SETTINGS)?;
            let config = pdev.config_space();
            let command = config.read16(COMMAND);

            nic.try_access_with(|nic| {
                let mut back = 0;

                nic.send(source.frame(100, 0)?)?;
                config.write16(command & !MEMORY, COMMAND);

                let sent = nic.send(source.frame(100, 1)?);
                let waited = nic.wait_sent(MOMENT, |_| back += 1);
                let outcome = nic.stop();
                let start = Instant::<Monotonic>::now();
                let stopped = nic.wait_sent(LONG, |_| back += 1);
                let elapsed = start.elapsed();

                config.write16(command, COMMAND);
                sent?;
                ensure!(waited == Err(ETIMEDOUT) && outcome == StopOutcome::Stopped);
                ensure!(stopped == Err(ESHUTDOWN) && elapsed < LONG && back == 1);
                nic.reset(|_| back += 1)?;
                ensure!(back == 2);
                Ok(())
            })?
        })
    }

    /// Whoever waits for a frame when the device is unbound doesn't wait for long.
    #[test]
    fn waiting_at_unbind() -> Result {
        if is_absent() {
            return Ok(());
        }

        for completion in [Completion::Interrupt, Completion::Polling] {
            let mut waiter = None;
            let start = Instant::<Monotonic>::now();

            with_device(|pdev| {
                let nic = Nic::bring_up(
                    pdev,
                    Settings {
                        completion,
                        ..SETTINGS
                    },
                )?;

                waiter = Some(fixture::spawn(move || {
                    nic.try_access_with(|nic| nic.receive(LONG))?
                })?);
                fsleep(Delta::from_millis(20));
                Ok(())
            })?;

            ensure!(waiter
                .ok_or(EIO)?
                .join(|got| matches!(got, Err(e) if *e == ESHUTDOWN || *e == ENODEV))?);
            ensure!(start.elapsed() < LONG);

            // It has let the device interrupt, for its last look after the stop, which nobody
            // handles any more.
            with_device(|pdev| {
                pdev.enable_device_mem()?;

                let Parts { control, .. } = hardware::claim(pdev)?;

                ensure!(control.read(regs::IMS).into_raw() == 0);
                Ok(())
            })?;
        }

        Ok(())
    }

    /// One thread resets the device, another one uses it: what arrives is right, and each buffer
    /// comes back once.
    #[test]
    #[slow]
    fn reset_under_traffic() -> Result {
        share_loopback(SETTINGS, |nic| {
            let theirs = nic.clone();
            let user = fixture::spawn(move || -> Result<(u32, u32)> {
                let source = Source::new()?;
                let (mut posted, mut back) = (0, 0);
                let mut is_right = true;

                for _ in 0..60 {
                    theirs.try_access_with(|nic| {
                        let mut sender = nic.sender();

                        for _ in 0..8 {
                            match sender.post(source.frame(300, 5)?, PLAIN) {
                                Ok(()) => posted += 1,
                                Err(refused) => ensure!(refused.error == EBUSY),
                            }
                        }

                        match sender.flush() {
                            Ok(()) => {}
                            Err(e) => ensure!(e == ESHUTDOWN),
                        }

                        drop(sender);

                        match nic.poll(8, |frame| is_right &= frame.is(source.bytes(300, 5))) {
                            Ok(_) => {}
                            Err(e) => ensure!(e == ESHUTDOWN),
                        }

                        back += nic.reclaim(drop);
                        Ok::<_, Error>(())
                    })??;
                    fsleep(Delta::from_millis(5));
                }

                ensure!(is_right);
                Ok((posted, back))
            })?;
            let mut cancelled = 0;

            for _ in 0..4 {
                fsleep(Delta::from_millis(60));
                nic.try_access_with(|nic| nic.reset(|_| cancelled += 1))??;
            }

            let done = user.join(|done| match done {
                Ok(done) => Ok(*done),
                Err(e) => Err(*e),
            })?;
            let (posted, back) = done?;

            nic.try_access_with(|nic| nic.reset(|_| cancelled += 1))??;
            ensure!(posted == back + cancelled);

            let source = Source::new()?;

            nic.try_access_with(|nic| {
                hear(nic)?;
                exchange(nic, &source, (0..30).map(|i| (100 + i, i)))
            })?
        })
    }

    /// Unbound with frames in all places: all is freed.
    #[test]
    #[slow]
    fn unbound_in_each_phase() -> Result {
        if is_absent() {
            return Ok(());
        }

        let source = Source::new()?;
        let mut kept = None;

        for phase in 0..4 {
            with_device(|pdev| {
                let nic = Nic::bring_up(pdev, SETTINGS)?;

                nic.try_access_with(|nic| {
                    let mut sender = nic.sender();

                    if phase > 0 {
                        for seed in 0..40 {
                            sender.post(source.frame(900, seed)?, PLAIN)?;
                        }
                    }
                    if phase > 1 {
                        sender.flush()?;
                    }

                    drop(sender);

                    if phase > 2 {
                        ensure!(nic.stop() == StopOutcome::Stopped);
                    }

                    Ok::<_, Error>(())
                })??;

                kept = Some(nic);
                Ok(())
            })?;
        }

        ensure!(
            kept.is_some_and(|nic| matches!(nic.try_access_with(|_| ()), Err(e) if e == ENODEV))
        );
        Ok(())
    }

    /// Registers that don't answer are no proof; that bus mastering is off is one.
    #[test]
    fn stop_without_registers() -> Result {
        const COMMAND: usize = 4;
        const MEMORY: u16 = 2;

        let source = Source::new()?;
        with_device(|pdev| {
            let nic = Nic::bring_up(pdev, SETTINGS)?;
            let config = pdev.config_space();
            let command = config.read16(COMMAND);

            nic.try_access_with(|nic| {
                for seed in 0..5 {
                    nic.send(source.frame(100, seed)?)?;
                }

                config.write16(command & !MEMORY, COMMAND);
                let outcome = nic.stop();
                let reset = nic.reset(drop);
                let link = nic.link().map(drop);
                config.write16(command, COMMAND);

                ensure!(outcome == StopOutcome::Stopped);
                ensure!(reset == Err(ENODEV));
                ensure!(link == Err(EIO) || link == Err(ETIMEDOUT));

                let mut back = 0;

                nic.reset(|_| back += 1)?;
                ensure!(back == 5);
                nic.send(source.frame(100, 1)?)?;
                ensure!(nic.wait_sent(SOON, drop)? == 1);
                Ok(())
            })?
        })
    }

    /// What probing needs is taken: it fails, or makes do, and leaves nothing behind.
    #[test]
    fn taken_resources() -> Result {
        let source = Source::new()?;

        with_device(|pdev| {
            pdev.enable_device_mem()?;

            let registers: pci::Bar<'_, SIZE> =
                pdev.bound().iomap_region_sized(0, c"dma_rs_e1000_test")?;
            let taken = Nic::bring_up(pdev, SETTINGS).map(drop);

            ensure!(taken == Err(EBUSY));
            drop(registers);

            let nic = Nic::bring_up(pdev, SETTINGS)?;

            nic.try_access_with(|nic| {
                nic.send(source.frame(100, 1)?)?;
                ensure!(nic.wait_sent(SOON, drop)? == 1);
                Ok(())
            })?
        })
    }

    /// What debugfs offers for measuring.
    #[test]
    #[slow]
    fn traffic_report() -> Result {
        with_loopback(SETTINGS, |nic| {
            // As it was found.
            ensure!(traffic::run(nic, 1, 60)?.frames == 1 && nic.loopback());
            nic.set_loopback(false)?;

            for (frames, len) in [(200, 60), (200, 1514), (40, 9000), (20, MAX_FRAME)] {
                let report = traffic::run(nic, frames, len)?;

                ensure!(report.frames == u64::from(frames));
                ensure!(report.bytes == u64::from(frames) * len as u64);
                ensure!(report.mismatches == 0 && report.lost == 0);
                ensure!(report.nanoseconds > 0);

                if len <= hardware::BUFFER_SIZE {
                    // A batch is one doorbell out, and one for the buffers.
                    ensure!(report.doorbells == 2 * u64::from(frames.div_ceil(32)));
                }
            }

            ensure!(!nic.loopback());
            Ok(())
        })
    }
}
