//! Plays the cases of an Autobahn fuzzing server.
//!
//! `cargo run --release --example autobahn_client -- ws://127.0.0.1:9002`
#![expect(clippy::print_stdout, reason = "a program that talks to its user")]

use clap::{Parser, ValueEnum};
use ws_serve::{
    CloseCode, Config, Deflate, Error,
    conn::{Client, WebSocket},
};

/// Plays the cases of an Autobahn fuzzing server.
#[derive(Parser)]
struct Options {
    /// The fuzzing server.
    #[arg(default_value = "ws://127.0.0.1:9002")]
    url: String,
    /// How to compress where the case offers it.
    #[arg(long, default_value = "best-ratio")]
    deflate: Compress,
}

#[derive(Clone, Copy, ValueEnum)]
enum Compress {
    /// Keep no contexts.
    Default,
    /// Keep contexts, unless the case forbids it.
    BestRatio,
}

#[tokio::main(flavor = "current_thread")]
async fn main() -> anyhow::Result<()> {
    let Options { url, deflate } = Options::parse();
    let base = url.trim_end_matches('/');
    let mut ws = open(&format!("{base}/getCaseCount"), deflate).await?;
    let answer =
        ws.receive().await?.ok_or_else(|| anyhow::anyhow!("the server told no case count"))?;
    let count: u32 = answer.as_text().unwrap_or_default().parse()?;
    for case in 1..=count {
        // How a case ends is for the suite to judge.
        let url = format!("{base}/runCase?case={case}&agent={AGENT}");
        if let Err(error) = play(&url, deflate).await {
            println!("case {case} of {count}: {error}");
        }
    }
    let mut ws = open(&format!("{base}/updateReports?agent={AGENT}"), deflate).await?;
    ws.close(CloseCode::NORMAL, "").await;
    println!("played {count} cases");
    Ok(())
}

async fn play(url: &str, deflate: Compress) -> Result<(), Error> {
    let mut ws = open(url, deflate).await?;
    while let Some(message) = ws.receive().await? {
        ws.send(message).await?;
    }
    Ok(())
}

async fn open(url: &str, deflate: Compress) -> Result<WebSocket<tokio::net::TcpStream>, Error> {
    let deflate = match deflate {
        Compress::Default => Deflate::default(),
        Compress::BestRatio => Deflate::best_ratio(),
    };
    Client::new(url)?
        .config(Config::default().max_message_size(64 << 20))
        // However short a message is: that it is compressed is what the case is about.
        .deflate(deflate.threshold(0))
        .connect()
        .await
}

/// The name in the reports.
const AGENT: &str = "ws-conn";
