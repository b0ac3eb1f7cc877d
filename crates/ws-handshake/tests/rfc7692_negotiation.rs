//! Negotiating permessage-deflate, row by row (RFC 7692 §5, §7.1): which answer a server gives to
//! which offers, what a client makes of which answers, and that both come to the same conclusion.
//!
//! Not its business: what is done with the agreement.

mod wire;

use wire::{NONCE, answer, hear, refusal, request, response, serve};
use ws_handshake::proto::{AgreedDeflate, Context, Deflate};
use ws_handshake::{ClientConfig, ClientHandshake, ServerConfig};

const NAME: &str = "permessage-deflate";
const MALFORMED: &str = "invalid Sec-WebSocket-Extensions header";
const UNOFFERED: &str = "server selected an extension that was not offered";

/// Settings that keep contexts as `sending` and `receiving` say, with these windows.
fn settings(sending: (bool, u8), receiving: (bool, u8)) -> Deflate {
    Deflate::default()
        .context_takeover(sending.0)
        .window_bits(sending.1)
        .peer_context_takeover(receiving.0)
        .peer_window_bits(receiving.1)
}

/// The windows for sending and receiving, each with a plus if its context is kept.
fn shown(agreed: &AgreedDeflate) -> String {
    let show = |context: Context| {
        format!("{}{}", context.window_bits, if context.takeover { "+" } else { "" })
    };
    format!("{} {}", show(agreed.send), show(agreed.receive))
}

/// What a server with these settings makes of a request with these lines: its answer's header, and
/// the agreement from where it stands.
fn accepted(settings: Option<Deflate>, lines: &[&str]) -> Option<(String, String)> {
    let config = server_config(settings);
    let served = serve(&config, &request(&edits(lines)))
        .unwrap_or_else(|error| panic!("{error} for {lines:?}"));
    let headers = served.accepted.response.headers();
    let mut answers = headers.get_all("sec-websocket-extensions").iter();
    let header = answers.next().map(|value| value.to_str().expect("ASCII").to_owned());
    assert!(answers.next().is_none(), "one line of answer at most");
    let agreed = served.accepted.negotiated.deflate.as_ref().map(shown);
    assert_eq!(header.is_some(), agreed.is_some(), "{lines:?}");
    header.zip(agreed)
}

fn server_config(settings: Option<Deflate>) -> ServerConfig {
    settings
        .map_or_else(ServerConfig::default, |settings| ServerConfig::default().deflate(settings))
}

fn client_config(settings: Option<Deflate>) -> ClientConfig {
    settings
        .map_or_else(ClientConfig::default, |settings| ClientConfig::default().deflate(settings))
}

/// Edits for [`request`] and [`response`].
fn edits(lines: &[&str]) -> String {
    let lines = lines.iter().map(|line| format!("+Sec-WebSocket-Extensions:{line}"));
    lines.collect::<Vec<_>>().join(" | ")
}

/// The value of the header that a client with these settings sends.
fn offered(settings: Option<Deflate>) -> Option<String> {
    let uri = "ws://example.com/chat".parse().expect("the URI is valid");
    let handshake =
        ClientHandshake::new(&uri, &client_config(settings), NONCE).expect("the config is valid");
    let request = std::str::from_utf8(handshake.request()).expect("these requests are text");
    let mut lines =
        request.lines().filter_map(|line| line.strip_prefix("Sec-WebSocket-Extensions: "));
    let offer = lines.next().map(str::to_owned);
    assert!(lines.next().is_none(), "one line of offers");
    offer
}

// The server's side.

