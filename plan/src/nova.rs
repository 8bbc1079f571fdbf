//! What nova's own configuration says of a host with this switch.

use std::fmt::Write;

use crate::{Host, Node};

/// A physical network and the NUMA node of its NIC.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Physnet {
    /// Its name in Neutron.
    pub name: String,
    /// The node of the NIC that carries it; None when there is no NIC, or it is near to no node.
    pub node: Option<usize>,
}

/// A `provider.yaml` that gives a host the traits of its switch: what [`Host::features`] says, and no more.
pub fn provider_yaml(host: &Host) -> String {
    let mut yaml = format!(
        "# Traits of {}'s switch, Ringway {}, written by ringway plan --provider-yaml.\n\
         # Put it into nova-compute's provider_config_location (/etc/nova/provider_config/) and restart nova-compute.\n\
         # nova gives every libvirt host COMPUTE_NET_VIRTIO_PACKED, whatever its switch: packed_virtqueue_filter asks for that\n\
         # trait when flavor or image ask for packed rings, and so keeps nobody away from a switch without them. These traits\n\
         # do, with trait:CUSTOM_RINGWAY_RING_PACKED=required in the flavor.\n\
         meta:\n  schema_version: '1.0'\nproviders:\n  - identification:\n      uuid: '$COMPUTE_NODE'\n    traits:\n      additional:\n        - CUSTOM_RINGWAY\n",
        host.name, host.ringway
    );
    // What front and back end say to each other is no trait of a host's.
    let mut features: Vec<&String> = host.features.iter().filter(|&feature| feature != "protocol_features").collect();
    features.sort_unstable();
    for feature in features {
        let _ = writeln!(yaml, "        - CUSTOM_RINGWAY_{}", trait_part(feature));
    }
    let _ = writeln!(yaml, "        - CUSTOM_RINGWAY_QUEUE_PAIRS_{}", host.queue_pairs_max);
    yaml
}

/// What the pattern of a trait permits: `^[A-Z0-9_]{1,255}$`.
fn trait_part(text: &str) -> String {
    text.chars().map(|c| if c.is_ascii_alphanumeric() { c.to_ascii_uppercase() } else { '_' }).collect()
}

/// From as many CPUs on, without those of workers, a node leaves one to the host.
const NODE_CPUS_MIN: usize = 4;

/// Lines for nova.conf, from this host's topology and the CPUs that its switch keeps busy.
pub fn nova_conf(host: &Host, physnets: &[Physnet]) -> String {
    let mut conf = format!(
        "# For {}, written by ringway plan --nova-conf.\n[compute]\n# CPUs of Ringway's workers ({}) are nobody else's.\n",
        host.name,
        ranges(&host.worker_cpus)
    );
    let left = |node: &Node| -> Vec<usize> {
        let left: Vec<usize> = node.cpus.iter().copied().filter(|cpu| !host.worker_cpus.contains(cpu)).collect();
        left[usize::from(left.len() >= NODE_CPUS_MIN)..].to_vec()
    };
    let of_guests: Vec<usize> = host.nodes.iter().flat_map(left).collect();
    if of_guests.is_empty() {
        conf.push_str("# Nothing is left for guests: give Ringway fewer workers.\n");
    } else {
        // Both sets at once would have to be apart; the dedicated one alone stops nova-compute where a guest is not pinned.
        let cpus = ranges(&of_guests);
        let _ = writeln!(
            conf,
            "# The first other CPU of each node, where there are {NODE_CPUS_MIN} or more, is the host's own.\n\
             cpu_shared_set = {cpus}\n\
             # For flavors with hw:cpu_policy=dedicated, move CPUs from there to\n# cpu_dedicated_set = "
        );
    }
    let pairs = host.queue_pairs_max;
    let _ = write!(
        conf,
        "\n[libvirt]\n# A guest with more queue pairs than the switch has never starts.\nmax_queues = {pairs}\n\
         # QEMU's 256 are few for bursts.\nrx_queue_size = 1024\ntx_queue_size = 1024\n"
    );
    // Guests should be where the switch is that copies for them.
    let of_workers: Vec<usize> = host
        .nodes
        .iter()
        .filter(|node| node.cpus.iter().any(|cpu| host.worker_cpus.contains(cpu)))
        .map(|node| node.id)
        .collect();
    let nodes = |node: Option<usize>| node.map_or_else(|| of_workers.clone(), |node| vec![node]);
    let comma = |nodes: Vec<usize>| nodes.iter().map(ToString::to_string).collect::<Vec<_>>().join(", ");
    if !physnets.is_empty() {
        let names: Vec<&str> = physnets.iter().map(|net| net.name.as_str()).collect();
        let _ = writeln!(conf, "\n[neutron]\nphysnets = {}", names.join(","));
        for net in physnets {
            let _ = writeln!(conf, "\n[neutron_physnet_{}]\nnuma_nodes = {}", net.name, comma(nodes(net.node)));
        }
    }
    let _ = write!(
        conf,
        "\n[neutron_tunnel]\nnuma_nodes = {}\n# Only guests with a NUMA topology (hw:numa_nodes, huge pages, dedicated CPUs) are placed by it.\n",
        comma(of_workers.clone())
    );
    conf
}

/// `0-3,6`
fn ranges(cpus: &[usize]) -> String {
    let mut cpus = cpus.to_vec();
    cpus.sort_unstable();
    cpus.dedup();
    let mut parts: Vec<(usize, usize)> = Vec::new();
    for cpu in cpus {
        match parts.last_mut() {
            Some((_, last)) if *last + 1 == cpu => *last = cpu,
            _ => parts.push((cpu, cpu)),
        }
    }
    let part =
        |(first, last): (usize, usize)| if first == last { first.to_string() } else { format!("{first}-{last}") };
    parts.into_iter().map(part).collect::<Vec<_>>().join(",")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn traits_are_what_the_switch_offers() {
        let yaml = provider_yaml(&Host::default());
        let traits: Vec<&str> = yaml.lines().filter_map(|line| line.strip_prefix("        - ")).collect();
        assert!(traits.contains(&"CUSTOM_RINGWAY_RING_PACKED") && traits.contains(&"CUSTOM_RINGWAY_QUEUE_PAIRS_128"));
        let allowed = |c: char| c.is_ascii_uppercase() || c.is_ascii_digit() || c == '_';
        for name in &traits {
            assert!(name.starts_with("CUSTOM_") && name.len() < 256 && name.chars().all(allowed), "{name}");
        }
        let without = Host { features: vec!["mq".to_owned()], ..Host::default() };
        assert!(!provider_yaml(&without).contains("- CUSTOM_RINGWAY_RING_PACKED"));
    }

    #[test]
    fn guests_get_the_cpus_that_are_left_and_the_nodes_of_the_workers() {
        let nodes = vec![Node { id: 0, cpus: (0..4).collect() }, Node { id: 1, cpus: (4..8).collect() }];
        let host = Host { nodes, worker_cpus: vec![4], ..Host::default() };
        let physnets = [("a", None), ("b", Some(0))].map(|(name, node)| Physnet { name: name.to_owned(), node });
        let conf = nova_conf(&host, &physnets);
        for line in [
            "\ncpu_shared_set = 1-3,5-7\n",
            "max_queues = 128",
            "physnets = a,b",
            "[neutron_physnet_a]\nnuma_nodes = 1",
            "[neutron_physnet_b]\nnuma_nodes = 0",
            "[neutron_tunnel]\nnuma_nodes = 1",
        ] {
            assert!(conf.contains(line), "no {line} in\n{conf}");
        }
    }
}
