//! Who has to wait when a worker has more to do than time: the port whose frames cost the most, in its own rings.
//!
//! In what order frames come is what tells here, not when: all that is sent waits in the rings before the worker wakes.

use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use ringway::account::DropReason;
use ringway::nic::Host;
use ringway::nic::Received;
use ringway::nic::double::Wire;
use ringway::packet::Abilities;
use ringway_config::PortPolicy;
use ringway_testbed::driver::frame::{BROADCAST, frame, mac};
use ringway_testbed::driver::front_end::ring;
use ringway_testbed::driver::{Guest, Layout, Options, PATIENCE, Piece, eventually};

use crate::guests::{LAYOUTS, Net, Setup, introduce, station};

/// Makes frames available to pair `pair` and tells nobody.
fn fill(guest: &mut Guest, pair: usize, frames: impl Iterator<Item = Vec<u8>>) {
    let pair = &mut guest.pairs[pair];
    pair.reclaim();
    for frame in frames {
        let bytes = [vec![0; pair.header_len()], frame].concat();
        let (address, len) = (guest.memory.alloc(bytes.len() as u64, 1), bytes.len() as u32);
        guest.memory.write(address, &bytes);
        pair.transmitq.add(&[Piece { address, len, writable: false }], false).unwrap();
    }
}

/// Tells of all pairs: a ring that was quiet is not looked at before.
fn kick(guest: &Guest) {
    guest.pairs.iter().for_each(|pair| ring(pair.transmit_bells.kick.as_ref().unwrap()));
}

/// Waits until the worker sleeps.
fn asleep(net: &Net) {
    let awake = || net.metric("ringway_worker_iterations_total", &[("mode", "idle")]);
    assert!(eventually(|| {
        let before = awake();
        std::thread::sleep(Duration::from_millis(5));
        awake() == before
    }));
}

fn busy(net: &Net) -> u64 {
    net.metric("ringway_worker_iterations_total", &[("mode", "busy")])
}

/// A guest with much room, for few bytes a frame.
fn roomy(layout: Layout, size: u16) -> Options {
    let memory_len = (4 << 20) + u64::from(size) * 512;
    Options { size, buffers: size, buffer_len: 128, memory_len, ..Options::new(layout) }
}

/// Everything that the guest was sent, in order, once nothing more comes.
fn all(guest: &mut Guest, count: usize) -> Vec<Vec<u8>> {
    let mut came = Vec::new();
    assert!(
        eventually(|| {
            came.extend(std::iter::from_fn(|| guest.pairs[0].try_receive()));
            came.len() >= count
        }),
        "{} of {count} came",
        came.len()
    );
    came
}

/// Frames that must be decided anew are taken a few a visit, the others stay where they are, and no order is lost. Frames of a
/// known flow are not held up.
#[test]
fn misses_of_a_visit_are_bounded() {
    for layout in LAYOUTS {
        let net = Net::new(2);
        let mut guests: Vec<_> = (0..2).map(|index| net.plug(index, roomy(layout, 512))).collect();
        introduce(&mut guests);
        let misses = || net.metric("ringway_queue_flow_misses_total", &[("port", "vm0")]);
        let early = || net.metric("ringway_queue_miss_budget_visits_total", &[("port", "vm0")]);
        for (sources, fewest, most) in [(256, 32, 256), (1, 8, 31)] {
            asleep(&net);
            let (iterations, before, cut) = (busy(&net), misses(), early());
            let sent = |n: u16| frame(station(1), mac(1000 + n % sources), 64, n.into());
            fill(&mut guests[0], 0, (0..256).map(sent));
            kick(&guests[0]);
            let came = all(&mut guests[1], 256);
            assert!(came.iter().zip(0..).all(|(came, n)| *came == sent(n)));
            let visits = busy(&net) - iterations;
            assert!((fewest..=most).contains(&visits), "{layout:?}, {sources} sources: {visits} visits");
            assert_eq!(misses() - before, if sources == 1 { 0 } else { 256 });
            assert_eq!(early() - cut, if sources == 1 { 0 } else { 31 });
        }
        net.assert_balances();
    }
}

