// SPDX-License-Identifier: GPL-2.0

//! A driver that sends memory in pieces, and its tests on a simulated bus.
//!
//! `Documentation/rust/dma/rings.rst` shows parts of it.

use kernel::{
    dma::{
        fixture::ensure,
        ring::{
            Descriptor,
            Gathered,
            Ring,
            RingRegisters, //
        },
        sim::{
            self,
            Fate,
            Model,
            OwnedSender,
            RingConsumer,
            RingStopper,
            Script,
            Sender, //
        },
        Mapper,
        Scatter,
        ScatterBox,
        ScatterMap,
        Session,
        SharedPages,
        ToDevice, //
    },
    page::PAGE_SIZE,
    prelude::*,
    sync::Arc, //
};

module! {
    type: Sample,
    name: "rust_dma_list",
    authors: ["The dma-rs authors"],
    description: "A driver that sends memory in pieces, and its tests",
    license: "GPL",
}

/// The tests are all there is.
struct Sample;

impl kernel::Module for Sample {
    fn init(_module: &'static ThisModule) -> Result<Self> {
        Ok(Self)
    }
}

/// A printer. A print has a title, and a document in pieces, `S`.
///
/// `Q` knows the registers: a queue of the driver's, or a simulated one.
struct Printer<'a, Q: RingRegisters<Direction = ToDevice>, S: Scatter> {
    ring: Ring<'a, Q, Gathered<'a, KVec<u8>, S>>,
}

impl<'a, Q, S> Printer<'a, Q, S>
where
    Q: RingRegisters<Direction = ToDevice, Descriptor: Descriptor<Options = ()>>,
    S: Scatter,
{
    fn new(dma: Mapper<'a>, queue: Q) -> Result<Self> {
        Ok(Self {
            ring: Ring::new(dma, queue, 64)?,
        })
    }

    // [start of sending a list]
    /// Prints a document. It comes back from [`printed`](Self::printed).
    fn print(&mut self, title: KVec<u8>, document: ScatterMap<'a, S, ToDevice>) -> Result {
        let mut job = self.ring.producer.new_chain();

        job.push(Gathered::Segment(title), ())?;
        // A descriptor for each of its segments. If there isn't room for all, none is posted.
        job.push_list(document, ())?;
        job.commit()?;
        self.ring.producer.kick()
    }

    /// Returns the next document that was printed. It is still mapped.
    fn printed(&mut self) -> Option<ScatterBox<'a, S, ToDevice>> {
        let segments = self.ring.consumer.reap()?;
        let mut document = None;

        for segment in segments {
            // The document comes from the last of its parts.
            if let Gathered::Part(part) = segment {
                document = part.into_list();
            }
        }

        document
    }
    // [end of sending a list]
}

#[kunit_tests(sample_rust_dma_list)]
mod tests {
    use super::*;

    fn title() -> Result<KVec<u8>> {
        let mut title = KVec::with_capacity(256, GFP_KERNEL)?;

        title.extend_from_slice(b"title", GFP_KERNEL)?;
        Ok(title)
    }

    /// Whether a document was printed, whose pages each have one of these bytes.
    fn is_printed(device: &RingConsumer, pages: &[u8]) -> bool {
        device.next_sent().is_some_and(|bytes| {
            let document = bytes.strip_prefix(b"title").unwrap_or(&[]);

            document.len() == pages.len() * PAGE_SIZE
                && document
                    .chunks(PAGE_SIZE)
                    .zip(pages)
                    .all(|(page, byte)| page.iter().all(|b| b == byte))
        })
    }

    /// A document in a `vmalloc()` area is mapped once, and printed twice, with changes.
    fn prints<Q>(model: Model, queue: fn(Arc<RingConsumer>) -> Q) -> Result
    where
        Q: RingRegisters<Direction = ToDevice, Descriptor: Descriptor<Options = ()>>,
    {
        sim::run(Script::new(model).fate(Fate::after(1)), |pdev, sim| {
            let device = RingConsumer::new(sim)?;
            let session: Session<'_, ()> = Session::new(
                pdev.as_ref(),
                RingStopper([device.clone()]),
                Ok::<_, Error>(()),
            )?;
            let dma = Mapper::get(pdev.as_ref())?;
            let mut printer = Printer::new(dma, queue(device.clone()))?;

            session.start()?;
            printer.ring.start(drop)?;

            // Filled by the CPU after it was mapped.
            let pages = VVec::from_elem(1, 3 * PAGE_SIZE, GFP_KERNEL)?;
            let mut document = ScatterBox::map(dma, pages, GFP_KERNEL)?;

            document
                .slices_mut()
                .for_each(|slice| slice[PAGE_SIZE..2 * PAGE_SIZE].fill(2));
            printer.print(title()?, document.submit())?;
            ensure!(printer.printed().is_none());
            sim.advance(20);
            ensure!(is_printed(&device, &[1, 2, 1]));

            let mut document = printer.printed().ok_or(EIO)?;
            let maps = sim.counters().maps;

            document.slices_mut().for_each(|slice| slice.fill(3));
            printer.print(title()?, document.submit())?;
            sim.advance(20);
            ensure!(is_printed(&device, &[3, 3, 3]));
            // The title.
            ensure!(sim.counters().maps == maps + 1);

            let pages = printer.printed().ok_or(EIO)?.unmap();

            ensure!(pages.iter().all(|&byte| byte == 3));
            session.stop();
            Ok(())
        })
    }

    #[test]
    fn prints_again() -> Result {
        for model in Model::ALL {
            prints(model, Sender)?;
            prints(model, OwnedSender)?;
        }

        Ok(())
    }

    /// Two printers print the same pages at the same time.
    #[test]
    fn prints_twice() -> Result {
        let script = Script::new(Model::Coherent).fate(Fate::after(3));

        sim::run_on_each(script, |pdev, sim| {
            let devices = [RingConsumer::new(sim)?, RingConsumer::new(sim)?];
            let session: Session<'_, ()> = Session::new(
                pdev.as_ref(),
                RingStopper(devices.clone()),
                Ok::<_, Error>(()),
            )?;
            let dma = Mapper::get(pdev.as_ref())?;
            let pages = SharedPages::zeroed(2, GFP_KERNEL)?;
            let mut printers = KVec::new();

            session.start()?;
            pages.write(PAGE_SIZE, &[7; 4096])?;

            for device in &devices {
                let mut printer = Printer::new(dma, Sender(device.clone()))?;
                let document = ScatterMap::map(dma, pages.try_clone(GFP_KERNEL)?, GFP_KERNEL)?;

                printer.ring.start(drop)?;
                printer.print(title()?, document)?;
                printers.push(printer, GFP_KERNEL)?;
            }

            // The devices have the pages, too.
            drop(pages);
            sim.advance(40);

            for (printer, device) in printers.iter_mut().zip(&devices) {
                ensure!(is_printed(device, &[0, 7]));
                ensure!(printer.printed().is_some());
            }

            session.stop();
            Ok(())
        })
    }
}
