//! A cluster whose nodes run under `strace`, and what can be claimed of it afterwards.
//!
//! Owns: how a node is started under the tracer, the clients' side of the claims, and reading traces and files when all
//! processes are gone. Never: judges ([`super::proof`] does).
//! Invariant: an acknowledgement is taken from the bytes that the node sent, and must be the one that the client got.

use super::http2::Sent;
use super::line::Deed;
use super::proof::{Disks, Place};
use super::{Moment, trace};
use crate::wait::PATIENCE;
use crate::wire;
use bytes::Bytes;
use deploy::dev::layout::Node;
use log::inspect::{Place as Batch, inspect};
use log::storage::Storage;
use log::storage::file::FileStorage;
use prost::Message;
use protocol::batch::{BatchBuilder, Compression};
use protocol::planted::{self, Bug};
use protocol::rpc::pb::data::v1::{ProduceRequest, ProduceResponse};
use std::collections::BTreeMap;
use std::fs::File;
use std::io::BufReader;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;
use tokio::sync::mpsc;

/// The tracer and how it prints; the process number, and the node's place as our child, stay the node's.
const STRACE: [&str; 11] = [
    "strace",
    "-D",
    "-f",
    "--seccomp-bpf",
    "-yy",
    "-xx",
    "-s",
    "1048576",
    "--absolute-timestamps=format:unix,precision:ns",
    "-e",
    "trace=pwrite64,fdatasync,fsync,open,openat,mkdir,mkdirat,write,writev,sendto,sendmsg",
];

/// Marks our correlations, so that no other message is taken for an answer to them.
const MARK: u64 = 0x5ea_3a11 << 32;

/// Requests under way at once in one stream.
const WINDOW: usize = 8;

/// Sizes of batches: from one record of the least to the largest, in this many steps.
const SIZES: u64 = 7;

/// Why nothing can be traced here, if so.
pub fn refused() -> Option<String> {
    let mut command = Command::new(STRACE[0]);
    match command.args(&STRACE[1..]).args(["-o", "/dev/null", "/bin/true"]).output() {
        Err(error) => Some(format!("strace: {error}")),
        Ok(output) if !output.status.success() => Some(String::from_utf8_lossy(&output.stderr).into_owned()),
        Ok(_) => None,
    }
}

/// A program that is `program` with bugs planted, whose nodes leave traces in `folder`; other commands run untraced.
///
/// # Panics
/// When it cannot be written.
pub fn traced(program: &str, folder: &Path, bugs: &[Bug]) -> PathBuf {
    use std::os::unix::fs::PermissionsExt;
    let path = folder.join("seawall-traced");
    let (strace, folder) = (STRACE.map(|word| format!("'{word}'")).join(" "), folder.display());
    let bugs = bugs.iter().map(|bug| bug.name()).collect::<Vec<_>>().join(",");
    let plant = if bugs.is_empty() { String::new() } else { format!("export {}={bugs}\n", planted::VARIABLE) };
    let node = format!("exec {strace} -o '{folder}'/$$.trace '{program}' \"$@\"");
    let text = format!("#!/bin/sh\n{plant}if [ \"$2\" = --config ]; then {node}; fi\nexec '{program}' \"$@\"\n");
    std::fs::write(&path, text).expect("the test's folder is writable");
    std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o755)).expect("the test's own file");
    path
}

/// The traces in a folder; each is complete once its process's end is in it.
///
/// # Errors
/// Which is not complete.
pub fn complete(folder: &Path) -> Result<Vec<PathBuf>, String> {
    let entries = std::fs::read_dir(folder).map_err(|error| error.to_string())?;
    let paths = entries.filter_map(|entry| Some(entry.ok()?.path()));
    let traces: Vec<PathBuf> = paths.filter(|path| path.extension().is_some_and(|e| e == "trace")).collect();
    for trace in &traces {
        let text = std::fs::read(trace).map_err(|error| error.to_string())?;
        let tail = String::from_utf8_lossy(&text[text.len().saturating_sub(200)..]).into_owned();
        if !tail.trim_end().ends_with("+++") {
            return Err(format!("{} goes on: {tail}", trace.display()));
        }
    }
    Ok(traces)
}

/// What all traces show.
#[derive(Debug, Default)]
pub struct Seen {
    /// Of the disks.
    pub disks: Disks,
    /// What was sent from each port: all messages with their moments.
    pub sent: BTreeMap<u16, Vec<super::http2::Message>>,
}

/// Reads the traces; of what was sent, that from `ports`.
///
/// # Errors
/// What cannot be read or followed.
pub fn read(traces: &[PathBuf], ports: &[u16]) -> Result<Seen, String> {
    let mut seen = Seen::default();
    for path in traces {
        let place = |error: String| format!("{}: {error}", path.display());
        let file = File::open(path).map_err(|error| place(error.to_string()))?;
        let mut connections: BTreeMap<String, Sent> = BTreeMap::new();
        for call in trace::read(BufReader::new(file), ports).map_err(place)? {
            seen.disks.add(&call);
            if let Deed::Send { port, connection, bytes } = call.deed {
                let messages = connections.entry(connection).or_default().feed(call.begin, &bytes).map_err(place)?;
                seen.sent.entry(port).or_default().extend(messages);
            }
        }
    }
    Ok(seen)
}

