//! etcd's Watch service: one session for each stream, pulled by the transport.
//!
//! The next response is made when the client has taken the one before, so a client that does not
//! read holds a position and no memory.

use std::collections::{BTreeSet, VecDeque};
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use tokio::time::{Interval, MissedTickBehavior};
use tokio_stream::Stream;
use tokio_util::sync::ReusableBoxFuture;
use tonic::{Code, Request, Response, Status, Streaming, async_trait};

use crate::api::convert::event_bytes;
use crate::api::errors::Refusal;
use crate::api::identity::Caller;
use crate::api::pb::etcdserverpb as pb;
use crate::api::pb::etcdserverpb::watch_create_request::FilterType;
use crate::api::pb::etcdserverpb::watch_request::RequestUnion;
use crate::api::wakes::Registration;
use crate::api::watch_rights::{Rights, Watched};
use crate::api::{Api, OVERHEAD_BYTES, identity};
use crate::chain::{Range, ValueError};
use crate::state::Span;
use crate::types::Revision;
use crate::watch::{
    CreateError, Delivery, Filters, KeyRange, Load, Store, Watch as Wanted, WatchStream,
};

/// The id in the answer to a watch that was not created.
const NO_ID: i64 = -1;

/// How long a new watcher waits to learn what the other replicas acknowledged.
const BARRIER_PATIENCE: Duration = Duration::from_secs(1);

/// Events one watcher reads from history at a time (etcd: a thousand revisions).
const CATCH_UP_EVENTS: usize = 1000;

/// The service.
pub(super) struct WatchService(pub(super) Arc<Api>);

type Responses = Pin<Box<dyn Stream<Item = Result<pb::WatchResponse, Status>> + Send>>;

#[async_trait]
impl pb::watch_server::Watch for WatchService {
    async fn watch(
        &self,
        request: Request<Streaming<pb::WatchRequest>>,
    ) -> Result<Response<Responses>, Status> {
        identity::admit(&self.0, &request)?;
        let requires_leader = identity::requires_leader(&request);
        let caller = Caller::of(&request);
        let incoming = request.into_inner();
        let session = Session::new(Arc::clone(&self.0), (requires_leader, caller), incoming);
        Ok(Response::new(Box::pin(Outgoing::new(Box::new(session)))))
    }
}

struct Session {
    api: Arc<Api>,
    requires_leader: bool,
    /// Asked at the creation of each watch, and when users or roles change.
    rights: Rights,
    incoming: Streaming<pb::WatchRequest>,
    /// The client sends no more requests; it still wants events.
    half_closed: bool,
    registration: Registration,
    stream: WatchStream,
    /// There may be something to send.
    dirty: bool,
    /// Made and not yet taken; refilled only when empty.
    outbox: VecDeque<pb::WatchResponse>,
    /// A watcher's events could not be sent because their values had just moved: it takes them again.
    went_back: bool,
    ticks: Interval,
}

impl Session {
    fn new(
        api: Arc<Api>,
        (requires_leader, caller): (bool, Caller),
        incoming: Streaming<pb::WatchRequest>,
    ) -> Self {
        let registration = api.wakes.register();
        let rights = Rights::new(&api, caller);
        let stream = WatchStream::new(api.handle.read(|shared| shared.ring.revision()));
        let interval = Duration::from_millis(api.settings.progress_interval_ms.max(100));
        let mut ticks = tokio::time::interval(interval);
        ticks.reset();
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        Self {
            api,
            requires_leader,
            rights,
            incoming,
            half_closed: false,
            registration,
            stream,
            dirty: false,
            outbox: VecDeque::new(),
            went_back: false,
            ticks,
        }
    }

    /// The next response, or the status the stream ends with.
    async fn next(&mut self) -> Result<pb::WatchResponse, Status> {
        loop {
            if let Some(response) = self.outbox.pop_front() {
                return Ok(response);
            }
            self.check_end()?;
            // A client that floods its own stream with requests must not hold the runtime.
            tokio::task::coop::consume_budget().await;
            if self.dirty {
                if !self.fill_outbox()? {
                    self.renew_rights().await;
                }
                if !self.outbox.is_empty() {
                    continue;
                }
            }
            tokio::select! {
                biased;
                request = self.incoming.message(), if !self.half_closed => match request {
                    Ok(Some(request)) => self.handle(request).await,
                    Ok(None) => self.half_closed = true,
                    Err(status) if status.code() != Code::Cancelled => return Err(status),
                    Err(_) => return Err(Refusal::WatchCanceled.into()),
                },
                () = self.registration.woken() => self.dirty = true,
                _ = self.ticks.tick() => {
                    self.stream.tick();
                    self.dirty = true;
                }
                () = std::future::ready(()), if self.dirty => {}
            }
        }
    }

    /// clientv3 goes elsewhere only on Unavailable; anything else ends its watchers for good.
    fn check_end(&self) -> Result<(), Status> {
        let wakes = &self.api.wakes;
        // A diverged replica shows no event any more; another endpoint may.
        if wakes.is_stopped() || self.api.handle.is_quarantined() {
            return Err(Refusal::Stopped.into());
        }
        if self.requires_leader && wakes.is_leaderless() {
            return Err(Refusal::NoLeader.into());
        }
        Ok(())
    }

