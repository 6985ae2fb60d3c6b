//! A gRPC client without generated code: requests and replies are protobuf text.
//!
//! The contract is read from `proto/etcd` at run time, so a script names methods and fields as etcd's
//! own documentation does, and two replies are equal when their text is. Fields the contract does
//! not know come out with their number instead of vanishing. One thread per client; every call
//! blocks, and every call has a deadline.

use std::path::Path;
use std::sync::{Arc, Mutex, OnceLock};
use std::time::Duration;

use bytes::{Buf, BufMut};
use http::uri::PathAndQuery;
use hyper_util::rt::TokioIo;
use prost::Message;
use prost_reflect::{
    DescriptorPool, DynamicMessage, MessageDescriptor, MethodDescriptor, ReflectMessage, Value,
};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use tokio::runtime::Runtime;
use tokio::sync::mpsc;
use tokio_stream::wrappers::UnboundedReceiverStream;
use tonic::codec::{Codec, DecodeBuf, Decoder, EncodeBuf, Encoder};
use tonic::transport::{Channel, Endpoint};
use tonic::{Request, Status, Streaming};

use crate::cluster::TlsFiles;

/// A hang detector, ten times what a loaded machine needs.
const CALL_PATIENCE: Duration = Duration::from_secs(30);

/// The contract: every message and service of `proto/etcd`, and gRPC's health service.
pub fn contract() -> &'static DescriptorPool {
    static POOL: OnceLock<DescriptorPool> = OnceLock::new();
    POOL.get_or_init(|| {
        let here = Path::new(env!("CARGO_MANIFEST_DIR"));
        let folders = [here.join("../proto/etcd"), here.join("proto")];
        let mut files: Vec<_> = folders
            .iter()
            .flat_map(|folder| std::fs::read_dir(folder).expect("a folder of contracts"))
            .map(|entry| entry.expect("a contract").path())
            .filter(|path| path.extension().is_some_and(|extension| extension == "proto"))
            .collect();
        files.sort();
        let set = protox::compile(&files, &folders).expect("the contracts compile");
        DescriptorPool::decode(set.encode_to_vec().as_slice()).expect("compiled descriptors")
    })
}

/// A message as gRPC frames it: not compressed, its length, itself.
pub fn grpc_frame(message: &[u8]) -> Vec<u8> {
    let length = u32::try_from(message.len()).expect("a short message").to_be_bytes();
    [&[0][..], &length, message].concat()
}

/// How a call failed: gRPC's code name and the server's exact message.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Failure {
    /// As in gRPC's documentation: `OutOfRange`, `Unavailable`, ...
    pub code: String,
    /// Byte for byte.
    pub message: String,
}

impl From<Status> for Failure {
    fn from(status: Status) -> Failure {
        Failure { code: format!("{:?}", status.code()), message: status.message().to_owned() }
    }
}

/// A connection that dials on first use; within a tokio runtime.
pub fn channel(endpoint: &str, tls: Option<&TlsFiles>) -> Channel {
    let plain = endpoint.replacen("https://", "http://", 1);
    let description = Endpoint::from_shared(plain).expect("an endpoint address");
    // Wide windows: a stream nobody reads for a while must not make the server slow it down.
    let description = description
        .connect_timeout(Duration::from_secs(5))
        .initial_stream_window_size(16 << 20)
        .initial_connection_window_size(64 << 20);
    match tls {
        None => description.connect_lazy(),
        Some(files) => connect_tls(&description, endpoint, files),
    }
}

/// An answer over HTTP/1.1.
pub struct HttpAnswer {
    /// The code.
    pub status: u16,
    head: String,
    /// Without transfer coding.
    pub body: String,
}

impl HttpAnswer {
    /// The value of a header, by its lower-case name.
    pub fn header(&self, name: &str) -> Option<&str> {
        let mut lines = self.head.lines().filter_map(|line| line.split_once(':'));
        lines.find(|(key, _)| key.eq_ignore_ascii_case(name)).map(|(_, value)| value.trim())
    }
}

