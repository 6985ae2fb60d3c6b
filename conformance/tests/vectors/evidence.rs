//! Every kind of proof keeps its bytes, proves itself from them and the genesis alone, and proves
//! nothing once a byte of it is another.

use std::sync::Arc;

use althing::apply::{Reply, execute};
use althing::chain::{
    BlockHeader, BlockParts, Bundle, BundleParts, Certificate, CheckpointVote, Entry, Evidence,
    EvidenceError, EvidenceFile, EvidenceKind, NewView, Op, Phase, Skeleton, Trust, ViewChange,
    Vote, check,
};
use althing::codec::{Decode, Encode};
use althing::state::{KeptChunk, Proofs, Restore, Snapshotter, State};
use althing::types::{Digest, Epoch, Height, Millis, ReplicaId, View};
use bytes::Bytes;

use crate::{NoValues, canonical, golden, samples};

fn vote(voter: u8, phase: Phase, view: u64, height: u64, hash: Digest) -> Vote {
    let round = (phase, Epoch(0), View(view));
    let range = (Height(height), vec![hash]);
    let replica = ReplicaId(u16::from(voter));
    Vote::sign(round, replica, range, &samples::cluster_id(), &samples::key(voter))
}

fn certificate(phase: Phase, view: u64, height: u64, hash: Digest) -> Certificate {
    let signed = |voter| vote(voter, phase, view, height, hash).signed;
    Certificate {
        phase,
        epoch: Epoch(0),
        view: View(view),
        height: Height(height),
        block_hash: hash,
        signatures: (0..3).map(signed).collect(),
    }
}

fn view_change(voter: u8, signer: u8, prepared: Option<Certificate>) -> ViewChange {
    let (round, replica) = ((Epoch(0), View(3)), ReplicaId(u16::from(voter)));
    ViewChange::sign(
        round,
        replica,
        (prepared, None, None),
        &samples::cluster_id(),
        &samples::key(signer),
    )
}

fn bundle(not_after: u64) -> Bundle {
    let author = samples::bundle().skeletons[0].author.clone();
    let op = samples::ops().pop().expect("the last one has no value");
    let parts = BundleParts {
        origin: ReplicaId(1),
        session: 4,
        first_seq: 6,
        not_after_ms: Millis(not_after),
        skeletons: vec![Skeleton { author, op }],
        values: Vec::new(),
    };
    Bundle::sign(parts, &samples::cluster_id(), &samples::key(1))
}

fn fork() -> Evidence {
    let header =
        |height, parent| BlockHeader { height: Height(height), parent, ..samples::header() };
    let one = header(10, Digest([4; 32]));
    let two = header(11, one.hash());
    let low = certificate(Phase::Commit, 3, 9, Digest([5; 32]));
    let high = certificate(Phase::Commit, 3, 11, two.hash());
    Evidence::fork(&high, &low, vec![one, two]).expect("another block at height 9")
}

/// One proof of every kind.
pub fn all() -> Vec<(&'static str, Evidence)> {
    let (one, two) = (Digest([8; 32]), Digest([9; 32]));
    let commit = vote(2, Phase::Commit, 2, 7, one);
    let old = certificate(Phase::Prepare, 1, 7, one);
    let set = vec![view_change(0, 0, None), view_change(1, 1, None), view_change(2, 3, None)];
    let set = set.into_iter().map(Arc::new).collect();
    let new_view =
        NewView::sign((Epoch(0), View(3)), set, &samples::cluster_id(), &samples::key(3));
    let id = althing::chain::CheckpointId {
        exec_root: Digest([1; 32]),
        ..samples::checkpoint_vote(2).id
    };
    let twin =
        CheckpointVote::sign(Epoch(0), ReplicaId(2), id, &samples::cluster_id(), &samples::key(2));
    let membership = [samples::membership()];
    let (cluster_id, scheme) = (samples::cluster_id(), samples::key(0));
    let trust = Trust { cluster_id: &cluster_id, memberships: &membership, scheme: &scheme };
    vec![
        ("double_vote", Evidence::double_vote(&commit, &vote(2, Phase::Commit, 2, 7, two))),
        ("amnesia", Evidence::amnesia(&commit, &view_change(2, 2, Some(old)))),
        ("false_new_view", Evidence::false_new_view(&new_view, &trust)),
        ("double_checkpoint", Evidence::double_checkpoint(&samples::checkpoint_vote(2), &twin)),
        ("double_bundle", Evidence::double_bundle(&bundle(1), &bundle(2))),
        ("fork", Some(fork())),
    ]
    .into_iter()
    .map(|(name, evidence)| (name, evidence.expect(name)))
    .collect()
}

