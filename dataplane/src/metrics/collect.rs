//! Reads every counter of the switch.

use prometheus::proto::MetricFamily;

use super::families::Families;
use crate::account::{DropCounters, DropReason, Service, Traffic};
use crate::guest::ring::RingFault;
use crate::guest::{Features, PairCounters, Port, PortState};
use crate::nic;
use crate::placement::MoveReason;
use crate::switch::Switch;
use crate::worker::{Mode, PathCounters, WorkerCounters};

/// Everything, as of now.
#[must_use]
pub fn collect(switch: &Switch) -> Vec<MetricFamily> {
    let mut families = Families::default();
    families
        .gauge("build_info", "The version that runs; always 1.")
        .add(&[("version", env!("CARGO_PKG_VERSION"))], 1.0);
    workers(switch, &mut families);
    placement(switch, &mut families);
    ports(switch, &mut families);
    queues(switch, &mut families);
    vhost(switch, &mut families);
    nics(switch, &mut families);
    tables(switch, &mut families);
    families.done()
}

fn placement(switch: &Switch, families: &mut Families) {
    let mut moves =
        families.counter("queue_moves_total", "Queue pairs that the planner has moved to another worker, by what for.");
    for reason in MoveReason::ALL {
        moves.add(&[("reason", reason.as_str())], switch.counts.moves(reason) as f64);
    }
    drop(moves);
    families
        .counter("rebalance_dry_runs_total", "Looks of the planner that found moves worth it, and waited for the next.")
        .add(&[], switch.counts.dry_runs() as f64);
    let mut remote = families.gauge(
        "worker_remote_memory_queues",
        "Queue pairs whose guest's memory is on another NUMA node than their worker.",
    );
    for worker in &switch.workers() {
        let count = switch.placed(worker.number).into_iter().filter(|(.., is_remote)| *is_remote).count();
        remote.add(&[("worker", &worker.number.to_string())], count as f64);
    }
    drop(remote);
}

fn workers(switch: &Switch, families: &mut Families) {
    let rate = switch.clock.ticks_per_second();
    let each = |family: &mut super::families::Family<'_>, value: &dyn Fn(&WorkerCounters, Mode) -> f64| {
        for worker in switch.tallies() {
            let (number, cpu) = (worker.number.to_string(), worker.cpu.to_string());
            for mode in Mode::ALL {
                let labels = [("worker", &*number), ("cpu", &*cpu), ("mode", mode.as_str())];
                family.add(&labels, value(&worker.counters, mode));
            }
        }
    };
    each(
        &mut families.counter(
            "worker_seconds_total",
            "Time by what the loop iteration did: received a frame (busy, the whole iteration), polled in vain (idle), slept. Adds up to wall time.",
        ),
        &|counters, mode| counters.ticks(mode) as f64 / rate,
    );
    each(&mut families.counter("worker_iterations_total", "Loop iterations by what they did."), &|counters, mode| {
        counters.iterations(mode) as f64
    });
    let mut rings = families.gauge(
        "worker_rings",
        "Transmitqs at which a worker looks (polled), and those at which it does not until their guests kick (armed).",
    );
    for worker in &switch.workers() {
        let (number, cpu) = (worker.number.to_string(), worker.cpu.to_string());
        let (armed, polled) = worker.counters.rings();
        for (state, count) in [("armed", armed), ("polled", polled)] {
            rings.add(&[("worker", &*number), ("cpu", &*cpu), ("state", state)], f64::from(count));
        }
    }
    drop(rings);
    families
        .counter("queue_moves_total", "Times that a queue went from one worker to another.")
        .add(&[], switch.moves() as f64);
    let sum = |of: &dyn Fn(&WorkerCounters) -> u64| {
        switch.tallies().iter().map(|worker| of(&worker.counters)).sum::<u64>() as f64
    };
    families
        .counter("extra_copies_packets_total", "Copies beyond the first of frames that were flooded.")
        .add(&[], sum(&|counters| counters.extra_copies.get()));
    families
        .counter(
            "generated_packets_total",
            "Frames that the switch made itself: segments beyond the first of a frame cut for its receiver.",
        )
        .add(&[], sum(&|counters| counters.generated.get()));
    let path = |family: &mut super::families::Family<'_>, of: &dyn Fn(&PathCounters) -> u64| {
        family.add(&[("path", "guest_to_guest")], sum(&|counters| of(&counters.guest_to_guest)));
        family.add(&[("path", "guest_to_nic")], sum(&|counters| of(&counters.guest_to_nic)));
        family.add(&[("path", "nic_to_guest")], sum(&|counters| of(&counters.nic_to_guest)));
        family.add(&[("path", "nic_to_nic")], sum(&|counters| of(&counters.nic_to_nic)));
        family.add(&[("path", "hand_off")], sum(&|counters| of(&counters.hand_off)));
    };
    path(
        &mut families.counter("forwarded_bytes_total", "Bytes of frames delivered, by the path that they took."),
        &|path| path.forwarded_bytes.get(),
    );
    path(
        &mut families.counter(
            "copied_bytes_total",
            "Bytes of frames written to bring them there: divided by the forwarded bytes, how often each was copied. The private copy of a frame's first 128 bytes is not a copy on the way and not counted.",
        ),
        &|path| path.copied_bytes.get(),
    );
}

