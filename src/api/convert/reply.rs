use bytes::Bytes;
use prost::Message;

use crate::api::pb::etcdserverpb as pb;
use crate::api::pb::etcdserverpb::response_op::Response;
use crate::api::pb::mvccpb;
use crate::apply::{OpError, Reply};
use crate::chain::{ChangeKind, Range, SortTarget, ValueError, ValueSource};
use crate::state::{Event, KeyValue, RangeResult, finish_range};
use crate::types::Revision;

/// Why a reply cannot be put into words.
#[derive(Debug)]
pub(in crate::api) enum ResolveError {
    /// The op was refused when it was executed.
    Refused(OpError),
    /// A value it names cannot be read.
    Value(ValueError),
    /// It is not the kind of reply that was asked for.
    OtherKind,
}

impl From<ValueError> for ResolveError {
    fn from(error: ValueError) -> Self {
        Self::Value(error)
    }
}

/// Turns replies, which hold values by reference, into responses, which hold them.
pub(in crate::api) struct Replies<'a> {
    pub(in crate::api) values: &'a dyn ValueSource,
}

impl Replies<'_> {
    /// A reply to Put.
    pub(in crate::api) fn put(
        &self,
        reply: Reply,
    ) -> Result<(Revision, pb::PutResponse), ResolveError> {
        match reply {
            Reply::Put { revision, prev } => {
                let prev_kv = key_values(prev.as_slice(), self.values)?.pop();
                Ok((revision, pb::PutResponse { header: inner_header(revision), prev_kv }))
            }
            other => Err(refused(other)),
        }
    }

    /// A reply to DeleteRange.
    pub(in crate::api) fn delete_range(
        &self,
        reply: Reply,
    ) -> Result<(Revision, pb::DeleteRangeResponse), ResolveError> {
        match reply {
            Reply::DeleteRange { revision, deleted, prev } => {
                let prev_kvs = key_values(&prev, self.values)?;
                let header = inner_header(revision);
                Ok((revision, pb::DeleteRangeResponse { header, deleted, prev_kvs }))
            }
            other => Err(refused(other)),
        }
    }

    /// A reply to Txn.
    pub(in crate::api) fn txn(
        &self,
        reply: Reply,
    ) -> Result<(Revision, pb::TxnResponse), ResolveError> {
        match reply {
            Reply::Txn { revision, succeeded, responses } => {
                let responses = responses
                    .into_iter()
                    .map(|reply| self.operation(reply))
                    .collect::<Result<_, _>>()?;
                let header = inner_header(revision);
                Ok((revision, pb::TxnResponse { header, succeeded, responses }))
            }
            other => Err(refused(other)),
        }
    }

    /// One entry for each operation of the branch, also for a range that found nothing:
    /// kube-apiserver indexes them unchecked.
    fn operation(&self, reply: Reply) -> Result<pb::ResponseOp, ResolveError> {
        let response = match reply {
            Reply::Put { .. } => Response::ResponsePut(self.put(reply)?.1),
            Reply::DeleteRange { .. } => Response::ResponseDeleteRange(self.delete_range(reply)?.1),
            Reply::Range { revision, request, result } => {
                let mut response = range_response(&request, result, self.values)?;
                response.header = inner_header(revision);
                Response::ResponseRange(response)
            }
            Reply::Txn { .. } => Response::ResponseTxn(self.txn(reply)?.1),
            other => return Err(refused(other)),
        };
        Ok(pb::ResponseOp { response: Some(response) })
    }
}

/// The header of an operation inside a transaction carries the revision alone; that of a whole
/// reply is filled by the service.
#[allow(clippy::unnecessary_wraps, reason = "the field is optional")]
fn inner_header(revision: Revision) -> Option<pb::ResponseHeader> {
    Some(pb::ResponseHeader { revision: revision.0, ..pb::ResponseHeader::default() })
}

fn refused(reply: Reply) -> ResolveError {
    match reply {
        Reply::Error { error, .. } => ResolveError::Refused(error),
        _ => ResolveError::OtherKind,
    }
}

/// A range's answer without header; what its order still lacks is done here, where values are read.
pub(in crate::api) fn range_response(
    request: &Range,
    result: RangeResult,
    values: &dyn ValueSource,
) -> Result<pb::RangeResponse, ValueError> {
    let mut result = finish_range(result, request, values)?;
    let kvs = if request.keys_only {
        // From 3.7 the index answers, and it knows no lease (etcd's FastKeysOnly).
        if request.sort_target != SortTarget::Value {
            result.kvs.iter_mut().for_each(|kv| kv.lease.0 = 0);
        }
        result.kvs.iter().map(|kv| key_value(kv, Bytes::new())).collect()
    } else {
        key_values(&result.kvs, values)?
    };
    Ok(pb::RangeResponse { header: None, kvs, more: result.more, count: result.count })
}

/// Versions with their values.
fn key_values(
    kvs: &[KeyValue],
    values: &dyn ValueSource,
) -> Result<Vec<mvccpb::KeyValue>, ValueError> {
    match kvs {
        [] => Ok(Vec::new()),
        [kv] => Ok(vec![key_value(kv, value_of(kv, values)?)]),
        _ => {
            let refs: Vec<_> = kvs.iter().map(|kv| kv.value).collect();
            let read = values.read_many(&refs)?;
            Ok(kvs.iter().zip(read).map(|(kv, value)| key_value(kv, value.bytes)).collect())
        }
    }
}

fn value_of(kv: &KeyValue, values: &dyn ValueSource) -> Result<Bytes, ValueError> {
    Ok(values.read(kv.value)?.bytes)
}

fn key_value(kv: &KeyValue, value: Bytes) -> mvccpb::KeyValue {
    mvccpb::KeyValue {
        key: kv.key.clone(),
        create_revision: kv.create.0,
        mod_revision: kv.modified.0,
        version: kv.version,
        value,
        lease: kv.lease.0,
    }
}

/// The key and its value that an event put; None for a delete.
pub(in crate::api) fn put_of(
    event: &Event,
    values: &dyn ValueSource,
) -> Result<Option<mvccpb::KeyValue>, ValueError> {
    match event.kind {
        ChangeKind::Put => Ok(Some(key_value(&event.kv, value_of(&event.kv, values)?))),
        ChangeKind::Delete => Ok(None),
    }
}

/// An event as it goes out. A version before that a compaction hid is left out, as in etcd; any other
/// value that does not resolve is an error.
pub(in crate::api) fn event_bytes(
    event: &Event,
    with_previous: bool,
    compacted: Revision,
    values: &dyn ValueSource,
) -> Result<Bytes, ValueError> {
    let (kind, kv) = match event.kind {
        ChangeKind::Put => {
            (mvccpb::event::EventType::Put, key_value(&event.kv, value_of(&event.kv, values)?))
        }
        ChangeKind::Delete => {
            let key = event.kv.key.clone();
            let mod_revision = event.revision.0;
            let kv = mvccpb::KeyValue { key, mod_revision, ..mvccpb::KeyValue::default() };
            (mvccpb::event::EventType::Delete, kv)
        }
    };
    let previous = event.prev.as_ref().filter(|_| with_previous);
    let prev_kv = match previous.map(|prev| (prev, value_of(prev, values))) {
        Some((prev, Ok(value))) => Some(key_value(prev, value)),
        Some((_, Err(ValueError::Erased(_)))) if event.revision <= compacted => None,
        None => None,
        Some((_, Err(error))) => return Err(error),
    };
    let event = mvccpb::Event { r#type: kind.into(), kv: Some(kv), prev_kv };
    Ok(event.encode_to_vec().into())
}
