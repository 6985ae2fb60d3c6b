//! Members and parameters change while everything else goes wrong: offline keys of the organisations sign
//! a change, some replica orders it, who joins starts empty, whose key was rotated starts again with the
//! new one. Nothing is proposed that would leave more faulty replicas than the next epoch bears.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::Arc;

use althing::chain::{
    Attestation, ConfigAction, ConfigChange, Network, NewReplica, Parameters, possession_bytes,
};
use althing::crypto::{Ed25519, PublicKey, Scheme};
use althing::types::{Millis, OrgId, ReplicaId};

use crate::sim::checkers::members::Roster;
use crate::sim::checkers::verifier::quorum;
use crate::sim::node::{KeyChange, Lost};
use crate::sim::plan::{MILLI, Mutant};
use crate::sim::random::Random;
use crate::sim::world::{Event, Local, World};

/// Most members beyond those who began.
const MORE_MAX: usize = 3;
/// A learner this far behind is not proposed yet.
const BEHIND_MAX: u64 = 200;

/// A replica key of which nothing is made yet.
pub type SpareKey = (Arc<dyn Scheme>, PublicKey);

/// What is under way.
pub struct Changes {
    /// Signed by enough, not made, not yet too late.
    pending: Vec<ConfigChange>,
    /// Through whom a change is submitted.
    queued: BTreeMap<usize, VecDeque<ConfigChange>>,
    spare: Vec<SpareKey>,
    /// The keys of those that will join, and those that replicas will sign with.
    promised: BTreeMap<PublicKey, Arc<dyn Scheme>>,
    random: Random,
}

impl Changes {
    /// None yet.
    #[must_use]
    pub fn new(spare: Vec<SpareKey>, random: Random) -> Self {
        let (pending, queued, promised) = (Vec::new(), BTreeMap::new(), BTreeMap::new());
        Self { pending, queued, spare, promised, random }
    }

    /// The faults end: what was not submitted never is.
    pub fn heal(&mut self) {
        self.queued.clear();
    }

    /// A change to be ordered through the replica at `slot`.
    pub fn take(&mut self, slot: usize) -> Option<ConfigChange> {
        self.queued.get_mut(&slot)?.pop_front()
    }

    fn key(&mut self) -> Option<SpareKey> {
        let (scheme, key) = self.spare.pop()?;
        self.promised.insert(key, Arc::clone(&scheme));
        Some((scheme, key))
    }
}

/// The offline key of a replica's organisation: each has one, and one replica.
#[must_use]
pub fn governance_key(id: u16) -> Ed25519 {
    let mut seed = [7; 32];
    seed[..2].copy_from_slice(&id.to_le_bytes());
    Ed25519::from_seed(&seed)
}

impl World {
    /// The production network of the newest epoch, from a replica that is there.
    fn network_now(&self) -> Option<Network> {
        let epoch = self.verifier.epochs.epoch();
        let lives = self.nodes.iter().filter_map(|node| node.life.as_ref());
        let mut networks = lives.map(|life| life.machine.state.network());
        networks.find(|network| network.membership.epoch == epoch).cloned()
    }

    /// The members now, and those there may be soon.
    fn rosters(&self) -> Vec<Roster> {
        let now = self.verifier.epochs.now();
        let soon = self.changes.pending.iter().map(|change| now.after(&change.action));
        core::iter::once(now.clone()).chain(soon).collect()
    }

    /// Voters of whom anything may be expected.
    fn broken(&self, roster: &Roster) -> usize {
        let broken = roster.voters().filter(|id| {
            let slots = self.slots_of(*id);
            let lost = |slot: &usize| !matches!(self.nodes[*slot].lost, Lost::No | Lost::Joined);
            self.liars.contains(id) || slots.iter().any(lost)
        });
        broken.count() + usize::from(self.plan.wrong_clock_ms != 0)
    }