/// The four counts of traffic, by name: of received and transmitted.
type TrafficCount = (&'static str, &'static str, fn(&Traffic, &Traffic) -> u64);

/// A count that only guests' pairs have, by name.
type PairCount = (&'static str, &'static str, fn(&PairCounters) -> u64);

/// A count of what a queue's frames cost, by name; the number is that of ticks a second.
type ServiceCount = (&'static str, &'static str, fn(&Service, f64) -> f64);

const TRAFFIC: [TrafficCount; 4] = [
    ("receive_packets_total", "Frames received from the guest or NIC.", |received, _| received.packets.get()),
    ("receive_bytes_total", "Bytes of frames received from the guest or NIC.", |received, _| received.bytes.get()),
    ("transmit_packets_total", "Frames given to the guest or NIC.", |_, transmitted| transmitted.packets.get()),
    ("transmit_bytes_total", "Bytes of frames given to the guest or NIC.", |_, transmitted| transmitted.bytes.get()),
];

fn ports(switch: &Switch, families: &mut Families) {
    let mut info = families.gauge("port_info", "What a port is; always 1.");
    let guests = switch.ports.iter().map(|port| (port.id, &port.name, "vhost-user"));
    for (id, name, kind) in guests.chain(switch.nics.iter().map(|port| (port.id, &port.name, "nic"))) {
        info.add(&[("port", name), ("bridge", switch.bridge_name(id).unwrap_or("?")), ("kind", kind)], 1.0);
    }
    drop(info);
    for (name, help, value) in TRAFFIC {
        let mut family = families.counter(&format!("port_{name}"), help);
        for port in &switch.ports {
            let sum = port.pairs().map(|(_, pair)| value(&pair.received, &pair.transmitted)).sum::<u64>();
            family.add(&[("port", &port.name)], sum as f64);
        }
        for port in &switch.nics {
            let sum = port.queues().map(|(_, queue)| value(&queue.received, &queue.transmitted)).sum::<u64>();
            family.add(&[("port", &port.name)], sum as f64);
        }
    }
    let mut dropped = families.counter(
        "dropped_packets_total",
        "Frames dropped, by reason; received from the guest or NIC and forwarded nowhere, or not transmitted to it.",
    );
    let mut each = |port: &str, queue: &str, receive: &DropCounters, transmit: &DropCounters| {
        for (direction, counters) in [("receive", receive), ("transmit", transmit)] {
            for &reason in DropReason::ALL {
                let labels = [("port", port), ("queue", queue), ("direction", direction), ("reason", reason.as_str())];
                dropped.add(&labels, counters.get(reason) as f64);
            }
        }
    };
    each_pair(switch, &mut |port, queue, pair| each(&port.name, queue, &pair.receive_dropped, &pair.transmit_dropped));
    each_nic_queue(switch, &mut |port, index, queue| {
        each(&port.name, index, &queue.receive_dropped, &queue.transmit_dropped);
    });
}

