//! The façade: everything below, owned and tied together. It is the only reader of [`StoreOptions`].
//!
//! [`StoreOptions`]: crate::StoreOptions

mod durable;
mod get;
mod open;
mod query;
mod queue;
mod report;
mod retain;
mod sizes;
mod tasks;
mod verify;

use std::borrow::Borrow;
use std::cell::Cell;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, OnceLock};
use std::time::{Duration, Instant};

use crossbeam_channel::Receiver;

use crate::checkpointer::Checkpointer;
use crate::clock::Clock;
use crate::commit_log::{Appended, Buffers, CommitLog, Cursors, LogScan, Unit, check_batch, light_queues};
use crate::consume_queue::{ConsumeQueue, QueueTable};
use crate::dispatch::{Dispatcher, light_queue_id};
use crate::drive::Task;
use crate::error::{Error, Result};
use crate::flush::FlushService;
use crate::format::message_id::{MessageIdError, OffsetMessageId};
use crate::format::record::SysFlag;
use crate::index_file::IndexSet;
use crate::message::{Message, MessageLimits};
use crate::offset::{LogOffset, QueueCursor, QueueOffset};
use crate::side::{SideFolder, StoreFormat};
use crate::view::MessageView;

pub use get::{GetLimits, GetResult, GetStatus, TagFilter};
pub use query::Query;
pub use queue::{QueueHandle, QueueIter};
pub use report::{RecoveryReport, Stats};
pub use verify::VerifyReport;

/// Above this much that is not dispatched, a put dispatches too.
const MAX_LAG_BYTES: u64 = 64 << 20;
/// A waiting reader does the background work this often where nobody else does.
const MANUAL_LOOK: Duration = Duration::from_millis(5);

thread_local! {
    /// Encoded messages are made in the same memory again and again.
    static BUFFERS: Cell<Buffers> = Cell::default();
}

/// A message store: RocketMQ's files in a folder, with one call to open, put, get and query.
///
/// Cheap to share by reference or [`Arc`]; all methods take `&self`. Dropping the last one closes it as
/// [`close`](Self::close) does, without telling of errors.
///
/// # Examples
/// ```
/// use mqlog::{FlushPolicy, Message, MessageStore, StoreOptions};
/// # let dir = tempfile::tempdir()?;
/// let store = MessageStore::open(StoreOptions::new(dir.path()).flush(FlushPolicy::Sync))?;
/// let put = store.put(Message::new("orders").tags("paid").key("o-17").body(b"42"))?;
/// for message in store.queue("orders", 0).iter_from(put.queue_offset) {
///     assert_eq!(message?.body(), b"42");
/// }
/// for message in store.query("orders", "o-17", ..)? {
///     assert_eq!(message?.tags().as_deref(), Some("paid"));
/// }
/// store.close()?;
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Debug)]
pub struct MessageStore {
    shared: Arc<Shared>,
    report: RecoveryReport,
}

/// The background work, once it has begun; dispatch is the first.
type Tasks = Arc<OnceLock<Vec<Task>>>;

fn wake_dispatch(tasks: &Tasks) {
    tasks.get().and_then(|tasks| tasks.first()).into_iter().for_each(Task::wake);
}

/// What the store and its tasks share.
#[derive(Debug)]
struct Shared {
    log: CommitLog,
    queues: Arc<QueueTable>,
    index: Arc<IndexSet>,
    dispatcher: Arc<Dispatcher>,
    checkpointer: Arc<Checkpointer>,
    flush: FlushService,
    clock: Arc<dyn Clock>,
    side: SideFolder,
    format: StoreFormat,
    read_only: bool,
    limits: MessageLimits,
    host: SocketAddr,
    /// Nobody does the background work but those who wait for it.
    is_manual: bool,
    tasks: Tasks,
    rebuilt: AtomicU64,
    /// Held by whoever deletes, and by whoever must see nothing go.
    deleting: Mutex<()>,
    /// Log files have gone, and the queues' entries of their records not yet.
    is_going: AtomicBool,
    closed: AtomicBool,
}

