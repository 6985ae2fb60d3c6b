//! Brings a replica up: data directory, recovery, threads, links.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::PathBuf;
use std::sync::atomic::AtomicBool;
use std::sync::mpsc::{Receiver, Sender, channel};
use std::sync::{Arc, OnceLock, PoisonError, RwLock};
use std::thread::JoinHandle;

use tokio::sync::{Semaphore, watch};

use crate::chain::{CheckpointCertificate, Genesis, Network};
use crate::config::GenesisFile;
use crate::crypto::Scheme;
use crate::net::{Exchange, FrameLimits, PeerListener, PeerNet, PeerNetConfig};
use crate::node::admit::{Admission, fresh_nonce};
use crate::node::bootstrap::standing_answerer;
use crate::node::bulk::{BulkJob, SendFrame, Shelf, bulk_thread};
use crate::node::checkpoint::{CheckpointJob, Checkpoints};
use crate::node::clock::Clock;
use crate::node::event::Event;
use crate::node::evidence::{EvidenceKeeper, EvidenceStore};
use crate::node::execute::Executor;
use crate::node::gates::Gates;
use crate::node::halt::{EXIT_HALTED, halt};
use crate::node::handle::{Handle, Inner, Services, Shared, Signals};
use crate::node::index::{IndexJob, IndexReader, index_thread};
use crate::node::intake::Intake;
use crate::node::lie::Liar;
use crate::node::members::{Links, Members, SharedEpochs, frame_sender};
use crate::node::metrics::Meters;
use crate::node::open::{Opened, data_directory, open};
use crate::node::pending::Pending;
use crate::node::persist::{LogJob, Persist, log_thread};
use crate::node::prune::Moved;
use crate::node::recover::Replayed;
use crate::node::reopen::{Ended, Life};
use crate::node::run::Replica;
use crate::node::scrub::Scrub;
use crate::node::transfer::{TransferJob, Transfers};
use crate::node::{NodeStatus, StartError, Tokens};
use crate::ordering::{Core, CoreConfig, Message};
use crate::state::State;
use crate::storage::disk::Disk;
use crate::storage::log::{BlockReader, Placed};
use crate::tls::{ExchangeTls, PeerTable, PeerTls};
use crate::types::ReplicaId;
use crate::watch::Ring;

/// Bytes that may wait for one peer: a few blocks; what does not fit is sent again by the protocol.
const PEER_QUEUE_BYTES: usize = 32 << 20;

/// Control messages: the largest is a NEW-VIEW.
pub(super) const CONTROL_FRAME_BYTES: usize = 1 << 20;

/// What a replica is made from. The caller has checked the genesis and the key.
pub struct NodeConfig {
    /// The network.
    pub genesis: Genesis,
    /// The file it is in, whose signatures members of a network of one owner may still ask for.
    pub founded: Option<GenesisFile>,
    /// This replica.
    pub own: ReplicaId,
    /// Where the snapshot lies that the genesis may name as the first state.
    pub initial: Option<PathBuf>,
    /// The newest network known beside the data directory's: who joins finds its peers in it.
    pub known: Option<Network>,
    /// Signs with its key.
    pub scheme: Arc<dyn Scheme>,
    /// Where log and checkpoints lie.
    pub data_directory: PathBuf,
    /// Nothing is acknowledged before it is on disk. False is for tests of one replica alone.
    pub waits_for_disk: bool,
    /// Bound sockets for peers; empty in a network of one.
    pub peer_listeners: Vec<PeerListener>,
    /// How strangers are met at https peer URLs.
    pub exchange: Arc<ExchangeTls>,
    /// Blocks older than this, in block time, leave the log; 0 for none.
    pub history_retention_ms: u64,
    /// Where links run.
    pub runtime: tokio::runtime::Handle,
}

/// A running replica.
pub struct Node {
    handle: Handle,
    events: Sender<Event>,
    protocol: JoinHandle<()>,
}

