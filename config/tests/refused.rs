//! What an operator may get wrong: the line that is blamed, what is said, and the mend that is named.

use std::path::Path;

use ringway_config::parse;

/// Checks that `text` is refused on `line`, with every one of `said` in the message.
///
/// Directories under `/missing` do not exist; all others do.
#[track_caller]
fn refused(text: &str, line: usize, said: &[&str]) {
    let exists = |directory: &Path| !directory.starts_with("/missing");
    let error = match parse(text, Path::new("switch.toml"), exists) {
        Ok(plan) => panic!("accepted: {plan:?}"),
        Err(error) => error,
    };
    let text = error.to_string();
    assert_eq!(error.line(), Some(line), "{text}");
    assert!(text.starts_with(&format!("switch.toml:{line}: ")), "{text}");
    assert!(text.contains("; "), "no mend: {text}");
    assert_eq!(text.lines().count(), 1, "{text}");
    for part in said {
        assert!(text.contains(part), "`{part}` is not said: {text}");
    }
}

/// A bridge on lines 1 and 2, then one port from line 3 on: name 4, kind 5, bridge 6, socket 7, and `rest` from 8.
fn port(name: &str, kind: &str, bridge: &str, socket: &str, rest: &str) -> String {
    format!(
        "[[bridge]]\nname = \"br0\"\n[[port]]\nname = \"{name}\"\nkind = \"{kind}\"\nbridge = \"{bridge}\"\n\
         socket = \"{socket}\"\n{rest}"
    )
}

/// That port in order, with `rest` from line 8 on.
fn good_then(rest: &str) -> String {
    port("vm1", "vhost-user", "br0", "/s/vm1.sock", rest)
}

#[test]
fn syntax() {
    refused("\n[[port]\n", 2, &["not TOML: unclosed array table", "`key = value`"]);
    refused("[[port]]\nname = \"vm1\nkind = 3\n", 2, &["not TOML", "double quotes"]);
    refused("metrics = off\n", 1, &["not TOML: string values must be quoted", "double quotes"]);
    refused("[workers]\ncpus = [0,\n\n", 2, &["not TOML: unclosed array"]);
    refused("# a\n\nmetrics = \"\"\"\noff\n", 4, &["not TOML"]);
    refused("# carriage returns\r\n\r\nmetrics\r\n", 3, &["not TOML: key with no value"]);
    refused(&format!("\nport = {}", "[".repeat(5000)), 2, &["not TOML"]);
}

#[test]
fn the_same_key_or_table_twice() {
    refused("[[port]]\nname = \"a\"\nname = \"b\"\n", 3, &["second time; remove it"]);
    refused("[bridge]\n\n[bridge]\n", 3, &["second time", "`[[bridge]]`"]);
}

#[test]
fn unknown_keys() {
    let top =
        "use one of `control_socket`, `metrics`, `macs_max`, `nic`, `nic_memory_mib`, `workers`, `bridge`, `port`";
    refused("\n\ncontrol = 1\n", 3, &["unknown key `control`", top]);
    refused("# plural\n[[ports]]\nname = \"a\"\n", 2, &["unknown key `ports`", top]);
    refused(
        "[workers]\n\ncpu = 3\n",
        3,
        &[
            "unknown key `cpu`; use one of `cpus`, `per_socket`, `count`, `count_max`, `reserved_cpus`, `placement`, `policy`, `idle`, `flow_table_entries`",
        ],
    );
    refused(
        "[[bridge]]\nname = \"b\"\nmac_aging_seconds = 3\n",
        3,
        &["unknown key `mac_aging_seconds`; use one of `name`, `mac_ageing_seconds`, `macs_max`"],
    );
    refused(
        &good_then("# a slip\nmask_feature = []\n"),
        9,
        &[
            "unknown key `mask_feature`",
            "use one of `name`, `kind`, `bridge`, `socket`, `device`, `bond`, `queues`, `mode`, `mtu`, `worker_cpus`, `worker_node`, `mask_features`",
        ],
    );
}

