//! Floors: the project's own C program, and any other that takes the same arguments.

use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, Result};
use ringway_testbed::{Process, Spawn, wait_for};

use super::{Counted, MEMORY_MIB, Switch};
use crate::compile::Program;
use crate::machine::SWITCH_CPU;
use crate::stats::Summary;

const SOURCE: &str = include_str!("../../floor/lawful.c");
const LISTENING: Duration = Duration::from_secs(30);

pub(crate) fn build() -> Result<Program> {
    Program::ours("lawful", SOURCE)
}

struct Lawful {
    process: Process,
    begun: usize,
}

pub(super) fn start(floor: Option<&Program>, sockets: &[PathBuf; 2]) -> Result<impl Switch + use<>> {
    let process = Spawn::new(floor.context("the floor is not built")?.path())
        .cpu(SWITCH_CPU)
        .arg(format!("--lcores=0@{SWITCH_CPU}"))
        .args(["--no-pci", "--in-memory", "--no-telemetry", "-m"])
        .arg((MEMORY_MIB / 2).to_string())
        .arg("--")
        .args(sockets)
        .start()?;
    // The second socket is made after the first.
    let listens = |path: &Path| path.exists().then_some(());
    wait_for("sockets", LISTENING, || listens(&sockets[1])).map_err(|_| process.failure("does not listen"))?;
    Ok(Lawful { process, begun: 0 })
}

impl Switch for Lawful {
    fn process(&mut self) -> &mut Process {
        &mut self.process
    }

    fn begin(&mut self) -> Result<()> {
        self.begun = self.process.log_len();
        Ok(())
    }

    fn end(&mut self) -> Result<Counted> {
        let log = self.process.log_after(self.begun);
        counted(&log).with_context(|| self.process.failure("counted nothing").to_string())
    }
}

/// Of the seconds that it reported. The first one began before the measurement did, which the median does not mind. Another
/// floor may call its cycles `cyc/pkt` and its bursts something that ends with `burst`.
fn counted(log: &str) -> Option<Counted> {
    let of = |keys: &[&str]| {
        let value = |line: &str| {
            let words: Vec<&str> = line.split_whitespace().collect();
            let at = words.iter().position(|word| keys.iter().any(|key| word.ends_with(key)))?;
            words.get(at + 1)?.parse().ok()
        };
        let seconds = log.lines().filter(|line| line.starts_with("mframes ") || line.contains("cyc/pkt"));
        Summary::of(seconds.filter_map(value))
    };
    Some(Counted { cycles: of(&["busy_cycles", "cyc/pkt"])?.median, burst: Some(of(&["burst"])?.median) })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn seconds_are_read_and_other_lines_are_not() {
        let log = "VHOST_CONFIG: busy_cycles 1\nmframes 1.0 busy_cycles 90.0 burst 60.0\n\
            mframes 2.0 busy_cycles 80.0 burst 62.0\nmframes 2.0 busy_cycles 81.0 burst 64.0\n";
        let counted = counted(log).unwrap();
        assert_eq!((counted.cycles, counted.burst), (81.0, Some(62.0)));
        assert!(super::counted("mframes").is_none());
        let other = "q0 size 256\n18.50 Mpps  busy 96.1% cyc/pkt 88.5 avgburst 31.7\n";
        let counted = super::counted(other).unwrap();
        assert_eq!((counted.cycles, counted.burst), (88.5, Some(31.7)));
    }
}
