//! What an attempt's end means for its batch: delivered, failed, or tried again.
//!
//! Owns: the one rule that turns wire codes and lost connections into written, not written and unknown.
//! Never: sends, waits, reads a clock.
//! Invariant: a batch of which any attempt may have been written is never reported as not written.
//! Why retry an unknown outcome: without it every failover would cost records. The price is that a record may be
//! stored twice until producers are idempotent; the order of first occurrences holds all the same.
#![deny(clippy::disallowed_methods, clippy::disallowed_types)]

use super::delivery::Receipt;
use crate::error::{Effect, Error};
use crate::limits::UNKNOWN_TOPIC_PATIENCE_MS;
use crate::retry::{Backoff, Dice, Retry};
use protocol::batch::BatchError;
use protocol::error::{ApiError, ErrorCode, Next};
use protocol::ids::Millis;

/// How a batch's delivery went so far.
#[derive(Debug, Clone)]
pub struct Progress {
    /// Time the batch was opened.
    pub created: Millis,
    /// Time after which it counts as failed.
    pub deadline: Millis,
    /// Attempts that ended.
    pub attempts: u32,
    /// Whether an attempt may have been written.
    pub maybe_written: bool,
    /// The last failure, for people.
    pub last_failure: Option<String>,
    unknown_topic_since: Option<Millis>,
}

impl Progress {
    /// Of a batch that was not tried.
    #[must_use]
    pub fn new(created: Millis, deadline: Millis) -> Self {
        Self { created, deadline, attempts: 0, maybe_written: false, last_failure: None, unknown_topic_since: None }
    }

    fn effect(&self) -> Effect {
        if self.maybe_written { Effect::Unknown } else { Effect::NotWritten }
    }

    /// The failure of a batch whose time is up.
    #[must_use]
    pub fn timeout(&self, now: Millis) -> Error {
        Error::Timeout {
            request: "produce",
            waited_ms: now.saturating_sub(self.created),
            effect: self.effect(),
            last: self.last_failure.clone().unwrap_or_else(|| "it was never sent: no leader was known".to_owned()),
        }
    }
}

/// How an attempt ended.
#[derive(Debug, Clone)]
pub enum AttemptEnd {
    /// As asked.
    Written(Receipt),
    /// Refused by a broker.
    Refused(ApiError),
    /// No answer.
    Lost {
        /// Whether it may have reached the broker.
        sent: bool,
        /// For people.
        cause: String,
    },
    /// It could not be built.
    Unbuildable(BatchError),
}

/// What to do with the batch.
#[derive(Debug, Clone)]
pub enum Verdict {
    /// Delivered.
    Written(Receipt),
    /// Failed for good.
    Failed {
        /// Whether it may have been written.
        effect: Effect,
        /// Why.
        error: Error,
    },
    /// To be tried again at this time.
    Retry(Millis),
}

/// Judges an attempt's end. `node` names who was asked.
pub fn judge(
    progress: &mut Progress,
    end: AttemptEnd,
    node: &str,
    now: Millis,
    backoff: Backoff,
    dice: &mut Dice,
) -> Verdict {
    progress.attempts += 1;
    let error = match end {
        AttemptEnd::Written(receipt) => return Verdict::Written(receipt),
        AttemptEnd::Unbuildable(error) => {
            return Verdict::Failed {
                effect: progress.effect(),
                error: Error::Batch { context: "batch to be sent".to_owned(), error },
            };
        }
        AttemptEnd::Lost { sent, cause } => {
            progress.maybe_written |= sent;
            progress.last_failure = Some(format!("{node}: {cause}"));
            None
        }
        AttemptEnd::Refused(error) => {
            progress.maybe_written |= Effect::of(error.code) == Effect::Unknown;
            progress.last_failure = Some(format!("{node}: {error}"));
            Some(error)
        }
    };
    if let Some(error) = error
        && is_final(progress, &error, now)
    {
        let error = Error::Refused { request: "produce", node: node.to_owned(), error: Box::new(error) };
        return Verdict::Failed { effect: progress.effect(), error };
    }
    match backoff.next(progress.attempts, now, progress.deadline, dice) {
        Retry::At(at) => Verdict::Retry(at),
        Retry::Stop => Verdict::Failed { effect: progress.effect(), error: progress.timeout(now) },
    }
}

