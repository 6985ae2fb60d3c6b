use core::pin::Pin;
use core::task::{Context, Poll};
use std::collections::BTreeMap;
use std::sync::{Arc, OnceLock};
use std::time::{Duration, Instant};

use arc_swap::ArcSwap;
use axum::body::Body;
use bytes::Bytes;
use http::{HeaderMap, Request, Response, header};
use hyper::body::{Body as HttpBody, Frame, Incoming, SizeHint};

use super::answer::not_found;
use super::limits::Limits;
use crate::observe::{self, Counter, Histogram, table};

/// gRPC's status codes by number, as etcd's metrics spell them.
const CODES: [&str; 17] = [
    "OK",
    "Canceled",
    "Unknown",
    "InvalidArgument",
    "DeadlineExceeded",
    "NotFound",
    "AlreadyExists",
    "PermissionDenied",
    "ResourceExhausted",
    "FailedPrecondition",
    "Aborted",
    "OutOfRange",
    "Unimplemented",
    "Internal",
    "Unavailable",
    "DataLoss",
    "Unauthenticated",
];
const CANCELED: usize = 1;
const UNKNOWN: usize = 2;
const UNIMPLEMENTED: usize = 12;
/// Whatever clients call, no more series than this come into being.
const METHODS_MAX: usize = 128;
/// Methods whose calls are not one message each way.
const STREAMS: [(&str, &str); 6] = [
    ("/etcdserverpb.Watch/Watch", "bidi_stream"),
    ("/etcdserverpb.Lease/LeaseKeepAlive", "bidi_stream"),
    ("/etcdserverpb.KV/RangeStream", "server_stream"),
    ("/etcdserverpb.Maintenance/Snapshot", "server_stream"),
    ("/v3electionpb.Election/Observe", "server_stream"),
    ("/grpc.health.v1.Health/Watch", "server_stream"),
];

/// The handles of every method that was called and exists. A look-up takes no lock.
pub(super) struct Methods {
    by_path: ArcSwap<BTreeMap<String, Arc<Method>>>,
    received_bytes: Counter,
    sent_bytes: Counter,
    times_calls: bool,
    slow_call: Duration,
}

impl Methods {
    /// With every code of each of these methods at 0, as etcd has it: a rate over a counter that appears
    /// with its first error misses that error.
    pub fn new(limits: &Limits, paths: &[String]) -> Self {
        let methods = Self {
            by_path: ArcSwap::default(),
            received_bytes: observe::counter(&table::CLIENT_RECEIVED_BYTES, &[]),
            sent_bytes: observe::counter(&table::CLIENT_SENT_BYTES, &[]),
            times_calls: limits.times_calls,
            slow_call: limits.slow_call,
        };
        for path in paths {
            if let Some(method) = methods.of(path) {
                method.started.increment(0);
                (0..CODES.len()).for_each(|code| method.handled(code).increment(0));
            }
        }
        methods
    }

    /// The method's handles, made now if it is new. Only a path that something answered for is given
    /// here, or clients could invent series.
    fn of(&self, path: &str) -> Option<Arc<Method>> {
        if let Some(method) = self.by_path.load().get(path) {
            return Some(Arc::clone(method));
        }
        let method = Arc::new(Method::new(path, self)?);
        self.by_path.rcu(|methods| {
            let mut methods = BTreeMap::clone(methods);
            if methods.len() < METHODS_MAX {
                methods.entry(path.to_owned()).or_insert_with(|| Arc::clone(&method));
            }
            methods
        });
        self.by_path.load().get(path).cloned()
    }
}

struct Method {
    labels: [String; 3],
    started: Counter,
    handled: [OnceLock<Counter>; CODES.len()],
    seconds: Option<Histogram>,
    /// None for streams, which take as long as their client likes.
    slow: Option<Duration>,
}

impl Method {
    fn new(path: &str, methods: &Methods) -> Option<Self> {
        let (service, method) = path.strip_prefix('/')?.split_once('/')?;
        let kind =
            STREAMS.iter().find(|(known, _)| *known == path).map_or("unary", |(_, kind)| kind);
        let labels = [service.to_owned(), method.to_owned(), kind.to_owned()];
        let values = [service, method, kind];
        Some(Self {
            started: observe::counter(&table::GRPC_STARTED, &values),
            handled: Default::default(),
            seconds: methods
                .times_calls
                .then(|| observe::histogram(&table::GRPC_HANDLING_SECONDS, &values)),
            slow: (kind == "unary").then_some(methods.slow_call),
            labels,
        })
    }

