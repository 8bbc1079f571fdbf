//! What is moved, and when.

use proptest::prelude::*;

use super::*;

fn plan(scene: &Scene) -> Plan {
    planner(Policy::Measured).plan(scene, |_| false)
}

/// Guests of one pair each, on these workers, with so much to do.
fn loaded(workers: &[usize], guests: &[(u16, f64)]) -> Scene {
    let mut scene = scene(Topology::even(1, 8, 1), workers);
    for &(worker, busy) in guests {
        add(&mut scene, on(0), &[(Some(worker), Some(busy))]);
    }
    scene
}

#[test]
fn the_busiest_worker_is_relieved_for_a_gain_of_a_quarter() {
    let uneven = loaded(&[0, 1], &[(0, 0.5), (0, 0.4), (1, 0.1)]);
    let found = plan(&uneven);
    let moves: Vec<_> = found.moves.iter().map(|one| (one.unit, one.from, one.to, one.reason)).collect();
    assert_eq!(moves, [(pair(1, 0), 0, 1, MoveReason::Load)]);
    assert!((found.gain - 0.8).abs() < 1e-9 && (found.before[0] - 0.9).abs() < 1e-9, "{found:?}");
    assert!((found.after[0] - 0.5).abs() < 1e-9 && (found.after[1] - 0.5).abs() < 1e-9, "{found:?}");
    // A fifth more is not a quarter.
    assert_eq!(plan(&loaded(&[0, 1], &[(0, 0.5), (0, 0.2), (0, 0.2), (1, 0.55)])).moves, []);
    // A worker that is hardly busy is left alone, and so is one unit that fills it.
    assert_eq!(plan(&loaded(&[0, 1], &[(0, 0.1), (0, 0.1)])).moves, []);
    assert_eq!(plan(&loaded(&[0, 1], &[(0, 1.0)])).moves, []);
}

/// Where no single move helps, two units are exchanged.
#[test]
fn an_exchange() {
    let found = plan(&loaded(&[0, 1], &[(0, 0.5), (0, 0.5), (1, 0.25), (1, 0.25)]));
    assert_eq!(found.moves.len(), 2, "{found:?}");
    assert!(found.after.iter().all(|&load| (load - 0.75).abs() < 1e-9), "{found:?}");
}

#[test]
fn in_turn_and_by_lot_nothing_moves_for_a_gain() {
    let uneven = loaded(&[0, 1], &[(0, 0.5), (0, 0.4)]);
    for policy in [Policy::RoundRobin, Policy::Random] {
        assert_eq!(planner(policy).plan(&uneven, |_| false).moves, []);
    }
}

#[test]
fn memory_that_is_elsewhere_calls_for_its_worker() {
    let mut scene = scene(Topology::even(2, 4, 1), &[0, 4]);
    add(&mut scene, on(1), &[(Some(0), Some(0.3))]);
    add(&mut scene, on(1), &[(Some(1), Some(0.1))]);
    let found = plan(&scene);
    assert_eq!((found.moves[0].reason, found.moves[0].to), (MoveReason::Memory, 1));
    assert_eq!(found.moves.len(), 1);
    // Local, it takes half of the time.
    assert!(found.after[1] < 0.3 && found.gain > 0.9, "{found:?}");
    // Not to a worker that has no room.
    scene.queues[2].busy = Some(0.45);
    scene.queues[3].busy = Some(0.45);
    assert_eq!(plan(&scene).moves, []);
    // Nodes that are nearly as near are not worth it.
    scene.queues[2].busy = Some(0.0);
    scene.topology.nodes.iter_mut().flat_map(|node| &mut node.distances).for_each(|(_, distance)| {
        *distance = (*distance).min(12);
    });
    assert_eq!(plan(&scene).moves, []);
}

#[test]
fn rules_are_mended_whatever_it_gains_and_at_once() {
    let mut scene = loaded(&[0, 1, 2], &[(0, 0.01), (1, 0.01), (2, 0.01)]);
    scene.topology.cpus[0].online = false;
    scene.ports[1].vcpus = CpuSet::from([1]);
    scene.ports[2].pin = Some(Pin::Cpus(CpuSet::from([1])));
    let mut rebalancer = Rebalancer::default();
    let mut planner = planner(Policy::RoundRobin);
    let Look::Carry(found) = rebalancer.look(&mut planner, &scene, 0) else { panic!("a rule waits") };
    let reasons: Vec<_> = found.moves.iter().map(|one| one.reason).collect();
    assert_eq!(reasons, [MoveReason::WorkerClosed, MoveReason::OwnVcpu, MoveReason::Pin]);
    assert_eq!((found.moves[1].to, found.moves[2].to), (2, 1));
    found.moves.iter().for_each(|one| carry(&mut scene, Granularity::Pair, one.unit, one.to));
    rebalancer.carried(&found.moves, 0);
    assert_eq!(rebalancer.look(&mut planner, &scene, 5), Look::Nothing);
    // Also soon after: a vCPU is pinned anew.
    let worker = workers_of(&scene, 0)[0];
    scene.ports[0].vcpus = CpuSet::from([scene.workers[usize::from(worker)].cpu]);
    assert!(matches!(rebalancer.look(&mut planner, &scene, 10), Look::Carry(_)));
}

