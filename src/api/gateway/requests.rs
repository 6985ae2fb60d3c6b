//! The messages of a request's body: one, or for a stream one value of JSON after the other as they
//! arrive.

use std::pin::Pin;
use std::task::{Context, Poll};

use axum::body::{Body, BodyDataStream};
use prost_reflect::{DynamicMessage, MessageDescriptor};
use tokio_stream::{Stream, StreamExt};
use tonic::Status;

use super::json::from_json;

/// See the module.
pub(super) struct Requests {
    input: MessageDescriptor,
    body: BodyDataStream,
    bytes_max: usize,
    values: Values,
}

impl Requests {
    /// Keeps no more than `bytes_max` of a message.
    pub(super) fn new(input: MessageDescriptor, body: Body, bytes_max: usize) -> Self {
        Self { input, body: body.into_data_stream(), bytes_max, values: Values::default() }
    }

    /// The body as one message; of several only the first counts.
    ///
    /// # Errors
    /// It is too large, or no such message.
    pub(super) async fn only(mut self) -> Result<DynamicMessage, Status> {
        let mut text = Vec::new();
        while let Some(bytes) = self.body.next().await {
            text.extend_from_slice(&bytes.map_err(torn)?);
            self.check(text.len())?;
        }
        from_json(&self.input, &text)
    }

    fn check(&self, found: usize) -> Result<(), Status> {
        if found <= self.bytes_max {
            return Ok(());
        }
        let (most, words) = (self.bytes_max, "grpc: received message larger than max");
        Err(Status::resource_exhausted(format!("{words} ({found} vs. {most})")))
    }
}

fn torn(error: axum::Error) -> Status {
    Status::cancelled(error.to_string())
}

impl Stream for Requests {
    type Item = Result<DynamicMessage, Status>;

    fn poll_next(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        loop {
            if let Some(value) = self.values.take() {
                return Poll::Ready(Some(from_json(&self.input, &value)));
            }
            if let Err(too_large) = self.check(self.values.held()) {
                return Poll::Ready(Some(Err(too_large)));
            }
            match Pin::new(&mut self.body).poll_next(context) {
                Poll::Ready(Some(Ok(bytes))) => self.values.add(&bytes),
                Poll::Ready(Some(Err(error))) => return Poll::Ready(Some(Err(torn(error)))),
                Poll::Ready(None) => {
                    let rest = self.values.rest();
                    return Poll::Ready(rest.map(|value| from_json(&self.input, &value)));
                }
                Poll::Pending => return Poll::Pending,
            }
        }
    }
}

/// Finds where one JSON object ends and the next begins, looking at each byte once. What is no object is a
/// value up to the next one: it is refused when it is read.
#[derive(Default)]
struct Values {
    text: Vec<u8>,
    /// Bytes looked at.
    seen: usize,
    depth: usize,
    quoted: bool,
    escaped: bool,
}

impl Values {
    fn add(&mut self, bytes: &[u8]) {
        self.text.extend_from_slice(bytes);
    }

    fn held(&self) -> usize {
        self.text.len()
    }

    /// The next object that is complete.
    fn take(&mut self) -> Option<Vec<u8>> {
        while let Some(byte) = self.text.get(self.seen) {
            self.seen += 1;
            match byte {
                _ if self.escaped => self.escaped = false,
                b'\\' if self.quoted => self.escaped = true,
                b'"' => self.quoted = !self.quoted,
                b'{' if !self.quoted => self.depth += 1,
                b'}' if !self.quoted => {
                    self.depth = self.depth.saturating_sub(1);
                    if self.depth == 0 {
                        let behind = self.text.split_off(self.seen);
                        self.seen = 0;
                        return Some(std::mem::replace(&mut self.text, behind));
                    }
                }
                _ => {}
            }
        }
        None
    }

    /// What is left at the end of the body, unless it is blank.
    fn rest(&mut self) -> Option<Vec<u8>> {
        let rest = std::mem::take(&mut self.text);
        self.seen = 0;
        (!rest.trim_ascii().is_empty()).then_some(rest)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn objects_are_found_however_the_body_is_cut() {
        let body = br#" {"a":"}\"{"} {"b":{"c":[{}]}}  x"#;
        for cut in 1..=body.len() {
            let mut values = Values::default();
            let mut found = Vec::new();
            for piece in body.chunks(cut) {
                values.add(piece);
                found.extend(std::iter::from_fn(|| values.take()));
            }
            found.extend(values.rest());
            let found: Vec<_> = found.iter().map(|value| value.trim_ascii()).collect();
            assert_eq!(found, [&br#"{"a":"}\"{"}"#[..], br#"{"b":{"c":[{}]}}"#, b"x"]);
        }
    }
}
