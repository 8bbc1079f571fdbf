//! What a sender asks to be done to a frame, checked against the frame itself, and what is left of it for a receiver.

use bitflags::bitflags;

use super::ethernet::{ETHERNET_HEADER_LEN, be16};
use super::headers::{Headers, IPV6_HEADER_LEN, Network, TAGS_MAX, TCP, UDP};
use super::net_header::{NetHeader, gso_type, net_flag};
use super::tag::TAG_LEN;
use crate::account::DropReason;

/// Segments of one frame: 64 KiB of TCP at 64 bytes each. Who asks for more wants to keep the switch busy.
pub const SEGMENTS_OF_FRAME_MAX: usize = 1024;

/// The shortest payload of segments that every NIC makes: some refuse shorter ones.
const NIC_SEGMENT_LEN_MIN: u16 = 256;

/// Where the checksum lies in a TCP and in a UDP header.
const TCP_CHECKSUM: usize = 16;
const UDP_CHECKSUM: usize = 6;
const TCP_HEADER_LEN: usize = 20;
const UDP_HEADER_LEN: usize = 8;

bitflags! {
    /// What may be left undone: by a sender that negotiated it, or for a receiver that did.
    #[derive(Clone, Copy, Debug, PartialEq, Eq)]
    pub struct Abilities: u8 {
        /// A checksum; without it none of the others counts.
        const CHECKSUM = 1 << 0;
        /// Segmentation of TCP over IPv4.
        const TCP4 = 1 << 1;
        /// Segmentation of TCP over IPv6.
        const TCP6 = 1 << 2;
        /// Segmentation of TCP whose first segment alone says that the congestion window was reduced.
        const ECN = 1 << 3;
        /// Segmentation of UDP over IPv4.
        const UDP4 = 1 << 4;
        /// Segmentation of UDP over IPv6.
        const UDP6 = 1 << 5;
        /// To say that a checksum was found right, and be believed. A guest never may.
        const VOUCH = 1 << 6;
        /// The receiver is told by the lengths of headers what it is to do, as NICs are, and not every packet can be told of that
        /// way: what cannot be is done for it.
        const BY_LAYOUT = 1 << 7;
    }
}

/// How a frame is to be segmented.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Segmentation {
    /// Over IPv6, not IPv4.
    pub(super) v6: bool,
    /// UDP, not TCP.
    pub(super) udp: bool,
    ecn: bool,
    /// Bytes of payload in each segment but the last.
    pub(super) size: u16,
    pub(super) l3: u8,
    /// Bytes of all headers.
    pub(super) header_len: u8,
}

/// What is asked for a frame, and possible: a checksum, and perhaps segmentation.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Offload {
    pub(super) csum_start: u16,
    pub(super) csum_offset: u16,
    /// It is the checksum of the TCP or UDP header that our own parse finds. Others (of what is in a tunnel) we can sum,
    /// but not vouch for.
    is_known: bool,
    /// It is that of a UDP header.
    is_udp: bool,
    /// Nothing is asked: the checksum was found right.
    is_vouched: bool,
    /// Its headers are one IP header and a whole TCP or UDP header, and nothing between: the sum of their pseudo header is what a
    /// NIC takes it for (extension headers of IPv6 it would count in).
    is_plain: bool,
    /// Bytes before the network header.
    l2: u8,
    pub(super) segmentation: Option<Segmentation>,
}

/// How a frame gets to a receiver.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Way {
    /// As it is, behind this header.
    Pass(NetHeader),
    /// With its checksum filled in.
    Sum,
    /// In segments, with the checksum of each filled in or not.
    Segment {
        /// How.
        segmentation: Segmentation,
        /// Whether checksums are to be filled in.
        sum: bool,
    },
}

impl Offload {
    /// A place in an array of them that is not in use.
    pub const NONE: Self = Self {
        csum_start: 0,
        csum_offset: 0,
        is_known: false,
        is_udp: false,
        is_vouched: false,
        is_plain: false,
        l2: 0,
        segmentation: None,
    };

    /// Nothing, but its transport checksum was found right by somebody whom we believe.
    const VOUCHED: Self = Self { is_vouched: true, ..Self::NONE };

