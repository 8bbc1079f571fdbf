//! nova's own cases, as facts: what its tests ask for, and what they expect.

/// A guest, and what nova makes of it.
pub(crate) struct Case {
    /// Which of nova's tests it is from, or what it is about.
    pub(crate) name: &'static str,
    pub(crate) vcpus: u32,
    /// `hw:vif_multiqueue_enabled` and `hw_vif_multiqueue_enabled`.
    pub(crate) multiqueue: (Option<&'static str>, Option<&'static str>),
    /// `hw:virtio_packed_ring` and `hw_virtio_packed_ring`.
    pub(crate) packed: (Option<&'static str>, Option<&'static str>),
    /// `[libvirt] max_queues`
    pub(crate) max_queues: Option<u32>,
    /// `[libvirt] rx_queue_size` and `tx_queue_size`
    pub(crate) sizes: (Option<u32>, Option<u32>),
    /// The host's kernel.
    pub(crate) kernel: &'static str,
    pub(crate) expected: Expected,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Expected {
    /// Queue pairs, and whether packed rings are permitted.
    Plan(u32, bool),
    /// FlavorImageConflict, which the API answers with 400.
    Conflict,
}

use Expected::{Conflict, Plan};

const CURRENT: &str = "6.1.0-40-amd64";

const fn case(name: &'static str, vcpus: u32, expected: Expected) -> Case {
    let (none, sizes) = ((None, None), (None, None));
    Case { name, vcpus, multiqueue: none, packed: none, max_queues: None, sizes, kernel: CURRENT, expected }
}

const fn multiqueue(
    name: &'static str,
    vcpus: u32,
    multiqueue: (Option<&'static str>, Option<&'static str>),
    expected: Expected,
) -> Case {
    Case { multiqueue, ..case(name, vcpus, expected) }
}

const fn packed(name: &'static str, packed: (Option<&'static str>, Option<&'static str>), expected: Expected) -> Case {
    Case { packed, ..case(name, 2, expected) }
}

/// `test_vif.py`: 10 vCPUs, or 4, with the image's property, on a kernel, with a cap.
const fn tap(name: &'static str, vcpus: u32, kernel: &'static str, max_queues: Option<u32>, pairs: u32) -> Case {
    Case { kernel, max_queues, ..multiqueue(name, vcpus, (None, Some("true")), Plan(pairs, false)) }
}

const fn sizes(name: &'static str, sizes: (Option<u32>, Option<u32>)) -> Case {
    Case { sizes, ..multiqueue(name, 4, (None, Some("true")), Plan(4, false)) }
}

pub(crate) const CASES: &[Case] = &[
    // nova/tests/unit/virt/test_hardware.py, VIFMultiqueueEnabledTest
    multiqueue("no configuration", 2, (None, None), Plan(1, false)),
    multiqueue("flavor only", 2, (Some("yes"), None), Plan(2, false)),
    multiqueue("image only, false", 2, (None, Some("False")), Plan(1, false)),
    multiqueue("flavor and image alike", 2, (Some("yes"), Some("True")), Plan(2, false)),
    multiqueue("flavor and image differ", 2, (Some("no"), Some("True")), Conflict),
    // the same function, without a test of its own there
    multiqueue("image only, true", 2, (None, Some("true")), Plan(2, false)),
    multiqueue("both say no", 4, (Some("off"), Some("0")), Plan(1, false)),
    multiqueue("the flavor says yes, the image no", 4, (Some("1"), Some("f")), Conflict),
    multiqueue("one vCPU", 1, (Some("yes"), Some("yes")), Plan(1, false)),
    multiqueue("one vCPU is not asked whether they differ", 1, (Some("yes"), Some("no")), Plan(1, false)),
    // VIFVirtioEnabledTest
    packed("packed: no configuration", (None, None), Plan(1, false)),
    packed("packed: flavor only", (Some("yes"), None), Plan(1, true)),
    packed("packed: image only", (None, Some("True")), Plan(1, true)),
    packed("packed: alike", (Some("yes"), Some("True")), Plan(1, true)),
    packed("packed: differ", (Some("no"), Some("True")), Conflict),
    packed("packed: alike, the image's as text", (Some("yes"), Some("true")), Plan(1, true)),
    // nova/tests/functional/test_servers.py: image true, flavor false, and the other way round
    packed("packed: the image asks, the flavor forbids", (Some("false"), Some("true")), Conflict),
    packed("packed: the flavor asks, the image forbids", (Some("true"), Some("false")), Conflict),
    // nova/tests/unit/virt/libvirt/test_vif.py
    tap("test_virtio_multiqueue", 4, CURRENT, None, 4),
    tap("test_virtio_multiqueue_in_kernel_2", 10, "2.6.32-21-generic", None, 1),
    tap("test_virtio_multiqueue_in_kernel_3", 10, "3.19.0-47-generic", None, 8),
    tap("test_virtio_multiqueue_in_kernel_4", 10, "4.2.0-35-generic", None, 10),
    tap("test_virtio_multiqueue_in_kernel_2_max_queues", 10, "2.6.32-21-generic", Some(2), 2),
    tap("test_virtio_multiqueue_in_kernel_3_max_queues", 10, "3.19.0-47-generic", Some(2), 2),
    tap("test_virtio_multiqueue_in_kernel_4_max_queues", 10, "4.2.0-35-generic", Some(2), 2),
    tap("test_vhostuser_os_vif_multiqueue", 4, CURRENT, None, 4),
    tap("max_queues above the vCPUs", 4, CURRENT, Some(16), 4),
    sizes("rx_queue_size = 512", (Some(512), None)),
    sizes("both sizes 1024", (Some(1024), Some(1024))),
    sizes("tx_queue_size = 1024", (None, Some(1024))),
    Case { packed: (None, Some("true")), ..tap("both features", 8, CURRENT, Some(8), 8).packed_expected() },
];

impl Case {
    const fn packed_expected(self) -> Self {
        let expected = match self.expected {
            Plan(pairs, _) => Plan(pairs, true),
            other => other,
        };
        Self { expected, ..self }
    }
}
