//! Members change under load, by the commands an operator would use; nobody loses a write.

use std::time::{Duration, Instant};

use conformance::network::{Network, althing};
use conformance::peers::eventually;

use crate::load::Load;

const MINUTE: Duration = Duration::from_secs(60);

/// Files and homes of one ceremony after another.
struct Ceremony<'a> {
    network: &'a Network,
    number: usize,
}

impl Ceremony<'_> {
    fn path(&self, file: &str) -> String {
        self.network.directory().join(file).display().to_string()
    }

    fn home(&self, index: usize) -> String {
        self.network.replicas[index].home().display().to_string()
    }

    /// Proposes through `proposer`, has `signers` sign, submits through `through`; its answer.
    fn change(&mut self, command: &[&str], signers: &[usize], through: usize) -> String {
        self.number += 1;
        let number = self.number;
        let (genesis, epochs) = (self.path("genesis.json"), self.path("epochs.json"));
        let asked = self.home(signers[0]);
        althing(&["epoch", "export", "--genesis", &genesis, "--home", &asked, "-o", &epochs]);
        let known = ["--genesis", &genesis, "--epochs", &epochs];
        let proposal = self.path(&format!("change-{number}.json"));
        let proposer = if command.contains(&"add") { through } else { signers[0] };
        let home = self.home(proposer);
        althing(&[command, &known, &["--home", &home, "-o", &proposal]].concat());
        let verb = &command[..2];
        let mut copies = Vec::new();
        for signer in signers {
            let copy = self.path(&format!("change-{number}-{signer}.json"));
            let home = self.home(*signer);
            althing(&[verb, &known, &["--sign", &proposal, "--home", &home, "-o", &copy]].concat());
            copies.push(copy);
        }
        let copies: Vec<&str> = copies.iter().map(String::as_str).collect();
        // A replica that is not there yet cannot be asked.
        let submitter = if command.contains(&"add") { signers[0] } else { through };
        let home = self.home(submitter);
        let submit = [verb, &["--genesis", &genesis, "--home", &home, "--signatures"], &copies];
        althing(&submit.concat())
    }
}

#[test]
fn a_fifth_organisation_joins_votes_and_the_first_primary_leaves_under_load() {
    let mut network = Network::start(4);
    network.invite();
    let writers: Vec<_> = (1..4).map(|index| &network.replicas[index]).collect();
    let load = Load::start("members", &writers);
    load.progress("at first", 50);

    let mut ceremony = Ceremony { network: &network, number: 0 };
    let said = ceremony.change(&["member", "add"], &[0, 1, 2], 4);
    assert!(said.starts_with("epoch 1 replica 4"), "{said}");
    let (genesis, home) = (ceremony.path("genesis.json"), ceremony.home(4));
    let (asked, epochs) = (ceremony.home(1), format!("{home}/epochs.json"));
    althing(&["epoch", "export", "--genesis", &genesis, "--home", &asked, "-o", &epochs]);
    let number = ceremony.number;
    network.launch(4);
    network.wait_until_ready(4);
    load.progress("with a learner", 50);

    let mut ceremony = Ceremony { network: &network, number };
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
    // acme is no member any more: what it holds is not asked for.
    network.kill(0);
    let elm = network.replicas[4].client();
    eventually("elm writes with three others", MINUTE, || {
        elm.call_within("KV/Put", "key:'last' value:'1'", Duration::from_secs(5)).is_ok()
    });
    // Its vote counts: without it and one more there is no quorum of three.
    network.kill(1);
    eventually("elm, cedar and delta decide", MINUTE, || {
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
