//! A member that floods the others with its own key (faults.md B7, B14, B16): links of its own, frames
//! prepared beforehand, and one kind of message at a time or some of each.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread::JoinHandle;
use std::time::Duration;

use althing::chain::{
    Author, Bundle, BundleParts, CheckpointId, CheckpointVote, Genesis, NewView, Op, Phase, Rejoin,
    Skeleton, ViewChange, Vote,
};
use althing::codec::Encode;
use althing::config::{GenesisFile, Home, SecretSeed};
use althing::crypto::{Ed25519, Signature};
use althing::net::{FrameLimits, Lane, PeerAddress, PeerNet, PeerNetConfig};
use althing::ordering::{Message, Mode, ReadNonce, Status};
use althing::tls::{PeerTable, PeerTls};
use althing::types::{ClusterId, Digest, Epoch, Height, LeaseId, Millis, ReplicaId, View};
use bytes::Bytes;
use rustix::process::setpriority_process;

use crate::network::Network;

/// What is sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// 2 KiB that decode to nothing.
    Garbage,
    /// 1 MiB that decodes to nothing.
    BigGarbage,
    /// STATUS with huge heights.
    Status,
    /// Validly signed VIEW-CHANGEs, each for a higher view.
    ViewChange,
    /// NEW-VIEWs whose VIEW-CHANGEs are no quorum.
    NewView,
    /// COMMITs in reach that the voter did not sign.
    ForgedVotes,
    /// Validly signed COMMITs for heights far ahead.
    FarVotes,
    /// Valid bundles with ever new numbers: they are ordered, up to the flooder's share.
    Bundles,
    /// One valid bundle again and again.
    SameBundle,
    /// Bundles that their origin did not sign.
    ForgedBundles,
    /// Questions for linearizable reads.
    ReadIndex,
    /// Questions for pages of blocks, each further than the last.
    GetBlocks,
    /// REJOINs with ever new nonces.
    Rejoin,
    /// CHECKPOINT votes that the voter did not sign.
    ForgedCheckpoints,
    /// 1 MiB each, of a state nobody fetches.
    Chunks,
}

/// All kinds.
pub const KINDS: [Kind; 15] = [
    Kind::Garbage,
    Kind::BigGarbage,
    Kind::Status,
    Kind::ViewChange,
    Kind::NewView,
    Kind::ForgedVotes,
    Kind::FarVotes,
    Kind::Bundles,
    Kind::SameBundle,
    Kind::ForgedBundles,
    Kind::ReadIndex,
    Kind::GetBlocks,
    Kind::Rejoin,
    Kind::ForgedCheckpoints,
    Kind::Chunks,
];

/// Sends as fast as it may while it is told to.
pub struct Flood {
    on: Arc<AtomicBool>,
    end: Arc<AtomicBool>,
    sent: Arc<AtomicU64>,
    net: Arc<PeerNet>,
    threads: Vec<JoinHandle<()>>,
}

/// Bytes prepared per kind at most: what is large is sent again and again.
const PREPARED_BYTES: usize = 64 << 20;