    /// Whether one more voter may be faulty, in this epoch and in any that may follow.
    pub(super) fn bears_one_more(&self) -> bool {
        let bears = |roster: &Roster| self.broken(roster) + self.plan.stay_down < roster.f();
        self.rosters().iter().all(bears)
    }

    /// How many more may be down for good without stopping the others.
    pub(super) fn may_fall(&self) -> usize {
        let may = |roster: &Roster| {
            let n = roster.n();
            (n - quorum(n)).saturating_sub(self.broken(roster))
        };
        self.rosters().iter().map(may).min().unwrap_or(0).min(self.plan.stay_down)
    }

    pub(super) fn is_member(&self, slot: usize) -> bool {
        self.verifier.epochs.now().seats.contains_key(&self.nodes[slot].identity.id)
    }

    pub(super) fn votes_now(&self, slot: usize) -> bool {
        self.verifier.epochs.now().votes(self.nodes[slot].identity.id)
    }

    /// Proposes a change, most of the time one that is agreed to.
    pub(super) fn propose_change(&mut self) {
        let (base, time) = (self.verifier.epochs.epoch(), self.agreement.time_ms());
        self.changes.pending.retain(|change| time <= change.not_after_ms.0);
        let Some(network) = self.network_now() else { return };
        let hash = network.membership.config_hash();
        self.changes.pending.retain(|change| change.base == hash);
        if self.changes.pending.len() > 1 || !self.has_begun() {
            return;
        }
        let Some((through, action)) = self.some_change(&network) else { return };
        let now = self.verifier.epochs.now();
        let after = now.after(&action);
        let agreed = self.changes.random.chance(850);
        if agreed && (after.n() == 0 || self.broken(&after) + self.plan.stay_down > after.f()) {
            return;
        }
        let not_after =
            1_790_000_000_000 + self.now / MILLI + self.changes.random.between(1_000, 8_000);
        let not_after_ms = Millis(not_after);
        let mut change =
            ConfigChange { base: hash, not_after_ms, action, attestation: None, votes: vec![] };
        let mut signers: Vec<ReplicaId> = now.voters().collect();
        let enough = match change.action {
            // Its own organisation alone.
            ConfigAction::RotateKey { replica, .. } => {
                signers.retain(|id| (*id == replica) == agreed);
                usize::from(agreed)
            }
            _ => quorum(now.n()) - usize::from(!agreed),
        };
        let cluster_id = self.nodes[0].identity.cluster_id;
        for id in signers.iter().take(enough) {
            change.vote(OrgId(id.0), &governance_key(id.0), &cluster_id);
        }
        if let Some(replica) = change.promoted()
            && let Some(slot) = self.slots_of(replica).first()
            && let Some(life) = &self.nodes[*slot].life
        {
            let at = (life.machine.height(), life.machine.state.exec_root());
            let scheme = self.nodes[*slot].identity.scheme.as_ref();
            change.attestation = Some(Attestation::sign(replica, base, at, &cluster_id, scheme));
        }
        if agreed {
            self.verifier.epochs.agree(&change);
            self.changes.pending.push(change.clone());
        } else {
            self.count("change nobody agreed to");
        }
        self.say(through, || format!("is given {:?}", change.action));
        self.changes.queued.entry(through).or_default().push_back(change);
    }

