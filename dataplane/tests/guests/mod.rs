//! A switch in this process, with driver doubles for guests.
#![allow(clippy::unwrap_used, reason = "a test may panic")]
#![allow(unreachable_pub, reason = "a module of several test programs")]
#![allow(dead_code, reason = "not every test file uses all of it")]

use std::os::unix::net::UnixStream;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use ringway::account::DropReason;
use ringway::control::{Client, Server, View};
use ringway::guest::{PairCounters, Port, PortState};
use ringway::metrics;
use ringway::socket::SocketFile;
use ringway::switch::Switch;
use ringway::worker::Worker;
use ringway_config::{
    Bridge, BridgePolicy, Feature, MACS_MAX_DEFAULT, Mode, Nic, Plan, PortKind, PortPolicy, Uplink, VhostUser, Workers,
};
use ringway_testbed::driver::frame::{BROADCAST, frame, mac};
use ringway_testbed::driver::{Guest, Layout, Listener, Options, eventually};
use tempfile::TempDir;

/// Both layouts, for tests that hold for both.
pub const LAYOUTS: [Layout; 2] = [Layout::Packed, Layout::Split];

/// What kind of switch.
pub struct Setup<'a> {
    pub ports: usize,
    /// Ports behind these that are NICs, without devices.
    pub nics: usize,
    /// Ports that are on a bridge of their own.
    pub apart: &'a [usize],
    pub mask: &'a [Feature],
    pub mac_ageing: Duration,
    pub workers: usize,
    /// More than any configuration allows unless told: what frames there are is then another test's matter.
    pub mtu: u16,
    /// Ports with the usual MTU of 1500 in its place.
    pub narrow: &'a [usize],
    /// Ports to which their front ends connect.
    pub servers: &'a [usize],
    /// What the first ports may do; the others are as usual.
    pub policies: &'a [PortPolicy],
    /// What NICs may do.
    pub nic_policy: PortPolicy,
    /// What the bridges do.
    pub bridge: BridgePolicy,
    /// What the workers do with queue pairs.
    pub placing: Workers,
}

impl Default for Setup<'_> {
    fn default() -> Self {
        Self {
            ports: 0,
            nics: 0,
            apart: &[],
            mask: &[],
            mac_ageing: Duration::from_secs(300),
            workers: 1,
            mtu: u16::MAX,
            narrow: &[],
            servers: &[],
            policies: &[],
            nic_policy: PortPolicy::default(),
            bridge: BridgePolicy::default(),
            placing: Workers::default(),
        }
    }
}

impl Setup<'_> {
    pub fn start(&self) -> Net {
        Net::start(self)
    }
}

/// A switch with a bridge or two and some ports, each with somebody who listens at its socket.
pub struct Net {
    pub switch: Arc<Switch>,
    pub listeners: Vec<Listener>,
    pub control: PathBuf,
    _server: Server,
    _sockets: Vec<SocketFile>,
    _directory: TempDir,
}

impl Net {
    /// With `ports` ports, named `vm0` and on.
    pub fn new(ports: usize) -> Self {
        Setup { ports, ..Setup::default() }.start()
    }

    fn start(setup: &Setup<'_>) -> Self {
        let &Setup { ports, mac_ageing, workers, .. } = setup;
        let directory = tempfile::tempdir().unwrap();
        let socket = |index: usize| directory.path().join(format!("vm{index}.sock"));
        // They listen before anybody connects: no first attempt is in vain.
        let listen = |index| {
            let unused = directory.path().join(format!("unused{index}.sock"));
            Listener::bind(&if setup.servers.contains(&index) { unused } else { socket(index) }).unwrap()
        };
        let listeners = (0..ports).map(listen).collect();
        let control = directory.path().join("control.sock");
        let port = |index: usize| ringway_config::Port {
            name: format!("vm{index}"),
            bridge: usize::from(setup.apart.contains(&index)),
            mtu: if setup.narrow.contains(&index) { 1500 } else { setup.mtu },
            pin: None,
            kind: PortKind::VhostUser(VhostUser {
                socket: socket(index),
                mode: if setup.servers.contains(&index) { Mode::Server } else { Mode::Client },
                mask_features: setup.mask.to_vec(),
            }),
            policy: setup.policies.get(index).cloned().unwrap_or_default(),
        };
        let nic = |index: usize| ringway_config::Port {
            name: format!("nic{index}"),
            bridge: 0,
            mtu: setup.mtu,
            pin: None,
            kind: PortKind::Nic(Nic { uplink: Uplink::Device(format!("net_none{index}")), queues: None }),
            policy: setup.nic_policy.clone(),
        };
        let plan = Plan {
            control_socket: control.clone(),
            metrics: None,
            macs_max: MACS_MAX_DEFAULT,
            nic_allowed: false,
            nic_memory_mib: None,
            workers: Workers { cpus: Some(Worker::allowed_cpus()[..workers].to_vec()), ..setup.placing.clone() },
            bridges: ["br0", "br1"]
                .map(|name| Bridge { name: name.to_owned(), mac_ageing, policy: setup.bridge.clone() })
                .to_vec(),
            ports: (0..ports).map(port).chain((0..setup.nics).map(nic)).collect(),
        };
        let switch = Switch::start(&plan).unwrap();
        let server = Server::start(switch.clone(), &control).unwrap();
        let sockets = switch.serve().unwrap();
        Self { switch, listeners, control, _server: server, _sockets: sockets, _directory: directory }
    }

