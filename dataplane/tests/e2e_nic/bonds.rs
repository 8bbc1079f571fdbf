//! Bonds of two veths: what is lost when one fails, who talks LACP, and how soon.

use std::io::{Read, Write};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use ringway_testbed::{Cable, Namespace, Process, Ringway, wait_for};

use crate::common::{LOAD_CPU, SWITCH_CPU, assert_balances, count, port_says};
use crate::{SEEN, dropped};

/// No frame is missing for so long when a member fails.
const GAP_MAX: f64 = 1.0;

/// From two ends that do not know each other to frames that go: LACP waits for 2 s, with frames of its own every second.
const AGREED: Duration = Duration::from_secs(30);

fn af_packet(number: usize, interface: &str) -> String {
    format!("net_af_packet{number},iface={interface}")
}

/// The states of a bond's members, in their order.
fn members(ringway: &Ringway, port: &str) -> Vec<String> {
    let shown = ringway.show_port(port).unwrap();
    let members = shown["bond"]["members"].as_array().unwrap().iter();
    members.map(|member| member["state"].as_str().unwrap_or("none").to_owned()).collect()
}

fn wait_members(ringway: &Ringway, port: &str, states: &[&str], patience: Duration) {
    let waited = wait_for("members", patience, || (members(ringway, port) == states).then_some(()));
    assert!(waited.is_ok(), "not {states:?}: {:?}", ringway.show_port(port));
}

/// A ping every 10 ms, whose answers are written down with the time at which they came.
struct Stream(Process);

impl Stream {
    fn start(from: &Namespace, to: &str) -> Self {
        let stream = Self(from.spawn("ping").args(["-D", "-n", "-i", "0.01", "-W", "1", to]).start().unwrap());
        stream.wait_for_more();
        stream
    }

    fn times(&self) -> Vec<f64> {
        let line = |line: &str| {
            line.contains("bytes from").then(|| line.strip_prefix('[')?.split(']').next()?.parse().ok())?
        };
        self.0.log().lines().filter_map(line).collect()
    }

    fn wait_for_more(&self) {
        let before = self.times().len();
        wait_for("answers", SEEN, || (self.times().len() >= before + 20).then_some(())).unwrap();
    }

    /// Seconds without an answer, at most, while `change` happens and until they come again.
    fn longest_gap(&self, change: impl FnOnce()) -> f64 {
        let before = self.times().len();
        change();
        self.wait_for_more();
        std::thread::sleep(Duration::from_millis(1500));
        self.wait_for_more();
        let times = self.times();
        times[before - 1..].windows(2).map(|pair| pair[1] - pair[0]).fold(0.0, f64::max)
    }
}

