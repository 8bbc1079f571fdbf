//! The states of a ring: stopped, started but disabled, started and enabled (vhost-user, "Ring states").

use ringway::account::DropReason;
use ringway::guest::PortState;
use ringway_testbed::driver::frame::frame;
use ringway_testbed::driver::front_end::{feature, request};
use ringway_testbed::driver::{Guest, Message, Options, eventually};

use crate::guests::{LAYOUTS, Net, introduce, passes, station};

/// Stopped: nothing is taken. Started: what is sent is thrown away, what would be received is not. Enabled: all passes.
#[test]
fn from_stopped_to_enabled() {
    for layout in LAYOUTS {
        let net = Net::new(2);
        let mut guests = vec![net.plug(0, Options::new(layout))];
        let mut late = Guest::negotiated(net.listeners[1].accept().unwrap(), Options::new(layout)).unwrap();
        late.front_end.share(&late.memory).unwrap();
        let lost = frame(station(0), station(1), 64, 1);
        late.pairs[0].send(&lost);
        assert!(guests[0].hears_nothing());
        assert_eq!(late.pairs[0].in_flight(), 1, "{layout:?}: a ring that was not started is served");

        late.start(0).unwrap();
        assert_eq!(net.port(1).state(), PortState::Connected);
        assert!(eventually(|| net.receive_dropped(1, DropReason::QueueDisabled) == 1), "{layout:?}");
        assert!(late.settles());
        // Also when the worker has long been asleep.
        std::thread::sleep(std::time::Duration::from_millis(20));
        late.pairs[0].send(&lost);
        assert!(eventually(|| net.receive_dropped(1, DropReason::QueueDisabled) == 2), "{layout:?}");
        guests[0].send(&frame(station(1), station(0), 64, 1));
        assert!(late.hears_nothing());
        assert!(guests[0].hears_nothing());

        late.enable(0, true).unwrap();
        assert_eq!(net.port(1).state(), PortState::Running);
        guests.push(late);
        introduce(&mut guests);
        passes(&mut guests, 0, 1, 64);
        passes(&mut guests, 1, 0, 64);
        assert_eq!(net.metric("ringway_dropped_packets_total", &[("reason", "queue_disabled")]), 2);
        net.assert_balances();
    }
}

/// Without protocol features there is no message that enables.
#[test]
fn enabled_from_the_start_without_protocol_features() {
    for layout in LAYOUTS {
        let net = Net::new(2);
        let options = Options::new(layout);
        let plain = Options { features: options.features & !feature::PROTOCOL_FEATURES, ..options };
        let mut guests = vec![net.plug(0, options), net.plug(1, plain)];
        introduce(&mut guests);
        passes(&mut guests, 0, 1, 64);
        passes(&mut guests, 1, 0, 64);
        assert_eq!(net.receive_dropped(1, DropReason::QueueDisabled), 0);
    }
}

/// Also after RESET_OWNER, which stops them all.
#[test]
fn a_reset_without_protocol_features() {
    for layout in LAYOUTS {
        let net = Net::new(2);
        let options = Options::new(layout);
        let plain = Options { features: options.features & !feature::PROTOCOL_FEATURES, ..options };
        let mut guests = vec![net.plug(0, options), net.plug(1, plain)];
        introduce(&mut guests);
        for (reset, enabled) in [(1, true), (0, false)] {
            guests[reset].front_end.tell(Message::new(request::RESET_OWNER, &[]), &[]).unwrap();
            assert!(eventually(|| net.port(reset).state() == PortState::Connected), "{layout:?}");
            guests[reset].start(0).unwrap();
            let runs = || net.port(reset).state() == PortState::Running;
            if !enabled {
                assert!(!runs(), "{layout:?}: nobody has enabled it");
                guests[reset].enable(0, true).unwrap();
            }
            assert!(eventually(runs), "{layout:?}");
            guests[reset].front_end.wait().unwrap();
            passes(&mut guests, 0, 1, 64);
            passes(&mut guests, 1, 0, 64);
        }
        assert_eq!(net.metric("ringway_dropped_packets_total", &[]), 0);
    }
}

/// A guest that was given 128 pairs and uses one: the others are drained without holding up the one.
#[test]
fn many_disabled_pairs() {
    let net = Net::new(2);
    let many = Options { pairs: 128, size: 16, buffers: 8, memory_len: 16 << 20, ..Options::new(LAYOUTS[0]) };
    let mut guests = vec![net.plug(0, Options::new(LAYOUTS[0])), net.plug(1, many)];
    for pair in 1..128 {
        guests[1].enable(pair, false).unwrap();
    }
    introduce(&mut guests);
    assert_eq!(net.metric("ringway_vhost_queue_pairs", &[("port", "vm1"), ("kind", "enabled")]), 1);
    for pair in &mut guests[1].pairs {
        pair.send(&frame(station(0), station(1), 64, 1));
    }
    let dropped = || net.metric("ringway_dropped_packets_total", &[("port", "vm1"), ("reason", "queue_disabled")]);
    assert!(eventually(|| dropped() == 127), "{} are drained", dropped());
    assert!(guests[0].receive().is_some());
    passes(&mut guests, 1, 0, 64);
    // With nothing to drain, the worker sleeps.
    let idles = || net.metric("ringway_worker_iterations_total", &[("mode", "idle")]);
    let sleeps = || {
        let before = idles();
        std::thread::sleep(std::time::Duration::from_millis(20));
        idles() == before
    };
    assert!(eventually(sleeps), "it never sleeps");
    net.assert_balances();
}
