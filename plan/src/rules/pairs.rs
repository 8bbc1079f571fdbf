//! How many queue pairs a NIC gets, and why.

use super::multiqueue::Enabled;
use super::{Findings, Rule};
use crate::input::Nic;

/// The most that any kind of interface has: a tap device's.
const XML_PAIRS_MAX: i64 = 256;

/// What there is for each NIC of a guest.
pub(crate) struct Offer<'a> {
    pub(crate) vcpus: u32,
    pub(crate) enabled: Enabled,
    /// The most that nova.conf, the kernel or the guest permits, with the name of what does.
    pub(crate) cap: Option<&'a (u32, String)>,
    /// The most that the switch has.
    pub(crate) most: u32,
    pub(crate) is_novas: bool,
}

/// Queue pairs, and where the number comes from.
type Pairs = (u32, String);

impl Offer<'_> {
    /// The queue pairs of one NIC; None, and a refusal, when they cannot be.
    pub(crate) fn pairs(&self, nic: &Nic, found: &mut Findings) -> Option<Pairs> {
        let wanted = self.wanted(nic, found)?;
        let own = wanted.is_some();
        let (pairs, from) = self.capped(wanted.unwrap_or_else(|| self.by_nova()));
        if own && self.is_novas {
            let novas = self.capped(self.by_nova()).0;
            if pairs != novas {
                let text =
                    format!("nova has no count for a NIC and would give it {novas}: this plan is for libvirt by hand");
                found.warn(&nic.name, text);
            }
        }
        if pairs > self.most {
            let what =
                format!("{pairs} queue pairs ({from}) for {}: QEMU would wait for the switch for ever", nic.name);
            let mend = format!("set [libvirt] max_queues = {0} in nova.conf, or queues = {0}", self.most);
            found.refuse(Rule::VhostUserQueues, "queues", what, mend);
            return None;
        }
        Some((pairs, from))
    }

    /// What nova gives every NIC, before the cap.
    fn by_nova(&self) -> Pairs {
        let vcpus = self.vcpus;
        if self.enabled.on { (vcpus, format!("multiqueue: {vcpus} vCPUs")) } else { (1, "no multiqueue".to_owned()) }
    }

    fn capped(&self, (pairs, from): Pairs) -> Pairs {
        match self.cap {
            Some((most, limit)) if pairs > *most => (*most, format!("{from}, capped by {limit}")),
            _ => (pairs, from),
        }
    }

    /// What the NIC itself says, if it says anything; outer None, and a refusal, when that cannot be.
    fn wanted(&self, nic: &Nic, found: &mut Findings) -> Option<Option<Pairs>> {
        let wanted = match (nic.queues, nic.throughput.as_deref()) {
            (None, None) => return Some(None),
            (Some(_), Some(_)) => {
                let what = "queues and throughput are both said";
                found.refuse(Rule::QueuesPerNic, &nic.name, what, "leave one of them out");
                return None;
            }
            (Some(queues), None) => self.number(&nic.name, queues, found)?,
            (None, Some(word)) => self.share(&nic.name, word, found)?,
        };
        if wanted.0 > 1 && self.enabled.said == Some(false) {
            let what = format!("{}, and multiqueue is switched off", wanted.1);
            let mend =
                format!("set hw:vif_multiqueue_enabled=true, or leave queues and throughput of {} out", nic.name);
            found.refuse(Rule::Multiqueue, "hw:vif_multiqueue_enabled", what, mend);
            return None;
        }
        Some(Some(wanted))
    }

    /// `queues = N`: not capped in silence, since somebody has said it.
    fn number(&self, name: &str, queues: i64, found: &mut Findings) -> Option<Pairs> {
        let about = format!("{name} queues");
        let queues = found.within(Rule::XmlQueues, &about, queues, (1, XML_PAIRS_MAX))?;
        if queues > 1 && self.vcpus < 2 {
            let what = format!("{queues} queue pairs for {} vCPU", self.vcpus);
            found.refuse(Rule::Multiqueue, &about, what, "write 1, or give the guest 2 vCPUs");
            return None;
        }
        if let Some((most, limit)) = self.cap.filter(|&&(most, _)| queues > most) {
            let what = format!("{queues} queue pairs, and {limit} permits {most}");
            let rule = if limit == "queues_max" { Rule::Twice } else { Rule::MaxQueues };
            found.refuse(rule, &about, what, format!("write {most}, or raise {limit}"));
            return None;
        }
        Some((queues, format!("queues = {queues}")))
    }

    /// `throughput`: a share of the vCPUs, as the blueprint of multiqueue has it.
    fn share(&self, name: &str, word: &str, found: &mut Findings) -> Option<Pairs> {
        let share = match word {
            "high" => self.vcpus,
            "medium" => (self.vcpus / 2).max(1),
            "low" => 1,
            other => {
                let what = format!("`{other}` is no throughput");
                found.refuse(Rule::QueuesPerNic, &format!("{name} throughput"), what, "write high, medium or low");
                return None;
            }
        };
        Some((share, format!("throughput = {word} of {} vCPUs", self.vcpus)))
    }
}
