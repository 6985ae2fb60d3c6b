//! Proxies between replicas: what the network does to a link (faults.md 3.2) is done here, to the bytes of
//! each directed link by itself.
//!
//! All dial one address per replica, so who dialled is found by the socket: which of the replicas'
//! processes holds its other end.

use std::collections::BTreeMap;
use std::io::{Read, Write};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use crate::peers::free_port;

/// What a directed link does to what it carries.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Link {
    /// Passes it on.
    #[default]
    Open,
    /// Keeps it, as a cut cable does under TCP: what was sent arrives once the link is open again, unless
    /// the connection was given up before.
    Cut,
    /// Passes it on between these times later, in order.
    Late(Duration, Duration),
}

/// The links of a network: one directed link per ordered pair of replicas.
pub struct Links {
    shared: Arc<Shared>,
    /// By replica: where others dial it, where it listens.
    addresses: Vec<(SocketAddr, SocketAddr)>,
}

#[derive(Default)]
struct Shared {
    rules: Mutex<BTreeMap<(usize, usize), Link>>,
    /// Whose process is whose.
    processes: Mutex<BTreeMap<u32, usize>>,
    ended: AtomicBool,
    held: AtomicU64,
    delayed: AtomicU64,
}

/// Bytes and when they may be passed on.
type Chunk = (Instant, Vec<u8>);

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Links {
    /// Listens in front of `count` replicas.
    pub fn open(count: usize) -> Links {
        let shared = Arc::new(Shared::default());
        let addresses = (0..count).map(|replica| {
            let dialled = SocketAddr::from(([127, 0, 0, 1], free_port()));
            let listens = SocketAddr::from(([127, 0, 0, 1], free_port()));
            let listener = TcpListener::bind(dialled).expect("a free port");
            let shared = shared.clone();
            std::thread::spawn(move || shared.accept(&listener, replica, listens));
            (dialled, listens)
        });
        let addresses = addresses.collect();
        Links { shared, addresses }
    }

    /// Where others dial replica `index`, and where it is to listen.
    pub fn addresses(&self, index: usize) -> (String, String) {
        let (dialled, listens) = &self.addresses[index];
        (dialled.to_string(), listens.to_string())
    }

    /// Replica `index` runs as this process from now on.
    pub fn belongs(&self, index: usize, process: u32) {
        let mut processes = lock(&self.shared.processes);
        processes.retain(|_, replica| *replica != index);
        processes.insert(process, index);
    }

    /// What one replica sends to another meets this link from now on.
    pub fn set(&self, from: usize, to: usize, link: Link) {
        lock(&self.shared.rules).insert((from, to), link);
    }

    /// All links from and to one replica.
    pub fn set_around(&self, replica: usize, link: Link) {
        for other in (0..self.addresses.len()).filter(|other| *other != replica) {
            self.set(replica, other, link);
            self.set(other, replica, link);
        }
    }

    /// All links.
    pub fn set_all(&self, link: Link) {
        for replica in 0..self.addresses.len() {
            self.set_around(replica, link);
        }
    }

    /// How often something was kept by a cut link so far: the proof that a cut happened.
    pub fn held(&self) -> u64 {
        self.shared.held.load(Ordering::Relaxed)
    }

    /// How often something was passed on late.
    pub fn delayed(&self) -> u64 {
        self.shared.delayed.load(Ordering::Relaxed)
    }
}

impl Drop for Links {
    fn drop(&mut self) {
        self.shared.ended.store(true, Ordering::Relaxed);
        for (dialled, _) in &self.addresses {
            // Wakes the thread that accepts there.
            drop(TcpStream::connect(dialled));
        }
    }
}

impl Shared {
    fn ended(&self) -> bool {
        self.ended.load(Ordering::Relaxed)
    }

    fn link(&self, pair: (usize, usize)) -> Link {
        lock(&self.rules).get(&pair).copied().unwrap_or_default()
    }

    fn accept(self: &Arc<Self>, listener: &TcpListener, to: usize, listens: SocketAddr) {
        for stream in listener.incoming() {
            if self.ended() {
                return;
            }
            let Ok(dialler) = stream else { continue };
            let shared = self.clone();
            std::thread::spawn(move || shared.carry(dialler, to, listens));
        }
    }

