//! Guests whose drivers are old, or come and go: legacy virtio, jumbo frames, reboots, a driver unbound and bound,
//! the kernel's driver and DPDK's in turn, one DPDK process after another at the same socket. What the others are told by each other goes on meanwhile.
#![allow(clippy::unwrap_used, reason = "a test may panic")]

mod common;

use std::io::{BufRead, BufReader, Write};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::time::Duration;

use common::{LOAD_CPU, SWITCH_CPU, count, port_says};
use ringway_testbed::{Guest, GuestBuilder, Ringway, TempDir, Testpmd, VirtioUser, scratch_dir, wait_for};

/// Enough for any command here, under software emulation.
const ANSWER: Duration = Duration::from_secs(30);
const BACK: Duration = Duration::from_secs(60);
const JUMBO_MTU: &str = "mtu = 9000";
/// An IPv4 packet of 9000 bytes: 20 of IP, 8 of ICMP, and these.
const JUMBO_PING: u64 = 8972;
const MTU_BIT: usize = 3;
const MRG_RXBUF_BIT: usize = 15;
const VERSION_1_BIT: usize = 32;
/// Finds the guest's NIC on its bus, whatever the driver is bound to.
const UNBIND: &str = "basename $(readlink /sys/class/net/eth0/device) >/run/nic; \
    cat /run/nic >/sys/bus/virtio/drivers/virtio_net/unbind; sleep 0.2; [ ! -e /sys/class/net/eth0 ]";
const BIND: &str = "cat /run/nic >/sys/bus/virtio/drivers/virtio_net/bind; \
    for i in $(seq 50); do [ -e /sys/class/net/eth0 ] && break; usleep 100000; done";

fn ip(number: usize) -> String {
    format!("10.88.0.{number}")
}

fn guest(number: usize, socket: &Path) -> GuestBuilder {
    let builder = Guest::builder(&format!("vm{number}"), socket).cpu(LOAD_CPU).memory(192);
    builder.ip(&format!("{}/24", ip(number)))
}

fn socket(dir: &TempDir, number: usize) -> PathBuf {
    dir.path().join(format!("vm{number}.sock"))
}

fn run(guest: &Guest, command: &str) -> String {
    guest.run(command, ANSWER).unwrap()
}

fn feature(guest: &Guest, bit: usize) -> bool {
    run(guest, "cat /sys/class/net/eth0/device/features").as_bytes()[bit] == b'1'
}

fn wait_reachable(guest: &Guest, to: usize) {
    let look = || guest.exec(&format!("ping -c 1 -W 1 {}", ip(to)), ANSWER).is_ok_and(|(status, _)| status == 0);
    wait_for(&format!("a ping to {to}"), BACK, || look().then_some(())).unwrap();
}

/// Packets of 9000 bytes to and fro, whole: what the switch has carried is counted.
fn ping_jumbo(ringway: &Ringway, guests: &[Guest], from: usize, to: usize) {
    let port = format!("vm{from}");
    let sent = |name: &str| count(&ringway.metrics().unwrap(), name, &[("port", &port)]);
    wait_reachable(&guests[from - 1], to);
    let (packets, bytes) = (sent("port_receive_packets_total"), sent("port_receive_bytes_total"));
    let said = run(&guests[from - 1], &format!("ping -c 5 -i 0.2 -w 20 -s {JUMBO_PING} {}", ip(to)));
    assert!(said.contains(" 0% packet loss"), "{from} to {to}: {said}");
    let (packets, bytes) = (sent("port_receive_packets_total") - packets, sent("port_receive_bytes_total") - bytes);
    // Five, and perhaps a word of ARP; in fragments, there would be more.
    assert!((5..=7).contains(&packets) && bytes >= 5 * 9014, "{packets} frames of {bytes} bytes");
}

