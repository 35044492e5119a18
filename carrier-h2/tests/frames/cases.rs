//! What is sent.

pub(crate) const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";

pub(crate) const DATA: u8 = 0;
pub(crate) const HEADERS: u8 = 1;
pub(crate) const PRIORITY: u8 = 2;
pub(crate) const RST_STREAM: u8 = 3;
pub(crate) const SETTINGS: u8 = 4;
pub(crate) const PUSH_PROMISE: u8 = 5;
pub(crate) const PING: u8 = 6;
pub(crate) const GOAWAY: u8 = 7;
pub(crate) const WINDOW_UPDATE: u8 = 8;
pub(crate) const CONTINUATION: u8 = 9;

const END_STREAM: u8 = 0x1;
const END_HEADERS: u8 = 0x4;
pub(crate) const PADDED: u8 = 0x8;
pub(crate) const PRIORITISED: u8 = 0x20;

/// What is sent behind a beginning that opens stream 1 and answers it.
pub(crate) struct Case {
    pub(crate) what: &'static str,
    pub(crate) bytes: Vec<u8>,
}

impl Case {
    /// Whether it breaks no rule.
    pub(crate) fn is_fine(&self) -> bool {
        self.what.starts_with("fine: ")
    }
}

/// A frame (§4.1).
pub(crate) fn frame(kind: u8, flags: u8, stream: u32, payload: &[u8]) -> Vec<u8> {
    let len = u32::try_from(payload.len()).unwrap().to_be_bytes();
    let mut frame = vec![len[1], len[2], len[3], kind, flags];
    frame.extend_from_slice(&stream.to_be_bytes());
    frame.extend_from_slice(payload);
    frame
}

/// Fields that leave no trace in the table (RFC 7541 §6.2.2).
fn fields(fields: &[(&str, &str)]) -> Vec<u8> {
    let text = |text: &str| [&[u8::try_from(text.len()).unwrap()], text.as_bytes()].concat();
    let field = |(name, value): &(&str, &str)| [vec![0], text(name), text(value)].concat();
    fields.iter().flat_map(field).collect()
}

const REQUEST: [(&str, &str); 4] = [
    (":method", "GET"),
    (":scheme", "http"),
    (":authority", "x"),
    (":path", "/"),
];

/// A request on a stream.
fn request(stream: u32, flags: u8, add: &[(&str, &str)]) -> Vec<u8> {
    headers(stream, flags, &[&REQUEST, add].concat())
}

fn headers(stream: u32, flags: u8, list: &[(&str, &str)]) -> Vec<u8> {
    frame(HEADERS, flags | END_HEADERS, stream, &fields(list))
}

fn setting(id: u16, value: u32) -> Vec<u8> {
    frame(SETTINGS, 0, 0, &[&id.to_be_bytes()[..], &value.to_be_bytes()].concat())
}

/// The request for the control stream.
pub(crate) fn control_request() -> Vec<u8> {
    let control = [
        (":method", "POST"),
        (":scheme", "http"),
        (":authority", "tunnel"),
        (":path", "/control"),
    ];
    headers(1, 0, &control)
}

/// The preface, and the request for the control stream.
pub(crate) fn begin_as_client() -> Vec<u8> {
    [PREFACE.to_vec(), frame(SETTINGS, 0, 0, &[]), control_request()].concat()
}

/// The settings, and the response to the control stream.
pub(crate) fn begin_as_server() -> Vec<u8> {
    let response = [(":status", "200"), ("tunnel-max-streams", "16")];
    [frame(SETTINGS, 0, 0, &[]), headers(1, 0, &response)].concat()
}

