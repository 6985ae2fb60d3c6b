//! One hash over everything that happened: two runs of a seed that differ anywhere differ here.

use crate::sim::plan::Micros;

/// The running hash.
#[derive(Default)]
pub struct Audit {
    hasher: blake3::Hasher,
    events: u64,
}

impl Audit {
    /// Takes note of one event.
    pub fn note(&mut self, now: Micros, slot: usize, kind: &str, bytes: &[u8]) {
        self.events += 1;
        self.hasher.update(&now.to_le_bytes());
        self.hasher.update(&(slot as u64).to_le_bytes());
        self.hasher.update(kind.as_bytes());
        self.hasher.update(&(bytes.len() as u64).to_le_bytes());
        self.hasher.update(bytes);
    }

    /// Events so far.
    #[must_use]
    pub fn events(&self) -> u64 {
        self.events
    }

    /// The hash so far, in hex.
    #[must_use]
    pub fn digest(&self) -> String {
        self.hasher.finalize().to_hex()[..32].to_owned()
    }
}
