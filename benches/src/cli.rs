//! The command line.

use std::path::PathBuf;

use clap::{Args, Parser};

use crate::bench;
use crate::flow_table::Pages;
use crate::switch::Backend;

/// Measures Ringway and its peers in turn, on this machine, and holds it to bars.
///
/// Figures of a shared machine mean little by themselves. So the switches are measured in rounds, each of them once a
/// round, and compared within the round; the median over rounds is what counts. A round in which the first backend took
/// 15 % more cycles than in its best round, a switch failed, the load lost frames, or somebody
/// else took over 5 % of either CPU is left out, and counted.
#[derive(Debug, Parser)]
#[command(
    name = "ringway-bench",
    bin_name = "scripts/bench",
    after_help = format!("Benches:\n{}", bench::list()),
    after_long_help = format!("Benches:\n{}\n{EXPLANATION}", bench::list()),
    max_term_width = 100
)]
pub(crate) struct Arguments {
    /// What to measure.
    #[arg(value_name = "NAME")]
    pub(crate) bench: String,
    /// Write everything, each round included, to this file.
    #[arg(long, value_name = "FILE")]
    pub(crate) json: Option<PathBuf>,
    #[command(flatten)]
    pub(crate) options: Options,
}

/// What a bench is to do.
#[derive(Debug, Clone, Args)]
pub(crate) struct Options {
    /// Rounds, of some 20 s plus --seconds and --latency-seconds for each backend, size and kind of ring.
    #[arg(long, value_name = "N", default_value_t = 7, value_parser = clap::value_parser!(u32).range(1..=100))]
    pub(crate) rounds: u32,
    /// How long each measurement lasts, after two seconds to warm up.
    #[arg(long, value_name = "N", default_value_t = 5, value_parser = clap::value_parser!(u64).range(1..=600))]
    pub(crate) seconds: u64,
    /// Which switches, in this order. The first one tells good rounds from noisy ones.
    #[arg(long, value_name = "LIST", value_delimiter = ',', default_value = "lawful,testpmd,ovs,ringway")]
    pub(crate) backends: Vec<Backend>,
    /// Bytes of a frame, from the destination address on, without FCS.
    #[arg(long, value_name = "LIST", value_delimiter = ',', default_value = "64,1500",
          value_parser = clap::value_parser!(u16).range(60..=1514))]
    pub(crate) sizes: Vec<u16>,
    /// Kinds of rings: 1 for packed, 0 for split. The floor takes packed ones only.
    #[arg(long, value_name = "LIST", value_delimiter = ',', default_value = "1,0",
          value_parser = clap::value_parser!(u8).range(0..=1))]
    pub(crate) packed: Vec<u8>,
    /// How long each measurement of latency lasts; 0 for none.
    #[arg(long, value_name = "N", default_value_t = 2, value_parser = clap::value_parser!(u64).range(0..=600))]
    pub(crate) latency_seconds: u64,
    /// Another floor, measured right after ours and compared with it: its C source or program. It takes the arguments of
    /// ours, and prints cycles a frame each second as "busy_cycles 88.0 burst 31.7" or "cyc/pkt 88.0 avgburst 31.7".
    #[arg(long, value_name = "FILE")]
    pub(crate) also_floor: Option<PathBuf>,
    /// flow-table: flows in the table.
    #[arg(long, value_name = "LIST", value_delimiter = ',', default_value = "1024,65536,1048576,10485760",
          value_parser = flows)]
    pub(crate) flows: Vec<usize>,
    /// flow-table: bytes of a key.
    #[arg(long, value_name = "LIST", value_delimiter = ',', default_value = "16,40", value_parser = key_bytes)]
    pub(crate) key_bytes: Vec<usize>,
    /// flow-table: the pages that all tables are in.
    #[arg(long, value_name = "KIND", default_value = "huge")]
    pub(crate) pages: Pages,
    /// flow-table: plot cost against size into this SVG file.
    #[arg(long, value_name = "FILE")]
    pub(crate) plot: Option<PathBuf>,
}

fn flows(written: &str) -> Result<usize, String> {
    let number = written.parse::<usize>().ok().filter(|flows| (1024..=64 << 20).contains(flows));
    number.ok_or_else(|| "a number from 1024 to 67108864".to_owned())
}

fn key_bytes(written: &str) -> Result<usize, String> {
    let number = written.parse::<usize>().ok().filter(|bytes| [16, 40].contains(bytes));
    number.ok_or_else(|| "16 or 40".to_owned())
}

const EXPLANATION: &str = "\
Backends:
  lawful    the floor: C over DPDK's vhost library, the least that the laws of the data path cost
            (benches/floor/lawful.c says what it does and what it leaves out)
  testpmd   dpdk-testpmd in io mode between two vhost ports: it looks nothing up
  ovs       Open vSwitch with DPDK and a bridge without rules
  ringway   $RINGWAY_BIN, or the build of this tree

The loop: the switch has CPU 0. The load has CPU 1: one dpdk-testpmd with two virtio-user ports that
sends every frame back with its addresses swapped. 256 frames are under way for ever, so none is
lost, and the slower side sets the pace. \"Mframe/s\" counts frames through the switch, both
directions together. \"cycles\" are the busy ones of CPU 0 a frame, as each switch counts them;
\"batch\" is how many frames it found when it found any: in both directions for Ringway and the floor,
up to 64, in a receive burst of one port for testpmd, up to 32, in a transmit burst for ovs.

