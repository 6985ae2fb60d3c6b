//! Plays a program on one server, or on the replicas of one network, and says what was answered
//! with everything left out that names the server or the moment.

use std::collections::{BTreeMap, BTreeSet};
use std::time::{Duration, Instant};

use conformance::client::{self, Client, Failure, Received, Stream, field, number};
use conformance::differences::known;
use prost_reflect::{DynamicMessage, ReflectMessage, Value};

use super::differences;
use super::generate::Random;
use super::program::{EXPIRES, Step, USERS, WatchAction};
use crate::script;

/// A hang detector.
const PATIENCE: Duration = Duration::from_secs(60);
/// How often progress is asked for until every watcher has caught up.
const ASK_AGAIN: Duration = Duration::from_millis(20);
/// What a lease may lack: a second by contract, and one by rounding on both sides.
const LEASE_SECONDS_LESS: i64 = 2;
/// What it may have more: the lease clock gains 2 s in a block, and a busy machine makes few of them.
const LEASE_SECONDS_MORE: i64 = 60;

/// Clients of what is tested, and what they remember.
pub struct Player {
    clients: Vec<Client>,
    /// Which replica is asked next; the same for the same seed.
    random: Random,
    /// The replica that showed the newest state.
    newest: usize,
    tokens: [Option<String>; 4],
    streams: BTreeMap<usize, Watches>,
    /// Leases with the time they were granted or renewed, and their TTL.
    leases: BTreeMap<i64, (Instant, i64)>,
    /// The highest revision seen in a header.
    pub revision: i64,
    /// Revisions that were compacted up to. etcd takes 0 for one.
    compactions: BTreeSet<i64>,
}

/// One watch stream.
struct Watches {
    stream: Stream,
    /// At which replica.
    at: usize,
    /// By watch id, what came and was not yet compared.
    lines: BTreeMap<i64, Vec<String>>,
    /// Watchers that live, with their start revision.
    live: BTreeMap<i64, i64>,
    /// Watchers a compaction has cut off. etcd keeps their ids, and progress from the whole stream, until
    /// they are canceled.
    cut: BTreeSet<i64>,
    /// Up to here the server has said that everything was shown.
    progress: i64,
    order: Order,
    ended: bool,
}

/// Between two settlings with the same watchers throughout, etcd shows what they see in the order of
/// revisions, whichever of them sees it: until so much waits that it sets a slow watcher aside.
#[derive(Default)]
struct Order {
    /// Nobody was added or cut off since the last settling.
    steady: bool,
    messages: u32,
    newest: i64,
    broken: bool,
}

impl Order {
    const MESSAGES_MAX: u32 = 60;

    fn note(&mut self, first: i64, last: i64) {
        self.messages += 1;
        self.broken |= first < self.newest;
        self.newest = self.newest.max(last);
    }

    fn settle(&mut self) -> bool {
        let broken = self.broken && self.steady && self.messages <= Self::MESSAGES_MAX;
        *self = Self { steady: true, ..Self::default() };
        broken
    }
}

/// The revision that a request names.
fn named_revision(method: &str, request: &str) -> i64 {
    number(&client::parse(client::find_method(method).input(), request), "revision")
}

impl Player {
    /// Plays on `clients`, one a replica.
    pub fn new(clients: Vec<Client>, seed: u64) -> Player {
        Player {
            clients,
            random: Random(seed),
            newest: 0,
            tokens: Default::default(),
            streams: BTreeMap::new(),
            leases: BTreeMap::new(),
            revision: 1,
            compactions: BTreeSet::new(),
        }
    }

    /// Performs one step; what was answered.
    pub fn play(&mut self, step: &Step) -> String {
        let count = u64::try_from(self.clients.len()).expect("a few replicas");
        let at = match step.may_be_stale() {
            true => self.newest,
            false => usize::try_from(self.random.below(count)).expect("small"),
        };
        match step {
            Step::Call { who, method, request } => self.call(at, *who, method, request),
            Step::Gather { who, method, request } => {
                self.sign(at, *who);
                script::gather(&self.clients[at], method, request).join("\n")
            }
            Step::Raw { method, bytes } => {
                self.clients[at].set_token(None);
                match self.clients[at].call_bytes(method, bytes) {
                    Ok(reply) => self.seen(at, reply),
                    Err(failure) => differences::failure(&failure),
                }
            }
            Step::Login { user, password } => self.login(at, *user, password),
            Step::Watch { who, stream, action } => self.watch(at, *who, *stream, action),
            Step::KeepAlive { who, leases } => self.keep_alive(at, *who, leases),
            Step::Expire { who, request } => self.expire(at, *who, request),
            Step::Settle => self.settle(at),
        }
    }

