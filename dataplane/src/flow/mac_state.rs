//! The state of a slot of the MAC table, in one word, so that port and version are always of one moment.

/// Free, claimed, in use: with the version, all that a slot goes through.
///
/// From the lowest bit: port (16), kind (2), tag (2), generation of the port (12), version (32).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct State(pub(super) u64);

const KIND_AT: u32 = 16;
const TAG_AT: u32 = 18;
const GENERATION_AT: u32 = 20;
const VERSION_AT: u32 = 32;

/// What may be compared of a port's generation.
pub(super) const GENERATION_MASK: u32 = 0xfff;

/// What a slot holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub(super) enum Kind {
    Free = 0,
    /// Somebody is about to put a station there.
    Claimed = 1,
    Learnt = 2,
    /// Put there by the operator: neither moves nor ages.
    Static = 3,
}

impl State {
    pub(super) fn new(kind: Kind, port: u16, generation: u32, tag: u64, version: u32) -> Self {
        let generation = u64::from(generation & GENERATION_MASK) << GENERATION_AT;
        let kind = (kind as u64) << KIND_AT;
        Self(u64::from(port) | kind | (tag & 3) << TAG_AT | generation | u64::from(version) << VERSION_AT)
    }

    pub(super) fn kind(self) -> Kind {
        match self.0 >> KIND_AT & 3 {
            0 => Kind::Free,
            1 => Kind::Claimed,
            2 => Kind::Learnt,
            _ => Kind::Static,
        }
    }

    pub(super) fn is_present(self) -> bool {
        self.0 >> KIND_AT & 2 != 0
    }

    pub(super) fn port(self) -> u16 {
        self.0 as u16
    }

    pub(super) fn tag(self) -> u64 {
        self.0 >> TAG_AT & 3
    }

    pub(super) fn generation(self) -> u32 {
        (self.0 >> GENERATION_AT) as u32 & GENERATION_MASK
    }

    #[inline(always)]
    pub(super) fn version(self) -> u32 {
        (self.0 >> VERSION_AT) as u32
    }

    /// Free, and every reference to what was here void.
    pub(super) fn freed(self) -> Self {
        Self::new(Kind::Free, 0, 0, 0, self.version().wrapping_add(1))
    }

    /// Behind another port, or in another generation of the same, and every reference to where it was void.
    pub(super) fn moved(self, port: u16, generation: u32) -> Self {
        Self::new(self.kind(), port, generation, self.tag(), self.version().wrapping_add(1))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_word_holds_it_all() {
        for kind in [Kind::Free, Kind::Claimed, Kind::Learnt, Kind::Static] {
            let state = State::new(kind, 0xfffe, 0xabc, 2, 0xdead_beef);
            assert_eq!((state.kind(), state.port(), state.generation()), (kind, 0xfffe, 0xabc));
            assert_eq!((state.tag(), state.version()), (2, 0xdead_beef));
            assert_eq!(state.is_present(), matches!(kind, Kind::Learnt | Kind::Static));
            let moved = state.moved(3, 0x1001);
            assert_eq!((moved.kind(), moved.port(), moved.generation()), (kind, 3, 1));
            assert_eq!((moved.tag(), moved.version()), (2, 0xdead_bef0));
            assert_eq!(State::new(kind, 1, 2, 3, u32::MAX).freed(), State::new(Kind::Free, 0, 0, 0, 0));
        }
    }
}
