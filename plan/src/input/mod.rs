//! What an operator says: a TOML file, flags, and what `openstack … show -f json` prints, in one [`Input`].
//!
//! Everything is optional and as written here; what it means, and whether it can be, is a matter of the rules.

mod error;
mod openstack;
mod properties;
mod toml_file;

use std::path::PathBuf;

use serde::Deserialize;

pub use error::InputError;
pub(crate) use error::escaped;
pub use properties::Properties;
pub(crate) use properties::boolean;

/// A guest to plan for, as said so far. Later words win over earlier ones, NICs and properties are added.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Input {
    /// The guest itself.
    pub guest: GuestInput,
    /// The flavor; with any property in it, nova's rules hold.
    pub flavor: Option<Flavor>,
    /// The image; likewise.
    pub image: Option<Image>,
    /// nova.conf, section `[libvirt]`, of the hosts that the guest may run on.
    pub libvirt: Libvirt,
    /// qemu.conf of those hosts.
    pub qemu: Qemu,
    /// What the guest and its programs are known to do.
    pub traffic: Traffic,
    /// The interfaces.
    pub nic: Vec<Nic>,
}

/// The guest itself. vCPUs and memory may come from the flavor instead.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct GuestInput {
    /// The domain's name; that of the first NIC unless told.
    pub name: Option<String>,
    /// Virtual CPUs.
    pub vcpus: Option<i64>,
    /// Memory in MiB.
    pub memory_mib: Option<i64>,
    /// Huge pages of so many KiB for its memory. For guests that nova does not start; there it is `hw:mem_page_size`.
    pub page_size_kib: Option<i64>,
    /// NUMA nodes of the guest. For guests that nova does not start; there it is `hw:numa_nodes`.
    pub numa_nodes: Option<i64>,
    /// The most queue pairs that any of its NICs gets.
    pub queues_max: Option<i64>,
    /// Packed virtqueues. For guests that nova does not start; there it is `hw:virtio_packed_ring`.
    pub packed: Option<bool>,
    /// MSI-X vectors that its kernel has for all its devices,
    pub vectors_max: Option<i64>,
    /// and those of them that go to others than its NICs.
    pub vectors_other: Option<i64>,
    /// `kvm` or `qemu`.
    pub virt_type: Option<String>,
    /// The QEMU that libvirt starts; libvirt's choice unless told.
    pub emulator: Option<PathBuf>,
    /// A disk image, in qcow2.
    pub disk: Option<PathBuf>,
    /// A kernel to boot directly,
    pub kernel: Option<PathBuf>,
    /// its initramfs,
    pub initrd: Option<PathBuf>,
    /// and its command line.
    pub cmdline: Option<String>,
}

/// A flavor, as `openstack flavor show -f json` has it.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Flavor {
    /// Its name, for messages.
    pub name: Option<String>,
    /// Virtual CPUs.
    pub vcpus: Option<i64>,
    /// Memory in MiB.
    pub ram: Option<i64>,
    /// Extra specs.
    pub properties: Properties,
}

/// An image, as `openstack image show -f json` has it.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Image {
    /// Its name, for messages.
    pub name: Option<String>,
    /// Its properties.
    pub properties: Properties,
}

/// nova.conf, section `[libvirt]`.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Libvirt {
    /// The most queue pairs an interface gets.
    pub max_queues: Option<i64>,
    /// Descriptors in a receive ring.
    pub rx_queue_size: Option<i64>,
    /// Descriptors in a transmit ring.
    pub tx_queue_size: Option<i64>,
    /// Guest memory in files, in MiB for the whole host; 0 is off.
    pub file_backed_memory: Option<i64>,
    /// libvirt's version on the hosts, such as `9.0.0`.
    pub version: Option<String>,
}

/// qemu.conf, and QEMU itself.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Qemu {
    /// File descriptors that libvirt permits to a QEMU; 0 leaves the host's default.
    pub max_files: Option<i64>,
    /// Where libvirt puts the files of `file_backed_memory`.
    pub memory_backing_dir: Option<PathBuf>,
    /// QEMU's version on the hosts, such as `7.2`.
    pub version: Option<String>,
}

/// What is known of the guest's traffic: multiqueue does not always pay.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Traffic {
    /// Mostly small packets go out.
    pub small_outgoing: bool,
    /// One connection makes nearly all of it.
    pub one_connection: bool,
    /// Queue pairs that the guest really enables; as many as it gets, up to its vCPUs, unless told.
    pub queues_enabled: Option<i64>,
}

