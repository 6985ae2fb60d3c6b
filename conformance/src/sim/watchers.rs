//! Watch clients: streams of production's `watch` on the replicas, read slowly or at once, broken by
//! crashes and taken up again elsewhere; what they are told goes to the nine checks.

use std::collections::{BTreeMap, BTreeSet};

use althing::chain::{ValueError, ValueSource};
use althing::state::{KeyValue, Span};
use althing::types::Revision;
use althing::watch::{Delivery, Filters, KeyRange, Load, Slot, Store, Watch, WatchStream};
use bytes::Bytes;

use crate::sim::checkers::model::Version;
use crate::sim::checkers::watch::{Asked, Seen, Watched};
use crate::sim::plan::{MILLI, Micros};
use crate::sim::random::Random;
use crate::sim::workload::{KEYS, KEYS_END, key};
use crate::sim::world::{Event, World};

/// Most watches of one client.
const WATCHES_MAX: usize = 4;
/// The id that stands for all watches of a stream.
const ALL: i64 = -1;

/// How sending a response went.
enum Told {
    /// It arrived.
    All,
    /// Values of its events are not where they were; the first event's revision.
    Moved(Revision),
    /// The watch is behind this compaction.
    Compacted(Revision),
    /// A value cannot be read: the stream has ended with an error, and with it what was still to be sent.
    Ended,
}

/// A client with one stream: it outlives its replica's process.
pub struct WatchClient {
    /// Where its stream is, and in which process.
    at: Option<(usize, u64)>,
    watches: BTreeMap<i64, Watched>,
    next_id: i64,
    /// Longest time between two reads.
    patience: Micros,
    /// From here on one watch of everything that is not compacted.
    healing: bool,
    random: Random,
}

impl WatchClient {
    /// `count` clients, of whom some read slowly.
    #[must_use]
    pub fn some(count: usize, random: &mut Random) -> Vec<Self> {
        let client = |random: &mut Random| {
            let mut random = random.fork();
            let patience = *random.pick(&[5 * MILLI, 40 * MILLI, 2000 * MILLI]);
            let watches = BTreeMap::new();
            Self { at: None, watches, next_id: 1, patience, healing: false, random }
        };
        (0..count).map(|_| client(random)).collect()
    }

    /// The faults end: it reads on, and asks for all there is.
    pub fn heal(&mut self) {
        (self.patience, self.healing) = (40 * MILLI, true);
    }

    /// Some watch: of a key or of all, from about now, from long ago, or from a time to come.
    fn wish(&mut self, revision: i64) -> Asked {
        let one = self.random.chance(300);
        let number = self.random.below(KEYS);
        let first = key(if one { number } else { number / 2 });
        let range_end = if one { Bytes::new() } else { Bytes::from_static(KEYS_END) };
        let away = i64::try_from(self.random.below(60)).expect("small");
        let start = match self.random.below(4) {
            0 => 0,
            1 => revision + away / 4,
            _ => (revision - away).max(1),
        };
        Asked {
            key: first,
            range_end,
            start,
            no_put: self.random.chance(100),
            no_delete: self.random.chance(100),
            prev_kv: self.random.chance(500),
        }
    }
}

fn wanted(id: i64, asked: &Asked, start: i64) -> Watch {
    let range = KeyRange::new(asked.key.clone(), asked.range_end.clone());
    Watch {
        id,
        range: range.expect("a range with keys"),
        start: Revision(start),
        filters: Filters { no_put: asked.no_put, no_delete: asked.no_delete },
        prev_kv: asked.prev_kv,
        progress_notify: id % 2 == 0,
        fragment: false,
    }
}

impl World {
    /// A client reads what its stream has for it, and asks for something more or less.
    pub(super) fn watch(&mut self, client: usize) -> Result<(), String> {
        let WatchClient { random, patience, .. } = &mut self.watchers[client];
        let delay = random.between(MILLI, (*patience).max(MILLI));
        self.schedule(delay, Event::Watch { client });
        if !self.connect_watcher(client) {
            return Ok(());
        }
        self.ask_watch(client);
        let mut rounds = self.watchers[client].random.between(1, 20);
        while rounds > 0 {
            rounds -= 1;
            if !self.read_watch(client)? {
                break;
            }
        }
        Ok(())
    }

