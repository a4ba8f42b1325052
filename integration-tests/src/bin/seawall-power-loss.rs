//! The program `seawall` as shipped, built with the storage whose unsynced bytes die with the process, and with bugs that a
//! test may plant.

use std::process::ExitCode;

fn main() -> ExitCode {
    if let Err(why) = protocol::planted::plant_from_environment() {
        eprintln!("seawall-power-loss: {why}");
        return ExitCode::FAILURE;
    }
    deploy::main()
}
