//! Two connected endpoints, any operations and any transport: what one sends the other receives in
//! order, nobody waits for ever, and both know the same about the end (RFC 6455 §5.4, §7).

#![no_main]

use std::time::{Duration, Instant};

use arbitrary::Arbitrary;
use bytes::{Buf, BytesMut};
use libfuzzer_sys::fuzz_target;
use ws_proto::{
    ChaChaKeys, Chunk, CloseCode, CloseFrame, Config, Connection, Event, Message, PreparedMessage,
    ProtocolError, SendError, State, Transmit,
};

#[derive(Arbitrary, Debug)]
struct Step {
    /// Which end does it; the client otherwise.
    server: bool,
    op: Op,
}

#[derive(Arbitrary, Debug)]
enum Op {
    Text(String),
    Binary(Vec<u8>),
    /// Beyond what is copied.
    Large(u8, u16),
    Prepared(String),
    Chunk(String, bool),
    Ping(Vec<u8>),
    Close(u16, String),
    /// The transport takes so many bytes.
    Write(u16),
    /// And gives the other end so many.
    Read(u16),
    /// So many seconds pass for both.
    Time(u8),
}

/// An endpoint and what the transport holds of its bytes.
struct End {
    connection: Connection,
    input: BytesMut,
    wire: Vec<u8>,
    shut_down: bool,
    events: Vec<Event>,
    /// What was accepted: messages, the one under way, and Pings but the keepalive's.
    messages: Vec<Message>,
    begun: Option<String>,
    pings: Vec<Vec<u8>>,
}

fuzz_target!(|steps: Vec<Step>| {
    let mut now = Instant::now();
    let config = Config::default();
    let keys = ChaChaKeys::from_seed([0; 32]);
    let mut client = End::new(Connection::client(&config, keys, now));
    let mut server = End::new(Connection::server(&config, now));
    for Step { server: by_server, op } in steps {
        let (end, other) =
            if by_server { (&mut server, &mut client) } else { (&mut client, &mut server) };
        match op {
            Op::Write(most) => end.write(most.into()),
            Op::Read(most) => end.deliver(other, most.into()),
            Op::Time(seconds) => {
                now += Duration::from_secs(seconds.into());
                end.connection.handle_timeout(now);
                other.connection.handle_timeout(now);
            }
            op => end.apply(op),
        }
    }
    let _ = client.connection.close(CloseCode::NORMAL);
    // Each round moves all there is. More than a few would be a conversation without end.
    for _ in 0..8 {
        client.write(usize::MAX);
        client.deliver(&mut server, usize::MAX);
        server.write(usize::MAX);
        server.deliver(&mut client, usize::MAX);
    }
    // A client that gave the server up has no more to say, and closes its socket.
    if client.connection.state() == State::Draining {
        client.connection.handle_eof();
        server.connection.handle_eof();
        client.take_events();
        server.take_events();
    }
    for (from, to) in [(&client, &server), (&server, &client)] {
        to.assert_heard(from);
        assert_eq!(to.connection.state(), State::Closed);
        assert!(matches!(to.events.last(), Some(Event::Closed(_))));
    }
    let (one, other) = (client.connection.closed(), server.connection.closed());
    if one.cause.is_none() && other.cause.is_none() {
        assert_eq!((&one.received, &one.sent), (&other.sent, &other.received));
        assert!(one.received.is_some() && one.sent.is_some());
        assert!(!(one.received_first && other.received_first));
    }
});

impl End {
    fn new(connection: Connection) -> Self {
        Self {
            connection,
            input: BytesMut::new(),
            wire: Vec::new(),
            shut_down: false,
            events: Vec::new(),
            messages: Vec::new(),
            begun: None,
            pings: Vec::new(),
        }
    }

    /// Does it, and checks that it is refused only for a reason.
    fn apply(&mut self, op: Op) {
        let open = self.connection.state().can_send();
        let may_control = if open { Ok(()) } else { Err(SendError::Closing) };
        let may = may_control.and(match self.begun {
            Some(_) => Err(SendError::MessageUnderWay),
            None => Ok(()),
        });
        match op {
            Op::Text(text) => self.send(text.into(), may),
            Op::Binary(data) => self.send(data.into(), may),
            Op::Large(byte, len) => self.send(vec![byte; len.into()].into(), may),
            Op::Prepared(text) => {
                assert_eq!(self.connection.send_prepared(&PreparedMessage::new(&*text)), may);
                self.messages.extend(may.is_ok().then(|| text.into()));
            }
            Op::Chunk(text, last) => {
                let chunk = Chunk { data: text.clone().into(), last };
                assert_eq!(self.connection.send_chunk(chunk), may_control);
                if open {
                    let text = self.begun.take().unwrap_or_default() + &text;
                    if last {
                        self.messages.push(text.into());
                    } else {
                        self.begun = Some(text);
                    }
                }
            }
            Op::Ping(mut payload) => {
                payload.truncate(125);
                // Not to be mistaken for the keepalive's.
                if payload != b"keepalive" {
                    assert_eq!(self.connection.ping(payload.clone()), may_control);
                    self.pings.extend(open.then_some(payload));
                }
            }
            Op::Close(code, reason) => {
                let frame = CloseCode::new(code)
                    .map_or(CloseFrame::EMPTY, |code| CloseFrame::new(code, reason));
                assert_eq!(self.connection.close(frame), may_control);
            }
            Op::Write(_) | Op::Read(_) | Op::Time(_) => unreachable!("done by the caller"),
        }
    }

    fn send(&mut self, message: Message, may: Result<(), SendError>) {
        assert_eq!(self.connection.send(message.clone()), may);
        self.messages.extend(may.is_ok().then_some(message));
    }

    /// Moves what is owed into the transport.
    fn write(&mut self, mut most: usize) {
        while let Some(transmit) = self.connection.poll_transmit() {
            let Transmit::Data(queue) = transmit else {
                self.shut_down = true;
                continue;
            };
            let len = queue.chunk().len().min(most);
            if len == 0 {
                return;
            }
            self.wire.extend_from_slice(&queue.chunk()[..len]);
            queue.advance(len);
            most -= len;
        }
    }

    /// Moves bytes to the other end, and the end of the stream behind them.
    fn deliver(&mut self, to: &mut Self, most: usize) {
        let len = self.wire.len().min(most);
        to.input.extend(self.wire.drain(..len));
        to.take_events();
        let ended = self.shut_down || self.connection.state() == State::Closed;
        if ended && self.wire.is_empty() {
            to.connection.handle_eof();
            to.take_events();
        }
    }

    fn take_events(&mut self) {
        while let Some(event) = self.connection.poll_event(&mut self.input) {
            self.events.push(event);
        }
    }

    /// All that the other end sent, in order; or the first of it, and a reason.
    fn assert_heard(&self, from: &Self) {
        let (mut messages, mut pings) = (Vec::new(), Vec::new());
        for event in &self.events {
            match event {
                Event::Message(message) => messages.push(message.clone()),
                Event::Ping(payload) if payload != "keepalive" => pings.push(payload.to_vec()),
                _ => {}
            }
        }
        assert!(from.messages.starts_with(&messages), "other messages, or in another order");
        assert!(from.pings.starts_with(&pings), "other Pings, or in another order");
        let causes = [self.connection.closed().cause, from.connection.closed().cause];
        // Neither breaks a rule: only time can part them.
        assert!(causes.iter().flatten().all(|cause| *cause == ProtocolError::KeepaliveTimeout));
        if causes == [None, None] {
            assert_eq!((messages.len(), pings.len()), (from.messages.len(), from.pings.len()));
        }
    }
}
