//! The HTTP front: what stands between the socket and hyper.

pub mod head;
pub mod strict;