#[test]
fn wrong_types() {
    let text = "write text in double quotes";
    refused("\ncontrol_socket = 3\n", 2, &["`control_socket` is integer `3`", text]);
    refused("metrics = false\n", 1, &["`metrics` is boolean `false`", text]);
    refused("[[port]]\n\nname = 3\n", 3, &["`name` is integer `3`", text]);
    refused("[[port]]\nname.first = 3\n", 2, &["is a table", text]);
    let number = "write a whole number without quotes";
    refused("[workers]\ncpus = [\n  0,\n  \"1\",\n]\n", 4, &["string \"1\"", number]);
    refused("[workers]\ncpus = [1.5]\n", 2, &["floating point `1.5`", number]);
    refused(
        "[[bridge]]\nname = \"b\"\nmac_ageing_seconds = \"300\"\n",
        3,
        &["`mac_ageing_seconds` is string \"300\"", number],
    );
    refused("[workers]\ncpus = 0\n", 2, &["`cpus` is integer `0`; write a list: `[...]`"]);
    refused(&good_then("mask_features = \"mq\"\n"), 8, &["write a list: `[...]`"]);
}

#[test]
fn tables_with_the_wrong_number_of_brackets() {
    refused("\n[port]\nname = \"a\"\n", 2, &["is a table", "`[[port]]`"]);
    refused("\n\n[[workers]]\ncpus = [0]\n", 3, &["is a list", "write a table"]);
    refused("bridge = 3\n", 1, &["`bridge` is integer `3`; write a list", "`[[bridge]]`"]);
    refused("\nport = [3]\n", 2, &["is integer `3`; write a table"]);
}

/// Serde would read a list as a table's values in the order of its fields.
#[test]
fn a_table_is_not_a_list_of_its_values() {
    refused("bridge = [[\"br0\", 300]]\n", 1, &["write a table"]);
    refused("\nworkers = [[0, 1]]\n", 2, &["write a table"]);
    refused("port = [[\"a\", \"vhost-user\", \"b\", \"/s\", \"client\", []]]\n", 1, &["write a table"]);
}

#[test]
fn missing_keys() {
    refused("\n[[bridge]]\nmac_ageing_seconds = 3\n", 2, &["[[bridge]] has no `name`; add `name = \"br0\"`"]);
    refused("\n\n[[port]]\nkind = \"vhost-user\"\n", 3, &["[[port]] has no `name`; add `name = \"vm1\"`"]);
    refused("[[port]]\nname = \"a\"\n", 1, &["has no `kind`; add `kind = \"vhost-user\"`"]);
    let text = good_then("[[port]]\nname = \"vm2\"\nkind = \"vhost-user\"\nbridge = \"br0\"\n");
    refused(&text, 8, &["has no `socket`; add `socket = \"/"]);
}

#[test]
fn ports_without_a_bridge() {
    let orphan = "[[port]]\nname = \"a\"\nkind = \"vhost-user\"\nsocket = \"/s/a\"\n";
    refused(orphan, 1, &["in no bridge", "add `bridge = \"NAME\"`", "[[bridge]]", "there is none yet"]);
    let bridges = "[[bridge]]\nname = \"br0\"\n[[bridge]]\nname = \"br1\"\n";
    refused(&format!("{bridges}{orphan}"), 5, &["in no bridge; add", "one of `br0`, `br1`"]);
}

#[test]
fn bridges_that_do_not_exist() {
    let text = port("vm1", "vhost-user", "br7", "/s/a", "[[bridge]]\nname = \"br1\"\n");
    refused(&text, 6, &["no bridge `br7`; use one of `br0`, `br1`", "add a [[bridge]]"]);
    let text = "[[port]]\nname = \"a\"\nkind = \"vhost-user\"\nbridge = \"br0\"\n";
    refused(text, 4, &["no bridge `br0`", "[[bridge]] of that name, to be added"]);
}

