//! The certificates an organisation starts with: an own authority, one certificate for its replica
//! and one for its administrator. Any other authority serves as well; identity between replicas
//! never depends on them.

use std::net::IpAddr;

use anyhow::Context;
use rcgen::{
    BasicConstraints, CertificateParams, DistinguishedName, DnType, ExtendedKeyUsagePurpose, IsCa,
    Issuer, KeyPair, KeyUsagePurpose, SanType,
};
use zeroize::Zeroizing;

const AUTHORITY_YEARS: i16 = 10;
const LEAF_YEARS: i16 = 3;

/// A certificate and its key, both PEM.
pub(super) struct Pair {
    pub certificate: String,
    pub key: Zeroizing<String>,
}

impl Pair {
    fn of(certificate: &rcgen::Certificate, key: &KeyPair) -> Self {
        Self { certificate: certificate.pem(), key: Zeroizing::new(key.serialize_pem()) }
    }
}

/// What `org init` makes.
pub(super) struct Certificates {
    pub authority: Pair,
    pub server: Pair,
    pub client: Pair,
}

/// Makes a replica's two certificates, signed by an authority that is known or made here. `hosts` are
/// names and addresses of the replica; localhost and both loopback addresses are added.
pub(super) fn make(
    name: &str,
    hosts: &[String],
    known: Option<Pair>,
) -> anyhow::Result<Certificates> {
    let (authority, issuer) = match known {
        None => new_authority(name)?,
        Some(pair) => {
            let key = KeyPair::from_pem(&pair.key).context("the authority's key is damaged")?;
            let issuer = Issuer::from_ca_cert_pem(&pair.certificate, key);
            (pair, issuer.context("the authority's certificate is damaged")?)
        }
    };
    let server = leaf(name, name, Some(hosts), &issuer)?;
    let client = leaf(&format!("{name}-admin"), name, None, &issuer)?;
    Ok(Certificates { authority, server, client })
}

fn new_authority(organisation: &str) -> anyhow::Result<(Pair, Issuer<'static, KeyPair>)> {
    let key = KeyPair::generate().context("cannot make the authority's key")?;
    let mut params = params(&format!("{organisation} CA"), organisation, AUTHORITY_YEARS)?;
    params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
    params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
    let certificate = params.self_signed(&key).context("cannot sign the authority")?;
    let authority = Pair::of(&certificate, &key);
    Ok((authority, Issuer::new(params, key)))
}

/// A certificate of its own for `--auto-tls`.
pub(super) fn self_signed(name: &str, hosts: &[String], years: u16) -> anyhow::Result<Pair> {
    let key = KeyPair::generate().context("cannot make a TLS key")?;
    let years = i16::try_from(years).unwrap_or(100);
    let mut params = params(name, name, years)?;
    params.subject_alt_names = alternative_names(hosts)?;
    params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
    params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
    let certificate = params.self_signed(&key).context("cannot sign the TLS certificate")?;
    Ok(Pair::of(&certificate, &key))
}

fn leaf(
    common_name: &str,
    organisation: &str,
    hosts: Option<&[String]>,
    issuer: &Issuer<'_, KeyPair>,
) -> anyhow::Result<Pair> {
    let key = KeyPair::generate().context("cannot make a TLS key")?;
    let mut params = params(common_name, organisation, LEAF_YEARS)?;
    params.use_authority_key_identifier_extension = true;
    params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
    params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ClientAuth];
    if let Some(hosts) = hosts {
        params.subject_alt_names = alternative_names(hosts)?;
        params.extended_key_usages.push(ExtendedKeyUsagePurpose::ServerAuth);
    }
    let certificate = params.signed_by(&key, issuer).context("cannot sign a certificate")?;
    Ok(Pair::of(&certificate, &key))
}

fn params(common_name: &str, organisation: &str, years: i16) -> anyhow::Result<CertificateParams> {
    let today = jiff::Timestamp::now().to_zoned(jiff::tz::TimeZone::UTC).date();
    // From yesterday on: clocks differ.
    let first = today.yesterday().context("the clock is at its beginning")?;
    let last = today.saturating_add(jiff::Span::new().years(years));
    let date = |date: jiff::civil::Date| {
        let unsigned = |part: i8| u8::try_from(part).expect("months and days are positive");
        rcgen::date_time_ymd(date.year().into(), unsigned(date.month()), unsigned(date.day()))
    };
    let mut params = CertificateParams::default();
    (params.not_before, params.not_after) = (date(first), date(last));
    params.distinguished_name = DistinguishedName::new();
    params.distinguished_name.push(DnType::CommonName, common_name);
    params.distinguished_name.push(DnType::OrganizationName, organisation);
    Ok(params)
}

fn alternative_names(hosts: &[String]) -> anyhow::Result<Vec<SanType>> {
    let mut names: Vec<String> = ["localhost", "127.0.0.1", "::1"].map(str::to_owned).into();
    names.extend(hosts.iter().filter(|host| !is_unspecified(host)).cloned());
    names.sort();
    names.dedup();
    let name = |host: String| {
        if let Ok(ip) = host.parse::<IpAddr>() {
            return Ok(SanType::IpAddress(ip));
        }
        let dns = host.clone().try_into();
        dns.map(SanType::DnsName).with_context(|| format!("{host:?} is no name for a certificate"))
    };
    names.into_iter().map(name).collect()
}

fn is_unspecified(host: &str) -> bool {
    host.parse::<IpAddr>().is_ok_and(|ip| ip.is_unspecified())
}
