use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::mpsc::Sender;
use std::sync::{Arc, PoisonError, RwLock};
use std::time::Duration;

use bytes::Bytes;
use tokio::sync::{Semaphore, oneshot, watch};

use crate::apply::Reply;
use crate::chain::{
    Author, CheckpointCertificate, ConfigChange, EpochProof, Genesis, Network, Op, Ownership,
    ValueSource,
};
use crate::net::PeerNet;
use crate::node::admit::REQUEST_TIMEOUT_MS;
use crate::node::bulk::BulkJob;
use crate::node::event::{Event, Request};
use crate::node::evidence::EvidenceStore;
use crate::node::index::IndexReader;
use crate::node::members::SharedEpochs;
use crate::node::{ChangeError, KeptEvidence, NodeError, NodeStatus, Tokens};
use crate::observe;
use crate::state::{Access, Span, State};
use crate::storage::disk::Disk;
use crate::storage::index::Provenance;
use crate::storage::log::FoundBlock;
use crate::tls::{CertificateFacts, ExchangeTls};
use crate::types::{Epoch, Height, ReplicaId, View};
use crate::watch::Ring;

/// What becomes visible together: data, revision and events of a block.
pub struct Shared {
    /// The replicated state after the last executed block.
    pub state: State,
    /// The newest events, for watchers.
    pub ring: Ring,
    /// Simple tokens of this organisation's users.
    pub tokens: Tokens,
}

/// The way into the replica for `api` and `web`. Cheap to clone.
#[derive(Clone)]
pub struct Handle {
    pub(super) inner: Arc<Inner>,
}

pub(super) struct Inner {
    pub(super) events: Sender<Event>,
    pub(super) services: Arc<RwLock<Services>>,
    pub(super) shared: Arc<RwLock<Shared>>,
    pub(super) applied: watch::Receiver<i64>,
    pub(super) status: Arc<RwLock<NodeStatus>>,
    pub(super) signals: Arc<Signals>,
    pub(super) genesis: Arc<Genesis>,
    pub(super) own: ReplicaId,
    pub(super) evidence: Arc<EvidenceStore>,
    pub(super) cut: Box<dyn Fn(bool) + Send + Sync>,
    pub(super) epochs: SharedEpochs,
    /// The newest checkpoint that a quorum holds.
    pub(super) certified: watch::Receiver<Option<CheckpointCertificate>>,
    /// One snapshot at a time.
    pub(super) backups: Arc<Semaphore>,
    pub(super) net: Option<Arc<PeerNet>>,
    pub(super) exchange: Arc<ExchangeTls>,
}

/// What belongs to one state and one log, and is replaced with them.
#[derive(Clone)]
pub(super) struct Services {
    pub(super) bulk: Sender<BulkJob>,
    pub(super) index: IndexReader,
    pub(super) values: Arc<dyn ValueSource>,
    pub(super) disk: Arc<dyn Disk>,
}

