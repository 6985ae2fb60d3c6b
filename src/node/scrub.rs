//! The scrub: everything on disk that votes and values rest on is read again now and then, slowly, so
//! that rot is found before the other copies rot too (protocol.md 19.5).

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::Sender;
use std::time::{Duration, Instant};

use crate::node::event::Event;
use crate::storage::checkpoint::{CheckpointError, candidates};
use crate::storage::disk::{Disk, DiskErrorKind};
use crate::storage::log::{LogError, LogSettings, SegmentReader, segments};

/// The first pass begins so long after the start, the next so long after the end of the one before.
const FIRST_AFTER: Duration = Duration::from_secs(600);
const EVERY: Duration = Duration::from_secs(24 * 3600);

/// Between two chunks or so many records: a few MiB in a second.
const PAUSE: Duration = Duration::from_millis(200);
const RECORDS_PER_SLICE: usize = 64;

/// Segments at the end that may still be written.
const OPEN_SEGMENTS: usize = 2;

pub(super) struct Scrub {
    pub(super) disk: Arc<dyn Disk>,
    pub(super) settings: LogSettings,
    pub(super) stop: Arc<AtomicBool>,
}

/// Why a pass ended early.
enum Ended {
    Stopped,
    Damaged(String),
}

impl Scrub {
    /// Reads all over and over, until it is told to stop or finds damage.
    pub(super) fn run(self, events: &Sender<Event>) {
        let mut pause = FIRST_AFTER;
        while self.wait(pause).is_ok() {
            pause = EVERY;
            match self.pass(PAUSE) {
                Ok(()) => tracing::info!(event = "scrub", "all that is on disk is whole"),
                Err(Ended::Stopped) => return,
                Err(Ended::Damaged(reason)) => {
                    drop(events.send(Event::Damaged(reason)));
                    return;
                }
            }
        }
    }

    fn wait(&self, pause: Duration) -> Result<(), Ended> {
        let until = Instant::now() + pause;
        while Instant::now() < until {
            if self.stop.load(Ordering::Relaxed) {
                return Err(Ended::Stopped);
            }
            std::thread::sleep(pause.min(PAUSE));
        }
        Ok(())
    }

    fn pass(&self, pause: Duration) -> Result<(), Ended> {
        self.checkpoints(pause)?;
        self.log(pause)
    }

    fn checkpoints(&self, pause: Duration) -> Result<(), Ended> {
        let found = match candidates(self.disk.as_ref(), &self.settings.cluster_id) {
            Ok(found) => found,
            Err(error) => return Err(Ended::Damaged(error.to_string())),
        };
        if let Some(error) = found.damaged.first() {
            return Err(Ended::Damaged(error.to_string()));
        }
        for checkpoint in found.whole {
            for chunk in checkpoint.chunks(&self.disk) {
                let gone = |path: &str| {
                    let there = self.disk.open(path, crate::storage::disk::Open::Read);
                    there.is_err_and(|error| error.kind == DiskErrorKind::NotFound)
                };
                match chunk {
                    Ok(_) => self.wait(pause)?,
                    // An old checkpoint is removed while it is read.
                    Err(CheckpointError::Chunk { path, .. }) if gone(&path) => break,
                    Err(error) => return Err(Ended::Damaged(error.to_string())),
                }
            }
        }
        Ok(())
    }

    fn log(&self, pause: Duration) -> Result<(), Ended> {
        let Ok(mut numbers) = segments(self.disk.as_ref()) else { return Ok(()) };
        numbers.truncate(numbers.len().saturating_sub(OPEN_SEGMENTS));
        for segment in numbers {
            if let Err(error) = self.segment(segment, pause)? {
                if error.is_damage() && !matches!(error, LogError::Missing { .. }) {
                    return Err(Ended::Damaged(error.to_string()));
                }
                tracing::warn!(event = "scrub", segment, "{error}");
            }
        }
        Ok(())
    }

    fn segment(&self, segment: u32, pause: Duration) -> Result<Result<(), LogError>, Ended> {
        let opened = SegmentReader::open(self.disk.as_ref(), &self.settings, segment);
        let mut reader = match opened {
            Ok(reader) => reader,
            Err(error) => return Ok(Err(error)),
        };
        let mut records = 0;
        loop {
            match reader.next() {
                Ok(Some(_)) => records += 1,
                Ok(None) => return Ok(Ok(())),
                Err(error) => return Ok(Err(error)),
            }
            if records % RECORDS_PER_SLICE == 0 {
                self.wait(pause)?;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use crate::chain::Record;
    use crate::storage::disk::memory::MemoryDisk;
    use crate::storage::log::{ReplayMark, recover, segment_path};
    use crate::types::{Digest, LogPosition, ReplicaId};

    use super::*;

    /// A pass over a log of several segments.
    fn pass(disk: &Arc<MemoryDisk>, settings: LogSettings) -> Result<(), String> {
        let stop = Arc::new(AtomicBool::new(false));
        let scrub = Scrub { disk: disk.clone(), settings, stop };
        scrub.pass(Duration::ZERO).map_err(|ended| match ended {
            Ended::Stopped => "stopped".to_owned(),
            Ended::Damaged(reason) => reason,
        })
    }

    #[test]
    fn a_flipped_byte_in_a_sealed_segment_is_found_and_the_segment_named() {
        let disk = Arc::new(MemoryDisk::default());
        let mut settings = LogSettings::new(Digest([1; 32]), ReplicaId(0), [2; 16]);
        (settings.first_segment_bytes, settings.segment_bytes) = (4096, 4096);
        let recovered = recover(&*disk, &settings, ReplayMark::start(), &mut |_, _, _| {});
        let mut appender = recovered.expect("an empty log").appender;
        for counter in 1..400 {
            appender.append(LogPosition(counter), &Record::Session { counter });
        }
        appender.take_batch().expect("records").write(&*disk).expect("memory does not fail");
        assert!(appender.segment() > 4, "several segments are sealed");
        pass(&disk, settings).expect("all is whole");
        let path = segment_path(2);
        let whole = disk.read(&path);
        for at in [200, 1000, 2000] {
            let mut flipped = whole.clone();
            flipped[at] ^= 4;
            disk.put(&path, flipped);
            let found = pass(&disk, settings).expect_err("rot");
            assert!(found.contains(&path), "{found}");
        }
    }
}
