//! Links that are cut, on one side or both, and links that are slow (faults.md N1 to N4), through proxies.

use std::time::Duration;

use conformance::client::number;
use conformance::network::Network;
use conformance::peers::{self, eventually};
use conformance::proxy::Link;

use crate::damage::{put, votes};
use crate::load::Load;
use crate::{MINUTE, WARM_UP, roots_become_equal};

fn network(test: &str) -> Option<Network> {
    let there = peers::available(&format!("process::{test}"), &["althing", "etcdctl"]);
    there.then(|| Network::start_behind_proxies(4))
}

/// Cuts `victim` off: alone it orders and reads nothing linearizable, but answers what it has; the
/// others go on, and on return it is one of them without anybody's help.
fn is_cut_off(network: &mut Network, name: &str, victim: usize) {
    let others: Vec<usize> = (0..4).filter(|index| *index != victim).collect();
    put(&network.replicas[victim], "before", "1");
    let writers: Vec<_> = others.iter().map(|index| &network.replicas[*index]).collect();
    let load = Load::start(name, &writers);
    load.progress("at first", WARM_UP);
    let held = network.links().held();
    network.links().set_around(victim, Link::Cut);
    load.progress("beside the cut-off one", WARM_UP);
    assert!(network.links().held() > held, "{name}: nothing was kept back, the cut was none");
    let alone = network.replicas[victim].client();
    eventually("the cut-off one has noticed", || {
        alone.call_within("KV/Put", "key:'alone' value:'1'", Duration::from_secs(20)).is_err()
    });
    let refused = alone.call_within("KV/Range", "key:'before'", MINUTE).expect_err("no quorum");
    assert_eq!(refused.code, "Unavailable", "{refused:?}");
    let local = alone.call("KV/Range", "key:'before' serializable:true").expect("a local read");
    assert_eq!(number(&local, "count"), 1);
    load.progress("beside it still", WARM_UP);
    network.links().set_around(victim, Link::Open);
    network.wait_until_ready(victim);
    load.progress("after the reunion", WARM_UP);
    let ledger = load.finish();
    let (writes, unknown) = (ledger.len(), ledger.failures);
    eprintln!("{name}: {writes} writes, {unknown} unknown, longest {:?}", ledger.longest_gap);
    ledger.check(network);
    roots_become_equal(network);
}

#[test]
fn a_partition_with_the_primary_on_either_side_stops_only_the_smaller_part() {
    let Some(mut network) = network("partition") else { return };
    let primary = network.known_primary(0);
    is_cut_off(&mut network, "primary-alone", primary);
    let primary = network.known_primary(0);
    is_cut_off(&mut network, "backup-alone", (primary + 2) % 4);
    votes(&mut network, (primary + 2) % 4, (primary + 3) % 4);
}

/// First the primary is heard by nobody but hears all, then the other way round, then two of four do
/// not hear each other.
#[test]
fn links_cut_one_way_or_between_two_stop_nothing() {
    let Some(network) = network("one_way") else { return };
    let writers: Vec<_> = network.replicas.iter().collect();
    let load = Load::start("one-way", &writers);
    load.progress("at first", WARM_UP);
    for (what, sends) in [("a mute primary", true), ("a deaf primary", false)] {
        let primary = network.known_primary(0);
        let held = network.links().held();
        for other in (0..4).filter(|other| *other != primary) {
            let (from, to) = if sends { (primary, other) } else { (other, primary) };
            network.links().set(from, to, Link::Cut);
        }
        load.progress(what, WARM_UP);
        eventually("it is replaced", || {
            network.primary((primary + 1) % 4).is_some_and(|now| now != primary)
        });
        assert!(network.links().held() > held, "{what}: nothing was kept back");
        network.links().set_all(Link::Open);
        load.progress("after it", WARM_UP);
    }
    let primary = network.known_primary(0);
    let held = network.links().held();
    let (one, two) = ((primary + 1) % 4, (primary + 2) % 4);
    network.links().set(one, two, Link::Cut);
    network.links().set(two, one, Link::Cut);
    load.progress("with one pair cut", WARM_UP);
    assert!(network.links().held() > held, "nothing was kept back between the two");
    network.links().set_all(Link::Open);
    load.progress("at last", WARM_UP);
    let ledger = load.finish();
    eprintln!("one-way: {} writes, {} unknown", ledger.len(), ledger.failures);
    ledger.check(&network);
    roots_become_equal(&network);
}

#[test]
fn slow_and_uneven_links_stop_nothing() {
    let Some(network) = network("slow_links") else { return };
    let writers: Vec<_> = network.replicas.iter().collect();
    let load = Load::start("slow-links", &writers);
    load.progress("at first", WARM_UP);
    let before = network.links().delayed();
    network.links().set_all(Link::Late(Duration::from_millis(20), Duration::from_millis(150)));
    load.progress("with slow links", 4 * WARM_UP);
    let delayed = network.links().delayed() - before;
    assert!(delayed > WARM_UP, "only {delayed} chunks were late");
    network.links().set_all(Link::Open);
    load.progress("with quick links again", WARM_UP);
    let ledger = load.finish();
    eprintln!("slow links: {} writes, {} unknown", ledger.len(), ledger.failures);
    ledger.check(&network);
    roots_become_equal(&network);
}