/// One request by HTTP/1.1 on the client port.
pub fn http(
    endpoint: &str,
    tls: Option<&TlsFiles>,
    method: &str,
    path: &str,
) -> std::io::Result<HttpAnswer> {
    use std::io::{Error, Read, Write};
    let (_, address) = endpoint.split_once("://").expect("an endpoint address");
    let mut tcp = std::net::TcpStream::connect(address)?;
    tcp.set_read_timeout(Some(CALL_PATIENCE))?;
    let request = format!(
        "{method} {path} HTTP/1.1\r\nHost: {address}\r\nContent-Length: 0\r\n\
         Connection: close\r\n\r\n"
    );
    let mut answer = Vec::new();
    match tls {
        None => {
            tcp.write_all(request.as_bytes())?;
            tcp.read_to_end(&mut answer)?;
        }
        Some(files) => {
            let mut config = tls_config(files);
            config.alpn_protocols = vec![b"http/1.1".to_vec()];
            let host = address.rsplit_once(':').expect("host:port").0.trim_matches(['[', ']']);
            let host = ServerName::try_from(host.to_owned()).expect("a host name");
            let session = rustls::ClientConnection::new(Arc::new(config), host);
            let mut stream = rustls::StreamOwned::new(session.map_err(Error::other)?, tcp);
            stream.write_all(request.as_bytes())?;
            stream.read_to_end(&mut answer)?;
        }
    }
    let text = String::from_utf8_lossy(&answer).into_owned();
    let (head, body) = text.split_once("\r\n\r\n").unwrap_or((&text, ""));
    let status = head.split(' ').nth(1).and_then(|code| code.parse().ok());
    let status = status.ok_or_else(|| Error::other(format!("not HTTP: {head:?}")))?;
    let mut answer = HttpAnswer { status, head: head.to_owned(), body: body.to_owned() };
    if answer.header("transfer-encoding") == Some("chunked") {
        answer.body = unchunked(body);
    }
    Ok(answer)
}

/// The body behind `Transfer-Encoding: chunked`, as far as it is there.
pub fn unchunked(mut text: &str) -> String {
    let mut body = String::new();
    while let Some((size, rest)) = text.split_once("\r\n") {
        let size = usize::from_str_radix(size.trim(), 16).unwrap_or(0);
        let Some(chunk) = rest.get(..size).filter(|_| size > 0) else { break };
        body.push_str(chunk);
        text = rest.get(size + 2..).unwrap_or("");
    }
    body
}

/// The body of `GET path`; an error unless the answer is 200.
pub fn http_get(endpoint: &str, tls: Option<&TlsFiles>, path: &str) -> std::io::Result<String> {
    let answer = http(endpoint, tls, "GET", path)?;
    match answer.status {
        200 => Ok(answer.body),
        status => Err(std::io::Error::other(format!("{path}: {status} {}", answer.body))),
    }
}

/// A connection to one server.
pub struct Client {
    runtime: Arc<Runtime>,
    channel: Channel,
    token: Mutex<Option<String>>,
}

impl Client {
    /// Connects lazily to `endpoint` (`http://...`, or `https://...` with `tls`).
    pub fn new(endpoint: &str, tls: Option<&TlsFiles>) -> Client {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
        let runtime = Arc::new(runtime.expect("a runtime"));
        let _guard = runtime.enter();
        let channel = channel(endpoint, tls);
        Client { runtime: runtime.clone(), channel, token: Mutex::default() }
    }

    /// Shows this token with every request from now on, or none.
    pub fn set_token(&self, token: Option<&str>) {
        *self.token.lock().expect("no panic under the lock") = token.map(str::to_owned);
    }

    fn sign<T>(&self, request: &mut Request<T>) {
        if let Some(token) = &*self.token.lock().expect("no panic under the lock") {
            request.metadata_mut().insert("token", token.parse().expect("a token is a header"));
        }
    }

    /// Calls `method` (`KV/Range`, or with its package) with a request in protobuf text.
    pub fn call(&self, method: &str, request: &str) -> Result<DynamicMessage, Failure> {
        self.call_within(method, request, CALL_PATIENCE)
    }

