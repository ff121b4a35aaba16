//! A client that keeps many sends in flight: for tests, and to measure a broker, this one or RocketMQ's.

use std::io::{self, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::thread;
use std::time::{Duration, Instant};

/// A broker that says nothing for this long has lost the connection.
const SILENCE: Duration = Duration::from_secs(20);
/// The first bytes of every body are the message's number.
const NUMBER_BYTES: usize = 8;

/// Many sends in flight on one connection.
#[derive(Debug, Clone)]
pub(crate) struct Pipeline<'a> {
    pub(crate) address: SocketAddr,
    pub(crate) topic: &'a str,
    /// How many queues are sent to, in turn.
    pub(crate) queues: u32,
    pub(crate) window: u64,
    pub(crate) body_bytes: usize,
    /// Nothing more is sent from then on.
    pub(crate) until: Option<Instant>,
}

/// What came of them.
#[derive(Debug, Default)]
pub(crate) struct Sent {
    /// For each acknowledged message its number, queue and queue offset.
    pub(crate) acknowledged: Vec<(u64, i64, i64)>,
    /// How many were answered with something else than success.
    pub(crate) refused: u64,
    /// The connection, or one of several, was not there or ended before everything was answered.
    pub(crate) is_lost: bool,
}

impl Pipeline<'_> {
    /// Sends messages from a number on until `count` are answered, or the time is over and all that were sent are
    /// answered, or the connection ends.
    pub(crate) fn run(&self, from: u64, count: u64) -> Sent {
        let mut sent = Sent::default();
        let stream = TcpStream::connect_timeout(&self.address, SILENCE);
        let outcome = stream.and_then(|stream| self.send_all(stream, from, count, &mut sent));
        sent.is_lost = outcome.is_err();
        sent
    }

    /// The same on several connections at once, each with a share of the messages.
    pub(crate) fn run_on(&self, connections: u64, from: u64, count: u64) -> Sent {
        let share = |connection| {
            let (begin, end) = (count * connection / connections, count * (connection + 1) / connections);
            self.run(from + begin, end - begin)
        };
        thread::scope(|scope| {
            let running: Vec<_> = (0..connections).map(|connection| scope.spawn(move || share(connection))).collect();
            let mut all = Sent::default();
            for sent in running.into_iter().map(|thread| thread.join().expect("a sender does not panic")) {
                all.acknowledged.extend(sent.acknowledged);
                all.refused += sent.refused;
                all.is_lost |= sent.is_lost;
            }
            all
        })
    }

    fn send_all(&self, mut stream: TcpStream, from: u64, count: u64, sent: &mut Sent) -> io::Result<()> {
        stream.set_nodelay(true)?;
        stream.set_read_timeout(Some(SILENCE))?;
        let (mut next, mut answered, mut count) = (0, 0, count);
        let (mut output, mut input, mut chunk) = (Vec::new(), Vec::new(), vec![0; 64 * 1024]);
        while answered < count {
            if self.until.is_some_and(|until| Instant::now() >= until) {
                count = next;
            }
            output.clear();
            while next < count && next < answered + self.window {
                self.push_send(&mut output, from + next, next);
                next += 1;
            }
            stream.write_all(&output)?;
            if answered == count {
                break;
            }
            let read = stream.read(&mut chunk)?;
            if read == 0 {
                return Err(io::ErrorKind::UnexpectedEof.into());
            }
            input.extend_from_slice(&chunk[..read]);
            let mut at = 0;
            while let Some(length) = input[at..].first_chunk().map(|length| 4 + u32::from_be_bytes(*length) as usize)
                && let Some(frame) = input.get(at..at + length)
            {
                at += length;
                answered += 1;
                sent.take(from, frame);
            }
            input.drain(..at);
        }
        Ok(())
    }

    fn push_send(&self, output: &mut Vec<u8>, number: u64, opaque: u64) {
        let queue = number % u64::from(self.queues);
        let body_bytes = self.body_bytes.max(NUMBER_BYTES);
        let begin = output.len();
        output.extend([0; 8]);
        write!(
            output,
            "{{\"code\":310,\"extFields\":{{\"a\":\"producers\",\"b\":\"{}\",\"c\":\"TBW102\",\"d\":\"4\",\"e\":\"{queue}\",\
             \"f\":\"0\",\"g\":\"1720000000000\",\"h\":\"0\",\"i\":\"UNIQ_KEY\\u0001{number:032X}\\u0002WAIT\\u0001true\",\
             \"j\":\"0\",\"k\":\"false\",\"m\":\"false\",\"n\":\"broker-a\"}},\"flag\":0,\"language\":\"JAVA\",\
             \"opaque\":{opaque},\"serializeTypeCurrentRPC\":\"JSON\",\"version\":479}}",
            self.topic
        )
        .expect("memory takes everything");
        let header_bytes = (output.len() - begin - 8) as u32;
        output[begin..begin + 4].copy_from_slice(&(4 + header_bytes + body_bytes as u32).to_be_bytes());
        output[begin + 4..begin + 8].copy_from_slice(&header_bytes.to_be_bytes());
        output.extend(number.to_be_bytes());
        output.resize(output.len() + body_bytes - NUMBER_BYTES, b'x');
    }
}

impl Sent {
    /// Counts an answer. Not by way of JSON: measuring a broker must not measure this client.
    fn take(&mut self, from: u64, frame: &[u8]) {
        let text = frame.get(8..).and_then(|text| str::from_utf8(text).ok()).unwrap_or_default();
        let after = |name: &str| {
            let rest = &text[text.find(name)? + name.len()..];
            let rest = rest.trim_start_matches(['"', ':']);
            let end = rest.find(|character: char| !character.is_ascii_digit())?;
            rest[..end].parse::<u64>().ok()
        };
        match (after("\"code\""), after("\"opaque\""), after("\"queueId\""), after("\"queueOffset\"")) {
            (Some(0), Some(opaque), Some(queue), Some(offset)) => {
                self.acknowledged.push((from + opaque, queue.cast_signed(), offset.cast_signed()));
            }
            _ => self.refused += 1,
        }
    }
}
