//! A dashboard: a thousand updates a second, drawn live, and what becomes of them when a page is slow.
//!
//! `cargo run --release --example dashboard`, then open the address that it prints in two tabs, and
//! make one of them slow.
#![expect(clippy::print_stdout, reason = "a program that talks to its user")]

use std::{
    net::TcpListener,
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use anyhow::Context;
use clap::Parser;
use serde_json::{Value, json};
use socket2::SockRef;
use tokio::{
    sync::mpsc::{UnboundedReceiver, unbounded_channel},
    time::interval,
};
use ws_serve::{Config, Counts, Error, Lag, Monitor, Page, Server, SlowConsumer, Socket, Topic};

/// A live dashboard of made-up values.
#[derive(Parser)]
struct Options {
    /// Where to listen.
    #[arg(default_value = "127.0.0.1:9001")]
    address: String,
    /// Updates published in a second.
    #[arg(long, default_value_t = 1_000)]
    rate: u32,
    /// Different values that are updated.
    #[arg(long, default_value_t = 20, value_parser = clap::value_parser!(u32).range(1..))]
    keys: u32,
}

#[tokio::main]
async fn main() -> anyhow::Result<()> {
    tracing_subscriber::fmt()
        .with_env_filter(tracing_subscriber::EnvFilter::from_default_env())
        .init();
    let options = Options::parse();
    let listener = TcpListener::bind(&options.address)
        .with_context(|| format!("cannot listen on {}", options.address))?;
    // Connections inherit it. The system's default holds half a minute of these updates, and that
    // is how long one would wait to see anything after making a page slow.
    SockRef::from(&listener).set_send_buffer_size(SEND_BUFFER)?;

    let (tell, lags) = unbounded_channel();
    let server = Server::new()
        .listener(listener)
        .page("/", Page::html(include_str!("page.html")))
        .route("/ws", watch)
        .health("/health")
        .config(Config::default().max_message_size(MAX_MESSAGE))
        // Only the present matters: a page that is behind skips values, and is never sent away.
        .slow_consumer(SlowConsumer::Conflate)
        // It is called where messages are sent, so what is to be done about it is done elsewhere.
        .on_lag(move |lag| drop(tell.send(lag)));
    examples::stop_on_signals(server.shutdown_handle())?;
    let (topics, monitor) = (server.topics(), server.monitor());
    tokio::spawn(produce(topics.get(VALUES), options.rate, options.keys));
    tokio::spawn(report(topics.get(NEWS), monitor, lags));
    let address = server.local_addr().context("it listens on TCP")?;
    println!("open http://{address} in two tabs, and make one of them slow");
    server.run().await?;
    Ok(())
}

/// A page that watches says nothing.
async fn watch(mut socket: Socket) -> Result<(), Error> {
    socket.send(json!({ "type": "you", "id": socket.id() }).to_string()).await?;
    socket.join(VALUES);
    socket.join(NEWS);
    while socket.receive().await?.is_some() {}
    Ok(())
}

/// Publishes values, round about the keys.
async fn produce(values: Topic, rate: u32, keys: u32) {
    let mut ticks = interval(TICK);
    let (mut count, mut due) = (0_u64, 0.0);
    loop {
        ticks.tick().await;
        due += f64::from(rate) * TICK.as_secs_f64();
        while due >= 1.0 {
            due -= 1.0;
            count += 1;
            let key = format!("sensor {:02}", count % u64::from(keys) + 1);
            let update = json!({
                "type": "value", "key": key, "value": value(count, keys), "at": now_ms(),
            });
            // Published to nobody it costs next to nothing, so that need not be asked.
            values.publish_keyed(&key, update.to_string());
        }
    }
}

/// Publishes what the server counts, once a second, and who starts or stops to lag, at once.
async fn report(news: Topic, monitor: Monitor, mut lags: UnboundedReceiver<Lag>) {
    let mut seconds = interval(Duration::from_secs(1));
    loop {
        tokio::select! {
            _ = seconds.tick() => news.publish_keyed("stats", stats(&monitor).to_string()),
            Some(lag) = lags.recv() => {
                let event = json!({
                    "type": "lag", "id": lag.connection, "lagging": lag.lagging,
                    "queued": lag.queued, "counts": counts(lag.counts), "at": now_ms(),
                });
                // Each event is news of its own, which no other one outdates.
                let key = format!("lag {} {}", lag.connection, lag.counts.sent);
                news.publish_keyed(&key, event.to_string());
            }
        }
    }
}

fn stats(monitor: &Monitor) -> Value {
    let stats = monitor.stats();
    let connections = monitor.connections();
    let connections = connections.iter().map(|connection| {
        json!({
            "id": connection.sender.id(), "peer": connection.peer_addr.to_string(),
            "age": connection.age.as_secs(), "queued": connection.queued,
            "counts": counts(connection.counts),
        })
    });
    json!({
        "type": "stats", "open": stats.open, "opened": stats.opened, "lagging": stats.lagging,
        "bytes": stats.bytes_sent, "uptime": monitor.uptime().as_secs(),
        "counts": counts(stats.published), "connections": connections.collect::<Value>(),
    })
}

fn counts(counts: Counts) -> Value {
    json!({
        "sent": counts.sent, "delivered": counts.delivered(), "waiting": counts.waiting,
        "dropped": counts.dropped(), "conflated": counts.dropped_conflated,
    })
}

/// A slow wave, each key's own, with a little noise on it.
fn value(count: u64, keys: u32) -> f64 {
    let (key, step) = ((count % u64::from(keys)) as f64, (count / u64::from(keys)) as f64);
    let noise = (count.wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 40) as f64 / f64::from(1 << 24);
    let value = 50.0 + 35.0 * (step / (40.0 + 5.0 * key) + key).sin() + 12.0 * (noise - 0.5);
    (value * 10.0).round() / 10.0
}

fn now_ms() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_millis() as u64
}

const VALUES: &str = "values";
const NEWS: &str = "news";

/// Chosen: as often as the fastest screens draw.
const TICK: Duration = Duration::from_millis(10);

/// Chosen: most of a second of updates.
const SEND_BUFFER: usize = 64 << 10;

/// Pages have nothing to say.
const MAX_MESSAGE: u64 = 1 << 10;
