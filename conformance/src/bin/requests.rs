//! Prints what a stopped replica executed, one request per line as JSON, in the chain's order: the history
//! that etcd's judge is given (`conformance/peers/robustness`). A request that was repeated, or came too
//! late, changed nothing and is left out; which ones those are is decided here anew, without `apply`.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;
use std::io::Write as _;
use std::path::Path;
use std::process::ExitCode;
use std::sync::Arc;

use althing::chain::{Block, Bundle, CompareResult, CompareTarget, Op, Put, Range, Txn};
use althing::storage::disk::Disk;
use althing::storage::disk::os::OsDisk;
use althing::storage::identity;
use althing::storage::log::{BlockReader, LogSettings, Placed, written_segments};
use althing::types::ReplicaId;
use serde_json::{Value, json};

const PAGE_BLOCKS: u64 = 1024;
const PAGE_BYTES: usize = 8 << 20;

fn main() -> ExitCode {
    let mut arguments = std::env::args().skip(1);
    let (Some(home), None) = (arguments.next(), arguments.next()) else {
        eprintln!("requests HOME   prints what the stopped replica with this home executed");
        return ExitCode::from(2);
    };
    match run(&Path::new(&home).join("data")) {
        Ok(()) => ExitCode::SUCCESS,
        Err(why) => {
            eprintln!("{home}: {why}");
            ExitCode::FAILURE
        }
    }
}

fn run(data: &Path) -> Result<(), Box<dyn std::error::Error>> {
    let disk: Arc<dyn Disk> = Arc::new(OsDisk::open_read_only(data)?);
    let (cluster_id, replica) = identity::read(disk.as_ref())?;
    let settings = LogSettings::new(cluster_id, replica, [0; 16]);
    let segments = written_segments(disk.as_ref(), &settings)?;
    let last = segments.last().copied().ok_or("there is no log")?;
    let end = Placed { segment: last, offset: u32::MAX };
    let mut reader = BlockReader::new(disk, settings, end);
    let mut next = reader.first_height()?.ok_or("there is no block")?;
    if next.0 != 1 {
        return Err(format!("its first blocks are gone, {next} is the lowest").into());
    }
    let mut done = Done::default();
    let mut output = std::io::BufWriter::new(std::io::stdout().lock());
    while let Some(page) = reader.read_blocks(next, next.plus(PAGE_BLOCKS), PAGE_BYTES)? {
        for block in &page.blocks {
            if block.header.height != next {
                return Err(format!("no block at height {next}").into());
            }
            for line in executed(block, &mut done)? {
                writeln!(output, "{line}")?;
            }
            next = next.next();
        }
    }
    output.flush()?;
    Ok(())
}

/// The sequence numbers that were used in each origin's newest session.
#[derive(Default)]
struct Done(BTreeMap<ReplicaId, (u64, BTreeSet<u64>)>);

impl Done {
    /// Whether a request is executed for the first time, in a session that is not closed.
    fn first(&mut self, origin: ReplicaId, session: u64, seq: u64) -> bool {
        let (newest, used) = self.0.entry(origin).or_default();
        if session > *newest {
            (*newest, *used) = (session, BTreeSet::new());
        }
        session == *newest && used.insert(seq)
    }
}

fn executed(block: &Block, done: &mut Done) -> Result<Vec<Value>, String> {
    let height = block.header.height;
    if !block.has_values() {
        return Err(format!("the values of block {height} are erased"));
    }
    let mut lines = Vec::new();
    for bundle in block.bundles() {
        let late = block.header.time_ms > bundle.not_after_ms;
        for (seq, skeleton) in (bundle.first_seq..).zip(&bundle.skeletons) {
            if !done.first(bundle.origin, bundle.session, seq) || late {
                continue;
            }
            let op = op(&skeleton.op, bundle).map_err(|why| format!("block {height}: {why}"))?;
            lines.push(json!({ "height": height.0, "op": op }));
        }
    }
    Ok(lines)
}

fn op(op: &Op, bundle: &Bundle) -> Result<Value, String> {
    Ok(match op {
        Op::Put(one) => json!({ "put": put(one, bundle)? }),
        Op::DeleteRange(one) => {
            json!({ "delete": { "key": hex(&one.key), "range_end": hex(&one.range_end) } })
        }
        Op::Range(one) => json!({ "range": range(one) }),
        Op::Txn(one) => json!({ "txn": txn(one, bundle)? }),
        Op::Compact { revision } => json!({ "compact": revision.0 }),
        Op::LeaseGrant { id, .. } => json!({ "lease_grant": id.0 }),
        Op::LeaseRevoke { id } => json!({ "lease_revoke": id.0 }),
        Op::LeaseKeepAlive { .. } => json!({ "other": "lease_keep_alive" }),
        Op::CheckpointNow => json!({ "other": "checkpoint_now" }),
        // They decide which requests are carried out, and this program does not know how.
        Op::Alarm { .. } | Op::Config(_) | Op::Auth(_) | Op::Evidence { .. } => {
            return Err("an op that is more than keys and leases".into());
        }
    })
}

fn put(put: &Put, bundle: &Bundle) -> Result<Value, String> {
    let slot = put.value.filter(|_| !put.ignore_lease).ok_or("a put that keeps value or lease")?;
    let value = bundle.values.get(slot.index as usize).ok_or("a value is missing")?;
    if value.commitment() != slot.commitment {
        return Err("a value is not the one committed to".into());
    }
    Ok(json!({ "key": hex(&put.key), "value": hex(&value.bytes), "lease": put.lease.0 }))
}

fn range(range: &Range) -> Value {
    json!({
        "key": hex(&range.key),
        "range_end": hex(&range.range_end),
        "limit": range.limit,
        "keys_only": range.keys_only,
    })
}

fn txn(txn: &Txn, bundle: &Bundle) -> Result<Value, String> {
    let mut compares = Vec::new();
    for compare in &txn.compares {
        let alone = compare.range_end.is_empty() && compare.result == CompareResult::Equal;
        let (name, operand) = match compare.target {
            CompareTarget::Mod(operand) if alone => ("mod", operand),
            CompareTarget::Version(operand) if alone => ("version", operand),
            _ => return Err("a compare that etcd's model does not have".into()),
        };
        compares.push(json!({ "key": hex(&compare.key), name: operand }));
    }
    let ops = |ops: &[Op]| ops.iter().map(|one| op(one, bundle)).collect::<Result<Vec<_>, _>>();
    Ok(
        json!({ "compares": compares, "success": ops(&txn.success)?, "failure": ops(&txn.failure)? }),
    )
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().fold(String::new(), |mut text, byte| {
        write!(text, "{byte:02x}").expect("a string takes everything");
        text
    })
}
