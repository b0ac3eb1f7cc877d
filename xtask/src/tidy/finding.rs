//! `Finding`: a place that breaks a rule, with the rule's reason and the way out.

use std::fmt;
use std::path::PathBuf;

/// One broken rule.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Finding {
    /// The file, from the root.
    pub(super) path: PathBuf,
    /// Counted from 1.
    pub(super) line: usize,
    /// What was found.
    pub(super) what: String,
    /// Why that matters.
    pub(super) why: &'static str,
    /// What to do instead.
    pub(super) remedy: &'static str,
}

impl fmt::Display for Finding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { path, line, what, why, remedy } = self;
        write!(f, "{}:{line}: {what}: {why}; {remedy}", path.display())
    }
}
