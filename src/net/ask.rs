use core::future::Future;
use core::pin::Pin;
use core::time::Duration;
use std::io;
use std::sync::Arc;

use bytes::Bytes;
use rustls::pki_types::ServerName;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Semaphore;
use tokio_rustls::LazyConfigAcceptor;
use tokio_rustls::StartHandshake;
use tokio_util::sync::CancellationToken;

use super::{HANDSHAKE_WITHIN, REFUSED_PAUSE};
use crate::tls::ExchangeTls;

/// First bytes of a question; no TLS handshake begins so.
const QUESTION: &[u8; 8] = b"althing?";
/// First bytes of its answer.
const ANSWER: &[u8; 8] = b"althing!";
/// Most bytes of a question.
const QUESTION_BYTES_MAX: usize = 64 << 10;
/// Most bytes of an answer: it may hold a genesis and how its epochs ended.
const ANSWER_BYTES_MAX: usize = 16 << 20;
/// An answer takes no longer; ordering may be part of it.
const ANSWER_WITHIN: Duration = Duration::from_secs(10);
/// Questions of strangers that are dealt with at once while there are no links yet.
const QUESTIONS_MAX: usize = 64;

/// Answers a stranger's question. What either means is nobody's business here.
pub type Answerer = Arc<dyn Fn(Bytes) -> Pin<Box<dyn Future<Output = Bytes> + Send>> + Send + Sync>;

/// The exchange outside of any network, on the sockets that peers meet at.
#[derive(Clone)]
pub struct Exchange {
    /// Knows the answers.
    pub answerer: Answerer,
    /// How it goes at https URLs.
    pub tls: Arc<ExchangeTls>,
}

/// A bound socket to accept peers on.
pub struct PeerListener {
    /// It.
    pub socket: std::net::TcpListener,
    /// Whether its URL is https: the exchange goes in TLS there, and in plain text elsewhere. Links are
    /// the same at both.
    pub secure: bool,
}

impl PeerListener {
    /// Another handle of the same socket.
    ///
    /// # Errors
    /// The system's.
    pub fn try_clone(&self) -> io::Result<Self> {
        Ok(Self { socket: self.socket.try_clone()?, secure: self.secure })
    }

    pub(super) fn into_tokio(self) -> io::Result<TcpListener> {
        self.socket.set_nonblocking(true)?;
        TcpListener::from_std(self.socket)
    }
}

/// Asks whoever listens at a peer URL one question, outside of any network.
///
/// # Errors
/// No connection, no TLS where the URL says so, no answer in time, or one that is none.
pub async fn ask(url: &str, question: &[u8], tls: &ExchangeTls) -> io::Result<Bytes> {
    let (scheme, address) = url.split_once("://").unwrap_or(("https", url));
    let exchange = async {
        let mut stream = TcpStream::connect(address).await?;
        stream.set_nodelay(true)?;
        if scheme == "http" {
            return put(&mut stream, question).await;
        }
        let host = address.rsplit_once(':').map_or(address, |(host, _)| host);
        let host = host.trim_start_matches('[').trim_end_matches(']').to_owned();
        let name = ServerName::try_from(host).map_err(io::Error::other)?;
        let connector = tls.connector().map_err(io::Error::other)?;
        put(&mut connector.connect(name, stream).await?, question).await
    };
    let late = |_| io::Error::new(io::ErrorKind::TimedOut, "no answer in time");
    tokio::time::timeout(ANSWER_WITHIN, exchange).await.map_err(late)?
}

async fn put(
    stream: &mut (impl AsyncRead + AsyncWrite + Unpin),
    question: &[u8],
) -> io::Result<Bytes> {
    write(stream, QUESTION, question).await?;
    read(stream, ANSWER, ANSWER_BYTES_MAX).await
}

/// Whether a connection begins with a question, of which nothing is consumed.
async fn is_question(stream: &TcpStream) -> bool {
    let mut first = [0];
    matches!(stream.peek(&mut first).await, Ok(1)) && first[0] == QUESTION[0]
}

/// What an accepted connection turned out to be.
pub(super) enum Opened {
    /// A question, and it is answered.
    Answered,
    /// The beginning of a link.
    Link(Box<StartHandshake<TcpStream>>),
}

