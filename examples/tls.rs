//! An echo server over TLS, whose certificate can be replaced while it runs.
//!
//! `cargo run --release --example tls --features tls -- --cert cert.pem --key key.pem`; without files
//! it makes itself a certificate that nobody else trusts.
#![expect(clippy::print_stdout, clippy::print_stderr, reason = "a program that talks to its user")]

use std::{
    fs,
    net::SocketAddr,
    path::{Path, PathBuf},
};

use anyhow::Context;
use clap::Parser;
use rcgen::{CertifiedKey, generate_simple_self_signed};
use ws_serve::{Error, Page, Server, Socket, Tls};

/// An echo server over TLS.
#[derive(Parser)]
struct Options {
    /// Where to listen.
    #[arg(default_value = "127.0.0.1:9001")]
    address: String,
    /// The certificate and those that vouch for it, in PEM, the server's own first.
    #[arg(long, requires = "key", value_name = "FILE")]
    cert: Option<PathBuf>,
    /// Its private key, in PEM.
    #[arg(long, requires = "cert", value_name = "FILE")]
    key: Option<PathBuf>,
    /// Where to save the certificate that is made without these, for clients to trust.
    #[arg(long, conflicts_with = "cert", value_name = "FILE")]
    save_cert: Option<PathBuf>,
}

#[tokio::main]
async fn main() -> anyhow::Result<()> {
    tracing_subscriber::fmt()
        .with_env_filter(tracing_subscriber::EnvFilter::from_default_env())
        .init();
    let options = Options::parse();
    let server = Server::bind(&options.address)?;
    let address = server.local_addr().expect("it listens on TCP");
    let tls = match (&options.cert, &options.key) {
        (Some(cert), Some(key)) => Tls::from_files(cert, key)?,
        _ => {
            eprintln!(
                "*** NO --cert AND --key: THIS CERTIFICATE IS MADE UP, AND PROVES NOTHING. ***"
            );
            eprintln!(
                "*** Browsers will warn of it, and programs refuse it unless told to trust it. ***"
            );
            self_signed(address, options.save_cert.as_deref())?
        }
    };
    #[cfg(unix)]
    reload_on_hangup(tls.clone())?;
    let server = server.tls(tls).page("/", Page::html(PAGE)).route("/ws", echo).health("/health");
    examples::stop_on_signals(server.shutdown_handle())?;
    println!("listening on wss://{address}/ws; open https://{address}, or try");
    let trust = match (options.cert, options.save_cert) {
        (Some(_), _) => String::new(),
        (None, Some(file)) => format!("--cacert {} ", file.display()),
        (None, None) => "--insecure ".to_owned(),
    };
    println!("  curl {trust}https://{address}/health");
    println!("  kill -HUP {} when the certificate's files are new", std::process::id());
    server.run().await?;
    Ok(())
}

async fn echo(mut socket: Socket) -> Result<(), Error> {
    while let Some(message) = socket.receive().await? {
        socket.send(message).await?;
    }
    Ok(())
}

/// Makes a certificate for this machine. Its key never leaves the process.
fn self_signed(address: SocketAddr, file: Option<&Path>) -> anyhow::Result<Tls> {
    let names = vec!["localhost".to_owned(), address.ip().to_string()];
    let CertifiedKey { cert, signing_key } = generate_simple_self_signed(names)?;
    let pem = cert.pem();
    if let Some(file) = file {
        fs::write(file, &pem).with_context(|| format!("cannot write {}", file.display()))?;
    }
    Ok(Tls::from_pem(pem.as_bytes(), signing_key.serialize_pem().as_bytes())?)
}

/// Reads the files again at each SIGHUP, as who renews certificates expects it. If they are no good,
/// what was there stays.
#[cfg(unix)]
fn reload_on_hangup(tls: Tls) -> anyhow::Result<()> {
    use tokio::signal::unix::{SignalKind, signal};
    let mut hangup = signal(SignalKind::hangup())?;
    tokio::spawn(async move {
        while hangup.recv().await.is_some() {
            let tls = tls.clone();
            match tokio::task::spawn_blocking(move || tls.reload()).await {
                Ok(Ok(())) => println!("the certificate is a new one, for connections to come"),
                Ok(Err(error)) => eprintln!("the certificate stays: {error}"),
                Err(error) => eprintln!("the certificate stays: {error}"),
            }
        }
    });
    Ok(())
}

const PAGE: &str =
    "<!doctype html><title>TLS</title><link rel=icon href=data:,><pre id=log></pre><script>
const log = (line) => document.getElementById('log').textContent += line + '\\n';
const ws = new WebSocket(`wss://${location.host}/ws`);
ws.onopen = () => ws.send('hello over TLS');
ws.onmessage = ({ data }) => log(`came back: ${data}`);
ws.onclose = ({ code, reason }) => log(`closed: ${code} ${reason}`);
</script>";
