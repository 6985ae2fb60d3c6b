use std::fs;

use proptest::prelude::*;
use tempfile::TempDir;

use super::*;
use crate::chain::Parameters;
use crate::crypto::Ed25519;

const NAMES: [&str; 3] = ["a", "b", "c"];

fn cluster() -> InitialCluster {
    let url = |name: &&str| ((*name).to_owned(), vec![format!("http://{name}:2380")]);
    InitialCluster { token: "t".into(), members: NAMES.iter().map(url).collect() }
}

/// A member on a disk of its own, with as many lives as it takes.
struct Life {
    at: usize,
    disk: TempDir,
    key: u8,
    round: Round,
    ended: Option<FoundError>,
    sealed: Option<ClusterId>,
}

impl Life {
    fn new(at: usize, key: u8) -> Self {
        let disk = tempfile::tempdir().expect("a temporary directory");
        let round = start(at, key, &disk);
        Self { at, disk, key, round, ended: None, sealed: None }
    }

    /// A new process on the same disk.
    fn crash(&mut self) {
        (self.round, self.ended) = (start(self.at, self.key, &self.disk), None);
    }

    /// A new process on an empty disk, which makes another key.
    fn wipe(&mut self, key: u8) {
        *self = Self::new(self.at, key);
    }

    fn signed(&self, network: ClusterId) -> bool {
        self.round.file.as_ref().is_some_and(|file| file.genesis.cluster_id() == network)
    }

    fn question(&self) -> Bytes {
        let Hello { seed, name, key, .. } = self.round.founder.hello.clone();
        Question::Found { seed, name, key }.to_bytes()
    }

    fn answer(&self, question: Bytes) -> Answer {
        let known = self.round.known.read().expect("no test holds it");
        known.answer(question).expect("a good question")
    }

    fn hear(&mut self, name: &str, answer: Answer) {
        if self.ended.is_none() && self.round.missing().iter().any(|missing| missing == name) {
            self.ended = self.round.take(name, answer).err();
        }
        self.conclude();
    }

    fn conclude(&mut self) {
        if self.ended.is_some() {
            return;
        }
        match self.round.conclude() {
            Ok(Some(file)) => self.sealed = Some(file.genesis.cluster_id()),
            Ok(None) => {}
            Err(error) => self.ended = Some(error),
        }
    }
}

fn start(at: usize, key: u8, disk: &TempDir) -> Round {
    let scheme = Arc::new(Ed25519::from_seed(&[key; 32]));
    let (cluster, name) = (cluster(), NAMES[at].to_owned());
    let urls = vec![format!("http://{name}:2379")];
    let hello = Hello::sign(cluster.seed(), name, urls, (Parameters::default(), &*scheme));
    let genesis = disk.path().join("genesis.json");
    let signed = GenesisFile::read(&genesis).ok();
    let known = Known { hello: hello.clone(), file: signed.clone() };
    let founder = Founder { cluster, hello, scheme, signed, genesis };
    Round::new(founder, Arc::new(RwLock::new(known)))
}

fn ask_once(lives: &mut [Life], from: usize, to: usize) {
    if lives[to].ended.is_some() {
        return;
    }
    let answer = lives[to].answer(lives[from].question());
    lives[from].hear(NAMES[to], answer);
}

fn ask_everyone(lives: &mut [Life]) {
    for _ in 0..4 {
        for from in 0..lives.len() {
            for to in (0..lives.len()).filter(|to| *to != from) {
                ask_once(lives, from, to);
            }
        }
    }
}

#[derive(Clone, Debug)]
enum Event {
    Ask(usize, usize),
    Crash(usize),
    Wipe(usize),
}

