//! The frames that the file of a NIC holds, and those that a guest sends: true packets, checksums and all.

use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use etherparse::PacketBuilder;
use ringway_testbed::{VirtioUser, write_pcap};

/// Bytes of a frame of the usual MTU, and of the longest segment.
pub(crate) const SEGMENT_LEN: usize = 1514;
/// Payload of such a segment.
pub(crate) const SEGMENT_PAYLOAD: usize = SEGMENT_LEN - TCP_HEADERS;
/// Ethernet, IPv4 and TCP without options.
const TCP_HEADERS: usize = 14 + 20 + 20;
/// Ethernet, IPv4 and UDP.
const UDP_HEADERS: usize = 14 + 20 + 8;

/// Stations behind the NIC.
const STATIONS: usize = 64;
/// Frames of a file: four of each station, from ports of their own.
const FRAMES: usize = 256;
/// TCP frames of a file, which may be large.
const LARGE_FRAMES: usize = 16;

const GUEST_IP: [u8; 4] = [10, 90, 1, 1];

/// Files of frames, in a directory that lasts as long as they are used.
#[derive(Debug)]
pub(crate) struct Files<'a>(pub(crate) &'a Path);

impl Files<'_> {
    /// UDP from stations behind the NIC to the guest, in frames of so many bytes.
    pub(crate) fn to_guest(&self, frame_len: u16) -> Result<PathBuf> {
        let frames: Vec<_> = (0..FRAMES).map(|number| udp(number, usize::from(frame_len))).collect::<Result<_>>()?;
        self.write(&format!("to-guest-{frame_len}.pcap"), &frames)
    }

    /// TCP from the guest to a station behind the NIC, in frames of so many bytes.
    pub(crate) fn sent_by_guest(&self, frame_len: usize) -> Result<PathBuf> {
        let frames: Vec<_> = (0..LARGE_FRAMES).map(|number| tcp(number, frame_len)).collect::<Result<_>>()?;
        self.write(&format!("from-guest-{frame_len}.pcap"), &frames)
    }

    /// One frame of that station, by which a switch gets to know it.
    pub(crate) fn greeting(&self) -> Result<PathBuf> {
        self.write("greeting.pcap", &[udp(0, 60)?])
    }

    fn write(&self, name: &str, frames: &[Vec<u8>]) -> Result<PathBuf> {
        let path = self.0.join(name);
        write_pcap(&path, frames)?;
        Ok(path)
    }
}

/// The Ethernet address of a station behind the NIC.
pub(crate) fn station(number: usize) -> [u8; 6] {
    [2, 0, 0, 0, 1, (number % STATIONS) as u8]
}

/// The guest's, by DPDK's text of it.
fn guest() -> Result<[u8; 6]> {
    let text = VirtioUser::default_mac(0);
    let bytes: Vec<u8> = text.split(':').map(|byte| u8::from_str_radix(byte, 16)).collect::<Result<_, _>>()?;
    bytes.try_into().ok().with_context(|| format!("{text} is no address"))
}

fn udp(number: usize, frame_len: usize) -> Result<Vec<u8>> {
    let ip = [10, 90, 0, (number % STATIONS) as u8 + 1];
    let builder = PacketBuilder::ethernet2(station(number), guest()?).ipv4(ip, GUEST_IP, 64);
    let mut frame = Vec::new();
    builder.udp(4000 + number as u16, 9).write(&mut frame, &payload(number, frame_len - UDP_HEADERS))?;
    Ok(frame)
}

fn tcp(number: usize, frame_len: usize) -> Result<Vec<u8>> {
    let builder = PacketBuilder::ethernet2(guest()?, station(0)).ipv4(GUEST_IP, [10, 90, 0, 1], 64);
    let builder = builder.tcp(4000 + number as u16, 9, 1, 8192).ack(1);
    let mut frame = Vec::new();
    builder.write(&mut frame, &payload(number, frame_len - TCP_HEADERS))?;
    Ok(frame)
}

/// Bytes as good as random.
fn payload(number: usize, len: usize) -> Vec<u8> {
    let mut state = number as u64 + 1;
    let mut next = || {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (state >> 56) as u8
    };
    (0..len).map(|_| next()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use ringway_testbed::{read_pcap, scratch_dir};

    #[test]
    fn frames_have_the_length_that_was_asked_for_and_come_from_many_stations() {
        let directory = scratch_dir().unwrap();
        for len in [60, 64, 1500] {
            let frames = read_pcap(&Files(directory.path()).to_guest(len).unwrap()).unwrap();
            assert!(frames.iter().all(|frame| frame.len() == usize::from(len)));
            let stations: std::collections::BTreeSet<_> = frames.iter().map(|frame| frame[6..12].to_vec()).collect();
            assert_eq!((frames.len(), stations.len()), (FRAMES, STATIONS));
        }
    }

    #[test]
    fn large_frames_are_whole_packets() {
        let directory = scratch_dir().unwrap();
        let len = TCP_HEADERS + 44 * SEGMENT_PAYLOAD;
        let frames = read_pcap(&Files(directory.path()).sent_by_guest(len).unwrap()).unwrap();
        for frame in frames {
            let packet = etherparse::SlicedPacket::from_ethernet(&frame).unwrap();
            let Some(etherparse::TransportSlice::Tcp(tcp)) = packet.transport else { panic!("no TCP") };
            assert_eq!(tcp.payload().len(), 44 * SEGMENT_PAYLOAD);
        }
    }
}
