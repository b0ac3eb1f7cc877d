//! What the tests share: an example that runs, and what is said to it.
#![allow(dead_code, reason = "each test file uses a part of this")]

use std::{
    future::Future,
    io::{BufRead, BufReader, Read},
    net::SocketAddr,
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    time::{Duration, Instant},
};

use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpSocket, TcpStream},
    time::timeout,
};
use ws_serve::{
    Message,
    conn::{Client, WebSocket},
};

pub(crate) type Web = WebSocket<TcpStream>;

/// An example that listens; killed if a test fails.
pub(crate) struct Example {
    child: Child,
    pub(crate) address: SocketAddr,
    /// What it has printed so far.
    pub(crate) output: String,
    stdout: BufReader<std::process::ChildStdout>,
}

impl Example {
    /// Starts an example on a free port, and waits until it says where it listens.
    pub(crate) fn start(name: &str, options: &[&str]) -> Self {
        let mut child = Command::new(program(name))
            .arg("127.0.0.1:0")
            .args(options)
            .stdout(Stdio::piped())
            .stderr(Stdio::inherit())
            .spawn()
            .unwrap_or_else(|error| panic!("`cargo build --examples` makes {name}: {error}"));
        let mut stdout = BufReader::new(child.stdout.take().expect("it is piped"));
        let mut output = String::new();
        let address = loop {
            let length = stdout.read_line(&mut output).expect("UTF-8");
            assert_ne!(length, 0, "{name} ended before it listened: {output}");
            if let Some(address) = address_in(&output) {
                break address;
            }
        };
        Self { child, address, output, stdout }
    }

    /// Waits for a line.
    pub(crate) fn line(&mut self) -> String {
        let mut line = String::new();
        self.stdout.read_line(&mut line).expect("UTF-8");
        self.output.push_str(&line);
        line
    }

    /// Sends a signal, such as `HUP`.
    pub(crate) fn signal(&self, name: &str) {
        let kill = Command::new("kill").args(["-s", name, &self.child.id().to_string()]).status();
        assert!(kill.expect("every Unix has kill").success());
    }

    /// Ends it as process managers do: clients are told, and it is gone soon, and content.
    pub(crate) async fn stop(mut self, clients: impl IntoIterator<Item = Web>) {
        self.signal("TERM");
        for mut client in clients {
            while within(client.receive()).await.expect("a clean close").is_some() {}
            assert_eq!(client.closed().code(), 1001);
        }
        self.expect_end();
    }

    pub(crate) fn expect_end(&mut self) {
        let begun = Instant::now();
        let status = loop {
            if let Some(status) = self.child.try_wait().expect("it is our child") {
                break status;
            }
            assert!(begun.elapsed() < END, "it does not end");
            std::thread::sleep(Duration::from_millis(5));
        };
        let mut rest = String::new();
        self.stdout.read_to_string(&mut rest).expect("UTF-8");
        assert_eq!(status.code(), Some(0), "{}{rest}", self.output);
    }

    pub(crate) fn client(&self, path: &str) -> Client {
        Client::new(&format!("ws://{}{path}", self.address)).expect("a URL")
    }

    pub(crate) async fn connect(&self, path: &str) -> Web {
        within(self.client(path).connect()).await.expect("it lets us in")
    }

    /// Connects with room for so little that it shows soon when nothing is read.
    pub(crate) async fn connect_narrowly(&self, path: &str) -> Web {
        let socket = TcpSocket::new_v4().expect("a socket");
        socket.set_recv_buffer_size(4 << 10).expect("a size");
        let stream = socket.connect(self.address).await.expect("it listens");
        within(self.client(path).connect_over(stream)).await.expect("it lets us in").0
    }

    /// The answer to a request in plain HTTP, head and all.
    pub(crate) async fn http(&self, line: &str, headers: &[&str]) -> String {
        let stream = TcpStream::connect(self.address).await.expect("it listens");
        http_over(stream, line, headers).await
    }
}

impl Drop for Example {
    fn drop(&mut self) {
        // Fails if it has ended, as it should have.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// As [`Example::http`], over TLS, for example.
pub(crate) async fn http_over(
    mut stream: impl tokio::io::AsyncRead + tokio::io::AsyncWrite + Unpin,
    line: &str,
    headers: &[&str],
) -> String {
    let headers: String = headers.iter().map(|header| format!("{header}\r\n")).collect();
    let request = format!("{line} HTTP/1.1\r\nHost: localhost\r\n{headers}\r\n");
    stream.write_all(request.as_bytes()).await.expect("it reads");
    let mut answer = String::new();
    within(stream.read_to_string(&mut answer)).await.expect("it answers");
    answer
}

/// The next message, which is text.
pub(crate) async fn text(web: &mut Web) -> String {
    let message = within(web.receive()).await.expect("no error").expect("not closed");
    message.as_text().expect("text").to_owned()
}

/// Sends a message and waits for it to come back.
pub(crate) async fn check_echo(web: &mut Web) {
    let message = Message::binary(vec![7; 300]);
    web.send(message.clone()).await.expect("it is open");
    assert_eq!(within(web.receive()).await.expect("no error"), Some(message));
}

/// Fails instead of hanging. No test is about how long this is.
pub(crate) async fn within<T>(future: impl Future<Output = T>) -> T {
    timeout(WATCHDOG, future).await.expect("done before the watchdog barks")
}

/// Where cargo puts examples: beside the directory of the tests.
fn program(name: &str) -> PathBuf {
    let test = std::env::current_exe().expect("this is a program");
    let profile = test.parent().and_then(Path::parent).expect("in target/…/deps");
    profile.join("examples").join(name)
}

fn address_in(output: &str) -> Option<SocketAddr> {
    // Up to the line's end, or a port that came in two pieces would be read short.
    let (_, rest) = output.split_once("://")?;
    rest.split_once('\n')?;
    let end = rest.find(|letter: char| !matches!(letter, '0'..='9' | '.' | ':'))?;
    rest[..end].parse().ok()
}

const WATCHDOG: Duration = Duration::from_secs(20);

/// Less than the 10 s after which a connection is given up whose client does not close it.
const END: Duration = Duration::from_secs(8);
