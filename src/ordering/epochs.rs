//! Epochs: a CONFIG block is the last of its epoch, and executing it switches everything that depends
//! on members and parameters, in one place (protocol.md 20).

use std::collections::VecDeque;
use std::sync::Arc;

use crate::chain::{
    Administrators, Block, Certificate, ConfigError, EpochProof, Member, Membership, Network,
    Ownership, Record, Trust,
};
use crate::ordering::blocks::Tip;
use crate::ordering::message::EPOCHS_MAX;
use crate::ordering::view::ViewState;
use crate::ordering::votes::Votes;
use crate::ordering::{Core, Message, Output, Status};
use crate::planted::{self, Bug};
use crate::types::{Digest, Epoch, Height, LogPosition, ReplicaId, View};

/// So long an answer about later epochs may take.
const ASK_MS: u64 = 1000;
/// Messages of the next epoch that wait for this replica to execute its CONFIG block, all senders'.
const EARLY_MAX: usize = 256;
/// Bytes of blocks among those of one sender.
const EARLY_BYTES_MAX: usize = 8 << 20;

/// What is fixed within an epoch, and how the epochs before ended.
pub(super) struct Epochs {
    pub network: Network,
    /// Who may change it, behind the executed tip.
    pub administrators: Administrators,
    /// The CONFIG block this epoch stands on; height 0 in the first. Its root is known to all who
    /// vote in the epoch, and no header refers to an older one.
    pub start: (Height, Digest),
    /// One per epoch before this one, from the first on.
    pub proofs: Vec<EpochProof>,
    /// The members of every epoch up to this one: what was signed in an old one still counts.
    known: Vec<Membership>,
    /// Who was a member in the epoch before and is none now: told so, and served blocks.
    left: Vec<Member>,
    early: VecDeque<(ReplicaId, Message)>,
    /// Epochs after this one that are proved, with their networks: a state of a later epoch can be
    /// fetched although this replica cannot execute its way there.
    ahead: Vec<(EpochProof, Network)>,
    asked_ms: Option<u64>,
}

impl Epochs {
    pub fn new(network: Network, proofs: Vec<EpochProof>, known: Vec<Membership>) -> Self {
        assert_eq!(proofs.len() as u64, network.membership.epoch.0, "each epoch before is proved");
        let last_known = known.last().map(|last| last.epoch);
        assert_eq!(last_known, Some(network.membership.epoch), "and its members known");
        let last = proofs.last().map(|proof| (proof.block.header.height, proof.block.hash()));
        let start = last.unwrap_or((Height(0), Digest::ZERO));
        Self {
            network,
            administrators: Administrators::default(),
            start,
            proofs,
            known,
            left: Vec::new(),
            early: VecDeque::new(),
            ahead: Vec::new(),
            asked_ms: None,
        }
    }
}

/// What a kept message occupies, about: the others are small.
fn size_of(message: &Message) -> usize {
    match message {
        Message::PrePrepare { block, .. } => block.encoded().len(),
        _ => 0,
    }
}

/// The epoch a message belongs to, if only replicas in that epoch can use it.
fn epoch_of(message: &Message) -> Option<Epoch> {
    match message {
        Message::PrePrepare { prepare, .. } => Some(prepare.epoch),
        Message::Votes(votes) => votes.first().map(|vote| vote.epoch),
        Message::ViewChange(view_change) => Some(view_change.epoch),
        Message::NewView(new_view) => Some(new_view.epoch),
        _ => None,
    }
}

impl Core {
    /// The highest commit certificate of this epoch: those of epochs before only establish its base.
    pub(super) fn certificate_here(&self) -> Option<&Certificate> {
        let epoch = self.membership.epoch;
        self.blocks.certificate.as_ref().filter(|certificate| certificate.epoch == epoch)
    }

    /// The highest prepared certificate of this epoch.
    pub(super) fn prepared_here(&self) -> Option<&Certificate> {
        let epoch = self.membership.epoch;
        let prepared = self.blocks.prepared.as_ref().map(|(certificate, _)| certificate);
        prepared.filter(|certificate| certificate.epoch == epoch)
    }

