//! Where something goes that has no place yet.

use proptest::prelude::*;

use super::*;

fn place(scene: &Scene, unit: UnitId) -> (u16, String) {
    let (worker, why) = planner(Policy::Measured).place(scene, unit).expect("a worker");
    (worker, why.shown(|port| ["vm0", "vm1", "vm2"].get(usize::from(port)).copied()))
}

#[test]
fn beside_its_memory_else_beside_the_nic() {
    let mut scene = scene(Topology::even(2, 4, 1), &[0, 4]);
    add(&mut scene, on(1), &[(None, None)]);
    add(&mut scene, PortFacts { home: Home::Nic(1), ..PortFacts::default() }, &[(None, None)]);
    add(&mut scene, PortFacts::default(), &[(None, None)]);
    assert_eq!(place(&scene, pair(0, 0)), (1, "memory on node 1; the only worker that would do".to_owned()));
    assert_eq!(place(&scene, pair(1, 0)), (1, "NIC on node 1; the only worker that would do".to_owned()));
    assert_eq!(
        place(&scene, pair(2, 0)),
        (0, "memory on a node that is not known; least busy of 2 workers".to_owned())
    );
}

/// A node of memory only, or without a worker: the nearest that has one.
#[test]
fn the_nearest_worker_where_the_node_has_none() {
    let mut machine = Topology::even(3, 2, 1);
    for (node, distances) in machine.nodes.iter_mut().zip([[10, 12, 21], [12, 10, 21], [21, 21, 10]]) {
        node.distances = (0..).zip(distances).collect();
    }
    let mut scene = scene(machine, &[2, 4]);
    add(&mut scene, on(0), &[(None, None)]);
    let (worker, why) = place(&scene, pair(0, 0));
    assert_eq!((worker, &*why), (0, "memory on node 0, which has no worker for it; the only worker that would do"));
}

#[test]
fn never_on_the_cpu_of_its_own_vcpu_but_rather_there_than_nowhere() {
    let mut scene = scene(Topology::even(2, 2, 1), &[0, 1, 2]);
    let vcpus = |cpus: &[usize]| PortFacts { vcpus: cpus.iter().copied().collect(), ..on(0) };
    add(&mut scene, vcpus(&[0]), &[(None, None)]);
    add(&mut scene, vcpus(&[0, 1]), &[(None, None)]);
    add(&mut scene, vcpus(&[0, 1, 2]), &[(None, None)]);
    assert_eq!(place(&scene, pair(0, 0)).0, 1);
    assert_eq!(place(&scene, pair(1, 0)).0, 2, "off its node rather than off its vCPU");
    let (worker, why) = place(&scene, pair(2, 0));
    assert_eq!(worker, 0);
    assert!(why.ends_with("no other worker is left, add one elsewhere"), "{why}");
}

#[test]
fn pins_come_first_and_reserved_cpus_never() {
    let mut scene = scene(Topology::even(2, 4, 1), &[0, 1, 4, 5]);
    let pinned = |pin| PortFacts { pin: Some(pin), ..on(0) };
    add(&mut scene, pinned(Pin::Cpus(CpuSet::from([5]))), &[(None, None)]);
    add(&mut scene, pinned(Pin::Node(1)), &[(None, None), (None, None)]);
    add(&mut scene, pinned(Pin::Cpus(CpuSet::from([3]))), &[(None, None)]);
    let (worker, why) = place(&scene, pair(0, 0));
    let said =
        "pinned by the configuration; memory on node 0, which has no worker for it; the only worker that would do";
    assert_eq!((worker, &*why), (3, said));
    assert_eq!(place(&scene, pair(1, 0)).0, 2);
    let (worker, why) = place(&scene, pair(2, 0));
    assert!(worker < 2 && why.contains("where the configuration pins it"), "{worker} {why}");
    scene.reserved = CpuSet::from([0, 5]);
    assert_eq!(place(&scene, pair(2, 0)).0, 1);
    assert_eq!(place(&scene, pair(0, 0)).0, 1, "pinned to what is reserved");
    scene.reserved = CpuSet::from([0, 1, 4, 5]);
    assert_eq!(planner(Policy::Measured).place(&scene, pair(0, 0)), None);
}

#[test]
fn a_guests_pairs_are_dealt_out_so_that_each_worker_has_one_of_its_own() {
    let mut scene = scene(Topology::even(1, 4, 1), &[0, 1]);
    let first = add(&mut scene, on(0), &[(None, None); 4]);
    let second = add(&mut scene, on(0), &[(None, None); 4]);
    place_all(&mut planner(Policy::Measured), &mut scene);
    assert_eq!(workers_of(&scene, first), [0, 1, 0, 1]);
    assert_eq!(workers_of(&scene, second), [0, 1, 0, 1]);
}

#[test]
fn as_one_by_nic_by_pair_and_by_virtqueue() {
    let places = |granularity| {
        let mut scene = scene(Topology::even(1, 4, 1), &[0, 1]);
        add(&mut scene, on(0), &[(None, None); 2]);
        place_all(&mut Planner::new(Policy::Measured, granularity, 1), &mut scene);
        scene.queues.iter().map(|queue| queue.worker.unwrap()).collect::<Vec<_>>()
    };
    assert_eq!(places(Granularity::Nic), [0, 0, 0, 0]);
    assert_eq!(places(Granularity::Pair), [0, 0, 1, 1]);
    assert_eq!(places(Granularity::Virtqueue), [0, 1, 0, 1]);
}