fn each_nic_queue(switch: &Switch, with: &mut dyn FnMut(&nic::Port, &str, &nic::QueueCounters)) {
    for port in &switch.nics {
        for (index, queue) in port.queues() {
            with(port, &index.to_string(), queue);
        }
    }
}

fn each_pair(switch: &Switch, with: &mut dyn FnMut(&Port, &str, &PairCounters)) {
    for port in &switch.ports {
        for (index, pair) in port.pairs() {
            with(port, &index.to_string(), pair);
        }
    }
}

fn queues(switch: &Switch, families: &mut Families) {
    for (name, help, value) in TRAFFIC {
        let mut family = families.counter(&format!("queue_{name}"), help);
        each_pair(switch, &mut |port, queue, pair| {
            family.add(&[("port", &port.name), ("queue", queue)], value(&pair.received, &pair.transmitted) as f64);
        });
        each_nic_queue(switch, &mut |port, index, queue| {
            family.add(&[("port", &port.name), ("queue", index)], value(&queue.received, &queue.transmitted) as f64);
        });
    }
    let rate = switch.clock.ticks_per_second();
    let service: [ServiceCount; 4] = [
        ("flow_misses_total", "Frames from it that were decided anew: no cached verdict held.", |service, _| {
            service.flow_misses.get() as f64
        }),
        (
            "miss_budget_visits_total",
            "Visits that ended early since more frames had to be decided anew.",
            |service, _| service.miss_budget.get() as f64,
        ),
        (
            "visits_put_off_total",
            "Visits put off since the port had used its share of a saturated worker.",
            |service, _| service.put_off.get() as f64,
        ),
        ("saturated_seconds_total", "Time that a saturated worker has spent on frames from it.", |service, rate| {
            service.ticks.get() as f64 / rate
        }),
    ];
    for (name, help, value) in service {
        let mut family = families.counter(&format!("queue_{name}"), help);
        each_pair(switch, &mut |port, queue, pair| {
            family.add(&[("port", &port.name), ("queue", queue)], value(&pair.service, rate));
        });
        each_nic_queue(switch, &mut |port, index, queue| {
            family.add(&[("port", &port.name), ("queue", index)], value(&queue.service, rate));
        });
    }
    let interrupts: [PairCount; 2] = [
        ("guest_interrupts_total", "Interrupts sent to the guest.", |pair| pair.interrupts.get()),
        ("guest_interrupts_suppressed_total", "Bursts for which the guest wanted no interrupt.", |pair| {
            pair.interrupts_suppressed.get()
        }),
    ];
    for (name, help, value) in interrupts {
        let mut family = families.counter(&format!("queue_{name}"), help);
        each_pair(switch, &mut |port, queue, pair| {
            family.add(&[("port", &port.name), ("queue", queue)], value(pair) as f64);
        });
    }
    let mut faults = families.counter("queue_faults_total", "Times that a guest broke this rule of rings.");
    each_pair(switch, &mut |port, queue, pair| {
        for rule in RingFault::ALL {
            let labels = [("port", &*port.name), ("queue", queue), ("rule", rule.as_str())];
            faults.add(&labels, pair.faults(rule) as f64);
        }
    });
    drop(faults);
    let mut broken =
        families.gauge("queue_broken", "1 for a queue pair that stands still since its guest broke the rule.");
    each_pair(switch, &mut |port, queue, pair| {
        let fault = pair.fault();
        for rule in RingFault::ALL {
            let labels = [("port", &*port.name), ("queue", queue), ("rule", rule.as_str())];
            broken.add(&labels, f64::from(u8::from(fault == Some(rule))));
        }
    });
}

