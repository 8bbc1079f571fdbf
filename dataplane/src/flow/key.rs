//! What a plain bridge consults of a frame, and no more: the input port, the VLAN, source and destination.

use crate::packet::{EthernetHeader, MacAddress};

/// The key of a flow: 16 bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub struct FlowKey {
    /// Destination in the low 48 bits, input port above.
    pub(super) low: u64,
    /// Source in the low 48 bits, VLAN above.
    pub(super) high: u64,
}

impl FlowKey {
    /// The key of a frame with this header that came in by `port`.
    #[inline(always)]
    #[must_use]
    pub fn new(port: u16, header: &EthernetHeader) -> Self {
        Self {
            low: header.destination.word() | u64::from(port) << 48,
            high: header.source.word() | u64::from(header.vlan) << 48,
        }
    }

    /// The port that the frame came in by.
    #[must_use]
    pub fn port(self) -> u16 {
        (self.low >> 48) as u16
    }

    /// The VLAN of the frame's tag, 0 without one.
    #[must_use]
    pub fn vlan(self) -> u16 {
        (self.high >> 48) as u16
    }

    /// From whom.
    #[must_use]
    pub fn source(self) -> MacAddress {
        MacAddress::from_word(self.high)
    }

    /// To whom.
    #[must_use]
    pub fn destination(self) -> MacAddress {
        MacAddress::from_word(self.low)
    }
}
