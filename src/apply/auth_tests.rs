//! Users, roles and permissions as every replica applies them. Each of etcd's advisories about them that
//! reaches apply is a test here (docs/operating/auth.md, trust.md 3.9).

use bytes::Bytes;

use super::*;
use crate::apply::permission::{Need, need};
use crate::chain::{
    AlarmKind, AuthOp, Compare, CompareResult, CompareTarget, Permission, PermissionKind, Put,
    Range, Txn,
};
use crate::state::testing::{MapValues, Request, block, genesis, put, slot, value_target};
use crate::state::{AuthError, Snapshotter};
use crate::types::Digest;

/// The network of `genesis()`: replica n belongs to organisation n.
struct Network {
    state: State,
    values: MapValues,
    height: u64,
    seq: [u64; 4],
}

fn name(text: &str) -> Bytes {
    Bytes::copy_from_slice(text.as_bytes())
}

fn user(user: &str, auth_revision: u64) -> Author {
    Author { client_name: "test".into(), user: name(user), auth_revision }
}

impl Network {
    fn new() -> Self {
        let (state, values) = (State::genesis(&genesis()), MapValues::default());
        Self { state, values, height: 0, seq: [0; 4] }
    }

    fn outcome(
        &mut self,
        origin: u16,
        author: Author,
        (op, values): (Op, &[&'static str]),
    ) -> Outcome {
        self.height += 1;
        let seq = &mut self.seq[usize::from(origin)];
        let ops = vec![(op, values.to_vec())];
        let request = Request { origin, author, ..Request::new(*seq, ops) };
        *seq += 1;
        let time_ms = 1_000_000 + self.height;
        let (block, refs) = block(self.height, time_ms, vec![request], &mut self.values);
        execute(&mut self.state, &block, &refs, &self.values, ReplicaId(origin))
            .expect("values are there")
    }

    fn run(&mut self, origin: u16, author: Author, op: (Op, &[&'static str])) -> Reply {
        let (_, _, reply) = self.outcome(origin, author, op).replies.pop().expect("a reply");
        reply
    }

    /// The error of what a user of an organisation asks for, at the auth revision in force.
    fn refused(&mut self, origin: u16, who: &str, op: (Op, &[&'static str])) -> Option<AuthError> {
        let revision = self.revision(origin);
        match self.run(origin, user(who, revision), op) {
            Reply::Error { error: OpError::Auth(error), .. } => Some(error),
            Reply::Error { error, .. } => unreachable!("refused for something else: {error}"),
            _ => None,
        }
    }

    fn revision(&self, origin: u16) -> u64 {
        self.state.auth.store(OrgId(origin)).revision
    }

    fn auth(&mut self, origin: u16, ops: &[AuthOp]) {
        for op in ops {
            let password = matches!(op, AuthOp::UserAdd { password: Some(_), .. });
            let values: &[&str] = if password { &["$2a$04$hash"] } else { &[] };
            let op = (Op::Auth(Box::new(op.clone())), values);
            assert_eq!(self.refused(origin, "root", op), None);
        }
    }

    /// Organisation `origin` has root and alice, who may read and write ["k", "l"), and has switched
    /// authentication on.
    fn with_alice(origin: u16) -> Self {
        let mut network = Self::new();
        network.auth(origin, &rooted());
        network.auth(origin, &alice());
        network.auth(origin, &[AuthOp::Enable]);
        network
    }
}

fn rooted() -> [AuthOp; 2] {
    [
        AuthOp::UserAdd { name: name("root"), password: Some(slot()) },
        AuthOp::UserGrantRole { user: name("root"), role: name("root") },
    ]
}

fn alice() -> [AuthOp; 4] {
    [
        AuthOp::UserAdd { name: name("alice"), password: Some(slot()) },
        AuthOp::RoleAdd { name: name("k") },
        grant("k", PermissionKind::ReadWrite, "k", "l"),
        AuthOp::UserGrantRole { user: name("alice"), role: name("k") },
    ]
}

fn grant(role: &str, kind: PermissionKind, key: &str, end: &str) -> AuthOp {
    let permission = Permission { kind, key: name(key), range_end: name(end) };
    AuthOp::RoleGrantPermission { role: name(role), permission: Some(permission) }
}

fn quiet(key: &str) -> Op {
    let Op::Put(put) = put(key) else { unreachable!("put makes puts") };
    Op::Put(Put { prev_kv: false, ..put })
}

fn leased(key: &str, lease: i64) -> Op {
    let Op::Put(put) = quiet(key) else { unreachable!("quiet makes puts") };
    Op::Put(Put { lease: LeaseId(lease), ..put })
}

fn delete(key: &str, end: &str, prev_kv: bool) -> Op {
    Op::DeleteRange(DeleteRange { key: name(key), range_end: name(end), prev_kv })
}

fn read(key: &str, end: &str) -> Op {
    Op::Range(Range { key: name(key), range_end: name(end), ..Range::default() })
}

fn nested(op: Op) -> Op {
    let inner = Txn { failure: vec![op], ..Txn::default() };
    Op::Txn(Txn { success: vec![Op::Txn(inner)], ..Txn::default() })
}

const DENIED: Option<AuthError> = Some(AuthError::PermissionDenied);

#[test]
fn a_user_does_what_the_roles_allow_and_nothing_else() {
    let mut network = Network::with_alice(0);
    assert_eq!(network.refused(0, "alice", (put("k1"), &["1"])), None);
    assert_eq!(network.refused(0, "alice", (quiet("l"), &["1"])), DENIED);
    assert_eq!(network.refused(0, "alice", (delete("k", "l", true), &[])), None);
    assert_eq!(network.refused(0, "alice", (delete("k", "m", false), &[])), DENIED);
    assert_eq!(network.refused(0, "nobody", (quiet("k1"), &["1"])), DENIED);
    assert_eq!(network.refused(0, "root", (quiet("z"), &["1"])), None);
    let anonymous = network.run(0, Author::default(), (quiet("k1"), &["1"]));
    let empty = OpError::Auth(AuthError::UserEmpty);
    assert!(matches!(anonymous, Reply::Error { error, .. } if error == empty));
    assert_eq!(network.refused(0, "alice", (Op::CheckpointNow, &[])), DENIED);
    let compact = Op::Compact { revision: Revision(2) };
    assert_eq!(network.refused(0, "alice", (compact.clone(), &[])), DENIED);
    assert_eq!(network.refused(0, "root", (compact, &[])), None);
}

/// The subject is (organisation, user): a replica can invent any user of its own organisation and none of
/// another's (faults.md B18).
#[test]
fn a_user_of_one_organisation_is_nobody_at_another() {
    let mut network = Network::with_alice(0);
    network.auth(1, &rooted());
    network.auth(1, &[AuthOp::Enable]);
    assert_eq!(network.refused(1, "alice", (quiet("k1"), &["1"])), DENIED);
    assert_eq!(network.refused(0, "alice", (quiet("k1"), &["1"])), None);
    let delete = AuthOp::UserDelete { name: name("alice") };
    let foreign = network.refused(1, "root", (Op::Auth(Box::new(delete)), &[]));
    assert_eq!(foreign, Some(AuthError::UserNotFound));
    // One organisation's switch is its own: the others go on without users.
    assert_eq!(network.refused(2, "", (quiet("k1"), &["1"])), None);
}

/// CVE-2026-33343: what is nested is checked as what is not, and both branches are.
#[test]
fn a_nested_transaction_is_checked_to_its_depth() {
    let mut network = Network::with_alice(0);
    assert_eq!(network.refused(0, "alice", (nested(quiet("z")), &["1"])), DENIED);
    assert_eq!(network.refused(0, "alice", (nested(read("z", "")), &[])), DENIED);
    assert_eq!(network.refused(0, "alice", (nested(nested(quiet("z"))), &["1"])), DENIED);
    assert_eq!(network.refused(0, "alice", (nested(nested(quiet("k1"))), &["1"])), None);
    let compare = |key: &str, target| Compare {
        result: CompareResult::Equal,
        target,
        key: name(key),
        range_end: Bytes::new(),
    };
    let asks = |key: &str| Txn {
        compares: vec![compare(key, CompareTarget::Version(0))],
        ..Txn::default()
    };
    assert_eq!(network.refused(0, "alice", (Op::Txn(asks("z")), &[])), DENIED);
    assert_eq!(network.refused(0, "alice", (nested(Op::Txn(asks("z"))), &[])), DENIED);
    assert_eq!(network.refused(0, "alice", (Op::Txn(asks("k")), &[])), None);
    let guess = Txn { compares: vec![compare("z", value_target())], ..Txn::default() };
    assert_eq!(network.refused(0, "alice", (Op::Txn(guess), &["secret"])), DENIED);
    assert!(network.state.kv.get(b"z").is_none(), "nothing of a refused transaction is done");
}

/// CVE-2026-44283: a previous version is a read, and a lease is shared.
#[test]
fn prev_kv_needs_the_right_to_read_and_a_lease_the_right_to_its_keys() {
    let mut network = Network::with_alice(0);
    let writes = [
        AuthOp::RoleAdd { name: name("w") },
        grant("w", PermissionKind::Write, "w", "x"),
        AuthOp::UserAdd { name: name("writer"), password: None },
        AuthOp::UserGrantRole { user: name("writer"), role: name("w") },
    ];
    network.auth(0, &writes);
    assert_eq!(network.refused(0, "writer", (quiet("w1"), &["1"])), None);
    assert_eq!(network.refused(0, "writer", (put("w1"), &["1"])), DENIED);
    assert_eq!(network.refused(0, "writer", (delete("w1", "", true), &[])), DENIED);
    let inside = |op| Op::Txn(Txn { success: vec![op], ..Txn::default() });
    assert_eq!(network.refused(0, "writer", (inside(put("w1")), &["1"])), DENIED);
    assert_eq!(network.refused(0, "writer", (inside(delete("w1", "", true)), &[])), DENIED);
    let lease = |id| Op::LeaseGrant { id: LeaseId(id), ttl_seconds: 100 };
    assert_eq!(network.refused(0, "root", (lease(7), &[])), None);
    assert_eq!(network.refused(0, "root", (leased("z", 7), &["1"])), None);
    assert_eq!(network.refused(0, "writer", (leased("w1", 7), &["1"])), DENIED);
    assert_eq!(network.refused(0, "writer", (inside(leased("w1", 7)), &["1"])), DENIED);
    for op in [Op::LeaseRevoke { id: LeaseId(7) }, Op::LeaseKeepAlive { id: LeaseId(7) }] {
        assert_eq!(network.refused(0, "writer", (op, &[])), DENIED);
    }
    assert_eq!(network.refused(0, "writer", (lease(8), &[])), None);
    assert_eq!(network.refused(0, "writer", (leased("w1", 8), &["1"])), None);
    assert_eq!(network.refused(0, "writer", (Op::LeaseRevoke { id: LeaseId(8) }, &[])), None);
    let anonymous = network.run(0, Author::default(), (lease(9), &[]));
    let empty = OpError::Auth(AuthError::UserEmpty);
    assert!(matches!(anonymous, Reply::Error { error, .. } if error == empty));
}

/// GHSA-xg4h-6gfc-h4m8: the right to one key is not the right to all behind it.
#[test]
fn the_right_to_one_key_does_not_open_a_range_from_it() {
    let mut network = Network::with_alice(0);
    let single = [
        AuthOp::RoleAdd { name: name("one") },
        grant("one", PermissionKind::ReadWrite, "k1", ""),
        AuthOp::UserAdd { name: name("single"), password: None },
        AuthOp::UserGrantRole { user: name("single"), role: name("one") },
    ];
    network.auth(0, &single);
    assert_eq!(network.refused(0, "single", (quiet("k1"), &["1"])), None);
    assert_eq!(network.refused(0, "single", (delete("k1", "\0", false), &[])), DENIED);
    let inside = |op| Op::Txn(Txn { success: vec![op], ..Txn::default() });
    assert_eq!(network.refused(0, "single", (inside(read("k1", "\0")), &[])), DENIED);
    assert_eq!(network.refused(0, "single", (inside(read("k1", "k2")), &[])), DENIED);
    assert_eq!(network.refused(0, "single", (inside(read("k1", "k1\0")), &[])), None);
    assert_eq!(network.refused(0, "alice", (inside(read("k1", "\0")), &[])), DENIED);
    // What answers reads and creates watches asks the same function.
    let author = user("single", network.revision(0));
    let subject = permission::Subject::new(&network.state, OrgId(0), &author);
    let range = |end: &str| Range { key: name("k1"), range_end: name(end), ..Range::default() };
    assert_eq!(subject.read(&range("\0")), Err(AuthError::PermissionDenied));
    assert_eq!(subject.read(&range("")), Ok(()));
}

#[test]
fn an_op_under_an_older_auth_revision_does_nothing() {
    let mut network = Network::with_alice(0);
    let before = network.revision(0);
    network.auth(0, &[AuthOp::RoleAdd { name: name("later") }]);
    let reply = network.run(0, user("alice", before), (quiet("k1"), &["1"]));
    let old = OpError::Auth(AuthError::OldRevision);
    assert!(matches!(reply, Reply::Error { error, .. } if error == old), "{reply:?}");
    assert_eq!(network.refused(0, "alice", (quiet("k1"), &["1"])), None);
}

#[test]
fn who_may_not_write_raises_no_alarm() {
    let mut network = Network::with_alice(0);
    let filler: &'static str = Box::leak("x".repeat(99_000).into_boxed_str());
    assert_eq!(network.refused(0, "root", (quiet("z"), &[filler])), None);
    let large: &'static str = Box::leak("x".repeat(2_000).into_boxed_str());
    assert_eq!(network.refused(0, "nobody", (quiet("z2"), &[large])), DENIED);
    assert!(!network.state.alarms.is_raised(AlarmKind::NoSpace));
    let reply = network.run(0, user("alice", network.revision(0)), (quiet("k"), &[large]));
    assert!(matches!(reply, Reply::Error { error: OpError::NoSpace, .. }), "{reply:?}");
    assert!(network.state.alarms.is_raised(AlarmKind::NoSpace));
}

#[test]
fn a_login_is_told_to_the_shell_and_changes_no_right() {
    let mut network = Network::with_alice(0);
    let (token, revision) = (Digest([9; 32]), network.revision(0));
    let login = |who: &str| Op::Auth(Box::new(AuthOp::Authenticate { user: name(who), token }));
    let root = network.state.exec_root();
    let outcome = network.outcome(0, Author::default(), (login("alice"), &[]));
    let told =
        Login { organisation: OrgId(0), user: name("alice"), token, auth_revision: revision };
    assert_eq!(outcome.logins, [told]);
    assert_eq!(network.revision(0), revision);
    assert_ne!(network.state.exec_root(), root, "the block is counted");
    // Another organisation has no such user, and has not switched authentication on.
    assert!(network.outcome(1, Author::default(), (login("alice"), &[])).logins.is_empty());
    assert!(network.outcome(0, Author::default(), (login("nobody"), &[])).logins.is_empty());
}

#[test]
fn a_snapshot_carries_users_and_roles() {
    let network = Network::with_alice(2);
    let mut state = network.state.clone();
    let mut snapshotter = Snapshotter::begin(&mut state);
    let mut chunks = Vec::new();
    while let Some(bytes) = snapshotter.next_chunk(&state, &network.values).expect("kept") {
        let segment = 1 << 31 | u32::try_from(chunks.len()).expect("few chunks");
        chunks.push(crate::state::KeptChunk { bytes, segment, base: 0 });
    }
    let again = State::restore(&genesis(), chunks.clone()).expect("what was written");
    assert_eq!(again.exec_root(), network.state.exec_root());
    assert_eq!(again.auth.store(OrgId(2)), network.state.auth.store(OrgId(2)));
    let without = chunks.into_iter().enumerate().filter(|(at, _)| *at != 1).map(|(_, chunk)| chunk);
    assert!(State::restore(&genesis(), without).is_err(), "a store is missing");
}

#[test]
fn the_table_lets_nobody_but_root_govern() {
    for op in rooted().into_iter().chain(alice()).chain([AuthOp::Enable, AuthOp::Disable]) {
        assert_eq!(need(&Op::Auth(Box::new(op))), Need::Root);
    }
    assert_eq!(need(&Op::CheckpointNow), Need::Root);
    assert_eq!(need(&Op::LeaseRevoke { id: LeaseId(1) }), Need::User);
}