fn cases<const N: usize>(cases: [(&'static str, Vec<u8>); N]) -> Vec<Case> {
    cases.into_iter().map(|(what, bytes)| Case { what, bytes }).collect()
}

/// What neither end may send.
pub(crate) fn of_either() -> Vec<Case> {
    let half = |stream| frame(HEADERS, 0, stream, &fields(&REQUEST));
    cases([
        (
            "fine: a frame of an unknown kind (§4.1)",
            frame(0x42, 0xff, 0, b"what?"),
        ),
        ("fine: one on a stream", frame(0x42, 0, 1, b"what?")),
        ("fine: an unknown setting (§6.5.2)", setting(0x4242, 7)),
        ("fine: PING with unknown flags (§4.1)", frame(PING, 0xf0, 0, &[7; 8])),
        (
            "fine: an answer to a PING that was not sent",
            frame(PING, 1, 0, &[7; 8]),
        ),
        (
            "fine: PRIORITY of an idle stream (§5.3.2)",
            frame(PRIORITY, 0, 9, &[0, 0, 0, 1, 7]),
        ),
        (
            "fine: a reserved bit in a stream's number (§4.1)",
            frame(PRIORITY, 0, 0x8000_0001, &[0, 0, 0, 9, 7]),
        ),
        (
            "a frame longer than was allowed (§4.2)",
            frame(DATA, 0, 1, &vec![0; 70_000]),
        ),
        (
            "a long frame of headers (§4.2)",
            frame(HEADERS, END_HEADERS, 1, &vec![0; 70_000]),
        ),
        ("DATA of no stream (§6.1)", frame(DATA, 0, 0, b"x")),
        ("DATA of an idle stream (§5.1)", frame(DATA, 0, 7, b"x")),
        (
            "DATA of an idle stream of the other end (§5.1)",
            frame(DATA, 0, 2, b"x"),
        ),
        (
            "DATA padded with all there is (§6.1)",
            frame(DATA, PADDED, 1, &[3, 0, 0]),
        ),
        ("DATA padded, and empty (§6.1)", frame(DATA, PADDED, 1, &[])),
        ("HEADERS of no stream (§6.2)", headers(0, 0, &REQUEST)),
        ("HEADERS of a stream of the other end (§5.1.1)", headers(2, 0, &REQUEST)),
        (
            "HEADERS padded with all there is (§6.2)",
            frame(HEADERS, PADDED | END_HEADERS, 3, &[9, 0x82]),
        ),
        (
            "HEADERS that depend on themselves (§5.3.1)",
            frame(
                HEADERS,
                PRIORITISED | END_HEADERS,
                3,
                &[0, 0, 0, 3, 7, 0x82, 0x86, 0x84],
            ),
        ),
        (
            "HEADERS too short for their priority (§6.2)",
            frame(HEADERS, PRIORITISED | END_HEADERS, 3, &[0, 0, 0]),
        ),
        (
            "HPACK: index 0 (RFC 7541 §6.1)",
            frame(HEADERS, END_HEADERS, 3, &[0x80]),
        ),
        (
            "HPACK: an index of nothing (RFC 7541 §2.3.3)",
            frame(HEADERS, END_HEADERS, 3, &[0xc6]),
        ),
        (
            "HPACK: a number without end (RFC 7541 §5.1)",
            frame(HEADERS, END_HEADERS, 3, &[0xff; 40]),
        ),
        (
            "HPACK: a text that is cut off (RFC 7541 §5.2)",
            frame(HEADERS, END_HEADERS, 3, &[0, 9, b'x']),
        ),
        (
            "HPACK: Huffman padded with a whole byte (RFC 7541 §5.2)",
            frame(HEADERS, END_HEADERS, 3, &[0, 0x82, 0xff, 0xff, 0]),
        ),
        (
            "HPACK: a table larger than allowed (RFC 7541 §6.3)",
            frame(HEADERS, END_HEADERS, 3, &[0x3f, 0xe1, 0xff, 3]),
        ),
        (
            "HPACK: a change of size behind fields (RFC 7541 §4.2)",
            frame(HEADERS, END_HEADERS, 3, &[0x82, 0x86, 0x84, 0x20]),
        ),
        ("PRIORITY of no stream (§6.3)", frame(PRIORITY, 0, 0, &[0, 0, 0, 1, 7])),
        (
            "PRIORITY of a wrong length (§6.3)",
            frame(PRIORITY, 0, 1, &[0, 0, 0, 3]),
        ),
        (
            "PRIORITY that depends on itself (§5.3.1)",
            frame(PRIORITY, 0, 1, &[0, 0, 0, 1, 7]),
        ),
        ("RST_STREAM of no stream (§6.4)", frame(RST_STREAM, 0, 0, &[0; 4])),
        ("RST_STREAM of an idle stream (§6.4)", frame(RST_STREAM, 0, 9, &[0; 4])),
        ("RST_STREAM of a wrong length (§6.4)", frame(RST_STREAM, 0, 1, &[0; 3])),
        ("SETTINGS of a stream (§6.5)", frame(SETTINGS, 0, 1, &[])),
        ("SETTINGS of a wrong length (§6.5)", frame(SETTINGS, 0, 0, &[0; 5])),
        (
            "SETTINGS that confirm with content (§6.5)",
            frame(SETTINGS, 1, 0, &[0; 6]),
        ),
        ("SETTINGS: to push a little (§6.5.2)", setting(2, 2)),
        ("SETTINGS: a window too large (§6.5.2)", setting(4, 1 << 31)),
        ("SETTINGS: frames too short (§6.5.2)", setting(5, 16_383)),
        ("SETTINGS: frames too long (§6.5.2)", setting(5, 1 << 24)),
        (
            "SETTINGS that make a window overflow (§6.9.2)",
            [frame(WINDOW_UPDATE, 0, 1, &[0x7f, 0xff, 0, 0]), setting(4, 0x7fff_ffff)].concat(),
        ),
        ("PING of a stream (§6.7)", frame(PING, 0, 1, &[0; 8])),
        ("PING of a wrong length (§6.7)", frame(PING, 0, 0, &[0; 7])),
        ("GOAWAY of a stream (§6.8)", frame(GOAWAY, 0, 1, &[0; 8])),
        ("GOAWAY of a wrong length (§6.8)", frame(GOAWAY, 0, 0, &[0; 7])),
        ("WINDOW_UPDATE by nothing (§6.9)", frame(WINDOW_UPDATE, 0, 0, &[0; 4])),
        (
            "WINDOW_UPDATE of a stream by nothing (§6.9)",
            frame(WINDOW_UPDATE, 0, 1, &[0; 4]),
        ),
        (
            "WINDOW_UPDATE of an idle stream (§5.1)",
            frame(WINDOW_UPDATE, 0, 9, &[0, 0, 0, 1]),
        ),
        (
            "WINDOW_UPDATE of a wrong length (§6.9)",
            frame(WINDOW_UPDATE, 0, 0, &[0; 3]),
        ),
        (
            "a window that overflows (§6.9.1)",
            frame(WINDOW_UPDATE, 0, 0, &[0x7f, 0xff, 0xff, 0xff]),
        ),
        (
            "a stream's window that overflows (§6.9.1)",
            frame(WINDOW_UPDATE, 0, 1, &[0x7f, 0xff, 0xff, 0xff]),
        ),
        (
            "CONTINUATION of nothing (§6.10)",
            frame(CONTINUATION, END_HEADERS, 1, &[]),
        ),
        (
            "CONTINUATION of no stream (§6.10)",
            frame(CONTINUATION, END_HEADERS, 0, &[]),
        ),
        (
            "HEADERS, then PING (§6.2)",
            [half(3), frame(PING, 0, 0, &[0; 8])].concat(),
        ),
        ("HEADERS, then DATA (§6.2)", [half(3), frame(DATA, 0, 3, b"x")].concat()),
        (
            "HEADERS, then a frame of an unknown kind (§5.5)",
            [half(3), frame(0x42, 0, 3, b"x")].concat(),
        ),
        (
            "HEADERS, then CONTINUATION of another (§6.10)",
            [half(3), frame(CONTINUATION, END_HEADERS, 5, &[])].concat(),
        ),
    ])
}

/// What a client may not send besides.
pub(crate) fn of_clients() -> Vec<Case> {
    let open = request(3, 0, &[]);
    let ended = request(3, END_STREAM, &[]);
    let without = |name: &str| {
        let list: Vec<_> = REQUEST.iter().copied().filter(|(known, _)| *known != name).collect();
        headers(3, 0, &list)
    };
    let with = |add: &[(&str, &str)]| request(3, 0, add);
    let connect = |add: &[(&str, &str)]| headers(3, 0, &[&[(":method", "CONNECT")], add].concat());
    cases([
        ("fine: a request, padded", {
            let padded = [&[3][..], &fields(&REQUEST), &[0; 3]].concat();
            frame(HEADERS, PADDED | END_HEADERS, 3, &padded)
        }),
        (
            "fine: a request in two frames",
            [
                frame(HEADERS, 0, 3, &fields(&REQUEST[..2])),
                frame(CONTINUATION, END_HEADERS, 3, &fields(&REQUEST[2..])),
            ]
            .concat(),
        ),
        ("a stream of an even number (§5.1.1)", request(4, 0, &[])),
        (
            "a stream of a lower number (§5.1.1)",
            [request(5, END_STREAM, &[]), request(3, 0, &[])].concat(),
        ),
        (
            "DATA behind the end (§5.1)",
            [ended.clone(), frame(DATA, 0, 3, b"x")].concat(),
        ),
        (
            "HEADERS behind the end (§5.1)",
            [ended.clone(), request(3, 0, &[])].concat(),
        ),
        (
            "CONTINUATION behind the end of headers (§6.10)",
            [open.clone(), frame(CONTINUATION, END_HEADERS, 3, &[])].concat(),
        ),
        (
            "trailers that do not end the stream (§8.1)",
            [open.clone(), headers(3, 0, &[("x", "y")])].concat(),
        ),
        (
            "trailers with a pseudo-header (§8.1)",
            [open.clone(), headers(3, END_STREAM, &[(":path", "/")])].concat(),
        ),
        (
            "PUSH_PROMISE from a client (§8.4)",
            frame(PUSH_PROMISE, END_HEADERS, 1, &[0, 0, 0, 2]),
        ),
        ("a name in upper case (§8.2.1)", with(&[("X-Upper", "y")])),
        (
            "a pseudo-header behind fields (§8.3)",
            with(&[("x", "y"), (":path", "/")]),
        ),
        ("a pseudo-header twice (§8.3)", with(&[(":method", "GET")])),
        ("an unknown pseudo-header (§8.3)", with(&[(":what", "y")])),
        ("a pseudo-header of responses (§8.3)", with(&[(":status", "200")])),
        ("no method (§8.3.1)", without(":method")),
        ("no scheme (§8.3.1)", without(":scheme")),
        ("no path (§8.3.1)", without(":path")),
        (
            "an empty path (§8.3.1)",
            headers(
                3,
                0,
                &[
                    (":method", "GET"),
                    (":scheme", "http"),
                    (":authority", "x"),
                    (":path", ""),
                ],
            ),
        ),
        ("Connection (§8.2.2)", with(&[("connection", "keep-alive")])),
        ("TE other than trailers (§8.2.2)", with(&[("te", "gzip")])),
        (
            "less content than announced (§8.1.1)",
            [with(&[("content-length", "5")]), frame(DATA, END_STREAM, 3, b"x")].concat(),
        ),
        (
            "more content than announced (§8.1.1)",
            [with(&[("content-length", "1")]), frame(DATA, 0, 3, b"xyz")].concat(),
        ),
        (
            "CONNECT with a path (§8.5)",
            connect(&[(":authority", "x:1"), (":path", "/")]),
        ),
        (
            "CONNECT with a scheme (§8.5)",
            connect(&[(":authority", "x:1"), (":scheme", "http")]),
        ),
        ("CONNECT to nowhere (§8.5)", connect(&[])),
        (
            "an extension of CONNECT that was not offered (RFC 8441 §3)",
            connect(&[
                (":protocol", "x"),
                (":authority", "x:1"),
                (":scheme", "http"),
                (":path", "/"),
            ]),
        ),
    ])
}

/// What a server may not send besides.
pub(crate) fn of_servers() -> Vec<Case> {
    let status = [(":status", "200")];
    cases([
        ("PUSH_PROMISE (§8.4)", {
            let promise = [&[0, 0, 0, 2][..], &fields(&REQUEST)].concat();
            frame(PUSH_PROMISE, END_HEADERS, 1, &promise)
        }),
        ("a response to nothing (§5.1)", headers(3, 0, &status)),
        ("a second response (§8.1)", headers(1, 0, &status)),
        (
            "trailers that do not end the stream (§8.1)",
            headers(1, 0, &[("x", "y")]),
        ),
        ("trailers with a pseudo-header (§8.1)", headers(1, END_STREAM, &status)),
        (
            "a name in upper case (§8.2.1)",
            headers(1, END_STREAM, &[("X-Upper", "y")]),
        ),
        ("SETTINGS: a server that wants pushes (§6.5.2)", setting(2, 1)),
    ])
}
