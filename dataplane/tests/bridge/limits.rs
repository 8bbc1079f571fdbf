//! How much a port may send, be sent, and have flooded.

use std::time::Instant;

use ringway::account::DropReason;
use ringway_config::{PortPolicy, RateLimit, RateUnit};
use ringway_testbed::driver::frame::{BROADCAST, frame};
use ringway_testbed::driver::{Guest, Options, eventually};

use crate::guests::{LAYOUTS, Setup, cpus, introduce, station};

fn limit(unit: RateUnit, per_second: u64, burst: u64) -> Option<RateLimit> {
    Some(RateLimit { unit, per_second, burst })
}

/// Sends so many 64-byte frames from guest 0, of which guest 1 is to hear; how many were sent and how many came, and how long it took. `lost`
/// says how many were dropped.
fn flood_for(guests: &mut [Guest], destination: [u8; 6], frames: u64, lost: impl Fn() -> u64) -> (u64, u64, f64) {
    let (start, mut sent, mut came) = (Instant::now(), 0, 0);
    let bytes = frame(destination, station(0), 64, 0);
    while sent < frames {
        sent += u64::from(guests[0].pairs[0].try_send(&bytes));
        came += std::iter::from_fn(|| guests[1].pairs[0].try_receive()).count() as u64;
    }
    assert!(guests[0].settles());
    let seconds = start.elapsed().as_secs_f64();
    let all = eventually(|| {
        came += std::iter::from_fn(|| guests[1].pairs[0].try_receive()).count() as u64;
        came + lost() == sent
    });
    assert!(all, "{came} of {sent} came, {} were dropped", lost());
    (sent, came, seconds)
}

/// Both units, both directions, on one worker and from one to another: as much as is allowed comes, the rest is counted where it
/// belongs.
#[test]
fn rates_are_kept() {
    for workers in [1, 2.min(cpus())] {
        for (inward, unit, per_second) in [
            (true, RateUnit::Frames, 200),
            (true, RateUnit::Bytes, 200 * 64),
            (false, RateUnit::Frames, 200),
            (false, RateUnit::Bytes, 200 * 64),
        ] {
            let limit = limit(unit, per_second, per_second * 5);
            let (limited, free) = (PortPolicy::default(), PortPolicy::default());
            let policies = if inward {
                [PortPolicy { limit_in: limit, ..limited }, free]
            } else {
                [free, PortPolicy { limit_out: limit, ..limited }]
            };
            let net = Setup { ports: 2, policies: &policies, workers, ..Setup::default() }.start();
            let mut guests: Vec<_> = (0..2).map(|index| net.plug(index, Options::new(LAYOUTS[0]))).collect();
            introduce(&mut guests);
            let limited = || {
                if inward {
                    net.receive_dropped(0, DropReason::RateLimitIn)
                } else {
                    net.counters(1).transmit_dropped.get(DropReason::RateLimitOut)
                }
            };
            let full = || {
                net.counters(1).transmit_dropped.get(DropReason::GuestRingFull)
                    + net.receive_dropped(0, DropReason::HandOffFull)
            };
            let lost = || limited() + full();
            let (sent, came, seconds) = flood_for(&mut guests, station(1), 5000, lost);
            let most = 200.0 * seconds + 1033.0;
            assert!(came as f64 <= most, "{came} of {most}: {inward} {unit:?}");
            // The burst at least; of the rest, what comes due while a busy test machine is away is lost.
            assert!(came + full() >= 990 && sent > came, "{came} of {sent} in {seconds} s: {inward} {unit:?}");
            assert!(limited() > 0);
            net.assert_balances();
        }
    }
}

/// What is flooded is limited, by what the port may have flooded; what is forwarded is not.
#[test]
fn storms_are_limited() {
    let policies = [PortPolicy { storm_limit: 100, ..PortPolicy::default() }];
    let net = Setup { ports: 3, policies: &policies, ..Setup::default() }.start();
    let mut guests = net.plug_all(LAYOUTS[0]);
    introduce(&mut guests);
    let (sent, came, seconds) =
        flood_for(&mut guests, BROADCAST, 2000, || net.receive_dropped(0, DropReason::StormLimit));
    assert!(came as f64 <= 100.0 * (seconds + 1.0) + 2.0, "{came} of {sent}");
    for n in 0..500 {
        guests[0].send(&frame(station(1), station(0), 64, n));
        assert!(guests[1].receive().is_some());
    }
    net.assert_balances();
}
