//! Whose data directory it is: checked before anything else in it is read.

use core::fmt;

use bytes::Bytes;

use crate::codec::{Reader, Writer};
use crate::crypto::{Context, hash};
use crate::storage::disk::{Disk, DiskError, DiskErrorKind, Open};
use crate::storage::log::segments;
use crate::types::{ClusterId, Digest, ReplicaId};

/// The file's name in the data directory.
pub const IDENTITY_PATH: &str = "identity";

/// The version of the whole directory's layout.
pub const DIRECTORY_VERSION: u16 = 1;

const MAGIC: [u8; 8] = *b"ALTHDIR\n";
const IDENTITY_BYTES: usize = 76;

/// Why a data directory is not this replica's.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum IdentityError {
    /// The disk refused.
    Disk(DiskError),
    /// It belongs to another network.
    OtherNetwork {
        /// The network it names.
        found: ClusterId,
        /// This replica's.
        own: ClusterId,
    },
    /// It belongs to another replica.
    OtherReplica {
        /// The replica it names.
        found: ReplicaId,
        /// This one.
        own: ReplicaId,
    },
    /// It is of another version.
    Version {
        /// The version it names.
        found: u16,
    },
    /// The identity file is not what was written.
    Damaged,
    /// There is a log and no identity file.
    Gone,
}

impl From<DiskError> for IdentityError {
    fn from(error: DiskError) -> Self {
        Self::Disk(error)
    }
}

impl fmt::Display for IdentityError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Disk(error) => write!(f, "the data directory cannot be used: {error}"),
            Self::OtherNetwork { found, own } => write!(
                f,
                "the data directory belongs to network {found}, this replica to {own}; check --data-dir \
                 and --genesis"
            ),
            Self::OtherReplica { found, own } => write!(
                f,
                "the data directory belongs to replica {found}, this is replica {own}; check --data-dir \
                 and --home"
            ),
            Self::Version { found } => write!(
                f,
                "the data directory has format version {found}, this program reads version \
                 {DIRECTORY_VERSION}; start the program that wrote it"
            ),
            Self::Damaged => write!(
                f,
                "the file `{IDENTITY_PATH}` in the data directory is damaged; restore it or run \
                 `althing replica repair`"
            ),
            Self::Gone => write!(
                f,
                "the data directory holds a log but no file `{IDENTITY_PATH}`; restore it or run \
                 `althing replica repair`"
            ),
        }
    }
}

impl std::error::Error for IdentityError {}

/// Checks the directory's identity, or gives it one if nothing is in it yet; true if it was new.
///
/// # Errors
/// [`IdentityError`]; nothing was changed.
pub fn claim(
    disk: &dyn Disk,
    cluster_id: &ClusterId,
    replica: ReplicaId,
) -> Result<bool, IdentityError> {
    let own = encode(DIRECTORY_VERSION, replica, cluster_id);
    match read_file(disk) {
        Ok(bytes) => check(&bytes, cluster_id, replica).map(|()| false),
        Err(error) if error.kind == DiskErrorKind::NotFound => {
            match segments(disk) {
                Ok(numbers) if !numbers.is_empty() => return Err(IdentityError::Gone),
                Err(error) if error.kind != DiskErrorKind::NotFound => return Err(error.into()),
                _ => {}
            }
            let temporary = format!("{IDENTITY_PATH}.tmp");
            let file = disk.open(&temporary, Open::Create)?;
            file.write_at(0, &own)?;
            file.sync()?;
            disk.rename(&temporary, IDENTITY_PATH)?;
            disk.sync_directory("")?;
            Ok(true)
        }
        Err(error) => Err(error.into()),
    }
}

/// Whose directory it is, for tools that only look.
///
/// # Errors
/// [`IdentityError`].
pub fn read(disk: &dyn Disk) -> Result<(ClusterId, ReplicaId), IdentityError> {
    let bytes = read_file(disk)?;
    let (_, replica, cluster_id) = decode(&bytes).ok_or(IdentityError::Damaged)?;
    check(&bytes, &cluster_id, replica)?;
    Ok((cluster_id, replica))
}