/// One modern guest with packed rings; one of before virtio 1.0, on split rings; and one more of those, whose front end
/// connects, without mergeable buffers: its header has 10 bytes, and a jumbo frame comes into a chain of pages.
#[test]
fn old_drivers_and_jumbo_frames() {
    let dir = scratch_dir().unwrap();
    let sockets = [1, 2, 3].map(|number| socket(&dir, number));
    let legacy = "host_mtu=9000,disable-modern=on,disable-legacy=off";
    let third = || guest(3, &sockets[2]).packed(false).connects().nic(&format!("{legacy},mrg_rxbuf=off"));
    let ringway = Ringway::builder().cpu(SWITCH_CPU).bridge("br0");
    let ringway = ringway.port("vm1", "br0", &sockets[0]).port_setting(JUMBO_MTU);
    let ringway = ringway.port("vm2", "br0", &sockets[1]).port_setting(JUMBO_MTU);
    let ringway = ringway.port("vm3", "br0", &sockets[2]).port_setting(JUMBO_MTU).port_setting("mode = \"server\"");
    let mut ringway = ringway.start().unwrap();
    let mut guests = vec![
        guest(1, &sockets[0]).nic("host_mtu=9000").start().unwrap(),
        guest(2, &sockets[1]).packed(false).nic(legacy).start().unwrap(),
        third().start().unwrap(),
    ];
    guests.iter().for_each(|guest| guest.wait_booted().unwrap());
    ringway.wait_state(&["vm1", "vm2", "vm3"], "running").unwrap();
    let features = |guests: &[Guest], bit| guests.iter().map(|guest| feature(guest, bit)).collect::<Vec<bool>>();
    assert_eq!(features(&guests, VERSION_1_BIT), [true, false, false]);
    assert_eq!(features(&guests, MRG_RXBUF_BIT), [true, true, false]);
    assert_eq!(features(&guests, MTU_BIT), [true; 3]);
    for guest in &guests {
        assert_eq!(run(guest, "cat /sys/class/net/eth0/mtu").trim(), "9000");
    }
    for (from, to) in [(1, 2), (2, 1), (1, 3), (3, 1), (2, 3), (3, 2)] {
        ping_jumbo(&ringway, &guests, from, to);
    }

    // The front end that connects is killed, and another one connects.
    guests[2].process().kill().unwrap();
    ringway.wait_state(&["vm3"], "connecting").unwrap();
    guests[2] = third().start().unwrap();
    guests[2].wait_booted().unwrap();
    ping_jumbo(&ringway, &guests, 3, 1);
    common::assert_balances(&ringway);
    assert_eq!(count(&ringway.metrics().unwrap(), "queue_faults_total", &[]), 0);
    ringway.process().stop().unwrap();
    assert!(!sockets[2].exists(), "the switch leaves its socket behind");
}

/// Guests 1 and 2 have talked to each other, and nothing that was for either of them was dropped. Of the pings themselves,
/// those that are under way at the end are missing, on a busy machine many.
fn assert_undisturbed(ringway: &Ringway, said: &str) {
    let numbers = said.lines().find(|line| line.contains("packets transmitted")).unwrap_or_else(|| panic!("{said}"));
    let numbers: Vec<u32> = numbers.split(' ').filter_map(|word| word.parse().ok()).collect();
    let &[_, answered, ..] = &numbers[..] else { panic!("{said}") };
    assert!(answered > 10, "{said}");
    for port in ["vm1", "vm2"] {
        let labels = [("port", port), ("direction", "transmit")];
        let dropped = count(&ringway.metrics().unwrap(), "dropped_packets_total", &labels);
        assert_eq!(dropped, 0, "{said}: {:#}", ringway.show_port(port).unwrap());
    }
}

