//! Looks after who is where while frames flow: measures, has the planner look for better places, and moves what it says; follows
//! CPUs that go offline and come back; starts and ends workers where that is left to us. On the thread that keeps house.
//!
//! A worker's busy time is measured; it is shared out among its queues by the frames and bytes that each of them has moved, which
//! are counted anyway, so that this costs the data path nothing. Who talks to whom is what the flow tables say: of what a
//! port sends, each of its flows that were seen lately is taken for an equal part.

use std::collections::{BTreeSet, HashMap};
use std::fs;

use super::chooser::{Flow, ask, auto_max, in_pool};
use super::{Switch, placement::QueueRef};
use crate::account::Traffic;
use crate::flow::Action;
use crate::guest::PairId;
use crate::placement::{Activity, LOOK_SECONDS, Look, Move, Plan, Rebalancer, Resize, Ring, Scaler, Usable};
use crate::worker::Mode;

/// How a worker's busy time is shared out: what a frame counts, and a byte, that came by a queue, and that went by it. The
/// copy is the receiver's and the sender's, all else is the sender's.
const CAME: (f64, f64) = (50.0, 0.1);
const WENT: (f64, f64) = (15.0, 0.05);

/// Flow tables larger than this are not read through every few seconds; of their ports it is not known who talks to whom.
const FLOWS_MAX: usize = 1 << 20;

/// What was counted at the last look.
#[derive(Default)]
struct Before {
    /// By worker, busy ticks.
    workers: HashMap<u16, u64>,
    /// By port, pair and ring, frames and bytes.
    queues: HashMap<(u16, u16, Ring), (u64, u64)>,
    seconds: f64,
}

/// The memory from second to second.
pub(super) struct Tender {
    rebalancer: Rebalancer,
    scaler: Option<Scaler>,
    before: Before,
    /// By worker, busy ticks a second ago.
    second_ago: HashMap<u16, u64>,
    online: String,
    /// CPUs whose workers ended when they went offline.
    lost: Vec<usize>,
}

impl Tender {
    pub(super) fn new(switch: &Switch) -> Self {
        let max = auto_max(&switch.plan, &switch.placement().chooser.machine);
        Self {
            rebalancer: Rebalancer::default(),
            scaler: max.map(Scaler::new),
            before: Before::default(),
            second_ago: HashMap::new(),
            online: online(switch),
            lost: Vec::new(),
        }
    }

    /// To be called every second.
    pub(super) fn tend(&mut self, switch: &Switch, now: u32) {
        let online = online(switch);
        let is_changed = online != self.online;
        if is_changed {
            self.online = online;
            self.follow_cpus(switch);
        }
        self.scale(switch, now);
        if !is_changed && !u64::from(now).is_multiple_of(LOOK_SECONDS) {
            return;
        }
        switch.ask_again(now);
        self.measure(switch, now);
        // Without the lock: with hundreds of guests it takes a while, and sessions are not to wait for it.
        let (scene, mut planner) = {
            let placement = switch.placement();
            (placement.scene(), placement.chooser.planner.clone())
        };
        match self.rebalancer.look(&mut planner, &scene, now.into()) {
            Look::Nothing => {}
            Look::DryRun(plan) => {
                switch.counts.dry_run();
                tracing::debug!("dry run: {}", summary(&plan));
            }
            Look::Carry(plan) => {
                let made = switch.carry(&plan);
                tracing::info!("{} of {} moves made; {}", made.len(), plan.moves.len(), summary(&plan));
                self.rebalancer.carried(&made, now.into());
            }
        }
    }

    /// A worker whose CPU is offline ends, and one begins when it is back.
    fn follow_cpus(&mut self, switch: &Switch) {
        let machine = switch.placement().chooser.read_machine();
        for worker in switch.workers() {
            if machine.is_online(worker.cpu) {
                continue;
            }
            tracing::warn!("CPU {} is offline: worker {} ends, its queues go to others", worker.cpu, worker.number);
            match switch.remove_worker(worker.number) {
                Ok(()) => self.lost.push(worker.cpu),
                Err(error) => tracing::warn!("worker {} goes on wherever the kernel lets it: {error}", worker.number),
            }
        }
        self.lost.retain(|&cpu| {
            if !machine.is_online(cpu) {
                return true;
            }
            match switch.add_worker(cpu) {
                Ok(_) => {}
                Err(error) => tracing::warn!("CPU {cpu} is back, but no worker starts on it: {error}"),
            }
            false
        });
    }

