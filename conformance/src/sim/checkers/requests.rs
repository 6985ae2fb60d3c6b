//! What clients may expect: an answer is what the one history says, nothing acknowledged is lost, a read
//! sees every write acknowledged before it began, wherever that was.

use std::collections::BTreeMap;

use althing::apply::Reply;
use althing::types::Height;
use bytes::Bytes;

use crate::sim::checkers::model::{Model, OpName, describe};
use crate::sim::plan::Micros;

/// A read on its way.
#[derive(Clone, Debug)]
pub struct OpenRead {
    /// The key.
    pub key: Bytes,
    /// The highest revision acknowledged anywhere when it began.
    pub at_least: i64,
    /// When it began.
    pub since: Micros,
}

/// All clients of a run.
#[derive(Default)]
pub struct Requests {
    acknowledged: BTreeMap<OpName, String>,
    /// Highest revision a client has seen.
    pub seen: i64,
    /// The highest block that a client was answered from.
    pub height: Height,
    /// Reads answered.
    pub reads: u64,
}

impl Requests {
    /// How many writes were acknowledged.
    #[must_use]
    pub fn acknowledged(&self) -> usize {
        self.acknowledged.len()
    }

    /// A replica answers an op of its own.
    ///
    /// # Errors
    /// The answer is not the model's, or the second one.
    pub fn answered(
        &mut self,
        name: OpName,
        reply: &Reply,
        revision: i64,
        model: &Model,
    ) -> Result<(), String> {
        let theirs = describe(reply);
        let ours = model.answers.get(&name);
        if ours != Some(&theirs) {
            return Err(format!("{name:?} answered `{theirs}`, by the model {ours:?}"));
        }
        if self.acknowledged.insert(name, theirs).is_some() {
            return Err(format!("{name:?} was answered twice"));
        }
        self.seen = self.seen.max(revision);
        Ok(())
    }

    /// A replica answers a linearizable read at its revision.
    ///
    /// # Errors
    /// It is stale, or not what the history says.
    pub fn read(
        &mut self,
        read: &OpenRead,
        revision: i64,
        found: Option<(i64, Bytes)>,
        model: &Model,
    ) -> Result<(), String> {
        if revision < read.at_least {
            return Err(format!(
                "a read answers at revision {revision}, but {} was acknowledged before it began",
                read.at_least
            ));
        }
        let expected = model.read(&read.key, revision);
        if found != expected {
            return Err(format!("a read at {revision} found {found:?}, by the model {expected:?}"));
        }
        self.seen = self.seen.max(revision);
        self.reads += 1;
        Ok(())
    }
}
