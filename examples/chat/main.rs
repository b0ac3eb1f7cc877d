//! A chat: rooms, names, who is here; the page and the WebSocket on one port.
//!
//! `cargo run --release --example chat`, then open the address that it prints, in two tabs.
#![expect(clippy::print_stdout, reason = "a program that talks to its user")]

mod rooms;

use std::sync::Arc;

use clap::Parser;
use ws_serve::{
    CloseCode, Config, Deflate, Error, Message, Server, Socket,
    conn::proto::bytes::Bytes,
    http::{Request, Response, StatusCode, header},
};

use crate::rooms::{Command, Event, Rooms};

/// A chat server with its own page.
#[derive(Parser)]
struct Options {
    /// Where to listen.
    #[arg(default_value = "127.0.0.1:9001")]
    address: String,
}

#[tokio::main]
async fn main() -> anyhow::Result<()> {
    tracing_subscriber::fmt()
        .with_env_filter(tracing_subscriber::EnvFilter::from_default_env())
        .init();
    let options = Options::parse();
    let server = Server::bind(&options.address)?
        .config(Config::default().max_message_size(MAX_MESSAGE))
        .deflate(Deflate::default())
        .on_request(page);
    examples::stop_on_signals(server.shutdown_handle())?;
    let address = server.local_addr().expect("it listens on TCP");
    println!("open http://{address} in two tabs, and chat");
    let rooms = Arc::new(Rooms::default());
    server.serve(move |socket| chat(socket, Arc::clone(&rooms))).await?;
    Ok(())
}

/// Everything that is not the WebSocket.
fn page(request: &mut Request<()>) -> Option<Response<Bytes>> {
    let (status, kind, body) = match request.uri().path() {
        "/ws" => return None,
        "/" => (StatusCode::OK, "text/html; charset=utf-8", include_str!("page.html")),
        _ => (StatusCode::NOT_FOUND, "text/plain; charset=utf-8", "Not here. The chat is at /.\n"),
    };
    let mut response = Response::new(Bytes::from_static(body.as_bytes()));
    *response.status_mut() = status;
    response.headers_mut().insert(header::CONTENT_TYPE, header::HeaderValue::from_static(kind));
    Some(response)
}

async fn chat(mut socket: Socket, rooms: Arc<Rooms>) -> Result<(), Error> {
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
