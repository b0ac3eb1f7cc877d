//! Each example does what it is for, and ends well when it is told to.
#![cfg(unix)]

mod support;

use base64::prelude::{BASE64_STANDARD, Engine};
use serde_json::Value;
use support::{Example, Web, check_echo, text, within};
use ws_serve::{
    Error,
    conn::{Client, HandshakeError},
    http::header,
};

#[tokio::test]
async fn echo_answers_everybody_and_ends() {
    let example = Example::start("echo", &["--workers", "2"]);
    let (mut ada, mut bob) = (example.connect("/").await, example.connect("/any/path").await);
    check_echo(&mut ada).await;
    check_echo(&mut bob).await;
    example.stop([ada, bob]).await;
}

#[tokio::test]
async fn second_signal_ends_what_does_not_close() {
    let mut example = Example::start("echo", &[]);
    // It never reads, and so never answers the Close frame.
    let mut silent = example.connect("/").await;
    check_echo(&mut silent).await;
    example.signal("INT");
    // Both signals are of one kind, and the system merges those that are not taken yet.
    within(refused(&example)).await;
    example.signal("INT");
    example.expect_end();
}

/// Waits until nobody listens any more.
async fn refused(example: &Example) {
    while tokio::net::TcpStream::connect(example.address).await.is_ok() {
        tokio::task::yield_now().await;
    }
}

#[tokio::test]
async fn broadcast_reaches_the_sender_too() {
    let example = Example::start("broadcast", &["--workers", "2"]);
    let mut ada = example.connect("/").await;
    ada.send("ada is here").await.unwrap();
    assert_eq!(text(&mut ada).await, "ada is here");
    let mut bob = example.connect("/").await;
    bob.send("bob is here").await.unwrap();
    assert_eq!(text(&mut bob).await, "bob is here");
    assert_eq!(text(&mut ada).await, "bob is here");
    example.stop([ada, bob]).await;
}

