//! An echo server that tells Prometheus how it is.
//!
//! `cargo run --release --example metrics --features metrics`, then `curl localhost:9001/metrics`
#![expect(clippy::print_stdout, reason = "a program that talks to its user")]

use anyhow::Context;
use clap::Parser;
use metrics_exporter_prometheus::PrometheusBuilder;
use ws_serve::{Error, Page, Server, Socket};

/// An echo server with metrics at /metrics.
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
    let prometheus = PrometheusBuilder::new()
        // Of handshakes: what a browser nearby needs, and what the server's deadline is.
        .set_buckets(&[0.001, 0.01, 0.1, 1.0, 5.0])?
        .install_recorder()?;
    let server = Server::bind(&options.address)?.route("/", echo).health("/health");
    examples::stop_on_signals(server.shutdown_handle())?;
    let address = server.local_addr().context("it listens on TCP")?;
    let monitor = server.monitor();
    // In production on a port that is not everybody's.
    let server = server.page_with("/metrics", move |_| {
        // The server counts by itself; the recorder gets its numbers when somebody asks.
        monitor.record_metrics();
        prometheus.run_upkeep();
        Page::new("text/plain; version=0.0.4", prometheus.render())
    });
    println!("listening on ws://{address}, metrics at http://{address}/metrics");
    server.run().await?;
    Ok(())
}

async fn echo(mut socket: Socket) -> Result<(), Error> {
    while let Some(message) = socket.receive().await? {
        socket.send(message).await?;
    }
    Ok(())
}
