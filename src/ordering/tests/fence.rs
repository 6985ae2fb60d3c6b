//! Lost and rolled-back disks, twins, and a network's first start (protocol.md 6.4 to 6.8).

use super::*;

/// Orders a few blocks with everybody.
fn work(world: &mut World, n: u16) {
    for id in 0..n {
        world.submit(id);
        world.run_ms(30);
    }
    assert!(world.run_until_ordered(5000), "{}", world.describe());
}

fn rejoined(world: &World, id: u16) -> bool {
    world.is_up(id) && world.core(id).status().mode == Mode::Normal
}

#[test]
fn a_wiped_replica_is_fenced_syncs_rejoins_and_votes() {
    for seed in 0..8 {
        let n = [4, 4, 5, 7][(seed % 4) as usize];
        let mut world =
            World::begun(n, seed, Options { drop_percent: seed % 3, ..Options::default() });
        work(&mut world, n);
        let victim = (seed % u64::from(n)) as u16;
        world.kill(victim);
        world.wipe(victim);
        world.submit((victim + 1) % n);
        world.run_ms(seed * 100);
        world.restart(victim);
        world.run_ms(5000);
        assert_eq!(world.fences(victim), 1, "seed {seed}");
        assert!(rejoined(&world, victim), "seed {seed}: {}", world.describe());
        world.options.drop_percent = 0;
        work(&mut world, n);
        // Its vote is needed once f others are gone.
        let gone = (1..=(n - 1) / 3).map(|at| (victim + at) % n);
        gone.for_each(|id| world.kill(id));
        world.submit(victim);
        assert!(world.run_until_ordered(20_000), "seed {seed}: {}", world.describe());
    }
}

#[test]
fn a_rolled_back_replica_is_fenced_and_comes_back() {
    for seed in 0..8 {
        let mut world = World::begun(4, seed, Options::default());
        work(&mut world, 4);
        let victim = (seed % 4) as u16;
        world.copy(victim);
        if seed % 3 == 0 {
            world.kill((victim + 1) % 4);
            world.submit(victim);
            world.run_ms(4000);
            world.restart((victim + 1) % 4);
        }
        work(&mut world, 4);
        world.kill(victim);
        world.roll_back(victim);
        world.restart(victim);
        world.run_ms(4000);
        assert_eq!(world.fences(victim), 1, "seed {seed}: {}", world.describe());
        assert!(rejoined(&world, victim), "seed {seed}: {}", world.describe());
        work(&mut world, 4);
        // Votes of before the fence are remembered by others, and mean nothing any more.
        world.kill(victim);
        world.restart(victim);
        world.run_ms(2000);
        assert_eq!(world.fences(victim), 1, "seed {seed}: fenced again");
        work(&mut world, 4);
    }
}

#[test]
fn a_fence_survives_a_crash_and_a_new_process_needs_a_new_nonce() {
    let mut world = calm(4, 3);
    work(&mut world, 4);
    world.kill(2);
    world.wipe(2);
    world.cut(2);
    world.restart(2);
    world.run_ms(50);
    world.heal();
    // Fenced, its REJOIN on the way.
    let fenced = |world: &World| world.core(2).status().mode == Mode::Fenced;
    for _ in 0..400 {
        if fenced(&world) {
            break;
        }
        world.run_ms(1);
    }
    assert!(fenced(&world), "{}", world.describe());
    world.run_ms(30);
    world.kill(2);
    world.restart(2);
    assert!(fenced(&world), "the record stands");
    // 10 s of block time between two of its REJOINs.
    for _ in 0..13 {
        world.submit(1);
        world.run_ms(1000);
    }
    assert!(rejoined(&world, 2), "{}", world.describe());
    work(&mut world, 4);
}

#[test]
fn more_wiped_than_a_quorum_can_miss_stop_and_say_so() {
    let mut world = calm(4, 5);
    work(&mut world, 4);
    for id in [1, 2] {
        world.kill(id);
        world.wipe(id);
    }
    world.restart(1);
    world.restart(2);
    world.run_ms(20_000);
    for id in [1, 2] {
        assert_eq!(world.core(id).status().mode, Mode::Fenced, "{}", world.describe());
        assert_eq!(world.fences(id), 1);
    }
    assert!(!world.core(0).status().has_leader);
}