/// An interface.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Nic {
    /// The name of the switch's port.
    pub name: String,
    /// The bridge that the port is on, `br0` unless told.
    pub bridge: Option<String>,
    /// The vhost-user socket, `/run/guests/NAME.sock` unless told.
    pub socket: Option<PathBuf>,
    /// Which end the switch is: `client` (unless told) or `server`. QEMU and libvirt are the other one.
    pub mode: Option<String>,
    /// Its Ethernet address; made from guest and NIC unless told.
    pub mac: Option<String>,
    /// Its MTU in bytes, 1500 unless told.
    pub mtu: Option<i64>,
    /// So many queue pairs.
    pub queues: Option<i64>,
    /// As many queue pairs as `high` (100 % of the vCPUs), `medium` (50 %) or `low` (1) stands for.
    pub throughput: Option<String>,
    /// Features that the switch is told to withhold, as in its own configuration.
    pub mask_features: Vec<String>,
    /// Other names under which an operator knows it: the name and the id of its Neutron port.
    #[serde(skip)]
    pub also: Vec<String>,
    /// Neutron has not bound its port yet, so that socket and mode are a guess.
    #[serde(skip)]
    pub is_unbound: bool,
}

impl Nic {
    /// Takes over what a later word says of it.
    fn merge(&mut self, later: Self) {
        // A socket that somebody names is no guess.
        self.is_unbound = later.is_unbound || (self.is_unbound && later.socket.is_none());
        self.bridge = later.bridge.or(self.bridge.take());
        self.socket = later.socket.or(self.socket.take());
        self.mode = later.mode.or(self.mode.take());
        self.mac = later.mac.or(self.mac.take());
        self.mtu = later.mtu.or(self.mtu);
        // Two words for one thing: the later one holds.
        if later.queues.is_some() || later.throughput.is_some() {
            (self.queues, self.throughput) = (later.queues, later.throughput);
        }
        if !later.mask_features.is_empty() {
            self.mask_features = later.mask_features;
        }
        self.also.extend(later.also);
    }
}

impl Input {
    /// Adds a NIC, or what is said of one that is known by this name already.
    pub fn add_nic(&mut self, nic: Nic) {
        let names = |known: &Nic| known.name == nic.name || known.also.contains(&nic.name);
        match self.nic.iter_mut().find(|known| !nic.name.is_empty() && names(known)) {
            Some(known) => known.merge(nic),
            None => self.nic.push(nic),
        }
    }

    /// Adds a property of the flavor.
    pub fn add_flavor_property(&mut self, key: &str, value: &str) {
        self.flavor.get_or_insert_default().properties.set(key, value);
    }

    /// Adds a property of the image.
    pub fn add_image_property(&mut self, key: &str, value: &str) {
        self.image.get_or_insert_default().properties.set(key, value);
    }

    /// Whether the guest is one that nova starts: it has a flavor or an image. One without properties says most: that nova gives
    /// it private memory.
    pub(crate) fn is_novas(&self) -> bool {
        self.flavor.is_some() || self.image.is_some()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_said_later_of_a_nic_holds() {
        let named = |name: &str| Nic { name: name.to_owned(), ..Nic::default() };
        let mut input = Input::default();
        let port = Nic { also: vec!["web1".to_owned()], is_unbound: true, mac: Some("m".to_owned()), ..named("vhu1") };
        input.add_nic(Nic { queues: Some(2), socket: Some("/guess".into()), ..port });
        input.add_nic(Nic { throughput: Some("low".to_owned()), mtu: Some(9000), ..named("web1") });
        input.add_nic(named("other"));
        input.add_nic(named(""));
        input.add_nic(named(""));
        assert_eq!(input.nic.iter().map(|nic| nic.name.as_str()).collect::<Vec<_>>(), ["vhu1", "other", "", ""]);
        let nic = &input.nic[0];
        assert_eq!((nic.queues, nic.throughput.as_deref(), nic.mtu), (None, Some("low"), Some(9000)));
        assert_eq!((nic.mac.as_deref(), nic.is_unbound), (Some("m"), true));
        input.add_nic(Nic { socket: Some("/s".into()), ..named("vhu1") });
        assert!(!input.nic[0].is_unbound && input.nic[0].socket.as_deref() == Some("/s".as_ref()));
    }

    #[test]
    fn a_guest_is_novas_as_soon_as_it_has_a_flavor_or_an_image() {
        assert!(!Input::default().is_novas());
        assert!(Input { flavor: Some(Flavor { vcpus: Some(4), ..Flavor::default() }), ..Input::default() }.is_novas());
        let mut input = Input::default();
        input.add_image_property("hw_vif_model", "virtio");
        assert!(input.is_novas());
    }
}
