//! What every store has to do, as named cases.
