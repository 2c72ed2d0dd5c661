//! A worker's life.
pub mod link;