    /// Whether this replica was a member once and is none any more.
    pub(super) fn has_left(&self) -> bool {
        let network = &self.epochs.network;
        let given_out = self.own.0 < network.next_replica && !network.awaits(self.own);
        given_out && self.membership.member(self.own).is_none()
    }

    /// Whether this replica left, and q voters are in the epoch without it: all that it holds, they
    /// have, or get from each other.
    #[must_use]
    pub fn is_dispensable(&self) -> bool {
        let epoch = self.membership.epoch;
        let there = self.recent_voters().filter(|(status, _)| status.epoch >= epoch).count();
        self.has_left() && there >= self.quorum.q()
    }

    /// Whether this replica follows the chain from before the epoch that admits it.
    pub(super) fn is_joining(&self) -> bool {
        let network = &self.epochs.network;
        self.own.0 >= network.next_replica || network.awaits(self.own)
    }

    /// Whether this replica is in an epoch that the network has left.
    pub(super) fn is_epochs_behind(&self) -> bool {
        self.is_joining() || !self.epochs.ahead.is_empty()
    }

    /// Whether a message is only good from a member, and its sender is none any more or none yet: what
    /// proves itself is taken from both, for who joins, or was away for long, may find nobody left of its
    /// own epoch.
    pub(super) fn is_from_outside(&self, peer: ReplicaId, message: &Message) -> bool {
        let served = matches!(
            message,
            Message::Status(_)
                | Message::Certificate(_)
                | Message::GetBlocks { .. }
                | Message::Blocks { .. }
                | Message::GetEpochs { .. }
                | Message::Epochs(_)
                | Message::Erased { .. }
                | Message::CheckpointCertificate(_)
                | Message::Manifest { .. }
                | Message::Chunk { .. }
        );
        !served && self.membership.member(peer).is_none()
    }

    /// Whether this tip is the last block of this epoch, and not of the one before.
    pub(super) fn ends_here(&self, tip: &Tip) -> bool {
        let ends = tip.ends_epoch && tip.height > self.epochs.start.0;
        ends && !planted::is(Bug::ChildBeforeConfig)
    }

    /// Keeps a message of the next epoch until this replica is there; true if it was kept.
    pub(super) fn is_early(&mut self, peer: ReplicaId, message: &Message) -> bool {
        let ahead = epoch_of(message) == Some(self.membership.epoch.next());
        let close = self.ends_here(&self.view.tip) || self.ends_here(&self.blocks.committed);
        if ahead && close {
            let of_peer = self.epochs.early.iter().filter(|(from, _)| *from == peer);
            let (count, bytes) = of_peer.fold((0, size_of(message)), |(count, bytes), (_, one)| {
                (count + 1, bytes + size_of(one))
            });
            if count < EARLY_MAX / self.quorum.n() && (count == 0 || bytes <= EARLY_BYTES_MAX) {
                self.epochs.early.push_back((peer, message.clone()));
            }
        }
        ahead
    }

    /// What the change in a block makes of the network, which is fixed within the epoch; an error if
    /// the block is an ordinary one, whose op will answer it.
    pub(super) fn judge_change(&self, block: &Block) -> Result<Network, ConfigError> {
        let network = &self.epochs.network;
        let next = network.after(block, &self.cluster_id, self.scheme.as_ref())?;
        let skeletons = block.bundles().flat_map(|bundle| &bundle.skeletons);
        let mut users = skeletons.map(|skeleton| &skeleton.author.user);
        let asks = block.config_change().is_some_and(|change| change.needs_administrator(network));
        if asks && !users.all(|user| self.epochs.administrators.include(user)) {
            return Err(ConfigError::NoAdministrator);
        }
        Ok(next)
    }

    /// Whether a change is judged by the state behind its parent (protocol.md 22.8), which is to be
    /// executed first.
    pub(super) fn is_change_early(&self) -> bool {
        self.epochs.network.ownership == Ownership::One
            && self.blocks.executed.height < self.view.tip.height
    }

