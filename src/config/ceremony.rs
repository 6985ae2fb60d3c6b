use std::collections::BTreeMap;
use std::path::Path;

use serde::{Deserialize, Serialize};

use super::genesis_error::GenesisError;
use super::genesis_file::{
    GenesisFile, check, check_member, check_version, hex, keys, pretty, read_bounded, to_hex,
};
use crate::chain::{Genesis, GenesisMember, Ownership, Parameters};
use crate::crypto::{PublicKey, Signature};
use crate::types::{ClusterId, Digest, Millis, OrgId, ReplicaId};

/// What an organisation shows to the others before there is a genesis: NAME.public.json.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PublicFile {
    /// The organisation's.
    pub name: String,
    /// Checks its replica's votes and bundles.
    pub key: PublicKey,
    /// Its offline keys.
    pub governance_keys: Vec<PublicKey>,
    /// Where clients find it.
    pub client_urls: Vec<String>,
    /// host:port where peers find it.
    pub peer_address: String,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct PublicJson {
    version: u16,
    name: String,
    key: String,
    governance_keys: Vec<String>,
    client_urls: Vec<String>,
    peer_address: String,
}

impl PublicFile {
    /// Reads and checks a file.
    ///
    /// # Errors
    /// [`GenesisError`].
    pub fn read(path: &Path) -> Result<Self, GenesisError> {
        Self::parse(&read_bounded(path)?)
    }

    /// Checks the text of a public file.
    ///
    /// # Errors
    /// [`GenesisError`].
    pub fn parse(text: &str) -> Result<Self, GenesisError> {
        let what = "public file";
        let json: PublicJson =
            serde_json::from_str(text).map_err(|why| GenesisError::Form { what, why })?;
        check_version(what, json.version)?;
        let file = Self {
            key: PublicKey(hex(&json.key, &format!("the key of {}", json.name))?),
            governance_keys: keys(&json.governance_keys, &json.name)?,
            name: json.name,
            client_urls: json.client_urls,
            peer_address: json.peer_address,
        };
        file.check()?;
        Ok(file)
    }

    /// Whether a genesis would take it.
    ///
    /// # Errors
    /// [`GenesisError`].
    pub fn check(&self) -> Result<(), GenesisError> {
        check_member(&self.member(0), Ownership::Many)
    }

    fn member(&self, at: u16) -> GenesisMember {
        GenesisMember {
            id: ReplicaId(at),
            organisation: OrgId(at),
            name: self.name.clone(),
            key: self.key,
            governance_keys: self.governance_keys.clone(),
            client_urls: self.client_urls.clone(),
            peer_address: self.peer_address.clone(),
        }
    }

    /// The first thing in which a member of a genesis differs from this file.
    #[must_use]
    pub fn difference(&self, member: &GenesisMember) -> Option<&'static str> {
        let own = self.member(member.id.0);
        let fields = [
            ("name", own.name == member.name),
            ("replica key", own.key == member.key),
            ("governance keys", own.governance_keys == member.governance_keys),
            ("client URLs", own.client_urls == member.client_urls),
            ("peer address", own.peer_address == member.peer_address),
        ];
        fields.iter().find(|(_, equal)| !equal).map(|(field, _)| *field)
    }

    /// The file's text.
    #[must_use]
    pub fn to_json(&self) -> String {
        pretty(&PublicJson {
            version: 1,
            name: self.name.clone(),
            key: self.key.to_string(),
            governance_keys: self.governance_keys.iter().map(ToString::to_string).collect(),
            client_urls: self.client_urls.clone(),
            peer_address: self.peer_address.clone(),
        })
    }
}

/// Joins public files into a genesis of ownership `many`; members stand in the order of their
/// names, whatever order the files came in.
///
/// # Errors
/// [`GenesisError`]: duplicates, weak keys, no file at all.
pub fn assemble(
    mut files: Vec<PublicFile>,
    salt: [u8; 32],
    created_ms: Millis,
    demo: bool,
) -> Result<GenesisFile, GenesisError> {
    files.sort_by(|one, two| one.name.cmp(&two.name));
    let members = files.iter().zip(0_u16..).map(|(file, at)| file.member(at)).collect();
    let genesis = Genesis {
        ownership: Ownership::Many,
        demo,
        salt,
        created_ms,
        members,
        parameters: Parameters::default(),
        initial: None,
    };
    check(&genesis)?;
    Ok(GenesisFile { genesis, signatures: BTreeMap::new() })
}

/// One member's agreement, on its way to the others: NAME.sig.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SignatureFile {
    /// Who.
    pub name: String,
    /// To which genesis.
    pub cluster_id: ClusterId,
    /// With what.
    pub signature: Signature,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct SignatureJson {
    version: u16,
    name: String,
    cluster_id: String,
    signature: String,
}

impl SignatureFile {
    /// Reads a file; the signature is checked by [`SignatureFile::add_to`].
    ///
    /// # Errors
    /// [`GenesisError`].
    pub fn read(path: &Path) -> Result<Self, GenesisError> {
        let what = "signature file";
        let json: SignatureJson = serde_json::from_str(&read_bounded(path)?)
            .map_err(|why| GenesisError::Form { what, why })?;
        check_version(what, json.version)?;
        Ok(Self {
            cluster_id: Digest(hex(&json.cluster_id, "cluster_id")?),
            signature: Signature(hex(&json.signature, "signature")?),
            name: json.name,
        })
    }

    /// Adds it to a genesis.
    ///
    /// # Errors
    /// [`GenesisError`]: another network's, nobody's, not a signature.
    pub fn add_to(&self, file: &mut GenesisFile) -> Result<(), GenesisError> {
        let id = file.genesis.cluster_id();
        if self.cluster_id != id {
            let (name, signed) = (self.name.clone(), self.cluster_id);
            return Err(GenesisError::OtherNetwork { name, signed, id });
        }
        file.add(&self.name, self.signature)
    }

    /// The file's text.
    #[must_use]
    pub fn to_json(&self) -> String {
        pretty(&SignatureJson {
            version: 1,
            name: self.name.clone(),
            cluster_id: self.cluster_id.to_string(),
            signature: to_hex(&self.signature.0),
        })
    }
}
