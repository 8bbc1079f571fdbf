//! The project's floor, a C program, built when it is first needed.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use ringway_testbed::{Process, Spawn, TempDir, scratch_dir, wait_for};

use super::{Counted, MEMORY_MIB, Switch};
use crate::machine::SWITCH_CPU;
use crate::stats::Summary;

const SOURCE: &str = include_str!("../../floor/lawful.c");
const LISTENING: Duration = Duration::from_secs(30);

/// The program, compiled for this very CPU.
pub(crate) struct Floor {
    dir: TempDir,
}

impl Floor {
    pub(crate) fn build() -> Result<Self> {
        let dir = scratch_dir()?;
        let source = dir.path().join("lawful.c");
        fs::write(&source, SOURCE)?;
        let dpdk = output(Command::new("pkg-config").args(["--cflags", "--libs", "libdpdk"]))?;
        let mut gcc = Command::new("gcc");
        gcc.args(["-O3", "-march=native", "-Wall", "-Wextra", "-Werror", "-o"]).arg(dir.path().join("lawful"));
        output(gcc.arg(&source).args(dpdk.split_whitespace()))?;
        Ok(Self { dir })
    }

    fn path(&self) -> PathBuf {
        self.dir.path().join("lawful")
    }
}

fn output(command: &mut Command) -> Result<String> {
    let program = command.get_program().to_string_lossy().into_owned();
    let out = command.output().with_context(|| format!("{program} cannot be started"))?;
    ensure!(out.status.success(), "{program}: {}", String::from_utf8_lossy(&out.stderr));
    Ok(String::from_utf8_lossy(&out.stdout).into_owned())
}

struct Lawful {
    process: Process,
    begun: usize,
}

pub(super) fn start(floor: Option<&Floor>, sockets: &[PathBuf; 2]) -> Result<impl Switch + use<>> {
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

/// Of the seconds that it reported. The first one began before the measurement did, which the median does not mind.
fn counted(log: &str) -> Option<Counted> {
    let of = |key: &'static str| {
        let seconds = log.lines().filter(|line| line.starts_with("mframes "));
        Summary::of(seconds.filter_map(move |line| line.split_once(key)?.1.split(' ').next()?.parse().ok()))
    };
    Some(Counted { cycles: of("busy_cycles ")?.median, burst: Some(of("burst ")?.median) })
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
    }
}
