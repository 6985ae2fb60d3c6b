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
    assert_eq!(checked(vec![delete_of(b"a", b"\0"), put_of(b"z")]), Ok(()), "as etcd has it");
    assert_eq!(checked(vec![delete_of(b"a", b"c"), delete_of(b"b", b"d")]), Ok(()));
    assert_eq!(checked(vec![nested(vec![put_of(b"a")], vec![put_of(b"a")])]), Ok(()));
    assert_eq!(checked(vec![nested(vec![put_of(b"a")], vec![delete_of(b"a", b"")])]), Ok(()));
    assert_eq!(checked(vec![nested(vec![put_of(b"a")], vec![]), put_of(b"a")]), duplicate);
    assert_eq!(
        checked(vec![
            nested(vec![], vec![delete_of(b"a", b"")]),
            nested(vec![put_of(b"a")], vec![]),
        ]),
        duplicate
    );
    assert_eq!(
        checked(vec![
            nested(vec![put_of(b"a")], vec![]),
            nested(vec![], vec![delete_of(b"a", b"")])
        ]),
        Ok(()),
        "as etcd has it"
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

fn bytes_of(byte: u8) -> Bytes {
    Bytes::copy_from_slice(&[byte])
}

proptest! {
    #[test]
    fn merged_ranges_hold_what_the_ranges_held(
        ranges in prop::collection::vec((0u8..20, 0u8..20), 0..10)
    ) {
        let mut deleted = Deleted::default();
        ranges.iter().for_each(|(start, end)| deleted.insert(bytes_of(*start), bytes_of(*end)));
        for key in 0..20 {
            let held = ranges.iter().any(|(start, end)| (*start..*end).contains(&key));
            prop_assert_eq!(deleted.contains(&bytes_of(key)), held);
        }
    }
}
