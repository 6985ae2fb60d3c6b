use super::*;
use proptest::prelude::*;

fn put_of(key: &'static [u8]) -> RequestOp {
    let put = PutRequest { key: Bytes::from_static(key), ..PutRequest::default() };
    RequestOp { request: Some(Request::RequestPut(put)) }
}

fn delete_of(key: &'static [u8], range_end: &'static [u8]) -> RequestOp {
    let delete = DeleteRangeRequest {
        key: Bytes::from_static(key),
        range_end: Bytes::from_static(range_end),
        prev_kv: false,
    };
    RequestOp { request: Some(Request::RequestDeleteRange(delete)) }
}

fn nested(success: Vec<RequestOp>, failure: Vec<RequestOp>) -> RequestOp {
    let request = TxnRequest { compare: Vec::new(), success, failure };
    RequestOp { request: Some(Request::RequestTxn(request)) }
}

fn checked(success: Vec<RequestOp>) -> Result<(), Refusal> {
    txn(&TxnRequest { compare: Vec::new(), success, failure: Vec::new() }, 128)
}

#[test]
fn a_key_may_change_once_in_a_transaction() {
    let duplicate = Err(Refusal::DuplicateKey);
    assert_eq!(checked(vec![put_of(b"a"), put_of(b"b")]), Ok(()));
    assert_eq!(checked(vec![put_of(b"a"), put_of(b"a")]), duplicate);
    assert_eq!(checked(vec![put_of(b"a"), delete_of(b"a", b"")]), duplicate);
    assert_eq!(checked(vec![delete_of(b"a", b"c"), put_of(b"b")]), duplicate);
    assert_eq!(checked(vec![delete_of(b"a", b"c"), put_of(b"c")]), Ok(()));
    assert_eq!(checked(vec![delete_of(b"a", b"\0"), put_of(b"z")]), duplicate);
    assert_eq!(checked(vec![delete_of(b"a", b"c"), delete_of(b"b", b"d")]), Ok(()));
    assert_eq!(checked(vec![nested(vec![put_of(b"a")], vec![put_of(b"a")])]), Ok(()));
    assert_eq!(checked(vec![nested(vec![put_of(b"a")], vec![delete_of(b"a", b"")])]), Ok(()));
    assert_eq!(checked(vec![nested(vec![put_of(b"a")], vec![]), put_of(b"a")]), duplicate);
    assert_eq!(
        checked(vec![
            nested(vec![put_of(b"a")], vec![]),
            nested(vec![], vec![delete_of(b"a", b"")])
        ]),
        duplicate
    );
}

#[test]
fn operations_are_counted_across_nesting() {
    let puts = |count: usize| vec![delete_of(b"a", b"b"); count];
    assert_eq!(checked(puts(128)), Ok(()));
    assert_eq!(checked(puts(129)), Err(Refusal::TooManyOperations));
    assert_eq!(checked(vec![nested(puts(127), vec![])]), Ok(()));
    assert_eq!(checked(vec![nested(puts(128), vec![])]), Err(Refusal::TooManyOperations));
    let deep = |depth: usize| (1..depth).fold(vec![], |inner, _| vec![nested(inner, vec![])]);
    assert_eq!(checked(deep(TXN_DEPTH_MAX)), Ok(()));
    assert_eq!(checked(deep(TXN_DEPTH_MAX + 1)), Err(Refusal::TooManyOperations));
}

#[test]
fn checks_come_in_the_order_of_etcd() {
    assert_eq!(checked(vec![RequestOp { request: None }]), Err(Refusal::KeyNotFound));
    assert_eq!(checked(vec![put_of(b""), RequestOp { request: None }]), Err(Refusal::EmptyKey));
    let mut request = RangeRequest { sort_order: 9, ..RangeRequest::default() };
    assert_eq!(range(&request), Err(Refusal::EmptyKey));
    request.key = Bytes::from_static(b"a");
    assert_eq!(range(&request), Err(Refusal::InvalidSortOption));
    let mut request = PutRequest {
        key: Bytes::from_static(b"a"),
        value: Bytes::from_static(b"v"),
        lease: 1,
        ignore_value: true,
        ignore_lease: true,
        ..PutRequest::default()
    };
    assert_eq!(put(&request), Err(Refusal::ValueProvided));
    request.value = Bytes::new();
    assert_eq!(put(&request), Err(Refusal::LeaseProvided));
}

/// Every choice of branches, as the lists of changes it makes; the naive truth.
fn choices(operations: &[RequestOp]) -> Vec<Vec<Request>> {
    let mut all = vec![Vec::new()];
    for operation in operations {
        let next: Vec<Vec<Request>> = match &operation.request {
            Some(Request::RequestTxn(nested)) => {
                choices(&nested.success).into_iter().chain(choices(&nested.failure)).collect()
            }
            Some(other) => vec![vec![other.clone()]],
            None => vec![Vec::new()],
        };
        all = all
            .iter()
            .flat_map(|head| next.iter().map(|tail| [&head[..], &tail[..]].concat()))
            .collect();
    }
    all
}

fn changes_one_key_twice(changes: &[Request]) -> bool {
    let covers = |delete: &DeleteRangeRequest, key: &Bytes| match delete.range_end.as_ref() {
        [] => *key == delete.key,
        [0] => *key >= delete.key,
        end => *key >= delete.key && key.as_ref() < end,
    };
    changes.iter().enumerate().any(|(at, change)| {
        let Request::RequestPut(put) = change else { return false };
        changes.iter().enumerate().any(|(other_at, other)| match other {
            Request::RequestPut(other) => at != other_at && other.key == put.key,
            Request::RequestDeleteRange(delete) => covers(delete, &put.key),
            _ => false,
        })
    })
}

fn operation() -> impl Strategy<Value = RequestOp> {
    const KEYS: [&[u8]; 7] = [b"a", b"b", b"c", b"d", b"e", b"f", b"g"];
    const ENDS: [&[u8]; 5] = [b"", b"\0", b"c", b"e", b"h"];
    let leaf = prop_oneof![
        prop::sample::select(&KEYS[..]).prop_map(put_of),
        (prop::sample::select(&KEYS[..]), prop::sample::select(&ENDS[..]))
            .prop_map(|(key, end)| delete_of(key, end)),
    ];
    leaf.prop_recursive(2, 12, 3, |inner| {
        let branch = || prop::collection::vec(inner.clone(), 0..3);
        (branch(), branch()).prop_map(|(success, failure)| nested(success, failure))
    })
}

proptest! {
    #[test]
    fn overlap_check_agrees_with_trying_every_choice(
        operations in prop::collection::vec(operation(), 0..5)
    ) {
        let twice = choices(&operations).iter().any(|changes| changes_one_key_twice(changes));
        let expected = if twice { Err(Refusal::DuplicateKey) } else { Ok(()) };
        prop_assert_eq!(checked(operations), expected);
    }
}
