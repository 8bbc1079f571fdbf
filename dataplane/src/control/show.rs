//! Answers to `show`, as JSON.

use std::collections::BTreeMap;

use ringway_config::{PRIORITY_OVER_TAG, RateLimit};
use serde_json::{Value, json};

use super::View;
use crate::account::{DropCounters, DropReason};
use crate::flow::Action;
use crate::guest::{Features, PairCounters, PairId, Port, PortState, QUEUE_PAIRS_MAX, SparePair};
use crate::nic::{self, QueueId};
use crate::packet::MacAddress;
use crate::switch::{QueueRef, Switch};
use crate::worker::Mode;

/// The view as an array of objects.
pub(super) fn show(switch: &Switch, view: View) -> Value {
    match view {
        View::Ports => ports(switch),
        View::Queues => queues(switch),
        View::Macs => macs(switch),
        View::Flows => flows(switch),
        View::Workers => workers(switch),
        View::Rebalance => rebalance(switch),
    }
}

fn ports(switch: &Switch) -> Value {
    let port = |port: &std::sync::Arc<Port>| {
        let sum = |of: fn(&PairCounters) -> u64| port.pairs().map(|(_, pair)| of(pair)).sum::<u64>();
        let broken: Vec<_> = port
            .pairs()
            .filter_map(|(index, pair)| Some(format!("{}/{index}: {}", port.name, pair.fault()?.as_str())))
            .collect();
        let dropped = drops(port.pairs().flat_map(|(_, pair)| [&pair.receive_dropped, &pair.transmit_dropped]));
        json!({
            "name": port.name,
            "kind": "vhost-user",
            "bridge": switch.bridge_name(port.id),
            "mode": port.mode.as_str(),
            "mtu": port.mtu,
            "socket": port.socket,
            "state": port.state().as_str(),
            "ring": ring(port),
            "features": port.negotiated().names(),
            "pairs_max": QUEUE_PAIRS_MAX,
            "pairs_offered": port.pairs_offered(),
            "pairs_enabled": port.running().len(),
            "pairs": pairs(port),
            "idle": idle(port),
            "receive_packets": sum(|pair| pair.received.packets.get()),
            "receive_bytes": sum(|pair| pair.received.bytes.get()),
            "transmit_packets": sum(|pair| pair.transmitted.packets.get()),
            "transmit_bytes": sum(|pair| pair.transmitted.bytes.get()),
            "dropped": dropped,
            "broken_queues": broken,
            "last_error": port.last_error(),
        })
    };
    let guests = switch.ports.iter().map(|guest| with_rules(switch, guest.id, port(guest)));
    guests.chain(switch.nics.iter().map(|port| with_rules(switch, port.id, nic_port(switch, port)))).collect()
}

/// What of a port does not depend on what is behind it.
fn with_rules(switch: &Switch, port: u16, mut shown: Value) -> Value {
    let Some(policy) = switch.policies.get(usize::from(port)) else { return shown };
    let macs = |macs: &Vec<ringway_config::Mac>| texts(macs.iter().map(|&mac| MacAddress::from(mac)));
    let rules = json!({
        "vlan": policy.vlan.to_string(),
        "isolated": policy.isolated,
        "allowed_macs": policy.allowed_macs.as_ref().map(macs),
        "allowed_ips": policy.allowed_ips.as_ref().map(texts),
        "storm_limit": policy.storm_limit,
        "limit_in": policy.limit_in.as_ref().map(limit),
        "limit_out": policy.limit_out.as_ref().map(limit),
        "macs": switch.macs.count(port),
        "macs_max": policy.macs_max,
        "mac_moves": switch.macs.moves(port),
        "mac_moves_per_second": policy.mac_moves_per_second,
    });
    if let (Value::Object(shown), Value::Object(rules)) = (&mut shown, rules) {
        shown.extend(rules);
    }
    shown
}

fn texts<T: ToString>(values: impl IntoIterator<Item = T>) -> Vec<String> {
    values.into_iter().map(|value| value.to_string()).collect()
}

fn limit(limit: &RateLimit) -> Value {
    json!({ "unit": limit.unit.as_str(), "per_second": limit.per_second, "burst": limit.burst })
}

