//! The packed layout (virtio 1.2, section 2.8): one ring of descriptors that driver and device both write, told
//! apart by two flag bits against a wrap counter.

#![expect(unsafe_code, reason = "makes the views of shared ring memory")]

use std::sync::atomic::Ordering;

use super::super::features::Features;
use super::super::memory::GuestMemory;
use super::chain::{Built, Chain, ChainBuilder, ChainList, Descriptor, Stop, flag};
use super::shared::SharedWords;
use super::{Direction, RING_SIZE_MAX, RingAddress, RingError, RingFault, Used, area};

/// Set by the driver to its wrap counter when it makes a descriptor available (section 2.8.1).
const AVAIL: u16 = 1 << 7;
/// Set by the device to its wrap counter when it uses one; the driver sets it to the inverse.
const USED: u16 = 1 << 15;

/// Values of an event structure's flags (section 2.8.14).
const EVENTS_ENABLE: u16 = 0;
const EVENTS_DISABLE: u16 = 1;
/// Only with EVENT_IDX: on reaching the slot and wrap counter that the structure names.
const EVENTS_DESC: u16 = 2;

/// A slot of the ring and the wrap counter on arriving there.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Position {
    index: u16,
    wrap: bool,
}

impl Position {
    /// Bits 0 to 14 the index, bit 15 the wrap counter, as vhost-user encodes half of a packed base.
    fn from_bits(bits: u16) -> Self {
        Self { index: bits & 0x7fff, wrap: bits & 0x8000 != 0 }
    }

    fn bits(self) -> u16 {
        self.index | u16::from(self.wrap) << 15
    }

    #[inline(always)]
    fn advance(&mut self, slots: u16, size: u16) {
        // slots <= size <= 32768, so the sum fits.
        self.index += slots;
        if self.index >= size {
            self.index -= size;
            self.wrap = !self.wrap;
        }
    }

    /// Its place on the circle of two laps, after which positions repeat.
    #[inline(always)]
    fn place(self, size: u16) -> u32 {
        u32::from(self.index) + if self.wrap { 0 } else { u32::from(size) }
    }
}

/// A packed virtqueue.
#[derive(Debug)]
pub struct PackedRing {
    /// Two words a descriptor: the address; length, id and flags.
    descriptors: SharedWords<u64>,
    /// What the driver wants to hear: a position below, flags above; one word, so that they belong together.
    driver_event: SharedWords<u32>,
    /// What we want to hear: a position, flags.
    device_event: SharedWords<u16>,
    size: u16,
    direction: Direction,
    event_idx: bool,
    /// One used descriptor acknowledges all that is published together.
    batches: bool,
    /// The next chain to take.
    take_at: Position,
    /// The next chain to publish; equal to `take_at` between bursts.
    publish_at: Position,
    /// Slots published since it was last decided whether to interrupt.
    undecided: u32,
    region_hint: usize,
}

impl PackedRing {
    pub(super) fn new(
        features: Features,
        direction: Direction,
        address: RingAddress,
        base: u32,
        memory: &GuestMemory,
    ) -> Result<Self, RingError> {
        let size = address.size;
        // The available half; the used half is the same between bursts, and some front ends leave it zero.
        let position = Position::from_bits(base as u16);
        if size == 0 || size > RING_SIZE_MAX {
            return Err(RingError::Size(size));
        }
        if position.index >= size {
            return Err(RingError::Base { index: position.index, size });
        }
        let slots = usize::from(size);
        let descriptors = area(memory, "descriptor", address.descriptors, slots * 16, 16)?;
        let driver = area(memory, "driver", address.driver, 4, 4)?;
        let device = area(memory, "device", address.device, 4, 4)?;
        // SAFETY: each area was checked to be inside the memory whose table the ring keeps, and to be aligned.
        let (descriptors, driver_event, device_event) = unsafe {
            (SharedWords::new(descriptors, slots * 2), SharedWords::new(driver, 1), SharedWords::new(device, 2))
        };
        Ok(Self {
            descriptors,
            driver_event,
            device_event,
            size,
            direction,
            event_idx: features.contains(Features::EVENT_IDX),
            batches: features.contains(Features::IN_ORDER) && direction == Direction::Readable,
            take_at: position,
            publish_at: position,
            undecided: 0,
            region_hint: 0,
        })
    }

