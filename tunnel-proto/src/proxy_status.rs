//! The `Proxy-Status` field (RFC 9209), a structured-field list (RFC 9651).

use std::fmt::{self, Write as _};

use crate::{RefusalKind, Text};

/// The value of `Proxy-Status` for a refusal. Its `Display` is the value, which fits into a header field whatever the
/// parts are.
#[derive(Clone, Copy, Debug)]
pub struct ProxyStatus<'a> {
    /// The intermediary that refused: it carries `error` and `details`.
    pub refused_by: &'a str,
    /// The intermediary that passes the refusal on, if there is one: it comes second, because the first is closer to the
    /// target (RFC 9209 §2).
    pub passed_on_by: Option<&'a str>,
    /// The type of the failure.
    pub kind: RefusalKind,
    /// One sentence for people, of which ASCII is kept.
    pub details: &'a str,
}

impl fmt::Display for ProxyStatus<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // The registered names of the errors are tokens.
        write!(
            f,
            "{}; error={}; details={}",
            Item(self.refused_by),
            self.kind.name(),
            Quoted(self.details)
        )?;
        match self.passed_on_by {
            Some(name) => write!(f, ", {}", Item(name)),
            None => Ok(()),
        }
    }
}

/// What a `Proxy-Status` of somebody says of a failure.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ProxyError {
    /// The intermediary that failed, made safe to print.
    pub proxy: Text,
    /// The type of the failure; none if it says nothing about how a stream was not opened, or is not registered.
    pub kind: Option<RefusalKind>,
    /// Its words; empty if there are none.
    pub details: Text,
}

impl ProxyError {
    /// Reads a value of the field: the first member that carries an `error`, which is the closest to the target
    /// (RFC 9209 §2). `None` if no member does, or the list is malformed before it.
    #[must_use]
    pub fn parse(field: &str) -> Option<Self> {
        let mut rest = Scanner(field);
        loop {
            let member = rest.member()?;
            if let Some(error) = member.error {
                return Some(Self {
                    proxy: Text::new(&member.name),
                    kind: kind(&error),
                    details: Text::new(&member.details.unwrap_or_default()),
                });
            }
            rest.comma()?;
        }
    }
}

/// The kind of a refusal for a registered error (RFC 9209 §2.3).
fn kind(error: &str) -> Option<RefusalKind> {
    if let Some(kind) = RefusalKind::ALL.iter().find(|kind| kind.name() == error) {
        return Some(*kind);
    }
    match error {
        "connection_read_timeout" | "connection_write_timeout" | "http_response_timeout" => {
            Some(RefusalKind::ConnectionTimeout)
        }
        "tls_protocol_error"
        | "tls_certificate_error"
        | "tls_alert_received"
        | "http_protocol_error"
        | "http_upgrade_failed" => Some(RefusalKind::ConnectionTerminated),
        _ => error
            .starts_with("http_response_")
            .then_some(RefusalKind::ConnectionTerminated),
    }
}

/// One member of the list, as far as it matters.
#[derive(Debug, Default)]
struct Member {
    name: String,
    error: Option<String>,
    details: Option<String>,
}

/// What is left of a field.
struct Scanner<'a>(&'a str);

impl Scanner<'_> {
    fn skip(&mut self, what: &[char]) {
        self.0 = self.0.trim_start_matches(what);
    }

    fn eat(&mut self, c: char) -> bool {
        let rest = self.0.strip_prefix(c);
        self.0 = rest.unwrap_or(self.0);
        rest.is_some()
    }

    /// What stands between two members.
    fn comma(&mut self) -> Option<()> {
        self.skip(&[' ', '\t']);
        self.eat(',').then_some(())
    }

    fn member(&mut self) -> Option<Member> {
        self.skip(&[' ', '\t']);
        let mut member = Member {
            name: self.item()?,
            ..Member::default()
        };
        while self.eat(';') {
            self.skip(&[' ']);
            let key = self.run(|c| c.is_ascii_lowercase() || c.is_ascii_digit() || "_-.*".contains(c))?;
            let value = if self.eat('=') { self.item()? } else { String::new() };
            match &*key {
                "error" => member.error = Some(value),
                "details" => member.details = Some(value),
                _ => {}
            }
        }
        Some(member)
    }

    /// A bare item: a string, or anything that has no quotes, commas and semicolons, which all other kinds are.
    fn item(&mut self) -> Option<String> {
        if !self.eat('"') {
            return self.run(|c| c.is_ascii_graphic() && !"\",;()".contains(c));
        }
        let mut text = String::new();
        let mut chars = self.0.chars();
        loop {
            match chars.next()? {
                '"' => break,
                '\\' => text.push(chars.next().filter(|c| matches!(c, '"' | '\\'))?),
                c @ ' '..='~' => text.push(c),
                _ => return None,
            }
        }
        self.0 = chars.as_str();
        Some(text)
    }

    /// As many of such characters as there are, at least one.
    fn run(&mut self, is_part: impl Fn(char) -> bool) -> Option<String> {
        let end = self.0.find(|c| !is_part(c)).unwrap_or(self.0.len());
        let (run, rest) = self.0.split_at(end);
        self.0 = rest;
        (!run.is_empty()).then(|| run.to_owned())
    }
}

