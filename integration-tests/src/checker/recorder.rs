//! Writes a run down while it happens.
//!
//! Owns the place (a file; memory for a simulation) and the order: one lock gives out sequence numbers, so their order is
//! real time. An invocation is handed to the kernel before [`Recorder::invoke`] returns, hence before the request leaves:
//! a recorder that dies may lose what was answered, never that it was asked.

use super::event::{Answer, Body, Event, Header, History, Op, Process};
use super::file;
use std::fs::File;
use std::io::{self, BufWriter, Write};
use std::path::Path;
use std::sync::Mutex;
use std::time::{Duration, Instant, SystemTime};

/// What the clocks show: since 1970, and since some moment in the past.
type Clocks = Box<dyn Fn() -> (Duration, Duration) + Send + Sync>;

/// A history being written; shared by all clients of a run.
pub struct Recorder {
    inner: Mutex<Inner>,
    clocks: Clocks,
}

#[derive(Debug)]
struct Inner {
    sink: Sink,
    seq: u64,
    keys: u32,
}

#[derive(Debug)]
enum Sink {
    File(BufWriter<File>),
    Memory(Vec<Event>),
}

impl std::fmt::Debug for Recorder {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Recorder").field("inner", &self.inner).finish_non_exhaustive()
    }
}

impl Recorder {
    /// Begins a file.
    ///
    /// # Errors
    /// The file system's.
    pub fn create(path: &Path, header: &Header) -> io::Result<Self> {
        let mut sink = BufWriter::new(File::create(path)?);
        file::begin(&mut sink, header)?;
        sink.flush()?;
        let began = Instant::now();
        let wall = || SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
        Ok(Self::begin(Sink::File(sink), Box::new(move || (wall(), began.elapsed()))))
    }

    /// Begins in memory, under the clocks of a simulation: since 1970, and since some moment in the past.
    pub fn in_memory(clocks: impl Fn() -> (Duration, Duration) + Send + Sync + 'static) -> Self {
        Self::begin(Sink::Memory(Vec::new()), Box::new(clocks))
    }

    fn begin(sink: Sink, clocks: Clocks) -> Self {
        Self { inner: Mutex::new(Inner { sink, seq: 0, keys: 0 }), clocks }
    }

    /// What was recorded in memory so far; of a file nothing.
    ///
    /// # Panics
    /// Never: nobody panics while recording.
    pub fn history(&self, header: Header) -> History {
        let inner = self.inner.lock().expect("nobody panics while holding it");
        let events = match &inner.sink {
            Sink::Memory(events) => events.clone(),
            Sink::File(_) => Vec::new(),
        };
        History { header, events, torn: false }
    }

    /// Writes that an operation is about to leave; the number is what its completion names.
    pub fn invoke(&self, process: Process, op: Op) -> u64 {
        self.write(process, Body::Invoke(op), true)
    }

    /// Writes that it succeeded.
    pub fn ok(&self, process: Process, of: u64, answer: Answer) {
        self.write(process, Body::Ok { of, answer }, false);
    }

    /// Writes that it certainly did nothing.
    pub fn fail(&self, process: Process, of: u64, code: u16) {
        self.write(process, Body::Fail { of, code }, false);
    }

    /// Writes that its outcome is unknown.
    pub fn info(&self, process: Process, of: u64, code: u16) {
        self.write(process, Body::Info { of, code }, false);
    }

    /// Writes what the run itself did or saw.
    pub fn note(&self, body: Body) -> u64 {
        self.write((0, 0), body, true)
    }

    /// Declares a partition and returns its key.
    ///
    /// # Panics
    /// When the file cannot be written.
    pub fn key(&self, topic: &str, partition: u32, retention: bool) -> u32 {
        let key = {
            let mut inner = self.inner.lock().expect("nobody panics while holding it");
            inner.keys += 1;
            inner.keys - 1
        };
        self.note(Body::Key { key, topic: topic.to_owned(), partition, retention });
        key
    }

    fn write(&self, process: Process, body: Body, flush: bool) -> u64 {
        let mut inner = self.inner.lock().expect("nobody panics while holding it");
        inner.seq += 1;
        let (wall, mono) = (self.clocks)();
        let event = Event {
            seq: inner.seq,
            wall_ns: u64::try_from(wall.as_nanos()).unwrap_or(u64::MAX),
            mono_ns: u64::try_from(mono.as_nanos()).unwrap_or(u64::MAX),
            process: process.0,
            incarnation: process.1,
            body,
        };
        match &mut inner.sink {
            Sink::File(file) => {
                file::append(file, &event).expect("the run's own file can be written");
                if flush {
                    file.flush().expect("the run's own file can be written");
                }
            }
            Sink::Memory(events) => events.push(event),
        }
        inner.seq
    }

    /// Everything written so far is handed to the kernel.
    ///
    /// # Panics
    /// When the file cannot be written.
    pub fn flush(&self) {
        let mut inner = self.inner.lock().expect("nobody panics while holding it");
        if let Sink::File(file) = &mut inner.sink {
            file.flush().expect("the run's own file can be written");
        }
    }
}
