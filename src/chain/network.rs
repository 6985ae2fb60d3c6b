use std::collections::BTreeMap;

use crate::chain::{Genesis, Membership, Ownership};
use crate::codec::{Decode, DecodeError, Encode, Reader, Writer};
use crate::crypto::{Context, PublicKey, hash};
use crate::types::{Digest, OrgId, ReplicaId};

/// Most governance keys of an organisation, client URLs of a replica.
pub(super) const LIST_MAX: usize = 16;
const TEXT_MAX: usize = 512;
/// Most bytes of all peer URLs of a member.
pub const PEER_ADDRESS_BYTES_MAX: usize = TEXT_MAX;
const ENTRIES_MAX: usize = 128;

/// An organisation of the network.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Organisation {
    /// Unique.
    pub name: String,
    /// Its offline keys; any one of them acts for it.
    pub governance_keys: Vec<PublicKey>,
}

/// Where a member is found, and what it will be.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Address {
    /// Unique.
    pub name: String,
    /// Where clients find it.
    pub client_urls: Vec<String>,
    /// Where peers find it: host:port, or URLs in a network of one owner (see [`crate::chain::peer_urls`]).
    pub peer_address: String,
    /// Never to be promoted.
    pub observer: bool,
}

/// A member of a network of one owner that was added and is not all of what it was added for: it has not
/// shown its key yet, or does not vote yet.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Reserved {
    /// Where it will be found.
    pub peer_address: String,
    /// Whether it is to vote, once it has caught up.
    pub voting: bool,
}

/// Everything about members that is fixed within an epoch: a sub-state, so part of the root.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Network {
    /// One owner or many.
    pub ownership: Ownership,
    /// Members and parameters, as the protocol sees them.
    pub membership: Membership,
    /// Exactly those that members belong to.
    pub organisations: BTreeMap<OrgId, Organisation>,
    /// Exactly the members'.
    pub addresses: BTreeMap<ReplicaId, Address>,
    /// By the ids that are theirs. Empty in a network of organisations.
    pub reserved: BTreeMap<ReplicaId, Reserved>,
    /// The next new replica's id: none is used twice.
    pub next_replica: u16,
    /// The next new organisation's.
    pub next_organisation: u16,
}

impl Network {
    /// The network of epoch 0.
    #[must_use]
    pub fn of(genesis: &Genesis) -> Self {
        let mut organisations = BTreeMap::new();
        let mut addresses = BTreeMap::new();
        for member in &genesis.members {
            organisations.entry(member.organisation).or_insert_with(|| Organisation {
                name: member.name.clone(),
                governance_keys: member.governance_keys.clone(),
            });
            let address = Address {
                name: member.name.clone(),
                client_urls: member.client_urls.clone(),
                peer_address: member.peer_address.clone(),
                observer: false,
            };
            addresses.insert(member.id, address);
        }
        let next = |last: Option<u16>| last.map_or(0, |last| last.saturating_add(1));
        Self {
            ownership: genesis.ownership,
            membership: genesis.membership(),
            next_replica: next(addresses.keys().next_back().map(|id| id.0)),
            next_organisation: next(organisations.keys().next_back().map(|id| id.0)),
            organisations,
            addresses,
            reserved: BTreeMap::new(),
        }
    }

    /// Whether an id is kept for a member that has not shown its key yet.
    #[must_use]
    pub fn awaits(&self, id: ReplicaId) -> bool {
        self.reserved.contains_key(&id) && self.membership.member(id).is_none()
    }

    /// Whether a member follows and does not vote, as etcd's clients see it: one that was added to vote is
    /// no learner to them, though it has to catch up first.
    #[must_use]
    pub fn is_learner(&self, id: ReplicaId) -> bool {
        let promised = self.reserved.get(&id).is_some_and(|reserved| reserved.voting);
        self.addresses.contains_key(&id) && self.membership.voter(id).is_none() && !promised
    }

