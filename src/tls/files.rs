use core::fmt;
use std::io;
use std::path::{Path, PathBuf};

use rustls::RootCertStore;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, CertificateRevocationListDer, PrivateKeyDer};

use super::clients::Revoked;
use super::facts::{CertificateFacts, list_facts};

/// Why a TLS file cannot be used. Each message names the file and what to do.
#[derive(Debug)]
pub enum TlsFileError {
    /// It cannot be read.
    Read {
        /// Which file.
        path: PathBuf,
        /// What the system says.
        error: io::Error,
    },
    /// It is not the PEM that its flag wants.
    Content {
        /// Which file.
        path: PathBuf,
        /// What it should hold.
        wanted: &'static str,
        /// What is wrong with it.
        reason: String,
    },
    /// Certificate and key are of different pairs, or of a kind that TLS cannot use.
    Pair {
        /// The certificate's file.
        certificate: PathBuf,
        /// The key's file.
        key: PathBuf,
        /// What is wrong with them.
        reason: String,
    },
    /// Client certificates are demanded, but nothing says which to trust.
    NoTrustedCa,
    /// A client's certificate could never carry this name.
    Hostname(String),
    /// None of the named suites is there.
    NoSuite,
    /// rustls refuses the whole.
    Tls(rustls::Error),
}

impl fmt::Display for TlsFileError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Read { path, error } => {
                write!(
                    f,
                    "{} cannot be read: {error}; check the path and its owner",
                    path.display()
                )
            }
            Self::Content { path, wanted, reason } => {
                write!(f, "{} should hold {wanted} in PEM form: {reason}", path.display())
            }
            Self::Pair { certificate, key, reason } => write!(
                f,
                "the certificate {} and the key {} cannot be used together: {reason}; give a key \
                 and the certificate made for it",
                certificate.display(),
                key.display()
            ),
            Self::NoTrustedCa => write!(
                f,
                "--client-cert-auth needs --trusted-ca-file, and --peer-client-cert-auth \
                 --peer-trusted-ca-file: without it no certificate can be trusted"
            ),
            Self::Hostname(name) => {
                write!(
                    f,
                    "--client-cert-allowed-hostname, --peer-cert-allowed-hostname: {name:?} is no \
                     hostname and no address"
                )
            }
            Self::NoSuite => write!(f, "--cipher-suites leaves no suite for the chosen versions"),
            Self::Tls(error) => write!(f, "the TLS settings cannot be used: {error}"),
        }
    }
}

impl std::error::Error for TlsFileError {}

impl From<rustls::Error> for TlsFileError {
    fn from(error: rustls::Error) -> Self {
        Self::Tls(error)
    }
}

/// A file and what it held when it was read: everything made of it is made of the same bytes.
#[derive(Clone, PartialEq, Eq)]
pub(super) struct Content {
    pub path: PathBuf,
    pub bytes: zeroize::Zeroizing<Vec<u8>>,
}

pub(super) fn read(path: &Path) -> Result<Content, TlsFileError> {
    let failed = |error| TlsFileError::Read { path: path.to_owned(), error };
    let bytes = zeroize::Zeroizing::new(std::fs::read(path).map_err(failed)?);
    Ok(Content { path: path.to_owned(), bytes })
}

fn content(path: &Path, wanted: &'static str, reason: impl fmt::Display) -> TlsFileError {
    TlsFileError::Content { path: path.to_owned(), wanted, reason: reason.to_string() }
}

/// One certificate or more, leaf first.
pub(super) fn certificates(file: &Content) -> Result<Vec<CertificateDer<'static>>, TlsFileError> {
    const WANTED: &str = "certificates";
    let found: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(&file.bytes).collect();
    let found = found.map_err(|error| content(&file.path, WANTED, error))?;
    if found.is_empty() {
        return Err(content(&file.path, WANTED, "it holds none"));
    }
    Ok(found)
}

pub(super) fn private_key(file: &Content) -> Result<PrivateKeyDer<'static>, TlsFileError> {
    PrivateKeyDer::from_pem_slice(&file.bytes)
        .map_err(|error| content(&file.path, "a private key", error))
}

/// Trust anchors: every certificate in the file.
pub(super) fn roots(file: &Content) -> Result<RootCertStore, TlsFileError> {
    let mut roots = RootCertStore::empty();
    for certificate in certificates(file)? {
        roots
            .add(certificate)
            .map_err(|error| content(&file.path, "certificates of authorities", error))?;
    }
    Ok(roots)
}

/// Where systems keep the authorities they trust (Go: `crypto/x509`, root_linux.go).
const SYSTEM_ROOTS: [&str; 6] = [
    "/etc/ssl/certs/ca-certificates.crt",
    "/etc/pki/tls/certs/ca-bundle.crt",
    "/etc/ssl/ca-bundle.pem",
    "/etc/pki/tls/cacert.pem",
    "/etc/pki/ca-trust/extracted/pem/tls-ca-bundle.pem",
    "/etc/ssl/cert.pem",
];

/// Whom the system trusts: nobody where it does not say.
pub(super) fn system_roots() -> RootCertStore {
    let mut roots = RootCertStore::empty();
    let found = SYSTEM_ROOTS.iter().find_map(|path| read(Path::new(path)).ok());
    let certificates = found.and_then(|file| certificates(&file).ok()).unwrap_or_default();
    roots.add_parsable_certificates(certificates);
    roots
}

/// Each list of a file, for whoever asks; the damaged ones were refused before.
pub(super) fn revocation_facts(file: &Content) -> Vec<CertificateFacts> {
    if let Some(facts) = list_facts(&file.path, &file.bytes) {
        return vec![facts];
    }
    let lists = CertificateRevocationListDer::pem_slice_iter(&file.bytes).filter_map(Result::ok);
    lists.filter_map(|list| list_facts(&file.path, &list)).collect()
}

/// One list in DER form, as etcd wants it, or any number in PEM form.
pub(super) fn revocations(file: &Content) -> Result<Revoked, TlsFileError> {
    const WANTED: &str = "a certificate revocation list, DER or";
    let mut revoked = Revoked::default();
    if revoked.add(&file.bytes).is_some() {
        return Ok(revoked);
    }
    let lists: Result<Vec<_>, _> =
        CertificateRevocationListDer::pem_slice_iter(&file.bytes).collect();
    let lists = lists.map_err(|error| content(&file.path, WANTED, error))?;
    if lists.is_empty() {
        return Err(content(&file.path, WANTED, "it holds none"));
    }
    for list in lists {
        revoked.add(&list).ok_or_else(|| content(&file.path, WANTED, "one of them is damaged"))?;
    }
    Ok(revoked)
}
