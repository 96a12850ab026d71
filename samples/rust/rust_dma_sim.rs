// SPDX-License-Identifier: GPL-2.0

//! A driver's use of DMA, tested on a simulated bus.
//!
//! See `Documentation/rust/dma/testing.rst`.

use kernel::{
    dma::{
        fixture::{
            self,
            ensure, //
        },
        sim::{
            self,
            Copier,
            CopyEngine,
            Fate,
            Model,
            Script, //
        },
        transfer::{
            Engine,
            TransferSlot, //
        },
        FromDevice,
        Mapper,
        OneWay,
        Reader,
        Streaming,
        StreamingBox,
        ToDevice, //
    },
    prelude::*,
    time::Delta, //
};

module! {
    type: Sample,
    name: "rust_dma_sim",
    authors: ["The dma-rs authors"],
    description: "Tests of a driver on a simulated bus",
    license: "GPL",
}

/// The tests are all there is.
struct Sample;

impl kernel::Module for Sample {
    fn init(_module: &'static ThisModule) -> Result<Self> {
        Ok(Self)
    }
}

/// How long the device may take.
const TIMEOUT: Delta = Delta::from_secs(2);

/// How letters begin.
const VERSION: u8 = 1;
const URGENCIES: [&str; 2] = ["express", "slow"];

/// What the driver does with its device: it leaves messages there and picks them up.
///
/// It doesn't know the device's registers. `E` does: an engine of the driver, or a simulated one.
struct Mailbox<'a, E: Engine<Target = usize>> {
    dma: Mapper<'a>,
    slot: TransferSlot<'a, E, KVec<u8>>,
}

impl<'a, E: Engine<Target = usize>> Mailbox<'a, E> {
    fn new(dma: Mapper<'a>, engine: E) -> Result<Self> {
        Ok(Self {
            dma,
            slot: TransferSlot::new(dma, engine)?,
        })
    }

    /// Leaves a message in the device, `offset` bytes from its beginning.
    fn leave(&mut self, offset: usize, message: KVec<u8>) -> Result {
        self.transfer::<ToDevice>(offset, message).map(drop)
    }

    /// Picks a message of `len` bytes up.
    fn pick_up(&mut self, offset: usize, len: usize) -> Result<KVec<u8>> {
        // Rounded up, so that no other memory lies in the same cache lines.
        let mut buf = KVec::with_capacity(len.next_power_of_two().max(256), GFP_KERNEL)?;

        buf.resize(len, 0, GFP_KERNEL)?;
        Ok(self.transfer::<FromDevice>(offset, buf)?.unmap())
    }

    /// Picks a letter up: a version, how urgent it is, its length in two bytes, and its text.
    ///
    /// The device may have written anything, so nothing of it is used before it was checked.
    fn pick_up_letter(&mut self, offset: usize, room: usize) -> Result<(&'static str, KVec<u8>)> {
        let bytes = self.pick_up(offset, room)?;
        let mut reader = Reader::new(&bytes);

        if reader.u8()? != VERSION {
            return Err(EPROTO);
        }

        let urgency = reader.u8()?.index_into(&URGENCIES)?;
        let len = reader.u16_le()?;
        let mut text = KVec::new();

        text.extend_from_slice(reader.take(len)?, GFP_KERNEL)?;
        Ok((urgency, text))
    }

    fn transfer<D: OneWay>(
        &mut self,
        offset: usize,
        buf: KVec<u8>,
    ) -> Result<StreamingBox<'a, KVec<u8>, D>> {
        let len = buf.len();
        let buf = Streaming::<_, D>::map(self.dma, buf)?;

        self.slot
            .start(buf, 0..len, offset)?
            .wait_polling(Delta::from_micros(50), TIMEOUT)
    }
}

#[kunit_tests(sample_rust_dma_sim)]
mod tests {
    use super::*;

    const HELLO: &[u8] = b"hello, device";

    fn hello() -> Result<KVec<u8>> {
        let mut message = KVec::new();

        message.extend_from_slice(HELLO, GFP_KERNEL)?;
        Ok(message)
    }

    // [start of a test]
    /// On each kind of bus, with a device that takes its time.
    #[test]
    fn messages_come_back() -> Result {
        let script = Script::new(Model::NonCoherent).fate(Fate::after(3));

        sim::run_on_each(script, |pdev, sim| {
            let device = CopyEngine::new(sim, 256)?;
            let mut mailbox = Mailbox::new(fixture::open(pdev.as_ref())?, Copier(device))?;

            mailbox.leave(100, hello()?)?;
            ensure!(mailbox.pick_up(100, HELLO.len())?[..] == *HELLO);
            ensure!(sim.counters().maps == 2);
            Ok(())
        })
    }
    // [end of a test]

