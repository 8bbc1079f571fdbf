//! A virtqueue from the driver's side: makes chains of buffers available and collects used ones. What does not depend on the
//! layout is here.

use std::collections::VecDeque;
use std::sync::Arc;

use super::front_end::feature;
use super::memory::DriverMemory;
use super::packed::PackedQueue;
use super::split::SplitQueue;

/// Descriptor flags that both layouts share (virtio 1.2, sections 2.7.5 and 2.8.13).
pub mod flag {
    /// The chain goes on.
    pub const NEXT: u16 = 1;
    /// The device may write.
    pub const WRITE: u16 = 2;
    /// The buffer is a table of descriptors.
    pub const INDIRECT: u16 = 4;
}

/// How a virtqueue lies in memory.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Layout {
    /// virtio 1.2, section 2.8.
    Packed,
    /// virtio 1.2, section 2.7.
    Split,
}

/// What was negotiated of a virtqueue beside its layout.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Rules {
    /// VIRTIO_RING_F_EVENT_IDX
    pub event_idx: bool,
    /// VIRTIO_F_IN_ORDER
    pub in_order: bool,
}

impl Rules {
    /// Those of a guest with these feature bits.
    #[must_use]
    pub fn of(features: u64) -> Self {
        Self { event_idx: features & feature::EVENT_IDX != 0, in_order: features & feature::IN_ORDER != 0 }
    }
}

/// A chain under way that is to come back in order.
#[derive(Clone, Copy, Debug)]
pub(super) struct Under {
    id: u16,
    writable: u32,
}

impl Under {
    pub(super) fn new(id: u16, pieces: &[Piece]) -> Self {
        Self { id, writable: pieces.iter().filter(|piece| piece.writable).map(|piece| piece.len).sum() }
    }
}

/// What one used entry with the id of the last chain acknowledges. A chain that was skipped counts as wholly written.
pub(super) fn batch(under: &mut VecDeque<Under>, last: Completion) -> Vec<Completion> {
    let length = under.iter().position(|chain| chain.id == last.id);
    let length = length.unwrap_or_else(|| panic!("the device used buffer id {}, which is not under way", last.id));
    let skipped = under.drain(..length).map(|chain| Completion { id: chain.id, len: chain.writable });
    let mut batch: Vec<_> = skipped.collect();
    under.pop_front();
    batch.push(last);
    batch
}

/// Where the areas of a virtqueue are, in guest physical addresses.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Areas {
    /// The descriptors.
    pub descriptors: u64,
    /// What the driver writes: the available ring, or its event structure.
    pub driver: u64,
    /// What the device writes: the used ring, or its event structure.
    pub device: u64,
}

/// One buffer of a chain.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Piece {
    /// Guest physical address.
    pub address: u64,
    /// Bytes.
    pub len: u32,
    /// Whether the device may write there.
    pub writable: bool,
}

/// A descriptor as a hostile driver writes it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct RawDescriptor {
    /// Guest physical address, or not.
    pub address: u64,
    /// Bytes.
    pub len: u32,
    /// Its flags; on a packed ring those for available and used are added.
    pub flags: u16,
    /// On a split ring, the descriptor after it; if not said, the one that is written next.
    pub next: Option<u16>,
}

/// A used chain.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Completion {
    /// The buffer id that [`Queue::add`] gave.
    pub id: u16,
    /// Bytes that the device says it wrote.
    pub len: u32,
}

#[derive(Debug)]
enum Ring {
    Packed(PackedQueue),
    Split(SplitQueue),
}

/// A virtqueue, seen by its driver.
#[derive(Debug)]
pub struct Queue {
    memory: Arc<DriverMemory>,
    ring: Ring,
    areas: Areas,
    size: u16,
    /// By id: the indirect table of a chain under way, its address and length.
    tables: Vec<Option<(u64, u64)>>,
}

impl Queue {
    /// An empty virtqueue of `size` descriptors that stands at `base`, as SET_VRING_BASE encodes it; see
    /// [`Queue::fresh_base`].
    ///
    /// # Panics
    /// If the memory has no room for it.
    #[must_use]
    pub fn new(layout: Layout, size: u16, base: u32, memory: &Arc<DriverMemory>) -> Self {
        Self::with(Rules::default(), layout, size, base, memory)
    }

