//! The loop that decides, and the only writer of the metadata log: drain the queue, decide on a draft, write ONE entry,
//! wait for apply's verdict, answer. Every reply comes from that verdict. After winning leadership, and after a refused
//! write, the loop passes the read barrier before it decides again; after a write of unknown fate it settles that fate
//! by an entry of its own. Policy lives in `decide`.

mod handle;

pub use handle::{DeciderHandle, Outcome};

use crate::clock;
use crate::decide::batch::{Plan, run_batch};
use crate::decide::command::Command;
use crate::decide::limits::COMMANDS_MAX;
use crate::decide::sessions::Sessions;
use crate::limits::{BARRIER_RETRY, COMMAND_QUEUE_MAX, DOUBT_PAUSE};
use crate::quorum::{Lead, Quorum, Verdict, WriteError};
use bytes::Bytes;
use handle::Request;
use parking_lot::Mutex;
use protocol::error::{ApiError, ErrorCode};
use protocol::metadata::batch::MetadataBatch;
use protocol::metadata::record::{ClusterFormed, Fact, METADATA_VERSION_MAX};
use protocol::planted::Bug;
use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::{mpsc, watch};
use uuid::Uuid;

/// See the module's text.
pub struct Decider {
    queue: mpsc::Receiver<Request>,
    sessions: Arc<Mutex<Sessions>>,
    active: watch::Sender<Option<u64>>,
    quorum: Arc<Quorum>,
    cluster_id: Uuid,
    tick: Duration,
    waiting: VecDeque<Request>,
}

/// Why deciding in a term ended.
pub(crate) enum Ended {
    /// Leadership is elsewhere.
    LostLead,
    /// A batch was dropped or certainly not written: pass the barrier again.
    Refused,
    /// A batch may be in the log: settle its fate before anybody is answered.
    Unknown,
    /// Nobody can send commands any more.
    Closed,
}

impl Decider {
    /// A decider and the handle on it. A tick comes every quarter of a lease.
    #[must_use]
    pub fn new(quorum: Arc<Quorum>, sessions: Sessions, cluster_id: Uuid) -> (Self, DeciderHandle) {
        let tick = Duration::from_millis((sessions.timers().lease_ms / 4).max(1));
        let sessions = Arc::new(Mutex::new(sessions));
        let (sender, queue) = mpsc::channel(COMMAND_QUEUE_MAX);
        let (active, watcher) = watch::channel(None);
        let handle = DeciderHandle {
            queue: sender,
            sessions: Arc::clone(&sessions),
            active: watcher,
            quorum: Arc::clone(&quorum),
        };
        let waiting = VecDeque::new();
        (Self { queue, sessions, active, quorum, cluster_id, tick, waiting }, handle)
    }

    /// Runs until every handle is gone.
    pub async fn run(mut self) {
        let mut lead = self.quorum.lead();
        // The term in which a batch of unknown fate was written. In any later one the read barrier settles it.
        let mut unsettled = None;
        loop {
            let now = lead.borrow_and_update().clone();
            let Lead::Me { term } = now else { if self.refuse_until(&mut lead).await { continue } else { return } };
            let known = match unsettled {
                Some(doubted) if doubted == term => self.quorum.settle(term).await,
                _ => self.quorum.barrier(term).await,
            };
            if known.is_err() {
                self.refuse_queued();
                tokio::time::sleep(BARRIER_RETRY).await;
                continue;
            }
            unsettled = None;
            let committed = self.quorum.committed().batch_no;
            self.sessions.lock().takeover(committed, clock::mono());
            self.active.send_replace(Some(term));
            tracing::info!(term, "this controller is active");
            let ended = self.decide_in(term, &mut lead).await;
            self.active.send_replace(None);
            self.sessions.lock().step_down();
            self.refuse_queued();
            match ended {
                Ended::LostLead => tracing::info!(term, "this controller is no longer active"),
                Ended::Refused => {
                    tracing::warn!(term, "a batch was not written as decided: passing the barrier again");
                    tokio::time::sleep(DOUBT_PAUSE).await;
                }
                Ended::Unknown => {
                    tracing::warn!(term, "a batch's fate is not known: settling it before deciding again");
                    unsettled = Some(term);
                    tokio::time::sleep(DOUBT_PAUSE).await;
                }
                Ended::Closed => return,
            }
        }
    }

    /// Refuses what was not decided: certainly nothing came of it.
    fn refuse_queued(&mut self) {
        let refusal = ApiError::new(ErrorCode::NotController, "leadership moved");
        while let Ok(request) = self.queue.try_recv() {
            self.waiting.push_back(request);
        }
        self.waiting.drain(..).for_each(|request| reply(request, Err(refusal.clone())));
    }

    /// Refuses commands until leadership changes. False: nobody can send any more.
    async fn refuse_until(&mut self, lead: &mut watch::Receiver<Lead>) -> bool {
        loop {
            tokio::select! {
                changed = lead.changed() => return changed.is_ok(),
                request = self.queue.recv() => match request {
                    Some(request) => {
                        let text = "this controller is not active";
                        reply(request, Err(ApiError::new(ErrorCode::NotController, text)));
                    }
                    None => return false,
                },
            }
        }
    }

