//! The switch: ports, bridges, workers and tables together, and who is where among them.
//!
//! Sessions hand their pairs in here; here a worker and a slot are chosen, and all workers are told. Nothing here runs
//! on a worker's thread.

mod chooser;
mod counts;
mod moves;
mod placement;
mod roster;
mod tender;

use std::collections::HashMap;
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use ringway_config::{Idle, Mode, Plan, PortKind, PortPolicy, Vlan, Workers};

pub use self::chooser::worker_cpus;
use self::chooser::{Chooser, ask};
use self::counts::Counts;
pub use self::moves::MoveError;
pub use self::placement::QueueRef;
use self::placement::{PairUse, Placed, PlacedNic, Placement};
use self::roster::Roster;
pub use self::roster::{RosterError, Tally};
use self::tender::Tender;

use crate::cpu::timestamp;
use crate::flow::{BEAT, MacEntry, MacLimits, MacTable, Station};
use crate::guest::ring::Direction;
use crate::guest::{Client, Eventfd, Notifier, PairHost, PairId, Port, QueuePair, Server, Watch};
use crate::nic::{self, Keeper, Queue, Target};
use crate::packet::MacAddress;
use crate::placement::NoCpus;
use crate::policy::PortRules;
use crate::socket::{ListenError, SocketFile};
use crate::worker::{BridgeView, Clock, Common, PortView, Topology, Worker};

/// Without a frame for so long, a ring is armed, and a worker that has no other ones goes to sleep.
const QUIET_MAX: Duration = Duration::from_millis(1);

