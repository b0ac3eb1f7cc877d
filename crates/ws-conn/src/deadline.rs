//! [`Deadline`]: a timer that costs a poll one load as long as it has not passed.
//!
//! Not its business: what happens then.

use std::{
    future::Future,
    pin::{Pin, pin},
    task::{Context, Waker},
    time::{Duration, Instant},
};

use tokio::{
    task::unconstrained,
    time::{Sleep, sleep_until},
};

/// A point in time that a task wants to be woken at, made on first use.
#[derive(Debug, Default)]
pub(crate) struct Deadline {
    sleep: Option<Pin<Box<Sleep>>>,
    /// The task that the timer wakes.
    waker: Option<Waker>,
}

impl Deadline {
    /// Whether `at` has passed; if not, the task is woken then.
    pub(crate) fn poll(&mut self, cx: &mut Context<'_>, at: Option<Instant>) -> bool {
        let Some(at) = at else {
            *self = Self::default();
            return false;
        };
        let at = tokio::time::Instant::from_std(at);
        let sleep = match &mut self.sleep {
            Some(sleep) => {
                if sleep.deadline() != at {
                    sleep.as_mut().reset(at);
                    self.waker = None;
                }
                sleep
            }
            None => self.sleep.insert(Box::pin(sleep_until(at))),
        };
        if sleep.is_elapsed() {
            return true;
        }
        if self.waker.as_ref().is_some_and(|waker| waker.will_wake(cx.waker())) {
            return false;
        }
        self.waker = Some(cx.waker().clone());
        // Unconstrained, because a task that has used up its budget would otherwise be told to wait
        // without being registered.
        pin!(unconstrained(sleep.as_mut())).poll(cx).is_ready()
    }
}

/// So long from now; a limit as long as can be is one that nobody lives to see.
pub(crate) fn after(limit: Duration) -> Instant {
    let now = now();
    now.checked_add(limit).unwrap_or_else(|| now + FAR_FUTURE)
}

/// Thirty years, which tokio calls far, too.
const FAR_FUTURE: Duration = Duration::from_secs(30 * 365 * 86_400);

/// The time as tokio sees it, which tests can stop.
pub(crate) fn now() -> Instant {
    tokio::time::Instant::now().into_std()
}