impl Node {
    /// Recovers and starts. Returns once the replica takes requests; whether it has a quorum is
    /// [`Handle::status`]'s to say.
    ///
    /// # Errors
    /// [`StartError`]; nothing was promised to anyone.
    pub fn start(config: NodeConfig) -> Result<Self, StartError> {
        let disk = data_directory(&config)?;
        let opened = open(&config, &disk, None)?;
        let (events, inbox) = channel();
        let later = Arc::new(OnceLock::new());
        let network = opened.replayed.state.network();
        let net = links(&config, network, (&events, &later))?;
        let (board, mut replica) = first_start(&config, opened, &events, (net.clone(), &disk))?;
        let handle = handle(&config, &board, events.clone(), net.clone());
        // Whoever asks to be let in from now on is.
        drop(later.set(handle.clone()));
        replica.begin();
        let life = Life { config, disk, events: events.clone(), net, board };
        let protocol = spawn("protocol", move || life.run(replica, &inbox))?;
        Ok(Self { handle, events, protocol })
    }

    /// The way in.
    #[must_use]
    pub fn handle(&self) -> Handle {
        self.handle.clone()
    }

    /// Stops the protocol thread; what was acknowledged is on disk already.
    pub fn stop(self) {
        drop(self.events.send(Event::Stop));
        drop(self.protocol.join());
    }
}

fn links(
    config: &NodeConfig,
    at_start: &Network,
    (events, later): (&Sender<Event>, &Arc<OnceLock<Handle>>),
) -> Result<Option<Links>, StartError> {
    if at_start.membership.members.len() == 1 && config.peer_listeners.is_empty() {
        return Ok(None);
    }
    let network = |error: &dyn core::fmt::Display| StartError::Network(error.to_string());
    let table = PeerTable::new(BTreeMap::new());
    let cluster_id = config.genesis.cluster_id();
    let tls = PeerTls::new(config.own, cluster_id, config.scheme.clone(), table.clone())
        .map_err(|error| network(&error))?;
    let listeners: Result<_, _> =
        config.peer_listeners.iter().map(PeerListener::try_clone).collect();
    let answerer = |file| standing_answerer(file, &*config.scheme, Arc::clone(later));
    let answerer = config.founded.as_ref().and_then(answerer);
    let net_config = PeerNetConfig {
        strangers: answerer.map(|answerer| Exchange { answerer, tls: config.exchange.clone() }),
        tls: Arc::new(tls),
        listeners: listeners.map_err(|error| network(&error))?,
        peers: Vec::new(),
        frame_limits: FrameLimits {
            control_bytes: CONTROL_FRAME_BYTES,
            bulk_bytes: Message::BYTES_MAX,
        },
        queue_bytes_max: PEER_QUEUE_BYTES,
        unsettled_bytes_max: PEER_QUEUE_BYTES,
    };
    let events = events.clone();
    let net = PeerNet::start(&config.runtime, net_config, move |event| {
        // The protocol thread is gone only while the process ends.
        drop(events.send(Event::Net(event)));
    });
    let net = Arc::new(net.map_err(|error| network(&error))?);
    let links = Links::new(net, table, config.own, config.known.clone());
    links.follow(at_start, &[]);
    Ok(Some(links))
}

/// What readers share with the protocol thread. It outlives a state that is replaced.
#[derive(Clone)]
pub(super) struct Board {
    pub(super) shared: Arc<RwLock<Shared>>,
    pub(super) status: Arc<RwLock<NodeStatus>>,
    pub(super) signals: Arc<Signals>,
    pub(super) applied: watch::Sender<i64>,
    pub(super) services: Arc<RwLock<Services>>,
    pub(super) epochs: SharedEpochs,
    pub(super) evidence: EvidenceKeeper,
    pub(super) certified: watch::Sender<Option<CheckpointCertificate>>,
}

impl Board {
    /// Readers reach no thread of the replica that ends, so that all of them can end.
    pub(super) fn disconnect(&self) {
        let mut services = self.services.write().unwrap_or_else(PoisonError::into_inner);
        services.bulk = channel().0;
        services.index = IndexReader(channel().0);
    }

