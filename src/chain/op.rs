//! One etcd write, its values replaced by commitments.

use bytes::Bytes;

use crate::chain::{AuthOp, ConfigChange, EVIDENCE_OP_BYTES_MAX, ValueSlot};
use crate::codec::{Decode, DecodeError, Encode, Reader, Writer};
use crate::types::{LeaseId, Revision};

/// A replicated op. `Range` occurs only inside a transaction: a read alone is never ordered.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Op {
    /// etcd's Put.
    Put(Put),
    /// etcd's DeleteRange.
    DeleteRange(DeleteRange),
    /// etcd's Range, inside a transaction.
    Range(Range),
    /// etcd's Txn.
    Txn(Txn),
    /// etcd's Compact.
    Compact {
        /// Versions superseded at or below it go.
        revision: Revision,
    },
    /// etcd's LeaseGrant; the admitting replica has chosen the id.
    LeaseGrant {
        /// Positive.
        id: LeaseId,
        /// Seconds, as asked; apply raises it to the minimum.
        ttl_seconds: i64,
    },
    /// etcd's LeaseRevoke.
    LeaseRevoke {
        /// Which.
        id: LeaseId,
    },
    /// One renewal of etcd's LeaseKeepAlive.
    LeaseKeepAlive {
        /// Which.
        id: LeaseId,
    },
    /// etcd's Alarm, activate or deactivate.
    Alarm {
        /// What to do.
        action: AlarmAction,
        /// Which replica's alarm, 0 for all.
        member: u64,
        /// Which alarm.
        kind: AlarmKind,
    },
    /// Ask every replica for a checkpoint at this block (consensus.md 8).
    CheckpointNow,
    /// Change members or parameters: alone in its bundle, the bundle alone in its block.
    Config(Box<ConfigChange>),
    /// Change the users and roles of the submitting organisation, or note a login.
    Auth(Box<AuthOp>),
    /// Write down a proof that a replica lied: alone in its bundle.
    Evidence {
        /// An encoded [`crate::chain::Evidence`]. As bytes, for a proof may quote bundles.
        proof: Bytes,
    },
}

/// What an alarm op does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum AlarmAction {
    /// Raise it.
    Activate = 1,
    /// Take it back.
    Deactivate = 2,
}

/// etcd's alarms.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
#[repr(u8)]
pub enum AlarmKind {
    /// etcd's NONE: nobody raises it; who asks for it is told of all.
    Any = 0,
    /// The quota is used up.
    NoSpace = 1,
    /// A replica's state is not the network's.
    Corrupt = 2,
}

/// etcd's PutRequest.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Put {
    /// Not empty.
    pub key: Bytes,
    /// None exactly if `ignore_value`: the old value, salt and commitment stay.
    pub value: Option<ValueSlot>,
    /// 0 for none; 0 with `ignore_lease`, which keeps the old one.
    pub lease: LeaseId,
    /// Answer with the version before.
    pub prev_kv: bool,
    /// Keep the old lease.
    pub ignore_lease: bool,
}

/// etcd's DeleteRangeRequest.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DeleteRange {
    /// Not empty.
    pub key: Bytes,
    /// Empty for one key, `\0` for all from `key` on.
    pub range_end: Bytes,
    /// Answer with the versions deleted.
    pub prev_kv: bool,
}

/// etcd's SortOrder, with its wire numbers.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[repr(u8)]
pub enum SortOrder {
    /// Key order; with another target than key the page is sorted ascending.
    #[default]
    None = 0,
    /// Ascending.
    Ascend = 1,
    /// Descending.
    Descend = 2,
}

/// etcd's SortTarget, with its wire numbers.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[repr(u8)]
pub enum SortTarget {
    /// By key.
    #[default]
    Key = 0,
    /// By version.
    Version = 1,
    /// By create revision.
    Create = 2,
    /// By mod revision.
    Mod = 3,
    /// By value.
    Value = 4,
}

