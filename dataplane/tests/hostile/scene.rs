//! A hostile guest between two decent ones.

use ringway::account::DropReason;
use ringway::control::View;
use ringway::guest::ring::RingFault;
use ringway_testbed::driver::frame::frame;
use ringway_testbed::driver::queue::flag;
use ringway_testbed::driver::{Guest, Layout, Options, RawDescriptor, eventually};

use crate::guests::{Net, introduce, passes, station};

/// The hostile guest's port; ports 0 and 1 are its neighbours'.
pub(crate) const HOSTILE: usize = 2;

/// Which ring of its pair the hostile guest abuses.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum On {
    Transmitq,
    Receiveq,
}

impl On {
    pub(crate) const BOTH: [Self; 2] = [Self::Transmitq, Self::Receiveq];

    /// The flag that a buffer of this ring is to have.
    pub(crate) fn right(self) -> u16 {
        match self {
            Self::Transmitq => 0,
            Self::Receiveq => flag::WRITE,
        }
    }

    /// The flag that a buffer of this ring is not to have.
    pub(crate) fn wrong(self) -> u16 {
        flag::WRITE - self.right()
    }
}

pub(crate) struct Scene {
    pub(crate) net: Net,
    pub(crate) neighbours: Vec<Guest>,
    pub(crate) hostile: Guest,
    pub(crate) on: On,
    layout: Layout,
    /// A buffer of 4 KiB of the hostile guest's.
    pub(crate) buffer: u64,
}

impl Scene {
    /// All three know each other; the hostile guest's receiveq is empty if it is to be abused.
    pub(crate) fn new(layout: Layout, on: On) -> Self {
        Self::with(on, Options::new(layout))
    }

    pub(crate) fn with(on: On, options: Options) -> Self {
        let layout = options.layout();
        let net = Net::new(3);
        let mut guests = vec![net.plug(0, Options::new(Layout::Packed)), net.plug(1, Options::new(Layout::Split))];
        // As many buffers as the introductions take.
        let buffers = if on == On::Receiveq { 0 } else { options.buffers };
        guests.push(net.plug(HOSTILE, Options { buffers, ..options }));
        if on == On::Receiveq {
            // Known by its own frame; what comes to it finds no buffer yet.
            guests[HOSTILE].send(&frame(station(0), station(HOSTILE), 64, 0));
            assert!((0..2).all(|other| guests[other].receive().is_some()));
            introduce(&mut guests[..2]);
        } else {
            introduce(&mut guests);
        }
        let hostile = guests.pop().unwrap();
        let buffer = hostile.memory.alloc(4096, 4096);
        Self { net, neighbours: guests, hostile, on, layout, buffer }
    }

    pub(crate) fn raw(&self, flags: u16) -> RawDescriptor {
        RawDescriptor { address: self.buffer, len: 1514, flags: self.on.right() | flags, next: None }
    }

    /// A descriptor of an indirect table with these entries.
    pub(crate) fn table(&self, entries: &[RawDescriptor]) -> RawDescriptor {
        let (address, len) = self.hostile.pairs[0].transmitq.write_table(entries);
        RawDescriptor { address, len, flags: flag::INDIRECT, next: None }
    }

    /// Makes the descriptors available on the ring that is abused, and has the switch look at them.
    pub(crate) fn offer(&mut self, descriptors: &[RawDescriptor]) {
        let pair = &mut self.hostile.pairs[0];
        match self.on {
            On::Transmitq => pair.transmitq.add_raw(descriptors),
            On::Receiveq => pair.receiveq.add_raw(descriptors),
        }
        self.provoke();
    }

    /// Has the switch look at the ring that is abused.
    pub(crate) fn provoke(&mut self) {
        match self.on {
            On::Transmitq => self.hostile.pairs[0].kick(),
            On::Receiveq => self.neighbours[0].send(&frame(station(HOSTILE), station(0), 200, 0)),
        }
    }

    /// What must be so after a rule was broken.
    pub(crate) fn assert_broken(mut self, fault: RingFault) {
        let (layout, on, name) = (self.layout, self.on, fault.as_str());
        let counters = self.net.counters(HOSTILE);
        assert!(eventually(|| counters.fault().is_some()), "{layout:?} {on:?}: {name} goes unnoticed");
        assert_eq!(counters.fault(), Some(fault), "{layout:?} {on:?}");
        self.assert_seen(fault);
        assert!(eventually(|| self.hostile.pairs[0].is_given_up()), "{layout:?} {on:?}: the guest is not told");
        // The pair stands still in both directions.
        let before = self.net.counters(HOSTILE).transmit_dropped.get(DropReason::ReceiverStopped);
        self.neighbours[0].send(&frame(station(HOSTILE), station(0), 64, 0));
        let dropped = || self.net.counters(HOSTILE).transmit_dropped.get(DropReason::ReceiverStopped);
        assert!(eventually(|| dropped() == before + 1), "{layout:?} {on:?}: something is still delivered");
        self.neighbours_talk();
        self.net.assert_balances();
        // A guest that behaves is served at the same port.
        self.hostile.front_end.hang_up();
        let Self { net, mut neighbours, .. } = self;
        neighbours.push(net.plug(HOSTILE, Options::new(layout)));
        assert_eq!(net.counters(HOSTILE).fault(), None);
        introduce(&mut neighbours);
        passes(&mut neighbours, HOSTILE, 0, 64);
        passes(&mut neighbours, 1, HOSTILE, 64);
        net.assert_balances();
    }

    /// In `show ports`, `show queues` and the metrics.
    fn assert_seen(&self, fault: RingFault) {
        let name = fault.as_str();
        let ports = self.net.show(View::Ports);
        let broken = ports[HOSTILE]["broken_queues"].as_array().unwrap();
        assert!(broken.len() == 1 && broken[0].as_str().unwrap().starts_with("vm2/0"), "{broken:?}");
        for neighbour in 0..2 {
            assert_eq!(ports[neighbour]["broken_queues"], serde_json::json!([]));
        }
        let queues = self.net.show(View::Queues);
        let queue = queues.as_array().unwrap().iter().find(|queue| queue["queue"] == "vm2/0").unwrap();
        assert_eq!(queue["broken"], name);
        let metric = |labels: &[(&str, &str)]| self.net.metric("ringway_queue_broken", labels);
        assert_eq!((metric(&[]), metric(&[("port", "vm2"), ("queue", "0"), ("rule", name)])), (1, 1));
    }

    /// What must be so after something that breaks no rule of rings: the pair runs.
    pub(crate) fn assert_runs(&mut self) {
        assert_eq!(self.net.counters(HOSTILE).fault(), None, "{:?} {:?}", self.layout, self.on);
        self.neighbours_talk();
        self.net.assert_balances();
    }

    pub(crate) fn neighbours_talk(&mut self) {
        passes(&mut self.neighbours, 0, 1, 64);
        passes(&mut self.neighbours, 1, 0, 1514);
    }
}
