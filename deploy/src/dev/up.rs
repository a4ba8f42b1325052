//! `seawall dev` without a verb: make the cluster if there is none, start it, wait until it is ready, and either leave
//! it running or stay with it until told to stop.
//!
//! Invariant: if anything fails, or a signal comes, before the cluster is ready, every process started here is stopped
//! again. After that only `--detach` leaves them running.

use super::cluster::{Cluster, DevError};
use super::discovery;
use super::layout::{NodeName, Setting, Spec, bootstrap};
use super::state::State;
use super::verbs::{Place, welcome};
use crate::exit::Exit;
use crate::limits;
use std::collections::BTreeSet;
use tokio::signal::unix::{Signal, SignalKind, signal};

/// The numbers given on the command line; None = not given.
#[derive(Debug, Clone, Default)]
pub struct Asked {
    /// `--controllers`.
    pub controllers: Option<u32>,
    /// `--brokers`.
    pub brokers: Option<u32>,
    /// `--dcs`.
    pub dcs: Option<u32>,
    /// `--port-base`.
    pub port_base: Option<u16>,
    /// `-X`.
    pub settings: Vec<Setting>,
}

impl Asked {
    /// A full specification: what was not given takes its default; fewer nodes than three mean fewer data centres.
    pub fn spec(&self) -> Spec {
        let controllers = self.controllers.unwrap_or(3);
        let brokers = self.brokers.unwrap_or(3);
        Spec {
            controllers,
            brokers,
            dcs: self.dcs.unwrap_or(3.min(controllers.max(brokers))),
            port_base: self.port_base.unwrap_or(limits::DEV_PORT_BASE),
            settings: self.settings.clone(),
        }
    }

    /// The first number that an existing cluster contradicts: `(flag, has, asked)`.
    pub fn contradicts(&self, spec: &Spec) -> Option<(&'static str, String, String)> {
        let differs = |flag, has: u64, asked: Option<u64>| {
            asked.filter(|asked| *asked != has).map(|asked| (flag, has.to_string(), asked.to_string()))
        };
        let settings = (!self.settings.is_empty() && self.settings != spec.settings)
            .then(|| ("-X", format!("{} settings", spec.settings.len()), "others".to_owned()));
        differs("--controllers", spec.controllers.into(), self.controllers.map(Into::into))
            .or_else(|| differs("--brokers", spec.brokers.into(), self.brokers.map(Into::into)))
            .or_else(|| differs("--dcs", spec.dcs.into(), self.dcs.map(Into::into)))
            .or_else(|| differs("--port-base", spec.port_base.into(), self.port_base.map(Into::into)))
            .or(settings)
    }
}

/// Brings the cluster up.
///
/// # Errors
/// [`DevError`]; nothing started here is left running.
pub fn run(place: &Place, asked: &Asked, detach: bool) -> Result<Exit, DevError> {
    let cluster = place.fresh()?;
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().map_err(cannot_wait)?;
    runtime.block_on(async {
        // From before the first process starts: a signal at any moment stops what was started.
        let mut told = Told::install().map_err(cannot_wait)?;
        let state = prepare(&cluster, asked)?;
        let starting = cluster.clone();
        let outcome = tokio::select! {
            joined = tokio::task::spawn_blocking(move || bring_up(&starting)) => {
                joined.unwrap_or_else(|error| Err(cannot_wait(std::io::Error::other(error))))
            }
            () = told.stop_wanted() => {
                stop(&cluster)?;
                return Ok(Exit::Other);
            }
        };
        if let Err(error) = outcome {
            let _ = cluster.stop();
            return Err(error);
        }
        if let Err(error) = discovery::announce(cluster.root(), bootstrap(&state.nodes)) {
            eprintln!("seawall dev: other commands need --bootstrap: {error}");
        }
        print!("{}", welcome(&cluster, &state, &command_name()));
        if detach {
            println!("  {} dev stop", command_name());
            return Ok(Exit::Ok);
        }
        eprintln!("Ctrl-C stops the cluster.");
        stay(&cluster, &mut told).await?;
        discovery::forget(cluster.root());
        Ok(Exit::Ok)
    })
}

fn cannot_wait(error: std::io::Error) -> DevError {
    DevError::Io { what: "cannot wait for signals".to_owned(), error }
}

