//! The command line of dev clusters: read arguments, act through [`Cluster`], print.
//!
//! Owns words and exit codes, no step of its own. Data goes to stdout, progress and advice to stderr, so that
//! `seawall dev status -o json` can be piped.

use super::cluster::{Cluster, DevError, NodeState, NodeStatus};
use super::layout::{NodeName, Setting, Spec, bootstrap};
use super::process::Signal;
use super::state::State;
use crate::exit::Exit;
use crate::limits;
use clap::{Args, Subcommand};
use client::cli::Format;
use std::path::PathBuf;

/// `seawall dev [flags] [verb]`.
#[derive(Debug, Args)]
#[command(args_conflicts_with_subcommands = true)]
pub struct DevArgs {
    #[command(subcommand)]
    verb: Option<Verb>,
    #[command(flatten)]
    up: UpArgs,
}

/// What to start.
#[derive(Debug, Args)]
struct UpArgs {
    #[command(flatten)]
    place: Place,
    /// Controllers, each a voter of the metadata quorum [default: 3]
    #[arg(long)]
    controllers: Option<u32>,
    /// Brokers [default: 3]
    #[arg(long)]
    brokers: Option<u32>,
    /// Simulated data centres, over which both roles are spread round robin [default: 3]
    #[arg(long)]
    dcs: Option<u32>,
    /// First port: controller i listens on P+10*i, broker i on P+100+10*i [default: 19090]
    #[arg(long)]
    port_base: Option<u16>,
    /// Return once the cluster is ready and leave it running
    #[arg(long)]
    detach: bool,
    /// A setting of the nodes, `[controller:|broker:]key=value`; may be repeated
    #[arg(short = 'X', value_name = "KEY=VALUE")]
    settings: Vec<Setting>,
}

/// Which cluster.
#[derive(Debug, Clone, Args)]
pub struct Place {
    /// Folder of the cluster [default: $XDG_DATA_HOME/seawall/dev]
    #[arg(long, value_name = "D")]
    pub data_dir: Option<PathBuf>,
}

#[derive(Debug, Subcommand)]
enum Verb {
    /// List the nodes: role, id, data centre, process, addresses, state
    Status(Place),
    /// Stop every node: brokers first, with a controlled shutdown, then controllers
    Stop(Place),
    /// Kill every node and remove the cluster's files
    Purge(Place),
    /// Kill a node at once, as a crash would (SIGKILL)
    Kill(Target),
    /// Freeze a node, as a long pause of the machine would (SIGSTOP)
    Pause(Target),
    /// Let a paused node go on (SIGCONT)
    Resume(Target),
    /// Start a node that does not run, and wait until it is ready
    Start(Target),
}

#[derive(Debug, Args)]
struct Target {
    /// The node, say `broker-2`
    #[arg(value_name = "ROLE-ID", required = true)]
    nodes: Vec<NodeName>,
    #[command(flatten)]
    place: Place,
}

/// Runs the command; errors are printed here.
pub fn run(args: &DevArgs, output: Format) -> Exit {
    let result = match &args.verb {
        None => super::up::run(&args.up.place, &args.up.spec(), args.up.detach),
        Some(verb) => run_verb(verb, output),
    };
    result.unwrap_or_else(|error| {
        eprintln!("seawall dev: {error}");
        exit_of(&error)
    })
}

fn exit_of(error: &DevError) -> Exit {
    use super::state::StateError;
    match error {
        DevError::Layout(_) => Exit::Usage,
        DevError::State(StateError::None(_)) | DevError::NoNode { .. } => Exit::NotFound,
        DevError::NotEmpty(_) | DevError::Running { .. } | DevError::OtherSpec { .. } => Exit::Refused,
        DevError::NotRunning(_) | DevError::RunsAlready(_) => Exit::ConditionFalse,
        DevError::NotReady { .. } => Exit::Unreachable,
        _ => Exit::Other,
    }
}

