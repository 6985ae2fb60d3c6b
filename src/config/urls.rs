use core::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

/// Where a listener listens: one URL of `--listen-*-urls`.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct ListenUrl {
    /// https or unixs.
    pub tls: bool,
    /// An address, `localhost`, or for unix sockets the path.
    pub host: String,
    /// None for unix sockets.
    pub port: Option<u16>,
}

/// What is wrong with a URL.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub enum UrlError {
    /// No scheme etcd knows.
    #[error("{0:?} does not begin with http://, https://, unix:// or unixs://")]
    Scheme(String),
    /// A unix socket without its path.
    #[error("{0:?} names no path of a unix socket")]
    NoPath(String),
    /// No host and port.
    #[error("{0:?} is not of the form SCHEME://HOST:PORT")]
    HostPort(String),
    /// A port alone, which no address can be made of.
    #[error("unexpected empty host ({0})")]
    NoHost(String),
    /// No port of TCP.
    #[error("{0:?} has a port above 65535")]
    Port(String),
    /// Something after the port.
    #[error("{0:?} has a path; a listener has none")]
    Path(String),
    /// A name where only an address can be bound.
    #[error("expected IP in URL for binding ({0}); use an address of this machine, or 0.0.0.0")]
    NotAnAddress(String),
}

impl ListenUrl {
    /// Reads one URL: host and port only.
    ///
    /// # Errors
    /// [`UrlError`].
    pub fn parse(text: &str) -> Result<Self, UrlError> {
        let text = text.trim();
        for (scheme, tls) in [("unix:", false), ("unixs:", true)] {
            if let Some(path) = text.strip_prefix(scheme) {
                let host = path.strip_prefix("//").unwrap_or(path).to_owned();
                if host.is_empty() {
                    return Err(UrlError::NoPath(text.to_owned()));
                }
                return Ok(Self { tls, host, port: None });
            }
        }
        let (scheme, rest) =
            text.split_once("://").ok_or_else(|| UrlError::Scheme(text.to_owned()))?;
        let tls = match scheme {
            "http" => false,
            "https" => true,
            _ => return Err(UrlError::Scheme(text.to_owned())),
        };
        if rest.contains(['/', '?', '#', '@']) {
            return Err(UrlError::Path(text.to_owned()));
        }
        let (host, port) = split_host_port(rest).ok_or_else(|| match rest.rsplit_once(':') {
            Some((host, port)) if is_port(port) && host.is_empty() => {
                UrlError::NoHost(text.to_owned())
            }
            Some((_, port)) if is_port(port) => UrlError::Port(text.to_owned()),
            _ => UrlError::HostPort(text.to_owned()),
        })?;
        Ok(Self { tls, host: host.to_owned(), port: Some(port) })
    }

    /// A comma-separated list; an empty text is an empty list.
    ///
    /// # Errors
    /// The first [`UrlError`].
    pub fn parse_list(text: &str) -> Result<Vec<Self>, UrlError> {
        let parts = text.split(',').map(str::trim).filter(|part| !part.is_empty());
        let mut urls = parts.map(Self::parse).collect::<Result<Vec<_>, _>>()?;
        urls.sort();
        urls.dedup();
        Ok(urls)
    }

    /// etcd's rule for listeners: an address or `localhost`, no other name.
    ///
    /// # Errors
    /// [`UrlError::NotAnAddress`].
    pub fn check_bindable(&self) -> Result<(), UrlError> {
        let bindable = self.port.is_none() || self.host == "localhost" || self.ip().is_some();
        if bindable { Ok(()) } else { Err(UrlError::NotAnAddress(self.to_string())) }
    }

    /// The host as an address.
    #[must_use]
    pub fn ip(&self) -> Option<IpAddr> {
        self.host.parse().ok()
    }

