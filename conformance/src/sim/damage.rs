//! Rot and reads that fail, while a replica runs (faults.md D4, D6, D11): whoever meets it stops voting and
//! serving, and comes back by production's repair. The disk of a damaged replica counts against f.

use std::sync::Arc;

use althing::ordering::Input;
use althing::storage::checkpoint::candidates;
use althing::storage::disk::Disk;
use althing::storage::log::{LOG_DIRECTORY, SegmentReader, segments};

use crate::sim::node::Lost;
use crate::sim::node_repair::{begin, complete};
use crate::sim::plan::{MILLI, SECOND};
use crate::sim::world::{Event, Local, World};

/// Segments at the end that may still be written: the scrub leaves them alone.
const OPEN_SEGMENTS: usize = 2;

impl World {
    /// Some file of some voter rots, or cannot be read any more.
    pub(super) fn rot(&mut self) {
        let slot = self.random.index(self.nodes.len());
        let node = &self.nodes[slot];
        let whole = node.lost == Lost::No && self.votes_now(slot) && self.honest(slot);
        if !self.has_begun() || !whole || !self.bears_one_more() {
            return;
        }
        let disk = self.nodes[slot].disk.clone();
        let files = disk.files();
        if files.is_empty() {
            return;
        }
        let (path, length) = self.random.pick(&files).clone();
        let unreadable = self.random.chance(500);
        if unreadable {
            disk.refuse_reads(&path);
        } else if length > 0 {
            let (at, bit) = (self.random.index(length), self.random.below(8));
            disk.rot(&path, at, 1 << bit);
        }
        self.count(if unreadable { "file made unreadable" } else { "byte rotten" });
        self.say(slot, || format!("{path} is damaged"));
        self.nodes[slot].lost = Lost::Damaged;
        let delay = self.random.between(MILLI, 4 * SECOND);
        self.schedule_local(slot, delay, Local::Scrub);
    }

    /// Something could not be read: the replica says so and votes no more, if that was to be expected.
    pub(super) fn hurt(&mut self, slot: usize, what: String) -> Result<(), String> {
        self.unread(slot, what.clone())?;
        self.step(slot, Input::Damaged { reason: what })
    }

    /// The same, where a replica only does without. What failed to be written is no damage: it ends the
    /// process of a damaged replica like that of any other (protocol.md 6).
    pub(super) fn unread(&mut self, slot: usize, what: String) -> Result<(), String> {
        let node = &mut self.nodes[slot];
        if node.lost != Lost::Damaged || node.disk.has_met() {
            return Err(what);
        }
        let refused = node.disk.refused_reads();
        self.count(if refused { "disk: read failed" } else { "rot met" });
        self.say(slot, || format!("meets damage: {what}"));
        Ok(())
    }

    /// Reads all that is on disk and not written any more, as the node's scrub does.
    pub(super) fn scrub(&mut self, slot: usize) -> Result<(), String> {
        let node = &self.nodes[slot];
        let disk: Arc<dyn Disk> = Arc::new(node.disk.clone());
        let settings = node.log_settings();
        let pass = || -> Result<(), String> {
            let found = candidates(disk.as_ref(), &settings.cluster_id);
            let found = found.map_err(|error| error.to_string())?;
            if let Some(error) = found.damaged.first() {
                return Err(error.to_string());
            }
            for checkpoint in found.whole {
                for chunk in checkpoint.chunks(&disk) {
                    chunk.map_err(|error| error.to_string())?;
                }
            }
            let mut numbers = segments(disk.as_ref()).map_err(|error| error.to_string())?;
            numbers.truncate(numbers.len().saturating_sub(OPEN_SEGMENTS));
            for segment in numbers {
                let mut reader = SegmentReader::open(disk.as_ref(), &settings, segment)
                    .map_err(|error| error.to_string())?;
                while reader.next().map_err(|error| error.to_string())?.is_some() {}
            }
            Ok(())
        };
        match pass() {
            Ok(()) => Ok(()),
            Err(what) if self.nodes[slot].quarantined => {
                self.say(slot, || what);
                Ok(())
            }
            Err(what) => self.hurt(slot, what),
        }
    }

    /// The core votes no more, and the node serves nothing; the operator repairs it some time.
    pub(super) fn quarantine(&mut self, slot: usize) {
        self.count("quarantine");
        self.nodes[slot].quarantined = true;
        if let Some(life) = &mut self.nodes[slot].life {
            life.reads.clear();
            life.ready.clear();
            life.open.clear();
            life.streams.clear();
        }
        let soon = if self.healed_at.is_some() { SECOND } else { 4 * SECOND };
        let delay = self.random.between(100 * MILLI, soon);
        self.schedule(delay, Event::Repair { slot });
    }

    /// A start met damage: the process is up and serves nothing, until it is repaired.
    pub(super) fn starts_damaged(&mut self, slot: usize, what: String) -> Result<(), String> {
        self.unread(slot, what)?;
        self.nodes[slot].life = None;
        self.nodes[slot].promises.crashed();
        if !self.nodes[slot].quarantined {
            self.quarantine(slot);
        }
        Ok(())
    }

    /// `althing replica repair`, by production's code on another disk with what could be copied.
    pub(super) fn repair(&mut self, slot: usize) -> Result<(), String> {
        if !self.nodes[slot].quarantined {
            return Ok(());
        }
        self.crash(slot);
        let node = &mut self.nodes[slot];
        node.disk.mend();
        let (disk, settings) = (node.disk.clone(), node.log_settings());
        let repaired = begin(&disk).and_then(|()| complete(&disk, &settings));
        repaired.map_err(|error| format!("{slot} cannot be repaired: {error}"))?;
        node.quarantined = false;
        node.lost = Lost::Wiped;
        node.promises.lost();
        let id = node.identity.id;
        self.ledger.forget(id);
        self.count("repaired");
        self.say(slot, || "is repaired".to_owned());
        self.schedule(MILLI, Event::Restart { slot });
        Ok(())
    }
}

/// Files that a replica's promises rest on.
#[must_use]
pub fn matters(path: &str) -> bool {
    path.starts_with(LOG_DIRECTORY) || path.starts_with("checkpoint")
}
