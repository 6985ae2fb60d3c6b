use std::collections::BTreeMap;

use super::*;
use crate::chain::{InitialCluster, Parameters};
use crate::crypto::Ed25519;
use crate::types::{Digest, Epoch, Height, View};

fn network() -> Network {
    let members = BTreeMap::from([("a".to_owned(), vec!["http://a:1".to_owned()])]);
    let cluster = InitialCluster { token: "t".into(), members };
    let hellos = BTreeMap::from([("a".to_owned(), hello(cluster.seed(), "a", 1))]);
    Network::of(&cluster.genesis(&hellos).expect("all said hello"))
}

fn hello(seed: Digest, name: &str, key: u8) -> Hello {
    let scheme = Ed25519::from_seed(&[key; 32]);
    let urls = vec![format!("http://{name}:2")];
    Hello::sign(seed, name.to_owned(), urls, (Parameters::default(), &scheme))
}

fn header() -> BlockHeader {
    BlockHeader {
        flags: 0,
        cluster_id: Digest([7; 32]),
        epoch: Epoch(0),
        height: Height(1),
        view: View(0),
        proposer: ReplicaId(0),
        time_ms: Millis(5),
        parent: Digest::ZERO,
        body_root: Digest::ZERO,
        skeleton_len: 0,
        values_len: 0,
        n_ops: 1,
        exec_height: Height(0),
        exec_root: Digest::ZERO,
        config_hash: Digest::ZERO,
    }
}

fn after(network: &Network, action: ConfigAction) -> Result<Network, ConfigError> {
    let base = network.membership.config_hash();
    let not_after_ms = Millis(10);
    let change = ConfigChange { base, not_after_ms, action, attestation: None, votes: Vec::new() };
    network.change(&change, &header())
}

fn reserve(url: &str, voting: bool) -> ConfigAction {
    ConfigAction::Reserve { peer_address: url.to_owned(), voting }
}

fn admit(replica: u16, name: &str, key: u8) -> ConfigAction {
    let hello = Box::new(hello(header().cluster_id, name, key));
    ConfigAction::Admit { replica: ReplicaId(replica), hello }
}

fn replica(id: u16) -> ReplicaId {
    ReplicaId(id)
}

#[test]
fn one_owners_members_are_expected_admitted_promoted_moved_and_removed() {
    let first = network();
    assert_eq!(after(&first, reserve("http://a:1", true)), Err(ConfigError::Taken("peer address")));
    let two = after(&first, reserve("http://b:1", true)).expect("expected");
    let three = after(&two, reserve("http://c:1,http://c:2", false)).expect("expected");
    assert_eq!(after(&three, reserve("http://c:2", true)), Err(ConfigError::Taken("peer address")));
    assert!(three.awaits(replica(1)) && three.awaits(replica(2)));
    assert_eq!(three.membership.quorum().n(), 1, "whoever is expected counts in no quorum");

    // The later one comes first: members stay in order of their ids.
    let third = after(&three, admit(2, "c", 3)).expect("admitted");
    let both = after(&third, admit(1, "b", 2)).expect("admitted");
    let ids: Vec<u16> = both.membership.members.iter().map(|member| member.id.0).collect();
    assert_eq!(ids, [0, 1, 2]);
    let owners: Vec<_> = both.membership.members.iter().map(|one| one.organisation).collect();
    assert_eq!(owners, [OrgId(0); 3], "of one organisation");
    assert!(both.reserved.contains_key(&replica(1)) && !both.reserved.contains_key(&replica(2)));
    let promoted = after(&both, ConfigAction::Promote { replica: replica(1) }).expect("votes");
    assert!(promoted.reserved.is_empty() && promoted.membership.voter(replica(1)).is_some());
    let again = after(&promoted, ConfigAction::Promote { replica: replica(1) });
    assert_eq!(again, Err(ConfigError::Votes(replica(1))));

    let to = |url: &str| ConfigAction::Move { replica: replica(2), peer_address: url.to_owned() };
    assert_eq!(after(&promoted, to("http://b:1")), Err(ConfigError::Taken("peer address")));
    let moved = after(&promoted, to("http://c:9")).expect("moved");
    assert_eq!(moved.peer_address(replica(2)), Some("http://c:9"));
    assert_eq!(after(&moved, to("http://c:9")), Err(ConfigError::NoChange));
    let gone = ConfigAction::Remove { replica: replica(0), accept_smaller_f: true };
    let left = after(&moved, gone.clone()).expect("removed");
    assert_eq!(after(&left, gone), Err(ConfigError::UnknownReplica(replica(0))));
    assert_eq!(left.next_replica, 3, "no id is used twice");
}

#[test]
fn only_the_expected_key_for_this_network_is_admitted_and_only_where_one_owner_is() {
    let expected = after(&network(), reserve("http://b:1", true)).expect("expected");
    let removed = ConfigAction::Remove { replica: replica(1), accept_smaller_f: true };
    assert!(after(&expected, removed).expect("removed").reserved.is_empty());
    let other = Box::new(hello(Digest::ZERO, "b", 2));
    let other = ConfigAction::Admit { replica: replica(1), hello: other };
    let table = [
        (other, ConfigError::Hello),
        (admit(0, "b", 2), ConfigError::UnknownReplica(replica(0))),
        (admit(2, "b", 2), ConfigError::UnknownReplica(replica(2))),
        (admit(1, "a", 2), ConfigError::Taken("name")),
        (admit(1, "b", 1), ConfigError::Taken("key")),
        (ConfigAction::Promote { replica: replica(1) }, ConfigError::UnknownReplica(replica(1))),
    ];
    for (action, error) in table {
        assert_eq!(after(&expected, action.clone()), Err(error), "{action:?}");
    }
    let admitted = after(&expected, admit(1, "b", 2)).expect("admitted");
    assert_eq!(
        after(&admitted, admit(1, "b", 3)),
        Err(ConfigError::UnknownReplica(replica(1))),
        "an id with a key is given to no other"
    );
    let mut governed = network();
    governed.ownership = Ownership::Many;
    let refused = after(&governed, reserve("http://b:1", true));
    assert_eq!(refused, Err(ConfigError::TooFewVotes { weight: 0, needed: 1 }));
}