    async fn decide_in(&mut self, term: u64, lead: &mut watch::Receiver<Lead>) -> Ended {
        if let Err(ended) = self.form_cluster(term).await {
            return ended;
        }
        let mut ticks = tokio::time::interval(self.tick);
        ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        let mut more = false;
        loop {
            if *lead.borrow_and_update() != (Lead::Me { term }) {
                return Ended::LostLead;
            }
            if !more && self.waiting.is_empty() {
                tokio::select! {
                    _ = ticks.tick() => {}
                    changed = lead.changed() => match changed {
                        Ok(()) => continue,
                        Err(_) => return Ended::Closed,
                    },
                    request = self.queue.recv() => match request {
                        Some(request) => self.waiting.push_back(request),
                        None => return Ended::Closed,
                    },
                }
            }
            while self.waiting.len() < COMMANDS_MAX
                && let Ok(request) = self.queue.try_recv()
            {
                self.waiting.push_back(request);
            }
            metrics::gauge!(crate::metrics::EVENT_QUEUE_SIZE).set((self.waiting.len() + self.queue.len()) as f64);
            match self.one_round(term).await {
                Ok(goes_on) => more = goes_on,
                Err(ended) => return ended,
            }
        }
    }

    /// Decides, writes, answers. True: there is more work at once.
    async fn one_round(&mut self, term: u64) -> Result<bool, Ended> {
        let image = self.quorum.committed();
        let count = self.waiting.len().min(COMMANDS_MAX);
        let mut commands: Vec<Command> = self.waiting.iter().take(count).map(|r| r.command.clone()).collect();
        if commands.is_empty() {
            commands.push(Command::Tick);
        }
        let Plan { facts, replies, more } = run_batch(&image, &mut self.sessions.lock(), clock::now(), &commands);
        let mut decided: Vec<Request> = self.waiting.drain(..replies.len().min(count)).collect();
        let mut replies = replies.into_iter();
        if protocol::planted::is(Bug::ReplyBeforeVerdict) {
            decided.drain(..).zip(replies.by_ref()).for_each(|(request, outcome)| reply(request, outcome));
        }
        let outcome = if facts.is_empty() {
            self.still_leads(term, !decided.is_empty()).await
        } else {
            let batch = MetadataBatch { base: image.batch_no, facts };
            self.write(term, &batch).await
        };
        match outcome {
            Ok(()) => {
                self.sessions.lock().settled(true);
                decided.into_iter().zip(replies).for_each(|(request, outcome)| reply(request, outcome));
                Ok(more || !self.waiting.is_empty())
            }
            Err((error, ended)) => {
                decided.into_iter().for_each(|request| reply(request, Err(error.clone())));
                Err(ended)
            }
        }
    }

    /// Replies without facts speak of the image: nobody else may have moved it on meanwhile.
    async fn still_leads(&self, term: u64, anyone_asks: bool) -> Result<(), (ApiError, Ended)> {
        if !anyone_asks || self.quorum.is_fresh(term) || self.quorum.barrier(term).await.is_ok() {
            return Ok(());
        }
        Err((ApiError::new(ErrorCode::NotController, "the quorum does not answer"), Ended::LostLead))
    }

    /// Writes what was decided. What its callers are told, and how deciding goes on, follows from the verdict.
    pub(crate) async fn write(&self, term: u64, batch: &MetadataBatch) -> Result<(), (ApiError, Ended)> {
        let unknown = |text: String, ended| (ApiError::new(ErrorCode::OutcomeUnknown, text), ended);
        match self.quorum.write(term, Bytes::from(batch.encode())).await {
            Ok(Verdict::Applied { .. }) => {
                metrics::counter!(crate::metrics::BATCHES_WRITTEN).increment(1);
                Ok(())
            }
            Ok(Verdict::Dropped { base, at }) => {
                metrics::counter!(crate::metrics::BATCHES_DROPPED).increment(1);
                self.sessions.lock().settled(false);
                let text = format!("the batch was decided on {base}, the image was at {at}: ask the controller again");
                Err(unknown(text, Ended::Refused))
            }
            Ok(Verdict::NoBatch) => Err(unknown("the entry was applied as no batch".to_owned(), Ended::Unknown)),
            Err(WriteError::NotLeader { term }) => {
                self.sessions.lock().settled(false);
                let text = format!("leadership of term {term} ended before the batch was written");
                Err((ApiError::new(ErrorCode::NotController, text), Ended::Refused))
            }
            Err(full @ WriteError::DiskFull) => {
                self.sessions.lock().settled(false);
                Err((ApiError::new(ErrorCode::DiskFull, full.to_string()), Ended::Refused))
            }
            Err(WriteError::Unknown(text)) => Err(unknown(text, Ended::Unknown)),
        }
    }

    /// The first leader of a new cluster writes what the cluster is.
    async fn form_cluster(&self, term: u64) -> Result<(), Ended> {
        let image = self.quorum.committed();
        if image.cluster.is_formed() {
            return Ok(());
        }
        let formed =
            ClusterFormed { cluster_id: self.cluster_id, incarnation: 1, metadata_version: METADATA_VERSION_MAX };
        let batch = MetadataBatch { base: image.batch_no, facts: vec![Fact::ClusterFormed(formed)] };
        self.write(term, &batch).await.map_err(|(_, ended)| ended)
    }
}

fn reply(request: Request, outcome: Outcome) {
    metrics::histogram!(crate::metrics::EVENT_SECONDS).record(request.arrived.elapsed().as_secs_f64());
    if request.answer.send(outcome).is_err() {
        tracing::debug!("nobody waits for the outcome of a command any more");
    }
}
