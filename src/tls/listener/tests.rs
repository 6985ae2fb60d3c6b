use super::*;
use rcgen::{BasicConstraints, CertificateParams, DnType, IsCa, Issuer, KeyPair};
use rustls::pki_types::ServerName;
use tokio::io::{AsyncReadExt, AsyncWriteExt};

pub(in crate::tls) struct Authority {
    directory: tempfile::TempDir,
    issuer: Issuer<'static, KeyPair>,
}

impl Authority {
    pub fn new(name: &str) -> Self {
        let directory = tempfile::tempdir().expect("a directory");
        let key = KeyPair::generate().expect("a key");
        let mut parameters = CertificateParams::new(Vec::new()).expect("parameters");
        parameters.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        parameters.distinguished_name.push(DnType::CommonName, name);
        let certificate = parameters.self_signed(&key).expect("a certificate");
        std::fs::write(directory.path().join("ca.crt"), certificate.pem()).expect("written");
        Self { directory, issuer: Issuer::new(parameters, key) }
    }

    pub fn path(&self, name: &str) -> PathBuf {
        self.directory.path().join(name)
    }

    pub fn leaf(&self, file: &str, common_name: &str) {
        let key = KeyPair::generate().expect("a key");
        let mut parameters =
            CertificateParams::new(vec!["localhost".to_owned()]).expect("parameters");
        parameters.distinguished_name.push(DnType::CommonName, common_name);
        let certificate = parameters.signed_by(&key, &self.issuer).expect("a certificate");
        std::fs::write(self.path(&format!("{file}.crt")), certificate.pem()).expect("written");
        std::fs::write(self.path(&format!("{file}.key")), key.serialize_pem()).expect("written");
    }

    fn files(&self, client_authentication: ClientAuthentication) -> ListenerFiles {
        ListenerFiles {
            certificate: self.path("server.crt"),
            key: self.path("server.key"),
            trusted_ca: Some(self.path("ca.crt")),
            client_authentication,
            ..ListenerFiles::default()
        }
    }

    fn client(&self, identity: Option<&str>) -> ClientConfig {
        let pair = |name| (self.path(&format!("{name}.crt")), self.path(&format!("{name}.key")));
        let files = ClientFiles { trusted_ca: self.path("ca.crt"), identity: identity.map(pair) };
        client_config(&files).expect("a client")
    }
}

async fn meet(server: &ListenerTls, client: ClientConfig) -> Result<ClientIdentity, String> {
    let (near, far) = tokio::io::duplex(1 << 16);
    let connector = tokio_rustls::TlsConnector::from(Arc::new(client));
    let dial = async {
        let name = ServerName::try_from("localhost").expect("a name");
        let mut stream = connector.connect(name, near).await.map_err(|e| e.to_string())?;
        stream.read_u8().await.map_err(|e| e.to_string())
    };
    let accept = async {
        let mut stream = server.acceptor().accept(far).await.map_err(|e| e.to_string())?;
        stream.write_all(b"y").await.map_err(|e| e.to_string())?;
        stream.flush().await.map_err(|e| e.to_string())?;
        let address = SocketAddr::from(([127, 0, 0, 1], 1));
        Ok::<_, String>(ClientIdentity::of(stream.get_ref().1, address))
    };
    let (dialled, accepted) = tokio::join!(dial, accept);
    dialled.and(accepted)
}

#[tokio::test]
async fn a_client_is_its_certificates_common_name() {
    let authority = Authority::new("acme");
    authority.leaf("server", "server");
    authority.leaf("admin", "admin of acme");
    let files = authority.files(ClientAuthentication::Required);
    let server = ListenerTls::load(files).expect("TLS");
    let identity = meet(&server, authority.client(Some("admin"))).await.expect("accepted");
    assert_eq!(identity.common_name.as_deref(), Some("admin of acme"));
    assert!(meet(&server, authority.client(None)).await.is_err());

    let optional = authority.files(ClientAuthentication::Optional);
    let server = ListenerTls::load(optional).expect("TLS");
    let identity = meet(&server, authority.client(None)).await.expect("accepted");
    assert_eq!(identity.common_name, None);

    let other = Authority::new("birch");
    other.leaf("admin", "admin of acme");
    let mut stranger = authority.client(None);
    stranger.client_auth_cert_resolver = other.client(Some("admin")).client_auth_cert_resolver;
    assert!(meet(&server, stranger).await.is_err(), "another authority's certificate is refused");
}