/// A bare item: a token if the text can be one, else a string (RFC 9651 §3.3.3 and §3.3.4).
struct Item<'a>(&'a str);

impl fmt::Display for Item<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let starts = self.0.starts_with(|c: char| c.is_ascii_alphabetic() || c == '*');
        let is_token_byte = |byte: u8| byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~:/".contains(&byte);
        if starts && self.0.bytes().all(is_token_byte) {
            f.write_str(self.0)
        } else {
            write!(f, "{}", Quoted(self.0))
        }
    }
}

/// A string: printable ASCII with `"` and `\` escaped; whatever else there is becomes a question mark.
struct Quoted<'a>(&'a str);

impl fmt::Display for Quoted<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_char('"')?;
        for c in self.0.chars() {
            match c {
                '"' | '\\' => {
                    f.write_char('\\')?;
                    f.write_char(c)?;
                }
                ' '..='~' => f.write_char(c)?,
                _ => f.write_char('?')?,
            }
        }
        f.write_char('"')
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn who_refused_comes_before_who_passes_it_on() {
        let status = ProxyStatus {
            refused_by: "node-7",
            passed_on_by: Some("gw-1"),
            kind: RefusalKind::ConnectionRefused,
            details: "dial 10.0.0.1:443: connection refused",
        };
        assert_eq!(
            status.to_string(),
            r#"node-7; error=connection_refused; details="dial 10.0.0.1:443: connection refused", gw-1"#
        );
    }

    #[test]
    fn what_is_no_token_is_quoted() {
        let status = ProxyStatus {
            refused_by: "7.example",
            passed_on_by: None,
            kind: RefusalKind::HttpRequestError,
            details: "say \"hé\\llo\"",
        };
        assert_eq!(
            status.to_string(),
            r#""7.example"; error=http_request_error; details="say \"h?\\llo\"""#
        );
    }

    #[test]
    fn values_of_others_are_understood() {
        use RefusalKind as Kind;
        for (field, proxy, kind, details) in [
            (
                "envoy;error=dns_error;rcode=NXDOMAIN",
                "envoy",
                Some(Kind::DnsError),
                "",
            ),
            (
                r#"envoy; error=connection_timeout; details="UF,URX""#,
                "envoy",
                Some(Kind::ConnectionTimeout),
                "UF,URX",
            ),
            (
                r#"origin;next-hop="10.0.0.1:443";received-status=503;x, "a \"b\"" ;error=tls_alert_received"#,
                "",
                None,
                "",
            ),
            (
                r#"first;received-status=503;x,	"a \"b\"";error=tls_alert_received;alert-id=40"#,
                r#"a "b""#,
                Some(Kind::ConnectionTerminated),
                "",
            ),
            (
                "p;error=http_response_body_size",
                "p",
                Some(Kind::ConnectionTerminated),
                "",
            ),
            ("p;error=proxy_internal_response", "p", None, ""),
            ("p;error=of_tomorrow", "p", None, ""),
        ] {
            let seen = ProxyError::parse(field);
            if proxy.is_empty() {
                assert_eq!(seen, None, "{field}");
                continue;
            }
            let expected = ProxyError {
                proxy: proxy.into(),
                kind,
                details: details.into(),
            };
            assert_eq!(seen, Some(expected), "{field}");
        }
    }

    #[test]
    fn what_says_nothing_of_an_error_is_none() {
        for field in [
            "",
            "envoy",
            "envoy, gw",
            ";error=dns_error",
            "a;error=",
            "a;error=\"x",
            "(a b);error=dns_error",
        ] {
            assert_eq!(ProxyError::parse(field), None, "{field}");
        }
    }

    proptest! {
        #[test]
        fn no_text_leaves_its_quotes(text in any::<String>()) {
            let quoted = Quoted(&text).to_string();
            prop_assert!(quoted.bytes().all(|byte| (b' '..=b'~').contains(&byte)));
            let inner = quoted.strip_prefix('"').and_then(|rest| rest.strip_suffix('"')).unwrap();
            let mut rest = inner.chars();
            while let Some(c) = rest.next() {
                prop_assert_ne!(c, '"');
                if c == '\\' {
                    prop_assert!(matches!(rest.next(), Some('"' | '\\')));
                }
            }
        }

        #[test]
        fn what_is_written_is_read(proxy in "[ -~]{1,40}", details in "[ -~]{0,60}", at in 0..RefusalKind::ALL.len()) {
            let kind = RefusalKind::ALL[at];
            let status = ProxyStatus { refused_by: &proxy, passed_on_by: Some("gw"), kind, details: &details };
            let seen = ProxyError::parse(&status.to_string());
            let expected = ProxyError { proxy: Text::new(&proxy), kind: Some(kind), details: Text::new(&details) };
            prop_assert_eq!(seen, Some(expected));
        }

        #[test]
        fn anything_may_come(field in any::<String>()) {
            let _ = ProxyError::parse(&field);
        }
    }
}
