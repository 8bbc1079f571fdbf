//! Ringway with a NIC port and a guest port on a bridge, measured by its own metrics page.

use anyhow::Result;
use ringway_testbed::{Metrics, Process, Ringway};

use super::{Plugs, Totals, Uplinked};
use crate::machine::SWITCH_CPU;

const GUEST: &str = "vm1";
const NIC: &str = "uplink";

struct Measured {
    ringway: Ringway,
    tsc_hz: f64,
    begun: Totals,
}

pub(super) fn start(plugs: Plugs<'_>) -> Result<impl Uplinked + use<>> {
    let builder = Ringway::builder().cpu(SWITCH_CPU).bridge("br0").port(GUEST, "br0", plugs.socket);
    let ringway = builder.nic(NIC, "br0", plugs.device).start()?;
    Ok(Measured { ringway, tsc_hz: plugs.tsc_hz, begun: Totals::default() })
}

impl Measured {
    fn totals(&self) -> Result<Totals> {
        Ok(totals(&self.ringway.metrics()?, self.tsc_hz))
    }
}

fn totals(metrics: &Metrics, tsc_hz: f64) -> Totals {
    let frames = |direction, port| metrics.sum(&format!("ringway_port_{direction}_packets_total"), &[("port", port)]);
    Totals {
        busy_cycles: metrics.sum("ringway_worker_seconds_total", &[("mode", "busy")]) * tsc_hz,
        from_nic: frames("receive", NIC),
        to_nic: frames("transmit", NIC),
        sent_by_guest: frames("receive", GUEST),
    }
}

impl Uplinked for Measured {
    fn guest_is_ready(&mut self) -> Result<()> {
        self.ringway.wait_state(&[GUEST, NIC], "running")
    }

    fn process(&mut self) -> &mut Process {
        self.ringway.process()
    }

    fn begin(&mut self) -> Result<()> {
        self.begun = self.totals()?;
        Ok(())
    }

    fn end(&mut self) -> Result<Totals> {
        Ok(self.totals()?.since(self.begun))
    }
}