fn check(evidence: &Evidence) -> Result<(), EvidenceError> {
    let membership = [samples::membership()];
    let (cluster_id, scheme) = (samples::cluster_id(), samples::key(0));
    evidence.verify(&Trust { cluster_id: &cluster_id, memberships: &membership, scheme: &scheme })
}

#[test]
fn every_kind_of_evidence_keeps_its_bytes() {
    let all = all();
    let items: Vec<(&str, Bytes)> =
        all.iter().map(|(name, evidence)| (*name, evidence.to_bytes())).collect();
    golden("evidence.hex", &items);
    items.iter().for_each(|(_, bytes)| canonical::<Evidence>(bytes));
    let file = EvidenceFile::new(samples::cluster_id(), &[], &all[0].1);
    golden("evidence_file.hex", &[("bytes", file.to_bytes())]);
    canonical::<EvidenceFile>(&file.to_bytes());
}

#[test]
fn evidence_accuses_who_signed_and_nobody_else() {
    let accused: Vec<Vec<u16>> =
        all().iter().map(|(_, proof)| proof.accused().iter().map(|id| id.0).collect()).collect();
    assert_eq!(accused, [vec![2], vec![2], vec![3], vec![2], vec![1], vec![0, 1, 2]]);
    for (name, evidence) in all() {
        assert_eq!(check(&evidence), Ok(()), "{name}");
    }
}

#[test]
fn evidence_with_one_byte_changed_proves_nothing() {
    for (name, evidence) in all() {
        let bytes = evidence.to_bytes();
        for at in 0..bytes.len() {
            let mut other = bytes.to_vec();
            other[at] ^= 1 << (at % 8);
            if let Ok(other) = Evidence::from_bytes(other.into()) {
                assert!(check(&other).is_err(), "{name}: byte {at} changed");
            }
        }
    }
}

#[test]
fn evidence_of_another_network_or_epoch_proves_nothing() {
    let mut elsewhere = samples::cluster_id();
    elsewhere.0[0] ^= 1;
    let mut later = samples::membership();
    later.epoch = Epoch(1);
    let scheme = samples::key(0);
    for (name, evidence) in all() {
        let here = [samples::membership()];
        let trust = Trust { cluster_id: &elsewhere, memberships: &here, scheme: &scheme };
        assert!(evidence.verify(&trust).is_err(), "{name}");
        let (cluster_id, later) = (samples::cluster_id(), [later.clone()]);
        let trust = Trust { cluster_id: &cluster_id, memberships: &later, scheme: &scheme };
        // A bundle is signed for no epoch, with the same key in both.
        assert_eq!(evidence.verify(&trust).is_ok(), name == "double_bundle", "{name}");
    }
}

#[test]
fn what_a_correct_replica_signs_is_no_evidence() {
    let (one, two) = (Digest([8; 32]), Digest([9; 32]));
    let prepare = vote(2, Phase::Prepare, 2, 7, one);
    for (name, other) in [
        ("the same again", prepare.clone()),
        ("the other phase", vote(2, Phase::Commit, 2, 7, two)),
        ("another view", vote(2, Phase::Prepare, 3, 7, two)),
        ("another height", vote(2, Phase::Prepare, 2, 8, two)),
        ("another voter", vote(1, Phase::Prepare, 2, 7, two)),
    ] {
        assert_eq!(Evidence::double_vote(&prepare, &other), None, "{name}");
    }
    let commit = vote(2, Phase::Commit, 2, 7, one);
    let quoting = |certificate| Evidence::amnesia(&commit, &view_change(2, 2, Some(certificate)));
    assert_eq!(quoting(certificate(Phase::Prepare, 2, 7, one)), None, "the certificate it had");
    assert_eq!(quoting(certificate(Phase::Prepare, 2, 8, two)), None, "a higher one");
    assert_eq!(quoting(certificate(Phase::Commit, 3, 1, two)), None, "one of a later view");
    assert!(quoting(certificate(Phase::Prepare, 2, 6, two)).is_some(), "a lower one");
    let low = certificate(Phase::Commit, 3, 10, samples::header().hash());
    let mut above = samples::header();
    (above.height, above.parent) = (Height(11), low.block_hash);
    let high = certificate(Phase::Commit, 3, 11, above.hash());
    assert_eq!(Evidence::fork(&low, &high, vec![above]), None, "parent and child");
}

