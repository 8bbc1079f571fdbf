//! Rings against a driver: whatever chains of whatever shapes a driver makes available, the device takes exactly those, in
//! order, and what it gives back is what the driver collects (virtio 1.2, sections 2.7 and 2.8). One process, no socket.
#![allow(clippy::unwrap_used, reason = "a test may panic")]

mod events;
mod wakeups;

use std::collections::VecDeque;
use std::fs::File;
use std::sync::Arc;
use std::time::Instant;

use proptest::prelude::*;
use proptest::sample::Index;
use ringway::guest::Features;
use ringway::guest::memory::{GuestMemory, Region, RegionAddress, Segment};
use ringway::guest::ring::{CHAINS_MAX, Chain, ChainList, Direction, Ring, RingAddress, RingError, SEGMENTS_MAX, Used};
use ringway_testbed::driver::front_end::Bells;
use ringway_testbed::driver::{DriverMemory, Layout, PATIENCE, Piece, Queue, Rules, Span};

/// Rings and tables lie here.
const RINGS: Span = Span { guest: 0x10_0000, len: 3 << 20, user: 0x5555_0000_0000, file_offset: 0 };
/// Buffers lie here, also across the border of the first two.
const LOW: Span = Span { guest: 0x100_0000, len: 0x3000, user: 0x5556_0000_0000, file_offset: 0 };
const NEXT: Span = Span { guest: 0x100_3000, len: 0x5000, user: 0x5557_0000_0000, file_offset: 0x1000 };
const APART: Span = Span { guest: 0x1_0000_0000, len: 0x8000, user: 0x5558_0000_0000, file_offset: 0 };

/// One range of addresses with memory behind all of them, 32 KiB, is at each of these.
const RANGES: [u64; 2] = [LOW.guest, APART.guest];
const RANGE_LEN: u64 = 0x8000;

/// A chain that the driver made available and the device has not given back.
#[derive(Clone, Debug)]
struct Offered {
    id: u16,
    pieces: Vec<Piece>,
    slots: u16,
}

/// A ring with a driver on one side and a device on the other, and what is known of both.
struct Bench {
    layout: Layout,
    rules: Rules,
    direction: Direction,
    memory: Arc<DriverMemory>,
    shared: Arc<GuestMemory>,
    queue: Queue,
    ring: Ring,
    waiting: VecDeque<Offered>,
    given_back: VecDeque<(u16, u32)>,
    /// Slots that the device has given back, from a base of zero, with the wrap counter as one more digit.
    published: u64,
    laps: u64,
    /// Used entries that the device has written.
    entries: u64,
}

fn map(memory: &DriverMemory) -> Arc<GuestMemory> {
    let region = |(span, file): (Span, std::os::fd::BorrowedFd<'_>)| {
        let address =
            RegionAddress { guest: span.guest, len: span.len, user: span.user, file_offset: span.file_offset };
        Arc::new(Region::map(address, &File::from(file.try_clone_to_owned().unwrap())).unwrap())
    };
    Arc::new(GuestMemory::new(memory.regions().map(region).collect()).unwrap())
}

fn device(
    layout: Layout,
    rules: Rules,
    direction: Direction,
    queue: &Queue,
    base: u32,
    memory: &DriverMemory,
    shared: &Arc<GuestMemory>,
) -> Result<Ring, RingError> {
    Ring::new(features(layout, rules), direction, address(queue, memory), base, shared, None)
}

fn features(layout: Layout, rules: Rules) -> Features {
    let mut features = Features::empty();
    features.set(Features::RING_PACKED, layout == Layout::Packed);
    features.set(Features::EVENT_IDX, rules.event_idx);
    features.set(Features::IN_ORDER, rules.in_order);
    features
}

fn address(queue: &Queue, memory: &DriverMemory) -> RingAddress {
    let areas = queue.areas();
    RingAddress {
        size: queue.size(),
        descriptors: memory.user(areas.descriptors),
        driver: memory.user(areas.driver),
        device: memory.user(areas.device),
    }
}

impl Bench {
    /// Both sides at `position` slots from the start of an unused ring.
    fn new(layout: Layout, direction: Direction, size: u16, position: u64) -> Self {
        Self::with(layout, Rules::default(), direction, size, position)
    }

