//! Child processes: `stream` one to its end while counting its tests, `capture` its output, or keep
//! one in the `Background`; none outlives its owner.

use std::io::{BufRead as _, BufReader};
use std::process::{Child, ChildStdout, Command, Stdio};
use std::sync::mpsc::{self, Receiver, RecvTimeoutError};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail, ensure};

use crate::report::Report;
use crate::tally::Tally;

/// For commands without a limit of their own; a cold release build of the whole workspace on two
/// slow cores stays well below it.
const LONGEST: Duration = Duration::from_secs(3600);

/// Runs `command` to its end, its output live on ours, and counts the tests it reports.
///
/// Whatever keeps it from a good end is a failure in the report.
pub(crate) fn stream(command: &mut Command) -> Report {
    stream_within(command, LONGEST)
}

/// [`stream`], killing the command once `limit` is over.
pub(crate) fn stream_within(command: &mut Command, limit: Duration) -> Report {
    let mut report = Report::default();
    let result = each_line(command, limit, |line| {
        println!("{line}");
        if let Some(tally) = Tally::from_line(line) {
            report.tally += tally;
        }
    });
    if let Err(error) = result {
        report.fail(format!("{error:#}"));
    }
    report
}

/// Runs `command` to its end, which must be a good one and within `limit`, and hands `handle_line`
/// each line of its standard output as it comes.
pub(crate) fn each_line(
    command: &mut Command,
    limit: Duration,
    mut handle_line: impl FnMut(&str),
) -> Result<()> {
    let deadline = Instant::now() + limit;
    let mut child = Background::start_piped(command)?;
    let lines = lines(child.stdout.take().expect("start_piped pipes the standard output"));
    loop {
        match lines.recv_timeout(deadline.saturating_duration_since(Instant::now())) {
            Ok(line) => handle_line(&line),
            Err(RecvTimeoutError::Disconnected) => break,
            Err(RecvTimeoutError::Timeout) => {
                bail!("`{}` still ran after {limit:?}: killed", command_line(command));
            }
        }
    }
    let status = child.child.wait()?;
    ensure!(status.success(), "`{}` failed: {status}", command_line(command));
    Ok(())
}

/// The standard output of `command`, which must succeed.
pub(crate) fn capture(command: &mut Command) -> Result<String> {
    let output = command
        .stdin(Stdio::null())
        .stderr(Stdio::inherit())
        .output()
        .with_context(|| format!("could not start `{}`", command_line(command)))?;
    ensure!(output.status.success(), "`{}` failed: {}", command_line(command), output.status);
    Ok(String::from_utf8(output.stdout)?)
}

/// A child that runs beside us and is killed when this is dropped.
pub(crate) struct Background {
    child: Child,
    stdout: Option<ChildStdout>,
}

impl Background {
    /// Shows and starts `command`; where its output goes is the caller's choice.
    pub(crate) fn start(command: &mut Command) -> Result<Self> {
        println!("$ {}", command_line(command));
        let mut child = command
            .stdin(Stdio::null())
            .spawn()
            .with_context(|| format!("could not start `{}`", command_line(command)))?;
        let stdout = child.stdout.take();
        Ok(Self { child, stdout })
    }

    /// Starts `command` and waits for a line of its standard output that begins with `prefix`.
    ///
    /// Returns the rest of that line; what the child prints later is dropped.
    pub(crate) fn start_and_wait_for(
        command: &mut Command,
        prefix: &str,
        limit: Duration,
    ) -> Result<(Self, String)> {
        let deadline = Instant::now() + limit;
        let mut child = Self::start_piped(command)?;
        let lines = lines(child.stdout.take().expect("start_piped pipes the standard output"));
        loop {
            let left = deadline.saturating_duration_since(Instant::now());
            match lines.recv_timeout(left) {
                Ok(line) => {
                    if let Some(rest) = line.strip_prefix(prefix) {
                        return Ok((child, rest.trim().to_owned()));
                    }
                }
                Err(_) => bail!("`{}` never printed `{prefix}`", command_line(command)),
            }
        }
    }

    /// Whether the child has not ended yet.
    pub(crate) fn is_running(&mut self) -> Result<bool> {
        Ok(self.child.try_wait()?.is_none())
    }

    fn start_piped(command: &mut Command) -> Result<Self> {
        Self::start(command.stdout(Stdio::piped()))
    }
}

impl Drop for Background {
    fn drop(&mut self) {
        // Both fail only when the child has already ended, which is what we want of it.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// How `command` would be typed.
fn command_line(command: &Command) -> String {
    let mut words = command.get_program().to_string_lossy().into_owned();
    for argument in command.get_args() {
        words.push(' ');
        words.push_str(&argument.to_string_lossy());
    }
    words
}

/// Reads `output` line by line on a thread, to its end even when nobody listens: the child must not
/// block on it.
fn lines(output: ChildStdout) -> Receiver<String> {
    let (sender, receiver) = mpsc::channel();
    thread::spawn(move || {
        for line in BufReader::new(output).split(b'\n').map_while(Result::ok) {
            let _ = sender.send(String::from_utf8_lossy(&line).into_owned());
        }
    });
    receiver
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shell(script: &str) -> Command {
        let mut command = Command::new("sh");
        command.args(["-c", script]);
        command
    }

    #[test]
    fn stream_counts_and_notes_the_exit_status() {
        let report = stream(&mut shell("echo '3 passed, 0 failed'; exit 4"));
        assert_eq!(report.tally.passed, 3);
        assert_eq!(report.failures.len(), 1);
        assert!(!report.passed());
    }

    #[test]
    fn command_over_its_limit_is_killed() {
        let started = Instant::now();
        let mut command = shell("echo begun; exec tail -f /dev/null");
        let report = stream_within(&mut command, Duration::from_millis(50));
        assert!(report.failures[0].contains("killed"), "{report:?}");
        assert!(started.elapsed() < Duration::from_secs(30));
    }

    #[test]
    fn background_reports_the_line_waited_for() {
        let mut command = shell("echo hello; echo listening on ws://here; exec tail -f /dev/null");
        let limit = Duration::from_secs(30);
        let (mut child, address) =
            Background::start_and_wait_for(&mut command, "listening on ", limit).unwrap();
        assert_eq!(address, "ws://here");
        assert!(child.is_running().unwrap());
        let error = Background::start_and_wait_for(&mut shell("echo no"), "listening on ", limit);
        assert!(error.is_err());
    }
}
