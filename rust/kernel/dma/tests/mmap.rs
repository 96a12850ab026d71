// SPDX-License-Identifier: GPL-2.0

//! Tests of coherent memory that user space maps, on a platform device without hardware, and on
//! simulated buses. The threads of the tests have address spaces, as processes do.

use super::{
    ensure,
    fixture::{
        at_once,
        forget,
        on_each_bus,
        on_platform_device, //
    },
    shared::{
        open,
        stop, //
    }, //
};
use crate::{
    bindings,
    dma::{
        dma_read,
        dma_write,
        quarantined,
        AllocAttrs,
        Constraints,
        DmaMask,
        Mapper,
        Shared,
        SharedBox,
        UserShared, //
    },
    error::{
        from_err_ptr,
        to_result, //
    },
    fs::{
        file,
        File, //
    },
    mm::virt::VmaNew,
    new_spinlock_irq,
    page::PAGE_SIZE,
    prelude::*,
    sync::{
        aref::ARef,
        SpinLockIrq, //
    },
    time::{
        delay::fsleep,
        Delta, //
    },
    uaccess::{
        UserPtr,
        UserSlice, //
    }, //
};
use core::{
    cell::Cell,
    ptr::NonNull, //
};

const WIDE: Constraints = Constraints::new(DmaMask::new::<64>());

const PROT_READ: usize = 1;
const PROT_WRITE: usize = 2;
const MAP_SHARED: usize = 1;
const MAP_PRIVATE: usize = 2;

/// What a file's `mmap()` does.
type Hook<'f> = &'f dyn Fn(&VmaNew) -> Result;

/// How memory is mapped.
#[derive(Clone, Copy)]
pub(super) struct Request {
    len: usize,
    offset: usize,
    prot: usize,
    flags: usize,
    file: u32,
}

impl Request {
    /// So many bytes from the beginning, to be read and written.
    pub(super) const fn new(len: usize) -> Self {
        Self {
            len,
            offset: 0,
            prot: PROT_READ | PROT_WRITE,
            flags: MAP_SHARED,
            file: file::flags::O_RDWR,
        }
    }

    const fn from(mut self, offset: usize) -> Self {
        self.offset = offset;
        self
    }

    const fn private(mut self) -> Self {
        self.flags = MAP_PRIVATE;
        self
    }

    const fn only_read(mut self) -> Self {
        self.prot = PROT_READ;
        self
    }

    const fn read_only_file(mut self) -> Self {
        self.file = file::flags::O_RDONLY;
        self
    }
}

/// # Safety
///
/// The file must have been made by [`map`], which runs.
unsafe extern "C" fn mmap(
    file: *mut bindings::file,
    vma: *mut bindings::vm_area_struct, //
) -> c_int {
    // SAFETY: By the safety requirements the private data is a hook. The kernel calls it for an
    // area that it is making.
    let (hook, vma) = unsafe {
        (
            &*(*file).private_data.cast::<Hook<'_>>(),
            VmaNew::from_raw(vma),
        )
    };

    match hook(vma) {
        Ok(()) => 0,
        Err(error) => error.to_errno(),
    }
}

const fn operations() -> &'static bindings::file_operations {
    const FILE: bindings::file_operations = bindings::file_operations {
        mmap: Some(mmap),
        ..pin_init::zeroed()
    };

    &FILE
}

/// An area of the address space of the thread that made it.
pub(super) struct Area {
    start: usize,
    len: usize,
}

impl Area {
    pub(super) fn at(&self, offset: usize) -> usize {
        self.start + offset
    }

    /// Reads a byte as a process does, except that there is an error instead of a signal.
    pub(super) fn peek(&self, offset: usize) -> Result<u8> {
        peek(self.at(offset))
    }

    pub(super) fn poke(&self, offset: usize, byte: u8) -> Result {
        poke(self.at(offset), byte)
    }

    /// Returns whether no page can be read or written.
    pub(super) fn is_dead(&self) -> bool {
        (0..self.len)
            .step_by(PAGE_SIZE)
            .all(|offset| self.peek(offset) == Err(EFAULT) && self.poke(offset, 1) == Err(EFAULT))
    }
}

