//! What an operator may write, and the plan that comes of it.

use std::path::{Path, PathBuf};
use std::time::Duration;

use ringway_config::{
    Bond, BondMode, Bridge, BridgePolicy, Choice, Count, Feature, Flood, Idle, IpPrefix, Mode, Nic, Pin, Plan, Port,
    PortKind, PortPolicy, RateLimit, RateUnit, StaticMac, Unit, Uplink, VhostUser, Vlan, Workers, parse,
};

fn accept(text: &str) -> Plan {
    match parse(text, Path::new("switch.toml"), |_| true) {
        Ok(plan) => plan,
        Err(error) => panic!("refused: {error}"),
    }
}

fn guest(name: &str, mask_features: Vec<Feature>) -> Port {
    Port {
        name: name.to_owned(),
        bridge: 0,
        mtu: 1500,
        pin: None,
        kind: PortKind::VhostUser(VhostUser {
            socket: format!("/run/guests/{name}.sock").into(),
            mode: Mode::Client,
            mask_features,
        }),
        policy: PortPolicy::default(),
    }
}

#[test]
fn an_empty_file_is_an_empty_switch_with_every_default() {
    let expected = Plan {
        control_socket: "/run/ringway/control.sock".into(),
        metrics: Some(([127, 0, 0, 1], 9477).into()),
        macs_max: 32_768,
        nic_allowed: false,
        nic_memory_mib: None,
        workers: Workers { flow_table_entries: 65_536, ..Workers::default() },
        bridges: Vec::new(),
        ports: Vec::new(),
    };
    assert_eq!(accept(""), expected);
    assert_eq!(accept("[workers]\n"), expected);
    assert_eq!(accept("\u{feff}# saved by an editor that marks UTF-8\r\n"), expected);
}

#[test]
fn the_example_is_two_guests_on_one_bridge() {
    let example = Path::new(env!("CARGO_MANIFEST_DIR")).join("examples/two-guests.toml");
    let text = std::fs::read_to_string(&example).unwrap();
    let expected = Plan {
        workers: Workers { cpus: Some(vec![0]), flow_table_entries: 65_536, ..Workers::default() },
        bridges: vec![Bridge {
            name: "br0".to_owned(),
            mac_ageing: Duration::from_secs(300),
            policy: BridgePolicy::default(),
        }],
        ports: vec![guest("vm1", Vec::new()), guest("vm2", vec![Feature::Packed])],
        ..accept("")
    };
    assert_eq!(accept(&text), expected);
}

/// The defaults that the example shows commented out are the defaults.
#[test]
fn the_example_tells_the_truth_about_defaults() {
    let example = Path::new(env!("CARGO_MANIFEST_DIR")).join("examples/two-guests.toml");
    let text = std::fs::read_to_string(&example).unwrap();
    let mut spelt_out = text.clone();
    for key in ["control_socket", "metrics", "mac_ageing_seconds", "mode", "mtu"] {
        let (hidden, shown) = (format!("\n# {key} = "), format!("\n{key} = "));
        assert_eq!(spelt_out.matches(&hidden).count(), 1, "{key} is shown once");
        spelt_out = spelt_out.replace(&hidden, &shown);
    }
    assert_eq!(accept(&spelt_out), accept(&text));
}

#[test]
fn every_key_reaches_the_plan() {
    let plan = accept(
        r#"
        control_socket = "/srv/c.sock"
        metrics = "[::1]:80"
        workers.cpus = [1023, 0, 3]
        workers.flow_table_entries = 67_108_864
        workers.per_socket = 1024
        workers.placement = "pair"
        workers.idle = "poll"
        bridge = [{ name = "a" }, { name = "b.B-_9", mac_ageing_seconds = 86400 }]
        [[port]]
        name = "p"
        kind = "vhost-user"
        bridge = "b.B-_9"
        socket = "/srv/p.sock"
        mode = "server"
        mtu = 9000
        mask_features = [
            "guest_uso6", "guest_uso4", "guest_ecn", "guest_tso6", "guest_tso4",
            "host_uso", "host_ecn", "host_tso6", "host_tso4", "guest_csum", "csum",
            "guest_announce", "ctrl_vq", "mq", "in_order", "event_idx", "indirect_desc", "mrg_rxbuf", "packed",
        ]
        "#,
    );
    assert_eq!(plan.control_socket, PathBuf::from("/srv/c.sock"));
    assert_eq!(plan.metrics, Some("[::1]:80".parse().unwrap()));
    assert_eq!(plan.workers.cpus, Some(vec![1023, 0, 3]));
    assert_eq!(plan.workers.flow_table_entries, 64 << 20);
    assert_eq!(plan.workers.count, Count::PerSocket(1024));
    assert_eq!((plan.workers.unit, plan.workers.idle), (Unit::Pair, Idle::Poll));
    assert_eq!(plan.bridges[0].mac_ageing, Duration::from_secs(300));
    assert_eq!(plan.bridges[1].name, "b.B-_9");
    assert_eq!(plan.bridges[1].mac_ageing, Duration::from_secs(86_400));
    assert_eq!(plan.ports[0].bridge, 1);
    let PortKind::VhostUser(vhost_user) = &plan.ports[0].kind else { panic!("{plan:?}") };
    assert_eq!(vhost_user.socket, PathBuf::from("/srv/p.sock"));
    assert_eq!((vhost_user.mode, plan.ports[0].mtu), (Mode::Server, 9000));
    let mut written = Feature::ALL.to_vec();
    written.reverse();
    assert_eq!(vhost_user.mask_features, written);
}

