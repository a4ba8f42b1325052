//! Where commands enter the deciding loop, and what may be said without it: who is active, whether reads may be answered,
//! where to go instead. Owns no state but channels; a command that was not queued certainly did nothing.

use crate::decide::command::{Command, Reply};
use crate::decide::sessions::Sessions;
use crate::limits::{COMMAND_QUEUE_MAX, REQUEST_DEADLINE};
use crate::quorum::{Lead, Quorum};
use parking_lot::Mutex;
use protocol::error::{ApiError, ErrorCode, Hint};
use protocol::planted::{self, Bug};
use std::sync::Arc;
use tokio::sync::{mpsc, oneshot, watch};
use tokio::time::Instant;

/// What a command led to.
pub type Outcome = Result<Reply, ApiError>;

/// A queued command.
pub(super) struct Request {
    pub(super) command: Command,
    pub(super) arrived: Instant,
    pub(super) answer: oneshot::Sender<Outcome>,
}

/// Where commands enter. Cheap to clone.
#[derive(Clone)]
pub struct DeciderHandle {
    pub(super) queue: mpsc::Sender<Request>,
    pub(super) sessions: Arc<Mutex<Sessions>>,
    /// The term in which this controller is active.
    pub(crate) active: watch::Receiver<Option<u64>>,
    pub(super) quorum: Arc<Quorum>,
}

impl DeciderHandle {
    /// Queues a command and waits for its outcome.
    ///
    /// # Errors
    /// What `decide` refuses; `NotController` with a hint; `Overloaded` when the queue is full; `OutcomeUnknown` when
    /// the batch's fate is not known.
    pub async fn ask(&self, command: Command) -> Outcome {
        if !self.is_active() {
            return Err(self.not_controller());
        }
        let (answer, outcome) = oneshot::channel();
        let request = Request { command, arrived: Instant::now(), answer };
        if self.queue.try_send(request).is_err() {
            let text = format!("{COMMAND_QUEUE_MAX} commands wait for the metadata quorum");
            return Err(ApiError::new(ErrorCode::Overloaded, text));
        }
        match tokio::time::timeout(REQUEST_DEADLINE, outcome).await {
            Ok(Ok(outcome)) => outcome,
            Ok(Err(_)) => Err(ApiError::new(ErrorCode::OutcomeUnknown, "the controller is stopping")),
            Err(_) => Err(ApiError::new(ErrorCode::Timeout, format!("no verdict within {REQUEST_DEADLINE:?}"))),
        }
    }

    /// Soft state about brokers, shared with the heartbeat streams.
    #[must_use]
    pub fn sessions(&self) -> &Arc<Mutex<Sessions>> {
        &self.sessions
    }

    /// This controller leads and has passed the barrier.
    #[must_use]
    pub fn is_active(&self) -> bool {
        self.active.borrow().is_some()
    }

    /// Active, and certain that nobody else can be: reads may be answered from the committed image, and leases renewed.
    /// The quorum is asked about the very term in which this controller is active.
    #[must_use]
    pub fn may_read(&self) -> bool {
        let active = *self.active.borrow();
        active.is_some_and(|term| self.quorum.is_fresh(term) || planted::is(Bug::NoReadBarrier))
    }

    /// The refusal of a controller that is not active, with the leader it knows.
    #[must_use]
    pub fn not_controller(&self) -> ApiError {
        ApiError::new(ErrorCode::NotController, "this controller is not active").with_hint(self.hint())
    }

    /// Where the active controller is, as far as known.
    #[must_use]
    pub fn hint(&self) -> Hint {
        match &*self.quorum.lead().borrow() {
            Lead::Other { voter, node, .. } => {
                Hint { node_id: voter.id, host: node.host.clone(), port: node.port, leader_epoch: None }
            }
            Lead::Me { .. } => Hint { node_id: self.quorum.me().id, ..Hint::default() },
            Lead::Nobody => Hint::default(),
        }
    }
}
