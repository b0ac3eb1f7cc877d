//! `Examples`: the example programs, built for release, that the suites outside of Rust are run
//! against.

use std::path::PathBuf;

use anyhow::{Result, ensure};

use crate::process::stream;
use crate::workspace::Workspace;

/// Where the built examples are.
pub(crate) struct Examples {
    directory: PathBuf,
}

impl Examples {
    /// Builds all of them; nothing happens when they are fresh.
    pub(crate) fn build(workspace: &Workspace) -> Result<Self> {
        let line = "cargo build --release --locked --examples -p examples";
        let build = stream(&mut workspace.command(line));
        ensure!(build.passed(), "the examples do not build");
        Ok(Self { directory: workspace.target.join("release/examples") })
    }

    /// The program of the example called `name`.
    pub(crate) fn program(&self, name: &str) -> PathBuf {
        self.directory.join(name).with_extension(std::env::consts::EXE_EXTENSION)
    }
}
