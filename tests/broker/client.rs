//! A small client of RocketMQ's protocol: frames as they are, nothing hidden. It asks and waits, and sends bytes that are
//! no frames.

use std::collections::BTreeMap;
use std::io::{self, Read, Write};
use std::net::{Shutdown, SocketAddr, TcpStream};
use std::time::{Duration, Instant};

use serde_json::{Map, Value, json};

use crate::process::Broker;

/// Nothing takes longer, unless a test says so.
pub(crate) const LIMIT: Duration = Duration::from_secs(20);

/// How a header is written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Form {
    Json,
    Binary,
}

/// A frame that came.
#[derive(Debug, Clone)]
pub(crate) struct Frame {
    pub(crate) code: i64,
    pub(crate) flag: i64,
    pub(crate) opaque: i64,
    pub(crate) remark: String,
    pub(crate) fields: BTreeMap<String, String>,
    pub(crate) body: Vec<u8>,
}

impl Frame {
    fn decode(frame: &[u8]) -> io::Result<Self> {
        let bad = |what: &str| io::Error::new(io::ErrorKind::InvalidData, what.to_owned());
        let header_bytes = be_u32(&frame[4..]) as usize & 0x00FF_FFFF;
        let header = frame.get(8..8 + header_bytes).ok_or_else(|| bad("the header is longer than its frame"))?;
        let header: Value = serde_json::from_slice(header)?;
        let number = |name: &str| header[name].as_i64().ok_or_else(|| bad(name));
        // Go's client needs every value to be a string.
        let text = |value: &Value| value.as_str().map(str::to_owned).ok_or_else(|| bad("a field is no string"));
        let fields = header["extFields"].as_object().into_iter().flatten();
        Ok(Self {
            code: number("code")?,
            flag: number("flag")?,
            opaque: number("opaque")?,
            remark: header["remark"].as_str().unwrap_or_default().to_owned(),
            fields: fields.map(|(name, value)| Ok((name.clone(), text(value)?))).collect::<io::Result<_>>()?,
            body: frame[8 + header_bytes..].to_vec(),
        })
    }

    pub(crate) fn number(&self, name: &str) -> i64 {
        self.fields[name].parse().expect("the field is a number")
    }

    pub(crate) fn json(&self) -> Value {
        serde_json::from_slice(&self.body).expect("the body is JSON")
    }
}

fn be_u32(bytes: &[u8]) -> u32 {
    u32::from_be_bytes(bytes[..4].try_into().expect("four bytes"))
}

/// Puts a frame together.
pub(crate) fn frame(kind: u8, header: &[u8], body: &[u8]) -> Vec<u8> {
    let mut frame = ((4 + header.len() + body.len()) as u32).to_be_bytes().to_vec();
    frame.extend((u32::from(kind) << 24 | header.len() as u32).to_be_bytes());
    frame.extend_from_slice(header);
    frame.extend_from_slice(body);
    frame
}

/// Encodes a request.
pub(crate) fn request(
    form: Form,
    (code, opaque, flag): (i32, i32, i32),
    fields: &[(&str, &str)],
    body: &[u8],
) -> Vec<u8> {
    match form {
        Form::Json => {
            let fields: Map<String, Value> =
                fields.iter().map(|(name, value)| ((*name).to_owned(), json!(value))).collect();
            let header = json!({
                "code": code, "extFields": fields, "flag": flag, "language": "JAVA", "opaque": opaque,
                "serializeTypeCurrentRPC": "JSON", "version": 479,
            });
            frame(0, header.to_string().as_bytes(), body)
        }
        Form::Binary => {
            let mut encoded = Vec::new();
            for (name, value) in fields {
                encoded.extend((name.len() as u16).to_be_bytes());
                encoded.extend_from_slice(name.as_bytes());
                encoded.extend((value.len() as u32).to_be_bytes());
                encoded.extend_from_slice(value.as_bytes());
            }
            let mut header = (code as i16).to_be_bytes().to_vec();
            header.push(0);
            header.extend(479_i16.to_be_bytes());
            header.extend(opaque.to_be_bytes());
            header.extend(flag.to_be_bytes());
            header.extend(0_u32.to_be_bytes());
            header.extend((encoded.len() as u32).to_be_bytes());
            header.extend(encoded);
            frame(1, &header, body)
        }
    }
}

/// One connection.
#[derive(Debug)]
pub(crate) struct Client {
    stream: TcpStream,
    input: Vec<u8>,
    opaque: i32,
    /// Frames that came while another one was waited for.
    early: Vec<Frame>,
    pub(crate) form: Form,
}

impl Broker {
    pub(crate) fn client(&self) -> Client {
        Client::connect(self.address)
    }
}

impl Client {
    pub(crate) fn connect(address: SocketAddr) -> Self {
        let stream = TcpStream::connect_timeout(&address, LIMIT).expect("the broker accepts");
        stream.set_nodelay(true).expect("a socket option");
        Self { stream, input: Vec::new(), opaque: 0, early: Vec::new(), form: Form::Json }
    }

