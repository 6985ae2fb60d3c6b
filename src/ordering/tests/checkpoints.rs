//! Checkpoints: certified by a quorum, shown to who missed them, and a replica that holds other bytes.

use crate::chain::{CheckpointId, CheckpointVote};
use crate::ordering::tests::world::{Options, World, scheme};
use crate::ordering::{Message, Mode};
use crate::types::{Digest, Epoch, Height, ReplicaId};

fn with_checkpoints(n: u16, seed: u64) -> World {
    World::begun(n, seed, Options { checkpoint_every: 3, ..Options::default() })
}

fn order(world: &mut World, origin: u16, blocks: u64) {
    for _ in 0..blocks {
        world.submit(origin);
        assert!(world.run_until_ordered(5000), "{}", world.describe());
    }
}

fn id(height: u64, manifest: u8) -> CheckpointId {
    CheckpointId {
        height: Height(height),
        block_hash: Digest([1; 32]),
        exec_root: Digest([2; 32]),
        manifest_root: Digest([manifest; 32]),
    }
}

fn vote(voter: u16, id: CheckpointId) -> Message {
    let (epoch, cluster) = (Epoch(0), Digest([8; 32]));
    Message::Checkpoint(CheckpointVote::sign(epoch, ReplicaId(voter), id, &cluster, &scheme(voter)))
}

#[test]
fn a_checkpoint_that_a_quorum_holds_becomes_stable_at_every_replica() {
    for n in [1, 2, 3, 4, 7] {
        let mut world = with_checkpoints(n, 3);
        order(&mut world, 0, 7);
        world.run_ms(2000);
        for replica in 0..n {
            assert_eq!(world.stable(replica), Height(6), "n = {n}: {}", world.describe());
        }
        world.check_certificates();
    }
}

#[test]
fn a_replica_that_was_away_is_shown_the_certificate() {
    let mut world = with_checkpoints(4, 5);
    world.cut(3);
    world.submit(0);
    world.run_ms(500);
    for _ in 0..6 {
        world.submit(1);
        world.run_ms(200);
    }
    assert_eq!(world.stable(0), Height(6), "{}", world.describe());
    assert_eq!(world.stable(3), Height(0));
    world.heal();
    world.run_ms(1500);
    assert_eq!(world.stable(3), Height(6), "{}", world.describe());
}

#[test]
fn votes_are_repeated_after_a_restart_and_while_a_quorum_is_away() {
    let mut world = with_checkpoints(4, 8);
    order(&mut world, 0, 2);
    world.kill(3);
    world.submit(0);
    world.run_ms(8);
    // Nobody's checkpoint is written yet, or its vote is lost with the process.
    world.cut(1);
    world.run_ms(1000);
    world.kill(0);
    world.restart(0);
    world.heal();
    world.restart(3);
    world.run_ms(4000);
    order(&mut world, 0, 4);
    world.run_ms(3000);
    for replica in 0..4 {
        assert!(world.stable(replica) >= Height(3), "{}", world.describe());
    }
}

#[test]
fn votes_of_f_liars_make_nothing_stable_and_nobody_leaves() {
    let mut world = with_checkpoints(4, 13);
    world.blame(3);
    world.ban_expected = true;
    for height in 1..200 {
        for manifest in [1, 2] {
            (0..3).for_each(|to| world.deliver(3, to, vote(3, id(height, manifest))));
        }
    }
    // Others' votes under the own name, and the own under another's.
    (0..3).for_each(|to| world.deliver(3, to, vote(1, id(5, 9))));
    world.run_ms(1000);
    assert!((0..3).all(|replica| world.stable(replica) == Height(0)));
    order(&mut world, 0, 7);
    world.run_ms(2000);
    assert!((0..3).all(|replica| world.stable(replica) == Height(6)), "{}", world.describe());
    assert!((0..3).all(|replica| world.core(replica).status().mode == Mode::Normal));
}

#[test]
fn a_replica_whose_checkpoint_f_plus_one_others_contradict_is_quarantined() {
    let mut world = with_checkpoints(4, 21);
    world.write_other_checkpoints(2);
    for _ in 0..7 {
        world.submit(0);
        world.run_ms(200);
    }
    world.run_ms(2000);
    assert_eq!(world.core(2).status().mode, Mode::Quarantined, "{}", world.describe());
    assert_eq!(world.stable(0), Height(6), "{}", world.describe());
}

#[test]
fn who_asks_for_erased_blocks_is_told_which_checkpoint_to_use() {
    let mut world = with_checkpoints(4, 34);
    world.cut(3);
    for _ in 0..7 {
        world.submit(0);
        world.run_ms(200);
    }
    (0..3).for_each(|replica| world.erase(replica, Height(3)));
    world.heal();
    world.run_ms(2000);
    assert_eq!(world.stable(3), Height(6), "{}", world.describe());
    assert_eq!(world.blocks_in_log(3), 1, "only what follows the checkpoint came as a block");
    assert!(world.run_until_ordered(5000), "{}", world.describe());
}
