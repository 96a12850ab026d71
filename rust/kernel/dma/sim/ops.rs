// SPDX-License-Identifier: GPL-2.0

//! What the DMA API calls: `struct dma_map_ops`.

use super::{
    bus::Limits,
    Sim, //
};
use crate::{
    bindings,
    dma::{
        DataDirection,
        DmaAddress, //
    },
    page::PAGE_SIZE,
    prelude::*, //
};

/// What a mapping call returns when it fails (`DMA_MAPPING_ERROR`).
const ERROR: DmaAddress = DmaAddress::MAX;

/// One table for each bus: its address leads to the [`Sim`] that it is in.
///
/// # Safety
///
/// The requirements of all its functions are those of the DMA API, for a device on a simulated bus:
/// `dev` is valid, it has a mask, and its `dma_ops` are in a [`Sim`] that outlives the call.
pub(super) const OPS: bindings::dma_map_ops = bindings::dma_map_ops {
    alloc: Some(alloc),
    free: Some(free),
    alloc_pages_op: Some(alloc_pages),
    free_pages: Some(free_pages),
    mmap: Some(bindings::dma_common_mmap),
    get_sgtable: None,
    map_phys: Some(map_phys),
    unmap_phys: Some(unmap_phys),
    map_sg: Some(map_sg),
    unmap_sg: Some(unmap_sg),
    sync_single_for_cpu: Some(sync_single_for_cpu),
    sync_single_for_device: Some(sync_single_for_device),
    sync_sg_for_cpu: Some(sync_sg_for_cpu),
    sync_sg_for_device: Some(sync_sg_for_device),
    cache_sync: None,
    dma_supported: Some(dma_supported),
    get_required_mask: None,
    max_mapping_size: Some(max_mapping_size),
    opt_mapping_size: None,
    get_merge_boundary: None,
};

/// Returns the bus that a device is on.
///
/// # Safety
///
/// `dev` must be a valid device whose `dma_ops` are in a [`Sim`], which outlives the reference.
unsafe fn sim<'a>(dev: *mut bindings::device) -> &'a Sim {
    // SAFETY: By the safety requirements.
    unsafe { &*crate::container_of!((*dev).dma_ops.cast_mut(), Sim, ops) }
}

/// Returns what `dev` allows, with the mask for mappings or for coherent memory.
///
/// # Safety
///
/// `dev` must be a valid device with a DMA mask.
unsafe fn limits(dev: *mut bindings::device, coherent: bool) -> Limits {
    // SAFETY: By the safety requirements.
    let dev = unsafe { &*dev };
    let mask = if coherent {
        dev.coherent_dma_mask
    } else {
        // SAFETY: By the safety requirements.
        unsafe { *dev.dma_mask }
    };
    let mask = match dev.bus_dma_limit {
        0 => mask,
        limit => mask.min(limit),
    };

    // SAFETY: `dma_parms` is null, or valid as long as the device is.
    match unsafe { dev.dma_parms.as_ref() } {
        None => Limits {
            mask,
            min_align_mask: 0,
            max_segment_size: 64 << 10,
            segment_boundary: u32::MAX.into(),
        },
        // What is not set is zero. CAST: Widening.
        Some(parms) => Limits {
            mask,
            min_align_mask: parms.min_align_mask as usize,
            max_segment_size: match parms.max_segment_size {
                0 => 64 << 10,
                size => size as usize,
            },
            segment_boundary: match parms.segment_boundary_mask {
                0 => u32::MAX.into(),
                mask => mask as u64,
            },
        },
    }
}

/// Returns whether a call moves data, too: without an attribute that keeps it from doing so.
fn moves(attrs: c_ulong) -> bool {
    // CAST: Widening.
    attrs & bindings::DMA_ATTR_SKIP_CPU_SYNC as c_ulong == 0
}

/// The C side only passes valid directions.
fn direction(dir: bindings::dma_data_direction) -> DataDirection {
    match dir {
        bindings::dma_data_direction::DMA_TO_DEVICE => DataDirection::ToDevice,
        bindings::dma_data_direction::DMA_FROM_DEVICE => DataDirection::FromDevice,
        _ => DataDirection::Bidirectional,
    }
}

