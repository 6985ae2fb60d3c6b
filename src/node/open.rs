//! From a data directory to what the threads start with; damage ends in quarantine, not in a refusal.

use std::sync::Arc;

use crate::chain::{Genesis, Record};
use crate::node::initial::initial_state;
use crate::node::quarantine::{NoDisk, damaged_log};
use crate::node::recover::{Base, Replay, Replayed};
use crate::node::repair;
use crate::node::stable::Stable;
use crate::node::values::SharedValues;
use crate::node::{NodeConfig, StartError};
use crate::state::{KeptChunk, Restore, State};
use crate::storage::checkpoint::{self, Checkpoint, CheckpointError};
use crate::storage::disk::os::OsDisk;
use crate::storage::disk::{Disk, DiskErrorKind};
use crate::storage::identity::claim;
use crate::storage::log::{Appender, LogError, LogSettings, Placed, ReplayMark, recover};
use crate::storage::values::Values;
use crate::types::{Digest, Height, LogPosition};

/// What recovery leaves behind.
pub(super) struct Opened {
    pub(super) disk: Arc<dyn Disk>,
    pub(super) settings: LogSettings,
    pub(super) appender: Appender,
    pub(super) values: SharedValues,
    pub(super) replayed: Replayed,
    pub(super) session: u64,
    pub(super) genesis_root: Digest,
    /// Checkpoint files that values are read from.
    pub(super) in_use: Vec<u32>,
    /// Height of the checkpoint that was restored.
    pub(super) base: Height,
    pub(super) stable: Stable,
    /// Nothing of the directory can be used: no thread may write there.
    pub(super) detached: bool,
}

/// Why the directory's content gives no state.
enum OpenError {
    /// Something that was promised is damaged or gone: quarantine (protocol.md 19.1).
    Damaged(String),
    /// Nothing is known to be damaged: the process does not start.
    Refused(StartError),
}

impl From<LogError> for OpenError {
    fn from(error: LogError) -> Self {
        if error.is_damage() {
            Self::Damaged(error.to_string())
        } else {
            Self::Refused(StartError::Recovery(error.to_string()))
        }
    }
}

impl From<CheckpointError> for OpenError {
    fn from(error: CheckpointError) -> Self {
        match &error {
            CheckpointError::Disk(disk) if disk.kind == DiskErrorKind::Failed => {
                Self::Damaged(error.to_string())
            }
            _ => Self::Refused(StartError::Recovery(error.to_string())),
        }
    }
}

/// Takes the data directory for as long as the process runs.
pub(super) fn data_directory(config: &NodeConfig) -> Result<Arc<dyn Disk>, StartError> {
    let disk = OsDisk::open(&config.data_directory)
        .map_err(|error| StartError::Data(format!("the data directory cannot be used: {error}")))?;
    let disk = if config.waits_for_disk { disk } else { disk.without_waiting() };
    claim(&disk, &config.genesis.cluster_id(), config.own)
        .map_err(|error| StartError::Data(error.to_string()))?;
    Ok(Arc::new(disk))
}

/// Reads everything back. Damage is no error: what comes back then is quarantined, serves no key and
/// writes nothing, until `althing replica repair`.
/// `restored` is a state that was just installed, so that it is not read again.
pub(super) fn open(
    config: &NodeConfig,
    disk: &Arc<dyn Disk>,
    restored: Option<(Checkpoint, State)>,
) -> Result<Opened, StartError> {
    repair::complete(disk.as_ref(), &settings(config))
        .map_err(|error| StartError::Data(format!("the repair cannot go on: {error}")))?;
    match open_whole(config, disk, restored) {
        Ok(opened) => Ok(opened),
        Err(OpenError::Refused(error)) => Err(error),
        Err(OpenError::Damaged(reason)) => Ok(open_damaged(config, reason)),
    }
}

fn settings(config: &NodeConfig) -> LogSettings {
    let salt = crate::node::admit::fresh_salt();
    LogSettings::new(config.genesis.cluster_id(), config.own, salt)
}

