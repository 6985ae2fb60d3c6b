use core::time::Duration;
use std::io;
use std::net::{SocketAddr, TcpStream};
use std::os::unix::net::UnixStream;
use std::sync::Arc;

use axum::Router;
use axum::body::Body;
use http::Request;
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use hyper_util::server::conn::auto::Builder;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::sync::Semaphore;
use tokio::time::timeout;
use tokio_util::either::Either;
use tokio_util::sync::CancellationToken;
use tower::Service as _;

use super::access::{Access, Verdict};
use super::counting::{self, Methods};
use super::limits::{Census, Limits, Place, Refused};
use crate::tls::{ClientIdentity, ListenerTls};

const KIB: u32 = 1 << 10;
/// Credits a client may use before it waits for more: large enough that a bulk load is not slowed
/// by round trips (performance.md 4.14).
const STREAM_WINDOW_BYTES: u32 = 2 * KIB * KIB;
const CONNECTION_WINDOW_BYTES: u32 = 16 * KIB * KIB;
/// Cancelled calls that the application has not seen yet; h2's own 20 is less than a client of many
/// watches cancels at once, none at all invites rapid resets.
const PENDING_RESETS_MAX: usize = 1_024;
const LOCAL_RESETS_MAX: usize = 1_024;
/// An HTTP/1.1 client sends its request's head, or its next one, within this.
const HEAD_WITHIN: Duration = Duration::from_secs(60);

/// What answers on a listener.
#[derive(Clone)]
pub(super) struct Service {
    pub router: Router,
    pub tls: Option<Arc<ListenerTls>>,
    pub access: Option<Arc<Access>>,
    pub handshakes: Arc<Semaphore>,
    pub methods: Arc<Methods>,
}

/// A connection as it was accepted.
pub(super) enum Stream {
    Tcp(TcpStream),
    Unix(UnixStream),
}

/// The same, in the runtime that serves it.
type Live = Either<tokio::net::TcpStream, tokio::net::UnixStream>;

impl Stream {
    fn live(self) -> io::Result<Live> {
        Ok(match self {
            Self::Tcp(stream) => {
                stream.set_nodelay(true)?;
                Either::Left(tokio::net::TcpStream::from_std(stream)?)
            }
            Self::Unix(stream) => Either::Right(tokio::net::UnixStream::from_std(stream)?),
        })
    }
}

/// A connection on its way to the thread that will serve it.
pub(super) struct Accepted {
    pub stream: Stream,
    pub address: SocketAddr,
    pub place: Place,
    pub service: Service,
    pub census: Arc<Census>,
}

/// Serves one connection to its end. What goes wrong on it concerns nobody else.
pub(super) async fn serve_connection(
    accepted: Accepted,
    limits: &Limits,
    stop: &CancellationToken,
) {
    let Accepted { stream, address, place, service, census } = accepted;
    let result = tokio::select! {
        result = begin(stream, address, &service, (limits, &census)) => result,
        () = stop.cancelled() => return,
    };
    let outcome = match result {
        Ok(Begun::Plain(stream)) => {
            let identity = ClientIdentity::anonymous(address);
            serve_http(stream, Spoken::Either, (identity, service), (limits, stop)).await
        }
        Ok(Begun::Tls(stream)) => {
            let connection = stream.get_ref().1;
            let spoken = Spoken::of(connection.alpn_protocol());
            let identity = ClientIdentity::of(connection, address);
            serve_http(stream, spoken, (identity, service), (limits, stop)).await
        }
        Err(error) => Err(error.to_string()),
    };
    if let Err(reason) = outcome {
        tracing::debug!(event = "client_connection_ended", %address, %reason);
    }
    drop(place);
}

enum Begun {
    Plain(Live),
    Tls(Box<tokio_rustls::server::TlsStream<Live>>),
}

