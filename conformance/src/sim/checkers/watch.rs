//! What a watch promises, against the one history (faults.md 4.4): the nine checks of etcd's
//! `tests/robustness/validate/watch.go`, written anew, and nothing of `althing::watch` called.

use std::collections::BTreeSet;

use bytes::Bytes;

use crate::sim::checkers::model::{Past, Version, names};

/// What a client asked for.
#[derive(Clone, Debug)]
pub struct Asked {
    /// The first key.
    pub key: Bytes,
    /// As in etcd: none for one key.
    pub range_end: Bytes,
    /// The first revision wanted.
    pub start: i64,
    /// Puts are not wanted.
    pub no_put: bool,
    /// Deletes are not wanted.
    pub no_delete: bool,
    /// Each event is to come with the version before it.
    pub prev_kv: bool,
}

impl Asked {
    fn wants(&self, past: &Past) -> bool {
        self.holds(&past.key) && !if past.now.is_some() { self.no_put } else { self.no_delete }
    }

    fn holds(&self, key: &Bytes) -> bool {
        names((&self.key, &self.range_end), key)
    }
}

/// An event as a client sees it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Seen {
    /// Of the event.
    pub revision: i64,
    /// The key.
    pub key: Bytes,
    /// The new version of a put; none of a delete.
    pub now: Option<Version>,
    /// The version before, if it came along.
    pub before: Option<Version>,
}

/// One watcher's client: what it asked for and what it was told, across replicas and their crashes.
#[derive(Clone, Debug)]
pub struct Watched {
    asked: Asked,
    /// Everything wanted below this was told.
    next: i64,
    /// Where in the history the next wanted event is looked for.
    at: usize,
    /// The last event's revision.
    last: i64,
    told: BTreeSet<(i64, Bytes)>,
    /// The highest revision of a progress notice.
    progress: i64,
    /// Nothing was told since it (re)started.
    fresh: bool,
}

/// What broke which of the nine promises.
fn broken(promise: &str, what: &str, event: &Seen) -> Result<(), String> {
    Err(format!("a watch is not {promise}: {what}: {event:?}"))
}

impl Watched {
    /// A watch from `asked.start` on.
    #[must_use]
    pub fn new(asked: Asked) -> Self {
        let (next, told) = (asked.start, BTreeSet::new());
        Self { asked, next, at: 0, last: 0, told, progress: 0, fresh: true }
    }

    /// What it asked for.
    #[must_use]
    pub fn asked(&self) -> &Asked {
        &self.asked
    }

    /// Where a client would go on after its stream broke.
    #[must_use]
    pub fn next(&self) -> i64 {
        self.next
    }

    /// The stream broke: the client asks again, from where it was.
    pub fn resumes(&mut self) {
        self.fresh = true;
    }

    /// One response with events; `compacted` is the answering replica's compact revision.
    ///
    /// # Errors
    /// The first promise it breaks.
    pub fn events(
        &mut self,
        events: &[Seen],
        history: &[Past],
        compacted: i64,
    ) -> Result<(), String> {
        self.filtered_ordered_unique(events)?;
        self.bookmarkable(events)?;
        self.atomic(events, history)?;
        for event in events {
            let past = self.resumable_reliable(event, history)?;
            is_create(event, past)?;
            self.prev_kv(event, past, compacted)?;
        }
        self.last = events.last().map_or(self.last, |event| event.revision);
        self.next = self.next.max(self.last + 1);
        self.fresh = false;
        Ok(())
    }

    /// A progress notice at `revision`: everything up to it was told (bookmarkable).
    ///
    /// # Errors
    /// Something was not.
    pub fn progress(&mut self, revision: i64, history: &[Past]) -> Result<(), String> {
        if let Some(missing) = self.pending(history).filter(|past| past.revision <= revision) {
            let (at, key) = (missing.revision, &missing.key);
            return Err(format!(
                "a watch is not bookmarkable: progress at {revision}, but {key:?} at {at} was not told"
            ));
        }
        self.progress = self.progress.max(revision);
        self.next = self.next.max(revision + 1);
        Ok(())
    }

