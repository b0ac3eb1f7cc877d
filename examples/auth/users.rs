//! [`Users`]: who there is, and how they prove it.
//!
//! Not its business: headers of answers, which is `main.rs`.

use std::{
    collections::HashMap,
    sync::{Mutex, MutexGuard, PoisonError},
};

use anyhow::Context;
use base64::prelude::{BASE64_STANDARD, BASE64_URL_SAFE_NO_PAD, Engine};
use ws_serve::{
    http::{HeaderMap, header},
    is_same,
};

/// Somebody who is known.
#[derive(Clone)]
pub(crate) struct User {
    pub(crate) name: String,
    /// How that was found out.
    pub(crate) proof: &'static str,
}

/// Names, passwords, the token, and who is logged in. In earnest there would be only hashes of
/// passwords, made to be slow (Argon2), and the sessions in a database, with an end to each.
pub(crate) struct Users {
    passwords: Vec<(String, String)>,
    token: String,
    sessions: Mutex<HashMap<String, String>>,
}

impl Users {
    pub(crate) fn new(users: &[String], token: &str) -> anyhow::Result<Self> {
        let passwords = users.iter().map(|user| {
            let (name, password) = user.split_once(':').context("a user is NAME:PASSWORD")?;
            Ok((name.to_owned(), password.to_owned()))
        });
        Ok(Self {
            passwords: passwords.collect::<anyhow::Result<_>>()?,
            token: token.to_owned(),
            sessions: Mutex::default(),
        })
    }

    /// Who the `Authorization` header proves to be there.
    pub(crate) fn by_authorization(&self, headers: &HeaderMap) -> Option<User> {
        let (scheme, proof) = headers.get(header::AUTHORIZATION)?.to_str().ok()?.split_once(' ')?;
        let proof = proof.trim();
        // RFC 9110 §11.1: the scheme's case does not matter.
        if scheme.eq_ignore_ascii_case("Basic") {
            let decoded = String::from_utf8(BASE64_STANDARD.decode(proof).ok()?).ok()?;
            let (name, password) = decoded.split_once(':')?;
            self.by_password(name, password)
        } else if scheme.eq_ignore_ascii_case("Bearer") {
            is_same(&self.token, proof).then(|| User { name: "robot".into(), proof: "a token" })
        } else {
            None
        }
    }

    /// All users are looked at, however soon one fits, and all of each: how long it takes tells
    /// nobody which names there are, or how much of a password is right.
    fn by_password(&self, name: &str, password: &str) -> Option<User> {
        let fits = self.passwords.iter().fold(false, |found, user| {
            // Not `||` and `&&`, which look no further than they must.
            found | (is_same(&user.0, name) & is_same(&user.1, password))
        });
        fits.then(|| User { name: name.to_owned(), proof: "a password" })
    }

    /// The session's user. Looked up by a hash, which is quick for nobody who guesses: there are
    /// 2^256 to try.
    pub(crate) async fn by_session(&self, session: &str) -> Option<User> {
        let name = self.sessions().get(session)?.clone();
        Some(User { name, proof: "a cookie" })
    }

    pub(crate) fn open_session(&self, name: &str) -> anyhow::Result<String> {
        let session = new_secret()?;
        self.sessions().insert(session.clone(), name.to_owned());
        Ok(session)
    }

    pub(crate) fn end_session(&self, session: &str) {
        self.sessions().remove(session);
    }

    fn sessions(&self) -> MutexGuard<'_, HashMap<String, String>> {
        self.sessions.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// What nobody guesses.
pub(crate) fn new_secret() -> anyhow::Result<String> {
    let mut bytes = [0; 32];
    getrandom::fill(&mut bytes).context("the system has no random numbers")?;
    Ok(BASE64_URL_SAFE_NO_PAD.encode(bytes))
}
