//! The split layout (virtio 1.2, section 2.7): a descriptor table, a ring of available chain heads that only
//! the driver writes, and a ring of used ones that only the device writes.

#![expect(unsafe_code, reason = "makes the views of shared ring memory")]

use std::sync::atomic::Ordering;

use super::super::features::Features;
use super::super::memory::GuestMemory;
use super::chain::{Built, Chain, ChainBuilder, ChainList, Descriptor, Stop, flag};
use super::shared::SharedWords;
use super::{Direction, RING_SIZE_MAX, RingAddress, RingError, RingFault, Used, area};

/// In the available ring's flags: do not interrupt (section 2.7.7).
const NO_INTERRUPT: u16 = 1;
/// In the used ring's flags: do not kick (section 2.7.10).
const NO_NOTIFY: u16 = 1;

/// A split virtqueue.
#[derive(Debug)]
pub struct SplitRing {
    /// Two words a descriptor: the address; length, flags and next.
    descriptors: SharedWords<u64>,
    /// Flags, index, then the heads; with EVENT_IDX one word more, the used index that the driver wants to hear of.
    available: SharedWords<u16>,
    /// Flags and index; with EVENT_IDX, behind all elements, the available index that we want to hear of.
    used_header: SharedWords<u16>,
    /// After a word of flags and index, two words an element: id, length.
    used: SharedWords<u32>,
    size: u16,
    direction: Direction,
    event_idx: bool,
    /// One used element acknowledges all that is published together.
    batches: bool,
    /// Index of the next chain to take; runs free over 16 bits.
    take_at: u16,
    /// Index of the next chain to publish; equal to `take_at` between bursts.
    publish_at: u16,
    /// Chains published since it was last decided whether to interrupt.
    undecided: u32,
    region_hint: usize,
}

impl SplitRing {
    pub(super) fn new(
        features: Features,
        direction: Direction,
        address: RingAddress,
        base: u32,
        memory: &GuestMemory,
    ) -> Result<Self, RingError> {
        let size = address.size;
        if !size.is_power_of_two() || size > RING_SIZE_MAX {
            return Err(RingError::Size(size));
        }
        let slots = usize::from(size);
        let descriptors = area(memory, "descriptor", address.descriptors, slots * 16, 16)?;
        let event_idx = features.contains(Features::EVENT_IDX);
        let event = usize::from(event_idx);
        let available = area(memory, "driver", address.driver, 4 + slots * 2 + event * 2, 2)?;
        let used = area(memory, "device", address.device, 4 + slots * 8 + event * 2, 4)?;
        // SAFETY: each area was checked to be inside the memory whose table the ring keeps, and to be aligned.
        let (descriptors, available, used_header, used) = unsafe {
            (
                SharedWords::new(descriptors, slots * 2),
                SharedWords::new(available, 2 + slots + event),
                SharedWords::new(used, 2 + (slots * 4 + 1) * event),
                SharedWords::new(used, 1 + slots * 2),
            )
        };
        let index = base as u16;
        Ok(Self {
            descriptors,
            available,
            used_header,
            used,
            size,
            direction,
            event_idx,
            batches: features.contains(Features::IN_ORDER) && direction == Direction::Readable,
            take_at: index,
            publish_at: index,
            undecided: 0,
            region_hint: 0,
        })
    }

    #[inline(always)]
    fn slot(&self, index: u16) -> usize {
        usize::from(index & (self.size - 1))
    }

    /// How many chains wait; what the driver wrote before its index is seen with it.
    #[inline(always)]
    fn waiting(&self) -> u16 {
        self.available.load(1, Ordering::Acquire).wrapping_sub(self.take_at)
    }

    #[inline(always)]
    fn descriptor(&self, index: u16) -> Result<Descriptor, RingFault> {
        if index >= self.size {
            return Err(RingFault::BadIndex);
        }
        let word = usize::from(index) * 2;
        let rest = self.descriptors.load(word + 1, Ordering::Relaxed);
        Ok(Descriptor::from_words(self.descriptors.load(word, Ordering::Relaxed), rest))
    }

