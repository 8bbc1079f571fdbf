//! The ways in which a driver can break a virtqueue's rules. Each ends its ring, nothing else.

/// A rule broken in shared ring memory.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum RingFault {
    /// A buffer or an indirect table that is not in the guest's memory.
    BadAddress = 1,
    /// A writable buffer on a transmitq, or a readable one on a receiveq.
    BadDirection,
    /// A chain of more descriptors than the ring has, or more pieces than [`super::SEGMENTS_MAX`].
    ChainTooLong,
    /// An indirect table that is empty, not whole descriptors, too long, nested, or chained on.
    BadIndirect,
    /// A descriptor index that is not in the ring (split).
    BadIndex,
    /// More chains available than the ring can hold (split).
    AvailableJump,
    /// The eventfd by which the guest is interrupted was made to block.
    InterruptBlocks,
    /// The other ring of the pair broke.
    PairBroken,
}

impl RingFault {
    /// All of them, for metrics and for reading back a number.
    pub const ALL: [Self; 8] = [
        Self::BadAddress,
        Self::BadDirection,
        Self::ChainTooLong,
        Self::BadIndirect,
        Self::BadIndex,
        Self::AvailableJump,
        Self::InterruptBlocks,
        Self::PairBroken,
    ];

    /// Its name in metrics and `show`.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::BadAddress => "bad_address",
            Self::BadDirection => "bad_direction",
            Self::ChainTooLong => "chain_too_long",
            Self::BadIndirect => "bad_indirect_table",
            Self::BadIndex => "bad_descriptor_index",
            Self::AvailableJump => "available_index_jump",
            Self::InterruptBlocks => "interrupt_blocks",
            Self::PairBroken => "pair_broken",
        }
    }

    /// The fault with this number; `None` for 0, which stands for "none".
    #[must_use]
    pub fn from_code(code: u8) -> Option<Self> {
        Self::ALL.into_iter().find(|&fault| fault as u8 == code)
    }
}
