//! Every kind of proof keeps its bytes, proves itself from them and the genesis alone, and proves
//! nothing once a byte of it is another.

use std::sync::Arc;

use althing::chain::{
    BlockHeader, Bundle, BundleParts, Certificate, CheckpointVote, Evidence, EvidenceError,
    EvidenceFile, NewView, Phase, Skeleton, Trust, ViewChange, Vote,
};
use althing::codec::{Decode, Encode};
use althing::types::{Digest, Epoch, Height, Millis, ReplicaId, View};
use bytes::Bytes;

use crate::{canonical, golden, samples};

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
