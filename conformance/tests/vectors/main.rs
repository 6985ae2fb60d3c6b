//! Golden bytes: what is hashed, signed, stored or sent stays what it was. `conformance/vectors` holds a
//! file per type, a line `name hex` per item.
//!
//! A difference is a change of the format. If it is meant, write the files anew with
//! `ALTHING_VECTORS=write cargo test -p conformance --test vectors` and say so in the commit, in a
//! line that begins with `Format:`.

mod evidence;
mod samples;

use std::fmt::Write;
use std::path::Path;
use std::sync::Arc;

use althing::apply::Reply;
use althing::chain::{
    Answer, CertificateError, CheckpointCertificate, CheckpointVote, ConfigChange, EpochProof,
    Genesis, Hello, Network, Op, Phase, Question, Record, Value, ValueError, ValueRef, ValueSource,
    possession_bytes,
};
use althing::codec::{Decode, Encode};
use althing::crypto::{Context, Scheme, SignedKind, hash_many_64, merkle_root, signed_bytes};
use althing::ordering::Message;
use althing::state::{Snapshotter, State};
use althing::storage::checkpoint::{CheckpointParts, CheckpointWriter, manifest_path};
use althing::storage::disk::{Disk, Open};
use althing::storage::identity::{IDENTITY_PATH, claim};
use althing::storage::log::{LogSettings, ReplayMark, recover, segment_path};
use althing::types::{Digest, Epoch, Height, LogPosition, ReplicaId, View};
use bytes::Bytes;
use conformance::sim::disk::SimDisk;

fn hex(bytes: &[u8]) -> String {
    bytes.iter().fold(String::new(), |mut out, byte| {
        write!(out, "{byte:02x}").expect("a string takes what is written");
        out
    })
}

/// Compares the named items with their file, or writes it.
fn golden(file: &str, items: &[(&str, Bytes)]) {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("vectors").join(file);
    let lines: String =
        items.iter().map(|(name, bytes)| format!("{name} {}\n", hex(bytes))).collect();
    if std::env::var("ALTHING_VECTORS").as_deref() == Ok("write") {
        std::fs::write(&path, lines).expect("the vectors' folder can be written");
        return;
    }
    let kept = std::fs::read_to_string(&path).unwrap_or_default();
    let changed: Vec<&str> = lines
        .lines()
        .filter(|line| !kept.lines().any(|other| other == *line))
        .filter_map(|line| line.split(' ').next())
        .collect();
    assert!(
        kept == lines,
        "vectors/{file} differs in {changed:?}: the format of stored, sent or signed bytes changed. If \
         that is meant: ALTHING_VECTORS=write cargo test -p conformance --test vectors, and a line \
         `Format:` in the commit"
    );
}

fn digest_item(digest: Digest) -> Bytes {
    Bytes::copy_from_slice(&digest.0)
}

/// One value has one encoding: it decodes to itself, no truncation decodes, and a changed byte is either
/// refused or is the encoding of another value.
fn canonical<T: Encode + Decode>(bytes: &Bytes) {
    let again = T::from_bytes(bytes.clone()).expect("what was encoded decodes").to_bytes();
    assert_eq!(again, *bytes, "the encoding of what was decoded");
    for length in 0..bytes.len() {
        assert!(T::from_bytes(bytes.slice(..length)).is_err(), "cut to {length} bytes");
    }
    let mut longer = bytes.to_vec();
    longer.push(0);
    assert!(T::from_bytes(Bytes::from(longer)).is_err(), "a byte too many");
    for at in 0..bytes.len() {
        for change in [1, 0x80, 0xff] {
            let mut other = bytes.to_vec();
            other[at] ^= change;
            let other = Bytes::from(other);
            if let Ok(value) = T::from_bytes(other.clone()) {
                assert_eq!(value.to_bytes(), other, "byte {at} changed by {change:#x}");
            }
        }
    }
}

