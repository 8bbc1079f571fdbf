//! Ethernet frames to send and to recognize.

/// An Ethernet address.
pub type Mac = [u8; 6];

/// To everybody.
pub const BROADCAST: Mac = [0xff; 6];

/// An EtherType for local experiments (IEEE 802, table 3): no parser knows what is behind it.
const ETHERTYPE: [u8; 2] = [0x88, 0xb5];

/// Bytes before the payload.
pub const HEADER_LEN: usize = 14;

/// The address of station `number`, locally administered.
#[must_use]
pub fn mac(number: u16) -> Mac {
    let [high, low] = number.to_be_bytes();
    [0x02, 0, 0, 0, high, low]
}

/// A frame of `len` bytes in all, whose payload is a pattern that `seed` chooses: no two seeds alike, and no shift of the
/// bytes unseen.
///
/// # Panics
/// If `len` is less than an Ethernet header.
#[must_use]
pub fn frame(destination: Mac, source: Mac, len: usize, seed: u64) -> Vec<u8> {
    assert!(len >= HEADER_LEN, "a frame of {len} bytes has no Ethernet header");
    let mut frame = [&destination[..], &source[..], &ETHERTYPE[..]].concat();
    let mut word = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
    frame.resize_with(len, || {
        // xorshift64: a byte a step is random enough to tell payloads apart.
        word ^= word << 13;
        word ^= word >> 7;
        word ^= word << 17;
        (word >> 32) as u8
    });
    frame
}
