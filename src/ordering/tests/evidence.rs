//! Lies that leave proof, and that everyone honest comes to hold it.

use super::epochs::{change, load, reach, rotate};
use super::world::{Options, World, bundle, key, op_bundle, scheme};
use super::*;
use crate::chain::{CheckpointId, CheckpointVote, Evidence, Op, Phase, Vote};
use crate::codec::Encode;
use crate::types::{Digest, Epoch};
use std::collections::BTreeSet;
use std::sync::Arc;

const CLUSTER: Digest = Digest([8; 32]);

/// Who holds a proof of this kind against the liar.
fn holders(world: &World, liar: u16, kind: &str) -> BTreeSet<u16> {
    let about =
        |proof: &&(u16, ReplicaId, &'static str)| (proof.1, proof.2) == (ReplicaId(liar), kind);
    world.proofs.iter().filter(about).map(|proof| proof.0).filter(|id| *id != liar).collect()
}

#[test]
fn a_voter_that_tells_each_half_another_block_is_proven_a_liar_by_all() {
    for (n, liar) in [(4, 2), (4, 3), (7, 5)] {
        let mut world = calm(n, 3);
        world.equivocate(ReplicaId(liar));
        for _ in 0..4 {
            world.submit(1);
            world.run_ms(200);
        }
        assert!(world.run_until_ordered(8000), "{}", world.describe());
        world.run_ms(500);
        let honest: BTreeSet<u16> = (0..n).filter(|id| *id != liar).collect();
        assert_eq!(holders(&world, liar, "double-vote"), honest, "n = {n}, liar {liar}");
    }
}

#[test]
fn a_primary_that_proposes_two_blocks_is_proven_a_liar_by_all() {
    for seed in 0..10 {
        let mut world = calm(4, seed);
        world.equivocate(ReplicaId(0));
        (1..4).for_each(|origin| world.submit(origin));
        assert!(world.run_until_ordered(8000), "seed {seed}: {}", world.describe());
        world.run_ms(500);
        assert_eq!(holders(&world, 0, "double-vote"), BTreeSet::from([1, 2, 3]), "seed {seed}");
    }
}

#[test]
fn a_view_change_that_forgets_a_commit_is_proof() {
    let mut world = calm(4, 9);
    world.submit(1);
    assert!(world.run_until_ordered(2000));
    world.forget_in_view_changes(2);
    world.kill(0);
    world.submit(1);
    assert!(world.run_until_ordered(8000), "{}", world.describe());
    world.run_ms(500);
    assert_eq!(holders(&world, 2, "amnesia"), BTreeSet::from([1, 3]), "{}", world.describe());
}

#[test]
fn a_new_view_made_of_a_forged_view_change_is_proof_against_its_primary() {
    let change = |voter: u16| {
        let round = (Epoch(0), View(1));
        ViewChange::sign(round, ReplicaId(voter), (None, None, None), &CLUSTER, &scheme(voter))
    };
    let proofs_after = |changes: Vec<ViewChange>| {
        let mut world = calm(4, 1);
        world.run_ms(50);
        world.blame(1);
        let changes = changes.into_iter().map(Arc::new).collect();
        let new_view = NewView::sign((Epoch(0), View(1)), changes, &CLUSTER, &scheme(1));
        world.deliver(1, 3, Message::NewView(Arc::new(new_view)));
        world.run_ms(100);
        holders(&world, 1, "false-new-view")
    };
    let mut forged = change(2);
    forged.signature = change(0).signature;
    let honest = BTreeSet::from([0, 2, 3]);
    assert_eq!(proofs_after(vec![change(0), change(1), forged]), honest);
    assert_eq!(proofs_after(vec![change(0), change(1)]), honest, "too few");
    assert_eq!(proofs_after(vec![change(0), change(1), change(2)]), BTreeSet::new(), "a sound one");
}

#[test]
fn two_contents_for_one_sequence_number_are_proof_against_their_origin() {
    let mut world = calm(4, 1);
    world.run_ms(50);
    world.blame(2);
    world.deliver(2, 3, Message::Bundle(bundle(2, 0, 0, 100)));
    world.deliver(2, 3, Message::Bundle(bundle(2, 0, 0, 100)));
    world.run_ms(20);
    assert_eq!(holders(&world, 2, "double-bundle"), BTreeSet::new(), "twice the same is nothing");
    world.deliver(2, 1, Message::Bundle(bundle(2, 0, 0, 101)));
    world.run_ms(400);
    assert_eq!(holders(&world, 2, "double-bundle"), BTreeSet::from([0, 1, 3]));
}

#[test]
fn two_checkpoints_of_one_height_are_proof() {
    let mut world = calm(4, 1);
    world.run_ms(50);
    world.blame(2);
    let vote = |root: u8| {
        let id = CheckpointId {
            height: Height(64),
            block_hash: Digest([1; 32]),
            exec_root: Digest([root; 32]),
            manifest_root: Digest([3; 32]),
        };
        CheckpointVote::sign(Epoch(0), ReplicaId(2), id, &CLUSTER, &scheme(2))
    };
    world.deliver(2, 3, Message::Checkpoint(vote(1)));
    world.deliver(2, 3, Message::Checkpoint(vote(2)));
    world.run_ms(100);
    assert_eq!(holders(&world, 2, "double-checkpoint"), BTreeSet::from([0, 1, 3]));
}

#[test]
fn false_evidence_and_false_hearsay_are_kept_from_everyone() {
    let mut world = calm(4, 1);
    world.run_ms(50);
    let vote = |hash: u8, signer: u16| {
        let round = (crate::chain::Phase::Commit, Epoch(0), View(0));
        let range = (Height(1), vec![Digest([hash; 32])]);
        crate::chain::Vote::sign(round, ReplicaId(1), range, &CLUSTER, &scheme(signer))
    };
    // Replica 2 forges votes of replica 1, and passes off two sound ones as a contradiction.
    let forged = Evidence::double_vote(&vote(1, 1), &vote(2, 2)).expect("two blocks");
    world.deliver(2, 3, Message::Evidence(Arc::new(forged)));
    world.deliver(2, 3, Message::Shown(Arc::new(vote(2, 2))));
    world.run_ms(100);
    assert_eq!(world.proofs, Vec::new());
    let before = world.core(3).status().counters.verifications;
    for hash in 3..200 {
        world.deliver(2, 3, Message::Shown(Arc::new(vote(hash, 2))));
    }
    let after = world.core(3).status().counters.verifications;
    assert_eq!(before, after, "who passed on a forgery is not listened to");
}

#[test]
fn a_liar_cannot_fill_memory_with_contradictions() {
    let mut world = calm(4, 1);
    world.run_ms(50);
    world.blame(1);
    for hash in 0..500_u16 {
        let round = (crate::chain::Phase::Commit, Epoch(0), View(0));
        let mut digest = [0; 32];
        digest[..2].copy_from_slice(&hash.to_le_bytes());
        let range = (Height(1 + u64::from(hash) % 8), vec![Digest(digest)]);
        let vote = crate::chain::Vote::sign(round, ReplicaId(1), range, &CLUSTER, &scheme(1));
        world.deliver(1, 3, Message::Votes(vec![vote]));
    }
    let status = world.core(3).status();
    assert!(status.counters.evidence <= 8, "{} proofs", status.counters.evidence);
    assert!(status.counters.verifications < 200, "{}", status.counters.verifications);
}

/// Two COMMITs of replica 2 for one height, the second signed by `signer`.
fn double_vote(height: u64, signer: u16) -> Evidence {
    let vote = |hash: u8, signer: u16| {
        let round = (Phase::Commit, Epoch(0), View(0));
        let range = (Height(height), vec![Digest([hash; 32])]);
        Vote::sign(round, ReplicaId(2), range, &CLUSTER, &scheme(signer))
    };
    Evidence::double_vote(&vote(1, 2), &vote(2, signer)).expect("two blocks")
}

fn op(evidence: &Evidence) -> Op {
    Op::Evidence { proof: evidence.to_bytes() }
}

/// Scenario 16.63: whoever orders them, however often, and the accused itself.
#[test]
fn proofs_doubled_and_self_made_are_ordered_and_block_no_proposal() {
    let mut world = calm(4, 3);
    world.run_ms(50);
    world.blame(2);
    for id in 0..4 {
        world.submit_op(id, op(&double_vote(90, 2)));
        world.submit_op(id, op(&double_vote(91 + u64::from(id), 2)));
        world.submit(id);
    }
    assert!(world.run_until_ordered(5000), "{}", world.describe());
    let per_block = world.ordered_proofs(0);
    assert_eq!(per_block, vec![1; 8], "one in a block, none lost");
    assert!(world.cores().all(|core| core.status().view == View(0)), "{}", world.describe());
    assert!(world.cores().all(|core| core.status().counters.refused_proposals == 0));
    let honest = BTreeSet::from([0, 1, 3]);
    assert_eq!(holders(&world, 2, "double-vote"), honest, "who accepts a proof keeps it");
}

#[test]
fn a_false_proof_or_one_of_an_epoch_to_come_is_in_nobodys_pool_and_no_block() {
    let mut world = calm(4, 3);
    world.run_ms(50);
    let round = (Phase::Commit, Epoch(1), View(0));
    let later = |hash: u8| {
        let range = (Height(90), vec![Digest([hash; 32])]);
        Vote::sign(round, ReplicaId(2), range, &CLUSTER, &scheme(2))
    };
    let expired = Evidence::double_vote(&later(1), &later(2)).expect("two blocks");
    let garbage = Op::Evidence { proof: vec![0; 100].into() };
    for (at, op) in [op(&double_vote(90, 3)), op(&expired), garbage].into_iter().enumerate() {
        world.submit_op(1, op.clone());
        let numbers = (1, 50 + at as u64);
        world.deliver(3, 0, Message::Bundle(op_bundle((3, key(3)), numbers, op)));
    }
    world.run_ms(500);
    assert!(world.cores().all(|core| core.status().pool_bundles == 0), "{}", world.describe());
    world.submit(2);
    world.run_ms(500);
    assert_eq!(world.ordered_proofs(0), Vec::<usize>::new());
    assert_eq!(world.proofs, Vec::new());
    assert!(world.cores().all(|core| core.status().view == View(0)), "{}", world.describe());
}

#[test]
fn what_a_rotated_key_signed_counts_against_its_replica_in_every_later_epoch() {
    let mut world = World::begun(4, 8, Options::default());
    load(&mut world, 50);
    change(&mut world, 0, rotate(2, 50), &[2]);
    reach(&mut world, 1, 3000);
    world.rekey(2, key(50));
    load(&mut world, 200);
    assert!(world.run_until_ordered(8000), "{}", world.describe());
    world.blame(2);
    let (told, ordered) = (double_vote(90, 2), double_vote(91, 2));
    world.deliver(1, 3, Message::Evidence(Arc::new(told)));
    world.run_ms(100);
    let honest = BTreeSet::from([0, 1, 3]);
    assert!(holders(&world, 2, "double-vote").is_superset(&BTreeSet::from([0, 3])));
    world.submit_op(1, op(&ordered));
    assert!(world.run_until_ordered(5000), "{}", world.describe());
    assert_eq!(world.ordered_proofs(0), vec![1]);
    assert_eq!(holders(&world, 2, "double-vote"), honest);
    // Two contents for one number, both under the old key, one shown only now.
    world.deliver(2, 3, Message::Bundle(bundle(2, 1, 0, 7)));
    world.run_ms(100);
    let shown = holders(&world, 2, "double-bundle");
    assert!(shown.contains(&3), "{shown:?}");
}