#[test]
fn duplicate_names() {
    refused(&good_then("\n[[port]]\nname = \"vm1\"\n"), 10, &["port named `vm1` is already on line 4", "another name"]);
    refused(
        "[[bridge]]\nname = \"b\"\n\n[[bridge]]\nname = \"b\"\n",
        5,
        &["bridge named `b` is already on line 2", "another name"],
    );
}

#[test]
fn bad_names() {
    for name in ["", "vm 1", "vm/1", "vé", "a\\u0000", "a\\nb", &"n".repeat(33)] {
        let mend = "use 1 to 32 of a-z A-Z 0-9 `-` `_` `.`";
        refused(&port(name, "vhost-user", "br0", "/s/a", ""), 4, &["cannot name a port", mend]);
        refused(&format!("[[bridge]]\n\nname = \"{name}\"\n"), 3, &["cannot name a bridge", mend]);
    }
}

#[test]
fn unknown_words() {
    refused(&port("a", "vhost", "br0", "/s/a", ""), 5, &["unknown kind `vhost`; use one of `vhost-user`, `nic`"]);
    refused(&good_then("\nmode = \"both\"\n"), 9, &["unknown mode `both`; use one of `client`, `server`"]);
    refused(
        &good_then("mask_features = [\n  \"mq\",\n  \"tso\",\n]\n"),
        10,
        &[
            "unknown feature `tso`",
            "use one of `packed`, `mrg_rxbuf`, `indirect_desc`, `event_idx`, `in_order`, `mq`, `ctrl_vq`, \
             `guest_announce`, `csum`, `guest_csum`, \
             `host_tso4`, `host_tso6`, `host_ecn`, `host_uso`, `guest_tso4`, `guest_tso6`, `guest_ecn`, `guest_uso4`, \
             `guest_uso6`",
        ],
    );
}

#[test]
fn mtus_out_of_range() {
    for mtu in ["0", "67", "9001", "65536", "-1"] {
        refused(
            &good_then(&format!("mtu = {mtu}\n")),
            8,
            &[&format!("an MTU of {mtu} bytes is out of range; use 68 to 9000")],
        );
    }
    refused(&good_then("mtu = \"1500\"\n"), 8, &["`mtu` is", "write a whole number without quotes"]);
}

#[test]
fn a_feature_masked_twice() {
    refused(&good_then("mask_features = [\"mq\",\n\"mq\"]\n"), 9, &["feature `mq` is listed twice; remove one"]);
}

