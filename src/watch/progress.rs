use crate::planted::{self, Bug};
use crate::types::Revision;
use crate::watch::{Delivery, Load, WatchStream};

/// The id that stands for all watchers of a stream.
const ALL: i64 = -1;

impl WatchStream {
    /// A client's WatchProgressRequest: answered by the poll that finds all watchers caught up.
    pub fn request_progress(&mut self) {
        self.progress_wanted = true;
    }

    /// The progress interval has passed.
    pub fn tick(&mut self) {
        self.ticked = true;
    }

    /// Appends what is due behind the events of this poll, hence never ahead of one (etcd's
    /// progressIfSync): to all watchers only if every one is synced and has begun.
    pub(super) fn progress(
        &mut self,
        current: Revision,
        more: bool,
        deliveries: &mut Vec<Delivery>,
    ) {
        if !self.ticked && !self.progress_wanted {
            return;
        }
        let at_end = self.position > current;
        let mut all = at_end && !self.watchers.is_empty();
        for (id, cursor) in &mut self.watchers {
            let early = planted::is(Bug::ProgressBeforeEvents);
            let due = early || at_end && cursor.synced && cursor.watch.start <= current;
            all &= due;
            if self.ticked && cursor.watch.progress_notify {
                if due && cursor.quiet {
                    deliveries.push(progress_of(*id, current));
                }
                cursor.quiet = true;
            }
        }
        self.ticked = false;
        if self.progress_wanted && all {
            deliveries.push(progress_of(ALL, current));
        }
        // Not synced, or not begun: no answer, the client asks again. While this stream itself is
        // still sending what there is, the request waits for the end of that.
        self.progress_wanted &= !all && more;
    }
}

fn progress_of(watch_id: i64, revision: Revision) -> Delivery {
    Delivery { watch_id, revision, load: Load::Progress }
}
