//! What a bench needs of the machine, and what it says about it.

use std::fs;

use anyhow::{Context, Result, ensure};
use rustix::thread::{CpuSet, sched_setaffinity};
use serde::Serialize;

/// What runs the switch.
pub(crate) const SWITCH_CPU: usize = 0;
/// What runs everything else.
pub(crate) const LOAD_CPU: usize = 1;

/// What a figure was measured on.
#[derive(Debug, Clone, Serialize)]
pub(crate) struct Machine {
    pub(crate) cpu: String,
    pub(crate) kernel: String,
    /// The rate of the time stamp counter, which is what a "cycle" is.
    pub(crate) tsc_hz: f64,
    /// Runnable tasks over the last minute: what others did before we began.
    pub(crate) load_before: f64,
}

impl Machine {
    /// Looks at the machine, and takes this process off the switch's CPU.
    pub(crate) fn prepare() -> Result<Self> {
        ensure!(rustix::process::geteuid().is_root(), "needs root, for huge pages");
        let mut set = CpuSet::new();
        set.set(LOAD_CPU);
        sched_setaffinity(None, &set).context("needs two CPUs, 0 and 1")?;

        let cpus = fs::read_to_string("/proc/cpuinfo")?;
        let bogomips: f64 = field(&cpus, "bogomips").context("no bogomips in /proc/cpuinfo")?.parse()?;
        Ok(Self {
            cpu: field(&cpus, "model name").unwrap_or("unknown CPU").to_owned(),
            kernel: fs::read_to_string("/proc/sys/kernel/osrelease")?.trim().to_owned(),
            // The kernel derives bogomips, two a cycle, from the rate that it has measured.
            tsc_hz: bogomips / 2.0 * 1e6,
            load_before: fs::read_to_string("/proc/loadavg")?.split(' ').next().unwrap_or_default().parse()?,
        })
    }

    /// A line for people.
    pub(crate) fn describe(&self) -> String {
        let Self { cpu, kernel, tsc_hz, load_before } = self;
        format!("{cpu}, Linux {kernel}, {:.0} MHz, load before {load_before:.2}", tsc_hz / 1e6)
    }
}

fn field<'a>(text: &'a str, key: &str) -> Option<&'a str> {
    let line = text.lines().find(|line| line.starts_with(key))?;
    Some(line.split_once(':')?.1.trim())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fields_of_cpuinfo_are_found() {
        let text = "processor\t: 0\nmodel name\t: Some CPU @ 2: fast\nbogomips\t: 5192.28\n";
        assert_eq!(field(text, "model name"), Some("Some CPU @ 2: fast"));
        assert_eq!(field(text, "bogomips"), Some("5192.28"));
        assert_eq!(field(text, "flags"), None);
    }
}