    fn sign(&self, at: usize, who: Option<usize>) {
        let token = who.and_then(|user| self.tokens[user].as_deref());
        self.clients[at].set_token(token);
    }

    fn call(&mut self, at: usize, who: Option<usize>, method: &str, request: &str) -> String {
        self.sign(at, who);
        let answer = self.clients[at].call(method, request);
        if method == "Maintenance/HashKV" {
            let revision = named_revision(method, request);
            let last = revision == self.compacted() && revision > 0;
            if self.compactions.contains(&revision) && !last {
                return differences::compacted_hash(answer);
            }
        }
        let mut reply = match answer {
            Ok(reply) => reply,
            Err(failure) => return differences::failure(&failure),
        };
        match method {
            "Lease/LeaseGrant" => {
                let (id, ttl) = (number(&reply, "ID"), number(&reply, "TTL"));
                self.leases.insert(id, (Instant::now(), ttl));
                if !request.contains("ID:") {
                    return self.give_back(at, who, reply);
                }
            }
            "Lease/LeaseTimeToLive" => {
                self.judge_time(&mut reply);
                differences::sort_keys(&mut reply);
            }
            "Maintenance/HashKV" => {
                let last = named_revision(method, request) == self.compacted();
                differences::hash(&mut reply, last);
            }
            "Maintenance/Hash" => differences::hash(&mut reply, false),
            "Maintenance/Status" => differences::status(&mut reply),
            "Maintenance/Alarm" => differences::sort(&mut reply, "alarms"),
            "KV/Compact" => {
                self.compactions.insert(named_revision(method, request));
            }
            _ => {}
        }
        match method {
            // Answered from what the replica has, which may lack a compaction.
            "Lease/LeaseTimeToLive" | "Lease/LeaseLeases" | "Maintenance/Defragment" => {
                script::reply_text(reply, &[])
            }
            _ => self.seen(at, reply),
        }
    }

    /// The revision of the last compaction; 0 before any.
    fn compacted(&self) -> i64 {
        self.compactions.last().copied().unwrap_or(0)
    }

    /// A lease whose id the server chose ends at once: no later request can name it.
    fn give_back(&mut self, at: usize, who: Option<usize>, mut reply: DynamicMessage) -> String {
        let id = number(&reply, "ID");
        let chosen = if id > 0 { "a positive id" } else { "A STRANGE ID" };
        reply.clear_field_by_name("ID");
        let granted = self.seen(at, reply);
        let revoked = self.call(at, who, "Lease/LeaseRevoke", &format!("ID:{id}"));
        format!("{chosen} {granted}, {revoked}")
    }

    /// The remaining time is compared with this machine's clock, on either side.
    fn judge_time(&self, reply: &mut DynamicMessage) {
        let (id, ttl) = (number(reply, "ID"), number(reply, "TTL"));
        let Some((since, granted)) = self.leases.get(&id).filter(|_| ttl >= 0) else { return };
        let passed = i64::try_from(since.elapsed().as_secs()).expect("a short test");
        if (-LEASE_SECONDS_LESS..=LEASE_SECONDS_MORE).contains(&(ttl - (granted - passed))) {
            reply.clear_field_by_name("TTL");
        }
    }

    /// Remembers what a reply shows of the state.
    fn seen(&mut self, at: usize, reply: DynamicMessage) -> String {
        if reply.descriptor().get_field_by_name("header").is_some() {
            let revision = number(&reply, "header.revision");
            if revision >= self.revision {
                self.revision = revision;
                self.newest = at;
            }
        }
        script::reply_text(reply, &[])
    }

    fn login(&mut self, at: usize, user: usize, password: &str) -> String {
        self.clients[at].set_token(None);
        let request = format!("name:'{}' password:'{password}'", USERS[user]);
        match self.clients[at].call("Auth/Authenticate", &request) {
            Ok(mut reply) => {
                let token = field(&reply, "token").as_str().expect("text").to_owned();
                reply.clear_field_by_name("token");
                let given = if token.is_empty() { "NO TOKEN" } else { "a token" };
                self.tokens[user] = Some(token);
                format!("{given} {}", self.seen(at, reply))
            }
            Err(failure) => differences::failure(&failure),
        }
    }

