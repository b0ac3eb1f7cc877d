//! `Source`: a file of the project and three readings of it: as written, without comments, and bare
//! code.
//!
//! A small lexer, not a parser: it knows Rust's comments, strings and characters, enough not to
//! take one for another. Files in other languages are read as written.

use std::ops::Range;
use std::path::PathBuf;

/// A file with its lines in each reading; a line has the same number in all of them.
pub(super) struct Source {
    /// From the root.
    pub(super) path: PathBuf,
    /// As written.
    pub(super) text: String,
    /// Comments blanked.
    pub(super) code: String,
    /// Comments blanked, and what is between quotes.
    pub(super) bare: String,
    /// The lines, counted from 0, of `#[cfg(test)]` items.
    tests: Vec<Range<usize>>,
}

impl Source {
    /// Reads `text`, which is the content of `path`.
    pub(super) fn new(path: PathBuf, text: String) -> Self {
        let is_rust = path.extension().is_some_and(|extension| extension == "rs");
        let (code, bare) = if is_rust { blank(&text) } else { (text.clone(), text.clone()) };
        let tests = if is_rust { test_items(&bare) } else { Vec::new() };
        Self { path, text, code, bare, tests }
    }

    /// Whether this is a file of Rust.
    pub(super) fn is_rust(&self) -> bool {
        self.path.extension().is_some_and(|extension| extension == "rs")
    }

    /// Whether this is below `crates/…/{part}`.
    pub(super) fn is_in_crates(&self, part: &str) -> bool {
        let mut names = self.path.iter();
        names.next().is_some_and(|name| name == "crates")
            && names.nth(1).is_some_and(|name| name == part)
    }

    /// Whether line `index`, counted from 0, is only compiled for tests.
    pub(super) fn is_test(&self, index: usize) -> bool {
        self.tests.iter().any(|item| item.contains(&index))
    }
}

/// What the lexer is inside of.
enum Inside {
    Code,
    LineComment,
    /// Nested this deep.
    BlockComment(usize),
    /// A string that ends at an unescaped quote.
    Quoted(char),
    /// A raw string that ends at a quote and this many `#`.
    Raw(usize),
}

/// The text without comments, and without comments and the insides of strings.
fn blank(text: &str) -> (String, String) {
    let chars: Vec<char> = text.chars().collect();
    let (mut code, mut bare) = (String::new(), String::new());
    let mut inside = Inside::Code;
    let mut at = 0;
    while at < chars.len() {
        let rest = &chars[at..];
        // How many characters go together, and whether they stay in each reading.
        let (length, in_code, in_bare) = match inside {
            Inside::Code => match rest {
                ['/', '/', ..] => {
                    inside = Inside::LineComment;
                    (2, false, false)
                }
                ['/', '*', ..] => {
                    inside = Inside::BlockComment(1);
                    (2, false, false)
                }
                ['"', ..] => {
                    inside = Inside::Quoted('"');
                    (1, true, true)
                }
                // A character; a lone quote begins a lifetime or a label.
                ['\'', '\\', ..] | ['\'', _, '\'', ..] => {
                    inside = Inside::Quoted('\'');
                    (1, true, true)
                }
                ['r', ..] if !continues_name(&chars, at) => match raw_string(rest) {
                    Some((length, hashes)) => {
                        inside = Inside::Raw(hashes);
                        (length, true, true)
                    }
                    None => (1, true, true),
                },
                _ => (1, true, true),
            },
            Inside::LineComment => {
                if rest[0] == '\n' {
                    inside = Inside::Code;
                }
                (1, false, false)
            }
            Inside::BlockComment(depth) => match rest {
                ['/', '*', ..] => {
                    inside = Inside::BlockComment(depth + 1);
                    (2, false, false)
                }
                ['*', '/', ..] => {
                    inside =
                        if depth == 1 { Inside::Code } else { Inside::BlockComment(depth - 1) };
                    (2, false, false)
                }
                _ => (1, false, false),
            },
            Inside::Quoted(quote) => match rest {
                ['\\', _, ..] => (2, true, false),
                [end, ..] if *end == quote => {
                    inside = Inside::Code;
                    (1, true, true)
                }
                _ => (1, true, false),
            },
            Inside::Raw(hashes) => {
                let end = rest[0] == '"' && leading_hashes(&rest[1..]) >= hashes;
                if end {
                    inside = Inside::Code;
                }
                (if end { 1 + hashes } else { 1 }, true, end)
            }
        };
        for &char in &rest[..length] {
            let or_blank = |stays| if stays || char == '\n' { char } else { ' ' };
            code.push(or_blank(in_code));
            bare.push(or_blank(in_bare));
        }
        at += length;
    }
    (code, bare)
}