#[test]
fn nic_ports() {
    // A bridge on lines 1 and 2, a port from 3 on with its device on line 7.
    let nic = |device: &str, rest: &str| {
        let head = "[[bridge]]\nname = \"br0\"\n[[port]]\nname = \"up\"\nkind = \"nic\"\nbridge = \"br0\"\n";
        format!("{head}device = \"{device}\"\n{rest}")
    };
    let bad = [
        "",
        "eth0",
        "03:00.0",
        "0000:03:00",
        "0000:03:00.8",
        "0000.03.00.0",
        "00000:3:00.0",
        "0000:03:00.0 ",
        "net_",
        "net_tap0,iface=a b",
        "net_tap0\\n",
        "net_é",
        "vhost0",
        "virtio_user0,path=/x",
    ];
    for device in bad {
        refused(&nic(device, ""), 7, &["is no device; write a PCI address", "\"net_af_packet0,iface=veth0\""]);
    }
    refused(&nic(&format!("net_{}", "a".repeat(509)), ""), 7, &["is no device"]);
    refused(
        "[[bridge]]\nname = \"b\"\n[[port]]\nname = \"up\"\nkind = \"nic\"\nbridge = \"b\"\n",
        3,
        &["this [[port]] has no `device`; add `device = \"0000:03:00.0\"`"],
    );
    for key in ["socket = \"/s/a\"", "mode = \"client\"", "mask_features = []"] {
        let said = format!("`{}` is for ports of kind \"vhost-user\"; remove it", key.split(' ').next().unwrap());
        refused(&nic("net_tap0", key), 8, &[&said]);
    }
    refused(&good_then("device = \"net_tap0\"\n"), 8, &["`device` is for ports of kind \"nic\"; remove it"]);
    let again = "[[port]]\nname = \"b\"\nkind = \"nic\"\nbridge = \"br0\"\ndevice = \"NET_tap0,remote=x\"\n";
    refused(&nic("net_tap0,iface=t", again), 12, &["device `net_tap0` is already used on line 7"]);
    for queues in ["0", "17", "-1"] {
        let says = format!("{queues} queues are out of range; use 1 to 16");
        refused(&nic("net_tap0", &format!("queues = {queues}\n")), 8, &[&says]);
    }
    refused(&nic("net_tap0", "mtu = 9001\n"), 8, &["an MTU of 9001 bytes is out of range"]);
    refused("nic_memory_mib = 63\n", 1, &["a size of DPDK's memory in MiB of 63 is out of range; use 64 to 65536"]);
    refused("nic = \"on\"\n", 1, &["unknown value of `nic` `on`; use `allowed`"]);
    refused("nic = true\n", 1, &["`nic` is boolean `true`; write text in double quotes"]);
}

#[test]
fn bonds() {
    let bond = |rest: &str| {
        let head = "[[bridge]]\nname = \"br0\"\n[[port]]\nname = \"up\"\nkind = \"nic\"\nbridge = \"br0\"\n";
        format!("{head}bond = {rest}\n")
    };
    let two = "members = [\"net_tap0\", \"net_tap1\"]";
    refused(&bond("{}"), 7, &["this bond has no `mode`; add `mode = \"active-backup\"`"]);
    refused(&bond("{ mode = \"lacp\" }"), 7, &["this bond has no `members`; add `members = [\"0000:03:00.0\", "]);
    let words = "unknown mode of a bond `802.3ad`; use one of `active-backup`, `lacp`";
    refused(&bond(&format!("{{ mode = \"802.3ad\", {two} }}")), 7, &[words]);
    refused(&bond(&format!("{{ mode = \"lacp\", {two}, primary = \"net_tap0\" }}")), 7, &["unknown key `primary`"]);
    for (count, members) in [(0, String::new()), (9, (0..9).map(|n| format!("\"net_tap{n}\", ")).collect())] {
        let says = format!("a bond of {count} members is none that there is; list 1 to 8 devices");
        refused(&bond(&format!("{{ mode = \"lacp\", members = [{members}] }}")), 7, &[&says]);
    }
    let of = |members: &str| bond(&format!("{{ mode = \"lacp\", members = [{members}] }}"));
    refused(&of("\"eth0\""), 7, &["`eth0` is no device; write a PCI address"]);
    refused(&of("\"net_bonding0,mode=1\""), 7, &["`net_bonding0,mode=1` is a bond itself; list devices only"]);
    refused(&of("\"net_tap0\", \"NET_tap0,iface=x\""), 7, &["device `net_tap0` is already used on line 7"]);
    let both = bond(&format!("{{ mode = \"lacp\", {two} }}")) + "device = \"net_tap2\"\n";
    refused(&both, 8, &["`device` and `bond` exclude each other; remove one of them"]);
    let again = "[[port]]\nname = \"b\"\nkind = \"nic\"\nbridge = \"br0\"\ndevice = \"net_tap1\"\n";
    refused(&(of("\"net_tap0\", \"net_tap1\"") + again), 12, &["device `net_tap1` is already used on line 7"]);
    refused(&good_then(&format!("bond = {{ mode = \"lacp\", {two} }}\n")), 8, &["`bond` is for ports of kind \"nic\""]);
    refused(&good_then("queues = 2\n"), 8, &["`queues` is for ports of kind \"nic\"; remove it"]);
}

