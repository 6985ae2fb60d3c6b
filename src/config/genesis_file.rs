use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

use serde::{Deserialize, Serialize};

use super::genesis_error::GenesisError;
use super::urls::{ListenUrl, split_host_port};
use crate::chain::{Genesis, GenesisMember, Ownership, Parameters, dialled};
use crate::crypto::{PublicKey, Signature, weak_key};
use crate::types::{Digest, Millis, OrgId, Quorum, ReplicaId};

/// More members than any network has; also bounds what a hostile file can cost.
const MEMBERS_MAX: usize = 128;
const FILE_BYTES_MAX: u64 = 4 << 20;

/// Lower-case hexadecimal digits.
#[must_use]
pub fn to_hex(bytes: &[u8]) -> String {
    use core::fmt::Write;
    bytes.iter().fold(String::with_capacity(bytes.len() * 2), |mut text, byte| {
        write!(text, "{byte:02x}").expect("a String takes every write");
        text
    })
}

/// Exactly `N` bytes of lower-case hexadecimal digits: one value has one form.
pub(super) fn from_hex<const N: usize>(text: &str) -> Option<[u8; N]> {
    let digit = |c: u8| match c {
        b'0'..=b'9' => Some(c - b'0'),
        b'a'..=b'f' => Some(c - b'a' + 10),
        _ => None,
    };
    let mut out = [0; N];
    let bytes = text.as_bytes();
    if bytes.len() != N * 2 {
        return None;
    }
    for (byte, pair) in out.iter_mut().zip(bytes.chunks_exact(2)) {
        *byte = digit(pair[0])? << 4 | digit(pair[1])?;
    }
    Some(out)
}

/// A genesis with the signatures collected so far.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct GenesisFile {
    /// What is hashed and signed.
    pub genesis: Genesis,
    /// By replica; complete once sealed.
    pub signatures: BTreeMap<ReplicaId, Signature>,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct GenesisJson {
    version: u16,
    cluster_id: String,
    ownership: OwnershipJson,
    demo: bool,
    salt: String,
    created_ms: u64,
    members: Vec<MemberJson>,
    parameters: ParametersJson,
    #[serde(rename = "initial_state", default, skip_serializing_if = "Option::is_none")]
    initial: Option<String>,
    #[serde(default)]
    signatures: BTreeMap<String, String>,
}

