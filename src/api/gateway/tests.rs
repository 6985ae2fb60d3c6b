use std::collections::BTreeSet;

use super::*;

fn pool() -> DescriptorPool {
    let descriptors = include_bytes!(concat!(env!("OUT_DIR"), "/etcd.bin"));
    DescriptorPool::decode(&descriptors[..]).expect("the build wrote it")
}

/// RangeStream has none in etcd either.
#[test]
fn every_method_of_the_contract_has_a_path_and_every_path_a_method() {
    let mut methods = BTreeSet::new();
    for service in pool().services() {
        for method in service.methods() {
            methods.insert(format!("{}/{}", service.full_name(), method.name()));
        }
    }
    assert!(methods.remove("etcdserverpb.KV/RangeStream"), "it is in the contract");
    let reached: BTreeSet<_> = PATHS.iter().map(|(_, method)| (*method).to_owned()).collect();
    assert_eq!(reached, methods);
    let paths: BTreeSet<_> = PATHS.iter().map(|(path, _)| path).collect();
    assert_eq!(paths.len(), PATHS.len(), "a path stands for one method");
}

fn reread(message: &str, text: &str) -> Result<String, Status> {
    let descriptor = pool().get_message_by_name(message).expect("it is in the contract");
    let read = json::from_json(&descriptor, text.as_bytes())?;
    Ok(String::from_utf8(json::to_json(&read)?).expect("JSON is UTF-8"))
}

#[test]
fn json_is_read_and_written_as_etcds_gateway_does() {
    let range = |text| reread("etcdserverpb.RangeRequest", text).expect("a request");
    let written = r#"{"key":"Zm9v","range_end":"AA==","limit":"7","sort_order":"DESCEND"}"#;
    for text in [
        r#"{"key":"Zm9v","rangeEnd":"AA==","limit":7,"sortOrder":2}"#,
        r#"{"key":"Zm9v","range_end":"AA","limit":"7","sort_order":"DESCEND","more":[{}]} x"#,
        r#" {"key":"Zm9v","range_end":"AA==","limit":7.0,"sort_order":2,"revision":null}"#,
    ] {
        assert_eq!(range(text), written, "{text}");
    }
    assert_eq!(range(""), "{}");
    // Base64 for URLs is taken too, and a name that no enum has counts as not given.
    assert_eq!(range(r#"{"key":"-_8","sort_order":"NOPE"}"#), r#"{"key":"+/8="}"#);
    let event = r#"{"events":[{"type":"DELETE","kv":{"key":"YQ=="}}],"watch_id":"3"}"#;
    let watched = reread("etcdserverpb.WatchResponse", event).expect("a response");
    assert_eq!(watched, r#"{"watch_id":"3","events":[{"type":"DELETE","kv":{"key":"YQ=="}}]}"#);
}

#[test]
fn what_is_no_request_is_refused() {
    let why = |text| reread("etcdserverpb.RangeRequest", text).expect_err("no request");
    assert_eq!(why("x").message(), "invalid character 'x' looking for beginning of value");
    assert_eq!(why("{").message(), "unexpected EOF");
    for text in ["null", "7", "[]", r#"{"key":1}"#, r#"{"key":"?"}"#, r#"{"limit":"x"}"#] {
        assert_eq!(why(text).code(), Code::InvalidArgument, "{text}");
    }
    // Nesting is bounded before it takes any stack.
    let deep =
        format!("{}{}", r#"{"success":[{"requestTxn":"#.repeat(10_000), "}]}".repeat(10_000));
    let refused = reread("etcdserverpb.TxnRequest", &deep).expect_err("too deep");
    assert_eq!(refused.code(), Code::InvalidArgument);
}

#[test]
fn time_spans_are_grpcs() {
    assert_eq!(timeout("100m"), Some(Duration::from_millis(100)));
    assert_eq!(timeout("2S"), Some(Duration::from_secs(2)));
    for wrong in ["", "S", "-1S", "1s", "1é", "99999999999999999999S"] {
        assert_eq!(timeout(wrong), None, "{wrong}");
    }
}