impl Handle {
    pub(super) fn services(&self) -> Services {
        self.inner.services.read().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// The certificate this replica shows its peers; none where it has no peers.
    #[must_use]
    pub fn peer_certificate(&self) -> Option<CertificateFacts> {
        self.inner.net.as_ref()?.certificate()
    }

    /// How members that were added are met at https peer URLs.
    pub(super) fn exchange(&self) -> &ExchangeTls {
        &self.inner.exchange
    }

    /// The certificates in force at https peer URLs.
    #[must_use]
    pub fn exchange_certificates(&self) -> Vec<CertificateFacts> {
        self.inner.exchange.facts()
    }

    /// Orders a write and returns its reply once this replica has executed it. The slots of `op` index
    /// into `values`; their commitments are filled at admission.
    ///
    /// # Errors
    /// [`NodeError`]; the write may still land after `Timeout`, as in etcd, but not after the time its
    /// bundle names.
    pub async fn propose(
        &self,
        author: Author,
        op: Op,
        values: Vec<Bytes>,
    ) -> Result<Reply, NodeError> {
        let view = self.view();
        let (reply, answer) = oneshot::channel();
        self.send(Event::Request(Request { author, op, values, reply }))?;
        let result =
            match tokio::time::timeout(Duration::from_millis(REQUEST_TIMEOUT_MS), answer).await {
                Ok(Ok(result)) => result,
                Ok(Err(_)) => Err(NodeError::Stopped),
                Err(_) if !self.has_leader() => Err(NodeError::NoLeader),
                Err(_) if self.view() != view => Err(NodeError::TimeoutLeaderFail),
                Err(_) => Err(NodeError::Timeout),
            };
        if result.is_err() {
            observe::counter(&observe::table::SERVER_PROPOSALS_FAILED, &[]).increment(1);
        }
        result
    }

    /// Orders a change of members or parameters; the epoch it begins, and the replica it adds.
    ///
    /// # Errors
    /// [`ChangeError`].
    pub async fn change(
        &self,
        change: ConfigChange,
    ) -> Result<(Epoch, Option<ReplicaId>), ChangeError> {
        let op = Op::Config(Box::new(change));
        match self.propose(Author::default(), op, Vec::new()).await {
            Ok(Reply::Config { epoch, added, .. }) => Ok((epoch, added)),
            Ok(Reply::Error { error, .. }) => Err(ChangeError::Refused(error.to_string())),
            Ok(_) => unreachable!("a change is answered as one"),
            Err(error) => Err(ChangeError::Node(error)),
        }
    }

    /// Returns once this replica has executed everything that was acknowledged anywhere before the
    /// call (consensus.md 11).
    ///
    /// # Errors
    /// [`NodeError`].
    pub async fn linearizable(&self) -> Result<(), NodeError> {
        let (done, answer) = oneshot::channel();
        self.send(Event::Barrier(done))?;
        match tokio::time::timeout(Duration::from_millis(REQUEST_TIMEOUT_MS), answer).await {
            Ok(Ok(result)) => result,
            Ok(Err(_)) => Err(NodeError::Stopped),
            Err(_) if !self.has_leader() => Err(NodeError::NoLeader),
            Err(_) => Err(NodeError::Timeout),
        }
    }

    /// Whether a quorum is in normal mode of one view, as far as this replica heard.
    #[must_use]
    pub fn has_leader(&self) -> bool {
        self.inner.signals.has_leader.load(Ordering::Relaxed)
    }

    /// Epoch and view in force here.
    #[must_use]
    pub fn view(&self) -> (Epoch, View) {
        let signals = &self.inner.signals;
        let epoch = Epoch(signals.epoch.load(Ordering::Relaxed));
        (epoch, View(signals.view.load(Ordering::Relaxed)))
    }

    /// Gives this replica's lead to the next primary; returns once another one leads.
    ///
    /// # Errors
    /// [`NodeError`].
    pub async fn hand_over(&self) -> Result<(), NodeError> {
        self.send(Event::HandOver)?;
        let moved = async {
            while self.status().core.primary.is_none_or(|primary| primary == self.inner.own) {
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
        };
        let limit = Duration::from_millis(REQUEST_TIMEOUT_MS);
        tokio::time::timeout(limit, moved).await.map_err(|_| NodeError::Timeout)
    }

    fn send(&self, event: Event) -> Result<(), NodeError> {
        self.inner.events.send(event).map_err(|_| NodeError::Stopped)
    }

    /// Reads state and events under the shared lock. `f` must be short: the next block waits for it.
    pub fn read<R>(&self, f: impl FnOnce(&Shared) -> R) -> R {
        let shared = self.inner.shared.read().unwrap_or_else(PoisonError::into_inner);
        f(&shared)
    }

    /// Resolves the references that [`Handle::read`] finds.
    #[must_use]
    pub fn values(&self) -> Arc<dyn ValueSource> {
        self.services().values
    }

    /// Changes to the current revision once per executed block.
    #[must_use]
    pub fn applied(&self) -> watch::Receiver<i64> {
        self.inner.applied.clone()
    }

    /// What this replica knows of itself and its peers, at most 100 ms old.
    #[must_use]
    pub fn status(&self) -> NodeStatus {
        self.inner.status.read().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Whether this replica's state is not the network's: then it serves no key.
    #[must_use]
    pub fn is_quarantined(&self) -> bool {
        self.inner.signals.quarantined.load(Ordering::Relaxed)
    }

    /// A value that this replica's state refers to is not what was written: it quarantines itself.
    pub fn report_damage(&self, reason: String) {
        // A replica that stops reports nothing.
        let _stopping = self.send(Event::Damaged(reason));
    }

    /// Gives up the damaged log and state of a quarantined replica and begins again, fenced, with
    /// those of the others. Returns once it has begun.
    ///
    /// # Errors
    /// Why it cannot.
    pub async fn repair(&self) -> Result<(), String> {
        let (begun, answer) = oneshot::channel();
        self.send(Event::Repair(begun)).map_err(|error| error.to_string())?;
        answer.await.map_err(|_| NodeError::Stopped.to_string())?
    }

    /// The network's genesis.
    #[must_use]
    pub fn genesis(&self) -> &Genesis {
        &self.inner.genesis
    }

    /// Members and parameters in force, as this replica has executed them.
    #[must_use]
    pub fn network(&self) -> Network {
        self.read(|shared| shared.state.network().clone())
    }

    /// Whether this replica is a learner of one owner, which answers its clients as little as etcd's does.
    /// Where organisations share a network its learners and observers are there to answer.
    #[must_use]
    pub fn is_learner(&self) -> bool {
        self.genesis().ownership == Ownership::One
            && self.read(|shared| shared.state.network().is_learner(self.own()))
    }

    /// How every epoch before this one ended.
    #[must_use]
    pub fn epochs(&self) -> Vec<EpochProof> {
        self.inner.epochs.read().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// The author of what this replica orders of its own accord, named `work` in the history: root of its
    /// organisation, as etcd does it (WithRoot).
    #[must_use]
    pub fn own_author(&self, work: &'static str) -> Author {
        let store = |shared: &Shared| {
            let store = shared.state.auth.store(shared.state.organisation_of(self.own())?);
            store.enabled.then_some(store.revision)
        };
        let client_name = work.into();
        match self.read(store) {
            Some(auth_revision) => Author { client_name, user: "root".into(), auth_revision },
            None => Author { client_name, ..Author::default() },
        }
    }

    /// Whether a user of this replica's organisation may read a key; anyone may while users and roles are
    /// off.
    #[must_use]
    pub fn may_read(&self, user: &str, key: &[u8]) -> bool {
        self.read(|shared| {
            let own = shared.state.organisation_of(self.own());
            own.is_some_and(|own| {
                let store = shared.state.auth.store(own);
                let who = (user.as_bytes(), store.revision);
                store.check_keys(who, Span::One(key), Access::Read).is_ok()
            })
        })
    }

    /// This replica.
    #[must_use]
    pub fn own(&self) -> ReplicaId {
        self.inner.own
    }

    /// The committed block at a height with its proof, or None if the log does not hold it.
    ///
    /// # Errors
    /// What the log could not read, as text.
    pub async fn block(&self, height: Height) -> Result<Option<FoundBlock>, String> {
        let (answer, found) = oneshot::channel();
        let stopped = || NodeError::Stopped.to_string();
        self.services().bulk.send(BulkJob::Find(height, answer)).map_err(|_| stopped())?;
        found.await.map_err(|_| stopped())?
    }

    /// Who changed `key`, newest first, at most `limit` entries.
    ///
    /// # Errors
    /// What the index could not read, as text.
    pub async fn provenance(&self, key: Bytes, limit: usize) -> Result<Vec<Provenance>, String> {
        self.services().index.history(key, limit).await
    }

    /// The proofs of misbehaviour that this replica keeps, by name.
    #[must_use]
    pub fn evidence(&self) -> BTreeMap<String, KeptEvidence> {
        self.inner.evidence.list()
    }

    /// The file of one of them.
    ///
    /// # Errors
    /// What the disk could not read, as text.
    pub fn evidence_file(&self, name: &str) -> Result<Bytes, String> {
        self.inner.evidence.read(name)
    }

    /// Makes this replica lie for some seconds. Does nothing outside a demo network.
    pub fn lie(&self) {
        // A replica that has stopped tells no more lies.
        let _ = self.send(Event::Lie);
    }

    /// Drops all peer frames, or stops doing so. Only a demo network's endpoint calls it.
    pub fn cut(&self, cut: bool) {
        (self.inner.cut)(cut);
    }
}

/// What every request looks at, without a lock.
#[derive(Default)]
pub(super) struct Signals {
    pub(super) has_leader: AtomicBool,
    pub(super) epoch: AtomicU64,
    pub(super) view: AtomicU64,
    pub(super) quarantined: AtomicBool,
}
