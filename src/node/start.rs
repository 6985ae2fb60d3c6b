//! Brings a replica up: data directory, recovery, threads, links.

use std::collections::{BTreeMap, VecDeque};
use std::net::TcpListener;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::PathBuf;
use std::sync::mpsc::{Receiver, Sender, channel};
use std::sync::{Arc, RwLock};
use std::thread::JoinHandle;

use tokio::sync::watch;

use crate::chain::{Genesis, Record};
use crate::crypto::Scheme;
use crate::net::{FrameLimits, PeerAddress, PeerNet, PeerNetConfig};
use crate::node::admit::Admission;
use crate::node::bulk::{BulkJob, SendFrame, bulk_thread};
use crate::node::checkpoint::{CheckpointJob, Checkpoints};
use crate::node::clock::Clock;
use crate::node::event::Event;
use crate::node::execute::Executor;
use crate::node::gates::Gates;
use crate::node::halt::{EXIT_HALTED, halt};
use crate::node::handle::{Handle, Inner, Shared, Signals};
use crate::node::index::{IndexJob, IndexReader, index_thread};
use crate::node::metrics::Meters;
use crate::node::pending::Pending;
use crate::node::persist::{LogJob, Persist, log_thread};
use crate::node::recover::{Base, Replay, Replayed};
use crate::node::run::Replica;
use crate::node::values::SharedValues;
use crate::node::{NodeStatus, StartError};
use crate::ordering::{Core, CoreConfig, Message};
use crate::state::{KeptChunk, Restore, State};
use crate::storage::checkpoint::{self, Checkpoint};
use crate::storage::disk::Disk;
use crate::storage::disk::os::OsDisk;
use crate::storage::identity::claim;
use crate::storage::log::{BlockReader, LogSettings, Placed, ReplayMark, recover};
use crate::storage::values::Values;
use crate::tls::{PeerTable, PeerTls};
use crate::types::{Height, LogPosition, ReplicaId};
use crate::watch::Ring;

/// Bytes that may wait for one peer: a few blocks; what does not fit is sent again by the protocol.
const PEER_QUEUE_BYTES: usize = 32 << 20;

/// Control messages: the largest is a NEW-VIEW.
const CONTROL_FRAME_BYTES: usize = 1 << 20;

