//! The crate graph: each library crate names only the one below it, and the lower two reach no I/O.

use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result};
use serde_json::Value;

use crate::process::capture;
use crate::workspace::Workspace;

use super::finding::Finding;

/// The library crates from the bottom up, each with whether it is sans-I/O.
pub(crate) const LAYERS: [(&str, bool); 4] =
    [("ws-proto", true), ("ws-handshake", true), ("ws-conn", false), ("ws-serve", false)];

/// What brings sockets and timers with it.
const IO_CRATES: [&str; 3] = ["mio", "socket2", "tokio"];

/// Asks cargo for the graph and checks it.
pub(super) fn check(workspace: &Workspace) -> Result<Vec<Finding>> {
    let line = "cargo metadata --no-deps --format-version 1 --locked";
    let metadata = serde_json::from_str(&capture(&mut workspace.command(line))?)?;
    let mut findings = dependencies(&metadata, &workspace.root)?;
    for (layer, _) in LAYERS.into_iter().filter(|&(_, sans_io)| sans_io) {
        // With every feature on: an optional dependency is one, too.
        let line = format!("cargo tree -p {layer} -e normal --all-features --prefix none --locked");
        findings.extend(io_in_tree(layer, &capture(&mut workspace.command(&line))?));
    }
    Ok(findings)
}

/// Checks what each package of `cargo metadata` names.
fn dependencies(metadata: &Value, root: &Path) -> Result<Vec<Finding>> {
    let packages = metadata["packages"].as_array().context("cargo metadata has no packages")?;
    let mut findings = Vec::new();
    for package in packages {
        let name = package["name"].as_str().context("a package has no name")?;
        let manifest = Path::new(package["manifest_path"].as_str().context("no manifest path")?);
        let manifest = manifest.strip_prefix(root).unwrap_or(manifest).to_path_buf();
        let named: Vec<(&str, bool)> = package["dependencies"]
            .as_array()
            .context("a package has no dependencies")?
            .iter()
            .filter_map(|dependency| {
                // The kind is "dev", "build", or null for an ordinary one.
                Some((dependency["name"].as_str()?, dependency["kind"] == "dev"))
            })
            .collect();
        findings.extend(package_dependencies(name, &manifest, &named));
    }
    Ok(findings)
}

/// Checks one package; `named` are its dependencies, each with whether only its tests have it.
fn package_dependencies(name: &str, manifest: &Path, named: &[(&str, bool)]) -> Vec<Finding> {
    let finding =
        |what, why, remedy| Finding { path: manifest.to_path_buf(), line: 1, what, why, remedy };
    let position = |of| LAYERS.iter().position(|&(layer, _)| layer == of);
    let is_library = manifest.starts_with("crates");
    let level = position(name);
    if is_library && level.is_none() {
        return vec![finding(
            format!("`{name}` is no known layer"),
            "each library crate has its place in the order of layers",
            "add it to LAYERS in xtask/src/tidy/layers.rs, or move the code into a layer",
        )];
    }
    let mut findings = Vec::new();
    for &(dependency, only_tests) in named {
        let Some(below) = position(dependency) else { continue };
        if name == "xtask" {
            findings.push(finding(
                format!("xtask depends on `{dependency}`"),
                "it must build and check the libraries while they are broken",
                "drive an example program instead",
            ));
        } else if level.is_some_and(|level| !only_tests && below + 1 != level) {
            findings.push(finding(
                format!("`{name}` depends on `{dependency}`"),
                "a layer names only the one directly below",
                "reach deeper types through the re-exports of the layer below",
            ));
        }
    }
    findings
}

/// Checks the names at the beginnings of the lines of `cargo tree --prefix none`.
fn io_in_tree(layer: &str, tree: &str) -> Vec<Finding> {
    let mut names: Vec<&str> = tree.lines().filter_map(|line| line.split(' ').next()).collect();
    names.sort_unstable();
    names.dedup();
    names
        .into_iter()
        .filter(|name| IO_CRATES.contains(name))
        .map(|name| Finding {
            path: PathBuf::from(format!("crates/{layer}/Cargo.toml")),
            line: 1,
            what: format!("`{name}` is in the dependency tree of `{layer}`"),
            why: "this layer is sans-I/O: it works under any runtime, and in tests without one",
            remedy: "move what needs it to ws-conn; `cargo tree -i` shows who brings it",
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn findings(name: &str, named: &[(&str, bool)]) -> usize {
        package_dependencies(name, &Path::new("crates").join(name).join("Cargo.toml"), named).len()
    }

    #[test]
    fn layer_names_only_the_one_directly_below() {
        assert_eq!(findings("ws-proto", &[("bytes", false)]), 0);
        assert_eq!(findings("ws-conn", &[("ws-handshake", false), ("tokio", false)]), 0);
        assert_eq!(findings("ws-conn", &[("ws-handshake", false), ("ws-proto", false)]), 1);
        assert_eq!(findings("ws-proto", &[("ws-handshake", false)]), 1);
        assert_eq!(findings("ws-serve", &[("ws-conn", false), ("ws-serve", false)]), 1);
        // Tests may look deeper.
        assert_eq!(findings("ws-serve", &[("ws-conn", false), ("ws-proto", true)]), 0);
    }

    #[test]
    fn library_outside_of_the_layers_is_found() {
        assert_eq!(findings("ws-extra", &[]), 1);
        let examples = Path::new("examples/Cargo.toml");
        assert!(package_dependencies("examples", examples, &[("ws-serve", false)]).is_empty());
    }

    #[test]
    fn xtask_depends_on_no_layer() {
        let manifest = Path::new("xtask/Cargo.toml");
        assert!(package_dependencies("xtask", manifest, &[("clap", false)]).is_empty());
        assert_eq!(package_dependencies("xtask", manifest, &[("ws-proto", true)]).len(), 1);
    }

    #[test]
    fn metadata_is_read() {
        let metadata = serde_json::json!({ "packages": [{
            "name": "ws-conn",
            "manifest_path": "/repo/crates/ws-conn/Cargo.toml",
            "dependencies": [
                { "name": "ws-handshake", "kind": null },
                { "name": "ws-proto", "kind": null },
                { "name": "ws-serve", "kind": "dev" },
            ],
        }]});
        let findings = dependencies(&metadata, Path::new("/repo")).unwrap();
        assert_eq!(findings.len(), 1);
        assert_eq!(findings[0].path, Path::new("crates/ws-conn/Cargo.toml"));
        assert!(findings[0].what.contains("ws-proto"));
    }

    #[test]
    fn io_is_found_in_a_tree() {
        let tree = "ws-proto v0.1.0 (crates/ws-proto)\ntokio-util v0.7.0\ntokio v1.48.0 (*)\n";
        let findings = io_in_tree("ws-proto", tree);
        assert_eq!(findings.len(), 1);
        assert!(findings[0].what.contains("`tokio`"));
        assert!(io_in_tree("ws-proto", "ws-proto v0.1.0\nbytes v1.11.1\n").is_empty());
    }
}