    /// Like [`Client::call`]; the deadline travels to the server as `grpc-timeout`.
    pub fn call_within(
        &self,
        method: &str,
        request: &str,
        patience: Duration,
    ) -> Result<DynamicMessage, Failure> {
        let descriptor = find_method(method);
        let message = parse(descriptor.input(), request);
        let mut request = Request::new(message);
        request.set_timeout(patience);
        self.sign(&mut request);
        let mut grpc = self.grpc();
        let codec = DynamicCodec { output: descriptor.output() };
        let answer = self.runtime.block_on(async {
            grpc.ready().await.map_err(|error| Status::unavailable(error.to_string()))?;
            let path = path_of(&descriptor);
            tokio::time::timeout(patience, grpc.unary(request, path, codec))
                .await
                .map_err(|_| Status::deadline_exceeded("client gave up"))?
        });
        Ok(answer?.into_inner())
    }

    /// Calls `method` with `bytes`, which may be no message at all.
    pub fn call_bytes(&self, method: &str, bytes: &[u8]) -> Result<DynamicMessage, Failure> {
        let descriptor = find_method(method);
        let mut request = Request::new(bytes.to_vec());
        request.set_timeout(CALL_PATIENCE);
        self.sign(&mut request);
        let mut grpc = self.grpc();
        let codec = RawCodec { output: descriptor.output() };
        let answer = self.runtime.block_on(async {
            grpc.ready().await.map_err(|error| Status::unavailable(error.to_string()))?;
            tokio::time::timeout(CALL_PATIENCE, grpc.unary(request, path_of(&descriptor), codec))
                .await
                .map_err(|_| Status::deadline_exceeded("client gave up"))?
        });
        Ok(answer?.into_inner())
    }

    /// Opens a stream (`Watch/Watch`, `Lease/LeaseKeepAlive`, or a server stream after its request).
    pub fn open(&self, method: &str) -> Result<Stream, Failure> {
        let descriptor = find_method(method);
        let (sender, receiver) = mpsc::unbounded_channel();
        let mut grpc = self.grpc();
        let codec = DynamicCodec { output: descriptor.output() };
        let path = path_of(&descriptor);
        let mut request = Request::new(UnboundedReceiverStream::new(receiver));
        self.sign(&mut request);
        // The server may not answer, not even with headers, before the first request: the reply
        // is awaited when something is read.
        let pending = self.runtime.spawn(async move {
            grpc.ready().await.map_err(|error| Status::unavailable(error.to_string()))?;
            grpc.streaming(request, path, codec).await.map(tonic::Response::into_inner)
        });
        Ok(Stream {
            runtime: self.runtime.clone(),
            input: descriptor.input(),
            sender: Some(sender),
            state: StreamState::Opening(pending),
        })
    }

    fn grpc(&self) -> tonic::client::Grpc<Channel> {
        tonic::client::Grpc::new(self.channel.clone())
            .max_decoding_message_size(usize::MAX)
            .max_encoding_message_size(usize::MAX)
    }
}

enum StreamState {
    Opening(tokio::task::JoinHandle<Result<Streaming<DynamicMessage>, Status>>),
    Open(Streaming<DynamicMessage>),
    Ended(Option<Failure>),
}

/// What was read from a stream.
#[derive(Debug)]
pub enum Received {
    /// A message.
    Message(DynamicMessage),
    /// Nothing within the time given.
    Nothing,
    /// The end, with the status when it was not OK. Reported again on each later read.
    End(Option<Failure>),
}

/// An open bidirectional stream.
pub struct Stream {
    runtime: Arc<Runtime>,
    input: MessageDescriptor,
    sender: Option<mpsc::UnboundedSender<DynamicMessage>>,
    state: StreamState,
}

impl Stream {
    /// Sends a request in protobuf text; a stream the server has ended swallows it.
    pub fn send(&self, request: &str) {
        let message = parse(self.input.clone(), request);
        if let Some(sender) = &self.sender {
            let _ended = sender.send(message);
        }
    }

    /// Ends the sending half.
    pub fn close(&mut self) {
        self.sender = None;
    }

    /// Ends the call from the client's side.
    pub fn cancel(self) {
        let runtime = self.runtime.clone();
        if let StreamState::Opening(pending) = &self.state {
            pending.abort();
        }
        drop(self);
        // The connection's task tells the server.
        runtime.block_on(async { tokio::time::sleep(Duration::from_millis(200)).await });
    }