    fn handled(&self, code: usize) -> &Counter {
        let [service, method, kind] = &self.labels;
        self.handled[code].get_or_init(|| {
            observe::counter(&table::GRPC_HANDLED, &[service, method, kind, CODES[code]])
        })
    }

    fn ended(&self, code: usize, began: Instant) {
        let code = if code < CODES.len() { code } else { UNKNOWN };
        self.handled(code).increment(1);
        let took = began.elapsed();
        if let Some(seconds) = &self.seconds {
            seconds.record(took);
        }
        if self.slow.is_some_and(|slow| took > slow) {
            let [service, method, _] = &self.labels;
            let took_ms = u64::try_from(took.as_millis()).unwrap_or(u64::MAX);
            tracing::warn!(
                event = "slow_request",
                service,
                method,
                code = CODES[code],
                took_ms,
                "a request took longer than --warning-unary-request-duration"
            );
        }
    }
}

/// One request being counted. Requests that are not gRPC pass uncounted.
pub(super) struct Call {
    methods: Arc<Methods>,
    path: Option<String>,
    began: Instant,
}

impl Call {
    pub fn begin(methods: &Arc<Methods>, request: &Request<Incoming>) -> Self {
        let content = request.headers().get(header::CONTENT_TYPE);
        let grpc = content.is_some_and(|kind| kind.as_bytes().starts_with(b"application/grpc"));
        let path = grpc.then(|| request.uri().path().to_owned());
        Self { methods: Arc::clone(methods), path, began: Instant::now() }
    }

    /// Whether it is gRPC.
    pub fn is_grpc(&self) -> bool {
        self.path.is_some()
    }

    /// The request's body, counting its bytes.
    pub fn request_body(&self, body: Incoming) -> RequestBody {
        let bytes = self.path.as_ref().map(|_| self.methods.received_bytes.clone());
        RequestBody { body, bytes }
    }

    /// The response, whose end will be counted: gRPC's code is in the trailers, or in the head of a
    /// response without a body.
    pub fn response(self, response: Response<Body>) -> Response<ResponseBody> {
        let head = code_of(response.headers());
        if self.path.is_none() && head == Some(UNIMPLEMENTED) {
            // Not gRPC, and gRPC's fallback answered: a path that nothing answers.
            return not_found().map(|body| ResponseBody { body, count: None });
        }
        let known = self.path.filter(|_| head != Some(UNIMPLEMENTED));
        let method = known.and_then(|path| self.methods.of(&path));
        let count = method.map(|method| {
            method.started.increment(1);
            let bytes = self.methods.sent_bytes.clone();
            Counting { method, bytes, began: self.began, code: head }
        });
        response.map(|body| ResponseBody { body, count })
    }
}

fn code_of(headers: &HeaderMap) -> Option<usize> {
    headers.get("grpc-status")?.to_str().ok()?.parse().ok()
}

/// See [`Call::request_body`].
pub(super) struct RequestBody {
    body: Incoming,
    bytes: Option<Counter>,
}

impl HttpBody for RequestBody {
    type Data = Bytes;
    type Error = hyper::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, hyper::Error>>> {
        let polled = Pin::new(&mut self.body).poll_frame(context);
        if let (Some(bytes), Poll::Ready(Some(Ok(frame)))) = (&self.bytes, &polled) {
            bytes.increment(frame.data_ref().map_or(0, Bytes::len) as u64);
        }
        polled
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

/// See [`Call::response`].
pub(super) struct ResponseBody {
    body: Body,
    count: Option<Counting>,
}

/// Counts the call's end when dropped: a body that is dropped before its trailers were seen belongs
/// to a call that the client cancelled.
struct Counting {
    method: Arc<Method>,
    bytes: Counter,
    began: Instant,
    code: Option<usize>,
}

impl Drop for Counting {
    fn drop(&mut self) {
        self.method.ended(self.code.unwrap_or(CANCELED), self.began);
    }
}

impl HttpBody for ResponseBody {
    type Data = Bytes;
    type Error = axum::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, axum::Error>>> {
        let polled = Pin::new(&mut self.body).poll_frame(context);
        if let (Some(count), Poll::Ready(Some(Ok(frame)))) = (&mut self.count, &polled) {
            if let Some(data) = frame.data_ref() {
                count.bytes.increment(data.len() as u64);
            } else if let Some(trailers) = frame.trailers_ref() {
                count.code = code_of(trailers).or(Some(UNKNOWN));
            }
        }
        polled
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}
