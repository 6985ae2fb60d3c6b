//! How a network of one owner is founded by `--initial-cluster` alone (protocol.md 22): members ask
//! each other at their peer URLs who they are, sign the one genesis that follows, and start once all
//! have. Whoever answers at a peer URL is believed to be its member: that is what the flags say.

use core::fmt;
use core::time::Duration;
use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::{Arc, OnceLock, PoisonError, RwLock};
use std::time::Instant;

use bytes::Bytes;
use tokio::task::JoinSet;

use crate::chain::{Answer, Hello, InitialCluster, Ownership, Question, peer_urls};
use crate::codec::{Decode, Encode};
use crate::config::{FileError, GenesisError, GenesisFile, create_new, one_owner, replace};
use crate::crypto::{PublicKey, Scheme};
use crate::net::{Answerer, Exchange, PeerListener, Strangers, ask};
use crate::node::{Handle, joining};
use crate::tls::ExchangeTls;
use crate::types::{ClusterId, Digest};

/// Between two rounds of questions, at first; members started together are not held up.
const ROUND_FIRST: Duration = Duration::from_millis(20);
/// And after some rounds.
const ROUND_LAST: Duration = Duration::from_millis(250);
/// Who does not answer within this is asked again.
pub(super) const ASK_WITHIN: Duration = Duration::from_secs(2);
/// So often the operator is told who is waited for.
const SAY_EVERY: Duration = Duration::from_secs(5);

/// A member of a network that is to be founded.
pub struct Founder {
    /// What it was told.
    pub cluster: InitialCluster,
    /// What it says of itself; durable, and its key too.
    pub hello: Hello,
    /// Its key's.
    pub scheme: Arc<dyn Scheme>,
    /// What it signed before this process; it signs no other.
    pub signed: Option<GenesisFile>,
    /// Where the genesis is kept.
    pub genesis: PathBuf,
}

/// Why a network is not founded. Nothing was started.
#[derive(Debug)]
pub enum FoundError {
    /// The system refuses the peer sockets.
    Listen(std::io::Error),
    /// The genesis cannot be written.
    File(FileError),
    /// The flags make no genesis.
    Genesis(GenesisError),
    /// A member was told something else.
    OtherCluster(String),
    /// At a member's URL answers somebody else.
    Stranger {
        /// Whose URL.
        wanted: String,
        /// Who answers.
        found: String,
    },
    /// A member's voted flags are not this one's.
    Parameters(String),
    /// A member knows this one by another key: this one's data directory was emptied.
    OtherKey {
        /// Who says so.
        member: String,
        /// The network it signed.
        network: ClusterId,
        /// The key it knows.
        known: PublicKey,
    },
    /// This member signed a genesis with another key of that one, whose data directory was emptied.
    Rekeyed(String),
    /// A member signed another genesis than follows from what all say now.
    OtherGenesis {
        /// Which member.
        member: String,
        /// What it signed.
        network: ClusterId,
    },
}

impl fmt::Display for FoundError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        const AGAIN: &str = "if the network never started, empty the data directories of all its \
                             members and start them again";
        match self {
            Self::Listen(error) => write!(f, "the peer listeners cannot be used: {error}"),
            Self::File(error) => write!(f, "{error}"),
            Self::Genesis(error) => write!(f, "{error}"),
            Self::OtherCluster(name) => write!(
                f,
                "member {name} was started with another --initial-cluster or \
                 --initial-cluster-token, or is of another network; give all members the same"
            ),
            Self::Stranger { wanted, found } => {
                write!(f, "at the peer URL of {wanted} answers {found}; correct --initial-cluster")
            }
            Self::Parameters(name) => write!(
                f,
                "member {name} was started with other values of --quota-backend-bytes, \
                 --election-timeout, --max-request-bytes or --max-txn-ops; give all members the same"
            ),
            Self::OtherKey { member, network, known } => write!(
                f,
                "member {member} knows this one by the key {known}, which this data directory does \
                 not hold: it was emptied after network {network} was signed. Bring its files \
                 back; or remove this member from the running network and add it anew \
                 (etcdctl member remove, member add, --initial-cluster-state=existing); {AGAIN}"
            ),
            Self::Rekeyed(name) => write!(
                f,
                "member {name} shows another key than the one in the genesis this member signed: its \
                 data directory was emptied, or it runs twice. Bring its files back; {AGAIN}"
            ),
            Self::OtherGenesis { member, network } => write!(
                f,
                "member {member} signed network {network}, which is not the one that follows from \
                 what all members say now; {AGAIN}"
            ),
        }
    }
}

