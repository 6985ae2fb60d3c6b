//! One fixed value of every type that is hashed, signed, stored or sent, rich enough to show every field.

use althing::chain::{
    AlarmAction, AlarmKind, Attestation, AuthOp, Author, Block, BlockHeader, BlockParts, Bundle,
    BundleParts, Certificate, Change, ChangeKind, CheckpointCertificate, CheckpointId,
    CheckpointVote, ChunkEntry, Compare, CompareResult, CompareTarget, ConfigAction, ConfigChange,
    DeleteRange, Effects, Entry, EpochProof, Evidence, Genesis, GenesisMember, Hello,
    InitialCluster, Manifest, Membership, Network, NewReplica, Op, Ownership, Parameters,
    Permission, PermissionKind, Phase, Put, REJOIN_SHIFT, Range, Rejoin, Reserved, SYSTEM_ORDINAL,
    SessionWindow, Skeleton, SortOrder, SortTarget, Txn, Value, ValueSlot, Vote, flags,
    possession_bytes,
};
use althing::crypto::{Ed25519, Scheme, Signature};
use althing::ordering::{
    Message, Mode, NewView, ReadAnswer, ReadNonce, ShownVotes, Standing, Status, ViewChange,
    VotesAnswer,
};
use althing::types::{
    ClusterId, Digest, Epoch, Height, LeaseId, Millis, OrgId, ReplicaId, Revision, View,
};
use bytes::Bytes;
use std::collections::BTreeMap;
use std::sync::Arc;

/// Member `n`'s key pair.
pub fn key(n: u8) -> Ed25519 {
    Ed25519::from_seed(&[n + 1; 32])
}

pub fn genesis() -> Genesis {
    let members = (0..4_u8)
        .map(|n| GenesisMember {
            id: ReplicaId(u16::from(n)),
            organisation: OrgId(u16::from(n)),
            name: ["acme", "bolt", "corp", "dune"][usize::from(n)].to_owned(),
            key: key(n).public_key(),
            governance_keys: vec![key(n + 100).public_key()],
            client_urls: vec![format!("https://127.0.0.1:{}", 2379 + u16::from(n) * 10)],
            peer_address: format!("127.0.0.1:{}", 2380 + u16::from(n) * 10),
        })
        .collect();
    Genesis {
        ownership: Ownership::Many,
        demo: false,
        salt: [7; 32],
        created_ms: Millis(1_790_000_000_000),
        members,
        parameters: Parameters::default(),
        initial: None,
    }
}

/// Two members that found a network of one owner, and what they say of themselves.
pub fn founders() -> (InitialCluster, BTreeMap<String, Hello>) {
    let urls = |port: u16| vec![format!("http://127.0.0.1:{port}")];
    let members = BTreeMap::from([("a".to_owned(), urls(2380)), ("b".to_owned(), urls(3380))]);
    let cluster = InitialCluster { token: "etcd-cluster".into(), members };
    let hello = |(name, n): (&str, u8)| {
        let urls = vec![format!("http://127.0.0.1:{}379", n + 2)];
        let signed = (Parameters::default(), &key(n) as &dyn Scheme);
        (name.to_owned(), Hello::sign(cluster.seed(), name.to_owned(), urls, signed))
    };
    let hellos = [("a", 0), ("b", 1)].into_iter().map(hello).collect();
    (cluster, hellos)
}

pub fn cluster_id() -> ClusterId {
    genesis().cluster_id()
}

pub fn membership() -> Membership {
    genesis().membership()
}

/// Values with salts nobody else would draw.
pub fn values() -> Vec<Value> {
    [&b"world"[..], b"old", b""]
        .into_iter()
        .zip(1_u8..)
        .map(|(bytes, n)| Value { salt: [n; 16], bytes: Bytes::from_static(bytes) })
        .collect()
}

fn author() -> Author {
    Author {
        client_name: Bytes::from_static(b"kube-apiserver"),
        user: Bytes::from_static(b"root"),
        auth_revision: 3,
    }
}

fn put(key: &'static [u8], value: Option<ValueSlot>) -> Op {
    Op::Put(Put {
        key: Bytes::from_static(key),
        value,
        lease: LeaseId(77),
        prev_kv: true,
        ignore_lease: false,
    })
}

fn delete(key: &'static [u8], end: &'static [u8]) -> DeleteRange {
    DeleteRange { key: Bytes::from_static(key), range_end: Bytes::from_static(end), prev_kv: true }
}

