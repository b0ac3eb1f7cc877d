//! `cargo xtask bench`: the criterion benches.

use anyhow::Result;
use clap::Args;

use crate::process::stream;
use crate::report::Report;
use crate::workspace::Workspace;

/// The command line of `cargo xtask bench`.
#[derive(Args)]
pub(crate) struct Bench {
    /// For criterion: a filter, `--save-baseline NAME`, …
    #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
    arguments: Vec<String>,
}

impl Bench {
    /// Runs the benches that the arguments select.
    pub(crate) fn run(&self, workspace: &Workspace) -> Result<Report> {
        let mut command = workspace.command("cargo bench --locked -p benches --");
        Ok(stream(command.args(&self.arguments)))
    }
}