/// The table of `accept_offer` in `extension.rs`: offer and settings → answer and agreement.
#[test]
fn server_answers_an_offer_according_to_its_settings() {
    let keep = Deflate::best_ratio();
    let forget = Deflate::default();
    let narrow = settings((true, 12), (true, 11));
    let own_only = settings((true, 15), (false, 15));
    let peer_only = settings((false, 15), (true, 15));
    let both = "; server_no_context_takeover; client_no_context_takeover";
    let backwards = "; client_no_context_takeover; server_no_context_takeover";
    let (server, client) = ("; server_no_context_takeover", "; client_no_context_takeover");
    for (settings, offer, answer, agreed) in [
        // server_no_context_takeover (§7.1.1.1) and client_no_context_takeover (§7.1.1.2).
        (keep, "", "", "15+ 15+"),
        (keep, server, server, "15 15+"),
        (keep, client, client, "15+ 15"),
        (keep, both, both, "15 15"),
        (keep, backwards, both, "15 15"),
        (forget, "", both, "15 15"),
        (forget, server, both, "15 15"),
        (forget, client, both, "15 15"),
        (forget, both, both, "15 15"),
        (own_only, "", client, "15+ 15"),
        (own_only, server, both, "15 15"),
        (peer_only, "", server, "15 15+"),
        (peer_only, client, both, "15 15"),
        // server_max_window_bits (§7.1.2.1).
        (keep, "; server_max_window_bits=15", "; server_max_window_bits=15", "15+ 15+"),
        (keep, "; server_max_window_bits=14", "; server_max_window_bits=14", "14+ 15+"),
        (keep, "; server_max_window_bits=10", "; server_max_window_bits=10", "10+ 15+"),
        (keep, "; server_max_window_bits=9", "; server_max_window_bits=9", "9+ 15+"),
        (narrow, "", "; server_max_window_bits=12", "12+ 15+"),
        (narrow, "; server_max_window_bits=15", "; server_max_window_bits=12", "12+ 15+"),
        (narrow, "; server_max_window_bits=12", "; server_max_window_bits=12", "12+ 15+"),
        (narrow, "; server_max_window_bits=9", "; server_max_window_bits=9", "9+ 15+"),
        // client_max_window_bits (§7.1.2.2); only who offers it can be told one.
        (keep, "; client_max_window_bits", "", "15+ 15+"),
        (keep, "; client_max_window_bits=15", "; client_max_window_bits=15", "15+ 15+"),
        (keep, "; client_max_window_bits=9", "; client_max_window_bits=9", "15+ 9+"),
        (keep, "; client_max_window_bits=8", "; client_max_window_bits=8", "15+ 8+"),
        (
            narrow,
            "; client_max_window_bits",
            "; server_max_window_bits=12; client_max_window_bits=11",
            "12+ 11+",
        ),
        (
            narrow,
            "; client_max_window_bits=15",
            "; server_max_window_bits=12; client_max_window_bits=11",
            "12+ 11+",
        ),
        (
            narrow,
            "; client_max_window_bits=10",
            "; server_max_window_bits=12; client_max_window_bits=10",
            "12+ 10+",
        ),
        // All at once, in an order of its own.
        (
            narrow,
            "; client_max_window_bits; server_max_window_bits=9; client_no_context_takeover; \
             server_no_context_takeover",
            "; server_no_context_takeover; client_no_context_takeover; server_max_window_bits=9; \
             client_max_window_bits=11",
            "9 11",
        ),
    ] {
        assert_eq!(
            accepted(Some(settings), &[&format!(" {NAME}{offer}")]),
            Some((format!("{NAME}{answer}"), agreed.to_owned())),
            "{offer:?} to {settings:?}"
        );
    }
}

/// §5, §7.1: an offer with a parameter that is not understood is declined, which is no error; the
/// next one may do. An offer of 8 bits asks for a window that our compressor has not.
#[test]
fn server_declines_what_it_cannot_accept_and_takes_the_next() {
    let values = ["7", "08", "09", "015", "16", "17", "+9", "-9", "0", "265", "9.0", "0x9", "abc"];
    let huge = "9".repeat(40);
    let mut params = vec![
        // Unknown ones, with and without a value, also beside known ones.
        "x".to_owned(),
        "server_no_context_takeover; mode=fast".to_owned(),
        "server_no_context_takeovers".to_owned(),
        "client_window_bits=9".to_owned(),
        // Values where there are none, and none where there must be one.
        "server_no_context_takeover=1".to_owned(),
        "server_no_context_takeover=true".to_owned(),
        "client_no_context_takeover=1".to_owned(),
        "client_no_context_takeover=\"true\"".to_owned(),
        "server_max_window_bits".to_owned(),
        // Repeated ones, of equal or different value.
        "server_no_context_takeover; server_no_context_takeover".to_owned(),
        "client_no_context_takeover; CLIENT_no_context_takeover".to_owned(),
        "server_max_window_bits=9; server_max_window_bits=9".to_owned(),
        "server_max_window_bits=9; server_max_window_bits=10".to_owned(),
        "client_max_window_bits; client_max_window_bits".to_owned(),
        "client_max_window_bits; client_max_window_bits=9".to_owned(),
        "client_max_window_bits=9; client_max_window_bits".to_owned(),
        "client_max_window_bits=9; client_max_window_bits=9".to_owned(),
        // Legal, but nothing that we can do.
        "server_max_window_bits=8".to_owned(),
        "server_max_window_bits=\"8\"".to_owned(),
        "server_no_context_takeover; server_max_window_bits=8".to_owned(),
    ];
    for value in values.into_iter().chain([huge.as_str()]) {
        for side in ["server", "client"] {
            params.push(format!("{side}_max_window_bits={value}"));
            params.push(format!("{side}_max_window_bits=\"{value}\""));
        }
    }
    let bare = (NAME.to_owned(), "15+ 15+".to_owned());
    let ten = (format!("{NAME}; server_max_window_bits=10"), "10+ 15+".to_owned());
    for settings in [Deflate::best_ratio(), Deflate::default(), settings((true, 9), (false, 9))] {
        for params in &params {
            assert_eq!(accepted(Some(settings), &[&format!("{NAME}; {params}")]), None, "{params}");
        }
    }
    let keep = Some(Deflate::best_ratio());
    for params in &params {
        let bad = format!("{NAME}; {params}");
        assert_eq!(accepted(keep, &[&format!("{bad}, {NAME}")]), Some(bare.clone()), "{bad}");
        assert_eq!(accepted(keep, &[&bad, NAME]), Some(bare.clone()), "{bad}");
        let three = format!("{bad}, {NAME}; server_max_window_bits=10, {NAME}");
        assert_eq!(accepted(keep, &[&three]), Some(ten.clone()), "{bad}");
        assert_eq!(accepted(keep, &[&bad, &bad]), None, "{bad}");
    }
}