#[tokio::test]
async fn new_files_count_from_the_next_connection_and_broken_ones_never() {
    let authority = Authority::new("acme");
    authority.leaf("server", "server");
    let server = ListenerTls::load(authority.files(ClientAuthentication::None)).expect("TLS");
    let before = server.config();
    server.reload_if_changed();
    assert!(Arc::ptr_eq(&before, &server.config()), "nothing changed");
    std::fs::write(authority.path("server.crt"), "no certificate").expect("written");
    server.reload_if_changed();
    assert!(Arc::ptr_eq(&before, &server.config()), "the old one stays");
    meet(&server, authority.client(None)).await.expect("still serving");
    std::thread::sleep(core::time::Duration::from_millis(20));
    authority.leaf("server", "server");
    server.reload_if_changed();
    assert!(!Arc::ptr_eq(&before, &server.config()), "the new one is in force");
    meet(&server, authority.client(None)).await.expect("serving");
}

/// As Kubernetes mounts a secret: the files are links into `..data`, itself a link that is swapped.
#[tokio::test]
async fn a_swapped_directory_of_files_is_noticed_whatever_its_times_say() {
    let authority = Authority::new("acme");
    authority.leaf("server", "server");
    let mount = tempfile::tempdir().expect("a directory");
    let at = |name: &str| mount.path().join(name);
    let fill = |directory: &str| {
        std::fs::create_dir(at(directory)).expect("made");
        for name in ["server.crt", "server.key", "ca.crt"] {
            let copy = at(directory).join(name);
            std::fs::copy(authority.path(name), &copy).expect("copied");
            let file = std::fs::File::options().write(true).open(&copy).expect("opened");
            file.set_modified(std::time::SystemTime::UNIX_EPOCH).expect("one time for all");
        }
    };
    fill("..1");
    std::os::unix::fs::symlink("..1", at("..data")).expect("linked");
    for name in ["server.crt", "server.key", "ca.crt"] {
        std::os::unix::fs::symlink(format!("..data/{name}"), at(name)).expect("linked");
    }
    let files = ListenerFiles {
        certificate: at("server.crt"),
        key: at("server.key"),
        trusted_ca: Some(at("ca.crt")),
        ..ListenerFiles::default()
    };
    let server = ListenerTls::load(files).expect("TLS");
    let serial = server.facts()[0].serial.clone();
    server.reload_if_changed();
    assert_eq!(server.facts()[0].serial, serial, "nothing changed");
    authority.leaf("server", "server");
    fill("..2");
    std::os::unix::fs::symlink("..2", at("..next")).expect("linked");
    std::fs::rename(at("..next"), at("..data")).expect("swapped");
    server.reload_if_changed();
    assert_ne!(server.facts()[0].serial, serial, "the new one is in force");
    meet(&server, authority.client(None)).await.expect("serving");
    // A file that goes away leaves the last one in force, and one that comes back is taken.
    let serial = server.facts()[0].serial.clone();
    std::fs::rename(at("..data"), at("..gone")).expect("moved");
    server.reload_if_changed();
    meet(&server, authority.client(None)).await.expect("serving");
    authority.leaf("server", "server");
    fill("..3");
    std::os::unix::fs::symlink("..3", at("..data")).expect("linked");
    server.reload_if_changed();
    assert_ne!(server.facts()[0].serial, serial);
}

fn serial_of(authority: &Authority, file: &str) -> Vec<u8> {
    let read = read(&authority.path(file)).expect("read");
    let shown = certificates(&read).expect("a certificate");
    let (_, parsed) = X509Certificate::from_der(&shown[0]).expect("a certificate");
    parsed.raw_serial().to_vec()
}

#[tokio::test]
async fn revoked_clients_and_those_of_other_hosts_are_refused() {
    let authority = Authority::new("acme");
    authority.leaf("server", "server");
    authority.leaf("good", "good");
    authority.leaf("bad", "bad");
    let entry = rcgen::RevokedCertParams {
        serial_number: serial_of(&authority, "bad.crt").into(),
        revocation_time: rcgen::date_time_ymd(2025, 1, 1),
        reason_code: None,
        invalidity_date: None,
    };
    let list = |entries: Vec<rcgen::RevokedCertParams>| {
        let parameters = rcgen::CertificateRevocationListParams {
            this_update: rcgen::date_time_ymd(2025, 1, 1),
            next_update: rcgen::date_time_ymd(2025, 1, 2),
            crl_number: 1_u64.into(),
            issuing_distribution_point: None,
            revoked_certs: entries,
            key_identifier_method: rcgen::KeyIdMethod::Sha256,
        };
        parameters.signed_by(&authority.issuer).expect("a list")
    };
    let revocations = authority.path("list.crl");
    std::fs::write(&revocations, list(vec![]).der()).expect("written");
    let files = ListenerFiles {
        revocations: Some(revocations.clone()),
        ..authority.files(ClientAuthentication::Required)
    };
    let server = ListenerTls::load(files.clone()).expect("TLS");
    meet(&server, authority.client(Some("bad"))).await.expect("not revoked yet");
    for text in [list(vec![entry]).pem().expect("PEM").into_bytes(), b"garbage".to_vec()] {
        std::fs::write(&revocations, text).expect("written");
        server.reload_if_changed();
        assert!(meet(&server, authority.client(Some("bad"))).await.is_err(), "revoked");
        meet(&server, authority.client(Some("good"))).await.expect("not revoked");
    }
    assert!(ListenerTls::load(files).is_err(), "a start takes no garbage");

    for (name, allowed) in [("localhost", true), ("elsewhere", false)] {
        let files = ListenerFiles {
            allowed_hostnames: vec!["db.example".to_owned(), name.to_owned()],
            ..authority.files(ClientAuthentication::Required)
        };
        let server = ListenerTls::load(files).expect("TLS");
        let met = meet(&server, authority.client(Some("good"))).await;
        assert_eq!(met.is_ok(), allowed, "{name}: {met:?}");
    }
    for (name, allowed) in [("good", true), ("bad", false)] {
        let files = ListenerFiles {
            allowed_common_names: vec![name.to_owned()],
            ..authority.files(ClientAuthentication::Required)
        };
        let server = ListenerTls::load(files).expect("TLS");
        let met = meet(&server, authority.client(Some("good"))).await;
        assert_eq!(met.is_ok(), allowed, "{name}: {met:?}");
    }
}

