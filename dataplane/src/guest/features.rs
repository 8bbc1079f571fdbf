//! Feature bits: what a port offers, what an operator may mask, and their names.

use bitflags::bitflags;
use ringway_config::Feature;

use crate::packet::Abilities;

bitflags! {
    /// Virtio feature bits (virtio 1.2, sections 5.1.3 and 6) and vhost-user's own bit 30.
    #[derive(Clone, Copy, Debug, PartialEq, Eq)]
    pub struct Features: u64 {
        /// The front end tells the driver the MTU of the link; the device only has to offer it.
        const MTU = 1 << 3;
        /// The guest may leave checksums to us.
        const CSUM = 1 << 0;
        /// We may leave checksums to the guest.
        const GUEST_CSUM = 1 << 1;
        /// We may leave segmentation to the guest: TCP over IPv4.
        const GUEST_TSO4 = 1 << 7;
        /// TCP over IPv6.
        const GUEST_TSO6 = 1 << 8;
        /// TCP with congestion notification.
        const GUEST_ECN = 1 << 9;
        /// The guest may leave segmentation to us: TCP over IPv4.
        const HOST_TSO4 = 1 << 11;
        /// TCP over IPv6.
        const HOST_TSO6 = 1 << 12;
        /// TCP with congestion notification.
        const HOST_ECN = 1 << 13;
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
        /// Interrupts and kicks are asked for by position in the ring.
        const EVENT_IDX = 1 << 29;
        /// vhost-user: the protocol has feature bits of its own.
        const PROTOCOL_FEATURES = 1 << 30;
        /// Virtio 1.0 or later.
        const VERSION_1 = 1 << 32;
        /// Packed virtqueues.
        const RING_PACKED = 1 << 34;
        /// Buffers are used in the order in which they were made available.
        const IN_ORDER = 1 << 35;
        /// We may leave segmentation to the guest: UDP over IPv4.
        const GUEST_USO4 = 1 << 54;
        /// UDP over IPv6.
        const GUEST_USO6 = 1 << 55;
        /// The guest may leave segmentation to us: UDP.
        const HOST_USO = 1 << 56;
    }
}

impl Features {
    /// What a port offers when its operator masks nothing.
    pub const OFFERED: Self = Self::all();

    /// Features, of which one is enough, and the offloads that need it (virtio 1.2, section 5.1.3.1), in the order in which
    /// they fall.
    pub const NEEDS: [(Self, Self); 4] = {
        const HOST_TSO: Features = Features::HOST_TSO4.union(Features::HOST_TSO6);
        const GUEST_TSO: Features = Features::GUEST_TSO4.union(Features::GUEST_TSO6);
        [
            (Self::CSUM, HOST_TSO.union(Self::HOST_USO)),
            (HOST_TSO, Self::HOST_ECN),
            (Self::GUEST_CSUM, GUEST_TSO.union(Self::GUEST_USO4).union(Self::GUEST_USO6)),
            (GUEST_TSO, Self::GUEST_ECN),
        ]
    };

    /// What an operator's word stands for.
    #[must_use]
    pub fn of(feature: Feature) -> Self {
        match feature {
            Feature::Packed => Self::RING_PACKED,
            Feature::MrgRxbuf => Self::MRG_RXBUF,
            Feature::IndirectDesc => Self::INDIRECT_DESC,
            Feature::EventIdx => Self::EVENT_IDX,
            Feature::InOrder => Self::IN_ORDER,
            Feature::Mq => Self::MQ,
            Feature::CtrlVq => Self::CTRL_VQ | Self::CTRL_RX,
            Feature::GuestAnnounce => Self::GUEST_ANNOUNCE,
            Feature::Csum => Self::CSUM,
            Feature::GuestCsum => Self::GUEST_CSUM,
            Feature::HostTso4 => Self::HOST_TSO4,
            Feature::HostTso6 => Self::HOST_TSO6,
            Feature::HostEcn => Self::HOST_ECN,
            Feature::HostUso => Self::HOST_USO,
            Feature::GuestTso4 => Self::GUEST_TSO4,
            Feature::GuestTso6 => Self::GUEST_TSO6,
            Feature::GuestEcn => Self::GUEST_ECN,
            Feature::GuestUso4 => Self::GUEST_USO4,
            Feature::GuestUso6 => Self::GUEST_USO6,
        }
    }

    /// What a port offers whose operator masks `masked`: nothing that needs a feature which is not offered.
    #[must_use]
    pub fn offered(masked: &[Feature]) -> Self {
        masked.iter().fold(Self::OFFERED, |offered, &feature| offered - Self::of(feature)).with_needs()
    }

    /// Without the offloads whose own needs are not among them.
    #[must_use]
    pub fn with_needs(self) -> Self {
        // One of the needed is enough.
        Self::NEEDS.into_iter().fold(self, |set, (any, needing)| if set.intersects(any) { set } else { set - needing })
    }