    /// As [`Queue::new`], with these rules.
    ///
    /// # Panics
    /// If the memory has no room for it.
    #[must_use]
    pub fn with(rules: Rules, layout: Layout, size: u16, base: u32, memory: &Arc<DriverMemory>) -> Self {
        let slots = u64::from(size);
        let (driver_len, device_len) = match layout {
            Layout::Packed => (4, 4),
            Layout::Split => (6 + slots * 2, 6 + slots * 8),
        };
        let areas = Areas {
            descriptors: memory.alloc(slots * 16, 16),
            driver: memory.alloc(driver_len, 4),
            device: memory.alloc(device_len, 4),
        };
        let ring = match layout {
            Layout::Packed => Ring::Packed(PackedQueue::new(areas, size, base, rules, memory.clone())),
            Layout::Split => Ring::Split(SplitQueue::new(areas, size, base, rules, memory.clone())),
        };
        Self { memory: memory.clone(), ring, areas, size, tables: vec![None; usize::from(size)] }
    }

    /// Where a virtqueue stands that was never used: on a packed ring both wrap counters start at 1.
    #[must_use]
    pub fn fresh_base(layout: Layout) -> u32 {
        match layout {
            Layout::Packed => 0x8000_8000,
            Layout::Split => 0,
        }
    }

    /// Where it lies.
    #[must_use]
    pub fn areas(&self) -> Areas {
        self.areas
    }

    /// Descriptors.
    #[must_use]
    pub fn size(&self) -> u16 {
        self.size
    }

    /// Chains of one descriptor that could be added now.
    #[must_use]
    pub fn room(&self) -> u16 {
        match &self.ring {
            Ring::Packed(ring) => ring.room(),
            Ring::Split(ring) => ring.room(),
        }
    }

    /// Makes a chain available, its descriptors in the ring or in an indirect table, its head last. Its buffer id, or
    /// `None` if the ring has no room.
    ///
    /// # Panics
    /// If there are no pieces.
    pub fn add(&mut self, pieces: &[Piece], indirect: bool) -> Option<u16> {
        assert!(!pieces.is_empty(), "a chain has at least one descriptor");
        if !indirect {
            return match &mut self.ring {
                Ring::Packed(ring) => ring.add(pieces, false),
                Ring::Split(ring) => ring.add(pieces, false),
            };
        }
        if self.room() == 0 {
            return None;
        }
        let len = pieces.len() as u64 * 16;
        let table = self.memory.alloc(len, 16);
        for (index, piece) in pieces.iter().enumerate() {
            let last = index + 1 == pieces.len();
            let bytes = match &self.ring {
                Ring::Packed(_) => packed_entry(piece),
                Ring::Split(_) => split_entry(piece, (!last).then_some(index as u16 + 1)),
            };
            self.memory.write(table + index as u64 * 16, &bytes);
        }
        let piece = Piece { address: table, len: len as u32, writable: false };
        let id = match &mut self.ring {
            Ring::Packed(ring) => ring.add(&[piece], true),
            Ring::Split(ring) => ring.add(&[piece], true),
        }?;
        self.tables[usize::from(id)] = Some((table, len));
        Some(id)
    }

    /// Makes descriptors available as they are, whatever they say: on a packed ring from the next slot on, on a split one
    /// from descriptor 0 on, which is the head.
    pub fn add_raw(&mut self, descriptors: &[RawDescriptor]) {
        match &mut self.ring {
            Ring::Packed(ring) => ring.add_raw(descriptors),
            Ring::Split(ring) => ring.add_raw(descriptors),
        }
    }

