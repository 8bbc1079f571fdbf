//! The driver's side of a packed virtqueue (virtio 1.2, section 2.8).

use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::atomic::{Ordering, fence};

use super::memory::DriverMemory;
use super::queue::{Areas, Completion, Piece, RawDescriptor, Rules, Under, batch, entry, flag};

const AVAIL: u16 = 1 << 7;
const USED: u16 = 1 << 15;

/// Offset of the flags in a descriptor.
const FLAGS: u64 = 14;

/// A slot and the wrap counter there.
#[derive(Clone, Copy, Debug)]
struct At {
    slot: u16,
    wrap: bool,
}

impl At {
    fn of(bits: u16) -> Self {
        Self { slot: bits & 0x7fff, wrap: bits >> 15 != 0 }
    }

    fn bits(self) -> u16 {
        self.slot | u16::from(self.wrap) << 15
    }

    fn plus(self, slots: u16, size: u16) -> Self {
        let slot = u32::from(self.slot) + u32::from(slots);
        let size = u32::from(size);
        if slot < size {
            Self { slot: slot as u16, ..self }
        } else {
            Self { slot: (slot - size) as u16, wrap: !self.wrap }
        }
    }

    /// Flags that make a descriptor here available (section 2.8.1).
    fn available(self) -> u16 {
        if self.wrap { AVAIL } else { USED }
    }
}

#[derive(Debug)]
pub(super) struct PackedQueue {
    pub(super) memory: Arc<DriverMemory>,
    areas: Areas,
    size: u16,
    rules: Rules,
    next_available: At,
    next_used: At,
    room: u16,
    /// Ids that no chain has; the last one freed is taken first, so that ids are no slots.
    free_ids: Vec<u16>,
    /// By id: slots that the chain takes, 0 if there is none.
    slots: Vec<u16>,
    /// Where the driver stood when it last asked whether to kick.
    asked_at: At,
    /// With IN_ORDER: chains under way, in order; and those used that nobody has collected.
    under: VecDeque<Under>,
    collected: VecDeque<Completion>,
    /// Used descriptors seen.
    pub(super) entries: u64,
}

impl PackedQueue {
    pub(super) fn new(areas: Areas, size: u16, base: u32, rules: Rules, memory: Arc<DriverMemory>) -> Self {
        let at = At::of(base as u16);
        // Whatever the wrap counter, nothing may look available yet: the slots before `at` were passed in this lap, the
        // others in the one before.
        for slot in 0..size {
            let passed = if (slot < at.slot) == at.wrap { AVAIL | USED } else { 0 };
            memory.store_u16(areas.descriptors + u64::from(slot) * 16 + FLAGS, passed, Ordering::Relaxed);
        }
        Self {
            memory,
            areas,
            size,
            rules,
            next_available: at,
            next_used: at,
            room: size,
            free_ids: (0..size).collect(),
            slots: vec![0; usize::from(size)],
            asked_at: at,
            under: VecDeque::new(),
            collected: VecDeque::new(),
            entries: 0,
        }
    }

    pub(super) fn room(&self) -> u16 {
        self.room
    }

    fn address(&self, at: At) -> u64 {
        self.areas.descriptors + u64::from(at.slot) * 16
    }

    pub(super) fn add(&mut self, pieces: &[Piece], indirect: bool) -> Option<u16> {
        let count = u16::try_from(pieces.len()).ok().filter(|&count| count <= self.room)?;
        let id = self.free_ids.pop()?;
        let head = self.next_available;
        let mut head_flags = 0;
        let mut at = head;
        for (index, piece) in (1..).zip(pieces) {
            let mut flags = at.available();
            flags |= if piece.writable { flag::WRITE } else { 0 };
            flags |= if index < count { flag::NEXT } else { 0 };
            flags |= if indirect { flag::INDIRECT } else { 0 };
            // The id counts in the last descriptor only (section 2.8.6); elsewhere it is something that must not matter.
            let id = if index == count { id } else { !id };
            let bytes = entry(piece, id, flags);
            if index == 1 {
                head_flags = flags;
                self.memory.write(self.address(at), &bytes[..FLAGS as usize]);
            } else {
                self.memory.write(self.address(at), &bytes);
            }
            at = at.plus(1, self.size);
        }
        self.memory.store_u16(self.address(head) + FLAGS, head_flags, Ordering::Release);
        self.next_available = at;
        self.room -= count;
        self.slots[usize::from(id)] = count;
        if self.rules.in_order {
            self.under.push_back(Under::new(id, pieces));
        }
        Some(id)
    }

