use althing::apply::permission::Subject;
use althing::apply::{OpError, Reply};
use althing::chain::{AuthOp, Author, Op, Permission, PermissionKind};
use althing::state::{AuthStore, State};
use althing::types::{LeaseId, OrgId, ReplicaId};
use bytes::Bytes;

use crate::sim::checkers::model::names;
use crate::targets::Choices;
use crate::targets::chain::{Chain, Operands};
use crate::targets::transactions::Draw;

/// Of two organisations, each with users of the same names.
const ORGANISATIONS: u16 = 2;
const NAMES: [&[u8]; 4] = [b"alice", b"bob", b"root", b"nobody"];
const ROLES: [&[u8]; 3] = [b"reader", b"writer", b"root"];

/// Bytes that keys are made of here. Every bound of a permission is a key of at most two of them, or that
/// with a zero behind; so what is not allowed of a range begins at a key of at most three.
const LETTERS: [u8; 5] = [0, b'a', b'b', b'c', 0xff];

#[derive(Clone, Copy)]
enum Wish {
    See,
    Change,
}

/// Every key of at most three letters.
fn universe() -> Vec<Vec<u8>> {
    let mut all = vec![Vec::new()];
    let mut last = all.clone();
    for _ in 0..3 {
        let longer = |key: &Vec<u8>| LETTERS.map(|letter| [&key[..], &[letter]].concat());
        last = last.iter().flat_map(longer).collect();
        all.extend(last.clone());
    }
    all
}

/// The rules as one would say them, key by key.
struct Rules<'a> {
    universe: &'a [Vec<u8>],
    state: &'a State,
    store: &'a AuthStore,
    author: &'a Author,
}

impl Rules<'_> {
    fn is_root(&self) -> bool {
        let user = self.store.users.get(&self.author.user);
        user.is_some_and(|user| user.roles.contains(&b"root"[..]))
    }

    fn named(&self) -> bool {
        self.author.auth_revision != 0
    }

    fn key(&self, key: &[u8], wish: Wish) -> bool {
        let Some(user) = self.store.users.get(&self.author.user) else { return false };
        let allows = |permission: &Permission| {
            let kind = match wish {
                Wish::See => PermissionKind::Write,
                Wish::Change => PermissionKind::Read,
            };
            permission.kind != kind && names((&permission.key, &permission.range_end), key)
        };
        let roles = user.roles.iter().filter_map(|role| self.store.roles.get(role));
        let current = self.author.auth_revision >= self.store.revision;
        let any = roles.flat_map(|role| &role.permissions).any(allows);
        self.named() && current && (self.is_root() || any)
    }

    fn range(&self, key: &[u8], range_end: &[u8], wish: Wish) -> bool {
        let inside = self.universe.iter().filter(|one| names((key, range_end), one));
        self.key(key, wish) && inside.into_iter().all(|one| self.key(one, wish))
    }

    fn lease(&self, id: LeaseId) -> bool {
        let Some(lease) = self.state.leases.get(id) else { return true };
        self.is_root() || lease.keys.iter().all(|key| self.key(key, Wish::Change))
    }

    fn may(&self, op: &Op) -> bool {
        if !self.store.enabled {
            return true;
        }
        match op {
            Op::Put(put) => {
                self.key(&put.key, Wish::Change)
                    && self.lease(put.lease)
                    && (!put.prev_kv || self.key(&put.key, Wish::See))
            }
            Op::DeleteRange(delete) => {
                let (key, end) = (&delete.key, &delete.range_end);
                self.range(key, end, Wish::Change)
                    && (!delete.prev_kv || self.range(key, end, Wish::See))
            }
            Op::Range(range) => self.range(&range.key, &range.range_end, Wish::See),
            Op::Txn(txn) => {
                txn.compares.iter().all(|one| self.range(&one.key, &one.range_end, Wish::See))
                    && txn.success.iter().chain(&txn.failure).all(|op| self.may(op))
            }
            Op::LeaseGrant { .. } => self.named(),
            Op::LeaseRevoke { id } | Op::LeaseKeepAlive { id } => self.named() && self.lease(*id),
            Op::Compact { .. } | Op::Auth(_) => self.is_root(),
            other => unreachable!("{other:?} is not drawn"),
        }
    }
}

fn auth(op: AuthOp) -> Op {
    Op::Auth(Box::new(op))
}

