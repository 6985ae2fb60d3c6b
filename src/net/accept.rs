use core::time::Duration;
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;

use bytes::BytesMut;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::{Instant, timeout};
use tokio_rustls::TlsAcceptor;
use tokio_rustls::server::TlsStream;
use tokio_util::sync::CancellationToken;

use super::ask::Opened;
use super::frame::{Decoder, Incoming, put_ping, put_pong};
use super::{HANDSHAKE_WITHIN, NetEvent, Peer, REFUSED_PAUSE, Receipt, SILENCE_MAX, Shared};
use crate::types::Bucket;

/// Connections that have not shown who they are yet.
const HANDSHAKES_MAX: usize = 64;
/// The same after a stranger's question, which a network that is being founded asks often.
const ANSWERED_PAUSE: Duration = Duration::from_millis(20);
/// Pings of one link, each answered; a correct peer sends one.
const PINGS_PER_SECOND: u64 = 10;
/// A frame's own cost, so that few small ones wait: who flooded and is honest after a restart is heard
/// again once they are dealt with.
pub(super) const FRAME_OVERHEAD_BYTES: usize = 8 << 10;

/// Accepts until the process stops. No error of one connection, nor a lack of descriptors, ends it.
pub(super) async fn run(shared: Arc<Shared>, listener: TcpListener, secure: bool) {
    let handshakes = Arc::new(Semaphore::new(HANDSHAKES_MAX));
    loop {
        let accepted = tokio::select! {
            accepted = listener.accept() => accepted,
            () = shared.stop.cancelled() => return,
        };
        match accepted {
            // Closed at once while cut off, so that the peer notices.
            Ok((_, _)) if *shared.cut.borrow() => {}
            Ok((stream, address)) => {
                let Ok(place) = Arc::clone(&handshakes).try_acquire_owned() else { continue };
                tokio::spawn(serve(Arc::clone(&shared), (stream, secure), address, place));
            }
            Err(error) => {
                tracing::warn!(event = "peer_accept_failed", %error);
                tokio::time::sleep(REFUSED_PAUSE).await;
            }
        }
    }
}

async fn serve(
    shared: Arc<Shared>,
    (stream, secure): (TcpStream, bool),
    address: SocketAddr,
    place: OwnedSemaphorePermit,
) {
    let handshake = timeout(HANDSHAKE_WITHIN, shake_hands(&shared, stream, secure));
    let result = tokio::select! {
        result = handshake => result.unwrap_or_else(|_| Err("no handshake in time".to_owned())),
        () = shared.ended() => return,
    };
    let (stream, peer) = match result {
        Ok(Some(found)) => found,
        // A stranger, and answered. Its place stays taken for a moment, as of all that led to no link.
        Ok(None) => return tokio::time::sleep(ANSWERED_PAUSE).await,
        Err(reason) => {
            tracing::warn!(event = "peer_refused", %address, %reason);
            tokio::time::sleep(REFUSED_PAUSE).await;
            return;
        }
    };
    let mut link = core::pin::pin!(serve_link(&shared, &peer, stream));
    let (reason, place) = match timeout(REFUSED_PAUSE, &mut link).await {
        Ok(reason) => (reason, Some(place)),
        Err(_) => {
            drop(place);
            (link.await, None)
        }
    };
    tracing::info!(event = "peer_closed", peer = %peer.address.name, %address, %reason);
    if place.is_some() {
        tokio::time::sleep(REFUSED_PAUSE).await;
    }
}

/// Why a link ended.
async fn serve_link(shared: &Shared, peer: &Peer, stream: TlsStream<TcpStream>) -> String {
    let token = newest(peer);
    tokio::select! {
        error = receive(shared, peer, stream) => error.to_string(),
        () = token.cancelled() => "superseded by a newer connection".to_owned(),
        () = peer.gone.cancelled() => "it is a peer no more".to_owned(),
        () = shared.ended() => "this replica ended the link".to_owned(),
    }
}

