use std::net::Ipv4Addr;

use super::*;
use crate::tls::listener::tests::Authority;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio_rustls::LazyConfigAcceptor;

const HOME: IpAddr = IpAddr::V4(Ipv4Addr::LOCALHOST);

fn pair(authority: &Authority, name: &str) -> Option<(PathBuf, PathBuf)> {
    Some((authority.path(&format!("{name}.crt")), authority.path(&format!("{name}.key"))))
}

fn files(authority: &Authority, name: &str) -> ExchangeFiles {
    ExchangeFiles {
        certificate: pair(authority, name),
        trusted_ca: Some(authority.path("ca.crt")),
        ..ExchangeFiles::default()
    }
}

fn load(files: ExchangeFiles) -> ExchangeTls {
    ExchangeTls::load(files).expect("good files")
}

/// One asks another at `host`, from `from`; why either refuses.
async fn meet(
    (asker, from): (&ExchangeTls, IpAddr),
    (answerer, host): (&ExchangeTls, &'static str),
) -> Result<(), String> {
    let (near, far) = tokio::io::duplex(1 << 16);
    let connector = asker.connector().map_err(|error| error.to_string())?;
    let dial = async {
        let name = ServerName::try_from(host).expect("a name");
        let mut stream = connector.connect(name, near).await.map_err(|e| e.to_string())?;
        stream.read_u8().await.map_err(|e| e.to_string())
    };
    let accept = async {
        let first = LazyConfigAcceptor::new(rustls::server::Acceptor::default(), far);
        let start = first.await.map_err(|e| e.to_string())?;
        assert!(ExchangeTls::is_offered(&start.client_hello()));
        let config = answerer.server().ok_or("it has no certificate")?;
        let mut stream = start.into_stream(config).await.map_err(|e| e.to_string())?;
        answerer.check_address(stream.get_ref().1, from).await?;
        stream.write_all(b"y").await.map_err(|e| e.to_string())?;
        stream.flush().await.map_err(|e| e.to_string())
    };
    let (dialled, accepted) = tokio::join!(dial, accept);
    match (dialled, accepted) {
        (Ok(_), Ok(())) => Ok(()),
        (dialled, accepted) => Err(format!("{dialled:?} / {accepted:?}")),
    }
}

#[tokio::test]
async fn members_of_one_authority_meet_and_strangers_are_refused_on_both_sides() {
    let (ours, theirs) = (Authority::new("ours"), Authority::new("theirs"));
    for (authority, name) in [(&ours, "a"), (&ours, "b"), (&theirs, "c")] {
        authority.leaf(name, name);
    }
    let (a, b) = (load(files(&ours, "a")), load(files(&ours, "b")));
    assert_eq!(meet((&a, HOME), (&b, "localhost")).await, Ok(()));
    assert_eq!(meet((&b, HOME), (&a, "localhost")).await, Ok(()));
    let why = meet((&a, HOME), (&b, "example.org")).await.expect_err("another host");
    assert!(why.contains("not valid for name"), "{why}");
    let c = load(files(&theirs, "c"));
    let why = meet((&a, HOME), (&c, "localhost")).await.expect_err("another authority");
    assert!(why.contains("UnknownIssuer"), "{why}");
    let trusting = ExchangeFiles { certificate: pair(&theirs, "c"), ..files(&ours, "a") };
    let why = meet((&load(trusting), HOME), (&a, "localhost")).await.expect_err("it shows theirs");
    assert!(why.contains("UnknownIssuer") || why.contains("UnknownCA"), "{why}");
    let silent = ExchangeFiles { certificate: None, ..files(&ours, "a") };
    let why = meet((&load(silent), HOME), (&a, "localhost")).await.expect_err("it shows none");
    assert!(why.contains("no certificates") || why.contains("CertificateRequired"), "{why}");
    // What it shows as a client may be another one.
    let other = ExchangeFiles { client: pair(&ours, "b"), ..files(&theirs, "c") };
    let other = ExchangeFiles { trusted_ca: Some(ours.path("ca.crt")), ..other };
    assert_eq!(meet((&load(other), HOME), (&a, "localhost")).await, Ok(()));
}

#[tokio::test]
async fn allowed_names_count_on_both_sides_and_addresses_on_the_answerers() {
    let ours = Authority::new("ours");
    ours.leaf("a", "member a");
    ours.leaf("b", "member b");
    let named = |who: &str, allowed: &str| ExchangeFiles {
        allowed_common_names: vec![allowed.to_owned()],
        ..files(&ours, who)
    };
    let a = load(files(&ours, "a"));
    assert_eq!(meet((&a, HOME), (&load(named("b", "member a")), "localhost")).await, Ok(()));
    assert!(meet((&a, HOME), (&load(named("b", "other")), "localhost")).await.is_err());
    assert_eq!(meet((&load(named("b", "member a")), HOME), (&a, "localhost")).await, Ok(()));
    assert!(meet((&load(named("b", "other")), HOME), (&a, "localhost")).await.is_err());
    let hosts = ExchangeFiles { allowed_hostnames: vec!["x.org".into()], ..files(&ours, "b") };
    assert!(meet((&a, HOME), (&load(hosts), "localhost")).await.is_err());
    // Its certificate is for localhost, which leads elsewhere than this.
    let elsewhere = IpAddr::from([192, 0, 2, 1]);
    let b = load(files(&ours, "b"));
    let why = meet((&a, elsewhere), (&b, "localhost")).await.expect_err("from another address");
    assert!(why.contains("not for its address 192.0.2.1"), "{why}");
    let lax = load(ExchangeFiles { any_address: true, ..files(&ours, "b") });
    assert_eq!(meet((&a, elsewhere), (&lax, "localhost")).await, Ok(()));
}

#[tokio::test]
async fn certificates_made_at_start_encrypt_and_check_nobody() {
    let (one, two) = (Authority::new("one"), Authority::new("two"));
    one.leaf("a", "a");
    two.leaf("b", "b");
    let made = |authority: &Authority, name: &str| {
        let certificate = pair(authority, name);
        load(ExchangeFiles { certificate, self_made: true, ..ExchangeFiles::default() })
    };
    let (a, b) = (made(&one, "a"), made(&two, "b"));
    assert_eq!(meet((&a, HOME), (&b, "example.org")).await, Ok(()));
    // Who checks others finds no authority behind them.
    let checking = ExchangeFiles { self_made: false, ..files(&one, "a") };
    assert!(meet((&load(checking), HOME), (&b, "localhost")).await.is_err());
}

#[tokio::test]
async fn new_files_count_at_the_next_question_and_broken_ones_stop_only_who_asks() {
    let ours = Authority::new("ours");
    ours.leaf("a", "a");
    ours.leaf("b", "b");
    let (a, b) = (load(files(&ours, "a")), load(files(&ours, "b")));
    let next = Authority::new("next");
    next.leaf("a", "a");
    next.leaf("b", "b");
    let over = |name: &str| {
        for file in [format!("{name}.crt"), format!("{name}.key"), "ca.crt".to_owned()] {
            std::fs::copy(next.path(&file), ours.path(&file)).expect("copied");
        }
    };
    let before = b.facts();
    over("a");
    over("b");
    assert_eq!(meet((&a, HOME), (&b, "localhost")).await, Ok(()));
    assert_ne!(b.facts(), before);
    std::fs::write(ours.path("b.crt"), "no certificate").expect("written");
    assert_eq!(meet((&a, HOME), (&b, "localhost")).await, Ok(()), "it answers with the last good");
    let why = meet((&b, HOME), (&a, "localhost")).await.expect_err("it cannot ask");
    assert!(why.contains("b.crt should hold certificates"), "{why}");
}

#[test]
fn what_cannot_be_used_is_told_at_the_start() {
    let ours = Authority::new("ours");
    ours.leaf("a", "a");
    ours.leaf("b", "b");
    let mixed = Some((ours.path("a.crt"), ours.path("b.key")));
    for files in [
        ExchangeFiles { certificate: mixed.clone(), ..files(&ours, "a") },
        ExchangeFiles { client: mixed, ..files(&ours, "a") },
        ExchangeFiles { trusted_ca: Some(ours.path("none.crt")), ..files(&ours, "a") },
        ExchangeFiles { revocations: Some(ours.path("a.key")), ..files(&ours, "a") },
        ExchangeFiles { allowed_hostnames: vec!["a b".into()], ..files(&ours, "a") },
    ] {
        assert!(ExchangeTls::load(files.clone()).is_err(), "{files:?}");
    }
    let none = load(ExchangeFiles::default());
    assert!(none.server().is_none() && none.facts().is_empty());
}