fn range() -> Range {
    Range {
        key: Bytes::from_static(b"a"),
        range_end: Bytes::from_static(b"b"),
        limit: 10,
        revision: 5,
        sort_order: SortOrder::Descend,
        sort_target: SortTarget::Mod,
        keys_only: true,
        count_only: false,
        min_mod_revision: 1,
        max_mod_revision: 2,
        min_create_revision: 3,
        max_create_revision: 4,
    }
}

fn compares(slot: ValueSlot) -> Vec<Compare> {
    let targets = [
        CompareTarget::Version(1),
        CompareTarget::Create(2),
        CompareTarget::Mod(3),
        CompareTarget::Value(slot),
        CompareTarget::Lease(4),
    ];
    let results = [
        CompareResult::Equal,
        CompareResult::Greater,
        CompareResult::Less,
        CompareResult::NotEqual,
        CompareResult::Equal,
    ];
    let key = Bytes::from_static(b"a");
    let compare =
        |(target, result)| Compare { result, target, key: key.clone(), range_end: Bytes::new() };
    targets.into_iter().zip(results).map(compare).collect()
}

/// One op of every kind, their value slots numbered from 0.
pub fn ops() -> Vec<Op> {
    let slots: Vec<ValueSlot> = values()
        .iter()
        .zip(0..)
        .map(|(value, index)| ValueSlot { index, commitment: value.commitment() })
        .collect();
    let nested = Txn { success: vec![put(b"c", None)], ..Txn::default() };
    vec![
        put(b"hello", Some(slots[0])),
        Op::DeleteRange(delete(b"a", b"\0")),
        Op::Txn(Txn {
            compares: compares(slots[1]),
            success: vec![put(b"a", Some(slots[2])), Op::Range(range())],
            failure: vec![Op::DeleteRange(delete(b"a", b"")), Op::Txn(nested)],
        }),
        Op::Compact { revision: Revision(9) },
        Op::LeaseGrant { id: LeaseId(77), ttl_seconds: 60 },
        Op::LeaseRevoke { id: LeaseId(78) },
        Op::LeaseKeepAlive { id: LeaseId(77) },
        Op::Alarm { action: AlarmAction::Deactivate, member: 0, kind: AlarmKind::NoSpace },
        Op::CheckpointNow,
    ]
}

/// One auth op of every kind; the slots of passwords are not numbered here.
pub fn auth_ops() -> Vec<(&'static str, AuthOp)> {
    let name = Bytes::from_static;
    let password = Some(ValueSlot { index: 0, commitment: values()[0].commitment() });
    let permission = Permission {
        kind: PermissionKind::ReadWrite,
        key: name(b"/app/"),
        range_end: name(b"/app0"),
    };
    let (user, role) = (name(b"alice"), name(b"app"));
    vec![
        ("enable", AuthOp::Enable),
        ("disable", AuthOp::Disable),
        (
            "authenticate",
            AuthOp::Authenticate { user: user.clone(), token: AuthOp::token_digest(b"secret") },
        ),
        ("user_add", AuthOp::UserAdd { name: user.clone(), password }),
        ("user_add_no_password", AuthOp::UserAdd { name: name(b"cert"), password: None }),
        ("user_delete", AuthOp::UserDelete { name: user.clone() }),
        ("user_change_password", AuthOp::UserChangePassword { name: user.clone(), password }),
        ("user_grant_role", AuthOp::UserGrantRole { user: user.clone(), role: role.clone() }),
        ("user_revoke_role", AuthOp::UserRevokeRole { user, role: role.clone() }),
        ("role_add", AuthOp::RoleAdd { name: role.clone() }),
        ("role_delete", AuthOp::RoleDelete { name: role.clone() }),
        (
            "role_grant_permission",
            AuthOp::RoleGrantPermission { role: role.clone(), permission: Some(permission) },
        ),
        (
            "role_revoke_permission",
            AuthOp::RoleRevokePermission { role, key: name(b"a"), range_end: name(b"\0") },
        ),
    ]
}

