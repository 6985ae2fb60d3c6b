//! The view this replica is in, its chain there, and the view change it may be in.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use crate::chain::Vote;
use crate::ordering::blocks::{Tip, Windows};
use crate::ordering::{NewView, ViewChange};
use crate::types::{Digest, Height, LogPosition, ReplicaId, View};

/// A NEW-VIEW that holds, while blocks of its base are missing here.
pub(super) struct Waiting {
    pub view: View,
    pub new_view: Arc<NewView>,
    pub base: (Height, Digest),
    /// Who signed for the base and should have it.
    pub holders: Vec<ReplicaId>,
}

/// One linear chain per view: the base, then what its primary proposed (protocol.md 4).
pub(super) struct ViewState {
    /// The newest view entered. Its record is at `entered_position`.
    pub entered: View,
    pub entered_position: LogPosition,
    /// The view asked for by the own VIEW-CHANGE, above `entered`; none in normal mode.
    pub pending: Option<View>,
    /// This replica leads the view and ends it as soon as nothing is in flight.
    pub leaving: bool,
    /// Entered by this process: only then may it propose (R1).
    pub fresh: bool,
    pub base: (Height, Digest),
    /// The own chain from the base on; the base is there if it is above height 0.
    pub chain: BTreeMap<Height, Digest>,
    pub tip: Tip,
    /// Every origin's window after `tip`.
    pub windows: Windows,
    /// The lowest height this replica has not voted for in this view, by phase. Never falls: this is
    /// the ledger of one vote per (view, height, phase).
    pub prepare_next: Height,
    pub commit_next: Height,
    /// Own votes of this view above the committed height, to be sent again.
    pub own_votes: Vec<Vote>,
    /// What ReadIndex answers: no height above it was committed with this replica's help.
    pub mark: Height,
    /// The newest VIEW-CHANGE of each replica, for views above `entered`.
    pub view_changes: BTreeMap<ReplicaId, Arc<ViewChange>>,
    /// The own VIEW-CHANGE and the position of its record.
    pub own_view_change: Option<(Arc<ViewChange>, LogPosition)>,
    /// What began `entered`, for replicas that missed it.
    pub new_view: Option<Arc<NewView>>,
    pub waiting: Option<Waiting>,
    /// A proposal refused for its root: prepared elsewhere, it means this replica has diverged.
    pub refused_roots: BTreeSet<(View, Height, Digest)>,
    /// View changes since the last commit of client requests.
    pub failures: u32,
    /// When `entered` was entered.
    pub since_ms: u64,
    /// When a block last committed, or the first one came to be in flight.
    pub progress_ms: u64,
    /// When the own VIEW-CHANGE is sent again.
    pub repeat_ms: u64,
    /// When `pending` is given up; runs only while q replicas ask for it or more.
    pub give_up_ms: Option<u64>,
}

impl ViewState {
    pub fn new(entered: View, base: (Height, Digest), tip: Tip, windows: Windows) -> Self {
        Self {
            entered,
            entered_position: LogPosition(0),
            pending: None,
            leaving: false,
            fresh: false,
            base,
            chain: BTreeMap::new(),
            tip,
            windows,
            prepare_next: base.0.next(),
            commit_next: base.0.next(),
            own_votes: Vec::new(),
            mark: Height(0),
            view_changes: BTreeMap::new(),
            own_view_change: None,
            new_view: None,
            waiting: None,
            refused_roots: BTreeSet::new(),
            failures: 0,
            since_ms: 0,
            progress_ms: 0,
            repeat_ms: 0,
            give_up_ms: None,
        }
    }

    /// The highest view this replica has entered or asked for: it votes in none below.
    pub fn highest(&self) -> View {
        self.pending.map_or(self.entered, |pending| pending.max(self.entered))
    }
}
