//! Flow steering: frames for a guest's station are to come in by an RX queue of the worker that has the guest's rings. A rule of the
//! NIC for each station, as far as it takes them; what has none comes as RSS, or the driver, spreads it, and is handed over.

use std::collections::BTreeMap;

/// Rules that a NIC is asked to hold at most.
const RULES_MAX: usize = 1024;

/// A station, as its frames look on the wire of a NIC, and who has its guest's rings.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Target {
    /// Its address.
    pub mac: [u8; 6],
    /// The VLAN of its frames' tag; `None` if they have none.
    pub tag: Option<u16>,
    /// Number of the worker.
    pub worker: u16,
}

/// Who holds rules.
pub(super) trait Rules {
    /// A rule that is held.
    type Rule;
    /// Has frames to `mac`, with a tag of VLAN `tag` if there is one, come in by RX queue `queue`.
    ///
    /// # Errors
    /// Why not.
    fn create(&mut self, mac: [u8; 6], tag: Option<u16>, queue: u16) -> Result<Self::Rule, String>;
    /// Gives a rule up.
    fn destroy(&mut self, rule: Self::Rule);
}

/// Whose frames a rule is for: address, and tag.
type Station = ([u8; 6], Option<u16>);

/// The rules of one NIC.
#[derive(Debug)]
pub(super) struct Steering<R: Rules> {
    rules: R,
    rx_queues: u16,
    workers: u16,
    held: BTreeMap<Station, (u16, R::Rule)>,
    /// Why the last one that was refused was.
    refused: Option<String>,
}

impl<R: Rules> Steering<R> {
    /// Of a NIC whose RX queue `n` belongs to worker `n` modulo `workers`.
    ///
    /// # Errors
    /// Why it takes no rules: one was tried.
    pub(super) fn new(mut rules: R, rx_queues: u16, workers: u16) -> Result<Self, String> {
        // A driver may find a rule valid that its kernel then does not take.
        let tried = rules.create([2, 0, 0, 0, 0, 0], None, rx_queues.saturating_sub(1))?;
        rules.destroy(tried);
        Ok(Self { rules, rx_queues, workers: workers.max(1), held: BTreeMap::new(), refused: None })
    }

    /// Has a rule for each of `targets`, and for no other station. One whose rings are with another worker now is led there; until it
    /// is, and if it is not, its frames are handed over.
    pub(super) fn follow(&mut self, targets: &[Target]) {
        let wanted: BTreeMap<_, _> = targets
            .iter()
            .filter_map(|target| Some(((target.mac, target.tag), self.queue_of(target)?)))
            .take(RULES_MAX)
            .collect();
        let Self { rules, held, .. } = self;
        let unwanted = held.extract_if(.., |of, (queue, _)| wanted.get(of) != Some(queue));
        unwanted.for_each(|(_, (_, rule))| rules.destroy(rule));
        self.refused = None;
        for ((mac, tag), queue) in wanted {
            if self.held.contains_key(&(mac, tag)) {
                continue;
            }
            match self.rules.create(mac, tag, queue) {
                Ok(rule) => drop(self.held.insert((mac, tag), (queue, rule))),
                Err(error) => {
                    self.refused = Some(error);
                    break; // most likely it is full: the others are tried when some station has gone
                }
            }
        }
    }

    /// An RX queue of the target's worker, one of several by the station; `None` if it has none.
    fn queue_of(&self, target: &Target) -> Option<u16> {
        let own = self.rx_queues.checked_sub(target.worker)?.div_ceil(self.workers);
        let [.., last] = target.mac;
        (own > 0).then(|| target.worker + u16::from(last) % own * self.workers)
    }

