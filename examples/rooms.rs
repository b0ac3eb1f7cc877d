//! A tour of routing: typed parameters, a nested router, a route with settings of its own, state,
//! pages, a fallback.
//!
//! `cargo run --release --example rooms`, then open the address that it prints.
#![expect(clippy::print_stdout, reason = "a program that talks to its user")]

use std::{
    str::FromStr,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use clap::Parser;
use ws_serve::{
    CloseCode, Config, Error, Page, Route, Router, Server, Socket, State, Topics, http::Request,
};

/// Small WebSocket routes.
#[derive(Parser)]
struct Options {
    /// Where to listen.
    #[arg(default_value = "127.0.0.1:9001")]
    address: String,
}

/// What handlers share.
#[derive(Default)]
struct Building {
    visits: AtomicU64,
}

#[tokio::main]
async fn main() -> anyhow::Result<()> {
    tracing_subscriber::fmt()
        .with_env_filter(tracing_subscriber::EnvFilter::from_default_env())
        .init();
    let options = Options::parse();
    // Knows nothing of the place where it will be.
    let rooms =
        Router::new().route("/", lobby).route("/{name}", room).route("/{name}/as/{nick}", room_as);
    let server = Server::bind(&options.address)?;
    let topics = server.topics();
    let server = server
        .page("/", Page::text(TOUR))
        .page_with("/people/{name}", move |request| people(&topics, request))
        .route("/echo", Route::new(echo).config(Config::default().max_message_size(16 << 20)))
        .route("/sum/{a}/{b}", sum)
        .route("/ticker/{symbol}", ticker)
        .nest("/room", rooms)
        .fallback(lost)
        .state(Arc::new(Building::default()));
    examples::stop_on_signals(server.shutdown_handle())?;
    let address = server.local_addr().expect("it listens on TCP");
    println!("listening on ws://{address}; http://{address} says what is there");
    server.run().await?;
    Ok(())
}

const TOUR: &str = "\
Connect with, for example: cargo run --release --example client -- ws://HOST/echo hello

ws /echo                   what you send, up to 16 MiB
ws /sum/{a}/{b}            the sum of two whole numbers; 404 if they are none
ws /ticker/{symbol}        a price each second of BTC or ETH; 404 for others
ws /room                   how often rooms have been entered
ws /room/{name}            what everybody there says
ws /room/{name}/as/{nick}  the same, with a name
   anything else           a goodbye with code 4404
http /people/{name}        how many are in a room
";

async fn echo(mut socket: Socket) -> Result<(), Error> {
    while let Some(message) = socket.receive().await? {
        socket.send(message).await?;
    }
    Ok(())
}

/// Says one thing and returns, which closes with 1000.
async fn sum(socket: Socket, a: i64, b: i64) -> Result<(), Error> {
    match a.checked_add(b) {
        Some(sum) => socket.send(sum.to_string()).await?,
        None => socket.close(CloseCode::POLICY_VIOLATION, "that is too much for 64 bits"),
    }
    Ok(())
}

/// Anything that is `FromStr` can be a parameter.
enum Symbol {
    Btc,
    Eth,
}

impl FromStr for Symbol {
    type Err = ();

    fn from_str(name: &str) -> Result<Self, ()> {
        match name {
            "BTC" => Ok(Self::Btc),
            "ETH" => Ok(Self::Eth),
            _ => Err(()),
        }
    }
}

async fn ticker(mut socket: Socket, symbol: Symbol) -> Result<(), Error> {
    let base = match symbol {
        Symbol::Btc => 64_000,
        Symbol::Eth => 3_100,
    };
    let mut seconds = tokio::time::interval(Duration::from_secs(1));
    for step in 0_u32.. {
        // Receiving goes on meanwhile: that is how the handler learns that the client has left.
        tokio::select! {
            _ = seconds.tick() => socket.send(format!("{}", base + step * 7_919 % 100)).await?,
            received = socket.receive() => if received?.is_none() { break },
        }
    }
    Ok(())
}

async fn lobby(socket: Socket, building: State<Arc<Building>>) -> Result<(), Error> {
    let visits = building.visits.load(Ordering::Relaxed);
    socket.send(format!("rooms were entered {visits} times")).await
}

async fn room(socket: Socket, name: String, building: State<Arc<Building>>) -> Result<(), Error> {
    let nick = format!("guest {}", socket.id());
    room_as(socket, name, nick, building).await
}

async fn room_as(
    mut socket: Socket,
    name: String,
    nick: String,
    building: State<Arc<Building>>,
) -> Result<(), Error> {
    building.visits.fetch_add(1, Ordering::Relaxed);
    let room = socket.topic(&name);
    room.join(&socket);
    while let Some(message) = socket.receive().await? {
        let text = message.as_text().unwrap_or("(bytes)");
        room.publish(format!("{nick}: {text}"));
    }
    Ok(())
}

fn people(topics: &Topics, request: &Request<()>) -> Page {
    let name = request.uri().path().rsplit('/').next().unwrap_or_default();
    Page::text(format!("{}\n", topics.get(name).len()))
}

async fn lost(socket: Socket) {
    let reason = format!("there is no {}", socket.request().uri().path());
    socket.close(LOST, reason);
}

/// From the range for private use, and like HTTP's.
const LOST: CloseCode = CloseCode::new(4404).expect("4000 to 4999 are legal");
