//! The first stages of the walk: each frame's head, read once, what is asked for it, its key; and how much of a burst one visit
//! takes.

use super::hand_off::HEADER_LEN;
use crate::account::{DropCounters, DropReason};
use crate::flow::{Candidates, FlowKey, FlowView};
use crate::guest::ring::{BURST, ChainList};
use crate::guest::{FRAME_LEN_MAX, FrameHead, set_bits};
use crate::packet::{Abilities, ETHERNET_HEADER_LEN, EthernetHeader, NetHeader, Offload, packet_len};

/// Bytes that the frames of one visit may have, counted once for each receiver; a single frame may always pass to one. What
/// is over stays with its sender until the next visit. A burst of 32 frames of 64 KiB would keep the worker from everybody
/// else for a quarter of a millisecond, and flooded to a hundred ports for a hundred times as long.
pub(super) const VISIT_BYTES_MAX: u64 = 256 * 1024;

/// What a segment costs beside its payload, in bytes that could be copied instead.
const SEGMENT_COST: u64 = 256;

/// What stands before each frame in its buffers, and who says what is asked for it.
pub(super) trait Front {
    /// Bytes before the frame.
    fn len(&self) -> usize;
    /// What is asked for frame `index`, of `len` bytes, if anything may be.
    fn asked(&self, index: usize, head: &FrameHead, len: usize) -> Option<NetHeader>;
}

/// A guest's virtio-net header, of so many bytes.
#[derive(Clone, Copy)]
pub(super) struct VirtioNet(pub(super) usize);

impl Front for VirtioNet {
    #[inline(always)]
    fn len(&self) -> usize {
        self.0
    }

    #[inline(always)]
    fn asked(&self, _index: usize, head: &FrameHead, _len: usize) -> Option<NetHeader> {
        head.asks_for_offload(self.0).then(|| head.net_header(self.0))
    }
}

/// What the walk leaves between its stages; reused, so that nothing is allocated.
pub(super) struct Scratch {
    pub(super) heads: [FrameHead; BURST],
    pub(super) lens: [u32; BURST],
    pub(super) keys: [FlowKey; BURST],
    pub(super) hashes: [u64; BURST],
    pub(super) candidates: [Candidates; BURST],
    /// Number of the output port of a frame that is forwarded.
    pub(super) outputs: [u16; BURST],
    /// What is asked for a frame.
    pub(super) offloads: [Offload; BURST],
    /// Why a frame goes nowhere.
    pub(super) reasons: [DropReason; BURST],
}

impl Scratch {
    pub(super) fn new() -> Box<Self> {
        Box::new(Self {
            heads: [FrameHead::EMPTY; BURST],
            lens: [0; BURST],
            keys: [FlowKey::default(); BURST],
            hashes: [0; BURST],
            candidates: [Candidates::default(); BURST],
            outputs: [0; BURST],
            offloads: [Offload::NONE; BURST],
            reasons: [DropReason::Runt; BURST],
        })
    }
}

/// What reading the heads of a burst gave.
pub(super) struct Heads {
    /// Frames of the burst that this visit takes.
    pub(super) taken: usize,
    /// Of them, those that may go on.
    pub(super) good: u32,
    /// Those for which something is asked.
    pub(super) asking: u32,
    /// Bytes of all frames.
    pub(super) bytes: u64,
    /// What segments cost beside that.
    pub(super) extra: u64,
    /// Bytes of the longest frame that may go on; of one that is to be segmented, its longest segment's.
    pub(super) longest: u32,
}

/// The first `count` frames.
#[inline(always)]
pub(super) fn first(count: usize) -> u32 {
    if count >= BURST { u32::MAX } else { (1 << count) - 1 }
}

