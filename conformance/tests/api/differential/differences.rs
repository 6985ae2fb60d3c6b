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
    let Some(mut value) = reply.get_field_by_name("keys").map(|value| value.into_owned()) else {
        return;
    };
    if let Value::List(keys) = &mut value {
        keys.sort_by_key(|key| key.as_bytes().cloned());
        reply.set_field_by_name("keys", value);
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
