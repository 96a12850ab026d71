// SPDX-License-Identifier: GPL-2.0

//! The two views of a mapped buffer: the CPU's and the device's.
//!
//! On a bus that doesn't snoop caches, and behind bounce buffers, the CPU and the device see two
//! memories, which only mapping, syncing and unmapping make equal. Here they always are two, byte
//! by byte, and what a side must not rely on is overwritten with a poison instead of being left as
//! it happens to be.

use super::{
    faults::Fault,
    site::Site, //
};
use crate::{
    dma::DataDirection,
    prelude::*, //
};
use core::ops::Range;

/// What the CPU sees in bytes that the device has, or may have, written since it was last synced.
pub const CPU_POISON: u8 = 0xc9;

/// What the CPU sees in bytes that a device has written, if it loads them without a barrier, where
/// memory is weakly ordered.
pub const LATE_POISON: u8 = 0xdd;

/// What the device sees in bytes that it was never given.
pub const DEVICE_POISON: u8 = 0xd9;

/// Who may access a byte of a streaming mapping.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Owner {
    /// The CPU; the device was never given the byte, or gave it back.
    Cpu,
    /// The device.
    Device,
    /// The device may write it again without being asked, but until then the CPU may read it: after
    /// a sync for the CPU, in a mapping that only the device writes.
    Both,
}

/// The device's side of a mapping.
pub(super) enum View {
    /// The same memory: coherent allocations, and all mappings on a coherent bus.
    Shared,
    /// Another memory.
    Separate(Shadow),
}

/// A memory of the device's own, in pieces that can be had in any context.
pub(super) struct Shadow(KVec<KVec<Byte>>);

/// How many bytes are in a piece of a [`Shadow`].
const PIECE: usize = 1024;

impl Shadow {
    fn at(&mut self, i: usize) -> &mut Byte {
        &mut self.0[i / PIECE][i % PIECE]
    }

    fn get(&self, i: usize) -> Byte {
        self.0[i / PIECE][i % PIECE]
    }
}

#[derive(Clone, Copy)]
pub(super) struct Byte {
    value: u8,
    owner: Owner,
}

/// What made a mapping, and will undo it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    Single,
    /// An entry of a scatter-gather list.
    Sg,
    Coherent,
    /// Memory that was allocated and mapped at once, which may be synced as a list of one entry.
    Pages,
}

/// A mapping, or an entry of a mapped scatter-gather list.
///
/// # Invariants
///
/// `cpu` is valid for reads and writes of `len` bytes while the mapping lives, if the owner of the
/// buffer keeps it, as the DMA API demands. `Separate` holds `len` bytes.
pub(super) struct Mapping {
    pub(super) addr: u64,
    pub(super) len: usize,
    pub(super) cpu: *mut u8,
    pub(super) direction: DataDirection,
    pub(super) kind: Kind,
    /// The call that made it: entries of one list share it.
    pub(super) call: u64,
    pub(super) view: View,
    pub(super) site: Site,
    /// Whether the test knows that nobody will undo it.
    pub(super) forgiven: bool,
}

// SAFETY: The memory at `cpu` may be accessed from any thread.
unsafe impl Send for Mapping {}

impl View {
    /// Makes a memory of its own for the device, full of poison.
    pub(super) fn separate(len: usize) -> Result<Self> {
        let byte = Byte {
            value: DEVICE_POISON,
            owner: Owner::Cpu,
        };

        let flags = GFP_ATOMIC | __GFP_NOWARN;
        let mut pieces = KVec::with_capacity(len.div_ceil(PIECE), flags)?;

        for start in (0..len).step_by(PIECE) {
            pieces.push(KVec::from_elem(byte, PIECE.min(len - start), flags)?, flags)?;
        }

        Ok(Self::Separate(Shadow(pieces)))
    }
}

impl Mapping {
    /// The bus addresses.
    pub(super) fn range(&self) -> Range<u64> {
        // CAST: Widening.
        self.addr..self.addr + self.len as u64
    }

    pub(super) fn device_reads(&self) -> bool {
        self.direction != DataDirection::FromDevice
    }

    pub(super) fn device_writes(&self) -> bool {
        self.direction != DataDirection::ToDevice
    }

