//! A driver that changes descriptors, lengths, ids, indirect tables, event structures and headers at random, while the device
//! looks at them. Mostly it writes what could be, so that the device gets far before it finds what cannot.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use super::memory::DriverMemory;
use super::queue::{Areas, Layout, Queue, flag};

/// Entries of the indirect table.
const TABLE_LEN: u64 = 64;

/// Bytes of the buffer that most descriptors lead to.
const BUFFER_LEN: u64 = 4096;

/// Numbers that are random enough, the same each time.
#[derive(Clone, Debug)]
pub struct Random(u64);

impl Random {
    /// Begins with `seed`.
    #[must_use]
    pub fn new(seed: u64) -> Self {
        Self(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1)
    }

    /// Any number.
    pub fn any(&mut self) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0
    }

    /// A number below `end`.
    pub fn below(&mut self, end: u64) -> u64 {
        (self.any() >> 16) % end
    }
}

/// A ring that is scribbled on.
#[derive(Debug)]
pub struct Scribbler {
    memory: Arc<DriverMemory>,
    layout: Layout,
    size: u64,
    areas: Areas,
    /// The flag that a buffer of this ring is to have.
    right: u16,
    buffer: u64,
    table: u64,
    random: Random,
}

impl Scribbler {
    /// For `queue`, whose buffers the device writes if `writable`.
    ///
    /// # Panics
    /// If the memory has no room for a buffer and a table.
    #[must_use]
    pub fn new(queue: &Queue, layout: Layout, writable: bool, memory: &Arc<DriverMemory>, seed: u64) -> Self {
        let scribbler = Self {
            memory: memory.clone(),
            layout,
            size: queue.size().into(),
            areas: queue.areas(),
            right: if writable { flag::WRITE } else { 0 },
            buffer: memory.alloc(BUFFER_LEN, 64),
            table: memory.alloc(TABLE_LEN * 16, 16),
            random: Random::new(seed),
        };
        // Frames that look like some: from a station of its own, to everybody and to nobody in particular.
        for at in (0..BUFFER_LEN).step_by(64) {
            memory.write(scribbler.buffer + at, &[0; 12]);
            memory.write(
                scribbler.buffer + at + 12,
                &[0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0x02, 0, 0, 0xbd, 0, at as u8],
            );
        }
        scribbler
    }

    /// Changes something.
    pub fn scribble(&mut self) {
        let slot = self.areas.descriptors + self.random.below(self.size) * 16;
        let entry = self.table + self.random.below(TABLE_LEN) * 16;
        match self.random.below(16) {
            0..4 => self.address(slot),
            4..9 => self.rest(slot),
            9 => self.address(entry),
            10..12 => self.rest(entry),
            12..15 => {
                // Mostly zeros, as a header without offloads has them.
                let word = if self.random.below(8) == 0 { self.random.any() } else { 0 };
                let at = self.buffer + self.random.below(64) * 64 + self.random.below(2) * 8;
                self.memory.store_u64(at, word, Ordering::Relaxed);
            }
            _ if self.random.below(16) == 0 => {
                // What it wants to hear of.
                let word = self.random.any() as u16;
                let at = self.areas.driver + if self.layout == Layout::Packed { self.random.below(2) * 2 } else { 0 };
                self.memory.store_u16(at, word, Ordering::Relaxed);
            }
            _ => {}
        }
        if self.layout == Layout::Split && self.random.below(64) == 0 {
            self.offer();
        }
    }

    /// Puts a head into a split ring's available ring, and moves the index by as much as it likes.
    fn offer(&mut self) {
        let driver = self.areas.driver;
        let head = driver + 4 + self.random.below(self.size) * 2;
        self.memory.store_u16(head, self.random.below(self.size) as u16, Ordering::Relaxed);
        let index = self.memory.load_u16(driver + 2, Ordering::Relaxed);
        let step = if self.random.below(4096) == 0 { self.random.any() as u16 } else { self.random.below(4) as u16 };
        self.memory.store_u16(driver + 2, index.wrapping_add(step), Ordering::Release);
    }

    /// The first word of a descriptor: an address as it should be, mostly, else one at an edge, or any.
    fn address(&mut self, descriptor: u64) {
        let edges = || self.memory.regions().flat_map(|(span, _)| [span.guest, span.guest + span.len]);
        let address = match self.random.below(1024) {
            0 => self.random.any(),
            1 => 0,
            2..6 => {
                let edge = edges().nth(self.random.below(4) as usize).unwrap_or(0);
                edge.wrapping_add(self.random.below(64)).wrapping_sub(32)
            }
            6..16 => self.areas.descriptors + self.random.below(64),
            16..60 => self.table,
            _ => self.buffer + self.random.below(32) * 64,
        };
        self.memory.store_u64(descriptor, address, Ordering::Relaxed);
    }

    /// The second word of a descriptor: length, and flags with id or next.
    fn rest(&mut self, descriptor: u64) {
        let random = &mut self.random;
        let (mut len, mut flags) = (random.below(2000) as u32, self.right);
        match random.below(1024) {
            0 => len = random.any() as u32,
            1 => flags ^= flag::WRITE,
            2..12 => (len, flags) = (random.below(TABLE_LEN + 2) as u32 * 16, flag::INDIRECT),
            12..15 => flags |= random.any() as u16 & 7,
            15..200 => flags |= flag::NEXT,
            _ => {}
        }
        let other = random.below(self.size + 1);
        let [low, high] = match self.layout {
            Layout::Packed => [other, u64::from(flags) | [1 << 7, 1 << 15][random.below(2) as usize]],
            Layout::Split => [u64::from(flags), other],
        };
        self.memory.store_u64(descriptor + 8, u64::from(len) | low << 32 | high << 48, Ordering::Release);
    }
}
