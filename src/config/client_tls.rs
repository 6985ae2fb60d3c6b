use std::path::PathBuf;

use super::flags::Values;
use super::settings::{SettingsError, invalid};

/// TLS towards clients.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ClientTls {
    /// Shown to clients.
    pub certificate: Option<PathBuf>,
    /// Its key.
    pub key: Option<PathBuf>,
    /// Checks clients' certificates.
    pub trusted_ca: Option<PathBuf>,
    /// Clients must show one. Set by `--client-cert-auth`, and by a trusted CA as in etcd.
    pub client_certificate_required: bool,
    /// A certificate's common name is the user's. Set by `--client-cert-auth`, not by a CA alone, as in
    /// etcd.
    pub common_name_is_user: bool,
    /// Make a certificate at start.
    pub automatic: bool,
    /// So long a certificate made at start is valid, for peers too.
    pub self_signed_years: u16,
    /// Certificates of clients that are no longer trusted.
    pub revoked: Option<PathBuf>,
    /// A client's certificate names one of these hosts; empty for any.
    pub allowed_hostnames: Vec<String>,
    /// A client's certificate has one of these common names; empty for any.
    pub allowed_common_names: Vec<String>,
    /// TLS 1.2 suites by their IANA names; empty for the usual ones.
    pub cipher_suites: Vec<String>,
    /// TLS 1.2 is offered.
    pub tls12: bool,
    /// TLS 1.3 is offered.
    pub tls13: bool,
}

/// What Go's crypto/tls knows and this server never offers: no forward secrecy, CBC, RC4, 3DES.
const WEAK_SUITES: [&str; 12] = [
    "TLS_RSA_WITH_RC4_128_SHA",
    "TLS_RSA_WITH_3DES_EDE_CBC_SHA",
    "TLS_RSA_WITH_AES_128_CBC_SHA",
    "TLS_RSA_WITH_AES_256_CBC_SHA",
    "TLS_RSA_WITH_AES_128_CBC_SHA256",
    "TLS_RSA_WITH_AES_128_GCM_SHA256",
    "TLS_RSA_WITH_AES_256_GCM_SHA384",
    "TLS_ECDHE_ECDSA_WITH_RC4_128_SHA",
    "TLS_ECDHE_RSA_WITH_RC4_128_SHA",
    "TLS_ECDHE_RSA_WITH_3DES_EDE_CBC_SHA",
    "TLS_ECDHE_ECDSA_WITH_AES_128_CBC_SHA256",
    "TLS_ECDHE_RSA_WITH_AES_128_CBC_SHA256",
];
const WEAK_SUITES_SHA1: [&str; 4] = [
    "TLS_ECDHE_ECDSA_WITH_AES_128_CBC_SHA",
    "TLS_ECDHE_ECDSA_WITH_AES_256_CBC_SHA",
    "TLS_ECDHE_RSA_WITH_AES_128_CBC_SHA",
    "TLS_ECDHE_RSA_WITH_AES_256_CBC_SHA",
];
/// Always offered with TLS 1.3, whatever the flag says, as in Go.
const TLS13_SUITES: [&str; 3] =
    ["TLS_AES_128_GCM_SHA256", "TLS_AES_256_GCM_SHA384", "TLS_CHACHA20_POLY1305_SHA256"];
const TLS12_SUITES: [&str; 6] = [
    "TLS_ECDHE_ECDSA_WITH_AES_128_GCM_SHA256",
    "TLS_ECDHE_ECDSA_WITH_AES_256_GCM_SHA384",
    "TLS_ECDHE_ECDSA_WITH_CHACHA20_POLY1305_SHA256",
    "TLS_ECDHE_RSA_WITH_AES_128_GCM_SHA256",
    "TLS_ECDHE_RSA_WITH_AES_256_GCM_SHA384",
    "TLS_ECDHE_RSA_WITH_CHACHA20_POLY1305_SHA256",
];

