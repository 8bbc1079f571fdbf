//! Whose turn it is: the queues that frames come by, and how a worker that has more to do than time shares its cycles
//! among ports.
//!
//! As long as each visit leaves its queue empty there is nothing to share: every queue is visited once a round, and nobody
//! looks at the clock. When one does not, and others have frames, too, ports are served by deficit round robin (Shreedhar
//! and Varghese, 1995) with cycles for bytes: each visit takes what it cost, by the time-stamp counter, from its port's
//! credit, whichever of the port's queues it was, and a port in debt waits with its frames in its own rings. When all that
//! have frames left are in debt, the rounds that would pass in vain are given at once: every port gets what lifts the
//! least indebted of them to [`QUANTUM`]. So no cycle is spent on waiting, and a port alone takes all there is.
//!
//! Who sends little is never in debt for long, whatever others cost; who costs more a frame gets fewer frames.

/// What a port may have saved up, in ticks of the time-stamp counter: less than a visit, so that a port that was silent
/// gets no more at once than others.
const QUANTUM: i64 = 4096;

/// What a visit is charged at most: the work of a visit is bounded, and whatever is longer was the host's doing, which took the
/// CPU away.
const CHARGE_MAX: u64 = 1 << 18;

/// What came of a visit.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Visit {
    /// Frames taken.
    pub(super) frames: usize,
    /// There may be more where they came from.
    pub(super) more: bool,
    /// Ticks of it that were spent on what visits before it have left to do: interrupts.
    pub(super) overdue: u64,
}

/// Who does the visits.
pub(super) trait Visitor {
    /// Takes a burst from the queue in `slot`.
    fn visit(&mut self, slot: usize) -> Visit;
    /// Whether a visit would find something, as far as that can be told without one.
    fn has_frames(&self, slot: usize) -> bool;
    /// The queue in `slot` was not visited since its port is in debt.
    fn put_off(&mut self, slot: usize);
    /// A visit to the queue in `slot` has cost so many ticks, while others had frames, too.
    fn charge(&mut self, slot: usize, ticks: u64);
    /// The time-stamp counter.
    fn now(&self) -> u64;
}

/// A port's queues, and what it has left.
#[derive(Debug)]
struct Port {
    number: u16,
    /// Where its queues begin in [`Turns::slots`], and how many there are.
    start: usize,
    count: usize,
    /// The queue that is next when not all can be visited.
    next: usize,
    /// In ticks; a debt below 0.
    credit: i64,
}

/// The queues of a worker by which frames come, by port.
#[derive(Debug, Default)]
pub(super) struct Turns {
    slots: Vec<u16>,
    ports: Vec<Port>,
    /// More came than was taken: cycles are shared.
    is_shared: bool,
    /// The visit before: the place of its port, and the slot.
    last: Option<(usize, usize)>,
}

impl Turns {
    /// With room for so many queues.
    pub(super) fn with_capacity(queues: usize) -> Self {
        Self { slots: Vec::with_capacity(queues), ports: Vec::with_capacity(queues), ..Self::default() }
    }

    /// The slots of all queues.
    pub(super) fn slots(&self) -> &[u16] {
        &self.slots
    }

    /// From now on the queue in `slot` is visited, one of `port`.
    pub(super) fn add(&mut self, port: u16, slot: usize) {
        let at = self.ports.iter().position(|other| other.number == port).unwrap_or_else(|| {
            self.ports.push(Port { number: port, start: self.slots.len(), count: 0, next: 0, credit: QUANTUM });
            self.ports.len() - 1
        });
        self.last = None;
        let Port { start, count, .. } = &mut self.ports[at];
        self.slots.insert(*start + *count, slot as u16);
        *count += 1;
        self.ports[at + 1..].iter_mut().for_each(|behind| behind.start += 1);
    }

    /// The queue in `slot` is not visited any more.
    pub(super) fn remove(&mut self, slot: usize) {
        let Some(at) = self.slots.iter().position(|&other| usize::from(other) == slot) else { return };
        self.last = None;
        self.slots.remove(at);
        for port in &mut self.ports {
            if port.start > at {
                port.start -= 1;
            } else if at < port.start + port.count {
                port.count -= 1;
                port.next = 0;
            }
        }
        self.ports.retain(|port| port.count > 0);
    }

