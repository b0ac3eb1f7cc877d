//! `cargo xtask browser`: the `chat` example's page, and one that talks to `echo`, in a real Chromium
//! driven by `interop/browser.mjs`.

use std::env;
use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Result, ensure};

use crate::examples::Examples;
use crate::interop::Node;
use crate::process::{stream, stream_within};
use crate::report::Report;
use crate::tool::{Missing, can_apt, on_path};
use crate::workspace::Workspace;

/// Chosen above the script's own limit, which ends a stuck browser more gently.
const LIMIT: Duration = Duration::from_secs(300);

/// What Chromium is called on one system or another.
const NAMES: [&str; 4] = ["chromium", "chromium-browser", "google-chrome", "google-chrome-stable"];

/// Runs the browser's checks.
pub(crate) fn run(workspace: &Workspace) -> Result<Report> {
    let node = Node::provision(workspace)?;
    let chromium = chromium(workspace)?;
    let examples = Examples::build(workspace)?;
    let mut command = node.script(workspace, "browser.mjs");
    command.arg(examples.program("chat")).arg(examples.program("echo")).env("CHROMIUM", chromium);
    Ok(stream_within(&mut command, LIMIT))
}

/// Finds Chromium, or installs it where that is ours to do.
fn chromium(workspace: &Workspace) -> Result<PathBuf> {
    if let Some(chromium) = env::var_os("CHROMIUM") {
        return Ok(chromium.into());
    }
    let find = || NAMES.into_iter().find_map(on_path);
    if let Some(chromium) = find() {
        return Ok(chromium);
    }
    let install = "apt-get install -y --no-install-recommends chromium";
    if !can_apt() {
        return Err(Missing::new("chromium", format!("{install}, or set CHROMIUM")).into());
    }
    for line in ["apt-get update", install] {
        ensure!(stream(&mut workspace.command(line)).passed(), "`{line}` failed");
    }
    find().ok_or_else(|| Missing::new("chromium", "set CHROMIUM to its path").into())
}