    async fn handle(&mut self, request: pb::WatchRequest) {
        match request.request_union {
            Some(RequestUnion::CreateRequest(create)) => {
                if create.start_revision == 0 {
                    // "From now on" begins behind every write acknowledged by any replica. Without
                    // a quorum it begins where this replica stands, as etcd's does.
                    let barrier = tokio::time::timeout(BARRIER_PATIENCE, self.api.barrier());
                    let _ = barrier.await;
                }
                let allowed = self.rights.ask(&self.api, range_of(&create)).await;
                let response = self.create(create, allowed);
                self.outbox.push_back(response);
            }
            Some(RequestUnion::CancelRequest(cancel)) => {
                self.cancel(cancel.watch_id, String::new());
            }
            Some(RequestUnion::ProgressRequest(_)) => {
                self.stream.request_progress();
                self.dirty = true;
            }
            None => {}
        }
    }

    /// No answer for an id that is not there (etcd's recvLoop).
    fn cancel(&mut self, watch_id: i64, cancel_reason: String) {
        if !self.stream.cancel(watch_id) {
            return;
        }
        self.registration.remove(watch_id);
        self.rights.remove(watch_id);
        self.outbox.push_back(pb::WatchResponse {
            header: Some(self.api.header_now()),
            watch_id,
            canceled: true,
            cancel_reason,
            ..pb::WatchResponse::default()
        });
    }

    fn create(
        &mut self,
        request: pb::WatchCreateRequest,
        allowed: Result<Watched, Refusal>,
    ) -> pb::WatchResponse {
        let refused = |session: &Self, reason: &str| pb::WatchResponse {
            header: Some(session.api.header_now()),
            watch_id: NO_ID,
            created: true,
            canceled: true,
            cancel_reason: reason.to_owned(),
            ..pb::WatchResponse::default()
        };
        if request.start_revision < 0 {
            return refused(self, &Refusal::Compacted.text());
        }
        let watched = match allowed {
            Ok(watched) => watched,
            Err(refusal) => return refused(self, &refusal.go_text()),
        };
        let filters = Filters {
            no_put: request.filters.contains(&FilterType::Noput.into()),
            no_delete: request.filters.contains(&FilterType::Nodelete.into()),
        };
        let key = Bytes::copy_from_slice(&request.key);
        let Some(range) = KeyRange::new(key, Bytes::copy_from_slice(&request.range_end)) else {
            return refused(self, "mvcc: watcher range is empty");
        };
        let wanted = Wanted {
            id: request.watch_id,
            range,
            start: Revision(request.start_revision),
            filters,
            prev_kv: request.prev_kv,
            progress_notify: request.progress_notify,
            fragment: request.fragment,
        };
        match self.begin(wanted) {
            Ok((id, revision)) => {
                self.rights.add(id, watched);
                pb::WatchResponse {
                    header: Some(self.api.header(revision)),
                    watch_id: id,
                    created: true,
                    ..pb::WatchResponse::default()
                }
            }
            Err(CreateError::DuplicateId) => {
                refused(self, "mvcc: duplicate watch ID provided on the WatchStream")
            }
            Err(CreateError::TooMany) => {
                refused(self, "etcdserver: too many watches on one stream")
            }
        }
    }

    /// Registers first and reads the revision second: an event after it then wakes this stream.
    fn begin(&mut self, wanted: Wanted) -> Result<(i64, Revision), CreateError> {
        let id = self.stream.id_for(&wanted)?;
        self.registration.insert(id, wanted.range.clone());
        let current = self.api.handle.read(|shared| shared.ring.revision());
        self.stream.create(id, wanted, current);
        self.dirty = true;
        Ok((id, current))
    }

    /// False if users or roles have changed: then nothing is shown before the rights are renewed.
    fn fill_outbox(&mut self) -> Result<bool, Status> {
        self.stream.skip_to(self.registration.take());
        let Self { api, stream, rights, .. } = self;
        let polled = api.handle.read(|shared| {
            if !rights.are_current(api, shared) {
                return None;
            }
            let kv = &shared.state.kv;
            let compact_revision = kv.compact_revision();
            let until = shared.ring.revision();
            let history = |from: Revision, range: &KeyRange| {
                let (key, range_end) = range.bounds();
                kv.changes(from, until, Span::new(key, &range_end), CATCH_UP_EVENTS)
            };
            let store = Store { ring: &shared.ring, compact_revision, history: &history };
            let (deliveries, more) = stream.poll(&store);
            Some((deliveries, more, compact_revision))
        });
        let Some((deliveries, more, compacted)) = polled else { return Ok(false) };
        self.dirty = more;
        let mut gone = BTreeSet::new();
        self.went_back = false;
        for delivery in deliveries {
            if self.went_back && matches!(delivery.load, Load::Progress) {
                // Not everything before it was sent.
                self.stream.request_progress();
            } else if !gone.contains(&delivery.watch_id) {
                let id = delivery.watch_id;
                if !self.push(delivery, compacted)? {
                    gone.insert(id);
                }
            }
        }
        Ok(true)
    }