#[test]
fn socket_paths() {
    let at = |socket: &str| port("vm1", "vhost-user", "br0", socket, "");
    refused(&at("/missing/x/a.sock"), 7, &["`/missing/x` does not exist", "mkdir -p /missing/x"]);
    refused(&at("run/a.sock"), 7, &["`run/a.sock` is relative", "from the root"]);
    refused(&at(""), 7, &["is relative", "from the root"]);
    refused(&at(&format!("/{}", "a".repeat(107))), 7, &["108 bytes long; use at most 107"]);
    // Bytes, not characters.
    refused(&at(&format!("/{}", "é".repeat(54))), 7, &["109 bytes long; use at most 107"]);
    for socket in ["/", "/s/", "/s/..", "/s/a\\u0000b"] {
        refused(&at(socket), 7, &["names no file; end it with a file name"]);
    }
}

#[test]
fn the_control_socket_is_a_socket_path_too() {
    refused("\ncontrol_socket = \"control.sock\"\n", 2, &["is relative"]);
    refused(&format!("control_socket = \"/{}\"\n", "a".repeat(107)), 1, &["at most 107"]);
    refused("control_socket = \"/run/\"\n", 1, &["names no file"]);
}

#[test]
fn duplicate_socket_paths() {
    let again = |socket| {
        good_then(&format!("[[port]]\nname = \"b\"\nkind = \"vhost-user\"\nbridge = \"br0\"\nsocket = \"{socket}\"\n"))
    };
    for socket in ["/s/vm1.sock", "/s//./vm1.sock"] {
        refused(&again(socket), 12, &["already the socket of the port on line 7", "its own path"]);
    }
    refused(&again("/run/ringway/control.sock"), 12, &["already the control socket", "its own path"]);
}

#[test]
fn flow_tables() {
    let range = "is out of range; use 1024 to 67108864";
    for wrong in ["0", "1023", "67108865", "-1", "99999999999999999999"] {
        refused(
            &format!("[workers]\n\nflow_table_entries = {wrong}\n"),
            3,
            &[&format!("a flow table of {wrong} entries {range}")],
        );
    }
    refused("[workers]\nflow_table_entries = \"64K\"\n", 2, &["string \"64K\""]);
}

#[test]
fn cpus() {
    refused("[workers]\ncpus = [0, 1,\n  0]\n", 3, &["CPU 0 is listed twice; remove one"]);
    refused("[workers]\n\ncpus = []\n", 3, &["no CPU is listed; list at least one"]);
    refused("[workers]\ncpus = [\n1024]\n", 3, &["no CPU 1024; use 0 to 1023"]);
    let reserved = "[workers]\nreserved_cpus = [3, 4]\n";
    refused(&format!("{reserved}cpus = [0,\n 4]\n"), 4, &["CPU 4 is one of `reserved_cpus`; take it out"]);
    refused("[workers]\nreserved_cpus = []\n", 2, &["no CPU is listed", "remove `reserved_cpus`"]);
    refused("[workers]\nreserved_cpus = [1, 1]\n", 2, &["CPU 1 is listed twice"]);
    refused("[workers]\npolicy = \"best\"\n", 2, &["unknown policy `best`", "`measured`, `round-robin`, `random`"]);
    refused("[workers]\ncpus = [-1]\n", 2, &["no CPU -1; use 0 to 1023"]);
    refused("[workers]\ncpus = [99999999999999999999]\n", 2, &["use 0 to 1023"]);
    refused("[workers]\ncount = \"many\"\n", 2, &["unknown value of `count` `many`; use `auto`"]);
    refused("[workers]\ncount = \"auto\"\nper_socket = 2\n", 2, &["exclude each other; remove one of them"]);
    refused("[workers]\ncount_max = 3\n", 2, &["add `count = \"auto\"`, or remove it"]);
    refused("[workers]\ncount = \"auto\"\ncount_max = 0\n", 3, &["a number of workers of 0 is out of range"]);
    refused("[workers]\nper_socket = 0\n", 2, &["a number of workers of 0 is out of range; use 1 to 1024"]);
    refused("[workers]\n\nplacement = \"queue\"\n", 3, &["unknown placement `queue`; use one of `nic`, `pair`"]);
    refused("[workers]\nidle = \"nap\"\n", 2, &["unknown value of `idle` `nap`; use one of `sleep`, `poll`"]);
}