/// Ends the peer's older connection: the newest wins, so a half-open one cannot lock a peer out.
fn newest(peer: &Peer) -> CancellationToken {
    let token = CancellationToken::new();
    let mut accepted = peer.accepted.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
    std::mem::replace(&mut *accepted, token.clone()).cancel();
    token
}

async fn shake_hands(
    shared: &Shared,
    stream: TcpStream,
    secure: bool,
) -> Result<Option<(TlsStream<TcpStream>, Arc<Peer>)>, String> {
    stream.set_nodelay(true).map_err(|error| error.to_string())?;
    let accepted = match &shared.strangers {
        None => TlsAcceptor::from(shared.tls.server()).accept(stream).await,
        Some(exchange) => match exchange.open(stream, secure).await? {
            Opened::Answered => return Ok(None),
            Opened::Link(start) => start.into_stream(shared.tls.server()).await,
        },
    };
    let mut stream = accepted.map_err(|error| error.to_string())?;
    let id = shared.tls.peer_of(stream.get_ref().1).ok_or("it is no member")?;
    let peer = shared.peer(id).ok_or("it is no peer of this replica")?;
    // The greeting that the dialler waits for.
    let mut out = BytesMut::new();
    put_ping(&mut out, 0);
    let greeted = async {
        stream.write_all(&out).await?;
        stream.flush().await
    };
    greeted.await.map_err(|error: io::Error| error.to_string())?;
    Ok(Some((stream, peer)))
}

/// Hands over the peer's frames, in order, until its connection ends; says why it did.
async fn receive(shared: &Shared, peer: &Peer, mut stream: TlsStream<TcpStream>) -> io::Error {
    let mut decoder = Decoder::new(shared.frame_limits);
    let mut out = BytesMut::new();
    let (began, mut pings) = (Instant::now(), Bucket::full(PINGS_PER_SECOND));
    loop {
        loop {
            match decoder.next() {
                Ok(Some(Incoming::Frame(frame))) => {
                    let receipt = settle(peer, frame.len()).await;
                    (shared.handler)(NetEvent::Frame(peer.address.id, frame, receipt));
                }
                Ok(Some(Incoming::Ping(nonce))) => {
                    let now_ms = u64::try_from(began.elapsed().as_millis()).unwrap_or(u64::MAX);
                    if !pings.try_take(1, now_ms) {
                        return io::Error::new(io::ErrorKind::InvalidData, "it pings too often");
                    }
                    put_pong(&mut out, nonce);
                }
                Ok(Some(Incoming::Pong(_))) => {
                    let reason = "it answered a ping that nobody sent";
                    return io::Error::new(io::ErrorKind::InvalidData, reason);
                }
                Ok(None) => break,
                Err(error) => return io::Error::new(io::ErrorKind::InvalidData, error.to_string()),
            }
        }
        match timeout(SILENCE_MAX, exchange(&mut stream, &mut decoder, &mut out)).await {
            Ok(Ok(read)) => peer.counters.received(read),
            Ok(Err(error)) => return error,
            Err(_) => return io::Error::new(io::ErrorKind::TimedOut, "it fell silent"),
        }
    }
}

/// Writes the answers that are due, then reads what came.
async fn exchange(
    stream: &mut TlsStream<TcpStream>,
    decoder: &mut Decoder,
    out: &mut BytesMut,
) -> io::Result<usize> {
    if !out.is_empty() {
        stream.write_all(out).await?;
        stream.flush().await?;
        out.clear();
    }
    let read = stream.read_buf(decoder.room()).await?;
    if read == 0 {
        let reason = if decoder.is_between_frames() {
            "it closed the connection"
        } else {
            "it closed the connection inside a frame"
        };
        return Err(io::Error::new(io::ErrorKind::UnexpectedEof, reason));
    }
    Ok(read)
}

/// Waits until the peer may have another frame outstanding: what the replica cannot keep up with
/// stays in the peer's queue, not in this one's memory.
async fn settle(peer: &Peer, bytes: usize) -> Receipt {
    let share = u32::try_from(bytes + FRAME_OVERHEAD_BYTES).unwrap_or(u32::MAX);
    Receipt { _permit: Arc::clone(&peer.unsettled).acquire_many_owned(share).await.ok() }
}
