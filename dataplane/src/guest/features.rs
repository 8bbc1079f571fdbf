//! Feature bits: what a port offers, what an operator may mask, and their names.

use bitflags::bitflags;
use ringway_config::Feature;

bitflags! {
    /// Virtio feature bits (virtio 1.2, sections 5.1.3 and 6) and vhost-user's own bit 30.
    #[derive(Clone, Copy, Debug, PartialEq, Eq)]
    pub struct Features: u64 {
        /// The front end tells the driver the MTU of the link; the device only has to offer it.
        const MTU = 1 << 3;
        /// The driver merges receive buffers.
        const MRG_RXBUF = 1 << 15;
        /// There is a control virtqueue; the front end serves it.
        const CTRL_VQ = 1 << 17;
        /// Receive modes by the control virtqueue.
        const CTRL_RX = 1 << 18;
        /// The guest can announce itself after a migration.
        const GUEST_ANNOUNCE = 1 << 21;
        /// Several queue pairs.
        const MQ = 1 << 22;
        /// Indirect descriptor tables.
        const INDIRECT_DESC = 1 << 28;
        /// vhost-user: the protocol has feature bits of its own.
        const PROTOCOL_FEATURES = 1 << 30;
        /// Virtio 1.0 or later.
        const VERSION_1 = 1 << 32;
        /// Packed virtqueues.
        const RING_PACKED = 1 << 34;
    }
}

impl Features {
    /// What a port offers when its operator masks nothing.
    pub const OFFERED: Self = Self::all();

    /// What an operator's word stands for.
    #[must_use]
    pub fn of(feature: Feature) -> Self {
        match feature {
            Feature::Packed => Self::RING_PACKED,
            Feature::MrgRxbuf => Self::MRG_RXBUF,
            Feature::IndirectDesc => Self::INDIRECT_DESC,
            Feature::Mq => Self::MQ,
            Feature::CtrlVq => Self::CTRL_VQ | Self::CTRL_RX,
            Feature::GuestAnnounce => Self::GUEST_ANNOUNCE,
        }
    }

    /// What a port offers whose operator masks `masked`.
    #[must_use]
    pub fn offered(masked: &[Feature]) -> Self {
        masked.iter().fold(Self::OFFERED, |offered, &feature| offered - Self::of(feature))
    }

    /// Bytes of the virtio-net header before each frame: `num_buffers` is there with VERSION_1 or MRG_RXBUF
    /// (virtio 1.2, section 5.1.6.1).
    #[must_use]
    pub fn header_len(self) -> usize {
        if self.intersects(Self::VERSION_1 | Self::MRG_RXBUF) { 12 } else { 10 }
    }

    /// The set's names in lower case, for `show`.
    #[must_use]
    pub fn names(self) -> Vec<String> {
        self.iter_names().map(|(name, _)| name.to_ascii_lowercase()).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn masking_takes_away_and_nothing_else() {
        let offered = Features::offered(&[Feature::Packed, Feature::CtrlVq]);
        assert!(!offered.intersects(Features::RING_PACKED | Features::CTRL_VQ | Features::CTRL_RX));
        assert!(offered.contains(Features::VERSION_1 | Features::MRG_RXBUF | Features::MQ));
        assert_eq!(Features::offered(&[]), Features::OFFERED);
    }

    #[test]
    fn bits_are_where_the_specification_puts_them() {
        assert_eq!(Features::RING_PACKED.bits().trailing_zeros(), 34);
        assert_eq!(Features::VERSION_1.bits().trailing_zeros(), 32);
        assert_eq!(Features::MRG_RXBUF.header_len(), 12);
        assert_eq!(Features::empty().header_len(), 10);
        assert_eq!((Features::MQ | Features::RING_PACKED).names(), ["mq", "ring_packed"]);
    }
}
