// SPDX-License-Identifier: GPL-2.0

//! Tests of fences whose memory is in a ring or in a queue, on simulated devices.

use super::{
    context,
    job,
    memory,
    Fence,
    Fenced, //
};
use crate::{
    device::Core,
    dma::{
        fixture::ensure,
        queue::{
            Commands,
            Completions, //
        },
        ring::Ring,
        sim::{
            self,
            Completes,
            Controller,
            ControllerStopper,
            Fate,
            List,
            Model,
            RingConsumer,
            RingStopper,
            Script,
            Sender,
            Sim,
            Submits, //
        },
        Mapper,
        Pool,
        Session,
        StopOutcome,
        Streaming,
        ToDevice, //
    },
    platform,
    prelude::*,
    sync::{
        aref::ARef,
        Arc, //
    }, //
};

/// How many jobs there are at a time.
const JOBS: usize = 4;

type Job<'a> = Streaming<'a, Fenced<KVec<u8>>, ToDevice>;

fn bytes() -> Result<KVec<u8>> {
    Ok(KVec::from_elem(7, 256, GFP_KERNEL)?)
}

/// Whether all jobs are in this state.
fn are(fences: &[ARef<Fence>], status: Option<Result>) -> bool {
    fences.len() == JOBS && fences.iter().all(|fence| fence.status() == status)
}

/// Jobs that end in the order in which they were posted have one context.
fn in_a_ring<'a>(pdev: &platform::Device<Core<'a>>, sim: &Arc<Sim>) -> Result {
    let dma = Mapper::get(pdev.as_ref().bound())?;
    let nic = RingConsumer::new(sim)?;
    let stopper = RingStopper([nic.clone()]);
    let session: Session<'a, ()> = Session::new(pdev.as_ref(), stopper, Ok::<_, Error>(()))?;
    let mut tx = Ring::new(dma, Sender(nic), 16)?;
    let context = context()?;
    let post = |tx: &mut Ring<'a, Sender, Fenced<KVec<u8>>>| -> Result<KVec<ARef<Fence>>> {
        let mut fences = KVec::new();

        for _ in 0..JOBS {
            let job = context.fence(memory()?);

            fences.push(job.fence(), GFP_KERNEL)?;
            tx.producer.post(Fenced::new(bytes()?, job), ())?;
        }

        tx.producer.kick()?;
        Ok(fences)
    };

    session.start()?;
    tx.start(drop)?;

    let sent = post(&mut tx)?;

    ensure!(are(&sent, None));
    sim.advance(40);
    ensure!(are(&sent, None));
    ensure!(tx.consumer.reap_each(|job| drop(job.signal())) as usize == JOBS);
    ensure!(are(&sent, Some(Ok(()))));

    // The device is stopped, and the driver drops the ring.
    let lost = post(&mut tx)?;
    let stopped = session.stop();

    ensure!(are(&lost, None));
    drop(tx);
    ensure!(stopped == StopOutcome::Stopped && are(&lost, Some(Err(ECANCELED))));
    ensure!(context.disorder() == 0);
    Ok(())
}

/// Commands are completed in any order, so each has a context of its own.
fn in_a_queue<'a>(pdev: &platform::Device<Core<'a>>, sim: &Arc<Sim>) -> Result {
    let dma = Mapper::get(pdev.as_ref().bound())?;
    let device = Controller::new(sim)?;
    let stopper = ControllerStopper(device.clone());
    let session: Session<'a, ()> = Session::new(pdev.as_ref(), stopper, Ok::<_, Error>(()))?;
    let lists = Pool::<List>::new(pdev.as_ref(), c"lists")?;
    let mut done = Completions::new(dma, Completes(device.clone(), 1), 16)?;
    // CAST: A small number.
    let port = done.port(0, JOBS as u16)?;
    let mut io = Commands::new(dma, Submits::<8>(device, 0, 1), port, Some(lists))?;
    let submit = |io: &mut Commands<'a, Submits<8>, Job<'a>>| -> Result<KVec<ARef<Fence>>> {
        let mut fences = KVec::new();

        for argument in 1..=JOBS {
            let (job, fence) = job()?;
            let job = Streaming::map(dma, Fenced::new(bytes()?, job))?;

            fences.push(fence, GFP_KERNEL)?;
            // CAST: Widening.
            io.submitter.submit(job, argument as u64)?;
        }

        io.submitter.kick()?;
        Ok(fences)
    };

    session.start()?;
    done.start()?;
    io.start(|_, _| {})?;

    let sent = submit(&mut io)?;

    ensure!(are(&sent, None));
    sim.advance(40);
    ensure!(are(&sent, None));
    done.reap(64, |seen| {
        if let Ok(completed) = io.completer.complete(seen) {
            drop(completed.payload.unmap().signal());
        }
    });
    ensure!(are(&sent, Some(Ok(()))));

    // The device is stopped, and the driver drops the queue.
    let lost = submit(&mut io)?;
    let stopped = session.stop();

    ensure!(are(&lost, None));
    drop(io);
    ensure!(stopped == StopOutcome::Stopped && are(&lost, Some(Err(ECANCELED))));
    Ok(())
}

#[kunit_tests(rust_dma_fence_sim)]
mod cases {
    use super::*;

    /// A batch in a ring.
    #[test]
    fn ring() -> Result {
        for model in Model::ALL {
            sim::run(Script::new(model).fate(Fate::after(2)), |pdev, sim| {
                in_a_ring(pdev, sim)
            })?;
        }

        Ok(())
    }

    /// Commands of a queue.
    #[test]
    fn queue() -> Result {
        for model in Model::ALL {
            sim::run(Script::new(model).fate(Fate::within(10)), |pdev, sim| {
                in_a_queue(pdev, sim)
            })?;
        }

        Ok(())
    }
}
