//! The door: everything is in the library.

fn main() -> std::process::ExitCode {
    chatcorn::main()
}
