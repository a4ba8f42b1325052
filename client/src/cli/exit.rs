//! Exit codes and failures of the command line.
//!
//! Owns: [`Exit`], the mapping of errors to it, and what to try next.
//! Never: prints data.
//! Invariant: a code means the same for every verb; scripts may rely on it.

use crate::config::ConfigError;
use crate::error::{Effect, Error};
use protocol::error::ErrorCode;
use std::process::ExitCode;

/// What a command's end means.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub enum Exit {
    /// Done.
    Ok = 0,
    /// Failed in a way that has no code of its own.
    Other = 1,
    /// The command or a value in it is not acceptable; nothing was done.
    Usage = 2,
    /// The question was answered, and the answer is no (not healthy, hashes differ).
    ConditionFalse = 3,
    /// The topic, partition or broker does not exist.
    NotFound = 4,
    /// Not allowed.
    Denied = 5,
    /// A safety rule refuses.
    Refused = 6,
    /// Nobody answered, or not in time.
    Unreachable = 7,
    /// A part was done.
    Partial = 8,
}

/// For `--help`.
pub const EXIT_CODES: &str = "Exit codes: 0 done, 1 other failure, 2 usage or bad value, 3 condition false, 4 not found, \
5 denied, 6 refused by a safety rule, 7 unreachable or timed out, 8 partly done";

impl From<Exit> for ExitCode {
    fn from(exit: Exit) -> Self {
        ExitCode::from(exit as u8)
    }
}

/// A command that failed: what to print, and the exit code.
#[derive(Debug)]
pub struct Failure {
    /// The exit code.
    pub exit: Exit,
    /// What failed.
    pub text: String,
    /// What to try.
    pub advice: Option<String>,
}

impl Failure {
    /// A failure with a text.
    #[must_use]
    pub fn new(exit: Exit, text: impl Into<String>) -> Self {
        Self { exit, text: text.into(), advice: None }
    }

    /// The same with advice.
    #[must_use]
    pub fn advise(mut self, advice: impl Into<String>) -> Self {
        self.advice = Some(advice.into());
        self
    }

    /// No addresses were given and no dev cluster was found.
    pub(super) fn no_cluster(why: String) -> Self {
        Self::new(Exit::Usage, format!("no cluster to talk to: {why}"))
            .advise("give -b HOST:PORT, set SEAWALL_BOOTSTRAP, or start one with `seawall dev`")
    }

    /// Prints to stderr; a reader that has seen enough is no failure to speak of.
    pub fn print(&self) {
        if self.exit == Exit::Ok {
            return;
        }
        eprintln!("error: {}", self.text);
        if let Some(advice) = &self.advice {
            eprintln!("  try: {advice}");
        }
    }
}

impl From<ConfigError> for Failure {
    fn from(error: ConfigError) -> Self {
        Self::new(Exit::Usage, error.to_string())
    }
}

impl From<std::io::Error> for Failure {
    fn from(error: std::io::Error) -> Self {
        // A reader that has seen enough closes the pipe: no failure of ours.
        let exit = if error.kind() == std::io::ErrorKind::BrokenPipe { Exit::Ok } else { Exit::Other };
        Self::new(exit, format!("cannot write to stdout: {error}"))
    }
}

impl From<Error> for Failure {
    fn from(error: Error) -> Self {
        let exit = match &error {
            Error::Config(_) => Exit::Usage,
            Error::Unreachable { .. } | Error::Timeout { .. } => Exit::Unreachable,
            Error::Refused { error, .. } => exit_of(error.code),
            _ => Exit::Other,
        };
        let advice = match &error {
            Error::Unreachable { .. } => Some("`seawall dev status` for a dev cluster; else check -b and the network"),
            _ if error.effect() == Effect::Unknown => {
                Some("the request may have taken effect: look before you repeat it (describe, list, status)")
            }
            Error::Refused { error, .. } => advice_for(error.code),
            _ => None,
        };
        Self { exit, text: error.to_string(), advice: advice.map(str::to_owned) }
    }
}

/// The exit code of a refusal.
pub(super) fn exit_of(code: ErrorCode) -> Exit {
    use ErrorCode as E;
    match code {
        E::UnknownTopic | E::UnknownPartition | E::UnknownBroker => Exit::NotFound,
        E::InvalidRequest
        | E::InvalidName
        | E::InvalidReplication
        | E::InvalidConfig
        | E::InvalidPartitions
        | E::MessageTooLarge => Exit::Usage,
        E::VoterLayoutRefused | E::VoterNotCaughtUp | E::RefusedBySafetyRule | E::EligibleLeadersNotAvailable => {
            Exit::Refused
        }
        E::Timeout | E::OutcomeUnknown | E::NotReachable | E::NotController => Exit::Unreachable,
        _ => Exit::Other,
    }
}

fn advice_for(code: ErrorCode) -> Option<&'static str> {
    use ErrorCode as E;
    Some(match code {
        E::UnknownTopic => "`seawall topic list`",
        E::UnknownPartition => "`seawall topic describe NAME`",
        E::UnknownBroker => "`seawall broker list`",
        E::TopicExists => "`seawall topic describe NAME`, or --if-not-exists",
        E::InvalidReplication => "fewer --replicas, or more brokers: `seawall broker list`",
        E::InvalidConfig => "`seawall topic describe NAME --configs` lists keys, ranges and defaults",
        E::VoterLayoutRefused => "change several voters in one step, or --force if you accept the risk",
        E::EligibleLeadersNotAvailable => "`seawall explain partition TOPIC/P`",
        E::VoterNotCaughtUp => "start that controller, look into its log and at its address, then ask again",
        E::MembershipInProgress => "wait for the other change: `seawall quorum status`",
        _ => return None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use protocol::error::ApiError;

    #[test]
    fn codes_map_to_documented_exits_and_every_exit_is_documented() {
        let refused = |code| {
            let error = Box::new(ApiError::new(code, "no"));
            Failure::from(Error::Refused { request: "x", node: "n".into(), error }).exit
        };
        assert_eq!(refused(ErrorCode::UnknownTopic), Exit::NotFound);
        assert_eq!(refused(ErrorCode::InvalidConfig), Exit::Usage);
        assert_eq!(refused(ErrorCode::VoterLayoutRefused), Exit::Refused);
        assert_eq!(refused(ErrorCode::TopicExists), Exit::Other);
        for code in 0..=8 {
            assert!(EXIT_CODES.contains(&format!("{code} ")), "{code}");
        }
    }
}
