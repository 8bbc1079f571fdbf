//! Where a QEMU's vCPU threads may run, from its process.

use std::fs;
use std::path::Path;

use super::super::topology::{CpuSet, Topology};
use crate::worker::parse_cpu_list;

/// Threads of one process that are looked at; a QEMU has one for each vCPU and a few more.
const THREADS_MAX: usize = 4096;

/// The CPUs that vCPU threads of process `pid` are confined to.
///
/// With `-name debug-threads=on`, which libvirt always says, they are called `CPU 0/KVM`. A QEMU without it calls all of its threads
/// by its own name: then all of them count, the main loop's, too. Of another front end nothing is known.
pub(super) fn vcpus(proc: &Path, pid: i32, machine: &Topology) -> CpuSet {
    if pid <= 0 {
        return CpuSet::new(); // of another PID namespace
    }
    let tasks = fs::read_dir(proc.join(pid.to_string()).join("task")).into_iter().flatten().flatten();
    let (mut named, mut unnamed, mut has_names) = (CpuSet::new(), CpuSet::new(), false);
    for task in tasks.take(THREADS_MAX) {
        // A thread may end while we look.
        let Ok(status) = fs::read_to_string(task.path().join("status")) else { continue };
        let (Some(name), Some(allowed)) = (field(&status, "Name"), field(&status, "Cpus_allowed_list")) else {
            continue;
        };
        let confined = machine.confined(&parse_cpu_list(allowed).into_iter().collect());
        if is_vcpu(name) {
            has_names = true;
            named.extend(confined);
        } else if name.starts_with("qemu") || name == "kvm" {
            unnamed.extend(confined);
        }
    }
    if has_names { named } else { unnamed }
}

/// `CPU 12/KVM`, `CPU 0/TCG`, or `ALL CPUs/TCG`, where one thread runs them all.
fn is_vcpu(name: &str) -> bool {
    let number = name.strip_prefix("CPU ").and_then(|rest| rest.split_once('/')).map(|(number, _)| number);
    number.is_some_and(|number| number.parse::<u32>().is_ok()) || name.starts_with("ALL CPUs/")
}

fn field<'t>(status: &'t str, key: &str) -> Option<&'t str> {
    status.lines().find_map(|line| line.strip_prefix(key)?.strip_prefix(':')).map(str::trim)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A process of these threads: name, and CPUs allowed.
    fn process(threads: &[(&str, &str)]) -> tempfile::TempDir {
        let root = tempfile::tempdir().unwrap();
        for (number, (name, cpus)) in (100..).zip(threads) {
            let at = root.path().join(format!("100/task/{number}"));
            fs::create_dir_all(&at).unwrap();
            let status = format!(
                "Name:\t{name}\nUmask:\t0022\nState:\tS (sleeping)\nCpus_allowed:\tff\nCpus_allowed_list:\t{cpus}\nMems_allowed_list:\t0\n"
            );
            fs::write(at.join("status"), status).unwrap();
        }
        root
    }

    fn found(machine: &Topology, threads: &[(&str, &str)]) -> Vec<usize> {
        vcpus(process(threads).path(), 100, machine).into_iter().collect()
    }

    #[test]
    fn threads_that_libvirt_pinned() {
        let machine = Topology::even(2, 4, 1);
        let pinned = [("qemu-system-x86", "0-1"), ("IO mon_iothread", "0"), ("CPU 0/KVM", "2"), ("CPU 1/KVM", "6")];
        assert_eq!(found(&machine, &pinned), [2, 6]);
        assert_eq!(found(&machine, &[("qemu-system-x86", "0"), ("ALL CPUs/TCG", "3")]), [3]);
        // The scheduler chooses, on a node or on all of them.
        assert_eq!(found(&machine, &[("CPU 0/TCG", "0-3"), ("CPU 1/TCG", "0-127")]), [] as [usize; 0]);
        // A part of a node is something to keep out of.
        assert_eq!(found(&machine, &[("CPU 0/KVM", "1-3")]), [1, 2, 3]);
    }

    #[test]
    fn threads_without_names_and_front_ends_that_are_no_qemu() {
        let machine = Topology::even(1, 4, 1);
        assert_eq!(found(&machine, &[("qemu-system-x86", "2"), ("qemu-system-x86", "3"), ("worker", "1")]), [2, 3]);
        assert_eq!(found(&machine, &[("dpdk-testpmd", "1"), ("rte-worker-1", "1")]), [] as [usize; 0]);
        assert_eq!(found(&machine, &[("CPU x/KVM", "1"), ("CPUs", "1")]), [] as [usize; 0]);
        assert_eq!(vcpus(Path::new("/proc"), 0, &machine), CpuSet::new());
        assert_eq!(vcpus(Path::new("/nonexistent"), 7, &machine), CpuSet::new());
    }

    /// A thread of this machine's kernel, named and pinned as QEMU and libvirt would.
    #[test]
    fn a_real_thread() {
        let allowed = crate::worker::Worker::allowed_cpus();
        let machine = super::super::Host::default().topology(&allowed);
        let (Some(&first), true) = (allowed.first(), machine.online_of(machine.cpus[0].node).count() > 1) else {
            return;
        };
        let (looked, wait) = std::sync::mpsc::channel::<()>();
        let (ready, is_ready) = std::sync::mpsc::channel();
        let thread = std::thread::Builder::new().name("CPU 0/KVM".to_owned()).spawn(move || {
            core_affinity::set_for_current(core_affinity::CoreId { id: first });
            ready.send(()).unwrap();
            let _ = wait.recv();
        });
        is_ready.recv().unwrap();
        let pid = std::process::id() as i32;
        assert_eq!(vcpus(Path::new("/proc"), pid, &machine), CpuSet::from([first]));
        drop(looked);
        thread.unwrap().join().unwrap();
    }
}
