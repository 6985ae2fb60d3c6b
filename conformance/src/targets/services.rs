use core::cell::RefCell;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Once};
use std::time::Duration;

use althing::api::{self, AuthSettings, Interface};
use althing::node::{Node, NodeConfig};
use althing::state::TTL_SECONDS_MAX;
use althing::tls::{ExchangeFiles, ExchangeTls};
use althing::types::ReplicaId;
use bytes::Bytes;
use http_body_util::{BodyExt, Full};
use prost::Message;
use prost_reflect::{
    DynamicMessage, FieldDescriptor, Kind, MessageDescriptor, MethodDescriptor, Value,
};
use tempfile::TempDir;
use tokio::runtime::Runtime;
use tokio::time::timeout;
use tonic::{Code, Status};
use tower::ServiceExt;

use crate::client::{contract, grpc_frame};
use crate::sim::scheme::KeyRing;
use crate::targets::Choices;
use crate::targets::chain;

/// What must be answered is, within this.
const PATIENCE: Duration = Duration::from_secs(60);
/// What may wait for something is left alone after this.
const GLANCE: Duration = Duration::from_millis(2);
/// A replica serves so many inputs: what the ones before wrote is part of the test.
const INPUTS: u32 = 200;
const CALLS: usize = 8;
const DEPTH: usize = 5;
const HEADERS: [&str; 5] =
    ["token", "authorization", "hasleader", "grpc-timeout", "client-api-version"];
const TEXTS: [&str; 8] = ["root", "a", "", "b", "pass", "\0", "3.6.0", "ä\u{202e}"];
const BYTES: [&[u8]; 8] = [b"a", b"b", b"\0", b"", b"a\0", b"\xff\xfe", b"abc", b"c"];
const NUMBERS: [i64; 12] =
    [0, 1, 2, 3, -1, 7, 60, 1 << 31, i64::MAX, i64::MIN, -2, TTL_SECONDS_MAX + 1];

/// Set by any thread that panics.
static PANICKED: AtomicBool = AtomicBool::new(false);

thread_local! {
    static REPLICA: RefCell<Option<Replica>> = const { RefCell::new(None) };
}

/// A replica of a network of one, without listeners: its services are called in place.
struct Replica {
    runtime: Runtime,
    node: Option<Node>,
    interface: Interface,
    inputs: u32,
    _home: TempDir,
}

impl Replica {
    fn start() -> Self {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
        let runtime = runtime.expect("a runtime");
        let home = tempfile::tempdir().expect("a temporary directory");
        let (ring, keys) = KeyRing::new(&[[1; 32]]);
        let config = NodeConfig {
            genesis: chain::genesis(&keys),
            founded: None,
            own: ReplicaId(0),
            initial: None,
            known: None,
            scheme: ring.scheme([1; 32]),
            data_directory: home.path().join("data"),
            waits_for_disk: false,
            peer_listeners: Vec::new(),
            exchange: Arc::new(ExchangeTls::load(ExchangeFiles::default()).expect("no files")),
            history_retention_ms: 0,
            runtime: runtime.handle().clone(),
        };
        let node = Node::start(config).unwrap_or_else(|why| panic!("{why}"));
        let settings = api::Settings {
            request_bytes_max: None,
            txn_operations_max: None,
            strict_reconfiguration: true,
            learners_max: 1,
            progress_interval_ms: 100,
            auth: AuthSettings { bcrypt_cost: 4, ..AuthSettings::new() },
        };
        let interface = api::routes(node.handle(), settings);
        Self { runtime, node: Some(node), interface, inputs: 0, _home: home }
    }

    /// Calls once; the status, or none if the method may wait and does.
    fn call(&self, call: &Call) -> Option<Status> {
        let patience = if call.may_wait() { GLANCE } else { PATIENCE };
        let answered = self.runtime.block_on(async { timeout(patience, self.answer(call)).await });
        match answered {
            Ok(status) => Some(status),
            Err(_) if call.may_wait() => None,
            Err(_) => panic!("no answer to {}", call.path),
        }
    }

