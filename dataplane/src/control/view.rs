//! What can be shown.

use clap::ValueEnum;

/// A view of the switch; its method on the control socket is `show.` and its name.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum View {
    /// Ports: state, rings, features, traffic, drops.
    Ports,
    /// Queue pairs: worker, ring sizes, traffic, drops.
    Queues,
    /// Stations and the ports that they are behind.
    Macs,
    /// Cached flows and where they go.
    Flows,
    /// Workers: CPU, time by mode, queue pairs.
    Workers,
}

impl View {
    /// All of them.
    pub const ALL: [Self; 5] = [Self::Ports, Self::Queues, Self::Macs, Self::Flows, Self::Workers];

    /// Its method.
    #[must_use]
    pub fn method(self) -> &'static str {
        match self {
            Self::Ports => "show.ports",
            Self::Queues => "show.queues",
            Self::Macs => "show.macs",
            Self::Flows => "show.flows",
            Self::Workers => "show.workers",
        }
    }
}
