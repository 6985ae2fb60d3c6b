//! HTTP/2 frame by frame: what no client library would send.

use std::io::{ErrorKind, Read, Write};
use std::net::TcpStream;
use std::time::Duration;

use crate::MINUTE;

pub const DATA: u8 = 0;
pub const HEADERS: u8 = 1;
pub const RST_STREAM: u8 = 3;
pub const SETTINGS: u8 = 4;
pub const PING: u8 = 6;
pub const GOAWAY: u8 = 7;
pub const CONTINUATION: u8 = 9;
pub const END_STREAM: u8 = 1;
pub const END_HEADERS: u8 = 4;
pub const INITIAL_WINDOW_SIZE: u16 = 4;

const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";

/// A frame.
pub fn frame(kind: u8, flags: u8, stream: u32, payload: &[u8]) -> Vec<u8> {
    let length = u32::try_from(payload.len()).expect("a frame").to_be_bytes();
    let mut bytes = length[1..].to_vec();
    bytes.extend([kind, flags]);
    bytes.extend(stream.to_be_bytes());
    bytes.extend(payload);
    bytes
}

/// A header that no table keeps.
pub fn literal(name: &str, value: &str) -> Vec<u8> {
    let mut bytes = vec![0];
    for text in [name, value] {
        bytes.push(u8::try_from(text.len()).ok().filter(|n| *n < 127).expect("a short text"));
        bytes.extend(text.as_bytes());
    }
    bytes
}

/// The head of a gRPC call to `path`.
pub fn call(path: &str) -> Vec<u8> {
    // `:method: POST` and `:scheme: http` of the static table, then `:path` by its name there.
    let mut bytes = vec![0x83, 0x86, 0x04, u8::try_from(path.len()).expect("a short path")];
    bytes.extend(path.as_bytes());
    bytes.extend([0x01, 1, b'x']);
    bytes.extend(literal("content-type", "application/grpc"));
    bytes.extend(literal("te", "trailers"));
    bytes
}

/// A connection that has said hello and was let in.
pub struct Raw(TcpStream);

/// What a server said in the end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// GOAWAY with this code, or the end without one.
    Closed(Option<u32>),
    /// It goes on.
    Open,
}

impl Raw {
    pub fn open(address: &str, settings: &[(u16, u32)]) -> Raw {
        let mut stream = TcpStream::connect(address).expect("the port is open");
        stream.set_write_timeout(Some(Duration::from_secs(5))).expect("a socket");
        let mut payload = Vec::new();
        for (name, value) in settings {
            payload.extend(name.to_be_bytes());
            payload.extend(value.to_be_bytes());
        }
        stream.write_all(PREFACE).expect("a hello");
        stream.write_all(&frame(SETTINGS, 0, 0, &payload)).expect("a hello");
        let mut raw = Raw(stream);
        // Who is turned away at the door would stand any flood: the server's hello says that it took this one.
        raw.0.set_read_timeout(Some(MINUTE)).expect("a socket");
        let (kind, _) = raw.receive().expect("the server's hello");
        assert_eq!(kind, SETTINGS, "the server says hello first");
        raw
    }

    /// The kind and payload of the next frame.
    fn receive(&mut self) -> std::io::Result<(u8, Vec<u8>)> {
        let mut head = [0; 9];
        self.0.read_exact(&mut head)?;
        let length = u32::from_be_bytes([0, head[0], head[1], head[2]]);
        let mut payload = vec![0; length as usize];
        self.0.read_exact(&mut payload)?;
        Ok((head[3], payload))
    }

    /// Writes; false once the server hangs up, or takes nothing for a while.
    pub fn send(&mut self, bytes: &[u8]) -> bool {
        self.0.write_all(bytes).is_ok()
    }

    /// Reads what is there, for up to `patience`.
    pub fn verdict(&mut self, patience: Duration) -> Verdict {
        self.0.set_read_timeout(Some(patience)).expect("a socket");
        let mut code = None;
        loop {
            match self.receive() {
                Ok((GOAWAY, payload)) => {
                    let said = payload.get(4..8).and_then(|said| said.try_into().ok());
                    code = said.map(u32::from_be_bytes).or(code);
                }
                Ok(_) => {}
                Err(error)
                    if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut) =>
                {
                    return if code.is_some() { Verdict::Closed(code) } else { Verdict::Open };
                }
                Err(_) => return Verdict::Closed(code),
            }
        }
    }
}