    /// What `header` asks for a frame of `len` bytes that begins with `head`, from a sender that may ask for `may`; `None`
    /// if it asks for nothing. Flags other than NEEDS_CSUM ask for nothing and are not believed (virtio 1.2, section
    /// 5.1.6.2.2), but for DATA_VALID of those who may vouch.
    ///
    /// # Errors
    /// Why the frame is to be dropped.
    pub fn asked(header: NetHeader, head: &[u8], len: usize, may: Abilities) -> Result<Option<Self>, DropReason> {
        let ecn = header.gso_type & gso_type::ECN != 0;
        let kind = header.gso_type & !gso_type::ECN;
        if header.flags & net_flag::NEEDS_CSUM == 0 && header.gso_type == gso_type::NONE {
            let is_vouched = header.flags & net_flag::DATA_VALID != 0 && may.contains(Abilities::VOUCH);
            return Ok(is_vouched.then_some(Self::VOUCHED));
        }
        may_ask(header.flags & net_flag::NEEDS_CSUM != 0, kind, ecn, may)?;
        if header.flags & net_flag::NEEDS_CSUM == 0 || ecn && !matches!(kind, gso_type::TCPV4 | gso_type::TCPV6) {
            return Err(DropReason::BadGsoType);
        }
        let headers = Headers::parse(head, len).ok_or(DropReason::BadCsumStart)?;
        let mut offload = checksum(header, &headers, head, len)?;
        if kind != gso_type::NONE {
            offload.segmentation = segmentation(header, &headers, &offload, head, len)?;
        }
        Ok(Some(offload))
    }

    /// How the frame gets to a receiver that can take `can`.
    #[must_use]
    pub fn way(&self, can: Abilities) -> Way {
        let can = if can.contains(Abilities::BY_LAYOUT) && !self.has_layout() { Abilities::empty() } else { can };
        let can_sum = can.contains(Abilities::CHECKSUM);
        match self.segmentation {
            Some(segmentation) if !can_sum || !can.contains(segmentation.needs()) => {
                Way::Segment { segmentation, sum: !can_sum }
            }
            None if self.is_vouched && !can_sum => Way::Pass(NetHeader::default()),
            None if !self.is_vouched && (!can_sum || !self.is_known) => Way::Sum,
            _ => Way::Pass(self.header()),
        }
    }

    /// Whether the lengths of headers say all that there is to do.
    fn has_layout(&self) -> bool {
        let is_near = usize::from(self.l2) <= ETHERNET_HEADER_LEN + TAGS_MAX * TAG_LEN;
        let is_coarse = self.segmentation.is_none_or(|segmentation| segmentation.size >= NIC_SEGMENT_LEN_MIN);
        self.is_vouched || self.is_plain && is_near && is_coarse
    }

    /// Bytes of the longest frame that becomes of one of `len` bytes on its way to somebody who wants no work: what an MTU
    /// limits.
    #[must_use]
    pub fn longest(&self, len: u32) -> u32 {
        let segment = |segmentation: &Segmentation| segmentation.header_len() as u32 + u32::from(segmentation.size);
        self.segmentation.as_ref().map_or(len, |segmentation| segment(segmentation).min(len))
    }

    /// The virtio-net header that asks for it.
    #[must_use]
    pub fn header(&self) -> NetHeader {
        if self.is_vouched {
            return NetHeader { flags: net_flag::DATA_VALID, ..NetHeader::default() };
        }
        let checksum = self.checksum_header();
        match &self.segmentation {
            None => checksum,
            Some(segmentation) => NetHeader {
                gso_type: segmentation.gso_type(),
                hdr_len: segmentation.header_len.into(),
                gso_size: segmentation.size,
                ..checksum
            },
        }
    }

    /// The virtio-net header that asks for the checksum only.
    #[must_use]
    pub fn checksum_header(&self) -> NetHeader {
        NetHeader {
            flags: net_flag::NEEDS_CSUM,
            csum_start: self.csum_start,
            csum_offset: self.csum_offset,
            ..NetHeader::default()
        }
    }

    /// The same for the frame after a tag of so many bytes was put in, or taken out.
    #[must_use]
    pub fn grown(&self, growth: i8) -> Self {
        let segmentation = self.segmentation.map(|segmentation| Segmentation {
            l3: segmentation.l3.saturating_add_signed(growth),
            header_len: segmentation.header_len.saturating_add_signed(growth),
            ..segmentation
        });
        // Saturated, it still lies in the frame, which has grown, too.
        let csum_start = self.csum_start.saturating_add_signed(growth.into());
        Self { csum_start, l2: self.l2.saturating_add_signed(growth), segmentation, ..*self }
    }

    /// Segments that a frame of `len` bytes may have to be cut into; 0 if it need not be cut for anybody.
    #[must_use]
    pub fn segments(&self, len: usize) -> usize {
        self.segmentation.map_or(0, |segmentation| segmentation.segments(len))
    }

    /// Bytes of the frame before the first that is summed.
    #[must_use]
    pub fn csum_start(&self) -> usize {
        self.csum_start.into()
    }

