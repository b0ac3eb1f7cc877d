//! [`Rooms`]: who is where, and the words between page and server.
//!
//! Not its business: sockets that come and go, which is `main.rs`.

use std::{
    collections::BTreeMap,
    sync::{Mutex, PoisonError},
    time::{SystemTime, UNIX_EPOCH},
};

use serde::{Deserialize, Serialize};
use ws_serve::{Error, Message, Socket, Topic};

/// What a page says.
#[derive(Deserialize)]
#[serde(tag = "type", rename_all = "lowercase")]
pub(crate) enum Command {
    /// Enter a room, leaving the one before.
    Join { room: String, name: String },
    /// Say something there.
    Say { text: String },
}

/// What a page is told.
#[derive(Serialize)]
#[serde(tag = "type", rename_all = "lowercase")]
pub(crate) enum Event<'a> {
    Welcome { room: &'a str, name: &'a str, people: Vec<&'a str> },
    Joined { name: &'a str, people: Vec<&'a str> },
    Left { name: &'a str, people: Vec<&'a str> },
    Said { name: &'a str, text: &'a str, at: u64 },
    Error { text: &'a str },
}

impl Event<'_> {
    pub(crate) fn to_message(&self) -> Message {
        serde_json::to_string(self).expect("strings and numbers are JSON").into()
    }
}

/// Who is in which room. A room exists as long as somebody is in it.
#[derive(Default)]
pub(crate) struct Rooms {
    people: Mutex<BTreeMap<String, Vec<String>>>,
}

/// Somebody's place in a room.
pub(crate) struct Seat {
    room: String,
    name: String,
    topic: Topic,
}

impl Rooms {
    /// Enters a room under a name that nobody else has there.
    pub(crate) async fn join(
        &self,
        socket: &Socket,
        room: &str,
        name: &str,
    ) -> Result<Seat, Error> {
        let topic = socket.topic(room);
        let (name, welcome) = {
            // Under the lock, so that everybody sees people come and go in the same order.
            let mut rooms = self.people.lock().unwrap_or_else(PoisonError::into_inner);
            let people = rooms.entry(room.to_owned()).or_default();
            let name = unique(name, people);
            people.push(name.clone());
            let names = || people.iter().map(String::as_str).collect();
            topic.publish(Event::Joined { name: &name, people: names() }.to_message());
            let welcome = Event::Welcome { room, name: &name, people: names() }.to_message();
            // What was said before is not for the newcomer; what follows is.
            topic.join(socket);
            (name, welcome)
        };
        socket.send(welcome).await?;
        Ok(Seat { room: room.to_owned(), name, topic })
    }

    /// Leaves a room.
    pub(crate) fn leave(&self, socket: &Socket, seat: Seat) {
        let Seat { room, name, topic } = seat;
        let mut rooms = self.people.lock().unwrap_or_else(PoisonError::into_inner);
        topic.leave(socket);
        let Some(people) = rooms.get_mut(&room) else { return };
        people.retain(|other| *other != name);
        let names = people.iter().map(String::as_str).collect();
        topic.publish(Event::Left { name: &name, people: names }.to_message());
        if people.is_empty() {
            rooms.remove(&room);
        }
    }

    /// Says something to everybody in the room, the speaker too.
    pub(crate) fn say(&self, seat: &Seat, text: &str) {
        let at =
            SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_millis() as u64;
        seat.topic.publish(Event::Said { name: &seat.name, text, at }.to_message());
    }
}

/// The name, or with a number if somebody has it already.
fn unique(name: &str, people: &[String]) -> String {
    let taken = |candidate: &String| people.contains(candidate);
    let numbered = (2..).map(|number| format!("{name} {number}"));
    std::iter::once(name.to_owned())
        .chain(numbered)
        .find(|candidate| !taken(candidate))
        .expect("there are more numbers than people")
}
