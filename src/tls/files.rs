use core::fmt;
use std::io;
use std::path::{Path, PathBuf};

use rustls::RootCertStore;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, CertificateRevocationListDer, PrivateKeyDer};

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
                "--client-cert-auth needs --trusted-ca-file: without it no client certificate can \
                 be trusted"
            ),
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

fn read(path: &Path) -> Result<Vec<u8>, TlsFileError> {
    std::fs::read(path).map_err(|error| TlsFileError::Read { path: path.to_owned(), error })
}

fn content(path: &Path, wanted: &'static str, reason: impl fmt::Display) -> TlsFileError {
    TlsFileError::Content { path: path.to_owned(), wanted, reason: reason.to_string() }
}

/// One certificate or more, leaf first.
pub(super) fn certificates(path: &Path) -> Result<Vec<CertificateDer<'static>>, TlsFileError> {
    const WANTED: &str = "certificates";
    let text = read(path)?;
    let found: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(&text).collect();
    let found = found.map_err(|error| content(path, WANTED, error))?;
    if found.is_empty() {
        return Err(content(path, WANTED, "it holds none"));
    }
    Ok(found)
}

pub(super) fn private_key(path: &Path) -> Result<PrivateKeyDer<'static>, TlsFileError> {
    let text = zeroize::Zeroizing::new(read(path)?);
    PrivateKeyDer::from_pem_slice(&text).map_err(|error| content(path, "a private key", error))
}

/// Trust anchors: every certificate in the file.
pub(super) fn roots(path: &Path) -> Result<RootCertStore, TlsFileError> {
    let mut roots = RootCertStore::empty();
    for certificate in certificates(path)? {
        roots
            .add(certificate)
            .map_err(|error| content(path, "certificates of authorities", error))?;
    }
    Ok(roots)
}

pub(super) fn revocations(
    path: &Path,
) -> Result<Vec<CertificateRevocationListDer<'static>>, TlsFileError> {
    const WANTED: &str = "certificate revocation lists";
    let text = read(path)?;
    let found: Result<Vec<_>, _> = CertificateRevocationListDer::pem_slice_iter(&text).collect();
    let found = found.map_err(|error| content(path, WANTED, error))?;
    if found.is_empty() {
        return Err(content(path, WANTED, "it holds none"));
    }
    Ok(found)
}
