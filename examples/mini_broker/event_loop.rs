//! Event loops: each a thread that reads and writes many connections, none of which can block it.
//!
//! There is a loop for each core, up to four, and a connection stays with its loop. So thousands of connections and
//! held pulls cost memory only, and an idle connection costs little of it. The first loop accepts. What may block, the
//! disk, is waited for elsewhere: sends become durable in the store's flush thread, held pulls wait in `hold`.

use std::collections::HashMap;
use std::io;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicU8, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use mio::net::{TcpListener, TcpStream};
use mio::{Events, Interest, Poll, Token, Waker};

use crate::broker::{Broker, Turn};
use crate::connection::{Connection, Input};
use crate::home::Home;
use crate::input_budget::{FREE_BYTES, InputBudget};
use crate::peer::{OutputBudget, Peer, lock};

/// A connection on which nothing moves for this long is closed, as RocketMQ does; clients send heartbeats.
pub(crate) const MAX_IDLE: Duration = Duration::from_secs(120);
/// A frame whose end has not come by then never ends.
const MAX_FRAME_TIME: Duration = Duration::from_secs(60);
const IDLE_LOOK: Duration = Duration::from_secs(10);
/// After a failed accept, as without a free descriptor.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);
/// How long an ending loop goes on writing.
const LAST_WRITES: Duration = Duration::from_millis(500);

const WAKER: Token = Token(0);
/// The listeners' tokens are below, the connections' from here on.
const FIRST_CONNECTION: usize = 16;

/// Phases of all loops.
const RUNNING: u8 = 0;
/// Nothing more is accepted or read.
const DRAINING: u8 = 1;
const ENDING: u8 = 2;

/// What the loops share.
#[derive(Debug)]
struct Common {
    phase: AtomicU8,
    homes: Vec<Arc<Home>>,
    next_token: AtomicUsize,
    connections: AtomicUsize,
    budget: Arc<InputBudget>,
    output_budget: Arc<OutputBudget>,
}

/// All loops.
pub(crate) struct EventLoops {
    common: Arc<Common>,
    threads: Vec<JoinHandle<()>>,
}

impl EventLoops {
    /// Starts `count` loops, which begin when nobody holds the gate; the first one takes the listeners.
    pub(crate) fn start(
        broker: &Arc<Broker>,
        listeners: Vec<std::net::TcpListener>,
        count: usize,
        gate: &Arc<Mutex<()>>,
    ) -> io::Result<Self> {
        let polls: Vec<Poll> = (0..count).map(|_| Poll::new()).collect::<io::Result<_>>()?;
        let home = |poll: &Poll| Ok(Arc::new(Home::new(Waker::new(poll.registry(), WAKER)?)));
        let common = Arc::new(Common {
            phase: AtomicU8::new(RUNNING),
            homes: polls.iter().map(home).collect::<io::Result<_>>()?,
            next_token: AtomicUsize::new(FIRST_CONNECTION),
            connections: AtomicUsize::new(0),
            budget: Arc::new(InputBudget::new(broker.limits.max_unfinished_bytes)),
            output_budget: Arc::new(OutputBudget::new(broker.limits.max_all_queued_bytes)),
        });
        let mut listeners = Some(listeners);
        let mut threads = Vec::new();
        for (index, poll) in polls.into_iter().enumerate() {
            let event_loop = EventLoop {
                poll,
                home: Arc::clone(&common.homes[index]),
                common: Arc::clone(&common),
                broker: Arc::clone(broker),
                listeners: registered(listeners.take().unwrap_or_default())?,
                accept_again: true,
                admitted: 0,
                connections: HashMap::new(),
                ready: Vec::new(),
                closed: Vec::new(),
                // A turn of one connection reads at most this much.
                scratch: vec![0; FREE_BYTES],
            };
            let thread = thread::Builder::new().name(format!("broker-loop-{index}"));
            let gate = Arc::clone(gate);
            threads.push(thread.spawn(move || {
                drop(lock(&gate));
                event_loop.run();
            })?);
        }
        Ok(Self { common, threads })
    }

    /// Accepts and reads nothing more; answers are still written.
    pub(crate) fn drain(&self) {
        self.enter(DRAINING);
    }

    /// Writes what can be written at once, closes all connections and ends the threads.
    pub(crate) fn end(self) {
        self.enter(ENDING);
        for thread in self.threads {
            // A loop that panicked has closed its connections.
            let _ = thread.join();
        }
    }