#[test]
fn metrics_addresses() {
    for address in ["", "localhost:9477", "127.0.0.1", "127.0.0.1:65536", "::1:9477", "Off"] {
        let text = format!("# metrics\nmetrics = \"{address}\"\n");
        refused(&text, 2, &[&format!("`{address}` is no address"), "\"127.0.0.1:9477\"", "\"off\""]);
    }
}

#[test]
fn ageing_times() {
    for seconds in ["0", "-1", "86401", "99999999999999999999"] {
        let text = format!("[[bridge]]\nname = \"b\"\nmac_ageing_seconds = {seconds}\n");
        refused(&text, 3, &[&format!("{seconds} s is out of range; use 1 to 86400")]);
    }
}

#[test]
fn text_from_the_file_or_its_name_cannot_break_the_line() {
    refused("\"a\\nb\\u2028\" = 1\n", 1, &["unknown key `a\\nb\\u{2028}`"]);
    let error = parse("x = 1", Path::new("a\nb"), |_| true).unwrap_err();
    assert!(error.to_string().starts_with("a\\nb:1: unknown key `x`"), "{error}");
}

/// On line 8 of the good port; the rest of the message follows.
#[track_caller]
fn refused_key(line: &str, said: &[&str]) {
    refused(&good_then(&format!("{line}\n")), 8, said);
}

#[test]
fn vlans() {
    for bad in ["0", "4095", "4096", "-1", "99999999999999999999"] {
        let said = format!("there is no VLAN {bad}; use 1 to 4094");
        refused_key(&format!("access_vlan = {bad}"), &[&said]);
        refused(&good_then(&format!("trunk_vlans = [10]\nnative_vlan = {bad}\n")), 9, &[&said]);
        if bad.len() < 10 {
            refused(&good_then(&format!("trunk_vlans = [\n10,\n{bad}]\n")), 10, &[&said]);
        }
    }
    for bad in ["", "10", "20-", "-20", "29-20", "0-5", "4000-4095", "a-b", "1-2-3"] {
        refused_key(&format!("trunk_vlans = [\"{bad}\"]"), &[&format!("`{bad}` is no range of VLANs"), "\"20-29\""]);
    }
    refused_key("trunk_vlans = []", &["no VLAN is listed"]);
    refused_key("trunk_vlans = [10, \"9-11\"]", &["VLAN 10 is listed twice; remove one"]);
    refused_key("trunk_vlans = [true]", &["boolean `true`", "a VLAN such as `10`"]);
    refused(&good_then("access_vlan = 10\ntrunk_vlans = [10]\n"), 9, &["exclude each other"]);
    refused_key("native_vlan = 10", &["`native_vlan` is a word for trunks", "`access_vlan = 10`"]);
    refused(&good_then("trunk_vlans = [10]\nnative_vlan = 20\n"), 9, &["native VLAN 20 is not in `trunk_vlans`"]);
}