#[test]
fn nic_ports() {
    let devices = ["0000:03:00.0", "FFFF:ff:1F.7", "net_af_packet0,iface=veth0", "net_tap1"];
    for device in devices {
        let plan = accept(&format!(
            "nic = \"allowed\"\n[[bridge]]\nname = \"b\"\n\
             [[port]]\nname = \"up\"\nkind = \"nic\"\nbridge = \"b\"\ndevice = \"{device}\"\nmtu = 9000\n"
        ));
        let kind = PortKind::Nic(Nic { uplink: Uplink::Device(device.to_owned()), queues: None });
        let policy = PortPolicy { macs_max: 8192, ..PortPolicy::default() };
        assert_eq!(plan.ports, [Port { name: "up".to_owned(), bridge: 0, mtu: 9000, pin: None, kind, policy }]);
        assert!(plan.nic_allowed);
    }
}

#[test]
fn bonds() {
    for (mode, written) in BondMode::ALL.into_iter().zip(["active-backup", "lacp"]) {
        for members in [&["0000:03:00.0"][..], &["net_tap0,iface=a", "0000:03:00.1", "net_tap1"]] {
            let plan = accept(&format!(
                "nic_memory_mib = 64\n[[bridge]]\nname = \"b\"\n[[port]]\nname = \"up\"\nkind = \"nic\"\nbridge = \"b\"\n\
                 bond = {{ mode = \"{written}\", members = {members:?} }}\nqueues = 2\n"
            ));
            let bond = Bond { mode, members: members.iter().map(|&device| device.to_owned()).collect() };
            assert_eq!(plan.ports[0].kind, PortKind::Nic(Nic { uplink: Uplink::Bond(bond), queues: Some(2) }));
            assert_eq!(plan.nic_memory_mib, Some(64));
        }
    }
}

#[test]
fn the_last_allowed_values_are_allowed() {
    let (name, file) = ("n".repeat(32), "s".repeat(107 - "/d/".len()));
    let plan = accept(&format!(
        "metrics = \"off\"\n[[bridge]]\nname = \"{name}\"\nmac_ageing_seconds = 1\n\
         [[port]]\nname = \"{name}\"\nkind = \"vhost-user\"\nbridge = \"{name}\"\nsocket = \"/d/{file}\"\nmtu = 68\n"
    ));
    assert_eq!(plan.metrics, None);
    assert_eq!(plan.bridges[0].mac_ageing, Duration::from_secs(1));
    assert_eq!(plan.ports[0].mtu, 68);
    // A bridge and a port live apart: they may share a name.
    assert_eq!(plan.ports[0].name, plan.bridges[0].name);
}

#[test]
fn only_the_directories_of_port_sockets_are_asked_about() {
    let asked = std::cell::RefCell::new(Vec::new());
    let text = "control_socket = \"/c/c.sock\"\n[[bridge]]\nname = \"b\"\n\
                [[port]]\nname = \"p\"\nkind = \"vhost-user\"\nbridge = \"b\"\nsocket = \"/d/e/p.sock\"\n";
    let plan = parse(text, Path::new("f"), |directory| {
        asked.borrow_mut().push(directory.to_owned());
        true
    });
    assert!(plan.is_ok());
    assert_eq!(asked.into_inner(), [PathBuf::from("/d/e")]);
}

