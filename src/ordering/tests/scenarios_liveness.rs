//! Scenarios of consensus.md 16 about going on: what must not stop the network, and what must not move it.

use std::sync::Arc;

use super::lies::view_change;
use super::world::{Options, World, bundle};
use super::*;

fn ordered(world: &mut World, ms: u64) {
    assert!(world.run_until_ordered(ms), "{}", world.describe());
}

fn views(world: &World) -> Vec<u64> {
    world.cores().map(|core| core.status().view.0).collect()
}

/// Who asks before the network has begun is answered when it has, not at the next question (12.4).
#[test]
fn a_read_from_before_the_network_began_waits_for_no_timer() {
    for n in [3, 4] {
        let mut world = World::new(n, 19, Options::default());
        (0..n).for_each(|id| world.read(id));
        assert!(world.run_until_read(250), "{}", world.describe());
    }
}

/// 24: a late copy of a bundle that was executed starts no timer.
#[test]
fn a_late_copy_of_an_executed_bundle_suspects_nobody() {
    let mut world = World::begun(4, 3, Options::default());
    world.run_ms(50);
    let done = bundle(2, 0, 0, 7);
    world.deliver(2, 0, Message::Bundle(done.clone()));
    world.run_ms(300);
    assert!(world.cores().all(|core| core.status().executed == Height(1)));
    (0..4).filter(|to| *to != 2).for_each(|to| world.deliver(2, to, Message::Bundle(done.clone())));
    world.run_ms(5000);
    assert_eq!(views(&world), [0; 4]);
    assert!(world.cores().all(|core| core.status().pool_bundles == 0), "{}", world.describe());
}

/// 25: f replicas fall silent after they prepared: the block finishes.
#[test]
fn a_block_finishes_although_f_fall_silent_after_their_prepare() {
    for silent in 0..4 {
        for ms in [2, 5, 8] {
            let mut world = World::begun(4, ms, Options::default());
            world.run_ms(50);
            world.submit((silent + 1) % 4);
            world.run_ms(ms);
            world.cut(silent);
            world.run_ms(4000);
            let executed = world.cores().filter(|core| core.status().executed >= Height(1)).count();
            assert!(executed >= 3, "{silent} silent after {ms} ms: {}", world.describe());
        }
    }
}

/// 27, 28: two of four are away for ten minutes; the others' views stay small and the first commit comes
/// soon after the return.
#[test]
fn ten_minutes_without_a_quorum_leave_the_views_small() {
    let mut world = World::begun(4, 9, Options::default());
    world.submit(2);
    ordered(&mut world, 1000);
    world.kill(0);
    world.kill(1);
    world.submit(2);
    world.run_ms(600_000);
    assert!(views(&world).iter().all(|view| *view <= 2), "{}", world.describe());
    world.restart(0);
    world.restart(1);
    ordered(&mut world, 16_000);
}

/// A replica that is cut off, with requests of its clients waiting and at any moment between two STATUS,
/// leaves its view not even once: it cannot know that its primary is at fault. Nor does its return move
/// the others.
#[test]
fn who_is_cut_off_accuses_nobody() {
    for seed in 0..12 {
        let mut world = World::begun(4, 900 + seed, Options::default());
        world.submit(2);
        ordered(&mut world, 1000);
        world.run_ms(500 + 17 * seed);
        let primary = world.core(0).status().primary.expect("a primary").0;
        let backup = (primary + 1 + (seed % 3) as u16) % 4;
        let before = views(&world);
        if seed % 2 == 0 {
            world.submit(backup);
        }
        world.run_ms(seed % 5);
        world.cut(backup);
        world.submit(backup);
        world.run_ms(3000);
        assert_eq!(views(&world), before, "seed {seed}: {}", world.describe());
        world.heal();
        ordered(&mut world, 20_000);
        assert_eq!(views(&world), before, "seed {seed}: {}", world.describe());
    }
}

