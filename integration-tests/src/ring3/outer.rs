//! The outer half of every command: makes the network and a folder, runs this program again inside as a client, and cleans
//! up however that ends, by a signal too.
//!
//! Owns the exit code, what a failure says of how to see it again, and the folder: only a failure keeps it.

use super::Failure;
use super::net::{CLIENTS, Net};
use super::nodes::SLOTS;
use crate::sim::runner::commit;
use std::path::Path;
use std::process::ExitStatus;
use tokio::process::Command;
use tokio::signal::unix::{Signal, SignalKind, signal};

/// Everything held.
const CLEAN: u8 = 0;

/// Something did not, or could not be looked at.
const VIOLATED: u8 = 1;

/// Somebody stopped the run, as shells have it.
const INTERRUPTED: u8 = 130;

/// What asks a program to end.
struct Signals([Signal; 3]);

impl Signals {
    fn listen() -> Result<Self, Failure> {
        let on = |kind| signal(kind).map_err(|error| format!("signals: {error}"));
        Ok(Self([on(SignalKind::interrupt())?, on(SignalKind::terminate())?, on(SignalKind::hangup())?]))
    }

    async fn any(&mut self) {
        let [interrupt, terminate, hangup] = &mut self.0;
        tokio::select! {
            _ = interrupt.recv() => {}
            _ = terminate.recv() => {}
            _ = hangup.recv() => {}
        }
    }
}

/// How the inner half ended.
enum End {
    Exited(ExitStatus),
    Interrupted,
}

/// Runs the command `words` of a seed; its exit code.
pub fn run(words: &[String], seed: u64) -> u8 {
    let folder = match tempfile::Builder::new().prefix("seawall-ring3-").tempdir() {
        Ok(folder) => folder,
        Err(error) => {
            eprintln!("a folder for the run: {error}");
            return VIOLATED;
        }
    };
    let why = match inner(words, folder.path()) {
        Ok(End::Exited(status)) if status.success() => return CLEAN,
        Ok(End::Interrupted) => return INTERRUPTED,
        Ok(End::Exited(status)) => status.to_string(),
        Err(why) => why,
    };
    eprintln!("VIOLATION seed {seed} commit {}: {why}", commit());
    eprintln!("  replay: seawall-ring3 {}", words.join(" "));
    eprintln!("  kept: {}", folder.keep().display());
    VIOLATED
}

/// The network stands for as long as the inner half runs, and no longer.
fn inner(words: &[String], folder: &Path) -> Result<End, Failure> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().map_err(|e| e.to_string())?;
    let program = std::env::current_exe().map_err(|error| error.to_string())?;
    runtime.block_on(async {
        // From here on a signal ends nobody before the network is gone.
        let mut signals = Signals::listen()?;
        let net = Net::build(&SLOTS)?;
        let mut child = Command::from(net.command(CLIENTS, &program.to_string_lossy()))
            .args(["inner", &net.id().to_string(), &folder.to_string_lossy()])
            .args(words)
            .spawn()
            .map_err(|error| format!("the inner half: {error}"))?;
        tokio::select! {
            biased;
            () = signals.any() => {
                child.kill().await.map_err(|error| format!("the inner half: {error}"))?;
                Ok(End::Interrupted)
            }
            status = child.wait() => Ok(End::Exited(status.map_err(|error| format!("the inner half: {error}"))?)),
        }
    })
}
