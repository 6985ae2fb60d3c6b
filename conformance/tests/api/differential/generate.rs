//! Random programs. A few keys, so that requests meet; revisions around the current and the compacted
//! one. What comes next depends on the seed and on the oracle's revision alone.

mod users;

use std::fmt::Write as _;

use conformance::client;
use conformance::differences::known;
use prost::Message as _;
use prost_reflect::DynamicMessage;

use super::differences;
use super::program::{EXPIRES, Step, USERS, WatchAction};

/// splitmix64: the same requests on every machine.
pub struct Random(pub u64);

impl Random {
    pub fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        z ^ (z >> 31)
    }

    pub fn below(&mut self, bound: u64) -> u64 {
        self.next() % bound
    }

    fn one_in(&mut self, n: u64) -> bool {
        self.below(n) == 0
    }

    fn pick<'a>(&mut self, choices: &[&'a str]) -> &'a str {
        choices[usize::try_from(self.below(choices.len() as u64)).expect("small")]
    }
}

const KEYS: [&str; 8] = ["a", "aa", "ab", "b", "b\\000", "c", "\\377", "d/e"];

/// What a program is about.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// A handful of keys, every way to sort: at most a dozen keys come out of Go's sort as they went in.
    Few,
    /// Hundreds of keys, streamed in chunks; requests changed byte by byte.
    Many,
    /// Users and roles that change while they ask.
    Users,
}

/// Requests that depend on nothing but the seed and the revision, which both servers must share.
pub struct Generator {
    kind: Kind,
    random: Random,
    /// The oracle's, kept by the caller.
    pub revision: i64,
}

impl Generator {
    pub fn new(kind: Kind, seed: u64) -> Generator {
        Generator { kind, random: Random(seed), revision: 1 }
    }

    /// What a program begins with.
    pub fn opening(&self) -> Vec<Step> {
        if self.kind != Kind::Users {
            return Vec::new();
        }
        let mut lines = vec!["Auth/RoleAdd name:'root'".to_owned()];
        for user in USERS {
            lines.push(format!("Auth/UserAdd name:'{user}' password:'{user}'"));
        }
        lines.push("Auth/UserGrantRole user:'root' role:'root'".to_owned());
        lines.push("Auth/AuthEnable".to_owned());
        let mut steps: Vec<Step> = lines.iter().map(|line| call(None, line)).collect();
        steps.extend((0..4).map(|user| Step::Login { user, password: USERS[user].to_owned() }));
        steps
    }

    /// What comes next.
    pub fn next(&mut self) -> Vec<Step> {
        let who = self.who();
        match self.random.below(100) {
            0..=59 => self.store(who),
            60..=69 if self.kind == Kind::Users => vec![self.change_of_users(who)],
            70..=73 if self.kind == Kind::Users => vec![self.login()],
            74..=79 if self.kind == Kind::Users => self.short_watch(who),
            74..=79 => match self.watch(who) {
                // What a watcher was not yet shown when it is canceled, it is not shown: a race.
                cancel @ Step::Watch { action: WatchAction::Cancel(_), .. } => {
                    vec![Step::Settle, cancel]
                }
                step => vec![step],
            },
            80..=81 => vec![self.keep_alive(who)],
            82..=84 => vec![self.lease_read(who)],
            85..=88 => {
                let method = "KV/RangeStream";
                vec![Step::Gather { who, method, request: self.range() }]
            }
            89..=92 if self.kind == Kind::Many => vec![self.raw()],
            93..=95 => vec![call(who, &self.hostile())],
            96 if self.random.one_in(4) => vec![Step::Settle],
            97 => self.maintenance(who),
            98 if self.random.one_in(6) => vec![Step::Settle, self.expire(who), Step::Settle],
            _ => self.store(who),
        }
    }

    fn store(&mut self, who: Option<usize>) -> Vec<Step> {
        let step = call(who, &self.request());
        match &step {
            // A watcher that has not caught up is cut off by a compaction or not, as it happens.
            Step::Call { method: "KV/Compact", .. } => vec![Step::Settle, step],
            _ => vec![step],
        }
    }

    /// Mostly root, else little would happen.
    fn who(&mut self) -> Option<usize> {
        if self.kind != Kind::Users || self.random.one_in(12) {
            return None;
        }
        match self.random.one_in(2) {
            true => Some(0),
            false => usize::try_from(self.random.below(4)).ok(),
        }
    }

    fn key(&mut self) -> String {
        match self.kind {
            Kind::Many => format!("key:'m/{:03}'", self.random.below(300)),
            Kind::Few | Kind::Users => format!("key:'{}'", self.random.pick(&KEYS)),
        }
    }

