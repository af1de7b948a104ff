//! The built program against a relay in this process, as a person or a script would run it.

mod account;
mod decisions;
mod demo;
mod talk;
mod world;