fn event() -> impl Strategy<Value = Event> {
    prop_oneof![
        12 => (0..3_usize, 1..3_usize).prop_map(|(from, by)| Event::Ask(from, (from + by) % 3)),
        2 => (0..3_usize).prop_map(Event::Crash),
        1 => (0..3_usize).prop_map(Event::Wipe),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 200, ..ProptestConfig::default() })]

    /// Whatever is asked in which order, and whoever crashes or loses its disk: never two networks as long
    /// as one that signed the first has its disk, and without a lost disk always one.
    #[test]
    fn one_network_or_a_clear_refusal_and_never_two(
        events in proptest::collection::vec(event(), 0..40),
    ) {
        let mut lives: Vec<Life> = (0..3).map(|at| Life::new(at, at as u8 + 1)).collect();
        let (mut key, mut wiped) = (10, false);
        let mut started: Option<ClusterId> = None;
        for event in events {
            match event {
                Event::Ask(from, to) => ask_once(&mut lives, from, to),
                Event::Crash(at) => lives[at].crash(),
                Event::Wipe(at) => {
                    (key, wiped) = (key + 1, true);
                    lives[at].wipe(key);
                    // Once nobody is left that signed it, another one may be founded.
                    started = started.filter(|id| lives.iter().any(|life| life.signed(*id)));
                }
            }
            for id in lives.iter().filter_map(|life| life.sealed) {
                prop_assert_eq!(*started.get_or_insert(id), id, "a second network");
            }
        }
        // Everyone is started again, and heard by all.
        lives.iter_mut().for_each(Life::crash);
        ask_everyone(&mut lives);
        for id in lives.iter().filter_map(|life| life.sealed) {
            prop_assert_eq!(*started.get_or_insert(id), id, "a second network at the end");
        }
        let all = lives.iter().all(|life| life.ended.is_none() && life.sealed == started);
        let refused = lives.iter().any(|life| life.ended.is_some());
        prop_assert!(started.is_some() && all || wiped && refused, "neither one nor a refusal");
    }
}

#[test]
fn a_member_whose_disk_was_emptied_after_it_signed_is_refused_by_name() {
    let mut lives: Vec<Life> = (0..3).map(|at| Life::new(at, at as u8 + 1)).collect();
    ask_everyone(&mut lives);
    let network = lives[0].sealed.expect("founded");
    lives[1].wipe(9);
    ask_once(&mut lives, 1, 0);
    let why = lives[1].ended.as_ref().expect("refused").to_string();
    assert!(why.contains("member a knows this one by the key"), "{why}");
    assert!(why.contains(&network.to_string()) && why.contains("member remove"), "{why}");
    // One that did not hear of the end yet refuses the new key as well.
    let file = lives[2].disk.path().join("genesis.json");
    let sealed = GenesisFile::read(&file).expect("sealed");
    let own = sealed.member_of(&lives[2].round.founder.hello.key).expect("its own").id;
    let mut unsealed = sealed.clone();
    unsealed.signatures.retain(|id, _| *id == own);
    fs::write(&file, unsealed.to_json()).expect("as it was before the end");
    lives[2].crash();
    let answer =
        Answer::Member { hello: Box::new(start(1, 9, &lives[1].disk).founder.hello), agreed: None };
    lives[2].hear("b", answer);
    let why = lives[2].ended.as_ref().expect("refused").to_string();
    assert!(why.contains("member b shows another key"), "{why}");
    lives[2].crash();
    ask_once(&mut lives, 2, 0);
    assert_eq!(lives[2].sealed, Some(network), "one that has all signatures suffices");
}

#[test]
fn what_members_were_told_must_be_the_same() {
    let (mut a, b) = (Life::new(0, 1), Life::new(1, 2));
    let mut other = b.round.founder.hello.clone();
    let scheme = Ed25519::from_seed(&[2; 32]);
    let parameters = Parameters { quota_bytes: 1 << 30, ..Parameters::default() };
    other = Hello::sign(other.seed, other.name, other.client_urls, (parameters, &scheme));
    a.hear("b", Answer::Member { hello: Box::new(other), agreed: None });
    assert!(matches!(a.ended, Some(FoundError::Parameters(_))), "{:?}", a.ended);
    a.crash();
    a.hear("c", Answer::Member { hello: Box::new(b.round.founder.hello.clone()), agreed: None });
    assert!(matches!(a.ended, Some(FoundError::Stranger { .. })), "{:?}", a.ended);
    let key = a.round.founder.hello.key;
    let told = Question::Found { seed: Digest::ZERO, name: "a".into(), key };
    assert_eq!(b.answer(told.to_bytes()), Answer::OtherCluster);
}