fn vhost(switch: &Switch, families: &mut Families) {
    let mut connected = families.gauge("vhost_connected", "Whether a front end is there.");
    for port in &switch.ports {
        let there = port.state() != PortState::Connecting;
        connected.add(&[("port", &port.name)], f64::from(u8::from(there)));
    }
    drop(connected);
    let mut connects = families.counter("vhost_connects_total", "Times that a front end was connected to.");
    for port in &switch.ports {
        connects.add(&[("port", &port.name)], port.connects() as f64);
    }
    drop(connects);
    let mut info = families.gauge("vhost_info", "What was negotiated; always 1.");
    for port in &switch.ports {
        let features = port.negotiated();
        let ring = match port.state() {
            PortState::Running if features.contains(Features::RING_PACKED) => "packed",
            PortState::Running => "split",
            _ => "none",
        };
        info.add(&[("port", &port.name), ("ring", ring), ("features", &format!("{:#x}", features.bits()))], 1.0);
    }
    drop(info);
    let mut pairs = families.gauge("vhost_queue_pairs", "Queue pairs offered to the guest, and enabled by it.");
    for port in &switch.ports {
        pairs.add(&[("port", &port.name), ("kind", "offered")], f64::from(port.pairs_offered()));
        pairs.add(&[("port", &port.name), ("kind", "enabled")], port.running().len() as f64);
    }
}

fn nics(switch: &Switch, families: &mut Families) {
    let yes = |is: bool| f64::from(u8::from(is));
    let mut up = families.gauge("nic_up", "Whether the port's device is in use; if not, `show ports` says why.");
    for port in &switch.nics {
        up.add(&[("port", &port.name)], yes(port.state() == nic::PortState::Running));
    }
    drop(up);
    let mut link = families.gauge("nic_link_up", "Whether the cable is in.");
    for port in &switch.nics {
        link.add(&[("port", &port.name)], yes(port.link.is_up()));
    }
    drop(link);
    let mut speed = families.gauge("nic_link_speed_bits_per_second", "The link's speed, where the device knows it.");
    for port in &switch.nics {
        if let Some(mbit) = port.link.mbit_per_second() {
            speed.add(&[("port", &port.name)], f64::from(mbit) * 1e6);
        }
    }
    drop(speed);
    let mut queues = families.gauge("nic_queues", "RX and TX queues in use.");
    for port in &switch.nics {
        let info = port.info().unwrap_or_default();
        queues.add(&[("port", &port.name), ("direction", "receive")], f64::from(info.rx_queues));
        queues.add(&[("port", &port.name), ("direction", "transmit")], f64::from(info.tx_queues));
    }
    drop(queues);
    let mut info = families.gauge("nic_info", "The device as it was found; always 1.");
    for port in &switch.nics {
        if let Some(of) = port.info() {
            let labels = [("port", &*port.name), ("driver", &of.driver), ("steering", of.steering), ("mac", &of.mac)];
            info.add(&labels, 1.0);
        }
    }
    drop(info);
    let mut members = families
        .gauge("nic_bond_member", "1 for the state that a member of a bond is in, 0 for those that it is not in.");
    for port in &switch.nics {
        for member in port.members() {
            for state in nic::MemberState::ALL {
                let labels = [("port", &*port.name), ("member", &member.device), ("state", state.as_str())];
                members.add(&labels, yes(member.state == state));
            }
        }
    }
    drop(members);
    let pools = (0..).zip(switch.mempools()).map(|(number, pool): (u32, _)| {
        let node = pool.node.map_or_else(String::new, |node| node.to_string());
        (number.to_string(), node, pool.room.to_string(), pool)
    });
    let pools: Vec<_> = pools.collect();
    let mut mbufs = families.gauge("nic_mbufs", "Mbufs of a mempool, free or not.");
    for (number, node, room, pool) in &pools {
        mbufs.add(&[("pool", number), ("node", node), ("room", room)], pool.mbufs as f64);
    }
    drop(mbufs);
    let mut in_use = families.gauge("nic_mbufs_in_use", "Mbufs of a mempool that are with a NIC or a worker.");
    for (number, node, room, pool) in &pools {
        in_use.add(&[("pool", number), ("node", node), ("room", room)], pool.in_use as f64);
    }
    drop(in_use);
    let mut xstats = families.counter("nic_xstat_total", "The driver's own counters, by DPDK's names.");
    for port in &switch.nics {
        for (name, value) in port.xstats() {
            xstats.add(&[("port", &port.name), ("name", &name)], value as f64);
        }
    }
}

