//! The bench `nic`: what a frame costs one core on its way from a NIC to a guest and back to the NIC.

use std::path::Path;
use std::time::{Duration, Instant};

use anyhow::{Result, ensure};
use ringway_testbed::{HugePages, Memory, Testpmd, VirtioUser, ringway_binary, scratch_dir};
use serde_json::json;

use crate::bench::Outcome;
use crate::cell::{CYCLES, Case, Cell, HEADINGS, LOST};
use crate::cli::Options;
use crate::closed_loop::{WARM_UP, cpu_share, undisturbed_if_can_be};
use crate::interrupt;
use crate::judge::{CPU_SHARE_MIN, Measured, Round};
use crate::load;
use crate::machine::{LOAD_CPU, Machine};
use crate::report::{Bar, Limit, Table, figure};
use crate::switch::{self, Backend};
use crate::uplink::{self, Plugs, SPARE_MIB, frames::Files};

/// Columns of a [`Cell`] that are of a switch at full speed.
const COLUMNS: usize = 8;

pub(crate) fn run(options: &Options) -> Result<Outcome> {
    let backends: Vec<Backend> = options.backends.iter().copied().filter(|of| uplink::BACKENDS.contains(of)).collect();
    ensure!(!backends.is_empty(), "no backend to measure: testpmd, ovs and ringway have NICs");
    let machine = Machine::prepare()?;
    if backends.contains(&Backend::Ringway) {
        ringway_binary()?;
    }
    let _pages = HugePages::reserve(load::MEMORY_MIB + switch::MEMORY_MIB + SPARE_MIB)?;
    let directory = scratch_dir()?;
    let packed = options.packed.first() == Some(&1);
    let case = |&frame_len: &u16| Cell::new(Case { packed, frame_len }, &backends);
    let mut cells: Vec<Cell> = options.sizes.iter().map(case).collect();
    for number in 1..=options.rounds {
        for cell in &mut cells {
            let mut round = Round::new();
            for &backend in &cell.backends {
                let place = format!("{}, round {number} of {}: {:8}", cell.case.name(), options.rounds, backend.name());
                let undisturbed = |measured: &Measured| measured.cpu_share >= CPU_SHARE_MIN;
                let measure = || measure(backend, cell.case, options.seconds, machine.tsc_hz, directory.path());
                let measured = undisturbed_if_can_be(undisturbed, measure)?;
                match &measured {
                    Ok(Measured { mframes, cycles, cpu_share, .. }) => eprintln!(
                        "{place} {mframes:6.2} Mframe/s {cycles:6.1} cycles, {:3.0} % of its CPU",
                        cpu_share * 100.0
                    ),
                    Err(error) => eprintln!("{place} failed: {error:#}"),
                }
                round.insert(backend, measured.map_err(|error| format!("{error:#}")));
            }
            cell.rounds.push(round);
        }
    }
    cells.iter_mut().for_each(Cell::judge);
    Ok(outcome(&machine, options, &cells))
}

/// One switch, from its start to its end.
fn measure(backend: Backend, case: Case, seconds: u64, tsc_hz: f64, files: &Path) -> Result<Measured> {
    let directory = scratch_dir()?;
    let socket = directory.path().join("v0");
    let file = Files(files).to_guest(case.frame_len)?;
    let device = format!("net_pcap0,rx_pcap={},infinite_rx=1", file.display());
    let mut guest = Testpmd::guest()
        .virtio_user(VirtioUser::new(&socket).packed(case.packed))
        .memory(Memory::Huge(load::MEMORY_MIB))
        .cpu(LOAD_CPU)
        .start()?;
    uplink::wait_listens(&mut guest, &socket)?;
    let mut switch = uplink::start(backend, Plugs { device: &device, socket: &socket, offloads: false, tsc_hz })?;
    guest.wait_ready()?;
    guest.forward()?;
    switch.guest_is_ready()?;

    interrupt::sleep(WARM_UP)?;
    let begun = Instant::now();
    switch.begin()?;
    let cpu_share = cpu_share(&[switch.process(), guest.process()], Duration::from_secs(seconds))?;
    let totals = switch.end()?;
    let passed = begun.elapsed().as_secs_f64();
    ensure!(totals.to_nic > 0.0 && totals.from_nic > 0.0, "no frame came back to the NIC: {totals:?}");
    guest.quit()?;
    Ok(Measured {
        mframes: totals.to_nic / passed / 1e6,
        cycles: totals.busy_cycles / totals.to_nic,
        burst: None,
        load_dropped: 0,
        lost: Some((1.0 - totals.to_nic / totals.from_nic).max(0.0)),
        cpu_share,
        half_load: None,
    })
}

