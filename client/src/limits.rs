//! Every limit and timer of the client library, with its reason.
//!
//! Owns: the constants and the defaults of the options in [`crate::config`].
//! Never: decides what happens when one is passed.
//! Invariant: each constant has a row in docs/limits.md; a test compares the two.

/// Default of `linger.ms`: how long an open batch waits for more records. Kafka's own default since 4.0.
pub const LINGER_MS: u64 = 5;

/// Default of `batch.size`, in bytes before compression: large frames are what makes the path cheap
/// (ENGINEERING section 3, point 5), and four of them fit the default `max.message.bytes`.
pub const BATCH_BYTES: usize = 256 * 1024;

/// Default of `buffer.memory`, in bytes: some 250 full batches, a second of traffic at 64 MB/s.
pub const BUFFER_MEMORY_BYTES: usize = 64 * 1024 * 1024;

/// Smallest `buffer.memory`: one record of the largest default size must fit.
pub const BUFFER_MEMORY_BYTES_MIN: usize = 64 * 1024;

/// Default of `delivery.timeout.ms`: Kafka's; long enough for an operator to bring a rack back.
pub const DELIVERY_TIMEOUT_MS: u64 = 120_000;

/// Default of `request.timeout.ms`: longest wait for one answer.
pub const REQUEST_TIMEOUT_MS: u64 = 30_000;

/// Default of `max.block.ms`: longest wait of `send` for buffer room or for a topic's routing.
pub const MAX_BLOCK_MS: u64 = 60_000;

/// Default of `max.in.flight`, batches per partition: 1 keeps order under retries until producers are idempotent.
pub const MAX_IN_FLIGHT: usize = 1;

/// Largest `max.in.flight`: beyond it a partition's leader is the bottleneck, not the round trip.
pub const MAX_IN_FLIGHT_CEILING: usize = 64;

/// Default of `retry.backoff.ms`: first pause before a retry. Small, because a failover takes a few hundred ms.
pub const RETRY_BACKOFF_MS: u64 = 10;

/// Default of `retry.backoff.max.ms`: pauses double up to here; the cost of asking five times a second is nil.
pub const RETRY_BACKOFF_MAX_MS: u64 = 200;

/// Default of `metadata.max.age.ms`: routing is fetched again at this age even if nothing failed, so that new
/// partitions are seen.
pub const METADATA_MAX_AGE_MS: u64 = 60_000;

/// Least time between two routing refreshes, in ms: many partitions fail at once when a broker dies.
pub const REFRESH_PAUSE_MS: u64 = 10;

/// Longest wait for one node's routing answer, in ms; the answer comes from memory.
pub const ROUTING_TIMEOUT_MS: u64 = 2_000;

/// After this many ms without a routing answer the next node is asked too: a stopped process accepts
/// connections and never answers.
pub const ROUTING_HEDGE_MS: u64 = 150;

/// An unanswered produce or fetch older than this (ms, beyond the wait it asked for) makes the client look for a
/// newer leader, and leave the old one if there is one. Covers stopped processes and cut networks.
pub const STALL_MS: u64 = 500;

/// How often stalls and deadlines of unanswered requests are looked at, in ms.
pub const STALL_TICK_MS: u64 = 100;

/// How long a topic that brokers call unknown is asked for again, in ms: a topic just created reaches every
/// broker's image within one feed round; a deleted one must not hold its producer for `delivery.timeout.ms`.
pub const UNKNOWN_TOPIC_PATIENCE_MS: u64 = 2_000;

/// Messages handed to a connection that it has not taken yet; the rest waits where it can still be given back.
pub const STREAM_QUEUE: usize = 4;

/// Default of `fetch.max.wait.ms`: how long a broker holds a fetch that has nothing to return.
pub const FETCH_MAX_WAIT_MS: u64 = 500;

/// Default of `fetch.min.bytes`.
pub const FETCH_MIN_BYTES: usize = 1;

/// Default of `fetch.max.bytes`, per answer.
pub const FETCH_MAX_BYTES: usize = 8 * 1024 * 1024;

/// Default of `max.partition.fetch.bytes`, per partition of an answer. A larger batch still comes, alone.
pub const PARTITION_FETCH_BYTES: usize = 1024 * 1024;

/// Default of `queued.max.bytes`: fetched bytes that wait for the application, all partitions together.
pub const QUEUED_MAX_BYTES: usize = 32 * 1024 * 1024;

/// Fetches to one broker that may wait at a time; partitions beyond share the next one.
pub const FETCHES_PER_BROKER: usize = 4;

/// Largest `fetch.max.bytes`: with one batch at the highest `max.message.bytes` besides, an answer fits
/// `protocol::limits::FETCH_MESSAGE_BYTES_MAX`.
pub const FETCH_MAX_BYTES_CEILING: usize = 16 * 1024 * 1024;

/// Longest wait of a command without `--timeout`, in ms: several controller failovers fit, and a person does not wait
/// longer to learn that nobody is there.
pub const CLI_TIMEOUT_MS: u64 = 10_000;

/// Longest wait for a question that goes to one named node, in ms; the answer comes from memory.
pub const ADMIN_ATTEMPT_MS: u64 = 3_000;

/// Least time that a repeated administrative request is given, in ms; with less left the last failure stands.
pub const ADMIN_LEAST_ATTEMPT_MS: u64 = 500;

/// How long `topic create` waits for every partition to have a leader, in ms.
pub const LEADERS_WAIT_MS: u64 = 10_000;

/// Pause between two looks while waiting for a state of the cluster, in ms.
pub const POLL_PAUSE_MS: u64 = 50;

/// Longest line that `seawall produce` takes, in bytes; a longer one is an error, not a split record.
pub const LINE_BYTES_MAX: usize = 16 * 1024 * 1024;

/// Pause before a partition without a leader is looked at again, in ms: a failover takes a few hundred.
pub const LEADERLESS_PAUSE_MS: u64 = 50;

/// Grace beyond a produce request's own timeout, in ms, for the broker's answer that the time is up to arrive.
pub const ANSWER_GRACE_MS: u64 = 500;

/// Pause of an idle sender, in ms: nothing depends on it, everything that matters wakes it.
pub const IDLE_MS: u64 = 60_000;
