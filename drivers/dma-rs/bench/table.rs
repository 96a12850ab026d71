// SPDX-License-Identifier: GPL-2.0

//! Which loops belong together.

#![allow(unsafe_code)]

use super::{
    device::{
        ffi,
        CLoop,
        FRAME, //
    },
    loops,
    measure::Work, //
};
use kernel::{
    dma::{
        Bidirectional,
        FromDevice,
        ToDevice, //
    },
    prelude::*, //
};

/// A loop in Rust: does something that many times.
pub(crate) type RustLoop = for<'a> fn(&mut Work<'a>, u32) -> Result;

/// Something that is done in C and in Rust.
pub(crate) struct Operation {
    pub(crate) name: &'static str,
    /// How often it is done in a row.
    pub(crate) times: u32,
    /// How long the buffer is that both halves map.
    pub(crate) buffer: usize,
    /// How many buffers the list has that both halves map instead; zero if there is none.
    pub(crate) pieces: usize,
    /// How many frames or commands share a doorbell. It divides `times`.
    pub(crate) batch: u32,
    /// How many descriptors a ring has; zero if there is none.
    pub(crate) ring: u32,
    /// Whether there are queues of commands.
    pub(crate) queue: bool,
    /// Whether a DMA engine copies.
    pub(crate) copies: bool,
    /// The way in which C drivers do it.
    pub(crate) c: CLoop,
    /// The least that C can do: it calls the function of the DMA API that all others end in.
    pub(crate) lowest: Option<CLoop>,
    pub(crate) rust: RustLoop,
}

/// Finds a loop in C by its name.
macro_rules! c_loop {
    ($name:ident) => {{
        unsafe extern "C" {
            fn $name(bench: *mut ffi::Bench, n: u32) -> c_int;
        }
        $name as CLoop
    }};
}

/// What a row doesn't say is as here.
const USUAL: Operation = Operation {
    name: "nothing",
    times: 2048,
    buffer: FRAME,
    pieces: 0,
    batch: 1,
    ring: 0,
    queue: false,
    copies: false,
    c: c_loop!(dma_bench_nothing),
    lowest: None,
    rust: loops::nothing,
};

/// Makes rows: a name, the loop in C, the least in C if that is another, the loop in Rust; then
/// what isn't usual.
macro_rules! table {
    ($($name:literal: $c:ident $(($lowest:ident))?, $rust:expr
       $(, $field:ident = $value:expr)*;)*) => {
        &[$(Operation {
            name: $name,
            c: c_loop!($c),
            $(lowest: Some(c_loop!($lowest)),)?
            rust: $rust,
            $($field: $value,)*
            ..USUAL
        }),*]
    };
}