    /// Writes these as an indirect table of this layout, and nothing makes it available: its address and bytes.
    #[must_use]
    pub fn write_table(&self, descriptors: &[RawDescriptor]) -> (u64, u32) {
        let len = descriptors.len() as u64 * 16;
        let table = self.memory.alloc(len.max(16), 16);
        for (index, raw) in (0..).zip(descriptors) {
            let piece = Piece { address: raw.address, len: raw.len, writable: false };
            let bytes = match &self.ring {
                Ring::Packed(_) => entry(&piece, 0, raw.flags),
                Ring::Split(_) => entry(&piece, raw.flags, raw.next.unwrap_or(index + 1)),
            };
            self.memory.write(table + u64::from(index) * 16, &bytes);
        }
        (table, len as u32)
    }

    /// The next used chain, if the device has used one.
    ///
    /// # Panics
    /// If the device uses a chain that it was never given.
    pub fn used(&mut self) -> Option<Completion> {
        let completion = match &mut self.ring {
            Ring::Packed(ring) => ring.used(),
            Ring::Split(ring) => ring.used(),
        }?;
        if let Some((table, len)) = self.tables[usize::from(completion.id)].take() {
            self.memory.dealloc(table, len);
        }
        Some(completion)
    }

    /// Where the driver stands with what it has collected, as GET_VRING_BASE would encode it.
    #[must_use]
    pub fn base(&self) -> u32 {
        match &self.ring {
            Ring::Packed(ring) => ring.base(),
            Ring::Split(ring) => ring.base(),
        }
    }

    /// Goes on in other memory, which holds the same.
    pub fn set_memory(&mut self, memory: &Arc<DriverMemory>) {
        self.memory = memory.clone();
        match &mut self.ring {
            Ring::Packed(ring) => ring.memory = memory.clone(),
            Ring::Split(ring) => ring.memory = memory.clone(),
        }
    }

    /// Used entries that the device has written and the driver has seen: fewer than chains if they came in batches.
    #[must_use]
    pub fn used_entries(&self) -> u64 {
        match &self.ring {
            Ring::Packed(ring) => ring.entries,
            Ring::Split(ring) => ring.entries,
        }
    }

    /// Whether the device wants to be kicked for what was made available since this was last asked.
    #[must_use]
    pub fn device_wants_kick(&mut self) -> bool {
        match &mut self.ring {
            Ring::Packed(ring) => ring.device_wants_kick(),
            Ring::Split(ring) => ring.device_wants_kick(),
        }
    }

    /// Whether the driver wants interrupts, with EVENT_IDX one for the next chain that is used. After asking, look once more.
    pub fn set_interrupts(&self, wanted: bool) {
        match &self.ring {
            Ring::Packed(ring) => ring.set_interrupts(wanted, 0),
            Ring::Split(ring) => ring.set_interrupts(wanted, 0),
        }
    }

    /// With EVENT_IDX: the driver wants an interrupt once `skip` slots (on a split ring: chains) and one more are used.
    pub fn set_interrupt_after(&self, skip: u16) {
        match &self.ring {
            Ring::Packed(ring) => ring.set_interrupts(true, skip),
            Ring::Split(ring) => ring.set_interrupts(true, skip),
        }
    }
}

/// An entry of a packed ring's indirect table (section 2.8.7). Buffer id and the flag for the next are reserved there, so
/// they are something that must not matter.
fn packed_entry(piece: &Piece) -> [u8; 16] {
    let flags = if piece.writable { flag::WRITE } else { 0 };
    entry(piece, 0xbeef, flags)
}

/// An entry of a split ring's indirect table (section 2.7.5.3).
fn split_entry(piece: &Piece, next: Option<u16>) -> [u8; 16] {
    let flags = if piece.writable { flag::WRITE } else { 0 } | if next.is_some() { flag::NEXT } else { 0 };
    entry(piece, flags, next.unwrap_or(0xbeef))
}

pub(super) fn entry(piece: &Piece, first: u16, second: u16) -> [u8; 16] {
    let mut bytes = [0; 16];
    bytes[..8].copy_from_slice(&piece.address.to_le_bytes());
    bytes[8..12].copy_from_slice(&piece.len.to_le_bytes());
    bytes[12..14].copy_from_slice(&first.to_le_bytes());
    bytes[14..].copy_from_slice(&second.to_le_bytes());
    bytes
}