    /// True if the client has a stream; if it broke, it goes on at some replica, where it was.
    fn connect_watcher(&mut self, client: usize) -> bool {
        if let Some((slot, life)) = self.watchers[client].at {
            let node = &self.nodes[slot];
            let stands = node.life.as_ref().is_some_and(|now| now.number == life);
            if stands && self.serves_watches(slot) {
                return !node.paused;
            }
            self.watchers[client].at = None;
        }
        let slots = self.nodes.len();
        let slot = self.watchers[client].random.index(slots);
        if self.nodes[slot].paused || !self.honest(slot) || !self.serves_watches(slot) {
            return false;
        }
        let Some(life) = &mut self.nodes[slot].life else { return false };
        let current = life.machine.ring.revision();
        let mut stream = WatchStream::new(current);
        let watcher = &mut self.watchers[client];
        let resumed = !watcher.watches.is_empty();
        for (id, watched) in &mut watcher.watches {
            watched.resumes();
            stream.create(*id, wanted(*id, watched.asked(), watched.next()), current);
        }
        watcher.at = Some((slot, life.number));
        life.streams.insert(client, stream);
        if resumed {
            self.count("watch taken up again");
        }
        true
    }

    fn serves_watches(&self, slot: usize) -> bool {
        let node = &self.nodes[slot];
        !node.gone && !node.quarantined && node.life.is_some() && self.is_member(slot)
    }

    /// Creates a watch, cancels one, or asks for progress.
    fn ask_watch(&mut self, client: usize) {
        let watcher = &mut self.watchers[client];
        let Some((slot, _)) = watcher.at else { return };
        let Some(life) = &mut self.nodes[slot].life else { return };
        let Some(stream) = life.streams.get_mut(&client) else { return };
        let current = life.machine.ring.revision();
        let create = watcher.watches.is_empty() || watcher.random.chance(50);
        if watcher.healing || create && watcher.watches.len() < WATCHES_MAX {
            let mut asked = watcher.wish(current.0);
            if core::mem::take(&mut watcher.healing) {
                let start = life.machine.state.kv.compact_revision().0.max(1);
                let range_end = Bytes::from_static(KEYS_END);
                asked = Asked { key: key(0), range_end, start, ..asked };
            }
            let id = watcher.next_id;
            watcher.next_id += 1;
            let watch = wanted(id, &asked, asked.start);
            stream.create(id, watch, current);
            // The answer says from when on it counts.
            let from_now = asked.start == 0;
            asked.start = if from_now { current.0 + 1 } else { asked.start };
            watcher.watches.insert(id, Watched::new(asked));
        } else if watcher.random.chance(20) {
            let id = watcher.watches.keys().next().copied();
            if let Some(id) = id {
                watcher.watches.remove(&id);
                stream.cancel(id);
            }
        }
        if watcher.random.chance(100) {
            stream.request_progress();
        }
        if watcher.random.chance(100) {
            stream.tick();
        }
        if watcher.random.chance(20) {
            // As a full ring does, a little early.
            let back = i64::try_from(watcher.random.below(30)).expect("small");
            life.machine.ring.forget(Revision(current.0 - back));
        }
    }

    /// One poll; true if there is more.
    fn read_watch(&mut self, client: usize) -> Result<bool, String> {
        let Some((slot, _)) = self.watchers[client].at else { return Ok(false) };
        let events_max = self.nodes[slot].local.catch_up_events;
        let Some(life) = &mut self.nodes[slot].life else { return Ok(false) };
        let Some(mut stream) = life.streams.remove(&client) else { return Ok(false) };
        let (kv, ring) = (&life.machine.state.kv, &life.machine.ring);
        let (until, compacted) = (ring.revision(), kv.compact_revision());
        let history = |from: Revision, range: &KeyRange| {
            let (key, range_end) = range.bounds();
            kv.changes(from, until, Span::new(key, &range_end), events_max)
        };
        let store = Store { ring, compact_revision: compacted, history: &history };
        let (deliveries, more) = stream.poll(&store);
        let (mut gone, mut went_back) = (BTreeSet::new(), BTreeSet::new());
        for delivery in deliveries {
            let id = delivery.watch_id;
            if gone.contains(&id) || went_back.contains(&id) {
                continue;
            }
            if !went_back.is_empty() && matches!(delivery.load, Load::Progress) {
                // Not everything before it was sent.
                stream.request_progress();
                continue;
            }
            let told = self.told(client, slot, delivery, (compacted, &gone));
            let at = match told.map_err(|what| format!("client {client} at {slot}: {what}"))? {
                Told::All => continue,
                Told::Ended => return Ok(false),
                Told::Moved(first) if first >= compacted && stream.go_back(id, first) => {
                    went_back.insert(id);
                    self.count("watch taken again from history");
                    continue;
                }
                Told::Moved(_) => compacted,
                Told::Compacted(at) => at,
            };
            self.behind(client, id, at)?;
            gone.insert(id);
        }
        let more = more || !went_back.is_empty();
        for id in gone {
            stream.cancel(id);
            let Some(watched) = self.watchers[client].watches.get(&id) else { continue };
            stream.create(id, wanted(id, watched.asked(), watched.next()), until);
        }
        if let Some(life) = &mut self.nodes[slot].life {
            life.streams.insert(client, stream);
        }
        Ok(more)
    }

