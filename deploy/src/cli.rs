//! The command tree of `seawall`: roles, verbs that open files or start processes, and the client's commands.
//!
//! Owns the tree's top and the dispatch. Each branch prints its own errors and returns an exit code; nothing is decided
//! here. `broker` is two things: with a verb the client's noun, without one the role, so that node's arguments are put
//! onto the noun.

use crate::dev::layout::Role;
use crate::exit::{Exit, NODE_CODES};
use crate::role::RoleArgs;
use clap::{ArgMatches, Args, CommandFactory, FromArgMatches, Parser, Subcommand};
use client::cli::{EXIT_CODES, Globals};
use std::ffi::OsString;
use std::process::ExitCode;

/// A replicated, partitioned log.
#[derive(Debug, Parser)]
#[command(name = "seawall", version, about, after_help = format!("{EXIT_CODES}. {NODE_CODES}"))]
#[command(arg_required_else_help = true)]
struct Cli {
    #[command(flatten)]
    globals: Globals,
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// A whole cluster on this machine: start it, look at it, break it
    Dev(crate::dev::verbs::DevArgs),
    /// Run a controller
    Controller(crate::role::RoleArgs),
    /// Give a data directory its identity, once
    Format(crate::format::FormatArgs),
    /// Look into logs on disk
    Log(crate::log_tool::verbs::LogArgs),
    /// Measure a dev cluster by breaking it
    Bench(crate::bench::verbs::BenchArgs),
    #[command(flatten)]
    Client(client::cli::Command),
}

/// The whole tree.
fn tree() -> clap::Command {
    Cli::command().mut_subcommand("broker", |noun| {
        RoleArgs::augment_args(noun)
            .about("Run a broker (with --config), or ask about brokers (with a verb)")
            .subcommand_required(false)
            .arg_required_else_help(true)
            .args_conflicts_with_subcommands(true)
    })
}

/// What the arguments ask for: a role, or one of the commands.
enum Asked {
    Role(Role, RoleArgs),
    Command(Globals, Command),
}

fn read(matches: &ArgMatches) -> Result<Asked, clap::Error> {
    if let Some(("broker", noun)) = matches.subcommand()
        && noun.subcommand_name().is_none()
    {
        return Ok(Asked::Role(Role::Broker, RoleArgs::from_arg_matches(noun)?));
    }
    let Cli { globals, command } = Cli::from_arg_matches(matches)?;
    Ok(match command {
        Command::Controller(args) => Asked::Role(Role::Controller, args),
        command => Asked::Command(globals, command),
    })
}

/// Whether these arguments (the program's name first) ask for something.
///
/// # Errors
/// What is printed to whoever typed them.
pub(crate) fn check(arguments: impl IntoIterator<Item = OsString>) -> Result<(), clap::Error> {
    tree().try_get_matches_from(arguments).and_then(|matches| read(&matches)).map(drop)
}

/// Parses the arguments of this process and runs the command.
pub(crate) fn main() -> ExitCode {
    let asked = match tree().try_get_matches().and_then(|matches| read(&matches)) {
        Ok(asked) => asked,
        Err(error) => {
            let _ = error.print();
            return if error.use_stderr() { Exit::Usage.into() } else { Exit::Ok.into() };
        }
    };
    let (globals, command) = match asked {
        Asked::Role(role, args) => return crate::role::run(role, &args).into(),
        Asked::Command(globals, command) => (globals, command),
    };
    match command {
        Command::Controller(args) => crate::role::run(Role::Controller, &args).into(),
        Command::Format(args) => crate::format::run(&args).into(),
        Command::Dev(args) => crate::dev::verbs::run(&args, globals.output).into(),
        Command::Log(args) => crate::log_tool::verbs::run(&args, globals.output).into(),
        Command::Bench(args) => crate::bench::verbs::run(&args, globals.output).into(),
        Command::Client(command) => client::cli::run(command, globals),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_tree_is_consistent_and_knows_the_documented_forms() {
        tree().debug_assert();
        for line in [
            "seawall dev --data-dir D --controllers 3 --brokers 3 --dcs 3 --port-base 19090 --detach",
            "seawall dev status -o json --data-dir D",
            "seawall dev stop --data-dir D",
            "seawall dev purge",
            "seawall dev kill broker-2 --data-dir D",
            "seawall dev pause controller-1",
            "seawall dev resume broker-3",
            "seawall dev start broker-3",
            "seawall log dump PATH",
            "seawall log verify PATH -o json",
            "seawall bench failover -n 3 --scenario leader-kill -o json",
            "seawall controller --config f -X a=b",
            "seawall topic create NAME --partitions 6 --replicas 3 --config a=b --config c=d",
            "seawall topic list",
            "seawall topic describe NAME",
            "seawall topic alter NAME --config a=b",
            "seawall topic delete NAME",
            "seawall produce TOPIC --acks all --key-delimiter : --compression lz4",
            "seawall consume TOPIC --partition 1 --from earliest --until-end --count 5 --format %v",
            "seawall -b h:1,i:2 cluster status",
            "seawall quorum status -o json",
            "seawall broker list",
            "seawall partition describe T/0",
            "seawall partition elect T/0 --unclean",
            "seawall explain partition T/0",
            "seawall metadata hash -o json",
        ] {
            match tree().try_get_matches_from(line.split(' ')).and_then(|matches| read(&matches)) {
                Ok(Asked::Role(role, _)) => assert!(line.contains(&role.to_string()), "{line}"),
                Ok(Asked::Command(..)) => {}
                Err(error) => panic!("{line}: {error}"),
            }
        }
    }

    #[test]
    fn broker_is_a_role_and_a_noun() {
        let asked = |line: &str| tree().try_get_matches_from(line.split(' ')).and_then(|matches| read(&matches));
        assert!(matches!(asked("seawall broker --config f"), Ok(Asked::Role(Role::Broker, _))));
        let noun = asked("seawall broker shutdown 2");
        assert!(matches!(noun, Ok(Asked::Command(_, Command::Client(client::cli::Command::Broker(_))))));
        assert!(asked("seawall broker --config f list").is_err());
    }
}
