//! Who the members are, for everything outside the core: links and pinned keys, recipients, proofs.

use std::collections::BTreeMap;
use std::sync::{Arc, PoisonError, RwLock};

use crate::chain::{EpochProof, Network, dialled};
use crate::crypto::{PublicKey, Scheme};
use crate::net::{PeerAddress, PeerNet};
use crate::node::bulk::SendFrame;
use crate::node::halt::{EXIT_HALTED, EXIT_REMOVED, halt};
use crate::node::run::Replica;
use crate::tls::PeerTable;
use crate::types::{LogPosition, ReplicaId};

/// A removed replica answers at least so long, for the request that removed it.
const LEFT_MS: u64 = 1000;
/// After so long it ends although nobody has told it that it may.
const LEFT_MS_MAX: u64 = 60_000;

/// How every epoch before this one ended, for whoever asks the handle.
pub(super) type SharedEpochs = Arc<RwLock<Vec<EpochProof>>>;

/// The links and the keys they pin.
#[derive(Clone)]
pub(super) struct Links {
    pub(super) net: Arc<PeerNet>,
    table: PeerTable,
    own: ReplicaId,
    /// Of a later epoch than the state's, at a joiner, or one that was away for long.
    known: Arc<RwLock<Option<Network>>>,
    /// Who was linked to in the epoch before.
    before: Arc<RwLock<BTreeMap<ReplicaId, PeerAddress>>>,
}

impl Links {
    pub(super) fn new(
        net: Arc<PeerNet>,
        table: PeerTable,
        own: ReplicaId,
        known: Option<Network>,
    ) -> Self {
        Self { net, table, own, known: Arc::new(RwLock::new(known)), before: Arc::default() }
    }

    /// A later epoch is proved: links to its members too, by its keys. Whom it links to.
    fn look_ahead(&self, network: &Network) -> Vec<ReplicaId> {
        let mut known = self.known.write().unwrap_or_else(PoisonError::into_inner);
        if known.as_ref().is_none_or(|known| known.membership.epoch < network.membership.epoch) {
            *known = Some(network.clone());
        }
        drop(known);
        let before = self.before.read().unwrap_or_else(PoisonError::into_inner).clone();
        let before: Vec<_> = before.into_iter().map(|(id, peer)| (id, peer.key)).collect();
        self.follow(network, &before)
    }

    /// Links to the members of this network, and to `left`, who have just left it. A joiner knows a
    /// newer one: until it is there, that one's addresses and keys count. Whom it links to.
    pub(super) fn follow(
        &self,
        network: &Network,
        left: &[(ReplicaId, PublicKey)],
    ) -> Vec<ReplicaId> {
        let newer = |known: &&Network| known.membership.epoch >= network.membership.epoch;
        let known = self.known.read().unwrap_or_else(PoisonError::into_inner);
        let network = known.as_ref().filter(newer).unwrap_or(network);
        let mut before = self.before.write().unwrap_or_else(PoisonError::into_inner);
        let mut peers = addresses(network);
        for (id, _) in left {
            if let Some(address) = before.get(id) {
                peers.entry(*id).or_insert_with(|| address.clone());
            }
        }
        before.clone_from(&peers);
        self.table.replace(peers.iter().map(|(id, peer)| (*id, peer.key)).collect());
        peers.remove(&self.own);
        let ids = peers.keys().copied().collect();
        self.net.set_peers(peers.into_values().collect());
        ids
    }
}

fn addresses(network: &Network) -> BTreeMap<ReplicaId, PeerAddress> {
    let members = network.membership.members.iter();
    let known = members.filter_map(|member| Some((member, network.addresses.get(&member.id)?)));
    let address = known.map(|(member, address)| PeerAddress {
        id: member.id,
        name: address.name.clone(),
        label: format!("{:x}", member.id.0),
        addresses: dialled(&address.peer_address),
        key: member.key,
    });
    address.map(|address| (address.id, address)).collect()
}

/// Sends over these links; without any, into nothing.
pub(super) fn frame_sender(net: Option<Links>) -> SendFrame {
    Arc::new(move |peer, frame, lane| {
        if let Some(Links { net, .. }) = &net {
            // A frame that finds no room is lost like one on the wire: the protocol sends again.
            let _queued = net.send(peer, frame, lane);
        }
    })
}

/// What this replica's own place in a network is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Place {
    /// A member, by the key it signs with.
    Member,
    /// A member, but by another key: its own was rotated.
    OtherKey,
    /// None.
    Outside,
}