#[test]
fn genesis_and_membership_keep_their_bytes() {
    let genesis = samples::genesis();
    let imported = Genesis { initial: Some(Digest([77; 32])), ..genesis.clone() };
    golden(
        "genesis.hex",
        &[
            ("bytes", genesis.to_bytes()),
            ("cluster_id", digest_item(genesis.cluster_id())),
            ("signed", Bytes::copy_from_slice(&genesis.signed_bytes())),
            ("bytes_with_initial_state", imported.to_bytes()),
        ],
    );
    let membership = samples::membership();
    golden(
        "membership.hex",
        &[("bytes", membership.to_bytes()), ("config_hash", digest_item(membership.config_hash()))],
    );
    canonical::<althing::chain::Membership>(&membership.to_bytes());
}

#[test]
fn headers_keep_their_bytes() {
    let header = samples::header();
    golden("header.hex", &[("bytes", header.to_bytes()), ("hash", digest_item(header.hash()))]);
    canonical::<althing::chain::BlockHeader>(&header.to_bytes());
}

#[test]
fn bundles_and_values_keep_their_bytes() {
    let bundle = samples::bundle();
    golden(
        "bundle.hex",
        &[
            ("bytes", bundle.to_bytes()),
            ("digest", digest_item(bundle.digest())),
            ("signature", Bytes::copy_from_slice(&bundle.signature.0)),
        ],
    );
    canonical::<althing::chain::Bundle>(&bundle.to_bytes());
    let value = &samples::values()[0];
    golden(
        "value.hex",
        &[("bytes", value.to_bytes()), ("commitment", digest_item(value.commitment()))],
    );
    canonical::<althing::chain::Value>(&value.to_bytes());
}

#[test]
fn every_op_keeps_its_bytes() {
    let names = [
        "put",
        "delete_range",
        "txn",
        "compact",
        "lease_grant",
        "lease_revoke",
        "lease_keep_alive",
        "alarm",
        "checkpoint_now",
    ];
    let ops: Vec<Bytes> = samples::ops().iter().map(Encode::to_bytes).collect();
    assert_eq!(names.len(), ops.len(), "every op has a name");
    let items: Vec<(&str, Bytes)> = names.into_iter().zip(ops.iter().cloned()).collect();
    golden("op.hex", &items);
    ops.iter().for_each(canonical::<althing::chain::Op>);
}

#[test]
fn blocks_keep_their_bytes_and_lose_their_values_without_a_trace() {
    let block = samples::block();
    let erased = block.without_values();
    assert_eq!(erased.hash(), block.hash());
    golden(
        "block.hex",
        &[
            ("bytes", block.to_bytes()),
            ("hash", digest_item(block.hash())),
            ("body_root", digest_item(block.header.body_root)),
            ("without_values", erased.to_bytes()),
        ],
    );
    canonical::<althing::chain::Block>(&block.to_bytes());
    canonical::<althing::chain::Block>(&erased.to_bytes());
}

#[test]
fn votes_and_certificates_keep_their_bytes() {
    let vote = samples::vote(2, Phase::Commit);
    assert!(vote.verify(&samples::cluster_id(), &samples::membership(), &samples::key(0)));
    golden("vote.hex", &[("bytes", vote.to_bytes())]);
    canonical::<althing::chain::Vote>(&vote.to_bytes());
    let certificate = samples::certificate(Phase::Commit);
    let checked =
        certificate.check(&samples::cluster_id(), &samples::membership(), &samples::key(0));
    assert_eq!(checked, Ok(()));
    golden("certificate.hex", &[("bytes", certificate.to_bytes())]);
    canonical::<althing::chain::Certificate>(&certificate.to_bytes());
}

#[test]
fn checkpoint_votes_and_certificates_keep_their_bytes() {
    let (cluster_id, membership) = (samples::cluster_id(), samples::membership());
    let vote = samples::checkpoint_vote(2);
    assert!(vote.verify(&cluster_id, &membership, &samples::key(0)));
    let certificate = samples::checkpoint_certificate();
    let check =
        |threshold| certificate.check(&cluster_id, &membership, &samples::key(0), threshold);
    assert_eq!(check(3), Ok(()));
    assert_eq!(check(4), Err(CertificateError::TooFew));
    golden("checkpoint.hex", &[("vote", vote.to_bytes()), ("certificate", certificate.to_bytes())]);
    canonical::<CheckpointVote>(&vote.to_bytes());
    canonical::<CheckpointCertificate>(&certificate.to_bytes());
}

