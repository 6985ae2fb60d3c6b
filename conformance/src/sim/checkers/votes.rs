//! A ledger of every vote ever sent, across restarts: one per (replica, phase, epoch, view, height), nothing
//! in a view that was left, nothing that the sender's durable log does not carry.

use std::collections::{BTreeMap, BTreeSet};

use althing::chain::{BlockHeader, Certificate, Phase, Record, Vote};
use althing::ordering::Message;
use althing::types::{Digest, Epoch, Height, LogPosition, ReplicaId, View};

use crate::sim::checkers::verifier::Verifier;

type Round = (Epoch, View);

/// What one instance's durable log carries, as far as promises go.
#[derive(Default)]
pub struct Promises {
    blocks: BTreeSet<Digest>,
    prepared: Vec<(Round, Height, Digest)>,
    entered: BTreeSet<Round>,
    left: BTreeSet<Round>,
    pending: Vec<(LogPosition, Promise)>,
}

enum Promise {
    Block(Digest),
    Prepared(Round, Height, Digest),
    Entered(Round),
    Left(Round),
}

impl Promises {
    /// A record was handed to the log.
    pub fn appended(&mut self, position: LogPosition, record: &Record) {
        let promise = match record {
            Record::Block(block) => Promise::Block(block.hash()),
            Record::Prepared(certificate) => {
                let Certificate { epoch, view, height, block_hash, .. } = certificate;
                Promise::Prepared((*epoch, *view), *height, *block_hash)
            }
            Record::ViewEntered { epoch, view, .. } => Promise::Entered((*epoch, *view)),
            Record::ViewChangeSent { epoch, view, .. } => Promise::Left((*epoch, *view)),
            _ => return,
        };
        self.pending.push((position, promise));
    }

    /// The disk is lost or older: what it held of views and certificates is promised anew. Blocks it
    /// once held are on the chain, whatever of the log it reads back.
    pub fn lost(&mut self) {
        *self = Self { blocks: core::mem::take(&mut self.blocks), ..Self::default() };
    }

    /// Whether a view was entered durably.
    #[must_use]
    pub fn has_begun(&self) -> bool {
        !self.entered.is_empty()
    }

    /// A state was installed durably: its block is there, though not in the log.
    pub fn installed(&mut self, block: Digest) {
        self.blocks.insert(block);
    }

    /// A crash: what was not synced may be gone.
    pub fn crashed(&mut self) {
        self.pending.clear();
    }

    /// Everything up to `position` was synced, or was read back after a crash.
    pub fn durable(&mut self, position: LogPosition) {
        let done = self.pending.iter().take_while(|(at, _)| *at <= position).count();
        for (_, promise) in self.pending.drain(..done) {
            match promise {
                Promise::Block(hash) => drop(self.blocks.insert(hash)),
                Promise::Prepared(round, height, hash) => self.prepared.push((round, height, hash)),
                Promise::Entered(round) => drop(self.entered.insert(round)),
                Promise::Left(round) => drop(self.left.insert(round)),
            }
        }
    }
}

/// All votes of a run.
pub struct Ledger {
    liars: BTreeSet<ReplicaId>,
    votes: BTreeMap<(ReplicaId, u8, Round, Height), Digest>,
    commits: BTreeMap<(Round, Height, Digest), BTreeSet<ReplicaId>>,
    chosen: BTreeMap<Height, Digest>,
    headers: BTreeMap<Digest, BlockHeader>,
    left: BTreeMap<ReplicaId, Round>,
}

impl Ledger {
    /// For voters of whom `liars` may do anything.
    #[must_use]
    pub fn new(liars: BTreeSet<ReplicaId>) -> Self {
        Self {
            liars,
            votes: BTreeMap::new(),
            commits: BTreeMap::new(),
            chosen: BTreeMap::new(),
            headers: BTreeMap::new(),
            left: BTreeMap::new(),
        }
    }

    /// The block that q replicas were seen to commit at a height, whether anyone knows it or not.
    #[must_use]
    pub fn chosen(&self, height: Height) -> Option<Digest> {
        self.chosen.get(&height).copied()
    }

    /// A replica's disk is lost: what it voted before is no promise any more, what it votes from now on is.
    pub fn forget(&mut self, replica: ReplicaId) {
        self.votes.retain(|(voter, ..), _| *voter != replica);
        self.left.remove(&replica);
    }

    /// A message goes out to the network.
    ///
    /// # Errors
    /// What is wrong with it.
    pub fn sent(
        &mut self,
        sender: ReplicaId,
        message: &Message,
        promises: &Promises,
        verifier: &Verifier,
    ) -> Result<(), String> {
        match message {
            Message::PrePrepare { block, prepare } => {
                self.headers.insert(block.hash(), block.header.clone());
                self.vote(sender, prepare, promises, verifier)
            }
            Message::Votes(votes) => {
                votes.iter().try_for_each(|vote| self.vote(sender, vote, promises, verifier))
            }
            Message::ViewChange(view_change) if !self.liars.contains(&sender) => {
                let round = (view_change.epoch, view_change.view);
                if view_change.replica == sender {
                    if !promises.left.contains(&round) {
                        return Err(format!(
                            "{sender} sent {round:?} VIEW-CHANGE before it was durable"
                        ));
                    }
                    let left = self.left.entry(sender).or_insert(round);
                    *left = (*left).max(round);
                }
                Ok(())
            }
            Message::NewView(new_view) if !self.liars.contains(&sender) => {
                let round = (new_view.epoch, new_view.view);
                if !promises.entered.contains(&round) {
                    return Err(format!("{sender} sent NEW-VIEW {round:?} before it was durable"));
                }
                Ok(())
            }
            _ => Ok(()),
        }
    }

