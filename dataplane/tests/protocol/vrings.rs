//! Virtqueues that are set up, and that cannot be.

use std::os::fd::AsFd;

use ringway::guest::PortState;
use ringway_testbed::driver::front_end::request;
use ringway_testbed::driver::{Areas, FrontEnd, Guest, Layout, Message, Options, eventually};

use crate::guests::{LAYOUTS, Net, introduce, passes};

/// Guests on ports 0 and 1, and on port 2 one that has agreed on features and told nothing more.
fn net_and_candidate(layout: Layout) -> (Net, Vec<Guest>, Guest) {
    let net = Net::new(3);
    let mut guests = vec![net.plug(0, Options::new(layout)), net.plug(1, Options::new(layout))];
    introduce(&mut guests);
    let candidate = candidate(&net, layout);
    (net, guests, candidate)
}

fn candidate(net: &Net, layout: Layout) -> Guest {
    Guest::negotiated(net.listeners[2].accept().unwrap(), Options::new(layout)).unwrap()
}

/// That `why` is the reason why port 2 lost its front end, which alone did; and that the next one is welcome.
fn only_port_2_is_lost(net: &Net, guests: &mut Vec<Guest>, front_end: &FrontEnd, why: &str) {
    assert!(front_end.closes(), "the connection stands");
    let is_so = || net.port(2).last_error().is_some_and(|error| error.contains(why));
    assert!(eventually(is_so), "{why:?} is not in {:?}", net.port(2).last_error());
    passes(guests, 0, 1, 64);
    passes(guests, 1, 0, 1514);
    let layout = guests[0].options.layout();
    let next = net.plug(2, Options::new(layout));
    guests.push(next);
    introduce(guests);
    passes(guests, 2, 0, 64);
    guests.pop().unwrap().front_end.hang_up();
    assert!(eventually(|| net.port(2).state() != PortState::Running));
}

/// R6: 128 pairs are 256 vrings.
/// Class of CVE-2020-10722, CVE-2020-10723 and CVE-2021-3839.
#[test]
fn r06_an_index_out_of_range() {
    for code in [request::SET_VRING_NUM, request::SET_VRING_BASE, request::SET_VRING_ENABLE] {
        for index in [256, 0x8000, 0x1_0000, u32::MAX] {
            let (net, mut guests, mut candidate) = net_and_candidate(Layout::Packed);
            let refused = candidate.front_end.tell(Message::vring_state(code, index, 1), &[]);
            assert!(refused.is_err(), "{code} of {index}");
            only_port_2_is_lost(&net, &mut guests, &candidate.front_end, "invalid parameters");
        }
    }
}

#[test]
fn a_base_is_asked_of_a_vring_out_of_range() {
    let (net, mut guests, mut candidate) = net_and_candidate(Layout::Split);
    assert!(candidate.front_end.base(256).is_err());
    only_port_2_is_lost(&net, &mut guests, &candidate.front_end, "invalid parameters");
}

/// Class of CVE-2020-10722, CVE-2020-10723 and CVE-2021-3839.
#[test]
fn r06_sizes_that_cannot_be() {
    let (net, mut guests, _) = net_and_candidate(Layout::Packed);
    for (layout, num) in [
        (Layout::Packed, 0),
        (Layout::Packed, 32769),
        (Layout::Packed, 0x1_0000),
        (Layout::Packed, 0x1_0000 + 256),
        (Layout::Split, 0),
        (Layout::Split, 255),
        (Layout::Split, 32769),
        (Layout::Split, u32::MAX),
    ] {
        let mut candidate = candidate(&net, layout);
        let refused = candidate.front_end.tell(Message::vring_state(request::SET_VRING_NUM, 0, num), &[]);
        assert!(refused.is_err(), "{layout:?} {num}");
        only_port_2_is_lost(&net, &mut guests, &candidate.front_end, "descriptors");
    }
}

/// R11: sizes that are no powers of two are as good as others on a packed ring; the largest and the smallest, too.
/// R11, without a CVE: DPDK 92ed77dce6, the wrap of a ring of an odd size.
#[test]
fn r11_sizes_that_can_be() {
    for (layout, size) in [
        (Layout::Packed, 255),
        (Layout::Packed, 1),
        (Layout::Packed, 3),
        (Layout::Packed, 32768),
        (Layout::Split, 1),
        (Layout::Split, 32768),
    ] {
        let net = Net::new(2);
        let options = Options { size, memory_len: 16 << 20, ..Options::new(layout) };
        let mut guests = vec![net.plug(0, options), net.plug(1, options)];
        introduce(&mut guests);
        for round in 0..600 {
            passes(&mut guests, 0, 1, 60 + round);
            passes(&mut guests, 1, 0, 60 + round);
        }
        net.assert_balances();
    }
}