/// # Safety
///
/// See [`OPS`].
unsafe extern "C" fn alloc(
    dev: *mut bindings::device,
    size: usize,
    handle: *mut DmaAddress,
    gfp: bindings::gfp_t,
    _attrs: c_ulong,
) -> *mut c_void {
    let Some(len) = size.checked_next_multiple_of(PAGE_SIZE) else {
        return core::ptr::null_mut();
    };
    // SAFETY: No requirements.
    let memory = unsafe { bindings::alloc_pages_exact_noprof(len, gfp | bindings::__GFP_ZERO) };

    if memory.is_null() {
        return memory;
    }

    // SAFETY: By the safety requirements.
    let (sim, limits) = unsafe { (sim(dev), limits(dev, true)) };
    // What is left of the last page is not for the device.
    let mapped = sim.bus.lock().allocate(memory.cast(), size, &limits);

    match mapped {
        Ok(addr) => {
            // SAFETY: The caller passed a place for the address.
            unsafe { handle.write(addr) };
            memory
        }
        Err(_) => {
            // SAFETY: It was allocated above.
            unsafe { bindings::free_pages_exact(memory, len) };
            core::ptr::null_mut()
        }
    }
}

/// # Safety
///
/// See [`OPS`].
unsafe extern "C" fn free(
    dev: *mut bindings::device,
    size: usize,
    memory: *mut c_void,
    handle: DmaAddress,
    _attrs: c_ulong,
) {
    // What can't be rounded up was never allocated.
    let len = size.checked_next_multiple_of(PAGE_SIZE).unwrap_or(size);
    // SAFETY: By the safety requirements.
    let sim = unsafe { sim(dev) };
    let released = sim.bus.lock().release(memory.cast(), handle, size);

    if released {
        // SAFETY: It was allocated by `alloc()` with this length.
        unsafe { bindings::free_pages_exact(memory, len) };
    }

    // The last use of the bus.
    drop(sim.keeper());
}

/// # Safety
///
/// See [`OPS`].
unsafe extern "C" fn alloc_pages(
    dev: *mut bindings::device,
    size: usize,
    handle: *mut DmaAddress,
    dir: bindings::dma_data_direction,
    gfp: bindings::gfp_t,
) -> *mut bindings::page {
    // It calls `map_phys()`.
    //
    // SAFETY: By the safety requirements.
    let page = unsafe { bindings::dma_common_alloc_pages(dev, size, handle, dir, gfp) };

    if !page.is_null() {
        // SAFETY: By the safety requirements. The address was written.
        let (sim, addr) = unsafe { (sim(dev), handle.read()) };

        sim.bus.lock().note_pages(addr);
    }

    page
}

/// # Safety
///
/// See [`OPS`].
unsafe extern "C" fn free_pages(
    dev: *mut bindings::device,
    size: usize,
    page: *mut bindings::page,
    handle: DmaAddress,
    dir: bindings::dma_data_direction,
) {
    // SAFETY: By the safety requirements.
    let is_known = unsafe { sim(dev) }.bus.lock().forget_pages(handle, size);

    if is_known {
        // It calls `unmap_phys()`.
        //
        // SAFETY: It was allocated by `alloc_pages()` with this length.
        unsafe { bindings::dma_common_free_pages(dev, size, page, handle, dir) };
    }
}

/// # Safety
///
/// See [`OPS`].
unsafe extern "C" fn map_phys(
    dev: *mut bindings::device,
    phys: bindings::phys_addr_t,
    size: usize,
    dir: bindings::dma_data_direction,
    attrs: c_ulong,
) -> DmaAddress {
    // Registers of another device have no second view. CAST: Widening.
    if attrs & bindings::DMA_ATTR_MMIO as c_ulong != 0 {
        return ERROR;
    }

    // SAFETY: By the safety requirements.
    let (sim, limits) = unsafe { (sim(dev), limits(dev, false)) };
    // SAFETY: `phys` is memory, which on our architectures is all in the linear map.
    let cpu = unsafe { bindings::phys_to_virt(phys) }.cast();
    let give = moves(attrs);
    let mapped = sim
        .bus
        .lock()
        .map(cpu, phys, size, direction(dir), give, &limits);

    mapped.unwrap_or(ERROR)
}

/// # Safety
///
/// See [`OPS`].
unsafe extern "C" fn unmap_phys(
    dev: *mut bindings::device,
    addr: DmaAddress,
    size: usize,
    dir: bindings::dma_data_direction,
    attrs: c_ulong,
) {
    // SAFETY: By the safety requirements.
    let sim = unsafe { sim(dev) };

    sim.bus
        .lock()
        .unmap(addr, size, direction(dir), moves(attrs));
}

/// The entries of a list of `nents`, as it was before it was mapped.
///
/// # Safety
///
/// `sg` must be a valid list of at least so many entries, for as long as the iterator is used.
unsafe fn entries(
    sg: *mut bindings::scatterlist,
    nents: c_int,
) -> impl Iterator<Item = *mut bindings::scatterlist> + Clone {
    let mut next = sg;

    (0..nents).map(move |_| {
        let sg = next;

        // SAFETY: By the safety requirements.
        next = unsafe { bindings::sg_next(sg) };
        sg
    })
}

