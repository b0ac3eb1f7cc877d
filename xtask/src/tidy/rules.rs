//! The rules for single files: a table of patterns that must not occur, and three that are no
//! pattern.

use regex_lite::Regex;

use super::finding::Finding;
use super::layers::LAYERS;
use super::source::Source;

/// A file with more lines than this before its tests is perhaps two nouns; chosen, about eight
/// screens.
const LONG: usize = 400;

/// How a rule reads a file.
#[derive(Clone, Copy)]
enum Reading {
    /// As written.
    Text,
    /// Without comments.
    Code,
    /// Without comments and strings.
    Bare,
    /// The same, and without what is only compiled for tests.
    Shipped,
}

/// A pattern that must not occur.
struct Rule {
    pattern: &'static str,
    reading: Reading,
    applies: fn(&Source) -> bool,
    /// A pattern, with the reason in it, by which a line excuses itself.
    unless: Option<&'static str>,
    why: &'static str,
    remedy: &'static str,
}

const RULES: [Rule; 7] = [
    Rule {
        pattern: "tokio|std::(net|thread)|Instant::now|SystemTime|rand::random|thread_rng|getrandom",
        reading: Reading::Shipped,
        applies: is_sans_io,
        unless: None,
        why: "this crate is sans-I/O: no socket, clock, thread or global randomness",
        remedy: "take the bytes, `now` or the random number as an argument",
    },
    Rule {
        // Written in halves, here and in the tests, so that tidy finds nothing in itself.
        pattern: concat!(r"\b(TO", "DO|X", r"XX)\b"),
        reading: Reading::Text,
        applies: |source| source.path.extension().is_none_or(|extension| extension != "md"),
        unless: None,
        why: "unfinished work is not merged",
        remedy: "finish it, or write FIXME with the number of an issue",
    },
    Rule {
        pattern: r"\b(todo|unimplemented|dbg)!",
        reading: Reading::Bare,
        applies: Source::is_rust,
        unless: None,
        why: "unfinished work is not merged",
        remedy: "finish it, or return an error",
    },
    Rule {
        pattern: r"\bpub use\b",
        reading: Reading::Bare,
        applies: |source| source.is_in_crates("src") && !source.path.ends_with("lib.rs"),
        unless: None,
        why: "lib.rs is the map of the crate, and the only one",
        remedy: "export it from lib.rs",
    },
    Rule {
        pattern: r"#\[ignore\b",
        reading: Reading::Bare,
        applies: Source::is_rust,
        unless: None,
        why: "a test nobody runs tells nobody anything",
        remedy: "mend it or remove it",
    },
    Rule {
        pattern: r"\bsleep\(",
        reading: Reading::Bare,
        applies: |source| source.is_in_crates("tests"),
        unless: Some(r"tidy: allow-sleep\([^)]+\)"),
        why: "a sleep is too short on a slow machine and too long on a fast one",
        remedy: "wait for the event itself, or say `// tidy: allow-sleep(reason)` on the line",
    },
    Rule {
        pattern: r"127\.0\.0\.1:[1-9][0-9]*",
        reading: Reading::Code,
        applies: |source| source.is_in_crates("tests"),
        unless: None,
        why: "another program, or another test, may have the port",
        remedy: "bind port 0 and ask for the address",
    },
];

/// Everything that breaks a rule in `source`.
pub(super) fn check(source: &Source) -> Vec<Finding> {
    let mut findings = Vec::new();
    for rule in RULES.iter().filter(|rule| (rule.applies)(source)) {
        findings.extend(rule.check(source));
    }
    findings.extend(header(source));
    findings.extend(section_without_rfc(source));
    findings
}

/// A sentence about a file that has grown too long.
pub(super) fn long_file(source: &Source) -> Option<String> {
    if !source.is_rust() || source.is_in_crates("tests") {
        return None;
    }
    let lines = (0..source.text.lines().count()).filter(|&line| !source.is_test(line)).count();
    (lines > LONG).then(|| {
        format!("{}: {lines} lines beside the tests: two nouns in one?", source.path.display())
    })
}