    fn keep_alive(&mut self, at: usize, who: Option<usize>, leases: &[i64]) -> String {
        self.sign(at, who);
        let mut stream = self.clients[at].open("Lease/LeaseKeepAlive").expect("a stream");
        let mut lines = Vec::new();
        for id in leases {
            stream.send(&format!("ID:{id}"));
            match stream.receive(PATIENCE) {
                Received::Message(reply) => {
                    if let Some(lease) = self.leases.get_mut(id) {
                        lease.0 = Instant::now();
                    }
                    lines.push(script::reply_text(reply, &[]));
                }
                Received::Nothing => lines.push("nothing".to_owned()),
                Received::End(end) => {
                    lines.push(end.map_or("end".to_owned(), |f| differences::failure(&f)));
                    break;
                }
            }
        }
        lines.join("\n")
    }

    /// The lease is granted again if it ends before keys are attached to it: then nothing was written.
    fn expire(&mut self, at: usize, who: Option<usize>, request: &str) -> String {
        let deadline = Instant::now() + PATIENCE;
        let (granted, written) = loop {
            let granted = self.call(at, who, "Lease/LeaseGrant", &format!("TTL:1 ID:{EXPIRES}"));
            let written = match granted.starts_with("error") || request.is_empty() {
                true => String::new(),
                false => self.call(at, who, "KV/Txn", request),
            };
            if !written.contains("requested lease not found") || Instant::now() > deadline {
                break (granted, written);
            }
        };
        if granted.starts_with("error") {
            return granted;
        }
        loop {
            self.sign(at, who);
            let request = format!("ID:{EXPIRES}");
            let left = self.clients[at].call("Lease/LeaseTimeToLive", &request);
            match left {
                Ok(reply) if number(&reply, "grantedTTL") == 0 => break,
                Err(failure) => return format!("{granted}, {written}, {failure:?}"),
                Ok(_) if Instant::now() > deadline => return "A LEASE WITHOUT AN END".to_owned(),
                Ok(_) => std::thread::sleep(ASK_AGAIN),
            }
        }
        let after =
            self.call(at, who, "KV/Range", "key:'\\000' range_end:'\\000' keys_only:true limit:20");
        format!("{granted}, {written}, {after}")
    }

    fn watch(
        &mut self,
        at: usize,
        who: Option<usize>,
        number: usize,
        action: &WatchAction,
    ) -> String {
        if !self.streams.contains_key(&number) {
            self.sign(at, who);
            let stream = self.clients[at].open("Watch/Watch").expect("a stream");
            self.streams.insert(number, Watches::new(stream, at));
        }
        if self.clients.len() > 1 {
            // Headers show what that replica has; here it has everything.
            let at = self.streams[&number].at;
            let _ = self.clients[at].call("KV/Range", "key:'fresh' count_only:true");
        }
        let compacted = self.compacted();
        let watches = self.streams.get_mut(&number).expect("opened above");
        match action {
            WatchAction::Create(request) => watches.create(request, compacted),
            WatchAction::Cancel(id) => watches.cancel(*id),
            WatchAction::Progress => {
                watches.stream.send("progress_request{}");
                String::new()
            }
        }
    }

    /// Writes until no watcher waits for a future revision, then asks for progress until each stream
    /// says that it has shown that revision.
    fn settle(&mut self, at: usize) -> String {
        let starts = self.streams.values().flat_map(|watches| watches.live.values());
        let wanted = starts.copied().max().unwrap_or(0);
        let root = self.tokens[0].is_some().then_some(0);
        loop {
            let answer = self.call(at, root, "KV/Put", "key:'~settle'");
            if answer.starts_with("error") {
                return format!("cannot settle: {answer}");
            }
            if self.revision >= wanted {
                break;
            }
        }
        let mut lines = Vec::new();
        for (number, watches) in &mut self.streams {
            watches.settle(self.revision);
            if watches.order.settle() {
                lines.push(format!("w{number} WATCHERS OUT OF ORDER"));
            }
            for (id, shown) in std::mem::take(&mut watches.lines) {
                lines.extend(shown.into_iter().map(|line| format!("w{number} {id} {line}")));
            }
        }
        lines.join("\n")
    }
}

impl Watches {
    fn new(stream: Stream, at: usize) -> Watches {
        Watches {
            stream,
            at,
            lines: BTreeMap::new(),
            live: BTreeMap::new(),
            cut: BTreeSet::new(),
            progress: 0,
            order: Order::default(),
            ended: false,
        }
    }

