//! The private part of a frame: its virtio-net header and first bytes, read once. What is decided of the frame is decided from
//! this copy, and this copy is what the receiver gets.

use super::memory::Segment;
use crate::packet::{ETHERTYPE_VLAN, NetHeader, Retag, TAG_LEN};

/// Bytes of a frame that are kept privately: Ethernet, a tag, IPv6, and TCP with all its options.
pub const HEAD_LEN: usize = 128;

/// The longest virtio-net header.
pub(super) const NET_HEADER_MAX: usize = 12;

/// The longest frame: 64 KiB of IP behind an Ethernet header with two tags.
pub const FRAME_LEN_MAX: u32 = 65535 + 14 + 8;

/// Where the frame starts in a [`FrameHead`]; the virtio-net header ends there.
const FRAME_START: usize = 16;

/// Private copy of a virtio-net header and the first [`HEAD_LEN`] bytes of the frame behind it.
#[derive(Clone, Debug)]
#[repr(align(64))]
pub struct FrameHead([u8; FRAME_START + HEAD_LEN]);

impl FrameHead {
    /// Nothing read yet.
    pub const EMPTY: Self = Self([0; FRAME_START + HEAD_LEN]);

    /// Reads the head of a frame that lies in one piece, whose first `header_len` bytes are the virtio-net header. What
    /// the piece does not hold keeps its old bytes.
    #[inline(always)]
    pub(super) fn read(&mut self, piece: Segment<'_>, header_len: usize) {
        // Header and frame apart: a store that starts where the frame does forwards to the loads of its addresses.
        let (header, frame) = self.0.split_at_mut(FRAME_START);
        let header_len = header_len.min(NET_HEADER_MAX);
        piece.read(&mut header[FRAME_START - header_len..]);
        piece.from_offset(header_len).read(frame);
    }

    /// As [`FrameHead::read`], from several pieces.
    #[cold]
    pub(super) fn gather(&mut self, pieces: &[Segment<'_>], header_len: usize) {
        let mut room = self.0.get_mut(FRAME_START - header_len.min(NET_HEADER_MAX)..).unwrap_or(&mut []);
        for piece in pieces {
            let read = piece.read(room);
            room = room.get_mut(read..).unwrap_or(&mut []);
        }
    }

    /// The first `len` bytes of the frame, at most [`HEAD_LEN`].
    #[inline(always)]
    #[must_use]
    pub fn frame(&self, len: usize) -> &[u8] {
        &self.0[FRAME_START..FRAME_START + len.min(HEAD_LEN)]
    }

    /// Makes this the head of the frame that `from` begins, as `retag` leaves it. Of [`FrameHead::grown`], only the frame is
    /// there: the virtio-net header is overwritten.
    pub fn retag(&mut self, from: &Self, retag: Retag) {
        const ADDRESSES: std::ops::Range<usize> = FRAME_START..FRAME_START + 12;
        self.0 = from.0;
        match retag {
            Retag::Keep => {}
            Retag::Push(vlan) => {
                self.0.copy_within(ADDRESSES, FRAME_START - TAG_LEN);
                let [kind, vlan] = [ETHERTYPE_VLAN, vlan].map(u16::to_be_bytes);
                self.0[ADDRESSES.end - TAG_LEN..ADDRESSES.end].copy_from_slice([kind, vlan].as_flattened());
            }
            Retag::Pop => self.0.copy_within(ADDRESSES, FRAME_START + TAG_LEN),
            Retag::Set(vlan) => {
                let [high, low] = vlan.to_be_bytes();
                let control = &mut self.0[ADDRESSES.end + 2..ADDRESSES.end + 4];
                control[0] = control[0] & 0xf0 | high;
                control[1] = low;
            }
        }
    }

    /// As [`FrameHead::frame`], of a frame of `len` bytes that has grown by `growth`, and its head with it.
    #[must_use]
    pub fn grown(&self, len: usize, growth: i8) -> &[u8] {
        let start = FRAME_START.saturating_add_signed(-isize::from(growth));
        self.0.get(start..(start + len).min(FRAME_START + HEAD_LEN)).unwrap_or(&[])
    }

    /// Whether the virtio-net header may ask for anything: `flags` and `gso_type` are its first two bytes (virtio
    /// 1.2, section 5.1.6).
    #[inline(always)]
    #[must_use]
    pub fn asks_for_offload(&self, header_len: usize) -> bool {
        let at = FRAME_START - header_len.min(FRAME_START);
        self.0[at] | self.0[at + 1] != 0
    }

    /// The virtio-net header, which is `header_len` bytes long.
    #[must_use]
    pub fn net_header(&self, header_len: usize) -> NetHeader {
        let at = FRAME_START - header_len.min(FRAME_START);
        NetHeader::from_bytes(self.0.get(at..).and_then(|rest| rest.first_chunk()).copied().unwrap_or_default())
    }
}

impl Default for FrameHead {
    fn default() -> Self {
        Self::EMPTY
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_tag_comes_and_goes() {
        let mut head = FrameHead::EMPTY;
        let frame: Vec<u8> = (0..HEAD_LEN as u8).collect();
        head.0[FRAME_START..].copy_from_slice(&frame);
        let mut other = FrameHead::EMPTY;

        other.retag(&head, Retag::Push(0x123));
        let pushed = [&frame[..12], &[0x81, 0, 0x01, 0x23], &frame[12..]].concat();
        assert_eq!(other.grown(1000, 4), pushed);
        assert_eq!(other.grown(20, 4), &pushed[..20]);

        let mut back = FrameHead::EMPTY;
        other.retag(&head, Retag::Pop);
        assert_eq!(other.grown(1000, -4), [&frame[..12], &frame[16..]].concat());
        assert_eq!(other.grown(20, -4), [&frame[..12], &frame[16..24]].concat());

        back.retag(&head, Retag::Set(0xabc));
        let expected = [&frame[..14], &[frame[14] & 0xf0 | 0xa, 0xbc], &frame[16..]].concat();
        assert_eq!(back.grown(1000, 0), expected);
        back.retag(&head, Retag::Keep);
        assert_eq!(back.grown(1000, 0), frame);
    }
}