    /// A watch was cancelled by a compaction; its client makes it anew.
    fn behind(&mut self, client: usize, id: i64, compacted: Revision) -> Result<(), String> {
        if let Some(watched) = self.watchers[client].watches.get_mut(&id) {
            watched.compacted(compacted.0)?;
        }
        self.count("watch across compaction");
        Ok(())
    }

    /// What is to be sent is read and, if all of it is there, arrives.
    fn told(
        &mut self,
        client: usize,
        slot: usize,
        delivery: Delivery,
        (compacted, gone): (Revision, &BTreeSet<i64>),
    ) -> Result<Told, String> {
        let Delivery { watch_id, revision, load } = delivery;
        if let Load::Compacted(at) = load {
            return Ok(Told::Compacted(at));
        }
        let mut seen = Vec::new();
        if let Load::Events { slots, prev_kv, .. } = &load {
            let Some(life) = &self.nodes[slot].life else { return Ok(Told::All) };
            let first = slots.first().map_or(Revision(0), |slot| slot.event.revision);
            for event in slots {
                match see(event, *prev_kv, &life.machine.values, compacted) {
                    Ok(event) => seen.push(event),
                    Err(ValueError::Erased(_)) => return Ok(Told::Moved(first)),
                    Err(error) => {
                        // The stream ends with an error; the client goes elsewhere.
                        self.watchers[client].at = None;
                        self.unread(slot, format!("an event's value: {error}"))?;
                        return Ok(Told::Ended);
                    }
                }
            }
        }
        let history = &self.model.history;
        let watches = &mut self.watchers[client].watches;
        if seen.is_empty() {
            let meant = |id: &i64| (watch_id == ALL || *id == watch_id) && !gone.contains(id);
            for (_, watched) in watches.iter_mut().filter(|(id, _)| meant(id)) {
                watched.progress(revision.0, history)?;
            }
            self.count("watch progress");
            return Ok(Told::All);
        }
        let Some(watched) = watches.get_mut(&watch_id) else {
            return Err(format!("events for watch {watch_id}, which there is not"));
        };
        watched.events(&seen, history, compacted.0)?;
        // Whoever saw an event and then reads must find it.
        let last = seen.last().map_or(0, |event| event.revision);
        self.requests.seen = self.requests.seen.max(last);
        *self.seen.entry("watch event").or_default() += seen.len() as u64;
        Ok(Told::All)
    }

    /// Watches that lack something after the faults.
    pub(super) fn watches_behind(&self) -> Vec<String> {
        let (history, top) = (&self.model.history, self.model.revision());
        let clients = self.watchers.iter().enumerate();
        let behind = clients.filter(|(_, client)| {
            let all = |watched: &Watched| watched.is_caught_up(top, history);
            client.healing || !client.watches.values().all(all)
        });
        behind.map(|(client, _)| format!("watch client {client} is behind {top}")).collect()
    }
}

fn see(
    slot: &Slot,
    prev_kv: bool,
    values: &dyn ValueSource,
    compacted: Revision,
) -> Result<Seen, ValueError> {
    let event = &slot.event;
    let put = event.kind == althing::chain::ChangeKind::Put;
    let now = if put { Some(version(&event.kv, values)?) } else { None };
    let before = event.prev.as_ref().filter(|_| prev_kv);
    let before = match before.map(|before| version(before, values)).transpose() {
        // What a compaction hid may be erased.
        Err(ValueError::Erased(_)) if event.revision <= compacted => None,
        other => other?,
    };
    let (revision, key) = (event.revision.0, event.kv.key.clone());
    Ok(Seen { revision, key, now, before })
}

/// A version with its value.
pub(super) fn version(kv: &KeyValue, values: &dyn ValueSource) -> Result<Version, ValueError> {
    Ok(Version {
        create: kv.create.0,
        modified: kv.modified.0,
        version: kv.version,
        lease: kv.lease.0,
        value: values.read(kv.value)?.bytes,
    })
}
