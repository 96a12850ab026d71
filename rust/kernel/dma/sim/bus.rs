// SPDX-License-Identifier: GPL-2.0

//! The bus: what is mapped, and what becomes of each call and each access.

use super::{
    addresses::Addresses,
    faults::{
        Fault,
        Record, //
    },
    order::Order,
    site::Site,
    views::{
        Kind,
        Mapping,
        View, //
    },
    Counters,
    Model,
    Script, //
};
use crate::{
    bindings,
    dma::{
        DataDirection,
        DmaAddress,
        MapAttrs, //
    },
    fmt,
    page::PAGE_SIZE,
    prelude::*, //
};
use core::ops::Range;

/// The size and alignment of a bounce buffer's slots, and the most that one mapping can have, as in
/// the kernel's swiotlb.
const SLOT: usize = 2048;
pub(super) const MAX_BOUNCE: usize = 128 * SLOT;

/// How many faults are kept in full, and how many unmapped ranges are remembered.
const KEPT: usize = 16;
const GRAVES: usize = 256;

/// What a device allows, and wants, where the bus gives it addresses.
#[derive(Clone, Copy)]
pub(super) struct Limits {
    pub(super) mask: u64,
    pub(super) min_align_mask: usize,
    pub(super) max_segment_size: usize,
    pub(super) segment_boundary: u64,
}

/// A range that was mapped once.
struct Grave {
    range: Range<u64>,
    site: Site,
}

/// What nobody unmapped.
pub(super) struct Leak {
    pub(super) addr: DmaAddress,
    len: usize,
    direction: DataDirection,
    kind: Kind,
    site: Site,
    pub(super) forgiven: bool,
}

impl Leak {
    /// Undoes a mapping, so that others of the same memory are not taken for a second one. Returns
    /// whether it did: who has a list or coherent memory may still give it back.
    ///
    /// # Safety
    ///
    /// `dev` must be on the bus, and the mapping must belong to nobody.
    pub(super) unsafe fn undo(&self, dev: *mut bindings::device) -> bool {
        let single = self.kind == Kind::Single;

        if single {
            // SAFETY: By the safety requirements.
            unsafe {
                bindings::dma_unmap_phys(
                    dev,
                    self.addr,
                    self.len,
                    self.direction.into(),
                    MapAttrs::NONE.skip_cpu_sync().as_raw(),
                );
            }
        }

        single
    }
}

impl fmt::Display for Leak {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self {
            addr,
            len,
            direction,
            kind,
            site,
            ..
        } = self;

        f.write_fmt(fmt!(
            "{len} bytes at {addr:#x} ({kind:?}, {direction:?}) are still mapped; mapped in {site}"
        ))
    }
}

/// The state of the bus.
pub(super) struct Bus {
    model: Model,
    space: usize,
    addresses: [Addresses; 2],
    live: KVec<Mapping>,
    graves: KVec<Grave>,
    /// How many graves there were, also those that others have taken the place of.
    buried: usize,
    order: Order,
    faults: KVec<Record>,
    fault_count: usize,
    pub(super) counters: Counters,
    /// What is to happen to the maps and allocations to come: the k-th of them fails.
    pub(super) fail_map: u32,
    pub(super) fail_alloc: u32,
    pub(super) bus_master: bool,
    calls: u64,
    journal: Journal,
}

impl Bus {
    pub(super) fn new(script: &Script) -> Self {
        Self {
            model: script.model,
            space: script.address_space,
            addresses: [Addresses::new(), Addresses::new()],
            live: KVec::new(),
            graves: KVec::new(),
            buried: 0,
            order: Order::new(script.weak_order),
            faults: KVec::new(),
            fault_count: 0,
            counters: Counters::default(),
            fail_map: 0,
            fail_alloc: 0,
            bus_master: true,
            calls: 0,
            journal: Journal::new(),
        }
    }

    /// Notes that something happened.
    ///
    /// Not at which address, whose low bits are a matter of chance, but where in which mapping.
    fn note(&mut self, what: u8, addr: u64, len: usize) {
        let (call, offset) = match self.find(addr, 1) {
            Some(at) => (self.live[at].call, addr - self.live[at].addr),
            None => (0, 0),
        };

        // CAST: Widening.
        self.journal.note(&[what.into(), call, offset, len as u64]);
    }

