//! The workers: where they run, how many, and what they do with queue pairs.

use std::collections::HashSet;

use toml::Spanned;

use crate::error::{Error, Problem};
use crate::plan::{Choice, Count, Idle, Pin, Unit, Workers};
use crate::raw::{Number, RawPort, RawWorkers, Text};
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
    let reserved = cpus(source, "reserved_cpus", raw.reserved_cpus.as_ref())?.unwrap_or_default();
    Ok(Workers {
        count: count(source, &raw)?,
        cpus: not_reserved(source, "cpus", raw.cpus.as_ref(), &reserved)?,
        reserved_cpus: reserved,
        policy: word(source, raw.policy, "policy", &Choice::ALL, Choice::as_str)?,
        unit: word(source, raw.placement, "placement", &Unit::ALL, Unit::as_str)?,
        idle: word(source, raw.idle, "value of `idle`", &Idle::ALL, Idle::as_str)?,
        flow_table_entries: flow_table_entries(source, raw.flow_table_entries)?,
    })
}

fn count(source: &Source<'_>, raw: &RawWorkers) -> Result<Count, Error> {
    let range = 1..=CPU_MAX as u64 + 1;
    let per_socket = rules::number(source, raw.per_socket.as_ref(), "number of workers", range.clone())?;
    let max = rules::number(source, raw.count_max.as_ref(), "number of workers", range)?;
    match (&raw.count, per_socket) {
        (Some(count), _) if count.as_ref() != "auto" => Err(unknown_word(source, count, "value of `count`", &["auto"])),
        (Some(count), Some(_)) => Err(source.refuse(count.span(), Problem::AutoPerSocket)),
        (Some(_), None) => Ok(Count::Auto { max }),
        (None, per_socket) => match &raw.count_max {
            Some(written) => Err(source.refuse(written.span(), Problem::MaxWithoutAuto)),
            None => Ok(per_socket.map_or(Count::Default, Count::PerSocket)),
        },
    }
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

/// Where a port is pinned to.
pub(crate) fn pin(source: &Source<'_>, raw: &RawPort, workers: &Workers) -> Result<Option<Pin>, Error> {
    let node = rules::number(source, raw.worker_node.as_ref(), "NUMA node", 0..=CPU_MAX as u64)?;
    if let (Some(written), Some(_)) = (&raw.worker_cpus, node) {
        return Err(source.refuse(written.span(), Problem::TwoPins));
    }
    let Some(pinned) = not_reserved(source, "worker_cpus", raw.worker_cpus.as_ref(), &workers.reserved_cpus)? else {
        return Ok(node.map(Pin::Node));
    };
    if let (Some(cpus), Some(written)) = (&workers.cpus, &raw.worker_cpus)
        && let Some(number) = written.as_ref().iter().find(|number| !cpus.iter().any(|&cpu| is(number, cpu)))
    {
        return Err(source.refuse(number.span(), Problem::PinWithoutWorker(*number.as_ref())));
    }
    Ok(Some(Pin::Cpus(pinned)))
}

/// A list of CPUs of which none is reserved.
fn not_reserved(
    source: &Source<'_>,
    key: &'static str,
    written: Option<&Spanned<Vec<Number>>>,
    reserved: &[usize],
) -> Result<Option<Vec<usize>>, Error> {
    let listed = cpus(source, key, written)?;
    let mut numbers = written.into_iter().flat_map(|written| written.as_ref());
    match numbers.find(|number| reserved.iter().any(|&cpu| is(number, cpu))) {
        Some(number) => Err(source.refuse(number.span(), Problem::ReservedCpu(*number.as_ref()))),
        None => Ok(listed),
    }
}

fn is(number: &Number, cpu: usize) -> bool {
    usize::try_from(*number.as_ref()).is_ok_and(|number| number == cpu)
}

fn cpus(
    source: &Source<'_>,
    key: &'static str,
    written: Option<&Spanned<Vec<Number>>>,
) -> Result<Option<Vec<usize>>, Error> {
    let Some(written) = written else {
        return Ok(None);
    };
    if written.as_ref().is_empty() {
        return Err(source.refuse(written.span(), Problem::NoCpu(key)));
    }
    let mut seen = HashSet::new();
    let mut cpus = Vec::new();
    for number in written.as_ref() {
        let (span, given) = (number.span(), *number.as_ref());
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