    /// Where a member is found, or will be.
    #[must_use]
    pub fn peer_address(&self, id: ReplicaId) -> Option<&str> {
        let known = self.addresses.get(&id).map(|address| &address.peer_address);
        let reserved = || self.reserved.get(&id).map(|reserved| &reserved.peer_address);
        known.or_else(reserved).map(String::as_str)
    }

    /// The organisation a member belongs to.
    #[must_use]
    pub fn organisation_of(&self, id: ReplicaId) -> Option<&Organisation> {
        self.organisations.get(&self.membership.member(id)?.organisation)
    }

    /// The organisation with this name.
    #[must_use]
    pub fn organisation_named(&self, name: &str) -> Option<OrgId> {
        let mut all = self.organisations.iter();
        all.find(|(_, organisation)| organisation.name == name).map(|(id, _)| *id)
    }

    /// The member with this name.
    #[must_use]
    pub fn member_named(&self, name: &str) -> Option<ReplicaId> {
        self.addresses.iter().find(|(_, address)| address.name == name).map(|(id, _)| *id)
    }

    /// The member with this replica key.
    #[must_use]
    pub fn member_with_key(&self, key: &PublicKey) -> Option<ReplicaId> {
        self.membership.members.iter().find(|member| member.key == *key).map(|member| member.id)
    }

    /// Hash of all of it: the sub-state's root.
    #[must_use]
    pub fn root(&self) -> Digest {
        hash(&Context::NETWORK, &[&self.to_bytes()])
    }
}

pub(super) fn put_text(text: &str, writer: &mut Writer) {
    writer.bytes(text.as_bytes());
}

pub(super) fn get_text(reader: &mut Reader, what: &'static str) -> Result<String, DecodeError> {
    let bytes = reader.bytes(TEXT_MAX, what)?;
    String::from_utf8(bytes.to_vec()).map_err(|_| DecodeError::Invalid(what))
}

pub(super) fn put_texts(texts: &[String], writer: &mut Writer) {
    writer.length(texts.len());
    texts.iter().for_each(|text| put_text(text, writer));
}

pub(super) fn get_texts(
    reader: &mut Reader,
    what: &'static str,
) -> Result<Vec<String>, DecodeError> {
    (0..reader.length(LIST_MAX, what)?).map(|_| get_text(reader, what)).collect()
}

pub(super) fn put_keys(keys: &[PublicKey], writer: &mut Writer) {
    writer.length(keys.len());
    keys.iter().for_each(|key| writer.raw(&key.0));
}

pub(super) fn get_keys(
    reader: &mut Reader,
    what: &'static str,
) -> Result<Vec<PublicKey>, DecodeError> {
    (0..reader.length(LIST_MAX, what)?).map(|_| Ok(PublicKey(reader.array(what)?))).collect()
}

impl Encode for Network {
    fn encode(&self, writer: &mut Writer) {
        // The second form has reserved members, the first has none: one value has one encoding.
        writer.u16(if self.reserved.is_empty() { 1 } else { 2 });
        writer.u8(self.ownership as u8);
        self.membership.encode(writer);
        writer.length(self.organisations.len());
        for (id, organisation) in &self.organisations {
            writer.u16(id.0);
            put_text(&organisation.name, writer);
            put_keys(&organisation.governance_keys, writer);
        }
        writer.length(self.addresses.len());
        for (id, address) in &self.addresses {
            writer.u16(id.0);
            put_text(&address.name, writer);
            put_texts(&address.client_urls, writer);
            put_text(&address.peer_address, writer);
            writer.bool(address.observer);
        }
        writer.u16(self.next_replica);
        writer.u16(self.next_organisation);
        if self.reserved.is_empty() {
            return;
        }
        writer.length(self.reserved.len());
        for (id, reserved) in &self.reserved {
            writer.u16(id.0);
            put_text(&reserved.peer_address, writer);
            writer.bool(reserved.voting);
        }
    }
}

