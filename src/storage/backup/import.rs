//! The way in: what a snapshot of etcd holds, read entry by entry.

use core::fmt;
use std::sync::Arc;

use bytes::Bytes;

use crate::chain::{Parameters, Value};
use crate::crypto::{Context, hash};
use crate::storage::backup::etcd::{KEY, KeyValue, read_key_value, read_lease, revision_key};
use crate::storage::bbolt::{Database, DatabaseError};
use crate::storage::disk::{DiskError, DiskFile};
use crate::types::Digest;

/// Bytes of the file hashed at once.
const PIECE_BYTES: u64 = 1 << 20;

/// Why a file cannot become a network's first state.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ImportError {
    /// The disk refused.
    Disk(DiskError),
    /// The file is no bbolt file, or damaged.
    Database(DatabaseError),
    /// It is not what etcd writes.
    Form(String),
    /// It holds what a network here cannot.
    Unfit(String),
}

impl fmt::Display for ImportError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Disk(error) => write!(f, "{error}"),
            Self::Database(error) => write!(f, "{error}"),
            Self::Form(what) => write!(f, "the file is not what etcd writes: {what}"),
            Self::Unfit(what) => write!(f, "the file cannot start a network: {what}"),
        }
    }
}

impl std::error::Error for ImportError {}

impl From<DiskError> for ImportError {
    fn from(error: DiskError) -> Self {
        Self::Disk(error)
    }
}

impl From<DatabaseError> for ImportError {
    fn from(error: DatabaseError) -> Self {
        Self::Database(error)
    }
}

/// One version or delete.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Change {
    /// Its revision.
    pub revision: i64,
    /// Its place within it.
    pub sub: u32,
    /// Of what.
    pub key: Bytes,
    /// None for a delete.
    pub put: Option<Put>,
}

/// A version.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Put {
    /// Revision of the key's first version.
    pub create: i64,
    /// Counted from 1.
    pub version: i64,
    /// 0 for none.
    pub lease: i64,
    /// With a salt that follows from the file.
    pub value: Value,
}

/// A snapshot that etcd wrote.
pub struct EtcdSnapshot {
    database: Database,
    digest: Digest,
}

impl EtcdSnapshot {
    /// Opens a file and hashes it.
    ///
    /// # Errors
    /// [`ImportError`].
    pub fn open(file: Arc<dyn DiskFile>) -> Result<Self, ImportError> {
        let database = Database::open(Arc::clone(&file))?;
        let mut pieces = Vec::new();
        let (mut at, length) = (0, file.len()?);
        while at < length {
            let piece = PIECE_BYTES.min(length - at);
            let mut bytes = vec![0; usize::try_from(piece).expect("a MiB")];
            file.read_at(at, &mut bytes)?;
            pieces.extend(hash(&Context::INITIAL_STATE, &[&bytes]).0);
            at += piece;
        }
        let digest = hash(&Context::INITIAL_STATE, &[&length.to_le_bytes(), &pieces]);
        let users = database.get(b"auth", b"authEnabled")?;
        if users.as_deref() == Some(&[1]) {
            let what = "users are switched on in it, and organisations here have their own: run \
                        `etcdctl auth disable`, save again, add users after the start";
            return Err(ImportError::Unfit(what.to_owned()));
        }
        Ok(Self { database, digest })
    }

    /// Of all its bytes: what the genesis names.
    #[must_use]
    pub fn digest(&self) -> Digest {
        self.digest
    }

    /// The newest revision that was compacted, finished or not; None if there was none.
    ///
    /// # Errors
    /// [`ImportError`].
    pub fn compacted(&self) -> Result<Option<i64>, ImportError> {
        let mut newest = None;
        for name in [&b"scheduledCompactRev"[..], b"finishedCompactRev"] {
            let Some(value) = self.database.get(b"meta", name)? else { continue };
            let (revision, _, _) = place(&value).ok_or_else(|| form("a compact revision"))?;
            newest = newest.max(Some(revision));
        }
        Ok(newest)
    }

    /// Ids and granted seconds of the leases.
    ///
    /// # Errors
    /// [`ImportError`].
    pub fn leases(&self) -> Result<Vec<(i64, i64)>, ImportError> {
        let mut cursor = self.database.cursor(b"lease");
        let mut leases = Vec::new();
        while let Some((_, value)) = cursor.next_entry()? {
            leases.push(read_lease(&value).ok_or_else(|| form("a lease"))?);
        }
        Ok(leases)
    }

    /// Calls `visit` with every version and delete in their order.
    ///
    /// # Errors
    /// [`ImportError`], or what `visit` says.
    pub fn scan(
        &self,
        visit: &mut dyn FnMut(Change) -> Result<(), ImportError>,
    ) -> Result<(), ImportError> {
        let mut cursor = self.database.cursor(KEY);
        while let Some((name, bytes)) = cursor.next_entry()? {
            let (revision, sub, is_delete) = place(&name).ok_or_else(|| form("a revision"))?;
            let what = |what: &str| ImportError::Unfit(format!("revision {revision}: {what}"));
            let read = read_key_value(&bytes).ok_or_else(|| what("it is no KeyValue"))?;
            let KeyValue { key, create, modified, version, value, lease } = read;
            if key.is_empty() || key.len() > Parameters::KEY_BYTES_MAX {
                return Err(what("its key is empty or longer than 1,024 bytes"));
            }
            if value.len() > Value::BYTES_MAX {
                return Err(what("its value is longer than 4 MiB"));
            }
            if !is_delete && modified != revision {
                return Err(what("its value names another revision"));
            }
            let key = Bytes::copy_from_slice(&key);
            let put = (!is_delete).then(|| {
                let bytes = Bytes::copy_from_slice(&value);
                let value = Value { salt: self.salt(revision, sub), bytes };
                Put { create, version, lease, value }
            });
            visit(Change { revision, sub, key, put })?;
        }
        Ok(())
    }

    /// The value of a version.
    ///
    /// # Errors
    /// [`ImportError`].
    pub fn value(&self, revision: i64, sub: u32) -> Result<Value, ImportError> {
        let bytes = self.database.get(KEY, &revision_key(revision, sub, false))?;
        let read = bytes.as_ref().and_then(read_key_value).ok_or_else(|| form("a version"))?;
        Ok(Value { salt: self.salt(revision, sub), bytes: Bytes::copy_from_slice(&read.value) })
    }

    /// Equal for all who import this file.
    fn salt(&self, revision: i64, sub: u32) -> [u8; 16] {
        let place = revision_key(revision, sub, false);
        let digest = hash(&Context::INITIAL_STATE, &[&self.digest.0, &place]);
        let mut salt = [0; 16];
        salt.copy_from_slice(&digest.0[..16]);
        salt
    }
}

fn form(what: &str) -> ImportError {
    ImportError::Form(format!("{what} does not decode"))
}

/// Revision, place within it, whether it is a delete.
fn place(name: &[u8]) -> Option<(i64, u32, bool)> {
    let (revision, rest) = name.split_first_chunk::<8>()?;
    let (separator, rest) = rest.split_first()?;
    let (sub, mark) = rest.split_first_chunk::<8>()?;
    let is_delete = match mark {
        [] => false,
        [b't'] => true,
        _ => return None,
    };
    let revision = i64::from_be_bytes(*revision);
    let sub = u32::try_from(u64::from_be_bytes(*sub)).ok()?;
    (*separator == b'_' && revision > 0).then_some((revision, sub, is_delete))
}
