//! Every limit and timer of the broker's shells, with its reason. The table in `docs/limits.md` repeats them and a
//! test compares the two. Limits of the pure cores stand beside them, those of the wire in `protocol`.

/// Most shards by default: beyond four, connections rather than partitions want the cores.
pub const SHARDS_DEFAULT_MAX: u64 = 4;
/// Most shards at all: a thread, a listener and a flush queue each.
pub const SHARDS_MAX: u64 = 64;
/// Controllers remembered at most, configured and learned: a quorum has five or seven; hints must not fill memory.
pub const CONTROLLERS_MAX: usize = 32;
/// First pause before a command is tried again, ms: an election takes longer, a hand-over does not.
pub const RETRY_PAUSE_MS_MIN: u64 = 20;
/// Longest such pause, ms: a new active controller is found within a fifth of a second of its election, be it unheard of.
pub const RETRY_PAUSE_MS_MAX: u64 = 200;
/// Largest metadata snapshot taken from a feed, bytes: a million partitions stay far below; a lying source must not fill memory.
pub const SNAPSHOT_BYTES_MAX: usize = 1 << 30;
/// Time an administrative command forwarded for an application may take, ms: voter changes wait for a learner.
pub const ADMIN_DEADLINE_MS: u64 = 115_000;
/// ISR changes in one request: 100 bytes each, so a request stays far below the message limit.
pub const ISR_CHANGES_PER_REQUEST: usize = 2_000;
/// Time for one request of ISR changes, all attempts, ms: then its outcome counts as unknown and the replica asks anew.
pub const ISR_DEADLINE_MS: u64 = 2_000;
/// Bytes a follower takes in advance on one stream: a round trip at 2 GB/s over 4 ms; 2, 8 and 32 MiB measured alike.
pub const CREDIT_BYTES: u64 = 8 << 20;
/// Most credit a leader grants a follower that asks for more, bytes: it is memory of the leader.
pub const CREDIT_BYTES_MAX: u64 = 64 << 20;
/// Bytes in one push, one batch excepted: frames of 1 MiB cost the least CPU (ENGINEERING section 3).
pub const PUSH_BYTES: usize = 1 << 20;
/// Subscriptions on one replication stream: a broker's partitions of one leader and shard, with room.
pub const SUBSCRIPTIONS_PER_STREAM: usize = 100_000;
/// Time for the first message of a replication stream in either direction, ms.
pub const REPLICATION_HELLO_MS: u64 = 2_000;
/// Longest pause before a leader is dialled again, ms: short against `replica.lag.max.ms`, so that a returning leader finds
/// its followers before they leave the ISR.
pub const REPLICATION_PAUSE_MS_MAX: u64 = 250;
/// Batches of one partition kept in memory for followers that have not been sent them, bytes: two frames; who lags further
/// is served from the log.
pub const KEPT_BYTES_PER_PARTITION: usize = 2 << 20;
/// Requests waiting for one shard at most; senders wait beyond it. Two turns' worth of small batches.
pub const SHARD_QUEUE: usize = 1_024;
/// Messages a shard takes before it steps deadlines and lets its connections run.
pub const SHARD_TURN: usize = 128;
/// Threads that sync files: three files synced in parallel cost little more than one (ENGINEERING section 4).
pub const FLUSH_THREADS: usize = 4;
/// Flush jobs one thread takes at a time: enough for a journal to be worth it, few enough to share among the threads.
pub const FLUSH_JOBS_TOGETHER: usize = 16;
/// Log ends of leaderless partitions in one request: 50 bytes each, far below the message limit.
pub const REPORTS_PER_REQUEST: usize = 10_000;
/// Time for one such request, all attempts, ms: a new active controller is told anew in any case.
pub const REPORT_DEADLINE_MS: u64 = 5_000;
/// Registry notes that one sync makes durable at most: a broker that opens thousands of partitions syncs a few times.
pub const NOTES_PER_SYNC: usize = 4_096;
/// Readers that wait for news of one partition at most; more of them poll.
pub const WAITERS_PER_PARTITION: usize = 10_000;
/// Such places in one shard at most, a hundred bytes each: a thousand consumers of a hundred partitions.
pub const WAITERS_PER_SHARD: usize = 100_000;
/// Such places below which those of readers that have gone are not looked for: a look takes microseconds.
pub const WAITERS_LOOKED_THROUGH_MIN: usize = 1_024;
/// Time between rounds of housekeeping in a shard, ms: half of the second in which an idle log's end mark must be durable.
pub const HOUSEKEEPING_MS: u64 = 500;
/// Time between reports of a replica whose partition nobody leads, ms: one may be lost, or forgotten by a controller that
/// stepped down and came back.
pub const REPORT_AGAIN_MS: u64 = 5_000;
/// Time between checkpoints of high watermarks, ms: what a restart may have to learn again from the ISR.
pub const CHECKPOINT_MS: u64 = 5_000;
/// Partition directories opened at a time at start: reading is quick, the syncs of recovery overlap.
pub const RECOVERY_THREADS: usize = 8;
/// Events waiting for the lifecycle task at most: a few heartbeats of every controller.
pub const LIFECYCLE_QUEUE: usize = 256;
/// Longest sleep of the lifecycle task, ms: it wakes for heartbeats anyway, this bounds how late a stop is seen.
pub const LIFECYCLE_TICK_MS: u64 = 1_000;
/// Time for one registration or proof chunk, all attempts, ms: longer than a controller failover.
pub const REGISTER_DEADLINE_MS: u64 = 5_000;
/// Partitions named in one chunk of a restart proof: 5 bytes each, far below the message limit.
pub const PROOF_PARTITIONS_PER_REQUEST: usize = 50_000;
/// How long a request for a topic that this broker has not heard of waits for the news, ms: the feed is that far behind at
/// most while all is well.
pub const UNKNOWN_TOPIC_PATIENCE_MS: u64 = 500;
/// Unit of the produce budget, bytes: a semaphore counts in it.
pub const BUDGET_UNIT_BYTES: usize = 1_024;
/// Bytes of batches that a broker works on at once; streams wait beyond it. Small against memory, large against a second
/// of one disk's syncs.
pub const PRODUCE_BUDGET_BYTES: usize = 256 << 20;
/// Requests of one produce stream that wait for their answers: small batches at a round trip of 100 ms.
pub const PRODUCE_IN_FLIGHT_PER_STREAM: usize = 4_096;
/// Longest time a produce or delete-records waits, ms.
pub const PRODUCE_TIMEOUT_MS_MAX: u64 = 120_000;
/// Partitions in one fetch or list-offsets request.
pub const FETCH_PARTITIONS_MAX: usize = 10_000;
/// Longest wait of a fetch for more bytes, ms.
pub const FETCH_WAIT_MS_MAX: u64 = 30_000;
/// Bytes of one fetch answer, one batch excepted: with the largest batch it fits the message limit.
pub const FETCH_BYTES_MAX: usize = 16 << 20;
/// Free bytes below which records are refused, produced or replicated; twice as many take them again. Room for what is
/// under way, and for metadata, before the disk is full.
pub const DISK_FLOOR_BYTES: u64 = 128 << 20;
/// Bytes kept back in a file of the data directory for notes, states of logs and names, which must find room on a disk that
/// another program has filled: some 8,000 partitions' first states.
pub const DISK_RESERVE_BYTES: u64 = 32 << 20;
/// Time between looks at the free space, ms; in between no more is taken than the last one found above the floor.
pub const DISK_CHECK_MS: u64 = 1_000;
/// Pause before registry notes that found no room on disk are written again, ms: as often as the free space is looked at.
pub const NOTE_RETRY_MS: u64 = 1_000;
/// Time between questions for the voters, ms: a replaced controller is found before its predecessor is missed.
pub const VOTERS_REFRESH_MS: u64 = 5_000;
/// Time by which the wall clock may be ahead of the one that retention goes by before each run says so, ms: clocks that are
/// set by seconds are caught up with within minutes.
pub const RETENTION_UNBELIEVED_WARN_MS: i64 = 60_000;
/// Batches of checkpoints waiting to be written at most: one per shard, with room; what does not fit is written next time.
pub const CHECKPOINT_QUEUE: usize = 256;