/// R6: areas that are not wholly in one region. The memory may come with a later message, so the ring waits, and it is seen
/// for what. Class of CVE-2020-10722, CVE-2020-10723 and CVE-2021-3839.
#[test]
fn r06_areas_outside_the_memory() {
    for layout in LAYOUTS {
        let (net, mut guests, _) = net_and_candidate(layout);
        for (which, at_end) in [(0, 16), (1, 2), (2, 4)] {
            let mut candidate = candidate(&net, layout);
            let span = candidate.memory.regions().next().unwrap().0;
            let areas = candidate.pairs[0].transmitq.areas();
            let mut user = [areas.descriptors, areas.driver, areas.device].map(|area| candidate.memory.user(area));
            // It begins in the region, and does not end there. In the packed layout an event structure has 4 bytes.
            user[which] = span.user + span.len - if which == 1 && layout == Layout::Packed { 0 } else { at_end };
            if which == 2 && layout == Layout::Packed {
                user[which] = 0;
            }
            candidate.front_end.share(&candidate.memory).unwrap();
            candidate.front_end.set_num(1, 256).unwrap();
            let [descriptors, driver, device] = user;
            candidate.front_end.set_address(1, Areas { descriptors, driver, device }).unwrap();
            let bells = &candidate.pairs[0].transmit_bells;
            let kick = bells.kick.as_ref().map(AsFd::as_fd);
            candidate.front_end.set_fd(request::SET_VRING_KICK, 1, kick).unwrap();
            candidate.front_end.enable(1, true).unwrap();
            let why = ["descriptor area", "driver area", "device area"][which];
            let waits = format!("virtqueue 1 waits: the {why}");
            let error = net.port(2).last_error();
            assert!(error.as_ref().is_some_and(|error| error.contains(&waits)), "{layout:?} area {which}: {error:?}");
            assert_eq!(net.port(2).state(), PortState::Connected);
            passes(&mut guests, 0, 1, 64);
            // Where they belong, the ring runs, and nothing is said against it any more.
            candidate.start_all().unwrap();
            assert_eq!((net.port(2).state(), net.port(2).last_error()), (PortState::Running, None));
            guests.push(candidate);
            introduce(&mut guests);
            passes(&mut guests, 2, 0, 64);
            guests.pop().unwrap().front_end.hang_up();
            assert!(eventually(|| net.port(2).state() != PortState::Running));
        }
    }
}

/// A packed ring's base beyond its size is a position that it does not have.
#[test]
fn a_base_beyond_the_ring() {
    let (net, mut guests, mut candidate) = net_and_candidate(Layout::Packed);
    candidate.front_end.share(&candidate.memory).unwrap();
    candidate.start(0).unwrap();
    assert!(candidate.front_end.set_base(1, 0x8100_8100).is_err());
    only_port_2_is_lost(&net, &mut guests, &candidate.front_end, "base 256 is beyond a ring of 256 descriptors");
}

/// R8: a vring runs once all is known of it, whatever was said last.
/// R8, without a CVE: DPDK 1846fe767f, ring addresses that went stale.
#[test]
fn r08_any_order_of_messages_will_do() {
    for layout in LAYOUTS {
        let net = Net::new(2);
        let other = net.plug(0, Options::new(layout));
        let mut candidate = Guest::negotiated(net.listeners[1].accept().unwrap(), Options::new(layout)).unwrap();
        let Guest { front_end, memory, pairs, .. } = &mut candidate;
        for (index, queue, bells) in
            [(0, &pairs[0].receiveq, &pairs[0].receive_bells), (1, &pairs[0].transmitq, &pairs[0].transmit_bells)]
        {
            let (number, areas) = (u32::from(index), queue.areas());
            let user = Areas {
                descriptors: memory.user(areas.descriptors),
                driver: memory.user(areas.driver),
                device: memory.user(areas.device),
            };
            front_end.enable(number, true).unwrap();
            front_end.set_fd(request::SET_VRING_KICK, index, bells.kick.as_ref().map(AsFd::as_fd)).unwrap();
            front_end.set_address(number, user).unwrap();
            front_end.set_num(number, queue.size()).unwrap();
            front_end.set_base(number, queue.base()).unwrap();
            front_end.set_fd(request::SET_VRING_CALL, index, None).unwrap();
        }
        assert_eq!(net.port(1).state(), PortState::Connected);
        front_end.share(memory).unwrap();
        assert_eq!(net.port(1).state(), PortState::Running);
        let mut guests = vec![other, candidate];
        introduce(&mut guests);
        passes(&mut guests, 1, 0, 64);
        passes(&mut guests, 0, 1, 64);
    }
}

/// QEMU 7.2 enables all pairs but the first before it says SET_FEATURES, and does not say it again.
#[test]
fn enabled_before_the_features() {
    for layout in LAYOUTS {
        let net = Net::new(2);
        let other = net.plug(0, Options::new(layout));
        let mut front_end = FrontEnd::from_stream(net.listeners[1].accept().unwrap()).unwrap();
        let options = Options::new(layout);
        front_end.offered().unwrap();
        front_end.negotiate_protocol().unwrap();
        for index in [0, 1] {
            front_end.send(Message::vring_state(request::SET_VRING_ENABLE, index, 1).bytes(), &[]).unwrap();
        }
        front_end.set_features(options.features).unwrap();
        let mut late = Guest::renewed(front_end, options).unwrap();
        late.front_end.share(&late.memory).unwrap();
        late.start(0).unwrap();
        assert_eq!(net.port(1).state(), PortState::Running);
        let mut guests = vec![other, late];
        introduce(&mut guests);
        passes(&mut guests, 1, 0, 64);
    }
}

/// R8: said of a ring that runs, a new base or address takes effect at once.
/// R8, without a CVE: DPDK 1846fe767f, ring addresses that went stale.
#[test]
fn r08_a_base_after_the_address() {
    for layout in LAYOUTS {
        let net = Net::new(2);
        let mut guests = net.plug_all(layout);
        introduce(&mut guests);
        for len in [60, 61, 62] {
            assert!(guests[1].settles());
            let bases = [guests[1].pairs[0].receiveq.base(), guests[1].pairs[0].transmitq.base()];
            for (index, base) in (0..).zip(bases) {
                guests[1].front_end.set_base(index, base).unwrap();
            }
            passes(&mut guests, 0, 1, len);
            passes(&mut guests, 1, 0, len);
        }
    }
}