    /// The last block of the epoch is executed: the next one begins, at view 0, on it.
    pub(super) fn start_epoch(&mut self, network: Network, block: &Arc<Block>) {
        let certificate = self.blocks.certificate.clone().expect("an executed block is committed");
        let (height, hash) = (block.header.height, block.hash());
        let at = (certificate.height, certificate.block_hash);
        assert_eq!(at, (height, hash), "nothing is certified above the last block of an epoch");
        assert_eq!(self.blocks.committed.height, height, "nor committed");
        let proof = EpochProof { block: Arc::clone(block), certificate };
        let old = std::mem::replace(&mut self.membership, network.membership.clone());
        self.epochs.left = left_members(&old, &self.membership);
        self.epochs.known.push(self.membership.clone());
        if !self.epochs.ahead.is_empty() {
            let (proved, _) = self.epochs.ahead.remove(0);
            if proved.block.hash() != hash {
                return self.halt(format!("two CONFIG blocks are certified at height {height}"));
            }
        }
        self.epochs.network = network;
        self.epochs.start = (height, hash);
        self.epochs.proofs.push(proof.clone());
        self.append(Record::EpochStart(proof));
        self.apply_membership();
        self.enter_epoch();
        self.revalidate_pool(&old);
        self.announce_epoch();
        self.vote_checkpoints_again();
        // They name the old epoch; whoever is fenced signs its nonce again for this one.
        self.fence.rejoins.clear();
        self.settle_answers();
        for (peer, message) in std::mem::take(&mut self.epochs.early) {
            self.on_message(peer, message);
        }
    }

    /// Everything in the core that is computed from members and parameters.
    fn apply_membership(&mut self) {
        self.config_hash = self.membership.config_hash();
        self.quorum = self.membership.quorum();
        self.window = u64::from(self.membership.parameters.window);
        let members: Vec<ReplicaId> =
            self.membership.members.iter().map(|member| member.id).collect();
        self.peers.retain(|id, peer| peer.up || members.contains(id));
        for id in members.into_iter().filter(|id| *id != self.own) {
            self.peers.entry(id).or_default();
        }
        self.quorum_since_ms = None;
        self.next_status_ms = self.now_ms;
        self.restart_feed();
    }

    /// View 0 of the epoch, on its CONFIG block. A replica that does not vote has a view only to
    /// know whom to ask.
    fn enter_epoch(&mut self) {
        let windows = self.blocks.windows_after(&[]);
        let (base, tip) = (self.epochs.start, self.blocks.committed);
        let mut view = ViewState::new(View(0), base, tip, windows);
        view.fresh = true;
        view.mark = base.0;
        view.since_ms = self.now_ms;
        view.progress_ms = self.now_ms;
        view.chain.insert(base.0, base.1);
        self.view = view;
        self.view.entered_position = self.record_first_view();
        self.votes = Votes::default();
        self.proposals.clear();
        self.witness.retain(&|_| false);
        self.counters.views_entered += 1;
        self.restart_reads();
    }

    /// Records that this replica is in view 0 of its epoch.
    pub(super) fn record_first_view(&mut self) -> LogPosition {
        let (base_height, base_hash) = self.view.base;
        let (epoch, view) = (self.membership.epoch, self.view.entered);
        self.append(Record::ViewEntered { epoch, view, base_height, base_hash })
    }

    /// Bundles stay, unless their origin left or signs with another key, or a limit fell: what one
    /// replica holds as checked, every replica must accept.
    fn revalidate_pool(&mut self, old: &Membership) {
        let limits = old.parameters != self.membership.parameters;
        let key = |of: &Membership, id| of.member(id).map(|member| member.key);
        let suspects: Vec<ReplicaId> = self
            .pool
            .origins
            .keys()
            .copied()
            .filter(|id| limits || key(old, *id) != key(&self.membership, *id))
            .collect();
        for id in suspects {
            let Some(origin) = self.pool.origins.get(&id) else { continue };
            let all: Vec<_> = origin.bundles.values().map(|pooled| pooled.bundle.clone()).collect();
            for bundle in all {
                if !self.check_bundle(&bundle) {
                    self.pool.remove(id, (bundle.session, bundle.first_seq), self.now_ms);
                }
            }
        }
        self.pool.restart_timers(self.now_ms);
        self.drop_pooled();
        self.pass_own_bundles();
    }

