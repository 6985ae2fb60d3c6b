//! Members change under load, by the commands an operator would use; nobody loses a write.

use std::time::{Duration, Instant};

use conformance::ceremony::Ceremony;
use conformance::network::{Network, althing};
use conformance::peers::{self, eventually};

use crate::load::Load;

/// `althing serve`'s exit code of a removed replica.
const REMOVED: i32 = 72;

#[test]
fn a_fifth_organisation_joins_votes_and_the_first_primary_leaves_under_load() {
    let mut network = Network::start(4);
    network.invite();
    let writers: Vec<_> = (1..4).map(|index| &network.replicas[index]).collect();
    let load = Load::start("members", &writers);
    load.progress("at first", 50);

    let mut ceremony = Ceremony::of(&network);
    let said = ceremony.change(&["member", "add"], &[0, 1, 2], 4);
    assert!(said.starts_with("epoch 1 replica 4"), "{said}");
    ceremony.give_epochs(1, 4);
    let number = ceremony.number;
    network.launch(4);
    network.wait_until_ready(4);
    let said = network.replicas[4].output();
    assert!(said.contains("joins the network") && !said.contains("ROLLBACK"), "{said}");
    load.progress("with a learner", 50);

    let mut ceremony = Ceremony::after(&network, number);
    let begun = Instant::now();
    let said = ceremony.change(&["member", "promote", "elm"], &[0, 1, 2], 4);
    assert!(said.starts_with("epoch 2"), "{said}");
    load.progress("with five voters", 50);
    let said = ceremony.change(&["member", "remove", "acme"], &[1, 2, 3, 4], 1);
    assert!(said.starts_with("epoch 3"), "{said}");
    load.progress("without the first", 50);
    eprintln!("members: promote and remove took {:?}", begun.elapsed());
    let genesis = ceremony.path("genesis.json");
    let shown = althing(&["epoch", "list", "--genesis", &genesis, "--home", &ceremony.home(4)]);
    assert!(shown.contains("verified: 4 epochs"), "{shown}");

    let ledger = load.finish();
    eprintln!(
        "members: {} writes, {} unknown, longest wait {:?}",
        ledger.len(),
        ledger.failures,
        ledger.longest_gap
    );
    // acme is no member any more: it says so and ends, and what it holds is not asked for.
    assert_eq!(network.wait_for_end(0).code(), Some(REMOVED));
    let said = network.replicas[0].output();
    assert!(said.contains("was removed from the network"), "{said}");
    let elm = network.replicas[4].client();
    eventually("elm writes with three others", || {
        elm.call_within("KV/Put", "key:'last' value:'1'", Duration::from_secs(5)).is_ok()
    });
    // Its vote counts: without it and one more there is no quorum of three.
    network.kill(1);
    eventually("elm, cedar and delta decide", || {
        let cedar = network.replicas[2].client();
        cedar.call_within("KV/Put", "key:'last' value:'2'", Duration::from_secs(5)).is_ok()
    });
    ledger.check(&network);
    // All of it comes back from the disks, across the epochs.
    for index in 2..5 {
        network.kill(index);
    }
    for index in 2..5 {
        network.launch(index);
    }
    network.wait_until_ready(4);
    ledger.check(&network);
}

/// What it holds is of an epoch whose only other member is gone: it is told who is there now by a file.
#[test]
fn who_was_away_while_all_others_were_replaced_finds_the_new_ones() {
    if !peers::available("process::away", &["althing"]) {
        return;
    }
    let mut network = Network::start(2);
    let mut number = 0;
    let mut add = |network: &mut Network, index: usize, members: [usize; 2]| {
        network.invite();
        let mut ceremony = Ceremony::after(network, number);
        ceremony.change(&["member", "add"], &members, index);
        ceremony.give_epochs(members[1], index);
        number = ceremony.number;
        network.launch(index);
        network.wait_until_ready(index);
        number
    };
    add(&mut network, 2, [0, 1]);
    network.kill(2);
    let away = network.replicas[2].name;
    for (leaves, comes, members) in [(0, 3, [0, 1]), (1, 4, [1, 3])] {
        let number = add(&mut network, comes, members);
        let (old, new) = (network.replicas[leaves].name, network.replicas[comes].name);
        let replace = ["member", "replace", old, "--with", new];
        // Through the learner, which has just come in; each attempt writes files of its own.
        let mut tried = number;
        eventually("it is replaced", || {
            tried += 100;
            Ceremony::after(&network, tried).attempt(&replace, &members, comes).is_ok()
        });
        assert_eq!(network.wait_for_end(leaves).code(), Some(REMOVED));
    }
    let put = |network: &Network, at: usize, value: &str| {
        let request = format!("key:'k' value:'{value}'");
        let client = network.replicas[at].client();
        eventually("a write", || {
            client.call_within("KV/Put", &request, Duration::from_secs(5)).is_ok()
        });
    };
    put(&network, 3, "without it");
    Ceremony::of(&network).give_epochs(3, 2);
    network.launch(2);
    network.wait_until_ready(2);
    put(&network, 2, away);
    let read = network.replicas[4].client().call("KV/Range", "key:'k'").expect("an answer");
    let found = conformance::client::field(&read, "kvs").to_string();
    assert!(found.contains(&format!("{away:?}")), "{found}");
}