    /// One connection: its dialler's frames, and the answers to its pings.
    fn carry(self: &Arc<Self>, dialler: TcpStream, to: usize, listens: SocketAddr) {
        // A dialler that is gone, or no replica yet, dials again.
        let Some(from) = self.who(&dialler) else { return };
        let pair = (from, to);
        self.wait_while_cut(pair);
        let Ok(listener) = TcpStream::connect(listens) else { return };
        let ends = [&dialler, &listener].map(|end| end.try_clone().expect("a second handle"));
        let [from_dialler, from_listener] = ends;
        self.pump(pair, from_dialler, listener);
        self.pump(pair, from_listener, dialler);
    }

    fn pump(self: &Arc<Self>, pair: (usize, usize), mut source: TcpStream, target: TcpStream) {
        for end in [&source, &target] {
            end.set_nodelay(true).expect("a socket option");
        }
        let (chunks, queue) = channel();
        let shared = self.clone();
        std::thread::spawn(move || shared.read(pair, &mut source, &chunks));
        let shared = self.clone();
        std::thread::spawn(move || shared.write(pair, target, &queue));
    }

    fn read(&self, pair: (usize, usize), source: &mut TcpStream, chunks: &Sender<Chunk>) {
        let mut buffer = vec![0; 64 << 10];
        let (mut last, mut drawn) = (Instant::now(), 1_u64);
        while let Ok(length) = source.read(&mut buffer) {
            let due = match self.link(pair) {
                Link::Late(least, most) => {
                    self.delayed.fetch_add(1, Ordering::Relaxed);
                    // Any spread will do: Knuth's multiplier.
                    drawn = drawn.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
                    let spread = u64::try_from((most - least).as_millis()).unwrap_or(0);
                    Instant::now() + least + Duration::from_millis((drawn >> 33) % (spread + 1))
                }
                Link::Open | Link::Cut => Instant::now(),
            };
            last = last.max(due);
            if length == 0 || chunks.send((last, buffer[..length].to_vec())).is_err() {
                break;
            }
        }
    }

    fn write(&self, pair: (usize, usize), mut target: TcpStream, queue: &Receiver<Chunk>) {
        for (due, bytes) in queue {
            std::thread::sleep(due.saturating_duration_since(Instant::now()));
            self.wait_while_cut(pair);
            if self.ended() || target.write_all(&bytes).is_err() {
                break;
            }
        }
        // The other end closed, or this one did: nothing more goes this way.
        drop(target.shutdown(Shutdown::Both));
    }

    fn wait_while_cut(&self, pair: (usize, usize)) {
        if self.link(pair) == Link::Cut {
            self.held.fetch_add(1, Ordering::Relaxed);
        }
        while self.link(pair) == Link::Cut && !self.ended() {
            std::thread::sleep(Duration::from_millis(5));
        }
    }

    /// Whose process holds the other end of this connection.
    fn who(&self, dialler: &TcpStream) -> Option<usize> {
        let inode = inode_of(dialler.peer_addr().ok()?, dialler.local_addr().ok()?)?;
        let wanted = format!("socket:[{inode}]");
        let processes = lock(&self.processes).clone();
        let holds = |process: u32| {
            let Ok(files) = std::fs::read_dir(format!("/proc/{process}/fd")) else { return false };
            let targets = files.filter_map(|file| std::fs::read_link(file.ok()?.path()).ok());
            targets.into_iter().any(|target| target.as_os_str() == wanted.as_str())
        };
        processes.into_iter().find(|(process, _)| holds(*process)).map(|(_, replica)| replica)
    }
}

/// The kernel's number of the socket between these two addresses, at its dialler's end.
fn inode_of(local: SocketAddr, remote: SocketAddr) -> Option<String> {
    let hex = |address: SocketAddr| match address {
        SocketAddr::V4(v4) => {
            let host = u32::from_ne_bytes(v4.ip().octets());
            format!("{host:08X}:{:04X}", v4.port())
        }
        SocketAddr::V6(_) => unreachable!("the proxies listen on 127.0.0.1"),
    };
    let (local, remote) = (hex(local), hex(remote));
    let table = std::fs::read_to_string("/proc/net/tcp").ok()?;
    table.lines().find_map(|line| {
        let columns: Vec<&str> = line.split_whitespace().collect();
        let found = *columns.get(1)? == local && *columns.get(2)? == remote;
        found.then(|| columns.get(9).map(|inode| (*inode).to_owned()))?
    })
}
