//! Nothing. OpenMLS names its SQLite storage as an optional dependency; Cargo resolves it though nobody turns it on, and it
//! wants another SQLite than ours, of which a program can link one only. See docs/decisions/0011.
#![forbid(unsafe_code)]
