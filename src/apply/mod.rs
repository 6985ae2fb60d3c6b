//! The one dispatch: executes a committed block on the state. Total and deterministic: whatever bytes
//! were ordered, every replica does the same, and a user's error is a reply. The one thing that stops it
//! is a value of its own that cannot be read.

mod auth;
#[cfg(test)]
mod auth_tests;
mod config;
mod evidence;
mod guard;
mod outcome;
#[cfg(test)]
mod owned_tests;
pub mod permission;
mod put;
mod reply;
#[cfg(test)]
mod tests;
mod txn;

pub use outcome::{Login, Outcome};
pub use reply::{OpError, Reply};
pub use txn::read as read_txn;

use crate::chain::{
    AlarmAction, Author, Block, BlockHeader, Bundle, DeleteRange, Effects, Entry, Op, Rejoin,
    Value, ValueError, ValueRef, ValueSlot, ValueSource,
};
use crate::planted;
use crate::state::{Cause, Record, Span, State};
use crate::types::{LeaseId, OrgId, ReplicaId, Revision};

/// Why an op does not go on.
enum Stop {
    /// The user's error: a reply.
    User(OpError),
    /// A value cannot be read: the replica halts.
    Value(ValueError),
}

impl<E: Into<OpError>> From<E> for Stop {
    fn from(error: E) -> Self {
        Self::User(error.into())
    }
}

type Done<T> = Result<T, Stop>;

/// The values an op's slots name, and those kept earlier.
struct Operands<'a> {
    /// Of the bundle; empty if erased.
    values: &'a [Value],
    /// Where this replica keeps them.
    refs: &'a [ValueRef],
    source: &'a dyn ValueSource,
}

impl Operands<'_> {
    fn place(&self, slot: &ValueSlot) -> ValueRef {
        *self.refs.get(slot.index as usize).expect("execute compared slots with references")
    }

    fn read(&self, at: ValueRef) -> Done<Value> {
        self.source.read(at).map_err(Stop::Value)
    }

    fn operand(&self, slot: &ValueSlot) -> Done<Value> {
        match self.values.get(slot.index as usize) {
            Some(value) => Ok(value.clone()),
            None => self.read(self.place(slot)),
        }
    }
}

/// One op under execution.
struct Step<'a> {
    state: &'a mut State,
    record: &'a mut Record,
    operands: &'a Operands<'a>,
    cause: Cause<'a>,
    author: &'a Author,
    origin: ReplicaId,
    /// The origin's; none for an origin that is no member, whose ops need rights it has not.
    organisation: Option<OrgId>,
    logins: &'a mut Vec<Login>,
    /// Whether this replica answers it; else reads inside it are left out, which no state depends on.
    answered: bool,
    checkpoint: &'a mut bool,
    header: &'a BlockHeader,
}

/// Executes a block.
///
/// `refs` says per entry and slot where this replica keeps the values; `reply_for` whose bundles are
/// answered.
///
/// # Errors
/// A value that a compare or `ignore_value` needs cannot be read; the state is then half written and
/// the replica must halt.
pub fn execute(
    state: &mut State,
    block: &Block,
    refs: &[Vec<ValueRef>],
    values: &dyn ValueSource,
    reply_for: ReplicaId,
) -> Result<Outcome, ValueError> {
    assert_eq!(block.header.height, state.counters.height.next(), "blocks execute in chain order");
    assert_eq!(refs.len(), block.entries.len(), "references come entry by entry");
    let mut keys = Vec::new();
    block.bundles().flat_map(|bundle| &bundle.skeletons).for_each(|skeleton| {
        put_keys(&skeleton.op, &mut keys);
    });
    state.kv.warm(&keys);
    let mut run = Run {
        state,
        values,
        reply_for,
        header: &block.header,
        record: Record::default(),
        replies: Vec::new(),
        logins: Vec::new(),
        checkpoint: false,
        ordinal: 0,
    };
    let epoch = run.state.membership().epoch;
    run.state.begin_block(&block.header);
    run.state.expire(&mut run.record);
    for (entry, refs) in block.entries.iter().zip(refs) {
        match entry {
            Entry::Rejoin(rejoin) => run.rejoin(rejoin),
            Entry::Bundle(bundle) => run.bundle(bundle, refs)?,
        }
    }
    let Run { record, replies, logins, checkpoint, .. } = run;
    let checkpoint_wanted = state.end_block(&record, checkpoint);
    let Record { events, changes, puts, deletes, .. } = record;
    Ok(Outcome {
        effects: Effects { height: block.header.height, exec_root: state.exec_root(), changes },
        replies,
        logins,
        puts,
        deletes,
        events,
        revision: state.kv.revision(),
        next_expiry: state.next_expiry(),
        administrators: state.administrators(),
        network: (state.membership().epoch > epoch).then(|| state.network().clone()),
        checkpoint_wanted,
    })
}

/// A block under execution.
struct Run<'a> {
    state: &'a mut State,
    values: &'a dyn ValueSource,
    reply_for: ReplicaId,
    header: &'a BlockHeader,
    record: Record,
    replies: Vec<(u64, u64, Reply)>,
    logins: Vec<Login>,
    checkpoint: bool,
    /// Of the next op, counted over all entries.
    ordinal: u32,
}

