//! Which CPUs workers run on: by default one for each NUMA node, and never more workers than CPUs.

use super::topology::{CpuSet, NodeId, Topology};

/// What an operator asked for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Wanted {
    /// These, in this order.
    Cpus(Vec<usize>),
    /// So many on each NUMA node that has CPUs.
    PerNode(usize),
    /// One on each NUMA node at first, and more where they are congested, up to so many in all; see [`super::Scaler`].
    Auto {
        /// The most there may be in all.
        max: usize,
    },
}

/// Why there are no CPUs for workers.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum NoCpus {
    /// Those that the process may use are all reserved.
    #[error("every CPU that this process may use ({allowed}) is reserved; take one out of `reserved_cpus`")]
    Reserved {
        /// Those that it may use.
        allowed: String,
    },
    /// There is no such CPU for us.
    #[error("no worker can run on CPU {cpu}; CPUs that this process may use: {allowed}")]
    NotAllowed {
        /// The one asked for.
        cpu: usize,
        /// Those that would do.
        allowed: String,
    },
}

/// The CPUs that workers may have: allowed to this process, online, and not reserved.
#[derive(Clone, Debug)]
pub struct Usable<'t> {
    topology: &'t Topology,
    cpus: CpuSet,
    allowed: CpuSet,
}

impl<'t> Usable<'t> {
    /// Of `allowed`, what the process may run on, those that are left.
    #[must_use]
    pub fn new(topology: &'t Topology, allowed: &[usize], reserved: &CpuSet) -> Self {
        let allowed: CpuSet = allowed.iter().copied().collect();
        let is_usable = |cpu: &&usize| topology.is_online(**cpu) && !reserved.contains(cpu);
        Self { topology, cpus: allowed.iter().filter(is_usable).copied().collect(), allowed }
    }

    /// The CPUs to start workers on, of which none is twice. `pinned` are those that ports are pinned to: there is a worker on
    /// each, whatever the number.
    ///
    /// # Errors
    /// When there is none, or one that was named is not usable.
    pub fn choose(&self, wanted: &Wanted, pinned: &CpuSet) -> Result<Vec<usize>, NoCpus> {
        let named = match wanted {
            Wanted::Cpus(cpus) => cpus.clone(),
            Wanted::PerNode(_) | Wanted::Auto { .. } => pinned.iter().copied().collect(),
        };
        if let Some(&cpu) = named.iter().find(|cpu| !self.cpus.contains(cpu)) {
            return Err(NoCpus::NotAllowed { cpu, allowed: list(&self.cpus) });
        }
        let per_node = match wanted {
            Wanted::Cpus(_) => 0,
            Wanted::PerNode(count) => *count,
            Wanted::Auto { .. } => 1,
        };
        let mut chosen = named;
        for node in self.topology.nodes.iter().map(|node| node.id) {
            let of_node = |cpus: &[usize]| cpus.iter().filter(|&&cpu| self.topology.node_of(cpu) == Some(node)).count();
            while of_node(&chosen) < per_node
                && let Some(cpu) = self.next(node, &chosen, &CpuSet::new())
            {
                chosen.push(cpu);
            }
        }
        if chosen.is_empty() {
            return Err(NoCpus::Reserved { allowed: list(&self.allowed) });
        }
        if !matches!(wanted, Wanted::Cpus(_)) {
            chosen.sort_unstable();
        }
        Ok(chosen)
    }

    /// One CPU more for a worker on a node: on a core without a worker if there is one, and off `vcpus`, to which guests'
    /// threads are confined, if possible.
    #[must_use]
    pub fn next(&self, node: NodeId, taken: &[usize], vcpus: &CpuSet) -> Option<usize> {
        let free = self.topology.online_of(node).filter(|cpu| self.cpus.contains(&cpu.id) && !taken.contains(&cpu.id));
        let shares_core = |siblings: &CpuSet| taken.iter().any(|cpu| siblings.contains(cpu));
        free.min_by_key(|cpu| (vcpus.contains(&cpu.id), shares_core(&cpu.siblings), cpu.id)).map(|cpu| cpu.id)
    }

    /// How many there are.
    #[must_use]
    pub fn count(&self) -> usize {
        self.cpus.len()
    }
}

