use std::net::{SocketAddr, TcpListener};
use std::sync::mpsc::{Receiver, RecvTimeoutError, channel};

use super::*;
use crate::crypto::{Ed25519, PublicKey};
use crate::tls::PeerTable;
use crate::types::Digest;
use tokio::io::{AsyncReadExt, AsyncWriteExt};

const NETWORK: Digest = Digest([7; 32]);
const LIMITS: FrameLimits = FrameLimits { control_bytes: 1 << 20, bulk_bytes: 5 << 20 };

struct World {
    runtime: tokio::runtime::Runtime,
    addresses: Vec<SocketAddr>,
    listeners: Vec<Option<TcpListener>>,
}

struct Node {
    net: PeerNet,
    events: Receiver<NetEvent>,
}

fn key(n: u8) -> Ed25519 {
    Ed25519::from_seed(&[n + 1; 32])
}

fn id(n: usize) -> ReplicaId {
    ReplicaId(u16::try_from(n).expect("small"))
}

impl World {
    fn new(size: usize) -> Self {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
        let runtime = runtime.expect("a runtime");
        let listeners: Vec<TcpListener> =
            (0..size).map(|_| TcpListener::bind("127.0.0.1:0").expect("a port")).collect();
        let addresses = listeners.iter().map(|l| l.local_addr().expect("bound")).collect();
        Self { runtime, addresses, listeners: listeners.into_iter().map(Some).collect() }
    }

    fn tls(&self, n: usize, network: Digest, seed: u8) -> Arc<PeerTls> {
        let members = (0..self.addresses.len())
            .map(|m| (id(m), key(u8::try_from(m).expect("small")).public_key()));
        let table = PeerTable::new(members.collect());
        Arc::new(PeerTls::new(id(n), network, Arc::new(key(seed)), table).expect("a TLS key"))
    }

    fn start_as(&mut self, n: usize, network: Digest, seed: u8) -> Node {
        let listener = self.listeners[n]
            .take()
            .unwrap_or_else(|| TcpListener::bind(self.addresses[n]).expect("its old port"));
        let peers = (0..self.addresses.len()).filter(|m| *m != n).map(|m| PeerAddress {
            key: PublicKey([0; 32]),
            id: id(m),
            name: format!("replica-{m}"),
            label: format!("{m:x}"),
            addresses: vec![self.addresses[m].to_string()],
        });
        let config = PeerNetConfig {
            strangers: None,
            tls: self.tls(n, network, seed),
            listeners: vec![PeerListener { socket: listener, secure: false }],
            peers: peers.collect(),
            frame_limits: LIMITS,
            queue_bytes_max: 8 << 20,
            unsettled_bytes_max: 8 << 20,
        };
        let (sender, events) = channel();
        let net = PeerNet::start(self.runtime.handle(), config, move |event| {
            let _ = sender.send(event);
        });
        Node { net: net.expect("started"), events }
    }

    fn start(&mut self, n: usize) -> Node {
        self.start_as(n, NETWORK, u8::try_from(n).expect("small"))
    }

    /// Lets the tasks run until `node` has an event for which `pick` finds something.
    fn until<R>(&self, node: &Node, mut pick: impl FnMut(NetEvent) -> Option<R>) -> R {
        let deadline = std::time::Instant::now() + Duration::from_secs(20);
        loop {
            self.turn();
            match node.events.recv_timeout(Duration::ZERO) {
                Ok(event) => {
                    if let Some(found) = pick(event) {
                        return found;
                    }
                }
                Err(RecvTimeoutError::Timeout) => {
                    assert!(std::time::Instant::now() < deadline, "nothing happened for 20 s");
                }
                Err(RecvTimeoutError::Disconnected) => panic!("the links are gone"),
            }
        }
    }

    fn turn(&self) {
        self.runtime.block_on(async { tokio::time::sleep(Duration::from_millis(2)).await });
    }

    fn until_up(&self, node: &Node, peer: usize) {
        self.until(node, |event| {
            matches!(event, NetEvent::Up(found) if found == id(peer)).then_some(())
        });
    }

    fn until_down(&self, node: &Node, peer: usize) {
        self.until(node, |event| {
            matches!(event, NetEvent::Down(found) if found == id(peer)).then_some(())
        });
    }

    fn next_frame(&self, node: &Node) -> (ReplicaId, Bytes) {
        self.until(node, |event| match event {
            NetEvent::Frame(from, frame, _) => Some((from, frame)),
            _ => None,
        })
    }
}

#[test]
fn frames_reach_each_peer_whole_and_in_the_order_of_their_lane() {
    let mut world = World::new(3);
    let nodes: Vec<Node> = (0..3).map(|n| world.start(n)).collect();
    world.until_up(&nodes[0], 1);
    let block = Bytes::from((0..4_000_000_u32).map(|n| n.to_le_bytes()[1]).collect::<Vec<u8>>());
    assert!(nodes[0].net.send(id(1), block.clone(), Lane::Bulk));
    for n in 0..100_u8 {
        assert!(nodes[0].net.send(id(1), Bytes::from(vec![n; 160]), Lane::Control));
    }
    let (mut votes, mut blocks) = (Vec::new(), Vec::new());
    while votes.len() + blocks.len() < 101 {
        let (from, frame) = world.next_frame(&nodes[1]);
        assert_eq!(from, id(0));
        if frame.len() == 160 { votes.push(frame[0]) } else { blocks.push(frame) }
    }
    assert_eq!(votes, (0..100).collect::<Vec<u8>>());
    assert_eq!(blocks, [block]);
    assert!(!nodes[0].net.send(id(9), Bytes::from_static(b"x"), Lane::Control), "unknown peer");
    let traffic = nodes[0].net.traffic()[&id(1)];
    assert!(traffic.up && traffic.sent_bytes > 4_016_000 && traffic.round_trip_us > 0);
}