/// One member carries all, the other takes over when its cable or its device goes, with af_packet, which sees nothing of either.
#[test]
fn active_backup() {
    let (world, one) =
        (Namespace::with_ports("10.90.0.2/24", 1500, 2).unwrap(), Namespace::new("10.90.0.1/24", 1500).unwrap());
    let devices: Vec<String> = (1..).zip(world.interfaces()).map(|(number, name)| af_packet(number, name)).collect();
    let ringway = Ringway::builder()
        .cpu(SWITCH_CPU)
        .bridge("br0")
        .nic("one", "br0", &af_packet(0, one.interface()))
        .bond("up", "br0", "active-backup", &devices)
        .start()
        .unwrap();
    ringway.wait_state(&["one", "up"], "running").unwrap();
    wait_members(&ringway, "up", &["active", "standby"], SEEN);
    assert_eq!(port_says(&ringway, "up", "link"), "up");
    let stream = Stream::start(&one, "10.90.0.2");

    let gaps = [
        // The cable: at this end, and at the other.
        stream.longest_gap(|| world.set_link_of(0, false).unwrap()),
        {
            wait_members(&ringway, "up", &["down", "active"], SEEN);
            world.set_link_of(0, true).unwrap();
            // What is well is not moved away from.
            wait_members(&ringway, "up", &["standby", "active"], SEEN);
            stream.longest_gap(|| drop(world.run("ip link set eth1 down").unwrap()))
        },
        {
            wait_members(&ringway, "up", &["active", "down"], SEEN);
            world.run("ip link set eth1 up").unwrap();
            wait_members(&ringway, "up", &["active", "standby"], SEEN);
            // The device.
            stream.longest_gap(|| world.unplug_port(0).unwrap())
        },
    ];
    println!("seconds without an answer: {gaps:?}");
    assert!(gaps.iter().all(|&gap| gap < GAP_MAX), "{gaps:?}");
    wait_members(&ringway, "up", &["failed", "active"], SEEN);
    let shown = ringway.show_port("up").unwrap();
    let said = shown["bond"]["members"][0]["last_error"].as_str().unwrap().to_owned();
    // Gone at first, then not found.
    assert!(said.contains(world.interface()) || said.starts_with("no device net_af_packet1: "), "{said}");
    assert_eq!(port_says(&ringway, "up", "state"), "running");
    world.plug_port(0).unwrap();
    wait_members(&ringway, "up", &["standby", "active"], SEEN);
    let gap = stream.longest_gap(|| world.set_link_of(1, false).unwrap());
    assert!(gap < GAP_MAX, "{gap}");
    wait_members(&ringway, "up", &["active", "down"], SEEN);

    // Both: nothing goes, and that is said.
    world.set_link_of(0, false).unwrap();
    wait_for("no link", SEEN, || (port_says(&ringway, "up", "link") == "down").then_some(())).unwrap();
    wait_for("drops", SEEN, || (dropped(&ringway, "up", "link_down") > 0).then_some(())).unwrap();
    world.set_link_of(1, true).unwrap();
    stream.wait_for_more();
    drop(stream);

    // The far bridge floods what it gets by one member to the other: such frames were not taken for news.
    assert!(dropped(&ringway, "up", "bond_standby") > 0);
    let state =
        |state: &str| count(&ringway.metrics().unwrap(), "nic_bond_member", &[("port", "up"), ("state", state)]);
    wait_members(&ringway, "up", &["down", "active"], SEEN);
    assert_eq!([state("active"), state("down"), state("standby")], [1, 1, 0]);
    assert_balances(&ringway);
}

/// Two switches, two cables, LACP at both ends: both cables carry frames, and one is enough.
#[test]
fn lacp() {
    let cables = [Cable::lay().unwrap(), Cable::lay().unwrap()];
    let worlds = [Namespace::new("10.90.1.1/24", 1500).unwrap(), Namespace::new("10.90.1.2/24", 1500).unwrap()];
    let switch = |end: usize| {
        let devices: Vec<_> = (1..).zip(&cables).map(|(number, cable)| af_packet(number, cable.ends()[end])).collect();
        let builder = Ringway::builder().cpu([SWITCH_CPU, LOAD_CPU][end]).bridge("br0");
        let builder = builder.nic("world", "br0", &af_packet(0, worlds[end].interface()));
        builder.bond("trunk", "br0", "lacp", &devices).start().unwrap()
    };
    let switches = [switch(0), switch(1)];
    for ringway in &switches {
        ringway.wait_state(&["world", "trunk"], "running").unwrap();
        wait_members(ringway, "trunk", &["active", "active"], AGREED);
        wait_for("link", SEEN, || (port_says(ringway, "trunk", "link") == "up").then_some(())).unwrap();
    }
    let _server = worlds[1].spawn("iperf3").args(["-s"]).start().unwrap();
    std::thread::sleep(Duration::from_millis(500));
    // net_bonding goes by the parity of ports, among others; Linux takes even ones.
    for port in [40_000, 40_001] {
        println!("{}", worlds[0].run(&format!("iperf3 -c 10.90.1.2 -t 1 --cport {port}")).unwrap());
    }
    for cable in &cables {
        let sent =
            std::fs::read_to_string(format!("/sys/class/net/{}/statistics/tx_packets", cable.ends()[0])).unwrap();
        assert!(sent.trim().parse::<u64>().unwrap() > 100, "{sent} by one of the cables");
    }

    let stream = Stream::start(&worlds[0], "10.90.1.2");
    let gaps = [0, 1].map(|cable: usize| {
        let gap = stream.longest_gap(|| cables[cable].set_link(false).unwrap());
        for ringway in &switches {
            wait_members(ringway, "trunk", if cable == 0 { &["down", "active"] } else { &["active", "down"] }, SEEN);
        }
        cables[cable].set_link(true).unwrap();
        for ringway in &switches {
            wait_members(ringway, "trunk", &["active", "active"], AGREED);
        }
        gap
    });
    println!("seconds without an answer: {gaps:?}");
    assert!(gaps.iter().all(|&gap| gap < GAP_MAX), "{gaps:?}");
    drop(stream);
    switches.iter().for_each(assert_balances);
}

