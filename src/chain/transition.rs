//! From one epoch's network to the next: what a change's bytes and the network it changes decide, the
//! same in acceptance, in execution and for an auditor (protocol.md 20.3).

use std::collections::BTreeMap;

use crate::chain::network::LIST_MAX;
use crate::chain::{
    Address, BlockHeader, ConfigAction, ConfigChange, ConfigError, Hello, Member, Network,
    NewReplica, Organisation, Ownership, Reserved, peer_urls,
};
use crate::crypto::{verify_ed25519, weak_key};
use crate::types::{Millis, OrgId, Quorum, ReplicaId};

/// A promotion's attestation may lie this many heights behind its block: X.
pub const ATTESTATION_HEIGHTS: u64 = 1024;
const MEMBERS_MAX: usize = 128;

impl Network {
    /// The next epoch's network, if `change`, ordered in the block with this header, is made.
    ///
    /// Every check but the signatures of replica keys, which
    /// [`ConfigChange::replica_signatures_hold`] checks.
    ///
    /// # Errors
    /// The first [`ConfigError`].
    pub fn change(&self, change: &ConfigChange, header: &BlockHeader) -> Result<Self, ConfigError> {
        if change.base != self.membership.config_hash() {
            return Err(ConfigError::Stale);
        }
        if header.time_ms > change.not_after_ms {
            return Err(ConfigError::Expired);
        }
        self.check_votes(change, header)?;
        let mut next = self.clone();
        match &change.action {
            ConfigAction::Add(new) => next.add(new)?,
            ConfigAction::Promote { replica } => next.promote(*replica, change, header)?,
            ConfigAction::Remove { replica, .. } => next.remove(*replica)?,
            ConfigAction::Replace { promoted, removed } => {
                next.promote(*promoted, change, header)?;
                if next.membership.voter(*removed).is_none() || promoted == removed {
                    return Err(ConfigError::VotesNot(*removed));
                }
                next.remove(*removed)?;
            }
            ConfigAction::RotateKey { replica, key, .. } => {
                if next.member_with_key(key).is_some() {
                    return Err(ConfigError::Taken("key"));
                }
                next.member_mut(*replica)?.key = *key;
            }
            ConfigAction::Parameters(parameters) => {
                if let Some((what, ..)) = parameters.out_of_bounds() {
                    return Err(ConfigError::Parameter(what));
                }
                next.membership.parameters = parameters.clone();
            }
            ConfigAction::Reserve { .. }
            | ConfigAction::Admit { .. }
            | ConfigAction::Move { .. } => next.change_owned(&change.action, header)?,
        }
        if next == *self {
            return Err(ConfigError::NoChange);
        }
        let accept = matches!(change.action, ConfigAction::Remove { accept_smaller_f: true, .. });
        self.check_sizes(&next, accept)?;
        next.membership.epoch = self.membership.epoch.next();
        next.membership.first_primary = next.first_primary_after(header.proposer);
        Ok(next)
    }

    /// Organisations sign with governance keys: for a key rotation the replica's own, else as many
    /// as hold q voting replicas.
    fn check_votes(&self, change: &ConfigChange, header: &BlockHeader) -> Result<(), ConfigError> {
        let message = change.signed_bytes(&header.cluster_id);
        let mut last = None;
        for vote in &change.votes {
            let organisation = self.organisations.get(&vote.organisation);
            let known = organisation.is_some_and(|one| one.governance_keys.contains(&vote.key));
            let rises = last.is_none_or(|last| last < vote.organisation);
            if !known || !rises || !verify_ed25519(&vote.key, &message, &vote.signature) {
                return Err(ConfigError::BadVote(vote.organisation));
            }
            last = Some(vote.organisation);
        }
        // One owner has no governance: what a member of his orders is his word.
        if self.ownership == Ownership::One {
            return Ok(());
        }
        let agreed = |id: OrgId| change.votes.iter().any(|vote| vote.organisation == id);
        if let ConfigAction::RotateKey { replica, .. } = change.action {
            let member = self.membership.member(replica);
            let member = member.ok_or(ConfigError::UnknownReplica(replica))?;
            return if agreed(member.organisation) {
                Ok(())
            } else {
                Err(ConfigError::NotTheOwner)
            };
        }
        let weight = self.membership.voters().filter(|one| agreed(one.organisation)).count();
        let needed = self.membership.quorum().q();
        if weight < needed {
            return Err(ConfigError::TooFewVotes { weight, needed });
        }
        Ok(())
    }

    fn member_mut(&mut self, id: ReplicaId) -> Result<&mut Member, ConfigError> {
        let mut members = self.membership.members.iter_mut();
        members.find(|member| member.id == id).ok_or(ConfigError::UnknownReplica(id))
    }

