//! Claim, welcome and rejection in the metadata of a call (`docs/wire.md` §11).

use base64::{
    Engine,
    alphabet::STANDARD,
    engine::{DecodePaddingMode, GeneralPurpose, GeneralPurposeConfig},
};
use http::{HeaderMap, HeaderValue, header::AUTHORIZATION};
use tunnel_core::{
    Claim, Rejection, Secret, Welcome,
    proto::{FrameDecoder, FrameError, FrameKind, Message},
};

const CLAIM: &str = "tunnel-claim-bin";
const WELCOME: &str = "tunnel-welcome-bin";
const REJECTION: &str = "tunnel-rejection-bin";

/// What gRPC asks of binary metadata: sent without padding, accepted with and without.
const BASE64: GeneralPurpose = GeneralPurpose::new(
    &STANDARD,
    GeneralPurposeConfig::new()
        .with_encode_padding(false)
        .with_decode_padding_mode(DecodePaddingMode::Indifferent),
);

/// How a credential is presented (RFC 6750 §2.1).
const BEARER: &str = "Bearer ";

/// Why metadata does not hold what it should.
#[derive(Debug, thiserror::Error)]
pub(crate) enum MetadataError {
    #[error("there is no {0} in the metadata")]
    Missing(&'static str),
    #[error("there are several {0} in the metadata")]
    Several(&'static str),
    #[error("{0} is not base64")]
    Encoding(&'static str),
    #[error("{key}: {problem}")]
    Frame { key: &'static str, problem: FrameError },
    #[error("{0} does not hold one message")]
    Content(&'static str),
}

/// Writes a claim. A credential that can be a bearer token is one, so that proxies which check tokens find it.
pub(crate) fn put_claim(claim: &Claim, headers: &mut HeaderMap) {
    let mut claim = claim.clone();
    let bearer = claim.credential.as_ref().and_then(bearer);
    if let Some(bearer) = bearer {
        headers.insert(AUTHORIZATION, bearer);
        claim.credential = None;
    }
    let is_secret = claim.credential.is_some();
    put(CLAIM, &claim.encode(), is_secret, headers);
}

/// Reads a claim. The credential inside it counts before a bearer token, which a proxy may have put there.
pub(crate) fn claim(headers: &HeaderMap) -> Result<Claim, MetadataError> {
    let Message::Claim(mut claim) = read(CLAIM, &[FrameKind::Claim], headers)? else {
        return Err(MetadataError::Content(CLAIM));
    };
    if claim.credential.is_none() {
        claim.credential = headers.get(AUTHORIZATION).and_then(token);
    }
    Ok(claim)
}

pub(crate) fn put_welcome(welcome: &Welcome, headers: &mut HeaderMap) {
    put(WELCOME, &welcome.encode(), false, headers);
}

pub(crate) fn welcome(headers: &HeaderMap) -> Result<Welcome, MetadataError> {
    match read(WELCOME, &[FrameKind::Welcome], headers)? {
        Message::Welcome(welcome) => Ok(welcome),
        _ => Err(MetadataError::Content(WELCOME)),
    }
}

pub(crate) fn put_rejection(rejection: &Rejection, headers: &mut HeaderMap) {
    put(REJECTION, &rejection.encode(), false, headers);
}

/// The rejection in the headers of a response without a body, if there is one that can be read.
pub(crate) fn rejection(headers: &HeaderMap) -> Option<Rejection> {
    match read(REJECTION, &[FrameKind::Rejection], headers) {
        Ok(Message::Rejection(rejection)) => Some(rejection),
        _ => None,
    }
}

fn put(key: &'static str, frame: &[u8], is_secret: bool, headers: &mut HeaderMap) {
    // base64 is always a valid header value.
    if let Ok(mut value) = HeaderValue::try_from(BASE64.encode(frame)) {
        value.set_sensitive(is_secret);
        headers.insert(key, value);
    }
}

fn read(key: &'static str, expected: &'static [FrameKind], headers: &HeaderMap) -> Result<Message, MetadataError> {
    let mut values = headers.get_all(key).iter();
    let value = values.next().ok_or(MetadataError::Missing(key))?;
    if values.next().is_some() {
        return Err(MetadataError::Several(key));
    }
    let frame = BASE64
        .decode(value.as_bytes())
        .map_err(|_| MetadataError::Encoding(key))?;
    let mut decoder = FrameDecoder::expecting(expected);
    decoder.push(frame.into());
    let message = decoder
        .next()
        .map_err(|problem| MetadataError::Frame { key, problem })?;
    message
        .filter(|_| decoder.is_empty())
        .ok_or(MetadataError::Content(key))
}

/// The header of a credential that consists of the characters of a bearer token (RFC 6750 §2.1, `b64token`).
fn bearer(credential: &Secret) -> Option<HeaderValue> {
    let token = credential.expose();
    let unpadded = token.iter().rposition(|byte| *byte != b'=')? + 1;
    let allowed = |byte: &u8| byte.is_ascii_alphanumeric() || b"-._~+/".contains(byte);
    if !token[..unpadded].iter().all(allowed) {
        return None;
    }
    let mut value = HeaderValue::try_from([BEARER.as_bytes(), token].concat()).ok()?;
    value.set_sensitive(true);
    Some(value)
}

/// The token in an `authorization` header of that kind.
fn token(header: &HeaderValue) -> Option<Secret> {
    let (scheme, token) = header.as_bytes().split_at_checked(BEARER.len())?;
    if !scheme.eq_ignore_ascii_case(BEARER.as_bytes()) {
        return None;
    }
    Secret::new(token.trim_ascii()).ok()
}

#[cfg(test)]
mod tests {
    use tunnel_core::{CloseCode, Generation};

    use super::*;

    fn claiming(credential: Option<&[u8]>) -> Claim {
        let mut claim = Claim::new("node-7".parse().unwrap(), Generation(7));
        claim.credential = credential.map(|credential| Secret::new(credential).unwrap());
        claim
    }

    fn headers_of(claim: &Claim) -> HeaderMap {
        let mut headers = HeaderMap::new();
        put_claim(claim, &mut headers);
        headers
    }

    #[test]
    fn a_credential_is_a_bearer_token_if_it_can_be_one() {
        let bearers: [&[u8]; 4] = [b"s3cr3t", b"eyJ.eyJ-_.sig", b"+/~==", b"a"];
        let others: [&[u8]; 6] = [b"two words", b"a=b", b"=", b"\xff\x00", b"a\r\nb", "é".as_bytes()];
        for (credential, is_bearer) in bearers
            .map(|token| (token, true))
            .into_iter()
            .chain(others.map(|other| (other, false)))
        {
            let sent = claiming(Some(credential));
            let headers = headers_of(&sent);
            assert_eq!(headers.contains_key(AUTHORIZATION), is_bearer, "{credential:?}");
            assert!(headers.values().any(HeaderValue::is_sensitive), "{credential:?}");
            let alone = BASE64.decode(&headers[CLAIM]).unwrap();
            let shown = alone.windows(credential.len()).any(|window| window == credential);
            // A short one may be found anywhere.
            assert!(!is_bearer || credential.len() < 4 || !shown, "{credential:?}");
            assert_eq!(claim(&headers).unwrap(), sent);
        }
        assert_eq!(claim(&headers_of(&claiming(None))).unwrap(), claiming(None));
    }

    #[test]
    fn the_credential_in_the_claim_counts_before_a_proxys_token() {
        let mut headers = headers_of(&claiming(Some(b"two words")));
        headers.insert(AUTHORIZATION, HeaderValue::from_static("Bearer of-the-proxy"));
        assert_eq!(claim(&headers).unwrap(), claiming(Some(b"two words")));
    }

    #[test]
    fn other_schemes_are_not_credentials() {
        for value in ["Basic dXNlcjpwdw==", "Bearer", "Bearer ", "Bearer   ", ""] {
            let mut headers = headers_of(&claiming(None));
            headers.insert(AUTHORIZATION, HeaderValue::from_static(value));
            assert_eq!(claim(&headers).unwrap().credential, None, "{value:?}");
        }
    }

    #[test]
    fn the_document_shows_what_is_sent() {
        let document = include_str!("../../docs/wire.md");
        let mut headers = headers_of(&claiming(Some(b"s3cr3t")));
        put_welcome(&Welcome::new("server-1".parse().unwrap()), &mut headers);
        for (name, value) in &headers {
            let line = format!("\n{name}: {}\n", value.to_str().unwrap());
            assert!(document.contains(&line), "no line {line}");
        }
    }

    #[test]
    fn padding_may_be_there_or_not() {
        for credential in [b"a b".as_slice(), b"a bc", b"a bcd"] {
            let sent = claiming(Some(credential));
            let mut headers = headers_of(&sent);
            let padded = base64::engine::general_purpose::STANDARD.encode(sent.encode());
            headers.insert(CLAIM, padded.try_into().unwrap());
            assert_eq!(claim(&headers).unwrap(), sent);
        }
    }

    #[test]
    fn what_is_not_one_message_is_refused() {
        let with = |value: Vec<u8>| {
            let mut headers = HeaderMap::new();
            headers.insert(CLAIM, BASE64.encode(value).try_into().unwrap());
            claim(&headers)
        };
        let whole = claiming(None).encode().to_vec();
        let welcome = Rejection::new(CloseCode::VERSION, "").encode().to_vec();
        assert!(with(whole.clone()).is_ok());
        assert!(matches!(with(whole.repeat(2)), Err(MetadataError::Content(_))));
        assert!(matches!(
            with(whole[..whole.len() - 1].to_vec()),
            Err(MetadataError::Content(_))
        ));
        assert!(matches!(with(Vec::new()), Err(MetadataError::Content(_))));
        assert!(matches!(with(welcome), Err(MetadataError::Frame { .. })));
        assert!(matches!(claim(&HeaderMap::new()), Err(MetadataError::Missing(_))));

        let mut headers = HeaderMap::new();
        headers.insert(CLAIM, HeaderValue::from_static("*"));
        assert!(matches!(claim(&headers), Err(MetadataError::Encoding(_))));
        headers.append(CLAIM, HeaderValue::from_static(""));
        assert!(matches!(claim(&headers), Err(MetadataError::Several(_))));
    }
}
