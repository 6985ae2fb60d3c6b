use super::*;
use crate::crypto::Ed25519;
use crate::types::Digest;
use rustls::pki_types::ServerName;
use tokio::io::{AsyncReadExt, AsyncWriteExt};

const NETWORK: Digest = Digest([7; 32]);

fn seed(n: u16) -> Ed25519 {
    Ed25519::from_seed(&[u8::try_from(n + 1).expect("small"); 32])
}

fn table(ids: &[u16]) -> PeerTable {
    PeerTable::new(ids.iter().map(|id| (ReplicaId(*id), seed(*id).public_key())).collect())
}

fn replica(id: u16, network: Digest, key: Ed25519) -> PeerTls {
    PeerTls::new(ReplicaId(id), network, Arc::new(key), table(&[0, 1, 2])).expect("a TLS key")
}

/// Both ends of a handshake over a pipe, ended by one byte each way: with TLS 1.3 the dialler learns
/// only then that it was refused.
async fn meet(dialler: &PeerTls, expected: u16, acceptor: &PeerTls) -> Result<ReplicaId, String> {
    let (near, far) = tokio::io::duplex(1 << 16);
    let connector = dialler.connector(ReplicaId(expected)).expect("a connector");
    let dial = async {
        let name = ServerName::try_from("peer.althing").expect("a name");
        let mut stream = connector.connect(name, near).await.map_err(|e| e.to_string())?;
        stream.write_all(b"x").await.map_err(|e| e.to_string())?;
        stream.flush().await.map_err(|e| e.to_string())?;
        stream.read_u8().await.map_err(|e| e.to_string())
    };
    let accept = async {
        let mut stream = tokio_rustls::TlsAcceptor::from(acceptor.server())
            .accept(far)
            .await
            .map_err(|e| e.to_string())?;
        let peer = acceptor.peer_of(stream.get_ref().1).ok_or("nobody")?;
        stream.write_all(b"y").await.map_err(|e| e.to_string())?;
        stream.flush().await.map_err(|e| e.to_string())?;
        stream.read_u8().await.map_err(|e| e.to_string())?;
        Ok::<_, String>(peer)
    };
    let (dialled, accepted) = tokio::join!(dial, accept);
    match (dialled, accepted) {
        (Ok(_), Ok(peer)) => Ok(peer),
        (Err(dialled), Ok(_)) => Err(dialled),
        (Ok(_), Err(accepted)) => Err(accepted),
        (Err(dialled), Err(accepted)) => Err(format!("{dialled} / {accepted}")),
    }
}

#[tokio::test]
async fn members_of_one_network_know_each_other() {
    let (zero, one) = (replica(0, NETWORK, seed(0)), replica(1, NETWORK, seed(1)));
    assert_eq!(meet(&zero, 1, &one).await, Ok(ReplicaId(0)));
    assert_eq!(meet(&one, 0, &zero).await, Ok(ReplicaId(1)));
}

#[tokio::test]
async fn whoever_is_not_exactly_the_expected_member_is_refused() {
    let zero = replica(0, NETWORK, seed(0));
    let one = replica(1, NETWORK, seed(1));
    let thief = replica(1, NETWORK, seed(9));
    let foreigner = replica(1, Digest([8; 32]), seed(1));
    let removed = replica(5, NETWORK, seed(5));
    let namesake = replica(0, NETWORK, seed(0));
    for (who, expected, acceptor, reason) in [
        (&zero, 2, &one, "belongs to replica 2"),
        (&zero, 1, &thief, "not signed by the key of replica 1"),
        (&zero, 1, &foreigner, "not signed by the key of replica 1"),
        (&zero, 5, &removed, "which is no member"),
        (&thief, 0, &zero, "not signed by the key of replica 1"),
        (&removed, 0, &zero, "which is no member"),
        (&namesake, 0, &zero, "no member"),
    ] {
        let error = meet(who, expected, acceptor).await.expect_err("refused");
        assert!(error.contains(reason), "{reason}: {error}");
    }
}

#[test]
fn a_voucher_counts_for_one_key_one_holder_and_one_network() {
    let key = seed(1);
    let voucher = Voucher::sign(ReplicaId(1), Millis(1_000), (&NETWORK, &key), b"spki");
    let public = key.public_key();
    assert_eq!(voucher.verify(&NETWORK, &public, b"spki"), Ok(()));
    assert!(voucher.verify(&NETWORK, &public, b"other").is_err());
    assert!(voucher.verify(&Digest([8; 32]), &public, b"spki").is_err());
    assert!(voucher.verify(&NETWORK, &seed(2).public_key(), b"spki").is_err());
    let claimed = Voucher { replica: ReplicaId(2), ..voucher };
    assert!(claimed.verify(&NETWORK, &public, b"spki").is_err());
    let longer = Voucher { not_after_ms: Millis(2_000), ..voucher };
    assert!(longer.verify(&NETWORK, &public, b"spki").is_err());
}

/// faults.md T4: no clock, neither a peer's nor the own, keeps pinned keys from each other.
#[tokio::test]
async fn a_tls_key_past_its_time_links_all_the_same_and_is_replaced_by_its_holder() {
    let zero = replica(0, NETWORK, seed(0));
    // What replica 1 made when its clock was 40 years behind, or a process that was stopped so long.
    let verifier = verifier((ReplicaId(1), None), NETWORK, &table(&[0, 1, 2]));
    let old = issue_at(1_000, (ReplicaId(1), &NETWORK), &seed(1), verifier).expect("a TLS key");
    let one = replica(1, NETWORK, seed(1));
    let until = |tls: &PeerTls| {
        let (voucher, _) = voucher::open(&tls.issued.load().certificate).expect("an own one opens");
        voucher.not_after_ms.0
    };
    one.issued.store(Arc::new(Issued { renew_from_ms: u64::MAX, ..old }));
    assert!(until(&one) < unix_ms(), "past its time");
    assert_eq!(meet(&zero, 1, &one).await, Ok(ReplicaId(0)), "accepted there");
    assert_eq!(meet(&one, 0, &zero).await, Ok(ReplicaId(1)), "and here");
    assert!(until(&one) < unix_ms(), "it was that one");
    // Once its time to be replaced has come it is, at the next link.
    let old = one.issued.load_full();
    let due = Issued {
        certificate: old.certificate.clone(),
        key: old.key.clone_key(),
        renew_from_ms: 0,
        server: Arc::clone(&old.server),
    };
    one.issued.store(Arc::new(due));
    assert_eq!(meet(&one, 0, &zero).await, Ok(ReplicaId(1)));
    assert!(until(&one) > unix_ms() + LIFETIME_MS / 2);
}

#[test]
fn no_damage_to_a_certificate_makes_the_parser_panic() {
    let zero = replica(0, NETWORK, seed(0));
    let good = zero.current().certificate.to_vec();
    let (voucher, _) = voucher::open(&good).expect("an own certificate opens");
    for at in 0..good.len() {
        assert!(voucher::open(&good[..at]).is_err());
        let mut bad = good.clone();
        bad[at] ^= 0x41;
        if let Ok((found, spki)) = voucher::open(&bad) {
            let verified = found.verify(&NETWORK, &seed(0).public_key(), &spki);
            assert!(verified.is_err() || found == voucher, "byte {at}");
        }
    }
}
