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
    /// Workers: CPU, time by mode, queue pairs and why they are there.
    Workers,
    /// Queue pairs that the planner would move now, and what that would gain; nothing is moved.
    Rebalance,
}

impl View {
    /// All of them.
    pub const ALL: [Self; 6] = [Self::Ports, Self::Queues, Self::Macs, Self::Flows, Self::Workers, Self::Rebalance];

    /// Its method.
    #[must_use]
    pub fn method(self) -> &'static str {
        match self {
            Self::Ports => "show.ports",
            Self::Queues => "show.queues",
            Self::Macs => "show.macs",
            Self::Flows => "show.flows",
            Self::Workers => "show.workers",
            Self::Rebalance => "show.rebalance",
        }
    }
}