    fn with(layout: Layout, rules: Rules, direction: Direction, size: u16, position: u64) -> Self {
        let memory = Arc::new(DriverMemory::new(&[RINGS, LOW, NEXT, APART]).unwrap());
        let shared = map(&memory);
        let base = encoded(layout, size, position);
        let queue = Queue::with(rules, layout, size, base, &memory);
        let ring = device(layout, rules, direction, &queue, base, &memory, &shared).unwrap();
        let (waiting, given_back) = Default::default();
        Self {
            layout,
            rules,
            direction,
            memory,
            shared,
            queue,
            ring,
            waiting,
            given_back,
            published: position,
            laps: 0,
            entries: 0,
        }
    }

    /// The driver makes a chain available, if it has room.
    fn offer(&mut self, pieces: Vec<Piece>, indirect: bool) -> bool {
        let Some(id) = self.queue.add(&pieces, indirect) else { return false };
        let slots = if indirect || self.layout == Layout::Split { 1 } else { pieces.len() as u16 };
        self.waiting.push_back(Offered { id, pieces, slots });
        true
    }

    /// The device takes up to `wants` chains in as many goes, gives the first of them back, and forgets the others.
    fn serve(&mut self, wants: &[usize], give_back: impl Fn(usize) -> usize) {
        let shared = self.shared.clone();
        let mut list = ChainList::new();
        for &want in wants {
            let before = list.chains.len();
            self.ring.take(&shared, want, &mut list);
            assert_eq!(self.ring.fault(), None);
            let room = (CHAINS_MAX - before).min(self.waiting.len() - before);
            let taken = list.chains.len() - before;
            assert!(taken <= want.min(room), "took {taken} of {want}, {room} were there");
            let pieces: usize =
                self.waiting.iter().take(before + want.min(room)).map(|chain| 2 * chain.pieces.len()).sum();
            if pieces <= SEGMENTS_MAX || before == 0 {
                assert!(taken == want.min(room) || pieces > SEGMENTS_MAX && taken > 0, "took {taken} of {want}");
            }
        }
        for (chain, offered) in list.chains.iter().zip(&self.waiting) {
            check(&self.memory, &list, chain, offered, self.direction);
        }
        assert_eq!(self.ring.has_available(), self.waiting.len() > list.chains.len());
        let count = give_back(list.chains.len());
        let used: Vec<Used> = list.chains[..count].iter().enumerate().map(|(n, chain)| self.used(n, chain)).collect();
        self.ring.publish(used.iter().copied());
        let batched = self.rules.in_order && self.direction == Direction::Readable;
        self.entries += if batched { u64::from(count > 0) } else { count as u64 };
        self.ring.rewind();
        for used in used {
            let offered = self.waiting.pop_front().unwrap();
            self.given_back.push_back((offered.id, used.len));
            self.published += u64::from(offered.slots);
        }
        assert_eq!(self.ring.has_available(), !self.waiting.is_empty());
        assert_eq!(self.ring.base(), encoded(self.layout, self.queue.size(), self.published), "GET_VRING_BASE");
    }

    fn used(&self, n: usize, chain: &Chain<'_>) -> Used {
        // Any length that fits; a transmitq's are all 0.
        let len = if self.direction == Direction::Writable { chain.len.saturating_sub(n as u32) } else { 0 };
        Used { len, id: chain.id, slots: chain.slots }
    }

    /// The driver collects all that was given back, and nothing else.
    fn collect(&mut self) {
        while let Some((id, len)) = self.given_back.pop_front() {
            let completion = self.queue.used().expect("a chain that was given back is seen");
            assert_eq!((completion.id, completion.len), (id, len));
        }
        assert_eq!(self.queue.used(), None);
        assert_eq!(self.queue.used_entries(), self.entries, "with IN_ORDER, one for a batch of a transmitq");
        let laps = self.published / u64::from(self.queue.size());
        self.laps = laps;
    }

    /// The device forgets the ring and starts anew from what GET_VRING_BASE said.
    fn rebuild(&mut self) {
        let base = self.ring.base();
        self.ring =
            device(self.layout, self.rules, self.direction, &self.queue, base, &self.memory, &self.shared).unwrap();
        assert_eq!(self.ring.base(), base);
    }
}

/// Where a ring stands after `slots` from the start of an unused one (on a split ring: chains), as vhost-user encodes it:
/// an index that runs free; or index and wrap counter, which starts at 1, once for each half.
fn encoded(layout: Layout, size: u16, slots: u64) -> u32 {
    match layout {
        Layout::Split => u32::from(slots as u16),
        Layout::Packed => {
            let (lap, index) = (slots / u64::from(size), slots % u64::from(size));
            let half = index as u32 | if lap.is_multiple_of(2) { 0x8000 } else { 0 };
            half | half << 16
        }
    }
}

