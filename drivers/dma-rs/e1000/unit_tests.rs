// SPDX-License-Identifier: GPL-2.0

//! KUnit tests that need no device: what goes into descriptors and registers, and what comes out.
//!
//! A device that works as it should shows little of this: no frame is damaged in QEMU, no checksum
//! wrong, no EEPROM spoilt. The numbers here are the manual's (see `regs.rs`), not the driver's.

use super::{
    eeprom,
    filters::{
        self,
        Filters, //
    },
    hardware::{
        self,
        Checksum,
        Context,
        Data,
        RxDescriptor,
        Segments,
        TxDescriptor,
        TxOptions,
        Verdict,
        BUFFER_SIZE, //
    },
    regs,
    sender::{
        self,
        Offload,
        TxSegment,
        MAX_FRAME,
        MIN_FRAME, //
    }, //
};
use kernel::{
    dma::{
        fixture::ensure,
        ring::{
            Descriptor,
            Length,
            ReceiveDescriptor, //
        }, //
    },
    io::{
        IoLoc,
        Region, //
    },
    prelude::*, //
};

/// A descriptor as the device writes it for a frame that it received.
fn received(len: u16, status: u8, errors: u8, special: u16) -> Result<RxDescriptor> {
    let mut bytes = [0; 16];

    bytes[8..10].copy_from_slice(&len.to_le_bytes());
    // The packet checksum, which is no part of the length.
    bytes[10..12].copy_from_slice(&[0xff; 2]);
    bytes[12] = status;
    bytes[13] = errors;
    bytes[14..].copy_from_slice(&special.to_le_bytes());
    RxDescriptor::read_from_bytes(&bytes).map_err(|_| EINVAL)
}

/// What the device reads: the address, the command and the status of a descriptor.
fn told(mut descriptor: TxDescriptor) -> Result<(u64, u32, u32)> {
    let (address, rest) = descriptor
        .as_mut_bytes()
        .split_first_chunk()
        .ok_or(EINVAL)?;
    let (command, rest) = rest.split_first_chunk().ok_or(EINVAL)?;
    let (status, _) = rest.split_first_chunk().ok_or(EINVAL)?;

    Ok((
        u64::from_le_bytes(*address),
        u32::from_le_bytes(*command),
        u32::from_le_bytes(*status),
    ))
}

/// A segment of a frame with memory behind it that isn't zero.
fn segment(len: usize) -> Result<TxSegment> {
    let mut segment = KVec::with_capacity(MIN_FRAME.max(len), GFP_KERNEL)?;

    segment.resize(MIN_FRAME.max(len), 0xee, GFP_KERNEL)?;
    segment.truncate(len);
    Ok(segment)
}

const IP: Checksum = Checksum {
    start: 14,
    offset: 24,
    end: 33,
};

const TCP: Checksum = Checksum {
    start: 0xa1,
    offset: 0xb2,
    end: 0xc3d4,
};

#[kunit_tests(dma_rs_e1000_unit)]
mod cases {
    use super::*;

    /// What the device says of a frame, for all values of the status and of the error byte.
    #[test]
    fn received_status() -> Result {
        // Of both bytes.
        const IPCS_IPE: u8 = 1 << 6;
        const TCPCS_TCPE: u8 = 1 << 5;
        // Of the status byte.
        const DD: u8 = 1 << 0;
        const EOP: u8 = 1 << 1;
        const IXSM: u8 = 1 << 2;
        const VP: u8 = 1 << 3;
        // Of the error byte: CE, SE, SEQ, CXE, RXE.
        const DAMAGE: [u8; 5] = [1 << 0, 1 << 1, 1 << 2, 1 << 4, 1 << 7];

        for status in 0..=u8::MAX {
            for errors in 0..=u8::MAX {
                let frame = received(1514, status, errors, 0x2005)?;
                let is_ignored = status & IXSM != 0;
                let verdict = |bit: u8| match (status & bit != 0, errors & bit != 0) {
                    (true, false) if !is_ignored => Verdict::Good,
                    (true, true) if !is_ignored => Verdict::Bad,
                    _ => Verdict::Unknown,
                };
                let is_damaged = DAMAGE.iter().any(|bit| errors & bit != 0);

                ensure!(frame.checksums() == (verdict(IPCS_IPE), verdict(TCPCS_TCPE)));
                ensure!(frame.is_damaged() == is_damaged);
                ensure!(frame.vlan() == (status & VP != 0).then_some(0x2005));
                ensure!(frame.received().last == (status & EOP != 0));

                let word = u32::from_le_bytes([status, errors, 0x05, 0x20]);

                ensure!(RxDescriptor::is_done(word) == (status & DD != 0));
            }
        }

        Ok(())
    }