/// §5: offers are in the client's order of preference; RFC 9110 §5.3: several lines are one list.
#[test]
fn server_takes_the_first_offer_that_it_can_accept() {
    let first = "; server_max_window_bits=9";
    let second = "; server_no_context_takeover";
    for lines in [
        vec![format!("{NAME}{first}, {NAME}{second}")],
        vec![format!("{NAME}{first}"), format!("{NAME}{second}")],
        vec![format!("x-first, {NAME}{first}"), format!("{NAME}{second}, x-last")],
        vec![String::new(), " , ,".to_owned(), format!(",{NAME}{first},,{NAME}{second},")],
        vec!["x-first; a=b; c".to_owned(), format!("x, {NAME}{first}"), NAME.to_owned()],
    ] {
        let lines: Vec<&str> = lines.iter().map(String::as_str).collect();
        let expected = (format!("{NAME}{first}"), "9+ 15+".to_owned());
        assert_eq!(accepted(Some(Deflate::best_ratio()), &lines), Some(expected), "{lines:?}");
    }
}

/// RFC 6455 §9.1: tokens compare in any case, values may be quoted; RFC 9110 §5.6.1: white space
/// and empty elements do not count.
#[test]
fn server_reads_offers_however_they_are_written() {
    let plain = "permessage-deflate; server_max_window_bits=10; client_no_context_takeover";
    let answer = "permessage-deflate; client_no_context_takeover; server_max_window_bits=10";
    for written in [
        plain,
        "permessage-deflate;server_max_window_bits=10;client_no_context_takeover",
        "\t permessage-deflate\t;\t server_max_window_bits \t=\t 10 ; client_no_context_takeover \t",
        "permessage-deflate; server_max_window_bits=\"10\"; client_no_context_takeover",
        "permessage-deflate; server_max_window_bits = \"10\" ; client_no_context_takeover",
        "PERMESSAGE-DEFLATE; SERVER_MAX_WINDOW_BITS=10; CLIENT_NO_CONTEXT_TAKEOVER",
        "Permessage-Deflate; Server_Max_Window_Bits=\"10\"; Client_No_Context_Takeover",
        ",permessage-deflate; server_max_window_bits=10; client_no_context_takeover,",
        "\t,\t, permessage-deflate; client_no_context_takeover; server_max_window_bits=10 ,\t,",
    ] {
        let expected = (answer.to_owned(), "10+ 15".to_owned());
        assert_eq!(accepted(Some(Deflate::best_ratio()), &[written]), Some(expected), "{written}");
    }
}