/// etcd's RangeRequest, less `serializable`, which is about where to read and not what.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Range {
    /// Not empty.
    pub key: Bytes,
    /// Empty for one key, `\0` for all from `key` on.
    pub range_end: Bytes,
    /// 0 or less for none.
    pub limit: i64,
    /// 0 or less for the latest.
    pub revision: i64,
    /// Order of the answer.
    pub sort_order: SortOrder,
    /// What it is ordered by.
    pub sort_target: SortTarget,
    /// Leave values out.
    pub keys_only: bool,
    /// Leave kvs out.
    pub count_only: bool,
    /// 0 for no filter.
    pub min_mod_revision: i64,
    /// 0 for no filter.
    pub max_mod_revision: i64,
    /// 0 for no filter.
    pub min_create_revision: i64,
    /// 0 for no filter.
    pub max_create_revision: i64,
}

/// How a compare compares, with etcd's wire numbers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum CompareResult {
    /// Equal.
    Equal = 0,
    /// The key's is greater.
    Greater = 1,
    /// The key's is less.
    Less = 2,
    /// Not equal.
    NotEqual = 3,
}

/// What a compare looks at, and its operand.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CompareTarget {
    /// The version.
    Version(i64),
    /// The create revision.
    Create(i64),
    /// The mod revision.
    Mod(i64),
    /// The value; the operand is an erasable value too.
    Value(ValueSlot),
    /// The lease.
    Lease(i64),
}

/// etcd's Compare.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Compare {
    /// How.
    pub result: CompareResult,
    /// What with.
    pub target: CompareTarget,
    /// Not empty.
    pub key: Bytes,
    /// Empty for one key; else it must hold for all keys in the range.
    pub range_end: Bytes,
}

/// etcd's TxnRequest.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Txn {
    /// All must hold for `success`.
    pub compares: Vec<Compare>,
    /// Put, DeleteRange, Range or Txn.
    pub success: Vec<Op>,
    /// Put, DeleteRange, Range or Txn.
    pub failure: Vec<Op>,
}

impl Op {
    /// Calls `visit` with every value slot, in the order slots are numbered.
    pub fn for_each_slot(&mut self, visit: &mut dyn FnMut(&mut ValueSlot)) {
        match self {
            Self::Put(put) => put.value.iter_mut().for_each(visit),
            Self::Auth(op) => op.slot_mut().into_iter().for_each(visit),
            Self::Txn(txn) => {
                for compare in &mut txn.compares {
                    if let CompareTarget::Value(slot) = &mut compare.target {
                        visit(slot);
                    }
                }
                for op in txn.success.iter_mut().chain(&mut txn.failure) {
                    op.for_each_slot(visit);
                }
            }
            _ => {}
        }
    }
}

/// Deepest nesting of transactions that decodes; the limit a request meets first is `check`'s.
const TXN_DEPTH_MAX: usize = 16;
const LIST_MAX: usize = 4096;
const KEY_MAX: usize = 64 << 10;

fn put_range(range: &Range, writer: &mut Writer) {
    writer.bytes(&range.key);
    writer.bytes(&range.range_end);
    writer.i64(range.limit);
    writer.i64(range.revision);
    writer.u8(range.sort_order as u8);
    writer.u8(range.sort_target as u8);
    writer.bool(range.keys_only);
    writer.bool(range.count_only);
    writer.i64(range.min_mod_revision);
    writer.i64(range.max_mod_revision);
    writer.i64(range.min_create_revision);
    writer.i64(range.max_create_revision);
}

