//! UDP flows between the guests of ports 0 and 1, frames of which are numbered.

use crate::guests::station;

/// Which way a frame goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Way {
    /// From guest 0 to guest 1.
    There,
    /// Back.
    Back,
}

const ETHERNET: usize = 14;
const PORTS: usize = ETHERNET + 20;
const NUMBER: usize = PORTS + 8;

/// Frame `number` of a flow.
pub fn udp(flow: u16, way: Way, number: u64) -> Vec<u8> {
    let (one, other) = ((0, 10_000 + flow), (1, 53));
    let (from, to) = if way == Way::There { (one, other) } else { (other, one) };
    let mut frame =
        [&station(to.0)[..], &station(from.0), &[8, 0], &[0x45, 0, 0, 60 - 14, 0, 0, 0, 0, 64, 17]].concat();
    frame.extend([0, 0, 10, 0, 0, from.0 as u8, 10, 0, 0, to.0 as u8]);
    frame.extend([from.1.to_be_bytes(), to.1.to_be_bytes(), [0, 26], [0, 0]].concat());
    frame.extend(number.to_be_bytes());
    frame.resize(60, 0);
    frame
}

/// Flow and number of a frame.
pub fn identify(frame: &[u8], way: Way) -> (u16, u64) {
    let at = if way == Way::There { PORTS } else { PORTS + 2 };
    let flow = u16::from_be_bytes(frame[at..at + 2].try_into().unwrap()).checked_sub(10_000);
    let flow = flow.unwrap_or_else(|| panic!("no frame of ours: {frame:?}"));
    (flow, u64::from_be_bytes(frame[NUMBER..NUMBER + 8].try_into().unwrap()))
}
