use bytes::Bytes;

use super::*;
use crate::chain::{AlarmKind, Compare, CompareResult, CompareTarget, Put, Range, Rejoin, Txn};
use crate::codec::Encode;
use crate::crypto::Signature;
use crate::state::testing::{MapValues, Request, block, genesis, put, slot, value_target};
use crate::types::{Digest, Epoch, Millis};

/// A chain of blocks executed by one replica.
struct Chain {
    state: State,
    values: MapValues,
    height: u64,
    time_ms: u64,
    seq: u64,
}

type Ops = Vec<(Op, Vec<&'static str>)>;

impl Chain {
    fn new() -> Self {
        let (state, values) = (State::genesis(&genesis()), MapValues::default());
        Self { state, values, height: 0, time_ms: 1_000_000, seq: 0 }
    }

    fn run(&mut self, requests: Vec<Request>) -> Outcome {
        self.height += 1;
        let (block, refs) = block(self.height, self.time_ms, requests, &mut self.values);
        execute(&mut self.state, &block, &refs, &self.values, ReplicaId(0))
            .expect("values are there")
    }

    fn outcome(&mut self, ops: Ops) -> Outcome {
        let first = self.seq;
        self.seq += ops.len() as u64;
        self.run(vec![Request::new(first, ops)])
    }

    fn ops(&mut self, ops: Ops) -> Vec<Reply> {
        self.outcome(ops).replies.into_iter().map(|(_, _, reply)| reply).collect()
    }

    fn op(&mut self, op: Op, values: &[&'static str]) -> Reply {
        self.ops(vec![(op, values.to_vec())]).pop().expect("an op has a reply")
    }

    fn tick(&mut self, gained_ms: u64) -> Outcome {
        self.time_ms += gained_ms;
        self.run(Vec::new())
    }

    fn value(&self, key: &str) -> Option<Bytes> {
        let kv = self.state.kv.get(key.as_bytes())?;
        Some(self.values.read(kv.value).expect("kept").bytes)
    }
}

fn leased(key: &'static str, lease: i64) -> Op {
    let Op::Put(put) = put(key) else { unreachable!("put makes puts") };
    Op::Put(Put { lease: LeaseId(lease), ..put })
}

fn delete(key: &'static str, end: &'static str) -> Op {
    let (key, range_end) = (Bytes::from_static(key.as_bytes()), Bytes::from_static(end.as_bytes()));
    Op::DeleteRange(DeleteRange { key, range_end, prev_kv: true })
}

fn read(key: &'static str, revision: i64) -> Op {
    Op::Range(Range { key: Bytes::from_static(key.as_bytes()), revision, ..Range::default() })
}

fn compare(key: &'static str, result: CompareResult, target: CompareTarget) -> Compare {
    Compare { result, target, key: Bytes::from_static(key.as_bytes()), range_end: Bytes::new() }
}

fn error(reply: &Reply) -> Option<OpError> {
    match reply {
        Reply::Error { error, .. } => Some(*error),
        _ => None,
    }
}

fn grant(id: i64, ttl_seconds: i64) -> Op {
    Op::LeaseGrant { id: LeaseId(id), ttl_seconds }
}

#[test]
fn a_put_counts_versions_and_starts_again_after_a_delete() {
    let mut chain = Chain::new();
    let fresh = chain.op(put("a"), &["1"]);
    assert_eq!(fresh, Reply::Put { revision: Revision(2), prev: None });
    let Reply::Put { revision: Revision(3), prev: Some(prev) } = chain.op(put("a"), &["2"]) else {
        unreachable!("the second put has a version before")
    };
    assert_eq!((prev.version, prev.create, prev.modified), (1, Revision(2), Revision(2)));
    let Reply::DeleteRange { revision, deleted: 1, prev } = chain.op(delete("a", ""), &[]) else {
        unreachable!("one key is deleted")
    };
    assert_eq!((revision, prev[0].version), (Revision(4), 2));
    let nothing = chain.op(delete("a", ""), &[]);
    assert_eq!(nothing, Reply::DeleteRange { revision: Revision(4), deleted: 0, prev: vec![] });
    chain.op(put("a"), &["3"]);
    let kv = chain.state.kv.get(b"a").expect("put again");
    assert_eq!((kv.version, kv.create, kv.modified), (1, Revision(5), Revision(5)));
}

#[test]
fn a_transaction_takes_one_revision_and_its_reads_see_its_writes() {
    let mut chain = Chain::new();
    chain.op(put("old"), &["x"]);
    let txn = Txn {
        compares: vec![compare("old", CompareResult::Equal, CompareTarget::Version(1))],
        success: vec![put("a"), read("a", 0), delete("old", ""), read("old", 2), put("b")],
        failure: vec![],
    };
    let outcome = chain.outcome(vec![(Op::Txn(txn), vec!["1", "2"])]);
    let Reply::Txn { revision: Revision(3), succeeded: true, responses } = &outcome.replies[0].2
    else {
        unreachable!("the transaction succeeds: {:?}", outcome.replies)
    };
    assert_eq!(responses.len(), 5);
    assert!(matches!(&responses[1], Reply::Range { revision: Revision(3), result, .. }
        if result.kvs.len() == 1 && result.count == 1));
    assert!(matches!(&responses[3], Reply::Range { result, .. } if result.kvs.len() == 1));
    let places: Vec<_> = outcome.events.iter().map(|event| (event.revision.0, event.sub)).collect();
    assert_eq!(places, [(3, 0), (3, 1), (3, 2)]);
    assert_eq!(outcome.effects.changes.len(), 3);
    assert_eq!(outcome.revision, Revision(3));
}

#[test]
fn a_read_only_transaction_takes_no_revision() {
    let mut chain = Chain::new();
    let txn = Txn { success: vec![read("a", 0)], ..Txn::default() };
    let reply = chain.op(Op::Txn(txn), &[]);
    assert!(matches!(reply, Reply::Txn { revision: Revision(1), succeeded: true, responses }
        if responses.len() == 1));
}

#[test]
fn nested_compares_look_at_the_state_before_the_transaction() {
    let mut chain = Chain::new();
    let nested = Txn {
        compares: vec![compare("a", CompareResult::Equal, CompareTarget::Version(0))],
        success: vec![put("absent-before")],
        failure: vec![put("present-before")],
    };
    let outer = Txn { success: vec![put("a"), Op::Txn(nested)], ..Txn::default() };
    let reply = chain.op(Op::Txn(outer), &["1", "2", "3"]);
    let Reply::Txn { responses, .. } = reply else { unreachable!("a txn answers a txn") };
    assert!(matches!(&responses[1], Reply::Txn { revision: Revision(0), succeeded: true, .. }));
    assert!(chain.value("absent-before").is_some());
}

#[test]
fn value_compares_read_values_and_never_hold_for_absent_keys() {
    let mut chain = Chain::new();
    chain.op(put("a"), &["apple"]);
    for (key, result, operand, holds) in [
        ("a", CompareResult::Equal, "apple", true),
        ("a", CompareResult::Greater, "aardvark", true),
        ("a", CompareResult::Less, "aardvark", false),
        ("a", CompareResult::NotEqual, "apple", false),
        ("none", CompareResult::NotEqual, "x", false),
        ("none", CompareResult::Equal, "", false),
    ] {
        let txn = Txn { compares: vec![compare(key, result, value_target())], ..Txn::default() };
        let reply = chain.op(Op::Txn(txn), &[operand]);
        assert!(
            matches!(reply, Reply::Txn { succeeded, .. } if succeeded == holds),
            "{key} {operand}"
        );
    }
    let absent = compare("none", CompareResult::Equal, CompareTarget::Mod(0));
    let txn = Txn { compares: vec![absent], ..Txn::default() };
    assert!(matches!(chain.op(Op::Txn(txn), &[]), Reply::Txn { succeeded: true, .. }));
}

#[test]
fn a_range_compare_must_hold_for_every_key() {
    let mut chain = Chain::new();
    chain.ops(vec![(put("k1"), vec!["1"]), (put("k2"), vec!["1"]), (put("k2"), vec!["1"])]);
    for (version, holds) in [(0, true), (1, false)] {
        let all = Compare {
            range_end: Bytes::from_static(b"l"),
            ..compare("k", CompareResult::Greater, CompareTarget::Version(version))
        };
        let txn = Txn { compares: vec![all], ..Txn::default() };
        let reply = chain.op(Op::Txn(txn), &[]);
        assert!(matches!(reply, Reply::Txn { succeeded, .. } if succeeded == holds));
    }
}

#[test]
fn what_can_fail_on_the_chosen_branch_fails_the_whole_transaction_before_any_write() {
    let mut chain = Chain::new();
    chain.ops(vec![(put("a"), vec!["1"]), (put("a"), vec!["2"])]);
    chain.op(Op::Compact { revision: Revision(3) }, &[]);
    let before = chain.state.kv.revision();
    let nest = |op: Op| Op::Txn(Txn { success: vec![op], ..Txn::default() });
    let Op::Put(plain) = put("none") else { unreachable!("put makes puts") };
    let keeps = Op::Put(Put { value: None, ..plain });
    for (bad, expected, values) in [
        (leased("b", 99), OpError::LeaseNotFound, vec!["1", "2"]),
        (read("a", 99), OpError::FutureRevision, vec!["1"]),
        (nest(read("a", 2)), OpError::Compacted, vec!["1"]),
        (nest(keeps), OpError::KeyNotFound, vec!["1"]),
        (grant(5, 5), OpError::Malformed, vec!["1"]),
    ] {
        let txn = Txn { success: vec![put("w"), bad.clone()], ..Txn::default() };
        assert_eq!(error(&chain.op(Op::Txn(txn), &values)), Some(expected));
        let harmless = Txn { failure: vec![bad], success: vec![], ..Txn::default() };
        let left = values[1..].to_vec();
        assert_eq!(error(&chain.op(Op::Txn(harmless), &left)), None);
    }
    assert_eq!((chain.state.kv.revision(), chain.value("w")), (before, None));
}

#[test]
fn ignore_value_keeps_value_and_commitment_and_ignore_lease_the_lease() {
    let mut chain = Chain::new();
    chain.ops(vec![(grant(1, 10), vec![]), (grant(2, 10), vec![]), (leased("a", 1), vec!["v"])]);
    let before = chain.state.kv.get(b"a").expect("put").value;
    let Op::Put(plain) = put("a") else { unreachable!("put makes puts") };
    let outcome = chain
        .outcome(vec![(Op::Put(Put { value: None, lease: LeaseId(2), ..plain.clone() }), vec![])]);
    let kv = chain.state.kv.get(b"a").expect("put");
    assert_eq!((kv.value, kv.lease, kv.version), (before, LeaseId(2), 2));
    let commitment = chain.values.read(before).expect("kept").commitment();
    assert_eq!(outcome.effects.changes[0].commitment, commitment);
    assert!(chain.state.leases.get(LeaseId(1)).expect("granted").keys.is_empty());
    chain.op(Op::Put(Put { value: Some(slot()), ignore_lease: true, ..plain }), &["w"]);
    assert_eq!(chain.state.kv.get(b"a").expect("put").lease, LeaseId(2));
    chain.op(put("a"), &["x"]);
    assert!(chain.state.leases.get(LeaseId(2)).expect("granted").keys.is_empty());
}

#[test]
fn compaction_takes_no_revision_and_is_refused_outside_its_bounds() {
    let mut chain = Chain::new();
    chain.ops(vec![(put("a"), vec!["1"]), (put("a"), vec!["2"])]);
    let compact = |revision| Op::Compact { revision: Revision(revision) };
    assert_eq!(chain.op(compact(0), &[]), Reply::Compact { revision: Revision(3) });
    assert_eq!(error(&chain.op(compact(0), &[])), Some(OpError::Compacted));
    assert_eq!(error(&chain.op(compact(4), &[])), Some(OpError::FutureRevision));
    assert_eq!(chain.op(compact(3), &[]), Reply::Compact { revision: Revision(3) });
}

#[test]
fn a_lease_expires_by_the_lease_clock_in_one_revision_with_its_keys_in_order() {
    let mut chain = Chain::new();
    let replies = chain.ops(vec![
        (grant(7, 1), vec![]),
        (leased("z", 7), vec!["1"]),
        (leased("a", 7), vec!["2"]),
        (grant(8, 3), vec![]),
    ]);
    assert!(matches!(replies[0], Reply::LeaseGrant { ttl_seconds: 2, revision: Revision(1), .. }));
    assert_eq!(chain.tick(1_999).events.len(), 0);
    let due = chain.tick(1);
    assert_eq!(due.next_expiry, Some(Millis(chain.time_ms + 1_000)));
    let deleted: Vec<_> =
        due.events.iter().map(|event| (event.kv.key.clone(), event.revision)).collect();
    assert_eq!(deleted, [("a".into(), Revision(4)), ("z".into(), Revision(4))]);
    assert!(due.events.iter().all(|event| event.prev.is_some()));
    assert!(
        due.effects
            .changes
            .iter()
            .all(|change| change.ordinal == u32::MAX && change.lease == LeaseId(7))
    );
    // A lease without keys takes no revision.
    assert_eq!(chain.tick(1_000).revision, Revision(4));
    assert_eq!(chain.state.leases.len(), 0);
}

#[test]
fn a_jump_of_block_time_moves_the_lease_clock_two_seconds_at_most() {
    let mut chain = Chain::new();
    chain.op(grant(1, 5), &[]);
    chain.tick(3_600_000);
    assert_eq!(chain.state.leases.remaining(LeaseId(1)), Some(Millis(3_000)));
    let renewed = chain.op(Op::LeaseKeepAlive { id: LeaseId(1) }, &[]);
    assert!(matches!(renewed, Reply::LeaseKeepAlive { ttl_seconds: 5, .. }));
    assert_eq!(chain.state.leases.remaining(LeaseId(1)), Some(Millis(5_000)));
    let unknown = chain.op(Op::LeaseKeepAlive { id: LeaseId(2) }, &[]);
    assert!(matches!(unknown, Reply::LeaseKeepAlive { ttl_seconds: 0, .. }));
    assert_eq!(error(&chain.op(grant(1, 5), &[])), Some(OpError::LeaseExists));
    assert_eq!(error(&chain.op(grant(3, 9_000_000_001), &[])), Some(OpError::LeaseTtlTooLarge));
    assert_eq!(
        error(&chain.op(Op::LeaseRevoke { id: LeaseId(2) }, &[])),
        Some(OpError::LeaseNotFound)
    );
    assert_eq!(
        chain.op(Op::LeaseRevoke { id: LeaseId(1) }, &[]),
        Reply::LeaseRevoke { revision: Revision(1) }
    );
}

#[test]
fn at_most_256_leases_expire_in_one_block_and_the_rest_in_the_next() {
    let mut chain = Chain::new();
    let grants = |from: i64| (from..from + 150).map(|id| (grant(id, 2), vec![])).collect();
    chain.ops(grants(1));
    chain.ops(grants(1001));
    let first = chain.tick(2_000);
    assert_eq!(chain.state.leases.len(), 44);
    assert_eq!(first.next_expiry, Some(Millis(chain.time_ms)));
    chain.tick(0);
    assert!(chain.state.leases.is_empty());
}

#[test]
fn leases_due_together_expire_in_the_order_of_their_ids() {
    let mut chain = Chain::new();
    let ids: Vec<i64> = (1..=20).collect();
    let keys: Vec<String> = ids.iter().map(|id| format!("{:02}", 50 - id)).collect();
    chain.ops(ids.iter().map(|id| (grant(*id, 2), vec![])).collect());
    let puts = ids.iter().zip(&keys).map(|(id, key)| {
        let Op::Put(put) = leased("", *id) else { unreachable!("leased makes puts") };
        (Op::Put(Put { key: Bytes::from(key.clone()), ..put }), vec!["1"])
    });
    chain.ops(puts.collect());
    let due = chain.tick(2_000);
    let deleted: Vec<_> = due.events.iter().map(|event| event.kv.key.clone()).collect();
    assert_eq!(deleted, keys, "the same on every replica");
}

#[test]
fn a_repeated_sequence_number_is_skipped_without_a_reply() {
    let mut chain = Chain::new();
    let request = |seq| Request::new(seq, vec![(put("a"), vec!["1"])]);
    let outcome = chain.run(vec![request(0), request(0), request(1)]);
    let seqs: Vec<_> = outcome.replies.iter().map(|(session, seq, _)| (*session, *seq)).collect();
    assert_eq!((seqs, outcome.revision), (vec![(1, 0), (1, 1)], Revision(3)));
    assert_eq!(outcome.effects.changes[1].ordinal, 2);
    assert_eq!(chain.run(vec![request(1)]).replies.len(), 0);
}

#[test]
fn a_block_past_the_deadline_answers_timed_out_and_uses_the_numbers() {
    let mut chain = Chain::new();
    let late = chain.time_ms - 1;
    let request =
        |not_after_ms| Request { not_after_ms, ..Request::new(0, vec![(put("a"), vec!["1"])]) };
    let outcome = chain.run(vec![request(late)]);
    assert_eq!(error(&outcome.replies[0].2), Some(OpError::TimedOut));
    assert_eq!(chain.run(vec![request(u64::MAX)]).replies.len(), 0);
    assert_eq!(chain.value("a"), None);
}

#[test]
fn a_rejoin_closes_the_sessions_before_it() {
    let mut chain = Chain::new();
    let replica = ReplicaId(0);
    let signature = Signature([0; 64]);
    let entry = Entry::Rejoin(Rejoin { epoch: Epoch(0), replica, nonce: [0; 32], signature });
    let (mut header, _) = block(1, chain.time_ms, Vec::new(), &mut chain.values);
    header = crate::chain::BlockParts::new(vec![entry]).into_block(header.header);
    execute(&mut chain.state, &header, &[vec![]], &chain.values, replica).expect("no values");
    chain.height = 1;
    assert_eq!(chain.state.sessions.rejoins(replica), 1);
    assert_eq!(chain.outcome(vec![(put("a"), vec!["1"])]).replies.len(), 0);
}

#[test]
fn only_the_admitting_replica_gets_replies() {
    let mut chain = Chain::new();
    let request = Request { origin: 2, ..Request::new(0, vec![(put("a"), vec!["1"])]) };
    let outcome = chain.run(vec![request]);
    assert_eq!((outcome.replies.len(), outcome.events.len()), (0, 1));
}

#[test]
fn the_quota_counts_history_raises_nospace_and_compaction_makes_room() {
    let mut chain = Chain::new();
    const VALUE: &str =
        "0123456789012345678901234567890123456789012345678901234567890123456789012345";
    let mut refused = None;
    for n in 0..1000 {
        if error(&chain.op(put("a"), &[VALUE])).is_some() {
            refused = Some(n);
            break;
        }
    }
    assert!(refused.is_some_and(|n| n > 100), "{refused:?}");
    assert!(chain.state.alarms.is_raised(AlarmKind::NoSpace));
    assert_eq!(error(&chain.op(grant(1, 5), &[])), Some(OpError::NoSpace));
    let txn = Txn { failure: vec![put("b")], ..Txn::default() };
    assert_eq!(error(&chain.op(Op::Txn(txn), &["1"])), Some(OpError::NoSpace));
    assert_eq!(error(&chain.op(delete("none", ""), &[])), None);
    let revision = chain.state.kv.revision();
    chain.op(Op::Compact { revision }, &[]);
    assert_eq!(error(&chain.op(put("a"), &["1"])), Some(OpError::NoSpace));
    let disarm = Op::Alarm { action: AlarmAction::Deactivate, member: 0, kind: AlarmKind::NoSpace };
    let Reply::Alarm { alarms, .. } = chain.op(disarm, &[]) else { unreachable!("an alarm reply") };
    assert_eq!(alarms, [(0, AlarmKind::NoSpace)]);
    assert_eq!(error(&chain.op(put("a"), &["1"])), None);
    assert!(chain.state.used_bytes() < 1000);
}

#[test]
fn a_second_checkpoint_of_one_origin_within_a_minute_is_not_made() {
    let mut chain = Chain::new();
    let now = || vec![(Op::CheckpointNow, vec![])];
    assert!(chain.outcome(now()).checkpoint_wanted);
    assert!(!chain.outcome(now()).checkpoint_wanted);
    chain.tick(60_000);
    assert!(chain.outcome(now()).checkpoint_wanted);
    chain.op(put("a"), &["1"]);
    assert!(chain.tick(15 * 60 * 1000).checkpoint_wanted);
    assert!(!chain.tick(15 * 60 * 1000).checkpoint_wanted);
}

#[test]
fn two_runs_of_one_chain_give_the_same_bytes_wherever_values_are_kept() {
    let run = |shift: u32| {
        let mut chain = Chain::new();
        let mut bytes = Vec::new();
        for n in 0..50_u64 {
            let keys = ["a", "b", "c", "d", "e"];
            let key = keys[usize::try_from(n).expect("small") % 5];
            let ops = vec![
                (grant(i64::try_from(n).expect("small") + 1, 2), vec![]),
                (put(key), vec!["v"]),
            ];
            chain.height += 1;
            chain.time_ms += 700;
            let request = Request::new(n * 2, ops);
            let (block, _) =
                block(chain.height, chain.time_ms, vec![request], &mut MapValues::default());
            let segment = u32::try_from(n).expect("small") + shift;
            let refs = crate::state::testing::keep(&block, segment, &mut chain.values);
            let outcome = execute(&mut chain.state, &block, &refs, &chain.values, ReplicaId(0));
            bytes.push(outcome.expect("values are there").effects.to_bytes());
        }
        (bytes, chain.state.exec_root())
    };
    assert_eq!(run(0), run(1000));
    assert_ne!(run(0).1, Digest::ZERO);
}
