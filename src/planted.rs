//! Bugs put in on purpose, one at a time, so that the tests can be tested (docs/testing.md, "Planted
//! bugs"): each must be found by at least one layer of them.
//!
//! Without the feature `planted` every question is answered "no" at compile time, so a release holds
//! none of them.

macro_rules! bugs {
    ($($(#[$doc:meta])* $bug:ident = $name:literal,)*) => {
        /// A bug that can be put in; its name says what then goes wrong.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
        #[repr(u8)]
        pub enum Bug {
            $($(#[$doc])* $bug,)*
        }

        impl Bug {
            /// All, with the names that select them.
            pub const ALL: &[(&str, Self)] = &[$(($name, Self::$bug),)*];
        }
    };
}

bugs! {
    /// M1: a vote counts and leaves before what it promises is durable.
    VoteBeforeDurable = "vote-before-durable",
    /// M2: the base of a view is the highest certificate, not that of the highest view.
    WinnerByHeight = "winner-by-height",
    /// M3: one vote less than a quorum decides.
    SmallQuorum = "small-quorum",
    /// M4: a second block of one view and height gets a PREPARE too.
    TwoBlocksPerHeight = "two-blocks-per-height",
    /// M5: votes go on in a view that was left.
    VoteAfterViewChange = "vote-after-view-change",
    /// M6: a PREPARE does not wait for its block.
    UngatedPrepare = "ungated-prepare",
    /// A VIEW-CHANGE shows no prepared certificate.
    ViewChangeWithoutCertificate = "view-change-without-certificate",
    /// What is inside a NEW-VIEW is believed.
    NewViewUnchecked = "new-view-unchecked",
    /// One voter may sign a certificate twice.
    DuplicateSigner = "duplicate-signer",
    /// Signatures are checked as batches check them.
    LaxVerify = "lax-verify",
    /// Signed bytes leave the epoch out.
    EpochUnsigned = "epoch-unsigned",
    /// Damage inside the log is cut off like a torn tail.
    MidLogTruncation = "mid-log-truncation",
    /// A sync that failed is tried again.
    RetriedSync = "retried-sync",
    /// Leases expire in the order of a hash map.
    HashOrder = "hash-order",
    /// Leases expire by the own clock.
    LocalLeaseClock = "local-lease-clock",
    /// A read asked again keeps its nonce.
    ReusedReadNonce = "reused-read-nonce",
    /// A checkpoint forgets which requests were done.
    SessionsLost = "sessions-lost",
    /// A chunk of a checkpoint is taken as it is.
    ChunkUnchecked = "chunk-unchecked",
    /// A restarted primary proposes in the view it led before.
    ProposesAgain = "proposes-again",
    /// A replica on an empty or older log votes at once.
    FenceSkipped = "fence-skipped",
    /// A restart forgets that the replica is fenced.
    FenceForgotten = "fence-forgotten",
    /// The fence is left at the next commit, whatever it is about.
    FenceWithoutNonce = "fence-without-nonce",
    /// The fence is left at a commit above all heights that others report.
    FenceByHeight = "fence-by-height",
    /// A proposal that a crash took from the log counts as a lost vote.
    NoExemption = "r1-without-exemption",
    /// After the fence votes go on in the view that it was left in.
    RejoinSameView = "rejoin-same-view",
    /// A PRE-PREPARE does not wait for its view to be durable.
    UngatedProposal = "ungated-proposal",
    /// A prepared certificate never reaches the log.
    VoteNotPersisted = "vote-not-persisted",
    /// The log's directory is not synced.
    DirectorySyncIgnored = "directory-sync-ignored",
    /// A file is renamed into place before it is synced.
    UnsyncedRename = "unsynced-rename",
    /// What a transaction may read depends on what this replica has swept.
    LocalCompaction = "local-compaction",
    /// Compaction drops a delete that a watcher may still ask for.
    DeleteLost = "delete-lost",
    /// A watch from a future revision gets what comes before it.
    FutureRevisionWatch = "future-revision-watch",
    /// A read takes the (f+1)-th largest mark instead of the largest.
    WeakRead = "weak-read",
    /// Progress is reported ahead of events.
    ProgressBeforeEvents = "progress-before-events",
    /// A checkpoint's data is newer than its revision.
    RevisionApart = "revision-apart",
    /// One poll of a watch stream is not bounded in bytes.
    UnboundedWatch = "unbounded-watch",
    /// A block is proposed on one that ends its epoch.
    ChildBeforeConfig = "child-before-config",
    /// Certificates are compared by view and height across epochs.
    RankWithoutEpoch = "rank-across-epochs",
    /// A certificate of a later epoch counts in this one.
    LaterEpochCertificate = "later-epoch-certificate",
    /// All values are hidden by the same salt.
    SaltReused = "salt-reused",
    /// Pruning leaves values where they are.
    ValueKept = "value-kept-after-prune",
    /// `\0` at the end of a range is gone before permissions are checked.
    RangeEndRewritten = "range-end-rewritten",
    /// Permissions are not checked inside nested transactions.
    NestedUnchecked = "nested-unchecked",
    /// A user's rights do not depend on whose replica claims him.
    UserWithoutOrganisation = "user-without-organisation",
    /// A chunk from a peer is taken as it is.
    TransferUnchecked = "transferred-chunk-unchecked",
    /// What a manifest carries depends on when its replica started.
    RootsOfReplay = "roots-of-replay",
    /// The only member tells nobody anything, whoever joins.
    LonelySilence = "lonely-silence",
    /// Certificates in segments without blocks are not looked for.
    BlocklessSkipped = "blockless-segment-skipped",
    /// A source that never answers keeps a transfer that all others have left.
    LateSourceKept = "late-source-kept",
    /// One certificate commits as many blocks as a page has.
    WidePage = "wide-page",
    /// A replica leads an epoch that names another key for it.
    LeadsWithoutKey = "leads-without-its-key",
    /// A proof is ordered whether it proves anything or not.
    ProofUnchecked = "proof-unchecked",
    /// A proof that is on the list already is written down again.
    ProofTwice = "proof-twice",
    /// What a key signed counts for nothing once it was rotated.
    OldKeyForgotten = "old-key-forgotten",
}

#[cfg(feature = "planted")]
mod chosen {
    use core::sync::atomic::{AtomicBool, AtomicU64, Ordering};
    use std::sync::OnceLock;

    use super::Bug;

    const NONE: u64 = u64::MAX;
    static CHOSEN: AtomicU64 = AtomicU64::new(NONE);
    static LOCAL_MS: AtomicU64 = AtomicU64::new(0);
    static NAMED: OnceLock<Option<Bug>> = OnceLock::new();

    fn named() -> Option<Bug> {
        let name = std::env::var("ALTHING_PLANTED").ok()?;
        Bug::ALL.iter().find(|(known, _)| *known == name).map(|(_, bug)| *bug)
    }

    /// Puts a bug in, or takes it out: for a tester that goes through them in one process.
    pub fn choose(bug: Option<Bug>) {
        CHOSEN.store(bug.map_or(NONE, |bug| bug as u64), Ordering::Relaxed);
    }

    /// Whether this bug is in: chosen, or named by the environment's `ALTHING_PLANTED`.
    #[must_use]
    pub fn is(bug: Bug) -> bool {
        let chosen = CHOSEN.load(Ordering::Relaxed);
        chosen == bug as u64 || chosen == NONE && *NAMED.get_or_init(named) == Some(bug)
    }

    /// Whether a delete of `key` is to leave it where it is: once in a process, at the key that the
    /// environment's `ALTHING_PLANTED_AT` names. So one running replica goes wrong at a moment that a
    /// client chooses, and what it does afterwards, a repair too, is right again.
    #[must_use]
    pub fn strikes_at(key: &[u8]) -> bool {
        static AT: OnceLock<Option<String>> = OnceLock::new();
        static STRUCK: AtomicBool = AtomicBool::new(false);
        let at = AT.get_or_init(|| std::env::var("ALTHING_PLANTED_AT").ok());
        at.as_ref().is_some_and(|at| at.as_bytes() == key) && !STRUCK.swap(true, Ordering::Relaxed)
    }

    /// Tells the wall clock of the replica that goes on now.
    pub fn set_local_ms(now: u64) {
        LOCAL_MS.store(now, Ordering::Relaxed);
    }

    /// That clock, for [`Bug::LocalLeaseClock`]; `otherwise` without it.
    #[must_use]
    pub fn local_ms(otherwise: u64) -> u64 {
        if is(Bug::LocalLeaseClock) { LOCAL_MS.load(Ordering::Relaxed) } else { otherwise }
    }

    /// The items in the order of a hash map, with [`Bug::HashOrder`].
    #[must_use]
    pub fn hash_order<T>(items: Vec<T>) -> Vec<T> {
        if !is(Bug::HashOrder) {
            return items;
        }
        let map: std::collections::HashMap<usize, T> = items.into_iter().enumerate().collect();
        map.into_values().collect()
    }
}

#[cfg(feature = "planted")]
pub use chosen::{choose, hash_order, is, local_ms, set_local_ms, strikes_at};

/// No bug is in.
#[cfg(not(feature = "planted"))]
#[must_use]
pub const fn is(_bug: Bug) -> bool {
    false
}

/// No delete goes wrong.
#[cfg(not(feature = "planted"))]
#[must_use]
pub const fn strikes_at(_key: &[u8]) -> bool {
    false
}

/// The time as it was given.
#[cfg(not(feature = "planted"))]
#[must_use]
pub const fn local_ms(otherwise: u64) -> u64 {
    otherwise
}

/// The items as they were given.
#[cfg(not(feature = "planted"))]
#[must_use]
pub fn hash_order<T>(items: Vec<T>) -> Vec<T> {
    items
}
