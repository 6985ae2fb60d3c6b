use core::fmt;
use std::collections::BTreeSet;
use std::sync::Arc;

use rustls::client::danger::HandshakeSignatureValid;
use rustls::client::verify_server_name;
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::server::ParsedCertificate;
use rustls::server::danger::{ClientCertVerified, ClientCertVerifier};
use rustls::{CertificateError, DigitallySignedStruct, DistinguishedName, Error, SignatureScheme};
use x509_parser::prelude::{CertificateRevocationList, FromDer, X509Certificate};

use super::files::TlsFileError;
use super::listener::common_name;

/// Certificates that are revoked, by serial number alone, as in etcd (`client/pkg/transport`, checkCRL):
/// whoever names the file vouches for it.
#[derive(Clone, Default, PartialEq, Eq)]
pub(super) struct Revoked(BTreeSet<Vec<u8>>);

impl Revoked {
    /// Adds a list's serial numbers. None if it is no list.
    pub fn add(&mut self, list: &[u8]) -> Option<()> {
        let (_, list) = CertificateRevocationList::from_der(list).ok()?;
        self.0.extend(list.iter_revoked_certificates().map(|entry| bare(entry.raw_serial())));
        Some(())
    }

    fn has(&self, certificate: &[u8]) -> bool {
        // What does not parse was not verified either.
        let parsed = X509Certificate::from_der(certificate);
        parsed.is_ok_and(|(_, parsed)| self.0.contains(&bare(parsed.raw_serial())))
    }
}

/// DER writes a leading zero before a high bit.
fn bare(serial: &[u8]) -> Vec<u8> {
    serial.iter().copied().skip_while(|byte| *byte == 0).collect()
}

/// Which names a certificate may carry, beyond being signed by an authority.
pub(super) struct Allowed {
    /// It is valid for one of them; empty for any.
    hostnames: Vec<ServerName<'static>>,
    /// It has one of these common names; empty for any.
    common_names: Vec<String>,
}

impl Allowed {
    pub fn new(hostnames: &[String], common_names: &[String]) -> Result<Self, TlsFileError> {
        let hostname = |name: &String| {
            ServerName::try_from(name.clone()).map_err(|_| TlsFileError::Hostname(name.clone()))
        };
        let hostnames = hostnames.iter().map(hostname).collect::<Result<_, _>>()?;
        Ok(Self { hostnames, common_names: common_names.to_vec() })
    }

    pub fn check(&self, leaf: &CertificateDer<'_>) -> Result<(), Error> {
        let parsed = ParsedCertificate::try_from(leaf)?;
        let valid = |name: &ServerName<'_>| verify_server_name(&parsed, name).is_ok();
        if !self.hostnames.is_empty() && !self.hostnames.iter().any(valid) {
            return Err(Error::InvalidCertificate(CertificateError::NotValidForName));
        }
        let found = common_name(leaf);
        let named = |name: &String| found.as_deref() == Some(name.as_str());
        if !self.common_names.is_empty() && !self.common_names.iter().any(named) {
            let error = CertificateError::ApplicationVerificationFailure;
            return Err(Error::InvalidCertificate(error));
        }
        Ok(())
    }
}

/// rustls' verifier, and what etcd's flags ask for beyond it.
pub(super) struct ClientVerifier {
    pub chains: Arc<dyn ClientCertVerifier>,
    pub revoked: Revoked,
    pub allowed: Allowed,
}

impl fmt::Debug for ClientVerifier {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ClientVerifier").finish_non_exhaustive()
    }
}

impl ClientCertVerifier for ClientVerifier {
    fn offer_client_auth(&self) -> bool {
        self.chains.offer_client_auth()
    }

    fn client_auth_mandatory(&self) -> bool {
        self.chains.client_auth_mandatory()
    }

    fn root_hint_subjects(&self) -> &[DistinguishedName] {
        self.chains.root_hint_subjects()
    }

    fn verify_client_cert(
        &self,
        leaf: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        now: UnixTime,
    ) -> Result<ClientCertVerified, Error> {
        let verified = self.chains.verify_client_cert(leaf, intermediates, now)?;
        if core::iter::once(leaf).chain(intermediates).any(|shown| self.revoked.has(shown)) {
            return Err(Error::InvalidCertificate(CertificateError::Revoked));
        }
        self.allowed.check(leaf)?;
        Ok(verified)
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        self.chains.verify_tls12_signature(message, certificate, signed)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        self.chains.verify_tls13_signature(message, certificate, signed)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.chains.supported_verify_schemes()
    }
}
