use core::fmt;
use std::net::IpAddr;
use std::path::PathBuf;
use std::sync::Arc;

use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::client::{Resumption, WebPkiServerVerifier};
use rustls::crypto::{CryptoProvider, verify_tls12_signature, verify_tls13_signature};
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::server::NoServerSessionStorage;
use rustls::{
    CertificateError, ClientConfig, DigitallySignedStruct, Error, RootCertStore, ServerConfig,
    ServerConnection, SignatureScheme,
};
use x509_parser::extensions::GeneralName;
use x509_parser::prelude::{FromDer, X509Certificate};

use super::clients::Allowed;
use super::facts::CertificateFacts;
use super::files::{TlsFileError, certificates, private_key, read, roots, system_roots};
use super::listener::{ClientAuthentication, ListenerFiles, ListenerTls, Versions, provider_of};

/// Spoken in the exchange at peer URLs and nowhere else, so that an acceptor tells it from a link.
const PROTOCOL: &[u8] = b"althing-exchange/1";

/// The files behind TLS at peer URLs, as etcd's flags name them.
#[derive(Clone, Debug, Default)]
pub struct ExchangeFiles {
    /// `--peer-cert-file` and `--peer-key-file`.
    pub certificate: Option<(PathBuf, PathBuf)>,
    /// `--peer-client-cert-file` and `--peer-client-key-file`: what who asks shows; else the above.
    pub client: Option<(PathBuf, PathBuf)>,
    /// `--peer-trusted-ca-file`: who may sign others' certificates; else whom the system trusts.
    pub trusted_ca: Option<PathBuf>,
    /// `--peer-client-cert-auth`; etcd requires certificates as soon as an authority is named.
    pub certificate_required: bool,
    /// `--peer-crl-file`.
    pub revocations: Option<PathBuf>,
    /// `--peer-cert-allowed-hostname`; empty for any.
    pub allowed_hostnames: Vec<String>,
    /// `--peer-cert-allowed-cn`; empty for any.
    pub allowed_common_names: Vec<String>,
    /// `--peer-skip-client-san-verification`: who asks may come from an address its certificate does not name.
    pub any_address: bool,
    /// Made by `--peer-auto-tls`: nobody vouches for the others' certificates, so nobody is asked to.
    pub self_made: bool,
    /// `--cipher-suites`, which concern TLS 1.2 alone; empty for the usual ones.
    pub cipher_suites: Vec<String>,
    /// `--tls-min-version`, `--tls-max-version`.
    pub versions: Versions,
}

impl ExchangeFiles {
    fn listener(&self) -> Option<ListenerFiles> {
        let (certificate, key) = self.certificate.clone()?;
        let required = self.certificate_required || self.trusted_ca.is_some();
        Some(ListenerFiles {
            certificate,
            key,
            trusted_ca: self.trusted_ca.clone(),
            revocations: self.revocations.clone(),
            client_authentication: match required {
                true => ClientAuthentication::Required,
                false => ClientAuthentication::None,
            },
            allowed_hostnames: self.allowed_hostnames.clone(),
            allowed_common_names: self.allowed_common_names.clone(),
            cipher_suites: self.cipher_suites.clone(),
            versions: self.versions,
            expiry: Some(&crate::observe::table::PEER_CERTIFICATE_EXPIRY),
        })
    }
}

/// TLS of the exchange at https peer URLs (protocol.md 22.3), with the operator's files and by etcd's
/// rules. Links between replicas use none of it: their keys are pinned.
pub struct ExchangeTls {
    files: ExchangeFiles,
    listener: Option<ListenerTls>,
}

impl ExchangeTls {
    /// Reads the files, if any are named.
    ///
    /// # Errors
    /// One of them is absent, damaged, or does not fit the others.
    pub fn load(files: ExchangeFiles) -> Result<Self, TlsFileError> {
        let listener = files.listener().map(ListenerTls::load).transpose()?;
        let named = files.client.is_some() || files.trusted_ca.is_some() || listener.is_some();
        let exchange = Self { files, listener };
        if named {
            exchange.connector()?;
        }
        Ok(exchange)
    }

    /// For a connection to whoever answers at an https peer URL. The files are read anew, so that what
    /// changed counts.
    ///
    /// # Errors
    /// One of them is absent, damaged, or does not fit the others.
    pub fn connector(&self) -> Result<tokio_rustls::TlsConnector, TlsFileError> {
        let files = &self.files;
        let provider = provider_of(&files.cipher_suites, files.versions)?;
        let verifier = Arc::new(self.answerer_verifier(&provider)?);
        let builder = ClientConfig::builder_with_provider(provider)
            .with_protocol_versions(files.versions.offered())?
            .dangerous()
            .with_custom_certificate_verifier(verifier);
        let mut config = match files.client.as_ref().or(files.certificate.as_ref()) {
            None => builder.with_no_client_auth(),
            Some((certificate, key)) => {
                let pair = (certificates(&read(certificate)?)?, private_key(&read(key)?)?);
                let made = builder.with_client_auth_cert(pair.0, pair.1);
                made.map_err(|error| TlsFileError::Pair {
                    certificate: certificate.clone(),
                    key: key.clone(),
                    reason: error.to_string(),
                })?
            }
        };
        config.alpn_protocols = vec![PROTOCOL.to_vec()];
        config.resumption = Resumption::disabled();
        Ok(Arc::new(config).into())
    }

