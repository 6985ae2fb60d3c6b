//! Who gets which event next.
//!
//! Events enter one [`Ring`] for the whole replica, in (revision, sub-revision) order. A watcher is
//! never a queue: it is a position in that order, and what lies behind the ring it reads from the
//! state's history, so a client that reads slowly costs nothing but its position. Progress is a
//! position in the same order, so it cannot overtake an event (etcd-surface.md 2.3, 5.1).
//!
//! Nothing here wakes anyone or knows protobuf: `api` encodes and sends, `node` publishes.

mod hub;
mod ring;
mod cursor;
mod stream;
mod catch_up;
mod progress;

pub use cursor::{Delivery, Filters, Load, Watch};
pub use hub::{Hub, KeyRange};
pub use ring::{Ring, Slot};
pub use stream::{CreateError, Store, WATCHES_MAX, WatchStream};
