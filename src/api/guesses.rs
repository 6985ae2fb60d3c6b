//! Who guesses passwords waits longer and longer; who has the right one waits once (faults.md C8).

use core::net::IpAddr;
use core::sync::atomic::{AtomicU32, Ordering};
use core::time::Duration;
use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};

use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use crate::api::errors::Refusal;
use crate::chain::AuthOp;

/// Wrong passwords in a row that cost nothing: people mistype, and many clients begin at once.
const FREE: u32 = 10;

/// The same for all users that one other machine asks for.
const FREE_BY_ADDRESS: u32 = 100;

const FIRST_DELAY: Duration = Duration::from_millis(50);

/// Well below the time after which clients give up.
const DELAY_DOUBLINGS_MAX: u32 = 5;

/// Logins that wait behind each other; one more is refused.
const WAITING_MAX: usize = 64;

/// Users and addresses remembered.
const KNOWN_MAX: usize = 4_096;

/// An address, and a user asked for from there; none for all of them.
type Key = (IpAddr, Option<String>);

/// The wrong passwords of late.
#[derive(Default)]
pub(super) struct Guesses(Mutex<BTreeMap<Key, Arc<Row>>>);

struct Row {
    failures: AtomicU32,
    turn: Arc<Semaphore>,
    waiting: Semaphore,
}

impl Default for Row {
    fn default() -> Self {
        Self {
            failures: AtomicU32::new(0),
            turn: Arc::new(Semaphore::new(1)),
            waiting: Semaphore::new(WAITING_MAX),
        }
    }
}

/// The right to compare one password.
pub(super) struct Turn {
    keys: Vec<Key>,
    /// Of keys that wait, until the password was compared: one after another.
    _held: Vec<OwnedSemaphorePermit>,
}

/// One address tells much of a stranger and nothing of who shares this machine.
fn keys(address: IpAddr, user: &str) -> Vec<Key> {
    let address = address.to_canonical();
    let mut keys = Vec::with_capacity(2);
    if user.len() <= AuthOp::NAME_BYTES_MAX {
        keys.push((address, Some(user.to_owned())));
    }
    if !address.is_loopback() {
        keys.push((address, None));
    }
    keys
}

fn delay(key: &Key, failures: u32) -> Duration {
    let free = if key.1.is_some() { FREE } else { FREE_BY_ADDRESS };
    match failures.checked_sub(free) {
        None => Duration::ZERO,
        Some(beyond) => FIRST_DELAY * 2_u32.pow(beyond.min(DELAY_DOUBLINGS_MAX)),
    }
}

impl Guesses {
    /// Waits until this login may be tried.
    ///
    /// # Errors
    /// "too many requests", if many wait already.
    pub(super) async fn turn(&self, address: IpAddr, user: &str) -> Result<Turn, Refusal> {
        let keys = keys(address, user);
        let mut held = Vec::new();
        for key in &keys {
            let Some(row) = self.row(key) else { continue };
            let failures = || row.failures.load(Ordering::Relaxed);
            if delay(key, failures()).is_zero() {
                continue;
            }
            let place = row.waiting.try_acquire().map_err(|_| Refusal::TooManyRequests)?;
            let turn = Arc::clone(&row.turn).acquire_owned().await;
            drop(place);
            held.push(turn.map_err(|_| Refusal::TooManyRequests)?);
            // A success before this one has ended the wait.
            tokio::time::sleep(delay(key, failures())).await;
        }
        Ok(Turn { keys, _held: held })
    }

    /// The password was wrong, or there is no such user.
    pub(super) fn wrong(&self, turn: &Turn) {
        let mut known = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        for key in &turn.keys {
            if known.len() >= KNOWN_MAX && !known.contains_key(key) {
                // Names made up to push out another are those with the fewest.
                let failures = |row: &Arc<Row>| row.failures.load(Ordering::Relaxed);
                let least = known.iter().min_by_key(|(_, row)| failures(row));
                if let Some(least) = least.map(|(key, _)| key.clone()) {
                    known.remove(&least);
                }
            }
            let row = known.entry(key.clone()).or_default();
            row.failures.fetch_add(1, Ordering::Relaxed);
        }
    }

    /// The password was right.
    pub(super) fn right(&self, turn: &Turn) {
        let mut known = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        for key in &turn.keys {
            if let Some(row) = known.remove(key) {
                row.failures.store(0, Ordering::Relaxed);
            }
        }
    }

