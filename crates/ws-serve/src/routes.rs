//! [`Routes`]: from a request's path to what serves it.
//!
//! A path is matched as the client sent it, and only the values of its parameters are decoded
//! (RFC 3986 §2.4: split first, then decode), so that `%2F` never separates segments. Nor is it
//! normalised: `//`, `/./` and `/../` are segments like others. A proxy in front of us, which may
//! guard some paths, has judged the path as it stands; to read another one into it would be to walk
//! around that proxy.
//!
//! Not its business: answering, the query, and what the values mean, which is `arguments.rs`.

use std::{error::Error, fmt, slice};

use percent_encoding::{CONTROLS, percent_decode_str, utf8_percent_encode};

/// Targets by patterns such as `/chat/{room}` and `/files/{*rest}`.
///
/// A parameter is a whole segment that is not empty; `{*rest}` is all the segments that are left.
/// Where several patterns match, the first segment in which they differ decides: a literal comes
/// before a parameter.
#[derive(Debug)]
pub(crate) struct Routes<T> {
    /// Patterns to indices of `routes`.
    tree: matchit::Router<usize>,
    routes: Vec<Route<T>>,
}

#[derive(Debug)]
struct Route<T> {
    pattern: String,
    target: T,
}

/// What a path leads to.
#[derive(Debug, PartialEq)]
pub(crate) enum Found<'a, T> {
    Route(&'a T, Params),
    /// There is nothing here, but at this path, from which only a slash at the end differs. Fit for
    /// a `Location`, to which the caller adds the query.
    Redirect(String),
    Nothing,
}

impl<T> Routes<T> {
    /// Adds a route.
    pub(crate) fn insert(&mut self, pattern: &str, target: T) -> Result<(), RouteError> {
        let fail = |problem| RouteError { pattern: pattern.to_owned(), problem };
        check(pattern).map_err(fail)?;
        self.tree.insert(pattern, self.routes.len()).map_err(|error| {
            fail(match error {
                matchit::InsertError::Conflict { with } => Problem::Conflict(with),
                // All the others are about braces.
                _ => Problem::Braces,
            })
        })?;
        self.routes.push(Route { pattern: pattern.to_owned(), target });
        Ok(())
    }

    /// Adds the routes of another under a prefix: `/{room}` under `/chat` is `/chat/{room}`, and `/`
    /// is `/chat`. The first that does not fit ends it; those before it stay.
    pub(crate) fn nest(&mut self, prefix: &str, inner: Self) -> Result<(), RouteError> {
        let prefix = prefix.strip_suffix('/').unwrap_or(prefix);
        for Route { pattern, target } in inner.routes {
            match &*pattern {
                "/" if !prefix.is_empty() => self.insert(prefix, target)?,
                _ => self.insert(&format!("{prefix}{pattern}"), target)?,
            }
        }
        Ok(())
    }

    /// Finds what serves a path, in time proportional to its length.
    pub(crate) fn find(&self, path: &str) -> Found<'_, T> {
        if let Some((target, params)) = self.at(path) {
            return Found::Route(target, params);
        }
        // Browsers take `//` and `/\` at the start of a `Location` for another host's name. And
        // `*`, or nothing, is the path of requests that are not ours.
        if !path.starts_with('/') || path.starts_with("//") || path.starts_with("/\\") {
            return Found::Nothing;
        }
        let other = path.strip_suffix('/').map_or_else(|| format!("{path}/"), str::to_owned);
        match self.at(&other) {
            // A URI may have letters in it that a header may not.
            Some(_) => Found::Redirect(utf8_percent_encode(&other, CONTROLS).to_string()),
            None => Found::Nothing,
        }
    }

    /// All routes: the pattern, how many parameters it has, and the target.
    pub(crate) fn iter(&self) -> impl Iterator<Item = (&str, usize, &T)> {
        self.routes.iter().map(|Route { pattern, target }| {
            // Only parameters have braces.
            (&**pattern, pattern.matches('{').count(), target)
        })
    }

    /// The same patterns with other targets.
    pub(crate) fn map<U>(self, mut f: impl FnMut(&str, T) -> U) -> Routes<U> {
        let routes = self.routes.into_iter().map(|Route { pattern, target }| {
            let target = f(&pattern, target);
            Route { pattern, target }
        });
        Routes { tree: self.tree, routes: routes.collect() }
    }

    fn at(&self, path: &str) -> Option<(&T, Params)> {
        let found = self.tree.at(path).ok()?;
        let params = Params::decode(found.params.iter())?;
        self.routes.get(*found.value).map(|route| (&route.target, params))
    }
}