    async fn answer(&self, call: &Call) -> Status {
        let mut request = http::Request::post(&call.path).header("te", "trailers");
        for (name, value) in &call.headers {
            request = request.header(*name, value.clone());
        }
        let request = request.body(Full::new(call.body.clone())).expect("parts of a request");
        let grpc = self.interface.grpc.clone();
        let rest = self.interface.rest.clone();
        let router = if call.is_rest { rest } else { grpc };
        let response = router.oneshot(request).await.unwrap_or_else(|never| match never {});
        let (mut status, mut body) =
            (Status::from_header_map(response.headers()), response.into_body());
        while let Some(Ok(frame)) = body.frame().await {
            // Behind them comes nothing, or the same again: no transport asks.
            if let Some(trailers) = frame.trailers_ref() {
                status = Status::from_header_map(trailers);
                break;
            }
        }
        // REST answers by HTTP's own codes.
        status.filter(|_| !call.is_rest).unwrap_or_else(|| Status::ok(""))
    }
}

impl Drop for Replica {
    fn drop(&mut self) {
        self.node.take().into_iter().for_each(Node::stop);
    }
}

/// One request, whatever it is.
struct Call {
    path: String,
    headers: Vec<(&'static str, http::HeaderValue)>,
    body: Bytes,
    is_rest: bool,
    /// The messages are of the right type, in whole frames.
    is_formed: bool,
}

impl Call {
    /// Streams that the server does not end, and what waits for others by its nature.
    fn may_wait(&self) -> bool {
        // REST has no path here to the others of them.
        const WAIT: [&str; 5] = ["/Watch", "/Lock", "/Campaign", "/Observe", "/watch"];
        WAIT.iter().any(|name| self.path.ends_with(name))
    }

    fn draw(choices: &mut Choices) -> Self {
        let methods: Vec<MethodDescriptor> = contract()
            .services()
            .flat_map(|service| service.methods().collect::<Vec<_>>())
            .collect();
        let method = &methods[usize::from(choices.byte()) % methods.len()];
        let path = format!("/{}/{}", method.parent_service().full_name(), method.name());
        let mut headers = vec![("content-type", value("application/grpc"))];
        if choices.byte() % 8 == 1 {
            let name = choices.among(&HEADERS);
            let length = usize::from(choices.byte() % 40);
            let given = http::HeaderValue::from_bytes(choices.bytes(length));
            headers.extend(given.ok().map(|given| (name, given)));
        }
        let whole = Self { path, headers, body: Bytes::new(), is_rest: false, is_formed: true };
        match choices.byte() % 8 {
            0 => whole.raw(choices),
            1 => whole.framed(choices),
            2 => Self::rest(choices),
            _ => {
                let mut body = Vec::new();
                let count = if method.is_client_streaming() { choices.byte() % 6 } else { 1 };
                for _ in 0..count {
                    let message = message(&method.input(), choices, DEPTH);
                    body.extend(grpc_frame(&message.encode_to_vec()));
                }
                Self { body: body.into(), ..whole }
            }
        }
    }

    /// Any bytes where frames should be.
    fn raw(self, choices: &mut Choices) -> Self {
        let length = usize::from(choices.short() % 512);
        let body = Bytes::copy_from_slice(choices.bytes(length));
        Self { body, is_formed: false, ..self }
    }

    /// Any bytes in a frame.
    fn framed(self, choices: &mut Choices) -> Self {
        let length = usize::from(choices.short() % 512);
        let body = grpc_frame(choices.bytes(length)).into();
        Self { body, is_formed: false, ..self }
    }