    /// Sends a request and returns its number.
    pub(crate) fn ask(&mut self, code: i32, fields: &[(&str, &str)], body: &[u8]) -> i64 {
        self.opaque += 1;
        let bytes = request(self.form, (code, self.opaque, 0), fields, body);
        self.send_bytes(&bytes).expect("the broker takes the request");
        i64::from(self.opaque)
    }

    pub(crate) fn one_way(&mut self, code: i32, fields: &[(&str, &str)], body: &[u8]) {
        self.opaque += 1;
        let bytes = request(self.form, (code, self.opaque, 2), fields, body);
        self.send_bytes(&bytes).expect("the broker takes the request");
    }

    /// Sends a request and waits for its answer.
    pub(crate) fn call(&mut self, code: i32, fields: &[(&str, &str)], body: &[u8]) -> Frame {
        let opaque = self.ask(code, fields, body);
        self.answer(opaque)
    }

    /// Waits for the answer to a request.
    pub(crate) fn answer(&mut self, opaque: i64) -> Frame {
        self.wait_for(LIMIT, |frame| frame.flag & 1 == 1 && frame.opaque == opaque).expect("an answer comes")
    }

    /// Waits for a frame; others that come before are kept.
    pub(crate) fn wait_for(&mut self, limit: Duration, is_it: impl Fn(&Frame) -> bool) -> Option<Frame> {
        if let Some(at) = self.early.iter().position(&is_it) {
            return Some(self.early.remove(at));
        }
        let deadline = Instant::now() + limit;
        loop {
            let left = deadline.checked_duration_since(Instant::now())?;
            match self.receive(left) {
                Ok(Some(frame)) if is_it(&frame) => return Some(frame),
                Ok(Some(frame)) => self.early.push(frame),
                Ok(None) => return None,
                Err(error) => panic!("the connection: {error}"),
            }
        }
    }

    pub(crate) fn send_bytes(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.stream.write_all(bytes)
    }

    /// Sends until the broker takes nothing more for a while; returns whether it took everything.
    pub(crate) fn try_send(&mut self, bytes: &[u8], limit: Duration) -> bool {
        self.stream.set_write_timeout(Some(limit)).expect("a socket option");
        self.stream.write_all(bytes).is_ok()
    }

    /// Waits for the next frame; `None` when the time is over.
    pub(crate) fn receive(&mut self, limit: Duration) -> io::Result<Option<Frame>> {
        let deadline = Instant::now() + limit;
        let mut chunk = [0; 64 * 1024];
        loop {
            if self.input.len() >= 4 {
                let bytes = 4 + be_u32(&self.input) as usize;
                if self.input.len() >= bytes {
                    let frame = Frame::decode(&self.input[..bytes])?;
                    self.input.drain(..bytes);
                    return Ok(Some(frame));
                }
            }
            let Some(left) = deadline.checked_duration_since(Instant::now()).filter(|left| !left.is_zero()) else {
                return Ok(None);
            };
            self.stream.set_read_timeout(Some(left))?;
            match self.stream.read(&mut chunk) {
                Ok(0) => return Err(io::ErrorKind::UnexpectedEof.into()),
                Ok(count) => self.input.extend_from_slice(&chunk[..count]),
                Err(error) if matches!(error.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::TimedOut) => {}
                Err(error) => return Err(error),
            }
        }
    }

    /// Waits until the broker closes the connection.
    pub(crate) fn is_closed(&mut self, limit: Duration) -> bool {
        let deadline = Instant::now() + limit;
        while let Some(left) = deadline.checked_duration_since(Instant::now()) {
            match self.receive(left) {
                Ok(_) => {}
                Err(_) => return true,
            }
        }
        false
    }

    pub(crate) fn finish_writing(&self) {
        // A connection that is gone already has nothing to finish.
        let _ = self.stream.shutdown(Shutdown::Write);
    }
}

/// The typed header of a send in its second form.
pub(crate) fn send_fields<'a>(topic: &'a str, queue_id: &'a str, properties: &'a str) -> Vec<(&'a str, &'a str)> {
    vec![
        ("a", "producers"),
        ("b", topic),
        ("c", "TBW102"),
        ("d", "4"),
        ("e", queue_id),
        ("f", "0"),
        ("g", "1720000000000"),
        ("h", "0"),
        ("i", properties),
        ("j", "0"),
        ("k", "false"),
        ("m", "false"),
        ("n", "broker-a"),
    ]
}

/// The typed header of a pull that brings its subscription along and may wait.
pub(crate) fn pull_fields<'a>(
    topic: &'a str,
    (queue_id, offset): (&'a str, &'a str),
    subscription: &'a str,
    wait_ms: &'a str,
) -> Vec<(&'a str, &'a str)> {
    vec![
        ("consumerGroup", "consumers"),
        ("topic", topic),
        ("queueId", queue_id),
        ("queueOffset", offset),
        ("maxMsgNums", "32"),
        ("sysFlag", "6"),
        ("commitOffset", "0"),
        ("suspendTimeoutMillis", wait_ms),
        ("subscription", subscription),
        ("subVersion", "0"),
    ]
}
