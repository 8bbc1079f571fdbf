//! What a frame costs at 80 % of what the worker can do: of one flow, and of 64 K.

use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use ringway_testbed::{Metrics, scratch_dir};
use serde::Serialize;

use super::attacks::FRAME_LEN;
use super::subject::Subject;
use super::under_attack::share;
use crate::generator::guest::Shape;
use crate::generator::pace::Rate;
use crate::generator::pattern::Pattern;
use crate::generator::{Generator, Sockets, Stream};
use crate::switch::Backend;

const SHAPE: Shape = Shape { ring_size: 256, frame_len: FRAME_LEN };
const WARM_UP: Duration = Duration::from_millis(500);
/// Of its capacity.
const LOAD: f64 = 0.8;
/// Stations that send, and that are sent to, in each direction: 32,768 flows.
const SOURCES: u32 = 256;
const DESTINATIONS: u32 = 128;
pub(super) const FLOWS: u32 = 2 * SOURCES * DESTINATIONS;

/// What one round came to.
#[derive(Debug, Clone, Copy, Serialize)]
pub(super) struct Costs {
    /// Million frames a second of one flow each way that a worker without a pause would do, and what was asked for.
    pub(super) capacity: f64,
    pub(super) asked: f64,
    /// Busy cycles a frame, and million frames a second that came through.
    pub(super) one: f64,
    pub(super) one_mframes: f64,
    pub(super) many: f64,
    pub(super) many_mframes: f64,
    /// Flows in the table.
    pub(super) entries: f64,
    /// The smaller part of its CPU that switch or guests had while costs were measured.
    pub(super) cpu_share: f64,
}

/// What the worker has done so far.
#[derive(Clone, Copy)]
struct Done {
    frames: f64,
    busy: f64,
}

impl Done {
    fn of(metrics: &Metrics) -> Self {
        let frames = metrics.sum("ringway_port_receive_packets_total", &[]);
        Self { frames, busy: metrics.sum("ringway_worker_seconds_total", &[("mode", "busy")]) }
    }
}

pub(super) fn measure(measured: Duration, tsc_hz: f64) -> Result<Costs> {
    let directory = scratch_dir()?;
    let sockets = Sockets::listen(directory.path(), 2)?;
    let mut subject = Subject::start(Backend::Ringway, sockets.paths())?;
    let mut generator = Generator::connect(&sockets, SHAPE, tsc_hz)?;
    subject.wait_ready(2)?;
    let page = |subject: &Subject| subject.metrics()?.context("no metrics page");

    // Busy cycles a frame, frames a second of busy time, those that came through a second, and the part of the CPUs.
    let mut run = |sources, destinations, rate| -> Result<(f64, f64, f64, f64)> {
        let stream = |from, to| Stream { guest: from, pattern: Pattern::flows(from, sources, to, destinations), rate };
        let mut streams = vec![stream(0, 1), stream(1, 0)];
        generator.run(&mut streams, Duration::ZERO, WARM_UP)?;
        let before = Done::of(&page(&subject)?);
        let (begun, times) = (Instant::now(), subject.cpu_times()?);
        let counts = generator.run(&mut streams, Duration::ZERO, measured)?;
        let share = share(times, subject.cpu_times()?, begun.elapsed());
        let after = Done::of(&page(&subject)?);
        let (frames, busy) = (after.frames - before.frames, after.busy - before.busy);
        ensure!(frames > 0.0 && busy > 0.0, "Ringway counted nothing");
        let received = counts.iter().map(|counts| counts.received as f64 / counts.seconds).sum();
        Ok((busy * tsc_hz / frames, frames / busy, received, share))
    };
    let (_, capacity, _, _) = run(1, 1, Rate::Line)?;
    let rate = Rate::PerSecond(capacity * LOAD / 2.0);
    let (one, _, one_frames, share_one) = run(1, 1, rate)?;
    run(SOURCES, DESTINATIONS, Rate::Line)?;
    let (many, _, many_frames, share_many) = run(SOURCES, DESTINATIONS, rate)?;
    let entries = page(&subject)?.sum("ringway_flow_entries", &[]);
    Ok(Costs {
        capacity: capacity / 1e6,
        asked: capacity * LOAD / 1e6,
        one,
        one_mframes: one_frames / 1e6,
        many,
        many_mframes: many_frames / 1e6,
        entries,
        cpu_share: share_one.min(share_many),
    })
}
