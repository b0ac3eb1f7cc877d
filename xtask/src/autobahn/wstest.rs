//! `Wstest`: a way to run the Autobahn test suite's program on this machine.

use std::env;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{self, Command};

use anyhow::{Result, ensure};

use crate::process::{capture, stream};
use crate::tool::succeeds;
use crate::workspace::Workspace;

use super::missing_suite;

/// The suite's last release; it needs Python 2.7, as they all do.
const PACKAGE: &str = "autobahntestsuite==25.10.1";
const IMAGE: &str = "crossbario/autobahn-testsuite";

/// The suite's program: on this machine, or in a container.
pub(super) enum Wstest {
    /// A `wstest` that can be run.
    Program(PathBuf),
    /// The suite's image; `user` owns the reports it writes.
    Docker { home: PathBuf, user: String, name: String },
}

impl Wstest {
    /// Looks for `$WSTEST`, then on `PATH`, then installs it under `home`, then asks docker.
    pub(super) fn find(workspace: &Workspace, home: &Path) -> Result<Self> {
        if let Some(program) = env::var_os("WSTEST") {
            return Ok(Self::Program(program.into()));
        }
        // Run, not only found: pyenv puts commands on PATH that refuse outside of their version.
        if succeeds(&mut workspace.command("wstest --autobahnversion")) {
            return Ok(Self::Program("wstest".into()));
        }
        let installed = home.join("wstest-25.10.1");
        let program = installed.join("bin/wstest");
        if program.is_file() {
            return Ok(Self::Program(program));
        }
        if let Some(python) = python27(workspace) {
            match install(workspace, home, &python, &installed) {
                Ok(()) => return Ok(Self::Program(program)),
                Err(error) => eprintln!("!! {error:#}"),
            }
        }
        if succeeds(&mut workspace.command("docker info")) {
            let id = |flag| capture(Command::new("id").arg(flag));
            return Ok(Self::Docker {
                home: home.to_path_buf(),
                user: format!("{}:{}", id("-u")?.trim(), id("-g")?.trim()),
                name: format!("xtask-wstest-{}", process::id()),
            });
        }
        Err(missing_suite().into())
    }

    /// A command that runs it with `arguments`; paths below `home` mean the same inside and
    /// outside.
    pub(super) fn command(&self, arguments: &[&str]) -> Command {
        let mut command = match self {
            Self::Program(program) => Command::new(program),
            Self::Docker { home, user, name } => {
                let mut docker = Command::new("docker");
                docker.args(["run", "--rm", "--network", "host", "--user", user, "--name", name]);
                docker.arg("--volume").arg(format!("{0}:{0}", home.display()));
                docker.args([IMAGE, "wstest"]);
                docker
            }
        };
        // Its dependencies announce on each start that Python 2 is no longer supported.
        command.args(arguments).env("PYTHONWARNINGS", "ignore");
        command
    }
}

impl Drop for Wstest {
    /// A killed `docker run` leaves its container running.
    fn drop(&mut self) {
        if let Self::Docker { name, .. } = self {
            succeeds(Command::new("docker").args(["kill", name]));
        }
    }
}

/// A Python 2.7 that works: `$PYTHON27`, on `PATH`, or one of pyenv's.
fn python27(workspace: &Workspace) -> Option<PathBuf> {
    let mut candidates: Vec<PathBuf> =
        env::var_os("PYTHON27").map(PathBuf::from).into_iter().collect();
    candidates.push("python2.7".into());
    if let Some(pyenv) = env::home_dir().map(|home| home.join(".pyenv/versions")) {
        let versions = fs::read_dir(pyenv).into_iter().flatten().flatten();
        candidates.extend(
            versions
                .filter(|version| version.file_name().to_string_lossy().starts_with("2.7"))
                .map(|version| version.path().join("bin/python2.7")),
        );
    }
    let check = "import sys; sys.exit(sys.version_info[:2] != (2, 7))";
    candidates.into_iter().find(|python| succeeds(workspace.program(python).args(["-c", check])))
}

/// Installs the suite into a virtual environment at `installed`.
///
/// Python 2.7 brings no `venv`, so `virtualenv` is fetched first, next to it rather than into the
/// user's home.
fn install(workspace: &Workspace, home: &Path, python: &Path, installed: &Path) -> Result<()> {
    let virtualenv = home.join("virtualenv");
    let mut steps = [workspace.program(python), workspace.program(python)];
    steps[0].args(["-m", "pip", "install", "--quiet", "--upgrade", "virtualenv", "--target"]);
    steps[0].arg(&virtualenv);
    steps[1].args(["-m", "virtualenv", "--quiet"]).arg(installed).env("PYTHONPATH", &virtualenv);
    let mut pip = workspace.program(installed.join("bin/pip"));
    pip.args(["install", "--quiet", PACKAGE]);
    for step in steps.iter_mut().chain([&mut pip]) {
        step.env("PYTHONWARNINGS", "ignore").env("PIP_DISABLE_PIP_VERSION_CHECK", "1");
        ensure!(stream(step).passed(), "could not install {PACKAGE}");
    }
    Ok(())
}
