//! Negotiating permessage-deflate (RFC 6455 §9.1, RFC 7692 §5 and §7.1).
//!
//! Not its business: what the agreement does to messages, which is `ws-proto`'s.

use std::fmt::Write as _;

use http::{HeaderMap, header};

use crate::{
    HandshakeError,
    header::{is_token, list},
    proto::{AgreedDeflate, Context, Deflate},
};

/// The parameters of one offer or answer (RFC 7692 §7.1).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Params {
    server_no_context_takeover: bool,
    client_no_context_takeover: bool,
    server_max_window_bits: Option<u8>,
    client_max_window_bits: Option<ClientWindow>,
}

/// In an offer, `client_max_window_bits` may come without a value (§7.1.2.2).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum ClientWindow {
    /// "I can be told a window."
    Any,
    /// "Mine will be no larger than this."
    Bits(u8),
}

/// What a client puts into its request.
pub(crate) fn offer(settings: &Deflate) -> String {
    let mut offer = NAME.to_owned();
    let (ours, theirs) = (settings.sending(), settings.receiving());
    if !theirs.takeover {
        offer.push_str("; server_no_context_takeover");
    }
    if !ours.takeover {
        offer.push_str("; client_no_context_takeover");
    }
    if theirs.window_bits < MAX_WINDOW_BITS {
        let _ = write!(offer, "; server_max_window_bits={}", theirs.window_bits);
    }
    // §7.1.2.2: without it, the server cannot ask for a smaller window.
    offer.push_str("; client_max_window_bits");
    if ours.window_bits < MAX_WINDOW_BITS {
        let _ = write!(offer, "={}", ours.window_bits);
    }
    offer
}

/// Chooses among the offers of a request: the first one that we can accept. Answers with what was
/// agreed on and the value of the response's header.
///
/// §5: an offer that is not understood is declined, which is no error; a header that breaks the
/// grammar of RFC 6455 §9.1 is one.
pub(crate) fn accept(
    headers: &HeaderMap,
    settings: Option<&Deflate>,
) -> Result<Option<(AgreedDeflate, String)>, HandshakeError> {
    let offers = extensions(headers).map_err(|()| HandshakeError::InvalidExtensions)?;
    let Some(settings) = settings else { return Ok(None) };
    Ok(offers
        .iter()
        .filter(|offer| offer.name.eq_ignore_ascii_case(NAME))
        .find_map(|offer| accept_offer(&Params::parse(offer, Side::Offer)?, settings)))
}

/// | parameter                  | offered        | our setting       | answer                          |
/// |----------------------------|----------------|-------------------|---------------------------------|
/// | server_no_context_takeover | yes            | any               | yes; our context is not kept    |
/// |                            | no             | keep              | no                              |
/// |                            | no             | do not keep       | yes: tells it to save its memory |
/// | client_no_context_takeover | yes            | any               | yes; it will not keep its own   |
/// |                            | no             | peer may keep     | no                              |
/// |                            | no             | peer may not      | yes: it must obey (§7.1.1.2)    |
/// | server_max_window_bits     | absent         | 15                | absent                          |
/// |                            | absent         | n < 15            | n: informs (§7.1.2.1)           |
/// |                            | 8              | any               | offer declined: we have none    |
/// |                            | m ≥ 9          | n                 | min(m, n)                       |
/// | client_max_window_bits     | absent         | any               | absent: it may not be told      |
/// |                            | without value  | 15                | absent                          |
/// |                            | without value  | n < 15            | n                               |
/// |                            | m              | n                 | min(m, n)                       |
fn accept_offer(offer: &Params, settings: &Deflate) -> Option<(AgreedDeflate, String)> {
    let (ours, theirs) = (settings.sending(), settings.receiving());
    let mut answer = NAME.to_owned();

    let send_takeover = ours.takeover && !offer.server_no_context_takeover;
    if !send_takeover {
        answer.push_str("; server_no_context_takeover");
    }
    let receive_takeover = theirs.takeover && !offer.client_no_context_takeover;
    if !receive_takeover {
        answer.push_str("; client_no_context_takeover");
    }
    let send_bits = match offer.server_max_window_bits {
        Some(8) => return None,
        Some(bits) => bits.min(ours.window_bits),
        None => ours.window_bits,
    };
    if offer.server_max_window_bits.is_some() || send_bits < MAX_WINDOW_BITS {
        let _ = write!(answer, "; server_max_window_bits={send_bits}");
    }
    let receive_bits = match offer.client_max_window_bits {
        None => MAX_WINDOW_BITS,
        Some(ClientWindow::Any) => theirs.window_bits,
        Some(ClientWindow::Bits(bits)) => bits.min(theirs.window_bits),
    };
    let told = match offer.client_max_window_bits {
        None => false,
        Some(ClientWindow::Any) => receive_bits < MAX_WINDOW_BITS,
        Some(ClientWindow::Bits(_)) => true,
    };
    if told {
        let _ = write!(answer, "; client_max_window_bits={receive_bits}");
    }
    let agreed = settings.agree(
        Context { takeover: send_takeover, window_bits: send_bits },
        Context { takeover: receive_takeover, window_bits: receive_bits },
    );
    Some((agreed, answer))
}

