//! EVENT_IDX (virtio 1.2, sections 2.7.7, 2.7.10 and 2.8.14): who wants to hear of what, against a model in which positions
//! are numbers that never repeat.

use std::collections::VecDeque;
use std::os::fd::OwnedFd;

use proptest::prelude::*;
use ringway::guest::ring::{ChainList, Direction, Ring, Used};
use ringway_testbed::driver::front_end::{Bells, rung};
use ringway_testbed::driver::{Layout, Rules};

use crate::{Bench, address, encoded, features, plain};

const RULES: Rules = Rules { event_idx: true, in_order: false };

/// One step of a driver and a device.
#[derive(Clone, Debug)]
enum Step {
    /// The driver makes so many chains available.
    Offer(u16),
    /// The device uses up to so many.
    Serve(usize),
    /// The driver collects up to so many.
    Collect(usize),
    /// The driver wants to hear of what comes after so many slots, modulo the ring.
    Want(u16),
    /// It wants to hear of nothing.
    Silence,
    /// The device decides whether to interrupt.
    Decide,
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let step = prop_oneof![
        4 => (1u16..40).prop_map(Step::Offer),
        4 => (1usize..40).prop_map(Step::Serve),
        4 => (1usize..40).prop_map(Step::Collect),
        3 => prop_oneof![3 => 0u16..4, 1 => any::<u16>()].prop_map(Step::Want),
        1 => Just(Step::Silence),
        3 => Just(Step::Decide),
    ];
    prop::collection::vec(step, 1..200)
}

/// A ring, and where everybody stands in numbers that never repeat.
struct Model {
    bench: Bench,
    ring: Ring,
    call: OwnedFd,
    /// Slots of each chain published and not collected.
    uncollected: VecDeque<u64>,
    collected: i64,
    published: i64,
    decided: i64,
    /// The position that the driver wants to hear of; `None` for a packed ring's driver that wants silence.
    event: Option<i64>,
    /// Positions look alike after so many.
    repeats: i64,
}

impl Model {
    fn new(layout: Layout, direction: Direction, size: u16, position: u16) -> Self {
        let bench = Bench::with(layout, RULES, direction, size, position.into());
        let call = Bells::new(false).unwrap().call.unwrap();
        let base = encoded(layout, size, position.into());
        let (features, address) = (features(layout, RULES), address(&bench.queue, &bench.memory));
        let theirs = Some(call.try_clone().unwrap());
        let ring = Ring::new(features, direction, address, base, &bench.shared, theirs.map(Into::into)).unwrap();
        bench.queue.set_interrupts(false);
        let at = i64::from(position);
        let (event, repeats) = match layout {
            Layout::Packed => (None, 2 * i64::from(size)),
            Layout::Split => (Some(at - 1), 1 << 16),
        };
        let uncollected = VecDeque::new();
        Self { bench, ring, call, uncollected, collected: at, published: at, decided: at, event, repeats }
    }

    fn step(&mut self, step: &Step) {
        let Self { bench, ring, .. } = self;
        match *step {
            Step::Offer(count) => {
                for n in 0..count {
                    let pieces = plain(bench.direction).repeat(1 + usize::from(n % 3));
                    if pieces.len() <= usize::from(bench.queue.room()) {
                        bench.queue.add(&pieces, false).unwrap();
                    }
                }
            }
            Step::Serve(count) => {
                let mut list = ChainList::new();
                ring.take(&bench.shared, count, &mut list);
                let used: Vec<_> =
                    list.chains.iter().map(|chain| Used { len: 0, id: chain.id, slots: chain.slots }).collect();
                if !used.is_empty() {
                    ring.publish(used.iter().copied());
                }
                for used in used {
                    self.uncollected.push_back(used.slots.into());
                    self.published += i64::from(used.slots);
                }
            }
            Step::Collect(count) => {
                for slots in self.uncollected.drain(..count.min(self.uncollected.len())) {
                    bench.queue.used().unwrap();
                    self.collected += slots as i64;
                }
            }
            Step::Want(skip) => {
                let skip = skip % bench.queue.size();
                bench.queue.set_interrupt_after(skip);
                self.event = Some(self.collected + i64::from(skip));
            }
            Step::Silence => {
                bench.queue.set_interrupts(false);
                self.event = (bench.layout == Layout::Split).then_some(self.collected - 1);
            }
            Step::Decide => self.decide(),
        }
    }