/// RFC 6455 §9.1: other extensions are ignored, whatever they are like.
#[test]
fn server_ignores_other_extensions() {
    for other in [
        "",
        ",",
        "x-webkit-deflate-frame",
        "permessage-bzip2; x=y",
        "permessage-deflate2",
        "x-permessage-deflate",
        "x; permessage-deflate",
        "x; a; a; a=\"b\"; server_max_window_bits=99",
    ] {
        for settings in [Some(Deflate::default()), Some(Deflate::best_ratio()), None] {
            assert_eq!(accepted(settings, &[other]), None, "{other}");
            assert_eq!(accepted(settings, &[other, other]), None, "{other}");
        }
    }
    for settings in [Some(Deflate::default()), None] {
        assert_eq!(accepted(settings, &[]), None);
    }
}

/// Off is the default, whatever is offered.
#[test]
fn server_without_deflate_answers_without_the_header() {
    for offer in [NAME, "permessage-deflate; client_max_window_bits", "permessage-deflate; what"] {
        assert_eq!(accepted(None, &[offer]), None, "{offer}");
    }
}

/// What breaks the grammar of RFC 6455 §9.1.
const BROKEN: [&str; 29] = [
    ";",
    "=",
    "\"",
    ";x",
    "permessage deflate",
    "\"permessage-deflate\"",
    "permessage-deflate;",
    "permessage-deflate; ",
    "permessage-deflate;;client_max_window_bits",
    "permessage-deflate; ; client_max_window_bits",
    "permessage-deflate; =9",
    "permessage-deflate; \"client_max_window_bits\"",
    "permessage-deflate; client_max_window_bits=",
    "permessage-deflate; client_max_window_bits= ",
    "permessage-deflate; client_max_window_bits=\"\"",
    "permessage-deflate; client_max_window_bits=\"",
    "permessage-deflate; client_max_window_bits=\"9",
    "permessage-deflate; client_max_window_bits=9\"",
    "permessage-deflate; client_max_window_bits=\"9\"\"",
    "permessage-deflate; client_max_window_bits=\" 9\"",
    "permessage-deflate; client_max_window_bits=\"9,10\"",
    "permessage-deflate; client_max_window_bits=9=9",
    "permessage-deflate; client_max_window_bits 9",
    "permessage-deflate client_max_window_bits",
    "permessage-deflate; client_max_window_bits:9",
    "permessage-deflate/1",
    "x; y=\"a b\"",
    "x(y)",
    "gr\u{fc}n",
];

/// Whether deflate is on or off, and wherever it stands: what else it says cannot be trusted.
#[test]
fn server_answers_400_to_what_breaks_the_grammar() {
    for settings in [None, Some(Deflate::default()), Some(Deflate::best_ratio())] {
        let config = server_config(settings);
        for broken in BROKEN {
            let behind = format!("{NAME}, {broken}");
            let before = format!("{broken}, {NAME}");
            let lines: [&[&str]; 5] =
                [&[broken], &[&behind], &[&before], &[NAME, broken], &[broken, NAME]];
            for lines in lines {
                let wire = request(&edits(lines));
                let error = serve(&config, &wire).map(|_| ()).expect_err(broken);
                assert_eq!(error.to_string(), MALFORMED, "{lines:?}");
                let answer = String::from_utf8(answer(&config, &wire)).expect("answers are text");
                assert!(answer.starts_with("HTTP/1.1 400 Bad Request\r\n"), "{answer}");
                assert!(answer.ends_with("\r\n\r\ninvalid Sec-WebSocket-Extensions header.\n"));
                assert!(!answer.to_ascii_lowercase().contains("sec-websocket-extensions:"));
            }
        }
    }
}

// The client's side.

#[test]
fn client_offers_in_these_very_words() {
    assert_eq!(offered(None), None);
    for (settings, offer) in [
        (
            Deflate::default(),
            "permessage-deflate; server_no_context_takeover; client_no_context_takeover; \
             client_max_window_bits",
        ),
        (Deflate::best_ratio(), "permessage-deflate; client_max_window_bits"),
        // What only our own compressor is about says nothing.
        (
            Deflate::best_ratio().level(9).mem_level(1).threshold(0),
            "permessage-deflate; client_max_window_bits",
        ),
        (
            settings((true, 15), (false, 15)),
            "permessage-deflate; server_no_context_takeover; client_max_window_bits",
        ),
        (
            settings((false, 15), (true, 15)),
            "permessage-deflate; client_no_context_takeover; client_max_window_bits",
        ),
        (settings((true, 9), (true, 15)), "permessage-deflate; client_max_window_bits=9"),
        (
            settings((true, 15), (true, 9)),
            "permessage-deflate; server_max_window_bits=9; client_max_window_bits",
        ),
        (
            settings((false, 12), (false, 14)),
            "permessage-deflate; server_no_context_takeover; client_no_context_takeover; \
             server_max_window_bits=14; client_max_window_bits=12",
        ),
        // zlib and its descendants have no window of 8 bits, so we do not ask for one.
        (
            settings((true, 8), (true, 0)),
            "permessage-deflate; server_max_window_bits=9; client_max_window_bits=9",
        ),
        (settings((true, 16), (true, 255)), "permessage-deflate; client_max_window_bits"),
    ] {
        assert_eq!(offered(Some(settings)).as_deref(), Some(offer), "{settings:?}");
    }
}

