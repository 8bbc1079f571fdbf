//! Server mode: the switch listens, front ends come and go.

use std::os::unix::net::UnixStream;

use ringway::control::View;
use ringway::guest::PortState;
use ringway_testbed::driver::{Guest, Options, eventually};

use crate::guests::{LAYOUTS, Net, Setup, introduce, passes};

fn net() -> Net {
    Setup { ports: 2, servers: &[1], ..Setup::default() }.start()
}

fn connect(net: &Net) -> UnixStream {
    UnixStream::connect(&net.port(1).socket).unwrap()
}

#[test]
fn a_front_end_connects_and_connects_again() {
    for layout in LAYOUTS {
        let net = net();
        let mut guests = net.plug_all(layout);
        assert_eq!(net.show(View::Ports)[1]["mode"], "server");
        for round in 1..5 {
            introduce(&mut guests);
            passes(&mut guests, 0, 1, 60 + round);
            passes(&mut guests, 1, 0, 60 + round);
            guests.pop().unwrap().front_end.hang_up();
            if round % 2 == 0 {
                assert!(eventually(|| net.port(1).state() == PortState::Connecting));
            }
            guests.push(net.plug(1, Options::new(LAYOUTS[round % 2])));
            assert_eq!(net.metric("ringway_vhost_connects_total", &[("port", "vm1")]), round as u64 + 1);
        }
        introduce(&mut guests);
        net.assert_balances();
    }
}

/// Its predecessor has not hung up, and perhaps never will.
#[test]
fn a_new_front_end_takes_the_place_of_the_old_one() {
    for layout in LAYOUTS {
        let net = net();
        let mut guests = net.plug_all(layout);
        introduce(&mut guests);
        for _ in 0..3 {
            let before = guests.pop().unwrap();
            // With the rings that it has, as a restarted QEMU does not, but one that lost its connection.
            let fresh = Guest::over(connect(&net), Options::new(layout)).unwrap();
            assert!(before.front_end.closes(), "two front ends at a time");
            assert_eq!(net.port(1).state(), PortState::Running);
            guests.push(fresh);
            introduce(&mut guests);
            passes(&mut guests, 1, 0, 64);
        }
        // One that says nothing holds nobody up.
        let silent = connect(&net);
        assert!(guests.pop().unwrap().front_end.closes());
        guests.push(net.plug(1, Options::new(layout)));
        introduce(&mut guests);
        drop(silent);
        passes(&mut guests, 0, 1, 64);
        net.assert_balances();
    }
}
