//! State transfer: a replica whose blocks are gone everywhere arrives, whatever one source does.

use crate::chain::{CheckpointCertificate, CheckpointId};
use crate::ordering::Message;
use crate::ordering::tests::world::{Options, SourceLie, World};
use crate::types::{Digest, Epoch, Height};

/// Replica 3 is away while the others order `blocks` and erase all that they may.
fn one_far_behind(seed: u64, blocks: u64, options: Options) -> World {
    let mut world = World::begun(4, seed, Options { checkpoint_every: 3, ..options });
    world.submit(3);
    assert!(world.run_until_ordered(8000), "{}", world.describe());
    world.cut(3);
    for turn in 0..blocks {
        world.submit((turn % 3) as u16);
        world.run_ms(250);
    }
    world.run_ms(3000);
    let horizon = world.stable(0).minus(3);
    assert!(horizon > Height(3), "{}", world.describe());
    (0..3).for_each(|replica| world.erase(replica, horizon));
    world
}

/// It follows, and nothing is ordered without it while another is down.
fn arrives_and_votes(world: &mut World) {
    assert!(world.run_until_ordered(120_000), "{}", world.describe());
    assert!(world.installed > 0, "it came another way: {}", world.describe());
    world.kill(0);
    world.submit(3);
    assert!(world.run_until_ordered(60_000), "{}", world.describe());
    world.restart(0);
    assert!(world.run_until_ordered(60_000), "{}", world.describe());
}

#[test]
fn a_replica_far_behind_arrives_under_load_and_votes() {
    for seed in 1..8 {
        let mut world = one_far_behind(seed, 12, Options::default());
        world.heal();
        for turn in 0..20 {
            world.submit(turn % 4);
            world.run_ms(20);
        }
        arrives_and_votes(&mut world);
        assert!(world.core(3).status().counters.views_entered < 50, "{}", world.describe());
    }
}

#[test]
fn whatever_one_source_does_the_replica_arrives_and_only_the_liar_is_named() {
    use SourceLie::{
        Everything, Longer, NothingHeld, OtherChunk, OtherManifest, Silent, Unasked, WrongBytes,
    };
    let harmless = [Silent, NothingHeld];
    for lie in
        [WrongBytes, Longer, OtherChunk, Unasked, Silent, NothingHeld, OtherManifest, Everything]
    {
        let mut named = 0;
        for seed in 1..6 {
            let mut world = one_far_behind(seed, 12, Options::default());
            world.lie_as_source(1, lie);
            world.heal();
            arrives_and_votes(&mut world);
            named += world.liars_named;
        }
        assert_eq!(named > 0, !harmless.contains(&lie), "{lie:?}: named {named} times");
    }
}

#[test]
fn a_transfer_that_a_crash_interrupts_goes_on_with_what_is_there() {
    let mut resumed = 0;
    for seed in 1..20 {
        let mut world = one_far_behind(seed, 12, Options::default());
        world.heal();
        let mut patience = 20_000;
        while world.chunks_gathered(3) < 3 && world.core(3).status().committed < Height(4) {
            world.run_ms(1);
            patience -= 1;
            assert!(patience > 0, "{}", world.describe());
        }
        let gathered = world.chunks_gathered(3) as u64;
        world.kill(3);
        world.run_ms(50);
        world.restart(3);
        let mut most = 0;
        for _ in 0..4000 {
            world.run_ms(1);
            most = most.max(world.core(3).status().counters.chunks_resumed);
        }
        assert!(most == 0 || most >= gathered, "{most} of {gathered} were not asked for again");
        resumed += most;
        arrives_and_votes(&mut world);
    }
    assert!(resumed > 0, "no run was interrupted in the middle");
}

#[test]
fn a_checkpoint_that_nobody_holds_any_more_is_given_up_for_a_newer_one() {
    let mut world = one_far_behind(5, 12, Options::default());
    // It hears of the newest, and by the time it asks for chunks there is a newer one alone.
    (0..3).for_each(|source| world.lie_as_source(source, SourceLie::Silent));
    world.heal();
    world.run_ms(800);
    for turn in 0..9 {
        world.submit(turn % 3);
        world.run_ms(250);
    }
    world.run_ms(2000);
    (0..3).for_each(|replica| world.drop_older_checkpoints(replica));
    (0..3).for_each(|source| world.lie_as_source(source, SourceLie::OtherManifest));
    world.heal();
    // Now they are honest again.
    (0..3).for_each(|source| world.tell_the_truth(source));
    arrives_and_votes(&mut world);
}

#[test]
fn a_silent_source_does_not_keep_what_all_others_have_left() {
    for seed in 1..6 {
        let mut world = one_far_behind(seed, 12, Options::default());
        (0..3).for_each(|source| world.lie_as_source(source, SourceLie::Silent));
        world.heal();
        world.run_ms(800);
        for turn in 0..9 {
            world.submit(turn % 3);
            world.run_ms(250);
        }
        world.run_ms(2000);
        // Two are honest again, and hold a newer checkpoint alone; the third never answers.
        for source in [0, 2] {
            world.drop_older_checkpoints(source);
            world.tell_the_truth(source);
        }
        arrives_and_votes(&mut world);
    }
}

#[test]
fn lost_messages_only_cost_time() {
    for seed in 1..6 {
        let options = Options { drop_percent: 20, ..Options::default() };
        let mut world = one_far_behind(seed, 14, options);
        world.heal();
        arrives_and_votes(&mut world);
    }
}

#[test]
fn certificates_that_prove_nothing_and_old_ones_move_nothing() {
    let mut world = one_far_behind(9, 12, Options::default());
    world.ban_expected = true;
    let id = CheckpointId {
        height: Height(u64::MAX),
        block_hash: Digest([1; 32]),
        exec_root: Digest([2; 32]),
        manifest_root: Digest([3; 32]),
    };
    let forged = CheckpointCertificate { epoch: Epoch(0), id, signatures: Vec::new() };
    let erased = Message::Erased { from: Height(2), certificate: forged.clone() };
    world.deliver(1, 3, erased);
    world.deliver(1, 3, Message::CheckpointCertificate(forged));
    assert_eq!(world.core(3).status().counters.transfers_begun, 0);
    // A certificate that holds, of a checkpoint below what is executed: at a replica that is ahead.
    let old = world.stable_in_log(0).remove(0);
    let erased = Message::Erased { from: Height(1), certificate: old };
    world.deliver(2, 0, erased);
    world.run_ms(500);
    assert_eq!(world.core(0).status().counters.transfers_begun, 0);
    let chunk = Message::Chunk { root: Digest([9; 32]), number: 0, bytes: None };
    world.deliver(2, 0, chunk);
    world.heal();
    arrives_and_votes(&mut world);
}