#[tokio::test]
async fn versions_and_suites_are_those_that_were_chosen() {
    let authority = Authority::new("acme");
    authority.leaf("server", "server");
    let only = |version: &'static rustls::SupportedProtocolVersion| {
        let read = read(&authority.path("ca.crt")).expect("read");
        ClientConfig::builder_with_provider(provider())
            .with_protocol_versions(&[version])
            .expect("a version")
            .with_root_certificates(roots(&read).expect("an authority"))
            .with_no_client_auth()
    };
    let suite = |name: &str| vec![name.to_owned()];
    let strong = "TLS_ECDHE_ECDSA_WITH_AES_256_GCM_SHA384";
    for (versions, suites, with12, with13) in [
        (Versions::Both, Vec::new(), true, true),
        (Versions::Tls12, Vec::new(), true, false),
        (Versions::Tls13, Vec::new(), false, true),
        (Versions::Both, suite(strong), true, true),
        // The key is of another kind: TLS 1.2 has no suite left that fits.
        (Versions::Both, suite("TLS_ECDHE_RSA_WITH_AES_256_GCM_SHA384"), false, true),
    ] {
        let files = ListenerFiles {
            versions,
            cipher_suites: suites.clone(),
            ..authority.files(ClientAuthentication::None)
        };
        let server = ListenerTls::load(files).expect("TLS");
        assert_eq!(
            meet(&server, only(&TLS12)).await.is_ok(),
            with12,
            "1.2 {versions:?} {suites:?}"
        );
        assert_eq!(
            meet(&server, only(&TLS13)).await.is_ok(),
            with13,
            "1.3 {versions:?} {suites:?}"
        );
    }
    let none = ListenerFiles {
        cipher_suites: suite("TLS_NOTHING"),
        ..authority.files(ClientAuthentication::None)
    };
    assert!(matches!(ListenerTls::load(none), Err(TlsFileError::NoSuite)));
}

#[test]
fn every_bad_file_is_named_with_what_it_should_hold() {
    let authority = Authority::new("acme");
    authority.leaf("server", "server");
    authority.leaf("other", "other");
    std::fs::write(authority.path("garbage"), "garbage").expect("written");
    let good = || authority.files(ClientAuthentication::Required);
    let cases: [(&str, ListenerFiles, &[&str]); 6] = [
        (
            "absent",
            ListenerFiles { certificate: authority.path("none.crt"), ..good() },
            &["none.crt", "cannot be read"],
        ),
        (
            "no certificate",
            ListenerFiles { certificate: authority.path("garbage"), ..good() },
            &["garbage", "should hold certificates", "none"],
        ),
        (
            "no key",
            ListenerFiles { key: authority.path("server.crt"), ..good() },
            &["server.crt", "a private key"],
        ),
        (
            "another key",
            ListenerFiles { key: authority.path("other.key"), ..good() },
            &["server.crt", "other.key", "together"],
        ),
        (
            "no authority",
            ListenerFiles { trusted_ca: Some(authority.path("garbage")), ..good() },
            &["garbage", "should hold certificates"],
        ),
        (
            "no trusted authority",
            ListenerFiles { trusted_ca: None, ..good() },
            &["--client-cert-auth needs --trusted-ca-file"],
        ),
    ];
    for (name, files, parts) in cases {
        let Err(error) = ListenerTls::load(files) else { panic!("{name} was accepted") };
        let error = error.to_string();
        assert!(parts.iter().all(|part| error.contains(part)), "{name}: {error}");
    }
}
