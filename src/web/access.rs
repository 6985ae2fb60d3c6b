use axum::body::Body;
use axum::response::Response;
use http::{HeaderMap, HeaderValue, Method, Request, StatusCode, header};

use super::answer::failure;

/// What etcd asks of an HTTP request before it looks at its path (`server/embed/serve.go`,
/// accessController): the host it names, and whose pages may read the answer.
#[derive(Clone, Debug, Default)]
pub struct Access {
    /// Hosts that a request without TLS may name; empty for any.
    pub hosts: Vec<String>,
    /// Origins whose pages may read answers; empty for any.
    pub origins: Vec<String>,
}

/// What becomes of a request.
pub(super) enum Verdict {
    /// This, and nothing else.
    Refuse(Response),
    /// This, with these headers.
    Answer(Response, HeaderMap),
    /// What the path answers, with these headers.
    Pass(HeaderMap),
}

impl Access {
    pub(super) fn judge<B>(&self, request: &Request<B>, secure: bool) -> Verdict {
        let host = host(request);
        if !secure && !self.hosts.is_empty() && !self.hosts.iter().any(|known| known == host) {
            tracing::warn!(
                event = "host_refused",
                host,
                "a request names a host that is not listed"
            );
            return Verdict::Refuse(failure(StatusCode::MISDIRECTED_REQUEST, &unknown_host(host)));
        }
        let headers = self.cors(request.headers().get(header::ORIGIN));
        if request.method() == Method::OPTIONS {
            return Verdict::Answer(Response::new(Body::empty()), headers);
        }
        Verdict::Pass(headers)
    }

    fn cors(&self, origin: Option<&HeaderValue>) -> HeaderMap {
        let allowed = match origin {
            _ if self.origins.is_empty() => HeaderValue::from_static("*"),
            Some(origin)
                if self.origins.iter().any(|known| known.as_bytes() == origin.as_bytes()) =>
            {
                origin.clone()
            }
            _ => return HeaderMap::new(),
        };
        let methods = HeaderValue::from_static("POST, GET, OPTIONS, PUT, DELETE");
        let names = HeaderValue::from_static("accept, content-type, authorization");
        HeaderMap::from_iter([
            (header::ACCESS_CONTROL_ALLOW_METHODS, methods),
            (header::ACCESS_CONTROL_ALLOW_ORIGIN, allowed),
            (header::ACCESS_CONTROL_ALLOW_HEADERS, names),
        ])
    }
}

/// The host a request names, without its port.
fn host<B>(request: &Request<B>) -> &str {
    let header = request.headers().get(header::HOST).and_then(|value| value.to_str().ok());
    let named = request.uri().authority().map(http::uri::Authority::as_str).or(header);
    let named = named.unwrap_or_default();
    match named.strip_prefix('[') {
        Some(rest) => rest.split_once(']').map_or(named, |(host, _)| host),
        None => named.rsplit_once(':').map_or(named, |(host, _)| host),
    }
}

/// etcd's words.
fn unknown_host(host: &str) -> String {
    format!(
        "\netcd received your request, but the Host header was unrecognized.\n\n\
         To fix this, choose one of the following options:\n\
         - Enable TLS, then any HTTPS request will be allowed.\n\
         - Add the hostname you want to use to the whitelist in settings.\n  \
         - e.g. etcd --host-whitelist {host:?}\n\n\
         This requirement has been added to help prevent \"DNS Rebinding\" attacks \
         (CVE-2018-5702).\n"
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    fn request(host: &str, origin: Option<&'static str>) -> Request<()> {
        let mut request = Request::builder().uri("/health").header("host", host);
        if let Some(origin) = origin {
            request = request.header("origin", origin);
        }
        request.body(()).expect("a request")
    }

    #[test]
    fn only_listed_hosts_pass_without_tls_and_only_listed_origins_get_headers() {
        let open = Access::default();
        let Verdict::Pass(headers) = open.judge(&request("x:1", None), false) else {
            panic!("refused");
        };
        assert_eq!(headers[header::ACCESS_CONTROL_ALLOW_ORIGIN], "*");
        let strict = Access {
            hosts: vec!["db".to_owned(), "::1".to_owned()],
            origins: vec!["http://a".to_owned()],
        };
        for (host, secure, passes) in [
            ("db:2379", false, true),
            ("[::1]:2379", false, true),
            ("x", false, false),
            ("x", true, true),
        ] {
            let verdict = strict.judge(&request(host, None), secure);
            assert_eq!(matches!(verdict, Verdict::Pass(_)), passes, "{host} {secure}");
        }
        let Verdict::Pass(headers) = strict.judge(&request("db", Some("http://a")), false) else {
            panic!("refused");
        };
        assert_eq!(headers[header::ACCESS_CONTROL_ALLOW_ORIGIN], "http://a");
        let Verdict::Pass(headers) = strict.judge(&request("db", Some("http://b")), false) else {
            panic!("refused");
        };
        assert!(headers.is_empty());
    }
}