Latency: another load on CPU 1, benches/load/paced.c. One guest sends bursts of 8 at an even pace,
the other receives and compares time stamps. All switches of a size and kind of ring get the same
rate, half of the frames per second of testpmd in that round (of the first backend, without testpmd),
all in one direction. A lost frame counts as one that took a second. Percentiles are those
of windows of 20 ms in which the load kept its pace, of which the lower decile. What was measured at half load does not count where somebody else had over 7 %
of either CPU, the load kept its pace in fewer than ten of them, or testpmd or the first backend lost over 5 %.

The bench tcp: two Linux guests on CPU 1, booted anew for each row of each round, iperf3 with four
streams from one to the other, the switch on CPU 0: ringway, dpdk-testpmd in io mode with tso=1, and
ringway that offers its guests no offload. Of the options it takes --rounds, --seconds, --json, the
first word of --packed, and testpmd or ringway as --backends. Some five minutes a round where guests are emulated.

The bench nic: NIC, guest, NIC. The switch has CPU 0, and a NIC that never runs dry: DPDK's net_pcap in
its own process, which copies 256 frames of 64 stations into mbufs, again and again, and frees what
it is given to send. The guest on CPU 1 is dpdk-testpmd, which sends every frame back with its
addresses swapped. So all of them look at the same frames, pay for the same NIC, and set the pace;
\"cycles\" are busy ones of CPU 0, as each switch counts them, for each frame that came back to the NIC.
Of the options it takes --rounds, --seconds, --sizes, --json, the first word of --packed, and testpmd,
ovs or ringway as --backends, of which the first one tells good rounds from noisy ones.

The bench offload: a guest on CPU 1, dpdk-testpmd with a file of TCP frames, leaves things undone for a
NIC that does nothing of the kind: checksums in frames of 1514 bytes, or segments, each with its
checksum, of frames of 64 KiB. The switch on CPU 0 is ringway or dpdk-testpmd in csum mode, with GSO
on, whose checksum is of the whole frame: it is a wrong one for the segments, but as much work.
Options as for nic, but for --sizes.

The bench flow-table: tables of so many flows, filled, then measured in turn: lookups of 32 random keys
a batch, on CPU 0, of flows that are there and of flows that are not; the same while a writer on CPU 1
deletes and inserts 500,000 flows a second (busy; hashbrown cannot); deletes and inserts one by one.
rte_hash is DPDK's, with its default hash, lookups in bulk and readers without locks; it frees at once
what was deleted. All tables are in pages of the same size. A figure is the mean of the chunks of a
round but its slowest twentieth. Of the options it takes --rounds, --json and those named after it.
10 M flows with keys of 40 bytes take 3.6 GiB of huge pages.

The bench attack: a switch on CPU 0; on CPU 1 one thread that is all guests (benches/src/generator). Two of
them, a neighbour and its peer, send each other a fifth of what the switch does for the two alone. Then
a third sends as fast as its ring is emptied: random MACs, VLANs, 5-tuples; keys that collide under
CRC32C; frames from the neighbour's MAC; broadcasts to 64 guests (31 on ovs, which has no more). Each
attack meets a switch that was just started. The loss is that of the direction which suffers more, of
what was due, beside the minute before. Before that, what a frame costs at 80 % of capacity, of one
flow each way and of 64 K. Of the options it takes --rounds, --seconds, --json, and ringway or ovs as
--backends. A round takes some 80 s with --seconds 2.

Needs root, two CPUs and 1 GiB of memory for huge pages, which are given back at the end.
Exit status: 0 every bar holds, 1 one does not, 2 nothing was measured.

Examples:
  scripts/bench loop
  scripts/bench loop --rounds 3 --seconds 2 --backends testpmd,ringway --sizes 64 --packed 1
  scripts/bench tcp --seconds 10
  scripts/bench attack --rounds 3 --seconds 2
  scripts/bench nic --rounds 5
  scripts/bench offload
  scripts/bench flow-table --flows 65536 --key-bytes 16 --plot cost.svg
  RINGWAY_BIN=other/ringway scripts/bench loop --json other.json";

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    use super::*;

    #[test]
    fn the_command_line_is_consistent() {
        Arguments::command().debug_assert();
    }

    impl Options {
        /// The defaults.
        pub(crate) fn for_tests() -> Self {
            Arguments::try_parse_from(["bench", "loop"]).unwrap().options
        }
    }

    #[test]
    fn lists_are_taken_apart() {
        let words = ["bench", "loop", "--backends", "testpmd,ringway", "--sizes", "64,512", "--packed", "1,0"];
        let options = Arguments::try_parse_from(words).unwrap().options;
        assert_eq!(options.backends, [Backend::Testpmd, Backend::Ringway]);
        assert_eq!((options.sizes, options.packed), (vec![64, 512], vec![1, 0]));
        Arguments::try_parse_from(["bench", "loop", "--sizes", "20"]).unwrap_err();
    }
}
