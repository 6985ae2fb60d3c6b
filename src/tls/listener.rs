use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;

use arc_swap::ArcSwap;
use rustls::crypto::CryptoProvider;
use rustls::server::WebPkiClientVerifier;
use rustls::server::danger::ClientCertVerifier;
use rustls::version::{TLS12, TLS13};
use rustls::{ClientConfig, ProtocolVersion, ServerConfig, SupportedProtocolVersion};
use x509_parser::prelude::{FromDer, X509Certificate};

use super::clients::{Allowed, ClientVerifier};
use super::facts::{CertificateFacts, Role, facts};
use super::files::{
    Content, TlsFileError, certificates, private_key, read, revocation_facts, revocations, roots,
};
use super::provider;
use crate::observe::{self, table::Metric};

/// Whether clients show a certificate.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum ClientAuthentication {
    /// They are not asked for one.
    #[default]
    None,
    /// They may; a bad one ends the handshake.
    Optional,
    /// They must.
    Required,
}

/// The files behind a client listener, as etcd's flags name them.
#[derive(Clone, Debug, Default)]
pub struct ListenerFiles {
    /// `--cert-file`: the leaf, then what it needs to reach an authority.
    pub certificate: PathBuf,
    /// `--key-file`.
    pub key: PathBuf,
    /// `--trusted-ca-file`: who may sign client certificates.
    pub trusted_ca: Option<PathBuf>,
    /// `--client-crl-file`.
    pub revocations: Option<PathBuf>,
    /// `--client-cert-auth`; etcd requires certificates as soon as an authority is named.
    pub client_authentication: ClientAuthentication,
    /// `--client-cert-allowed-hostname`; empty for any.
    pub allowed_hostnames: Vec<String>,
    /// `--client-cert-allowed-cn`; empty for any.
    pub allowed_common_names: Vec<String>,
    /// `--cipher-suites`, which concern TLS 1.2 alone; empty for the usual ones.
    pub cipher_suites: Vec<String>,
    /// `--tls-min-version`, `--tls-max-version`.
    pub versions: Versions,
    /// Tells when the certificate expires.
    pub expiry: Option<&'static Metric>,
}

/// Which versions of TLS are offered.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Versions {
    /// 1.2 and 1.3.
    #[default]
    Both,
    /// 1.2 alone.
    Tls12,
    /// 1.3 alone.
    Tls13,
}

impl Versions {
    pub(super) fn offered(self) -> &'static [&'static SupportedProtocolVersion] {
        static ALL: [&SupportedProtocolVersion; 2] = [&TLS12, &TLS13];
        match self {
            Self::Both => &ALL,
            Self::Tls12 => &ALL[..1],
            Self::Tls13 => &ALL[1..],
        }
    }
}

impl ListenerFiles {
    fn read(&self) -> Result<Contents, TlsFileError> {
        let optional = |path: &Option<PathBuf>| path.as_deref().map(read).transpose();
        Ok(Contents {
            certificate: read(&self.certificate)?,
            key: read(&self.key)?,
            trusted_ca: optional(&self.trusted_ca)?,
            revocations: optional(&self.revocations)?,
        })
    }
}

/// What the files held, all read at one time. Compared whole: times tell too little, since Kubernetes
/// swaps a symbolic link above mounted secrets and two writes may share a time stamp.
#[derive(PartialEq, Eq)]
struct Contents {
    certificate: Content,
    key: Content,
    trusted_ca: Option<Content>,
    revocations: Option<Content>,
}

/// Who a client is, as the transport knows it. In the extensions of every request.
#[derive(Clone, Debug)]
pub struct ClientIdentity {
    /// The verified client certificate's common name; none without a certificate.
    pub common_name: Option<Arc<str>>,
    /// Where the connection comes from.
    pub address: SocketAddr,
}

impl ClientIdentity {
    /// A client without a certificate.
    #[must_use]
    pub fn anonymous(address: SocketAddr) -> Self {
        Self { common_name: None, address }
    }