    /// The watch was cancelled at this compaction, and the client goes on behind it.
    ///
    /// # Errors
    /// It was not behind.
    pub fn compacted(&mut self, compacted: i64) -> Result<(), String> {
        if self.next >= compacted {
            let next = self.next;
            return Err(format!(
                "a watch at {next} was cancelled by the compaction at {compacted}"
            ));
        }
        self.asked.start = compacted;
        *self = Self::new(self.asked.clone());
        Ok(())
    }

    /// Whether everything up to `revision` that it wants was told.
    #[must_use]
    pub fn is_caught_up(&self, revision: i64, history: &[Past]) -> bool {
        self.pending(history).is_none_or(|past| past.revision > revision)
    }

    /// The first wanted event of the history that was not told.
    fn pending<'a>(&self, history: &'a [Past]) -> Option<&'a Past> {
        let wanted = |past: &&Past| past.revision >= self.asked.start && self.asked.wants(past);
        history.get(self.at..)?.iter().find(wanted)
    }

    fn filtered_ordered_unique(&mut self, events: &[Seen]) -> Result<(), String> {
        let mut last = self.last;
        for event in events {
            let unwanted =
                if event.now.is_some() { self.asked.no_put } else { self.asked.no_delete };
            if unwanted || !self.asked.holds(&event.key) || event.revision < self.asked.start {
                return broken("filtered", "it was not asked for", event);
            }
            if event.revision < last {
                return broken("ordered", &format!("{last} was told before"), event);
            }
            last = event.revision;
            if !self.told.insert((event.revision, event.key.clone())) {
                return broken("unique", "it was told before", event);
            }
        }
        Ok(())
    }

    fn bookmarkable(&self, events: &[Seen]) -> Result<(), String> {
        match events.iter().find(|event| event.revision <= self.progress) {
            Some(event) => broken("bookmarkable", &format!("progress {}", self.progress), event),
            None => Ok(()),
        }
    }

    /// A revision is told whole, in one response.
    fn atomic(&self, events: &[Seen], history: &[Past]) -> Result<(), String> {
        let (Some(first), Some(last)) = (events.first(), events.last()) else { return Ok(()) };
        if first.revision == self.last {
            return broken("atomic", "its revision was told in part", first);
        }
        let from = history.partition_point(|past| past.revision < last.revision);
        let whole = history[from..].iter().take_while(|past| past.revision == last.revision);
        let whole = whole.filter(|past| self.asked.wants(past)).count();
        let told = events.iter().filter(|event| event.revision == last.revision).count();
        if told < whole {
            return broken("atomic", &format!("{told} of {whole} changes"), last);
        }
        Ok(())
    }

    /// The event is the next wanted one of the history: nothing is left out after a start and nothing
    /// later.
    fn resumable_reliable<'a>(
        &mut self,
        event: &Seen,
        history: &'a [Past],
    ) -> Result<&'a Past, String> {
        let promise = if self.fresh { "resumable" } else { "reliable" };
        let start = self.asked.start;
        let wanted = |past: &Past| past.revision >= start && self.asked.wants(past);
        let offset = history.get(self.at..).and_then(|rest| rest.iter().position(wanted));
        let Some(offset) = offset else {
            return Err(format!("a watch tells what never was: {event:?}"));
        };
        let past = &history[self.at + offset];
        if (past.revision, &past.key) != (event.revision, &event.key) {
            let (at, key) = (past.revision, &past.key);
            broken(promise, &format!("{key:?} at {at} comes first"), event)?;
        }
        self.at += offset + 1;
        Ok(past)
    }

    fn prev_kv(&self, event: &Seen, past: &Past, compacted: i64) -> Result<(), String> {
        let hidden = event.before.is_none() && event.revision <= compacted;
        if self.asked.prev_kv && !hidden && event.before != past.before {
            return broken("right about prev-kv", &format!("it was {:?}", past.before), event);
        }
        if !self.asked.prev_kv && event.before.is_some() {
            return broken("right about prev-kv", "it was not asked for", event);
        }
        Ok(())
    }
}