impl Run<'_> {
    fn rejoin(&mut self, rejoin: &Rejoin) {
        if self.state.membership().member(rejoin.replica).is_some() {
            self.state.sessions.rejoin(rejoin, self.header.time_ms);
        }
        self.ordinal += 1;
    }

    fn bundle(&mut self, bundle: &Bundle, refs: &[ValueRef]) -> Result<(), ValueError> {
        assert_eq!(refs.len(), bundle.slots().len(), "one reference per slot");
        let operands = Operands { values: &bundle.values, refs, source: self.values };
        let answered = bundle.origin == self.reply_for;
        let late = self.header.time_ms > bundle.not_after_ms;
        for (seq, skeleton) in (bundle.first_seq..bundle.end_seq()).zip(&bundle.skeletons) {
            let ordinal = self.ordinal;
            self.ordinal += 1;
            if !self.state.sessions.mark(bundle.origin, bundle.session, seq) {
                continue;
            }
            let organisation = self.state.organisation_of(bundle.origin);
            let mut step = Step {
                state: self.state,
                record: &mut self.record,
                operands: &operands,
                cause: Cause::op(ordinal, bundle.origin, &skeleton.author),
                author: &skeleton.author,
                origin: bundle.origin,
                organisation,
                logins: &mut self.logins,
                answered,
                checkpoint: &mut self.checkpoint,
                header: self.header,
            };
            let reply = step.run(&skeleton.op, late)?;
            if answered {
                self.replies.push((bundle.session, seq, reply));
            }
        }
        Ok(())
    }
}

/// The keys that an op is likely to put: of transactions the branch that is taken if all is well.
fn put_keys<'a>(op: &'a Op, keys: &mut Vec<&'a [u8]>) {
    match op {
        Op::Put(put) => keys.push(&put.key),
        Op::Txn(txn) => txn.success.iter().for_each(|op| put_keys(op, keys)),
        _ => {}
    }
}

impl Step<'_> {
    fn run(&mut self, op: &Op, late: bool) -> Result<Reply, ValueError> {
        let done = if late { Err(OpError::TimedOut.into()) } else { self.dispatch(op) };
        self.state.end_revision();
        match done {
            Ok(reply) => Ok(reply),
            Err(Stop::User(error)) => {
                Ok(Reply::Error { revision: self.state.kv.revision(), error })
            }
            Err(Stop::Value(error)) => Err(error),
        }
    }

    fn dispatch(&mut self, op: &Op) -> Done<Reply> {
        self.guard(op)?;
        match op {
            Op::Put(put) => self.put_alone(put),
            Op::DeleteRange(delete) => Ok(self.delete(delete)),
            Op::Range(range) => self.range(range),
            Op::Txn(txn) => self.txn(txn),
            Op::Compact { revision } => {
                self.state.compact(*revision).map_err(OpError::from)?;
                Ok(Reply::Compact { revision: self.revision() })
            }
            Op::LeaseGrant { id, ttl_seconds } => {
                let granted = self.state.grant(*id, *ttl_seconds).map_err(OpError::from)?;
                let revision = self.revision();
                Ok(Reply::LeaseGrant { revision, id: *id, ttl_seconds: granted })
            }
            Op::LeaseRevoke { id } => self.revoke(*id),
            Op::LeaseKeepAlive { id } => {
                let revision = self.revision();
                let ttl_seconds = self.state.renew(*id).unwrap_or(0);
                Ok(Reply::LeaseKeepAlive { revision, id: *id, ttl_seconds })
            }
            Op::Alarm { action, member, kind } => {
                let alarms = match action {
                    AlarmAction::Activate if self.state.alarms.raise(*member, *kind) => {
                        vec![(*member, *kind)]
                    }
                    AlarmAction::Activate => Vec::new(),
                    AlarmAction::Deactivate => self.state.alarms.clear(*member, *kind),
                };
                Ok(Reply::Alarm { revision: self.revision(), alarms })
            }
            Op::CheckpointNow => {
                *self.checkpoint |= self.state.counters.ask(self.origin);
                let counters = &self.state.counters;
                let unchanged = !counters.changed && self.record.changes.is_empty();
                let current = *self.checkpoint || unchanged;
                let height =
                    if *self.checkpoint { counters.height } else { counters.checkpoint_height };
                Ok(Reply::Checkpoint { revision: self.revision(), height, current })
            }
            Op::Config(change) => self.config(change),
            Op::Auth(op) => self.auth(op),
            Op::Evidence { proof } => self.evidence(proof),
        }
    }

    /// The store's revision, with what this op has changed.
    fn revision(&self) -> Revision {
        self.state.kv.current()
    }

    fn revoke(&mut self, id: LeaseId) -> Done<Reply> {
        if !self.state.revoke(id, &self.cause, self.record) {
            return Err(OpError::LeaseNotFound.into());
        }
        Ok(Reply::LeaseRevoke { revision: self.revision() })
    }

    fn delete(&mut self, delete: &DeleteRange) -> Reply {
        let mut keys = self.state.kv.keys(Span::new(&delete.key, &delete.range_end));
        self.record.deletes += 1;
        if planted::strikes_at(&delete.key) {
            keys.clear();
        }
        let mut prev = Vec::new();
        for key in &keys {
            let old = self.state.delete(key, &self.cause, self.record);
            if delete.prev_kv && self.answered {
                prev.extend(old);
            }
        }
        let deleted = i64::try_from(keys.len()).unwrap_or(i64::MAX);
        Reply::DeleteRange { revision: self.revision(), deleted, prev }
    }

    fn range(&mut self, range: &crate::chain::Range) -> Done<Reply> {
        let result = if self.answered {
            self.state.kv.range(range).map_err(OpError::from)?
        } else {
            crate::state::RangeResult::default()
        };
        Ok(Reply::Range { revision: self.revision(), request: range.clone(), result })
    }
}