/// Memory of another guest: what is in a piece is seen when it was copied there.
struct Receiver {
    memory: DriverMemory,
    shared: Arc<GuestMemory>,
}

thread_local! {
    static RECEIVER: Receiver = {
        let memory = DriverMemory::new(&[APART]).unwrap();
        let shared = map(&memory);
        Receiver { memory, shared }
    };
}

impl Receiver {
    fn copy(&self, segment: Segment<'_>) -> Vec<u8> {
        let len = segment.len();
        assert_eq!(segment.copy_to(self.shared.segment(&mut 0, APART.guest, len as u32).unwrap()), len);
        self.memory.read(APART.guest, len)
    }
}

/// Whether the device sees of a chain what the driver put there.
fn check(memory: &DriverMemory, list: &ChainList<'_>, chain: &Chain<'_>, offered: &Offered, direction: Direction) {
    assert_eq!((chain.id, chain.slots), (offered.id, offered.slots));
    let len: u32 = offered.pieces.iter().map(|piece| piece.len).sum();
    assert_eq!(chain.len, len, "{offered:?}");
    let segments = list.segments(chain);
    assert_eq!(segments.iter().map(|segment| segment.len()).sum::<usize>(), len as usize);
    let crossings = offered.pieces.iter().filter(|piece| crosses(piece)).count();
    let filled = offered.pieces.iter().filter(|piece| piece.len > 0).count();
    assert_eq!(segments.iter().filter(|segment| !segment.is_empty()).count(), filled + crossings, "{offered:?}");
    if direction == Direction::Writable {
        // A prime's worth of bytes over and over, so that no shift goes unseen.
        let pattern: Vec<u8> = (0..251).cycle().take(251 + len as usize).collect();
        for (seed, segment) in (usize::from(chain.id)..).zip(segments) {
            segment.write(&pattern[seed % 251..][..segment.len()]);
        }
    }
    // Copied through the device's mapping, or written through it: the driver's is the same.
    let seen: Vec<u8> = segments.iter().flat_map(|&segment| RECEIVER.with(|receiver| receiver.copy(segment))).collect();
    // Pieces of one chain may overlap; what was written last is what both see.
    let bytes: Vec<_> = offered.pieces.iter().map(|piece| memory.read(piece.address, piece.len as usize)).collect();
    assert!(seen == bytes.concat(), "other bytes in {offered:?}");
}

fn crosses(piece: &Piece) -> bool {
    piece.address < NEXT.guest && piece.address + u64::from(piece.len) > NEXT.guest
}

/// Pieces of a chain: range of addresses, offset in it, length.
type Shape = Vec<(Index, u64, u32)>;

/// One step of a driver and a device.
#[derive(Clone, Debug)]
enum Step {
    Offer { chains: Vec<(Shape, bool)> },
    Serve { wants: Vec<usize>, give_back: Index },
    Collect,
    Rebuild,
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let len = prop_oneof![4 => 1u32..200, 2 => Just(1514u32), 1 => 200u32..5000, 1 => Just(0u32)];
    let piece = (any::<Index>(), 0..RANGE_LEN, len);
    let pieces = prop_oneof![3 => prop::collection::vec(piece.clone(), 1), 2 => prop::collection::vec(piece, 1..=20)];
    let chains = prop::collection::vec((pieces, any::<bool>()), 1..40);
    let step = prop_oneof![
        5 => chains.prop_map(|chains| Step::Offer { chains }),
        5 => (prop::collection::vec(0usize..=64, 1..4), any::<Index>())
            .prop_map(|(wants, give_back)| Step::Serve { wants, give_back }),
        2 => Just(Step::Collect),
        1 => Just(Step::Rebuild),
    ];
    prop::collection::vec(step, 1..40)
}

fn run(bench: &mut Bench, steps: &[Step], rounds: usize) {
    for _ in 0..rounds {
        for step in steps {
            match step {
                Step::Offer { chains } => {
                    for (pieces, indirect) in chains {
                        let fits = usize::from(bench.queue.size());
                        let pieces = pieces.iter().take(fits).map(|(range, offset, len)| Piece {
                            address: RANGES[range.index(RANGES.len())] + offset,
                            len: (*len).min((RANGE_LEN - offset) as u32),
                            writable: bench.direction == Direction::Writable,
                        });
                        bench.offer(pieces.collect(), *indirect);
                    }
                }
                Step::Serve { wants, give_back } => bench.serve(wants, |taken| give_back.index(taken + 1)),
                Step::Collect => bench.collect(),
                Step::Rebuild => bench.rebuild(),
            }
        }
        // Whatever the steps, all goes on to the end.
        while !bench.waiting.is_empty() {
            bench.serve(&[CHAINS_MAX], |taken| taken);
        }
        bench.collect();
        assert_eq!(bench.queue.room(), bench.queue.size(), "descriptors are lost");
    }
}

