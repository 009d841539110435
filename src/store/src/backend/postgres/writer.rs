//! The one writing transaction at a time, and who shares it.
//!
//! Statements of one transaction wait for each other, so a transaction's price is its round trips and its COMMIT's wait
//! for the disk. What waits is therefore taken together, as on SQLite: each operation in its own savepoint, one COMMIT,
//! then the answers (Q1). A failing or panicking operation loses its savepoint and nothing else; a failing COMMIT fails
//! every caller of the group.
//!
//! A lock that lives as long as the transaction makes the writers of all processes take turns (ADR 12): what each sees
//! is what the one before left, so nothing has to be run again because of another.

use super::{Manager, Pooled};
use crate::backend::op::{Op, WAITING, writer_gone};
use crate::{Scope, StoreError};
use diesel::connection::SimpleConnection;
use std::collections::VecDeque;
use std::thread::JoinHandle;
use std::time::{Duration, Instant};
use tokio::sync::mpsc;

/// At most so many operations share a COMMIT. PostgreSQL keeps 64 subtransactions of one session in shared memory;
/// with more, everybody's snapshots become dear.
const GROUP: usize = 48;
/// A group is closed after this long: others wait for their turn.
const GROUP_TIME: Duration = Duration::from_millis(50);
/// How often a group is run again that the database gave up for another transaction (a tool's lock, say).
const TRIES: u32 = 12;
/// How often it is run again over a new connection.
const RECONNECTS: u32 = 2;
/// The number is [`super::WRITERS_TURN`]. The lock is taken by a statement of its own, so that every later one sees what
/// the holder before committed.
const BEGIN: &str =
    "BEGIN ISOLATION LEVEL READ COMMITTED READ WRITE; SELECT pg_advisory_xact_lock(7095271071224718707)";
/// A process that stops in the middle of its turn (a paused machine, a network that is cut) loses it after this long. A
/// turn that does not come is given up.
const SESSION: &str = "SET idle_in_transaction_session_timeout = 5000; SET lock_timeout = 15000";

/// The writer of this process.
pub(super) struct Writer {
    queue: Option<mpsc::Sender<Box<dyn Op>>>,
    thread: Option<JoinHandle<()>>,
}

impl Writer {
    /// Starts it. It connects when there is something to do.
    pub(super) fn start(manager: Manager) -> Result<Self, StoreError> {
        let (queue, waiting) = mpsc::channel(WAITING);
        let thread = std::thread::Builder::new()
            .name("store-writer".to_owned())
            .spawn(move || Turns { manager, session: None, waiting, ahead: VecDeque::new() }.serve())
            .map_err(|why| StoreError::Open(format!("cannot start the writer: {why}")))?;
        Ok(Self { queue: Some(queue), thread: Some(thread) })
    }

    /// Where operations go.
    pub(super) fn queue(&self) -> Result<&mpsc::Sender<Box<dyn Op>>, StoreError> {
        self.queue.as_ref().ok_or_else(writer_gone)
    }
}

impl Drop for Writer {
    /// What was accepted is done first.
    fn drop(&mut self) {
        self.queue = None;
        if let Some(thread) = self.thread.take()
            && thread.thread().id() != std::thread::current().id()
            && thread.join().is_err()
        {
            tracing::error!("the store's writer thread had panicked");
        }
    }
}

struct Turns {
    manager: Manager,
    session: Option<Pooled>,
    waiting: mpsc::Receiver<Box<dyn Op>>,
    /// Taken from the queue, for the next group.
    ahead: VecDeque<Box<dyn Op>>,
}

impl Turns {
    fn serve(mut self) {
        while let Some(first) = self.waiting.blocking_recv() {
            self.ahead.push_back(first);
            while self.ahead.len() < GROUP
                && let Ok(next) = self.waiting.try_recv()
            {
                self.ahead.push_back(next);
            }
            while !self.ahead.is_empty() {
                self.group();
            }
        }
    }