    /// A liar's message: its COMMITs count, whatever else is in it.
    ///
    /// Two blocks with q COMMITs each at one height show up with the next honest vote or execution.
    pub fn overheard(&mut self, liar: ReplicaId, message: &Message, verifier: &Verifier) {
        if let Message::PrePrepare { block, .. } = message {
            self.headers.insert(block.hash(), block.header.clone());
        }
        let Message::Votes(votes) = message else { return };
        for vote in votes.iter().filter(|vote| vote.phase == Phase::Commit) {
            let round = (vote.epoch, vote.view);
            let signed = vote.signed.replica == liar
                && verifier.signed((vote.phase, vote.epoch, vote.view), &vote.signed);
            if !signed {
                continue;
            }
            for (hash, at) in vote.signed.hashes.iter().zip(0..) {
                let place = (round, vote.signed.from_height.plus(at), *hash);
                self.commits.entry(place).or_default().insert(liar);
            }
        }
    }

    fn vote(
        &mut self,
        sender: ReplicaId,
        vote: &Vote,
        promises: &Promises,
        verifier: &Verifier,
    ) -> Result<(), String> {
        let voter = vote.signed.replica;
        let round = (vote.epoch, vote.view);
        if voter != sender {
            return Err(format!("{sender} sent a vote of {voter}"));
        }
        if !verifier.signed((vote.phase, vote.epoch, vote.view), &vote.signed) {
            if verifier.epochs.rotated.contains(&voter) {
                // Its key is of another epoch: nobody counts that.
                return Ok(());
            }
            return Err(format!("{voter} sent a vote it did not sign"));
        }
        let honest = !self.liars.contains(&voter);
        if honest && self.left.get(&voter).is_some_and(|left| round < *left) {
            return Err(format!(
                "{voter} votes {:?} in {round:?} after it left that view",
                vote.phase
            ));
        }
        for (hash, at) in vote.signed.hashes.iter().zip(0..) {
            let height = vote.signed.from_height.plus(at);
            if vote.phase == Phase::Commit {
                self.commit(voter, round, (height, *hash), verifier)?;
            }
            if honest {
                self.promise(vote, (height, *hash), promises)?;
                let key = (voter, vote.phase as u8, round, height);
                let first = *self.votes.entry(key).or_insert(*hash);
                if first != *hash {
                    let phase = vote.phase;
                    return Err(format!(
                        "{voter} sent two {phase:?} votes at {round:?} {height}: {first:?} and {hash:?}"
                    ));
                }
            }
        }
        Ok(())
    }

    fn commit(
        &mut self,
        voter: ReplicaId,
        round: Round,
        block: (Height, Digest),
        verifier: &Verifier,
    ) -> Result<(), String> {
        let (height, hash) = block;
        let voters = self.commits.entry((round, height, hash)).or_default();
        voters.insert(voter);
        if verifier.quorum(round.0).is_none_or(|enough| voters.len() < enough) {
            return Ok(());
        }
        let first = *self.chosen.entry(height).or_insert(hash);
        if first != hash {
            return Err(format!("two blocks are committed at {height}: {first:?} and {hash:?}"));
        }
        Ok(())
    }

    /// What a vote needs in the sender's durable log (protocol.md 6).
    fn promise(
        &self,
        vote: &Vote,
        block: (Height, Digest),
        promises: &Promises,
    ) -> Result<(), String> {
        let (height, hash) = block;
        let (voter, round) = (vote.signed.replica, (vote.epoch, vote.view));
        let header = self.headers.get(&hash);
        let own = header.is_some_and(|header| header.view == vote.view && header.proposer == voter);
        match vote.phase {
            Phase::Prepare if own && !promises.entered.contains(&round) => {
                Err(format!("{voter} proposes in {round:?} before it entered durably"))
            }
            Phase::Prepare if own || promises.blocks.contains(&hash) => Ok(()),
            Phase::Prepare => {
                Err(format!("{voter} prepares {hash:?} at {round:?} {height} before it is durable"))
            }
            Phase::Commit => {
                let covers = |(at, top, top_hash): &(Round, Height, Digest)| {
                    *at == round && *top >= height && self.extends(*top_hash, block)
                };
                if promises.prepared.iter().any(covers) {
                    return Ok(());
                }
                Err(format!(
                    "{voter} commits {hash:?} at {round:?} {height} without a durable certificate"
                ))
            }
        }
    }

    fn extends(&self, top: Digest, block: (Height, Digest)) -> bool {
        let mut at = top;
        loop {
            if at == block.1 {
                return true;
            }
            match self.headers.get(&at) {
                Some(header) if header.height > block.0 => at = header.parent,
                _ => return false,
            }
        }
    }
}
