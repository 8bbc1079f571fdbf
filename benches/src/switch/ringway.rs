//! Ringway, measured by its own metrics page.

use std::path::PathBuf;

use anyhow::{Result, ensure};
use ringway_testbed::{Metrics, Process, Ringway};

use super::{Counted, Switch};
use crate::machine::SWITCH_CPU;

struct Measured {
    ringway: Ringway,
    tsc_hz: f64,
    begun: Option<Totals>,
}

/// Since it started.
#[derive(Clone, Copy)]
struct Totals {
    busy_seconds: f64,
    busy_iterations: f64,
    frames: f64,
}

pub(super) fn start(sockets: &[PathBuf; 2], tsc_hz: f64) -> Result<impl Switch + use<>> {
    let ringway = Ringway::builder()
        .cpu(SWITCH_CPU)
        .bridge("br0")
        .port("vm1", "br0", &sockets[0])
        .port("vm2", "br0", &sockets[1])
        .start()?;
    Ok(Measured { ringway, tsc_hz, begun: None })
}

impl Switch for Measured {
    fn guests_are_ready(&mut self) -> Result<()> {
        self.ringway.wait_state(&["vm1", "vm2"], "running")
    }

    fn process(&mut self) -> &mut Process {
        self.ringway.process()
    }

    fn begin(&mut self) -> Result<()> {
        self.begun = Some(Totals::of(&self.ringway.metrics()?));
        Ok(())
    }

    fn end(&mut self) -> Result<Counted> {
        let end = Totals::of(&self.ringway.metrics()?);
        let Some(begun) = self.begun else { anyhow::bail!("the measurement did not begin") };
        end.since(begun, self.tsc_hz)
    }
}

impl Totals {
    fn of(metrics: &Metrics) -> Self {
        let busy = &[("mode", "busy")];
        Self {
            busy_seconds: metrics.sum("ringway_worker_seconds_total", busy),
            busy_iterations: metrics.sum("ringway_worker_iterations_total", busy),
            frames: metrics.sum("ringway_port_receive_packets_total", &[]),
        }
    }

    fn since(self, begun: Self, tsc_hz: f64) -> Result<Counted> {
        let frames = self.frames - begun.frames;
        let seconds = self.busy_seconds - begun.busy_seconds;
        let iterations = self.busy_iterations - begun.busy_iterations;
        ensure!(frames > 0.0 && seconds > 0.0 && iterations > 0.0, "Ringway counted nothing");
        Ok(Counted { cycles: seconds * tsc_hz / frames, burst: Some(frames / iterations) })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_was_counted_meanwhile_counts() {
        let begun = Totals { busy_seconds: 1.0, busy_iterations: 100.0, frames: 5000.0 };
        let end = Totals { busy_seconds: 2.0, busy_iterations: 200.0, frames: 11_000.0 };
        let counted = end.since(begun, 3e6).unwrap();
        assert_eq!((counted.cycles, counted.burst), (500.0, Some(60.0)));
        begun.since(begun, 3e6).unwrap_err();
    }
}