    /// Waits up to `patience` for the next message.
    pub fn receive(&mut self, patience: Duration) -> Received {
        let runtime = self.runtime.clone();
        let answer = runtime.block_on(async { tokio::time::timeout(patience, self.next()).await });
        match answer {
            Err(_) => Received::Nothing,
            Ok(Ok(message)) => Received::Message(message),
            Ok(Err(end)) => {
                self.state = StreamState::Ended(end.clone());
                Received::End(end)
            }
        }
    }

    async fn next(&mut self) -> Result<DynamicMessage, Option<Failure>> {
        if let StreamState::Opening(pending) = &mut self.state {
            let opened = pending.await.expect("opening a stream does not panic");
            self.state = StreamState::Open(opened.map_err(|status| Some(Failure::from(status)))?);
        }
        match &mut self.state {
            StreamState::Open(stream) => match stream.message().await {
                Ok(Some(message)) => Ok(message),
                Ok(None) => Err(None),
                Err(status) => Err(Some(Failure::from(status))),
            },
            StreamState::Ended(end) => Err(end.clone()),
            StreamState::Opening(_) => unreachable!("opened above"),
        }
    }
}

/// Reads protobuf text as a message; panics on text the contract does not allow, which is a mistake
/// in the test.
pub fn parse(descriptor: MessageDescriptor, text: &str) -> DynamicMessage {
    let name = descriptor.full_name().to_owned();
    DynamicMessage::parse_text_format(descriptor, text)
        .unwrap_or_else(|error| panic!("{text:?} is not a {name}: {error}"))
}

/// The field at `path` (`header.revision`, `kvs`); its default when absent.
pub fn field(message: &DynamicMessage, path: &str) -> Value {
    let (name, rest) = path.split_once('.').map_or((path, None), |(name, rest)| (name, Some(rest)));
    let value = message
        .get_field_by_name(name)
        .unwrap_or_else(|| panic!("{} has no field {name}", message.descriptor().full_name()));
    match (rest, value.as_message()) {
        (None, _) => value.into_owned(),
        (Some(rest), Some(inner)) => field(inner, rest),
        (Some(rest), None) => panic!("{name} has no field {rest}"),
    }
}

/// The integer at `path`.
pub fn number(message: &DynamicMessage, path: &str) -> i64 {
    match field(message, path) {
        Value::I64(n) => n,
        Value::I32(n) => i64::from(n),
        Value::U64(n) => i64::try_from(n).unwrap_or_else(|_| panic!("{path} is {n}")),
        other => panic!("{path} is {other:?}, not a number"),
    }
}

/// `bytes` as a quoted literal of protobuf text.
pub fn quoted(bytes: &[u8]) -> String {
    let mut text = String::from("\"");
    for byte in bytes {
        match byte {
            b'"' | b'\\' | 0..=31 | 127..=255 => text.push_str(&format!("\\{byte:03o}")),
            _ => text.push(char::from(*byte)),
        }
    }
    text.push('"');
    text
}

/// `name` as a word of the contract, for tables of methods.
pub fn method_name(name: &str) -> &'static str {
    static NAMES: OnceLock<Vec<String>> = OnceLock::new();
    let names = NAMES.get_or_init(|| {
        let methods = contract().services().flat_map(|service| {
            let methods: Vec<_> = service.methods().collect();
            methods.into_iter().map(move |m| format!("{}/{}", service.name(), m.name()))
        });
        methods.collect()
    });
    let found = names.iter().find(|known| *known == name);
    found.unwrap_or_else(|| panic!("proto/etcd has no method {name}"))
}

/// The method `Service/Method`, with or without its package.
pub fn find_method(name: &str) -> MethodDescriptor {
    let (service, method) = name.split_once('/').expect("Service/Method");
    let found = contract()
        .services()
        .filter(|candidate| candidate.name() == service || candidate.full_name() == service)
        .find_map(|candidate| candidate.methods().find(|m| m.name() == method));
    found.unwrap_or_else(|| panic!("proto/etcd has no method {name}"))
}

