//! A caller's transaction on its way through the one writer of this process.

use super::{Conn, panic_text};
use crate::{Scope, StoreError, Tx};
use std::panic::{AssertUnwindSafe, catch_unwind};
use tokio::sync::oneshot;

/// At most so many operations wait before callers have to.
pub(crate) const WAITING: usize = 1_024;

/// One caller's operation on the writer thread.
pub(crate) trait Op: Send {
    /// Whose rows it sees.
    fn scope(&self) -> Scope;
    /// Runs it; perhaps more than once. `Ok(true)`: keep its changes. `Ok(false)`: undo them. `Err`: the whole group is
    /// lost.
    fn run(&mut self, conn: &mut Conn) -> Result<bool, StoreError>;
    /// Answers the caller, after COMMIT or in its place.
    fn finish(self: Box<Self>, commit: Result<(), StoreError>);
}

/// What a caller hears when the writer thread is gone.
pub(crate) fn writer_gone() -> StoreError {
    StoreError::Unavailable("the store's writer has stopped; restart bellwether".to_owned())
}

/// One run of a caller's closure.
pub(crate) struct Attempt<T, E> {
    /// What it came to.
    pub(crate) value: Result<T, E>,
    /// The database refused something in it: nothing of it may be kept.
    pub(crate) broken: Option<StoreError>,
}

/// Runs a caller's closure in the transaction that is open.
pub(crate) fn attempt<T, E, F>(conn: &mut Conn, scope: Scope, f: &mut F) -> Attempt<T, E>
where
    F: FnMut(&mut Tx<'_>) -> Result<T, E>,
    E: From<StoreError>,
{
    let mut tx = Tx::new(conn, scope);
    let ran = catch_unwind(AssertUnwindSafe(|| f(&mut tx)));
    let broken = tx.into_broken();
    let value = match (ran, &broken) {
        (Err(payload), _) => {
            let text = panic_text(payload.as_ref());
            tracing::error!(panic = %text, "a transaction panicked and is rolled back");
            return Attempt { value: Err(StoreError::Panicked(text.clone()).into()), broken: None };
        }
        (Ok(Ok(_)), Some(why)) => Err(why.clone().into()),
        (Ok(value), _) => value,
    };
    Attempt { value, broken }
}

/// A caller's closure, and where its answer goes.
pub(crate) struct Call<T, E, F> {
    scope: Scope,
    f: F,
    value: Option<Result<T, E>>,
    reply: oneshot::Sender<Result<T, E>>,
}

impl<T, E, F> Call<T, E, F>
where
    F: FnMut(&mut Tx<'_>) -> Result<T, E> + Send + 'static,
    T: Send + 'static,
    E: From<StoreError> + Send + 'static,
{
    /// Ready for the writer's queue.
    pub(crate) fn queued(scope: Scope, f: F) -> (Box<dyn Op>, oneshot::Receiver<Result<T, E>>) {
        let (reply, answer) = oneshot::channel();
        (Box::new(Self { scope, f, value: None, reply }), answer)
    }
}

impl<T, E, F> Op for Call<T, E, F>
where
    F: FnMut(&mut Tx<'_>) -> Result<T, E> + Send + 'static,
    T: Send + 'static,
    E: From<StoreError> + Send + 'static,
{
    fn scope(&self) -> Scope {
        self.scope
    }

    fn run(&mut self, conn: &mut Conn) -> Result<bool, StoreError> {
        let attempt = attempt(conn, self.scope, &mut self.f);
        let keep = attempt.value.is_ok();
        self.value = Some(attempt.value);
        match attempt.broken {
            // The transaction around it may be lost too: with the disk, or because the database gave it up for another.
            Some(failed @ (StoreError::DiskFailed(_) | StoreError::Full(_) | StoreError::Busy(_))) => {
                Err(failed)
            }
            _ => Ok(keep),
        }
    }

    fn finish(self: Box<Self>, commit: Result<(), StoreError>) {
        let value = match (commit, self.value) {
            (Ok(()), Some(value)) => value,
            (Ok(()), None) => Err(writer_gone().into()),
            // Also for those that answered an error: they may have seen what others of the group did.
            (Err(why), _) => Err(why.into()),
        };
        // The caller may have gone; its change stands all the same.
        drop(self.reply.send(value));
    }
}
