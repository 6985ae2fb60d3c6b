//! Scenarios of consensus.md 16, small and exact: what must not count, and which block a view goes on with.

use std::sync::Arc;

use super::lies::{certificate, new_view, view_change, vote};
use super::world::{Options, World, bundle};
use super::*;
use crate::chain::{Certificate, Phase, Vote};
use crate::types::Digest;

const HASH: Digest = Digest([6; 32]);
const OTHER: Digest = Digest([5; 32]);

fn fresh(n: u16) -> World {
    let mut world = World::begun(n, 1, Options::default());
    // The tests speak for them.
    (0..n).for_each(|id| world.blame(id));
    world.run_ms(50);
    world
}

fn certified(n: u16, votes: Vec<(u16, Vec<Vote>)>) -> bool {
    let mut world = fresh(n);
    for (from, votes) in votes {
        world.deliver(from, n - 1, Message::Votes(votes));
    }
    world.core(n - 1).blocks.certificate.is_some()
}

fn commits(voters: &[u16]) -> Vec<(u16, Vec<Vote>)> {
    voters.iter().map(|id| (*id, vec![vote(Phase::Commit, 0, 1, HASH, *id)])).collect()
}

/// 1: with n = 5 a side of three, the liar among them, is no quorum: 2f + 1 would have forked here.
#[test]
fn three_of_five_decide_nothing_and_four_do() {
    assert!(!certified(5, commits(&[0, 1, 2])));
    assert!(certified(5, commits(&[0, 1, 2, 3])));
}

/// 5: a vote for another digest, of an old view or of another epoch joins no quorum.
#[test]
fn votes_of_another_digest_view_or_epoch_join_no_quorum() {
    let third = |other: Vote| {
        let mut votes = commits(&[0, 1]);
        votes.push((2, vec![other]));
        certified(4, votes)
    };
    assert!(third(vote(Phase::Commit, 0, 1, HASH, 2)), "a sound one does");
    assert!(!third(vote(Phase::Commit, 0, 1, OTHER, 2)), "another digest");
    assert!(!third(vote(Phase::Commit, 1, 1, HASH, 2)), "another view");
    assert!(!third(vote(Phase::Commit, 0, 2, HASH, 2)), "another height");
    assert!(!third(vote(Phase::Prepare, 0, 1, HASH, 2)), "another phase");
    let mut later = vote(Phase::Commit, 0, 1, HASH, 2);
    later.epoch = crate::types::Epoch(1);
    assert!(!third(later), "another epoch");
}

/// 6: a primary's PREPARE counts once, though it comes with its proposal and again as a vote.
#[test]
fn a_vote_that_comes_twice_counts_once() {
    let mut votes = commits(&[0, 1]);
    votes.extend(commits(&[0, 1, 1]));
    assert!(!certified(4, votes));
}

fn base_of(n: u16, view: u64, prepared: Vec<Option<Certificate>>) -> Option<(Height, Digest)> {
    let mut world = fresh(n);
    let primary = u16::try_from(view).expect("small") % n;
    let changes = prepared
        .into_iter()
        .zip(0..)
        .map(|(certificate, voter)| view_change(view, voter, certificate))
        .collect();
    world.deliver(primary, n - 1, new_view(view, changes, primary));
    world.core(n - 1).view.waiting.as_ref().map(|waiting| waiting.base)
}

/// 11: a broken certificate in one VIEW-CHANGE spoils that one; among sound ones the real one wins.
#[test]
fn a_broken_certificate_does_not_hide_a_real_one() {
    let real = certificate(Phase::Prepare, 0, 1, HASH, &[0, 1, 2]);
    let broken = certificate(Phase::Prepare, 0, 9, OTHER, &[0, 1]);
    let both = vec![Some(broken), Some(real.clone()), None];
    assert_eq!(base_of(4, 2, both), None, "a NEW-VIEW with a broken one is refused whole");
    assert_eq!(base_of(4, 2, vec![None, Some(real), None]), Some((Height(1), HASH)));
}

/// 12: what was prepared in view 1 is what view 4 goes on with, although views 2 and 3 came to nothing.
#[test]
fn a_block_prepared_long_ago_is_the_base_of_a_much_later_view() {
    let old = certificate(Phase::Prepare, 1, 3, HASH, &[0, 1, 2]);
    assert_eq!(base_of(4, 4, vec![None, None, Some(old)]), Some((Height(3), HASH)));
}

