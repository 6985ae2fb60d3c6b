//! Hash and HashKV: one number on all replicas with the same content, as `etcdctl endpoint hashkv` compares
//! them.

use conformance::client::number;
use conformance::network::{Network, Replica};
use conformance::peers::{self, eventually};

/// (hash, compact revision) of a revision, or of the present with 0.
fn hash_kv(replica: &Replica, revision: i64) -> (u64, i64) {
    let reply = replica.client().call("Maintenance/HashKV", &format!("revision:{revision}"));
    let reply = reply.expect("a hash");
    let hash = conformance::client::field(&reply, "hash").as_u32().expect("32 bits");
    (u64::from(hash), number(&reply, "compact_revision"))
}

fn hash(replica: &Replica) -> u32 {
    let reply = replica.client().call("Maintenance/Hash", "").expect("a hash");
    conformance::client::field(&reply, "hash").as_u32().expect("32 bits")
}

fn settled(network: &Network, revision: i64, compacted: i64) {
    eventually("all replicas have it", || {
        let there = |replica: &Replica| {
            replica.revision().is_ok_and(|now| now == revision)
                && hash_kv(replica, 0).1 == compacted
        };
        network.replicas.iter().all(there)
    });
}

#[test]
fn all_replicas_hash_the_same_content_to_the_same_number() {
    if !peers::available("process::hashes", &["althing"]) {
        return;
    }
    let mut network = Network::start(4);
    let call = |network: &Network, at: usize, method: &str, request: &str| {
        network.replicas[at].client().call(method, request).expect("it is done")
    };
    call(&network, 0, "Lease/LeaseGrant", "ID:7 TTL:5000");
    for turn in 0..40 {
        let put = format!("key:'k{}' value:'{turn}' lease:{}", turn % 7, 7 * (turn % 2));
        call(&network, turn % 4, "KV/Put", &put);
    }
    call(&network, 1, "KV/DeleteRange", "key:'k1' range_end:'k3'");
    settled(&network, 42, -1);
    let [first, rest @ ..] = &network.replicas[..] else { panic!("four replicas") };
    let mut seen = std::collections::BTreeSet::new();
    for revision in [0, 2, 17, 40, 41, 42] {
        let own = hash_kv(first, revision);
        seen.insert(own);
        for replica in rest {
            assert_eq!(hash_kv(replica, revision), own, "{} at {revision}", replica.name);
        }
    }
    assert_eq!(seen.len(), 5, "each revision has its own, 0 stands for the last");
    let whole = hash(first);
    assert!(rest.iter().all(|replica| hash(replica) == whole));

    // A compaction, a checkpoint and a new start change nothing.
    let (before, at_35) = (hash_kv(first, 0).0, hash_kv(first, 35).0);
    call(&network, 2, "KV/Compact", "revision:30");
    settled(&network, 42, 30);
    call(&network, 3, "Maintenance/Defragment", "");
    network.terminate(1);
    network.restart(1);
    settled(&network, 42, 30);
    for replica in &network.replicas {
        assert_eq!(hash_kv(replica, 0), (before, 30), "{}", replica.name);
        assert_eq!(hash_kv(replica, 35), (at_35, 30), "{}", replica.name);
    }
    call(&network, 0, "KV/Put", "key:'k1' value:'1'");
    settled(&network, 43, 30);
    assert_ne!(hash_kv(&network.replicas[0], 0).0, before);
    assert_ne!(hash(&network.replicas[0]), whole);
}
