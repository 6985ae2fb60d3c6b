//! What a liar can send to one core, and that it moves nothing.

use super::world::{World, scheme};
use super::*;
use crate::chain::{Certificate, Phase, Vote, VoteSignature};
use crate::types::{Digest, Epoch, Height, ReplicaId, View};
use std::sync::Arc;

pub(super) const CLUSTER: Digest = Digest([8; 32]);

pub(super) fn vote(phase: Phase, view: u64, height: u64, hash: Digest, voter: u16) -> Vote {
    let round = (phase, Epoch(0), View(view));
    Vote::sign(round, ReplicaId(voter), (Height(height), vec![hash]), &CLUSTER, &scheme(voter))
}

pub(super) fn certificate(
    phase: Phase,
    view: u64,
    height: u64,
    hash: Digest,
    voters: &[u16],
) -> Certificate {
    let signatures: Vec<VoteSignature> =
        voters.iter().map(|id| vote(phase, view, height, hash, *id).signed).collect();
    let (view, height) = (View(view), Height(height));
    Certificate { phase, epoch: Epoch(0), view, height, block_hash: hash, signatures }
}

pub(super) fn view_change(view: u64, voter: u16, prepared: Option<Certificate>) -> Arc<ViewChange> {
    let round = (Epoch(0), View(view));
    let certificates = (prepared, None);
    let quoted = (certificates.0, certificates.1, None);
    Arc::new(ViewChange::sign(round, ReplicaId(voter), quoted, &CLUSTER, &scheme(voter)))
}

pub(super) fn new_view(view: u64, changes: Vec<Arc<ViewChange>>, signer: u16) -> Message {
    let round = (Epoch(0), View(view));
    Message::NewView(Arc::new(NewView::sign(round, changes, &CLUSTER, &scheme(signer))))
}

fn view_after(messages: Vec<(u16, Message)>) -> View {
    let mut world = World::begun(4, 1, world::Options::default());
    (0..3).for_each(|id| world.blame(id));
    world.run_ms(50);
    for (from, message) in messages {
        world.deliver(from, 3, message);
    }
    world.core(3).view.entered
}

#[test]
fn a_new_view_needs_q_distinct_signed_view_changes_for_it_and_its_primary() {
    let change = |voter: u16| view_change(1, voter, None);
    let all = || vec![change(0), change(1), change(2)];
    assert_eq!(view_after(vec![(1, new_view(1, all(), 1))]), View(1), "a sound one is followed");
    let mut forged = view_change(1, 2, None).as_ref().clone();
    forged.signature = change(1).signature;
    let ahead = vec![change(0), change(1), view_change(2, 2, None)];
    for (name, message) in [
        ("q - 1", new_view(1, vec![change(0), change(1)], 1)),
        ("a duplicate", new_view(1, vec![change(0), change(1), change(1)], 1)),
        ("another primary", new_view(1, all(), 2)),
        ("a forged one", new_view(1, vec![change(0), change(1), Arc::new(forged)], 1)),
        ("one for a later view", new_view(1, ahead, 1)),
        ("a view behind", new_view(0, all(), 0)),
    ] {
        assert_eq!(view_after(vec![(1, message)]), View(0), "{name}");
    }
}

