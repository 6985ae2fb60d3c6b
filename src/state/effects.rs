use bytes::Bytes;

use crate::chain::{Author, Change, SYSTEM_ORDINAL};
use crate::codec::{Encode, Writer};
use crate::crypto::{Context, hash};
use crate::state::Event;
use crate::types::{Digest, LeaseId, ReplicaId};

/// Who caused a change: an op and its author, or a lease that expired.
#[derive(Clone, Copy, Debug)]
pub struct Cause<'a> {
    ordinal: u32,
    author: Option<(ReplicaId, &'a Author)>,
    lease: LeaseId,
}

impl<'a> Cause<'a> {
    /// The op with this ordinal in its block.
    #[must_use]
    pub fn op(ordinal: u32, origin: ReplicaId, author: &'a Author) -> Self {
        Self { ordinal, author: Some((origin, author)), lease: LeaseId(0) }
    }

    /// A lease expired.
    #[must_use]
    pub fn expiry(lease: LeaseId) -> Self {
        Self { ordinal: SYSTEM_ORDINAL, author: None, lease }
    }
}

/// What a block changes, in order of (revision, sub-revision).
#[derive(Default)]
pub struct Record {
    /// For watchers.
    pub events: Vec<Event>,
    /// For the log.
    pub changes: Vec<Change>,
    /// Puts that requests asked for and that were done.
    pub puts: u64,
    /// Deletes that requests asked for, whatever they found.
    pub deletes: u64,
    /// Changes and authors, for the running digest.
    digested: Writer,
}

impl Record {
    pub(in crate::state) fn add(
        &mut self,
        event: Event,
        key: Bytes,
        commitment: Digest,
        cause: &Cause<'_>,
    ) {
        let change = Change {
            ordinal: cause.ordinal,
            revision: event.revision,
            kind: event.kind,
            key,
            commitment,
            lease: cause.lease,
        };
        change.encode(&mut self.digested);
        self.digested.bool(cause.author.is_some());
        if let Some((origin, author)) = cause.author {
            self.digested.u16(origin.0);
            author.encode(&mut self.digested);
        }
        self.changes.push(change);
        self.events.push(event);
    }

    /// The running digest after these changes.
    pub(in crate::state) fn chain(&self, before: Digest) -> Digest {
        if self.changes.is_empty() {
            return before;
        }
        hash(&Context::EFFECTS, &[&before.0, self.digested.as_slice()])
    }
}
