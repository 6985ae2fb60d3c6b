//! How what is known to differ is left out of the comparison; each by a row of the table.

use conformance::client::Failure;
use conformance::differences::known;
use prost_reflect::{DynamicMessage, Value};

/// The texts of errors that gRPC's libraries make.
const OF_THE_LIBRARY: [&str; 3] = ["grpc: ", "failed to decode Protobuf message", "proto:"];

/// A failure as it is compared.
pub fn failure(failure: &Failure) -> String {
    let _ = known("text of an error about a message that is none");
    let made_by_library = OF_THE_LIBRARY.iter().any(|text| failure.message.starts_with(text));
    match made_by_library {
        true => format!("error {}", failure.code),
        false => format!("error {} {:?}", failure.code, failure.message),
    }
}

/// The keys of a lease in one order.
pub fn sort_keys(reply: &mut DynamicMessage) {
    let _ = known("keys of `LeaseTimeToLive`");
    sort(reply, "keys");
}

/// A list that etcd makes from a Go map, in one order.
pub fn sort(reply: &mut DynamicMessage, list: &str) {
    let Some(mut value) = reply.get_field_by_name(list).map(|value| value.into_owned()) else {
        return;
    };
    if let Value::List(items) = &mut value {
        items.sort_by_cached_key(|item| match item {
            Value::Message(message) => message.to_text_format().into_bytes(),
            item => item.as_bytes().map(|bytes| bytes.to_vec()).unwrap_or_default(),
        });
        reply.set_field_by_name(list, value);
    }
}

/// A hash, whose number is each server's own.
pub fn hash(reply: &mut DynamicMessage, at_compaction: bool) {
    let _ = known("Hash, HashKV: the number");
    reply.clear_field_by_name("hash");
    if at_compaction {
        let _ = known("HashKV at the compacted revision: `compact_revision`");
        reply.clear_field_by_name("compact_revision");
    }
}

/// What a server says of itself, without sizes and places in its log. A leader is one or none.
pub fn status(reply: &mut DynamicMessage) {
    let _ = (known("`raft_term`, `raftIndex`"), known("`dbSize`"));
    let led = reply.get_field_by_name("leader").is_some_and(|leader| leader.as_u64() != Some(0));
    for name in ["raftIndex", "raftTerm", "raftAppliedIndex", "dbSize", "dbSizeInUse"] {
        reply.clear_field_by_name(name);
    }
    reply.set_field_by_name("leader", Value::U64(u64::from(led)));
    let storage = reply.get_field_by_name("storageVersion");
    if storage.is_some_and(|version| version.as_str() == Some("3.5.0")) {
        let _ = known("Status: `storageVersion` in the first seconds");
        reply.set_field_by_name("storageVersion", Value::String("3.7.0".to_owned()));
    }
}

/// The answer for a revision that is compacted: the hash kept of it, or that it is compacted.
pub fn compacted_hash(answer: Result<DynamicMessage, Failure>) -> String {
    let _ = known("HashKV at the revision of an earlier compaction");
    match answer {
        Err(failure) if !failure.message.ends_with("required revision has been compacted") => {
            self::failure(&failure)
        }
        _ => "a hash that was kept, or compacted".to_owned(),
    }
}

/// Whether Althing refuses bytes that Go reads.
pub fn is_strictly_refused(error: &prost::DecodeError) -> bool {
    let _ = known("a field of another wire type than its own");
    error.to_string().contains("wire type")
}

/// Whether etcd has ended in a panic, and the program with it.
pub fn is_the_end_of_etcd(answer: &str) -> bool {
    let _ = known("`ignore_value`, `ignore_lease` for a key that the same transaction has deleted");
    answer.starts_with("error Unknown \"transport error")
        || answer.contains("error trying to connect")
}
