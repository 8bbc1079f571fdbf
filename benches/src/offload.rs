//! The bench `offload`: what checksums and segments cost, a byte, that a guest leaves to a switch whose NIC does neither.

use std::collections::BTreeMap;
use std::path::Path;
use std::time::Duration;

use anyhow::{Result, ensure};
use ringway_testbed::{Forward, HugePages, Memory, Testpmd, Topology, VirtioUser, ringway_binary, scratch_dir};
use serde::Serialize;
use serde_json::json;

use crate::bench::Outcome;
use crate::cli::Options;
use crate::closed_loop::{WARM_UP, cpu_share, undisturbed_if_can_be};
use crate::interrupt;
use crate::judge::CPU_SHARE_MIN;
use crate::load;
use crate::machine::{LOAD_CPU, Machine};
use crate::report::{Bar, Limit, Table, figure};
use crate::stats::Summary;
use crate::switch::{self, Backend};
use crate::uplink::frames::{Files, SEGMENT_LEN, SEGMENT_PAYLOAD, station};
use crate::uplink::{self, Plugs, SPARE_MIB, Totals};

const BACKENDS: [Backend; 2] = [Backend::Testpmd, Backend::Ringway];

/// Segments of the large frames: as many as an mbuf of the load, 65535 bytes with its headroom, has room for.
const SEGMENTS: usize = 44;

/// Bytes of an mbuf of the load.
const LOAD_MBUF: usize = 65_535;
const LOAD_MBUFS: u32 = 2048;

/// What the guest leaves undone.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "kebab-case")]
enum Work {
    /// The checksum of TCP, in frames as long as a wire takes.
    Checksum,
    /// Large frames are to be cut, each segment with its checksum.
    Segments,
}

/// What one switch did in one round.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
struct Measured {
    gbits: f64,
    /// Busy cycles a byte that came from the guest.
    cycles: f64,
    /// Frames to the NIC for one of the guest.
    segments: f64,
    /// The part of its CPU that the switch had, or the load, if that was less.
    cpu_share: f64,
}

type Round = BTreeMap<(Work, Backend), Result<Measured, String>>;

pub(crate) fn run(options: &Options) -> Result<Outcome> {
    let backends: Vec<Backend> = BACKENDS.into_iter().filter(|backend| options.backends.contains(backend)).collect();
    ensure!(!backends.is_empty(), "no backend to measure: testpmd and ringway finish what guests leave");
    let machine = Machine::prepare()?;
    ringway_binary()?;
    let _pages = HugePages::reserve(load::MEMORY_MIB + switch::MEMORY_MIB + SPARE_MIB)?;
    let packed = options.packed.first() == Some(&1);
    let files = scratch_dir()?;
    let mut rounds = Vec::new();
    for number in 1..=options.rounds {
        let mut round = Round::new();
        for work in Work::ALL {
            for &backend in &backends {
                let undisturbed = |measured: &Measured| measured.cpu_share >= CPU_SHARE_MIN;
                let measure = || work.measure(backend, packed, options.seconds, machine.tsc_hz, files.path());
                let measured = undisturbed_if_can_be(undisturbed, measure)?;
                let place = format!("{}, round {number} of {}: {:8}", work.name(), options.rounds, backend.name());
                match &measured {
                    Ok(Measured { gbits, cycles, .. }) => {
                        eprintln!("{place} {gbits:6.2} Gbit/s, {cycles:.3} cycles a byte")
                    }
                    Err(error) => eprintln!("{place} failed: {error:#}"),
                }
                round.insert((work, backend), measured.map_err(|error| format!("{error:#}")));
            }
        }
        rounds.push(round);
    }
    Ok(outcome(&machine, options, packed, &rounds))
}

impl Work {
    const ALL: [Self; 2] = [Self::Checksum, Self::Segments];

