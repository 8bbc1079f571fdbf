//! What testpmd prints about its ports and cores, as numbers.

/// Per cent of empty bursts beyond which half a per cent makes too much of a difference.
const EMPTY_MAX: f64 = 95.0;
/// What testpmd asks for at most, unless told.
const BURST_MAX: f64 = 32.0;

/// `show port stats`: one port, from testpmd's side.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
#[allow(missing_docs, reason = "named as testpmd prints them")]
pub struct PortStats {
    pub rx_packets: u64,
    pub rx_missed: u64,
    pub rx_bytes: u64,
    pub rx_errors: u64,
    pub rx_nombuf: u64,
    pub tx_packets: u64,
    pub tx_errors: u64,
    pub tx_bytes: u64,
    /// Frames per second since the last time this was asked.
    pub rx_pps: u64,
    /// Frames per second since the last time this was asked.
    pub tx_pps: u64,
}

impl PortStats {
    /// One a port, in the order of ports. None when there is no port, or one lacks a counter.
    pub(super) fn parse(text: &str) -> Option<Vec<Self>> {
        let ports = text.split("NIC statistics for port").skip(1).map(|port| {
            let value = |key| after(port, key);
            Some(Self {
                rx_packets: value("RX-packets:")?,
                rx_missed: value("RX-missed:")?,
                rx_bytes: value("RX-bytes:")?,
                rx_errors: value("RX-errors:")?,
                rx_nombuf: value("RX-nombuf:")?,
                tx_packets: value("TX-packets:")?,
                tx_errors: value("TX-errors:")?,
                tx_bytes: value("TX-bytes:")?,
                rx_pps: value("Rx-pps:")?,
                tx_pps: value("Tx-pps:")?,
            })
        });
        let ports: Vec<Self> = ports.collect::<Option<_>>()?;
        (!ports.is_empty()).then_some(ports)
    }
}

/// `show fwd stats`: one port.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
#[allow(missing_docs, reason = "named as testpmd prints them")]
pub struct PortForward {
    pub rx_packets: u64,
    pub tx_packets: u64,
}

/// `show fwd stats`: all ports together.
#[derive(Debug, Clone, Default, PartialEq)]
#[allow(missing_docs, reason = "named as testpmd prints them")]
pub struct ForwardStats {
    pub rx_packets: u64,
    pub tx_packets: u64,
    /// Frames that no transmit ring took.
    pub tx_dropped: u64,
    /// Of iterations that received something; None before the first frame.
    pub cycles_per_packet: Option<f64>,
    /// All of them, likewise.
    pub busy_cycles: Option<f64>,
    /// Each port, in the order of ports.
    pub ports: Vec<PortForward>,
}

impl ForwardStats {
    pub(super) fn parse(text: &str) -> Option<Self> {
        let (ports, sums) = text.split_once("Accumulated forward statistics")?;
        let port = |text| {
            Some(PortForward { rx_packets: after(text, "RX-packets:")?, tx_packets: after(text, "TX-packets:")? })
        };
        Some(Self {
            rx_packets: after(sums, "RX-packets:")?,
            tx_packets: after(sums, "TX-packets:")?,
            tx_dropped: after(sums, "TX-dropped:")?,
            cycles_per_packet: after(sums, "CPU cycles/packet="),
            busy_cycles: after(sums, "(total cycles="),
            ports: ports.split("Forward statistics for port").skip(1).map(port).collect::<Option<_>>()?,
        })
    }
}

/// Frames a receive burst that is not empty, from `show fwd stats` while bursts are recorded. It says how many bursts there
/// were, and which part of them was empty, in whole per cent rounded down.
pub(super) fn mean_burst(text: &str) -> Option<f64> {
    let frames: f64 = after(text.split_once("Accumulated forward statistics")?.1, "RX-packets:")?;
    let full = |line: &str| {
        let (bursts, empty) = (after::<f64>(line, "")?, after::<f64>(&line.replace('%', " "), "[")?);
        // What was rounded down lies half a per cent higher in the middle. Near the end nothing is left to tell.
        let empty = if empty > 0.0 { empty + 0.5 } else { 0.0 };
        (empty < EMPTY_MAX).then_some(bursts * (1.0 - empty / 100.0))
    };
    let ports = text.lines().filter_map(|line| Some(line.split_once("RX-bursts :")?.1));
    let bursts: f64 = ports.map(full).sum::<Option<_>>()?;
    (frames > 0.0 && bursts > 0.0).then(|| (frames / bursts).min(BURST_MAX))
}