/// What a replica is made from. The caller has checked the genesis and the key.
pub struct NodeConfig {
    /// The network.
    pub genesis: Genesis,
    /// This replica.
    pub own: ReplicaId,
    /// Signs with its key.
    pub scheme: Arc<dyn Scheme>,
    /// Where log and checkpoints lie.
    pub data_directory: PathBuf,
    /// Bound sockets for peers; empty in a network of one.
    pub peer_listeners: Vec<TcpListener>,
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
        let opened = open(&config)?;
        let (events, inbox) = channel();
        let links = links(&config, &events)?;
        let (handle, replica) = assemble(&config, opened, &events, links)?;
        let protocol = spawn("protocol", move || replica.run(&inbox))?;
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

/// What recovery leaves behind.
struct Opened {
    disk: Arc<dyn Disk>,
    settings: LogSettings,
    appender: crate::storage::log::Appender,
    values: SharedValues,
    replayed: Replayed,
    session: u64,
    genesis_root: crate::types::Digest,
    /// Checkpoint files that values are read from.
    in_use: Vec<u32>,
    /// Height of the checkpoint that was restored.
    base: Height,
}

fn open(config: &NodeConfig) -> Result<Opened, StartError> {
    let cluster_id = config.genesis.cluster_id();
    let disk = OsDisk::open(&config.data_directory)
        .map_err(|error| StartError::Data(format!("the data directory cannot be used: {error}")))?;
    let disk: Arc<dyn Disk> = Arc::new(disk);
    claim(disk.as_ref(), &cluster_id, config.own)
        .map_err(|error| StartError::Data(error.to_string()))?;
    let salt = crate::node::admit::fresh_salt();
    let settings = LogSettings::new(cluster_id, config.own, salt);
    let values = SharedValues::new(Values::new(disk.clone()));
    let state = State::genesis(&config.genesis);
    let genesis_root = state.exec_root();
    let (mut mark, mut in_use) = (ReplayMark::start(), Vec::new());
    let mut base = Base { state, header: None, exec_roots: vec![(Height(0), genesis_root)] };
    if let Some((checkpoint, state)) = restore(&disk, &config.genesis)? {
        in_use = checkpoint.files();
        mark = checkpoint.replay;
        let (header, exec_roots) = (Some(checkpoint.header), checkpoint.exec_roots);
        base = Base { state, header, exec_roots };
    }
    let base_height = base.header.as_ref().map_or(Height(0), |header| header.height);
    let mut replay = Replay::new(base, &values, config.own);
    for (_, record) in mark.carried.records() {
        replay.note(Placed::default(), record);
    }
    let recovered = recover(disk.as_ref(), &settings, mark, &mut |_, placed, record| {
        replay.note(placed, record);
    })
    .map_err(|error| StartError::Recovery(error.to_string()))?;
    if recovered.cut_bytes > 0 {
        tracing::info!(
            event = "torn_tail",
            bytes = recovered.cut_bytes,
            "cut a torn tail of the log; nothing in it was promised"
        );
    }
    let mut appender = recovered.appender;
    let session = replay.session() + 1;
    let log_end = start_session(disk.as_ref(), &mut appender, recovered.log_end, session)?;
    let replayed = replay.finish(log_end).map_err(StartError::Recovery)?;
    Ok(Opened {
        disk,
        settings,
        appender,
        values,
        replayed,
        session,
        genesis_root,
        in_use,
        base: base_height,
    })
}

/// The newest checkpoint that is whole, and the state in it.
fn restore(
    disk: &Arc<dyn Disk>,
    genesis: &Genesis,
) -> Result<Option<(Checkpoint, State)>, StartError> {
    let said = |error: &dyn core::fmt::Display| StartError::Recovery(error.to_string());
    let (found, damaged) =
        checkpoint::newest(disk, &genesis.cluster_id()).map_err(|error| said(&error))?;
    for error in damaged {
        tracing::warn!(event = "damaged_checkpoint", "{error}");
    }
    let Some(found) = found else { return Ok(None) };
    let mut restore = Restore::new(genesis);
    for chunk in found.chunks(disk) {
        let chunk = chunk.map_err(|error| said(&error))?;
        let (segment, base) = (chunk.place.segment(), chunk.place.base);
        let kept = KeptChunk { bytes: chunk.bytes, segment, base };
        restore.push(&kept).map_err(|error| said(&error))?;
    }
    let state = restore.finish().map_err(|error| said(&error))?;
    if state.exec_root() != found.manifest.exec_root {
        return Err(said(&format_args!(
            "the checkpoint at height {} gives root {}, its manifest says {}; \
             run `althing replica repair`",
            found.manifest.height,
            state.exec_root(),
            found.manifest.exec_root
        )));
    }
    Ok(Some((found, state)))
}

/// A session's counter is durable before its first bundle, so that no sequence number is used twice.
fn start_session(
    disk: &dyn Disk,
    appender: &mut crate::storage::log::Appender,
    log_end: LogPosition,
    session: u64,
) -> Result<LogPosition, StartError> {
    let position = log_end.next();
    appender.append(position, &Record::Session { counter: session });
    let batch = appender.take_batch().expect("a record was appended");
    batch.write(disk).map_err(|error| StartError::Data(error.to_string()))?;
    Ok(position)
}

fn links(config: &NodeConfig, events: &Sender<Event>) -> Result<Option<Arc<PeerNet>>, StartError> {
    let members = &config.genesis.members;
    if members.len() == 1 {
        return Ok(None);
    }
    let network = |error: &dyn core::fmt::Display| StartError::Network(error.to_string());
    let table = PeerTable::new(members.iter().map(|member| (member.id, member.key)).collect());
    let cluster_id = config.genesis.cluster_id();
    let tls = PeerTls::new(config.own, cluster_id, config.scheme.clone(), table)
        .map_err(|error| network(&error))?;
    let mut listeners = Vec::new();
    for listener in &config.peer_listeners {
        listeners.push(listener.try_clone().map_err(|error| network(&error))?);
    }
    let peers = members
        .iter()
        .filter(|member| member.id != config.own)
        .map(|member| PeerAddress {
            id: member.id,
            name: member.name.clone(),
            label: format!("{:x}", member.id.0),
            address: member.peer_address.clone(),
        })
        .collect();
    let net_config = PeerNetConfig {
        tls: Arc::new(tls),
        listeners,
        peers,
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
    net.map(|net| Some(Arc::new(net))).map_err(|error| network(&error))
}

/// What readers share with the protocol thread.
struct Board {
    shared: Arc<RwLock<Shared>>,
    status: Arc<RwLock<NodeStatus>>,
    signals: Arc<Signals>,
    applied: watch::Sender<i64>,
}

impl Board {
    fn new(own: ReplicaId, state: State, core: &Core) -> Self {
        let revision = state.kv.revision();
        Self {
            shared: Arc::new(RwLock::new(Shared { state, ring: Ring::new(revision) })),
            status: Arc::new(RwLock::new(NodeStatus::new(own, core.status()))),
            signals: Arc::new(Signals::default()),
            applied: watch::Sender::new(revision.0),
        }
    }
}

/// The ends of the threads behind the protocol thread.
struct Threads {
    log: Sender<LogJob>,
    bulk: Sender<BulkJob>,
    index: Sender<IndexJob>,
    checkpoints: Sender<CheckpointJob>,
    send: SendFrame,
}

impl Threads {
    fn start(
        config: &NodeConfig,
        opened: &mut Opened,
        events: &Sender<Event>,
        (board, net): (&Board, Option<Arc<PeerNet>>),
    ) -> Result<Self, StartError> {
        let (log, log_inbox) = channel();
        start_log_thread(opened.disk.clone(), log_inbox, events.clone())?;
        let send = frame_sender(net);
        let end = opened.appender.end();
        let reader = || BlockReader::new(opened.disk.clone(), opened.settings, end);
        let (bulk, bulk_inbox) = channel();
        let (pages, bulk_send) = (reader(), send.clone());
        spawn("bulk", move || bulk_thread(pages, &bulk_inbox, &bulk_send))?;
        let index = start_index_thread(config, reader(), end)?;
        for (segment, block, effects) in core::mem::take(&mut opened.replayed.tail) {
            drop(index.send(IndexJob::Executed(segment, block, effects)));
        }
        let checkpoints = Checkpoints {
            disk: opened.disk.clone(),
            cluster_id: config.genesis.cluster_id(),
            shared: board.shared.clone(),
            values: opened.values.clone(),
            in_use: core::mem::take(&mut opened.in_use),
        };
        let checkpoints = start_checkpoint_thread(checkpoints, events.clone())?;
        Ok(Self { log, bulk, index, checkpoints, send })
    }
}

fn assemble(
    config: &NodeConfig,
    mut opened: Opened,
    events: &Sender<Event>,
    net: Option<Arc<PeerNet>>,
) -> Result<(Handle, Replica), StartError> {
    let state = core::mem::replace(&mut opened.replayed.state, State::genesis(&config.genesis));
    tracing::info!(
        event = "recovered",
        replayed = opened.replayed.replayed,
        height = state.counters.height.0,
        revision = state.kv.revision().0,
        "recovered"
    );
    let core = Core::new(CoreConfig {
        cluster_id: config.genesis.cluster_id(),
        own: config.own,
        membership: config.genesis.membership(),
        scheme: config.scheme.clone(),
        start_nonce: fresh_nonce(),
        genesis_ms: config.genesis.created_ms,
        genesis_root: opened.genesis_root,
        recovery: Some(opened.replayed.recovery.clone()),
    });
    let board = Board::new(config.own, state, &core);
    let threads = Threads::start(config, &mut opened, events, (&board, net.clone()))?;
    let cut = move |cut| {
        if let Some(net) = &net {
            net.cut(cut);
        }
    };
    let inner = Inner {
        events: events.clone(),
        bulk: threads.bulk.clone(),
        shared: board.shared.clone(),
        values: Arc::new(opened.values.clone()),
        applied: board.applied.subscribe(),
        status: board.status.clone(),
        signals: board.signals.clone(),
        genesis: Arc::new(config.genesis.clone()),
        own: config.own,
        index: IndexReader(threads.index.clone()),
        cut: Box::new(cut),
    };
    let replica = replica(config, opened, core, (board, threads));
    Ok((Handle { inner: Arc::new(inner) }, replica))
}

fn replica(
    config: &NodeConfig,
    opened: Opened,
    core: Core,
    (board, threads): (Board, Threads),
) -> Replica {
    let Replayed { recovery, placed, quarantined, fenced, .. } = opened.replayed;
    let executor = Executor {
        own: config.own,
        shared: board.shared,
        values: opened.values,
        header: recovery.tip,
        exec_roots: recovery.exec_roots.into(),
        window: config.genesis.parameters.window as usize,
        checkpoints: threads.checkpoints,
        checkpoint_running: false,
        checkpoint: opened.base,
        index: threads.index,
        unplanned: VecDeque::new(),
    };
    let (cluster_id, scheme) = (config.genesis.cluster_id(), config.scheme.clone());
    let members = config.genesis.members.iter().map(|member| member.id);
    Replica {
        others: members.filter(|id| *id != config.own).collect(),
        core,
        admission: Admission::new(config.own, cluster_id, scheme, opened.session),
        pending: Pending::default(),
        gates: Gates::new(recovery.log_end),
        persist: Persist::new(opened.appender, threads.log, placed),
        executor,
        send: threads.send,
        bulk: threads.bulk,
        clock: Clock::start(),
        status: board.status,
        signals: board.signals,
        meters: Meters::new(&config.genesis, config.own),
        applied: board.applied,
        barriers: Vec::new(),
        bundles: BTreeMap::new(),
        outputs: Vec::new(),
        quarantined,
        fenced,
        status_at_ms: 0,
    }
}

fn start_log_thread(
    disk: Arc<dyn Disk>,
    inbox: Receiver<LogJob>,
    events: Sender<Event>,
) -> Result<(), StartError> {
    spawn("log", move || log_thread(&disk, &inbox, &events)).map(drop)
}

fn start_checkpoint_thread(
    checkpoints: Checkpoints,
    events: Sender<Event>,
) -> Result<Sender<CheckpointJob>, StartError> {
    let (jobs, inbox) = channel();
    spawn("checkpoint", move || checkpoints.run(&inbox, &events))?;
    Ok(jobs)
}

fn start_index_thread(
    config: &NodeConfig,
    reader: BlockReader,
    end: Placed,
) -> Result<Sender<IndexJob>, StartError> {
    let (jobs, inbox) = channel();
    let directory = config.data_directory.clone();
    let cluster_id = config.genesis.cluster_id();
    spawn_spare("index", move || index_thread(&directory, cluster_id, reader, end, &inbox))?;
    Ok(jobs)
}

fn frame_sender(net: Option<Arc<PeerNet>>) -> SendFrame {
    Arc::new(move |peer, frame, lane| {
        if let Some(net) = &net {
            // A frame that finds no room is lost like one on the wire: the protocol sends again.
            let _queued = net.send(peer, frame, lane);
        }
    })
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

fn fresh_nonce() -> [u8; 32] {
    let mut nonce = [0; 32];
    getrandom::fill(&mut nonce).expect("the system's random source answers once it is seeded");
    nonce
}