    fn enter(&self, phase: u8) {
        self.common.phase.store(phase, Ordering::Release);
        self.common.homes.iter().for_each(|home| home.wake());
    }
}

fn registered(listeners: Vec<std::net::TcpListener>) -> io::Result<Vec<TcpListener>> {
    let to_mio = |listener: std::net::TcpListener| {
        listener.set_nonblocking(true)?;
        Ok(TcpListener::from_std(listener))
    };
    listeners.into_iter().map(to_mio).collect()
}

struct EventLoop {
    poll: Poll,
    home: Arc<Home>,
    common: Arc<Common>,
    broker: Arc<Broker>,
    listeners: Vec<TcpListener>,
    /// There may be somebody to accept.
    accept_again: bool,
    /// How many it gave to the loops in turn.
    admitted: usize,
    connections: HashMap<Token, Connection>,
    /// Connections to serve in the next turn without being told.
    ready: Vec<Token>,
    /// Connections closed in this turn, of which the broker does not know yet.
    closed: Vec<Arc<Peer>>,
    scratch: Vec<u8>,
}

impl EventLoop {
    fn run(mut self) {
        let mut events = Events::with_capacity(1024);
        for (index, listener) in self.listeners.iter_mut().enumerate() {
            if let Err(error) = self.poll.registry().register(listener, Token(index + 1), Interest::READABLE) {
                crate::complain(&format!("a listener cannot be watched: {error}"));
            }
        }
        let mut looked = Instant::now();
        while self.phase() != ENDING {
            self.turn(&mut events);
            if looked.elapsed() >= IDLE_LOOK {
                looked = Instant::now();
                self.close_idle(looked);
            }
            self.part();
        }
        self.write_last(&mut events);
    }

    fn phase(&self) -> u8 {
        self.common.phase.load(Ordering::Acquire)
    }

    /// Waits for something to do, and does it.
    fn turn(&mut self, events: &mut Events) {
        let timeout = if !self.ready.is_empty() {
            Duration::ZERO
        } else if self.accept_again && !self.listeners.is_empty() {
            ACCEPT_PAUSE
        } else {
            IDLE_LOOK
        };
        match self.poll.poll(events, Some(timeout)) {
            Err(error) if error.kind() != io::ErrorKind::Interrupted => {
                crate::complain(&format!("waiting for connections: {error}"));
                thread::sleep(ACCEPT_PAUSE);
            }
            _ => {}
        }
        let mut outputs = Vec::new();
        for event in events.iter() {
            match event.token() {
                WAKER => {}
                Token(listener) if listener < FIRST_CONNECTION => self.accept_again = true,
                token => {
                    if event.is_writable() {
                        outputs.push(token);
                    }
                    if (event.is_readable() || event.is_read_closed() || event.is_error())
                        && let Some(connection) = self.connections.get_mut(&token)
                    {
                        connection.is_readable = true;
                        connection.enlist(&mut self.ready);
                    }
                }
            }
        }
        let mail = self.home.take();
        outputs.extend(mail.outputs);
        if self.phase() == RUNNING {
            mail.accepted.into_iter().for_each(|(stream, address)| self.add(stream, address));
            if self.accept_again {
                self.accept();
            }
        }
        mail.unwanted.into_iter().for_each(|token| self.close(token));
        outputs.into_iter().for_each(|token| self.write(token));
        self.serve();
    }

    fn accept(&mut self) {
        self.accept_again = false;
        for index in 0..self.listeners.len() {
            loop {
                match self.listeners[index].accept() {
                    Ok((stream, address)) => self.admit(stream, address),
                    Err(error) if error.kind() == io::ErrorKind::WouldBlock => break,
                    Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                    Err(error) if error.kind() == io::ErrorKind::ConnectionAborted => {}
                    // There is no descriptor left, for example: later again.
                    Err(_) => {
                        self.accept_again = true;
                        break;
                    }
                }
            }
        }
    }

