//! A queue moves from one worker to another while frames flow, of which none is lost and none passes another.
//!
//! 1. The new worker keeps what it is handed for the slot that the queue will have.
//! 2. Every worker hears that the queue is there. What they have handed to the old one before is still on its way; what they
//!    hand to the new one waits. A worker that finds little room left on the way there visits nobody: frames wait with their
//!    senders.
//! 3. The old worker delivers what was handed to it and gives the queue up.
//! 4. The new one takes it, and delivers what has waited.
//! 5. Every worker delivers what it was handed until now: frames that the old worker took from the queue among it.
//! 6. Only now the new worker begins to take frames from the queue.
//!
//! Nobody stands still but the queue, and it for a few turns of two workers.

use std::sync::atomic::Ordering;

use super::placement::{Placement, QueueRef};
use super::{Switch, Worker};
use crate::guest::PairId;

/// Why a queue stays where it is.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum MoveError {
    /// It is not in use.
    #[error("no worker has it: it is not in use")]
    NoQueue,
    /// There is no such worker.
    #[error("there is no such worker; `ringway show workers` lists them")]
    NoWorker,
    /// All slots of the worker are taken.
    #[error("the worker has no room for it")]
    NoRoom,
    /// The worker cannot have a NIC's queue, or has no memory for what is handed to it meanwhile.
    #[error("the worker cannot take it: {0}")]
    Refused(String),
}

impl Switch {
    /// Moves a pair to a worker; whether it was with another. When this returns, it is there.
    ///
    /// # Errors
    /// When it cannot move; then nothing has changed.
    pub fn move_pair(&self, id: PairId, worker: u16) -> Result<bool, MoveError> {
        let mut placement = self.placement();
        let from = placement.at(QueueRef::Pair(id)).ok_or(MoveError::NoQueue)?;
        if from.worker == worker {
            return Ok(false);
        }
        self.hand_over(&mut placement, QueueRef::Pair(id), worker)?;
        placement.chooser.note_told(id, worker);
        Ok(true)
    }

    /// Moves a queue to another worker.
    pub(super) fn hand_over(&self, placement: &mut Placement, queue: QueueRef, worker: u16) -> Result<(), MoveError> {
        let from = placement.at(queue).ok_or(MoveError::NoQueue)?;
        let (old, new) = self.worker(from.worker).zip(self.worker(worker)).ok_or(MoveError::NoWorker)?;
        if placement.wants_dpdk(queue) {
            new.register_nics().map_err(MoveError::Refused)?;
        }
        let to = placement.place_again(queue, worker).ok_or(MoveError::NoRoom)?;
        let (old_slot, new_slot) = (usize::from(from.slot), usize::from(to.slot));
        if let Err(error) = new.expect(new_slot) {
            placement.put_back(queue, from);
            placement.free(to);
            return Err(MoveError::Refused(error.to_string()));
        }
        placement.topology.arrival = Some(to);
        placement.list(queue);
        self.publish(placement);
        match queue {
            QueueRef::Pair(_) => {
                if let Some(pair) = old.detach(old_slot) {
                    new.attach(new_slot, pair);
                }
            }
            QueueRef::Nic(_) => {
                if let Some(taken) = old.detach_nic(old_slot) {
                    new.attach_nic(new_slot, taken).map_err(MoveError::Refused)?;
                }
            }
        }
        placement.free(from);
        placement.topology.arrival = None;
        self.publish(placement);
        Worker::flush(&self.workers());
        new.visit(new_slot);
        self.moves.fetch_add(1, Ordering::Relaxed);
        tracing::debug!("{} moves from worker {} to worker {worker}", self.queue_name(queue), from.worker);
        Ok(())
    }

    /// What a queue is called.
    pub(super) fn queue_name(&self, queue: QueueRef) -> String {
        let (port, index) = match queue {
            QueueRef::Pair(id) => (id.port, id.index),
            QueueRef::Nic(id) => (id.port, id.index),
        };
        format!("{}/{index}", self.port_name(port).unwrap_or("?"))
    }
}
