//! The two kinds of position, as two types.
//!
//! A [`LogOffset`] counts bytes in the commit log, a [`QueueOffset`] counts messages in one queue. On disk both are
//! signed 64-bit numbers that are never negative, so a value here is at most `i64::MAX`.

use std::fmt;
use std::ops::{Add, Sub};
use std::sync::atomic::{AtomicU64, Ordering};

/// Defines one kind of position: the two share their arithmetic and must never mix.
macro_rules! position {
    ($(#[$doc:meta])* $name:ident) => {
        $(#[$doc])*
        #[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
        pub struct $name(u64);

        impl $name {
            /// The first position.
            pub const ZERO: Self = Self(0);
            /// The largest position the files can hold.
            pub const MAX: Self = Self(i64::MAX as u64);

            /// Makes a position from its number.
            #[must_use]
            pub const fn new(value: u64) -> Self {
                Self(value)
            }

            /// Returns the number.
            #[must_use]
            pub const fn get(self) -> u64 {
                self.0
            }
        }

        impl Add<u64> for $name {
            type Output = Self;

            fn add(self, distance: u64) -> Self {
                Self(self.0 + distance)
            }
        }

        impl Sub for $name {
            type Output = u64;

            fn sub(self, other: Self) -> u64 {
                self.0 - other.0
            }
        }

        impl From<u64> for $name {
            fn from(value: u64) -> Self {
                Self(value)
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
                self.0.fmt(formatter)
            }
        }
    };
}

position! {
    /// A position in the commit log, in bytes from the log's first byte ever written.
    ///
    /// # Examples
    ///
    /// ```
    /// use mqlog::LogOffset;
    /// let start = LogOffset::new(4096);
    /// assert_eq!((start + 91) - start, 91);
    /// ```
    #[doc(alias = "physical offset")]
    #[doc(alias = "phyOffset")]
    LogOffset
}

position! {
    /// A position in one queue, in messages from the queue's first message ever put.
    ///
    /// # Examples
    ///
    /// ```
    /// use mqlog::QueueOffset;
    /// assert!(QueueOffset::new(3) < QueueOffset::new(3) + 1);
    /// ```
    #[doc(alias = "cqOffset")]
    #[doc(alias = "logic offset")]
    QueueOffset
}

/// The queue offset that a queue's next message will get.
///
/// It is moved only by the commit log, under its lock and after space for the record is certain: so the order of a
/// queue is the order of the log, and no two messages share an offset. Anybody may read it.
///
/// Whoever uses a log without a store keeps the cursors: after an opening one begins behind the last record of its queue,
/// which a scan of the log finds.
///
/// # Examples
///
/// ```
/// use mqlog::{QueueCursor, QueueOffset};
/// let cursor = QueueCursor::new(QueueOffset::new(7));
/// assert_eq!(cursor.next(), QueueOffset::new(7));
/// ```
#[derive(Debug, Default)]
pub struct QueueCursor(AtomicU64);

impl QueueCursor {
    /// Makes a cursor whose next message gets `next`.
    #[must_use]
    pub const fn new(next: QueueOffset) -> Self {
        Self(AtomicU64::new(next.get()))
    }

    /// Returns the offset of the next message: the number of messages the queue ever had.
    #[must_use]
    pub fn next(&self) -> QueueOffset {
        QueueOffset::new(self.0.load(Ordering::Acquire))
    }

    /// Moves the cursor; the caller holds the log lock, or nobody appends yet.
    pub(crate) fn set(&self, next: QueueOffset) {
        self.0.store(next.get(), Ordering::Release);
    }
}
