//! Who belongs to each epoch, worked out from CONFIG blocks by a few lines of its own, and whether each of
//! them was agreed to at all.

use std::collections::{BTreeMap, BTreeSet};

use althing::chain::{Block, ConfigAction, ConfigChange, Network};
use althing::crypto::PublicKey;
use althing::types::{Digest, Epoch, ReplicaId};

/// A member of an epoch.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Seat {
    /// Checks its votes.
    pub key: PublicKey,
    /// Whether it votes.
    pub voting: bool,
}

/// The members of an epoch.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Roster {
    /// By id.
    pub seats: BTreeMap<ReplicaId, Seat>,
    next: u16,
}

impl Roster {
    /// Those who begin.
    #[must_use]
    pub fn first(keys: &[PublicKey]) -> Self {
        let seat = |(key, id): (&PublicKey, u16)| (ReplicaId(id), Seat { key: *key, voting: true });
        let seats: BTreeMap<ReplicaId, Seat> = keys.iter().zip(0..).map(seat).collect();
        Self { next: u16::try_from(seats.len()).expect("few"), seats }
    }

    /// Who votes.
    pub fn voters(&self) -> impl Iterator<Item = ReplicaId> {
        self.seats.iter().filter(|(_, seat)| seat.voting).map(|(id, _)| *id)
    }

    /// How many vote.
    #[must_use]
    pub fn n(&self) -> usize {
        self.voters().count()
    }

    /// How many may be faulty.
    #[must_use]
    pub fn f(&self) -> usize {
        (self.n() - 1) / 3
    }

    /// Whether a replica votes.
    #[must_use]
    pub fn votes(&self, id: ReplicaId) -> bool {
        self.seats.get(&id).is_some_and(|seat| seat.voting)
    }

    /// The members after a change.
    #[must_use]
    pub fn after(&self, action: &ConfigAction) -> Self {
        let mut next = self.clone();
        match action {
            ConfigAction::Add(new) => {
                next.seats.insert(ReplicaId(self.next), Seat { key: new.key, voting: false });
                next.next += 1;
            }
            ConfigAction::Promote { replica } => next.seat(*replica, |seat| seat.voting = true),
            ConfigAction::Remove { replica, .. } => drop(next.seats.remove(replica)),
            ConfigAction::Replace { promoted, removed } => {
                next.seat(*promoted, |seat| seat.voting = true);
                next.seats.remove(removed);
            }
            ConfigAction::RotateKey { replica, key, .. } => {
                next.seat(*replica, |seat| seat.key = *key);
            }
            // What only one owner's networks do is not simulated.
            ConfigAction::Parameters(_)
            | ConfigAction::Reserve { .. }
            | ConfigAction::Admit { .. }
            | ConfigAction::Move { .. } => {}
        }
        next
    }

    fn seat(&mut self, id: ReplicaId, change: impl FnOnce(&mut Seat)) {
        if let Some(seat) = self.seats.get_mut(&id) {
            change(seat);
        }
    }
}

/// All epochs so far.
pub struct Epochs {
    rosters: Vec<Roster>,
    /// The config hashes that changes were made for, and the changes that enough organisations signed.
    agreed: Vec<(Digest, ConfigAction)>,
    /// Whoever had its key rotated: what it signs in between is not always its key's of that epoch.
    pub rotated: BTreeSet<ReplicaId>,
}

impl Epochs {
    /// Epoch 0.
    #[must_use]
    pub fn new(first: Roster) -> Self {
        Self { rosters: vec![first], agreed: Vec::new(), rotated: BTreeSet::new() }
    }

    /// The newest epoch's members.
    #[must_use]
    pub fn now(&self) -> &Roster {
        self.rosters.last().expect("there is epoch 0")
    }

    /// The newest epoch.
    #[must_use]
    pub fn epoch(&self) -> Epoch {
        Epoch(self.rosters.len() as u64 - 1)
    }

    /// The members of an epoch that has begun.
    #[must_use]
    pub fn of(&self, epoch: Epoch) -> Option<&Roster> {
        self.rosters.get(usize::try_from(epoch.0).ok()?)
    }

    /// Enough organisations signed this.
    pub fn agree(&mut self, change: &ConfigChange) {
        if let ConfigAction::RotateKey { replica, .. } = change.action {
            self.rotated.insert(replica);
        }
        self.agreed.push((change.base, change.action.clone()));
    }

    /// The chain's next block: what it changes, if it ends its epoch.
    ///
    /// # Errors
    /// Nobody, or too few, had agreed to that, or the block is of another epoch.
    pub fn executes(&mut self, block: &Block) -> Result<Option<ConfigAction>, String> {
        let (height, epoch) = (block.header.height, block.header.epoch);
        if epoch != self.epoch() {
            return Err(format!("block {height} is of epoch {epoch}, not of {}", self.epoch()));
        }
        if !block.ends_epoch() {
            return Ok(None);
        }
        let Some(change) = block.config_change() else {
            return Err(format!("block {height} ends its epoch and changes nothing"));
        };
        let named = (change.base, change.action.clone());
        if !self.agreed.contains(&named) {
            return Err(format!("block {height} changes what nobody agreed to: {named:?}"));
        }
        let next = self.now().after(&change.action);
        self.rosters.push(next);
        Ok(Some(named.1))
    }

    /// A replica begins an epoch with these members.
    ///
    /// # Errors
    /// They are others.
    pub fn begins(&self, network: &Network) -> Result<(), String> {
        let epoch = network.membership.epoch;
        let members = network.membership.members.iter();
        let theirs: BTreeMap<ReplicaId, Seat> = members
            .map(|member| (member.id, Seat { key: member.key, voting: member.voting }))
            .collect();
        match self.of(epoch) {
            Some(ours) if ours.seats == theirs => Ok(()),
            ours => Err(format!("epoch {epoch} has {theirs:?}, by the chain {ours:?}")),
        }
    }
}