    /// What may be changed, and through whom.
    fn some_change(&mut self, network: &Network) -> Option<(usize, ConfigAction)> {
        let roster = self.verifier.epochs.now().clone();
        let members: Vec<usize> = (0..self.nodes.len())
            .filter(|slot| self.is_member(*slot) && self.honest(*slot))
            .collect();
        let through = *self.changes.random.pick(&members);
        let ready = members.iter().copied().find(|slot| self.may_be_promoted(*slot, network));
        let voters: Vec<ReplicaId> = roster.voters().collect();
        let voter = *self.changes.random.pick(&voters);
        let kind = self.changes.random.below(100);
        if let Some(learner) = ready.filter(|_| kind < 60) {
            let promoted = self.nodes[learner].identity.id;
            let action = if kind < 35 {
                ConfigAction::Promote { replica: promoted }
            } else {
                ConfigAction::Replace { promoted, removed: voter }
            };
            return Some((learner, action));
        }
        let action = match kind {
            0..60 if roster.seats.len() < self.plan.n + MORE_MAX => {
                self.new_replica(network.next_replica)?
            }
            0..75 => {
                let smaller = (roster.n().max(2) - 2) / 3 < roster.f();
                ConfigAction::Remove { replica: voter, accept_smaller_f: smaller }
            }
            75..90 => {
                let owners: Vec<usize> =
                    members.iter().copied().filter(|slot| self.votes_now(*slot)).collect();
                let replica = self.nodes[*self.changes.random.pick(&owners)].identity.id;
                let (scheme, key) = self.changes.key()?;
                let cluster_id = self.nodes[0].identity.cluster_id;
                let possession = scheme.sign(&possession_bytes(&cluster_id, &key));
                ConfigAction::RotateKey { replica, key, possession }
            }
            _ => ConfigAction::Parameters(self.other_parameters(network)),
        };
        Some((through, action))
    }

    fn may_be_promoted(&self, slot: usize, network: &Network) -> bool {
        let id = self.nodes[slot].identity.id;
        let observer = network.addresses.get(&id).is_none_or(|address| address.observer);
        let Some(life) = &self.nodes[slot].life else { return false };
        let close = life.machine.height().plus(BEHIND_MAX) >= self.agreement.top();
        let here = life.core.status().epoch == self.verifier.epochs.epoch();
        !self.votes_now(slot) && !observer && close && here
    }

    fn new_replica(&mut self, id: u16) -> Option<ConfigAction> {
        let (scheme, key) = self.changes.key()?;
        let possession = scheme.sign(&possession_bytes(&self.nodes[0].identity.cluster_id, &key));
        Some(ConfigAction::Add(NewReplica {
            organisation: format!("org{id}"),
            governance_keys: vec![governance_key(id).public_key()],
            name: format!("org{id}"),
            key,
            possession,
            client_urls: vec![format!("https://127.0.0.1:{}", 2000 + id)],
            peer_address: format!("127.0.0.1:{}", 3000 + id),
            observer: self.changes.random.chance(200),
        }))
    }

    fn other_parameters(&mut self, network: &Network) -> Parameters {
        let random = &mut self.changes.random;
        let known = &network.membership.parameters;
        Parameters {
            view_timeout_ms: random.between(300, 1_500),
            window: u32::try_from(random.between(1, 20)).expect("small"),
            tenure_blocks: u32::try_from(random.between(20, 200)).expect("small"),
            checkpoint_log_bytes: random.between(1 << 16, 300 << 10),
            checkpoint_state_factor: 1,
            ..known.clone()
        }
    }

    /// The chain has a new block.
    pub(super) fn note_change(&mut self, block: &althing::chain::Block) -> Result<(), String> {
        let Some(action) = self.verifier.epochs.executes(block)? else { return Ok(()) };
        self.count("epoch switch");
        let delay = self.changes.random.between(MILLI, 800 * MILLI);
        match action {
            ConfigAction::Add(new) => {
                self.count("member added");
                let id = self.verifier.epochs.now().seats.last_key_value();
                let (id, _) = id.expect("one was added");
                let scheme = self.changes.promised.get(&new.key).expect("its key was promised");
                let (id, scheme) = (*id, Arc::clone(scheme));
                self.enrol(id, scheme);
                let slot = self.nodes.len() - 1;
                self.schedule(delay, Event::Restart { slot });
            }
            ConfigAction::Promote { .. } => self.count("member promoted"),
            ConfigAction::Remove { .. } => self.count("member removed"),
            ConfigAction::Replace { .. } => self.count("member replaced"),
            ConfigAction::RotateKey { .. } => self.count("key rotated"),
            ConfigAction::Parameters(_) => self.count("parameters changed"),
            // Only networks of one owner change so, and none of them is simulated.
            ConfigAction::Reserve { .. }
            | ConfigAction::Admit { .. }
            | ConfigAction::Move { .. } => self.count("owned change"),
        }
        Ok(())
    }

