//! A load generator that costs little: requests are bytes, replies are not decoded, one thread.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use bytes::{Buf, BufMut, Bytes};
use conformance::client::channel;
use http::uri::PathAndQuery;
use tonic::codec::{Codec, DecodeBuf, Decoder, EncodeBuf, Encoder};
use tonic::transport::Channel;
use tonic::{Request, Status};

use crate::servers::{Address, Cluster};

/// Keys that writes and reads choose from.
pub const KEYS: u64 = 100_000;

/// What is asked for.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// A 256 B value under one of [`KEYS`].
    Put,
    /// One key, linearizable.
    Range,
    /// One key, serializable.
    Local,
}

/// A workload.
pub struct Shape {
    /// For the table.
    pub name: &'static str,
    /// What each client does.
    pub kind: Kind,
    /// TCP connections.
    pub connections: usize,
    /// Requests under way at any time.
    pub clients: usize,
}

/// Runs `shape` for `time`; the latency of each operation in microseconds.
pub fn run(endpoints: &[Address], shape: &Shape, time: Duration) -> Vec<u32> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    let runtime = runtime.expect("a runtime");
    runtime.block_on(async {
        let channels: Vec<Channel> = (0..shape.connections)
            .map(|index| {
                let (url, tls) = &endpoints[index % endpoints.len()];
                channel(url, Some(tls))
            })
            .collect();
        let deadline = Instant::now() + time;
        let kind = shape.kind;
        let clients: Vec<_> = (0..shape.clients)
            .map(|client| {
                let channel = channels[client % channels.len()].clone();
                tokio::spawn(one_client(channel, kind, client as u64, deadline))
            })
            .collect();
        let mut latencies = Vec::new();
        for client in clients {
            latencies.extend(client.await.expect("a client"));
        }
        latencies
    })
}

async fn one_client(channel: Channel, kind: Kind, client: u64, deadline: Instant) -> Vec<u32> {
    let mut latencies = Vec::new();
    let mut state = client.wrapping_mul(0x9E37_79B9_7F4A_7C15) ^ 0x5851_F42D;
    while Instant::now() < deadline {
        state =
            state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        let key = (state >> 33) % KEYS;
        let (path, request) = match kind {
            Kind::Put => ("/etcdserverpb.KV/Put", put(key, 256)),
            Kind::Range => ("/etcdserverpb.KV/Range", range(key, false)),
            Kind::Local => ("/etcdserverpb.KV/Range", range(key, true)),
        };
        let started = Instant::now();
        call(&channel, path, request).await.unwrap_or_else(|status| panic!("{path}: {status}"));
        latencies.push(u32::try_from(started.elapsed().as_micros()).unwrap_or(u32::MAX));
    }
    latencies
}

/// Puts keys 0 to `keys`, each once, 256 at a time over the leader.
pub fn fill(cluster: &Cluster, keys: u64, value_bytes: usize) {
    let endpoints = cluster.endpoints(false);
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    runtime.expect("a runtime").block_on(async {
        let next = Arc::new(AtomicU64::new(0));
        let (url, tls) = &endpoints[0];
        let channels: Vec<Channel> = (0..10).map(|_| channel(url, Some(tls))).collect();
        let clients: Vec<_> = (0..256)
            .map(|client| {
                let (channel, next) = (channels[client % channels.len()].clone(), next.clone());
                tokio::spawn(async move {
                    loop {
                        let key = next.fetch_add(1, Ordering::Relaxed);
                        if key >= keys {
                            break;
                        }
                        let request = put(key, value_bytes);
                        let answer = call(&channel, "/etcdserverpb.KV/Put", request).await;
                        answer.unwrap_or_else(|status| panic!("filling: {status}"));
                    }
                })
            })
            .collect();
        for client in clients {
            client.await.expect("a client");
        }
    });
}

async fn call(channel: &Channel, path: &'static str, request: Bytes) -> Result<(), Status> {
    let mut grpc = tonic::client::Grpc::new(channel.clone());
    grpc.ready().await.map_err(|error| Status::unavailable(error.to_string()))?;
    let path = PathAndQuery::from_static(path);
    grpc.unary(Request::new(request), path, RawCodec).await.map(|_| ())
}

/// About 35 bytes, as in the measurements this is compared with.
fn key_of(number: u64) -> String {
    format!("/bench/keys/of/the/cluster/{number:08}")
}

fn bytes_field(out: &mut Vec<u8>, number: u8, bytes: &[u8]) {
    out.put_u8(number << 3 | 2);
    let mut length = bytes.len();
    while length >= 128 {
        out.put_u8(u8::try_from(length % 128).expect("below 128") | 128);
        length /= 128;
    }
    out.put_u8(u8::try_from(length).expect("below 128"));
    out.put_slice(bytes);
}

fn put(key: u64, value_bytes: usize) -> Bytes {
    let mut out = Vec::with_capacity(value_bytes + 64);
    bytes_field(&mut out, 1, key_of(key).as_bytes());
    let mut value = key.to_be_bytes().to_vec();
    value.resize(value_bytes, b'v');
    bytes_field(&mut out, 2, &value);
    out.into()
}

fn range(key: u64, serializable: bool) -> Bytes {
    let mut out = Vec::with_capacity(64);
    bytes_field(&mut out, 1, key_of(key).as_bytes());
    if serializable {
        out.put_slice(&[7 << 3, 1]);
    }
    out.into()
}

/// Bytes in, nothing out.
#[derive(Clone, Copy)]
struct RawCodec;

impl Codec for RawCodec {
    type Encode = Bytes;
    type Decode = ();
    type Encoder = RawCodec;
    type Decoder = RawCodec;

    fn encoder(&mut self) -> RawCodec {
        *self
    }

    fn decoder(&mut self) -> RawCodec {
        *self
    }
}

impl Encoder for RawCodec {
    type Item = Bytes;
    type Error = Status;

    fn encode(&mut self, item: Bytes, buffer: &mut EncodeBuf<'_>) -> Result<(), Status> {
        buffer.put(item);
        Ok(())
    }
}

impl Decoder for RawCodec {
    type Item = ();
    type Error = Status;

    fn decode(&mut self, buffer: &mut DecodeBuf<'_>) -> Result<Option<()>, Status> {
        buffer.advance(buffer.remaining());
        Ok(Some(()))
    }
}
