//! Whether another host keeps what a guest has here.

use crate::rules::{Refusal, Rule};
use crate::{GuestNic, Host, Plan};

impl Plan {
    /// What moving this guest to `there` would lose; empty if nothing.
    fn losses(&self, there: &Host) -> Vec<Refusal> {
        self.nics.iter().flat_map(|nic| lost(nic, there)).collect()
    }
}

/// Judges a move of the guest to another host.
///
/// # Errors
/// Each feature, queue pair or byte of MTU that the other host does not keep, a line for each NIC and kind.
pub fn migrate(plan: &Plan, there: &Host) -> Result<(), Vec<Refusal>> {
    let losses = plan.losses(there);
    if losses.is_empty() { Ok(()) } else { Err(losses) }
}

fn lost(nic: &GuestNic, there: &Host) -> Vec<Refusal> {
    let mut losses = Vec::new();
    let mut refuse = |what: String, mend: String| losses.push(Refusal::new(Rule::Migration, &nic.name, what, mend));
    let host = &there.name;
    // A port of that name is already configured there, and its own word holds.
    let port = there.ports.iter().find(|port| port.name == nic.name);
    let offered = port.map_or(&there.features, |port| &port.features);
    // Packed rings that QEMU does not permit cannot have been negotiated.
    let kept = nic.features.iter().filter(|&feature| nic.packed || feature != "ring_packed");
    let missing: Vec<&str> = kept.filter(|feature| !offered.contains(feature)).map(String::as_str).collect();
    if !missing.is_empty() {
        let mend = match port {
            Some(_) => "take them from mask_features there, or mask them here too and start the guest anew",
            None => "upgrade Ringway there, or mask them here (mask_features) and start the guest anew",
        };
        refuse(format!("{host} does not offer {}", missing.join(", ")), mend.to_owned());
    }
    if nic.queue_pairs > there.queue_pairs_max {
        let what = format!("{host} offers {} queue pairs and the guest has {}", there.queue_pairs_max, nic.queue_pairs);
        let mend = match there.queue_pairs_max {
            0 => "upgrade Ringway there".to_owned(),
            most => format!("plan it with queues = {most} and start it anew"),
        };
        refuse(what, mend);
    }
    let mtu = u32::from(nic.mtu.unwrap_or(1500));
    let (carries, where_) = match port {
        Some(port) => (port.mtu, format!("port {} of {host}", nic.name)),
        None => (there.mtu_max, host.clone()),
    };
    if mtu > carries {
        let what = format!("{where_} carries {carries} bytes and the guest's MTU is {mtu}");
        refuse(what, format!("set mtu = {mtu} there, or plan the guest with mtu = {carries}"));
    }
    losses
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Input, SwitchPort, plan};

    fn planned(toml: &str) -> Plan {
        let input = Input::from_toml(toml, "t".as_ref()).unwrap();
        plan(&input, &Host::default()).unwrap()
    }

    fn losses(plan: &Plan, there: &Host) -> Vec<String> {
        migrate(plan, there).err().into_iter().flatten().map(|loss| loss.to_string()).collect()
    }

    const GUEST: &str = "[guest]\nvcpus = 8\nmemory_mib = 64\n[[nic]]\nname = \"n\"\nqueues = 8\nmtu = 4000\n";

    #[test]
    fn a_host_like_this_one_keeps_everything() {
        assert_eq!(losses(&planned(GUEST), &Host::default()), Vec::<String>::new());
    }

    #[test]
    fn a_host_that_cannot_is_told_why() {
        let mut there = Host { name: "c2".to_owned(), queue_pairs_max: 4, mtu_max: 1500, ..Host::default() };
        there.features.retain(|feature| feature != "ring_packed" && feature != "mq");
        let lost = losses(&planned(GUEST), &there);
        assert_eq!(lost.len(), 3, "{lost:?}");
        assert!(lost[0].contains("n: c2 does not offer mq, ring_packed; QEMU"), "{}", lost[0]);
        assert!(lost[1].contains("4 queue pairs and the guest has 8"), "{}", lost[1]);
        assert!(lost[2].contains("1500 bytes and the guest's MTU is 4000"), "{}", lost[2]);
        assert!(lost.iter().all(|line| line.lines().count() == 1));
    }

    #[test]
    fn what_the_guest_does_not_have_need_not_be_kept() {
        let mut there = Host::default();
        there.features.retain(|feature| feature != "ring_packed" && feature != "event_idx");
        let split = "[guest]\nvcpus = 1\nmemory_mib = 64\n[flavor]\nproperties = \"hw:virtio_packed_ring='false', hw:mem_page_size='2MB'\"\n";
        let masked = planned(&format!("{split}[[nic]]\nname = \"n\"\nmask_features = [\"event_idx\"]\n"));
        assert_eq!(losses(&masked, &there), Vec::<String>::new());
        assert_eq!(losses(&planned(&format!("{split}[[nic]]\nname = \"n\"\n")), &there).len(), 1);
    }

    /// What the switch withholds because of two masks together is not missed either.
    #[test]
    fn an_identical_host_keeps_everything_whatever_is_masked() {
        let words: Vec<String> = Host::default().masks.keys().cloned().collect();
        for first in &words {
            for second in &words {
                let masks = if first == second { format!("\"{first}\"") } else { format!("\"{first}\", \"{second}\"") };
                let text =
                    format!("[guest]\nvcpus = 2\nmemory_mib = 64\n[[nic]]\nname = \"n\"\nmask_features = [{masks}]\n");
                let plan = planned(&text);
                let features = Host::default().features_without(&[first.clone(), second.clone()]);
                let port = SwitchPort { name: "n".to_owned(), features, mtu: 1500 };
                assert_eq!(
                    losses(&plan, &Host { ports: vec![port], ..Host::default() }),
                    Vec::<String>::new(),
                    "{masks}"
                );
            }
        }
    }

    #[test]
    fn a_port_that_is_there_has_the_last_word() {
        let features = Host::default().features;
        let port = |mtu| SwitchPort { name: "n".to_owned(), features: features.clone(), mtu };
        let there = Host { ports: vec![port(1500)], ..Host::default() };
        assert!(losses(&planned(GUEST), &there)[0].contains("port n of"));
        assert_eq!(losses(&planned(GUEST), &Host { ports: vec![port(4000)], ..there }), Vec::<String>::new());
    }
}