    /// The length is half a word, and the tag is another.
    #[test]
    fn received_numbers() -> Result {
        for number in [0, 1, 60, 255, 256, 2048, 0x8000, u16::MAX] {
            let frame = received(number, 0x0b, 0, !number)?;
            // Of the buffer, not of the frame.
            let Length::Segment(len) = frame.received().len else {
                return Err(EINVAL);
            };

            ensure!(len == usize::from(number));
            ensure!(frame.vlan() == Some(!number));
        }

        Ok(())
    }

    /// The device writes as many bytes as it was told that buffers have: no shorter one is named.
    #[test]
    fn receive_buffers() -> Result {
        for (len, is_named) in [
            (0, false),
            (1, false),
            (BUFFER_SIZE - 1, false),
            (BUFFER_SIZE, true),
            (BUFFER_SIZE + 1, true),
        ] {
            let mut descriptor = RxDescriptor::of(0x0123_4567_89ab_cdef, len);
            let bytes = descriptor.as_mut_bytes();
            let address: u64 = if is_named { 0x0123_4567_89ab_cdef } else { 0 };

            ensure!(bytes[..8] == address.to_le_bytes());
            ensure!(bytes[8..] == [0; 8]);
        }

        Ok(())
    }

    /// Data descriptors, with each option by itself and with others.
    #[test]
    fn transmit_data() -> Result {
        // DTYP, then of DCMD: IFCS and DEXT.
        const ALWAYS: u32 = 1 << 20 | 1 << 25 | 1 << 29;
        // EOP and RS.
        const LAST: u32 = 1 << 24 | 1 << 27;
        const TSE: u32 = 1 << 26;
        const VLE: u32 = 1 << 30;
        // Of POPTS.
        const IXSM: u32 = 1 << 8;
        const TXSM: u32 = 1 << 9;

        let address = 0x0123_4567_89ab_cdef;
        let bit = |on: bool, bit: u32| if on { bit } else { 0 };

        for (ip_checksum, transport_checksum, last) in (0..8).map(|i| (i & 1, i & 2, i & 4)) {
            let (ip_checksum, transport_checksum) = (ip_checksum != 0, transport_checksum != 0);
            let last = last != 0;

            for vlan in [None, Some(0), Some(0x2005), Some(u16::MAX)] {
                // It may be divided whatever else is done with it.
                let segmented = vlan == Some(0);
                let data = Data {
                    ip_checksum,
                    transport_checksum,
                    segmented,
                    vlan,
                };
                let command =
                    ALWAYS | bit(last, LAST) | bit(segmented, TSE) | bit(vlan.is_some(), VLE);
                let status = bit(ip_checksum, IXSM)
                    | bit(transport_checksum, TXSM)
                    | u32::from(vlan.unwrap_or(0)) << 16;
                let memory = Some((address, 1514));
                let (named, commanded, initial) =
                    told(TxDescriptor::of(memory, TxOptions::Data(data), last))?;

                ensure!(named == address);
                ensure!(commanded == command | 1514);
                ensure!(initial == status && !TxDescriptor::is_done(initial));
            }
        }

        // `DTALEN` has 20 bits, and what is above is something else.
        ensure!(TxDescriptor::MAX_LEN == 0xf_ffff);

        for (memory, said) in [
            (None, (0, 0)),
            (Some((5, 1)), (5, 1)),
            (Some((5, TxDescriptor::MAX_LEN)), (5, 0xf_ffff)),
        ] {
            let plain = TxOptions::Data(Data::default());
            let (address, command, _) = told(TxDescriptor::of(memory, plain, false))?;

            ensure!((address, command) == (said.0, ALWAYS | said.1));
        }

        ensure!(TxDescriptor::is_done(1) && !TxDescriptor::is_done(!1));
        Ok(())
    }

