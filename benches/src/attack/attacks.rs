//! What one guest does to the others.

use serde::Serialize;

use crate::generator::pattern::{Pattern, Random, addresses, station};

/// Who plays what. Guests behind these only listen.
pub(super) const ATTACKER: usize = 0;
pub(super) const NEIGHBOUR: usize = 1;
pub(super) const PEER: usize = 2;
/// To whom the attacker sends where it wants its frames to arrive.
pub(super) const SINK: usize = 3;

/// Bytes of a frame.
pub(super) const FRAME_LEN: usize = 60;

/// Keys that collide: fewer than stations that may be behind a port.
const COLLIDING: usize = 8000;

/// In the order of the table.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum Attack {
    Macs,
    Vlans,
    Tuples,
    Collisions,
    Flapping,
    Broadcasts,
}

impl Attack {
    pub(super) const ALL: [Self; 6] =
        [Self::Macs, Self::Vlans, Self::Tuples, Self::Collisions, Self::Flapping, Self::Broadcasts];

    pub(super) fn name(self) -> &'static str {
        match self {
            Self::Macs => "random MACs",
            Self::Vlans => "random VLANs",
            Self::Tuples => "random 5-tuples",
            Self::Collisions => "colliding keys",
            Self::Flapping => "the neighbour's MAC",
            Self::Broadcasts => "broadcasts",
        }
    }

    /// Guests on the bridge, if the switch can have so many.
    pub(super) fn guests(self) -> usize {
        if self == Self::Broadcasts { 64 } else { 4 }
    }

    pub(super) fn pattern(self) -> Pattern {
        let to_sink = addresses(station(SINK, 0), station(ATTACKER, 0));
        match self {
            Self::Macs => Pattern::Macs(Random::new(1)),
            Self::Vlans => Pattern::Vlans { addresses: to_sink, random: Random::new(2) },
            Self::Tuples => {
                let packet_len = FRAME_LEN as u32 - 14;
                Pattern::Tuples { addresses: to_sink, packet_len, random: Random::new(3) }
            }
            Self::Collisions => Pattern::colliding(station(SINK, 0), COLLIDING),
            Self::Flapping => Pattern::fixed(addresses(station(SINK, 0), station(NEIGHBOUR, 0))),
            Self::Broadcasts => Pattern::fixed(addresses([0xff; 6], station(ATTACKER, 0))),
        }
    }

    /// What on Ringway's metrics page tells who it was: a metric, and the reason if it is one of drops.
    pub(super) fn told_by(self) -> (&'static str, Option<&'static str>) {
        const DROPPED: &str = "ringway_dropped_packets_total";
        match self {
            Self::Macs => (DROPPED, Some("mac_limit")),
            Self::Vlans | Self::Broadcasts => (DROPPED, Some("storm_limit")),
            // Which do nothing to a bridge but that they are many.
            Self::Tuples | Self::Collisions => ("ringway_queue_saturated_seconds_total", None),
            Self::Flapping => (DROPPED, Some("mac_move_limit")),
        }
    }
}
