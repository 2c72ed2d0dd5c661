//! Chatcorn: gunicorn for chat APIs.
//!
//! The ladder, in calling order; a module imports only what stands to its right:
//! `lib → config → master → worker | engine → http → limit | chat → listener → log → board → sys`.

pub mod board;
pub mod limit;
pub mod listener;
pub mod sys;
pub mod worker;

/// The program.
pub fn main() -> std::process::ExitCode {
    std::process::ExitCode::SUCCESS
}
