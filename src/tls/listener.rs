use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::SystemTime;

use arc_swap::ArcSwap;
use rustls::server::WebPkiClientVerifier;
use rustls::server::danger::ClientCertVerifier;
use rustls::version::{TLS12, TLS13};
use rustls::{ClientConfig, ServerConfig};
use x509_parser::prelude::{FromDer, X509Certificate};

use super::files::{TlsFileError, certificates, private_key, revocations, roots};
use super::provider;
use crate::observe;

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
}

impl ListenerFiles {
    fn paths(&self) -> impl Iterator<Item = &Path> {
        [Some(&self.certificate), Some(&self.key), self.trusted_ca.as_ref()]
            .into_iter()
            .chain([self.revocations.as_ref()])
            .flatten()
            .map(PathBuf::as_path)
    }

    /// What tells one state of the files from another: modification times follow symbolic links,
    /// which is how Kubernetes swaps mounted secrets.
    fn stamp(&self) -> Vec<Option<SystemTime>> {
        self.paths().map(|path| std::fs::metadata(path).and_then(|m| m.modified()).ok()).collect()
    }
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
fn common_name(certificate: &[u8]) -> Option<Arc<str>> {
    let (_, parsed) = X509Certificate::from_der(certificate).ok()?;
    let name = parsed.subject().iter_common_name().last()?.as_str().ok()?;
    (!name.is_empty()).then(|| Arc::from(name))
}

/// TLS of the client listeners: 1.2 or newer, ALPN h2 and http/1.1 on one port, read anew when a
/// file changes. A change that cannot be used leaves the old state in force.
pub struct ListenerTls {
    files: ListenerFiles,
    current: ArcSwap<ServerConfig>,
    stamp: ArcSwap<Vec<Option<SystemTime>>>,
}

impl ListenerTls {
    /// Reads the files.
    ///
    /// # Errors
    /// One of them is absent, damaged, or does not fit the others.
    pub fn load(files: ListenerFiles) -> Result<Self, TlsFileError> {
        let stamp = files.stamp();
        let config = server_config(&files)?;
        Ok(Self {
            files,
            current: ArcSwap::from_pointee(config),
            stamp: ArcSwap::from_pointee(stamp),
        })
    }

    /// For the next connection.
    #[must_use]
    pub fn acceptor(&self) -> tokio_rustls::TlsAcceptor {
        self.current.load_full().into()
    }

    /// Reads the files again if one was modified. Called now and then by whoever accepts.
    pub fn reload_if_changed(&self) {
        let stamp = self.files.stamp();
        if stamp == **self.stamp.load() {
            return;
        }
        match server_config(&self.files) {
            Ok(config) => {
                self.current.store(Arc::new(config));
                tracing::info!(event = "tls_reloaded", certificate = ?self.files.certificate);
            }
            Err(error) => tracing::warn!(
                event = "tls_reload_failed",
                %error,
                "the previous certificates stay in use"
            ),
        }
        self.stamp.store(Arc::new(stamp));
    }
}

fn server_config(files: &ListenerFiles) -> Result<ServerConfig, TlsFileError> {
    let chain = certificates(&files.certificate)?;
    let key = private_key(&files.key)?;
    if let Some(until) = chain.first().and_then(|leaf| not_after_seconds(leaf)) {
        let until = u32::try_from(until).unwrap_or(u32::MAX);
        observe::gauge(&observe::table::CLIENT_CERTIFICATE_EXPIRY, &[]).set(f64::from(until));
    }
    let builder = ServerConfig::builder_with_provider(provider())
        .with_protocol_versions(&[&TLS13, &TLS12])?;
    let builder = match client_verifier(files)? {
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

fn client_verifier(
    files: &ListenerFiles,
) -> Result<Option<Arc<dyn ClientCertVerifier>>, TlsFileError> {
    if files.client_authentication == ClientAuthentication::None {
        return Ok(None);
    }
    let authority = files.trusted_ca.as_ref().ok_or(TlsFileError::NoTrustedCa)?;
    let roots = Arc::new(roots(authority)?);
    let mut builder = WebPkiClientVerifier::builder_with_provider(roots, provider());
    if let Some(path) = &files.revocations {
        // As Go's: the leaf alone is looked up, and a list that names no issuer of it is no hindrance.
        builder = builder
            .with_crls(revocations(path)?)
            .only_check_end_entity_revocation()
            .allow_unknown_revocation_status();
    }
    if files.client_authentication == ClientAuthentication::Optional {
        builder = builder.allow_unauthenticated();
    }
    let verifier = builder.build().map_err(|error| TlsFileError::Content {
        path: authority.clone(),
        wanted: "certificates of authorities",
        reason: error.to_string(),
    })?;
    Ok(Some(verifier))
}

fn not_after_seconds(certificate: &[u8]) -> Option<i64> {
    let (_, parsed) = X509Certificate::from_der(certificate).ok()?;
    Some(parsed.validity().not_after.timestamp())
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
        .with_root_certificates(roots(&files.trusted_ca)?);
    let Some((certificate, key)) = &files.identity else {
        return Ok(builder.with_no_client_auth());
    };
    builder.with_client_auth_cert(certificates(certificate)?, private_key(key)?).map_err(|error| {
        TlsFileError::Pair {
            certificate: certificate.clone(),
            key: key.clone(),
            reason: error.to_string(),
        }
    })
}

#[cfg(test)]
mod tests;