    /// What to bind: address and port, the port's default written out; None for unix sockets.
    #[must_use]
    pub fn socket_addresses(&self) -> Option<Vec<std::net::SocketAddr>> {
        let port = self.port?;
        let ips = match self.host.as_str() {
            "localhost" => vec![IpAddr::V4(Ipv4Addr::LOCALHOST)],
            _ => vec![self.ip()?],
        };
        Some(ips.into_iter().map(|ip| (ip, port).into()).collect())
    }

    /// The same port on every interface, or unchanged if the host is this machine alone.
    #[must_use]
    pub fn widened(&self) -> Self {
        let host = match self.ip() {
            _ if self.port.is_none() => self.host.clone(),
            Some(ip) if ip.is_loopback() => self.host.clone(),
            Some(IpAddr::V6(_)) => Ipv6Addr::UNSPECIFIED.to_string(),
            _ if self.host == "localhost" => self.host.clone(),
            _ => Ipv4Addr::UNSPECIFIED.to_string(),
        };
        Self { tls: self.tls, host, port: self.port }
    }
}

impl fmt::Display for ListenUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let secure = if self.tls { "s" } else { "" };
        match self.port {
            None => write!(f, "unix{secure}://{}", self.host),
            Some(port) if self.host.contains(':') => {
                write!(f, "http{secure}://[{}]:{port}", self.host)
            }
            Some(port) => write!(f, "http{secure}://{}:{port}", self.host),
        }
    }
}

/// What etcd takes for a port while it reads flags, whether or not one can be bound.
fn is_port(text: &str) -> bool {
    !text.is_empty() && text.chars().all(|c| c.is_ascii_digit())
}

/// `host:port` or `[v6]:port`; the host is not empty.
pub(super) fn split_host_port(text: &str) -> Option<(&str, u16)> {
    let (host, port) = match text.strip_prefix('[') {
        Some(rest) => {
            let (host, port) = rest.split_once("]:")?;
            host.parse::<Ipv6Addr>().ok()?;
            (host, port)
        }
        None => text.rsplit_once(':').filter(|(host, _)| !host.contains(':'))?,
    };
    let plain = host.chars().all(|c| c.is_ascii_alphanumeric() || "-._:".contains(c));
    if host.is_empty() || !plain || !port.chars().all(|c| c.is_ascii_digit()) {
        return None;
    }
    Some((host, port.parse().ok()?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn urls_are_read_as_etcd_reads_them() {
        for good in ["http://127.0.0.1:2379", "https://[::1]:2379", "http://localhost:1"] {
            let url = ListenUrl::parse(good).expect(good);
            assert_eq!(url.to_string(), good);
            assert_eq!(url.check_bindable(), Ok(()));
        }
        let unix = ListenUrl::parse("unix://localhost:m0").expect("a unix socket");
        assert_eq!((unix.host.as_str(), unix.port), ("localhost:m0", None));
        assert_eq!(unix.widened(), unix);
        let unix = ListenUrl::parse("unixs:/run/etcd.sock").expect("a unix socket");
        assert_eq!((unix.host.as_str(), unix.tls), ("/run/etcd.sock", true));
        for bad in [
            "127.0.0.1:2379",
            "ftp://a:1",
            "http://a",
            "http://a:b",
            "http://a:1/path",
            "http://a:1/",
            "unix://",
            "http://:2379",
            "http://::1:2379",
            "http://a:70000",
            "http://u@a:1",
            "",
            "http://a b:1",
        ] {
            assert!(ListenUrl::parse(bad).is_err(), "{bad}");
        }
        let name = ListenUrl::parse("http://example:2379").expect("fine to advertise");
        assert!(matches!(name.check_bindable(), Err(UrlError::NotAnAddress(_))));
        assert_eq!(name.widened().to_string(), "http://0.0.0.0:2379");
        let list = ListenUrl::parse_list("http://b:1,http://a:1, http://a:1").expect("a list");
        assert_eq!(list.len(), 2);
    }
}
