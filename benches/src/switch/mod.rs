//! Switches to be measured. Each of them bridges two vhost-user sockets on one CPU and counts its busy cycles.

mod lawful;
mod ovs;
mod ringway;
mod testpmd;

use std::path::PathBuf;

use anyhow::Result;
use clap::ValueEnum;
use ringway_testbed::Process;
use serde::Serialize;

pub(crate) use self::lawful::build as build_floor;
use crate::compile::Program;

/// Huge pages of a switch, in MiB.
pub(crate) const MEMORY_MIB: u32 = 512;

/// Which switch. In the order of the table.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, ValueEnum, Serialize)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum Backend {
    Lawful,
    Testpmd,
    Ovs,
    Ringway,
    /// Another floor to compare ours with: the option `--also-floor`, not one of the list.
    #[value(skip)]
    OtherFloor,
}

/// What the switches have in common.
pub(crate) struct Workshop {
    pub(crate) floor: Option<Program>,
    pub(crate) other_floor: Option<Program>,
    /// The paced load, if latency is measured.
    pub(crate) paced: Option<Program>,
    pub(crate) tsc_hz: f64,
}

/// What a switch counted while it was measured.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Counted {
    /// Busy cycles a frame.
    pub(crate) cycles: f64,
    /// Frames in an iteration, or a receive burst, that found any.
    pub(crate) burst: Option<f64>,
}

/// A running switch. It ends when it is dropped.
pub(crate) trait Switch {
    /// Both guests are connected: whatever is left to do before frames flow.
    fn guests_are_ready(&mut self) -> Result<()> {
        Ok(())
    }
    /// The process that polls, to see how much of its CPU it had.
    fn process(&mut self) -> &mut Process;
    /// The measurement begins.
    fn begin(&mut self) -> Result<()>;
    /// The measurement ends.
    fn end(&mut self) -> Result<Counted>;
}

impl Backend {
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Lawful => "lawful",
            Self::Testpmd => "testpmd",
            Self::Ovs => "ovs",
            Self::Ringway => "ringway",
            Self::OtherFloor => "other-floor",
        }
    }

    /// Whether it listens at the sockets, and so has to be there before the guests.
    pub(crate) fn listens(self) -> bool {
        matches!(self, Self::Lawful | Self::OtherFloor | Self::Testpmd)
    }

    pub(crate) fn can_do(self, packed: bool) -> bool {
        packed || !matches!(self, Self::Lawful | Self::OtherFloor)
    }

    /// Starts it. If it listens, it does so when this returns.
    pub(crate) fn start(self, sockets: &[PathBuf; 2], workshop: &Workshop) -> Result<Box<dyn Switch>> {
        Ok(match self {
            Self::Lawful => Box::new(lawful::start(workshop.floor.as_ref(), sockets)?),
            Self::OtherFloor => Box::new(lawful::start(workshop.other_floor.as_ref(), sockets)?),
            Self::Testpmd => Box::new(testpmd::start(sockets)?),
            Self::Ovs => Box::new(ovs::start(sockets)?),
            Self::Ringway => Box::new(ringway::start(sockets, workshop.tsc_hz)?),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_those_of_the_command_line() {
        for &backend in Backend::value_variants() {
            assert_eq!(Backend::from_str(backend.name(), false), Ok(backend));
        }
    }
}
