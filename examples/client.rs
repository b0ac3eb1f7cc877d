//! A client: sends messages and prints what comes back.
//!
//! `cargo run --release --example client -- ws://127.0.0.1:9001 hello`; without messages it sends the
//! lines of its standard input.
#![expect(clippy::print_stdout, clippy::print_stderr, reason = "a program that talks to its user")]

use std::process::ExitCode;

use clap::{Parser, ValueEnum};
use tokio::io::{AsyncBufReadExt, BufReader};
use ws_serve::{
    CloseCode, Config, Deflate, Error, Message,
    conn::{Client, WebSocket},
};

/// Sends messages and prints what comes back, one line each.
#[derive(Parser)]
struct Options {
    /// Where to connect, such as ws://127.0.0.1:9001/.
    url: String,
    /// What to send; each waits for an answer. Without any, lines are read from standard input.
    messages: Vec<String>,
    /// Send binary messages instead of text.
    #[arg(long)]
    binary: bool,
    /// Send back what comes instead, until the server closes; prints nothing.
    #[arg(long, conflicts_with_all = ["messages", "binary"])]
    echo: bool,
    /// Offer to compress messages.
    #[arg(long, require_equals = true, num_args = 0..=1, default_missing_value = "default")]
    deflate: Option<Compress>,
    /// Subprotocols to offer, best first.
    #[arg(long, value_name = "NAME")]
    subprotocol: Vec<String>,
    /// The largest message accepted.
    #[arg(long, value_name = "BYTES", default_value_t = 64 << 20)]
    max_message_size: u64,
}

#[derive(Clone, Copy, ValueEnum)]
enum Compress {
    /// Keep no contexts: idle connections cost nothing.
    Default,
    /// Keep contexts: the smallest messages.
    BestRatio,
}

#[tokio::main(flavor = "current_thread")]
async fn main() -> ExitCode {
    match run(Options::parse()).await {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {error}");
            ExitCode::FAILURE
        }
    }
}

async fn run(options: Options) -> anyhow::Result<()> {
    let mut client = Client::new(&options.url)?
        .config(Config::default().max_message_size(options.max_message_size));
    if !options.subprotocol.is_empty() {
        client = client.subprotocols(options.subprotocol.clone());
    }
    if let Some(kind) = options.deflate {
        client = client.deflate(match kind {
            Compress::Default => Deflate::default(),
            Compress::BestRatio => Deflate::best_ratio(),
        });
    }
    let mut ws = client.connect().await?;
    if options.echo {
        while let Some(message) = ws.receive().await? {
            ws.send(message).await?;
        }
        return Ok(());
    }
    if options.messages.is_empty() {
        return interact(ws, options.binary).await;
    }
    for text in options.messages {
        ws.send(message(text, options.binary)).await?;
        match ws.receive().await? {
            Some(answer) => print_message(&answer),
            None => break,
        }
    }
    ws.close(CloseCode::NORMAL, "").await;
    Ok(())
}

/// Lines go out and messages come in, whichever is first.
async fn interact(mut ws: WebSocket<tokio::net::TcpStream>, binary: bool) -> anyhow::Result<()> {
    let mut lines = BufReader::new(tokio::io::stdin()).lines();
    loop {
        tokio::select! {
            received = ws.receive() => match received? {
                Some(answer) => print_message(&answer),
                None => break,
            },
            line = lines.next_line() => match line? {
                Some(text) => ws.send(message(text, binary)).await?,
                None => break,
            },
        }
    }
    let closed = ws.close(CloseCode::NORMAL, "").await;
    eprintln!("{closed}");
    Ok::<(), Error>(()).map_err(Into::into)
}

fn message(text: String, binary: bool) -> Message {
    if binary { Message::binary(text) } else { text.into() }
}

fn print_message(message: &Message) {
    match message {
        Message::Text(text) => println!("{text}"),
        Message::Binary(data) => println!("{}", String::from_utf8_lossy(data)),
    }
}
