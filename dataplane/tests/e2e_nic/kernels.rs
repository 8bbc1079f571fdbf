//! Kernels' TCP stacks in network namespaces, by net_af_packet.

use std::time::Duration;

use ringway_testbed::{Guest, Namespace, Process, Ringway, read_pcap, scratch_dir, wait_for, write_pcap};

use crate::common::{LOAD_CPU, SWITCH_CPU, assert_balances, count, port_says};
use crate::{SEEN, dropped, path_bytes};

/// Enough for any command here, under software emulation.
const ANSWER: Duration = Duration::from_secs(60);
/// What tshark is to look for: every checksum, which it does not do unless told.
const CHECKED: [&str; 6] =
    ["-o", "ip.check_checksum:TRUE", "-o", "tcp.check_checksum:TRUE", "-o", "udp.check_checksum:TRUE"];
const BAD: &str = "ip.checksum.status == 0 || tcp.checksum.status == 0 || udp.checksum.status == 0";

fn af_packet(number: u32, namespace: &Namespace) -> String {
    format!("net_af_packet{number},iface={}", namespace.interface())
}

/// A capture inside a namespace, written to a file.
struct Capture {
    process: Process,
    file: std::path::PathBuf,
}

impl Capture {
    fn start(namespace: &Namespace, directory: &std::path::Path) -> Self {
        let file = directory.join("capture.pcap");
        let tshark = namespace.spawn("tshark").args(["-q", "-i", "eth0", "-F", "pcap", "-B", "32", "-w"]).arg(&file);
        let process = tshark.start().unwrap();
        process.wait_for_line("Capturing on", SEEN).unwrap();
        std::thread::sleep(Duration::from_millis(500));
        Self { process, file }
    }

    fn stop(mut self) -> std::path::PathBuf {
        std::thread::sleep(Duration::from_secs(1));
        self.process.stop().unwrap();
        self.file
    }
}

fn mac_of(text: &str) -> [u8; 6] {
    let bytes: Vec<u8> = text.split(':').map(|byte| u8::from_str_radix(byte, 16).unwrap()).collect();
    bytes.try_into().unwrap()
}

/// Frames of a capture that a filter of tshark's picks.
fn picked(namespace: &Namespace, file: &std::path::Path, filter: &str) -> usize {
    let command = format!("tshark -r {} {} -Y '{filter}' 2>/dev/null | wc -l", file.display(), CHECKED.join(" "));
    namespace.run(&command).unwrap().trim().parse().unwrap()
}

/// From namespace to namespace: mbufs move, and whatever happens to a cable or a device is told, counted and got over.
#[test]
fn namespaces_over_two_nics() {
    let (one, two) = (Namespace::new("10.89.0.1/24", 1500).unwrap(), Namespace::new("10.89.0.2/24", 1500).unwrap());
    let ringway = Ringway::builder()
        .cpu(SWITCH_CPU)
        .bridge("br0")
        .nic("up1", "br0", &af_packet(0, &one))
        .nic("up2", "br0", &af_packet(1, &two))
        .start()
        .unwrap();
    ringway.wait_state(&["up1", "up2"], "running").unwrap();
    one.run("ping -c 3 -i 0.2 -W 2 10.89.0.2").unwrap();

    // Both stations are known: nothing is flooded, so nothing is copied.
    let copied = path_bytes(&ringway, "copied", "nic_to_nic");
    let forwarded = path_bytes(&ringway, "forwarded", "nic_to_nic");
    let _server = two.spawn("iperf3").args(["-s"]).start().unwrap();
    std::thread::sleep(Duration::from_millis(500));
    println!("{}", one.run("iperf3 -c 10.89.0.2 -t 2 -P 2").unwrap());
    println!("{}", one.run("iperf3 -c 10.89.0.2 -t 2 -R").unwrap());
    let moved = path_bytes(&ringway, "forwarded", "nic_to_nic") - forwarded;
    let copied = path_bytes(&ringway, "copied", "nic_to_nic") - copied;
    assert!(moved > 10_000_000 && copied * 100 < moved, "{copied} bytes copied, more than is flooded, of {moved}");
    assert_balances(&ringway);

    // The cable: frames for it are dropped for that, and go again when it is back.
    two.set_link(false).unwrap();
    wait_for("link down", SEEN, || (port_says(&ringway, "up2", "link") == "down").then_some(())).unwrap();
    one.run("ping -c 2 -i 0.2 -W 1 10.89.0.2").unwrap_err();
    assert!(dropped(&ringway, "up2", "link_down") > 0);
    two.set_link(true).unwrap();
    wait_for("link up", SEEN, || (port_says(&ringway, "up2", "link") == "up").then_some(())).unwrap();
    one.run("ping -c 2 -i 0.5 -W 2 10.89.0.2").unwrap();

    // The device: the port says what is wrong, the others go on, and it comes back with the device.
    two.unplug().unwrap();
    ringway.wait_state(&["up2"], "failed").unwrap();
    assert!(port_says(&ringway, "up2", "last_error").contains(two.interface()), "{:?}", ringway.show("ports"));
    assert_eq!(port_says(&ringway, "up1", "state"), "running");
    one.run("ping -c 1 -W 1 10.89.0.2").unwrap_err();
    two.plug().unwrap();
    ringway.wait_state(&["up2"], "running").unwrap();
    assert_eq!(port_says(&ringway, "up2", "last_error"), "null");
    one.run("ip neigh flush all").unwrap(); // the new interface has another address
    one.run("ping -c 3 -i 0.5 -W 2 10.89.0.2").unwrap();
    assert_balances(&ringway);
}