    fn row(&self, key: &Key) -> Option<Arc<Row>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).get(key).cloned()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const NEAR: IpAddr = IpAddr::V4(core::net::Ipv4Addr::LOCALHOST);
    const FAR: IpAddr = IpAddr::V4(core::net::Ipv4Addr::new(192, 0, 2, 1));

    fn run<F: Future>(future: F) -> F::Output {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
        runtime.expect("a runtime").block_on(future)
    }

    async fn fail(guesses: &Guesses, address: IpAddr, user: &str) {
        let turn = guesses.turn(address, user).await.expect("a turn");
        guesses.wrong(&turn);
    }

    fn delay_of(guesses: &Guesses, address: IpAddr, user: &str) -> Duration {
        let each = keys(address, user).into_iter().map(|key| {
            let failures = guesses.row(&key).map_or(0, |row| row.failures.load(Ordering::Relaxed));
            delay(&key, failures)
        });
        each.sum()
    }

    #[test]
    fn the_wait_doubles_up_to_its_most_and_ends_with_the_right_password() {
        run(async {
            let guesses = Guesses::default();
            for _ in 0..FREE {
                assert_eq!(delay_of(&guesses, NEAR, "alice"), Duration::ZERO);
                fail(&guesses, NEAR, "alice").await;
            }
            assert_eq!(delay_of(&guesses, NEAR, "alice"), FIRST_DELAY);
            fail(&guesses, NEAR, "alice").await;
            assert_eq!(delay_of(&guesses, NEAR, "alice"), 2 * FIRST_DELAY);
            assert_eq!(delay_of(&guesses, NEAR, "bob"), Duration::ZERO, "another user");
            assert_eq!(delay_of(&guesses, FAR, "alice"), Duration::ZERO, "from elsewhere");
            assert_eq!(delay(&(NEAR, Some(String::new())), u32::MAX), 32 * FIRST_DELAY);
            let turn = guesses.turn(NEAR, "alice").await.expect("a turn");
            guesses.right(&turn);
            assert_eq!(delay_of(&guesses, NEAR, "alice"), Duration::ZERO);
        });
    }

    #[test]
    fn who_tries_many_users_from_another_machine_waits_too() {
        run(async {
            let guesses = Guesses::default();
            for at in 0..FREE_BY_ADDRESS {
                fail(&guesses, FAR, &format!("user {at}")).await;
                fail(&guesses, NEAR, &format!("user {at}")).await;
            }
            assert_eq!(delay_of(&guesses, FAR, "one more"), FIRST_DELAY);
            assert_eq!(delay_of(&guesses, NEAR, "one more"), Duration::ZERO);
        });
    }

    #[test]
    fn made_up_names_neither_fill_memory_nor_push_a_guessed_one_out() {
        run(async {
            let guesses = Guesses::default();
            for _ in 0..=FREE {
                fail(&guesses, NEAR, "alice").await;
            }
            for at in 0..KNOWN_MAX + 10 {
                fail(&guesses, NEAR, &format!("user {at}")).await;
            }
            fail(&guesses, NEAR, &"x".repeat(1 << 20)).await;
            let known = guesses.0.lock().expect("no panic under the lock").len();
            assert_eq!(known, KNOWN_MAX);
            assert!(!delay_of(&guesses, NEAR, "alice").is_zero());
        });
    }

    #[test]
    fn only_so_many_wait_for_one_user() {
        run(async {
            let guesses = Arc::new(Guesses::default());
            for _ in 0..FREE {
                fail(&guesses, NEAR, "alice").await;
            }
            let first = guesses.turn(NEAR, "alice").await.expect("a turn");
            let mut waiting: Vec<_> =
                (0..=WAITING_MAX).map(|_| Box::pin(guesses.turn(NEAR, "alice"))).collect();
            let mut refused = 0;
            for turn in &mut waiting {
                let soon = tokio::time::timeout(Duration::from_millis(1), turn).await;
                refused += usize::from(matches!(soon, Ok(Err(Refusal::TooManyRequests))));
            }
            assert_eq!(refused, 1);
            guesses.right(&first);
            drop(first);
            let next = waiting.swap_remove(0);
            assert!(next.await.is_ok(), "they go on, without a wait");
        });
    }
}