#[test]
fn a_malformed_certificate_in_a_view_change_spoils_it() {
    let hash = Digest([6; 32]);
    let good = || certificate(Phase::Prepare, 0, 1, hash, &[0, 1, 2]);
    let mutated = |change: &dyn Fn(&mut Certificate)| {
        let mut certificate = good();
        change(&mut certificate);
        certificate
    };
    let other = Digest([5; 32]);
    let bad: Vec<(&str, Certificate)> = vec![
        ("q - 1", certificate(Phase::Prepare, 0, 1, hash, &[0, 1])),
        ("a duplicate", certificate(Phase::Prepare, 0, 1, hash, &[0, 1, 1])),
        ("out of order", certificate(Phase::Prepare, 0, 1, hash, &[1, 0, 2])),
        ("a stranger", certificate(Phase::Prepare, 0, 1, hash, &[0, 1, 9])),
        ("COMMITs", certificate(Phase::Commit, 0, 1, hash, &[0, 1, 2])),
        ("not below the view", certificate(Phase::Prepare, 2, 1, hash, &[0, 1, 2])),
        ("COMMITs called PREPAREs", {
            let mut certificate = certificate(Phase::Commit, 0, 1, hash, &[0, 1, 2]);
            certificate.phase = Phase::Prepare;
            certificate
        }),
        ("another block", mutated(&|cert| cert.block_hash = other)),
        ("another height", mutated(&|cert| cert.height = Height(2))),
        ("another view", mutated(&|cert| cert.view = View(1))),
        ("another epoch", mutated(&|cert| cert.epoch = Epoch(1))),
        ("a later epoch's", {
            let round = (Phase::Prepare, Epoch(1), View(0));
            let range = || (Height(1), vec![hash]);
            let sign = |id: &u16| {
                Vote::sign(round, ReplicaId(*id), range(), &CLUSTER, &scheme(*id)).signed
            };
            let signatures = [0, 1, 2].iter().map(sign).collect();
            Certificate { epoch: Epoch(1), signatures, ..good() }
        }),
        ("a flipped signature", mutated(&|cert| cert.signatures[1].signature.0[0] ^= 1)),
        (
            "swapped signers",
            mutated(&|cert| {
                let signature = cert.signatures[0].signature;
                cert.signatures[0].signature = cert.signatures[1].signature;
                cert.signatures[1].signature = signature;
            }),
        ),
        (
            "mixed blocks",
            mutated(&|cert| cert.signatures[2] = vote(Phase::Prepare, 0, 1, other, 2).signed),
        ),
        (
            "mixed views",
            mutated(&|cert| cert.signatures[2] = vote(Phase::Prepare, 1, 1, hash, 2).signed),
        ),
    ];
    let believed = |certificate: Certificate| {
        let last = view_change(2, 2, Some(certificate));
        let changes = vec![view_change(2, 0, None), view_change(2, 1, None), last];
        let mut world = World::begun(4, 1, world::Options::default());
        world.blame(2);
        world.run_ms(50);
        world.deliver(2, 3, new_view(2, changes, 2));
        world.core(3).view.waiting.is_some()
    };
    assert!(believed(good()), "a sound one sets the base");
    for (name, certificate) in bad {
        assert!(!believed(certificate), "{name}");
    }
}

#[test]
fn a_second_block_of_a_primary_gets_no_vote() {
    let mut world = World::begun(4, 15, world::Options::default());
    world.equivocate(ReplicaId(0));
    world.keep_sent = true;
    world.submit(0);
    // 1 and 3 are shown another block than 2.
    let accepted = |world: &World, id| world.core(id).view.tip.height == Height(1);
    for _ in 0..200 {
        if accepted(&world, 2) && accepted(&world, 3) {
            break;
        }
        world.run_ms(1);
    }
    for (shown_to, also_to) in [(2, 3), (1, 2)] {
        assert!(accepted(&world, also_to), "{}", world.describe());
        let proposals = world.sent_to(0, shown_to).into_iter();
        for message in proposals.filter(|one| matches!(one, Message::PrePrepare { .. })) {
            // The world's ledger knows one vote per replica and place.
            world.deliver(0, also_to, message);
        }
    }
    for origin in 1..4 {
        world.submit(origin);
    }
    assert!(world.run_until_ordered(8000), "{}", world.describe());
}

#[test]
fn the_base_is_the_certificate_of_the_highest_view_not_height() {
    let (old, new) = (Digest([5; 32]), Digest([6; 32]));
    let high = certificate(Phase::Prepare, 0, 5, old, &[0, 1, 2]);
    let late = certificate(Phase::Prepare, 1, 3, new, &[0, 1, 2]);
    let changes =
        vec![view_change(2, 0, Some(high)), view_change(2, 1, None), view_change(2, 2, Some(late))];
    let mut world = World::begun(4, 1, world::Options::default());
    world.run_ms(50);
    world.deliver(2, 3, new_view(2, changes, 2));
    let base = world.core(3).view.waiting.as_ref().map(|waiting| waiting.base);
    assert_eq!(base, Some((Height(3), new)));
}