    /// Something else than a visit was done: what that leaves to be done is not for the visit before it.
    pub(super) fn forget_last(&mut self) {
        self.last = None;
    }

    /// Visits whose turn it is. How many frames that were.
    #[inline]
    pub(super) fn round(&mut self, visitor: &mut impl Visitor) -> usize {
        if self.is_shared {
            return self.shared_round(visitor);
        }
        let (mut frames, mut found, mut more) = (0, 0, false);
        for &slot in &self.slots {
            let visit = visitor.visit(usize::from(slot));
            frames += visit.frames;
            found += usize::from(visit.frames > 0);
            more |= visit.more;
        }
        if more && found > 1 && self.ports.len() > 1 {
            self.ports.iter_mut().for_each(|port| port.credit = QUANTUM);
            self.is_shared = true;
        }
        frames
    }

    #[inline(never)]
    fn shared_round(&mut self, visitor: &mut impl Visitor) -> usize {
        let mut frames = 0;
        // The most that a port has left which has frames left, too.
        let mut richest = None;
        // When the visit before ended, unless something else was done since.
        let mut ended = None;
        for at in 0..self.ports.len() {
            let mut waits = false;
            for _ in 0..self.ports[at].count {
                let Port { start, next, credit, .. } = self.ports[at];
                let slot = usize::from(self.slots[start + next]);
                if visitor.has_frames(slot) {
                    if credit <= 0 {
                        visitor.put_off(slot);
                        waits = true;
                        break;
                    }
                    let begun = ended.unwrap_or_else(|| visitor.now());
                    let visit = visitor.visit(slot);
                    let end = visitor.now();
                    self.charge(visitor, (at, slot), end.wrapping_sub(begun).saturating_sub(visit.overdue));
                    if let Some(last) = self.last.filter(|_| visit.overdue > 0) {
                        self.charge(visitor, last, visit.overdue);
                    }
                    (self.last, ended) = (Some((at, slot)), Some(end));
                    frames += visit.frames;
                    waits |= visit.more;
                } else {
                    ended = None;
                }
                let Port { next, count, .. } = &mut self.ports[at];
                *next = if *next + 1 < *count { *next + 1 } else { 0 };
            }
            if waits {
                richest = richest.max(Some(self.ports[at].credit));
            }
        }
        match richest {
            None => self.is_shared = false,
            Some(richest) if richest <= 0 => {
                let gift = QUANTUM - richest;
                self.ports.iter_mut().for_each(|port| port.credit = (port.credit + gift).min(QUANTUM));
            }
            Some(_) => {}
        }
        frames
    }