    fn add(&mut self, new: &NewReplica) -> Result<(), ConfigError> {
        if self.membership.members.len() >= MEMBERS_MAX {
            return Err(ConfigError::TooManyMembers);
        }
        self.check_new(new)?;
        let organisation = self.organisation_for(new)?;
        let id = ReplicaId(self.next_replica);
        self.next_replica = self.next_replica.checked_add(1).ok_or(ConfigError::TooManyMembers)?;
        self.membership.members.push(Member { id, organisation, key: new.key, voting: false });
        let address = Address {
            name: new.name.clone(),
            client_urls: new.client_urls.clone(),
            peer_address: new.peer_address.clone(),
            observer: new.observer,
        };
        self.addresses.insert(id, address);
        Ok(())
    }

    fn check_new(&self, new: &NewReplica) -> Result<(), ConfigError> {
        if !well_formed(&new.name) || self.member_named(&new.name).is_some() {
            return Err(ConfigError::Taken("name"));
        }
        if self.member_with_key(&new.key).is_some() {
            return Err(ConfigError::Taken("key"));
        }
        let free = |address: &str| !self.addresses.values().any(|one| one.peer_address == address);
        if new.peer_address.is_empty() || !free(&new.peer_address) {
            return Err(ConfigError::Taken("peer address"));
        }
        let urls = self.addresses.values().flat_map(|one| &one.client_urls);
        let taken = urls.clone().any(|url| new.client_urls.contains(url));
        if new.client_urls.is_empty() || taken {
            return Err(ConfigError::Taken("client URL"));
        }
        Ok(())
    }

    /// The organisation of a new replica, added if it is new.
    fn organisation_for(&mut self, new: &NewReplica) -> Result<OrgId, ConfigError> {
        if let Some(known) = self.organisation_named(&new.organisation) {
            let none = new.governance_keys.is_empty();
            return if none { Ok(known) } else { Err(ConfigError::GovernanceKeys) };
        }
        let keys = &new.governance_keys;
        let used = self.organisations.values().flat_map(|one| &one.governance_keys);
        let sound = (1..=LIST_MAX).contains(&keys.len())
            && !keys.iter().any(weak_key)
            && !used.clone().any(|key| keys.contains(key));
        if !sound {
            return Err(ConfigError::GovernanceKeys);
        }
        if !well_formed(&new.organisation) {
            return Err(ConfigError::Taken("organisation"));
        }
        let id = OrgId(self.next_organisation);
        self.next_organisation =
            self.next_organisation.checked_add(1).ok_or(ConfigError::TooManyMembers)?;
        let organisation =
            Organisation { name: new.organisation.clone(), governance_keys: keys.clone() };
        self.organisations.insert(id, organisation);
        Ok(id)
    }

    /// What only a network of one owner does (protocol.md 22.6).
    fn change_owned(
        &mut self,
        action: &ConfigAction,
        header: &BlockHeader,
    ) -> Result<(), ConfigError> {
        if self.ownership != Ownership::One {
            return Err(ConfigError::Governed);
        }
        match action {
            ConfigAction::Reserve { peer_address, voting } => {
                if self.membership.members.len() + self.reserved.len() >= MEMBERS_MAX {
                    return Err(ConfigError::TooManyMembers);
                }
                self.check_peer_address(None, peer_address)?;
                let id = ReplicaId(self.next_replica);
                let next = self.next_replica.checked_add(1);
                self.next_replica = next.ok_or(ConfigError::TooManyMembers)?;
                let reserved = Reserved { peer_address: peer_address.clone(), voting: *voting };
                self.reserved.insert(id, reserved);
                Ok(())
            }
            ConfigAction::Admit { replica, hello } => self.admit(*replica, hello, header),
            ConfigAction::Move { replica, peer_address } => {
                self.check_peer_address(Some(*replica), peer_address)?;
                let known = self.addresses.get_mut(replica).map(|one| &mut one.peer_address);
                let reserved = self.reserved.get_mut(replica).map(|one| &mut one.peer_address);
                if known.is_none() && reserved.is_none() {
                    return Err(ConfigError::UnknownReplica(*replica));
                }
                known.into_iter().chain(reserved).for_each(|old| old.clone_from(peer_address));
                Ok(())
            }
            _ => Err(ConfigError::Governed),
        }
    }

    fn admit(
        &mut self,
        replica: ReplicaId,
        hello: &Hello,
        header: &BlockHeader,
    ) -> Result<(), ConfigError> {
        if !self.awaits(replica) {
            return Err(ConfigError::UnknownReplica(replica));
        }
        if hello.seed != header.cluster_id || !hello.holds() {
            return Err(ConfigError::Hello);
        }
        let name = &hello.name;
        if name.is_empty() || name.contains(char::is_control) || self.member_named(name).is_some() {
            return Err(ConfigError::Taken("name"));
        }
        if self.member_with_key(&hello.key).is_some() {
            return Err(ConfigError::Taken("key"));
        }
        let reserved = self.reserved.get(&replica).cloned();
        let reserved = reserved.ok_or(ConfigError::UnknownReplica(replica))?;
        let organisation = self.organisations.keys().next().copied();
        let organisation = organisation.ok_or(ConfigError::NoVoter)?;
        let member = Member { id: replica, organisation, key: hello.key, voting: false };
        // Ids are given out before keys are shown: it may not be the last one.
        let at = self.membership.members.partition_point(|one| one.id < replica);
        self.membership.members.insert(at, member);
        let address = Address {
            name: name.clone(),
            client_urls: hello.client_urls.clone(),
            peer_address: reserved.peer_address,
            observer: false,
        };
        self.addresses.insert(replica, address);
        if !reserved.voting {
            self.reserved.remove(&replica);
        }
        Ok(())
    }

