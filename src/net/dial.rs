use core::time::Duration;
use std::io;
use std::sync::Arc;

use bytes::BytesMut;
use rustls::pki_types::ServerName;
use tokio::io::{AsyncReadExt, AsyncWriteExt, ReadHalf, WriteHalf};
use tokio::net::TcpStream;
use tokio::time::{Instant, MissedTickBehavior};
use tokio_rustls::client::TlsStream;

use super::frame::{Decoder, FrameLimits, Incoming};
use super::{HANDSHAKE_WITHIN, NetEvent, PING_EVERY, PONG_WITHIN, Peer, Shared};

const BACKOFF_FIRST: Duration = Duration::from_millis(50);
const BACKOFF_LAST: Duration = Duration::from_secs(1);
/// The slowest link that still counts as alive: what was written before a ping may take this long.
const BYTES_PER_SECOND_MIN: u64 = 64 << 10;

/// Keeps a link to one peer until the process stops or it is a peer no more.
pub(super) async fn run(shared: Arc<Shared>, peer: Arc<Peer>) {
    let mut backoff = BACKOFF_FIRST;
    let mut last_error = String::new();
    while shared.may_link().await && !peer.gone.is_cancelled() {
        let connected = tokio::select! {
            connected = connect(&shared, &peer) => connected,
            () = shared.ended() => continue,
            () = peer.gone.cancelled() => break,
        };
        let error = match connected {
            Ok((stream, decoder)) => {
                backoff = BACKOFF_FIRST;
                tracing::info!(event = "peer_up", peer = %peer.address.name);
                let ended = link(&shared, &peer, stream, decoder).await;
                tracing::info!(event = "peer_down", peer = %peer.address.name, reason = %ended);
                last_error.clear();
                continue_after(&shared, backoff).await;
                continue;
            }
            Err(error) => error.to_string(),
        };
        // One line per reason, not per attempt: a peer may be away for days.
        if error != last_error {
            let address = peer.address.addresses.join(",");
            tracing::warn!(
                event = "peer_unreachable", peer = %peer.address.name, %address, reason = %error
            );
            last_error = error;
        }
        continue_after(&shared, backoff).await;
        backoff = (backoff * 2).min(BACKOFF_LAST);
    }
}

/// Sleeps between a half and the whole of `backoff`, so that replicas that lost each other at the
/// same moment do not meet at the same moment for ever.
async fn continue_after(shared: &Shared, backoff: Duration) {
    let half = backoff / 2;
    let range = u32::try_from(half.as_millis()).unwrap_or(u32::MAX).max(1);
    let jitter = getrandom::u32().unwrap_or(0) % range;
    tokio::select! {
        () = tokio::time::sleep(half + Duration::from_millis(u64::from(jitter))) => {}
        () = shared.stop.cancelled() => {}
    }
}

/// A connection on which the peer has shown who it is *and* accepted this replica: with TLS 1.3 the
/// dialler's handshake ends before the acceptor has looked at its certificate, so the acceptor
/// greets with a ping.
async fn connect(shared: &Shared, peer: &Peer) -> io::Result<(TlsStream<TcpStream>, Decoder)> {
    let attempt = async {
        let tcp = connect_any(&peer.address.addresses).await?;
        tcp.set_nodelay(true)?;
        let connector = shared.tls.connector(peer.address.id).map_err(io::Error::other)?;
        let name = ServerName::try_from("peer.althing").map_err(io::Error::other)?;
        let mut stream = connector.connect(name, tcp).await?;
        // The acceptor sends nothing but pings and answers.
        let limits = FrameLimits { control_bytes: 0, bulk_bytes: 0 };
        let mut decoder = Decoder::new(limits);
        loop {
            match decoder.next().map_err(invalid)? {
                Some(Incoming::Ping(_)) => return Ok((stream, decoder)),
                Some(_) => return Err(invalid("it did not greet first")),
                None => read_some(&mut stream, &mut decoder).await?,
            }
        }
    };
    let timeout = || io::Error::new(io::ErrorKind::TimedOut, "no handshake in time");
    tokio::time::timeout(HANDSHAKE_WITHIN, attempt).await.map_err(|_| timeout())?
}

/// To the first address that takes the connection.
async fn connect_any(addresses: &[String]) -> io::Result<TcpStream> {
    let mut last = io::Error::new(io::ErrorKind::NotFound, "it has no address");
    for address in addresses {
        match TcpStream::connect(address).await {
            Ok(stream) => return Ok(stream),
            Err(error) => last = error,
        }
    }
    Err(last)
}

fn invalid(reason: impl core::fmt::Display) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, reason.to_string())
}