/// A block whose bundle does these auth ops, with a value for each password.
pub fn auth_block() -> Block {
    let mut values = Vec::new();
    let mut skeletons = Vec::new();
    for (name, op) in auth_ops() {
        // A login needs the switch on, and what is taken away would not be seen.
        let seen = !name.contains("delete") && !name.contains("revoke") && name != "authenticate";
        let mut op = Op::Auth(Box::new(op));
        op.for_each_slot(&mut |slot| {
            let index = values.len();
            let bytes = Bytes::from_static(b"$2a$10$a bcrypt hash");
            let value = Value { salt: [u8::try_from(index).expect("few"); 16], bytes };
            *slot = ValueSlot {
                index: u32::try_from(index).expect("few values"),
                commitment: value.commitment(),
            };
            values.push(value);
        });
        if seen {
            skeletons.push(Skeleton { author: author(), op });
        } else {
            assert!(values.len() <= 2, "what is left out has no password");
        }
    }
    // Behind the role's creation.
    let late = AuthOp::UserGrantRole {
        user: Bytes::from_static(b"alice"),
        role: Bytes::from_static(b"app"),
    };
    skeletons.push(Skeleton { author: author(), op: Op::Auth(Box::new(late)) });
    let parts = BundleParts {
        origin: ReplicaId(1),
        session: 1,
        first_seq: 0,
        not_after_ms: Millis(u64::MAX),
        skeletons,
        values,
    };
    let entries = vec![Entry::Bundle(Bundle::sign(parts, &cluster_id(), &key(1)))];
    BlockParts::new(entries).into_block(BlockHeader { flags: 0, height: Height(1), ..header() })
}

pub fn bundle() -> Bundle {
    let skeletons = ops().into_iter().map(|op| Skeleton { author: author(), op }).collect();
    let parts = BundleParts {
        origin: ReplicaId(1),
        session: (1 << 48) | 5,
        first_seq: 40,
        not_after_ms: Millis(1_790_000_009_000),
        skeletons,
        values: values(),
    };
    Bundle::sign(parts, &cluster_id(), &key(1))
}

pub fn header() -> BlockHeader {
    BlockHeader {
        flags: flags::GOVERNANCE,
        cluster_id: cluster_id(),
        epoch: Epoch(0),
        height: Height(9),
        view: View(2),
        proposer: ReplicaId(2),
        time_ms: Millis(1_790_000_003_000),
        parent: Digest([8; 32]),
        body_root: Digest([9; 32]),
        skeleton_len: 100,
        values_len: 200,
        n_ops: 3,
        exec_height: Height(5),
        exec_root: Digest([5; 32]),
        config_hash: membership().config_hash(),
    }
}

pub fn rejoin() -> Rejoin {
    Rejoin {
        epoch: Epoch(0),
        replica: ReplicaId(3),
        nonce: [0x33; 32],
        signature: Signature([0x44; 64]),
    }
}

pub fn block() -> Block {
    let entries = vec![Entry::Bundle(bundle()), Entry::Rejoin(rejoin())];
    BlockParts::new(entries).into_block(BlockHeader { flags: 0, ..header() })
}

pub fn vote(voter: u8, phase: Phase) -> Vote {
    let hashes = vec![Digest([8; 32]), block().hash()];
    let round = (phase, Epoch(0), View(2));
    Vote::sign(round, ReplicaId(u16::from(voter)), (Height(8), hashes), &cluster_id(), &key(voter))
}

pub fn certificate(phase: Phase) -> Certificate {
    Certificate {
        phase,
        epoch: Epoch(0),
        view: View(2),
        height: Height(9),
        block_hash: block().hash(),
        signatures: (0..3).map(|voter| vote(voter, phase).signed).collect(),
    }
}

pub fn checkpoint_vote(voter: u8) -> CheckpointVote {
    let id = CheckpointId {
        height: Height(9),
        block_hash: block().hash(),
        exec_root: Digest([5; 32]),
        manifest_root: Digest([6; 32]),
    };
    let replica = ReplicaId(u16::from(voter));
    CheckpointVote::sign(Epoch(0), replica, id, &cluster_id(), &key(voter))
}

pub fn checkpoint_certificate() -> CheckpointCertificate {
    let votes = (0..3).map(checkpoint_vote);
    CheckpointCertificate {
        epoch: Epoch(0),
        id: checkpoint_vote(0).id,
        signatures: votes.map(|vote| (vote.replica, vote.signature)).collect(),
    }
}