/// Judges the server's answer to our offer.
///
/// | parameter                  | in the answer | our offer       | verdict                             |
/// |----------------------------|---------------|-----------------|-------------------------------------|
/// | server_no_context_takeover | absent        | offered         | error: it must obey (§7.1.1.1)      |
/// |                            | present       | any             | accepted                            |
/// | client_no_context_takeover | absent        | any             | accepted; ours was a hint           |
/// |                            | present       | any             | accepted; we obey                   |
/// | server_max_window_bits     | absent        | offered         | error: it must obey (§7.1.2.1)      |
/// |                            | n             | m < n           | error                               |
/// |                            | n             | otherwise       | accepted                            |
/// | client_max_window_bits     | absent        | any             | accepted; we use our own            |
/// |                            | n             | any             | accepted; we use no more than n     |
/// |                            | without value | any             | error (§7.1.2.2)                    |
pub(crate) fn judge(
    headers: &HeaderMap,
    settings: Option<&Deflate>,
) -> Result<Option<AgreedDeflate>, HandshakeError> {
    if !headers.contains_key(header::SEC_WEBSOCKET_EXTENSIONS) {
        return Ok(None);
    }
    let Some(settings) = settings else { return Err(HandshakeError::UnofferedExtension) };
    let answers = extensions(headers).map_err(|()| HandshakeError::InvalidExtensions)?;
    let Some(answer) = answers.first() else { return Err(HandshakeError::InvalidExtensions) };
    if answers.len() > 1 || !answer.name.eq_ignore_ascii_case(NAME) {
        return Err(HandshakeError::UnofferedExtension);
    }
    let params = Params::parse(answer, Side::Answer).ok_or(HandshakeError::InvalidExtensions)?;
    let (ours, theirs) = (settings.sending(), settings.receiving());
    let receive_bits = params.server_max_window_bits.unwrap_or(MAX_WINDOW_BITS);
    if receive_bits > theirs.window_bits || (!theirs.takeover && !params.server_no_context_takeover)
    {
        return Err(HandshakeError::InvalidExtensions);
    }
    let send_bits = match params.client_max_window_bits {
        Some(ClientWindow::Bits(bits)) => bits.min(ours.window_bits),
        _ => ours.window_bits,
    };
    Ok(Some(settings.agree(
        Context {
            takeover: ours.takeover && !params.client_no_context_takeover,
            window_bits: send_bits,
        },
        Context { takeover: !params.server_no_context_takeover, window_bits: receive_bits },
    )))
}

/// Which side said it.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Side {
    Offer,
    Answer,
}

impl Params {
    /// `None` if a parameter is unknown, repeated, or has a value that it may not have (§7.1): an offer
    /// is declined for that, an answer fails the connection.
    fn parse(extension: &Extension<'_>, side: Side) -> Option<Self> {
        let mut params = Self::default();
        for (name, value) in &extension.params {
            // Parameter names are tokens, which RFC 6455 §9.1 compares in any case.
            let name = name.to_ascii_lowercase();
            let fresh = match (name.as_str(), value) {
                ("server_no_context_takeover", None) => {
                    !std::mem::replace(&mut params.server_no_context_takeover, true)
                }
                ("client_no_context_takeover", None) => {
                    !std::mem::replace(&mut params.client_no_context_takeover, true)
                }
                ("server_max_window_bits", Some(value)) => {
                    params.server_max_window_bits.replace(window_bits(value)?).is_none()
                }
                ("client_max_window_bits", None) if side == Side::Offer => {
                    params.client_max_window_bits.replace(ClientWindow::Any).is_none()
                }
                ("client_max_window_bits", Some(value)) => {
                    let bits = ClientWindow::Bits(window_bits(value)?);
                    params.client_max_window_bits.replace(bits).is_none()
                }
                _ => false,
            };
            if !fresh {
                return None;
            }
        }
        Some(params)
    }
}

/// §7.1.2: "a decimal integer value without leading zeroes between 8 to 15 inclusive".
fn window_bits(value: &str) -> Option<u8> {
    let bits = value.parse().ok().filter(|bits| (8..=MAX_WINDOW_BITS).contains(bits))?;
    (!value.starts_with(['0', '+'])).then_some(bits)
}

/// One entry of the header.
struct Extension<'a> {
    name: &'a str,
    params: Vec<(&'a str, Option<&'a str>)>,
}

/// The entries over all lines of the header, in order (RFC 6455 §9.1):
/// `token *(";" token ["=" (token | quoted-string)])`, where the unquoted string is a token, too.
fn extensions(headers: &HeaderMap) -> Result<Vec<Extension<'_>>, ()> {
    let mut extensions = Vec::new();
    // Commas and semicolons are no token characters, so none hides in a legal quoted string.
    for entry in list(headers, &header::SEC_WEBSOCKET_EXTENSIONS) {
        let mut parts = std::str::from_utf8(entry).map_err(|_| ())?.split(';').map(trim);
        let name = parts.next().filter(|name| is_token(name.as_bytes())).ok_or(())?;
        let params = parts.map(param).collect::<Result<_, _>>()?;
        extensions.push(Extension { name, params });
    }
    Ok(extensions)
}

fn param(text: &str) -> Result<(&str, Option<&str>), ()> {
    let (name, value) = match text.split_once('=') {
        Some((name, value)) => (trim(name), Some(unquote(trim(value)))),
        None => (text, None),
    };
    let legal = is_token(name.as_bytes()) && value.is_none_or(|value| is_token(value.as_bytes()));
    if legal { Ok((name, value)) } else { Err(()) }
}

/// A token needs no escapes inside its quotes.
fn unquote(value: &str) -> &str {
    value.strip_prefix('"').and_then(|value| value.strip_suffix('"')).unwrap_or(value)
}

/// RFC 9110 §5.6.3: optional white space is spaces and tabs.
fn trim(text: &str) -> &str {
    text.trim_matches([' ', '\t'])
}

const NAME: &str = "permessage-deflate";

/// 32 KiB, what a compressor uses if nobody asks for less.
const MAX_WINDOW_BITS: u8 = 15;