impl Exchange {
    /// Answers a question; a link is handed back with its first message read.
    ///
    /// # Errors
    /// It is neither, or a question that comes in another way than the listener's URL says.
    pub(super) async fn open(&self, stream: TcpStream, secure: bool) -> Result<Opened, String> {
        let words = |error: io::Error| error.to_string();
        if is_question(&stream).await {
            if secure {
                return Err("it asks in plain text, but this peer URL is https".to_owned());
            }
            return self.answer(stream).await.map_err(words);
        }
        let address = stream.peer_addr().map_err(words)?.ip();
        let first = LazyConfigAcceptor::new(rustls::server::Acceptor::default(), stream);
        let start = first.await.map_err(words)?;
        if !ExchangeTls::is_offered(&start.client_hello()) {
            return Ok(Opened::Link(Box::new(start)));
        }
        let server = self.tls.server().filter(|_| secure);
        let server = server.ok_or("it asks in TLS, but this peer URL is http")?;
        let stream = start.into_stream(server).await.map_err(words)?;
        self.tls.check_address(stream.get_ref().1, address).await?;
        self.answer(stream).await.map_err(words)
    }

    /// Reads one question and writes its answer.
    async fn answer(&self, mut stream: impl AsyncRead + AsyncWrite + Unpin) -> io::Result<Opened> {
        let question = read(&mut stream, QUESTION, QUESTION_BYTES_MAX).await?;
        let answer = (self.answerer)(question).await;
        write(&mut stream, ANSWER, &answer).await?;
        // An answer that is cut off is none to whoever asked: it says so itself.
        let _ended = stream.shutdown().await;
        Ok(Opened::Answered)
    }
}

async fn write(
    stream: &mut (impl AsyncWrite + Unpin),
    magic: &[u8; 8],
    bytes: &[u8],
) -> io::Result<()> {
    let length = u32::try_from(bytes.len()).map_err(|_| invalid("it is too long"))?;
    let mut out = Vec::with_capacity(12 + bytes.len());
    out.extend_from_slice(magic);
    out.extend_from_slice(&length.to_le_bytes());
    out.extend_from_slice(bytes);
    stream.write_all(&out).await?;
    stream.flush().await
}

async fn read(
    stream: &mut (impl AsyncRead + Unpin),
    magic: &[u8; 8],
    bytes_max: usize,
) -> io::Result<Bytes> {
    let mut head = [0; 12];
    stream.read_exact(&mut head).await?;
    let (first, length) = head.split_at(8);
    if first != magic {
        return Err(invalid("it does not speak Althing's exchange of hellos"));
    }
    let length: [u8; 4] = length.try_into().expect("four of twelve bytes are left");
    let length = u32::from_le_bytes(length) as usize;
    if length > bytes_max {
        return Err(invalid("it announces more than any message has"));
    }
    // Grows with what comes, not with what is announced.
    let mut bytes = Vec::new();
    stream.take(length as u64).read_to_end(&mut bytes).await?;
    if bytes.len() < length {
        return Err(io::Error::new(io::ErrorKind::UnexpectedEof, "it closed the connection"));
    }
    Ok(bytes.into())
}

fn invalid(why: &'static str) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, why)
}

/// Answers strangers on the peer listeners while there is no network yet. Dropping it ends that; the
/// listeners stay open, and whoever was not answered yet waits in their queues.
pub struct Strangers {
    stop: CancellationToken,
}

impl Strangers {
    /// Starts on the runtime this is called in.
    ///
    /// # Errors
    /// A listener cannot be used.
    pub fn start(listeners: &[PeerListener], exchange: &Exchange) -> io::Result<Self> {
        let stop = CancellationToken::new();
        for listener in listeners {
            let (secure, listener) = (listener.secure, listener.try_clone()?.into_tokio()?);
            tokio::spawn(serve((listener, secure), exchange.clone(), stop.clone()));
        }
        Ok(Self { stop })
    }
}

impl Drop for Strangers {
    fn drop(&mut self) {
        self.stop.cancel();
    }
}

async fn serve(
    (listener, secure): (TcpListener, bool),
    exchange: Exchange,
    stop: CancellationToken,
) {
    let places = Arc::new(Semaphore::new(QUESTIONS_MAX));
    loop {
        let accepted = tokio::select! {
            accepted = listener.accept() => accepted,
            () = stop.cancelled() => return,
        };
        let Ok((stream, address)) = accepted else {
            tokio::time::sleep(Duration::from_millis(100)).await;
            continue;
        };
        let Ok(place) = Arc::clone(&places).try_acquire_owned() else { continue };
        let (exchange, stop) = (exchange.clone(), stop.clone());
        tokio::spawn(async move {
            tokio::select! {
                opened = tokio::time::timeout(HANDSHAKE_WITHIN, exchange.open(stream, secure)) => {
                    // A peer that is ahead and wants a link dials again, and so does noise.
                    if let Ok(Err(reason)) = opened {
                        tracing::warn!(event = "peer_refused", %address, %reason);
                        tokio::time::sleep(REFUSED_PAUSE).await;
                    }
                }
                () = stop.cancelled() => {}
            }
            drop(place);
        });
    }
}
