// SPDX-License-Identifier: GPL-2.0

//! Network interface on Intel's 8254x family of Gigabit Ethernet controllers, as QEMU emulates it.
//!
//! It binds to no device by itself: write `dma_rs_e1000_net` to the file `driver_override` of the
//! device in sysfs, and its name to `/sys/bus/pci/drivers_probe`. Most of what it knows of the
//! hardware it has in common with the tester of rings, `dma_rs_e1000`:
//!
//! | file | what is in it |
//! |---|---|
//! | `regs.rs` | the registers |
//! | `hardware.rs` | how the hardware works off and forgets its rings; the only `unsafe` code |
//! | `eeprom.rs` | the MAC address |
//! | `phy.rs` | the link |
//! | `filters.rs` | which frames are received |
//! | `statistics.rs` | what the device counts |
//! | `interface.rs` | the network interface |

#![deny(unsafe_code)]
// The tester of rings uses more of what they have in common.
#![allow(dead_code)]

use kernel::{
    device::Core,
    device_id::IdArray,
    dma::{
        Constraints,
        DmaMask, //
    },
    net::netdev,
    pci,
    prelude::*, //
};

mod eeprom;
mod filters;
mod hardware;
mod interface;
mod phy;
mod regs;
mod statistics;

/// 82540EM, 82545EM, 82544GC: the members that QEMU has.
const DEVICES: [u16; 3] = [0x100e, 0x100f, 0x100c];

const CONSTRAINTS: Constraints = Constraints::new(DmaMask::new::<64>());

/// Matches nothing, and is none of the tables that modules are loaded by.
static PCI_TABLE: IdArray<pci::DeviceId, (), 0> = IdArray::new([]);

struct E1000Driver;

/// What the driver keeps of a bound device.
struct E1000Data<'bound> {
    device: &'bound netdev::Device,
}

impl pci::DmaDriver for E1000Driver {
    type IdInfo = ();
    type Data<'bound> = E1000Data<'bound>;
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

            let device = interface::bring_up(
                pdev,
                module_parameters::tx_descriptors.value(),
                module_parameters::rx_descriptors.value(),
            )?;

            Ok(Ok::<_, Error>(E1000Data { device }))
        })
    }

    fn resume<'bound>(_dev: &pci::Device<Core<'bound>>, this: Pin<&Self::Data<'bound>>) -> Result {
        // The rings are told to the device where nobody sends or polls: see `Interface::work()`.
        this.device.schedule_work(netdev::Events::RESUMED);
        Ok(())
    }
}

kernel::module_pci_dma_driver! {
    type: E1000Driver,
    name: "dma_rs_e1000_net",
    authors: ["The dma-rs authors"],
    description: "Intel 8254x Gigabit Ethernet, as a network interface",
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
    },
}