    pub(super) fn note_interrupt(&mut self) {
        self.journal.note(&[b'i'.into()]);
    }

    pub(super) fn digest(&self) -> u64 {
        self.journal.0
    }

    /// Returns the n-th of what is still mapped.
    pub(super) fn leak(&self, n: usize) -> Option<Leak> {
        self.live.get(n).map(|mapping| Leak {
            addr: mapping.addr,
            len: mapping.len,
            direction: mapping.direction,
            kind: mapping.kind,
            site: mapping.site,
            forgiven: mapping.forgiven,
        })
    }

    pub(super) fn is_empty(&self) -> bool {
        self.live.is_empty()
    }

    /// Returns how many faults there were since the last call, and the first of them.
    pub(super) fn take_faults(&mut self) -> (usize, KVec<Record>) {
        (
            core::mem::take(&mut self.fault_count),
            core::mem::take(&mut self.faults),
        )
    }

    /// Marks what is mapped now as known to the test; returns how many mappings that are.
    pub(super) fn forgive(&mut self) -> usize {
        let unknown = self.live.iter_mut().filter(|mapping| !mapping.forgiven);

        unknown.map(|mapping| mapping.forgiven = true).count()
    }

    fn fault(&mut self, record: Record) {
        self.fault_count += 1;
        self.note(b'!', record.addr, record.len);

        if self.faults.len() < KEPT {
            let _ = self.faults.push(record, GFP_ATOMIC);
        }
    }

    fn driver_fault(&mut self, fault: Fault, addr: u64, len: usize, mapping: Option<Site>) {
        self.fault(Record {
            fault,
            addr,
            len,
            mapping,
            call: Some(Site::here()),
        });
    }

    /// The granule in which addresses are given out, and the offset in it that `cpu` keeps.
    fn place(&self, phys: u64, limits: &Limits) -> (u64, u64) {
        // CAST: Widening.
        match self.model {
            Model::Coherent | Model::NonCoherent => {
                let page = PAGE_SIZE as u64;

                (page, phys & (page - 1))
            }
            Model::Bounce => {
                let granule = SLOT.max(limits.min_align_mask + 1);

                (granule as u64, phys & limits.min_align_mask as u64)
            }
        }
    }

    /// Takes bus addresses for `len` bytes: one after the other for each kind, since their masks
    /// may differ.
    fn take_addresses(
        &mut self,
        kind: Kind,
        (granule, offset): (u64, u64),
        len: usize,
        limits: &Limits,
    ) -> Result<u64> {
        let used: usize = self.live.iter().map(|mapping| mapping.len).sum();
        let boundary = match kind {
            Kind::Sg => limits.segment_boundary,
            Kind::Single | Kind::Coherent | Kind::Pages => u64::MAX,
        };

        if len == 0 || used.saturating_add(len) > self.space {
            return Err(ENOMEM);
        }

        // CAST: Widening.
        self.addresses[usize::from(kind == Kind::Coherent)]
            .take(
                &self.live,
                limits.mask,
                granule,
                offset,
                len as u64,
                boundary,
            )
            .ok_or(ENOMEM)
    }

    fn add(&mut self, mapping: Mapping) -> Result {
        let (addr, len) = (mapping.addr, mapping.len);

        self.live.push(mapping, GFP_ATOMIC | __GFP_NOWARN)?;
        self.note(b'm', addr, len);
        self.counters.live += 1;
        Ok(())
    }

    /// Whether this call is the one that was chosen to fail.
    fn fails(countdown: &mut u32) -> bool {
        let fails = *countdown == 1;

        *countdown = countdown.saturating_sub(1);
        fails
    }