    fn decide(&mut self) {
        let interrupted = self.ring.interrupt(&mut 0);
        assert_eq!(rung(&self.call), u64::from(interrupted), "the eventfd");
        let window = self.decided..self.published;
        let wanted = self.event.is_some_and(|event| window.contains(&event));
        // One interrupt too many is allowed where positions look alike: a wish from long ago, or more than a lap undecided.
        let old = self.event.is_some_and(|event| self.published - event > self.repeats);
        let in_doubt = self.event.is_some() && (old || window.end - window.start > self.repeats / 2);
        assert!(interrupted == wanted || interrupted && in_doubt, "{:?} of {window:?}", self.event);
        self.decided = self.published;
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 256, ..ProptestConfig::default() })]

    /// Any size, least of all powers of two, and over the wrap again and again.
    #[test]
    fn a_packed_ring_interrupts_as_the_model_says(
        size in prop_oneof![3u16..=70, 3u16..=7, Just(255u16), Just(32768u16)],
        direction in prop_oneof![Just(Direction::Readable), Just(Direction::Writable)],
        position: u16,
        steps in steps(),
    ) {
        let mut model = Model::new(Layout::Packed, direction, size, position);
        (0..4).for_each(|_| steps.iter().for_each(|step| model.step(step)));
    }

    /// The index runs over its 16 bits.
    #[test]
    fn a_split_ring_interrupts_as_the_model_says(
        power in 2u32..=8,
        direction in prop_oneof![Just(Direction::Readable), Just(Direction::Writable)],
        position in prop_oneof![any::<u16>(), 65300u16..],
        steps in steps(),
    ) {
        let mut model = Model::new(Layout::Split, direction, 1 << power, position);
        (0..4).for_each(|_| steps.iter().for_each(|step| model.step(step)));
    }
}

/// A device that asked is kicked for the first chain that comes, and for none after it; one that did not ask, for none.
#[test]
fn a_device_is_kicked_once_each_time_it_asks() {
    for (layout, size) in
        [(Layout::Packed, 1), (Layout::Packed, 5), (Layout::Packed, 256), (Layout::Split, 1), (Layout::Split, 8)]
    {
        // Near the end of the split ring's 16 bits, and over the packed one's wrap many times.
        let mut bench = Bench::with(layout, RULES, Direction::Readable, size, 65_536 - 100);
        bench.ring.set_kicks(false);
        for turn in 0..3000u16 {
            let asks = turn % 3 != 0;
            if asks {
                bench.ring.set_kicks(true);
                assert!(!bench.ring.has_available());
            }
            for n in 0..1 + turn % size {
                assert!(bench.offer(plain(Direction::Readable), false));
                assert_eq!(
                    bench.queue.device_wants_kick(),
                    asks && n == 0,
                    "{layout:?} {size}: turn {turn}, chain {n}"
                );
            }
            if asks {
                bench.ring.set_kicks(false);
            }
            bench.serve(&[128, 128], |taken| taken);
            while !bench.waiting.is_empty() {
                bench.serve(&[128], |taken| taken);
            }
            bench.collect();
        }
    }
}

/// A position that is not in the ring is nonsense: the guest gets its interrupts, and nobody comes to harm.
#[test]
fn a_position_beyond_the_ring() {
    let mut bench = Bench::with(Layout::Packed, RULES, Direction::Readable, 7, 0);
    let (call, address) = (Bells::new(false).unwrap().call.unwrap(), address(&bench.queue, &bench.memory));
    let base = bench.ring.base();
    let features = features(Layout::Packed, RULES);
    bench.ring = Ring::new(features, Direction::Readable, address, base, &bench.shared, Some(call.into())).unwrap();
    for bits in [7, 0x7fff, 0x8007, 0xffff] {
        let driver = bench.queue.areas().driver;
        bench.memory.store_u32(driver, 2 << 16 | bits, std::sync::atomic::Ordering::Relaxed);
        bench.offer(plain(Direction::Readable), false);
        bench.serve(&[1], |taken| taken);
        assert!(bench.ring.interrupt(&mut 0), "{bits:#x}");
        bench.collect();
    }
}
