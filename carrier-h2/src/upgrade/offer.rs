//! What an agent asks for, as a server reads it.

use bytes::Bytes;
use http::{HeaderValue, Method, Response, StatusCode, Version, header, request};
use http_body_util::Full;
use tunnel_core::{Claim, Welcome};
use tunnel_tcp::upgrade::{Refused, claim, has_token, welcome_field};

use crate::PROTOCOL;

/// A well-formed upgrade to the tunnel.
#[derive(Debug)]
pub(crate) struct Offer {
    /// With the credential in it, wherever it came from.
    pub(crate) claim: Claim,
}

impl Offer {
    /// Reads the head of a request to `path`.
    pub(crate) fn read(request: &request::Parts, has_body: bool, path: &str) -> Result<Self, Refused> {
        let headers = &request.headers;
        if request.uri.path() != path {
            return Err(Refused::stranger(request, StatusCode::NOT_FOUND, "nothing here"));
        }
        if request.method != Method::GET {
            let text = "the tunnel begins with GET";
            return Err(Refused::stranger(request, StatusCode::METHOD_NOT_ALLOWED, text).with(header::ALLOW, "GET"));
        }
        let asks = has_token(headers, &header::UPGRADE, PROTOCOL) && has_token(headers, &header::CONNECTION, "upgrade");
        if request.version != Version::HTTP_11 || !asks {
            let text = "a tunnel-server: agents connect here by an upgrade to tunnel-h2";
            return Err(Refused::stranger(request, StatusCode::UPGRADE_REQUIRED, text)
                .with(header::UPGRADE, PROTOCOL)
                .with(header::CONNECTION, "upgrade, close"));
        }
        if has_body {
            let detail = "the upgrade comes without a body";
            return Err(Refused::malformed(StatusCode::BAD_REQUEST, detail));
        }
        let claim = claim(headers).map_err(|rejection| Refused::rejection(rejection, PROTOCOL))?;
        Ok(Self { claim })
    }

    /// The response that makes the connection a tunnel.
    pub(crate) fn accept(welcome: &Welcome) -> Response<Full<Bytes>> {
        let mut response = Response::new(Full::default());
        *response.status_mut() = StatusCode::SWITCHING_PROTOCOLS;
        let headers = response.headers_mut();
        headers.insert(header::UPGRADE, HeaderValue::from_static(PROTOCOL));
        headers.insert(header::CONNECTION, HeaderValue::from_static("Upgrade"));
        welcome_field(welcome, headers);
        response
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use http::Request;

    fn read(request: Request<()>) -> Refused {
        Offer::read(&request.into_parts().0, false, "/tunnel").unwrap_err()
    }

    #[test]
    fn what_is_no_upgrade_is_answered_in_words() {
        let ask = || Request::builder().uri("/tunnel");
        for (request, status) in [
            (Request::builder().uri("/"), 404),
            (ask().method(Method::POST), 405),
            (ask(), 426),
            (ask().header("upgrade", PROTOCOL), 426),
            (
                ask().header("upgrade", "websocket").header("connection", "upgrade"),
                426,
            ),
            (
                ask()
                    .header("upgrade", PROTOCOL)
                    .header("connection", "keep-alive, Upgrade"),
                400,
            ),
        ] {
            let refused = read(request.body(()).unwrap());
            assert_eq!(refused.response.status().as_u16(), status, "{}", refused.error);
        }
    }
}