fn nic_port(switch: &Switch, port: &nic::Port) -> Value {
    let sum = |of: fn(&nic::QueueCounters) -> u64| port.queues().map(|(_, queue)| of(queue)).sum::<u64>();
    let dropped = drops(port.queues().flat_map(|(_, queue)| [&queue.receive_dropped, &queue.transmit_dropped]));
    let info = port.info();
    let (flow_rules, flow_rules_refused) = port.flow_rules();
    let (rx, tx) = info.as_ref().map_or((0, 0), |info| (info.rx_queues, info.tx_queues));
    json!({
        "name": port.name,
        "kind": "nic",
        "bridge": switch.bridge_name(port.id),
        "device": port.bond.is_none().then(|| port.device()),
        "bond": bond(port),
        "driver": info.as_ref().map(|info| &info.driver),
        "mac": info.as_ref().map(|info| &info.mac),
        "numa_node": info.as_ref().and_then(|info| info.node),
        "mtu": port.mtu,
        "state": port.state().as_str(),
        "link": if port.link.is_up() { "up" } else { "down" },
        "speed_mbit_per_second": port.link.mbit_per_second(),
        "rx_queues": rx,
        "tx_queues": tx,
        "workers": switch.workers().len(),
        "workers_handing_off": if tx == 0 { 0 } else { switch.workers().len().saturating_sub(tx.into()) },
        "steering": info.as_ref().map(|info| info.steering),
        "flow_rules": flow_rules,
        "flow_rules_refused": flow_rules_refused,
        "offloads": info.as_ref().map(|info| &info.offloads),
        "receive_packets": sum(|queue| queue.received.packets.get()),
        "receive_bytes": sum(|queue| queue.received.bytes.get()),
        "transmit_packets": sum(|queue| queue.transmitted.packets.get()),
        "transmit_bytes": sum(|queue| queue.transmitted.bytes.get()),
        "dropped": dropped,
        "last_error": port.last_error(),
    })
}

/// How many of a guest's pairs are in use, and what to do about the others; null without a front end.
fn pairs(port: &Port) -> Option<String> {
    let (offered, enabled) = (usize::from(port.pairs_offered()), port.running().len());
    let says = if enabled == 0 || enabled >= offered {
        return (offered != 0).then(|| format!("{offered} offered, {enabled} enabled"));
    } else if port.negotiated().contains(Features::MQ) {
        format!("ethtool -L eth0 combined {offered}")
    } else {
        "its driver did not take VIRTIO_NET_F_MQ".to_owned()
    };
    Some(format!("{offered} offered, {enabled} enabled by the guest: {says}"))
}

/// What lies idle with pairs that the guest does not use.
fn idle(port: &Port) -> Value {
    let one = |pair: SparePair| {
        json!({
            "queue": format!("{}/{}", port.name, pair.index),
            "msix_vectors": pair.vectors(),
            "ring_bytes": pair.ring_bytes,
            "receive_buffers": pair.buffers,
            "receive_buffer_bytes": pair.buffer_bytes,
        })
    };
    port.spare().into_iter().map(one).collect()
}

/// Of a bond its members: those of the configuration, while nobody looks after them.
fn bond(port: &nic::Port) -> Option<Value> {
    let member = |device: &str, state: Option<nic::MemberState>, last_error: Option<String>| json!({ "device": device, "state": state.map(nic::MemberState::as_str), "last_error": last_error });
    let seen = port.members();
    let members: Vec<_> = if seen.is_empty() {
        port.devices.iter().map(|device| member(device, None, None)).collect()
    } else {
        seen.into_iter().map(|seen| member(&seen.device, Some(seen.state), seen.last_error)).collect()
    };
    Some(json!({ "mode": port.bond?.as_str(), "members": members }))
}

fn ring(port: &Port) -> &'static str {
    match port.state() {
        PortState::Running if port.negotiated().contains(Features::RING_PACKED) => "packed",
        PortState::Running => "split",
        _ => "none",
    }
}

/// Frames dropped, by reason; reasons that never happened are left out.
fn drops<'a>(counters: impl Iterator<Item = &'a DropCounters>) -> BTreeMap<&'static str, u64> {
    let mut dropped = BTreeMap::new();
    for counters in counters {
        for &reason in DropReason::ALL {
            let count = counters.get(reason);
            if count != 0 {
                *dropped.entry(reason.as_str()).or_default() += count;
            }
        }
    }
    dropped
}

fn queues(switch: &Switch) -> Value {
    let mut queues = Vec::new();
    for port in &switch.ports {
        let running: BTreeMap<_, _> = port.running().into_iter().collect();
        for (index, pair) in port.pairs() {
            let info = running.get(&index);
            let worker = switch.worker_of(QueueRef::Pair(PairId { port: port.id, index }));
            queues.push(json!({
                "queue": format!("{}/{index}", port.name),
                "worker": worker,
                "cpu": worker.and_then(|worker| Some(switch.worker(worker)?.cpu)),
                "ring": info.map_or("none", |info| if info.packed { "packed" } else { "split" }),
                "size_receive": info.map_or(0, |info| info.receiveq_size),
                "size_transmit": info.map_or(0, |info| info.transmitq_size),
                "receive_packets": pair.received.packets.get(),
                "receive_bytes": pair.received.bytes.get(),
                "transmit_packets": pair.transmitted.packets.get(),
                "transmit_bytes": pair.transmitted.bytes.get(),
                "interrupts": pair.interrupts.get(),
                "interrupts_suppressed": pair.interrupts_suppressed.get(),
                "dropped_receive": drops([&pair.receive_dropped].into_iter()),
                "dropped_transmit": drops([&pair.transmit_dropped].into_iter()),
                "broken": pair.fault().map(|fault| fault.as_str()),
            }));
        }
    }
    for port in &switch.nics {
        let info = port.info().unwrap_or_default();
        for (index, queue) in port.queues() {
            let worker = switch.worker_of(QueueRef::Nic(QueueId { port: port.id, index }));
            let size = |queues, descriptors| if index < queues { descriptors } else { 0 };
            queues.push(json!({
                "queue": format!("{}/{index}", port.name),
                "worker": worker,
                "cpu": worker.and_then(|worker| Some(switch.worker(worker)?.cpu)),
                "ring": "nic",
                "size_receive": size(info.rx_queues, info.rx_descriptors),
                "size_transmit": size(info.tx_queues, info.tx_descriptors),
                "receive_packets": queue.received.packets.get(),
                "receive_bytes": queue.received.bytes.get(),
                "transmit_packets": queue.transmitted.packets.get(),
                "transmit_bytes": queue.transmitted.bytes.get(),
                "interrupts": null,
                "interrupts_suppressed": null,
                "dropped_receive": drops([&queue.receive_dropped].into_iter()),
                "dropped_transmit": drops([&queue.transmit_dropped].into_iter()),
                "broken": null,
            }));
        }
    }
    Value::Array(queues)
}

