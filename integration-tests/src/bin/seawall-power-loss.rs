//! The program `seawall` as shipped, built with the storage whose unsynced bytes die with the process.

fn main() -> std::process::ExitCode {
    deploy::main()
}
