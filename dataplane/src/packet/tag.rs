//! The 802.1Q tag of a frame, and frames that leave with another one than they came with.

use ringway_config::Vlan;

use super::ethernet::{ETHERTYPE_VLAN, be16};

/// Bytes of a tag.
pub const TAG_LEN: usize = 4;

/// The outermost 802.1Q tag. A service tag (802.1ad) is none: what it wraps goes through unseen.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Tag {
    /// Its VLAN; 0 for a tag that only says a priority.
    pub vlan: u16,
    /// Another such tag lies behind it.
    pub wraps_tag: bool,
}

impl Tag {
    /// The tag of the frame that begins with `head`; `None` without one, or if it is cut off.
    #[must_use]
    pub fn of(head: &[u8]) -> Option<Self> {
        if be16(head, 12) != Some(ETHERTYPE_VLAN) {
            return None;
        }
        let (control, inner) = (be16(head, 14)?, be16(head, 16)?);
        Some(Self { vlan: control & 0x0fff, wraps_tag: inner == ETHERTYPE_VLAN })
    }
}

/// What is to be done to a frame's tag.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Retag {
    /// Nothing.
    Keep,
    /// One is put in, of this VLAN and priority 0.
    Push(u16),
    /// The outermost is taken out.
    Pop,
    /// The outermost gets this VLAN, and keeps its priority.
    Set(u16),
}

impl Retag {
    /// What becomes of a frame of VLAN `vlan` (0 for none), which came with `tag`, on a port in `mode`; `None` if it may not go
    /// there.
    ///
    /// In its native VLAN a trunk sends without a tag, but not a frame that has another one inside: whoever gets it would take
    /// that for its VLAN, and so could be sent into any by who chose it. Such a frame keeps its own.
    #[must_use]
    pub fn to_leave(mode: &Vlan, vlan: u16, tag: Option<Tag>) -> Option<Self> {
        let untagged = if tag.is_some() { Self::Pop } else { Self::Keep };
        let tagged = match tag {
            None => Self::Push(vlan),
            Some(tag) if tag.vlan == vlan => Self::Keep,
            Some(_) => Self::Set(vlan),
        };
        match mode {
            Vlan::Transparent => Some(if vlan == 0 { Self::Keep } else { tagged }),
            Vlan::Access(id) => (*id == vlan).then_some(untagged),
            Vlan::Trunk { allowed, native } => allowed.contains(vlan).then(|| {
                let is_bare = *native == Some(vlan) && !tag.is_some_and(|tag| tag.wraps_tag);
                if is_bare { untagged } else { tagged }
            }),
        }
    }

    /// By how many bytes the frame grows.
    #[must_use]
    pub fn growth(self) -> i8 {
        match self {
            Self::Keep | Self::Set(_) => 0,
            Self::Push(_) => TAG_LEN as i8,
            Self::Pop => -(TAG_LEN as i8),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn frame(tags: &[(u16, u16)]) -> Vec<u8> {
        let mut frame = vec![2; 12];
        tags.iter().for_each(|(kind, control)| frame.extend([kind.to_be_bytes(), control.to_be_bytes()].concat()));
        frame.extend([8, 0, 0x45, 0]);
        frame
    }

    #[test]
    fn which_tag_there_is() {
        let tag = |vlan, wraps_tag| Some(Tag { vlan, wraps_tag });
        assert_eq!(Tag::of(&frame(&[])), None);
        assert_eq!(Tag::of(&frame(&[(0x8100, 0xe00a)])), tag(10, false));
        assert_eq!(Tag::of(&frame(&[(0x8100, 0), (0x8100, 7)])), tag(0, true));
        assert_eq!(Tag::of(&frame(&[(0x88a8, 5), (0x8100, 7)])), None);
        assert_eq!(Tag::of(&frame(&[(0x8100, 5)])[..17]), None);
    }

    #[test]
    fn how_a_frame_leaves() {
        let (none, ten, priority) =
            (None, Some(Tag { vlan: 10, wraps_tag: false }), Some(Tag { vlan: 0, wraps_tag: false }));
        let wrapping = Some(Tag { vlan: 10, wraps_tag: true });
        let trunk = |native| Vlan::Trunk { allowed: [10, 20].into_iter().collect(), native };
        for (mode, vlan, tag, expected) in [
            (Vlan::Transparent, 0, none, Some(Retag::Keep)),
            (Vlan::Transparent, 0, priority, Some(Retag::Keep)),
            (Vlan::Transparent, 10, none, Some(Retag::Push(10))),
            (Vlan::Transparent, 10, ten, Some(Retag::Keep)),
            (Vlan::Transparent, 10, priority, Some(Retag::Set(10))),
            (Vlan::Access(10), 10, none, Some(Retag::Keep)),
            (Vlan::Access(10), 10, ten, Some(Retag::Pop)),
            (Vlan::Access(10), 10, wrapping, Some(Retag::Pop)),
            (Vlan::Access(10), 20, none, None),
            (Vlan::Access(10), 0, none, None),
            (trunk(None), 10, none, Some(Retag::Push(10))),
            (trunk(None), 10, ten, Some(Retag::Keep)),
            (trunk(None), 30, none, None),
            (trunk(None), 0, none, None),
            (trunk(Some(10)), 10, none, Some(Retag::Keep)),
            (trunk(Some(10)), 10, ten, Some(Retag::Pop)),
            (trunk(Some(10)), 10, priority, Some(Retag::Pop)),
            (trunk(Some(10)), 10, wrapping, Some(Retag::Keep)),
            (trunk(Some(10)), 20, priority, Some(Retag::Set(20))),
        ] {
            assert_eq!(Retag::to_leave(&mode, vlan, tag), expected, "{mode} {vlan} {tag:?}");
        }
    }
}