/// Up to the first byte of HTTP: a client that opens connections and says nothing holds none.
async fn begin(
    stream: Stream,
    address: SocketAddr,
    service: &Service,
    (limits, census): (&Limits, &Census),
) -> io::Result<Begun> {
    let stream = stream.live()?;
    let late = |_| io::Error::new(io::ErrorKind::TimedOut, "nothing came in time");
    let Some(tls) = &service.tls else {
        let readable = async {
            match &stream {
                Either::Left(stream) => stream.readable().await,
                Either::Right(stream) => stream.readable().await,
            }
        };
        timeout(limits.handshake_within, readable).await.map_err(late)??;
        return Ok(Begun::Plain(stream));
    };
    let Ok(_turn) = service.handshakes.try_acquire() else {
        census.refuse(Refused::Handshakes);
        return Err(io::Error::other("too many handshakes are under way"));
    };
    let accepted = timeout(limits.handshake_within, tls.acceptor().accept(stream)).await;
    let accepted = accepted.map_err(late).and_then(|accepted| accepted);
    if let Err(error) = &accepted {
        census.refuse(Refused::Tls);
        tracing::info!(event = "client_tls_failed", %address, reason = %error);
    }
    accepted.map(|stream| Begun::Tls(Box::new(stream)))
}

/// What the client and this side agreed on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Spoken {
    Http1,
    Http2,
    /// Nothing was agreed; the first bytes tell.
    Either,
}

impl Spoken {
    fn of(protocol: Option<&[u8]>) -> Self {
        match protocol {
            Some(b"h2") => Self::Http2,
            Some(b"http/1.1") => Self::Http1,
            _ => Self::Either,
        }
    }
}

async fn serve_http(
    stream: impl AsyncRead + AsyncWrite + Unpin + Send + 'static,
    spoken: Spoken,
    (identity, service): (ClientIdentity, Service),
    (limits, stop): (&Limits, &CancellationToken),
) -> Result<(), String> {
    let answer = service_fn(move |mut request: Request<Incoming>| {
        request.extensions_mut().insert(identity.clone());
        let call = counting::Call::begin(&service.methods, &request);
        let access = service.access.clone().filter(|_| !call.is_grpc());
        let secure = service.tls.is_some();
        let verdict = access.map(|access| access.judge(&request, secure));
        let mut router = service.router.clone();
        async move {
            let (refusal, headers) = match verdict {
                None => (None, None),
                Some(Verdict::Refuse(response)) => (Some(response), None),
                Some(Verdict::Answer(response, headers)) => (Some(response), Some(headers)),
                Some(Verdict::Pass(headers)) => (None, Some(headers)),
            };
            let response = match refusal {
                Some(response) => response,
                None => router.call(request.map(|body| Body::new(call.request_body(body)))).await?,
            };
            let mut response = call.response(response);
            response.headers_mut().extend(headers.unwrap_or_default());
            Ok::<_, core::convert::Infallible>(response)
        }
    });
    let builder = builder(spoken, limits);
    let connection = builder.serve_connection(TokioIo::new(stream), answer);
    let mut connection = core::pin::pin!(connection);
    let result = tokio::select! {
        result = connection.as_mut() => result,
        () = stop.cancelled() => {
            connection.as_mut().graceful_shutdown();
            connection.await
        }
    };
    result.map_err(|error| error.to_string())
}

fn builder(spoken: Spoken, limits: &Limits) -> Builder<TokioExecutor> {
    let builder = Builder::new(TokioExecutor::new());
    let mut builder = match spoken {
        Spoken::Http1 => builder.http1_only(),
        Spoken::Http2 => builder.http2_only(),
        Spoken::Either => builder,
    };
    builder
        .http1()
        .timer(TokioTimer::new())
        .header_read_timeout(HEAD_WITHIN)
        .max_headers(100)
        .max_buf_size(64 << 10);
    builder
        .http2()
        .timer(TokioTimer::new())
        .max_concurrent_streams(limits.streams_max)
        .initial_stream_window_size(STREAM_WINDOW_BYTES)
        .initial_connection_window_size(CONNECTION_WINDOW_BYTES)
        .max_frame_size(16 * KIB)
        .max_header_list_size(16 * KIB)
        .max_pending_accept_reset_streams(PENDING_RESETS_MAX)
        .max_local_error_reset_streams(LOCAL_RESETS_MAX)
        .keep_alive_interval(limits.keepalive_interval)
        .keep_alive_timeout(limits.keepalive_timeout);
    builder
}
