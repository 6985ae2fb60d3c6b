use crate::codec::Writer;
use crate::crypto::{Context, hash};
use crate::types::{Digest, LeaseId, Revision};

/// What a leaf of a state trie says of its key (state.md 4.4).
///
/// Keys: revisions, version, lease, the value's commitment. Leases, whose key is the id in 8 bytes
/// big-endian: `modified` is the expiry in milliseconds of the lease clock, `create` the granted
/// seconds, the rest zero.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct StateLeaf {
    /// Revision of the last put.
    pub modified: Revision,
    /// Revision of the creation.
    pub create: Revision,
    /// Puts since the creation.
    pub version: i64,
    /// Attached lease.
    pub lease: LeaseId,
    /// The value's commitment.
    pub commitment: Digest,
}

impl StateLeaf {
    /// Length of what is hashed for this leaf, a multiple of 64.
    #[must_use]
    pub fn message_length(&self, key: &[u8]) -> usize {
        (64 + key.len() + 2).next_multiple_of(64)
    }

    /// Writes what is hashed for this leaf over `message`, zeros of
    /// [`StateLeaf::message_length`]: fixed fields, key, zeros, the last two bytes being the key's
    /// length, so that a padded short key never equals a longer one.
    pub fn write_message(&self, key: &[u8], message: &mut [u8]) {
        let length = u16::try_from(key.len()).expect("keys are at most 1 KiB");
        assert_eq!(message.len(), self.message_length(key), "the message has its length");
        let fields = [self.modified.0, self.create.0, self.version, self.lease.0];
        for (field, bytes) in fields.iter().zip(message.chunks_exact_mut(8)) {
            bytes.copy_from_slice(&field.to_le_bytes());
        }
        message[32..64].copy_from_slice(&self.commitment.0);
        message[64..64 + key.len()].copy_from_slice(key);
        let end = message.len() - 2;
        message[end..].copy_from_slice(&length.to_le_bytes());
    }

    /// The leaf's hash.
    #[must_use]
    pub fn hash(&self, key: &[u8]) -> Digest {
        let mut message = vec![0; self.message_length(key)];
        self.write_message(key, &mut message);
        hash(&Context::STATE_LEAF, &[&message])
    }
}

/// The parts of the replicated state; the numbers are the order under `exec_root`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
#[repr(u8)]
pub enum SubState {
    /// The trie of all keys' latest versions.
    Keys = 1,
    /// Revision, compact revision, bytes.
    Store = 2,
    /// The trie of all leases.
    Leases = 3,
    /// The lease clock.
    Clock = 4,
    /// Which requests are done, and REJOIN counts.
    Sessions = 5,
    /// Alarms in force.
    Alarms = 6,
    /// The last block's height and time, and when a checkpoint is due.
    Counters = 7,
    /// Members and parameters.
    Config = 8,
    /// The running digest over all effects.
    Effects = 9,
    /// Users, roles and permissions of every organisation.
    Auth = 10,
    /// Who is proven to have broken the protocol.
    Evidence = 11,
}

/// The root over all sub-states, given in ascending order (consensus.md 4).
#[must_use]
pub fn exec_root(roots: &[(SubState, Digest)]) -> Digest {
    assert!(roots.is_sorted_by(|one, two| one.0 < two.0), "each sub-state once, in order");
    let mut writer = Writer::with_capacity(roots.len() * 33);
    for (tag, root) in roots {
        writer.u8(*tag as u8);
        writer.digest(root);
    }
    hash(&Context::EXEC_ROOT, &[writer.as_slice()])
}
