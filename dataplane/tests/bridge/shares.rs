//! Who has to wait when a worker has more to do than time: the port whose frames cost the most, in its own rings.
//!
//! In what order frames come is what tells here, not when: all that is sent waits in the rings before the worker wakes.

use std::time::Duration;

use ringway::nic::Host;
use ringway::nic::Received;
use ringway::nic::double::Wire;
use ringway::packet::Abilities;
use ringway_config::PortPolicy;
use ringway_testbed::driver::frame::{BROADCAST, frame, mac};
use ringway_testbed::driver::front_end::ring;
use ringway_testbed::driver::{Guest, Layout, Options, Piece, eventually};

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

fn kick(guest: &Guest) {
    ring(guest.pairs[0].transmit_bells.kick.as_ref().unwrap());
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

/// One guest's frames cost many copies each, another's one: as many cycles for each port, so many more frames for the second.
/// A burst for each in turn would have sent all that is dear before half of what is cheap.
#[test]
fn dear_frames_wait_for_cheap_ones() {
    let (net, mut guests) = crowd(0);
    asleep(&net);
    fill(&mut guests[1], 0, (0..CHEAP).map(|n| frame(station(2), station(1), 64, n.into())));
    fill(&mut guests[0], 0, (0..DEAR).map(|n| frame(BROADCAST, station(0), 64, n.into())));
    kick(&guests[0]);
    let came = all(&mut guests[2], usize::from(CHEAP + DEAR));
    let last = came.iter().rposition(|frame| is_from(frame, station(1))).unwrap();
    let dear = last + 1 - usize::from(CHEAP);
    assert!(dear < usize::from(DEAR) / 2, "{dear} dear frames came before the last cheap one");
    assert!(came.iter().rposition(|frame| is_from(frame, station(0))).unwrap() > last);
    assert!(net.metric("ringway_queue_visits_put_off_total", &[("port", "vm0")]) > 0);
    let ticks = [0, 1].map(|index| net.counters(index).service.ticks.get());
    assert!(ticks[0] > ticks[1] && ticks[1] > 0, "{ticks:?}: the dear ones went on alone");
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
    asleep(&net);
    fill(&mut guests[1], 0, (0..CHEAP).map(|n| frame(station(2), station(1), 64, n.into())));
    for pair in 0..4 {
        fill(&mut guests[0], pair, (0..CHEAP).map(|n| frame(station(2), station(0), 64, n.into())));
    }
    kick(&guests[0]);
    let came = all(&mut guests[2], 5 * usize::from(CHEAP));
    let last = came.iter().rposition(|frame| is_from(frame, station(1))).unwrap();
    let others = last + 1 - usize::from(CHEAP);
    assert!(others < 2 * usize::from(CHEAP), "{others} frames of the port with four pairs came before");
    net.assert_balances();
}

/// The same for what comes from a NIC.
#[test]
fn dear_frames_of_a_nic_wait_too() {
    let (net, mut guests) = crowd(1);
    // The worker may be through with the one before it comes to the other, and others may have its CPU while it counts ticks.
    let is_fair = |&(dear, cheap): &(usize, usize)| cheap > usize::from(CHEAP) / 4 && dear <= cheap / 4 + 64;
    let mut seen = Vec::new();
    let fair = (0..20).any(|_| {
        seen.push(nic_beside_guest(&net, &mut guests));
        seen.last().is_some_and(is_fair)
    });
    assert!(fair, "dear frames beside cheap ones: {seen:?}");
    net.assert_balances();
}

/// How many dear frames of a NIC came between how many cheap ones of a guest.
fn nic_beside_guest(net: &Net, guests: &mut [Guest]) -> (usize, usize) {
    let (wire, nic) = (Wire::new(), net.switch.nics[0].clone());
    nic.link.set(true, 0);
    for n in 0..DEAR {
        wire.put(&frame(BROADCAST, mac(999), 64, n.into()), Received::Unchecked, 2048);
    }
    asleep(net);
    fill(&mut guests[1], 0, (0..CHEAP).map(|n| frame(station(2), station(1), 64, n.into())));
    // Which wakes the worker, a moment before it comes to the NIC's queue.
    net.switch.attach(nic.id, vec![wire.queue(&nic, 0, Abilities::empty())]).unwrap();
    let came = all(&mut guests[2], usize::from(CHEAP + DEAR));
    let first = came.iter().position(|frame| is_from(frame, mac(999))).unwrap();
    let last = came.iter().rposition(|frame| is_from(frame, station(1))).unwrap();
    let between = came.get(first..last).unwrap_or_default();
    let dear = between.iter().filter(|frame| is_from(frame, mac(999))).count();
    let cheap = between.len() - dear;
    net.switch.detach(nic.id);
    guests.iter_mut().for_each(|guest| while guest.pairs[0].try_receive().is_some() {});
    (dear, cheap)
}
