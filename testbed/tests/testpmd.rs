//! Two testpmd processes, guest and switch, pass frames to each other on ordinary memory.

use std::time::Duration;

use ringway_testbed::{
    Forward, Testpmd, Topology, VhostPort, VirtioUser, read_pcap, scratch_dir, wait_for, write_pcap,
};

const SOON: Duration = Duration::from_secs(20);

fn frame(last: u8) -> Vec<u8> {
    let mut frame = vec![0x02, 0, 0, 0, 0, 1, 0x02, 0, 0, 0, 0, 2, 0x88, 0xb5];
    frame.extend(vec![0; 45]);
    frame.push(last);
    frame
}

#[test]
fn frames_from_a_file_come_out_in_another() {
    for (packed, serves) in [(true, true), (false, false)] {
        let dir = scratch_dir().unwrap();
        let at = |name: &str| dir.path().join(name);
        let frames: Vec<_> = (0..20).map(frame).collect();
        write_pcap(&at("sent.pcap"), &frames).unwrap();

        let guest = || {
            let nic = |name: &str| VirtioUser::new(at(name)).packed(packed).serves(serves);
            Testpmd::guest()
                .virtio_user(nic("a"))
                .pcap(Some(&at("sent.pcap")), &at("unused.pcap"))
                .virtio_user(nic("b"))
                .pcap(None, &at("received.pcap"))
                .forward(Forward::Io)
                .topology(Topology::Paired)
                .start()
                .unwrap()
        };
        let switch = || {
            let port = |name: &str| VhostPort::new(at(name)).serves(!serves);
            Testpmd::switch().vhost(port("a")).vhost(port("b")).start().unwrap()
        };
        // Who listens is started first.
        let (guest, switch) = if serves {
            let guest = guest();
            (guest, switch())
        } else {
            let switch = switch();
            switch.wait_ready().unwrap();
            (guest(), switch)
        };
        guest.wait_ready().unwrap();
        switch.wait_ready().unwrap();
        switch.forward().unwrap();
        guest.forward().unwrap();

        let all = || read_pcap(&at("received.pcap")).ok().filter(|received| received.len() >= frames.len());
        assert_eq!(wait_for("all frames", SOON, all).unwrap(), frames);

        assert_eq!(guest.port_stats().unwrap().len(), 4);
        assert!(switch.forward_stats().unwrap().cycles_per_packet.is_some_and(|cycles| cycles > 1.0));
        guest.quit().unwrap();
        switch.quit().unwrap();
    }
}

#[test]
fn a_closed_loop_keeps_going() {
    let dir = scratch_dir().unwrap();
    let (a, b) = (dir.path().join("a"), dir.path().join("b"));
    let guests = Testpmd::guest()
        .virtio_user(VirtioUser::new(&a))
        .virtio_user(VirtioUser::new(&b))
        .eth_peer(0, &VirtioUser::default_mac(1))
        .eth_peer(1, &VirtioUser::default_mac(0))
        .start()
        .unwrap();
    let port = |path| VhostPort::new(path).serves(false);
    let switch = Testpmd::switch().vhost(port(&a)).vhost(port(&b)).start().unwrap();
    guests.wait_ready().unwrap();
    switch.wait_ready().unwrap();
    switch.forward().unwrap();
    guests.command("start tx_first 2").unwrap();

    // 64 frames each way are in flight for ever, so more than that many have been received when they came back.
    let received = || {
        let ports = guests.port_stats().ok()?;
        (ports.len() == 2 && ports.iter().all(|port| port.rx_packets > 1000)).then_some(())
    };
    wait_for("a thousand frames each way", SOON, received).unwrap();
    switch.clear_forward_stats().unwrap();
    assert_eq!(guests.forward_stats().unwrap().tx_dropped, 0);
}
