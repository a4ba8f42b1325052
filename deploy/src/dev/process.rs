//! Processes of a dev cluster: start one, recognise it again, signal it.
//!
//! A number alone does not name a process: it is reused. A [`ProcessId`] carries the start time and the machine's boot
//! id too, and a signal goes through a pidfd opened *before* the start time is compared, so that a recycled number is
//! never signalled. Owns no policy: which node to stop, and when, is the cluster's business.

pub use rustix::process::Signal;
use rustix::process::{Pid, PidfdFlags, pidfd_open, pidfd_send_signal};
use serde::{Deserialize, Serialize};
use std::fs::File;
use std::io;
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Command, Stdio};

/// One process of one boot of this machine.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ProcessId {
    /// Its number.
    pub pid: i32,
    /// When it started, in clock ticks since boot.
    pub start_ticks: u64,
    /// The boot it belongs to.
    pub boot_id: String,
}

/// What the kernel says of a process.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Life {
    /// It runs or waits.
    Running,
    /// It is stopped by a signal.
    Paused,
    /// It is gone, or only its exit status is left.
    Gone,
}

/// Starts `program` with `arguments` in its own process group, its output appended to `log`.
///
/// A thread waits for it, so that its end leaves no zombie while this process lives. The child gets this process's
/// environment without the variables that configure nodes: its configuration file is complete.
///
/// # Errors
/// When the file cannot be opened or the program not be started.
pub fn spawn(program: &Path, arguments: &[&str], log: &Path) -> io::Result<ProcessId> {
    let output = File::options().create(true).append(true).open(log)?;
    let mut command = Command::new(program);
    command
        .args(arguments)
        .stdin(Stdio::null())
        .stdout(output.try_clone()?)
        .stderr(output)
        .env("RUST_BACKTRACE", "1")
        .process_group(0);
    for (name, _) in std::env::vars_os() {
        if name.to_string_lossy().starts_with(crate::config::ENV_PREFIX) {
            command.env_remove(name);
        }
    }
    let mut child = command.spawn()?;
    let pid = i32::try_from(child.id()).map_err(|_| io::Error::other("a process number above the range of pid_t"))?;
    // The child cannot be reaped before the thread below starts, so its entry is still there to be read.
    let stat = read_stat(pid)?.ok_or_else(|| io::Error::other("the process ended before it could be named"))?;
    std::thread::Builder::new().name(format!("reap-{pid}")).spawn(move || child.wait())?;
    Ok(ProcessId { pid, start_ticks: stat.start_ticks, boot_id: boot_id()? })
}

impl ProcessId {
    /// Whether it still lives.
    pub fn life(&self) -> Life {
        if !boot_id().is_ok_and(|boot| boot == self.boot_id) {
            return Life::Gone;
        }
        match read_stat(self.pid) {
            Ok(Some(stat)) if stat.start_ticks == self.start_ticks => match stat.state {
                'T' | 't' => Life::Paused,
                // The first thread may be dead while others still end, and hold the process's ports.
                'Z' | 'X' | 'x' if threads(self.pid) > 1 => Life::Running,
                'Z' | 'X' | 'x' => Life::Gone,
                _ => Life::Running,
            },
            _ => Life::Gone,
        }
    }

    /// Sends a signal. `Ok(false)` when the process is gone.
    ///
    /// # Errors
    /// When the kernel refuses (another user's process).
    pub fn signal(&self, signal: Signal) -> io::Result<bool> {
        let Some(pid) = Pid::from_raw(self.pid) else { return Ok(false) };
        let handle = match pidfd_open(pid, PidfdFlags::empty()) {
            Ok(handle) => handle,
            Err(rustix::io::Errno::SRCH) => return Ok(false),
            Err(error) => return Err(error.into()),
        };
        if self.life() == Life::Gone {
            return Ok(false);
        }
        match pidfd_send_signal(&handle, signal) {
            Ok(()) => Ok(true),
            Err(rustix::io::Errno::SRCH) => Ok(false),
            Err(error) => Err(error.into()),
        }
    }
}

struct Stat {
    state: char,
    start_ticks: u64,
}

/// How many threads the process still has, 0 if it is gone.
fn threads(pid: i32) -> usize {
    std::fs::read_dir(format!("/proc/{pid}/task")).map_or(0, |tasks| tasks.count())
}

/// Reads `/proc/PID/stat`; None when there is no such process.
fn read_stat(pid: i32) -> io::Result<Option<Stat>> {
    match std::fs::read_to_string(format!("/proc/{pid}/stat")) {
        Ok(text) => parse_stat(&text).map(Some).ok_or_else(|| io::Error::other("/proc/PID/stat is not as documented")),
        Err(error) if error.kind() == io::ErrorKind::NotFound || error.raw_os_error() == Some(3) => Ok(None),
        Err(error) => Err(error),
    }
}

/// The fields after the command name, which may itself hold spaces and parentheses (proc(5)).
fn parse_stat(text: &str) -> Option<Stat> {
    let (_, rest) = text.rsplit_once(')')?;
    let mut fields = rest.split_whitespace();
    let state = fields.next()?.chars().next()?;
    // Field 22 of the line; the state above is field 3.
    let start_ticks = fields.nth(18)?.parse().ok()?;
    Some(Stat { state, start_ticks })
}

fn boot_id() -> io::Result<String> {
    Ok(std::fs::read_to_string("/proc/sys/kernel/random/boot_id")?.trim().to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::{Duration, Instant};

    fn wait_until(what: &str, mut condition: impl FnMut() -> bool) {
        let deadline = Instant::now() + Duration::from_secs(20);
        while !condition() {
            assert!(Instant::now() < deadline, "never {what}");
            std::thread::sleep(crate::limits::POLL_INTERVAL);
        }
    }

    #[test]
    fn a_process_is_paused_resumed_and_killed() {
        let dir = tempfile::tempdir().expect("a temporary directory");
        let process = spawn(Path::new("/bin/sleep"), &["600"], &dir.path().join("log")).expect("sleep starts");
        assert_eq!(process.life(), Life::Running);
        assert!(process.signal(Signal::STOP).expect("ours"));
        wait_until("paused", || process.life() == Life::Paused);
        assert!(process.signal(Signal::CONT).expect("ours"));
        wait_until("running", || process.life() == Life::Running);
        assert!(process.signal(Signal::KILL).expect("ours"));
        wait_until("gone", || process.life() == Life::Gone);
        assert!(!process.signal(Signal::KILL).expect("nobody to refuse"));
    }

    #[test]
    fn a_recycled_number_is_not_the_process() {
        let pid = i32::try_from(std::process::id()).expect("a pid");
        let me = ProcessId { pid, start_ticks: 1, boot_id: boot_id().expect("Linux") };
        assert_eq!(me.life(), Life::Gone);
        assert!(!me.signal(Signal::KILL).expect("nobody was signalled"), "this test would not be here");
    }

    #[test]
    fn a_command_name_cannot_confuse_the_reading() {
        let line = "7 (a) R (b) S 1 2 3 4 5 6 7 8 9 10 11 12 13 14 15 16 17 18 4242 20";
        let stat = parse_stat(line).expect("the line is complete");
        assert_eq!((stat.state, stat.start_ticks), ('S', 4242));
        assert!(parse_stat("7 (a").is_none());
    }
}
