//! The command line of `seawall bench`.

use super::failover::{self, Plan};
use super::scenario::Scenario;
use crate::dev::cluster::{Cluster, DevError};
use crate::dev::layout::Spec;
use crate::dev::verbs::Place;
use crate::exit::Exit;
use crate::limits;
use clap::{Args, Subcommand};
use client::cli::Format;

/// `seawall bench VERB`.
#[derive(Debug, Args)]
pub struct BenchArgs {
    #[command(subcommand)]
    verb: Verb,
}

#[derive(Debug, Subcommand)]
enum Verb {
    /// Kill and freeze nodes of a dev cluster and measure how long writes and topic creation stand still
    #[command(
        after_help = "Uses the dev cluster of --data-dir if it runs; else starts one of its own there, or in a temporary \
folder, and removes it afterwards. Exits with 3 if a promise was missed."
    )]
    Failover {
        #[command(flatten)]
        place: Place,
        /// How often each fault is made
        #[arg(short = 'n', long, default_value_t = 20)]
        kills: u32,
        /// Only these faults; may be repeated
        #[arg(long = "scenario", value_enum)]
        scenarios: Vec<Scenario>,
        /// Partitions of the topic written to
        #[arg(long, default_value_t = 6)]
        partitions: u32,
    },
}

/// Runs the command; errors are printed here.
pub fn run(args: &BenchArgs, output: Format) -> Exit {
    let Verb::Failover { place, kills, scenarios, partitions } = &args.verb;
    let scenarios = if scenarios.is_empty() { Scenario::ALL.to_vec() } else { scenarios.clone() };
    let plan = Plan { scenarios, times: *kills, partitions: (*partitions).max(1) };
    match bench_failover(place, &plan, output) {
        Ok(exit) => exit,
        Err(error) => {
            eprintln!("seawall bench failover: {error}");
            Exit::Other
        }
    }
}

fn bench_failover(place: &Place, plan: &Plan, output: Format) -> Result<Exit, failover::BenchError> {
    let cluster = place.cluster()?;
    if cluster.existing()?.is_some() && cluster.running()? > 0 {
        return measure(&cluster, plan, output);
    }
    let folder = std::env::temp_dir().join(format!("seawall-bench-{}", std::process::id()));
    let own = Cluster::new(&folder, cluster.program())?;
    eprintln!("no dev cluster runs; starting one in {}", folder.display());
    let outcome = start(&own).and_then(|()| measure(&own, plan, output));
    own.purge()?;
    outcome
}

/// Starts a cluster of the bench's own on the first free ports.
fn start(cluster: &Cluster) -> Result<(), failover::BenchError> {
    let mut port_base = limits::DEV_PORT_BASE;
    loop {
        let spec = Spec { controllers: 3, brokers: 3, dcs: 3, port_base, settings: vec![] };
        match cluster.create(spec) {
            Ok(_) => break,
            Err(DevError::PortTaken { .. }) if port_base < limits::DEV_PORT_BASE + 5000 => port_base += 200,
            Err(error) => return Err(error.into()),
        }
    }
    let names = cluster.names()?;
    cluster.start(&names)?;
    Ok(cluster.wait_ready(&names, limits::DEV_READY_TIMEOUT, |_| ())?)
}

fn measure(cluster: &Cluster, plan: &Plan, output: Format) -> Result<Exit, failover::BenchError> {
    failover::check(cluster, plan)?;
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build();
    let runtime =
        runtime.map_err(|error| DevError::Io { what: "cannot start the bench's runtime".to_owned(), error })?;
    let report = runtime.block_on(failover::run(cluster, plan, &|line| eprintln!("{line}")))?;
    match output {
        Format::Json => println!("{}", serde_json::to_string_pretty(&report).expect("numbers and texts are JSON")),
        Format::Table => println!("{}", report.table()),
    }
    Ok(if report.met() { Exit::Ok } else { Exit::ConditionFalse })
}