/// As in etcd, what is missing is an error only if a listener is `secure`.
pub(super) fn client_tls(
    values: &Values,
    secure: bool,
    warnings: &mut Vec<String>,
) -> Result<ClientTls, SettingsError> {
    let path = |name| values.text(name).map(PathBuf::from);
    let (mut certificate, mut key) = (path("cert-file"), path("key-file"));
    if certificate.is_some() != key.is_some() {
        let why = "--cert-file and --key-file belong together: both or none";
        if secure {
            return invalid(why);
        }
        warnings.push(format!("{why}; no listener's scheme is https, so it has no effect"));
        (certificate, key) = (None, None);
    }
    let trusted_ca = path("trusted-ca-file");
    let automatic = values.switch("auto-tls") && certificate.is_none();
    let years = values.number("self-signed-cert-validity").unwrap_or(1).clamp(1, 100);
    let required = values.switch("client-cert-auth");
    let without_ca = trusted_ca.is_none() && !automatic && values.text("home").is_none();
    if required && secure && without_ca {
        return invalid("--client-cert-auth needs --trusted-ca-file, the CA of the clients");
    }
    let (tls12, tls13) = versions(values)?;
    let allowed_hostnames = values.list("client-cert-allowed-hostname");
    let allowed_common_names = values.list("client-cert-allowed-cn");
    if !allowed_hostnames.is_empty() && !allowed_common_names.is_empty() {
        return invalid("AllowedCNs and AllowedHostnames are mutually exclusive");
    }
    Ok(ClientTls {
        client_certificate_required: required || trusted_ca.is_some(),
        common_name_is_user: required,
        certificate,
        key,
        trusted_ca,
        revoked: path("client-crl-file"),
        automatic,
        self_signed_years: u16::try_from(years).expect("at most 100"),
        allowed_hostnames,
        allowed_common_names,
        cipher_suites: cipher_suites(values, tls12, warnings)?,
        tls12,
        tls13,
    })
}

/// Whether 1.2 and 1.3 are offered (`server/embed/config.go`, Validate).
fn versions(values: &Values) -> Result<(bool, bool), SettingsError> {
    let version = |name: &'static str, absent: u8| match values.text_or_default(name) {
        "" => Ok(absent),
        "TLS1.2" => Ok(2),
        "TLS1.3" => Ok(3),
        other => {
            invalid(format!("unexpected TLS version {other:?} (must be one of: TLS1.2, TLS1.3)"))
        }
    };
    let (least, most) = (version("tls-min-version", 2)?, version("tls-max-version", 3)?);
    if least > most {
        return invalid("min version (TLS1.3) is greater than max version (TLS1.2)");
    }
    Ok((least == 2, most == 3))
}

fn cipher_suites(
    values: &Values,
    tls12: bool,
    warnings: &mut Vec<String>,
) -> Result<Vec<String>, SettingsError> {
    let given = values.list("cipher-suites");
    if !tls12 && !given.is_empty() {
        return invalid("cipher suites cannot be configured when only TLS1.3 is enabled");
    }
    let mut chosen = Vec::new();
    for name in &given {
        let name = match name.as_str() {
            "TLS_ECDHE_RSA_WITH_CHACHA20_POLY1305" => TLS12_SUITES[5],
            "TLS_ECDHE_ECDSA_WITH_CHACHA20_POLY1305" => TLS12_SUITES[2],
            other => other,
        };
        if TLS12_SUITES.contains(&name) {
            chosen.push(name.to_owned());
        } else if WEAK_SUITES.contains(&name) || WEAK_SUITES_SHA1.contains(&name) {
            warnings.push(format!(
                "--cipher-suites: {name} is not offered: it has no forward secrecy or no authenticated \
                 encryption"
            ));
        } else if !TLS13_SUITES.contains(&name) {
            return invalid(format!("unexpected TLS cipher suite {name:?}"));
        }
    }
    if chosen.is_empty() && given.iter().any(|name| !TLS13_SUITES.contains(&name.as_str())) {
        return invalid(format!(
            "--cipher-suites names none that is offered; choose from {}",
            TLS12_SUITES.join(", ")
        ));
    }
    Ok(chosen)
}
