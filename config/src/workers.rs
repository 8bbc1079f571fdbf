//! The workers: where they run, how many, and what they do with queue pairs.

use std::collections::HashSet;

use toml::Spanned;

use crate::error::{Error, Problem};
use crate::plan::{Count, Idle, Unit, Workers};
use crate::raw::{Number, RawWorkers, Text};
use crate::rules;
use crate::source::Source;
use crate::words::unknown_word;

pub(crate) const FLOW_TABLE_ENTRIES_DEFAULT: usize = 65_536;
/// Below it, a few guests that talk to each other would fill the table.
pub(crate) const FLOW_TABLE_ENTRIES_MIN: usize = 1024;
/// Some 6 GiB for each worker.
pub(crate) const FLOW_TABLE_ENTRIES_MAX: usize = 64 << 20;
/// The last CPU in the kernel's fixed-size `cpu_set_t`.
pub(crate) const CPU_MAX: usize = 1023;

/// The table, or what is wrong with it.
pub(crate) fn workers(source: &Source<'_>, raw: Option<RawWorkers>) -> Result<Workers, Error> {
    let raw = raw.unwrap_or_default();
    Ok(Workers {
        count: count(source, &raw)?,
        cpus: cpus(source, raw.cpus)?,
        unit: word(source, raw.placement, "placement", &Unit::ALL, Unit::as_str)?,
        idle: word(source, raw.idle, "value of `idle`", &Idle::ALL, Idle::as_str)?,
        flow_table_entries: flow_table_entries(source, raw.flow_table_entries)?,
    })
}

fn count(source: &Source<'_>, raw: &RawWorkers) -> Result<Count, Error> {
    let range = 1..=CPU_MAX as u64 + 1;
    let per_socket = rules::number(source, raw.per_socket.as_ref(), "number of workers", range)?;
    Ok(per_socket.map_or(Count::Default, Count::PerSocket))
}

fn word<T: Copy + Default>(
    source: &Source<'_>,
    written: Option<Text>,
    what: &'static str,
    all: &[T],
    name: fn(&T) -> &'static str,
) -> Result<T, Error> {
    let Some(written) = written else { return Ok(T::default()) };
    let named = all.iter().find(|one| name(one) == written.as_ref()).copied();
    let known: Vec<_> = all.iter().map(name).collect();
    named.ok_or_else(|| unknown_word(source, &written, what, &known))
}

fn flow_table_entries(source: &Source<'_>, written: Option<Number>) -> Result<usize, Error> {
    let Some(written) = written else {
        return Ok(FLOW_TABLE_ENTRIES_DEFAULT);
    };
    let (span, given) = (written.span(), written.into_inner());
    match usize::try_from(given) {
        Ok(entries @ FLOW_TABLE_ENTRIES_MIN..=FLOW_TABLE_ENTRIES_MAX) => Ok(entries),
        _ => Err(source.refuse(span, Problem::BadFlowTable(given))),
    }
}

fn cpus(source: &Source<'_>, written: Option<Spanned<Vec<Number>>>) -> Result<Option<Vec<usize>>, Error> {
    let Some(written) = written else {
        return Ok(None);
    };
    if written.as_ref().is_empty() {
        return Err(source.refuse(written.span(), Problem::NoCpu));
    }
    let mut seen = HashSet::new();
    let mut cpus = Vec::new();
    for number in written.into_inner() {
        let (span, given) = (number.span(), number.into_inner());
        let cpu = usize::try_from(given).ok().filter(|&cpu| cpu <= CPU_MAX);
        let cpu = cpu.ok_or_else(|| source.refuse(span.clone(), Problem::BadCpu(given)))?;
        if !seen.insert(cpu) {
            let (what, value) = ("CPU", cpu.to_string());
            return Err(source.refuse(span, Problem::ListedTwice { what, value }));
        }
        cpus.push(cpu);
    }
    Ok(Some(cpus))
}