#[test]
fn effects_and_session_windows_keep_their_bytes() {
    golden("effects.hex", &[("bytes", samples::effects().to_bytes())]);
    canonical::<althing::chain::Effects>(&samples::effects().to_bytes());
    golden("session_window.hex", &[("bytes", samples::window().to_bytes())]);
    canonical::<althing::chain::SessionWindow>(&samples::window().to_bytes());
}

#[test]
fn every_record_keeps_its_bytes() {
    let block = samples::block();
    let records = [
        (
            "view_entered",
            Record::ViewEntered {
                epoch: Epoch(1),
                view: View(2),
                base_height: Height(8),
                base_hash: Digest([8; 32]),
            },
        ),
        (
            "view_change_sent",
            Record::ViewChangeSent {
                epoch: Epoch(1),
                view: View(3),
                message: Bytes::from_static(b"message"),
            },
        ),
        ("block", Record::Block(Arc::new(block))),
        ("prepared", Record::Prepared(samples::certificate(Phase::Prepare))),
        ("committed", Record::Committed(samples::certificate(Phase::Commit))),
        ("effects", Record::Effects(samples::effects())),
        ("checkpoint_stable", Record::CheckpointStable(samples::checkpoint_certificate())),
        ("epoch_start", Record::EpochStart(samples::epoch_proof())),
        ("fenced", Record::Fenced { reason: Bytes::from_static(b"the disk is empty") }),
        ("rejoined", Record::Rejoined(samples::certificate(Phase::Commit))),
        ("quarantined", Record::Quarantined { reason: Bytes::from_static(b"another root") }),
        ("session", Record::Session { counter: 5 }),
    ];
    let items: Vec<(&str, Bytes)> =
        records.iter().map(|(name, record)| (*name, record.to_bytes())).collect();
    golden("record.hex", &items);
    for (number, (_, record)) in (1..).zip(&records) {
        assert_eq!(record.tag(), number, "tags count up from 1");
        canonical::<Record>(&record.to_bytes());
    }
}

#[test]
fn every_message_keeps_its_bytes() {
    let messages = samples::messages();
    let items: Vec<(&str, Bytes)> =
        messages.iter().map(|(name, message)| (*name, message.to_bytes())).collect();
    golden("message.hex", &items);
    assert!(
        items.is_sorted_by(|(_, one), (_, two)| one[0] <= two[0]),
        "in the order of their tags"
    );
    items.iter().for_each(|(_, bytes)| canonical::<Message>(bytes));
}

#[test]
fn hashes_and_signed_bytes_stay_what_they_are() {
    let leaves: Vec<Digest> = (1..=5).map(|n| Digest([n; 32])).collect();
    let roots: Vec<Bytes> =
        (0..=5).map(|n| digest_item(merkle_root(&Context::BODY, &leaves[..n]))).collect();
    let names = ["root_0", "root_1", "root_2", "root_3", "root_4", "root_5"];
    golden("merkle.hex", &names.into_iter().zip(roots).collect::<Vec<_>>());

    let mut nodes = Vec::new();
    hash_many_64(&Context::STATE_NODE, &[[1; 64], [2; 64]], &mut nodes);
    golden("state_node.hex", &[("ones", digest_item(nodes[0])), ("twos", digest_item(nodes[1]))]);

    let kinds = [
        ("vote", SignedKind::Vote),
        ("view_change", SignedKind::ViewChange),
        ("new_view", SignedKind::NewView),
        ("checkpoint", SignedKind::Checkpoint),
        ("bundle", SignedKind::Bundle),
        ("rejoin", SignedKind::Rejoin),
        ("genesis", SignedKind::Genesis),
        ("tls_key", SignedKind::TlsKey),
        ("config_change", SignedKind::ConfigChange),
        ("possession", SignedKind::Possession),
        ("attestation", SignedKind::Attestation),
        ("hello", SignedKind::Hello),
    ];
    let signed = |kind| {
        let bytes = signed_bytes(kind, &Digest([1; 32]), Epoch(2), &Digest([3; 32]));
        Bytes::copy_from_slice(&bytes)
    };
    golden("signed.hex", &kinds.map(|(name, kind)| (name, signed(kind))));
}