fn ports_of_both_kinds(switch: &Switch) -> impl Iterator<Item = (&str, u16)> {
    let guests = switch.ports.iter().map(|port| (port.name.as_str(), port.id));
    guests.chain(switch.nics.iter().map(|port| (port.name.as_str(), port.id)))
}

fn tables(switch: &Switch, families: &mut Families) {
    let mut entries = families.gauge("mac_entries", "Stations remembered.");
    let mut counts = vec![0u64; switch.bridges.len()];
    for entry in switch.macs.iter() {
        if let Some(count) = counts.get_mut(usize::from(entry.station.bridge)) {
            *count += 1;
        }
    }
    for (bridge, count) in switch.bridges.iter().zip(counts) {
        entries.add(&[("bridge", &bridge.name)], count as f64);
    }
    drop(entries);
    let macs = &switch.macs;
    let mut behind = families.gauge("port_mac_entries", "Stations remembered behind a port.");
    for (name, id) in ports_of_both_kinds(switch) {
        behind.add(&[("port", name)], f64::from(macs.count(id)));
    }
    drop(behind);
    let mut moves = families.counter("mac_moves_total", "Stations seen behind this port after another.");
    for (name, id) in ports_of_both_kinds(switch) {
        moves.add(&[("port", name)], macs.moves(id) as f64);
    }
    drop(moves);
    let mut refused = families.counter(
        "port_mac_refused_total",
        "Times that a station was not remembered because its port has as many as it may.",
    );
    for (name, id) in ports_of_both_kinds(switch) {
        refused.add(&[("port", name)], macs.refused(id) as f64);
    }
    drop(refused);
    families
        .counter(
            "mac_learn_refused_total",
            "Times that a station was not remembered because the table or its bridge's part of it was full.",
        )
        .add(&[], macs.no_room() as f64);
    let mut flows = families.gauge("flow_entries", "Flows cached.");
    for worker in &switch.workers() {
        flows.add(&[("worker", &worker.number.to_string())], worker.flows.entries() as f64);
    }
    drop(flows);
    let mut capacity = families.gauge("flow_capacity", "Flows that there is room for.");
    for worker in &switch.workers() {
        capacity.add(&[("worker", &worker.number.to_string())], worker.flows.capacity() as f64);
    }
    drop(capacity);
    let mut evictions = families.counter("flow_evictions_total", "Flows given up for others, for want of room.");
    for worker in &switch.workers() {
        evictions.add(&[("worker", &worker.number.to_string())], worker.flows.evictions() as f64);
    }
    drop(evictions);
    let mut refused = families
        .counter("flow_inserts_refused_total", "Flows not cached because readers of the table held all spare entries.");
    for worker in &switch.workers() {
        refused.add(&[("worker", &worker.number.to_string())], worker.flows.refused() as f64);
    }
    drop(refused);
    let mut huge = families.gauge(
        "flow_table_huge_pages",
        "Whether the flow table is in huge pages; 0 is a warning: lookups are slower, for want of free huge pages.",
    );
    for worker in &switch.workers() {
        let in_huge = u64::from(worker.flows.in_huge_pages());
        huge.add(&[("worker", &worker.number.to_string())], in_huge as f64);
    }
    drop(huge);
    let mut lookups = families.counter("flow_lookups_total", "Frames looked up in the flow table.");
    for worker in &switch.workers() {
        let (number, counters) = (worker.number.to_string(), &worker.counters);
        lookups.add(&[("worker", &number), ("result", "hit")], counters.flow_hits.get() as f64);
        lookups.add(&[("worker", &number), ("result", "miss")], counters.flow_misses.get() as f64);
    }
}
