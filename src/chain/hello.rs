//! How a network of one owner comes to be: what each member says of itself, and the genesis that
//! follows (protocol.md 22).

use std::collections::BTreeMap;

use crate::chain::network::{get_text, get_texts, put_text, put_texts};
use crate::chain::{Genesis, GenesisMember, Ownership, Parameters};
use crate::codec::{Decode, DecodeError, Encode, Reader, Writer};
use crate::crypto::{
    Context, PublicKey, SIGNED_BYTES, Scheme, Signature, SignedKind, hash, signed_bytes,
    verify_ed25519, weak_key,
};
use crate::types::{Digest, Epoch, Millis, OrgId, ReplicaId};

const VERSION: u8 = 1;

/// What `--initial-cluster` and `--initial-cluster-token` say.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct InitialCluster {
    /// Parts networks whose members are named alike.
    pub token: String,
    /// Peer URLs by name; each list is sorted and not empty.
    pub members: BTreeMap<String, Vec<String>>,
}

impl InitialCluster {
    /// What all its members must have been told: it stands for the network until there is one, and is
    /// the genesis's salt.
    #[must_use]
    pub fn seed(&self) -> Digest {
        let mut writer = Writer::new();
        put_text(&self.token, &mut writer);
        writer.length(self.members.len());
        for (name, urls) in &self.members {
            put_text(name, &mut writer);
            put_texts(urls, &mut writer);
        }
        hash(&Context::INITIAL_CLUSTER, &[writer.as_slice()])
    }

    /// The one genesis of these members; none before each has said hello.
    #[must_use]
    pub fn genesis(&self, hellos: &BTreeMap<String, Hello>) -> Option<Genesis> {
        let mut members = Vec::with_capacity(self.members.len());
        for (at, (name, urls)) in self.members.iter().enumerate() {
            let hello = hellos.get(name)?;
            members.push(GenesisMember {
                id: ReplicaId(u16::try_from(at).ok()?),
                organisation: OrgId(0),
                name: name.clone(),
                key: hello.key,
                governance_keys: Vec::new(),
                client_urls: hello.client_urls.clone(),
                peer_address: urls.join(","),
            });
        }
        Some(Genesis {
            ownership: Ownership::One,
            demo: false,
            salt: self.seed().0,
            created_ms: Millis(0),
            members,
            parameters: hellos.values().next()?.parameters.clone(),
            initial: None,
        })
    }
}

/// What a member says of itself.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Hello {
    /// Of the network it was told to found.
    pub seed: Digest,
    /// Its name.
    pub name: String,
    /// Checks its votes and bundles.
    pub key: PublicKey,
    /// Where clients find it.
    pub client_urls: Vec<String>,
    /// Its voted flags, which must be everyone's.
    pub parameters: Parameters,
    /// That key's, over all of it.
    pub signature: Signature,
}

impl Hello {
    /// Signed by the member's own key.
    #[must_use]
    pub fn sign(
        seed: Digest,
        name: String,
        client_urls: Vec<String>,
        (parameters, scheme): (Parameters, &dyn Scheme),
    ) -> Self {
        let (key, signature) = (scheme.public_key(), Signature([0; 64]));
        let mut hello = Self { seed, name, key, client_urls, parameters, signature };
        hello.signature = scheme.sign(&hello.signed_bytes());
        hello
    }

    /// Whether the key it names signed it, and is one that signs for nobody else.
    #[must_use]
    pub fn holds(&self) -> bool {
        !weak_key(&self.key) && verify_ed25519(&self.key, &self.signed_bytes(), &self.signature)
    }

    fn signed_bytes(&self) -> [u8; SIGNED_BYTES] {
        let mut writer = Writer::new();
        self.encode_body(&mut writer);
        let body = hash(&Context::HELLO, &[writer.as_slice()]);
        signed_bytes(SignedKind::Hello, &self.seed, Epoch(0), &body)
    }

    fn encode_body(&self, writer: &mut Writer) {
        writer.u8(VERSION);
        writer.digest(&self.seed);
        put_text(&self.name, writer);
        writer.raw(&self.key.0);
        put_texts(&self.client_urls, writer);
        self.parameters.encode(writer);
    }
}

impl Encode for Hello {
    fn encode(&self, writer: &mut Writer) {
        self.encode_body(writer);
        writer.raw(&self.signature.0);
    }
}

impl Decode for Hello {
    fn decode(reader: &mut Reader) -> Result<Self, DecodeError> {
        if reader.u8("hello version")? != VERSION {
            return Err(DecodeError::Invalid("hello version"));
        }
        Ok(Self {
            seed: reader.digest("hello seed")?,
            name: get_text(reader, "hello name")?,
            key: PublicKey(reader.array("hello key")?),
            client_urls: get_texts(reader, "hello client URL")?,
            parameters: Parameters::decode(reader)?,
            signature: Signature(reader.array("hello signature")?),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::crypto::Ed25519;

    fn hello(cluster: &InitialCluster, name: &str, seed: u8) -> Hello {
        let key = Ed25519::from_seed(&[seed; 32]);
        let urls = vec![format!("http://{name}:2379")];
        Hello::sign(cluster.seed(), name.to_owned(), urls, (Parameters::default(), &key))
    }

    fn cluster(names: &[&str]) -> InitialCluster {
        let url = |name: &&str| ((*name).to_owned(), vec![format!("http://{name}:2380")]);
        InitialCluster { token: "t".into(), members: names.iter().map(url).collect() }
    }

    #[test]
    fn all_members_derive_one_genesis_whatever_they_heard_first() {
        let told = cluster(&["b", "a", "c"]);
        let all = [("c", 3), ("a", 1), ("b", 2)];
        let mut hellos = BTreeMap::new();
        for (name, seed) in all {
            assert_eq!(told.genesis(&hellos), None, "not before all said hello");
            hellos.insert(name.to_owned(), hello(&told, name, seed));
        }
        let genesis = told.genesis(&hellos).expect("all said hello");
        let names: Vec<&str> = genesis.members.iter().map(|one| one.name.as_str()).collect();
        assert_eq!(names, ["a", "b", "c"]);
        assert!(genesis.members.iter().all(|one| one.organisation == OrgId(0)), "one owner");
        let other = InitialCluster { token: "u".into(), ..told.clone() };
        assert_ne!(other.genesis(&hellos).map(|one| one.cluster_id()), Some(genesis.cluster_id()));
        hellos.insert("b".into(), hello(&told, "b", 9));
        let rekeyed = told.genesis(&hellos).expect("all said hello");
        assert_ne!(rekeyed.cluster_id(), genesis.cluster_id(), "a key is part of it");
    }

    #[test]
    fn a_hello_is_its_keys_word_and_nobody_elses() {
        let told = cluster(&["a"]);
        let good = hello(&told, "a", 1);
        assert!(good.holds());
        let key = hello(&told, "a", 2).key;
        let changed = [
            Hello { key, ..good.clone() },
            Hello { name: "b".into(), ..good.clone() },
            Hello { client_urls: Vec::new(), ..good.clone() },
            Hello { seed: Digest::ZERO, ..good.clone() },
            Hello { key: PublicKey([0; 32]), ..good.clone() },
        ];
        assert!(changed.iter().all(|hello| !hello.holds()));
    }
}
