//! `cargo xtask ci`: everything CI runs, step by step, with a summary and one total of all tests at
//! the end.
//!
//! Green here is green there: the workflow calls the same steps.

use std::time::{Duration, Instant};

use anyhow::Result;
use clap::{Args, ValueEnum};

use crate::autobahn::Autobahn;
use crate::examples::Examples;
use crate::process::stream;
use crate::report::Report;
use crate::tally::Tally;
use crate::tool::{Missing, succeeds};
use crate::workspace::Workspace;
use crate::{browser, fuzz, interop, tidy};

/// The command line of `cargo xtask ci`.
#[derive(Args, Default)]
pub(crate) struct Ci {
    /// Go on after a failed step
    #[arg(long)]
    keep_going: bool,
    /// Only these steps
    #[arg(long, value_delimiter = ',')]
    only: Vec<Step>,
    /// All but these steps
    #[arg(long, value_delimiter = ',')]
    skip: Vec<Step>,
}

/// The steps, cheapest first.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Step {
    /// Formatting
    Fmt,
    /// Lints, warnings denied
    Clippy,
    /// `cargo xtask tidy`
    Tidy,
    /// The example programs, which later steps run
    Examples,
    /// Unit, integration and doc tests
    Tests,
    /// The documentation, private items included, warnings denied
    Docs,
    /// Each library crate alone and without default features
    Features,
    /// That the benches compile
    Benches,
    /// That the fuzz targets compile
    FuzzCheck,
    /// `cargo xtask autobahn`
    Autobahn,
    /// `cargo xtask interop`
    Interop,
    /// `cargo xtask browser`
    Browser,
}

/// What became of a step.
struct Row {
    step: Step,
    verdict: Verdict,
    took: Duration,
    tally: Tally,
}

impl Row {
    fn not_reached(step: Step) -> Self {
        Self { step, verdict: Verdict::NotReached, took: Duration::ZERO, tally: Tally::default() }
    }
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Verdict {
    Ok,
    Failed,
    Skipped,
    NotReached,
}

impl Ci {
    /// Runs the selected steps; whether all went well.
    pub(crate) fn run(&self, workspace: &Workspace) -> bool {
        let mut rows: Vec<Row> = Vec::new();
        let mut everything = Report::default();
        for step in self.selection() {
            let mut row = Row::not_reached(step);
            let stop = !self.keep_going && rows.iter().any(|row| row.verdict == Verdict::Failed);
            if !stop {
                println!("\n== {} ==", step.name());
                let started = Instant::now();
                let mut report = Report::default();
                report.add(&step.name(), step.run(workspace));
                row.took = started.elapsed();
                row.verdict = verdict(&report, Missing::is_tolerated());
                row.tally = counted(report.tally, row.verdict);
                println!("== {}: {} in {:.1?} ==", step.name(), row.verdict.word(), row.took);
                everything.add(&step.name(), Ok(report));
            }
            rows.push(row);
        }
        summarize(&rows, &everything);
        rows.iter().all(|row| matches!(row.verdict, Verdict::Ok | Verdict::Skipped))
    }

    fn selection(&self) -> Vec<Step> {
        let wanted = |step: &Step| {
            (self.only.is_empty() || self.only.contains(step)) && !self.skip.contains(step)
        };
        Step::value_variants().iter().copied().filter(wanted).collect()
    }
}

impl Step {
    /// The step's name on the command line.
    fn name(self) -> String {
        self.to_possible_value().map(|value| value.get_name().to_owned()).unwrap_or_default()
    }