    fn interval(&mut self) -> String {
        let mut text = self.key();
        if !self.random.one_in(2) {
            return text;
        }
        let end = match self.kind {
            Kind::Many if self.random.one_in(3) => "m0".to_owned(),
            Kind::Many => format!("m/{:03}", self.random.below(300)),
            // Ranges end behind their start: whether a user may read one that does not depends on
            // the shape of a tree in etcd.
            Kind::Users if text.contains("'a") => {
                self.random.pick(&["\\000", "b", "c", "zz"]).to_owned()
            }
            Kind::Users => self.random.pick(&["\\000", "\\377\\377"]).to_owned(),
            Kind::Few => self.random.pick(&["\\000", "b", "c", "a", "\\377\\377", "zz"]).to_owned(),
        };
        write!(text, " range_end:'{end}'").expect("text");
        text
    }

    fn near_revision(&mut self) -> i64 {
        let back = i64::try_from(self.random.below(40)).expect("small");
        self.revision + 2 - back
    }

    fn range(&mut self) -> String {
        let mut text = self.interval();
        if self.random.one_in(3) {
            let most = if self.kind == Kind::Many { 60 } else { 4 };
            write!(text, " limit:{}", self.random.below(most)).expect("text");
        }
        if self.random.one_in(4) {
            write!(text, " revision:{}", self.near_revision()).expect("text");
        }
        if self.random.one_in(4) {
            let target = match self.kind {
                Kind::Many => "KEY",
                _ => self.random.pick(&["KEY", "MOD", "CREATE", "VERSION", "VALUE"]),
            };
            let order = self.random.pick(&["NONE", "ASCEND", "DESCEND"]);
            write!(text, " sort_order:{order} sort_target:{target}").expect("text");
        }
        for flag in ["keys_only:true", "count_only:true", "serializable:true"] {
            if self.random.one_in(6) {
                write!(text, " {flag}").expect("text");
            }
        }
        for bound in
            ["min_mod_revision", "max_mod_revision", "min_create_revision", "max_create_revision"]
        {
            if self.random.one_in(12) {
                write!(text, " {bound}:{}", self.near_revision()).expect("text");
            }
        }
        text
    }

    fn put(&mut self) -> String {
        let mut text = self.key();
        match self.random.below(10) {
            0 => text.push_str(" ignore_value:true"),
            1 => text.push_str(" ignore_lease:true value:'kept'"),
            2 => write!(text, " value:'l' lease:{}", self.random.below(4)).expect("text"),
            _ => write!(text, " value:'{}'", self.random.below(5)).expect("text"),
        }
        if self.random.one_in(3) {
            text.push_str(" prev_kv:true");
        }
        text
    }

    fn delete(&mut self) -> String {
        let mut text = self.interval();
        if self.random.one_in(3) {
            text.push_str(" prev_kv:true");
        }
        text
    }

    fn compare(&mut self) -> String {
        let mut text = self.interval();
        let result = self.random.pick(&["EQUAL", "GREATER", "LESS", "NOT_EQUAL"]);
        write!(text, " result:{result} ").expect("text");
        match self.random.below(5) {
            0 => write!(text, "target:VERSION version:{}", self.random.below(4)),
            1 => write!(text, "target:CREATE create_revision:{}", self.near_revision().max(0)),
            2 => write!(text, "target:MOD mod_revision:{}", self.near_revision().max(0)),
            3 => write!(text, "target:LEASE lease:{}", self.random.below(4)),
            _ => write!(text, "target:VALUE value:'{}'", self.random.below(5)),
        }
        .expect("text");
        text
    }

    fn txn(&mut self, depth: u32) -> String {
        let mut text = String::new();
        // Few operations mostly; sometimes as many as one reply can still be read for.
        let most = if depth > 0 && self.random.one_in(3) { 24 } else { 4 };
        for _ in 0..self.random.below(3) {
            let compare = self.compare();
            write!(text, "compare{{{compare}}} ").expect("text");
        }
        let mut put = Vec::new();
        for branch in ["success", "failure"] {
            put.clear();
            for _ in 0..self.random.below(most) {
                let op = match self.random.below(if depth == 0 { 6 } else { 7 }) {
                    0..=2 => {
                        let request = self.put();
                        let key = request.split(' ').next().unwrap_or_default().to_owned();
                        // A key put twice is refused: seldom, else all long ones would be.
                        if put.contains(&key) && !self.random.one_in(20) {
                            continue;
                        }
                        put.push(key);
                        format!("request_put{{{request}}}")
                    }
                    3 if most > 4 && !self.random.one_in(8) => continue,
                    3 => format!("request_delete_range{{{}}}", self.delete()),
                    4 | 5 => format!("request_range{{{}}}", self.range()),
                    _ => format!("request_txn{{{}}}", self.txn(depth - 1)),
                };
                write!(text, "{branch}{{{op}}} ").expect("text");
            }
        }
        text
    }

