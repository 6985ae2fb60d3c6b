use althing::chain::{
    Author, Compare, CompareResult, CompareTarget, DeleteRange, Op, Put, Range, SortOrder,
    SortTarget, Txn,
};
use althing::state::TTL_SECONDS_MAX;
use althing::types::{LeaseId, ReplicaId, Revision};
use bytes::Bytes;

use crate::targets::Choices;
use crate::targets::chain::{Chain, Operands};
use crate::targets::naive::{Naive, words};

/// Neighbours of each other, the least and the greatest among them.
const KEYS: [&[u8]; 8] = [b"a", b"b", b"a\0", b"ab", b"c", b"\0", b"\xff", b""];
const VALUES: [&[u8]; 4] = [b"", b"1", b"2", b"two"];
const LEASES: [i64; 5] = [0, 1, 2, -3, 4];
const TTLS: [i64; 7] = [1, 2, 5, 60, -1, TTL_SECONDS_MAX, TTL_SECONDS_MAX + 1];
const TXN_DEPTH: usize = 3;

/// Ops as a decision after another makes them.
pub(super) struct Draw<'a, 'b> {
    pub choices: &'a mut Choices<'b>,
    pub operands: Operands,
    pub revision: i64,
}

impl Draw<'_, '_> {
    fn flag(&mut self) -> bool {
        self.choices.byte() % 4 == 1
    }

    pub(super) fn key(&mut self) -> Bytes {
        Bytes::from_static(self.choices.among(&KEYS))
    }

    /// Mostly one key, else to the end or to another key.
    pub(super) fn range_end(&mut self) -> Bytes {
        match self.choices.byte() % 8 {
            0..4 => Bytes::new(),
            4 => Bytes::from_static(b"\0"),
            _ => self.key(),
        }
    }

    fn lease(&mut self) -> LeaseId {
        LeaseId(self.choices.among(&LEASES))
    }

    /// Mostly 0, else near the newest one.
    fn past(&mut self) -> i64 {
        match self.choices.byte() % 8 {
            0..5 => 0,
            5 => -i64::from(self.choices.byte() % 3),
            _ => self.revision + 2 - i64::from(self.choices.byte() % 8),
        }
    }

    /// What a client may send alone.
    pub(super) fn op(&mut self) -> Op {
        match self.choices.byte() % 12 {
            0..5 => self.txn(TXN_DEPTH),
            5 => Op::LeaseGrant { id: self.lease(), ttl_seconds: self.choices.among(&TTLS) },
            6 if self.flag() => Op::LeaseRevoke { id: self.lease() },
            6 => Op::LeaseKeepAlive { id: self.lease() },
            7 => Op::Compact { revision: Revision(self.past()) },
            _ => self.simple(),
        }
    }

    fn simple(&mut self) -> Op {
        match self.choices.byte() % 8 {
            0..4 => self.put(),
            4 => Op::DeleteRange(DeleteRange {
                key: self.key(),
                range_end: self.range_end(),
                prev_kv: self.flag(),
            }),
            5 if self.flag() => Op::LeaseKeepAlive { id: self.lease() },
            _ => Op::Range(self.range()),
        }
    }

    fn put(&mut self) -> Op {
        let value = self.choices.among(&VALUES);
        let ignores_value = self.flag();
        Op::Put(Put {
            key: self.key(),
            value: (!ignores_value).then(|| self.operands.slot(value)),
            lease: self.lease(),
            prev_kv: self.flag(),
            ignore_lease: self.flag(),
        })
    }

    fn range(&mut self) -> Range {
        let orders = [SortOrder::None, SortOrder::Ascend, SortOrder::Descend];
        let targets = [
            SortTarget::Key,
            SortTarget::Version,
            SortTarget::Create,
            SortTarget::Mod,
            SortTarget::Value,
        ];
        let mut range = Range {
            key: self.key(),
            range_end: self.range_end(),
            limit: self.choices.among(&[0, 0, 1, 2, 3, -1]),
            revision: self.past(),
            sort_order: self.choices.among(&orders),
            sort_target: self.choices.among(&targets),
            keys_only: self.flag(),
            count_only: self.flag(),
            ..Range::default()
        };
        if self.flag() {
            range.min_mod_revision = self.past();
            range.max_mod_revision = self.past();
            range.min_create_revision = self.past();
            range.max_create_revision = self.past();
        }
        range
    }

