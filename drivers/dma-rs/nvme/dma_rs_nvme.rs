// SPDX-License-Identifier: GPL-2.0

//! Driver for NVMe devices, as QEMU emulates them (`-device nvme`).
//!
//! It is no block device, but the first user of queues of commands that complete in any order: an
//! admin queue, and queues for reads and writes, as many as there are CPUs, but at most four. Each
//! has an interrupt of its own. The driver binds to no device by itself: write
//! `dma_rs_nvme` to the file `driver_override` of the device in sysfs, and its name to
//! `/sys/bus/pci/drivers_probe`.
//!
//! | file | what is in it |
//! |---|---|
//! | `regs.rs` | the registers |
//! | `hardware.rs` | queues, commands, and how the device is stopped; the only `unsafe` code |
//! | `hardware/admin.rs` | what the device is asked, on which that code relies |
//! | `hardware/pair.rs` | a queue, put together with the one in which its commands complete |
//! | `nvme.rs` | the device as the rest of the driver sees it |
//! | `exchange.rs`, `files.rs` | what the demonstration shows, in debugfs |
//! | `tests.rs` | KUnit tests on real devices |

#![deny(unsafe_code)]
// The tests use more of it.
#![cfg_attr(not(CONFIG_DMA_RS_NVME_KUNIT_TEST), allow(dead_code))]

use kernel::{
    device::Core,
    device_id::IdArray,
    dma::Constraints,
    pci,
    prelude::*,
    types::ForLt, //
};

mod exchange;
mod files;
mod hardware;
mod nvme;
mod regs;
mod requests;
#[cfg(CONFIG_DMA_RS_NVME_KUNIT_TEST)]
mod tests;

use files::{
    Files,
    Handle, //
};
use nvme::Nvme;

/// QEMU's device.
const VENDOR: u16 = 0x1b36;
const DEVICE: u16 = 0x0010;

/// Matches nothing, and is none of the tables that modules are loaded by.
static PCI_TABLE: IdArray<pci::DeviceId, (), 0> = IdArray::new([]);

struct NvmeDriver;

/// What the driver keeps of a bound device.
#[pin_data]
struct NvmeData {
    nvme: Handle,
    #[pin]
    files: Files,
}

impl pci::DmaDriver for NvmeDriver {
    type IdInfo = ();
    type Data<'bound> = NvmeData;
    const ID_TABLE: pci::IdTable<Self::IdInfo> = &PCI_TABLE;
    const RESUMES: bool = true;

    fn dma_constraints(_dev: &pci::Device, _info: Option<&Self::IdInfo>) -> Result<Constraints> {
        Ok(hardware::LIMITS)
    }

    fn probe<'bound>(
        pdev: &pci::Device<Core<'bound>>,
        _info: Option<&'bound Self::IdInfo>,
    ) -> impl PinInit<Self::Data<'bound>, Error> {
        pin_init::pin_init_scope(move || {
            // Whoever writes to `driver_override` may be wrong.
            if pdev.vendor_id() != pci::Vendor::from_raw(VENDOR) || pdev.device_id() != DEVICE {
                dev_err!(
                    pdev,
                    "{}:{:#06x} is no device that this driver knows\n",
                    pdev.vendor_id(),
                    pdev.device_id()
                );
                return Err(ENODEV);
            }

            let nvme = Nvme::bring_up(pdev)?;

            dev_info!(
                pdev,
                "firmware {}: {} blocks of {} bytes, {} pairs of queues, {} interrupts\n",
                nvme.identity.firmware(),
                nvme.identity.blocks,
                nvme.identity.block,
                nvme.pairs(),
                nvme.vectors
            );

            let nvme = Handle::new(pdev.as_ref(), Ok::<_, Error>(nvme))?;

            Ok(try_pin_init!(NvmeData {
                files <- Files::new(pdev.as_ref().name(), nvme.clone()),
                nvme,
            }? Error))
        })
    }

    fn resume<'bound>(_dev: &pci::Device<Core<'bound>>, this: Pin<&NvmeData>) -> Result {
        this.nvme.try_access_with(|nvme| nvme.resume())?
    }
}

type NvmeLt = ForLt!(Nvme<'_>);

kernel::module_pci_dma_driver! {
    type: NvmeDriver,
    name: "dma_rs_nvme",
    authors: ["The dma-rs authors"],
    description: "NVMe, as a tester of queues of commands",
    license: "GPL v2",
}
