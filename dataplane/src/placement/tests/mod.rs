//! The planner on machines that are not there.

mod few;
mod moves;
mod places;
mod scales;
mod worlds;

use super::*;

/// Open workers on these CPUs.
fn seats(cpus: &[usize]) -> Vec<Seat> {
    cpus.iter().map(|&cpu| Seat { cpu, open: true }).collect()
}

/// A scene of workers on a machine, without ports.
fn scene(topology: Topology, cpus: &[usize]) -> Scene {
    Scene { topology, workers: seats(cpus), ..Scene::default() }
}

/// Adds a guest with these pairs: both queues of each on a worker, and busy so much in all.
fn add(scene: &mut Scene, facts: PortFacts, pairs: &[(Option<u16>, Option<f64>)]) -> usize {
    let port = scene.ports.len();
    scene.ports.push(PortFacts { number: port as u16, ..facts });
    for (pair, &(worker, busy)) in (0..).zip(pairs) {
        for ring in [Ring::Transmitq, Ring::Receiveq] {
            scene.queues.push(Queue { port, pair, ring, busy: busy.map(|busy| busy / 2.0), worker });
        }
    }
    port
}

/// A guest with memory on a node.
fn on(node: NodeId) -> PortFacts {
    PortFacts { home: Home::Memory(node), ..PortFacts::default() }
}

/// So much goes from one port to another and back, that handing all of it off would cost this share of a CPU.
fn talk(scene: &mut Scene, one: usize, other: usize, hand_off: f64) {
    // Frames of no bytes at 40 ns each, half of them in each direction.
    let frames = hand_off / 40e-9 / 2.0;
    scene.traffic.push(Traffic { from: one, to: other, frames, bytes: 0.0 });
    scene.traffic.push(Traffic { from: other, to: one, frames, bytes: 0.0 });
}

fn pair(port: u16, pair: u16) -> UnitId {
    UnitId { port, pair: Some(pair), ring: None }
}

fn planner(policy: Policy) -> Planner {
    Planner::new(policy, Granularity::Pair, 1)
}

/// Places all that has no worker, in the order of the scene.
fn place_all(planner: &mut Planner, scene: &mut Scene) {
    for queue in 0..scene.queues.len() {
        let Queue { port, pair, ring, worker, .. } = scene.queues[queue];
        if worker.is_none() {
            let unit = UnitId::of(planner.granularity, scene.ports[port].number, pair, ring);
            let (worker, _) = planner.place(scene, unit).expect("a worker");
            carry(scene, planner.granularity, unit, worker);
        }
    }
}

fn carry(scene: &mut Scene, granularity: Granularity, unit: UnitId, worker: u16) {
    for queue in &mut scene.queues {
        let port = scene.ports[queue.port].number;
        if UnitId::of(granularity, port, queue.pair, queue.ring) == unit {
            queue.worker = Some(worker);
        }
    }
}

fn workers_of(scene: &Scene, port: usize) -> Vec<u16> {
    let sending = scene.queues.iter().filter(|queue| queue.port == port && queue.ring == Ring::Transmitq);
    sending.filter_map(|queue| queue.worker).collect()
}
