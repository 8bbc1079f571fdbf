//! Workers that come and go.

use ringway::guest::PairId;
use ringway::switch::{MoveError, QueueRef, RosterError};
use ringway::worker::Worker;
use ringway_testbed::driver::Options;

use crate::guests::{LAYOUTS, Setup, cpus, introduce, passes};

/// What cannot be is refused with a reason, and nothing has changed.
#[test]
fn refusals() {
    let net = Setup { ports: 2, ..Setup::default() }.start();
    let id = PairId { port: 0, index: 0 };
    assert_eq!(net.switch.move_pair(id, 0), Err(MoveError::NoQueue));
    let mut guests = net.plug_all(LAYOUTS[0]);
    introduce(&mut guests);
    assert_eq!(net.switch.move_pair(id, 0), Ok(false));
    assert_eq!(net.switch.move_pair(id, 1), Err(MoveError::NoWorker));
    let cpu = net.switch.workers()[0].cpu;
    assert!(matches!(net.switch.add_worker(cpu), Err(RosterError::CpuTaken { number: 0, .. })));
    assert!(matches!(net.switch.add_worker(1023), Err(RosterError::Start(_))));
    assert!(matches!(net.switch.remove_worker(0), Err(RosterError::LastWorker)));
    assert!(matches!(net.switch.remove_worker(7), Err(RosterError::NoWorker)));
    passes(&mut guests, 0, 1, 900);
    net.assert_balances();
}

/// A worker that is ended takes its counts with it, and brings them back.
#[test]
fn counts_outlive_their_worker() {
    if cpus() < 2 {
        return;
    }
    let net = Setup { ports: 2, workers: 2, ..Setup::default() }.start();
    let mut guests: Vec<_> = (0..2).map(|index| net.plug(index, Options::new(LAYOUTS[0]))).collect();
    introduce(&mut guests);
    (0..20).for_each(|n| passes(&mut guests, n % 2, 1 - n % 2, 100 + n));
    net.assert_balances();
    let count = || net.metric("ringway_forwarded_bytes_total", &[]);
    let (before, extra) = (count(), net.metric("ringway_extra_copies_packets_total", &[]));
    let of = |port| net.switch.worker_of(QueueRef::Pair(PairId { port, index: 0 })).unwrap();
    assert_ne!(of(0), of(1));
    let cpu = net.switch.worker(of(1)).unwrap().cpu;
    net.switch.remove_worker(of(1)).unwrap();
    assert_eq!(of(0), of(1));
    assert_eq!((count(), net.metric("ringway_extra_copies_packets_total", &[])), (before, extra));
    passes(&mut guests, 0, 1, 500);
    passes(&mut guests, 1, 0, 501);
    assert_eq!(net.metric("ringway_forwarded_bytes_total", &[("path", "hand_off")]), before);
    let again = net.switch.add_worker(cpu).unwrap();
    assert_eq!(net.switch.workers().len(), 2);
    assert_eq!(net.switch.move_pair(PairId { port: 0, index: 0 }, again), Ok(true));
    passes(&mut guests, 0, 1, 502);
    passes(&mut guests, 1, 0, 503);
    net.assert_balances();
    assert_eq!(net.switch.tallies().len(), 2);
    assert_eq!(net.switch.workers().iter().map(|worker| worker.cpu).collect::<Vec<_>>(), Worker::allowed_cpus()[..2]);
}