fn direction() -> impl Strategy<Value = Direction> {
    prop_oneof![Just(Direction::Readable), Just(Direction::Writable)]
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 64, ..ProptestConfig::default() })]

    /// R11: no size is special, least of all powers of two, and a chain may go across the end of the ring.
    #[test]
    fn a_packed_ring_of_any_size(
        size in prop_oneof![1u16..=300, Just(255u16), 1u16..=8],
        direction in direction(),
        in_order: bool,
        position: u16,
        steps in steps(),
    ) {
        let rules = Rules { in_order, event_idx: false };
        let mut bench = Bench::with(Layout::Packed, rules, direction, size, position.into());
        run(&mut bench, &steps, 4);
    }

    #[test]
    fn a_split_ring_of_any_size(
        power in 0u32..=9,
        direction in direction(),
        in_order: bool,
        position: u16,
        steps in steps(),
    ) {
        let rules = Rules { in_order, event_idx: false };
        let mut bench = Bench::with(Layout::Split, rules, direction, 1 << power, position.into());
        run(&mut bench, &steps, 4);
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 12, ..ProptestConfig::default() })]

    /// Rings as large as they may be, from just before their ends on.
    #[test]
    fn large_rings(
        (layout, size) in prop_oneof![
            Just((Layout::Packed, 1000)),
            Just((Layout::Packed, 32768)),
            Just((Layout::Packed, 32767)),
            Just((Layout::Split, 32768)),
        ],
        direction in direction(),
        before_end in 1u64..200,
        laps in 0u64..4,
        steps in steps(),
    ) {
        let position = u64::from(size) * (laps + 1) - before_end;
        let mut bench = Bench::new(layout, direction, size, position);
        run(&mut bench, &steps, 3);
    }
}

fn plain(direction: Direction) -> Vec<Piece> {
    vec![Piece { address: APART.guest, len: 64, writable: direction == Direction::Writable }]
}

/// A million times over the wrap, for both layouts; the split ring's index runs over its 16 bits many times.
#[test]
fn a_million_laps() {
    for (layout, size, turns) in
        [(Layout::Packed, 1, 600_000), (Layout::Packed, 3, 300_000), (Layout::Split, 1, 300_000)]
    {
        let direction = Direction::Readable;
        let mut bench = Bench::new(layout, direction, size, 0);
        let shared = bench.shared.clone();
        for turn in 0..turns {
            let burst = 1 + turn % usize::from(size);
            let ids: Vec<_> = (0..burst).map(|_| bench.queue.add(&plain(direction), false).unwrap()).collect();
            let mut list = ChainList::new();
            bench.ring.take(&shared, 8, &mut list);
            assert!(list.chains.iter().map(|chain| chain.id).eq(ids.iter().copied()), "turn {turn}");
            let used: Vec<_> =
                list.chains.iter().map(|chain| Used { len: 0, id: chain.id, slots: chain.slots }).collect();
            bench.ring.publish(used.iter().copied());
            for id in ids {
                assert_eq!(bench.queue.used().map(|used| used.id), Some(id), "turn {turn}");
            }
            bench.published += burst as u64;
            assert_eq!(bench.ring.base(), encoded(layout, size, bench.published));
        }
        assert!(bench.published / u64::from(size) >= turns as u64 / 2);
    }
}

