// SPDX-License-Identifier: GPL-2.0

//! The same DMA work in C and in Rust, to be measured.
//!
//! Drives `-device pci-testdev` of QEMU, which does no DMA: what counts is the CPU's part. Writing
//! to the file `run` in debugfs runs the operations whose names begin so, and reports each to the
//! log. Where instructions are counted (QEMU: `-icount shift=0`) a nanosecond is one of them.
//!
//! To add an operation: a loop in C (`memory.c`, `ring.c`, `queue.c`, `copy.c`), the same loop in
//! Rust (`loops.rs`), and a row that names both (`table.rs`).
//!
//! | file | what is in it |
//! |---|---|
//! | `loops.rs` | the loops in Rust |
//! | `memory.c`, `ring.c`, `queue.c`, `copy.c` | the loops in C |
//! | `engine.c` | the DMA engine that copies for both, a module of its own |
//! | `table.rs` | which belong together |
//! | `measure.rs` | runs them, and takes the time |
//! | `device.rs`, `queue.rs`, `bench.c` | the device; the way from Rust to C: `unsafe` code |

#![deny(unsafe_code)]

use kernel::{
    debugfs::{
        BinaryReader,
        Dir,
        File, //
    },
    device::Core,
    dma::{
        Constraints,
        DmaMask, //
    },
    fs::file,
    pci,
    prelude::*,
    str::CString,
    types::ForLt,
    uaccess::UserSliceReader, //
};

mod device;
mod loops;
mod measure;
mod queue;
mod table;

use measure::{
    Bench,
    Handle, //
};

const DEVICE: u32 = 0x0005;

kernel::pci_device_table!(
    PCI_TABLE,
    <BenchDriver as pci::DmaDriver>::IdInfo,
    [(pci::DeviceId::from_id(pci::Vendor::REDHAT, DEVICE), ())]
);

struct BenchDriver;

/// What the driver keeps of a bound device.
#[pin_data]
struct BenchData {
    #[pin]
    run: File<Run>,
    #[pin]
    parallel: File<Parallel>,
}

type BenchLt = ForLt!(Bench<'_>);

impl pci::DmaDriver for BenchDriver {
    type IdInfo = ();
    type Data<'bound> = BenchData;
    const ID_TABLE: pci::IdTable<Self::IdInfo> = &PCI_TABLE;

    fn dma_constraints(_dev: &pci::Device, _info: Option<&Self::IdInfo>) -> Result<Constraints> {
        Ok(Constraints::new(DmaMask::new::<64>()))
    }

    fn probe<'bound>(
        pdev: &pci::Device<Core<'bound>>,
        _info: Option<&'bound Self::IdInfo>,
    ) -> impl PinInit<Self::Data<'bound>, Error> {
        pin_init::pin_init_scope(move || {
            let bench = Bench::bring_up(pdev)?;
            let dir = Dir::new(&CString::try_from_fmt(fmt!("dma_rs_bench"))?);

            Ok(try_pin_init!(BenchData {
                run <- dir.write_binary_file(c"run", Ok::<_, Error>(Run(bench.clone()))),
                parallel <- dir.write_binary_file(
                    c"parallel",
                    Ok::<_, Error>(Parallel(bench)),
                ),
            }? Error))
        })
    }
}

/// Each write runs the operations whose names begin with what is written.
struct Run(Handle);

impl BinaryReader for Run {
    fn read_from_slice(
        &self,
        reader: &mut UserSliceReader,
        _offset: &mut file::Offset,
    ) -> Result<usize> {
        let len = reader.len();

        with_text(reader, |text| {
            self.0.try_access_with(|bench| bench.run(text))?
        })?;
        Ok(len)
    }
}

/// Each write maps and unmaps a buffer, so many times: `c <times>`, or `rust <times>`. Several may
/// write at the same time, for each CPU to have something to do.
struct Parallel(Handle);

impl BinaryReader for Parallel {
    fn read_from_slice(
        &self,
        reader: &mut UserSliceReader,
        _offset: &mut file::Offset,
    ) -> Result<usize> {
        let len = reader.len();

        with_text(reader, |text| {
            let (who, times) = text.split_once(' ').ok_or(EINVAL)?;
            let times = times.parse().map_err(|_| EINVAL)?;

            self.0
                .try_access_with(|bench| bench.run_parallel(who, times))?
        })?;
        Ok(len)
    }
}

/// Calls `f` with what is written, without spaces at its ends.
fn with_text(reader: &mut UserSliceReader, f: impl FnOnce(&str) -> Result) -> Result {
    let mut text = [0; 64];
    let text = text.get_mut(..reader.len()).ok_or(EINVAL)?;

    reader.read_slice(text)?;
    f(core::str::from_utf8(text).map_err(|_| EINVAL)?.trim())
}

kernel::module_pci_dma_driver! {
    type: BenchDriver,
    name: "dma_rs_bench",
    authors: ["The dma-rs authors"],
    description: "The same DMA work in C and in Rust, to be measured",
    license: "GPL v2",
}