    /// The CPU gives bytes to the device.
    pub(super) fn give(&mut self, range: Range<usize>) {
        let (device_reads, device_writes) = (self.device_reads(), self.device_writes());
        let cpu = self.cpu;
        let View::Separate(bytes) = &mut self.view else {
            return;
        };

        for i in range {
            let byte = bytes.at(i);

            // What only the device writes goes there once: the CPU has had no business to write
            // since.
            if device_reads || byte.owner == Owner::Cpu {
                // SAFETY: By the type invariants.
                byte.value = unsafe { cpu.add(i).read() };
            }

            byte.owner = Owner::Device;

            if device_writes {
                // SAFETY: By the type invariants.
                unsafe { cpu.add(i).write(CPU_POISON) };
            }
        }
    }

    /// The CPU takes bytes back from the device.
    pub(super) fn take(&mut self, range: Range<usize>) -> Result<(), Fault> {
        let (device_reads, device_writes) = (self.device_reads(), self.device_writes());
        let cpu = self.cpu;
        let mut outcome = Ok(());
        let View::Separate(bytes) = &mut self.view else {
            return outcome;
        };

        for i in range {
            let byte = bytes.at(i);

            if device_writes {
                // SAFETY: By the type invariants.
                if byte.owner == Owner::Device && unsafe { cpu.add(i).read() } != CPU_POISON {
                    outcome = Err(Fault::CpuWrote);
                }

                // SAFETY: By the type invariants.
                unsafe { cpu.add(i).write(byte.value) };
            }

            byte.owner = match byte.owner {
                Owner::Cpu => Owner::Cpu,
                _ if device_reads => Owner::Cpu,
                _ => Owner::Both,
            };
        }

        outcome
    }

    /// The device reads, from `at` on.
    pub(super) fn read(&self, at: usize, to: &mut [u8]) -> Result<(), Fault> {
        if !self.device_reads() {
            return Err(Fault::Direction);
        }

        let bytes = match &self.view {
            View::Separate(bytes) => bytes,
            View::Shared => {
                // SAFETY: By the type invariants; the caller keeps to the mapping.
                unsafe { to.as_mut_ptr().copy_from(self.cpu.add(at), to.len()) };
                return Ok(());
            }
        };

        for (i, to) in to.iter_mut().enumerate() {
            let byte = bytes.get(at + i);

            if byte.owner == Owner::Cpu {
                return Err(Fault::NotGiven);
            }

            // SAFETY: By the type invariants.
            if !self.device_writes() && unsafe { self.cpu.add(at + i).read() } != byte.value {
                return Err(Fault::CpuWrote);
            }

            *to = byte.value;
        }

        Ok(())
    }

    /// The device writes, from `at` on.
    pub(super) fn write(&mut self, at: usize, from: &[u8]) -> Result<(), Fault> {
        if !self.device_writes() {
            return Err(Fault::Direction);
        }

        let bytes = match &mut self.view {
            View::Separate(bytes) => bytes,
            View::Shared => {
                // SAFETY: By the type invariants; the caller keeps to the mapping.
                unsafe { self.cpu.add(at).copy_from(from.as_ptr(), from.len()) };
                return Ok(());
            }
        };

        if (at..at + from.len()).any(|i| bytes.get(i).owner == Owner::Cpu) {
            return Err(Fault::NotGiven);
        }

        for (i, &value) in from.iter().enumerate() {
            *bytes.at(at + i) = Byte {
                value,
                owner: Owner::Device,
            };

            // SAFETY: By the type invariants.
            unsafe { self.cpu.add(at + i).write(CPU_POISON) };
        }

        Ok(())
    }

    /// Hides from the CPU what the device has written, if the CPU would see it at once.
    ///
    /// Returns whether it did: what is to be synced isn't seen before, anyway.
    pub(super) fn hide(&mut self, at: usize, len: usize) -> bool {
        let shared = matches!(self.view, View::Shared);

        if shared {
            // SAFETY: By the type invariants; the caller keeps to the mapping.
            unsafe { self.cpu.add(at).write_bytes(LATE_POISON, len) };
        }

        shared
    }

    /// Shows the CPU what was hidden, unless it wrote there since.
    pub(super) fn show(&mut self, at: usize, bytes: &[u8]) {
        // SAFETY: By the type invariants; the caller keeps to the mapping.
        let hidden =
            (at..at + bytes.len()).all(|i| unsafe { self.cpu.add(i).read() } == LATE_POISON);

        if hidden {
            // SAFETY: As above.
            unsafe { self.cpu.add(at).copy_from(bytes.as_ptr(), bytes.len()) };
        }
    }
}