#[test]
fn four_become_seven_and_four_again_while_clients_write() {
    if !peers::available("process::seven", &["althing"]) {
        return;
    }
    let mut network = Network::start(4);
    let writers: Vec<_> = (0..4).map(|index| &network.replicas[index]).collect();
    let load = Load::start("seven", &writers);
    load.progress("at first", 50);
    let mut number = 0;
    let mut epoch = 0;
    let mut stalls = Vec::new();
    for index in 4..7 {
        let q = [3, 4, 4][index - 4];
        network.invite();
        let signers: Vec<usize> = (0..q).collect();
        load.longest_stall();
        let mut ceremony = Ceremony::after(&network, number);
        let said = ceremony.change(&["member", "add"], &signers, index);
        epoch += 1;
        assert!(said.starts_with(&format!("epoch {epoch} replica {index}")), "{said}");
        ceremony.give_epochs(1, index);
        number = ceremony.number;
        network.launch(index);
        network.wait_until_ready(index);
        load.progress("with a learner", 20);
        stalls.push((format!("add {index}"), load.longest_stall()));
        let name = network.replicas[index].name;
        let mut ceremony = Ceremony::after(&network, number);
        let said = ceremony.change(&["member", "promote", name], &signers, index);
        epoch += 1;
        assert!(said.starts_with(&format!("epoch {epoch}")), "{said}");
        number = ceremony.number;
        load.progress("with another voter", 20);
        stalls.push((format!("promote {index}"), load.longest_stall()));
    }
    for index in (4..7).rev() {
        let q = [4, 4, 5][index - 4];
        let signers: Vec<usize> = (0..q).collect();
        let name = network.replicas[index].name;
        let mut ceremony = Ceremony::after(&network, number);
        let remove = ["member", "remove", name, "--accept-smaller-f"];
        let said = ceremony.change(&remove, &signers, 0);
        epoch += 1;
        assert!(said.starts_with(&format!("epoch {epoch}")), "{said}");
        number = ceremony.number;
        load.progress("without it", 20);
        stalls.push((format!("remove {index}"), load.longest_stall()));
        assert_eq!(network.wait_for_end(index).code(), Some(REMOVED));
    }
    let ledger = load.finish();
    for (what, stall) in &stalls {
        eprintln!("seven: {what}: longest wait of a client {stall:?}");
    }
    eprintln!("seven: {} writes, {} unknown", ledger.len(), ledger.failures);
    ledger.check(&network);
    let ceremony = Ceremony::of(&network);
    let (genesis, file) = (ceremony.path("genesis.json"), ceremony.path("all-epochs.json"));
    let home = ceremony.home(2);
    althing(&["epoch", "export", "--genesis", &genesis, "--home", &home, "-o", &file]);
    let shown = althing(&["epoch", "verify", &file, "--genesis", &genesis]);
    assert!(shown.contains(&format!("verified: {} epochs", epoch + 1)), "{shown}");
}

#[test]
fn parameters_change_by_signatures_and_no_client_changes_members() {
    if !peers::available("process::parameters", &["althing"]) {
        return;
    }
    let network = Network::start(4);
    let mut ceremony = Ceremony::of(&network);
    let set = ["config", "set", "view_timeout_ms=1500", "txn_ops_max=7"];
    let said = ceremony.change(&set, &[1, 2, 3], 0);
    assert!(said.starts_with("epoch 1"), "{said}");
    for index in 0..4 {
        let home = ceremony.home(index);
        eventually("the parameters count everywhere", || {
            let shown = althing(&["config", "get", "--home", &home]);
            shown.contains("\"view_timeout_ms\": 1500") && shown.contains("\"txn_ops_max\": 7")
        });
    }
    // It is the network's limit that counts, at every replica.
    let put = |number: usize| format!("success{{request_put{{key:'t{number}' value:'1'}}}}");
    let request = |ops: usize| (0..ops).map(put).collect::<Vec<_>>().join(" ");
    let client = network.replicas[2].client();
    client.call("KV/Txn", &request(7)).expect("as many as may be");
    let refused = client.call("KV/Txn", &request(8)).expect_err("one too many");
    assert_eq!(refused.message, "etcdserver: too many operations in txn request");

    for (method, request, command) in [
        ("Cluster/MemberAdd", "peerURLs:'https://127.0.0.1:1'", "althing member add"),
        ("Cluster/MemberRemove", "ID:1", "althing member remove"),
        ("Cluster/MemberUpdate", "ID:1 peerURLs:'https://127.0.0.1:1'", "althing member replace"),
        ("Cluster/MemberPromote", "ID:1", "althing member promote"),
    ] {
        let refused = client.call(method, request).expect_err("organisations decide");
        assert_eq!(refused.code, "PermissionDenied", "{method}: {refused:?}");
        assert!(refused.message.contains(command), "{method}: {refused:?}");
    }
    let two = ceremony.attempt(&["config", "set", "view_timeout_ms=900"], &[1, 2], 0);
    assert!(two.is_err(), "two of three signatures: {two:?}");
}
