use bytes::Bytes;
use proptest::prelude::*;

use super::*;
use crate::chain::{Permission, PermissionKind};
use crate::state::Span;

fn bytes(text: &str) -> Bytes {
    Bytes::copy_from_slice(text.as_bytes())
}

fn hash_value(text: &str) -> Value {
    Value { salt: [3; 16], bytes: bytes(text) }
}

fn do_all(auth: &mut Auth, organisation: u16, ops: &[AuthOp]) {
    for op in ops {
        let password = matches!(op, AuthOp::UserAdd { password: Some(_), .. });
        let password = password.then(|| hash_value("$2a$"));
        auth.change(OrgId(organisation), op, password).expect("a change that is allowed");
    }
}

fn slot() -> crate::chain::ValueSlot {
    crate::chain::ValueSlot { index: 0, commitment: Digest::ZERO }
}

fn grown() -> Auth {
    let mut auth = Auth::default();
    let permission = |kind, key: &str, end: &str| AuthOp::RoleGrantPermission {
        role: bytes("r"),
        permission: Some(Permission { kind, key: bytes(key), range_end: bytes(end) }),
    };
    do_all(
        &mut auth,
        2,
        &[
            AuthOp::UserAdd { name: bytes("root"), password: Some(slot()) },
            AuthOp::UserGrantRole { user: bytes("root"), role: bytes("root") },
            AuthOp::UserAdd { name: bytes("cert"), password: None },
            AuthOp::RoleAdd { name: bytes("r") },
            permission(PermissionKind::Read, "a", "b"),
            permission(PermissionKind::Write, "a", "c"),
            permission(PermissionKind::Read, "a", "c"),
            AuthOp::UserGrantRole { user: bytes("cert"), role: bytes("r") },
            AuthOp::Enable,
        ],
    );
    do_all(&mut auth, 1, &[AuthOp::RoleAdd { name: bytes("r") }]);
    auth
}

fn read_back(chunks: Vec<Bytes>) -> Result<Auth, DecodeError> {
    let mut auth = Auth::default();
    for chunk in chunks {
        let mut reader = Reader::new(chunk);
        assert_eq!(reader.u8("kind")?, 4);
        auth.read_chunk(&mut reader)?;
        reader.finish()?;
    }
    Ok(auth)
}

#[test]
fn chunks_give_back_the_same_users_and_the_same_root() {
    let auth = grown();
    let chunks = auth.chunks(4);
    assert_eq!(chunks.len(), 2, "one for each organisation");
    let again = read_back(chunks.clone()).expect("what was written");
    assert_eq!(again.root(), auth.root());
    assert_eq!(again.store(OrgId(2)), auth.store(OrgId(2)));
    let swapped = vec![chunks[1].clone(), chunks[0].clone()];
    assert!(read_back(swapped).is_err(), "organisations ascend");
    for length in 0..chunks[1].len() {
        let cut = chunks[1].slice(..length);
        assert!(length == 0 || read_back(vec![cut]).is_err(), "cut to {length} bytes");
    }
}

#[test]
fn the_root_shows_no_hash_and_yet_depends_on_it() {
    let (one, mut other) = (grown(), grown());
    let op = AuthOp::UserChangePassword { name: bytes("root"), password: Some(slot()) };
    other.change(OrgId(2), &op, Some(hash_value("$2b$"))).expect("root exists");
    assert_ne!(one.root(), other.root());
    let store = other.store(OrgId(2));
    assert!(store.honours_token(b"cert", 8), "of another user");
    assert!(!store.honours_token(b"root", store.revision - 1), "from before the password");
    assert!(store.honours_token(b"root", store.revision));
}

#[test]
fn an_organisation_touches_its_own_users_alone() {
    let mut auth = grown();
    let before = auth.store(OrgId(2)).clone();
    let op = AuthOp::UserDelete { name: bytes("cert") };
    assert_eq!(auth.change(OrgId(1), &op, None), Err(AuthError::UserNotFound));
    do_all(&mut auth, 1, &[AuthOp::UserAdd { name: bytes("cert"), password: None }]);
    assert_eq!(auth.store(OrgId(2)), &before);
    assert!(!auth.store(OrgId(1)).enabled && !auth.store(OrgId(9)).enabled);
}

#[test]
fn a_store_is_bounded_and_can_shrink_again() {
    let mut auth = Auth::default();
    let name = |number: usize| Bytes::from(format!("{number:0>250}"));
    let mut added = 0;
    let full = loop {
        let op = AuthOp::RoleAdd { name: name(added) };
        match auth.change(OrgId(0), &op, None) {
            Ok(()) => added += 1,
            Err(error) => break error,
        }
    };
    assert_eq!(full, AuthError::Full);
    assert!(auth.chunks(4)[0].len() <= AUTH_BYTES_MAX + 3, "a chunk is bounded");
    do_all(
        &mut auth,
        0,
        &[AuthOp::RoleDelete { name: name(0) }, AuthOp::RoleDelete { name: name(1) }],
    );
    do_all(&mut auth, 0, &[AuthOp::RoleAdd { name: name(0) }]);
}

/// Keys of up to two letters, so that ends and starts meet often.
fn key() -> impl Strategy<Value = Bytes> {
    prop::collection::vec(0_u8..4, 1..3).prop_map(Bytes::from)
}

fn range_end() -> impl Strategy<Value = Bytes> {
    prop_oneof![Just(Bytes::new()), Just(Bytes::from_static(&[0])), key()]
}

fn kind() -> impl Strategy<Value = PermissionKind> {
    prop_oneof![
        Just(PermissionKind::Read),
        Just(PermissionKind::Write),
        Just(PermissionKind::ReadWrite)
    ]
}

/// All keys of up to three letters, and one above any.
fn universe() -> Vec<Vec<u8>> {
    let mut keys = vec![vec![0xff; 4]];
    for a in 0_u8..5 {
        keys.push(vec![a]);
        for b in 0_u8..5 {
            keys.push(vec![a, b]);
            keys.extend((0_u8..5).map(|c| vec![a, b, c]));
        }
    }
    keys
}

proptest! {
    /// Against brute force: a span is allowed exactly if each of its keys is.
    #[test]
    fn a_span_is_permitted_exactly_if_each_key_of_it_is(
        permissions in prop::collection::vec((kind(), key(), range_end()), 0..6),
        (start, end) in (key(), range_end()),
        write in any::<bool>(),
    ) {
        let valid = |key: &Bytes, end: &Bytes| {
            !matches!(Span::new(key, end), Span::Until(start, end) if start >= end)
        };
        let permissions: Vec<Permission> = permissions
            .into_iter()
            .filter(|(_, key, end)| valid(key, end))
            .map(|(kind, key, range_end)| Permission { kind, key, range_end })
            .collect();
        let access = if write { Access::Write } else { Access::Read };
        let wrong = if write { PermissionKind::Read } else { PermissionKind::Write };
        let allowed = |key: &[u8]| permissions.iter().any(|one| {
            one.kind != wrong && Span::new(&one.key, &one.range_end).holds(key)
        });
        let span = Span::new(&start, &end);
        let found = rights::Rights::of(permissions.iter()).permit(span, access);
        let keys = universe();
        let mut inside = keys.iter().filter(|key| span.holds(key)).peekable();
        prop_assume!(inside.peek().is_some());
        prop_assert_eq!(found, inside.all(|key| allowed(key)));
    }
}