impl MessageStore {
    /// What opening found and did.
    pub fn recovery_report(&self) -> &RecoveryReport {
        &self.report
    }

    /// Appends a message and returns at once: it has its offsets, but may not be durable, or even readable, yet.
    ///
    /// # Errors
    /// - [`Error::InvalidMessage`] or [`Error::TooLarge`] if the message is not acceptable; nothing was written
    /// - [`Error::DiskFull`] if there is no room; nothing was written, and appends resume when there is
    /// - [`Error::Io`] if the next log file cannot be made; nothing was written, and the next append tries again
    /// - [`Error::Poisoned`] or [`Error::TaskFailed`] if the store stopped after a failure
    /// - [`Error::ReadOnly`] or [`Error::Closed`] if the store takes no appends
    ///
    /// # Examples
    /// ```
    /// use mqlog::{Message, MessageStore, StoreOptions};
    /// # let dir = tempfile::tempdir()?;
    /// let store = MessageStore::open(StoreOptions::new(dir.path()))?;
    /// for body in [b"1", b"2", b"3"] {
    ///     store.append(Message::new("orders").body(body))?;
    /// }
    /// let durable = store.flush()?;
    /// assert_eq!(durable, store.stats().tail);
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn append<'m>(&self, message: impl Borrow<Message<'m>>) -> Result<Appended> {
        let appended = self.shared.append_one(message.borrow(), true)?;
        self.shared.flush.appended();
        Ok(appended)
    }

    /// Puts a message: appends it, and waits until it is durable if the flush policy is
    /// [`Sync`](crate::FlushPolicy::Sync).
    ///
    /// When it has returned, a [`get`](Self::get) sees the message.
    ///
    /// # Errors
    /// Those of [`append`](Self::append). If the wait fails, the message may be there after reopening, or not.
    pub fn put<'m>(&self, message: impl Borrow<Message<'m>>) -> Result<Appended> {
        let appended = self.shared.append_one(message.borrow(), true)?;
        self.settle(appended.end())?;
        Ok(appended)
    }

    /// Puts messages of one topic and queue as one batch: all of them are in the log, next to each other in one file,
    /// or none is. (In an async store a power loss may leave the batch's beginning; in a sync one too, if the batch was
    /// not acknowledged.)
    ///
    /// # Errors
    /// Those of [`put`](Self::put); [`Error::InvalidMessage`] too if the messages differ in topic or queue, or one is
    /// part of a transaction, delayed, an inner batch or for light queues, as in RocketMQ.
    ///
    /// # Examples
    /// ```
    /// use mqlog::{Message, MessageStore, StoreOptions};
    /// # let dir = tempfile::tempdir()?;
    /// let store = MessageStore::open(StoreOptions::new(dir.path()))?;
    /// let batch = [Message::new("orders").body(b"1"), Message::new("orders").body(b"2")];
    /// let put = store.put_batch(&batch)?;
    /// assert_eq!(put[1].log_offset, put[0].end());
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn put_batch(&self, messages: &[Message<'_>]) -> Result<Vec<Appended>> {
        let appended = self.shared.append_all(messages, true)?;
        appended.last().map_or(Ok(()), |last| self.settle(last.end()))?;
        Ok(appended)
    }

    /// Appends messages as [`put_batch`](Self::put_batch) does, and returns at once, as [`append`](Self::append) does.
    ///
    /// # Errors
    /// Those of [`append`](Self::append), and [`Error::InvalidMessage`] as in [`put_batch`](Self::put_batch).
    pub fn append_batch(&self, messages: &[Message<'_>]) -> Result<Vec<Appended>> {
        let appended = self.shared.append_all(messages, true)?;
        self.shared.flush.appended();
        Ok(appended)
    }

    /// Appends a message as [`append`](Self::append) does if there is room for it now: in its group, in blocks, in a file,
    /// below the bounds of what waits for a flush or for dispatch. For a thread that must not wait for the disk, and has
    /// another one that may; the page faults of an async store it may meet.
    ///
    /// # Errors
    /// [`Error::WouldWait`] if there is no room, with nothing written, and those of [`append`](Self::append).
    ///
    /// # Examples
    /// ```
    /// use mqlog::{Error, Message, MessageStore, StoreOptions};
    /// # let dir = tempfile::tempdir()?;
    /// let store = MessageStore::open(StoreOptions::new(dir.path()))?;
    /// let message = Message::new("orders");
    /// assert!(matches!(store.try_append(&message), Err(Error::WouldWait)), "a new store has to make its first log file");
    /// store.append(&message)?;
    /// assert_eq!(store.try_append(&message)?.queue_offset.get(), 1);
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn try_append<'m>(&self, message: impl Borrow<Message<'m>>) -> Result<Appended> {
        let appended = self.shared.append_one(message.borrow(), false)?;
        self.shared.flush.appended();
        Ok(appended)
    }

    /// Appends messages as [`append_batch`](Self::append_batch) does if there is room for them now.
    ///
    /// # Errors
    /// [`Error::WouldWait`] if there is no room, with nothing written, and those of [`append_batch`](Self::append_batch).
    pub fn try_append_batch(&self, messages: &[Message<'_>]) -> Result<Vec<Appended>> {
        let appended = self.shared.append_all(messages, false)?;
        self.shared.flush.appended();
        Ok(appended)
    }

    fn settle(&self, end: LogOffset) -> Result<()> {
        if self.shared.log.is_grouped() {
            return self.shared.flush.wait_durable(end);
        }
        self.shared.flush.appended();
        Ok(())
    }

    /// Reads the record at a log offset, as [`Appended`] gave it.
    ///
    /// # Errors
    /// Those of [`CommitLog::read`].
    pub fn read(&self, offset: LogOffset) -> Result<MessageView> {
        self.shared.log.read(offset)
    }

    /// Reads a message by its offset message id. The host in it is not compared.
    ///
    /// # Errors
    /// [`Error::InvalidMessage`] if the text is no such id, and those of [`CommitLog::read`].
    #[doc(alias = "viewMessage")]
    pub fn read_by_id(&self, id: &str) -> Result<MessageView> {
        let invalid = |error: MessageIdError| Error::InvalidMessage { field: "message id", reason: error.to_string() };
        self.read(LogOffset::new(id.parse::<OffsetMessageId>().map_err(invalid)?.log_offset))
    }

    /// Iterates over the whole log in order, with its damage, from a record's offset on.
    ///
    /// # Examples
    /// ```
    /// use mqlog::{LogOffset, Message, MessageStore, ScanItem, StoreOptions};
    /// # let dir = tempfile::tempdir()?;
    /// let store = MessageStore::open(StoreOptions::new(dir.path()))?;
    /// store.put(Message::new("orders"))?;
    /// let first = store.scan(LogOffset::ZERO).next().expect("there is a record")?;
    /// assert!(matches!(first, ScanItem::Record(record) if record.topic() == "orders"));
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn scan(&self, from: LogOffset) -> LogScan {
        self.shared.log.scan(from)
    }

    /// What may be read of the log.
    pub fn log_range(&self) -> std::ops::Range<LogOffset> {
        self.shared.log.range()
    }

    /// Length of the log's files in bytes.
    pub fn log_file_bytes(&self) -> u64 {
        self.shared.log.file_bytes()
    }

    /// Store time of the first message in the log, in ms since 1970-01-01 UTC; `None` in an empty log.
    ///
    /// # Errors
    /// Those of [`CommitLog::read`].
    pub fn earliest_ms(&self) -> Result<Option<i64>> {
        for item in self.scan(LogOffset::ZERO) {
            if let crate::ScanItem::Record(record) = item? {
                return Ok(Some(record.store_ms()));
            }
        }
        Ok(None)
    }

    /// All topics that have a queue, in order; light queues by their names.
    ///
    /// # Errors
    /// Those of dispatch.
    pub fn topics(&self) -> Result<Vec<String>> {
        let mut topics: Vec<_> = self.queues()?.into_iter().map(|(topic, _)| topic).collect();
        topics.dedup();
        Ok(topics)
    }

    /// All queues by topic and number, in order.
    ///
    /// # Errors
    /// Those of dispatch.
    pub fn queues(&self) -> Result<Vec<(String, i32)>> {
        self.shared.dispatch_for_reading()?;
        Ok(self.shared.used_queues().map(|queue| (queue.topic().to_owned(), queue.queue_id())).collect())
    }

    /// Waits until a queue has the message at `offset`; `false` if the time was over before. Who waits holds the store: to
    /// close it from elsewhere, wait in steps.
    ///
    /// # Errors
    /// Those of dispatch, and [`Error::Poisoned`] if the store stopped.
    ///
    /// # Examples
    /// ```
    /// use mqlog::{Message, MessageStore, QueueOffset, StoreOptions};
    /// # let dir = tempfile::tempdir()?;
    /// use std::time::Duration;
    /// let store = MessageStore::open(StoreOptions::new(dir.path()))?;
    /// assert!(!store.wait("orders", 0, QueueOffset::ZERO, Duration::from_millis(1))?);
    /// std::thread::scope(|scope| {
    ///     scope.spawn(|| store.put(Message::new("orders")));
    ///     store.wait("orders", 0, QueueOffset::ZERO, Duration::from_secs(60)).map(|has| assert!(has))
    /// })?;
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn wait(&self, topic: &str, queue_id: i32, offset: QueueOffset, timeout: Duration) -> Result<bool> {
        let shared = &self.shared;
        let has = || shared.queues.get(topic, queue_id).is_some_and(|queue| queue.range().end > offset);
        let deadline = Instant::now().checked_add(timeout);
        loop {
            shared.dispatch_for_reading()?;
            let look = if shared.is_manual { Instant::now().checked_add(MANUAL_LOOK) } else { None };
            let until = deadline.into_iter().chain(look).min();
            if shared.log.progress().wait_dispatched(has, until) {
                return Ok(true);
            }
            shared.health()?;
            if deadline.is_some_and(|deadline| Instant::now() >= deadline) {
                return Ok(false);
            }
        }
    }

    /// Makes everything appended so far durable, and returns its end.
    ///
    /// # Errors
    /// [`Error::Poisoned`] if a write or sync failed.
    pub fn flush(&self) -> Result<LogOffset> {
        self.shared.flush.flush()
    }

    /// Everything below is durable.
    pub fn durable_offset(&self) -> LogOffset {
        self.shared.flush.durable_offset()
    }

    /// Waits until everything below `end` is durable; makes it so under every policy.
    ///
    /// # Errors
    /// Those of [`FlushService::wait_durable`].
    pub fn wait_durable(&self, end: LogOffset) -> Result<()> {
        self.shared.flush.wait_durable(end)
    }

    /// Calls `callback` once when everything below `end` is durable, or cannot be any more. An `end` above the tail waits
    /// for what will be appended.
    ///
    /// # Examples
    /// ```
    /// use mqlog::{Message, MessageStore, StoreOptions};
    /// # let dir = tempfile::tempdir()?;
    /// let store = MessageStore::open(StoreOptions::new(dir.path()))?;
    /// let appended = store.append(Message::new("orders"))?;
    /// let (sender, receiver) = std::sync::mpsc::channel();
    /// store.on_durable(appended.end(), move |answer| drop(sender.send(answer)));
    /// store.flush()?;
    /// receiver.recv()??;
    /// assert!(store.durable_offset() >= appended.end());
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn on_durable(&self, end: LogOffset, callback: impl FnOnce(Result<()>) + Send + 'static) {
        self.shared.flush.on_durable(end, callback);
    }

    /// Returns a channel that gets one answer: when everything below `end` is durable, or cannot be any more. For a
    /// thread that keeps many messages in flight and waits for whichever is done first.
    ///
    /// # Examples
    /// ```
    /// use mqlog::{FlushPolicy, Message, MessageStore, StoreOptions};
    /// # let dir = tempfile::tempdir()?;
    /// let store = MessageStore::open(StoreOptions::new(dir.path()).flush(FlushPolicy::Sync))?;
    /// let answers: Vec<_> = (0..3)
    ///     .map(|_| store.append(Message::new("orders")).map(|appended| store.durable_receiver(appended.end())))
    ///     .collect::<Result<_, _>>()?;
    /// for answer in answers {
    ///     answer.recv()??;
    /// }
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    #[must_use]
    pub fn durable_receiver(&self, end: LogOffset) -> Receiver<Result<()>> {
        let (sender, receiver) = crossbeam_channel::bounded(1);
        // Who no longer wants the answer has dropped the receiver.
        self.on_durable(end, move |answer| drop(sender.send(answer)));
        receiver
    }

    /// Numbers about the store.
    pub fn stats(&self) -> Stats {
        let shared = &self.shared;
        Stats {
            log: shared.log.range(),
            tail: shared.log.tail(),
            durable: shared.log.durable_offset(),
            dispatched: shared.log.progress().dispatched(),
            syncs: shared.flush.syncs(),
            queues: shared.used_queues().count() as u64,
            refused_entries: shared.dispatcher.refused(),
            rebuilt_queues: shared.rebuilt.load(Ordering::Relaxed),
            pinned_bytes: shared.log.pinned_deleted_bytes(),
            clock_jumps: shared.log.clock_jumps(),
            damages: shared.dispatcher.damages(),
        }
    }

    /// Is the store in order? A failed write, or a background task that ended, shows here at once.
    ///
    /// # Errors
    /// The first failure.
    pub fn health(&self) -> Result<()> {
        self.shared.health()
    }
}

impl Shared {
    fn append_one(&self, message: &Message<'_>, may_wait: bool) -> Result<Appended> {
        let mut appended = None;
        self.append(&[message], may_wait, &mut |record| appended = Some(record))?;
        Ok(appended.expect("one message is placed as one record"))
    }

    fn append_all(&self, messages: &[Message<'_>], may_wait: bool) -> Result<Vec<Appended>> {
        let messages: Vec<&Message<'_>> = messages.iter().collect();
        check_batch(&messages, self.limits.max_body_bytes)?;
        let mut appended = Vec::with_capacity(messages.len());
        self.append(&messages, may_wait, &mut |record| appended.push(record))?;
        Ok(appended)
    }

    /// Appends messages of one queue as one unit. `placed` gets each record in order.
    fn append(&self, messages: &[&Message<'_>], may_wait: bool, placed: &mut dyn FnMut(Appended)) -> Result<()> {
        let Some(first) = messages.first() else { return Ok(()) };
        if self.read_only {
            return Err(Error::ReadOnly);
        }
        for message in messages {
            message.check(&self.limits)?;
        }
        self.check_appends()?;
        if may_wait {
            self.flush.wait_for_room()?;
        } else if !self.flush.has_room() || self.lag() > MAX_LAG_BYTES {
            return Err(Error::WouldWait);
        }
        let mut unit = Unit::encode(messages, self.log.encoding(self.host), BUFFERS.take())?;
        let queue = self.queue_for(first)?;
        let light =
            light_queues(first).map(|name| self.queues.get_or_create(name, light_queue_id(name, first.queue_id)));
        let light: Vec<Arc<ConsumeQueue>> = light.collect::<Result<_>>()?;
        for (index, other) in light.iter().enumerate() {
            if Arc::ptr_eq(other, &queue) || light[..index].iter().any(|before| Arc::ptr_eq(before, other)) {
                let reason = format!("it names queue {}/{} twice", other.topic(), other.queue_id());
                return Err(Error::InvalidMessage { field: "INNER_MULTI_DISPATCH", reason });
            }
        }
        light.iter().chain([&queue]).try_for_each(|queue| queue.check_room())?;
        let cursors: Vec<&QueueCursor> = light.iter().map(|queue| queue.cursor()).collect();
        let cursors = Cursors { queue: queue.cursor(), light: &cursors };
        let appended = self.log.append_unit(&mut unit, cursors, may_wait, placed);
        if appended.is_err() {
            drop((queue, light));
            light_queues(first).chain([&*first.topic]).for_each(|topic| self.queues.forget_unused(topic));
            return appended;
        }
        BUFFERS.set(Some(unit.into_buffers()).filter(Buffers::are_small).unwrap_or_default());
        if !self.log.is_grouped() {
            wake_dispatch(&self.tasks);
        }
        if may_wait && self.lag() > MAX_LAG_BYTES {
            self.dispatcher.step(self.log.visible_end())?;
        }
        Ok(())
    }

    /// How much of the log waits for the dispatcher.
    fn lag(&self) -> u64 {
        self.log.visible_end().get().saturating_sub(self.log.progress().dispatched().get())
    }

    /// The queue of a message; an inner batch makes its topic one of batch queues, unless it has others.
    fn queue_for(&self, message: &Message<'_>) -> Result<Arc<ConsumeQueue>> {
        if message.sys_flag.has(SysFlag::INNER_BATCH) {
            self.queues.mark_batch(&message.topic);
            if !self.queues.is_batch(&message.topic) {
                let reason = "the topic has ordinary queues, which take no inner batches".to_owned();
                return Err(Error::InvalidMessage { field: "system flag", reason });
            }
        }
        self.queues.get_or_create(&message.topic, message.queue_id)
    }

    /// Those that have, or had, a message: one may have been made for a message that was refused later.
    fn used_queues(&self) -> impl Iterator<Item = Arc<ConsumeQueue>> {
        self.queues.all().into_iter().filter(|queue| queue.range().end > QueueOffset::ZERO)
    }

    fn check_appends(&self) -> Result<()> {
        if self.closed.load(Ordering::Acquire) {
            return Err(Error::Closed);
        }
        self.health()
    }

    fn health(&self) -> Result<()> {
        self.failures()?;
        // Who prepares log files may wait for space while the one in use has some: an append finds out by itself.
        let mut stalls = self.tasks.get().into_iter().flatten().filter_map(Task::stalled);
        stalls.next().map_or(Ok(()), Err)
    }

    /// What the store does not recover from while it is open.
    fn failures(&self) -> Result<()> {
        self.log.progress().check()?;
        self.flush.check()?;
        self.all_tasks().try_for_each(Task::health)
    }

    fn all_tasks(&self) -> impl Iterator<Item = &Task> {
        self.tasks.get().into_iter().flatten().chain(self.log.preparer())
    }

    /// Dispatches everything that readers may see now.
    fn dispatch_all(&self) -> Result<()> {
        self.dispatcher.catch_up(self.log.visible_end())
    }

    /// As [`dispatch_all`](Self::dispatch_all), but goes on without the newest messages while the disk is full.
    fn dispatch_for_reading(&self) -> Result<()> {
        self.dispatch_all().or_else(|error| if error.may_pass() { Ok(()) } else { Err(error) })
    }

    /// Makes sure that a queue has every entry below its cursor that readers may see, from `from` up to `last`. While
    /// the disk is full, one of them is enough.
    fn dispatch_for(&self, queue: &ConsumeQueue, from: QueueOffset, last: QueueOffset) -> Result<()> {
        let end = self.log.visible_end();
        while queue.range().end <= last && queue.cursor().next() > queue.range().end {
            let at = match self.dispatcher.step(end) {
                Err(error) if error.may_pass() && queue.range().end > from => break,
                at => at?,
            };
            if at >= end {
                break;
            }
        }
        Ok(())
    }
}