/// A guest that leaves checksums and segments to others talks with a kernel behind a NIC that does neither: all is made in
/// software, and right.
#[test]
fn a_guest_reaches_the_world() {
    let directory = scratch_dir().unwrap();
    let socket = directory.path().join("vm1.sock");
    let guest = Guest::builder("vm1", &socket).cpu(LOAD_CPU).memory(192).ip("10.89.1.1/24").start().unwrap();
    let world = Namespace::new("10.89.1.2/24", 1500).unwrap();

    // A frame whose checksum is wrong comes first, to be sure that such are found.
    let broken = directory.path().join("broken.pcap");
    let mut frame = Vec::new();
    let (to, from) = (mac_of(&world.mac().unwrap()), [2, 0, 0, 0, 0, 9]);
    let udp = etherparse::PacketBuilder::ethernet2(from, to).ipv4([10, 89, 1, 9], [10, 89, 1, 2], 64).udp(9, 9);
    udp.write(&mut frame, b"neither here nor there").unwrap();
    frame[41] ^= 1;
    write_pcap(&broken, &[&frame]).unwrap();

    let sent = directory.path().join("sent.pcap");
    let capture = Capture::start(&world, directory.path());
    let ringway = Ringway::builder()
        .cpu(SWITCH_CPU)
        .bridge("br0")
        .port("vm1", "br0", &socket)
        .nic("uplink", "br0", &af_packet(0, &world))
        .nic("file", "br0", &format!("net_pcap0,rx_pcap={},tx_pcap={}", broken.display(), sent.display()))
        .start()
        .unwrap();
    guest.wait_booted().unwrap();
    ringway.wait_state(&["vm1", "uplink", "file"], "running").unwrap();
    guest.run("ping -c 3 -w 10 10.89.1.2", ANSWER).unwrap();

    let _server = world.spawn("iperf3").args(["-s"]).start().unwrap();
    std::thread::sleep(Duration::from_millis(500));
    // What the guest leaves to others: checksums and segments, checksums, nothing.
    for (mode, much) in [("tx on tso on", "20M"), ("tso off", "5M"), ("tx off", "5M")] {
        println!("{}", guest.run(&format!("ethtool -K eth0 {mode}; ethtool -k eth0 | head -n 20"), ANSWER).unwrap());
        for more in [&format!("-n {much}"), &format!("-n {much} -R"), "-t 2 -u -b 5M"] {
            println!("{}", guest.run(&format!("timeout 40 iperf3 -c 10.89.1.2 {more}"), ANSWER).unwrap());
        }
    }
    let capture = capture.stop();
    assert!(picked(&world, &capture, "tcp || udp") > 1000);
    assert_eq!(picked(&world, &capture, &format!("({BAD}) && eth.src != 02:00:00:00:00:09")), 0, "bad checksums");
    assert_eq!(picked(&world, &capture, BAD), 1, "the one broken on purpose");
    // What is flooded went to the NIC that writes a file, too: the guest's question for the other's address, byte by byte.
    let mac = guest.run("cat /sys/class/net/eth0/address", ANSWER).unwrap();
    let mac: [u8; 6] = mac_of(mac.trim());
    let mut question = [[0xff; 6], mac].concat();
    question.extend([8, 6, 0, 1, 8, 0, 6, 4, 0, 1]);
    question.extend(mac.iter().chain(&[10, 89, 1, 1, 0, 0, 0, 0, 0, 0, 10, 89, 1, 2]));
    question.resize(60, 0); // as long as a frame is on a wire
    let came = read_pcap(&sent).unwrap();
    assert!(came.contains(&question), "{question:x?} is not among {came:x?}");
    assert!(count(&ringway.metrics().unwrap(), "generated_packets_total", &[]) > 100, "large frames were cut");
    for path in ["guest_to_nic", "nic_to_guest"] {
        let (forwarded, copied) = (path_bytes(&ringway, "forwarded", path), path_bytes(&ringway, "copied", path));
        assert!(forwarded > 100_000, "{path}: {forwarded}");
        assert!(copied.abs_diff(forwarded) * 100 <= forwarded, "{path}: {copied} copied of {forwarded}");
    }
    assert_balances(&ringway);
}
