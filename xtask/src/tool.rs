//! `Missing`: a program this machine lacks and the command that gets it; and how to look for
//! programs.
//!
//! What a missing tool means (skip or failure) is decided by whoever reads the report.

use std::env;
use std::fmt;
use std::path::PathBuf;
use std::process::{Command, Stdio};

/// The error of a task that needs something this machine does not have.
#[derive(Debug)]
pub(crate) struct Missing {
    /// What is needed.
    pub(crate) what: String,
    /// The command that gets it.
    pub(crate) remedy: String,
}

impl Missing {
    /// An error saying that `what` is needed and `remedy` gets it.
    pub(crate) fn new(what: impl Into<String>, remedy: impl Into<String>) -> Self {
        Self { what: what.into(), remedy: remedy.into() }
    }

    /// Whether a run may go on without a tool: CI may not, or a green run would mean less than it
    /// says.
    pub(crate) fn is_tolerated() -> bool {
        env::var_os("CI").is_none_or(|ci| ci != "true")
    }
}

impl fmt::Display for Missing {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} is missing; to get it: {}", self.what, self.remedy)
    }
}

impl std::error::Error for Missing {}

/// The file that `name` would run, if `PATH` has one.
pub(crate) fn on_path(name: &str) -> Option<PathBuf> {
    let path = env::var_os("PATH")?;
    env::split_paths(&path).map(|directory| directory.join(name)).find(|file| file.is_file())
}

/// Whether `command` runs and exits with success; what it prints is dropped.
pub(crate) fn succeeds(command: &mut Command) -> bool {
    command
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .status()
        .is_ok_and(|status| status.success())
}

/// Whether we may install system packages: the super-user on a system with apt.
pub(crate) fn can_apt() -> bool {
    on_path("apt-get").is_some()
        && Command::new("id").arg("-u").output().is_ok_and(|id| id.stdout == b"0\n")
}
