//! Plays the cases of an Autobahn fuzzing server.
//!
//! `cargo run --release --example autobahn_client -- ws://127.0.0.1:9002`
#![expect(clippy::print_stdout, reason = "a program that talks to its user")]

use clap::Parser;
use ws_serve::{
    CloseCode, Config, Error,
    conn::{Client, WebSocket},
};

/// Plays the cases of an Autobahn fuzzing server.
#[derive(Parser)]
struct Options {
    /// The fuzzing server.
    #[arg(default_value = "ws://127.0.0.1:9002")]
    url: String,
}

#[tokio::main(flavor = "current_thread")]
async fn main() -> anyhow::Result<()> {
    let base = Options::parse().url;
    let base = base.trim_end_matches('/');
    let mut ws = open(&format!("{base}/getCaseCount")).await?;
    let answer =
        ws.receive().await?.ok_or_else(|| anyhow::anyhow!("the server told no case count"))?;
    let count: u32 = answer.as_text().unwrap_or_default().parse()?;
    for case in 1..=count {
        // How a case ends is for the suite to judge.
        if let Err(error) = play(&format!("{base}/runCase?case={case}&agent={AGENT}")).await {
            println!("case {case} of {count}: {error}");
        }
    }
    open(&format!("{base}/updateReports?agent={AGENT}")).await?.close(CloseCode::NORMAL, "").await;
    println!("played {count} cases");
    Ok(())
}

async fn play(url: &str) -> Result<(), Error> {
    let mut ws = open(url).await?;
    while let Some(message) = ws.receive().await? {
        ws.send(message).await?;
    }
    Ok(())
}

async fn open(url: &str) -> Result<WebSocket<tokio::net::TcpStream>, Error> {
    Client::new(url)?.config(Config::default().max_message_size(64 << 20)).connect().await
}

/// The name in the reports.
const AGENT: &str = "ws-conn";
