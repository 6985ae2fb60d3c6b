use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender};
use std::time::{Duration, Instant};

use crate::chain::Record;
use crate::node::event::Event;
use crate::observe::{histogram, table};
use crate::storage::disk::{Disk, DiskErrorKind};
use crate::storage::log::{Appender, Batch, LogWriter, Placed, Preparation};
use crate::types::{Digest, Height, LogPosition};

/// What the log thread is asked to do.
pub(super) enum LogJob {
    /// Write and sync.
    Write(Batch),
    /// Zero-write the segment that comes next, in slices between batches.
    Prepare(Preparation),
}

/// The protocol thread's end of the log: plans records, remembers where blocks lie, and hands over one
/// batch at a time, so that whatever arrives during a flush shares the next one (group commit).
pub(super) struct Persist {
    appender: Appender,
    jobs: Sender<LogJob>,
    in_flight: bool,
    prepared: u32,
    /// Where the blocks above the last executed height lie.
    blocks: BTreeMap<(Height, Digest), Placed>,
    pub(super) bytes: u64,
    pub(super) syncs: u64,
}

impl Persist {
    pub(super) fn new(
        appender: Appender,
        jobs: Sender<LogJob>,
        blocks: BTreeMap<(Height, Digest), Placed>,
    ) -> Self {
        Self { appender, jobs, in_flight: false, prepared: 0, blocks, bytes: 0, syncs: 0 }
    }

    pub(super) fn append(&mut self, position: LogPosition, record: &Record) -> Placed {
        let placed = self.appender.append(position, record);
        if let Record::Block(block) = record {
            self.blocks.insert((block.header.height, block.hash()), placed);
        }
        placed
    }

    /// Where a block that is about to be executed lies; forgets all at and below its height.
    pub(super) fn take_block(&mut self, height: Height, hash: Digest) -> Option<Placed> {
        let placed = self.blocks.get(&(height, hash)).copied();
        self.blocks = self.blocks.split_off(&(height.next(), Digest::ZERO));
        placed
    }

    /// Hands over what was planned, unless a batch is being written.
    pub(super) fn flush(&mut self) {
        if self.in_flight {
            return;
        }
        let Some(batch) = self.appender.take_batch() else { return };
        self.in_flight = true;
        self.syncs += 1;
        self.bytes += batch.len() as u64;
        let next = self.appender.preparation();
        // A log thread that is gone has reported why; the process is about to end.
        drop(self.jobs.send(LogJob::Write(batch)));
        if next.segment() != self.prepared {
            self.prepared = next.segment();
            drop(self.jobs.send(LogJob::Prepare(next)));
        }
    }

    pub(super) fn durable(&mut self) {
        self.in_flight = false;
    }

    /// Hands over what is left; the log thread ends when it is on disk.
    pub(super) fn close(mut self) {
        self.in_flight = false;
        self.flush();
    }

    pub(super) fn appender(&mut self) -> &mut Appender {
        &mut self.appender
    }
}

/// Zero bytes written between two batches, and how long batches have to themselves in between.
const PREPARE_SLICE_BYTES: u32 = 1 << 20;
const PREPARE_EVERY: Duration = Duration::from_millis(20);
const IDLE: Duration = Duration::from_secs(3600);

/// The log thread: batches first, preparation of the next segment in between, under load too.
pub(super) fn log_thread(disk: &Arc<dyn Disk>, jobs: &Receiver<LogJob>, events: &Sender<Event>) {
    let mut writer = LogWriter::default();
    let mut preparing: Option<Preparation> = None;
    let mut prepared_at = Instant::now();
    let sync_seconds = histogram(&table::WAL_FSYNC_SECONDS, &[]);
    loop {
        let pause = if preparing.is_some() { PREPARE_EVERY } else { IDLE };
        match jobs.recv_timeout(pause) {
            Ok(LogJob::Write(batch)) => {
                let started = Instant::now();
                let written = writer.write(disk.as_ref(), &batch);
                sync_seconds.record(started.elapsed());
                if let Err(error) = written {
                    // Nothing more is written: what a failed write left behind is recovery's to read.
                    drop(events.send(Event::LogFailed(error.to_string())));
                    return;
                }
                if events.send(Event::Durable(batch.last, batch.end)).is_err() {
                    return;
                }
            }
            Ok(LogJob::Prepare(preparation)) => preparing = Some(preparation),
            Err(RecvTimeoutError::Timeout) => {}
            Err(RecvTimeoutError::Disconnected) => return,
        }
        if prepared_at.elapsed() < PREPARE_EVERY {
            continue;
        }
        let Some(preparation) = &preparing else { continue };
        prepared_at = Instant::now();
        match preparation.step(disk.as_ref(), PREPARE_SLICE_BYTES) {
            Ok(false) => {}
            Ok(true) => preparing = None,
            // The batch that needs the segment will find out.
            Err(error) if error.kind == DiskErrorKind::Full => preparing = None,
            Err(error) => {
                drop(events.send(Event::LogFailed(error.to_string())));
                return;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc::channel;

    use crate::storage::disk::memory::MemoryDisk;
    use crate::storage::log::{LogSettings, ReplayMark, recover};
    use crate::types::ReplicaId;

    use super::*;

    #[test]
    fn what_was_planned_during_a_flush_is_on_the_disk_when_the_log_thread_has_ended() {
        let disk: Arc<dyn Disk> = Arc::new(MemoryDisk::default());
        let settings = LogSettings::new(Digest([1; 32]), ReplicaId(0), [2; 16]);
        let read = |found: &mut Vec<Record>| {
            let mut note = |_, _, record| found.push(record);
            recover(&*disk, &settings, ReplayMark::start(), &mut note).expect("a log").appender
        };
        let (jobs, inbox) = channel();
        let (events, _events) = channel();
        let mut persist = Persist::new(read(&mut Vec::new()), jobs, BTreeMap::new());
        for counter in 1..=3 {
            persist.append(LogPosition(counter), &Record::Session { counter });
            persist.flush();
        }
        assert_eq!(persist.syncs, 1, "the other two wait for the first");
        persist.close();
        log_thread(&disk, &inbox, &events);
        let mut found = Vec::new();
        read(&mut found);
        assert_eq!(found, [1, 2, 3].map(|counter| Record::Session { counter }));
    }
}