    /// Of a finished handshake, whose certificate rustls has verified if there is one.
    #[must_use]
    pub fn of(connection: &rustls::ServerConnection, address: SocketAddr) -> Self {
        let leaf = connection.peer_certificates().and_then(<[_]>::first);
        Self { common_name: leaf.and_then(|leaf| common_name(leaf)), address }
    }
}

/// The last common name, as Go's `Subject.CommonName` has it: etcd's users are called so.
pub(super) fn common_name(certificate: &[u8]) -> Option<Arc<str>> {
    let (_, parsed) = X509Certificate::from_der(certificate).ok()?;
    let name = parsed.subject().iter_common_name().last()?.as_str().ok()?;
    (!name.is_empty()).then(|| Arc::from(name))
}

/// TLS of the client listeners: 1.2 or newer, ALPN h2 and http/1.1 on one port, read anew when a
/// file changes. A change that cannot be used leaves the old state in force.
pub struct ListenerTls {
    files: ListenerFiles,
    current: ArcSwap<InForce>,
    seen: ArcSwap<Seen>,
}

struct InForce {
    config: Arc<ServerConfig>,
    facts: Vec<CertificateFacts>,
}

/// What was last found in the files, usable or not, so that each change is judged and told once.
#[derive(PartialEq, Eq)]
enum Seen {
    Read(Contents),
    Unreadable(String),
}

impl ListenerTls {
    /// Reads the files.
    ///
    /// # Errors
    /// One of them is absent, damaged, or does not fit the others.
    pub fn load(files: ListenerFiles) -> Result<Self, TlsFileError> {
        let contents = files.read()?;
        let current = ArcSwap::from_pointee(in_force(&files, &contents)?);
        Ok(Self { files, current, seen: ArcSwap::from_pointee(Seen::Read(contents)) })
    }

    /// For the next connection.
    #[must_use]
    pub fn acceptor(&self) -> tokio_rustls::TlsAcceptor {
        self.config().into()
    }

    pub(super) fn config(&self) -> Arc<ServerConfig> {
        Arc::clone(&self.current.load().config)
    }

    /// What is in force: the certificate shown first, then whom others' must come from, then the lists of
    /// revoked ones.
    #[must_use]
    pub fn facts(&self) -> Vec<CertificateFacts> {
        self.current.load().facts.clone()
    }

    /// Reads the files again and takes them if they changed and can be used. Called now and then by
    /// whoever accepts.
    pub fn reload_if_changed(&self) {
        let (seen, made) = match self.files.read() {
            Ok(contents) => {
                if matches!(&**self.seen.load(), Seen::Read(last) if *last == contents) {
                    return;
                }
                let made = in_force(&self.files, &contents);
                (Seen::Read(contents), made)
            }
            Err(error) => (Seen::Unreadable(error.to_string()), Err(error)),
        };
        if **self.seen.load() == seen {
            return;
        }
        match made {
            Ok(made) => {
                self.current.store(Arc::new(made));
                tracing::info!(event = "tls_reloaded", certificate = ?self.files.certificate);
            }
            Err(error) => tracing::error!(
                event = "tls_reload_failed",
                %error,
                "the previous certificates stay in use"
            ),
        }
        self.seen.store(Arc::new(seen));
    }
}

fn in_force(files: &ListenerFiles, contents: &Contents) -> Result<InForce, TlsFileError> {
    let config = server_config(files, contents)?;
    let shown = certificates(&contents.certificate)?;
    let leaf = shown.first();
    let mut told: Vec<_> =
        leaf.and_then(|leaf| facts(Some(&files.certificate), leaf)).into_iter().collect();
    if let (Some(shown), Some(expiry)) = (told.first(), files.expiry) {
        let until = u32::try_from(shown.not_after_seconds).unwrap_or(u32::MAX);
        observe::gauge(expiry, &[]).set(f64::from(until));
    }
    if let Some(file) = &contents.trusted_ca {
        let authorities = certificates(file)?;
        let authorities = authorities.iter().filter_map(|one| facts(Some(&file.path), one));
        told.extend(authorities.map(|facts| CertificateFacts { role: Role::Authority, ..facts }));
    }
    if let Some(file) = &contents.revocations {
        told.extend(revocation_facts(file));
    }
    Ok(InForce { config: Arc::new(config), facts: told })
}