/// Why a switch does not start.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// A worker does not start.
    #[error(transparent)]
    Worker(#[from] RosterError),
    /// There is no CPU for one.
    #[error(transparent)]
    Cpus(#[from] NoCpus),
    /// A thread or the MAC table cannot be had.
    #[error("cannot start: {0}")]
    System(#[from] std::io::Error),
    /// A port in server mode has no place to listen at.
    #[error("port {port}: {source}; {mend}")]
    Listen {
        /// Its name.
        port: String,
        /// Why.
        source: ListenError,
        /// What to do.
        mend: &'static str,
    },
}

/// A bridge.
#[derive(Debug)]
pub struct Bridge {
    /// Its name.
    pub name: String,
    /// After so long without a frame a station is forgotten.
    pub mac_ageing: Duration,
}

/// The switch.
#[derive(Debug)]
pub struct Switch {
    /// Ports of guests; each knows its number.
    pub ports: Vec<Arc<Port>>,
    /// Ports of NICs, likewise.
    pub nics: Vec<Arc<nic::Port>>,
    /// Whether DPDK is to be started although there is no such port.
    nic_allowed: bool,
    /// MiB that it starts with, if not what the ports need.
    nic_memory_mib: Option<usize>,
    /// Their keeper, once they are served.
    keeper: Mutex<Option<Keeper>>,
    /// By number.
    pub bridges: Vec<Bridge>,
    /// Of each port, the number of its bridge.
    pub bridge_of: Vec<u16>,
    /// Of each port, what it may do.
    pub policies: Vec<PortPolicy>,
    /// What was asked for of workers.
    plan: Workers,
    roster: Roster,
    /// Who is behind which port.
    pub macs: Arc<MacTable>,
    /// Ticks to seconds.
    pub clock: Clock,
    tick: Arc<AtomicU32>,
    beats: Arc<AtomicU32>,
    placement: Mutex<Placement>,
    moves: AtomicU64,
    /// What the planner has done.
    pub counts: Counts,
}

impl Switch {
    /// Starts the workers that `plan` asks for; no port is served yet.
    pub fn start(plan: &Plan) -> Result<Arc<Self>, StartError> {
        let clock = Clock::start();
        let cpus = worker_cpus(&plan.workers, &plan.ports)?;
        let macs = Arc::new(macs(plan)?);
        let tick = Arc::new(AtomicU32::new(0));
        // The rate of the time-stamp counter wants a moment to be measured.
        std::thread::sleep(Duration::from_millis(10));
        let ticks = |time: Duration| (clock.ticks_per_second() * time.as_secs_f64()) as u64;
        let quiet = if plan.workers.idle == Idle::Poll { u64::MAX } else { ticks(QUIET_MAX) };
        let beats = Arc::new(AtomicU32::new(0));
        let flows = plan.workers.flow_table_entries;
        let common = Common { macs: macs.clone(), tick: tick.clone(), beats: beats.clone(), flows, quiet };
        let roster = Roster::new(common);
        let mut placement = Placement::new(plan.workers.unit, Chooser::new(plan), beats.clone());
        for &cpu in &cpus {
            let worker = roster.add(cpu)?.number;
            placement.chooser.note_cpu(worker, cpu);
            placement.open(worker);
        }
        let (mut ports, mut nics) = (Vec::new(), Vec::new());
        for (id, port) in (0..).zip(&plan.ports) {
            match &port.kind {
                PortKind::VhostUser(vhost) => ports.push(Arc::new(Port::new(id, port, vhost))),
                PortKind::Nic(nic) => nics.push(Arc::new(nic::Port::new(id, port, nic, cpus.len()))),
            }
        }
        let bridge_of: Vec<u16> = plan.ports.iter().map(|port| port.bridge as u16).collect();
        placement.guests.clone_from(&ports);
        placement.topology = Topology {
            ports: plan.ports.iter().map(|port| port_view(port, &clock)).collect(),
            bridges: (0..).zip(&plan.bridges).map(|(number, bridge)| bridge_view(number, bridge, plan)).collect(),
            arrival: None,
        };
        let switch = Arc::new(Self {
            ports,
            nics,
            nic_allowed: plan.nic_allowed,
            nic_memory_mib: plan.nic_memory_mib,
            keeper: Mutex::default(),
            bridges: plan
                .bridges
                .iter()
                .map(|bridge| Bridge { name: bridge.name.clone(), mac_ageing: bridge.mac_ageing })
                .collect(),
            bridge_of,
            policies: plan.ports.iter().map(|port| port.policy.clone()).collect(),
            plan: plan.workers.clone(),
            roster,
            macs,
            clock,
            tick,
            beats,
            placement: Mutex::new(placement),
            moves: AtomicU64::new(0),
            counts: Counts::default(),
        });
        switch.publish(&switch.placement());
        Ok(switch)
    }

    /// Begins to serve the guests, and to keep house. What it gives back are the sockets at which ports listen; drop them
    /// when the switch ends.
    pub fn serve(self: &Arc<Self>) -> Result<Vec<SocketFile>, StartError> {
        // Nobody is served until it is sure that all can be.
        let mut listening = Vec::new();
        for port in self.ports.iter().filter(|port| port.mode == Mode::Server) {
            listening.push((port, SocketFile::listen(&port.socket).map_err(|source| no_place(port, source))?));
        }
        let watch = Watch::start()?;
        let switch = self.clone();
        std::thread::Builder::new().name("housekeeping".to_owned()).spawn(move || switch.keep_house())?;
        for port in self.ports.iter().filter(|port| port.mode == Mode::Client) {
            Client::start(port.clone(), self.clone(), watch.clone())?;
        }
        let serve = |(port, (file, listener)): (&Arc<Port>, _)| {
            Server::start(port.clone(), self.clone(), listener).map(|()| file)
        };
        Ok(listening.into_iter().map(serve).collect::<Result<_, _>>()?)
    }

    /// Starts DPDK, if a port needs it or the plan reserves it, and takes every NIC into use that there is.
    pub fn open_nics(self: &Arc<Self>) -> Result<(), StartError> {
        if self.nic_allowed || !self.nics.is_empty() {
            let cpus = self.workers().iter().map(|worker| worker.cpu).collect();
            let keeper = Keeper::start(self.nics.clone(), self.clone(), cpus, self.nic_memory_mib)?;
            *self.keeper() = Some(keeper);
        }
        Ok(())
    }

    /// Takes every NIC out of use and ends DPDK.
    pub fn close_nics(&self) {
        let keeper = self.keeper().take();
        drop(keeper); // without the lock: it asks us for its queues
    }

    /// Starts, stops, removes or adds a NIC port while the switch runs; whether it was not so already.
    ///
    /// # Errors
    /// Why it was not done. A device that cannot be had is no error here: the port says so, and it is tried again.
    pub fn act_on_nic(&self, port: u16, action: nic::Action) -> Result<bool, nic::NotDone> {
        let orders = self.keeper().as_ref().map(Keeper::orders); // the lock is not held while it is done
        orders.map_or_else(|| Err(nic::NotDone::Busy), |orders| orders.act(port, action))
    }

    /// How much of each mempool is in use.
    #[must_use]
    pub fn mempools(&self) -> Vec<nic::PoolUse> {
        self.keeper().as_ref().map_or_else(Vec::new, Keeper::pools)
    }

    fn keeper(&self) -> MutexGuard<'_, Option<Keeper>> {
        self.keeper.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// What a port is called.
    #[must_use]
    pub fn port_name(&self, port: u16) -> Option<&str> {
        let guest = self.ports.iter().find(|guest| guest.id == port).map(|guest| &*guest.name);
        guest.or_else(|| self.nics.iter().find(|nic| nic.id == port).map(|nic| &*nic.name))
    }

    /// What the bridge of a port is called.
    #[must_use]
    pub fn bridge_name(&self, port: u16) -> Option<&str> {
        let bridge = self.bridge_of.get(usize::from(port))?;
        Some(&self.bridges.get(usize::from(*bridge))?.name)
    }

    /// Which worker has a queue.
    #[must_use]
    pub fn worker_of(&self, queue: QueueRef) -> Option<u16> {
        self.placement().at(queue).map(|at| at.worker)
    }

    /// Names of the queues that a worker has, without disabled pairs.
    #[must_use]
    pub fn queues_of(&self, worker: u16) -> Vec<String> {
        let placement = self.placement();
        let queues = placement.queues_of(worker).into_iter().filter(|&queue| !placement.is_drained(queue));
        queues.map(|queue| self.queue_name(queue)).collect()
    }

    /// How often a pair has moved from one worker to another.
    #[must_use]
    pub fn moves(&self) -> u64 {
        self.moves.load(Ordering::Relaxed)
    }

    /// The coarse time: seconds since the start.
    #[must_use]
    pub fn now(&self) -> u32 {
        self.tick.load(Ordering::Relaxed)
    }

    fn placement(&self) -> MutexGuard<'_, Placement> {
        self.placement.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Tells every worker who is where.
    fn publish(&self, placement: &Placement) {
        Worker::set_topology(&self.workers(), &Arc::new(placement.topology.clone()));
    }

    /// Every second: time goes on, stations age, ports whose memory is lost end their connections, and broken pairs are spoken
    /// of once.
    fn keep_house(&self) {
        let (mut spoken, mut tender) = (HashMap::new(), Tender::new(self));
        loop {
            for _ in 0..10 {
                std::thread::sleep(BEAT);
                self.beats.fetch_add(1, Ordering::Relaxed);
            }
            let now = self.clock.seconds() as u32;
            self.tick.store(now, Ordering::Relaxed);
            tender.tend(self, now);
            self.macs.remove_if(|entry| {
                let age =
                    self.bridges.get(usize::from(entry.station.bridge)).map_or(0, |bridge| bridge.mac_ageing.as_secs());
                u64::from(now.saturating_sub(entry.seen)) > age
            });
            for port in &self.ports {
                port.end_if_unbearable();
                for (index, counters) in port.pairs() {
                    let fault = counters.fault();
                    let before = spoken.insert((port.id, index), fault).flatten();
                    if let Some(fault) = fault.filter(|_| before != fault) {
                        let (name, fault) = (&port.name, fault.as_str());
                        tracing::warn!("queue pair {name}/{index} stands still: the guest broke a ring ({fault})");
                    }
                }
            }
        }
    }

    /// Asks the kernel where the memory of a pair's guest is, and its vCPUs, unless that was asked just now.
    fn learn(&self, pair: &QueuePair) {
        let (port, now) = (pair.id.port, self.now());
        let (host, machine) = {
            let placement = self.placement();
            if placement.chooser.is_fresh(port, &pair.memory, now) {
                return;
            }
            (placement.chooser.host.clone(), placement.chooser.machine.clone())
        };
        let connection = self.ports.iter().find(|known| known.id == port).and_then(|port| port.connection());
        let stream = connection.and_then(|(stream, _)| stream);
        let known = ask((&host, &machine), stream.as_deref(), &pair.memory, now);
        self.placement().chooser.learn(port, known);
    }

    /// The pairs that a worker has, without disabled ones: what each is called, why it is there, as an operator reads it, and whether
    /// its memory is on another node.
    #[must_use]
    pub fn placed(&self, worker: u16) -> Vec<(String, String, bool)> {
        let placement = self.placement();
        let why = |queue| {
            let QueueRef::Pair(id) = queue else { return None };
            let why = placement.chooser.why(id)?;
            Some((self.queue_name(queue), why.shown(|port| self.port_name(port)), why.is_remote()))
        };
        let queues = placement.queues_of(worker).into_iter().filter(|&queue| !placement.is_drained(queue));
        queues.filter_map(why).collect()
    }

    /// The NUMA node of a CPU.
    #[must_use]
    pub fn node_of(&self, cpu: usize) -> Option<u16> {
        self.placement().chooser.machine.node_of(cpu)
    }

    /// Takes all queues of a NIC back from their workers, and drops them.
    fn take_back(&self, placement: &mut Placement, port: u16) {
        let ids: Vec<_> = placement.nic_queues.keys().filter(|id| id.port == port).copied().collect();
        for id in ids {
            if let Some(PlacedNic { at, .. }) = placement.nic_queues.remove(&id)
                && let Some(worker) = self.worker(at.worker)
            {
                drop(worker.detach_nic(usize::from(at.slot)));
            }
        }
    }

    /// Forgets all stations behind a port.
    fn flush(&self, port: u16) {
        self.macs.flush(port);
        // Verdicts are looked at closely after this.
        self.publish(&self.placement());
    }
}

fn no_place(port: &Port, source: ListenError) -> StartError {
    let mend = match &source {
        ListenError::InUse(_) => "end who listens there, give the port another `socket`, or use `mode = \"client\"`",
        ListenError::NotASocket(_) => "remove it, or give the port another `socket`",
        ListenError::System { .. } => "give the port a `socket` where this user may make one",
    };
    StartError::Listen { port: port.name.clone(), source, mend }
}

/// A MAC table with the plan's limits and static stations.
fn macs(plan: &Plan) -> std::io::Result<MacTable> {
    let macs = MacTable::new(&MacLimits {
        total: plan.macs_max,
        bridges: plan.bridges.iter().map(|bridge| bridge.policy.macs_max).collect(),
        ports: plan.ports.iter().map(|port| port.policy.macs_max).collect(),
    })?;
    for (number, port) in (0..).zip(&plan.ports) {
        for entry in &port.policy.static_macs {
            let station = Station { bridge: port.bridge as u16, vlan: entry.vlan, mac: MacAddress::from(entry.mac) };
            if !macs.insert_static(station, number) {
                let (mac, name) = (station.mac, &port.name);
                let why = format!(
                    "no room for static MAC {mac} of port {name}: raise `macs_max` of the port, its bridge, or the switch"
                );
                return Err(std::io::Error::other(why));
            }
        }
    }
    Ok(macs)
}

fn port_view(port: &ringway_config::Port, clock: &Clock) -> PortView {
    let rules = PortRules::new(&port.policy, clock.ticks_per_second() as u64, timestamp());
    PortView {
        bridge: port.bridge as u16,
        receivers: Vec::new(),
        steering: None,
        is_nic: false,
        rules: Arc::new(rules),
    }
}

fn bridge_view(number: u16, bridge: &ringway_config::Bridge, plan: &Plan) -> BridgeView {
    let ports = || (0..).zip(&plan.ports).filter(|(_, port)| port.bridge == usize::from(number));
    let guarded = |(number, port): (u16, &ringway_config::Port)| {
        let macs = port.policy.allowed_macs.clone().unwrap_or_default();
        macs.into_iter().map(move |mac| (MacAddress::from(mac), number))
    };
    let mut held: Vec<_> = ports().flat_map(guarded).collect();
    held.sort_unstable();
    BridgeView {
        generation: 1,
        ports: ports().map(|(number, _)| number).collect(),
        has_vlans: ports().any(|(_, port)| port.policy.vlan != Vlan::Transparent),
        flood: bridge.policy.flood,
        forward_link_local: bridge.policy.forward_link_local,
        held,
    }
}

impl Switch {
    /// Hands the queues of a NIC to their workers.
    fn hand_out(&self, placement: &mut Placement, port: u16, queues: Vec<Queue>) -> Result<(), String> {
        let mut attached = Vec::new();
        for mut queue in queues {
            queue.limit_out = placement.limit_out(port);
            let at = placement.place_nic(&queue);
            let taken = match at.and_then(|at| Some((at, self.worker(at.worker)?))) {
                Some((at, worker)) => worker.attach_nic(usize::from(at.slot), queue).map(|()| (at, worker)),
                None => Err("its worker has no room for one more queue of a NIC; use fewer `queues`".to_owned()),
            };
            match taken {
                Ok(at) => attached.push(at),
                Err(error) => {
                    self.take_back(placement, port);
                    return Err(error);
                }
            }
        }
        placement.list_senders(port);
        self.publish(placement);
        // Only now that everybody knows where to send the answers.
        for (at, worker) in attached {
            worker.visit(usize::from(at.slot));
        }
        Ok(())
    }
}

impl nic::Host for Switch {
    fn attach(&self, port: u16, queues: Vec<Queue>) -> Result<(), String> {
        self.hand_out(&mut self.placement(), port, queues)
    }

    fn targets(&self, port: u16) -> Vec<Target> {
        let number = usize::from(port);
        let (Some(&bridge), Some(policy)) = (self.bridge_of.get(number), self.policies.get(number)) else {
            return Vec::new();
        };
        // A guest whose rings are with several workers is left to RSS.
        let mut workers: HashMap<u16, Option<u16>> = HashMap::new();
        for (id, pair) in &self.placement().pairs {
            let worker = workers.entry(id.port).or_insert(Some(pair.at.worker));
            *worker = worker.filter(|&worker| worker == pair.at.worker);
        }
        let target = |entry: MacEntry| {
            let Station { vlan, mac, .. } = entry.station;
            let worker = workers.get(&entry.port).copied().flatten()?;
            if !policy.vlan.contains(vlan) {
                return None;
            }
            let tag = match &policy.vlan {
                Vlan::Transparent => Some(vlan).filter(|&vlan| vlan != 0),
                Vlan::Access(_) => None,
                Vlan::Trunk { native, .. } => Some(vlan).filter(|_| *native != Some(vlan)),
            };
            Some(Target { mac: mac.bytes(), tag, worker })
        };
        self.macs.iter().filter(|entry| entry.station.bridge == bridge).filter_map(target).collect()
    }

    fn change(&self, port: u16, change: &mut dyn FnMut() -> Vec<Queue>) -> Result<(), String> {
        let mut placement = self.placement();
        placement.send_no_more(port);
        self.publish(&placement);
        self.take_back(&mut placement, port);
        self.hand_out(&mut placement, port, change())
    }

    fn detach(&self, port: u16) {
        let mut placement = self.placement();
        placement.send_no_more(port);
        self.publish(&placement);
        self.take_back(&mut placement, port);
        drop(placement);
        self.flush(port);
    }
}

impl PairHost for Switch {
    fn attach(&self, mut pair: QueuePair) -> bool {
        self.learn(&pair);
        let mut placement = self.placement();
        pair.limit_out = placement.limit_out(pair.id.port);
        let id = pair.id;
        let use_ = match (&pair.receiveq, pair.discards) {
            (Some(_), _) => PairUse::Receives,
            (None, false) => PairUse::Sends,
            (None, true) => PairUse::Drained,
        };
        let Some(at) = placement.place(id, use_) else { return false };
        let Some(worker) = self.worker(at.worker) else { return false };
        worker.attach(usize::from(at.slot), pair);
        placement.list_receivers(id.port);
        self.publish(&placement);
        // Only now that everybody knows where the guest is: the first frame that it sends can be answered.
        worker.visit(usize::from(at.slot));
        true
    }

    fn detach(&self, id: PairId) -> Option<QueuePair> {
        let mut placement = self.placement();
        let Placed { at, .. } = placement.pairs.remove(&id)?;
        placement.list_receivers(id.port);
        self.publish(&placement);
        let pair = self.worker(at.worker).and_then(|worker| worker.detach(usize::from(at.slot)));
        placement.free(at);
        pair
    }

    fn set_notifier(&self, id: PairId, ring: Direction, notifier: Notifier, fd: Option<Eventfd>) {
        let placement = self.placement();
        if let Some(Placed { at, .. }) = placement.pairs.get(&id)
            && let Some(worker) = self.worker(at.worker)
        {
            worker.set_notifier(usize::from(at.slot), ring, notifier, fd);
        }
    }

    fn forget(&self, port: u16) {
        {
            let mut placement = self.placement();
            placement.forget_flows(port);
            placement.chooser.forget(port);
        }
        self.flush(port);
    }
}