    /// Readers see the new state, its events and its values from here on.
    fn replace(&self, state: State, services: Services) {
        let revision = state.kv.revision();
        let mut shared = self.shared.write().unwrap_or_else(PoisonError::into_inner);
        (shared.state, shared.ring) = (state, Ring::new(revision));
        *self.services.write().unwrap_or_else(PoisonError::into_inner) = services;
        drop(shared);
        self.applied.send_replace(revision.0);
    }
}

/// The threads behind the protocol thread, and the ends of what they listen to.
struct Threads {
    log: Sender<LogJob>,
    bulk: Sender<BulkJob>,
    transfers: Sender<TransferJob>,
    index: Sender<IndexJob>,
    checkpoints: Sender<CheckpointJob>,
    send: SendFrame,
    stop: Arc<AtomicBool>,
    joins: Vec<JoinHandle<()>>,
}

impl Threads {
    fn start(
        config: &NodeConfig,
        opened: &mut Opened,
        events: &Sender<Event>,
        (shared, net): (&Arc<RwLock<Shared>>, Option<Links>),
    ) -> Result<Self, StartError> {
        let (log, log_inbox) = channel();
        let (disk, log_events) = (opened.disk.clone(), events.clone());
        let mut joins = vec![spawn("log", move || log_thread(&disk, &log_inbox, &log_events))?];
        let send = frame_sender(net);
        let end = opened.appender.end();
        let reader = || BlockReader::new(opened.disk.clone(), opened.settings, end);
        let (bulk, bulk_inbox) = channel();
        let (pages, bulk_send) = (reader(), send.clone());
        let shelf = Shelf::new(opened.disk.clone(), config.genesis.cluster_id());
        let serve = move || bulk_thread(pages, shelf, &bulk_inbox, &bulk_send);
        joins.push(spawn("bulk", serve)?);
        let (transfers, transfer_inbox) = channel();
        let work = Transfers {
            disk: opened.disk.clone(),
            genesis: config.genesis.clone(),
            events: events.clone(),
        };
        joins.push(spawn("transfer", move || work.run(&transfer_inbox))?);
        let (index, index_inbox) = channel();
        if !opened.detached {
            joins.push(start_index_thread(config, reader(), end, index_inbox)?);
        }
        for (segment, block, effects) in core::mem::take(&mut opened.replayed.tail) {
            drop(index.send(IndexJob::Executed(segment, block, effects)));
        }
        let stop = Arc::new(AtomicBool::new(false));
        let work = Checkpoints {
            disk: opened.disk.clone(),
            cluster_id: config.genesis.cluster_id(),
            shared: shared.clone(),
            values: opened.values.clone(),
            settings: opened.settings,
            in_use: core::mem::take(&mut opened.in_use),
            moved: Moved::at(opened.base),
            stable: opened.stable.certified(),
            retention_ms: config.history_retention_ms,
            bulk: bulk.clone(),
            index: index.clone(),
            stop: stop.clone(),
        };
        let scrub =
            Scrub { disk: opened.disk.clone(), settings: opened.settings, stop: stop.clone() };
        let found = events.clone();
        if !opened.detached {
            joins.push(spawn_spare("scrub", move || scrub.run(&found))?);
        }
        let (checkpoints, jobs) = channel();
        let done = events.clone();
        joins.push(spawn("checkpoint", move || work.run(&jobs, &done))?);
        Ok(Self { log, bulk, transfers, index, checkpoints, send, stop, joins })
    }

    fn services(&self, opened: &Opened) -> Services {
        Services {
            bulk: self.bulk.clone(),
            index: IndexReader(self.index.clone()),
            values: Arc::new(opened.values.clone()),
            disk: opened.disk.clone(),
        }
    }
}

