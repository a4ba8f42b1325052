//! Brokers in the image: registrations, fencing, restarts still to be proved. Heartbeats are not here: they
//! are soft state of controllers.

use super::record::{BrokerRegistered, Endpoint};
use crate::ids::{BrokerEpoch, BrokerId};
use crate::locality::Locality;
use rpds::RedBlackTreeMapSync;
use uuid::Uuid;

/// Whether a broker takes part.
#[derive(Debug, Clone, Copy, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub enum BrokerState {
    /// Leads nothing, counts nowhere.
    Fenced,
    /// Takes part.
    Active,
    /// Still serves, but gets no new leadership or ISR place; leaders move away.
    ShuttingDown,
}

/// One broker.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Broker {
    /// Its id.
    pub id: BrokerId,
    /// Current registration.
    pub epoch: BrokerEpoch,
    /// Uuid of the process.
    pub incarnation: Uuid,
    /// Listener for nodes.
    pub internal: Endpoint,
    /// Listener for applications.
    pub client: Endpoint,
    /// Where it stands.
    pub locality: Locality,
    /// Data directories.
    pub directories: Vec<Uuid>,
    /// Lowest `metadata.version` it folds.
    pub min_metadata_version: u16,
    /// Highest `metadata.version` it folds.
    pub max_metadata_version: u16,
    /// Fenced, active or shutting down.
    pub state: BrokerState,
    /// Places that this registration could not prove have fallen; before that it is never unfenced.
    pub proved: bool,
    /// This registration may prove partitions at all.
    pub proof_admissible: bool,
    /// Registration under which it was last unfenced, over all registrations. None: never.
    pub last_unfenced_epoch: Option<BrokerEpoch>,
}

impl Broker {
    /// Counts for leadership of new elections and for ISR growth.
    #[must_use]
    pub fn is_active(&self) -> bool {
        self.state == BrokerState::Active
    }

    /// Is fenced.
    #[must_use]
    pub fn is_fenced(&self) -> bool {
        self.state == BrokerState::Fenced
    }
}

/// What somebody saw of a broker in an image: the two numbers that say whether a registration may follow it, and what a
/// restart must know to prove anything. A registration names the view that it was made on, and is decided on no other.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct BrokerView {
    /// Its registration. None: never registered.
    pub registered: Option<BrokerEpoch>,
    /// Registration under which it was last unfenced. None: never.
    pub last_unfenced: Option<BrokerEpoch>,
}

impl std::fmt::Display for BrokerView {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let number = |epoch: Option<BrokerEpoch>| epoch.map_or("none".to_owned(), |e| e.to_string());
        write!(f, "registered {}, last unfenced {}", number(self.registered), number(self.last_unfenced))
    }
}

/// All brokers ever registered.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct BrokersImage {
    pub(super) brokers: RedBlackTreeMapSync<BrokerId, Broker>,
}

impl BrokersImage {
    /// One broker.
    #[must_use]
    pub fn get(&self, id: BrokerId) -> Option<&Broker> {
        self.brokers.get(&id)
    }

    /// What this image shows of a broker to somebody who wants to register it.
    #[must_use]
    pub fn view(&self, id: BrokerId) -> BrokerView {
        let known = self.get(id);
        BrokerView { registered: known.map(|b| b.epoch), last_unfenced: known.and_then(|b| b.last_unfenced_epoch) }
    }

    /// All, by id.
    pub fn iter(&self) -> impl Iterator<Item = &Broker> {
        self.brokers.values()
    }

    /// Whether the broker exists and is active.
    #[must_use]
    pub fn is_active(&self, id: BrokerId) -> bool {
        self.get(id).is_some_and(Broker::is_active)
    }

    pub(super) fn register(&mut self, fact: &BrokerRegistered) {
        let last_unfenced_epoch = self.get(fact.broker).and_then(|b| b.last_unfenced_epoch);
        self.brokers.insert_mut(
            fact.broker,
            Broker {
                id: fact.broker,
                epoch: fact.epoch,
                incarnation: fact.incarnation,
                internal: fact.internal.clone(),
                client: fact.client.clone(),
                locality: fact.locality.clone(),
                directories: fact.directories.clone(),
                min_metadata_version: fact.min_metadata_version,
                max_metadata_version: fact.max_metadata_version,
                state: BrokerState::Fenced,
                proved: false,
                proof_admissible: fact.proof_admissible,
                last_unfenced_epoch,
            },
        );
    }

    pub(super) fn update(&mut self, id: BrokerId, change: impl FnOnce(&mut Broker)) {
        if let Some(broker) = self.brokers.get_mut(&id) {
            change(broker);
        }
    }
}