#[test]
fn what_ports_and_bridges_may_do() {
    let plan = accept(
        r#"
        macs_max = 1000
        [[bridge]]
        name = "br0"
        macs_max = 500
        flood = ["broadcast"]
        forward_link_local = true
        [[port]]
        name = "a"
        kind = "vhost-user"
        bridge = "br0"
        socket = "/srv/a.sock"
        access_vlan = 4094
        allowed_macs = ["52:54:00:00:00:0b", "52:54:00:00:00:0A"]
        allowed_ips = ["10.0.0.5", "2001:db8::/64"]
        static_macs = [{ mac = "52:54:00:00:00:0a" }]
        isolated = true
        storm_limit = 50
        limit_in = { frames_per_second = 1000 }
        limit_out = { bytes_per_second = 125000000, burst = 65536 }
        macs_max = 4
        mac_moves_per_second = 2
        [[port]]
        name = "b"
        kind = "vhost-user"
        bridge = "br0"
        socket = "/srv/b.sock"
        trunk_vlans = [10, "20-22"]
        native_vlan = 10
        static_macs = [{ mac = "52:54:00:00:00:0c", vlan = 21 }, { mac = "52:54:00:00:00:0c" }]
        "#,
    );
    assert_eq!(plan.macs_max, 1000);
    let flood = Flood { unknown_unicast: false, broadcast: true, multicast: false };
    assert_eq!(plan.bridges[0].policy, BridgePolicy { macs_max: 500, flood, forward_link_local: true });
    let mac = |last| [0x52, 0x54, 0, 0, 0, last];
    let expected = PortPolicy {
        vlan: Vlan::Access(4094),
        allowed_macs: Some(vec![mac(0x0a), mac(0x0b)]),
        allowed_ips: Some(["10.0.0.5", "2001:db8::/64"].map(|text| IpPrefix::parse(text).unwrap()).to_vec()),
        static_macs: vec![StaticMac { mac: mac(0x0a), vlan: 4094 }],
        isolated: true,
        storm_limit: 50,
        limit_in: Some(RateLimit { unit: RateUnit::Frames, per_second: 1000, burst: 100 }),
        limit_out: Some(RateLimit { unit: RateUnit::Bytes, per_second: 125_000_000, burst: 65_536 }),
        macs_max: 4,
        mac_moves_per_second: 2,
    };
    assert_eq!(plan.ports[0].policy, expected);
    let allowed = [10, 20, 21, 22].into_iter().collect();
    let expected = PortPolicy {
        vlan: Vlan::Trunk { allowed, native: Some(10) },
        static_macs: [21, 10].map(|vlan| StaticMac { mac: mac(0x0c), vlan }).to_vec(),
        ..PortPolicy::default()
    };
    assert_eq!(plan.ports[1].policy, expected);
}

#[test]
fn where_workers_are_and_who_gets_which() {
    let port = "name = \"vm1\"\nkind = \"vhost-user\"\nbridge = \"br0\"\nsocket = \"/s/vm1\"\n";
    let pinned = |pin: &str, workers: &str| {
        accept(&format!("[[bridge]]\nname = \"br0\"\n[[port]]\n{port}{pin}\n[workers]\n{workers}\n"))
    };
    let plan = pinned("worker_cpus = [5, 3]", "reserved_cpus = [0, 8]\npolicy = \"round-robin\"\nplacement = \"pair\"");
    assert_eq!(plan.ports[0].pin, Some(Pin::Cpus(vec![5, 3])));
    assert_eq!(plan.workers.reserved_cpus, [0, 8]);
    assert_eq!((plan.workers.policy, plan.workers.unit), (Choice::RoundRobin, Unit::Pair));
    let plan = pinned("worker_node = 1", "cpus = [3]\npolicy = \"random\"");
    assert_eq!((plan.ports[0].pin.clone(), plan.workers.policy), (Some(Pin::Node(1)), Choice::Random));
    assert_eq!(accept("workers.count = \"auto\"\n").workers.count, Count::Auto { max: None });
    assert_eq!(accept("workers = { count = \"auto\", count_max = 6 }\n").workers.count, Count::Auto { max: Some(6) });
    let plan = pinned("worker_cpus = [3]", "cpus = [2, 3]");
    assert_eq!((plan.ports[0].pin.clone(), plan.workers.policy), (Some(Pin::Cpus(vec![3])), Choice::Measured));
}