#[test]
fn f_liars_with_huge_views_move_nobody() {
    let mut world = World::begun(4, 1, world::Options::default());
    world.run_ms(50);
    world.deliver(2, 3, Message::ViewChange(view_change(1 << 60, 2, None)));
    assert_eq!(world.core(3).status().mode, Mode::Normal);
    world.deliver(1, 3, Message::ViewChange(view_change(7, 1, None)));
    assert_eq!(world.core(3).status().view, View(7), "of two, the lower one is joined");
}

#[test]
fn votes_count_once_and_only_from_their_voter() {
    let hash = Digest([6; 32]);
    let commit = |voter| vote(Phase::Commit, 0, 1, hash, voter);
    let certified = |messages: Vec<(u16, Vec<Vote>)>| {
        let mut world = World::begun(4, 1, world::Options::default());
        world.ban_expected = true;
        world.run_ms(50);
        for (from, votes) in messages {
            world.deliver(from, 3, Message::Votes(votes));
        }
        world.core(3).blocks.certificate.is_some()
    };
    let sound = vec![(0, vec![commit(0)]), (1, vec![commit(1)]), (2, vec![commit(2)])];
    assert!(certified(sound));
    assert!(!certified(vec![(0, vec![commit(0), commit(1), commit(2)])]), "others' votes");
    assert!(!certified(vec![(0, vec![commit(0)]), (1, vec![commit(1), commit(1)])]), "twice");
    let mut forged = commit(2);
    forged.signed.signature.0[0] ^= 1;
    let lied = vec![(0, vec![commit(0)]), (1, vec![commit(1)]), (2, vec![forged])];
    assert!(!certified(lied), "a bad signature");
    let elsewhere = vote(Phase::Commit, 1, 1, hash, 2);
    let mixed = vec![(0, vec![commit(0)]), (1, vec![commit(1)]), (2, vec![elsewhere])];
    assert!(!certified(mixed), "views never mix");
}

#[test]
fn a_height_claimed_without_a_certificate_moves_nothing() {
    let mut world = World::begun(4, 1, world::Options::default());
    world.run_ms(50);
    let huge = Height(1 << 63);
    let status = Status {
        epoch: Epoch(0),
        view: View(0),
        mode: Mode::Normal,
        unix_ms: crate::types::Millis(0),
        committed: huge,
        executed: huge,
        stable: Height(0),
    };
    world.deliver(2, 3, Message::Status(status));
    let hash = Digest([6; 32]);
    let short = certificate(Phase::Commit, 0, 1 << 40, hash, &[0, 1]);
    world.ban_expected = true;
    world.deliver(2, 3, Message::Certificate(short));
    world.run_ms(500);
    let status = world.core(3).status();
    assert_eq!((status.mode, status.committed), (Mode::Normal, Height(0)));
    assert_eq!(world.core(3).blocks.certificate, None);
}

#[test]
fn a_read_survives_a_liar_above_every_height() {
    let mut world = World::begun(4, 21, world::Options::default());
    world.lie_about_reads(2);
    world.submit(1);
    assert!(world.run_until_ordered(2000));
    world.read(3);
    assert!(world.run_until_read(4000), "{}", world.describe());
}

#[test]
fn late_answers_to_an_earlier_question_answer_no_later_read() {
    let mut world = World::begun(4, 22, world::Options::default());
    let counter = world.core(3).reads_asked() + 1;
    let nonce = ReadNonce { start: [world.starts(3); 32], counter };
    world.cut(3);
    world.read(3);
    world.run_ms(20);
    let stale = world.core(3).status().executed;
    for origin in 0..3 {
        world.submit(origin);
    }
    world.run_ms(1000);
    assert!(world.core(0).status().committed > stale, "{}", world.describe());
    // A write is acknowledged that this read must see, and both are asked for again and again.
    world.read(3);
    for _ in 0..3 {
        world.run_ms(600);
        for from in 0..3 {
            let (mark, committed) = (stale, stale);
            let answer = ReadAnswer { nonce, epoch: Epoch(0), mark, committed };
            world.deliver(from, 3, Message::ReadAnswer(answer));
        }
    }
    world.heal();
    assert!(world.run_until_read(8000), "{}", world.describe());
}