    /// Gives a new connection to the next loop, unless there are too many.
    fn admit(&mut self, stream: TcpStream, address: SocketAddr) {
        let common = Arc::clone(&self.common);
        if common.connections.fetch_add(1, Ordering::Relaxed) >= self.broker.limits.max_connections {
            common.connections.fetch_sub(1, Ordering::Relaxed);
            return;
        }
        // Answers are small and somebody waits for them. Without it they only come later.
        let _ = stream.set_nodelay(true);
        let home = &common.homes[self.admitted % common.homes.len()];
        self.admitted += 1;
        if Arc::ptr_eq(home, &self.home) {
            self.add(stream, address);
        } else {
            home.has_connection(stream, address);
        }
    }

    fn add(&mut self, mut stream: TcpStream, address: SocketAddr) {
        let token = Token(self.common.next_token.fetch_add(1, Ordering::Relaxed));
        let interest = Interest::READABLE | Interest::WRITABLE;
        if self.poll.registry().register(&mut stream, token, interest).is_err() {
            self.common.connections.fetch_sub(1, Ordering::Relaxed);
            return;
        }
        let limits = &self.broker.limits;
        let address = SocketAddr::new(address.ip().to_canonical(), address.port());
        let (home, all) = (Arc::clone(&self.home), Arc::clone(&self.common.output_budget));
        let peer = Peer::new((token, address), home, limits.max_queued_bytes, all);
        let budget = Arc::clone(&self.common.budget);
        let connection = Connection::new(stream, Arc::new(peer), budget, limits.max_frame_bytes);
        self.connections.insert(token, connection);
    }

    /// Reads once from each connection that is ready, and answers.
    fn serve(&mut self) {
        if self.phase() != RUNNING {
            self.ready.clear();
            return;
        }
        let mut turn = Turn::default();
        let ready = std::mem::take(&mut self.ready);
        for &token in &ready {
            let Some(connection) = self.connections.get_mut(&token) else { continue };
            connection.is_enlisted = false;
            let peer = Arc::clone(&connection.peer);
            if peer.must_wait() {
                // It comes back when enough is written, durable, or appended.
                connection.excuse();
                continue;
            }
            peer.await_output();
            let broker = &self.broker;
            let read = connection.read(&mut self.scratch, |request| broker.handle(&request, &peer, &mut turn));
            match read {
                Ok(Input::Some) => {}
                Ok(Input::Nothing) => connection.is_readable = false,
                // A bad frame, or a lost connection; nobody is left who could be told.
                Ok(Input::End) | Err(_) => self.close(token),
            }
        }
        turn.end(&self.broker);
        ready.into_iter().for_each(|token| self.write(token));
    }

    /// Writes what was left for a connection; goes on with what waited for that.
    fn write(&mut self, token: Token) {
        let Some(connection) = self.connections.get_mut(&token) else { return };
        if connection.write().is_err() {
            return self.close(token);
        }
        if !connection.peer.is_full() {
            self.broker.holds.unpark(&connection.peer);
        }
        if connection.has_input() && !connection.peer.must_wait() {
            connection.enlist(&mut self.ready);
        }
    }

    fn close(&mut self, token: Token) {
        let Some(mut connection) = self.connections.remove(&token) else { return };
        // Dropping it would do, but for systems whose polls keep what they watch.
        let _ = self.poll.registry().deregister(&mut connection.stream);
        let peer = Arc::clone(&connection.peer);
        drop(connection);
        self.common.connections.fetch_sub(1, Ordering::Relaxed);
        self.closed.push(peer);
    }

    /// Tells the broker who is gone: of a group that many left in one turn, the others hear once.
    fn part(&mut self) {
        if !self.closed.is_empty() {
            self.broker.disconnected(&std::mem::take(&mut self.closed));
        }
    }

    fn close_idle(&mut self, now: Instant) {
        let dead =
            self.connections.iter().filter(|(_, connection)| connection.is_dead(now, (MAX_IDLE, MAX_FRAME_TIME)));
        let dead: Vec<Token> = dead.map(|(token, _)| *token).collect();
        dead.into_iter().for_each(|token| self.close(token));
    }

    fn write_last(&mut self, events: &mut Events) {
        let deadline = Instant::now() + LAST_WRITES;
        let mut left: Vec<Token> = self.connections.keys().copied().collect();
        loop {
            left.retain(|token| self.connections.get_mut(token).is_some_and(|last| matches!(last.write(), Ok(false))));
            let Some(time) = deadline.checked_duration_since(Instant::now()).filter(|_| !left.is_empty()) else {
                return;
            };
            if self.poll.poll(events, Some(time)).is_err() {
                return;
            }
        }
    }
}
