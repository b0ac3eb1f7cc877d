//! An echo server: every message goes back to where it came from.
//!
//! `cargo run --release --example echo -- --help`
#![expect(clippy::print_stdout, reason = "a program that talks to its user")]

use clap::{Parser, ValueEnum};
use ws_serve::{Config, Deflate, Error, Limits, Rate, Server, Socket};

/// An echo server.
#[derive(Parser)]
struct Options {
    /// Where to listen.
    #[arg(default_value = "127.0.0.1:9001")]
    address: String,
    /// Threads, each with a listener of its own; by default one for each core.
    #[arg(long, default_value_t = std::thread::available_parallelism().map_or(1, usize::from))]
    workers: usize,
    /// Compress messages with clients that offer it.
    #[arg(long, require_equals = true, num_args = 0..=1, default_missing_value = "default")]
    deflate: Option<Compress>,
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
async fn main() -> anyhow::Result<()> {
    tracing_subscriber::fmt()
        .with_env_filter(tracing_subscriber::EnvFilter::from_default_env())
        .init();
    let options = Options::parse();
    let mut server = Server::bind(&options.address)?
        .config(Config::default().max_message_size(options.max_message_size))
        // It is load-tested: by thousands of clients that connect in the same moment, as fast as they can.
        .limits(Limits::default().handshakes(Rate::per_second(1_000_000)))
        .message_rate(None)
        .byte_rate(None)
        .workers(options.workers);
    if let Some(kind) = options.deflate {
        server = server.deflate(match kind {
            Compress::Default => Deflate::default(),
            Compress::BestRatio => Deflate::best_ratio(),
        });
    }
    examples::stop_on_signals(server.shutdown_handle())?;
    println!("listening on ws://{}", server.local_addr().expect("it listens on TCP"));
    server.serve(echo).await?;
    Ok(())
}

async fn echo(mut socket: Socket) -> Result<(), Error> {
    while let Some(message) = socket.receive().await? {
        socket.send(message).await?;
    }
    Ok(())
}