#[test]
fn guards() {
    for bad in ["", "52:54:00:00:00", "52-54-00-00-00-01", "52:54:00:00:00:0g", "5:54:0:0:0:1", "+2:54:00:00:00:01"] {
        refused_key(
            &format!("allowed_macs = [\"{bad}\"]"),
            &[&format!("`{bad}` is no MAC address"), "\"52:54:00:00:00:01\""],
        );
    }
    for key in ["allowed_macs = [\"01:00:5e:00:00:01\"]", "static_macs = [{ mac = \"33:33:00:00:00:01\" }]"] {
        refused_key(key, &["is a multicast address"]);
    }
    refused_key("allowed_macs = [\"ff:ff:ff:ff:ff:ff\"]", &["is a multicast address"]);
    refused_key("static_macs = [{ mac = \"00:00:00:00:00:00\" }]", &["is nobody's address"]);
    refused_key(
        "allowed_macs = [\"52:54:00:00:00:01\", \"52:54:00:00:00:01\"]",
        &["MAC 52:54:00:00:00:01 is listed twice"],
    );
    refused_key("allowed_macs = []", &["`allowed_macs` is empty, so nothing could be sent"]);
    refused_key("allowed_ips = []", &["`allowed_ips` is empty"]);
    for bad in ["", "10.0.0", "10.0.0.0/33", "10.0.0.5/", "fe80::1%eth0", "host"] {
        refused_key(&format!("allowed_ips = [\"{bad}\"]"), &[&format!("`{bad}` is no IP address or prefix")]);
    }
    refused_key(
        "allowed_ips = [\"10.0.0.5/24\"]",
        &["beyond its prefix; write `10.0.0.0/24` for all, or `10.0.0.5` for one"],
    );
    refused_key("allowed_ips = [\"10.0.0.0/24\", \"10.0.0.5\"]", &["10.0.0.0/24 and 10.0.0.5 overlap"]);
}

#[test]
fn guards_that_overlap() {
    let two = |vlans: [&str; 2], rules: [&str; 2]| {
        let second = format!(
            "[[port]]\nname = \"vm2\"\nkind = \"vhost-user\"\nbridge = \"br0\"\nsocket = \"/s/vm2.sock\"\n{}\n{}\n",
            vlans[1], rules[1]
        );
        good_then(&format!("{}\n{}\n{second}", vlans[0], rules[0]))
    };
    let mac = "allowed_macs = [\"52:54:00:00:00:01\"]";
    let held = "static_macs = [{ mac = \"52:54:00:00:00:01\" }]";
    let said = "MAC 52:54:00:00:00:01 is already port `vm1`'s, on line 9, in a VLAN of both; give it to one";
    for rules in [[mac, mac], [mac, held], [held, mac], [held, held]] {
        refused(&two(["", ""], rules), 16, &[said]);
        refused(&two(["access_vlan = 10", "trunk_vlans = [10, 20]\nnative_vlan = 10"], rules), 17, &[said]);
        let apart = two(["access_vlan = 10", "access_vlan = 20"], rules);
        assert!(parse(&apart, Path::new("f"), |_| true).is_ok(), "{apart}");
    }
    let (net, host) = ("allowed_ips = [\"10.0.0.0/24\"]", "allowed_ips = [\"10.0.0.7\"]");
    refused(&two(["", ""], [net, host]), 16, &["address 10.0.0.7 is already port `vm1`'s, on line 9"]);
    assert!(parse(&two(["access_vlan = 1", "access_vlan = 2"], [net, host]), Path::new("f"), |_| true).is_ok());
}

#[test]
fn static_stations() {
    refused_key("static_macs = [{ vlan = 3 }]", &["this static MAC has no `mac`; add `mac = \"52:54:00:00:00:01\"`"]);
    let entry = "static_macs = [{ mac = \"52:54:00:00:00:01\", vlan = 30 }]";
    refused(&good_then(&format!("access_vlan = 10\n{entry}\n")), 9, &["VLAN 30 is not one of this port's (access 10)"]);
    let entry = "static_macs = [{ mac = \"52:54:00:00:00:01\" }]";
    refused(
        &good_then(&format!("trunk_vlans = [10]\n{entry}\n")),
        9,
        &["no native one; add the station's: `vlan = 10`"],
    );
    refused(
        &good_then(&format!("allowed_macs = [\"52:54:00:00:00:02\"]\n{entry}\n")),
        9,
        &["static MAC 52:54:00:00:00:01 is not in `allowed_macs`"],
    );
    refused_key(
        "static_macs = [{ mac = \"52:54:00:00:00:01\" }, { mac = \"52:54:00:00:00:01\" }]",
        &["static MAC 52:54:00:00:00:01 is listed twice"],
    );
}

