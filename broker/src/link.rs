//! The way to the active controller: which controllers there are, which one is active, and one call that finds it,
//! follows hints, retries and keeps a deadline.
//!
//! Owns: connections to controllers for unary calls. Never: interprets a command.
//! Invariant: a call that may have had an effect is repeated only when the caller says that repeating is harmless;
//! otherwise the caller hears "outcome unknown".

use parking_lot::Mutex;
use protocol::error::{ApiError, Effect, ErrorCode, Next};
use protocol::metadata::record::Endpoint;
use protocol::rpc::channel::Channel;
use protocol::rpc::channel::{Dialer, Traffic};
use protocol::rpc::convert::from_status;
use std::collections::BTreeMap;
use std::future::Future;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::watch;
use tokio::time::Instant;
use tonic::{Response, Status};

use crate::limits;

/// Whether a call whose outcome is unknown may be sent again.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Repeat {
    /// The command is idempotent or a compare-and-set.
    Harmless,
    /// Only a definite refusal may be followed by another attempt.
    OnlyIfRefused,
}

/// How a call is made.
#[derive(Debug, Clone, Copy)]
pub struct CallOptions {
    /// May an attempt of unknown outcome be repeated?
    pub repeat: Repeat,
    /// Time for all attempts together.
    pub deadline: Duration,
    /// Only the active controller answers this call, so an answer shows who it is.
    pub answer_shows_active: bool,
}

impl CallOptions {
    /// A command that only the active controller takes.
    #[must_use]
    pub fn command(repeat: Repeat, deadline: Duration) -> Self {
        Self { repeat, deadline, answer_shows_active: true }
    }

    /// A question that standbys may answer too.
    #[must_use]
    pub fn question(deadline: Duration) -> Self {
        Self { repeat: Repeat::Harmless, deadline, answer_shows_active: false }
    }
}

#[derive(Debug, Default)]
struct Known {
    endpoints: Vec<Endpoint>,
    turn: usize,
    channels: BTreeMap<Endpoint, Channel>,
}

/// The controllers this broker knows, and the one it believes active. Shared by every part that talks to them.
#[derive(Debug, Clone)]
pub struct Controllers {
    known: Arc<Mutex<Known>>,
    active: Arc<watch::Sender<Option<Endpoint>>>,
    dialer: Dialer,
}

impl Controllers {
    /// Begins with the configured ones.
    #[must_use]
    pub fn new(endpoints: Vec<Endpoint>, dialer: Dialer) -> Self {
        let known = Arc::new(Mutex::new(Known { endpoints, ..Known::default() }));
        Self { known, active: Arc::new(watch::Sender::new(None)), dialer }
    }

    /// How connections are made.
    #[must_use]
    pub fn dialer(&self) -> &Dialer {
        &self.dialer
    }

    /// All of them.
    #[must_use]
    pub fn all(&self) -> Vec<Endpoint> {
        self.known.lock().endpoints.clone()
    }

    /// The one believed active.
    #[must_use]
    pub fn active(&self) -> Option<Endpoint> {
        self.active.borrow().clone()
    }

    /// A controller said that it is active.
    pub fn set_active(&self, endpoint: &Endpoint) {
        self.active.send_if_modified(|active| {
            let news = active.as_ref() != Some(endpoint);
            if news {
                *active = Some(endpoint.clone());
            }
            news
        });
    }

    /// Adds a controller learned from a hint or a membership change.
    pub fn learn(&self, endpoint: Endpoint) {
        let mut known = self.known.lock();
        if !known.endpoints.contains(&endpoint) && known.endpoints.len() < limits::CONTROLLERS_MAX {
            known.endpoints.push(endpoint);
        }
    }

    /// Whom to ask: the active one, else the next in turn.
    fn candidate(&self) -> Option<Endpoint> {
        if let Some(active) = self.active() {
            return Some(active);
        }
        let mut known = self.known.lock();
        known.turn = known.turn.wrapping_add(1);
        let at = known.turn % known.endpoints.len().max(1);
        known.endpoints.get(at).cloned()
    }

