//! Why a frame was dropped. Closed: there is no "other".

use super::Counter;

macro_rules! reasons {
    ($($(#[doc = $doc:literal])+ $variant:ident = $name:literal,)+) => {
        /// Why a frame was dropped.
        #[derive(Clone, Copy, Debug, PartialEq, Eq)]
        #[repr(u8)]
        pub enum DropReason {
            $($(#[doc = $doc])+ $variant,)+
        }

        impl DropReason {
            /// All of them, in the order of their numbers.
            pub const ALL: &[Self] = &[$(Self::$variant,)+];

            /// Its name in metrics and `show`.
            #[must_use]
            pub const fn as_str(self) -> &'static str {
                match self {
                    $(Self::$variant => $name,)+
                }
            }
        }
    };
}

reasons! {
    /// Shorter than a virtio-net header and an Ethernet header.
    Runt = "runt",
    /// Longer than any frame may be: 64 KiB and its headers.
    Oversized = "oversized",
    /// The virtio-net header asks for an offload that was not negotiated.
    OffloadNotNegotiated = "offload_not_negotiated",
    /// A checksum is asked for from a place on where no such checksum begins.
    BadCsumStart = "bad_csum_start",
    /// A checksum is asked for in a place where it does not belong.
    BadCsumOffset = "bad_csum_offset",
    /// The headers of a frame to be segmented are said to be longer than the frame.
    BadHdrLen = "bad_hdr_len",
    /// Segmentation is asked for of a kind that there is not, or that does not fit the frame.
    BadGsoType = "bad_gso_type",
    /// Segments of no bytes are asked for, or too many.
    BadGsoSize = "bad_gso_size",
    /// The headers of a frame to be segmented are not within its first 128 bytes, or say another length than it has.
    BadGsoHeaders = "bad_gso_headers",
    /// A packet longer than the port's MTU.
    MtuExceeded = "mtu_exceeded",
    /// From a group address or from 00:00:00:00:00:00.
    InvalidSource = "invalid_source",
    /// A VLAN that the port which it came by, or the one that it is for, takes no part in.
    VlanNotAllowed = "vlan_not_allowed",
    /// To one of 01:80:c2:00:00:00 to 0f, which are for the next hop only.
    LinkLocal = "link_local",
    /// From a station that may not send by this port, or that says so of another.
    GuardMac = "guard_mac",
    /// From an IP address that may not be sent from by this port, or saying so of itself.
    GuardIp = "guard_ip",
    /// From a station that a static entry or a guard holds behind another port.
    MacHeld = "mac_held",
    /// From one station more than are remembered behind the port.
    MacLimit = "mac_limit",
    /// From a station that would move to the port, after too many others did.
    MacMoveLimit = "mac_move_limit",
    /// From an isolated port to another.
    Isolated = "isolated",
    /// To be flooded, and the bridge does not.
    FloodOff = "flood_off",
    /// To be flooded, and more than the port's storm limit were.
    StormLimit = "storm_limit",
    /// Over the port's limit of what comes in.
    RateLimitIn = "rate_limit_in",
    /// Over the port's limit of what goes out.
    RateLimitOut = "rate_limit_out",
    /// To a station behind the port that it came from.
    Hairpin = "hairpin",
    /// To be flooded, and no other port of the bridge is up.
    NoDestination = "no_destination",
    /// To a port whose guest has no receive queue running.
    ReceiverStopped = "receiver_stopped",
    /// The guest had no buffer on its receive queue.
    GuestRingFull = "guest_ring_full",
    /// The guest's receive buffers cannot hold a frame of this length.
    BufferTooSmall = "buffer_too_small",
    /// The guest sent by a queue that its front end has disabled.
    QueueDisabled = "queue_disabled",
    /// The ring that hands frames to another worker was full.
    HandOffFull = "hand_off_full",
    /// To a NIC whose cable is out.
    LinkDown = "link_down",
    /// To a NIC whose queue had no room.
    NicQueueFull = "nic_queue_full",
    /// To a NIC whose driver refused what was asked of it for the frame.
    NicRefused = "nic_refused",
    /// By a member of a bond that stands by.
    BondStandby = "bond_standby",
    /// To a NIC for which there were no mbufs left.
    MempoolEmpty = "mempool_empty",
}

/// One counter a reason.
#[derive(Debug)]
pub struct DropCounters([Counter; DropReason::ALL.len()]);

impl Default for DropCounters {
    fn default() -> Self {
        Self(std::array::from_fn(|_| Counter::default()))
    }
}

impl DropCounters {
    /// Counts `count` frames dropped for `reason`; the owner only.
    #[inline]
    pub fn add(&self, reason: DropReason, count: u64) {
        self.0[reason as usize].add(count);
    }

    /// Frames dropped for `reason`.
    #[must_use]
    pub fn get(&self, reason: DropReason) -> u64 {
        self.0[reason as usize].get()
    }

    /// Frames dropped for any reason.
    #[must_use]
    pub fn total(&self) -> u64 {
        self.0.iter().map(Counter::get).sum()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_reason_is_called_other_and_names_are_unique() {
        let mut names: Vec<_> = DropReason::ALL.iter().map(|reason| reason.as_str()).collect();
        assert!(!names.contains(&"other"));
        names.sort_unstable();
        names.dedup();
        assert_eq!(names.len(), DropReason::ALL.len());
    }

    #[test]
    fn reasons_count_apart() {
        let counters = DropCounters::default();
        counters.add(DropReason::Runt, 2);
        counters.add(DropReason::HandOffFull, 3);
        assert_eq!((counters.get(DropReason::Runt), counters.get(DropReason::Hairpin)), (2, 0));
        assert_eq!(counters.total(), 5);
    }
}
