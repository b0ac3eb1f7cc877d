//! [`Argument`]: what a handler may ask for besides its socket, and where that is taken from.
//!
//! Not its business: calling the handler, which is `endpoint.rs`.

use std::{any::type_name, ops::Deref, slice, str::FromStr};

use crate::{
    http::{Extensions, StatusCode},
    routes::Params,
};

/// What a [`Handler`](crate::Handler) may take after its socket: the parameters of the path, one
/// after the other, as any type that is [`FromStr`]; [`State`]; and [`Data`].
///
/// A parameter that cannot be parsed is answered with 404, as if there were no such route. What can
/// never be had, such as a third parameter of a path with two, is an error when the server starts.
pub trait Argument: Sized + Send + 'static {
    /// Whether there will be one, once, when the server starts; if not, why.
    #[doc(hidden)]
    fn check(available: &mut Available<'_>) -> Result<(), String>;

    /// Takes it out of a request.
    #[doc(hidden)]
    fn take(source: &mut Source<'_>) -> Result<Self, Refusal>;
}

impl<T: FromStr + Send + 'static> Argument for T {
    fn check(available: &mut Available<'_>) -> Result<(), String> {
        let Available { params, taken, .. } = available;
        *taken += 1;
        if *taken <= *params {
            return Ok(());
        }
        Err(format!(
            "the handler's argument `{}` is number {taken} of those from the path, whose pattern \
             has {params}; add a parameter such as {{name}} to the pattern, or take fewer",
            type_name::<T>(),
        ))
    }

    fn take(source: &mut Source<'_>) -> Result<Self, Refusal> {
        let parsed = source.params.next().and_then(|(_, value)| value.parse().ok());
        parsed.ok_or_else(Refusal::not_found)
    }
}

/// A clone of the value that the server was given with `Server::state`. One value of each type can
/// be given; an [`Arc`](std::sync::Arc) makes its clones cheap.
#[derive(Debug, Clone)]
pub struct State<S>(pub S);

impl<S: Clone + Send + Sync + 'static> Argument for State<S> {
    fn check(available: &mut Available<'_>) -> Result<(), String> {
        match available.state.get::<S>() {
            Some(_) => Ok(()),
            None => Err(format!(
                "the handler wants the state `{0}`, which the server was not given; call \
                 `Server::state` with a value of exactly this type",
                type_name::<S>(),
            )),
        }
    }

    fn take(source: &mut Source<'_>) -> Result<Self, Refusal> {
        source.state.get().cloned().map(Self).ok_or_else(|| {
            tracing::error!(state = type_name::<S>(), "the server was not given this state");
            Refusal::internal()
        })
    }
}

impl<S> Deref for State<S> {
    type Target = S;

    fn deref(&self) -> &S {
        &self.0
    }
}

/// A clone of what an `on_request` hook attached to the request's
/// [extensions](crate::http::Request::extensions), such as the user it recognised.
///
/// If there is none, the request is answered with 500 and the type is logged. A hook that does not
/// always have something attaches an [`Option`], and the handler takes `Data<Option<User>>`.
#[derive(Debug, Clone)]
pub struct Data<D>(pub D);

impl<D: Clone + Send + Sync + 'static> Argument for Data<D> {
    fn check(_: &mut Available<'_>) -> Result<(), String> {
        // What a hook will attach is not known before it runs.
        Ok(())
    }

    fn take(source: &mut Source<'_>) -> Result<Self, Refusal> {
        source.data.get().cloned().map(Self).ok_or_else(|| {
            let data = type_name::<D>();
            tracing::error!(data, "no on_request hook attached the data that the handler takes");
            Refusal::internal()
        })
    }
}

impl<D> Deref for Data<D> {
    type Target = D;

    fn deref(&self) -> &D {
        &self.0
    }
}

/// What there will be to take, as far as it is known when the server starts.
#[derive(Debug)]
pub struct Available<'a> {
    /// How many parameters the pattern has.
    params: usize,
    /// How many arguments want one.
    taken: usize,
    state: &'a Extensions,
}

impl<'a> Available<'a> {
    pub(crate) fn new(params: usize, state: &'a Extensions) -> Self {
        Self { params, taken: 0, state }
    }
}

/// What there is to take from a request.
#[derive(Debug)]
pub struct Source<'a> {
    /// Those that are not yet taken.
    params: slice::Iter<'a, (String, String)>,
    data: &'a Extensions,
    state: &'a Extensions,
}

impl<'a> Source<'a> {
    pub(crate) fn new(params: &'a Params, data: &'a Extensions, state: &'a Extensions) -> Self {
        Self { params: params.iter(), data, state }
    }
}

/// The answer to a request whose handler is not called.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Refusal {
    pub(crate) status: StatusCode,
    /// A line for whoever reads it, which says no more than a stranger should know.
    pub(crate) text: &'static str,
}