fn evidence() -> Evidence {
    let other = vec![Digest([8; 32]), Digest([6; 32])];
    let round = (Phase::Prepare, Epoch(0), View(2));
    let twin = Vote::sign(round, ReplicaId(2), (Height(8), other), &cluster_id(), &key(2));
    Evidence::double_vote(&vote(2, Phase::Prepare), &twin).expect("two blocks at one height")
}

/// One message of every kind, in the order of their tags.
pub fn messages() -> Vec<(&'static str, Message)> {
    let block = Arc::new(block());
    let (prepared, committed) = (certificate(Phase::Prepare), certificate(Phase::Commit));
    let view_change = |voter: u8| {
        Arc::new(ViewChange::sign(
            (Epoch(0), View(3)),
            ReplicaId(u16::from(voter)),
            (
                Some(prepared.clone()),
                (voter > 0).then(|| committed.clone()),
                (voter > 1).then(|| checkpoint_vote(0).id),
            ),
            &cluster_id(),
            &key(voter),
        ))
    };
    let shown = votes_answer(view_change(2));
    let view_changes = (0..3).map(view_change).collect();
    let new_view = NewView::sign((Epoch(0), View(3)), view_changes, &cluster_id(), &key(3));
    let nonce = ReadNonce { start: [5; 32], counter: 9 };
    let status = Status {
        epoch: Epoch(0),
        view: View(3),
        mode: Mode::ViewChange,
        unix_ms: Millis(1_790_000_000_000),
        committed: Height(9),
        executed: Height(8),
        stable: Height(4),
    };
    let answer = ReadAnswer { nonce, epoch: Epoch(0), mark: Height(10), committed: Height(9) };
    let votes = vec![vote(2, Phase::Prepare), vote(2, Phase::Commit)];
    let hash = block.hash();
    vec![
        (
            "pre_prepare",
            Message::PrePrepare { block: Arc::clone(&block), prepare: vote(2, Phase::Prepare) },
        ),
        ("votes", Message::Votes(votes)),
        ("view_change", Message::ViewChange(view_change(1))),
        ("new_view", Message::NewView(Arc::new(new_view))),
        ("status", Message::Status(status)),
        ("certificate", Message::Certificate(committed.clone())),
        ("bundle", Message::Bundle(bundle())),
        ("read_index", Message::ReadIndex { nonce }),
        ("read_answer", Message::ReadAnswer(answer)),
        ("read_proof", Message::ReadProof { mark: Height(10) }),
        ("get_blocks", Message::GetBlocks { from: Height(3), until: Height(9) }),
        ("blocks", Message::Blocks { blocks: vec![Arc::clone(&block)], certificate: committed }),
        ("get_body", Message::GetBody { hash }),
        ("body", Message::Body(block)),
        ("checkpoint", Message::Checkpoint(checkpoint_vote(2))),
        ("checkpoint_certificate", Message::CheckpointCertificate(checkpoint_certificate())),
        ("get_manifest", Message::GetManifest { root: Digest([6; 32]) }),
        (
            "manifest",
            Message::Manifest {
                root: Digest([6; 32]),
                content: Some((header(), Arc::new(manifest()))),
            },
        ),
        ("manifest_not_held", Message::Manifest { root: Digest([6; 32]), content: None }),
        ("get_chunk", Message::GetChunk { root: Digest([6; 32]), number: 7 }),
        (
            "chunk",
            Message::Chunk {
                root: Digest([6; 32]),
                number: 7,
                bytes: Some(Bytes::from_static(b"a chunk")),
            },
        ),
        ("chunk_not_held", Message::Chunk { root: Digest([6; 32]), number: 7, bytes: None }),
        ("rejoin", Message::Rejoin(signed_rejoin())),
        ("votes_question", Message::VotesQuestion { start_nonce: [5; 32] }),
        ("votes_answer", Message::VotesAnswer(Box::new(shown))),
        ("erased", Message::Erased { from: Height(3), certificate: checkpoint_certificate() }),
        ("shown", Message::Shown(Arc::new(vote(2, Phase::Commit)))),
        ("evidence", Message::Evidence(Arc::new(evidence()))),
        ("follow", Message::Follow { from: Height(9) }),
    ]
}

pub fn signed_rejoin() -> Rejoin {
    Rejoin::sign(Epoch(0), ReplicaId(3), [0x33; 32], &cluster_id(), &key(3))
}

