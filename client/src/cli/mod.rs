//! The command tree over the library, embedded by the `seawall` binary.
//!
//! Owns: [`Command`], [`Globals`], [`run`]; parsing, calling, printing. One file per noun.
//! Never: opens a data directory or starts a process (the binary does); holds logic that the library should have.
//! Invariants: data goes to stdout, talk to stderr; every verb knows `-o table|json`; exit codes are those of [`Exit`].

mod broker;
mod cluster;
mod consume;
pub mod discover;
mod exit;
mod explain;
pub mod format;
mod metadata;
mod output;
mod partition;
mod produce;
mod quorum;
mod time;
mod topic;

pub use exit::{EXIT_CODES, Exit, Failure};
pub use output::{Format, Output};

use crate::admin::Admin;
use crate::config::ClientConfig;
use crate::limits::CLI_TIMEOUT_MS;
use clap::{Args, Subcommand};
use std::process::ExitCode;
use std::time::Duration;

/// Flags that every client command takes.
#[derive(Debug, Clone, Args)]
pub struct Globals {
    /// Brokers to begin with, HOST:PORT[,HOST:PORT...]; without it the running `seawall dev` cluster is used
    #[arg(short, long, env = "SEAWALL_BOOTSTRAP", global = true, value_name = "HOST:PORT,...")]
    pub bootstrap: Option<String>,
    /// How data is printed
    #[arg(short, long, global = true, value_enum, default_value_t = Format::Table)]
    pub output: Format,
    /// Longest wait for a request, such as 10s or 2m [default: 10s, voter changes 2m, consume 30s]
    #[arg(long, global = true, value_parser = time::duration_ms, value_name = "TIME")]
    pub timeout: Option<u64>,
}

/// Client commands.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Create, list, describe, change, trim and delete topics
    #[command(subcommand, alias = "topics")]
    Topic(topic::Verb),
    /// Read lines from stdin and write each as a record
    #[command(after_help = produce::HELP)]
    Produce(produce::Arguments),
    /// Write the values of records to stdout, one a line
    #[command(after_help = consume::HELP)]
    Consume(consume::Arguments),
    /// The cluster as a whole
    #[command(subcommand)]
    Cluster(cluster::Verb),
    /// The controllers' quorum and its voters
    #[command(subcommand)]
    Quorum(quorum::Verb),
    /// Brokers
    #[command(subcommand, alias = "brokers")]
    Broker(broker::Verb),
    /// Partitions and their leaders
    #[command(subcommand, alias = "partitions")]
    Partition(partition::Verb),
    /// Say why something is as it is, and what would happen if
    #[command(subcommand)]
    Explain(explain::Verb),
    /// The metadata log
    #[command(subcommand)]
    Metadata(metadata::Verb),
}

/// What verbs work with.
struct Context {
    globals: Globals,
    out: Output,
}

impl Context {
    /// Options common to all handles: addresses from the flag, the environment, or the dev cluster.
    fn client_config(&self) -> Result<ClientConfig, Failure> {
        let bootstrap = match &self.globals.bootstrap {
            Some(list) => list.clone(),
            None => discover::read().map(|dev| dev.bootstrap.join(",")).map_err(Failure::no_cluster)?,
        };
        let mut config = ClientConfig::new(&bootstrap)?.set("client.id", "seawall-cli")?;
        if let Some(timeout_ms) = self.globals.timeout {
            config = config.set("request.timeout.ms", &timeout_ms.to_string())?;
        }
        Ok(config)
    }

    fn admin(&self) -> Result<Admin, Failure> {
        let admin = Admin::new(self.client_config()?);
        Ok(match self.globals.timeout {
            Some(_) => admin,
            None => admin.with_timeout(Duration::from_millis(CLI_TIMEOUT_MS)),
        })
    }
}

/// Runs a command on a runtime of its own and prints what is to be said. The exit code is one of [`Exit`].
#[must_use]
pub fn run(command: Command, globals: Globals) -> ExitCode {
    let runtime = match tokio::runtime::Builder::new_multi_thread().enable_all().build() {
        Ok(runtime) => runtime,
        Err(error) => {
            eprintln!("error: cannot start: {error}");
            return Exit::Other.into();
        }
    };
    let exit = runtime.block_on(perform(command, globals));
    // Reading stdin cannot be cancelled; do not wait for it.
    runtime.shutdown_background();
    exit.into()
}

/// Runs a command on the current runtime; errors are printed to stderr.
pub async fn perform(command: Command, globals: Globals) -> Exit {
    let out = Output::new(globals.output);
    let context = Context { globals, out };
    let outcome = match command {
        Command::Topic(verb) => topic::run(verb, &context).await,
        Command::Produce(arguments) => produce::run(arguments, &context).await,
        Command::Consume(arguments) => consume::run(arguments, &context).await,
        Command::Cluster(verb) => cluster::run(verb, &context).await,
        Command::Quorum(verb) => quorum::run(verb, &context).await,
        Command::Broker(verb) => broker::run(verb, &context).await,
        Command::Partition(verb) => partition::run(verb, &context).await,
        Command::Explain(verb) => explain::run(verb, &context).await,
        Command::Metadata(verb) => metadata::run(verb, &context).await,
    };
    match outcome {
        Ok(exit) => exit,
        Err(failure) => {
            failure.print();
            failure.exit
        }
    }
}

#[cfg(test)]
mod tests;
