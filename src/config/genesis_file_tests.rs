use super::*;
use crate::config::{PublicFile, SignatureFile, assemble};
use crate::crypto::{Ed25519, Scheme};

fn signer(n: u8) -> Ed25519 {
    Ed25519::from_seed(&[n; 32])
}

fn public_file(name: &str, n: u8) -> PublicFile {
    PublicFile {
        name: name.to_owned(),
        key: signer(n).public_key(),
        governance_keys: vec![signer(n + 100).public_key()],
        client_urls: vec![format!("https://{name}.example:2379")],
        peer_address: format!("{name}.example:2380"),
    }
}

fn four() -> Vec<PublicFile> {
    [("delta", 3), ("acme", 0), ("cedar", 2), ("birch", 1)].map(|(n, k)| public_file(n, k)).into()
}

fn sealed() -> GenesisFile {
    let mut file = assemble(four(), [9; 32], Millis(1000), false).expect("assembled");
    for n in 0..4 {
        let member = &file.genesis.members[usize::from(n)];
        let (name, signature) = (member.name.clone(), signer(n).sign(&file.genesis.signed_bytes()));
        file.add(&name, signature).expect("signed");
    }
    file
}

#[test]
fn a_sealed_genesis_survives_its_file() {
    let file = sealed();
    assert_eq!(GenesisFile::parse(&file.to_json()).expect("parsed"), file);
    file.check_sealed().expect("complete");
    let names: Vec<&str> = file.genesis.members.iter().map(|m| m.name.as_str()).collect();
    assert_eq!(names, ["acme", "birch", "cedar", "delta"]);
    assert_eq!(file.member_of(&signer(2).public_key()).expect("a member").name, "cedar");
    assert_eq!((file.quorum().n(), file.quorum().f(), file.quorum().q()), (4, 1, 3));
}

#[test]
fn the_order_of_the_files_does_not_matter() {
    let mut files = four();
    let one = assemble(files.clone(), [9; 32], Millis(0), false).expect("assembled");
    files.reverse();
    assert_eq!(assemble(files, [9; 32], Millis(0), false).expect("assembled"), one);
}

#[test]
fn whoever_has_not_signed_is_named() {
    let mut file = sealed();
    file.signatures.remove(&ReplicaId(1));
    file.signatures.remove(&ReplicaId(3));
    let why = file.check_sealed().expect_err("incomplete").to_string();
    assert!(why.contains("birch, delta") && why.contains("genesis sign"), "{why}");
}

#[test]
fn changed_text_is_refused_with_its_reason() {
    let text = sealed().to_json();
    let weak = "01".to_owned() + &"00".repeat(31);
    let key = signer(0).public_key().to_string();
    let table: [(&str, &str, &str); 12] = [
        ("\"demo\": false", "\"demo\": true", "hashes to"),
        ("\"window\": 4", "\"window\": 5", "hashes to"),
        ("\"window\": 4", "\"window\": 0", "must be 1 to 64"),
        ("birch.example:2380", "bjrch.example:2380", "hashes to"),
        ("\"name\": \"birch\"", "\"name\": \"acme\"", "the name acme appears twice"),
        ("\"id\": 1", "\"id\": 2", "its place says 1"),
        (&key, &weak, "replica key of acme is weak"),
        (&key, "abc", "the key of acme"),
        ("\"version\": 1", "\"version\": 2", "has version 2"),
        ("\"demo\"", "\"dmeo\"", "unknown field `dmeo`"),
        ("birch.example:2380", "acme.example:2380", "acme.example:2380 appears twice"),
        ("https://birch", "birch", "a client URL of birch"),
    ];
    for (from, to, expected) in table {
        let changed = text.replacen(from, to, 1);
        assert_ne!(changed, text, "{from}");
        let why = GenesisFile::parse(&changed).expect_err(from).to_string();
        assert!(why.contains(expected), "{from} -> {to}: {why}");
    }
    let why = GenesisFile::parse(&text[..text.len() / 2]).expect_err("cut").to_string();
    assert!(why.contains("not a genesis"), "{why}");
}

#[test]
fn signatures_count_only_for_their_member_and_network() {
    let mut file = sealed();
    let signature = file.signatures[&ReplicaId(0)];
    let why = file.add("birch", signature).expect_err("acme's").to_string();
    assert!(why.contains("birch"), "{why}");
    assert!(matches!(file.add("eve", signature), Err(GenesisError::NoMember(_))));
    let other = SignatureFile { name: "acme".into(), cluster_id: Digest([1; 32]), signature };
    let why = other.add_to(&mut file).expect_err("another network's").to_string();
    assert!(why.contains(&"01".repeat(32)), "{why}");
    let swapped = file.to_json().replacen(&to_hex(&signature.0), &"0".repeat(128), 1);
    let why = GenesisFile::parse(&swapped).expect_err("not a signature").to_string();
    assert!(why.contains("signature of acme"), "{why}");
}

#[test]
fn a_foreign_key_is_told_whom_the_network_knows() {
    let why = sealed().member_of(&signer(77).public_key()).expect_err("foreign").to_string();
    assert!(why.contains(&signer(77).public_key().to_string()), "{why}");
    assert!(why.contains("acme") && why.contains("delta") && why.contains("--home"), "{why}");
}

#[test]
fn members_that_share_a_key_are_refused() {
    let mut files = four();
    files[1].governance_keys = vec![files[2].key];
    let why = assemble(files, [0; 32], Millis(0), false).expect_err("shared").to_string();
    assert!(why.contains("appears twice"), "{why}");
    assert!(assemble(Vec::new(), [0; 32], Millis(0), false).is_err(), "nobody");
}