    /// The asked controller did not serve: forget that it is active, and its connection if that broke.
    fn failed(&self, endpoint: &Endpoint, broken: bool) {
        self.active.send_if_modified(|active| {
            let was = active.as_ref() == Some(endpoint);
            if was {
                *active = None;
            }
            was
        });
        if broken {
            self.known.lock().channels.remove(endpoint);
        }
    }

    async fn channel(&self, endpoint: &Endpoint) -> Result<Channel, ApiError> {
        if let Some(channel) = self.known.lock().channels.get(endpoint) {
            return Ok(channel.clone());
        }
        let channel = self.dialer.connect(endpoint, Traffic::Control).await?;
        self.known.lock().channels.insert(endpoint.clone(), channel.clone());
        Ok(channel)
    }

    /// Calls the active controller until it answers, refuses for good, or the deadline passes.
    ///
    /// # Errors
    /// The controller's refusal; `OutcomeUnknown` when the call may have had an effect and may not be repeated;
    /// the last refusal when the deadline passed.
    pub async fn call<T, F, Fut>(&self, options: CallOptions, operation: F) -> Result<T, ApiError>
    where
        F: Fn(Channel) -> Fut,
        Fut: Future<Output = Result<Response<T>, Status>>,
    {
        let end = Instant::now() + options.deadline;
        let mut pause = Duration::from_millis(limits::RETRY_PAUSE_MS_MIN);
        let mut redirects = 0_u32;
        loop {
            let Some(endpoint) = self.candidate() else {
                return Err(ApiError::new(ErrorCode::NotReachable, "no controller is configured"));
            };
            let error = match self.attempt(&endpoint, end, options.repeat, &operation).await {
                Ok(answer) => {
                    if options.answer_shows_active {
                        self.set_active(&endpoint);
                    }
                    return Ok(answer);
                }
                Err(error) => error,
            };
            let redirected = self.judge(&endpoint, &error, options.repeat)?;
            if Instant::now() + pause >= end {
                return Err(error);
            }
            redirects = if redirected { redirects + 1 } else { 0 };
            // A hint is followed at once, but two controllers may take each other for the active one.
            if redirects != 1 {
                // What a circle of hints says of the active controller is no news.
                match redirects {
                    0 => self.pause(jittered(pause)).await,
                    _ => tokio::time::sleep(jittered(pause)).await,
                }
                pause = (pause * 2).min(Duration::from_millis(limits::RETRY_PAUSE_MS_MAX));
            }
        }
    }

    /// Waits, but not longer than until a controller says that it is active: heartbeats hear that first.
    async fn pause(&self, pause: Duration) {
        let mut active = self.active.subscribe();
        let news = async {
            while active.changed().await.is_ok() {
                if active.borrow_and_update().is_some() {
                    return;
                }
            }
            std::future::pending::<()>().await;
        };
        tokio::time::timeout(pause, news).await.ok();
    }

    /// One attempt; a harmless one ends once another controller says that it is active, for the asked one may be frozen.
    async fn attempt<T, F, Fut>(
        &self,
        endpoint: &Endpoint,
        end: Instant,
        repeat: Repeat,
        operation: &F,
    ) -> Result<T, ApiError>
    where
        F: Fn(Channel) -> Fut,
        Fut: Future<Output = Result<Response<T>, Status>>,
    {
        let channel = self.channel(endpoint).await?;
        let superseded = async {
            match repeat {
                Repeat::Harmless => self.another_active(endpoint).await,
                Repeat::OnlyIfRefused => std::future::pending().await,
            }
        };
        let operation = tokio::time::timeout_at(end, operation(channel));
        let outcome = tokio::select! {
            biased;
            outcome = operation => outcome,
            () = superseded => {
                let text = format!("{}:{} has not answered, and another controller is active", endpoint.host, endpoint.port);
                return Err(ApiError::new(ErrorCode::Timeout, text));
            }
        };
        match outcome {
            Ok(Ok(response)) => Ok(response.into_inner()),
            Ok(Err(status)) => Err(from_status(&status)),
            Err(_) => {
                let text = format!("controller {}:{} did not answer in time", endpoint.host, endpoint.port);
                Err(ApiError::new(ErrorCode::Timeout, text))
            }
        }
    }