fn votes_answer(view_change: Arc<ViewChange>) -> VotesAnswer {
    let votes = ShownVotes {
        commit: Some(Arc::new(vote(2, Phase::Commit))),
        prepare: None,
        proposal: Some(Arc::new(vote(2, Phase::Prepare))),
        view_change: Some(view_change),
        bundle: Some(bundle().header()),
    };
    VotesAnswer { nonce: [5; 32], from: [6; 32], standing: Standing::Started, votes }
}

/// A checkpoint of one chunk.
pub fn manifest() -> Manifest {
    Manifest {
        cluster_id: cluster_id(),
        height: Height(3),
        block_hash: header().hash(),
        exec_root: Digest([3; 32]),
        exec_roots: vec![(Height(2), Digest([2; 32])), (Height(3), Digest([3; 32]))],
        chunks: vec![ChunkEntry::of(b"a chunk")],
    }
}

pub fn effects() -> Effects {
    let change = |ordinal, kind, lease| Change {
        ordinal,
        revision: Revision(12),
        kind,
        key: Bytes::from_static(b"hello"),
        commitment: values()[0].commitment(),
        lease: LeaseId(lease),
    };
    Effects {
        height: Height(9),
        exec_root: Digest([5; 32]),
        changes: vec![
            change(0, ChangeKind::Put, 0),
            change(SYSTEM_ORDINAL, ChangeKind::Delete, 77),
        ],
    }
}

pub fn window() -> SessionWindow {
    let mut window = SessionWindow::default();
    for seq in [0, 1, 2, 5, 2050] {
        window.mark(7, seq);
    }
    assert!(window.rejoin(&[3; 32], Millis(1_790_000_000_000)));
    window.mark((1 << REJOIN_SHIFT) | 8, 2);
    window
}

pub fn attestation() -> Attestation {
    let at = (Height(41), Digest([6; 32]));
    Attestation::sign(ReplicaId(4), Epoch(1), at, &cluster_id(), &key(4))
}

/// One change of each kind, two organisations' votes on each.
pub fn changes() -> Vec<ConfigChange> {
    let new = key(9);
    let possession = new.sign(&possession_bytes(&cluster_id(), &new.public_key()));
    let replica = ReplicaId(4);
    let actions = [
        ConfigAction::Add(NewReplica {
            organisation: "elm".to_owned(),
            governance_keys: vec![key(19).public_key()],
            name: "elm".to_owned(),
            key: new.public_key(),
            possession,
            client_urls: vec!["https://127.0.0.1:2479".to_owned()],
            peer_address: "127.0.0.1:2480".to_owned(),
            observer: false,
        }),
        ConfigAction::Promote { replica },
        ConfigAction::Remove { replica, accept_smaller_f: true },
        ConfigAction::Replace { promoted: replica, removed: ReplicaId(2) },
        ConfigAction::RotateKey { replica, key: new.public_key(), possession },
        ConfigAction::Parameters(Parameters { window: 16, ..Parameters::default() }),
        ConfigAction::Reserve { peer_address: "http://127.0.0.1:2480".to_owned(), voting: true },
        ConfigAction::Admit { replica, hello: Box::new(founders().1["b"].clone()) },
        ConfigAction::Move { replica, peer_address: "http://127.0.0.1:2481".to_owned() },
    ];
    let change = |action| {
        let mut change = ConfigChange {
            base: membership().config_hash(),
            not_after_ms: Millis(1_790_000_009_000),
            action,
            attestation: None,
            votes: Vec::new(),
        };
        change.attestation = change.promoted().map(|_| attestation());
        change.vote(OrgId(1), &key(11), &cluster_id());
        change.vote(OrgId(0), &key(10), &cluster_id());
        change
    };
    actions.into_iter().map(change).collect()
}

/// A network of one owner with members that have not started.
pub fn growing() -> Network {
    let (cluster, hellos) = founders();
    let mut network = Network::of(&cluster.genesis(&hellos).expect("all said hello"));
    for (id, voting) in [(2, true), (3, false)] {
        let peer_address = format!("http://127.0.0.1:{id}380,http://127.0.0.2:{id}380");
        network.reserved.insert(ReplicaId(id), Reserved { peer_address, voting });
    }
    network.next_replica = 4;
    network
}

/// Of an ordinary block: the form counts here.
pub fn epoch_proof() -> EpochProof {
    EpochProof { block: Arc::new(block()), certificate: certificate(Phase::Commit) }
}
