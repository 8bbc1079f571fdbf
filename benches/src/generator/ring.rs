//! Packed virtqueues (virtio 1.2, section 2.8) whose descriptors never change but for their flags: each slot has a buffer of
//! its own, and the device uses them in order.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use ringway_testbed::driver::queue::flag;
use ringway_testbed::driver::{Layout, Queue, Window};

use ringway_testbed::driver::DriverMemory;

const AVAIL: u16 = 1 << 7;
const USED: u16 = 1 << 15;

/// The second half of a descriptor: length, id and flags.
const SECOND: usize = 8;
const DESCRIPTOR: usize = 16;

/// Where a slot is, and the wrap counter there.
#[derive(Debug, Clone, Copy)]
struct At {
    slot: u16,
    wrap: bool,
}

impl At {
    fn next(self, size: u16) -> Self {
        if self.slot + 1 < size { Self { slot: self.slot + 1, ..self } } else { Self { slot: 0, wrap: !self.wrap } }
    }
}

/// A virtqueue with its buffers.
#[derive(Debug)]
pub(super) struct Ring {
    /// As the front end has to speak of it.
    pub(super) queue: Queue,
    /// Its descriptors.
    descriptors: Window,
    /// Its buffers, one behind the other.
    buffers: Window,
    stride: usize,
    size: u16,
    /// Bytes to offer, and flags.
    len: u32,
    flags: u16,
    /// The next to be made available, and the next to be used.
    available: At,
    used: At,
    /// Slots that the device does not have.
    free: u16,
}

impl Ring {
    /// A ring of `size` slots with buffers of `stride` bytes, none of them available yet.
    pub(super) fn new(memory: &Arc<DriverMemory>, size: u16, stride: usize, writable: bool) -> Self {
        let queue = Queue::new(Layout::Packed, size, Queue::fresh_base(Layout::Packed), memory);
        let at = queue.areas().descriptors;
        let descriptors = Window::new(memory, at, usize::from(size) * DESCRIPTOR);
        let start = memory.alloc(u64::from(size) * stride as u64, 64);
        let buffers = Window::new(memory, start, usize::from(size) * stride);
        for slot in 0..usize::from(size) {
            descriptors.store(slot * DESCRIPTOR, start + (slot * stride) as u64, Ordering::Relaxed);
        }
        queue.set_interrupts(false);
        let first = At { slot: 0, wrap: true };
        let flags = if writable { flag::WRITE } else { 0 };
        let (len, free) = (stride as u32, size);
        Self { queue, descriptors, buffers, stride, size, len, flags, available: first, used: first, free }
    }

    /// Slots that could be made available.
    pub(super) fn free(&self) -> u16 {
        self.free
    }

    pub(super) fn size(&self) -> u16 {
        self.size
    }

    /// Whether the device has none.
    pub(super) fn is_empty(&self) -> bool {
        self.free == self.size
    }

    /// Bytes to offer from now on.
    pub(super) fn set_len(&mut self, len: usize) {
        self.len = len as u32;
    }

    /// Writes into the buffer of slot `slot`.
    pub(super) fn fill(&self, slot: u16, offset: usize, bytes: &[u8]) {
        self.buffers.write(usize::from(slot) * self.stride + offset, bytes);
    }

    /// Writes into the next buffer, at `offset`, and makes it available.
    #[inline]
    pub(super) fn offer(&mut self, offset: usize, bytes: &[u8]) {
        let At { slot, wrap } = self.available;
        if !bytes.is_empty() {
            self.fill(slot, offset, bytes);
        }
        let flags = self.flags | if wrap { AVAIL } else { USED };
        let word = u64::from(self.len) | u64::from(slot) << 32 | u64::from(flags) << 48;
        self.descriptors.store(usize::from(slot) * DESCRIPTOR + SECOND, word, Ordering::Release);
        self.available = self.available.next(self.size);
        self.free -= 1;
    }

    /// The slot that the device has used next, if it has: it is free again.
    #[inline]
    pub(super) fn take_used(&mut self) -> Option<u16> {
        if self.is_empty() {
            return None;
        }
        let At { slot, wrap } = self.used;
        let word = self.descriptors.load(usize::from(slot) * DESCRIPTOR + SECOND, Ordering::Acquire);
        let (id, flags) = ((word >> 32) as u16, (word >> 48) as u16);
        if (flags & AVAIL != 0) != wrap || (flags & USED != 0) != wrap {
            return None;
        }
        assert_eq!(id, slot, "the switch uses buffers out of order");
        self.used = self.used.next(self.size);
        self.free += 1;
        Some(slot)
    }

    /// The word at `offset` of the buffer of `slot`.
    #[inline]
    pub(super) fn word(&self, slot: u16, offset: usize) -> u64 {
        self.buffers.load(usize::from(slot) * self.stride + offset, Ordering::Relaxed)
    }
}

#[cfg(test)]
mod tests {
    use ringway_testbed::driver::Span;

    use super::*;

    #[test]
    fn slots_come_back_in_order_and_wrap() {
        let memory = Arc::new(DriverMemory::new(&[Span::new(0x1000, 0x1_0000)]).unwrap());
        let mut ring = Ring::new(&memory, 3, 64, false);
        let mut wrap = true;
        for _ in 0..4 {
            for slot in 0..3 {
                ring.offer(8, b"x");
                assert_eq!(ring.take_used(), None);
                // As a device does.
                let at = usize::from(slot) * DESCRIPTOR + SECOND;
                let word = ring.descriptors.load(at, Ordering::Relaxed);
                let flags = if wrap { AVAIL } else { USED };
                assert_eq!(word, 64 | u64::from(slot) << 32 | u64::from(flags) << 48);
                let used = if wrap { AVAIL | USED } else { 0 };
                ring.descriptors.store(at, u64::from(slot) << 32 | u64::from(used) << 48, Ordering::Relaxed);
                assert_eq!((ring.take_used(), ring.free()), (Some(slot), 3));
                assert_eq!(ring.word(slot, 8), u64::from(b'x'));
            }
            wrap = !wrap;
        }
    }
}