    /// A replica begins an epoch: its links follow, and it ends if it must sign with another key.
    pub(super) fn follow_epoch(
        &mut self,
        slot: usize,
        network: &Network,
        left: &[(ReplicaId, PublicKey)],
    ) -> Result<(), String> {
        self.verifier.epochs.begins(network)?;
        let id = self.nodes[slot].identity.id;
        let members = &network.membership;
        let mut links: BTreeSet<ReplicaId> = members.members.iter().map(|one| one.id).collect();
        links.extend(left.iter().map(|(id, _)| *id));
        let node = &mut self.nodes[slot];
        if members.epoch < node.known.0 {
            links.extend(&node.known.1);
        }
        node.voters = members.voters().map(|one| one.id).filter(|one| *one != id).collect();
        self.relink(slot, links);
        let key = members.member(id).map(|member| member.key);
        // Started with the key of a later epoch, it follows the chain up to there.
        let due = members.epoch >= self.nodes[slot].key_epoch;
        let other_key = key.filter(|key| due && *key != self.nodes[slot].identity.key);
        if let Some(key) = other_key
            && let Some(scheme) = self.changes.promised.get(&key).cloned()
        {
            let Some(life) = &mut self.nodes[slot].life else { return Ok(()) };
            life.ends = Some(KeyChange { end: life.appended, epoch: members.epoch, scheme, key });
        }
        self.end_with_old_key(slot);
        Ok(())
    }

    /// A later epoch is proved to a replica that was away: its members are linked to besides.
    pub(super) fn look_ahead(&mut self, slot: usize, network: &Network) -> Result<(), String> {
        self.count("later members known");
        let node = &mut self.nodes[slot];
        let ids = network.membership.members.iter().map(|one| one.id);
        if network.membership.epoch > node.known.0 {
            node.known = (network.membership.epoch, ids.clone().collect());
        }
        let links = node.links.iter().copied().chain(ids).collect();
        self.relink(slot, links);
        Ok(())
    }

    fn relink(&mut self, slot: usize, mut links: BTreeSet<ReplicaId>) {
        let id = self.nodes[slot].identity.id;
        links.remove(&id);
        let before = core::mem::replace(&mut self.nodes[slot].links, links.clone());
        for other in 0..self.nodes.len() {
            let peer = self.nodes[other].identity.id;
            let stands = self.nodes[other].links.contains(&id) && self.nodes[other].life.is_some();
            if links.contains(&peer) == before.contains(&peer) || !stands {
                continue;
            }
            let (up, delay) = (links.contains(&peer), self.random.between(100, 20 * MILLI));
            self.schedule_local(other, delay, Local::Link { peer: id, up });
            self.schedule_local(slot, delay, Local::Link { peer, up });
        }
    }

    /// A replica whose key was rotated ends, and says so, once its log holds the end of the epoch
    /// (protocol.md 20.10); its operator starts it again with the new key.
    pub(super) fn end_with_old_key(&mut self, slot: usize) {
        let Some(life) = &mut self.nodes[slot].life else { return };
        let durable = life.durable;
        let early = self.plan.mutant == Some(Mutant::KeyEndsEarly);
        let Some(change) = life.ends.take_if(|change| early || change.end <= durable) else {
            return;
        };
        self.count("started with its new key");
        self.crash(slot);
        let node = &mut self.nodes[slot];
        (node.identity.scheme, node.identity.key) = (change.scheme, change.key);
        node.key_epoch = change.epoch;
    }
}
