//! Frames that leave a port with another tag than they came with: their private heads once more, rewritten for that port. The
//! rest of them still goes straight from the sender's buffers.

use ringway_config::Vlan;

use crate::guest::ring::BURST;
use crate::guest::{FrameHead, Frames, set_bits};
use crate::packet::{Offload, Retag, Tag};

/// Room for a burst.
pub(super) struct Retagged {
    heads: [FrameHead; BURST],
    lens: [u32; BURST],
    offloads: [Offload; BURST],
    growths: [i8; BURST],
}

impl Retagged {
    pub(super) fn new() -> Box<Self> {
        Box::new(Self {
            heads: [FrameHead::EMPTY; BURST],
            lens: [0; BURST],
            offloads: [Offload::NONE; BURST],
            growths: [0; BURST],
        })
    }

    /// The frames of `group`, of these VLANs, as they leave by a port in `mode`, and those of them that may not.
    #[inline(never)]
    pub(super) fn make<'a, 'm>(
        &'a mut self,
        frames: Frames<'a, 'm>,
        group: u32,
        mode: &Vlan,
        vlans: &[u16; BURST],
    ) -> (Frames<'a, 'm>, u32) {
        let (mut refused, mut changed, mut longest) = (0, false, frames.longest);
        let rooms = self.heads.iter_mut().zip(&mut self.lens).zip(self.offloads.iter_mut().zip(&mut self.growths));
        for (index, ((head, len), (offload, growth))) in rooms.enumerate() {
            if group >> index & 1 == 0 {
                continue;
            }
            let Some(retag) = Retag::to_leave(mode, vlans[index], Tag::of(frames.head(index))) else {
                refused |= 1 << index;
                continue;
            };
            changed |= retag != Retag::Keep;
            head.retag(&frames.heads[index], retag);
            *growth = retag.growth();
            *len = frames.lens[index].saturating_add_signed((*growth).into());
            longest = longest.max(frames.longest.saturating_add_signed((*growth).into()));
            if frames.asking >> index & 1 != 0 {
                *offload = frames.offloads[index].grown(*growth);
            }
        }
        if !changed {
            return (frames, refused);
        }
        let Self { heads, lens, offloads, growths } = self;
        (Frames { heads, lens, offloads, growths: Some(growths), longest, ..frames }, refused)
    }
}

/// Those of `group` that are of a VLAN which the port takes part in.
pub(super) fn members(group: u32, mode: &Vlan, vlans: &[u16; BURST]) -> u32 {
    set_bits(group).filter(|&index| mode.contains(vlans[index])).fold(0, |members, index| members | 1 << index)
}
