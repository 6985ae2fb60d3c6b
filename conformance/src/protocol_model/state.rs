//! What one state of the model holds.
//!
//! The network is not in it: whatever was sent may be received at any later time, any number of times or
//! never, so it is enough to know what was ever sent, and that follows from what the replicas remember.

use crate::protocol_model::blocks::{BlockId, Certificate, REPLICAS, ROUNDS};

/// No round, no message, no certificate.
pub const NONE: u8 = 0xff;

/// What a replica did in one round: its own chain there, and how far it voted.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Chain {
    /// The highest block of the chain without a vote of this round.
    pub root: BlockId,
    /// PREPARE was cast for every block above the root up to here.
    pub tip: BlockId,
    /// COMMIT was cast for every block above the root up to here.
    pub committed: BlockId,
}

/// One replica, as its memory or its disk has it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Replica {
    /// The round it entered last.
    pub entered: u8,
    /// The round it asks for; in normal mode the entered one.
    pub asked: u8,
    /// The certificate of highest rank it holds, prepared or commit.
    pub best: Certificate,
    /// Its votes.
    pub chains: [Chain; ROUNDS],
    /// Its VIEW-CHANGEs: per round asked for the certificate inside, [`NONE`] if it did not ask.
    pub asks: [Certificate; ROUNDS],
}

/// Whether the one replica that may lose its disk may vote.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fence {
    /// It votes.
    Open,
    /// It waits for its REJOIN to be committed.
    Shut,
    /// It has left the fence.
    Left,
}

/// One state of all.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct State {
    /// All, the liar's unused.
    pub replicas: [Replica; REPLICAS],
    /// The log of the one replica that may crash.
    pub disk: Replica,
    /// What that replica sent and has forgotten.
    pub lost: Replica,
    /// Per round the base of an honest primary's NEW-VIEW, [`NONE`] if none was sent.
    pub announced: [Certificate; ROUNDS],
    /// A base chosen by a primary whose `ViewEntered` is not durable.
    pub draft: Certificate,
    /// The fence of the unreliable replica.
    pub fence: Fence,
    /// It votes only above this round.
    pub floor: u8,
    /// Of the rejected rule that asks for heights: the highest one that it was told.
    pub bar: u8,
    /// REJOIN nonces drawn so far.
    pub nonces: u8,
    /// The round its log was in when it restarted (R1).
    pub restarted: u8,
    /// Crashes so far.
    pub crashes: u8,
    /// Disks lost so far.
    pub losses: u8,
    /// It was fenced although it had lost nothing that it promised.
    pub falsely_fenced: bool,
    /// It followed a commit certificate into its round (protocol.md 7.6).
    pub followed: bool,
}

impl Replica {
    /// An empty log.
    pub const EMPTY: Self = Self {
        entered: 0,
        asked: 0,
        best: 0,
        chains: [Chain { root: 0, tip: 0, committed: 0 }; ROUNDS],
        asks: [NONE; ROUNDS],
    };

    /// Whether it votes in the round it entered.
    #[must_use]
    pub fn is_normal(&self) -> bool {
        self.asked == self.entered
    }

    /// Its chain in the round it entered.
    #[must_use]
    pub fn chain(&self) -> &Chain {
        &self.chains[usize::from(self.entered)]
    }

    /// Begins a round.
    pub fn enter(&mut self, round: usize, chain: Chain) {
        self.entered = u8::try_from(round).expect("4 rounds at most");
        self.asked = self.entered;
        self.chains[round] = chain;
    }

    fn words(&self) -> [u64; 3] {
        let mut bytes = [0; 24];
        bytes[..3].copy_from_slice(&[self.entered, self.asked, self.best]);
        bytes[3..3 + ROUNDS].copy_from_slice(&self.asks);
        for (place, chain) in bytes[3 + ROUNDS..].chunks_exact_mut(3).zip(&self.chains) {
            place.copy_from_slice(&[chain.root, chain.tip, chain.committed]);
        }
        let word =
            |at: usize| u64::from_le_bytes(bytes[at..at + 8].try_into().expect("eight of them"));
        [word(0), word(8), word(16)]
    }
}

impl State {
    /// Equal for equal states; different ones collide by chance only. What a case leaves untouched, the
    /// replicas above its members and the memory of failures, need not be looked at.
    #[must_use]
    pub fn fingerprint(&self, members: usize, failures: bool) -> u64 {
        let mut hash = 0x9e37_79b9_7f4a_7c15_u64;
        let mut mix = |word: u64| {
            let product = u128::from(hash ^ word) * 0xa076_1d64_78bd_642f;
            hash = (product as u64) ^ ((product >> 64) as u64) ^ hash.rotate_left(23);
        };
        for replica in &self.replicas[..members] {
            replica.words().into_iter().for_each(&mut mix);
        }
        if failures {
            self.disk.words().into_iter().chain(self.lost.words()).for_each(&mut mix);
        }
        mix(u64::from(u32::from_le_bytes(self.announced)) | u64::from(self.draft) << 32);
        let flags = u8::from(self.falsely_fenced) | u8::from(self.followed) << 1;
        mix(u64::from_le_bytes([
            self.fence as u8,
            self.floor,
            self.bar,
            self.nonces,
            self.restarted,
            self.crashes,
            self.losses,
            flags,
        ]));
        hash
    }
}