    /// Ends the watchers whose keys their user may not read any more.
    async fn renew_rights(&mut self) {
        for (watch_id, refusal) in self.rights.renew(&self.api).await {
            self.cancel(watch_id, refusal.go_text());
        }
    }

    /// Puts a delivery into the outbox; false if it ended its watcher.
    fn push(&mut self, delivery: Delivery, compacted: Revision) -> Result<bool, Status> {
        let Delivery { watch_id, revision, load } = delivery;
        let header = Some(self.api.header(revision));
        let response = pb::WatchResponse { header, watch_id, ..pb::WatchResponse::default() };
        let (slots, prev_kv, fragment) = match load {
            Load::Progress => {
                self.outbox.push_back(response);
                return Ok(true);
            }
            Load::Compacted(at) => {
                self.push_compacted(response, at);
                return Ok(false);
            }
            Load::Events { slots, prev_kv, fragment } => (slots, prev_kv, fragment),
        };
        let values = self.api.handle.values();
        let encode = |slot: &Arc<crate::watch::Slot>| {
            slot.wire(prev_kv, |event| event_bytes(event, prev_kv, compacted, values.as_ref()))
        };
        let first = slots.first().map_or(Revision(0), |slot| slot.event.revision);
        match slots.iter().map(encode).collect::<Result<Vec<Bytes>, ValueError>>() {
            Ok(events) if fragment => {
                let bytes_max = self.api.request_bytes_max() + OVERHEAD_BYTES;
                self.outbox.extend(fragments(response, events, bytes_max));
            }
            Ok(events) => self.outbox.push_back(pb::WatchResponse { events, ..response }),
            Err(ValueError::Erased(_))
                if first >= compacted && self.stream.go_back(watch_id, first) =>
            {
                // Pruning came in between: the state's history knows the value's new place.
                (self.went_back, self.dirty) = (true, true);
                return Ok(false);
            }
            Err(ValueError::Erased(_)) => {
                // Its own value is gone: this watcher is behind compaction.
                self.stream.cancel(watch_id);
                self.push_compacted(response, compacted);
                return Ok(false);
            }
            Err(error) => return Err(Refusal::from(error).into()),
        }
        Ok(true)
    }

    /// The reason stays empty and the revision is never 0: clientv3 tells by it why.
    fn push_compacted(&mut self, response: pb::WatchResponse, at: Revision) {
        self.rights.remove(response.watch_id);
        self.registration.remove(response.watch_id);
        let compact_revision = at.0.max(1);
        self.outbox.push_back(pb::WatchResponse { canceled: true, compact_revision, ..response });
    }
}

/// What the watch would show: the range as it was asked for, before anything rewrites it
/// (GHSA-xg4h-6gfc-h4m8).
fn range_of(request: &pb::WatchCreateRequest) -> Range {
    let key = match &request.key[..] {
        [] => Bytes::from_static(&[0]),
        key => Bytes::copy_from_slice(key),
    };
    Range { key, range_end: Bytes::copy_from_slice(&request.range_end), ..Range::default() }
}

/// Cuts a large response between events; all but the last are marked (etcd's sendFragments).
fn fragments(
    response: pb::WatchResponse,
    events: Vec<Bytes>,
    bytes_max: usize,
) -> Vec<pb::WatchResponse> {
    /// Tag and length of an event, at most.
    const EVENT_FRAME: usize = 6;
    /// Everything but the events, at most.
    const REST: usize = 64;
    let mut parts: Vec<pb::WatchResponse> = Vec::new();
    let mut bytes = REST;
    for event in events {
        let size = event.len() + EVENT_FRAME;
        match parts.last_mut() {
            Some(part) if bytes + size < bytes_max => part.events.push(event),
            last => {
                if let Some(part) = last {
                    part.fragment = true;
                }
                bytes = REST;
                parts.push(pb::WatchResponse { events: vec![event], ..response.clone() });
            }
        }
        bytes += size;
    }
    parts
}

/// The session as a stream: one future at a time makes the next response.
struct Outgoing {
    next: ReusableBoxFuture<'static, (Box<Session>, Result<pb::WatchResponse, Status>)>,
    ended: bool,
}

impl Outgoing {
    fn new(session: Box<Session>) -> Self {
        Self { next: ReusableBoxFuture::new(step(session)), ended: false }
    }
}

async fn step(mut session: Box<Session>) -> (Box<Session>, Result<pb::WatchResponse, Status>) {
    let response = session.next().await;
    (session, response)
}

impl Stream for Outgoing {
    type Item = Result<pb::WatchResponse, Status>;

    fn poll_next(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        if self.ended {
            return Poll::Ready(None);
        }
        let Poll::Ready((session, response)) = self.next.poll(context) else {
            return Poll::Pending;
        };
        match &response {
            Ok(_) => self.next.set(step(session)),
            Err(_) => self.ended = true,
        }
        Poll::Ready(Some(response))
    }
}
