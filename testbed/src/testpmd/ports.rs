//! The ports that testpmd can be given, and how DPDK wants them spelled.

use std::path::{Path, PathBuf};

/// A guest NIC: DPDK's virtio-net driver over a vhost-user socket.
#[derive(Debug, Clone)]
pub struct VirtioUser {
    socket: PathBuf,
    serves: bool,
    packed: bool,
    mergeable: bool,
    in_order: bool,
    queue_pairs: u16,
    ring_size: u16,
    mac: Option<String>,
    more: String,
}

impl VirtioUser {
    /// A NIC that listens at `socket` as QEMU does, with packed rings of 256 and one queue pair.
    pub fn new(socket: impl AsRef<Path>) -> Self {
        Self {
            socket: socket.as_ref().to_owned(),
            serves: true,
            packed: true,
            mergeable: true,
            in_order: false,
            queue_pairs: 1,
            ring_size: 256,
            mac: None,
            more: String::new(),
        }
    }

    /// Whether it listens at the socket (the switch connects) or connects to it. Yes unless told.
    #[must_use]
    pub fn serves(mut self, serves: bool) -> Self {
        self.serves = serves;
        self
    }

    /// Packed or split virtqueues.
    #[must_use]
    pub fn packed(mut self, packed: bool) -> Self {
        self.packed = packed;
        self
    }

    /// Whether a frame may span receive buffers. Yes unless told.
    #[must_use]
    pub fn mergeable(mut self, mergeable: bool) -> Self {
        self.mergeable = mergeable;
        self
    }

    /// Whether buffers are promised to be used in order. No unless told.
    #[must_use]
    pub fn in_order(mut self, in_order: bool) -> Self {
        self.in_order = in_order;
        self
    }

    /// Queue pairs, one unless told.
    #[must_use]
    pub fn queues(mut self, pairs: u16) -> Self {
        self.queue_pairs = pairs;
        self
    }

    /// Descriptors in each virtqueue.
    #[must_use]
    pub fn ring_size(mut self, descriptors: u16) -> Self {
        self.ring_size = descriptors;
        self
    }

    /// Its Ethernet address, `52:54:00:00:10:01` and up unless told.
    #[must_use]
    pub fn mac(mut self, mac: impl Into<String>) -> Self {
        self.mac = Some(mac.into());
        self
    }

    /// Further parameters of the driver, such as `speed=10000`.
    #[must_use]
    pub fn parameter(mut self, parameter: &str) -> Self {
        self.more.push(',');
        self.more.push_str(parameter);
        self
    }

    /// The Ethernet address that the `number`th such port of a testpmd has unless told.
    pub fn default_mac(number: usize) -> String {
        format!("52:54:00:00:10:{:02x}", number + 1)
    }

    pub(super) fn queue_pairs(&self) -> u16 {
        self.queue_pairs
    }

    /// DPDK's `--vdev` for it, as the `number`th such port.
    pub fn vdev(&self, number: usize) -> String {
        let bit = u8::from;
        format!(
            "net_virtio_user{number},path={},queues={},packed_vq={},mrg_rxbuf={},in_order={},queue_size={},mac={}{}{}",
            self.socket.display(),
            self.queue_pairs,
            bit(self.packed),
            bit(self.mergeable),
            bit(self.in_order),
            self.ring_size,
            self.mac.clone().unwrap_or_else(|| Self::default_mac(number)),
            if self.serves { ",server=1" } else { "" },
            self.more,
        )
    }
}

/// A switch's port: DPDK's vhost library behind an Ethernet device.
#[derive(Debug, Clone)]
pub struct VhostPort {
    socket: PathBuf,
    serves: bool,
    queue_pairs: u16,
    more: String,
}

impl VhostPort {
    /// A port that listens at `socket`, with one queue pair.
    pub fn new(socket: impl AsRef<Path>) -> Self {
        Self { socket: socket.as_ref().to_owned(), serves: true, queue_pairs: 1, more: String::new() }
    }

    /// Whether it listens at the socket or connects to it, again and again. Yes unless told.
    #[must_use]
    pub fn serves(mut self, serves: bool) -> Self {
        self.serves = serves;
        self
    }

    /// Queue pairs, one unless told.
    #[must_use]
    pub fn queues(mut self, pairs: u16) -> Self {
        self.queue_pairs = pairs;
        self
    }

    /// Further parameters of the driver, such as `tso=1`.
    #[must_use]
    pub fn parameter(mut self, parameter: &str) -> Self {
        self.more.push(',');
        self.more.push_str(parameter);
        self
    }

    pub(super) fn queue_pairs(&self) -> u16 {
        self.queue_pairs
    }

    pub(super) fn vdev(&self, number: usize) -> String {
        let client = if self.serves { "" } else { ",client=1" };
        let (socket, more) = (self.socket.display(), &self.more);
        format!("net_vhost{number},iface={socket},queues={}{client}{more}", self.queue_pairs)
    }
}