    fn rest(choices: &mut Choices) -> Self {
        const PATHS: [&str; 10] = [
            "kv/range",
            "kv/put",
            "kv/txn",
            "watch",
            "lease/grant",
            "lease/keepalive",
            "auth/authenticate",
            "auth/user/add",
            "maintenance/status",
            "cluster/member/list",
        ];
        const BODIES: [&str; 8] = [
            "{}",
            "",
            "[",
            r#"{"key":"YQ=="}"#,
            r#"{"key":"YQ==","value":"YQ=="}"#,
            r#"{"create_request":{"key":"YQ=="}}"#,
            r#"{"TTL":"60"}"#,
            r#"{"compare":[{"key":""}]}"#,
        ];
        let path = format!("/v3/{}", choices.among(&PATHS));
        let mut body = choices.among(&BODIES).as_bytes().to_vec();
        for _ in 0..choices.byte() % 4 {
            let (at, byte) = (usize::from(choices.short()), choices.byte());
            body.insert(at % (body.len() + 1), byte);
        }
        let headers = vec![("content-type", value("application/json"))];
        Self { path, headers, body: body.into(), is_rest: true, is_formed: false }
    }
}

fn value(text: &'static str) -> http::HeaderValue {
    http::HeaderValue::from_static(text)
}

/// A message with some of its fields.
fn message(of: &MessageDescriptor, choices: &mut Choices, depth: usize) -> DynamicMessage {
    let mut message = DynamicMessage::new(of.clone());
    let fields: Vec<FieldDescriptor> = of.fields().collect();
    for _ in 0..choices.byte() % 6 {
        let at = usize::from(choices.byte()).checked_rem(fields.len());
        let Some(field) = at.map(|at| &fields[at]) else { break };
        let drawn = if field.is_list() {
            let count = choices.byte() % 4;
            Value::List((0..count).filter_map(|_| single(field, choices, depth)).collect())
        } else {
            let Some(drawn) = single(field, choices, depth) else { continue };
            drawn
        };
        message.set_field(field, drawn);
    }
    message
}

fn single(field: &FieldDescriptor, choices: &mut Choices, depth: usize) -> Option<Value> {
    let at = usize::from(choices.byte());
    let number = NUMBERS[at % NUMBERS.len()];
    Some(match field.kind() {
        Kind::Bool => Value::Bool(at % 2 == 1),
        Kind::String => Value::String(TEXTS[at % TEXTS.len()].to_owned()),
        Kind::Bytes => Value::Bytes(Bytes::from_static(BYTES[at % BYTES.len()])),
        Kind::Int64 | Kind::Sint64 | Kind::Sfixed64 => Value::I64(number),
        Kind::Uint64 | Kind::Fixed64 => Value::U64(number.cast_unsigned()),
        Kind::Int32 | Kind::Sint32 | Kind::Sfixed32 => Value::I32(number as i32),
        Kind::Uint32 | Kind::Fixed32 => Value::U32(number as u32),
        Kind::Enum(_) => Value::EnumNumber(i32::from(choices.byte() % 8) - 1),
        Kind::Message(inner) if depth > 0 => Value::Message(message(&inner, choices, depth - 1)),
        Kind::Message(_) | Kind::Float | Kind::Double => return None,
    })
}

fn watch_for_panics() {
    static ONCE: Once = Once::new();
    ONCE.call_once(|| {
        let before = std::panic::take_hook();
        std::panic::set_hook(Box::new(move |panic| {
            PANICKED.store(true, Ordering::SeqCst);
            before(panic);
        }));
    });
}

/// Whatever a client sends to any method: an answer, no panic in any thread, and the next one is served.
pub fn grpc_to_handler(data: &[u8]) {
    watch_for_panics();
    PANICKED.store(false, Ordering::SeqCst);
    let mut choices = Choices::new(data);
    REPLICA.with_borrow_mut(|kept| {
        let mut replica =
            kept.take().filter(|replica| replica.inputs < INPUTS).unwrap_or_else(Replica::start);
        replica.inputs += 1;
        for _ in 0..CALLS {
            if choices.is_empty() {
                break;
            }
            let call = Call::draw(&mut choices);
            let status = replica.call(&call);
            if let Some(status) = status.filter(|_| call.is_formed) {
                let fault = matches!(status.code(), Code::Internal | Code::DataLoss);
                assert!(!fault, "{} answers {status:?}", call.path);
            }
        }
        let path = "/etcdserverpb.KV/Range".to_owned();
        let headers = vec![("content-type", value("application/grpc"))];
        let body = grpc_frame(b"\x0a\x01a").into();
        let read = Call { path, headers, body, is_rest: false, is_formed: true };
        let status = replica.call(&read).expect("a read does not wait");
        // Somebody may have switched users on.
        let served = matches!(status.code(), Code::Ok | Code::InvalidArgument);
        assert!(served, "a read answers {status:?}");
        assert!(!PANICKED.load(Ordering::SeqCst), "a thread has panicked");
        *kept = Some(replica);
    });
}
