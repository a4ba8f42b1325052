//! Every named bound of this crate outside the record batch format (`batch::limits` has those). Owns numbers and
//! their reasons, decides nothing. Each row stands in docs/limits.md with the value as written here.

/// Longest part of a locality path, bytes: it is repeated in every registration and in labels of metrics.
pub const LOCALITY_PART_MAX: usize = 64;

/// Longest host name, bytes: what DNS allows (RFC 1035).
pub const HOST_BYTES_MAX: usize = 255;

/// Largest encoded metadata batch, bytes: an entry must not hold up heartbeats behind it (DESIGN.md section 2).
pub const BATCH_BYTES_MAX: usize = 1024 * 1024;

/// Most bytes one partition may cost in a change of its leader and ISR, at RF 3 (DESIGN.md section 2). A test measures it.
pub const PARTITION_CHANGE_BYTES_MAX: usize = 32;

/// Size a snapshot chunk is filled to, bytes: a follower holds one at a time, and the feed interleaves nothing with it.
pub const SNAPSHOT_CHUNK_BYTES: usize = 512 * 1024;

/// Largest snapshot chunk a decoder takes, bytes: one fact larger than a chunk would stand alone in one this large.
pub const SNAPSHOT_CHUNK_BYTES_MAX: usize = 2 * 1024 * 1024;

/// Partitions that one restoring fact of a snapshot carries at most: at RF 32 they stay far below one chunk.
pub const SNAPSHOT_PARTITIONS_PER_FACT: usize = 500;

/// Smallest `max.inter.dc.rtt.ms`: below it the floors of the timers rule anyway.
pub const RTT_MS_MIN: u64 = 1;

/// Largest `max.inter.dc.rtt.ms`: the farthest cities on earth measure about 300 ms; above it an election takes ten seconds and more.
pub const RTT_MS_MAX: u64 = 400;

/// `max.inter.dc.rtt.ms` when nothing is declared: data centres of one continent (DESIGN.md section 3).
pub const RTT_MS_DEFAULT: u64 = 20;

/// Shortest heartbeat, ms, of Raft and of brokers: under it timer resolution and scheduling on a busy machine dominate.
pub const HEARTBEAT_MS_MIN: u64 = 25;

/// Shortest broker session, ms: a pause of half a second is common on shared machines and must not cost leaderships.
pub const SESSION_TIMEOUT_MS_MIN: u64 = 500;

/// Shortest quorum loss probe, ms: it only has to notice a leader that can send but not receive (ENGINEERING section 2).
pub const QUORUM_PROBE_MS_MIN: u64 = 1_000;

/// Slowest link for which a Raft append still gets its answer in time, bytes per ms (20 Mbit/s).
pub const LINK_BYTES_PER_MS_MIN: u64 = 2_500;

/// HTTP/2 window of one stream, bytes: a gigabit at 100 ms of round trip stays full (ENGINEERING section 3).
pub const STREAM_WINDOW_BYTES: u32 = 16 * 1024 * 1024;

/// HTTP/2 window of one connection, bytes: two streams at full window.
pub const CONNECTION_WINDOW_BYTES: u32 = 32 * 1024 * 1024;

/// Largest HTTP/2 frame, bytes: 1 MiB frames cost a quarter less CPU than 16 KiB ones (ENGINEERING section 3).
pub const FRAME_BYTES_MAX: u32 = 1024 * 1024;

/// HTTP/2 windows of connections that carry commands only, bytes: they bound what a peer can make us hold.
pub const CONTROL_WINDOW_BYTES: u32 = 4 * 1024 * 1024;

/// Time to establish a connection, ms: ten round trips at the default, and short enough to try the next node.
pub const CONNECT_TIMEOUT_MS: u64 = 1_000;

/// Time between HTTP/2 pings, ms: a cut network shows itself although no request is under way.
pub const KEEPALIVE_INTERVAL_MS: u64 = 1_000;

/// Time a ping may go unanswered, ms: then the connection and every stream on it end.
pub const KEEPALIVE_TIMEOUT_MS: u64 = 2_000;

