//! Header fields, and frames inside them.

use base64::{Engine, prelude::BASE64_URL_SAFE_NO_PAD};
use http::{HeaderMap, HeaderName, HeaderValue};
use tunnel_core::proto::{FrameDecoder, FrameError, FrameKind, Message};

/// The agent's claim, in the request.
pub(super) const CLAIM: HeaderName = HeaderName::from_static("tunnel-claim");
/// The server's welcome, in the response 101.
pub(super) const WELCOME: HeaderName = HeaderName::from_static("tunnel-welcome");
/// The server's rejection, in any other response.
pub(super) const REJECTION: HeaderName = HeaderName::from_static("tunnel-rejection");

/// A frame as the value of a field: base64url without padding (RFC 4648 §5).
#[must_use]
pub fn encode(frame: &[u8]) -> HeaderValue {
    // Its alphabet is that of header values, so it cannot fail.
    HeaderValue::from_str(&BASE64_URL_SAFE_NO_PAD.encode(frame)).unwrap_or(HeaderValue::from_static(""))
}

/// Why there is no message in a field.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum FieldError {
    /// The field is not there.
    #[error("there is no header field {0}")]
    Missing(HeaderName),
    /// It is there several times.
    #[error("the header field {0} is there more than once")]
    Twice(HeaderName),
    /// Its value cannot be decoded.
    #[error("the header field {0} is not base64url")]
    Encoding(HeaderName),
    /// It holds no frame, or several.
    #[error("the header field {0} does not hold exactly one frame")]
    Count(HeaderName),
    /// Its frame is malformed.
    #[error("{0}")]
    Frame(#[source] FrameError),
}

/// The one message of a field, of one of these kinds.
pub fn decode(headers: &HeaderMap, name: &HeaderName, kinds: &'static [FrameKind]) -> Result<Message, FieldError> {
    let mut values = headers.get_all(name).iter();
    let value = values.next().ok_or_else(|| FieldError::Missing(name.clone()))?;
    if values.next().is_some() {
        return Err(FieldError::Twice(name.clone()));
    }
    let frame = BASE64_URL_SAFE_NO_PAD
        .decode(value.as_bytes())
        .map_err(|_| FieldError::Encoding(name.clone()))?;
    let mut decoder = FrameDecoder::expecting(kinds);
    decoder.push(frame.into());
    let first = decoder.next().map_err(FieldError::Frame)?;
    let second = decoder.next().map_err(FieldError::Frame)?;
    decoder.finish().map_err(FieldError::Frame)?;
    match (first, second) {
        (Some(message), None) => Ok(message),
        _ => Err(FieldError::Count(name.clone())),
    }
}

/// The items of all comma lists of a field (RFC 9110 §5.6.1).
pub fn items<'a>(headers: &'a HeaderMap, name: &HeaderName) -> impl Iterator<Item = &'a str> {
    let values = headers.get_all(name).iter().filter_map(|value| value.to_str().ok());
    values.flat_map(|value| value.split(',')).map(str::trim)
}

/// Whether one of them is this token, in any case.
#[must_use]
pub fn has_token(headers: &HeaderMap, name: &HeaderName, token: &str) -> bool {
    items(headers, name).any(|item| item.eq_ignore_ascii_case(token))
}

#[cfg(test)]
mod tests {
    use super::*;
    use http::header;
    use tunnel_core::{CloseCode, Rejection};

    fn map(values: &[HeaderValue]) -> HeaderMap {
        let mut headers = HeaderMap::new();
        for value in values {
            headers.append(REJECTION, value.clone());
        }
        headers
    }

    #[test]
    fn a_frame_survives_a_header() {
        let rejection = Rejection::new(CloseCode::OVERLOADED, "too many");
        let headers = map(&[encode(&rejection.encode())]);
        let decoded = decode(&headers, &REJECTION, &[FrameKind::Rejection]).unwrap();
        assert_eq!(decoded, Message::Rejection(rejection));
    }

    #[test]
    fn anything_but_one_frame_is_refused() {
        let frame = Rejection::new(CloseCode::OVERLOADED, "too many").encode();
        let twice = [&frame[..], &frame[..]].concat();
        for (values, problem) in [
            (vec![], "no header field"),
            (vec![encode(&frame), encode(&frame)], "more than once"),
            (vec![HeaderValue::from_static("Aw==")], "not base64url"),
            (vec![HeaderValue::from_static("/+")], "not base64url"),
            (vec![encode(&twice)], "exactly one frame"),
            (vec![encode(b"")], "exactly one frame"),
            (vec![encode(&frame[..3])], "ended inside"),
            (vec![encode(b"\x01\x00")], "came where"),
        ] {
            let error = decode(&map(&values), &REJECTION, &[FrameKind::Rejection]).unwrap_err();
            assert!(error.to_string().contains(problem), "{error}");
        }
    }

    #[test]
    fn tokens_are_found_in_lists() {
        let mut headers = HeaderMap::new();
        headers.append(header::CONNECTION, HeaderValue::from_static("keep-alive , upGrade"));
        headers.append(header::CONNECTION, HeaderValue::from_static("x"));
        for (token, found) in [("upgrade", true), ("x", true), ("close", false), ("keep", false)] {
            assert_eq!(has_token(&headers, &header::CONNECTION, token), found, "{token}");
        }
    }
}