impl Scratch {
    /// Reads each frame's head, once, and makes its key; asks for the flow table's buckets.
    #[inline(always)]
    pub(super) fn read_heads(
        &mut self,
        list: &ChainList<'_>,
        front: &impl Front,
        limits: (Abilities, u16),
        port: u16,
        flows: FlowView<'_>,
    ) -> Heads {
        let Self { heads, lens, keys, hashes, offloads, reasons, .. } = self;
        let ((may, mtu), header_len) = (limits, front.len());
        let mut read = Heads { taken: list.chains.len(), good: 0, asking: 0, bytes: 0, extra: 0, longest: 0 };
        let untagged_max = ETHERNET_HEADER_LEN as u32 + u32::from(mtu);
        let frames = heads.iter_mut().zip(lens).zip(keys.iter_mut().zip(hashes)).zip(reasons);
        for (index, (chain, (((head, frame_len), (key, hash)), reason))) in list.chains.iter().zip(frames).enumerate() {
            let len = chain.len.saturating_sub(header_len as u32);
            read.bytes += u64::from(len);
            *frame_len = len;
            if (len as usize) < ETHERNET_HEADER_LEN || len > FRAME_LEN_MAX {
                *reason = if len > FRAME_LEN_MAX { DropReason::Oversized } else { DropReason::Runt };
                continue;
            }
            if chain.is_single() {
                head.read(chain.first, header_len);
            } else {
                head.gather(list.segments(chain), header_len);
            }
            let mut longest = len;
            if let Some(header) = front.asked(index, head, len as usize) {
                match asked(header, head, len as usize, may) {
                    Ok(None) => {}
                    Ok(Some((offload, cost))) => {
                        longest = offload.longest(len);
                        offloads[index] = offload;
                        read.asking |= 1 << index;
                        read.extra += cost;
                    }
                    Err(why) => {
                        *reason = why;
                        continue;
                    }
                }
            }
            if longest > untagged_max && packet_len(head.frame(len as usize), longest as usize) > usize::from(mtu) {
                *reason = DropReason::MtuExceeded;
                continue;
            }
            let Some(header) = EthernetHeader::parse(head.frame(len as usize)) else { continue };
            if !header.source.is_valid_source() {
                *reason = DropReason::InvalidSource;
                continue;
            }
            *key = FlowKey::new(port, &header);
            *hash = flows.hash(*key);
            read.longest = longest.max(read.longest);
            read.good |= 1 << index;
        }
        read
    }

    /// Reads the heads of frames that another worker handed over. For which something is asked, how long the longest is, and
    /// how many this visit takes.
    pub(super) fn read_handed(&mut self, list: &ChainList<'_>) -> (u32, u32, usize) {
        let Self { heads, lens, offloads, .. } = self;
        let (mut asking, mut longest, mut spent) = (0, 0, 0);
        for (index, (chain, (head, frame_len))) in list.chains.iter().zip(heads.iter_mut().zip(lens)).enumerate() {
            let len = chain.len.saturating_sub(HEADER_LEN as u32);
            *frame_len = len;
            spent += u64::from(len);
            head.read(chain.first, HEADER_LEN);
            let mut frame_longest = len;
            // What that worker has written here was checked by it: it is all possible.
            let header = head.net_header(HEADER_LEN);
            if let Ok(Some((offload, cost))) = asked(header, head, len as usize, Abilities::all()) {
                frame_longest = offload.longest(len);
                offloads[index] = offload;
                asking |= 1 << index;
                spent += cost;
            }
            longest = frame_longest.max(longest);
            if spent > VISIT_BYTES_MAX && index > 0 {
                return (asking, longest, index);
            }
        }
        (asking, longest, list.chains.len())
    }

    /// What bringing a frame to one receiver costs at most, in bytes that could be copied instead.
    pub(super) fn cost(&self, read: &Heads, index: usize) -> u64 {
        cost(read.asking, &self.offloads, &self.lens, index)
    }

    /// Takes no more of the burst's `count` frames than one visit may.
    #[cold]
    pub(super) fn afford(&self, read: &mut Heads, count: usize) {
        let mut spent = 0;
        for index in set_bits(read.good & first(count)) {
            spent += self.cost(read, index);
            if spent > VISIT_BYTES_MAX && index > 0 {
                read.taken = index;
                read.good &= first(index);
                return;
            }
        }
    }

    /// Counts the frames of a burst that are no good.
    #[cold]
    pub(super) fn count_dropped(&self, read: &Heads, dropped: &DropCounters) {
        for index in set_bits(first(read.taken) & !read.good) {
            dropped.add(self.reasons[index], 1);
        }
    }
}

/// What bringing a frame to one receiver costs at most, in bytes that could be copied instead.
pub(super) fn cost(asking: u32, offloads: &[Offload; BURST], lens: &[u32; BURST], index: usize) -> u64 {
    let segments = if asking >> index & 1 != 0 { extra_cost(&offloads[index], lens[index]) } else { 0 };
    u64::from(lens[index]) + segments
}

/// What is asked for a frame, and what that costs.
fn asked(
    header: NetHeader,
    head: &FrameHead,
    len: usize,
    may: Abilities,
) -> Result<Option<(Offload, u64)>, DropReason> {
    let offload = Offload::asked(header, head.frame(len), len, may)?;
    Ok(offload.map(|offload| (offload, extra_cost(&offload, len as u32))))
}

/// What the segments of a frame cost, beside its bytes, if it is to be cut.
fn extra_cost(offload: &Offload, len: u32) -> u64 {
    offload.segments(len as usize) as u64 * SEGMENT_COST
}