impl Drop for Area {
    fn drop(&mut self) {
        // SAFETY: The area is ours, and its address space that of this thread.
        unsafe { bindings::vm_munmap(self.start, self.len) };
    }
}

fn peek(address: usize) -> Result<u8> {
    UserSlice::new(UserPtr::from_addr(address), 1)
        .reader()
        .read::<u8>()
}

fn poke(address: usize, byte: u8) -> Result {
    UserSlice::new(UserPtr::from_addr(address), 1)
        .writer()
        .write(&byte)
}

/// Does what a process does that maps a file, in an address space of this thread, which gets one if
/// it has none.
pub(super) fn map(request: Request, hook: Hook<'_>) -> Result<Area> {
    // SAFETY: A thread of a test.
    to_result(unsafe { bindings::kunit_attach_mm() })?;

    // CAST: A small number.
    let flags = request.file as c_int;
    let private = (&raw const hook).cast_mut().cast();

    // SAFETY: The operations are for such private data.
    let file = from_err_ptr(unsafe { bindings::dma_mmap_file(operations(), private, flags) })?;
    let file = NonNull::new(file.cast::<File>()).ok_or(ENOMEM)?;
    // SAFETY: The reference is ours. There is no descriptor.
    let file: ARef<File> = unsafe { ARef::from_raw(file) };

    // SAFETY: The file is there.
    let start = unsafe {
        bindings::vm_mmap(
            file.as_ptr(),
            0,
            request.len,
            request.prot,
            request.flags,
            request.offset,
        )
    };

    // CAST: Errors are small negative numbers.
    if start as isize >= -4095 && (start as isize) < 0 {
        return Err(Error::from_errno(start as i32));
    }

    Ok(Area {
        start,
        len: request.len.next_multiple_of(PAGE_SIZE),
    })
}

pub(super) fn allow<'a>(memory: Shared<'a, [u8]>) -> Result<UserShared<'a, [u8]>> {
    // SAFETY:
    // 1. The device takes no addresses from it. On most buses there is none.
    // 2. There is no protocol.
    // 3. What it writes are the test's own numbers.
    Ok(unsafe { memory.allow_mmap() }?)
}

fn bytes<'a>(dma: Mapper<'a>, len: usize) -> Result<UserShared<'a, [u8]>> {
    allow(SharedBox::<[u8]>::slice(dma, len, GFP_KERNEL)?.submit())
}

/// Maps all of the memory.
fn map_all(memory: &UserShared<'_, [u8]>, len: usize) -> Result<Area> {
    map(Request::new(len), &|vma| memory.mmap(vma))
}

