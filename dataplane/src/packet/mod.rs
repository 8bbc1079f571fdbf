//! Bytes to meaning: headers and what is read from them.
//!
//! Pure: a slice in, a value out. Nothing here knows of rings, guests or NICs, nothing is
//! unsafe, and nothing panics whatever the bytes. The slices are always private copies: a
//! guest cannot change them while they are read.

mod checksum;
mod ethernet;
mod headers;
mod net_header;
mod offload;
mod segment;
mod spread;

pub use checksum::{BLOCK, InternetSum, sum_block};
pub use ethernet::EthernetHeader;
pub use ethernet::MacAddress;
pub use ethernet::packet_len;
pub use ethernet::{ETHERNET_HEADER_LEN, ETHERTYPE_IPV4, ETHERTYPE_IPV6, ETHERTYPE_SERVICE_VLAN, ETHERTYPE_VLAN};
pub use net_header::{NetHeader, gso_type, net_flag};
pub use offload::{Abilities, Offload, SEGMENTS_OF_FRAME_MAX, Segmentation, TransportLayout, Way};
pub use segment::Cut;
pub use spread::spread_hash;