impl Flood {
    /// Links up with the key of replica `liar`, which must not run, and waits. `prepared` messages of each
    /// kind, in turn; its threads yield to all others.
    pub fn start(network: &Network, liar: usize, (kinds, prepared): (&[Kind], u64)) -> Flood {
        let genesis = GenesisFile::read(&network.directory().join("genesis.json"));
        let genesis = genesis.expect("the network's genesis").genesis;
        let home = Home::at(network.replicas[liar].home());
        let seed = SecretSeed::load(&home.replica_key(), true).expect("the liar's key");
        let own = genesis.members[liar].id;
        let frames = frames(&genesis, own, &seed.signer(), (kinds, prepared));
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
        let runtime = runtime.expect("a runtime");
        let net = Arc::new(connect(&genesis, own, seed.signer(), runtime.handle()));
        let victims: Vec<ReplicaId> =
            genesis.members.iter().map(|member| member.id).filter(|id| *id != own).collect();
        let (on, end, sent) = <(Arc<AtomicBool>, Arc<AtomicBool>, Arc<AtomicU64>)>::default();
        let links_end = end.clone();
        let links = std::thread::spawn(move || {
            yield_to_all();
            runtime.block_on(async {
                while !links_end.load(Ordering::Relaxed) {
                    tokio::time::sleep(Duration::from_millis(20)).await;
                }
            });
        });
        let (is_on, has_ended, count) = (on.clone(), end.clone(), sent.clone());
        let sends = net.clone();
        let sender = std::thread::spawn(move || {
            yield_to_all();
            // Each victim gets every frame, at its own pace.
            let mut next = vec![0; victims.len()];
            while !has_ended.load(Ordering::Relaxed) {
                let mut taken = 0;
                for (id, at) in victims.iter().zip(&mut next) {
                    // What finds no room is passed over, so that large frames do not hold up small ones.
                    let (frame, lane) = &frames[*at % frames.len()];
                    *at += 1;
                    if is_on.load(Ordering::Relaxed) && sends.send(*id, frame.clone(), *lane) {
                        taken += 1;
                    }
                }
                count.fetch_add(taken, Ordering::Relaxed);
                if taken == 0 {
                    std::thread::sleep(Duration::from_millis(1));
                }
            }
        });
        Flood { on, end, sent, net, threads: vec![sender, links] }
    }

    /// Begins, or stops.
    pub fn set(&self, on: bool) {
        self.on.store(on, Ordering::Relaxed);
    }

    /// Frames that its own queues have taken, to all victims.
    pub fn sent(&self) -> u64 {
        self.sent.load(Ordering::Relaxed)
    }

    /// Bytes that went out, to all victims.
    pub fn sent_bytes(&self) -> u64 {
        self.net.traffic().values().map(|link| link.sent_bytes).sum()
    }
}

/// The flooder's own work must not be what slows the others.
fn yield_to_all() {
    // On Linux this is the calling thread alone. It may only be refused to those who would raise it.
    let _refused = setpriority_process(None, 19);
}

impl Drop for Flood {
    fn drop(&mut self) {
        self.end.store(true, Ordering::Relaxed);
        for thread in self.threads.drain(..) {
            let _ended = thread.join();
        }
    }
}

fn connect(
    genesis: &Genesis,
    own: ReplicaId,
    signer: Ed25519,
    runtime: &tokio::runtime::Handle,
) -> PeerNet {
    let table = PeerTable::new(genesis.members.iter().map(|m| (m.id, m.key)).collect());
    let tls = PeerTls::new(own, genesis.cluster_id(), Arc::new(signer), table);
    let peers = genesis.members.iter().filter(|member| member.id != own);
    let config = PeerNetConfig {
        strangers: None,
        tls: Arc::new(tls.expect("a TLS key")),
        listeners: Vec::new(),
        peers: peers
            .map(|member| PeerAddress {
                id: member.id,
                name: member.name.clone(),
                label: member.id.to_string(),
                addresses: vec![member.peer_address.clone()],
                key: member.key,
            })
            .collect(),
        frame_limits: FrameLimits { control_bytes: 1 << 20, bulk_bytes: Message::BYTES_MAX },
        queue_bytes_max: 8 << 20,
        unsettled_bytes_max: 8 << 20,
    };
    PeerNet::start(runtime, config, |_| {}).expect("links")
}

fn frames(
    genesis: &Genesis,
    own: ReplicaId,
    signer: &Ed25519,
    (kinds, prepared): (&[Kind], u64),
) -> Vec<(Bytes, Lane)> {
    let maker = Maker { cluster_id: genesis.cluster_id(), own, signer };
    let mut frames = Vec::new();
    let mut bytes = 0;
    for n in 0..prepared {
        for kind in kinds {
            let frame = maker.frame(*kind, n);
            bytes += frame.len();
            let large = frame.len() >= 1 << 20;
            frames.push((frame, if large { Lane::Bulk } else { Lane::Control }));
        }
        if bytes > PREPARED_BYTES * kinds.len() {
            break;
        }
    }
    frames
}

struct Maker<'a> {
    cluster_id: ClusterId,
    own: ReplicaId,
    signer: &'a Ed25519,
}

const EPOCH: Epoch = Epoch(0);