    /// Maps one buffer, for the CPU or (`give`) for the device.
    pub(super) fn map(
        &mut self,
        cpu: *mut u8,
        phys: u64,
        len: usize,
        direction: DataDirection,
        give: bool,
        limits: &Limits,
    ) -> Result<DmaAddress> {
        self.counters.maps += 1;

        if Self::fails(&mut self.fail_map) || len > self.model.max_mapping_size() {
            return Err(ENOMEM);
        }

        let view = self.view(len)?;
        let place = self.place(phys, limits);
        let addr = self.take_addresses(Kind::Single, place, len, limits)?;

        self.calls += 1;

        let mut mapping = Mapping {
            addr,
            len,
            cpu,
            direction,
            kind: Kind::Single,
            call: self.calls,
            view,
            site: Site::here(),
            forgiven: false,
        };

        // Before the CPU's view is poisoned: a failure must leave it as it is.
        self.live.reserve(1, GFP_ATOMIC | __GFP_NOWARN)?;

        if give {
            mapping.give(0..len);
            self.counters.to_device += mapping.len;
        }

        self.add(mapping)?;
        Ok(addr)
    }

    fn view(&self, len: usize) -> Result<View> {
        match self.model {
            Model::Coherent => Ok(View::Shared),
            Model::NonCoherent | Model::Bounce => View::separate(len),
        }
    }

    /// Maps the entries of a scatter-gather list; tells `done` the address of each.
    ///
    /// Entries that follow each other at page boundaries get addresses that follow each other, as
    /// an IOMMU would do it.
    pub(super) fn map_list(
        &mut self,
        entries: impl Iterator<Item = (*mut u8, u64, usize)> + Clone,
        direction: DataDirection,
        give: bool,
        limits: &Limits,
        mut done: impl FnMut(u64, usize),
    ) -> Result {
        self.counters.maps += 1;

        // What direct mapping says if it fails for an entry.
        if Self::fails(&mut self.fail_map) {
            return Err(EIO);
        }

        self.calls += 1;

        let call = self.calls;
        let site = Site::here();
        let mapped = self.map_entries(entries, direction, call, site, limits, &mut done);

        if mapped.is_err() {
            self.counters.live -= self.live.iter().filter(|m| m.call == call).count();
            self.live.retain(|mapping| mapping.call != call);
        } else if give {
            for mapping in self.live.iter_mut().filter(|m| m.call == call) {
                mapping.give(0..mapping.len);
                self.counters.to_device += mapping.len;
            }
        }

        mapped
    }

    fn map_entries(
        &mut self,
        entries: impl Iterator<Item = (*mut u8, u64, usize)> + Clone,
        direction: DataDirection,
        call: u64,
        site: Site,
        limits: &Limits,
        done: &mut impl FnMut(u64, usize),
    ) -> Result {
        // CAST: Widening, here and below.
        let page = PAGE_SIZE as u64;
        let mut rest = entries;

        while let Some((_, phys, _)) = rest.clone().next() {
            // How many entries make one segment, and how long it is.
            let (mut count, mut total) = (0, 0);

            for (_, phys, len) in rest.clone() {
                let joins = || {
                    self.model != Model::Bounce
                        && phys % page == 0
                        && total + len <= limits.max_segment_size
                        && (total + len) as u64 <= limits.segment_boundary.saturating_add(1)
                };

                if count > 0 && !joins() {
                    break;
                }

                count += 1;
                total += len;

                // What comes after an end inside a page can't follow.
                if (phys + len as u64) % page != 0 {
                    break;
                }
            }

            if total > self.model.max_mapping_size() {
                return Err(EINVAL);
            }

            let place = self.place(phys, limits);
            let segment = self.take_addresses(Kind::Sg, place, total, limits)?;
            let mut addr = segment;

            for _ in 0..count {
                let Some((cpu, _, len)) = rest.next() else {
                    break;
                };

                self.add(Mapping {
                    addr,
                    len,
                    cpu,
                    direction,
                    kind: Kind::Sg,
                    call,
                    view: self.view(len)?,
                    site,
                    forgiven: false,
                })?;
                addr += len as u64;
            }

            done(segment, total);
        }

        Ok(())
    }