impl std::error::Error for FoundError {}

/// What a member answers with.
struct Known {
    hello: Hello,
    file: Option<GenesisFile>,
}

impl Known {
    fn answer(&self, question: Bytes) -> Option<Answer> {
        let Question::Found { seed, name, key } = Question::from_bytes(question).ok()? else {
            return None;
        };
        if seed != self.hello.seed {
            return Some(Answer::OtherCluster);
        }
        let agreed = self.file.as_ref().map(|file| {
            let network = file.genesis.cluster_id();
            (network, file.signatures.clone())
        });
        let members = self.file.iter().flat_map(|file| &file.genesis.members);
        let asker = members.into_iter().find(|member| member.name == name);
        Some(match (asker, &agreed) {
            (Some(asker), Some((network, _))) if asker.key != key => {
                Answer::OtherKey { network: *network, known: asker.key }
            }
            _ => Answer::Member { hello: Box::new(self.hello.clone()), agreed },
        })
    }
}

fn answerer(known: Arc<RwLock<Known>>) -> Answerer {
    Arc::new(move |question| {
        let known = known.read().unwrap_or_else(PoisonError::into_inner);
        let answer = known.answer(question).map(|answer| answer.to_bytes()).unwrap_or_default();
        Box::pin(core::future::ready(answer))
    })
}

/// Answers members that have signed and not yet heard that all did, and members that were added, for as
/// long as this one runs. None in a network of organisations, which grows by ceremony.
pub(super) fn standing_answerer(
    file: &GenesisFile,
    scheme: &dyn Scheme,
    handle: Arc<OnceLock<Handle>>,
) -> Option<Answerer> {
    let genesis = &file.genesis;
    if genesis.ownership != Ownership::One {
        return None;
    }
    // A member that joined later is not in the genesis, and nobody asks it for its signature.
    let founder = file.member_of(&scheme.public_key()).ok().map(|own| {
        let (name, urls) = (own.name.clone(), own.client_urls.clone());
        let parameters = (genesis.parameters.clone(), scheme);
        let hello = Hello::sign(Digest(genesis.salt), name, urls, parameters);
        Arc::new(Known { hello, file: Some(file.clone()) })
    });
    let text: Bytes = file.to_json().into_bytes().into();
    Some(Arc::new(move |question| {
        let (founder, text, handle) = (founder.clone(), text.clone(), handle.clone());
        Box::pin(async move {
            let answer = match Question::from_bytes(question.clone()) {
                Ok(Question::Found { .. }) => founder.and_then(|known| known.answer(question)),
                Ok(Question::Genesis) => Some(Answer::Genesis(text)),
                Ok(Question::Join { network, peer_address }) => match handle.get() {
                    Some(handle) => Some(joining::admit(handle, network, &peer_address).await),
                    None => Some(Answer::NotNow("it starts".to_owned())),
                },
                Err(_) => None,
            };
            answer.map(|answer| answer.to_bytes()).unwrap_or_default()
        })
    }))
}