    /// Starts or ends a worker, if that is left to us.
    fn scale(&mut self, switch: &Switch, now: u32) {
        let rate = switch.clock.ticks_per_second();
        let busy = |&(worker, ticks): &(u16, u64)| {
            let before = self.second_ago.get(&worker).copied().unwrap_or(ticks);
            (worker, (ticks.wrapping_sub(before) as f64 / rate).min(1.0))
        };
        let ticks: Vec<(u16, u64)> =
            switch.workers().iter().map(|worker| (worker.number, worker.counters.ticks(Mode::Busy))).collect();
        let busy: HashMap<u16, f64> = ticks.iter().map(busy).collect();
        self.second_ago = ticks.into_iter().collect();
        let Some(scaler) = &mut self.scaler else { return };
        let change = {
            let placement = switch.placement();
            let scene = placement.scene();
            let granularity = placement.chooser.planner.granularity;
            let units = |worker: usize| {
                let here = scene.queues.iter().filter(|queue| queue.worker == Some(worker as u16));
                here.map(|queue| scene.unit_of(granularity, queue)).collect::<BTreeSet<_>>().len()
            };
            let of = |worker: usize| Activity {
                busy: busy.get(&(worker as u16)).copied().unwrap_or(0.0),
                units: units(worker),
            };
            let activity: Vec<Activity> = (0..scene.workers.len()).map(of).collect();
            let chooser = &placement.chooser;
            let mine = in_pool(&chooser.allowed, switch.plan.cpus.as_ref());
            let usable = Usable::new(&chooser.machine, &mine, &chooser.reserved);
            scaler.look(&scene, &usable, &activity, now.into())
        };
        let done = match change {
            None => return,
            Some(Resize::Grow { cpu, congested, busy }) => {
                tracing::info!(
                    "worker {congested} is busy for {:.0} % of its time: one more on CPU {cpu}",
                    busy * 100.0
                );
                switch.add_worker(cpu).map(drop)
            }
            Some(Resize::Shrink { worker, load }) => {
                tracing::info!("worker {worker} is one too many: its node's have {:.0} % of a CPU to do", load * 100.0);
                switch.remove_worker(worker)
            }
        };
        if let Err(error) = done {
            tracing::warn!("the number of workers stays: {error}");
        }
    }

    /// Shares each worker's busy time since the last look out among its queues.
    fn measure(&mut self, switch: &Switch, now: u32) {
        let seconds = switch.clock.seconds();
        let passed = (seconds - self.before.seconds).max(0.001);
        let rate = switch.clock.ticks_per_second();
        let mut counted = HashMap::new();
        let mut count = |port: u16, index: u16, received: &Traffic, transmitted: &Traffic| {
            let of = |traffic: &Traffic| (traffic.packets.get(), traffic.bytes.get());
            counted.insert((port, index, Ring::Transmitq), of(received));
            counted.insert((port, index, Ring::Receiveq), of(transmitted));
        };
        for port in &switch.ports {
            port.pairs().for_each(|(index, pair)| count(port.id, index, &pair.received, &pair.transmitted));
        }
        for port in &switch.nics {
            port.queues().for_each(|(index, queue)| count(port.id, index, &queue.received, &queue.transmitted));
        }
        let before = std::mem::replace(&mut self.before.queues, counted);
        // Frames and bytes since then; none of what was not there.
        let moved = |key: &(u16, u16, Ring), now: (u64, u64)| {
            let then = before.get(key).copied().unwrap_or(now);
            (now.0.wrapping_sub(then.0) as f64, now.1.wrapping_sub(then.1) as f64)
        };
        let moved: HashMap<_, _> = self.before.queues.iter().map(|(key, &now)| (*key, moved(key, now))).collect();
        let weight = |key: &(u16, u16, Ring)| {
            let (frames, bytes) = moved.get(key).copied().unwrap_or_default();
            let (frame, byte) = if key.2 == Ring::Transmitq { CAME } else { WENT };
            frames * frame + bytes * byte
        };
        let traffic = traffic(switch, now, |port| {
            let sent = moved.iter().filter(|((of, _, ring), _)| *of == port && *ring == Ring::Transmitq);
            sent.fold((0.0, 0.0), |sum, (_, moved)| (sum.0 + moved.0 / passed, sum.1 + moved.1 / passed))
        });
        let mut busy = HashMap::new();
        let mut placement = switch.placement();
        for worker in switch.workers() {
            let ticks = worker.counters.ticks(Mode::Busy);
            let then = self.before.workers.insert(worker.number, ticks).unwrap_or(ticks);
            let share = (ticks.wrapping_sub(then) as f64 / rate / passed).min(1.0);
            let keys: Vec<_> = placement.queues_of(worker.number).into_iter().flat_map(keys).collect();
            let sum: f64 = keys.iter().map(weight).sum();
            for key in keys {
                busy.insert(key, if sum > 0.0 { share * weight(&key) / sum } else { 0.0 });
            }
        }
        let is_first = self.before.seconds == 0.0;
        self.before.seconds = seconds;
        if !is_first {
            (placement.chooser.busy, placement.chooser.traffic) = (busy, traffic);
        }
    }
}