    pub(super) fn add_raw(&mut self, descriptors: &[RawDescriptor]) {
        let mut writes = Vec::new();
        let mut at = self.next_available;
        for raw in descriptors {
            let piece = Piece { address: raw.address, len: raw.len, writable: false };
            writes.push((self.address(at), entry(&piece, 0, at.available() | raw.flags)));
            at = at.plus(1, self.size);
        }
        for (address, bytes) in writes.into_iter().rev() {
            self.memory.write(address, &bytes[..FLAGS as usize]);
            let flags = u16::from_le_bytes([bytes[14], bytes[15]]);
            self.memory.store_u16(address + FLAGS, flags, Ordering::Release);
        }
        self.next_available = at;
    }

    pub(super) fn used(&mut self) -> Option<Completion> {
        if let Some(completion) = self.collected.pop_front() {
            return Some(completion);
        }
        let word = self.memory.load_u64(self.address(self.next_used) + 8, Ordering::Acquire);
        let [len, id, flags] = [word as u32, (word >> 32) as u16 as u32, (word >> 48) as u16 as u32];
        let (id, flags) = (id as u16, flags as u16);
        let (avail, used) = (flags & AVAIL != 0, flags & USED != 0);
        if avail != used || used != self.next_used.wrap {
            return None;
        }
        self.entries += 1;
        let last = Completion { id, len };
        if !self.rules.in_order {
            self.free(last);
            return Some(last);
        }
        // One used descriptor for a batch: the id tells how far it reaches (section 2.8.10).
        for completion in batch(&mut self.under, last) {
            self.free(completion);
            self.collected.push_back(completion);
        }
        self.collected.pop_front()
    }

    fn free(&mut self, Completion { id, .. }: Completion) {
        let slots = self.slots.get_mut(usize::from(id)).map_or(0, std::mem::take);
        assert!(slots != 0, "the device used buffer id {id}, which is not under way");
        self.next_used = self.next_used.plus(slots, self.size);
        self.room += slots;
        self.free_ids.push(id);
    }

    pub(super) fn base(&self) -> u32 {
        let bits = u32::from(self.next_used.bits());
        bits | bits << 16
    }

    pub(super) fn device_wants_kick(&mut self) -> bool {
        // What was made available must be seen before the device's wish is read (section 2.8.21.3.1).
        fence(Ordering::SeqCst);
        let event = self.memory.load_u32(self.areas.device, Ordering::Acquire);
        let mut at = std::mem::replace(&mut self.asked_at, self.next_available);
        match (event >> 16) & 3 {
            0 => true,
            1 => false,
            2 if self.rules.event_idx => {
                // At the slot that it names, with that wrap counter (section 2.8.14), and at no other.
                let mut reached = false;
                while at.bits() != self.next_available.bits() {
                    reached |= at.bits() == event as u16;
                    at = at.plus(1, self.size);
                }
                reached
            }
            flags => panic!("the device's event flags are {flags}"),
        }
    }

    /// With EVENT_IDX an interrupt is wanted for the chain that is used after `skip` slots more.
    pub(super) fn set_interrupts(&self, wanted: bool, skip: u16) {
        let flags = match (wanted, self.rules.event_idx) {
            (false, _) => 1,
            (true, false) => 0,
            (true, true) => {
                let event = self.next_used.plus(skip, self.size).bits();
                self.memory.store_u16(self.areas.driver, event, Ordering::Relaxed);
                2
            }
        };
        self.memory.store_u16(self.areas.driver + 2, flags, Ordering::Release);
        fence(Ordering::SeqCst);
    }
}
