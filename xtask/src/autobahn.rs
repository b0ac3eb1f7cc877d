//! `cargo xtask autobahn`: the Autobahn test suite against the `echo` server and the
//! `autobahn_client`.
//!
//! It checks RFC 6455 and RFC 7692 from outside. Stricter than the suite's own colours: only OK and
//! INFORMATIONAL pass, for the behaviour as for the closing handshake.

mod reports;
mod wstest;

use std::fs::{self, File};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::path::Path;
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};
use clap::{Args, ValueEnum};
use serde_json::json;

use crate::examples::Examples;
use crate::process::{Background, each_line, stream_within};
use crate::report::Report;
use crate::tool::Missing;
use crate::workspace::Workspace;

use self::wstest::Wstest;

/// Everything, but of each kind of data and each set of offers for permessage-deflate (groups 12 and
/// 13) only the messages of 16, 256, 4096 and 32768 bytes, and 8192 bytes in fragments: most of their
/// time passes in the suite itself.
///
/// The suite makes regular expressions of these, which without the `$` match beginnings.
const SLICE: [&str; 13] = [
    "1.*",
    "2.*",
    "3.*",
    "4.*",
    "5.*",
    "6.*",
    "7.*",
    "9.*",
    "10.*",
    "12.*.[1358]$",
    "12.*.11$",
    "13.*.[1358]$",
    "13.*.11$",
];

/// How many cases version 25.10.1 of the suite has in [`SLICE`] and altogether: a run that ends
/// early must not pass on the cases it got to.
const SLICE_CASES: usize = 361;
const ALL_CASES: usize = 517;

/// For a server to come up, installed or not.
const START_LIMIT: Duration = Duration::from_secs(60);
/// The slice takes 60 to 85 s on two cores that others use as well; beyond ten minutes something
/// hangs.
const SLICE_LIMIT: Duration = Duration::from_secs(600);
/// The whole suite takes 11 to 12 minutes on two cores that others use as well.
const FULL_LIMIT: Duration = Duration::from_secs(3600);

/// The command line of `cargo xtask autobahn`.
#[derive(Args, Default)]
pub(crate) struct Autobahn {
    /// Only our server (both roles if neither is named)
    #[arg(long)]
    server: bool,
    /// Only our client
    #[arg(long)]
    client: bool,
    /// All 517 cases, all of compression included: some twelve minutes a role
    #[arg(long)]
    full: bool,
    /// These cases instead, such as `12.1.*,13.*.1`
    #[arg(long, value_delimiter = ',', conflicts_with = "full")]
    cases: Vec<String>,
    /// How our programs compress
    #[arg(long, default_value = "best-ratio")]
    deflate: Compress,
}

/// The settings of our programs for permessage-deflate.
#[derive(Clone, Copy, Default, ValueEnum)]
enum Compress {
    /// No contexts, whatever the case offers
    Default,
    /// Contexts unless the case forbids them: it plays both ways, and is the stricter test
    #[default]
    BestRatio,
}

impl Compress {
    /// The option that says so to our programs.
    fn option(self) -> &'static str {
        match self {
            Self::Default => "--deflate=default",
            Self::BestRatio => "--deflate=best-ratio",
        }
    }
}

impl Autobahn {
    /// Plays the cases in each role.
    pub(crate) fn run(&self, workspace: &Workspace) -> Result<Report> {
        let home = workspace.target.join("autobahn");
        fs::create_dir_all(&home)?;
        let wstest = Wstest::find(workspace, &home)?;
        let examples = Examples::build(workspace)?;
        let deflate = self.deflate;
        let game = Game { cases: self.selection(), deflate, workspace, examples, wstest };
        let mut report = Report::default();
        if self.server || !self.client {
            report.add("autobahn, our server", game.play_server(&home.join("server")));
        }
        if self.client || !self.server {
            report.add("autobahn, our client", game.play_client(&home.join("client")));
        }
        println!("{}", report.tally);
        Ok(report)
    }

    fn selection(&self) -> Cases {
        if !self.cases.is_empty() {
            let patterns = self.cases.clone();
            return Cases { patterns, expected: None, limit: FULL_LIMIT };
        }
        if self.full {
            let patterns = vec!["*".to_owned()];
            return Cases { patterns, expected: Some(ALL_CASES), limit: FULL_LIMIT };
        }
        let patterns = SLICE.map(str::to_owned).to_vec();
        Cases { patterns, expected: Some(SLICE_CASES), limit: SLICE_LIMIT }
    }
}