/// Founds the network, or joins in: returns the genesis with the signatures of all members, durable.
/// Waits for as long as a member is missing.
///
/// # Errors
/// [`FoundError`].
pub async fn found(
    founder: Founder,
    listeners: &[PeerListener],
    tls: &Arc<ExchangeTls>,
) -> Result<GenesisFile, FoundError> {
    let known = Known { hello: founder.hello.clone(), file: founder.signed.clone() };
    let known = Arc::new(RwLock::new(known));
    let exchange = Exchange { answerer: answerer(Arc::clone(&known)), tls: Arc::clone(tls) };
    let strangers = Strangers::start(listeners, &exchange).map_err(FoundError::Listen)?;
    let mut round = Round::new(founder, known);
    let (mut pause, mut said) = (ROUND_FIRST, Instant::now());
    loop {
        for (name, answer) in round.ask_all(tls).await {
            round.hear(name, answer)?;
        }
        if let Some(file) = round.conclude()? {
            drop(strangers);
            return Ok(file);
        }
        if said.elapsed() >= SAY_EVERY {
            said = Instant::now();
            let missing = round.silent().join("; ");
            tracing::warn!(event = "founding", %missing, "waiting for members to found the network");
        }
        tokio::time::sleep(pause).await;
        pause = (pause * 3 / 2).min(ROUND_LAST);
    }
}

/// What one member knows so far.
struct Round {
    founder: Founder,
    known: Arc<RwLock<Known>>,
    hellos: BTreeMap<String, Hello>,
    /// What others signed before this member did.
    agreed: BTreeMap<String, ClusterId>,
    /// Why members did not answer when they were last asked.
    unheard: BTreeMap<String, String>,
    file: Option<GenesisFile>,
}

impl Round {
    fn new(mut founder: Founder, known: Arc<RwLock<Known>>) -> Self {
        let hellos = BTreeMap::from([(founder.hello.name.clone(), founder.hello.clone())]);
        let file = founder.signed.take();
        let (agreed, unheard) = (BTreeMap::new(), BTreeMap::new());
        Self { founder, known, hellos, agreed, unheard, file }
    }

    /// Whose word is missing: all others' until there is a genesis, so that the newest counts; then
    /// those that have not signed it.
    fn missing(&self) -> Vec<String> {
        let own = &self.founder.hello.name;
        let others = self.founder.cluster.members.keys().filter(|name| *name != own);
        let needed = |name: &&String| match &self.file {
            None => true,
            Some(file) => !signed_by(file, name),
        };
        others.filter(needed).cloned().collect()
    }

    /// Who is missing, and why as far as that is known.
    fn silent(&self) -> Vec<String> {
        let told = |name: String| match self.unheard.get(&name) {
            Some(why) => format!("{name} ({why})"),
            None => name,
        };
        self.missing().into_iter().map(told).collect()
    }

    fn hear(&mut self, name: String, answer: Result<Answer, String>) -> Result<(), FoundError> {
        match answer {
            Ok(answer) => {
                self.unheard.remove(&name);
                self.take(&name, answer)?;
            }
            Err(why) => drop(self.unheard.insert(name, why)),
        }
        Ok(())
    }

    async fn ask_all(&self, tls: &Arc<ExchangeTls>) -> Vec<(String, Result<Answer, String>)> {
        let hello = &self.founder.hello;
        let question =
            Question::Found { seed: hello.seed, name: hello.name.clone(), key: hello.key };
        let question = question.to_bytes();
        let mut asking = JoinSet::new();
        for name in self.missing() {
            let urls = self.founder.cluster.members.get(&name).cloned().unwrap_or_default();
            let (question, tls) = (question.clone(), Arc::clone(tls));
            asking.spawn(async move { (name, ask_one(&urls.join(","), &question, &tls).await) });
        }
        let mut answers = Vec::new();
        while let Some(done) = asking.join_next().await {
            answers.extend(done);
        }
        answers.sort_by(|(one, _), (other, _)| one.cmp(other));
        answers
    }