async fn read_some(
    stream: &mut (impl AsyncReadExt + Unpin),
    decoder: &mut Decoder,
) -> io::Result<()> {
    if stream.read_buf(decoder.room()).await? == 0 {
        let reason = if decoder.is_between_frames() {
            "it closed the connection"
        } else {
            "it closed the connection inside a frame"
        };
        return Err(io::Error::new(io::ErrorKind::UnexpectedEof, reason));
    }
    Ok(())
}

/// Serves one link until it ends; says why it did.
async fn link(
    shared: &Shared,
    peer: &Peer,
    stream: TlsStream<TcpStream>,
    decoder: Decoder,
) -> String {
    let (reader, writer) = tokio::io::split(stream);
    let pulse = Pulse::new();
    peer.lanes.open();
    peer.counters.set_up(true);
    (shared.handler)(NetEvent::Up(peer.address.id));
    let reason = tokio::select! {
        error = write_frames(peer, &pulse, writer) => error.to_string(),
        error = read_answers(peer, &pulse, reader, decoder) => error.to_string(),
        () = beat(peer, &pulse) => "it answers no pings".to_owned(),
        () = shared.ended() => "this replica ended the link".to_owned(),
        () = peer.gone.cancelled() => "it is a peer no more".to_owned(),
    };
    peer.lanes.close();
    peer.counters.set_up(false);
    (shared.handler)(NetEvent::Down(peer.address.id));
    reason
}

async fn write_frames(
    peer: &Peer,
    pulse: &Pulse,
    mut writer: WriteHalf<TlsStream<TcpStream>>,
) -> io::Error {
    let mut out = BytesMut::new();
    loop {
        if !peer.lanes.fill(&mut out) {
            if let Err(error) = writer.flush().await {
                return error;
            }
            peer.lanes.filled().await;
            continue;
        }
        if let Err(error) = writer.write_all(&out).await {
            return error;
        }
        peer.counters.sent(out.len());
        pulse.wrote(out.len());
        out.clear();
    }
}

async fn read_answers(
    peer: &Peer,
    pulse: &Pulse,
    mut reader: ReadHalf<TlsStream<TcpStream>>,
    mut decoder: Decoder,
) -> io::Error {
    loop {
        match decoder.next() {
            Ok(Some(Incoming::Pong(nonce))) => {
                let Some(took) = pulse.answered(nonce) else {
                    return invalid("it answered a ping that nobody sent");
                };
                peer.counters.round_trip(took);
            }
            Ok(Some(_)) => return invalid("it sent frames where only answers are expected"),
            Ok(None) => {
                if let Err(error) = read_some(&mut reader, &mut decoder).await {
                    return error;
                }
            }
            Err(error) => return invalid(error),
        }
    }
}

/// Pings; returns when an answer is overdue.
async fn beat(peer: &Peer, pulse: &Pulse) {
    let mut every = tokio::time::interval(PING_EVERY);
    every.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        every.tick().await;
        match pulse.next_ping() {
            Next::Ping(nonce) => peer.lanes.ping(nonce),
            Next::Wait => {}
            Next::Dead => return,
        }
    }
}

/// At most one ping is under way; its answer times the round trip.
struct Pulse {
    started: Instant,
    state: std::sync::Mutex<PulseState>,
}

#[derive(Default)]
struct PulseState {
    nonce: u64,
    sent_at: Option<Instant>,
    /// Written since the last answer: a slow link has to carry it before the next one.
    unanswered_bytes: u64,
}

enum Next {
    Ping(u64),
    Wait,
    Dead,
}

impl Pulse {
    fn new() -> Self {
        Self { started: Instant::now(), state: std::sync::Mutex::default() }
    }

    fn with<R>(&self, f: impl FnOnce(&mut PulseState) -> R) -> R {
        f(&mut self.state.lock().unwrap_or_else(std::sync::PoisonError::into_inner))
    }

    fn wrote(&self, bytes: usize) {
        self.with(|state| state.unanswered_bytes += bytes as u64);
    }

    fn answered(&self, nonce: u64) -> Option<Duration> {
        self.with(|state| {
            let sent_at = state.sent_at.filter(|_| state.nonce == nonce)?;
            state.sent_at = None;
            state.unanswered_bytes = 0;
            Some(sent_at.elapsed())
        })
    }

    fn next_ping(&self) -> Next {
        self.with(|state| {
            let Some(sent_at) = state.sent_at else {
                state.nonce += 1;
                state.sent_at = Some(Instant::now());
                return Next::Ping(state.nonce);
            };
            let carrying = Duration::from_secs(state.unanswered_bytes / BYTES_PER_SECOND_MIN);
            if sent_at.max(self.started).elapsed() > PONG_WITHIN + carrying.min(PONG_WITHIN * 6) {
                Next::Dead
            } else {
                Next::Wait
            }
        })
    }
}
