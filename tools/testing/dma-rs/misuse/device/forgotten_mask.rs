// SPDX-License-Identifier: GPL-2.0
//@revisions: ok bad

//! A driver doesn't say how many address bits its device has.
//!
//! C: `dma_set_mask_and_coherent()` is left out; 32 bits are the default.
//! Shows: With more than 4 GiB of memory, as bounces, or as failures without bounce buffers.

use kernel::{
    device::Core,
    pci,
    prelude::*, //
};

pub struct Driver;

kernel::pci_device_table!(
    TABLE,
    <Driver as pci::DmaDriver>::IdInfo,
    [(pci::DeviceId::from_id(pci::Vendor::REDHAT, 0x5), ())]
);

impl pci::DmaDriver for Driver {
    //~[bad]^ E0046
    type IdInfo = ();
    type Data<'bound> = ();
    const ID_TABLE: pci::IdTable<Self::IdInfo> = &TABLE;

    #[cfg(ok)]
    fn dma_constraints(_: &pci::Device, _: Option<&()>) -> Result<kernel::dma::Constraints> {
        Ok(kernel::dma::Constraints::new(
            kernel::dma::DmaMask::new::<64>(),
        ))
    }

    fn probe<'bound>(
        _dev: &pci::Device<Core<'bound>>,
        _info: Option<&'bound ()>,
    ) -> impl PinInit<(), Error> {
        Ok::<_, Error>(())
    }
}
