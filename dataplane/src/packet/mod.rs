//! Bytes to meaning: headers and what is read from them.
//!
//! Pure: a slice in, a value out. Nothing here knows of rings, guests or NICs, nothing is
//! unsafe, and nothing panics whatever the bytes. The slices are always private copies: a
//! guest cannot change them while they are read.

mod ethernet;
mod spread;

pub use ethernet::EthernetHeader;
pub use ethernet::MacAddress;
pub use ethernet::packet_len;
pub use ethernet::{ETHERNET_HEADER_LEN, ETHERTYPE_IPV4, ETHERTYPE_IPV6, ETHERTYPE_SERVICE_VLAN, ETHERTYPE_VLAN};
pub use spread::spread_hash;
