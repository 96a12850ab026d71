// SPDX-License-Identifier: GPL-2.0

//! A driver for a device whose memory user space maps: a sheet of numbers, which a process fills,
//! and to which the driver adds their sum.
//!
//! It binds to QEMU's educational device (`-device edu`), if `driver_override` says so, as to any
//! device that can do DMA: the device itself has nothing to do here. `/dev/dma-mmap` is the file.
//! `Documentation/rust/dma/shared.rst` shows parts of it.

use kernel::{
    device::Core,
    device_id::IdArray,
    devres::DevresSrcu,
    dma::{
        dma_read,
        dma_write,
        Constraints,
        DmaMask,
        Mapper,
        SharedBox,
        UserShared, //
    },
    driver,
    fs::File,
    ioctl::_IO,
    miscdevice::{
        MiscDevice,
        MiscDeviceOptions,
        MiscDeviceRegistration, //
    },
    mm::virt::VmaNew,
    pci,
    prelude::*,
    sync::global_lock,
    types::ForLt,
    InPlaceModule, //
};

module! {
    type: Sample,
    name: "rust_dma_mmap",
    authors: ["The dma-rs authors"],
    description: "A driver whose memory user space maps",
    license: "GPL",
}

#[pin_data]
struct Sample {
    #[pin]
    _driver: driver::Registration<pci::DmaAdapter<Driver>>,
}

impl InPlaceModule for Sample {
    fn init(module: &'static ThisModule) -> impl PinInit<Self, Error> {
        // SAFETY: Called once.
        unsafe { DEVICE.init() };

        try_pin_init!(Self {
            _driver <- driver::Registration::new(c"rust_dma_mmap", module),
        })
    }
}

const EDU: (u16, u16) = (0x1234, 0x11e8);

/// How many numbers a sheet has. They take several pages.
const MOST: usize = 3000;

/// Adds the numbers.
const ADD: u32 = _IO('d' as u32, 1);

/// Takes the sheet away from whoever has mapped it.
const REVOKE: u32 = _IO('d' as u32, 2);

// [start of the sheet]
/// What the driver and a process both see.
#[derive(FromBytes, IntoBytes)]
#[repr(C)]
struct Sheet {
    // The process writes these.
    count: u64,
    numbers: [u32; MOST],
    // The driver writes this.
    sum: u64,
}
// [end of the sheet]

/// Leads to the sheet until the device is unbound.
type Handle = DevresSrcu<ForLt!(UserShared<'_, Sheet>)>;

global_lock! {
    // SAFETY: Initialised when the module is, before anything is registered.
    unsafe(uninit) static DEVICE: Mutex<Option<Handle>> = None;
}

/// Has the file's `open()` find the sheet.
struct Listed;

impl Listed {
    fn new(handle: Handle) -> Result<Self> {
        let mut device = DEVICE.lock();

        if device.is_some() {
            return Err(EBUSY);
        }

        *device = Some(handle);
        Ok(Self)
    }
}

impl Drop for Listed {
    fn drop(&mut self) {
        *DEVICE.lock() = None;
    }
}

/// Matches nothing, and is none of the tables that modules are loaded by.
static PCI_TABLE: IdArray<pci::DeviceId, (), 0> = IdArray::new([]);

struct Driver;

#[pin_data]
struct Data {
    #[pin]
    _file: MiscDeviceRegistration<Opened>,
    _listed: Listed,
}

impl pci::DmaDriver for Driver {
    type IdInfo = ();
    type Data<'bound> = Data;
    const ID_TABLE: pci::IdTable<Self::IdInfo> = &PCI_TABLE;

    fn dma_constraints(_dev: &pci::Device, _info: Option<&Self::IdInfo>) -> Result<Constraints> {
        Ok(Constraints::new(DmaMask::new::<32>()))
    }

    fn probe<'bound>(
        pdev: &pci::Device<Core<'bound>>,
        _info: Option<&'bound Self::IdInfo>,
    ) -> impl PinInit<Self::Data<'bound>, Error> {
        pin_init::pin_init_scope(move || {
            if (pdev.vendor_id(), pdev.device_id()) != (pci::Vendor::from_raw(EDU.0), EDU.1) {
                return Err(ENODEV);
            }

            let handle = share(pdev)?;

            Ok(try_pin_init!(Data {
                _listed: Listed::new(handle)?,
                _file <- MiscDeviceRegistration::register(MiscDeviceOptions {
                    name: c"dma-mmap",
                }),
            }? Error))
        })
    }
}

// [start of share]
/// Makes a sheet that user space can map until the device is unbound.
fn share<'a>(pdev: &pci::Device<Core<'a>>) -> Result<Handle> {
    let dma = Mapper::get(pdev.bound().as_ref())?;
    let sheet = SharedBox::<Sheet>::new(dma, GFP_KERNEL)?.submit();

    // SAFETY:
    // 1. The device takes nothing from the sheet: it isn't shown it.
    // 2. Nobody takes anything on it for a proof.
    // 3. The device writes nothing there.
    let sheet = unsafe { sheet.allow_mmap() }?;

    Handle::new(pdev.as_ref(), Ok::<_, Error>(sheet))
}
// [end of share]

// [start of add]
/// Adds the numbers on the sheet. The process may change them meanwhile, and has written anything.
fn add(sheet: &UserShared<'_, Sheet>) -> Result {
    // CAST: Widening.
    let count = dma_read!(sheet, .count).at_most(MOST as u64)?;
    let mut sum = 0;

    // CAST: Not more than `MOST`.
    for i in 0..count as usize {
        // Any number will do.
        sum += u64::from(dma_read!(sheet, .numbers[try: i]).at_most(u32::MAX)?);
    }

    dma_write!(sheet, .sum, sum);
    Ok(())
}
// [end of add]

/// An open file.
struct Opened(Handle);

// [start of the file]
#[vtable]
impl MiscDevice for Opened {
    type Ptr = KBox<Self>;

    fn open(_file: &File, _misc: &MiscDeviceRegistration<Self>) -> Result<KBox<Self>> {
        let handle = DEVICE.lock().as_ref().cloned().ok_or(ENODEV)?;

        Ok(KBox::new(Self(handle), GFP_KERNEL)?)
    }

    fn mmap(this: &Self, _file: &File, vma: &VmaNew) -> Result {
        vma.try_clear_mayexec()?;
        this.0.try_access_with(|sheet| sheet.mmap(vma))?
    }

    fn ioctl(this: &Self, _file: &File, cmd: u32, _arg: usize) -> Result<isize> {
        match cmd {
            ADD => this.0.try_access_with(add)??,
            REVOKE => this.0.try_access_with(|sheet| sheet.revoke())?,
            _ => return Err(ENOTTY),
        }

        Ok(0)
    }
}
// [end of the file]