fn get_range(reader: &mut Reader) -> Result<Range, DecodeError> {
    Ok(Range {
        key: reader.bytes(KEY_MAX, "range key")?,
        range_end: reader.bytes(KEY_MAX, "range end")?,
        limit: reader.i64("range limit")?,
        revision: reader.i64("range revision")?,
        sort_order: match reader.u8("range sort order")? {
            0 => SortOrder::None,
            1 => SortOrder::Ascend,
            2 => SortOrder::Descend,
            _ => return Err(DecodeError::Invalid("range sort order")),
        },
        sort_target: match reader.u8("range sort target")? {
            0 => SortTarget::Key,
            1 => SortTarget::Version,
            2 => SortTarget::Create,
            3 => SortTarget::Mod,
            4 => SortTarget::Value,
            _ => return Err(DecodeError::Invalid("range sort target")),
        },
        keys_only: reader.bool("range keys only")?,
        count_only: reader.bool("range count only")?,
        min_mod_revision: reader.i64("range filter")?,
        max_mod_revision: reader.i64("range filter")?,
        min_create_revision: reader.i64("range filter")?,
        max_create_revision: reader.i64("range filter")?,
    })
}

impl Encode for Compare {
    fn encode(&self, writer: &mut Writer) {
        writer.u8(self.result as u8);
        match &self.target {
            CompareTarget::Version(operand) => {
                writer.u8(0);
                writer.i64(*operand);
            }
            CompareTarget::Create(operand) => {
                writer.u8(1);
                writer.i64(*operand);
            }
            CompareTarget::Mod(operand) => {
                writer.u8(2);
                writer.i64(*operand);
            }
            CompareTarget::Value(slot) => {
                writer.u8(3);
                slot.encode(writer);
            }
            CompareTarget::Lease(operand) => {
                writer.u8(4);
                writer.i64(*operand);
            }
        }
        writer.bytes(&self.key);
        writer.bytes(&self.range_end);
    }
}

impl Decode for Compare {
    fn decode(reader: &mut Reader) -> Result<Self, DecodeError> {
        let result = match reader.u8("compare result")? {
            0 => CompareResult::Equal,
            1 => CompareResult::Greater,
            2 => CompareResult::Less,
            3 => CompareResult::NotEqual,
            _ => return Err(DecodeError::Invalid("compare result")),
        };
        let target = match reader.u8("compare target")? {
            0 => CompareTarget::Version(reader.i64("compare operand")?),
            1 => CompareTarget::Create(reader.i64("compare operand")?),
            2 => CompareTarget::Mod(reader.i64("compare operand")?),
            3 => CompareTarget::Value(ValueSlot::decode(reader)?),
            4 => CompareTarget::Lease(reader.i64("compare operand")?),
            _ => return Err(DecodeError::Invalid("compare target")),
        };
        Ok(Self {
            result,
            target,
            key: reader.bytes(KEY_MAX, "compare key")?,
            range_end: reader.bytes(KEY_MAX, "compare range end")?,
        })
    }
}

impl Encode for Op {
    fn encode(&self, writer: &mut Writer) {
        match self {
            Self::Put(put) => {
                writer.u8(1);
                writer.bytes(&put.key);
                writer.bool(put.value.is_some());
                if let Some(slot) = &put.value {
                    slot.encode(writer);
                }
                writer.i64(put.lease.0);
                writer.bool(put.prev_kv);
                writer.bool(put.ignore_lease);
            }
            Self::DeleteRange(delete) => {
                writer.u8(2);
                writer.bytes(&delete.key);
                writer.bytes(&delete.range_end);
                writer.bool(delete.prev_kv);
            }
            Self::Range(range) => {
                writer.u8(3);
                put_range(range, writer);
            }
            Self::Txn(txn) => {
                writer.u8(4);
                writer.length(txn.compares.len());
                txn.compares.iter().for_each(|compare| compare.encode(writer));
                for branch in [&txn.success, &txn.failure] {
                    writer.length(branch.len());
                    branch.iter().for_each(|op| op.encode(writer));
                }
            }
            Self::Compact { revision } => {
                writer.u8(5);
                writer.i64(revision.0);
            }
            Self::LeaseGrant { id, ttl_seconds } => {
                writer.u8(6);
                writer.i64(id.0);
                writer.i64(*ttl_seconds);
            }
            Self::LeaseRevoke { id } => {
                writer.u8(7);
                writer.i64(id.0);
            }
            Self::LeaseKeepAlive { id } => {
                writer.u8(8);
                writer.i64(id.0);
            }
            Self::Alarm { action, member, kind } => {
                writer.u8(9);
                writer.u8(*action as u8);
                writer.u64(*member);
                writer.u8(*kind as u8);
            }
            Self::CheckpointNow => writer.u8(10),
            Self::Config(change) => {
                writer.u8(12);
                change.encode(writer);
            }
            Self::Auth(op) => {
                writer.u8(14);
                op.encode(writer);
            }
            Self::Evidence { proof } => {
                writer.u8(15);
                writer.bytes(proof);
            }
        }
    }
}

