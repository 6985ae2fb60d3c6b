//! Changes of members and parameters by the commands an operator would use: propose, sign, submit.

use crate::network::{Network, althing};
use crate::peers;

/// The voter of the organisation that has an observer.
pub const VOTER: usize = 0;
/// That observer.
pub const OBSERVER: usize = 4;

/// Four organisations, and an observer of the first; all run.
#[must_use]
pub fn with_observer() -> Network {
    let mut network = Network::start(4);
    network.invite_second("acme2", VOTER);
    let mut ceremony = Ceremony::of(&network);
    let add = ["member", "add", "--organisation", "acme", "--observer"];
    let said = ceremony.change(&add, &[0, 1, 2], OBSERVER);
    assert!(said.starts_with("epoch 1 replica 4"), "{said}");
    ceremony.give_epochs(1, OBSERVER);
    network.launch(OBSERVER);
    network.wait_until_ready(OBSERVER);
    network
}

/// Files and homes of one ceremony after another.
pub struct Ceremony<'a> {
    network: &'a Network,
    /// Changes made so far: files are numbered.
    pub number: usize,
}

impl<'a> Ceremony<'a> {
    /// The first one of a network.
    #[must_use]
    pub fn of(network: &'a Network) -> Self {
        Self::after(network, 0)
    }

    /// The next one after `number` changes.
    #[must_use]
    pub fn after(network: &'a Network, number: usize) -> Self {
        Self { network, number }
    }
}

impl Ceremony<'_> {
    /// A file beside the homes.
    #[must_use]
    pub fn path(&self, file: &str) -> String {
        self.network.directory().join(file).display().to_string()
    }

    /// A replica's home.
    #[must_use]
    pub fn home(&self, index: usize) -> String {
        self.network.replicas[index].home().display().to_string()
    }

    /// Gives `to` what `from` knows of how epochs ended: who is added finds the others by it.
    pub fn give_epochs(&self, from: usize, to: usize) {
        let (genesis, asked) = (self.path("genesis.json"), self.home(from));
        let epochs = format!("{}/epochs.json", self.home(to));
        althing(&["epoch", "export", "--genesis", &genesis, "--home", &asked, "-o", &epochs]);
    }

    /// Proposes, has `signers` sign, submits through `through`, whose home is the one to be added if one
    /// is; what the network answers.
    pub fn change(&mut self, command: &[&str], signers: &[usize], through: usize) -> String {
        match self.attempt(command, signers, through) {
            Ok(said) => said,
            Err(why) => panic!("althing {}: {why}", command.join(" ")),
        }
    }

    /// Like [`Ceremony::change`]; Err with what was said when the submission was refused.
    pub fn attempt(
        &mut self,
        command: &[&str],
        signers: &[usize],
        through: usize,
    ) -> Result<String, String> {
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
        let output = peers::command("althing").args(submit.concat()).output();
        let output = output.expect("althing runs");
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        if output.status.success() { Ok(text(&output.stdout)) } else { Err(text(&output.stderr)) }
    }
}
