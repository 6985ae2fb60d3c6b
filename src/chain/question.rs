//! What a process asks others at their peer URLs before it belongs to their network, and what they
//! answer (protocol.md 22).

use std::collections::BTreeMap;

use bytes::Bytes;

use crate::chain::network::{get_text, put_text};
use crate::chain::{EpochProof, Hello};
use crate::codec::{Decode, DecodeError, Encode, Reader, Writer};
use crate::crypto::{PublicKey, Signature};
use crate::types::{ClusterId, Digest, ReplicaId};

const SIGNATURES_MAX: usize = 128;
const GENESIS_BYTES_MAX: usize = 4 << 20;
const EPOCHS_MAX: usize = 1 << 16;

/// What one process asks another at its peer URL.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Question {
    /// Who are you, and what have you signed? From a member that founds a network.
    Found {
        /// Of the network to be founded.
        seed: Digest,
        /// Who asks.
        name: String,
        /// The asker's replica key.
        key: PublicKey,
    },
    /// Which network is this? From a member that was added to it.
    Genesis,
    /// Let me in: whoever answers at these peer URLs is the member that was added with them.
    Join {
        /// The network.
        network: ClusterId,
        /// The asker's peer URLs, joined by commas.
        peer_address: String,
    },
}

/// The answer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Answer {
    /// Who the answerer is, and the genesis it signed, if it did.
    Member {
        /// Its own.
        hello: Box<Hello>,
        /// The network it agreed to, with all signatures it holds, in ascending order of replica.
        agreed: Option<(ClusterId, BTreeMap<ReplicaId, Signature>)>,
    },
    /// The answerer was told another token or other members.
    OtherCluster,
    /// The answerer's network knows the asker by another key.
    OtherKey {
        /// That network.
        network: ClusterId,
        /// The key.
        known: PublicKey,
    },
    /// The sealed genesis file, whose signatures prove it whole.
    Genesis(Bytes),
    /// The asker is a member: how every epoch ended up to the one that admits it.
    Joined(Vec<EpochProof>),
    /// No member was added with these peer URLs.
    NotListed,
    /// Not now; says why.
    NotNow(String),
}

impl Encode for Question {
    fn encode(&self, writer: &mut Writer) {
        match self {
            Self::Found { seed, name, key } => {
                writer.u8(1);
                writer.digest(seed);
                put_text(name, writer);
                writer.raw(&key.0);
            }
            Self::Genesis => writer.u8(2),
            Self::Join { network, peer_address } => {
                writer.u8(3);
                writer.digest(network);
                put_text(peer_address, writer);
            }
        }
    }
}

impl Decode for Question {
    fn decode(reader: &mut Reader) -> Result<Self, DecodeError> {
        match reader.u8("question kind")? {
            1 => Ok(Self::Found {
                seed: reader.digest("question seed")?,
                name: get_text(reader, "question name")?,
                key: PublicKey(reader.array("question key")?),
            }),
            2 => Ok(Self::Genesis),
            3 => Ok(Self::Join {
                network: reader.digest("question network")?,
                peer_address: get_text(reader, "question peer address")?,
            }),
            _ => Err(DecodeError::Invalid("question kind")),
        }
    }
}

impl Encode for Answer {
    fn encode(&self, writer: &mut Writer) {
        match self {
            Self::Member { hello, agreed } => {
                writer.u8(1);
                hello.encode(writer);
                writer.bool(agreed.is_some());
                if let Some((network, signatures)) = agreed {
                    writer.digest(network);
                    writer.length(signatures.len());
                    for (id, signature) in signatures {
                        writer.u16(id.0);
                        writer.raw(&signature.0);
                    }
                }
            }
            Self::OtherCluster => writer.u8(2),
            Self::OtherKey { network, known } => {
                writer.u8(3);
                writer.digest(network);
                writer.raw(&known.0);
            }
            Self::Genesis(file) => {
                writer.u8(4);
                writer.bytes(file);
            }
            Self::Joined(epochs) => {
                writer.u8(5);
                writer.length(epochs.len());
                epochs.iter().for_each(|proof| proof.encode(writer));
            }
            Self::NotListed => writer.u8(6),
            Self::NotNow(why) => {
                writer.u8(7);
                put_text(why, writer);
            }
        }
    }
}

impl Decode for Answer {
    fn decode(reader: &mut Reader) -> Result<Self, DecodeError> {
        Ok(match reader.u8("answer kind")? {
            1 => {
                let hello = Hello::decode(reader)?;
                let agreed = if reader.bool("answer agreement")? {
                    let network = reader.digest("answer network")?;
                    let mut signatures = BTreeMap::new();
                    for _ in 0..reader.length(SIGNATURES_MAX, "answer signatures")? {
                        let id = ReplicaId(reader.u16("answer signer")?);
                        if signatures.last_key_value().is_some_and(|(last, _)| *last >= id) {
                            return Err(DecodeError::Invalid("answer signer"));
                        }
                        signatures.insert(id, Signature(reader.array("answer signature")?));
                    }
                    Some((network, signatures))
                } else {
                    None
                };
                Self::Member { hello: Box::new(hello), agreed }
            }
            2 => Self::OtherCluster,
            3 => Self::OtherKey {
                network: reader.digest("answer network")?,
                known: PublicKey(reader.array("answer key")?),
            },
            4 => Self::Genesis(reader.bytes(GENESIS_BYTES_MAX, "answer genesis")?),
            5 => {
                let count = reader.length(EPOCHS_MAX, "answer epochs")?;
                let proofs = (0..count).map(|_| EpochProof::decode(reader));
                Self::Joined(proofs.collect::<Result<_, _>>()?)
            }
            6 => Self::NotListed,
            7 => Self::NotNow(get_text(reader, "answer reason")?),
            _ => return Err(DecodeError::Invalid("answer kind")),
        })
    }
}
