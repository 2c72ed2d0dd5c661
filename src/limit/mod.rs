//! Rate limits.
pub mod client;
pub mod quota;
