//! The chat: from a message to a reply.
pub mod wire;