/// Idle time before TCP's own probes, ms: the net under HTTP/2 pings, for peers that vanished without a reset.
pub const TCP_KEEPALIVE_MS: u64 = 10_000;

/// Deadline of a unary call that carries no other one, ms.
pub const CALL_DEADLINE_MS: u64 = 10_000;

/// Longest a server works on one unary call or head of a stream, ms: voter changes wait for a learner to catch up.
pub const SERVER_DEADLINE_MS: u64 = 120_000;

/// Connections of applications that a broker has open at once, over all shards: some 100 KiB of buffers each while busy.
pub const CLIENT_CONNECTIONS_MAX: usize = 10_000;

/// Connections of nodes that a broker or controller has open at once: a few from every shard of a thousand brokers.
pub const NODE_CONNECTIONS_MAX: usize = 16_384;

/// Connections to a metrics page that a node has open at once: scrapers, probes and a few people.
pub const HTTP_CONNECTIONS_MAX: usize = 256;

/// Bytes that a peer sends before it counts as greeted: the HTTP/2 connection preface (RFC 9113, 3.4); a request for a page is
/// longer.
pub const GREETING_BYTES: usize = 24;

/// Longest wait for a peer's greeting, ms: a connection that says nothing holds a place.
pub const GREETING_MS: u64 = 10_000;

/// Longest silence of a greeted reader of pages, ms: above the usual scrape interval of 15 s to 60 s.
pub const HTTP_IDLE_MS: u64 = 90_000;

/// Pause after a connection that could not be accepted, ms: without a descriptor the next try fails at once too.
pub const ACCEPT_PAUSE_MS: u64 = 100;

/// HTTP/2 streams open at once on one connection of an application.
pub const CLIENT_STREAMS_MAX: u32 = 256;

/// HTTP/2 streams open at once on one connection of a node: one per broker pair and shard, with room.
pub const NODE_STREAMS_MAX: u32 = 1_024;

/// Calls a listener works on at once; the next is refused as overloaded, not queued.
pub const CALLS_IN_FLIGHT_MAX: usize = 4_096;

/// Streams a peer may reset before we accepted them, per connection: the guard against rapid reset (CVE-2023-44487).
pub const PENDING_RESETS_MAX: usize = 32;

/// Streams we may have to reset for a peer's errors, per connection, before it is cut off.
pub const LOCAL_RESETS_MAX: usize = 256;

/// Header list of one request or answer, bytes: a typed error in its trailers fits.
pub const HEADER_LIST_BYTES_MAX: u32 = 16 * 1024;

/// Longest text of an error that travels in trailers, bytes: message and details together stay below the header limit.
pub const ERROR_TEXT_BYTES_MAX: usize = 1_024;

/// Largest Raft message, bytes: an entry of 1 MiB, a snapshot chunk, and company.
pub const RAFT_MESSAGE_BYTES_MAX: usize = 4 * 1024 * 1024;

/// Largest item of the metadata feed, bytes: one batch or one snapshot chunk.
pub const FEED_MESSAGE_BYTES_MAX: usize = 4 * 1024 * 1024;

/// Largest lifecycle message, bytes: a proof or an ISR change of many partitions comes in several.
pub const LIFECYCLE_MESSAGE_BYTES_MAX: usize = 4 * 1024 * 1024;

/// Largest produce request or push between replicas, bytes: one batch at the highest `max.message.bytes` and its head.
pub const PRODUCE_MESSAGE_BYTES_MAX: usize = 17 * 1024 * 1024;

/// Largest fetch answer, bytes: a full answer plus one batch at the highest `max.message.bytes`.
pub const FETCH_MESSAGE_BYTES_MAX: usize = 33 * 1024 * 1024;

/// Largest admin request, bytes.
pub const ADMIN_REQUEST_BYTES_MAX: usize = 1024 * 1024;

/// Largest admin answer, bytes: every partition of a large cluster described at once.
pub const ADMIN_RESPONSE_BYTES_MAX: usize = 32 * 1024 * 1024;
