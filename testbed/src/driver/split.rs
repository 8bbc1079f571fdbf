//! The driver's side of a split virtqueue (virtio 1.2, section 2.7).

use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::atomic::{Ordering, fence};

use super::memory::DriverMemory;
use super::queue::{Areas, Completion, Piece, RawDescriptor, Rules, Under, batch, entry, flag};

#[derive(Debug)]
pub(super) struct SplitQueue {
    pub(super) memory: Arc<DriverMemory>,
    areas: Areas,
    size: u16,
    rules: Rules,
    /// Run free over 16 bits.
    next_available: u16,
    next_used: u16,
    /// Free descriptors; the last one freed is taken first, so that chains are scattered over the table. With IN_ORDER in the
    /// order of the table, taken and freed.
    free: VecDeque<u16>,
    /// By head: the descriptors of a chain under way.
    chains: Vec<Vec<u16>>,
    /// Where the driver stood when it last asked whether to kick.
    asked_at: u16,
    /// With IN_ORDER: chains under way, in order; and those used that nobody has collected.
    under: VecDeque<Under>,
    collected: VecDeque<Completion>,
    /// Used elements seen.
    pub(super) entries: u64,
}

impl SplitQueue {
    pub(super) fn new(areas: Areas, size: u16, base: u32, rules: Rules, memory: Arc<DriverMemory>) -> Self {
        let at = base as u16;
        memory.store_u16(areas.driver + 2, at, Ordering::Relaxed);
        memory.store_u16(areas.device + 2, at, Ordering::Relaxed);
        Self {
            memory,
            areas,
            size,
            rules,
            next_available: at,
            next_used: at,
            free: (0..size).collect(),
            chains: vec![Vec::new(); usize::from(size)],
            asked_at: at,
            under: VecDeque::new(),
            collected: VecDeque::new(),
            entries: 0,
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
        let descriptors: Vec<u16> = if self.rules.in_order {
            self.free.drain(..pieces.len()).collect()
        } else {
            self.free.split_off(rest).into()
        };
        for (index, (piece, &descriptor)) in pieces.iter().zip(&descriptors).enumerate() {
            let next = descriptors.get(index + 1);
            let mut flags = if piece.writable { flag::WRITE } else { 0 };
            flags |= if next.is_some() { flag::NEXT } else { 0 };
            flags |= if indirect { flag::INDIRECT } else { 0 };
            // Without NEXT, `next` is something that must not matter.
            self.memory.write(self.address(descriptor), &entry(piece, flags, next.copied().unwrap_or(0xbeef)));
        }
        let head = descriptors[0];
        if self.rules.in_order {
            self.under.push_back(Under::new(head, pieces));
        }
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
        if let Some(completion) = self.collected.pop_front() {
            return Some(completion);
        }
        let index = self.memory.load_u16(self.areas.device + 2, Ordering::Acquire);
        if index == self.next_used {
            return None;
        }
        let element = self.areas.device + 4 + u64::from(self.next_used % self.size) * 8;
        let id = self.memory.load_u32(element, Ordering::Relaxed);
        let len = self.memory.load_u32(element + 4, Ordering::Relaxed);
        self.entries += 1;
        let last = Completion { id: id as u16, len };
        if !self.rules.in_order {
            self.free(last);
            return Some(last);
        }
        // One element for a batch, where that of its first chain would be: the id tells how far it reaches (section 2.7.9).
        for completion in batch(&mut self.under, last) {
            assert!(self.next_used != index, "the batch that ends with {id} is longer than the used index says");
            self.free(completion);
            self.collected.push_back(completion);
        }
        self.collected.pop_front()
    }

    fn free(&mut self, Completion { id, .. }: Completion) {
        let chain = self.chains.get_mut(usize::from(id)).map(std::mem::take).unwrap_or_default();
        assert!(!chain.is_empty(), "the device used descriptor {id}, which is not the head of a chain under way");
        self.next_used = self.next_used.wrapping_add(1);
        self.free.extend(chain);
    }

    /// Where the device says which available index it wants to hear of: behind the used ring (section 2.7.8).
    fn device_event(&self) -> u64 {
        self.areas.device + 4 + u64::from(self.size) * 8
    }

    /// Where the driver says which used index it wants to hear of: behind the available ring (section 2.7.6).
    fn driver_event(&self) -> u64 {
        self.areas.driver + 4 + u64::from(self.size) * 2
    }

    pub(super) fn base(&self) -> u32 {
        u32::from(self.next_used)
    }

    pub(super) fn device_wants_kick(&mut self) -> bool {
        // What was made available must be seen before the device's wish is read (section 2.7.13.3).
        fence(Ordering::SeqCst);
        let mut at = std::mem::replace(&mut self.asked_at, self.next_available);
        if self.rules.event_idx {
            let event = self.memory.load_u16(self.device_event(), Ordering::Acquire);
            let mut reached = false;
            while at != self.next_available {
                reached |= at == event;
                at = at.wrapping_add(1);
            }
            return reached;
        }
        self.memory.load_u16(self.areas.device, Ordering::Acquire) & 1 == 0
    }

    /// With EVENT_IDX an interrupt is wanted for the chain that is used after `skip` chains more.
    pub(super) fn set_interrupts(&self, wanted: bool, skip: u16) {
        if self.rules.event_idx {
            // What is not wanted is one that has just passed.
            let event = if wanted { self.next_used.wrapping_add(skip) } else { self.next_used.wrapping_sub(1) };
            self.memory.store_u16(self.driver_event(), event, Ordering::Release);
            return fence(Ordering::SeqCst);
        }
        self.memory.store_u16(self.areas.driver, u16::from(!wanted), Ordering::Release);
        fence(Ordering::SeqCst);
    }
}