    /// Whichever mapping fails, the driver says so, leaks nothing, and works afterwards.
    #[test]
    fn no_room() -> Result {
        sim::run(Script::new(Model::Bounce), |pdev, sim| {
            let device = CopyEngine::new(sim, 256)?;
            let mut mailbox = Mailbox::new(fixture::open(pdev.as_ref())?, Copier(device))?;

            for k in 1..=2 {
                sim.fail_map(k);

                let outcome = mailbox
                    .leave(0, hello()?)
                    .and_then(|()| mailbox.pick_up(0, HELLO.len()));

                ensure!(matches!(outcome, Err(e) if e == ENOMEM));
                ensure!(sim.counters().live == 0);
            }

            mailbox.leave(0, hello()?)
        })
    }

    // [start of fates]
    /// A device that takes up to 20 ticks, always as the seed has it, but for two transfers.
    #[test]
    fn fates() -> Result {
        let script = Script::new(Model::NonCoherent)
            .fate(Fate::within(20))
            .seed(42);

        sim::run(script, |pdev, sim| {
            let device = CopyEngine::new(sim, 256)?;
            let engine = Copier(device.clone());
            let mut mailbox = Mailbox::new(fixture::open(pdev.as_ref())?, engine)?;

            mailbox.leave(0, hello()?)?;

            // Of the next one the device lies about the length; the one after it is reported twice.
            device.then(Fate::after(0).reports(1 << 20))?;
            device.then(Fate::after(0).twice())?;
            ensure!(matches!(mailbox.pick_up(0, 64), Err(e) if e == EIO));
            ensure!(mailbox.pick_up(0, HELLO.len())?[..] == *HELLO);
            Ok(())
        })
    }
    // [end of fates]

    /// A device that doesn't answer in time keeps its buffer; the driver is refused another
    /// transfer until the device is done.
    #[test]
    fn late() -> Result {
        sim::run(Script::new(Model::NonCoherent), |pdev, sim| {
            let device = CopyEngine::new(sim, 256)?;
            let engine = Copier(device.clone());
            let mut mailbox = Mailbox::new(fixture::open(pdev.as_ref())?, engine)?;

            device.then(Fate::after(1_000_000))?;
            ensure!(mailbox.leave(0, hello()?) == Err(ETIMEDOUT));
            ensure!(mailbox.leave(0, hello()?) == Err(EBUSY));

            sim.advance(1_000_000);
            mailbox.leave(0, hello()?)
        })
    }

    /// A device that delivers nonsense: an error, and never a panic or other people's letters.
    #[test]
    fn letters() -> Result {
        /// How urgent it is, and its text.
        type Letter = (&'static str, &'static [u8]);

        let letters: [(&[u8], Result<Letter>); 5] = [
            (b"\x01\x00\x02\x00hi, again", Ok(("express", b"hi"))),
            (b"\x01\x01\x00\x00", Ok(("slow", b""))),
            (b"\x02\x00\x05\x00hello", Err(EPROTO)),
            (b"\x01\x02\x05\x00hello", Err(EIO)),
            (b"\x01\x00\xff\xffhello", Err(EIO)),
        ];

        sim::run(Script::new(Model::NonCoherent), |pdev, sim| {
            let device = CopyEngine::new(sim, 256)?;
            let mut mailbox = Mailbox::new(fixture::open(pdev.as_ref())?, Copier(device))?;

            for (bytes, expected) in letters {
                let mut letter = KVec::new();

                letter.extend_from_slice(bytes, GFP_KERNEL)?;
                mailbox.leave(0, letter)?;

                let found = mailbox.pick_up_letter(0, 64);
                let found = found.as_ref().map(|(urgency, text)| (*urgency, &text[..]));

                ensure!(found.map_err(|e| *e) == expected);
            }

            Ok(())
        })
    }

    /// A device that claims to have moved more than there is.
    #[test]
    fn lies() -> Result {
        sim::run(Script::new(Model::NonCoherent), |pdev, sim| {
            let device = CopyEngine::new(sim, 256)?;
            let engine = Copier(device.clone());
            let mut mailbox = Mailbox::new(fixture::open(pdev.as_ref())?, engine)?;

            device.then(Fate::after(0).reports(1 << 20))?;
            ensure!(matches!(mailbox.pick_up(0, 64), Err(e) if e == EIO));
            Ok(())
        })
    }
}
