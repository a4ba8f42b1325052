//! Everything that goes on beside the faults: writers of each promise, readers, administrators, and who follows the
//! committed metadata.
//!
//! Owns the tasks from their beginning to their end. Judges nothing.

use super::nodes::{bootstrap, controllers};
use crate::chaos::admins::{self, Configs};
use crate::chaos::metadata::{self, Watch};
use crate::chaos::readers::{self, Session};
use crate::chaos::tape::Watched;
use crate::chaos::workload::{self, Shared, Target};
use std::collections::BTreeMap;
use std::sync::atomic::Ordering;
use std::sync::{Arc, Mutex};
use std::time::Duration;
use tokio::runtime::Runtime;
use tokio::task::JoinHandle;
use uuid::Uuid;

/// Nothing of it may ever be lost.
pub const CHECKED: Watched = Watched { topic: "checked", partitions: 6, retention: false };

/// Its heads are removed by a client that says up to where.
pub const CUT: Watched = Watched { topic: "cut", partitions: 2, retention: false };

/// What is judged.
pub const TOPICS: [Watched; 2] = [CHECKED, CUT];

/// Clients that make and remove topics; they overlap.
const ADMINS: u32 = 2;

/// The tasks.
pub struct Scene {
    shared: Arc<Shared>,
    watch: Arc<Mutex<Watch>>,
    configs: Arc<Mutex<Configs>>,
    clients: Vec<JoinHandle<()>>,
    library: JoinHandle<BTreeMap<u32, u64>>,
    follower: JoinHandle<()>,
}

/// What the tasks know at their end, beside the history.
pub struct Told {
    /// The committed metadata.
    pub watch: Arc<Mutex<Watch>>,
    /// What was told of configs.
    pub configs: Arc<Mutex<Configs>>,
    /// Where the product's consumer ended, by partition of [`CHECKED`].
    pub consumed: BTreeMap<u32, u64>,
    /// Goes on following the metadata until dropped.
    follower: JoinHandle<()>,
}

impl Drop for Told {
    fn drop(&mut self) {
        self.follower.abort();
    }
}

/// What each writer writes: three whose every record must be kept, one that trusts the leader alone, one that trusts the
/// network, and one whose records are removed later.
fn targets() -> Vec<Target> {
    let checked = || Target::new(CHECKED.topic, CHECKED.partitions, 16);
    let slow = |ms| Duration::from_millis(ms);
    vec![
        checked(),
        checked(),
        checked(),
        Target { acks: 1, in_flight: 8, pause: slow(2), ..checked() },
        Target { acks: 0, in_flight: 8, pause: slow(5), ..checked() },
        Target { pause: slow(5), ..Target::new(CUT.topic, CUT.partitions, 8) },
    ]
}

impl Scene {
    /// Starts everybody.
    pub fn open(runtime: &Runtime, shared: &Arc<Shared>, cluster_id: Uuid, seed: u64) -> Self {
        let _inside = runtime.enter();
        let mut clients = vec![];
        for (number, target) in (1..).zip(targets()) {
            let producer = target.producer(&bootstrap());
            clients.push(runtime.spawn(workload::write(shared.clone(), producer, target, number)));
        }
        for (number, topic) in (0..).zip(TOPICS) {
            let topic = (topic.topic, topic.partitions);
            clients.push(runtime.spawn(Session::consumer(shared.clone(), &bootstrap(), number, topic).run()));
        }
        let checked = (CHECKED.topic, CHECKED.partitions);
        for (number, address) in (1..).zip(bootstrap().split(',')) {
            clients.push(runtime.spawn(Session::listener(shared.clone(), address, number, checked).run()));
        }
        for number in 0..ADMINS {
            clients.push(runtime.spawn(admins::topics(shared.clone(), bootstrap(), number, seed)));
        }
        let heads = admins::heads(shared.clone(), bootstrap(), CUT.topic, CUT.partitions, seed);
        clients.push(runtime.spawn(heads));
        let configs = Arc::new(Mutex::new(Configs::default()));
        clients.push(runtime.spawn(admins::configs(shared.clone(), bootstrap(), CHECKED.topic, configs.clone())));
        let watch = Arc::new(Mutex::new(Watch::default()));
        let follower = runtime.spawn(metadata::follow(watch.clone(), controllers(), cluster_id));
        let library = runtime.spawn(readers::library(shared.clone(), bootstrap(), CHECKED.topic));
        Self { shared: shared.clone(), watch, configs, clients, library, follower }
    }

    /// Tells everybody to stop and waits until they have.
    ///
    /// # Panics
    /// When a client panicked.
    pub fn close(self, runtime: &Runtime) -> Told {
        self.shared.stop.store(true, Ordering::Relaxed);
        runtime.block_on(async {
            for client in self.clients {
                client.await.expect("no client panics");
            }
            let consumed = self.library.await.expect("the consumer does not panic");
            Told { watch: self.watch, configs: self.configs, consumed, follower: self.follower }
        })
    }
}