impl Maker<'_> {
    fn frame(&self, kind: Kind, n: u64) -> Bytes {
        let garbage = |length: u64| -> Vec<u8> {
            // No message has this tag.
            core::iter::once(255).chain((1..length).map(|at| (at * 31 + n * 17) as u8)).collect()
        };
        let message = match kind {
            Kind::Garbage => return Bytes::from(garbage(2048)),
            Kind::BigGarbage => return Bytes::from(garbage(1 << 20)),
            Kind::Status => Message::Status(Status {
                epoch: EPOCH,
                view: View(1 << 40),
                mode: Mode::Normal,
                unix_ms: Millis(n),
                committed: Height(1 << 50),
                executed: Height(1 << 50),
                stable: Height(1 << 50),
            }),
            Kind::ViewChange => Message::ViewChange(self.view_change(View((1 << 40) + n))),
            Kind::NewView => self.new_view(n),
            Kind::ForgedVotes => {
                let mut vote = self.commit(Height(1 + n % 8), n);
                vote.signed.signature.0[5] ^= 1;
                Message::Votes(vec![vote])
            }
            Kind::FarVotes => Message::Votes(vec![self.commit(Height((1 << 40) + n), n)]),
            // A new session before each window's worth, as after a restart.
            Kind::Bundles => Message::Bundle(self.bundle((7 << 20) + n / 1024, n % 1024)),
            Kind::SameBundle => Message::Bundle(self.bundle(6 << 20, 0)),
            Kind::ForgedBundles => {
                let mut bundle = self.bundle(8 << 20, n);
                bundle.signature.0[5] ^= 1;
                Message::Bundle(bundle)
            }
            Kind::ReadIndex => {
                Message::ReadIndex { nonce: ReadNonce { start: [9; 32], counter: n } }
            }
            Kind::GetBlocks => Message::GetBlocks { from: Height(1 + n), until: Height(u64::MAX) },
            Kind::Rejoin => {
                let mut nonce = [7; 32];
                nonce[..8].copy_from_slice(&n.to_le_bytes());
                Message::Rejoin(Rejoin::sign(EPOCH, self.own, nonce, &self.cluster_id, self.signer))
            }
            Kind::ForgedCheckpoints => Message::Checkpoint(CheckpointVote {
                epoch: EPOCH,
                replica: self.own,
                id: CheckpointId {
                    height: Height((1 << 40) + n),
                    block_hash: Digest([1; 32]),
                    exec_root: Digest([2; 32]),
                    manifest_root: Digest([3; 32]),
                },
                signature: Signature([4; 64]),
            }),
            Kind::Chunks => Message::Chunk {
                root: Digest([9; 32]),
                number: n as u32,
                bytes: Some(vec![n as u8; 1 << 20].into()),
            },
        };
        message.to_bytes()
    }

    fn view_change(&self, view: View) -> Arc<ViewChange> {
        let none = (None, None, None);
        Arc::new(ViewChange::sign((EPOCH, view), self.own, none, &self.cluster_id, self.signer))
    }

    fn new_view(&self, n: u64) -> Message {
        let view = View((1 << 40) + n);
        let one = self.view_change(view);
        let forged = |id: u16| {
            let mut other = one.as_ref().clone();
            other.replica = ReplicaId(id);
            Arc::new(other)
        };
        let all = (0..4).map(forged).collect();
        let new_view = NewView::sign((EPOCH, view), all, &self.cluster_id, self.signer);
        Message::NewView(Arc::new(new_view))
    }

    fn commit(&self, height: Height, n: u64) -> Vote {
        let range = (height, vec![Digest([n as u8; 32])]);
        Vote::sign((Phase::Commit, EPOCH, View(0)), self.own, range, &self.cluster_id, self.signer)
    }

    fn bundle(&self, session: u64, first_seq: u64) -> Bundle {
        // Refused when it is executed: no such lease.
        let op = Op::LeaseRevoke { id: LeaseId(1) };
        let parts = BundleParts {
            origin: self.own,
            session,
            first_seq,
            not_after_ms: Millis(u64::MAX),
            skeletons: vec![Skeleton { author: Author::default(), op }],
            values: Vec::new(),
        };
        Bundle::sign(parts, &self.cluster_id, self.signer)
    }
}