/// The op of a proof, alone in a bundle of replica 1.
fn ordered(proof: Bytes, first_seq: u64) -> Bundle {
    let author = samples::bundle().skeletons[0].author.clone();
    let parts = BundleParts {
        origin: ReplicaId(1),
        session: 4,
        first_seq,
        not_after_ms: Millis(u64::MAX),
        skeletons: vec![Skeleton { author, op: Op::Evidence { proof } }],
        values: Vec::new(),
    };
    Bundle::sign(parts, &samples::cluster_id(), &samples::key(1))
}

/// Executes one proof per block; whether each was news.
fn record(state: &mut State, proofs: &[Bytes]) -> Vec<Option<bool>> {
    let mut news = Vec::new();
    for proof in proofs {
        let height = state.counters.height.next();
        let entries = vec![Entry::Bundle(ordered(proof.clone(), height.0))];
        let header = BlockHeader { flags: 0, height, ..samples::header() };
        let block = BlockParts::new(entries).into_block(header);
        let outcome = execute(state, &block, &[vec![]], &NoValues, ReplicaId(1));
        let replies = outcome.expect("it has no value").replies;
        news.push(match replies.as_slice() {
            [(_, _, Reply::Evidence { news, .. })] => Some(*news),
            _ => None,
        });
    }
    news
}

#[test]
fn proofs_on_record_keep_their_bytes_and_survive_a_snapshot() {
    let proofs: Vec<Bytes> = all().iter().map(|(_, evidence)| evidence.to_bytes()).collect();
    let mut state = State::genesis(&samples::genesis());
    let before = state.exec_root();
    let mut given = proofs.clone();
    given.extend([proofs[0].clone(), Bytes::from_static(b"no proof")]);
    let news = record(&mut state, &given);
    let (new, old, refused) = (Some(true), Some(false), None);
    assert_eq!(news, [new, new, new, new, new, refused, old, refused], "a fork is not ordered");
    assert_ne!(state.exec_root(), before);
    let kinds: Vec<EvidenceKind> = state.proofs.list().map(|(_, proof)| proof.kind).collect();
    assert_eq!(kinds.len(), 5);
    for (_, evidence) in all() {
        assert!(!state.proofs.lacks(&evidence), "nothing is to be ordered again");
    }
    let op = Op::Evidence { proof: proofs[0].clone() }.to_bytes();
    canonical::<Op>(&op);
    canonical::<Proofs>(&state.proofs.to_bytes());
    golden("proofs.hex", &[("op", op), ("state", state.proofs.to_bytes())]);

    let mut snapshotter = Snapshotter::begin(&mut state);
    let mut restore = Restore::new(&samples::genesis());
    while let Some(bytes) = snapshotter.next_chunk(&state, &NoValues).expect("no values") {
        let chunk = KeptChunk { bytes, segment: 1 << 31, base: 0 };
        restore.push(&chunk).expect("its own snapshot");
    }
    let restored = restore.finish().expect("its own snapshot");
    assert_eq!(restored.proofs, state.proofs);
    assert_eq!(restored.exec_root(), state.exec_root());
}

#[test]
fn a_bundle_with_a_false_proof_or_with_one_beside_other_ops_is_refused() {
    let memberships = [samples::membership()];
    let (cluster_id, scheme) = (samples::cluster_id(), samples::key(0));
    let trust = Trust { cluster_id: &cluster_id, memberships: &memberships, scheme: &scheme };
    let judge = |bundle: &Bundle| check::bundle(bundle, &memberships[0], &trust);
    for (name, evidence) in all() {
        let expected = if name == "fork" { Err(check::BundleError::Evidence) } else { Ok(()) };
        assert_eq!(judge(&ordered(evidence.to_bytes(), 0)), expected, "{name}");
        let mut altered = evidence.to_bytes().to_vec();
        *altered.last_mut().expect("not empty") ^= 1;
        assert_eq!(judge(&ordered(altered.into(), 0)), Err(check::BundleError::Evidence), "{name}");
    }
    let alone = ordered(all()[0].1.to_bytes(), 0);
    let beside = BundleParts {
        origin: alone.origin,
        session: alone.session,
        first_seq: 0,
        not_after_ms: alone.not_after_ms,
        skeletons: [alone.skeletons.clone(), alone.skeletons.clone()].concat(),
        values: Vec::new(),
    };
    let beside = Bundle::sign(beside, &cluster_id, &samples::key(1));
    assert_eq!(judge(&beside), Err(check::BundleError::Evidence));
}
