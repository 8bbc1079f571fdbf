//! The regression of the per-CPU vhost RFC: few guests that talk to each other were slower with many workers than with two.

use proptest::prelude::*;

use super::super::cost::Model;
use super::*;

/// A few guests, each with what it does, and what each of them exchanges with the others.
#[derive(Clone, Debug)]
struct Few {
    busy: Vec<f64>,
    hand_off: Vec<f64>,
    pairs: usize,
}

fn few() -> impl Strategy<Value = Few> {
    (2_usize..5, 1_usize..4).prop_flat_map(|(guests, pairs)| {
        let busy = proptest::collection::vec(0.01_f64..0.6, guests);
        let hand_off = proptest::collection::vec(0.0_f64..0.4, guests * guests);
        (busy, hand_off).prop_map(move |(busy, hand_off)| Few { busy, hand_off, pairs })
    })
}

/// The load of the busiest worker once they were placed, measured, and moved until nothing is worth moving.
fn busiest(few: &Few, workers: usize) -> f64 {
    let cpus: Vec<usize> = (0..workers).collect();
    let mut truth = scene(Topology::even(1, 16, 1), &cpus);
    for _ in &few.busy {
        add(&mut truth, on(0), &vec![(None, None); few.pairs]);
    }
    let mut planner = planner(Policy::Measured);
    place_all(&mut planner, &mut truth);
    let guests = few.busy.len();
    for (at, &hand_off) in few.hand_off.iter().enumerate().filter(|(at, _)| at / guests < at % guests) {
        // No more than what they do can go into it.
        let (one, other) = (at / guests, at % guests);
        talk(&mut truth, one, other, hand_off * few.busy[one].min(few.busy[other]));
    }
    for queue in &mut truth.queues {
        queue.busy = Some(few.busy[queue.port] / (2 * few.pairs) as f64);
    }
    let mut rebalancer = Rebalancer::default();
    for now in (0..600).step_by(LOOK_SECONDS as usize) {
        let mut measured = truth.clone();
        let model = Model::of_truth(&truth, Granularity::Pair);
        let busy = model.measured(&model.state());
        for queue in &mut measured.queues {
            let at = model.units.iter().position(|unit| unit.id == pair(queue.port as u16, queue.pair)).unwrap();
            queue.busy = Some(busy[at] / 2.0);
        }
        if let Look::Carry(plan) = rebalancer.look(&mut planner, &measured, now) {
            plan.moves.iter().for_each(|one| carry(&mut truth, Granularity::Pair, one.unit, one.to));
            rebalancer.carried(&plan.moves, now);
        }
    }
    Model::of_truth(&truth, Granularity::Pair).state().load.into_iter().fold(0.0, f64::max)
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    /// With more workers to choose from, the busiest of them never has more to do than with two.
    #[test]
    fn never_slower_than_with_two_workers(few in few(), workers in 3_usize..9) {
        let (two, many) = (busiest(&few, 2), busiest(&few, workers));
        prop_assert!(many <= two * 1.000_001, "{many} with {workers} workers, {two} with two");
    }
}

/// The RFC's case itself: two guests that only talk to each other need one worker, whatever there is.
#[test]
fn two_guests_that_only_talk_to_each_other_end_on_one_worker() {
    let mut scene = scene(Topology::even(1, 8, 1), &[0, 1, 2, 3, 4, 5, 6, 7]);
    let one = add(&mut scene, on(0), &[(Some(0), Some(0.3))]);
    let other = add(&mut scene, on(0), &[(Some(1), Some(0.3))]);
    talk(&mut scene, one, other, 0.4);
    let plan = planner(Policy::Measured).plan(&scene, |_| false);
    assert_eq!(plan.moves.len(), 1, "{plan:?}");
    assert_eq!(plan.moves[0].reason, MoveReason::HandOff);
    assert!(plan.gain >= GAIN_MIN, "{plan:?}");
    assert!(plan.after.iter().sum::<f64>() < 0.25, "{plan:?}");
}

/// Of a crowd that nothing was measured of, a third worker of a node is used only when two have enough.
#[test]
fn a_third_worker_is_opened_when_two_have_enough() {
    let used = |guests: usize| {
        let mut scene = scene(Topology::even(1, 8, 1), &[0, 1, 2, 3]);
        for _ in 0..guests {
            add(&mut scene, on(0), &[(None, None)]);
        }
        place_all(&mut planner(Policy::Measured), &mut scene);
        let mut used: Vec<u16> = scene.queues.iter().filter_map(|queue| queue.worker).collect();
        used.sort_unstable();
        used.dedup();
        used.len()
    };
    assert_eq!((used(1), used(4), used(40), used(100)), (1, 2, 2, 4));
}