fn run_verb(verb: &Verb, output: Format) -> Result<Exit, DevError> {
    match verb {
        Verb::Status(place) => print_status(&place.cluster()?.status()?, output),
        Verb::Stop(place) => {
            let cluster = place.cluster()?;
            let killed = cluster.stop()?;
            super::discovery::forget(cluster.root());
            for name in &killed {
                eprintln!("{name} did not stop within {} s and was killed", limits::DEV_STOP_TIMEOUT.as_secs());
            }
            eprintln!("stopped the dev cluster in {}", cluster.root().display());
        }
        Verb::Purge(place) => {
            let cluster = place.cluster()?;
            cluster.purge()?;
            super::discovery::forget(cluster.root());
            eprintln!("removed the dev cluster in {}", cluster.root().display());
        }
        Verb::Kill(target) => target.each("killed", |cluster, name| cluster.kill(name))?,
        Verb::Pause(target) => target.each("paused", |cluster, name| cluster.signal(name, Signal::STOP))?,
        Verb::Resume(target) => target.each("resumed", |cluster, name| cluster.signal(name, Signal::CONT))?,
        Verb::Start(target) => {
            let cluster = target.place.cluster()?;
            cluster.start(&target.nodes)?;
            cluster.wait_ready(&target.nodes, limits::DEV_READY_TIMEOUT, |name| eprintln!("{name} is ready"))?;
        }
    }
    Ok(Exit::Ok)
}

impl Target {
    fn each(&self, done: &str, act: impl Fn(&Cluster, NodeName) -> Result<(), DevError>) -> Result<(), DevError> {
        let cluster = self.place.cluster()?;
        for name in &self.nodes {
            act(&cluster, *name)?;
            eprintln!("{done} {name}");
        }
        Ok(())
    }
}

impl Place {
    /// The cluster in the folder; without one, the cluster last started, or the default folder.
    pub fn cluster(&self) -> Result<Cluster, DevError> {
        let root = match &self.data_dir {
            Some(root) => root.clone(),
            None => match super::discovery::running() {
                Some(found) => found,
                None => super::discovery::default_root()?,
            },
        };
        Cluster::new(&root, &program()?)
    }

    /// The cluster to start: the folder or the default one, whatever else runs.
    pub fn fresh(&self) -> Result<Cluster, DevError> {
        let root = match &self.data_dir {
            Some(root) => root.clone(),
            None => super::discovery::default_root()?,
        };
        Cluster::new(&root, &program()?)
    }
}

fn program() -> Result<PathBuf, DevError> {
    std::env::current_exe()
        .map_err(|error| DevError::Io { what: "cannot find this program's own file".to_owned(), error })
}

impl UpArgs {
    fn spec(&self) -> super::up::Asked {
        super::up::Asked {
            controllers: self.controllers,
            brokers: self.brokers,
            dcs: self.dcs,
            port_base: self.port_base,
            settings: self.settings.clone(),
        }
    }
}

fn print_status(nodes: &[NodeStatus], output: Format) {
    if output == Format::Json {
        let text = serde_json::to_string_pretty(nodes).expect("numbers and texts are JSON");
        println!("{text}");
        return;
    }
    let mut table = comfy_table::Table::new();
    table.load_preset(comfy_table::presets::NOTHING);
    table.set_header(["ROLE", "ID", "DC", "PID", "ADDRESS", "METRICS", "STATE"]);
    for node in nodes {
        let state = match node.state {
            NodeState::Running => "running",
            NodeState::NotReady => "not-ready",
            NodeState::Paused => "paused",
            NodeState::Stopped => "stopped",
        };
        let pid = node.pid.map_or("-".to_owned(), |pid| pid.to_string());
        table.add_row([
            node.role.to_string(),
            node.id.to_string(),
            node.dc.clone(),
            pid,
            node.address.clone(),
            node.metrics.clone(),
            state.to_owned(),
        ]);
    }
    table.lines().for_each(|line| println!("{}", line.trim()));
}

/// What to type next, for a cluster that is ready.
pub fn welcome(cluster: &Cluster, state: &State, command: &str) -> String {
    let Spec { controllers, brokers, dcs, .. } = state.spec;
    let addresses = bootstrap(&state.nodes).join(",");
    format!(
        "Seawall is running: {controllers} controllers and {brokers} brokers in {dcs} data centres.

  bootstrap  {addresses}
  data       {}

What to type next (no flag is needed: commands find a dev cluster by themselves):

  {command} topic create events --partitions {} --replicas {}
  seq 1 100000 | {command} produce events
  {command} consume events --from earliest --until-end | wc -l
  {command} dev kill broker-1
  {command} explain partition events/0
  {command} dev start broker-1
  {command} dev status
",
        cluster.root().display(),
        brokers * 2,
        brokers.min(3),
    )
}