#[test]
fn a_network_begins_when_all_are_there_and_not_before() {
    let mut world = World::absent(4, 6);
    for id in [0, 1, 3] {
        world.restart(id);
    }
    world.run_ms(8000);
    for id in [0, 1, 3] {
        assert_eq!(world.core(id).status().mode, Mode::Syncing);
        assert_eq!(world.waits_for(id), [ReplicaId(2)], "it says whom it waits for");
    }
    world.restart(2);
    world.run_ms(300);
    assert!((0..4).all(|id| rejoined(&world, id)), "{}", world.describe());
    assert!(world.cores().all(|core| core.status().view == View(0)));
    work(&mut world, 4);
}

#[test]
fn crashes_while_a_network_begins_leave_it_able_to_begin() {
    for seed in 0..30 {
        let mut world = World::new(4, seed, Options::default());
        let pause = world.below(20);
        world.run_ms(pause);
        let victim = world.below(4) as u16;
        world.kill(victim);
        world.lost_its_start(victim);
        let pause = world.below(30);
        world.run_ms(pause);
        world.restart(victim);
        world.run_ms(6000);
        (0..4).for_each(|id| world.submit(id));
        assert!(world.run_until_ordered(20_000), "seed {seed}: {}", world.describe());
    }
}

#[test]
fn a_twin_on_an_old_disk_is_stopped_before_it_votes() {
    // The twin is the restarted one: the others hold newer votes of the key than its disk.
    let mut world = calm(4, 8);
    work(&mut world, 4);
    world.copy(3);
    work(&mut world, 4);
    world.kill(3);
    world.roll_back(3);
    world.cut(0);
    world.restart(3);
    world.run_ms(1000);
    assert_eq!(world.fences(3), 1);
    assert_eq!(world.votes_since_restart(3), 0);
}

#[test]
fn an_own_vote_that_this_process_did_not_make_stops_it() {
    let mut world = calm(4, 9);
    work(&mut world, 4);
    world.expect_halt(2);
    let nonce = [world.starts(2); 32];
    let foreign = world.vote_of(2, Phase::Commit, View(0), Height(1000));
    let votes = ShownVotes { commit: Some(foreign.into()), ..ShownVotes::default() };
    let standing = Standing::Started;
    let answer = VotesAnswer { nonce, from: [9; 32], standing, votes };
    world.deliver(1, 2, Message::VotesAnswer(Box::new(answer)));
    let reason = world.halted(2).expect("it stopped");
    assert!(reason.starts_with("DUPLICATE_IDENTITY"), "{reason}");
}

#[test]
fn a_claim_without_the_own_signature_fences_nobody() {
    let mut world = calm(4, 10);
    work(&mut world, 4);
    let nonce = [world.starts(2); 32];
    let mut forged = world.vote_of(1, Phase::Commit, View(7), Height(1000));
    for replica in [ReplicaId(1), ReplicaId(2)] {
        forged.signed.replica = replica;
        let commit = Some(std::sync::Arc::new(forged.clone()));
        let votes = ShownVotes { commit, ..ShownVotes::default() };
        let standing = Standing::Started;
        let answer = VotesAnswer { nonce, from: [9; 32], standing, votes };
        world.deliver(1, 2, Message::VotesAnswer(Box::new(answer)));
    }
    assert_eq!(world.core(2).status().mode, Mode::Normal);
    assert_eq!(world.fences(2), 0);
}

#[test]
fn losses_of_up_to_f_disks_among_crashes_fork_nobody_and_end_in_progress() {
    for seed in 20..32 {
        let n = [4, 4, 5, 7][(seed % 4) as usize];
        let mut world =
            World::begun(n, seed, Options { drop_percent: seed % 5, ..Options::default() });
        for _ in 0..8 {
            let origin = world.below(u64::from(n)) as u16;
            world.submit(origin);
            let pause = world.below(900);
            world.run_ms(pause);
            let victim = world.below(u64::from(n)) as u16;
            world.copy(victim);
            // One that is not back yet counts as faulty.
            let sound = (0..n).all(|id| world.is_up(id) && rejoined_or_late(&world, id));
            world.kill_if_up(victim);
            match world.below(3) {
                0 if sound => world.wipe(victim),
                1 if sound => world.roll_back(victim),
                _ => {}
            }
            let pause = world.below(1500);
            world.run_ms(pause);
            world.restart(victim);
            world.run_ms(1500);
        }
        world.options.drop_percent = 0;
        world.run_ms(12_000);
        (0..n).for_each(|id| world.submit(id));
        assert!(world.run_until_ordered(40_000), "seed {seed}: {}", world.describe());
    }
}

fn rejoined_or_late(world: &World, id: u16) -> bool {
    !matches!(world.core(id).status().mode, Mode::Fenced | Mode::Syncing)
}