/// The table of `judge` in `extension.rs`: settings and answer → agreement, or none.
#[test]
fn client_judges_an_answer_by_its_offer() {
    let keep = Deflate::best_ratio();
    let forget = Deflate::default();
    let narrow = settings((true, 12), (true, 15));
    let narrow_peer = settings((true, 15), (true, 12));
    let both = "; server_no_context_takeover; client_no_context_takeover";
    let (server, client) = ("; server_no_context_takeover", "; client_no_context_takeover");
    for (settings, answer, verdict) in [
        // server_no_context_takeover (§7.1.1.1): who is asked for it must obey.
        (keep, "", Ok("15+ 15+")),
        (keep, server, Ok("15+ 15")),
        (forget, "", Err(())),
        (forget, client, Err(())),
        (forget, server, Ok("15 15")),
        (forget, both, Ok("15 15")),
        // client_no_context_takeover (§7.1.1.2): our offer was a hint, the answer is an order.
        (keep, client, Ok("15 15+")),
        (keep, both, Ok("15 15")),
        (settings((false, 15), (true, 15)), "", Ok("15 15+")),
        (settings((false, 15), (true, 15)), client, Ok("15 15+")),
        // server_max_window_bits (§7.1.2.1): also where it was not offered.
        (keep, "; server_max_window_bits=8", Ok("15+ 8+")),
        (keep, "; server_max_window_bits=9", Ok("15+ 9+")),
        (keep, "; server_max_window_bits=15", Ok("15+ 15+")),
        (narrow_peer, "", Err(())),
        (narrow_peer, "; server_max_window_bits=8", Ok("15+ 8+")),
        (narrow_peer, "; server_max_window_bits=11", Ok("15+ 11+")),
        (narrow_peer, "; server_max_window_bits=12", Ok("15+ 12+")),
        (narrow_peer, "; server_max_window_bits=13", Err(())),
        (narrow_peer, "; server_max_window_bits=15", Err(())),
        (narrow_peer, "; client_max_window_bits=9", Err(())),
        // client_max_window_bits (§7.1.2.2).
        (keep, "; client_max_window_bits=8", Ok("8+ 15+")),
        (keep, "; client_max_window_bits=9", Ok("9+ 15+")),
        (keep, "; client_max_window_bits=15", Ok("15+ 15+")),
        (keep, "; client_max_window_bits", Err(())),
        (narrow, "", Ok("12+ 15+")),
        (narrow, "; client_max_window_bits=9", Ok("9+ 15+")),
        (narrow, "; client_max_window_bits=12", Ok("12+ 15+")),
        (narrow, "; client_max_window_bits=15", Ok("12+ 15+")),
        // All at once, written in other ways.
        (
            forget,
            "; client_max_window_bits=10; server_max_window_bits=11; client_no_context_takeover; \
             server_no_context_takeover",
            Ok("10 11"),
        ),
        (keep, " ;\tSERVER_MAX_WINDOW_BITS\t=\t\"10\" ", Ok("15+ 10+")),
    ] {
        for name in [NAME, "\t Permessage-DEFLATE"] {
            let line = format!("{name}{answer}");
            let config = client_config(Some(settings));
            let wire = response(&edits(&[&line]));
            match verdict {
                Ok(agreed) => {
                    let opened = hear(&config, &wire).expect("the answer is whole");
                    let opened = opened.unwrap_or_else(|error| panic!("{error}: {line:?}"));
                    let found = opened.negotiated.deflate.as_ref().map(shown);
                    assert_eq!(found.as_deref(), Some(agreed), "{line:?} to {settings:?}");
                }
                Err(()) => assert_eq!(
                    refusal(&config, &wire).to_string(),
                    MALFORMED,
                    "{line:?} to {settings:?}"
                ),
            }
        }
    }
}

