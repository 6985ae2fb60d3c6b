use super::*;
use rcgen::{BasicConstraints, CertificateParams, DnType, IsCa, Issuer, KeyPair};
use rustls::pki_types::ServerName;
use tokio::io::{AsyncReadExt, AsyncWriteExt};

struct Authority {
    directory: tempfile::TempDir,
    issuer: Issuer<'static, KeyPair>,
}

impl Authority {
    fn new(name: &str) -> Self {
        let directory = tempfile::tempdir().expect("a directory");
        let key = KeyPair::generate().expect("a key");
        let mut parameters = CertificateParams::new(Vec::new()).expect("parameters");
        parameters.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        parameters.distinguished_name.push(DnType::CommonName, name);
        let certificate = parameters.self_signed(&key).expect("a certificate");
        std::fs::write(directory.path().join("ca.crt"), certificate.pem()).expect("written");
        Self { directory, issuer: Issuer::new(parameters, key) }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.directory.path().join(name)
    }

    fn leaf(&self, file: &str, common_name: &str) {
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
            revocations: None,
            client_authentication,
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
    let before = server.current.load_full();
    server.reload_if_changed();
    assert!(Arc::ptr_eq(&before, &server.current.load_full()), "nothing changed");
    std::fs::write(authority.path("server.crt"), "no certificate").expect("written");
    server.reload_if_changed();
    assert!(Arc::ptr_eq(&before, &server.current.load_full()), "the old one stays");
    meet(&server, authority.client(None)).await.expect("still serving");
    std::thread::sleep(core::time::Duration::from_millis(20));
    authority.leaf("server", "server");
    server.reload_if_changed();
    assert!(!Arc::ptr_eq(&before, &server.current.load_full()), "the new one is in force");
    meet(&server, authority.client(None)).await.expect("serving");
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
