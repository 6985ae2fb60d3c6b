//! bcrypt, off the runtime and a few at a time: a flood of logins costs others nothing but the wait.

use std::sync::{Arc, OnceLock};

use bytes::Bytes;
use tokio::sync::Semaphore;
use tonic::Status;

use crate::api::errors::Refusal;

/// Passwords hashed at the same time.
const AT_ONCE: usize = 2;

/// Passwords that wait for their turn; one more is refused, so that a flood holds no memory.
const WAITING_MAX: usize = 256;

/// What bcrypt looks at; Go's refuses to hash more.
const PASSWORD_BYTES_MAX: usize = 72;

/// The hasher.
pub(super) struct Passwords {
    cost: u32,
    turns: Arc<Semaphore>,
    waiting: Arc<Semaphore>,
    /// A hash that no password has, for users that are not there.
    nobody: Arc<OnceLock<String>>,
}

impl Passwords {
    pub(super) fn new(cost: u32) -> Self {
        let (turns, waiting) = (Semaphore::new(AT_ONCE), Semaphore::new(WAITING_MAX));
        Self { cost, turns: turns.into(), waiting: waiting.into(), nobody: Arc::default() }
    }

    async fn run<R: Send + 'static>(
        &self,
        work: impl FnOnce() -> R + Send + 'static,
    ) -> Result<R, Status> {
        let place = self.waiting.try_acquire().map_err(|_| Refusal::TooManyRequests)?;
        let turn = Arc::clone(&self.turns).acquire_owned().await;
        drop(place);
        let turn = turn.map_err(|_| Status::internal("the hasher has stopped"))?;
        let done = tokio::task::spawn_blocking(move || {
            let done = work();
            drop(turn);
            done
        });
        done.await.map_err(|_| Status::internal("the hasher has stopped"))
    }

    /// The hash of a new password, as etcd stores it.
    ///
    /// # Errors
    /// In Go's words, a password of more than 72 bytes.
    pub(super) async fn hash(&self, password: String) -> Result<Bytes, Status> {
        if password.len() > PASSWORD_BYTES_MAX {
            return Err(Status::unknown("bcrypt: password length exceeds 72 bytes"));
        }
        let cost = self.cost;
        let hashed = self.run(move || hash(&password, cost)).await?;
        hashed.ok_or_else(|| Status::internal("the password cannot be hashed"))
    }

    /// Whether the password has this hash. Without one the same time passes.
    pub(super) async fn compare(
        &self,
        password: String,
        hashed: Option<Bytes>,
    ) -> Result<bool, Status> {
        let (cost, nobody) = (self.cost, Arc::clone(&self.nobody));
        self.run(move || match hashed {
            Some(hashed) => {
                let hashed = String::from_utf8_lossy(&hashed);
                bcrypt::verify(&password, &hashed).unwrap_or(false)
            }
            None => {
                let made = || {
                    let random = getrandom::u64().unwrap_or_default().to_string();
                    bcrypt::hash(random, cost).unwrap_or_default()
                };
                let _compared = bcrypt::verify(&password, nobody.get_or_init(made));
                false
            }
        })
        .await
    }
}

/// Go's bcrypt writes version 2a.
fn hash(password: &str, cost: u32) -> Option<Bytes> {
    let parts = bcrypt::hash_with_result(password, cost).ok()?;
    Some(parts.format_for_version(bcrypt::Version::TwoA).into())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_hash_is_that_of_go() {
        // golang.org/x/crypto/bcrypt made this one of "allmine".
        let go = "$2a$10$XajjQvNhvvRt5GSeFk1xFeyqRrsxkhBkUiQeg0dt.wU1qD4aFDcga";
        assert!(bcrypt::verify("allmine", go).expect("a hash"));
        let own = hash("allmine", 4).expect("hashed");
        let own = str::from_utf8(&own).expect("text");
        assert!(own.starts_with("$2a$04$") && own.len() == 60, "{own}");
        assert!(bcrypt::verify("allmine", own).expect("a hash"));
        assert!(!bcrypt::verify("allmine\0", own).unwrap_or(false));
    }
}
