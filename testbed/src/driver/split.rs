//! The driver's side of a split virtqueue (virtio 1.2, section 2.7).

use std::sync::Arc;
use std::sync::atomic::{Ordering, fence};

use super::memory::DriverMemory;
use super::queue::{Areas, Completion, Piece, RawDescriptor, entry, flag};

#[derive(Debug)]
pub(super) struct SplitQueue {
    pub(super) memory: Arc<DriverMemory>,
    areas: Areas,
    size: u16,
    /// Run free over 16 bits.
    next_available: u16,
    next_used: u16,
    /// Free descriptors; the last one freed is taken first, so that chains are scattered over the table.
    free: Vec<u16>,
    /// By head: the descriptors of a chain under way.
    chains: Vec<Vec<u16>>,
}

impl SplitQueue {
    pub(super) fn new(areas: Areas, size: u16, base: u32, memory: Arc<DriverMemory>) -> Self {
        let at = base as u16;
        memory.store_u16(areas.driver + 2, at, Ordering::Relaxed);
        memory.store_u16(areas.device + 2, at, Ordering::Relaxed);
        Self {
            memory,
            areas,
            size,
            next_available: at,
            next_used: at,
            free: (0..size).collect(),
            chains: vec![Vec::new(); usize::from(size)],
        }
    }

    pub(super) fn room(&self) -> u16 {
        self.free.len() as u16
    }

    fn address(&self, descriptor: u16) -> u64 {
        self.areas.descriptors + u64::from(descriptor) * 16
    }

    /// Puts a head into the available ring, then moves the index.
    fn offer(&mut self, head: u16) {
        let slot = u64::from(self.next_available % self.size);
        self.memory.store_u16(self.areas.driver + 4 + slot * 2, head, Ordering::Relaxed);
        self.next_available = self.next_available.wrapping_add(1);
        self.memory.store_u16(self.areas.driver + 2, self.next_available, Ordering::Release);
    }

    pub(super) fn add(&mut self, pieces: &[Piece], indirect: bool) -> Option<u16> {
        let rest = self.free.len().checked_sub(pieces.len())?;
        let descriptors = self.free.split_off(rest);
        for (index, (piece, &descriptor)) in pieces.iter().zip(&descriptors).enumerate() {
            let next = descriptors.get(index + 1);
            let mut flags = if piece.writable { flag::WRITE } else { 0 };
            flags |= if next.is_some() { flag::NEXT } else { 0 };
            flags |= if indirect { flag::INDIRECT } else { 0 };
            // Without NEXT, `next` is something that must not matter.
            self.memory.write(self.address(descriptor), &entry(piece, flags, next.copied().unwrap_or(0xbeef)));
        }
        let head = descriptors[0];
        self.chains[usize::from(head)] = descriptors;
        self.offer(head);
        Some(head)
    }

    pub(super) fn add_raw(&mut self, descriptors: &[RawDescriptor]) {
        for (index, raw) in (0..).zip(descriptors) {
            let piece = Piece { address: raw.address, len: raw.len, writable: false };
            self.memory.write(self.address(index), &entry(&piece, raw.flags, raw.next.unwrap_or(index + 1)));
        }
        self.offer(0);
    }

    pub(super) fn used(&mut self) -> Option<Completion> {
        let index = self.memory.load_u16(self.areas.device + 2, Ordering::Acquire);
        if index == self.next_used {
            return None;
        }
        let element = self.areas.device + 4 + u64::from(self.next_used % self.size) * 8;
        let id = self.memory.load_u32(element, Ordering::Relaxed);
        let len = self.memory.load_u32(element + 4, Ordering::Relaxed);
        let chain = self.chains.get_mut(id as usize).map(std::mem::take).unwrap_or_default();
        assert!(!chain.is_empty(), "the device used descriptor {id}, which is not the head of a chain under way");
        self.next_used = self.next_used.wrapping_add(1);
        self.free.extend(chain);
        Some(Completion { id: id as u16, len })
    }

    pub(super) fn base(&self) -> u32 {
        u32::from(self.next_used)
    }

    pub(super) fn device_wants_kick(&self) -> bool {
        // What was made available must be seen before the device's wish is read (section 2.7.13.3).
        fence(Ordering::SeqCst);
        self.memory.load_u16(self.areas.device, Ordering::Acquire) & 1 == 0
    }

    pub(super) fn set_interrupts(&self, wanted: bool) {
        self.memory.store_u16(self.areas.driver, u16::from(!wanted), Ordering::Release);
        fence(Ordering::SeqCst);
    }
}
