use super::*;
use axum::extract::Request;
use axum::routing::any;
use bytes::Bytes;
use std::io::{Read, Write};
use std::net::TcpStream;
use std::time::Instant;

use crate::tls::ClientIdentity;

type Sender = hyper::client::conn::http2::SendRequest<axum::body::Body>;

async fn who(request: Request) -> String {
    let identity = request.extensions().get::<ClientIdentity>().cloned();
    format!("{:?} {:?}", request.version(), identity.and_then(|identity| identity.common_name))
}

async fn slow() -> &'static str {
    tokio::time::sleep(Duration::from_millis(300)).await;
    "late"
}

fn start(limits: &Limits) -> (Server, SocketAddr) {
    let sockets = bind("127.0.0.1", 0).expect("a port");
    let address = sockets[0].local_addr().expect("bound");
    let router = Router::new().route("/who", any(who)).route("/slow", any(slow));
    let listeners = sockets
        .into_iter()
        .map(|socket| Listener {
            socket: Socket::Tcp(socket),
            tls: None,
            router: router.clone(),
            access: None,
        })
        .collect();
    (Server::start(listeners, limits, Vec::new()).expect("started"), address)
}

fn get(address: SocketAddr, path: &str) -> String {
    let mut stream = TcpStream::connect(address).expect("connected");
    let request = format!("GET {path} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n");
    stream.write_all(request.as_bytes()).expect("written");
    let mut answer = String::new();
    stream.read_to_string(&mut answer).expect("read");
    answer
}

async fn h2(address: SocketAddr) -> Sender {
    let stream = tokio::net::TcpStream::connect(address).await.expect("connected");
    let io = hyper_util::rt::TokioIo::new(stream);
    let executor = hyper_util::rt::TokioExecutor::new();
    let (sender, connection) =
        hyper::client::conn::http2::handshake(executor, io).await.expect("a handshake");
    tokio::spawn(connection);
    sender
}

async fn h2_get(sender: &mut Sender, path: &str) -> Result<Bytes, String> {
    let request = http::Request::get(format!("http://x{path}")).body(axum::body::Body::empty());
    let response = sender.send_request(request.expect("a request")).await;
    let body = response.map_err(|error| error.to_string())?.into_body();
    let whole = http_body_util::BodyExt::collect(body).await.map_err(|error| error.to_string())?;
    Ok(whole.to_bytes())
}

fn runtime() -> tokio::runtime::Runtime {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    runtime.expect("a runtime")
}

#[test]
fn both_versions_of_http_are_answered_on_one_port() {
    let (server, address) = start(&Limits { threads: 2, ..Limits::default() });
    for _ in 0..4 {
        let answer = get(address, "/who");
        assert!(
            answer.starts_with("HTTP/1.1 200") && answer.ends_with("HTTP/1.1 None"),
            "{answer}"
        );
    }
    runtime().block_on(async {
        let mut sender = h2(address).await;
        assert_eq!(h2_get(&mut sender, "/who").await.expect("answered"), "HTTP/2.0 None");
    });
    server.stop(Duration::from_secs(5));
}

#[test]
fn a_stop_lets_what_was_begun_finish_and_takes_nothing_new() {
    let (server, address) = start(&Limits { threads: 1, ..Limits::default() });
    let runtime = runtime();
    let mut sender = runtime.block_on(h2(address));
    let (began, answer) = runtime.block_on(async {
        let mut first = sender.clone();
        let call = tokio::spawn(async move { h2_get(&mut first, "/slow").await });
        tokio::time::sleep(Duration::from_millis(100)).await;
        let began = Instant::now();
        let stopping = tokio::task::spawn_blocking(move || server.stop(Duration::from_secs(5)));
        let answer = call.await.expect("no panic");
        stopping.await.expect("stopped");
        (began, answer)
    });
    assert_eq!(answer, Ok(Bytes::from_static(b"late")), "begun before the stop");
    assert!(began.elapsed() < Duration::from_secs(3), "no connection was waited for in vain");
    assert!(runtime.block_on(h2_get(&mut sender, "/who")).is_err(), "GOAWAY was heard");
    assert!(TcpStream::connect(address).is_err(), "nobody listens");
}

#[test]
fn silent_and_surplus_connections_do_not_last() {
    let (server, address) = start(&Limits {
        threads: 1,
        connections_from_loopback_max: 3,
        handshake_within: Duration::from_millis(200),
        ..Limits::default()
    });
    let mut silent: Vec<TcpStream> =
        (0..5).map(|_| TcpStream::connect(address).expect("connected")).collect();
    let began = Instant::now();
    for stream in &mut silent {
        stream.set_read_timeout(Some(Duration::from_secs(5))).expect("set");
        let mut rest = Vec::new();
        let _reset = stream.read_to_end(&mut rest);
        assert!(rest.is_empty());
    }
    assert!(began.elapsed() < Duration::from_secs(3));
    assert!(get(address, "/who").starts_with("HTTP/1.1 200"), "their places are free again");
    server.stop(Duration::from_secs(1));
}

#[test]
fn a_taken_port_is_said_with_what_to_do() {
    let first = bind("localhost", 0).expect("a port");
    let port = first[0].local_addr().expect("bound").port();
    let error = bind("127.0.0.1", port).expect_err("taken").to_string();
    assert!(
        error.contains(&format!("127.0.0.1:{port}")) && error.contains("another port"),
        "{error}"
    );
    let error = bind("192.0.2.1", 24_999).expect_err("no address here").to_string();
    assert!(error.contains("no address of this machine"), "{error}");
}
