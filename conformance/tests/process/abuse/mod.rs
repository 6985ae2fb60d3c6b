//! Clients that mean harm (faults.md C1 to C15): the replica keeps its memory bounded and serves the others.
//! Nothing here asks how fast.

mod connections;
mod http2;
mod requests;

use conformance::client::{Client, Failure, quoted};
use conformance::cluster::Target;
use conformance::peers;

use crate::clients::resident_mib;

/// More than any of the tests may leave behind or hold; each flood sends or asks for several times as much.
pub const GROWTH_MIB: i64 = 256;

/// The whole of it, in `./test nightly`; else a part that shows the same.
pub fn full(part: usize, whole: usize) -> usize {
    if std::env::var_os("ALTHING_ABUSE").is_some() { whole } else { part }
}

/// A replica, and who watches what is done to it.
pub struct Victim {
    pub target: Target,
    before_mib: i64,
}

impl Victim {
    pub fn start(test: &str, flags: &[&str]) -> Option<Victim> {
        if !peers::available(&format!("process::{test}"), &["althing"]) {
            return None;
        }
        let mut target = Target::althing(flags);
        let before_mib = resident_mib(target.process().id());
        Some(Victim { target, before_mib })
    }

    /// Host and port.
    pub fn address(&self) -> &str {
        self.target.endpoint.trim_start_matches("http://")
    }

    /// What was there before may stay.
    pub fn measure_again(&mut self) {
        self.before_mib = resident_mib(self.target.process().id());
    }

    /// Others are served, it has not panicked, and its memory is bounded.
    pub fn is_well(&mut self, after: &str, growth_mib: i64) {
        let client = self.target.client();
        client
            .call("KV/Put", "key:'well' value:'1'")
            .unwrap_or_else(|why| panic!("{after}: {why:?}"));
        client.call("KV/Range", "key:'well'").unwrap_or_else(|why| panic!("{after}: {why:?}"));
        let process = self.target.process();
        assert!(process.exited().is_none(), "{after}: it has ended");
        assert!(!process.output().contains("panicked"), "{after}:\n{}", process.last_output());
        let grown = resident_mib(process.id()) - self.before_mib;
        eprintln!("{after}: resident memory grew by {grown} MiB");
        assert!(grown < growth_mib, "{after}: resident memory grew by {grown} MiB");
    }
}

/// Calls `method` `count` times in all, from many connections at once; what failed.
pub fn many_calls(
    target: &Target,
    count: usize,
    (method, request): (&str, &(dyn Fn(usize) -> String + Sync)),
) -> Vec<Failure> {
    const CONNECTIONS: usize = 32;
    let each = count.div_ceil(CONNECTIONS);
    std::thread::scope(|scope| {
        let run = |first: usize| {
            let client = target.client();
            let calls = (first..(first + each).min(count)).map(move |number| {
                let request = request(number);
                client.call(method, &request)
            });
            calls.filter_map(Result::err).collect::<Vec<_>>()
        };
        let threads: Vec<_> =
            (0..CONNECTIONS).map(|at| scope.spawn(move || run(at * each))).collect();
        threads.into_iter().flat_map(|thread| thread.join().expect("no panic")).collect()
    })
}

/// Puts a key with this value.
pub fn put(client: &Client, key: &[u8], value: &[u8]) {
    let request = format!("key:{} value:{}", quoted(key), quoted(value));
    client.call("KV/Put", &request).expect("a write");
}
