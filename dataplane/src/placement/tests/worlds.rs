//! The simulation: what is to be seen in its table is so.

use super::simulate::{Outcome, Setting, run};
use super::*;

fn outcome(sockets: u16, guests: u16, granularity: Granularity, policy: Policy) -> Outcome {
    run(&Setting { sockets, per_node: 2, guests, pairs: 4, granularity, policy, seed: 1 })
}

#[test]
fn by_measure_memory_is_local_own_vcpus_are_kept_clear_of_and_the_busiest_has_no_more_to_do() {
    for (sockets, guests) in [(1, 20), (2, 20), (8, 24)] {
        for granularity in Granularity::ALL {
            let measured = outcome(sockets, guests, granularity, Policy::Measured);
            let others =
                [Policy::RoundRobin, Policy::Random].map(|policy| outcome(sockets, guests, granularity, policy));
            assert_eq!(measured.own_vcpu_virtqueues, 0, "{measured:?}");
            for other in others {
                assert_eq!((other.moves, other.own_vcpu_virtqueues), (0, 0), "{other:?}");
                if sockets == 1 {
                    assert!(measured.busiest() <= other.busiest() * (1.0 + GAIN_MIN), "{measured:?}\n{other:?}");
                } else {
                    assert!(measured.remote_virtqueues * 5 < other.remote_virtqueues, "{measured:?}\n{other:?}");
                }
            }
        }
    }
}

#[test]
fn a_run_can_be_repeated() {
    let again = || outcome(2, 12, Granularity::Pair, Policy::Random);
    assert_eq!(again(), again());
}

#[test]
fn every_queue_has_a_worker_and_traffic_that_shifts_moves_some() {
    let run = |seed| {
        let (granularity, policy) = (Granularity::Nic, Policy::Measured);
        run(&Setting { sockets: 1, per_node: 4, guests: 60, pairs: 8, granularity, policy, seed })
    };
    let runs: Vec<Outcome> = (1..5).map(run).collect();
    for one in &runs {
        let placed: usize = one.workers.iter().map(|worker| worker.virtqueues).sum();
        assert_eq!((placed, one.virtqueues), (60 * 8 * 2 + 4 * 2, 60 * 8 * 2 + 4 * 2));
        assert!(one.moves == 0 || one.dry_runs > 0, "{one:?}");
    }
    assert!(runs.iter().any(|one| one.moves > 0), "{runs:?}");
}