    /// Maps memory that was allocated for both sides.
    pub(super) fn allocate(
        &mut self,
        cpu: *mut u8,
        len: usize,
        limits: &Limits,
    ) -> Result<DmaAddress> {
        self.counters.allocs += 1;

        if Self::fails(&mut self.fail_alloc) {
            return Err(ENOMEM);
        }

        // The DMA API promises as much. CAST: Widening.
        let granule = PAGE_SIZE.max(len.next_power_of_two()) as u64;
        let addr = self.take_addresses(Kind::Coherent, (granule, 0), len, limits)?;

        self.calls += 1;
        self.add(Mapping {
            addr,
            len,
            cpu,
            direction: DataDirection::Bidirectional,
            kind: Kind::Coherent,
            call: self.calls,
            view: View::Shared,
            site: Site::here(),
            forgiven: false,
        })?;

        Ok(addr)
    }

    /// Finds the mapping that holds all of `len` bytes at `addr`.
    fn find(&self, addr: u64, len: usize) -> Option<usize> {
        // CAST: Widening.
        self.live.iter().position(|mapping| {
            mapping.range().contains(&addr) && len as u64 <= mapping.range().end - addr
        })
    }

    /// Undoes the mapping of a single buffer, if it is as the caller says. Else it stays.
    pub(super) fn unmap(&mut self, addr: u64, len: usize, direction: DataDirection, take: bool) {
        self.counters.unmaps += 1;
        self.undo(addr, len, take, |mapping| {
            mapping.kind == Kind::Single && mapping.direction == direction
        });
    }

    /// Undoes the mapping of an allocation, if it is as the caller says, who is to free it then.
    pub(super) fn release(&mut self, cpu: *mut u8, addr: u64, len: usize) -> bool {
        self.counters.frees += 1;
        self.undo(addr, len, false, |mapping| {
            mapping.kind == Kind::Coherent && mapping.cpu == cpu
        })
    }

    /// Notes that what was just mapped at an address was allocated for that.
    pub(super) fn note_pages(&mut self, addr: u64) {
        if let Some(mapping) = self.live.iter_mut().find(|mapping| mapping.addr == addr) {
            mapping.kind = Kind::Pages;
        }
    }

    /// Notes that what was allocated and mapped at an address is to be unmapped and freed, if it is
    /// as the caller says. Else it stays.
    pub(super) fn forget_pages(&mut self, addr: u64, len: usize) -> bool {
        let found = self
            .live
            .iter_mut()
            .find(|m| m.addr == addr && m.len == len && m.kind == Kind::Pages);

        if let Some(mapping) = found {
            mapping.kind = Kind::Single;
            return true;
        }

        let site = self.past(addr);

        self.driver_fault(Fault::BadUnmap, addr, len, site);
        false
    }

    fn undo(
        &mut self,
        addr: u64,
        len: usize,
        take: bool,
        as_said: impl FnOnce(&Mapping) -> bool,
    ) -> bool {
        let found = self.live.iter().position(|mapping| mapping.addr == addr);

        match found {
            Some(at) if self.live[at].len == len && as_said(&self.live[at]) => {
                self.bury(at, take);
                true
            }
            _ => {
                let site = found
                    .map(|at| self.live[at].site)
                    .or_else(|| self.past(addr));

                self.driver_fault(Fault::BadUnmap, addr, len, site);
                false
            }
        }
    }

    /// Undoes the mapping of a list, whose first entry is at `addr`.
    pub(super) fn unmap_list(
        &mut self,
        addr: u64,
        entries: usize,
        direction: DataDirection,
        take: bool,
    ) {
        self.counters.unmaps += 1;

        let first = self.live.iter().find(|mapping| mapping.addr == addr);
        let call = first.map(|mapping| mapping.call);
        let site = first.map(|mapping| mapping.site);
        let as_said = self
            .live
            .iter()
            .filter(|m| Some(m.call) == call && m.kind == Kind::Sg && m.direction == direction)
            .count();

        if as_said == 0 || as_said != entries {
            let site = site.or_else(|| self.past(addr));

            return self.driver_fault(Fault::BadUnmap, addr, entries, site);
        }

        while let Some(at) = self.live.iter().position(|m| Some(m.call) == call) {
            self.bury(at, take);
        }
    }