    fn run(self, workspace: &Workspace) -> Result<Report> {
        let cargo = |line: &str| Ok(stream(&mut workspace.command(&format!("cargo {line}"))));
        match self {
            Self::Fmt => {
                component(workspace, "fmt", "rustfmt")?;
                cargo("fmt --all --check")
            }
            Self::Clippy => {
                component(workspace, "clippy", "clippy")?;
                cargo("clippy --workspace --all-targets --all-features --locked -- -D warnings")
            }
            Self::Tidy => tidy::run(workspace),
            Self::Examples => Examples::build(workspace).map(|_| Report::default()),
            // `--no-fail-fast`: all that fails, in one run.
            Self::Tests => cargo("test --workspace --all-features --locked --no-fail-fast"),
            Self::Docs => {
                let line = "cargo doc --workspace --all-features --no-deps \
                            --document-private-items --locked";
                Ok(stream(workspace.command(line).env("RUSTDOCFLAGS", "-D warnings")))
            }
            Self::Features => {
                let mut report = Report::default();
                for (layer, _) in tidy::LAYERS {
                    let line = format!("check -p {layer} --no-default-features --locked");
                    report.add(layer, cargo(&line));
                }
                Ok(report)
            }
            Self::Benches => cargo("check -p benches --benches --locked"),
            Self::FuzzCheck => fuzz::check(workspace),
            Self::Autobahn => Autobahn::default().run(workspace),
            Self::Interop => interop::run(workspace),
            Self::Browser => browser::run(workspace),
        }
    }
}

impl Verdict {
    fn word(self) -> &'static str {
        match self {
            Self::Ok => "ok",
            Self::Failed => "FAILED",
            Self::Skipped => "SKIPPED",
            Self::NotReached => "not reached",
        }
    }
}

/// A step that could run only in part is skipped, not ok.
fn verdict(report: &Report, missing_is_tolerated: bool) -> Verdict {
    match (report.passed(), report.missing.is_empty()) {
        (false, _) => Verdict::Failed,
        (true, true) => Verdict::Ok,
        (true, false) if missing_is_tolerated => Verdict::Skipped,
        (true, false) => Verdict::Failed,
    }
}

/// A step that fails before it counts a failed test is one: a red run's total must not end in "0
/// failed".
fn counted(tally: Tally, verdict: Verdict) -> Tally {
    let failed = tally.failed.max(u64::from(verdict == Verdict::Failed));
    Tally { failed, ..tally }
}

/// Prints the table, what failed, what was skipped, and on the last line the total.
fn summarize(rows: &[Row], report: &Report) {
    println!("\n== summary ==");
    println!(
        "{:<12} {:<12} {:>9} {:>8} {:>8} {:>8}",
        "", "", "time", "passed", "failed", "ignored"
    );
    let mut total = Tally::default();
    for Row { step, verdict, took, tally } in rows {
        let took = format!("{:.1}s", took.as_secs_f64());
        let Tally { passed, failed, ignored } = tally;
        let (step, word) = (step.name(), verdict.word());
        println!("{step:<12} {word:<12} {took:>9} {passed:>8} {failed:>8} {ignored:>8}");
        total += *tally;
    }
    for failure in &report.failures {
        println!("FAILED  {failure}");
    }
    let word = if Missing::is_tolerated() { "SKIPPED" } else { "FAILED " };
    for missing in &report.missing {
        println!("{word} {missing}");
    }
    println!("{total}");
}

/// Checks for a cargo subcommand that rustup may have left out.
fn component(workspace: &Workspace, subcommand: &str, component: &str) -> Result<()> {
    if succeeds(&mut workspace.command(&format!("cargo {subcommand} --version"))) {
        return Ok(());
    }
    Err(Missing::new(component, format!("rustup component add {component}")).into())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn selection_keeps_the_order_of_the_steps() {
        let ci = Ci { only: vec![Step::Tests, Step::Fmt, Step::Docs], ..Ci::default() };
        assert_eq!(ci.selection(), [Step::Fmt, Step::Tests, Step::Docs]);
        let ci = Ci { skip: vec![Step::Browser], ..ci };
        assert_eq!(ci.selection(), [Step::Fmt, Step::Tests, Step::Docs]);
        let ci = Ci { skip: vec![Step::Browser], ..Ci::default() };
        assert_eq!(ci.selection().len(), Step::value_variants().len() - 1);
    }

    #[test]
    fn missing_tool_fails_in_ci_and_skips_elsewhere() {
        let missing = vec![Missing::new("node", "apt-get install nodejs")];
        let report = Report { missing, ..Report::default() };
        assert!(verdict(&report, true) == Verdict::Skipped);
        assert!(verdict(&report, false) == Verdict::Failed);
    }

    #[test]
    fn red_run_never_totals_zero_failed() {
        let tally = Tally { passed: 7, failed: 0, ignored: 0 };
        assert_eq!(counted(tally, Verdict::Failed).failed, 1);
        assert_eq!(counted(tally, Verdict::Ok), tally);
        let tally = Tally { failed: 3, ..tally };
        assert_eq!(counted(tally, Verdict::Failed), tally);
    }
}
