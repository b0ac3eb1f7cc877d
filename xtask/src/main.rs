//! `cargo xtask`: the project's tasks, one module each; this file only parses the command line and
//! dispatches.
//!
//! The libraries are not its business: it depends on none of them and drives cargo, the example
//! programs and other people's WebSocket stacks from outside.
#![expect(
    clippy::print_stdout,
    clippy::print_stderr,
    reason = "a command-line program speaks through its terminal"
)]

mod autobahn;
mod bench;
mod browser;
mod ci;
mod examples;
mod fuzz;
mod interop;
mod process;
mod report;
mod tally;
mod tidy;
mod tool;
mod workspace;

use std::process::ExitCode;

use anyhow::Result;
use clap::{Parser, Subcommand};

use crate::report::Report;
use crate::workspace::Workspace;

/// The command line.
#[derive(Parser)]
#[command(name = "cargo xtask", bin_name = "cargo xtask", about = "The project's tasks")]
struct Arguments {
    #[command(subcommand)]
    task: Task,
}

#[derive(Subcommand)]
enum Task {
    /// Everything CI runs, in order, with a summary
    Ci(ci::Ci),
    /// The rules that no compiler checks: layers, forbidden words, file headers, tests without
    /// sleeps
    Tidy,
    /// The Autobahn test suite against the `echo` and `autobahn_client` examples
    Autobahn(autobahn::Autobahn),
    /// The `echo` and `client` examples against Python's websockets and wsproto, and Node's ws
    Interop,
    /// The `chat` and `echo` examples in a real Chromium
    Browser,
    /// The criterion benches; what follows is passed on to them
    Bench(bench::Bench),
    /// Each fuzz target for a while, on a nightly compiler
    Fuzz(fuzz::Fuzz),
}

fn main() -> ExitCode {
    match run(Arguments::parse().task) {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => {
            eprintln!("xtask: {error:#}");
            ExitCode::FAILURE
        }
    }
}

/// Whether the task passed.
fn run(task: Task) -> Result<bool> {
    let workspace = Workspace::locate()?;
    let result = match task {
        Task::Ci(ci) => return Ok(ci.run(&workspace)),
        Task::Tidy => tidy::run(&workspace),
        Task::Autobahn(autobahn) => autobahn.run(&workspace),
        Task::Interop => interop::run(&workspace),
        Task::Browser => browser::run(&workspace),
        Task::Bench(bench) => bench.run(&workspace),
        Task::Fuzz(fuzz) => fuzz.run(&workspace),
    };
    let mut report = Report::default();
    report.add("xtask", result);
    // Who asks for one task wants that one: here a missing tool is a failure everywhere.
    Ok(report.passed() && report.missing.is_empty())
}
