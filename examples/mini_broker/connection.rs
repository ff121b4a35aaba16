//! One connection as its event loop has it: bytes in become requests, answers become bytes out.

use std::collections::VecDeque;
use std::io::{self, IoSlice, Read, Write};
use std::sync::Arc;
use std::time::{Duration, Instant};

use mio::Token;
use mio::net::TcpStream;

use crate::broker::Handled;
use crate::frame::{FrameError, decode, frame_bytes};
use crate::input_budget::{FREE_BYTES, InputBudget};
use crate::peer::{Peer, Piece};
use crate::request::Request;

/// Pieces that are written at once.
const PIECES: usize = 64;

/// What a read found.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Input {
    /// There may be more.
    Some,
    /// Nothing now.
    Nothing,
    /// Nothing any more.
    End,
}

/// See the head of the file.
pub(crate) struct Connection {
    pub(crate) stream: TcpStream,
    pub(crate) peer: Arc<Peer>,
    budget: Arc<InputBudget>,
    max_frame_bytes: usize,
    /// Input that is left: the beginning of a frame whose rest has not come yet, or what waits until the peer has read
    /// its answers. An idle connection holds no memory for input.
    left: Vec<u8>,
    /// What is left waits for the peer; nothing is read meanwhile.
    is_paused: bool,
    /// When the unfinished frame began: somebody else may need its share of the memory.
    begun: Option<Instant>,
    /// Since when the next request has waited.
    waits_since: Option<Instant>,
    output: VecDeque<Piece>,
    /// How much of the first piece is written.
    written: usize,
    /// There may be something to read. The poll tells of changes only.
    pub(crate) is_readable: bool,
    /// The loop has it on its list for the next turn.
    pub(crate) is_enlisted: bool,
    /// Something came or went then.
    pub(crate) moved: Instant,
}

impl Connection {
    pub(crate) fn new(stream: TcpStream, peer: Arc<Peer>, budget: Arc<InputBudget>, max_frame_bytes: usize) -> Self {
        let (left, output, moved) = (Vec::new(), VecDeque::new(), Instant::now());
        Self {
            stream,
            peer,
            budget,
            max_frame_bytes,
            left,
            is_paused: false,
            begun: None,
            waits_since: None,
            output,
            written: 0,
            is_readable: false,
            is_enlisted: false,
            moved,
        }
    }

    /// Puts it on the list of the next turn, once.
    pub(crate) fn enlist(&mut self, ready: &mut Vec<Token>) {
        if !std::mem::replace(&mut self.is_enlisted, true) {
            ready.push(self.peer.token);
        }
    }

    /// May there be something to do for it?
    pub(crate) fn has_input(&self) -> bool {
        self.is_readable || self.is_paused
    }

