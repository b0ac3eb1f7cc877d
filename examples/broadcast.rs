//! A broadcast server: every message goes to every connection, the sender's own included.
//!
//! `cargo run --release --example broadcast -- --help`
#![expect(clippy::print_stdout, reason = "a program that talks to its user")]

use clap::Parser;
use ws_serve::{Config, Error, Limits, Rate, Server, Socket};

/// A broadcast server.
#[derive(Parser)]
struct Options {
    /// Where to listen.
    #[arg(default_value = "127.0.0.1:9001")]
    address: String,
    /// Threads, each with a listener of its own; by default one for each core.
    #[arg(long, default_value_t = std::thread::available_parallelism().map_or(1, usize::from))]
    workers: usize,
    /// The largest message accepted.
    #[arg(long, value_name = "BYTES", default_value_t = 1 << 20)]
    max_message_size: u64,
}

#[tokio::main(flavor = "current_thread")]
async fn main() -> anyhow::Result<()> {
    tracing_subscriber::fmt()
        .with_env_filter(tracing_subscriber::EnvFilter::from_default_env())
        .init();
    let options = Options::parse();
    let server = Server::bind(&options.address)?
        .config(Config::default().max_message_size(options.max_message_size))
        // It is load-tested: by thousands of clients that connect in the same moment, as fast as they can.
        .limits(Limits::default().handshakes(Rate::per_second(1_000_000)))
        .message_rate(None)
        .byte_rate(None)
        .workers(options.workers);
    examples::stop_on_signals(server.shutdown_handle())?;
    println!("listening on ws://{}", server.local_addr().expect("it listens on TCP"));
    server.serve(broadcast).await?;
    Ok(())
}

async fn broadcast(mut socket: Socket) -> Result<(), Error> {
    let everybody = socket.topic("everybody");
    everybody.join(&socket);
    while let Some(message) = socket.receive().await? {
        everybody.publish(message);
    }
    Ok(())
}