fn server_config(files: &ListenerFiles, contents: &Contents) -> Result<ServerConfig, TlsFileError> {
    let chain = certificates(&contents.certificate)?;
    let key = private_key(&contents.key)?;
    let provider = provider_of(&files.cipher_suites, files.versions)?;
    let builder = ServerConfig::builder_with_provider(provider)
        .with_protocol_versions(files.versions.offered())?;
    let builder = match client_verifier(files, contents)? {
        Some(verifier) => builder.with_client_cert_verifier(verifier),
        None => builder.with_no_client_auth(),
    };
    let mut config = builder.with_single_cert(chain, key).map_err(|error| TlsFileError::Pair {
        certificate: files.certificate.clone(),
        key: files.key.clone(),
        reason: error.to_string(),
    })?;
    config.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
    Ok(config)
}

/// The provider with the chosen suites of TLS 1.2; those of 1.3 are not chosen, as in Go.
pub(super) fn provider_of(
    cipher_suites: &[String],
    versions: Versions,
) -> Result<Arc<CryptoProvider>, TlsFileError> {
    let all = provider();
    if cipher_suites.is_empty() {
        return Ok(all);
    }
    let mut provider = CryptoProvider::clone(&all);
    provider.cipher_suites.retain(|suite| {
        let name = format!("{:?}", suite.suite());
        suite.version().version == ProtocolVersion::TLSv1_3 || cipher_suites.contains(&name)
    });
    let left = |version| provider.cipher_suites.iter().any(|s| s.version().version == version);
    if versions != Versions::Tls13 && !left(ProtocolVersion::TLSv1_2) {
        return Err(TlsFileError::NoSuite);
    }
    Ok(Arc::new(provider))
}

fn client_verifier(
    files: &ListenerFiles,
    contents: &Contents,
) -> Result<Option<Arc<dyn ClientCertVerifier>>, TlsFileError> {
    if files.client_authentication == ClientAuthentication::None {
        return Ok(None);
    }
    let authority = contents.trusted_ca.as_ref().ok_or(TlsFileError::NoTrustedCa)?;
    let roots = Arc::new(roots(authority)?);
    let mut builder = WebPkiClientVerifier::builder_with_provider(roots, provider());
    if files.client_authentication == ClientAuthentication::Optional {
        builder = builder.allow_unauthenticated();
    }
    let chains = builder.build().map_err(|error| TlsFileError::Content {
        path: authority.path.clone(),
        wanted: "certificates of authorities",
        reason: error.to_string(),
    })?;
    let revoked = contents.revocations.as_ref().map(revocations).transpose()?.unwrap_or_default();
    let allowed = Allowed::new(&files.allowed_hostnames, &files.allowed_common_names)?;
    Ok(Some(Arc::new(ClientVerifier { chains, revoked, allowed })))
}

/// The files behind a client's side, for the commands that ask a replica.
#[derive(Clone, Debug, Default)]
pub struct ClientFiles {
    /// Who may have signed the server's certificate.
    pub trusted_ca: PathBuf,
    /// This client's certificate and key.
    pub identity: Option<(PathBuf, PathBuf)>,
}

/// A client's TLS: 1.2 or newer, only the named authorities.
///
/// # Errors
/// A file is absent, damaged, or does not fit the others.
pub fn client_config(files: &ClientFiles) -> Result<ClientConfig, TlsFileError> {
    let builder = ClientConfig::builder_with_provider(provider())
        .with_protocol_versions(&[&TLS13, &TLS12])?
        .with_root_certificates(roots(&read(&files.trusted_ca)?)?);
    let Some((certificate, key)) = &files.identity else {
        return Ok(builder.with_no_client_auth());
    };
    let (chain, secret) = (certificates(&read(certificate)?)?, private_key(&read(key)?)?);
    builder.with_client_auth_cert(chain, secret).map_err(|error| TlsFileError::Pair {
        certificate: certificate.clone(),
        key: key.clone(),
        reason: error.to_string(),
    })
}

#[cfg(test)]
pub(super) mod tests;
