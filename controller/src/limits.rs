//! Every limit and timer of the controller that does not derive from `max.inter.dc.rtt` (those are
//! `protocol::timers`). One place, so that `docs/limits.md` can be compared with the code.

use std::time::Duration;

/// Commands waiting for the decider. A broker sends a handful at a time and each waits for one fsync round; more than
/// this means the quorum is stalled, and a prompt `Overloaded` beats an answer after the caller gave up.
pub const COMMAND_QUEUE_MAX: usize = 4096;

/// Batches kept for followers of the feed. At 100 batches a second a follower may fall ten seconds behind before it is
/// sent a snapshot instead.
pub const FEED_RING_BATCHES: usize = 1024;

/// Bytes of batches kept for followers of the feed: 64 of the largest batches.
pub const FEED_RING_BYTES: usize = 64 << 20;

/// Chain hashes kept to check a follower's history by, 8 bytes each: far longer than the ring.
pub const CHAIN_HISTORY: usize = 100_000;

/// Items queued for one feed follower; one that does not drain them is dropped and comes back by itself.
pub const FEED_FOLLOWER_QUEUE: usize = 32;

/// Longest wait for room in a follower's queue before the follower is dropped.
pub const FEED_FOLLOWER_STALL: Duration = Duration::from_secs(10);

/// How often an idle feed says where it is, so that a silent connection is noticed.
pub const FEED_POSITION_INTERVAL: Duration = Duration::from_secs(1);

/// Feed streams of one controller: every broker, a few tools, and reconnects that have not timed out yet.
pub const FEED_FOLLOWERS_MAX: usize = 1024;

/// Bytes of batches handed to one follower at a time, so that a long catch-up does not hold them all twice.
pub const FEED_STEP_BYTES: usize = 4 << 20;

/// Smallest time a write may take before the decider stops waiting for it: several fsync stalls and one election.
pub const WRITE_DEADLINE_BASE: Duration = Duration::from_secs(3);

/// Slowest link that the deadline of a write, an append or a snapshot assumes, bytes a second.
pub const SLOWEST_LINK_BYTES_PER_SEC: u64 = 1 << 20;

/// Longest wait for the read barrier of a new leader before it looks again whether it still leads.
pub const BARRIER_DEADLINE: Duration = Duration::from_secs(3);

/// Pause after a barrier that was not passed: a heartbeat may confirm leadership meanwhile.
pub const BARRIER_RETRY: Duration = Duration::from_millis(20);

/// Pause after a batch that was refused, dropped or of unknown fate, before the decider tries again: a full disk or a
/// quorum that flaps must not make it spin.
pub const DOUBT_PAUSE: Duration = Duration::from_millis(50);

/// Difference between the suspended and the running clock that is added to an acknowledgement's age rather than taken for
/// a sleep: not being run between two looks at the clocks must not make a leader silent.
pub const SUSPEND_TOLERANCE: Duration = Duration::from_millis(10);

/// Append requests on their way to one follower: enough to cover 50 ms of round trip at 300 requests a second.
pub const APPENDS_IN_FLIGHT: usize = 16;

/// Entry bytes in one append request. An entry is at most 1 MiB; at least one entry always goes.
pub const APPEND_BYTES_MAX: usize = 1 << 20;

/// Entries in one append request.
pub const APPEND_ENTRIES_MAX: u64 = 300;

/// Time an append may take beyond what its bytes need: covers fsync stalls of the follower.
pub const APPEND_DEADLINE_BASE: Duration = Duration::from_secs(2);

/// Time a snapshot may take beyond what its bytes need; the receiver verifies and syncs it.
pub const SNAPSHOT_DEADLINE_BASE: Duration = Duration::from_secs(10);

/// Bytes of one chunk of a Raft snapshot on the wire.
pub const SNAPSHOT_CHUNK: usize = 1 << 20;

/// Largest Raft snapshot accepted: a hundred times the image of 100,000 partitions.
pub const SNAPSHOT_BYTES_MAX: u64 = 1 << 30;

/// Entries of the Raft log kept decoded in memory, by bytes; older ones are read from disk.
pub const ENTRY_CACHE_BYTES: usize = 32 << 20;

/// Largest frame of the Raft log: one entry of 1 MiB plus its framing.
pub const RAFT_FRAME_MAX: usize = 2 << 20;

/// Latest term that a peer's message may name. An entry's frame keeps it in 31 bits: half of that leaves room to count on. An
/// election a second reaches it in 34 years.
pub const RAFT_TERM_MAX: u64 = 1 << 30;

/// Largest index that a peer's message may name: far below where offsets of the log end, so that counting on is safe.
pub const RAFT_INDEX_MAX: u64 = 1 << 62;