fn outcome(machine: &Machine, options: &Options, cells: &[Cell]) -> Outcome {
    let bars: Vec<Bar> = cells.iter().flat_map(bars).collect();
    let verdicts = bars.iter().map(|bar| json!({"bar": bar, "holds": bar.holds()})).collect::<Vec<_>>();
    let json = json!({
        "bench": "nic",
        "machine": machine,
        "rounds": options.rounds,
        "seconds": options.seconds,
        "cells": cells.iter().map(Cell::json).collect::<Vec<_>>(),
        "bars": verdicts,
    });
    let head = vec![
        machine.describe(),
        "NIC, guest, NIC; medians of the rounds that count; cycles: busy ones of CPU 0 a frame that came back to the NIC,"
            .to_owned(),
        "its NIC's own included; lost: per cent of what the NIC received that did not come back to it".to_owned(),
    ];
    let rows = cells.iter().flat_map(rows).collect();
    let notes = cells.iter().map(Cell::note).collect();
    Outcome { head, tables: vec![Table { headings: &HEADINGS_HERE, rows, notes }], bars, json }
}

const HEADINGS_HERE: [&str; COLUMNS + 1] = {
    let mut headings = [" lost %"; COLUMNS + 1];
    let mut column = 0;
    while column < COLUMNS {
        headings[column] = HEADINGS[column];
        column += 1;
    }
    headings
};

fn rows(cell: &Cell) -> Vec<Vec<String>> {
    let lost = |backend| figure(cell.summary(backend, LOST).map(|lost| lost.median), 2);
    let row = |(mut row, &backend): (Vec<String>, &Backend)| {
        row.truncate(COLUMNS);
        row.push(lost(backend));
        row
    };
    cell.rows().zip(&cell.backends).map(row).collect()
}

/// What Ringway has to be, beside those that took part.
fn bars(cell: &Cell) -> Vec<Bar> {
    let bar = |a: Backend, b: Backend, limit| Bar {
        what: format!("{}: busy cycles a delivered frame, {} / {}", cell.case.name(), a.name(), b.name()),
        value: cell.ratio(a, cell, b, CYCLES).map(|ratio| ratio.median),
        limit,
        void: None,
    };
    let wanted = [
        bar(Backend::Ringway, Backend::Testpmd, Limit::AtMost(1.0)),
        bar(Backend::Ovs, Backend::Ringway, Limit::AtLeast(1.5)),
    ];
    let took_part = |other| cell.backends.contains(&Backend::Ringway) && cell.backends.contains(&other);
    let others = [Backend::Testpmd, Backend::Ovs];
    wanted.into_iter().zip(others).filter(|&(_, other)| took_part(other)).map(|(bar, _)| bar).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn cell(cycles: [f64; 3]) -> Cell {
        let measured = |cycles: f64| Measured {
            mframes: 1.0,
            cycles,
            burst: None,
            load_dropped: 0,
            lost: Some(0.25),
            cpu_share: 1.0,
            half_load: None,
        };
        let mut cell = Cell::new(Case { packed: true, frame_len: 64 }, &uplink::BACKENDS);
        cell.rounds = vec![uplink::BACKENDS.into_iter().zip(cycles.map(|cycles| Ok(measured(cycles)))).collect()];
        cell.judge();
        cell
    }

    #[test]
    fn not_above_testpmd_and_well_below_open_vswitch() {
        let holds = |cycles| bars(&cell(cycles)).iter().map(Bar::holds).collect::<Vec<_>>();
        assert_eq!(holds([300.0, 450.0, 300.0]), [true, true]);
        assert_eq!(holds([299.0, 449.0, 300.0]), [false, false]);
    }

    #[test]
    fn a_row_tells_what_was_lost() {
        let rows = rows(&cell([300.0, 450.0, 200.0]));
        assert!(rows.iter().all(|row| row.len() == HEADINGS_HERE.len()));
        assert_eq!(rows[2], ["packed", "64", "ringway", "1.00", "200.0", "200.0", "200.0", "0.67", "25.00"]);
    }
}
