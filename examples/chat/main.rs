//! A chat: rooms, names, who is here; the page and the WebSocket on one port.
//!
//! `cargo run --release --example chat`, then open the address that it prints, in two tabs.
#![expect(clippy::print_stdout, reason = "a program that talks to its user")]

mod rooms;

use std::{sync::Arc, time::Duration};

use clap::Parser;
use ws_serve::{
    CloseCode, Config, Deflate, Error, Message, Page, Route, Server, SlowConsumer, Socket, State,
};

use crate::rooms::{Command, Event, Rooms};

/// A chat server with its own page.
#[derive(Parser)]
struct Options {
    /// Where to listen.
    #[arg(default_value = "127.0.0.1:9001")]
    address: String,
    /// How long to answer /ready with 503 before connections are closed, for load balancers.
    #[arg(long, value_name = "SECONDS", default_value_t = 0)]
    grace_period: u64,
}

#[tokio::main]
async fn main() -> anyhow::Result<()> {
    tracing_subscriber::fmt()
        .with_env_filter(tracing_subscriber::EnvFilter::from_default_env())
        .init();
    let options = Options::parse();
    let chat = Route::new(chat)
        .config(Config::default().max_message_size(MAX_MESSAGE))
        .deflate(Deflate::default())
        // Nobody should believe to have seen everything who has not. The page connects again by
        // itself, says that it was away, and is told anew who is here.
        .slow_consumer(SlowConsumer::Disconnect(CloseCode::TRY_AGAIN_LATER));
    let server = Server::bind(&options.address)?
        .page("/", Page::html(include_str!("page.html")))
        .route("/ws", chat)
        .state(Arc::new(Rooms::default()))
        .health("/health")
        .readiness("/ready")
        .grace_period(Duration::from_secs(options.grace_period));
    examples::stop_on_signals(server.shutdown_handle())?;
    let address = server.local_addr().expect("it listens on TCP");
    println!("open http://{address} in two tabs, and chat");
    server.run().await?;
    Ok(())
}

async fn chat(mut socket: Socket, State(rooms): State<Arc<Rooms>>) -> Result<(), Error> {
    let mut seat = None;
    let result = converse(&mut socket, &rooms, &mut seat).await;
    // However it ended, the others see the chair empty.
    if let Some(seat) = seat {
        rooms.leave(&socket, seat);
    }
    result
}

async fn converse(
    socket: &mut Socket,
    rooms: &Rooms,
    seat: &mut Option<rooms::Seat>,
) -> Result<(), Error> {
    while let Some(message) = socket.receive().await? {
        let Some(text) = message.as_text() else {
            socket.close(CloseCode::UNSUPPORTED_DATA, "this chat is text");
            continue;
        };
        match serde_json::from_str(text) {
            Ok(Command::Join { room, name }) => {
                let (room, name) = (room.trim(), name.trim());
                if !is_fit(room) || !is_fit(name) {
                    socket.send(complaint("room and name need 1 to 32 characters")).await?;
                    continue;
                }
                if let Some(seat) = seat.take() {
                    rooms.leave(socket, seat);
                }
                *seat = Some(rooms.join(socket, room, name).await?);
            }
            Ok(Command::Say { text }) => match seat {
                Some(seat) if text.chars().count() <= MAX_TEXT && !text.trim().is_empty() => {
                    rooms.say(seat, &text);
                }
                Some(_) => socket.send(complaint("a message needs 1 to 2000 characters")).await?,
                None => socket.send(complaint("join a room first")).await?,
            },
            Err(_) => socket.send(complaint("not understood")).await?,
        }
    }
    Ok(())
}

fn is_fit(name: &str) -> bool {
    (1..=32).contains(&name.chars().count()) && !name.chars().any(char::is_control)
}

fn complaint(text: &str) -> Message {
    Event::Error { text }.to_message()
}

/// 2000 characters of four bytes each, every one escaped, and some room for the rest.
const MAX_MESSAGE: u64 = 32 << 10;
const MAX_TEXT: usize = 2000;