    fn create(&mut self, request: &str, compacted: i64) -> String {
        let start = request.split("start_revision:").nth(1).map_or(0, |rest| {
            rest.split(' ').next().and_then(|digits| digits.parse().ok()).unwrap_or(0)
        });
        self.stream.send(&format!("create_request{{{request}}}"));
        self.order.steady = false;
        let Some(reply) = self.await_control("created", None) else {
            return "nothing".to_owned();
        };
        let id = number(&reply, "watch_id");
        let refused = field(&reply, "canceled") == Value::Bool(true);
        let created = script::reply_text(reply, &[]);
        if refused {
            return created;
        }
        // From here on: it may have history to show. Progress told before is no promise about it.
        self.progress = 0;
        self.live.insert(id, start);
        self.cut.remove(&id);
        if start <= 0 || start >= compacted {
            return created;
        }
        let end = self.await_control("canceled", Some(id));
        self.cut_off(id);
        format!("{created}, {}", end.map_or("nothing".to_owned(), |r| script::reply_text(r, &[])))
    }

    fn cut_off(&mut self, id: i64) {
        let _ = known("a watch cut off by a compaction");
        self.live.remove(&id);
        self.order.steady = false;
        self.cut.insert(id);
        self.stream.send(&format!("cancel_request{{watch_id:{id}}}"));
    }

    fn cancel(&mut self, id: i64) -> String {
        self.stream.send(&format!("cancel_request{{watch_id:{id}}}"));
        if self.live.remove(&id).is_none() {
            return String::new();
        }
        let reply = self.await_control("canceled", Some(id));
        reply.map_or("nothing".to_owned(), |reply| script::reply_text(reply, &[]))
    }

    /// Reads up to the next reply that has this flag, for watcher `id`; the rest is kept.
    fn await_control(&mut self, flag: &str, id: Option<i64>) -> Option<DynamicMessage> {
        let deadline = Instant::now() + PATIENCE;
        while Instant::now() < deadline && !self.ended {
            let reply = self.receive(PATIENCE)?;
            if field(&reply, flag) == Value::Bool(true)
                && id.is_none_or(|id| number(&reply, "watch_id") == id)
            {
                return Some(reply);
            }
            self.keep(reply);
        }
        None
    }

    fn receive(&mut self, patience: Duration) -> Option<DynamicMessage> {
        match self.stream.receive(patience) {
            Received::Message(reply) => Some(reply),
            Received::Nothing => None,
            Received::End(end) => {
                self.ended = true;
                let text = end.map_or("end".to_owned(), |f: Failure| differences::failure(&f));
                self.lines.entry(i64::MAX).or_default().push(text);
                None
            }
        }
    }

    /// Until the server has said that every watcher saw `revision`.
    fn settle(&mut self, revision: i64) {
        let deadline = Instant::now() + PATIENCE;
        while !self.live.is_empty() && self.progress < revision && !self.ended {
            if Instant::now() > deadline {
                self.lines.entry(i64::MAX).or_default().push("NO PROGRESS".to_owned());
                return;
            }
            self.stream.send("progress_request{}");
            let again = Instant::now() + ASK_AGAIN;
            while let Some(left) = again.checked_duration_since(Instant::now()) {
                let Some(reply) = self.receive(left) else { break };
                self.keep(reply);
                if self.progress >= revision {
                    break;
                }
            }
        }
    }

    fn keep(&mut self, mut reply: DynamicMessage) {
        let (id, header) = (number(&reply, "watch_id"), number(&reply, "header.revision"));
        let by_compaction = number(&reply, "compact_revision") != 0;
        let events = field(&reply, "events");
        let events = events.as_list().expect("events");
        let canceled = field(&reply, "canceled") == Value::Bool(true);
        if canceled && !by_compaction && self.cut.remove(&id) {
            return;
        }
        if events.is_empty() && !canceled {
            // How often progress is told is a matter of moments; that it never lies is not.
            self.progress = self.progress.max(header);
            return;
        }
        let shown = self.progress;
        let mut lines: Vec<(i64, String)> = Vec::new();
        for event in events {
            let event = event.as_message().expect("an event");
            let revision = number(event, "kv.mod_revision");
            let early = if header < revision { " BEFORE ITS REVISION" } else { "" };
            let late = if revision <= shown { " BEHIND PROGRESS" } else { "" };
            let text = format!("{}{early}{late}", event.to_text_format());
            match lines.last_mut() {
                Some((last, line)) if *last == revision => {
                    line.push_str("; ");
                    line.push_str(&text);
                }
                _ => lines.push((revision, format!("@{revision} {text}"))),
            }
        }
        if let (Some((first, _)), Some((last, _))) = (lines.first(), lines.last()) {
            self.order.note(*first, *last);
        }
        let kept = self.lines.entry(id).or_default();
        kept.extend(lines.into_iter().map(|(_, line)| line));
        if canceled {
            reply.clear_field_by_name("events");
            kept.push(script::reply_text(reply, &[]));
            self.live.remove(&id);
        }
        if by_compaction {
            self.cut_off(id);
        }
    }
}