    /// Plugs a guest into port `index`.
    pub fn plug(&self, index: usize, options: Options) -> Guest {
        let guest = match self.port(index).mode {
            Mode::Client => Guest::plug(&self.listeners[index], options).unwrap(),
            Mode::Server => Guest::over(UnixStream::connect(&self.port(index).socket).unwrap(), options).unwrap(),
        };
        assert!(eventually(|| self.port(index).state() == PortState::Running), "port {index} does not run");
        guest
    }

    /// Plugs a usual guest into each port.
    pub fn plug_all(&self, layout: Layout) -> Vec<Guest> {
        (0..self.listeners.len()).map(|index| self.plug(index, Options::new(layout))).collect()
    }

    pub fn port(&self, index: usize) -> &Port {
        &self.switch.ports[index]
    }

    pub fn counters(&self, index: usize) -> Arc<PairCounters> {
        self.port(index).counters(0)
    }

    /// Frames that came from the guest of port `index` and were dropped for `reason`.
    pub fn receive_dropped(&self, index: usize, reason: DropReason) -> u64 {
        self.counters(index).receive_dropped.get(reason)
    }

    pub fn show(&self, view: View) -> serde_json::Value {
        Client::connect(&self.control).unwrap().show(view).unwrap()
    }

    /// The sum of a metric over all its series whose labels include `labels`.
    pub fn metric(&self, name: &str, labels: &[(&str, &str)]) -> u64 {
        let families = metrics::collect(&self.switch);
        let family = families.iter().find(|family| family.name() == name);
        let family = family.unwrap_or_else(|| panic!("there is no metric {name}"));
        let series = family.get_metric().iter().filter(|series| {
            labels.iter().all(|&(name, value)| {
                series.get_label().iter().any(|label| label.name() == name && label.value() == value)
            })
        });
        series.map(|series| series.get_counter().get_value() + series.get_gauge().get_value()).sum::<f64>() as u64
    }

    /// The law of accounts: what came in, the copies that flooding made and the segments, went out or was dropped.
    pub fn balances(&self) -> Result<(), String> {
        let sum = |name: &str| self.metric(&format!("ringway_{name}"), &[]);
        let received =
            sum("port_receive_packets_total") + sum("extra_copies_packets_total") + sum("generated_packets_total");
        let transmitted = sum("port_transmit_packets_total") + sum("dropped_packets_total");
        if received == transmitted {
            return Ok(());
        }
        Err(format!("{received} frames in, copied and generated, {transmitted} out and dropped"))
    }

    /// As [`Net::balances`], once the last burst is through.
    pub fn assert_balances(&self) {
        if !eventually(|| self.balances().is_ok()) {
            panic!("{:?}", self.balances());
        }
    }
}

/// Makes the stations of all guests known, guest `n` being station `n + 1`, and empties their queues.
pub fn introduce(guests: &mut [Guest]) {
    for index in 0..guests.len() {
        guests[index].send(&frame(BROADCAST, station(index), 64, index as u64));
        for other in (0..guests.len()).filter(|&other| other != index) {
            assert!(guests[other].receive().is_some(), "guest {other} does not hear guest {index}");
        }
    }
}

/// CPUs that there are for workers.
pub fn cpus() -> usize {
    Worker::allowed_cpus().len()
}

/// The station of guest `index`.
pub fn station(index: usize) -> [u8; 6] {
    mac(index as u16 + 1)
}

/// Sends one frame from a guest to another and sees that it comes as it was.
pub fn passes(guests: &mut [Guest], from: usize, to: usize, len: usize) {
    let sent = frame(station(to), station(from), len, (from * 1000 + to) as u64 + len as u64);
    guests[from].send(&sent);
    let came = guests[to].receive();
    assert!(came.is_some(), "a frame of {len} bytes from {from} to {to} is lost");
    assert!(came.as_deref() == Some(&sent[..]), "a frame of {len} bytes from {from} to {to} is not what it was");
}