    /// Ends when a controller other than this one is known to be active.
    async fn another_active(&self, endpoint: &Endpoint) {
        let mut active = self.active.subscribe();
        let other = |active: &Option<Endpoint>| active.as_ref().is_some_and(|active| active != endpoint);
        if active.wait_for(other).await.is_err() {
            std::future::pending().await
        }
    }

    /// Whether another attempt makes sense (and whether the peer named where); the error to give up with otherwise.
    fn judge(&self, endpoint: &Endpoint, error: &ApiError, repeat: Repeat) -> Result<bool, ApiError> {
        if error.code.effect() == Effect::Unknown {
            self.failed(endpoint, true);
            return match repeat {
                Repeat::Harmless => Ok(false),
                Repeat::OnlyIfRefused => {
                    let text = format!("the command may have taken effect: {}", error.message);
                    Err(ApiError::new(ErrorCode::OutcomeUnknown, text))
                }
            };
        }
        match (error.code, error.code.next()) {
            (ErrorCode::NotReachable, _) => {
                self.failed(endpoint, true);
                Ok(false)
            }
            (_, Next::FindController) => {
                self.failed(endpoint, false);
                Ok(self.redirect(endpoint, error))
            }
            (ErrorCode::Overloaded, _) => Ok(false),
            _ => Err(error.clone()),
        }
    }

    fn redirect(&self, from: &Endpoint, error: &ApiError) -> bool {
        let Some(hint) = error.hint.as_ref().filter(|h| !h.host.is_empty() && h.port > 0) else { return false };
        let endpoint = Endpoint { host: hint.host.clone(), port: hint.port };
        if endpoint == *from {
            return false;
        }
        self.learn(endpoint.clone());
        self.set_active(&endpoint);
        true
    }
}

/// Half to all of the pause, so that brokers that lost the same controller do not return in step.
#[must_use]
pub fn jittered(pause: Duration) -> Duration {
    let part = u32::try_from(protocol::machine::random() % 1_000).unwrap_or(0);
    pause / 2 + pause.mul_f64(f64::from(part) / 2_000.0)
}

#[cfg(test)]
mod tests {
    use super::*;
    use protocol::error::Hint;

    fn endpoint(port: u16) -> Endpoint {
        Endpoint { host: "h".into(), port }
    }

    fn controllers() -> Controllers {
        Controllers::new(vec![endpoint(1), endpoint(2), endpoint(3)], Dialer::plain())
    }

    #[test]
    fn a_hint_is_followed_and_remembered() {
        let controllers = controllers();
        let hint = Hint { node_id: 9, host: "h".into(), port: 9, leader_epoch: None };
        let error = ApiError::new(ErrorCode::NotController, "not me").with_hint(hint);
        assert_eq!(controllers.judge(&endpoint(1), &error, Repeat::OnlyIfRefused), Ok(true));
        assert_eq!(controllers.candidate(), Some(endpoint(9)));
        assert_eq!(controllers.all().len(), 4);
    }