fn new_core(config: &NodeConfig, opened: &Opened) -> Core {
    Core::new(CoreConfig {
        cluster_id: config.genesis.cluster_id(),
        own: config.own,
        network: opened.replayed.network.clone(),
        epochs: opened.replayed.epochs.clone(),
        first: Network::of(&config.genesis),
        scheme: config.scheme.clone(),
        start_nonce: fresh_nonce(),
        genesis_ms: config.genesis.created_ms,
        genesis_root: opened.genesis_root,
        recovery: Some(opened.replayed.recovery.clone()),
    })
}

fn take_state(config: &NodeConfig, opened: &mut Opened) -> State {
    let state = core::mem::replace(&mut opened.replayed.state, State::genesis(&config.genesis));
    tracing::info!(
        event = "recovered",
        replayed = opened.replayed.replayed,
        height = state.counters.height.0,
        revision = state.kv.revision().0,
        "recovered"
    );
    state
}

fn first_start(
    config: &NodeConfig,
    mut opened: Opened,
    events: &Sender<Event>,
    (net, disk): (Option<Links>, &Arc<dyn Disk>),
) -> Result<(Board, Replica), StartError> {
    let state = take_state(config, &mut opened);
    let core = new_core(config, &opened);
    let revision = state.kv.revision();
    let (ring, tokens) = (Ring::new(revision), Tokens::new());
    let shared = Arc::new(RwLock::new(Shared { state, ring, tokens }));
    let threads = Threads::start(config, &mut opened, events, (&shared, net.clone()))?;
    let epochs: SharedEpochs = Arc::new(RwLock::new(opened.replayed.epochs.clone()));
    let board = Board {
        status: Arc::new(RwLock::new(NodeStatus::new(config.own, core.status()))),
        signals: Arc::new(Signals::default()),
        applied: watch::Sender::new(revision.0),
        services: Arc::new(RwLock::new(threads.services(&opened))),
        evidence: start_evidence_thread(config, disk, &epochs)?,
        certified: watch::Sender::new(None),
        epochs,
        shared,
    };
    let replica = replica(config, opened, core, (board.clone(), threads, net));
    Ok((board, replica))
}

/// Starts over on what the disk holds now: the state, its values and the threads are new; readers,
/// watchers and links to peers stay and see the new ones.
pub(super) fn start_again(life: &Life, mut opened: Opened) -> Result<Replica, StartError> {
    let config = &life.config;
    let state = take_state(config, &mut opened);
    let core = new_core(config, &opened);
    let board = &life.board;
    let threads =
        Threads::start(config, &mut opened, &life.events, (&board.shared, life.net.clone()))?;
    board.replace(state, threads.services(&opened));
    let mut epochs = board.epochs.write().unwrap_or_else(PoisonError::into_inner);
    epochs.clone_from(&opened.replayed.epochs);
    drop(epochs);
    Ok(replica(config, opened, core, (board.clone(), threads, life.net.clone())))
}

fn handle(config: &NodeConfig, board: &Board, events: Sender<Event>, net: Option<Links>) -> Handle {
    let net = net.map(|links| links.net.clone());
    let cutting = net.clone();
    let cut = move |cut| {
        if let Some(net) = &cutting {
            net.cut(cut);
        }
    };
    let inner = Inner {
        events,
        services: board.services.clone(),
        evidence: board.evidence.store.clone(),
        shared: board.shared.clone(),
        applied: board.applied.subscribe(),
        status: board.status.clone(),
        signals: board.signals.clone(),
        genesis: Arc::new(config.genesis.clone()),
        own: config.own,
        cut: Box::new(cut),
        epochs: board.epochs.clone(),
        certified: board.certified.subscribe(),
        backups: Arc::new(Semaphore::new(1)),
        exchange: Arc::clone(&config.exchange),
        net,
    };
    Handle { inner: Arc::new(inner) }
}