/// The first `length` bytes of a file.
fn file_start(disk: &dyn Disk, path: &str, length: usize) -> Bytes {
    let file = disk.open(path, Open::Read).expect("it was written");
    let mut bytes = vec![0; length];
    file.read_at(0, &mut bytes).expect("it is as long");
    Bytes::from(bytes)
}

fn whole_file(disk: &dyn Disk, path: &str) -> Bytes {
    let length = disk.open(path, Open::Read).and_then(|file| file.len()).expect("it was written");
    file_start(disk, path, usize::try_from(length).expect("a small file"))
}

#[test]
fn networks_changes_and_epoch_proofs_keep_their_bytes() {
    let network = Network::of(&samples::genesis());
    let growing = samples::growing();
    let items = [
        ("bytes", network.to_bytes()),
        ("root", digest_item(network.root())),
        ("growing", growing.to_bytes()),
    ];
    golden("network.hex", &items);
    canonical::<Network>(&network.to_bytes());
    canonical::<Network>(&growing.to_bytes());
    let names = [
        "add",
        "promote",
        "remove",
        "replace",
        "rotate_key",
        "parameters",
        "reserve",
        "admit",
        "move",
    ];
    let changes = samples::changes();
    let bytes: Vec<(&str, Bytes)> =
        names.into_iter().zip(changes.iter().map(Encode::to_bytes)).collect();
    golden("config_change.hex", &bytes);
    let op = Op::Config(Box::new(changes[1].clone())).to_bytes();
    let signed = changes[0].signed_bytes(&samples::cluster_id());
    golden(
        "config_change_parts.hex",
        &[
            ("op", op.clone()),
            ("signed", Bytes::copy_from_slice(&signed)),
            ("possession", {
                let key = samples::key(9).public_key();
                Bytes::copy_from_slice(&possession_bytes(&samples::cluster_id(), &key))
            }),
            ("attestation", Bytes::copy_from_slice(&samples::attestation().signature.0)),
        ],
    );
    canonical::<Op>(&op);
    for change in &changes {
        canonical::<ConfigChange>(&change.to_bytes());
    }
    canonical::<EpochProof>(&samples::epoch_proof().to_bytes());
}

#[test]
fn what_founders_say_to_each_other_keeps_its_bytes() {
    let (cluster, hellos) = samples::founders();
    let genesis = cluster.genesis(&hellos).expect("all said hello");
    let hello = hellos["b"].clone();
    let question = Question::Found { seed: cluster.seed(), name: "a".into(), key: hellos["a"].key };
    let join = Question::Join {
        network: genesis.cluster_id(),
        peer_address: "http://127.0.0.1:4380".into(),
    };
    let signatures =
        (0..2_u8).map(|n| (ReplicaId(n.into()), samples::key(n).sign(&genesis.signed_bytes())));
    let agreed = Some((genesis.cluster_id(), signatures.collect()));
    let answers = [
        Answer::Member { hello: Box::new(hello.clone()), agreed: None },
        Answer::Member { hello: Box::new(hello.clone()), agreed },
        Answer::OtherCluster,
        Answer::OtherKey { network: genesis.cluster_id(), known: hello.key },
        Answer::Genesis(Bytes::from_static(b"{}")),
        Answer::Joined(vec![samples::epoch_proof()]),
        Answer::NotListed,
        Answer::NotNow("no leader".into()),
    ];
    let mut items = vec![
        ("seed", digest_item(cluster.seed())),
        ("genesis", genesis.to_bytes()),
        ("hello", hello.to_bytes()),
        ("question", question.to_bytes()),
        ("question_genesis", Question::Genesis.to_bytes()),
        ("question_join", join.to_bytes()),
    ];
    let names = [
        "member",
        "member_that_signed",
        "other_cluster",
        "other_key",
        "genesis_file",
        "joined",
        "not_listed",
        "not_now",
    ];
    items.extend(names.into_iter().zip(answers.iter().map(Encode::to_bytes)));
    golden("hello.hex", &items);
    canonical::<Hello>(&hello.to_bytes());
    canonical::<Question>(&question.to_bytes());
    canonical::<Question>(&join.to_bytes());
    answers.iter().for_each(|answer| canonical::<Answer>(&answer.to_bytes()));
}