impl<T> Default for Routes<T> {
    fn default() -> Self {
        Self { tree: matchit::Router::new(), routes: Vec::new() }
    }
}

/// The parameters of a path, in its order. A value may be anything that is not empty, also `..` and
/// `a/b`: who makes a file's name of it must look first.
#[derive(Debug, Clone, Default, PartialEq)]
pub(crate) struct Params {
    named: Vec<(String, String)>,
}

impl Params {
    /// `None` if a value is not UTF-8: no handler could be given it.
    fn decode<'a>(encoded: impl Iterator<Item = (&'a str, &'a str)>) -> Option<Self> {
        let decode = |(name, value): (&str, &'a str)| {
            let value = percent_decode_str(value).decode_utf8().ok()?;
            Some((name.to_owned(), value.into_owned()))
        };
        encoded.map(decode).collect::<Option<_>>().map(|named| Self { named })
    }

    /// Names and values, in the order of the path.
    pub(crate) fn iter(&self) -> slice::Iter<'_, (String, String)> {
        self.named.iter()
    }
}

/// Why a pattern was not taken, and what to do about it.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct RouteError {
    pattern: String,
    problem: Problem,
}

#[derive(Debug, Clone, PartialEq)]
enum Problem {
    NoSlash,
    TooLong,
    Braces,
    SameName(String),
    Character(char),
    Conflict(String),
}

impl fmt::Display for RouteError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "the route \"{}\" ", self.pattern)?;
        match &self.problem {
            Problem::NoSlash => f.write_str("does not start with '/'; put one in front of it"),
            Problem::TooLong => write!(
                f,
                "is too long; shorten it to {MAX_LENGTH} bytes and {MAX_PARAMETERS} parameters"
            ),
            Problem::Braces => f.write_str(
                "has braces that make no parameter; write one as a whole segment, {room}, or as \
                 the last one, {*rest}, with a name of ASCII letters, digits and '_', and a brace \
                 that is meant itself as %7B or %7D",
            ),
            Problem::SameName(name) => {
                write!(f, "has two parameters {{{name}}}; give one of them another name")
            }
            Problem::Character(character) => write!(
                f,
                "contains {character:?}, which no path does as such; leave it out or write it \
                 percent-encoded"
            ),
            Problem::Conflict(other) => write!(
                f,
                "would match the same paths as \"{other}\"; remove one of them, or tell them apart \
                 by a literal segment"
            ),
        }
    }
}

impl Error for RouteError {}

/// Stricter than the tree, which panics at the 26th parameter and would take what can never match.
fn check(pattern: &str) -> Result<(), Problem> {
    let path = pattern.strip_prefix('/').ok_or(Problem::NoSlash)?;
    if pattern.len() > MAX_LENGTH {
        return Err(Problem::TooLong);
    }
    let mut names = Vec::new();
    let mut segments = path.split('/').peekable();
    while let Some(segment) = segments.next() {
        if !segment.contains(['{', '}']) {
            match segment.chars().find(|&character| !is_in_paths(character)) {
                Some(character) => return Err(Problem::Character(character)),
                None => continue,
            }
        }
        let last = segments.peek().is_none();
        let name = parameter(segment, last).ok_or(Problem::Braces)?;
        if names.contains(&name) {
            return Err(Problem::SameName(name.to_owned()));
        }
        names.push(name);
    }
    if names.len() > MAX_PARAMETERS { Err(Problem::TooLong) } else { Ok(()) }
}

/// The name of the parameter that a segment is.
fn parameter(segment: &str, last: bool) -> Option<&str> {
    let inner = segment.strip_prefix('{')?.strip_suffix('}')?;
    let name = inner.strip_prefix('*').filter(|_| last).unwrap_or(inner);
    let valid = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'_';
    (!name.is_empty() && name.bytes().all(valid)).then_some(name)
}