#[test]
fn a_dry_run_first_then_the_moves_then_peace() {
    let mut scene = loaded(&[0, 1], &[(0, 0.5), (0, 0.4), (1, 0.1)]);
    let (mut rebalancer, mut planner) = (Rebalancer::default(), planner(Policy::Measured));
    let Look::DryRun(dry) = rebalancer.look(&mut planner, &scene, 0) else { panic!("no dry run") };
    // What was worth it once only is not done.
    let calm = loaded(&[0, 1], &[(0, 0.1), (0, 0.1), (1, 0.1)]);
    assert_eq!(rebalancer.look(&mut planner, &calm, 5), Look::Nothing);
    assert_eq!(rebalancer.look(&mut planner, &scene, 10), Look::DryRun(dry.clone()));
    assert_eq!(rebalancer.look(&mut planner, &scene, 15), Look::Carry(dry.clone()));
    dry.moves.iter().for_each(|one| carry(&mut scene, Granularity::Pair, one.unit, one.to));
    rebalancer.carried(&dry.moves, 15);
    // The load turns over at once: nothing moves for a while, and what was moved stays longer.
    let turned = loaded(&[0, 1], &[(0, 0.1), (1, 0.5), (1, 0.4)]);
    assert_eq!(rebalancer.look(&mut planner, &turned, 20), Look::Nothing);
    assert_eq!(rebalancer.look(&mut planner, &turned, 25), Look::Nothing);
    let Look::DryRun(then) = rebalancer.look(&mut planner, &turned, 30) else { panic!("held for ever") };
    assert!(then.moves.iter().all(|one| one.unit != pair(1, 0)), "{then:?}");
}

proptest! {
    /// A plan only moves for a gain of a quarter, what it promises is so, and another look finds nothing more urgent.
    #[test]
    fn a_plan_keeps_its_promise(
        guests in proptest::collection::vec((0_u16..4, 0.0_f64..0.5, 0_u16..2), 1..14),
        talks in proptest::collection::vec((0_usize..14, 0_usize..14, 0.0_f64..0.2), 0..8),
    ) {
        let mut scene = scene(Topology::even(2, 8, 1), &[0, 1, 8, 9]);
        for &(worker, busy, node) in &guests {
            add(&mut scene, on(node), &[(Some(worker), Some(busy))]);
        }
        for (one, other, hand_off) in talks {
            if one != other && one.max(other) < guests.len() {
                talk(&mut scene, one, other, hand_off);
            }
        }
        let found = plan(&scene);
        prop_assert!(found.moves.is_empty() || found.gain >= GAIN_MIN, "{:?}", found);
        prop_assert!(!found.moves.is_empty() || found.before == found.after);
        for one in &found.moves {
            prop_assert!(one.from != one.to);
            prop_assert!(!one.reason.is_repair());
            let home = scene.ports[usize::from(one.unit.port)].home.node();
            let was_remote = scene.node_of(usize::from(one.from)) != home;
            prop_assert!(one.reason == MoveReason::Memory || scene.node_of(usize::from(one.from)) == scene.node_of(usize::from(one.to)));
            prop_assert!(one.reason != MoveReason::Memory || was_remote);
        }
        // Each unit moves once.
        let mut units: Vec<_> = found.moves.iter().map(|one| one.unit).collect();
        units.sort_unstable();
        units.dedup();
        prop_assert_eq!(units.len(), found.moves.len());
    }

    /// Whatever goes wrong with CPUs and vCPUs: one look later nothing is where it must not be.
    #[test]
    fn one_look_mends_all(
        guests in proptest::collection::vec((0_u16..6, proptest::collection::btree_set(0_usize..6, 0..3)), 1..12),
        offline in proptest::collection::btree_set(0_usize..6, 0..5),
    ) {
        let mut scene = loaded(&[0, 1, 2, 3, 4, 5], &[]);
        for (worker, vcpus) in guests {
            add(&mut scene, PortFacts { vcpus, ..on(0) }, &[(Some(worker), Some(0.05))]);
        }
        offline.iter().for_each(|&cpu| scene.topology.cpus[cpu].online = false);
        let found = plan(&scene);
        found.moves.iter().for_each(|one| carry(&mut scene, Granularity::Pair, one.unit, one.to));
        for queue in &scene.queues {
            let worker = usize::from(queue.worker.unwrap());
            prop_assert!(scene.is_open(worker));
            let vcpus = &scene.ports[queue.port].vcpus;
            let left = (0..6).any(|worker| scene.is_open(worker) && !vcpus.contains(&scene.workers[worker].cpu));
            prop_assert!(!left || !vcpus.contains(&scene.workers[worker].cpu));
        }
        prop_assert!(!plan(&scene).is_urgent());
    }
}