#[test]
fn users_and_roles_keep_their_bytes() {
    let ops: Vec<(&str, Bytes)> = samples::auth_ops()
        .into_iter()
        .map(|(name, op)| (name, Op::Auth(Box::new(op)).to_bytes()))
        .collect();
    golden("auth_op.hex", &ops);
    ops.iter().for_each(|(_, bytes)| canonical::<Op>(bytes));
    let mut state = State::genesis(&samples::genesis());
    let block = samples::auth_block();
    let slots = block.bundles().map(|bundle| bundle.slots().len());
    let refs: Vec<Vec<ValueRef>> = slots.map(|count| vec![ValueRef::default(); count]).collect();
    let values = NoValues;
    let outcome = althing::apply::execute(&mut state, &block, &refs, &values, ReplicaId(1));
    let replies = outcome.expect("passwords come with the block").replies;
    let refused = |reply: &Reply| matches!(reply, Reply::Error { .. });
    // AuthEnable and the role granted before it is there.
    assert_eq!(replies.iter().filter(|(_, _, reply)| refused(reply)).count(), 2, "{replies:?}");
    let mut snapshotter = Snapshotter::begin(&mut state);
    let mut chunks = Vec::new();
    while let Some(chunk) = snapshotter.next_chunk(&state, &values).expect("no keys") {
        chunks.push(chunk);
    }
    golden("auth_state.hex", &[("chunk", chunks[1].clone())]);
}

/// There is no key in it.
struct NoValues;

impl ValueSource for NoValues {
    fn read(&self, at: ValueRef) -> Result<Value, ValueError> {
        Err(ValueError::Erased(at))
    }
}

#[test]
fn files_keep_their_bytes() {
    let disk = SimDisk::default();
    claim(&disk, &samples::cluster_id(), ReplicaId(2)).expect("nothing is there yet");
    let settings = LogSettings {
        cluster_id: samples::cluster_id(),
        replica: ReplicaId(2),
        salt: [7; 16],
        first_segment_bytes: 4096,
        segment_bytes: 4096,
    };
    let recovered = recover(&disk, &settings, ReplayMark::start(), &mut |_, _, _| {});
    let mut appender = recovered.expect("an empty log").appender;
    appender.append(LogPosition(1), &Record::Session { counter: 1 });
    appender.append(LogPosition(2), &Record::Committed(samples::certificate(Phase::Commit)));
    let batch = appender.take_batch().expect("two records");
    batch.write(&disk).expect("the disk works");
    let segment_end = batch.end.offset as usize;

    let mut writer = CheckpointWriter::begin(Arc::new(disk.clone())).expect("the disk works");
    writer.push(b"a chunk").expect("the disk works");
    let header = samples::header();
    let height = header.height;
    let parts = CheckpointParts {
        cluster_id: samples::cluster_id(),
        header,
        exec_root: Digest([3; 32]),
        exec_roots: vec![(height, Digest([3; 32]))],
        replay: appender.replay_mark(height),
    };
    let checkpoint = writer.finish(parts).expect("the disk works");
    golden(
        "files.hex",
        &[
            ("identity", whole_file(&disk, IDENTITY_PATH)),
            ("segment", file_start(&disk, &segment_path(1), segment_end)),
            ("manifest", whole_file(&disk, &manifest_path(height))),
            ("manifest_root", digest_item(checkpoint.manifest.root())),
        ],
    );
}