fn read_file(disk: &dyn Disk) -> Result<Bytes, DiskError> {
    let file = disk.open(IDENTITY_PATH, Open::Read)?;
    let mut bytes = vec![0; usize::try_from(file.len()?.min(256)).expect("bounded")];
    file.read_at(0, &mut bytes)?;
    Ok(Bytes::from(bytes))
}

fn encode(version: u16, replica: ReplicaId, cluster_id: &ClusterId) -> Bytes {
    let mut writer = Writer::with_capacity(IDENTITY_BYTES);
    writer.raw(&MAGIC);
    writer.u16(version);
    writer.u16(replica.0);
    writer.digest(cluster_id);
    let checksum = hash(&Context::LOG_RECORD, &[writer.as_slice()]);
    writer.digest(&checksum);
    assert_eq!(writer.len(), IDENTITY_BYTES, "the identity's length is fixed");
    writer.finish()
}

fn check(bytes: &Bytes, own: &ClusterId, replica: ReplicaId) -> Result<(), IdentityError> {
    let Some((version, found_replica, found)) = decode(bytes) else {
        return Err(IdentityError::Damaged);
    };
    if encode(version, found_replica, &found) != bytes {
        return Err(IdentityError::Damaged);
    }
    if version != DIRECTORY_VERSION {
        return Err(IdentityError::Version { found: version });
    }
    if found != *own {
        return Err(IdentityError::OtherNetwork { found, own: *own });
    }
    if found_replica != replica {
        return Err(IdentityError::OtherReplica { found: found_replica, own: replica });
    }
    Ok(())
}

fn decode(bytes: &Bytes) -> Option<(u16, ReplicaId, Digest)> {
    let mut reader = Reader::new(bytes.clone());
    let magic: [u8; 8] = reader.array("identity magic").ok()?;
    let version = reader.u16("identity version").ok()?;
    let replica = ReplicaId(reader.u16("identity replica").ok()?);
    let cluster_id = reader.digest("identity network").ok()?;
    (magic == MAGIC).then_some((version, replica, cluster_id))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::storage::disk::memory::MemoryDisk;

    #[test]
    fn a_directory_is_claimed_once_and_by_one() {
        let disk = MemoryDisk::default();
        let (one, two) = (Digest([1; 32]), Digest([2; 32]));
        assert_eq!(claim(&disk, &one, ReplicaId(3)), Ok(true));
        assert_eq!(claim(&disk, &one, ReplicaId(3)), Ok(false));
        assert_eq!(read(&disk), Ok((one, ReplicaId(3))));
        let other = claim(&disk, &two, ReplicaId(3));
        assert_eq!(other, Err(IdentityError::OtherNetwork { found: one, own: two }));
        let other = claim(&disk, &one, ReplicaId(4));
        let (found, own) = (ReplicaId(3), ReplicaId(4));
        assert_eq!(other, Err(IdentityError::OtherReplica { found, own }));
        disk.put(IDENTITY_PATH, encode(2, ReplicaId(3), &one).to_vec());
        assert_eq!(claim(&disk, &one, ReplicaId(3)), Err(IdentityError::Version { found: 2 }));
    }

    #[test]
    fn every_flipped_byte_is_refused() {
        let disk = MemoryDisk::default();
        let own = Digest([1; 32]);
        let good = encode(DIRECTORY_VERSION, ReplicaId(3), &own);
        for at in 0..good.len() {
            let mut flipped = good.to_vec();
            flipped[at] ^= 4;
            disk.put(IDENTITY_PATH, flipped);
            assert_eq!(claim(&disk, &own, ReplicaId(3)), Err(IdentityError::Damaged));
            disk.put(IDENTITY_PATH, good[..at].to_vec());
            assert_eq!(claim(&disk, &own, ReplicaId(3)), Err(IdentityError::Damaged));
        }
    }

    #[test]
    fn a_log_without_an_identity_is_not_adopted() {
        let disk = MemoryDisk::default();
        disk.put("log/0000000001.segment", vec![0; 10]);
        assert_eq!(claim(&disk, &Digest([1; 32]), ReplicaId(0)), Err(IdentityError::Gone));
    }
}