impl Refusal {
    /// The same answer as if there were no such route.
    pub(crate) fn not_found() -> Self {
        Self { status: StatusCode::NOT_FOUND, text: "Not found.\n" }
    }

    fn internal() -> Self {
        Self { status: StatusCode::INTERNAL_SERVER_ERROR, text: "Internal server error.\n" }
    }
}

#[cfg(test)]
mod tests {
    use std::{fmt::Debug, sync::Arc};

    use super::*;
    use crate::routes::{Found, Routes};

    #[derive(Debug, Clone, PartialEq)]
    struct App(&'static str);

    /// The parameters of `/{a}/{b}/...` in a path.
    fn params(path: &str) -> Params {
        let pattern: String = (1..path.split('/').count()).map(|n| format!("/{{p{n}}}")).collect();
        let mut routes = Routes::default();
        routes.insert(&pattern, ()).unwrap();
        match routes.find(path) {
            Found::Route((), params) => params,
            other => panic!("{other:?}"),
        }
    }

    fn take<A: Argument>(path: &str) -> Result<A, Refusal> {
        A::take(&mut Source::new(&params(path), &Extensions::new(), &Extensions::new()))
    }

    fn values<T: Clone + Send + Sync + 'static>(value: T) -> Extensions {
        let mut values = Extensions::new();
        values.insert(value);
        values
    }

    #[test]
    fn parameters_are_parsed() {
        fn is<A: Argument + PartialEq + Debug>(path: &str, expected: A) {
            assert_eq!(take(path), Ok(expected), "{path}");
        }
        is("/7", 7_u32);
        is("/%37", 7_u32);
        is("/-7", -7_i64);
        is("/a%2Fb", "a/b".to_owned());
        is("/true", true);
        is("/%C3%BC", 'ü');
    }

    #[test]
    fn parameter_that_does_not_parse_is_not_found() {
        fn is_not<A: Argument + PartialEq + Debug>(path: &str) {
            assert_eq!(take::<A>(path), Err(Refusal::not_found()), "{path}");
        }
        is_not::<u32>("/-7");
        is_not::<u32>("/4294967296");
        is_not::<u32>("/7%00");
        is_not::<i64>("/seven");
        is_not::<bool>("/yes");
        assert_eq!(Refusal::not_found().status, 404);
    }

    #[test]
    fn parameters_are_taken_in_order() {
        let (params, state, data) = (params("/7/lobby"), values(App("x")), Extensions::new());
        let mut source = Source::new(&params, &data, &state);
        assert_eq!(u32::take(&mut source), Ok(7));
        // Takes no parameter.
        assert_eq!(State::take(&mut source).map(|State(app)| app), Ok(App("x")));
        assert_eq!(String::take(&mut source), Ok("lobby".to_owned()));
        assert_eq!(String::take(&mut source), Err(Refusal::not_found()));
    }

    #[test]
    fn state_and_data_are_cloned_from_where_they_are() {
        let (params, state, data) = (Params::default(), values(App("state")), values(App("data")));
        let mut source = Source::new(&params, &data, &state);
        assert_eq!(State::<App>::take(&mut source).unwrap().0, App("state"));
        assert_eq!(Data::<App>::take(&mut source).unwrap().0, App("data"));
        // A value can be taken twice.
        assert_eq!(Data::<App>::take(&mut source).unwrap().0.0, "data");
    }

    #[test]
    fn missing_data_is_the_servers_fault() {
        let refusal = take::<Data<App>>("/x").unwrap_err();
        assert_eq!(refusal.status, 500);
        // Nor is a stranger told what is missing.
        assert!(!refusal.text.contains("App"));
        assert_eq!(take::<State<App>>("/x").unwrap_err().status, 500);
    }

    #[test]
    fn state_is_checked_at_the_start() {
        let state = values(Arc::new(App("x")));
        let mut available = Available::new(0, &state);
        assert_eq!(State::<Arc<App>>::check(&mut available), Ok(()));
        assert_eq!(Data::<App>::check(&mut available), Ok(()));
        let error = State::<App>::check(&mut available).unwrap_err();
        assert!(error.contains("tests::App`") && error.contains("`Server::state`"), "{error}");
    }

    #[test]
    fn parameters_are_counted_at_the_start() {
        let state = values(App("x"));
        let mut available = Available::new(2, &state);
        assert_eq!(u32::check(&mut available), Ok(()));
        assert_eq!(State::<App>::check(&mut available), Ok(()));
        assert_eq!(String::check(&mut available), Ok(()));
        let error = bool::check(&mut available).unwrap_err();
        assert!(error.contains("`bool` is number 3 of those from the path"), "{error}");
        assert!(error.contains("has 2;"), "{error}");
    }
}