/// Guest 3 loses its driver and gets it back, or reboots every tenth time, while 1 and 2 go on pinging each other.
fn driver_comes_and_goes(rounds: usize) {
    let dir = scratch_dir().unwrap();
    let guests: Vec<_> = (1..=3).map(|number| guest(number, &socket(&dir, number)).start().unwrap()).collect();
    let ports = (1..=3).fold(Ringway::builder().cpu(SWITCH_CPU).bridge("br0"), |builder, number| {
        builder.port(&format!("vm{number}"), "br0", socket(&dir, number))
    });
    let ringway = ports.start().unwrap();
    guests.iter().for_each(|guest| guest.wait_booted().unwrap());
    wait_reachable(&guests[0], 2);
    run(&guests[0], &format!("ping -i 0.1 {} >/run/ping 2>&1 &", ip(2)));
    let answered = || count(&ringway.metrics().unwrap(), "port_receive_packets_total", &[("port", "vm2")]);
    for round in 1..=rounds {
        let before = answered();
        if round % 10 == 5 {
            let _ = guests[2].exec("reboot -f", Duration::from_secs(1));
            guests[2].wait_booted().unwrap();
        } else {
            run(&guests[2], UNBIND);
            wait_for("the rings to stop", ANSWER, || {
                (port_says(&ringway, "vm3", "state") == "connected").then_some(())
            })
            .unwrap();
            run(&guests[2], &format!("{BIND}; ip addr add {}/24 dev eth0; ip link set eth0 up", ip(3)));
        }
        wait_reachable(&guests[2], 1);
        assert_eq!(port_says(&ringway, "vm3", "ring"), "packed");
        wait_for("its neighbours' traffic", ANSWER, || (answered() > before + 3).then_some(())).unwrap();
    }
    let said = run(&guests[0], "killall -INT ping; usleep 500000; tail -n 3 /run/ping");
    assert_undisturbed(&ringway, &said);
    common::assert_balances(&ringway);
    assert_eq!(count(&ringway.metrics().unwrap(), "queue_faults_total", &[]), 0);
}

#[test]
fn a_driver_is_unbound_and_bound() {
    driver_comes_and_goes(5);
}

#[test]
#[ignore = "takes many minutes; scripts/test --slow"]
fn a_driver_is_unbound_and_bound_a_hundred_times() {
    driver_comes_and_goes(100);
}

/// Inside guest 3 its NIC goes from the kernel's driver to DPDK's and back, while 1 and 2 go on pinging each other. Both answer
/// pings; each takes features of its own. In every other round DPDK ends without a word, and leaves its rings as they are.
fn driver_changes(rounds: usize) {
    let dir = scratch_dir().unwrap();
    let guests: Vec<_> = (1..=3)
        .map(|number| match guest(number, &socket(&dir, number)) {
            third if number == 3 => third.memory(512).option("--dpdk", "yes").start().unwrap(),
            other => other.start().unwrap(),
        })
        .collect();
    let ports = (1..=3).fold(Ringway::builder().cpu(SWITCH_CPU).bridge("br0"), |builder, number| {
        builder.port(&format!("vm{number}"), "br0", socket(&dir, number))
    });
    let ringway = ports.start().unwrap();
    guests.iter().for_each(|guest| guest.wait_booted().unwrap());
    wait_reachable(&guests[0], 2);
    wait_reachable(&guests[0], 3);
    run(&guests[0], &format!("ping -i 0.1 {} >/run/ping 2>&1 &", ip(2)));
    let answered = || count(&ringway.metrics().unwrap(), "port_receive_packets_total", &[("port", "vm2")]);
    let says = |key| port_says(&ringway, "vm3", key);
    let of_kernel = says("features");
    for round in 1..=rounds {
        let before = answered();
        run(&guests[2], "/etc/nic-to-dpdk icmpecho");
        wait_reachable(&guests[0], 3);
        let of_dpdk = says("features");
        assert!(of_kernel.contains("guest_tso4") && !of_dpdk.contains("guest_tso4"), "{of_kernel}, {of_dpdk}");
        assert_eq!((says("state"), says("ring")), ("running".to_owned(), "packed".to_owned()));
        let ends = if round % 2 == 0 { "KILL" } else { "TERM" };
        let back = format!("/etc/nic-to-kernel {ends} && ip addr add {}/24 dev eth0 && ip link set eth0 up", ip(3));
        run(&guests[2], &back);
        wait_reachable(&guests[2], 1);
        assert_eq!((says("features"), says("ring")), (of_kernel.clone(), "packed".to_owned()));
        wait_for("its neighbours' traffic", ANSWER, || (answered() > before + 3).then_some(())).unwrap();
    }
    let said = run(&guests[0], "killall -INT ping; usleep 500000; tail -n 3 /run/ping");
    assert_undisturbed(&ringway, &said);
    common::assert_balances(&ringway);
    assert_eq!(count(&ringway.metrics().unwrap(), "queue_faults_total", &[]), 0);
    assert_eq!(count(&ringway.metrics().unwrap(), "vhost_connects_total", &[]), 3, "a connection was lost");
}

