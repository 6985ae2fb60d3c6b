use std::path::PathBuf;

use super::flags::Values;
use super::settings::{SettingsError, invalid};
use super::urls::ListenUrl;

/// TLS at https peer URLs, where members of one owner find each other. Links between replicas, and
/// networks with a genesis of their own, use none of it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct PeerTls {
    /// Shown to whoever asks, and its key.
    pub certificate: Option<(PathBuf, PathBuf)>,
    /// Shown to whoever is asked, and its key; else the above.
    pub client: Option<(PathBuf, PathBuf)>,
    /// Checks the others' certificates.
    pub trusted_ca: Option<PathBuf>,
    /// Whoever asks must show one.
    pub certificate_required: bool,
    /// Certificates that are no longer trusted.
    pub revoked: Option<PathBuf>,
    /// Certificates name one of these hosts; empty for any.
    pub allowed_hostnames: Vec<String>,
    /// Certificates have one of these common names; empty for any.
    pub allowed_common_names: Vec<String>,
    /// Whoever asks may come from an address that its certificate does not name.
    pub any_address: bool,
    /// Make a certificate at start; the others' are not checked.
    pub automatic: bool,
}

const FLAGS: [&str; 11] = [
    "peer-cert-file",
    "peer-key-file",
    "peer-client-cert-file",
    "peer-client-key-file",
    "peer-client-cert-auth",
    "peer-trusted-ca-file",
    "peer-crl-file",
    "peer-cert-allowed-cn",
    "peer-cert-allowed-hostname",
    "peer-skip-client-san-verification",
    "peer-auto-tls",
];

/// Reads the flags, with etcd's checks and words (`client/pkg/transport`, `server/embed/etcd.go`).
pub(super) fn peer_tls(
    values: &Values,
    genesis: bool,
    listen: &[ListenUrl],
    warnings: &mut Vec<String>,
) -> Result<PeerTls, SettingsError> {
    if genesis {
        let given = |name: &&&str| values.text(name).is_some_and(|value| value != "false");
        warnings.extend(FLAGS.iter().filter(given).map(|name| {
            format!("--{name} has no effect: the genesis pins the key of every replica")
        }));
        return Ok(PeerTls::default());
    }
    let path = |name| values.text(name).map(PathBuf::from);
    let pair = (path("peer-cert-file"), path("peer-key-file"));
    let Some(certificate) = both(pair.clone()) else {
        let [cert, key] = [pair.0, pair.1].map(Option::unwrap_or_default);
        let (cert, key) = (cert.display(), key.display());
        return invalid(format!(
            "KeyFile and CertFile must both be present[key: {key}, cert: {cert}] \
             (--peer-key-file, --peer-cert-file)"
        ));
    };
    let Some(client) = both((path("peer-client-cert-file"), path("peer-client-key-file"))) else {
        return invalid(
            "ClientKeyFile and ClientCertFile must both be present or both absent: give \
             --peer-client-cert-file and --peer-client-key-file, or neither",
        );
    };
    let allowed_hostnames = values.list("peer-cert-allowed-hostname");
    let allowed_common_names = values.list("peer-cert-allowed-cn");
    if !allowed_hostnames.is_empty() && !allowed_common_names.is_empty() {
        return invalid(format!(
            "AllowedCNs and AllowedHostnames are mutually exclusive (cns={allowed_common_names:?}, \
             hostnames={allowed_hostnames:?})"
        ));
    }
    let wanted = values.switch("peer-auto-tls");
    if wanted && certificate.is_some() {
        warnings.push("ignoring peer auto TLS since certs given".to_owned());
    }
    let tls = PeerTls {
        automatic: wanted && certificate.is_none(),
        certificate,
        client,
        trusted_ca: path("peer-trusted-ca-file"),
        certificate_required: values.switch("peer-client-cert-auth"),
        revoked: path("peer-crl-file"),
        allowed_hostnames,
        allowed_common_names,
        any_address: values.switch("peer-skip-client-san-verification"),
    };
    check_listeners(&tls, listen, warnings)?;
    Ok(tls)
}

fn check_listeners(
    tls: &PeerTls,
    listen: &[ListenUrl],
    warnings: &mut Vec<String>,
) -> Result<(), SettingsError> {
    let certified = tls.certificate.is_some() || tls.automatic;
    for url in listen {
        if url.tls && !certified {
            let address = url.to_string().replacen("https://", "", 1);
            return invalid(format!(
                "cannot listen on TLS for {address}: KeyFile and CertFile are not presented \
                 (--peer-cert-file, --peer-key-file, or --peer-auto-tls)"
            ));
        }
        if url.tls && tls.certificate_required && tls.trusted_ca.is_none() {
            return invalid(
                "--peer-client-cert-auth needs --peer-trusted-ca-file, the CA of the peers",
            );
        }
        if !url.tls && certified {
            warnings.push(format!(
                "scheme is HTTP while key and cert files are present; ignoring key and cert files \
                 ({url})"
            ));
        }
        if !url.tls && tls.certificate_required {
            warnings.push(format!(
                "scheme is HTTP while --peer-client-cert-auth is enabled; ignoring client cert \
                 auth for this URL ({url})"
            ));
        }
    }
    Ok(())
}

/// Both or neither, or None.
fn both(pair: (Option<PathBuf>, Option<PathBuf>)) -> Option<Option<(PathBuf, PathBuf)>> {
    match pair {
        (Some(certificate), Some(key)) => Some(Some((certificate, key))),
        (None, None) => Some(None),
        _ => None,
    }
}
