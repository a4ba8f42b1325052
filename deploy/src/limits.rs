//! Limits and timers of the binary itself: of the dev cluster, the benches and process control.
//!
//! Owns the numbers and their reasons; `docs/limits.md` lists them.

use std::time::Duration;

/// Most controllers of a dev cluster: their ports lie in the first hundred above the port base, ten apart.
pub const DEV_CONTROLLERS_MAX: u32 = 9;

/// Most brokers of a dev cluster: one machine, one process each.
pub const DEV_BROKERS_MAX: u32 = 50;

/// First port of a dev cluster: next to Kafka's 9092, out of the range systems hand out by themselves.
pub const DEV_PORT_BASE: u16 = 19090;

/// How long a node of a dev cluster may take to become ready. A cold start takes 2 s; a recovery of large logs, or a
/// build machine under load, many times that.
pub const DEV_READY_TIMEOUT: Duration = Duration::from_secs(90);

/// How long the brokers, then the controllers, of a dev cluster may take to stop before they are killed. A controlled
/// shutdown moves leaders first, and the last brokers of a stopping cluster have nowhere to move them.
pub const DEV_STOP_TIMEOUT: Duration = Duration::from_secs(20);

/// Pause between two looks at a process or a readiness page: far below every timer of a cluster.
pub const POLL_INTERVAL: Duration = Duration::from_millis(20);

/// Deadline of one request to a node's HTTP listener on the same machine.
pub const HTTP_TIMEOUT: Duration = Duration::from_secs(2);

/// Longest HTTP answer read from a node, in bytes; a metrics page with thousands of partitions stays below it.
pub const HTTP_BODY_MAX: usize = 16 * 1024 * 1024;

/// How long a role may take to stop after the first signal, before the process ends regardless: longer than a broker waits
/// for its leaderships to move.
pub const STOP_DEADLINE: Duration = Duration::from_secs(45);

/// How much of the end of a node's log is shown when it dies while starting, in lines.
pub const LOG_TAIL_LINES: usize = 15;

/// How often `seawall dev` in the foreground looks whether its nodes still live: fast enough to read along.
pub const DEV_LOOK_INTERVAL: Duration = Duration::from_millis(500);

/// Most descriptors a node asks the system for: two for each of the most connections it would ever accept, and segments.
pub const DESCRIPTORS_MAX: u64 = 131_072;

/// One out of so many descriptors may be an accepted connection: the others are for segments, votes and calls to peers.
pub const CONNECTIONS_SHARE: u64 = 2;

/// Threads of a node's control runtime (heartbeats, Raft, feed, admin); a broker's shards have threads of their own.
pub const CONTROL_THREADS: usize = 2;

/// How long tasks that are left over after a clean stop may keep the process alive.
pub const RUNTIME_STOP: Duration = Duration::from_secs(1);

/// How long a bench waits for anything that should happen by itself, before it gives up: ten times the longest promise.
pub const BENCH_PATIENCE: Duration = Duration::from_secs(60);