    fn answerer_verifier(
        &self,
        provider: &Arc<CryptoProvider>,
    ) -> Result<AnswererVerifier, TlsFileError> {
        let files = &self.files;
        let allowed = Allowed::new(&files.allowed_hostnames, &files.allowed_common_names)?;
        let trust = match &files.trusted_ca {
            _ if files.self_made => Trust::Anybody,
            Some(path) => Trust::of(roots(&read(path)?)?, provider)?,
            None => Trust::of(system_roots(), provider)?,
        };
        Ok(AnswererVerifier { trust, allowed, provider: Arc::clone(provider) })
    }

    /// For a connection whose first message offers the exchange; none without a certificate. Files that
    /// changed count from here on.
    #[must_use]
    pub fn server(&self) -> Option<Arc<ServerConfig>> {
        let listener = self.listener.as_ref()?;
        listener.reload_if_changed();
        let mut config = ServerConfig::clone(&listener.config());
        config.alpn_protocols = vec![PROTOCOL.to_vec()];
        config.session_storage = Arc::new(NoServerSessionStorage {});
        config.send_tls13_tickets = 0;
        Some(Arc::new(config))
    }

    /// Whether a first message offers the exchange.
    #[must_use]
    pub fn is_offered(hello: &rustls::server::ClientHello<'_>) -> bool {
        hello.alpn().is_some_and(|mut offered| offered.any(|protocol| protocol == PROTOCOL))
    }

    /// Whether who asks comes from where its certificate says (etcd's checkSAN): from one of its addresses,
    /// or one that a name of it leads to. A certificate with neither is good anywhere.
    ///
    /// # Errors
    /// Why not.
    pub async fn check_address(
        &self,
        connection: &ServerConnection,
        address: IpAddr,
    ) -> Result<(), String> {
        let leaf = connection.peer_certificates().and_then(<[_]>::first);
        let Some(leaf) = leaf.filter(|_| !self.files.any_address) else { return Ok(()) };
        let Named { addresses, names } = Named::by(leaf);
        if addresses.contains(&address.to_canonical()) || addresses.is_empty() && names.is_empty() {
            return Ok(());
        }
        for name in names.iter().filter(|name| !name.starts_with("*.")) {
            let Ok(mut found) = tokio::net::lookup_host((name.as_str(), 0)).await else { continue };
            if found.any(|found| found.ip().to_canonical() == address.to_canonical()) {
                return Ok(());
            }
        }
        Err(format!(
            "its certificate is not for its address {address} (addresses {addresses:?}, names {names:?})"
        ))
    }

    /// What is in force at https peer URLs.
    #[must_use]
    pub fn facts(&self) -> Vec<CertificateFacts> {
        self.listener.as_ref().map(ListenerTls::facts).unwrap_or_default()
    }
}

/// The addresses and names that a certificate is for.
#[derive(Default)]
struct Named {
    addresses: Vec<IpAddr>,
    names: Vec<String>,
}

impl Named {
    fn by(certificate: &[u8]) -> Self {
        let mut named = Self::default();
        let Ok((_, parsed)) = X509Certificate::from_der(certificate) else { return named };
        let Ok(Some(names)) = parsed.subject_alternative_name() else { return named };
        for name in &names.value.general_names {
            match name {
                GeneralName::DNSName(name) => named.names.push((*name).to_owned()),
                GeneralName::IPAddress(bytes) => {
                    let four = <[u8; 4]>::try_from(*bytes).map(IpAddr::from);
                    let address = four.or_else(|_| <[u8; 16]>::try_from(*bytes).map(IpAddr::from));
                    named.addresses.extend(address.map(|address| address.to_canonical()));
                }
                _ => {}
            }
        }
        named
    }
}

/// Whose certificates count at a peer URL.
enum Trust {
    /// Those of these authorities.
    Chains(Arc<WebPkiServerVerifier>),
    /// Any.
    Anybody,
    /// None: no authority is named, and the system trusts none.
    Nobody,
}

impl Trust {
    fn of(roots: RootCertStore, provider: &Arc<CryptoProvider>) -> Result<Self, TlsFileError> {
        if roots.is_empty() {
            return Ok(Self::Nobody);
        }
        WebPkiServerVerifier::builder_with_provider(Arc::new(roots), Arc::clone(provider))
            .build()
            .map(Self::Chains)
            .map_err(|error| TlsFileError::Tls(Error::General(error.to_string())))
    }
}

/// Judges who answers at a peer URL.
struct AnswererVerifier {
    trust: Trust,
    allowed: Allowed,
    provider: Arc<CryptoProvider>,
}

impl fmt::Debug for AnswererVerifier {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("AnswererVerifier")
    }
}

impl ServerCertVerifier for AnswererVerifier {
    fn verify_server_cert(
        &self,
        leaf: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        name: &ServerName<'_>,
        ocsp: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        match &self.trust {
            Trust::Chains(chains) => {
                chains.verify_server_cert(leaf, intermediates, name, ocsp, now)?;
            }
            Trust::Anybody => {}
            Trust::Nobody => {
                return Err(Error::InvalidCertificate(CertificateError::UnknownIssuer));
            }
        }
        // etcd asks this of both sides (`client/pkg/transport`, baseConfig).
        self.allowed.check(leaf)?;
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        let algorithms = &self.provider.signature_verification_algorithms;
        verify_tls12_signature(message, certificate, signed, algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        let algorithms = &self.provider.signature_verification_algorithms;
        verify_tls13_signature(message, certificate, signed, algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.provider.signature_verification_algorithms.supported_schemes()
    }
}

#[cfg(test)]
mod tests;