    /// Reads once, or goes on with what was left, and hands out the requests that are whole, as long as the peer reads
    /// its answers.
    pub(crate) fn read(
        &mut self,
        scratch: &mut [u8],
        mut handle: impl FnMut(Request<'_>) -> Handled,
    ) -> io::Result<Input> {
        if std::mem::take(&mut self.is_paused) {
            self.moved = Instant::now();
            let input = self.take_left();
            return self.take_in(&input, &mut handle).map(|()| Input::Some);
        }
        let count = match self.stream.read(scratch) {
            Ok(0) => return Ok(Input::End),
            Ok(count) => count,
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(Input::Nothing),
            Err(error) if error.kind() == io::ErrorKind::Interrupted => return Ok(Input::Some),
            Err(error) => return Err(error),
        };
        self.moved = Instant::now();
        self.take_in(&scratch[..count], &mut handle)?;
        Ok(Input::Some)
    }

    /// Cuts input into frames. A frame that is whole in the input is not copied.
    fn take_in(&mut self, mut input: &[u8], handle: &mut impl FnMut(Request<'_>) -> Handled) -> io::Result<()> {
        let bad = |error: FrameError| io::Error::new(io::ErrorKind::InvalidData, error.to_string());
        while !input.is_empty() {
            if self.left.is_empty() {
                if self.peer.must_wait() {
                    return self.pause(input);
                }
                if let Some(bytes) = frame_bytes(input, self.max_frame_bytes).map_err(bad)?
                    && let Some((frame, rest)) = input.split_at_checked(bytes)
                {
                    if handle(decode(frame).map_err(bad)?) == Handled::Done {
                        (input, self.waits_since) = (rest, None);
                    }
                    continue;
                }
            }
            // First the four bytes of the length, then as much as it says.
            let whole = frame_bytes(&self.left, self.max_frame_bytes).map_err(bad)?;
            let missing = whole.unwrap_or(4) - self.left.len();
            let (more, rest) = input.split_at(missing.min(input.len()));
            self.begun.get_or_insert(self.moved);
            self.keep(more)?;
            input = rest;
            if whole.is_some() && more.len() == missing {
                let frame = self.take_left();
                if handle(decode(&frame).map_err(bad)?) == Handled::NotYet {
                    self.left = frame;
                    return self.pause(input);
                }
                self.waits_since = None;
            } else if more.len() == missing {
                // The length is known now; refuse it before anything else is kept.
                frame_bytes(&self.left, self.max_frame_bytes).map_err(bad)?;
            }
        }
        Ok(())
    }

    /// Keeps the rest of the input until the peer need not wait any more.
    fn pause(&mut self, input: &[u8]) -> io::Result<()> {
        self.is_paused = true;
        self.waits_since.get_or_insert(self.moved);
        self.keep(input)
    }

    /// Keeps input, if the memory of all is not used up by it.
    fn keep(&mut self, input: &[u8]) -> io::Result<()> {
        let begun = self.waits_since.or(self.begun).unwrap_or(self.moved);
        if !self.budget.hold(&self.peer, begun, self.left.len() + input.len()) {
            return Err(io::Error::new(io::ErrorKind::OutOfMemory, "too many unfinished frames"));
        }
        self.left.extend_from_slice(input);
        Ok(())
    }

    fn take_left(&mut self) -> Vec<u8> {
        let left = std::mem::take(&mut self.left);
        self.begun = None;
        if left.len() > FREE_BYTES {
            self.budget.release(&self.peer);
        }
        left
    }

    /// Is there nothing to be expected from it any more: nothing moves, or a frame takes too long?
    pub(crate) fn is_dead(&self, now: Instant, (max_idle, max_frame): (Duration, Duration)) -> bool {
        let is_late = |begun| now.saturating_duration_since(begun) > max_frame && !self.peer.must_wait();
        now.saturating_duration_since(self.moved) > max_idle || self.begun.is_some_and(is_late)
    }

    /// Nothing is read from it now, so its frame takes no time.
    pub(crate) fn excuse(&mut self) {
        self.begun = self.begun.map(|_| Instant::now());
    }

    /// Writes what was left for the peer, as far as the socket takes it. Returns whether all is written.
    pub(crate) fn write(&mut self) -> io::Result<bool> {
        loop {
            self.peer.take_output(&mut self.output);
            if self.output.is_empty() {
                return Ok(true);
            }
            let slices: Vec<IoSlice<'_>> = self
                .output
                .iter()
                .take(PIECES)
                .enumerate()
                .map(|(index, piece)| {
                    let skipped = if index == 0 { self.written } else { 0 };
                    IoSlice::new(&piece.as_ref()[skipped..])
                })
                .collect();
            match self.stream.write_vectored(&slices) {
                Ok(0) => return Err(io::ErrorKind::WriteZero.into()),
                Ok(count) => self.advance(count),
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(false),
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
    }

    fn advance(&mut self, count: usize) {
        self.moved = Instant::now();
        self.written += count;
        while let Some(first) = self.output.front().map(|piece| piece.as_ref().len())
            && self.written >= first
        {
            self.written -= first;
            self.output.pop_front();
            // Not before: as long as a byte of it is not written, all of it is in memory.
            self.peer.has_written(first);
        }
    }
}

impl Drop for Connection {
    fn drop(&mut self) {
        self.budget.release(&self.peer);
        self.peer.close();
    }
}
