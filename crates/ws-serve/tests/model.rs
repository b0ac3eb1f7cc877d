//! Topics against a model of them: a random walk of everything that may be done with four topics of
//! different policies and eight clients of different habits (T19).
//!
//! `WS_MODEL_STEPS` says how many steps each walk takes, `WS_MODEL_SEED` which one walk to take.

mod support;

use std::{env, ops::Range};

use support::{
    CLOSE, Exposed, Raw, Running, TEXT, close, eventually, exposed, masked, order, reset_on_drop,
    sender_from, server, within,
};
use tokio::{sync::mpsc::UnboundedReceiver, task::yield_now};
use ws_serve::{CloseCode, Counts, Sender, Server, SlowConsumer, Topic};

#[tokio::test]
async fn on_a_single_threaded_runtime() {
    walk_all(0..20, server).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn on_a_multi_threaded_runtime() {
    walk_all(20..40, server).await;
}

#[tokio::test]
async fn on_workers() {
    walk_all(40..60, || server().workers(2)).await;
}

#[expect(clippy::print_stdout, reason = "shown when a walk fails, to repeat it")]
async fn walk_all(seeds: Range<u64>, server: impl Fn() -> Server) {
    let number = |name| env::var(name).ok().map(|value| value.parse().expect("a number"));
    let steps = number("WS_MODEL_STEPS").unwrap_or(2_000);
    let seeds = number("WS_MODEL_SEED").map_or(seeds, |seed| seed..seed + 1);
    println!("{steps} steps from each of the seeds {seeds:?}");
    let all_of_them = steps >= 2_000 && seeds.end - seeds.start > 1;
    let (mut counts, mut disconnected) = (Counts::default(), 0);
    for seed in seeds {
        println!("seed {seed}");
        let mut walk = Walk::start(seed, server()).await;
        for _ in 0..steps {
            within(walk.step()).await;
        }
        let walked = walk.end().await;
        counts += walked.0;
        disconnected += walked.1;
    }
    println!("{counts:?}, {disconnected} disconnected");
    // Walks that never come across what they are about prove nothing.
    if all_of_them {
        let losses = [counts.dropped_full, counts.dropped_conflated, counts.dropped_closed];
        assert!(losses.iter().all(|count| *count > 500) && disconnected > 50);
        assert!(counts.delivered() > 20_000);
    }
}

const CLIENTS: usize = 8;
/// These read whatever there is, again and again, and must not miss a thing.
const FAST: usize = 3;
/// The ones from here on do not read before the end, so that even the system's buffers are full.
const DEAF: usize = 6;
const NAMES: [&str; 4] = ["strict", "newest", "oldest", "latest"];
const STRICT: usize = 0;
const LATEST: usize = 3;
const KEYS: u64 = 4;
const MAX_QUEUE: usize = 100_000;

struct Walk {
    random: Random,
    running: Running,
    told: UnboundedReceiver<Exposed>,
    topics: [Topic; 4],
    /// How many messages each topic has owed to members, over all.
    owed: [u64; 4],
    clients: Vec<Client>,
    /// The next message's number.
    next: u64,
    steps: usize,
    /// What ended connections had counted.
    counted: Counts,
    /// How many of them were disconnected because they did not keep up.
    disconnected: u64,
}

struct Client {
    /// `None` when it has vanished.
    raw: Option<Raw>,
    sender: Sender,
    /// In the middle of a message in chunks.
    held: bool,
    member: [bool; 4],
    /// The numbers of the messages that were due to it, and their keys, by topic.
    due: [Vec<(u64, Option<u64>)>; 4],
    /// How many of them may not have been served yet.
    unserved: [usize; 4],
    /// The numbers of the messages that it received, by topic.
    heard: [Vec<u64>; 4],
}

#[derive(Clone, Copy, Debug, PartialEq)]
enum End {
    ByPolicy,
    ByClient,
    ByServer,
    Vanish,
}

impl Walk {
    async fn start(seed: u64, server: Server) -> Self {
        let (handler, told) = exposed();
        let running = Running::start(server.max_queue(MAX_QUEUE), handler);
        let topics = NAMES.map(|name| running.topics.get(name));
        topics[1].set_slow_consumer(SlowConsumer::DropNewest);
        topics[2].set_slow_consumer(SlowConsumer::DropOldest);
        topics[LATEST].set_slow_consumer(SlowConsumer::Conflate);
        let mut walk = Self {
            random: Random(seed),
            running,
            told,
            topics,
            owed: [0; 4],
            clients: Vec::new(),
            next: 0,
            steps: 0,
            counted: Counts::default(),
            disconnected: 0,
        };
        for id in 0..CLIENTS {
            let client = Client::open(&walk.running, &mut walk.told, id < FAST).await;
            walk.clients.push(client);
        }
        walk
    }

    async fn step(&mut self) {
        self.steps += 1;
        let (id, topic) = (self.random.below(CLIENTS), self.random.below(NAMES.len()));
        // Most actions may happen while turns are being served, except that a member which might have been
        // disconnected cannot be told to do anything any more.
        if self.clients[id].member[STRICT] || !self.clients[id].sender.is_open() {
            self.settle().await;
            if !self.clients[id].sender.is_open() {
                self.end_client(id, End::ByPolicy).await;
                return;
            }
        }
        match self.random.below(1000) {
            // Those that do not read would not be there for long.
            0..120 if id >= DEAF && topic == STRICT => {}
            0..120 => self.join(id, topic).await,
            120..160 => self.leave(id, topic).await,
            160..500 => self.publish(topic, None, None).await,
            500..650 => {
                let key = self.random.below(KEYS as usize) as u64;
                self.publish(topic, Some(key), None).await;
            }
            650..750 => self.publish(topic, None, Some(id)).await,
            750..752 => self.end_client(id, End::ByClient).await,
            752..754 => self.end_client(id, End::ByServer).await,
            754..756 => self.end_client(id, End::Vanish).await,
            762..800 => self.hold(id).await,
            800..830 => self.release(id).await,
            830..900 if (FAST..DEAF).contains(&id) => {
                let count = self.random.below(200);
                self.clients[id].read(count).await;
            }
            _ => yield_now().await,
        }
        if self.steps.is_multiple_of(8) {
            self.settle().await;
            for client in &mut self.clients[..FAST] {
                client.catch_up().await;
            }
        }
        for client in &self.clients {
            let queued = client.sender.queued();
            assert!(queued <= MAX_QUEUE + LARGEST + 20, "{queued} bytes are queued");
        }
    }

    async fn join(&mut self, id: usize, topic: usize) {
        self.order(id, &format!("+{}", NAMES[topic])).await;
        self.clients[id].member[topic] = true;
    }

    /// What was published before is due, unless a turn is just being served: then it may end early, but
    /// nothing is left out before the end.
    async fn leave(&mut self, id: usize, topic: usize) {
        if self.random.below(2) == 0 {
            self.settle().await;
        }
        for other in (0..NAMES.len()).filter(|other| *other != topic) {
            self.settle_topic(other).await;
        }
        self.order(id, &format!("-{}", NAMES[topic])).await;
        let client = &mut self.clients[id];
        client.member[topic] = false;
        let missing = client.owed() - client.sender.counts().sent;
        assert!(missing <= client.unserved[topic] as u64, "{missing} were not sent");
        let due = &mut client.due[topic];
        due.truncate(due.len() - missing as usize);
        client.unserved[topic] -= missing as usize;
        self.owed[topic] -= missing;
    }

    async fn publish(&mut self, topic: usize, key: Option<u64>, except: Option<usize>) {
        let number = self.next;
        self.next += 1;
        let length = match self.random.below(8) {
            0 => self.random.below(LARGEST),
            _ => self.random.below(2_000),
        };
        let message = format!("{topic}.{number}.{}", "x".repeat(length));
        match (key, except) {
            (_, Some(id)) => self.order(id, &format!("^{}:{message}", NAMES[topic])).await,
            (Some(key), _) => self.topics[topic].publish_keyed(&key.to_string(), message),
            (None, None) => self.topics[topic].publish(message),
        }
        for (id, client) in self.clients.iter_mut().enumerate() {
            if client.member[topic] && except != Some(id) {
                client.due[topic].push((number, key));
                client.unserved[topic] += 1;
                self.owed[topic] += 1;
            }
        }
    }

    /// Fast clients are never held: they would not be fast.
    async fn hold(&mut self, id: usize) {
        // A handler that waits for room does nothing else.
        if id >= FAST && !self.clients[id].held && self.clients[id].sender.queued() < 16 << 10 {
            self.order(id, "(").await;
            self.clients[id].held = true;
        }
    }

    async fn release(&mut self, id: usize) {
        if self.clients[id].held {
            self.order(id, ")").await;
            self.clients[id].held = false;
        }
    }

    async fn order(&mut self, id: usize, script: &str) {
        order(self.clients[id].raw(), &mut self.told, script).await;
    }

    /// Waits until all turns have been served.
    async fn settle(&mut self) {
        for topic in 0..NAMES.len() {
            self.settle_topic(topic).await;
        }
    }

    async fn settle_topic(&mut self, topic: usize) {
        let owed = self.owed[topic];
        eventually(|| self.topics[topic].counts().sent == owed).await;
        self.clients.iter_mut().for_each(|client| client.unserved[topic] = 0);
    }

    /// Ends a connection, holds it against the model, and opens another one.
    async fn end_client(&mut self, id: usize, end: End) {
        self.settle().await;
        // The turn before may have been one too many.
        let end = if self.clients[id].sender.is_open() { end } else { End::ByPolicy };
        if id < FAST {
            self.clients[id].catch_up().await;
        }
        let client = Client::open(&self.running, &mut self.told, id < FAST).await;
        let mut client = std::mem::replace(&mut self.clients[id], client);
        if end == End::ByServer {
            client.sender.close(CloseCode::new(4001).expect("private use"), "by the server");
        }
        client.end(end).await;
        for (topic, members) in self.topics.iter().enumerate() {
            let rest = self.clients.iter().filter(|client| client.member[topic]).count();
            eventually(|| members.len() == rest).await;
        }
        eventually(|| client.sender.counts().waiting == 0).await;
        client.check(id < FAST, end);
        self.disconnected += u64::from(end == End::ByPolicy);
        self.counted += client.sender.counts();
    }

    /// Everybody hears what is left, and all counts are exact.
    async fn end(mut self) -> (Counts, u64) {
        within(self.settle()).await;
        for id in 0..CLIENTS {
            if self.clients[id].sender.is_open() {
                within(self.release(id)).await;
            }
        }
        for id in 0..CLIENTS {
            within(self.end_client(id, End::ByServer)).await;
        }
        let mut of_topics = Counts::default();
        self.topics.iter().for_each(|topic| of_topics += topic.counts());
        assert_eq!(of_topics, self.counted);
        assert_eq!(self.counted.waiting, 0);
        for (topic, owed) in self.topics.iter().zip(self.owed) {
            assert_eq!(topic.counts().sent, owed, "{}", topic.name());
        }
        // The new ones hear what is new.
        self.join(0, 1).await;
        self.publish(1, None, None).await;
        self.settle().await;
        within(self.clients[0].catch_up()).await;
        assert_eq!(self.clients[0].heard(), 1);
        let Self { running, clients, counted, disconnected, .. } = self;
        drop(clients);
        within(running.end()).await;
        (counted, disconnected)
    }
}

impl Client {
    async fn open(running: &Running, told: &mut UnboundedReceiver<Exposed>, fast: bool) -> Self {
        let raw = if fast { running.raw().await } else { Raw::open_narrow(running.address).await };
        let sender = sender_from(told).await;
        let (due, heard) = Default::default();
        let (member, unserved) = Default::default();
        Self { raw: Some(raw), sender, held: false, member, due, unserved, heard }
    }

    fn raw(&mut self) -> &mut Raw {
        self.raw.as_mut().expect("it has not vanished")
    }

    /// How many messages were due to it.
    fn owed(&self) -> u64 {
        self.due.iter().map(|due| due.len() as u64).sum()
    }

    fn heard(&self) -> u64 {
        self.heard.iter().map(|heard| heard.len() as u64).sum()
    }

    /// Reads so many messages, if there are.
    async fn read(&mut self, count: usize) {
        for _ in 0..count {
            if self.heard() == self.sender.counts().delivered() {
                return;
            }
            let (first, payload) = self.raw().frame().await;
            self.hear(first, &payload);
        }
    }

    /// Reads all that was delivered or waits.
    async fn catch_up(&mut self) {
        loop {
            self.read(usize::MAX).await;
            if self.sender.counts().waiting == 0 || self.held {
                return;
            }
            yield_now().await;
        }
    }

    fn hear(&mut self, first: u8, payload: &[u8]) {
        // The chunks are empty.
        if payload.is_empty() {
            return;
        }
        assert_eq!(first, TEXT);
        let text = std::str::from_utf8(payload).expect("text");
        let mut parts = text.split('.').map(|part| part.parse().ok());
        let mut part = || parts.next().flatten().expect("a number");
        let (topic, number) = (part() as usize, part());
        self.heard[topic].push(number);
    }

    async fn end(&mut self, end: End) {
        match end {
            End::Vanish => {
                reset_on_drop(self.raw().0.get_ref());
                self.raw = None;
                return;
            }
            End::ByClient => self.raw().say(masked(CLOSE, close(4002, ""))).await,
            End::ByPolicy | End::ByServer => {}
        }
        let code = loop {
            match self.raw().frame().await {
                (CLOSE, payload) => break u16::from_be_bytes([payload[0], payload[1]]),
                (first, payload) => self.hear(first, &payload),
            }
        };
        let expected = match end {
            End::ByPolicy => 1013,
            End::ByClient => 4002,
            _ => 4001,
        };
        assert_eq!(code, expected);
        if end != End::ByClient {
            self.raw().say(masked(CLOSE, close(code, ""))).await;
        }
        let raw = self.raw.take().expect("it has not vanished");
        assert!(raw.hear_end().await, "ended by a reset");
    }

    /// What it heard is what the model says.
    fn check(&self, fast: bool, end: End) {
        let counts = self.sender.counts();
        assert_eq!(counts.sent, self.owed(), "{end:?}: {counts:?}");
        assert_eq!((counts.waiting, self.sender.queued()), (0, 0));
        assert_eq!(counts.sent, counts.delivered() + counts.dropped());
        for (topic, (due, heard)) in self.due.iter().zip(&self.heard).enumerate() {
            let mut due = due.iter().map(|(number, _)| number);
            // In order, nothing twice, and nothing that is not due.
            let heard_due = heard.iter().all(|number| due.any(|due| due == number));
            assert!(heard_due, "{}: {heard:?} of {:?}", NAMES[topic], self.due[topic]);
        }
        if end != End::Vanish {
            assert_eq!(self.heard(), counts.delivered(), "{end:?}: {counts:?}");
        }
        if fast {
            assert_eq!((counts.dropped(), self.heard()), (0, self.owed()), "{counts:?}");
        }
        match end {
            End::ByPolicy => assert!(counts.dropped_full > 0 && !self.due[STRICT].is_empty()),
            // All that waits goes first, if there may be messages at all.
            End::ByServer if !self.held => {
                assert_eq!(counts.dropped_closed, 0);
                self.check_latest();
            }
            _ => {}
        }
    }

    /// Of each key, the latest value that was due has come, if nothing else got in its way.
    fn check_latest(&self) {
        let due = &self.due[LATEST];
        if self.sender.counts().dropped_full > 0 {
            return;
        }
        for key in (0..KEYS).map(Some).chain([None]) {
            let latest = due.iter().rfind(|(_, of)| *of == key);
            if let Some((latest, _)) = latest {
                assert!(self.heard[LATEST].contains(latest), "{latest} of {key:?} was lost");
            }
        }
    }
}

/// SplitMix64.
struct Random(u64);

impl Random {
    fn below(&mut self, end: usize) -> usize {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        ((mixed ^ (mixed >> 31)) % end as u64) as usize
    }
}

/// The largest message's text.
const LARGEST: usize = 200_000;
