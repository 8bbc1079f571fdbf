//! The first stages of the walk: each frame's head, read once, what is asked for it, its key; and how much of a burst one visit
//! takes.

use super::hand_off::HEADER_LEN;
use super::retag::Retagged;
use super::steering::Spread;
use crate::account::{DropCounters, DropReason};
use crate::cpu::timestamp;
use crate::flow::{Candidates, FlowKey, FlowView};
use crate::guest::ring::{BURST, ChainList, Unread};
use crate::guest::{FRAME_LEN_MAX, FrameHead, set_bits};
use crate::packet::{Abilities, ETHERNET_HEADER_LEN, EthernetHeader, NetHeader, Offload, packet_len};
use crate::policy::PortRules;

/// Bytes that the frames of one visit may have, counted once for each receiver; a single frame may always pass to one. What
/// is over stays with its sender until the next visit. A burst of 32 frames of 64 KiB would keep the worker from everybody
/// else for a quarter of a millisecond, and flooded to a hundred ports for a hundred times as long.
pub(super) const VISIT_BYTES_MAX: u64 = 256 * 1024;

/// What a segment costs beside its payload, in bytes that could be copied instead.
const SEGMENT_COST: u64 = 256;

/// What each copy of a flooded frame costs beside its bytes, in bytes that could be copied instead: every receiver's ring is
/// another one.
pub(super) const COPY_COST: u64 = 512;

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
    /// The VLAN of a frame; only on a bridge that has some.
    pub(super) vlans: [u16; BURST],
    pub(super) retagged: Box<Retagged>,
    /// Flows, where a guest with several pairs sends or receives.
    pub(super) spread: Spread,
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
            vlans: [0; BURST],
            retagged: Retagged::new(),
            spread: Spread::new(),
        })
    }
}

/// What reading the heads of a burst gave.
#[derive(Default)]
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
    /// Frames that were decided anew, and whether there were more than one visit may.
    pub(super) misses: u64,
    pub(super) misses_left: bool,
}

/// The first `count` frames.
#[inline(always)]
pub(super) fn first(count: usize) -> u32 {
    if count >= BURST { u32::MAX } else { (1 << count) - 1 }
}

impl Scratch {
    /// Reads each frame's head, once, and makes its key; asks for the flow table's buckets.
    #[inline(always)]
    pub(super) fn read_heads<'a, 'm>(
        &mut self,
        unread: Unread<'a, 'm>,
        front: &impl Front,
        limits: (Abilities, u16),
        port: u16,
        flows: FlowView<'_>,
    ) -> (Heads, &'a ChainList<'m>) {
        let Self { heads, lens, keys, hashes, offloads, reasons, .. } = self;
        let ((may, mtu), header_len) = (limits, front.len());
        let mut read = Heads { taken: unread.len(), ..Heads::default() };
        let untagged_max = ETHERNET_HEADER_LEN as u32 + u32::from(mtu);
        let mut frames = lens.iter_mut().zip(keys.iter_mut().zip(hashes)).zip(reasons);
        let list = unread.read_heads(header_len, heads, |index, head, chain_len| {
            let Some(((frame_len, (key, hash)), reason)) = frames.next() else { return };
            let len = chain_len.saturating_sub(header_len as u32);
            read.bytes += u64::from(len);
            *frame_len = len;
            if (len as usize) < ETHERNET_HEADER_LEN || len > FRAME_LEN_MAX {
                *reason = if len > FRAME_LEN_MAX { DropReason::Oversized } else { DropReason::Runt };
                return;
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
                        return;
                    }
                }
            }
            if longest > untagged_max && packet_len(head.frame(len as usize), longest as usize) > usize::from(mtu) {
                *reason = DropReason::MtuExceeded;
                return;
            }
            let Some(header) = EthernetHeader::parse(head.frame(len as usize)) else {
                *reason = DropReason::Runt;
                return;
            };
            if !header.source.is_valid_source() {
                *reason = DropReason::InvalidSource;
                return;
            }
            *key = FlowKey::new(port, &header);
            *hash = flows.hash(*key);
            read.longest = longest.max(read.longest);
            read.good |= 1 << index;
        });
        (read, list)
    }

    /// Asks those rules of the port that hold for each frame, not for each flow.
    /// What goes on being flooded was counted when that began.
    #[cold]
    pub(super) fn judge(&mut self, read: &mut Heads, rules: &PortRules, goes_on: bool) {
        let Self { heads, lens, reasons, .. } = self;
        if let Some(guard) = &rules.guard {
            for index in set_bits(read.good) {
                let len = lens[index] as usize;
                if let Err(why) = guard.judge(heads[index].frame(len), len) {
                    reasons[index] = why;
                    read.good &= !(1 << index);
                }
            }
        }
        if let Some(limit) = rules.limit_in.as_ref().filter(|_| !goes_on) {
            let pass = limit.take_each(timestamp(), read.good, |index| self.size(read, index));
            for index in set_bits(read.good & !pass) {
                self.reasons[index] = DropReason::RateLimitIn;
            }
            read.good = pass;
        }
    }

    /// Gives back what [`Scratch::judge`] took for frames of `judged` that this visit does not take after all.
    #[cold]
    pub(super) fn unjudge(&self, read: &Heads, judged: u32, rules: &PortRules) {
        if let Some(limit) = &rules.limit_in {
            let sizes = set_bits(judged & !first(read.taken)).map(|index| self.size(read, index));
            limit.give_back(sizes.map(|(len, segments)| limit.cost(len, segments)).sum());
        }
    }

    /// Bytes of a frame, and segments that it may fall into.
    fn size(&self, read: &Heads, index: usize) -> (u32, usize) {
        let len = self.lens[index];
        let asks = read.asking >> index & 1 != 0;
        (len, if asks { self.offloads[index].segments(len as usize) } else { 0 })
    }

    /// Finds the VLAN of each frame that goes on.
    #[cold]
    pub(super) fn find_vlans(&mut self, frames: u32, rules: &PortRules) {
        for index in set_bits(frames) {
            // A frame that may not come in was dropped when its flow was decided.
            self.vlans[index] = rules.vlan.of_received(self.keys[index].vlan()).unwrap_or(0);
        }
    }

    /// Reads the heads of frames that another worker handed over. For which something is asked, how long the longest is, and
    /// how many this visit takes.
    pub(super) fn read_handed<'a, 'm>(&mut self, unread: Unread<'a, 'm>) -> (u32, u32, usize, &'a ChainList<'m>) {
        let Self { heads, lens, offloads, .. } = self;
        let (mut asking, mut longest, mut spent, mut count) = (0, 0, 0, 0);
        let list = unread.read_heads(HEADER_LEN, heads, |index, head, chain_len| {
            if spent > VISIT_BYTES_MAX {
                return;
            }
            let len = chain_len.saturating_sub(HEADER_LEN as u32);
            lens[index] = len;
            spent += u64::from(len);
            // What that worker has written here was checked by it: it is all possible.
            let offload = asked(head.net_header(HEADER_LEN), head, len as usize, Abilities::all());
            let offload = offload.ok().flatten();
            spent += offload.map_or(0, |(_, cost)| cost);
            if spent > VISIT_BYTES_MAX && index > 0 {
                return;
            }
            if let Some((offload, _)) = offload {
                offloads[index] = offload;
                asking |= 1 << index;
            }
            longest = longest.max(offload.map_or(len, |(offload, _)| offload.longest(len)));
            count = index + 1;
        });
        (asking, longest, count, list)
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