    fn take(&mut self, name: &str, answer: Answer) -> Result<(), FoundError> {
        let member = name.to_owned();
        let (hello, agreed) = match answer {
            Answer::Member { hello, agreed } => (*hello, agreed),
            Answer::OtherCluster => return Err(FoundError::OtherCluster(member)),
            Answer::OtherKey { network, known } => {
                return Err(FoundError::OtherKey { member, network, known });
            }
            // Answers to what was not asked.
            Answer::Genesis(_) | Answer::Joined(_) | Answer::NotListed | Answer::NotNow(_) => {
                return Ok(());
            }
        };
        if hello.name != name || hello.seed != self.founder.hello.seed || !hello.holds() {
            return Err(FoundError::Stranger { wanted: member, found: hello.name });
        }
        if hello.parameters != self.founder.hello.parameters {
            return Err(FoundError::Parameters(member));
        }
        let Some(file) = &mut self.file else {
            match agreed {
                Some((network, _)) => self.agreed.insert(member.clone(), network),
                None => self.agreed.remove(name),
            };
            self.hellos.insert(member, hello);
            return Ok(());
        };
        if file.genesis.members.iter().any(|one| one.name == name && one.key != hello.key) {
            return Err(FoundError::Rekeyed(member));
        }
        let Some((network, signatures)) = agreed else { return Ok(()) };
        if network != file.genesis.cluster_id() {
            return Err(FoundError::OtherGenesis { member, network });
        }
        for one in &file.genesis.members {
            if let Some(signature) = signatures.get(&one.id)
                && file.genesis.signed_by(one, signature)
            {
                file.signatures.insert(one.id, *signature);
            }
        }
        Ok(())
    }

    /// Signs once all have said hello; the sealed genesis once all have signed.
    fn conclude(&mut self) -> Result<Option<GenesisFile>, FoundError> {
        let Founder { cluster, scheme, genesis: path, .. } = &self.founder;
        if self.file.is_none() && self.hellos.len() == cluster.members.len() {
            let file = one_owner(cluster, &self.hellos, &**scheme).map_err(FoundError::Genesis)?;
            let id = file.genesis.cluster_id();
            if let Some((member, network)) = self.agreed.iter().find(|(_, other)| **other != id) {
                let (member, network) = (member.clone(), *network);
                return Err(FoundError::OtherGenesis { member, network });
            }
            // Durable before anyone hears of it: a member signs one genesis in its life.
            create_new(path, file.to_json().as_bytes(), 0o600).map_err(FoundError::File)?;
            self.file = Some(file);
        }
        let Some(file) = &self.file else { return Ok(None) };
        let mut known = self.known.write().unwrap_or_else(PoisonError::into_inner);
        known.file = Some(file.clone());
        drop(known);
        if file.check_sealed().is_err() {
            return Ok(None);
        }
        replace(path, file.to_json().as_bytes(), 0o600).map_err(FoundError::File)?;
        Ok(Some(file.clone()))
    }
}

fn signed_by(file: &GenesisFile, name: &str) -> bool {
    let mut members = file.genesis.members.iter();
    members.any(|member| member.name == name && file.signatures.contains_key(&member.id))
}

/// The first answer at any of a member's URLs, or why there is none.
pub(super) async fn ask_one(
    urls: &str,
    question: &[u8],
    tls: &ExchangeTls,
) -> Result<Answer, String> {
    let mut why = "it has no peer URL".to_owned();
    for url in peer_urls(urls) {
        let asked = tokio::time::timeout(ASK_WITHIN, ask(&url, question, tls)).await;
        let answer = match asked {
            Ok(Ok(bytes)) => Answer::from_bytes(bytes).map_err(|error| error.to_string()),
            Ok(Err(error)) => Err(error.to_string()),
            Err(_) => Err("no answer in time".to_owned()),
        };
        match answer {
            Ok(answer) => return Ok(answer),
            Err(error) => why = format!("{url}: {error}"),
        }
    }
    Err(why)
}

#[cfg(test)]
mod tests;