    fn bury(&mut self, at: usize, take: bool) {
        let len = self.live[at].len;

        // Of what is not mapped any more nothing comes late.
        let range = self.live[at].range();

        self.order.settle(&mut self.live, range);

        if take {
            self.take_back(at, 0..len);
        }

        self.note(b'u', self.live[at].addr, len);

        let Ok(mapping) = self.live.remove(at) else {
            return;
        };

        self.counters.live -= 1;

        let grave = Grave {
            range: mapping.range(),
            site: mapping.site,
        };

        // Instead of the oldest, if there are enough.
        match self.graves.get_mut(self.buried % GRAVES) {
            Some(oldest) => *oldest = grave,
            None => {
                let _ = self.graves.push(grave, GFP_ATOMIC);
            }
        }

        self.buried += 1;
    }

    /// Who mapped an address that is not mapped any more.
    fn past(&self, addr: u64) -> Option<Site> {
        let next = self.graves.len().min(self.buried % GRAVES);
        let (newer, older) = self.graves.split_at(next);
        let mut last_first = Iterator::chain(newer.iter().rev(), older.iter().rev());

        last_first
            .find(|grave| grave.range.contains(&addr))
            .map(|grave| grave.site)
    }

    fn take_back(&mut self, at: usize, range: Range<usize>) {
        let mapping = &mut self.live[at];
        let (addr, site) = (mapping.addr, mapping.site);

        if mapping.device_writes() {
            self.counters.to_cpu += range.len();
        }

        if let Err(fault) = mapping.take(range.clone()) {
            self.driver_fault(fault, addr, range.len(), Some(site));
        }
    }

    /// The driver syncs a part of a mapping.
    pub(super) fn sync(
        &mut self,
        addr: u64,
        len: usize,
        direction: DataDirection,
        for_device: bool,
    ) {
        if for_device {
            self.note(b'd', addr, len);
            self.counters.syncs_for_device += 1;
        } else {
            self.note(b'c', addr, len);
            self.counters.syncs_for_cpu += 1;
        }

        let found = self.find(addr, len);
        let as_said = found.filter(|&at| {
            let mapping = &self.live[at];

            mapping.kind != Kind::Coherent && mapping.direction == direction
        });

        let Some(at) = as_said else {
            let site = found
                .map(|at| self.live[at].site)
                .or_else(|| self.past(addr));

            return self.driver_fault(Fault::BadSync, addr, len, site);
        };

        // CAST: Inside the mapping, whose length is a `usize`.
        let start = (addr - self.live[at].addr) as usize;

        if for_device {
            self.counters.to_device += len;
            self.live[at].give(start..start + len);
        } else {
            self.take_back(at, start..start + len);
        }
    }

    /// The driver syncs the list whose first entry is at `addr`.
    pub(super) fn sync_list(
        &mut self,
        addr: u64,
        entries: usize,
        direction: DataDirection,
        for_device: bool,
    ) {
        let first = self.live.iter().position(|mapping| {
            mapping.addr == addr
                && match mapping.kind {
                    Kind::Sg => true,
                    Kind::Pages => entries == 1,
                    Kind::Single | Kind::Coherent => false,
                }
        });
        let Some(first) = first else {
            let site = self.past(addr);

            return self.driver_fault(Fault::BadSync, addr, entries, site);
        };
        // The entries of a list were added one after the other, and only go together.
        let call = self.live[first].call;

        for at in first..first + entries {
            match self.live.get(at).filter(|mapping| mapping.call == call) {
                Some(mapping) => self.sync(mapping.addr, mapping.len, direction, for_device),
                None => return self.driver_fault(Fault::BadSync, addr, entries, None),
            }
        }
    }

