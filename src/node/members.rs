//! Who the members are, for everything outside the core: links and pinned keys, recipients, proofs.

use std::collections::BTreeMap;
use std::sync::{Arc, PoisonError, RwLock};

use crate::chain::{EpochProof, Network};
use crate::crypto::{PublicKey, Scheme};
use crate::net::{PeerAddress, PeerNet};
use crate::tls::PeerTable;
use crate::types::ReplicaId;

/// How every epoch before this one ended, for whoever asks the handle.
pub(super) type SharedEpochs = Arc<RwLock<Vec<EpochProof>>>;

/// The links and the keys they pin.
#[derive(Clone)]
pub(super) struct Links {
    pub(super) net: Arc<PeerNet>,
    table: PeerTable,
    own: ReplicaId,
    /// Of a later epoch than the state's, at a joiner.
    known: Option<Network>,
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
        Self { net, table, own, known, before: Arc::default() }
    }

    /// Links to the members of this network, and to `left`, who have just left it. A joiner knows a
    /// newer one: until it is there, that one's addresses and keys count.
    pub(super) fn follow(&self, network: &Network, left: &[(ReplicaId, PublicKey)]) {
        let newer = |known: &&Network| known.membership.epoch >= network.membership.epoch;
        let network = self.known.as_ref().filter(newer).unwrap_or(network);
        let mut before = self.before.write().unwrap_or_else(PoisonError::into_inner);
        let mut peers = addresses(network);
        for (id, _) in left {
            if let Some(address) = before.get(id) {
                peers.entry(*id).or_insert_with(|| address.clone());
            }
        }
        before.clone_from(&peers);
        self.table.replace(peers.iter().map(|(id, peer)| (*id, peer.key)).collect());
        self.net.set_peers(peers.into_values().filter(|peer| peer.id != self.own).collect());
    }
}

fn addresses(network: &Network) -> BTreeMap<ReplicaId, PeerAddress> {
    let members = network.membership.members.iter();
    let known = members.filter_map(|member| Some((member, network.addresses.get(&member.id)?)));
    let address = known.map(|(member, address)| PeerAddress {
        id: member.id,
        name: address.name.clone(),
        label: format!("{:x}", member.id.0),
        address: address.peer_address.clone(),
        key: member.key,
    });
    address.map(|address| (address.id, address)).collect()
}

/// What this replica's own place in a network is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Place {
    /// A member, by the key it signs with.
    Member,
    /// A member, but by another key: its own was rotated.
    OtherKey,
    /// None.
    Outside,
}

/// Looks for the own replica in a network.
pub(super) fn place(network: &Network, own: ReplicaId, scheme: &dyn Scheme) -> Place {
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
}

impl Members {
    /// Whether a later epoch, known from beside the data directory, names the key this replica signs
    /// with: it follows the chain up to there and votes from there on (protocol.md 20.10).
    pub(super) fn awaits_own_key(&self, network: &Network, scheme: &dyn Scheme) -> bool {
        let known = self.links.as_ref().and_then(|links| links.known.as_ref());
        known.is_some_and(|known| {
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
        let own = self.own;
        let not_own = move |id: &ReplicaId| *id != own;
        let ids = |voting: bool| {
            let members = network.membership.members.iter();
            members.filter(move |member| member.voting || !voting).map(|member| member.id)
        };
        self.others = ids(false).chain(left.iter().map(|(id, _)| *id)).filter(not_own).collect();
        self.voters = ids(true).filter(not_own).collect();
        let mut epochs = self.epochs.write().unwrap_or_else(PoisonError::into_inner);
        let known = epochs.len() as u64;
        epochs.extend(proof.filter(|proof| proof.block.header.epoch.0 >= known));
        drop(epochs);
        if let Some(links) = &self.links {
            links.follow(network, left);
        }
    }
}
