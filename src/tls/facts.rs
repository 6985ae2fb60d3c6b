use std::path::{Path, PathBuf};

use x509_parser::prelude::{CertificateRevocationList, FromDer, X509Certificate};

/// What a certificate, or a list of them, is there for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Role {
    /// Shown to the other side.
    Shown,
    /// Signs what the other side shows.
    Authority,
    /// Lists what no longer counts.
    Revocations,
}

/// What an operator asks of a certificate, or of a list of revoked ones.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CertificateFacts {
    /// What it is there for.
    pub role: Role,
    /// The file it was read from; none for what the process made itself.
    pub file: Option<PathBuf>,
    /// Whose it is, as RFC 4514 writes it; of a list how many it revokes.
    pub subject: String,
    /// Who signed it.
    pub issuer: String,
    /// The serial number in hexadecimal.
    pub serial: String,
    /// Unix seconds from which it is good.
    pub not_before_seconds: i64,
    /// Unix seconds from which it is not; the largest number for never.
    pub not_after_seconds: i64,
}

/// None if it does not parse.
pub(super) fn facts(file: Option<&Path>, certificate: &[u8]) -> Option<CertificateFacts> {
    let (_, parsed) = X509Certificate::from_der(certificate).ok()?;
    let serial = parsed.raw_serial().iter().map(|byte| format!("{byte:02x}")).collect();
    Some(CertificateFacts {
        role: Role::Shown,
        file: file.map(Path::to_owned),
        subject: parsed.subject().to_string(),
        issuer: parsed.issuer().to_string(),
        serial,
        not_before_seconds: parsed.validity().not_before.timestamp(),
        not_after_seconds: parsed.validity().not_after.timestamp(),
    })
}

/// None if it does not parse.
pub(super) fn list_facts(file: &Path, list: &[u8]) -> Option<CertificateFacts> {
    let (_, parsed) = CertificateRevocationList::from_der(list).ok()?;
    let number = parsed.crl_number().map(|number| format!("{number:x}"));
    let count = parsed.iter_revoked_certificates().count();
    Some(CertificateFacts {
        role: Role::Revocations,
        file: Some(file.to_owned()),
        subject: format!("{count} revoked"),
        issuer: parsed.issuer().to_string(),
        serial: number.unwrap_or_default(),
        not_before_seconds: parsed.last_update().timestamp(),
        not_after_seconds: parsed.next_update().map_or(i64::MAX, |next| next.timestamp()),
    })
}
