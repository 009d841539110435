//! What lies between machines: a splitter in front of several nodes, and a gate between a node and PostgreSQL that breaks
//! as networks break.

use bellwether_certs::hash::random_bytes;
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::atomic::{AtomicU32, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;

/// How long PostgreSQL may take to answer a COMMIT whose answer is to be lost.
const COMMIT_TAKES: Duration = Duration::from_secs(10);
/// The two requests that a client may send before its first message (PostgreSQL, "Message Formats").
const SSL_REQUEST: u32 = 80_877_103;
const GSS_REQUEST: u32 = 80_877_104;

/// Which node a new connection goes to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Choice {
    /// One after the other.
    Turns,
    /// Any.
    Chance,
    /// Always this one.
    Only(usize),
}

/// A load balancer without affinity: it hands each new connection to a node, and to the next one when that does not
/// take it. It looks at nothing that is said.
pub struct Splitter {
    pub port: u16,
    state: Arc<Split>,
}

struct Split {
    nodes: Mutex<Vec<u16>>,
    choice: Mutex<Choice>,
    turn: AtomicUsize,
    /// Connections by node.
    taken: Mutex<Vec<usize>>,
}

impl Splitter {
    /// Listens; there is no node yet.
    pub async fn new() -> Self {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
        let port = listener.local_addr().unwrap().port();
        let state = Arc::new(Split {
            nodes: Mutex::default(),
            choice: Mutex::new(Choice::Turns),
            turn: AtomicUsize::new(0),
            taken: Mutex::default(),
        });
        let split = state.clone();
        tokio::spawn(async move {
            while let Ok((client, _)) = listener.accept().await {
                let split = split.clone();
                tokio::spawn(async move { split.hand_on(client).await });
            }
        });
        Self { port, state }
    }

    /// The nodes' ports.
    pub fn set_nodes(&self, ports: Vec<u16>) {
        *locked(&self.state.taken) = vec![0; ports.len()];
        *locked(&self.state.nodes) = ports;
    }

    pub fn choose(&self, choice: Choice) {
        *locked(&self.state.choice) = choice;
    }

    /// Connections that each node has had.
    pub fn taken(&self) -> Vec<usize> {
        locked(&self.state.taken).clone()
    }
}

impl Split {
    async fn hand_on(&self, mut client: TcpStream) {
        let nodes = locked(&self.nodes).clone();
        let first = match *locked(&self.choice) {
            Choice::Only(node) => node,
            Choice::Turns => self.turn.fetch_add(1, Ordering::SeqCst),
            Choice::Chance => usize::from(u16::from_be_bytes(random_bytes::<2>().unwrap())),
        };
        for node in (first..).take(nodes.len()).map(|node| node % nodes.len()) {
            let Ok(mut server) = TcpStream::connect((Ipv4Addr::LOCALHOST, nodes[node])).await else {
                continue;
            };
            locked(&self.taken)[node] += 1;
            // Small messages to and fro: waiting for more of them costs 40 ms each.
            let _ = client.set_nodelay(true).and_then(|()| server.set_nodelay(true));
            let _ = tokio::io::copy_bidirectional(&mut client, &mut server).await;
            return;
        }
    }
}

/// How the road to PostgreSQL is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Road {
    Open,
    /// Every message is late by this.
    Slow(Duration),
    /// Bytes stop in both directions and nobody is told; new connections never get an answer.
    Stalled,
    /// Connections break, new ones are closed at once.
    Cut,
}

/// What becomes of a COMMIT.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fate {
    /// PostgreSQL gets it and answers, the node never hears that: it is committed, and the node cannot know.
    AnswerLost,
    /// It is lost itself: nothing is committed, and the node cannot know.
    NeverArrives,
    /// It stays on the road, and so does all that comes after it on any connection: the transaction keeps its locks.
    Stuck,
}

/// The road between one node and PostgreSQL.
#[derive(Clone)]
pub struct Gate {
    pub port: u16,
    state: Arc<GateState>,
}

struct GateState {
    postgres: SocketAddr,
    road: watch::Sender<(Road, u64)>,
    /// Of a thousand COMMITs so many meet a fate by chance.
    unlucky: AtomicU32,
    /// The next COMMIT meets this.
    next: Mutex<Option<Fate>>,
    /// Transactions that write do not begin.
    held: watch::Sender<bool>,
    lost_answers: AtomicU32,
    lost_commits: AtomicU32,
}

impl Gate {
    /// In front of a PostgreSQL.
    pub async fn new(postgres: SocketAddr) -> Self {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
        let port = listener.local_addr().unwrap().port();
        let state = Arc::new(GateState {
            postgres,
            road: watch::Sender::new((Road::Open, 0)),
            unlucky: AtomicU32::new(0),
            next: Mutex::default(),
            held: watch::Sender::new(false),
            lost_answers: AtomicU32::new(0),
            lost_commits: AtomicU32::new(0),
        });
        let gate = state.clone();
        tokio::spawn(async move {
            while let Ok((client, _)) = listener.accept().await {
                let gate = gate.clone();
                tokio::spawn(async move {
                    // A connection that broke is what this is for.
                    let _ = gate.carry(client).await;
                });
            }
        });
        Self { port, state }
    }

    /// Changes the road; [`Road::Cut`] also breaks every connection that there is.
    pub fn set(&self, road: Road) {
        self.state.road.send_modify(|(now, cuts)| {
            *now = road;
            *cuts += u64::from(road == Road::Cut);
        });
    }

    /// Breaks every connection; new ones are welcome.
    pub fn cut_once(&self) {
        self.state.road.send_modify(|(_, cuts)| *cuts += 1);
    }