/// A guest that comes back is known: it goes to where those are with which it talks, unless there is no room.
#[test]
fn beside_who_it_talks_to_as_long_as_there_is_room() {
    let come_back = |busy: f64| {
        let mut scene = scene(Topology::even(1, 4, 1), &[0, 1]);
        add(&mut scene, on(0), &[(Some(0), Some(busy))]);
        add(&mut scene, on(0), &[(Some(1), Some(0.1))]);
        add(&mut scene, on(0), &[(None, Some(0.2))]);
        talk(&mut scene, 0, 2, 0.2);
        place(&scene, pair(2, 0))
    };
    let (worker, why) = come_back(0.3);
    assert_eq!((worker, &*why), (0, "memory on node 0; of 2 workers the one of vm0, with which it exchanges most"));
    let (worker, why) = come_back(0.8);
    assert_eq!((worker, &*why), (1, "memory on node 0; least busy of 2 workers"));
}

#[test]
fn in_turn_and_by_lot_memory_does_not_count_but_rules_do() {
    let placed = |policy, seed| {
        let mut scene = scene(Topology::even(2, 2, 1), &[0, 1, 2, 3]);
        for _ in 0..40 {
            add(&mut scene, PortFacts { vcpus: CpuSet::from([3]), ..on(0) }, &[(None, None)]);
        }
        place_all(&mut Planner::new(policy, Granularity::Pair, seed), &mut scene);
        (0..40).flat_map(|port| workers_of(&scene, port)).collect::<Vec<_>>()
    };
    let turns = placed(Policy::RoundRobin, 1);
    assert_eq!(turns[..4], [0, 1, 2, 0]);
    let lots = placed(Policy::Random, 1);
    assert_eq!(lots, placed(Policy::Random, 1));
    assert_ne!(lots, placed(Policy::Random, 2));
    assert!((0..3).all(|worker| lots.contains(&worker)) && !lots.contains(&3), "{lots:?}");
}

/// Any machine, workers, reserved CPUs, and a guest with any memory, vCPUs and pin.
fn any_scene() -> impl Strategy<Value = Scene> {
    let cpus = || proptest::collection::btree_set(0_usize..12, 0..6);
    let pin = prop_oneof![
        4 => Just(None),
        1 => cpus().prop_map(|cpus| Some(Pin::Cpus(cpus))),
        1 => (0_u16..3).prop_map(|node| Some(Pin::Node(node))),
    ];
    let guest = (0_u16..4, cpus(), pin, 1_usize..4);
    let guests = proptest::collection::vec(guest, 1..6);
    let workers = proptest::sample::subsequence((0_usize..12).collect::<Vec<_>>(), 1..12);
    (workers, cpus(), cpus(), guests).prop_map(|(workers, offline, reserved, guests)| {
        let mut machine = Topology::even(3, 4, 1);
        offline.iter().for_each(|&cpu| machine.cpus[cpu].online = false);
        let mut scene = scene(machine, &workers);
        scene.reserved = reserved;
        for (node, vcpus, pin, pairs) in guests {
            // Node 3 is not there: memory of it is nowhere near.
            let facts = PortFacts { vcpus, pin, ..on(node) };
            add(&mut scene, facts, &vec![(None, None); pairs]);
        }
        scene
    })
}

proptest! {
    /// Whatever the machine and the policy: only open workers, and no rule is broken that could be kept.
    #[test]
    fn rules_hold(mut scene in any_scene(), policy in proptest::sample::select(&Policy::ALL), granularity in proptest::sample::select(&Granularity::ALL)) {
        let mut planner = Planner::new(policy, granularity, 7);
        let open: Vec<usize> = (0..scene.workers.len()).filter(|&worker| scene.is_open(worker)).collect();
        for queue in 0..scene.queues.len() {
            let Queue { port, pair, ring, .. } = scene.queues[queue];
            let facts = scene.ports[port].clone();
            let unit = UnitId::of(granularity, facts.number, pair, ring);
            let Some((worker, why)) = planner.place(&scene, unit) else {
                prop_assert!(open.is_empty());
                continue;
            };
            let worker = usize::from(worker);
            prop_assert!(open.contains(&worker));
            prop_assert!(!scene.reserved.contains(&scene.workers[worker].cpu));
            let is_free = |worker: &usize| !facts.vcpus.contains(&scene.workers[*worker].cpu);
            let is_pinned = |worker: &usize| match &facts.pin {
                None => true,
                Some(Pin::Cpus(cpus)) => cpus.contains(&scene.workers[*worker].cpu),
                Some(Pin::Node(node)) => scene.node_of(*worker) == Some(*node),
            };
            let fit = |is: &dyn Fn(&usize) -> bool| open.iter().copied().filter(|worker| is(worker)).collect::<Vec<_>>();
            let legal = fit(&|worker| is_free(worker) && is_pinned(worker));
            prop_assert!(is_free(&worker) || fit(&is_free).is_empty());
            prop_assert!(legal.is_empty() || legal.contains(&worker));
            prop_assert_eq!(why.compromise.is_none(), !legal.is_empty());
            if let (Policy::Measured, Home::Memory(home)) = (policy, facts.home) {
                let among = if legal.is_empty() { fit(&is_free) } else { legal };
                let among = if among.is_empty() { open.clone() } else { among };
                let distance = |worker: usize| scene.topology.distance(scene.node_of(worker).unwrap(), home);
                prop_assert_eq!(Some(distance(worker)), among.into_iter().map(distance).min());
            }
            carry(&mut scene, granularity, unit, worker as u16);
        }
    }
}