impl Rule {
    fn check(&self, source: &Source) -> Vec<Finding> {
        let compile = |pattern| Regex::new(pattern).expect("the tests compile every pattern");
        let pattern = compile(self.pattern);
        let unless = self.unless.map(compile);
        let read = match self.reading {
            Reading::Text => &source.text,
            Reading::Code => &source.code,
            Reading::Bare | Reading::Shipped => &source.bare,
        };
        let shipped_only = matches!(self.reading, Reading::Shipped);
        let mut findings = Vec::new();
        for (index, (read, written)) in read.lines().zip(source.text.lines()).enumerate() {
            let Some(found) = pattern.find(read) else { continue };
            let excused = unless.as_ref().is_some_and(|unless| unless.is_match(written));
            if excused || (shipped_only && source.is_test(index)) {
                continue;
            }
            findings.push(finding(source, index, found.as_str(), self.why, self.remedy));
        }
        findings
    }
}

/// Every module says what it is.
fn header(source: &Source) -> Option<Finding> {
    let is_module = source.is_in_crates("src")
        || source.path.starts_with("xtask/src")
        || source.path.starts_with("examples");
    if !is_module || !source.is_rust() || source.text.starts_with("//!") {
        return None;
    }
    let why = "a newcomer reads the first line first";
    Some(finding(source, 0, "no `//!`", why, "open the file with a sentence on what it is"))
}

/// A section number means nothing without its document, such as RFC 6455 §5.2.
fn section_without_rfc(source: &Source) -> Option<Finding> {
    let rfc = Regex::new(r"RFC ?[0-9]{4}").expect("the tests compile every pattern");
    if rfc.is_match(&source.text) {
        return None;
    }
    let line = source.text.lines().position(|line| line.contains('§'))?;
    let why = "the file does not say which document that is a section of";
    Some(finding(source, line, "§", why, "name the RFC once in the file, best at its top"))
}

fn finding(
    source: &Source,
    index: usize,
    what: &str,
    why: &'static str,
    remedy: &'static str,
) -> Finding {
    Finding { path: source.path.clone(), line: index + 1, what: what.to_owned(), why, remedy }
}

