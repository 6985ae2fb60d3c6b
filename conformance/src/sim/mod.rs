//! A seeded world: production ordering, apply, state and log under a simulated network and disk.

pub mod disk;
pub mod random;
pub mod scheme;