const PORTS: usize = 24;
const DEAR: u16 = 1024;
const CHEAP: u16 = 2048;

/// A bridge with many ports, of which the first may flood as it likes; the second sends to the third, which listens.
fn crowd(nics: usize) -> (Net, Vec<Guest>) {
    let wild = PortPolicy { storm_limit: 1_000_000_000, ..PortPolicy::default() };
    let nic_policy = wild.clone();
    let net = Setup { ports: PORTS, nics, policies: &[wild], nic_policy, ..Setup::default() }.start();
    let size = |index| if index == 2 { 16_384 } else { 2048 };
    let mut guests: Vec<_> = (0..PORTS).map(|index| net.plug(index, roomy(Layout::Packed, size(index)))).collect();
    introduce(&mut guests);
    (net, guests)
}

fn is_from(frame: &[u8], source: [u8; 6]) -> bool {
    frame[6..12] == source
}

/// How many frames of one source came while frames of both waited, and how many of the other.
fn side_by_side(came: &[Vec<u8>], dear: [u8; 6], cheap: [u8; 6]) -> (usize, usize) {
    let first = |source| came.iter().position(|frame| is_from(frame, source)).unwrap();
    let last = |source| came.iter().rposition(|frame| is_from(frame, source)).unwrap();
    let both = first(dear).max(first(cheap))..last(dear).min(last(cheap));
    let both = came.get(both).unwrap_or_default();
    let dear = both.iter().filter(|frame| is_from(frame, dear)).count();
    (dear, both.len() - dear)
}

/// In one of twenty tries both waited long enough, and nobody took the worker's CPU while it counted ticks, and then it was fair.
fn is_fair_once(mut attempt: impl FnMut() -> (usize, usize), is_fair: impl Fn(usize, usize) -> bool) {
    let mut seen = Vec::new();
    let fair = (0..20).any(|_| {
        let (dear, cheap) = attempt();
        seen.push((dear, cheap));
        cheap > usize::from(CHEAP) / 4 && is_fair(dear, cheap)
    });
    assert!(fair, "dear frames beside cheap ones: {seen:?}");
}

/// One guest's frames cost many copies each, another's one: as many cycles for each port, so many more frames for the second.
/// A burst for each in turn would let two dear frames pass for three cheap ones.
#[test]
fn dear_frames_wait_for_cheap_ones() {
    let (net, mut guests) = crowd(0);
    let attempt = || {
        asleep(&net);
        fill(&mut guests[1], 0, (0..CHEAP).map(|n| frame(station(2), station(1), 64, n.into())));
        fill(&mut guests[0], 0, (0..DEAR).map(|n| frame(BROADCAST, station(0), 64, n.into())));
        kick(&guests[1]);
        kick(&guests[0]);
        let came = all(&mut guests[2], usize::from(CHEAP + DEAR));
        guests.iter_mut().for_each(|guest| while guest.pairs[0].try_receive().is_some() {});
        side_by_side(&came, station(0), station(1))
    };
    is_fair_once(attempt, |dear, cheap| dear <= cheap / 4 + 64);
    assert!(net.metric("ringway_queue_visits_put_off_total", &[("port", "vm0")]) > 0);
    let ticks = [0, 1].map(|index| net.counters(index).service.ticks.get());
    assert!(ticks.iter().all(|&ticks| ticks > 0), "{ticks:?}");
    net.assert_balances();
}

/// A port with four pairs gets no more than one with one.
#[test]
fn pairs_of_a_port_share_what_it_gets() {
    let net = Net::new(3);
    let several = Options { pairs: 4, ..roomy(Layout::Packed, 2048) };
    let several = Options { memory_len: 32 << 20, buffers: 16, ..several };
    let mut guests = vec![net.plug(0, several)];
    guests.extend([(1, 2048), (2, 16_384)].map(|(index, size)| net.plug(index, roomy(Layout::Packed, size))));
    introduce(&mut guests);
    let attempt = || {
        asleep(&net);
        fill(&mut guests[1], 0, (0..CHEAP).map(|n| frame(station(2), station(1), 64, n.into())));
        for pair in 0..4 {
            fill(&mut guests[0], pair, (0..CHEAP).map(|n| frame(station(2), station(0), 64, n.into())));
        }
        kick(&guests[1]);
        kick(&guests[0]);
        let came = all(&mut guests[2], 5 * usize::from(CHEAP));
        side_by_side(&came, station(0), station(1))
    };
    is_fair_once(attempt, |others, own| others <= 2 * own);
    net.assert_balances();
}

