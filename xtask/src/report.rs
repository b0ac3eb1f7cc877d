//! `Report`: what came of a task — tests counted, what failed, what was missing — and how parts add
//! up.

use anyhow::Result;

use crate::tally::Tally;
use crate::tool::Missing;

/// The outcome of a task, or of one of its parts.
#[derive(Debug, Default)]
pub(crate) struct Report {
    /// The tests that were counted.
    pub(crate) tally: Tally,
    /// One sentence for each thing that went wrong.
    pub(crate) failures: Vec<String>,
    /// What could not run for want of a tool.
    pub(crate) missing: Vec<Missing>,
}

impl Report {
    /// Adds a part's result and says at once, loudly, what failed or could not run.
    pub(crate) fn add(&mut self, part: &str, result: Result<Self>) {
        match result {
            Ok(other) => {
                self.tally += other.tally;
                self.failures.extend(other.failures);
                self.missing.extend(other.missing);
            }
            Err(error) => match error.downcast::<Missing>() {
                Ok(missing) => {
                    eprintln!("!! {part} cannot run: {missing}");
                    self.missing.push(missing);
                }
                Err(error) => self.fail(format!("{part}: {error:#}")),
            },
        }
    }

    /// Notes and prints a failure.
    pub(crate) fn fail(&mut self, failure: String) {
        eprintln!("!! {failure}");
        self.failures.push(failure);
    }

    /// Whether nothing that ran has failed.
    pub(crate) fn passed(&self) -> bool {
        self.failures.is_empty() && self.tally.failed == 0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn missing_tool_is_no_failure_of_what_ran() {
        let mut report = Report::default();
        report.add("browser", Err(Missing::new("chromium", "apt-get install chromium").into()));
        assert!(report.passed());
        assert_eq!(report.missing.len(), 1);
    }

    #[test]
    fn error_and_failed_test_are_failures() {
        let mut report = Report::default();
        report.add("echo", Err(anyhow::anyhow!("no such file")));
        assert_eq!(report.failures, ["echo: no such file"]);

        let mut report = Report::default();
        let tally = Tally { passed: 5, failed: 1, ignored: 0 };
        report.add("cases", Ok(Report { tally, ..Report::default() }));
        assert!(!report.passed());
    }
}
