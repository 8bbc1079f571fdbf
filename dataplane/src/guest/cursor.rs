//! Two ends of a copy that neither fit one buffer: a frame, read from its private head on into the sender's buffers, and a
//! receiver's buffers, written one after the other.

use std::slice::Iter;

use super::deliver::Frames;
use super::frame::HEAD_LEN;
use super::memory::Segment;
use super::ring::{Chain, ChainList};
use crate::packet::InternetSum;

/// A receiver's buffers, from some byte on.
#[derive(Clone, Debug)]
pub struct Room<'a, 'r> {
    list: Option<&'a ChainList<'r>>,
    chains: Iter<'a, Chain<'r>>,
    pieces: Iter<'a, Segment<'r>>,
    at: Option<Segment<'r>>,
}

impl<'a, 'r> Room<'a, 'r> {
    /// All of `chains`, which are of `list`.
    pub(super) fn new(list: &'a ChainList<'r>, chains: &'a [Chain<'r>]) -> Self {
        Self { list: Some(list), chains: chains.iter(), pieces: [].iter(), at: None }
    }

    /// All of `pieces`, in order.
    #[must_use]
    pub fn of_pieces(pieces: &'a [Segment<'r>]) -> Self {
        Self { list: None, chains: [].iter(), pieces: pieces.iter(), at: None }
    }

    /// What is left of the piece that comes next; never an empty one.
    fn piece(&mut self) -> Option<Segment<'r>> {
        loop {
            if let Some(piece) = self.at.filter(|piece| !piece.is_empty()) {
                return Some(piece);
            }
            self.at = self.pieces.next().copied();
            if self.at.is_none() {
                self.pieces = self.list?.segments(self.chains.next()?).iter();
            }
        }
    }

    /// Goes `count` bytes on in the piece that [`Room::piece`] gave.
    fn advance(&mut self, count: usize) {
        self.at = self.at.map(|piece| piece.from_offset(count));
    }

    /// Goes `count` bytes on.
    pub(super) fn skip(&mut self, mut count: usize) {
        while let Some(piece) = self.piece().filter(|_| count > 0) {
            let step = piece.len().min(count);
            self.advance(step);
            count -= step;
        }
    }

    /// Writes `bytes`, as far as there is room; how many.
    pub(super) fn write(&mut self, mut bytes: &[u8]) -> usize {
        let mut written = 0;
        while let Some(piece) = self.piece().filter(|_| !bytes.is_empty()) {
            let count = piece.write(bytes);
            self.advance(count);
            bytes = bytes.get(count..).unwrap_or(&[]);
            written += count;
        }
        written
    }
}

/// A frame, from some byte on.
pub(super) struct Source<'a, 'm> {
    head: &'a [u8],
    pieces: Iter<'a, Segment<'m>>,
    at: Option<Segment<'m>>,
    /// Bytes of the sender's buffers that are not to be read: its virtio-net header, and what the head is a copy of.
    hidden: usize,
}

impl<'a, 'm> Source<'a, 'm> {
    /// Frame `index` from its byte `from` on, which must lie in its head.
    pub(super) fn new(frames: Frames<'a, 'm>, index: usize, from: usize) -> Self {
        let len = frames.lens[index] as usize;
        let pieces = frames.list.chains.get(index).filter(|_| len > HEAD_LEN);
        Self {
            head: frames.heads[index].frame(len).get(from..).unwrap_or(&[]),
            pieces: pieces.map_or([].iter(), |chain| frames.list.segments(chain).iter()),
            at: None,
            hidden: frames.header_len + HEAD_LEN,
        }
    }

    /// What is left of the sender's buffer that comes next; never an empty one.
    fn piece(&mut self) -> Option<Segment<'m>> {
        loop {
            if let Some(piece) = self.at.filter(|piece| !piece.is_empty()) {
                return Some(piece);
            }
            let piece = *self.pieces.next()?;
            let rest = piece.from_offset(self.hidden);
            self.hidden -= self.hidden.min(piece.len());
            self.at = Some(rest);
        }
    }

    /// Copies the next `len` bytes, as far as both ends go; how many. Goes on with `sum` over them if there is one.
    pub(super) fn copy(&mut self, to: &mut Room<'_, '_>, len: usize, mut sum: Option<&mut InternetSum>) -> usize {
        let mut left = len;
        while left > 0 {
            let Some(room) = to.piece() else { break };
            let count = if self.head.is_empty() {
                let Some(piece) = self.piece() else { break };
                let from = piece.until(left);
                let count = match &mut sum {
                    None => from.copy_to(room),
                    Some(sum) => from.copy_summed(room, sum),
                };
                self.at = Some(piece.from_offset(count));
                count
            } else {
                let bytes = self.head.get(..left).unwrap_or(self.head);
                let count = room.write(bytes);
                if let (Some(sum), Some(bytes)) = (&mut sum, bytes.get(..count)) {
                    sum.add(bytes);
                }
                self.head = self.head.get(count..).unwrap_or(&[]);
                count
            };
            to.advance(count);
            left -= count;
        }
        len - left
    }

    /// Leaves out the next `len` bytes.
    pub(super) fn skip(&mut self, len: usize) {
        let mut left = len.saturating_sub(self.head.len());
        self.head = self.head.get(len..).unwrap_or(&[]);
        while left > 0 {
            let Some(piece) = self.piece() else { break };
            let count = piece.len().min(left);
            self.at = Some(piece.from_offset(count));
            left -= count;
        }
    }
}