/// The same for what comes from a NIC.
#[test]
fn dear_frames_of_a_nic_wait_too() {
    let (net, mut guests) = crowd(1);
    let nic = net.switch.nics[0].clone();
    nic.link.set(true, 0);
    let mut wait = Duration::ZERO;
    let attempt = || {
        let wire = Wire::new();
        for n in 0..DEAR {
            wire.put(&frame(BROADCAST, mac(999), 64, n.into()), Received::Unchecked, 2048);
        }
        asleep(&net);
        fill(&mut guests[1], 0, (0..CHEAP).map(|n| frame(station(2), station(1), 64, n.into())));
        // The queue is taken into use a moment after that begins.
        wait += Duration::from_micros(20);
        std::thread::scope(|scope| {
            scope.spawn(|| net.switch.attach(nic.id, vec![wire.queue(&nic, 0, Abilities::empty())]).unwrap());
            let begun = Instant::now();
            while begun.elapsed() < wait {}
            kick(&guests[1]);
        });
        let came = all(&mut guests[2], usize::from(CHEAP + DEAR));
        net.switch.detach(nic.id);
        guests.iter_mut().for_each(|guest| while guest.pairs[0].try_receive().is_some() {});
        side_by_side(&came, mac(999), station(1))
    };
    is_fair_once(attempt, |dear, cheap| dear <= cheap / 4 + 64);
    net.assert_balances();
}

/// A frame that is flooded over several visits is read anew in each: what its sender makes of it meanwhile, such as a frame of
/// somebody else's station, goes no further.
#[test]
fn a_frame_that_changes_while_it_is_flooded() {
    const LONG: usize = 60_000;
    let stolen = mac(500);
    let guarded = PortPolicy { allowed_macs: Some(vec![station(1), stolen]), ..PortPolicy::default() };
    let net = Setup { ports: 13, policies: &[PortPolicy::default(), guarded], ..Setup::default() }.start();
    let options = Options { memory_len: 8 << 20, ..Options::new(Layout::Packed) };
    let mut guests: Vec<_> = (0..13).map(|index| net.plug(index, options)).collect();
    introduce(&mut guests);
    let (memory, done) = (guests[0].memory.clone(), AtomicBool::new(false));
    let bytes = [vec![0; 12], frame(BROADCAST, station(0), LONG, 7)].concat();
    let address = memory.alloc(bytes.len() as u64, 1);
    memory.write(address, &bytes);
    assert!(guests[0].settles());
    let piece = Piece { address, len: bytes.len() as u32, writable: false };
    let (mut heard, mut received) = (0, 0);
    let held = || net.receive_dropped(0, DropReason::MacHeld);
    std::thread::scope(|scope| {
        scope.spawn(|| {
            while !done.load(Ordering::Relaxed) {
                for source in [stolen, station(0)] {
                    memory.write(address + 12 + 6, &source);
                    std::thread::yield_now();
                }
            }
        });
        // Until the other thread has had its turns, too.
        let (begun, mut frames) = (Instant::now(), 0);
        while (frames < 300 || held() < 20) && begun.elapsed() < PATIENCE {
            frames += 1;
            guests[0].pairs[0].transmitq.add(&[piece], false).unwrap();
            kick(&guests[0]);
            let came_back = eventually(|| guests[0].pairs[0].reclaim() == 1);
            if !came_back {
                done.store(true, Ordering::Relaxed); // or the scope never ends
            }
            assert!(came_back);
            for guest in &mut guests[1..] {
                while let Some(came) = guest.pairs[0].try_receive() {
                    heard += usize::from(is_from(&came, stolen));
                    received += 1;
                }
            }
        }
        done.store(true, Ordering::Relaxed);
    });
    assert_eq!(heard, 0, "frames of a stolen station among {received}");
    assert!(received > 0 && held() > 0);
}
