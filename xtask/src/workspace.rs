//! `Workspace`: where the repository and its build output are, and how to call programs there.

use std::env;
use std::ffi::OsStr;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context as _, Result};

/// The checkout that `cargo xtask` was called in.
pub(crate) struct Workspace {
    /// The directory of the workspace's `Cargo.toml`.
    pub(crate) root: PathBuf,
    /// Cargo's target directory; reports and provisioned tools go there too, so `cargo clean`
    /// removes them.
    pub(crate) target: PathBuf,
}

impl Workspace {
    /// Finds the workspace around xtask's own package.
    pub(crate) fn locate() -> Result<Self> {
        // As cargo says it now, not when it compiled us: two checkouts that share a target
        // directory share this program.
        let package = env::var_os("CARGO_MANIFEST_DIR").context("run it as `cargo xtask`")?;
        let root =
            Path::new(&package).parent().context("xtask is not in a workspace")?.to_path_buf();
        let target = match env::var_os("CARGO_TARGET_DIR") {
            Some(target) => root.join(target),
            None => root.join("target"),
        };
        Ok(Self { root, target })
    }

    /// The program at `path`, to be run at the root.
    pub(crate) fn program(&self, path: impl AsRef<OsStr>) -> Command {
        let mut command = Command::new(path);
        command.current_dir(&self.root);
        command
    }

    /// A command as one would type it, without quoting: words between spaces. To be run at the
    /// root.
    ///
    /// Cargo goes by name, not by `$CARGO`: rustup's proxy understands `+nightly`, a toolchain's
    /// own cargo does not.
    pub(crate) fn command(&self, line: &str) -> Command {
        let mut words = line.split_whitespace();
        let mut command = self.program(words.next().unwrap_or_default());
        command.args(words);
        command
    }
}
