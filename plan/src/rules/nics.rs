//! The interfaces: queue pairs, ring sizes, and what the switch's port must have.

use std::collections::BTreeSet;
use std::path::PathBuf;

use super::guest::is_xml;
use super::multiqueue::{self, Enabled};
use super::packed::{self, Packed};
use super::pairs::Offer;
use super::{Findings, Rule};
use crate::Host;
use crate::input::{Input, Nic};
use crate::made::{Guest, GuestNic};

const NAME_BYTES_MAX: usize = 32;
const SOCKET_BYTES_MAX: usize = 107;
const MTU_MIN: u32 = 68;
/// Without multiqueue, or below, there is nothing to withhold.
const NEEDED_FOR_MULTIQUEUE: [&str; 2] = ["mq", "ctrl_vq"];

pub(crate) fn of(
    input: &Input,
    host: &Host,
    guest: Option<&Guest>,
    vcpus: Option<u32>,
    packed: Packed,
    enabled: Enabled,
    found: &mut Findings,
) -> Vec<GuestNic> {
    if input.nic.is_empty() {
        found.refuse(Rule::NoNic, "nic", "there is none", "add --nic name=vm1, or --port with what Neutron has");
    }
    model(input, found);
    let rx_queue_size = ring_size("[libvirt] rx_queue_size", input.libvirt.rx_queue_size, found);
    let tx_queue_size = ring_size("[libvirt] tx_queue_size", input.libvirt.tx_queue_size, found);
    let cap = multiqueue::cap(input, host, found);
    let guest_name = input.guest.name.as_deref().unwrap_or_default();
    let msix = guest.is_none_or(|guest| guest.msix);
    let mut taken = Taken::default();
    let nics = input.nic.iter().enumerate().filter_map(|(index, nic)| {
        taken.place(nic, found);
        if nic.is_unbound {
            let text = format!(
                "Neutron has not bound the port yet, or does not show how: {} is a guess; when the server is there, plan with \
                 its port once more, or say --nic name={},socket=PATH",
                socket(nic).display(),
                nic.name
            );
            found.warn(&nic.name, text);
        }
        let mtu = mtu(nic, host, found);
        let pairs = vcpus.and_then(|vcpus| {
            let offer =
                Offer { vcpus, enabled, cap: cap.as_ref(), most: host.queue_pairs_max, is_novas: input.is_novas() };
            offer.pairs(nic, found)
        });
        let packed = packed::of_nic(packed, nic, found);
        masked(nic, host, pairs.as_ref().map_or(1, |&(pairs, _)| pairs), found);
        let mac = mac(guest_name, nic, found);
        let qemu_listens = match nic.mode.as_deref() {
            None | Some("client") => true,
            Some("server") => false,
            Some(other) => {
                let what = format!("`{other}` is no mode");
                found.refuse(Rule::Port, &nic.name, what, "write client (the switch connects) or server (it listens)");
                return None;
            }
        };
        let (queue_pairs, queue_pairs_from) = pairs?;
        // The switch takes each word once.
        let mut mask_features = nic.mask_features.clone();
        let mut seen = BTreeSet::new();
        mask_features.retain(|mask| seen.insert(mask.clone()));
        Some(GuestNic {
            name: nic.name.clone(),
            bridge: nic.bridge.clone().unwrap_or_else(|| "br0".to_owned()),
            socket: socket(nic),
            qemu_listens,
            mac: mac?,
            mtu: mtu?,
            packed,
            queue_pairs,
            queue_pairs_from,
            rx_queue_size,
            tx_queue_size,
            features: host.features_without(&mask_features),
            mask_features,
            vectors: if msix { 2 * queue_pairs + 2 } else { 0 },
            ethtool: format!("ethtool -L eth{index} combined {queue_pairs}"),
        })
    });
    nics.collect()
}

/// `hw_vif_model`: a NIC that is not virtio has no rings to share.
fn model(input: &Input, found: &mut Findings) {
    let model = input.image.as_ref().and_then(|image| image.properties.get("hw_vif_model"));
    if let Some(other) = model.filter(|&model| model != "virtio") {
        let mend = "openstack image set --property hw_vif_model=virtio IMAGE";
        found.refuse(Rule::VifModel, "hw_vif_model", format!("{other} has no virtqueues"), mend);
    }
}

fn ring_size(about: &str, said: Option<i64>, found: &mut Findings) -> Option<u32> {
    match said {
        None => None,
        Some(size @ (256 | 512 | 1024)) => u32::try_from(size).ok(),
        Some(other) => {
            found.refuse(
                Rule::RingSize,
                about,
                format!("{other} is none of them"),
                "write 1024, or leave it out for 256",
            );
            None
        }
    }
}

