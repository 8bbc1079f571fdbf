//! A ring against a driver that writes anything anywhere, between any two calls.

use ringway::guest::Features;
use ringway::guest::ring::{CHAINS_MAX, ChainList, Direction, RING_SIZE_MAX, Ring, RingAddress, SEGMENTS_MAX, Used};

use super::input::Input;
use super::memory::{Memory, STARTS, USER};

/// Where the areas begin, if they are where they should be.
const DESCRIPTORS: u64 = STARTS[0];
const DRIVER: u64 = STARTS[0] + 0x2000;
const DEVICE: u64 = STARTS[0] + 0x3000;

/// Steps of one run.
const STEPS_MAX: usize = 200;

pub fn run(packed: bool, data: &[u8]) {
    let mut input = Input(data);
    let memory = Memory::new();
    let flags = input.byte();
    let choices = [
        (packed, Features::RING_PACKED),
        (flags & 64 != 0, Features::EVENT_IDX),
        (flags & 128 != 0, Features::IN_ORDER),
    ];
    let features = choices.into_iter().filter(|&(chosen, _)| chosen).map(|(_, feature)| feature).collect();
    let direction = if flags & 1 == 0 { Direction::Readable } else { Direction::Writable };
    let size = match flags >> 1 & 7 {
        7 => input.u16(),
        bits if packed => 1 + u16::from(bits) * 11,
        bits => 1 << bits,
    };
    let base = if flags & 16 == 0 { [0, 0x8000_8000][usize::from(packed)] } else { u32::from(input.u16()) };
    let mut area = |start: u64| if flags & 32 == 0 { start + USER } else { start.wrapping_add(input.number(USER)) };
    let address = RingAddress { size, descriptors: area(DESCRIPTORS), driver: area(DRIVER), device: area(DEVICE) };
    let Ok(ring) = Ring::new(features, direction, address, base, &memory.table, None) else {
        assert!(flags & 0b11_1110 != 0 && (flags & 32 != 0 || flags & 16 != 0 || flags >> 1 & 7 == 7));
        return;
    };
    assert!(size > 0 && size <= RING_SIZE_MAX && (packed || size.is_power_of_two()));
    Run { memory: &memory, receiver: &Memory::new(), ring, packed, direction, size, next: 0 }.steps(&mut input);
    memory.assert_margins();
}

struct Run<'a> {
    memory: &'a Memory,
    /// Of another guest, to whom bytes are copied.
    receiver: &'a Memory,
    ring: Ring,
    packed: bool,
    direction: Direction,
    size: u16,
    /// Where an orderly driver would go on.
    next: u16,
}

impl Run<'_> {
    fn steps(&mut self, input: &mut Input<'_>) {
        for _ in 0..STEPS_MAX {
            if input.is_empty() {
                break;
            }
            match input.byte() % 8 {
                0 => {
                    let at = STARTS[usize::from(input.byte() % 3)] + u64::from(input.u16() & 0x3fff);
                    let len = usize::from(input.byte() % 32);
                    self.memory.write(at, input.bytes(len));
                }
                1 | 2 => self.descriptor(input),
                3 => self.offer(input),
                4 | 5 => self.burst(input),
                6 => self.ring.set_kicks(input.byte() & 1 == 0),
                _ => {
                    let _ = (self.ring.has_available(), self.ring.interrupt(&mut 0), self.ring.base());
                }
            }
        }
    }

    /// A descriptor that makes some sense, in the ring or in a table.
    fn descriptor(&mut self, input: &mut Input<'_>) {
        let kind = input.byte();
        let index = if kind & 1 == 0 { self.next } else { u16::from(input.byte()) };
        let address = STARTS[usize::from(input.byte() % 3)].wrapping_add(input.number(0x3f00));
        let len = input.number(0x3f00) as u32;
        let right = if self.direction == Direction::Writable { 2 } else { 0 };
        let flags = u16::from(input.byte() & 7) ^ right;
        let id = u16::from(input.byte());
        let laps = self.next / self.size.max(1);
        let available = if laps & 1 == 0 { 0x80 } else { 0x8000 };
        let tail = if self.packed { [id, flags | available] } else { [flags, id] };
        let table = if kind & 2 == 0 { DESCRIPTORS } else { STARTS[2] };
        let slot = if kind & 2 == 0 { index % self.size } else { index % 64 };
        let bytes = [&address.to_le_bytes()[..], &len.to_le_bytes(), &tail[0].to_le_bytes(), &tail[1].to_le_bytes()];
        self.memory.write(table + u64::from(slot) * 16, &bytes.concat());
        if self.packed && kind & 3 == 0 {
            self.next = self.next.wrapping_add(1);
        }
    }

    /// Moves a split ring's available index, by one if the driver is orderly.
    fn offer(&mut self, input: &mut Input<'_>) {
        let head = input.byte();
        self.memory.write(DRIVER + 4 + u64::from(self.next % self.size) * 2, &[head, 0]);
        self.next = self.next.wrapping_add(if head < 240 { 1 } else { input.u16() });
        self.memory.write(DRIVER + 2, &self.next.to_le_bytes());
    }

    /// Takes chains, does with them what a device may, and gives some of them back.
    fn burst(&mut self, input: &mut Input<'_>) {
        let (want, back) = (usize::from(input.byte()), usize::from(input.byte()));
        let mut list = ChainList::new();
        let was_broken = self.ring.fault().is_some();
        self.ring.take(&self.memory.table, want, &mut list);
        assert!(list.chains.len() <= want.min(CHAINS_MAX) && list.walked() <= SEGMENTS_MAX);
        assert!(!was_broken || list.chains.is_empty(), "a broken ring gives chains");
        let mut used = Vec::new();
        for chain in &list.chains {
            assert!(chain.slots >= 1 && chain.slots <= self.size);
            let pieces = list.segments(chain);
            assert_eq!(pieces.iter().map(|piece| piece.len()).sum::<usize>(), chain.len as usize);
            for piece in pieces {
                let ends = [*piece, piece.from_offset(piece.len().saturating_sub(256))];
                for end in ends {
                    match self.direction {
                        Direction::Readable => {
                            end.copy_to(self.receiver.table.segment(&mut 0, STARTS[2], 256).unwrap())
                        }
                        Direction::Writable => end.write(&[0; 256]),
                    };
                }
            }
            let len = if self.direction == Direction::Writable { chain.len } else { 0 };
            used.push(Used { len, id: chain.id, slots: chain.slots });
        }
        if let [first, .., last] = &list.chains[..] {
            list.segments(first)[0].copy_to(list.segments(last)[0]);
        }
        used.truncate(back);
        self.ring.publish(used.into_iter());
        self.ring.rewind();
    }
}