    /// One group, until it is committed or lost.
    fn group(&mut self) {
        let mut done: Vec<Box<dyn Op>> = Vec::new();
        let mut outcome = Ok(());
        for tried in 0..TRIES {
            if tried > 0 {
                std::thread::sleep(Duration::from_millis(u64::from(tried)));
            }
            outcome = self.run_group(&mut done);
            match outcome {
                Err(StoreError::Busy(_)) => {}
                // The connection broke before COMMIT: nothing happened. A restart of the database costs nobody an error
                // that a new connection can spare them.
                Err(StoreError::Unavailable(_))
                    if self.session.is_none() && !done.is_empty() && tried < RECONNECTS => {}
                _ => break,
            }
        }
        if outcome.is_err() && done.is_empty() {
            // The database is not there: nobody who waits has to find that out one after the other.
            done.extend(self.ahead.drain(..));
        }
        for op in done {
            op.finish(outcome.clone());
        }
    }

    /// BEGIN, every operation in its savepoint, COMMIT. With operations in `done` it runs those, again.
    fn run_group(&mut self, done: &mut Vec<Box<dyn Op>>) -> Result<(), StoreError> {
        let first = done.first().or_else(|| self.ahead.front()).map(|op| op.scope());
        let mut session = self.begun(first.unwrap_or(Scope::System))?;
        let outcome = self.in_transaction(&mut session, done);
        if outcome.is_err() {
            session.broken = session.conn.batch_execute("ROLLBACK").is_err();
        }
        if !session.broken {
            self.session = Some(session);
        }
        outcome
    }

    fn in_transaction(
        &mut self,
        session: &mut Pooled,
        done: &mut Vec<Box<dyn Op>>,
    ) -> Result<(), StoreError> {
        let started = Instant::now();
        if done.is_empty() && self.ahead.len() == 1 {
            // Alone it needs no savepoint: what undoes it undoes the transaction.
            let Some(op) = self.ahead.pop_front() else { return Ok(()) };
            done.push(op);
            let Some(op) = done.first_mut() else { return Ok(()) };
            return if op.run(&mut session.conn)? {
                super::commit(&mut session.conn)
            } else {
                Ok(session.conn.batch_execute("ROLLBACK")?)
            };
        }
        let mut place = Savepoint { open: false, kept: false };
        for op in done.iter_mut() {
            place.run(session, op.as_mut())?;
        }
        let again = !done.is_empty();
        while !again && done.len() < GROUP && (done.is_empty() || started.elapsed() < GROUP_TIME) {
            let Some(mut op) = self.ahead.pop_front().or_else(|| self.waiting.try_recv().ok()) else { break };
            let ran = place.run(session, op.as_mut());
            // An operation is in `done` whatever happens, so that its caller always gets an answer.
            done.push(op);
            ran?;
        }
        super::commit(&mut session.conn)
    }

    /// A session in an open transaction whose turn it is. One that broke since its last use is replaced: nothing was
    /// done in it.
    fn begun(&mut self, scope: Scope) -> Result<Pooled, StoreError> {
        if let Some(mut session) = self.session.take()
            && session.begin(scope, BEGIN).is_ok()
        {
            return Ok(session);
        }
        let mut session = self.manager.session()?;
        session.conn.batch_execute(SESSION)?;
        session.begin(scope, BEGIN)?;
        Ok(session)
    }
}

/// The savepoint around the operation that runs.
struct Savepoint {
    open: bool,
    /// The one before is to be kept: said together with the next statement.
    kept: bool,
}

impl Savepoint {
    fn run(&mut self, session: &mut Pooled, op: &mut dyn Op) -> Result<(), StoreError> {
        if session.within != op.scope() {
            if self.open {
                session.conn.batch_execute("RELEASE SAVEPOINT op")?;
                self.open = false;
            }
            session.look_at(op.scope())?;
        }
        // After an operation that was undone its savepoint is still there, and is the next one's.
        match (self.open, self.kept) {
            (false, _) => session.conn.batch_execute("SAVEPOINT op")?,
            (true, true) => session.conn.batch_execute("RELEASE SAVEPOINT op; SAVEPOINT op")?,
            (true, false) => {}
        }
        self.open = true;
        self.kept = op.run(&mut session.conn)?;
        if !self.kept {
            session.conn.batch_execute("ROLLBACK TO SAVEPOINT op")?;
        }
        Ok(())
    }
}