    fn name(self) -> &'static str {
        match self {
            Self::Checksum => "checksums",
            Self::Segments => "segments",
        }
    }

    /// Frames to the NIC for one of the guest.
    fn segments(self) -> usize {
        match self {
            Self::Checksum => 1,
            Self::Segments => SEGMENTS,
        }
    }

    fn frame_len(self) -> usize {
        SEGMENT_LEN + (self.segments() - 1) * SEGMENT_PAYLOAD
    }

    /// One switch, from its start to its end.
    fn measure(self, backend: Backend, packed: bool, seconds: u64, tsc_hz: f64, files: &Path) -> Result<Measured> {
        let directory = scratch_dir()?;
        let socket = directory.path().join("v0");
        let mut guest = self.guest(&socket, packed, files)?;
        uplink::wait_listens(&mut guest, &socket)?;
        let device = format!("net_pcap0,rx_pcap={}", Files(files).greeting()?.display());
        let mut switch = uplink::start(backend, Plugs { device: &device, socket: &socket, offloads: true, tsc_hz })?;
        guest.wait_ready()?;
        leave_undone(&guest)?;
        switch.guest_is_ready()?;
        guest.forward()?;

        interrupt::sleep(WARM_UP)?;
        switch.begin()?;
        let duration = Duration::from_secs(seconds);
        let cpu_share = cpu_share(&[switch.process(), guest.process()], duration)?;
        let Totals { busy_cycles, to_nic, sent_by_guest, .. } = switch.end()?;
        let (bytes, segments) = (sent_by_guest * self.frame_len() as f64, to_nic / sent_by_guest);
        let expected = self.segments() as f64;
        ensure!((segments / expected - 1.0).abs() < 0.05, "{segments:.2} frames for one of the guest, not {expected}");
        guest.quit()?;
        let gbits = bytes * 8.0 / duration.as_secs_f64() / 1e9;
        Ok(Measured { gbits, cycles: busy_cycles / bytes, segments, cpu_share })
    }

    /// Sends frames of a file for ever.
    fn guest(self, socket: &Path, packed: bool, files: &Path) -> Result<Testpmd> {
        let file = Files(files).sent_by_guest(self.frame_len())?;
        let peer: Vec<String> = station(0).iter().map(|byte| format!("{byte:02x}")).collect();
        Testpmd::guest()
            .vdev(format!("net_pcap0,rx_pcap={},infinite_rx=1", file.display()))
            .virtio_user(VirtioUser::new(socket).packed(packed))
            .forward(Forward::Csum)
            .topology(Topology::Paired)
            .eth_peer(NIC, &peer.join(":"))
            .arg("--no-flush-rx")
            .arg(format!("--mbuf-size={LOAD_MBUF}"))
            .mbufs(LOAD_MBUFS)
            .memory(Memory::Huge(load::MEMORY_MIB))
            .cpu(LOAD_CPU)
            .start()
    }
}

/// The port of the load that is a guest's NIC.
const NIC: usize = 1;

/// Has the load's NIC leave checksums and segments to the switch.
fn leave_undone(guest: &Testpmd) -> Result<()> {
    for command in [
        format!("port stop {NIC}"),
        format!("csum set tcp hw {NIC}"),
        format!("tso set {SEGMENT_PAYLOAD} {NIC}"),
        format!("port start {NIC}"),
    ] {
        guest.command(&command)?;
    }
    Ok(())
}

fn outcome(machine: &Machine, options: &Options, packed: bool, rounds: &[Round]) -> Outcome {
    let bars: Vec<Bar> = Work::ALL.into_iter().map(|work| bar(work, rounds)).collect();
    let verdicts = bars.iter().map(|bar| json!({"bar": bar, "holds": bar.holds()})).collect::<Vec<_>>();
    let measured = |round: &Round| {
        let of = round.iter();
        of.map(|((work, switch), measured)| json!({"work": work, "switch": switch, "measured": measured}))
            .collect::<Vec<_>>()
    };
    let json = json!({
        "bench": "offload",
        "machine": machine,
        "rounds": options.rounds,
        "seconds": options.seconds,
        "packed": packed,
        "segments": SEGMENTS,
        "measured": rounds.iter().map(measured).collect::<Vec<_>>(),
        "bars": verdicts,
    });
    let head = vec![
        machine.describe(),
        format!("from a guest with {} rings to a NIC; medians of the rounds", if packed { "packed" } else { "split" }),
        "cycles: busy ones of CPU 0 a byte of the guest's frames; segments: frames to the NIC for one of the guest"
            .to_owned(),
    ];
    Outcome { head, tables: vec![table(rounds)], bars, json }
}

/// Of the rounds in which it had its CPU.
fn each(rounds: &[Round], work: Work, backend: Backend) -> impl Iterator<Item = Option<&Measured>> {
    rounds.iter().map(move |round| {
        round.get(&(work, backend))?.as_ref().ok().filter(|measured| measured.cpu_share >= CPU_SHARE_MIN)
    })
}

fn table(rounds: &[Round]) -> Table {
    let mut rows = Vec::new();
    for work in Work::ALL {
        for backend in BACKENDS {
            let of = |figure: fn(&Measured) -> f64| Summary::of(each(rounds, work, backend).flatten().map(figure));
            let cycles = of(|measured| measured.cycles);
            let median = |summary: Option<Summary>| summary.map(|summary| summary.median);
            rows.push(vec![
                work.name().to_owned(),
                work.frame_len().to_string(),
                backend.name().to_owned(),
                figure(median(of(|measured| measured.gbits)), 2),
                figure(median(cycles), 3),
                figure(cycles.map(|cycles| cycles.min), 3),
                figure(cycles.map(|cycles| cycles.max), 3),
                figure(median(of(|measured| measured.segments)), 1),
                each(rounds, work, backend).flatten().count().to_string(),
            ]);
        }
    }
    let headings = &["work", " bytes", "switch", " Gbit/s", " cycles/byte", " min", " max", " segments", " rounds"];
    Table { headings, rows, notes: Vec::new() }
}

fn bar(work: Work, rounds: &[Round]) -> Bar {
    let pairs = each(rounds, work, Backend::Ringway).zip(each(rounds, work, Backend::Testpmd));
    let ratios = Summary::of_ratios(pairs.filter_map(|(ringway, testpmd)| Some((ringway?.cycles, testpmd?.cycles))));
    Bar {
        what: format!("{}: busy cycles a byte, ringway / testpmd", work.name()),
        value: ratios.map(|ratios| ratios.median),
        limit: Limit::AtMost(1.0),
        void: None,
    }
}