    /// Where in the frame the checksum is to be filled in.
    #[must_use]
    pub fn csum_at(&self) -> usize {
        usize::from(self.csum_start) + usize::from(self.csum_offset)
    }

    /// What is to be filled in where the checksum is `checksum`. A UDP checksum of zero would say that there is none (RFC
    /// 768); the other zero of ones' complement says the same sum, to everybody.
    #[must_use]
    pub fn filled_in(&self, checksum: u16) -> [u8; 2] {
        let must_not_be_zero = self.is_udp || !self.is_known;
        if checksum == 0 && must_not_be_zero { [0xff; 2] } else { checksum.to_be_bytes() }
    }
}

impl NetHeader {
    /// Asks for the TCP or UDP checksum of a frame of `len` bytes that begins with `head`, and with `gso_size` for segments of
    /// so many bytes. `None` if there is no such header.
    #[must_use]
    pub fn of_transport(head: &[u8], len: usize, gso_size: Option<u16>) -> Option<Self> {
        let headers = Headers::parse(head, len)?;
        let (csum_offset, udp) = match headers.protocol? {
            TCP => (TCP_CHECKSUM, false),
            UDP => (UDP_CHECKSUM, true),
            _ => return None,
        };
        let gso_type = match (gso_size, udp, headers.network) {
            (None, ..) => gso_type::NONE,
            (_, true, _) => gso_type::UDP_L4,
            (_, false, Network::Ipv6) => gso_type::TCPV6,
            (_, false, _) => gso_type::TCPV4,
        };
        Some(Self {
            flags: net_flag::NEEDS_CSUM,
            gso_type,
            hdr_len: 0, // a hint that nobody needs
            gso_size: gso_size.unwrap_or(0),
            csum_start: headers.l4 as u16,
            csum_offset: csum_offset as u16,
        })
    }
}

/// Where a NIC finds what it is to do: lengths of headers, in bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TransportLayout {
    /// The Ethernet header and tags.
    pub l2: usize,
    /// The IP header and its extensions.
    pub l3: usize,
    /// The TCP or UDP header.
    pub l4: usize,
    /// IPv6, not IPv4.
    pub v6: bool,
    /// UDP, not TCP.
    pub udp: bool,
}

impl TransportLayout {
    /// Of a frame of `len` bytes that begins with `head`; `None` if it is neither TCP nor UDP.
    #[must_use]
    pub fn parse(head: &[u8], len: usize) -> Option<Self> {
        let headers = Headers::parse(head, len)?;
        let udp = match headers.protocol? {
            TCP => false,
            UDP => true,
            _ => return None,
        };
        let end = transport_end(&headers, udp, head)?;
        let v6 = headers.network == Network::Ipv6;
        Some(Self { l2: headers.l3, l3: headers.l4 - headers.l3, l4: end - headers.l4, v6, udp })
    }
}

impl Segmentation {
    /// Bytes of the headers that each segment begins with.
    #[must_use]
    pub fn header_len(&self) -> usize {
        self.header_len.into()
    }

    /// Into how many segments a frame of `len` bytes falls.
    #[must_use]
    pub fn segments(&self, len: usize) -> usize {
        len.saturating_sub(self.header_len()).div_ceil(usize::from(self.size.max(1)))
    }

    fn needs(&self) -> Abilities {
        match (self.udp, self.v6) {
            (true, false) => Abilities::UDP4,
            (true, true) => Abilities::UDP6,
            (false, false) => Abilities::TCP4.union(self.needs_ecn()),
            (false, true) => Abilities::TCP6.union(self.needs_ecn()),
        }
    }

    fn needs_ecn(&self) -> Abilities {
        if self.ecn { Abilities::ECN } else { Abilities::empty() }
    }

    fn gso_type(&self) -> u8 {
        match (self.udp, self.v6) {
            (true, _) => gso_type::UDP_L4,
            (false, v6) => {
                let ecn = if self.ecn { gso_type::ECN } else { 0 };
                ecn | if v6 { gso_type::TCPV6 } else { gso_type::TCPV4 }
            }
        }
    }
}

/// Whether each thing asked for was negotiated. Of UDP segmentation the sender has one bit for both versions of IP.
fn may_ask(checksum: bool, kind: u8, ecn: bool, may: Abilities) -> Result<(), DropReason> {
    let segmentation = match kind {
        gso_type::NONE => Abilities::empty(),
        gso_type::TCPV4 => Abilities::TCP4,
        gso_type::TCPV6 => Abilities::TCP6,
        gso_type::UDP_L4 => Abilities::UDP4.union(Abilities::UDP6),
        gso_type::UDP => return Err(DropReason::OffloadNotNegotiated),
        _ => return Err(DropReason::BadGsoType),
    };
    let asked = [(checksum, Abilities::CHECKSUM), (true, segmentation), (ecn, Abilities::ECN)];
    if asked.into_iter().all(|(asked, ability)| !asked || may.contains(ability)) {
        Ok(())
    } else {
        Err(DropReason::OffloadNotNegotiated)
    }
}