#[test]
fn a_restarted_peer_is_found_again_and_the_old_link_loses() {
    let mut world = World::new(2);
    let (zero, one) = (world.start(0), world.start(1));
    world.until_up(&zero, 1);
    drop(one);
    world.until_down(&zero, 1);
    assert!(!zero.net.send(id(1), Bytes::from_static(b"lost"), Lane::Control));
    assert_eq!(zero.net.traffic()[&id(1)].failures, 1);
    world.turn();
    let one = world.start(1);
    world.until_up(&zero, 1);
    assert!(zero.net.send(id(1), Bytes::from_static(b"again"), Lane::Control));
    assert_eq!(world.next_frame(&one), (id(0), Bytes::from_static(b"again")));
}

#[test]
fn a_cut_replica_is_alone_until_it_is_healed() {
    let mut world = World::new(2);
    let (zero, one) = (world.start(0), world.start(1));
    world.until_up(&zero, 1);
    world.until_up(&one, 0);
    one.net.cut(true);
    world.until_down(&zero, 1);
    world.until_down(&one, 0);
    assert!(one.net.is_cut() && !one.net.send(id(0), Bytes::from_static(b"x"), Lane::Control));
    for _ in 0..200 {
        world.turn();
    }
    assert!(!zero.net.traffic()[&id(1)].up, "it stays away");
    one.net.cut(false);
    world.until_up(&zero, 1);
    world.until_up(&one, 0);
}

#[test]
fn strangers_get_no_link_and_members_keep_theirs() {
    for (network, seed) in [(NETWORK, 99), (Digest([8; 32]), 2)] {
        let mut world = World::new(3);
        let (zero, one) = (world.start(0), world.start(1));
        let stranger = world.start_as(2, network, seed);
        world.until_up(&zero, 1);
        world.until_up(&one, 0);
        for _ in 0..100 {
            world.turn();
        }
        let ups =
            |node: &Node| node.events.try_iter().filter(|e| matches!(e, NetEvent::Up(_))).count();
        assert_eq!((ups(&stranger), ups(&zero), ups(&one)), (0, 0, 0));
        assert!(zero.net.traffic()[&id(1)].up && !zero.net.traffic()[&id(2)].up);
    }
}

#[test]
fn garbage_oversize_and_half_frames_end_one_connection_and_nothing_else() {
    let mut world = World::new(3);
    let (zero, one) = (world.start(0), world.start(1));
    world.until_up(&zero, 1);
    let address = world.addresses[0];
    let member = world.tls(2, NETWORK, 2);
    let deaf = async |bytes: &[u8], tls: bool| {
        let mut tcp = tokio::net::TcpStream::connect(address).await.expect("connected");
        if !tls {
            tcp.write_all(bytes).await.expect("written");
            let mut rest = Vec::new();
            let _ = tcp.read_to_end(&mut rest).await;
            return;
        }
        let name = rustls::pki_types::ServerName::try_from("peer.althing").expect("a name");
        let connector = member.connector(id(0)).expect("a connector");
        let mut stream = connector.connect(name, tcp).await.expect("a handshake");
        stream.write_all(bytes).await.expect("written");
        stream.flush().await.expect("flushed");
        let mut greeting = [0; 13];
        stream.read_exact(&mut greeting).await.expect("greeted");
        let _ = stream.shutdown().await;
        let mut rest = Vec::new();
        let _ = stream.read_to_end(&mut rest).await;
        assert!(rest.is_empty());
    };
    world.runtime.block_on(async {
        deaf(b"GET / HTTP/1.1\r\n\r\n", false).await;
        deaf(&[0xff; 4_000], true).await;
        deaf(&[0xff, 0xff, 0xff, 0x7f, 1], true).await;
        deaf(&[200, 0, 0, 0, 1, 1, 2, 3], true).await;
        deaf(&[5, 0, 0, 0, 2, 0xff, 0xff, 0xff, 0x7f, 1], true).await;
    });
    let frames = zero.events.try_iter().filter(|e| matches!(e, NetEvent::Frame(..))).count();
    assert_eq!(frames, 0);
    assert!(one.net.send(id(0), Bytes::from_static(b"fine"), Lane::Control));
    assert_eq!(world.next_frame(&zero), (id(1), Bytes::from_static(b"fine")));
}

#[test]
fn a_peer_whose_frames_are_not_dealt_with_is_not_read_from() {
    let mut world = World::new(2);
    let (zero, one) = (world.start(0), world.start(1));
    world.until_up(&one, 0);
    let frame = Bytes::from(vec![1; 1 << 20]);
    let mut held = Vec::new();
    let mut accepted = 0;
    for _ in 0..400 {
        accepted += u32::from(one.net.send(id(0), frame.clone(), Lane::Bulk));
        world.turn();
        held.extend(zero.events.try_iter().filter(|e| matches!(e, NetEvent::Frame(..))));
    }
    assert_eq!(held.len(), 7, "8 MiB minus the frames' own cost");
    assert!(accepted < 60, "the sender's queue is bounded too: {accepted}");
    held.clear();
    world.next_frame(&zero);
}
