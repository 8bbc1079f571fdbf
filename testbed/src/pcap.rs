//! Ethernet frames in and out of pcap files: what `net_pcap` ports of a DPDK guest send, and what they caught.
//!
//! The classic format: a 24-byte file header, then a 16-byte header and the bytes for each frame.

use std::fs;
use std::path::Path;

use anyhow::{Context, Result, bail, ensure};

const MAGIC_MICROSECONDS: u32 = 0xa1b2_c3d4;
const MAGIC_NANOSECONDS: u32 = 0xa1b2_3c4d;
const LINKTYPE_ETHERNET: u32 = 1;
const SNAP_LENGTH: u32 = 65_535;
const FILE_HEADER: usize = 24;
const FRAME_HEADER: usize = 16;

/// Writes frames, each from its destination address on and without FCS, one microsecond after the other.
///
/// # Errors
/// When the file cannot be written, or a frame is longer than 65 535 bytes.
pub fn write_pcap(path: &Path, frames: &[impl AsRef<[u8]>]) -> Result<()> {
    let mut file = Vec::new();
    file.extend(MAGIC_MICROSECONDS.to_le_bytes());
    file.extend(2_u16.to_le_bytes());
    file.extend(4_u16.to_le_bytes());
    for word in [0, 0, SNAP_LENGTH, LINKTYPE_ETHERNET] {
        file.extend(word.to_le_bytes());
    }
    for (at, frame) in frames.iter().enumerate() {
        let (at, frame) = (u32::try_from(at)?, frame.as_ref());
        let length = u32::try_from(frame.len())?;
        ensure!(length <= SNAP_LENGTH, "a frame of {length} bytes does not fit");
        for word in [at / 1_000_000, at % 1_000_000, length, length] {
            file.extend(word.to_le_bytes());
        }
        file.extend(frame);
    }
    fs::write(path, file).with_context(|| format!("{}", path.display()))
}

/// Reads the frames of a pcap file of either byte order. A frame that is still being written is left out.
///
/// # Errors
/// When the file cannot be read, or is not a pcap file of Ethernet frames.
pub fn read_pcap(path: &Path) -> Result<Vec<Vec<u8>>> {
    let file = fs::read(path).with_context(|| format!("{}", path.display()))?;
    let known = [MAGIC_MICROSECONDS, MAGIC_NANOSECONDS];
    let decode: fn([u8; 4]) -> u32 = match file.first_chunk() {
        Some(magic) if known.contains(&u32::from_le_bytes(*magic)) => u32::from_le_bytes,
        Some(magic) if known.contains(&u32::from_be_bytes(*magic)) => u32::from_be_bytes,
        _ => bail!("{} is no pcap file", path.display()),
    };
    let word = |at: usize| file.get(at..)?.first_chunk().map(|bytes| decode(*bytes));
    ensure!(word(20) == Some(LINKTYPE_ETHERNET), "{} does not hold Ethernet frames", path.display());

    let (mut frames, mut at) = (Vec::new(), FILE_HEADER);
    while let Some(length) = word(at + 8) {
        let start = at + FRAME_HEADER;
        at = start + length as usize;
        let Some(frame) = file.get(start..at) else {
            break;
        };
        frames.push(frame.to_vec());
    }
    Ok(frames)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_written_is_read_again() {
        let dir = crate::scratch_dir().unwrap();
        let path = dir.path().join("frames.pcap");
        let frames = vec![vec![1; 60], vec![2; 1514], vec![]];
        write_pcap(&path, &frames).unwrap();
        assert_eq!(read_pcap(&path).unwrap(), frames);
    }

    #[test]
    fn big_endian_files_are_read() {
        let dir = crate::scratch_dir().unwrap();
        let path = dir.path().join("frames.pcap");
        let mut file = Vec::new();
        for word in [MAGIC_NANOSECONDS, 0x0002_0004, 0, 0, SNAP_LENGTH, LINKTYPE_ETHERNET, 0, 0, 3, 3] {
            file.extend(word.to_be_bytes());
        }
        file.extend([7, 8, 9]);
        fs::write(&path, file).unwrap();
        assert_eq!(read_pcap(&path).unwrap(), [[7, 8, 9]]);
    }

    #[test]
    fn half_a_frame_at_the_end_is_left_out() {
        let dir = crate::scratch_dir().unwrap();
        let path = dir.path().join("frames.pcap");
        write_pcap(&path, &[[1; 60], [2; 60]]).unwrap();
        let whole = fs::read(&path).unwrap();
        fs::write(&path, &whole[..whole.len() - 1]).unwrap();
        assert_eq!(read_pcap(&path).unwrap(), [[1; 60]]);
    }

    #[test]
    fn other_files_are_refused() {
        let dir = crate::scratch_dir().unwrap();
        let path = dir.path().join("frames.pcap");
        for content in [&b""[..], b"abc", &[0; 64]] {
            fs::write(&path, content).unwrap();
            read_pcap(&path).unwrap_err();
        }
    }
}