/// Entries after which a snapshot is taken, unless configured (`snapshot.every`).
pub const SNAPSHOT_EVERY_DEFAULT: u64 = 5000;

/// Smallest `snapshot.every`: below it every batch would cost an image.
pub const SNAPSHOT_EVERY_MIN: u64 = 10;

/// Largest `snapshot.every`: a restart replays this many entries.
pub const SNAPSHOT_EVERY_MAX: u64 = 1_000_000;

/// Bytes of applied batches after which a snapshot is taken, however few the entries: a restart replays less than this.
pub const SNAPSHOT_LOG_BYTES: u64 = 64 << 20;

/// How often those bytes are looked at.
pub const SNAPSHOT_CHECK: Duration = Duration::from_secs(1);

/// Entries kept below a snapshot: more than are written while one is sent, else the receiver needs the next one at once
/// (openraft issue 1706).
pub const LOG_KEEP_BELOW_SNAPSHOT: u64 = 1000;

/// Entries purged at a time, so that the purge marker is not synced for each one.
pub const PURGE_BATCH: u64 = 1000;

/// Size of a Raft log segment, unless configured (`raft.segment.bytes`).
pub const RAFT_SEGMENT_BYTES_DEFAULT: u64 = 16 << 20;

/// Smallest Raft log segment; an entry larger than it gets one of its own.
pub const RAFT_SEGMENT_BYTES_MIN: u64 = 64 << 10;

/// Largest Raft log segment: the head can be dropped by whole segments only.
pub const RAFT_SEGMENT_BYTES_MAX: u64 = 1 << 30;

/// Appends and votes waiting for the flush thread; openraft itself bounds what is in flight.
pub const FLUSH_QUEUE_MAX: usize = 8192;

/// Quiet time after which the Raft log's end mark is made durable: within a second of going idle (DESIGN.md section 6).
pub const IDLE_MARK_AFTER: Duration = Duration::from_millis(800);

/// How often a running controller reads its vote, log and snapshot back and checks them, unless configured
/// (`scrub.interval.ms`).
pub const SCRUB_INTERVAL_MS_DEFAULT: u64 = 30_000;

/// Shortest `scrub.interval.ms`: a log of 64 MiB takes about as long to read.
pub const SCRUB_INTERVAL_MS_MIN: u64 = 100;

/// Longest `scrub.interval.ms`, a day: damage must be found while the other voters are well.
pub const SCRUB_INTERVAL_MS_MAX: u64 = 86_400_000;

/// Bytes that such a look reads before others may use the log again: a few ms of disk time.
pub const SCRUB_STEP_BYTES: usize = 1 << 20;

/// Free space below which a controller gives up leadership, refuses writes and keeps only its vote: room for a log segment,
/// a snapshot and the votes until an operator acts.
pub const DISK_FLOOR_BYTES: u64 = 64 << 20;

/// How often free space is looked at.
pub const DISK_CHECK: Duration = Duration::from_millis(500);

/// How often the leader looks for a joint membership that nobody is changing any more.
pub const MEMBERSHIP_CHECK: Duration = Duration::from_millis(500);

/// Longest wait for a membership change, catching up of learners included.
pub const MEMBERSHIP_DEADLINE: Duration = Duration::from_secs(60);

/// Longest wait when a failed membership change is cleaned up after.
pub const MEMBERSHIP_REPAIR_DEADLINE: Duration = Duration::from_secs(5);

/// Voters a cluster may have. Each entry waits for a majority; more voters cost speed and gain nothing.
pub const VOTERS_MAX: usize = 9;

/// Heartbeat streams of one controller: every broker, and reconnects that have not timed out yet.
pub const HEARTBEAT_STREAMS_MAX: usize = 1024;

/// Answers queued on one heartbeat stream; a broker that does not read them gets newer ones instead.
pub const HEARTBEAT_ANSWER_QUEUE: usize = 16;

/// Longest a request may wait for its verdict before the caller is told the outcome is unknown.
pub const REQUEST_DEADLINE: Duration = Duration::from_secs(30);

/// Time a stopping controller gives its streams and its leadership hand-over.
pub const STOP_DEADLINE: Duration = Duration::from_secs(3);

/// Attempts in a row that a peer leaves without a good answer before the log says so: one or two are a slow moment.
pub const PEER_LOST_MISSES: u32 = 3;

/// The deadline for moving so many bytes: a base, and time at the slowest link.
#[must_use]
pub fn deadline_for(base: Duration, bytes: usize) -> Duration {
    base + Duration::from_millis(bytes as u64 * 1000 / SLOWEST_LINK_BYTES_PER_SEC)
}