fn keys(queue: QueueRef) -> [(u16, u16, Ring); 2] {
    let (port, index) = match queue {
        QueueRef::Pair(id) => (id.port, id.index),
        QueueRef::Nic(id) => (id.port, id.index),
    };
    [(port, index, Ring::Transmitq), (port, index, Ring::Receiveq)]
}

/// Who talks to whom, by the flows that were seen since the last look; `sent` is what a port sends, in frames and bytes a second.
fn traffic(switch: &Switch, now: u32, sent: impl Fn(u16) -> (f64, f64)) -> Vec<Flow> {
    let mut flows: HashMap<u16, HashMap<u16, u32>> = HashMap::new();
    for worker in switch.workers() {
        if worker.flows.capacity() as usize > FLOWS_MAX {
            return Vec::new();
        }
        worker.flows.for_each(|flow| {
            if let Action::Forward(to) = flow.value.action
                && u64::from(now.saturating_sub(flow.seen)) <= LOOK_SECONDS
            {
                *flows.entry(flow.key.port()).or_default().entry(to).or_default() += 1;
            }
        });
    }
    let of_port = |(from, to): (u16, HashMap<u16, u32>)| {
        let (all, (frames, bytes)) = (f64::from(to.values().sum::<u32>()), sent(from));
        to.into_iter().map(move |(to, count)| {
            let share = f64::from(count) / all;
            Flow { from, to, frames: frames * share, bytes: bytes * share }
        })
    };
    flows.into_iter().flat_map(of_port).collect()
}

fn online(switch: &Switch) -> String {
    let at = switch.placement().chooser.host.sysfs.join("devices/system/cpu/online");
    fs::read_to_string(at).unwrap_or_default()
}

/// Loads before and after, and the gain.
fn summary(plan: &Plan) -> String {
    let list = |loads: &[f64]| loads.iter().map(|load| format!("{:.0}", load * 100.0)).collect::<Vec<_>>().join(" ");
    let (before, after) = (list(&plan.before), list(&plan.after));
    let moves = plan.moves.len();
    format!("{moves} moves: load by worker {before} % now, {after} % then, a gain of {:.0} %", plan.gain * 100.0)
}

impl Switch {
    /// Makes the moves of a plan; those that were made.
    fn carry(&self, plan: &Plan) -> Vec<Move> {
        let is_made = |one: &&Move| {
            let pairs: Vec<PairId> = {
                let placement = self.placement();
                placement.pairs.keys().copied().filter(|&id| placement.chooser.unit(id) == one.unit).collect()
            };
            let mut all = !pairs.is_empty();
            for id in pairs {
                let name = self.queue_name(QueueRef::Pair(id));
                match self.move_pair(id, one.to) {
                    Ok(_) => {
                        self.placement().chooser.note_moved(id, one.to, one.why);
                        self.counts.moved(one.reason);
                        let why = one.why.shown(|port| self.port_name(port));
                        let (from, to, reason) = (one.from, one.to, one.reason.as_str());
                        tracing::info!("queue pair {name} moves from worker {from} to {to} ({reason}): {why}");
                    }
                    Err(error) => {
                        tracing::warn!("queue pair {name} stays with worker {}: {error}", one.from);
                        all = false;
                    }
                }
            }
            all
        };
        plan.moves.iter().filter(is_made).cloned().collect()
    }

    /// Asks the kernel again where guests' memory and vCPUs are.
    fn ask_again(&self, now: u32) {
        let (host, machine) = {
            let placement = self.placement();
            (placement.chooser.host.clone(), placement.chooser.machine.clone())
        };
        for port in &self.ports {
            if let Some((stream, memory)) = port.connection() {
                let known = ask((&host, &machine), stream.as_deref(), &memory, now);
                self.placement().chooser.learn(port.id, known);
            }
        }
        for port in &self.nics {
            let node = port.info().and_then(|info| info.node).and_then(|node| u16::try_from(node).ok());
            self.placement().chooser.note_nic(port.id, node);
        }
    }

    /// What would be moved now; nothing is.
    #[must_use]
    pub fn dry_run(&self) -> Plan {
        let (scene, mut planner) = {
            let placement = self.placement();
            (placement.scene(), placement.chooser.planner.clone())
        };
        planner.plan(&scene, |_| false)
    }
}
