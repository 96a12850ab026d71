// SPDX-License-Identifier: GPL-2.0

//! Driver for QEMU's educational device (`-device edu`).
//!
//! The device has a memory of its own, and an engine that moves one piece of it at a time, 100 ms
//! after it was told to. There is no way to call a transfer off, and the device survives unbinding
//! with all that it was told, which makes it a hard but fair judge of DMA ownership.
//!
//! | file | what is in it |
//! |---|---|
//! | `regs.rs` | the registers |
//! | `engine.rs` | how the hardware starts, ends and stops; the only `unsafe` code |
//! | `edu.rs` | the device as the rest of the kernel sees it |
//! | `files.rs` | debugfs |
//! | `tests.rs` | KUnit tests on real devices |
//!
//! Specification: `docs/specs/edu.rst` of QEMU.

#![deny(unsafe_code)]

use kernel::{
    device::Core,
    dma::{
        Constraints,
        DmaMask, //
    },
    pci,
    prelude::*,
    types::ForLt, //
};

mod edu;
mod engine;
mod files;
mod regs;
#[cfg(CONFIG_DMA_RS_EDU_KUNIT_TEST)]
mod tests;

use edu::{
    Completion,
    Edu, //
};
use files::Files;

const VENDOR: u16 = 0x1234;
const DEVICE: u32 = 0x11e8;

kernel::pci_device_table!(
    PCI_TABLE,
    <EduDriver as pci::DmaDriver>::IdInfo,
    [(
        pci::DeviceId::from_id(pci::Vendor::from_raw(VENDOR), DEVICE),
        ()
    )]
);

struct EduDriver;

/// What the driver keeps of a bound device.
#[pin_data]
struct EduData {
    #[pin]
    files: Files,
}

impl pci::DmaDriver for EduDriver {
    type IdInfo = ();
    type Data<'bound> = EduData;
    const ID_TABLE: pci::IdTable<Self::IdInfo> = &PCI_TABLE;
    // It is told all it needs with each transfer.
    const RESUMES: bool = true;

    fn dma_constraints(_dev: &pci::Device, _info: Option<&Self::IdInfo>) -> Result<Constraints> {
        constraints()
    }

    fn probe<'bound>(
        pdev: &pci::Device<Core<'bound>>,
        _info: Option<&'bound Self::IdInfo>,
    ) -> impl PinInit<Self::Data<'bound>, Error> {
        pin_init::pin_init_scope(move || {
            let completion = if module_parameters::polling.value() {
                Completion::Polling
            } else {
                Completion::Interrupt
            };

            let edu = Edu::bring_up(pdev, completion, constraints()?)?;
            let stats = edu.try_access_with(|edu| edu.stats())?;

            Ok(try_pin_init!(EduData {
                files <- Files::new(pdev.as_ref().name(), edu, stats),
            }))
        })
    }
}

/// What the device can take. The parameter says how many address bits it drives.
fn constraints() -> Result<Constraints> {
    let bits = module_parameters::dma_bits.value();

    Ok(Constraints::new(DmaMask::try_new(bits)?))
}

type EduLt = ForLt!(Edu<'_>);

kernel::module_pci_dma_driver! {
    type: EduDriver,
    name: "dma_rs_edu",
    authors: ["The dma-rs authors"],
    description: "QEMU educational device",
    license: "GPL v2",
    params: {
        dma_bits: u32 {
            default: 28,
            description: "Address bits that the device drives (its property dma_mask)",
        },
        polling: bool {
            default: false,
            description: "Look for the end of a transfer instead of waiting for an interrupt",
        },
    },
}
