//! The changes of some keys one after the other, for services that wait for them on a caller's behalf.

use std::collections::VecDeque;
use std::sync::Arc;

use bytes::Bytes;
use tonic::Status;

use crate::api::concurrency::{Session, prefix_end};
use crate::api::convert::put_of;
use crate::api::errors::Refusal;
use crate::api::pb::etcdserverpb::ResponseHeader;
use crate::api::pb::mvccpb::KeyValue;
use crate::api::wakes::Registration;
use crate::state::{Event, Span};
use crate::types::Revision;
use crate::watch::KeyRange;

/// Changes read from history at a time.
const EVENTS: usize = 128;

/// What happened to a key.
pub(super) enum Change {
    /// It was put: so it is now.
    Put(KeyValue),
    Deleted,
}

/// A position in the changes of some keys.
pub(super) struct Follower {
    session: Session,
    registration: Registration,
    key: Bytes,
    range_end: Bytes,
    /// Changes below it were read.
    from: Revision,
    read: VecDeque<(ResponseHeader, Event)>,
}

impl Follower {
    pub(super) fn of_key(session: &Session, key: &Bytes, from: i64) -> Result<Self, Status> {
        Self::new(session, (key.clone(), Bytes::new()), from)
    }

    pub(super) fn of_prefix(session: &Session, prefix: &[u8], from: i64) -> Result<Self, Status> {
        Self::new(session, (Bytes::copy_from_slice(prefix), prefix_end(prefix)), from)
    }

    fn new(session: &Session, (key, end): (Bytes, Bytes), from: i64) -> Result<Self, Status> {
        let range = KeyRange::new(key.clone(), end.clone()).ok_or(Refusal::EmptyKey)?;
        let registration = session.api().wakes.register();
        registration.insert(0, range);
        Ok(Self {
            session: session.clone(),
            registration,
            key,
            range_end: end,
            from: Revision(from),
            read: VecDeque::new(),
        })
    }

    /// The next change and the header that a watch would send it with.
    ///
    /// # Errors
    /// The caller may not read the keys (any more), or what follows is compacted.
    pub(super) async fn next(&mut self) -> Result<(Option<ResponseHeader>, Change), Status> {
        loop {
            if let Some((header, event)) = self.read.pop_front() {
                let api = self.session.api();
                let put = put_of(&event, api.handle.values().as_ref());
                let put = put.map_err(|error| api.unreadable(error))?;
                return Ok((Some(header), put.map_or(Change::Deleted, Change::Put)));
            }
            self.registration.take();
            if !self.fill().await? {
                self.session.api().check_serving()?;
                self.registration.woken().await;
            }
        }
    }

    /// Reads on; whether to look again at once.
    async fn fill(&mut self) -> Result<bool, Status> {
        let api = Arc::clone(self.session.api());
        self.session.may_read(&self.key, &self.range_end).await?;
        let span = Span::new(&self.key, &self.range_end);
        let from = self.from;
        let (events, next, until, compacted) = api.handle.read(|shared| {
            let kv = &shared.state.kv;
            let until = kv.revision();
            let (events, next) = kv.changes(from, until, span, EVENTS);
            (events, next, until, kv.compact_revision())
        });
        if from < compacted {
            return Err(Refusal::Compacted.into());
        }
        let header = |event: &Event| api.header(event.revision);
        self.read.extend(events.into_iter().map(|event| (header(&event), event)));
        self.from = next.max(from);
        Ok(!self.read.is_empty() || next <= until)
    }
}