    /// Context descriptors: where each offset goes.
    #[test]
    fn transmit_context() -> Result {
        let context = |ip, transport| Context {
            ip,
            transport,
            segments: None,
        };
        let none = Checksum::default();
        // IPCSS, IPCSO, IPCSE, from the low end; above that the same of TCP.
        let (ip, tcp) = (0x0021_180e, 0xc3d4_b2a1 << 32);

        for (context, bits) in [
            (context(none, none), 0),
            (context(IP, none), ip),
            (context(none, TCP), tcp),
            (context(IP, TCP), ip | tcp),
        ] {
            for last in [false, true] {
                // DEXT; and RS, but never EOP.
                let command = 1 << 29 | u32::from(last) << 27;

                let descriptor = TxDescriptor::of(None, TxOptions::Context(context), last);

                ensure!(told(descriptor)? == (bits, command, 0));
            }
        }

        Ok(())
    }

    /// How a frame is divided: PAYLEN, TUCMD, HDRLEN and MSS.
    #[test]
    fn transmit_segments() -> Result {
        // TSE, TCP and IP; DEXT.
        const ALWAYS: u32 = 1 << 26 | 1 << 24 | 1 << 25 | 1 << 29;

        let context = Context {
            ip: IP,
            transport: TCP,
            segments: Some(Segments {
                headers: 0x36,
                payload: 0x1_2345,
                size: 0x05b4,
            }),
        };
        let descriptor = TxDescriptor::of(None, TxOptions::Context(context), false);
        let (_, command, status) = told(descriptor)?;

        ensure!(command == ALWAYS | 0x1_2345);
        ensure!(status == 0x05b4_3600);
        Ok(())
    }

    /// Which bit of the table a group has, and what is taken besides.
    #[test]
    fn filters() -> Result {
        for (group, word, mask) in [
            ([0x01, 0x00, 0x5e, 0x00, 0x00, 0x01], 0, 1 << 16),
            ([0x01, 0x00, 0x5e, 0x00, 0x00, 0xfb], 125, 1 << 16),
            ([0x33, 0x33, 0x00, 0x00, 0x12, 0x34], 26, 1 << 1),
            ([0xff; 6], 127, 1 << 31),
            ([0; 6], 0, 1),
        ] {
            let mut filters = Filters::NONE;

            filters.add_group(group);
            ensure!(filters::bit_of(group) == (word, mask));
            ensure!(filters
                .table
                .iter()
                .enumerate()
                .all(|(at, bits)| *bits == if at == word { mask } else { 0 }));
            ensure!(!filters.all && !filters.groups);
        }

        let mut filters = Filters::NONE;

        for last in 0..15 {
            filters.add_address([2, 0, 0, 0, 0, last]);
            ensure!(!filters.all);
            ensure!(filters.addresses[usize::from(last)] == Some([2, 0, 0, 0, 0, last]));
        }

        // There is no place for one more.
        filters.add_address([2; 6]);
        ensure!(filters.all && !filters.groups && filters.table == [0; 128]);
        Ok(())
    }

    /// A context is sent if there is a checksum of either kind, and for that kind.
    #[test]
    fn offloads_asked_for() -> Result {
        for ip in [None, Some(IP)] {
            for transport in [None, Some(TCP)] {
                for vlan in [None, Some(7)] {
                    let offload = Offload {
                        ip,
                        transport,
                        vlan,
                    };
                    let context = match (ip, transport) {
                        (None, None) => None,
                        _ => Some(TxOptions::Context(Context {
                            ip: ip.unwrap_or_default(),
                            transport: transport.unwrap_or_default(),
                            segments: None,
                        })),
                    };
                    let data = TxOptions::Data(Data {
                        ip_checksum: ip.is_some(),
                        transport_checksum: transport.is_some(),
                        segmented: false,
                        vlan,
                    });

                    ensure!(offload.context() == context && offload.data() == data);
                }
            }
        }

        Ok(())
    }