impl Decode for Network {
    fn decode(reader: &mut Reader) -> Result<Self, DecodeError> {
        let version = reader.u16("network version")?;
        if !(1..=2).contains(&version) {
            return Err(DecodeError::Invalid("network version"));
        }
        let ownership = match reader.u8("network ownership")? {
            1 => Ownership::One,
            2 => Ownership::Many,
            _ => return Err(DecodeError::Invalid("network ownership")),
        };
        let membership = Membership::decode(reader)?;
        let mut organisations = BTreeMap::new();
        for _ in 0..reader.length(ENTRIES_MAX, "organisations")? {
            let id = OrgId(reader.u16("organisation id")?);
            let name = get_text(reader, "organisation name")?;
            let governance_keys = get_keys(reader, "governance key")?;
            ascending(&organisations, id, "organisations")?;
            organisations.insert(id, Organisation { name, governance_keys });
        }
        let mut addresses = BTreeMap::new();
        for _ in 0..reader.length(ENTRIES_MAX, "addresses")? {
            let id = ReplicaId(reader.u16("address id")?);
            let address = Address {
                name: get_text(reader, "member name")?,
                client_urls: get_texts(reader, "client URL")?,
                peer_address: get_text(reader, "peer address")?,
                observer: reader.bool("observer")?,
            };
            ascending(&addresses, id, "addresses")?;
            addresses.insert(id, address);
        }
        let members = membership.members.iter();
        if !members.map(|member| member.id).eq(addresses.keys().copied()) {
            return Err(DecodeError::Invalid("addresses"));
        }
        let next_replica = reader.u16("next replica")?;
        let next_organisation = reader.u16("next organisation")?;
        let reserved = if version == 2 { get_reserved(reader)? } else { BTreeMap::new() };
        Ok(Self {
            ownership,
            membership,
            organisations,
            addresses,
            reserved,
            next_replica,
            next_organisation,
        })
    }
}

fn get_reserved(reader: &mut Reader) -> Result<BTreeMap<ReplicaId, Reserved>, DecodeError> {
    let mut reserved = BTreeMap::new();
    for _ in 0..reader.length(ENTRIES_MAX, "reserved members")? {
        let id = ReplicaId(reader.u16("reserved id")?);
        let peer_address = get_text(reader, "reserved peer address")?;
        let voting = reader.bool("reserved vote")?;
        ascending(&reserved, id, "reserved members")?;
        reserved.insert(id, Reserved { peer_address, voting });
    }
    if reserved.is_empty() { Err(DecodeError::Invalid("reserved members")) } else { Ok(reserved) }
}

fn ascending<K: Ord, V>(
    known: &BTreeMap<K, V>,
    id: K,
    what: &'static str,
) -> Result<(), DecodeError> {
    let rises = known.last_key_value().is_none_or(|(last, _)| *last < id);
    if rises { Ok(()) } else { Err(DecodeError::Invalid(what)) }
}

/// The URLs in a peer address: of networks of one owner it is a list of URLs, of others host:port.
#[must_use]
pub fn peer_urls(address: &str) -> Vec<String> {
    let url = |part: &str| match part.contains("://") {
        true => part.to_owned(),
        false => format!("https://{part}"),
    };
    address.split(',').map(url).collect()
}

/// What to dial, host:port each, in the order of [`peer_urls`].
#[must_use]
pub fn dialled(address: &str) -> Vec<String> {
    let host = |part: &str| part.split_once("://").map_or(part, |(_, rest)| rest).to_owned();
    address.split(',').map(host).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_peer_address_is_one_or_several_urls_or_host_and_port() {
        assert_eq!(peer_urls("a:1"), ["https://a:1"]);
        assert_eq!(peer_urls("http://a:1,https://[::1]:2"), ["http://a:1", "https://[::1]:2"]);
        assert_eq!(dialled("http://a:1,https://[::1]:2"), ["a:1", "[::1]:2"]);
    }
}
