//! Files of frames, by net_pcap: what goes in by one is what comes out by the other.

use ringway_testbed::driver::frame::{BROADCAST, frame, mac};
use ringway_testbed::{Ringway, read_pcap, scratch_dir, wait_for, write_pcap};

use crate::common::{SWITCH_CPU, assert_balances, port_says};
use crate::{SEEN, path_bytes};

/// Byte by byte, in order, moved and copied, from the shortest frame to the longest.
#[test]
fn what_is_read_from_a_file_is_written_to_another() {
    let directory = scratch_dir().unwrap();
    let file = |name: &str| directory.path().join(name);
    let (from, to, sent, back) = (file("from.pcap"), file("to.pcap"), file("sent.pcap"), file("back.pcap"));
    // More than a burst of each length, and of others in between.
    let lens = (0..400).map(|n| [60, 61, 1514, 9014, 64 + n * 22][n % 5]);
    let (mut known, mut flooded): (Vec<_>, Vec<_>) = (Vec::new(), Vec::new());
    let mut frames = Vec::new();
    for (n, len) in lens.enumerate() {
        let (to, group) = if (192..224).contains(&n) { (BROADCAST, &mut flooded) } else { (mac(2), &mut known) };
        let frame = frame(to, mac(1), len, n as u64);
        group.push(frame.clone());
        frames.push(frame);
    }
    write_pcap(&from, &frames).unwrap();
    // The station behind the second is known before the first has its device: devices are opened in the order of the file.
    write_pcap(&to, &[frame(mac(1), mac(2), 60, 1)]).unwrap();

    let device = |number, rx: &std::path::Path, tx: &std::path::Path| {
        format!("net_pcap{number},rx_pcap={},tx_pcap={}", rx.display(), tx.display())
    };
    let jumbo = "mtu = 9000";
    let ringway = Ringway::builder()
        .cpu(SWITCH_CPU)
        .bridge("br0")
        .nic("to", "br0", &device(0, &to, &sent))
        .port_setting(jumbo)
        .nic("from", "br0", &device(1, &from, &back))
        .port_setting(jumbo)
        .start()
        .unwrap();
    ringway.wait_state(&["to", "from"], "running").unwrap();
    assert_eq!(port_says(&ringway, "to", "last_error"), "null");

    let came =
        wait_for("all frames", SEEN, || read_pcap(&sent).ok().filter(|came| came.len() >= frames.len())).unwrap();
    // Within a burst, what is flooded may overtake what is not: they are different flows. All of such a burst is copied.
    let (came_flooded, came_known): (Vec<_>, Vec<_>) = came.into_iter().partition(|frame| frame[..6] == BROADCAST);
    assert!(came_known == known, "{} frames, not {}, or others", came_known.len(), known.len());
    assert!(came_flooded == flooded, "{} frames, not {}, or others", came_flooded.len(), flooded.len());
    let bytes = |frames: &[Vec<u8>]| frames.iter().map(|frame| frame.len() as u64).sum::<u64>();
    let copied = path_bytes(&ringway, "copied", "nic_to_nic");
    assert!(copied >= bytes(&flooded), "{copied}: what is flooded is copied");
    assert!(copied * 3 < bytes(&known), "{copied} bytes copied: what is known moves");
    assert_eq!(port_says(&ringway, "from", "transmit_packets"), "0");
    assert_balances(&ringway);
}