impl Decode for Op {
    fn decode(reader: &mut Reader) -> Result<Self, DecodeError> {
        decode_op(reader, TXN_DEPTH_MAX)
    }
}

fn decode_op(reader: &mut Reader, depth: usize) -> Result<Op, DecodeError> {
    Ok(match reader.u8("op kind")? {
        1 => {
            let key = reader.bytes(KEY_MAX, "put key")?;
            let value =
                if reader.bool("put value")? { Some(ValueSlot::decode(reader)?) } else { None };
            Op::Put(Put {
                key,
                value,
                lease: LeaseId(reader.i64("put lease")?),
                prev_kv: reader.bool("put prev_kv")?,
                ignore_lease: reader.bool("put ignore_lease")?,
            })
        }
        2 => Op::DeleteRange(DeleteRange {
            key: reader.bytes(KEY_MAX, "delete key")?,
            range_end: reader.bytes(KEY_MAX, "delete range end")?,
            prev_kv: reader.bool("delete prev_kv")?,
        }),
        3 => Op::Range(get_range(reader)?),
        4 => {
            let depth = depth.checked_sub(1).ok_or(DecodeError::TooLong("txn nesting"))?;
            let mut compares = Vec::new();
            for _ in 0..reader.length(LIST_MAX, "txn compares")? {
                compares.push(Compare::decode(reader)?);
            }
            Op::Txn(Txn {
                compares,
                success: decode_branch(reader, depth)?,
                failure: decode_branch(reader, depth)?,
            })
        }
        5 => Op::Compact { revision: Revision(reader.i64("compact revision")?) },
        6 => Op::LeaseGrant {
            id: LeaseId(reader.i64("lease id")?),
            ttl_seconds: reader.i64("lease ttl")?,
        },
        7 => Op::LeaseRevoke { id: LeaseId(reader.i64("lease id")?) },
        8 => Op::LeaseKeepAlive { id: LeaseId(reader.i64("lease id")?) },
        9 => Op::Alarm {
            action: match reader.u8("alarm action")? {
                1 => AlarmAction::Activate,
                2 => AlarmAction::Deactivate,
                _ => return Err(DecodeError::Invalid("alarm action")),
            },
            member: reader.u64("alarm member")?,
            kind: match reader.u8("alarm kind")? {
                0 => AlarmKind::Any,
                1 => AlarmKind::NoSpace,
                2 => AlarmKind::Corrupt,
                _ => return Err(DecodeError::Invalid("alarm kind")),
            },
        },
        10 => Op::CheckpointNow,
        12 => Op::Config(Box::new(ConfigChange::decode(reader)?)),
        14 => Op::Auth(Box::new(AuthOp::decode(reader)?)),
        15 => Op::Evidence { proof: reader.bytes(EVIDENCE_OP_BYTES_MAX, "evidence")? },
        _ => return Err(DecodeError::Invalid("op kind")),
    })
}

fn decode_branch(reader: &mut Reader, depth: usize) -> Result<Vec<Op>, DecodeError> {
    let mut ops = Vec::new();
    for _ in 0..reader.length(LIST_MAX, "txn branch")? {
        ops.push(decode_op(reader, depth)?);
    }
    Ok(ops)
}