#[test]
fn a_nic_goes_to_dpdk_and_back() {
    driver_changes(2);
}

#[test]
#[ignore = "takes many minutes; scripts/test --slow"]
fn a_nic_goes_to_dpdk_and_back_a_hundred_times() {
    driver_changes(100);
}

/// QEMU's monitor, as far as it is needed here: one command after another, each with its answer.
struct Monitor(BufReader<UnixStream>);

impl Monitor {
    fn connect(socket: &Path) -> Self {
        let stream = wait_for("the monitor", ANSWER, || UnixStream::connect(socket).ok()).unwrap();
        stream.set_read_timeout(Some(ANSWER)).unwrap();
        let mut monitor = Self(BufReader::new(stream));
        monitor.ask(&serde_json::json!({"execute": "qmp_capabilities"}));
        monitor
    }

    fn ask(&mut self, command: &serde_json::Value) {
        writeln!(self.0.get_mut(), "{command}").unwrap();
        loop {
            let mut line = String::new();
            assert!(self.0.read_line(&mut line).unwrap() > 0, "the monitor hangs up");
            let answer: serde_json::Value = serde_json::from_str(&line).unwrap();
            assert_eq!(answer["error"], serde_json::Value::Null, "{command}");
            if answer.get("return").is_some() {
                return;
            }
        }
    }
}

/// Memory is plugged into a guest while it talks. Its buffers come from there once the rest is used up.
#[test]
fn memory_is_plugged_in() {
    let dir = scratch_dir().unwrap();
    let qmp = dir.path().join("qmp.sock");
    let plugged = guest(1, &socket(&dir, 1)).option("--append", "memhp_default_state=online_kernel");
    let monitor = format!("unix:{},server=on,wait=off", qmp.display());
    let guests = [
        plugged.qemu(&["-m", "192,slots=2,maxmem=1G", "-qmp", &monitor]).start().unwrap(),
        guest(2, &socket(&dir, 2)).start().unwrap(),
    ];
    let ringway = Ringway::builder().cpu(SWITCH_CPU).bridge("br0");
    let ringway = ringway.port("vm1", "br0", socket(&dir, 1)).port("vm2", "br0", socket(&dir, 2)).start().unwrap();
    guests.iter().for_each(|guest| guest.wait_booted().unwrap());
    wait_reachable(&guests[0], 2);
    let total = || -> u64 { run(&guests[0], "awk '/MemTotal/ { print $2 }' /proc/meminfo").trim().parse().unwrap() };
    let before = total();
    run(&guests[0], &format!("ping -i 0.05 -s 1400 {} >/run/ping 2>&1 &", ip(2)));
    let mut monitor = Monitor::connect(&qmp);
    for number in [0, 1] {
        let (memory, dimm) = (format!("more{number}"), format!("dimm{number}"));
        monitor.ask(&serde_json::json!({"execute": "object-add", "arguments":
            {"qom-type": "memory-backend-memfd", "id": memory, "size": 128 << 20, "share": true}}));
        monitor.ask(&serde_json::json!({"execute": "device_add", "arguments":
            {"driver": "pc-dimm", "id": dimm, "memdev": memory}}));
        let plugged = || (total() > before + (number + 1) * 100 * 1024).then_some(());
        wait_for("the guest to take the memory", ANSWER, plugged).unwrap();
    }
    // More than it had before: from now on, whatever it sends from or receives into may lie in what was plugged.
    run(
        &guests[0],
        "mkdir -p /run/full; mount -t tmpfs -o size=400m full /run/full; dd if=/dev/zero of=/run/full/a bs=1M count=200",
    );
    let moved = || count(&ringway.metrics().unwrap(), "port_receive_packets_total", &[("port", "vm1")]);
    let so_far = moved();
    wait_for("more pings", ANSWER, || (moved() > so_far + 100).then_some(())).unwrap();
    let said = run(&guests[0], "killall -INT ping; usleep 500000; tail -n 3 /run/ping");
    assert_undisturbed(&ringway, &said);
    common::assert_balances(&ringway);
    assert_eq!(count(&ringway.metrics().unwrap(), "queue_faults_total", &[]), 0);
    assert_eq!(count(&ringway.metrics().unwrap(), "vhost_connects_total", &[]), 2, "a connection was lost");
}

