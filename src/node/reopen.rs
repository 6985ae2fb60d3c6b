//! Starting over inside the process: when a repair gives the disk's content up, or a transferred
//! state waits there. It is what a restart would do, but that clients, watch streams and links to
//! peers stay.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::sync::mpsc::{Receiver, Sender};

use crate::net::NetEvent;
use crate::node::event::Event;
use crate::node::halt::{EXIT_HALTED, EXIT_LOG_FAILED, halt};
use crate::node::members::Links;
use crate::node::open::open;
use crate::node::run::Replica;
use crate::node::start::{Board, start_again};
use crate::node::transfer::Transferred;
use crate::node::{NodeConfig, NodeError, repair};
use crate::storage::disk::Disk;
use crate::storage::transfer::install;
use crate::types::ReplicaId;

/// Why [`Replica::run`] returned.
pub(super) enum Ended {
    /// The process stops.
    Stopped,
    /// The damaged log and state are to be set aside.
    Repair,
    /// A transferred state is to be installed.
    Install(Box<Transferred>),
}

/// What stays when a replica starts over.
pub(super) struct Life {
    pub(super) config: NodeConfig,
    pub(super) disk: Arc<dyn Disk>,
    pub(super) events: Sender<Event>,
    pub(super) net: Option<Links>,
    pub(super) board: Board,
}

impl Life {
    /// The protocol thread: one replica after another on the same disk, until the process stops.
    pub(super) fn run(self, mut replica: Replica, inbox: &Receiver<Event>) {
        loop {
            let ended = replica.run(inbox);
            if let Ended::Stopped = ended {
                return;
            }
            self.board.disconnect();
            let mut up = replica.close();
            if !drain(inbox, &mut up) {
                return;
            }
            let (done, restored) = match ended {
                Ended::Stopped => return,
                Ended::Repair => (repair::begin(self.disk.as_ref()), None),
                Ended::Install(done) => {
                    let Transferred { checkpoint, state } = *done;
                    (install(self.disk.as_ref(), &checkpoint), Some((checkpoint, state)))
                }
            };
            if let Err(error) = done {
                halt(EXIT_LOG_FAILED, &format!("the replica cannot start over: {error}"));
            }
            let opened = open(&self.config, &self.disk, restored);
            let again = opened.and_then(|opened| start_again(&self, opened));
            replica = match again {
                Ok(replica) => replica,
                Err(error) => halt(EXIT_HALTED, &error.to_string()),
            };
            replica.greet(up);
        }
    }
}

/// Drops what was meant for the replica before: its threads have ended, so nothing of theirs comes
/// later. False if the process is to stop.
fn drain(inbox: &Receiver<Event>, up: &mut BTreeSet<ReplicaId>) -> bool {
    for event in inbox.try_iter() {
        match event {
            Event::Net(NetEvent::Up(peer)) => drop(up.insert(peer)),
            Event::Net(NetEvent::Down(peer)) => drop(up.remove(&peer)),
            Event::Request(request) => drop(request.reply.send(Err(NodeError::Timeout))),
            Event::Barrier(waiter) => drop(waiter.send(Err(NodeError::Timeout))),
            Event::Repair(begun) => drop(begun.send(Err("it is starting over".to_owned()))),
            Event::LogFailed(why) => halt(EXIT_LOG_FAILED, &format!("the log failed: {why}")),
            Event::Stop => return false,
            Event::Net(NetEvent::Frame(..))
            | Event::Durable(..)
            | Event::Checkpointed(_)
            | Event::Transfer(_)
            | Event::Transferred(_)
            | Event::Damaged(_)
            | Event::Lie
            | Event::HandOver => {}
        }
    }
    true
}