fn path_of(method: &MethodDescriptor) -> PathAndQuery {
    let path = format!("/{}/{}", method.parent_service().full_name(), method.name());
    path.parse().expect("a method name is a path")
}

/// Dials with TLS: the server checked against the CA, the client certificate presented.
fn connect_tls(description: &Endpoint, endpoint: &str, files: &TlsFiles) -> Channel {
    let address = endpoint.trim_start_matches("https://").to_owned();
    let host = address.rsplit_once(':').expect("host:port").0.trim_matches(['[', ']']).to_owned();
    let host = ServerName::try_from(host).expect("a host name");
    let connector = tokio_rustls::TlsConnector::from(Arc::new(tls_config(files)));
    description.connect_with_connector_lazy(tower::service_fn(move |_: http::Uri| {
        let (address, host, connector) = (address.clone(), host.clone(), connector.clone());
        async move {
            let tcp = tokio::net::TcpStream::connect(&address).await?;
            tcp.set_nodelay(true)?;
            Ok::<_, std::io::Error>(TokioIo::new(connector.connect(host, tcp).await?))
        }
    }))
}

fn tls_config(files: &TlsFiles) -> rustls::ClientConfig {
    let mut roots = rustls::RootCertStore::empty();
    for certificate in CertificateDer::pem_file_iter(&files.ca).expect("CA file") {
        roots.add(certificate.expect("CA certificate")).expect("CA certificate");
    }
    let chain: Result<Vec<_>, _> =
        CertificateDer::pem_file_iter(&files.certificate).expect("certificate file").collect();
    let key = PrivateKeyDer::from_pem_file(&files.key).expect("key file");
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let mut config = rustls::ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .expect("TLS 1.2 and 1.3")
        .with_root_certificates(roots)
        .with_client_auth_cert(chain.expect("certificate"), key)
        .expect("certificate and key belong together");
    config.alpn_protocols = vec![b"h2".to_vec()];
    config
}

/// Encodes any message, decodes the one the method answers with.
struct DynamicCodec {
    output: MessageDescriptor,
}

impl Codec for DynamicCodec {
    type Encode = DynamicMessage;
    type Decode = DynamicMessage;
    type Encoder = DynamicCoder;
    type Decoder = DynamicCoder;

    fn encoder(&mut self) -> DynamicCoder {
        DynamicCoder { output: self.output.clone() }
    }

    fn decoder(&mut self) -> DynamicCoder {
        self.encoder()
    }
}

/// Sends bytes as they are.
struct RawCodec {
    output: MessageDescriptor,
}

impl Codec for RawCodec {
    type Encode = Vec<u8>;
    type Decode = DynamicMessage;
    type Encoder = RawEncoder;
    type Decoder = DynamicCoder;

    fn encoder(&mut self) -> RawEncoder {
        RawEncoder
    }

    fn decoder(&mut self) -> DynamicCoder {
        DynamicCoder { output: self.output.clone() }
    }
}

struct RawEncoder;

impl Encoder for RawEncoder {
    type Item = Vec<u8>;
    type Error = Status;

    fn encode(&mut self, item: Vec<u8>, buffer: &mut EncodeBuf<'_>) -> Result<(), Status> {
        buffer.put_slice(&item);
        Ok(())
    }
}

struct DynamicCoder {
    output: MessageDescriptor,
}

impl Encoder for DynamicCoder {
    type Item = DynamicMessage;
    type Error = Status;

    fn encode(&mut self, item: DynamicMessage, buffer: &mut EncodeBuf<'_>) -> Result<(), Status> {
        item.encode(buffer).map_err(|error| Status::internal(error.to_string()))
    }
}

impl Decoder for DynamicCoder {
    type Item = DynamicMessage;
    type Error = Status;

    fn decode(&mut self, buffer: &mut DecodeBuf<'_>) -> Result<Option<DynamicMessage>, Status> {
        let bytes = buffer.copy_to_bytes(buffer.remaining());
        DynamicMessage::decode(self.output.clone(), bytes)
            .map(Some)
            .map_err(|error| Status::internal(error.to_string()))
    }
}