#[test]
fn limits_of_zero_and_others() {
    for key in ["storm_limit", "macs_max", "mac_moves_per_second"] {
        for bad in ["0", "-1", "99999999999999999999"] {
            refused_key(&format!("{key} = {bad}"), &[&format!("of {bad} is out of range; use 1 to ")]);
        }
    }
    for key in ["limit_in", "limit_out"] {
        for unit in ["frames_per_second", "bytes_per_second"] {
            refused_key(&format!("{key} = {{ {unit} = 0 }}"), &["of 0 is out of range; use 1 to 1000000000000"]);
            refused_key(&format!("{key} = {{ {unit} = 1, burst = 0 }}"), &["a burst of 0 is out of range"]);
        }
        for bad in ["{}", "{ burst = 5 }", "{ frames_per_second = 1, bytes_per_second = 1 }"] {
            refused_key(&format!("{key} = {bad}"), &[&format!("`{key}` counts either frames or bytes")]);
        }
        refused_key(&format!("{key} = {{ rate = 1 }}"), &["unknown key `rate`", "`frames_per_second`"]);
    }
    refused("macs_max = 0\n", 1, &["a limit of stations of 0 is out of range; use 1 to 1048576"]);
    refused("[[bridge]]\nname = \"b\"\nmacs_max = 0\n", 3, &["of 0 is out of range"]);
}

#[test]
fn kinds_of_flood() {
    refused("[[bridge]]\nname = \"b\"\nflood = [\"all\"]\n", 3, &["unknown kind of frame `all`", "`unknown_unicast`"]);
    refused("[[bridge]]\nname = \"b\"\nflood = [\"broadcast\", \"broadcast\"]\n", 3, &["`broadcast` is listed twice"]);
}

#[test]
fn pins() {
    refused(&good_then("worker_cpus = [0, 0]"), 8, &["CPU 0 is listed twice"]);
    refused(&good_then("worker_cpus = []"), 8, &["no CPU is listed", "remove `worker_cpus`"]);
    refused(&good_then("worker_cpus = [1024]"), 8, &["there is no CPU 1024; use 0 to 1023"]);
    refused(&good_then("worker_node = 1024"), 8, &["NUMA node of 1024 is out of range; use 0 to 1023"]);
    refused(&good_then("worker_node = 1\nworker_cpus = [0]"), 9, &["exclude each other; remove one of them"]);
    let workers = |workers: &str, rest: &str| format!("{}\n[workers]\n{workers}\n", good_then(rest));
    refused(&workers("cpus = [0, 1]", "worker_cpus = [1, 2]"), 8, &["CPU 2 is not one of the workers' `cpus`; add it"]);
    refused(&workers("reserved_cpus = [2]", "worker_cpus = [1, 2]"), 8, &["CPU 2 is one of `reserved_cpus`"]);
    let nic = |rest: &str| {
        let bridge = "[[bridge]]\nname = \"br0\"\n[[port]]\nname = \"up\"\nkind = \"nic\"\nbridge = \"br0\"\n";
        format!("{bridge}device = \"net_tap0\"\n{rest}")
    };
    refused(&nic("worker_cpus = [0]"), 8, &["`worker_cpus` is for ports of kind \"vhost-user\"; remove it"]);
    refused(&nic("worker_node = 0"), 8, &["`worker_node` is for ports of kind \"vhost-user\"; remove it"]);
}
