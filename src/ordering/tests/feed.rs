//! Members without a vote: fed as blocks commit, whoever feeds them, and served like voters.

use super::epochs::{change, load, new_replica, promote, reach};
use super::world::{Options, World};
use super::*;
use crate::chain::{ConfigAction, NewReplica};
use crate::types::{Height, ReplicaId};

/// A network of four and replica 4, an observer of organisation 1.
fn observed(seed: u64, options: Options) -> World {
    let mut world = World::begun(4, seed, options);
    load(&mut world, 50);
    let new = NewReplica {
        organisation: "org1".to_owned(),
        governance_keys: Vec::new(),
        observer: true,
        ..new_replica(4)
    };
    change(&mut world, 0, ConfigAction::Add(new), &[0, 1, 2]);
    reach(&mut world, 1, 3000);
    world.join(4);
    reach(&mut world, 1, 8000);
    assert!(world.run_until_ordered(20_000), "{}", world.describe());
    world
}

fn fed(world: &World) -> u64 {
    world.core(4).status().counters.fed_blocks
}

#[test]
fn an_observer_is_fed_as_blocks_commit_and_its_requests_are_answered_at_once() {
    for seed in 0..4 {
        let mut world = observed(seed, Options::default());
        let asked = world.core(4).status().counters.caught_up_blocks - fed(&world);
        for turn in 0..30 {
            world.submit(if turn % 2 == 0 { 4 } else { 2 });
            // By STATUS alone it would learn of a block within 200 ms, and ask 30 ms later.
            assert!(world.run_until_ordered(100), "turn {turn}: {}", world.describe());
            world.read(4);
            assert!(world.run_until_read(50), "turn {turn}: {}", world.describe());
        }
        let status = world.core(4).status();
        assert_eq!(status.counters.caught_up_blocks - fed(&world), asked, "no page was needed");
        assert_eq!(status.mode, Mode::Observer);
        assert_eq!(world.votes_since_restart(4), 0, "it never votes");
    }
}

#[test]
fn an_observer_whose_feeder_dies_or_whose_pages_are_lost_goes_on() {
    for seed in 0..3 {
        let mut world = observed(seed, Options { drop_percent: 10, ..Options::default() });
        load(&mut world, 300);
        // Its own organisation's voter.
        world.kill(1);
        load(&mut world, 1000);
        world.read(4);
        assert!(world.run_until_ordered(10_000), "{}", world.describe());
        assert!(world.run_until_read(10_000), "{}", world.describe());
        world.restart(1);
        assert!(world.run_until_ordered(10_000), "{}", world.describe());
        let before = fed(&world);
        world.cut(0);
        // Through a view change; no more than a pool holds.
        for _ in 0..100 {
            (1..5).for_each(|id| world.submit(id));
            world.run_ms(40);
        }
        world.heal();
        assert!(world.run_until_ordered(10_000), "{}", world.describe());
        assert!(fed(&world) > before, "fed again: {}", world.describe());
    }
}

#[test]
fn a_silent_feeder_is_replaced_and_one_that_lies_is_not_believed() {
    let mut world = observed(7, Options::default());
    // It hears nothing of the feeder, which is linked all the same.
    world.cut_feed = Some(1);
    load(&mut world, 2000);
    assert!(world.run_until_ordered(5000), "{}", world.describe());
    let before = fed(&world);
    load(&mut world, 500);
    assert!(fed(&world) > before + 10, "another feeds it: {}", world.describe());

    world.ban_expected = true;
    world.cut_feed = None;
    let height = world.core(4).status().committed;
    let tip = world.core(0).blocks.committed_at(height).expect("in memory").block.clone();
    let mut certificate = world.core(0).blocks.certificate.clone().expect("a certificate");
    certificate.height = height;
    certificate.block_hash = tip.hash();
    certificate.signatures.truncate(1);
    for from in 0..4 {
        let mut block = (*tip).clone();
        block.header.height = height.next();
        block.header.parent = tip.hash();
        let forged = crate::chain::Certificate {
            height: height.next(),
            block_hash: block.hash(),
            ..certificate.clone()
        };
        let blocks = vec![std::sync::Arc::new(block)];
        world.deliver(from, 4, Message::Blocks { blocks, certificate: forged });
    }
    assert_eq!(world.core(4).status().committed, height);
    load(&mut world, 500);
    assert!(world.run_until_ordered(5000), "{}", world.describe());
}