/// Which cases to play.
struct Cases {
    patterns: Vec<String>,
    /// How many these are, where that is known.
    expected: Option<usize>,
    limit: Duration,
}

/// All that a role needs.
struct Game<'a> {
    workspace: &'a Workspace,
    examples: Examples,
    wstest: Wstest,
    cases: Cases,
    deflate: Compress,
}

impl Game<'_> {
    /// The suite as client, our `echo` as server.
    fn play_server(&self, directory: &Path) -> Result<Report> {
        let mut echo = self.workspace.program(self.examples.program("echo"));
        // Group 9 sends messages of up to 16 MiB; four times that is what a lenient server would
        // take.
        echo.args(["127.0.0.1:0", "--max-message-size", "67108864"]).arg(self.deflate.option());
        let (_echo, url) = Background::start_and_wait_for(&mut echo, "listening on ", START_LIMIT)?;
        let spec =
            self.prepare(directory, json!({ "servers": [{ "agent": "ws-serve", "url": url }] }))?;
        let mut wstest = self.wstest.command(&["-m", "fuzzingclient", "-s"]);
        wstest.arg(&spec);
        let mut played = 0;
        each_line(&mut wstest, self.cases.limit, |line| {
            // One line a case: enough to see it move, without drowning the rest.
            if line.contains("test case") {
                played += 1;
                if played % 50 == 0 {
                    println!("{line}");
                }
            }
        })?;
        reports::read(directory, self.cases.expected)
    }

    /// The suite as server, our `autobahn_client` as client.
    fn play_client(&self, directory: &Path) -> Result<Report> {
        let address = free_address()?;
        let url = format!("ws://{address}");
        let spec = self.prepare(directory, json!({ "url": url }))?;
        let mut wstest = self.wstest.command(&["-m", "fuzzingserver", "--webport", "0", "-s"]);
        wstest.arg(&spec).stdout(File::create(directory.join("wstest.log"))?);
        let mut server = Background::start(&mut wstest)?;
        wait_until_listening(&mut server, address)?;
        let mut client = self.workspace.program(self.examples.program("autobahn_client"));
        let mut report =
            stream_within(client.arg(&url).arg(self.deflate.option()), self.cases.limit);
        report.add("the client's cases", reports::read(directory, self.cases.expected));
        Ok(report)
    }

    /// Empties the role's report directory and writes the suite's specification into it.
    fn prepare(&self, directory: &Path, mut spec: serde_json::Value) -> Result<std::path::PathBuf> {
        if directory.exists() {
            // Verdicts of an earlier run must not be able to pass for this one's.
            fs::remove_dir_all(directory)
                .with_context(|| format!("could not empty {}", directory.display()))?;
        }
        fs::create_dir_all(directory)?;
        spec["outdir"] = json!(directory);
        spec["cases"] = json!(self.cases.patterns);
        spec["exclude-cases"] = json!([]);
        spec["exclude-agent-cases"] = json!({});
        let file = directory.join("spec.json");
        fs::write(&file, serde_json::to_vec_pretty(&spec)?)?;
        Ok(file)
    }
}

/// An address nobody listens on right now.
fn free_address() -> Result<SocketAddr> {
    Ok(TcpListener::bind("127.0.0.1:0")?.local_addr()?)
}

/// Returns once somebody accepts connections at `address`.
fn wait_until_listening(server: &mut Background, address: SocketAddr) -> Result<()> {
    let deadline = Instant::now() + START_LIMIT;
    while TcpStream::connect(address).is_err() {
        ensure!(server.is_running()?, "wstest ended before it listened; see its log");
        ensure!(Instant::now() < deadline, "wstest does not listen after {START_LIMIT:?}");
        thread::sleep(Duration::from_millis(20));
    }
    Ok(())
}

/// What is said when there is no way to run the suite.
fn missing_suite() -> Missing {
    Missing::new(
        "the Autobahn test suite",
        "install Python 2.7 (or set PYTHON27 to it), or start docker, or set WSTEST to a wstest",
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn full_run_expects_every_case() {
        let full = Autobahn { full: true, ..Autobahn::default() }.selection();
        assert_eq!(full.expected, Some(517));
    }
}
