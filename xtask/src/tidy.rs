//! `cargo xtask tidy`: the rules that no compiler checks.
//!
//! `layers` holds those of the crate graph, `rules` those of single files, `source` the reading of
//! a file. What rustfmt and clippy can check is not tidy's business.

mod finding;
mod layers;
mod rules;
mod source;

use std::fs;
use std::path::Path;

use anyhow::{Context as _, Result};

use crate::report::Report;
use crate::workspace::Workspace;

pub(crate) use self::layers::LAYERS;
use self::source::Source;

/// Where the project's own text is.
const DIRECTORIES: [&str; 5] = ["crates", "examples", "benches", "fuzz/fuzz_targets", "xtask"];
/// The kinds of file that rules apply to.
const EXTENSIONS: [&str; 7] = ["rs", "py", "mjs", "js", "html", "md", "sh"];
/// What tools leave beside sources.
const FOREIGN: [&str; 3] = ["target", "node_modules", "__pycache__"];

/// Checks everything; each finding is a failure, each long file a warning.
pub(crate) fn run(workspace: &Workspace) -> Result<Report> {
    let mut report = Report::default();
    let sources = sources(workspace)?;
    for source in &sources {
        for finding in rules::check(source) {
            report.fail(finding.to_string());
        }
        if let Some(warning) = rules::long_file(source) {
            println!("warning: {warning}");
        }
    }
    for finding in layers::check(workspace)? {
        report.fail(finding.to_string());
    }
    println!("tidy: {} files, {} findings", sources.len(), report.failures.len());
    Ok(report)
}

/// Reads the project's files: the directories above, and the documents at the root.
fn sources(workspace: &Workspace) -> Result<Vec<Source>> {
    let mut sources = Vec::new();
    for directory in DIRECTORIES {
        collect(&workspace.root, Path::new(directory), true, &mut sources)?;
    }
    collect(&workspace.root, Path::new(""), false, &mut sources)?;
    sources.sort_by(|one, other| one.path.cmp(&other.path));
    Ok(sources)
}

/// Reads the files in `directory`, a path below `root`, and those further down if `deep`.
fn collect(root: &Path, directory: &Path, deep: bool, sources: &mut Vec<Source>) -> Result<()> {
    let entries = fs::read_dir(root.join(directory))
        .with_context(|| format!("could not read {}/", directory.display()))?;
    for entry in entries {
        let entry = entry?;
        let name = entry.file_name();
        let path = directory.join(&name);
        if entry.file_type()?.is_dir() {
            if deep && !FOREIGN.iter().any(|foreign| name == *foreign) {
                collect(root, &path, deep, sources)?;
            }
        } else if EXTENSIONS.iter().any(|wanted| path.extension().is_some_and(|it| it == *wanted)) {
            let text = fs::read_to_string(root.join(&path))
                .with_context(|| format!("could not read {}", path.display()))?;
            sources.push(Source::new(path, text));
        }
    }
    Ok(())
}
