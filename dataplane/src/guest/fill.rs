//! Filling a receiveq's buffers, whatever their shapes: several for a frame, or of several pieces, and more than one list
//! of chains holds.

use arrayvec::ArrayVec;

use super::cursor::Room;
use super::finish::{Short, Sink};
use super::memory::GuestMemory;
use super::ring::{CHAINS_MAX, ChainList, Ring, SEGMENTS_MAX, Used};
use crate::packet::NetHeader;

/// Chains that were filled and not yet published.
pub(super) type UsedList = ArrayVec<Used, CHAINS_MAX>;

/// Descriptors that may be walked for each frame that was delivered, over those of one list of chains.
const WALKED_PER_FRAME: usize = 8;

/// A receiveq, and the chains of it that are at hand.
pub(super) struct Filler<'a, 'm> {
    ring: &'a mut Ring,
    memory: &'m GuestMemory,
    room: &'a mut ChainList<'m>,
    used: &'a mut UsedList,
    /// Bytes of the virtio-net header, and whether a frame may take several chains.
    header_len: usize,
    mergeable: bool,
    /// Descriptors that were walked for lists before this one, and how many may be.
    walked: usize,
    walked_max: usize,
    /// Some buffers were published under way.
    pub(super) published: bool,
}

impl<'a, 'm> Filler<'a, 'm> {
    /// Goes on behind the chains of `room` that are in `used`.
    pub(super) fn new(
        ring: &'a mut Ring,
        memory: &'m GuestMemory,
        room: &'a mut ChainList<'m>,
        used: &'a mut UsedList,
        (header_len, mergeable): (usize, bool),
    ) -> Self {
        Self { ring, memory, room, used, header_len, mergeable, walked: 0, walked_max: SEGMENTS_MAX, published: false }
    }

    /// How many of the next chains hold `need` bytes; takes more from the ring as needed.
    fn claim(&mut self, need: u32) -> Result<usize, Short> {
        let claimed = self.reserve(need);
        if claimed != Err(Short::Empty) || self.used.is_empty() || self.walked + self.room.walked() >= self.walked_max {
            return claimed;
        }
        // Perhaps only our lists are full: empty them and look again, as long as one burst may work.
        self.walked += self.room.walked();
        self.ring.publish(self.used.iter().copied());
        self.ring.rewind();
        self.published = true;
        self.used.clear();
        self.room.clear();
        self.reserve(need)
    }

    fn reserve(&mut self, need: u32) -> Result<usize, Short> {
        let Self { ring, memory, room, used, mergeable, .. } = self;
        let (mut have, mut count, mut want) = (0u32, 0, 1);
        while have < need {
            if used.len() + count >= room.chains.len() {
                if room.chains.is_full() {
                    // All that a list holds. With a list of its own, the frame may find enough.
                    return Err(if used.is_empty() { Short::TooSmall } else { Short::Empty });
                }
                ring.take(memory, want, room);
            }
            let chain = room.chains.get(used.len() + count).ok_or(Short::Empty)?;
            have = u32::saturating_add(have, chain.len);
            count += 1;
            if !*mergeable && have < need {
                return Err(Short::TooSmall);
            }
            // The others are likely to be of the same size.
            want = (need.saturating_sub(have) / chain.len.max(1)) as usize + 1;
        }
        Ok(count)
    }

    /// The next `count` chains, as claimed.
    fn room(&self, count: usize) -> Room<'_, 'm> {
        let chains = self.room.chains.get(self.used.len()..self.used.len() + count).unwrap_or(&[]);
        Room::new(self.room, chains)
    }

    /// The next `count` chains hold `len` bytes now.
    fn filled(&mut self, count: usize, len: u32) {
        let mut left = len;
        for chain in self.room.chains.iter().skip(self.used.len()).take(count) {
            let len = left.min(chain.len);
            left -= len;
            // It fits: a list has no more chains.
            let _ = self.used.try_push(Used { len, id: chain.id, slots: chain.slots });
        }
        self.walked_max += WALKED_PER_FRAME;
    }
}

impl Sink for Filler<'_, '_> {
    fn fill(
        &mut self,
        len: u32,
        header: NetHeader,
        _head: &[u8],
        write: impl FnOnce(Room<'_, '_>) -> usize,
    ) -> Result<usize, Short> {
        let need = len + self.header_len as u32;
        let count = self.claim(need)?;
        let mut room = self.room(count);
        room.write(header.to_bytes(count as u16).get(..self.header_len).unwrap_or(&[]));
        let copied = write(room);
        self.filled(count, need);
        Ok(copied)
    }
}