    fn request(&mut self) -> String {
        match self.random.below(40) {
            0..=9 => format!("KV/Put {}", self.put()),
            10..=13 => format!("KV/DeleteRange {}", self.delete()),
            14..=21 => format!("KV/Range {}", self.range()),
            22..=36 => format!("KV/Txn {}", self.txn(2)),
            37 => format!("KV/Compact revision:{}", self.near_revision() - 15),
            38 => match self.random.below(5) {
                0 => "Lease/LeaseGrant TTL:500".to_owned(),
                // So far apart that renewals do not change who ends first.
                id => format!("Lease/LeaseGrant TTL:{} ID:{id}", 1000 * id),
            },
            _ => format!("Lease/LeaseRevoke ID:{}", 1 + self.random.below(5)),
        }
    }

    /// What an operator asks, and what alarms leave of a store.
    fn maintenance(&mut self, who: Option<usize>) -> Vec<Step> {
        let near = self.near_revision();
        let line = match self.random.below(8) {
            0 => "Maintenance/Status".to_owned(),
            1 => "Maintenance/Hash".to_owned(),
            2 => "Maintenance/HashKV".to_owned(),
            3 | 4 => format!("Maintenance/HashKV revision:{near}"),
            5 if self.random.one_in(8) => "Maintenance/Defragment".to_owned(),
            5 => format!("Maintenance/Alarm alarm:{}", self.alarm()),
            _ => return self.under_alarm(),
        };
        vec![call(who, &line)]
    }

