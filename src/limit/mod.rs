//! Rate limits.
pub mod client;
pub mod quota;
pub mod table;
pub mod tally;
pub mod word;

#[cfg(test)]
mod table_tests;