/// Whether clients send a character as it is. Letters beyond ASCII they encode.
fn is_in_paths(character: char) -> bool {
    character.is_ascii_graphic() && !matches!(character, '?' | '#')
}

/// Chosen: no sensible pattern comes near, and a request's line has room for what it matches.
const MAX_LENGTH: usize = 1024;
/// Chosen: more than a handler has arguments, and less than the 26 at which the tree panics.
const MAX_PARAMETERS: usize = 16;

#[cfg(test)]
mod tests {
    use super::*;

    fn routes(patterns: &[&'static str]) -> Routes<&'static str> {
        let mut routes = Routes::default();
        for pattern in patterns {
            routes.insert(pattern, *pattern).unwrap();
        }
        routes
    }

    /// The target and the values, or `-> path`, or `nothing`.
    fn show(found: &Found<'_, &str>) -> String {
        match found {
            Found::Route(target, params) => {
                let values = params.iter().map(|(_, value)| format!(" [{value}]"));
                format!("{target}{}", values.collect::<String>())
            }
            Found::Redirect(path) => format!("-> {path}"),
            Found::Nothing => "nothing".to_owned(),
        }
    }

    #[test]
    fn paths_lead_to_routes() {
        let routes = routes(&[
            "/",
            "/chat",
            "/chat/{room}",
            "/chat/lobby",
            "/chat/{room}/log",
            "/chat/lobby/{day}",
            "/feed/",
            "/feed/{name}/",
            "/files/{*rest}",
            "/files/index",
            "/caf%C3%A9",
            "/v1//x/../{a}",
        ]);
        for (path, expected) in [
            ("/", "/"),
            ("/chat", "/chat"),
            ("/Chat", "nothing"),
            ("/chatter", "nothing"),
            // A literal comes first, unless it leads nowhere.
            ("/chat/lobby", "/chat/lobby"),
            ("/chat/lob", "/chat/{room} [lob]"),
            ("/chat/lobby2", "/chat/{room} [lobby2]"),
            ("/chat/attic/log", "/chat/{room}/log [attic]"),
            ("/chat/lobby/log", "/chat/lobby/{day} [log]"),
            ("/chat/lobby/log/x", "nothing"),
            // Catch-all.
            ("/files/a", "/files/{*rest} [a]"),
            ("/files/a/b//c/", "/files/{*rest} [a/b//c/]"),
            ("/files/index", "/files/index"),
            ("/files/index2", "/files/{*rest} [index2]"),
            ("/files/", "nothing"),
            ("/files", "nothing"),
            // Only a slash differs.
            ("/chat/", "-> /chat"),
            ("/chat/lobby/", "-> /chat/lobby"),
            ("/chat/a%2Fb/", "-> /chat/a%2Fb"),
            ("/chat/ü/", "-> /chat/%C3%BC"),
            ("/feed", "-> /feed/"),
            ("/feed/", "/feed/"),
            ("/feed/news", "-> /feed/news/"),
            ("/feed//", "-> /feed/"),
            ("/chat//", "nothing"),
            // Percent-encoding.
            ("/chat/a%2Fb", "/chat/{room} [a/b]"),
            ("/chat/%6Cobby", "/chat/{room} [lobby]"),
            ("/chat/lobby%2F1", "/chat/{room} [lobby/1]"),
            ("/chat/%2e%2e", "/chat/{room} [..]"),
            ("/chat/a+b%20c", "/chat/{room} [a+b c]"),
            ("/chat/100%", "/chat/{room} [100%]"),
            ("/chat/%zz%2", "/chat/{room} [%zz%2]"),
            ("/chat/%C3%BC", "/chat/{room} [ü]"),
            ("/chat/ü", "/chat/{room} [ü]"),
            ("/chat/%00", "/chat/{room} [\0]"),
            ("/chat/%FF", "nothing"),
            ("/chat/%C3", "nothing"),
            ("/chat/%FF/", "nothing"),
            ("/chat/%ED%A0%80", "nothing"),
            ("/caf%C3%A9", "/caf%C3%A9"),
            ("/café", "nothing"),
            // Braces of the client's are letters.
            ("/{room}", "nothing"),
            ("/chat/{room}", "/chat/{room} [{room}]"),
            ("/chat/{a}/log", "/chat/{room}/log [{a}]"),
            ("/files/{*rest}", "/files/{*rest} [{*rest}]"),
            // No normalisation.
            ("//chat", "nothing"),
            ("//", "nothing"),
            ("/./chat", "nothing"),
            ("/x/../chat", "nothing"),
            ("/chat//log", "nothing"),
            ("/chat/../log", "/chat/{room}/log [..]"),
            ("/v1//x/../y", "/v1//x/../{a} [y]"),
            ("/v1/y", "nothing"),
            // What is no path.
            ("", "nothing"),
            ("*", "nothing"),
            ("chat", "nothing"),
        ] {
            assert_eq!(show(&routes.find(path)), expected, "{path}");
        }
    }

    #[test]
    fn redirect_stays_on_this_host() {
        let routes = routes(&["/{room}", "//{room}", "/a/{room}/"]);
        assert_eq!(show(&routes.find("/example.org/")), "-> /example.org");
        assert_eq!(show(&routes.find("//example.org/")), "nothing");
        assert_eq!(show(&routes.find("/\\example.org/")), "nothing");
    }

    #[test]
    fn very_long_paths_are_harmless() {
        let routes = routes(&["/{a}", "/a/{*rest}", "/a/a/{b}/c", "/{a}/a/{b}/a/{c}/b"]);
        let long = format!("/{}", "a".repeat(60_000));
        assert!(matches!(routes.find(&long), Found::Route(&"/{a}", _)));
        let deep = "/a".repeat(30_000);
        assert!(matches!(routes.find(&deep), Found::Route(&"/a/{*rest}", _)));
        let slashes = "/".repeat(60_000);
        assert_eq!(routes.find(&slashes), Found::Nothing);
    }

    #[test]
    fn parameters_have_names() {
        let routes = routes(&["/{a}/x/{b}/{*rest}", "/{c}/y"]);
        let Found::Route(_, params) = routes.find("/1/x/2/3/4") else { panic!("not found") };
        let names = |params: &Params| -> Vec<_> {
            params.iter().map(|(name, value)| format!("{name}={value}")).collect()
        };
        assert_eq!(names(&params), ["a=1", "b=2", "rest=3/4"]);
        let Found::Route(_, params) = routes.find("/1/y") else { panic!("not found") };
        assert_eq!(names(&params), ["c=1"]);
    }

    #[test]
    fn routes_nest() {
        let mut chat = Routes::default();
        for pattern in ["/", "/{room}", "/old/"] {
            chat.insert(pattern, pattern).unwrap();
        }
        let mut api = Routes::default();
        api.nest("/chat/", chat).unwrap();
        api.insert("/{*rest}", "rest").unwrap();
        let mut all = Routes::default();
        all.nest("/{version}", api).unwrap();
        all.nest("/", routes(&["/", "/health"])).unwrap();
        let patterns: Vec<_> = all.iter().map(|(pattern, params, _)| (pattern, params)).collect();
        assert_eq!(
            patterns,
            [
                ("/{version}/chat", 1),
                ("/{version}/chat/{room}", 2),
                ("/{version}/chat/old/", 1),
                ("/{version}/{*rest}", 2),
                ("/", 0),
                ("/health", 0),
            ]
        );
        assert_eq!(show(&all.find("/v1/chat")), "/ [v1]");
        assert_eq!(show(&all.find("/v1/chat/lobby")), "/{room} [v1] [lobby]");
        assert_eq!(show(&all.find("/v1/a/b")), "rest [v1] [a/b]");
        assert_eq!(show(&all.find("/health")), "/health");

        let error = all.nest("api", routes(&["/x"])).unwrap_err().to_string();
        assert!(error.starts_with("the route \"api/x\" does not start with '/'"), "{error}");
    }

    #[test]
    fn bad_patterns_are_explained() {
        let long = format!("/{}", "a".repeat(MAX_LENGTH));
        let many: String = (0..30).map(|number| format!("/{{p{number}}}")).collect();
        for (pattern, expected) in [
            ("", "does not start with '/'"),
            ("chat", "does not start with '/'"),
            (&long, "too long"),
            (&many, "too long"),
            ("/{", "braces"),
            ("/}", "braces"),
            ("/{}", "braces"),
            ("/{*}", "braces"),
            ("/{a}b", "braces"),
            ("/a{b}", "braces"),
            ("/{a}{b}", "braces"),
            ("/{{a}}", "braces"),
            ("/{a/b}", "braces"),
            ("/{a b}", "braces"),
            ("/{*a}/b", "braces"),
            ("/{a*}", "braces"),
            ("/{**a}", "braces"),
            ("/{ä}", "braces"),
            ("/{a}/{a}", "two parameters {a}"),
            ("/caf\u{e9}", "contains 'é'"),
            ("/a b", "contains ' '"),
            ("/a?b={c}", "braces"),
            ("/a?b", "contains '?'"),
        ] {
            let error = Routes::default().insert(pattern, ()).unwrap_err().to_string();
            assert!(error.contains(expected), "{pattern}: {error}");
            assert!(error.contains(&format!("\"{pattern}\"")), "{pattern}: {error}");
        }
    }

    #[test]
    fn conflicts_name_the_other_route() {
        for (first, second) in [
            ("/chat", "/chat"),
            ("/chat/{room}", "/chat/{name}"),
            ("/chat/{room}/log", "/chat/{name}/log"),
            ("/files/{*rest}", "/files/{*all}"),
            ("/files/{name}", "/files/{*rest}"),
            ("/files/{*rest}", "/files/{name}"),
            ("/files/{*rest}", "/files/{name}/size"),
            ("/files/{name}/size", "/files/{*rest}"),
        ] {
            let mut routes = routes(&["/", "/chatter/{room}", "/file", "/fi/{x}/y", first]);
            let error = routes.insert(second, second).unwrap_err().to_string();
            let expected =
                format!("the route \"{second}\" would match the same paths as \"{first}\"");
            assert!(error.starts_with(&expected), "{error}");
        }
    }

    /// Compares with the obvious way to match, on all small sets of routes that do not conflict.
    #[test]
    fn tree_agrees_with_the_definition() {
        let segments = ["a", "ab", "{p}", ""];
        let mut patterns = vec!["/{*r}".to_owned(), "/a/{*r}".to_owned(), "/{p}/a/{*r}".to_owned()];
        let mut paths = Vec::new();
        for one in segments {
            patterns.push(format!("/{one}"));
            paths.push(format!("/{one}"));
            for two in segments {
                patterns.push(format!("/{one}/{}", two.replace('p', "q")));
                paths.push(format!("/{one}/{two}"));
                paths.extend(segments.map(|three| format!("/{one}/{two}/{three}")));
            }
        }
        for (index, one) in patterns.iter().enumerate() {
            for (other, two) in patterns.iter().enumerate().skip(index) {
                for three in &patterns[other..] {
                    let mut routes = Routes::default();
                    // In the order that is the less natural for a tree.
                    for pattern in [three, two, one] {
                        let _ = routes.insert(pattern, pattern.clone());
                    }
                    for path in &paths {
                        let found = routes.at(path).map(|(target, _)| target);
                        let all = routes.routes.iter().map(|route| &route.pattern);
                        let best = all.filter(|pattern| matches(pattern, path)).min_by_key(|own| {
                            let kind = |segment: &str| (segment.starts_with('{')) as u8;
                            own.split('/').map(kind).collect::<Vec<_>>()
                        });
                        assert_eq!(found, best, "{path} in {one} {two} {three}");
                    }
                }
            }
        }
    }

    fn matches(pattern: &str, path: &str) -> bool {
        let mut path = path.split('/');
        for segment in pattern.split('/') {
            let Some(own) = path.next() else { return false };
            match segment {
                "{*r}" => return !own.is_empty() || path.next().is_some(),
                "{p}" | "{q}" if !own.is_empty() => {}
                _ if segment == own => {}
                _ => return false,
            }
        }
        path.next().is_none()
    }
}