    /// Tells the shell who the members are, those that left included.
    pub(super) fn announce_epoch(&mut self) {
        let left = self.epochs.left.iter().map(|member| (member.id, member.key)).collect();
        let network = Box::new(self.epochs.network.clone());
        let proof = self.epochs.proofs.last().cloned();
        self.out.push(Output::Epoch { network, left, proof });
    }

    /// A peer in an epoch before is shown how that one ended.
    pub(super) fn heal_epoch(&mut self, peer: ReplicaId, status: &Status) -> bool {
        let proof = usize::try_from(status.epoch.0).ok().and_then(|at| self.epochs.proofs.get(at));
        let Some(certificate) = proof.map(|proof| proof.certificate.clone()) else { return false };
        self.tell(peer, Message::Certificate(certificate));
        true
    }

    pub(super) fn on_get_epochs(&mut self, peer: ReplicaId, from: Epoch) {
        let from = usize::try_from(from.0).unwrap_or(usize::MAX);
        let proofs: Vec<EpochProof> =
            self.epochs.proofs.iter().skip(from).take(EPOCHS_MAX).cloned().collect();
        if !proofs.is_empty() {
            self.tell(peer, Message::Epochs(proofs));
        }
    }

    /// A peer is in a later epoch than any that is proved here: it is asked how those before ended.
    pub(super) fn look_ahead(&mut self, peer: ReplicaId, epoch: Epoch) {
        let known = self.membership.epoch.plus(self.epochs.ahead.len() as u64);
        let recent = self.epochs.asked_ms.is_some_and(|asked| self.now_ms < asked + ASK_MS);
        if epoch > known && !recent {
            self.epochs.asked_ms = Some(self.now_ms);
            self.tell(peer, Message::GetEpochs { from: known });
        }
    }

    /// What signed bytes are checked against: everyone who was a member in an epoch up to this one.
    pub(super) fn trust(&self) -> Trust<'_> {
        let (cluster_id, scheme) = (&self.cluster_id, self.scheme.as_ref());
        Trust { cluster_id, memberships: &self.epochs.known, scheme }
    }

    /// The members of this epoch, or of a later one that is proved here.
    pub(super) fn members_of(&self, epoch: Epoch) -> Option<&Membership> {
        let ahead = self.epochs.ahead.iter().map(|(_, network)| &network.membership);
        core::iter::once(&self.membership).chain(ahead).find(|one| one.epoch == epoch)
    }

    /// Proofs shown by a peer, each checked with the members that the one before led to, and logged:
    /// a state of a later epoch is opened with them. The end of this epoch is also a commit.
    pub(super) fn on_epochs(&mut self, peer: ReplicaId, proofs: Vec<EpochProof>) {
        let checks = proofs.iter().map(|proof| proof.certificate.signatures.len() as u64).sum();
        if self.epochs.asked_ms.is_none() {
            return self.waste(peer);
        }
        if !self.may_verify(peer, checks) {
            return;
        }
        for proof in proofs {
            let last = self.epochs.ahead.last().map(|(_, network)| network);
            let last = last.unwrap_or(&self.epochs.network);
            if proof.block.header.epoch != last.membership.epoch {
                continue;
            }
            self.counters.verifications += proof.certificate.signatures.len() as u64;
            match proof.check(last, &self.cluster_id, self.scheme.as_ref()) {
                Ok(network) => {
                    self.append(Record::EpochStart(proof.clone()));
                    self.epochs.ahead.push((proof, network));
                }
                Err(_) => return self.ban(peer, "an epoch proof that proves nothing"),
            }
        }
        self.epochs.asked_ms = None;
        if let Some((_, network)) = self.epochs.ahead.last() {
            self.out.push(Output::Ahead { network: Box::new(network.clone()) });
        }
        if let Some((proof, _)) = self.epochs.ahead.first() {
            let certificate = proof.certificate.clone();
            self.on_certificate(peer, certificate);
        }
    }
}

/// Who was a member and is none now.
fn left_members(old: &Membership, new: &Membership) -> Vec<Member> {
    old.members.iter().filter(|member| new.member(member.id).is_none()).cloned().collect()
}
