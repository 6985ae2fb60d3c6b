//! Certificate authorities that nobody knows yet, and what they sign for this machine.

use std::path::Path;

use rcgen::{BasicConstraints, CertificateParams, DnType, IsCa, Issuer, KeyPair};

/// By what a test reaches its servers.
pub const LOOPBACK: &[&str] = &["127.0.0.1", "localhost"];

/// A certificate authority.
pub struct Authority {
    issuer: Issuer<'static, KeyPair>,
    /// Its own certificate, as PEM.
    pub certificate: String,
}

/// A certificate and the key of its holder, as PEM.
pub struct Pair {
    certificate: String,
    key: String,
}

/// A new authority of this name.
pub fn authority(name: &str) -> Authority {
    let key = KeyPair::generate().expect("a key");
    let mut parameters = holder(name, &[]);
    parameters.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    let certificate = parameters.self_signed(&key).expect("a CA certificate").pem();
    Authority { issuer: Issuer::new(parameters, key), certificate }
}

/// Who is to hold a certificate: the common name, and the names by which a server is reached. The caller
/// changes what is special about it before it is signed.
pub fn holder(common_name: &str, names: &[&str]) -> CertificateParams {
    let names: Vec<String> = names.iter().map(|name| (*name).to_owned()).collect();
    let mut parameters = CertificateParams::new(names).expect("names");
    parameters.distinguished_name.push(DnType::CommonName, common_name);
    parameters
}

impl Authority {
    /// Signs a certificate for a key made for it.
    pub fn issue(&self, holder: &CertificateParams) -> Pair {
        let key = KeyPair::generate().expect("a key");
        let certificate = holder.signed_by(&key, &self.issuer).expect("a certificate").pem();
        Pair { certificate, key: key.serialize_pem() }
    }
}

impl Pair {
    /// Writes both to files, the certificate first.
    pub fn write(&self, certificate: &Path, key: &Path) {
        std::fs::write(certificate, &self.certificate).expect("a certificate file");
        std::fs::write(key, &self.key).expect("a key file");
    }
}
