//! Transactions in etcd's three passes: all compares, nested ones too, on the state before; then what
//! can fail on the chosen branches; then the writes (txn/txn.go).

use core::cmp::Ordering;

use crate::apply::{Done, OpError, Operands, Reply, Step, Stop};
use crate::chain::{
    Compare, CompareResult, CompareTarget, Op, Range, Txn, Value, ValueError, ValueSource,
};
use crate::planted::{self, Bug};
use crate::state::{KeyValue, State};
use crate::types::Revision;

/// A transaction with its branches chosen.
struct Chosen<'a> {
    succeeded: bool,
    steps: Vec<ChosenOp<'a>>,
}

enum ChosenOp<'a> {
    Op(&'a Op),
    Txn(Chosen<'a>),
}

/// The state as a transaction's compares see it.
struct View<'a> {
    state: &'a State,
    operands: &'a Operands<'a>,
}

/// Answers a transaction that only reads, on the state as it is: nothing is ordered for it (etcd's
/// IsTxnReadonly). `operands` are what its slots index into.
///
/// # Errors
/// A value that a compare needs cannot be read.
pub fn read(
    state: &State,
    txn: &Txn,
    operands: &[Value],
    source: &dyn ValueSource,
) -> Result<Reply, ValueError> {
    let operands = Operands { values: operands, refs: &[], source };
    match (View { state, operands: &operands }).read(txn) {
        Ok(reply) => Ok(reply),
        Err(Stop::User(error)) => Ok(Reply::Error { revision: state.kv.revision(), error }),
        Err(Stop::Value(error)) => Err(error),
    }
}

impl View<'_> {
    fn read(&self, txn: &Txn) -> Done<Reply> {
        let revision = self.state.kv.revision();
        let Chosen { succeeded, steps } = self.choose(txn)?;
        let mut ranges = Vec::with_capacity(steps.len());
        for step in steps {
            let ChosenOp::Op(Op::Range(range)) = step else {
                return Err(OpError::Malformed.into());
            };
            self.check_revision(range.revision)?;
            ranges.push(range);
        }
        let mut responses = Vec::with_capacity(ranges.len());
        for range in ranges {
            let result = self.state.kv.range(range).map_err(OpError::from)?;
            responses.push(Reply::Range { revision, request: range.clone(), result });
        }
        Ok(Reply::Txn { revision, succeeded, responses })
    }

    fn choose<'t>(&self, txn: &'t Txn) -> Done<Chosen<'t>> {
        let mut succeeded = true;
        for compare in &txn.compares {
            if !self.holds(compare)? {
                succeeded = false;
                break;
            }
        }
        let branch = if succeeded { &txn.success } else { &txn.failure };
        let mut steps = Vec::with_capacity(branch.len());
        for op in branch {
            steps.push(match op {
                Op::Txn(nested) => ChosenOp::Txn(self.choose(nested)?),
                op => ChosenOp::Op(op),
            });
        }
        Ok(Chosen { succeeded, steps })
    }

    fn holds(&self, compare: &Compare) -> Done<bool> {
        let range = Range {
            key: compare.key.clone(),
            range_end: compare.range_end.clone(),
            ..Range::default()
        };
        let kvs = self.state.kv.range(&range).map_err(OpError::from)?.kvs;
        if kvs.is_empty() {
            // An absent key is all zeros, but has no value that could be compared.
            let absent = matches!(compare.target, CompareTarget::Value(_));
            return Ok(!absent && decides(compare.result, numbers(&compare.target, None)));
        }
        if let CompareTarget::Value(slot) = &compare.target {
            let operand = self.operands.operand(slot)?;
            for kv in &kvs {
                let value = self.operands.read(kv.value)?;
                if !decides(compare.result, value.bytes.cmp(&operand.bytes)) {
                    return Ok(false);
                }
            }
            return Ok(true);
        }
        Ok(kvs.iter().all(|kv| decides(compare.result, numbers(&compare.target, Some(kv)))))
    }

    /// txn/range.go, checkRange: here a negative revision is not "latest" but below the first.
    fn check_revision(&self, revision: i64) -> Result<(), OpError> {
        let kv = &self.state.kv;
        match Revision(revision) {
            Revision(0) => Ok(()),
            asked if asked > kv.revision() => Err(OpError::FutureRevision),
            asked if planted::is(Bug::LocalCompaction) && kv.holds_change_at(asked) => Ok(()),
            asked if asked < kv.compact_revision() => Err(OpError::Compacted),
            _ => Ok(()),
        }
    }
}

impl Step<'_> {
    pub(super) fn txn(&mut self, txn: &Txn) -> Done<Reply> {
        let chosen = self.view().choose(txn)?;
        self.check_chosen(&chosen)?;
        let (succeeded, responses) = self.run_chosen(&chosen)?;
        Ok(Reply::Txn { revision: self.revision(), succeeded, responses })
    }

    fn view(&self) -> View<'_> {
        View { state: self.state, operands: self.operands }
    }

    fn check_chosen(&self, chosen: &Chosen<'_>) -> Result<(), OpError> {
        for step in &chosen.steps {
            match step {
                ChosenOp::Txn(nested) => self.check_chosen(nested)?,
                ChosenOp::Op(Op::Put(put)) => self.check_put(put)?,
                ChosenOp::Op(Op::Range(range)) => self.view().check_revision(range.revision)?,
                ChosenOp::Op(Op::DeleteRange(_)) => {}
                ChosenOp::Op(_) => return Err(OpError::Malformed),
            }
        }
        Ok(())
    }

    fn run_chosen(&mut self, chosen: &Chosen<'_>) -> Done<(bool, Vec<Reply>)> {
        let mut responses = Vec::with_capacity(chosen.steps.len());
        for step in &chosen.steps {
            responses.push(match step {
                ChosenOp::Txn(nested) => {
                    let (succeeded, responses) = self.run_chosen(nested)?;
                    Reply::Txn { revision: Revision(0), succeeded, responses }
                }
                ChosenOp::Op(Op::Put(put)) => self.put(put)?,
                ChosenOp::Op(Op::DeleteRange(delete)) => self.delete(delete),
                ChosenOp::Op(Op::Range(range)) => self.range(range)?,
                ChosenOp::Op(_) => return Err(OpError::Malformed.into()),
            });
        }
        Ok((chosen.succeeded, responses))
    }
}

fn numbers(target: &CompareTarget, kv: Option<&KeyValue>) -> Ordering {
    let of = |field: fn(&KeyValue) -> i64| kv.map_or(0, field);
    match target {
        CompareTarget::Version(operand) => of(|kv| kv.version).cmp(operand),
        CompareTarget::Create(operand) => of(|kv| kv.create.0).cmp(operand),
        CompareTarget::Mod(operand) => of(|kv| kv.modified.0).cmp(operand),
        CompareTarget::Lease(operand) => of(|kv| kv.lease.0).cmp(operand),
        CompareTarget::Value(_) => Ordering::Equal,
    }
}

fn decides(result: CompareResult, order: Ordering) -> bool {
    match result {
        CompareResult::Equal => order == Ordering::Equal,
        CompareResult::Greater => order == Ordering::Greater,
        CompareResult::Less => order == Ordering::Less,
        CompareResult::NotEqual => order != Ordering::Equal,
    }
}