/// All operations.
#[rustfmt::skip]
pub(crate) static OPERATIONS: &[Operation] = table! {
    "nothing":
        dma_bench_nothing, loops::nothing;
    "map_unmap/64/to":
        dma_bench_map_unmap_64_to(dma_bench_map_unmap_phys_64_to),
        loops::map_unmap::<ToDevice, 64>, buffer = 64;
    "map_unmap/64/from":
        dma_bench_map_unmap_64_from(dma_bench_map_unmap_phys_64_from),
        loops::map_unmap::<FromDevice, 64>, buffer = 64;
    "map_unmap/64/both":
        dma_bench_map_unmap_64_both(dma_bench_map_unmap_phys_64_both),
        loops::map_unmap::<Bidirectional, 64>, buffer = 64;
    "map_unmap/2048/to":
        dma_bench_map_unmap_2048_to(dma_bench_map_unmap_phys_2048_to),
        loops::map_unmap::<ToDevice, 2048>;
    "map_unmap/2048/from":
        dma_bench_map_unmap_2048_from(dma_bench_map_unmap_phys_2048_from),
        loops::map_unmap::<FromDevice, 2048>;
    "map_unmap/2048/both":
        dma_bench_map_unmap_2048_both(dma_bench_map_unmap_phys_2048_both),
        loops::map_unmap::<Bidirectional, 2048>;
    "map_unmap/65536/to":
        dma_bench_map_unmap_65536_to(dma_bench_map_unmap_phys_65536_to),
        loops::map_unmap::<ToDevice, 65536>, buffer = 65536;
    "map_unmap/65536/from":
        dma_bench_map_unmap_65536_from(dma_bench_map_unmap_phys_65536_from),
        loops::map_unmap::<FromDevice, 65536>, buffer = 65536;
    "map_unmap/65536/both":
        dma_bench_map_unmap_65536_both(dma_bench_map_unmap_phys_65536_both),
        loops::map_unmap::<Bidirectional, 65536>, buffer = 65536;
    "pass/to":
        dma_bench_pass_to, loops::pass::<ToDevice>;
    "pass/from":
        dma_bench_pass_from, loops::pass::<FromDevice>;
    "pass/both":
        dma_bench_pass_both, loops::pass::<Bidirectional>;
    "pass/prefix":
        dma_bench_pass_part, loops::pass_prefix;
    "pool":
        dma_bench_pool, loops::pool;
    "coherent":
        dma_bench_coherent, loops::coherent, times = 64;
    "shared":
        dma_bench_coherent, loops::shared, times = 64;
    "pages":
        dma_bench_pages, loops::pages, times = 64;
    "shared/read":
        dma_bench_read_word, loops::read_word;
    "shared/write":
        dma_bench_write_word, loops::write_word;
    "list/1":
        dma_bench_list(dma_bench_list_lowest), loops::list, pieces = 1, times = 256;
    "list/16":
        dma_bench_list(dma_bench_list_lowest), loops::list, pieces = 16, times = 256;
    "list/256":
        dma_bench_list(dma_bench_list_lowest), loops::list, pieces = 256, times = 16;
    "list_pass/16":
        dma_bench_list_pass, loops::list_pass, pieces = 16, times = 256;
    "post_reap/batch-1":
        dma_bench_post_reap, loops::post_reap, ring = 256;
    "post_reap/batch-8":
        dma_bench_post_reap, loops::post_reap, ring = 256, batch = 8;
    "post_reap/batch-32":
        dma_bench_post_reap, loops::post_reap, ring = 256, batch = 32;
    "post_reap/ring-64":
        dma_bench_post_reap, loops::post_reap, ring = 64, batch = 32;
    "post_reap/ring-1024":
        dma_bench_post_reap, loops::post_reap, ring = 1024, batch = 32;
    "post_reap/ring-4096":
        dma_bench_post_reap, loops::post_reap, ring = 4096, batch = 32;
    "receive/recycle":
        dma_bench_receive_recycle, loops::receive_recycle, ring = 256, batch = 32;
    "receive/unmap":
        dma_bench_receive_unmap, loops::receive_unmap, ring = 256, batch = 32;
    "receive/recycle-or-unmap":
        dma_bench_receive_unmap, loops::receive_recycle, ring = 256, batch = 32;
    "receive/ring-64":
        dma_bench_receive_recycle, loops::receive_recycle, ring = 64, batch = 32;
    "receive/ring-1024":
        dma_bench_receive_recycle, loops::receive_recycle, ring = 1024, batch = 32;
    "receive/ring-4096":
        dma_bench_receive_recycle, loops::receive_recycle, ring = 4096, batch = 32;
    "submit_complete/batch-1":
        dma_bench_submit_complete, loops::submit_complete, queue = true;
    "submit_complete/batch-8":
        dma_bench_submit_complete, loops::submit_complete, queue = true, batch = 8;
    "submit_complete/batch-32":
        dma_bench_submit_complete, loops::submit_complete, queue = true, batch = 32;
    "submit_complete/list-16":
        dma_bench_submit_list, loops::submit_list, buffer = 65536, queue = true;
    "engine_copy":
        dma_bench_engine_copy(dma_bench_engine_copy_lowest),
        loops::engine_copy, copies = true;
};

/// What the device of a ring costs, which isn't to be counted.
pub(crate) const DEVICE: CLoop = c_loop!(dma_bench_device);

/// The same of queues.
pub(crate) const CONTROLLER: CLoop = c_loop!(dma_bench_controller);

/// What is done by several CPUs at the same time.
pub(crate) const MAP_UNMAP: CLoop = c_loop!(dma_bench_map_unmap_2048_from);
