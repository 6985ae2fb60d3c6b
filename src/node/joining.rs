//! How a member that was added to a network of one owner by its peer URL alone comes in (protocol.md
//! 22.7): it asks to be let in, the member that is asked looks who answers at that peer URL, and orders
//! that key's admission.

use core::fmt;
use core::time::Duration;
use std::sync::Arc;
use std::time::Instant;

use bytes::Bytes;

use crate::apply::{OpError, Reply};
use crate::chain::{
    Answer, Author, ConfigAction, ConfigChange, ConfigError, EpochProof, Hello, Network, Op,
    Ownership, Parameters, Question, peer_urls,
};
use crate::codec::{Decode, Encode};
use crate::config::{GenesisError, GenesisFile};
use crate::crypto::{PublicKey, Scheme};
use crate::net::{Answerer, Exchange, PeerListener, Strangers};
use crate::node::bootstrap::ask_one;
use crate::node::{Handle, NodeError};
use crate::tls::ExchangeTls;
use crate::types::{ClusterId, Millis, ReplicaId};

/// Between two attempts.
const PAUSE: Duration = Duration::from_millis(300);
/// So often the operator is told what is waited for.
const SAY_EVERY: Duration = Duration::from_secs(5);
/// Changes that got ahead of one that is wanted; then its caller may try again.
const STALE_MAX: usize = 16;
/// Most bytes of a reason that goes into an answer.
const REASON_BYTES: usize = 400;
/// How the history names what a replica orders for a member that was added.
const OWN_WORK: &str = "member change";

/// A member that was added, before it knows the network.
pub struct Joiner {
    /// `--name`.
    pub name: String,
    /// Its own peer URLs, joined by commas.
    pub peer_address: String,
    /// Where clients find it.
    pub client_urls: Vec<String>,
    /// The peer URLs of the others, by name.
    pub others: Vec<(String, String)>,
    /// Its key's.
    pub scheme: Arc<dyn Scheme>,
}

/// What a joiner starts with.
pub struct Joined {
    /// The network's.
    pub file: GenesisFile,
    /// How every epoch ended up to the one that admits it.
    pub epochs: Vec<EpochProof>,
}

/// Why a member does not come in.
#[derive(Debug)]
pub enum JoinError {
    /// The system refuses the peer sockets.
    Listen(std::io::Error),
    /// What a member gave is no genesis.
    Genesis(String, GenesisError),
    /// Two members are of two networks.
    Networks(String),
    /// Nobody was added with these peer URLs.
    NotListed {
        /// Who says so.
        member: String,
        /// The URLs.
        urls: String,
    },
    /// The member that was added with these peer URLs has shown another key.
    OtherKey {
        /// Who says so.
        member: String,
        /// The key it knows.
        known: PublicKey,
    },
}

impl fmt::Display for JoinError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Listen(error) => write!(f, "the peer listeners cannot be used: {error}"),
            Self::Genesis(name, error) => write!(f, "what {name} gave as its genesis: {error}"),
            Self::Networks(name) => write!(
                f,
                "member {name} is of another network than the others of --initial-cluster"
            ),
            Self::NotListed { member, urls } => write!(
                f,
                "error validating peerURLs {urls}: unmatched member while checking PeerURLs: {member} \
                 knows no member that was added with them; add it (etcdctl member add NAME \
                 --peer-urls={urls}) before it starts, with the same URLs as \
                 --initial-advertise-peer-urls"
            ),
            Self::OtherKey { member, known } => write!(
                f,
                "member {member} knows the member with these peer URLs by the key {known}, which \
                 this data directory does not hold: it was emptied, or another process was started \
                 in its place. Bring its files back, or remove the member and add it anew (etcdctl \
                 member remove, member add)"
            ),
        }
    }
}

impl std::error::Error for JoinError {}