fn port_name(switch: &Switch, port: u16) -> &str {
    switch.port_name(port).unwrap_or("?")
}

fn macs(switch: &Switch) -> Value {
    let now = switch.now();
    let mut entries: Vec<_> = switch.macs.iter().collect();
    entries.sort_by_key(|entry| (entry.station.bridge, entry.port, entry.station.vlan, entry.station.mac));
    let entry = |entry: &crate::flow::MacEntry| {
        json!({
            "mac": entry.station.mac.to_string(),
            "vlan": entry.station.vlan,
            "bridge": switch.bridges.get(usize::from(entry.station.bridge)).map(|bridge| &bridge.name),
            "port": port_name(switch, entry.port),
            "static": entry.is_static,
            "age_seconds": if entry.is_static { None } else { Some(now.saturating_sub(entry.seen)) },
        })
    };
    entries.iter().map(entry).collect()
}

fn flows(switch: &Switch) -> Value {
    let now = switch.now();
    let mut flows = Vec::new();
    for worker in &switch.workers() {
        worker.flows.for_each(|flow| {
            let verdict = flow.value;
            // A verdict that no longer holds is decided anew with the next frame; until then it is not a flow.
            if !switch.macs.holds(verdict.source) || !switch.macs.holds(verdict.destination) {
                return;
            }
            flows.push(json!({
                "worker": worker.number,
                "port": port_name(switch, flow.key.port()),
                "vlan": flow.key.vlan() % PRIORITY_OVER_TAG,
                "source": flow.key.source().to_string(),
                "destination": flow.key.destination().to_string(),
                "output": match verdict.action {
                    Action::Forward(port) => port_name(switch, port),
                    Action::Flood => "flood",
                },
                "age_seconds": now.saturating_sub(flow.seen),
            }));
        });
    }
    Value::Array(flows)
}

fn workers(switch: &Switch) -> Value {
    let rate = switch.clock.ticks_per_second();
    let worker = |worker: &std::sync::Arc<crate::worker::Worker>| {
        let seconds = |mode| worker.counters.ticks(mode) as f64 / rate;
        let queues = switch.queues_of(worker.number);
        let placement: Vec<_> = switch
            .placed(worker.number)
            .into_iter()
            .map(|(queue, why, is_remote)| json!({ "queue": queue, "why": why, "remote_memory": is_remote }))
            .collect();
        json!({
            "worker": worker.number,
            "cpu": worker.cpu,
            "numa_node": switch.node_of(worker.cpu),
            "busy_seconds": seconds(Mode::Busy),
            "idle_seconds": seconds(Mode::Idle),
            "sleep_seconds": seconds(Mode::Sleep),
            "rings_armed": worker.counters.rings().0,
            "rings_polled": worker.counters.rings().1,
            "flows": worker.flows.entries(),
            "flow_capacity": worker.flows.capacity(),
            "queues": queues,
            "placement": placement,
        })
    };
    switch.workers().iter().map(worker).collect()
}

/// A dry run.
fn rebalance(switch: &Switch) -> Value {
    let plan = switch.dry_run();
    let load = |loads: &[f64], worker: u16| loads.get(usize::from(worker)).copied();
    let one = |one: &crate::placement::Move| {
        json!({
            "queue": one.unit.shown(port_name(switch, one.unit.port)),
            "from_worker": one.from,
            "to_worker": one.to,
            "reason": one.reason.as_str(),
            "why": one.why.shown(|port| switch.port_name(port)),
            "load_from_before": load(&plan.before, one.from),
            "load_from_after": load(&plan.after, one.from),
            "load_to_before": load(&plan.before, one.to),
            "load_to_after": load(&plan.after, one.to),
            "gain": plan.gain,
        })
    };
    plan.moves.iter().map(one).collect()
}