#[derive(Clone, Copy, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
enum OwnershipJson {
    One,
    Many,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct MemberJson {
    id: u16,
    organisation: u16,
    name: String,
    key: String,
    governance_keys: Vec<String>,
    client_urls: Vec<String>,
    peer_address: String,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct ParametersJson {
    window: u32,
    time_bound_ms: u64,
    view_timeout_ms: u64,
    request_bytes_max: u32,
    txn_ops_max: u32,
    quota_bytes: u64,
    checkpoint_log_bytes: u64,
    checkpoint_state_factor: u32,
    tenure_blocks: u32,
}

impl From<&Parameters> for ParametersJson {
    fn from(from: &Parameters) -> Self {
        Self {
            window: from.window,
            time_bound_ms: from.time_bound_ms,
            view_timeout_ms: from.view_timeout_ms,
            request_bytes_max: from.request_bytes_max,
            txn_ops_max: from.txn_ops_max,
            quota_bytes: from.quota_bytes,
            checkpoint_log_bytes: from.checkpoint_log_bytes,
            checkpoint_state_factor: from.checkpoint_state_factor,
            tenure_blocks: from.tenure_blocks,
        }
    }
}

impl From<ParametersJson> for Parameters {
    fn from(from: ParametersJson) -> Self {
        Self {
            window: from.window,
            time_bound_ms: from.time_bound_ms,
            view_timeout_ms: from.view_timeout_ms,
            request_bytes_max: from.request_bytes_max,
            txn_ops_max: from.txn_ops_max,
            quota_bytes: from.quota_bytes,
            checkpoint_log_bytes: from.checkpoint_log_bytes,
            checkpoint_state_factor: from.checkpoint_state_factor,
            tenure_blocks: from.tenure_blocks,
        }
    }
}

impl GenesisFile {
    /// Reads and checks a file; signatures may still be missing.
    ///
    /// # Errors
    /// [`GenesisError`].
    pub fn read(path: &Path) -> Result<Self, GenesisError> {
        Self::parse(&read_bounded(path)?)
    }

    /// Checks the text of a genesis file: form, members, parameters, the id, and every signature
    /// that is there.
    ///
    /// # Errors
    /// [`GenesisError`].
    pub fn parse(text: &str) -> Result<Self, GenesisError> {
        let what = "genesis";
        let json: GenesisJson =
            serde_json::from_str(text).map_err(|why| GenesisError::Form { what, why })?;
        check_version(what, json.version)?;
        let stated = Digest(hex(&json.cluster_id, "cluster_id")?);
        let members = json.members.iter().map(member).collect::<Result<Vec<_>, _>>()?;
        let ownership = match json.ownership {
            OwnershipJson::One => Ownership::One,
            OwnershipJson::Many => Ownership::Many,
        };
        let initial = json.initial.as_ref().map(|text| hex(text, "initial_state")).transpose()?;
        let initial = initial.map(Digest);
        let genesis = Genesis {
            ownership,
            demo: json.demo,
            salt: hex(&json.salt, "salt")?,
            created_ms: Millis(json.created_ms),
            members,
            parameters: json.parameters.into(),
            initial,
        };
        check(&genesis)?;
        let computed = genesis.cluster_id();
        if computed != stated {
            return Err(GenesisError::Id { stated, computed });
        }
        let mut file = Self { genesis, signatures: BTreeMap::new() };
        for (name, signature) in &json.signatures {
            file.add(name, Signature(hex(signature, &format!("the signature of {name}"))?))?;
        }
        Ok(file)
    }

    /// Takes in one member's signature.
    ///
    /// # Errors
    /// [`GenesisError::NoMember`], [`GenesisError::BadSignature`].
    pub fn add(&mut self, name: &str, signature: Signature) -> Result<(), GenesisError> {
        let member = self.genesis.members.iter().find(|member| member.name == name);
        let member = member.ok_or_else(|| GenesisError::NoMember(name.to_owned()))?;
        if !self.genesis.signed_by(member, &signature) {
            return Err(GenesisError::BadSignature(name.to_owned()));
        }
        self.signatures.insert(member.id, signature);
        Ok(())
    }

    /// Whether all members signed; signatures were checked when they came in.
    ///
    /// # Errors
    /// [`GenesisError::Unsigned`] with the names that are missing.
    pub fn check_sealed(&self) -> Result<(), GenesisError> {
        let unsigned = |member: &&GenesisMember| !self.signatures.contains_key(&member.id);
        let missing: Vec<String> =
            self.genesis.members.iter().filter(unsigned).map(|m| m.name.clone()).collect();
        if missing.is_empty() { Ok(()) } else { Err(GenesisError::Unsigned(missing)) }
    }

    /// The member with this key.
    ///
    /// # Errors
    /// [`GenesisError::LacksKey`].
    pub fn member_of(&self, key: &PublicKey) -> Result<&GenesisMember, GenesisError> {
        self.genesis.members.iter().find(|member| member.key == *key).ok_or_else(|| {
            let shown = |member: &GenesisMember| format!("{} ({})", member.name, member.key);
            let members: Vec<String> = self.genesis.members.iter().map(shown).collect();
            GenesisError::LacksKey {
                key: *key,
                id: self.genesis.cluster_id(),
                members: members.join(", "),
            }
        })
    }

    /// n, f and q.
    #[must_use]
    pub fn quorum(&self) -> Quorum {
        self.genesis.membership().quorum()
    }

    /// The file's text.
    #[must_use]
    pub fn to_json(&self) -> String {
        let genesis = &self.genesis;
        let name_of = |id: &ReplicaId| {
            let member = genesis.members.iter().find(|member| member.id == *id);
            member.expect("a signature is taken in for a member only").name.clone()
        };
        let signatures = &self.signatures;
        let json = GenesisJson {
            version: 1,
            cluster_id: genesis.cluster_id().to_string(),
            ownership: match genesis.ownership {
                Ownership::One => OwnershipJson::One,
                Ownership::Many => OwnershipJson::Many,
            },
            demo: genesis.demo,
            salt: to_hex(&genesis.salt),
            created_ms: genesis.created_ms.0,
            members: genesis.members.iter().map(member_json).collect(),
            parameters: (&genesis.parameters).into(),
            initial: genesis.initial.map(|digest| digest.to_string()),
            signatures: signatures.iter().map(|(id, s)| (name_of(id), to_hex(&s.0))).collect(),
        };
        pretty(&json)
    }
}

pub(super) fn pretty(json: &impl Serialize) -> String {
    let text = serde_json::to_string_pretty(json);
    text.expect("strings, numbers and lists always have a JSON form") + "\n"
}

pub(super) fn read_bounded(path: &Path) -> Result<String, GenesisError> {
    use std::io::Read;
    let unreadable = |why| GenesisError::Unreadable(path.to_path_buf(), why);
    let file = std::fs::File::open(path).map_err(unreadable)?;
    let mut text = String::new();
    file.take(FILE_BYTES_MAX + 1).read_to_string(&mut text).map_err(unreadable)?;
    if text.len() as u64 > FILE_BYTES_MAX {
        return Err(GenesisError::TooLarge(path.to_path_buf()));
    }
    Ok(text)
}

pub(super) fn check_version(what: &'static str, version: u16) -> Result<(), GenesisError> {
    if version == 1 { Ok(()) } else { Err(GenesisError::Version { what, version }) }
}

pub(super) fn hex<const N: usize>(text: &str, field: &str) -> Result<[u8; N], GenesisError> {
    from_hex(text).ok_or_else(|| GenesisError::Hex(format!("{field} ({text:?})")))
}

pub(super) fn keys(texts: &[String], owner: &str) -> Result<Vec<PublicKey>, GenesisError> {
    let field = format!("a governance key of {owner}");
    texts.iter().map(|text| Ok(PublicKey(hex(text, &field)?))).collect()
}

fn member(json: &MemberJson) -> Result<GenesisMember, GenesisError> {
    Ok(GenesisMember {
        id: ReplicaId(json.id),
        organisation: OrgId(json.organisation),
        name: json.name.clone(),
        key: PublicKey(hex(&json.key, &format!("the key of {}", json.name))?),
        governance_keys: keys(&json.governance_keys, &json.name)?,
        client_urls: json.client_urls.clone(),
        peer_address: json.peer_address.clone(),
    })
}

fn member_json(member: &GenesisMember) -> MemberJson {
    MemberJson {
        id: member.id.0,
        organisation: member.organisation.0,
        name: member.name.clone(),
        key: member.key.to_string(),
        governance_keys: member.governance_keys.iter().map(ToString::to_string).collect(),
        client_urls: member.client_urls.clone(),
        peer_address: member.peer_address.clone(),
    }
}

/// Whether a name is fit for files, certificates and tables: letters, digits, `-`, `.` and `_`,
/// beginning with a letter or digit, at most 63 of them.
#[must_use]
pub fn valid_name(name: &str) -> bool {
    let first = name.chars().next().is_some_and(|c| c.is_ascii_alphanumeric());
    let all = name.chars().all(|c| c.is_ascii_alphanumeric() || "-._".contains(c));
    first && all && name.len() <= 63
}

pub(super) fn check(genesis: &Genesis) -> Result<(), GenesisError> {
    let n = genesis.members.len();
    if n == 0 || n > MEMBERS_MAX {
        let why = format!("a genesis has 1 to {MEMBERS_MAX} members, this one {n}");
        return Err(GenesisError::Invalid(why));
    }
    let mut seen = BTreeSet::new();
    let mut once = |what: String| {
        if seen.insert(what.clone()) { Ok(()) } else { Err(GenesisError::Duplicate(what)) }
    };
    for (at, member) in genesis.members.iter().enumerate() {
        if usize::from(member.id.0) != at {
            let why = format!("member {} has id {}, its place says {at}", member.name, member.id);
            return Err(GenesisError::Invalid(why));
        }
        check_member(member, genesis.ownership)?;
        once(format!("the name {}", member.name))?;
        once(format!("the key {}", member.key))?;
        for address in dialled(&member.peer_address) {
            once(format!("the peer address {address}"))?;
        }
        for key in &member.governance_keys {
            once(format!("the key {key}"))?;
        }
        // etcd's members may advertise what only their own machine reaches.
        let urls = &member.client_urls;
        for url in urls.iter().filter(|_| genesis.ownership == Ownership::Many) {
            once(format!("the client URL {url}"))?;
        }
    }
    match genesis.parameters.out_of_bounds() {
        None => Ok(()),
        Some((name, value, allowed)) => {
            let (least, most) = allowed.into_inner();
            let why = format!("the parameter {name} is {value}; it must be {least} to {most}");
            Err(GenesisError::Invalid(why))
        }
    }
}

pub(super) fn check_member(
    member: &GenesisMember,
    ownership: Ownership,
) -> Result<(), GenesisError> {
    let name = &member.name;
    // One owner's replica is named by etcd's --name, which may be anything.
    let any = ownership == Ownership::One && name.len() <= 256 && !name.contains(char::is_control);
    if !valid_name(name) && !any {
        let why = format!(
            "{name:?} is not a name: 1 to 63 letters, digits, '-', '.' or '_', the first a letter \
             or digit"
        );
        return Err(GenesisError::Invalid(why));
    }
    let keys = member.governance_keys.iter().map(|key| (key, "governance key"));
    for (key, what) in keys.chain([(&member.key, "replica key")]) {
        if weak_key(key) {
            return Err(GenesisError::WeakKey { name: name.clone(), what });
        }
    }
    let address = &member.peer_address;
    let is_url = |part: &str| ListenUrl::parse(part).is_ok_and(|url| url.port.is_some());
    let sound = match ownership {
        Ownership::Many => split_host_port(address).is_some(),
        Ownership::One => address.split(',').all(is_url),
    };
    if !sound {
        let why = format!("the peer address {address:?} of {name} is not of the form HOST:PORT");
        return Err(GenesisError::Invalid(why));
    }
    for url in &member.client_urls {
        ListenUrl::parse(url)
            .map_err(|why| GenesisError::Invalid(format!("a client URL of {name}: {why}")))?;
    }
    Ok(())
}

#[cfg(test)]
#[path = "genesis_file_tests.rs"]
mod tests;