#[tokio::test]
async fn chat_has_a_page_and_rooms() {
    let example = Example::start("chat", &[]);
    assert!(example.http("GET /", &[]).await.contains("<title>Chat</title>"));
    assert!(example.http("GET /health", &[]).await.starts_with("HTTP/1.1 200"));
    assert!(example.http("GET /ready", &[]).await.starts_with("HTTP/1.1 200"));
    let mut ada = example.connect("/ws").await;
    ada.send(r#"{"type":"join","room":"den","name":"Ada"}"#).await.unwrap();
    assert_eq!(json(&mut ada).await["type"], "welcome");
    let mut bob = example.connect("/ws").await;
    bob.send(r#"{"type":"join","room":"den","name":"Ada"}"#).await.unwrap();
    assert_eq!(json(&mut bob).await["name"], "Ada 2");
    assert_eq!(json(&mut ada).await["people"], serde_json::json!(["Ada", "Ada 2"]));
    bob.send(r#"{"type":"say","text":"hi"}"#).await.unwrap();
    assert_eq!(json(&mut ada).await["text"], "hi");
    drop(bob);
    assert_eq!(json(&mut ada).await["type"], "left");
    example.stop([ada]).await;
}

#[tokio::test]
async fn dashboard_shows_values_and_counts() {
    let example = Example::start("dashboard", &["--keys", "3"]);
    assert!(example.http("GET /", &[]).await.contains("<canvas"));
    let mut tab = example.connect("/ws").await;
    let me = json(&mut tab).await;
    assert_eq!(me["type"], "you");
    let (mut values, mut stats) = (0, Value::Null);
    while values < 100 || stats.is_null() {
        let message = json(&mut tab).await;
        match message["type"].as_str() {
            Some("value") => values += 1,
            Some("stats") if message["open"] == 1 => stats = message,
            _ => {}
        }
    }
    assert_eq!(stats["connections"][0]["id"], me["id"]);
    assert_eq!(stats["counts"]["dropped"], 0);
    example.stop([tab]).await;
}

#[tokio::test]
async fn dashboard_tells_of_a_page_that_is_slow() {
    let example = Example::start("dashboard", &["--rate", "20000"]);
    let mut slow = example.connect_narrowly("/ws").await;
    let id = json(&mut slow).await["id"].clone();
    // It reads no more; the other one does.
    let mut quick = example.connect("/ws").await;
    let told = async {
        loop {
            let message = json(&mut quick).await;
            if message["type"] == "lag" && message["id"] == id {
                break message;
            }
        }
    };
    assert_eq!(within(told).await["lagging"], true);
    example.stop([slow, quick]).await;
}

#[tokio::test]
async fn rooms_are_found_by_typed_paths() {
    let example = Example::start("rooms", &[]);
    check_echo(&mut example.connect("/echo").await).await;
    assert_eq!(text(&mut example.connect("/sum/40/2").await).await, "42");
    assert_eq!(text(&mut example.connect("/ticker/BTC").await).await, "64000");
    for path in ["/sum/40/two", "/ticker/DOGE"] {
        assert_eq!(refusal(example.client(path)).await, 404, "{path}");
    }
    let mut ada = example.connect("/room/den/as/ada").await;
    ada.send("hi").await.unwrap();
    assert_eq!(text(&mut ada).await, "ada: hi");
    assert!(example.http("GET /people/den", &[]).await.ends_with("\r\n\r\n1\n"));
    assert_eq!(text(&mut example.connect("/room").await).await, "rooms were entered 1 times");
    let mut lost = example.connect("/no/such/place").await;
    let _ = within(lost.receive()).await;
    assert_eq!(lost.closed().code(), 4404);
    example.stop([ada]).await;
}

#[tokio::test]
async fn auth_lets_in_who_is_known() {
    let example = Example::start("auth", &["--user", "zoë:p:w", "--token", "t0ken"]);
    let with = |name, value: &str| example.client("/ws").header(name, value.parse().unwrap());
    let basic = |user: &str| format!("Basic {}", BASE64_STANDARD.encode(user));
    let let_in = |client: Client| async move { text(&mut client.connect().await.unwrap()).await };

    let known = with(header::AUTHORIZATION, &basic("zoë:p:w"));
    assert_eq!(let_in(known).await, "Hello zoë, I know you by a password.");
    let known = with(header::AUTHORIZATION, "bearer t0ken");
    assert_eq!(let_in(known).await, "Hello robot, I know you by a token.");
    for wrong in [&basic("zoë:p"), &basic("nobody:p:w"), "Bearer t0keN", "Basic !", "Digest x"] {
        assert_eq!(refusal(with(header::AUTHORIZATION, wrong)).await, 401, "{wrong}");
    }
    let answer = example.http("GET /ws", &[]).await.to_lowercase();
    assert!(answer.starts_with("http/1.1 401") && answer.contains("www-authenticate: basic"));

    let login = |user| format!("Authorization: {}", basic(user));
    assert!(example.http("POST /login", &[&login("zoë:no")]).await.starts_with("HTTP/1.1 403"));
    let answer = example.http("POST /login", &[&login("zoë:p:w")]).await;
    let cookie = answer.lines().find_map(|line| line.strip_prefix("Set-Cookie: ")).expect(&answer);
    assert!(cookie.contains("; HttpOnly; SameSite=Strict;"), "{cookie}");
    let (cookie, _) = cookie.split_once(';').unwrap();
    let known = || with(header::COOKIE, &format!("other=1; {cookie}"));
    assert_eq!(let_in(known()).await, "Hello zoë, I know you by a cookie.");
    // Somebody else's page, in the browser of somebody who is logged in.
    let hijacked = known().header(header::ORIGIN, "https://evil.example".parse().unwrap());
    assert_eq!(refusal(hijacked).await, 403);
    example.http("POST /logout", &[&format!("Cookie: {cookie}")]).await;
    assert_eq!(refusal(known()).await, 401);
    example.stop([]).await;
}

async fn json(web: &mut Web) -> Value {
    serde_json::from_str(&text(web).await).expect("JSON")
}

/// The status with which a connection is refused.
async fn refusal(client: Client) -> u16 {
    match within(client.connect()).await {
        Err(Error::Handshake(HandshakeError::Rejected(response))) => response.status().as_u16(),
        other => panic!("{other:?}"),
    }
}
