//! A port's policy as the data path asks it.

use std::sync::Arc;

use ringway_config::{PortPolicy, Vlan};

use super::bucket::{Bucket, Limit};
use super::guard::Guard;

/// What a port may do.
#[derive(Debug)]
pub struct PortRules {
    /// VLANs.
    pub vlan: Vlan,
    /// Who may send, and from which addresses; `None` if anybody may.
    pub guard: Option<Guard>,
    /// It exchanges no frames with other isolated ports.
    pub isolated: bool,
    /// Frames that are flooded for it.
    pub storm: Bucket,
    /// Stations that move to it from other ports.
    pub moves: Bucket,
    /// What comes from it.
    pub limit_in: Option<Limit>,
    /// What goes to it; the pairs of the port share it.
    pub limit_out: Option<Arc<Limit>>,
}

impl PortRules {
    /// What `policy` says, for a time-stamp counter of so many ticks a second.
    #[must_use]
    pub fn new(policy: &PortPolicy, ticks_per_second: u64, now: u64) -> Self {
        let bucket = |per_second| Bucket::new(per_second, per_second, ticks_per_second, now);
        let limit = |limit: &Option<_>| limit.as_ref().map(|limit| Limit::new(limit, ticks_per_second, now));
        Self {
            vlan: policy.vlan.clone(),
            guard: Guard::new(policy),
            isolated: policy.isolated,
            storm: bucket(policy.storm_limit),
            moves: bucket(policy.mac_moves_per_second.into()),
            limit_in: limit(&policy.limit_in),
            limit_out: limit(&policy.limit_out).map(Arc::new),
        }
    }

    /// Whether each frame that comes in has to be judged, not only each flow.
    #[inline]
    #[must_use]
    pub fn judges_frames(&self) -> bool {
        self.guard.is_some() || self.limit_in.is_some()
    }
}
