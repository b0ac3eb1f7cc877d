//! The suite's verdicts, read from the `index.json` it leaves in a report directory.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;

use anyhow::{Context as _, Result, bail};
use serde_json::Value;

use crate::report::Report;

/// Reads and prints the verdicts in `directory`, of which there must be `expected`.
pub(super) fn read(directory: &Path, expected: Option<usize>) -> Result<Report> {
    let index = directory.join("index.json");
    let text = fs::read_to_string(&index)
        .with_context(|| format!("the suite left no {}", index.display()))?;
    let mut report = judge(&serde_json::from_str(&text)?, expected)?;
    if report.tally.failed > 0 {
        let page = directory.join("index.html");
        report.fail(format!("{} cases are not OK: {}", report.tally.failed, page.display()));
    }
    Ok(report)
}

/// Counts each case of the only agent as passed or failed.
fn judge(index: &Value, expected: Option<usize>) -> Result<Report> {
    let agents = index.as_object().context("index.json is not an object")?;
    let mut agents = agents.iter();
    let (Some((agent, cases)), None) = (agents.next(), agents.next()) else {
        bail!("index.json must name exactly one agent");
    };
    let cases = cases.as_object().context("an agent's cases are not an object")?;
    let mut verdicts = BTreeMap::<String, usize>::new();
    let mut report = Report::default();
    for (case, result) in cases {
        let verdict = |of| result[of].as_str().unwrap_or("no verdict");
        let (behavior, closing) = (verdict("behavior"), verdict("behaviorClose"));
        *verdicts.entry(format!("{behavior}, closing {closing}")).or_default() += 1;
        if is_pass(behavior) && is_pass(closing) {
            report.tally.passed += 1;
        } else {
            report.tally.failed += 1;
            println!("  {case}: {behavior}, closing {closing}, code {}", result["remoteCloseCode"]);
        }
    }
    println!("{agent}: {} cases", cases.len());
    for (verdict, count) in verdicts {
        println!("  {count:>4} {verdict}");
    }
    if let Some(expected) = expected.filter(|&expected| expected != cases.len()) {
        report.fail(format!("{agent}: {expected} cases were to be played, {} were", cases.len()));
    }
    if cases.is_empty() {
        report.fail(format!("{agent}: no case was played"));
    }
    Ok(report)
}

/// NON-STRICT and UNIMPLEMENTED fail too: we are strict, and implement what we offer.
fn is_pass(verdict: &str) -> bool {
    matches!(verdict, "OK" | "INFORMATIONAL")
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn case(behavior: &str, closing: &str) -> Value {
        json!({ "behavior": behavior, "behaviorClose": closing, "remoteCloseCode": 1000 })
    }

    #[test]
    fn only_ok_and_informational_pass() {
        let index = json!({ "ours": {
            "1.1.1": case("OK", "OK"),
            "1.1.2": case("NON-STRICT", "OK"),
            "1.1.3": case("OK", "FAILED"),
            "1.1.4": case("UNIMPLEMENTED", "OK"),
            "1.1.5": case("INFORMATIONAL", "INFORMATIONAL"),
            "1.1.6": {},
        }});
        let report = judge(&index, Some(6)).unwrap();
        assert_eq!((report.tally.passed, report.tally.failed), (2, 4));
        assert!(!report.passed());
    }

    #[test]
    fn run_that_ended_early_fails() {
        let index = json!({ "ours": { "1.1.1": case("OK", "OK") } });
        assert!(judge(&index, Some(1)).unwrap().passed());
        assert!(judge(&index, None).unwrap().passed());
        assert!(!judge(&index, Some(301)).unwrap().passed());
        assert!(!judge(&json!({ "ours": {} }), None).unwrap().passed());
        assert!(judge(&json!({}), None).is_err());
    }
}
