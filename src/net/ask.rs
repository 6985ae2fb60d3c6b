use core::future::Future;
use core::pin::Pin;
use core::time::Duration;
use std::io;
use std::sync::Arc;

use bytes::Bytes;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Semaphore;
use tokio_util::sync::CancellationToken;

use super::HANDSHAKE_WITHIN;

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

/// Asks whoever listens at `address`, host:port, one question, outside of any network.
///
/// # Errors
/// No connection, no answer in time, or one that is none.
pub async fn ask(address: &str, question: &[u8]) -> io::Result<Bytes> {
    let exchange = async {
        let mut stream = TcpStream::connect(address).await?;
        stream.set_nodelay(true)?;
        write(&mut stream, QUESTION, question).await?;
        read(&mut stream, ANSWER, ANSWER_BYTES_MAX).await
    };
    let late = |_| io::Error::new(io::ErrorKind::TimedOut, "no answer in time");
    tokio::time::timeout(ANSWER_WITHIN, exchange).await.map_err(late)?
}

/// Whether a connection begins with a question, of which nothing is consumed.
pub(super) async fn is_question(stream: &TcpStream) -> bool {
    let mut first = [0];
    matches!(stream.peek(&mut first).await, Ok(1)) && first[0] == QUESTION[0]
}

/// Reads one question and writes its answer.
pub(super) async fn answer(mut stream: TcpStream, answerer: &Answerer) -> io::Result<()> {
    let question = read(&mut stream, QUESTION, QUESTION_BYTES_MAX).await?;
    let answer = answerer(question).await;
    write(&mut stream, ANSWER, &answer).await
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
    pub fn start(listeners: &[std::net::TcpListener], answerer: &Answerer) -> io::Result<Self> {
        let stop = CancellationToken::new();
        for listener in listeners {
            let listener = listener.try_clone()?;
            listener.set_nonblocking(true)?;
            let listener = TcpListener::from_std(listener)?;
            tokio::spawn(serve(listener, Arc::clone(answerer), stop.clone()));
        }
        Ok(Self { stop })
    }
}

impl Drop for Strangers {
    fn drop(&mut self) {
        self.stop.cancel();
    }
}

async fn serve(listener: TcpListener, answerer: Answerer, stop: CancellationToken) {
    let places = Arc::new(Semaphore::new(QUESTIONS_MAX));
    loop {
        let accepted = tokio::select! {
            accepted = listener.accept() => accepted,
            () = stop.cancelled() => return,
        };
        let Ok((stream, _)) = accepted else {
            tokio::time::sleep(Duration::from_millis(100)).await;
            continue;
        };
        let Ok(place) = Arc::clone(&places).try_acquire_owned() else { continue };
        let (answerer, stop) = (Arc::clone(&answerer), stop.clone());
        tokio::spawn(async move {
            let answered = async {
                if is_question(&stream).await {
                    answer(stream, &answerer).await?;
                }
                io::Result::Ok(())
            };
            tokio::select! {
                // A peer that is ahead, or noise: it dials again.
                _ = tokio::time::timeout(HANDSHAKE_WITHIN, answered) => {}
                () = stop.cancelled() => {}
            }
            drop(place);
        });
    }
}