/// # Safety
///
/// See [`OPS`].
unsafe extern "C" fn map_sg(
    dev: *mut bindings::device,
    sg: *mut bindings::scatterlist,
    nents: c_int,
    dir: bindings::dma_data_direction,
    attrs: c_ulong,
) -> c_int {
    // SAFETY: By the safety requirements.
    let (sim, limits) = unsafe { (sim(dev), limits(dev, false)) };
    // SAFETY: The caller passed a valid list.
    let entries = unsafe { entries(sg, nents) };
    let buffers = entries.map(|sg| {
        // SAFETY: An entry of the list names memory, which is in the linear map.
        unsafe {
            let phys = bindings::sg_phys(sg);

            (
                bindings::phys_to_virt(phys).cast(),
                phys,
                (*sg).length as usize,
            )
        }
    });
    let (mut target, mut count) = (sg, 0);
    let mapped = sim.bus.lock().map_list(
        buffers,
        direction(dir),
        moves(attrs),
        &limits,
        |addr, len| {
            // SAFETY: There are not more segments than entries.
            // CAST: Not longer than the greatest segment, which is a `u32`.
            unsafe {
                bindings::dma_sim_set_segment(target, addr, len as u32);
                target = bindings::sg_next(target);
            }
            count += 1;
        },
    );

    match mapped {
        Ok(()) => count,
        Err(e) => e.to_errno(),
    }
}

/// # Safety
///
/// See [`OPS`].
unsafe extern "C" fn unmap_sg(
    dev: *mut bindings::device,
    sg: *mut bindings::scatterlist,
    nents: c_int,
    dir: bindings::dma_data_direction,
    attrs: c_ulong,
) {
    // SAFETY: By the safety requirements; the caller passed a valid list.
    let (sim, addr) = unsafe { (sim(dev), bindings::sg_dma_address(sg)) };

    // CAST: A count is not negative.
    sim.bus
        .lock()
        .unmap_list(addr, nents as usize, direction(dir), moves(attrs));

    // The last use of the bus.
    drop(sim.keeper());
}

/// # Safety
///
/// See [`OPS`].
unsafe extern "C" fn sync_single_for_cpu(
    dev: *mut bindings::device,
    addr: DmaAddress,
    size: usize,
    dir: bindings::dma_data_direction,
) {
    // SAFETY: By the safety requirements.
    let sim = unsafe { sim(dev) };

    sim.bus.lock().sync(addr, size, direction(dir), false);
}

/// # Safety
///
/// See [`OPS`].
unsafe extern "C" fn sync_single_for_device(
    dev: *mut bindings::device,
    addr: DmaAddress,
    size: usize,
    dir: bindings::dma_data_direction,
) {
    // SAFETY: By the safety requirements.
    let sim = unsafe { sim(dev) };

    sim.bus.lock().sync(addr, size, direction(dir), true);
}

/// # Safety
///
/// See [`OPS`].
unsafe extern "C" fn sync_sg_for_cpu(
    dev: *mut bindings::device,
    sg: *mut bindings::scatterlist,
    nents: c_int,
    dir: bindings::dma_data_direction,
) {
    // SAFETY: By the safety requirements; the caller passed a valid list.
    let (sim, addr) = unsafe { (sim(dev), bindings::sg_dma_address(sg)) };

    // CAST: A count is not negative.
    sim.bus
        .lock()
        .sync_list(addr, nents as usize, direction(dir), false);
}

/// # Safety
///
/// See [`OPS`].
unsafe extern "C" fn sync_sg_for_device(
    dev: *mut bindings::device,
    sg: *mut bindings::scatterlist,
    nents: c_int,
    dir: bindings::dma_data_direction,
) {
    // SAFETY: By the safety requirements; the caller passed a valid list.
    let (sim, addr) = unsafe { (sim(dev), bindings::sg_dma_address(sg)) };

    // CAST: A count is not negative.
    sim.bus
        .lock()
        .sync_list(addr, nents as usize, direction(dir), true);
}

/// # Safety
///
/// See [`OPS`].
unsafe extern "C" fn dma_supported(dev: *mut bindings::device, mask: u64) -> c_int {
    // SAFETY: By the safety requirements.
    let sim = unsafe { sim(dev) };

    c_int::from(mask >= sim.script.smallest_mask.value())
}

/// # Safety
///
/// See [`OPS`].
unsafe extern "C" fn max_mapping_size(dev: *mut bindings::device) -> usize {
    // SAFETY: By the safety requirements.
    unsafe { sim(dev) }.script.model.max_mapping_size()
}
