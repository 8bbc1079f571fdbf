//! R4: a guest that changes descriptors, lengths, tables and headers of both its rings while the switch looks at them. Whatever
//! it hits, it hits itself: nothing beside its memory is touched, its neighbours' frames are whole and the accounts balance.

use std::collections::BTreeSet;
use std::os::fd::AsFd;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use ringway_testbed::driver::frame::frame;
use ringway_testbed::driver::front_end::{request, ring};
use ringway_testbed::driver::hostile::Scribbler;
use ringway_testbed::driver::{Areas, Guest, Layout, Options, PATIENCE};

use crate::guests::{LAYOUTS, passes, station};
use crate::scene::{HOSTILE, On, Scene};

/// How long each layout is hammered.
const TIME: Duration = Duration::from_millis(1500);

/// Frames that are to be taken meanwhile, and different rules that are to be broken.
const FRAMES: u64 = 1000;
const FAULTS: usize = 3;

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

/// Class of CVE-2020-14375.
#[test]
fn r04_descriptors_change_while_they_are_read() {
    for layout in LAYOUTS {
        let size = if layout == Layout::Packed { 61 } else { 64 };
        let mut scene = Scene::with(On::Transmitq, Options { size, margins: true, ..Options::new(layout) });
        let (stop, mut faults) = (AtomicBool::new(false), BTreeSet::new());
        std::thread::scope(|scope| {
            let Scene { net, hostile, neighbours, .. } = &mut scene;
            let (memory, areas) = (hostile.memory.clone(), hostile.pairs[0].transmitq.areas());
            let stop = &stop;
            let _stops = StopOnDrop(stop);
            for (queue, writable) in [(&hostile.pairs[0].transmitq, false), (&hostile.pairs[0].receiveq, true)] {
                let mut scribbler = Scribbler::new(queue, layout, writable, &memory, size.into());
                scope.spawn(move || {
                    while !stop.load(Ordering::Relaxed) {
                        (0..100).for_each(|_| scribbler.scribble());
                        std::thread::yield_now();
                    }
                });
            }
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
        assert!(scene.hostile.memory.margins_are_whole(), "{layout:?}: the switch writes beside the guest's memory");
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