    #[inline]
    pub(super) fn take<'m>(
        &mut self,
        memory: &'m GuestMemory,
        want: usize,
        list: &mut ChainList<'m>,
    ) -> Result<(), RingFault> {
        let mut at = self.take_at;
        let waiting = self.waiting();
        if waiting > self.size {
            return Err(RingFault::AvailableJump);
        }
        let want = want.min(usize::from(waiting));
        for ahead in (0..want as u16).step_by(4) {
            let slot = self.slot(at.wrapping_add(ahead));
            self.descriptors.prefetch(usize::from(self.available.load(2 + slot, Ordering::Relaxed)) * 2);
            self.used.prefetch_write(1 + slot * 2);
        }
        let plain = if self.direction == Direction::Writable { flag::WRITE } else { 0 };
        let taken = (0..want).try_for_each(|_| {
            let head = self.available.load(2 + self.slot(at), Ordering::Relaxed);
            let descriptor = self.descriptor(head).map_err(Stop::Fault)?;
            if descriptor.tail[0] & (flag::NEXT | flag::WRITE | flag::INDIRECT) == plain
                && let Some(segment) = memory.segment(&mut self.region_hint, descriptor.address, descriptor.len)
            {
                match self.direction {
                    Direction::Readable => segment.prefetch(),
                    Direction::Writable => segment.prefetch_room(),
                }
                list.chains.try_push(Chain::single(segment, head)).map_err(|_| Stop::NoRoom)?;
            } else if let Built::NoRoom = self.take_chain(memory, head, descriptor, list)? {
                return Err(Stop::NoRoom);
            }
            at = at.wrapping_add(1);
            Ok(())
        });
        self.take_at = at;
        match taken {
            Err(Stop::Fault(fault)) => Err(fault),
            Ok(()) | Err(Stop::NoRoom) => Ok(()),
        }
    }

    /// A chain of several descriptors, an indirect table, or a buffer across regions.
    #[cold]
    fn take_chain<'m>(
        &self,
        memory: &'m GuestMemory,
        head: u16,
        first: Descriptor,
        list: &mut ChainList<'m>,
    ) -> Result<Built, RingFault> {
        let mut builder = list.builder(memory, self.direction);
        match self.gather(&mut builder, first) {
            Ok(()) => builder.finish(head, 1),
            Err(stop) => builder.give_up(stop),
        }
    }

    fn gather(&self, builder: &mut ChainBuilder<'_, '_>, first: Descriptor) -> Result<(), Stop> {
        let mut descriptor = first;
        for _ in 0..self.size {
            let [flags, next] = descriptor.tail;
            if flags & flag::INDIRECT != 0 {
                // A table may end a chain, but not go on in the ring (section 2.7.5.3.1).
                if flags & flag::NEXT != 0 {
                    return Err(RingFault::BadIndirect.into());
                }
                return builder.push_indirect(descriptor.address, descriptor.len, self.size, |_, entry| {
                    let [flags, next] = entry.tail;
                    (flags, (flags & flag::NEXT != 0).then_some(next))
                });
            }
            builder.push(descriptor.address, descriptor.len, flags & flag::WRITE != 0)?;
            if flags & flag::NEXT == 0 {
                return Ok(());
            }
            descriptor = self.descriptor(next)?;
        }
        Err(RingFault::ChainTooLong.into())
    }

    /// Writes a used element for each chain, then the index, with Release: until then the driver sees none
    /// of them (section 2.7.14).
    #[inline]
    pub(super) fn publish(&mut self, used: impl Iterator<Item = Used>) {
        let mut at = self.publish_at;
        if self.batches {
            // With the id of the last, where the first one's element would be (section 2.7.9).
            let mut last = None;
            for element in used {
                at = at.wrapping_add(1);
                last = Some(element);
            }
            if let Some(last) = last {
                self.store_used(self.publish_at, &last);
            }
        } else {
            for element in used {
                self.store_used(at, &element);
                at = at.wrapping_add(1);
            }
        }
        self.undecided = self.undecided.saturating_add(at.wrapping_sub(self.publish_at).into());
        self.publish_at = at;
        self.used_header.store(1, at, Ordering::Release);
    }

    #[inline(always)]
    fn store_used(&self, at: u16, used: &Used) {
        let word = 1 + self.slot(at) * 2;
        self.used.store(word, u32::from(used.id), Ordering::Relaxed);
        self.used.store(word + 1, used.len, Ordering::Relaxed);
    }

    #[inline]
    pub(super) fn rewind(&mut self) {
        self.take_at = self.publish_at;
    }

    pub(super) fn has_available(&self) -> bool {
        self.waiting() != 0
    }

    /// Whatever is taken: whether as many chains are available as the ring holds; or, with EVENT_IDX, the driver asks to hear of the
    /// next one, which it does when it has found none.
    pub(super) fn is_drained(&self) -> bool {
        let event = self.event_idx.then(|| self.available.load(2 + usize::from(self.size), Ordering::Relaxed));
        let available = self.available.load(1, Ordering::Acquire).wrapping_sub(self.publish_at);
        event == Some(self.publish_at) || available == self.size
    }

    pub(super) fn set_kicks(&mut self, wanted: bool) {
        if self.event_idx {
            // The driver does not look at the flags, which have to be 0, but kicks when it passes this index (section
            // 2.7.10). The one before the next it does not pass again for 65,535 chains.
            let event = if wanted { self.take_at } else { self.take_at.wrapping_sub(1) };
            self.used_header.store(0, 0, Ordering::Relaxed);
            return self.used_header.store(2 + usize::from(self.size) * 4, event, Ordering::Release);
        }
        let flags = if wanted { 0 } else { NO_NOTIFY };
        self.used_header.store(0, flags, Ordering::Release);
    }

    #[inline]
    pub(super) fn wants_interrupt(&mut self) -> bool {
        let published = std::mem::take(&mut self.undecided);
        if self.event_idx {
            // Whether the index that the driver names is one of the last published (section 2.7.7).
            let event = self.available.load(2 + usize::from(self.size), Ordering::Relaxed);
            return u32::from(self.publish_at.wrapping_sub(event).wrapping_sub(1)) < published;
        }
        self.available.load(0, Ordering::Relaxed) & NO_INTERRUPT == 0
    }

    pub(super) fn base(&self) -> u32 {
        u32::from(self.publish_at)
    }

    pub(super) fn size(&self) -> u16 {
        self.size
    }
}
