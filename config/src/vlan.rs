//! VLANs of a port.

use std::fmt;

/// The last VLAN: 0 stands for none, and 4095 is reserved (IEEE 802.1Q, table 9-2).
pub const VLAN_MAX: u16 = 4094;

/// Stands for the VLAN of a frame whose tag says a priority only and wraps another tag: none of its own, and without that tag
/// it would be in the VLAN of the other. No tag can say so large a number.
pub const PRIORITY_OVER_TAG: u16 = 0x1000;

/// Which VLANs a port takes part in, and how its frames show theirs.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub enum Vlan {
    /// All of them, with or without a tag, as they are: a port that knows nothing of VLANs. Frames without a tag are in VLAN 0,
    /// which only such ports take part in.
    #[default]
    Transparent,
    /// One, 1 to 4094; its frames have no tag on this port.
    Access(u16),
    /// Several; frames have tags on this port.
    Trunk {
        /// Which; never empty.
        allowed: VlanSet,
        /// The one of them, if any, whose frames have no tag.
        native: Option<u16>,
    },
}

impl Vlan {
    /// Whether frames of `vlan` may be on the port; 0 for those without one.
    #[inline]
    #[must_use]
    pub fn contains(&self, vlan: u16) -> bool {
        match self {
            Self::Transparent => true,
            Self::Access(id) => vlan == *id,
            Self::Trunk { allowed, .. } => allowed.contains(vlan),
        }
    }

    /// The VLAN of a frame that came in by the port, by the VLAN of its tag (0 without one, or of a priority tag;
    /// [`PRIORITY_OVER_TAG`]); `None` if it may not come in.
    #[inline]
    #[must_use]
    pub fn of_received(&self, tag: u16) -> Option<u16> {
        match self {
            Self::Transparent => Some(if tag == PRIORITY_OVER_TAG { 0 } else { tag }),
            Self::Access(id) => (tag == 0).then_some(*id),
            Self::Trunk { native, .. } if tag == 0 || tag == PRIORITY_OVER_TAG => *native,
            Self::Trunk { allowed, .. } => allowed.contains(tag).then_some(tag),
        }
    }

    /// Whether some VLAN is on both ports.
    #[must_use]
    pub fn overlaps(&self, other: &Self) -> bool {
        (0..=VLAN_MAX).any(|vlan| self.contains(vlan) && other.contains(vlan))
    }
}

impl fmt::Display for Vlan {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Transparent => out.write_str("transparent"),
            Self::Access(id) => write!(out, "access {id}"),
            Self::Trunk { allowed, native: None } => write!(out, "trunk {allowed}"),
            Self::Trunk { allowed, native: Some(native) } => write!(out, "trunk {allowed} native {native}"),
        }
    }
}

/// A set of VLANs.
#[derive(Clone, PartialEq, Eq)]
pub struct VlanSet(Box<[u64; 64]>);

impl VlanSet {
    /// Whether `vlan` is one of them.
    #[inline]
    #[must_use]
    pub fn contains(&self, vlan: u16) -> bool {
        self.0.get(usize::from(vlan / 64)).is_some_and(|word| word >> (vlan % 64) & 1 != 0)
    }

    /// Adds one; `false` if it was there. A number that no tag holds stays out.
    pub fn insert(&mut self, vlan: u16) -> bool {
        let Some(word) = self.0.get_mut(usize::from(vlan / 64)) else { return false };
        let is_new = *word >> (vlan % 64) & 1 == 0;
        *word |= 1 << (vlan % 64);
        is_new
    }

    /// All of them, ascending.
    pub fn iter(&self) -> impl Iterator<Item = u16> + '_ {
        (0..4096).filter(|&vlan| self.contains(vlan))
    }
}

impl Default for VlanSet {
    fn default() -> Self {
        Self(Box::new([0; 64]))
    }
}

impl FromIterator<u16> for VlanSet {
    fn from_iter<I: IntoIterator<Item = u16>>(vlans: I) -> Self {
        let mut set = Self::default();
        for vlan in vlans {
            set.insert(vlan);
        }
        set
    }
}

/// As an operator writes them: `10,20-29`.
impl fmt::Display for VlanSet {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut vlans = self.iter().peekable();
        let mut separator = "";
        while let Some(first) = vlans.next() {
            let mut last = first;
            while let Some(next) = vlans.next_if_eq(&(last + 1)) {
                last = next;
            }
            match last - first {
                0 => write!(out, "{separator}{first}")?,
                _ => write!(out, "{separator}{first}-{last}")?,
            }
            separator = ",";
        }
        Ok(())
    }
}

impl fmt::Debug for VlanSet {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(out, "VlanSet({self})")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_set_shows_as_it_is_written() {
        let set: VlanSet = [10, 20, 21, 22, 4094, 1].into_iter().collect();
        assert_eq!(set.to_string(), "1,10,20-22,4094");
        assert_eq!(VlanSet::default().to_string(), "");
    }

    #[test]
    fn what_comes_in_and_what_does_not() {
        let trunk = |native| Vlan::Trunk { allowed: [10, 20].into_iter().collect(), native };
        assert_eq!(Vlan::Transparent.of_received(0), Some(0));
        assert_eq!(Vlan::Transparent.of_received(4095), Some(4095));
        assert_eq!(Vlan::Access(10).of_received(0), Some(10));
        assert_eq!(Vlan::Access(10).of_received(10), None);
        assert_eq!(trunk(None).of_received(0), None);
        assert_eq!(trunk(Some(20)).of_received(0), Some(20));
        assert_eq!(trunk(Some(20)).of_received(10), Some(10));
        assert_eq!(trunk(Some(20)).of_received(30), None);
        assert_eq!(trunk(Some(20)).of_received(4095), None);
        assert_eq!(Vlan::Transparent.of_received(PRIORITY_OVER_TAG), Some(0));
        assert_eq!(Vlan::Access(10).of_received(PRIORITY_OVER_TAG), None);
        assert_eq!(trunk(Some(20)).of_received(PRIORITY_OVER_TAG), Some(20));
        assert_eq!(trunk(None).of_received(PRIORITY_OVER_TAG), None);
    }

    #[test]
    fn overlaps() {
        let trunk = |vlans: &[u16]| Vlan::Trunk { allowed: vlans.iter().copied().collect(), native: None };
        assert!(Vlan::Transparent.overlaps(&Vlan::Access(4094)));
        assert!(!Vlan::Access(1).overlaps(&Vlan::Access(2)));
        assert!(trunk(&[1, 2]).overlaps(&Vlan::Access(2)));
        assert!(!trunk(&[1, 2]).overlaps(&trunk(&[3, 4])));
    }
}