/// Asks to be let in until it is. `listeners` answer who this member is meanwhile.
///
/// # Errors
/// [`JoinError`].
pub async fn join(
    joiner: Joiner,
    listeners: &[PeerListener],
    tls: &Arc<ExchangeTls>,
) -> Result<Joined, JoinError> {
    let mut said = Instant::now();
    let mut why = String::from("nobody answers at the peer URLs of --initial-cluster");
    let mut pause = Duration::ZERO;
    let (file, strangers) = loop {
        tokio::time::sleep(pause).await;
        if let Some(file) = genesis(&joiner, tls, &mut why).await? {
            let answerer = own_answerer(&joiner, file.genesis.cluster_id());
            let exchange = Exchange { answerer, tls: Arc::clone(tls) };
            break (file, Strangers::start(listeners, &exchange).map_err(JoinError::Listen)?);
        }
        say(&mut said, &why);
        pause = PAUSE;
    };
    let network = file.genesis.cluster_id();
    let question = Question::Join { network, peer_address: joiner.peer_address.clone() };
    let question = question.to_bytes();
    loop {
        for (name, urls) in &joiner.others {
            match ask_one(urls, &question, tls).await {
                Ok(Answer::Joined(epochs)) => {
                    drop(strangers);
                    return Ok(Joined { file, epochs });
                }
                Ok(Answer::NotListed) => {
                    let urls = joiner.peer_address.clone();
                    return Err(JoinError::NotListed { member: name.clone(), urls });
                }
                Ok(Answer::OtherKey { known, .. }) => {
                    return Err(JoinError::OtherKey { member: name.clone(), known });
                }
                Ok(Answer::OtherCluster) => return Err(JoinError::Networks(name.clone())),
                Ok(Answer::NotNow(reason)) => why = format!("{name}: {reason}"),
                Err(reason) => why = format!("{name}: {reason}"),
                Ok(_) => {}
            }
        }
        say(&mut said, &why);
        tokio::time::sleep(PAUSE).await;
    }
}

fn say(said: &mut Instant, why: &str) {
    if said.elapsed() >= SAY_EVERY {
        *said = Instant::now();
        tracing::warn!(event = "joining", %why, "waiting to be let into the network");
    }
}

/// The genesis that all members who answer hold; `why` says why there is none.
async fn genesis(
    joiner: &Joiner,
    tls: &ExchangeTls,
    why: &mut String,
) -> Result<Option<GenesisFile>, JoinError> {
    let mut found: Option<GenesisFile> = None;
    for (name, urls) in &joiner.others {
        let bytes = match ask_one(urls, &Question::Genesis.to_bytes(), tls).await {
            Ok(Answer::Genesis(bytes)) => bytes,
            Ok(_) => continue,
            Err(reason) => {
                *why = format!("{name}: {reason}");
                continue;
            }
        };
        let text = String::from_utf8_lossy(&bytes);
        let wrong = |error| JoinError::Genesis(name.clone(), error);
        let file = GenesisFile::parse(&text).map_err(wrong)?;
        file.check_sealed().map_err(wrong)?;
        if found.as_ref().is_some_and(|other| other.genesis != file.genesis) {
            return Err(JoinError::Networks(name.clone()));
        }
        found = Some(file);
    }
    Ok(found)
}

/// Says who this member is, to the member that looks at its peer URL.
fn own_answerer(joiner: &Joiner, network: ClusterId) -> Answerer {
    let (name, urls) = (joiner.name.clone(), joiner.client_urls.clone());
    let hello = Hello::sign(network, name, urls, (Parameters::default(), &*joiner.scheme));
    Arc::new(move |question: Bytes| {
        let answer = match Question::from_bytes(question) {
            Ok(Question::Found { seed, .. }) if seed == network => {
                Answer::Member { hello: Box::new(hello.clone()), agreed: None }.to_bytes()
            }
            _ => Bytes::new(),
        };
        Box::pin(core::future::ready(answer))
    })
}

/// Lets in whoever answers at these peer URLs, if a member was added with them.
pub(super) async fn admit(handle: &Handle, network: ClusterId, peer_address: &str) -> Answer {
    let own = handle.genesis().cluster_id();
    if network != own {
        return Answer::OtherCluster;
    }
    // A member that was just added is known everywhere.
    if let Err(error) = handle.linearizable().await {
        return Answer::NotNow(error.to_string());
    }
    let known = handle.network();
    if place_of(&known, peer_address).is_none() {
        return Answer::NotListed;
    }
    let question =
        Question::Found { seed: own, name: String::new(), key: PublicKey([0; 32]) }.to_bytes();
    let hello = match ask_one(peer_address, &question, handle.exchange()).await {
        Ok(Answer::Member { hello, .. }) => hello,
        other => {
            let why = other.err().unwrap_or_else(|| "it knows of no such network".to_owned());
            let mut text = format!("nobody who wants to join answers there: {why}");
            let fits = |at: &usize| *at <= REASON_BYTES && text.is_char_boundary(*at);
            text.truncate((0..=text.len()).rev().find(fits).unwrap_or(0));
            return Answer::NotNow(text);
        }
    };
    for _ in 0..STALE_MAX {
        let known = handle.network();
        if known.member_with_key(&hello.key).is_some() {
            return joined(handle).await;
        }
        let Some(replica) = place_of(&known, peer_address) else { return Answer::NotListed };
        if !known.awaits(replica) {
            let key = known.membership.member(replica).map(|member| member.key);
            let known = key.unwrap_or(PublicKey([0; 32]));
            return Answer::OtherKey { network, known };
        }
        let action = ConfigAction::Admit { replica, hello: hello.clone() };
        match handle.change_owned(handle.own_author(OWN_WORK), action).await {
            Ok(_) | Err(OwnedError::Config(ConfigError::Stale)) => {}
            Err(error) => return Answer::NotNow(error.to_string()),
        }
    }
    Answer::NotNow("other changes of members got ahead".to_owned())
}