    fn compare(&mut self) -> Compare {
        use CompareResult::{Equal, Greater, Less, NotEqual};
        let operand = match self.choices.byte() % 3 {
            0 => 0,
            1 => self.past(),
            _ => i64::from(self.choices.byte() % 4),
        };
        let value = self.choices.among(&VALUES);
        Compare {
            result: self.choices.among(&[Equal, Greater, Less, NotEqual]),
            target: match self.choices.byte() % 5 {
                0 => CompareTarget::Version(operand),
                1 => CompareTarget::Create(operand),
                2 => CompareTarget::Mod(operand),
                3 => CompareTarget::Lease(operand),
                _ => CompareTarget::Value(self.operands.slot(value)),
            },
            key: self.key(),
            range_end: self.range_end(),
        }
    }

    fn branch(&mut self, depth: usize) -> Vec<Op> {
        let count = self.choices.byte() % 4;
        let op = |draw: &mut Self| {
            let nested = draw.choices.byte().is_multiple_of(4);
            if nested && depth > 0 { draw.txn(depth - 1) } else { draw.simple() }
        };
        (0..count).map(|_| op(self)).collect()
    }

    fn txn(&mut self, depth: usize) -> Op {
        let compares = self.choices.byte() % 3;
        Op::Txn(Txn {
            compares: (0..compares).map(|_| self.compare()).collect(),
            success: self.branch(depth),
            failure: self.branch(depth),
        })
    }
}

/// Whatever is asked, nested as it may be: the answers are those of a store written on a page, and so is
/// what every revision holds afterwards.
pub fn txn_apply_diff(data: &[u8]) {
    let mut choices = Choices::new(data);
    let (mut chain, mut naive) = (Chain::new(1), Naive::new());
    for _ in 0..24 {
        if choices.is_empty() {
            break;
        }
        let gained_ms = u64::from(choices.byte() % 8) * 500;
        let count = 1 + choices.byte() % 3;
        let revision = naive.revision();
        let mut draw = Draw { choices: &mut choices, operands: Operands::default(), revision };
        let ops: Vec<Op> = (0..count).map(|_| draw.op()).collect();
        let operands = draw.operands;
        naive.begin(gained_ms);
        let expected: Vec<String> = ops.iter().map(|op| naive.apply(op, &operands.0)).collect();
        let asked = ops.iter().cloned().map(|op| (Author::default(), op)).collect();
        let replies = chain.execute(gained_ms, ReplicaId(0), asked, operands);
        let found: Vec<String> = replies.iter().map(|reply| words(reply, &chain.kept)).collect();
        assert_eq!(found, expected, "{ops:#?}");
        // How much of the hidden past is gone is a local matter.
        chain.state.kv.sweep(usize::from(choices.byte() % 4));
    }
    compare_past(&chain, &mut naive);
}

/// All keys at every revision that can be asked for.
fn compare_past(chain: &Chain, naive: &mut Naive) {
    assert_eq!(chain.state.kv.revision().0, naive.revision());
    for revision in naive.compacted().max(1)..=naive.revision() {
        let (key, range_end) = (Bytes::from_static(b"\0"), Bytes::from_static(b"\0"));
        let request = Range { key, range_end, revision, ..Range::default() };
        let expected = naive.apply(&Op::Range(request.clone()), &[]);
        let result = chain.state.kv.range(&request).expect("not compacted");
        let revision = chain.state.kv.revision();
        let found = althing::apply::Reply::Range { revision, request, result };
        assert_eq!(words(&found, &chain.kept), expected);
    }
}
