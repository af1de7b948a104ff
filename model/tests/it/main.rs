//! Tests of the model: what it finds in small configurations, and that it finds what is planted.

mod planted;
mod small;
