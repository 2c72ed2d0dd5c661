//! The operating system, and the only `unsafe` of the program.
//!
//! ```text
//! fork     the one way to make a child, and what it must forget
//! signal   kernel -> self-pipe -> one byte a signal
//! wait     reap every child that has ended
//! exec     replace a forked child by a program
//! process  what a child gives up: user, privileges, its parent's death, its place before the OOM killer
//! confine  what a child cannot do any more: files, signals, system calls
//! inspect  what the kernel says of a child: threads, mappings, OOM kills
//! stack    a thread's stack, left by itself when it is asked
//! fd       descriptors: adopt, pairs, packets
//! readiness  descriptors that an event loop watches
//! shm      sealed shared memory as words
//! env      the environment, read once and scrubbed
//! clock    monotonic milliseconds
//! ```
//!
//! Everything here returns errors and never logs. Every `unsafe` block says why it holds *here*.
//! Deliberately absent: policy. Who is forked, killed or told is decided in `master`.
#![allow(unsafe_code)]

pub mod clock;
pub mod confine;
pub mod env;
pub mod exec;
pub mod fd;
pub mod fork;
pub mod inspect;
pub mod process;
pub mod readiness;
pub mod shm;
pub mod signal;
pub mod stack;
pub mod wait;