    /// Whether a member has one of these peer URLs, or will.
    #[must_use]
    pub fn has_peer_url(&self, peer_address: &str) -> bool {
        self.check_peer_address(None, peer_address).is_err()
    }

    /// Peer URLs that no other member has.
    fn check_peer_address(
        &self,
        of: Option<ReplicaId>,
        peer_address: &str,
    ) -> Result<(), ConfigError> {
        let wanted = peer_urls(peer_address);
        let ids = self.addresses.keys().chain(self.reserved.keys());
        let others = ids.filter(|id| Some(**id) != of).filter_map(|id| self.peer_address(*id));
        let taken = others.flat_map(peer_urls).any(|url| wanted.contains(&url));
        if taken || peer_address.is_empty() {
            return Err(ConfigError::Taken("peer address"));
        }
        Ok(())
    }

    fn promote(
        &mut self,
        replica: ReplicaId,
        change: &ConfigChange,
        header: &BlockHeader,
    ) -> Result<(), ConfigError> {
        let epoch = self.membership.epoch;
        let owned = self.ownership == Ownership::One;
        let fresh = owned
            || change.attestation.is_some_and(|attestation| {
                attestation.epoch == epoch
                    && attestation.height < header.height
                    && attestation.height.plus(ATTESTATION_HEIGHTS) >= header.height
            });
        let member = self.member_mut(replica)?;
        if member.voting {
            return Err(ConfigError::Votes(replica));
        }
        member.voting = true;
        if self.addresses.get(&replica).is_none_or(|address| address.observer) {
            return Err(ConfigError::Observer(replica));
        }
        if !fresh {
            return Err(ConfigError::Attestation);
        }
        self.reserved.remove(&replica);
        Ok(())
    }

    fn remove(&mut self, replica: ReplicaId) -> Result<(), ConfigError> {
        let reserved = self.reserved.remove(&replica).is_some();
        let organisation = match self.member_mut(replica) {
            Ok(member) => member.organisation,
            Err(_) if reserved => return Ok(()),
            Err(error) => return Err(error),
        };
        self.membership.members.retain(|member| member.id != replica);
        self.addresses.remove(&replica);
        if !self.membership.members.iter().any(|member| member.organisation == organisation) {
            self.organisations.remove(&organisation);
        }
        Ok(())
    }

    /// f must not shrink unasked, and no organisation may hold more than max(1, f) of the voters
    /// there are *after* the change.
    fn check_sizes(&self, next: &Self, accept_smaller_f: bool) -> Result<(), ConfigError> {
        let n = next.membership.voters().count();
        if n == 0 {
            return Err(ConfigError::NoVoter);
        }
        if next.ownership == Ownership::One {
            return Ok(());
        }
        let f = Quorum::of(n).f();
        if f < self.membership.quorum().f() && !accept_smaller_f {
            return Err(ConfigError::SmallerF);
        }
        let mut held: BTreeMap<OrgId, usize> = BTreeMap::new();
        for member in next.membership.voters() {
            *held.entry(member.organisation).or_default() += 1;
        }
        let limit = f.max(1);
        match held.into_iter().find(|(_, count)| *count > limit) {
            Some((organisation, _)) => Err(ConfigError::Cap { organisation, limit }),
            None => Ok(()),
        }
    }

    /// The CONFIG header's proposer leads view 0, or the next higher id, cyclically, if it left.
    fn first_primary_after(&self, proposer: ReplicaId) -> u16 {
        let at = self.membership.voters().position(|voter| voter.id >= proposer).unwrap_or(0);
        u16::try_from(at).expect("at most 128 members")
    }
}

/// A name fit for files, certificates and tables.
fn well_formed(name: &str) -> bool {
    let first = name.chars().next().is_some_and(|c| c.is_ascii_alphanumeric());
    let all = name.chars().all(|c| c.is_ascii_alphanumeric() || "-._".contains(c));
    first && all && name.len() <= 63
}

/// Whether a bundle's own deadline is past in a block of this time.
#[must_use]
pub(super) fn is_late(not_after_ms: Millis, header: &BlockHeader) -> bool {
    header.time_ms > not_after_ms
}

#[cfg(test)]
#[path = "owned_tests.rs"]
mod owned_tests;