/// The checksum that is asked for, without segmentation.
fn checksum(header: NetHeader, headers: &Headers, head: &[u8], len: usize) -> Result<Offload, DropReason> {
    let (start, offset) = (usize::from(header.csum_start), usize::from(header.csum_offset));
    let offload = Offload { csum_start: header.csum_start, csum_offset: header.csum_offset, ..Offload::NONE };
    // Before the end of the network header nothing has such a checksum.
    if start < headers.l4.max(ETHERNET_HEADER_LEN) || start >= len {
        return Err(DropReason::BadCsumStart);
    }
    if start + offset + 2 > len {
        return Err(DropReason::BadCsumOffset);
    }
    let (own_offset, inside) = match headers.protocol {
        Some(TCP) => (TCP_CHECKSUM, usize::MAX),
        Some(UDP) => (UDP_CHECKSUM, headers.l4 + UDP_HEADER_LEN),
        _ => return Ok(offload),
    };
    match start {
        _ if start == headers.l4 && offset == own_offset => {
            let is_udp = headers.protocol == Some(UDP);
            let is_whole = transport_end(headers, is_udp, head).is_some_and(|end| end <= head.len());
            let is_bare = headers.network == Network::Ipv4 || headers.l4 - headers.l3 == IPV6_HEADER_LEN;
            // Of at most two tags, so it fits.
            Ok(Offload { is_known: true, is_udp, is_plain: is_whole && is_bare, l2: headers.l3 as u8, ..offload })
        }
        _ if start == headers.l4 => Err(DropReason::BadCsumOffset),
        // Of a packet in a UDP tunnel.
        _ if start >= inside => Ok(offload),
        _ => Err(DropReason::BadCsumStart),
    }
}

/// The segmentation that is asked for; `None` if one segment is all.
fn segmentation(
    header: NetHeader,
    headers: &Headers,
    offload: &Offload,
    head: &[u8],
    len: usize,
) -> Result<Option<Segmentation>, DropReason> {
    let v6 = headers.network == Network::Ipv6;
    let udp = offload.is_udp;
    let fits = match header.gso_type & !gso_type::ECN {
        gso_type::TCPV4 => !udp && !v6,
        gso_type::TCPV6 => !udp && v6,
        _ => udp,
    };
    if !offload.is_known || !fits {
        return Err(DropReason::BadGsoType);
    }
    if header.gso_size == 0 {
        return Err(DropReason::BadGsoSize);
    }
    // A hint, and no more (virtio 1.2, section 5.1.6.2.2); but not beyond the frame.
    if usize::from(header.hdr_len) > len {
        return Err(DropReason::BadHdrLen);
    }
    let header_len = transport_end(headers, udp, head)
        .filter(|&end| end <= head.len() && network_len(headers, head) == Some(len - headers.l3))
        .ok_or(DropReason::BadGsoHeaders)?;
    let segmentation = Segmentation {
        v6,
        udp,
        ecn: header.gso_type & gso_type::ECN != 0,
        size: header.gso_size,
        // Both are within the head, which is shorter than 256 bytes.
        l3: headers.l3 as u8,
        header_len: header_len as u8,
    };
    match segmentation.segments(len) {
        0 | 1 => Ok(None),
        2..=SEGMENTS_OF_FRAME_MAX => Ok(Some(segmentation)),
        _ => Err(DropReason::BadGsoSize),
    }
}

/// Where the transport header ends.
fn transport_end(headers: &Headers, udp: bool, head: &[u8]) -> Option<usize> {
    if udp {
        return Some(headers.l4 + UDP_HEADER_LEN);
    }
    let words = usize::from(head.get(headers.l4 + 12)? >> 4);
    (words * 4 >= TCP_HEADER_LEN).then_some(headers.l4 + words * 4)
}

/// Bytes from the network header on, as it says itself.
fn network_len(headers: &Headers, head: &[u8]) -> Option<usize> {
    match headers.network {
        Network::Ipv4 => be16(head, headers.l3 + 2).map(usize::from),
        Network::Ipv6 => be16(head, headers.l3 + 4).map(|len| usize::from(len) + 40),
        Network::Other => None,
    }
}

#[cfg(test)]
#[path = "offload_tests.rs"]
mod tests;
