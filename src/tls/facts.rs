use std::path::{Path, PathBuf};

use x509_parser::prelude::{FromDer, X509Certificate};

/// What an operator asks of a certificate.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CertificateFacts {
    /// The file it was read from; none for what the process made itself.
    pub file: Option<PathBuf>,
    /// Whose it is, as RFC 4514 writes it.
    pub subject: String,
    /// Who signed it.
    pub issuer: String,
    /// The serial number in hexadecimal.
    pub serial: String,
    /// Unix seconds from which it is good.
    pub not_before_seconds: i64,
    /// Unix seconds from which it is not.
    pub not_after_seconds: i64,
}

/// None if it does not parse.
pub(super) fn facts(file: Option<&Path>, certificate: &[u8]) -> Option<CertificateFacts> {
    let (_, parsed) = X509Certificate::from_der(certificate).ok()?;
    let serial = parsed.raw_serial().iter().map(|byte| format!("{byte:02x}")).collect();
    Some(CertificateFacts {
        file: file.map(Path::to_owned),
        subject: parsed.subject().to_string(),
        issuer: parsed.issuer().to_string(),
        serial,
        not_before_seconds: parsed.validity().not_before.timestamp(),
        not_after_seconds: parsed.validity().not_after.timestamp(),
    })
}

pub(super) fn not_after_seconds(certificate: &[u8]) -> Option<i64> {
    let (_, parsed) = X509Certificate::from_der(certificate).ok()?;
    Some(parsed.validity().not_after.timestamp())
}
