//! Workers come and go while the switch runs. A number is free again when its worker is gone; what that counted stays counted.

use std::sync::{Arc, Mutex, PoisonError, RwLock};

use super::{MoveError, Switch};
use crate::worker::{Common, WORKERS_MAX, Worker, WorkerCounters, WorkerError};

/// Why there is not a worker more or less.
#[derive(Debug, thiserror::Error)]
pub enum RosterError {
    /// It does not start.
    #[error(transparent)]
    Start(#[from] WorkerError),
    /// Two workers on a CPU would take turns.
    #[error("worker {number} runs on CPU {cpu} already; `ringway show workers` lists them")]
    CpuTaken {
        /// Number of the worker.
        number: u16,
        /// The CPU asked for.
        cpu: usize,
    },
    /// There are as many as can be.
    #[error("there are {WORKERS_MAX} workers, which is the most")]
    TooMany,
    /// Somebody has to be there.
    #[error("it is the only worker; add another one first")]
    LastWorker,
    /// Its queues have nowhere to go.
    #[error("{queue} cannot move away: {source}")]
    Stuck {
        /// The first of them.
        queue: String,
        /// Why.
        source: MoveError,
    },
    /// There is none of this number.
    #[error("there is no such worker; `ringway show workers` lists them")]
    NoWorker,
}

/// What a worker counted, or counts.
#[derive(Clone, Debug)]
pub struct Tally {
    /// Its number.
    pub number: u16,
    /// Its CPU.
    pub cpu: usize,
    /// What it counts.
    pub counters: Arc<WorkerCounters>,
}

/// The workers that there are, and were.
#[derive(Debug)]
pub(super) struct Roster {
    common: Common,
    /// By number, some of which may be missing.
    live: RwLock<Vec<Arc<Worker>>>,
    past: Mutex<Vec<Tally>>,
}

impl Roster {
    pub(super) fn new(common: Common) -> Self {
        Self { common, live: RwLock::default(), past: Mutex::default() }
    }

    pub(super) fn live(&self) -> Vec<Arc<Worker>> {
        self.live.read().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Those that there are, then those that there were.
    fn tallies(&self) -> Vec<Tally> {
        let tally = |worker: &Arc<Worker>| {
            let Worker { number, cpu, counters, .. } = &**worker;
            Tally { number: *number, cpu: *cpu, counters: counters.clone() }
        };
        let past = self.past.lock().unwrap_or_else(PoisonError::into_inner);
        self.live().iter().map(tally).chain(past.iter().cloned()).collect()
    }

    /// Starts a worker on a CPU; nobody else may change the roster meanwhile.
    pub(super) fn add(&self, cpu: usize) -> Result<Arc<Worker>, RosterError> {
        let live = self.live();
        if let Some(Worker { number, cpu, .. }) = live.iter().map(|worker| &**worker).find(|worker| worker.cpu == cpu) {
            return Err(RosterError::CpuTaken { number: *number, cpu: *cpu });
        }
        let is_free = |number: &u16| live.iter().all(|worker| worker.number != *number);
        let number = (0..WORKERS_MAX as u16).find(is_free).ok_or(RosterError::TooMany)?;
        let mut past = self.past.lock().unwrap_or_else(PoisonError::into_inner);
        let before = past.iter().position(|past| (past.number, past.cpu) == (number, cpu));
        let counters = before.map_or_else(Arc::default, |before| past[before].counters.clone());
        let worker = Arc::new(Worker::start(number, cpu, &live, &self.common, counters)?);
        // It counts on from where it was.
        before.map(|before| past.swap_remove(before));
        let mut live = self.live.write().unwrap_or_else(PoisonError::into_inner);
        live.push(worker.clone());
        live.sort_by_key(|worker| worker.number);
        Ok(worker)
    }

    /// Ends a worker that has no queue any more and that nobody sends to; nobody else may change the roster meanwhile.
    pub(super) fn remove(&self, number: u16) {
        let mut live = self.live.write().unwrap_or_else(PoisonError::into_inner);
        let Some(at) = live.iter().position(|worker| worker.number == number) else { return };
        let worker = live.remove(at);
        worker.unlink(&live);
        drop(live);
        let tally = Tally { number, cpu: worker.cpu, counters: worker.counters.clone() };
        self.past.lock().unwrap_or_else(PoisonError::into_inner).push(tally);
    }
}

impl Switch {
    /// The workers that there are, by number; some numbers may be missing.
    #[must_use]
    pub fn workers(&self) -> Vec<Arc<Worker>> {
        self.roster.live()
    }

    /// The worker of a number.
    #[must_use]
    pub fn worker(&self, number: u16) -> Option<Arc<Worker>> {
        self.workers().into_iter().find(|worker| worker.number == number)
    }

    /// What all workers count, and what those counted that are gone.
    #[must_use]
    pub fn tallies(&self) -> Vec<Tally> {
        self.roster.tallies()
    }

    /// Starts one more worker, on a CPU that has none. It has no queues yet.
    ///
    /// # Errors
    /// When there can be none.
    pub fn add_worker(&self, cpu: usize) -> Result<u16, RosterError> {
        let mut placement = self.placement();
        let worker = self.roster.add(cpu)?;
        Worker::set_topology(std::slice::from_ref(&worker), &Arc::new(placement.topology.clone()));
        placement.chooser.note_cpu(worker.number, cpu);
        placement.open(worker.number);
        tracing::info!("worker {} starts on CPU {cpu}", worker.number);
        Ok(worker.number)
    }

    /// Ends a worker, after all that it has moved to others.
    ///
    /// # Errors
    /// When there is no other one, or the others have no room: then it keeps what has not moved yet.
    pub fn remove_worker(&self, number: u16) -> Result<(), RosterError> {
        let mut placement = self.placement();
        let worker = self.worker(number).ok_or(RosterError::NoWorker)?;
        if !placement.close(number) {
            return Err(RosterError::LastWorker);
        }
        for queue in placement.queues_of(number) {
            let moved = placement.best_for(queue).ok_or(MoveError::NoRoom);
            if let Err(source) = moved.and_then(|to| self.hand_over(&mut placement, queue, to)) {
                placement.open(number);
                return Err(RosterError::Stuck { queue: self.queue_name(queue), source });
            }
        }
        self.roster.remove(number);
        tracing::info!("worker {number} on CPU {} ends", worker.cpu);
        Ok(())
    }
}
