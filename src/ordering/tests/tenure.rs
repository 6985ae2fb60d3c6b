//! Who leads, and for how long.

use super::world::{Options, World};
use super::*;

#[test]
fn a_tenure_of_few_blocks_passes_the_lead_round_without_a_timeout() {
    let options = Options { tenure_blocks: Some(10), ..Options::default() };
    let mut world = World::new(4, 11, options);
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
    let mut world = World::new(4, 12, Options::default());
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
fn who_leads_alone_keeps_the_lead() {
    let options = Options { tenure_blocks: Some(3), ..Options::default() };
    let mut world = World::new(1, 13, options);
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
        let mut world = World::new(4, 14, options);
        world.run_ms(1000);
        (0..4).for_each(|id| world.submit(id));
        assert!(world.run_until_ordered(10_000), "{}", world.describe());
        world.run_ms(3000);
        let told: Vec<u16> = world.skews.iter().map(|(id, _)| *id).collect();
        assert_eq!(told, [id], "{:?}", world.skews);
    }
}