    /// Rules that are held, and why there are no more, if some were refused.
    pub(super) fn held(&self) -> (usize, Option<&str>) {
        (self.held.len(), self.refused.as_deref())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A NIC that holds so many rules, and is asked where a frame goes.
    #[derive(Default)]
    struct Table {
        max: usize,
        rules: Vec<([u8; 6], Option<u16>, u16)>,
        creations: usize,
    }

    impl Rules for Table {
        type Rule = ([u8; 6], Option<u16>, u16);

        fn create(&mut self, mac: [u8; 6], tag: Option<u16>, queue: u16) -> Result<Self::Rule, String> {
            self.creations += 1;
            if self.rules.len() >= self.max {
                return Err("no space".to_owned());
            }
            assert!(!self.rules.iter().any(|rule| (rule.0, rule.1) == (mac, tag)), "two rules for one station");
            self.rules.push((mac, tag, queue));
            Ok((mac, tag, queue))
        }

        fn destroy(&mut self, rule: Self::Rule) {
            let at = self.rules.iter().position(|other| *other == rule).unwrap();
            self.rules.remove(at);
        }
    }

    fn target(station: u8, tag: Option<u16>, worker: u16) -> Target {
        Target { mac: [2, 0, 0, 0, 0, station], tag, worker }
    }

    fn table(max: usize) -> Table {
        Table { max, ..Table::default() }
    }

    #[test]
    fn rules_follow_stations_to_their_workers() {
        let mut steering = Steering::new(table(100), 2, 2).unwrap();
        assert!(steering.rules.rules.is_empty(), "the one that was tried is gone");
        steering.follow(&[target(1, None, 0), target(2, Some(10), 1)]);
        assert_eq!(steering.rules.rules, [(target(1, None, 0).mac, None, 0), (target(2, None, 0).mac, Some(10), 1)]);
        let creations = steering.rules.creations;
        steering.follow(&[target(1, None, 0), target(2, Some(10), 1)]);
        assert_eq!(steering.rules.creations, creations, "what is so already is left alone");
        // Its rings move to another worker; the other one goes.
        steering.follow(&[target(2, Some(10), 0)]);
        assert_eq!(steering.rules.rules, [(target(2, None, 0).mac, Some(10), 0)]);
        steering.follow(&[]);
        assert!(steering.rules.rules.is_empty());
    }

    #[test]
    fn a_worker_without_a_queue_gets_none_and_one_with_several_all() {
        let mut steering = Steering::new(table(100), 5, 3).unwrap();
        steering.follow(&(0..60).map(|n| target(n, None, u16::from(n) % 3)).collect::<Vec<_>>());
        for queue in 0..5 {
            let rules = steering.rules.rules.iter().filter(|rule| rule.2 == queue);
            let stations: Vec<u8> = rules.map(|rule| rule.0[5]).collect();
            assert!(!stations.is_empty() && stations.iter().all(|n| u16::from(n % 3) == queue % 3), "{stations:?}");
        }
        let mut steering = Steering::new(table(100), 1, 3).unwrap();
        steering.follow(&[target(1, None, 2), target(2, None, 0)]);
        assert_eq!(steering.rules.rules, [(target(2, None, 0).mac, None, 0)]);
    }

    #[test]
    fn a_full_table_is_said_and_got_over() {
        assert_eq!(Steering::new(table(0), 2, 2).err(), Some("no space".to_owned()));
        let mut steering = Steering::new(table(2), 2, 2).unwrap();
        let three = [1, 2, 3].map(|n| target(n, None, 1));
        steering.follow(&three);
        assert_eq!(steering.held(), (2, Some("no space")));
        steering.follow(&three[1..]);
        assert_eq!(steering.held(), (2, None));
        let many: Vec<_> = (0..2000_u16)
            .map(|n| Target { mac: [2, 0, 0, 0, (n >> 8) as u8, n as u8], tag: None, worker: 0 })
            .collect();
        let mut steering = Steering::new(table(5000), 2, 2).unwrap();
        steering.follow(&many);
        assert_eq!(steering.held(), (RULES_MAX, None));
    }
}