impl Seen {
    /// Acknowledgements of [`produce`] that left a node: base offset and moment by correlation.
    pub fn acknowledged(&self, node: &Node) -> BTreeMap<u64, (u64, Moment)> {
        let messages = self.sent.get(&node.port).into_iter().flatten();
        let answers =
            messages.filter_map(|message| Some((ProduceResponse::decode(&*message.bytes).ok()?, message.sent)));
        let ours = answers.filter(|(answer, _)| answer.correlation >> 32 == MARK >> 32 && answer.error.is_none());
        ours.map(|(answer, sent)| (answer.correlation, (answer.base_offset, sent))).collect()
    }

    /// When a node first told somebody these bytes.
    pub fn first_said(&self, nodes: &[&Node], needle: &[u8]) -> Option<Moment> {
        let messages = nodes.iter().filter_map(|node| self.sent.get(&node.port)).flatten();
        messages.filter(|m| m.bytes.windows(needle.len()).any(|w| w == needle)).map(|m| m.sent).min()
    }
}

/// Writes `count` batches with acks=all through one stream and returns the base offset of each by its correlation, which
/// begin at `first`.
///
/// # Errors
/// The first that was refused.
pub async fn produce(
    address: &str,
    topic: Bytes,
    partition: u32,
    first: u64,
    count: u64,
) -> Result<BTreeMap<u64, u64>, String> {
    let (requests, inbox) = mpsc::channel::<ProduceRequest>(WINDOW);
    let outbound =
        futures_util::stream::unfold(inbox, async |mut inbox| inbox.recv().await.map(|request| (request, inbox)));
    let mut waiting = (first..first + count).map(|number| request(topic.clone(), partition, number));
    for request in waiting.by_ref().take(WINDOW) {
        requests.send(request).await.map_err(|error| error.to_string())?;
    }
    let mut client = wire::data(address);
    let all = async {
        let mut answers = client.produce(outbound).await.map_err(|status| status.to_string())?.into_inner();
        let mut offsets = BTreeMap::new();
        while (offsets.len() as u64) < count {
            let answer = answers.message().await.map_err(|status| status.to_string())?.ok_or("the stream ended")?;
            if let Some(error) = answer.error {
                return Err(format!("{error:?}"));
            }
            offsets.insert(answer.correlation, answer.base_offset);
            if let Some(request) = waiting.next() {
                requests.send(request).await.map_err(|error| error.to_string())?;
            }
        }
        Ok(offsets)
    };
    tokio::time::timeout(PATIENCE, all).await.map_err(|_| "no answer in time".to_owned())?
}

fn request(topic: Bytes, partition: u32, number: u64) -> ProduceRequest {
    let value = vec![b'v'; usize::try_from(number % SIZES * 90 + 40).expect("small")];
    let mut batch = BatchBuilder::new(Compression::None);
    batch.push(0, Some(&number.to_be_bytes()), Some(&value), &[]).expect("a small record");
    ProduceRequest {
        correlation: MARK | number,
        cluster_id: Bytes::new(),
        topic_id: topic,
        partition,
        leader_epoch: -1,
        acks: -1,
        timeout_ms: u32::try_from(PATIENCE.as_millis()).expect("a minute or so"),
        batch: batch.build().expect("a small batch").into(),
    }
}

/// Where the batches of a partition lie on one broker, by base offset.
///
/// # Panics
/// When its files cannot be read.
pub fn batches(data_dir: &Path, topic: uuid::Uuid, partition: u32) -> BTreeMap<u64, Place> {
    let mut places = BTreeMap::new();
    walk(&data_dir.join("partitions").join(format!("{topic}-{partition}")), |batch| {
        places.insert(batch.header.base_offset, place(batch));
    });
    places
}

/// Where the first Raft entry with these bytes lies on one controller.
///
/// # Panics
/// When its files cannot be read.
pub fn entry(data_dir: &Path, needle: &[u8]) -> Option<Place> {
    let mut found = None;
    walk(&data_dir.join("raft").join("log"), |batch| {
        if found.is_none() && batch.bytes.windows(needle.len()).any(|window| window == needle) {
            found = Some(place(batch));
        }
    });
    found
}

fn place(batch: &Batch<'_>) -> Place {
    Place { path: batch.file.to_owned(), from: batch.position, to: batch.position + batch.bytes.len() as u64 }
}

fn walk(dir: &Path, mut visit: impl FnMut(&Batch<'_>)) {
    let storage: Arc<dyn Storage> = Arc::new(FileStorage::new(dir));
    let report = inspect(&storage, dir, &mut visit).unwrap_or_else(|error| panic!("{}: {error}", dir.display()));
    assert!(report.damage.is_none(), "{}: {report:?}", dir.display());
}