    /// Which rings the device can have, and what its registers are told of them.
    #[test]
    fn ring_places() -> Result {
        for len in 0..=5000 {
            let place = hardware::place(0x1_2345_6780, len);

            // A multiple of 128 bytes.
            if (8..=4096).contains(&len) && len % 8 == 0 {
                ensure!(place == Ok((0x2345_6780, 1, 16 * len)));
            } else {
                ensure!(place == Err(EINVAL));
            }
        }

        for low in 0..64 {
            ensure!(hardware::place(0x1000 + low, 64).is_ok() == (low % 16 == 0));
        }

        ensure!(hardware::place(0, u32::MAX) == Err(EINVAL));
        ensure!(hardware::place(u64::MAX - 15, 8) == Ok((0xffff_fff0, 0xffff_ffff, 128)));
        Ok(())
    }

    /// Where those registers are of which QEMU has none, or in which it counts nothing.
    #[test]
    fn unseen_registers() -> Result {
        fn offset<T>(location: impl IoLoc<Region<{ regs::SIZE }>, T>) -> usize {
            location.offset()
        }

        ensure!(offset(regs::ITR) == 0xc4);
        ensure!(offset(regs::TIPG) == 0x410);
        ensure!(offset(regs::MPC) == 0x4010);
        ensure!(offset(regs::RNBC) == 0x40a0);
        ensure!(offset(regs::ROC) == 0x40ac);
        ensure!(offset(regs::RXCSUM) == 0x5000);
        Ok(())
    }

    /// What counts as an interrupt: any cause, but not a device that isn't there.
    #[test]
    fn interrupt_causes() -> Result {
        ensure!(!hardware::is_raised(0) && !hardware::is_raised(u32::MAX));

        for bit in 0..32 {
            ensure!(hardware::is_raised(1 << bit) && hardware::is_raised(!(1 << bit)));
        }

        Ok(())
    }

    /// Short frames get to 60 bytes, with zeros and whatever came before the last segment; others
    /// stay as they are.
    #[test]
    fn padding() -> Result {
        for before in 0..=70 {
            for len in 1..=70 {
                let mut padded = segment(len)?;

                sender::pad(&mut padded, before)?;

                let (head, tail) = padded.split_at(len);

                ensure!(before + padded.len() == 60.max(before + len));
                ensure!(head == &*segment(len)?);
                ensure!(tail.iter().all(|&byte| byte == 0));
            }

            ensure!(sender::pad(&mut KVec::new(), before) == Err(EINVAL));
        }

        for (before, len, padded) in [
            (0, MAX_FRAME, Ok(())),
            (MAX_FRAME - 1, 1, Ok(())),
            (0, MAX_FRAME + 1, Err(EMSGSIZE)),
            (MAX_FRAME, 1, Err(EMSGSIZE)),
        ] {
            let mut whole = segment(len)?;

            ensure!(sender::pad(&mut whole, before) == padded);
            ensure!(whole == segment(len)?);
        }

        Ok(())
    }

    /// An EEPROM with any word changed is refused, and so are addresses that no station has.
    #[test]
    fn eeprom_words() -> Result {
        /// Makes the sum right.
        fn close(words: &mut [u16; eeprom::WORDS]) {
            words[63] = 0;
            words[63] = words
                .iter()
                .fold(0xbaba_u16, |left, word| left.wrapping_sub(*word));
        }

        let mut words = [0x3fff; eeprom::WORDS];

        words[..3].copy_from_slice(&[0x5452, 0x1200, 0x5634]);
        close(&mut words);
        ensure!(eeprom::address_in(&words) == Ok([0x52, 0x54, 0x00, 0x12, 0x34, 0x56]));

        for i in 0..eeprom::WORDS {
            let mut spoilt = words;

            spoilt[i] ^= 0x0100;
            ensure!(eeprom::address_in(&spoilt) == Err(EIO));
        }

        for (first, address) in [
            // A group's.
            ([0x5453, 0x1200, 0x5634], Err(EIO)),
            ([0xffff; 3], Err(EIO)),
            ([0; 3], Err(EIO)),
            ([0, 0, 0x0100], Ok([0, 0, 0, 0, 0, 1])),
            ([0x0100, 0, 0], Ok([0, 1, 0, 0, 0, 0])),
        ] {
            words[..3].copy_from_slice(&first);
            close(&mut words);
            ensure!(eeprom::address_in(&words) == address);
        }

        Ok(())
    }
}
