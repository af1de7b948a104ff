#![forbid(unsafe_code)]
//! The way back, checked: a conversation of two accounts with two devices each, in a log of six entries, by the rules of
//! the engine, with whatever networks, disks, relays and members may do to it. Each state that can be reached keeps what
//! must never be, and has a way to where all are together again (docs/repair.md).
//!
//! The rules bear the names of the engine's functions, and lie in modules of the names of its files, so that both can be
//! read side by side. Left out: key packages that run out, the seconds by which members take turns (whoever may do
//! something may do it at any time), leaving, names and roles, conversations that begin, and a relay that knows the
//! conversation no more.

pub mod action;
pub mod checker;
pub mod committing;
pub mod configuration;
pub mod configurations;
pub mod device;
pub mod graph;
pub mod healing;
pub mod joining;
pub mod outbox;
pub mod property;
pub mod reading;
pub mod relay;
pub mod state;
pub mod trouble;
pub mod verdict;
pub mod way_out;
pub mod world;
