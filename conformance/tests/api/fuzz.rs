//! The same random requests to etcd and to Althing: replies equal, errors equal.
//!
//! A few keys, so that requests meet; revisions around the current and the compacted one. A seed
//! that differed is added to `SEEDS` and stays.

use std::fmt::Write as _;

use conformance::client::{Client, Stream, number};
use conformance::peers;

use crate::{program_under_test, script, start};

const SEEDS: [u64; 3] = [1, 7, 20_261_121];
const REQUESTS: usize = 500;

/// splitmix64: the same requests on every machine.
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        z ^ (z >> 31)
    }

    fn below(&mut self, bound: u64) -> u64 {
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

/// Requests that depend on nothing but the seed and the revision, which both servers must share.
struct Generator {
    random: Random,
    revision: i64,
    /// Ranges end behind their start: whether a user may read one that does not depends on the shape of
    /// a tree in etcd.
    ordered: bool,
}

impl Generator {
    fn key(&mut self) -> String {
        format!("key:'{}'", self.random.pick(&KEYS))
    }

    fn interval(&mut self) -> String {
        let mut text = self.key();
        if self.random.one_in(2) {
            let end = match self.ordered && !text.contains("'a") {
                true => self.random.pick(&["\\000", "\\377\\377"]),
                false if self.ordered => self.random.pick(&["\\000", "b", "c", "zz"]),
                false => self.random.pick(&["\\000", "b", "c", "a", "\\377\\377", "zz"]),
            };
            write!(text, " range_end:'{end}'").expect("text");
        }
        text
    }

    fn near_revision(&mut self) -> i64 {
        let back = i64::try_from(self.random.below(40)).expect("small");
        self.revision + 2 - back
    }

    fn range(&mut self) -> String {
        let mut text = self.interval();
        if self.random.one_in(3) {
            write!(text, " limit:{}", self.random.below(4)).expect("text");
        }
        if self.random.one_in(4) {
            write!(text, " revision:{}", self.near_revision()).expect("text");
        }
        if self.random.one_in(4) {
            // Ties of other targets come out in an unspecified order in etcd (sort.Sort).
            let target = self.random.pick(&["KEY", "MOD"]);
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
        for _ in 0..self.random.below(3) {
            let compare = self.compare();
            write!(text, "compare{{{compare}}} ").expect("text");
        }
        for branch in ["success", "failure"] {
            for _ in 0..self.random.below(4) {
                let op = match self.random.below(if depth == 0 { 6 } else { 7 }) {
                    0..=2 => format!("request_put{{{}}}", self.put()),
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
            38 => format!("Lease/LeaseGrant TTL:600 ID:{}", 1 + self.random.below(3)),
            _ => format!("Lease/LeaseRevoke ID:{}", 1 + self.random.below(3)),
        }
    }
}

/// On the client's own connection, which reads ahead while calls are made.
fn watch_everything(client: &Client) -> Stream {
    let mut stream = client.open("Watch/Watch").expect("a watch");
    stream.send("create_request{key:'\\000' range_end:'\\000' start_revision:1 prev_kv:true}");
    assert_eq!(script::read(&mut stream).len(), 1, "the watch is created");
    stream
}

fn current_revision(client: &Client) -> i64 {
    let reply = client.call("KV/Range", "key:'a' count_only:true").expect("a read");
    number(&reply, "header.revision")
}

#[test]
fn random_requests_get_the_same_replies() {
    let program = program_under_test();
    if !peers::available("api::fuzz", &["etcd", &program]) {
        return;
    }
    let mut differences = Vec::new();
    for seed in SEEDS {
        let (oracle, judged) = (start("etcd", &[]), start(&program, &[]));
        let clients = [oracle.client(), judged.client()];
        let mut watches = [watch_everything(&clients[0]), watch_everything(&clients[1])];
        let mut generator = Generator { random: Random(seed), revision: 1, ordered: false };
        for index in 0..REQUESTS {
            let line = generator.request();
            let steps = script::parse(&line);
            let [expected, found] =
                [&clients[0], &clients[1]].map(|client| script::on_client(client, &steps));
            if expected != found {
                differences.push(format!(
                    "seed {seed} request {index}\nexpected: {expected}\nfound:    {found}"
                ));
                break;
            }
            generator.revision = current_revision(&clients[0]);
        }
        let [expected, found] = watches.each_mut().map(script::read);
        if expected != found {
            let first = expected.iter().zip(&found).position(|(a, b)| a != b);
            let at = first.unwrap_or(expected.len().min(found.len()));
            differences.push(format!(
                "seed {seed}: event {at} of the watch\nexpected: {:?}\nfound:    {:?}",
                expected.get(at),
                found.get(at)
            ));
        }
    }
    assert!(differences.is_empty(), "{}", differences.join("\n\n"));
}

const USERS: [&str; 4] = ["root", "u1", "u2", "u3"];
const ROLES: [&str; 4] = ["r1", "r2", "r3", "root"];

/// Programs of users: who asks changes from request to request, and so do users and roles.
impl Generator {
    fn user(&mut self) -> &'static str {
        USERS[usize::try_from(self.random.below(4)).expect("small")]
    }

    fn role(&mut self) -> &'static str {
        ROLES[usize::try_from(self.random.below(4)).expect("small")]
    }

    /// Few enough that a role keeps at most a dozen: beyond, Go's sort is not stable.
    fn permission(&mut self) -> String {
        let key = self.random.pick(&["a", "aa", "b"]);
        match self.random.pick(&["", "b", "\\000"]) {
            "" => format!("key:'{key}'"),
            end => format!("key:'{key}' range_end:'{end}'"),
        }
    }

    fn auth(&mut self) -> String {
        let (user, role) = (self.user(), self.role());
        match self.random.below(30) {
            0..=2 => format!("Auth/RoleAdd name:'{role}'"),
            3 => format!("Auth/RoleDelete role:'{role}'"),
            4..=9 => {
                let kind = self.random.pick(&["READ", "WRITE", "READWRITE"]);
                let permission = self.permission();
                format!(
                    "Auth/RoleGrantPermission name:'{role}' perm{{permType:{kind} {permission}}}"
                )
            }
            10 => format!("Auth/RoleRevokePermission role:'{role}' {}", self.permission()),
            11..=13 => format!("Auth/UserAdd name:'{user}' password:'{user}'"),
            14 => format!("Auth/UserDelete name:'{user}'"),
            15 => format!("Auth/UserChangePassword name:'{user}' password:'{user}'"),
            16..=20 => format!("Auth/UserGrantRole user:'{user}' role:'{role}'"),
            21 => format!("Auth/UserRevokeRole name:'{user}' role:'{role}'"),
            22 => format!("Auth/UserGet name:'{user}'"),
            23 => format!("Auth/RoleGet role:'{role}'"),
            24 => "Auth/UserList".to_owned(),
            25 => "Auth/RoleList".to_owned(),
            26 => "Auth/AuthStatus".to_owned(),
            27 if self.random.one_in(4) => "Auth/AuthDisable".to_owned(),
            28 => "Auth/AuthEnable".to_owned(),
            _ => "Maintenance/Alarm".to_owned(),
        }
    }
}

/// A server's client with the tokens it got.
struct Users {
    client: Client,
    tokens: [Option<String>; 4],
}

impl Users {
    /// Three users with a role each, and authentication on.
    fn new(client: Client) -> Self {
        let mut setup = vec!["Auth/RoleAdd name:'root'".to_owned()];
        for user in USERS {
            setup.push(format!("Auth/UserAdd name:'{user}' password:'{user}'"));
        }
        setup.push("Auth/UserGrantRole user:'root' role:'root'".to_owned());
        setup.push("Auth/AuthEnable".to_owned());
        for line in setup {
            let (method, request) = line.split_once(' ').unwrap_or((&line, ""));
            client.call(method, request).expect("nothing forbids it yet");
        }
        let mut users = Self { client, tokens: Default::default() };
        (0..4).for_each(|user| drop(users.login(user)));
        users
    }

    /// The token is the server's own; that there is one must be the same.
    fn login(&mut self, user: usize) -> String {
        self.client.set_token(None);
        let name = USERS[user];
        let answer =
            self.client.call("Auth/Authenticate", &format!("name:'{name}' password:'{name}'"));
        match answer {
            Ok(reply) => {
                let token = conformance::client::field(&reply, "token");
                self.tokens[user] = Some(token.as_str().expect("text").to_owned());
                format!("{name} is let in at {}", number(&reply, "header.revision"))
            }
            Err(failure) => format!("{failure:?}"),
        }
    }

    fn run(&self, user: Option<usize>, line: &str) -> String {
        let token = user.and_then(|user| self.tokens[user].as_deref());
        self.client.set_token(token);
        script::on_client(&self.client, &script::parse(line))
    }

    fn revision(&mut self) -> i64 {
        for _ in 0..2 {
            self.client.set_token(self.tokens[0].as_deref());
            if let Ok(reply) = self.client.call("KV/Range", "key:'a' count_only:true") {
                return number(&reply, "header.revision");
            }
            self.login(0);
        }
        panic!("root may read")
    }
}

#[test]
fn random_programs_of_users_get_the_same_replies() {
    let program = program_under_test();
    if !peers::available("api::fuzz_auth", &["etcd", &program]) {
        return;
    }
    let flags = ["--bcrypt-cost=4"];
    for seed in SEEDS {
        let targets = [start("etcd", &flags), start(&program, &flags)];
        let mut both = targets.each_ref().map(|target| Users::new(target.client()));
        let mut generator = Generator { random: Random(seed), revision: 1, ordered: true };
        for index in 0..REQUESTS {
            let who = usize::try_from(generator.random.below(5)).expect("small");
            let who = (who < 4).then_some(who);
            let (line, [expected, found]) = match generator.random.below(10) {
                0 => {
                    let who = who.unwrap_or(0);
                    (format!("login {who}"), both.each_mut().map(|users| users.login(who)))
                }
                1..=3 => {
                    // Mostly by root, else little would happen.
                    let who = if generator.random.one_in(4) { who } else { Some(0) };
                    let line = generator.auth();
                    let answers = both.each_ref().map(|users| users.run(who, &line));
                    (format!("{who:?} {line}"), answers)
                }
                _ => {
                    let line = generator.request();
                    let answers = both.each_ref().map(|users| users.run(who, &line));
                    (format!("{who:?} {line}"), answers)
                }
            };
            assert_eq!(expected, found, "seed {seed} request {index}: {line}");
            let revisions = both.each_mut().map(Users::revision);
            assert_eq!(revisions[0], revisions[1], "seed {seed} request {index}: {line}");
            generator.revision = revisions[0];
        }
    }
}