    /// So many of a thousand COMMITs are lost, or their answers.
    pub fn lose_commits(&self, of_a_thousand: u32) {
        self.state.unlucky.store(of_a_thousand, Ordering::SeqCst);
    }

    /// What the next COMMIT meets.
    pub fn next_commit(&self, fate: Fate) {
        *locked(&self.state.next) = Some(fate);
    }

    /// Holds up every transaction that is about to write, or lets them go on.
    pub fn hold_writes(&self, held: bool) {
        self.state.held.send_replace(held);
    }

    /// COMMITs that were answered into the void, and COMMITs that never arrived.
    pub fn lost(&self) -> (u32, u32) {
        (self.state.lost_answers.load(Ordering::SeqCst), self.state.lost_commits.load(Ordering::SeqCst))
    }
}

impl GateState {
    async fn carry(&self, mut client: TcpStream) -> std::io::Result<()> {
        let mut road = self.road.subscribe();
        let (_, cuts) = *road.borrow_and_update();
        if road.borrow().0 == Road::Stalled {
            // It was taken by nobody: also later there is no answer to it.
            let mut nothing = [0; 64];
            while client.read(&mut nothing).await? > 0 {}
            return Ok(());
        }
        if road.borrow().0 == Road::Cut {
            return Ok(());
        }
        let mut postgres = TcpStream::connect(self.postgres).await?;
        client.set_nodelay(true)?;
        postgres.set_nodelay(true)?;
        let mut said = Said::default();
        let (mut up, mut down) = (vec![0; 16 * 1024], vec![0; 16 * 1024]);
        loop {
            let (now, latest) = *road.borrow_and_update();
            if latest != cuts {
                return Ok(());
            }
            let moves = now != Road::Stalled;
            tokio::select! {
                changed = road.changed() => if changed.is_err() { return Ok(()) },
                read = client.read(&mut up), if moves => {
                    let size = read?;
                    if size == 0 {
                        return Ok(());
                    }
                    late(now).await;
                    said.hear(&up[..size]);
                    while let Some(message) = said.next() {
                        if contains(&message, b"SERIALIZABLE READ WRITE") {
                            let _ = self.held.subscribe().wait_for(|held| !held).await;
                        }
                        match self.fate_of(&message) {
                            None => postgres.write_all(&message).await?,
                            Some(Fate::NeverArrives) => {
                                self.lost_commits.fetch_add(1, Ordering::SeqCst);
                                return Ok(());
                            }
                            Some(Fate::Stuck) => {
                                self.road.send_modify(|(road, _)| *road = Road::Stalled);
                                // Until the road is open again, or broken.
                                let _ = road.wait_for(|(road, _)| *road != Road::Stalled).await;
                                if road.borrow().1 != cuts {
                                    return Ok(());
                                }
                                postgres.write_all(&message).await?;
                            }
                            Some(Fate::AnswerLost) => {
                                postgres.write_all(&message).await?;
                                if answered(&mut postgres).await {
                                    self.lost_answers.fetch_add(1, Ordering::SeqCst);
                                }
                                return Ok(());
                            }
                        }
                    }
                }
                read = postgres.read(&mut down), if moves => {
                    let size = read?;
                    if size == 0 {
                        return Ok(());
                    }
                    late(now).await;
                    client.write_all(&down[..size]).await?;
                }
            }
        }
    }

    fn fate_of(&self, message: &[u8]) -> Option<Fate> {
        // A simple query: Q, length, text, 0.
        let text = message.get(5..).filter(|_| message[0] == b'Q')?;
        if !text.get(..6).is_some_and(|word| word.eq_ignore_ascii_case(b"COMMIT")) {
            return None;
        }
        if let Some(fate) = locked(&self.next).take() {
            return Some(fate);
        }
        let chance = u32::from(u16::from_be_bytes(random_bytes::<2>().unwrap()));
        let met = chance % 1_000 < self.unlucky.load(Ordering::SeqCst);
        met.then_some(if chance / 1_000 % 2 == 0 { Fate::AnswerLost } else { Fate::NeverArrives })
    }
}

async fn late(road: Road) {
    if let Road::Slow(by) = road {
        tokio::time::sleep(by).await;
    }
}

/// Waits until PostgreSQL has answered; whether it has committed.
async fn answered(postgres: &mut TcpStream) -> bool {
    /// `ReadyForQuery`, outside of a transaction.
    const READY: [u8; 6] = [b'Z', 0, 0, 0, 5, b'I'];
    let mut all = Vec::new();
    let mut piece = [0; 1024];
    while !all.ends_with(&READY) {
        match tokio::time::timeout(COMMIT_TAKES, postgres.read(&mut piece)).await {
            Ok(Ok(size)) if size > 0 => all.extend_from_slice(&piece[..size]),
            _ => return false,
        }
    }
    contains(&all, b"COMMIT\0")
}

fn contains(bytes: &[u8], word: &[u8]) -> bool {
    bytes.windows(word.len()).any(|piece| piece == word)
}

/// What a client says, message by message.
#[derive(Default)]
struct Said {
    bytes: Vec<u8>,
    /// The first message, which has no type, was said.
    begun: bool,
}

impl Said {
    fn hear(&mut self, bytes: &[u8]) {
        self.bytes.extend_from_slice(bytes);
    }

    /// The next whole message.
    fn next(&mut self) -> Option<Vec<u8>> {
        let word = |at: usize| Some(u32::from_be_bytes(self.bytes.get(at..at + 4)?.try_into().ok()?));
        let size = if self.begun { 1 + word(1)? as usize } else { word(0)? as usize };
        if self.bytes.len() < size {
            return None;
        }
        if !self.begun {
            self.begun = ![Some(SSL_REQUEST), Some(GSS_REQUEST)].contains(&word(4));
        }
        Some(self.bytes.drain(..size).collect())
    }
}

fn locked<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
