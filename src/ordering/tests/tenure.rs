//! Who leads, and for how long.

use super::world::{Options, World};
use super::*;

#[test]
fn a_tenure_of_few_blocks_passes_the_lead_round_without_a_timeout() {
    let options = Options { tenure_blocks: Some(10), ..Options::default() };
    let mut world = World::begun(4, 11, options);
    for round in 0..120 {
        world.submit(round % 4);
        world.run_ms(25);
    }
    assert!(world.run_until_ordered(1000), "{}", world.describe());
    for core in world.cores() {
        let status = core.status();
        let views = status.view.0;
        assert!((4..=12).contains(&views), "{views} views: {}", world.describe());
    }
}

#[test]
fn a_primary_that_hands_over_delays_its_clients_by_less_than_any_timeout() {
    let mut world = World::begun(4, 12, Options::default());
    world.submit(1);
    assert!(world.run_until_ordered(1000));
    (0..4).for_each(|id| world.submit(id));
    world.hand_over(0);
    world.run_ms(300);
    assert!(world.cores().all(|core| core.status().view == View(1)), "{}", world.describe());
    assert!(world.run_until_ordered(300), "{}", world.describe());
    world.hand_over(2);
    world.run_ms(1500);
    assert!(world.cores().all(|core| core.status().view == View(1)), "only a primary hands over");
}

#[test]
fn who_stops_last_waits_for_nobody_to_take_over() {
    let mut world = World::begun(3, 18, Options::default());
    let unlink = |world: &mut World, peer: u16| {
        world.kill(peer);
        world.outputs_of(0, Input::PeerDown { peer: ReplicaId(peer) });
    };
    unlink(&mut world, 1);
    world.hand_over(0);
    assert!(world.core(0).is_handing_over(), "two are a quorum of three");
    unlink(&mut world, 2);
    assert!(!world.core(0).is_handing_over(), "{}", world.describe());
}

#[test]
fn who_has_entered_the_next_view_names_its_primary_at_once() {
    for n in [3, 4] {
        let mut world = World::begun(n, 17, Options::default());
        world.submit(1);
        assert!(world.run_until_ordered(1000));
        world.run_ms(500);
        world.hand_over(0);
        let mut seen = 0;
        for _ in 0..300 {
            world.run_ms(1);
            for core in world.cores() {
                let status = core.status();
                if (status.view, status.mode) == (View(1), Mode::Normal) {
                    assert_eq!(status.primary, Some(ReplicaId(1)), "{}", world.describe());
                    seen += 1;
                }
            }
        }
        assert!(seen > 100 * usize::from(n), "{seen} of {n}: {}", world.describe());
    }
}

/// Ten seconds of what clients see: every origin submits every 50 ms.
fn steady(world: &mut World, seconds: u64) {
    for _ in 0..seconds * 20 {
        (0..4).for_each(|id| world.submit(id));
        world.run_ms(50);
    }
}

#[test]
fn a_primary_just_under_the_timeout_is_replaced() {
    let slow = Some((0, 800));
    let mut world = World::begun(4, 15, Options { slow, ..Options::default() });
    steady(&mut world, 25);
    let views: Vec<u64> = world.cores().map(|core| core.status().view.0).collect();
    assert!(views.iter().all(|view| (1..4).contains(view)), "{views:?}");
    let before = world.core(1).status().executed.0;
    steady(&mut world, 10);
    let blocks = world.core(1).status().executed.0 - before;
    assert!(blocks >= 200, "{blocks} blocks in ten seconds: {}", world.describe());
}

#[test]
fn a_slow_network_is_not_a_slow_primary() {
    let options = Options { latency_ms: 150, ..Options::default() };
    let mut world = World::begun(4, 16, options);
    steady(&mut world, 40);
    assert!(world.run_until_ordered(5000), "{}", world.describe());
    let views: Vec<u64> = world.cores().map(|core| core.status().view.0).collect();
    assert!(views.iter().all(|view| *view <= 2), "{views:?}");
}

#[test]
fn who_leads_alone_keeps_the_lead() {
    let options = Options { tenure_blocks: Some(3), ..Options::default() };
    let mut world = World::begun(1, 13, options);
    world.hand_over(0);
    for _ in 0..10 {
        world.submit(0);
        world.run_ms(30);
    }
    assert!(world.run_until_ordered(1000), "{}", world.describe());
    assert_eq!(world.core(0).status().view, View(0));
}

#[test]
fn one_wrong_clock_is_told_to_its_owner_alone_and_stops_nothing() {
    for (id, ahead) in [(0, 3_600_000), (2, 3_600_000), (3, 700)] {
        let options = Options { clock_ahead: Some((id, ahead)), ..Options::default() };
        let mut world = World::begun(4, 14, options);
        world.run_ms(1000);
        (0..4).for_each(|id| world.submit(id));
        assert!(world.run_until_ordered(10_000), "{}", world.describe());
        world.run_ms(3000);
        let told: Vec<u16> = world.skews.iter().map(|(id, _)| *id).collect();
        assert_eq!(told, [id], "{:?}", world.skews);
    }
}