/// A put is a creation exactly if the key was not there; and the version is the history's.
fn is_create(event: &Seen, past: &Past) -> Result<(), String> {
    let creates = |now: &Version| now.create == now.modified;
    let said = event.now.as_ref().is_some_and(creates);
    if said != (past.now.is_some() && past.before.is_none()) {
        return broken("right about creation", &format!("before it was {:?}", past.before), event);
    }
    if event.now != past.now {
        return broken("true", &format!("it was {:?}", past.now), event);
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn version(create: i64, modified: i64) -> Version {
        let (version, lease, value) = (modified - create + 1, 0, Bytes::from_static(b"v"));
        Version { create, modified, version, lease, value }
    }

    /// a at 2, a and b at 3 in one transaction, a deleted at 4.
    fn history() -> Vec<Past> {
        let past = |revision, key: &'static [u8], now, before| Past {
            revision,
            key: Bytes::from_static(key),
            now,
            before,
        };
        vec![
            past(2, b"a", Some(version(2, 2)), None),
            past(3, b"a", Some(version(2, 3)), Some(version(2, 2))),
            past(3, b"b", Some(version(3, 3)), None),
            past(4, b"a", None, Some(version(2, 3))),
        ]
    }

    fn seen(past: &Past) -> Seen {
        let (now, before) = (past.now.clone(), past.before.clone());
        Seen { revision: past.revision, key: past.key.clone(), now, before }
    }

    fn watch(start: i64) -> Watched {
        let (key, range_end) = (Bytes::from_static(b"a"), Bytes::from_static(b"c"));
        let (no_put, no_delete, prev_kv) = (false, false, true);
        Watched::new(Asked { key, range_end, start, no_put, no_delete, prev_kv })
    }

    /// What the checks say of these events, each number one of the history's and one response each.
    fn verdict(watched: &mut Watched, responses: &[&[usize]]) -> String {
        let history = history();
        for response in responses {
            let events: Vec<Seen> = response.iter().map(|at| seen(&history[*at])).collect();
            if let Err(why) = watched.events(&events, &history, 0) {
                return why;
            }
        }
        "right".to_owned()
    }

    #[test]
    fn the_history_itself_breaks_no_promise_and_each_promise_can_be_broken() {
        assert_eq!(verdict(&mut watch(1), &[&[0], &[1, 2], &[3]]), "right");
        assert_eq!(verdict(&mut watch(3), &[&[1, 2, 3]]), "right");
        let cases: [(&str, i64, &[&[usize]]); 6] = [
            ("not filtered", 3, &[&[0]]),
            ("not ordered", 1, &[&[0, 3, 1, 2]]),
            ("not unique", 1, &[&[0], &[0]]),
            ("not atomic", 1, &[&[0], &[1], &[2]]),
            ("not resumable", 1, &[&[1, 2]]),
            ("not reliable", 1, &[&[0], &[3]]),
        ];
        for (promise, start, responses) in cases {
            let said = verdict(&mut watch(start), responses);
            assert!(said.contains(promise), "{promise}: {said}");
        }
    }

    #[test]
    fn progress_ahead_of_events_wrong_creation_and_wrong_previous_versions_are_found() {
        let history = history();
        let mut early = watch(1);
        early.events(&[seen(&history[0])], &history, 0).unwrap();
        early.progress(2, &history).unwrap();
        assert!(early.progress(3, &history).unwrap_err().contains("bookmarkable"));
        let mut created = seen(&history[1]);
        created.now = Some(Version { create: 3, ..version(2, 3) });
        let both = [created, seen(&history[2])];
        assert!(watch(3).events(&both, &history, 0).unwrap_err().contains("creation"));
        let bare = [Seen { before: None, ..seen(&history[1]) }, seen(&history[2])];
        assert!(watch(3).events(&bare, &history, 0).unwrap_err().contains("prev-kv"));
        assert_eq!(watch(3).events(&bare, &history, 3), Ok(()), "compacted since");
        assert!(watch(3).compacted(3).is_err() && watch(3).compacted(4).is_ok());
    }
}
