//! A broken pair stays broken until its guest resets the rings, and each fault is counted.

use ringway::guest::ring::RingFault;
use ringway_testbed::driver::front_end::request;
use ringway_testbed::driver::{Guest, Message, Options, Piece, eventually};

use crate::guests::{LAYOUTS, Net, introduce, passes};

fn break_rule(guest: &mut Guest) {
    let nowhere = Piece { address: 0x7000_0000_0000, len: 100, writable: false };
    guest.pairs[0].transmitq.add(&[nowhere], false).unwrap();
    guest.pairs[0].kick();
}

#[test]
fn only_a_reset_mends_a_pair() {
    for layout in LAYOUTS {
        let net = Net::new(3);
        let mut guests = net.plug_all(layout);
        introduce(&mut guests);
        let counters = net.counters(2);
        let counted = || net.metric("ringway_queue_faults_total", &[("port", "vm2"), ("rule", "bad_address")]);
        for round in 1..4 {
            break_rule(&mut guests[2]);
            assert!(eventually(|| counters.fault() == Some(RingFault::BadAddress)));
            // Nothing of this is a reset.
            let Guest { front_end, memory, .. } = &mut guests[2];
            front_end.set_fd(request::SET_VRING_CALL, 0, None).unwrap();
            front_end.share(memory).unwrap();
            for enabled in [false, true] {
                front_end.enable(1, enabled).unwrap();
            }
            assert_eq!(counters.fault(), Some(RingFault::BadAddress), "{layout:?}");
            assert_eq!(counted(), round);
            passes(&mut guests, 0, 1, 64);

            // The guest's driver is loaded anew.
            guests[2].stop(0).unwrap();
            assert_eq!(counters.fault(), None, "{layout:?}");
            let options = Options::new(layout);
            let Guest { front_end, .. } = guests.pop().unwrap();
            let mut fresh = Guest::renewed(front_end, options).unwrap();
            fresh.start_all().unwrap();
            guests.push(fresh);
            introduce(&mut guests);
            passes(&mut guests, 2, 0, 64);
            assert_eq!((counters.fault(), counted()), (None, round));
        }
        assert_eq!(net.metric("ringway_queue_faults_total", &[("port", "vm0")]), 0);
        net.assert_balances();
    }
}

/// Why a connection was ended is said, also when it was ended by an early SET_VRING_ENABLE.
#[test]
fn an_enable_that_makes_no_sense_is_named() {
    for (index, value, why) in [(256, 1, "invalid parameters"), (0, 2, "neither 0 nor 1")] {
        let net = Net::new(1);
        let options = Options::new(LAYOUTS[0]);
        for reply in [true, false] {
            let guest = Guest::negotiated(net.listeners[0].accept().unwrap(), options).unwrap();
            let message = Message::vring_state(request::SET_VRING_ENABLE, index, value);
            let message = if reply { message.need_reply() } else { message };
            guest.front_end.send(message.bytes(), &[]).unwrap();
            guest.front_end.hang_up();
            let is_said = || net.port(0).last_error().is_some_and(|error| error.contains(why));
            assert!(eventually(is_said), "{why:?} is not in {:?}", net.port(0).last_error());
        }
    }
}