/// A server need not know the extension.
#[test]
fn client_accepts_an_answer_without_the_header() {
    for settings in [None, Some(Deflate::default()), Some(Deflate::best_ratio())] {
        let opened = hear(&client_config(settings), &response("")).expect("a whole answer");
        assert_eq!(opened.expect("a legal answer").negotiated.deflate, None);
    }
}

/// §7.1: what we do not understand in an answer cannot be kept to.
#[test]
fn client_fails_an_answer_that_it_does_not_understand() {
    let mut params: Vec<String> = [
        "x",
        "x=y",
        "server_no_context_takeover=1",
        "client_no_context_takeover=true",
        "server_max_window_bits",
        "client_max_window_bits",
        "server_no_context_takeover; server_no_context_takeover",
        "client_no_context_takeover; client_no_context_takeover",
        "server_max_window_bits=9; server_max_window_bits=9",
        "client_max_window_bits=9; client_max_window_bits=10",
        "server_no_context_takeover; client_no_context_takeover; mode=fast",
    ]
    .map(str::to_owned)
    .into();
    for value in ["7", "08", "16", "+9", "-9", "0", "265", "9.0", "0x9", "abc"] {
        params.push(format!("server_max_window_bits={value}"));
        params.push(format!("client_max_window_bits=\"{value}\""));
    }
    let config = client_config(Some(Deflate::best_ratio()));
    for params in params {
        let error = refusal(&config, &response(&edits(&[&format!("{NAME}; {params}")])));
        assert_eq!(error.to_string(), MALFORMED, "{params}");
    }
    for broken in BROKEN.into_iter().chain(["", ","]) {
        let error = refusal(&config, &response(&edits(&[broken])));
        assert_eq!(error.to_string(), MALFORMED, "{broken}");
    }
}

/// RFC 6455 §4.1: "the use of an extension that was not present in the client's handshake".
#[test]
fn client_fails_an_answer_that_it_did_not_ask_for() {
    let unasked = client_config(None);
    for lines in [&[NAME][..], &["permessage-deflate; server_max_window_bits=9"], &["x"], &[""]] {
        let error = refusal(&unasked, &response(&edits(lines)));
        assert_eq!(error.to_string(), UNOFFERED, "{lines:?}");
    }
    let two = "permessage-deflate, permessage-deflate; server_no_context_takeover";
    for lines in [
        &["x-webkit-deflate-frame"][..],
        &["permessage-deflate2"],
        &[two],
        &[NAME, NAME],
        &["permessage-deflate, x"],
        &["x, permessage-deflate"],
        &[NAME, "x"],
    ] {
        let error = refusal(&client_config(Some(Deflate::best_ratio())), &response(&edits(lines)));
        assert_eq!(error.to_string(), UNOFFERED, "{lines:?}");
    }
}

// Both.

/// Whatever the two of them want, they agree, and on the same: what one sends is what the other
/// is prepared for. Nobody gets more than he allowed.
#[test]
fn our_client_and_our_server_agree_on_the_same() {
    let contexts = [false, true].map(|keep| [9, 12, 15].map(|bits| (keep, bits))).concat();
    let mut all = Vec::new();
    for sending in &contexts {
        all.extend(contexts.iter().map(|receiving| settings(*sending, *receiving)));
    }
    assert_eq!(all.len(), 36);
    let both = |one: Context, other: Context| Context {
        takeover: one.takeover && other.takeover,
        window_bits: one.window_bits.min(other.window_bits),
    };
    for asking in &all {
        let offer = offered(Some(*asking)).expect("an offer");
        for answering in &all {
            let what = format!("{offer} to {answering:?}");
            let served = serve(&server_config(Some(*answering)), &request(&edits(&[&offer])));
            let accepted = served.expect(&what).accepted;
            let server = accepted.negotiated.deflate.expect(&what);
            let answer = &accepted.response.headers()["sec-websocket-extensions"];
            let answer = answer.to_str().expect("ASCII");
            let heard = hear(&client_config(Some(*asking)), &response(&edits(&[answer])));
            let opened = heard.expect("a whole answer").expect(&what);
            let client = opened.negotiated.deflate.expect(&what);

            assert_eq!(client.send, server.receive, "{what}: {answer}");
            assert_eq!(client.receive, server.send, "{what}: {answer}");
            assert_eq!(client.send, both(asking.sending(), answering.receiving()), "{what}");
            assert_eq!(server.send, both(answering.sending(), asking.receiving()), "{what}");
        }
    }
}