/// Features that this plan rests on and that the port is told to withhold.
fn masked(nic: &Nic, host: &Host, pairs: u32, found: &mut Findings) {
    let masks = |feature: &str| nic.mask_features.iter().any(|masked| masked == feature);
    let about = format!("{} mask_features", nic.name);
    for mask in nic.mask_features.iter().filter(|&mask| !host.masks.contains_key(mask)) {
        let known: Vec<&str> = host.masks.keys().map(String::as_str).collect();
        found.refuse(Rule::Offered, &about, format!("unknown feature `{mask}`"), format!("use {}", known.join(", ")));
    }
    for feature in NEEDED_FOR_MULTIQUEUE {
        if pairs > 1 && masks(feature) {
            let what = format!("{feature} is withheld: the guest would have one of its {pairs} queue pairs");
            found.refuse(
                Rule::Offered,
                &about,
                what,
                format!("remove {feature} from mask_features, or write queues = 1"),
            );
        }
    }
}

fn mtu(nic: &Nic, host: &Host, found: &mut Findings) -> Option<Option<u16>> {
    let Some(said) = nic.mtu else { return Some(None) };
    let bounds = (i64::from(MTU_MIN), i64::from(host.mtu_max));
    let mtu = found.within(Rule::Mtu, &format!("{} mtu", nic.name), said, bounds)?;
    Some(u16::try_from(mtu).ok())
}

fn socket(nic: &Nic) -> PathBuf {
    nic.socket.clone().unwrap_or_else(|| PathBuf::from(format!("/run/guests/{}.sock", nic.name)))
}

/// Names, sockets and addresses that other NICs have.
#[derive(Default)]
struct Taken {
    names: BTreeSet<String>,
    sockets: BTreeSet<PathBuf>,
    macs: BTreeSet<String>,
}

impl Taken {
    fn place(&mut self, nic: &Nic, found: &mut Findings) {
        for (about, name) in [("name", Some(&nic.name)), ("bridge", nic.bridge.as_ref())] {
            let Some(name) = name else { continue };
            let is_allowed = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.');
            if name.is_empty() || name.len() > NAME_BYTES_MAX || !name.chars().all(is_allowed) {
                found.refuse(Rule::Port, about, format!("`{name}` cannot be one"), "choose another");
            }
        }
        let socket = socket(nic);
        let text = socket.to_string_lossy();
        if !socket.is_absolute()
            || socket.to_str().is_none()
            || socket.file_name().is_none()
            || text.len() > SOCKET_BYTES_MAX
            || text.ends_with('/')
            || !text.chars().all(is_xml)
        {
            let what = format!("`{text}` cannot be a socket's path");
            found.refuse(Rule::Port, &format!("{} socket", nic.name), what, "write one like /run/guests/vm1.sock");
        }
        if !self.names.insert(nic.name.clone()) {
            found.refuse(Rule::Port, "name", format!("two NICs are named {}", nic.name), "give each its own");
        } else if !self.sockets.insert(socket.clone()) {
            let what = format!("{text} is another NIC's as well");
            found.refuse(Rule::Port, &format!("{} socket", nic.name), what, "give each its own");
        }
        if let Some(mac) = nic.mac.as_ref().filter(|&mac| !self.macs.insert(mac.to_ascii_lowercase())) {
            found.refuse(
                Rule::Mac,
                &format!("{} mac", nic.name),
                format!("{mac} is another NIC's as well"),
                "give each its own",
            );
        }
    }
}

/// The address said, or one of QEMU's range that is always the same for this guest and NIC.
fn mac(guest: &str, nic: &Nic, found: &mut Findings) -> Option<String> {
    let Some(said) = &nic.mac else {
        // FNV-1a: any spread will do, as long as it is the same tomorrow.
        let bytes = guest.bytes().chain([0]).chain(nic.name.bytes());
        let hash =
            bytes.fold(0xcbf2_9ce4_8422_2325_u64, |hash, byte| (hash ^ u64::from(byte)).wrapping_mul(0x100_0000_01b3));
        let [.., a, b, c] = hash.to_be_bytes();
        return Some(format!("52:54:00:{a:02x}:{b:02x}:{c:02x}"));
    };
    let bytes: Vec<Option<u8>> =
        said.split(':').map(|byte| (byte.len() == 2).then(|| u8::from_str_radix(byte, 16).ok()).flatten()).collect();
    let good = bytes.len() == 6
        && bytes.iter().all(Option::is_some)
        && bytes[0].is_some_and(|first| first & 1 == 0)
        && bytes.iter().any(|&byte| byte != Some(0));
    if !good || said.contains('+') {
        let about = format!("{} mac", nic.name);
        found.refuse(Rule::Mac, &about, format!("`{said}` is no address of a NIC"), "write one like 52:54:00:12:34:56");
        return None;
    }
    Some(said.to_ascii_lowercase())
}
