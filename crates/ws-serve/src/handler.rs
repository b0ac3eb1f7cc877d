//! [`Handler`]: what the application implements, and what its result means for the connection.
//!
//! Not its business: where its arguments come from, which is `arguments.rs`; how it is kept and
//! called, which is `endpoint.rs`; running it, which is `session.rs`.

use std::{fmt::Display, future::Future, sync::Arc};

use crate::{
    CloseCode, CloseFrame, Socket, Text,
    arguments::Argument,
    endpoint::{Endpoint, Start},
};

/// An async function or closure that takes a [`Socket`] and up to five [`Argument`]s, and returns
/// nothing or a `Result<(), E>`.
///
/// ```
/// use std::sync::Arc;
///
/// use ws_serve::{Socket, State};
///
/// struct App {
///     greeting: String,
/// }
///
/// // For a route such as `/chat/{room}`.
/// async fn chat(
///     socket: Socket,
///     room: String,
///     State(app): State<Arc<App>>,
/// ) -> Result<(), impl std::fmt::Display> {
///     socket.join(&room);
///     socket.send(&*app.greeting).await
/// }
/// # fn is_handler<A>(_: impl ws_serve::Handler<A>) {}
/// # is_handler(chat);
/// ```
///
/// It is called when the opening handshake is complete; a request that lacks an argument is answered
/// before. Returning closes the connection with 1000; returning an error logs it and closes with
/// 1011; a panic does, too, and harms no other connection.
///
/// `Args` are the types of its arguments. They are always inferred, if a closure names its own:
/// `|socket: Socket, room: String| async move { … }`.
#[diagnostic::on_unimplemented(
    message = "`{Self}` is not a handler",
    label = "not an async function of a `Socket` and up to five arguments",
    note = "arguments are parameters of the path, of a type that is `FromStr`, and `State<S>` and \
            `Data<D>`, of types that are `Clone + Send + Sync`",
    note = "the future must be `Send`, and its result `()` or a `Result<(), E>` whose error can be \
            displayed"
)]
pub trait Handler<Args>: Send + Sync + 'static {
    /// Forgets its types, for the server's table.
    #[doc(hidden)]
    fn into_endpoint(self) -> Endpoint;
}

macro_rules! impl_handler {
    ($($argument:ident)*) => {
        impl<F, Fut, $($argument),*> Handler<($($argument,)*)> for F
        where
            F: Fn(Socket, $($argument),*) -> Fut + Send + Sync + 'static,
            Fut: Future + Send + 'static,
            Fut::Output: Outcome,
            $($argument: Argument,)*
        {
            #[allow(non_snake_case, reason = "an argument is named after its type")]
            #[allow(unused_variables, reason = "without arguments there is nothing to take")]
            fn into_endpoint(self) -> Endpoint {
                let handler = Arc::new(self);
                Endpoint::new(
                    |available| {
                        $($argument::check(available)?;)*
                        Ok(())
                    },
                    move |source| {
                        $(let $argument = $argument::take(source)?;)*
                        let handler = Arc::clone(&handler);
                        Ok(Start::new(move |socket| handler(socket, $($argument),*)))
                    },
                )
            }
        }
    };
}

impl_handler!();
impl_handler!(A);
impl_handler!(A B);
impl_handler!(A B C);
impl_handler!(A B C D);
impl_handler!(A B C D E);

/// What a handler may return: nothing, or a `Result<(), E>` whose error can be displayed.
pub trait Outcome: Send {
    /// The error, as words for the log.
    fn into_error(self) -> Option<String>;
}

impl Outcome for () {
    fn into_error(self) -> Option<String> {
        None
    }
}

impl<E: Display + Send> Outcome for Result<(), E> {
    fn into_error(self) -> Option<String> {
        self.err().map(|error| error.to_string())
    }
}

/// How the connection is closed when the handler is done. The error's text stays on our side: it may
/// say more than a stranger should know.
pub(crate) fn farewell(error: Option<&String>) -> CloseFrame {
    match error {
        None => CloseCode::NORMAL.into(),
        Some(_) => CloseFrame::new(CloseCode::INTERNAL_ERROR, Text::new()),
    }
}