/// Whether asking again cannot help. A broker that does not know the topic may only lag behind, for a while.
fn is_final(progress: &mut Progress, error: &ApiError, now: Millis) -> bool {
    match error.code {
        ErrorCode::UnknownTopic | ErrorCode::UnknownPartition => {
            let since = *progress.unknown_topic_since.get_or_insert(now);
            now.saturating_sub(since) >= UNKNOWN_TOPIC_PATIENCE_MS
        }
        code => {
            progress.unknown_topic_since = None;
            code.next() == Next::GiveUp
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const BACKOFF: Backoff = Backoff { first_ms: 10, max_ms: 200 };

    fn run(progress: &mut Progress, end: AttemptEnd, now: Millis) -> Verdict {
        judge(progress, end, "broker 1", now, BACKOFF, &mut Dice::new(1))
    }

    fn refused(code: ErrorCode) -> AttemptEnd {
        AttemptEnd::Refused(ApiError::new(code, "no"))
    }

    #[test]
    fn definite_refusals_that_no_retry_helps_fail_at_once() {
        let mut progress = Progress::new(0, 1_000);
        let verdict = run(&mut progress, refused(ErrorCode::MessageTooLarge), 5);
        assert!(matches!(verdict, Verdict::Failed { effect: Effect::NotWritten, error: Error::Refused { .. } }));
    }

    #[test]
    fn a_lost_answer_makes_every_later_failure_unknown() {
        let mut progress = Progress::new(0, 1_000);
        assert!(matches!(
            run(&mut progress, AttemptEnd::Lost { sent: true, cause: "reset".into() }, 5),
            Verdict::Retry(_)
        ));
        let verdict = run(&mut progress, refused(ErrorCode::MessageTooLarge), 6);
        assert!(matches!(verdict, Verdict::Failed { effect: Effect::Unknown, .. }));
    }

    #[test]
    fn retries_end_at_the_delivery_deadline() {
        let mut progress = Progress::new(0, 100);
        assert!(matches!(run(&mut progress, refused(ErrorCode::NotLeader), 5), Verdict::Retry(6..=15)));
        let Verdict::Failed { effect, error } = run(&mut progress, refused(ErrorCode::NotLeader), 99) else {
            panic!("a retry past the deadline");
        };
        assert_eq!(effect, Effect::NotWritten);
        assert_eq!(error.to_string(), "produce: no success within 99 ms; last failure: broker 1: NotLeader: no");
    }

    #[test]
    fn an_unknown_topic_is_given_a_while() {
        let mut progress = Progress::new(0, 100_000);
        assert!(matches!(run(&mut progress, refused(ErrorCode::UnknownTopic), 50_000), Verdict::Retry(_)));
        assert!(matches!(run(&mut progress, refused(ErrorCode::NotLeader), 51_000), Verdict::Retry(_)));
        assert!(matches!(run(&mut progress, refused(ErrorCode::UnknownTopic), 60_000), Verdict::Retry(_)));
        let late = 60_000 + UNKNOWN_TOPIC_PATIENCE_MS;
        assert!(matches!(run(&mut progress, refused(ErrorCode::UnknownTopic), late), Verdict::Failed { .. }));
    }

    proptest! {
        /// Any history: if one attempt's effect was unknown, the end is written or unknown.
        #[test]
        fn never_calls_a_possible_write_unwritten(ends in prop::collection::vec((0_usize..ErrorCode::ALL.len() + 2, 0_u64..50), 1..30)) {
            let mut progress = Progress::new(0, 500);
            let (mut now, mut possible) = (0, false);
            for (which, pause) in ends {
                now += pause;
                let end = match ErrorCode::ALL.get(which) {
                    Some(code) => {
                        possible |= Effect::of(*code) == Effect::Unknown;
                        refused(*code)
                    }
                    None => {
                        let sent = which == ErrorCode::ALL.len();
                        possible |= sent;
                        AttemptEnd::Lost { sent, cause: String::new() }
                    }
                };
                match run(&mut progress, end, now) {
                    Verdict::Failed { effect, .. } => {
                        prop_assert_eq!(effect == Effect::Unknown, possible);
                        break;
                    }
                    Verdict::Retry(at) => prop_assert!(at > now && at < 500),
                    Verdict::Written(_) => prop_assert!(false, "nothing was written"),
                }
            }
        }
    }
}