    /// Two that accept connections; what they answer is up to the operation.
    async fn listening() -> (Controllers, Vec<Endpoint>, Vec<tokio::net::TcpListener>) {
        let mut listeners = Vec::new();
        for _ in 0..2 {
            listeners.push(tokio::net::TcpListener::bind("127.0.0.1:0").await.expect("a free port"));
        }
        let port = |l: &tokio::net::TcpListener| l.local_addr().expect("it is bound").port();
        let endpoints: Vec<_> =
            listeners.iter().map(|l| Endpoint { host: "127.0.0.1".into(), port: port(l) }).collect();
        (Controllers::new(endpoints.clone(), Dialer::plain()), endpoints, listeners)
    }

    #[tokio::test]
    async fn two_that_take_each_other_for_the_active_one_are_not_asked_without_pause() {
        let (controllers, endpoints, _listeners) = listening().await;
        let asked = std::sync::atomic::AtomicUsize::new(0);
        let options = CallOptions::command(Repeat::OnlyIfRefused, Duration::from_millis(300));
        let answer = controllers.call(options, |_| {
            let n = asked.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
            let Endpoint { host, port } = endpoints[n % 2].clone();
            let hint = Hint { node_id: 9, host, port, leader_epoch: None };
            let error = ApiError::new(ErrorCode::NotController, "ask the other").with_hint(hint);
            std::future::ready(Err::<Response<()>, _>(Status::from(error)))
        });
        assert_eq!(answer.await.map_err(|e| e.code), Err(ErrorCode::NotController));
        let pauses_at_least = 300 / (limits::RETRY_PAUSE_MS_MIN as usize / 2);
        assert!(asked.into_inner() <= 2 + pauses_at_least);
    }

    #[tokio::test]
    async fn a_harmless_call_leaves_a_frozen_controller_once_another_is_active() {
        let (controllers, endpoints, _listeners) = listening().await;
        controllers.set_active(&endpoints[0]);
        let asked = std::sync::atomic::AtomicUsize::new(0);
        let options = CallOptions::command(Repeat::Harmless, Duration::from_secs(20));
        let answer = controllers.call(options, |_| {
            let first = asked.fetch_add(1, std::sync::atomic::Ordering::Relaxed) == 0;
            if first {
                controllers.set_active(&endpoints[1]);
            }
            async move { if first { std::future::pending().await } else { Ok(Response::new(7)) } }
        });
        assert_eq!(answer.await, Ok(7));
        assert_eq!(controllers.active(), Some(endpoints[1].clone()));
    }

    #[test]
    fn a_hint_to_the_asked_one_is_no_redirection() {
        let hint = Hint { node_id: 1, host: "h".into(), port: 1, leader_epoch: None };
        let error = ApiError::new(ErrorCode::NotController, "not me").with_hint(hint);
        assert_eq!(controllers().judge(&endpoint(1), &error, Repeat::Harmless), Ok(false));
    }

    #[test]
    fn an_unknown_outcome_is_repeated_only_when_harmless() {
        let error = ApiError::new(ErrorCode::Timeout, "silence");
        assert_eq!(controllers().judge(&endpoint(1), &error, Repeat::Harmless), Ok(false));
        let refused = controllers().judge(&endpoint(1), &error, Repeat::OnlyIfRefused);
        assert_eq!(refused.map_err(|e| e.code), Err(ErrorCode::OutcomeUnknown));
    }

    #[test]
    fn a_refusal_for_good_is_passed_on_and_says_nothing_against_the_controller() {
        let controllers = controllers();
        controllers.set_active(&endpoint(2));
        let error = ApiError::new(ErrorCode::VoterNotCaughtUp, "controller 4 did not catch up");
        assert_eq!(controllers.judge(&endpoint(2), &error, Repeat::OnlyIfRefused), Err(error));
        assert_eq!(controllers.active(), Some(endpoint(2)));
    }

    #[test]
    fn without_an_active_one_everybody_gets_a_turn() {
        let controllers = controllers();
        let mut asked: Vec<_> = (0..3).filter_map(|_| controllers.candidate()).map(|e| e.port).collect();
        asked.sort_unstable();
        assert_eq!(asked, vec![1, 2, 3]);
    }
}
