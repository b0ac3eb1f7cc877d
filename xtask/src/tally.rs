//! `Tally`: how many tests passed and failed, read off the lines that test programs end with.

use std::fmt;
use std::ops::AddAssign;

/// Counted tests.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Tally {
    /// Tests that ran and passed.
    pub(crate) passed: u64,
    /// Tests that ran and failed.
    pub(crate) failed: u64,
    /// Tests that were not run.
    pub(crate) ignored: u64,
}

impl Tally {
    /// Reads a summary line: libtest's `test result: …`, or the `N passed, M failed` of our
    /// scripts.
    ///
    /// Any other line is `None`.
    pub(crate) fn from_line(line: &str) -> Option<Self> {
        let line = line.trim_end();
        if let Some(result) = line.strip_prefix("test result: ") {
            let (_verdict, counts) = result.split_once(". ")?;
            let mut counts = counts.split("; ");
            let mut next = |word| count(counts.next()?, word);
            return Some(Self {
                passed: next("passed")?,
                failed: next("failed")?,
                ignored: next("ignored")?,
            });
        }
        let (passed, failed) = line.split_once(", ")?;
        Some(Self {
            passed: count(passed, "passed")?,
            failed: count(failed, "failed")?,
            ignored: 0,
        })
    }
}

impl AddAssign for Tally {
    fn add_assign(&mut self, other: Self) {
        self.passed += other.passed;
        self.failed += other.failed;
        self.ignored += other.ignored;
    }
}

impl fmt::Display for Tally {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} passed, {} failed", self.passed, self.failed)
    }
}

/// The number in `"12 passed"`.
fn count(text: &str, word: &str) -> Option<u64> {
    text.strip_suffix(word)?.strip_suffix(' ')?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn libtest_summary_is_counted() {
        let line = "test result: ok. 12 passed; 0 failed; 3 ignored; 0 measured; 1 filtered out; \
                    finished in 0.01s";
        assert_eq!(Tally::from_line(line), Some(Tally { passed: 12, failed: 0, ignored: 3 }));
        let line = "test result: FAILED. 1 passed; 2 failed; 0 ignored; 0 measured; 0 filtered out";
        assert_eq!(Tally::from_line(line), Some(Tally { passed: 1, failed: 2, ignored: 0 }));
    }

    #[test]
    fn script_summary_is_counted_and_printed_the_same_way() {
        let tally = Tally::from_line("34 passed, 1 failed\n").unwrap();
        assert_eq!(tally, Tally { passed: 34, failed: 1, ignored: 0 });
        assert_eq!(Tally::from_line(&tally.to_string()), Some(tally));
    }

    #[test]
    fn other_lines_are_not_counted() {
        for line in
            ["", "running 3 tests", "ok - 1 passed, 0 failed", "1 passed, 0 failed, 2 skipped"]
        {
            assert_eq!(Tally::from_line(line), None, "{line}");
        }
    }
}
