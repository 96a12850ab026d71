// SPDX-License-Identifier: GPL-2.0

//! Driver for Intel's 8254x family of Gigabit Ethernet controllers, as QEMU emulates it.
//!
//! It is no network interface, but the first user of the descriptor rings, and their judge: frames
//! go out and come in by files in debugfs, by the tests, and by the benchmark. It binds to no
//! device by itself: write `dma_rs_e1000` to the file `driver_override` of the device in sysfs, and
//! its name to `/sys/bus/pci/drivers_probe`.
//!
//! | file | what is in it |
//! |---|---|
//! | `regs.rs` | the registers |
//! | `hardware.rs` | how the hardware processes and forgets its rings; the only `unsafe` code |
//! | `eeprom.rs` | the MAC address |
//! | `phy.rs` | loopback and link |
//! | `sender.rs` | posting frames, and getting them back |
//! | `receiver.rs` | receiving frames |
//! | `statistics.rs` | what the device counts |
//! | `nic.rs` | the device as the rest of the kernel sees it |
//! | `traffic.rs` | sends frames to itself, and measures |
//! | `files.rs` | debugfs |
//! | `tests.rs` | KUnit tests on real devices |
//! | `unit_tests.rs` | KUnit tests that need no device |

#![deny(unsafe_code)]
// The tests use more of it than the files do.
#![cfg_attr(not(CONFIG_DMA_RS_E1000_KUNIT_TEST), allow(dead_code))]

use kernel::{
    device::Core,
    device_id::IdArray,
    dma::{
        Constraints,
        DmaMask, //
    },
    pci,
    prelude::*,
    types::ForLt, //
};

mod eeprom;
mod files;
#[cfg(CONFIG_DMA_RS_E1000_KUNIT_TEST)]
mod filters;
mod hardware;
mod nic;
mod phy;
mod receiver;
mod regs;
mod sender;
mod statistics;
#[cfg(CONFIG_DMA_RS_E1000_KUNIT_TEST)]
mod tests;
mod traffic;
#[cfg(CONFIG_DMA_RS_E1000_KUNIT_TEST)]
mod unit_tests;

use files::Files;
use nic::{
    Completion,
    Handle,
    Nic,
    Settings, //
};

/// 82540EM, 82545EM, 82544GC: the members that QEMU has.
const DEVICES: [u16; 3] = [0x100e, 0x100f, 0x100c];

const CONSTRAINTS: Constraints = Constraints::new(DmaMask::new::<64>());

/// Matches nothing, and is none of the tables that modules are loaded by.
static PCI_TABLE: IdArray<pci::DeviceId, (), 0> = IdArray::new([]);

struct E1000Driver;

/// What the driver keeps of a bound device.
#[pin_data]
struct E1000Data {
    nic: Handle,
    #[pin]
    files: Files,
}

impl pci::DmaDriver for E1000Driver {
    type IdInfo = ();
    type Data<'bound> = E1000Data;
    const ID_TABLE: pci::IdTable<Self::IdInfo> = &PCI_TABLE;
    const RESUMES: bool = true;

    fn dma_constraints(_dev: &pci::Device, _info: Option<&Self::IdInfo>) -> Result<Constraints> {
        Ok(CONSTRAINTS)
    }

    fn probe<'bound>(
        pdev: &pci::Device<Core<'bound>>,
        _info: Option<&'bound Self::IdInfo>,
    ) -> impl PinInit<Self::Data<'bound>, Error> {
        pin_init::pin_init_scope(move || {
            // Whoever writes to `driver_override` may be wrong.
            if pdev.vendor_id() != pci::Vendor::INTEL || !DEVICES.contains(&pdev.device_id()) {
                dev_err!(
                    pdev,
                    "{}:{:#06x} is no device that this driver knows\n",
                    pdev.vendor_id(),
                    pdev.device_id()
                );
                return Err(ENODEV);
            }

            let nic = Nic::bring_up(pdev, settings())?;

            Ok(try_pin_init!(E1000Data {
                files <- Files::new(pdev.as_ref().name(), nic.clone()),
                nic,
            }? Error))
        })
    }

    fn resume<'bound>(_dev: &pci::Device<Core<'bound>>, this: Pin<&E1000Data>) -> Result {
        this.nic.try_access_with(|nic| nic.resume())?
    }
}

/// What the module's parameters say.
fn settings() -> Settings {
    Settings {
        tx: module_parameters::tx_descriptors.value(),
        rx: module_parameters::rx_descriptors.value(),
        completion: if module_parameters::polling.value() {
            Completion::Polling
        } else {
            Completion::Interrupt
        },
        promiscuous: module_parameters::promiscuous.value(),
        itr: module_parameters::itr.value(),
    }
}

type NicLt = ForLt!(Nic<'_>);

kernel::module_pci_dma_driver! {
    type: E1000Driver,
    name: "dma_rs_e1000",
    authors: ["The dma-rs authors"],
    description: "Intel 8254x Gigabit Ethernet, as a tester of descriptor rings",
    license: "GPL v2",
    params: {
        tx_descriptors: u32 {
            default: 256,
            description: "Descriptors of the transmit ring: a power of two from 64 to 4096",
        },
        rx_descriptors: u32 {
            default: 256,
            description: "Descriptors of the receive ring: a power of two from 64 to 4096",
        },
        polling: bool {
            default: false,
            description: "Look for frames instead of waiting for interrupts",
        },
        promiscuous: bool {
            default: true,
            description: "Receive frames for other stations, too",
        },
        itr: u16 {
            default: 0,
            description: "The least time between two interrupts, in units of 256 ns",
        },
    },
}