/// The driver sees nothing of a burst or all of it: on a packed ring the first used descriptor is written last
/// (section 2.8.9 lets the driver skip from there), on a split one the index comes after the elements (2.7.14).
#[test]
fn a_burst_is_seen_as_a_whole() {
    for layout in [Layout::Packed, Layout::Split] {
        let direction = Direction::Writable;
        let mut bench = Bench::new(layout, direction, if layout == Layout::Packed { 97 } else { 128 }, 0);
        let (bursts, end) = (10_000usize, Instant::now() + PATIENCE);
        let burst_len = |burst: usize| 1 + burst * 7 % 32;
        let Bench { queue, ring, shared, .. } = &mut bench;
        std::thread::scope(|scope| {
            scope.spawn(move || {
                for burst in 0..bursts {
                    let mut list = ChainList::new();
                    while list.chains.len() < burst_len(burst) {
                        assert!(Instant::now() < end, "burst {burst} never comes");
                        ring.take(shared, burst_len(burst) - list.chains.len(), &mut list);
                    }
                    let used =
                        |(n, chain): (usize, &Chain<'_>)| Used { len: n as u32, id: chain.id, slots: chain.slots };
                    let used: Vec<_> = list.chains.iter().enumerate().map(used).collect();
                    ring.publish(used.iter().copied());
                }
            });
            for burst in 0..bursts {
                let chain = plain(direction).repeat(1 + burst % 2);
                let add = |_| queue.add(&chain, false).expect("room for a burst");
                let ids: Vec<_> = (0..burst_len(burst)).map(add).collect();
                let first = loop {
                    assert!(Instant::now() < end, "burst {burst} does not come back");
                    match queue.used() {
                        Some(first) => break first,
                        None => std::hint::spin_loop(),
                    }
                };
                assert_eq!((first.id, first.len), (ids[0], 0));
                for (n, id) in (0..).zip(&ids).skip(1) {
                    let next = queue.used().unwrap_or_else(|| panic!("chain {n} of burst {burst} comes late"));
                    assert_eq!((next.id, next.len), (*id, n));
                }
            }
        });
    }
}

/// What a front end may get wrong in setting a ring up.
#[test]
fn a_ring_that_cannot_be() {
    let memory = Arc::new(DriverMemory::new(&[RINGS, LOW, NEXT, APART]).unwrap());
    let shared = map(&memory);
    let queue = Queue::new(Layout::Packed, 8, Queue::fresh_base(Layout::Packed), &memory);
    let good = address(&queue, &memory);
    let make = |packed: bool, address, base| {
        let features = features(if packed { Layout::Packed } else { Layout::Split }, Rules::default());
        Ring::new(features, Direction::Readable, address, base, &shared, None).map(drop)
    };
    assert_eq!(make(true, good, 0x8000), Ok(()));
    for size in [0, 32769, u16::MAX] {
        assert_eq!(make(true, RingAddress { size, ..good }, 0x8000), Err(RingError::Size(size)));
        assert_eq!(make(false, RingAddress { size, ..good }, 0), Err(RingError::Size(size)));
    }
    assert_eq!(make(false, RingAddress { size: 7, ..good }, 0), Err(RingError::Size(7)), "not a power of two");
    assert_eq!(make(true, good, 0x8008), Err(RingError::Base { index: 8, size: 8 }));
    assert_eq!(make(true, good, 0x8007), Ok(()));
    for name in ["descriptor", "driver", "device"] {
        for user in [0, u64::MAX - 1, RINGS.user + RINGS.len - 2, RINGS.guest, NEXT.user - 1] {
            let mut address = good;
            match name {
                "descriptor" => address.descriptors = user,
                "driver" => address.driver = user,
                _ => address.device = user,
            }
            assert_eq!(make(true, address, 0x8000), Err(RingError::Area(name)), "{name} at {user:#x}");
            assert_eq!(make(false, address, 0), Err(RingError::Area(name)), "{name} at {user:#x}");
        }
    }
}

/// What device and driver want to hear of each other (virtio 1.2, sections 2.7.7, 2.7.10 and 2.8.14).
#[test]
fn kicks_and_interrupts_are_asked_for() {
    for layout in [Layout::Packed, Layout::Split] {
        let mut bench = Bench::new(layout, Direction::Readable, 4, 0);
        bench.ring.set_kicks(false);
        assert!(!bench.queue.device_wants_kick());
        bench.ring.set_kicks(true);
        assert!(bench.queue.device_wants_kick());
        assert!(!bench.ring.interrupt(&mut 0), "there is no eventfd");
        let (call, shared) = (Bells::new(false).unwrap().call.unwrap(), bench.shared.clone());
        let address = address(&bench.queue, &bench.memory);
        let base = bench.ring.base();
        let mut ring = Ring::new(
            features(layout, Rules::default()),
            Direction::Readable,
            address,
            base,
            &shared,
            Some(call.into()),
        )
        .unwrap();
        bench.queue.set_interrupts(false);
        assert!(!ring.interrupt(&mut 0));
        bench.queue.set_interrupts(true);
        assert!(ring.interrupt(&mut 0));
    }
}