/// Whether this is part of what a sans-I/O crate ships.
fn is_sans_io(source: &Source) -> bool {
    source.is_rust()
        && LAYERS.iter().any(|&(layer, sans_io)| {
            sans_io && source.path.starts_with(format!("crates/{layer}/src"))
        })
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The lines and words that are found in a file.
    fn found(path: &str, text: &str) -> Vec<(usize, String)> {
        let source = Source::new(path.into(), text.to_owned());
        check(&source).into_iter().map(|finding| (finding.line, finding.what)).collect()
    }

    fn nothing() -> Vec<(usize, String)> {
        Vec::new()
    }

    #[test]
    fn sans_io_crates_know_no_runtime_clock_or_randomness() {
        for word in ["tokio::spawn", "std::net::TcpStream", "Instant::now()", "getrandom::fill"] {
            let text = format!("//! A.\nfn f() {{ {word}; }}\n");
            for layer in ["ws-proto", "ws-handshake"] {
                assert_eq!(found(&format!("crates/{layer}/src/a.rs"), &text).len(), 1, "{word}");
            }
            assert_eq!(found("crates/ws-conn/src/a.rs", &text), nothing(), "{word}");
            assert_eq!(found("crates/ws-proto/tests/a.rs", &text), nothing(), "{word}");
        }
    }

    #[test]
    fn sans_io_crates_may_speak_of_what_they_must_not_use() {
        let text = "//! Not tokio's business.\n#[doc(alias = \"tokio\")]\nfn f() {} // Instant::now\n\
                    #[cfg(test)]\nmod tests {\n    use std::thread;\n}\n";
        assert_eq!(found("crates/ws-proto/src/a.rs", text), nothing());
    }

    #[test]
    fn unfinished_work_is_found_everywhere_but_in_documents() {
        let text = concat!("//! A.\n// TO", "DO: b\n");
        assert_eq!(found("crates/ws-proto/tests/a.rs", text).len(), 1);
        assert_eq!(found("xtask/interop/a.py", text).len(), 1);
        assert_eq!(found("CONTRIBUTING.md", text), nothing());
        let text = "//! A.\nfn f() { todo!(); }\nfn g() { \"dbg!\"; unimplemented!() }\n";
        let words = [(2, "todo!".to_owned()), (3, "unimplemented!".to_owned())];
        assert_eq!(found("examples/a.rs", text), words);
    }

    #[test]
    fn re_exports_are_in_lib_only() {
        let text = "//! A.\npub use b::C;\npub(crate) use d::E;\n";
        assert_eq!(found("crates/ws-conn/src/a.rs", text), [(2, "pub use".to_owned())]);
        assert_eq!(found("crates/ws-conn/src/lib.rs", text), nothing());
    }

    #[test]
    fn tests_are_run() {
        let text = "#[test]\n#[ignore = \"slow\"]\nfn f() {}\n";
        assert_eq!(found("crates/ws-conn/tests/a.rs", text), [(2, "#[ignore".to_owned())]);
    }

    #[test]
    fn tests_do_not_sleep_without_a_reason() {
        let text = "sleep(a);\nsleep(a); // tidy: allow-sleep(the clock itself is tested)\n\
                    sleep(a); // tidy: allow-sleep()\nsleep_until(a);\n";
        let lines: Vec<_> =
            found("crates/ws-conn/tests/a.rs", text).into_iter().map(|(line, _)| line).collect();
        assert_eq!(lines, [1, 3]);
        assert_eq!(found("examples/a.rs", "//! A.\nsleep(a);\n"), nothing());
    }

    #[test]
    fn tests_have_no_fixed_ports() {
        let text = "bind(\"127.0.0.1:0\");\nbind(\"127.0.0.1:9001\");\n// 127.0.0.1:9001\n";
        let words = [(2, "127.0.0.1:9001".to_owned())];
        assert_eq!(found("crates/ws-serve/tests/a.rs", text), words);
    }

    #[test]
    fn modules_begin_with_what_they_are() {
        for path in ["crates/ws-conn/src/a.rs", "xtask/src/a.rs", "examples/a.rs"] {
            assert_eq!(found(path, "fn f() {}\n"), [(1, "no `//!`".to_owned())], "{path}");
            assert_eq!(found(path, "//! A.\n"), nothing(), "{path}");
        }
        assert_eq!(found("crates/ws-conn/tests/a.rs", "fn f() {}\n"), nothing());
    }

    #[test]
    fn section_names_its_rfc() {
        let text = "//! A.\n// §5.2\n";
        assert_eq!(found("crates/ws-conn/src/a.rs", text), [(2, "§".to_owned())]);
        assert_eq!(found("README.md", text), [(2, "§".to_owned())]);
        for rfc in ["RFC 6455", "RFC7692"] {
            assert_eq!(
                found("crates/ws-conn/src/a.rs", &format!("//! {rfc}.\n// §5.2\n")),
                nothing()
            );
        }
    }

    #[test]
    fn long_file_is_one_beside_its_tests() {
        let in_tests = Source::new("crates/ws-conn/tests/a.rs".into(), "a\n".repeat(401));
        assert!(long_file(&in_tests).is_none());
        let long = |text: String| long_file(&Source::new("examples/a.rs".into(), text));
        assert!(long("a\n".repeat(400)).is_none());
        assert!(long("a\n".repeat(401)).is_some_and(|warning| warning.contains("401")));
        assert!(long(format!("#[cfg(test)]\nmod t {{\n{}}}\n", "a\n".repeat(401))).is_none());
    }
}