fn name(choices: &mut Choices, all: &[&'static [u8]]) -> Bytes {
    Bytes::from_static(choices.among(all))
}

/// A change of users and roles.
fn change(choices: &mut Choices) -> AuthOp {
    let (user, role) = (name(choices, &NAMES), name(choices, &ROLES));
    match choices.byte() % 8 {
        0 => AuthOp::UserAdd { name: user, password: None },
        1 => AuthOp::UserDelete { name: user },
        2 => AuthOp::UserGrantRole { user, role },
        3 => AuthOp::UserRevokeRole { user, role },
        4 => AuthOp::RoleAdd { name: role },
        5 => {
            let (key, range_end) = (short_key(choices), range_end(choices));
            AuthOp::RoleRevokePermission { role, key, range_end }
        }
        _ => AuthOp::RoleGrantPermission { role, permission: Some(permission(choices)) },
    }
}

fn short_key(choices: &mut Choices) -> Bytes {
    let length = choices.byte() % 3;
    (0..length).map(|_| choices.among(&LETTERS)).collect()
}

fn range_end(choices: &mut Choices) -> Bytes {
    match choices.byte() % 4 {
        0 => Bytes::new(),
        1 => Bytes::from_static(b"\0"),
        _ => short_key(choices),
    }
}

fn permission(choices: &mut Choices) -> Permission {
    let kinds = [PermissionKind::Read, PermissionKind::Write, PermissionKind::ReadWrite];
    Permission {
        kind: choices.among(&kinds),
        key: short_key(choices),
        range_end: range_end(choices),
    }
}

/// Users, roles and permissions before authentication is on, at one organisation.
fn prepare(chain: &mut Chain, choices: &mut Choices, origin: ReplicaId) {
    let fixed = |name: &'static [u8]| Bytes::from_static(name);
    let mut ops: Vec<AuthOp> = Vec::new();
    for user in &NAMES[..3] {
        ops.push(AuthOp::UserAdd { name: fixed(user), password: None });
    }
    for role in ROLES {
        ops.push(AuthOp::RoleAdd { name: fixed(role) });
    }
    ops.push(AuthOp::UserGrantRole { user: fixed(b"root"), role: fixed(b"root") });
    for _ in 0..choices.byte() % 8 {
        let (role, permission) = (name(choices, &ROLES[..2]), Some(permission(choices)));
        ops.push(AuthOp::RoleGrantPermission { role, permission });
        let (user, role) = (name(choices, &NAMES[..2]), name(choices, &ROLES[..2]));
        ops.push(AuthOp::UserGrantRole { user, role });
    }
    if choices.byte() % 8 != 7 {
        ops.push(AuthOp::Enable);
    }
    let ops = ops.into_iter().map(|op| (Author::default(), auth(op))).collect();
    chain.execute(1, origin, ops, Operands::default());
}

/// Whoever of whichever organisation asks for whatever: it is done exactly if every key of it may be seen
/// or changed by him, asked one by one.
pub fn rbac_diff(data: &[u8]) {
    let mut choices = Choices::new(data);
    let (mut chain, universe) = (Chain::new(ORGANISATIONS), universe());
    for id in 0..ORGANISATIONS {
        prepare(&mut chain, &mut choices, ReplicaId(id));
    }
    for _ in 0..24 {
        if choices.is_empty() {
            break;
        }
        let id = u16::from(choices.byte()) % ORGANISATIONS;
        let (origin, organisation) = (ReplicaId(id), OrgId(id));
        let current = chain.state.auth.store(organisation).revision;
        let auth_revision = match choices.byte() % 8 {
            0 => 0,
            1 => current - 1,
            _ => current,
        };
        let user = name(&mut choices, &NAMES);
        let author = Author { user, auth_revision, ..Author::default() };
        let changes_users = choices.byte().is_multiple_of(4);
        let revision = chain.state.kv.revision().0;
        let mut draw = Draw { choices: &mut choices, operands: Operands::default(), revision };
        let op = if changes_users { auth(change(draw.choices)) } else { draw.op() };
        let operands = draw.operands;
        let store = chain.state.auth.store(organisation);
        let (state, author) = (&chain.state, &author);
        let rules = Rules { universe: &universe, state, store, author };
        let may = rules.may(&op);
        let told = Subject::new(state, organisation, author).may(&op);
        let before = (store.revision, revision);
        assert_eq!(told.is_ok(), may, "{told:?} of {author:?} who asks for {op:#?}");
        let asked = vec![(author.clone(), op.clone())];
        let replies = chain.execute(1, origin, asked, operands);
        let done = !matches!(replies[..], [Reply::Error { error: OpError::Auth(_), .. }]);
        // A change of users has errors of its own.
        assert!(done == may || changes_users && may, "{replies:?} to {author:?}, {op:#?}");
        if !may {
            let store = chain.state.auth.store(organisation);
            let after = (store.revision, chain.state.kv.revision().0);
            assert_eq!(after, before, "what was refused changed something");
        }
    }
}