    fn alarm(&mut self) -> &'static str {
        match self.random.below(3) {
            0 => "NONE",
            1 => "NOSPACE",
            _ => "CORRUPT",
        }
    }

    /// An alarm, a few requests under it, and its end.
    fn under_alarm(&mut self) -> Vec<Step> {
        let root = (self.kind == Kind::Users).then_some(0);
        let (member, kind) = (1 + self.random.below(2), self.alarm());
        let alarm = |action: &str| {
            call(root, &format!("Maintenance/Alarm action:{action} memberID:{member} alarm:{kind}"))
        };
        let mut steps = vec![Step::Settle, alarm("ACTIVATE")];
        for _ in 0..self.random.below(6) {
            let who = self.who();
            let step = match self.random.below(6) {
                0 => call(who, "Maintenance/Status"),
                1 => call(who, "Maintenance/Alarm"),
                2 => self.keep_alive(who),
                3 => alarm("ACTIVATE"),
                _ => call(who, &self.request()),
            };
            // A compaction cuts off watchers that have not caught up, and none catches up under an alarm.
            if !matches!(step, Step::Call { method: "KV/Compact", .. }) {
                steps.push(step);
            }
        }
        let other = self.alarm();
        let wrong = format!("Maintenance/Alarm action:DEACTIVATE memberID:3 alarm:{other}");
        steps.extend([call(root, &wrong), alarm("DEACTIVATE"), call(root, "Maintenance/Alarm")]);
        steps
    }

    fn expire(&mut self, who: Option<usize>) -> Step {
        let mut request = String::new();
        let mut put = Vec::new();
        for _ in 0..self.random.below(5) {
            let key = self.key();
            if !put.contains(&key) {
                write!(request, "success{{request_put{{{key} value:'e' lease:{EXPIRES}}}}} ")
                    .expect("text");
                put.push(key);
            }
        }
        Step::Expire { who, request }
    }

    fn lease_read(&mut self, who: Option<usize>) -> Step {
        let id = 1 + self.random.below(5);
        let line = match self.random.below(3) {
            0 => "Lease/LeaseLeases".to_owned(),
            1 => format!("Lease/LeaseTimeToLive ID:{id}"),
            _ => format!("Lease/LeaseTimeToLive ID:{id} keys:true"),
        };
        call(who, &line)
    }

    fn keep_alive(&mut self, who: Option<usize>) -> Step {
        let mut lease = || i64::try_from(self.random.below(6)).expect("small");
        Step::KeepAlive { who, leases: vec![lease(), lease()] }
    }

    fn watch(&mut self, who: Option<usize>) -> Step {
        let stream = usize::try_from(self.random.below(3)).expect("small");
        // One stream is one user's, by the token it was opened with.
        let who = who.map(|_| stream);
        let action = match self.random.below(8) {
            0 => WatchAction::Progress,
            1 | 2 => WatchAction::Cancel(i64::try_from(self.random.below(8)).expect("small")),
            _ => WatchAction::Create(self.watch_create()),
        };
        Step::Watch { who, stream, action }
    }

    /// Over before users change: who then may not read any more is treated otherwise on purpose.
    fn short_watch(&mut self, who: Option<usize>) -> Vec<Step> {
        let _ = known(
            "a watcher whose user loses the right, or that had no user when users were switched on",
        );
        let stream = usize::try_from(self.random.below(3)).expect("small");
        let who = who.map(|_| stream);
        let create = WatchAction::Create(format!("{} watch_id:9", self.interval()));
        vec![
            Step::Watch { who, stream, action: create },
            Step::Settle,
            Step::Watch { who, stream, action: WatchAction::Cancel(9) },
        ]
    }

    fn watch_create(&mut self) -> String {
        let mut text = self.interval();
        match self.random.below(4) {
            0 => write!(text, " start_revision:{}", self.near_revision()),
            1 => write!(text, " start_revision:{}", self.revision - 60),
            _ => Ok(()),
        }
        .expect("text");
        if self.random.one_in(4) {
            write!(text, " watch_id:{}", self.random.below(8)).expect("text");
        }
        for flag in ["prev_kv:true", "filters:NOPUT", "filters:NODELETE", "fragment:true"] {
            if self.random.one_in(4) {
                write!(text, " {flag}").expect("text");
            }
        }
        text
    }

    /// A request whose bytes were changed; it may still be one. What Go's library reads otherwise is
    /// left out.
    fn raw(&mut self) -> Step {
        let (method, text) = match self.random.below(4) {
            0 => ("KV/Range", self.range()),
            1 => ("KV/Put", self.put()),
            2 => ("KV/DeleteRange", self.delete()),
            _ => ("KV/Txn", self.txn(1)),
        };
        let kind = client::find_method(method).input();
        let whole = client::parse(kind.clone(), &text).encode_to_vec();
        loop {
            let bytes = self.changed(whole.clone());
            let read = DynamicMessage::decode(kind.clone(), bytes.as_slice());
            if !read.is_err_and(|error| differences::is_strictly_refused(&error)) {
                return Step::Raw { method, bytes };
            }
        }
    }

    fn changed(&mut self, mut bytes: Vec<u8>) -> Vec<u8> {
        for _ in 0..=self.random.below(3) {
            let at = usize::try_from(self.random.below(bytes.len() as u64 + 1)).expect("small");
            let byte = u8::try_from(self.random.below(256)).expect("a byte");
            match self.random.below(3) {
                0 => bytes.truncate(at),
                1 => bytes.insert(at, byte),
                _ if at < bytes.len() => bytes[at] = byte,
                _ => bytes.push(byte),
            }
        }
        bytes
    }

    /// Requests that are refused, or nearly.
    fn hostile(&mut self) -> String {
        match self.random.below(14) {
            0 => "KV/Put value:'x'".to_owned(),
            1 => "KV/Range".to_owned(),
            2 => "KV/DeleteRange range_end:'\\000'".to_owned(),
            3 => format!("KV/Range {} limit:-1 revision:-1", self.interval()),
            4 => format!("KV/Range {} sort_order:7", self.interval()),
            5 => format!("KV/Range {} sort_order:ASCEND sort_target:9", self.interval()),
            6 => {
                // Hundreds of keys only where none are sorted by something that they share.
                let few = if self.kind == Kind::Many { 120 } else { 129 };
                let count = few + self.random.below(20);
                let puts = (0..count).map(|n| format!("success{{request_put{{key:'t{n}'}}}}"));
                format!("KV/Txn {}", puts.collect::<String>())
            }
            7 => format!("KV/Txn compare{{{} result:9 target:VERSION}}", self.key()),
            8 => format!("KV/Txn compare{{{} target:9}}", self.key()),
            9 => "KV/Txn success{}".to_owned(),
            10 => "KV/Compact revision:-3".to_owned(),
            11 => format!("Lease/LeaseGrant TTL:9000000001 ID:{}", self.random.below(3)),
            12 => "Lease/LeaseRevoke".to_owned(),
            _ => {
                let key = self.random.pick(&KEYS);
                format!(
                    "KV/Txn success{{request_put{{key:'{key}'}}}} \
                     success{{request_txn{{failure{{request_delete_range{{key:'{key}'}}}}}}}}"
                )
            }
        }
    }
}

/// `line` is a method and its request.
pub fn call(who: Option<usize>, line: &str) -> Step {
    let (method, request) = line.split_once(' ').unwrap_or((line, ""));
    let method = client::method_name(method);
    Step::Call { who, method, request: request.to_owned() }
}