/// The signals that end a cluster in the foreground: Ctrl-C, a polite kill, a closed terminal.
struct Told {
    interrupt: Signal,
    terminate: Signal,
    hangup: Signal,
}

impl Told {
    fn install() -> std::io::Result<Self> {
        let [interrupt, terminate, hangup] =
            [SignalKind::interrupt(), SignalKind::terminate(), SignalKind::hangup()].map(signal);
        Ok(Self { interrupt: interrupt?, terminate: terminate?, hangup: hangup? })
    }

    async fn stop_wanted(&mut self) {
        tokio::select! {
            _ = self.interrupt.recv() => {}
            _ = self.terminate.recv() => {}
            _ = self.hangup.recv() => {}
        }
    }
}

fn stop(cluster: &Cluster) -> Result<(), DevError> {
    eprintln!("stopping the cluster");
    for name in cluster.stop()? {
        eprintln!("{name} did not stop within {} s and was killed", limits::DEV_STOP_TIMEOUT.as_secs());
    }
    Ok(())
}

/// The cluster in the folder if it fits what was asked, else a new one.
fn prepare(cluster: &Cluster, asked: &Asked) -> Result<State, DevError> {
    let Some(state) = cluster.existing()? else {
        return cluster.create(asked.spec());
    };
    let running = cluster.running()?;
    if running > 0 {
        return Err(DevError::Running { root: cluster.root().to_path_buf(), running });
    }
    if let Some((flag, has, asked)) = asked.contradicts(&state.spec) {
        return Err(DevError::OtherSpec { root: cluster.root().to_path_buf(), flag, has, asked });
    }
    eprintln!("starting the existing dev cluster in {}", cluster.root().display());
    Ok(state)
}

fn bring_up(cluster: &Cluster) -> Result<(), DevError> {
    let names = cluster.names()?;
    cluster.start(&names)?;
    cluster.wait_ready(&names, limits::DEV_READY_TIMEOUT, |name| eprintln!("{name} is ready"))
}

/// Waits for a signal to stop, or until every node is gone; tells of nodes that end meanwhile.
async fn stay(cluster: &Cluster, told: &mut Told) -> Result<(), DevError> {
    let mut look = tokio::time::interval(limits::DEV_LOOK_INTERVAL);
    let mut gone = BTreeSet::new();
    loop {
        tokio::select! {
            () = told.stop_wanted() => return stop(cluster),
            _ = look.tick() => {
                if !report_ends(cluster, &mut gone) {
                    eprintln!("every node has stopped");
                    return Ok(());
                }
            }
        }
    }
}

/// Prints nodes that ended or came back since the last look; false once none lives (or the cluster is purged).
fn report_ends(cluster: &Cluster, gone: &mut BTreeSet<NodeName>) -> bool {
    let Ok(state) = cluster.state() else { return false };
    let mut living = false;
    for node in &state.nodes {
        let alive = state.process(node.name).is_some_and(|p| p.life() != super::process::Life::Gone);
        living |= alive;
        if alive && gone.remove(&node.name) {
            eprintln!("{} runs again", node.name);
        }
        if !alive && gone.insert(node.name) {
            eprintln!("{} has ended; its output is in {}", node.name, node.log_file(cluster.root()).display());
        }
    }
    living
}

/// How the user can call this program again: relative where that is shorter.
fn command_name() -> String {
    let Ok(program) = std::env::current_exe() else { return "seawall".to_owned() };
    let on_path = std::env::var_os("PATH")
        .is_some_and(|path| std::env::split_paths(&path).any(|folder| Some(folder.as_path()) == program.parent()));
    if on_path {
        return "seawall".to_owned();
    }
    let relative =
        std::env::current_dir().ok().and_then(|here| program.strip_prefix(here).ok().map(|p| p.to_path_buf()));
    relative.unwrap_or(program).display().to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_not_given_takes_its_default_or_what_is_there() {
        let spec = Asked::default().spec();
        assert_eq!((spec.controllers, spec.brokers, spec.dcs, spec.port_base), (3, 3, 3, 19090));
        assert_eq!(Asked { controllers: Some(1), brokers: Some(1), ..Asked::default() }.spec().dcs, 1);
        assert_eq!(Asked::default().contradicts(&spec), None);
        let five = Asked { brokers: Some(5), ..Asked::default() };
        assert_eq!(five.contradicts(&spec), Some(("--brokers", "3".to_owned(), "5".to_owned())));
    }
}