fn replica(
    config: &NodeConfig,
    opened: Opened,
    core: Core,
    (board, threads, links): (Board, Threads, Option<Links>),
) -> Replica {
    let Replayed { recovery, placed, quarantined, fenced, network, .. } = opened.replayed;
    board.certified.send_replace(recovery.stable);
    let executor = Executor {
        own: config.own,
        shared: board.shared,
        values: opened.values,
        header: recovery.tip,
        exec_roots: recovery.exec_roots,
        checkpoints: threads.checkpoints,
        checkpoints_running: 0,
        checkpoints_waiting: Gates::new(recovery.log_end),
        checkpoint: opened.base,
        index: threads.index,
        unplanned: VecDeque::new(),
        puts: 0,
        deletes: 0,
    };
    let (cluster_id, scheme) = (config.genesis.cluster_id(), config.scheme.clone());
    let (others, voters) = (Vec::new(), Vec::new());
    let liar = config.genesis.demo.then(|| Liar::new(config.own, cluster_id, scheme.clone()));
    Replica {
        members: Members {
            own: config.own,
            others,
            voters,
            links,
            epochs: board.epochs,
            left_ms: None,
            ends_at: None,
            linked_ms: BTreeMap::new(),
        },
        scheme: scheme.clone(),
        place: core.place(),
        core,
        admission: Admission::new(config.own, cluster_id, scheme, opened.session),
        pending: Pending::default(),
        gates: Gates::new(recovery.log_end),
        persist: Persist::new(opened.appender, threads.log, placed),
        executor,
        send: threads.send,
        evidence: board.evidence.found,
        liar,
        intake: Intake::default(),
        complained_ms: 0,
        bulk: threads.bulk,
        transfers: threads.transfers,
        clock: Clock::start(),
        status: board.status,
        signals: board.signals,
        meters: Meters::new(&network, config.own),
        applied: board.applied,
        certified: board.certified,
        barriers: Vec::new(),
        bundles: BTreeMap::new(),
        outputs: Vec::new(),
        quarantined,
        healing: fenced.clone(),
        fenced,
        up: BTreeSet::new(),
        ended: Ended::Stopped,
        stop: threads.stop,
        joins: threads.joins,
        status_at_ms: 0,
        stable: opened.stable,
        open_segment: 0,
        stop_at_ms: None,
    }
}

fn start_evidence_thread(
    config: &NodeConfig,
    disk: &Arc<dyn Disk>,
    epochs: &SharedEpochs,
) -> Result<EvidenceKeeper, StartError> {
    let cluster_id = config.genesis.cluster_id();
    let store = EvidenceStore::open(Arc::clone(disk), cluster_id, Arc::clone(epochs));
    let store = Arc::new(store);
    let (found, inbox) = channel();
    let keeper = Arc::clone(&store);
    drop(spawn_spare("evidence", move || keeper.run(&inbox))?);
    Ok(EvidenceKeeper { store, found })
}

fn start_index_thread(
    config: &NodeConfig,
    reader: BlockReader,
    end: Placed,
    inbox: Receiver<IndexJob>,
) -> Result<JoinHandle<()>, StartError> {
    let directory = config.data_directory.clone();
    let cluster_id = config.genesis.cluster_id();
    spawn_spare("index", move || index_thread(&directory, cluster_id, reader, end, &inbox))
}

/// A thread the replica cannot be without: if it panics, an invariant is broken and the process ends.
fn spawn(name: &str, body: impl FnOnce() + Send + 'static) -> Result<JoinHandle<()>, StartError> {
    spawn_spare(name, move || {
        if catch_unwind(AssertUnwindSafe(body)).is_err() {
            halt(EXIT_HALTED, "a thread panicked; the message above says where");
        }
    })
}

/// A thread whose end costs nothing that cannot be rebuilt.
fn spawn_spare(
    name: &str,
    body: impl FnOnce() + Send + 'static,
) -> Result<JoinHandle<()>, StartError> {
    std::thread::Builder::new()
        .name(name.to_owned())
        .spawn(body)
        .map_err(|error| StartError::System(format!("no thread for {name}: {error}")))
}
