//! The program `seawall`; all of it is `deploy::main`.

fn main() -> std::process::ExitCode {
    deploy::main()
}
