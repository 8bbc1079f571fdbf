//! R4: a guest that changes descriptors, lengths and headers while the switch looks at them. Whatever it hits, it hits
//! itself: its neighbours' frames are whole and the accounts balance.

use std::collections::BTreeSet;
use std::os::fd::AsFd;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use ringway_testbed::driver::frame::frame;
use ringway_testbed::driver::front_end::{request, ring};
use ringway_testbed::driver::queue::flag;
use ringway_testbed::driver::{Areas, DriverMemory, Guest, Layout, Options, PATIENCE};

use crate::guests::{LAYOUTS, passes, station};
use crate::scene::{HOSTILE, On, Scene};

/// How long each layout is hammered.
const TIME: Duration = Duration::from_millis(1500);

/// Frames that are to be taken meanwhile, and different rules that are to be broken.
const FRAMES: u64 = 1000;
const FAULTS: usize = 3;

/// Numbers that are random enough, the same each time.
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0
    }

    fn below(&mut self, end: u64) -> u64 {
        (self.next() >> 16) % end
    }

    /// An address as it should be, mostly.
    fn address(&mut self, buffer: u64) -> u64 {
        match self.below(256) {
            0 => self.next(),
            1 => 0,
            _ => buffer + self.below(1024),
        }
    }

    /// The second word of a descriptor of this layout: length, and flags with id or next.
    fn rest(&mut self, layout: Layout, size: u64) -> u64 {
        let len = if self.below(256) == 0 { self.next() as u32 } else { self.below(3000) as u32 };
        let flags = match self.below(128) {
            0 => flag::WRITE,
            1 => flag::INDIRECT,
            2..32 => flag::NEXT,
            _ => 0,
        };
        let other = self.below(size + 1);
        let [low, high] = match layout {
            Layout::Packed => [other, u64::from(flags) | [1 << 7, 1 << 15][self.below(2) as usize]],
            Layout::Split => [u64::from(flags), other],
        };
        u64::from(len) | low << 32 | high << 48
    }
}

/// Changes the ring, and the frame and its header at `buffer`, all the time.
fn scribble(memory: &DriverMemory, layout: Layout, size: u64, areas: Areas, buffer: u64, stop: &AtomicBool) {
    let mut random = Random(0x1234_5678_9abc_def1);
    while !stop.load(Ordering::Relaxed) {
        let slot = areas.descriptors + random.below(size) * 16;
        match random.below(4) {
            0 => memory.store_u64(slot, random.address(buffer), Ordering::Relaxed),
            1 | 2 => memory.store_u64(slot + 8, random.rest(layout, size), Ordering::Relaxed),
            // Mostly zeros, as a header without offloads has them.
            _ => memory.store_u64(
                buffer + random.below(256) * 8,
                if random.below(8) == 0 { random.next() } else { 0 },
                Ordering::Relaxed,
            ),
        }
        if layout == Layout::Split && random.below(64) == 0 {
            let head = areas.driver + 4 + random.below(size) * 2;
            memory.store_u16(head, random.below(size) as u16, Ordering::Relaxed);
            let index = memory.load_u16(areas.driver + 2, Ordering::Relaxed);
            memory.store_u16(areas.driver + 2, index.wrapping_add(random.below(4) as u16), Ordering::Release);
        }
    }
}

/// Ends the scribbling however the test ends.
struct StopOnDrop<'a>(&'a AtomicBool);

impl Drop for StopOnDrop<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

/// Stops both rings, and starts them anew, the transmitq at `base` or where it stood.
fn reset(guest: &mut Guest, base: Option<u32>) {
    let [_, stood] = guest.stop(0).unwrap();
    let Guest { front_end, pairs, memory, .. } = guest;
    let pair = &pairs[0];
    front_end.start(0, &pair.receiveq, memory, &pair.receive_bells).unwrap();
    let areas = pair.transmitq.areas();
    let [descriptors, driver, device] = [areas.descriptors, areas.driver, areas.device].map(|area| memory.user(area));
    front_end.set_base(1, base.unwrap_or(stood)).unwrap();
    front_end.set_address(1, Areas { descriptors, driver, device }).unwrap();
    let kick = pair.transmit_bells.kick.as_ref().map(AsFd::as_fd);
    front_end.set_fd(request::SET_VRING_KICK, 1, kick).unwrap();
}

#[test]
fn descriptors_change_while_they_are_read() {
    for layout in LAYOUTS {
        let size = if layout == Layout::Packed { 61 } else { 64 };
        let mut scene = Scene::with(On::Transmitq, Options { size, ..Options::new(layout) });
        let (stop, mut faults) = (AtomicBool::new(false), BTreeSet::new());
        std::thread::scope(|scope| {
            let Scene { net, hostile, neighbours, buffer, .. } = &mut scene;
            let (memory, areas, buffer) = (hostile.memory.clone(), hostile.pairs[0].transmitq.areas(), *buffer);
            let (shared, stop) = (memory.clone(), &stop);
            let _stops = StopOnDrop(stop);
            scope.spawn(move || scribble(&shared, layout, size.into(), areas, buffer, stop));
            let start = Instant::now();
            let counters = net.counters(HOSTILE);
            // On a busy machine it takes longer until something is hit.
            let proves_much = |faults: &BTreeSet<_>| counters.received.packets.get() > FRAMES && faults.len() >= FAULTS;
            while start.elapsed() < TIME || !proves_much(&faults) && start.elapsed() < PATIENCE {
                for _ in 0..20 {
                    // A broken pair is started anew, with whatever is in its rings.
                    faults.extend(net.counters(HOSTILE).fault().map(|fault| fault.as_str()));
                    let index: u32 = memory.load_u16(areas.driver + 2, Ordering::Relaxed).into();
                    let base = if layout == Layout::Split { Some(index) } else { None };
                    reset(hostile, base);
                    ring(hostile.pairs[0].transmit_bells.kick.as_ref().unwrap());
                }
                neighbours_talk(neighbours);
            }
        });
        let received = scene.net.counters(HOSTILE).received.packets.get();
        assert!(received > FRAMES && faults.len() >= FAULTS, "{layout:?}: {received} frames, {faults:?} prove little");
        scene.hostile.front_end.hang_up();
        scene.net.assert_balances();
        let Scene { net, mut neighbours, .. } = scene;
        let mut decent = net.plug(HOSTILE, Options::new(layout));
        decent.send(&frame(station(0), station(HOSTILE), 64, 1));
        neighbours_talk(&mut neighbours);
        neighbours.push(decent);
        passes(&mut neighbours, 1, HOSTILE, 64);
    }
}

/// Each says something to the other, and it comes as it was said. What else comes is the hostile guest's, and may take the
/// last buffer: then it is said again.
fn neighbours_talk(neighbours: &mut [Guest]) {
    for (from, to) in [(0, 1), (1, 0)] {
        let sent = frame(station(to), station(from), 700, from as u64);
        let comes = (0..50).any(|_| {
            neighbours[from].send(&sent);
            let again = Instant::now() + Duration::from_millis(100);
            std::iter::from_fn(|| {
                neighbours[to].pairs[0].receive_within(again.saturating_duration_since(Instant::now()))
            })
            .any(|came| came == sent)
        });
        assert!(comes, "what {from} says to {to} is lost or changed");
    }
}
