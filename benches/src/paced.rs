//! The paced load, a C program: it sends at a given rate from one guest to another and tells how long frames took.

use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Context, Result};
use ringway_testbed::{Process, Spawn};
use serde::Serialize;

use crate::compile::Program;
use crate::load::{MEMORY_MIB, Nics};
use crate::machine::LOAD_CPU;

const SOURCE: &str = include_str!("../load/paced.c");
/// Frames that are sent at once: few, so that a frame's time is not that of the frames before it.
const BURST: u16 = 8;
/// From start to both guests being connected.
const READY: Duration = Duration::from_secs(60);
/// Beyond the measurement: until frames pass, at worst a minute, to warm up and to drain.
const MORE: Duration = Duration::from_secs(70);

/// What it is to send.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Pace {
    /// Million frames a second.
    pub(crate) mframes: f64,
    pub(crate) frame_len: u16,
    pub(crate) seconds: u64,
}

/// What it measured.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub(crate) struct Latency {
    /// Million frames a second that were asked for.
    pub(crate) asked_mframes: f64,
    /// Million frames a second that were sent: fewer if the load was kept from its CPU.
    pub(crate) sent_mframes: f64,
    /// Part of them that never arrived. In the percentiles each of these took a second.
    pub(crate) lost: f64,
    /// Windows of 20 ms in which the load kept its pace.
    pub(crate) windows: u32,
    /// Percentiles of these windows, of which the lower decile.
    pub(crate) p50_us: f64,
    pub(crate) p99_us: f64,
    /// Of all frames.
    pub(crate) p99_all_us: f64,
}

/// Two guests on one CPU, one that sends and one that receives.
pub(crate) struct Paced {
    process: Process,
    pace: Pace,
}

pub(crate) fn build() -> Result<Program> {
    Program::ours("paced", SOURCE)
}

impl Paced {
    /// Starts it. It may have to wait for the switch.
    pub(crate) fn start(program: &Program, sockets: &[PathBuf; 2], nics: Nics, pace: Pace) -> Result<Self> {
        let mut spawn = Spawn::new(program.path())
            .name("paced load")
            .cpu(LOAD_CPU)
            .arg(format!("--lcores=0@{LOAD_CPU}"))
            .args(["--no-pci", "--in-memory", "--single-file-segments", "--no-telemetry", "-m"])
            .arg(MEMORY_MIB.to_string());
        for (number, socket) in sockets.iter().enumerate() {
            spawn = spawn.arg("--vdev").arg(nics.nic(socket).vdev(number));
        }
        let Pace { mframes, frame_len, seconds } = pace;
        let words = [format!("{:.0}", mframes * 1e6), BURST.to_string(), frame_len.to_string(), seconds.to_string()];
        Ok(Self { process: spawn.arg("--").args(words).start()?, pace })
    }

    /// Waits until both NICs are connected. It begins by itself when frames pass.
    pub(crate) fn wait_ready(&self) -> Result<()> {
        self.process.wait_for_line("ready", READY).map(drop)
    }

    /// Waits until it has measured.
    pub(crate) fn latency(&self) -> Result<Latency> {
        let line = self.process.wait_for_line("sent ", Duration::from_secs(self.pace.seconds) + MORE)?;
        latency(&line, self.pace.mframes).with_context(|| format!("not understood: {line}"))
    }

    /// Its process, to see how much of its CPU it had.
    pub(crate) fn process(&mut self) -> &mut Process {
        &mut self.process
    }
}

fn latency(line: &str, asked_mframes: f64) -> Option<Latency> {
    let words: Vec<&str> = line.split(' ').collect();
    let of = |key| words[words.iter().position(|&word| word == key)? + 1..].first()?.parse::<f64>().ok();
    Some(Latency {
        asked_mframes,
        sent_mframes: of("sent")?,
        lost: of("lost")?,
        windows: of("windows")? as u32,
        p50_us: of("p50_us")?,
        p99_us: of("p99_us")?,
        p99_all_us: of("p99_all_us")?,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn its_line_is_read() {
        let expected = Latency {
            asked_mframes: 10.0,
            sent_mframes: 9.998,
            lost: 0.000_012,
            windows: 87,
            p50_us: 3.21,
            p99_us: 8.97,
            p99_all_us: 40.2,
        };
        assert_eq!(
            latency("sent 9.998 lost 0.000012 windows 87 p50_us 3.21 p99_us 8.97 p99_all_us 40.2", 10.0),
            Some(expected)
        );
        assert_eq!(latency("sent 9.998 lost 0.000012 p50_us", 10.0), None);
    }
}