    /// A device reads or writes memory, after it said that it had stopped or not. Does nothing
    /// after a fault, and without bus mastering.
    ///
    /// Returns whether all bytes were moved.
    pub(super) fn access(&mut self, addr: u64, mut bytes: Access<'_>, stopped: bool) -> bool {
        let len = bytes.len();

        self.note(if bytes.writes() { b'w' } else { b'r' }, addr, len);
        self.counters.accesses += 1;

        if !self.bus_master {
            self.counters.blocked += 1;
            return false;
        }

        let outcome = if stopped {
            Err(Fault::AfterStop)
        } else {
            // A device sees what it wrote, and what it writes again doesn't come late.
            // CAST: Widening.
            self.order
                .settle(&mut self.live, addr..addr.saturating_add(len as u64));
            self.access_mapped(addr, &mut bytes)
        };

        if let Err(fault) = outcome {
            let mapping = self.find(addr, 1).map(|at| self.live[at].site);

            self.fault(Record {
                fault,
                addr,
                len,
                mapping: mapping.or_else(|| self.past(addr)),
                call: None,
            });
        }

        if outcome.is_ok() {
            self.order.accessed(&mut self.live, addr, &mut bytes);
        }

        outcome.is_ok()
    }

    /// From now on a device sees the CPU's stores to these bytes when barriers order them.
    pub(super) fn hold_stores(&mut self, addr: u64, len: usize) -> Result {
        self.order.hold_stores(addr, len)?;
        self.order_stores();
        Ok(())
    }

    pub(super) fn is_weak(&self) -> bool {
        self.order.is_weak()
    }

    /// Takes it back.
    pub(super) fn release_stores(&mut self, addr: u64) {
        self.order.release_stores(addr);
    }

    /// The CPU's stores so far come before those from now on.
    pub(super) fn order_stores(&mut self) {
        self.order.order_stores(&mut self.live);
    }

    /// The CPU's loads so far come before those from now on.
    pub(super) fn order_loads(&mut self) {
        self.order.order_loads(&mut self.live);
    }

    fn access_mapped(&mut self, addr: u64, bytes: &mut Access<'_>) -> Result<(), Fault> {
        let len = bytes.len();
        let mut done = 0;
        let mut call = None;

        while done < len {
            // CAST: Widening.
            let at = addr.wrapping_add(done as u64);
            let mapping = self
                .live
                .iter_mut()
                .find(|mapping| mapping.range().contains(&at))
                .filter(|mapping| call.is_none_or(|call| call == mapping.call));

            let Some(mapping) = mapping else {
                return Err(match (done, self.past(at)) {
                    (0, Some(_)) => Fault::AfterUnmap,
                    (0, None) => Fault::Unmapped,
                    _ => Fault::PastEnd,
                });
            };

            // CAST: Inside the mapping, whose length is a `usize`.
            let start = (at - mapping.addr) as usize;
            let part = done..len.min(done + mapping.len - start);

            done = part.end;
            call = Some(mapping.call);

            match bytes {
                Access::Read(to) | Access::ReadNow(to) => mapping.read(start, &mut to[part])?,
                Access::Write(from) | Access::WriteLate(from) => {
                    mapping.write(start, &from[part])?
                }
            }
        }

        Ok(())
    }
}

/// An access of the device.
pub(super) enum Access<'b> {
    Read(&'b mut [u8]),
    /// Reads what the CPU has stored, whether a barrier orders it or not.
    ReadNow(&'b mut [u8]),
    Write(&'b [u8]),
    /// Writes what the CPU, where memory is weakly ordered, doesn't see before a barrier.
    WriteLate(&'b [u8]),
}

impl Access<'_> {
    fn len(&self) -> usize {
        match self {
            Self::Read(bytes) | Self::ReadNow(bytes) => bytes.len(),
            Self::Write(bytes) | Self::WriteLate(bytes) => bytes.len(),
        }
    }

    fn writes(&self) -> bool {
        matches!(self, Self::Write(_) | Self::WriteLate(_))
    }
}

/// A running hash of all that happened (as FNV-1a, but by words).
struct Journal(u64);

impl Journal {
    fn new() -> Self {
        Self(0xcbf2_9ce4_8422_2325)
    }

    fn note(&mut self, words: &[u64]) {
        for word in words {
            self.0 = (self.0 ^ word).wrapping_mul(0x100_0000_01b3);
            self.0 ^= self.0 >> 32;
        }
    }
}
