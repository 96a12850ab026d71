// SPDX-License-Identifier: GPL-2.0

//! A driver that drops memory in `unbind()`, while its device may access it.
//!
//! That is freed when the bus has stopped the device, by code of this module, even if the device is
//! unbound because the module is being unloaded.

use kernel::{
    device::{
        Bound,
        Core,
        Device, //
    },
    device_id::IdArray,
    dma::{
        Constraints,
        DmaMask,
        Mapper,
        Quiesce,
        Session,
        Streaming,
        ToDevice, //
    },
    new_mutex,
    pci,
    prelude::*,
    sync::Mutex, //
};

const CONSTRAINTS: Constraints = Constraints::new(DmaMask::new::<28>());

/// Matches nothing: it binds where `driver_override` says so.
static PCI_TABLE: IdArray<pci::DeviceId, (), 0> = IdArray::new([]);

struct Stopper<'a>(&'a Device<Bound>);

// SAFETY: The device is never told to access memory.
unsafe impl Quiesce for Stopper<'_> {
    fn device(&self) -> &Device {
        self.0
    }

    fn limits(&self) -> Constraints {
        CONSTRAINTS
    }

    fn disarm(&mut self) -> Result {
        Ok(())
    }
}

struct Leaver;

#[pin_data]
struct Data<'bound> {
    _session: Session<'bound, ()>,
    #[pin]
    buf: Mutex<Option<Streaming<'bound, KVec<u8>, ToDevice>>>,
}

impl pci::DmaDriver for Leaver {
    type IdInfo = ();
    type Data<'bound> = Data<'bound>;
    const ID_TABLE: pci::IdTable<Self::IdInfo> = &PCI_TABLE;

    fn dma_constraints(_dev: &pci::Device, _info: Option<&()>) -> Result<Constraints> {
        Ok(CONSTRAINTS)
    }

    fn probe<'bound>(
        pdev: &pci::Device<Core<'bound>>,
        _info: Option<&'bound ()>,
    ) -> impl PinInit<Self::Data<'bound>, Error> {
        pin_init::pin_init_scope(move || {
            let dev = pdev.bound().as_ref();
            let dma = Mapper::get(dev)?;
            let session: Session<'bound, ()> =
                Session::new(pdev.as_ref(), Stopper(dev), Ok::<_, Error>(()))?;

            session.start()?;

            let buf = Streaming::map(dma, KVec::from_elem(0x55_u8, 256, GFP_KERNEL)?)?;

            // The device could have been told of it from here on.
            buf.address();

            Ok(try_pin_init!(Data {
                _session: session,
                buf <- new_mutex!(Some(buf)),
            }? Error))
        })
    }

    fn unbind<'bound>(_dev: &pci::Device<Core<'bound>>, this: Pin<&Self::Data<'bound>>) {
        drop(this.buf.lock().take());
    }
}

kernel::module_pci_dma_driver! {
    type: Leaver,
    name: "dma_rs_leaver",
    authors: ["The dma-rs authors"],
    description: "Drops memory of a device when it is unbound",
    license: "GPL v2",
}