/// An idle switch hears what the other end says of the link, and answers, within 100 ms: here a marker (IEEE 802.1AX-2008,
/// 5.5), whose answer goes the way of all frames of LACP, out by the next burst.
#[test]
fn slow_protocols_are_served_when_idle() {
    let cable = Cable::lay().unwrap();
    let ringway = Ringway::builder().cpu(SWITCH_CPU).bridge("br0");
    let ringway = ringway.bond("trunk", "br0", "lacp", &[af_packet(0, cable.ends()[0])]).start().unwrap();
    ringway.wait_state(&["trunk"], "running").unwrap();
    wait_members(&ringway, "trunk", &["negotiating"], SEEN);
    assert_eq!(port_says(&ringway, "trunk", "link"), "down", "nobody at the other end talks LACP");

    let mut wire = Command::new("socat");
    wire.args(["-b", "2000", "-", &format!("INTERFACE:{}", cable.ends()[1])]);
    let mut wire = wire.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
    let (mut to, mut from) = (wire.stdin.take().unwrap(), wire.stdout.take().unwrap());
    let (came, comes) = std::sync::mpsc::channel();
    let listener = std::thread::spawn(move || {
        let mut frame = [0; 2000];
        while let Ok(len @ 1..) = from.read(&mut frame) {
            let _ = came.send((Instant::now(), frame[..len].to_vec()));
        }
    });
    let mut answered = Vec::new();
    for transaction in 1..=3_u8 {
        // net_bonding answers one every 2 s; and the switch has gone to sleep.
        std::thread::sleep(Duration::from_millis(2500));
        let mut marker = vec![1, 0x80, 0xc2, 0, 0, 2, 2, 0, 0, 0, 0, 9, 0x88, 0x09, 2, 1, 1, 16, 0, 1];
        marker.extend([2, 0, 0, 0, 0, 9, 0, 0, 0, transaction]);
        marker.resize(124, 0);
        let sent = Instant::now();
        to.write_all(&marker).unwrap();
        let is_answer =
            |frame: &[u8]| frame.windows(16).any(|bytes| bytes[..3] == [2, 1, 2] && bytes[15] == transaction);
        let answer = std::iter::from_fn(|| comes.recv_timeout(SEEN).ok()).find(|(_, frame)| is_answer(frame));
        answered.push(answer.expect("no answer").0 - sent);
    }
    println!("answered after {answered:?}");
    wire.kill().unwrap();
    wire.wait().unwrap();
    listener.join().unwrap();
    // The machine may be busy at one moment; not at all of them.
    assert!(answered.iter().min().unwrap() < &Duration::from_millis(100), "{answered:?}");
    let slept = ringway.metrics().unwrap().sum("ringway_worker_seconds_total", &[("mode", "sleep")]);
    assert!(slept > 1.0, "{slept} s: it was not idle");
}