async fn joined(handle: &Handle) -> Answer {
    // The list of proofs follows the state at once.
    while (handle.epochs().len() as u64) < handle.network().membership.epoch.0 {
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    Answer::Joined(handle.epochs())
}

/// The member, or the place kept for one, with exactly these peer URLs.
fn place_of(network: &Network, peer_address: &str) -> Option<ReplicaId> {
    let sorted = |text: &str| {
        let mut urls = peer_urls(text);
        urls.sort();
        urls
    };
    let wanted = sorted(peer_address);
    let ids = network.addresses.keys().chain(network.reserved.keys()).copied();
    ids.into_iter().find(|id| network.peer_address(*id).is_some_and(|one| sorted(one) == wanted))
}

/// Why a change of a network of one owner was not made.
#[derive(Debug)]
pub enum OwnedError {
    /// The rules refuse it.
    Config(ConfigError),
    /// Something else refuses the op.
    Refused(OpError),
    /// It was not ordered.
    Node(NodeError),
}

impl fmt::Display for OwnedError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Config(error) => write!(f, "{error}"),
            Self::Refused(error) => write!(f, "{error}"),
            Self::Node(error) => write!(f, "{error}"),
        }
    }
}

impl Handle {
    /// Orders a change of a network of one owner, on its members as they are known here; the replica it
    /// gives an id to, if it does. What follows from a member's having been added is this replica's own
    /// work; the rest counts if its author is an administrator (protocol.md 22.8).
    ///
    /// # Errors
    /// [`OwnedError`].
    pub async fn change_owned(
        &self,
        author: Author,
        action: ConfigAction,
    ) -> Result<Option<ReplicaId>, OwnedError> {
        let base = self.read(|shared| shared.state.network().membership.config_hash());
        // Its bundle has an end of its own, and its base makes it good for one epoch.
        let not_after_ms = Millis(u64::MAX);
        let change =
            ConfigChange { base, not_after_ms, action, attestation: None, votes: Vec::new() };
        let op = Op::Config(Box::new(change));
        match self.propose(author, op, Vec::new()).await {
            Ok(Reply::Config { added, .. }) => Ok(added),
            Ok(Reply::Error { error: OpError::Config(error), .. }) => {
                Err(OwnedError::Config(error))
            }
            Ok(Reply::Error { error, .. }) => Err(OwnedError::Refused(error)),
            Ok(_) => unreachable!("a change is answered as one"),
            Err(error) => Err(OwnedError::Node(error)),
        }
    }
}

/// A member that was added to vote orders its own promotion once it has caught up. Returns when it votes,
/// or was added as a learner.
pub async fn vote_when_ready(handle: &Handle) {
    let own = handle.own();
    loop {
        let network = handle.network();
        let promised = network.reserved.get(&own).is_some_and(|reserved| reserved.voting);
        let member = network.membership.member(own);
        let follows = member.is_none() && network.ownership == Ownership::One;
        if !promised && !follows {
            return;
        }
        // A linearizable read ends once everything is executed that was acknowledged before.
        if member.is_some() && handle.linearizable().await.is_ok() {
            let (author, action) =
                (handle.own_author(OWN_WORK), ConfigAction::Promote { replica: own });
            let promoted = handle.change_owned(author, action).await;
            if let Err(error) = &promoted {
                tracing::info!(event = "promotion", %error, "does not vote yet");
            }
        }
        tokio::time::sleep(PAUSE).await;
    }
}
