//! The clients that speak with controllers: one gives the register values, others ask for it and for the newest batch.
//!
//! They use the bare wire, one attempt per value: a client that tries again gives one value twice, and then nobody could
//! say whether an answer is old.

use super::{Client, now, simulated_pause};
use crate::chaos::random::Random;
use crate::checker::event::{Answer, Op};
use crate::ring2::nodes::Kind;
use crate::ring2::record::Law;
use protocol::error::ApiError;
use protocol::rpc::channel::Channel;
use protocol::rpc::convert::from_status;
use protocol::rpc::pb::admin::v1::admin_client::AdminClient;
use protocol::rpc::pb::admin::v1::{
    AlterConfigsRequest, ConfigEntry, DescribeClusterRequest, DescribeConfigsRequest, ResourceKind,
};
use std::time::Duration;
use tokio::time::timeout;

/// The topic whose configuration is the register.
pub(super) const REGISTER: &str = "register";
/// Its config.
const REGISTER_KEY: &str = "retention.ms";
/// Added to the register's value, to be a legal one.
const REGISTER_BASE: u64 = 3_600_000;
/// Longest wait for an answer, ms, at least and at most: whoever gives up soon soon finds the next leader.
const PATIENCE_MS: (u64, u64) = (60, 900);

/// Why there is no answer: the code and the text.
type Failure = (u16, String);

fn failure(error: &ApiError) -> Failure {
    (error.code as u16, error.to_string())
}

async fn answer<T>(
    patience: Duration,
    call: impl Future<Output = Result<tonic::Response<T>, tonic::Status>>,
) -> Result<T, Failure> {
    match timeout(patience, call).await {
        Ok(Ok(response)) => Ok(response.into_inner()),
        Ok(Err(status)) => Err(failure(&from_status(&status))),
        Err(_) => Err((crate::checker::event::NO_ANSWER, format!("no answer within {patience:?}"))),
    }
}

fn patience(random: &mut Random) -> Duration {
    Duration::from_millis(random.between(PATIENCE_MS.0, PATIENCE_MS.1))
}

impl Client {
    fn controllers(&self) -> Vec<(String, AdminClient<Channel>)> {
        let addresses = self.cluster.bootstrap(Kind::Controller);
        addresses.split(',').map(|address| (address.to_owned(), crate::wire::admin(address))).collect()
    }

    /// Makes the topics, then gives the register one value after the other until told to stop: each once, to the controller
    /// that took the last one, or to the next.
    pub async fn administer(self, replicas: u32, policy: &'static str) {
        self.begins();
        self.make_topics(replicas, policy).await;
        let mut controllers = self.controllers();
        let mut random = Random::new(self.seed);
        let (mut value, mut turn) = (0, 0);
        while !self.stage.stop.get() {
            value += 1;
            let (name, controller) = &mut controllers[turn];
            match self.put(controller, value, patience(&mut random)).await {
                Ok(batch) => {
                    let mut record = self.record.borrow_mut();
                    record.count("metadata writes");
                    record.note(now(), &format!("register {value} by batch {batch}"));
                    record.tell_batch(batch);
                }
                Err((_, why)) => {
                    self.note(&format!("register {value} at {name}: {why}"));
                    turn = (turn + 1) % controllers.len();
                }
            }
            simulated_pause(Duration::from_millis(random.between(5, 80))).await;
        }
        self.leave();
    }

    async fn put(&self, controller: &mut AdminClient<Channel>, value: u64, patience: Duration) -> Result<u64, Failure> {
        let request = AlterConfigsRequest {
            kind: ResourceKind::ResourceTopic.into(),
            name: REGISTER.to_owned(),
            set: vec![ConfigEntry { key: REGISTER_KEY.to_owned(), value: (REGISTER_BASE + value).to_string() }],
            unset: vec![],
            validate_only: false,
        };
        let of = self.record.borrow().invoke(self.process(), Op::Put { register: REGISTER.to_owned(), value });
        let told = answer(patience, controller.alter_configs(request)).await;
        let record = self.record.borrow();
        match &told {
            Ok(_) => record.ok(self.process(), of, Answer::Done),
            Err((code, _)) => record.failed(self.process(), of, *code),
        }
        told.map(|answer| answer.batch_no)
    }

    /// Asks one controller or the other, again and again: no answer may be older than what anybody was told before.
    pub async fn ask(self) {
        self.begins();
        self.ready().await;
        let mut controllers = self.controllers();
        let mut random = Random::new(self.seed);
        let mut last = 0;
        while !self.stage.stop.get() {
            // Mostly the one that answered last: it may have been deposed since.
            let at = match random.chance(30) {
                true => usize::try_from(random.below(controllers.len() as u64)).unwrap_or(0),
                false => last,
            };
            let (name, controller) = &mut controllers[at];
            let patience = patience(&mut random);
            let asked = match random.chance(50) {
                true => self.get(controller, patience).await,
                false => self.newest_batch(name, controller, patience).await,
            };
            match asked {
                Ok(()) => {
                    self.record.borrow_mut().count("metadata reads");
                    last = at;
                }
                Err((_, why)) => self.note(&format!("asked {name}: {why}")),
            }
            simulated_pause(Duration::from_millis(random.between(2, 30))).await;
        }
        self.leave();
    }

    async fn get(&self, controller: &mut AdminClient<Channel>, patience: Duration) -> Result<(), Failure> {
        let request = DescribeConfigsRequest { kind: ResourceKind::ResourceTopic.into(), name: REGISTER.to_owned() };
        let of = self.record.borrow().invoke(self.process(), Op::Get { register: REGISTER.to_owned() });
        let told = answer(patience, controller.describe_configs(request)).await;
        let mut record = self.record.borrow_mut();
        match told {
            Ok(configs) => {
                let held = configs.entries.iter().find(|entry| entry.key == REGISTER_KEY);
                let held = held.and_then(|entry| entry.value.parse::<u64>().ok()).unwrap_or(0);
                // Its default is no value that anybody gave.
                let value = held.checked_sub(REGISTER_BASE).filter(|value| *value < 1_000_000).unwrap_or(0);
                record.ok(self.process(), of, Answer::Holds(value));
                record.note(now(), &format!("register is {value}"));
                Ok(())
            }
            Err((code, why)) => {
                record.failed(self.process(), of, code);
                Err((code, why))
            }
        }
    }

    /// The number of the newest batch never falls.
    async fn newest_batch(
        &self,
        name: &str,
        controller: &mut AdminClient<Channel>,
        patience: Duration,
    ) -> Result<(), Failure> {
        let known = self.record.borrow().told_batch();
        let batch = answer(patience, controller.describe_cluster(DescribeClusterRequest {})).await?.batch_no;
        let mut record = self.record.borrow_mut();
        record.note(now(), &format!("newest batch is {batch}"));
        if batch < known {
            let what = format!("{name} said batch {batch}; before the question somebody was told of batch {known}");
            record.broke(Law::AnswersAreNotOld, now(), what);
        }
        record.tell_batch(batch);
        Ok(())
    }
}
