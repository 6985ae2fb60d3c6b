//! Who may change the members of a network of one owner, as every replica applies it (protocol.md 22.8).

use bytes::Bytes;

use super::*;
use crate::apply::permission::Subject;
use crate::chain::{
    AuthOp, BlockParts, ConfigAction, ConfigChange, ConfigError, Genesis, GenesisMember, Hello,
    Ownership, flags,
};
use crate::crypto::{Ed25519, Scheme};
use crate::state::testing::{MapValues, Request, block, genesis};
use crate::state::{AuthError, State};
use crate::types::{Digest, Epoch, Millis, OrgId};

/// Four members of one owner, and the block after the last.
struct Owned {
    state: State,
    values: MapValues,
    height: u64,
    seq: u64,
}

fn one_owner() -> Genesis {
    let genesis = genesis();
    let owned = |member: GenesisMember| GenesisMember { organisation: OrgId(0), ..member };
    let members = genesis.members.into_iter().map(owned).collect();
    Genesis { ownership: Ownership::One, members, ..genesis }
}

impl Owned {
    fn new() -> Self {
        let (state, values) = (State::genesis(&one_owner()), MapValues::default());
        Self { state, values, height: 0, seq: 0 }
    }

    /// Executes an op of a user; of a change whether it is in a CONFIG block is the voters' to say.
    fn run(&mut self, user: &str, op: Op, accepted: bool) -> Reply {
        self.height += 1;
        let author = Author { user: Bytes::copy_from_slice(user.as_bytes()), ..Author::default() };
        let request = Request { author, ..Request::new(self.seq, vec![(op, vec![])]) };
        self.seq += 1;
        let (mut block, refs) = block(self.height, self.height, vec![request], &mut self.values);
        if accepted {
            let header = BlockHeader { flags: flags::CONFIG, ..block.header };
            block = BlockParts::new(block.entries).into_block(header);
        }
        let outcome = execute(&mut self.state, &block, &refs, &self.values, ReplicaId(0))
            .expect("values are there");
        assert_eq!(outcome.administrators, self.state.administrators());
        self.ask_everybody();
        outcome.replies.into_iter().next().expect("a reply").2
    }

    fn auth(&mut self, op: AuthOp) {
        let reply = self.run("root", Op::Auth(Box::new(op)), false);
        assert!(matches!(reply, Reply::Auth { .. }), "{reply:?}");
    }

    fn change(&self, action: ConfigAction) -> Op {
        let base = self.state.network().membership.config_hash();
        let not_after_ms = Millis(u64::MAX);
        let change = ConfigChange { base, not_after_ms, action, attestation: None, votes: vec![] };
        Op::Config(Box::new(change))
    }

    /// Voters let pass in acceptance whom apply lets pass: the two never differ.
    fn ask_everybody(&self) {
        for name in ["", "root", "bob", "carol", "nobody"] {
            let author = Author { user: name.into(), ..Author::default() };
            let op = self.change(remove(1));
            let may = Subject::new(&self.state, OrgId(0), &author).may(&op).is_ok();
            assert_eq!(self.state.administrators().include(name.as_bytes()), may, "{name}");
        }
    }
}

fn remove(replica: u16) -> ConfigAction {
    ConfigAction::Remove { replica: ReplicaId(replica), accept_smaller_f: true }
}

fn name(text: &str) -> Bytes {
    Bytes::copy_from_slice(text.as_bytes())
}

fn user(text: &str) -> AuthOp {
    AuthOp::UserAdd { name: name(text), password: None }
}

fn grant(user: &str, role: &str) -> AuthOp {
    AuthOp::UserGrantRole { user: name(user), role: name(role) }
}

fn refused(reply: &Reply) -> Option<OpError> {
    match reply {
        Reply::Error { error, .. } => Some(*error),
        _ => None,
    }
}

#[test]
fn what_an_unauthorised_replica_asks_for_changes_no_member_at_any_replica() {
    let mut network = Owned::new();
    let made = network.run("", network.change(remove(3)), true);
    assert!(matches!(made, Reply::Config { epoch: Epoch(1), .. }), "anybody, without users");
    for op in [user("root"), grant("root", "root"), user("bob"), AuthOp::Enable] {
        network.auth(op);
    }
    let reserve = |voting| ConfigAction::Reserve { peer_address: "http://e:1".into(), voting };
    let to = ConfigAction::Move { replica: ReplicaId(1), peer_address: "http://f:1".into() };
    let before = network.state.network().clone();
    for action in [remove(2), reserve(true), to, ConfigAction::Promote { replica: ReplicaId(1) }] {
        for (who, why) in [
            ("", AuthError::UserEmpty),
            ("bob", AuthError::PermissionDenied),
            ("nobody", AuthError::UserNotFound),
        ] {
            let reply = network.run(who, network.change(action.clone()), false);
            assert_eq!(refused(&reply), Some(OpError::Auth(why)), "{action:?} by {who:?}");
        }
    }
    assert_eq!(*network.state.network(), before);
    // Root's word counts, once the voters have accepted it.
    let alone = network.run("root", network.change(remove(2)), false);
    assert_eq!(refused(&alone), Some(OpError::Config(ConfigError::ReplicaSignature)));
    let made = network.run("root", network.change(reserve(true)), true);
    assert!(matches!(made, Reply::Config { epoch: Epoch(2), added: Some(ReplicaId(4)), .. }));
}

#[test]
fn what_follows_from_a_members_having_been_added_needs_no_user() {
    let mut network = Owned::new();
    for op in [user("root"), grant("root", "root"), AuthOp::Enable] {
        network.auth(op);
    }
    let scheme: &dyn Scheme = &Ed25519::from_seed(&[9; 32]);
    let parameters = network.state.membership().parameters.clone();
    let hello =
        Hello::sign(Digest::ZERO, "e".into(), vec!["http://e:2".into()], (parameters, scheme));
    for (voting, id) in [(true, 4), (false, 5)] {
        let reserve = ConfigAction::Reserve { peer_address: format!("http://e:{id}"), voting };
        network.run("root", network.change(reserve), true);
    }
    let admit = ConfigAction::Admit { replica: ReplicaId(4), hello: Box::new(hello) };
    let made = network.run("", network.change(admit), true);
    assert!(matches!(made, Reply::Config { epoch: Epoch(3), .. }), "{made:?}");
    let promote = |id| ConfigAction::Promote { replica: ReplicaId(id) };
    // Added as a learner: its promotion is a decision, and somebody's.
    let denied = network.run("", network.change(promote(5)), false);
    assert_eq!(refused(&denied), Some(OpError::Auth(AuthError::UserEmpty)));
    let made = network.run("", network.change(promote(4)), true);
    assert!(matches!(made, Reply::Config { epoch: Epoch(4), .. }), "{made:?}");
}

#[test]
fn administrators_follow_roles_and_the_switch() {
    let mut network = Owned::new();
    let role = |text: &str| AuthOp::RoleAdd { name: name(text) };
    let revoke = |user: &str| AuthOp::UserRevokeRole { user: name(user), role: name("root") };
    for op in [
        user("root"),
        user("bob"),
        user("carol"),
        role("other"),
        role("root"),
        grant("root", "root"),
        AuthOp::Enable,
        grant("bob", "root"),
        grant("carol", "other"),
        revoke("bob"),
        grant("carol", "root"),
        AuthOp::UserDelete { name: name("carol") },
        AuthOp::Disable,
        AuthOp::Enable,
    ] {
        network.auth(op);
    }
}
