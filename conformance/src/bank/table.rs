//! Which bugs are planted (consensus.md 18, faults.md 4.7, and our own), where, and what must kill
//! each.

use crate::sim::liars::Lie;
use crate::sim::plan::{MILLI, Plan, SECOND};

/// A layer of the tests, and how much of it.
#[derive(Clone, Copy)]
pub enum Hunt {
    /// Seeds of the simulator, at most so many, each plan bent so that it has what the bug needs.
    Seeds(u64, fn(&mut Plan)),
    /// Crashes at every third operation of a disk, and flipped bytes.
    CrashPoints,
    /// A test of the library.
    Library(&'static str),
    /// A test of pruning.
    Prune(&'static str),
    /// A search of the protocol model: a case of [`crate::protocol_model::cases::PLANTED`].
    Model,
}

/// One bug in one place.
pub struct Plant {
    /// The name in `src/planted.rs`, of a [`crate::sim::plan::Mutant`] or of a model's case.
    pub name: &'static str,
    /// Tried in this order until one kills it.
    pub hunts: &'static [Hunt],
}

/// One bug of the lists.
pub struct Row {
    /// M1 to M28: consensus.md 18, in its order; M29 to M44: faults.md 4.7; X: our own.
    pub number: &'static str,
    /// What is wrong.
    pub what: &'static str,
    /// Where it is planted; empty if it waits for something.
    pub plants: &'static [Plant],
}

/// Bugs of the lists that are not planted, with what they wait for.
pub const LATER: &[(&str, &str)] = &[];

use Hunt::{CrashPoints, Library, Prune, Seeds};

/// Seeds that are enough for all but the rarest.
const MOST: u64 = 400;

const fn row(number: &'static str, what: &'static str, plants: &'static [Plant]) -> Row {
    Row { number, what, plants }
}

const fn plant(name: &'static str, hunts: &'static [Hunt]) -> Plant {
    Plant { name, hunts }
}

/// As it is drawn.
const ANY: &[Hunt] = &[Hunt::Seeds(MOST, as_drawn)];
const MODEL: &[Hunt] = &[Hunt::Model];

fn as_drawn(_: &mut Plan) {}

/// Four replicas of which one tells this lie, and nothing else that counts against f.
fn lie(plan: &mut Plan, lie: Lie) {
    (plan.n, plan.twins, plan.stay_down, plan.wrong_clock_ms) = (4, 0, 0, 0);
    plan.lose_every = 0;
    plan.lies = vec![lie];
}

fn crashes(plan: &mut Plan) {
    plan.crash_every = SECOND / 2;
}

fn disk_faults(plan: &mut Plan) {
    plan.disk_fault_every = SECOND / 2;
}

fn read_liar(plan: &mut Plan) {
    lie(plan, Lie::ReadLiar);
    plan.read_every = 10 * MILLI;
    plan.bundle_every = 10 * MILLI;
    plan.pause_every = SECOND;
}

fn checkpoints(plan: &mut Plan) {
    plan.checkpoint_log_bytes = 5 << 10;
    plan.crash_every = SECOND;
}

/// Members and parameters change all the time, between checkpoints and starts.
fn changes(plan: &mut Plan) {
    plan.change_every = SECOND / 2;
    plan.faulty_for = plan.faulty_for.max(8 * SECOND);
    checkpoints(plan);
}

/// As [`changes`], and what is appended is not on the disk for long.
fn slow_syncs(plan: &mut Plan) {
    changes(plan);
    (plan.sync_max, plan.sync_slow) = (50 * MILLI, 300);
    (plan.crash_every, plan.crash_all) = (SECOND / 2, true);
    (plan.change_every, plan.checkpoint_log_bytes) = (SECOND / 4, 1 << 10);
}

/// One replica, which others join.
fn alone(plan: &mut Plan) {
    (plan.n, plan.twins, plan.stay_down, plan.wrong_clock_ms) = (1, 0, 0, 0);
    (plan.lies, plan.lose_every, plan.rot_every) = (Vec::new(), 0, 0);
    plan.change_every = SECOND / 2;
}

/// Disks are lost again and again, one of four at a time.
fn losses(plan: &mut Plan) {
    (plan.n, plan.twins, plan.stay_down, plan.wrong_clock_ms) = (4, 0, 0, 0);
    plan.lies = Vec::new();
    plan.lose_every = SECOND / 2;
    plan.crash_every = SECOND;
    plan.faulty_for = plan.faulty_for.max(10 * SECOND);
}

const BASE: &str =
    "ordering::tests::lies::the_base_is_the_certificate_of_the_highest_view_not_height";
const NEW_VIEW: &str =
    "ordering::tests::lies::a_new_view_needs_q_distinct_signed_view_changes_for_it_and_its_primary";
const MALFORMED: &str = "ordering::tests::lies::a_malformed_certificate_in_a_view_change_spoils_it";
const LATE_ANSWERS: &str =
    "ordering::tests::lies::late_answers_to_an_earlier_question_answer_no_later_read";
const TWO_BLOCKS: &str = "ordering::tests::lies::a_second_block_of_a_primary_gets_no_vote";
const FENCE_STANDS: &str =
    "ordering::tests::fence::a_fence_survives_a_crash_and_a_new_process_needs_a_new_nonce";
const OUTRANKS: &str =
    "ordering::tests::epochs::a_new_epoch_in_view_0_outranks_the_views_of_the_one_before";
const GROW: &str = "ordering::tests::epochs::four_become_five_and_four_again_under_load";
const POLL: &str =
    "watch::stream::tests::one_poll_holds_no_more_bytes_than_its_bound_and_one_revision";
const SMALL_ORDER: &str = "crypto::scheme::tests::small_order_keys_are_weak_and_sign_nothing";
const SIGNED: &str =
    "crypto::signed::tests::whatever_is_signed_names_its_kind_its_network_and_its_epoch";
const EXPIRY: &str = "apply::tests::leases_due_together_expire_in_the_order_of_their_ids";
const FLIPPED: &str =
    "storage::checkpoint::tests::every_flipped_byte_of_the_newest_leads_to_the_one_before";
const TRANSFER: &str = "storage::transfer::tests::a_transfer_goes_on_with_the_chunks";
const TOMBSTONE: &str =
    "state::kv::tests::a_tombstone_exactly_at_the_compact_revision_survives_for_watchers";
const WATCH: &str = "watch::stream::tests::every_watcher_sees_its_events_once_in_order_and_whole";
const PROGRESS: &str = "watch::stream::tests::progress_of_all_waits_for_every_watcher";
const SALTS: &str = "node::admit::tests::equal_values_are_never_hidden_by_equal_commitments";
const FROM_KEY: &str = "apply::auth_tests::the_right_to_one_key_does_not_open_a_range_from_it";
const NESTED: &str = "apply::auth_tests::a_nested_transaction_is_checked_to_its_depth";
const ORGANISATION: &str = "apply::auth_tests::a_user_of_one_organisation_is_nobody_at_another";
const BLOCKLESS: &str = "storage::log::tests::a_certificate_in_a_segment_without_blocks_is_found";
const SILENT_SOURCE: &str =
    "ordering::tests::transfer::a_silent_source_does_not_keep_what_all_others_have_left";
const LEADS: &str = "ordering::tests::epochs::who_signs_with_a_later_key_leads_no_epoch_before_it";
const FALSE_PROOF: &str = concat!(
    "ordering::tests::evidence::",
    "a_false_proof_or_one_of_an_epoch_to_come_is_in_nobodys_pool_and_no_block"
);
const ONE_PROOF: &str =
    "state::evidence::tests::a_proof_is_written_down_once_and_a_liar_cannot_fill_the_list";
const OLD_KEY: &str = concat!(
    "ordering::tests::evidence::",
    "what_a_rotated_key_signed_counts_against_its_replica_in_every_later_epoch"
);
const WIDE_PAGE: &str =
    "ordering::tests::who_catches_up_commits_at_most_256_blocks_by_one_certificate";
const PRUNED: &str = "values_votes_and_certificates_go_and_the_chain_stays";

/// All bugs, by number.
pub const ROWS: &[Row] = &[
    row(
        "M1",
        "votes leave before they are durable",
        &[
            plant("vote-before-durable", ANY),
            plant("ungated", ANY),
            plant("M1 votes before they are durable", MODEL),
        ],
    ),
    row(
        "M2",
        "the base of a view is the highest certificate by height first",
        &[plant("winner-by-height", &[Library(BASE)]), plant("M2 winner by height first", MODEL)],
    ),
    row("M3", "a quorum of q - 1", &[plant("small-quorum", ANY), plant("M3 quorum q-1", MODEL)]),
    row(
        "M4",
        "two blocks accepted per view and height",
        &[
            plant("two-blocks-per-height", &[Library(TWO_BLOCKS)]),
            plant("M4 two blocks accepted", MODEL),
        ],
    ),
    row(
        "M5",
        "votes of the old view after a VIEW-CHANGE",
        &[plant("vote-after-view-change", ANY), plant("M5 COMMIT after VIEW-CHANGE", MODEL)],
    ),
    row(
        "M6",
        "a PREPARE does not wait for its block, and nobody abstains",
        &[plant("ungated-prepare", ANY), plant("M6 ungated PREPARE, no abstention", MODEL)],
    ),
    row(
        "M7",
        "a VIEW-CHANGE without its certificate",
        &[
            plant("view-change-without-certificate", ANY),
            plant("VIEW-CHANGE drops its certificate", MODEL),
        ],
    ),
    row(
        "M8",
        "a NEW-VIEW is believed",
        &[plant("new-view-unchecked", &[Library(NEW_VIEW)]), plant("NEW-VIEW unchecked", MODEL)],
    ),
    row(
        "M9",
        "a signer counts twice in a certificate",
        &[plant("duplicate-signer", &[Library(MALFORMED)])],
    ),
    row(
        "M10",
        "signatures are checked as batches check them",
        &[plant("lax-verify", &[Library(SMALL_ORDER)])],
    ),
    row("M11", "signed bytes leave the epoch out", &[plant("epoch-unsigned", &[Library(SIGNED)])]),
    row("M12", "damage inside the log is cut off", &[plant("mid-log-truncation", &[CrashPoints])]),
    row(
        "M13",
        "a failed sync is tried again",
        &[plant("retried-sync", &[Seeds(MOST, disk_faults)])],
    ),
    row("M14", "the order of a hash map in apply", &[plant("hash-order", &[Library(EXPIRY)])]),
    row("M15", "leases expire by the own clock", &[plant("local-lease-clock", ANY)]),
    row(
        "M16",
        "a read asked again keeps its nonce",
        &[plant("reused-read-nonce", &[Library(LATE_ANSWERS)])],
    ),
    row(
        "M17",
        "a checkpoint forgets which requests were done",
        &[plant("sessions-lost", &[Seeds(MOST, checkpoints)])],
    ),
    row(
        "M18",
        "a chunk is not checked",
        &[
            plant("chunk-unchecked", &[Library(FLIPPED)]),
            plant("transferred-chunk-unchecked", &[Library(TRANSFER)]),
        ],
    ),
    row(
        "M19",
        "the fence is left by height instead of nonce",
        &[
            plant("fence-by-height", &[Seeds(MOST, losses)]),
            plant("R3 height instead of nonce", MODEL),
        ],
    ),
    row(
        "M20",
        "the nonce of a REJOIN is read from the disk",
        &[plant("nonce-from-disk", &[Seeds(MOST, losses)]), plant("R3 nonce from the disk", MODEL)],
    ),
    row(
        "M21",
        "the fence is not durable",
        &[plant("fence-forgotten", &[Library(FENCE_STANDS)]), plant("R3 fence not durable", MODEL)],
    ),
    row(
        "M22",
        "votes again in the view of its REJOIN",
        &[
            plant("rejoin-same-view", &[Seeds(MOST, losses)]),
            plant("R3 same view after REJOIN", MODEL),
        ],
    ),
    row(
        "M23",
        "a restarted primary proposes again in its durable view",
        &[
            plant("proposes-again", &[Seeds(MOST, crashes)]),
            plant("R1 proposes again in its view", MODEL),
        ],
    ),
    row(
        "M24",
        "a PRE-PREPARE does not wait for its view",
        &[
            plant("ungated-proposal", &[Seeds(MOST, crashes)]),
            plant("R1 PRE-PREPARE ungated", MODEL),
        ],
    ),
    row(
        "M25",
        "R1 without its exemption",
        &[
            plant("r1-without-exemption", &[Seeds(MOST, crashes)]),
            plant("R1 without its exemption", MODEL),
        ],
    ),
    row(
        "M26",
        "certificates are compared by view and height across epochs",
        &[
            plant("rank-across-epochs", &[Library(OUTRANKS)]),
            plant("epochs: order by (view, height)", MODEL),
        ],
    ),
    row(
        "M27",
        "a child before the CONFIG block is committed",
        &[
            plant("child-before-config", &[Library(GROW)]),
            plant("epochs: child before CONFIG commits", MODEL),
        ],
    ),
    row(
        "M28",
        "a later epoch's certificate in a VIEW-CHANGE",
        &[
            plant("later-epoch-certificate", &[Library(MALFORMED)]),
            plant("epochs: later epoch quoted", MODEL),
        ],
    ),
    row(
        "M29",
        "a prepared certificate never reaches the log",
        &[plant("vote-not-persisted", &[Seeds(MOST, crashes)]), plant("forgets-prepared", ANY)],
    ),
    row(
        "M30",
        "the log's directory is not synced",
        &[plant("directory-sync-ignored", &[CrashPoints])],
    ),
    row(
        "M31",
        "a file is renamed before it is synced",
        &[plant("unsynced-rename", &[CrashPoints])],
    ),
    row(
        "M32",
        "a transaction depends on what this replica has swept",
        &[plant("local-compaction", &[Seeds(MOST, checkpoints)])],
    ),
    row(
        "M33",
        "compaction loses a delete that a watcher may ask for",
        &[plant("delete-lost", &[Library(TOMBSTONE)])],
    ),
    row(
        "M34",
        "a watch from a future revision gets what comes before it",
        &[plant("future-revision-watch", &[Library(WATCH)])],
    ),
    row("M35", "a read takes the (f+1)-th mark", &[plant("weak-read", &[Seeds(MOST, read_liar)])]),
    row(
        "M36",
        "progress before events",
        &[plant("progress-before-events", &[Library(PROGRESS), Library(WATCH)])],
    ),
    row(
        "M37",
        "a checkpoint's data is newer than its revision",
        &[plant("revision-apart", &[Seeds(MOST, checkpoints)])],
    ),
    row("M38", "all values are hidden by one salt", &[plant("salt-reused", &[Library(SALTS)])]),
    row(
        "M39",
        "pruning leaves values where they are",
        &[plant("value-kept-after-prune", &[Prune(PRUNED)])],
    ),
    row(
        "M40",
        "range_end is rewritten before the permission check",
        &[plant("range-end-rewritten", &[Library(FROM_KEY)])],
    ),
    row(
        "M41",
        "a nested transaction is not checked for permissions",
        &[plant("nested-unchecked", &[Library(NESTED)])],
    ),
    row(
        "M42",
        "one poll of a watch stream is not bounded in bytes",
        &[plant("unbounded-watch", &[Library(POLL)])],
    ),
    row(
        "M43",
        "permission by user without organisation",
        &[plant("user-without-organisation", &[Library(ORGANISATION)])],
    ),
    row(
        "M44",
        "R3 is skipped",
        &[plant("fence-skipped", &[Seeds(MOST, losses)]), plant("R3 skipped", MODEL)],
    ),
    row(
        "X1",
        "the fence is left at any commit",
        &[plant("fence-without-nonce", &[Seeds(MOST, losses)]), plant("R3 any certificate", MODEL)],
    ),
    row("X2", "a VIEW-CHANGE for any view at any time", &[plant("R4 views skipped", MODEL)]),
    row(
        "X3",
        "a commit certificate leads back into a lower view",
        &[plant("7.6 follows back", MODEL)],
    ),
    row("X4", "a sync that does nothing", &[plant("lying-sync", ANY)]),
    row("X5", "a restart forgets its VIEW-CHANGE", &[plant("forgets-view-change", ANY)]),
    row("X6", "a restart forgets its view", &[plant("forgets-view", ANY)]),
    row("X7", "a read asks nobody", &[plant("eager-read", ANY)]),
    row("X8", "one replica's state differs by a bit", &[plant("other-root", ANY)]),
    row(
        "X9",
        "what a manifest carries depends on when its replica started",
        &[plant("roots-of-replay", &[Seeds(MOST, changes)])],
    ),
    row(
        "X10",
        "the only member says nothing to who joins",
        &[plant("lonely-silence", &[Seeds(MOST, alone)])],
    ),
    row(
        "X11",
        "a rotated key ends before its epoch's end is durable",
        &[plant("key-ends-early", &[Seeds(MOST, alone)])],
    ),
    row(
        "X12",
        "certificates in segments without blocks are passed over",
        &[plant("blockless-segment-skipped", &[Library(BLOCKLESS)])],
    ),
    row(
        "X13",
        "a silent source keeps a transfer that all others have left",
        &[plant("late-source-kept", &[Library(SILENT_SOURCE)])],
    ),
    row(
        "X14",
        "a primary proposes with a key of another epoch",
        &[plant("leads-without-its-key", &[Library(LEADS)])],
    ),
    row(
        "X15",
        "a proof is ordered whether it holds or not",
        &[plant("proof-unchecked", &[Library(FALSE_PROOF)])],
    ),
    row("X16", "a proof is written down twice", &[plant("proof-twice", &[Library(ONE_PROOF)])]),
    row(
        "X17",
        "what a rotated key signed counts no more",
        &[plant("old-key-forgotten", &[Library(OLD_KEY)])],
    ),
    row(
        "X18",
        "one certificate commits as many blocks as a page has",
        &[plant("wide-page", &[Library(WIDE_PAGE)])],
    ),
    row(
        "X19",
        "a checkpoint of a new epoch is on the disk before the log's proof of it",
        &[plant("checkpoint-before-log", &[Seeds(MOST, slow_syncs)])],
    ),
    row(
        "X20",
        "a fetched state of a later epoch is installed without the log's proofs",
        &[plant("drops-log-end", &[Seeds(MOST, Plan::churn)])],
    ),
];