    /// What a guest that negotiated these may ask us to do to its frames.
    #[must_use]
    pub fn may_ask(self) -> Abilities {
        self.with_needs().abilities([
            (Self::CSUM, Abilities::CHECKSUM),
            (Self::HOST_TSO4, Abilities::TCP4),
            (Self::HOST_TSO6, Abilities::TCP6),
            (Self::HOST_ECN, Abilities::ECN),
            (Self::HOST_USO, Abilities::UDP4.union(Abilities::UDP6)),
        ])
    }

    /// What a guest that negotiated these does to frames by itself.
    #[must_use]
    pub fn can_take(self) -> Abilities {
        self.with_needs().abilities([
            (Self::GUEST_CSUM, Abilities::CHECKSUM),
            (Self::GUEST_TSO4, Abilities::TCP4),
            (Self::GUEST_TSO6, Abilities::TCP6),
            (Self::GUEST_ECN, Abilities::ECN),
            (Self::GUEST_USO4, Abilities::UDP4),
            (Self::GUEST_USO6, Abilities::UDP6),
        ])
    }

    fn abilities<const N: usize>(self, of: [(Self, Abilities); N]) -> Abilities {
        let has = |&(feature, _): &(Self, Abilities)| self.contains(feature);
        of.into_iter().filter(has).fold(Abilities::empty(), |all, (_, ability)| all | ability)
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

    /// Virtio 1.2, section 5.1.3.1.
    #[test]
    fn masking_takes_what_needs_it_along() {
        let host = Features::HOST_TSO4 | Features::HOST_TSO6 | Features::HOST_ECN | Features::HOST_USO;
        let guest = Features::GUEST_TSO4
            | Features::GUEST_TSO6
            | Features::GUEST_ECN
            | Features::GUEST_USO4
            | Features::GUEST_USO6;
        let lost = |masked: &[Feature]| Features::OFFERED - Features::offered(masked);
        assert_eq!(lost(&[Feature::Csum]), Features::CSUM | host);
        assert_eq!(lost(&[Feature::GuestCsum]), Features::GUEST_CSUM | guest);
        assert_eq!(lost(&[Feature::HostTso4]), Features::HOST_TSO4);
        let both = lost(&[Feature::GuestTso6, Feature::GuestTso4]);
        assert_eq!(both, Features::GUEST_TSO4 | Features::GUEST_TSO6 | Features::GUEST_ECN);
        assert_eq!(lost(&[Feature::HostUso, Feature::HostEcn]), Features::HOST_USO | Features::HOST_ECN);
    }

    #[test]
    fn abilities_of_a_guest() {
        let all = Abilities::all() - Abilities::VOUCH - Abilities::BY_LAYOUT;
        assert_eq!(Features::OFFERED.may_ask(), all);
        assert_eq!(Features::OFFERED.can_take(), all);
        // A driver that takes a feature without what it needs gets nothing of it.
        assert_eq!((Features::HOST_TSO4 | Features::GUEST_TSO4).may_ask(), Abilities::empty());
        assert_eq!((Features::GUEST_TSO6 | Features::GUEST_ECN).can_take(), Abilities::empty());
        let some = Features::GUEST_CSUM | Features::GUEST_ECN | Features::GUEST_USO4 | Features::CSUM;
        assert_eq!(some.can_take(), Abilities::CHECKSUM | Abilities::UDP4);
        assert_eq!(some.may_ask(), Abilities::CHECKSUM);
    }

    #[test]
    fn bits_are_where_the_specification_puts_them() {
        assert_eq!(Features::EVENT_IDX.bits().trailing_zeros(), 29);
        assert_eq!(Features::RING_PACKED.bits().trailing_zeros(), 34);
        assert_eq!(Features::IN_ORDER.bits().trailing_zeros(), 35);
        assert_eq!(Features::VERSION_1.bits().trailing_zeros(), 32);
        let host = Features::CSUM | Features::HOST_TSO4 | Features::HOST_TSO6 | Features::HOST_ECN;
        assert_eq!(host.bits(), 1 | 0b111 << 11);
        let guest = Features::GUEST_CSUM | Features::GUEST_TSO4 | Features::GUEST_TSO6 | Features::GUEST_ECN;
        assert_eq!(guest.bits(), 2 | 0b111 << 7);
        let uso = Features::GUEST_USO4 | Features::GUEST_USO6 | Features::HOST_USO;
        assert_eq!(uso.bits(), 0b111 << 54);
        assert_eq!(Features::MRG_RXBUF.header_len(), 12);
        assert_eq!(Features::empty().header_len(), 10);
        assert_eq!((Features::MQ | Features::RING_PACKED).names(), ["mq", "ring_packed"]);
    }
}
