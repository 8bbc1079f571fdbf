//! What an operator is told of pairs that a guest does not use, and may do with workers.

use ringway::control::{Client, Order, View};
use ringway_testbed::driver::front_end::feature;
use ringway_testbed::driver::{Layout, Options, eventually};
use serde_json::{Value, json};

use crate::guests::{LAYOUTS, Net, Setup, cpus, introduce, passes};

fn port(net: &Net) -> Value {
    net.show(View::Ports)[1].clone()
}

/// Eight pairs of which one is in use: what would use them all, and what lies idle meanwhile. The numbers are the driver's.
#[test]
fn pairs_that_a_guest_does_not_use() {
    for layout in LAYOUTS {
        let net = Net::new(2);
        let mut guests = vec![
            net.plug(0, Options::new(layout)),
            net.plug(1, Options { pairs: 8, buffers: 100, memory_len: 32 << 20, ..Options::new(layout) }),
        ];
        introduce(&mut guests);
        assert_eq!((&port(&net)["pairs"], &port(&net)["idle"]), (&json!("8 offered, 8 enabled"), &json!([])));
        for pair in 1..8 {
            guests[1].enable(pair, false).unwrap();
        }
        let shown = port(&net);
        assert_eq!(shown["pairs"], "8 offered, 1 enabled by the guest: ethtool -L eth0 combined 8");
        assert_eq!((&shown["pairs_offered"], &shown["pairs_enabled"]), (&json!(8), &json!(1)));
        let ring_bytes: u64 = if layout == Layout::Packed { 2 * (256 * 16 + 8) } else { 2 * (256 * 26 + 12) };
        for pair in 1..8 {
            let expected = json!({
                "queue": format!("vm1/{pair}"),
                "msix_vectors": [2 * pair + 1, 2 * pair + 2],
                "ring_bytes": ring_bytes,
                "receive_buffers": 100,
                "receive_buffer_bytes": 100 * 2048,
            });
            assert_eq!(shown["idle"][pair - 1], expected);
        }
        let table = View::Ports.table(&net.show(View::Ports));
        let kib = (7 * (ring_bytes + 100 * 2048)).div_ceil(1024);
        let sentence = format!(
            "8 offered, 1 enabled by the guest: ethtool -L eth0 combined 8; idle: MSI-X vectors 3 to 16, {kib} KiB"
        );
        assert!(table.contains(&sentence), "{table}");
        passes(&mut guests, 0, 1, 700);

        guests[1].enable(3, true).unwrap();
        assert_eq!(port(&net)["pairs"], "8 offered, 2 enabled by the guest: ethtool -L eth0 combined 8");
        assert!(View::Ports.table(&net.show(View::Ports)).contains("vectors 3 4 5 6 9 10"));
        guests[1].front_end.hang_up();
        assert!(eventually(|| port(&net)["pairs"].is_null()));
        assert_eq!((&port(&net)["pairs_offered"], &port(&net)["idle"]), (&json!(0), &json!([])));
    }
}

/// A driver that knows no more than one pair cannot be told to use others.
#[test]
fn a_driver_without_multiqueue() {
    let net = Net::new(2);
    let usual = Options::new(LAYOUTS[0]);
    let options = Options { pairs: 4, features: usual.features & !feature::MQ, memory_len: 16 << 20, ..usual };
    let mut guests = [net.plug(0, usual), net.plug(1, options)];
    for pair in 1..4 {
        guests[1].enable(pair, false).unwrap();
    }
    assert_eq!(port(&net)["pairs"], "4 offered, 1 enabled by the guest: its driver did not take VIRTIO_NET_F_MQ");
}

/// Workers and pairs by order over the control socket, and what is refused there.
#[test]
fn orders() {
    let net = Setup { ports: 2, ..Setup::default() }.start();
    let mut guests = net.plug_all(LAYOUTS[0]);
    introduce(&mut guests);
    let order = |order: Order| Client::connect(&net.control).unwrap().order(&order).map_err(|error| error.to_string());
    let refused = |asked: Order, why: &str| {
        let error = order(asked.clone()).unwrap_err();
        assert!(error.contains(why), "{asked:?}: {error}");
    };
    refused(Order::RemoveWorker { worker: 0 }, "it is the only worker; add another one first");
    refused(Order::RemoveWorker { worker: 9 }, "there is no such worker");
    refused(Order::AddWorker { cpu: net.switch.workers()[0].cpu }, "worker 0 runs on CPU");
    refused(Order::AddWorker { cpu: 1024 }, "`cpu` has to be a number from 0 to 1023");
    for name in ["vm1", "vm9/0", "vm1/x", "/0", "vm1/0/0"] {
        refused(Order::MoveQueue { queue: name.to_owned(), worker: 0 }, "there is no queue pair");
    }
    refused(Order::MoveQueue { queue: "vm1/5".to_owned(), worker: 0 }, "not in use");
    refused(Order::MoveQueue { queue: "vm1/0".to_owned(), worker: 1 }, "no such worker");
    let to = |worker| Order::MoveQueue { queue: "vm1/0".to_owned(), worker };
    assert_eq!(order(to(0)), Ok(json!({ "moved": false, "worker": 0 })));
    if cpus() < 2 {
        return;
    }
    let cpu = ringway::worker::Worker::allowed_cpus()[1];
    assert_eq!(order(Order::AddWorker { cpu }), Ok(json!({ "worker": 1 })));
    assert_eq!(order(to(1)), Ok(json!({ "moved": true, "worker": 1 })));
    passes(&mut guests, 0, 1, 700);
    let queues = |worker: usize| net.show(View::Workers)[worker]["queues"].clone();
    assert_eq!((queues(0), queues(1)), (json!(["vm0/0"]), json!(["vm1/0"])));
    assert_eq!(order(Order::RemoveWorker { worker: 0 }), Ok(json!({})));
    assert_eq!(queues(0), json!(["vm0/0", "vm1/0"]));
    passes(&mut guests, 1, 0, 701);
    net.assert_balances();
}