/// Whether the character at `at` is the second or a later one of a name; of `br"…"` and `cr"…"` it
/// is not.
fn continues_name(chars: &[char], at: usize) -> bool {
    let is_name = |index: usize| chars[index].is_alphanumeric() || chars[index] == '_';
    let prefixed = at > 0 && matches!(chars[at - 1], 'b' | 'c');
    let start = if prefixed { at - 1 } else { at };
    start > 0 && is_name(start - 1)
}

/// If `rest` begins with `r"` or `r#…#"`: how long that is and how many `#` it has.
fn raw_string(rest: &[char]) -> Option<(usize, usize)> {
    let hashes = leading_hashes(&rest[1..]);
    (rest.get(1 + hashes) == Some(&'"')).then_some((hashes + 2, hashes))
}

fn leading_hashes(chars: &[char]) -> usize {
    chars.iter().take_while(|&&char| char == '#').count()
}

/// The lines of the items that `#[cfg(test)]` stands before, and all of them below `#![cfg(test)]`.
fn test_items(bare: &str) -> Vec<Range<usize>> {
    let line_of = |position: usize| bare[..position].matches('\n').count();
    let mut items = Vec::new();
    if bare.contains("#![cfg(test)]") {
        items.push(0..bare.lines().count());
        return items;
    }
    for (start, _) in bare.match_indices("#[cfg(test)]") {
        let mut depth = 0;
        let end = bare[start..].char_indices().find(|&(_, char)| {
            match char {
                '{' => depth += 1,
                '}' => depth -= 1,
                _ => {}
            }
            // Of an item with a body the last brace, of one without it the semicolon.
            depth == 0 && matches!(char, '}' | ';')
        });
        let end = end.map_or(bare.len(), |(offset, _)| start + offset);
        items.push(line_of(start)..line_of(end) + 1);
    }
    items
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rust(text: &str) -> Source {
        Source::new("crates/a/src/b.rs".into(), text.to_owned())
    }

    #[test]
    fn comments_are_blanked() {
        let source = rust("a // b\n/* c /* d */ e */ f\n//! g\n");
        assert_eq!(source.code.split_whitespace().collect::<Vec<_>>(), ["a", "f"]);
        assert_eq!(source.code.lines().count(), source.text.lines().count());
    }

    #[test]
    fn strings_stay_in_code_and_leave_bare() {
        let source = rust(r##"f("ws://a", r#"b " // c"#, br"\", "\"d", 'e', '"') // g"##);
        assert!(source.code.contains("ws://a") && source.code.contains("// c"));
        assert!(source.code.trim_end().ends_with(')'));
        for letter in ["a", "b \"", "d", "e", "g"] {
            assert!(!source.bare.contains(letter), "{letter} in {}", source.bare);
        }
    }

    #[test]
    fn lifetimes_begin_no_string() {
        let source = rust("fn f<'a>(x: &'a str) -> &'a str { \"x\" } // y");
        assert!(source.bare.contains("&'a str {"));
        assert!(!source.bare.contains('y'));
    }

    #[test]
    fn raw_identifiers_begin_no_string() {
        assert_eq!(rust("let r#type = for_r;").bare, "let r#type = for_r;");
    }

    #[test]
    fn test_items_end_at_their_last_brace() {
        let source = rust("a\n#[cfg(test)]\nmod tests {\n    fn f() {}\n}\nb\n");
        let tests: Vec<usize> = (0..6).filter(|&line| source.is_test(line)).collect();
        assert_eq!(tests, [1, 2, 3, 4]);
        let source = rust("#[cfg(test)]\nuse a;\nb\n");
        assert!(source.is_test(1) && !source.is_test(2));
        assert!(rust("#![cfg(test)]\na\nb\n").is_test(2));
    }

    #[test]
    fn place_in_crates_is_by_whole_names() {
        let source = rust("");
        assert!(source.is_in_crates("src") && !source.is_in_crates("tests"));
        let example = Source::new("examples/src/a.rs".into(), String::new());
        assert!(!example.is_in_crates("src"));
    }
}
