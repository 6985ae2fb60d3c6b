use axum::body::Body;
use axum::response::Response;
use http::{HeaderName, HeaderValue, StatusCode, header};

pub(super) const TEXT: &str = "text/plain; charset=utf-8";
pub(super) const JSON: &str = "application/json";
pub(super) const BYTES: &str = "application/octet-stream";
/// Prometheus' text format.
pub(super) const METRICS: &str = "text/plain; version=0.0.4; charset=utf-8";

const NOSNIFF: (HeaderName, HeaderValue) =
    (header::X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));

fn response(status: StatusCode, content_type: &'static str, body: Body) -> Response {
    let mut response = Response::new(body);
    *response.status_mut() = status;
    response.headers_mut().insert(header::CONTENT_TYPE, HeaderValue::from_static(content_type));
    response.headers_mut().extend([NOSNIFF]);
    response
}

pub(super) fn found(content_type: &'static str, body: Body) -> Response {
    response(StatusCode::OK, content_type, body)
}

/// As Go's `http.Error`: the text and a line feed.
pub(super) fn failure(status: StatusCode, text: &str) -> Response {
    response(status, TEXT, Body::from(format!("{text}\n")))
}

pub(super) fn not_found() -> Response {
    failure(StatusCode::NOT_FOUND, "404 page not found")
}

pub(super) fn method_not_allowed() -> Response {
    allow("GET")
}

/// Refuses all methods but one.
pub(super) fn allow(method: &'static str) -> Response {
    let mut response = failure(StatusCode::METHOD_NOT_ALLOWED, "Method Not Allowed");
    response.headers_mut().insert(header::ALLOW, HeaderValue::from_static(method));
    response
}

/// The parameters of a query, in order, decoded; a name without `=` has an empty value.
pub(super) fn parameters(query: Option<&str>) -> Vec<(String, String)> {
    let pairs = query.unwrap_or_default().split('&').filter(|pair| !pair.is_empty());
    pairs
        .map(|pair| {
            let (name, value) = pair.split_once('=').unwrap_or((pair, ""));
            (text(name), text(value))
        })
        .collect()
}

fn text(encoded: &str) -> String {
    String::from_utf8_lossy(&decoded(encoded)).into_owned()
}

/// Bytes behind a query's `%xx` and `+`; what is no escape stands for itself.
pub(super) fn decoded(encoded: &str) -> Vec<u8> {
    let digit = |byte: u8| char::from(byte).to_digit(16).and_then(|d| u8::try_from(d).ok());
    let mut bytes = Vec::with_capacity(encoded.len());
    let mut rest = encoded.as_bytes();
    while let Some((first, others)) = rest.split_first() {
        let escaped = match (first, others) {
            (b'%', [high, low, ..]) => digit(*high).zip(digit(*low)),
            _ => None,
        };
        match escaped {
            Some((high, low)) => {
                bytes.push(high << 4 | low);
                rest = &others[2..];
            }
            None => {
                bytes.push(if *first == b'+' { b' ' } else { *first });
                rest = others;
            }
        }
    }
    bytes
}

/// The first value of a parameter.
pub(super) fn parameter<'a>(query: &'a [(String, String)], name: &str) -> Option<&'a str> {
    query.iter().find(|(key, _)| key == name).map(|(_, value)| value.as_str())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn queries_are_decoded() {
        let query = parameters(Some("verbose&exclude=NO%53PACE&exclude=a+b%2&key=%00x&"));
        let pair = |name: &str, value: &str| (name.to_owned(), value.to_owned());
        assert_eq!(
            query,
            [
                pair("verbose", ""),
                pair("exclude", "NOSPACE"),
                pair("exclude", "a b%2"),
                pair("key", "\0x")
            ]
        );
        assert_eq!(parameter(&query, "exclude"), Some("NOSPACE"));
        assert_eq!(decoded("%ff%2f+"), [0xff, b'/', b' ']);
        assert!(parameters(None).is_empty());
    }
}