/// Runs a test on each kind of bus, with a device that runs.
fn on_each(mut body: impl FnMut(Mapper<'_>) -> Result) -> Result {
    on_each_bus(|pdev| {
        let dma = open(pdev.as_ref())?;

        body(dma)?;
        stop(dma);
        Ok(())
    })
}

/// A number for each place, which isn't 0. CAST: Small numbers.
fn number(i: usize) -> u8 {
    (i % 250) as u8 + 1
}

/// Memory of each size is the same for both sides, and then for one only.
pub(super) fn there_and_back(dma: Mapper<'_>, sizes: &[usize], attrs: AllocAttrs) -> Result {
    for &size in sizes {
        let memory = SharedBox::<[u8]>::slice_with(dma, size, GFP_KERNEL, attrs)?.submit();
        let memory = allow(memory)?;
        let area = map_all(&memory, size)?;
        let places = || Iterator::chain((0..size).step_by(PAGE_SIZE), [size - 1]);

        ensure!(area.peek(size - 1)? == 0);
        for (i, place) in places().enumerate() {
            area.poke(place, number(i))?;
            ensure!(dma_read!(&memory, [try: place]) == number(i));
        }

        for (i, place) in places().enumerate() {
            dma_write!(&memory, [try: place], number(i + 7));
            ensure!(area.peek(place)? == number(i + 7));
        }

        let last = number(places().count() + 6);

        memory.revoke();
        ensure!(area.is_dead());
        ensure!(dma_read!(&memory, [try: size - 1]) == last);
    }
    Ok(())
}

#[kunit_tests(rust_dma_mmap)]
mod cases {
    use super::*;

    #[test]
    fn sizes() -> Result {
        let sizes = [
            1,
            PAGE_SIZE - 1,
            PAGE_SIZE,
            PAGE_SIZE + 1,
            3 * PAGE_SIZE,
            1 << 20,
        ];

        on_each(|dma| {
            there_and_back(dma, &sizes, AllocAttrs::NONE)?;
            there_and_back(dma, &sizes[..5], AllocAttrs::WRITE_COMBINE)
        })
    }

    /// Parts of the memory can be mapped, and nothing beside it.
    #[test]
    fn offsets() -> Result {
        on_each(|dma| {
            let len = 4 * PAGE_SIZE;
            let memory = bytes(dma, len)?;
            let hook: Hook<'_> = &|vma| memory.mmap(vma);

            for page in 0..4_u8 {
                dma_write!(&memory, [try: usize::from(page) * PAGE_SIZE], 10 + page);
            }

            let last = map(Request::new(PAGE_SIZE).from(3 * PAGE_SIZE), hook)?;
            let middle = map(Request::new(2 * PAGE_SIZE).from(PAGE_SIZE), hook)?;

            ensure!(last.peek(0)? == 13);
            ensure!(middle.peek(0)? == 11 && middle.peek(PAGE_SIZE)? == 12);

            for (offset, size) in [
                (0, len + 1),
                (0, 1 << 30),
                (PAGE_SIZE, len),
                (3 * PAGE_SIZE, PAGE_SIZE + 1),
                (len, 1),
                (len + PAGE_SIZE, PAGE_SIZE),
                (1 << 40, PAGE_SIZE),
            ] {
                let refused = map(Request::new(size).from(offset), hook);

                ensure!(matches!(refused, Err(e) if e == ENXIO));
            }

            // The C side may say something else before.
            ensure!(map(Request::new(1).from(usize::MAX - PAGE_SIZE + 1), hook).is_err());
            ensure!(map(Request::new(1).from(usize::MAX - 2 * PAGE_SIZE + 1), hook).is_err());
            ensure!(map(Request::new(1).from(usize::MAX / 2 - PAGE_SIZE + 1), hook).is_err());
            Ok(())
        })
    }

    /// User space doesn't see what is behind the memory on its last page.
    #[test]
    fn padding() -> Result {
        on_each(|dma| {
            let memory = SharedBox::<[u8]>::slice(dma, PAGE_SIZE + 100, GFP_KERNEL)?.submit();
            let place = memory.as_ptr().cast::<u8>();

            for i in PAGE_SIZE + 100..2 * PAGE_SIZE {
                // SAFETY: The memory is allocated in whole pages.
                unsafe { place.add(i).write_volatile(0x5a) };
            }
            dma_write!(&memory, [try: PAGE_SIZE + 99], 3);

            let memory = allow(memory)?;
            let area = map_all(&memory, 2 * PAGE_SIZE)?;

            ensure!(area.peek(PAGE_SIZE + 99)? == 3);
            for i in PAGE_SIZE + 100..2 * PAGE_SIZE {
                ensure!(area.peek(i)? == 0);
            }
            Ok(())
        })
    }

    /// A mapping that may be written is of the memory itself, and one of a file that is read can't
    /// be written.
    #[test]
    fn protection() -> Result {
        on_each(|dma| {
            let memory = bytes(dma, PAGE_SIZE)?;
            let hook: Hook<'_> = &|vma| memory.mmap(vma);
            let all = Request::new(PAGE_SIZE);

            for request in [
                all.private(),
                all.private().only_read(),
                all.private().read_only_file(),
                all.private().only_read().read_only_file(),
            ] {
                ensure!(matches!(map(request, hook), Err(e) if e == EINVAL));
            }

            ensure!(matches!(map(all.read_only_file(), hook), Err(e) if e == EACCES));

            let area = map(all.only_read().read_only_file(), hook)?;

            dma_write!(&memory, [try: 5], 6);
            ensure!(area.peek(5)? == 6);
            ensure!(area.poke(5, 7) == Err(EFAULT));
            ensure!(dma_read!(&memory, [try: 5]) == 6);

            let area = map(all, &|vma| {
                vma.try_clear_mayexec()?;
                memory.mmap(vma)
            })?;

            area.poke(5, 8)?;
            ensure!(dma_read!(&memory, [try: 5]) == 8);
            Ok(())
        })
    }

    /// What was revoked is gone, as often as that is said; who maps it is told so.
    #[test]
    fn revoked() -> Result {
        on_each(|dma| {
            let len = 3 * PAGE_SIZE;
            let memory = bytes(dma, len)?;
            let touched = map_all(&memory, len)?;
            let untouched = map_all(&memory, len)?;

            touched.poke(0, 1)?;
            touched.poke(len - 1, 2)?;

            for _ in 0..2 {
                memory.revoke();
                ensure!(touched.is_dead() && untouched.is_dead());
                ensure!(matches!(map_all(&memory, len), Err(e) if e == ENODEV));
            }

            ensure!(dma_read!(&memory, [try: 0]) == 1);
            ensure!(dma_read!(&memory, [try: len - 1]) == 2);
            dma_write!(&memory, [try: 0], 3);
            ensure!(dma_read!(&memory, [try: 0]) == 3);
            Ok(())
        })
    }

    /// Memory that comes back is the driver's alone, and may be mapped anew.
    #[test]
    fn taken_back() -> Result {
        on_each(|dma| {
            let memory = bytes(dma, PAGE_SIZE)?;
            let before = map_all(&memory, PAGE_SIZE)?;

            before.poke(1, 11)?;

            let Ok(mut memory) = memory.into_shared().take_back() else {
                return Err(EBUSY);
            };

            ensure!(memory[1] == 11 && before.is_dead());
            memory[2] = 12;

            let memory = allow(memory.submit())?;
            let after = map_all(&memory, PAGE_SIZE)?;

            ensure!(after.peek(1)? == 11 && after.peek(2)? == 12);
            ensure!(before.is_dead());
            after.poke(3, 13)?;
            drop(memory);
            ensure!(before.is_dead() && after.is_dead());
            Ok(())
        })
    }

    /// Other memory at the same offset of the same file stays.
    #[test]
    fn others_stay() -> Result {
        on_each(|dma| {
            let (one, other) = (bytes(dma, PAGE_SIZE)?, bytes(dma, PAGE_SIZE)?);
            let areas = [
                map_all(&one, PAGE_SIZE)?,
                map_all(&other, PAGE_SIZE)?,
                map_all(&other, PAGE_SIZE)?,
            ];

            areas[0].poke(0, 1)?;
            areas[1].poke(0, 2)?;
            drop(one);
            ensure!(areas[0].is_dead());
            ensure!(areas[1].peek(0)? == 2 && areas[2].peek(0)? == 2);

            // An area that is unmapped takes nothing away from others.
            let [_, first, second] = areas;

            drop(first);
            ensure!(second.peek(0)? == 2);
            dma_write!(&other, [try: 0], 4);
            ensure!(second.peek(0)? == 4);
            Ok(())
        })
    }

    /// What is dropped in flight is kept for the device, and not for user space.
    #[test]
    fn quarantined_memory() -> Result {
        on_each(|dma| {
            let before = quarantined();
            let memory = SharedBox::<[u8]>::slice(dma, PAGE_SIZE, GFP_KERNEL)?.submit();
            let place = memory.as_ptr().cast::<u8>();
            let memory = allow(memory)?;
            let area = map_all(&memory, PAGE_SIZE)?;

            memory.address();
            area.poke(9, 0x99)?;
            drop(memory);
            ensure!(quarantined() == before + 1);
            ensure!(area.is_dead());
            // SAFETY: The memory is allocated still, and nobody writes it.
            ensure!(unsafe { place.add(9).read_volatile() } == 0x99);
            Ok(())
        })
    }

    /// Memory can be dropped anywhere: user space loses it before it is freed.
    #[test]
    fn dropped_where_nobody_sleeps() -> Result {
        on_each(|dma| {
            let lock = KBox::pin_init(new_spinlock_irq!(()), GFP_KERNEL)?;
            let lock: &SpinLockIrq<()> = &lock;
            let memory = bytes(dma, 2 * PAGE_SIZE)?;
            let area = map_all(&memory, 2 * PAGE_SIZE)?;

            area.poke(0, 1)?;

            {
                let _guard = lock.lock();

                drop(memory);
            }

            // What was dropped there may be free by now, or not. It is when this returns.
            dma.record().later().flush();
            ensure!(area.is_dead());
            Ok(())
        })
    }

    /// What is forgotten stays allocated, but user space loses it when the device is unbound.
    #[test]
    fn forgotten() -> Result {
        let left = Cell::new(None);
        let areas = Cell::new(None);

        on_platform_device(
            Some(WIDE),
            |_| {},
            &mut |pdev| {
                let dma = open(pdev.as_ref())?;
                let memory = SharedBox::<[u8]>::slice(dma, PAGE_SIZE, GFP_KERNEL)?.submit();
                let place = memory.as_ptr().cast::<u8>();
                let memory = allow(memory)?;
                let area = map_all(&memory, PAGE_SIZE)?;

                left.set(Some((place, memory.address().bits())));
                forget(memory)?;
                area.poke(3, 0x33)?;
                ensure!(area.peek(3)? == 0x33);

                // Who allows other memory forgets nothing of that.
                let other = bytes(dma, PAGE_SIZE)?;
                let another = map_all(&other, PAGE_SIZE)?;

                drop(other);
                drop(bytes(dma, PAGE_SIZE)?);
                ensure!(area.peek(3)? == 0x33 && another.is_dead());
                areas.set(Some(area));
                stop(dma);
                Ok(())
            },
            |raw| {
                let (place, address) = left.get().ok_or(EINVAL)?;
                let is_dead = areas.take().ok_or(EINVAL)?.is_dead();
                // SAFETY: The memory is allocated still.
                let kept = unsafe { place.add(3).read_volatile() } == 0x33;

                // SAFETY: It was allocated like this, and nobody uses it; the device is there.
                unsafe { bindings::dma_free_attrs(raw, PAGE_SIZE, place.cast(), address, 0) };
                ensure!(is_dead && kept);
                Ok(())
            },
        )
    }

    /// Whatever else a driver does to the area, there is an error, and no worse.
    #[test]
    fn odd_drivers() -> Result {
        on_each(|dma| {
            let (memory, other) = (bytes(dma, PAGE_SIZE)?, bytes(dma, PAGE_SIZE)?);
            let all = Request::new(PAGE_SIZE);

            let before = map(all, &|vma| {
                vma.set_mixedmap();
                memory.mmap(vma)
            });

            ensure!(matches!(before, Err(e) if e == EINVAL));

            let after = map(all, &|vma| {
                memory.mmap(vma)?;
                vma.set_mixedmap();
                Ok(())
            })?;

            ensure!(after.is_dead());

            let refused = map(all, &|vma| {
                memory.mmap(vma)?;
                Err(EBUSY)
            });

            ensure!(matches!(refused, Err(e) if e == EBUSY));

            // The last one holds.
            let twice = map(all, &|vma| {
                memory.mmap(vma)?;
                memory.mmap(vma)?;
                other.mmap(vma)
            })?;

            twice.poke(0, 1)?;
            ensure!(dma_read!(&memory, [try: 0]) == 0);
            ensure!(dma_read!(&other, [try: 0]) == 1);
            drop(memory);
            ensure!(twice.peek(0)? == 1);
            drop(other);
            ensure!(twice.is_dead());
            Ok(())
        })
    }

    /// Two processes have the memory, and lose it at the same time.
    #[test]
    fn two_processes() -> Result {
        on_each(|dma| {
            let memory = bytes(dma, PAGE_SIZE)?;
            let here = map_all(&memory, PAGE_SIZE)?;

            at_once(
                || {
                    let there = map_all(&memory, PAGE_SIZE)?;

                    there.poke(0, 1)?;
                    for _ in 0..1000 {
                        if there.peek(0).is_err() {
                            ensure!(there.is_dead());
                            return Ok(());
                        }
                        fsleep(Delta::from_millis(1));
                    }
                    Err(ETIMEDOUT)
                },
                || {
                    let mut turns = 0;

                    while here.peek(0)? != 1 && turns < 1000 {
                        turns += 1;
                        fsleep(Delta::from_millis(1));
                    }
                    memory.revoke();
                    ensure!(turns < 1000 && here.is_dead());
                    Ok(())
                },
            )
        })
    }

    /// Page faults, and the memory is revoked meanwhile: none brings it back.
    #[test]
    fn faults_meanwhile() -> Result {
        const PAGES: usize = 32;

        on_each(|dma| {
            for turn in 0..2 * PAGES {
                let memory = bytes(dma, PAGES * PAGE_SIZE)?;
                let area = map_all(&memory, PAGES * PAGE_SIZE)?;
                let start = area.at(0);
                // SAFETY: The current task is valid, and has an address space since `map()`.
                let mm = unsafe { (*bindings::get_current()).mm }.expose_provenance();

                at_once(
                    move || {
                        let mm = core::ptr::with_exposed_provenance_mut(mm);
                        let mut faults = 0;

                        // SAFETY: A kernel thread. The other thread keeps the address space.
                        unsafe { bindings::kthread_use_mm(mm) };
                        while faults < 1_000_000
                            && poke(start + faults % PAGES * PAGE_SIZE, 1).is_ok()
                        {
                            faults += 1;
                        }
                        // SAFETY: As above.
                        unsafe { bindings::kthread_unuse_mm(mm) };
                        ensure!(faults < 1_000_000);
                        Ok(())
                    },
                    || {
                        // Somewhere between the first fault and the last.
                        for place in 0..turn / 2 {
                            area.peek((PAGES - 1 - place) * PAGE_SIZE)?;
                        }
                        memory.revoke();
                        ensure!(area.is_dead());
                        Ok(())
                    },
                )?;
                ensure!(area.is_dead());
            }
            Ok(())
        })
    }
}

/// What the device sees, and what fails, on simulated buses.
#[cfg(CONFIG_RUST_DMA_SIM)]
#[kunit_tests(rust_dma_mmap_sim)]
mod on_sim {
    use super::*;
    use crate::dma::sim::{
        self,
        Model,
        Script, //
    };

    const PLAIN: Script = Script::new(Model::Coherent);

    /// User space and the device have the same memory.
    #[test]
    fn device_access() -> Result {
        sim::run_on_each(PLAIN, |pdev, sim| {
            let dma = open(pdev.as_ref())?;
            let memory = bytes(dma, 2 * PAGE_SIZE)?;
            let area = map_all(&memory, 2 * PAGE_SIZE)?;
            let address = memory.address().bits();
            let place = PAGE_SIZE + 3;
            let mut seen = [0];

            area.poke(place, 0x21)?;

            // CAST: Widening.
            let there = address + place as u64;

            // SAFETY: Nobody else accesses it.
            ensure!(unsafe { sim.device_read(there, &mut seen) });
            ensure!(seen == [0x21]);

            // SAFETY: As above.
            ensure!(unsafe { sim.device_write(there + 1, &[0x43]) });
            ensure!(area.peek(place + 1)? == 0x43);
            ensure!(dma_read!(&memory, [try: place + 1]) == 0x43);

            // A stop isn't user space's business.
            stop(dma);
            ensure!(area.peek(place)? == 0x21);
            memory.revoke();
            ensure!(area.is_dead());
            Ok(())
        })
    }

    /// Where it can't be mapped the driver has its memory back.
    #[test]
    fn no_such_memory() -> Result {
        sim::run_on_each(PLAIN.can_mmap(false), |pdev, _| {
            let dma = open(pdev.as_ref())?;
            let mut memory = SharedBox::<[u8]>::slice(dma, 100, GFP_KERNEL)?;

            memory[99] = 9;

            // SAFETY: There is no device.
            let Err(refused) = (unsafe { memory.submit().allow_mmap() }) else {
                return Err(EINVAL);
            };

            ensure!(refused.error == ENXIO);
            ensure!(dma_read!(&refused.value, [try: 99]) == 9);
            stop(dma);
            Ok(())
        })
    }
}