    /// The descriptor at `at` if it is available. Length, id and flags are one word, loaded once with
    /// Acquire: what the driver wrote before its flags is seen with them.
    #[inline(always)]
    fn available(&self, at: Position) -> Option<Descriptor> {
        let slot = usize::from(at.index) * 2;
        let rest = self.descriptors.load(slot + 1, Ordering::Acquire);
        let expected = if at.wrap { AVAIL } else { USED };
        if (rest >> 48) as u16 & (AVAIL | USED) != expected {
            return None;
        }
        Some(Descriptor::from_words(self.descriptors.load(slot, Ordering::Relaxed), rest))
    }

    #[inline]
    pub(super) fn take<'m>(
        &mut self,
        memory: &'m GuestMemory,
        want: usize,
        list: &mut ChainList<'m>,
    ) -> Result<(), RingFault> {
        let plain = if self.direction == Direction::Writable { flag::WRITE } else { 0 };
        let mut at = self.take_at;
        for _ in 0..want {
            let Some(descriptor) = self.available(at) else { break };
            let [id, flags] = descriptor.tail;
            if flags & (flag::NEXT | flag::WRITE | flag::INDIRECT) == plain
                && let Some(segment) = memory.segment(&mut self.region_hint, descriptor.address, descriptor.len)
            {
                match self.direction {
                    Direction::Readable => segment.prefetch(),
                    Direction::Writable => segment.prefetch_room(),
                }
                if list.chains.try_push(Chain::single(segment, id)).is_err() {
                    break;
                }
                at.advance(1, self.size);
            } else {
                match self.take_chain(memory, at, descriptor, list) {
                    Ok(Some(slots)) => at.advance(slots, self.size),
                    Ok(None) => break,
                    Err(fault) => {
                        self.take_at = at;
                        return Err(fault);
                    }
                }
            }
        }
        self.take_at = at;
        Ok(())
    }

    /// A chain of several descriptors, an indirect table, or a buffer across regions. Its slots, or `None` if the list
    /// has no room for it.
    #[cold]
    fn take_chain<'m>(
        &self,
        memory: &'m GuestMemory,
        at: Position,
        head: Descriptor,
        list: &mut ChainList<'m>,
    ) -> Result<Option<u16>, RingFault> {
        let mut builder = list.builder(memory, self.direction);
        let (built, slots) = match self.gather(&mut builder, at, head) {
            Ok((id, slots)) => (builder.finish(id, slots)?, slots),
            Err(stop) => (builder.give_up(stop)?, 0),
        };
        Ok(match built {
            Built::Taken => Some(slots),
            Built::NoRoom => None,
        })
    }

    /// The chain's id, which counts only in its last descriptor (section 2.8.6), and its slots.
    fn gather(
        &self,
        builder: &mut ChainBuilder<'_, '_>,
        mut at: Position,
        head: Descriptor,
    ) -> Result<(u16, u16), Stop> {
        let mut descriptor = head;
        for slots in 1..=self.size {
            let [id, flags] = descriptor.tail;
            if flags & flag::INDIRECT != 0 {
                // A table is a chain of its own (section 2.8.7).
                if flags & flag::NEXT != 0 || slots != 1 {
                    return Err(RingFault::BadIndirect.into());
                }
                let count = (descriptor.len / Descriptor::LEN) as u16;
                // DPDK's driver leaves WRITE set in the tables of its transmitq; we only read there.
                let ignored = if self.direction == Direction::Readable { flag::WRITE } else { 0 };
                builder.push_indirect(descriptor.address, descriptor.len, self.size, |index, entry| {
                    (entry.tail[1] & !ignored, (index + 1 < count).then_some(index + 1))
                })?;
                return Ok((id, 1));
            }
            builder.push(descriptor.address, descriptor.len, flags & flag::WRITE != 0)?;
            if flags & flag::NEXT == 0 {
                return Ok((id, slots));
            }
            at.advance(1, self.size);
            // The driver made the rest of the chain ready before its head (section 2.8.21).
            let slot = usize::from(at.index) * 2;
            let rest = self.descriptors.load(slot + 1, Ordering::Relaxed);
            descriptor = Descriptor::from_words(self.descriptors.load(slot, Ordering::Relaxed), rest);
        }
        Err(RingFault::ChainTooLong.into())
    }

    /// Writes a used descriptor for each chain at its first slot and skips the rest (section 2.8.9). The first is
    /// written last, with Release: until then the driver, who looks there, sees none of them.
    #[inline]
    pub(super) fn publish(&mut self, mut used: impl Iterator<Item = Used>) {
        let Some(first) = used.next() else { return };
        let head = self.publish_at;
        let mut at = head;
        at.advance(first.slots, self.size);
        if self.batches {
            // With the id of the last, at the slot where the driver looks (section 2.8.10).
            let mut last = first;
            for element in used {
                at.advance(element.slots, self.size);
                last = element;
            }
            self.store_used(head, &last, Ordering::Release);
        } else {
            for element in used {
                self.store_used(at, &element, Ordering::Relaxed);
                at.advance(element.slots, self.size);
            }
            self.store_used(head, &first, Ordering::Release);
        }
        self.publish_at = at;
        let lap = if at.wrap == head.wrap { 0 } else { u32::from(self.size) };
        let slots = (u32::from(at.index) + lap).wrapping_sub(head.index.into());
        self.undecided = self.undecided.saturating_add(slots);
    }

    #[inline(always)]
    fn store_used(&self, at: Position, used: &Used, order: Ordering) {
        // WRITE says that the length counts (section 2.8.13).
        let written = if self.direction == Direction::Writable { flag::WRITE } else { 0 };
        let flags = if at.wrap { AVAIL | USED | written } else { written };
        let word = u64::from(used.len) | u64::from(used.id) << 32 | u64::from(flags) << 48;
        self.descriptors.store(usize::from(at.index) * 2 + 1, word, order);
    }

    #[inline]
    pub(super) fn rewind(&mut self) {
        self.take_at = self.publish_at;
    }

    pub(super) fn has_available(&self) -> bool {
        self.available(self.take_at).is_some()
    }

    /// Whatever is taken: whether the slot published last is available again, behind all others; or, with EVENT_IDX, the driver asks
    /// to hear of the next one, which it does when it has found none.
    pub(super) fn is_drained(&self) -> bool {
        let event = self.driver_event.load(0, Ordering::Relaxed);
        let mut last = self.publish_at;
        last.advance(self.size - 1, self.size);
        let waits = self.event_idx && (event >> 16) as u16 & 3 == EVENTS_DESC;
        waits && Position::from_bits(event as u16) == self.publish_at || self.available(last).is_some()
    }

    /// With EVENT_IDX, by position: a driver that makes more chains available before we are awake need not kick for each.
    pub(super) fn set_kicks(&mut self, wanted: bool) {
        let flags = match (wanted, self.event_idx) {
            (false, _) => EVENTS_DISABLE,
            (true, false) => EVENTS_ENABLE,
            (true, true) => {
                self.device_event.store(0, self.take_at.bits(), Ordering::Relaxed);
                EVENTS_DESC
            }
        };
        self.device_event.store(1, flags, Ordering::Release);
    }

    #[inline]
    pub(super) fn wants_interrupt(&mut self) -> bool {
        let published = std::mem::take(&mut self.undecided);
        let event = self.driver_event.load(0, Ordering::Relaxed);
        match (event >> 16) as u16 & 3 {
            EVENTS_DISABLE => false,
            EVENTS_DESC if self.event_idx => self.has_passed(Position::from_bits(event as u16), published),
            _ => true,
        }
    }

    /// Whether `event` is one of the last `published` positions. When in doubt it is: one interrupt too many does no harm.
    fn has_passed(&self, event: Position, published: u32) -> bool {
        let circle = 2 * u32::from(self.size);
        if event.index >= self.size || published >= circle {
            return true;
        }
        let behind = (circle + self.publish_at.place(self.size) - event.place(self.size)) % circle;
        (1..=published).contains(&behind)
    }

    /// Bits 0 to 15 the available half, 16 to 31 the used half.
    pub(super) fn base(&self) -> u32 {
        let bits = u32::from(self.publish_at.bits());
        bits | bits << 16
    }

    pub(super) fn size(&self) -> u16 {
        self.size
    }
}
