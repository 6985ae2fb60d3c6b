//! The chunks of a checkpoint, read: what `state::snapshot` writes (`docs/storage-format.md`, "A checkpoint").

use bytes::Bytes;

use crate::chain::{AuthOp, CHUNK_FORMAT, Parameters, Permission, Value};
use crate::codec::{Decode, DecodeError, Encode, Reader, Writer};
use crate::types::{Digest, Millis, OrgId};

pub(super) const HEAD: u8 = 1;
pub(super) const LEASES: u8 = 2;
pub(super) const KEYS: u8 = 3;
pub(super) const AUTH: u8 = 4;

const ITEMS_MAX: usize = 8 << 20;
const NAMES_MAX: usize = 256 << 10;

/// The beginning of the head: the rest says nothing to etcd.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Head {
    pub cluster_id: Digest,
    pub revision: i64,
    pub compact_revision: i64,
    pub keys: u64,
    pub leases: u64,
}

impl Head {
    /// Reads the first chunk's beginning.
    pub fn read(chunk: &Bytes) -> Result<Self, DecodeError> {
        let mut reader = Reader::new(chunk.clone());
        if reader.u8("chunk kind")? != HEAD || reader.u16("snapshot format")? != CHUNK_FORMAT {
            return Err(DecodeError::Invalid("snapshot format"));
        }
        let cluster_id = reader.digest("snapshot network")?;
        let revision = reader.i64("store revision")?;
        let compact_revision = reader.i64("compact revision")?;
        reader.raw(24, "store numbers")?;
        let (keys, leases) = (reader.u64("snapshot keys")?, reader.u64("snapshot leases")?);
        Ok(Self { cluster_id, revision, compact_revision, keys, leases })
    }
}

/// One lease.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Lease {
    pub id: i64,
    pub ttl_seconds: i64,
    pub expiry: Millis,
}

/// Reads a chunk of leases.
pub(super) fn leases(chunk: &Bytes) -> Result<Vec<Lease>, DecodeError> {
    let mut reader = Reader::new(chunk.clone());
    if reader.u8("chunk kind")? != LEASES {
        return Err(DecodeError::Invalid("chunk kind"));
    }
    let mut leases = Vec::new();
    for _ in 0..reader.length(ITEMS_MAX, "leases")? {
        let id = reader.i64("lease id")?;
        let ttl_seconds = reader.i64("lease ttl")?;
        leases.push(Lease { id, ttl_seconds, expiry: Millis(reader.u64("lease expiry")?) });
    }
    reader.finish()?;
    Ok(leases)
}

/// A user: name, bcrypt hash, roles.
pub(super) struct User {
    pub name: Bytes,
    pub password: Option<Bytes>,
    pub roles: Vec<Bytes>,
}

/// What the chunks without keys hold.
#[derive(Default)]
pub(super) struct Gathered {
    pub head: Option<Head>,
    pub leases: Vec<Lease>,
    /// Those of one organisation.
    pub users: Users,
}

impl Gathered {
    /// Takes in a chunk; nothing of one that holds keys.
    pub fn take(&mut self, bytes: &Bytes, owner: OrgId) -> Result<(), DecodeError> {
        match bytes.first().copied() {
            Some(HEAD) => self.head = Some(Head::read(bytes)?),
            Some(LEASES) => self.leases.extend(leases(bytes)?),
            Some(AUTH) => {
                let (organisation, users) = users(bytes)?;
                if organisation == owner {
                    self.users = users;
                }
            }
            _ => {}
        }
        Ok(())
    }
}

/// The users and roles of one organisation.
#[derive(Default)]
pub(super) struct Users {
    pub enabled: bool,
    pub revision: u64,
    pub users: Vec<User>,
    pub roles: Vec<(Bytes, Vec<Permission>)>,
}

