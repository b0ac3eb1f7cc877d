//! `cargo xtask interop`: the `echo` and `client` examples against other people's WebSocket stacks.
//!
//! The checks are the scripts in `xtask/interop`; this provisions the versions pinned there, under
//! `target/interop`, and runs them.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use anyhow::{Context as _, Result};

use crate::examples::Examples;
use crate::process::{capture, stream, stream_within};
use crate::report::Report;
use crate::tool::{Missing, succeeds};
use crate::workspace::Workspace;

/// Chosen above the scripts' own limits, which end their children more gently.
const LIMIT: Duration = Duration::from_secs(300);

/// Runs every script; one whose language is missing does not keep the others from running.
pub(crate) fn run(workspace: &Workspace) -> Result<Report> {
    let examples = Examples::build(workspace)?;
    let python = Python::provision(workspace);
    let node = Node::provision(workspace);
    let play = |mut command: Command| {
        command.arg(examples.program("echo")).arg(examples.program("client"));
        Ok(stream_within(&mut command, LIMIT))
    };
    let mut report = Report::default();
    match python {
        Ok(python) => {
            for script in ["python_websockets.py", "python_wsproto.py"] {
                report.add(script, play(python.script(workspace, script)));
            }
        }
        Err(error) => report.add("interop with Python", Err(error)),
    }
    match node {
        Ok(node) => report.add("node_ws.mjs", play(node.script(workspace, "node_ws.mjs"))),
        Err(error) => report.add("interop with Node", Err(error)),
    }
    println!("{}", report.tally);
    Ok(report)
}

/// A Python that has the pinned packages of `requirements.txt`.
struct Python {
    interpreter: PathBuf,
}

impl Python {
    /// Makes the virtual environment, unless it is there and its pins are the wanted ones.
    fn provision(workspace: &Workspace) -> Result<Self> {
        let python = ["python3", "python3.14", "python3.13", "python3.12", "python3.11"]
            .into_iter()
            .find(|name| {
                let check = "import sys; sys.exit(sys.version_info < (3, 11))";
                succeeds(workspace.program(name).args(["-c", check]))
            })
            .ok_or_else(|| Missing::new("Python 3.11 or later", "apt-get install python3"))?;
        let venv = workspace.target.join("interop/venv");
        let interpreter = venv.join("bin/python");
        let wanted = scripts(workspace).join("requirements.txt");
        let installed = venv.join("requirements.txt");
        if !same_content(&wanted, &installed)? {
            let mut create = workspace.command(python);
            create.args(["-m", "venv", "--clear"]).arg(&venv);
            install(&mut create, "a Python with venv", "apt-get install python3-venv")?;
            let mut pip = workspace.program(&interpreter);
            pip.args(["-m", "pip", "install", "--quiet", "--requirement"]).arg(&wanted);
            install(&mut pip, "what requirements.txt pins", "let pip reach PyPI")?;
            fs::copy(&wanted, &installed)?;
        }
        Ok(Self { interpreter })
    }

    /// The command that runs `script`.
    fn script(&self, workspace: &Workspace, script: &str) -> Command {
        let mut command = workspace.program(&self.interpreter);
        // Unbuffered, so that its lines come as they happen; and no `__pycache__` among our
        // sources.
        command.args(["-u", "-B"]).arg(scripts(workspace).join(script));
        command
    }
}

/// A Node and the directory of the packages that `package-lock.json` pins.
pub(crate) struct Node {
    modules: PathBuf,
}

impl Node {
    /// Installs the packages, unless they are there and the wanted ones.
    pub(crate) fn provision(workspace: &Workspace) -> Result<Self> {
        let version = capture(&mut workspace.command("node --version")).unwrap_or_default();
        if !is_recent_node(&version) {
            return Err(Missing::new("Node 20 or later", "https://nodejs.org/en/download").into());
        }
        let directory = workspace.target.join("interop");
        let modules = directory.join("node_modules");
        let lock = directory.join("package-lock.json");
        let wanted = scripts(workspace);
        let fresh = modules.join(".package-lock.json").is_file();
        if !fresh || !same_content(&wanted.join("package-lock.json"), &lock)? {
            fs::create_dir_all(&directory)?;
            for file in ["package.json", "package-lock.json"] {
                fs::copy(wanted.join(file), directory.join(file))?;
            }
            let mut npm = workspace.command("npm ci --no-audit --no-fund");
            let done = install(
                npm.current_dir(&directory),
                "what package-lock.json pins",
                "apt-get install npm, and let it reach the npm registry",
            );
            if done.is_err() {
                // Or the next run would take the half-made directory for a finished one.
                fs::remove_file(lock)?;
            }
            done?;
        }
        Ok(Self { modules })
    }

    /// The command that runs `script`; it finds its packages through `INTEROP_NODE_MODULES`.
    pub(crate) fn script(&self, workspace: &Workspace, script: &str) -> Command {
        let mut command = workspace.command("node");
        command.arg(scripts(workspace).join(script)).env("INTEROP_NODE_MODULES", &self.modules);
        command
    }
}

/// Where the scripts and their pins are.
fn scripts(workspace: &Workspace) -> PathBuf {
    workspace.root.join("xtask/interop")
}

/// Runs a provisioning step; its failure means that something is missing, not that a check failed.
fn install(command: &mut Command, what: &str, remedy: &str) -> Result<()> {
    if stream(command).passed() {
        return Ok(());
    }
    Err(Missing::new(what, remedy).into())
}

/// Whether `installed` exists and says what `wanted` says.
fn same_content(wanted: &Path, installed: &Path) -> Result<bool> {
    let wanted = fs::read(wanted).with_context(|| format!("{}", wanted.display()))?;
    Ok(fs::read(installed).is_ok_and(|installed| installed == wanted))
}

/// Whether `node --version` printed at least v20, the oldest that the pinned packages support.
fn is_recent_node(version: &str) -> bool {
    let major = version.trim().strip_prefix('v').and_then(|version| version.split('.').next());
    major.and_then(|major| major.parse::<u32>().ok()).is_some_and(|major| major >= 20)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn node_version_is_read() {
        assert!(is_recent_node("v20.20.2\n"));
        assert!(!is_recent_node("v18.19.0\n"));
        assert!(!is_recent_node(""));
    }
}
