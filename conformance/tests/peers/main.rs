//! What is compared with etcd's own Go modules rather than with a running server.

use std::collections::{BTreeMap, BTreeSet};

use conformance::client::contract;
use conformance::peers;
use prost_reflect::{Cardinality, EnumDescriptor, FieldDescriptor, Kind, MessageDescriptor};
use serde_json::Value as Json;

type Lines = BTreeMap<String, BTreeSet<String>>;

/// Fields and messages that only etcd itself uses on disk or between members are not ours.
const NOT_ON_THE_CLIENT_WIRE: [&str; 5] = [
    "etcdserverpb.InternalRaftRequest",
    "etcdserverpb.InternalAuthenticateRequest",
    "etcdserverpb.RequestHeader",
    "etcdserverpb.EmptyResponse",
    "etcdserverpb.Metadata",
];

#[test]
fn contracts_are_those_compiled_into_etcd() {
    if !peers::available("peers::contracts", &["descriptors"]) {
        return;
    }
    let output = peers::command("descriptors").output().expect("descriptors runs");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let theirs: Json = serde_json::from_slice(&output.stdout).expect("JSON");
    let mut differences = Vec::new();
    compare(&read(&theirs["services"]), &our_services(), &mut differences);
    compare(&read(&theirs["messages"]), &our_messages(), &mut differences);
    compare(&read(&theirs["enums"]), &our_enums(), &mut differences);
    assert!(differences.is_empty(), "proto/etcd differs from etcd:\n{}", differences.join("\n"));
}

fn read(found: &Json) -> Lines {
    let object = found.as_object().expect("an object");
    let lines = |value: &Json| -> BTreeSet<String> {
        let list = value.as_array().map_or(&[][..], Vec::as_slice);
        list.iter().map(|line| line.as_str().expect("a line").to_owned()).collect()
    };
    object.iter().map(|(name, value)| (name.clone(), lines(value))).collect()
}

fn compare(theirs: &Lines, ours: &Lines, differences: &mut Vec<String>) {
    for name in theirs.keys().chain(ours.keys()).collect::<BTreeSet<_>>() {
        match (theirs.get(name), ours.get(name)) {
            (Some(_), None) if NOT_ON_THE_CLIENT_WIRE.contains(&name.as_str()) => {}
            (Some(_), None) => differences.push(format!("{name}: missing here")),
            (None, _) => differences.push(format!("{name}: unknown to etcd")),
            (Some(theirs), Some(ours)) => {
                let theirs_only =
                    theirs.difference(ours).map(|line| format!("{name}: etcd has {line}"));
                let ours_only =
                    ours.difference(theirs).map(|line| format!("{name}: we have {line}"));
                differences.extend(theirs_only.chain(ours_only));
            }
        }
    }
}

fn is_etcds(package: &str) -> bool {
    package != "grpc.health.v1"
}

fn our_services() -> Lines {
    let stream = |yes: bool| if yes { "stream " } else { "" };
    let services = contract().services().filter(|s| is_etcds(s.package_name()));
    services
        .map(|service| {
            let methods = service.methods().map(|method| {
                format!(
                    "{}({}{}) returns ({}{})",
                    method.name(),
                    stream(method.is_client_streaming()),
                    method.input().full_name(),
                    stream(method.is_server_streaming()),
                    method.output().full_name()
                )
            });
            (service.full_name().to_owned(), methods.collect())
        })
        .collect()
}

fn our_messages() -> Lines {
    let messages = contract().all_messages().filter(|m| is_etcds(m.package_name()));
    let lines = |message: &MessageDescriptor| message.fields().map(|f| line(&f)).collect();
    messages.map(|message| (message.full_name().to_owned(), lines(&message))).collect()
}

fn our_enums() -> Lines {
    let enums = contract().all_enums().filter(|e| is_etcds(e.package_name()));
    let lines = |descriptor: &EnumDescriptor| {
        descriptor.values().map(|v| format!("{} = {}", v.name(), v.number())).collect()
    };
    enums.map(|descriptor| (descriptor.full_name().to_owned(), lines(&descriptor))).collect()
}

/// A field as the Go program prints it.
fn line(field: &FieldDescriptor) -> String {
    let kind = match field.kind() {
        Kind::Message(message) => message.full_name().to_owned(),
        Kind::Enum(descriptor) => descriptor.full_name().to_owned(),
        scalar => format!("{scalar:?}").to_lowercase(),
    };
    let cardinality = match field.cardinality() {
        Cardinality::Optional => "optional",
        Cardinality::Required => "required",
        Cardinality::Repeated => "repeated",
    };
    let oneof = field.containing_oneof().map_or(String::new(), |o| format!(" in {}", o.name()));
    let packed = if field.is_packed() { " packed" } else { "" };
    format!("{} = {} {cardinality} {kind}{oneof}{packed}", field.name(), field.number())
}