/// One DPDK process after another at the same socket, each with other rings, killed under load, while two more ports go on
/// sending to each other. With the kernel's driver in between, inside a guest, that is [`driver_changes`].
fn dpdk_comes_and_goes(rounds: usize) {
    let dir = scratch_dir().unwrap();
    let [a, b, c] = ["a.sock", "b.sock", "c.sock"].map(|name| dir.path().join(name));
    let others = Testpmd::guest().cpu(LOAD_CPU).virtio_user(VirtioUser::new(&a)).virtio_user(VirtioUser::new(&b));
    let others = others.start().unwrap();
    let ringway = Ringway::builder().cpu(SWITCH_CPU).bridge("br0");
    let ringway = ringway.port("vm1", "br0", &a).port("vm2", "br0", &b).port("vm3", "br0", &c);
    // In every other life the rounds go through server mode, by a port of its own.
    let d = dir.path().join("d.sock");
    let ringway = ringway.port("vm4", "br0", &d).port_setting("mode = \"server\"").start().unwrap();
    others.wait_ready().unwrap();
    others.command("start tx_first").unwrap();
    let moved = |port: &str, way: &str| {
        count(&ringway.metrics().unwrap(), &format!("port_{way}_packets_total"), &[("port", port)])
    };
    for round in 0..rounds {
        let [packed, mergeable, in_order, connects] = [0, 1, 2, 3].map(|bit| round >> bit & 1 == 0);
        let (port, at) = if connects { ("vm4", &d) } else { ("vm3", &c) };
        if !connects {
            let _ = std::fs::remove_file(at);
        }
        let nic = VirtioUser::new(at).serves(!connects).packed(packed).mergeable(mergeable).in_order(in_order);
        let nic = nic.ring_size(if packed { 255 } else { 256 }).mac("52:54:00:00:20:01");
        // To the first of the others, which sends it back.
        let mut one =
            Testpmd::guest().cpu(LOAD_CPU).virtio_user(nic).eth_peer(0, &VirtioUser::default_mac(0)).start().unwrap();
        one.wait_ready().unwrap();
        ringway.wait_state(&[port], "running").unwrap();
        assert_eq!(port_says(&ringway, port, "ring"), if packed { "packed" } else { "split" });
        assert_eq!(port_says(&ringway, port, "features").contains("mrg_rxbuf"), mergeable);
        let before =
            [moved(port, "receive"), moved(port, "transmit"), moved("vm1", "receive"), moved("vm2", "receive")];
        one.command("start tx_first").unwrap();
        let passes = || {
            let now =
                [moved(port, "receive"), moved(port, "transmit"), moved("vm1", "receive"), moved("vm2", "receive")];
            now.iter().zip(before).all(|(&now, before)| now > before + 1000).then_some(())
        };
        wait_for("traffic of all", ANSWER, passes)
            .unwrap_or_else(|error| panic!("round {round}: {error}: {:#}", ringway.show("ports").unwrap()));
        one.process().kill().unwrap();
        ringway.wait_state(&[port], "connecting").unwrap();
    }
    assert_eq!(count(&ringway.metrics().unwrap(), "queue_faults_total", &[]), 0);
}

#[test]
fn dpdk_processes_in_turn() {
    dpdk_comes_and_goes(5);
}

#[test]
#[ignore = "takes many minutes; scripts/test --slow"]
fn dpdk_processes_in_turn_a_hundred_times() {
    dpdk_comes_and_goes(100);
}
