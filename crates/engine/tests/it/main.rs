//! The engine against the relay's core, in one thread, with a hand between them that can alter every frame.

mod attacks;
mod contacts;
mod delivery;
mod restored;
mod world;