#[test]
fn what_a_follower_asks_for_again_is_bounded_and_voters_and_strangers_are_not_fed() {
    let mut world = observed(3, Options::default());
    load(&mut world, 100);
    let pages = |outputs: &[Output]| {
        let page = |output: &&Output| {
            matches!(output, Output::Send { message: Message::Blocks { .. }, .. })
        };
        outputs.iter().filter(page).count()
    };
    let mut ask = |peer: u16, from: u64| {
        let message = Message::Follow { from: Height(from) };
        pages(&world.outputs_of(0, Input::Recv { peer: ReplicaId(peer), message }))
    };
    let mut sent = 0;
    for turn in 0..1000 {
        sent += ask(4, if turn % 2 == 0 { 1 << 40 } else { 1 });
    }
    assert!(sent < 40, "{sent} pages for one follower at once");
    assert_eq!(ask(2, 1), 0, "a voter");
    assert_eq!(ask(9, 1), 0, "no member");
}

#[test]
fn a_promoted_learner_is_fed_until_it_votes() {
    let mut world = World::begun(4, 12, Options::default());
    load(&mut world, 50);
    change(&mut world, 0, ConfigAction::Add(new_replica(4)), &[0, 1, 2]);
    reach(&mut world, 1, 3000);
    world.join(4);
    reach(&mut world, 1, 8000);
    load(&mut world, 500);
    let before = fed(&world);
    assert!(before > 10, "{}", world.describe());
    change(&mut world, 4, promote(4), &[0, 1, 2]);
    reach(&mut world, 2, 5000);
    let at_promotion = fed(&world);
    load(&mut world, 500);
    assert_eq!(fed(&world), at_promotion, "a voter is fed by nobody");
    world.kill(0);
    load(&mut world, 500);
    assert!(world.run_until_ordered(8000), "its vote is needed: {}", world.describe());
}

#[test]
fn only_a_replica_that_spoke_before_is_told_that_its_disk_is_lost() {
    let mut world = observed(5, Options::default());
    assert_eq!(world.fences(4), 0, "it joined");
    world.submit(4);
    assert!(world.run_until_ordered(5000), "{}", world.describe());
    // REJOINs of one replica are 10 s apart.
    world.run_ms(10_000);
    world.kill(4);
    world.wipe(4);
    world.restart(4);
    load(&mut world, 3000);
    world.submit(4);
    assert!(world.run_until_ordered(60_000), "{}", world.describe());
    assert_eq!(world.fences(4), 1, "its disk was lost");
}

#[test]
fn members_without_a_vote_do_not_widen_the_quorum_margin() {
    let mut world = observed(3, Options::default());
    let membership = world.network().membership;
    let margin = |world: &World, id: u16| {
        let status = world.core(id).status();
        status.quorum_margin(ReplicaId(id), &membership)
    };
    let of_all = |world: &World, ids: &[u16]| ids.iter().map(|id| margin(world, *id)).collect();
    let all: Vec<i64> = of_all(&world, &[0, 1, 2, 3, 4]);
    assert_eq!(all, [1; 5], "four voters are linked, three decide");
    let lose = |world: &mut World, peer: u16| {
        for id in (0..5).filter(|id| *id != peer) {
            world.outputs_of(id, Input::PeerDown { peer: ReplicaId(peer) });
        }
    };
    lose(&mut world, 3);
    let rest: Vec<i64> = of_all(&world, &[0, 1, 2, 4]);
    assert_eq!(rest, [0; 4], "the observer stands in for nobody");
    lose(&mut world, 2);
    let rest: Vec<i64> = of_all(&world, &[0, 1, 4]);
    assert_eq!(rest, [-1; 3], "and nothing is ordered");
}

#[test]
fn a_repaired_observer_serves_again_once_it_has_caught_up_though_it_never_votes() {
    let mut world = observed(5, Options::default());
    load(&mut world, 300);
    assert!(world.run_until_ordered(5000), "{}", world.describe());
    world.kill(4);
    world.wipe(4);
    world.restart(4);
    let served = |world: &World| world.core(4).status().has_caught_up(4);
    assert!(!served(&world), "it holds nothing yet");
    load(&mut world, 500);
    assert!(world.run_until_ordered(20_000), "{}", world.describe());
    world.run_ms(500);
    assert_eq!(world.core(4).status().mode, Mode::Observer);
    assert!(served(&world), "{}", world.describe());
    assert!(world.core(2).status().has_caught_up(4), "like one that votes");
}