fn list(cpus: &CpuSet) -> String {
    let cpus: Vec<String> = cpus.iter().map(usize::to_string).collect();
    if cpus.is_empty() { "none".to_owned() } else { cpus.join(" ") }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn all(machine: &Topology) -> Vec<usize> {
        machine.cpus.iter().map(|cpu| cpu.id).collect()
    }

    fn choose(
        machine: &Topology,
        allowed: &[usize],
        reserved: &[usize],
        wanted: &Wanted,
    ) -> Result<Vec<usize>, NoCpus> {
        let reserved = reserved.iter().copied().collect();
        Usable::new(machine, allowed, &reserved).choose(wanted, &CpuSet::new())
    }

    #[test]
    fn one_for_each_node_of_those_that_are_left() {
        let machine = Topology::even(2, 4, 2);
        let all = all(&machine);
        let one = Wanted::PerNode(1);
        assert_eq!(choose(&machine, &all, &[], &one), Ok(vec![0, 4]));
        assert_eq!(choose(&machine, &all, &[0, 4, 5], &one), Ok(vec![1, 6]));
        assert_eq!(choose(&machine, &[2, 3], &[], &one), Ok(vec![2]));
        assert_eq!(choose(&machine, &all, &[0, 8], &Wanted::Auto { max: 9 }), Ok(vec![1, 4]));
        let none = choose(&machine, &[2, 3], &[2, 3], &one).unwrap_err();
        assert_eq!(
            none.to_string(),
            "every CPU that this process may use (2 3) is reserved; take one out of `reserved_cpus`"
        );
    }

    #[test]
    fn cores_before_their_siblings_and_never_more_than_there_are() {
        let machine = Topology::even(2, 2, 2);
        let all = all(&machine);
        assert_eq!(choose(&machine, &all, &[], &Wanted::PerNode(2)), Ok(vec![0, 1, 2, 3]));
        assert_eq!(choose(&machine, &all, &[], &Wanted::PerNode(3)), Ok(vec![0, 1, 2, 3, 4, 6]));
        assert_eq!(choose(&machine, &all, &[], &Wanted::PerNode(99)).unwrap().len(), 8);
        assert_eq!(choose(&machine, &all, &[0], &Wanted::PerNode(2)), Ok(vec![1, 2, 3, 4]));
    }

    #[test]
    fn what_was_named_is_taken_or_refused() {
        let mut machine = Topology::even(1, 4, 1);
        let listed = Wanted::Cpus(vec![3, 1]);
        assert_eq!(choose(&machine, &[0, 1, 3], &[], &listed), Ok(vec![3, 1]));
        let refused = |result: Result<Vec<usize>, NoCpus>| result.unwrap_err().to_string();
        let not = "no worker can run on CPU 1; CPUs that this process may use: 0 3";
        assert_eq!(refused(choose(&machine, &[0, 3], &[], &listed)), not);
        machine.cpus[1].online = false;
        assert_eq!(refused(choose(&machine, &[0, 1, 3], &[], &listed)), not);
    }

    #[test]
    fn a_port_that_is_pinned_finds_a_worker() {
        let machine = Topology::even(2, 4, 1);
        let all = all(&machine);
        let usable = Usable::new(&machine, &all, &CpuSet::from([0]));
        let pinned = |cpus: &[usize], wanted| usable.choose(&wanted, &cpus.iter().copied().collect());
        assert_eq!(pinned(&[3], Wanted::PerNode(1)), Ok(vec![3, 4]));
        assert_eq!(pinned(&[2, 3], Wanted::PerNode(1)), Ok(vec![2, 3, 4]));
        assert!(matches!(pinned(&[0], Wanted::PerNode(1)), Err(NoCpus::NotAllowed { cpu: 0, .. })));
    }

    #[test]
    fn one_more_is_off_the_guests_cpus() {
        let machine = Topology::even(1, 4, 2);
        let all = all(&machine);
        let none = CpuSet::new();
        let usable = Usable::new(&machine, &all, &none);
        assert_eq!(usable.next(0, &[0], &none), Some(1));
        assert_eq!(usable.next(0, &[0], &CpuSet::from([1, 2, 5, 6])), Some(3));
        assert_eq!(usable.next(0, &[0], &(1..4).chain(5..8).collect()), Some(4));
        assert_eq!(usable.next(0, &all, &none), None);
        assert_eq!(usable.next(1, &[], &none), None);
    }
}