/// Looks for the own replica in a network.
fn place(network: &Network, own: ReplicaId, scheme: &dyn Scheme) -> Place {
    let Some(member) = network.membership.member(own) else { return Place::Outside };
    if member.key == scheme.public_key() { Place::Member } else { Place::OtherKey }
}

/// What the protocol thread keeps of the membership.
pub(super) struct Members {
    pub(super) own: ReplicaId,
    pub(super) others: Vec<ReplicaId>,
    pub(super) voters: Vec<ReplicaId>,
    pub(super) links: Option<Links>,
    pub(super) epochs: SharedEpochs,
    /// Since when this replica is a member no more.
    pub(super) left_ms: Option<u64>,
    /// The own key was rotated: this replica ends once its log is durable up to here.
    pub(super) ends_at: Option<LogPosition>,
    /// Since when frames to a peer go out.
    pub(super) linked_ms: BTreeMap<ReplicaId, u64>,
}

impl Members {
    /// Whether a later epoch, known from beside the data directory, names the key this replica signs
    /// with: it follows the chain up to there and votes from there on (protocol.md 20.10).
    pub(super) fn awaits_own_key(&self, network: &Network, scheme: &dyn Scheme) -> bool {
        let Some(links) = &self.links else { return false };
        let known = links.known.read().unwrap_or_else(PoisonError::into_inner);
        known.as_ref().is_some_and(|known| {
            known.membership.epoch > network.membership.epoch
                && place(known, self.own, scheme) == Place::Member
        })
    }

    /// An epoch begins.
    pub(super) fn follow(
        &mut self,
        network: &Network,
        left: &[(ReplicaId, PublicKey)],
        proof: Option<EpochProof>,
    ) {
        let voters = network.membership.voters().map(|member| member.id);
        self.voters = voters.filter(|id| *id != self.own).collect();
        let mut epochs = self.epochs.write().unwrap_or_else(PoisonError::into_inner);
        let known = epochs.len() as u64;
        epochs.extend(proof.filter(|proof| proof.block.header.epoch.0 >= known));
        drop(epochs);
        if let Some(links) = &self.links {
            self.others = links.follow(network, left);
        }
    }

    /// A later epoch is proved.
    pub(super) fn look_ahead(&mut self, network: &Network) {
        if let Some(links) = &self.links {
            self.others = links.look_ahead(network);
        }
    }
}

impl Replica {
    /// Looks for the own place in an epoch that begins, and says so if there is none.
    pub(super) fn find_place(&mut self, network: &Network) {
        let (own, epoch) = (self.members.own, network.membership.epoch.0);
        let place = place(network, own, &*self.scheme);
        (self.members.left_ms, self.members.ends_at) = (None, None);
        match place {
            Place::Member => {}
            Place::OtherKey if self.members.awaits_own_key(network, &*self.scheme) => {
                tracing::warn!(
                    event = "key_of_a_later_epoch",
                    "this replica signs with the key of a later epoch: until it is there it follows and does \
                 not vote"
                )
            }
            Place::OtherKey => self.members.ends_at = Some(self.core.log_end()),
            Place::Outside if own.0 >= network.next_replica || network.awaits(own) => {
                tracing::info!(
                    event = "no_member_yet",
                    epoch,
                    "follows the chain to the epoch that admits this replica"
                )
            }
            Place::Outside => {
                tracing::error!(
                    event = "removed",
                    epoch,
                    "this replica was removed from the network: it votes no more, and ends once the \
                     others need nothing of it"
                );
                self.members.left_ms = Some(self.clock.mono_ms());
            }
        }
    }

    /// The log must hold how the epoch before ended: with the new key this replica cannot end it again,
    /// and it may be that epoch's only voter (protocol.md 20.10).
    pub(super) fn end_if_key_rotated(&self) {
        if self.members.ends_at.is_some_and(|end| self.gates.is_open(end)) {
            halt(
                EXIT_HALTED,
                "this replica's key was rotated: put `althing epoch export` of another member into \
                 the home as epochs.json and start again with the new key",
            );
        }
    }

    /// Who left serves how its epoch ended until a quorum is in the next one: it may be the only one that
    /// holds the certificate (protocol.md 20.6).
    pub(super) fn end_if_removed(&self) {
        let Some(left) = self.members.left_ms else { return };
        let since = self.clock.mono_ms().saturating_sub(left);
        if since >= LEFT_MS_MAX || since >= LEFT_MS && self.core.is_dispensable() {
            halt(
                EXIT_REMOVED,
                "this replica was removed from the network, and the others go on without it; its \
                 data directory is needed no more",
            );
        }
    }
}