fn open_whole(
    config: &NodeConfig,
    disk: &Arc<dyn Disk>,
    restored: Option<(Checkpoint, State)>,
) -> Result<Opened, OpenError> {
    let settings = settings(config);
    let values = SharedValues::new(Values::new(disk.clone()));
    let restored = match restored {
        Some(restored) => Some(restored),
        None => restore(disk, &config.genesis)?,
    };
    let (state, mut in_use) = match &restored {
        Some(_) => (State::genesis(&config.genesis), Vec::new()),
        None => initial_state(&config.genesis, config.initial.as_deref(), disk)
            .map_err(|why| OpenError::Refused(StartError::Data(why)))?,
    };
    let genesis_root = state.exec_root();
    let mut mark = ReplayMark::start();
    let mut base = Base { state, header: None, exec_roots: vec![(Height(0), genesis_root)] };
    let held = checkpoint::candidates(disk.as_ref(), &config.genesis.cluster_id())?.whole;
    let held: Vec<Height> = held.iter().map(|one| one.manifest.height).collect();
    let mut checkpoints = Vec::new();
    if let Some((checkpoint, state)) = restored {
        checkpoints.push(checkpoint.manifest.id());
        in_use = checkpoint.files();
        mark = checkpoint.replay;
        let (header, exec_roots) = (Some(checkpoint.header), checkpoint.manifest.exec_roots);
        base = Base { state, header, exec_roots };
    }
    let base_height = base.header.as_ref().map_or(Height(0), |header| header.height);
    let mut replay = Replay::new(base, &values, config.own);
    for (_, record) in mark.carried.records() {
        replay.note(Placed::default(), record);
    }
    let recovered = recover(disk.as_ref(), &settings, mark, &mut |_, placed, record| {
        replay.note(placed, record);
    })?;
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
    let mut replayed = replay.finish(log_end).map_err(OpenError::Damaged)?;
    let stable = Stable::recovered(held, replayed.stable.iter().copied());
    replayed.recovery.checkpoints = checkpoints;
    Ok(Opened {
        disk: disk.clone(),
        settings,
        appender,
        values,
        replayed,
        session,
        genesis_root,
        in_use,
        base: base_height,
        stable,
        detached: false,
    })
}

/// A replica that is up to say what is wrong, and does nothing else: its directory stays as it was
/// found, evidence for whoever looks.
fn open_damaged(config: &NodeConfig, reason: String) -> Opened {
    tracing::error!(event = "quarantine", "{reason}");
    let disk: Arc<dyn Disk> = Arc::new(NoDisk);
    let values = SharedValues::new(Values::new(disk.clone()));
    let state = State::genesis(&config.genesis);
    let genesis_root = state.exec_root();
    let settings = settings(config);
    let base = Base { state, header: None, exec_roots: vec![(Height(0), genesis_root)] };
    let mut replay = Replay::new(base, &values, config.own);
    replay.note(Placed::default(), Record::Quarantined { reason: reason.into_bytes().into() });
    let replayed = replay.finish(LogPosition(0)).expect("nothing was executed, so nothing failed");
    Opened {
        appender: damaged_log(settings),
        disk,
        settings,
        values,
        replayed,
        session: 0,
        genesis_root,
        in_use: Vec::new(),
        base: Height(0),
        stable: Stable::default(),
        detached: true,
    }
}

/// The newest checkpoint that is whole, and the state in it. One whose chunks are whole and whose
/// state has another root than its manifest says is passed over like a damaged one.
fn restore(
    disk: &Arc<dyn Disk>,
    genesis: &Genesis,
) -> Result<Option<(Checkpoint, State)>, OpenError> {
    let found = checkpoint::candidates(disk.as_ref(), &genesis.cluster_id())?;
    for error in found.damaged {
        tracing::warn!(event = "damaged_checkpoint", "{error}");
    }
    for checkpoint in found.whole {
        match restore_from(disk, genesis, &checkpoint) {
            Ok(state) => return Ok(Some((checkpoint, state))),
            Err(why) => tracing::warn!(event = "damaged_checkpoint", "{why}"),
        }
    }
    Ok(None)
}

/// The state in a checkpoint: chunks checked against the manifest, the root recomputed.
///
/// # Errors
/// What is wrong with it.
pub(super) fn restore_from(
    disk: &Arc<dyn Disk>,
    genesis: &Genesis,
    checkpoint: &Checkpoint,
) -> Result<State, String> {
    let mut restore = Restore::new(genesis);
    for chunk in checkpoint.chunks(disk) {
        let chunk = chunk.map_err(|error| error.to_string())?;
        let (segment, base) = (chunk.place.segment(), chunk.place.base);
        let kept = KeptChunk { bytes: chunk.bytes, segment, base };
        restore.push(&kept).map_err(|error| error.to_string())?;
    }
    let state = restore.finish().map_err(|error| error.to_string())?;
    if state.exec_root() != checkpoint.manifest.exec_root {
        return Err(format!(
            "the checkpoint at height {} gives root {}, its manifest says {}",
            checkpoint.manifest.height,
            state.exec_root(),
            checkpoint.manifest.exec_root
        ));
    }
    Ok(state)
}

/// A session's counter is durable before its first bundle, so that no sequence number is used twice.
fn start_session(
    disk: &dyn Disk,
    appender: &mut Appender,
    log_end: LogPosition,
    session: u64,
) -> Result<LogPosition, OpenError> {
    let position = log_end.next();
    appender.append(position, &Record::Session { counter: session });
    let batch = appender.take_batch().expect("a record was appended");
    batch.write(disk).map_err(|error| OpenError::Refused(StartError::Data(error.to_string())))?;
    Ok(position)
}