/// The number that follows the first `key`.
fn after<T: std::str::FromStr>(text: &str, key: &str) -> Option<T> {
    let (_, rest) = text.split_once(key)?;
    rest.split_whitespace().next()?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    const PORTS: &str = "
  ######################## NIC statistics for port 0  ########################
  RX-packets: 12         RX-missed: 1          RX-bytes:  768
  RX-errors: 2
  RX-nombuf:  3
  TX-packets: 13         TX-errors: 4          TX-bytes:  832

  Throughput (since last show)
  Rx-pps:         9600000          Rx-bps:   4915200000
  Tx-pps:         9600001          Tx-bps:   4915200512
  ############################################################################

  ######################## NIC statistics for port 1  ########################
  RX-packets: 0          RX-missed: 0          RX-bytes:  0
  RX-errors: 0
  RX-nombuf:  0
  TX-packets: 0          TX-errors: 0          TX-bytes:  0

  Throughput (since last show)
  Rx-pps:            0          Rx-bps:            0
  Tx-pps:            0          Tx-bps:            0
  ############################################################################
";

    #[test]
    fn every_port_is_read() {
        let ports = PortStats::parse(PORTS).unwrap();
        let first = PortStats {
            rx_packets: 12,
            rx_missed: 1,
            rx_bytes: 768,
            rx_errors: 2,
            rx_nombuf: 3,
            tx_packets: 13,
            tx_errors: 4,
            tx_bytes: 832,
            rx_pps: 9_600_000,
            tx_pps: 9_600_001,
        };
        assert_eq!(ports, [first, PortStats::default()]);
    }

    #[test]
    fn no_ports_and_half_a_port_are_not_understood() {
        assert_eq!(PortStats::parse("Bad arguments"), None);
        assert_eq!(PortStats::parse(&PORTS[..300]), None);
    }

    #[test]
    fn forwarding_is_summed_over_ports() {
        let text = "
  ---------------------- Forward statistics for port 0  ----------------------
  RX-packets: 5              RX-dropped: 0             RX-total: 5
  TX-packets: 4              TX-dropped: 1             TX-total: 5
  ----------------------------------------------------------------------------

  +++++++++++++++ Accumulated forward statistics for all ports+++++++++++++++
  RX-packets: 10             RX-dropped: 0             RX-total: 10
  TX-packets: 8              TX-dropped: 2             TX-total: 10
  ++++++++++++++++++++++++++++++++++++++++++++++++++++++++++++++++++++++++++++

  CPU cycles/packet=132.25 (total cycles=1323 / total io packets=10) at 2600 MHz Clock
";
        let stats = ForwardStats {
            rx_packets: 10,
            tx_packets: 8,
            tx_dropped: 2,
            cycles_per_packet: Some(132.25),
            busy_cycles: Some(1323.0),
            ports: vec![PortForward { rx_packets: 5, tx_packets: 4 }],
        };
        assert_eq!(ForwardStats::parse(text), Some(stats));
    }

    #[test]
    fn bursts_count_unless_they_are_empty() {
        let text = |empty: u32| {
            format!(
                "  RX-bursts : 1000 [{empty}% of 0 pkts + 70% of 32 pkts + 10% of other]\n  TX-bursts : 9 [0% of 0 pkts]\n\
                 RX-bursts : 500 [0% of 0 pkts + 100% of 32 pkts]\n\
                 +++ Accumulated forward statistics for all ports+++\n  RX-packets: 39000  RX-dropped: 0\n"
            )
        };
        assert_eq!(mean_burst(&text(20)), Some(39_000.0 / (795.0 + 500.0)));
        assert_eq!(mean_burst(&text(0)), Some(26.0));
        assert_eq!(mean_burst(&text(98)), None, "the first port cannot tell");
        assert_eq!(mean_burst("Accumulated forward statistics\n RX-packets: 0\n"), None);
    }
}