/// 34: whoever leads next is cut off, again and again; once that stops there is progress.
#[test]
fn progress_returns_once_leaders_are_left_alone() {
    let mut world = World::begun(4, 21, Options::default());
    world.submit(2);
    ordered(&mut world, 1000);
    for _ in 0..12 {
        let view = world.cores().map(|core| core.status().view.0).max().unwrap_or_default();
        world.heal();
        world.cut((view % 4) as u16);
        (0..4).for_each(|id| world.submit(id));
        world.run_ms(900);
    }
    world.heal();
    ordered(&mut world, 20_000);
}

/// 36, 44: replicas ask for views 5, 6 and 7: they meet, and what was set for the skipped ones does nothing.
#[test]
fn different_views_asked_for_converge_and_their_timers_are_forgotten() {
    let mut world = World::begun(4, 22, Options::default());
    (0..3).for_each(|id| world.blame(id));
    world.run_ms(50);
    for (replica, view) in [(0, 5), (1, 6), (2, 7)] {
        let change = view_change(view, replica, None);
        for to in (0..4).filter(|to| *to != replica) {
            world.deliver(replica, to, Message::ViewChange(Arc::clone(&change)));
        }
    }
    (0..4).for_each(|id| world.submit(id));
    ordered(&mut world, 20_000);
    let met = views(&world);
    assert!(met.iter().all(|view| *view == met[0]), "{met:?}");
    world.run_ms(20_000);
    assert_eq!(views(&world), met, "no timer of a skipped view fires");
}

/// 43: timeouts that failed views had doubled are back to the base after one commit.
#[test]
fn one_commit_brings_doubled_timeouts_back() {
    let mut world = World::begun(4, 23, Options::default());
    world.submit(2);
    ordered(&mut world, 1000);
    for _ in 0..3 {
        let view = world.cores().map(|core| core.status().view.0).max().unwrap_or_default();
        world.heal();
        world.cut((view % 4) as u16);
        world.cut(((view + 1) % 4) as u16);
        (0..4).for_each(|id| world.submit(id));
        world.run_ms(2500);
    }
    world.heal();
    (0..4).for_each(|id| world.submit(id));
    ordered(&mut world, 20_000);
    world.submit(1);
    ordered(&mut world, 2000);
    world.run_ms(500);
    let base = world.core(0).membership.parameters.view_timeout_ms;
    assert!(world.cores().all(|core| core.view_timeout_ms() == base), "{}", world.describe());
}

/// 41: a primary and a liar keep one correct replica from every COMMIT: certificates reach it all the same.
#[test]
fn a_starved_replica_follows_by_certificates() {
    let mut world = World::begun(4, 24, Options::default());
    world.run_ms(50);
    for round in 0..5 {
        world.cut(3);
        world.submit(1);
        world.run_ms(150);
        world.heal();
        world.run_ms(1000);
        let heights: Vec<u64> = world.cores().map(|core| core.status().committed.0).collect();
        assert!(heights.iter().all(|height| *height == heights[0]), "round {round}: {heights:?}");
    }
    world.submit(3);
    ordered(&mut world, 2000);
}

/// 52: two minutes away at full load: bounded memory (check_bounds after every step), then it catches up.
#[test]
fn a_replica_away_for_two_minutes_of_load_catches_up() {
    let mut world = World::begun(4, 25, Options::default());
    world.submit(1);
    ordered(&mut world, 1000);
    world.cut(3);
    for _ in 0..120 {
        world.submit(1);
        world.run_ms(1000);
    }
    world.heal();
    world.run_ms(15_000);
    let heights: Vec<u64> = world.cores().map(|core| core.status().executed.0).collect();
    assert!(heights.iter().all(|height| *height == heights[0] && *height >= 120), "{heights:?}");
}

/// 23: a view change every few blocks, hundreds of times, under load.
#[test]
fn hundreds_of_views_under_load_stop_nothing() {
    let options = Options { tenure_blocks: Some(2), ..Options::default() };
    let mut world = World::begun(4, 26, options);
    for round in 0..500 {
        world.submit(round % 4);
        world.run_ms(25);
    }
    ordered(&mut world, 3000);
    let reached = views(&world);
    assert!(reached.iter().all(|view| *view >= 80), "{reached:?}");
}