    #[inline]
    fn charge(&mut self, visitor: &mut impl Visitor, (at, slot): (usize, usize), ticks: u64) {
        self.ports[at].credit -= ticks.min(CHARGE_MAX) as i64;
        visitor.charge(slot, ticks);
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashMap;

    use proptest::prelude::*;

    use super::*;

    /// Queues with frames, each at a price, on a clock of their own.
    #[derive(Default)]
    struct Scene {
        now: u64,
        overdue: u64,
        /// By slot.
        queues: HashMap<usize, Queue>,
        visits: Vec<usize>,
    }

    #[derive(Clone, Copy, Default)]
    struct Queue {
        waiting: u64,
        /// Of a frame.
        price: u64,
        /// What a visit leaves to be done.
        leaves: u64,
        frames: u64,
        put_off: u64,
        charged: u64,
    }

    const BURST: u64 = 32;
    const ENDLESS: u64 = u64::MAX / 2;

    impl Visitor for Scene {
        fn visit(&mut self, slot: usize) -> Visit {
            self.visits.push(slot);
            let queue = self.queues.get_mut(&slot).unwrap();
            let overdue = std::mem::replace(&mut self.overdue, queue.leaves);
            let frames = queue.waiting.min(BURST);
            queue.waiting -= frames;
            queue.frames += frames;
            self.now += frames * queue.price + overdue;
            Visit { frames: frames as usize, more: frames == BURST, overdue }
        }

        fn has_frames(&self, slot: usize) -> bool {
            self.queues[&slot].waiting > 0
        }

        fn put_off(&mut self, slot: usize) {
            self.queues.get_mut(&slot).unwrap().put_off += 1;
        }

        fn charge(&mut self, slot: usize, ticks: u64) {
            self.queues.get_mut(&slot).unwrap().charged += ticks;
        }

        fn now(&self) -> u64 {
            self.now
        }
    }

    impl Scene {
        /// Of each port, prices of its queues, which never are empty. Slots count on.
        fn busy(ports: &[&[u64]]) -> (Self, Turns) {
            let (mut scene, mut turns) = (Self::default(), Turns::default());
            let queues = (0..).zip(ports).flat_map(|(port, prices)| prices.iter().map(move |&price| (port, price)));
            for (slot, (port, price)) in queues.enumerate() {
                scene.queues.insert(slot, Queue { waiting: ENDLESS, price, ..Queue::default() });
                turns.add(port, slot);
            }
            (scene, turns)
        }

        fn cycles(&self, slot: usize) -> u64 {
            self.queues[&slot].frames * self.queues[&slot].price
        }

        fn run(&mut self, turns: &mut Turns, until: u64) {
            while self.now < until {
                assert!(turns.round(self) > 0, "a round in which nobody is served though all want to be");
            }
        }
    }

    #[test]
    fn ports_get_as_many_cycles_whatever_a_frame_costs() {
        let (mut scene, mut turns) = Scene::busy(&[&[100], &[3000], &[250]]);
        scene.run(&mut turns, 100_000_000);
        for slot in 0..3 {
            let share = scene.cycles(slot) as f64 / scene.now as f64;
            assert!((0.32..0.35).contains(&share), "slot {slot} has {share}");
            let uncharged = scene.cycles(slot) - scene.queues[&slot].charged;
            assert_eq!(uncharged, 32 * scene.queues[&slot].price, "the first round");
        }
        assert!(scene.queues[&1].put_off > 100 && scene.queues[&0].put_off == 0);
    }

    #[test]
    fn queues_of_a_port_share_what_it_gets_and_take_turns() {
        let (mut scene, mut turns) = Scene::busy(&[&[100; 8], &[100]]);
        scene.run(&mut turns, 100_000_000);
        let share = scene.cycles(8) as f64 / scene.now as f64;
        assert!((0.49..0.51).contains(&share), "the port with one queue has {share}");
        for slot in 0..8 {
            let share = scene.cycles(slot) as f64 / scene.now as f64;
            assert!((0.06..0.065).contains(&share), "slot {slot} has {share}");
        }
    }

    /// However dear its neighbours are, a port that wants less than its share is visited in every round, and never put off.
    #[test]
    fn who_wants_less_than_his_share_never_waits() {
        let (mut scene, mut turns) = Scene::busy(&[&[5000], &[100], &[3000]]);
        // 100 ticks a frame, and a frame every 400 ticks: a quarter of the worker.
        let mut offered = 0;
        scene.queues.get_mut(&1).unwrap().waiting = 0;
        for _ in 0..2000 {
            let due = scene.now / 400;
            scene.queues.get_mut(&1).unwrap().waiting += due - offered;
            offered = due;
            turns.round(&mut scene);
        }
        let queue = scene.queues[&1];
        // What came during the last two visits of the others may still wait.
        assert!(queue.waiting <= 2 * 32 * 5000 / 400, "{} wait", queue.waiting);
        assert_eq!(queue.frames + queue.waiting, offered);
        assert!(offered > 10_000);
    }

    #[test]
    fn a_port_alone_takes_all_and_nobody_looks_at_the_clock_where_nothing_waits() {
        let (mut scene, mut turns) = Scene::busy(&[&[5000], &[100]]);
        scene.queues.get_mut(&1).unwrap().waiting = 40;
        for _ in 0..100 {
            assert!(turns.round(&mut scene) >= 32);
        }
        assert_eq!((scene.queues[&0].frames, scene.queues[&1].frames), (3200, 40));
        scene.queues.get_mut(&0).unwrap().waiting = 5;
        turns.round(&mut scene);
        assert!(!turns.is_shared);
        let charged = scene.queues[&0].charged;
        for _ in 0..10 {
            scene.queues.values_mut().for_each(|queue| queue.waiting = 5);
            assert_eq!(turns.round(&mut scene), 10);
        }
        assert_eq!((scene.queues[&0].charged, turns.is_shared), (charged, false));
    }

    /// Interrupts that a visit leaves to the next one are its own.
    #[test]
    fn what_is_overdue_is_charged_to_who_left_it() {
        let (mut scene, mut turns) = Scene::busy(&[&[100], &[100]]);
        scene.queues.get_mut(&0).unwrap().leaves = 6400;
        scene.run(&mut turns, 100_000_000);
        let frames = [0, 1].map(|slot| scene.queues[&slot].frames as f64);
        assert!((2.9..3.1).contains(&(frames[1] / frames[0])), "{frames:?}");
    }

    #[test]
    fn what_the_host_took_is_not_a_ports_debt() {
        let (mut scene, mut turns) = Scene::busy(&[&[100], &[100]]);
        scene.run(&mut turns, 1_000_000);
        scene.queues.get_mut(&0).unwrap().price = 1_000_000_000;
        let before = scene.queues[&0].frames;
        while scene.queues[&0].frames == before {
            turns.round(&mut scene);
        }
        scene.queues.get_mut(&0).unwrap().price = 100;
        let (then, mut rounds) = (scene.queues[&0].frames, 0);
        while scene.queues[&0].frames == then {
            turns.round(&mut scene);
            rounds += 1;
        }
        assert!(rounds as u64 <= CHARGE_MAX / 3200 + 5, "{rounds} rounds");
    }

    proptest! {
        /// Queues come and go; each is visited exactly once a round where nothing is shared, those of a port one after another.
        #[test]
        fn each_queue_has_its_place(steps in proptest::collection::vec((0u16..5, 0usize..40, any::<bool>()), 1..100)) {
            let (mut scene, mut turns) = Scene::busy(&[]);
            let mut ports = HashMap::new();
            for (port, slot, comes) in steps {
                if comes && !ports.contains_key(&slot) {
                    ports.insert(slot, port);
                    scene.queues.insert(slot, Queue::default());
                    turns.add(port, slot);
                } else if !comes && ports.remove(&slot).is_some() {
                    turns.remove(slot);
                }
                scene.visits.clear();
                turns.round(&mut scene);
                let mut visited = scene.visits.clone();
                let mut groups: Vec<u16> = visited.iter().map(|slot| ports[slot]).collect();
                groups.dedup();
                let distinct: std::collections::HashSet<_> = groups.iter().collect();
                prop_assert_eq!(distinct.len(), groups.len(), "the queues of a port are apart");
                visited.sort_unstable();
                let mut expected: Vec<_> = ports.keys().copied().collect();
                expected.sort_unstable();
                prop_assert_eq!(visited, expected);
                for port in &turns.ports {
                    let own = &turns.slots[port.start..port.start + port.count];
                    prop_assert!(own.iter().all(|slot| ports[&usize::from(*slot)] == port.number));
                }
            }
        }

        /// Any prices: over a long time nobody has more than a visit over anybody else.
        #[test]
        fn shares_are_even(prices in proptest::collection::vec(10u64..4000, 2..8)) {
            let ports: Vec<_> = prices.iter().map(std::slice::from_ref).collect();
            let (mut scene, mut turns) = Scene::busy(&ports);
            scene.run(&mut turns, 50_000_000);
            let cycles: Vec<_> = (0..prices.len()).map(|slot| scene.cycles(slot)).collect();
            let spread = cycles.iter().max().unwrap() - cycles.iter().min().unwrap();
            prop_assert!(spread <= 4 * BURST * prices.iter().max().unwrap() + 2 * QUANTUM as u64, "{:?}", cycles);
        }
    }
}