/// Reads a chunk of users.
pub(super) fn users(chunk: &Bytes) -> Result<(OrgId, Users), DecodeError> {
    let mut reader = Reader::new(chunk.clone());
    if reader.u8("chunk kind")? != AUTH {
        return Err(DecodeError::Invalid("chunk kind"));
    }
    let organisation = OrgId(reader.u16("auth organisation")?);
    let name = |reader: &mut Reader| reader.bytes(AuthOp::NAME_BYTES_MAX, "auth name");
    let enabled = reader.bool("auth enabled")?;
    let revision = reader.u64("auth revision")?;
    reader.u64("auth disabled")?;
    let mut found = Users { enabled, revision, ..Users::default() };
    for _ in 0..reader.length(NAMES_MAX, "auth users")? {
        let user = name(&mut reader)?;
        reader.u64("auth user since")?;
        let given = reader.bool("auth user password")?;
        let password = if given { Some(Value::decode(&mut reader)?.bytes) } else { None };
        let mut roles = Vec::new();
        for _ in 0..reader.length(NAMES_MAX, "auth user roles")? {
            roles.push(name(&mut reader)?);
        }
        found.users.push(User { name: user, password, roles });
    }
    for _ in 0..reader.length(NAMES_MAX, "auth roles")? {
        let role = name(&mut reader)?;
        let mut permissions = Vec::new();
        for _ in 0..reader.length(NAMES_MAX, "auth permissions")? {
            permissions.push(Permission::decode(&mut reader)?);
        }
        found.roles.push((role, permissions));
    }
    reader.finish()?;
    Ok((organisation, found))
}

/// One thing that is visible of a key.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Item {
    /// A version.
    Put { modified: i64, sub: u32, create: i64, version: i64, lease: i64, value: Value },
    /// A delete.
    Delete { revision: i64, sub: u32 },
}

impl Item {
    pub fn place(&self) -> (i64, u32) {
        match self {
            Self::Put { modified, sub, .. } => (*modified, *sub),
            Self::Delete { revision, sub } => (*revision, *sub),
        }
    }
}

impl Encode for Item {
    fn encode(&self, writer: &mut Writer) {
        match self {
            Self::Put { modified, sub, create, version, lease, value } => {
                writer.u8(1);
                writer.i64(*modified);
                writer.u32(*sub);
                writer.i64(*create);
                writer.i64(*version);
                writer.i64(*lease);
                value.encode(writer);
            }
            Self::Delete { revision, sub } => {
                writer.u8(2);
                writer.i64(*revision);
                writer.u32(*sub);
            }
        }
    }
}

impl Decode for Item {
    fn decode(reader: &mut Reader) -> Result<Self, DecodeError> {
        match reader.u8("version kind")? {
            1 => Ok(Self::Put {
                modified: reader.i64("version modified")?,
                sub: reader.u32("version sub-revision")?,
                create: reader.i64("version create")?,
                version: reader.i64("version")?,
                lease: reader.i64("version lease")?,
                value: Value::decode(reader)?,
            }),
            2 => Ok(Self::Delete {
                revision: reader.i64("delete revision")?,
                sub: reader.u32("delete sub-revision")?,
            }),
            _ => Err(DecodeError::Invalid("version kind")),
        }
    }
}

/// Where in its chunk something begins, and its bytes there.
pub(super) type Span = (u32, u32);

/// A visitor of a chunk's items: key and where it lies, item and where it lies.
pub(super) type Visit<'a> = dyn FnMut((&Bytes, Span), (Item, Span)) + 'a;

/// Calls `visit` for every item of a chunk of keys, in order.
pub(super) fn items(chunk: &Bytes, visit: &mut Visit<'_>) -> Result<(), DecodeError> {
    let mut reader = Reader::new(chunk.clone());
    if reader.u8("chunk kind")? != KEYS {
        return Err(DecodeError::Invalid("chunk kind"));
    }
    let span = |from: usize, until: usize| -> Result<Span, DecodeError> {
        let number = |at: usize| u32::try_from(at).map_err(|_| DecodeError::TooLong("chunk"));
        Ok((number(from)?, number(until - from)?))
    };
    for _ in 0..reader.length(ITEMS_MAX, "keys")? {
        let key = reader.bytes(Parameters::KEY_BYTES_MAX, "key")?;
        let end = reader.position();
        let key_span = span(end - key.len(), end)?;
        for _ in 0..reader.length(ITEMS_MAX, "versions")? {
            let start = reader.position();
            let item = Item::decode(&mut reader)?;
            visit((&key, key_span), (item, span(start, reader.position())?));
        }
    }
    reader.finish()
}

/// The chunk that these records make.
pub(super) fn keys_chunk(records: &[(Bytes, Vec<Item>)]) -> Bytes {
    let mut writer = Writer::new();
    writer.u8(KEYS);
    writer.length(records.len());
    for (key, items) in records {
        writer.bytes(key);
        writer.length(items.len());
        items.iter().for_each(|item| item.encode(&mut writer));
    }
    writer.finish()
}