/// 13, 33: certificates of different views in one NEW-VIEW are all fine, and the latest view decides.
#[test]
fn certificates_of_different_views_meet_in_one_new_view() {
    let one = certificate(Phase::Prepare, 0, 2, OTHER, &[0, 1, 2]);
    let two = certificate(Phase::Prepare, 2, 2, HASH, &[0, 1, 2]);
    let base = Some((Height(2), HASH));
    assert_eq!(base_of(4, 5, vec![Some(one.clone()), Some(two.clone()), None]), base);
    assert_eq!(base_of(4, 5, vec![Some(two), None, Some(one)]), base);
}

/// 15: without q signatures nothing is prepared, whatever a VIEW-CHANGE claims.
#[test]
fn a_claim_to_have_prepared_without_signatures_is_nothing() {
    let claimed =
        Certificate { signatures: Vec::new(), ..certificate(Phase::Prepare, 0, 1, HASH, &[]) };
    assert_eq!(base_of(4, 2, vec![None, Some(claimed), None]), None);
}

/// 16: two NEW-VIEWs of one primary from different VIEW-CHANGEs: a replica follows one, and once.
#[test]
fn a_replica_enters_a_view_once_whatever_its_primary_sends_later() {
    let mut world = fresh(4);
    let plain = |voters: [u16; 3]| voters.iter().map(|id| view_change(1, *id, None)).collect();
    world.deliver(1, 3, new_view(1, plain([0, 1, 2]), 1));
    let entered = world.core(3).view.entered_position;
    assert_eq!(world.core(3).view.entered, View(1));
    let prepared = certificate(Phase::Prepare, 0, 1, HASH, &[0, 1, 2]);
    let changes =
        vec![view_change(1, 0, Some(prepared)), view_change(1, 1, None), view_change(1, 2, None)];
    world.deliver(1, 3, new_view(1, changes, 1));
    let view = &world.core(3).view;
    assert_eq!((view.entered, view.entered_position), (View(1), entered));
    assert_eq!((view.base.0, view.waiting.is_some()), (Height(0), false));
}

/// 16: the same with running replicas: a liar that leads shows half of them another set.
#[test]
fn replicas_told_different_new_views_agree() {
    for seed in 0..10 {
        let mut world = World::begun(4, seed, Options::default());
        world.submit(2);
        assert!(world.run_until_ordered(2000));
        world.equivocate(ReplicaId(0));
        (1..4).for_each(|id| world.submit(id));
        assert!(world.run_until_ordered(8000), "seed {seed}: {}", world.describe());
    }
}

/// 59: a bundle that is not its origin's, of another network or changed on the way is never proposed.
#[test]
fn a_malformed_bundle_is_in_no_honest_proposal() {
    let mut world = fresh(4);
    let good = || bundle(2, 0, 0, 7);
    let mut forged = good();
    forged.signature.0[0] ^= 1;
    let mut spoiled = good();
    spoiled.values[0].salt[0] ^= 1;
    let mut bare = good();
    bare.values.clear();
    let mut anothers = good();
    anothers.origin = ReplicaId(3);
    world.ban_expected = true;
    for bad in [forged, spoiled, bare, anothers] {
        world.deliver(2, 0, Message::Bundle(bad));
    }
    world.run_ms(500);
    assert!(world.cores().all(|core| core.status().committed == Height(0)), "{}", world.describe());
    world.deliver(2, 0, Message::Bundle(good()));
    world.run_ms(500);
    assert!(world.cores().all(|core| core.status().committed == Height(1)), "{}", world.describe());
}

/// 58: an old bundle again, from anyone, in the same view or a later one, is done once.
#[test]
fn an_old_bundle_is_not_done_again_in_any_view() {
    let mut world = fresh(4);
    let old = bundle(2, 0, 0, 7);
    world.deliver(2, 0, Message::Bundle(old.clone()));
    world.run_ms(300);
    for round in 0..3 {
        for (from, to) in [(2, 0), (1, 0), (3, 1), (0, 2)] {
            world.deliver(from, to, Message::Bundle(old.clone()));
        }
        world.run_ms(300);
        let committed: Vec<u64> = world.cores().map(|core| core.status().committed.0).collect();
        assert!(committed.iter().all(|height| *height == 1), "round {round}: {committed:?}");
        let view = world.core(0).status().view;
        let changes: Vec<_> = (0..3).map(|id| view_change(view.0 + 1, id, None)).collect();
        for change in changes {
            (0..4).for_each(|to| {
                world.deliver(change.replica.0, to, Message::ViewChange(Arc::clone(&change)))
            });
        }
        world.run_ms(300);
    }
}
