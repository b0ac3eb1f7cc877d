//! `cargo xtask fuzz`: each target of `fuzz/` for some seconds; and the check that they still
//! compile.

use std::fs;
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use clap::Args;

use crate::process::{stream, stream_within};
use crate::report::Report;
use crate::tool::{Missing, on_path, succeeds};
use crate::workspace::Workspace;

/// A target's build comes on top of the seconds it may fuzz: with sanitizers, on two cores,
/// minutes.
const BUILD_LIMIT: Duration = Duration::from_secs(1800);

/// The command line of `cargo xtask fuzz`.
#[derive(Args)]
pub(crate) struct Fuzz {
    /// Seconds for each target
    #[arg(long, default_value_t = 10)]
    secs: u64,
}

impl Fuzz {
    /// Fuzzes every target; one passes that finds nothing.
    pub(crate) fn run(&self, workspace: &Workspace) -> Result<Report> {
        provision(workspace)?;
        let mut report = Report::default();
        for target in targets(workspace)? {
            // cargo-fuzz wants to be told: at the root it would look for a package, and find a
            // workspace.
            let mut command = workspace.command("cargo +nightly fuzz run --fuzz-dir fuzz");
            command.arg(&target).arg("--").arg(format!("-max_total_time={}", self.secs));
            let run = stream_within(&mut command, BUILD_LIMIT + Duration::from_secs(self.secs));
            let passed = run.passed();
            report.add(&target, Ok(run));
            report.tally.passed += u64::from(passed);
            report.tally.failed += u64::from(!passed);
        }
        println!("{}", report.tally);
        Ok(report)
    }
}

/// Type-checks the fuzz targets, on the stable compiler: only running them needs a nightly one.
pub(crate) fn check(workspace: &Workspace) -> Result<Report> {
    if ["c++", "g++", "clang++"].into_iter().all(|compiler| on_path(compiler).is_none()) {
        return Err(Missing::new("a C++ compiler (for libFuzzer)", "apt-get install g++").into());
    }
    let mut command = workspace.command("cargo check --manifest-path fuzz/Cargo.toml");
    if workspace.root.join("fuzz/Cargo.lock").exists() {
        command.arg("--locked");
    }
    Ok(stream(&mut command))
}

/// Finds a nightly toolchain and cargo-fuzz, or installs them where nobody else will: in CI.
fn provision(workspace: &Workspace) -> Result<()> {
    let tools = [
        (
            "a nightly toolchain",
            "cargo +nightly",
            "rustup toolchain install nightly --profile minimal",
        ),
        ("cargo-fuzz", "cargo fuzz", "cargo install cargo-fuzz --locked"),
    ];
    for (what, probe, remedy) in tools {
        let present = || succeeds(workspace.command(probe).arg("--version"));
        if present() {
            continue;
        }
        if Missing::is_tolerated() {
            return Err(Missing::new(what, remedy).into());
        }
        let install = stream(&mut workspace.command(remedy));
        ensure!(install.passed() && present(), "`{remedy}` did not bring {what}");
    }
    Ok(())
}

/// The names of the files in `fuzz/fuzz_targets`, sorted.
fn targets(workspace: &Workspace) -> Result<Vec<String>> {
    let directory = workspace.root.join("fuzz/fuzz_targets");
    let mut names = Vec::new();
    for entry in fs::read_dir(&directory).with_context(|| format!("{}", directory.display()))? {
        let path = entry?.path();
        if path.extension().is_some_and(|extension| extension == "rs") {
            names.extend(path.file_stem().map(|name| name.to_string_lossy().into_owned()));
        }
    }
    ensure!(!names.is_empty(), "no targets in fuzz/fuzz_targets");
    names.sort();
    Ok(names)
}
